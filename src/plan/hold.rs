//! What holds back a prune.

/// What holds back a prune.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// Nothing is left where it came from that says whether it is still wanted.
    Orphan,
    /// Too many would go at once: `--prune-many` lets them.
    TooMany,
    /// HAProxy needs it, or may need it.
    Needed,
}
