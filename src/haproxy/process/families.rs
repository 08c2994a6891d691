//! The HAProxys that run here, each a master with its workers, or a process that has no master.

use std::collections::{BTreeMap, BTreeSet};

use super::arguments::{only_checks, replaced};
use super::started::first_of_its_kind;
use crate::sys::procfs::Proc;

/// The processes that are HAProxys for longer than a moment, by the first of each kind; without those that another one replaces.
pub(crate) fn of_haproxys(proc: &Proc) -> BTreeMap<i32, Vec<i32>> {
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    let all = proc.all().unwrap_or_default().into_iter().filter(|&pid| pid != own);
    let haproxys: Vec<i32> = all.filter(|&pid| proc.haproxy(pid).is_some()).collect();
    let (mut families, mut ending) = (BTreeMap::<i32, Vec<i32>>::new(), BTreeSet::new());
    for pid in haproxys {
        let Ok(arguments) = proc.arguments(pid) else { continue };
        ending.extend(replaced(&arguments));
        if !only_checks(&arguments) {
            families.entry(first_of_its_kind(proc, pid)).or_default().push(pid);
        }
    }
    families.retain(|first, _| !ending.contains(first));
    families
}

/// Whether one has a TCP socket that listens: one that only ends its last connections serves no new client.
pub(crate) fn listens(proc: &Proc, all: &[i32]) -> bool {
    // The kernel lists all connections of the namespace beside them: once is enough.
    let listeners = all.first().map(|&pid| proc.listeners(pid)).unwrap_or_default();
    all.iter().any(|&pid| !proc.among(pid, &listeners).is_empty())
}
