//! The operator's own command.

use std::time::{Duration, Instant};

use crate::config::Haproxy;
use crate::haproxy::attempt::Attempt;
use crate::haproxy::batch::Batch;
use crate::haproxy::process::master::Master;
use crate::haproxy::process::reload_check;
use crate::haproxy::process::started::Started;
use crate::haproxy::process::watch::{Seen, Watch};
use crate::serving::contents::identity;
use crate::sys::escape::escaped;
use crate::sys::failure::io_cause;
use crate::sys::program::Program;
use crate::sys::system::System;

/// How long after a command's end a reload may begin: it may only have asked somebody else for it.
const BEGIN: Duration = Duration::from_secs(10);

/// Runs the command that the configuration names. What it does isn't known: where HAProxy's master is in sight, its
/// configuration is checked before, as before any reload, and what becomes of it is watched where nothing shows more
/// (`is_watched`).
#[must_use]
pub fn run(system: &System, haproxy: &Haproxy, batch: &Batch<'_>, is_watched: bool) -> Attempt {
    let begin = Instant::now();
    let deadline = begin + haproxy.timeout;
    let Some((name, args)) = haproxy.command.split_first() else {
        return Attempt::Failed("reload = \"command\" has no command".to_owned());
    };
    let Some(path) = system.program(name) else {
        return Attempt::Failed(format!("{}; name it by its absolute path", system.missing(name)));
    };
    let master = in_sight(system, haproxy, batch, deadline);
    if let Some(master) = &master {
        let until = begin + haproxy.timeout / 2;
        if let Err(refused) = reload_check::before_reload(system, haproxy, batch, master, until) {
            return refused;
        }
    }
    let watch =
        master.as_ref().filter(|_| is_watched).map(|master| (master, Watch::before(master, deadline)));
    match Program::new(path).args(args).run(deadline) {
        Ok(done) if done.succeeded() => match watch {
            Some((master, watch)) => after(name, master, &watch, deadline),
            None => Attempt::Told { seen: None, detail: None },
        },
        Ok(done) => {
            let said = done.last_line().map(|line| format!(": {line}")).unwrap_or_default();
            Attempt::Unexplained(format!("{} {}{said}", escaped(name), done.end()))
        }
        Err(e) => Attempt::Failed(format!("cannot run {}: {}", escaped(name), io_cause(&e))),
    }
}

/// The master of the HAProxy that loads our files: another one isn't meant by the command, whatever its pidfile is called.
fn in_sight(system: &System, haproxy: &Haproxy, batch: &Batch<'_>, deadline: Instant) -> Option<Master> {
    let sites = identity(&batch.homes.sites_dir)?;
    if batch.serving.unclear.is_some() || !batch.serving.loads_directory(sites) {
        return None;
    }
    let started = Started::find(system, haproxy).ok().filter(|started| started.is_surely_this)?;
    Master::open_started(system, started.pid, deadline).ok()
}

/// What the command came to.
fn after(name: &str, master: &Master, watch: &Watch<'_>, deadline: Instant) -> Attempt {
    let told = |seen, detail| Attempt::Told { seen, detail };
    let seen = match watch.wait(deadline.min(Instant::now() + BEGIN)) {
        // However long it loads.
        Seen::TimedOut if watch.has_begun() => watch.wait(deadline),
        seen => seen,
    };
    match seen {
        Seen::Serving => told(Some(true), None),
        Seen::CannotSee(_) => told(None, None),
        // It was started anew.
        _ if master.ended_within(Duration::ZERO) => told(None, None),
        Seen::Failed(why) => told(Some(false), Some(why)),
        Seen::TimedOut if watch.has_begun() => {
            told(Some(false), Some(format!("process {} still loads what it was told to", master.pid())))
        }
        Seen::TimedOut => {
            let fact = format!("{} ended, and process {} has not reloaded", escaped(name), master.pid());
            told(Some(false), Some(fact))
        }
    }
}
