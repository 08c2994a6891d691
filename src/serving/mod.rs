//! What HAProxy loads: every bind with its certificates in the order in which they are loaded, as a value of its own.
//!
//! ```text
//! haproxy.cfg ──► words ──► configuration ─┐                       ┌─► plan (in memory or by reload, prunes, shadows)
//! crt-lists ────► crt_list ────────────────┼─► gather ─► Serving ──┼─► status (unloadable, expired, shadowed)
//! directories, files, the running master ──┘   (I/O)               └─► haproxy (which stores, which rivals)
//! ```
//!
//! [`Serving`] says what a HAProxy that is freshly started from these files would load; [`View`] says who would serve a name
//! then. Where the configuration can't be read, or has something that isn't understood here, [`Serving::unclear`] says
//! why: then nothing may be claimed from what it lacks, and a reload is the only safe way to tell that HAProxy.
//!
//! Whether two stores are the same file is told by device and inode, never by how a path is spelled.
//!
//! The rules are HAProxy's (`ssl_sock.c`, `ssl_crtlist.c`, `ssl_clienthello.c` of 2.2 to 3.4, and measured with each).

pub mod configuration;
pub mod crt_list;
mod disk;
pub mod gather;
pub mod pair;
mod view;
mod words;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use view::Certificate;
pub use view::Rival;
pub use view::View;
pub use view::Views;

use crate::certified_key::Leaf;
use crate::sys::escape::{escaped, shell_word};

/// What a HAProxy loads when it starts or reloads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Serving {
    /// The bind lines that load certificates, in the configuration's order.
    pub binds: Vec<Bind>,
    /// Every file that is loaded, by the name that HAProxy has for it in `show ssl cert`.
    pub stores: BTreeMap<String, Store>,
    /// The directories that are loaded, by their spelling.
    pub directories: BTreeMap<String, Option<Identity>>,
    /// Every file that a line of the configuration or of a crt-list names.
    pub named: Vec<Named>,
    /// Its version, where that is known: `(3, 2)`.
    pub version: Option<(u32, u32)>,
    /// Why it isn't all of what HAProxy loads, or not surely.
    pub unclear: Option<String>,
}

/// What the HAProxys load around the sites directory: for the planner.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Loaded {
    /// One for each HAProxy. What is in the sites directory isn't read: the planner knows it better.
    pub servings: Vec<Serving>,
    /// Which directory the sites directory is.
    pub sites: Option<Identity>,
    /// Which file the host certificate is.
    pub host: Option<Identity>,
    /// The files of the sites directory that a line of a configuration or a crt-list names by itself, and the line.
    pub named: BTreeMap<OsString, At>,
}

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct At {
    /// The file, as it was named.
    pub file: String,
    /// Its line, from 1.
    pub line: usize,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", escaped(&self.file), self.line)
    }
}

/// A file's device and inode: what tells that two paths lead to the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// The device.
    pub device: u64,
    /// The inode.
    pub inode: u64,
}

/// A bind line that loads certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// The line.
    pub at: At,
    /// Its section: `frontend https`.
    pub section: String,
    /// The addresses as they stand there, separated by commas.
    pub addresses: String,
    /// Whether it speaks TLS: without `ssl` certificates are loaded and not served.
    pub ssl: bool,
    /// Whether clients that name no site of it are refused: `strict-sni`.
    pub strict_sni: bool,
    /// What it loads, in order.
    pub loads: Vec<Load>,
}

/// One `crt`, `default-crt` or `crt-list` of a bind line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Load {
    /// What it names.
    pub how: How,
    /// The path as HAProxy has it: `crt-base` before it, without a slash at the end where it is a directory.
    pub path: String,
    /// The files, in the order in which they are loaded.
    pub entries: Vec<Entry>,
}

/// What a word of a bind line names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// A file by `crt` (several where it is a bundle: `F.ecdsa`, `F.rsa`).
    File,
    /// A file by `default-crt` (3.0 and later).
    Default,
    /// A directory.
    Directory,
    /// A crt-list.
    List,
}

