//! The state file: which files are ours, what HAProxy has not accepted yet, and who is still to be notified.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fmt::{self, Formatter};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FileType, Mode, OFlags, fstat, openat};
use rustix::io::Errno;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::debts::{self, Elsewhere, Owed};
use super::durable::write_durably;
use super::last_start::LastStart;
use super::untouched::Untouched;
use crate::certified_key::{ChainState, hex};
use crate::config::{Method, Settings};
use crate::haproxy::fingerprint::are_still;
use crate::haproxy::target::Target;
use crate::plan::names::site_file;
use crate::plan::situation::Recorded;
use crate::sys::failure::{Failure, FailureKind};

/// The state file's name in our directory.
pub const STATE_FILE: &str = "state.json";

const VERSION: u32 = 1;
const MAX_BYTES: u64 = 1 << 28;

/// What this program remembers from run to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    version: u32,
    /// Our files: by name, the host certificate by its whole path.
    #[serde(default, deserialize_with = "records")]
    pub files: BTreeMap<String, Record>,
    /// Files that were committed and that not every HAProxy has accepted yet.
    #[serde(default)]
    pub pending: BTreeMap<String, Pending>,
    /// Who is still to be notified, by the HAProxy's name.
    #[serde(default)]
    pub owed: BTreeMap<String, Owed>,
    /// The settings files that runs here were made with, and what others have changed since for their HAProxys.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub elsewhere: BTreeMap<String, Elsewhere>,
    /// How each HAProxy was last seen to be started, by its name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub last_start: BTreeMap<String, LastStart>,
    /// How the last run left the directories of our files, by their device and inode.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub untouched: BTreeMap<String, Untouched>,
    /// The HAProxy that refused its configuration when something was pruned last, whatever for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_up_by: Option<String>,
    /// Whether the state file could not be understood: then every HAProxy is notified of everything.
    #[serde(skip)]
    pub lost: bool,
}

/// One of our files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Record {
    /// The lineage that it was written for; empty for the placeholder of `init`, which was written for none.
    pub lineage: String,
    /// certbot's `live` directory that it was written from.
    #[serde(serialize_with = "as_text")]
    pub live_dir: Arc<str>,
    /// SHA-256 of what was written.
    #[serde(serialize_with = "as_hex")]
    pub sha256: [u8; 32],
    /// Whether its chain hangs together: verifying signatures is what costs most of a sweep.
    pub chain: Option<ChainState>,
    /// The PEM that HAProxy refused in this place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rejected: Option<Box<Rejected>>,
    /// That HAProxy refused to be without this file, which has the SHA-256 given there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prune_refused: Option<Box<Rejected>>,
}

/// A [`Record`] as it stands in the file.
#[derive(Deserialize)]
struct Written<'a> {
    lineage: String,
    #[serde(borrow)]
    live_dir: Cow<'a, str>,
    #[serde(borrow)]
    sha256: Cow<'a, str>,
    #[serde(default)]
    chain: Option<ChainState>,
    #[serde(default)]
    rejected: Option<Box<Rejected>>,
    #[serde(default)]
    prune_refused: Option<Box<Rejected>>,
}

/// A PEM that HAProxy refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// Its SHA-256, in hex.
    pub sha256: String,
    /// HAProxy's words.
    pub words: String,
    /// Which HAProxy it was, see [`crate::haproxy::fingerprint`]: another one may take it.
    pub by: String,
}

/// A commit that not every HAProxy has accepted yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// SHA-256 of what was there before, in hex; `None`: nothing was.
    pub was: Option<String>,
    /// SHA-256 of what is there now, in hex; `None`: it was pruned.
    pub now: Option<String>,
    /// Whether what was there before is somebody else's, and may be a link (`--adopt`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub adopted: bool,
    /// Whether there was something else in between, which HAProxy may have loaded.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub several: bool,
    /// Whether some HAProxy was seen to have what is there now.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub taken: bool,
    /// SHA-256 of what comes back first, in hex: what some HAProxy was seen to have since, or what was pruned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<String>,
}

