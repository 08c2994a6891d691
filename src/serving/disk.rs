//! The files that a HAProxy means by its paths: links are followed as they lead in its own root directory, and nothing
//! that could hang is opened.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, open, openat, openat2, stat, statat,
};
use rustix::io::Errno;
use zeroize::Zeroizing;

use crate::certbot::{Unopened, read_opened};
use crate::serving::loads::Identity;
use crate::sys::failure::io_cause;

/// More than any configuration or crt-list.
const MAX_TEXT: u64 = 64 << 20;

/// A root directory, and the directory in it that relative paths begin at.
#[derive(Debug)]
pub(super) struct Disk {
    /// `None`: ours.
    root: Option<(OwnedFd, PathBuf)>,
    folder: PathBuf,
}

/// What a path leads to.
#[derive(Debug)]
pub(super) struct OnDisk {
    fd: OwnedFd,
    stat: Stat,
}

impl OnDisk {
    /// Which file it is.
    pub(super) fn identity(&self) -> Identity {
        identity(&self.stat)
    }

    /// Whether it is a directory.
    pub(super) fn is_directory(&self) -> bool {
        self.kind() == FileType::Directory
    }

    /// Whether it is a regular file.
    pub(super) fn is_file(&self) -> bool {
        self.kind() == FileType::RegularFile
    }

    fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    /// Opens it for reading.
    fn open(&self, flags: OFlags) -> Result<OwnedFd, Errno> {
        let path = format!("/proc/self/fd/{}", self.fd.as_raw_fd());
        open(
            path,
            OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY | flags,
            Mode::empty(),
        )
    }

    /// Which regular file has this name in the directory, links followed; `None`: none has.
    pub(super) fn file(&self, name: &OsStr) -> Option<Identity> {
        let stat = statat(&self.fd, name, AtFlags::empty()).ok()?;
        FileType::from_raw_mode(stat.st_mode).is_file().then(|| identity(&stat))
    }

    /// The bytes of a file that may hold a key.
    pub(super) fn secret(&self) -> Result<Zeroizing<Vec<u8>>, String> {
        let fd = self.open(OFlags::empty()).map_err(cause)?;
        match read_opened(fd) {
            Ok((bytes, _)) => Ok(bytes),
            Err(Unopened::Io(e)) => Err(cause(e)),
            Err(Unopened::NotRegular(what)) => Err(format!("it is {what}")),
            Err(Unopened::TooLarge(size)) => Err(format!("it has {size} bytes")),
        }
    }

    /// The bytes of a configuration or crt-list.
    pub(super) fn text(&self) -> Result<Vec<u8>, String> {
        use std::io::Read as _;
        if !self.is_file() {
            return Err("it isn't a regular file".to_owned());
        }
        if u64::try_from(self.stat.st_size).is_ok_and(|size| size > MAX_TEXT) {
            return Err(format!("it has {} bytes", self.stat.st_size));
        }
        let fd = self.open(OFlags::empty()).map_err(cause)?;
        let mut text = Vec::new();
        std::fs::File::from(fd).take(MAX_TEXT).read_to_end(&mut text).map_err(cause)?;
        Ok(text)
    }

    /// The names in a directory, in byte order, as HAProxy sorts them (`alphasort` in the C locale).
    pub(super) fn names(&self) -> Result<Vec<OsString>, String> {
        let fd = self.open(OFlags::DIRECTORY).map_err(cause)?;
        let mut names = Vec::new();
        for entry in Dir::read_from(fd.as_fd()).map_err(cause)? {
            let entry = entry.map_err(cause)?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if !matches!(name.as_bytes(), b"." | b"..") {
                names.push(name.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }
}

fn identity(stat: &Stat) -> Identity {
    #[allow(clippy::useless_conversion, reason = "the fields' types differ between architectures")]
    Identity { device: stat.st_dev.into(), inode: stat.st_ino.into() }
}

fn cause(e: impl Into<io::Error>) -> String {
    io_cause(&e.into())
}

impl Disk {
    /// The files as we see them, relative paths from this directory.
    pub(super) fn ours(folder: PathBuf) -> Self {
        Self { root: None, folder }
    }

    /// The same where relative paths begin in a directory of it.
    pub(super) fn beginning_at(self, folder: &str) -> Self {
        let folder = self.folder.join(folder);
        Self { folder, ..self }
    }

    /// The files below another root directory.
    ///
    /// # Errors
    /// It isn't ours to see.
    pub(super) fn below(root: &Path, folder: PathBuf) -> Result<Self, String> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = open(root, flags, Mode::empty()).map_err(cause)?;
        Ok(Self { root: Some((fd, root.to_owned())), folder })
    }

    /// Where a path can be opened from here, for people.
    pub(super) fn place(&self, path: &Path) -> PathBuf {
        let whole = self.folder.join(path);
        match &self.root {
            None => whole,
            Some((_, root)) => root.join(whole.strip_prefix("/").unwrap_or(&whole)),
        }
    }

    /// Which file a path leads to, links followed; `None`: none, or it can't be followed.
    pub(super) fn identity(&self, path: &Path) -> Option<Identity> {
        match &self.root {
            None => stat(self.folder.join(path)).ok().map(|stat| identity(&stat)),
            Some(_) => self.find(path).ok().map(|found| found.identity()),
        }
    }

    /// Which regular file a path leads to, links followed; `None`: it leads to something else. `folder` is the directory
    /// that it is in, where that is at hand.
    pub(super) fn regular_file(
        &self,
        folder: Option<&OnDisk>,
        path: &Path,
    ) -> Result<Option<Identity>, Errno> {
        let stat = match (&self.root, folder, path.file_name()) {
            // One call instead of three: there may be thousands.
            (None, Some(folder), Some(name)) => statat(&folder.fd, name, AtFlags::empty())?,
            _ => self.find(path)?.stat,
        };
        Ok(FileType::from_raw_mode(stat.st_mode).is_file().then(|| identity(&stat)))
    }

    /// Looks where a path leads, links followed.
    pub(super) fn find(&self, path: &Path) -> Result<OnDisk, Errno> {
        let path = self.folder.join(path);
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let fd = match &self.root {
            None => openat(CWD, &path, flags, Mode::empty())?,
            Some((root, _)) => {
                let path = path.strip_prefix("/").unwrap_or(&path);
                let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
                openat2(
                    root,
                    path,
                    flags,
                    Mode::empty(),
                    ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
                )?
            }
        };
        let stat = fstat(&fd)?;
        Ok(OnDisk { fd, stat })
    }
}
