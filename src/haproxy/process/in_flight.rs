//! Whether a reload is in flight, as procfs shows it: what tells where no master socket does.
//!
//! Through 3.0 a master loads its configuration itself, and neither catches SIGUSR2 nor lets it through until it knows
//! how that ended (between its two executions it does neither for a moment). From 3.1 a worker that was forked for it
//! loads the configuration, while the old one serves (measured, 2.2 to 3.4).

use std::thread::sleep;
use std::time::Duration;

use crate::haproxy::cli::worker::{Answering, WORKERS_LOAD_SINCE};
use crate::sys::procfs::{Image, Proc, WorkerProcess};
use crate::sys::system::System;

/// How far two looks are apart that must agree before nothing is said to be in flight.
const APART: Duration = Duration::from_millis(5);

/// What is seen of a worker's master.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InFlight {
    /// It isn't loading, or there is no master: this worker is the one that serves.
    Nothing,
    /// It is loading, or another worker takes over from this one.
    Reload,
    /// It holds signals back and no worker loads: for a moment at the beginning of a reload, and for good after a
    /// failed one of 3.1 to 3.3.
    Perhaps,
    /// The worker's process can't be seen from here.
    Unseen,
}

/// Looks at the master of the worker that answers.
#[must_use]
pub(crate) fn look(system: &System, answering: &Answering) -> InFlight {
    let proc = Proc::new(system);
    let first = Look::at(&proc, answering);
    sleep(APART);
    let second = Look::at(&proc, answering);
    match (first, second) {
        (Some(first), Some(second)) => {
            let is_same = first == second;
            match second.judge(answering) {
                InFlight::Nothing if !is_same => InFlight::Reload,
                seen => seen,
            }
        }
        _ => InFlight::Unseen,
    }
}

/// One look.
#[derive(Debug, PartialEq, Eq)]
struct Look {
    own: WorkerProcess,
    master: Option<Master>,
}

/// What a master is doing.
#[derive(Debug, PartialEq, Eq)]
struct Master {
    image: Option<Image>,
    is_ready: bool,
    youngest: Option<WorkerProcess>,
}

impl Look {
    fn at(proc: &Proc, answering: &Answering) -> Option<Self> {
        let pid = i32::try_from(answering.pid).ok()?;
        let stat = proc.haproxy(pid)?;
        let own = WorkerProcess { pid, started: stat.started };
        let workers = proc.workers(stat.parent);
        let master = workers.contains(&own).then(|| Master {
            image: proc.image(stat.parent).ok().flatten(),
            is_ready: proc.usr2(stat.parent).is_ok_and(crate::sys::procfs::Disposition::is_ready),
            youngest: workers.iter().copied().max_by_key(|worker| (worker.started, worker.pid)),
        });
        Some(Self { own, master })
    }

    fn judge(&self, answering: &Answering) -> InFlight {
        let Some(master) = &self.master else { return InFlight::Nothing };
        match master {
            master if master.youngest != Some(self.own) => InFlight::Reload,
            Master { is_ready: true, .. } => InFlight::Nothing,
            _ if answering.version >= Some(WORKERS_LOAD_SINCE) => InFlight::Perhaps,
            _ => InFlight::Reload,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn judged(version: (u32, u32), is_ready: bool, youngest: i32) -> InFlight {
        let worker = |pid| WorkerProcess { pid, started: 7 };
        let now = SystemTime::now();
        let answering = Answering { pid: 5, since: now, until: now, version: Some(version) };
        let master = Master { image: None, is_ready, youngest: Some(worker(youngest)) };
        Look { own: worker(5), master: Some(master) }.judge(&answering)
    }

    #[test]
    fn a_master_that_loads_or_has_a_younger_worker_is_reloading() {
        assert_eq!(judged((2, 6), true, 5), InFlight::Nothing);
        assert_eq!(judged((2, 6), true, 6), InFlight::Reload);
        assert_eq!(judged((2, 6), false, 5), InFlight::Reload);
        assert_eq!(judged((3, 2), false, 5), InFlight::Perhaps);
        assert_eq!(judged((3, 2), false, 6), InFlight::Reload);
        assert_eq!(judged((3, 2), true, 5), InFlight::Nothing);
    }

    #[test]
    fn what_is_no_haproxy_is_not_seen() {
        let now = SystemTime::now();
        let answering = Answering { pid: std::process::id(), since: now, until: now, version: None };
        assert_eq!(look(&System::host(), &answering), InFlight::Unseen);
    }
}
