//! What stands where a lineage's file belongs, and isn't ours.

use crate::certified_key::Leaf;
use crate::plan::situation::Candidate;

/// What stands where a lineage's file belongs, and isn't ours: the action is a conflict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// A directory, which nobody takes over.
    Directory,
    /// A link, or something else that is no regular file.
    Irregular,
    /// A file that somebody else wrote.
    Anothers,
    /// The same with a valid certificate, and the lineage's is the worse one.
    Better(Drawback),
}

/// Why a lineage's certificate is worse than a valid one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drawback {
    /// No visitor trusts it.
    Staging,
    /// Its life hasn't begun.
    NotYetValid,
    /// Its life is over.
    Expired,
    /// It was issued before the other one.
    Older,
}

impl Drawback {
    /// What is worse about a lineage's certificate than about the valid one that is deployed; `None`: nothing, or that one has
    /// expired.
    pub(crate) fn of(candidate: &Candidate, deployed: &Leaf, now: i64) -> Option<Self> {
        let new = &candidate.leaf;
        let is_good = !deployed.issuer_is_staging && deployed.not_before <= now;
        match () {
            () if deployed.not_after < now => None,
            () if is_good && candidate.staging => Some(Self::Staging),
            () if is_good && new.not_before > now => Some(Self::NotYetValid),
            () if is_good && new.not_after < now => Some(Self::Expired),
            () if new.not_before < deployed.not_before => Some(Self::Older),
            () => None,
        }
    }
}

impl Obstacle {
    /// Whether `assemble --adopt` takes it over, and nothing is lost by that.
    #[must_use]
    pub fn is_adoptable(self) -> bool {
        matches!(self, Self::Irregular | Self::Anothers)
    }

    /// The fact for people, and what to do.
    #[must_use]
    pub fn fact(self) -> &'static str {
        match self {
            Self::Directory => "it is a directory; move it away",
            Self::Irregular => {
                "it is not a regular file; move it away, or run assemble --adopt to take it over (a copy is kept)"
            }
            Self::Anothers => {
                "it was not written by haproxy-certs; move it away, or run assemble --adopt to take it over (a copy is \
                 kept)"
            }
            Self::Better(Drawback::Staging) => {
                "somebody else's certificate is there and valid, and the lineage's comes from a staging CA"
            }
            Self::Better(Drawback::NotYetValid) => {
                "somebody else's certificate is there and valid, and the lineage's is not valid yet"
            }
            Self::Better(Drawback::Expired) => {
                "somebody else's certificate is there and valid, and the lineage's has expired"
            }
            Self::Better(Drawback::Older) => {
                "somebody else's certificate is there and valid, and the lineage's was issued before it"
            }
        }
    }
}
