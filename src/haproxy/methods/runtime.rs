//! The Runtime API: certificates are replaced and added in memory, without a reload.
//!
//! What may be sent so is decided in [`crate::haproxy::memory`]: what is in memory afterwards must be what HAProxy would load when it
//! starts. Memory only: the disk is written first, a reload reads it again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};
use std::{fs, io};

use zeroize::Zeroizing;

use super::guess::{Guess, ShownOnly};
use super::master::{self, Unseen};
use crate::certified_key::{CertifiedKey, Leaf, read_leaf};
use crate::config::Haproxy;
use crate::haproxy::attempt::Attempt;
use crate::haproxy::batch::{Batch, Change, Expected};
use crate::haproxy::cli::replies::{Listing, ShownStore, StoreStatus, Unwanted};
use crate::haproxy::cli::socket::{LONGEST_COMMAND, SocketError};
use crate::haproxy::cli::transaction::{Commands, TRANSACTION_LIMIT, Untaken, foreign, set_line};
use crate::haproxy::cli::worker::{
    self, Answering, LOADING, PAUSE, Trouble, WORKERS_LOAD_SINCE, Worker, is_plain, no_use,
};
use crate::haproxy::memory::{File, Memory, NotInMemory, Step};
use crate::haproxy::process::in_flight::{self, InFlight};
use crate::haproxy::process::stale_socket;
use crate::haproxy::target::Target;
use crate::serving::gather::identity;
use crate::serving::in_memory::{self, SHOWS_NAMES_SINCE};
use crate::serving::loads::{Contents, Identity, Named, Store};
use crate::sys::change_time::changed_at;
use crate::sys::escape::{escaped, escaped_path};
use crate::sys::failure::io_cause;
use crate::sys::system::System;

/// How often the whole batch is notified again because the worker changed meanwhile.
const ROUNDS: usize = 4;

/// How long a reload that may be in flight is waited for before the first command: a socket that refuses connections
/// may be a dead one's.
const RELOAD_BEFORE: Duration = Duration::from_secs(2);

/// How long a reload that may be in flight is waited for after the last command.
const RELOAD_AFTER: Duration = Duration::from_secs(30);

/// How long a master that holds signals back, and has no worker that loads, is waited for: for good after a failed
/// reload of 3.1 to 3.3.
const DEAF: Duration = Duration::from_secs(3);

/// How many files beside the batch HAProxy is asked for, and how many of ours are among them: the cost of an update mustn't
/// grow with what is there.
const ASKED_AT_MOST: usize = 1000;
const OURS_ASKED_AT_MOST: usize = 100;

/// A file to be notified.
struct Job<'a> {
    target: &'a Target,
    /// Its name as the settings spell it for this HAProxy.
    spelled: String,
    identity: Option<Identity>,
    expected: &'a Expected,
    /// `None`: HAProxy will refuse it.
    leaf: Option<Leaf>,
    pem: Zeroizing<Vec<u8>>,
}

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

/// What HAProxy shows of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoresShown {
    /// All of it.
    All(Answering),
    /// Not all: the first file that is missing, and how; with the worker that says so.
    Not(String, Answering),
    /// No socket answers: why; and whether one may do so later, as that of a master that loads its configuration.
    Unseen(String, bool),
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
    let mut unusable = Vec::new();
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
            Err(Stop::Unusable(trouble)) => unusable.push(format!("{}: {trouble}", worker.address())),
        }
    }
    Attempt::NotApplicable(no_use(&unusable))
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
    let mut obstacle = no_use(&[]);
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

