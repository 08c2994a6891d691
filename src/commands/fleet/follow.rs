//! `fleet follow`: one way for an event, a time-out and the timer. Read the head, judge it, fetch what is missing, switch
//! the cache over when it is complete, deploy from it, report.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::commands::assemble::{Options, assemble};
use crate::config::Settings;
use crate::config::fleet::{Fleet, StorePlace};
use crate::fleet::accept::{Accepted, RefusedHead, accept};
use crate::fleet::cache::{
    CacheFolder, FleetMemory, HostPart, KeptException, Opened, fleet_name, identity, own_name, publishers,
};
use crate::fleet::fetch::{Unfetched, fetch};
use crate::fleet::head::SignedHead;
use crate::fleet::identity::HostIdentity;
use crate::fleet::name::{FleetName, NodeName};
use crate::fleet::overview::EVERYTHING;
use crate::fleet::reach::{Patience, reach};
use crate::fleet::report::{NodeReport, ReportedException};
use crate::fleet::sshsig::VerifyingKey;
use crate::fleet::store::{FleetStore, Revision, StoreKey};
use crate::fleet::trouble::FleetTrouble;
use crate::haproxy::verdict::Outcome;
use crate::output::{Exit, HaproxyRow, Report};
use crate::status::judge::Site;
use crate::status::problem::Problem;
use crate::status::severity::{ProblemKind, Severity};
use crate::status::status;
use crate::sys::clock::now;
use crate::sys::failure::{Failure, FailureKind};
use crate::sys::parallel::Progress;
use crate::sys::system::System;

/// What is on its way into a directory is waited for so long.
const ARRIVING: Duration = Duration::from_secs(3);

/// A node gives a sign of life so often, whatever happens.
pub const SIGN_OF_LIFE: i64 = 15 * 60;

/// A node looks at everything so often, whatever the head says.
const DAY: i64 = 24 * 60 * 60;

/// The most exceptions that are reported one by one.
const MOST_EXCEPTIONS: usize = 100;

/// A node that follows its fleet.
pub struct Follower<'a> {
    settings: &'a Settings,
    fleet: &'a Fleet,
    system: &'a System,
    name: FleetName,
    publishers: Vec<VerifyingKey>,
    identity: HostIdentity,
    /// Opened when it is asked first: where it can't be, the node goes on with what it has.
    store: Option<Box<dyn FleetStore>>,
    /// The store's head as it was seen last.
    pub revision: Option<Revision>,
}

/// What came of one look.
#[derive(Debug, Clone, Default)]
pub struct Followed {
    /// The fleet.
    pub fleet: String,
    /// This node's name, where the head has one.
    pub node: Option<String>,
    /// The number of the head that counts here now; `None`: there is none.
    pub sequence: Option<u64>,
    /// Whether that is another one than before.
    pub is_new: bool,
    /// Why the store's head isn't taken.
    pub trouble: Option<(FleetTrouble, String)>,
    /// What the run from the cache did; `None`: there was nothing to look at again.
    pub run: Option<Report>,
    /// What a look at the HAProxys found otherwise than the head says, though the run had nothing to do.
    pub unserved: Vec<KeptException>,
    /// Why the report could not be put.
    pub unreported: Option<String>,
}

impl Followed {
    /// How a single look ends.
    #[must_use]
    pub fn exit(&self) -> Exit {
        let of_run = self.of_run();
        let is_served = self.unserved.iter().all(|it| it.problem == ProblemKind::HaproxyDown.name());
        let of_look = if is_served { Exit::Fine } else { Exit::Untold };
        let of_head = self.of_head();
        let of_report = if self.unreported.is_some() { Exit::Partly } else { Exit::Fine };
        [of_run, of_look, of_head, of_report].into_iter().max_by_key(|exit| exit.code()).unwrap_or(Exit::Fine)
    }

    fn of_run(&self) -> Exit {
        self.run.as_ref().map_or(Exit::Fine, |run| run.exit(false))
    }

    fn of_head(&self) -> Exit {
        match &self.trouble {
            None => Exit::Fine,
            Some((FleetTrouble::FleetUnreachable | FleetTrouble::FleetEmpty, _)) => Exit::Unable,
            Some((trouble, _)) if trouble.is_alarm() => Exit::Untold,
            Some(_) => Exit::Partly,
        }
    }

    /// Whether it should be tried again soon. What a HAProxy serves isn't mended by trying again.
    #[must_use]
    pub fn is_unfinished(&self) -> bool {
        self.of_run() != Exit::Fine || self.of_head() != Exit::Fine || self.unreported.is_some()
    }
}

