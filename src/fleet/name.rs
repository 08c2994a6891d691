//! Names of fleets and nodes: they are part of keys in the store and of file names.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A longer name isn't one.
const MAX_BYTES: usize = 63;

/// A name that can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a name has 1 to {MAX_BYTES} characters of A-Z, a-z, 0-9, dot, underscore and hyphen, a letter or digit first"
)]
pub struct BadName;

/// The name of a fleet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FleetName(String);

/// The name of a node: a host that reads what the fleet's publisher writes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(String);

impl NodeName {
    /// The name under which a publisher seals each epoch key to itself: no node may have it.
    #[must_use]
    pub fn publisher() -> Self {
        Self("publisher".into())
    }
}

fn checked(text: &str) -> Result<String, BadName> {
    let is_first = text.starts_with(|first: char| first.is_ascii_alphanumeric());
    let fits = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if is_first && fits && text.len() <= MAX_BYTES { Ok(text.to_owned()) } else { Err(BadName) }
}

macro_rules! is_a_name {
    ($name:ident) => {
        impl FromStr for $name {
            type Err = BadName;

            fn from_str(text: &str) -> Result<Self, BadName> {
                checked(text).map(Self)
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadName;

            fn try_from(text: String) -> Result<Self, BadName> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

is_a_name!(FleetName);
is_a_name!(NodeName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_leave_its_folder_is_no_name() {
        for good in ["a", "edge", "lb1.example.org", "A_b-9", &"x".repeat(63)] {
            assert_eq!(good.parse::<NodeName>().unwrap().as_ref(), good);
        }
        for bad in ["", ".", "..", ".a", "-a", "a/b", "a b", "ä", "a\n", &"x".repeat(64)] {
            assert_eq!(bad.parse::<FleetName>(), Err(BadName), "{bad:?}");
        }
    }
}
