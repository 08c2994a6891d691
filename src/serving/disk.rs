//! The files that a HAProxy means by its paths: links are followed as they lead in its own root directory, and nothing
//! that could hang is opened.
//!
//! This is the one place where its paths become ours. Of one whose root directory can't be seen only what the settings name
//! is known: the sites directory and the host certificate. What lies elsewhere is `Unfound::Elsewhere`: it isn't missing.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, open, openat, openat2, stat, statat,
};
use rustix::io::Errno;
use zeroize::Zeroizing;

use crate::serving::loads::Identity;
use crate::sys::failure::io_cause;
use crate::sys::safe_read::{Unopened, read_opened};

/// More than any configuration or crt-list.
const MAX_TEXT: u64 = 64 << 20;

/// A root directory, and the directory in it that relative paths begin at.
#[derive(Debug)]
pub(super) struct Disk {
    root: Root,
    /// `None`: nobody here knows.
    folder: Option<PathBuf>,
    /// What HAProxy calls what is ours, and where that is here.
    places: Vec<(PathBuf, PathBuf)>,
}

/// Whose files are meant.
#[derive(Debug)]
enum Root {
    /// Ours.
    Ours,
    /// Those below this directory.
    Below(OwnedFd, PathBuf),
    /// They can't be seen from here.
    Unseen,
}

/// Why there is nothing to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unfound {
    /// As the system says.
    #[error("{}", io_cause(&(*.0).into()))]
    Cause(Errno),
    /// Only HAProxy sees what is there.
    #[error("it can't be seen from here: HAProxy has paths of its own")]
    Elsewhere,
}

impl Unfound {
    /// Whether nothing is there, rather than that it can't be looked at.
    pub(super) fn is_missing(self) -> bool {
        matches!(self, Self::Cause(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG))
    }
}

impl From<Errno> for Unfound {
    fn from(e: Errno) -> Self {
        Self::Cause(e)
    }
}

