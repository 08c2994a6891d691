//! What pages and objects are sealed with: a key of its own for each, from a random salt, and ChaCha20-Poly1305.
//!
//! ```text
//! first line with kind and version   salt: 32   ciphertext and tag
//! ```
//!
//! The key is HKDF-SHA256 (RFC 5869) of the epoch key and the salt. It is used once, so the nonce is zero. Authenticated is
//! where it belongs: kind, fleet, epoch and name.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use zeroize::Zeroizing;

use super::epoch::EpochKey;
use super::fields::joined;
use super::name::FleetName;
pub use super::unsealed::Unsealed;

const SALT: usize = 32;
const TAG: usize = 16;

/// What a sealed text is, and where it belongs.
pub(super) struct Context<'a> {
    /// The first line, with its end: kind and version.
    pub(super) kind: &'static [u8],
    pub(super) fleet: &'a FleetName,
    /// A lineage's name, or a page's number.
    pub(super) name: &'a [u8],
    /// The most that is sealed, in bytes.
    pub(super) at_most: usize,
}

impl Context<'_> {
    fn authenticated(&self, epoch: u64) -> Option<Zeroizing<Vec<u8>>> {
        joined(&[self.kind, self.fleet.as_ref().as_bytes(), &epoch.to_le_bytes(), self.name])
    }

    fn key(&self, epoch_key: &EpochKey, salt: &[u8]) -> Option<LessSafeKey> {
        let secret = Salt::new(HKDF_SHA256, salt).extract(epoch_key.secret());
        let okm = secret.expand(&[self.kind], &CHACHA20_POLY1305).ok().map(UnboundKey::from);
        okm.map(LessSafeKey::new)
    }

    /// Seals a text.
    pub(super) fn seal(&self, text: &[u8], key: &EpochKey) -> Result<Vec<u8>, Unsealed> {
        if text.len() > self.at_most {
            return Err(Unsealed::TooLarge);
        }
        let mut salt = [0; SALT];
        aws_lc_rs::rand::fill(&mut salt).map_err(|_| Unsealed::Key)?;
        let context = self.authenticated(key.epoch()).ok_or(Unsealed::TooLarge)?;
        let aead = self.key(key, &salt).ok_or(Unsealed::Key)?;
        let mut sealed = Vec::with_capacity(self.kind.len() + SALT + text.len() + TAG);
        sealed.extend_from_slice(self.kind);
        sealed.extend_from_slice(&salt);
        let begin = sealed.len();
        // In place: the plain text is never anywhere but in the caller's buffer and here, where it is encrypted.
        sealed.extend_from_slice(text);
        let body = sealed.get_mut(begin..).ok_or(Unsealed::Key)?;
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        let tag =
            aead.seal_in_place_separate_tag(nonce, Aad::from(&**context), body).map_err(|_| Unsealed::Key)?;
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }

    /// Opens it again.
    pub(super) fn open(&self, sealed: &[u8], key: &EpochKey) -> Result<Zeroizing<Vec<u8>>, Unsealed> {
        let rest = sealed.strip_prefix(self.kind).ok_or(Unsealed::Kind)?;
        let (salt, body) = rest.split_at_checked(SALT).ok_or(Unsealed::Kind)?;
        if body.len() > self.at_most + TAG {
            return Err(Unsealed::TooLarge);
        }
        let context = self.authenticated(key.epoch()).ok_or(Unsealed::TooLarge)?;
        let aead = self.key(key, salt).ok_or(Unsealed::Key)?;
        let mut text = Zeroizing::new(body.to_vec());
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        let length =
            aead.open_in_place(nonce, Aad::from(&**context), &mut text).map_err(|_| Unsealed::Wrong)?.len();
        text.truncate(length);
        Ok(text)
    }
}

/// More bytes than are sealed: what is around them.
pub(super) const fn around(kind: &[u8]) -> usize {
    kind.len() + SALT + TAG
}