/// Looks once at what HAProxy shows of a batch.
#[must_use]
pub fn shown(haproxy: &Haproxy, batch: &Batch<'_>, deadline: Instant) -> StoresShown {
    let mut unusable = Vec::new();
    let mut may_answer_later = false;
    for worker in Worker::ways(haproxy) {
        let looked = worker
            .answering(deadline)
            .and_then(|answering| Ok((answering, first_missing(&worker, haproxy, batch, deadline)?)));
        match looked {
            Ok((answering, None)) => match batch.changes.iter().find(|change| !can_be_shown(change)) {
                Some(change) => {
                    return StoresShown::Unseen(
                        format!("{}: has too many names to be shown", change.target),
                        false,
                    );
                }
                None => return StoresShown::All(answering),
            },
            Ok((answering, Some(missing))) => return StoresShown::Not(missing, answering),
            Err(trouble) => {
                may_answer_later |=
                    !matches!(trouble, Trouble::Denied(_) | Trouble::Socket(SocketError::NotThere));
                unusable.push(format!("{}: {trouble}", worker.address()));
            }
        }
    }
    StoresShown::Unseen(no_use(&unusable), may_answer_later)
}

/// Whether a HAProxy is seen to serve something else than after a start, although it has the same files.
#[must_use]
pub fn is_served_otherwise(haproxy: &Haproxy, batch: &Batch<'_>, deadline: Instant) -> bool {
    let look = |worker: &Worker<'_>| {
        let (answering, listing) = (worker.answering(deadline).ok()?, worker.listing(deadline).ok()?);
        let seen = (answering.version, &listing);
        served_otherwise(haproxy, batch, *worker, seen, &|_| false, deadline).ok()
    };
    Worker::ways(haproxy).iter().find_map(look).flatten().is_some()
}

/// What memory serves otherwise than a start would, although it has the same files: others change its lists, and the order
/// of its certificates. What is `left` out of this batch it has as it was.
fn served_otherwise(
    haproxy: &Haproxy,
    batch: &Batch<'_>,
    worker: Worker<'_>,
    (version, before): (Option<(u32, u32)>, &Listing),
    left: &dyn Fn(&Target) -> bool,
    deadline: Instant,
) -> Result<Option<String>, Trouble> {
    let serving = batch.serving;
    if serving.views().is_err() {
        return Ok(None);
    }
    let shown = worker.in_memory(version, &in_memory::lists(serving), deadline)?;
    let stores = |is_left: bool| -> BTreeSet<String> {
        let changes = batch.changes.iter().filter(|change| left(&change.target) == is_left);
        changes.flat_map(|change| batch.stores_of(haproxy, change)).collect()
    };
    let (told, untold) = (stores(false), stores(true));
    let is_as_on_disk =
        |store: &str| told.contains(store) || before.stores.contains(store) && !untold.contains(store);
    Ok(in_memory::difference(serving, &shown, &is_as_on_disk))
}

/// The first change that isn't as it must be, of those that can be asked for.
fn first_missing(
    worker: &Worker<'_>,
    haproxy: &Haproxy,
    batch: &Batch<'_>,
    deadline: Instant,
) -> Result<Option<String>, Trouble> {
    for change in batch.changes.iter().filter(|change| can_be_shown(change)) {
        // A start would not load it either.
        if change.now.is_some() && batch.is_left_out(haproxy, change) {
            continue;
        }
        for name in batch.stores_of(haproxy, change) {
            let store = worker.store(&name, deadline)?;
            if let Err(how) = agrees(change.now.as_ref(), store.as_ref()) {
                return Ok(Some(format!("{}: {how}", change.target)));
            }
        }
    }
    Ok(None)
}

/// Whether HAProxy can be asked for it; what was pruned it doesn't have.
fn can_be_shown(change: &Change) -> bool {
    change.now.as_ref().is_none_or(|now| now.can_be_shown)
}

/// Whether a store's leaf is this one: of an Ed25519 certificate only the serial number is shown.
fn is_of(store: &ShownStore, sha1: &[u8; 20], serial: &str) -> bool {
    match (&store.sha1, &store.serial) {
        (Some(shown), _) => shown == sha1,
        (None, Some(shown)) => shown == serial,
        (None, None) => false,
    }
}

