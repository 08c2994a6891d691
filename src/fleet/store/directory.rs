//! A fleet in a directory that something else carries: rsync, Syncthing, NFS, a bucket that is mounted.
//!
//! A file appears with its name only when it is whole and durable. What others do on the way (temporary names, parts that
//! come later) is nothing that is seen here: a name that isn't a key isn't looked at, a file that isn't there isn't there yet.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, RenameFlags, fchmod, fsync, inotify, mkdirat, open, openat,
    renameat, renameat_with, syncfs, unlinkat,
};
use rustix::io::Errno;

use super::error::StoreError;
use super::key::{StoreFolder, StoreKey};
use super::{FleetStore, Revision, Stored, Swap, Which, Woken};
use crate::certified_key::sha256;
use crate::sys::change_time::change_time;
use crate::sys::folder_lock::{NotLocked, PROC, lock};
use crate::sys::shared_folder::share;

/// A file that changed within this time may still be arriving.
const SETTLING: Duration = Duration::from_secs(60);

/// How long another publisher on this host is waited for, which writes one small file.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often the head is looked at where the kernel doesn't say that it changed: on a network file system it never does.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// From so many files on the whole file system is synced once.
const MANY: usize = 16;

/// No fleet has more keys of one kind.
const MAX_KEYS: usize = 2_000_000;

/// A directory as a store.
#[derive(Debug, Clone)]
pub struct Directory {
    path: PathBuf,
}

/// A key as the names of its folders and its file.
struct Names {
    folders: Vec<String>,
    file: String,
}

impl Names {
    fn of(key: &StoreKey) -> Self {
        let path = key.to_string();
        let mut names: Vec<String> = path.split('/').map(str::to_owned).collect();
        let file = names.pop().unwrap_or_default();
        Self { folders: names, file }
    }

    /// Under which the file is written until it is whole.
    fn unnamed(&self) -> String {
        format!(".{}.new", self.file)
    }
}

