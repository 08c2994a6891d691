//! What stands where a lineage's file belongs, and isn't ours.

/// What stands where a lineage's file belongs, and isn't ours: the action is a conflict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// A directory, which nobody takes over.
    Directory,
    /// A link, or something else that is no regular file.
    Irregular,
    /// A file that somebody else wrote.
    Anothers,
}

impl Obstacle {
    /// Whether `assemble --adopt` takes it over.
    #[must_use]
    pub fn is_adoptable(self) -> bool {
        self != Self::Directory
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
        }
    }
}
