//! `fleet publish` and `fleet rotate`: sweep, prove, seal what changed, and put a new head into the store.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::str::FromStr as _;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::certbot::{CertbotTree, SETTLING};
use crate::certified_key::{CertifiedKey, sha256};
use crate::config::Settings;
use crate::config::fleet::Fleet;
use crate::fleet::cache::{CacheFolder, FleetMemory, HostPart, Opened, fleet_name, is_sha256_of};
use crate::fleet::edition::{Edition, Looked, pages_of};
use crate::fleet::epoch::EpochKey;
use crate::fleet::fetch::fetch;
use crate::fleet::head::{Head, SignedHead};
use crate::fleet::identity::HostIdentity;
use crate::fleet::name::{FleetName, NodeName};
use crate::fleet::node_key::NodeKey;
use crate::fleet::object::{self, PlainPair};
use crate::fleet::page::{self, PageEntry};
use crate::fleet::reach::reach;
use crate::fleet::store::{FleetStore, Revision, StoreFolder, StoreKey, Swap};
use crate::plan::names::site_file;
use crate::sys::clock::now;
use crate::sys::escape::{escaped, escaped_path};
use crate::sys::failure::{Failure, FailureKind};
use crate::sys::host_name::host_name;
use crate::sys::parallel::{self, Progress};

/// How long a head counts.
pub const LIFE: i64 = 36 * 60 * 60;

/// What no head names any more goes after this, and strays are looked for as often.
const DAY: i64 = 24 * 60 * 60;

/// Lineages that are read, sealed and put together.
const TOGETHER: usize = 400;

const POLL: Duration = Duration::from_millis(50);