impl Directory {
    /// The directory at this path, which must be there: an empty mount point isn't a new fleet.
    ///
    /// # Errors
    /// It can't be opened.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let directory = Self { path: path.to_owned() };
        directory.root()?;
        Ok(directory)
    }

    /// Opened for each call: what is mounted or carried here may be another directory by now.
    fn root(&self) -> Result<OwnedFd, StoreError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        open(&self.path, flags, Mode::empty()).map_err(|e| self.failed("open", "", e))
    }

    fn failed(&self, deed: &'static str, below: &str, cause: Errno) -> StoreError {
        let path = if below.is_empty() { self.path.clone() } else { self.path.join(below) };
        StoreError::Io { deed, path, cause: cause.into() }
    }

    /// The value of a key; `None`: it isn't there, or not yet.
    fn read(&self, root: &OwnedFd, key: &StoreKey) -> Result<Option<Stored>, StoreError> {
        let path = key.to_string();
        let failed = |e| self.failed("read", &path, e);
        let file = match open_below(root, &Names::of(key)) {
            Ok(file) => file,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(Errno::LOOP) => return Err(StoreError::Odd { key: key.clone(), what: "a link" }),
            Err(Errno::NXIO) => return Err(StoreError::Odd { key: key.clone(), what: "a socket" }),
            Err(e) => return Err(failed(e)),
        };
        let meta = file.metadata().map_err(|e| failed(errno(&e)))?;
        if !meta.is_file() {
            let what = if meta.is_dir() { "a directory" } else { "a FIFO or a device" };
            return Err(StoreError::Odd { key: key.clone(), what });
        }
        let most = key.max_bytes();
        if meta.len() > most as u64 {
            return Err(StoreError::TooLarge(key.clone()));
        }
        let mut bytes = Vec::new();
        let read = (&file).take(most as u64 + 1).read_to_end(&mut bytes);
        read.map_err(|e| failed(errno(&e)))?;
        if bytes.len() > most {
            return Err(StoreError::TooLarge(key.clone()));
        }
        let age = change_time(&meta).and_then(|changed| SystemTime::now().duration_since(changed).ok());
        let revision = Revision(Which::Content(sha256(&bytes)));
        Ok(Some(Stored { bytes, revision, settled: age.is_some_and(|age| age >= SETTLING) }))
    }

    /// Writes whole files, and gives them their names.
    fn write(&self, root: &OwnedFd, values: &[(StoreKey, &[u8])]) -> Result<(), StoreError> {
        let mut written = Vec::with_capacity(values.len());
        for (key, bytes) in values {
            if bytes.len() > key.max_bytes() {
                return Err(StoreError::TooLarge(key.clone()));
            }
            let failed = |e| self.failed("write", &key.to_string(), e);
            let names = Names::of(key);
            let folder = match folder_below(root, &names.folders) {
                Err(Errno::NOTDIR | Errno::LOOP) => return Err(self.no_folder(&names.folders)),
                folder => folder.map_err(failed)?,
            };
            // Left behind by a run that was killed.
            self.remove(&folder, &names.folders, &names.unnamed())?;
            write_unnamed(&folder, &names.unnamed(), bytes, values.len() < MANY).map_err(failed)?;
            written.push((folder, names));
        }
        if values.len() >= MANY {
            syncfs(root).map_err(|e| self.failed("sync", "", e))?;
        }
        let mut synced = BTreeSet::new();
        for (folder, names) in &written {
            let failed = |e| self.failed("write", &names.file, e);
            let rename = || renameat(folder, names.unnamed(), folder, names.file.as_str());
            match rename() {
                Err(Errno::ISDIR | Errno::NOTEMPTY | Errno::EXIST) => {
                    self.remove(folder, &names.folders, &names.file)?;
                    rename().map_err(failed)?;
                }
                renamed => renamed.map_err(failed)?,
            }
        }
        for (folder, names) in written {
            if synced.insert(names.folders) {
                fsync(&folder).map_err(|e| self.failed("sync", "", e))?;
            }
        }
        Ok(())
    }

    /// The keys in the folder of this path, and in those below it.
    fn keys(&self, folder: &OwnedFd, path: &str, found: &mut Vec<StoreKey>) -> Result<(), StoreError> {
        let failed = |e| self.failed("read", path, e);
        for entry in Dir::read_from(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            let below = format!("{path}{name}");
            match StoreKey::of_path(&below) {
                Some(key) if entry.file_type() != FileType::Directory => found.push(key),
                None if path == StoreFolder::EpochKeys.prefix() && !name.starts_with('.') => {
                    match openat(folder, name, FOLDER, Mode::empty()) {
                        Ok(inner) => self.keys(&inner, &format!("{below}/"), found)?,
                        Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) => {}
                        Err(e) => return Err(failed(e)),
                    }
                }
                _ => {}
            }
            if found.len() > MAX_KEYS {
                return Err(StoreError::Malformed(format!("there are more than {MAX_KEYS} keys")));
            }
        }
        Ok(())
    }

    /// Removes what is there, whatever it is, but for a directory that isn't empty.
    fn remove(&self, folder: &OwnedFd, folders: &[String], name: &str) -> Result<(), StoreError> {
        let below = [folders, &[name.to_owned()]].concat().join("/");
        match unlinkat(folder, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(e) => return Err(self.failed("remove", &below, e)),
        }
        match unlinkat(folder, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::NOTEMPTY | Errno::EXIST) => Err(StoreError::InTheWay {
                path: self.path.join(below),
                what: "a directory with something in it",
            }),
            Err(e) => Err(self.failed("remove", &below, e)),
        }
    }

    /// The first of these folders that is none.
    fn no_folder(&self, folders: &[String]) -> StoreError {
        let paths = (1..=folders.len()).filter_map(|count| folders.get(..count));
        let mut paths = paths.map(|some| self.path.join(some.join("/")));
        let is_one = |path: &PathBuf| path.symlink_metadata().is_ok_and(|meta| meta.is_dir());
        let path = paths.find(|path| !is_one(path)).unwrap_or_else(|| self.path.clone());
        StoreError::InTheWay { path, what: "no directory" }
    }

    fn head(&self) -> Result<Option<Revision>, StoreError> {
        Ok(self.read(&self.root()?, &StoreKey::Head)?.map(|head| head.revision))
    }

    /// Told by the kernel of what happens in the directory, where it can.
    fn watch(&self) -> Option<OwnedFd> {
        let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).ok()?;
        let events = inotify::WatchFlags::CLOSE_WRITE
            | inotify::WatchFlags::MOVED_TO
            | inotify::WatchFlags::DELETE
            | inotify::WatchFlags::ONLYDIR;
        inotify::add_watch(&watch, &self.path, events).ok()?;
        Some(watch)
    }
}

