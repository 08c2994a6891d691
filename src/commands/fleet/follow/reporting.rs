//! What a node says of itself: what isn't deployed or served as the head says, and the report of it.

use crate::commands::fleet::follow::followed::UNSEEN;
use crate::commands::fleet::follow::{Followed, Follower};
use crate::config::fleet::StorePlace;
use crate::config::{Haproxy, Method};
use crate::fleet::cache::{FleetMemory, KeptException};
use crate::fleet::overview::EVERYTHING;
use crate::fleet::report::{NodeReport, ReportedException};
use crate::fleet::store::StoreKey;
use crate::fleet::trouble::FleetTrouble;
use crate::haproxy::verdict::Outcome;
use crate::output::{HaproxyRow, Report};
use crate::status::judge::Site;
use crate::status::problem::Problem;
use crate::status::severity::{ProblemKind, Severity};
use crate::status::{status, status_after};
use crate::sys::clock::now;
use crate::sys::failure::{Failure, FailureKind};

/// The most exceptions that are reported one by one.
const MOST_EXCEPTIONS: usize = 100;

impl Follower<'_> {
    /// Puts the signed report, where this node ever had a head, and remembers what came of it.
    pub(super) fn report(&self, memory: &mut FleetMemory, done: &mut Followed) {
        // An etcd that didn't answer a moment ago isn't waited for a second time.
        let is_mute = matches!(self.fleet.store, StorePlace::Etcd(_))
            && matches!(done.trouble, Some((FleetTrouble::FleetUnreachable, _)));
        let Some(report) = self.report_of(memory, done.trouble.as_ref()).filter(|_| !is_mute) else { return };
        match self.put(&report) {
            Ok(()) => {
                memory.unreported = None;
                memory.told = now();
                memory.told_trouble = done.trouble.as_ref().map(|(trouble, _)| *trouble);
            }
            Err(failure) => {
                memory.unreported = Some(failure.message.clone());
                done.unreported = Some(failure.message);
            }
        }
    }

    /// What this node says of itself: the head that it holds its publisher to is the one that it reports.
    fn report_of(
        &self,
        memory: &FleetMemory,
        trouble: Option<&(FleetTrouble, String)>,
    ) -> Option<NodeReport> {
        let (sequence, head) = memory.heads.newest()?;
        let mut exceptions: Vec<ReportedException> =
            memory.exceptions.iter().map(KeptException::reported).collect();
        if let Some((trouble, fact)) = trouble {
            let own = ReportedException {
                lineage: EVERYTHING.to_owned(),
                problem: trouble.name().to_owned(),
                served: None,
                detail: fact.clone(),
            };
            exceptions.insert(0, own);
        }
        let omitted = exceptions.len().saturating_sub(MOST_EXCEPTIONS);
        exceptions.truncate(MOST_EXCEPTIONS);
        Some(NodeReport {
            fleet: self.name.clone(),
            node: memory.node.clone()?,
            sequence,
            head,
            since: memory.since,
            time: now(),
            program: env!("CARGO_PKG_VERSION").to_owned(),
            confirmed: memory.is_confirmed,
            exceptions,
            omitted: u64::try_from(omitted).unwrap_or_default(),
        })
    }

    fn put(&self, report: &NodeReport) -> Result<(), Failure> {
        let value = report.sign(self.identity.signing());
        let fail = |why: String| Failure::new(FailureKind::Io, why);
        let Some(store) = &self.store else { return Err(fail("the store can't be opened".to_owned())) };
        store.put(&[(StoreKey::Report(report.node.clone()), value)]).map_err(|e| fail(e.to_string()))
    }

    /// What isn't deployed or served as the head says, by a look at everything where a run wasn't fine.
    pub(super) fn exceptions(&self, report: &Report) -> Vec<KeptException> {
        let mut exceptions = not_running(report);
        if let Some(failure) = &report.error {
            exceptions.push(KeptException::of_everything("run-failed", failure.message.clone()));
        }
        let looked = status(self.settings, self.system, false, &|_, _| ());
        for (site, problem) in looked.all_problems() {
            if problem.severity >= Severity::Warning {
                exceptions.push(exception(site, problem));
            }
        }
        let told = report.haproxy.iter().filter(|row| row.is_bad());
        exceptions.extend(told.map(|row| {
            let detail = row.detail.clone().unwrap_or_else(|| row.name.clone());
            KeptException::of_everything(UNSEEN, detail)
        }));
        exceptions
    }

    /// Whether a run itself saw every HAProxy take what it changed; one that nothing is to be seen of doesn't count.
    pub(super) fn has_seen_all(&self, run: &Report) -> bool {
        let is_unseen = |name: &str| {
            let haproxy = self.settings.haproxys.iter().find(|haproxy| haproxy.name == name);
            haproxy.is_some_and(is_hidden)
        };
        run.haproxy.iter().all(|row| match row.outcome {
            Outcome::Updated | Outcome::Reloaded => row.confirmed == Some(true),
            Outcome::Skipped => is_unseen(&row.name),
            _ => false,
        })
    }

    /// What the HAProxys don't serve as the disk has it, or can't be seen to serve, by a look at them: what notified nobody proves
    /// nothing.
    pub(super) fn unserved(&self, run: Option<&Report>) -> Vec<KeptException> {
        let looked = status_after(self.settings, self.system);
        let is_unserved = |site: Option<&Site>, problem: &Problem| match problem.kind {
            ProblemKind::HaproxyStale | ProblemKind::HaproxyMissing => site.is_some(),
            ProblemKind::DiskMissing | ProblemKind::DiskStale | ProblemKind::HaproxyDown => true,
            _ => false,
        };
        let mut unserved: Vec<KeptException> = looked
            .all_problems()
            .into_iter()
            .filter(|(site, problem)| is_unserved(*site, problem))
            .map(|(site, problem)| exception(site, problem))
            .collect();
        if unserved.iter().all(|it| it.problem != ProblemKind::HaproxyDown.name()) {
            unserved.extend(run.into_iter().flat_map(not_running));
        }
        // Of one that doesn't run nothing more is said.
        if unserved.iter().all(|it| it.problem != ProblemKind::HaproxyDown.name()) {
            unserved.extend(looked.all_unseen().map(|why| KeptException::of_everything(UNSEEN, why)));
        }
        unserved
    }
}

