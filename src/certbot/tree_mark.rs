//! Whether certbot's tree changed while a run worked.
//!
//! systemd loses what a path unit would have seen while the service that it starts is still running (its inotify watch is
//! off until then): a run that began before rsync was done looks again by itself.
//!
//! Links that are swapped change their lineage's directory, a lineage that comes or goes changes `live`, and a renewal
//! configuration, which certbot and rsync rename into place, its folder. The time of a change is the kernel's, and no
//! program can set it: whatever has a later one than the run's begin changed since. Where another machine's clock sets it
//! the tree is looked at twice.

use std::ffi::CString;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fstat, fstatfs, openat, statat};

use crate::certbot::certbot_dir;
use crate::config::Settings;
use crate::index::entry::Look;
use crate::index::trust::keeps_change_times;
use crate::sys::clock::Moment;
use crate::sys::parallel;

/// Names that a thread looks at together, and that are kept at once.
const TOGETHER: usize = 256;
const AT_ONCE: usize = 16 * TOGETHER;

/// What is on another file system than `live` may have its times from another clock: it counts as changed this much earlier,
/// in nanoseconds.
const ELSEWHERE: i128 = 60_000_000_000;

/// How the tree was when a run began to look at it.
#[derive(Debug, Clone)]
pub struct TreeMark {
    began: Moment,
    /// `live` and the folder of renewal configurations, where they were there.
    folders: [Option<Folder>; 2],
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Folder {
    identity: (u64, u64),
    /// The inode of the folder and of each of its directories, and when it was changed; `None`: the clock tells.
    changes: Option<Vec<(u64, i128)>>,
}

impl TreeMark {
    /// How the tree is now.
    #[must_use]
    pub fn look(settings: &Settings) -> Self {
        let began = Moment::now();
        Self { began, folders: paths(settings).map(|path| Folder::look(&path?)) }
    }

    /// Nothing of the tree has been read until now: whatever changed before will be.
    pub fn begins_now(&mut self) {
        self.began = Moment::now();
    }

    /// Whether it has changed since.
    #[must_use]
    pub fn is_outdated(&self, settings: &Settings) -> bool {
        let is_live = [true, false];
        let folders = self.folders.iter().zip(paths(settings)).zip(is_live);
        self.began.was_set_until(&Moment::now())
            || folders.into_iter().any(|((before, path), is_live)| match (before, path) {
                (Some(before), Some(path)) => before.is_outdated(&path, is_live, self.began.tick),
                (None, Some(path)) => open(&path).is_some(),
                (_, None) => false,
            })
    }
}

fn paths(settings: &Settings) -> [Option<PathBuf>; 2] {
    [Some(settings.live_dir.clone()), certbot_dir(settings).map(|folder| folder.join("renewal"))]
}

fn open(path: &Path) -> Option<(OwnedFd, Look)> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let dir = openat(CWD, path, flags, Mode::empty()).ok()?;
    let look = Look::of(&fstat(&dir).ok()?);
    Some((dir, look))
}

impl Folder {
    fn look(path: &Path) -> Option<Self> {
        let (dir, look) = open(path)?;
        #[allow(clippy::unnecessary_cast, reason = "its type differs between architectures")]
        let by_our_clock = fstatfs(&dir).is_ok_and(|it| keeps_change_times(it.f_type as i64));
        let changes = (!by_our_clock).then(|| changes(&dir, &look));
        Some(Self { identity: (look.device, look.inode), changes })
    }

    /// Whether what is at this path now is another one, or was changed from `tick` on.
    fn is_outdated(&self, path: &Path, is_live: bool, tick: i128) -> bool {
        let Some((dir, look)) = open(path) else { return true };
        if self.identity != (look.device, look.inode) {
            return true;
        }
        if let Some(before) = &self.changes {
            return *before != changes(&dir, &look);
        }
        // Only directories are lineages. A file beside them is on another device where the tree is in an overlay.
        let is_newer = |stat: Stat| {
            if !FileType::from_raw_mode(stat.st_mode).is_dir() {
                return None;
            }
            let entry = Look::of(&stat);
            let since = if entry.device == look.device { tick } else { tick - ELSEWHERE };
            (entry.changed >= since).then_some(())
        };
        look.changed >= tick || is_live && !each(&dir, &is_newer).is_empty()
    }
}

