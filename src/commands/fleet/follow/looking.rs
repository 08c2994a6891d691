//! What isn't deployed or served as the head says: by a look at the files and at what each HAProxy has of them.

use std::path::Path;

use crate::commands::fleet::follow::Follower;
use crate::commands::fleet::follow::noting::{exception, is_note, notes, of_site};
use crate::config::{Address, DEFAULT_MASTER_SOCKET, Haproxy, Method};
use crate::fleet::cache::KeptException;
use crate::haproxy::cli::worker::can_be_shown;
use crate::haproxy::verdict::Outcome;
use crate::output::{HaproxyRow, Report};
use crate::status::judge::Site;
use crate::status::problem::Problem;
use crate::status::running::Running;
use crate::status::severity::{ProblemKind, Severity};
use crate::status::{Status, status, status_after, troubles};
use crate::sys::escape::escaped;

/// The word of an exception: a HAProxy wasn't seen to have what it should.
const UNSEEN: &str = "haproxy-not-confirmed";

/// What a look found otherwise than the head says.
#[derive(Debug, Default)]
pub(super) struct Unserved {
    /// All of it, for the report.
    pub exceptions: Vec<KeptException>,
    /// What is so for good and takes nothing from what is confirmed.
    pub notes: Vec<KeptException>,
    /// What of it isn't said by the run.
    pub unsaid: Vec<KeptException>,
    /// Whether a HAProxy that runs, or should, wasn't seen to have everything, though there is a way to see it.
    pub is_untold: bool,
}

impl Follower<'_> {
    /// By a look at everything, after a run that wasn't fine.
    pub(super) fn exceptions(&self, run: &Report, left_out: &[String]) -> Unserved {
        let failed = run.error.iter().map(|e| KeptException::of_everything("run-failed", e.message.clone()));
        let mut exceptions: Vec<KeptException> = not_running(run).chain(failed).collect();
        let looked = status(self.settings, self.system, false, &|_, _| ());
        let mut unserved = Vec::new();
        // What is wrong with the fleet this look says itself, and what status knows of it is of the one before.
        let is_fleets = |problem: &Problem| matches!(problem.kind, ProblemKind::Fleet(_));
        let problems = looked.all_problems().into_iter();
        for (site, problem) in problems.filter(|(site, it)| !is_fleets(it) && !is_note(*site, it)) {
            let is_of_haproxy = is_unserved(site, problem);
            if problem.severity >= Severity::Warning || is_of_haproxy {
                exceptions.push(exception(site, problem));
            }
            if is_of_haproxy {
                unserved.push(exception(site, problem));
            }
        }
        let unseen = self.unseen(&looked, run.into());
        let is_untold = unseen.is_untold || !unserved.is_empty();
        unserved.extend(unseen.exceptions.iter().cloned());
        exceptions.extend(unseen.exceptions);
        let told = run.haproxy.iter().filter(|row| row.is_bad());
        let is_told = told.clone().next().is_some();
        exceptions.extend(told.map(|row| {
            let detail = row.detail.clone().unwrap_or_else(|| row.name.clone());
            KeptException::of_everything(UNSEEN, detail)
        }));
        let unsaid = if is_told { Vec::new() } else { unserved };
        Unserved { exceptions, notes: notes(&looked, left_out), unsaid, is_untold }
    }

    /// Whether a run itself saw every HAProxy take what it changed.
    pub(super) fn has_seen_all(&self, run: &Report) -> bool {
        let is_hidden = self.are_hidden();
        run.haproxy.iter().all(|row| match row.outcome {
            Outcome::Updated | Outcome::Reloaded => row.confirmed == Some(true),
            Outcome::Skipped => is_hidden,
            _ => false,
        })
    }

    /// By a look at the HAProxys, after a run that was fine: what notified nobody proves nothing.
    pub(super) fn unserved(&self, run: Option<&Report>, left_out: &[String]) -> Unserved {
        let looked = status_after(self.settings, self.system);
        let is_undeployed =
            |problem: &Problem| matches!(problem.kind, ProblemKind::DiskMissing | ProblemKind::DiskStale);
        let problems = looked.all_problems().into_iter();
        let mut exceptions: Vec<KeptException> = problems
            .filter(|(site, problem)| is_undeployed(problem) || is_unserved(*site, problem))
            .map(|(site, problem)| exception(site, problem))
            .collect();
        let unseen = self.unseen(&looked, run);
        let is_untold = unseen.is_untold || !exceptions.is_empty();
        let says_down = exceptions.iter().any(|it| it.problem == ProblemKind::HaproxyDown.name());
        exceptions.extend(run.into_iter().flat_map(not_running).filter(|_| !says_down));
        exceptions.extend(unseen.exceptions);
        let notes = notes(&looked, left_out);
        Unserved { unsaid: exceptions.clone(), exceptions, notes, is_untold }
    }

    /// What can't be seen: of a HAProxy that doesn't run nothing is said.
    fn unseen(&self, looked: &Status, run: Option<&Report>) -> Unserved {
        let of_all = |why: String| KeptException::of_everything(UNSEEN, why);
        let mut found = Unserved::default();
        found.exceptions.extend(looked.unseen.iter().cloned().map(of_all));
        found.exceptions.extend(looked.haproxy.iter().filter_map(troubles::twin).map(|it| of_all(it.fact)));
        found.is_untold = !found.exceptions.is_empty();
        for (site, running) in looked.unseen_files().filter(|(_, running)| !running.is_unseen()) {
            let detail = format!("what {} has of it can't be seen", escaped(&running.name));
            found.exceptions.push(KeptException { problem: UNSEEN.to_owned(), detail, ..of_site(site) });
            // One with too many names no socket shows.
            found.is_untold |= running.loaded && site.leaf().is_some_and(|leaf| can_be_shown(leaf));
        }
        if self.are_hidden() || looked.sites.is_empty() {
            return found;
        }
        let runs = |running: &Running| {
            let mut rows = run.into_iter().flat_map(|run| &run.haproxy);
            let is_silent = rows.any(|row| row.name == running.name && row.outcome == Outcome::NotRunning);
            running.down.is_none() && !is_silent
        };
        for (running, table) in looked.haproxy.iter().zip(&self.settings.haproxys) {
            if running.is_unseen() && runs(running) {
                let why = format!("{}: {}", escaped(&running.name), running.why_unseen());
                found.exceptions.push(of_all(why));
                found.is_untold |= running.wanted && can_be_seen(table);
            }
        }
        found
    }

    /// Whether nobody wants anything of any HAProxy here: that the files are there is all that there is to see.
    fn are_hidden(&self) -> bool {
        self.settings.haproxys.iter().all(|table| table.method == Method::None && !can_be_seen(table))
    }
}

