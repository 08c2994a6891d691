//! Why something isn't sealed or opened: an epoch's key, a page, an object.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

/// What can't be sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unsealed {
    /// It is of a later version, or something else.
    #[error("it is nothing that this version can read")]
    Kind,
    /// It was changed, or belongs to another key, fleet, epoch, node or name.
    #[error("it was changed, or belongs elsewhere")]
    Wrong,
    /// The key inside isn't the one that the head names.
    #[error("it holds another key than the one that the head names")]
    OtherKey,
    /// What is inside isn't what it should be: the publisher's fault.
    #[error("what is inside is malformed")]
    Malformed,
    /// It is larger than what is stored.
    #[error("it is too large")]
    TooLarge,
    /// The recipient's key can't be used, or the library refuses.
    #[error("the key can't be used")]
    Key,
}
