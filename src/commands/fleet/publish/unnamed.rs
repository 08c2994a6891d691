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
    entries: &BTreeMap<String, PageEntry>,
    at: i64,
) {
    for key in previous.into_iter().flat_map(|opened| opened.replaced_by(head, entries)) {
        memory.dropped.entry(key.to_string()).or_insert((head.sequence, at));
    }
    let is_named = names(head, entries);
    memory.dropped.retain(|path, _| StoreKey::of_path(path).is_none_or(|key| !is_named(&key)));
}

/// Notes what is in the store and no head names.
pub(super) fn note_strays(
    memory: &mut FleetMemory,
    there: &BTreeSet<StoreKey>,
    sequence: u64,
    entries: &BTreeMap<String, PageEntry>,
    folder: &CacheFolder,
    at: i64,
) -> Result<(), Failure> {
    let head = folder.head()?.and_then(|bytes| SignedHead::read(&bytes).ok());
    let Some(head) = head else { return Ok(()) };
    let is_named = names(&head.head, entries);
    for key in there.iter().filter(|key| !is_named(key)) {
        memory.dropped.entry(key.to_string()).or_insert((sequence, at));
    }
    Ok(())
}

/// The nodes that have a key of this epoch in the store and aren't among these: where the memory of their removal was lost,
/// nothing else tells of them.
pub(super) fn could_read(there: &BTreeSet<StoreKey>, epoch: u64, nodes: &NodeList) -> BTreeSet<String> {
    let holder = |key: &StoreKey| match key {
        StoreKey::EpochKey { epoch: of, node } if *of == epoch => Some(node.clone()),
        _ => None,
    };
    let is_no_more = |node: &NodeName| *node != NodeName::publisher() && nodes.get(node.as_ref()).is_none();
    there.iter().filter_map(holder).filter(is_no_more).map(|node| node.to_string()).collect()
}

/// What a head names in the store. The key of a node that was removed counts until the epoch is over: it says who could still
/// read.
fn names(head: &Head, entries: &BTreeMap<String, PageEntry>) -> impl Fn(&StoreKey) -> bool + use<> {
    let (named, now): (HashSet<StoreKey>, u64) = (parts(head, entries).collect(), head.epoch);
    move |key| match key {
        StoreKey::EpochKey { epoch, .. } => *epoch == now,
        key => named.contains(key),
    }
}

/// The pages and objects that a head names; the list of nodes is among the pages.
pub(super) fn parts<'a>(
    head: &'a Head,
    entries: &'a BTreeMap<String, PageEntry>,
) -> impl Iterator<Item = StoreKey> + use<'a> {
    let pages = head.pages.iter().chain([&head.nodes]).map(|hash| StoreKey::Page(*hash));
    pages.chain(entries.values().map(|entry| StoreKey::Object(entry.object)))
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
