//! The sites directory, locked, and where in it everything has its place.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use crate::config::{OWN_DIR, Settings};
use crate::haproxy::target::Target;
use crate::plan::row::Row;
use crate::sites::debts::{self, Owed};
use crate::sites::last_start::LastStart;
use crate::sites::making::{finish_making, host_place, make_sites_dir};
use crate::sites::place::Place;
use crate::sites::state::{State, digest, key, target};
use crate::sites::untouched::{self, FoundPlace};
use crate::sites::{durable, entries, guard, last_run, lock};
use crate::sys::failure::Failure;
use crate::sys::system::System;

const STAGE_DIR: &str = "stage";

const PREVIOUS_DIR: &str = "previous";

const HOST_PREVIOUS: &str = "previous-host.pem";

const LAST_DIR: &str = "last";

/// The host certificate's name there: no site's file has it.
const HOST_LAST: &str = "host";

/// The host certificate's name while it is staged in our directory.
pub(crate) const HOST_STAGE: &str = "host.pem";

/// How the temporary files of the check begin that a killed run leaves in our directory.
const LEFTOVERS: &str = ".check-";

/// The sites directory, locked: as long as this value lives nobody else changes it, and only this value can.
#[derive(Debug)]
pub struct SitesDir {
    /// The directory, which carries the lock.
    pub place: Place,
    /// What this program remembers.
    pub state: State,
    /// Whether the state has something that isn't saved.
    pub(crate) unsaved: bool,
    pub(crate) own: Place,
    pub(crate) stage: Place,
    pub(crate) previous: Place,
    pub(crate) host: Option<Place>,
    pub(crate) host_file: PathBuf,
    /// Its directories as they were found, by [`untouched::key`].
    pub(crate) found: BTreeMap<String, FoundPlace>,
}

impl SitesDir {
    /// Makes the sites directory where it is missing, checks who else could change it, locks it, and clears what a killed
    /// run left half-done.
    ///
    /// # Errors
    /// It can't be made, is not safe to write to, is locked by a run that doesn't end within `patience`, or its state is
    /// a later version's.
    pub fn lock(settings: &Settings, system: &System, patience: Duration) -> Result<Self, Failure> {
        let place = match Place::open(&settings.sites_dir)? {
            Some(place) => {
                finish_making(settings, &place)?;
                place
            }
            None => make_sites_dir(settings, system)?,
        };
        guard::check(&place.path, settings, system)?;
        lock::lock(&place, system, patience)?;
        // Our own directory changes it, and nothing is remembered of it yet.
        let is_first = place.subdirectory(OWN_DIR)?.is_none();
        let seen = untouched::BeforeRun::of(&place);
        let own = place.private_subdirectory(OWN_DIR)?;
        let mut state = State::load(&own.dir, &own.path)?;
        let staging = own.private_subdirectory(STAGE_DIR)?;
        let previous = own.private_subdirectory(PREVIOUS_DIR)?;
        let host = match settings.host_lineage {
            Some(_) => Some(host_place(settings, system, &place)?),
            None => None,
        };
        let seen_host = host.as_ref().and_then(|host| Some((host, untouched::BeforeRun::of(host)?)));
        let seen = seen.map(|seen| (&place, seen)).into_iter().chain(seen_host);
        let found = seen.map(|(place, seen)| {
            let key = untouched::key(place);
            let found = seen.found(state.untouched.get(&key));
            (key, found)
        });
        let found: BTreeMap<String, FoundPlace> = found.collect();
        if is_first {
            state.untouched = untouched::left(&found, &[&place], &state.untouched);
            state.save(&own.dir, &own.path)?;
        }
        let sites = Self {
            place,
            state,
            unsaved: false,
            own,
            stage: staging,
            previous,
            host,
            host_file: settings.host_file.clone(),
            found,
        };
        sites.clear_leftovers()?;
        Ok(sites)
    }

    /// Our own private directory.
    #[must_use]
    pub fn own(&self) -> &Place {
        &self.own
    }

    /// Changes what is remembered of a HAProxy's last start.
    pub fn remember_start(&mut self, haproxy: &str, change: impl FnOnce(&mut LastStart)) {
        let before = self.state.last_start.get(haproxy);
        let mut start = before.cloned().unwrap_or_default();
        change(&mut start);
        if before.is_none_or(|before| *before != start) {
            self.unsaved = true;
            self.state.last_start.insert(haproxy.to_owned(), start);
        }
    }

