//! What was seen of one file in the three places, before anything is judged.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::certified_key::{ChainState, Leaf};
use crate::fleet::page::PageEntry;
use crate::haproxy::cli::replies::StoreStatus;
use crate::plan::action::Action;
use crate::plan::row::{Role, Row};
use crate::serving::one_by_one::Unreached;
use crate::status::links::Links;

/// What a look at a place showed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Sight<T> {
    /// It can't be seen.
    #[default]
    Unseen,
    /// There is nothing.
    Absent,
    /// There is something that isn't readable as a certificate.
    Damaged,
    /// There it is.
    Here(T),
}

impl<T> Sight<T> {
    /// What is there.
    pub fn here(&self) -> Option<&T> {
        match self {
            Self::Here(it) => Some(it),
            Self::Unseen | Self::Absent | Self::Damaged => None,
        }
    }

    /// Whether the look was in vain.
    pub fn is_unseen(&self) -> bool {
        matches!(self, Self::Unseen)
    }
}

/// What HAProxy has in memory for one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedLeaf {
    /// What it is there for.
    pub status: StoreStatus,
    /// The leaf's serial number, in hex.
    pub serial: Option<String>,
    /// The leaf's SHA-1.
    pub sha1: Option<[u8; 20]>,
    /// From when it is valid: seconds since 1970.
    pub not_before: Option<i64>,
    /// Until when it is valid.
    pub not_after: Option<i64>,
    /// How many certificates follow it in its own file, where HAProxy shows that.
    pub chain_len: Option<usize>,
    /// Whether it stands alone: no other certificate is sent with it.
    pub is_alone: bool,
}

impl LoadedLeaf {
    /// One of which only that it is there is known.
    #[must_use]
    pub fn of_unknown() -> Self {
        Self {
            status: StoreStatus::Used,
            serial: None,
            sha1: None,
            not_before: None,
            not_after: None,
            chain_len: None,
            is_alone: false,
        }
    }

    /// Whether it is this leaf. Of an Ed25519 certificate HAProxy shows no fingerprint.
    #[must_use]
    pub fn is_of(&self, leaf: &Leaf) -> bool {
        match &self.sha1 {
            Some(sha1) => *sha1 == leaf.sha1,
            None => self.serial.as_ref() == Some(&leaf.serial),
        }
    }

    /// Whether it is in use, and this leaf.
    #[must_use]
    pub fn is_current(&self, leaf: &Leaf) -> bool {
        self.status == StoreStatus::Used && self.is_of(leaf)
    }
}

/// What came of asking for a file's names by TLS handshakes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presented {
    /// Every name that was asked for presents the file's certificate.
    Right,
    /// A name presents another one.
    Other {
        /// The name, and where it was asked for.
        asked: String,
        /// What was presented; `None` where it isn't readable.
        leaf: Option<Box<Leaf>>,
    },
    /// The handshake was refused for a name.
    Refused {
        /// The name, and where it was asked for.
        asked: String,
        /// The cause.
        why: String,
    },
}

/// What one HAProxy shows for one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// In memory, by the Runtime API.
    pub loaded: Sight<LoadedLeaf>,
    /// To its clients, by handshakes.
    pub presented: Sight<Presented>,
    /// A name that it serves from a file elsewhere in its configuration instead.
    pub outranked: Option<Outranked>,
    /// Whether it rightly has nothing: its lines load other files of the directory, and this one is another HAProxy's.
    pub is_apart: bool,
}

/// A name that a file from elsewhere serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outranked {
    /// The name.
    pub name: String,
    /// The file that serves it.
    pub by: String,
    /// Whether the configuration, which is known, names that file first.
    pub is_configured: bool,
}

impl Shown {
    /// Nothing could be seen.
    pub const UNSEEN: Self =
        Self { loaded: Sight::Unseen, presented: Sight::Unseen, outranked: None, is_apart: false };
}

/// One file in all places.
#[derive(Debug, Clone)]
pub struct SiteViews {
    /// The lineage.
    pub lineage: Option<OsString>,
    /// The file's name, or the host certificate's whole path.
    pub file: Option<OsString>,
    /// Site or host certificate.
    pub role: Role,
    /// What a run of `assemble` would do; `None` where that can't be known.
    pub row: Option<Row>,
    /// What certbot has.
    pub certbot: Sight<Arc<Leaf>>,
    /// What the file holds.
    pub disk: Sight<Arc<Leaf>>,
    /// What is published of it; `None`: this host doesn't publish it.
    pub published: Option<Sight<PageEntry>>,
    /// certbot's links, where the lineage is refused.
    pub links: Option<Links>,
    /// What keeps HAProxy from loading the file, and where it is.
    pub place: Location,
    /// What each HAProxy shows, in the order of the settings.
    pub haproxy: Vec<Shown>,
}

impl SiteViews {
    /// What is published of it, where that is known.
    #[must_use]
    pub fn in_edition(&self) -> Option<&PageEntry> {
        self.published.as_ref().and_then(Sight::here)
    }

    /// Whether HAProxy sends the leaf alone, where the file has what leads on from it.
    #[must_use]
    pub fn lacks_chain(&self, loaded: &LoadedLeaf) -> bool {
        let is_as_planned = |row: &&Row| row.action == Action::Unchanged;
        let chain = self.row.as_ref().filter(is_as_planned).and_then(|row| row.chain);
        let leads_on = chain.is_some_and(|chain| chain != ChainState::Incomplete);
        loaded.is_alone && leads_on && self.disk.here().is_some_and(|leaf| !leaf.is_self_signed)
    }
}

/// A file of a HAProxy that has another root directory: here it is below `/proc/PID/root`, as long as that process runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inside {
    /// The HAProxy.
    pub haproxy: String,
    /// Its path there.
    pub path: PathBuf,
}

impl Inside {
    /// The file at this path of ours, which this HAProxy loads; `None`: it has no other path there.
    #[must_use]
    pub fn of(haproxy: &str, path: &Path) -> Option<Self> {
        let mut parts = path.strip_prefix("/proc").ok()?.components();
        let pid = parts.next()?.as_os_str().to_str()?;
        let is_root = pid.parse::<u32>().is_ok() && parts.next()?.as_os_str() == "root";
        is_root.then(|| Self { haproxy: haproxy.to_owned(), path: Path::new("/").join(parts.as_path()) })
    }
}

/// A file among what HAProxy loads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Location {
    /// Its whole path.
    pub path: PathBuf,
    /// Where HAProxy has it, if that is another path.
    pub inside: Option<Inside>,
    /// Why HAProxy can't load it.
    pub unloadable: Option<String>,
    /// Why HAProxy loads it and can't serve it.
    pub unserved: Option<String>,
    /// The line of a configuration or crt-list that names it by itself.
    pub named: Option<String>,
    /// Why no client is presented it.
    pub unreached: Option<Unreached>,
    /// Whether it demands an OCSP response that HAProxy doesn't have.
    pub lacks_ocsp: bool,
    /// Whether it is none of the sites directory's.
    pub is_elsewhere: bool,
}
