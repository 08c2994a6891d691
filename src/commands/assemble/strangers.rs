//! Files that aren't ours: HAProxy is asked whether it would load them, once for each of their changes and of its own.

use std::ffi::OsStr;

use crate::config::Settings;
use crate::haproxy::untried::{Culprit, Strangers, culprit};
use crate::haproxy::verdict::Outcome;
use crate::output::{Note, Report};
use crate::plan::action::Action;
use crate::plan::names::is_loaded_name;
use crate::plan::row::{Role, Row};
use crate::serving::loads::{Loaded, move_out};
use crate::sites::last_run::LastRun;
use crate::status::checking::{Checked, check};
use crate::sys::escape::escaped;
use crate::sys::system::System;

/// Asks the HAProxys, where no run has done so; what they name that isn't said yet becomes a note. `fingerprints`: which
/// HAProxys these are.
pub(crate) fn ask(
    settings: &Settings,
    system: &System,
    loaded: &Loaded,
    last_run: Option<&LastRun>,
    fingerprints: &str,
    report: &mut Report,
) {
    let strangers = Strangers::of(settings, loaded, report.rows.iter());
    if strangers.is_empty() {
        return;
    }
    let mark = strangers.mark(fingerprints);
    let is_known = last_run.is_some_and(|run| run.accepted.as_ref() == Some(&mark));
    // Who has just been reloaded has read them.
    let has_read = |name: &str| {
        report.haproxy.iter().any(|row| row.name == *name && is_fresh(row.outcome, row.confirmed))
    };
    let mut accept = true;
    let mut found: Vec<Note> = Vec::new();
    let all = settings.haproxys.iter().enumerate();
    for (place, haproxy) in all.filter(|(_, haproxy)| !is_known && !has_read(&haproxy.name)) {
        match check(system, haproxy, loaded.stopped.get(&haproxy.name)) {
            Checked::Accepted => {}
            Checked::Unasked(_) => {
                accept = false;
                let lists = loaded.servings.get(place).into_iter().flat_map(|serving| &serving.broken_lists);
                found.extend(lists.map(|list| Note::unloadable(&list.path, &list.why, &list.advice())));
            }
            Checked::Refused { log, words, advice } => {
                accept = false;
                let around = (loaded, loaded.servings.get(place));
                let is_said =
                    report.haproxy.iter().any(|row| row.name == haproxy.name && row.advice.is_some());
                found.extend(match culprit(settings, haproxy, around, report.rows.iter(), &log) {
                    Some(culprit) => Some(note(settings, loaded, &report.rows, &culprit)),
                    None if is_said => None,
                    None => Some(Note::alarm(format!(
                        "{} refuses its configuration ({words}), and won't start again: {advice}",
                        escaped(&haproxy.name)
                    ))),
                });
            }
        }
    }
    if accept {
        report.accepted = Some(mark);
    }
    for new in found {
        let is_same =
            |note: &Note| *note == new || new.unloadable.is_some() && note.unloadable == new.unloadable;
        if !report.notes.iter().any(is_same) {
            report.notes.push(new);
        }
    }
}

fn is_fresh(outcome: Outcome, confirmed: Option<bool>) -> bool {
    outcome == Outcome::Reloaded && confirmed == Some(true)
}

fn note(settings: &Settings, loaded: &Loaded, rows: &[Row], found: &Culprit) -> Note {
    let Culprit { path, why } = found;
    let file = path.file_name().unwrap_or_default();
    let is_site = path.parent() == Some(settings.sites_dir.as_path());
    let advice = match loaded.named.get(file).filter(|_| is_site) {
        Some(at) => format!("put a certificate with its key there, or take it out of {at}"),
        None if !is_site => "what mends it says haproxy-certs status".to_owned(),
        None if is_loaded_name(file) && is_last(rows, file) => {
            "put a certificate with its key there".to_owned()
        }
        None => move_out(path),
    };
    Note::unloadable(path, why, &advice)
}

/// Whether no other file of the sites directory would be left that HAProxy can load.
fn is_last(rows: &[Row], file: &OsStr) -> bool {
    let stays = |row: &Row| row.action.writes() || (row.loadable && row.action != Action::Prune);
    let is_other = |row: &Row| row.role == Role::Site && row.file.as_deref() != Some(file);
    !rows.iter().any(|row| is_other(row) && stays(row))
}