impl Pending {
    /// Whether there was something before, which can come back.
    #[must_use]
    pub fn has_before(&self) -> bool {
        self.was.is_some() || self.adopted || self.last.is_some()
    }
}

impl Default for State {
    fn default() -> Self {
        Self {
            version: VERSION,
            files: BTreeMap::new(),
            pending: BTreeMap::new(),
            owed: BTreeMap::new(),
            elsewhere: BTreeMap::new(),
            last_start: BTreeMap::new(),
            untouched: BTreeMap::new(),
            held_up_by: None,
            lost: false,
        }
    }
}

impl State {
    /// Reads the state file of our directory `own` at `path`. One that isn't there or can't be understood is an empty
    /// state: files then become foreign or are taken over again, but never vanish.
    ///
    /// # Errors
    /// It was written by a later version, is not a plain file of ours, or can't be read.
    pub fn load(own: &OwnedFd, path: &Path) -> Result<Self, Failure> {
        let path = path.join(STATE_FILE);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = match openat(own, STATE_FILE, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(Self::default()),
            Err(e) => return Err(Failure::io("open", &path, &e.into())),
        };
        let stat = fstat(&fd).map_err(|e| Failure::io("read", &path, &e.into()))?;
        let trusted = stat.st_uid == 0 || stat.st_uid == rustix::process::geteuid().as_raw();
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || !trusted {
            let fact = format!(
                "{} is not a regular file of ours; remove it",
                crate::sys::escape::escaped_path(&path)
            );
            return Err(Failure::new(FailureKind::Permission, fact));
        }
        if u64::try_from(stat.st_size).is_ok_and(|size| size > MAX_BYTES) {
            // No state of ours: not even read.
            return Ok(Self { lost: true, ..Self::default() });
        }
        let mut text = Vec::new();
        std::fs::File::from(fd)
            .take(MAX_BYTES)
            .read_to_end(&mut text)
            .map_err(|e| Failure::io("read", &path, &e))?;
        Self::parse(&text).map_err(|version| {
            Failure::config(format!(
                "{} was written by a later haproxy-certs (version {version} of the file); install that one again",
                crate::sys::escape::escaped_path(&path)
            ))
        })
    }

    /// Parses the state file's text; what can't be understood is a lost state.
    ///
    /// # Errors
    /// The version of the file, where it is a later one.
    pub fn parse(text: &[u8]) -> Result<Self, u64> {
        #[derive(Deserialize)]
        struct Head {
            version: u64,
        }
        let mut state = match serde_json::from_slice::<Self>(text) {
            Ok(state) if state.version == VERSION => state,
            _ => match serde_json::from_slice::<Head>(text) {
                Ok(head) if head.version > u64::from(VERSION) => return Err(head.version),
                _ => return Ok(Self { lost: true, ..Self::default() }),
            },
        };
        state.pending.retain(|name, _| is_possible_name(name));
        Ok(state)
    }

    /// Writes the state file of our directory `own` durably.
    ///
    /// # Errors
    /// It can't be written.
    pub fn save(&self, own: &OwnedFd, path: &Path) -> Result<(), Failure> {
        let text =
            serde_json::to_vec_pretty(self).map_err(|e| Failure::new(FailureKind::Io, e.to_string()))?;
        write_durably(own.as_fd(), STATE_FILE, &text)
            .map_err(|e| Failure::io("write", &path.join(STATE_FILE), &e.into()))
    }

    /// Whether anything was ever deployed from a lineage; the placeholder of `init` wasn't.
    #[must_use]
    pub fn knows_lineages(&self) -> bool {
        self.files.values().any(|record| !record.lineage.is_empty())
    }

