//! `assemble`: the whole pipeline, from certbot's tree to a HAProxy that took it.

mod asking;
mod before;
mod deciding;
mod left_alone;
mod notes;
mod notifying;
mod pruning;
mod readable;
mod strangers;
mod taken;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::time::{Duration, SystemTime};

use crate::certbot::foreign_renewal;
use crate::certbot::tree_mark::TreeMark;
use crate::commands::assemble::asking::ask;
use crate::commands::assemble::before::{is_before_certbot, missing_tree};
use crate::commands::assemble::deciding::planned;
use crate::commands::assemble::left_alone::left_alone;
use crate::commands::assemble::notes::{
    forced_in_vain, note_group_writable, notes_of_unlisted, notified_again, to_be_notified, troubles,
    unlisted, unloadable_left, unsaved, without_ours,
};
use crate::commands::assemble::notifying::notify_all;
use crate::commands::assemble::pruning::{start, verified};
use crate::commands::assemble::taken::note_taken;
use crate::config::{Haproxy, Settings};
use crate::haproxy::fingerprint::fingerprints;
use crate::haproxy::process::reader::shut;
use crate::index::{self, Index};
use crate::output::late::{late, undeployed};
use crate::output::{HaproxyRow, Note, Report};
use crate::plan::action::Action;
use crate::plan::row::Row;
use crate::plan::situation::Policy;
use crate::serving::gather::loaded;
use crate::serving::sites::without_tls;
use crate::sites;
use crate::sites::dir::SitesDir;
use crate::sites::last_run::LastRun;
use crate::source::Source;
use crate::status::out_of_step::out_of_step;
use crate::sweep::{prove, sweep};
use crate::sys::clock::{Moment, now};
use crate::sys::failure::Failure;
use crate::sys::parallel::Progress;
use crate::sys::system::System;

/// How the operator wants this run.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Only say what would be done.
    pub dry_run: bool,
    /// Read and prove everything, whatever the index says, and ask HAProxy what it serves.
    pub full: bool,
    /// Leave notifying HAProxy to the next run.
    pub defer_reload: bool,
    /// What the plan is to respect.
    pub policy: Policy,
    /// Note how certbot's tree is, so that it can be swept again should it change meanwhile.
    pub may_look_again: bool,
    /// certbot's `RENEWED_LINEAGE`, a hint.
    pub renewed_lineage: Option<OsString>,
}

/// Does a sweep, and reports it however far it came.
#[must_use]
pub fn assemble(settings: &Settings, system: &System, options: &Options, progress: Progress<'_>) -> Report {
    assemble_from(None, settings, system, options, progress)
}

/// The same from the settings' source where it is open already.
#[must_use]
pub fn assemble_from(
    source: Option<Source>,
    settings: &Settings,
    system: &System,
    options: &Options,
    progress: Progress<'_>,
) -> Report {
    let mut report = Report::begin(settings, options.dry_run);
    let hint = options.renewed_lineage.as_deref().filter(|_| settings.followed().is_none());
    let foreign = foreign_renewal(&settings.live_dir, hint);
    report.notes.extend(foreign.map(Note::alarm));
    let run = if options.dry_run { dry_run } else { deploy };
    if let Err(failure) = run(source, settings, system, options, progress, &mut report) {
        report.error.get_or_insert(failure);
    }
    if !options.dry_run {
        let undeployed = undeployed(&report, &LastRun::load(&settings.sites_dir).undeployed, now());
        report.note_late(late(&undeployed, now()));
    }
    report
}

