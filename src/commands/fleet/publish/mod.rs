//! `fleet publish` and `fleet rotate`: sweep, prove, seal what changed, and put a new head into the store.

pub mod announcing;
mod base;
mod damage;
mod known;
mod sealing;
mod unnamed;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::str::FromStr as _;

use crate::certbot::CertbotTree;
use crate::certified_key::{hex, sha256};
use crate::commands::fleet::failures::{in_store, unsealed};
use crate::commands::fleet::publish::base::{Base, base, lost, pass_nodes};
use crate::commands::fleet::publish::damage::StoreLook;
use crate::commands::fleet::publish::known::KnownPairs;
use crate::commands::fleet::publish::sealing::{Seal, look, rescue};
use crate::commands::fleet::publish::unnamed::{DAY, clear_away, could_read, drop_unnamed, note_strays};
use crate::config::Settings;
use crate::config::fleet::Fleet;
use crate::fleet::accept::AHEAD;
use crate::fleet::cache::{CacheFolder, FleetMemory, HostPart, Opened, fleet_name, made};
use crate::fleet::edition::{Edition, Held, Looked, Pruning, pages_of};
use crate::fleet::epoch::EpochKey;
use crate::fleet::head::Head;
use crate::fleet::identity::HostIdentity;
use crate::fleet::name::{FleetName, NodeName};
use crate::fleet::node_key::NodeKey;
use crate::fleet::node_list::{self, NodeList};
use crate::fleet::page::{self, PageEntry};
use crate::fleet::reach::{Patience, reach};
use crate::fleet::store::{FleetStore, StoreKey, Swap};
use crate::index::known_pair::KnownPair;
use crate::output::{Exit, syslog};
use crate::plan::client::Client;
use crate::sites::last_run::LastRun;
use crate::sys::clock::now;
use crate::sys::escape::{escaped, escaped_path};
use crate::sys::failure::{Failure, FailureKind};
use crate::sys::host_name::host_name;
use crate::sys::parallel::Progress;
use crate::sys::system::System;

/// How long a head counts.
pub const LIFE: i64 = 36 * 60 * 60;

/// When the store is looked through for what is missing from it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LookThrough {
    /// Once a day.
    #[default]
    Daily,
    /// Now.
    Now,
}

/// How the operator wants it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted {
    /// What becomes of lineages that are gone.
    pub pruning: Pruning,
    /// A new epoch.
    pub rotate: bool,
    /// Take the fleet over from another publisher.
    pub take_over: bool,
    /// When the store is looked through for what is missing.
    pub missing: LookThrough,
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Published {
    /// The fleet.
    pub fleet: String,
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
    pub held: Option<(Vec<String>, Held)>,
    /// What was refused, and why.
    pub refused: Vec<(String, String)>,
    /// The identity file, where it was made now.
    pub made: Option<PathBuf>,
    /// The line for the nodes' `publishers`.
    pub line: String,
    /// Whether this is the first head of this publisher.
    pub is_first: bool,
    /// Who is no node and can still read, each in a sentence.
    pub removed: Vec<String>,
    /// Whether everything was encrypted anew: what nodes that are no more held has to be issued again.
    pub rotated: bool,
    /// Who renews what is published.
    pub client: Client,
    /// What is odd in the store.
    pub alarms: Vec<String>,
}

impl Published {
    /// Whether a guard keeps lineages published that are gone.
    fn is_held(&self) -> bool {
        self.held.as_ref().is_some_and(|(_, why)| *why != Held::Wanted)
    }

    /// How publishing ends: whether something needs a person.
    #[must_use]
    pub fn exit(&self) -> Exit {
        let is_fine =
            !self.is_held() && self.refused.is_empty() && self.alarms.is_empty() && self.removed.is_empty();
        if is_fine { Exit::Fine } else { Exit::Partly }
    }
}

/// Publishes what changed, and records in the fleet's cache how that ended.
///
/// # Errors
/// The settings can't be used, certbot's tree or the store can't be read or written, or another publisher is there.
pub fn publish(settings: &Settings, wanted: Wanted, progress: Progress<'_>) -> Result<Published, Failure> {
    let done = put_edition(settings, wanted, progress);
    if let Some(fleet) = settings.published() {
        record(fleet, &done);
    }
    done
}

