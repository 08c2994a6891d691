//! The Runtime API: certificates are replaced and added in memory, without a reload.
//!
//! What may be sent so is decided in [`crate::haproxy::memory`]: what is in memory afterwards must be what HAProxy would load when it
//! starts. Memory only: the disk is written first, a reload reads it again.

mod difference;
mod guess;
mod job;
mod losers;
mod settled;
pub mod shown;
mod update;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::config::Haproxy;
use crate::haproxy::attempt::Attempt;
use crate::haproxy::batch::Batch;
use crate::haproxy::cli::replies::{Listing, StoreStatus, Unwanted};
use crate::haproxy::cli::transaction::Untaken;
use crate::haproxy::cli::worker::{NoSocket, Worker, is_plain};
use crate::haproxy::memory::{File, Filling, Memory, NotInMemory, Step};
use crate::haproxy::target::Target;
use crate::serving::answers::Unsure;
use crate::sys::escape::escaped;
use crate::sys::system::System;
use difference::Difference;
use guess::{Guess, ShownOnly};
use job::Job;
use losers::STAPLED;
use settled::{RELOAD_AFTER, RELOAD_BEFORE, Settled};
use shown::agrees;
use update::{Stop, Update};

/// How often the whole batch is notified again because the worker changed meanwhile.
const ROUNDS: usize = 4;

/// What could be replaced in memory, and what not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Partial {
    /// HAProxy has them now.
    pub updated: Vec<Target>,
    /// These not, and why.
    pub left: Vec<(Target, String)>,
    /// Those of them that HAProxy refused by name, with its words.
    pub refused: Vec<(Target, String)>,
    /// Why the first of these was left out, where that was decided for the file itself.
    pub cause: Option<String>,
    /// Why it isn't seen that HAProxy answers as after a start, although it has them.
    pub unseen: Option<String>,
    /// Why HAProxy doesn't answer as after a start, although it has them.
    pub differs: Option<String>,
}

/// Gives HAProxy a whole batch in memory, and sees that it took it; where one file needs a reload, nothing is sent.
#[must_use]
pub fn update(system: &System, haproxy: &Haproxy, batch: &Batch<'_>, deadline: Instant) -> Attempt {
    let mut jobs = Vec::with_capacity(batch.changes.len());
    for change in batch.changes {
        match Job::new(haproxy, batch, change) {
            Ok(job) => jobs.push(job),
            Err(why) => return Attempt::NotApplicable(format!("{}: {why}", change.target)),
        }
    }
    let mut unusable = NoSocket::default();
    for worker in Worker::ways(haproxy) {
        let telling = Update::new(system, haproxy, batch, worker, deadline);
        match telling.all(&jobs) {
            Ok((refused, unseen)) if refused.is_empty() => {
                return Attempt::Told { seen: unseen.is_none().then_some(true), detail: unseen };
            }
            Ok((files, _)) => {
                let words: Vec<&str> = files.iter().map(|(_, words)| words.as_str()).collect();
                return Attempt::Refused { words: words.join("; "), files };
            }
            Err(Stop::Reload(why)) => return Attempt::NotApplicable(why),
            Err(Stop::Unusable(trouble)) => unusable.add(&worker, trouble),
        }
    }
    Attempt::NotApplicable(unusable.to_string())
}

/// Replaces in memory what can be, where HAProxy can't reload.
#[must_use]
pub fn update_what_can_be(
    system: &System,
    haproxy: &Haproxy,
    batch: &Batch<'_>,
    deadline: Instant,
) -> Partial {
    let mut partial = Partial::default();
    let mut jobs = Vec::new();
    for change in batch.changes {
        match Job::new(haproxy, batch, change) {
            Ok(job) => jobs.push(job),
            Err(why) => partial.left.push((change.target.clone(), why.to_string())),
        }
    }
    let mut obstacle = NoSocket::default().to_string();
    for worker in Worker::ways(haproxy) {
        if jobs.is_empty() {
            break;
        }
        match Update::new(system, haproxy, batch, worker, deadline).some(&jobs) {
            Ok(told) => {
                (partial.updated, partial.refused) = (told.updated, told.refused);
                partial.cause = told.left.first().map(|(target, why)| format!("{target}: {why}"));
                partial.left.extend(told.left);
                (partial.unseen, partial.differs) = (told.unseen, told.differs);
                return partial;
            }
            Err(Stop::Reload(why)) => obstacle = why,
            Err(Stop::Unusable(trouble)) => obstacle = trouble.to_string(),
        }
    }
    partial.left.extend(jobs.iter().map(|job| (job.target.clone(), obstacle.clone())));
    partial
}

