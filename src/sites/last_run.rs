//! When the last run was and how it ended: a file of its own beside the state, rewritten by every run and never synced.
//!
//! A run that failed is the last run too. Where there is no room for a new file the record is written over the old one,
//! which has room to spare.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, fstat, openat, renameat};
use rustix::io::Errno;
use rustix::process::{Pid, geteuid, test_kill_process};
use serde::{Deserialize, Serialize};

use super::durable::{create, remove};
use super::{entries, guard};
use crate::certified_key::hex;
use crate::config::{Method, OWN_DIR, Settings};
use crate::haproxy::verdict::Outcome;
use crate::plan::reason::Reason;
use crate::plan::refusal::Refusal;
use crate::plan::row::{Plan, Row};
use crate::sites::place::Place;
use crate::sys::failure::Failure;
use crate::sys::system::System;

const LAST_RUN_FILE: &str = "last-run.json";

/// More than a record has with 100,000 files, all of them refused with many words.
const MAX_BYTES: u64 = 256 << 20;

/// A record's length is a multiple of this.
const ROOM: usize = 4096;

/// What is known of the last run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LastRun {
    /// When it ended, in seconds since 1970.
    pub at: i64,
    /// Its exit status.
    pub exit: u8,
    /// Whether everything was deployed, and only a warning made it exit 1.
    pub only_warned: bool,
    /// What kept it from being done, or from its end.
    pub error: Option<Failure>,
    /// How many files it changed.
    pub changes: usize,
    /// When the last run ended that found everything in step, in seconds since 1970.
    pub succeeded: i64,
    /// How each HAProxy was last notified, by its name.
    pub told: BTreeMap<String, Told>,
    /// What is wrong, as [`crate::output::syslog`] knows it again, each with the time when it was last logged.
    pub complaints: BTreeMap<String, i64>,
    /// What was refused or in conflict, by its file, and since when: in seconds since 1970.
    pub undeployed: BTreeMap<String, i64>,
    /// The mark of the files that aren't ours, and of the HAProxys that would load them, see [`crate::haproxy::untried`].
    pub accepted: Option<String>,
    /// What HAProxy refused, by the file's name, the host certificate by its whole path.
    pub rejected: BTreeMap<String, RejectedFile>,
}

/// A PEM that HAProxy refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectedFile {
    /// Its SHA-256, in hex.
    pub sha256: String,
    /// HAProxy's words.
    pub words: String,
}

/// How a HAProxy was last notified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// When the run ended, in seconds since 1970.
    pub at: i64,
    /// The way that was used.
    pub method: Method,
    /// How it ended.
    pub outcome: Outcome,
    /// Whether it was seen to have taken it.
    pub confirmed: Option<bool>,
    /// The cause where it was not notified, and what to do.
    #[serde(default)]
    pub detail: Option<String>,
    /// What mends its configuration, where it refused that for something that isn't ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

impl Told {
    /// Whether nothing was left to tell.
    #[must_use]
    pub fn worked(&self) -> bool {
        match self.outcome {
            Outcome::Updated | Outcome::Reloaded => self.confirmed != Some(false),
            Outcome::NotNeeded | Outcome::NotRunning | Outcome::Skipped => true,
            Outcome::Failed | Outcome::RolledBack | Outcome::Deferred => false,
        }
    }
}

impl LastRun {
    /// This run with the publish that followed it: both are to succeed.
    #[must_use]
    pub fn followed_by(&self, publish: &Self) -> Self {
        Self {
            exit: self.exit.max(publish.exit),
            only_warned: [self, publish].iter().all(|run| run.exit == 0 || run.only_warned),
            error: self.error.clone().or_else(|| publish.error.clone()),
            succeeded: self.succeeded.min(publish.succeeded),
            ..self.clone()
        }
    }

    /// HAProxy's words where it refused what this row is about to put in place.
    #[must_use]
    pub fn rejected(&self, row: &Row) -> Option<&str> {
        let sha256 = row.sha256.filter(|_| row.action.writes())?;
        let rejected = self.rejected.get(row.file.as_ref()?.to_str()?)?;
        (rejected.sha256 == hex(&sha256)).then_some(rejected.words.as_str())
    }

    /// Refuses what HAProxy refused in that run: whoever asks it again may hear the same.
    pub fn refuse_rejected(&self, plan: &mut Plan) {
        for row in &mut plan.rows {
            if let Some(words) = self.rejected(row) {
                row.refuse(Refusal::new(Reason::HaproxyRejects, words));
            }
        }
    }

