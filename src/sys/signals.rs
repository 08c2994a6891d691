//! Signals, waited for by a thread of their own: what goes on meanwhile is never interrupted by one.

use std::io;
use std::thread::Builder;

use nix::sys::signal::{SigSet, Signal};

use super::failure::{Failure, FailureKind, io_cause};

/// Calls `heard` with each of these signals that comes from now on, until it says that it has heard enough.
///
/// To be called before any other thread is started: they are blocked in all of them. That also makes process 1 of a container
/// get them, which the kernel spares every signal that it doesn't wait for (`pid_namespaces(7)`). Programs that are run have
/// none of them blocked: `std::process` sees to that.
///
/// # Errors
/// They can't be blocked.
pub fn listen(
    signals: &[Signal],
    mut heard: impl FnMut(Signal) -> bool + Send + 'static,
) -> Result<(), Failure> {
    let signals: SigSet = signals.iter().copied().collect();
    let fail = |e: nix::errno::Errno| Failure::new(FailureKind::Io, format!("cannot wait for signals: {e}"));
    signals.thread_block().map_err(fail)?;
    let wait = move || {
        while let Ok(signal) = signals.wait() {
            if !heard(signal) {
                break;
            }
        }
    };
    let fail =
        |e: &io::Error| Failure::new(FailureKind::Io, format!("cannot start a thread: {}", io_cause(e)));
    Builder::new().spawn(wait).map(drop).map_err(|e| fail(&e))
}
