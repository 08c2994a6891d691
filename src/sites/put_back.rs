//! Undoing a commit that HAProxy refused: the previous files come back, and what it refused is remembered.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::time::SystemTime;

use rustix::fs::{fsync, renameat};

use super::commit::Committed;
use super::durable::remove;
use super::entries;
use super::state::{Pending, Rejected, digest, key, target, unhex};
use crate::certified_key::sha256;
use crate::haproxy::target::Target;
use crate::plan::action::Action;
use crate::plan::hold::Hold;
use crate::plan::prune::LAST_FILE;
use crate::plan::reason::Reason;
use crate::plan::refusal::Refusal;
use crate::plan::row::Row;
use crate::plan::warning::Warning;
use crate::sites::dir::SitesDir;
use crate::sites::place::Place;
use crate::sys::failure::Failure;

/// Why a file goes back that HAProxy didn't name.
const WITH_THE_BATCH: &str = "HAProxy refused one file of this batch after another, so all of it was put back; the next run tries the rest again";

impl Committed<'_> {
    /// Puts the previous files of these targets back, each with HAProxy's words; returns those that were put back.
    ///
    /// What was pruned comes back with them where HAProxy would otherwise be left without a file that it can load. What
    /// HAProxy refused is remembered, so that it isn't tried again until it changes; all of it is saved at once.
    pub fn put_back(&mut self, refused: &[(Target, String)], by: &str) -> Vec<Target> {
        let named: BTreeSet<Target> = refused.iter().map(|(target, _)| target.clone()).collect();
        let mut undone: Vec<(Target, Pending)> = self.pending();
        undone.retain(|(target, _)| named.contains(target));
        if undone.iter().any(|(_, pending)| pending.now.is_some()) && !self.leaves_a_pair(&undone) {
            let known: BTreeSet<Target> = undone.iter().map(|(target, _)| target.clone()).collect();
            let pruned = self.pending().into_iter().filter(|(_, pending)| pending.now.is_none());
            undone.extend(pruned.filter(|(target, _)| !known.contains(target)));
        }
        self.undo(undone, refused, by, LAST_FILE)
    }

    /// Puts everything back that isn't accepted by every HAProxy; only what HAProxy named is remembered.
    pub fn put_all_back(&mut self, refused: &[(Target, String)], by: &str) -> Vec<Target> {
        let all = self.pending();
        self.undo(all, refused, by, WITH_THE_BATCH)
    }

    /// Puts back what was pruned and isn't accepted by every HAProxy, since one of them refuses its configuration and names
    /// nothing: it may need such a file. Nothing is remembered: that is for whoever sees that it was this.
    pub fn put_prunes_back(&mut self, words: &str) -> Vec<Target> {
        let mut pruned = self.pending();
        pruned.retain(|(_, pending)| pending.now.is_none());
        if pruned.is_empty() {
            return Vec::new();
        }
        let why = format!(
            "HAProxy refuses its configuration, and may need it ({words}); the next run tries it again"
        );
        self.undo(pruned, &[], "", &why)
    }

    /// Whether something was pruned that not every HAProxy has accepted yet.
    #[must_use]
    pub fn has_pruned(&self) -> bool {
        self.sites.state.pending.values().any(|pending| pending.now.is_none())
    }

    /// Remembers that HAProxy refuses to be without these files, which are back.
    pub fn remember_prunes(&mut self, back: &[Target], words: &str, by: &str) {
        for target in back {
            let key = key(target, &self.settings.host_file);
            if let Some(record) = self.sites.state.files.get_mut(&key) {
                let (sha256, words, by) = (digest(&record.sha256), words.to_owned(), by.to_owned());
                record.prune_refused = Some(Box::new(Rejected { sha256, words, by }));
            }
            let of_target = |row: &&mut Row| Target::of(row).as_ref() == Some(target);
            if let Some(row) = self.plan.rows.iter_mut().find(of_target) {
                row.hold_as_refused(words);
            }
        }
        if let Err(e) = self.sites.state.save(&self.sites.own.dir, &self.sites.own.path) {
            self.failure.get_or_insert(e);
        }
    }

    /// What could be put back.
    fn pending(&self) -> Vec<(Target, Pending)> {
        let pending = self.sites.state.pending.iter();
        let target = |name: &String| target(name, &self.settings.host_file);
        pending.filter_map(|(name, pending)| Some((target(name)?, pending.clone()))).collect()
    }

    /// Whether the sites directory still has a file that HAProxy can load once these are put back.
    fn leaves_a_pair(&self, undone: &[(Target, Pending)]) -> bool {
        let comes_back = |(target, pending): &(Target, Pending)| {
            let (attic, kept) = self.sites.attic(target);
            let is_pair = || match kept_last(self.sites, target, pending) {
                Some((last, name)) => entries::holds_a_pair(&last.dir, &name),
                None => pending.was.is_some() && entries::holds_a_pair(&attic.dir, &kept),
            };
            matches!(target, Target::Site(_)) && is_pair()
        };
        let is_undone = |name: &OsStr| {
            undone.iter().any(|(target, _)| matches!(target, Target::Site(file) if name == file.as_str()))
        };
        let place = &self.sites.place;
        undone.iter().any(comes_back) || entries::holds_a_pair_besides(&place.dir, &place.path, is_undone)
    }

    fn undo(
        &mut self,
        mut undone: Vec<(Target, Pending)>,
        refused: &[(Target, String)],
        by: &str,
        why: &str,
    ) -> Vec<Target> {
        // First what was pruned, last what was new: at no moment is the directory emptier than before or after.
        undone.sort_by_key(|(_, pending)| (pending.now.is_some(), !pending.has_before()));
        let mut back = Vec::new();
        for (target, pending) in undone {
            let restored = match restore(self.sites, &target, &pending) {
                Ok(Restored::Nothing) => continue,
                Ok(restored) => restored,
                Err(e) => {
                    self.failure.get_or_insert(e);
                    continue;
                }
            };
            let words = refused.iter().find(|(named, _)| *named == target).map(|(_, words)| words.as_str());
            self.remember(&target, &pending, restored, words, by);
            self.amend_row(&target, &pending, words, why);
            back.push(target);
        }
        if !back.is_empty() {
            let there = |target: &Target| self.read(target).ok().map(|pem| sha256(&pem));
            let keys =
                back.iter().map(|target| (key(target, &self.settings.host_file), there(target))).collect();
            let state = &mut self.sites.state;
            // What is only suspected is tried again by each run, and costs nobody else anything.
            let told = refused.is_empty().then_some(&self.told);
            self.intent.owe_what_went_back(state, self.settings, told, &keys, self.now);
            // Which file is the first one isn't as it was planned.
            for row in &mut self.plan.rows {
                row.warnings.remove(Warning::DefaultCertificateChanged);
            }
        }
        self.at = SystemTime::now();
        let directories = [Some(&self.sites.place), self.sites.host.as_ref()];
        for place in directories.into_iter().flatten() {
            if let Err(e) = fsync(&place.dir) {
                self.failure.get_or_insert(Failure::io("sync", &place.path, &e.into()));
            }
        }
        // Whatever becomes of the rest: this is remembered. Not before the files are back: what is remembered as refused
        // is left alone by the next run.
        if !back.is_empty()
            && let Err(e) = self.sites.state.save(&self.sites.own.dir, &self.sites.own.path)
        {
            self.failure.get_or_insert(e);
        }
        back
    }

    fn remember(
        &mut self,
        target: &Target,
        pending: &Pending,
        restored: Restored,
        words: Option<&str>,
        by: &str,
    ) {
        let key = key(target, &self.settings.host_file);
        let back = match restored {
            // Not every HAProxy has it: what was there before may be wanted, too.
            Restored::Last => {
                let now = pending.last.clone();
                let still = Pending { now, last: None, taken: false, several: true, ..pending.clone() };
                self.sites.state.pending.insert(key.clone(), still);
                &pending.last
            }
            Restored::Was | Restored::Nothing => {
                self.sites.state.pending.remove(&key);
                &pending.was
            }
        };
        let is_somebodys = pending.adopted && restored != Restored::Last;
        let Some(record) = self.sites.state.files.get_mut(&key) else { return };
        let refusal = |sha256: &Option<String>| {
            let (sha256, words) = (sha256.clone()?, words?.to_owned());
            Some(Box::new(Rejected { sha256, words, by: by.to_owned() }))
        };
        match &pending.now {
            None => record.prune_refused = refusal(back),
            now => {
                // What was refused first in this run is what the lineage has.
                record.rejected = record.rejected.take().or_else(|| refusal(now));
                // Somebody else's file isn't ours for having been away.
                if let Some(back) = back.as_deref().filter(|_| !is_somebodys).and_then(unhex) {
                    record.sha256 = back;
                }
            }
        }
    }

    /// What the report says of a file that was put back.
    fn amend_row(&mut self, target: &Target, pending: &Pending, words: Option<&str>, why: &str) {
        let of_target = |row: &Row| Target::of(row).as_ref() == Some(target);
        let position = match (self.plan.rows.iter().position(of_target), target) {
            (Some(position), _) => position,
            (None, Target::Site(file)) => {
                // Pruned by an earlier run.
                let Some(record) = self.sites.state.files.get(file) else { return };
                let sha256 = pending.last.as_deref().or(pending.was.as_deref()).and_then(unhex);
                let row = Row::put_back(OsString::from(file), OsString::from(&record.lineage), sha256);
                let later = |row: &Row| row.file.is_none() || row.file.as_deref() > Some(OsStr::new(file));
                let position = self.plan.rows.iter().position(later).unwrap_or(self.plan.rows.len());
                self.plan.rows.insert(position, row);
                position
            }
            (None, Target::Host) => return,
        };
        let Some(row) = self.plan.rows.get_mut(position) else { return };
        match (row.action, words) {
            (Action::Prune, Some(words)) => row.hold_as_refused(words),
            (Action::Prune, None) => row.hold(Hold::Needed, why),
            // What came back was refused, too.
            _ if row.reason() == Some(Reason::HaproxyRejects) => {}
            (_, Some(words)) => {
                let lineage = row.lineage.clone().unwrap_or_default();
                row.refuse(Refusal::remembered(&lineage, words));
            }
            (_, None) => row.refuse(Refusal::new(Reason::HaproxyRejects, why)),
        }
    }
}

