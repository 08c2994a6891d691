//! Which version a HAProxy is: the worker that answers says it, else the program that would be started.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::geteuid;

use crate::config::Haproxy;
use crate::haproxy::cli::worker::Worker;
use crate::haproxy::process::started::Started;
use crate::sys::procfs::Proc;
use crate::sys::program::Program;
use crate::sys::system::System;
use crate::sys::trusted::trusted;

/// How long a socket is asked.
const ANSWER: Duration = Duration::from_secs(1);

/// How long the program may take to say its version.
const START: Duration = Duration::from_secs(5);

/// Its version's first two numbers; `None`: nobody says. `started`: the one that runs, where one is seen.
#[must_use]
pub fn release(system: &System, haproxy: &Haproxy, started: Option<&Started>) -> Option<(u32, u32)> {
    let deadline = Instant::now() + ANSWER;
    let of_worker = |worker: &Worker<'_>| worker.answering(deadline).ok()?.version;
    Worker::ways(haproxy).iter().find_map(of_worker).or_else(|| {
        let configured = haproxy.binary.as_ref();
        // Another program may lie where it is looked for.
        let program = match started {
            Some(started) => configured.and_then(|_| own_program(system, started)),
            None => configured.and_then(|name| system.program(name)),
        };
        of_program(program?)
    })
}

/// The program of one that runs, where it is one that we may run.
fn own_program(system: &System, started: &Started) -> Option<PathBuf> {
    let program = Proc::new(system).executable(started.pid).ok().filter(|_| started.root.is_none())?;
    trusted(&program, geteuid().as_raw()).is_ok().then_some(program)
}

fn of_program(program: PathBuf) -> Option<(u32, u32)> {
    let done = Program::new(program).arg("-v").run(Instant::now() + START).ok()?;
    printed(&done.output)
}

/// Reads `HAProxy version 2.6.12-1+deb12u4 2025/08/22 - ...`; 2.2 writes `HA-Proxy`.
fn printed(output: &str) -> Option<(u32, u32)> {
    let line = output.lines().find(|line| line.starts_with("HAProxy ") || line.starts_with("HA-Proxy "))?;
    let mut numbers = line.split_once("version ")?.1.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::printed;

    #[test]
    fn every_version_prints_its_number() {
        for (output, version) in [
            ("HA-Proxy version 2.2.9-2+deb11u6 2023/12/14 - https://haproxy.org/\nx", Some((2, 2))),
            ("HAProxy version 3.5-dev3-b2f5f1 2026/01/01\n", Some((3, 5))),
            ("nginx version: 1.2", None),
            ("", None),
        ] {
            assert_eq!(printed(output), version, "{output}");
        }
    }
}
