//! From staged to deployed: the intent is recorded, the files are put in their places, and the previous ones are kept until
//! HAProxy took the new.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::OsStr;
use std::path::Path;
use std::time::SystemTime;

use rustix::fs::{AtFlags, FileType, RenameFlags, fsync, renameat, renameat_with, statat};
use rustix::io::Errno;

use super::durable::remove;
use super::entries;
use super::intent::{Intent, record_intent};
use super::state::target;
use crate::config::Settings;
use crate::haproxy::siblings::Homes;
use crate::haproxy::target::Target;
use crate::plan::action::Action;
use crate::plan::hold::Hold;
use crate::plan::prune::LAST_FILE;
use crate::plan::row::{Plan, Role, Row};
use crate::sites::aside::keep_aside;
use crate::sites::dir::SitesDir;
use crate::sites::place::Place;
use crate::sites::stage::{Staged, fail_row, file_name, positions};
use crate::sites::untouched;
use crate::sys::change_time::change_time;
use crate::sys::failure::Failure;

const ADOPTED_DIR: &str = "adopted";

/// A plan that was carried out on disk; HAProxy doesn't know it yet.
#[derive(Debug)]
#[must_use = "the previous files are kept until it is decided about them"]
pub struct Committed<'a> {
    pub(super) sites: &'a mut SitesDir,
    pub(super) settings: &'a Settings,
    pub(super) intent: Intent,
    /// The HAProxys that were notified of something since.
    pub(super) told: BTreeSet<String>,
    pub(super) now: i64,
    /// The plan, with what failed turned into refusals.
    pub plan: Plan,
    /// What kept the run from finishing, if anything did.
    pub failure: Option<Failure>,
    /// When a file was last renamed into place, or out of it.
    pub at: SystemTime,
}

impl<'a> Staged<'a> {
    /// Records the intent and who is to be notified, keeps the previous files aside, and puts every staged file in its place.
    ///
    /// # Errors
    /// The intent can't be recorded: then nothing was changed.
    pub fn commit(self, now: i64) -> Result<Committed<'a>, Failure> {
        let Self { sites, settings, mut plan, mut failure } = self;
        hold_last_file(&sites.place, &mut plan);
        let adopted = positions(&plan, |row| row.adopts && row.action.writes());
        let attic = (!adopted.is_empty()).then(|| sites.own.private_subdirectory(ADOPTED_DIR)).transpose()?;
        let mut intent = record_intent(sites, settings, &plan, now);
        if sites.unsaved || intent.is_new || sites.state.lost {
            sites.state.save(&sites.own.dir, &sites.own.path)?;
            (sites.state.lost, sites.unsaved) = (false, false);
        }
        for (position, attic) in adopted.into_iter().filter_map(|position| Some((position, attic.as_ref()?)))
        {
            let Some(row) = plan.rows.get_mut(position) else { continue };
            if let Err(e) = keep_adopted(sites, attic, row) {
                fail_row(row, &mut failure, &e);
            }
        }
        let changed = plan.has_changes();
        keep_previous(sites, &mut plan, &mut failure);
        carry_out(sites, &mut plan, &mut failure, |row| row.action.writes());
        // What was to be written may have failed.
        let held = hold_last_file(&sites.place, &mut plan);
        if let Some(pending) = held.and_then(|file| sites.state.pending.get_mut(&file)) {
            pending.now = pending.last.take().or_else(|| pending.was.clone());
        }
        carry_out(sites, &mut plan, &mut failure, |row| row.action == Action::Prune);
        intent.take_back_failed(sites, settings, &plan);
        let at = if changed { SystemTime::now() } else { last_change(sites) };
        if changed {
            let directories = [Some(&sites.place), sites.host.as_ref()];
            for place in directories.into_iter().flatten() {
                if let Err(e) = fsync(&place.dir) {
                    failure.get_or_insert(Failure::io("sync", &place.path, &e.into()));
                }
            }
        }
        Ok(Committed { sites, settings, intent, told: BTreeSet::new(), now, plan, failure, at })
    }
}

