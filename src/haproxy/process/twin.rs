//! Another HAProxy beside the one of a table, so that what one of them takes says nothing of what clients are served.
//!
//! Started twice, both may bind the same addresses (`SO_REUSEPORT`), and the kernel gives each client to either. Or one was
//! started with the pidfile or the stats socket of the other: the table leads to one by this way and to the other by that.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use super::families;
use super::sight::{Process, in_sight};
use super::started::Started;
use crate::config::Haproxy;
use crate::sys::procfs::Proc;
use crate::sys::system::System;

/// Two HAProxys where the settings mean one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Twins {
    /// The one that is notified.
    pub own: i32,
    /// The other one.
    pub other: i32,
    /// What they share.
    pub shared: Shared,
}

/// What two HAProxys share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shared {
    /// An address where both listen.
    Address,
    /// What a table knows its HAProxy by: what there is of it in the other one, as a verb and its object.
    Mark(&'static str),
}

/// Looks at the processes that may be this HAProxy, where it is sure which of them is.
#[must_use]
pub fn twins(system: &System, haproxy: &Haproxy) -> Option<Twins> {
    if haproxy.marks().are_none() {
        return None;
    }
    let proc = Proc::new(system);
    let seen = in_sight(system, haproxy).ok()?;
    let is_seen = |pid: &i32| seen.iter().any(|process| process.pid == *pid);
    let mut families = families::of_haproxys(&proc);
    families.retain(|_, pids| pids.iter().any(is_seen));
    if families.len() < 2 {
        return None;
    }
    let own = Started::find(system, haproxy).ok().filter(|started| started.is_surely_this)?.pid;
    let ours = families.remove(&own)?;
    let twins = |(other, shared)| Twins { own, other, shared };
    at_its_address(&proc, own, &ours, &families)
        .map(|other| (other, Shared::Address))
        .or_else(|| known_by_the_same(&proc, haproxy, &families, &seen))
        .map(twins)
}

/// One of these that listens where this one does.
fn at_its_address(proc: &Proc, own: i32, ours: &[i32], others: &BTreeMap<i32, Vec<i32>>) -> Option<i32> {
    // Of its network namespace: what another process has of these is there, too. The kernel lists all connections beside
    // them: once is enough.
    let all = proc.listeners(own);
    let sockets =
        |pids: &[i32]| pids.iter().flat_map(|&pid| proc.among(pid, &all)).collect::<HashMap<_, _>>();
    let ours = sockets(ours);
    let addresses: HashSet<&String> = ours.values().collect();
    // A socket that is handed on is one place for all who have it.
    let is_apart =
        |(inode, address): (&u64, &String)| addresses.contains(address) && !ours.contains_key(inode);
    others.iter().find(|(_, pids)| sockets(pids).iter().any(is_apart)).map(|(&other, _)| other)
}

/// One of these that serves, may load what this table deploys, and bears a mark of the table. One in a container has files of
/// its own by the same names.
fn known_by_the_same(
    proc: &Proc,
    haproxy: &Haproxy,
    others: &BTreeMap<i32, Vec<i32>>,
    seen: &[Process],
) -> Option<(i32, Shared)> {
    others.iter().find_map(|(&other, pids)| {
        let mark = seen.iter().filter(|process| pids.contains(&process.pid)).find_map(|it| it.mark)?;
        let loads = || {
            Started::read(proc, other)?
                .may_load(proc, &[&haproxy.sites_dir, &haproxy.host_file].map(Path::new))
        };
        let serves = proc.shares_mounts(other) && families::listens(proc, pids) && loads() == Some(true);
        serves.then_some((other, Shared::Mark(mark)))
    })
}
