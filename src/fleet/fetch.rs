//! Bringing what a head names from the store into the cache: only what is missing, and only what is what its name says.

use std::collections::BTreeMap;

use crate::fleet::cache::{CacheFolder, is_sha256_of};
use crate::fleet::epoch::EpochKey;
use crate::fleet::head::Head;
use crate::fleet::identity::HostIdentity;
use crate::fleet::name::NodeName;
use crate::fleet::page::{self, PageEntry};
use crate::fleet::store::{FleetStore, StoreError, StoreKey};
use crate::sys::failure::Failure;

/// Objects that are asked for together.
const TOGETHER: usize = 100;

/// Why not everything is here.
#[derive(Debug, thiserror::Error)]
pub enum Unfetched {
    /// The store has no such value.
    #[error("the store has no {0}")]
    Missing(String),
    /// What the store has is something else.
    #[error("the store's {0} isn't what the head names")]
    Damaged(String),
    /// It may be whole in a moment: something still carries it here.
    #[error("{0} isn't whole yet")]
    NotYet(String),
    /// The store could not be asked.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It could not be kept.
    #[error(transparent)]
    Unkept(#[from] Failure),
}

impl Unfetched {
    /// Whether waiting may mend it.
    #[must_use]
    pub fn may_come(&self) -> bool {
        matches!(self, Self::Missing(_) | Self::NotYet(_))
    }
}

/// Brings what is missing; the pages' lineages, and the key of the head's epoch. Objects only where they are wanted.
///
/// # Errors
/// Something isn't there, or isn't what the head says, or can't be kept.
pub fn fetch(
    store: &dyn FleetStore,
    folder: &CacheFolder,
    head: &Head,
    identity: &HostIdentity,
    node: &NodeName,
    with_objects: bool,
) -> Result<(EpochKey, BTreeMap<String, PageEntry>), Unfetched> {
    let key = epoch_key(store, folder, head, identity, node)?;
    let missing: Vec<[u8; 32]> =
        head.pages.iter().filter(|hash| folder.page(hash).is_none()).copied().collect();
    bring(store, &missing, &StoreKey::Page, &|hash, bytes| folder.keep_page(hash, bytes))?;
    let mut entries = BTreeMap::new();
    for (at, hash) in head.pages.iter().enumerate() {
        let shown = || StoreKey::Page(*hash).to_string();
        let bytes = folder.page(hash).ok_or_else(|| Unfetched::Missing(shown()))?;
        let page = page::open(&bytes, (at, head.pages.len()), &head.fleet, &key)
            .map_err(|_| Unfetched::Damaged(shown()))?;
        entries.extend(page.into_iter().map(|entry| (entry.lineage.clone(), entry)));
    }
    if with_objects {
        let missing: Vec<[u8; 32]> =
            entries.values().map(|entry| entry.object).filter(|hash| !folder.has_object(hash)).collect();
        bring(store, &missing, &StoreKey::Object, &|hash, bytes| folder.keep_object(hash, bytes))?;
    }
    Ok((key, entries))
}

fn epoch_key(
    store: &dyn FleetStore,
    folder: &CacheFolder,
    head: &Head,
    identity: &HostIdentity,
    node: &NodeName,
) -> Result<EpochKey, Unfetched> {
    let open = |sealed: &[u8]| {
        EpochKey::open(sealed, identity, &head.fleet, node, (head.epoch, &head.epoch_key)).ok()
    };
    if let Some(key) = folder.epoch_key(head.epoch).and_then(|sealed| open(&sealed)) {
        return Ok(key);
    }
    let at = StoreKey::EpochKey { epoch: head.epoch, node: node.clone() };
    let shown = at.to_string();
    let found = store.get(&[at])?.into_iter().next().flatten();
    let stored = found.ok_or_else(|| Unfetched::Missing(shown.clone()))?;
    match open(&stored.bytes) {
        Some(key) => {
            folder.keep_epoch_key(head.epoch, &stored.bytes)?;
            Ok(key)
        }
        None if stored.settled => Err(Unfetched::Damaged(shown)),
        None => Err(Unfetched::NotYet(shown)),
    }
}

/// Keeps a value under its hash.
type Keep<'a> = &'a dyn Fn(&[u8; 32], &[u8]) -> Result<(), Failure>;

fn bring(
    store: &dyn FleetStore,
    hashes: &[[u8; 32]],
    key: &dyn Fn([u8; 32]) -> StoreKey,
    keep: Keep<'_>,
) -> Result<(), Unfetched> {
    let mut first = None;
    for hashes in hashes.chunks(TOGETHER) {
        let keys: Vec<StoreKey> = hashes.iter().map(|hash| key(*hash)).collect();
        for (hash, found) in hashes.iter().zip(store.get(&keys)?) {
            let shown = key(*hash).to_string();
            match found {
                Some(stored) if is_sha256_of(hash, &stored.bytes) => keep(hash, &stored.bytes)?,
                Some(stored) if stored.settled => {
                    first.get_or_insert(Unfetched::Damaged(shown));
                }
                Some(_) => {
                    first.get_or_insert(Unfetched::NotYet(shown));
                }
                None => {
                    first.get_or_insert(Unfetched::Missing(shown));
                }
            }
        }
    }
    first.map_or(Ok(()), Err)
}
