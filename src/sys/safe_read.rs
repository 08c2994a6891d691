//! A read of a file that somebody else may replace, or have put something else in the place of: it never waits, never opens
//! a device, and never takes more than a key or a chain has. What is read may be a private key.

use std::ffi::OsStr;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, openat, statat};
use zeroize::Zeroizing;

use super::failure::io_cause;

/// The most that a key or chain file may hold, in bytes.
pub const MAX_FILE_BYTES: u64 = 1 << 20;

/// Why a file was not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unopened {
    /// It is something else: what.
    #[error("it is {0}")]
    NotRegular(&'static str),
    /// It has this many bytes.
    #[error("it has {0} bytes")]
    TooLarge(u64),
    /// The operating system's error.
    #[error("{}", io_cause(.0))]
    Io(io::Error),
}

impl From<Unopened> for io::Error {
    fn from(unopened: Unopened) -> Self {
        match unopened {
            Unopened::Io(error) => error,
            unopened => Self::other(unopened.to_string()),
        }
    }
}

/// Reads a regular file of at most [`MAX_FILE_BYTES`], following links; never waits for a FIFO, never opens a device.
pub(crate) fn read_regular(dir: &impl AsFd, path: &OsStr) -> Result<(Zeroizing<Vec<u8>>, Stat), Unopened> {
    read_regular_within(dir, path, MAX_FILE_BYTES)
}

/// The same where more or less than a key or a chain may be there: `at_most` bytes.
pub(crate) fn read_regular_within(
    dir: &impl AsFd,
    path: &OsStr,
    at_most: u64,
) -> Result<(Zeroizing<Vec<u8>>, Stat), Unopened> {
    let errno = |e: rustix::io::Errno| match e {
        rustix::io::Errno::LOOP => Unopened::NotRegular("a loop of links"),
        e => Unopened::Io(e.into()),
    };
    must_be_regular(&statat(dir, path, AtFlags::empty()).map_err(errno)?, at_most)?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let fd = openat(dir, path, flags, Mode::empty()).map_err(errno)?;
    read_opened_within(fd, at_most)
}

/// Reads an opened file if it is a regular one of at most [`MAX_FILE_BYTES`] that doesn't change meanwhile.
pub(crate) fn read_opened(fd: OwnedFd) -> Result<(Zeroizing<Vec<u8>>, Stat), Unopened> {
    read_opened_within(fd, MAX_FILE_BYTES)
}

/// The same where more or less than a key or a chain may be there: `at_most` bytes.
pub(crate) fn read_opened_within(fd: OwnedFd, at_most: u64) -> Result<(Zeroizing<Vec<u8>>, Stat), Unopened> {
    let before = fstat(&fd).map_err(|e| Unopened::Io(e.into()))?;
    let size = must_be_regular(&before, at_most)?;
    // One byte more than expected shows growth; no reallocation leaves a copy of a key behind.
    let room = usize::try_from(size).unwrap_or_default() + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    let file = std::fs::File::from(fd);
    (&file).take(room as u64).read_to_end(&mut bytes).map_err(Unopened::Io)?;
    let after = fstat(&file).map_err(|e| Unopened::Io(e.into()))?;
    if as_read(&before) != as_read(&after) || bytes.len() as u64 != size {
        return Err(Unopened::Io(io::Error::other("the file changed while it was read")));
    }
    Ok((bytes, after))
}

fn must_be_regular(stat: &Stat, at_most: u64) -> Result<u64, Unopened> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {}
        FileType::Directory => return Err(Unopened::NotRegular("a directory")),
        FileType::Fifo => return Err(Unopened::NotRegular("a FIFO")),
        FileType::Socket => return Err(Unopened::NotRegular("a socket")),
        FileType::Symlink => return Err(Unopened::NotRegular("a link")),
        _ => return Err(Unopened::NotRegular("a device")),
    }
    match u64::try_from(stat.st_size) {
        Ok(size) if size <= at_most => Ok(size),
        size => Err(Unopened::TooLarge(size.unwrap_or(u64::MAX))),
    }
}

/// What stays the same as long as a file isn't replaced or written to.
pub(crate) fn as_read(stat: &Stat) -> (u64, u64, i64, i64, u64) {
    #[allow(clippy::useless_conversion, reason = "the fields' types differ between architectures")]
    (
        stat.st_dev.into(),
        stat.st_ino.into(),
        stat.st_size.into(),
        stat.st_mtime.into(),
        stat.st_mtime_nsec.into(),
    )
}
