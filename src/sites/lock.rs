//! One run at a time: a lock on the sites directory itself.
//!
//! Not certbot's lock: a run may be inside a hook of the certbot that holds it.

use std::time::Duration;

use crate::sites::place::Place;
use crate::sys::escape::escaped_path;
use crate::sys::failure::{Failure, FailureKind};
use crate::sys::folder_lock::{self, NotLocked};
use crate::sys::system::System;

/// Locks the directory, waiting as long as `patience`.
pub(super) fn lock(place: &Place, system: &System, patience: Duration) -> Result<(), Failure> {
    folder_lock::lock(&place.dir, patience, &system.proc).map_err(|not_locked| match not_locked {
        NotLocked::Held(by) => {
            let (shown, by) = (escaped_path(&place.path), by.unwrap_or_else(|| "another run".to_owned()));
            let fact = format!("{shown} is locked by {by}; wait for it to end, or end it");
            Failure::new(FailureKind::Lock, fact)
        }
        NotLocked::Failed(e) => Failure::io("lock", &place.path, &e.into()),
    })
}
