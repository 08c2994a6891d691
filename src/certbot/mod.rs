//! certbot's tree: which lineages there are, and a read of key and chain that can't mix two renewals.
//!
//! certbot swaps a lineage's four links one by one (`storage.py`, `update_all_links_to`; the same in 2.1 and 5.8),
//! so for a moment, or for good when it is killed, a new key stands beside an old chain.

pub mod authenticator;
pub mod cli_ini;
pub mod client;
pub mod options;
pub mod tree_mark;
pub mod version;

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::DirEntry;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

pub use self::client::{CERTBOT_DIR, certbot_dir};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, Stat, fstat, open, readlinkat, statat};
use zeroize::Zeroizing;

use crate::certified_key::{Flaw, Leaf, read_leaf};
use crate::config::Settings;
use crate::index::entry::Look;
use crate::index::pair_files::LiveFiles;
use crate::plan::reason::Reason;
use crate::plan::refusal::Refusal;
use crate::sys::escape::{escaped, escaped_path};
use crate::sys::failure::{Failure, io_cause};
use crate::sys::safe_read::{MAX_FILE_BYTES, Unopened, as_read, read_regular};

/// How long a lineage that changes under our eyes is waited for, and how recent a change counts as one.
pub const SETTLING: Duration = Duration::from_secs(3);

/// certbot's configuration directory, known by its `live` directory; or another client's, with a directory for each
/// certificate.
#[derive(Debug, Clone)]
pub struct CertbotTree {
    live_dir: PathBuf,
    key_file: String,
    chain_file: String,
}

/// The lineages that are there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Discovery {
    /// Their names, in byte order.
    pub lineages: BTreeSet<OsString>,
    /// Whether the `live` directory itself is missing.
    pub live_dir_missing: bool,
}

/// The private key and the chain of one lineage, read together.
pub struct KeyAndChain {
    /// The key file's bytes.
    pub key: Zeroizing<Vec<u8>>,
    /// The chain file's bytes: nothing keeps a key out of it.
    pub chain: Zeroizing<Vec<u8>>,
    /// Whether others than the key file's owner may read or write it.
    pub loose_permissions: bool,
    /// Whether the links name different versions, as they do in the middle of a renewal.
    pub versions_differ: bool,
    /// Whether it was changed so recently that the change may still go on.
    pub unsettled: bool,
    /// What the key file looked like when it was read.
    pub key_look: Look,
    /// What the chain file looked like when it was read.
    pub chain_look: Look,
}

/// Why a lineage could not be read.
#[derive(Debug)]
pub struct Unread {
    /// For the report.
    pub refusal: Refusal,
    /// Whether it may be whole in a moment.
    pub unsettled: bool,
}

impl CertbotTree {
    /// The tree that these settings name.
    #[must_use]
    pub fn of(settings: &Settings) -> Self {
        Self {
            live_dir: settings.live_dir.clone(),
            key_file: settings.key_file.clone(),
            chain_file: settings.chain_file.clone(),
        }
    }

    /// Where its files are; `None`: the `live` directory can't be opened.
    #[must_use]
    pub fn files(&self) -> Option<LiveFiles> {
        LiveFiles::open(&self.live_dir, &self.key_file, &self.chain_file)
    }

    /// Finds every lineage: each directory of `live` with a key or a chain in it, and each renewal configuration.
    ///
    /// # Errors
    /// Either directory is there but can't be read.
    pub fn discover(&self) -> Result<Discovery, Failure> {
        self.discover_besides(&|_| false)
    }