/// Logs how it ended, and records it for `status` and for the next log, where nothing else is needed but what publishing needs
/// itself: what fails first may be the first publish.
fn record(fleet: &Fleet, done: &Result<Published, Failure>) {
    let place = made(&fleet.cache).ok();
    let before = place.as_ref().and_then(|place| LastRun::look_in(place).ok().flatten()).unwrap_or_default();
    let complaints = syslog::publishing(&System::host(), done.as_ref().err(), &before.complaints);
    let exit = done.as_ref().map_or(Exit::Unable, Published::exit);
    let run = LastRun {
        at: now(),
        exit: exit.code(),
        only_warned: done.as_ref().is_ok_and(|done| !done.is_held() && done.refused.is_empty()),
        error: done.as_ref().err().cloned(),
        changes: done.as_ref().map_or(0, |done| done.published.len() + done.gone.len()),
        succeeded: if exit == Exit::Fine { now() } else { before.succeeded },
        complaints,
        ..LastRun::default()
    };
    // Best effort: nothing but these lives on it.
    let _ = place.map(|place| run.save_in(&place));
}

fn put_edition(settings: &Settings, wanted: Wanted, progress: Progress<'_>) -> Result<Published, Failure> {
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
    let store = reach(fleet, Patience::Usual)?;
    let folder = CacheFolder::lock(&fleet.cache)?;
    let mut memory = folder.memory()?;
    let mut done = Published {
        fleet: fleet.name.clone(),
        nodes: members.len(),
        made: made.then(|| fleet.identity.clone()),
        line: identity.public().signing.line(&host),
        rotated: wanted.rotate,
        client: Client::of(settings),
        ..Published::default()
    };
    let known = (&memory, wanted.take_over);
    let mut base = base(store.as_ref(), &folder, fleet, &name, &identity, known, &mut done.alarms)?;
    pass_nodes(&mut base, store.as_ref(), &name, &members, &mut done.alarms)?;
    let at = now();
    let previous = base.opened.as_ref();
    let mut made_key = None;
    let (key, is_fresh) = next_key(&base, wanted, &mut made_key)?;
    let looks_through = base.is_doubtful
        || wanted.missing == LookThrough::Now
        || at - memory.swept > DAY
        || memory.swept > at;
    let named = previous.filter(|_| !is_fresh);
    let stored = || StoreLook::through(store.as_ref(), named, &folder.sealed_hashes());
    let there = looks_through.then(stored).transpose()?;
    done.alarms.extend(there.as_ref().and_then(StoreLook::alarm));
    let edition_of = Publishing {
        store: store.as_ref(),
        folder: &folder,
        name: &name,
        identity: &identity,
        members: &members,
        previous,
        base: &base,
        key,
        is_fresh,
        there,
        reads_everything: looks_through,
        at,
    };
    let tree = CertbotTree::of(settings);
    let Found { edition, objects, lost, known, pairs } =
        edition_of.edition(settings, &tree, wanted, progress)?;
    done.alarms.extend(lost);
    let mut pages = edition_of.pages(&edition)?;
    let mut keys = edition_of.keys()?;
    edition_of.note_sealed(&keys);
    let mut puts = objects;
    puts.append(&mut keys.puts);
    puts.append(&mut pages.fresh);
    if !puts.is_empty() {
        store.put(&puts).map_err(|e| in_store(&e))?;
    }
    // They are kept here, too.
    puts.retain(|(key, _)| matches!(key, StoreKey::Page(_)));
    pages.fresh = puts;
    done.is_first = previous.is_none();
    done.is_new = edition_of.needs_a_head(&pages, &edition, wanted);
    done.sequence = previous.map_or(0, |opened| opened.signed.head.sequence);
    // Before they are none any more, so that it isn't forgotten: until the next epoch they can read.
    if let Some(opened) = previous {
        memory.former.note(opened.nodes.iter(), opened.signed.head.epoch, &members);
    }
    if done.is_new {
        let head = edition_of.put_head(pages, &keys, wanted, &mut memory)?;
        done.sequence = head.sequence;
        drop_unnamed(&mut memory, previous, &head, &edition.entries, at);
        if let Some(previous) = previous {
            folder.drop_replaced(previous, &head, &edition.entries);
        }
        if looks_through && let Some(opened) = folder.open(fleet, &identity, HostPart::Publisher)? {
            folder.tidy(&opened);
        }
        memory.since = at;
    }
    edition_of.note_holders(&mut memory);
    known.save(&folder, &pairs);
    if let Some(there) = &edition_of.there {
        let more = note_strays(&mut memory, &there.listed, done.sequence, &edition.entries, &folder, at)?;
        done.alarms.extend(more);
        memory.swept = at;
    }
    clear_away(store.as_ref(), &mut memory, done.sequence, at, &mut done.alarms);
    folder.remember(&memory)?;
    done.lineages = edition.entries.len();
    done.published = edition.published;
    done.gone = edition.gone;
    done.held = edition.why_held.map(|why| (edition.held, why));
    done.refused = edition.refused;
    done.removed = memory.readers(edition_of.key.epoch(), |name| members.get(name).is_some());
    Ok(done)
}

