//! What a run notices beside its rows.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};

use crate::config::Settings;
use crate::output::{Note, Report, Weight};
use crate::plan::action::Action;
use crate::plan::row::{Role, Row};
use crate::plan::situation::{Recorded, Situation};
use crate::serving::gather::unloadable;
use crate::sites::guard;
use crate::sites::place::Place;
use crate::sys::escape::{escaped, escaped_path};
use crate::sys::failure::Failure;

/// A note for each file that isn't ours to mend, or that stayed as it was, and that HAProxy can't load.
pub(crate) fn unloadable_left(settings: &Settings, version: Option<(u32, u32)>, rows: &[Row]) -> Vec<Note> {
    let is_left = |row: &Row| !row.proved || matches!(row.action, Action::Refuse | Action::Conflict);
    let left: BTreeSet<&OsStr> = rows
        .iter()
        .filter(|row| row.role == Role::Site && is_left(row) && row.action != Action::Prune)
        .filter_map(|row| row.file.as_deref())
        .collect();
    if left.is_empty() {
        return Vec::new();
    }
    let is_good = |file: &OsStr| !left.contains(file);
    let found = unloadable(&settings.sites_dir, version, &is_good);
    found
        .into_iter()
        .map(|(file, why)| {
            let path = settings.sites_dir.join(file);
            let text = format!(
                "HAProxy can't load {} ({why}), and won't start again; what mends it says: haproxy-certs status",
                escaped_path(&path)
            );
            Note { text, weight: Weight::Alarm }
        })
        .collect()
}

/// The index is only a cache: a run is as good without it.
pub(crate) fn unsaved(failure: &Failure) -> Note {
    Note { text: format!("the next run reads everything: {}", failure.message), weight: Weight::Hint }
}

/// A note for each name that was forced and is no lineage: mistyped, as a rule.
pub(crate) fn forced_in_vain(situation: &Situation) -> Vec<Note> {
    let is_host = |name: &OsString| situation.host.as_ref().is_some_and(|host| host.lineage == *name);
    let is_held = |name: &OsString| {
        let of_it = |recorded: &Recorded| recorded.lineage == *name && recorded.prune_refused.is_some();
        situation.recorded.values().any(of_it)
    };
    let forced = situation.policy.force.iter();
    forced
        .filter(|name| !situation.lineages.contains_key(*name) && !is_host(name) && !is_held(name))
        .map(|name| {
            let name = escaped(name.as_encoded_bytes());
            let text = format!("--force {name}: there is no such lineage, or it is excluded");
            Note { text, weight: Weight::Fact }
        })
        .collect()
}

pub(crate) fn note_group_writable(place: &Place, report: &mut Report) {
    for folder in guard::group_writable(&place.path) {
        let shown = escaped_path(folder);
        let text = format!("the group of {shown} may write to it; if that isn't meant: chmod g-w {shown}");
        report.notes.push(Note { text, weight: Weight::Hint });
    }
}
