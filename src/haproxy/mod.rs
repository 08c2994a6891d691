//! Telling each HAProxy what changed, and seeing that it took it.

mod as_started;
pub mod check;
pub mod command;
pub mod pidfile;
pub mod process;
pub mod systemd;
mod watch;
pub mod words;

use std::io;
use std::time::SystemTime;

use serde::Serialize;
use zeroize::Zeroizing;

use crate::config::Method;

/// One file that a HAProxy is told about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Which file.
    pub target: Target,
    /// What the file holds now; `None`: it was pruned.
    pub now: Option<Expected>,
}

/// A file that HAProxy loads.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// This file of the sites directory.
    Site(String),
    /// The host certificate.
    Host,
}

/// What HAProxy must show for a file that it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// SHA-1 of the leaf's DER: what `show ssl cert` calls its fingerprint.
    pub sha1: [u8; 20],
    /// SHA-256 of the leaf's DER.
    pub sha256: [u8; 32],
    /// How many certificates follow the leaf.
    pub chain_len: usize,
    /// The key's kind, for probes: signature algorithms are limited to it.
    pub key_type: crate::certified_key::KeyType,
    /// The DNS names that this file wins: no file that sorts before it has them with the same kind of key.
    pub names_won: Vec<String>,
    /// Whether it can be added at run time without changing what a reload would serve: it doesn't sort first, it
    /// shares no name with another file, and its name needs no quoting.
    pub addable: bool,
}

/// What a HAProxy is told about, all at once.
pub struct Batch<'a> {
    /// The files, each once.
    pub changes: &'a [Change],
    /// Reads what a file holds now.
    pub read: &'a dyn Fn(&Target) -> io::Result<Zeroizing<Vec<u8>>>,
    /// When the last file was renamed into place.
    pub committed: SystemTime,
}

/// How telling one HAProxy ended; the `outcome` of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Replaced or added in memory.
    Updated,
    /// It reloaded.
    Reloaded,
    /// It could not be told.
    Failed,
    /// It refused, and the previous files are back.
    RolledBack,
    /// There was nothing to tell.
    NotNeeded,
    /// There is evidence that it doesn't run.
    NotRunning,
    /// It isn't to be told.
    Skipped,
    /// Left to the next run on request.
    Deferred,
}

/// What came of telling one HAProxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The way that was used.
    pub method: Method,
    /// How it ended.
    pub outcome: Outcome,
    /// Whether it was seen to have taken it; `None` where there is no way to see.
    pub confirmed: Option<bool>,
    /// Facts for people, ASCII: why not a better way, what HAProxy said.
    pub detail: Option<String>,
    /// Files that it refused explicitly, with its words.
    pub rejected: Vec<(Target, String)>,
}

/// What came of trying one way to tell a HAProxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attempt {
    /// It was told, and what this way can see of the effect: `Some(true)` seen, `Some(false)` not seen in time,
    /// `None` no way to see.
    Told {
        /// Whether the effect was seen.
        seen: Option<bool>,
        /// What there is to add.
        detail: Option<String>,
    },
    /// This way doesn't apply here, or not to this batch, and nothing was changed: why.
    NotApplicable(String),
    /// There is evidence that this HAProxy doesn't run: which.
    NotRunning(String),
    /// HAProxy refused explicitly: its words, and those of our files that they name.
    Refused {
        /// HAProxy's own error lines.
        words: String,
        /// The files of the batch that are named, each with the line that names it.
        files: Vec<(Target, String)>,
    },
    /// It could not be told: why.
    Failed(String),
}