/// Why what is there isn't read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Illegible {
    /// There is nothing to look at.
    #[error("{0}")]
    Unfound(#[from] Unfound),
    /// It is something else than a file.
    #[error("it isn't a regular file")]
    NotRegular,
    /// It has this many bytes: more than any configuration or crt-list.
    #[error("it has {0} bytes")]
    TooLarge(u64),
    /// A file that may hold a key: why it isn't taken.
    #[error("{0}")]
    Unopened(#[from] Unopened),
    /// As the system says.
    #[error("{}", io_cause(.0))]
    Io(#[from] io::Error),
}

impl From<Errno> for Illegible {
    fn from(e: Errno) -> Self {
        Self::Io(e.into())
    }
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
    pub(super) fn secret(&self) -> Result<Zeroizing<Vec<u8>>, Illegible> {
        let (bytes, _) = read_opened(self.open(OFlags::empty())?)?;
        Ok(bytes)
    }

    /// The bytes of a configuration or crt-list.
    pub(super) fn text(&self) -> Result<Vec<u8>, Illegible> {
        use std::io::Read as _;
        if !self.is_file() {
            return Err(Illegible::NotRegular);
        }
        if let Ok(size) = u64::try_from(self.stat.st_size)
            && size > MAX_TEXT
        {
            return Err(Illegible::TooLarge(size));
        }
        let fd = self.open(OFlags::empty())?;
        let mut text = Vec::new();
        std::fs::File::from(fd).take(MAX_TEXT).read_to_end(&mut text)?;
        Ok(text)
    }

    /// The names in a directory, in byte order, as HAProxy sorts them (`alphasort` in the C locale).
    pub(super) fn names(&self) -> Result<Vec<OsString>, Illegible> {
        let fd = self.open(OFlags::DIRECTORY)?;
        let mut names = Vec::new();
        for entry in Dir::read_from(fd.as_fd())? {
            let entry = entry?;
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

impl Disk {
    /// The files as we see them, relative paths from this directory.
    pub(super) fn ours(folder: PathBuf) -> Self {
        Self { root: Root::Ours, folder: Some(folder), places: Vec::new() }
    }

    /// Those of a HAProxy that runs where nobody sees it.
    pub(super) fn unseen(folder: Option<PathBuf>) -> Self {
        Self { root: Root::Unseen, folder, places: Vec::new() }
    }

    /// The files below another root directory.
    ///
    /// # Errors
    /// It isn't ours to see.
    pub(super) fn below(root: &Path, folder: PathBuf) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = open(root, flags, Mode::empty())?;
        Ok(Self { root: Root::Below(fd, root.to_owned()), folder: Some(folder), places: Vec::new() })
    }

    /// The same with what HAProxy calls what is ours, and where that is here.
    pub(super) fn knowing<'a>(self, places: impl Iterator<Item = (&'a Path, &'a Path)>) -> Self {
        let places = places.map(|(its, ours)| (its.to_owned(), ours.to_owned())).collect();
        Self { places, ..self }
    }

    /// The same where relative paths begin in a directory of it; `None`: nobody here knows where.
    pub(super) fn beginning_at(self, folder: Option<&Path>) -> Self {
        let folder = folder.and_then(|folder| self.whole(folder));
        Self { folder, ..self }
    }

    /// Whether all but what is ours can't be seen.
    pub(super) fn is_unseen(&self) -> bool {
        matches!(self.root, Root::Unseen)
    }

    /// Whether these are our files.
    pub(super) fn is_ours(&self) -> bool {
        matches!(self.root, Root::Ours)
    }

    fn whole(&self, path: &Path) -> Option<PathBuf> {
        match &self.folder {
            _ if path.is_absolute() => Some(path.to_owned()),
            Some(folder) => Some(folder.join(path)),
            None => None,
        }
    }

    /// Where a path of HAProxy's is here, where it leads to what is ours: the directory, and the way in it.
    fn place_of_ours<'a>(&'a self, whole: &'a Path) -> Option<(&'a Path, &'a Path)> {
        if whole.components().any(|part| part == Component::ParentDir) {
            return None;
        }
        self.places.iter().find_map(|(its, ours)| Some((ours.as_path(), whole.strip_prefix(its).ok()?)))
    }

    /// Where a path can be opened from here, for people; where it can't be, it is HAProxy's own.
    pub(super) fn place(&self, path: &Path) -> PathBuf {
        let Some(whole) = self.whole(path) else { return path.to_owned() };
        let ours = || match self.place_of_ours(&whole) {
            Some((place, rest)) if rest.as_os_str().is_empty() => Some(place.to_owned()),
            Some((place, rest)) => Some(place.join(rest)),
            None => None,
        };
        match &self.root {
            Root::Ours => whole,
            Root::Unseen => ours().unwrap_or(whole),
            Root::Below(_, root) => {
                let is_same = |ours: &PathBuf| {
                    let there = self.identity(path);
                    there.is_some() && stat(ours).ok().map(|stat| identity(&stat)) == there
                };
                let below = || root.join(whole.strip_prefix("/").unwrap_or(&whole));
                ours().filter(is_same).unwrap_or_else(below)
            }
        }
    }

    /// Which file a path leads to, links followed; `None`: none, or it can't be followed.
    pub(super) fn identity(&self, path: &Path) -> Option<Identity> {
        match &self.root {
            Root::Ours => stat(self.whole(path)?).ok().map(|stat| identity(&stat)),
            Root::Below(..) | Root::Unseen => self.find(path).ok().map(|found| found.identity()),
        }
    }

    /// Which regular file a path leads to, links followed; `None`: it leads to something else. `folder` is the directory
    /// that it is in, where that is at hand.
    pub(super) fn regular_file(
        &self,
        folder: Option<&OnDisk>,
        path: &Path,
    ) -> Result<Option<Identity>, Unfound> {
        let stat = match (&self.root, folder, path.file_name()) {
            // One call instead of three: there may be thousands.
            (Root::Ours, Some(folder), Some(name)) => statat(&folder.fd, name, AtFlags::empty())?,
            _ => self.find(path)?.stat,
        };
        Ok(FileType::from_raw_mode(stat.st_mode).is_file().then(|| identity(&stat)))
    }

    /// Looks where a path leads, links followed.
    pub(super) fn find(&self, path: &Path) -> Result<OnDisk, Unfound> {
        let path = self.whole(path).ok_or(Unfound::Elsewhere)?;
        let fd = match &self.root {
            Root::Ours => openat(CWD, &path, FLAGS, Mode::empty())?,
            Root::Below(root, _) => {
                let path = path.strip_prefix("/").unwrap_or(&path);
                let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
                let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
                openat2(root, path, FLAGS, Mode::empty(), how)?
            }
            Root::Unseen => {
                let (place, rest) = self.place_of_ours(&path).ok_or(Unfound::Elsewhere)?;
                open_within(place, rest)?
            }
        };
        let stat = fstat(&fd)?;
        Ok(OnDisk { fd, stat })
    }
}

const FLAGS: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// Opens what is below a place of ours. A link that leads out of it leads to something else where HAProxy runs.
fn open_within(place: &Path, rest: &Path) -> Result<OwnedFd, Unfound> {
    let found = openat(CWD, place, FLAGS, Mode::empty())?;
    if rest.as_os_str().is_empty() {
        return Ok(found);
    }
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    openat2(&found, rest, FLAGS, Mode::empty(), how).map_err(|e| match e {
        Errno::XDEV => Unfound::Elsewhere,
        e => e.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a HAProxy that nobody sees only what the settings name is found, and nothing else is called missing.
    #[test]
    fn what_is_elsewhere_is_not_missing() {
        let folder = tempfile::tempdir().unwrap();
        let (sites, host) = (folder.path().join("sites"), folder.path().join("host.pem"));
        std::fs::create_dir(&sites).unwrap();
        for file in [&sites.join("a.pem"), &host] {
            std::fs::write(file, "").unwrap();
        }
        for (name, to) in [("in", "a.pem"), ("out", "../host.pem"), ("away", "/etc/hostname")] {
            std::os::unix::fs::symlink(to, sites.join(name)).unwrap();
        }
        let places = [("/c/sites", sites.as_path()), ("/c/host.pem", host.as_path())];
        let places = || places.iter().map(|(its, ours)| (Path::new(its), *ours));
        let disk = Disk::unseen(None).knowing(places());
        for (path, place) in [
            ("/c/sites", Some(sites.clone())),
            ("/c//./sites/", Some(sites.clone())),
            ("/c/sites/a.pem", Some(sites.join("a.pem"))),
            ("/c/sites/in", Some(sites.join("a.pem"))),
            ("/c/host.pem", Some(host.clone())),
            ("/c/sites/b.pem", None),
        ] {
            let found = disk.find(Path::new(path)).map(|found| found.identity());
            let ours = place.as_ref().map(|place| Disk::ours("/".into()).identity(place).unwrap());
            assert_eq!(found.ok(), ours, "{path}");
        }
        assert_eq!(disk.place(Path::new("/c/sites/b.pem")), sites.join("b.pem"));
        assert_eq!(disk.place(Path::new("/c/own/b.pem")), Path::new("/c/own/b.pem"));
        assert!(disk.find(Path::new("/c/sites/b.pem")).is_err_and(Unfound::is_missing));
        let elsewhere = |disk: &Disk, path: &str| {
            assert_eq!(disk.find(Path::new(path)).err(), Some(Unfound::Elsewhere), "{path}");
        };
        for path in [
            "/c",
            "/c/own/b.pem",
            "/c/sitesx",
            "/c/sites/../own",
            "/c/sites/out",
            "/c/sites/away",
            "/etc/hostname",
            "sites",
            "a.pem",
        ] {
            elsewhere(&disk, path);
        }
        let disk = disk.beginning_at(Some(Path::new("/c")));
        assert!(disk.find(Path::new("sites/a.pem")).is_ok());
        elsewhere(&disk.beginning_at(None), "sites/a.pem");
    }
}