/// How the operator wants it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted {
    /// However many lineages are gone, they go.
    pub prune_many: bool,
    /// A new epoch.
    pub rotate: bool,
    /// Take the fleet over from another publisher.
    pub take_over: bool,
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Published {
    /// The fleet.
    pub fleet: String,
    /// Where the store is.
    pub store: String,
    /// The number of the head that is there now.
    pub sequence: u64,
    /// Whether it is a new one.
    pub is_new: bool,
    /// How many lineages it names.
    pub lineages: usize,
    /// How many nodes may read.
    pub nodes: usize,
    /// What is new or renewed.
    pub published: Vec<String>,
    /// What is gone.
    pub gone: Vec<String>,
    /// What is gone from certbot's tree and stays published, and why.
    pub held: Option<(Vec<String>, &'static str)>,
    /// What was refused, and why.
    pub refused: Vec<(String, String)>,
    /// The identity file, where it was made now.
    pub made: Option<PathBuf>,
    /// The line for the nodes' `publishers`.
    pub line: String,
    /// Whether this is the first head of this publisher.
    pub is_first: bool,
    /// Nodes that were removed and could still read the present epoch.
    pub removed: Vec<String>,
    /// What each node that is no more held, after a rotation: it has to be issued again.
    pub rotated: bool,
    /// What is odd in the store.
    pub alarms: Vec<String>,
}

impl Published {
    /// Whether something needs a person.
    #[must_use]
    pub fn is_partly(&self) -> bool {
        self.held.is_some() || !self.refused.is_empty() || !self.alarms.is_empty() || !self.removed.is_empty()
    }
}

/// What is the last head, and what is known of the store.
struct Base {
    /// The head that counts, opened; `None`: nothing that this publisher can read.
    opened: Option<Opened>,
    /// The store's head as it was seen.
    revision: Option<Revision>,
    /// The highest number and epoch that were ever seen.
    last: (u64, u64),
    /// Whether the store must be looked through for what is missing.
    is_doubtful: bool,
}

/// Publishes what changed.
///
/// # Errors
/// The settings can't be used, certbot's tree or the store can't be read or written, or another publisher is there.
pub fn publish(settings: &Settings, wanted: Wanted, progress: Progress<'_>) -> Result<Published, Failure> {
    let fleet = settings.published().ok_or_else(|| {
        Failure::config(
            "this host publishes to no fleet: the settings need [fleet] and [[fleet.node]] tables",
        )
    })?;
    let name = fleet_name(fleet)?;
    let members = members(fleet)?;
    let host = host_name();
    let (identity, made) = HostIdentity::load_or_create(&fleet.identity, &host)
        .map_err(|e| Failure::new(FailureKind::Io, e.to_string()))?;
    let store = reach(fleet)?;
    let store = store.as_ref();
    let folder = CacheFolder::lock(&fleet.cache)?;
    let mut memory = folder.memory();
    let mut done = Published {
        fleet: fleet.name.clone(),
        store: fleet.store.to_string(),
        nodes: members.len(),
        made: made.then(|| fleet.identity.clone()),
        line: identity.public().signing.line(&host),
        ..Published::default()
    };
    let base = base(store, &folder, fleet, &name, &identity, wanted, &mut done)?;
    let at = now();
    let previous = base.opened.as_ref();
    done.is_first = previous.is_none();
    let fresh = previous.is_none() || wanted.rotate;
    let made_key;
    let key: &EpochKey = match previous.filter(|_| !fresh) {
        Some(opened) => &opened.key,
        None => {
            made_key = EpochKey::generate(base.last.1 + 1).map_err(|e| unsealed(&e))?;
            &made_key
        }
    };
    // What is known to be in the store; `None`: what the last head names is.
    let looks_through = base.is_doubtful || at - memory.swept > DAY || memory.swept > at;
    let there = if looks_through { Some(listed(store)?) } else { None };
    let is_there = |at: &StoreKey| there.as_ref().is_none_or(|there| there.contains(at));
    let empty = BTreeMap::new();
    let before = previous.map_or(&empty, |opened| &opened.entries);
    let reusable: BTreeMap<&String, &PageEntry> =
        before.iter().filter(|(_, entry)| !fresh && is_there(&StoreKey::Object(entry.object))).collect();

    let tree = CertbotTree::of(settings);
    let discovery = tree.discover()?;
    if discovery.live_dir_missing && previous.is_none() {
        return Err(Failure::new(
            FailureKind::Io,
            format!("there is no {}: nothing to publish yet", escaped_path(&settings.live_dir)),
        ));
    }
    let names: Vec<&OsString> =
        discovery.lineages.iter().filter(|name| settings.selection.includes(name)).collect();
    let seal = Seal { tree: &tree, name: &name, key, reusable: &reusable };
    let looked = look(&seal, &names, store, progress)?;
    let mut edition = Edition::after(before, looked, !discovery.lineages.is_empty(), wanted.prune_many);
    if let Some(opened) = previous {
        let names = edition
            .entries
            .iter()
            .filter(|(name, entry)| before.get(*name) == Some(*entry) && !reusable.contains_key(*name));
        let names: Vec<String> = names.map(|(name, _)| name.clone()).collect();
        for entry in rescue(store, opened, &names, &name, key)? {
            edition.entries.insert(entry.lineage.clone(), entry);
        }
    }

    // The pages.
    let pages_before = previous.map(|opened| opened.signed.head.pages.len());
    let count = page::count(edition.entries.len(), pages_before);
    let groups = pages_of(&edition.entries, count);
    let groups_before = previous.map(|opened| pages_of(before, opened.signed.head.pages.len()));
    let mut hashes = Vec::with_capacity(count);
    let mut puts: Vec<(StoreKey, Vec<u8>)> = Vec::new();
    let mut new_pages = Vec::new();
    for (at, group) in groups.iter().enumerate() {
        let same = previous
            .filter(|_| !fresh && pages_before == Some(count))
            .zip(groups_before.as_ref())
            .and_then(|(opened, groups)| {
                (groups.get(at) == Some(group)).then(|| opened.signed.head.pages.get(at)).flatten()
            })
            .filter(|hash| is_there(&StoreKey::Page(**hash)));
        let hash = match same {
            Some(hash) => *hash,
            None => {
                let bytes = page::seal(group, (at, count), &name, key).map_err(|e| unsealed(&e))?;
                let hash = sha256(&bytes);
                new_pages.push((hash, bytes.clone()));
                puts.push((StoreKey::Page(hash), bytes));
                hash
            }
        };
        hashes.push(hash);
    }

    // The epoch's key, for everybody who hasn't it.
    let known: BTreeSet<(NodeName, NodeKey)> = match previous.filter(|_| !fresh) {
        Some(opened) => opened.signed.head.nodes.iter().cloned().collect(),
        None => BTreeSet::new(),
    };
    let sealed_key = |node: &NodeName, to: &NodeKey| -> Result<(StoreKey, Vec<u8>), Failure> {
        let bytes = key.seal(&name, node, to).map_err(|e| unsealed(&e))?;
        Ok((StoreKey::EpochKey { epoch: key.epoch(), node: node.clone() }, bytes))
    };
    for (node, to) in &members {
        let at = StoreKey::EpochKey { epoch: key.epoch(), node: node.clone() };
        if !known.contains(&(node.clone(), to.clone())) || !is_there(&at) {
            puts.push(sealed_key(node, to)?);
        }
    }
    let mut own_key = None;
    let own = StoreKey::EpochKey { epoch: key.epoch(), node: NodeName::publisher() };
    if fresh || !is_there(&own) || folder.epoch_key(key.epoch()).is_none() {
        let (at, bytes) = sealed_key(&NodeName::publisher(), &identity.public())?;
        own_key = Some(bytes.clone());
        puts.push((at, bytes));
    }

    // Is a new head needed at all?
    let last = previous.map(|opened| &opened.signed.head);
    let is_due = last.is_none_or(|last| at - last.signed >= LIFE / 2 || at < last.signed);
    let is_changed =
        last.is_none_or(|last| last.pages != hashes || last.nodes != members || last.epoch != key.epoch());
    let is_lost = base.revision.is_none() || base.is_doubtful;
    let is_new = is_due || is_changed || is_lost || (wanted.prune_many && !edition.gone.is_empty());
    if let Some(last) = last {
        for (node, key) in &last.nodes {
            if !members.iter().any(|(name, now)| name == node && now == key) {
                memory.removed.insert(node.to_string());
            }
        }
    }
    if fresh {
        memory.removed.clear();
    }
    if !puts.is_empty() {
        store.put(&puts).map_err(|e| in_store(&e))?;
    }
    done.sequence = last.map_or(0, |last| last.sequence);
    if is_new {
        let head = Head {
            fleet: name.clone(),
            sequence: base.last.0 + 1,
            signed: at,
            expires: at + LIFE,
            epoch: key.epoch(),
            epoch_key: key.commitment(&name),
            prune_many: wanted.prune_many,
            pages: hashes,
            nodes: members.clone(),
        };
        let value = head.sign(identity.signing());
        match store.compare_and_put(&StoreKey::Head, base.revision, &value).map_err(|e| in_store(&e))? {
            Swap::Done(_) => {}
            Swap::Lost => return Err(lost(store, &identity)),
        }
        for (hash, bytes) in &new_pages {
            folder.keep_page(hash, bytes)?;
        }
        if let Some(bytes) = &own_key {
            folder.keep_epoch_key(key.epoch(), bytes)?;
        }
        folder.switch_over(&value)?;
        done.sequence = head.sequence;
        drop_unnamed(&mut memory, previous, &head, &edition.entries, at);
        if let Some(opened) = folder.open(fleet, &identity, HostPart::Publisher)? {
            folder.tidy(&opened);
        }
        memory.since = at;
    }
    if let Some(there) = &there {
        note_strays(&mut memory, there, done.sequence, &edition.entries, &folder, at)?;
        memory.swept = at;
    }
    clear_away(store, &mut memory, done.sequence, at, &mut done.alarms);
    folder.remember(&memory)?;
    done.is_new = is_new;
    done.lineages = edition.entries.len();
    done.published = edition.published;
    done.gone = edition.gone;
    done.held = edition.why_held.map(|why| (edition.held, why));
    done.refused = edition.refused;
    done.removed = memory.removed.into_iter().collect();
    done.rotated = wanted.rotate;
    Ok(done)
}

/// The nodes of the settings, by name.
fn members(fleet: &Fleet) -> Result<Vec<(NodeName, NodeKey)>, Failure> {
    let parse = |member: &crate::config::fleet::Member| {
        let wrong =
            |why: String| Failure::config(format!("[[fleet.node]] \"{}\": {why}", escaped(&member.name)));
        let name = NodeName::from_str(&member.name).map_err(|e| wrong(e.to_string()))?;
        if name == NodeName::publisher() {
            return Err(wrong("the name is the publisher's own; give the node another".to_owned()));
        }
        let key = NodeKey::from_str(&member.key).map_err(|e| wrong(e.to_string()))?;
        Ok((name, key))
    };
    let mut all: Vec<(NodeName, NodeKey)> = fleet.nodes.iter().map(parse).collect::<Result<_, _>>()?;
    all.sort_by(|one, two| one.0.cmp(&two.0));
    for (at, (name, key)) in all.iter().enumerate() {
        if let Some((other, _)) = all.iter().skip(at + 1).find(|(_, other)| other == key) {
            return Err(Failure::config(format!(
                "[[fleet.node]] \"{name}\" and \"{other}\" have the same key"
            )));
        }
    }
    Ok(all)
}

/// What the last head is: the cache's, or the store's where that is newer and ours.
fn base(
    store: &dyn FleetStore,
    folder: &CacheFolder,
    fleet: &Fleet,
    name: &FleetName,
    identity: &HostIdentity,
    wanted: Wanted,
    done: &mut Published,
) -> Result<Base, Failure> {
    // What can't be opened is made anew.
    let kept = folder.open(fleet, identity, HostPart::Publisher).ok().flatten();
    let found = store.get(&[StoreKey::Head]).map_err(|e| in_store(&e))?.into_iter().next().flatten();
    let last = kept.as_ref().map_or((0, 0), |kept| (kept.signed.head.sequence, kept.signed.head.epoch));
    let Some(found) = found else {
        return Ok(Base { opened: kept, revision: None, last, is_doubtful: true });
    };
    let revision = Some(found.revision);
    let signed = match SignedHead::read(&found.bytes) {
        Ok(signed) => signed,
        Err(e) => {
            done.alarms.push(format!("the store's head was no head of ours ({e}); a new one took its place"));
            return Ok(Base { opened: kept, revision, last, is_doubtful: true });
        }
    };
    if signed.head.fleet != *name || signed.publisher != identity.public().signing {
        if !wanted.take_over {
            return Err(other_publisher(&signed));
        }
        let last = (last.0.max(signed.head.sequence), last.1.max(signed.head.epoch));
        return Ok(Base { opened: None, revision, last, is_doubtful: true });
    }
    if let Some(kept) = kept {
        if kept.signed.hash == signed.hash {
            return Ok(Base { opened: Some(kept), revision, last, is_doubtful: false });
        }
        if kept.signed.head.sequence > signed.head.sequence {
            done.alarms.push(format!(
                "the store's head had gone back from number {} to {}: it was restored, or somebody changes it",
                kept.signed.head.sequence, signed.head.sequence
            ));
            return Ok(Base { opened: Some(kept), revision, last, is_doubtful: true });
        }
    }
    let last = (last.0.max(signed.head.sequence), last.1.max(signed.head.epoch));
    // It is ours and newer: a run that was interrupted, or a cache that was lost.
    let fetched = fetch(store, folder, &signed.head, identity, &NodeName::publisher(), false);
    let opened = fetched.ok().map(|(key, entries)| Opened { signed, key, entries });
    Ok(Base { opened, revision, last, is_doubtful: true })
}

/// The refusal of a second publisher.
fn other_publisher(signed: &SignedHead) -> Failure {
    let head = &signed.head;
    let when = crate::output::json::timestamp(head.signed).unwrap_or_default();
    Failure::new(
        FailureKind::Lock,
        format!(
            "another publisher, {}, published number {} of {} at {when}; if this host is to take its place: fleet publish --take-over",
            signed.publisher.fingerprint(),
            head.sequence,
            head.fleet
        ),
    )
}

/// Somebody put a head while this run worked.
fn lost(store: &dyn FleetStore, identity: &HostIdentity) -> Failure {
    let found = store.get(&[StoreKey::Head]).ok().and_then(|found| found.into_iter().next().flatten());
    match found.and_then(|found| SignedHead::read(&found.bytes).ok()) {
        Some(signed) if signed.publisher != identity.public().signing => other_publisher(&signed),
        _ => Failure::new(
            FailureKind::Lock,
            "the store's head changed while this run worked; the next run tries again",
        ),
    }
}

struct Seal<'a> {
    tree: &'a CertbotTree,
    name: &'a FleetName,
    key: &'a EpochKey,
    reusable: &'a BTreeMap<&'a String, &'a PageEntry>,
}

