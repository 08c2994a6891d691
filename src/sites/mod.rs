//! The sites directory: who may change it, what is in it, and how a plan becomes files without a half-done moment.

mod commit;
pub mod debts;
mod durable;
pub mod entries;
pub mod guard;
pub mod last_run;
mod lock;
mod placeholder;
mod put_back;
pub mod state;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{CWD, Dir, Gid, Mode, OFlags, Uid, fchmod, fchown, fstat, fsync, mkdirat, open, openat};
use rustix::io::Errno;

pub use commit::Committed;
pub use commit::Staged;
pub use commit::takes_over;

use crate::config::{Owner, Settings};
use crate::sys::escape::escaped_path;
use crate::sys::failure::{Failure, FailureKind};
use crate::sys::system::System;
use state::State;

/// Our own directory inside the sites directory: every HAProxy version ignores subdirectories.
pub const OWN_DIR: &str = ".haproxy-certs";

const STAGE_DIR: &str = "stage";
const PREVIOUS_DIR: &str = "previous";

/// How the temporary files of the check begin that a killed run leaves in our directory.
const LEFTOVERS: &str = ".check-";

/// A directory that is held open, with its path for messages.
#[derive(Debug)]
pub struct Place {
    /// The directory itself.
    pub dir: OwnedFd,
    /// Its path, links resolved.
    pub path: PathBuf,
}

impl Place {
    /// Opens the directory at `path`, links resolved once; `None` where it doesn't exist.
    ///
    /// # Errors
    /// It is there and can't be opened as a directory.
    pub fn open(path: &Path) -> Result<Option<Self>, Failure> {
        let real = match std::fs::canonicalize(path) {
            Ok(real) => real,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Failure::io("open", path, &e)),
        };
        let dir = open(&real, directory_flags(), Mode::empty())
            .map_err(|e| Failure::io("open", &real, &e.into()))?;
        Ok(Some(Self { dir, path: real }))
    }

    fn subdirectory(&self, name: &str) -> Result<Option<Self>, Failure> {
        let path = self.path.join(name);
        match openat(&self.dir, name, directory_flags(), Mode::empty()) {
            Ok(dir) => Ok(Some(Self { dir, path })),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(Failure::io("open", &path, &e.into())),
        }
    }

    /// A private directory of ours inside this one, made where it is missing.
    fn private_subdirectory(&self, name: &str) -> Result<Self, Failure> {
        let path = self.path.join(name);
        let fail = |e: Errno| Failure::io("create", &path, &e.into());
        match mkdirat(&self.dir, name, Mode::RWXU) {
            // What is remembered in it must not be lost with its name.
            Ok(()) => fsync(&self.dir).map_err(fail)?,
            Err(Errno::EXIST) => {}
            Err(e) => return Err(fail(e)),
        }
        let dir = openat(&self.dir, name, directory_flags(), Mode::empty()).map_err(fail)?;
        let (stat, parent) = (fstat(&dir).map_err(fail)?, fstat(&self.dir).map_err(fail)?);
        let ourselves = rustix::process::geteuid().as_raw();
        if stat.st_uid != ourselves && stat.st_uid != 0 {
            let fact =
                format!("{} belongs to user {}, not to us; remove it", escaped_path(&path), stat.st_uid);
            return Err(Failure::new(FailureKind::Permission, fact));
        }
        if stat.st_dev != parent.st_dev {
            let fact =
                format!("{} is on another file system than its parent; unmount it", escaped_path(&path));
            return Err(Failure::config(fact));
        }
        if stat.st_mode & 0o777 != 0o700 {
            fchmod(&dir, Mode::RWXU).map_err(fail)?;
        }
        Ok(Self { dir, path })
    }
}

