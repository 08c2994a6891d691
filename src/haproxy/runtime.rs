//! The Runtime API: certificates are replaced and added in memory, without a reload.
//!
//! HAProxy has one transaction for the whole process, whoever opened it: every reply is held against the file that we
//! meant, and what isn't surely ours is never committed (2.3 to 3.1 put our PEM under another file's name where
//! somebody else's transaction is open). Memory only: the disk is written first, a reload reads it again.

use std::thread::sleep;
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use crate::config::Haproxy;
use crate::escape::escaped;
use crate::failure::io_cause;
use crate::world::World;

use super::absent;
use super::master::{self, Unseen};
use super::replies::{self, CommitReply, Listing, SetReply, Status, Store, quoted};
use super::socket::{self, LONGEST_COMMAND, SocketError};
use super::worker::{Answering, PAUSE, Trouble, Worker, no_use, unexpected};
use super::{Attempt, Batch, Change, Expected, Target};

/// How long a transaction of somebody else's is waited for: other tools take milliseconds, a forgotten one stays.
const TRANSACTION_LIMIT: Duration = Duration::from_secs(2);

/// How often the whole batch is told again because the worker changed meanwhile.
const ROUNDS: usize = 4;

/// How long a reload that may be in flight is waited for before the first command: a socket that refuses connections
/// may be a dead one's.
const RELOAD_BEFORE: Duration = Duration::from_secs(2);

/// How long a reload that may be in flight is waited for after the last command.
const RELOAD_AFTER: Duration = Duration::from_secs(30);

/// How often a PEM is sent that is refused for its chain: a mismatched one, anybody's, leaves an error behind in a
/// thread of HAProxy 2.2, which then refuses whatever it reads next for its chain, and forgets the error by doing so.
const CHAIN_REFUSALS: usize = 4;

/// A file to be told.
struct Job<'a> {
    target: &'a Target,
    /// Its name as HAProxy spells it.
    file: String,
    expected: &'a Expected,
    pem: Zeroizing<Vec<u8>>,
}

/// Why a file wasn't taken.
enum Untaken {
    /// Not this way; a reload may do it.
    NeedsReload(String),
    /// HAProxy refused it: its words.
    Refused(String),
    /// The socket is of no use at all.
    Unusable(Trouble),
}

/// What could be replaced in memory, and what not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Partial {
    /// HAProxy has them now.
    pub updated: Vec<Target>,
    /// These not, and why.
    pub left: Vec<(Target, String)>,
}

/// What HAProxy shows of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// All of it.
    All(Answering),
    /// Not all: the first file that is missing, and how; with the worker that says so.
    Not(String, Answering),
    /// No socket answers: why; and whether one may do so later, as that of a master that loads its configuration.
    Unseen(String, bool),
}

/// Tells HAProxy a whole batch in memory, and sees that it took it; where one file needs a reload, nothing is sent.
#[must_use]
pub fn update(world: &World, haproxy: &Haproxy, batch: &Batch<'_>, deadline: Instant) -> Attempt {
    let mut jobs = Vec::with_capacity(batch.changes.len());
    for change in batch.changes {
        match Job::new(haproxy, batch, change) {
            Ok(job) => jobs.push(job),
            Err(why) => return Attempt::NotApplicable(format!("{}: {why}", change.target)),
        }
    }
    let mut unusable = Vec::new();
    for worker in Worker::ways(haproxy) {
        let telling = Telling { world, haproxy, batch, worker, deadline };
        match telling.all(&jobs) {
            Ok(refused) if refused.is_empty() => return Attempt::Told { seen: Some(true), detail: None },
            Ok(files) => {
                let words: Vec<&str> = files.iter().map(|(_, words)| words.as_str()).collect();
                return Attempt::Refused { words: words.join("; "), files };
            }
            Err(Stop::Reload(why)) => return Attempt::NotApplicable(why),
            Err(Stop::Unusable(trouble)) => unusable.push(format!("{}: {trouble}", worker.address())),
        }
    }
    Attempt::NotApplicable(no_use(&unusable))
}