    /// The configuration files that a HAProxy was last seen to be started with.
    #[must_use]
    pub fn configuration_of(&self, haproxy: &str) -> &[PathBuf] {
        self.last_start.get(haproxy).map(|start| start.configuration.as_slice()).unwrap_or_default()
    }

    /// Passes the debts of tables that were renamed on, see [`debts::inherit`], and those between settings files, see
    /// [`debts::between_settings`].
    pub fn pass_debts_on(&mut self, settings: &Settings, now: Option<i64>) {
        let names: Vec<&str> = settings.haproxys.iter().map(|haproxy| haproxy.name.as_str()).collect();
        let file = settings.file.as_deref();
        debts::inherit(&mut self.owed, &names, file, Path::exists);
        // Who notifies nobody has no HAProxy that could be behind.
        if settings.haproxys.iter().all(|haproxy| haproxy.method == Method::None) {
            return;
        }
        let tables = settings.haproxys.iter().map(|it| (it.name.clone(), it.marks().to_string())).collect();
        debts::between_settings(&mut self.owed, &mut self.elsewhere, &tables, file, Path::exists, now);
    }

    /// The spellings of this `live` directory among the records: a link may lead to it.
    #[must_use]
    pub fn spellings(&self, live_dir: &Path) -> BTreeSet<&Path> {
        let real = live_dir.canonicalize().ok();
        let all: BTreeSet<&Path> = self.files.values().map(|record| Path::new(&*record.live_dir)).collect();
        let is_same =
            |&other: &&Path| other == live_dir || (real.is_some() && other.canonicalize().ok() == real);
        all.into_iter().filter(is_same).collect()
    }

    /// Whether it is known that a file with these bytes was put there by a run of ours, which has notified, or is to tell,
    /// every HAProxy. Otherwise nobody knows whether HAProxy has it.
    #[must_use]
    pub fn vouches_for(&self, name: &str, sha256: &[u8; 32]) -> bool {
        let is_refused =
            |record: &Record| record.rejected.as_ref().is_some_and(|it| it.sha256 == digest(sha256));
        self.files.get(name).is_some_and(|record| record.sha256 == *sha256 && !is_refused(record))
    }

    /// What the planner needs to know of a file; `live_dirs` are the spellings of this run's.
    #[must_use]
    pub fn recorded(&self, name: &str, live_dirs: &BTreeSet<&Path>, haproxy: &str) -> Option<Recorded> {
        let record = self.files.get(name)?;
        let pending = self.pending.get(name);
        let pending = [
            pending.filter(|pending| !pending.adopted).and_then(|pending| pending.was.as_ref()),
            pending.and_then(|pending| pending.now.as_ref()),
            pending.and_then(|pending| pending.last.as_ref()),
        ];
        let pending = pending.into_iter().flatten().filter_map(|text| unhex(text));
        let of_this = |rejected: &&Rejected| are_still(&rejected.by, haproxy);
        Some(Recorded {
            lineage: OsString::from(&record.lineage),
            chain: record.chain.map(|chain| (record.sha256, chain)),
            sha256: [record.sha256].into_iter().chain(pending).collect(),
            same_tree: live_dirs.contains(Path::new(&*record.live_dir)),
            rejected: record
                .rejected
                .as_deref()
                .filter(of_this)
                .and_then(|rejected| Some((unhex(&rejected.sha256)?, rejected.words.clone()))),
            prune_refused: record
                .prune_refused
                .as_deref()
                .filter(of_this)
                .map(|refused| refused.words.clone()),
        })
    }
}

fn as_text<S: Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

fn as_hex<S: Serializer>(sha256: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&digest(sha256))
}

