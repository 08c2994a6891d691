//! Telling each HAProxy what changed, and seeing that it took it.

mod absent;
mod as_started;
pub mod check;
pub mod command;
pub mod identity;
pub mod master;
pub mod pidfile;
pub mod probe;
pub mod process;
pub mod replies;
pub mod runtime;
pub mod socket;
pub mod surroundings;
pub mod systemd;
mod watch;
pub mod words;
pub mod worker;

use std::fmt;
use std::io;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::config::{Haproxy, Method};
use crate::escape::escaped;
use crate::plan::{Role, Row};
use crate::world::World;

use self::probe::Probed;
use self::runtime::Shown;
use self::worker::{Answering, Worker};

/// How long a worker that surely read the disk after the change may go on showing something else: it doesn't load
/// the directory, or not as expected.
const CONTRADICTION_LIMIT: Duration = Duration::from_secs(5);

/// How long sockets that don't answer after a reload are tried again: a master that re-executes itself refuses
/// connections.
const BLINK_LIMIT: Duration = Duration::from_secs(2);

/// The same where nothing else shows the reload's effect: through 3.0 it takes as long as the configuration loads.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);

/// How often HAProxy is looked at until it shows the change.
const PAUSE: Duration = Duration::from_millis(50);

/// The ways that `auto` tries, the best one first.
const AUTO: [Method; 4] = [Method::Runtime, Method::Master, Method::Systemd, Method::Pidfile];

/// One file that a HAProxy is told about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Which file.
    pub target: Target,
    /// What the file holds now; `None`: it was pruned.
    pub now: Option<Expected>,
}

/// A file that HAProxy loads.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// This file of the sites directory.
    Site(String),
    /// The host certificate.
    Host,
}

/// What HAProxy must show for a file that it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// SHA-1 of the leaf's DER: what `show ssl cert` calls its fingerprint.
    pub sha1: [u8; 20],
    /// SHA-256 of the leaf's DER.
    pub sha256: [u8; 32],
    /// The leaf's serial number in upper-case hex: of an Ed25519 certificate HAProxy shows no more.
    pub serial: String,
    /// How many certificates follow the leaf.
    pub chain_len: usize,
    /// The key's kind, for probes: signature algorithms are limited to it.
    pub key_type: crate::certified_key::KeyType,
    /// The DNS names that this file wins: no file that sorts before it has them with the same kind of key.
    pub names_won: Vec<String>,
    /// Whether it can be added at run time without changing what a reload would serve: it doesn't sort first, it
    /// shares no name with another file, and its name needs no quoting.
    pub addable: bool,
    /// Whether HAProxy can be asked for it, see [`worker::can_be_shown`].
    pub can_be_shown: bool,
}

/// What a HAProxy is told about, all at once.
pub struct Batch<'a> {
    /// The files, each once.
    pub changes: &'a [Change],
    /// Reads what a file holds now.
    pub read: &'a dyn Fn(&Target) -> io::Result<Zeroizing<Vec<u8>>>,
    /// When the last file was renamed into place.
    pub committed: SystemTime,
}

/// How telling one HAProxy ended; the `outcome` of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Replaced or added in memory.
    Updated,
    /// It reloaded.
    Reloaded,
    /// It could not be told.
    Failed,
    /// It refused, and the previous files are back.
    RolledBack,
    /// There was nothing to tell.
    NotNeeded,
    /// There is evidence that it doesn't run.
    NotRunning,
    /// It isn't to be told.
    Skipped,
    /// Left to the next run on request.
    Deferred,
}

/// What came of telling one HAProxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The way that was used.
    pub method: Method,
    /// How it ended.
    pub outcome: Outcome,
    /// Whether it was seen to have taken it; `None` where there is no way to see.
    pub confirmed: Option<bool>,
    /// Facts for people, ASCII: why not a better way, what HAProxy said.
    pub detail: Option<String>,
    /// Files that it refused explicitly, with its words.
    pub rejected: Vec<(Target, String)>,
}

/// What came of trying one way to tell a HAProxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attempt {
    /// It was told, and what this way can see of the effect: `Some(true)` seen, `Some(false)` not seen in time,
    /// `None` no way to see.
    Told {
        /// Whether the effect was seen.
        seen: Option<bool>,
        /// What there is to add.
        detail: Option<String>,
    },
    /// This way doesn't apply here, or not to this batch, and nothing was changed: why.
    NotApplicable(String),
    /// There is evidence that this HAProxy doesn't run: which.
    NotRunning(String),
    /// HAProxy refused explicitly: its words, and those of our files that they name.
    Refused {
        /// HAProxy's own error lines.
        words: String,
        /// The files of the batch that are named, each with the line that names it.
        files: Vec<(Target, String)>,
    },
    /// It could not be told: why.
    Failed(String),
}