/// When the folder and all that is in it was changed, in order.
fn changes(dir: &OwnedFd, folder: &Look) -> Vec<(u64, i128)> {
    let change = |stat: Stat| {
        let look = Look::of(&stat);
        Some((look.inode, look.changed))
    };
    let mut all = each(dir, &change);
    all.push((folder.inode, folder.changed));
    all.sort_unstable();
    all
}

/// What is said of each entry of a directory, links followed.
fn each<R: Send>(dir: &OwnedFd, say: &(impl Fn(Stat) -> Option<R> + Sync)) -> Vec<R> {
    let (mut said, mut names) = (Vec::new(), Vec::with_capacity(AT_ONCE));
    let look_at_all = |names: &[CString]| -> Vec<R> {
        let chunks: Vec<&[CString]> = names.chunks(TOGETHER).collect();
        let look = |chunk: &&[CString]| -> Vec<R> {
            let stats =
                chunk.iter().filter_map(|name| statat(dir.as_fd(), name.as_c_str(), AtFlags::empty()).ok());
            stats.filter_map(say).collect()
        };
        parallel::map(&chunks, look, &|_, _| ()).into_iter().flatten().collect()
    };
    let Ok(entries) = Dir::read_from(dir) else { return said };
    for entry in entries.flatten() {
        if matches!(entry.file_name().to_bytes(), b"." | b"..") {
            continue;
        }
        names.push(entry.file_name().to_owned());
        if names.len() == AT_ONCE {
            said.extend(look_at_all(&names));
            names.clear();
        }
    }
    said.extend(look_at_all(&names));
    said
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
        let readme = live.join("README");
        fs::write(&readme, "").unwrap();
        let flags = Overrides { live_dir: Some(live.clone()), ..Overrides::default() };
        let settings = Settings::parse("", &flags).unwrap();
        let changes: [&dyn Fn(); 6] = [
            &|| std::os::unix::fs::symlink("x", live.join("a.test/privkey.pem")).unwrap(),
            &|| {
                fs::write(renewal.join(".new"), "version").unwrap();
                fs::rename(renewal.join(".new"), renewal.join("a.test.conf")).unwrap();
            },
            &|| fs::create_dir(live.join("b.test")).unwrap(),
            &|| fs::rename(&live, folder.path().join("else")).unwrap(),
            &|| fs::rename(folder.path().join("else"), &live).unwrap(),
            &|| fs::remove_file(renewal.join("a.test.conf")).unwrap(),
        ];
        // By the clock, and where that isn't ours.
        for by_our_clock in [true, false] {
            let look = || {
                // The kernel's clock for files is some milliseconds coarse.
                std::thread::sleep(std::time::Duration::from_millis(20));
                let mut mark = TreeMark::look(&settings);
                for (folder, path) in mark.folders.iter_mut().zip([&live, &renewal]) {
                    let Some(folder) = folder else { continue };
                    assert_eq!(folder.changes, None, "a temporary directory is on a file system of ours");
                    let (dir, look) = open(path).unwrap();
                    folder.changes = (!by_our_clock).then(|| super::changes(&dir, &look));
                }
                mark
            };
            let mut mark = look();
            assert!(!mark.is_outdated(&settings));
            if by_our_clock {
                std::thread::sleep(std::time::Duration::from_millis(20));
                std::os::unix::fs::symlink("x", live.join("a.test/chain.pem")).unwrap();
                std::thread::sleep(std::time::Duration::from_millis(20));
                mark.begins_now();
                assert!(!mark.is_outdated(&settings), "what changed before it began");
            }
            drop(mark);
            if by_our_clock {
                let mark = look();
                std::thread::sleep(std::time::Duration::from_millis(20));
                fs::write(&readme, "what certbot tells its users").unwrap();
                assert!(!mark.is_outdated(&settings), "README is no lineage");
            }
            for (number, change) in changes.iter().enumerate() {
                let mark = look();
                std::thread::sleep(std::time::Duration::from_millis(20));
                change();
                assert!(mark.is_outdated(&settings), "{by_our_clock} {number}");
            }
            fs::remove_file(live.join("a.test/privkey.pem")).unwrap();
            fs::remove_dir(live.join("b.test")).unwrap();
            fs::write(renewal.join("a.test.conf"), "").unwrap();
        }
    }
}
