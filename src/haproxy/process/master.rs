//! HAProxy's processes as procfs shows them: finding the master, verifying and signalling it.
//!
//! What SIGUSR2 would do to a process is read from its signal masks before it is sent (measured, 2.2 to 3.2): a
//! master catches it, or holds it back while it loads; workers and a HAProxy without a master ignore it; a HAProxy
//! that is still starting would be ended by it.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::sys::escape::escaped;
use crate::sys::failure::io_cause;
use crate::sys::procfs::WorkerProcess;
pub(crate) use crate::sys::procfs::{Disposition, Proc};
use crate::sys::system::System;

/// How long a HAProxy that is still starting, or loading for somebody else, is waited for.
pub(crate) const STARTING: Duration = Duration::from_secs(60);

/// A verified HAProxy master process, held by a descriptor: it can't become another process.
#[derive(Debug)]
pub struct Master {
    pid: i32,
    pidfd: OwnedFd,
    proc: Proc,
}

/// Why a process id isn't a HAProxy master that can reload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAMaster {
    /// No such process.
    #[error("there is no process {0}")]
    Gone(i32),
    /// Another program.
    #[error("process {pid} is {comm}, not a HAProxy master")]
    Stranger {
        /// The process.
        pid: i32,
        /// Its name, escaped.
        comm: String,
    },
    /// A HAProxy that was started without master-worker mode.
    #[error(
        "process {0} is a HAProxy without master-worker mode, which ignores SIGUSR2; start it with -Ws or -W"
    )]
    NoMaster(i32),
    /// A worker of a master.
    #[error("process {pid} is a HAProxy worker; its master is process {master}")]
    Worker {
        /// The process.
        pid: i32,
        /// Its parent.
        master: i32,
    },
    /// A HAProxy that is still starting: SIGUSR2 would end it.
    #[error("the HAProxy of process {0} is still starting, and a signal would end it")]
    Starting(i32),
    /// procfs or the kernel doesn't let us see.
    #[error("cannot look at process {pid}: {why}")]
    Unseen {
        /// The process.
        pid: i32,
        /// The cause.
        why: String,
    },
}

impl Master {
    /// Opens process `pid` and verifies that it is a HAProxy master.
    ///
    /// # Errors
    /// It isn't one, or is one no longer.
    pub fn open(system: &System, pid: i32) -> Result<Self, NotAMaster> {
        let unseen = |e: io::Error| NotAMaster::Unseen { pid, why: io_cause(&e) };
        let raw = Some(pid).filter(|&pid| pid > 0).and_then(Pid::from_raw).ok_or(NotAMaster::Gone(pid))?;
        let pidfd = match pidfd_open(raw, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(rustix::io::Errno::SRCH) => return Err(NotAMaster::Gone(pid)),
            Err(e) => return Err(unseen(e.into())),
        };
        let master = Self { pid, pidfd, proc: Proc::new(system) };
        let verdict = judge(&master.proc, pid);
        // The process id is its own as long as the descriptor's process lives: what was read was about it.
        if master.ended_within(Duration::ZERO) {
            return Err(NotAMaster::Gone(pid));
        }
        match verdict {
            Ok(Judged::Master) => Ok(master),
            Ok(Judged::Not(why)) => Err(why),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(NotAMaster::Gone(pid)),
            Err(e) => Err(unseen(e)),
        }
    }

