//! Writing what a plan wants, complete and durable, under names that HAProxy doesn't load: nothing is deployed yet.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd as _;
use std::path::Path;

use rustix::fs::{fsync, syncfs};
use zeroize::Zeroizing;

use crate::certified_key::CombinedPem;
use crate::config::Settings;
use crate::haproxy::target::Target;
use crate::plan::action::Action;
use crate::plan::reason::Reason;
use crate::plan::refusal::Refusal;
use crate::plan::row::{Plan, Role, Row};
use crate::serving::beside::EXTRAS;
use crate::sites::aside::keep_aside;
use crate::sites::dir::{HOST_STAGE, SitesDir};
use crate::sites::durable::{create, remove};
use crate::sites::entries;
use crate::sites::making::unmade;
use crate::sites::place::Place;
use crate::sites::state::key;
use crate::sys::failure::Failure;
use crate::sys::parallel::{self, Progress};

/// So many files are synced by one call for the whole file system instead of one call each.
const SYNC_TOGETHER: usize = 32;

/// A plan whose PEMs are all written, complete and durable, but under no name that HAProxy loads.
#[derive(Debug)]
#[must_use = "nothing is deployed before it is committed"]
pub struct Staged<'a> {
    pub(super) sites: &'a mut SitesDir,
    pub(super) settings: &'a Settings,
    pub(super) plan: Plan,
    pub(super) failure: Option<Failure>,
}

/// A file that is about to be replaced although no HAProxy is known to have it.
#[derive(Debug)]
pub struct Overtaken {
    /// Which.
    pub target: Target,
    /// What it holds.
    pub pem: Zeroizing<Vec<u8>>,
    /// What it held when every HAProxy had it.
    pub was: Option<Zeroizing<Vec<u8>>>,
    /// Whether a HAProxy can have nothing else of it than these.
    pub is_alone: bool,
}

impl Staged<'_> {
    /// What is about to be replaced although no HAProxy is known to have it.
    pub fn overtaken(&self) -> impl Iterator<Item = Overtaken> + '_ {
        let rows = self.plan.rows.iter().filter(|row| row.action == Action::Replace);
        rows.filter_map(|row| {
            let target = Target::of(row)?;
            let pending = self.sites.state.pending.get(&key(&target, &self.settings.host_file))?;
            let (place, name) = self.sites.home(&target).filter(|_| !pending.taken)?;
            let pem = entries::bytes(&place.dir, &name).ok()?;
            let (attic, kept) = self.sites.attic(&target);
            let was = pending.was.as_ref().and_then(|_| entries::bytes(&attic.dir, &kept).ok());
            let is_alone = !pending.several && was.is_some() == pending.was.is_some();
            Some(Overtaken { target, pem, was, is_alone })
        })
    }

    /// Notes that some HAProxy has it.
    pub fn note_taken(&mut self, target: &Target) {
        self.sites.note_taken(target);
    }
}

impl SitesDir {
    /// Writes the PEM of every row that needs one. A row whose PEM can't be had, or written, becomes a refusal.
    pub fn stage<'a>(
        &'a mut self,
        settings: &'a Settings,
        mut plan: Plan,
        supply: &(dyn Fn(&Row) -> Result<CombinedPem, Refusal> + Sync),
        progress: Progress<'_>,
    ) -> Staged<'a> {
        let rows: Vec<usize> = positions(&plan, |row| row.action.writes());
        let batched = rows.len() > SYNC_TOGETHER;
        let work: Vec<&Row> = rows.iter().filter_map(|&position| plan.rows.get(position)).collect();
        let results = parallel::map(&work, |row| self.stage_one(settings, row, supply, batched), progress);
        let mut failure = None;
        for (position, result) in rows.into_iter().zip(results) {
            let Some(row) = plan.rows.get_mut(position) else { continue };
            match result {
                Ok(()) => {}
                Err(Unstaged::Refused(refusal)) => row.refuse(refusal),
                Err(Unstaged::Unwritten(e)) => fail_row(row, &mut failure, &e),
            }
        }
        if batched && let Err(e) = syncfs(&self.stage.dir) {
            // What isn't known to be durable gets no name.
            let e = Failure::io("sync", &self.stage.path, &e.into());
            for row in plan.rows.iter_mut().filter(|row| row.action.writes()) {
                fail_row(row, &mut failure, &e);
            }
        }
        Staged { sites: self, settings, plan, failure }
    }

    fn stage_one(
        &self,
        settings: &Settings,
        row: &Row,
        supply: &(dyn Fn(&Row) -> Result<CombinedPem, Refusal> + Sync),
        batched: bool,
    ) -> Result<(), Unstaged> {
        let pem = supply(row).map_err(Unstaged::Refused)?;
        if row.sha256 != Some(pem.sha256()) {
            let moved = "it was renewed while it was being deployed; the next run takes it";
            return Err(Unstaged::Refused(Refusal::new(Reason::LineageTorn, moved)));
        }
        let (dir, name) = self.staging(row);
        let write = || -> rustix::io::Result<()> {
            let file = create(dir.dir.as_fd(), &name, Some(settings.owner), settings.mode, pem.as_bytes())?;
            if batched { Ok(()) } else { fsync(&file) }
        };
        write().map_err(|e| Unstaged::Unwritten(unmade("write", &dir.path.join(&name), settings.owner, e)))
    }

    /// Where a row's PEM is staged.
    pub(crate) fn staging(&self, row: &Row) -> (&Place, String) {
        match row.role {
            Role::Site => (&self.stage, file_name(row)),
            Role::Host => (&self.own, HOST_STAGE.to_owned()),
        }
    }
}

