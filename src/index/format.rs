//! The index as bytes: a header and one entry for each lineage, each with a digest of its own.
//!
//! ```text
//! "haproxy-certs index\n"  version: u32  header  digest
//! length: u32  entry  digest          as often as there are entries
//! ```
//!
//! Numbers are little-endian, texts have their length before them. What can't be understood isn't an entry, and what comes
//! after a damaged length isn't either. Nothing is allocated by a number that was read.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::ops::Range;
use std::sync::Arc;

use super::entry::{Look, Looks, Proven, Stamp};
use crate::certified_key::{ChainState, KeyType, Leaf, sha256};
use crate::plan::situation::Candidate;
use crate::sys::cursor::Cursor;

/// More bytes than any index has; a longer file isn't read.
pub const MAX_BYTES: u64 = 1 << 29;

const MAGIC: &[u8] = b"haproxy-certs index\n";

const VERSION: u32 = 3;

/// Bytes of an entry, at most.
const LONGEST: usize = 1 << 21;

/// So many bytes of a SHA-256 stand behind what it is of.
const DIGEST: usize = 8;

/// Writes the header.
#[must_use]
pub fn header(stamp: &Stamp) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend(stamp.circumstances);
    bytes.extend(stamp.began.to_le_bytes());
    bytes.extend(stamp.ahead.to_le_bytes());
    let digest = digest(&bytes);
    bytes.extend(digest);
    bytes
}

/// Writes an entry behind what is there; an entry with a part that is too long is left out.
pub fn push(bytes: &mut Vec<u8>, entry: &Proven) {
    let mut body = Vec::with_capacity(512);
    if write(&mut body, entry).is_some() && body.len() < LONGEST {
        push_body(bytes, &body);
    }
}

fn push_body(bytes: &mut Vec<u8>, body: &[u8]) {
    let Ok(length) = u32::try_from(body.len()) else { return };
    bytes.extend(length.to_le_bytes());
    bytes.extend(body);
    bytes.extend(digest(body));
}

/// How many bytes stand before an entry: its length.
pub const LENGTH_BYTES: u64 = 4;

/// How many bytes [`header`] gives.
pub const HEADER_BYTES: usize = MAGIC.len() + 4 + 32 + 16 + 16 + DIGEST;

/// Reads the header, with which the index begins; `None`: it is no index of this version.
#[must_use]
pub fn stamp(bytes: &[u8]) -> Option<Stamp> {
    let mut rest = Cursor(bytes);
    if rest.take(MAGIC.len())? != MAGIC || rest.u32()? != VERSION {
        return None;
    }
    let stamp = Stamp { circumstances: rest.array()?, began: rest.i128()?, ahead: rest.i128()? };
    let header = bytes.get(..bytes.len() - rest.0.len())?;
    (rest.array::<DIGEST>()? == digest(header)).then_some(stamp)
}

/// Finds where the whole entries are in what follows the header, not yet looked at.
#[must_use]
pub fn entries(bytes: &[u8]) -> Vec<Range<usize>> {
    let mut rest = Cursor(bytes);
    let mut entries = Vec::new();
    while let Some(entry) = whole_entry(&mut rest) {
        let end = bytes.len() - rest.0.len();
        entries.push(end - entry.len()..end);
    }
    entries
}

/// The next entry, with its digest.
fn whole_entry<'a>(from: &mut Cursor<'a>) -> Option<&'a [u8]> {
    let length = usize::try_from(from.u32()?).ok()?;
    from.take(length.checked_add(DIGEST)?)
}

/// Reads an entry; `None`: it is damaged. `bytes` end with its digest.
#[must_use]
pub fn entry(bytes: &[u8]) -> Option<Proven> {
    let body = body(bytes)?;
    if bytes.get(body.len()..)? != digest(body) {
        return None;
    }
    let mut rest = Cursor(body);
    let entry = read(&mut rest)?;
    rest.end()?;
    Some(entry)
}

/// An entry's bytes without its digest.
fn body(bytes: &[u8]) -> Option<&[u8]> {
    bytes.get(..bytes.len().checked_sub(DIGEST)?)
}

fn digest(bytes: &[u8]) -> [u8; DIGEST] {
    let mut digest = [0; DIGEST];
    digest.iter_mut().zip(sha256(bytes)).for_each(|(to, byte)| *to = byte);
    digest
}

