//! What a publish that fails has to say all the same: the keys that it made, and whose heads the nodes are to take.

use std::path::PathBuf;

use crate::commands::fleet::publish::{Published, Wanted, publish};
use crate::config::Settings;
use crate::fleet::identity::HostIdentity;
use crate::sys::failure::Failure;
use crate::sys::host_name::host_name;
use crate::sys::parallel::Progress;

/// The keys of a publisher whose publish failed.
#[derive(Debug, Clone)]
pub struct Announced {
    /// The identity file, where it was made now.
    pub made: Option<PathBuf>,
    /// The line for the nodes' `publishers`.
    pub line: String,
}

/// Publishes what changed, see [`publish`].
///
/// # Errors
/// As for [`publish`], with this host's keys where it came as far as to have them.
pub fn publish_announcing(
    settings: &Settings,
    wanted: Wanted,
    progress: Progress<'_>,
) -> Result<Published, (Failure, Option<Announced>)> {
    let file = settings.published().map(|fleet| &fleet.identity);
    let had_keys = file.is_some_and(|file| file.symlink_metadata().is_ok());
    publish(settings, wanted, progress).map_err(|failure| {
        let announced = file.and_then(|file| {
            let line = HostIdentity::load(file).ok()??.public().signing.line(&host_name());
            Some(Announced { made: (!had_keys).then(|| file.clone()), line })
        });
        (failure, announced)
    })
}
