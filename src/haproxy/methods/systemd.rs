//! systemd: reloading the unit.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::config::Haproxy;
use crate::haproxy::attempt::Attempt;
use crate::haproxy::batch::Batch;
use crate::haproxy::cli::another::is_another_ones;
use crate::haproxy::process::master::Master;
use crate::haproxy::process::reload_check;
use crate::haproxy::process::watch::{Seen, Watch};
use crate::sys::escape::{Escaped, escaped};
use crate::sys::failure::io_cause;
use crate::sys::program::{Finished, Program};
use crate::sys::system::System;

/// How long a question to systemd may take.
const ANSWER: Duration = Duration::from_secs(30);
/// How long a unit that is changing its state is waited for.
const CHANGING: Duration = Duration::from_secs(60);

/// Notifies HAProxy by `systemctl reload`, and watches its processes, because that only says that a signal was sent.
///
/// The configuration is checked first: the units of 2.2 and 2.6 check it too, but hide what is wrong.
#[must_use]
pub fn reload(system: &System, haproxy: &Haproxy, batch: &Batch<'_>) -> Attempt {
    let begin = Instant::now();
    let deadline = begin + haproxy.timeout;
    if haproxy.unit.is_empty() {
        return Attempt::NotApplicable("no unit is configured".to_owned());
    }
    if !system.has_systemd() {
        return Attempt::NotApplicable("systemd is not PID 1 here".to_owned());
    }
    let Some(systemctl) = system.program("systemctl") else {
        return Attempt::NotApplicable("there is no program systemctl here".to_owned());
    };
    let unit = Unit { systemctl: &systemctl, name: &haproxy.unit };
    let state = match unit.settled_state(deadline.min(begin + CHANGING)) {
        Ok(state) => state,
        Err(why) => return Attempt::NotApplicable(why.to_string()),
    };
    match (state.load.as_str(), state.active.as_str()) {
        ("loaded", "active") => {}
        ("loaded", "inactive" | "failed") => {
            return Attempt::NotRunning(format!("unit {} is {}", unit.escaped(), escaped(&state.active)));
        }
        ("loaded", other) => {
            let sub = escaped(&state.sub);
            return Attempt::Failed(format!(
                "unit {} is still {} ({sub}); see systemctl status, the next run notifies it",
                unit.escaped(),
                escaped(other)
            ));
        }
        (load, _) => {
            let load = if load == "not-found" { "unknown to systemd" } else { load };
            return Attempt::NotApplicable(format!("unit {} is {}", unit.escaped(), escaped(load)));
        }
    }

    let master = Master::open_started(system, state.main_pid, deadline);
    let knows = |pid| master.as_ref().ok()?.has_worker(pid);
    if let Some(why) = is_another_ones(haproxy, deadline, knows) {
        let unit = unit.escaped();
        return Attempt::NotApplicable(format!("unit {unit} {why}; set it to its own, or to \"\""));
    }
    let unchecked = match &master {
        Ok(master) => {
            reload_check::before_reload(system, haproxy, batch, master, begin + haproxy.timeout / 2)
        }
        Err(why) => Ok(Some(format!("the configuration was not checked: {why}"))),
    };
    let unchecked = match unchecked {
        Ok(unchecked) => unchecked,
        Err(refused) => return refused,
    };
    let watch = master.as_ref().ok().map(|master| (master, Watch::before(master, deadline)));
    match unit.run(&["reload"], deadline) {
        Ok(done) if done.succeeded() => {}
        Ok(done) => {
            let failed = Seen::Failed(format!("systemctl reload {} {}", unit.escaped(), said(&done)));
            return match &master {
                Ok(master) => reload_check::after_reload(system, haproxy, batch, master, failed, unchecked),
                Err(_) => untold(failed, unchecked),
            };
        }
        Err(why) => return Attempt::Failed(why.to_string()),
    }
    match watch {
        Some((master, watch)) => {
            let seen = match watch.wait(deadline) {
                seen @ (Seen::TimedOut | Seen::CannotSee(_)) => unit.failure().unwrap_or(seen),
                seen => seen,
            };
            reload_check::after_reload(system, haproxy, batch, master, seen, unchecked)
        }
        None => untold(unit.failure().unwrap_or(Seen::CannotSee(String::new())), unchecked),
    }
}