    /// The same where some names were seen to lead to both a moment ago: they aren't looked at again.
    ///
    /// # Errors
    /// As for [`CertbotTree::discover`].
    pub fn discover_besides(&self, is_known: &dyn Fn(&OsStr) -> bool) -> Result<Discovery, Failure> {
        let fail = |e: &io::Error| Failure::io("read", &self.live_dir, e);
        let mut found = Discovery::default();
        let entries = match std::fs::read_dir(&self.live_dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                found.live_dir_missing = true;
                return Ok(found);
            }
            Err(e) => return Err(fail(&e)),
        };
        for entry in entries {
            let entry = entry.map_err(|e| fail(&e))?;
            let name = entry.file_name();
            if is_known(&name) || self.may_be_lineage(&entry) {
                found.lineages.insert(name);
            }
        }
        self.add_renewal_configurations(&mut found.lineages)?;
        Ok(found)
    }

    /// Adds the lineages that have a renewal configuration, whatever is left of them in `live`.
    fn add_renewal_configurations(&self, lineages: &mut BTreeSet<OsString>) -> Result<(), Failure> {
        let folder = self.sibling("renewal");
        let fail = |e: &io::Error| Failure::io("read", &folder, e);
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(fail(&e)),
        };
        for entry in entries {
            let entry = entry.map_err(|e| fail(&e))?;
            let file_name = entry.file_name();
            let Some(name) = file_name.as_bytes().strip_suffix(b".conf").map(OsStr::from_bytes) else {
                continue;
            };
            if lineages.contains(name) {
                continue;
            }
            if !matches!(name.as_bytes(), b"" | b"." | b"..") && !self.is_abandoned(&entry.path(), name) {
                lineages.insert(name.to_owned());
            }
        }
        Ok(())
    }

    /// An empty configuration beside a plain file in `live`: what certbot leaves of `--cert-name README`.
    fn is_abandoned(&self, configuration: &Path, name: &OsStr) -> bool {
        std::fs::metadata(configuration).is_ok_and(|file| file.len() == 0)
            && std::fs::metadata(self.live_dir.join(name)).is_ok_and(|entry| !entry.is_dir())
    }

    /// Reads key and chain of one lineage so that they can't come from two different renewals unseen: the files that
    /// the links name are opened directly, and the links are read again afterwards.
    ///
    /// # Errors
    /// What is missing or can't be read, and whether it may be whole in a moment.
    pub fn read(&self, lineage: &OsStr) -> Result<KeyAndChain, Unread> {
        let folder = self.folder(lineage);
        let dir = match open(&folder, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(dir) => dir,
            Err(e) if e == rustix::io::Errno::NOENT || e == rustix::io::Errno::NOTDIR => {
                return Err(settled(
                    Reason::Unproved(Flaw::CertificateMissing),
                    format!("{} is missing", escaped_path(&folder)),
                ));
            }
            Err(e) => return Err(settled(Reason::Io, cannot("open", &folder, &e.into()))),
        };
        let mut changed = fstat(&dir).map_or(SystemTime::UNIX_EPOCH, |stat| changed_at(&stat));
        let read = read_pair(&dir, &folder, [&self.key_file, &self.chain_file], &mut changed);
        let unsettled = SystemTime::now().duration_since(changed).is_ok_and(|age| age < SETTLING)
            || changed > SystemTime::now();
        match read {
            Ok(pair) => Ok(KeyAndChain { unsettled, ..pair }),
            Err((refusal, moved)) => Err(Unread { refusal, unsettled: unsettled || moved }),
        }
    }

    /// The leaf of a lineage whose pair can't be had, where its chain can be read.
    #[must_use]
    pub fn leaf(&self, lineage: &OsStr) -> Option<Leaf> {
        leaf_of_file(&self.folder(lineage).join(&self.chain_file))
    }

    /// Whether one of the lineage's earlier certificates is the leaf with this SHA-256: certbot keeps them in `archive`,
    /// dehydrated beside the links.
    #[must_use]
    pub fn has_archived(&self, lineage: &OsStr, leaf_sha256: &[u8; 32]) -> bool {
        let folders = [self.sibling("archive").join(lineage), self.folder(lineage)];
        folders
            .iter()
            .filter_map(|folder| std::fs::read_dir(folder).ok())
            .flat_map(Iterator::flatten)
            .filter(|entry| {
                let name = entry.file_name();
                let name = name.as_bytes();
                name.ends_with(b".pem") && (name.starts_with(b"cert") || name.starts_with(b"fullchain"))
            })
            .filter_map(|entry| leaf_of_file(&entry.path()))
            .any(|leaf| leaf.sha256 == *leaf_sha256)
    }

    /// A lineage's directory.
    #[must_use]
    pub fn folder(&self, lineage: &OsStr) -> PathBuf {
        self.live_dir.join(lineage)
    }

    /// Whether an entry of `live` is a directory with a key or a chain, or leads to one; or can't be looked at, and so isn't
    /// known to be gone: reading it says why.
    fn may_be_lineage(&self, entry: &DirEntry) -> bool {
        let path = entry.path();
        // The kernel told with the name, as a rule: no look is needed.
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => {}
            Ok(kind) if kind.is_symlink() => match (path.metadata(), self.live_dir.metadata()) {
                // A broken or circular link beside the lineages isn't one.
                (Err(e), _) => return !leads_nowhere(&e),
                (Ok(to), _) if !to.is_dir() => return false,
                (Ok(to), Ok(live)) if (to.dev(), to.ino()) == (live.dev(), live.ino()) => return false,
                (Ok(_), _) => {}
            },
            Ok(_) => return false,
            Err(e) => return !leads_nowhere(&e),
        }
        self.has_key_or_chain(&path)
    }

    /// Whether a key or a chain is there, or can't be told not to be.
    fn has_key_or_chain(&self, folder: &Path) -> bool {
        [&self.key_file, &self.chain_file].iter().any(|name| match folder.join(name).symlink_metadata() {
            Ok(_) => true,
            Err(e) => e.kind() != io::ErrorKind::NotFound,
        })
    }

    /// A directory beside `live`.
    fn sibling(&self, name: &str) -> PathBuf {
        self.live_dir.parent().unwrap_or(Path::new("/")).join(name)
    }
}