/// The key of the next head's epoch, and whether it is a new one, which is kept in `made`.
fn next_key<'a>(
    base: &'a Base,
    wanted: Wanted,
    made: &'a mut Option<EpochKey>,
) -> Result<(&'a EpochKey, bool), Failure> {
    if let Some(opened) = base.opened.as_ref().filter(|_| !wanted.rotate && !base.went_back) {
        return Ok((&opened.key, false));
    }
    // There are no more epochs than heads.
    let last = if base.went_back { base.last.0.max(base.last.1) } else { base.last.1 };
    let key = EpochKey::generate(last + 1).map_err(|e| unsealed(&e))?;
    Ok((made.insert(key), true))
}

/// One publish, as far as it doesn't change any more.
struct Publishing<'a> {
    store: &'a dyn FleetStore,
    folder: &'a CacheFolder,
    name: &'a FleetName,
    identity: &'a HostIdentity,
    members: &'a NodeList,
    /// The last head, opened.
    previous: Option<&'a Opened>,
    base: &'a Base,
    /// The key of the next head's epoch.
    key: &'a EpochKey,
    /// Whether everything is sealed anew.
    is_fresh: bool,
    /// What the store has; `None`: what the last head names.
    there: Option<StoreLook>,
    /// Whether lineages are read that look as they did when they were published.
    reads_everything: bool,
    at: i64,
}

/// What came of reading certbot's tree.
struct Found {
    edition: Edition,
    /// Objects that are still to be put.
    objects: Vec<(StoreKey, Vec<u8>)>,
    /// What is to be said of lineages that stay named, and that neither certbot's tree nor the store has whole.
    lost: Vec<String>,
    /// What needn't be read again, and what was read now: it is written down when the head is there.
    known: KnownPairs,
    pairs: Vec<KnownPair>,
}

/// The pages of the next head.
struct Pages {
    hashes: Vec<[u8; 32]>,
    /// Those that aren't in the store yet.
    fresh: Vec<(StoreKey, Vec<u8>)>,
}

/// The sealed keys that aren't in the store yet.
struct SealedKeys {
    puts: Vec<(StoreKey, Vec<u8>)>,
    /// This host's own, where it is among them.
    own: Option<Vec<u8>>,
}

