//! Whether a HAProxy has no use for a batch: then no way brings it anything.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;

use crate::config::Haproxy;
use crate::haproxy::batch::Batch;
use crate::haproxy::cli::worker::Worker;
use crate::haproxy::process::started::Started;
use crate::serving::contents::identity;
use crate::serving::loads::{Identity, Store, base_name};
use crate::serving::sites::is_in;
use crate::sys::system::System;

/// Whether it surely has nothing of ours, neither now nor after a start.
pub(crate) fn has_none_for(system: &System, haproxy: &Haproxy, batch: &Batch<'_>, deadline: Instant) -> bool {
    let Batch { serving, ours, homes, changes, .. } = batch;
    let sites = identity(&homes.sites_dir);
    let is_ours =
        |it: Option<Identity>| it.is_some() && (it == sites || ours.values().any(|own| it == Some(*own)));
    let is_loaded = |store: &Store| is_ours(store.identity) || is_in(&homes.sites_dir, sites, store);
    if serving.unclear.is_some()
        || sites.is_none_or(|sites| serving.loads_directory(sites))
        || serving.stores.values().any(is_loaded)
        || serving.readers.iter().any(|named| is_ours(named.identity))
    {
        return false;
    }
    // What its settings name may be another one's configuration.
    let started = Started::find(system, haproxy);
    if !started.is_ok_and(|started| started.is_surely_this && started.root.is_none()) {
        return false;
    }
    // One that runs with an older configuration may have it by whatever spelling: what the present one loads from elsewhere
    // it had from there.
    let is_others = |store: &String| serving.stores.get(store).is_some_and(|it| it.identity.is_some());
    let files: BTreeSet<String> =
        changes.iter().map(|change| base_name(&change.target.spelled(haproxy)).to_owned()).collect();
    let has_none = |worker: &Worker<'_>| {
        let listing = worker.listing(deadline).ok()?;
        let is_of_it = |store: &String| {
            is_ours(identity(Path::new(store))) || files.contains(base_name(store)) && !is_others(store)
        };
        Some(!listing.stores.iter().any(is_of_it))
    };
    Worker::ways(haproxy).iter().find_map(has_none).unwrap_or(false)
}
