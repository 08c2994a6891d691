//! Prunes while a HAProxy is down: nobody refuses a reload then, and a file that it needs would be missed at its next start.
//! So it is asked before them and after them whether it would start.

use std::path::PathBuf;
use std::time::Instant;

use crate::config::Haproxy;
use crate::haproxy::process::config_check::ConfigCheck;
use crate::haproxy::process::stopped::would_start;
use crate::haproxy::start::Start;
use crate::plan::action::Action;
use crate::plan::row::Plan;
use crate::sites::commit::Committed;
use crate::sites::last_start::LastStart;
use crate::sys::system::System;

/// A HAProxy that doesn't run, and that would start from its configuration.
pub(crate) struct Startable<'a> {
    haproxy: &'a Haproxy,
    start: Start,
}

impl<'a> Startable<'a> {
    pub(super) fn new(haproxy: &'a Haproxy, files: &Vec<PathBuf>, last: Option<&LastStart>) -> Self {
        Self { haproxy, start: start(Some(files), last) }
    }

    /// Whether it would start now.
    pub(super) fn ask(&self, system: &System) -> ConfigCheck {
        would_start(system, self.haproxy, &self.start, Instant::now() + self.haproxy.timeout)
    }
}

/// How a HAProxy will be started: with these files, else as distributions start it, and as it was last seen.
pub(crate) fn start(files: Option<&Vec<PathBuf>>, last: Option<&LastStart>) -> Start {
    Start::with(files, last.and_then(|last| last.openssl_conf.clone()))
}

/// Whether a plan prunes anything.
pub(super) fn prunes(plan: &Plan) -> bool {
    plan.rows.iter().any(|row| row.action == Action::Prune)
}

/// Asks them again, now that the files are gone; where one wouldn't start any more, they come back.
pub(crate) fn verified(
    system: &System,
    startable: &[Startable<'_>],
    committed: &mut Committed<'_>,
    fingerprints: &str,
) {
    if !prunes(&committed.plan) {
        return;
    }
    for one in startable {
        let ConfigCheck::Invalid { words, .. } = one.ask(system) else { continue };
        let back = committed.put_prunes_back(&words);
        // Where it refuses still, something else is the cause.
        if one.ask(system) == ConfigCheck::Valid {
            committed.remember_prunes(&back, &words, fingerprints);
        }
        return;
    }
}
