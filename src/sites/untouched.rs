//! Since when no `.sctl` has gone from a directory.
//!
//! Each run remembers which ones it found. One that came, was loaded and went between two runs isn't seen.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::time::{Duration, SystemTime};

use rustix::fs::fstat;
use serde::{Deserialize, Serialize};

use super::entries;
use crate::serving::loads::Identity;
use crate::sites::place::Place;

/// How a run left a directory. Times are seconds and nanoseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Untouched {
    /// Its change time then; `None`: a run was about to change it, and may have been killed.
    pub changed: Option<(u64, u32)>,
    /// When a `.sctl` had last gone from it, or may have.
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
    changed: (u64, u32),
    since: (u64, u32),
    /// What HAProxy may have loaded beside certificates, and must not be forgotten.
    scts: BTreeSet<String>,
}

impl FoundPlace {
    /// How a directory is found, of which the last run remembers this; `None`: it can't be read.
    pub(crate) fn of(place: &Place, last: Option<&Untouched>) -> Option<Self> {
        let (identity, changed) = look(place)?;
        let names = entries::entries(&place.dir, &place.path).ok()?;
        let is_new = last.is_none() && names.is_empty();
        let scts = scts_of(names);
        let has_all = |last: &&Untouched| scts.is_superset(&last.scts);
        let since = match last.filter(has_all) {
            Some(last) => last.since,
            None if is_new => (0, 0),
            None => changed,
        };
        Some(Self { identity, changed, since, scts })
    }

    /// When a `.sctl` had last gone from it, or may have.
    pub(crate) fn touched(&self) -> SystemTime {
        let (seconds, rest) = self.since;
        SystemTime::UNIX_EPOCH + Duration::new(seconds, rest)
    }

    /// What the next run must know of it should this one be killed while it changes it.
    pub(crate) fn opened(&self) -> Untouched {
        Untouched { changed: None, since: self.since, scts: self.scts.clone() }
    }

    /// What the next run must know of it.
    fn left(&self, place: &Place) -> Option<Untouched> {
        let (_, changed) = look(place)?;
        let scts = scts(place)?;
        let since = if scts.is_superset(&self.scts) { self.since } else { changed };
        Some(Untouched { changed: Some(changed), since, scts })
    }

    /// Whether this run has changed it, or its record is another one.
    fn is_news(&self, place: &Place, before: Option<&Untouched>) -> bool {
        before.is_none_or(|before| before.changed.is_none() || before.scts != self.scts)
            || look(place).is_some_and(|(_, changed)| changed != self.changed)
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
        let news = found.get(&key).filter(|found| found.is_news(place, before.get(&key)));
        if let Some(left) = news.and_then(|found| found.left(place)) {
            all.insert(key, left);
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

fn scts(place: &Place) -> Option<BTreeSet<String>> {
    entries::entries(&place.dir, &place.path).ok().map(scts_of)
}

fn scts_of(names: Vec<OsString>) -> BTreeSet<String> {
    let scts = names.into_iter().filter(|name| name.as_encoded_bytes().ends_with(b".sctl"));
    scts.map(|name| name.to_string_lossy().into_owned()).collect()
}
