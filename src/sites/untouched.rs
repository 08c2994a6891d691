//! Since when no `.sctl` has gone from a directory.
//!
//! Each run remembers which ones it found. One that came, was loaded and went between two runs isn't seen.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::time::{Duration, SystemTime};

use rustix::fs::fstat;
use serde::{Deserialize, Serialize};

use super::entries;
use crate::serving::loads::Identity;
use crate::sites::place::Place;

/// What is remembered of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Untouched {
    /// When a `.sctl` had last gone from it, or may have: seconds and nanoseconds since 1970.
    pub since: (u64, u32),
    /// The `.sctl` files that were there.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub scts: BTreeSet<String>,
}

/// A directory as it was when a run began.
#[derive(Debug)]
pub(crate) struct FoundPlace {
    /// Which one it is.
    pub(crate) identity: Identity,
    /// What a run that finds it so remembers.
    pub(crate) record: Untouched,
}

impl FoundPlace {
    /// How a directory is found, of which the last run remembers this; `None`: it can't be read.
    pub(crate) fn of(place: &Place, last: Option<&Untouched>) -> Option<Self> {
        let (identity, changed) = look(place)?;
        let is_empty = Cell::new(true);
        let is_sct = |name: &OsStr| {
            is_empty.set(false);
            name.as_encoded_bytes().ends_with(b".sctl")
        };
        let names = entries::entries_that(&place.dir, &place.path, &is_sct).ok()?;
        let is_new = last.is_none() && is_empty.get();
        let scts = names.iter().map(|name| name.to_string_lossy().into_owned()).collect::<BTreeSet<_>>();
        let has_all = |last: &&Untouched| scts.is_superset(&last.scts);
        let since = match last.filter(has_all) {
            Some(last) => last.since,
            None if is_new => (0, 0),
            None => changed,
        };
        Some(Self { identity, record: Untouched { since, scts } })
    }

    /// When a `.sctl` had last gone from it, or may have.
    pub(crate) fn touched(&self) -> SystemTime {
        let (seconds, rest) = self.record.since;
        SystemTime::UNIX_EPOCH + Duration::new(seconds, rest)
    }
}

/// All of them as they are left now.
pub(crate) fn left(
    found: &BTreeMap<String, FoundPlace>,
    places: &[&Place],
    before: &BTreeMap<String, Untouched>,
) -> BTreeMap<String, Untouched> {
    let mut all = before.clone();
    for place in places {
        let key = key(place);
        let found = found.get(&key).map(|found| &found.record);
        if let Some(now) = found.and_then(|found| FoundPlace::of(place, Some(found))) {
            all.insert(key, now.record);
        }
    }
    all
}

/// The name under which a directory is remembered, whatever its path: its device and inode.
pub(crate) fn key(place: &Place) -> String {
    look(place).map_or_else(String::new, |(identity, _)| format!("{}:{}", identity.device, identity.inode))
}

fn look(place: &Place) -> Option<(Identity, (u64, u32))> {
    let stat = fstat(&place.dir).ok()?;
    let changed = (u64::try_from(stat.st_ctime).ok()?, u32::try_from(stat.st_ctime_nsec).ok()?);
    Some((Identity { device: stat.st_dev, inode: stat.st_ino }, changed))
}