fn write(to: &mut Vec<u8>, entry: &Proven) -> Option<()> {
    let Proven { lineage, looks, proved, candidate } = entry;
    write_text(to, lineage)?;
    for look in [looks.key, looks.chain, looks.site] {
        write_look(to, &look);
    }
    to.extend(proved.to_le_bytes());
    to.extend(candidate.sha256);
    let chain = match candidate.chain {
        ChainState::Complete => 0,
        ChainState::Incomplete => 1,
        ChainState::Disordered { certificate } => certificate.checked_add(2)?,
    };
    to.extend(chain.to_le_bytes());
    to.extend([u8::from(candidate.staging), u8::from(candidate.loose_permissions)]);
    write_leaf(to, &candidate.leaf)
}

pub(super) fn write_look(to: &mut Vec<u8>, look: &Look) {
    for number in [look.device, look.inode, look.size] {
        to.extend(number.to_le_bytes());
    }
    for number in [look.mode, look.uid, look.gid] {
        to.extend(number.to_le_bytes());
    }
    to.extend(look.modified.to_le_bytes());
    to.extend(look.changed.to_le_bytes());
}

fn read(from: &mut Cursor<'_>) -> Option<Proven> {
    let lineage = read_text(from)?;
    let looks = Looks { key: read_look(from)?, chain: read_look(from)?, site: read_look(from)? };
    let proved = from.i64()?;
    let sha256 = from.array()?;
    let chain = match from.u32()? {
        0 => ChainState::Complete,
        1 => ChainState::Incomplete,
        number => ChainState::Disordered { certificate: number - 2 },
    };
    let (staging, loose_permissions) = (from.flag()?, from.flag()?);
    let leaf = Arc::new(read_leaf(from)?);
    Some(Proven {
        lineage,
        looks,
        proved,
        candidate: Candidate { sha256, leaf, chain, staging, loose_permissions },
    })
}

/// A name is written once, with whether it is a DNS name.
fn write_leaf(to: &mut Vec<u8>, leaf: &Leaf) -> Option<()> {
    to.extend(u32::try_from(leaf.names.len()).ok()?.to_le_bytes());
    for (place, name) in leaf.names.iter().enumerate() {
        to.push(u8::from(!leaf.addresses.contains(&place)));
        write_text(to, name)?;
    }
    to.extend(u32::try_from(leaf.common_names.len()).ok()?.to_le_bytes());
    for name in &leaf.common_names {
        write_text(to, name)?;
    }
    let (kind, bits, oid) = match &leaf.key_type {
        KeyType::EcdsaP256 => (0, 0, ""),
        KeyType::EcdsaP384 => (1, 0, ""),
        KeyType::EcdsaP521 => (2, 0, ""),
        KeyType::Ed25519 => (3, 0, ""),
        KeyType::Rsa(bits) => (4, *bits, ""),
        KeyType::OtherEcdsa(oid) => (5, 0, oid.as_str()),
        KeyType::Other(oid) => (6, 0, oid.as_str()),
    };
    to.push(kind);
    to.extend(u32::to_le_bytes(bits));
    write_text(to, oid)?;
    write_text(to, &leaf.serial)?;
    to.extend(leaf.sha256);
    to.extend(leaf.sha1);
    to.extend(leaf.not_before.to_le_bytes());
    to.extend(leaf.not_after.to_le_bytes());
    to.extend([leaf.is_self_signed, leaf.issuer_is_staging, leaf.demands_ocsp].map(u8::from));
    Some(())
}

fn read_leaf(from: &mut Cursor<'_>) -> Option<Leaf> {
    let (mut names, mut addresses, mut common_names) = (Vec::new(), Vec::new(), Vec::new());
    for place in 0..usize::try_from(from.u32()?).ok()? {
        if !from.flag()? {
            addresses.push(place);
        }
        names.push(read_text(from)?);
    }
    for _ in 0..from.u32()? {
        common_names.push(read_text(from)?);
    }
    // Most have a few: no room for more.
    names.shrink_to_fit();
    common_names.shrink_to_fit();
    let (kind, bits, oid) = (from.array::<1>()?, from.u32()?, read_text(from)?);
    let key_type = match kind {
        [0] => KeyType::EcdsaP256,
        [1] => KeyType::EcdsaP384,
        [2] => KeyType::EcdsaP521,
        [3] => KeyType::Ed25519,
        [4] => KeyType::Rsa(bits),
        [5] => KeyType::OtherEcdsa(oid),
        [6] => KeyType::Other(oid),
        _ => return None,
    };
    Some(Leaf {
        names,
        addresses,
        common_names,
        key_type,
        serial: read_text(from)?,
        sha256: from.array()?,
        sha1: from.array()?,
        not_before: from.i64()?,
        not_after: from.i64()?,
        is_self_signed: from.flag()?,
        issuer_is_staging: from.flag()?,
        demands_ocsp: from.flag()?,
    })
}

