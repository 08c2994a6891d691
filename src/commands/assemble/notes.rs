//! What a run notices beside its rows.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};

use crate::config::{Haproxy, Settings};
use crate::haproxy::tableless::tableless;
use crate::host_setup::bind_words::what_to_add;
use crate::output::{HaproxyRow, Note, Report};
use crate::plan::action::Action;
use crate::plan::row::{Role, Row};
use crate::plan::situation::{Recorded, Situation};
use crate::plan::unreached::{lines, unreached};
use crate::serving::loads::{Bind, Contents, KEY_LINE, Loaded, Serving, Store, move_out};
use crate::serving::one_by_one::{LineLookup, Unreached, passed_over};
use crate::serving::sites::{is_in, unloadable, without_tls};
use crate::sites::guard;
use crate::sites::place::Place;
use crate::sites::state::State;
use crate::status::out_of_step::OutOfStep;
use crate::sys::escape::{escaped, escaped_path, shell_word};
use crate::sys::failure::Failure;
use crate::sys::system::System;

/// A note for each file that isn't ours to mend, or that stayed as it was, and that HAProxy can't load.
pub(crate) fn unloadable_left(settings: &Settings, loaded: &Loaded, rows: &[Row]) -> Vec<Note> {
    let is_left = |row: &Row| !row.proved || matches!(row.action, Action::Refuse | Action::Conflict);
    let left: BTreeSet<&OsStr> = rows
        .iter()
        .filter(|row| row.role == Role::Site && is_left(row) && row.action != Action::Prune)
        .filter_map(|row| row.file.as_deref())
        .collect();
    if left.is_empty() {
        return Vec::new();
    }
    let is_passed_over = passed_over(settings, loaded);
    let is_good = |file: &OsStr| !left.contains(file) || is_passed_over(file);
    let found = unloadable(&settings.sites_dir, loaded.oldest(), &is_good);
    let stays = |row: &Row| row.action.writes() || (row.loadable && row.action != Action::Prune);
    let is_last = !rows.iter().any(|row| row.role == Role::Site && stays(row));
    found
        .into_iter()
        .map(|(file, why)| {
            let path = settings.sites_dir.join(&file);
            let advice = match loaded.named.get(&file) {
                Some(at) => format!("put a certificate with its key there, or take it out of {at}"),
                None if is_last => "put a certificate with its key there".to_owned(),
                None => move_out(&path),
            };
            Note::unloadable(&path, &why, &advice)
        })
        .collect()
}

/// A note for each file from elsewhere that keeps a HAProxy from starting, and for each, ours too, that it can't serve.
pub(crate) fn troubles(settings: &Settings, loaded: &Loaded) -> Vec<Note> {
    let stores =
        loaded.servings.iter().flat_map(|serving| serving.stores.iter().map(move |it| (serving, it)));
    let mut notes: BTreeSet<Note> = stores
        .filter_map(|(serving, (name, store))| {
            let path = escaped_path(&store.path);
            match &store.contents {
                Contents::Unserved { why, .. } => Some(Note::alarm(format!(
                    "HAProxy can't serve {path} once it starts again: {why}; {KEY_LINE}"
                ))),
                Contents::Unloadable { why, .. } if !is_in(&settings.sites_dir, loaded.sites, store) => {
                    let advice = match serving.line_of(name) {
                        Some(at) => {
                            format!("put a certificate with its key there, or take it out of {at}")
                        }
                        None => "what mends it says haproxy-certs status".to_owned(),
                    };
                    Some(Note::unloadable(&store.path, why, &advice))
                }
                Contents::Pair(_) | Contents::Unloadable { .. } | Contents::Unseen(_) => None,
            }
        })
        .collect();
    notes.extend(without_tls(settings, loaded).map(|(haproxy, bind)| Note::alarm(no_tls(haproxy, bind))));
    // One in a container may have the paths of our settings and be another one.
    notes.extend(without_ours(settings, loaded).map(|(haproxy, serving)| {
        let (name, sites) = (escaped(&haproxy.name), escaped_path(&settings.sites_dir));
        let what = what_to_add(haproxy, serving);
        Note::alarm(format!(
            "{name} loads nothing from {sites}: add to its configuration, and reload it: {what}"
        ))
    }));
    notes.into_iter().collect()
}

/// What is to be said of a bind line that loads certificates and serves none.
fn no_tls(haproxy: &Haproxy, bind: &Bind) -> String {
    let (name, place) = (escaped(&haproxy.name), format!("{} ({})", escaped(&bind.section), bind.at));
    let (fact, advice) = bind.silence();
    format!("no client of {name} is presented a certificate: {place} {fact}; {advice}, then reload HAProxy")
}

/// How many files are noted one by one.
const MAX_NOTED: usize = 3;

