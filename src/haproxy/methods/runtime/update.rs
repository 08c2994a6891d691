//! What a batch is sent with: to which worker, by when. And why it needs another way.

use std::time::Instant;

use crate::config::Haproxy;
use crate::haproxy::batch::Batch;
use crate::haproxy::cli::transaction::Commands;
use crate::haproxy::cli::worker::{Trouble, Worker};
use crate::haproxy::memory::NotInMemory;
use crate::sys::system::System;

/// Why a batch needs another way.
pub(super) enum Stop {
    /// A reload may do it.
    Reload(String),
    /// This socket is of no use; another one may be.
    Unusable(Trouble),
}

impl From<NotInMemory> for Stop {
    fn from(why: NotInMemory) -> Self {
        Self::Reload(why.to_string())
    }
}

impl From<Trouble> for Stop {
    fn from(trouble: Trouble) -> Self {
        Self::Unusable(trouble)
    }
}

/// A batch being sent to a worker.
pub(super) struct Update<'a> {
    pub(super) system: &'a System,
    pub(super) haproxy: &'a Haproxy,
    pub(super) batch: &'a Batch<'a>,
    pub(super) commands: Commands<'a>,
}

impl<'a> Update<'a> {
    pub(super) fn new(
        system: &'a System,
        haproxy: &'a Haproxy,
        batch: &'a Batch<'a>,
        worker: Worker<'a>,
        deadline: Instant,
    ) -> Self {
        Self { system, haproxy, batch, commands: Commands { worker, deadline } }
    }
}
