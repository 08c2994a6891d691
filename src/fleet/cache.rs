//! What this host keeps of the fleet: the head, its pages and objects as they are in the store. All of it is ciphertext.
//!
//! Which head counts is said by one file, which is replaced when everything that it names is there.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::sync::OnceLock;
use std::thread::Builder;
use std::time::Duration;

use rustix::fs::{AtFlags, Dir, Mode, OFlags, fstat, fsync, openat, statat, unlinkat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::certbot::{Discovery, KeyAndChain, Unread};
use crate::certified_key::{Flaw, hex, sha256};
use crate::config::fleet::Fleet;
use crate::fleet::accept::KnownHeads;
use crate::fleet::epoch::EpochKey;
use crate::fleet::former::{self, FormerKeys};
use crate::fleet::head::{Head, SignedHead};
use crate::fleet::identity::HostIdentity;
use crate::fleet::name::{FleetName, NodeName};
use crate::fleet::node_list::NodeList;
use crate::fleet::page::PageEntry;
use crate::fleet::report::{EVERYTHING, ReportedException};
use crate::fleet::sealed_hashes::SealedHashes;
use crate::fleet::sshsig::VerifyingKey;
use crate::fleet::store::StoreKey;
use crate::fleet::trouble::FleetTrouble;
use crate::fleet::{object, page};
use crate::index::entry::Look;
use crate::index::pair_files::PairFiles;
use crate::plan::reason::Reason;
use crate::plan::refusal::Refusal;
use crate::plan::situation::Policy;
use crate::sites::durable::{write_durably, write_whole};
use crate::sites::place::Place;
use crate::sys::clock::now;
use crate::sys::escape::{escaped, escaped_path, shell_word};
use crate::sys::failure::{Failure, FailureKind, io_cause};
use crate::sys::folder_lock::{PROC, lock};
use crate::sys::room::without_room;
use crate::sys::safe_read::read_opened;

/// The head that counts here.
const HEAD: &str = "head";
/// What is remembered of heads and reports.
const MEMORY: &str = "memory.json";
/// The leaves that were replaced, by lineage.
const LEAVES: &str = "leaves.json";
/// On the publisher: the hashes of the sealed keys that it put.
const SEALED: &str = "sealed.json";
/// What a publisher knows of pairs that it needn't read again.
const PAIRS: &str = "pairs";
/// So many of each are kept.
const MOST_LEAVES: usize = 8;
const PAGES: &str = "page";
const OBJECTS: &str = "object";
const KEYS: &str = "key";

/// No file here is longer.
const MAX_BYTES: usize = 1 << 26;

/// So many files are brought to the disk one by one; where there are more, all of the file system is.
const SYNCED_ONE_BY_ONE: usize = 32;

/// How long another run on this host is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// The directory that holds it, open and locked: one run at a time writes here.
#[derive(Debug)]
pub struct CacheFolder {
    place: Place,
    pages: Place,
    objects: Place,
    keys: Place,
}

/// What a host remembers from run to run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FleetMemory {
    /// The heads that counted here, the highest of each publisher. It is written after the head itself: whoever reads it
    /// also looks at that.
    pub heads: KnownHeads,
    /// This node's name in the head that counted last.
    pub node: Option<NodeName>,
    /// When the head that counts was deployed, in seconds since 1970; 0: it never was.
    pub since: i64,
    /// When this host looked at everything last.
    pub looked: i64,
    /// When a run last proved everything, whatever the index said.
    pub proved: i64,
    /// When all that the HAProxys serve was looked at last.
    pub seen: i64,
    /// When it asked for the store's head last.
    pub tried: i64,
    /// Why it doesn't take the store's head: the trouble and the fact.
    pub held: Option<(FleetTrouble, String)>,
    /// When the first head was signed that was held back for canaries and nothing taken since, in seconds since 1970.
    pub waiting: Option<i64>,
    /// Whether the last run from the cache left something to be tried again.
    pub unfinished: bool,
    /// Whether every HAProxy was seen to have what the head says.
    pub is_confirmed: bool,
    /// What isn't as the head says.
    pub exceptions: Vec<KeptException>,
    /// What is so for good and takes nothing from what is confirmed.
    pub notes: Vec<KeptException>,
    /// When it reported last, and which trouble.
    pub told: i64,
    /// The trouble of the last report.
    pub told_trouble: Option<FleetTrouble>,
    /// What was said of it there.
    pub told_fact: Option<String>,
    /// Why the last report could not be put.
    pub unreported: Option<String>,
    /// On the publisher: what no head names any more, with the number of the first head that doesn't, and since when.
    pub dropped: BTreeMap<String, (u64, i64)>,
    /// On the publisher: the SHA-256 in hex of the head that it was about to put last: it may have ended before it heard that
    /// the head is there.
    pub intended: Option<String>,
    /// On the publisher: the keys that nodes had and have no more.
    pub former: FormerKeys,
    /// On the publisher: who is no node and has a key of the present epoch in the store.
    pub holders: BTreeSet<String>,
    /// On the publisher: how many more the store says that of than are remembered by name.
    pub more_holders: usize,
    /// On the publisher: when it looked last for what no head ever named.
    pub swept: i64,
}