/// How a store differs from what a file's contents must make of it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Differs {
    #[error("HAProxy still has it")]
    Still,
    #[error("HAProxy doesn't have it")]
    Missing,
    #[error("HAProxy has another certificate")]
    Another,
    #[error("HAProxy has it and doesn't serve it")]
    Unused,
    #[error("HAProxy has {is} intermediate certificates with it instead of {must}")]
    Chain { is: usize, must: usize },
}

/// Whether a store is what a file's contents must make of it.
fn agrees(expected: Option<&Expected>, store: Option<&ShownStore>) -> Result<(), Differs> {
    match (expected, store) {
        (None, None) => Ok(()),
        (None, Some(_)) => Err(Differs::Still),
        (Some(_), None) => Err(Differs::Missing),
        (Some(expected), Some(store)) => {
            let chain_len = store.sha1.map_or(expected.chain_len, |_| store.chain_len);
            if !is_of(store, &expected.sha1, &expected.serial) {
                Err(Differs::Another)
            } else if store.status != StoreStatus::Used {
                Err(Differs::Unused)
            } else if chain_len == expected.chain_len {
                Ok(())
            } else {
                Err(Differs::Chain { is: chain_len, must: expected.chain_len })
            }
        }
    }
}

/// Why a file can't be sent.
#[derive(Debug, thiserror::Error)]
enum Unsendable {
    #[error("is removed, which needs a reload")]
    Removed,
    #[error("has too many names for HAProxy to show it")]
    ManyNames,
    #[error("its name is no plain word")]
    NoPlainWord,
    #[error("cannot read it: {}", io_cause(.0))]
    Unread(io::Error),
    #[error("has an empty line")]
    EmptyLine,
    #[error("{}", SocketError::TooLong(*.0))]
    TooLong(usize),
}

impl<'a> Job<'a> {
    /// Reads the file; what this way can't send needs a reload.
    fn new(haproxy: &Haproxy, batch: &Batch<'_>, change: &'a Change) -> Result<Self, Unsendable> {
        let target = &change.target;
        let Some(expected) = &change.now else {
            return Err(Unsendable::Removed);
        };
        if !expected.can_be_shown {
            return Err(Unsendable::ManyNames);
        }
        let spelled = target.spelled(haproxy);
        if !target.is_plain() || !is_plain(&spelled) {
            return Err(Unsendable::NoPlainWord);
        }
        let pem = (batch.read)(target).map_err(Unsendable::Unread)?;
        can_be_sent(&spelled, &pem)?;
        let leaf = read_leaf(&pem).ok();
        Ok(Self { target, spelled, identity: batch.identity(target), expected, leaf, pem })
    }

    fn file(&self) -> File<'_> {
        let Self { spelled, identity, leaf, expected, .. } = self;
        File { spelled, identity: *identity, leaf: leaf.as_ref(), addable: expected.addable }
    }
}

/// Whether a PEM can be the payload of a command that every version survives.
fn can_be_sent(store: &str, pem: &[u8]) -> Result<(), Unsendable> {
    // An empty line ends a payload: what follows would be lost.
    if pem.starts_with(b"\n") || pem.windows(2).any(|pair| pair == b"\n\n") || pem.contains(&0) {
        return Err(Unsendable::EmptyLine);
    }
    // With a few bytes for the prefix and the line ends.
    match set_line(store).len() + pem.len() + 10 {
        length if length > LONGEST_COMMAND => Err(Unsendable::TooLong(length)),
        _ => Ok(()),
    }
}

/// Why a batch needs another way.
enum Stop {
    /// A reload may do it.
    Reload(String),
    /// This socket is of no use; another one may be.
    Unusable(Trouble),
}

impl From<NotInMemory> for Stop {
    fn from(why: NotInMemory) -> Self {
        Self::Reload(why.to_string())
    }
}

impl From<Trouble> for Stop {
    fn from(trouble: Trouble) -> Self {
        Self::Unusable(trouble)
    }
}

/// A batch being sent to a worker.
struct Update<'a> {
    system: &'a System,
    haproxy: &'a Haproxy,
    batch: &'a Batch<'a>,
    commands: Commands<'a>,
}

