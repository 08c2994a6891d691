//! HAProxy's processes as procfs shows them: finding the master, signalling it, watching a reload, and checking its
//! configuration as it was started.

use std::collections::BTreeSet;
use std::io;
use std::time::Instant;

use crate::config::Haproxy;
use crate::world::World;

/// A verified HAProxy master process, held by a descriptor: it can't become another process.
#[derive(Debug)]
pub struct Master {
    pid: i32,
}

/// Why a process id isn't a HAProxy master that can be told to reload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAMaster {
    /// No such process.
    #[error("there is no process {0}")]
    Gone(i32),
    /// Another program.
    #[error("process {pid} is {comm}, not HAProxy")]
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
    #[error("process {pid} is a HAProxy worker, its master is process {master}")]
    Worker {
        /// The process.
        pid: i32,
        /// Its parent.
        master: i32,
    },
    /// A HAProxy that is still starting: SIGUSR2 would end it.
    #[error("the HAProxy of process {0} is still starting")]
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

/// A worker process: its id and when it started, in the kernel's clock ticks since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Worker {
    /// The process id.
    pub pid: i32,
    /// Its start time.
    pub started: u64,
}

/// What a configuration check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigCheck {
    /// HAProxy would load it.
    Valid,
    /// HAProxy would refuse it.
    Invalid {
        /// Its error lines, as one line of ASCII.
        words: String,
        /// Everything it said, for [`super::words::named_changes`].
        log: String,
    },
    /// It wasn't checked, and why.
    Unchecked(String),
}

/// What a watch saw of a reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// A worker that read its files after the watch was taken serves, and the older ones have given up listening.
    Serving,
    /// The reload failed, the older workers go on: why.
    Failed(String),
    /// Neither was seen in time.
    TimedOut,
    /// There is no way to see: why.
    CannotSee(String),
}

/// Remembers the processes of a master before it is told, to see afterwards what became of them.
#[derive(Debug)]
pub struct Watch<'a> {
    master: &'a Master,
}

impl Master {
    /// Opens process `pid` and verifies that it is a HAProxy master.
    ///
    /// # Errors
    /// It isn't one, or is one no longer.
    pub fn open(world: &World, pid: i32) -> Result<Self, NotAMaster> {
        let _ = world;
        Err(NotAMaster::Gone(pid))
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Its workers, old ones that are still finishing among them.
    #[must_use]
    pub fn workers(&self) -> BTreeSet<Worker> {
        BTreeSet::new()
    }

    /// Sends it the signal to reload (SIGUSR2).
    ///
    /// # Errors
    /// It is gone, or we may not.
    pub fn reload_signal(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Checks the configuration with its own binary, arguments, environment, directory and user.
    #[must_use]
    pub fn check_configuration(&self, world: &World, haproxy: &Haproxy, deadline: Instant) -> ConfigCheck {
        let _ = (world, haproxy, deadline);
        ConfigCheck::Unchecked("not implemented".to_owned())
    }
}

impl<'a> Watch<'a> {
    /// Taken before the master is told.
    #[must_use]
    pub fn before(master: &'a Master) -> Self {
        Self { master }
    }

    /// Waits until the effect is seen.
    #[must_use]
    pub fn wait(&self, deadline: Instant) -> Seen {
        let _ = (self.master, deadline);
        Seen::TimedOut
    }
}