impl FleetMemory {
    /// Whether the last report says this of why the store's head isn't taken.
    #[must_use]
    pub fn has_told(&self, trouble: Option<&(FleetTrouble, String)>) -> bool {
        let (word, fact) = trouble.map(|(word, fact)| (*word, fact)).unzip();
        self.told_trouble == word && self.told_fact.as_ref() == fact
    }

    /// The last report said this of why the store's head isn't taken.
    pub fn tells(&mut self, trouble: Option<&(FleetTrouble, String)>) {
        (self.told_trouble, self.told_fact) = trouble.cloned().unzip();
    }

    /// On the publisher: who is no node and can read this epoch, each in a sentence. `is_listed`: whether a node has this name
    /// now.
    #[must_use]
    pub fn readers(&self, epoch: u64, is_listed: impl Fn(&str) -> bool) -> Vec<String> {
        let is_unknown = |node: &&String| !self.former.knows(node) && !is_listed(node);
        let holders = self.holders.iter().filter(is_unknown);
        let mut all = self.former.readers(epoch, &is_listed);
        all.extend(holders.map(|node| former::no_more(node)));
        if self.more_holders > 0 {
            all.push(format!(
                "the store has keys of this epoch for {} more that are no nodes",
                self.more_holders
            ));
        }
        all
    }
}

/// What isn't as the head says, as it is remembered for the next report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptException {
    /// The lineage; empty: it is about all of them.
    pub lineage: String,
    /// The problem's word.
    pub problem: String,
    /// The serial number of what is served.
    pub served: Option<String>,
    /// More for people.
    pub detail: String,
}

impl KeptException {
    /// One that is about all lineages.
    #[must_use]
    pub fn of_everything(problem: &str, detail: String) -> Self {
        Self { lineage: EVERYTHING.to_owned(), problem: problem.to_owned(), served: None, detail }
    }

    /// For the report.
    #[must_use]
    pub fn reported(&self) -> ReportedException {
        let Self { lineage, problem, served, detail } = self.clone();
        ReportedException { lineage, problem, served, detail }
    }
}

/// Who reads: that says under which name the epoch key is sealed to this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostPart {
    /// A node, whose name is beside its key in the head.
    Node,
    /// The publisher.
    Publisher,
}

/// A head with the lineages that it names, opened.
#[derive(Debug)]
pub struct Opened {
    /// The head.
    pub signed: SignedHead,
    /// The key of its epoch.
    pub key: EpochKey,
    /// Its nodes.
    pub nodes: NodeList,
    /// Its lineages.
    pub entries: BTreeMap<String, PageEntry>,
}

impl Opened {
    /// Whether a head has the same key, and as many pages.
    #[must_use]
    pub fn has_key_of(&self, head: &Head) -> bool {
        let own = &self.signed.head;
        (own.epoch, own.epoch_key, own.pages.len()) == (head.epoch, head.epoch_key, head.pages.len())
    }

    /// The pages and objects that a later head with these lineages doesn't name, and the sealed keys of an epoch that is over.
    #[must_use]
    pub fn replaced_by(&self, head: &Head, entries: &BTreeMap<String, PageEntry>) -> Vec<StoreKey> {
        let own = &self.signed.head;
        let pages =
            own.pages.iter().filter(|hash| !head.pages.contains(hash)).map(|hash| StoreKey::Page(*hash));
        let is_gone =
            |entry: &PageEntry| entries.get(&entry.lineage).is_none_or(|now| now.object != entry.object);
        let objects = self.entries.values().filter(|entry| is_gone(entry));
        let before = self.nodes.iter().map(|(name, _)| name.clone()).chain([NodeName::publisher()]);
        // A removed node's stays as long as its epoch: it says who could still read.
        let keys = before
            .filter(|_| own.epoch != head.epoch)
            .map(|node| StoreKey::EpochKey { epoch: own.epoch, node });
        let list = (own.nodes != head.nodes).then_some(StoreKey::Page(own.nodes));
        pages.chain(list).chain(objects.map(|entry| StoreKey::Object(entry.object))).chain(keys).collect()
    }