/// What came back of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Restored {
    /// Nothing: there was nothing, or somebody else has put something there since, which isn't touched.
    Nothing,
    /// What some HAProxy was seen to have since, or what was pruned.
    Last,
    /// What was there when every HAProxy had taken it; that may be nothing.
    Was,
}

/// Undoes one file of a commit.
fn restore(sites: &SitesDir, target: &Target, pending: &Pending) -> Result<Restored, Failure> {
    let Some((home, name)) = sites.home(target) else { return Ok(Restored::Nothing) };
    let (attic, kept) = sites.attic(target);
    let is_as_committed = match (entries::bytes(&home.dir, &name), &pending.now) {
        (Ok(pem), Some(now)) => digest(&sha256(&pem)) == *now,
        (Ok(_), None) => false,
        (Err(e), _) => e.kind() == std::io::ErrorKind::NotFound,
    };
    if !is_as_committed {
        return Ok(Restored::Nothing);
    }
    let undone = if let Some((last, kept)) = kept_last(sites, target, pending) {
        renameat(&last.dir, &*kept, &home.dir, &*name).map(|()| Restored::Last)
    } else if pending.was.is_some() || pending.adopted {
        renameat(&attic.dir, &*kept, &home.dir, &*name).map(|()| Restored::Was)
    } else if pending.now.is_none() {
        Ok(Restored::Nothing)
    } else {
        remove(&home.dir, &*name).map(|()| Restored::Was)
    };
    undone.map_err(|e| Failure::io("put back", &home.path.join(&name), &e.into()))
}

/// Where what comes back first is kept; `None`: there is none, or it isn't that.
fn kept_last(sites: &SitesDir, target: &Target, pending: &Pending) -> Option<(Place, OsString)> {
    let wanted = pending.last.as_ref()?;
    let (last, name) = (sites.last().ok()??, SitesDir::last_name(target));
    let pem = entries::bytes(&last.dir, &name).ok()?;
    (digest(&sha256(&pem)) == *wanted).then_some((last, name))
}