/// The HAProxys that a run found not running.
fn not_running(report: &Report) -> Vec<KeptException> {
    let silent = report.haproxy.iter().filter(|row| row.outcome == Outcome::NotRunning);
    let of_row = |row: &HaproxyRow| {
        let detail = row.detail.clone().unwrap_or_else(|| format!("{} doesn't run", row.name));
        KeptException::of_everything(ProblemKind::HaproxyDown.name(), detail)
    };
    silent.map(of_row).collect()
}

/// Whether nothing can be seen of a HAProxy that isn't to be notified.
fn is_hidden(haproxy: &Haproxy) -> bool {
    haproxy.method == Method::None
        && haproxy.master_socket.is_none()
        && haproxy.runtime_socket.is_none()
        && haproxy.probe.is_empty()
        && haproxy.unit.is_empty()
        && haproxy.pidfile.as_os_str().is_empty()
}

/// A problem of the host's own status, for the report.
fn exception(site: Option<&Site>, problem: &Problem) -> KeptException {
    let lineage = site.and_then(|site| site.views.lineage.as_ref());
    let shown = site.into_iter().flat_map(|site| &site.views.haproxy);
    let served = shown.into_iter().find_map(|shown| shown.loaded.here()?.serial.clone());
    KeptException {
        lineage: lineage.map_or_else(|| EVERYTHING.to_owned(), |name| name.to_string_lossy().into_owned()),
        problem: problem.kind.name().to_owned(),
        served,
        detail: problem.fact.clone(),
    }
}
