//! Telling each HAProxy what changed, and seeing that it took it.

pub mod alerts;
pub mod cli;
pub mod fingerprint;
pub mod memory;
pub mod methods;
pub mod process;
pub mod staged_check;
pub mod tls_probe;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::config::{Haproxy, Method};
use crate::plan::{Role, Row};
use crate::serving::{Identity, Serving};
use crate::sys::escape::escaped;
use crate::sys::system::System;

use cli::worker::Answering;
use cli::worker::Worker;
use methods::runtime::Partial;
use methods::runtime::Shown;
use tls_probe::Probed;

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

/// How often a HAProxy that starts is looked for.
const AGAIN: Duration = Duration::from_millis(200);

/// How long a HAProxy that is there gets to write its pidfile and open its sockets.
const GRACE: Duration = Duration::from_secs(3);

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
    /// Whether HAProxy can be asked for it, see [`cli::worker::can_be_shown`].
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
    /// What this HAProxy would load if it started now.
    pub serving: &'a Serving,
    /// All our files, and which ones they are.
    pub ours: &'a BTreeMap<Target, Identity>,
}

impl Batch<'_> {
    /// Which file it is, where it is there.
    fn identity(&self, target: &Target) -> Option<Identity> {
        self.ours.get(target).copied()
    }

    /// The stores that a change is about, as HAProxy spells them: it may load one file under several names.
    fn stores_of(&self, haproxy: &Haproxy, change: &Change) -> Vec<String> {
        let spelled = change.target.spelled(haproxy);
        let identity = change.now.as_ref().and_then(|_| self.identity(&change.target));
        let known = memory::stores_of(self.serving, &spelled, identity).unwrap_or_default();
        if known.is_empty() { vec![spelled] } else { known }
    }

    /// Those of all changes.
    fn stores(&self, haproxy: &Haproxy) -> BTreeSet<String> {
        self.changes.iter().flat_map(|change| self.stores_of(haproxy, change)).collect()
    }
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
    /// Facts for people, ASCII: the cause first, in HAProxy's words where it said something, then what to do.
    pub detail: Option<String>,
    /// The better ways that didn't apply, each with why, ASCII.
    pub passed_over: Vec<String>,
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
pub fn tell(system: &System, haproxy: &Haproxy, batch: &Batch<'_>) -> Verdict {
    let telling = Telling { system, haproxy, batch, deadline: Instant::now() + haproxy.timeout };
    if batch.changes.is_empty() {
        return Verdict::of(haproxy.method, Outcome::NotNeeded);
    }
    match haproxy.method {
        Method::None => Verdict::of(Method::None, Outcome::Skipped),
        Method::Auto => telling.by(&AUTO),
        method => telling.by(&[method]),
    }
}

/// Who there is, where no way leads to a HAProxy.
enum Somebody {
    /// No process in sight may be it, and no socket of its accepts connections.
    Nobody,
    /// One that may be it is still starting.
    Coming,
    /// One may be it: which, and why.
    There(String),
    /// The processes can't be seen: why.
    Unseen(String),
}