/// Decides and changes nothing.
fn dry_run(
    source: Option<Source>,
    settings: &Settings,
    system: &System,
    options: &Options,
    progress: Progress<'_>,
    report: &mut Report,
) -> Result<(), Failure> {
    if is_before_certbot(settings, report)? {
        return Ok(());
    }
    let place = sites::looking::look_at(settings, system)?;
    let mut state = match &place {
        Some(place) => sites::looking::look_at_state(place)?,
        None => sites::state::State::default(),
    };
    state.pass_debts_on(settings, Some(now()));
    if let Some(place) = &place {
        note_group_writable(place, report);
    }
    let fingerprints = fingerprints(system, &settings.haproxys, |name| state.configuration_of(name));
    let source = source.map_or_else(|| Source::of(settings), Ok)?;
    let index = match &place {
        Some(place) if !options.full => {
            Index::look(settings, system, source.files().as_deref(), place, &state)
        }
        _ => Index::empty(None),
    };
    let policy = options.policy.clone();
    let mut swept =
        sweep(settings, (source, &index), place.as_ref(), &state, policy, &fingerprints, progress)?;
    report.note_proofs(&swept);
    swept.situation.loaded =
        loaded(settings, system, |name| state.configuration_of(name), &|file| index.seen(file));
    report.notes.extend(forced_in_vain(&swept.situation));
    let last = |name: &str| state.last_start.get(name);
    let mut plan = planned(settings, system, &mut swept.situation, last).0;
    let last_run = LastRun::look(&settings.sites_dir).ok().flatten();
    sites::looking::foresee(place.as_ref(), last_run.as_ref(), &mut plan);
    let shut = shut(settings, system, &swept.situation.loaded);
    readable::hold(&shut, &swept.situation, &mut plan);
    report.rows = plan.rows;
    report.notes.extend(readable::notes(&shut));
    report.notes.extend(unloadable_left(settings, &swept.situation.loaded, &report.rows));
    report.notes.extend(troubles(settings, &swept.situation.loaded));
    let unlisted = unlisted(settings, &swept.situation.loaded, &report.rows);
    report.notes.extend(notes_of_unlisted(settings, &unlisted));
    strangers::ask(settings, system, &swept.situation.loaded, last_run.as_ref(), &fingerprints, report);
    report.error = swept.failure;
    report.owed = state.lost
        || settings.haproxys.iter().any(|haproxy| state.owed.contains_key(&haproxy.name))
        || report.rows.iter().any(|row| sites::intent::takes_over(&state, settings, row));
    let out_of_step = if options.full { out_of_step(settings, system) } else { BTreeMap::new() };
    report.owed |= !out_of_step.is_empty();
    report.notes.extend(out_of_step.values().map(to_be_notified));
    missing_tree(settings, swept.live_dir_missing, state.knows_lineages())
}