enum Unstaged {
    Refused(Refusal),
    Unwritten(Failure),
}

impl Staged<'_> {
    /// The directory with the staged files of the sites directory, and nothing else but their siblings.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.sites.stage.path
    }

    /// The names of the files staged in it.
    #[must_use]
    pub fn files(&self) -> Vec<String> {
        self.plan
            .rows
            .iter()
            .filter(|row| row.role == Role::Site && row.action.writes())
            .map(file_name)
            .collect()
    }

    /// Gives the staged host certificate a name among the staged sites, one that none of them has, so that HAProxy is
    /// asked about it too; `None`: there is none.
    #[must_use]
    pub fn show_host(&self) -> Option<String> {
        self.plan.rows.iter().find(|row| row.role == Role::Host && row.action.writes())?;
        let files = self.files();
        let name = (0..=files.len())
            .map(|number| format!("host-{number}.pem"))
            .find(|name| !files.contains(name))?;
        let (own, stage) = (&self.sites.own, &self.sites.stage);
        keep_aside(self.sites, own, OsStr::new(HOST_STAGE), stage, OsStr::new(&name)).ok()?;
        Some(name)
    }

    /// Puts copies of the siblings that HAProxy would load with the staged files beside them.
    pub fn copy_siblings(&self) {
        let present: BTreeSet<OsString> = self
            .plan
            .rows
            .iter()
            .filter_map(|row| row.file.clone())
            .filter(|file| is_sibling(file))
            .collect();
        for file in self.files() {
            for sibling in EXTRAS.map(|ending| format!("{file}.{ending}")) {
                if present.contains(OsStr::new(&sibling))
                    && let Ok(bytes) = entries::bytes(&self.sites.place.dir, OsStr::new(&sibling))
                {
                    // Best effort: without the copy the check is a little less strict.
                    let _ = create(self.sites.stage.dir.as_fd(), &sibling, None, 0o600, &bytes);
                }
            }
        }
    }

    /// Takes a staged file out again.
    pub fn drop_file(&self, file: &str) {
        for name in [file.to_owned()].into_iter().chain(EXTRAS.map(|ending| format!("{file}.{ending}"))) {
            // It is removed again, and reported, when the next run begins.
            let _ = remove(&self.sites.stage.dir, &*name);
        }
    }

    /// The sites directory that it is staged for.
    pub fn sites(&mut self) -> &mut SitesDir {
        self.sites
    }

    /// Changes the row of a staged file, for what HAProxy said of it.
    pub fn amend(&mut self, change: impl Fn(&mut Row)) {
        self.plan.rows.iter_mut().for_each(change);
    }
}

fn is_sibling(file: &OsStr) -> bool {
    Path::new(file).extension().is_some_and(|ending| EXTRAS.iter().any(|sibling| ending == *sibling))
}

/// Turns a row whose file can't be written, or moved, into a refusal.
pub(super) fn fail_row(row: &mut Row, failure: &mut Option<Failure>, e: &Failure) {
    row.refuse(Refusal::new(Reason::Io, e.message.clone()));
    failure.get_or_insert_with(|| e.clone());
}

/// Where the rows of this kind are.
pub(super) fn positions(plan: &Plan, wanted: impl Fn(&Row) -> bool) -> Vec<usize> {
    plan.rows.iter().enumerate().filter(|(_, row)| wanted(row)).map(|(position, _)| position).collect()
}

/// A row's file name; those that are written are always UTF-8.
pub(super) fn file_name(row: &Row) -> String {
    row.file.as_ref().map(|file| file.to_string_lossy().into_owned()).unwrap_or_default()
}