impl Committed<'_> {
    /// The targets that this HAProxy must still be notified of, each present or gone; `None`: there are none.
    #[must_use]
    pub fn owed_to(&self, haproxy: &str) -> Option<BTreeSet<Target>> {
        let owed = self.sites.state.owed.get(haproxy)?;
        let keys: Vec<&String> = match &owed.files {
            Some(files) => files.iter().collect(),
            None => self.sites.state.files.keys().collect(),
        };
        let targets = keys.into_iter().filter_map(|key| target(key, &self.settings.host_file));
        // Without host_lineage nobody deploys the host certificate, whatever is recorded of it.
        let is_deployed = |target: &Target| *target != Target::Host || self.sites.host.is_some();
        Some(targets.filter(|target| is_deployed(target) && !self.is_somebodys(target)).collect())
    }

    /// Whether this HAProxy is the likelier one to refuse: it was owed something before this run, or refused the last prunes.
    #[must_use]
    pub fn may_refuse(&self, haproxy: &str) -> bool {
        self.intent.owed(haproxy) || self.sites.state.held_up_by.as_deref() == Some(haproxy)
    }

    /// Remembers who holds up what this run pruned; `None`: nobody.
    pub fn note_held_up(&mut self, by: Option<String>) {
        self.sites.unsaved |= self.sites.state.held_up_by != by;
        self.sites.state.held_up_by = by;
    }

    /// Notes that this HAProxy is being notified: it may take what is there now.
    pub fn tells(&mut self, haproxy: &str) {
        self.told.insert(haproxy.to_owned());
    }

    /// Whether what has this name is no plain file, and so not ours: a link that was adopted, and came back.
    fn is_somebodys(&self, target: &Target) -> bool {
        let Some((place, name)) = self.sites.home(target) else { return false };
        statat(&place.dir, &*name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile)
    }

    /// Reads what a target's file holds now.
    ///
    /// # Errors
    /// It is gone or can't be read.
    pub fn read(&self, target: &Target) -> std::io::Result<zeroize::Zeroizing<Vec<u8>>> {
        let (place, name) = self.sites.home(target).ok_or(std::io::ErrorKind::NotFound)?;
        entries::bytes(&place.dir, &name)
    }

    /// Reads what a target's file held when HAProxy last accepted it, where that is kept.
    #[must_use]
    pub fn read_previous(&self, target: &Target) -> Option<zeroize::Zeroizing<Vec<u8>>> {
        let (place, name) = self.sites.attic(target);
        entries::bytes(&place.dir, &name).ok()
    }

    /// Where our files are, and since when nobody else has changed what is there.
    #[must_use]
    pub fn homes(&self) -> Homes {
        let found = self.sites.found.values();
        Homes {
            sites_dir: self.sites.place.path.clone(),
            host_file: self.settings.host_file.clone(),
            touched: found.map(|found| (found.identity, found.touched())).collect(),
        }
    }

    /// Notes that this HAProxy was seen to have all that it was to be notified of.
    pub fn note_taken(&mut self, haproxy: &str) {
        for target in self.owed_to(haproxy).unwrap_or_default() {
            self.sites.note_taken(&target);
        }
    }

    /// Holds what HAProxy refused against it still, although this run has made it another one by reloading it.
    pub fn still_refused(&mut self, before: &str, after: &str) {
        let records = self.sites.state.files.values_mut();
        let refusals = records.flat_map(|record| [record.rejected.as_mut(), record.prune_refused.as_mut()]);
        for refusal in refusals.flatten().filter(|refusal| refusal.by == before && refusal.by != after) {
            after.clone_into(&mut refusal.by);
            self.sites.unsaved = true;
        }
    }

    /// Records who took the batch: `owed` says of each HAProxy whether it is still to be notified. When nobody is, the previous
    /// files go.
    pub fn keep(self, still_owed: &BTreeMap<String, bool>) -> (Plan, Option<Failure>) {
        let Self { sites, settings, plan, mut failure, .. } = self;
        let places: Vec<&Place> = [Some(&sites.place), sites.host.as_ref()].into_iter().flatten().collect();
        let untouched = untouched::left(&sites.found, &places, &sites.state.untouched);
        sites.unsaved |= untouched != sites.state.untouched;
        let state = &mut sites.state;
        state.untouched = untouched;
        let before = (state.owed.len(), state.pending.len(), state.files.len());
        // Whoever isn't named here is another configuration's.
        state.owed.retain(|name, _| still_owed.get(name).copied().unwrap_or(true));
        let accepted = state.owed.is_empty() && state.elsewhere.values().all(|others| !others.undecided);
        if accepted {
            state.pending.clear();
        }
        let files = plan.rows.iter().filter(|row| row.action != Action::Prune);
        let shown: HashSet<&OsStr> = files.filter_map(|row| row.file.as_deref()).collect();
        let host_file = settings.host_file.to_string_lossy();
        let pending = &state.pending;
        state.files.retain(|name, _| {
            shown.contains(OsStr::new(name)) || *name == host_file || pending.contains_key(name)
        });
        let is_as_before = before == (state.owed.len(), state.pending.len(), state.files.len());
        let saved =
            if is_as_before && !sites.unsaved { Ok(()) } else { state.save(&sites.own.dir, &sites.own.path) };
        if let Err(e) = saved.and_then(|()| if accepted { sites.forget_previous() } else { Ok(()) }) {
            failure.get_or_insert(e);
        }
        if let Err(e) = sites.clear_leftovers() {
            failure.get_or_insert(e);
        }
        (plan, failure)
    }
}

