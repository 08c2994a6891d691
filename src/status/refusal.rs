//! That a HAProxy refuses its configuration.

use crate::haproxy::verdict::Outcome;
use crate::sites::last_run::Told;
use crate::status::checking::Checked;

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
            Checked::Refused { words, advice, .. } => Some(Self { words, advice, at: None }),
            Checked::Unasked(_) => {
                let Told { at, detail, advice, .. } = told?;
                Some(Self { words: detail.clone()?, advice: advice.clone()?, at: Some(*at) })
            }
        }
    }
}

/// Why a HAProxy could not be notified, or how it was seen that it didn't take it.
#[must_use]
pub fn failure(told: &Told) -> Option<String> {
    let is_bad = told.outcome == Outcome::Failed || told.confirmed == Some(false);
    told.detail.clone().filter(|_| is_bad)
}