/// One certificate on a bind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its file, see [`Serving::stores`].
    pub store: String,
    /// The line that brings it here: of the bind, or of the crt-list.
    pub at: At,
    /// The names that it is served for instead of its own; those with `!` are never served by its wildcards.
    pub filters: Vec<String>,
}

/// A file that is loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// Where it can be opened from here: in a container or chroot below `/proc/PID/root`.
    pub path: PathBuf,
    /// Which file it is, links followed; `None`: it can't be followed.
    pub identity: Option<Identity>,
    /// What is in it.
    pub contents: Contents,
}

/// What a file holds, as far as HAProxy cares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contents {
    /// A certificate and its key: HAProxy loads it.
    Pair(Arc<Leaf>),
    /// HAProxy refuses it, and with it its whole configuration.
    Unloadable {
        /// Its first certificate, where it has one.
        leaf: Option<Arc<Leaf>>,
        /// Why: one line of ASCII that goes behind "the file" and a verb's subject: `has no private key`.
        why: String,
    },
    /// It can't be judged: why.
    Unseen(String),
}

impl Contents {
    /// Its first certificate.
    #[must_use]
    pub fn leaf(&self) -> Option<&Arc<Leaf>> {
        match self {
            Self::Pair(leaf) => Some(leaf),
            Self::Unloadable { leaf, .. } => leaf.as_ref(),
            Self::Unseen(_) => None,
        }
    }
}

/// A path that a line names by itself, rather than by the directory that it is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The path, with `crt-base` where it begins with that.
    pub path: String,
    /// The directory that it is in.
    pub folder: Option<Identity>,
    /// Which file it is, links followed.
    pub identity: Option<Identity>,
    /// The line.
    pub at: At,
}

impl Named {
    /// The last part of the path.
    #[must_use]
    pub fn base(&self) -> &str {
        base_name(&self.path)
    }
}

impl Serving {
    /// Nothing is known, for this reason.
    #[must_use]
    pub fn unknown(why: impl Into<String>) -> Self {
        Self { unclear: Some(why.into()), ..Self::default() }
    }

    /// Whether a certificate of this store is on a bind.
    #[must_use]
    pub fn is_loaded(&self, store: &str) -> bool {
        self.binds.iter().flat_map(Bind::entries).any(|entry| entry.store == store)
    }

    /// The stores that are this same file, whatever their spelling: by device and inode where both are known, else by
    /// their base name.
    pub fn stores_of(&self, identity: Option<Identity>, base: &str) -> impl Iterator<Item = &str> {
        self.stores.iter().filter_map(move |(name, store)| {
            let same = match (store.identity, identity) {
                (Some(one), Some(other)) => one == other,
                _ => base_name(name) == base,
            };
            same.then_some(name.as_str())
        })
    }

    /// The line that names this file of a directory by itself.
    #[must_use]
    pub fn names(
        &self,
        folder: Option<Identity>,
        file: &OsStr,
        identity: Option<Identity>,
    ) -> Option<&Named> {
        self.named.iter().find(|named| {
            let in_place = named.base().as_bytes() == file.as_bytes()
                && match (named.folder, folder) {
                    (Some(one), Some(other)) => one == other,
                    _ => true,
                };
            in_place || (identity.is_some() && named.identity == identity)
        })
    }

    /// The stores that HAProxy can't load, and why.
    pub fn unloadable(&self) -> impl Iterator<Item = (&str, &Store, &str)> {
        self.stores.iter().filter_map(|(name, store)| match &store.contents {
            Contents::Unloadable { why, .. } => Some((name.as_str(), store, why.as_str())),
            Contents::Pair(_) | Contents::Unseen(_) => None,
        })
    }

    /// Whether a bind loads this directory, whatever its spelling.
    #[must_use]
    pub fn loads_directory(&self, identity: Identity) -> bool {
        let loads = self.binds.iter().flat_map(|bind| &bind.loads);
        loads.filter(|load| load.how == How::Directory).any(|load| self.is_directory(load, identity))
    }

