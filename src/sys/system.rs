//! The system outside: where the kernel, systemd, syslog and other programs are found.
//!
//! One value, so that a test can put its own in the place of the host's.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use rustix::process::geteuid;

/// The places outside the program that it relies on.
#[derive(Debug, Clone)]
pub struct System {
    /// Where procfs is mounted.
    pub proc: PathBuf,
    /// The runtime directory: `systemd/system` below it exists where systemd is PID 1 (`sd_booted(3)`).
    pub run: PathBuf,
    /// The datagram socket of the system log.
    pub syslog: PathBuf,
    /// Where programs are looked for, in this order. A hook's environment isn't trusted: `PATH` is never used.
    pub programs: Vec<PathBuf>,
}

impl System {
    /// The system of this host.
    #[must_use]
    pub fn host() -> Self {
        Self {
            proc: "/proc".into(),
            run: "/run".into(),
            syslog: "/dev/log".into(),
            programs: [
                "/usr/local/sbin",
                "/usr/local/bin",
                "/usr/sbin",
                "/usr/bin",
                "/sbin",
                "/bin",
                "/snap/bin",
            ]
            .map(PathBuf::from)
            .into(),
        }
    }

    /// The absolute path of program `name`; a name with a slash is a path already. What others than root could put into
    /// one of the directories is passed over.
    #[must_use]
    pub fn program(&self, name: &str) -> Option<PathBuf> {
        if name.contains('/') {
            return Some(PathBuf::from(name)).filter(|path| path.is_absolute() && is_program(path));
        }
        let own = |folder: &&PathBuf| is_ours_alone(folder);
        let found = |path: &PathBuf| is_program(path) && is_ours_alone(path);
        self.programs.iter().filter(own).map(|folder| folder.join(name)).find(found)
    }

    /// Whether systemd is PID 1 here (`sd_booted(3)`).
    #[must_use]
    pub fn has_systemd(&self) -> bool {
        self.run.join("systemd/system").is_dir()
    }
}

/// Whether this path leads to a file that may be run.
#[must_use]
pub fn is_program(path: &Path) -> bool {
    path.is_file() && access(path, Access::EXEC_OK).is_ok()
}

/// Whether nobody but root, or who runs this, could put something else there.
fn is_ours_alone(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|meta| {
        [0, geteuid().as_raw()].contains(&meta.uid()) && meta.permissions().mode() & 0o002 == 0
    })
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};

    use super::*;

    #[test]
    fn what_anybody_could_put_there_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let [first, second] = ["first", "second"].map(|name| folder.path().join(name));
        for folder in [&first, &second] {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join("x"), "").unwrap();
            fs::set_permissions(folder.join("x"), Permissions::from_mode(0o755)).unwrap();
        }
        let system = System { programs: vec![first.clone(), second.clone()], ..System::host() };
        assert_eq!(system.program("x"), Some(first.join("x")));
        fs::set_permissions(&first, Permissions::from_mode(0o777)).unwrap();
        assert_eq!(system.program("x"), Some(second.join("x")));
        fs::set_permissions(second.join("x"), Permissions::from_mode(0o757)).unwrap();
        assert_eq!(system.program("x"), None);
        assert_eq!(system.program("y"), None);
    }
}
