//! The public key of a certificate: its type, and the numbers that a private key is proved against.

use std::fmt;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ECDSA_P521_SHA512_ASN1, ParsedPublicKey,
};
use x509_parser::asn1_rs::Oid;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::der::{Der, OID};

pub(super) const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
pub(super) const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
pub(super) const ED25519: &[u8] = &[0x2b, 0x65, 0x70];

/// The curves of NIST that are proved here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Curve {
    P256,
    P384,
    P521,
}

impl Curve {
    /// The curve with this object identifier.
    pub(super) fn of(oid: &[u8]) -> Option<Self> {
        [Self::P256, Self::P384, Self::P521].into_iter().find(|curve| curve.oid() == oid)
    }

    /// Its object identifier.
    pub(super) fn oid(self) -> &'static [u8] {
        match self {
            Self::P256 => &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07],
            Self::P384 => &[0x2b, 0x81, 0x04, 0x00, 0x22],
            Self::P521 => &[0x2b, 0x81, 0x04, 0x00, 0x23],
        }
    }

    /// How many bytes a coordinate and a private number have.
    pub(super) fn length(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }
}

/// The type of a certificate's key. Its text is that of reports: `ecdsa-p256`, `rsa-2048`, `ed25519`, or an OID.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyType {
    /// ECDSA on P-256.
    EcdsaP256,
    /// ECDSA on P-384.
    EcdsaP384,
    /// ECDSA on P-521.
    EcdsaP521,
    /// RSA with a modulus of so many bits.
    Rsa(u32),
    /// Ed25519.
    Ed25519,
    /// ECDSA on another curve, by the OID of the curve (that of EC keys where the curve has none).
    OtherEcdsa(String),
    /// Another algorithm, by its OID.
    Other(String),
}

/// What HAProxy keeps apart: for one name it serves the ECDSA certificate to clients that can, RSA to the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyFamily {
    /// ECDSA on any curve.
    Ecdsa,
    /// RSA of any size.
    Rsa,
    /// Everything else, Ed25519 too.
    Other,
}

impl KeyType {
    /// The family that HAProxy puts the key into.
    #[must_use]
    pub fn family(&self) -> KeyFamily {
        match self {
            Self::EcdsaP256 | Self::EcdsaP384 | Self::EcdsaP521 | Self::OtherEcdsa(_) => KeyFamily::Ecdsa,
            Self::Rsa(_) => KeyFamily::Rsa,
            Self::Ed25519 | Self::Other(_) => KeyFamily::Other,
        }
    }
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EcdsaP256 => f.write_str("ecdsa-p256"),
            Self::EcdsaP384 => f.write_str("ecdsa-p384"),
            Self::EcdsaP521 => f.write_str("ecdsa-p521"),
            Self::Rsa(bits) => write!(f, "rsa-{bits}"),
            Self::Ed25519 => f.write_str("ed25519"),
            Self::OtherEcdsa(oid) | Self::Other(oid) => f.write_str(oid),
        }
    }
}

/// A certificate's public key, borrowed from the certificate.
#[derive(Clone, Copy)]
pub(super) enum PublicKey<'a> {
    /// Modulus and exponent, without leading zeros.
    Rsa { modulus: &'a [u8], exponent: &'a [u8] },
    /// A point in whatever encoding.
    Ec { curve: Curve, point: &'a [u8] },
    /// The 32 bytes of an Ed25519 key.
    Ed25519(&'a [u8]),
    /// A key that isn't proved here.
    Unsupported,
}

impl<'a> PublicKey<'a> {
    /// Reads what a certificate says.
    pub(super) fn of(spki: &'a SubjectPublicKeyInfo<'_>) -> (Self, KeyType) {
        let algorithm = spki.algorithm.algorithm.as_bytes();
        let key: &'a [u8] = &spki.subject_public_key.data;
        let known = match algorithm {
            RSA => rsa(key),
            EC => spki.algorithm.parameters.as_ref().and_then(|any| {
                let oid: &'a [u8] = any.as_bytes();
                if any.tag().0 == u32::from(OID) { Some(ec(oid, key)) } else { None }
            }),
            ED25519 if key.len() == 32 => Some((Self::Ed25519(key), KeyType::Ed25519)),
            _ => None,
        };
        known.unwrap_or_else(|| {
            let oid = dotted(algorithm);
            let kind = if algorithm == EC { KeyType::OtherEcdsa(oid) } else { KeyType::Other(oid) };
            (Self::Unsupported, kind)
        })
    }
}

/// Whether the key of a CA is whole. Kinds that aren't proved here count as whole.
///
/// HAProxy refuses a chain that has a key which OpenSSL can't decode.
pub(super) fn is_whole(spki: &SubjectPublicKeyInfo<'_>) -> bool {
    match PublicKey::of(spki).0 {
        PublicKey::Ec { curve, point } => {
            let algorithm = match curve {
                Curve::P256 => &ECDSA_P256_SHA256_ASN1,
                Curve::P384 => &ECDSA_P384_SHA384_ASN1,
                Curve::P521 => &ECDSA_P521_SHA512_ASN1,
            };
            ParsedPublicKey::new(algorithm, point).is_ok()
        }
        PublicKey::Rsa { .. } | PublicKey::Ed25519(_) => true,
        PublicKey::Unsupported => !matches!(spki.algorithm.algorithm.as_bytes(), RSA | ED25519),
    }
}

fn rsa(key: &[u8]) -> Option<(PublicKey<'_>, KeyType)> {
    let mut numbers = Der::sequence(key)?;
    let (modulus, exponent) = (numbers.unsigned()?, numbers.unsigned()?);
    numbers.is_empty().then_some((PublicKey::Rsa { modulus, exponent }, KeyType::Rsa(bits(modulus))))
}

fn ec<'a>(oid: &[u8], point: &'a [u8]) -> (PublicKey<'a>, KeyType) {
    match Curve::of(oid) {
        Some(curve @ Curve::P256) => (PublicKey::Ec { curve, point }, KeyType::EcdsaP256),
        Some(curve @ Curve::P384) => (PublicKey::Ec { curve, point }, KeyType::EcdsaP384),
        Some(curve @ Curve::P521) => (PublicKey::Ec { curve, point }, KeyType::EcdsaP521),
        None => (PublicKey::Unsupported, KeyType::OtherEcdsa(dotted(oid))),
    }
}

/// How many bits a number without leading zeros has.
pub(super) fn bits(number: &[u8]) -> u32 {
    let zeros = number.first().map_or(0, |first| first.leading_zeros());
    u32::try_from(number.len() * 8).unwrap_or(u32::MAX) - zeros
}

/// An object identifier as text.
pub(super) fn dotted(oid: &[u8]) -> String {
    Oid::new(oid.into()).to_id_string()
}
