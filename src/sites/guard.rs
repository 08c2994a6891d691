//! Who else could change a directory: whoever can, can put a file of his own under a name that HAProxy loads.

use std::path::Path;

use rustix::fs::{Stat, stat};
use rustix::process::geteuid;

use crate::config::{Owner, Settings};
use crate::haproxy::process::limited::kept_open;
use crate::sys::escape::{escaped_path, shell_word};
use crate::sys::failure::{Failure, FailureKind};
use crate::sys::procfs::same_file;
use crate::sys::system::System;

/// Refuses a directory that anybody may write to, or that a stranger owns, itself or one of its parents.
///
/// # Errors
/// The fact, with the command that mends it.
pub fn check(real_path: &Path, settings: &Settings, system: &System) -> Result<(), Failure> {
    for folder in real_path.ancestors() {
        let stat = stat(folder).map_err(|e| Failure::io("look at", folder, &e.into()))?;
        let shown = escaped_path(folder);
        let forbid = |fact: String| Err(Failure::new(FailureKind::Permission, fact));
        if !is_trusted(&stat, settings.owner) {
            let is_sites = same_file(folder, &settings.sites_dir);
            let chown = format!("chown root {}", shell_word(folder.as_os_str()));
            let commands: Vec<String> =
                [chown].into_iter().chain(kept_open(folder, is_sites, settings, system)).collect();
            return forbid(format!(
                "{shown} belongs to user {}, who could replace what HAProxy loads; run: {}",
                stat.st_uid,
                commands.join(" && ")
            ));
        }
        if stat.st_mode & 0o002 != 0 && stat.st_mode & 0o1000 == 0 {
            let word = shell_word(folder.as_os_str());
            return forbid(format!("anybody may write to {shown}; run: chmod o-w {word}"));
        }
    }
    Ok(())
}

/// The directory and those of its parents that their group may write to, for a warning.
#[must_use]
pub fn group_writable(real_path: &Path) -> Vec<&Path> {
    real_path
        .ancestors()
        .filter(|folder| stat(*folder).is_ok_and(|stat| stat.st_mode & 0o1020 == 0o020 && stat.st_gid != 0))
        .collect()
}

fn is_trusted(stat: &Stat, owner: Owner) -> bool {
    [0, geteuid().as_raw(), owner.uid].contains(&stat.st_uid)
}
