//! The master CLI: `reload`, and what the master says of its processes.

use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use crate::config::{Address, Haproxy};
use crate::haproxy::alerts;
use crate::haproxy::attempt::Attempt;
use crate::haproxy::batch::Batch;
use crate::haproxy::cli::another::is_another_ones;
use crate::haproxy::cli::replies::{self, Processes, ReloadReply, quoted};
use crate::haproxy::cli::socket::{self, SocketError};
use crate::haproxy::cli::worker::PAUSE;
use crate::haproxy::process::config_check::{self, ConfigCheck};
use crate::haproxy::process::master::Master;
use crate::haproxy::process::stale_socket;
use crate::sys::system::System;

/// The first release whose `reload` answers whether it worked.
pub(crate) const ANSWERS_SINCE: (u32, u32) = (2, 7);

/// How long connections that are refused or closed are tried again before the master counts as not there: it takes 0.1 s
/// to re-execute itself, longer where it loads its configuration (through 3.0).
const REFUSED_LIMIT: Duration = Duration::from_secs(2);

/// How long `show proc` may take.
const SHOW_LIMIT: Duration = Duration::from_secs(10);

/// Why `show proc` shows nothing.
#[derive(Debug, thiserror::Error)]
pub enum Unseen {
    /// The settings name no master socket.
    #[error("no master_socket is configured")]
    NotConfigured,
    /// The socket's.
    #[error("{0}")]
    Socket(#[from] SocketError),
    /// Not a master's reply.
    #[error("not a master's reply to `show proc`: {0}")]
    Unexpected(String),
}

/// Asks a master for its processes, once.
///
/// # Errors
/// There is no whole reply, or another one.
pub fn processes(address: Option<&Address>, deadline: Instant) -> Result<Processes, Unseen> {
    let address = address.ok_or(Unseen::NotConfigured)?;
    let reply = socket::ask(address, b"show proc\n", deadline.min(Instant::now() + SHOW_LIMIT))?;
    replies::processes(&reply).ok_or_else(|| Unseen::Unexpected(quoted(&reply)))
}

/// Reloads HAProxy by its master's `reload`, and knows from the reply whether it worked.
#[must_use]
pub fn reload(system: &System, haproxy: &Haproxy, batch: &Batch<'_>, deadline: Instant) -> Attempt {
    let Some(address) = &haproxy.master_socket else {
        return Attempt::NotApplicable(Unseen::NotConfigured.to_string());
    };
    let processes = match patiently(system, address, batch, deadline.min(Instant::now() + REFUSED_LIMIT)) {
        Ok(processes) => processes,
        Err(why) => return Attempt::NotApplicable(format!("{address}: {why}")),
    };
    if processes.release().is_none_or(|release| release < ANSWERS_SINCE) {
        let version = quoted(&processes.version);
        return Attempt::NotApplicable(format!("HAProxy {version} doesn't say whether a reload worked"));
    }
    let knows = |pid| Some(patiently(system, address, batch, deadline).ok()?.has(pid));
    if let Some(why) = is_another_ones(haproxy, deadline, knows) {
        return Attempt::NotApplicable(format!(
            "master_socket {address} {why}; set it to its own, or to \"\""
        ));
    }
    // A check that takes too long must leave time for the reload.
    let until = deadline.min(Instant::now() + haproxy.timeout / 2);
    match check(system, haproxy, processes.master, until) {
        ConfigCheck::Invalid { words, log } => {
            let files = alerts::named_changes(&log, haproxy, batch);
            return Attempt::Refused { words, files };
        }
        ConfigCheck::Valid | ConfigCheck::Unchecked(_) => {}
    }
    loop {
        match socket::ask(address, b"reload\n", deadline) {
            Ok(reply) => match replies::reload(&reply) {
                ReloadReply::Success => return Attempt::Told { seen: Some(true), detail: None },
                ReloadReply::Failure(log) => return refused(haproxy, batch, &log),
                ReloadReply::InProgress => {}
                ReloadReply::Unexpected if reply.trim() == "Permission denied" => {
                    let why = "permission denied: the option -S needs `,level,admin`";
                    return Attempt::NotApplicable(format!("{address}: {why}"));
                }
                ReloadReply::Unexpected => {
                    return Attempt::Failed(format!("an unexpected reply to `reload`: {}", quoted(&reply)));
                }
            },
            Err(SocketError::Denied) => {
                return Attempt::NotApplicable(format!("{address}: permission denied"));
            }
            // Somebody else's reload has cut ours off, or was faster: the processes tell.
            Err(error) if error.is_of_a_reload() || matches!(error, SocketError::Io(_)) => {
                match patiently(system, address, batch, deadline) {
                    Ok(processes) if is_reloaded_since(&processes, batch.committed) => {
                        return Attempt::Told { seen: None, detail: None };
                    }
                    Ok(_) => {}
                    Err(why) => return Attempt::Failed(format!("the master doesn't answer any more: {why}")),
                }
            }
            Err(error) => return Attempt::Failed(format!("no reply to `reload`: {error}")),
        }
        if Instant::now() + PAUSE >= deadline {
            return Attempt::Failed("somebody else's reload is still in progress".to_owned());
        }
        sleep(PAUSE);
    }
}

/// Asks again for as long as the master refuses connections or closes them without a word, and there is one.
fn patiently(
    system: &System,
    address: &Address,
    batch: &Batch<'_>,
    deadline: Instant,
) -> Result<Processes, Unseen> {
    let is_in_vain = || batch.patience.is_over() || stale_socket::is_nobodys(system, address);
    loop {
        match processes(Some(address), deadline) {
            Ok(processes) => {
                batch.patience.note_answer();
                return Ok(processes);
            }
            Err(Unseen::Socket(SocketError::Refused)) if is_in_vain() => {
                return Err(SocketError::Refused.into());
            }
            Err(Unseen::Socket(error)) if error.is_of_a_reload() && Instant::now() + PAUSE < deadline => {
                sleep(PAUSE);
            }
            Err(why) => return Err(why),
        }
    }
}

/// The configuration is checked as the running master would load it: a failed reload makes the master of 3.1 to 3.3
/// deaf to later signals.
fn check(system: &System, haproxy: &Haproxy, pid: u32, deadline: Instant) -> ConfigCheck {
    let Ok(pid) = i32::try_from(pid) else {
        return ConfigCheck::Unchecked("no process id".to_owned());
    };
    match Master::open(system, pid) {
        Ok(master) => config_check::check(system, haproxy, &master, deadline),
        // It may live in another container: the reply to `reload` will tell.
        Err(why) => ConfigCheck::Unchecked(why.to_string()),
    }
}

fn refused(haproxy: &Haproxy, batch: &Batch<'_>, log: &str) -> Attempt {
    let words = match alerts::words(log) {
        words if words.is_empty() => "HAProxy says that the reload failed; its log has the reason".to_owned(),
        words => words,
    };
    Attempt::Refused { words, files: alerts::named_changes(log, haproxy, batch) }
}

/// Whether the newest worker is of the current generation and certainly started after `moment`. Uptimes are whole
/// seconds.
fn is_reloaded_since(processes: &Processes, moment: SystemTime) -> bool {
    processes.workers.iter().any(|worker| {
        let started = SystemTime::now().checked_sub(worker.uptime + Duration::from_secs(1));
        worker.reloads == 0 && started.is_some_and(|started| started > moment)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_counts_as_reloaded_when_it_surely_started_later() {
        let now = SystemTime::now();
        let ago = |seconds| now - Duration::from_secs(seconds);
        let worker = |reloads, seconds| replies::ListedWorker {
            pid: 2,
            reloads,
            uptime: Duration::from_secs(seconds),
        };
        let with = |worker| Processes {
            master: 1,
            version: "3.0".into(),
            failed: 0,
            workers: vec![worker],
            old: vec![],
        };
        assert!(is_reloaded_since(&with(worker(0, 3)), ago(60)));
        assert!(!is_reloaded_since(&with(worker(0, 3)), ago(3)));
        assert!(!is_reloaded_since(&with(worker(1, 3)), ago(60)));
    }
}