/// A worker that answers and that no reload is about to replace, as far as can be seen.
#[derive(Clone, Copy)]
struct Settled {
    answering: Answering,
    /// Whether it is seen that no reload is in flight.
    is_seen: bool,
    /// Whether one was, and has been waited for.
    is_fresh: bool,
}

impl Settled {
    /// Since when it may have read its files: through 3.0 its master has read them before the worker is there.
    fn read_since(&self, system: &System) -> SystemTime {
        let (started, version) = (self.answering.started(system), self.answering.version);
        let before = match version >= Some(WORKERS_LOAD_SINCE) {
            true => return started,
            false if self.is_fresh => Duration::MAX,
            false => LOADING,
        };
        let earliest = self.answering.master_started(system).unwrap_or(SystemTime::UNIX_EPOCH);
        started.checked_sub(before).map_or(earliest, |since| since.max(earliest))
    }

    /// Whether it mustn't be asked for what it has of a store: what has changed since it started may have had any number of
    /// names.
    fn may_die_of(&self, store: &Store, started: SystemTime) -> bool {
        worker::may_die_of_names(self.answering.version) && changed_since(store, started)
    }
}

/// How memory is otherwise than the disk, beside the batch.
enum Difference {
    /// It is.
    Seen(String),
    /// It may be: HAProxy can't be asked.
    Unseen(String),
}

/// Files that HAProxy refuses, each with its words.
type Refused = Vec<(Target, String)>;

/// What is said where a reload in flight would not be seen.
const BLIND: &str =
    "whether a reload is in flight can't be seen: neither master_socket nor the worker's process is in sight";

impl<'a> Update<'a> {
    fn new(
        system: &'a System,
        haproxy: &'a Haproxy,
        batch: &'a Batch<'a>,
        worker: Worker<'a>,
        deadline: Instant,
    ) -> Self {
        Self { system, haproxy, batch, commands: Commands { worker, deadline } }
    }

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

    /// Why a step must not be taken, for what HAProxy loads beside the certificate.
    fn obstacle(
        &self,
        step: &Step,
        target: Option<&Target>,
        on_disk: Option<&Store>,
        worker: Settled,
    ) -> Option<String> {
        // A commit drops it, or ends HAProxy, see `siblings`.
        if let Some(extra) = on_disk.and_then(|store| store.extra.as_ref()) {
            return Some(format!("HAProxy loads it with {}", escaped(extra)));
        }
        let ours = |store: &Store| {
            let ours = self.batch.ours.iter().find(|(_, identity)| Some(**identity) == store.identity)?;
            Some(self.batch.homes.path(ours.0))
        };
        let home = target.map(|target| self.batch.homes.path(target)).or_else(|| on_disk.and_then(ours));
        let paths: Vec<PathBuf> = home.into_iter().chain(on_disk.map(|store| store.path.clone())).collect();
        if paths.is_empty() {
            return Some("whether HAProxy loads something with it isn't known".to_owned());
        }
        // Of a new one memory has nothing.
        let loaded = (!matches!(step, Step::Add { .. })).then(|| worker.answering.started(self.system));
        paths.iter().find_map(|path| self.batch.homes.obstacle(path, loaded))
    }

    /// The first difference between memory and disk that this batch doesn't make up for.
    fn difference(&self, memory: &Memory<'_>, worker: Settled) -> Result<Option<Difference>, Stop> {
        let told = self.batch.stores(self.haproxy);
        if let Some(difference) = memory.difference(&told) {
            return Ok(Some(Difference::Seen(difference)));
        }
        if let Some(reader) = self.reader() {
            return Ok(Some(Difference::Seen(reader)));
        }
        let stores = self.batch.serving.stores.values().filter(|store| store.extra.is_none());
        let paths = stores.map(|store| store.path.as_path()).filter(|path| path.is_absolute());
        let started = worker.answering.started(self.system);
        let since = if worker.is_fresh { worker.read_since(self.system) } else { started };
        if let Some(change) = self.batch.homes.change(paths, (since, started)) {
            return Ok(Some(Difference::Seen(change)));
        }
        let extras =
            self.batch.serving.stores.values().filter_map(|store| store.extra.as_ref()?.split_once(' '));
        let mut extras = extras.map(|(_, file)| Path::new(file)).filter(|file| file.is_absolute());
        if let Some(file) = extras.find(|file| changed_at(file).is_none_or(|changed| changed >= since)) {
            let why = format!("{}: HAProxy may not have read it", escaped_path(file));
            return Ok(Some(Difference::Seen(why)));
        }
        self.others(memory, &told, worker)
    }