    /// Whether a head names the same page at this place.
    #[must_use]
    pub fn has_page(&self, head: &Head, at: usize) -> bool {
        self.signed.head.pages.get(at).is_some_and(|hash| head.pages.get(at) == Some(hash))
    }
}

impl CacheFolder {
    /// Makes the directory where it is missing, and locks it.
    ///
    /// # Errors
    /// It can't be made or isn't ours, or another run holds it.
    pub fn lock(path: &Path) -> Result<Self, Failure> {
        let place = made(path)?;
        must_be_ours(&place)?;
        lock(&place.dir, PATIENCE, Path::new(PROC)).map_err(|failed| failed.failure(path))?;
        Ok(Self {
            pages: place.private_subdirectory(PAGES)?,
            objects: place.private_subdirectory(OBJECTS)?,
            keys: place.private_subdirectory(KEYS)?,
            place,
        })
    }

    /// What is remembered; what can't be understood is nothing.
    ///
    /// # Errors
    /// It is there and can't be read, or not to its end: nothing is forgotten for that.
    pub fn memory(&self) -> Result<FleetMemory, Failure> {
        memory_in(&self.place)
    }

    /// Remembers. Where it would be too long to be read again, what the store has and no head names is found there once more.
    ///
    /// # Errors
    /// It can't be written.
    pub fn remember(&self, memory: &FleetMemory) -> Result<(), Failure> {
        let failed = |e: serde_json::Error| Failure::new(FailureKind::Io, e.to_string());
        let mut text = serde_json::to_vec_pretty(memory).map_err(failed)?;
        if text.len() > MAX_BYTES {
            let shorter = FleetMemory { dropped: BTreeMap::new(), ..memory.clone() };
            text = serde_json::to_vec_pretty(&shorter).map_err(failed)?;
        }
        if text.len() > MAX_BYTES {
            return Err(too_long(&self.place.path.join(MEMORY)));
        }
        write_durably(self.place.dir.as_fd(), MEMORY, &text)
            .map_err(|e| Failure::io("write", &self.place.path.join(MEMORY), &e.into()))
    }

    /// The bytes of the head that counts; `None`: there is none.
    ///
    /// # Errors
    /// It can't be read.
    pub fn head(&self) -> Result<Option<Vec<u8>>, Failure> {
        read(&self.place, HEAD)
    }

    /// The bytes of a page that is here and is what its name says.
    #[must_use]
    pub fn page(&self, hash: &[u8; 32]) -> Option<Vec<u8>> {
        whole(&self.pages, hash)
    }

    /// Whether an object is here and is what its name says.
    #[must_use]
    pub fn has_object(&self, hash: &[u8; 32]) -> bool {
        whole(&self.objects, hash).is_some()
    }

    /// The sealed key of an epoch.
    #[must_use]
    pub fn epoch_key(&self, epoch: u64) -> Option<Vec<u8>> {
        read(&self.keys, &epoch.to_string()).ok().flatten()
    }

    /// Keeps a page.
    ///
    /// # Errors
    /// It can't be written.
    pub fn keep_page(&self, hash: &[u8; 32], bytes: &[u8]) -> Result<(), Failure> {
        keep(&self.pages, &hex(hash), bytes)
    }

    /// Keeps an object.
    ///
    /// # Errors
    /// It can't be written.
    pub fn keep_object(&self, hash: &[u8; 32], bytes: &[u8]) -> Result<(), Failure> {
        keep(&self.objects, &hex(hash), bytes)
    }

    /// Keeps the sealed key of an epoch.
    ///
    /// # Errors
    /// It can't be written.
    pub fn keep_epoch_key(&self, epoch: u64, bytes: &[u8]) -> Result<(), Failure> {
        keep(&self.keys, &epoch.to_string(), bytes)
    }