/// The pipeline: lock, sweep, plan, stage, ask, commit, notify, and keep or put back.
fn deploy(
    source: Option<Source>,
    settings: &Settings,
    system: &System,
    options: &Options,
    progress: Progress<'_>,
    report: &mut Report,
) -> Result<(), Failure> {
    report.tree = options.may_look_again.then(|| TreeMark::look(settings));
    if is_before_certbot(settings, report)? {
        return Ok(());
    }
    let mut sites = SitesDir::lock(settings, system, patience(settings))?;
    note_group_writable(&sites.place, report);
    let known = sites.state.last_start.clone();
    let fingerprints_now = || {
        let last = |name: &str| known.get(name).map(|last| last.configuration.as_slice()).unwrap_or_default();
        fingerprints(system, &settings.haproxys, last)
    };
    let who = fingerprints_now();
    let began = Moment::now();
    if let Some(tree) = &mut report.tree {
        tree.begins_now();
    }
    let source = source.map_or_else(|| Source::of(settings), Ok)?;
    let index = match index::stamp(settings, system, &began) {
        stamp if options.full => Index::empty(stamp),
        stamp => Index::recall(
            settings,
            source.files().as_deref(),
            &sites.place,
            sites.own(),
            &sites.state,
            stamp,
            &began,
        ),
    };
    let policy = options.policy.clone();
    let mut swept =
        sweep(settings, (source, &index), Some(&sites.place), &sites.state, policy, &who, progress)?;
    report.note_proofs(&swept);
    swept.situation.loaded =
        loaded(settings, system, |name| sites.state.configuration_of(name), &|file| index.seen(file));
    for (name, files) in &swept.situation.loaded.configurations {
        sites.remember_start(name, |start| start.configuration.clone_from(files));
    }
    for (name, file) in &swept.situation.loaded.openssl_confs {
        sites.remember_start(name, |start| start.openssl_conf.clone_from(file));
    }
    let ours = sites.state.knows_lineages();
    let source = swept.source;
    let supply = |row: &Row| prove(&source, row.lineage.as_deref().unwrap_or_default());

    let index = index.successor(swept.read > 0);
    report.notes.extend(forced_in_vain(&swept.situation));
    let last = |name: &str| sites.state.last_start.get(name);
    let (mut plan, startable) = planned(settings, system, &mut swept.situation, last);
    let shut = shut(settings, system, &swept.situation.loaded);
    readable::hold(&shut, &swept.situation, &mut plan);
    report.notes.extend(readable::notes(&shut));
    let (missing, unread, proved) = (swept.live_dir_missing, swept.failure, swept.proved);
    let before = std::mem::take(&mut swept.situation.loaded);
    drop(swept.situation);
    let full = options.full && !options.defer_reload;
    let out_of_step = if full { out_of_step(settings, system) } else { BTreeMap::new() };
    for (name, it) in &out_of_step {
        sites.owe(settings, name, it.files.as_ref(), now());
        report.notes.push(notified_again(it));
    }
    let mut staged = sites.stage(settings, plan, &supply, progress);
    ask(settings, system, &mut staged);
    note_taken(settings, &mut staged);
    let mut committed = staged.commit(now())?;
    if !out_of_step.is_empty() {
        // A worker that started before has been changed since.
        committed.at = SystemTime::now();
    }
    verified(system, &startable, &mut committed, &who);
    let seen = |file: &OsStr| index.seen(file);
    let start = |haproxy: &Haproxy| start(before.stopped.get(&haproxy.name), known.get(&haproxy.name));
    let endings = notify_all(settings, system, options.defer_reload, &mut committed, (&who, &seen), &start);
    let after = fingerprints_now();
    committed.still_refused(&who, &after);
    let owed = endings.iter().map(|ending| (ending.haproxy.clone(), ending.owed)).collect();
    let (plan, failure) = committed.keep(&owed);
    report.notes.extend(index.save(sites.own(), &proved).err().map(|failure| unsaved(&failure)));

    report.rows = plan.rows;
    report.notes.extend(unloadable_left(settings, &before, &report.rows));
    let has_changed = report.rows.iter().any(|row| row.action.writes() || row.action == Action::Prune);
    let loaded_now = if has_changed {
        let seen = left_alone(&report.rows, &seen);
        loaded(settings, system, |name| sites.state.configuration_of(name), &seen)
    } else {
        before
    };
    report.notes.extend(troubles(settings, &loaded_now));
    let unlisted = unlisted(settings, &loaded_now, &report.rows);
    report.notes.extend(notes_of_unlisted(settings, &unlisted));
    let writes_unlisted = unlisted.iter().any(|(row, _)| row.action.writes());
    report.haproxy = endings.into_iter().map(HaproxyRow::of).collect();
    let last_run = LastRun::look(&settings.sites_dir).ok().flatten();
    strangers::ask(settings, system, &loaded_now, last_run.as_ref(), &after, report);
    let is_unpresented = writes_unlisted || without_tls(settings, &loaded_now).next().is_some();
    // One that reloaded has nothing of ours all the same.
    let loads_none = |name: &str| without_ours(settings, &loaded_now).any(|(it, _)| it.name == name);
    report.withhold_confirmation(|name| is_unpresented || loads_none(name));
    report.error = failure.or(unread);
    missing_tree(settings, missing, ours)
}

/// As long as the longest time-out of whoever holds the lock, and a minute more.
#[must_use]
pub fn patience(settings: &Settings) -> Duration {
    let longest = settings.haproxys.iter().map(|haproxy| haproxy.timeout).max().unwrap_or_default();
    longest + Duration::from_secs(60)
}
