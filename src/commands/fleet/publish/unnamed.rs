//! What is in the store and no head names: noted, and deleted after a day.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::commands::fleet::failures::in_store;
use crate::fleet::cache::{CacheFolder, FleetMemory, Opened};
use crate::fleet::head::{Head, SignedHead};
use crate::fleet::name::NodeName;
use crate::fleet::node_list::NodeList;
use crate::fleet::page::PageEntry;
use crate::fleet::store::{FleetStore, StoreFolder, StoreKey};
use crate::sys::failure::Failure;

/// What no head names any more goes after this, and strays are looked for as often.
pub(super) const DAY: i64 = 24 * 60 * 60;

/// All that the store has of objects, pages and keys.
pub(super) fn listed(store: &dyn FleetStore) -> Result<BTreeSet<StoreKey>, Failure> {
    let mut all = BTreeSet::new();
    for folder in [StoreFolder::Objects, StoreFolder::Pages, StoreFolder::EpochKeys] {
        all.extend(store.list(folder).map_err(|e| in_store(&e))?);
    }
    Ok(all)
}

/// Notes what the last head named and this one doesn't.
pub(super) fn drop_unnamed(
    memory: &mut FleetMemory,
    previous: Option<&Opened>,
    head: &Head,
    (nodes, entries): (&NodeList, &BTreeMap<String, PageEntry>),
    at: i64,
) {
    for key in previous.into_iter().flat_map(|opened| opened.replaced_by(head, nodes, entries)) {
        memory.dropped.entry(key.to_string()).or_insert((head.sequence, at));
    }
    let named = named(head, nodes, entries);
    memory.dropped.retain(|path, _| StoreKey::of_path(path).is_none_or(|key| !named.contains(&key)));
}

/// Notes what is in the store and no head names.
pub(super) fn note_strays(
    memory: &mut FleetMemory,
    there: &BTreeSet<StoreKey>,
    sequence: u64,
    (nodes, entries): (&NodeList, &BTreeMap<String, PageEntry>),
    folder: &CacheFolder,
    at: i64,
) -> Result<(), Failure> {
    let head = folder.head()?.and_then(|bytes| SignedHead::read(&bytes).ok());
    let Some(head) = head else { return Ok(()) };
    let named = named(&head.head, nodes, entries);
    for key in there.iter().filter(|key| !named.contains(key)) {
        memory.dropped.entry(key.to_string()).or_insert((sequence, at));
    }
    Ok(())
}

/// All that a head names in the store.
fn named(head: &Head, nodes: &NodeList, entries: &BTreeMap<String, PageEntry>) -> HashSet<StoreKey> {
    let pages = head.pages.iter().chain([&head.nodes]).map(|hash| StoreKey::Page(*hash));
    let objects = entries.values().map(|entry| StoreKey::Object(entry.object));
    let names = nodes.iter().map(|(name, _)| name.clone()).chain([NodeName::publisher()]);
    let keys = names.map(|node| StoreKey::EpochKey { epoch: head.epoch, node });
    pages.chain(objects).chain(keys).collect()
}

/// Deletes what neither this head nor the one before names, after a day. What can't be deleted is tried again.
pub(super) fn clear_away(
    store: &dyn FleetStore,
    memory: &mut FleetMemory,
    sequence: u64,
    at: i64,
    alarms: &mut Vec<String>,
) {
    let is_due = |(since_head, since): &(u64, i64)| *since_head < sequence && at - since >= DAY;
    let due: Vec<String> =
        memory.dropped.iter().filter(|(_, dropped)| is_due(dropped)).map(|(path, _)| path.clone()).collect();
    let keys: Vec<StoreKey> = due.iter().filter_map(|path| StoreKey::of_path(path)).collect();
    if keys.is_empty() {
        return;
    }
    match store.delete(&keys) {
        Ok(()) => memory.dropped.retain(|path, _| !due.contains(path)),
        Err(e) => alarms.push(format!("what no head names any more can't be deleted: {e}")),
    }
}
