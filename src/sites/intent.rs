//! What is about to happen is in the state before it does: whatever ends the run, the next one makes it good. What fails is
//! taken out again.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::sync::Arc;

use super::debts::{self, Owed, settings_key};
use super::state::{Pending, Record, State, digest, key};
use crate::config::{Haproxy, Settings};
use crate::haproxy::target::Target;
use crate::plan::action::Action;
use crate::plan::row::{Plan, Role, Row};
use crate::sites::dir::SitesDir;

/// What a run is about to do, as it was recorded.
#[derive(Debug)]
pub(super) struct Intent {
    /// Whether the state is another one than before.
    pub(super) is_new: bool,
    before: Vec<Before>,
    /// What each HAProxy was owed.
    owed: BTreeMap<String, Owed>,
}

/// What was recorded of a file until now.
#[derive(Debug)]
struct Before {
    key: String,
    record: Option<Record>,
    pending: Option<Pending>,
}

impl Intent {
    /// Takes back what was recorded of the files that stay as they are, since their rows failed: nobody is told of them what
    /// isn't so, and whose they are is as it was.
    pub(super) fn take_back_failed(&mut self, sites: &mut SitesDir, settings: &Settings, plan: &Plan) {
        let is_failed = |row: &&Row| row.action == Action::Refuse;
        let failed = plan.rows.iter().filter(is_failed).filter_map(Target::of);
        let failed: BTreeSet<String> = failed.map(|target| key(&target, &settings.host_file)).collect();
        let state = &mut sites.state;
        for Before { key, record, pending } in self.before.extract_if(.., |it| failed.contains(&it.key)) {
            sites.unsaved = true;
            match record {
                Some(record) => state.files.insert(key.clone(), record),
                None => state.files.remove(&key),
            };
            match pending {
                Some(pending) => state.pending.insert(key, pending),
                None => state.pending.remove(&key),
            };
        }
    }

    /// Whether this HAProxy was owed something before.
    pub(super) fn owed(&self, haproxy: &str) -> bool {
        self.owed.contains_key(haproxy)
    }

    /// Records who is to be notified of files that went back, of which this is there now: whoever may have something else. With
    /// `told`, that isn't who is not among those where a file is as the run found it.
    pub(super) fn owe_what_went_back(
        &self,
        state: &mut State,
        settings: &Settings,
        told: Option<&BTreeSet<String>>,
        back: &BTreeMap<String, Option<[u8; 32]>>,
        now: i64,
    ) {
        let found: BTreeMap<&String, Option<[u8; 32]>> =
            self.before.iter().map(|it| (&it.key, it.record.as_ref().map(|record| record.sha256))).collect();
        let file = settings.file.as_ref().map(|file| file.to_string_lossy().into_owned());
        for Haproxy { name, .. } in &settings.haproxys {
            let is_untold = told.is_some_and(|told| !told.contains(name));
            let has_it = |key: &String| is_untold && found.get(key) == back.get(key);
            let (spared, owed): (BTreeSet<String>, BTreeSet<String>) =
                back.keys().cloned().partition(|key| has_it(key));
            self.take_back_debts(state, name, &spared);
            if !owed.is_empty() {
                let files = Some(owed.into_iter().collect());
                debts::owe(&mut state.owed, name, Owed { since: now, files, file: file.clone() });
            }
        }
        let own = settings_key(settings.file.as_deref());
        for (_, others) in state.elsewhere.iter_mut().filter(|(file, _)| **file != own) {
            others.add(Owed { since: now, files: Some(back.keys().cloned().collect()), file: None });
        }
    }

    /// What a HAProxy is owed of these files is what it was before.
    fn take_back_debts(&self, state: &mut State, haproxy: &str, spared: &BTreeSet<String>) {
        let before = match self.owed.get(haproxy) {
            Some(Owed { files: None, .. }) => return,
            Some(Owed { files: Some(files), .. }) => files.as_slice(),
            None => &[],
        };
        let Some(Owed { files: Some(files), .. }) = state.owed.get_mut(haproxy) else { return };
        files.retain(|key| !spared.contains(key) || before.contains(key));
        if files.is_empty() {
            state.owed.remove(haproxy);
        }
    }
}

/// The SHA-256 of what a row's file holds by this program's doing or consent once the plan is carried out.
fn is_to_be(row: &Row) -> Option<&[u8; 32]> {
    let ours = row.action.writes() || (row.action == Action::Unchanged && row.proved);
    row.sha256.as_ref().filter(|_| ours)
}

