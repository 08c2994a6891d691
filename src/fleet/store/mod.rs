//! Where a fleet's values lie: five calls, and a way to wait for a new head.
//!
//! A store may lie, forget and withhold: whoever reads from it checks what he got. Here it is only kept from doing harm by
//! sizes and by names: nothing larger than a value of its kind is taken, and a name that isn't ours isn't seen.

pub mod directory;
mod error;
pub mod etcd;
mod key;

use std::time::Duration;

pub use error::StoreError;
pub use key::{StoreFolder, StoreKey};

/// A value that was there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The value.
    pub bytes: Vec<u8>,
    /// Which of the key's values it is.
    pub revision: Revision,
    /// Whether it is whole for certain. A young file in a directory that something else carries may still be arriving: what is
    /// damaged there is not yet there.
    pub settled: bool,
}

/// Which of a key's values it is: two that differ have different ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revision(Which);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    /// etcd's `mod_revision`.
    Modified(i64),
    /// The SHA-256 of a file.
    Content([u8; 32]),
}

/// How a comparison with a put ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swap {
    /// The value is there.
    Done(Revision),
    /// Another value was there than the one that was seen.
    Lost,
}

/// Why the wait for a new head ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woken {
    /// There is another head than the one that was seen, or may be.
    Changed,
    /// The time is over.
    TimedOut,
}

/// What every store can do.
pub trait FleetStore: Send + Sync {
    /// The values of these keys, each `None` where there is none: never one that is older than what was read before.
    ///
    /// # Errors
    /// The store can't be reached or says no, or a value is larger than any of its kind.
    fn get(&self, keys: &[StoreKey]) -> Result<Vec<Option<Stored>>, StoreError>;

    /// The keys in a folder. What isn't a key of ours is left out.
    ///
    /// # Errors
    /// The store can't be reached or says no.
    fn list(&self, folder: StoreFolder) -> Result<Vec<StoreKey>, StoreError>;

    /// Writes these values. Where it fails some may be there: it can be done again.
    ///
    /// # Errors
    /// The store can't be reached, says no or is full.
    fn put(&self, values: &[(StoreKey, Vec<u8>)]) -> Result<(), StoreError>;

    /// Removes these keys, which may not be there.
    ///
    /// # Errors
    /// The store can't be reached or says no.
    fn delete(&self, keys: &[StoreKey]) -> Result<(), StoreError>;

    /// Writes this value if the key still has the one that was seen, or still has none.
    ///
    /// # Errors
    /// The store can't be reached, says no or is full. The value may be there all the same.
    fn compare_and_put(
        &self,
        key: &StoreKey,
        seen: Option<Revision>,
        value: &[u8],
    ) -> Result<Swap, StoreError>;

    /// Waits until the head is another one than the one that was seen, and at most so long.
    ///
    /// # Errors
    /// The store can't be reached or says no.
    fn wait(&self, seen: Option<Revision>, at_most: Duration) -> Result<Woken, StoreError>;
}

/// The value of one key; `None`: there is none.
///
/// # Errors
/// The store can't be reached or says no, or the value is larger than any of its kind.
pub fn get_one(store: &dyn FleetStore, key: StoreKey) -> Result<Option<Stored>, StoreError> {
    Ok(store.get(&[key])?.into_iter().next().flatten())
}
