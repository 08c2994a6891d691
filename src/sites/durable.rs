//! Files that are complete, durable and private before they have their name.

use std::io::{BufWriter, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, Gid, Mode, OFlags, Uid, fchmod, fchown, fsync, openat, renameat, statat, unlinkat,
};
use rustix::io::{Errno, Result};

use crate::config::Owner;

/// So many bytes are written at a time.
const PIECE: usize = 1 << 18;

/// Creates `name` in `dir`, which must not have it yet, with owner and mode set before the first byte is in it.
pub(super) fn create(
    dir: BorrowedFd<'_>,
    name: &str,
    owner: Option<Owner>,
    mode: u32,
    bytes: &[u8],
) -> Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = openat(dir, name, flags, Mode::RUSR | Mode::WUSR)?;
    if let Some(Owner { uid, gid }) = owner {
        let stat = rustix::fs::fstat(&fd)?;
        if (stat.st_uid, stat.st_gid) != (uid, gid) {
            fchown(&fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        }
    }
    fchmod(&fd, Mode::from_raw_mode(mode))?;
    let mut file = std::fs::File::from(fd);
    file.write_all(bytes).map_err(|e| errno(&e))?;
    Ok(file.into())
}

fn errno(e: &std::io::Error) -> Errno {
    Errno::from_io_error(e).unwrap_or(Errno::IO)
}

/// Writes a file of our own (0600) so that its name always holds the whole old or the whole new contents.
pub(crate) fn write_durably(dir: BorrowedFd<'_>, name: &str, bytes: &[u8]) -> Result<()> {
    let unnamed = format!("{name}.new");
    remove(dir, &unnamed)?;
    let fd = create(dir, &unnamed, None, 0o600, bytes)?;
    fsync(&fd)?;
    renameat(dir, &*unnamed, dir, name)?;
    fsync(dir)
}

/// The same for a file that may be lost in a crash.
pub(crate) fn write_whole(dir: BorrowedFd<'_>, name: &str, bytes: &[u8]) -> Result<()> {
    write_pieces(dir, name, |out| out.write_all(bytes))
}

/// The same for one that is written piece by piece.
pub(crate) fn write_pieces(
    dir: BorrowedFd<'_>,
    name: &str,
    write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<()> {
    let unnamed = format!("{name}.new");
    remove(dir, &unnamed)?;
    let file = std::fs::File::from(create(dir, &unnamed, None, 0o600, &[])?);
    let mut pieces = BufWriter::with_capacity(PIECE, file);
    write(&mut pieces).and_then(|()| pieces.flush()).map_err(|e| errno(&e))?;
    renameat(dir, &*unnamed, dir, name)
}

/// Removes a file that may not be there.
pub(super) fn remove<P: rustix::path::Arg + Copy>(dir: impl AsFd, name: P) -> Result<()> {
    let is_absent = || matches!(statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW), Err(Errno::NOENT));
    match unlinkat(&dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        // That is said whether it is there or not.
        Err(Errno::ROFS) if is_absent() => Ok(()),
        Err(e) => Err(e),
    }
}
