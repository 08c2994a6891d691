//! Bringing what a head names from the store into the cache: only what is missing, and only what is what its name says.

use std::collections::BTreeMap;
use std::sync::mpsc::sync_channel;
use std::thread::{Builder, scope};

use crate::fleet::cache::{CacheFolder, Opened, is_sha256_of};
use crate::fleet::epoch::EpochKey;
use crate::fleet::head::Head;
use crate::fleet::identity::HostIdentity;
use crate::fleet::name::NodeName;
use crate::fleet::node_list::NodeList;
use crate::fleet::page::{self, PageEntry};
use crate::fleet::store::{FleetStore, StoreError, StoreKey, Stored, get_one};
use crate::sys::failure::Failure;
use crate::sys::parallel;

/// Objects that are asked for together.
pub const TOGETHER: usize = 100;

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

/// What is brought of a head, and what of it is believed to be here.
#[derive(Debug, Clone, Copy)]
pub struct Extent<'a> {
    /// What is here of the head before: its pages aren't opened again.
    pub before: Option<&'a Opened>,
    /// Objects too.
    pub objects: bool,
    /// Every object is looked at, also where the head before named it.
    pub every_object: bool,
}

/// Brings the list of a head's nodes, where it isn't here.
///
/// # Errors
/// It isn't there, or isn't what the head says, or can't be kept.
pub fn fetch_nodes(
    store: &dyn FleetStore,
    folder: &CacheFolder,
    head: &Head,
    before: Option<&Opened>,
) -> Result<NodeList, Unfetched> {
    if let Some(before) = before.filter(|before| before.signed.head.nodes == head.nodes) {
        return Ok(before.nodes.clone());
    }
    let damaged = |_| Unfetched::Damaged(StoreKey::Page(head.nodes).to_string());
    if let Some(bytes) = folder.page(&head.nodes) {
        return NodeList::read(&bytes).map_err(damaged);
    }
    bring(store, &[head.nodes], &StoreKey::Page, &|hash, bytes| folder.keep_page(hash, bytes))?;
    let bytes = folder.page(&head.nodes).unwrap_or_default();
    NodeList::read(&bytes).map_err(damaged)
}

/// What a head names, and is here now.
#[derive(Debug)]
pub struct Fetched {
    /// The key of its epoch.
    pub key: EpochKey,
    /// Its lineages.
    pub entries: BTreeMap<String, PageEntry>,
    /// What wasn't here for certain: it may not be on the disk yet.
    pub fresh: Vec<StoreKey>,
}