    /// Keeps which leaves were replaced: they are the lineages' own, also where the state is lost. It is only a help.
    pub fn keep_leaves(&self, before: &BTreeMap<String, PageEntry>, now: &BTreeMap<String, PageEntry>) {
        let mut all = leaves(&self.place);
        let before_all = all.clone();
        for (name, last) in before {
            if now.get(name).is_none_or(|entry| entry.leaf != last.leaf) {
                let of_it = all.entry(name.clone()).or_default();
                of_it.retain(|leaf| *leaf != hex(&last.leaf));
                of_it.push(hex(&last.leaf));
                let excess = of_it.len().saturating_sub(MOST_LEAVES);
                of_it.drain(..excess);
            }
        }
        if all != before_all
            && let Ok(text) = serde_json::to_vec(&all)
        {
            let _ = write_whole(self.place.dir.as_fd(), LEAVES, &text);
        }
    }

    /// On the publisher: the hashes of the sealed keys that it put; what can't be understood is nothing.
    #[must_use]
    pub fn sealed_hashes(&self) -> SealedHashes {
        let text = read(&self.place, SEALED).ok().flatten();
        text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }

    /// Keeps those. It is only a help: where it fails the keys are put once more.
    pub fn keep_sealed_hashes(&self, sealed: &SealedHashes) {
        if let Ok(text) = serde_json::to_vec(sealed) {
            let _ = write_whole(self.place.dir.as_fd(), SEALED, &text);
        }
    }

    /// On the publisher: what it knows of pairs that it needn't read again, see [`crate::index::known_pair`].
    #[must_use]
    pub fn known_pairs(&self) -> Option<Vec<u8>> {
        read(&self.place, PAIRS).ok().flatten()
    }

    /// Keeps that. It is only a help: it may fail.
    pub fn keep_known_pairs(&self, bytes: &[u8]) {
        let _ = write_whole(self.place.dir.as_fd(), PAIRS, bytes);
    }

    /// Makes a head the one that counts: everything that it names is here, and on the disk before the head is. `fresh`:
    /// what the one before doesn't name, or was brought again.
    ///
    /// # Errors
    /// It can't be written; then the one before still counts.
    pub fn switch_over(&self, head: &[u8], fresh: &[StoreKey]) -> Result<(), Failure> {
        let fail = |e: Errno| Failure::io("write", &self.place.path.join(HEAD), &e.into());
        if fresh.len() > SYNCED_ONE_BY_ONE {
            rustix::fs::syncfs(&self.place.dir).map_err(fail)?;
        } else {
            self.sync(fresh).map_err(fail)?;
        }
        write_durably(self.place.dir.as_fd(), HEAD, head).map_err(fail)
    }

    /// Brings these to the disk, and then their names: side by side, since a file system brings together what it is asked
    /// for together.
    fn sync(&self, fresh: &[StoreKey]) -> Result<(), Errno> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let (mut files, mut folders) = (Vec::new(), BTreeMap::new());
        for key in fresh {
            let Some((place, name)) = self.at(key) else { continue };
            files.push(openat(&place.dir, name.as_str(), flags, Mode::empty())?);
            folders.insert(place.path.as_path(), &place.dir);
        }
        sync_together(&files.iter().collect::<Vec<_>>())?;
        sync_together(&folders.into_values().collect::<Vec<_>>())
    }

    /// Where a value is kept; `None`: nowhere.
    fn at(&self, key: &StoreKey) -> Option<(&Place, String)> {
        match key {
            StoreKey::Page(hash) => Some((&self.pages, hex(hash))),
            StoreKey::Object(hash) => Some((&self.objects, hex(hash))),
            StoreKey::EpochKey { epoch, .. } => Some((&self.keys, epoch.to_string())),
            StoreKey::Head | StoreKey::Report(_) => None,
        }
    }

    /// Removes what the head before named and the one that counts now doesn't. What can't be removed stays.
    pub fn drop_replaced(&self, before: &Opened, head: &Head, entries: &BTreeMap<String, PageEntry>) {
        for key in before.replaced_by(head, entries) {
            if let Some((place, name)) = self.at(&key) {
                let _ = unlinkat(&place.dir, name.as_str(), AtFlags::empty());
            }
        }
    }

    /// Removes what the head that counts doesn't name, whatever it is. What can't be removed stays.
    pub fn tidy(&self, opened: &Opened) {
        let head = &opened.signed.head;
        let pages: Vec<String> = head.pages.iter().chain([&head.nodes]).map(|hash| hex(hash)).collect();
        let objects: Vec<String> = opened.entries.values().map(|entry| hex(&entry.object)).collect();
        let epoch = opened.signed.head.epoch.to_string();
        for (place, kept) in [(&self.pages, pages), (&self.objects, objects), (&self.keys, vec![epoch])] {
            let kept: BTreeSet<String> = kept.into_iter().collect();
            for name in names(place).into_iter().filter(|name| !kept.contains(name)) {
                let _ = unlinkat(&place.dir, name.as_str(), AtFlags::empty());
            }
        }
    }

    /// Opens the head that counts.
    ///
    /// # Errors
    /// What it names can't be read or opened.
    pub fn open(
        &self,
        fleet: &Fleet,
        identity: &HostIdentity,
        part: HostPart,
    ) -> Result<Option<Opened>, Failure> {
        let kept = Kept { head: self.head()?, pages: &self.pages, keys: &self.keys };
        open(&kept, fleet, identity, part)
    }
}