fn directory_flags() -> OFlags {
    OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

/// The state of a sites directory that is only looked at.
///
/// # Errors
/// See [`State::load`].
pub fn look_at_state(sites: &Place) -> Result<State, Failure> {
    match sites.subdirectory(OWN_DIR)? {
        Some(own) => State::load(&own.dir, &own.path),
        None => Ok(State::default()),
    }
}

/// Opens the sites directory to look at it, and makes the checks that a run makes which writes; `None`: it isn't there.
///
/// # Errors
/// What keeps a run from writing, as far as can be seen without it.
pub fn look_at(settings: &Settings) -> Result<Option<Place>, Failure> {
    let place = Place::open(&settings.sites_dir)?;
    let missing = match &place {
        Some(_) => None,
        None => Some(nearest(&settings.sites_dir)?),
    };
    if let Some(existing) = place.as_ref().or(missing.as_ref()) {
        guard::check(&existing.path, settings.owner)?;
        let folder = settings.host_file.parent().unwrap_or(Path::new("/"));
        // It is made together with the sites directory.
        let will_be_made = !folder.exists() && settings.sites_dir.starts_with(folder);
        if settings.host_lineage.is_some() && !will_be_made {
            host_place(settings, existing)?;
        }
    }
    Ok(place)
}

/// The sites directory, locked: as long as this value lives nobody else changes it, and only this value can.
#[derive(Debug)]
pub struct SitesDir {
    /// The directory, which carries the lock.
    pub place: Place,
    /// What this program remembers.
    pub state: State,
    own: Place,
    stage: Place,
    previous: Place,
    host: Option<Place>,
    host_file: PathBuf,
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
            None => make_sites_dir(settings)?,
        };
        guard::check(&place.path, settings.owner)?;
        lock::lock(&place, system, patience)?;
        let own = place.private_subdirectory(OWN_DIR)?;
        let state = State::load(&own.dir, &own.path)?;
        let staging = own.private_subdirectory(STAGE_DIR)?;
        let previous = own.private_subdirectory(PREVIOUS_DIR)?;
        let host = match settings.host_lineage {
            Some(_) => Some(host_place(settings, &place)?),
            None => None,
        };
        let sites =
            Self { place, state, own, stage: staging, previous, host, host_file: settings.host_file.clone() };
        sites.clear_leftovers()?;
        Ok(sites)
    }

    /// Our own private directory.
    #[must_use]
    pub fn own(&self) -> &Place {
        &self.own
    }

    /// Removes what a killed run staged, and previous files that nobody waits for any more.
    fn clear_leftovers(&self) -> Result<(), Failure> {
        for name in entries::entries(&self.stage.dir, &self.stage.path)? {
            durable::remove(&self.stage.dir, &*name)
                .map_err(|e| Failure::io("remove", &self.stage.path.join(&name), &e.into()))?;
        }
        durable::remove(&self.own.dir, commit::HOST_STAGE)
            .map_err(|e| Failure::io("remove", &self.own.path.join(commit::HOST_STAGE), &e.into()))?;
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

/// The directory of the host certificate, which must be on the sites directory's file system: a rename is atomic only
/// there.
fn host_place(settings: &Settings, sites: &Place) -> Result<Place, Failure> {
    let parent = settings.host_file.parent().unwrap_or(Path::new("/"));
    let Some(place) = Place::open(parent)? else {
        return Err(Failure::config(format!("host_file: there is no directory {}", escaped_path(parent))));
    };
    guard::check(&place.path, settings.owner)?;
    let device = |place: &Place| {
        fstat(&place.dir).map(|stat| stat.st_dev).map_err(|e| Failure::io("look at", &place.path, &e.into()))
    };
    if device(&place)? != device(sites)? {
        return Err(Failure::config(format!(
            "host_file {} is on another file system than sites_dir {}; put them on the same one",
            escaped_path(&settings.host_file),
            escaped_path(&settings.sites_dir)
        )));
    }
    Ok(place)
}

/// What there is of a path that may be missing.
fn nearest(path: &Path) -> Result<Place, Failure> {
    let existing = path.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    Place::open(existing)?.ok_or_else(|| Failure::io("open", existing, &std::io::ErrorKind::NotFound.into()))
}

/// Gives a sites directory to its owner that a run was killed over making: nothing is in it yet.
fn finish_making(settings: &Settings, place: &Place) -> Result<(), Failure> {
    let Owner { uid, gid } = settings.owner;
    let fail = |e: Errno| Failure::io("create", &place.path, &e.into());
    let stat = fstat(&place.dir).map_err(fail)?;
    let is_ours = stat.st_uid == rustix::process::geteuid().as_raw() && stat.st_mode & 0o077 & !0o011 == 0;
    if uid == 0 || stat.st_uid == uid || !is_ours {
        return Ok(());
    }
    let is_empty = Dir::read_from(&place.dir)
        .map_err(fail)?
        .all(|entry| entry.is_ok_and(|entry| matches!(entry.file_name().to_bytes(), b"." | b"..")));
    if is_empty {
        fchown(&place.dir, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).map_err(fail)?;
        fchmod(&place.dir, Mode::from_raw_mode(0o711)).map_err(fail)?;
    }
    Ok(())
}

/// Why a file or directory of this owner could not be made: whoever may make it, may not always give it away.
fn unmade(deed: &str, path: &Path, owner: Owner, e: Errno) -> Failure {
    let failure = Failure::io(deed, path, &e.into());
    match e {
        Errno::PERM => {
            let Owner { uid, gid } = owner;
            let advice = "run it as root, or set owner to who runs it";
            Failure {
                message: format!("{} (its owner is to be {uid}:{gid}); {advice}", failure.message),
                ..failure
            }
        }
        _ => failure,
    }
}

/// Makes the sites directory and its parents. It is closed to everybody else; where the files' owner isn't root it is
/// his, since an unprivileged HAProxy lists it.
fn make_sites_dir(settings: &Settings) -> Result<Place, Failure> {
    let path = &settings.sites_dir;
    let fail = |path: &Path, e: Errno| Failure::io("create", path, &e.into());
    guard::check(&nearest(path)?.path, settings.owner)?;
    let mut missing: Vec<&Path> = path.ancestors().take_while(|folder| !folder.exists()).collect();
    missing.reverse();
    for folder in missing {
        let mode = match folder == path {
            false => 0o755,
            true if settings.owner.uid == 0 => 0o700,
            true => 0o711,
        };
        match mkdirat(CWD, folder, Mode::from_raw_mode(mode)) {
            Ok(()) => {
                let dir = open(folder, directory_flags(), Mode::empty()).map_err(|e| fail(folder, e))?;
                if folder == path {
                    let Owner { uid, gid } = settings.owner;
                    fchown(&dir, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
                        .map_err(|e| unmade("create", folder, settings.owner, e))?;
                }
                fchmod(&dir, Mode::from_raw_mode(mode)).map_err(|e| fail(folder, e))?;
                let parent = folder.parent().unwrap_or(Path::new("/"));
                let parent =
                    open(parent, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
                parent.and_then(fsync).map_err(|e| fail(folder, e))?;
            }
            Err(Errno::EXIST) => {}
            Err(e) => return Err(fail(folder, e)),
        }
    }
    Place::open(path)?.ok_or_else(|| fail(path, Errno::NOENT))
}