/// Replaces in memory what can be, where HAProxy can't reload for a reason that isn't ours.
#[must_use]
pub fn update_what_can_be(world: &World, haproxy: &Haproxy, batch: &Batch<'_>, deadline: Instant) -> Partial {
    let mut partial = Partial::default();
    let mut jobs = Vec::new();
    for change in batch.changes {
        match Job::new(haproxy, batch, change) {
            Ok(job) => jobs.push(job),
            Err(why) => partial.left.push((change.target.clone(), why)),
        }
    }
    let mut obstacle = no_use(&[]);
    for worker in Worker::ways(haproxy) {
        let telling = Telling { world, haproxy, batch, worker, deadline };
        let (before, listing) = match telling.look(RELOAD_BEFORE) {
            Ok(looked) => looked,
            Err(Stop::Reload(why)) => {
                obstacle = why;
                continue;
            }
            Err(Stop::Unusable(trouble)) => {
                obstacle = trouble.to_string();
                continue;
            }
        };
        jobs.retain(|job| match telling.one(job, &listing, before) {
            Ok(()) => {
                partial.updated.push(job.target.clone());
                false
            }
            Err(Untaken::Unusable(trouble)) => {
                obstacle = trouble.to_string();
                true
            }
            Err(Untaken::NeedsReload(why) | Untaken::Refused(why)) => {
                partial.left.push((job.target.clone(), why));
                false
            }
        });
    }
    partial.left.extend(jobs.iter().map(|job| (job.target.clone(), obstacle.clone())));
    partial
}

/// Looks once at what HAProxy shows of a batch.
#[must_use]
pub fn shown(haproxy: &Haproxy, batch: &Batch<'_>, deadline: Instant) -> Shown {
    let mut unusable = Vec::new();
    let mut may_answer_later = false;
    for worker in Worker::ways(haproxy) {
        let looked = worker
            .answering(deadline)
            .and_then(|answering| Ok((answering, first_missing(&worker, haproxy, batch.changes, deadline)?)));
        match looked {
            Ok((answering, None)) => match batch.changes.iter().find(|change| !can_be_shown(change)) {
                Some(change) => {
                    return Shown::Unseen(
                        format!("{}: has too many names to be shown", change.target),
                        false,
                    );
                }
                None => return Shown::All(answering),
            },
            Ok((answering, Some(missing))) => return Shown::Not(missing, answering),
            Err(trouble) => {
                may_answer_later |=
                    !matches!(trouble, Trouble::Denied(_) | Trouble::Socket(SocketError::NotThere));
                unusable.push(format!("{}: {trouble}", worker.address()));
            }
        }
    }
    Shown::Unseen(no_use(&unusable), may_answer_later)
}

/// The first change that isn't as it must be, of those that can be asked for.
fn first_missing(
    worker: &Worker<'_>,
    haproxy: &Haproxy,
    changes: &[Change],
    deadline: Instant,
) -> Result<Option<String>, Trouble> {
    for change in changes.iter().filter(|change| can_be_shown(change)) {
        let store = worker.store(&change.target.spelled(haproxy), deadline)?;
        if let Err(how) = agrees(change.now.as_ref(), store.as_ref()) {
            return Ok(Some(format!("{}: {how}", change.target)));
        }
    }
    Ok(None)
}

/// Whether HAProxy can be asked for it; what was pruned it doesn't have.
fn can_be_shown(change: &Change) -> bool {
    change.now.as_ref().is_none_or(|now| now.can_be_shown)
}

/// Whether a store is what a file's contents must make of it.
fn agrees(expected: Option<&Expected>, store: Option<&Store>) -> Result<(), String> {
    match (expected, store) {
        (None, None) => Ok(()),
        (None, Some(_)) => Err("HAProxy still has it".to_owned()),
        (Some(_), None) => Err("HAProxy doesn't have it".to_owned()),
        (Some(expected), Some(store)) => {
            let is_same = match (store.sha1, &store.serial) {
                (Some(sha1), _) => sha1 == expected.sha1,
                (None, Some(serial)) => *serial == expected.serial,
                (None, None) => false,
            };
            let chain_len = store.sha1.map_or(expected.chain_len, |_| store.chain_len);
            if !is_same {
                Err("HAProxy has another certificate".to_owned())
            } else if store.status != Status::Used {
                Err("HAProxy has it and doesn't serve it".to_owned())
            } else if chain_len == expected.chain_len {
                Ok(())
            } else {
                let must = expected.chain_len;
                Err(format!("HAProxy has {chain_len} intermediate certificates with it instead of {must}"))
            }
        }
    }
}

/// Whether a file's name needs no quoting on HAProxy's command line.
fn is_plain(file: &str) -> bool {
    file.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._:/-+@,=%~".contains(&byte))
}