impl FleetStore for Directory {
    fn get(&self, keys: &[StoreKey]) -> Result<Vec<Option<Stored>>, StoreError> {
        let root = self.root()?;
        keys.iter().map(|key| self.read(&root, key)).collect()
    }

    fn list(&self, folder: StoreFolder) -> Result<Vec<StoreKey>, StoreError> {
        let root = self.root()?;
        let name = folder.prefix().trim_end_matches('/');
        let mut found = Vec::new();
        match openat(&root, name, FOLDER, Mode::empty()) {
            Ok(dir) => self.keys(&dir, folder.prefix(), &mut found)?,
            Err(Errno::NOENT) => {}
            Err(Errno::NOTDIR | Errno::LOOP) => return Err(self.no_folder(&[name.to_owned()])),
            Err(e) => return Err(self.failed("read", name, e)),
        }
        found.sort();
        Ok(found)
    }

    fn put(&self, values: &[(StoreKey, Vec<u8>)]) -> Result<(), StoreError> {
        let root = self.root()?;
        let values: Vec<_> = values.iter().map(|(key, bytes)| (key.clone(), &bytes[..])).collect();
        // So that few files are open at once.
        values.chunks(256).try_for_each(|some| self.write(&root, some))
    }

    fn delete(&self, keys: &[StoreKey]) -> Result<(), StoreError> {
        let root = self.root()?;
        for key in keys {
            let names = Names::of(key);
            let failed = |e| self.failed("remove", &key.to_string(), e);
            let folder = match existing(&root, &names.folders) {
                Ok(folder) => folder,
                Err(Errno::NOENT | Errno::NOTDIR) => continue,
                Err(e) => return Err(failed(e)),
            };
            for name in [&names.unnamed(), &names.file] {
                self.remove(&folder, &names.folders, name)?;
            }
            if let StoreKey::EpochKey { epoch, .. } = key {
                // Of no use once it is empty; it may not be.
                let _ = unlinkat(&root, format!("key/{epoch}"), AtFlags::REMOVEDIR);
            }
        }
        Ok(())
    }

    fn compare_and_put(
        &self,
        key: &StoreKey,
        seen: Option<Revision>,
        value: &[u8],
    ) -> Result<Swap, StoreError> {
        let root = self.root()?;
        // Against another run on this host. Some network file systems have no locks: there the publisher is alone.
        // The lock is the directory's own: a file for it would be carried along, and one that others can't open would stop
        // who carries it.
        match lock(&root, PATIENCE, Path::new(PROC)) {
            Ok(())
            | Err(NotLocked::Failed(
                Errno::OPNOTSUPP | Errno::NOLCK | Errno::BADF | Errno::INVAL | Errno::NOSYS,
            )) => {}
            Err(NotLocked::Failed(e)) => return Err(self.failed("lock", "", e)),
            Err(NotLocked::Held(by)) => return Err(StoreError::Locked { path: self.path.clone(), by }),
        }
        let now = self.read(&root, key)?.map(|stored| stored.revision);
        let new = Revision(Which::Content(sha256(value)));
        if now != seen && now != Some(new) {
            return Ok(Swap::Lost);
        }
        self.write(&root, &[(key.clone(), value)])?;
        Ok(Swap::Done(new))
    }

