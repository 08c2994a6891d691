//! When a file was changed last: its contents, name, owner or mode (ctime, `inode(7)`), which no program can set.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags, openat2, statfs};

/// How many links are followed on the way to a file, as the kernel does (`path_resolution(7)`).
const MOST_LINKS: usize = 40;

/// The change time in a file's metadata; `None`: it is before 1970.
#[must_use]
pub fn change_time(meta: &Metadata) -> Option<SystemTime> {
    let seconds = Duration::from_secs(u64::try_from(meta.ctime()).ok()?);
    SystemTime::UNIX_EPOCH.checked_add(seconds + Duration::from_nanos(u64::try_from(meta.ctime_nsec()).ok()?))
}

/// Since when this path leads to the file as it is: the newest change time of it and of the links on the way, of which one
/// may lead to an old file now; `None`: it can't be looked at.
#[must_use]
pub fn changed_at(path: &Path) -> Option<SystemTime> {
    let of_file = change_time(&fs::metadata(path).ok()?)?;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    if openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS).is_ok() {
        return Some(of_file);
    }
    let of_links = links(path).into_iter().filter_map(|link| change_time(&link.symlink_metadata().ok()?));
    of_links.chain([of_file]).max()
}

/// When a file's contents came: its mtime, which any program can set, unless that is still to come.
#[must_use]
pub fn modified_at(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).ok()?.modified().ok().filter(|modified| *modified <= SystemTime::now())
}

/// The links on the way to a file.
fn links(path: &Path) -> Vec<PathBuf> {
    let mut links: Vec<PathBuf> = Vec::new();
    let mut open = vec![path.to_owned()];
    while let Some(path) = open.pop() {
        let mut way = PathBuf::new();
        for part in path.components() {
            way.push(part);
            let Ok(target) = fs::read_link(&way) else { continue };
            let folder = way.parent().unwrap_or(Path::new("."));
            // The root directory of a process is no link, and made when it is looked at.
            if statfs(folder).is_ok_and(|it| it.f_type == PROC_SUPER_MAGIC) {
                continue;
            }
            if links.len() == MOST_LINKS {
                return links;
            }
            open.push(folder.join(target));
            links.push(way.clone());
        }
    }
    links
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::thread::sleep;

    use super::*;

    #[test]
    fn a_link_that_leads_elsewhere_now_is_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["one", "other"] {
            fs::create_dir(at(name)).unwrap();
            fs::write(at(name).join("file"), name).unwrap();
        }
        symlink("one", at("current")).unwrap();
        symlink("current/file", at("link")).unwrap();
        for path in [at("current/file"), at("link")] {
            let before = changed_at(&path).unwrap();
            assert_eq!(changed_at(&path), Some(before));
            // Until the clock of the file system has gone on.
            while changed_at(&path) == Some(before) {
                sleep(Duration::from_millis(1));
                symlink("other", at("next")).unwrap();
                fs::rename(at("next"), at("current")).unwrap();
            }
            assert!(changed_at(&path) > Some(before));
            let of_file = change_time(&at("other/file").metadata().unwrap());
            assert_eq!(changed_at(&at("other/file")), of_file);
            let root = Path::new("/proc/self/root");
            let inside = at("other/file").canonicalize().unwrap();
            assert_eq!(changed_at(&root.join(inside.strip_prefix("/").unwrap())), of_file);
        }
        symlink("loop", at("loop")).unwrap();
        assert_eq!(changed_at(&at("loop")), None);
        assert_eq!(changed_at(&at("nowhere")), None);
    }
}
