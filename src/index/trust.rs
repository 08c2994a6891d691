//! The rule of trust: when a file that isn't read counts as what it was when it was read last. Pure, and all of it is here.
//!
//! An entry of the index is trusted where all of this holds, and only there:
//!
//! 1. The index was written by this very program, under this boot, for this user, `live` directory, sites directory, owner
//!    and mode; and from then on until the files were looked at the clock wasn't set
//!    ([`Stamp::is_continued_by`], [`crate::sys::clock`]). That it was set and set back between two
//!    runs can't be seen: what was then written in the very tick of its last change is found by `--full`.
//! 2. Key, chain and deployed file look as they did when they were read: device, inode, size, mode, owner, and both times
//!    ([`Look`]). No program can set the time of a change (ctime): rename, chmod, touch and a restored backup all move it.
//! 3. Each of these changes is safely older than the moment at which the run began that wrote the index
//!    ([`Look::is_settled`]): whoever wrote to the file after it was read has moved its ctime.
//! 4. The three are on file systems that keep ctime themselves ([`keeps_change_times`]).
//! 5. The state file has the deployed file with the same SHA-256, for the same lineage and `live` directory, with nothing
//!    pending and nothing refused.
//! 6. The deployed file has the owner and mode that it is to have ([`Look::is_plain`]).
//!
//! What is trusted is unchanged, so a lie in the index can neither write nor prune a file.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::path::Path;

use rustix::fs::FileType;

use crate::config::Owner;
use crate::index::entry::{Look, Looks, Proven, Stamp};
use crate::index::known_pair::KnownPair;
use crate::sites::state::Record;

/// How much older than a run's begin a change must be. File systems take their times from the kernel's tick, which is some
/// milliseconds late, and some keep only every second one of the seconds (FAT); a clock that is set by less than
/// [`STEP`] isn't noticed. Two seconds are more than all of that together.
const MARGIN: i128 = 2 * SECOND;

/// The clock was set where it moved by this much against the time since boot.
const STEP: i128 = SECOND;

const SECOND: i128 = 1_000_000_000;

impl Look {
    /// Whether whatever is written to the file from `began` on shows in its ctime. A ctime of a whole second is that of a
    /// file system that keeps no smaller ones, where two changes may look alike long after; elsewhere one file in a million
    /// has such a one, and is read in vain.
    #[must_use]
    pub fn is_settled(&self, began: i128) -> bool {
        self.changed.checked_add(MARGIN).is_some_and(|safe| safe <= began) && self.changed % SECOND != 0
    }

    /// Whether it is a regular file of this owner and mode.
    #[must_use]
    pub fn is_plain(&self, owner: Owner, mode: u32) -> bool {
        (self.uid, self.gid) == (owner.uid, owner.gid)
            && self.mode & 0o7777 == mode
            && FileType::from_raw_mode(self.mode).is_file()
    }
}

impl KnownPair {
    /// Whether its files are believed to hold what they held when they were read, where they look like `found` now: by the
    /// second, third and fourth of the rules, without a deployed file. `written` is the stamp that it was written down with.
    #[must_use]
    pub fn is_trusted(&self, written: &Stamp, device: u64, (key, chain): (Look, Look)) -> bool {
        (key, chain) == (self.key, self.chain)
            && [key, chain].iter().all(|look| look.device == device && look.is_settled(written.began))
    }
}

impl Looks {
    /// Whether all three are settled, see [`Look::is_settled`].
    #[must_use]
    pub fn are_settled(&self, began: i128) -> bool {
        [self.key, self.chain, self.site].iter().all(|look| look.is_settled(began))
    }
}

impl Stamp {
    /// Whether what a run with this stamp wrote down may still hold in a run with the stamp `now`.
    #[must_use]
    pub fn is_continued_by(&self, now: &Self) -> bool {
        self.circumstances == now.circumstances
            && self.began <= now.began
            && (now.ahead.abs_diff(self.ahead)) < STEP.unsigned_abs()
    }
}

/// Whether a file system of this type sets ctime by the kernel's own clock; a server's clock is another one, and what it
/// tells may be some seconds old. Others than these are always read.
#[must_use]
pub fn keeps_change_times(file_system: i64) -> bool {
    const EXT: i64 = 0xef53;
    const XFS: i64 = 0x5846_5342;
    const BTRFS: i64 = 0x9123_683e;
    const TMPFS: i64 = 0x0102_1994;
    const ZFS: i64 = 0x2fc1_2fc1;
    const F2FS: i64 = 0xf2f5_2010;
    const BCACHEFS: i64 = 0xca45_1a4e;
    const OVERLAYFS: i64 = 0x794c_7630;
    [EXT, XFS, BTRFS, TMPFS, ZFS, F2FS, BCACHEFS, OVERLAYFS].contains(&file_system)
}

