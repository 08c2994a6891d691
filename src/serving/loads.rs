//! What a HAProxy loads: bind lines, what they name, and the files behind it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::certified_key::Leaf;
use crate::serving::beside::SIBLINGS;
use crate::sys::escape::{escaped, shell_word};

/// What a HAProxy loads when it starts or reloads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Serving {
    /// The bind lines that load certificates, in the configuration's order.
    pub binds: Vec<Bind>,
    /// Every file that is loaded, by the name that HAProxy has for it in `show ssl cert`.
    pub stores: BTreeMap<String, Store>,
    /// The stores that `server` lines present to other servers, and the line.
    pub for_servers: BTreeMap<String, At>,
    /// The directories that are loaded, by their spelling.
    pub directories: BTreeMap<String, Option<Identity>>,
    /// The files of these directories that begin a bundle, in the order in which they are loaded, see [`in_bundle`].
    pub bundles: BTreeMap<String, Vec<OsString>>,
    /// Every file that a line of the configuration or of a crt-list names.
    pub named: Vec<Named>,
    /// What lines read certificates from for something else than to present them.
    pub readers: Vec<Named>,
    /// What its lines name beside certificates and may have it read when it starts: crt-lists, authorities, maps, pages of
    /// errors. Where they can be opened from here; there may be nothing.
    pub read_at_start: BTreeSet<PathBuf>,
    /// The crt-lists without which it surely doesn't start.
    pub broken_lists: BTreeSet<BrokenList>,
    /// Whether it fetches OCSP responses, for some of its certificates at least.
    pub fetches_ocsp: bool,
    /// The last parts of names that may lead anywhere, and the line: a file of this name may be needed.
    pub mentioned: BTreeMap<String, At>,
    /// Why it may need more files than the lines are seen to name, where it doesn't run.
    pub unseen: Option<String>,
    /// The files and directories that say what it loads: its configuration and its crt-lists, where they can be opened from
    /// here.
    pub sources: Vec<PathBuf>,
    /// What stands before the relative names of a crt-list: `crt-base`.
    pub crt_base: Option<String>,
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
    /// Those of them that such a line loads as a certificate; the others are a list, a dictionary, authorities.
    pub certificates: BTreeSet<OsString>,
    /// The same for names that a line mentions without surely meaning this file.
    pub mentioned: BTreeMap<OsString, At>,
    /// The links that they load, by the files of the sites directory that they lead to: those that would be pruned.
    pub linked: BTreeMap<OsString, PathBuf>,
    /// Why files may be needed that no line is seen to name, and nobody can be asked.
    pub unseen: Option<String>,
    /// The configuration files of HAProxys that don't run, by their names in the settings, where these are known.
    pub stopped: BTreeMap<String, Vec<PathBuf>>,
    /// The configuration files that HAProxys run with, by their names in the settings, where they are surely these.
    pub configurations: BTreeMap<String, Vec<PathBuf>>,
    /// What their variable `OPENSSL_CONF` holds, for those of which this can be seen.
    pub openssl_confs: BTreeMap<String, Option<String>>,
}

impl Loaded {
    /// The oldest version among them: it passes over the fewest files. `None`: none is known.
    #[must_use]
    pub fn oldest(&self) -> Option<(u32, u32)> {
        self.servings.iter().filter_map(|serving| serving.version).min()
    }

    /// The file that begins a bundle for which one of them passes over this file of the sites directory.
    #[must_use]
    pub fn passed_over_for(&self, file: &OsStr) -> Option<&OsStr> {
        let of_sites = |serving: &'_ Serving, path: &String| {
            self.sites.is_some() && serving.directories.get(path).is_some_and(|found| *found == self.sites)
        };
        self.servings.iter().find_map(|serving| {
            let mut bundles = serving.bundles.iter().filter(|(path, _)| of_sites(serving, path));
            bundles.find_map(|(_, firsts)| in_bundle(file, firsts))
        })
    }

    /// Whether one of them surely takes this entry of the sites directory for a certificate, although newer ones don't.
    #[must_use]
    pub fn takes_dotfile(&self, name: &OsStr) -> bool {
        let oldest = self.oldest();
        oldest.is_some() && is_loaded(name, oldest) && !is_loaded(name, None)
    }
}

