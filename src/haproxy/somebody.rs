//! Who there is that may be a HAProxy, whatever its unit or pidfile says.

use std::time::{Duration, Instant};

use crate::config::Haproxy;
use crate::haproxy::cli;
use crate::haproxy::process::master::{Master, NotAMaster};
use crate::haproxy::process::sight::{self, Process};
use crate::sys::system::System;

/// How long its sockets are asked whether somebody listens.
const LIMIT: Duration = Duration::from_secs(5);

/// Who there is, where no way leads to a HAProxy.
pub(crate) enum Somebody {
    /// No process that we see may be this HAProxy, and none of its sockets accepts connections.
    Nobody,
    /// One that may be it is still starting.
    Coming,
    /// One may be it: which, and why.
    There(String),
    /// The processes can't be seen: why.
    Unseen(String),
}

/// Looks at the sockets that the settings name, and at the processes.
pub(crate) fn somebody(system: &System, haproxy: &Haproxy) -> Somebody {
    let soon = Instant::now() + LIMIT;
    for address in haproxy.runtime_socket.iter().chain(&haproxy.master_socket) {
        if cli::socket::listens(address, soon) {
            return Somebody::There(format!("{address} accepts connections"));
        }
    }
    let processes = match sight::in_sight(system, haproxy) {
        Ok(processes) => processes,
        Err(hidden) => return Somebody::Unseen(hidden.to_string()),
    };
    let is_coming = |process: &Process| {
        process.is_between
            || match Master::open(system, process.pid) {
                // It holds signals back while it loads.
                Ok(master) => !master.is_ready(),
                Err(why) => matches!(why, NotAMaster::Starting(_)),
            }
    };
    match processes.first() {
        None => Somebody::Nobody,
        Some(_) if processes.iter().any(is_coming) => Somebody::Coming,
        Some(process) => Somebody::There(format!("the HAProxy of process {} {}", process.pid, process.why)),
    }
}
