//! A node's public half, in one word that can be copied from host to host: what is sealed to it, and who signs its reports.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::sshsig::VerifyingKey;
use crate::certified_key::sha256;

/// What the word begins with: the first version.
const PREFIX: &str = "hcn1-";

/// So many bytes of a SHA-256 stand at the end, against typing errors.
const CHECK: usize = 4;

/// A word that is no node's key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a node's key begins with {PREFIX} and is what `fleet join` printed, whole")]
pub struct BadNodeKey;

/// The public keys of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeKey {
    /// X25519: epoch keys are sealed to it.
    pub sealing: [u8; 32],
    /// Ed25519: its signatures are checked with it.
    pub signing: VerifyingKey,
}

impl fmt::Display for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [self.sealing, self.signing.0].concat();
        let check = sha256(&bytes);
        bytes.extend(check.iter().take(CHECK));
        write!(f, "{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl FromStr for NodeKey {
    type Err = BadNodeKey;

    fn from_str(word: &str) -> Result<Self, BadNodeKey> {
        let base64 =
            word.trim().strip_prefix(PREFIX).filter(|base64| base64.len() < 128).ok_or(BadNodeKey)?;
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(base64).map_err(|_| BadNodeKey)?;
        let (keys, check) = bytes.split_at_checked(64).ok_or(BadNodeKey)?;
        let (sealing, signing) = keys.split_first_chunk().ok_or(BadNodeKey)?;
        if sha256(keys).get(..CHECK) != Some(check) {
            return Err(BadNodeKey);
        }
        Ok(Self { sealing: *sealing, signing: VerifyingKey(signing.try_into().map_err(|_| BadNodeKey)?) })
    }
}

impl TryFrom<String> for NodeKey {
    type Error = BadNodeKey;

    fn try_from(word: String) -> Result<Self, BadNodeKey> {
        word.parse()
    }
}

impl From<NodeKey> for String {
    fn from(key: NodeKey) -> Self {
        key.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_with_a_wrong_letter_is_no_key() {
        let key = NodeKey { sealing: [1; 32], signing: VerifyingKey([2; 32]) };
        let word = key.to_string();
        assert_eq!(word.parse(), Ok(key));
        assert_eq!(format!(" {word}\n").parse(), Ok(key));
        for at in 0..word.len() {
            let mut typed = word.clone().into_bytes();
            typed[at] = if typed[at] == b'x' { b'y' } else { b'x' };
            assert_eq!(String::from_utf8(typed).unwrap().parse::<NodeKey>(), Err(BadNodeKey), "{at}");
            assert_eq!(word[..at].parse::<NodeKey>(), Err(BadNodeKey));
        }
    }

    proptest::proptest! {
        #[test]
        fn no_word_makes_it_panic(word: String) {
            let _ = word.parse::<NodeKey>();
            let _ = format!("{PREFIX}{word}").parse::<NodeKey>();
        }
    }
}