impl Publishing<'_> {
    fn is_there(&self, at: &StoreKey) -> bool {
        self.there.as_ref().is_none_or(|there| there.has(at))
    }

    /// The last head, where the next one may name the same values.
    fn reusable(&self) -> Option<&Opened> {
        self.previous.filter(|_| !self.is_fresh)
    }

    /// Reads certbot's tree, seals and puts what isn't published yet, and decides what the next head names.
    fn edition(
        &self,
        settings: &Settings,
        tree: &CertbotTree,
        wanted: Wanted,
        progress: Progress<'_>,
    ) -> Result<Found, Failure> {
        let empty = BTreeMap::new();
        let before = self.previous.map_or(&empty, |opened| &opened.entries);
        let is_reusable =
            |entry: &PageEntry| !self.is_fresh && self.is_there(&StoreKey::Object(entry.object));
        let reusable: BTreeMap<&str, &PageEntry> = before
            .iter()
            .filter(|(_, entry)| is_reusable(entry))
            .map(|(name, entry)| (name.as_str(), entry))
            .collect();
        let known = KnownPairs::recall(settings, self.folder, tree, &reusable, self.reads_everything);
        let is_known = |name: &OsStr| name.to_str().is_some_and(|name| known.has(name));
        let discovery = tree.discover_besides(&is_known)?;
        if discovery.live_dir_missing && self.previous.is_none() {
            let fact = format!("there is no {}: nothing to publish yet", escaped_path(&settings.live_dir));
            return Err(Failure::new(FailureKind::Io, fact));
        }
        let included = discovery.lineages.iter().filter(|name| settings.selection.includes(name));
        let (as_published, names): (Vec<&OsString>, Vec<&OsString>) =
            included.partition(|name| is_known(name));
        let seal = Seal { tree, name: self.name, key: self.key, reusable: &reusable };
        let mut looks = look(&seal, &names, self.store, progress)?;
        let same = as_published.into_iter().map(|name| (name.to_string_lossy().into_owned(), Looked::Same));
        looks.all.extend(same);
        let mut edition = Edition::after(before, looks.all, !discovery.lineages.is_empty(), wanted.pruning);
        let mut lost = Vec::new();
        if let Some(opened) = self.previous {
            let is_kept = |name: &String, entry: &PageEntry| before.get(name) == Some(entry);
            let names: Vec<String> = edition
                .entries
                .iter()
                .filter(|(name, entry)| is_kept(name, entry) && !reusable.contains_key(name.as_str()))
                .map(|(name, _)| name.clone())
                .collect();
            let rescued = rescue(self.store, opened, &names, self.name, self.key)?;
            edition.entries.extend(rescued.entries.into_iter().map(|entry| (entry.lineage.clone(), entry)));
            lost = rescued.lost.iter().map(|name| is_lost(name)).collect();
        }
        Ok(Found { edition, objects: looks.unput, lost, known, pairs: looks.pairs })
    }

    /// Seals the pages that changed; the list of nodes is stored among them.
    fn pages(&self, edition: &Edition) -> Result<Pages, Failure> {
        let count_before = self.previous.map(|opened| opened.signed.head.pages.len());
        let count = page::count(edition.entries.len(), count_before);
        let before = self
            .reusable()
            .filter(|_| count_before == Some(count))
            .map(|opened| (pages_of(&opened.entries, count), &opened.signed.head.pages));
        let mut pages = Pages { hashes: Vec::with_capacity(count), fresh: Vec::new() };
        for (at, group) in pages_of(&edition.entries, count).iter().enumerate() {
            let same = before.as_ref().and_then(|(groups, hashes)| {
                (groups.get(at) == Some(group)).then(|| hashes.get(at).copied()).flatten()
            });
            if let Some(hash) = same.filter(|hash| self.is_there(&StoreKey::Page(*hash))) {
                pages.hashes.push(hash);
                continue;
            }
            let group: Vec<PageEntry> = group.iter().copied().cloned().collect();
            let bytes = page::seal(&group, (at, count), self.name, self.key).map_err(|e| unsealed(&e))?;
            let hash = sha256(&bytes);
            pages.hashes.push(hash);
            pages.fresh.push((StoreKey::Page(hash), bytes));
        }
        let nodes = self.members.hash();
        let is_known = self.previous.is_some_and(|opened| opened.signed.head.nodes == nodes);
        if !is_known || !self.is_there(&StoreKey::Page(nodes)) {
            pages.fresh.push((StoreKey::Page(nodes), self.members.to_bytes()));
        }
        Ok(pages)
    }

    /// Seals the epoch's key for everybody who hasn't it.
    fn keys(&self) -> Result<SealedKeys, Failure> {
        let known: BTreeSet<(&NodeName, &NodeKey)> = self
            .reusable()
            .into_iter()
            .flat_map(|opened| opened.nodes.iter())
            .map(|(name, key)| (name, key))
            .collect();
        let place = |node: &NodeName| StoreKey::EpochKey { epoch: self.key.epoch(), node: node.clone() };
        let sealed =
            |node: &NodeName, to: &NodeKey| self.key.seal(self.name, node, to).map_err(|e| unsealed(&e));
        let mut keys = SealedKeys { puts: Vec::new(), own: None };
        for (node, to) in self.members.iter() {
            if !known.contains(&(node, to)) || !self.is_there(&place(node)) {
                keys.puts.push((place(node), sealed(node, to)?));
            }
        }
        let own = NodeName::publisher();
        let is_here = self.folder.epoch_key(self.key.epoch()).is_some();
        if self.is_fresh || !is_here || !self.is_there(&place(&own)) {
            let bytes = sealed(&own, &self.identity.public())?;
            keys.own = Some(bytes.clone());
            keys.puts.push((place(&own), bytes));
        }
        Ok(keys)
    }

    /// Notes who is no node and has a key of this epoch in the store: where what is remembered of them was lost, nothing else
    /// tells.
    fn note_holders(&self, memory: &mut FleetMemory) {
        match &self.there {
            _ if self.is_fresh => (memory.holders, memory.more_holders) = Default::default(),
            Some(there) => {
                (memory.holders, memory.more_holders) =
                    could_read(&there.listed, self.key.epoch(), self.members, &memory.holders);
            }
            None => memory.holders.retain(|node| self.members.get(node).is_none()),
        }
    }

    /// Notes what is put of sealed keys, before it is.
    fn note_sealed(&self, keys: &SealedKeys) {
        if keys.puts.is_empty() {
            return;
        }
        let mut sealed = self.folder.sealed_hashes();
        for (key, bytes) in &keys.puts {
            if let StoreKey::EpochKey { epoch, node } = key {
                sealed.note(*epoch, node, bytes);
            }
        }
        sealed.keep_of(self.members);
        self.folder.keep_sealed_hashes(&sealed);
    }

    /// Whether another head is due, or would say something else.
    fn needs_a_head(&self, pages: &Pages, edition: &Edition, wanted: Wanted) -> bool {
        let Some(opened) = self.previous else { return true };
        let last = &opened.signed.head;
        let is_due = self.at - last.signed >= LIFE / 2 || self.at + AHEAD < last.signed;
        let is_other =
            last.pages != pages.hashes || last.nodes != self.members.hash() || last.epoch != self.key.epoch();
        let may_prune = (wanted.pruning == Pruning::Many) && !(last.prune_many && edition.gone.is_empty());
        is_due || is_other || self.base.is_doubtful || may_prune
    }

    /// Signs the head and puts it in the place of the one that was seen; then it counts here too.
    fn put_head(
        &self,
        pages: Pages,
        keys: &SealedKeys,
        wanted: Wanted,
        memory: &mut FleetMemory,
    ) -> Result<Head, Failure> {
        // A publisher whose clock is ahead may have been replaced; no node takes what is much in the future.
        let later = Some(self.base.signed.saturating_add(1)).filter(|later| *later <= self.at + AHEAD);
        let head = Head {
            fleet: self.name.clone(),
            sequence: self.base.last.0 + 1,
            signed: self.at.max(later.unwrap_or_default()),
            expires: self.at + LIFE,
            epoch: self.key.epoch(),
            epoch_key: self.key.commitment(self.name),
            prune_many: wanted.pruning == Pruning::Many,
            nodes: self.members.hash(),
            pages: pages.hashes,
        };
        let value = head.sign(self.identity.signing());
        memory.intended = Some(hex(&sha256(&value)));
        self.folder.remember(memory)?;
        if self.base.is_in_the_way {
            self.store.delete(&[StoreKey::Head]).map_err(|e| in_store(&e))?;
        }
        let swapped = self.store.compare_and_put(&StoreKey::Head, self.base.revision, &value);
        match swapped.map_err(|e| in_store(&e))? {
            Swap::Done(_) => {}
            Swap::Lost => return Err(lost(self.store, self.name, self.identity)),
        }
        for (key, bytes) in &pages.fresh {
            if let StoreKey::Page(hash) = key {
                self.folder.keep_page(hash, bytes)?;
            }
        }
        if let Some(bytes) = &keys.own {
            self.folder.keep_epoch_key(self.key.epoch(), bytes)?;
        }
        let epoch = self.key.epoch();
        let own = keys.own.as_ref().map(|_| StoreKey::EpochKey { epoch, node: NodeName::publisher() });
        let fresh: Vec<StoreKey> = pages.fresh.into_iter().map(|(key, _)| key).chain(own).collect();
        self.folder.switch_over(&value, &fresh)?;
        Ok(head)
    }
}

/// What is to be said of a lineage that neither certbot's tree nor the store has whole.
fn is_lost(lineage: &str) -> String {
    format!(
        "the store has lost what was published of {}, and it can't be read here: nodes that haven't got it take nothing \
         until it is mended, or excluded",
        escaped(lineage)
    )
}

/// The nodes of the settings, by name.
///
/// # Errors
/// A name or a key that is none, or that two have.
pub fn members(fleet: &Fleet) -> Result<NodeList, Failure> {
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
    let list = NodeList::of(all);
    let length = list.to_bytes().len();
    if length > node_list::MAX_BYTES {
        let fact = format!("{} [[fleet.node]] tables are more than fit into one fleet", list.len());
        return Err(Failure::config(fact));
    }
    Ok(list)
}