fn leaf_of_file(path: &Path) -> Option<Leaf> {
    let (text, _) = read_regular(&CWD, path.as_os_str()).ok()?;
    read_leaf(&text).ok()
}

/// Whether a link is broken or leads in a circle.
fn leads_nowhere(cause: &io::Error) -> bool {
    let errno = rustix::io::Errno::from_io_error(cause);
    matches!(errno, Some(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP))
}

/// A refusal, and whether the files moved while they were read.
type Moved = (Refusal, bool);

/// One of a lineage's two files: what its link names, and what was read through it.
struct Part {
    target: Option<OsString>,
    stat: Stat,
    bytes: Zeroizing<Vec<u8>>,
}

fn read_pair(
    dir: &OwnedFd,
    folder: &Path,
    [key_file, chain_file]: [&str; 2],
    changed: &mut SystemTime,
) -> Result<KeyAndChain, Moved> {
    let key = read_part(dir, folder, key_file, Reason::Unproved(Flaw::KeyMissing), changed);
    let chain = read_part(dir, folder, chain_file, Reason::Unproved(Flaw::CertificateMissing), changed);
    let (key, chain) = match (key, chain) {
        (Ok(key), Ok(chain)) => (key, chain),
        // The chain's absence says more than the key's: a lineage that has neither was never issued.
        (_, Err(refused)) | (Err(refused), _) => return Err(refused),
    };
    for (name, part) in [(key_file, &key), (chain_file, &chain)] {
        let path = folder.join(name);
        match moved(dir, name, part) {
            Ok(false) => {}
            Ok(true) => {
                let detail = format!("{} changed while it was read", escaped_path(&path));
                return Err((Refusal::new(Reason::LineageTorn, detail), true));
            }
            Err(e) => return Err((Refusal::new(Reason::Io, cannot("read", &path, &e)), false)),
        }
    }
    let versions = (version(key_file, &key), version(chain_file, &chain));
    Ok(KeyAndChain {
        loose_permissions: key.stat.st_mode & 0o077 != 0,
        versions_differ: matches!(versions, (Some(key), Some(chain)) if key != chain),
        chain: chain.bytes,
        unsettled: false,
        key_look: Look::of(&key.stat),
        chain_look: Look::of(&chain.stat),
        key: key.bytes,
    })
}