/// Tells one HAProxy about a batch, by the method that is configured for it, and sees whether it took it.
///
/// All of it ends within the `timeout` of this HAProxy; nothing here touches another one.
#[must_use]
pub fn tell(world: &World, haproxy: &Haproxy, batch: &Batch<'_>) -> Verdict {
    let telling = Telling { world, haproxy, batch, deadline: Instant::now() + haproxy.timeout };
    if batch.changes.is_empty() {
        return Verdict::of(haproxy.method, Outcome::NotNeeded);
    }
    match haproxy.method {
        Method::None => Verdict::of(Method::None, Outcome::Skipped),
        Method::Auto => telling.auto(),
        Method::Runtime | Method::Master | Method::Systemd | Method::Pidfile | Method::Command => {
            let before = telling.answering();
            let attempt = telling.attempt(haproxy.method);
            telling.verdict(haproxy.method, before, attempt)
        }
    }
}

/// One HAProxy being told about a batch.
struct Telling<'a> {
    world: &'a World,
    haproxy: &'a Haproxy,
    batch: &'a Batch<'a>,
    deadline: Instant,
}

impl Telling<'_> {
    /// The worker that answers on the best socket, if one does.
    fn answering(&self) -> Option<Answering> {
        Worker::ways(self.haproxy).iter().find_map(|worker| worker.answering(self.deadline).ok())
    }

    /// One way.
    fn attempt(&self, method: Method) -> Attempt {
        // What is left of the time, for the ways that take it from the settings.
        let left = self.deadline.saturating_duration_since(Instant::now());
        let hurried = || Haproxy { timeout: left, ..self.haproxy.clone() };
        if left.is_zero() {
            return Attempt::Failed("the time is up".to_owned());
        }
        match method {
            Method::Runtime => runtime::update(self.world, self.haproxy, self.batch, self.deadline),
            Method::Master => master::reload(self.world, self.haproxy, self.batch, self.deadline),
            Method::Systemd => systemd::reload(self.world, &hurried(), self.batch),
            Method::Pidfile => pidfile::reload(self.world, &hurried(), self.batch),
            Method::Command => command::run(self.world, &hurried()),
            Method::Auto | Method::None => Attempt::NotApplicable("is no way to tell it".to_owned()),
        }
    }

    /// The first way that applies; the detail says why the better ones didn't.
    fn auto(&self) -> Verdict {
        let before = self.answering();
        let mut passed_over = Vec::new();
        let mut evidence = None;
        for method in AUTO {
            match self.attempt(method) {
                Attempt::NotApplicable(why) => passed_over.push(format!("{}: {why}", method.name())),
                Attempt::NotRunning(why) => {
                    passed_over.push(format!("{}: {why}", method.name()));
                    evidence.get_or_insert((method, why));
                }
                attempt => return self.verdict(method, before, attempt).with(passed_over.join("; ")),
            }
        }
        match evidence {
            Some((method, why)) if before.is_some() => Verdict::of(method, Outcome::Failed)
                .with(format!("HAProxy answered at first, and has ended since: {why}")),
            Some((method, why)) if !self.somebody_listens() => {
                Verdict::of(method, Outcome::NotRunning).with(why)
            }
            _ => Verdict::of(Method::Auto, Outcome::Failed).with(format!(
                "found no way to tell HAProxy; set `reload` and what it needs for \"{}\" ({})",
                escaped(&self.haproxy.name),
                passed_over.join("; ")
            )),
        }
    }

    /// Whether a socket of this HAProxy accepts connections: then it runs, whatever its unit or pidfile says.
    fn somebody_listens(&self) -> bool {
        let sockets = self.haproxy.runtime_socket.iter().chain(&self.haproxy.master_socket);
        let soon = Instant::now() + CONTRADICTION_LIMIT;
        sockets.into_iter().any(|address| socket::listens(address, soon))
    }

    /// What an attempt comes to, once it is confirmed or made good as far as can be.
    fn verdict(&self, method: Method, before: Option<Answering>, attempt: Attempt) -> Verdict {
        match attempt {
            Attempt::Told { seen, detail } => {
                let outcome = if method == Method::Runtime { Outcome::Updated } else { Outcome::Reloaded };
                let (confirmed, why) = self.confirmed(method, before, seen);
                Verdict {
                    confirmed,
                    ..Verdict::of(method, outcome).with(detail.unwrap_or_default()).with(why)
                }
            }
            Attempt::NotRunning(why) => Verdict::of(method, Outcome::NotRunning).with(why),
            Attempt::NotApplicable(why) | Attempt::Failed(why) => {
                Verdict::of(method, Outcome::Failed).with(why)
            }
            Attempt::Refused { words, files } if files.is_empty() => {
                let made_good = self.replace_what_can_be();
                Verdict::of(method, Outcome::Failed)
                    .with(made_good)
                    .with(format!("HAProxy refuses its configuration for something that isn't ours: {words}"))
            }
            Attempt::Refused { words, files } => {
                Verdict { rejected: files, ..Verdict::of(method, Outcome::Failed) }
                    .with(format!("HAProxy refuses: {words}"))
            }
        }
    }

    /// Replaces in memory what can be while HAProxy can't reload, and says what.
    fn replace_what_can_be(&self) -> String {
        let partial = runtime::update_what_can_be(self.world, self.haproxy, self.batch, self.deadline);
        let (updated, all) = (partial.updated.len(), self.batch.changes.len());
        match partial.left.first() {
            None => "all of it is replaced in memory meanwhile".to_owned(),
            Some((target, why)) => {
                format!("{updated} of {all} files are replaced in memory meanwhile ({target}: {why})")
            }
        }
    }

    /// Whether HAProxy is seen to have what it was told, by the best way there is; why not.
    fn confirmed(
        &self,
        method: Method,
        before: Option<Answering>,
        seen: Option<bool>,
    ) -> (Option<bool>, String) {
        let (mut confirmed, mut why) = match method {
            // It looked already.
            Method::Runtime => (seen, String::new()),
            _ => match self.shown(before, seen) {
                Shown::All(_) => (Some(true), String::new()),
                Shown::Not(how, _) => (Some(false), how),
                Shown::Unseen(..) => (seen, String::new()),
            },
        };
        match probe::confirm(self.haproxy, self.batch, self.deadline) {
            Probed::Nothing => {}
            Probed::Right => confirmed = confirmed.or(Some(true)),
            Probed::Wrong(how) => {
                confirmed = Some(false);
                why = how;
            }
        }
        (confirmed, why)
    }

    /// Looks until the sockets show the whole batch, or surely never will: a reload returns before the new worker
    /// serves.
    fn shown(&self, before: Option<Answering>, seen: Option<bool>) -> Shown {
        // A worker that has read the disk after the change: uptimes, in whole seconds, seldom prove it.
        let is_new = |worker: Answering| {
            before.is_none_or(|before| before.pid != worker.pid) || worker.since > self.batch.committed
        };
        let (mut silent, mut contradicted, mut last_seen) = (None, None, None);
        loop {
            let shown = match runtime::shown(self.haproxy, self.batch, self.deadline) {
                // What a worker of before the change shows it may have by chance.
                Shown::All(worker) if is_new(worker) => return Shown::All(worker),
                Shown::All(worker) => {
                    Shown::Not("the worker is the one of before the reload".to_owned(), worker)
                }
                shown => shown,
            };
            if let Shown::Unseen(..) = shown {
                silent.get_or_insert_with(Instant::now);
            } else {
                silent = None;
                last_seen = Some(shown.clone());
            }
            let is_final = match &shown {
                Shown::Not(_, worker) => {
                    is_new(*worker)
                        && contradicted.get_or_insert_with(Instant::now).elapsed() > CONTRADICTION_LIMIT
                }
                Shown::Unseen(_, may_answer_later) => {
                    let limit = if seen.is_some() { BLINK_LIMIT } else { SILENCE_LIMIT };
                    !may_answer_later || silent.is_some_and(|since| since.elapsed() > limit)
                }
                Shown::All(_) => true,
            };
            if is_final {
                return shown;
            }
            if Instant::now() + PAUSE >= self.deadline {
                // The time ran out within a look: what was seen before it counts.
                return last_seen.unwrap_or(shown);
            }
            sleep(PAUSE);
        }
    }
}