/// What came of one lineage: and the object, where it is a new one; or that it may be whole in a moment.
type Read = (Looked, Option<Vec<u8>>, bool);

/// Reads every lineage; proves, seals and puts what isn't published yet.
fn look(
    seal: &Seal<'_>,
    names: &[&OsString],
    store: &dyn FleetStore,
    progress: Progress<'_>,
) -> Result<BTreeMap<String, Looked>, Failure> {
    let mut all = BTreeMap::new();
    let mut unsettled: Vec<&OsString> = Vec::new();
    for (at, chunk) in names.chunks(TOGETHER).enumerate() {
        let before = at * TOGETHER;
        let read =
            parallel::map(chunk, |name| look_at(seal, name), &|done, _| progress(before + done, names.len()));
        let mut puts = Vec::new();
        for (name, (looked, object, may_settle)) in chunk.iter().zip(read) {
            if may_settle {
                unsettled.push(name);
            }
            if let (Looked::Proved(entry), Some(bytes)) = (&looked, object) {
                puts.push((StoreKey::Object(entry.object), bytes));
            }
            all.insert(name.to_string_lossy().into_owned(), looked);
        }
        if !puts.is_empty() {
            store.put(&puts).map_err(|e| in_store(&e))?;
        }
    }
    let until = Instant::now() + SETTLING;
    while !unsettled.is_empty() && Instant::now() < until {
        sleep(POLL);
        let mut left = Vec::new();
        for name in unsettled {
            let (looked, object, may_settle) = look_at(seal, name);
            if let (Looked::Proved(entry), Some(bytes)) = (&looked, object) {
                store.put(&[(StoreKey::Object(entry.object), bytes)]).map_err(|e| in_store(&e))?;
            }
            if may_settle {
                left.push(name);
            }
            all.insert(name.to_string_lossy().into_owned(), looked);
        }
        unsettled = left;
    }
    Ok(all)
}

