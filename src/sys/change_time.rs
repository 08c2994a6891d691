//! When a file was changed last: its contents, name, owner or mode (ctime, `inode(7)`), which no program can set.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// The change time in a file's metadata; `None`: it is before 1970.
#[must_use]
pub fn change_time(meta: &Metadata) -> Option<SystemTime> {
    let seconds = Duration::from_secs(u64::try_from(meta.ctime()).ok()?);
    SystemTime::UNIX_EPOCH.checked_add(seconds + Duration::from_nanos(u64::try_from(meta.ctime_nsec()).ok()?))
}

/// The change time of the file that this path leads to; `None`: it can't be looked at.
#[must_use]
pub fn changed_at(path: &Path) -> Option<SystemTime> {
    change_time(&std::fs::metadata(path).ok()?)
}