/// Brings all of these to the disk, each by a thread of its own where there are threads.
fn sync_together(all: &[&OwnedFd]) -> Result<(), Errno> {
    let Some((first, others)) = all.split_first() else { return Ok(()) };
    std::thread::scope(|scope| {
        let start = |one| Builder::new().spawn_scoped(scope, move || fsync(one)).map_err(|_| one);
        let others: Vec<_> = others.iter().map(|one| start(*one)).collect();
        let first = fsync(first);
        let ended = others.into_iter().map(|other| match other {
            // One that panicked has brought nothing.
            Ok(thread) => thread.join().unwrap_or(Err(Errno::IO)),
            Err(one) => fsync(one),
        });
        ended.fold(first, Result::and)
    })
}

/// The directory that holds it, made where it is missing.
///
/// # Errors
/// It can't be made or opened.
pub fn made(path: &Path) -> Result<Place, Failure> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|e| Failure::io("create", path, &e))?;
    Place::open(path)?.ok_or_else(|| Failure::io("open", path, &std::io::ErrorKind::NotFound.into()))
}

/// Nobody else may write there.
fn must_be_ours(place: &Place) -> Result<(), Failure> {
    let path = &place.path;
    let stat = fstat(&place.dir).map_err(|e| Failure::io("read", path, &e.into()))?;
    let own = rustix::process::geteuid().as_raw();
    let (shown, word) = (escaped_path(path), shell_word(path.as_os_str()));
    let stranger = Some(stat.st_uid).filter(|uid| *uid != 0 && *uid != own);
    let wrong = if let Some(uid) = stranger {
        format!("{shown} belongs to user {uid}, not to who runs this; run: chown -R {own} {word}")
    } else if stat.st_mode & 0o022 != 0 {
        format!("others may write to {shown}; run: chmod -R go-w {word}")
    } else {
        return Ok(());
    };
    Err(Failure::new(FailureKind::Permission, wrong))
}

/// Whether this host could follow the fleet now, for who only looks: its keys, whom it follows, and its cache.
///
/// # Errors
/// It couldn't.
pub fn can_follow(fleet: &Fleet) -> Result<(), Failure> {
    identity(fleet)?;
    publishers(fleet)?;
    Place::open(&fleet.cache)?.map_or(Ok(()), |place| can_be_written(&place))
}

/// Whether what the fleet has could be kept in this cache now, for who only looks.
///
/// # Errors
/// It couldn't.
pub fn can_be_written(cache: &Place) -> Result<(), Failure> {
    must_be_ours(cache)?;
    without_room(&cache.dir).map_or(Ok(()), |why| {
        let fact = format!("{} {why}: what the fleet has can't be kept here", escaped_path(&cache.path));
        Err(Failure::new(FailureKind::Io, fact))
    })
}

/// Whether a value is what its name says.
#[must_use]
pub fn is_sha256_of(hash: &[u8; 32], bytes: &[u8]) -> bool {
    sha256(bytes) == *hash
}

/// The name of the fleet that these settings are about.
///
/// # Errors
/// It isn't one.
pub fn fleet_name(fleet: &Fleet) -> Result<FleetName, Failure> {
    FleetName::from_str(&fleet.name).map_err(|e| Failure::config(format!("[fleet] name: {e}")))
}

/// The keys whose heads count on this node.
///
/// # Errors
/// A line isn't a key.
pub fn publishers(fleet: &Fleet) -> Result<Vec<VerifyingKey>, Failure> {
    let parse = |line: &String| {
        VerifyingKey::from_str(line)
            .map_err(|e| Failure::config(format!("[fleet] publishers: \"{}\": {e}", escaped(line))))
    };
    fleet.publishers.iter().map(parse).collect()
}

