//! Why a run could not be done, or not to its end: exit status 3.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::escape::escaped_path;

/// What kind of obstacle it was; the `kind` of the report's `error`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FailureKind {
    /// Another run holds the lock.
    Lock,
    /// The operating system, or the owner of a directory, forbids it.
    Permission,
    /// Reading or writing failed.
    Io,
    /// The settings can't be used.
    Config,
}

/// Something that keeps a run from being done: a fact, the path, the next step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What kind of obstacle.
    pub kind: FailureKind,
    /// One line of ASCII for people.
    pub message: String,
}

impl Failure {
    /// A failure of this kind.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// A setting that can't be used.
    pub fn config(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Config, message)
    }

    /// An operating system error: "cannot `deed` `path`: cause".
    #[must_use]
    pub fn io(deed: &str, path: &Path, cause: &io::Error) -> Self {
        let kind = match cause.kind() {
            io::ErrorKind::PermissionDenied => FailureKind::Permission,
            _ => FailureKind::Io,
        };
        Self::new(kind, format!("cannot {deed} {}: {}", escaped_path(path), io_cause(cause)))
    }
}

/// The operating system's words for `cause`, without the number that `std` puts after them.
#[must_use]
pub fn io_cause(cause: &io::Error) -> String {
    let text = cause.to_string().to_lowercase();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}
