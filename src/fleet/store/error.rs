//! What a store can fail with.

use std::path::PathBuf;
use std::{fmt, io};

use super::key::StoreKey;
use crate::sys::escape::{escaped, escaped_path, shell_word};
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
    /// Something else than a file of a fleet's stands for a value.
    #[error("the store's {key} is {what}, and no file of a fleet's")]
    Odd {
        /// Of which value.
        key: StoreKey,
        /// What it is.
        what: &'static str,
    },
    /// Something stands in a value's place that nobody but a person may remove.
    #[error("{} is {what}, which nothing of a fleet's is; run: rm -r {}", escaped_path(.path), shell_word(.path.as_os_str()))]
    InTheWay {
        /// Where.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// Somebody holds its lock: whoever may read it can. Who, where that can be seen.
    #[error(
        "{} is locked by {}; wait for it to end, or end it",
        escaped_path(.path), .by.as_deref().unwrap_or("another process")
    )]
    Locked {
        /// Where.
        path: PathBuf,
        /// Who, in words.
        by: Option<String>,
    },
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

impl StoreError {
    /// Which value it is about, where the store answers and only that value can't be one.
    #[must_use]
    pub fn of_value(&self) -> Option<&StoreKey> {
        match self {
            Self::TooLarge(key) | Self::Odd { key, .. } => Some(key),
            _ => None,
        }
    }
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