/// This host's keys, which have to be there.
///
/// # Errors
/// They aren't, or can't be read.
pub fn identity(fleet: &Fleet) -> Result<HostIdentity, Failure> {
    match HostIdentity::load(&fleet.identity) {
        Ok(Some(identity)) => Ok(identity),
        Ok(None) => Err(Failure::config(format!(
            "there is no {}: run haproxy-certs fleet {}",
            escaped_path(&fleet.identity),
            if fleet.is_publisher() { "publish" } else { "join" }
        ))),
        Err(e) => Err(Failure::new(FailureKind::Io, e.to_string())),
    }
}

/// The name of the node with these keys.
#[must_use]
pub fn own_name(nodes: &NodeList, identity: &HostIdentity) -> Option<NodeName> {
    nodes.name_of(&identity.public()).cloned()
}

struct Kept<'a> {
    head: Option<Vec<u8>>,
    pages: &'a Place,
    keys: &'a Place,
}

fn open(
    kept: &Kept<'_>,
    fleet: &Fleet,
    identity: &HostIdentity,
    part: HostPart,
) -> Result<Option<Opened>, Failure> {
    let Some(bytes) = &kept.head else { return Ok(None) };
    let here = escaped_path(&fleet.cache);
    let again = match part {
        HostPart::Node => "fleet follow --once brings it again",
        HostPart::Publisher => "fleet publish mends that",
    };
    let fail = |what: &str| {
        Failure::new(FailureKind::Io, format!("{here} can't be used: {what}; haproxy-certs {again}"))
    };
    let signed = SignedHead::read(bytes).map_err(|e| fail(&e.to_string()))?;
    let counts = match part {
        HostPart::Node => publishers(fleet)?.contains(&signed.publisher),
        HostPart::Publisher => identity.public().signing == signed.publisher,
    };
    if !counts {
        return Err(fail(&format!(
            "its head is by {}, which isn't among the publishers",
            signed.publisher.fingerprint()
        )));
    }
    let name = fleet_name(fleet)?;
    if signed.head.fleet != name {
        return Err(fail("its head is of another fleet"));
    }
    let nodes = whole(kept.pages, &signed.head.nodes).and_then(|bytes| NodeList::read(&bytes).ok());
    let nodes = nodes.ok_or_else(|| fail("the list of nodes is missing or damaged"))?;
    let node = match part {
        HostPart::Node => {
            own_name(&nodes, identity).ok_or_else(|| fail("this host isn't among the fleet's nodes"))?
        }
        HostPart::Publisher => NodeName::publisher(),
    };
    let head = &signed.head;
    let sealed =
        read(kept.keys, &head.epoch.to_string())?.ok_or_else(|| fail("the epoch's key is missing"))?;
    let key = EpochKey::open(&sealed, identity, &name, &node, (head.epoch, &head.epoch_key))
        .map_err(|e| fail(&e.to_string()))?;
    let mut entries = BTreeMap::new();
    for (at, hash) in head.pages.iter().enumerate() {
        let bytes = whole(kept.pages, hash).ok_or_else(|| fail("a page is missing or damaged"))?;
        let page =
            page::open(&bytes, (at, head.pages.len()), &name, &key).map_err(|e| fail(&e.to_string()))?;
        entries.extend(page.into_iter().map(|entry| (entry.lineage.clone(), entry)));
    }
    Ok(Some(Opened { signed, key, nodes, entries }))
}

/// The head that counts, where there is one.
fn open_in(place: &Place, fleet: &Fleet, part: HostPart) -> Result<Option<Opened>, Failure> {
    let head = read(place, HEAD)?;
    let (Some(pages), Some(keys)) = (place.subdirectory(PAGES)?, place.subdirectory(KEYS)?) else {
        return Ok(None);
    };
    if head.is_none() {
        return Ok(None);
    }
    open(&Kept { head, pages: &pages, keys: &keys }, fleet, &identity(fleet)?, part)
}

/// The head that counts on this host with what it names, for who only looks.
///
/// # Errors
/// It can't be read or opened.
pub fn look_at_head(fleet: &Fleet, part: HostPart) -> Result<Option<Opened>, Failure> {
    Place::open(&fleet.cache)?.map_or(Ok(None), |place| open_in(&place, fleet, part))
}