impl<'a> Job<'a> {
    /// Reads the file; what this way can't tell needs a reload.
    fn new(haproxy: &Haproxy, batch: &Batch<'_>, change: &'a Change) -> Result<Self, String> {
        let target = &change.target;
        let Some(expected) = &change.now else {
            return Err("is removed, which needs a reload".to_owned());
        };
        if !expected.can_be_shown {
            return Err("has too many names for HAProxy to show it".to_owned());
        }
        let file = target.spelled(haproxy);
        if !target.is_plain() || !is_plain(&file) {
            return Err("its name is no plain word".to_owned());
        }
        let pem = (batch.read)(target).map_err(|error| format!("cannot read it: {}", io_cause(&error)))?;
        // An empty line ends a payload: what follows would be lost.
        if pem.starts_with(b"\n") || pem.windows(2).any(|pair| pair == b"\n\n") || pem.contains(&0) {
            return Err("has an empty line".to_owned());
        }
        let job = Self { target, file, expected, pem };
        // With a few bytes for the prefix and the line ends.
        match job.set_line().len() + job.pem.len() + 10 {
            length if length > LONGEST_COMMAND => Err(SocketError::TooLong(length).to_string()),
            _ => Ok(job),
        }
    }

    fn set_line(&self) -> String {
        format!("set ssl cert {}", self.file)
    }
}

/// Why a batch can't be told this way.
enum Stop {
    /// A reload may do it.
    Reload(String),
    /// This socket is of no use; another one may be.
    Unusable(Trouble),
}

/// A batch being told to a worker.
struct Telling<'a> {
    world: &'a World,
    haproxy: &'a Haproxy,
    batch: &'a Batch<'a>,
    worker: Worker<'a>,
    deadline: Instant,
}

