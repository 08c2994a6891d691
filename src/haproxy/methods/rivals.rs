//! Whether HAProxy itself shows that what was replaced in memory shares no name with anything else that it has: then it
//! answers with that, wherever a commit put it, whatever its configuration is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::haproxy::cli::replies::Listing;
use crate::haproxy::cli::worker::{Trouble, Worker, may_die_of_names};

/// How many other certificates HAProxy is asked for.
const ASKED_AT_MOST: usize = 1000;

/// Whether none of `ours`, the names of each store, is a name of another store or of another line of a crt-list. `false` also
/// where that can't be asked: before 3.0 HAProxy may end of what somebody else's certificate holds.
///
/// # Errors
/// A command has no reply to rely on.
pub fn has_none(
    worker: &Worker<'_>,
    version: Option<(u32, u32)>,
    listing: &Listing,
    mut ours: BTreeMap<&str, BTreeSet<String>>,
    deadline: Instant,
) -> Result<bool, Trouble> {
    let others = || listing.stores.iter().filter(|store| !ours.contains_key(store.as_str()));
    if may_die_of_names(version) || others().count() > ASKED_AT_MOST {
        return Ok(false);
    }
    let mut theirs = BTreeSet::new();
    for store in others() {
        let Some(names) = worker.names(store, deadline)? else { return Ok(false) };
        theirs.extend(names);
    }
    // What a line is served for instead of its certificate's names stands behind its options.
    for line in worker.list_lines(deadline)? {
        let of = |store: &&str| {
            line.strip_prefix(store).is_some_and(|rest| !rest.starts_with(|it: char| it.is_alphanumeric()))
        };
        let own = ours.keys().copied().filter(of).max_by_key(|store| store.len());
        let filters =
            line.split_once(']').or_else(|| line.split_once(' ')).map_or("", |(_, filters)| filters);
        let words = filters.split(' ').filter(|word| !word.is_empty());
        let words = words.map(|word| word.trim_start_matches('!').to_ascii_lowercase());
        match own.and_then(|own| ours.get_mut(own)) {
            Some(names) => names.extend(words),
            None => theirs.extend(words),
        }
    }
    Ok(share_none(&ours, &theirs))
}

/// Whether no name is there twice.
fn share_none(ours: &BTreeMap<&str, BTreeSet<String>>, theirs: &BTreeSet<String>) -> bool {
    let mut all = BTreeSet::new();
    ours.values().flatten().all(|name| !theirs.contains(name) && all.insert(name))
}