/// What an entry is compared with.
#[derive(Debug, Clone, Copy)]
pub struct Rule<'a> {
    /// The stamp of the index.
    pub written: &'a Stamp,
    /// The device of certbot's `live` directory, which must be that of key and chain.
    pub live_device: u64,
    /// The device of the sites directory.
    pub sites_device: u64,
    /// certbot's `live` directory.
    pub live_dir: &'a Path,
    /// Who is to own the deployed file.
    pub owner: Owner,
    /// The permission bits that it is to have.
    pub mode: u32,
}

impl Rule<'_> {
    /// Whether an entry is trusted. `found` is what its files look like now, `record` what the state file says of the
    /// deployed one; `None` where something of it is still pending.
    #[must_use]
    pub fn trusts(&self, entry: &Proven, found: &Looks, record: Option<&Record>) -> bool {
        let Looks { key, chain, site } = &entry.looks;
        *found == entry.looks
            && entry.looks.are_settled(self.written.began)
            && key.device == self.live_device
            && chain.device == self.live_device
            && site.device == self.sites_device
            && site.is_plain(self.owner, self.mode)
            && record.is_some_and(|record| self.is_as_recorded(record, entry))
    }

    /// Whether the state file says of the deployed file just what the index does, and nothing else.
    fn is_as_recorded(&self, record: &Record, entry: &Proven) -> bool {
        record.lineage == entry.lineage
            && Path::new(&*record.live_dir) == self.live_dir
            && record.sha256 == entry.candidate.sha256
            && record.chain == Some(entry.candidate.chain)
            && record.rejected.is_none()
            && record.prune_refused.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGAN: i128 = 1_000 * SECOND + 5;

    fn look(changed: i128) -> Look {
        Look { device: 1, inode: 2, size: 3, mode: 0o100_400, uid: 0, gid: 0, modified: changed, changed }
    }

    #[test]
    fn what_changed_a_moment_before_the_run_is_not_settled() {
        for (changed, settled) in [
            (BEGAN - 2 * SECOND, true),
            (BEGAN - 2 * SECOND + 1, false),
            (BEGAN, false),
            (BEGAN + 1, false),
            // Whole seconds.
            (900 * SECOND, false),
            (0, false),
            (-SECOND, false),
            (900 * SECOND + 1, true),
        ] {
            assert_eq!(look(changed).is_settled(BEGAN), settled, "{changed}");
        }
    }

    #[test]
    fn a_pair_is_trusted_only_as_it_was() {
        let written = Stamp { circumstances: [7; 32], began: BEGAN, ahead: 500 };
        let settled = look(BEGAN - 3 * SECOND);
        let pair = KnownPair { lineage: "a".into(), key: settled, chain: settled, content: [1; 32] };
        assert!(pair.is_trusted(&written, 1, (settled, settled)));
        assert!(!pair.is_trusted(&written, 2, (settled, settled)));
        let young = look(BEGAN - SECOND);
        let unsettled = KnownPair { chain: young, ..pair.clone() };
        assert!(!unsettled.is_trusted(&written, 1, (settled, young)));
        for other in [
            Look { device: 2, ..settled },
            Look { inode: 3, ..settled },
            Look { size: 4, ..settled },
            Look { mode: 0o100_600, ..settled },
            Look { uid: 1, ..settled },
            Look { gid: 1, ..settled },
            Look { modified: 0, ..settled },
            Look { changed: 1, ..settled },
        ] {
            assert!(!pair.is_trusted(&written, 1, (other, settled)), "{other:?}");
            assert!(!pair.is_trusted(&written, 1, (settled, other)), "{other:?}");
        }
    }

    #[test]
    fn a_clock_that_was_set_ends_all_trust() {
        let then = Stamp { circumstances: [7; 32], began: BEGAN, ahead: 500 };
        let now = |seconds: i128, ahead: i128| Stamp { began: BEGAN + seconds * SECOND, ahead, ..then };
        assert!(then.is_continued_by(&now(0, 500)) && then.is_continued_by(&now(9, 500 + STEP - 1)));
        for other in [
            now(-1, 500),
            now(9, 500 + STEP),
            now(9, 500 - STEP),
            now(9, i128::MIN),
            Stamp { circumstances: [8; 32], ..then },
        ] {
            assert!(!then.is_continued_by(&other), "{other:?}");
        }
    }
}