/// Reads the records one by one: the texts of one are gone before the next is read.
fn records<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Record>, D::Error> {
    struct Records;
    impl<'de> Visitor<'de> for Records {
        type Value = BTreeMap<String, Record>;

        fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
            f.write_str("records by their files' names")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let (mut records, mut live_dir) = (Vec::new(), Arc::default());
            while let Some((name, written)) = map.next_entry::<String, Written<'_>>()? {
                records.extend(possible_record(&name, written, &mut live_dir).map(|record| (name, record)));
            }
            // Made at once a map has no gaps.
            Ok(records.into_iter().collect())
        }
    }
    deserializer.deserialize_map(Records)
}

/// The record of this name; `None`: this program would never write it, and it is no name to act on, whoever did. `live_dir` is
/// that of the record before: most are of the same tree, and have one text.
fn possible_record(name: &str, written: Written<'_>, live_dir: &mut Arc<str>) -> Option<Record> {
    let Written { lineage, live_dir: own, sha256, chain, rejected, prune_refused } = written;
    let sha256 = unhex(&sha256).filter(|_| is_possible_name(name) && is_possible_lineage(&lineage))?;
    if **live_dir != *own {
        *live_dir = own.into();
    }
    Some(Record { lineage, live_dir: Arc::clone(live_dir), sha256, chain, rejected, prune_refused })
}

/// The name under which the state file knows a target.
#[must_use]
pub fn key(target: &Target, host_file: &Path) -> String {
    match target {
        Target::Site(name) => name.clone(),
        Target::Host => host_file.to_string_lossy().into_owned(),
    }
}

/// The target that a name in the state file stands for; `None`: none that these settings know.
#[must_use]
pub fn target(key: &str, host_file: &Path) -> Option<Target> {
    match key {
        _ if Path::new(key) == host_file => Some(Target::Host),
        _ if key.contains('/') => None,
        _ => Some(Target::Site(key.to_owned())),
    }
}

fn is_possible_name(name: &str) -> bool {
    if name.starts_with('/') {
        return true; // only ever compared with the configured host file
    }
    name.strip_suffix(".pem").is_some_and(|lineage| !lineage.is_empty() && is_possible_lineage(lineage))
}

/// The placeholder of `init` has none.
fn is_possible_lineage(name: &str) -> bool {
    name.is_empty() || !name.contains('/') && site_file(OsStr::new(name)).is_ok()
}

/// Hex of a SHA-256 for the state file.
#[must_use]
pub fn digest(sha256: &[u8; 32]) -> String {
    hex(sha256)
}

/// The 32 bytes that 64 hex digits stand for.
#[must_use]
pub fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (position, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * position..2 * position + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            lineage: "a".into(),
            live_dir: "/live".into(),
            sha256: [0; 32],
            chain: None,
            rejected: None,
            prune_refused: None,
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut state = State::default();
        state.files.insert("a.pem".into(), record());
        state.owed.insert("haproxy".into(), Owed { since: 7, files: None, file: None });
        assert_eq!(State::parse(&serde_json::to_vec(&state).unwrap()), Ok(state));
    }

    #[test]
    fn garbage_is_a_lost_state_and_a_later_version_is_an_error() {
        for text in ["", "{", "[]", "{\"version\":0}", "{\"version\":1,\"files\":3}", "\u{0}\u{0}"] {
            assert!(State::parse(text.as_bytes()).unwrap().lost, "{text}");
        }
        assert_eq!(State::parse(b"{\"version\": 2, \"files\": \"?\"}"), Err(2));
    }

    #[test]
    fn names_outside_the_directory_are_forgotten() {
        let mut state = State::default();
        for name in ["../../etc/x.pem", "a/b.pem", ".hidden.pem", "x", "", "ok.pem"] {
            state.files.insert(name.into(), record());
            state.pending.insert(name.into(), Pending::default());
        }
        let read = State::parse(&serde_json::to_vec(&state).unwrap()).unwrap();
        assert_eq!(read.files.keys().collect::<Vec<_>>(), ["ok.pem"]);
        assert_eq!(read.pending.keys().collect::<Vec<_>>(), ["ok.pem"]);
    }
}
