//! A lock on a directory (flock), which is waited for and names who holds it.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Stat, flock, fstat, major, minor};
use rustix::io::Errno;

use super::escape::{escaped, escaped_path};
use super::failure::{Failure, FailureKind};

/// Where procfs is.
pub const PROC: &str = "/proc";

const POLL: Duration = Duration::from_millis(50);

/// Why it isn't locked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotLocked {
    /// Somebody held it all the time; who, where that can be seen.
    Held(Option<String>),
    /// The operating system's error.
    Failed(Errno),
}

impl NotLocked {
    /// The fact about this directory for people.
    #[must_use]
    pub fn failure(self, path: &Path) -> Failure {
        match self {
            Self::Held(by) => {
                let (shown, by) = (escaped_path(path), by.unwrap_or_else(|| "another run".to_owned()));
                let fact = format!("{shown} is locked by {by}; wait for it to end, or end it");
                Failure::new(FailureKind::Lock, fact)
            }
            Self::Failed(e) => Failure::io("lock", path, &e.into()),
        }
    }
}

/// Locks the directory, waiting as long as `patience`: whoever may open it may hold its lock, and for ever.
///
/// # Errors
/// It is held, or has no lock.
pub fn lock(folder: &OwnedFd, patience: Duration, proc: &Path) -> Result<(), NotLocked> {
    let until = Instant::now() + patience;
    loop {
        match flock(folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(Errno::WOULDBLOCK) if Instant::now() < until => sleep(POLL),
            Err(Errno::WOULDBLOCK) => return Err(NotLocked::Held(holder(folder, proc))),
            Err(Errno::INTR) => {}
            Err(e) => return Err(NotLocked::Failed(e)),
        }
    }
}

/// Who holds the lock, as `/proc/locks` (proc(5)) tells it: `process 17 (flock -s /srv/fleet sleep 9)`.
fn holder(folder: impl AsFd, proc: &Path) -> Option<String> {
    let stat = fstat(folder).ok()?;
    let locks = std::fs::read_to_string(proc.join("locks")).ok()?;
    let pid = holder_in(&locks, &stat)?;
    let line = std::fs::read(proc.join(pid).join("cmdline")).unwrap_or_default();
    let words: Vec<String> = line
        .split(|&byte| byte == 0)
        .filter(|word| !word.is_empty())
        .map(|word| escaped(word).to_string())
        .collect();
    Some(if words.is_empty() {
        format!("process {pid}")
    } else {
        format!("process {pid} ({})", words.join(" "))
    })
}

/// The process whose lock this is. Some file systems (btrfs) have another number in this list than `fstat` gives.
fn holder_in<'a>(locks: &'a str, stat: &Stat) -> Option<&'a str> {
    let inode = stat.st_ino.to_string();
    let whole = format!("{:02x}:{:02x}:{inode}", major(stat.st_dev), minor(stat.st_dev));
    let held = || {
        locks.lines().filter_map(|line| {
            // `1: FLOCK  ADVISORY  READ 17 fe:01:4711 0 EOF`; who waits has an arrow before it.
            let mut words = line.split_whitespace().skip(1);
            let (kind, pid, file) = (words.next()?, words.nth(2)?, words.next()?);
            // 0: it is in another namespace.
            (kind == "FLOCK" && pid != "0").then_some((pid, file))
        })
    };
    let found = held().find(|(_, file)| *file == whole);
    let alike = || held().find(|(_, file)| file.rsplit(':').next() == Some(inode.as_str()));
    found.or_else(alike).map(|(pid, _)| pid)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn who_holds_it_is_found_among_all_locks() {
        let folder = tempfile::tempdir().unwrap();
        let stat = fstat(File::open(folder.path()).unwrap()).unwrap();
        let (inode, device) = (stat.st_ino, (major(stat.st_dev), minor(stat.st_dev)));
        let line = |kind: &str, pid: u32, (major, minor): (u32, u32)| {
            format!("1: {kind}  ADVISORY  READ {pid} {major:02x}:{minor:02x}:{inode} 0 EOF\n")
        };
        let other = (device.0 + 1, device.1);
        let all = |lines: &[String]| holder_in(&lines.concat(), &stat).map(str::to_owned);
        assert_eq!(
            all(&[line("FLOCK", 1, other), line("POSIX", 2, device), line("FLOCK", 3, device)]).unwrap(),
            "3"
        );
        assert_eq!(all(&[line("FLOCK", 1, other)]).unwrap(), "1", "another number for the same device");
        assert_eq!(all(&[line("-> FLOCK", 1, device), line("FLOCK", 0, device)]), None);
        assert_eq!(all(&["1:\n".to_owned(), "\n".to_owned()]), None);
    }
}