/// The fleet's cache as a source of pairs.
#[derive(Debug)]
pub struct FleetCache {
    fleet: FleetName,
    /// The leaves that were replaced, read where they are asked for.
    leaves: OnceLock<BTreeMap<String, Vec<String>>>,
    /// The cache itself.
    place: Option<Place>,
    opened: Option<(Opened, Place)>,
    source: PathBuf,
}

impl FleetCache {
    /// Opens what is here of the fleet; that may be nothing.
    ///
    /// # Errors
    /// It is there and can't be used.
    pub fn open(fleet: &Fleet) -> Result<Self, Failure> {
        if let Some(opened) = look_at_head(fleet, HostPart::Node)? {
            return Self::of(fleet, opened);
        }
        let (name, source) = (fleet_name(fleet)?, fleet.source());
        Ok(Self { fleet: name, leaves: OnceLock::new(), place: None, opened: None, source })
    }

    /// What was opened of it a moment ago.
    ///
    /// # Errors
    /// Its directory can't be opened.
    pub fn of(fleet: &Fleet, opened: Opened) -> Result<Self, Failure> {
        let place = Place::open(&fleet.cache)?;
        let objects = place.as_ref().map_or(Ok(None), |place| place.subdirectory(OBJECTS))?;
        let opened = objects.map(|objects| (opened, objects));
        Ok(Self { fleet: fleet_name(fleet)?, leaves: OnceLock::new(), place, opened, source: fleet.source() })
    }

    /// The file that says that there is a cache.
    #[must_use]
    pub fn head_file(fleet: &Fleet) -> PathBuf {
        fleet.cache.join(HEAD)
    }

    /// What stands for it where a `live` directory is named.
    #[must_use]
    pub fn name(&self) -> &Path {
        &self.source
    }

    /// The lineages of the head.
    #[must_use]
    pub fn discover(&self) -> Discovery {
        match &self.opened {
            Some((opened, _)) => Discovery {
                lineages: opened.entries.keys().map(OsString::from).collect(),
                live_dir_missing: false,
            },
            None => Discovery { live_dir_missing: true, ..Discovery::default() },
        }
    }

    /// Whether one of the lineage's earlier certificates is the leaf with this SHA-256.
    #[must_use]
    pub fn has_archived(&self, lineage: &OsStr, leaf_sha256: &[u8; 32]) -> bool {
        let all = self.leaves.get_or_init(|| self.place.as_ref().map(leaves).unwrap_or_default());
        let of_it = lineage.to_str().and_then(|name| all.get(name));
        of_it.is_some_and(|leaves| leaves.contains(&hex(leaf_sha256)))
    }

    /// Where its files are; `None`: there are none.
    #[must_use]
    pub fn files(&self) -> Option<FleetFiles<'_>> {
        self.opened.as_ref().map(|(opened, objects)| FleetFiles { opened, objects })
    }

    /// Decrypts key and chain of one lineage.
    ///
    /// # Errors
    /// It isn't there, or isn't what the head says.
    pub fn read(&self, lineage: &OsStr) -> Result<KeyAndChain, Unread> {
        let unread = |detail: String| Unread { refusal: Refusal::new(Reason::Io, detail), unsettled: false };
        let shown = escaped(lineage.as_encoded_bytes()).to_string();
        let found = self
            .opened
            .as_ref()
            .and_then(|(opened, objects)| Some((opened, objects, opened.entries.get(lineage.to_str()?)?)));
        let Some((opened, objects, entry)) = found else {
            let detail = format!("the fleet {} has no {shown}", self.fleet);
            let refusal = Refusal::new(Reason::Unproved(Flaw::CertificateMissing), detail);
            return Err(Unread { refusal, unsettled: false });
        };
        let damaged = |why: &str| {
            unread(format!(
                "what is here of {shown} can't be used: {why}; haproxy-certs fleet follow --once brings it again"
            ))
        };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let name = hex(&entry.object);
        let fd = openat(&objects.dir, name.as_str(), flags, Mode::empty())
            .map_err(|e| damaged(&io_cause(&e.into())))?;
        let look = fstat(&fd).map(|stat| Look::of(&stat)).map_err(|e| damaged(&io_cause(&e.into())))?;
        let (bytes, _) = read_opened(fd).map_err(|_| damaged("it isn't a file of ours"))?;
        if !is_sha256_of(&entry.object, &bytes) {
            return Err(damaged("it isn't what the head names"));
        }
        let pair = object::open(&bytes, &entry.lineage, &self.fleet, &opened.key)
            .map_err(|e| damaged(&e.to_string()))?;
        Ok(KeyAndChain {
            key: pair.key,
            chain: pair.chain,
            loose_permissions: false,
            versions_differ: false,
            unsettled: false,
            key_look: look,
            chain_look: look,
        })
    }

    /// A head past its time prunes nothing; one that says so prunes many.
    #[must_use]
    pub fn policy(&self, policy: Policy) -> Policy {
        let Some((opened, _)) = &self.opened else { return Policy { follows: true, ..policy } };
        let head = &opened.signed.head;
        Policy {
            no_prune: policy.no_prune || head.expires <= now(),
            prune_many: policy.prune_many || head.prune_many,
            follows: true,
            ..policy
        }
    }

    /// The head, where there is one.
    #[must_use]
    pub fn head(&self) -> Option<&SignedHead> {
        self.opened.as_ref().map(|(opened, _)| &opened.signed)
    }
}