/// The rows whose files no line of HAProxy's configuration names, and why.
pub(crate) fn unlisted<'a>(
    settings: &Settings,
    loaded: &Loaded,
    rows: &'a [Row],
) -> Vec<(&'a Row, Unreached)> {
    let lines = lines(settings, loaded);
    rows.iter().filter_map(|row| Some((row, why_unlisted(settings, &lines, row)?))).collect()
}

/// A note for each of these, and for the rest of many.
pub(crate) fn notes_of_unlisted(settings: &Settings, found: &[(&Row, Unreached)]) -> Vec<Note> {
    let noted = found.iter().take(MAX_NOTED).map(|(row, why)| {
        let file = row.file.as_deref().unwrap_or_default();
        let path = settings.sites_dir.join(file);
        let (path, fact, advice) = (escaped_path(&path), why.fact(), why.advice(file));
        format!("no client is presented {path}: {fact}: {advice}; then reload HAProxy")
    });
    let rest = found.len().checked_sub(MAX_NOTED).filter(|&rest| rest > 0);
    let rest = rest.map(|rest| format!("{rest} more like it: haproxy-certs status lists them"));
    noted.chain(rest).map(Note::alarm).collect()
}

/// Why no line names what a row deploys, or has deployed.
fn why_unlisted(settings: &Settings, lines: &LineLookup<'_>, row: &Row) -> Option<Unreached> {
    let is_deployed = row.action.writes() || row.action == Action::Unchanged;
    let leaf = row.leaf.as_ref().filter(|_| is_deployed)?;
    unreached(settings, lines, row, leaf).filter(Unreached::is_unnamed)
}

/// The HAProxys that surely run with a configuration that loads none of our files.
pub(crate) fn without_ours<'a>(
    settings: &'a Settings,
    loaded: &'a Loaded,
) -> impl Iterator<Item = (&'a Haproxy, &'a Serving)> {
    let is_here = |haproxy: &Haproxy| loaded.configurations.contains_key(&haproxy.name);
    let haproxys = settings.haproxys.iter().zip(&loaded.servings);
    haproxys
        .filter(move |(haproxy, _)| is_here(haproxy))
        .filter(|(_, serving)| loads_nothing_of_ours(settings, loaded, serving))
}

/// Whether it is surely known what a HAProxy loads, and none of our files are among that.
fn loads_nothing_of_ours(settings: &Settings, loaded: &Loaded, serving: &Serving) -> bool {
    let is_ours = |store: &Store| {
        loaded.host.is_some() && store.identity == loaded.host
            || is_in(&settings.sites_dir, loaded.sites, store)
    };
    serving.unclear.is_none()
        && !loaded.sites.is_some_and(|sites| serving.loads_directory(sites))
        && !serving.stores.values().any(is_ours)
}

/// A note for each HAProxy that loads the directory and was told nothing of this run, which another one was seen to take, since no
/// table is about it.
pub(crate) fn untold_haproxys(
    settings: &Settings,
    system: &System,
    state: &State,
    report: &Report,
) -> Vec<Note> {
    let has_taken_it = |row: &HaproxyRow| row.confirmed == Some(true);
    if !report.haproxy.iter().any(has_taken_it) || report.haproxy.iter().any(HaproxyRow::is_bad) {
        return Vec::new();
    }
    let found = tableless(system, settings, Some(state));
    found.iter().map(|it| Note::fact(format!("{}; {}", it.fact(settings), it.advice(settings)))).collect()
}

/// The index is only a cache: a run is as good without it.
pub(crate) fn unsaved(failure: &Failure) -> Note {
    Note::hint(format!("the next run reads everything: {}", failure.message))
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
        .filter(|name| !situation.has_lineage(name) && !is_host(name) && !is_held(name))
        .map(|name| {
            let name = escaped(name.as_encoded_bytes());
            Note::fact(format!("--force {name}: there is no such lineage, or it is excluded"))
        })
        .collect()
}

pub(crate) fn note_group_writable(place: &Place, report: &mut Report) {
    for folder in guard::group_writable(&place.path) {
        let (shown, word) = (escaped_path(folder), shell_word(folder.as_os_str()));
        let text = format!("the group of {shown} may write to it; if that isn't meant: chmod g-w {word}");
        report.notes.push(Note::hint(text));
    }
}

/// That somebody else has changed a HAProxy's memory, which this run mends.
pub(crate) fn notified_again(found: &OutOfStep) -> Note {
    Note::fact(format!("{}; it is notified again", found.fact))
}

/// The same where nothing is done.
pub(crate) fn to_be_notified(found: &OutOfStep) -> Note {
    Note::fact(format!("{}; a run with --full notifies it again", found.fact))
}
