//! An epoch's key, which opens its pages and objects: one for all nodes, sealed to each.
//!
//! It changes when a node is removed. HPKE in base mode (RFC 9180) doesn't say who sealed it, so the signed head names the
//! key by a hash.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;

use rustls::crypto::aws_lc_rs::hpke::DH_KEM_X25519_HKDF_SHA256_CHACHA20_POLY1305 as SUITE;
use rustls::crypto::hpke::{EncapsulatedSecret, Hpke as _, HpkePrivateKey, HpkePublicKey};
use zeroize::Zeroizing;

use super::fields::joined;
use super::identity::HostIdentity;
use super::name::{FleetName, NodeName};
use super::node_key::NodeKey;
use super::unsealed::Unsealed;
use crate::certified_key::sha256;

const COMMITMENT: &[u8] = b"haproxy-certs fleet key commitment 1\n";
const KIND: &[u8] = b"haproxy-certs fleet key 1\n";

/// A sealed key has so many bytes: its first line, what X25519 encapsulates, 32 bytes and the tag.
pub const SEALED_BYTES: usize = KIND.len() + 32 + 32 + 16;

/// The key of an epoch, cleared from memory when dropped.
pub struct EpochKey {
    epoch: u64,
    secret: Zeroizing<[u8; 32]>,
}

impl fmt::Debug for EpochKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[key of epoch {}]", self.epoch)
    }
}

impl EpochKey {
    /// A new key for this epoch.
    ///
    /// # Errors
    /// The library makes none.
    pub fn generate(epoch: u64) -> Result<Self, Unsealed> {
        let mut secret = Zeroizing::new([0; 32]);
        aws_lc_rs::rand::fill(&mut *secret).map_err(|_| Unsealed::Key)?;
        Ok(Self { epoch, secret })
    }

    /// The number of its epoch.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(super) fn secret(&self) -> &[u8; 32] {
        &self.secret
    }

    /// What the head names it by.
    #[must_use]
    pub fn commitment(&self, fleet: &FleetName) -> [u8; 32] {
        let epoch = self.epoch.to_le_bytes();
        let fields = joined(&[COMMITMENT, fleet.as_ref().as_bytes(), &epoch, &*self.secret]);
        // None of the fields is too long for one.
        fields.map_or([0; 32], |fields| sha256(&fields))
    }

    /// Seals it to a node.
    ///
    /// # Errors
    /// The node's key can't be used.
    pub fn seal(&self, fleet: &FleetName, node: &NodeName, to: &NodeKey) -> Result<Vec<u8>, Unsealed> {
        let info = info(fleet, self.epoch, node).ok_or(Unsealed::TooLarge)?;
        let to = HpkePublicKey(to.sealing.to_vec());
        let (encapsulated, sealed) = SUITE.seal(&info, b"", &*self.secret, &to).map_err(|_| Unsealed::Key)?;
        Ok([KIND, &encapsulated.0, &sealed].concat())
    }

    /// Opens what was sealed to this host under this node's name; it must be the key that the head names.
    ///
    /// # Errors
    /// It was sealed to somebody else, for another fleet, epoch or node, or it isn't the head's key.
    pub fn open(
        sealed: &[u8],
        identity: &HostIdentity,
        fleet: &FleetName,
        node: &NodeName,
        (epoch, commitment): (u64, &[u8; 32]),
    ) -> Result<Self, Unsealed> {
        let rest = sealed.strip_prefix(KIND).ok_or(Unsealed::Kind)?;
        if sealed.len() != SEALED_BYTES {
            return Err(Unsealed::Kind);
        }
        let (encapsulated, body) = rest.split_at_checked(32).ok_or(Unsealed::Kind)?;
        let info = info(fleet, epoch, node).ok_or(Unsealed::TooLarge)?;
        let encapsulated = EncapsulatedSecret(encapsulated.to_vec());
        let private = HpkePrivateKey::from(identity.sealing().to_vec());
        let opened = SUITE.open(&encapsulated, &info, b"", body, &private);
        let opened = Zeroizing::new(opened.map_err(|_| Unsealed::Wrong)?);
        let mut secret = Zeroizing::new([0; 32]);
        if opened.len() != secret.len() {
            return Err(Unsealed::Malformed);
        }
        secret.copy_from_slice(&opened);
        let key = Self { epoch, secret };
        if key.commitment(fleet) == *commitment { Ok(key) } else { Err(Unsealed::OtherKey) }
    }
}