    /// Whether this is the directory that a word of a bind line names.
    #[must_use]
    pub fn is_directory(&self, load: &Load, identity: Identity) -> bool {
        load.how == How::Directory && self.directories.get(&load.path).is_some_and(|it| *it == Some(identity))
    }

    /// The same with other files in this directory, in the order that HAProxy loads them: what is there after a plan.
    #[must_use]
    pub fn with_directory(&self, identity: Identity, files: &[(String, Arc<Leaf>)]) -> Self {
        let mut changed = self.clone();
        let in_directory = self.named.iter().filter(|named| named.folder == Some(identity));
        for named in in_directory {
            let leaf = files.iter().find(|(file, _)| file == named.base()).map(|(_, leaf)| leaf);
            if let (Some(store), Some(leaf)) = (changed.stores.get_mut(&named.path), leaf) {
                store.contents = Contents::Pair(Arc::clone(leaf));
            }
        }
        let spellings: Vec<String> = self
            .directories
            .iter()
            .filter(|(_, it)| **it == Some(identity))
            .map(|(path, _)| path.clone())
            .collect();
        for path in spellings {
            let store_of = |file: &str| format!("{path}/{file}");
            for load in changed.binds.iter_mut().flat_map(|bind| &mut bind.loads) {
                if load.how != How::Directory || load.path != path {
                    continue;
                }
                let Some(at) =
                    load.entries.first().map(|entry| entry.at.clone()).or_else(|| load_at(self, &path))
                else {
                    continue;
                };
                load.entries = files
                    .iter()
                    .map(|(file, _)| Entry { store: store_of(file), at: at.clone(), filters: Vec::new() })
                    .collect();
            }
            for (file, leaf) in files {
                let known = self.stores.get(&store_of(file));
                let store = Store {
                    path: known.map_or_else(PathBuf::new, |store| store.path.clone()),
                    identity: known.and_then(|store| store.identity),
                    contents: Contents::Pair(Arc::clone(leaf)),
                };
                changed.stores.insert(store_of(file), store);
            }
        }
        changed
    }

    /// How a bind answers.
    #[must_use]
    pub fn view<'a>(&'a self, bind: &'a Bind) -> View<'a> {
        View::of(self, bind)
    }

    /// Every bind, looked at once: for many questions, see [`Views::rivals`].
    ///
    /// # Errors
    /// What HAProxy loads isn't surely known: why. Then only a reload brings what a fresh start would serve.
    pub fn views(&self) -> Result<Views<'_>, String> {
        if let Some(why) = &self.unclear {
            return Err(why.clone());
        }
        let unseen = self.stores.values().find_map(|store| match &store.contents {
            Contents::Unseen(why) => Some(why.clone()),
            Contents::Pair(_) | Contents::Unloadable { .. } => None,
        });
        unseen.map_or_else(|| Ok(Views::of(self)), Err)
    }
}

/// The bind line that names this directory.
fn load_at(serving: &Serving, path: &str) -> Option<At> {
    let names = |bind: &&Bind| bind.loads.iter().any(|load| load.path == path);
    serving.binds.iter().find(names).map(|bind| bind.at.clone())
}

impl Bind {
    /// Its certificates, in the order in which they are loaded.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.loads.iter().flat_map(|load| &load.entries)
    }
}

/// The command that moves a file out of HAProxy's way.
#[must_use]
pub fn move_out(path: &Path) -> String {
    format!("mv -- {} /root/", shell_word(path.as_os_str()))
}

/// Whether HAProxy takes a directory's entry of this name for a certificate: dotfiles it passes over since 2.6; where its
/// version isn't known they count as passed over.
#[must_use]
pub fn is_loaded(name: &OsStr, version: Option<(u32, u32)>) -> bool {
    let bytes = name.as_bytes();
    if bytes.starts_with(b".") && version.is_none_or(|version| version >= (2, 6)) {
        return false;
    }
    let ending = bytes.iter().rposition(|&byte| byte == b'.').and_then(|dot| bytes.get(dot..));
    !ending.is_some_and(|ending| [&b".key"[..], b".ocsp", b".issuer", b".sctl"].contains(&ending))
}

/// The last part of a path.
#[must_use]
pub fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}
