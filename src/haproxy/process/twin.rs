//! Another HAProxy that listens where this one does: started twice, both may bind the same addresses (`SO_REUSEPORT`), and the
//! kernel gives each client to either.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::sight::in_sight;
use super::started::{Started, first_of_its_kind};
use crate::config::Haproxy;
use crate::sys::procfs::Proc;
use crate::sys::system::System;

/// Two HAProxys at one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Twins {
    /// The one that is notified.
    pub own: i32,
    /// The other one.
    pub other: i32,
}

/// Looks at the processes that may be this HAProxy, where it is sure which of them is.
#[must_use]
pub fn twins(system: &System, haproxy: &Haproxy) -> Option<Twins> {
    if haproxy.marks().are_none() {
        return None;
    }
    let proc = Proc::new(system);
    let mut families: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for process in in_sight(system, haproxy).ok()? {
        families.entry(first_of_its_kind(&proc, process.pid)).or_default().push(process.pid);
    }
    if families.len() < 2 {
        return None;
    }
    let own = Started::find(system, haproxy).ok().filter(|started| started.is_surely_this)?.pid;
    // Of its network namespace: what another process has of these is there, too. The kernel lists all connections beside
    // them: once is enough.
    let all = proc.listeners(own);
    let sockets =
        |pids: &Vec<i32>| pids.iter().flat_map(|&pid| proc.among(pid, &all)).collect::<HashMap<_, _>>();
    let ours = sockets(families.get(&own)?);
    let addresses: HashSet<&String> = ours.values().collect();
    // A socket that is handed on is one place for all who have it.
    let is_apart =
        |(inode, address): (&u64, &String)| addresses.contains(address) && !ours.contains_key(inode);
    let mut others = families.iter().filter(|(first, _)| **first != own);
    let (&other, _) = others.find(|(_, pids)| sockets(pids).iter().any(is_apart))?;
    Some(Twins { own, other })
}