/// Reads one lineage, and proves and seals it unless it is as it was published.
fn look_at(seal: &Seal<'_>, name: &OsStr) -> Read {
    let refused = |why: String, may_settle: bool| (Looked::Refused(why), None, may_settle);
    let text = match (name.to_str(), site_file(name)) {
        (Some(text), Ok(_)) => text,
        (_, Err(refusal)) => return refused(refusal.detail, false),
        (None, Ok(_)) => return refused("its name is not UTF-8".to_owned(), false),
    };
    let pair = match seal.tree.read(name) {
        Ok(pair) => pair,
        Err(unread) => return refused(unread.refusal.detail, unread.unsettled),
    };
    let (differ, unsettled) = (pair.versions_differ, pair.unsettled);
    let plain = PlainPair { key: pair.key, chain: pair.chain };
    let content = plain.content();
    if seal.reusable.get(&text.to_owned()).is_some_and(|entry| entry.content == content) {
        return (Looked::Same, None, false);
    }
    let proved = match CertifiedKey::prove(&plain.key, &plain.chain) {
        Ok(proved) => proved,
        Err(_) if differ => {
            return refused("the links name different versions".to_owned(), unsettled);
        }
        Err(unproved) => return refused(unproved.detail, unsettled),
    };
    match object::seal(&plain, text, seal.name, seal.key) {
        Ok(bytes) => {
            let leaf = proved.leaf();
            let entry = PageEntry {
                lineage: text.to_owned(),
                object: sha256(&bytes),
                content,
                leaf: leaf.sha256,
                serial: leaf.serial.clone(),
                not_after: leaf.not_after,
            };
            (Looked::Proved(entry), Some(bytes), false)
        }
        Err(e) => refused(e.to_string(), false),
    }
}