    /// The first certificate beside the batch that HAProxy has otherwise than the disk: others replace them in memory, with
    /// whatever names. Of ours, whose number is anything, only some are asked for: what this program gave it is known, and from
    /// 3.2 on their names tell, see [`served_otherwise`].
    fn others(
        &self,
        memory: &Memory<'_>,
        told: &BTreeSet<String>,
        worker: Settled,
    ) -> Result<Option<Difference>, Stop> {
        let ours: BTreeSet<Identity> = self.batch.ours.values().copied().collect();
        let is_ours = |store: &Store| store.identity.is_some_and(|identity| ours.contains(&identity));
        let shows_names = worker.answering.version >= Some(SHOWS_NAMES_SINCE);
        let (started, read_since) = (worker.answering.started(self.system), worker.read_since(self.system));
        let stores = self.batch.serving.stores.iter();
        let others = stores.filter(|(name, _)| !told.contains(*name) && memory.has(name));
        let (own, foreign): (Vec<_>, Vec<_>) = others.partition(|(_, store)| is_ours(store));
        let own = own.into_iter().take(OURS_ASKED_AT_MOST);
        for (asked, (name, store)) in foreign.into_iter().chain(own).enumerate() {
            let Contents::Pair(leaf) = &store.contents else { continue };
            // What is older than the worker it has read.
            let (is_ours, is_new) = (is_ours(store), changed_since(store, read_since));
            if is_ours && shows_names && !is_new {
                continue;
            }
            if worker.may_die_of(store, started) || !worker::can_be_shown(leaf) || asked >= ASKED_AT_MOST {
                let why = format!("{}: HAProxy isn't asked for it", escaped(name));
                match (is_ours, is_new) {
                    (true, _) => continue,
                    (false, true) => return Ok(Some(Difference::Seen(why))),
                    // Its names are seen with all others.
                    (false, false) if shows_names => continue,
                    (false, false) => return Ok(Some(Difference::Unseen(why))),
                }
            }
            let shown = self.commands.worker.store(name, self.commands.deadline)?;
            // Through 2.2 a bundle can't be asked for.
            let is_it = |shown: &ShownStore| is_of(shown, &leaf.sha1, &leaf.serial);
            if !shown.as_ref().map_or(!is_new, is_it) {
                let why = format!("{}: HAProxy has another certificate", escaped(name));
                return Ok(Some(Difference::Seen(why)));
            }
        }
        Ok(None)
    }

    /// See [`served_otherwise`].
    fn served_otherwise(
        &self,
        before: &Listing,
        worker: Settled,
        left: &dyn Fn(&Target) -> bool,
    ) -> Result<Option<String>, Stop> {
        let Self { haproxy, batch, commands, .. } = self;
        let version = worker.answering.version;
        Ok(served_otherwise(haproxy, batch, commands.worker, (version, before), left, commands.deadline)?)
    }

    /// What HAProxy reads a file of the batch for besides, and keeps as it was.
    fn reader(&self) -> Option<String> {
        let changed = self.batch.changes.iter().map(|change| self.batch.homes.path(&change.target));
        let changed: Vec<PathBuf> = changed.collect();
        let places = changed.iter().flat_map(|path| [Some(path.as_path()), path.parent()]).flatten();
        let places: BTreeSet<Identity> =
            places.collect::<BTreeSet<_>>().into_iter().filter_map(identity).collect();
        let is_read = |named: &&Named| named.identity.is_some_and(|it| places.contains(&it));
        let Named { path, at, .. } = self.batch.serving.readers.iter().find(is_read)?;
        Some(format!("HAProxy keeps what it has read from {} for {at}", escaped(path)))
    }

