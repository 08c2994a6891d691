//! The pidfile: SIGUSR2 to the master that it names.

use std::io;
use std::path::Path;
use std::time::Instant;

use crate::config::Haproxy;
use crate::haproxy::attempt::Attempt;
use crate::haproxy::batch::Batch;
use crate::haproxy::cli::another::is_another_ones;
use crate::haproxy::process::master::{Master, NotAMaster};
use crate::haproxy::process::pidfile::read;
use crate::haproxy::process::reload_check;
use crate::haproxy::process::watch::Watch;
use crate::sys::escape::escaped_path;
use crate::sys::failure::io_cause;
use crate::sys::system::System;

/// Notifies HAProxy by a signal to the master that its pidfile names, and watches what becomes of it.
///
/// Only a process that was verified to be a HAProxy master is ever signalled.
#[must_use]
pub fn reload(system: &System, haproxy: &Haproxy, batch: &Batch<'_>) -> Attempt {
    let begin = Instant::now();
    let deadline = begin + haproxy.timeout;
    if haproxy.pidfile.as_os_str().is_empty() {
        return Attempt::NotApplicable("no pidfile is configured".to_owned());
    }
    let file = escaped_path(&haproxy.pidfile);
    let pid = match read(&haproxy.pidfile) {
        Ok(Some(pid)) => pid,
        Ok(None) => {
            return Attempt::Failed(format!("pidfile {file} holds no process id; set pidfile or reload"));
        }
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Attempt::NotApplicable(format!("there is no pidfile {file}"));
        }
        Err(e) => return Attempt::Failed(format!("cannot read pidfile {file}: {}", io_cause(&e))),
    };
    let master = match Master::open_started(system, pid, deadline) {
        Ok(master) => master,
        Err(why) => return no_master(&haproxy.pidfile, &why),
    };
    if let Some(why) = is_another_ones(haproxy, deadline, |pid| master.has_worker(pid)) {
        return Attempt::NotApplicable(format!("pidfile {file} {why}; set it to its own, or to \"\""));
    }
    let unchecked =
        match reload_check::before_reload(system, haproxy, batch, &master, begin + haproxy.timeout / 2) {
            Ok(unchecked) => unchecked,
            Err(refused) => return refused,
        };
    let watch = Watch::before(&master, deadline);
    if let Err(e) = master.reload_signal() {
        return Attempt::Failed(format!("cannot signal process {pid} of pidfile {file}: {}", io_cause(&e)));
    }
    let seen = watch.wait(deadline);
    reload_check::after_reload(system, haproxy, batch, &master, seen, unchecked)
}

/// What it means that the pidfile's process isn't a master.
fn no_master(file: &Path, why: &NotAMaster) -> Attempt {
    let said = format!("pidfile {}: {why}", escaped_path(file));
    match why {
        NotAMaster::Gone(_) => Attempt::NotRunning(said),
        NotAMaster::Stranger { .. } => {
            Attempt::Failed(format!("{said}; remove the stale pidfile, or set reload"))
        }
        NotAMaster::NoMaster(_) => Attempt::Failed(format!("{said}, or set another reload method")),
        NotAMaster::Worker { .. } => {
            Attempt::Failed(format!("{said}; set pidfile to the master's (option -p)"))
        }
        NotAMaster::Starting(_) => Attempt::Failed(format!("{said}; the next run notifies it")),
        NotAMaster::Unseen { .. } => Attempt::Failed(said),
    }
}