/// Seals once more what stays published of lineages that can't be read now: of another epoch, or lost from the store.
fn rescue(
    store: &dyn FleetStore,
    opened: &Opened,
    names: &[String],
    fleet: &FleetName,
    key: &EpochKey,
) -> Result<Vec<PageEntry>, Failure> {
    let entries: Vec<&PageEntry> = names.iter().filter_map(|name| opened.entries.get(name)).collect();
    let keys: Vec<StoreKey> = entries.iter().map(|entry| StoreKey::Object(entry.object)).collect();
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let mut rescued = Vec::new();
    let mut puts = Vec::new();
    for (entry, found) in entries.into_iter().zip(store.get(&keys).map_err(|e| in_store(&e))?) {
        let whole = found.filter(|stored| is_sha256_of(&entry.object, &stored.bytes));
        let pair =
            whole.and_then(|stored| object::open(&stored.bytes, &entry.lineage, fleet, &opened.key).ok());
        let Some(pair) = pair else {
            return Err(Failure::new(
                FailureKind::Io,
                format!(
                    "{} is refused here and the store has lost what was published of it: nothing is published, so that no node loses it; mend it, or exclude it",
                    escaped(&entry.lineage)
                ),
            ));
        };
        let bytes = object::seal(&pair, &entry.lineage, fleet, key).map_err(|e| unsealed(&e))?;
        rescued.push(PageEntry { object: sha256(&bytes), ..entry.clone() });
        puts.push((StoreKey::Object(sha256(&bytes)), bytes));
    }
    store.put(&puts).map_err(|e| in_store(&e))?;
    Ok(rescued)
}

