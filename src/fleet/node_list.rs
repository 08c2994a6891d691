//! The nodes of a fleet: who may read, and whose reports are whose. A value of its own among the pages, in plain text, which
//! the head names by its hash: it changes seldom, and the head is read by everybody at every renewal.
//!
//! ```text
//! haproxy-certs fleet nodes 1
//! node NAME KEY                  as often as there are nodes, by name
//! ```

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt::Write as _;

use super::name::NodeName;
use super::node_key::NodeKey;
use super::page;
use super::signed_text::WordLines;
use crate::certified_key::sha256;

const FIRST_LINE: &str = "haproxy-certs fleet nodes 1";

/// A longer list isn't read: some four thousand nodes.
pub const MAX_BYTES: usize = page::MAX_BYTES;

/// The nodes, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeList(Vec<(NodeName, NodeKey)>);

/// Why bytes are no list of nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is no list of nodes")]
pub struct BadNodeList;

impl NodeList {
    /// Of these nodes; of two with one name the last one counts.
    #[must_use]
    pub fn of(nodes: impl IntoIterator<Item = (NodeName, NodeKey)>) -> Self {
        let by_name: std::collections::BTreeMap<NodeName, NodeKey> = nodes.into_iter().collect();
        Self(by_name.into_iter().collect())
    }

    /// The value to store.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut text = format!("{FIRST_LINE}\n");
        for (name, key) in &self.0 {
            // Writing to a String never fails.
            let _ = writeln!(text, "node {name} {key}");
        }
        text.into_bytes()
    }

    /// What the head names it by.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        sha256(&self.to_bytes())
    }

    /// Reads it again.
    ///
    /// # Errors
    /// It is none, or too long.
    pub fn read(bytes: &[u8]) -> Result<Self, BadNodeList> {
        let text = str::from_utf8(bytes).ok().filter(|text| text.len() <= MAX_BYTES).ok_or(BadNodeList)?;
        let lines = WordLines::of(text, FIRST_LINE).map_err(|_| BadNodeList)?;
        let nodes = lines.rest("node").map(|line| line.ok().and_then(member));
        let list = Self(nodes.collect::<Option<_>>().ok_or(BadNodeList)?);
        let is_sorted = list.0.is_sorted_by(|(one, _), (two, _)| one < two);
        if is_sorted && list.to_bytes() == bytes { Ok(list) } else { Err(BadNodeList) }
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &(NodeName, NodeKey)> {
        self.0.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The name of the node with this key.
    #[must_use]
    pub fn name_of(&self, key: &NodeKey) -> Option<&NodeName> {
        self.0.iter().find(|(_, member)| member == key).map(|(name, _)| name)
    }

    /// The node of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&(NodeName, NodeKey)> {
        self.0.iter().find(|(node, _)| node.as_ref() == name)
    }
}

/// A node's name and key.
fn member(line: &str) -> Option<(NodeName, NodeKey)> {
    let (name, key) = line.split_once(' ')?;
    Some((name.parse().ok()?, key.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::super::sshsig::VerifyingKey;
    use super::*;

    fn list(names: &[&str]) -> NodeList {
        let node = |(at, name): (usize, &&str)| {
            let byte = u8::try_from(at).unwrap();
            (name.parse().unwrap(), NodeKey { sealing: [byte; 32], signing: VerifyingKey([byte; 32]) })
        };
        NodeList::of(names.iter().enumerate().map(node))
    }

    #[test]
    fn what_is_written_is_read_again() {
        for names in [&[][..], &["lb1"], &["lb2", "lb1", "lb10"]] {
            let list = list(names);
            assert_eq!(list.len(), names.len());
            assert_eq!(NodeList::read(&list.to_bytes()), Ok(list));
        }
        let list = list(&["lb2", "lb1"]);
        let (name, key) = list.get("lb1").unwrap();
        assert_eq!((list.name_of(key), list.get("lb3")), (Some(name), None));
        let many: Vec<String> = (0..1000).map(|number| format!("lb{number}.example.org")).collect();
        let many = self::list(&many[..250].iter().map(String::as_str).collect::<Vec<_>>());
        assert!(many.to_bytes().len() * 4 < MAX_BYTES);
    }

    #[test]
    fn what_this_program_would_not_have_written_is_none() {
        let whole = String::from_utf8(list(&["lb1", "lb2"]).to_bytes()).unwrap();
        let line = whole.lines().nth(1).unwrap();
        for lie in [
            String::new(),
            whole.replace("nodes 1", "nodes 2"),
            whole.replace("lb1", "lb3"),
            whole.replace("lb2", "lb1"),
            whole.replace("lb1", "../lb1"),
            whole.replace("hcn1-", "hcn1-A"),
            whole.trim_end().to_owned(),
            format!("{whole}\n"),
            format!("{whole}page 1\n"),
            format!("{whole}{line}\n"),
        ] {
            assert_eq!(NodeList::read(lie.as_bytes()), Err(BadNodeList), "{lie}");
        }
        assert_eq!(NodeList::read(&vec![b'x'; MAX_BYTES + 1]), Err(BadNodeList));
    }

    proptest::proptest! {
        #[test]
        fn nothing_makes_it_panic(bytes: Vec<u8>, text: String) {
            proptest::prop_assert!(NodeList::read(&bytes).is_err());
            let lie = format!("{FIRST_LINE}\n{text}\n");
            proptest::prop_assert!(NodeList::read(lie.as_bytes()).is_err());
        }
    }
}
