//! The pidfile: SIGUSR2 to the master that it names.

use crate::config::Haproxy;
use crate::world::World;

use super::{Attempt, Batch};

/// Tells HAProxy this way.
#[must_use]
pub fn reload(world: &World, haproxy: &Haproxy, batch: &Batch<'_>) -> Attempt {
    let _ = (world, haproxy, batch);
    Attempt::NotApplicable("not implemented".to_owned())
}
