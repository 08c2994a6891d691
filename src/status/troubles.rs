//! The problems that aren't one site's: of a HAProxy, of the last run. Pure.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::advice;
use super::behind::Changed;
use super::running::Running;
use super::severity::{ProblemKind, Severity};
use crate::config::{Haproxy, Settings};
use crate::haproxy::process::twin::{Shared, Twins};
use crate::haproxy::tableless::Tableless;
use crate::serving::loads::{Bind, Loaded, Serving};
use crate::serving::sites;
use crate::sites::last_run::LastRun;
use crate::status::problem::{Problem, problem};
use crate::sys::escape::{escaped, escaped_path};

/// What is left to do where a run fails.
const RUN_AGAIN: &str = "mend that; then run: haproxy-certs assemble";
/// The same where publishing does.
const PUBLISH_AGAIN: &str = "mend that; then run: haproxy-certs fleet publish";

/// A HAProxy that should run and doesn't.
#[must_use]
pub fn down(running: &Running) -> Option<Problem> {
    let down = running.down.as_ref()?;
    // It can't start before its configuration is mended.
    let advice = match &running.refused {
        Some(refused) => format!("{}; then {}", refused.advice, down.advice),
        None => down.advice.clone(),
    };
    Some(Problem {
        kind: ProblemKind::HaproxyDown,
        severity: Severity::Critical,
        haproxy: Some(running.name.clone()),
        fact: down.fact.clone(),
        advice: Some(advice),
    })
}

/// A HAProxy that refuses its configuration.
#[must_use]
pub fn refused(running: &Running, now: i64) -> Option<Problem> {
    let refused = running.refused.as_ref()?;
    // Where the clock was set back since, nobody knows.
    let at = refused.at.filter(|&at| at <= now);
    let when = at.map(|at| format!(" {} ago", advice::span(now.saturating_sub(at))));
    let verb = if when.is_some() { "refused" } else { "refuses" };
    let fact = format!(
        "{} {verb} its configuration{}, so it can't reload or start again: {}",
        escaped(&running.name),
        when.unwrap_or_default(),
        refused.words
    );
    Some(Problem {
        kind: ProblemKind::HaproxyConfig,
        severity: Severity::Critical,
        haproxy: Some(running.name.clone()),
        fact,
        advice: Some(format!("{}; then run: haproxy-certs assemble", refused.advice)),
    })
}

/// The crt-lists that keep a HAProxy from starting, where it can't be asked itself.
pub fn lists<'a>(name: &'a str, serving: &'a Serving) -> impl Iterator<Item = Problem> + 'a {
    serving.broken_lists.iter().map(move |list| {
        let (shown, path, why) = (escaped(name), escaped_path(&list.path), &list.why);
        Problem {
            kind: ProblemKind::Unloadable,
            severity: Severity::Critical,
            haproxy: Some(name.to_owned()),
            fact: format!("{shown} can't load {path}, and won't start again: {why}"),
            advice: Some(format!("{}; then run: haproxy-certs assemble", list.advice())),
        }
    })
}

/// A HAProxy that hasn't read what somebody else changed, or whose memory somebody else changed.
#[must_use]
pub fn behind(running: &Running) -> Option<Problem> {
    let behind = running.behind.as_ref()?;
    Some(Problem {
        kind: ProblemKind::HaproxyStale,
        // What is in memory visitors see.
        severity: if behind.changed == Changed::Memory { Severity::Critical } else { Severity::Warning },
        haproxy: Some(running.name.clone()),
        fact: format!("{} {}", escaped(&running.name), behind.fact),
        advice: Some(running.catch_up(false)),
    })
}

