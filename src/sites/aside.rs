//! What is about to lose its name keeps a second one elsewhere.

use std::ffi::OsStr;
use std::os::fd::AsFd as _;

use rustix::fs::{AtFlags, fsync, linkat, readlinkat, renameat, statat, symlinkat};
use rustix::io::Errno;

use crate::config::Owner;
use crate::sites::dir::SitesDir;
use crate::sites::durable::{create, remove};
use crate::sites::entries;
use crate::sites::place::Place;

/// Gives what has this name a second one elsewhere, unless something is there already.
pub(super) fn keep_aside(
    sites: &SitesDir,
    from: &Place,
    name: &OsStr,
    to: &Place,
    kept: &OsStr,
) -> rustix::io::Result<()> {
    match linkat(&from.dir, name, &to.dir, kept, AtFlags::empty()) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        // No hard links here, or not to somebody else's file: a copy does.
        Err(Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP | Errno::MLINK) => {
            match readlinkat(&from.dir, name, Vec::new()) {
                Ok(end) => return symlinkat(end, &to.dir, kept),
                Err(Errno::INVAL) => {} // no link
                Err(e) => return Err(e),
            }
            let bytes =
                entries::bytes(&from.dir, name).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
            // Whole before it has its name: what is kept may be put back.
            let stat = statat(&from.dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
            let owner = Owner { uid: stat.st_uid, gid: stat.st_gid };
            let unnamed = "kept-copy";
            let mode = stat.st_mode & 0o7777;
            let write = |owner| {
                remove(&sites.stage.dir, unnamed)?;
                create(sites.stage.dir.as_fd(), unnamed, owner, mode, &bytes).and_then(fsync)
            };
            // Only root may give it to its owner.
            write(Some(owner)).or_else(|e| if e == Errno::PERM { write(None) } else { Err(e) })?;
            renameat(&sites.stage.dir, unnamed, &to.dir, kept)
        }
        Err(e) => Err(e),
    }
}
