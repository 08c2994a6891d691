//! Notifying one HAProxy of a batch, by the first way that applies, and seeing whether it took it.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::config::{Haproxy, Method};
use crate::haproxy::attempt::Attempt;
use crate::haproxy::batch::Batch;
use crate::haproxy::cli::worker::{Answering, BLINK_LIMIT, PAUSE, Worker};
use crate::haproxy::methods::runtime::Partial;
use crate::haproxy::methods::runtime::shown::StoresShown;
use crate::haproxy::no_use::has_none_for;
use crate::haproxy::process::config_check::ConfigCheck;
use crate::haproxy::process::twin::{Shared, Twins, twins};
use crate::haproxy::somebody::{Somebody, somebody};
use crate::haproxy::tls_probe::{self, Probed};
use crate::haproxy::verdict::{Outcome, Verdict};
use crate::haproxy::{alerts, methods, process};
use crate::serving::contents::identity;
use crate::serving::gather::of_stopped;
use crate::serving::loads::Bind;
use crate::sys::escape::escaped;
use crate::sys::system::System;

/// How long a worker that surely read the disk after the change may go on showing something else: it doesn't load
/// the directory, or not as expected.
const CONTRADICTION_LIMIT: Duration = Duration::from_secs(5);

/// The same where nothing else shows the reload's effect: through 3.0 it takes as long as the configuration loads.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);

/// How often a HAProxy that starts is looked for.
const AGAIN: Duration = Duration::from_millis(200);

/// How long a HAProxy that is there gets to write its pidfile and open its sockets.
const GRACE: Duration = Duration::from_secs(3);

/// The ways that `auto` tries, the best one first.
const AUTO: [Method; 4] = [Method::Runtime, Method::Master, Method::Systemd, Method::Pidfile];

/// Notifies one HAProxy of a batch, by the method that is configured for it, and sees whether it took it.
///
/// All of it ends within the `timeout` of this HAProxy; nothing here touches another one.
#[must_use]
pub fn notify(system: &System, haproxy: &Haproxy, batch: &Batch<'_>) -> Verdict {
    let haproxy = &haproxy.looked_up_once();
    let telling = Notification { system, haproxy, batch, deadline: Instant::now() + haproxy.timeout };
    if batch.changes.is_empty() {
        return Verdict::of(haproxy.method, Outcome::NotNeeded);
    }
    if has_none_for(system, haproxy, batch, telling.deadline) {
        return Verdict::of(haproxy.method, Outcome::NotNeeded);
    }
    match haproxy.method {
        Method::None => Verdict::of(Method::None, Outcome::Skipped),
        Method::Auto => telling.by(&AUTO),
        method => telling.by(&[method]),
    }
}

/// One HAProxy being notified of a batch.
struct Notification<'a> {
    system: &'a System,
    haproxy: &'a Haproxy,
    batch: &'a Batch<'a>,
    deadline: Instant,
}

