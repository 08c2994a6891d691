//! What holds back a prune.

/// What holds back a prune.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// Nothing is left where it came from that says whether it is still wanted.
    Orphan,
    /// It was written from elsewhere before this host followed its fleet: it stays, and that is no alarm.
    Elsewhere,
    /// Too many would go at once: `--prune-many` lets them.
    TooMany,
    /// HAProxy needs it, or may need it.
    Needed,
}

impl Hold {
    /// Whether somebody has to see to it.
    #[must_use]
    pub fn is_alarming(self) -> bool {
        self != Self::Elsewhere
    }
}
