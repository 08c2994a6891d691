//! The keys of a fleet's values, and how large each may be.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;

use crate::certified_key::hex;
use crate::fleet::name::NodeName;
use crate::fleet::signed_text::unhex;
use crate::fleet::{epoch, head, object, page, report};

/// A key in the store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StoreKey {
    /// The one value that changes.
    Head,
    /// A page, by the SHA-256 of its bytes.
    Page([u8; 32]),
    /// An object, by the SHA-256 of its bytes.
    Object([u8; 32]),
    /// An epoch's key, sealed to a node.
    EpochKey {
        /// The epoch's number.
        epoch: u64,
        /// The node.
        node: NodeName,
    },
    /// A node's report.
    Report(NodeName),
}

/// Keys of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreFolder {
    /// All pages.
    Pages,
    /// All objects.
    Objects,
    /// All sealed keys, of all epochs.
    EpochKeys,
    /// All reports.
    Reports,
}

impl StoreFolder {
    /// What its keys begin with.
    #[must_use]
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Pages => "page/",
            Self::Objects => "object/",
            Self::EpochKeys => "key/",
            Self::Reports => "report/",
        }
    }
}

impl fmt::Display for StoreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head => f.write_str("head"),
            Self::Page(hash) => write!(f, "page/{}", hex(hash)),
            Self::Object(hash) => write!(f, "object/{}", hex(hash)),
            Self::EpochKey { epoch, node } => write!(f, "key/{epoch}/{node}"),
            Self::Report(node) => write!(f, "report/{node}"),
        }
    }
}

impl StoreKey {
    /// The key of this path below the fleet's; `None`: it is none of ours.
    #[must_use]
    pub fn of_path(path: &str) -> Option<Self> {
        if path == "head" {
            return Some(Self::Head);
        }
        let (folder, name) = path.split_once('/')?;
        let key = match folder {
            "page" => Self::Page(unhex(name)?),
            "object" => Self::Object(unhex(name)?),
            "report" => Self::Report(name.parse().ok()?),
            "key" => {
                let (epoch, node) = name.split_once('/')?;
                Self::EpochKey { epoch: epoch.parse().ok()?, node: node.parse().ok()? }
            }
            _ => return None,
        };
        // One key has one path: "+1" and "01" are no epochs.
        (key.to_string() == path).then_some(key)
    }

    /// The most that its value may have, in bytes.
    #[must_use]
    pub fn max_bytes(&self) -> usize {
        match self {
            Self::Head => head::MAX_BYTES,
            Self::Page(_) => page::MAX_BYTES,
            Self::Object(_) => object::MAX_BYTES,
            Self::EpochKey { .. } => epoch::SEALED_BYTES,
            Self::Report(_) => report::MAX_BYTES,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_one_path() {
        let node: NodeName = "lb1.example.org".parse().unwrap();
        for key in [
            StoreKey::Head,
            StoreKey::Page([0xab; 32]),
            StoreKey::Object([1; 32]),
            StoreKey::EpochKey { epoch: u64::MAX, node: node.clone() },
            StoreKey::Report(node),
        ] {
            assert_eq!(StoreKey::of_path(&key.to_string()), Some(key));
        }
        let hash = "AB".repeat(32);
        for path in [
            "",
            "head/",
            "/head",
            "page/",
            &format!("page/{hash}"),
            "page/abc",
            "report/../head",
            "report/.lb1.x7Gh3k",
            "report/lb1/x",
            "key/1",
            "key/01/lb1",
            "key/+1/lb1",
            "key/1/lb1/x",
            "key/99999999999999999999/lb1",
            "other/lb1",
        ] {
            assert_eq!(StoreKey::of_path(path), None, "{path}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_path_makes_it_panic(path: String) {
            for folder in ["", "page/", "object/", "key/", "report/"] {
                let _ = StoreKey::of_path(&format!("{folder}{path}"));
            }
        }
    }
}