    /// The same, but gives a HAProxy that is still starting some time.
    ///
    /// # Errors
    /// It isn't a master, or isn't one yet.
    pub fn open_started(system: &System, pid: i32, deadline: Instant) -> Result<Self, NotAMaster> {
        let deadline = deadline.min(Instant::now() + STARTING);
        loop {
            match Self::open(system, pid) {
                Err(NotAMaster::Starting(_)) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                result => return result,
            }
        }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Its workers, old ones that are still finishing among them.
    #[must_use]
    pub fn workers(&self) -> BTreeSet<WorkerProcess> {
        self.proc.workers(self.pid)
    }

    /// Whether one of its workers calls itself by this process id, in its own namespace; `None`: it has none.
    #[must_use]
    pub fn has_worker(&self, pid: u32) -> Option<bool> {
        let workers = self.workers();
        let calls_itself = |worker: &WorkerProcess| {
            let status = self.proc.status(worker.pid).unwrap_or_default();
            let own = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
            own.and_then(|own| own.split_ascii_whitespace().last()) == Some(pid.to_string().as_str())
        };
        (!workers.is_empty()).then(|| workers.iter().any(calls_itself))
    }

    /// Sends it the signal to reload (SIGUSR2).
    ///
    /// # Errors
    /// It is gone, or we may not.
    pub fn reload_signal(&self) -> io::Result<()> {
        Ok(pidfd_send_signal(&self.pidfd, Signal::USR2)?)
    }

    /// Waits so long, or until its end: whether it has ended.
    pub(crate) fn ended_within(&self, time: Duration) -> bool {
        let timeout = Timespec::try_from(time).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        matches!(poll(&mut fds, Some(&timeout)), Ok(1..))
    }

    /// Whether it listens for signals: it isn't loading.
    pub(crate) fn is_ready(&self) -> bool {
        self.proc.usr2(self.pid).is_ok_and(Disposition::is_ready)
    }

    /// Waits until it isn't loading, as far as time allows: while it executes itself anew it can't be read.
    pub(crate) fn settle(&self, deadline: Instant) {
        while !self.is_ready() && Instant::now() < deadline && !self.ended_within(Duration::from_millis(10)) {
        }
    }

    pub(crate) fn proc(&self) -> &Proc {
        &self.proc
    }
}

pub(crate) enum Judged {
    Master,
    Not(NotAMaster),
}

/// Whether this process is a master.
fn judge(proc: &Proc, pid: i32) -> io::Result<Judged> {
    let stat = proc.stat(pid)?;
    let not = |why| Ok(Judged::Not(why));
    if stat.is_zombie() {
        return not(NotAMaster::Gone(pid));
    }
    let stranger = NotAMaster::Stranger { pid, comm: escaped(&stat.comm).to_string() };
    if !proc.is_haproxy(pid, &stat) || Ok(pid) == i32::try_from(std::process::id()) {
        return not(stranger);
    }
    // The parent of a daemon that has just started isn't a master, but what started it.
    let is_masters = |usr2: Disposition| usr2.caught || usr2.blocked;
    if proc.same_program(pid, &stat, stat.parent) && proc.usr2(stat.parent).is_ok_and(is_masters) {
        return not(NotAMaster::Worker { pid, master: stat.parent });
    }
    let has_workers = proc.children(pid).into_iter().any(|child| proc.same_program(pid, &stat, child));
    let is_told_to = proc.arguments(pid)?.iter().any(|arg| arg == "-W" || arg == "-Ws");
    let usr2 = proc.usr2(pid)?;
    let shows_a_master = has_workers || is_told_to;
    match usr2 {
        _ if shows_a_master && is_masters(usr2) => Ok(Judged::Master),
        Disposition { ignored: true, .. } if !shows_a_master => not(NotAMaster::NoMaster(pid)),
        Disposition { caught: true, .. } => not(stranger),
        _ => not(NotAMaster::Starting(pid)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_is_ours_but_no_haproxy_is_a_stranger() {
        let system = System::host();
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(matches!(Master::open(&system, own), Err(NotAMaster::Stranger { .. })));
        assert!(matches!(Master::open(&system, 1), Err(NotAMaster::Stranger { pid: 1, .. })));
        assert!(matches!(Master::open(&system, 0), Err(NotAMaster::Gone(0))));
        assert!(matches!(Master::open(&system, -5), Err(NotAMaster::Gone(-5))));
    }
}
