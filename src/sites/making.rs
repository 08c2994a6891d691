//! Making the sites directory, and the checks before anything is written.

use std::path::Path;

use rustix::fs::{CWD, Dir, Gid, Mode, OFlags, Uid, fchmod, fchown, fstat, fsync, mkdirat, open};
use rustix::io::Errno;

use crate::config::{Owner, Settings};
use crate::sites::guard;
use crate::sites::place::{Place, directory_flags};
use crate::sys::escape::escaped_path;
use crate::sys::failure::Failure;
use crate::sys::system::System;

/// The directory of the host certificate, which must be on the sites directory's file system: a rename is atomic only
/// there.
pub(crate) fn host_place(settings: &Settings, system: &System, sites: &Place) -> Result<Place, Failure> {
    let parent = settings.host_file.parent().unwrap_or(Path::new("/"));
    let Some(place) = Place::open(parent)? else {
        return Err(Failure::config(format!("host_file: there is no directory {}", escaped_path(parent))));
    };
    guard::check(&place.path, settings, system)?;
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
pub(crate) fn nearest(path: &Path) -> Result<Place, Failure> {
    let existing = path.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    Place::open(existing)?.ok_or_else(|| Failure::io("open", existing, &std::io::ErrorKind::NotFound.into()))
}

/// The permission bits of a sites directory that is made: who is to read the files lists it, as their owner or in their group.
fn made_mode(settings: &Settings) -> u32 {
    let closed = if settings.owner.uid == 0 { 0o700 } else { 0o711 };
    closed | if settings.reading_group().is_some() { 0o050 } else { 0 }
}

/// Gives a sites directory to those who are to list it that a run was killed over making: nothing is in it yet.
pub(crate) fn finish_making(settings: &Settings, place: &Place) -> Result<(), Failure> {
    let Owner { uid, gid } = settings.owner;
    let fail = |e: Errno| Failure::io("create", &place.path, &e.into());
    let stat = fstat(&place.dir).map_err(fail)?;
    let mode = made_mode(settings);
    let is_ours = stat.st_uid == rustix::process::geteuid().as_raw() && stat.st_mode & 0o777 & !mode == 0;
    let is_of_owner = uid == 0 || stat.st_uid == uid;
    let lists = |group: u32| stat.st_gid == group && stat.st_mode & 0o050 == 0o050;
    if !is_ours || is_of_owner && settings.reading_group().is_none_or(lists) {
        return Ok(());
    }
    let is_empty = Dir::read_from(&place.dir)
        .map_err(fail)?
        .all(|entry| entry.is_ok_and(|entry| matches!(entry.file_name().to_bytes(), b"." | b"..")));
    if is_empty {
        fchown(&place.dir, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).map_err(fail)?;
        fchmod(&place.dir, Mode::from_raw_mode(mode)).map_err(fail)?;
    }
    Ok(())
}

/// Why a file or directory of this owner could not be made: whoever may make it, may not always give it away.
pub(crate) fn unmade(deed: &str, path: &Path, owner: Owner, e: Errno) -> Failure {
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

/// Makes the sites directory and its parents. Nobody else lists it; where the files' owner isn't root it is his, since an
/// unprivileged HAProxy lists it, and where their group reads them that group lists it.
pub(crate) fn make_sites_dir(settings: &Settings, system: &System) -> Result<Place, Failure> {
    let path = &settings.sites_dir;
    let fail = |path: &Path, e: Errno| Failure::io("create", path, &e.into());
    guard::check(&nearest(path)?.path, settings, system)?;
    let mut missing: Vec<&Path> = path.ancestors().take_while(|folder| !folder.exists()).collect();
    missing.reverse();
    for folder in missing {
        let mode = if folder == path { made_mode(settings) } else { 0o755 };
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