/// The main process of this HAProxy's unit, where systemd is PID 1 and has one.
pub(crate) fn main_pid(system: &System, haproxy: &Haproxy) -> Option<i32> {
    let may_ask = system.has_systemd() && !haproxy.unit.is_empty();
    let systemctl = may_ask.then(|| system.program("systemctl"))??;
    let state = Unit { systemctl: &systemctl, name: &haproxy.unit }.state().ok()?;
    Some(state.main_pid).filter(|&pid| pid > 1)
}

/// What came of a reload without a master to look at.
fn untold(seen: Seen, detail: Option<String>) -> Attempt {
    match seen {
        Seen::Failed(why) => Attempt::Unexplained(why),
        _ => Attempt::Told { seen: None, detail },
    }
}

/// How systemctl ended, and what it said, in one line.
fn said(done: &Finished) -> String {
    let text = done.output.split_whitespace().collect::<Vec<_>>().join(" ");
    let text: String = text.chars().take(400).collect();
    let colon = if text.is_empty() { "" } else { ": " };
    format!("{}{colon}{}", done.end(), escaped(&text))
}

/// A unit, and the program that asks systemd about it.
struct Unit<'a> {
    systemctl: &'a Path,
    name: &'a str,
}

/// What `systemctl show` says.
#[derive(Debug, Default, PartialEq, Eq)]
struct State {
    load: String,
    active: String,
    sub: String,
    main_pid: i32,
    status: String,
}

/// Why systemctl doesn't answer.
#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    #[error("cannot run systemctl: {}", io_cause(.0))]
    NotRun(io::Error),
    #[error("systemctl show {0}")]
    Said(String),
}

impl Unit<'_> {
    fn escaped(&self) -> Escaped<'_> {
        escaped(self.name)
    }

    fn run(&self, words: &[&str], deadline: Instant) -> Result<Finished, NoAnswer> {
        Program::new(self.systemctl)
            .args(["--no-ask-password", "--no-pager"])
            .args(words)
            .args(["--", self.name])
            .run(deadline)
            .map_err(NoAnswer::NotRun)
    }

    fn state(&self) -> Result<State, NoAnswer> {
        let show = ["show", "--property=LoadState,ActiveState,SubState,MainPID,StatusText"];
        let done = self.run(&show, Instant::now() + ANSWER)?;
        if done.succeeded() { Ok(parse(&done.output)) } else { Err(NoAnswer::Said(said(&done))) }
    }

    /// Its state, after a start, a stop or a reload that is going on.
    fn settled_state(&self, deadline: Instant) -> Result<State, NoAnswer> {
        loop {
            let state = self.state()?;
            let changing =
                matches!(state.active.as_str(), "activating" | "deactivating" | "reloading" | "refreshing");
            if !changing || Instant::now() >= deadline {
                return Ok(state);
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// The failure that its status text tells of (2.8 or later).
    fn failure(&self) -> Option<Seen> {
        let text = self.state().ok()?.status;
        text.starts_with("Reload failed")
            .then(|| Seen::Failed(format!("unit {} says \"{}\"", self.escaped(), escaped(&text))))
    }
}

fn parse(output: &str) -> State {
    let value = |key: &str| {
        output
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    State {
        load: value("LoadState"),
        active: value("ActiveState"),
        sub: value("SubState"),
        main_pid: value("MainPID").parse().unwrap_or_default(),
        status: value("StatusText"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_are_read_in_any_order() {
        let state = parse(
            "MainPID=42\nStatusText=Reload failed!\nLoadState=loaded\nActiveState=active\nSubState=running\n",
        );
        assert_eq!((state.main_pid, state.status.as_str()), (42, "Reload failed!"));
        assert_eq!(
            (state.load.as_str(), state.active.as_str(), state.sub.as_str()),
            ("loaded", "active", "running")
        );
        assert_eq!(parse(""), State::default());
    }
}