/// Brings what is missing of a head but the list of its nodes.
///
/// # Errors
/// Something isn't there, or isn't what the head says, or can't be kept.
pub fn fetch(
    store: &dyn FleetStore,
    folder: &CacheFolder,
    head: &Head,
    (identity, node): (&HostIdentity, &NodeName),
    extent: Extent<'_>,
) -> Result<Fetched, Unfetched> {
    let key = epoch_key(store, folder, head, identity, node)?;
    let before = extent.before.filter(|before| before.has_key_of(head));
    let is_known = |at: usize| before.is_some_and(|before| before.has_page(head, at));
    let unknown: Vec<(usize, [u8; 32])> =
        head.pages.iter().copied().enumerate().filter(|(at, _)| !is_known(*at)).collect();
    let missing: Vec<[u8; 32]> =
        unknown.iter().map(|(_, hash)| *hash).filter(|hash| folder.page(hash).is_none()).collect();
    bring(store, &missing, &StoreKey::Page, &|hash, bytes| folder.keep_page(hash, bytes))?;
    let count = head.pages.len();
    let mut entries = match before {
        Some(before) if unknown.len() < count => before.entries.clone(),
        Some(_) | None => BTreeMap::new(),
    };
    if !entries.is_empty() {
        entries.retain(|name, _| is_known(page::place(name, count)));
    }
    for (at, hash) in &unknown {
        let shown = || StoreKey::Page(*hash).to_string();
        let bytes = folder.page(hash).ok_or_else(|| Unfetched::Missing(shown()))?;
        let page =
            page::open(&bytes, (*at, count), &head.fleet, &key).map_err(|_| Unfetched::Damaged(shown()))?;
        entries.extend(page.into_iter().map(|entry| (entry.lineage.clone(), entry)));
    }
    let mut fresh: Vec<StoreKey> = unknown.iter().map(|(_, hash)| StoreKey::Page(*hash)).collect();
    if extent.before.is_none_or(|before| before.signed.head.nodes != head.nodes) {
        fresh.push(StoreKey::Page(head.nodes));
    }
    if before.is_none() {
        fresh.push(StoreKey::EpochKey { epoch: head.epoch, node: node.clone() });
    }
    if extent.objects {
        let was_named = |entry: &PageEntry| {
            let last = before.and_then(|before| before.entries.get(&entry.lineage));
            last.is_some_and(|last| last.object == entry.object)
        };
        let (old, new): (Vec<&PageEntry>, Vec<&PageEntry>) = entries.values().partition(|it| was_named(it));
        fresh.extend(new.iter().map(|entry| StoreKey::Object(entry.object)));
        let looked_at = new.into_iter().chain(old.into_iter().filter(|_| extent.every_object));
        let missing: Vec<[u8; 32]> =
            looked_at.map(|entry| entry.object).filter(|hash| !folder.has_object(hash)).collect();
        bring(store, &missing, &StoreKey::Object, &|hash, bytes| folder.keep_object(hash, bytes))?;
        fresh.extend(missing.into_iter().map(StoreKey::Object));
    }
    Ok(Fetched { key, entries, fresh })
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
    let found = get_one(store, at)?;
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
type Keep<'a> = &'a (dyn Fn(&[u8; 32], &[u8]) -> Result<(), Failure> + Sync);

/// While some values are kept, the next ones are asked for.
fn bring(
    store: &dyn FleetStore,
    hashes: &[[u8; 32]],
    key: &(dyn Fn([u8; 32]) -> StoreKey + Sync),
    keep: Keep<'_>,
) -> Result<(), Unfetched> {
    let ask = |hashes: &[[u8; 32]]| {
        let keys: Vec<StoreKey> = hashes.iter().map(|hash| key(*hash)).collect();
        store.get(&keys)
    };
    let keep_all = |hashes: &[[u8; 32]], found: Vec<Option<Stored>>| {
        let pairs: Vec<(&[u8; 32], Option<Stored>)> = hashes.iter().zip(found).collect();
        parallel::map(&pairs, |(hash, found)| keep_one(hash, found.as_ref(), key, keep), &|_, _| ())
    };
    if hashes.len() <= TOGETHER {
        return if hashes.is_empty() { Ok(()) } else { keep_all(hashes, ask(hashes)?).into_iter().collect() };
    }
    let mut first = None;
    let mut take = |hashes: &[[u8; 32]], found: Result<Vec<Option<Stored>>, StoreError>| {
        for kept in keep_all(hashes, found?) {
            match kept {
                Err(e @ (Unfetched::Unkept(_) | Unfetched::Store(_))) => return Err(e),
                Err(e) => drop(first.get_or_insert(e)),
                Ok(()) => {}
            }
        }
        Ok(())
    };
    scope(|scope| {
        // One that waits, and one that is on its way.
        let (sender, answers) = sync_channel(1);
        let ask_all = move || {
            for hashes in hashes.chunks(TOGETHER) {
                let found = ask(hashes);
                let is_last = found.is_err();
                if sender.send((hashes, found)).is_err() || is_last {
                    return;
                }
            }
        };
        if Builder::new().spawn_scoped(scope, ask_all).is_err() {
            // Without a thread it is one after the other.
            return hashes.chunks(TOGETHER).try_for_each(|hashes| take(hashes, ask(hashes)));
        }
        answers.into_iter().try_for_each(|(hashes, found)| take(hashes, found))
    })?;
    first.map_or(Ok(()), Err)
}

/// Keeps a value that is what its name says.
fn keep_one(
    hash: &[u8; 32],
    found: Option<&Stored>,
    key: &(dyn Fn([u8; 32]) -> StoreKey + Sync),
    keep: Keep<'_>,
) -> Result<(), Unfetched> {
    let shown = || key(*hash).to_string();
    match found {
        Some(stored) if is_sha256_of(hash, &stored.bytes) => Ok(keep(hash, &stored.bytes)?),
        Some(stored) if stored.settled => Err(Unfetched::Damaged(shown())),
        Some(_) => Err(Unfetched::NotYet(shown())),
        None => Err(Unfetched::Missing(shown())),
    }
}
