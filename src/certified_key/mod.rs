//! The proof that a private key belongs to a leaf, and the PEM that only this proof gives.
//!
//! Bytes in, values out: nothing here reads a file, runs a program or talks to anybody.
//!
//! ```text
//! key file ───► pem_text ──► private_key ─┐
//!                            (envelope,   ├─ proof ──► CertifiedKey ──► CombinedPem
//! chain file ─► pem_text ──► leaf, chain ─┘
//! ```

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod chain;
mod combined_pem;
mod der;
mod digest;
mod flaw;
pub mod issuer;
mod leaf;
mod openssl;
mod pem_text;
mod private_key;
mod public_key;
mod text;
mod well_formed;

pub use chain::{Certificate, ChainState};
pub use combined_pem::CombinedPem;
pub use digest::{hex, sha256};
pub use flaw::{Flaw, Unproved};
pub use leaf::{Leaf, leaf_of_der, read_leaf};
pub use openssl::{OpensslReads, openssl_reads};
use private_key::PrivateKey;
use public_key::PublicKey;
pub use public_key::{KeyFamily, KeyType};

/// A private key, the leaf that it provably belongs to, and the leaf's chain.
///
/// There is no other way to one than [`CertifiedKey::prove`].
#[derive(Debug, Clone)]
pub struct CertifiedKey {
    key: PrivateKey,
    leaf: Leaf,
    /// Leaf first.
    certificates: Vec<Certificate>,
    staging_issuer: bool,
}

impl CertifiedKey {
    /// Proves that the first private key of `key_file` belongs to the first certificate of `chain_file`, the leaf.
    /// All other certificates, in their order, are its chain.
    ///
    /// # Errors
    /// They aren't a pair, or one of the certificates or the key is missing, damaged or of an uncommon kind.
    pub fn prove(key_file: &[u8], chain_file: &[u8]) -> Result<Self, Unproved> {
        let ders = pem_text::certificates(chain_file)?;
        let parsed: Vec<_> =
            ders.iter().enumerate().map(|(place, der)| leaf::parse(der, place)).collect::<Result<_, _>>()?;
        let ([leaf_der, ..], [leaf, above @ ..]) = (&ders[..], &parsed[..]) else {
            return Err(Flaw::CertificateMissing.because("the chain holds no certificate"));
        };
        if let Some(place) = above.iter().position(|issuer| !public_key::is_whole(issuer.public_key())) {
            return Err(leaf::unreadable(1 + place, "has a damaged key"));
        }
        let key = PrivateKey::prove(key_file, PublicKey::of(leaf.public_key()).0)?;
        let leaf = Leaf::of(leaf_der, leaf)?;
        let staging_issuer = parsed.iter().any(|certificate| leaf::is_staging(certificate.issuer()));
        drop(parsed);
        let certificates = ders.into_iter().map(Certificate::new).collect();
        Ok(Self { key, leaf, certificates, staging_issuer })
    }

    /// The same for one key (PKCS#8) and one certificate that are at hand as DER.
    ///
    /// # Errors
    /// As for [`CertifiedKey::prove`].
    pub fn prove_der(key: &[u8], certificate: &[u8]) -> Result<Self, Unproved> {
        let text = CombinedPem::of([("PRIVATE KEY", key), ("CERTIFICATE", certificate)].into_iter());
        Self::prove(text.as_bytes(), text.as_bytes())
    }

    /// The facts of the leaf.
    #[must_use]
    pub fn leaf(&self) -> &Leaf {
        &self.leaf
    }

    /// The certificates behind the leaf.
    #[must_use]
    pub fn chain(&self) -> &[Certificate] {
        self.certificates.get(1..).unwrap_or_default()
    }

    /// Whether each certificate was issued by the next. It verifies signatures: ask once.
    #[must_use]
    pub fn chain_state(&self) -> ChainState {
        chain::state(&self.certificates)
    }

    /// Whether the leaf or a certificate of the chain has a staging issuer.
    #[must_use]
    pub fn staging_issuer(&self) -> bool {
        self.staging_issuer
    }

    /// The canonical PEM: the same pair always gives the same bytes.
    #[must_use]
    pub fn combined_pem(&self) -> CombinedPem {
        let certificates = self.certificates.iter();
        let key = std::iter::once((self.key.label, &self.key.der[..]));
        CombinedPem::of(key.chain(certificates.map(|certificate| ("CERTIFICATE", certificate.der()))))
    }
}

/// Whether a PEM text holds a whole private key block, of whatever kind.
#[must_use]
pub fn has_private_key(pem_text: &[u8]) -> bool {
    pem_text::blocks(pem_text).any(|block| block.is_private_key() && block.is_whole())
}
