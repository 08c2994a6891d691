//! One finding: a fact, how bad it is, and what mends it.

use serde::Serialize;

use crate::status::severity::Severity;

/// Something about the setup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at, in one word.
    pub name: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// One line of ASCII.
    pub fact: String,
    /// The lines that mend it, to be copied.
    pub mend: Vec<String>,
}

impl Finding {
    /// As it should be.
    pub(crate) fn fine(name: &'static str, fact: impl Into<String>) -> Self {
        Self { name, severity: Severity::Ok, fact: fact.into(), mend: Vec::new() }
    }

    /// Not as it should be.
    pub(crate) fn wrong(name: &'static str, fact: impl Into<String>, mend: &[&str]) -> Self {
        let mend = mend.iter().map(|&line| line.to_owned()).collect();
        Self { name, severity: Severity::Warning, fact: fact.into(), mend }
    }

    /// Not to be seen.
    pub(crate) fn unknown(name: &'static str, fact: impl Into<String>) -> Self {
        Self { severity: Severity::Unknown, ..Self::fine(name, fact) }
    }
}