impl Notification<'_> {
    /// The worker that answers on the best socket, if one does.
    fn answering(&self) -> Option<Answering> {
        Worker::ways(self.haproxy).iter().find_map(|worker| worker.answering(self.deadline).ok())
    }

    /// One way; `before`: the worker that answered before.
    fn attempt(&self, method: Method, before: Option<Answering>) -> Attempt {
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
            Method::Command => {
                // Sockets and probes show more.
                let is_watched = before.is_none() && self.haproxy.probe.is_empty();
                methods::command::run(self.system, &hurried(), self.batch, is_watched)
            }
            Method::Auto | Method::None => Attempt::NotApplicable("is no way to notify it".to_owned()),
        }
    }

    /// By the first of these ways that applies.
    fn by(&self, methods: &[Method]) -> Verdict {
        let before = self.answering();
        if before.is_some() {
            self.batch.patience.note_answer();
        }
        if let Some(verdict) = self.probed_again(methods, before) {
            return verdict;
        }
        let verdict = self.by_the_first_of(methods, before);
        let is_nothing_left = || before.is_some_and(|worker| self.has_read_it(worker));
        if verdict.outcome == Outcome::Failed && verdict.rejected.is_empty() && is_nothing_left() {
            return Verdict::of(verdict.method, Outcome::NotNeeded)
                .with("it has started since the change, and has it");
        }
        verdict
    }

    /// Where it has everything since its start, and only the probes were missing: another reload would change nothing.
    fn probed_again(&self, methods: &[Method], before: Option<Answering>) -> Option<Verdict> {
        if self.haproxy.probe.is_empty() || !self.has_read_it(before?) {
            return None;
        }
        let verdict = Verdict::of(*methods.first()?, Outcome::NotNeeded);
        match tls_probe::confirm(
            self.haproxy,
            self.batch,
            self.deadline.min(Instant::now() + CONTRADICTION_LIMIT),
        ) {
            Probed::Right => Some(verdict.with("it has started since the change, and has it")),
            Probed::Unanswered { address, how } => {
                let failed = Verdict { outcome: Outcome::Failed, confirmed: Some(false), ..verdict };
                Some(
                    failed
                        .with(self.unanswered(&address, &how))
                        .with("it has started since the change, and has it"),
                )
            }
            Probed::Wrong(_) | Probed::Nothing => None,
        }
    }

    /// What is said of a probe that isn't answered by TLS.
    fn unanswered(&self, address: &str, how: &str) -> String {
        let port = address.rsplit(':').next().unwrap_or_default();
        let listens = |bind: &&Bind| {
            bind.addresses.split(',').any(|at| at.rsplit(':').next().is_some_and(|its| its == port))
        };
        let binds: Vec<&Bind> = self.batch.serving.binds.iter().filter(listens).collect();
        let name = escaped(&self.haproxy.name);
        let advice = match binds.as_slice() {
            [bind, others @ ..] if bind.accepts_proxy && others.iter().all(|bind| bind.accepts_proxy) => {
                format!(
                    "{} has accept-proxy, so only a proxy reaches it: set probe of \"{name}\" to the proxy's address, or take it out",
                    bind.at
                )
            }
            _ => format!("no reload mends that: set probe of \"{name}\" to an address where it speaks TLS"),
        };
        format!("{how}; {advice}")
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
                if let Some(why) = self.outdated(method, before).filter(|_| methods.len() > 1) {
                    passed_over.push(pass(&why));
                    continue;
                }
                match self.attempt(method, before) {
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
                        let is_served = method != Method::Runtime
                            || verdict.confirmed != Some(false)
                            || verdict.is_unanswered;
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
            match somebody(self.system, self.haproxy) {
                Somebody::Coming if may_come && Instant::now() + AGAIN < self.deadline => sleep(AGAIN),
                Somebody::There(_) if evidence.is_some() && begin.elapsed() < GRACE => sleep(AGAIN),
                somebody => return self.untold(methods, evidence, &somebody, before, &passed_over),
            }
        }
    }

    /// Whether this worker read the disk after the last change, and shows all of the batch.
    fn has_read_it(&self, worker: Answering) -> bool {
        let started = worker.started(self.system);
        let is_young = |it: Answering| it.pid == worker.pid && started > self.batch.committed;
        is_young(worker)
            && matches!(methods::runtime::shown::shown(self.haproxy, self.batch, self.deadline), StoresShown::All(it) if is_young(it))
            && !methods::runtime::shown::is_served_otherwise(self.haproxy, self.batch, self.deadline)
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
            let no_way = |what: &str| {
                format!(
                    "found no way to {what} HAProxy; set `reload` and what it needs for \"{name}\" ({passed_over})"
                )
            };
            let partial = self.replace_what_can_be();
            let is_told = !partial.updated.is_empty();
            let why = no_way(if is_told { "reload" } else { "notify" });
            let is_all = is_told && partial.left.is_empty() && partial.differs.is_none();
            // Then nobody misses a way.
            return self.after_memory(
                Method::Auto,
                before,
                if is_all { String::new() } else { why },
                partial,
            );
        };
        let failed = |fact: String| Verdict::of(method, Outcome::Failed).with(fact);
        match somebody {
            Somebody::Nobody if before.is_some() => {
                failed(format!("HAProxy answered at first, and has ended since: {why}"))
            }
            Somebody::Nobody => self.not_running(method, why),
            Somebody::Coming => {
                failed(format!("{why}, and a HAProxy is still starting; the next run notifies it"))
            }
            Somebody::There(who) => {
                let why = format!("{why}, but {who}; set unit, pidfile or master_socket to its own");
                self.without_reload(method, before, why)
            }
            Somebody::Unseen(how) => failed(format!("{why}, but {how}; set reload")),
        }
    }

    /// It isn't there to refuse anything, so its configuration is asked about in its place: of what keeps it from starting the
    /// previous file comes back.
    fn not_running(&self, method: Method, why: String) -> Verdict {
        let verdict = Verdict::of(method, Outcome::NotRunning).with(why);
        let start = self.batch.start;
        let checked = process::stopped::would_start(self.system, self.haproxy, start, self.deadline);
        let ConfigCheck::Invalid { words, log } = checked else { return verdict };
        // By every name that it would load a file under.
        let sites = identity(&self.batch.homes.sites_dir);
        let serving = of_stopped(self.system, self.haproxy, &start.files, sites);
        let rejected = alerts::named_changes(&log, self.haproxy, &Batch { serving: &serving, ..*self.batch });
        if rejected.is_empty() {
            if let Some(doubt) = process::stopped::doubt(&start.files, &log) {
                return verdict.with(format!("and whether it would start can't be told: {doubt}"));
            }
            return verdict.with(format!("and it may not start: {}", alerts::cause(&words)));
        }
        Verdict { rejected, ..verdict }
    }

    /// Whether a reload may take what memory has refused: a worker judges by what it read when it started.
    fn may_take_it_now(&self, method: Method, before: Option<Answering>, attempt: &Attempt) -> bool {
        let Attempt::Refused { files, .. } = attempt else { return false };
        let since = before.filter(|_| method == Method::Runtime && !files.is_empty()).map(|it| it.since);
        since.is_some_and(|since| process::newer_source::is_newer(self.system, self.haproxy, since))
    }

    /// Why memory alone doesn't make the worker answer as after a start: what says what it loads has changed.
    fn outdated(&self, method: Method, worker: Option<Answering>) -> Option<String> {
        let worker = worker.filter(|_| method == Method::Runtime)?;
        let sources = &self.batch.serving.sources;
        let newer = process::newer_source::newer_source(self.system, sources, &worker)?;
        Some(format!(
            "its worker {} the configuration: {}",
            if newer.is_sure() { "hasn't read" } else { "may not have read" },
            newer.fact()
        ))
    }

    /// What an attempt comes to, once it is confirmed or made good as far as can be.
    fn verdict(&self, method: Method, before: Option<Answering>, attempt: Attempt) -> Verdict {
        match attempt {
            Attempt::Told { seen, detail } => {
                let outcome = if method == Method::Runtime { Outcome::Updated } else { Outcome::Reloaded };
                let (mut confirmed, why, is_unanswered) = self.confirmed(method, before, seen);
                let mut only_memory = String::new();
                if let Some(newer) = self.outdated(method, before) {
                    confirmed = confirmed.filter(|took_it| !took_it);
                    only_memory = format!("{newer}, and only a reload brings what a start would serve");
                }
                Verdict {
                    confirmed,
                    is_unanswered,
                    ..Verdict::of(method, outcome)
                        .with(detail.unwrap_or_default())
                        .with(why)
                        .with(only_memory)
                }
            }
            // [`Self::by`] passes over it.
            Attempt::NotRunning(why) => Verdict::of(method, Outcome::Failed).with(why),
            Attempt::Unexplained(why) => {
                let partial = self.replace_what_can_be();
                let suspects = self.suspects(&partial);
                let verdict = self.after_memory(method, before, why.clone(), partial).with(suspects);
                Verdict { refusal: Some(why), ..verdict }
            }
            Attempt::NotApplicable(why) | Attempt::Failed(why) => self.without_reload(method, before, why),
            Attempt::Refused { words, files } if files.is_empty() => {
                let partial = self.replace_what_can_be();
                let files = process::sources::configuration(self.system, self.haproxy);
                let loads: Vec<String> = self.batch.serving.stores.keys().cloned().collect();
                let program = process::checker::for_people(self.system, self.haproxy);
                let (cause, advice) =
                    (alerts::cause(&words), alerts::advice(&words, &program, &files, &loads));
                let verdict = Verdict::of(method, Outcome::Failed)
                    .with(cause.as_str())
                    .with(advice.as_str())
                    .with(self.said(&partial));
                Verdict { rejected: partial.refused, refusal: Some(cause), advice: Some(advice), ..verdict }
            }
            Attempt::Refused { words, files } => {
                Verdict { rejected: files, ..Verdict::of(method, Outcome::Failed) }
                    .with(alerts::cause(&words))
            }
        }
    }

    /// Which files it may be that HAProxy refused without a word: what it took in memory isn't.
    fn suspects(&self, partial: &Partial) -> String {
        const NAMED: usize = 3;
        if partial.left.is_empty() {
            return String::new();
        }
        let names: Vec<String> =
            partial.left.iter().take(NAMED).map(|(target, _)| target.to_string()).collect();
        let rest = partial.left.len() - names.len();
        let rest = if rest == 0 { String::new() } else { format!(" or one of {rest} more") };
        let how = match self.haproxy.binary {
            None => "with binary set, the next run asks HAProxy, and what it refuses goes back",
            Some(_) => "its log names the file",
        };
        format!("it may have refused {}{rest}: {how}", names.join(" or "))
    }

    /// What HAProxy can take without a reload, which isn't possible: `why`.
    fn without_reload(&self, method: Method, before: Option<Answering>, why: String) -> Verdict {
        self.after_memory(method, before, why, self.replace_what_can_be())
    }

    /// What it means that this was replaced in memory, where a reload isn't possible: `why`.
    fn after_memory(
        &self,
        method: Method,
        before: Option<Answering>,
        why: String,
        partial: Partial,
    ) -> Verdict {
        if !partial.refused.is_empty() {
            let verdict = Verdict::of(method, Outcome::Failed).with(why).with(self.said(&partial));
            return Verdict { rejected: partial.refused, ..verdict };
        }
        if partial.updated.is_empty() {
            let cause = partial.cause.filter(|cause| !why.contains(cause.as_str()));
            return Verdict::of(method, Outcome::Failed).with(why).with(cause.unwrap_or_default());
        }
        if !partial.left.is_empty() {
            return Verdict::of(method, Outcome::Failed).with(why).with(self.said(&partial));
        }
        if let Some(differs) = &partial.differs {
            let why = Some(why).filter(|why| why != differs).unwrap_or_default();
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

    /// Whether HAProxy is seen to have what it was notified, by the best way there is; why not.
    fn confirmed(
        &self,
        method: Method,
        before: Option<Answering>,
        seen: Option<bool>,
    ) -> (Option<bool>, String, bool) {
        let (mut confirmed, mut why) = match method {
            // It looked already.
            Method::Runtime => (seen, String::new()),
            _ => match self.shown(before, seen) {
                StoresShown::All(_) => (Some(true), String::new()),
                StoresShown::Not(how, _) => (Some(false), how),
                StoresShown::Unseen(..) => (seen, String::new()),
            },
        };
        if let Some(Twins { other, shared, .. }) = twins(self.system, self.haproxy) {
            let why = match shared {
                Shared::Address => format!(
                    "process {other} is another HAProxy that listens at the same address: end one of them"
                ),
                Shared::Mark(mark) => format!(
                    "process {other} is another HAProxy, and {mark}: start one of them with its own, and give that a \
                     [[haproxy]] table"
                ),
            };
            return (Some(false), why, true);
        }
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
            Probed::Unanswered { address, how } => {
                let is_unanswered = confirmed != Some(false);
                confirmed = Some(false);
                why = self.unanswered(&address, &how);
                return (confirmed, why, is_unanswered);
            }
        }
        (confirmed, why, false)
    }

    /// Looks until the sockets show the whole batch, or surely never will: a reload returns before the new worker
    /// serves.
    fn shown(&self, before: Option<Answering>, seen: Option<bool>) -> StoresShown {
        // A worker that has read the disk after the change: uptimes, in whole seconds, seldom prove it.
        let is_new = |worker: Answering| {
            before.is_none_or(|before| before.pid != worker.pid) || worker.since > self.batch.committed
        };
        let (mut silent, mut contradicted, mut last_seen) = (None, None, None);
        loop {
            let shown = match methods::runtime::shown::shown(self.haproxy, self.batch, self.deadline) {
                // What a worker of before the change shows it may have by chance.
                StoresShown::All(worker) if is_new(worker) => return StoresShown::All(worker),
                StoresShown::All(worker) => {
                    StoresShown::Not("the worker is the one of before the reload".to_owned(), worker)
                }
                shown => shown,
            };
            if let StoresShown::Unseen(..) = shown {
                silent.get_or_insert_with(Instant::now);
            } else {
                silent = None;
                last_seen = Some(shown.clone());
            }
            let is_final = match &shown {
                StoresShown::Not(_, worker) => {
                    is_new(*worker)
                        && contradicted.get_or_insert_with(Instant::now).elapsed() > CONTRADICTION_LIMIT
                }
                StoresShown::Unseen(_, may_answer_later) => {
                    let limit = if seen.is_some() { BLINK_LIMIT } else { SILENCE_LIMIT };
                    !may_answer_later || silent.is_some_and(|since| since.elapsed() > limit)
                }
                StoresShown::All(_) => true,
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