/// How a look goes about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closely {
    /// Everything is looked at.
    All,
    /// What was fine a moment ago isn't looked at again.
    Changes,
}

impl<'a> Follower<'a> {
    /// By these settings.
    ///
    /// # Errors
    /// This host follows no fleet, or its keys are missing.
    pub fn new(settings: &'a Settings, system: &'a System) -> Result<Self, Failure> {
        let fleet = settings.followed().ok_or_else(|| {
            Failure::config("this host follows no fleet: the settings need [fleet] with publishers")
        })?;
        Ok(Self {
            name: fleet_name(fleet)?,
            publishers: publishers(fleet)?,
            identity: identity(fleet)?,
            store: None,
            revision: None,
            settings,
            fleet,
            system,
        })
    }

    /// One look. `pause`: called with how long to wait before what is new is deployed; whether to go on then.
    ///
    /// # Errors
    /// The cache can't be locked or written.
    pub fn once(
        &mut self,
        look: Closely,
        progress: Progress<'_>,
        pause: &dyn Fn(Duration) -> bool,
    ) -> Result<Followed, Failure> {
        let folder = CacheFolder::lock(&self.fleet.cache)?;
        let mut memory = folder.memory();
        let kept = folder.open(self.fleet, &self.identity, HostPart::Node).ok().flatten();
        let before = kept.as_ref().map(|kept| kept.signed.hash);
        memory.tried = now();
        let mut done = Followed { fleet: self.fleet.name.clone(), ..Followed::default() };
        let opened = match self.take(&folder, &mut memory, kept.as_ref(), look, pause) {
            Ok(taken) => taken.or(kept),
            Err((trouble, fact)) => {
                done.trouble = Some((trouble, fact));
                kept
            }
        };
        memory.held.clone_from(&done.trouble);
        let Some(opened) = opened else {
            folder.remember(&memory)?;
            return Ok(done);
        };
        let head = opened.signed.head.clone();
        done.sequence = Some(head.sequence);
        done.is_new = before != Some(opened.signed.hash);
        done.node = own_name(&opened.signed, &self.identity).map(|name| name.to_string());
        let at = now();
        if done.trouble.is_none() && head.expires <= at {
            done.trouble = Some((FleetTrouble::FleetStale, stale(&opened.signed)));
            memory.held.clone_from(&done.trouble);
        }
        if done.trouble.is_none() {
            folder.tidy(&opened);
        }
        folder.remember(&memory)?;
        let is_due = at - memory.looked >= DAY || memory.looked > at || memory.unfinished;
        if look == Closely::All || done.is_new || is_due {
            let report = assemble(self.settings, self.system, &Options::default(), progress);
            memory.unfinished = report.exit(false) != Exit::Fine;
            memory.looked = at;
            if done.is_new || memory.since == 0 {
                memory.since = now();
            }
            if report.exit(false) != Exit::Fine {
                memory.exceptions = self.exceptions(&report);
                memory.is_confirmed = false;
            }
            done.run = Some(report);
        }
        let is_silent = at - memory.told >= SIGN_OF_LIFE || memory.told > at;
        let mut is_other = false;
        // What was confirmed once needn't be served now.
        let was_fine = done.run.as_ref().map_or(!memory.unfinished, |run| run.exit(false) == Exit::Fine);
        if was_fine && (done.run.is_some() || is_silent || !memory.is_confirmed) {
            let unserved = self.unserved(done.run.as_ref());
            is_other = unserved != memory.exceptions;
            memory.is_confirmed = unserved.is_empty();
            memory.exceptions.clone_from(&unserved);
            done.unserved = unserved;
        }
        is_other |= memory.told_trouble != done.trouble.as_ref().map(|(trouble, _)| *trouble);
        // An etcd that didn't answer a moment ago isn't waited for a second time.
        let is_mute = matches!(self.fleet.store, StorePlace::Etcd(_))
            && matches!(done.trouble, Some((FleetTrouble::FleetUnreachable, _)));
        if !is_mute
            && (done.run.is_some() || is_silent || is_other)
            && let Some(node) = own_name(&opened.signed, &self.identity)
        {
            match self.report(&node, &opened.signed, &mut memory, done.trouble.as_ref()) {
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
        folder.remember(&memory)?;
        Ok(done)
    }

    /// Takes the store's head where it counts: `None` where it is the one that is here, whole.
    fn take(
        &mut self,
        folder: &CacheFolder,
        memory: &mut FleetMemory,
        kept: Option<&Opened>,
        look: Closely,
        pause: &dyn Fn(Duration) -> bool,
    ) -> Result<Option<Opened>, (FleetTrouble, String)> {
        let unreachable = |e: &dyn std::fmt::Display| (FleetTrouble::FleetUnreachable, e.to_string());
        if self.store.is_none() {
            self.store = Some(reach(self.fleet, Patience::Usual).map_err(|e| unreachable(&e))?);
        }
        let Some(store) = &self.store else { return Err(unreachable(&"it can't be opened")) };
        let of_store = |e: crate::fleet::store::StoreError| (FleetTrouble::of_store(&e), e.to_string());
        let found = store.get(&[StoreKey::Head]).map_err(of_store)?.into_iter().next().flatten();
        let Some(found) = found else {
            self.revision = None;
            let fact = format!("the store {} has no head of the fleet {}", self.fleet.store, self.name);
            return Err((FleetTrouble::FleetEmpty, fact));
        };
        self.revision = Some(found.revision);
        let at = now();
        let signed = match accept(&found.bytes, &memory.heads, &self.name, &self.publishers, at) {
            Ok(Accepted::New(signed) | Accepted::Unchanged(signed)) => signed,
            // A torn head of a directory isn't an attack.
            Err(RefusedHead::Damaged(e)) if !found.settled => {
                return Err((FleetTrouble::FleetIncomplete, format!("the head isn't whole yet: {e}")));
            }
            Err(refused) => return Err((FleetTrouble::of(&refused), refused.to_string())),
        };
        memory.heads.remember(&signed);
        let node = own_name(&signed, &self.identity).ok_or_else(|| {
            let fact =
                format!("number {} of the fleet {} doesn't name this host", signed.head.sequence, self.name);
            (FleetTrouble::FleetNotANode, fact)
        })?;
        let is_here = kept.is_some_and(|kept| kept.signed.hash == signed.hash);
        if is_here && look == Closely::Changes && !memory.unfinished {
            return Ok(None);
        }
        if !is_here {
            self.wait_for_canaries(store.as_ref(), &signed, &node, at)?;
        }
        let (key, entries) = self.fetch(store.as_ref(), folder, &signed, &node)?;
        if is_here {
            return Ok(None);
        }
        if kept.is_some() && !self.fleet.spread.is_zero() && !pause(random_part(self.fleet.spread)) {
            return Err((
                FleetTrouble::FleetWaiting,
                "this run ended before it took the new head".to_owned(),
            ));
        }
        if let Some(kept) = kept {
            folder.keep_leaves(&kept.entries, &entries);
        }
        folder.switch_over(&found.bytes).map_err(|e| (FleetTrouble::FleetIncomplete, e.message))?;
        Ok(Some(Opened { signed, key, entries }))
    }

    fn fetch(
        &self,
        store: &dyn FleetStore,
        folder: &CacheFolder,
        signed: &SignedHead,
        node: &NodeName,
    ) -> Result<
        (crate::fleet::epoch::EpochKey, BTreeMap<String, crate::fleet::page::PageEntry>),
        (FleetTrouble, String),
    > {
        let until = Instant::now() + ARRIVING;
        let is_carried = matches!(self.fleet.store, StorePlace::Directory(_));
        loop {
            let unfetched = match fetch(store, folder, &signed.head, &self.identity, node, true) {
                Ok(fetched) => return Ok(fetched),
                Err(unfetched) => unfetched,
            };
            if is_carried && unfetched.may_come() && Instant::now() < until {
                sleep(Duration::from_millis(500));
                continue;
            }
            let trouble = match &unfetched {
                Unfetched::Missing(_) | Unfetched::NotYet(_) | Unfetched::Unkept(_) => {
                    FleetTrouble::FleetIncomplete
                }
                Unfetched::Damaged(_) => FleetTrouble::FleetDamaged,
                Unfetched::Store(e) => FleetTrouble::of_store(e),
            };
            return Err((trouble, format!("number {}: {unfetched}", signed.head.sequence)));
        }
    }

    /// Whether the nodes that this one waits for have confirmed the head, or it waited for long enough.
    fn wait_for_canaries(
        &self,
        store: &dyn FleetStore,
        signed: &SignedHead,
        own: &NodeName,
        at: i64,
    ) -> Result<(), (FleetTrouble, String)> {
        let others: Vec<&String> = self.fleet.wait_for.iter().filter(|name| *name != own.as_ref()).collect();
        let limit = i64::try_from(self.fleet.wait_at_most.as_secs()).unwrap_or(i64::MAX);
        if others.is_empty() || at >= signed.head.signed.saturating_add(limit) {
            return Ok(());
        }
        let sequence = signed.head.sequence;
        for name in others {
            let waiting = |why: String| {
                (FleetTrouble::FleetWaiting, format!("number {sequence} waits for {name}: {why}"))
            };
            let member = signed.head.nodes.iter().find(|(node, _)| node.as_ref() == name.as_str());
            let Some((node, key)) = member else {
                return Err(waiting("the fleet has no node of that name".to_owned()));
            };
            let found = store
                .get(&[StoreKey::Report(node.clone())])
                .map_err(|e| (FleetTrouble::FleetUnreachable, e.to_string()))?;
            let Some(found) = found.into_iter().next().flatten() else {
                return Err(waiting("it has never reported".to_owned()));
            };
            let report = NodeReport::read(&found.bytes, &key.signing, &self.name, node)
                .map_err(|e| waiting(format!("its report can't be used: {e}")))?;
            if report.head != signed.hash {
                return Err(waiting("it hasn't taken it yet".to_owned()));
            }
            if !report.confirmed {
                let why = report
                    .exceptions
                    .first()
                    .map_or_else(String::new, |first| format!(": {}", first.problem));
                return Err(waiting(format!("it could not confirm it{why}")));
            }
        }
        Ok(())
    }

    /// Puts the signed report.
    fn report(
        &self,
        node: &NodeName,
        signed: &SignedHead,
        memory: &mut FleetMemory,
        trouble: Option<&(FleetTrouble, String)>,
    ) -> Result<(), Failure> {
        let at = now();
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
        let report = NodeReport {
            fleet: self.name.clone(),
            node: node.clone(),
            sequence: signed.head.sequence,
            head: signed.hash,
            since: memory.since,
            time: at,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            confirmed: memory.is_confirmed,
            exceptions,
            omitted: u64::try_from(omitted).unwrap_or_default(),
        };
        let value = report.sign(self.identity.signing());
        let fail = |why: String| Failure::new(FailureKind::Io, why);
        let Some(store) = &self.store else { return Err(fail("the store can't be opened".to_owned())) };
        store.put(&[(StoreKey::Report(node.clone()), value)]).map_err(|e| fail(e.to_string()))
    }

    /// What isn't deployed or served as the head says, by a look at everything where a run wasn't fine.
    fn exceptions(&self, report: &Report) -> Vec<KeptException> {
        let mut exceptions = not_running(report);
        if let Some(failure) = &report.error {
            exceptions.push(KeptException {
                lineage: EVERYTHING.to_owned(),
                problem: "run-failed".to_owned(),
                served: None,
                detail: failure.message.clone(),
            });
        }
        let looked = status(self.settings, self.system, false, &|_, _| ());
        for (site, problem) in looked.all_problems() {
            if problem.severity >= Severity::Warning {
                exceptions.push(exception(site, problem));
            }
        }
        let told = report.haproxy.iter().filter(|row| row.is_bad());
        exceptions.extend(told.map(|row| KeptException {
            lineage: EVERYTHING.to_owned(),
            problem: "haproxy-not-confirmed".to_owned(),
            served: None,
            detail: row.detail.clone().unwrap_or_else(|| row.name.clone()),
        }));
        exceptions
    }

    /// What the HAProxys don't serve as the disk has it, by a look at them: what notified nobody proves nothing.
    fn unserved(&self, run: Option<&Report>) -> Vec<KeptException> {
        let looked = status(self.settings, self.system, false, &|_, _| ());
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
        unserved
    }

    /// The fleet.
    #[must_use]
    pub fn fleet(&self) -> &Fleet {
        self.fleet
    }
}

/// The HAProxys that a run found not running.
fn not_running(report: &Report) -> Vec<KeptException> {
    let silent = report.haproxy.iter().filter(|row| row.outcome == Outcome::NotRunning);
    let of_row = |row: &HaproxyRow| KeptException {
        lineage: EVERYTHING.to_owned(),
        problem: ProblemKind::HaproxyDown.name().to_owned(),
        served: None,
        detail: row.detail.clone().unwrap_or_else(|| format!("{} doesn't run", row.name)),
    };
    silent.map(of_row).collect()
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

/// That a head is past its time.
fn stale(signed: &SignedHead) -> String {
    let at = crate::output::json::timestamp(signed.head.expires).unwrap_or_default();
    format!("number {} expired at {at}: nothing is pruned by it", signed.head.sequence)
}

/// A random part of a time.
fn random_part(of: Duration) -> Duration {
    let most = u64::try_from(of.as_millis()).unwrap_or(u64::MAX).max(1);
    Duration::from_millis(RandomState::new().hash_one(0_u8) % most)
}

/// The failure of a look that could not be done at all.
#[must_use]
pub fn unable(trouble: &(FleetTrouble, String)) -> Failure {
    Failure::new(FailureKind::Io, format!("{}: {}", trouble.0.name(), trouble.1))
}
