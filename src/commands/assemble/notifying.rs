//! Notifying each HAProxy of what it is owed; what one refuses goes back.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::sync::Arc;

use crate::certified_key::{CertifiedKey, read_leaf};
use crate::commands::assemble::left_alone::left_alone;
use crate::config::{Haproxy, Method, Settings};
use crate::haproxy;
use crate::haproxy::batch::{Batch, Change, Expected};
use crate::haproxy::cli::worker::can_be_shown;
use crate::haproxy::patience::SocketPatience;
use crate::haproxy::process::config_check::{ConfigCheck, check_of_master};
use crate::haproxy::start::Start;
use crate::haproxy::target::Target;
use crate::haproxy::verdict::{Ending, Outcome, Verdict};
use crate::plan::action::Action;
use crate::plan::row::Row;
use crate::serving::Views;
use crate::serving::contents::identity as identity_of;
use crate::serving::gather::gather;
use crate::serving::loads::{Contents, Identity};
use crate::serving::spared::{Known, SeenFiles, Spared};
use crate::sites::commit::Committed;
use crate::sys::system::System;

/// How many times a HAProxy that refuses files is notified again without them; then the whole batch goes back.
const MAX_ROLL_BACKS: usize = 16;

/// Notifies each HAProxy of what it is owed; where one refuses our files, the previous ones go back and all are notified again.
/// `fingerprints`: which HAProxys these are; `seen`: what the run saw of the files when it began; `start`: how one of them
/// will be started, should it not run.
pub(crate) fn notify_all(
    settings: &Settings,
    system: &System,
    defers: bool,
    committed: &mut Committed<'_>,
    (fingerprints, seen): (&str, &SeenFiles<'_>),
    start: &dyn Fn(&Haproxy) -> Start,
) -> Vec<Ending> {
    let mut rolled_back: BTreeMap<String, String> = BTreeMap::new();
    let mut refusals = 0;
    let mut asked_again = BTreeSet::new();
    // What was pruned and went back on suspicion: for which HAProxy, and its words.
    let mut suspected: Option<(Vec<Target>, String, String)> = None;
    let mut all: Vec<Notified<'_>> = settings.haproxys.iter().map(Notified::new).collect();
    // Who may refuse comes first: what goes back for that the others never hear of.
    all.sort_by_key(|it| !committed.may_refuse(&it.haproxy.name));
    let prunes = committed.has_pruned();
    while let Some(one) = all.iter_mut().find(|it| it.verdict.is_none()) {
        let haproxy = one.haproxy;
        committed.tells(&haproxy.name);
        let told = notify_one(settings, system, defers, haproxy, (committed, seen), (start, &one.patience));
        let (refused, unexplained) = (told.rejected.clone(), told.refusal.clone());
        one.verdict = Some(told);
        if refused.is_empty() {
            if let (Some(words), None) = (unexplained, &suspected) {
                // A failure that passes by itself is held against nothing.
                if committed.has_pruned() && asked_again.insert(&haproxy.name) {
                    one.verdict = None;
                    continue;
                }
                let back = committed.put_prunes_back(&words);
                if !back.is_empty() {
                    suspected = Some((back, haproxy.name.clone(), words));
                    notify_again(&mut all);
                }
            }
            continue;
        }
        refusals += 1;
        let words: Vec<String> = refused.iter().map(|(_, words)| words.clone()).collect();
        let back = if refusals > MAX_ROLL_BACKS {
            committed.put_all_back(&refused, fingerprints)
        } else {
            committed.put_back(&refused, fingerprints)
        };
        if !back.is_empty() {
            rolled_back.insert(haproxy.name.clone(), words.join("; "));
            // Whoever was notified of the files that just went back is notified once more.
            notify_again(&mut all);
        }
    }
    if prunes {
        committed.note_held_up(suspected.as_ref().map(|(_, name, _)| name.clone()));
    }
    if let Some((back, name, words)) = suspected {
        let named = all.iter().find(|it| it.haproxy.name == name);
        let takes_it = named.is_some_and(|it| match &it.verdict {
            // Where it refuses still, something else is the cause.
            Some(Verdict { refusal: Some(_), .. }) => false,
            Some(Verdict { outcome: Outcome::Reloaded, .. }) => true,
            // In memory it has all of it again.
            _ => !matches!(check_of_master(system, it.haproxy), ConfigCheck::Invalid { .. }),
        });
        if takes_it {
            committed.remember_prunes(&back, &words, fingerprints);
            rolled_back.entry(name).or_insert(words);
        }
    }
    for it in &all {
        if it.verdict.as_ref().is_some_and(|verdict| verdict.confirmed == Some(true)) {
            committed.note_taken(&it.haproxy.name);
        }
    }
    let mut verdicts: BTreeMap<&str, Verdict> =
        all.into_iter().filter_map(|it| Some((it.haproxy.name.as_str(), it.verdict?))).collect();
    let ending = |haproxy: &Haproxy| {
        let verdict = verdicts.remove(haproxy.name.as_str())?;
        Some(Ending::of(&haproxy.name, verdict, rolled_back.remove(&haproxy.name)))
    };
    settings.haproxys.iter().filter_map(ending).collect()
}

/// A HAProxy, and what came of notifying it.
struct Notified<'a> {
    haproxy: &'a Haproxy,
    patience: SocketPatience,
    /// `None`: it is to be notified, or to be notified once more.
    verdict: Option<Verdict>,
}