    /// Makes a notification pending for a HAProxy that has something else than the disk; `files`: `None` for all of ours.
    pub fn owe(&mut self, settings: &Settings, haproxy: &str, files: Option<&BTreeSet<String>>, now: i64) {
        let file = settings.file.as_ref().map(|file| file.to_string_lossy().into_owned());
        let files = files.map(|files| files.iter().cloned().collect());
        debts::owe(&mut self.state.owed, haproxy, Owed { since: now, files, file });
        self.unsaved = true;
    }

    /// Where a target lives: its directory and its name there.
    pub(crate) fn home(&self, target: &Target) -> Option<(&Place, OsString)> {
        match target {
            Target::Site(name) => Some((&self.place, OsString::from(name))),
            Target::Host => Some((self.host.as_ref()?, self.host_file.file_name()?.to_owned())),
        }
    }

    /// Where a target's previous file is kept.
    pub(crate) fn attic(&self, target: &Target) -> (&Place, OsString) {
        match target {
            Target::Site(name) => (&self.previous, OsString::from(name)),
            Target::Host => (&self.own, OsString::from(HOST_PREVIOUS)),
        }
    }

    /// Under which name what comes back first of a target is kept, see [`Self::last`].
    pub(crate) fn last_name(target: &Target) -> OsString {
        match target {
            Target::Site(name) => OsString::from(name),
            Target::Host => OsString::from(HOST_LAST),
        }
    }

    /// Where what comes back first is kept, where that isn't what every HAProxy took; `None`: nothing of the kind is.
    pub(crate) fn last(&self) -> Result<Option<Place>, Failure> {
        self.own.subdirectory(LAST_DIR)
    }

    /// Whether what a row's file holds before is what comes back first.
    pub(crate) fn comes_back_first(&self, row: &Row) -> bool {
        let pending = Target::of(row).and_then(|it| self.state.pending.get(&key(&it, &self.host_file)));
        let last = pending.and_then(|pending| pending.last.as_ref());
        last.is_some() && last == row.before.as_ref().map(digest).as_ref()
    }

    /// Notes that some HAProxy was seen to have what is there now.
    pub(crate) fn note_taken(&mut self, target: &Target) {
        let pending = self.state.pending.get_mut(&key(target, &self.host_file));
        if let Some(pending) = pending.filter(|pending| !pending.taken && pending.now.is_some()) {
            pending.taken = true;
            self.unsaved = true;
        }
    }

    /// The directory of these, made where it is missing.
    pub(crate) fn make_last(&self) -> Result<Place, Failure> {
        self.own.private_subdirectory(LAST_DIR)
    }

    /// Removes every previous file.
    pub(crate) fn forget_previous(&self) -> Result<(), Failure> {
        let forget = |place: &Place, name: &OsStr| {
            durable::remove(&place.dir, name)
                .map_err(|e| Failure::io("remove", &place.path.join(name), &e.into()))
        };
        let last = self.last()?;
        for place in [Some(&self.previous), last.as_ref()].into_iter().flatten() {
            for name in entries::entries(&place.dir, &place.path)? {
                forget(place, &name)?;
            }
        }
        forget(&self.own, OsStr::new(HOST_PREVIOUS))
    }

    /// Removes what a killed run staged, and previous files that nobody waits for any more.
    pub(crate) fn clear_leftovers(&self) -> Result<(), Failure> {
        for name in entries::entries(&self.stage.dir, &self.stage.path)? {
            durable::remove(&self.stage.dir, &*name)
                .map_err(|e| Failure::io("remove", &self.stage.path.join(&name), &e.into()))?;
        }
        durable::remove(&self.own.dir, HOST_STAGE)
            .map_err(|e| Failure::io("remove", &self.own.path.join(HOST_STAGE), &e.into()))?;
        // Their names end differently in every run.
        for name in entries::entries(&self.own.dir, &self.own.path)? {
            if name.as_encoded_bytes().starts_with(LEFTOVERS.as_bytes()) {
                durable::remove(&self.own.dir, &*name)
                    .map_err(|e| Failure::io("remove", &self.own.path.join(&name), &e.into()))?;
            }
        }
        if self.state.pending.is_empty() {
            self.forget_previous()?;
        }
        last_run::clear_leftovers(&self.own)
    }
}

/// Where the previous file is kept that the state file knows by this name.
#[must_use]
pub fn previous_path(settings: &Settings, key: &str) -> PathBuf {
    let own = settings.sites_dir.join(OWN_DIR);
    match target(key, &settings.host_file) {
        Some(Target::Host) => own.join(HOST_PREVIOUS),
        _ => own.join(PREVIOUS_DIR).join(key),
    }
}
