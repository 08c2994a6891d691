//! Digests, and how they are written.

use aws_lc_rs::digest::{self, SHA1_FOR_LEGACY_USE_ONLY, SHA256};

/// The SHA-256 of `bytes`.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    sized(digest::digest(&SHA256, bytes).as_ref())
}

/// The SHA-1 of `bytes`: HAProxy shows no other fingerprint.
pub(super) fn sha1(bytes: &[u8]) -> [u8; 20] {
    sized(digest::digest(&SHA1_FOR_LEGACY_USE_ONLY, bytes).as_ref())
}

fn sized<const N: usize>(digest: &[u8]) -> [u8; N] {
    let mut sized = [0; N];
    sized.copy_from_slice(digest);
    sized
}

/// `bytes` in lower-case hex.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or_default();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use super::{hex, sha1, sha256};

    #[test]
    fn known_answers() {
        assert_eq!(hex(&sha256(b"abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(hex(&sha1(b"abc")), "a9993e364706816aba3e25717850c26c9cd0d89d");
    }
}