    fn round(&self, jobs: &[Job<'_>], sequence: &[Step]) -> Result<Refused, Stop> {
        let mut refused: Vec<(Target, String)> = Vec::new();
        for step in sequence {
            let Some(job) = step.file().and_then(|file| jobs.get(file)) else { continue };
            match self.one(job, step) {
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
                partial.unseen = Some(unknown(self.haproxy, &why));
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
                _ if is_there => {
                    Ok(vec![Step::Put { store: file.spelled.to_owned(), list: None, file: place }])
                }
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
            let done = match (step.file(), &stuck) {
                (_, Some(why)) => Err(Untaken::NeedsReload(String::clone(why))),
                (Some(file), None) => match jobs.get(file).filter(|_| !failed.contains(&file)) {
                    Some(job) => self.one(job, step),
                    None => continue,
                },
                (None, None) => match losers.iter().find(|loser| loser.store == step.store()) {
                    Some(loser) => self.commands.put(&loser.store, &loser.pem),
                    None => continue,
                },
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

    /// The steps for all files that can be sent, in order, and the certificates that must be committed again after them. A
    /// file is left out if one of these can't be, and so is a file that can't be sent without it.
    fn with_losers(
        &self,
        (memory, apart, worker): (&Memory<'_>, &BTreeMap<String, String>, Settled),
        jobs: &[Job<'_>],
        files: &[File<'_>],
        told: &mut [Option<Vec<Step>>],
        left: &mut Vec<(Target, String)>,
    ) -> Result<(Vec<Step>, Vec<Loser>), Stop> {
        let mut losers: Vec<Loser> = Vec::new();
        loop {
            let all: Vec<Step> = told.iter().flatten().flatten().cloned().collect();
            // Alone they may have an order where together they have none.
            let sequence = memory.sequence(all, files);
            let wanted: BTreeSet<&str> = sequence
                .iter()
                .flatten()
                .filter(|step| step.file().is_none())
                .map(Step::store)
                .filter(|store| losers.iter().all(|loser| loser.store != *store))
                .collect();
            let mut impossible: BTreeMap<String, NotAgain> = BTreeMap::new();
            for store in wanted {
                let loser = match apart.get(store) {
                    Some(why) => Err(NotAgain { store: store.to_owned(), how: format!("it {why}") }),
                    None => self.loser(store, memory.store(store), worker),
                };
                match loser {
                    Ok(loser) => losers.push(loser),
                    Err(how) => drop(impossible.insert(store.to_owned(), how)),
                }
            }
            let mut is_whole = true;
            for (steps, job) in told.iter_mut().zip(jobs) {
                let Some(of_it) = &*steps else { continue };
                let obstacle = match memory.sequence(of_it.clone(), files) {
                    Ok(alone) => alone.into_iter().find_map(|step| match step {
                        Step::Again { store, why } => Some(format!("{why}: {}", impossible.get(&store)?)),
                        Step::Put { .. } | Step::Add { .. } => None,
                    }),
                    Err(why) => Some(why.to_string()),
                };
                if let Some(why) = obstacle {
                    is_whole = false;
                    *steps = None;
                    left.push((job.target.clone(), why));
                }
            }
            if is_whole {
                return Ok((sequence?, losers));
            }
        }
    }

    /// What a store has that is to be committed again, where the disk has the same.
    fn loser(&self, store: &str, on_disk: Option<&Store>, worker: Settled) -> Result<Loser, NotAgain> {
        let cannot = |how: &str| NotAgain { store: store.to_owned(), how: how.to_owned() };
        let again = Step::Again { store: store.to_owned(), why: String::new() };
        if let Some(why) = self.obstacle(&again, None, on_disk, worker) {
            return Err(cannot(&why));
        }
        let on_disk = on_disk.ok_or_else(|| cannot("it isn't known"))?;
        let pem = Zeroizing::new(fs::read(&on_disk.path).map_err(|error| cannot(&io_cause(&error)))?);
        if pem.windows(DH.len()).any(|part| part == DH) {
            return Err(cannot("it has parameters of its own"));
        }
        let proved = CertifiedKey::prove(&pem, &pem).map_err(|unproved| cannot(&unproved.detail))?;
        let pem = Zeroizing::new(proved.combined_pem().as_bytes().to_vec());
        can_be_sent(store, &pem).map_err(|how| cannot(&how.to_string()))?;
        let leaf = proved.leaf();
        let is_ours = || self.batch.ours.values().any(|identity| Some(*identity) == on_disk.identity);
        let is_dangerous = worker.may_die_of(on_disk, worker.answering.started(self.system)) && !is_ours();
        if is_dangerous || !is_plain(store) || !worker::can_be_shown(leaf) {
            return Err(cannot("HAProxy can't be asked for it"));
        }
        match self.commands.worker.store(store, self.commands.deadline) {
            Ok(Some(shown)) if shown.has_ocsp => Err(cannot(STAPLED)),
            Ok(Some(shown))
                if is_of(&shown, &leaf.sha1, &leaf.serial) && shown.chain_len == proved.chain().len() =>
            {
                Ok(Loser { store: store.to_owned(), pem })
            }
            Ok(_) => Err(cannot("HAProxy has something else than the disk")),
            Err(trouble) => Err(cannot(&trouble.to_string())),
        }
    }

    /// Who answers, and what it has, once no reload is in flight and no transaction is open.
    fn look(&self, limit: Duration) -> Result<(Settled, Listing), Stop> {
        let settled = self.settled(limit)?;
        let until = self.commands.deadline.min(Instant::now() + TRANSACTION_LIMIT);
        loop {
            let listing = self.commands.worker.listing(self.commands.deadline)?;
            match &listing.transaction {
                None => return Ok((settled, listing)),
                Some(file) if Instant::now() >= until => return Err(Stop::Reload(foreign(file))),
                Some(_) => sleep(PAUSE),
            }
        }
    }

    /// The worker that answers, once its master shows no younger one.
    fn settled(&self, limit: Duration) -> Result<Settled, Stop> {
        let Commands { worker, deadline } = self.commands;
        let begin = Instant::now();
        let until = deadline.min(begin + limit);
        // What is seen loading is waited for longer than what only might be.
        let patient = until.max(begin + deadline.saturating_duration_since(begin) / 2);
        let mut is_fresh = false;
        loop {
            // In this order: an old worker that answers now was there before, so the master has shown it.
            let master = master::processes(self.haproxy.master_socket.as_ref(), deadline);
            let answering = worker.answering(deadline);
            let is_last = Instant::now() >= until;
            match (answering, master) {
                (Ok(answering), Ok(processes)) if processes.has(answering.pid) => {
                    let newest = processes.newest().is_none_or(|newest| newest.pid == answering.pid);
                    if newest || limit == RELOAD_BEFORE && is_last {
                        return Ok(Settled { answering, is_seen: true, is_fresh });
                    }
                }
                // Through 3.0 the master accepts no connections while it loads.
                (answering, Err(Unseen::Socket(error))) if error.is_of_a_reload() && !is_last => {
                    let is_useless = answering.is_err() && !worker.is_through_master();
                    if is_useless || self.is_nobodys_socket(&error) {
                        match answering {
                            Ok(answering) => {
                                if let Some(settled) = self.by_processes(answering, begin, limit) {
                                    return Ok(Settled { is_fresh, ..settled });
                                }
                            }
                            Err(trouble) => return Err(trouble.into()),
                        }
                    }
                }
                // No master's word, or that of another HAProxy's, which says nothing about this one.
                (Ok(answering), _) => match self.by_processes(answering, begin, limit) {
                    Some(settled) => return Ok(Settled { is_fresh, ..settled }),
                    None if Instant::now() >= patient => {}
                    None => {
                        is_fresh = true;
                        sleep(PAUSE);
                        continue;
                    }
                },
                (Err(trouble), _) => return Err(trouble.into()),
            }
            if is_last {
                return Err(Stop::Reload("somebody else's reload doesn't end".to_owned()));
            }
            is_fresh = true;
            sleep(PAUSE);
        }
    }

    /// The same where no master answers for it: by what is seen of its processes. `None`: a reload is in flight.
    fn by_processes(&self, answering: Answering, begin: Instant, limit: Duration) -> Option<Settled> {
        let settled = |is_seen| Some(Settled { answering, is_seen, is_fresh: false });
        match in_flight::look(self.system, &answering) {
            InFlight::Nothing => settled(true),
            // A worker that answered and has ended since is no longer in sight either.
            InFlight::Unseen => {
                let Commands { worker, deadline } = self.commands;
                let is_another = |again: Answering| again.pid != answering.pid;
                if worker.answering(deadline).is_ok_and(is_another) { None } else { settled(false) }
            }
            InFlight::Perhaps if begin.elapsed() >= DEAF => settled(true),
            // It is looked at once more after the last command.
            InFlight::Reload | InFlight::Perhaps if limit == RELOAD_BEFORE && begin.elapsed() >= limit => {
                settled(true)
            }
            InFlight::Reload | InFlight::Perhaps => None,
        }
    }

    /// Whether the master's socket refuses connections for good.
    fn is_nobodys_socket(&self, error: &SocketError) -> bool {
        let socket = self.haproxy.master_socket.as_ref();
        matches!(error, SocketError::Refused)
            && socket.is_some_and(|socket| stale_socket::is_nobodys(self.system, socket))
    }

    /// One store of a file: replaced or added, and seen. Also where HAProxy has it already: what is committed stands behind
    /// the others of its name, and only the whole sequence restores their order.
    fn one(&self, job: &Job<'_>, step: &Step) -> Result<(), Untaken> {
        let store = step.store();
        let shown = match step {
            Step::Add { .. } => None,
            _ => self.commands.store(store)?,
        };
        if shown.as_ref().is_some_and(|shown| shown.has_ocsp) {
            return Err(Untaken::NeedsReload(STAPLED.to_owned()));
        }
        match step {
            Step::Add { list, .. } => self.commands.add(list, store, &job.pem)?,
            Step::Put { list, .. } => {
                self.commands.put(store, &job.pem)?;
                // An earlier run may have died between two commands.
                if let (Some(list), Some(false)) =
                    (list, shown.map(|shown| shown.status == StoreStatus::Used))
                {
                    self.commands.serve(list, store)?;
                }
            }
            Step::Again { .. } => self.commands.put(store, &job.pem)?,
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

/// Why a certificate can't be committed again.
#[derive(Debug, thiserror::Error)]
#[error("{} can't be committed again: {how}", escaped(.store))]
struct NotAgain {
    store: String,
    how: String,
}

/// A certificate that is committed again.
struct Loser {
    store: String,
    pem: Zeroizing<Vec<u8>>,
}

/// What is said of a certificate that has a stapled OCSP response, from whatever file.
const STAPLED: &str = "HAProxy staples an OCSP response to it, which a commit would drop";

/// What is said where it isn't known whether HAProxy answers as after a start, and what would tell.
fn unknown(haproxy: &Haproxy, why: &str) -> String {
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

/// What a PEM must not have that is made anew from its key and certificates.
const DH: &[u8] = b"-----BEGIN DH PARAMETERS";

/// Whether a store's file is one that a worker may not have read as it is that started then.
fn changed_since(store: &Store, since: SystemTime) -> bool {
    changed_at(&store.path).is_none_or(|changed| changed >= since)
}
