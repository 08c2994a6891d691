//! Whether nobody but root and us could have put something else in the place of a file: what we run, or is run with what
//! another process says.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::sys::escape::escaped_path;
use crate::sys::failure::io_cause;

/// Why a program isn't run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Untrusted {
    /// A place on its way can't be looked at.
    #[error("cannot {deed} {}: {why}", escaped_path(.place))]
    Unreadable {
        /// What can't be done.
        deed: &'static str,
        /// Where.
        place: PathBuf,
        /// The cause.
        why: String,
    },
    /// Others could replace it, here.
    #[error("{} is writable by others, so we don't run {}", escaped_path(.place), escaped_path(.program))]
    Writable {
        /// What they can write.
        place: PathBuf,
        /// The program.
        program: PathBuf,
    },
}

/// Nobody but root and us may be able to replace what we run.
pub(crate) fn trusted(binary: &Path, us: u32) -> Result<(), Untrusted> {
    let unreadable = |deed, place: &Path, e: &std::io::Error| Untrusted::Unreadable {
        deed,
        place: place.to_owned(),
        why: io_cause(e),
    };
    let path = binary.canonicalize().map_err(|e| unreadable("run", binary, &e))?;
    for place in path.ancestors() {
        let meta = fs::metadata(place).map_err(|e| unreadable("look at", place, &e))?;
        let sticky = meta.is_dir() && meta.mode() & 0o1000 != 0;
        let others = meta.mode() & 0o002 != 0 || (meta.mode() & 0o020 != 0 && meta.gid() != 0);
        if (meta.uid() != 0 && meta.uid() != us) || (others && !sticky) {
            return Err(Untrusted::Writable { place: place.to_owned(), program: binary.to_owned() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::geteuid;

    #[test]
    fn what_others_can_replace_is_not_run() {
        let us = geteuid().as_raw();
        assert_eq!(trusted(Path::new("/bin/sh"), us), Ok(()));
        let folder = tempfile::tempdir().unwrap();
        let binary = folder.path().join("haproxy");
        fs::write(&binary, "").unwrap();
        let permit =
            |mode| fs::set_permissions(&binary, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        permit(0o755);
        assert_eq!(trusted(&binary, us), Ok(()));
        permit(0o777);
        assert!(matches!(trusted(&binary, us), Err(Untrusted::Writable { .. })));
        permit(0o755);
        let folder_mode = |mode| {
            fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        };
        folder_mode(0o777);
        assert!(matches!(trusted(&binary, us), Err(Untrusted::Writable { .. })));
        folder_mode(0o1777);
        assert_eq!(trusted(&binary, us), Ok(()));
    }
}