/// Keeps aside what is about to be replaced or pruned, durably: what can't be put back again stays.
fn keep_previous(sites: &SitesDir, plan: &mut Plan, failure: &mut Option<Failure>) {
    let loses_something = |row: &Row| matches!(row.action, Action::Replace | Action::Prune);
    let has_last = |row: &Row| loses_something(row) && sites.comes_back_first(row);
    let last = match plan.rows.iter().any(has_last).then(|| sites.make_last()).transpose() {
        Ok(last) => last,
        Err(e) => {
            for row in plan.rows.iter_mut().filter(|row| has_last(row)) {
                fail_row(row, failure, &e);
            }
            None
        }
    };
    let mut attics: BTreeMap<&Path, &Place> = BTreeMap::new();
    for row in plan.rows.iter_mut().filter(|row| loses_something(row)) {
        let Some(target) = Target::of(row) else { continue };
        let Some((home, name)) = sites.home(&target) else { continue };
        let (attic, kept) = sites.attic(&target);
        let last = last.as_ref().filter(|_| sites.comes_back_first(row));
        let both = keep_aside(sites, home, &name, attic, &kept)
            .and_then(|()| last.map_or(Ok(()), |last| keep_last(sites, home, &name, last, &target)));
        match both {
            Ok(()) => {
                attics.extend([Some(attic), last].into_iter().flatten().map(|it| (it.path.as_path(), it)));
            }
            // It is gone already, as it should be.
            Err(Errno::NOENT) if row.action == Action::Prune => {}
            Err(e) => {
                fail_row(row, failure, &Failure::io("keep a copy of", &home.path.join(&name), &e.into()));
            }
        }
    }
    for place in attics.into_values() {
        if let Err(e) = fsync(&place.dir) {
            let e = Failure::io("sync", &place.path, &e.into());
            for row in plan.rows.iter_mut().filter(|row| loses_something(row)) {
                fail_row(row, failure, &e);
            }
        }
    }
}

/// Keeps what was there last in the place of what was before that.
fn keep_last(
    sites: &SitesDir,
    home: &Place,
    name: &OsStr,
    last: &Place,
    target: &Target,
) -> rustix::io::Result<()> {
    let kept = SitesDir::last_name(target);
    remove(&last.dir, &*kept)?;
    keep_aside(sites, home, name, last, &kept)
}

