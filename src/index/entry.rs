//! What the index holds, as values.

use rustix::fs::Stat;

use crate::plan::situation::Candidate;

const SECOND: i128 = 1_000_000_000;

/// What a file looks like from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// The device that it is on.
    pub device: u64,
    /// Its inode.
    pub inode: u64,
    /// Its size in bytes.
    pub size: u64,
    /// Its kind and permission bits.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// When its contents were last changed, in nanoseconds since 1970: programs set it as they like.
    pub modified: i128,
    /// When anything of it was last changed, in nanoseconds since 1970: the kernel alone sets it.
    pub changed: i128,
}

impl Look {
    /// What the kernel says.
    #[must_use]
    #[allow(clippy::useless_conversion, reason = "the fields' types differ between architectures")]
    pub fn of(stat: &Stat) -> Self {
        let moment = |seconds: i64, nanoseconds: i128| i128::from(seconds) * SECOND + nanoseconds;
        Self {
            device: stat.st_dev.into(),
            inode: stat.st_ino.into(),
            size: u64::try_from(stat.st_size).unwrap_or(u64::MAX),
            mode: stat.st_mode.into(),
            uid: stat.st_uid,
            gid: stat.st_gid,
            modified: moment(stat.st_mtime.into(), stat.st_mtime_nsec.into()),
            changed: moment(stat.st_ctime.into(), stat.st_ctime_nsec.into()),
        }
    }
}

/// What the three files of a lineage look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Looks {
    /// The private key, links followed.
    pub key: Look,
    /// The chain, links followed.
    pub chain: Look,
    /// The deployed file itself.
    pub site: Look,
}

/// Under which circumstances a run works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// A digest of all that must be the same: program, boot, user, directories, owner and mode.
    pub circumstances: [u8; 32],
    /// When the run began, before it looked at any file: nanoseconds since 1970.
    pub began: i128,
    /// By how much the clock was ahead of the time since boot, in nanoseconds: it changes where the clock is set.
    pub ahead: i128,
}

/// What is known of a lineage that was proved, and deployed as it was proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// Its name.
    pub lineage: String,
    /// What its files looked like when they were read.
    pub looks: Looks,
    /// When they were read, in seconds since 1970.
    pub proved: i64,
    /// What the proof gave.
    pub candidate: Candidate,
}