/// Whether a file is right as it is, but by whom it was put there isn't recorded: HAProxy may have loaded it or not. So
/// it counts as news for HAProxy, like one that was just written.
#[must_use]
pub fn takes_over(state: &State, settings: &Settings, row: &Row) -> bool {
    let is_right = matches!(row.action, Action::Unchanged | Action::Repair);
    let Some(sha256) = is_to_be(row).filter(|_| is_right) else { return false };
    Target::of(row).is_some_and(|target| !state.vouches_for(&key(&target, &settings.host_file), sha256))
}

/// Writes into the state what is about to happen, so that a crash at any later point is made good by the next run.
pub(super) fn record_intent(sites: &mut SitesDir, settings: &Settings, plan: &Plan, now: i64) -> Intent {
    let state = &mut sites.state;
    let live_dir: Arc<str> = Arc::from(&*settings.live_dir.to_string_lossy());
    let (mut told, mut changed, mut before) = (Vec::new(), false, Vec::new());
    for row in &plan.rows {
        if is_on_record(state, &live_dir, row) {
            continue;
        }
        let (Some(target), Some(lineage)) = (Target::of(row), &row.lineage) else { continue };
        let key = key(&target, &settings.host_file);
        if row.action.writes() || row.action == Action::Prune {
            let (record, pending) = (state.files.get(&key).cloned(), state.pending.get(&key).cloned());
            before.push(Before { key: key.clone(), record, pending });
        }
        if let Some(sha256) = is_to_be(row) {
            if takes_over(state, settings, row) {
                told.push(key.clone());
            }
            let record = Record {
                lineage: lineage.to_string_lossy().into_owned(),
                live_dir: Arc::clone(&live_dir),
                sha256: *sha256,
                chain: row.chain,
                rejected: None,
                prune_refused: None,
            };
            changed |= state.files.get(&key) != Some(&record);
            state.files.insert(key.clone(), record);
        }
        if matches!(row.action, Action::Install | Action::Replace | Action::Prune) {
            let now = row.sha256.filter(|_| row.action.writes()).as_ref().map(digest);
            let was = row.before.as_ref().map(digest);
            changed = true;
            state
                .pending
                .entry(key.clone())
                .and_modify(|pending| {
                    pending.several |= pending.now != now && pending.now != pending.was;
                    if was == pending.was {
                        pending.last = None;
                    } else if was.is_some() && was != now && (pending.taken || now.is_none()) {
                        pending.last.clone_from(&was);
                    }
                    pending.now.clone_from(&now);
                    pending.taken = false;
                })
                .or_insert_with(|| Pending {
                    was: was.clone(),
                    now: now.clone(),
                    adopted: row.adopts,
                    ..Pending::default()
                });
            told.push(key);
        }
    }
    if !told.is_empty() {
        let opened = sites.found.iter().map(|(place, found)| (place.clone(), found.record.clone()));
        state.untouched.extend(opened);
        changed = true;
    }
    let owed_before = (state.owed.clone(), state.elsewhere.clone());
    state.pass_debts_on(settings, Some(now));
    let own = settings_key(settings.file.as_deref());
    let of_others = state.elsewhere.iter_mut().filter(|(file, _)| **file != own && !told.is_empty());
    of_others.for_each(|(_, others)| others.add(Owed { since: now, files: Some(told.clone()), file: None }));
    let file = settings.file.as_ref().map(|file| file.to_string_lossy().into_owned());
    for haproxy in &settings.haproxys {
        let owed = state.owed.get(&haproxy.name);
        let files = match (owed.map(|owed| &owed.files), state.lost) {
            (_, true) | (Some(None), _) => None,
            (None, false) if told.is_empty() => continue,
            (None, false) => Some(told.clone()),
            (Some(Some(files)), false) => {
                Some(files.iter().chain(&told).cloned().collect::<BTreeSet<_>>().into_iter().collect())
            }
        };
        let since = owed.map_or(now, |owed| owed.since);
        state.owed.insert(haproxy.name.clone(), Owed { since, files, file: file.clone() });
    }
    changed |= (&state.owed, &state.elsewhere) != (&owed_before.0, &owed_before.1);
    Intent { is_new: changed, before, owed: owed_before.0 }
}

/// Whether a row is of a site that is right as it is, and the state says just that already.
fn is_on_record(state: &State, live_dir: &str, row: &Row) -> bool {
    let is_right = row.role == Role::Site && row.action == Action::Unchanged && row.proved;
    let record = row
        .file
        .as_deref()
        .filter(|_| is_right)
        .and_then(OsStr::to_str)
        .and_then(|file| state.files.get(file));
    record.zip(row.sha256).is_some_and(|(record, sha256)| {
        row.lineage.as_deref() == Some(OsStr::new(&record.lineage))
            && *record.live_dir == *live_dir
            && record.sha256 == sha256
            && record.chain == row.chain
            && record.rejected.is_none()
            && record.prune_refused.is_none()
    })
}
