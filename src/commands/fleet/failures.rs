//! What fails in a fleet, as a command's failure.

use crate::sys::failure::{Failure, FailureKind};

/// The store can't be read or written.
pub(super) fn in_store(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(FailureKind::Io, format!("the fleet's store: {error}"))
}

/// Something can't be encrypted.
pub(super) fn unsealed(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(FailureKind::Io, format!("cannot seal: {error}"))
}
