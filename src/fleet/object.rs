//! Objects: a lineage's private key and chain, sealed, so that only the fleet's nodes can read them.
//!
//! Inside are both as PEM. A node proves again that they belong together before it deploys them.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;

use zeroize::Zeroizing;

use super::epoch::EpochKey;
use super::fields::{bytes, joined};
use super::name::FleetName;
use super::seal::{Context, around};
use super::unsealed::Unsealed;
use crate::certified_key::sha256;
use crate::sys::cursor::Cursor;

/// A larger object isn't read.
pub const MAX_BYTES: usize = MAX_TEXT + around(KIND);

/// Much more than the longest keys and chains that CAs issue.
const MAX_TEXT: usize = 512 << 10;

const KIND: &[u8] = b"haproxy-certs fleet object 1\n";

/// A private key and its chain, as [`CertifiedKey::prove`](crate::certified_key::CertifiedKey::prove) takes them.
#[derive(Clone, PartialEq, Eq)]
pub struct PlainPair {
    /// The key, as PEM.
    pub key: Zeroizing<Vec<u8>>,
    /// The chain, as PEM, leaf first: nothing keeps a key out of its file.
    pub chain: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for PlainPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[private key]")
    }
}

impl PlainPair {
    /// A hash of both, by which a publisher sees that nothing has changed. It is published only on sealed pages.
    #[must_use]
    pub fn content(&self) -> [u8; 32] {
        let fields = joined(&[KIND, &self.key, &self.chain]);
        fields.map_or([0; 32], |fields| sha256(&fields))
    }
}

/// Seals the pair of a lineage.
///
/// # Errors
/// It is too large.
pub fn seal(pair: &PlainPair, lineage: &str, fleet: &FleetName, key: &EpochKey) -> Result<Vec<u8>, Unsealed> {
    let text = joined(&[&pair.key, &pair.chain]).ok_or(Unsealed::TooLarge)?;
    context(fleet, lineage).seal(&text, key)
}

/// Opens the pair of a lineage.
///
/// # Errors
/// It was changed, or belongs to another key, fleet, epoch or lineage.
pub fn open(sealed: &[u8], lineage: &str, fleet: &FleetName, key: &EpochKey) -> Result<PlainPair, Unsealed> {
    let text = context(fleet, lineage).open(sealed, key)?;
    read(&text).ok_or(Unsealed::Malformed)
}

fn read(text: &[u8]) -> Option<PlainPair> {
    let mut rest = Cursor(text);
    let key = Zeroizing::new(bytes(&mut rest)?.to_vec());
    let chain = Zeroizing::new(bytes(&mut rest)?.to_vec());
    rest.end()?;
    Some(PlainPair { key, chain })
}

fn context<'a>(fleet: &'a FleetName, lineage: &'a str) -> Context<'a> {
    Context { kind: KIND, fleet, name: lineage.as_bytes(), at_most: MAX_TEXT }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fleet() -> FleetName {
        "edge".parse().unwrap()
    }

    fn pair() -> PlainPair {
        PlainPair { key: Zeroizing::new(b"a key".to_vec()), chain: Zeroizing::new(b"a chain".to_vec()) }
    }

    #[test]
    fn what_is_sealed_is_opened_again_and_only_where_it_belongs() {
        let key = EpochKey::generate(4).unwrap();
        let sealed = seal(&pair(), "a.test", &fleet(), &key).unwrap();
        assert_eq!(open(&sealed, "a.test", &fleet(), &key), Ok(pair()));
        assert_eq!(open(&sealed, "b.test", &fleet(), &key), Err(Unsealed::Wrong));
        assert_eq!(open(&sealed, "a.test", &"core".parse().unwrap(), &key), Err(Unsealed::Wrong));
        assert_eq!(open(&sealed, "a.test", &fleet(), &EpochKey::generate(4).unwrap()), Err(Unsealed::Wrong));
        let readable = sealed.windows(5).any(|window| window == b"a key" || window == b"chain");
        assert!(!readable);
        assert_ne!(sealed, seal(&pair(), "a.test", &fleet(), &key).unwrap(), "each has a salt of its own");
        assert_eq!(sealed.len(), KIND.len() + 48 + 8 + 12);
        assert_eq!(format!("{:?}", pair()), "[private key]");
    }

    #[test]
    fn no_bit_can_be_changed() {
        let key = EpochKey::generate(4).unwrap();
        let sealed = seal(&pair(), "a.test", &fleet(), &key).unwrap();
        for at in 0..sealed.len() {
            for bit in 0..8 {
                let mut changed = sealed.clone();
                changed[at] ^= 1 << bit;
                assert!(open(&changed, "a.test", &fleet(), &key).is_err());
            }
            assert!(open(&sealed[..at], "a.test", &fleet(), &key).is_err());
        }
        assert!(open(&[&sealed[..], b"x"].concat(), "a.test", &fleet(), &key).is_err());
    }

    #[test]
    fn a_content_is_that_of_both_parts() {
        let moved =
            PlainPair { key: Zeroizing::new(b"a keya".to_vec()), chain: Zeroizing::new(b" chain".to_vec()) };
        assert_ne!(pair().content(), moved.content());
        assert_eq!(pair().content(), pair().content());
    }

    #[test]
    fn what_is_too_large_is_not_sealed() {
        let key = EpochKey::generate(4).unwrap();
        let large = PlainPair { chain: Zeroizing::new(vec![b'x'; MAX_TEXT]), ..pair() };
        assert_eq!(seal(&large, "a.test", &fleet(), &key), Err(Unsealed::TooLarge));
        let largest = PlainPair { chain: Zeroizing::new(vec![b'x'; MAX_TEXT - 13]), ..pair() };
        let sealed = seal(&largest, "a.test", &fleet(), &key).unwrap();
        assert_eq!(sealed.len(), MAX_BYTES);
        assert_eq!(open(&sealed, "a.test", &fleet(), &key), Ok(largest));
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(bytes: Vec<u8>, length: u32) {
            let key = EpochKey::generate(4).unwrap();
            prop_assert!(open(&bytes, "a", &fleet(), &key).is_err());
            prop_assert!(open(&[KIND, &bytes].concat(), "a", &fleet(), &key).is_err());
            let _ = read(&bytes);
            let _ = read(&[&length.to_le_bytes()[..], &bytes].concat());
        }
    }
}
