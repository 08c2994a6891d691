//! The worker that answers, once no reload is about to replace it: what it read may be older than the disk.

use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use super::update::{Stop, Update};
use crate::haproxy::cli::replies::Listing;
use crate::haproxy::cli::socket::SocketError;
use crate::haproxy::cli::transaction::{Commands, TRANSACTION_LIMIT, foreign};
use crate::haproxy::cli::worker::{Answering, LOADING, PAUSE, Trouble, WORKERS_LOAD_SINCE, may_die_of_names};
use crate::haproxy::methods::master::{self, Unseen};
use crate::haproxy::process::in_flight::{self, InFlight};
use crate::haproxy::process::stale_socket;
use crate::serving::loads::Store;
use crate::sys::change_time::changed_at;
use crate::sys::system::System;

/// How long a reload that may be in flight is waited for before the first command: a socket that refuses connections
/// may be a dead one's.
pub(super) const RELOAD_BEFORE: Duration = Duration::from_secs(2);

/// How long a reload that may be in flight is waited for after the last command.
pub(super) const RELOAD_AFTER: Duration = Duration::from_secs(30);

/// How long a master that holds signals back, and has no worker that loads, is waited for: for good after a failed
/// reload of 3.1 to 3.3.
const DEAF: Duration = Duration::from_secs(3);

/// A worker that answers and that no reload is about to replace, as far as can be seen.
#[derive(Clone, Copy)]
pub(super) struct Settled {
    pub(super) answering: Answering,
    /// Whether it is seen that no reload is in flight.
    pub(super) is_seen: bool,
    /// Whether one was, and has been waited for.
    pub(super) is_fresh: bool,
}

impl Settled {
    /// Since when it may have read its files: through 3.0 its master has read them before the worker is there.
    pub(super) fn read_since(&self, system: &System) -> SystemTime {
        let (started, version) = (self.answering.started(system), self.answering.version);
        let before = match version >= Some(WORKERS_LOAD_SINCE) {
            true => return started,
            false if self.is_fresh => Duration::MAX,
            false => LOADING,
        };
        let earliest = self.answering.master_started(system).unwrap_or(SystemTime::UNIX_EPOCH);
        started.checked_sub(before).map_or(earliest, |since| since.max(earliest))
    }

    /// Whether it mustn't be asked for what it has of a store: what has changed since it started may have had any number of
    /// names.
    pub(super) fn may_die_of(&self, store: &Store, started: SystemTime) -> bool {
        may_die_of_names(self.answering.version) && changed_since(store, started)
    }
}

impl Update<'_> {
    /// Who answers, and what it has, once no reload is in flight and no transaction is open.
    pub(super) fn look(&self, limit: Duration) -> Result<(Settled, Listing), Stop> {
        let settled = self.settled(limit)?;
        let until = self.commands.deadline.min(Instant::now() + TRANSACTION_LIMIT);
        loop {
            let listing = self.commands.worker.listing(self.commands.deadline)?;
            match &listing.transaction {
                None => return Ok((settled, listing)),
                Some(file) if Instant::now() >= until => return Err(Stop::Reload(foreign(file))),
                Some(_) => sleep(PAUSE),
            }
        }
    }

    /// The worker that answers, once its master shows no younger one.
    pub(super) fn settled(&self, limit: Duration) -> Result<Settled, Stop> {
        let Commands { worker, deadline } = self.commands;
        let begin = Instant::now();
        let until = deadline.min(begin + limit);
        // What is seen loading is waited for longer than what only might be.
        let patient = until.max(begin + deadline.saturating_duration_since(begin) / 2);
        let mut is_fresh = false;
        loop {
            // In this order: an old worker that answers now was there before, so the master has shown it.
            let master = master::processes(self.haproxy.master_socket.as_ref(), deadline);
            let answering = worker.answering(deadline);
            let is_in_vain = match &answering {
                Ok(_) => {
                    self.batch.patience.note_answer();
                    false
                }
                Err(Trouble::Socket(SocketError::Refused)) => self.batch.patience.is_over(),
                Err(_) => false,
            };
            let is_last = is_in_vain || Instant::now() >= until;
            match (answering, master) {
                (Ok(answering), Ok(processes)) if processes.has(answering.pid) => {
                    let newest = processes.newest().is_none_or(|newest| newest.pid == answering.pid);
                    if newest || limit == RELOAD_BEFORE && is_last {
                        return Ok(Settled { answering, is_seen: true, is_fresh });
                    }
                }
                // Through 3.0 the master accepts no connections while it loads.
                (answering, Err(Unseen::Socket(error))) if error.is_of_a_reload() && !is_last => {
                    let is_useless = answering.is_err() && !worker.is_through_master();
                    if is_useless || self.is_nobodys_socket(&error) {
                        match answering {
                            Ok(answering) => {
                                if let Some(settled) = self.by_processes(answering, begin, limit) {
                                    return Ok(Settled { is_fresh, ..settled });
                                }
                            }
                            Err(trouble) => return Err(trouble.into()),
                        }
                    }
                }
                // No master's word, or that of another HAProxy's, which says nothing about this one.
                (Ok(answering), _) => match self.by_processes(answering, begin, limit) {
                    Some(settled) => return Ok(Settled { is_fresh, ..settled }),
                    None if Instant::now() >= patient => {}
                    None => {
                        is_fresh = true;
                        sleep(PAUSE);
                        continue;
                    }
                },
                (Err(trouble), _) => return Err(trouble.into()),
            }
            if is_last {
                return Err(Stop::Reload("somebody else's reload doesn't end".to_owned()));
            }
            is_fresh = true;
            sleep(PAUSE);
        }
    }

    /// The same where no master answers for it: by what is seen of its processes. `None`: a reload is in flight.
    fn by_processes(&self, answering: Answering, begin: Instant, limit: Duration) -> Option<Settled> {
        let settled = |is_seen| Some(Settled { answering, is_seen, is_fresh: false });
        match in_flight::look(self.system, &answering) {
            InFlight::Nothing => settled(true),
            // A worker that answered and has ended since is no longer in sight either.
            InFlight::Unseen => {
                let Commands { worker, deadline } = self.commands;
                let is_another = |again: Answering| again.pid != answering.pid;
                if worker.answering(deadline).is_ok_and(is_another) { None } else { settled(false) }
            }
            InFlight::Perhaps if begin.elapsed() >= DEAF => settled(true),
            // It is looked at once more after the last command.
            InFlight::Reload | InFlight::Perhaps if limit == RELOAD_BEFORE && begin.elapsed() >= limit => {
                settled(true)
            }
            InFlight::Reload | InFlight::Perhaps => None,
        }
    }

    /// Whether the master's socket refuses connections for good.
    fn is_nobodys_socket(&self, error: &SocketError) -> bool {
        let socket = self.haproxy.master_socket.as_ref();
        matches!(error, SocketError::Refused)
            && socket.is_some_and(|socket| stale_socket::is_nobodys(self.system, socket))
    }
}

/// Whether a store's file is one that a worker may not have read as it is that started then.
pub(super) fn changed_since(store: &Store, since: SystemTime) -> bool {
    changed_at(&store.path).is_none_or(|changed| changed >= since)
}