impl Telling<'_> {
    /// All files or none, as far as can be known beforehand; the ones that HAProxy refuses, with its words.
    fn all(&self, jobs: &[Job<'_>]) -> Result<Vec<(Target, String)>, Stop> {
        let (mut before, mut listing) = self.look(RELOAD_BEFORE)?;
        for _ in 0..ROUNDS {
            for job in jobs.iter().filter(|job| !listing.stores.contains(&job.file)) {
                addable(job).map_err(|why| Stop::Reload(format!("{}: {why}", job.target)))?;
            }
            let round = self.round(jobs, &listing, before);
            // A reload that was in flight may have read the disk before it changed.
            match self.settled(RELOAD_AFTER) {
                Ok(now) if now.pid == before.pid => return round,
                // Whatever became of HAProxy meanwhile: what it refused it refused.
                Err(_) if round.as_ref().is_ok_and(|refused| !refused.is_empty()) => return round,
                now => now.map(drop)?,
            }
            (before, listing) = self.look(RELOAD_AFTER)?;
        }
        Err(Stop::Reload("HAProxy is reloaded again and again meanwhile".to_owned()))
    }

    fn round(
        &self,
        jobs: &[Job<'_>],
        listing: &Listing,
        before: Answering,
    ) -> Result<Vec<(Target, String)>, Stop> {
        let mut refused = Vec::new();
        for job in jobs {
            match self.one(job, listing, before) {
                Ok(()) => {}
                Err(Untaken::Refused(words)) => {
                    let is_stuck = self.dies_of_an_abort(&words);
                    refused.push((job.target.clone(), words));
                    // The open transaction would take the next file's PEM.
                    if is_stuck {
                        break;
                    }
                }
                Err(Untaken::NeedsReload(why)) => {
                    return Err(Stop::Reload(format!("{}: {why}", job.target)));
                }
                Err(Untaken::Unusable(trouble)) => return Err(Stop::Unusable(trouble)),
            }
        }
        Ok(refused)
    }

    /// Who answers, and what it has, once no reload is in flight and no transaction is open.
    fn look(&self, limit: Duration) -> Result<(Answering, Listing), Stop> {
        let answering = self.settled(limit)?;
        let until = self.deadline.min(Instant::now() + TRANSACTION_LIMIT);
        loop {
            let listing = self.worker.listing(self.deadline).map_err(Stop::Unusable)?;
            match &listing.transaction {
                None => return Ok((answering, listing)),
                Some(file) if Instant::now() >= until => return Err(Stop::Reload(foreign(file))),
                Some(_) => sleep(PAUSE),
            }
        }
    }

    /// The worker that answers, once its master shows no younger one.
    fn settled(&self, limit: Duration) -> Result<Answering, Stop> {
        let until = self.deadline.min(Instant::now() + limit);
        loop {
            // In this order: an old worker that answers now was there before, so the master has shown it.
            let master = master::processes(self.haproxy.master_socket.as_ref(), self.deadline);
            let answering = self.worker.answering(self.deadline);
            let is_last = Instant::now() >= until;
            match (answering, master) {
                (Ok(answering), Ok(processes)) => {
                    let newest = processes.newest().is_none_or(|newest| newest.pid == answering.pid);
                    // Another HAProxy's master says nothing about this one.
                    if newest || !processes.has(answering.pid) || limit == RELOAD_BEFORE && is_last {
                        return Ok(answering);
                    }
                }
                // Through 3.0 the master accepts no connections while it loads.
                (answering, Err(Unseen::Socket(error))) if error.is_of_a_reload() && !is_last => {
                    let is_useless = answering.is_err() && !self.worker.is_through_master();
                    if is_useless || self.is_nobodys_socket(&error) {
                        return answering.map_err(Stop::Unusable);
                    }
                }
                (answering, _) => return answering.map_err(Stop::Unusable),
            }
            if is_last {
                return Err(Stop::Reload("somebody else's reload doesn't end".to_owned()));
            }
            sleep(PAUSE);
        }
    }

    /// Whether the master's socket refuses connections for good.
    fn is_nobodys_socket(&self, error: &SocketError) -> bool {
        let socket = self.haproxy.master_socket.as_ref();
        matches!(error, SocketError::Refused)
            && socket.is_some_and(|socket| absent::is_nobodys(self.world, socket))
    }

    /// One file: replaced or added, and seen.
    fn one(&self, job: &Job<'_>, listing: &Listing, worker: Answering) -> Result<(), Untaken> {
        let known = listing.stores.contains(&job.file);
        let store = if known { self.store(job)? } else { None };
        // A worker that started after the file was renamed into place has read it.
        let is_young = worker.since > self.batch.committed;
        if is_young && agrees(Some(job.expected), store.as_ref()).is_ok() {
            return Ok(());
        }
        match store {
            Some(store) if store.status == Status::Used => self.put(job)?,
            // An earlier run may have died between two commands.
            Some(_) => {
                let list = self.list_for(job)?;
                self.put(job)?;
                self.serve(job, &list)?;
            }
            None => {
                let list = self.list_for(job)?;
                self.create(job)?;
                if let Err(untaken) = self.put(job).and_then(|()| self.serve(job, &list)) {
                    self.tidy(&format!("del ssl cert {}", job.file));
                    return Err(untaken);
                }
            }
        }
        agrees(Some(job.expected), self.store(job)?.as_ref()).map_err(Untaken::NeedsReload)
    }

    /// `new ssl cert`.
    fn create(&self, job: &Job<'_>) -> Result<(), Untaken> {
        let reply = self.command(&format!("new ssl cert {}", job.file))?;
        let made = format!("New empty certificate store '{}'!", job.file);
        let there = format!("Certificate '{}' already exists!", job.file);
        if reply.contains(&made) || reply.contains(&there) {
            return Ok(());
        }
        Err(unexpected("new ssl cert", &reply).into())
    }

    /// `set ssl cert` and `commit ssl cert`: the contents of a store.
    fn put(&self, job: &Job<'_>) -> Result<(), Untaken> {
        for _ in 1..CHAIN_REFUSALS {
            match self.put_once(job) {
                Err(Untaken::Refused(words)) if words.contains("unable to load certificate chain") => {}
                put => return put,
            }
        }
        self.put_once(job)
    }

    fn put_once(&self, job: &Job<'_>) -> Result<(), Untaken> {
        self.set(job)?;
        let reply = self.command(&format!("commit ssl cert {}", job.file));
        let untaken = match reply.as_deref().map(replies::commit) {
            Ok(CommitReply::Success) => return Ok(()),
            Ok(CommitReply::Refused(words)) => Untaken::Refused(words),
            Ok(CommitReply::Unexpected) => {
                unexpected("commit ssl cert", reply.as_deref().unwrap_or_default()).into()
            }
            Err(_) => Untaken::NeedsReload("the certificate could not be committed".to_owned()),
        };
        // Some versions leave the transaction of a failed commit open.
        if !matches!(&untaken, Untaken::Refused(words) if self.dies_of_an_abort(words)) {
            self.abort(&job.file);
        }
        Err(untaken)
    }

    /// Whether an abort would end HAProxy: 2.2.9 frees twice what it had made of a certificate before its SSL context
    /// refused it. There the transaction stays open until a reload.
    fn dies_of_an_abort(&self, words: &str) -> bool {
        words.contains("SSL Context")
            && self.worker.answering(self.deadline).is_ok_and(|worker| worker.version < Some((2, 6)))
    }

    /// `set ssl cert`: opens a transaction that is ours and about this file, or leaves none.
    fn set(&self, job: &Job<'_>) -> Result<(), Untaken> {
        let until = self.deadline.min(Instant::now() + TRANSACTION_LIMIT);
        let command = socket::with_payload(&self.worker.line(&job.set_line()), &job.pem);
        loop {
            let reply = match self.worker.ask(&command, self.deadline) {
                Ok(reply) => reply,
                Err(trouble) => {
                    self.abort_if_open(&job.file, &trouble);
                    return Err(trouble.into());
                }
            };
            let holder = match replies::set(&reply) {
                SetReply::Created(file) if file == job.file => return Ok(()),
                // Our PEM went into a transaction that isn't ours. Committed, by us or by its owner, it would be
                // served under that name: the transaction has to go.
                SetReply::Created(file) | SetReply::Updated(file) => {
                    self.abort(&file);
                    file
                }
                SetReply::Held(file) => file,
                SetReply::Refused(words) => return Err(Untaken::Refused(words)),
                SetReply::Unknown => {
                    return Err(Untaken::NeedsReload("HAProxy doesn't have it any more".to_owned()));
                }
                SetReply::Unexpected => {
                    let trouble = unexpected("set ssl cert", &reply);
                    self.abort_if_open(&job.file, &trouble);
                    return Err(trouble.into());
                }
            };
            if Instant::now() >= until {
                return Err(Untaken::NeedsReload(foreign(&holder)));
            }
            sleep(PAUSE);
        }
    }

    /// The name of the directory as HAProxy lists it, where the file may be added to it.
    fn list_for(&self, job: &Job<'_>) -> Result<String, Untaken> {
        addable(job).map_err(Untaken::NeedsReload)?;
        let reply = self.command("show ssl crt-list")?;
        replies::crt_lists(&reply).into_iter().find(|list| *list == self.haproxy.sites_dir).ok_or_else(|| {
            Untaken::NeedsReload(format!(
                "HAProxy doesn't load a directory {}",
                escaped(&self.haproxy.sites_dir)
            ))
        })
    }

    /// `add ssl crt-list`: without it a new certificate is there and not served.
    fn serve(&self, job: &Job<'_>, list: &str) -> Result<(), Untaken> {
        let reply = self.command(&format!("add ssl crt-list {list} {}", job.file))?;
        if replies::is_added(&reply) || reply.contains("file already exists in this directory") {
            return Ok(());
        }
        Err(unexpected("add ssl crt-list", &reply).into())
    }

    fn store(&self, job: &Job<'_>) -> Result<Option<Store>, Untaken> {
        Ok(self.worker.store(&job.file, self.deadline)?)
    }

    fn command(&self, command: &str) -> Result<String, Untaken> {
        Ok(self.worker.command(command, self.deadline)?)
    }

    fn abort(&self, file: &str) {
        self.tidy(&format!("abort ssl cert {file}"));
    }

    /// After a `set` whose reply can't be relied on: the transaction may be there, and then it is on our file.
    fn abort_if_open(&self, file: &str, trouble: &Trouble) {
        let may_be = !matches!(trouble, Trouble::Denied(_) | Trouble::Socket(SocketError::NotThere));
        if may_be
            && self.worker.listing(self.deadline).is_ok_and(|now| now.transaction.as_deref() == Some(file))
        {
            self.abort(file);
        }
    }

    /// Puts something back after a failure, which is what gets reported: a transaction that stays open all the same
    /// shows at the next look.
    fn tidy(&self, command: &str) {
        let _ = self.worker.command(command, self.deadline.max(Instant::now() + Duration::from_secs(1)));
    }
}

/// Whether a new file may be added in memory, or why not.
fn addable(job: &Job<'_>) -> Result<(), String> {
    match job.target {
        Target::Host => Err("HAProxy doesn't have it, and it belongs to no directory".to_owned()),
        Target::Site(_) if job.expected.addable => Ok(()),
        Target::Site(_) => Err("is new, and sorts first or shares a name with another file".to_owned()),
    }
}

fn foreign(file: &str) -> String {
    format!("somebody else has a transaction open on {}", quoted(file))
}

impl From<Trouble> for Untaken {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Unexpected { .. } | Trouble::Locked => Self::NeedsReload(trouble.to_string()),
            Trouble::Socket(_) | Trouble::Denied(_) => Self::Unusable(trouble),
        }
    }
}