    fn wait(&self, seen: Option<Revision>, at_most: Duration) -> Result<Woken, StoreError> {
        let end = Instant::now() + at_most;
        let watch = self.watch();
        loop {
            if self.head()? != seen {
                return Ok(Woken::Changed);
            }
            let left = end.saturating_duration_since(Instant::now()).min(LOOK_EVERY);
            if left.is_zero() {
                return Ok(Woken::TimedOut);
            }
            let Some(watch) = &watch else {
                std::thread::sleep(left.min(Duration::from_secs(1)));
                continue;
            };
            let patience =
                Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
            match poll(&mut [PollFd::new(watch, PollFlags::IN)], Some(&patience)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(e) => return Err(self.failed("watch", "", e)),
            }
            let mut buffer = [MaybeUninit::uninit(); 4096];
            let mut events = inotify::Reader::new(watch, &mut buffer);
            while events.next().is_ok() {}
        }
    }
}

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

fn errno(cause: &std::io::Error) -> Errno {
    Errno::from_io_error(cause).unwrap_or(Errno::IO)
}

/// The folder of these names, none of which is followed as a link.
fn existing(root: &OwnedFd, folders: &[String]) -> rustix::io::Result<OwnedFd> {
    let mut folder = openat(root, ".", FOLDER, Mode::empty())?;
    for name in folders {
        folder = openat(&folder, name.as_str(), FOLDER, Mode::empty())?;
    }
    Ok(folder)
}

/// The same; what is missing of it is made.
fn folder_below(root: &OwnedFd, folders: &[String]) -> rustix::io::Result<OwnedFd> {
    let mut folder = openat(root, ".", FOLDER, Mode::empty())?;
    for name in folders {
        folder = match openat(&folder, name.as_str(), FOLDER, Mode::empty()) {
            Err(Errno::NOENT) => {
                make_folder(&folder, name)?;
                openat(&folder, name.as_str(), FOLDER, Mode::empty())?
            }
            opened => opened?,
        };
    }
    Ok(folder)
}

/// Makes a folder, which has its name once everybody may look into it: others are to carry what is in it.
fn make_folder(parent: &OwnedFd, name: &str) -> rustix::io::Result<()> {
    let unnamed = format!(".{name}.new");
    match mkdirat(parent, unnamed.as_str(), Mode::RWXU) {
        // Left behind by a run that was killed, or another one's that makes it now.
        Ok(()) | Err(Errno::EXIST) => {}
        Err(e) => return Err(e),
    }
    match openat(parent, unnamed.as_str(), FOLDER, Mode::empty()) {
        Ok(made) => share(made)?,
        Err(Errno::NOENT) => {}
        Err(e) => return Err(e),
    }
    let renamed = match renameat_with(parent, unnamed.as_str(), parent, name, RenameFlags::NOREPLACE) {
        // A file system that can't say "only where there is none": an empty folder is replaced, another one is not.
        Err(Errno::INVAL | Errno::NOSYS) => renameat(parent, unnamed.as_str(), parent, name),
        renamed => renamed,
    };
    match renamed {
        Ok(()) => fsync(parent),
        Err(Errno::NOENT) => Ok(()),
        Err(Errno::EXIST | Errno::NOTEMPTY) => {
            let _ = unlinkat(parent, unnamed.as_str(), AtFlags::REMOVEDIR);
            Ok(())
        }
        Err(e) => Err(e),
    }
}

/// Opens a file for reading; never waits for a FIFO, follows no link.
fn open_below(root: &OwnedFd, names: &Names) -> rustix::io::Result<File> {
    let folder = existing(root, &names.folders)?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(&folder, names.file.as_str(), flags, Mode::empty()).map(File::from)
}

fn write_unnamed(folder: &OwnedFd, name: &str, bytes: &[u8], sync: bool) -> rustix::io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(openat(folder, name, flags, Mode::RUSR | Mode::WUSR)?);
    // It is ciphertext, and others are to carry it.
    fchmod(&file, Mode::from_raw_mode(0o644))?;
    file.write_all(bytes).map_err(|e| errno(&e))?;
    if sync { fsync(&file) } else { Ok(()) }
}