/// One HAProxy being told about a batch.
struct Telling<'a> {
    system: &'a System,
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
            Method::Runtime => methods::runtime::update(self.system, self.haproxy, self.batch, self.deadline),
            Method::Master => methods::master::reload(self.system, self.haproxy, self.batch, self.deadline),
            Method::Systemd => methods::systemd::reload(self.system, &hurried(), self.batch),
            Method::Pidfile => methods::pidfile::reload(self.system, &hurried(), self.batch),
            Method::Command => methods::command::run(self.system, &hurried()),
            Method::Auto | Method::None => Attempt::NotApplicable("is no way to tell it".to_owned()),
        }
    }

    /// By the first of these ways that applies.
    fn by(&self, methods: &[Method]) -> Verdict {
        let before = self.answering();
        let verdict = self.by_the_first_of(methods, before);
        let is_nothing_left = || before.is_some_and(|worker| self.has_read_it(worker));
        if verdict.outcome == Outcome::Failed && verdict.rejected.is_empty() && is_nothing_left() {
            return Verdict::of(verdict.method, Outcome::NotNeeded)
                .with("it has started since the change, and has it");
        }
        verdict
    }

    fn by_the_first_of(&self, methods: &[Method], before: Option<Answering>) -> Verdict {
        let begin = Instant::now();
        loop {
            let mut passed_over = Vec::new();
            let mut evidence = None;
            // What memory didn't do well: a reload may do better.
            let mut in_memory = None;
            for &method in methods {
                let pass = |why: &str| format!("{}: {why}", method.name());
                match self.attempt(method) {
                    Attempt::NotApplicable(why) => passed_over.push(pass(&why)),
                    Attempt::NotRunning(why) => {
                        passed_over.push(pass(&why));
                        evidence.get_or_insert((method, why));
                    }
                    attempt if methods.len() > 1 && self.may_take_it_now(method, before, &attempt) => {
                        passed_over.push(pass("refuses it, but the configuration is newer than its worker"));
                        in_memory = Some(self.verdict(method, before, attempt));
                    }
                    attempt => {
                        let verdict = self.verdict(method, before, attempt);
                        let is_served = method != Method::Runtime || verdict.confirmed != Some(false);
                        if !is_served && methods.len() > 1 {
                            passed_over.push(pass(verdict.detail.as_deref().unwrap_or("it isn't served")));
                            in_memory = Some(verdict);
                            continue;
                        }
                        // A refusal by name says more than a reload that failed without one.
                        let names_none = verdict.outcome == Outcome::Failed && verdict.rejected.is_empty();
                        let by_name = in_memory.filter(|refused| names_none && !refused.rejected.is_empty());
                        return by_name.unwrap_or(verdict).passing_over(passed_over);
                    }
                }
            }
            if let Some(verdict) = in_memory {
                return verdict.passing_over(passed_over);
            }
            let may_come = evidence.is_some() || before.is_none();
            match self.somebody() {
                Somebody::Coming if may_come && Instant::now() + AGAIN < self.deadline => sleep(AGAIN),
                Somebody::There(_) if evidence.is_some() && begin.elapsed() < GRACE => sleep(AGAIN),
                somebody => return self.untold(methods, evidence, &somebody, before, &passed_over),
            }
        }
    }

    /// Whether this worker read the disk after the last change, and shows all of the batch.
    fn has_read_it(&self, worker: Answering) -> bool {
        // Its uptime has whole seconds; procfs knows better, where this process is the worker.
        let started = process::master::Proc::new(self.system).started_at(worker.pid);
        let started = started.filter(|at| (worker.since..=worker.until).contains(at)).unwrap_or(worker.since);
        let is_young = |it: Answering| it.pid == worker.pid && started > self.batch.committed;
        is_young(worker)
            && matches!(methods::runtime::shown(self.haproxy, self.batch, self.deadline), Shown::All(it) if is_young(it))
    }

    /// What it means that no way applies.
    fn untold(
        &self,
        methods: &[Method],
        evidence: Option<(Method, String)>,
        somebody: &Somebody,
        before: Option<Answering>,
        passed_over: &[String],
    ) -> Verdict {
        let Some((method, why)) = evidence else {
            let name = escaped(&self.haproxy.name);
            if let [method] = methods {
                let why = passed_over.concat();
                let why = why.split_once(": ").map_or(why.as_str(), |(_, why)| why);
                return self.without_reload(*method, before, why.to_owned());
            }
            let passed_over = passed_over.join("; ");
            let why = format!(
                "found no way to tell HAProxy; set `reload` and what it needs for \"{name}\" ({passed_over})"
            );
            return self.without_reload(Method::Auto, before, why);
        };
        let failed = |fact: String| Verdict::of(method, Outcome::Failed).with(fact);
        match somebody {
            Somebody::Nobody if before.is_some() => {
                failed(format!("HAProxy answered at first, and has ended since: {why}"))
            }
            Somebody::Nobody => Verdict::of(method, Outcome::NotRunning).with(why),
            Somebody::Coming => {
                failed(format!("{why}, and a HAProxy is still starting; the next run tells it"))
            }
            Somebody::There(who) => {
                let why = format!("{why}, but {who}; set unit, pidfile or master_socket to its own");
                self.without_reload(method, before, why)
            }
            Somebody::Unseen(how) => failed(format!("{why}, but {how}; set reload")),
        }
    }

    /// Whether a reload may take what memory has refused: a worker judges by what it read when it started.
    fn may_take_it_now(&self, method: Method, before: Option<Answering>, attempt: &Attempt) -> bool {
        let Attempt::Refused { files, .. } = attempt else { return false };
        let since = before.filter(|_| method == Method::Runtime && !files.is_empty()).map(|it| it.since);
        since.is_some_and(|since| process::config_check::is_newer(self.system, self.haproxy, since))
    }

    /// Who there is that may be this HAProxy, whatever its unit or pidfile says.
    fn somebody(&self) -> Somebody {
        let sockets = self.haproxy.runtime_socket.iter().chain(&self.haproxy.master_socket);
        let soon = Instant::now() + CONTRADICTION_LIMIT;
        for address in sockets {
            if cli::socket::listens(address, soon) {
                return Somebody::There(format!("{address} accepts connections"));
            }
        }
        let processes = match process::sight::in_sight(self.system, self.haproxy) {
            Ok(processes) => processes,
            Err(how) => return Somebody::Unseen(how),
        };
        let is_coming = |process: &process::sight::Process| {
            process.is_between
                || match process::master::Master::open(self.system, process.pid) {
                    // It holds signals back while it loads.
                    Ok(master) => !master.is_ready(),
                    Err(why) => matches!(why, process::master::NotAMaster::Starting(_)),
                }
        };
        match processes.first() {
            None => Somebody::Nobody,
            Some(_) if processes.iter().any(is_coming) => Somebody::Coming,
            Some(process) => {
                Somebody::There(format!("the HAProxy of process {} {}", process.pid, process.why))
            }
        }
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
            // [`Self::by`] passes over it.
            Attempt::NotRunning(why) => Verdict::of(method, Outcome::Failed).with(why),
            Attempt::NotApplicable(why) | Attempt::Failed(why) => self.without_reload(method, before, why),
            Attempt::Refused { words, files } if files.is_empty() => {
                let partial = self.replace_what_can_be();
                let files = process::config_check::configuration(self.system, self.haproxy);
                Verdict::of(method, Outcome::Failed)
                    .with(alerts::cause(&words))
                    .with(alerts::advice(&words, &files))
                    .with(self.said(&partial))
            }
            Attempt::Refused { words, files } => {
                Verdict { rejected: files, ..Verdict::of(method, Outcome::Failed) }
                    .with(alerts::cause(&words))
            }
        }
    }

    /// What HAProxy can be told without a reload, which isn't possible: `why`.
    fn without_reload(&self, method: Method, before: Option<Answering>, why: String) -> Verdict {
        let partial = self.replace_what_can_be();
        if partial.updated.is_empty() {
            return Verdict::of(method, Outcome::Failed).with(why);
        }
        if !partial.left.is_empty() {
            return Verdict::of(method, Outcome::Failed).with(why).with(self.said(&partial));
        }
        if let Some(differs) = &partial.differs {
            let verdict = Verdict::of(Method::Runtime, Outcome::Updated).with(differs.as_str()).with(why);
            return Verdict { confirmed: Some(false), ..verdict };
        }
        let seen = partial.unseen.is_none().then_some(true);
        let told = Attempt::Told { seen, detail: partial.unseen };
        self.verdict(Method::Runtime, before, told).with(why)
    }

    /// Replaces in memory what can be while HAProxy can't reload.
    fn replace_what_can_be(&self) -> Partial {
        methods::runtime::update_what_can_be(self.system, self.haproxy, self.batch, self.deadline)
    }

    /// What is said of that.
    fn said(&self, partial: &Partial) -> String {
        let (updated, all) = (partial.updated.len(), self.batch.changes.len());
        match (partial.left.first(), &partial.differs) {
            (None, None) => "all of it is replaced in memory meanwhile".to_owned(),
            (None, Some(differs)) => format!("all of it is replaced in memory meanwhile, but {differs}"),
            (Some((target, why)), _) => {
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
        // In memory it is at once.
        let deadline = match method {
            Method::Runtime => self.deadline.min(Instant::now() + CONTRADICTION_LIMIT),
            _ => self.deadline,
        };
        match tls_probe::confirm(self.haproxy, self.batch, deadline) {
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
            let shown = match methods::runtime::shown(self.haproxy, self.batch, self.deadline) {
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

/// Why a master isn't the one of the worker that answers at `runtime_socket`, where it surely isn't: the default places
/// are those of the host's HAProxy, and this one may live in a container. `knows`: whether the master has this worker.
fn is_another_ones(
    haproxy: &Haproxy,
    deadline: Instant,
    knows: impl Fn(u32) -> Option<bool>,
) -> Option<String> {
    let worker = Worker::ways(haproxy).into_iter().find(|worker| !worker.is_through_master())?;
    let begin = Instant::now();
    loop {
        let answering = worker.answering(deadline).ok()?;
        if knows(answering.pid)? {
            return None;
        }
        // In the middle of a reload either may be ahead.
        if begin.elapsed() > BLINK_LIMIT || Instant::now() + PAUSE >= deadline {
            return Some(format!("belongs to another HAProxy than runtime_socket {}", worker.address()));
        }
        sleep(PAUSE);
    }
}

impl Verdict {
    /// A verdict without more to say.
    #[must_use]
    pub fn of(method: Method, outcome: Outcome) -> Self {
        Self { method, outcome, confirmed: None, detail: None, passed_over: Vec::new(), rejected: Vec::new() }
    }

    fn passing_over(self, passed_over: Vec<String>) -> Self {
        Self { passed_over, ..self }
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
