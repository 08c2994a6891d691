//! Asking HAProxy whether it would load its configuration: as its master was started, else with what the settings name.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::unit;
use crate::config::Haproxy;
use crate::haproxy::alerts;
use crate::haproxy::process::master::Master;
use crate::haproxy::process::release::release;
use crate::haproxy::process::started::{Started, usual_configuration};
use crate::haproxy::process::surroundings::surroundings;
use crate::haproxy::process::{checker, config_check, stopped};
use crate::haproxy::start::Start;
use crate::serving::set_up::first_elsewhere;
use crate::sys::escape::escaped_path;
use crate::sys::failure::io_cause;
use crate::sys::program::Program;
use crate::sys::system::System;

/// How long HAProxy may take: it reads every certificate.
const LIMIT: Duration = Duration::from_secs(60);

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checked {
    /// It would load it.
    Accepted,
    /// It wouldn't: its words, and what mends it.
    Refused {
        /// HAProxy's own, one line of ASCII.
        words: String,
        /// What to do, before anything else.
        advice: String,
        /// All that it said.
        log: String,
    },
    /// It could not be asked: why.
    Unasked(String),
}

/// Asks it. `last`: the configuration files that one that doesn't run was started with, where they are known.
#[must_use]
pub fn check(system: &System, haproxy: &Haproxy, last: Option<&Vec<PathBuf>>) -> Checked {
    use crate::haproxy::process::config_check::ConfigCheck as C;
    let deadline = Instant::now() + LIMIT.min(haproxy.timeout);
    let refused = |words: String, log: String, files: &[PathBuf]| {
        let advice = alerts::advice(&words, &checker::for_people(system, haproxy), files, &[]);
        Checked::Refused { words: words.trim_start_matches("parsing ").to_owned(), advice, log }
    };
    let Some(binary) = &haproxy.binary else {
        return Checked::Unasked("binary is empty, so HAProxy is never run".to_owned());
    };
    if let Some(master) = master(system, haproxy) {
        return match config_check::check(system, haproxy, &master, deadline) {
            C::Valid => Checked::Accepted,
            C::Invalid { words, log } => refused(words, log, &haproxy.config),
            C::Unchecked(why) => Checked::Unasked(why),
        };
    }
    let started = Started::find(system, haproxy).ok().filter(|it| it.is_surely_this);
    if let Some(there) = started.as_ref().filter(|it| it.root.is_some())
        && let Some(file) = first_elsewhere(there, haproxy, release(system, haproxy, Some(there)))
    {
        return Checked::Unasked(checker::NotRun::Elsewhere { pid: there.pid, file }.to_string());
    }
    if started.is_none() && haproxy.has_paths_of_its_own() {
        return Checked::Unasked(checker::OTHER_PATHS.to_owned());
    }
    let files = match (haproxy.config.as_slice(), started) {
        ([], Some(started)) => started.paths().collect(),
        ([], None) => match Start::with(last, None).files {
            files if files.is_empty() => {
                let usual = usual_configuration();
                let usual = escaped_path(&usual);
                return Checked::Unasked(format!("it does not run, and there is no {usual}; set config"));
            }
            files => files,
        },
        (files, _) => files.to_vec(),
    };
    let Some(program) = system.program(binary) else {
        return Checked::Unasked(system.missing(binary));
    };
    let shown = escaped_path(&program).to_string();
    let named = files.iter().flat_map(|file| [Path::new("-f"), file.as_path()]);
    let program = Program::new(program).arg("-c").args(named);
    let around = surroundings(system, haproxy);
    let is_known = around.is_some();
    let program = match around {
        Some(it) => program.environment(it.environment).folder(it.folder),
        None => program,
    };
    match program.run(deadline) {
        Err(e) => Checked::Unasked(format!("cannot run {shown}: {}", io_cause(&e))),
        Ok(done) if done.succeeded() => Checked::Accepted,
        Ok(done) => match alerts::words(&done.output) {
            words if done.timed_out || words.is_empty() => {
                Checked::Unasked(format!("{shown} -c {}", done.end()))
            }
            words => match stopped::doubt(&files, &done.output).filter(|_| !is_known) {
                Some(doubt) => Checked::Unasked(format!("{doubt}, so what it says here proves nothing")),
                None => refused(words, done.output, &files),
            },
        },
    }
}

/// Its running master, by the pidfile or the unit.
fn master(system: &System, haproxy: &Haproxy) -> Option<Master> {
    let pid = crate::haproxy::process::pidfile::read(&haproxy.pidfile).ok().flatten();
    let by_pidfile = pid.and_then(|pid| Master::open(system, pid).ok());
    let by_unit = || Master::open(system, unit::show(system, &haproxy.unit)?.main_pid).ok();
    by_pidfile.or_else(by_unit)
}
