//! What a node says of itself: its report.

use crate::commands::fleet::follow::{Followed, Follower};
use crate::config::fleet::StorePlace;
use crate::fleet::cache::{FleetMemory, KeptException};
use crate::fleet::report::{EVERYTHING, NodeReport, ReportedException};
use crate::fleet::store::StoreKey;
use crate::fleet::trouble::FleetTrouble;
use crate::sys::clock::now;
use crate::sys::failure::{Failure, FailureKind};

/// The most exceptions that are reported one by one.
const MOST_EXCEPTIONS: usize = 100;

impl Follower<'_> {
    /// Puts the signed report, where this node ever heard its name, and remembers what came of it.
    pub(super) fn report(&self, memory: &mut FleetMemory, done: &mut Followed) {
        // An etcd that didn't answer a moment ago isn't waited for a second time.
        let is_mute = matches!(self.fleet.store, StorePlace::Etcd(_))
            && matches!(done.trouble, Some((FleetTrouble::FleetUnreachable, _)));
        let Some(report) = self.report_of(memory, done.trouble.as_ref()).filter(|_| !is_mute) else { return };
        match self.put(&report) {
            Ok(()) => {
                memory.unreported = None;
                memory.told = now();
                memory.tells(done.trouble.as_ref());
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
        // Who never had a head says so, too, once it knows its name.
        let (sequence, head) = memory.heads.newest().unwrap_or_default();
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
            notes: memory.notes.iter().map(KeptException::reported).collect(),
            omitted: u64::try_from(omitted).unwrap_or_default(),
        })
    }

    fn put(&self, report: &NodeReport) -> Result<(), Failure> {
        let value = report.sign(self.identity.signing());
        let fail = |why: String| Failure::new(FailureKind::Io, why);
        let Some(store) = &self.store else { return Err(fail("the store can't be opened".to_owned())) };
        store.put(&[(StoreKey::Report(report.node.clone()), value)]).map_err(|e| fail(e.to_string()))
    }
}
