//! What is on disk where HAProxy loads certificates. A link is followed for nothing but what HAProxy would present from it.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Dir, FileType, Mode, OFlags, Stat, fstat, openat, stat, statat};
use rustix::io::Errno;
use zeroize::Zeroizing;

use crate::certified_key::{CertifiedKey, Leaf, has_private_key, openssl_reads, read_leaf, sha256};
use crate::config::{OWN_DIR, Owner};
use crate::index::entry::Look;
use crate::plan::names::is_loaded_name;
use crate::plan::situation::{Deployed, EntryKind};
use crate::sys::failure::Failure;
use crate::sys::safe_read::{MAX_FILE_BYTES, Unopened, read_opened, read_opened_within};

/// How a file is opened that HAProxy may load: nothing that could hang.
const FOLLOWED: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// The names in the sites directory, but for our own directory.
///
/// # Errors
/// The directory can't be read.
pub fn entries(dir: &OwnedFd, path: &Path) -> Result<Vec<OsString>, Failure> {
    entries_that(dir, path, &|_| true)
}

/// Those of them that are wanted.
///
/// # Errors
/// As for [`entries`].
pub fn entries_that(
    dir: &OwnedFd,
    path: &Path,
    is_wanted: &dyn Fn(&OsStr) -> bool,
) -> Result<Vec<OsString>, Failure> {
    let fail = |e: Errno| Failure::io("read", path, &e.into());
    let mut names = Vec::new();
    for entry in Dir::read_from(dir).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if !matches!(name.as_bytes(), b"." | b"..") && name != OWN_DIR && is_wanted(name) {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// One entry of a directory; `None`: there is none of this name. Where its bytes have the SHA-256 of `known`, its leaf
/// is the one given there and isn't parsed again. With it what it looked like when it was read.
///
/// # Errors
/// It is there and can't be read.
pub fn entry(
    dir: &OwnedFd,
    name: &OsStr,
    known: Option<(&[u8; 32], &Arc<Leaf>)>,
) -> Result<Option<(Deployed, Look)>, std::io::Error> {
    let flags = FOLLOWED | OFlags::NOFOLLOW;
    let stat = match statat(dir.as_fd(), name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT | Errno::NAMETOOLONG) => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    let kind = kind(&stat);
    let unread = Deployed::unread(kind);
    if FileType::from_raw_mode(stat.st_mode).is_symlink() {
        return Ok(Some((behind_link(dir, name, unread), Look::of(&stat))));
    }
    if !matches!(kind, EntryKind::Regular { .. }) {
        return Ok(Some((unread, Look::of(&stat))));
    }
    let read = match openat(dir.as_fd(), name, flags, Mode::empty()) {
        Ok(fd) => read_opened(fd),
        Err(Errno::NOENT) => return Ok(None),
        Err(e) => Err(Unopened::Io(e.into())),
    };
    match read {
        Ok((bytes, read)) => {
            let digest = sha256(&bytes);
            let (leaf, has_key) = match known {
                Some((expected, leaf)) if *expected == digest => (Some(Arc::clone(leaf)), true),
                _ => {
                    let text = openssl_reads(&bytes).text;
                    (read_leaf(&bytes).ok().map(Arc::new), has_private_key(&text) && read_leaf(&text).is_ok())
                }
            };
            let presented = leaf.is_some() && (has_key || has_key_beside(dir, name));
            Ok(Some((Deployed { sha256: Some(digest), leaf, has_key, presented, ..unread }, Look::of(&read))))
        }
        Err(Unopened::TooLarge(_)) => Ok(Some((unread, Look::of(&stat)))),
        Err(Unopened::NotRegular(_)) => {
            Ok(Some((Deployed { kind: EntryKind::Other, ..unread }, Look::of(&stat))))
        }
        Err(Unopened::Io(e)) => Err(e),
    }
}

/// A link that HAProxy follows: nothing of ours, whatever it leads to, but its certificate is presented.
fn behind_link(dir: &OwnedFd, name: &OsStr, link: Deployed) -> Deployed {
    let Ok(fd) = openat(dir.as_fd(), name, FOLLOWED, Mode::empty()) else { return link };
    let leads_to = entry_behind(dir, &fd);
    let Ok((bytes, _)) = read_opened(fd) else { return link };
    let text = openssl_reads(&bytes).text;
    let leaf = read_leaf(&text).ok().map(Arc::new);
    let presented = leaf.is_some() && (has_private_key(&text) || has_key_beside(dir, name));
    Deployed { leaf, presented, leads_to, ..link }
}

/// The name in this directory of a file that was opened.
fn entry_behind(dir: &OwnedFd, file: &OwnedFd) -> Option<OsString> {
    let path = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()?;
    let id = |stat: Stat| (stat.st_dev, stat.st_ino);
    let is_here = id(stat(path.parent()?).ok()?) == id(fstat(dir).ok()?);
    path.file_name().filter(|_| is_here).map(OsStr::to_owned)
}

/// Whether HAProxy finds a key beside a certificate that has none: in `NAME.key` (2.2 and later), or in the place of `.crt`
/// (`ssl-load-extra-del-ext`, 2.4 and later).
fn has_key_beside(dir: &OwnedFd, name: &OsStr) -> bool {
    let name = Path::new(name);
    let short = name.extension().filter(|ending| *ending == "crt").map(|_| name.with_extension("key"));
    let mut whole = name.as_os_str().to_owned();
    whole.push(".key");
    [Some(whole.into()), short].into_iter().flatten().any(|key| {
        let read = openat(dir.as_fd(), &key, FOLLOWED, Mode::empty()).map(read_opened);
        matches!(read, Ok(Ok((bytes, _))) if has_private_key(&openssl_reads(&bytes).text))
    })
}

fn kind(stat: &Stat) -> EntryKind {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => EntryKind::Regular {
            owner: Owner { uid: stat.st_uid, gid: stat.st_gid },
            mode: stat.st_mode & 0o7777,
        },
        FileType::Directory => EntryKind::Directory,
        _ => EntryKind::Other,
    }
}

/// Whether a directory holds a file of this name that HAProxy surely can load: a pair that was proved.
#[must_use]
pub fn holds_a_pair(dir: impl AsFd, name: &OsStr) -> bool {
    bytes(dir, name).is_ok_and(|pem| CertifiedKey::prove(&pem, &pem).is_ok())
}

/// Whether the sites directory holds a file that HAProxy surely can load, and that isn't one of these.
pub(super) fn holds_a_pair_besides(dir: &OwnedFd, path: &Path, excepted: impl Fn(&OsStr) -> bool) -> bool {
    entries(dir, path).is_ok_and(|names| {
        let others = names.iter().filter(|name| is_loaded_name(name) && !excepted(name));
        others.into_iter().any(|name| holds_a_pair(dir, name))
    })
}

/// The bytes of a regular file in a directory; a link is not followed.
///
/// # Errors
/// It isn't there, isn't a regular file of a sensible size, or can't be read.
pub fn bytes(dir: impl AsFd, name: &OsStr) -> std::io::Result<Zeroizing<Vec<u8>>> {
    bytes_within(dir, name, MAX_FILE_BYTES)
}

/// The same of a file that may have more than a key or a chain: `at_most` bytes.
///
/// # Errors
/// As for [`bytes`].
pub fn bytes_within(dir: impl AsFd, name: &OsStr, at_most: u64) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let fd = openat(dir, name, FOLLOWED | OFlags::NOFOLLOW, Mode::empty())?;
    let (bytes, _) = read_opened_within(fd, at_most)?;
    Ok(bytes)
}