/// Holds back the last prune where no other file that HAProxy can load would be left, by what is on disk now; returns
/// its name.
pub(crate) fn hold_last_file(sites: &Place, plan: &mut Plan) -> Option<String> {
    let of_sites = |row: &&Row| row.role == Role::Site;
    let pruned: BTreeSet<String> =
        plan.rows.iter().filter(of_sites).filter(|row| row.action == Action::Prune).map(file_name).collect();
    if pruned.is_empty()
        || plan.rows.iter().filter(of_sites).any(|row| row.action.writes())
        || entries::holds_a_pair_besides(&sites.dir, &sites.path, |name| {
            name.to_str().is_some_and(|name| pruned.contains(name))
        })
    {
        return None;
    }
    let is_pair = |row: &Row| {
        row.action == Action::Prune && entries::holds_a_pair(&sites.dir, OsStr::new(&file_name(row)))
    };
    let Some(row) = plan.rows.iter_mut().rfind(|row| is_pair(row)) else {
        // None of them is surely a pair: what may be one is held.
        plan.hold_last_file();
        return None;
    };
    row.hold(Hold::Needed, LAST_FILE);
    Some(file_name(row))
}

/// When a name in the sites directory or the host certificate was last changed, by anybody.
fn last_change(sites: &SitesDir) -> SystemTime {
    let changed = |path: &Path| change_time(&std::fs::symlink_metadata(path).ok()?);
    let host = sites.host.as_ref().map(|_| sites.host_file.as_path());
    let each: Option<Vec<SystemTime>> =
        [Some(sites.place.path.as_path()), host].into_iter().flatten().map(changed).collect();
    each.and_then(|each| each.into_iter().max()).unwrap_or_else(SystemTime::now)
}

fn carry_out(sites: &SitesDir, plan: &mut Plan, failure: &mut Option<Failure>, wanted: fn(&Row) -> bool) {
    for row in plan.rows.iter_mut().filter(|row| wanted(row)) {
        if let Err(e) = put_in_place(sites, row) {
            fail_row(row, failure, &e);
        }
    }
}

/// Gives a staged file its name, or takes a pruned file's name away.
fn put_in_place(sites: &SitesDir, row: &Row) -> Result<(), Failure> {
    let Some(target) = Target::of(row) else { return Ok(()) };
    let Some((home, name)) = sites.home(&target) else { return Ok(()) };
    let path = home.path.join(&name);
    let fail = |deed: &'static str| {
        let path = path.clone();
        move |e: Errno| Failure::io(deed, &path, &e.into())
    };
    if row.action == Action::Prune {
        return remove(&home.dir, &*name).map_err(fail("prune"));
    }
    let (stage, staged) = sites.staging(row);
    if row.action == Action::Install {
        // A file that appeared meanwhile isn't ours.
        match renameat_with(&stage.dir, &*staged, &home.dir, &*name, RenameFlags::NOREPLACE) {
            Err(Errno::INVAL | Errno::NOSYS) => {}
            result => return result.map_err(fail("install")),
        }
    }
    renameat(&stage.dir, &*staged, &home.dir, &*name).map_err(fail("put in place"))
}

/// Keeps a foreign file that is about to be taken over, under a name that is still free.
fn keep_adopted(sites: &SitesDir, place: &Place, row: &Row) -> Result<(), Failure> {
    let Some((home, name)) =
        Target::of(row).and_then(|target| Some((sites.home(&target)?.0, sites.home(&target)?.1)))
    else {
        return Ok(());
    };
    let fail = |e: Errno| Failure::io("keep a copy of", &home.path.join(&name), &e.into());
    let mut kept = name.clone();
    for number in 1_u32.. {
        match statat(&place.dir, &*kept, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => {}
            Err(Errno::NOENT) => break,
            Err(e) => return Err(fail(e)),
        }
        kept.clone_from(&name);
        kept.push(format!(".{number}"));
    }
    keep_aside(sites, home, &name, place, &kept).map_err(fail)
}