/// A crt-list that HAProxy surely refuses.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct BrokenList {
    /// Where it can be opened from here, or should be.
    pub path: PathBuf,
    /// Why, as behind "it": `there is no such file`.
    pub why: String,
    /// The line that names it.
    pub at: At,
}

impl BrokenList {
    /// What mends it.
    #[must_use]
    pub fn advice(&self) -> String {
        format!("mend the list, or take it out of {}", self.at)
    }
}

impl Serving {
    /// The line that names a store by itself, rather than by the directory that it is in.
    #[must_use]
    pub fn line_of(&self, store: &str) -> Option<&At> {
        let named = || self.named.iter().find(|named| named.path == store).map(|named| &named.at);
        // A path whose directory isn't there leads nowhere.
        let by_itself = || {
            let loads = self.binds.iter().flat_map(|bind| &bind.loads);
            let mut entries = loads.filter(|load| load.how != How::Directory).flat_map(|load| &load.entries);
            entries.find(|entry| entry.store == store).map(|entry| &entry.at)
        };
        named().or_else(by_itself).or_else(|| self.for_servers.get(store))
    }

    /// Whether a line names the host certificate, which is this file and has this spelling, or something that stands for it.
    #[must_use]
    pub fn names_host(&self, identity: Option<Identity>, spelled: &str) -> bool {
        self.named
            .iter()
            .any(|named| named.path == spelled || identity.is_some() && named.identity == identity)
            || self.stores.iter().any(|(name, store)| {
                name.as_str() == spelled || identity.is_some() && store.identity == identity
            })
    }
}

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct At {
    /// The file, as it was named.
    pub file: Arc<str>,
    /// Its line, from 1.
    pub line: usize,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", escaped(&*self.file), self.line)
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
#[allow(clippy::struct_excessive_bools, reason = "each is a word of its own")]
pub struct Bind {
    /// The line.
    pub at: At,
    /// Its section: `frontend https`.
    pub section: String,
    /// The addresses as they stand there, separated by commas.
    pub addresses: String,
    /// Whether it speaks TLS: without `ssl` certificates are loaded and not served.
    pub ssl: bool,
    /// Whether its section is `disabled`: certificates are loaded, and nothing listens.
    pub is_disabled: bool,
    /// Whether clients that name no site of it are refused: `strict-sni`.
    pub strict_sni: bool,
    /// Whether it expects a proxy's header before each connection: `accept-proxy`.
    pub accepts_proxy: bool,
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
    /// `ssl-f-use crt` of the frontend (3.2 and later).
    Used,
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
    /// What a line has HAProxy load with it, beside its key: `sctl FILE`.
    pub extra: Option<String>,
}

impl Store {
    /// Whether HAProxy doesn't start with it.
    #[must_use]
    pub fn is_unloadable(&self) -> bool {
        matches!(self.contents, Contents::Unloadable { .. })
    }
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
    /// HAProxy loads it and can't serve it: its handshakes fail.
    Unserved {
        /// Its first certificate.
        leaf: Arc<Leaf>,
        /// Why, as above.
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
            Self::Pair(leaf) | Self::Unserved { leaf, .. } => Some(leaf),
            Self::Unloadable { leaf, .. } => leaf.as_ref(),
            Self::Unseen(_) => None,
        }
    }

    /// Why HAProxy loads it and can't serve it.
    #[must_use]
    pub fn unserved(&self) -> Option<&str> {
        match self {
            Self::Unserved { why, .. } => Some(why),
            Self::Pair(_) | Self::Unloadable { .. } | Self::Unseen(_) => None,
        }
    }
}

/// What helps where a line gives a certificate a key that isn't its own.
pub const KEY_LINE: &str = "take the key out of that line, or put the right one there";