/// The cache's objects: the file that the head names for a lineage is both its key and its chain.
#[derive(Debug)]
pub struct FleetFiles<'a> {
    opened: &'a Opened,
    objects: &'a Place,
}

impl PairFiles for FleetFiles<'_> {
    fn place(&self) -> BorrowedFd<'_> {
        self.objects.dir.as_fd()
    }

    fn look(&self, lineage: &str, path: &mut String) -> Option<(Look, Look)> {
        let entry = self.opened.entries.get(lineage)?;
        path.clear();
        path.push_str(&hex(&entry.object));
        let stat = statat(&self.objects.dir, path.as_str(), AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let look = Look::of(&stat);
        Some((look, look))
    }
}

/// What this host remembers of the fleet, for who only looks.
///
/// # Errors
/// It can't be read.
pub fn look_at_memory(fleet: &Fleet) -> Result<Option<FleetMemory>, Failure> {
    Place::open(&fleet.cache)?.map(|place| memory_in(&place)).transpose()
}

/// The head that counts on this host, for who only looks.
///
/// # Errors
/// It can't be read.
pub fn kept_head(fleet: &Fleet) -> Result<Option<SignedHead>, Failure> {
    let Some(place) = Place::open(&fleet.cache)? else { return Ok(None) };
    Ok(read(&place, HEAD)?.and_then(|bytes| SignedHead::read(&bytes).ok()))
}

fn memory_in(place: &Place) -> Result<FleetMemory, Failure> {
    let text = read(place, MEMORY)?;
    Ok(text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default())
}

fn leaves(place: &Place) -> BTreeMap<String, Vec<String>> {
    let text = read(place, LEAVES).ok().flatten();
    text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

fn keep(place: &Place, name: &str, bytes: &[u8]) -> Result<(), Failure> {
    write_whole(place.dir.as_fd(), name, bytes)
        .map_err(|e| Failure::io("write", &place.path.join(name), &e.into()))
}

fn whole(place: &Place, hash: &[u8; 32]) -> Option<Vec<u8>> {
    read(place, &hex(hash)).ok().flatten().filter(|bytes| is_sha256_of(hash, bytes))
}

/// A file's bytes; `None`: there is no such file.
fn read(place: &Place, name: &str) -> Result<Option<Vec<u8>>, Failure> {
    use std::io::Read as _;
    let path = place.path.join(name);
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd: OwnedFd = match openat(&place.dir, name, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Ok(None),
        Err(e) => return Err(Failure::io("read", &path, &e.into())),
    };
    let mut bytes = Vec::new();
    let file = std::fs::File::from(fd);
    let at_most = MAX_BYTES as u64 + 1;
    file.take(at_most).read_to_end(&mut bytes).map_err(|e| Failure::io("read", &path, &e))?;
    // A part of it would be taken for something else.
    if bytes.len() > MAX_BYTES { Err(too_long(&path)) } else { Ok(Some(bytes)) }
}

fn too_long(path: &Path) -> Failure {
    let (shown, word) = (escaped_path(path), shell_word(path.as_os_str()));
    let fact = format!("{shown} is longer than the {MAX_BYTES} bytes that are read of it");
    Failure::new(FailureKind::Io, format!("{fact}; to go on without what it says, run: rm {word}"))
}

fn names(place: &Place) -> Vec<String> {
    let Ok(dir) = Dir::read_from(&place.dir) else { return Vec::new() };
    let names = dir.flatten().filter_map(|entry| entry.file_name().to_str().ok().map(str::to_owned));
    names.filter(|name| name != "." && name != "..").collect()
}
