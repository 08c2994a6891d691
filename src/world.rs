//! The world outside: where the kernel, systemd, syslog and other programs are found.
//!
//! One value, so that a test can put its own in the place of the host's.

use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

/// The places outside the program that it relies on.
#[derive(Debug, Clone)]
pub struct World {
    /// Where procfs is mounted.
    pub proc: PathBuf,
    /// The runtime directory: `systemd/system` below it exists where systemd is PID 1 (`sd_booted(3)`).
    pub run: PathBuf,
    /// The datagram socket of the system log.
    pub syslog: PathBuf,
    /// Where programs are looked for, in this order. A hook's environment isn't trusted: `PATH` is never used.
    pub programs: Vec<PathBuf>,
}

impl World {
    /// The world of this host.
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

    /// The absolute path of program `name`; a name with a slash is a path already.
    #[must_use]
    pub fn program(&self, name: &str) -> Option<PathBuf> {
        if name.contains('/') {
            return Some(PathBuf::from(name)).filter(|path| path.is_absolute() && is_program(path));
        }
        self.programs.iter().map(|folder| folder.join(name)).find(|path| is_program(path))
    }

    /// Whether systemd is PID 1 here (`sd_booted(3)`).
    #[must_use]
    pub fn has_systemd(&self) -> bool {
        self.run.join("systemd/system").is_dir()
    }
}

fn is_program(path: &Path) -> bool {
    path.is_file() && access(path, Access::EXEC_OK).is_ok()
}
