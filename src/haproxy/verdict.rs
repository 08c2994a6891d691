//! How notifying one HAProxy ended.

use serde::{Deserialize, Serialize};

use crate::config::Method;
use crate::haproxy::target::Target;

/// How notifying one HAProxy ended; the `outcome` of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Replaced or added in memory.
    Updated,
    /// It reloaded.
    Reloaded,
    /// It could not be notified.
    Failed,
    /// It refused, and the previous files are back.
    RolledBack,
    /// There was nothing to do.
    NotNeeded,
    /// There is evidence that it doesn't run.
    NotRunning,
    /// It isn't to be notified.
    Skipped,
    /// Left to the next run on request.
    Deferred,
}

/// What came of notifying one HAProxy.
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
    /// Whether it isn't confirmed only since no probe is answered by TLS: no reload mends that.
    pub is_unanswered: bool,
    /// Files that it refused explicitly, with its words.
    pub rejected: Vec<(Target, String)>,
    /// That it refused to reload without naming a file of ours: its words.
    pub refusal: Option<String>,
    /// What mends its configuration, where it refuses that for something that isn't ours.
    pub advice: Option<String>,
}

impl Verdict {
    /// A verdict without more to say.
    #[must_use]
    pub fn of(method: Method, outcome: Outcome) -> Self {
        Self {
            method,
            outcome,
            confirmed: None,
            detail: None,
            passed_over: Vec::new(),
            is_unanswered: false,
            rejected: Vec::new(),
            refusal: None,
            advice: None,
        }
    }

    pub(crate) fn passing_over(self, passed_over: Vec<String>) -> Self {
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

/// How notifying one HAProxy has ended for the whole run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// The HAProxy's name.
    pub haproxy: String,
    /// What came of it, in the light of what went back.
    pub verdict: Verdict,
    /// Whether the next run notifies it again.
    pub owed: bool,
}

impl Ending {
    /// The end that a verdict leads to; `refused` are HAProxy's words where the previous files were put back before it.
    #[must_use]
    pub fn of(haproxy: &str, mut verdict: Verdict, refused: Option<String>) -> Self {
        let owed = match verdict.outcome {
            Outcome::Updated | Outcome::Reloaded => verdict.confirmed == Some(false),
            Outcome::Failed | Outcome::Deferred => true,
            Outcome::RolledBack | Outcome::NotNeeded | Outcome::NotRunning | Outcome::Skipped => false,
        };
        match refused {
            Some(words) if owed => verdict = verdict.with(words),
            Some(words) => (verdict.outcome, verdict.detail) = (Outcome::RolledBack, Some(words)),
            None => {}
        }
        Self { haproxy: haproxy.to_owned(), verdict, owed }
    }
}