fn info(fleet: &FleetName, epoch: u64, node: &NodeName) -> Option<Zeroizing<Vec<u8>>> {
    joined(&[KIND, fleet.as_ref().as_bytes(), &epoch.to_le_bytes(), node.as_ref().as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet() -> FleetName {
        "edge".parse().unwrap()
    }

    fn node(name: &str) -> NodeName {
        name.parse().unwrap()
    }

    #[test]
    fn a_key_is_opened_by_its_node_alone() {
        let [lb1, lb2] = [(); 2].map(|()| HostIdentity::generate().unwrap());
        let key = EpochKey::generate(7).unwrap();
        let commitment = key.commitment(&fleet());
        let sealed = key.seal(&fleet(), &node("lb1"), &lb1.public()).unwrap();
        assert_eq!(sealed.len(), SEALED_BYTES);
        let open = |identity, fleet: &str, name, epoch| {
            let opened =
                EpochKey::open(&sealed, identity, &fleet.parse().unwrap(), &node(name), (epoch, &commitment));
            opened.map(|opened| *opened.secret())
        };
        assert_eq!(open(&lb1, "edge", "lb1", 7), Ok(*key.secret()));
        assert_eq!(open(&lb2, "edge", "lb1", 7), Err(Unsealed::Wrong), "a key of another node");
        assert_eq!(open(&lb1, "core", "lb1", 7), Err(Unsealed::Wrong), "another fleet");
        assert_eq!(open(&lb1, "edge", "lb2", 7), Err(Unsealed::Wrong), "under another node's name");
        assert_eq!(open(&lb1, "edge", "lb1", 8), Err(Unsealed::Wrong), "another epoch");
        assert_eq!(format!("{key:?}"), "[key of epoch 7]");
    }

    /// Sealed by another implementation: HPKE of Python's `cryptography` 48, to the private number 0303…03.
    #[test]
    fn known_answers() {
        let sealed = unhex(
            "cfe5d57fa0636eae7811811109e74d0d08bd9e26e115d2410d9443aa8545a950940914b459d659055bc3a9a6e6e26ad6b1f97d023639fa7b00f28e5364af5b3a354289ca723bab25316e5007c6b00c93",
        );
        let text =
            [b"haproxy-certs identity 1\nx25519 ", &*base64(3), b"\ned25519 ", &*base64(4), b"\n"].concat();
        let identity = HostIdentity::parse(&text).unwrap();
        let commitment = unhex("4006f40f4d2fb61d72e740ff39f801e640f567fa0f6c1119f42260edfd99632e");
        let commitment = commitment.try_into().unwrap();
        let sealed = [KIND, &sealed].concat();
        let key = EpochKey::open(&sealed, &identity, &fleet(), &node("lb1"), (4, &commitment)).unwrap();
        assert_eq!(*key.secret(), [1; 32]);
        // HKDF and ChaCha20-Poly1305 of the same, with the salt 0202…02.
        let sealed = "aa951aaef6d95e8ee03a1a4b284338293ee9f34420a6df7c59a99eacaa47c09c78e309b2";
        let sealed = [b"haproxy-certs fleet object 1\n", &[2; 32][..], &unhex(sealed)].concat();
        let pair = crate::fleet::object::open(&sealed, "a.test", &fleet(), &key).unwrap();
        assert_eq!((&pair.key[..], &pair.chain[..]), (&b"a key"[..], &b"a chain"[..]));
    }

    fn unhex(text: &str) -> Vec<u8> {
        let digits = text.as_bytes().as_chunks::<2>().0;
        digits.iter().map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    fn base64(byte: u8) -> Vec<u8> {
        use base64::Engine as _;
        base64::prelude::BASE64_STANDARD.encode([byte; 32]).into_bytes()
    }

    #[test]
    fn a_key_that_somebody_else_sealed_is_not_the_heads() {
        let identity = HostIdentity::generate().unwrap();
        let [ours, theirs] = [(); 2].map(|()| EpochKey::generate(7).unwrap());
        let sealed = theirs.seal(&fleet(), &node("lb1"), &identity.public()).unwrap();
        let head = (7, &ours.commitment(&fleet()));
        let opened = EpochKey::open(&sealed, &identity, &fleet(), &node("lb1"), head);
        assert_eq!(opened.map(drop), Err(Unsealed::OtherKey));
    }

    #[test]
    fn no_bit_can_be_changed() {
        let identity = HostIdentity::generate().unwrap();
        let key = EpochKey::generate(7).unwrap();
        let head = (7, &key.commitment(&fleet()));
        let sealed = key.seal(&fleet(), &node("lb1"), &identity.public()).unwrap();
        for at in 0..sealed.len() {
            // X25519 ignores the highest bit of a point (RFC 7748, section 5), HPKE doesn't.
            for bit in 0..8 {
                let mut changed = sealed.clone();
                changed[at] ^= 1 << bit;
                let opened = EpochKey::open(&changed, &identity, &fleet(), &node("lb1"), head);
                assert!(opened.is_err(), "{at} {bit}");
            }
            assert!(EpochKey::open(&sealed[..at], &identity, &fleet(), &node("lb1"), head).is_err());
        }
        let more = [&sealed[..], b"x"].concat();
        assert!(EpochKey::open(&more, &identity, &fleet(), &node("lb1"), head).is_err());
    }

    #[test]
    fn nothing_is_sealed_to_a_key_that_is_none() {
        let key = EpochKey::generate(7).unwrap();
        let public = HostIdentity::generate().unwrap().public();
        // A point of low order: everybody would share its secret (RFC 7748, section 6.1).
        let to = NodeKey { sealing: [0; 32], ..public };
        assert_eq!(key.seal(&fleet(), &node("lb1"), &to), Err(Unsealed::Key));
    }

    proptest::proptest! {
        #[test]
        fn nothing_makes_it_panic(bytes: Vec<u8>, exact in proptest::array::uniform32(0_u8..)) {
            let identity = HostIdentity::generate().unwrap();
            let lies = [bytes.clone(), [KIND, &bytes].concat(), [KIND, &exact, &exact, &exact[..16]].concat()];
            for lie in lies {
                let opened = EpochKey::open(&lie, &identity, &fleet(), &node("lb1"), (7, &[0; 32]));
                proptest::prop_assert!(opened.is_err());
            }
        }
    }
}
