//! What HAProxy shows of a batch, and whether it is what the disk would make of it.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::config::Haproxy;
use crate::haproxy::batch::{Batch, Change, Expected};
use crate::haproxy::cli::replies::{Listing, ShownStore, StoreStatus};
use crate::haproxy::cli::socket::SocketError;
use crate::haproxy::cli::worker::{Answering, NoSocket, Trouble, Worker};
use crate::haproxy::target::Target;
use crate::serving::in_memory;

/// What HAProxy shows of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoresShown {
    /// All of it.
    All(Answering),
    /// Not all: the first file that is missing, and how; with the worker that says so.
    Not(String, Answering),
    /// No socket answers: why; and whether one may do so later, as that of a master that loads its configuration.
    Unseen(String, bool),
}

/// Looks once at what HAProxy shows of a batch.
#[must_use]
pub fn shown(haproxy: &Haproxy, batch: &Batch<'_>, deadline: Instant) -> StoresShown {
    let mut unusable = NoSocket::default();
    let mut may_answer_later = false;
    for worker in Worker::ways(haproxy) {
        let looked = worker
            .answering(deadline)
            .and_then(|answering| Ok((answering, first_missing(&worker, haproxy, batch, deadline)?)));
        match looked {
            Ok((answering, None)) => match batch.changes.iter().find(|change| !can_be_shown(change)) {
                Some(change) => {
                    return StoresShown::Unseen(
                        format!("{}: has too many names to be shown", change.target),
                        false,
                    );
                }
                None => return StoresShown::All(answering),
            },
            Ok((answering, Some(missing))) => return StoresShown::Not(missing, answering),
            Err(trouble) => {
                may_answer_later |=
                    !matches!(trouble, Trouble::Denied(_) | Trouble::Socket(SocketError::NotThere));
                unusable.add(&worker, trouble);
            }
        }
    }
    StoresShown::Unseen(unusable.to_string(), may_answer_later)
}

/// Whether a HAProxy is seen to serve something else than after a start, although it has the same files.
#[must_use]
pub fn is_served_otherwise(haproxy: &Haproxy, batch: &Batch<'_>, deadline: Instant) -> bool {
    let look = |worker: &Worker<'_>| {
        let (answering, listing) = (worker.answering(deadline).ok()?, worker.listing(deadline).ok()?);
        let seen = (answering.version, &listing);
        served_otherwise(haproxy, batch, *worker, seen, &|_| false, deadline).ok()
    };
    Worker::ways(haproxy).iter().find_map(look).flatten().is_some()
}

/// What memory serves otherwise than a start would, although it has the same files: others change its lists, and the order
/// of its certificates. What is `left` out of this batch it has as it was.
pub(super) fn served_otherwise(
    haproxy: &Haproxy,
    batch: &Batch<'_>,
    worker: Worker<'_>,
    (version, before): (Option<(u32, u32)>, &Listing),
    left: &dyn Fn(&Target) -> bool,
    deadline: Instant,
) -> Result<Option<String>, Trouble> {
    let serving = batch.serving;
    if serving.unsure().is_some() {
        return Ok(None);
    }
    let shown = worker.in_memory(version, &in_memory::lists(serving), deadline)?;
    let stores = |is_left: bool| -> BTreeSet<String> {
        let changes = batch.changes.iter().filter(|change| left(&change.target) == is_left);
        changes.flat_map(|change| batch.stores_of(haproxy, change)).collect()
    };
    let (told, untold) = (stores(false), stores(true));
    let is_as_on_disk =
        |store: &str| told.contains(store) || before.stores.contains(store) && !untold.contains(store);
    Ok(in_memory::difference(serving, &shown, &is_as_on_disk))
}

/// The first change that isn't as it must be, of those that can be asked for.
fn first_missing(
    worker: &Worker<'_>,
    haproxy: &Haproxy,
    batch: &Batch<'_>,
    deadline: Instant,
) -> Result<Option<String>, Trouble> {
    for change in batch.changes.iter().filter(|change| can_be_shown(change)) {
        // A start would not load it either.
        if change.now.is_some() && batch.is_left_out(haproxy, change) {
            continue;
        }
        for name in batch.stores_of(haproxy, change) {
            let store = worker.store(&name, deadline)?;
            if let Err(how) = agrees(change.now.as_ref(), store.as_ref()) {
                return Ok(Some(format!("{}: {how}", change.target)));
            }
        }
    }
    Ok(None)
}

/// Whether HAProxy can be asked for it; what was pruned it doesn't have.
fn can_be_shown(change: &Change) -> bool {
    change.now.as_ref().is_none_or(|now| now.can_be_shown)
}

/// Whether a store's leaf is this one: of an Ed25519 certificate only the serial number is shown.
pub(crate) fn is_of(store: &ShownStore, sha1: &[u8; 20], serial: &str) -> bool {
    match (&store.sha1, &store.serial) {
        (Some(shown), _) => shown == sha1,
        (None, Some(shown)) => shown == serial,
        (None, None) => false,
    }
}

/// How a store differs from what a file's contents must make of it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Differs {
    #[error("HAProxy still has it")]
    Still,
    #[error("HAProxy doesn't have it")]
    Missing,
    #[error("HAProxy has another certificate")]
    Another,
    #[error("HAProxy has it and doesn't serve it")]
    Unused,
    #[error("HAProxy has {is} intermediate certificates with it instead of {must}")]
    Chain { is: usize, must: usize },
}

/// Whether a store is what a file's contents must make of it.
pub(super) fn agrees(expected: Option<&Expected>, store: Option<&ShownStore>) -> Result<(), Differs> {
    match (expected, store) {
        (None, None) => Ok(()),
        (None, Some(_)) => Err(Differs::Still),
        (Some(_), None) => Err(Differs::Missing),
        (Some(expected), Some(store)) => {
            let chain_len = store.chain_shown().unwrap_or(expected.chain_len);
            if !is_of(store, &expected.sha1, &expected.serial) {
                Err(Differs::Another)
            } else if store.status != StoreStatus::Used {
                Err(Differs::Unused)
            } else if chain_len == expected.chain_len {
                Ok(())
            } else {
                Err(Differs::Chain { is: chain_len, must: expected.chain_len })
            }
        }
    }
}
