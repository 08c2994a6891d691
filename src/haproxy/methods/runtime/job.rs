//! A file to be given to HAProxy in memory, as far as one command can carry it.

use std::io;

use zeroize::Zeroizing;

use crate::certified_key::{Leaf, read_leaf};
use crate::config::Haproxy;
use crate::haproxy::batch::{Batch, Change, Expected};
use crate::haproxy::cli::socket::{LONGEST_COMMAND, SocketError};
use crate::haproxy::cli::transaction::set_line;
use crate::haproxy::cli::worker::is_plain;
use crate::haproxy::memory::File;
use crate::haproxy::target::Target;
use crate::serving::loads::Identity;
use crate::sys::failure::io_cause;

/// A file that HAProxy is to be notified of.
pub(super) struct Job<'a> {
    pub(super) target: &'a Target,
    /// Its name as the settings spell it for this HAProxy.
    pub(super) spelled: String,
    pub(super) identity: Option<Identity>,
    pub(super) expected: &'a Expected,
    /// `None`: HAProxy will refuse it.
    pub(super) leaf: Option<Leaf>,
    pub(super) pem: Zeroizing<Vec<u8>>,
}

/// Why a file can't be sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unsendable {
    #[error("is removed, which needs a reload")]
    Removed,
    #[error("has too many names for HAProxy to show it")]
    ManyNames,
    #[error("its name is no plain word")]
    NoPlainWord,
    #[error("cannot read it: {}", io_cause(.0))]
    Unread(io::Error),
    #[error("has an empty line")]
    EmptyLine,
    #[error("{}", SocketError::TooLong(*.0))]
    TooLong(usize),
}

impl<'a> Job<'a> {
    /// Reads the file; what this way can't send needs a reload.
    pub(super) fn new(haproxy: &Haproxy, batch: &Batch<'_>, change: &'a Change) -> Result<Self, Unsendable> {
        let target = &change.target;
        let Some(expected) = &change.now else {
            return Err(Unsendable::Removed);
        };
        if !expected.can_be_shown {
            return Err(Unsendable::ManyNames);
        }
        let spelled = target.spelled(haproxy);
        if !target.is_plain() || !is_plain(&spelled) {
            return Err(Unsendable::NoPlainWord);
        }
        let pem = (batch.read)(target).map_err(Unsendable::Unread)?;
        can_be_sent(&spelled, &pem)?;
        let leaf = read_leaf(&pem).ok();
        Ok(Self { target, spelled, identity: batch.identity(target), expected, leaf, pem })
    }

    pub(super) fn file(&self) -> File<'_> {
        let Self { spelled, identity, leaf, expected, .. } = self;
        File { spelled, identity: *identity, leaf: leaf.as_ref(), addable: expected.addable }
    }
}

/// Whether a PEM can be the payload of a command that every version survives.
pub(super) fn can_be_sent(store: &str, pem: &[u8]) -> Result<(), Unsendable> {
    // An empty line ends a payload: what follows would be lost.
    if pem.starts_with(b"\n") || pem.windows(2).any(|pair| pair == b"\n\n") || pem.contains(&0) {
        return Err(Unsendable::EmptyLine);
    }
    // With a few bytes for the prefix and the line ends.
    match set_line(store).len() + pem.len() + 10 {
        length if length > LONGEST_COMMAND => Err(Unsendable::TooLong(length)),
        _ => Ok(()),
    }
}
