//! What is in the store and no head names: noted, and deleted after a day.

use std::collections::btree_map::Entry;
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

/// So much is noted of what is in the store and no head names.
const MOST_DROPPED: usize = 100_000;

/// So many are known by name who are no nodes and have a key in the store.
const MOST_HOLDERS: usize = 1000;

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

/// Notes what is in the store and no head names; says how much is left of it. The store alone says that it is there, so it
/// takes no more than its room.
pub(super) fn note_strays(
    memory: &mut FleetMemory,
    there: &BTreeSet<StoreKey>,
    sequence: u64,
    entries: &BTreeMap<String, PageEntry>,
    folder: &CacheFolder,
    at: i64,
) -> Result<Option<String>, Failure> {
    let head = folder.head()?.and_then(|bytes| SignedHead::read(&bytes).ok());
    let Some(head) = head else { return Ok(None) };
    let is_named = names(&head.head, entries);
    let mut more = 0;
    for path in there.iter().filter(|key| !is_named(key)).map(StoreKey::to_string) {
        let has_room = memory.dropped.len() < MOST_DROPPED;
        match memory.dropped.entry(path) {
            Entry::Occupied(_) => {}
            Entry::Vacant(free) if has_room => drop(free.insert((sequence, at))),
            Entry::Vacant(_) => more += 1,
        }
    }
    Ok((more > 0).then(|| {
        format!(
            "the store lists {more} values that no head names beside the {MOST_DROPPED} that are noted at once; they stay \
             until those are deleted"
        )
    }))
}

/// The nodes that have a key of this epoch in the store and aren't among these: where the memory of their removal was lost,
/// nothing else tells of them. `before`: those that were known, which come first; the number of those beside [`MOST_HOLDERS`].
pub(super) fn could_read(
    there: &BTreeSet<StoreKey>,
    epoch: u64,
    nodes: &NodeList,
    before: &BTreeSet<String>,
) -> (BTreeSet<String>, usize) {
    let holder = |key: &StoreKey| match key {
        StoreKey::EpochKey { epoch: of, node } if *of == epoch => Some(node.clone()),
        _ => None,
    };
    let is_no_more = |node: &NodeName| *node != NodeName::publisher() && nodes.get(node.as_ref()).is_none();
    let all = there.iter().filter_map(holder).filter(is_no_more).map(|node| node.to_string());
    let (known, others): (Vec<String>, Vec<String>) = all.partition(|node| before.contains(node));
    let more = (known.len() + others.len()).saturating_sub(MOST_HOLDERS);
    (known.into_iter().chain(others).take(MOST_HOLDERS).collect(), more)
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
    let due = memory.dropped.iter().filter(|(_, dropped)| is_due(dropped));
    let keys: Vec<StoreKey> = due.filter_map(|(path, _)| StoreKey::of_path(path)).collect();
    if keys.is_empty() {
        return;
    }
    match store.delete(&keys) {
        Ok(()) => memory.dropped.retain(|_, dropped| !is_due(dropped)),
        Err(e) => alarms.push(format!("what no head names any more can't be deleted: {e}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invented_holders_push_out_none_that_was_known() {
        let key = |name: &str| StoreKey::EpochKey { epoch: 3, node: name.parse().unwrap() };
        let mut there: BTreeSet<StoreKey> = (0..MOST_HOLDERS + 5).map(|at| key(&format!("a{at}"))).collect();
        there.insert(key("lb9"));
        let known = BTreeSet::from(["lb9".to_owned(), "gone".to_owned()]);
        let (holders, more) = could_read(&there, 3, &NodeList::of([]), &known);
        assert_eq!((holders.len(), more), (MOST_HOLDERS, 6));
        assert!(holders.contains("lb9") && !holders.contains("gone"));
        assert_eq!(could_read(&there, 4, &NodeList::of([]), &known), (BTreeSet::new(), 0));
    }
}
