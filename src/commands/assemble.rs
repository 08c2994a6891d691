//! `assemble`: the whole pipeline, from certbot's tree to a HAProxy that took it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::certbot::{CertbotTree, foreign_renewal};
use crate::certified_key::{CertifiedKey, read_leaf};
use crate::config::{Haproxy, Method, Settings};
use crate::haproxy;
use crate::haproxy::batch::{Batch, Change, Expected};
use crate::haproxy::cli::worker::can_be_shown;
use crate::haproxy::fingerprint::identity;
use crate::haproxy::process::surroundings::{OPENSSL_CONF, remembered, surroundings};
use crate::haproxy::staged_check::{self, Unchecked};
use crate::haproxy::target::Target;
use crate::haproxy::verdict::{Outcome, Verdict};
use crate::index::{self, Index};
use crate::output::{HaproxyRow, Note, Report, Weight};
use crate::plan::action::Action;
use crate::plan::plan;
use crate::plan::reason::Reason;
use crate::plan::refusal::Refusal;
use crate::plan::row::{Role, Row};
use crate::plan::situation::{Policy, Recorded, Situation};
use crate::plan::warning::Warning;
use crate::serving::gather::{Known, gather, identity as identity_of, loaded, unloadable};
use crate::serving::loads::{Contents, Identity, move_out};
use crate::sites::commit::Committed;
use crate::sites::dir::SitesDir;
use crate::sites::place::Place;
use crate::sites::stage::Staged;
use crate::sites::{self, guard};
use crate::sweep::{now, prove, sweep};
use crate::sys::escape::{escaped, escaped_path};
use crate::sys::failure::{Failure, FailureKind};
use crate::sys::parallel::Progress;
use crate::sys::system::System;

/// How many times a HAProxy that refuses files is told again without them; then the whole batch goes back.
const MAX_ROLL_BACKS: usize = 16;

/// How the operator wants this run.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Only say what would be done.
    pub dry_run: bool,
    /// Read and prove everything, whatever the index says.
    pub full: bool,
    /// Leave telling HAProxy to the next run.
    pub defer_reload: bool,
    /// What the plan is to respect.
    pub policy: Policy,
    /// certbot's `RENEWED_LINEAGE`, a hint.
    pub renewed_lineage: Option<OsString>,
}

/// Does a sweep, and reports it however far it came.
#[must_use]
pub fn assemble(settings: &Settings, system: &System, options: &Options, progress: Progress<'_>) -> Report {
    let mut report = Report::begin(settings, options.dry_run);
    let foreign = foreign_renewal(&settings.live_dir, options.renewed_lineage.as_deref());
    report.notes.extend(foreign.map(|text| Note { text, weight: Weight::Alarm }));
    let run = if options.dry_run { dry_run } else { deploy };
    if let Err(failure) = run(settings, system, options, progress, &mut report) {
        report.error.get_or_insert(failure);
    }
    report
}

/// Decides and changes nothing.
fn dry_run(
    settings: &Settings,
    system: &System,
    options: &Options,
    progress: Progress<'_>,
    report: &mut Report,
) -> Result<(), Failure> {
    if is_before_certbot(settings, report)? {
        return Ok(());
    }
    let place = sites::looking::look_at(settings)?;
    let mut state = match &place {
        Some(place) => sites::looking::look_at_state(place)?,
        None => sites::state::State::default(),
    };
    state.pass_debts_on(settings);
    if let Some(place) = &place {
        note_group_writable(place, report);
    }
    let identity = identity(system, &settings.haproxys);
    let index = match &place {
        Some(place) if !options.full => Index::look(settings, system, place, &state),
        _ => Index::empty(None),
    };
    let mut swept =
        sweep(settings, place.as_ref(), &state, options.policy.clone(), &identity, &index, progress)?;
    report.note_proofs(&swept);
    swept.situation.loaded = loaded(settings, system);
    report.notes.extend(forced_in_vain(&swept.situation));
    report.rows = plan(&swept.situation).rows;
    report.notes.extend(unloadable_left(settings, &report.rows));
    report.error = swept.failure;
    report.owed = state.lost
        || settings.haproxys.iter().any(|haproxy| state.owed.contains_key(&haproxy.name))
        || report.rows.iter().any(|row| sites::commit::takes_over(&state, settings, row));
    missing_tree(settings, swept.live_dir_missing, state.knows_lineages())
}

