//! How long sockets that refuse connections are waited for: once in a run, not at each look.
//!
//! A master that executes itself anew refuses connections for a moment, a dead one's socket for good. Where the
//! processes can't all be seen only the time tells them apart.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A master takes 0.1 s to execute itself anew. Through 3.0 it takes longer where it loads its configuration: one that
/// is in sight is seen to do that.
const LIMIT: Duration = Duration::from_secs(2);

/// How a HAProxy's sockets have behaved in this run.
#[derive(Debug, Default)]
pub struct SocketPatience {
    refusing_since: OnceLock<Instant>,
    has_answered: AtomicBool,
}

impl SocketPatience {
    /// One of them has answered: what refuses from now on is a reload's.
    pub(crate) fn note_answer(&self) {
        self.has_answered.store(true, Ordering::Relaxed);
    }

    /// Whether a connection that is refused now isn't waited for any longer.
    pub(crate) fn is_over(&self) -> bool {
        let since = self.refusing_since.get_or_init(Instant::now);
        !self.has_answered.load(Ordering::Relaxed) && since.elapsed() >= LIMIT
    }
}