/// The endings of a bundle's files, in the order that HAProxy loads them: a path that isn't there stands for these.
pub const BUNDLE: [&str; 3] = ["dsa", "ecdsa", "rsa"];

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
    /// Whether it is loaded as a certificate.
    pub is_certificate: bool,
}

impl Named {
    /// The last part of the path.
    #[must_use]
    pub fn base(&self) -> &str {
        base_name(&self.path)
    }
}

impl Bind {
    /// Whether its certificates are served.
    #[must_use]
    pub fn serves(&self) -> bool {
        self.ssl && !self.is_disabled
    }

    /// Why its certificates aren't served, as behind its place, and what mends that.
    #[must_use]
    pub fn silence(&self) -> (&'static str, &'static str) {
        if self.ssl {
            ("is disabled: it doesn't listen", "take disabled out of that section, or out of its defaults")
        } else {
            ("has crt without ssl: it speaks no TLS", "add ssl to that line")
        }
    }

    /// Its certificates, in the order in which they are loaded.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.loads.iter().flat_map(|load| &load.entries)
    }
}

/// The command that moves a file out of HAProxy's way, and keeps what has its name there.
#[must_use]
pub fn move_out(path: &Path) -> String {
    format!("mv --backup=numbered -- {} /root/", shell_word(path.as_os_str()))
}

/// Whether HAProxy takes a directory's entry of this name for a certificate: dotfiles it passes over since 2.6; where its
/// version isn't known they count as passed over.
#[must_use]
pub fn is_loaded(name: &OsStr, version: Option<(u32, u32)>) -> bool {
    let bytes = name.as_bytes();
    if bytes.starts_with(b".") && version.is_none_or(|version| version >= (2, 6)) {
        return false;
    }
    let ending = bytes.iter().rposition(|&byte| byte == b'.').and_then(|dot| bytes.get(dot + 1..));
    !ending.is_some_and(|ending| SIBLINGS.iter().any(|sibling| sibling.as_bytes() == ending))
}

/// The first file of a bundle that takes this file's place in a directory: through 2.2 `X.rsa` is the bundle `X`, and all that
/// comes behind it and begins with `X` is passed over (`crtlist_load_cert_dir()`; measured). `firsts`: the files of the directory
/// that are named so, in byte order.
#[must_use]
pub fn in_bundle<'a>(file: &OsStr, firsts: &'a [OsString]) -> Option<&'a OsStr> {
    let begins = |name: &OsStr, first: &OsStr| {
        bundle_of(first).is_some_and(|bundle| name.as_bytes().starts_with(bundle.as_bytes()))
    };
    let mut last: Option<&OsStr> = None;
    for first in firsts.iter().filter(|first| first.as_os_str() < file) {
        if !last.is_some_and(|last| begins(first, last)) {
            last = Some(first);
        }
    }
    last.filter(|last| begins(file, last))
}

/// The bundle that a name in a directory is a part of: `X` of `X.rsa`.
#[must_use]
pub fn bundle_of(name: &OsStr) -> Option<&OsStr> {
    let bytes = name.as_bytes();
    let dot = bytes.iter().rposition(|&byte| byte == b'.')?;
    let (bundle, ending) = bytes.split_at_checked(dot)?;
    BUNDLE.iter().any(|kind| ending.get(1..) == Some(kind.as_bytes())).then(|| OsStr::from_bytes(bundle))
}

/// The last part of a path.
#[must_use]
pub fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_takes_the_place_of_what_begins_with_its_name() {
        let firsts: Vec<OsString> = ["b.ecdsa", "b.rsa", "c.d.dsa", "c.rsa"].map(OsString::from).into();
        for (file, by) in [
            ("a.pem", None),
            ("b.dsa.pem", None),
            ("b.example.pem", Some("b.ecdsa")),
            ("bz.pem", Some("b.ecdsa")),
            ("b.rsa", Some("b.ecdsa")),
            ("c.e.pem", None),
            ("c.d.e", Some("c.d.dsa")),
            ("c.z", Some("c.rsa")),
            ("d", None),
        ] {
            assert_eq!(in_bundle(OsStr::new(file), &firsts), by.map(OsStr::new), "{file}");
        }
    }
}
