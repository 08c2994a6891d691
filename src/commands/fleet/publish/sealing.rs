//! Reading certbot's lineages, and sealing and putting those that aren't published as they are now.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::certbot::{CertbotTree, SETTLING};
use crate::certified_key::{CertifiedKey, sha256};
use crate::commands::fleet::failures::{in_store, unsealed};
use crate::commands::fleet::values::values;
use crate::fleet::cache::{Opened, is_sha256_of};
use crate::fleet::edition::Looked;
use crate::fleet::epoch::EpochKey;
use crate::fleet::name::FleetName;
use crate::fleet::object::{self, PlainPair};
use crate::fleet::page::PageEntry;
use crate::fleet::store::{FleetStore, StoreKey};
use crate::index::known_pair::KnownPair;
use crate::plan::names::site_file;
use crate::sys::escape::escaped;
use crate::sys::failure::{Failure, FailureKind};
use crate::sys::parallel::{self, Progress};

/// Lineages that are read, sealed and put together.
const TOGETHER: usize = 400;

const POLL: Duration = Duration::from_millis(50);

/// How a lineage is sealed.
pub(super) struct Seal<'a> {
    pub tree: &'a CertbotTree,
    pub name: &'a FleetName,
    pub key: &'a EpochKey,
    /// What is published already, and may be named again.
    pub reusable: &'a BTreeMap<&'a str, &'a PageEntry>,
}

/// What came of reading one lineage.
struct Read {
    looked: Looked,
    /// The object, where it is a new one.
    object: Option<Vec<u8>>,
    /// Whether it may be whole in a moment.
    may_settle: bool,
    /// What its files looked like, where they were whole.
    pair: Option<KnownPair>,
}

/// What came of reading lineages.
#[derive(Default)]
pub(super) struct ReadPairs {
    /// What came of each.
    pub all: BTreeMap<String, Looked>,
    /// What their files looked like, where they were whole.
    pub pairs: Vec<KnownPair>,
    /// The last new objects: they are put together with the pages that name them.
    pub unput: Vec<(StoreKey, Vec<u8>)>,
}

/// Reads every lineage of these; proves and seals what isn't published yet, and puts it, but for the last ones.
pub(super) fn look(
    seal: &Seal<'_>,
    names: &[&OsString],
    store: &dyn FleetStore,
    progress: Progress<'_>,
) -> Result<ReadPairs, Failure> {
    let mut looks = ReadPairs::default();
    let mut unsettled: Vec<&OsString> = Vec::new();
    for (at, chunk) in names.chunks(TOGETHER).enumerate() {
        let before = at * TOGETHER;
        let read =
            parallel::map(chunk, |name| look_at(seal, name), &|done, _| progress(before + done, names.len()));
        let unput = std::mem::take(&mut looks.unput);
        if !unput.is_empty() {
            store.put(&unput).map_err(|e| in_store(&e))?;
        }
        for (name, Read { looked, object, may_settle, pair }) in chunk.iter().zip(read) {
            if may_settle {
                unsettled.push(name);
            }
            if let (Looked::Proved(entry), Some(bytes)) = (&looked, object) {
                looks.unput.push((StoreKey::Object(entry.object), bytes));
            }
            looks.all.insert(name.to_string_lossy().into_owned(), looked);
            looks.pairs.extend(pair);
        }
    }
    let until = Instant::now() + SETTLING;
    while !unsettled.is_empty() && Instant::now() < until {
        sleep(POLL);
        let mut left = Vec::new();
        for name in unsettled {
            let Read { looked, object, may_settle, pair } = look_at(seal, name);
            if let (Looked::Proved(entry), Some(bytes)) = (&looked, object) {
                looks.unput.push((StoreKey::Object(entry.object), bytes));
            }
            if may_settle {
                left.push(name);
            }
            looks.all.insert(name.to_string_lossy().into_owned(), looked);
            looks.pairs.extend(pair);
        }
        unsettled = left;
    }
    Ok(looks)
}

/// Reads one lineage, and proves and seals it unless it is as it was published.
fn look_at(seal: &Seal<'_>, name: &OsStr) -> Read {
    let refused = |why: String, may_settle: bool| Read {
        looked: Looked::Refused(why),
        object: None,
        may_settle,
        pair: None,
    };
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
    let (key, chain) = (pair.key_look, pair.chain_look);
    let plain = PlainPair { key: pair.key, chain: pair.chain };
    let content = plain.content();
    let known = KnownPair { lineage: text.to_owned(), key, chain, content };
    if seal.reusable.get(text).is_some_and(|entry| entry.content == content) {
        return Read { looked: Looked::Same, object: None, may_settle: false, pair: Some(known) };
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
            Read { looked: Looked::Proved(entry), object: Some(bytes), may_settle: false, pair: Some(known) }
        }
        Err(e) => refused(e.to_string(), false),
    }
}

/// What stays published of lineages that can't be read now.
#[derive(Default)]
pub(super) struct Rescued {
    /// What was sealed once more.
    pub entries: Vec<PageEntry>,
    /// What the store hasn't got whole, and stays named for the nodes that have it.
    pub lost: Vec<String>,
}

/// Seals once more what stays published of lineages that can't be read now: of another epoch, or lost from the store.
pub(super) fn rescue(
    store: &dyn FleetStore,
    opened: &Opened,
    names: &[String],
    fleet: &FleetName,
    key: &EpochKey,
) -> Result<Rescued, Failure> {
    let mut rescued = Rescued::default();
    let entries: Vec<&PageEntry> = names.iter().filter_map(|name| opened.entries.get(name)).collect();
    let keys: Vec<StoreKey> = entries.iter().map(|entry| StoreKey::Object(entry.object)).collect();
    if keys.is_empty() {
        return Ok(rescued);
    }
    let mut puts = Vec::new();
    for (entry, found) in entries.into_iter().zip(values(store, &keys).map_err(|e| in_store(&e))?) {
        let whole = found.ok().flatten().filter(|bytes| is_sha256_of(&entry.object, bytes));
        let pair = whole.and_then(|bytes| object::open(&bytes, &entry.lineage, fleet, &opened.key).ok());
        let Some(pair) = pair else {
            if opened.key.epoch() == key.epoch() {
                rescued.lost.push(entry.lineage.clone());
                continue;
            }
            return Err(Failure::new(
                FailureKind::Io,
                format!(
                    "{} is refused here and the store has lost what was published of it: nothing is published, so that no node loses it; mend it, or exclude it",
                    escaped(&entry.lineage)
                ),
            ));
        };
        let bytes = object::seal(&pair, &entry.lineage, fleet, key).map_err(|e| unsealed(&e))?;
        rescued.entries.push(PageEntry { object: sha256(&bytes), ..entry.clone() });
        puts.push((StoreKey::Object(sha256(&bytes)), bytes));
    }
    store.put(&puts).map_err(|e| in_store(&e))?;
    Ok(rescued)
}
