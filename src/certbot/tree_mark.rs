//! What certbot's tree looks like from outside, to see whether it changed while a run worked.
//!
//! systemd loses what a path unit would have seen while the service that it starts is still running (its inotify watch is
//! off until then): a run that began before rsync was done looks again by itself.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, fstat, openat, statat};

use crate::certbot::certbot_dir;
use crate::config::Settings;
use crate::index::entry::Look;
use crate::sys::parallel;

/// Names that are looked at together.
const TOGETHER: usize = 256;

/// When each directory and renewal configuration was changed last: by its inode, the time of a change, which no program can
/// set. rsync sets the other times to those of its source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeMark(Vec<(u64, i128)>);

impl TreeMark {
    /// How the tree is now: `live`, what is in it, and the renewal configurations beside it.
    #[must_use]
    pub fn look(settings: &Settings) -> Self {
        let renewal = certbot_dir(settings).map(|folder| folder.join("renewal"));
        let folders = [Some(settings.live_dir.clone()), renewal];
        let mut marks: Vec<_> = folders.iter().flatten().filter_map(|path| marks(path)).flatten().collect();
        marks.sort_unstable();
        Self(marks)
    }
}

/// The marks of a directory and of all that is in it.
fn marks(folder: &Path) -> Option<Vec<(u64, i128)>> {
    let dir =
        openat(CWD, folder, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let names: Vec<_> =
        Dir::read_from(&dir).ok()?.flatten().map(|entry| entry.file_name().to_owned()).collect();
    let chunks: Vec<&[_]> = names.chunks(TOGETHER).collect();
    let look = |chunk: &&[std::ffi::CString]| -> Vec<_> {
        chunk.iter().filter(|name| name.as_bytes() != b"..").filter_map(|name| mark(&dir, name)).collect()
    };
    Some(parallel::map(&chunks, look, &|_, _| ()).into_iter().flatten().collect())
}

fn mark(dir: &OwnedFd, name: &std::ffi::CStr) -> Option<(u64, i128)> {
    let stat = match name.to_bytes() {
        b"." => fstat(dir),
        _ => statat(dir.as_fd(), name, AtFlags::empty()),
    };
    let look = Look::of(&stat.ok()?);
    Some((look.inode, look.changed))
}

#[cfg(test)]
mod tests {
    use std::fs;

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
