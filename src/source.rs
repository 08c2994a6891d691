//! Where a run's pairs of key and chain come from: certbot's tree, or what the fleet's publisher published. Nobody behind
//! the sweep knows which.

use std::ffi::OsStr;
use std::path::PathBuf;

use crate::certbot::{CertbotTree, Discovery, KeyAndChain, Unread};
use crate::certified_key::Leaf;
use crate::config::Settings;
use crate::fleet::cache::FleetCache;
use crate::index::pair_files::PairFiles;
use crate::plan::situation::Policy;
use crate::sys::escape::escaped_path;
use crate::sys::failure::Failure;

/// Where the pairs come from.
#[derive(Debug)]
pub enum Source {
    /// certbot's tree.
    Certbot(CertbotTree),
    /// The fleet's cache on this host.
    Fleet(Box<FleetCache>),
}

impl Source {
    /// The source that these settings name.
    ///
    /// # Errors
    /// The fleet's cache or this host's identity can't be read.
    pub fn of(settings: &Settings) -> Result<Self, Failure> {
        match settings.followed() {
            Some(fleet) => FleetCache::open(fleet).map(|cache| Self::Fleet(Box::new(cache))),
            None => Ok(Self::Certbot(CertbotTree::of(settings))),
        }
    }

    /// Finds every lineage; the files of those that are known to be whole aren't looked for.
    ///
    /// # Errors
    /// A directory is there but can't be read.
    pub fn discover(&self, is_known: &dyn Fn(&OsStr) -> bool) -> Result<Discovery, Failure> {
        match self {
            Self::Certbot(tree) => tree.discover_besides(is_known),
            Self::Fleet(cache) => Ok(cache.discover()),
        }
    }

    /// Where its files are; `None`: they can't be looked at.
    #[must_use]
    pub fn files(&self) -> Option<Box<dyn PairFiles + '_>> {
        match self {
            Self::Certbot(tree) => tree.files().map(|files| Box::new(files) as Box<dyn PairFiles>),
            Self::Fleet(cache) => cache.files().map(|files| Box::new(files) as Box<dyn PairFiles>),
        }
    }

    /// Reads key and chain of one lineage.
    ///
    /// # Errors
    /// What is missing or can't be read, and whether it may be whole in a moment.
    pub fn read(&self, lineage: &OsStr) -> Result<KeyAndChain, Unread> {
        match self {
            Self::Certbot(tree) => tree.read(lineage),
            Self::Fleet(cache) => cache.read(lineage),
        }
    }

    /// The leaf of a lineage whose pair can't be had, where its chain can be read.
    #[must_use]
    pub fn leaf(&self, lineage: &OsStr) -> Option<Leaf> {
        match self {
            Self::Certbot(tree) => tree.leaf(lineage),
            Self::Fleet(_) => None,
        }
    }

    /// Whether one of the lineage's earlier certificates is the leaf with this SHA-256.
    #[must_use]
    pub fn has_archived(&self, lineage: &OsStr, leaf_sha256: &[u8; 32]) -> bool {
        match self {
            Self::Certbot(tree) => tree.has_archived(lineage, leaf_sha256),
            Self::Fleet(cache) => cache.has_archived(lineage, leaf_sha256),
        }
    }

    /// What a lineage is called in what is said of it: certbot's directory of it.
    #[must_use]
    pub fn folder(&self, lineage: &OsStr) -> PathBuf {
        match self {
            Self::Certbot(tree) => tree.folder(lineage),
            Self::Fleet(cache) => cache.name().join(lineage),
        }
    }

    /// What the source itself says of what may be pruned.
    #[must_use]
    pub fn policy(&self, policy: Policy) -> Policy {
        match self {
            Self::Certbot(_) => policy,
            Self::Fleet(cache) => cache.policy(policy),
        }
    }
}

/// Whether there is a source at all: certbot may have no tree yet.
///
/// # Errors
/// It can't be looked at.
pub fn is_there(settings: &Settings) -> Result<bool, Failure> {
    let place = match settings.followed() {
        Some(fleet) => FleetCache::head_file(fleet),
        None => settings.live_dir.clone(),
    };
    place.try_exists().map_err(|e| Failure::io("look at", &place, &e))
}

/// That the source is missing, and what to do.
#[must_use]
pub fn absence(settings: &Settings) -> String {
    if let Some(fleet) = settings.followed() {
        return format!(
            "nothing of the fleet {} is here; what was deployed from it stays. Run haproxy-certs fleet follow --once",
            fleet.name
        );
    }
    let live_dir = escaped_path(&settings.live_dir);
    format!("{live_dir} is missing; what was deployed from it stays. Set live_dir if certbot's tree moved")
}
