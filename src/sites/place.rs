//! A directory that is held open.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, fchmod, fstat, fsync, mkdirat, open, openat};
use rustix::io::Errno;

use crate::sys::escape::escaped_path;
use crate::sys::failure::{Failure, FailureKind};

/// A directory that is held open, with its path for messages.
#[derive(Debug)]
pub struct Place {
    /// The directory itself.
    pub dir: OwnedFd,
    /// Its path, links resolved.
    pub path: PathBuf,
}

impl Place {
    /// Opens the directory at `path`, links resolved once; `None` where it doesn't exist.
    ///
    /// # Errors
    /// It is there and can't be opened as a directory.
    pub fn open(path: &Path) -> Result<Option<Self>, Failure> {
        let real = match std::fs::canonicalize(path) {
            Ok(real) => real,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Failure::io("open", path, &e)),
        };
        let dir = open(&real, directory_flags(), Mode::empty())
            .map_err(|e| Failure::io("open", &real, &e.into()))?;
        Ok(Some(Self { dir, path: real }))
    }

    pub(crate) fn subdirectory(&self, name: &str) -> Result<Option<Self>, Failure> {
        let path = self.path.join(name);
        match openat(&self.dir, name, directory_flags(), Mode::empty()) {
            Ok(dir) => Ok(Some(Self { dir, path })),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(Failure::io("open", &path, &e.into())),
        }
    }

    /// A private directory of ours inside this one, made where it is missing.
    pub(crate) fn private_subdirectory(&self, name: &str) -> Result<Self, Failure> {
        let path = self.path.join(name);
        let fail = |e: Errno| Failure::io("create", &path, &e.into());
        match mkdirat(&self.dir, name, Mode::RWXU) {
            // What is remembered in it must not be lost with its name.
            Ok(()) => fsync(&self.dir).map_err(fail)?,
            Err(Errno::EXIST) => {}
            Err(e) => return Err(fail(e)),
        }
        let dir = openat(&self.dir, name, directory_flags(), Mode::empty()).map_err(fail)?;
        let (stat, parent) = (fstat(&dir).map_err(fail)?, fstat(&self.dir).map_err(fail)?);
        let ourselves = rustix::process::geteuid().as_raw();
        if stat.st_uid != ourselves && stat.st_uid != 0 {
            let fact =
                format!("{} belongs to user {}, not to us; remove it", escaped_path(&path), stat.st_uid);
            return Err(Failure::new(FailureKind::Permission, fact));
        }
        if stat.st_dev != parent.st_dev {
            let fact =
                format!("{} is on another file system than its parent; unmount it", escaped_path(&path));
            return Err(Failure::config(fact));
        }
        if stat.st_mode & 0o777 != 0o700 {
            fchmod(&dir, Mode::RWXU).map_err(fail)?;
        }
        Ok(Self { dir, path })
    }
}

pub(crate) fn directory_flags() -> OFlags {
    OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}