fn read_part(
    dir: &OwnedFd,
    folder: &Path,
    name: &str,
    missing: Reason,
    changed: &mut SystemTime,
) -> Result<Part, Moved> {
    let path = folder.join(name);
    let target =
        link_target(dir, name).map_err(|e| (Refusal::new(Reason::Io, cannot("read", &path, &e)), false))?;
    let opened = target.clone().unwrap_or_else(|| OsString::from(name));
    match read_regular(dir, &opened) {
        Ok((bytes, stat)) => {
            *changed = (*changed).max(changed_at(&stat));
            Ok(Part { target, stat, bytes })
        }
        Err(Unopened::NotRegular(what)) => Err((
            Refusal::new(
                Reason::NotARegularFile,
                format!("{} is {what}, not a regular file", escaped_path(&path)),
            ),
            false,
        )),
        Err(Unopened::TooLarge(size)) => Err((
            Refusal::new(
                Reason::TooLarge,
                format!("{} has {size} bytes, more than {MAX_FILE_BYTES}", escaped_path(&path)),
            ),
            false,
        )),
        Err(Unopened::Io(e)) if e.kind() == io::ErrorKind::NotFound => {
            // Half of an interrupted swap: certbot removes previous_* last.
            let interrupted = matches!(link_target(dir, &format!("previous_{name}")), Ok(Some(_)));
            let reason = if interrupted { Reason::LineageTorn } else { missing };
            let detail = match target {
                Some(target) => {
                    format!("{} is a broken link to {}", escaped_path(&path), escaped(target.as_bytes()))
                }
                None => format!("{} is missing", escaped_path(&path)),
            };
            Err((Refusal::new(reason, detail), false))
        }
        Err(Unopened::Io(e)) => Err((Refusal::new(Reason::Io, cannot("read", &path, &e)), false)),
    }
}

/// Whether the name no longer leads to what was read.
fn moved(dir: &OwnedFd, name: &str, part: &Part) -> io::Result<bool> {
    if link_target(dir, name)? != part.target {
        return Ok(true);
    }
    match statat(dir, part.target.as_deref().unwrap_or(OsStr::new(name)), AtFlags::empty()) {
        Ok(now) => Ok(as_read(&now) != as_read(&part.stat)),
        Err(rustix::io::Errno::NOENT) => Ok(true),
        Err(e) => Err(e.into()),
    }
}

/// The version number N of `../../archive/NAME/kindN.pem`.
fn version(name: &str, part: &Part) -> Option<u64> {
    let file = Path::new(part.target.as_ref()?).file_name()?.to_str()?;
    file.strip_prefix(name.strip_suffix(".pem")?)?.strip_suffix(".pem")?.parse().ok()
}

/// What a link names; `None`: there is no link of this name.
fn link_target(dir: &OwnedFd, name: &str) -> io::Result<Option<OsString>> {
    match readlinkat(dir, name, Vec::new()) {
        Ok(target) => Ok(Some(OsString::from_vec(target.into_bytes()))),
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

fn changed_at(stat: &Stat) -> SystemTime {
    let seconds = u64::try_from(stat.st_ctime).unwrap_or_default();
    let nanoseconds = u32::try_from(stat.st_ctime_nsec).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds)
}

fn settled(reason: Reason, detail: String) -> Unread {
    Unread { refusal: Refusal::new(reason, detail), unsettled: false }
}

fn cannot(deed: &str, path: &Path, cause: &io::Error) -> String {
    format!("cannot {deed} {}: {}", escaped_path(path), io_cause(cause))
}

/// What certbot told its hook: the lineage that it believes was renewed, where that isn't one of this tree's.
///
/// certbot leaks `RENEWED_LINEAGE` into later hooks, so it is only ever a hint.
#[must_use]
pub fn foreign_renewal(live_dir: &Path, renewed_lineage: Option<&OsStr>) -> Option<String> {
    let renewed = Path::new(renewed_lineage.filter(|name| !name.is_empty())?);
    let real = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let parent = real(renewed.parent()?);
    (parent != real(live_dir)).then(|| {
        format!(
            "RENEWED_LINEAGE names {}, which is not in {}: another certbot tree shares this hook; give it a \
             configuration of its own",
            escaped_path(renewed),
            escaped_path(live_dir)
        )
    })
}
