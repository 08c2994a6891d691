//! A lineage that fails, and the command that deploys it all the same.

use std::ffi::OsStr;

use crate::plan::reason::Reason;
use crate::sys::escape::shell_word;

/// A lineage that fails: why, and the fact for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The report's word.
    pub reason: Reason,
    /// One line of ASCII.
    pub detail: String,
}

impl Refusal {
    /// A refusal for this reason.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }

    /// A refusal of HAProxy's that is remembered, with its words.
    #[must_use]
    pub fn remembered(lineage: &OsStr, words: &str) -> Self {
        Self::new(Reason::HaproxyRejects, format!("{words}; run {} to try it again", force(lineage)))
    }
}

/// The command that deploys a lineage against what speaks against it.
pub(crate) fn force(name: &OsStr) -> String {
    format!("assemble --force {}", shell_word(name))
}
