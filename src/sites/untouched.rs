//! Since when no `.sctl`, `.ocsp` or `.issuer` has gone from a directory.
//!
//! Each run remembers which ones it found, and how it left the directory: one that came, was loaded and went between two
//! runs has changed it since, and left it with the names that it had.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::time::{Duration, SystemTime};

use rustix::fs::fstat;
use serde::{Deserialize, Serialize};

use super::entries;
use crate::certified_key::{hex, sha256};
use crate::serving::beside::EXTRAS;
use crate::serving::loads::Identity;
use crate::sites::place::Place;

/// What is remembered of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Untouched {
    /// When one of these had last gone from it, or may have: seconds and nanoseconds since 1970.
    pub since: (u64, u32),
    /// When names had last come or gone as a run left it (its mtime: another owner or mode isn't meant), and a digest of the
    /// names in it; `None`: a run has changed it that didn't come to its end.
    #[serde(default)]
    pub left: Option<((i64, i64), String)>,
    /// The files of these kinds that were there.
    #[serde(default, rename = "scts", skip_serializing_if = "BTreeSet::is_empty")]
    pub siblings: BTreeSet<String>,
}

/// A directory as it was when a run began.
#[derive(Debug)]
pub(crate) struct FoundPlace {
    /// Which one it is.
    pub(crate) identity: Identity,
    /// What a run that finds it so remembers.
    pub(crate) record: Untouched,
}

/// What is seen of a directory before this run changes anything in it.
#[derive(Debug)]
pub(crate) struct BeforeRun {
    look: Look,
    names: Vec<OsString>,
}

impl BeforeRun {
    /// Looks at a directory; `None`: it can't be read.
    pub(crate) fn of(place: &Place) -> Option<Self> {
        let look = look(place)?;
        Some(Self { look, names: entries::entries(&place.dir, &place.path).ok()? })
    }

    /// How it is found, where the last run remembers this of it.
    pub(crate) fn found(self, last: Option<&Untouched>) -> FoundPlace {
        let Self { look: Look { identity, changed, named }, names } = self;
        let is_new = last.is_none() && names.is_empty();
        let digest = digest_of(&names);
        let siblings = siblings_of(names);
        let is_innocent = |last: &&Untouched| {
            let Some((left, before)) = &last.left else { return false };
            // What has come or gone for good says why it has changed.
            siblings.is_superset(&last.siblings) && (*left == named || *before != digest)
        };
        let since = match last.filter(is_innocent) {
            Some(last) => last.since,
            None if is_new => (0, 0),
            None => changed,
        };
        FoundPlace { identity, record: Untouched { since, left: None, siblings } }
    }
}

impl FoundPlace {
    /// When one of these had last gone from it, or may have.
    pub(crate) fn touched(&self) -> SystemTime {
        let (seconds, rest) = self.record.since;
        SystemTime::UNIX_EPOCH + Duration::new(seconds, rest)
    }
}

/// All of them as they are left now, by a run that alone has changed them since it found them.
pub(crate) fn left(
    found: &BTreeMap<String, FoundPlace>,
    places: &[&Place],
    before: &BTreeMap<String, Untouched>,
) -> BTreeMap<String, Untouched> {
    let mut all = before.clone();
    for place in places {
        let key = key(place);
        let Some(found) = found.get(&key) else { continue };
        let Some(Look { changed, named, .. }) = look(place) else { continue };
        let Ok(names) = entries::entries(&place.dir, &place.path) else { continue };
        let left = Some((named, digest_of(&names)));
        let siblings = siblings_of(names);
        let since = if siblings.is_superset(&found.record.siblings) { found.record.since } else { changed };
        all.insert(key, Untouched { since, left, siblings });
    }
    all
}

/// The name under which a directory is remembered, whatever its path: its device and inode.
pub(crate) fn key(place: &Place) -> String {
    let named = |Look { identity, .. }: Look| format!("{}:{}", identity.device, identity.inode);
    look(place).map(named).unwrap_or_default()
}

/// A directory as it is now.
#[derive(Debug)]
struct Look {
    identity: Identity,
    /// Its ctime, which no program can set.
    changed: (u64, u32),
    /// Its mtime.
    named: (i64, i64),
}

fn look(place: &Place) -> Option<Look> {
    let stat = fstat(&place.dir).ok()?;
    Some(Look {
        identity: Identity { device: stat.st_dev, inode: stat.st_ino },
        changed: (u64::try_from(stat.st_ctime).ok()?, u32::try_from(stat.st_ctime_nsec).ok()?),
        named: (stat.st_mtime, i64::try_from(stat.st_mtime_nsec).ok()?),
    })
}

fn digest_of(names: &[OsString]) -> String {
    let mut names: Vec<&[u8]> = names.iter().map(|name| name.as_encoded_bytes()).collect();
    names.sort_unstable();
    hex(&sha256(&names.join(&0)))
}

fn siblings_of(names: Vec<OsString>) -> BTreeSet<String> {
    let has = |name: &[u8], ending: &str| {
        name.strip_suffix(ending.as_bytes()).is_some_and(|owner| owner.ends_with(b"."))
    };
    let is_beside = |name: &OsString| EXTRAS.iter().any(|ending| has(name.as_encoded_bytes(), ending));
    names.into_iter().filter(is_beside).map(|name| name.to_string_lossy().into_owned()).collect()
}