/// All of them are to be notified once more.
fn notify_again(all: &mut [Notified<'_>]) {
    for it in all {
        it.verdict = None;
    }
}

impl<'a> Notified<'a> {
    fn new(haproxy: &'a Haproxy) -> Self {
        Self { haproxy, patience: SocketPatience::default(), verdict: None }
    }
}

/// Notifies one HAProxy of what it is owed.
fn notify_one(
    settings: &Settings,
    system: &System,
    defers: bool,
    haproxy: &Haproxy,
    (committed, seen): (&Committed<'_>, &SeenFiles<'_>),
    (start, patience): (&dyn Fn(&Haproxy) -> Start, &SocketPatience),
) -> Verdict {
    let quiet = |outcome| Verdict::of(haproxy.method, outcome);
    let Some(targets) = committed.owed_to(&haproxy.name) else { return quiet(Outcome::NotNeeded) };
    if haproxy.method == Method::None {
        return quiet(Outcome::Skipped);
    }
    if defers {
        return quiet(Outcome::Deferred);
    }
    let rows = &committed.plan.rows;
    let rows: HashMap<Target, &Row> = rows.iter().filter_map(|row| Some((Target::of(row)?, row))).collect();
    let read = |target: &Target| committed.read(target);
    let seen = left_alone(&committed.plan.rows, seen);
    let (ours, known) = ours(settings, &rows, &seen);
    let sites = identity_of(&settings.sites_dir);
    let spared = Spared { known: Some(&known), sites, seen: &seen, is_unread: false };
    let serving = gather(system, haproxy, None, spared);
    // Who has which name the plan knows, unless something stayed or went back; probes need this HAProxy's own answer.
    let stays = |row: &Row| row.action == Action::Refuse || row.held.is_some();
    let asks = !haproxy.probe.is_empty() || committed.plan.rows.iter().any(stays);
    let views = if asks { serving.views().ok() } else { None };
    let change = |target: Target| change(committed, rows.get(&target).copied(), views.as_ref(), target);
    let changes: Vec<Change> = targets.into_iter().map(change).collect();
    let homes = committed.homes();
    let batch = Batch {
        changes: &changes,
        read: &read,
        committed: committed.at,
        serving: &serving,
        ours: &ours,
        homes: &homes,
        start: &start(haproxy),
        patience,
    };
    haproxy::notify::notify(system, haproxy, &batch)
}

/// Our files, and what those hold that are as they were proved.
fn ours(
    settings: &Settings,
    rows: &HashMap<Target, &Row>,
    seen: &SeenFiles<'_>,
) -> (BTreeMap<Target, Identity>, Known) {
    let (mut ours, mut known) = (BTreeMap::new(), Known::new());
    for (target, row) in rows {
        let identity = || match target {
            Target::Site(file) => {
                seen(OsStr::new(file)).or_else(|| identity_of(&settings.sites_dir.join(file)))
            }
            Target::Host => identity_of(&settings.host_file),
        };
        let is_ours = !matches!(row.action, Action::Foreign | Action::Conflict | Action::Prune);
        let Some(identity) = is_ours.then(identity).flatten() else { continue };
        ours.insert(target.clone(), identity);
        let is_as_proved = row.proved && (row.action.writes() || row.action == Action::Unchanged);
        if let (true, Some(leaf)) = (is_as_proved, &row.leaf) {
            known.insert(identity, Contents::Pair(Arc::clone(leaf)));
        }
    }
    (ours, known)
}

/// What HAProxy must show for a target, as its file is now: what went back has other names than was planned, and so have
/// those that share one with it.
fn change(committed: &Committed<'_>, row: Option<&Row>, views: Option<&Views<'_>>, target: Target) -> Change {
    // Until it is notified, HAProxy has the previous one.
    let previous = || committed.read_previous(&target).and_then(|pem| read_leaf(&pem).ok());
    let was_shown = || previous().is_none_or(|leaf| can_be_shown(&leaf));
    let now = committed.read(&target).ok().and_then(|pem| {
        let proved = CertifiedKey::prove(&pem, &pem).ok()?;
        let leaf = proved.leaf();
        let claim = views.and_then(|views| views.claim(leaf));
        let addable = row.is_some_and(|row| row.addable);
        Some(Expected {
            sha1: leaf.sha1,
            sha256: leaf.sha256,
            serial: leaf.serial.clone(),
            chain_len: proved.chain().len(),
            key_type: leaf.key_type.clone(),
            addable: addable && claim.as_ref().is_none_or(|claim| !claim.shares),
            // What none of its lines loads it serves under no name.
            names_won: match views {
                Some(_) => claim.map(|claim| claim.names_won).unwrap_or_default(),
                None => row.map(|row| row.names_won.to_vec()).unwrap_or_default(),
            },
            can_be_shown: can_be_shown(leaf) && was_shown(),
        })
    });
    Change { target, now }
}