pub(super) fn write_text(to: &mut Vec<u8>, text: &str) -> Option<()> {
    to.extend(u16::try_from(text.len()).ok()?.to_le_bytes());
    to.extend(text.as_bytes());
    Some(())
}

pub(super) fn read_text(from: &mut Cursor<'_>) -> Option<String> {
    let length = from.u16()?;
    String::from_utf8(from.take(usize::from(length))?.to_vec()).ok()
}

pub(super) fn read_look(from: &mut Cursor<'_>) -> Option<Look> {
    let (device, inode, size) = (from.u64()?, from.u64()?, from.u64()?);
    let (mode, uid, gid) = (from.u32()?, from.u32()?, from.u32()?);
    Some(Look { device, inode, size, mode, uid, gid, modified: from.i128()?, changed: from.i128()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp { circumstances: [9; 32], began: 1, ahead: -2 };

    fn whole() -> Vec<u8> {
        let look = Look {
            device: 1,
            inode: u64::MAX,
            size: 3,
            mode: 0o100_400,
            uid: 4,
            gid: 5,
            modified: -6,
            changed: i128::from(i64::MAX),
        };
        let leaf = Leaf {
            names: vec!["a.test".into(), "10.0.0.1".into(), "*.b.test".into()],
            addresses: vec![1],
            common_names: vec!["a".into()],
            key_type: KeyType::Rsa(2048),
            serial: "0A".into(),
            sha256: [1; 32],
            sha1: [2; 20],
            not_before: -1,
            not_after: i64::MAX,
            is_self_signed: true,
            issuer_is_staging: false,
            demands_ocsp: true,
        };
        let entry = |number: u8, key_type: KeyType, chain| Proven {
            lineage: format!("site-{number}"),
            looks: Looks { key: look, chain: look, site: Look { inode: number.into(), ..look } },
            proved: 7,
            candidate: Candidate {
                sha256: [number; 32],
                leaf: Arc::new(Leaf { key_type, ..leaf.clone() }),
                chain,
                staging: true,
                loose_permissions: false,
            },
        };
        let mut bytes = header(&STAMP);
        push(&mut bytes, &entry(1, KeyType::Ed25519, ChainState::Complete));
        push(&mut bytes, &entry(2, KeyType::Rsa(4096), ChainState::Disordered { certificate: 3 }));
        push(&mut bytes, &entry(3, KeyType::Other("1.2.3".into()), ChainState::Incomplete));
        bytes
    }

    fn good_entries(bytes: &[u8]) -> Vec<Proven> {
        let rest = bytes.get(HEADER_BYTES..).filter(|_| stamp(bytes).is_some()).unwrap_or_default();
        entries(rest).into_iter().filter_map(|span| entry(&rest[span])).collect()
    }

    #[test]
    fn what_is_written_is_read_again() {
        let bytes = whole();
        let mut again = header(&stamp(&bytes).unwrap());
        assert_eq!(again.len(), HEADER_BYTES);
        let entries = good_entries(&bytes);
        for entry in &entries {
            push(&mut again, entry);
        }
        assert_eq!((again, entries.len()), (bytes, 3));
    }

    #[test]
    fn whatever_is_damaged_is_left_out() {
        let bytes = whole();
        let good = good_entries(&bytes);
        let is_among = |found: Vec<Proven>| found.iter().all(|entry| good.contains(entry));
        for at in 0..bytes.len() {
            for flip in [1, 0x80, 0xff] {
                let mut damaged = bytes.clone();
                damaged[at] ^= flip;
                let found = good_entries(&damaged);
                assert!(found.len() < 3 && is_among(found), "{at} {flip}");
            }
            let found = good_entries(&bytes[..at]);
            assert!(found.len() < 3 && is_among(found), "{at}");
        }
        let mut more = bytes.clone();
        more.extend(u32::MAX.to_le_bytes());
        assert_eq!(good_entries(&more), good);
    }

    #[test]
    fn bytes_that_lie_with_the_right_digest_are_read_without_a_panic() {
        let bytes = whole();
        let rest = &bytes[HEADER_BYTES..];
        let body = body(&rest[entries(rest)[1].clone()]).unwrap();
        for at in 0..body.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut lie = body.to_vec();
                lie[at] = value;
                let digest = digest(&lie);
                lie.extend(digest);
                let _ = entry(&lie);
            }
        }
    }
}
