//! The keys that nodes had and have no more: who of them can still read, and whose old report is no forgery. Pure.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use serde::{Deserialize, Serialize};

use super::name::NodeName;
use super::node_key::NodeKey;
use super::node_list::NodeList;
use super::sshsig::VerifyingKey;

/// So many are remembered of those that can't read any more.
const MOST: usize = 1000;

/// The keys that nodes had, the newest at the end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FormerKeys(Vec<FormerKey>);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct FormerKey {
    node: NodeName,
    key: NodeKey,
    /// The last epoch whose key was sealed to it; 0: the key is a node's again.
    #[serde(default)]
    epoch: u64,
}

impl FormerKeys {
    /// Notes what the last head's nodes had, of this epoch, and the next one's don't. A key that has another name now is still
    /// a node's.
    pub fn note<'a>(
        &mut self,
        before: impl IntoIterator<Item = &'a (NodeName, NodeKey)>,
        epoch: u64,
        now: &NodeList,
    ) {
        let gone =
            before.into_iter().filter(|(node, key)| now.get(node.as_ref()).is_none_or(|it| it.1 != *key));
        for (node, key) in gone {
            self.0.retain(|it| it.node != *node || it.key != *key);
            self.0.push(FormerKey { node: node.clone(), key: *key, epoch });
        }
        for it in self.0.iter_mut().filter(|it| now.name_of(&it.key).is_some()) {
            it.epoch = 0;
        }
        let newest = self.0.iter().map(|it| it.epoch).max().unwrap_or_default();
        let may_read = |it: &FormerKey| it.epoch == newest && newest > 0;
        let mut excess = self.0.iter().filter(|it| !may_read(it)).count().saturating_sub(MOST);
        self.0.retain(|it| {
            let is_kept = may_read(it) || excess == 0;
            excess -= usize::from(!is_kept);
            is_kept
        });
    }

    /// Who can read this epoch and is no node, each in a sentence. `is_listed`: whether a node has this name now.
    #[must_use]
    pub fn readers(&self, epoch: u64, is_listed: impl Fn(&str) -> bool) -> Vec<String> {
        let fact = |node: &NodeName| {
            if is_listed(node.as_ref()) {
                format!("the key that {node} had before can still read")
            } else {
                no_more(node.as_ref())
            }
        };
        let mut facts: Vec<String> =
            self.0.iter().filter(|it| it.epoch == epoch).map(|it| fact(&it.node)).collect();
        facts.sort();
        facts.dedup();
        facts
    }

    /// Whether a node had this name.
    #[must_use]
    pub fn knows(&self, node: &str) -> bool {
        self.0.iter().any(|it| it.node.as_ref() == node)
    }

    /// Whether a node of this name had this key.
    #[must_use]
    pub fn had(&self, node: &NodeName, key: &VerifyingKey) -> bool {
        self.0.iter().any(|it| it.node == *node && it.key.signing == *key)
    }
}

/// That a node was removed and can still read.
#[must_use]
pub fn no_more(node: &str) -> String {
    format!("{node} is no node any more, and can still read")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, byte: u8) -> (NodeName, NodeKey) {
        (name.parse().unwrap(), NodeKey { sealing: [byte; 32], signing: VerifyingKey([byte; 32]) })
    }

    fn list(nodes: &[(&str, u8)]) -> NodeList {
        NodeList::of(nodes.iter().map(|(name, byte)| member(name, *byte)))
    }

    /// What is noted when these lists follow each other in one epoch, as it is kept on disk.
    fn after(lists: &[&[(&str, u8)]]) -> FormerKeys {
        let mut former = FormerKeys::default();
        for pair in lists.windows(2) {
            former.note(list(pair[0]).iter(), 7, &list(pair[1]));
        }
        let kept = serde_json::to_string(&former).unwrap();
        assert_eq!(serde_json::from_str::<FormerKeys>(&kept).unwrap(), former);
        former
    }

    fn readers(lists: &[&[(&str, u8)]]) -> Vec<String> {
        let now = list(lists[lists.len() - 1]);
        after(lists).readers(7, |name| now.get(name).is_some())
    }

    #[test]
    fn who_is_among_the_nodes_is_none_that_was_removed() {
        let none: [String; 0] = [];
        let gone = ["lb2 is no node any more, and can still read"];
        assert_eq!(readers(&[&[("lb1", 1), ("lb2", 2)], &[("lb1", 1)]]), gone);
        assert_eq!(readers(&[&[("lb2", 2)], &[], &[("lb2", 2)]]), none, "put back");
        assert_eq!(readers(&[&[("lb2", 2)], &[("edge-2", 2)]]), none, "another name");
        assert_eq!(readers(&[&[("lb2", 2)], &[], &[("edge-2", 2)]]), none, "put back with another name");
        assert_eq!(readers(&[&[("lb1", 1), ("lb2", 2)], &[("lb1", 2), ("lb2", 1)]]), none, "swapped");
        assert_eq!(readers(&[&[("lb2", 2)], &[("lb2", 3)]]), ["the key that lb2 had before can still read"]);
        assert_eq!(readers(&[&[("lb2", 2)], &[("lb2", 3)], &[("lb2", 4)]]).len(), 1, "two of its keys");
        // After another name, and after it was put back, it is removed like any other.
        let gone_again = readers(&[&[("lb2", 2)], &[("edge-2", 2)], &[]]);
        assert_eq!(gone_again, ["edge-2 is no node any more, and can still read"]);
        assert_eq!(readers(&[&[("lb2", 2)], &[], &[("lb2", 2)], &[]]), gone);
    }

    #[test]
    fn nobody_reads_a_new_epoch_and_old_keys_are_known_all_the_same() {
        let mut former = after(&[&[("lb2", 2)], &[("lb2", 3)]]);
        former.note([], 8, &list(&[("lb2", 3)]));
        assert!(former.readers(8, |_| true).is_empty());
        // Who rotated and broke off before the head was there wrote nothing that isn't so.
        assert_eq!(former.readers(7, |_| true).len(), 1);
        let lb2 = member("lb2", 2).0;
        assert!(former.had(&lb2, &VerifyingKey([2; 32])));
        assert!(!former.had(&lb2, &VerifyingKey([3; 32])));
        assert!(!former.had(&member("lb1", 1).0, &VerifyingKey([2; 32])));
    }

    #[test]
    fn they_dont_become_more_and_more() {
        let mut former = FormerKeys::default();
        let name = |at: usize| format!("lb{at}");
        for at in 0..MOST + 10 {
            former.note(list(&[(&name(at), 1)]).iter(), 1 + at as u64, &list(&[]));
        }
        assert_eq!(former.0.len(), MOST + 1, "and one that can read");
        assert_eq!(former.0.last().unwrap().node.as_ref(), name(MOST + 9));
    }
}