/// Whether there is a way to see what a HAProxy serves. The default socket of a table that says nothing may not be there.
fn can_be_seen(table: &Haproxy) -> bool {
    let is_there = |socket: &Address| match socket {
        Address::Unix(path) if path == Path::new(DEFAULT_MASTER_SOCKET) => path.symlink_metadata().is_ok(),
        Address::Unix(_) | Address::Tcp(_) => true,
    };
    let mut sockets = table.master_socket.iter().chain(&table.runtime_socket);
    sockets.any(is_there) || !table.probe.is_empty()
}

/// Whether a HAProxy doesn't serve a file as the disk has it.
fn is_unserved(site: Option<&Site>, problem: &Problem) -> bool {
    match problem.kind {
        ProblemKind::HaproxyMissing | ProblemKind::NotListed => site.is_some(),
        // What somebody changed in its memory clients see.
        ProblemKind::HaproxyStale => site.is_some() || problem.severity == Severity::Critical,
        ProblemKind::HaproxyDown => true,
        _ => false,
    }
}

/// The HAProxys that a run found not running.
fn not_running(run: &Report) -> impl Iterator<Item = KeptException> {
    let silent = run.haproxy.iter().filter(|row| row.outcome == Outcome::NotRunning);
    let of_row = |row: &HaproxyRow| {
        let detail = row.detail.clone().unwrap_or_else(|| format!("{} doesn't run", row.name));
        KeptException::of_everything(ProblemKind::HaproxyDown.name(), detail)
    };
    silent.map(of_row)
}
