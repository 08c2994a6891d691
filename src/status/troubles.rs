//! The problems that aren't one site's: of a HAProxy, of the last run. Pure.

use crate::haproxy::Outcome;
use crate::sites::last_run::{LastRun, Told};
use crate::sys::escape::escaped;

use super::advice;
use super::checking::Checked;
use super::judge::Problem;
use super::running::Running;
use super::severity::{Kind, Severity};

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
        kind: Kind::HaproxyDown,
        severity: Severity::Critical,
        haproxy: Some(running.name.clone()),
        fact: down.fact.clone(),
        advice: Some(advice),
    })
}

/// That a HAProxy refuses its configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// HAProxy's own words.
    pub words: String,
    /// What to do first.
    pub advice: String,
    /// When the run ended that found it, where it could not be asked again.
    pub at: Option<i64>,
}

impl Refused {
    /// As it is now, where it could be asked, else as the last run found it.
    #[must_use]
    pub fn judge(checked: Checked, told: Option<&Told>) -> Option<Self> {
        match checked {
            Checked::Accepted => None,
            Checked::Refused { words, advice } => Some(Self { words, advice, at: None }),
            Checked::Unasked(_) => {
                let told = told?;
                let words = refusal(told)?.to_owned();
                Some(Self { words, advice: "mend its configuration".to_owned(), at: Some(told.at) })
            }
        }
    }
}

/// A HAProxy that refuses its configuration.
#[must_use]
pub fn refused(running: &Running, now: i64) -> Option<Problem> {
    let refused = running.refused.as_ref()?;
    let when = refused.at.map(|at| format!(" {} ago", advice::span(now.saturating_sub(at))));
    let verb = if when.is_some() { "refused" } else { "refuses" };
    let fact = format!(
        "{} {verb} its configuration{}, so it can't reload or start again: {}",
        escaped(&running.name),
        when.unwrap_or_default(),
        refused.words
    );
    Some(Problem {
        kind: Kind::HaproxyConfig,
        severity: Severity::Critical,
        haproxy: Some(running.name.clone()),
        fact,
        advice: Some(format!("{}; then run: haproxy-certs assemble", refused.advice)),
    })
}

/// HAProxy's words where it could not be told since it refuses its configuration for something that isn't ours.
#[must_use]
pub fn refusal(told: &Told) -> Option<&str> {
    let detail = told.detail.as_deref().filter(|_| told.outcome == Outcome::Failed)?;
    let is_it = ["refuses its configuration", "mend line ", "mend its configuration"];
    is_it.iter().any(|words| detail.contains(words)).then_some(detail)
}

/// The last run failed: it is the last run all the same.
#[must_use]
pub fn failed_run(last_run: Option<&LastRun>, now: i64) -> Option<Problem> {
    let run = last_run?;
    let error = run.error.as_ref()?;
    let ago = advice::span(now.saturating_sub(run.at).max(0));
    Some(Problem {
        kind: Kind::RunFailed,
        severity: Severity::Warning,
        haproxy: None,
        fact: format!("the last run failed {ago} ago: {}", error.message),
        advice: Some("mend that; then run: haproxy-certs assemble".to_owned()),
    })
}
