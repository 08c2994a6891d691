//! What has changed since a worker read it: its configuration, lists and directories.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::sight;
use super::sources::sources;
use crate::config::Haproxy;
use crate::haproxy::cli::worker::Answering;
use crate::sys::change_time::{changed_at, modified_at};
use crate::sys::escape::escaped_path;
use crate::sys::procfs::Proc;
use crate::sys::system::System;

/// By how much a file must be newer than a process: procfs rounds to clock ticks, and file systems to the kernel's.
const TICKS: Duration = Duration::from_millis(30);

/// A file or directory that says what a worker loads, and that the worker may not have read as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewerSource {
    path: PathBuf,
    how: Newer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Newer {
    /// A file's contents are.
    Contents,
    /// A directory had other names in it: perhaps none that count.
    Names,
    /// It may be another file, which was moved to its place or is as old as what it was copied from (`cp -p`); or only its
    /// owner, mode or number of names has changed.
    Perhaps,
}

impl NewerSource {
    /// Whether the worker surely hasn't read it as it is.
    #[must_use]
    pub fn is_sure(&self) -> bool {
        self.how == Newer::Contents
    }

    /// What has become of it since the worker started.
    #[must_use]
    pub fn fact(&self) -> String {
        let path = escaped_path(&self.path);
        match self.how {
            Newer::Contents => format!("{path} has changed since"),
            Newer::Names => format!("names in {path} came or went since"),
            Newer::Perhaps => format!("{path} was replaced since, or its owner, mode or links changed"),
        }
    }
}

/// The first of the files that say what this worker loads that has changed since it started, as far as that can be seen:
/// surely, or else perhaps.
#[must_use]
pub fn newer_source(system: &System, sources: &[PathBuf], worker: &Answering) -> Option<NewerSource> {
    let started = worker.forked(system).unwrap_or(worker.until);
    let is_later = |moment: Option<SystemTime>| moment.is_some_and(|moment| moment > started + TICKS);
    let surely = |path: &&PathBuf| path.is_file() && is_later(modified_at(path));
    let found = sources.iter().find(surely).map(|path| (path, Newer::Contents));
    let (path, how) = found.or_else(|| {
        let path = sources.iter().find(|path| is_later(changed_at(path)))?;
        Some((path, if path.is_dir() { Newer::Names } else { Newer::Perhaps }))
    })?;
    Some(NewerSource { path: path.clone(), how })
}

/// Whether one of them is newer than this moment, in which a worker started, or may be.
pub(crate) fn is_newer(system: &System, haproxy: &Haproxy, moment: SystemTime) -> bool {
    let Some(pid) = sight::master(system, haproxy) else { return false };
    let changed = |file: &PathBuf| changed_at(file).max(modified_at(file));
    sources(&Proc::new(system), haproxy, pid).iter().filter_map(changed).any(|changed| changed > moment)
}