/// All that the store has of objects, pages and keys.
fn listed(store: &dyn FleetStore) -> Result<BTreeSet<StoreKey>, Failure> {
    let mut all = BTreeSet::new();
    for folder in [StoreFolder::Objects, StoreFolder::Pages, StoreFolder::EpochKeys] {
        all.extend(store.list(folder).map_err(|e| in_store(&e))?);
    }
    Ok(all)
}

/// Notes what the last head named and this one doesn't.
fn drop_unnamed(
    memory: &mut FleetMemory,
    previous: Option<&Opened>,
    head: &Head,
    entries: &BTreeMap<String, PageEntry>,
    at: i64,
) {
    let named = named(head, entries);
    if let Some(opened) = previous {
        let before = self::named(&opened.signed.head, &opened.entries);
        for gone in before.difference(&named) {
            memory.dropped.entry(gone.clone()).or_insert((head.sequence, at));
        }
    }
    memory.dropped.retain(|path, _| !named.contains(path));
}

/// Notes what is in the store and no head names.
fn note_strays(
    memory: &mut FleetMemory,
    there: &BTreeSet<StoreKey>,
    sequence: u64,
    entries: &BTreeMap<String, PageEntry>,
    folder: &CacheFolder,
    at: i64,
) -> Result<(), Failure> {
    let head = folder.head()?.and_then(|bytes| SignedHead::read(&bytes).ok());
    let Some(head) = head else { return Ok(()) };
    let named = named(&head.head, entries);
    for path in there.iter().map(StoreKey::to_string).filter(|path| !named.contains(path)) {
        memory.dropped.entry(path).or_insert((sequence, at));
    }
    Ok(())
}

/// The places in the store of all that a head names.
fn named(head: &Head, entries: &BTreeMap<String, PageEntry>) -> BTreeSet<String> {
    let pages = head.pages.iter().map(|hash| StoreKey::Page(*hash).to_string());
    let objects = entries.values().map(|entry| StoreKey::Object(entry.object).to_string());
    let names = head.nodes.iter().map(|(name, _)| name.clone()).chain([NodeName::publisher()]);
    let keys = names.map(|node| StoreKey::EpochKey { epoch: head.epoch, node }.to_string());
    pages.chain(objects).chain(keys.collect::<Vec<_>>()).collect()
}

/// Deletes what neither this head nor the one before names, after a day. What can't be deleted is tried again.
fn clear_away(
    store: &dyn FleetStore,
    memory: &mut FleetMemory,
    sequence: u64,
    at: i64,
    alarms: &mut Vec<String>,
) {
    let is_due = |(since_head, since): &(u64, i64)| *since_head < sequence && at - since >= DAY;
    let due: Vec<String> =
        memory.dropped.iter().filter(|(_, dropped)| is_due(dropped)).map(|(path, _)| path.clone()).collect();
    let keys: Vec<StoreKey> = due.iter().filter_map(|path| StoreKey::of_path(path)).collect();
    if keys.is_empty() {
        return;
    }
    match store.delete(&keys) {
        Ok(()) => memory.dropped.retain(|path, _| !due.contains(path)),
        Err(e) => alarms.push(format!("what no head names any more can't be deleted: {e}")),
    }
}

fn in_store(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(FailureKind::Io, format!("the fleet's store: {error}"))
}

fn unsealed(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(FailureKind::Io, format!("cannot seal: {error}"))
}