/// The pipeline: lock, sweep, plan, stage, ask, commit, tell, and keep or put back.
fn deploy(
    settings: &Settings,
    system: &System,
    options: &Options,
    progress: Progress<'_>,
    report: &mut Report,
) -> Result<(), Failure> {
    if is_before_certbot(settings, report)? {
        return Ok(());
    }
    let mut sites = SitesDir::lock(settings, system, patience(settings))?;
    note_group_writable(&sites.place, report);
    let who = identity(system, &settings.haproxys);
    let stamp = index::stamp(settings, system);
    let index = match options.full {
        true => Index::empty(stamp),
        false => Index::recall(settings, &sites.place, sites.own(), &sites.state, stamp),
    };
    let policy = options.policy.clone();
    let mut swept = sweep(settings, Some(&sites.place), &sites.state, policy, &who, &index, progress)?;
    report.note_proofs(&swept);
    swept.situation.loaded = loaded(settings, system);
    let ours = sites.state.knows_lineages();
    let tree = CertbotTree::new(&settings.live_dir);
    let supply = |row: &Row| prove(&tree, row.lineage.as_deref().unwrap_or_default());

    report.notes.extend(forced_in_vain(&swept.situation));
    let plan = plan(&swept.situation);
    let (missing, unread, proved) = (swept.live_dir_missing, swept.failure, swept.proved);
    drop(swept.situation);
    let mut staged = sites.stage(settings, plan, &supply, progress);
    ask(settings, system, &mut staged);
    let mut committed = staged.commit(now())?;
    let verdicts = tell_all(settings, system, options, &mut committed, &who);
    committed.still_refused(&who, &identity(system, &settings.haproxys));
    let owed = verdicts.iter().map(|row| (row.name.clone(), row.owed)).collect();
    let (plan, failure) = committed.keep(&owed);
    index.save(sites.own(), &proved).unwrap_or_else(|failure| report.notes.push(unsaved(&failure)));

    report.rows = plan.rows;
    report.notes.extend(unloadable_left(settings, &report.rows));
    report.haproxy = verdicts;
    report.error = failure.or(unread);
    missing_tree(settings, missing, ours)
}

/// The index is only a cache: a run is as good without it.
fn unsaved(failure: &Failure) -> Note {
    Note { text: format!("the next run reads everything: {}", failure.message), weight: Weight::Hint }
}

/// A missing tree is no error before certbot's first certificate, but it is one afterwards.
fn missing_tree(settings: &Settings, missing: bool, ours: bool) -> Result<(), Failure> {
    if !(missing && ours) {
        return Ok(());
    }
    let live_dir = escaped_path(&settings.live_dir);
    let fact = format!(
        "{live_dir} is missing; what was deployed from it stays. Set live_dir if certbot's tree moved"
    );
    Err(Failure::new(FailureKind::Io, fact))
}

/// A note for each file that isn't ours to mend, or that stayed as it was, and that HAProxy can't load.
fn unloadable_left(settings: &Settings, rows: &[Row]) -> Vec<Note> {
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
    let found = unloadable(&settings.sites_dir, None, &is_good);
    found
        .into_iter()
        .map(|(file, why)| {
            let path = settings.sites_dir.join(file);
            let text = format!(
                "HAProxy can't load {} ({why}), and won't start again: {}",
                escaped_path(&path),
                move_out(&path)
            );
            Note { text, weight: Weight::Alarm }
        })
        .collect()
}

