//! What is wrong with a site or a HAProxy, and what mends it.

use crate::status::severity::{ProblemKind, Severity};

/// Something that is wrong: the fact, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What it is.
    pub kind: ProblemKind,
    /// How bad it is.
    pub severity: Severity,
    /// The HAProxy that it is about.
    pub haproxy: Option<String>,
    /// One line of ASCII.
    pub fact: String,
    /// The next step; one line of ASCII.
    pub advice: Option<String>,
}

pub(crate) fn problem(
    kind: ProblemKind,
    severity: Severity,
    fact: String,
    advice: Option<String>,
) -> Problem {
    Problem { kind, severity, haproxy: None, fact, advice }
}
