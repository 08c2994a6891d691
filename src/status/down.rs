//! A HAProxy that should run and doesn't: what says that it should, and what starts it.
//!
//! Asked only where neither its sockets nor its addresses answer. A unit that is loaded and inactive, a pidfile whose
//! process is gone, a socket that nobody listens at: each was left by a HAProxy that is meant to be there.

use std::thread::sleep;
use std::time::{Duration, Instant};

use super::unit::{self, Unit};
use crate::config::{Address, Haproxy};
use crate::haproxy::cli::socket::listens;
use crate::haproxy::process::master::{Master, NotAMaster};
use crate::haproxy::process::sight::{Process, in_sight};
use crate::sys::escape::{escaped, escaped_path, shell_word};
use crate::sys::system::System;

/// A master that executes itself anew refuses connections for as long as it loads its configuration.
const BLINK: Duration = Duration::from_secs(3);

/// Between two looks at a socket.
const PAUSE: Duration = Duration::from_millis(100);

/// What says that a HAProxy should run, and doesn't.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Down {
    /// One line of ASCII.
    pub fact: String,
    /// What starts it.
    pub advice: String,
}

/// What is known of a HAProxy that neither its sockets nor its addresses show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Silent {
    /// It should run, and doesn't.
    Down(Down),
    /// The same would be said, but one runs that may be it: one line of ASCII.
    Elsewhere(String),
}

/// Whether it should run; `None`: nothing says so.
#[must_use]
pub fn look(system: &System, haproxy: &Haproxy) -> Option<Silent> {
    let unit = unit::show(system, &haproxy.unit);
    let name = escaped(&haproxy.unit);
    let (unit_says, has_unit) = match &unit {
        Some(unit) if unit.is_restarted_in_vain() => {
            (Some(format!("{name} is started again and again, and ends each time")), true)
        }
        Some(unit) if unit.is_down() => (Some(format!("{name} is {}", unit.active)), true),
        // It starts, stops or runs: systemd knows.
        Some(Unit { load, .. }) if load == "loaded" => return None,
        _ => (None, false),
    };
    let mut facts: Vec<String> = unit_says.into_iter().chain(stale_pidfile(system, haproxy)).collect();
    let mut keys = "unit, pidfile or master_socket";
    if facts.is_empty() {
        let (key, socket) = dead_socket(haproxy)?;
        facts.push(format!("nobody listens at {socket}"));
        keys = key;
    }
    let is_looping = unit.is_some_and(|unit| unit.is_restarted_in_vain());
    // As a notification does: it may have been started in another way.
    let processes = in_sight(system, haproxy).unwrap_or_default();
    let is_there = |process: &&Process| !process.is_between && !is_looping;
    if let Some(process) = processes.iter().find(is_there) {
        return Some(Silent::Elsewhere(format!(
            "{}, but the HAProxy of process {} {}; set {keys} to its own",
            facts.join(", "),
            process.pid,
            process.why
        )));
    }
    Some(Silent::Down(Down {
        fact: format!("{} should run and does not: {}", escaped(&haproxy.name), facts.join(", ")),
        advice: if is_looping { start_again(haproxy) } else { start(haproxy, has_unit) },
    }))
}

/// What starts it once that is mended which ends it.
fn start_again(haproxy: &Haproxy) -> String {
    let unit = shell_word(haproxy.unit.as_ref());
    format!("see why it ends: journalctl --no-pager -n 50 -u {unit}; then run: systemctl restart {unit}")
}

/// What starts it.
fn start(haproxy: &Haproxy, has_unit: bool) -> String {
    if has_unit {
        return format!("run: systemctl start {}", shell_word(haproxy.unit.as_ref()));
    }
    match haproxy.config.as_slice() {
        [] => "start HAProxy the way it is started here".to_owned(),
        // Here its paths lead to something else.
        _ if haproxy.has_paths_of_its_own() => "start HAProxy where it runs".to_owned(),
        files => {
            let files: Vec<String> =
                files.iter().map(|file| format!(" -f {}", shell_word(file.as_os_str()))).collect();
            let binary = haproxy.binary.as_deref().unwrap_or("haproxy");
            format!(
                "start HAProxy the way it is started here; whether it can start says: {} -c{}",
                shell_word(binary.as_ref()),
                files.concat()
            )
        }
    }
}

/// A pidfile whose process is gone, or is another program by now.
fn stale_pidfile(system: &System, haproxy: &Haproxy) -> Option<String> {
    let pid = crate::haproxy::process::pidfile::read(&haproxy.pidfile).ok().flatten()?;
    let shown = escaped_path(&haproxy.pidfile);
    match Master::open(system, pid) {
        Err(NotAMaster::Gone(_)) => Some(format!("process {pid} of {shown} is gone")),
        Err(NotAMaster::Stranger { comm, .. }) => {
            Some(format!("process {pid} of {shown} is {comm}, not HAProxy"))
        }
        Ok(_) | Err(_) => None,
    }
}

/// A socket that is there and refuses connections for longer than a reload makes it, with its key in the settings.
fn dead_socket(haproxy: &Haproxy) -> Option<(&'static str, &Address)> {
    let of = |key, address| Some(key).zip(address);
    let sockets = [
        of("runtime_socket", haproxy.runtime_socket.as_ref()),
        of("master_socket", haproxy.master_socket.as_ref()),
    ];
    let begin = Instant::now();
    let is_there =
        |(_, address): &(&'static str, &Address)| matches!(address, Address::Unix(path) if path.exists());
    let mut dead: Vec<(&'static str, &Address)> = sockets.into_iter().flatten().filter(is_there).collect();
    // One that is too busy to take a connection is there.
    let refuses = |(_, address): &(&'static str, &Address)| !listens(address, Instant::now() + BLINK);
    loop {
        dead.retain(refuses);
        if dead.is_empty() {
            return None;
        }
        if begin.elapsed() > BLINK {
            break;
        }
        sleep(PAUSE);
    }
    dead.first().copied()
}
