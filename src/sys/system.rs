//! The system outside: where the kernel, systemd, syslog and other programs are found.
//!
//! One value, so that a test can put its own in the place of the host's.

use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use rustix::process::geteuid;

use super::escape::escaped;
use super::trusted::{Untrusted, trusted};

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

    /// The absolute path of program `name`; a name with a slash is a path already. What others than root and us could put
    /// into one of the directories is passed over.
    #[must_use]
    pub fn program(&self, name: &str) -> Option<PathBuf> {
        if name.contains('/') {
            return Some(PathBuf::from(name)).filter(|path| path.is_absolute() && is_program(path));
        }
        self.named(name).find(|path| why_passed_over(path).is_none())
    }

    /// Why there is no such program: one of this name may be passed over.
    #[must_use]
    pub fn missing(&self, name: &str) -> String {
        let why = (!name.contains('/')).then(|| self.named(name).find_map(|path| why_passed_over(&path)));
        match why.flatten() {
            Some(why) => why.to_string(),
            None => format!("there is no program {} here", escaped(name)),
        }
    }

    /// The programs of this name in their order.
    fn named(&self, name: &str) -> impl Iterator<Item = PathBuf> {
        self.programs.iter().map(move |folder| folder.join(name)).filter(|path| is_program(path))
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

/// Why a program isn't run: others could put something else in its place, or in that of a link to it.
fn why_passed_over(path: &Path) -> Option<Untrusted> {
    let us = geteuid().as_raw();
    let in_folder = |why| match why {
        Untrusted::Writable { place, .. } => Untrusted::Writable { place, program: path.to_owned() },
        unreadable @ Untrusted::Unreadable { .. } => unreadable,
    };
    let folder = path.parent().and_then(|folder| trusted(folder, us).err()).map(in_folder);
    folder.or_else(|| trusted(path, us).err())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, chown};

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
        // As Debian up to 12 has /usr/local/bin: of group staff, and writable for that.
        if geteuid().is_root() {
            fs::set_permissions(&first, Permissions::from_mode(0o2775)).unwrap();
            assert_eq!(system.program("x"), Some(first.join("x")), "of root's group");
            chown(&first, None, Some(50)).unwrap();
            fs::set_permissions(&first, Permissions::from_mode(0o2775)).unwrap();
            assert_eq!(system.program("x"), Some(second.join("x")));
        }
        fs::set_permissions(second.join("x"), Permissions::from_mode(0o757)).unwrap();
        assert_eq!(system.program("x"), None);
        let (missing, shown) = (system.missing("x"), first.join("x"));
        assert!(missing.ends_with(&format!("is writable by others, so we don't run {}", shown.display())));
        assert_eq!(system.program("y"), None);
        assert_eq!(system.missing("y"), "there is no program y here");
        // A link is what is found, and where it leads counts as well.
        let third = folder.path().join("third");
        fs::create_dir(&third).unwrap();
        std::os::unix::fs::symlink(second.join("x"), third.join("x")).unwrap();
        let system = System { programs: vec![third.clone()], ..System::host() };
        assert_eq!(system.program("x"), None);
        fs::set_permissions(second.join("x"), Permissions::from_mode(0o755)).unwrap();
        assert_eq!(system.program("x"), Some(third.join("x")));
    }
}
