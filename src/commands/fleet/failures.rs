//! What fails in a fleet, as a command's failure.

use crate::fleet::store::StoreError;
use crate::sys::failure::{Failure, FailureKind};

/// The store can't be read or written.
pub(super) fn in_store(error: &StoreError) -> Failure {
    let kind = match error {
        StoreError::Locked { .. } => FailureKind::Lock,
        _ => FailureKind::Io,
    };
    Failure::new(kind, format!("the fleet's store: {error}"))
}

/// Something can't be encrypted.
pub(super) fn unsealed(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(FailureKind::Io, format!("cannot seal: {error}"))
}
