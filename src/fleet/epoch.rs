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
use super::seal::Unsealed;
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
        let (encapsulated, sealed) =
            SUITE.seal(&info, KIND, &*self.secret, &to).map_err(|_| Unsealed::Key)?;
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
        let opened = SUITE.open(&encapsulated, &info, KIND, body, &private);
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