/// Files that HAProxy refuses, each with its words.
type Refused = Vec<(Target, String)>;

/// What is said where a reload in flight would not be seen.
const BLIND: &str =
    "whether a reload is in flight can't be seen: neither master_socket nor the worker's process is in sight";

impl Update<'_> {
    /// All files or none, as far as can be known beforehand; the ones that HAProxy refuses, and what couldn't be seen.
    fn all(&self, jobs: &[Job<'_>]) -> Result<(Refused, Option<String>), Stop> {
        let (mut before, mut listing) = self.look(RELOAD_BEFORE)?;
        for _ in 0..ROUNDS {
            let sequence = self.decide(jobs, &listing, before)?;
            let round = self.round(jobs, &sequence).and_then(|refused| {
                let differs = || self.served_otherwise(&listing, before, &|_| false);
                let why = if refused.is_empty() { differs()? } else { None };
                why.map_or(Ok(refused), |why| Err(Stop::Reload(why)))
            });
            // A reload that was in flight may have read the disk before it changed.
            match self.settled(RELOAD_AFTER) {
                Ok(now) if now.answering.pid == before.answering.pid => {
                    let unseen = (!now.is_seen).then(|| BLIND.to_owned());
                    return round.map(|refused| (refused, unseen));
                }
                // Whatever became of HAProxy meanwhile: what it refused it refused.
                Err(_) if round.as_ref().is_ok_and(|refused| !refused.is_empty()) => {
                    return round.map(|refused| (refused, None));
                }
                now => now.map(drop)?,
            }
            (before, listing) = self.look(RELOAD_AFTER)?;
        }
        Err(Stop::Reload("HAProxy is reloaded again and again meanwhile".to_owned()))
    }

    /// The commands for the whole batch, where they make HAProxy answer as after a start.
    fn decide(&self, jobs: &[Job<'_>], listing: &Listing, worker: Settled) -> Result<Vec<Step>, Stop> {
        let memory = Memory::of(self.batch.serving, &listing.stores)
            .map_err(|why| Stop::Reload(format!("what HAProxy loads isn't known: {why}")))?;
        let files: Vec<File<'_>> = jobs.iter().map(Job::file).collect();
        let mut steps = Vec::with_capacity(jobs.len());
        for (place, (job, file)) in jobs.iter().zip(&files).enumerate() {
            let told = memory.told(place, file).and_then(|told| {
                match told.iter().find(|step| !is_plain(step.store())) {
                    Some(_) => Err(NotInMemory::NoPlainWord),
                    None => Ok(told),
                }
            });
            steps.extend(told.map_err(|why| Stop::Reload(format!("{}: {why}", job.target)))?);
        }
        let sequence = memory.sequence(steps, &files)?;
        for step in &sequence {
            if let Some(job) = step.file().and_then(|file| jobs.get(file))
                && let Some(why) = self.obstacle(step, Some(job.target), memory.store(step.store()), worker)
            {
                return Err(Stop::Reload(format!("{}: {why}", job.target)));
            }
        }
        if let Some(Step::Again { why, .. }) = sequence.iter().find(|step| step.file().is_none()) {
            return Err(Stop::Reload(why.clone()));
        }
        match self.difference(&memory, worker)? {
            None => Ok(sequence),
            Some(Difference::Seen(why) | Difference::Unseen(why)) => Err(Stop::Reload(why)),
        }
    }

    fn round(&self, jobs: &[Job<'_>], sequence: &[Step]) -> Result<Refused, Stop> {
        let mut refused: Vec<(Target, String)> = Vec::new();
        for step in sequence {
            let Step::Fill { store, file, how } = step else { continue };
            let Some(job) = jobs.get(*file) else { continue };
            match self.one(job, store, how) {
                Ok(()) => {}
                Err(Untaken::Refused(refusal)) => note_refusal(&mut refused, job, refusal),
                Err(Untaken::Stuck(refusal)) => {
                    note_refusal(&mut refused, job, refusal);
                    break;
                }
                Err(Untaken::NeedsReload(why)) => {
                    return Err(Stop::Reload(format!("{}: {why}", job.target)));
                }
                Err(Untaken::Unusable(trouble)) => return Err(Stop::Unusable(trouble)),
            }
        }
        Ok(refused)
    }

    /// As many files as can be, where a reload is impossible.
    fn some(&self, jobs: &[Job<'_>]) -> Result<Partial, Stop> {
        let mut partial = Partial::default();
        for _ in 0..ROUNDS {
            let (before, listing) = self.look(RELOAD_AFTER)?;
            partial = self.part(jobs, &listing, before)?;
            let now = self.settled(RELOAD_AFTER)?;
            if now.answering.pid == before.answering.pid {
                if !now.is_seen {
                    partial.unseen.get_or_insert_with(|| BLIND.to_owned());
                }
                return Ok(partial);
            }
        }
        partial.differs.get_or_insert_with(|| "HAProxy is reloaded again and again meanwhile".to_owned());
        Ok(partial)
    }

    fn part(&self, jobs: &[Job<'_>], listing: &Listing, worker: Settled) -> Result<Partial, Stop> {
        let mut partial = Partial::default();
        let files: Vec<File<'_>> = jobs.iter().map(Job::file).collect();
        let guess;
        let nothing = BTreeMap::new();
        let (memory, apart) = match Memory::of(self.batch.serving, &listing.stores) {
            Ok(memory) => (Some(memory), &nothing),
            Err(why) => {
                partial.unseen = Some(unknown(self.haproxy, why));
                // What is known of it is better than nothing.
                guess = Guess::of(&self.looking(listing, worker), &files);
                (Memory::of(&guess.serving, &listing.stores).ok(), &guess.apart)
            }
        };
        let is_known = partial.unseen.is_none();
        let mut told: Vec<Option<Vec<Step>>> = Vec::with_capacity(jobs.len());
        for (place, (job, file)) in jobs.iter().zip(&files).enumerate() {
            let is_there = listing.stores.contains(file.spelled);
            let steps = match &memory {
                Some(memory) if is_known || memory.loads(file.spelled) => {
                    memory.told(place, file).map_err(|why| why.to_string())
                }
                _ if is_there => Ok(vec![Step::put(place, None, file.spelled.to_owned())]),
                _ => Err("is new, and what HAProxy loads isn't known".to_owned()),
            };
            let steps = steps.and_then(|steps| {
                let of_it = |step: &Step| {
                    let on_disk = memory.as_ref().and_then(|memory| memory.store(step.store()));
                    let obstacle = self.obstacle(step, Some(job.target), on_disk, worker);
                    obstacle.or_else(|| apart.get(step.store()).cloned())
                };
                steps.iter().find_map(of_it).map_or(Ok(steps), Err)
            });
            told.push(steps.map_err(|why| partial.left.push((job.target.clone(), why))).ok());
        }
        let (sequence, losers) = match &memory {
            Some(memory) => {
                let place = (memory, apart, worker);
                self.with_losers(place, jobs, &files, &mut told, &mut partial.left)?
            }
            None => (told.into_iter().flatten().flatten().collect(), Vec::new()),
        };
        if !is_known {
            let out = leads_out(self.haproxy);
            partial.left.iter_mut().for_each(|(_, why)| *why = format!("{why}: {out}"));
        }
        let mut failed: BTreeSet<usize> = BTreeSet::new();
        let mut stuck = None;
        for step in &sequence {
            let done = match (step, &stuck) {
                (_, Some(why)) => Err(Untaken::NeedsReload(String::clone(why))),
                (Step::Fill { store, file, how }, None) => {
                    match jobs.get(*file).filter(|_| !failed.contains(file)) {
                        Some(job) => self.one(job, store, how),
                        None => continue,
                    }
                }
                (Step::Again { store, .. }, None) => {
                    match losers.iter().find(|loser| loser.store == *store) {
                        Some(loser) => self.commands.put(&loser.store, &loser.pem),
                        None => continue,
                    }
                }
            };
            let (why, is_refused) = match done {
                Ok(()) => continue,
                Err(Untaken::Unusable(trouble)) => return Err(Stop::Unusable(trouble)),
                Err(Untaken::NeedsReload(why)) => (why, false),
                Err(Untaken::Refused(refusal)) => (refusal.words, true),
                Err(Untaken::Stuck(refusal)) => {
                    let store = escaped(step.store());
                    stuck = Some(format!("the transaction of {store}, which HAProxy refuses, stays open"));
                    (refusal.words, true)
                }
            };
            if let Some((file, job)) = step.file().and_then(|file| Some((file, jobs.get(file)?))) {
                if failed.insert(file) {
                    partial.left.push((job.target.clone(), why.clone()));
                    partial.refused.extend(is_refused.then(|| (job.target.clone(), why)));
                }
            } else {
                let store = escaped(step.store());
                partial.differs = Some(format!("{store} could not be put behind the others again: {why}"));
            }
        }
        let is_left = |job: &&Job<'_>| partial.left.iter().all(|(target, _)| target != job.target);
        partial.updated = jobs.iter().filter(is_left).map(|job| job.target.clone()).collect();
        if let (Some(memory), None) = (&memory, &partial.differs) {
            match self.difference(memory, worker)? {
                Some(Difference::Seen(why)) => partial.differs = Some(why),
                Some(Difference::Unseen(why)) => drop(partial.unseen.get_or_insert(why)),
                None => {}
            }
        }
        if partial.differs.is_none() {
            let left: BTreeSet<&Target> = partial.left.iter().map(|(target, _)| target).collect();
            let left = |target: &Target| left.contains(target);
            partial.differs = self.served_otherwise(listing, worker, &left)?;
        }
        Ok(partial)
    }

    /// What is looked at where the configuration isn't known.
    fn looking<'l>(&'l self, listing: &'l Listing, worker: Settled) -> ShownOnly<'l> {
        ShownOnly {
            worker: self.commands.worker,
            version: worker.answering.version,
            haproxy: self.haproxy,
            batch: self.batch,
            stores: &listing.stores,
            deadline: self.commands.deadline,
        }
    }

    /// One store of a file: replaced or added, and seen. Also where HAProxy has it already: what is committed stands behind
    /// the others of its name, and only the whole sequence restores their order.
    fn one(&self, job: &Job<'_>, store: &str, how: &Filling) -> Result<(), Untaken> {
        let shown = match how {
            Filling::Add { .. } => None,
            Filling::Put { .. } => self.commands.store(store)?,
        };
        if shown.as_ref().is_some_and(|shown| shown.has_ocsp) {
            return Err(Untaken::NeedsReload(STAPLED.to_owned()));
        }
        match how {
            Filling::Add { list } => self.commands.add(list, store, &job.pem)?,
            Filling::Put { list } => {
                self.commands.put(store, &job.pem)?;
                // An earlier run may have died between two commands.
                if let (Some(list), Some(false)) =
                    (list, shown.map(|shown| shown.status == StoreStatus::Used))
                {
                    self.commands.serve(list, store)?;
                }
            }
        }
        agrees(Some(job.expected), self.commands.store(store)?.as_ref())
            .map_err(|how| Untaken::NeedsReload(how.to_string()))
    }
}

/// Keeps what HAProxy says of a file, once.
fn note_refusal(refused: &mut Refused, job: &Job<'_>, refusal: Unwanted) {
    if refused.iter().all(|(target, _)| target != job.target) {
        refused.push((job.target.clone(), refusal.words));
    }
}

/// What is said where it isn't known whether HAProxy answers as after a start, and what would tell.
fn unknown(haproxy: &Haproxy, why: Unsure<'_>) -> String {
    let name = escaped(&haproxy.name);
    let probe = if haproxy.probe.is_empty() { ", or probe to an address of it" } else { "" };
    format!(
        "HAProxy has it in memory, but what else it loads isn't known ({why}); set config of \"{name}\" to its \
         configuration files{probe}"
    )
}

/// What leads out where a file isn't updated because it isn't known what HAProxy loads.
fn leads_out(haproxy: &Haproxy) -> String {
    let name = escaped(&haproxy.name);
    format!(
        "reload HAProxy where it runs, once it has the file there, or set config of \"{name}\" to its configuration files"
    )
}
