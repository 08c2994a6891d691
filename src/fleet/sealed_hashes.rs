//! What a publisher put for sealed keys. It can't open those of the nodes: by these hashes it knows them again. Pure.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::name::NodeName;
use super::node_list::NodeList;
use super::signed_text::unhex;
use crate::certified_key::{hex, sha256};

/// The hashes of one epoch's sealed keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedHashes {
    epoch: u64,
    /// The SHA-256 of each node's, in hex.
    hashes: BTreeMap<NodeName, String>,
}

impl SealedHashes {
    /// The hash of a node's; `None`: it isn't known here.
    #[must_use]
    pub fn of(&self, epoch: u64, node: &NodeName) -> Option<[u8; 32]> {
        self.hashes.get(node).filter(|_| self.epoch == epoch).and_then(|hash| unhex(hash))
    }

    /// With one more, and without those of other epochs.
    pub fn note(&mut self, epoch: u64, node: &NodeName, sealed: &[u8]) {
        if self.epoch != epoch {
            *self = Self { epoch, hashes: BTreeMap::new() };
        }
        self.hashes.insert(node.clone(), hex(&sha256(sealed)));
    }

    /// Without those of nodes that are none.
    pub fn keep_of(&mut self, nodes: &NodeList) {
        self.hashes.retain(|node, _| *node == NodeName::publisher() || nodes.get(node.as_ref()).is_some());
    }
}

#[cfg(test)]
mod tests {
    use super::super::node_key::NodeKey;
    use super::super::sshsig::VerifyingKey;
    use super::*;

    #[test]
    fn what_was_put_is_known_in_its_epoch_for_whom_it_was() {
        let node = |name: &str| name.parse::<NodeName>().unwrap();
        let mut sealed = SealedHashes::default();
        for name in ["lb1", "lb2", "publisher"] {
            sealed.note(1, &node(name), name.as_bytes());
        }
        sealed.note(1, &node("lb1"), b"again");
        let kept = serde_json::to_string(&sealed).unwrap();
        let mut sealed: SealedHashes = serde_json::from_str(&kept).unwrap();
        assert_eq!(sealed.of(1, &node("lb1")), Some(sha256(b"again")));
        assert_eq!((sealed.of(2, &node("lb1")), sealed.of(1, &node("lb3"))), (None, None));
        let key = NodeKey { sealing: [1; 32], signing: VerifyingKey([1; 32]) };
        sealed.keep_of(&NodeList::of([(node("lb1"), key)]));
        assert_eq!(sealed.of(1, &node("lb2")), None);
        assert_eq!(sealed.of(1, &node("publisher")), Some(sha256(b"publisher")));
        sealed.note(2, &node("lb1"), b"next");
        assert_eq!(
            (sealed.of(1, &node("publisher")), sealed.of(2, &node("lb1"))),
            (None, Some(sha256(b"next")))
        );
    }
}
