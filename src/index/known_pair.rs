//! What is known of a pair that was read, and the bytes that it is kept as: for who publishes pairs and deploys none.
//!
//! ```text
//! "haproxy-certs pairs 1\n"  circumstances: 32  began: i128  ahead: i128
//! lineage  key: look  chain: look  content: 32          as often as there are pairs
//! digest: 32
//! ```
//!
//! It is a cache: whatever is damaged is nothing, and nothing is allocated by a number that was read.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::entry::{Look, Stamp};
use super::format::{read_look, read_text, write_look, write_text};
use crate::certified_key::sha256;
use crate::sys::cursor::Cursor;

const MAGIC: &[u8] = b"haproxy-certs pairs 1\n";

/// So many bytes of SHA-256 stand at the end.
const DIGEST: usize = 32;

/// A pair that was read, and proved then or before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownPair {
    /// Its lineage.
    pub lineage: String,
    /// What its key looked like.
    pub key: Look,
    /// What its chain looked like.
    pub chain: Look,
    /// A digest of both.
    pub content: [u8; 32],
}

/// Writes what is known; a name that is too long is left out.
#[must_use]
pub fn write<'a>(stamp: &Stamp, pairs: impl Iterator<Item = &'a KnownPair>) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(stamp.circumstances);
    bytes.extend(stamp.began.to_le_bytes());
    bytes.extend(stamp.ahead.to_le_bytes());
    for pair in pairs {
        if write_text(&mut bytes, &pair.lineage).is_some() {
            write_look(&mut bytes, &pair.key);
            write_look(&mut bytes, &pair.chain);
            bytes.extend(pair.content);
        }
    }
    let digest = sha256(&bytes);
    bytes.extend(digest);
    bytes
}

/// Reads it again; `None`: it is damaged, or of another version.
#[must_use]
pub fn read(bytes: &[u8]) -> Option<(Stamp, Vec<KnownPair>)> {
    let (body, digest) = bytes.split_at_checked(bytes.len().checked_sub(DIGEST)?)?;
    if sha256(body) != digest {
        return None;
    }
    let mut rest = Cursor(body);
    if rest.take(MAGIC.len())? != MAGIC {
        return None;
    }
    let stamp = Stamp { circumstances: rest.array()?, began: rest.i128()?, ahead: rest.i128()? };
    let mut pairs = Vec::new();
    while !rest.0.is_empty() {
        pairs.push(KnownPair {
            lineage: read_text(&mut rest)?,
            key: read_look(&mut rest)?,
            chain: read_look(&mut rest)?,
            content: rest.array()?,
        });
    }
    Some((stamp, pairs))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> (Stamp, Vec<KnownPair>) {
        let look = |inode| Look {
            device: 1,
            inode,
            size: 3,
            mode: 0o100_400,
            uid: 4,
            gid: 5,
            modified: -6,
            changed: i128::from(i64::MAX),
        };
        let pair = |lineage: &str, number| KnownPair {
            lineage: lineage.into(),
            key: look(number),
            chain: look(number + 1),
            content: [9; 32],
        };
        (Stamp { circumstances: [7; 32], began: 1, ahead: -2 }, vec![pair("a.test", 1), pair("b.test", 5)])
    }

    #[test]
    fn what_is_written_is_read_again() {
        let (stamp, pairs) = whole();
        assert_eq!(read(&write(&stamp, pairs.iter())), Some((stamp, pairs)));
        assert_eq!(read(&write(&stamp, [].iter())), Some((stamp, Vec::new())));
    }

    #[test]
    fn what_is_damaged_is_nothing() {
        let (stamp, pairs) = whole();
        let bytes = write(&stamp, pairs.iter());
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(read(&damaged), None, "{at}");
            assert_eq!(read(&bytes[..at]), None, "{at}");
        }
        // Whole, and not what was written.
        for lie in [&b"haproxy-certs pairs 2\n"[..], b"", &bytes[..bytes.len() - DIGEST - 1]] {
            assert_eq!(read(&[lie, &sha256(lie)].concat()), None);
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_makes_it_panic(bytes: Vec<u8>) {
            let _ = read(&bytes);
            let lie = [MAGIC, &[0; 64], &bytes].concat();
            let _ = read(&[&lie[..], &sha256(&lie)].concat());
        }
    }
}
