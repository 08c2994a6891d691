//! The operator's own command.

use std::time::Instant;

use crate::config::Haproxy;
use crate::haproxy::attempt::Attempt;
use crate::sys::escape::escaped;
use crate::sys::failure::io_cause;
use crate::sys::program::Program;
use crate::sys::system::System;

/// Runs the command that the configuration names. What it does isn't known: success is notified, but not seen.
#[must_use]
pub fn run(system: &System, haproxy: &Haproxy) -> Attempt {
    let Some((name, args)) = haproxy.command.split_first() else {
        return Attempt::Failed("reload = \"command\" has no command".to_owned());
    };
    let Some(path) = system.program(name) else {
        return Attempt::Failed(format!("{}; name it by its absolute path", system.missing(name)));
    };
    match Program::new(path).args(args).run(Instant::now() + haproxy.timeout) {
        Ok(done) if done.succeeded() => Attempt::Told { seen: None, detail: None },
        Ok(done) => {
            let said = done.last_line().map(|line| format!(": {line}")).unwrap_or_default();
            Attempt::Unexplained(format!("{} {}{said}", escaped(name), done.end()))
        }
        Err(e) => Attempt::Failed(format!("cannot run {}: {}", escaped(name), io_cause(&e))),
    }
}