/// A HAProxy beside which another one listens.
#[must_use]
pub fn twin(running: &Running) -> Option<Problem> {
    let Twins { own, other, shared } = running.twins?;
    let name = escaped(&running.name);
    let (fact, advice) = match shared {
        Shared::Address => (
            format!(
                "process {other} is another HAProxy that listens where {name} (process {own}) does: clients get either"
            ),
            format!("run: kill -USR1 {other}"),
        ),
        Shared::Mark(mark) => (
            format!(
                "process {other} is another HAProxy than {name} (process {own}), and {mark}: of a renewal only one of them \
                 is told"
            ),
            "start one of them with a pidfile and sockets of its own, and give that a [[haproxy]] table"
                .to_owned(),
        ),
    };
    Some(Problem {
        kind: ProblemKind::HaproxyStale,
        severity: Severity::Warning,
        haproxy: Some(running.name.clone()),
        fact,
        advice: Some(advice),
    })
}

/// A HAProxy that loads the directory, and that no table is about.
#[must_use]
pub fn tableless(settings: &Settings, found: &Tableless) -> Problem {
    let (fact, advice) = (found.fact(settings), found.advice(settings));
    problem(ProblemKind::HaproxyStale, Severity::Warning, fact, Some(advice))
}

/// A HAProxy whose last reload failed for something that is no longer so, or can't be seen: what should have been loaded then
/// isn't.
#[must_use]
pub fn failed_reload(running: &Running) -> Option<Problem> {
    let is_told = running.behind.is_some() || running.refused.is_some();
    if running.failed_reloads == 0 || is_told {
        return None;
    }
    Some(Problem {
        kind: ProblemKind::HaproxyStale,
        severity: Severity::Warning,
        haproxy: Some(running.name.clone()),
        fact: format!(
            "{} runs with what it loaded before its last reload, which failed",
            escaped(&running.name)
        ),
        // Where the last run failed at it, another reload would fail, too.
        advice: Some(running.catch_up(running.failed.is_some())),
    })
}

/// HAProxys whose bind lines load our certificates, and speak no TLS, or don't listen.
#[must_use]
pub fn without_tls(settings: &Settings, loaded: &Loaded) -> Vec<Problem> {
    let judged = |(haproxy, bind): (&Haproxy, &Bind)| {
        let place = format!("{} ({})", escaped(&bind.section), bind.at);
        let (fact, advice) = bind.silence();
        Problem {
            kind: ProblemKind::NotPresented,
            severity: Severity::Critical,
            haproxy: Some(haproxy.name.clone()),
            fact: format!("{place} {fact}, and no client is presented a certificate"),
            advice: Some(format!("{advice}; then reload HAProxy")),
        }
    };
    sites::without_tls(settings, loaded).map(judged).collect()
}

/// The last run failed: it is the last run all the same.
#[must_use]
pub fn failed_run(last_run: Option<&LastRun>, now: i64) -> Option<Problem> {
    failed("the last run failed", last_run?, RUN_AGAIN, now)
}

/// The same of the publish that ends each run on a publisher with a HAProxy.
#[must_use]
pub fn failed_publish(last_publish: Option<&LastRun>, now: i64) -> Option<Problem> {
    failed("the last publish failed", last_publish?, PUBLISH_AGAIN, now)
}

/// No run can write anything, whether one was tried or not: it couldn't record that either.
#[must_use]
pub fn cannot_deploy(fact: &str) -> Problem {
    let fact = format!("the next run will fail: {fact}");
    problem(ProblemKind::RunFailed, Severity::Warning, fact, Some(RUN_AGAIN.to_owned()))
}

/// No publish can succeed, whether one was tried or not.
#[must_use]
pub fn cannot_publish(fact: &str) -> Problem {
    let fact = format!("the next publish will fail: {fact}");
    problem(ProblemKind::RunFailed, Severity::Warning, fact, Some(PUBLISH_AGAIN.to_owned()))
}

fn failed(what: &str, run: &LastRun, advice: &str, now: i64) -> Option<Problem> {
    let error = run.error.as_ref()?;
    let ago = advice::span(now.saturating_sub(run.at).max(0));
    Some(Problem {
        kind: ProblemKind::RunFailed,
        severity: Severity::Warning,
        haproxy: None,
        fact: format!("{what} {ago} ago: {}", error.message),
        advice: Some(advice.to_owned()),
    })
}