    /// The last run on this sites directory; the default where nothing is known of one.
    #[must_use]
    pub fn load(sites_dir: &Path) -> Self {
        Self::look(sites_dir).ok().flatten().unwrap_or_default()
    }

    /// The last run on this sites directory; `None` where there was none, or its record can't be understood.
    ///
    /// # Errors
    /// It can't be read.
    pub fn look(sites_dir: &Path) -> Result<Option<Self>, Failure> {
        let Some(place) = Place::open(sites_dir)? else { return Ok(None) };
        place.subdirectory(OWN_DIR)?.map_or(Ok(None), |own| Self::look_in(&own))
    }

    /// The last run that is recorded in this directory of ours.
    ///
    /// # Errors
    /// It can't be read.
    pub fn look_in(own: &Place) -> Result<Option<Self>, Failure> {
        match entries::bytes_within(&own.dir, LAST_RUN_FILE.as_ref(), MAX_BYTES) {
            Ok(text) => Ok(serde_json::from_slice(&text).ok()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Failure::io("read", &own.path.join(LAST_RUN_FILE), &e)),
        }
    }

    /// Records this run, but not where a stranger may write.
    ///
    /// # Errors
    /// It can't be written.
    pub fn save(&self, settings: &Settings, system: &System) -> Result<(), Failure> {
        let Some(place) = Place::open(&settings.sites_dir)? else { return Ok(()) };
        guard::check(&place.path, settings, system)?;
        place.subdirectory(OWN_DIR)?.map_or(Ok(()), |own| self.save_in(&own))
    }

    /// Records this run in this directory, where that is ours.
    ///
    /// # Errors
    /// It can't be written.
    pub fn save_in(&self, own: &Place) -> Result<(), Failure> {
        let ours = fstat(&own.dir).is_ok_and(|stat| [0, geteuid().as_raw()].contains(&stat.st_uid));
        if !ours {
            return Ok(());
        }
        let text = self.text();
        // Two runs may end at once: each writes a file of its own.
        let unnamed = format!("{LAST_RUN_FILE}.{}", std::process::id());
        let write = || {
            remove(&own.dir, &*unnamed)?;
            create(own.dir.as_fd(), &unnamed, None, 0o600, &text)?;
            renameat(&own.dir, &*unnamed, &own.dir, LAST_RUN_FILE)
        };
        let Err(failed) = write() else { return Ok(()) };
        // Best effort: what there is of it takes room.
        let _ = remove(&own.dir, &*unnamed);
        overwrite(own, &self.without_details().text())
            .map_err(|_| Failure::io("write", &own.path.join(LAST_RUN_FILE), &failed.into()))
    }

    /// As JSON, with blanks behind it: the next record finds room in its place on a disk that is full.
    fn text(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec(self).unwrap_or_default();
        let length = text.len().next_multiple_of(ROOM);
        text.resize(length, b' ');
        text
    }

    /// Without what may be long.
    fn without_details(&self) -> Self {
        let mut record = self.clone();
        record.complaints.clear();
        record.undeployed.clear();
        record.rejected.clear();
        for told in record.told.values_mut() {
            (told.detail, told.advice) = (None, None);
        }
        record
    }
}

/// Writes over a record, in its own room, where the disk has none for another file.
fn overwrite(own: &Place, text: &[u8]) -> rustix::io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let record = openat(&own.dir, LAST_RUN_FILE, flags, Mode::empty())?;
    let stat = fstat(&record)?;
    let room = usize::try_from(stat.st_size).unwrap_or_default();
    let is_ours = stat.st_uid == geteuid().as_raw() && FileType::from_raw_mode(stat.st_mode).is_file();
    if !is_ours || room < text.len() {
        return Err(Errno::NOSPC);
    }
    let mut whole = text.to_vec();
    whole.resize(room, b' ');
    let written = std::fs::File::from(record).write_all_at(&whole, 0);
    written.map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))
}

/// Removes what runs that were killed left half-written.
pub(super) fn clear_leftovers(own: &Place) -> Result<(), Failure> {
    for name in entries::entries(&own.dir, &own.path)? {
        let writer =
            name.to_str().and_then(|name| name.strip_prefix(LAST_RUN_FILE)?.strip_prefix('.')?.parse().ok());
        let Some(writer) = writer.and_then(Pid::from_raw) else { continue };
        if test_kill_process(writer) == Err(Errno::SRCH) {
            remove(&own.dir, &*name).map_err(|e| Failure::io("remove", &own.path.join(&name), &e.into()))?;
        }
    }
    Ok(())
}
