//! Checking a running master's configuration as it would load it on a reload: with its binary, arguments,
//! environment, directory and user.

use std::time::{Duration, Instant};

use super::checker;
use super::master::Master;
use super::sight;
use crate::config::Haproxy;
use crate::haproxy::alerts;
use crate::sys::escape::escaped_path;
use crate::sys::failure::io_cause;
use crate::sys::program::Program;
use crate::sys::system::System;

/// How long the check after a failed reload may take.
pub(super) const AGAIN: Duration = Duration::from_secs(30);

/// What a configuration check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigCheck {
    /// HAProxy would load it.
    Valid,
    /// HAProxy would refuse it.
    Invalid {
        /// Its error lines, as one line of ASCII.
        words: String,
        /// Everything it said, for [`crate::haproxy::alerts::named_changes`].
        log: String,
    },
    /// It wasn't checked, and why.
    Unchecked(String),
}

/// Checks a master's configuration with its own binary, arguments, environment, directory and user.
#[must_use]
pub fn check(system: &System, haproxy: &Haproxy, master: &Master, deadline: Instant) -> ConfigCheck {
    let program = match checker::program(system, haproxy, master) {
        Ok(program) => program,
        Err(why) => return ConfigCheck::Unchecked(why.to_string()),
    };
    ConfigCheck::by(&program, deadline)
}

impl ConfigCheck {
    /// Runs `haproxy -c`, and reads what it says. One that ends by a signal or a time-out has refused nothing.
    pub(crate) fn by(program: &Program, deadline: Instant) -> Self {
        let shown = escaped_path(program.path());
        let done = match program.run(deadline) {
            Ok(done) => done,
            Err(e) => return Self::Unchecked(format!("cannot run {shown}: {}", io_cause(&e))),
        };
        let words = alerts::words(&done.output);
        if done.succeeded() {
            Self::Valid
        } else if done.has_ended_itself() && !words.is_empty() {
            Self::Invalid { words, log: done.output }
        } else {
            let said = done.last_line().map(|line| format!(": {line}")).unwrap_or_default();
            Self::Unchecked(format!("{shown} -c {}{said}", done.end()))
        }
    }
}

/// The same with this HAProxy's master, where one is in sight.
#[must_use]
pub fn check_of_master(system: &System, haproxy: &Haproxy) -> ConfigCheck {
    let Some(pid) = sight::master(system, haproxy) else {
        return ConfigCheck::Unchecked("no master is in sight".to_owned());
    };
    match Master::open(system, pid) {
        Ok(master) => check(system, haproxy, &master, Instant::now() + AGAIN),
        Err(why) => ConfigCheck::Unchecked(why.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_that_a_signal_ended_has_refused_nothing() {
        let says = |end: &str| {
            let script = format!("echo '[ALERT] (1) : config : no'; {end}");
            let program = Program::new("/bin/sh").arg("-c").arg(script);
            ConfigCheck::by(&program, Instant::now() + Duration::from_secs(60))
        };
        assert!(matches!(says("exit 1"), ConfigCheck::Invalid { .. }));
        assert!(matches!(says("kill -KILL $$"), ConfigCheck::Unchecked(_)));
        assert_eq!(says("exit 0"), ConfigCheck::Valid);
    }
}
