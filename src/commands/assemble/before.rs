//! Whether there is anything to do: certbot may have no tree yet, or have lost it.

use crate::config::Settings;
use crate::output::{Note, Report};
use crate::sites;
use crate::sites::place::Place;
use crate::source::{absence, is_there};
use crate::sys::escape::escaped_path;
use crate::sys::failure::{Failure, FailureKind};

/// A missing tree is no error before certbot's first certificate, but it is one afterwards.
pub(crate) fn missing_tree(settings: &Settings, missing: bool, ours: bool) -> Result<(), Failure> {
    if !(missing && ours) {
        return Ok(());
    }
    Err(Failure::new(FailureKind::Io, absence(settings)))
}

/// Whether certbot has no tree and nothing was ever deployed.
pub(crate) fn is_before_certbot(settings: &Settings, report: &mut Report) -> Result<bool, Failure> {
    let is_before = !is_there(settings)? && nothing_deployed(settings)?;
    if is_before {
        let text = format!("there is no {} yet: nothing to do", escaped_path(&settings.live_dir));
        report.notes.push(Note::fact(text));
    }
    Ok(is_before)
}

fn nothing_deployed(settings: &Settings) -> Result<bool, Failure> {
    Ok(match Place::open(&settings.sites_dir)? {
        Some(place) => {
            let state = sites::looking::look_at_state(&place)?;
            !state.knows_lineages() && state.owed.is_empty() && !state.lost
        }
        None => true,
    })
}
