//! Whether a master and a worker's socket belong to two HAProxys.

use std::thread::sleep;
use std::time::Instant;

use crate::config::Haproxy;
use crate::haproxy::cli::worker::{BLINK_LIMIT, PAUSE, Worker};

/// Why a master isn't the one of the worker that answers at `runtime_socket`, where it surely isn't: the default places
/// are those of the host's HAProxy, and this one may live in a container. `knows`: whether the master has this worker.
pub(crate) fn is_another_ones(
    haproxy: &Haproxy,
    deadline: Instant,
    knows: impl Fn(u32) -> Option<bool>,
) -> Option<String> {
    let worker = Worker::ways(haproxy).into_iter().find(|worker| !worker.is_through_master())?;
    let begin = Instant::now();
    loop {
        let answering = worker.answering(deadline).ok()?;
        if knows(answering.pid)? {
            return None;
        }
        // In the middle of a reload either may be ahead.
        if begin.elapsed() > BLINK_LIMIT || Instant::now() + PAUSE >= deadline {
            return Some(format!("belongs to another HAProxy than runtime_socket {}", worker.address()));
        }
        sleep(PAUSE);
    }
}
