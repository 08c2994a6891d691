//! One run at a time: a lock on the sites directory itself.
//!
//! Not certbot's lock: a run may be inside a hook of the certbot that holds it.

use std::time::Duration;

use crate::sites::place::Place;
use crate::sys::failure::Failure;
use crate::sys::folder_lock;
use crate::sys::system::System;

/// Locks the directory, waiting as long as `patience`.
pub(super) fn lock(place: &Place, system: &System, patience: Duration) -> Result<(), Failure> {
    folder_lock::lock(&place.dir, patience, &system.proc).map_err(|failed| failed.failure(&place.path))
}
