//! What came of trying one way to notify a HAProxy.

use crate::haproxy::target::Target;

/// What came of trying one way to notify a HAProxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attempt {
    /// It was notified, and what this way can see of the effect: `Some(true)` seen, `Some(false)` not seen in time,
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
    /// The reload failed, and HAProxy gives no reason: what was seen.
    Unexplained(String),
    /// It could not be notified: why.
    Failed(String),
}
