//! A sites directory that is only looked at.

use std::path::Path;

use crate::config::{OWN_DIR, Settings};
use crate::plan::row::Plan;
use crate::sites::commit::hold_last_file;
use crate::sites::guard;
use crate::sites::last_run::LastRun;
use crate::sites::making::{host_place, nearest};
use crate::sites::place::Place;
use crate::sites::state::State;
use crate::sys::failure::Failure;
use crate::sys::system::System;

/// The state of a sites directory that is only looked at.
///
/// # Errors
/// See [`State::load`].
pub fn look_at_state(sites: &Place) -> Result<State, Failure> {
    match sites.subdirectory(OWN_DIR)? {
        Some(own) => State::load(&own.dir, &own.path),
        None => Ok(State::default()),
    }
}

/// Opens the sites directory to look at it, and makes the checks that a run makes which writes; `None`: it isn't there.
///
/// # Errors
/// What keeps a run from writing, as far as can be seen without it.
pub fn look_at(settings: &Settings, system: &System) -> Result<Option<Place>, Failure> {
    let place = Place::open(&settings.sites_dir)?;
    let missing = match &place {
        Some(_) => None,
        None => Some(nearest(&settings.sites_dir)?),
    };
    if let Some(existing) = place.as_ref().or(missing.as_ref()) {
        guard::check(&existing.path, settings, system)?;
        let folder = settings.host_file.parent().unwrap_or(Path::new("/"));
        // It is made together with the sites directory.
        let will_be_made = !folder.exists() && settings.sites_dir.starts_with(folder);
        if settings.host_lineage.is_some() && !will_be_made {
            host_place(settings, system, existing)?;
        }
    }
    Ok(place)
}

/// Makes a plan what a run would make of it: what HAProxy refused in the last one it refuses again, and the last file stays.
pub fn foresee(place: Option<&Place>, last_run: Option<&LastRun>, plan: &mut Plan) {
    if let Some(last_run) = last_run {
        last_run.refuse_rejected(plan);
    }
    if let Some(place) = place {
        hold_last_file(place, plan);
    }
}
