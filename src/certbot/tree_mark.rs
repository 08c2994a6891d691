//! What certbot's tree looks like from outside, to see whether it changed while a run worked.
//!
//! systemd loses what a path unit would have seen while the service that it starts is still running (its inotify watch is
//! off until then): a run that began before rsync was done looks again by itself.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::commands::issue::certbot_dir;
use crate::config::Settings;

/// When each directory and renewal configuration was changed last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeMark(Vec<(PathBuf, i64, i64)>);

impl TreeMark {
    /// How the tree is now: `live`, what is in it, and the renewal configurations beside it.
    #[must_use]
    pub fn look(settings: &Settings) -> Self {
        let renewal = certbot_dir(settings).map(|folder| folder.join("renewal"));
        let mut marks = Vec::new();
        for folder in [Some(settings.live_dir.clone()), renewal].into_iter().flatten() {
            let entries = fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path());
            marks.extend(entries.filter_map(|path| mark(&path)));
            marks.extend(mark(&folder));
        }
        marks.sort();
        Self(marks)
    }
}

/// The time of a change, which no program can set: rsync sets the other times to those of its source.
fn mark(path: &Path) -> Option<(PathBuf, i64, i64)> {
    let found = fs::metadata(path).ok()?;
    Some((path.to_owned(), found.ctime(), found.ctime_nsec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Overrides;

    #[test]
    fn a_renewal_a_new_lineage_and_a_deletion_are_seen() {
        let folder = tempfile::tempdir().unwrap();
        let (live, renewal) = (folder.path().join("live"), folder.path().join("renewal"));
        fs::create_dir_all(live.join("a.test")).unwrap();
        fs::create_dir(&renewal).unwrap();
        fs::write(renewal.join("a.test.conf"), "").unwrap();
        let flags = Overrides { live_dir: Some(live.clone()), ..Overrides::default() };
        let settings = Settings::parse("", &flags).unwrap();
        let mut last = TreeMark::look(&settings);
        assert_eq!(TreeMark::look(&settings), last);
        let changes: [&dyn Fn(); 4] = [
            &|| std::os::unix::fs::symlink("x", live.join("a.test/privkey.pem")).unwrap(),
            &|| fs::write(renewal.join("a.test.conf"), "version").unwrap(),
            &|| fs::create_dir(live.join("b.test")).unwrap(),
            &|| fs::remove_file(renewal.join("a.test.conf")).unwrap(),
        ];
        for change in changes {
            // The kernel's clock for files is some milliseconds coarse.
            std::thread::sleep(std::time::Duration::from_millis(20));
            change();
            let now = TreeMark::look(&settings);
            assert_ne!(now, last);
            last = now;
        }
    }
}
