//! Reading certbot's lineages, and sealing and putting those that aren't published as they are now.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::certbot::{CertbotTree, SETTLING};
use crate::certified_key::{CertifiedKey, sha256};
use crate::commands::fleet::failures::{in_store, unsealed};
use crate::fleet::cache::{Opened, is_sha256_of};
use crate::fleet::edition::Looked;
use crate::fleet::epoch::EpochKey;
use crate::fleet::name::FleetName;
use crate::fleet::object::{self, PlainPair};
use crate::fleet::page::PageEntry;
use crate::fleet::store::{FleetStore, StoreKey};
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

/// What came of one lineage: and the object, where it is a new one; or that it may be whole in a moment.
type Read = (Looked, Option<Vec<u8>>, bool);

/// Reads every lineage; proves, seals and puts what isn't published yet.
pub(super) fn look(
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
    if seal.reusable.get(text).is_some_and(|entry| entry.content == content) {
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
pub(super) fn rescue(
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
