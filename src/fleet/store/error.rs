//! What a store can fail with.

use std::path::PathBuf;
use std::{fmt, io};

use super::key::StoreKey;
use crate::sys::escape::{escaped, escaped_path};
use crate::sys::failure::io_cause;

/// Why a store didn't do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Something is wrong with how it is set up here.
    #[error("{0}")]
    Setup(String),
    /// No member answered, or each said that it can't now: no leader, no quorum, too busy. Why, by its address.
    #[error("cannot reach the store: {}", Causes(.0))]
    Unreachable(Vec<(String, String)>),
    /// The user, the password or the permissions.
    #[error("the store refuses this host: {}", escaped(.0))]
    Denied(String),
    /// It has no room.
    #[error("the store is full: {}", escaped(.0))]
    Full(String),
    /// A value is larger than any of its kind.
    #[error("the store's value of {0} is larger than any that was published")]
    TooLarge(StoreKey),
    /// An answer that makes no sense.
    #[error("the store's answer makes no sense: {}", escaped(.0))]
    Malformed(String),
    /// It doesn't accept what it was asked, which is our fault.
    #[error("the store does not accept a request: {}", escaped(.0))]
    Rejected(String),
    /// The operating system's error.
    #[error("cannot {deed} {}: {}", escaped_path(.path), io_cause(.cause))]
    Io {
        /// What failed.
        deed: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
}

/// Each member with its cause.
struct Causes<'a>(&'a [(String, String)]);

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (member, cause)) in self.0.iter().enumerate() {
            let comma = if place > 0 { "; " } else { "" };
            write!(f, "{comma}{}: {}", escaped(member), escaped(cause))?;
        }
        Ok(())
    }
}