impl Verdict {
    /// A verdict without more to say.
    #[must_use]
    pub fn of(method: Method, outcome: Outcome) -> Self {
        Self { method, outcome, confirmed: None, detail: None, rejected: Vec::new() }
    }

    /// With a fact more, where there is one.
    #[must_use]
    pub fn with(mut self, fact: impl Into<String>) -> Self {
        let fact = fact.into();
        self.detail = match self.detail.take() {
            detail if fact.is_empty() => detail,
            None => Some(fact),
            Some(detail) => Some(format!("{detail}; {fact}")),
        };
        self
    }
}

impl Target {
    /// The file that a row of a plan is about; `None`: it has none that HAProxy could be told of.
    #[must_use]
    pub fn of(row: &Row) -> Option<Self> {
        match row.role {
            Role::Site => Some(Self::Site(row.file.as_ref()?.to_str()?.to_owned())),
            Role::Host => Some(Self::Host),
        }
    }

    /// The file's whole name as this HAProxy's configuration spells it.
    #[must_use]
    pub fn spelled(&self, haproxy: &Haproxy) -> String {
        match self {
            Self::Site(file) => format!("{}/{file}", haproxy.sites_dir),
            Self::Host => haproxy.host_file.clone(),
        }
    }

    /// Whether the Runtime API is told about a file of this name; others are told by a reload.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
        match self {
            Self::Site(file) => file.bytes().all(is_plain),
            Self::Host => true,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Site(file) => escaped(file).fmt(f),
            Self::Host => f.write_str("the host certificate"),
        }
    }
}
