//! What the store has of what the last head names, read and compared with what was put there.

use std::collections::BTreeSet;

use crate::certified_key::sha256;
use crate::commands::fleet::failures::in_store;
use crate::commands::fleet::publish::unnamed::{listed, parts};
use crate::commands::fleet::values::values;
use crate::fleet::cache::Opened;
use crate::fleet::fetch::TOGETHER;
use crate::fleet::name::NodeName;
use crate::fleet::sealed_hashes::SealedHashes;
use crate::fleet::store::{FleetStore, StoreKey};
use crate::sys::failure::Failure;

/// What the store has.
pub(super) struct StoreLook {
    /// Its objects, pages and sealed keys, by name.
    pub listed: BTreeSet<StoreKey>,
    /// Those of them that have to be put again.
    again: BTreeSet<StoreKey>,
    /// Those of them that are something else than what was put.
    damaged: Vec<StoreKey>,
}

impl StoreLook {
    /// Lists the store, and reads what this head names. `None`: everything is put anew.
    pub(super) fn through(
        store: &dyn FleetStore,
        opened: Option<&Opened>,
        sealed: &SealedHashes,
    ) -> Result<Self, Failure> {
        let mut looked = Self { listed: listed(store)?, again: BTreeSet::new(), damaged: Vec::new() };
        let named = opened.map(named).unwrap_or_default();
        let keys: Vec<StoreKey> = named.into_iter().filter(|key| looked.listed.contains(key)).collect();
        for keys in keys.chunks(TOGETHER) {
            for (key, found) in keys.iter().zip(values(store, keys).map_err(|e| in_store(&e))?) {
                let put = match key {
                    StoreKey::Page(hash) | StoreKey::Object(hash) => Some(*hash),
                    StoreKey::EpochKey { epoch, node } => sealed.of(*epoch, node),
                    StoreKey::Head | StoreKey::Report(_) => None,
                };
                let is_whole = matches!((&found, put), (Ok(Some(bytes)), Some(put)) if sha256(bytes) == put);
                if !is_whole {
                    looked.again.insert(key.clone());
                }
                // Where it isn't remembered what was put, or it is gone by now, nobody need have done anything.
                if !is_whole && put.is_some() && !matches!(found, Ok(None)) {
                    looked.damaged.push(key.clone());
                }
            }
        }
        Ok(looked)
    }

    /// Whether the store has this value, as far as it was read.
    pub(super) fn has(&self, key: &StoreKey) -> bool {
        self.listed.contains(key) && !self.again.contains(key)
    }

    /// That something was damaged, for people.
    pub(super) fn alarm(&self) -> Option<String> {
        let first = self.damaged.first()?;
        let others = match self.damaged.len() - 1 {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        Some(format!("the store's {first}{others} wasn't what this host had put there, and was put again"))
    }
}

/// All that a head names.
fn named(opened: &Opened) -> Vec<StoreKey> {
    let head = &opened.signed.head;
    let nodes = opened.nodes.iter().map(|(node, _)| node.clone()).chain([NodeName::publisher()]);
    let keys = nodes.map(|node| StoreKey::EpochKey { epoch: head.epoch, node });
    parts(head, &opened.entries).chain(keys).collect()
}