/// A note for each name that was forced and is no lineage: mistyped, as a rule.
fn forced_in_vain(situation: &Situation) -> Vec<Note> {
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

/// Whether certbot has no tree and nothing was ever deployed.
fn is_before_certbot(settings: &Settings, report: &mut Report) -> Result<bool, Failure> {
    let is_there = settings.live_dir.try_exists();
    let is_there = is_there.map_err(|e| Failure::io("look at", &settings.live_dir, &e))?;
    let is_before = !is_there && nothing_deployed(settings)?;
    if is_before {
        let text = format!("there is no {} yet: nothing to do", escaped_path(&settings.live_dir));
        report.notes.push(Note { text, weight: Weight::Fact });
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

/// As long as the longest time-out of whoever holds the lock, and a minute more.
#[must_use]
pub fn patience(settings: &Settings) -> Duration {
    let longest = settings.haproxys.iter().map(|haproxy| haproxy.timeout).max().unwrap_or_default();
    longest + Duration::from_secs(60)
}

fn note_group_writable(place: &Place, report: &mut Report) {
    for folder in guard::group_writable(&place.path) {
        let shown = escaped_path(folder);
        let text = format!("the group of {shown} may write to it; if that isn't meant: chmod g-w {shown}");
        report.notes.push(Note { text, weight: Weight::Hint });
    }
}

/// Asks HAProxy whether it would load what is staged; what it rejects is refused.
fn ask(settings: &Settings, system: &System, staged: &mut Staged<'_>) {
    let mut asked = BTreeSet::new();
    for haproxy in &settings.haproxys {
        let Some(binary) = &haproxy.binary else { continue };
        let host = staged.show_host();
        let files: Vec<String> = staged.files().into_iter().chain(host.clone()).collect();
        if files.is_empty() {
            continue;
        }
        let seen = surroundings(system, haproxy);
        if let Some(seen) = &seen {
            staged.remember_openssl_conf(&haproxy.name, seen.variable(OPENSSL_CONF));
        }
        let surroundings = seen.or_else(|| staged.openssl_conf(&haproxy.name).map(remembered));
        if !asked.insert((binary, surroundings.clone())) {
            if let Some(host) = &host {
                staged.drop_file(host);
            }
            continue;
        }
        staged.copy_siblings();
        let deadline = Instant::now() + haproxy.timeout;
        let mut remove = |file: &str| {
            staged.drop_file(file);
            Ok(())
        };
        let folder = staged.folder();
        let answer = staged_check::staged(
            system,
            haproxy,
            surroundings.as_ref(),
            folder,
            &files,
            deadline,
            &mut remove,
        );
        let rejected: BTreeMap<String, String> = answer.rejected.into_iter().collect();
        for file in rejected.keys().chain(&host) {
            staged.drop_file(file);
        }
        let unchecked = answer.checked.err();
        staged.amend(|row| {
            if !row.action.writes() {
                return;
            }
            let file = match row.role {
                Role::Site => row.file.as_ref().and_then(|file| file.to_str()),
                Role::Host => host.as_deref(),
            };
            let Some(file) = file else { return };
            if let Some(words) = rejected.get(file) {
                row.refuse(Refusal::new(Reason::HaproxyRejects, words.clone()));
            } else if let Some(Unchecked { why, .. }) =
                unchecked.as_ref().filter(|it| it.files.contains(file))
            {
                row.warnings.insert(Warning::NotChecked);
                row.detail.get_or_insert_with(|| why.clone());
            }
        });
    }
}

/// Tells each HAProxy what it is owed; where one refuses our files, the previous ones go back and all are told again.
fn tell_all(
    settings: &Settings,
    system: &System,
    options: &Options,
    committed: &mut Committed<'_>,
    identity: &str,
) -> Vec<HaproxyRow> {
    let mut rolled_back: BTreeMap<String, String> = BTreeMap::new();
    let mut verdicts: Vec<Option<Verdict>> = settings.haproxys.iter().map(|_| None).collect();
    let mut refusals = 0;
    while let Some((haproxy, verdict)) =
        settings.haproxys.iter().zip(&mut verdicts).find(|(_, verdict)| verdict.is_none())
    {
        let told = tell(settings, system, options, haproxy, committed);
        let refused = told.rejected.clone();
        *verdict = Some(told);
        if refused.is_empty() {
            continue;
        }
        refusals += 1;
        let words: Vec<String> = refused.iter().map(|(_, words)| words.clone()).collect();
        let back = if refusals > MAX_ROLL_BACKS {
            committed.put_all_back(&refused, identity)
        } else {
            committed.put_back(&refused, identity)
        };
        if !back.is_empty() {
            rolled_back.insert(haproxy.name.clone(), words.join("; "));
            // Whoever was told of the files that just went back is told once more.
            verdicts.fill_with(|| None);
        }
    }
    let rows = settings.haproxys.iter().zip(verdicts.into_iter().flatten());
    rows.map(|(haproxy, verdict)| HaproxyRow::new(&haproxy.name, verdict, rolled_back.remove(&haproxy.name)))
        .collect()
}

/// Tells one HAProxy what it is owed.
fn tell(
    settings: &Settings,
    system: &System,
    options: &Options,
    haproxy: &Haproxy,
    committed: &Committed<'_>,
) -> Verdict {
    let quiet = |outcome| Verdict::of(haproxy.method, outcome);
    let Some(targets) = committed.owed_to(&haproxy.name) else { return quiet(Outcome::NotNeeded) };
    if haproxy.method == Method::None {
        return quiet(Outcome::Skipped);
    }
    if options.defer_reload {
        return quiet(Outcome::Deferred);
    }
    let rows = &committed.plan.rows;
    let rows: HashMap<Target, &Row> = rows.iter().filter_map(|row| Some((Target::of(row)?, row))).collect();
    let change = |target: Target| change(committed, rows.get(&target).copied(), target);
    let changes: Vec<Change> = targets.into_iter().map(change).collect();
    let read = |target: &Target| committed.read(target);
    let (ours, known) = ours(settings, &rows);
    let serving = gather(system, haproxy, None, &known);
    let batch =
        Batch { changes: &changes, read: &read, committed: committed.at, serving: &serving, ours: &ours };
    haproxy::notify::tell(system, haproxy, &batch)
}

/// Our files, and what those hold that were proved in this run.
fn ours(settings: &Settings, rows: &HashMap<Target, &Row>) -> (BTreeMap<Target, Identity>, Known) {
    let (mut ours, mut known) = (BTreeMap::new(), Known::new());
    for (target, row) in rows {
        let path = match target {
            Target::Site(file) => settings.sites_dir.join(file),
            Target::Host => settings.host_file.clone(),
        };
        let is_ours = !matches!(row.action, Action::Foreign | Action::Conflict | Action::Prune);
        let Some(identity) = is_ours.then(|| identity_of(&path)).flatten() else { continue };
        ours.insert(target.clone(), identity);
        let is_as_proved = row.proved && (row.action.writes() || row.action == Action::Unchanged);
        if let (true, Some(leaf)) = (is_as_proved, &row.leaf) {
            known.insert(identity, Contents::Pair(Arc::clone(leaf)));
        }
    }
    (ours, known)
}

/// What HAProxy must show for a target, as its file is now.
fn change(committed: &Committed<'_>, row: Option<&Row>, target: Target) -> Change {
    // Until it is told, HAProxy has the previous one.
    let previous = || committed.read_previous(&target).and_then(|pem| read_leaf(&pem).ok());
    let was_shown = || previous().is_none_or(|leaf| can_be_shown(&leaf));
    let now = committed.read(&target).ok().and_then(|pem| {
        let proved = CertifiedKey::prove(&pem, &pem).ok()?;
        let leaf = proved.leaf();
        Some(Expected {
            sha1: leaf.sha1,
            sha256: leaf.sha256,
            serial: leaf.serial.clone(),
            chain_len: proved.chain().len(),
            key_type: leaf.key_type.clone(),
            names_won: row.map(|row| row.names_won.clone()).unwrap_or_default(),
            addable: row.is_some_and(|row| row.addable),
            can_be_shown: can_be_shown(leaf) && was_shown(),
        })
    });
    Change { target, now }
}
