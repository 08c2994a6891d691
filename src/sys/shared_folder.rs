//! Directories that others are to look into, whatever the umask is.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, fchmod, fstat, mkdirat, open};
use rustix::io::Errno;

/// Everybody may look into it, and its owner alone changes it.
const SHARED: u32 = 0o755;

/// Makes this directory and what is missing on the way to it. The modes of what is there stay.
///
/// # Errors
/// Something can't be made.
pub fn make_shared(path: &Path) -> io::Result<()> {
    let is_missing = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.is_dir();
    let missing: Vec<&Path> = path.ancestors().take_while(is_missing).collect();
    for folder in missing.into_iter().rev() {
        match mkdirat(CWD, folder, Mode::RWXU) {
            Ok(()) => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                share(open(folder, flags, Mode::empty())?)?;
            }
            // Another run made it meanwhile.
            Err(Errno::EXIST) if folder.is_dir() => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// Opens a directory that was just made to everybody; who inherits its group still does.
///
/// # Errors
/// Its mode can't be changed.
pub fn share(folder: impl AsFd) -> rustix::io::Result<()> {
    let mode = fstat(&folder)?.st_mode & 0o7777;
    // Some file systems have no modes to change.
    if mode & 0o777 == SHARED { Ok(()) } else { fchmod(&folder, Mode::from_raw_mode(mode & 0o7000 | SHARED)) }
}
