//! The private key: its envelope is classified first, then its numbers are proved against the leaf's public key.
//!
//! The envelope comes first because a crypto library's error doesn't tell a key of an uncommon kind from one whose
//! halves don't fit. What is well-formed and supported is proved by computing the public key from the private
//! number (ECDSA, Ed25519) or by aws-lc's check of every number against the others (RSA: n = p·q, d·e ≡ 1 modulo
//! p−1 and q−1, and dP, dQ and qInv): never by comparing a public half that was copied beside it.

use std::fmt;

use aws_lc_rs::agreement::{self, ECDH_P256, ECDH_P384, ECDH_P521};
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use zeroize::Zeroizing;

use super::der::{self, Der, INTEGER, NULL, OCTET_STRING, OID, SEQUENCE};
use super::flaw::{Flaw, Unproved};
use super::pem_text::{self, Block};
use super::public_key::{Curve, EC, ED25519, PublicKey, RSA, bits, dotted};

/// A private key that belongs to a leaf, in an encoding that every OpenSSL since 1.1 reads.
#[derive(Clone)]
pub(super) struct PrivateKey {
    /// The label of its PEM block.
    pub(super) label: &'static str,
    /// What is in the block.
    pub(super) der: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[private key]")
    }
}

impl PrivateKey {
    /// Proves that the first private key of `text` belongs to the certificate with this public key.
    pub(super) fn prove(text: &[u8], leaf: PublicKey<'_>) -> Result<Self, Unproved> {
        let (block, curve) = first_key(text)?;
        if block.label == "ENCRYPTED PRIVATE KEY" || block.is_encrypted() {
            return Err(encrypted());
        }
        let der = block.decode().map_err(|what| unreadable(&format!("the private key {what}")))?;
        if !matches!(block.label, "PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY" | "ANY PRIVATE KEY") {
            return Err(Flaw::KeyUnsupported.because(format!("the private key is a {} block", block.label)));
        }
        let envelope = Envelope::read(&der, curve)?;
        envelope.numbers.prove(leaf)?;
        let (label, rewritten) = (envelope.label, envelope.rewritten());
        Ok(Self { label, der: rewritten.unwrap_or(der) })
    }
}

/// The first private key block, and the curve that an `EC PARAMETERS` block before it names.
fn first_key(text: &[u8]) -> Result<(Block<'_>, Option<Curve>), Unproved> {
    if let Some(what) = pem_text::not_pem(text) {
        return Err(unreadable(&format!("the key file {what}")));
    }
    let mut curve = None;
    for block in pem_text::blocks(text) {
        if block.is_private_key() {
            return Ok((block, curve));
        }
        if block.label == "EC PARAMETERS" {
            let der = block.decode().unwrap_or_default();
            curve = Der::new(&der).read(OID).and_then(Curve::of);
        }
    }
    Err(Flaw::KeyMissing.because(if text.trim_ascii().is_empty() {
        "the key file is empty"
    } else {
        "the key file holds no private key"
    }))
}

/// A private key, classified: how it is wrapped, and its numbers.
struct Envelope<'a> {
    label: &'static str,
    /// What has to be written instead, so that OpenSSL 3.0 can read it: the two parts of a plain PKCS#8.
    rewrite: Option<Rewrite<'a>>,
    numbers: Numbers<'a>,
}

enum Rewrite<'a> {
    /// PKCS#8 without its attributes and public key: the algorithm's element and the key's contents.
    Plain { algorithm: &'a [u8], key: &'a [u8] },
    /// SEC1 whose curve isn't in it.
    Sec1 { curve: Curve, key: &'a [u8] },
}

/// What a private key consists of.
enum Numbers<'a> {
    /// PKCS#1, and the public half in it, without leading zeros.
    Rsa { pkcs1: &'a [u8], modulus: &'a [u8], exponent: &'a [u8] },
    /// The private number, and the public point in whatever encoding.
    Ec { curve: Curve, number: &'a [u8], point: Option<&'a [u8]> },
    /// The 32 private bytes, and the public ones.
    Ed25519 { seed: &'a [u8], public: Option<&'a [u8]> },
}

impl<'a> Envelope<'a> {
    /// Classifies a key by its structure: a label that lies does no harm, since the right one is written.
    /// `curve` is the one that is named outside of it.
    fn read(der: &'a [u8], curve: Option<Curve>) -> Result<Self, Unproved> {
        let malformed = || unreadable("the private key isn't PKCS#8, PKCS#1 or SEC1");
        let mut inside = Der::sequence(der).ok_or_else(malformed)?;
        let mut shape = inside;
        let tags = (shape.tag(), shape.element().and_then(|_| shape.tag()));
        match tags {
            (Some(SEQUENCE), Some(OCTET_STRING)) => Err(encrypted()),
            (Some(INTEGER), Some(SEQUENCE)) => Self::pkcs8(&mut inside)?.ok_or_else(malformed),
            (Some(INTEGER), Some(INTEGER)) => {
                Ok(Self { label: "RSA PRIVATE KEY", rewrite: None, numbers: Numbers::pkcs1(der)? })
            }
            (Some(INTEGER), Some(OCTET_STRING)) => Self::sec1(der, curve),
            _ => Err(malformed()),
        }
    }

    /// PKCS#8, version 1 (RFC 5208) or 2 (RFC 5958). `None`: malformed.
    fn pkcs8(inside: &mut Der<'a>) -> Result<Option<Self>, Unproved> {
        let Some((version, algorithm, key)) = pkcs8_head(inside) else { return Ok(None) };
        let attributes = inside.read(0xa0);
        // As ring writes it: explicit where it should be implicit.
        let public = match inside.tag() {
            Some(0x81) => inside.read(0x81).and_then(whole_bytes),
            Some(0xa1) => inside.read(0xa1).and_then(|contents| Der::new(contents).bytes()),
            _ => None,
        };
        if !inside.is_empty() || version == 1 && public.is_some() {
            return Ok(None);
        }
        let mut parts = Der::new(algorithm);
        let Some(mut parts) = parts.read(SEQUENCE).map(Der::new) else { return Ok(None) };
        let Some(oid) = parts.read(OID) else { return Ok(None) };
        let numbers = match oid {
            RSA if parts.element() == Some(&[NULL, 0]) && parts.is_empty() => {
                let numbers = Numbers::pkcs1(key)?;
                if let (Some(public), Numbers::Rsa { modulus, exponent, .. }) = (public, &numbers) {
                    let mut half = Der::sequence(public);
                    let half = half.as_mut().and_then(|half| Some((half.unsigned()?, half.unsigned()?)));
                    if half != Some((modulus, exponent)) {
                        return Err(inconsistent("its public half is another key's"));
                    }
                }
                numbers
            }
            EC => {
                let Some(curve) = parts.read(OID) else { return Err(explicit_curve()) };
                let curve = Curve::of(curve).ok_or_else(|| unsupported_curve(curve))?;
                let numbers = Numbers::sec1(key, Some(curve))?.0;
                if let (Some(public), Numbers::Ec { number, .. }) = (public, &numbers)
                    && !same_point(curve, public, &ec_public(curve, number)?)?
                {
                    return Err(inconsistent("its public half is another key's"));
                }
                numbers
            }
            ED25519 if parts.is_empty() => {
                let mut octets = Der::new(key);
                let seed = octets.read(OCTET_STRING).filter(|seed| seed.len() == 32 && octets.is_empty());
                let Some(seed) = seed else { return Ok(None) };
                Numbers::Ed25519 { seed, public }
            }
            RSA | ED25519 => return Ok(None),
            _ => {
                return Err(
                    Flaw::KeyUnsupported.because(format!("the private key is of type {}", dotted(oid)))
                );
            }
        };
        let rewrite = (version == 2 || attributes.is_some()).then_some(Rewrite::Plain { algorithm, key });
        Ok(Some(Self { label: "PRIVATE KEY", rewrite, numbers }))
    }

    fn sec1(der: &'a [u8], curve: Option<Curve>) -> Result<Self, Unproved> {
        let (numbers, named) = Numbers::sec1(der, None).or_else(|unproved| match curve {
            Some(curve) if unproved.flaw == Flaw::KeyUnreadable => Numbers::sec1(der, Some(curve)),
            _ => Err(unproved),
        })?;
        match numbers {
            Numbers::Ec { curve, .. } if !named => {
                let rewrite = Some(Rewrite::Sec1 { curve, key: der });
                Ok(Self { label: "PRIVATE KEY", rewrite, numbers })
            }
            _ => Ok(Self { label: "EC PRIVATE KEY", rewrite: None, numbers }),
        }
    }

    /// The DER to write, where it isn't the one that was read.
    fn rewritten(&self) -> Option<Zeroizing<Vec<u8>>> {
        match self.rewrite {
            None => None,
            Some(Rewrite::Plain { algorithm, key }) => Some(plain_pkcs8(algorithm, key)),
            Some(Rewrite::Sec1 { curve, key }) => {
                let mut oids = Vec::new();
                der::push(&mut oids, OID, &[EC]);
                der::push(&mut oids, OID, &[curve.oid()]);
                let mut algorithm = Vec::new();
                der::push(&mut algorithm, SEQUENCE, &[&oids]);
                Some(plain_pkcs8(&algorithm, key))
            }
        }
    }
}

/// Version (1 or 2), the algorithm's element and the key's contents.
fn pkcs8_head<'a>(inside: &mut Der<'a>) -> Option<(u8, &'a [u8], &'a [u8])> {
    let version = match inside.read(INTEGER)? {
        [0] => 1,
        [1] => 2,
        _ => return None,
    };
    Some((version, inside.element()?, inside.read(OCTET_STRING)?))
}

/// PKCS#8 of version 1, without attributes.
fn plain_pkcs8(algorithm: &[u8], key: &[u8]) -> Zeroizing<Vec<u8>> {
    const VERSION: &[u8] = &[INTEGER, 1, 0];
    let octets = der::pushed(key.len());
    let length = der::pushed(VERSION.len() + algorithm.len() + octets);
    // No reallocation that leaves a copy of the key behind.
    let mut contents = Zeroizing::new(Vec::with_capacity(octets));
    der::push(&mut contents, OCTET_STRING, &[key]);
    let mut out = Zeroizing::new(Vec::with_capacity(length));
    der::push(&mut out, SEQUENCE, &[VERSION, algorithm, &contents]);
    out
}

impl<'a> Numbers<'a> {
    /// PKCS#1: version, n, e, d, p, q, dP, dQ, qInv.
    fn pkcs1(der: &'a [u8]) -> Result<Self, Unproved> {
        let malformed = || unreadable("the private key isn't PKCS#1");
        let mut numbers = Der::sequence(der).ok_or_else(malformed)?;
        match numbers.read(INTEGER) {
            Some([0]) => (),
            Some([1]) => return Err(Flaw::KeyUnsupported.because("the RSA key has more than two primes")),
            _ => return Err(malformed()),
        }
        let modulus = numbers.unsigned().ok_or_else(malformed)?;
        let exponent = numbers.unsigned().ok_or_else(malformed)?;
        let mut private_half = true;
        for _ in 0..6 {
            // aws-lc takes a key without these for one that has nothing to check.
            private_half &= !numbers.unsigned().ok_or_else(malformed)?.is_empty();
        }
        if !numbers.is_empty() {
            return Err(malformed());
        }
        let size = bits(modulus);
        if size < 2048 {
            return Err(Flaw::KeyTooSmall.because(format!("the RSA key has {size} bits, 2048 are the least")));
        }
        if size > 8192 {
            return Err(
                Flaw::KeyUnsupported.because(format!("the RSA key has {size} bits, 8192 are the most"))
            );
        }
        if bits(exponent) > 33 {
            return Err(Flaw::KeyUnsupported.because("the RSA key's public exponent has more than 33 bits"));
        }
        if !private_half {
            return Err(inconsistent("a private number is zero"));
        }
        Ok(Self::Rsa { pkcs1: der, modulus, exponent })
    }

    /// SEC1, and whether it names its curve. `outside`: the curve that is named outside of it.
    fn sec1(der: &'a [u8], outside: Option<Curve>) -> Result<(Self, bool), Unproved> {
        let malformed = || unreadable("the private key isn't SEC1");
        let mut parts = Der::sequence(der).ok_or_else(malformed)?;
        if parts.read(INTEGER) != Some(&[1]) {
            return Err(malformed());
        }
        let number = parts.read(OCTET_STRING).ok_or_else(malformed)?;
        let inside = match parts.read(0xa0).map(Der::new) {
            None => None,
            Some(mut parameters) => {
                let oid = parameters.read(OID).ok_or_else(explicit_curve)?;
                if !parameters.is_empty() {
                    return Err(malformed());
                }
                Some(Curve::of(oid).ok_or_else(|| unsupported_curve(oid))?)
            }
        };
        let point = match parts.read(0xa1).map(Der::new) {
            None => None,
            Some(mut contents) => {
                let point = contents.bytes().ok_or_else(malformed)?;
                contents.is_empty().then_some(Some(point)).ok_or_else(malformed)?
            }
        };
        if !parts.is_empty() {
            return Err(malformed());
        }
        let curve = match (outside, inside) {
            (Some(outside), Some(inside)) if outside != inside => {
                return Err(inconsistent("it names two different curves"));
            }
            (Some(curve), _) | (None, Some(curve)) => curve,
            (None, None) => return Err(unreadable("the private key names no curve")),
        };
        Ok((Self::Ec { curve, number, point }, inside.is_some()))
    }

    /// Proves that these are one key, and that it is the leaf's.
    fn prove(&self, leaf: PublicKey<'_>) -> Result<(), Unproved> {
        let belongs = match *self {
            Self::Rsa { pkcs1, modulus, exponent } => {
                rsa::KeyPair::from_der(pkcs1)
                    .map_err(|_| inconsistent("its RSA numbers don't fit together"))?;
                matches!(leaf, PublicKey::Rsa { modulus: n, exponent: e } if n == modulus && e == exponent)
            }
            Self::Ec { curve, number, point } => {
                let public = ec_public(curve, number)?;
                if let Some(point) = point
                    && !same_point(curve, point, &public)?
                {
                    return Err(inconsistent("its public point isn't that of its private number"));
                }
                match leaf {
                    PublicKey::Ec { curve: leaf_curve, point } if leaf_curve == curve => {
                        same_point(curve, point, &public)?
                    }
                    _ => false,
                }
            }
            Self::Ed25519 { seed, public } => {
                let pair = Ed25519KeyPair::from_seed_unchecked(seed)
                    .map_err(|_| inconsistent("its Ed25519 seed is rejected"))?;
                let derived = pair.public_key().as_ref();
                if public.is_some_and(|public| public != derived) {
                    return Err(inconsistent("its public half is another key's"));
                }
                matches!(leaf, PublicKey::Ed25519(key) if key == derived)
            }
        };
        match leaf {
            _ if belongs => Ok(()),
            PublicKey::Unsupported => {
                Err(Flaw::KeyUnsupported.because("the certificate's key is of a kind that isn't proved here"))
            }
            _ => Err(Flaw::KeyMismatch.because("the private key belongs to another certificate")),
        }
    }
}

/// The public point of a private number, uncompressed.
fn ec_public(curve: Curve, number: &[u8]) -> Result<agreement::PublicKey, Unproved> {
    let rejected = || inconsistent("its private number isn't one of its curve");
    let zeros = number.iter().take_while(|&&byte| byte == 0).count();
    let number = number.get(zeros..).unwrap_or_default();
    // Some programs leave leading zeros out.
    let mut padded = Zeroizing::new([0; 66]);
    let fixed = padded.get_mut(..curve.length()).ok_or_else(rejected)?;
    let start = fixed.len().checked_sub(number.len()).ok_or_else(rejected)?;
    fixed.get_mut(start..).ok_or_else(rejected)?.copy_from_slice(number);
    let algorithm = match curve {
        Curve::P256 => &ECDH_P256,
        Curve::P384 => &ECDH_P384,
        Curve::P521 => &ECDH_P521,
    };
    let key = agreement::PrivateKey::from_private_key(algorithm, fixed).map_err(|_| rejected())?;
    key.compute_public_key().map_err(|_| rejected())
}

/// Whether `point`, in whatever encoding, is the uncompressed point `public`.
fn same_point(curve: Curve, point: &[u8], public: &agreement::PublicKey) -> Result<bool, Unproved> {
    let public = public.as_ref();
    let (Some(x), Some(odd)) = (public.get(1..=curve.length()), public.last().map(|last| last & 1)) else {
        return Ok(false);
    };
    match point {
        [0x04, ..] => Ok(point == public),
        [form @ (0x02 | 0x03), compressed @ ..] => Ok(compressed == x && form & 1 == odd),
        [0x06 | 0x07, ..] => Err(Flaw::KeyUnsupported.because("the public point is in the hybrid form")),
        _ => Ok(false),
    }
}

/// The contents of a `BIT STRING` of whole bytes.
fn whole_bytes(contents: &[u8]) -> Option<&[u8]> {
    contents.split_first().and_then(|(&unused, bytes)| (unused == 0).then_some(bytes))
}

fn encrypted() -> Unproved {
    Flaw::KeyEncrypted.because("the private key is encrypted")
}

fn unreadable(detail: &str) -> Unproved {
    Flaw::KeyUnreadable.because(detail)
}

fn inconsistent(what: &str) -> Unproved {
    Flaw::KeyInconsistent.because(format!("the private key contradicts itself: {what}"))
}

fn explicit_curve() -> Unproved {
    Flaw::KeyUnsupported.because("the private key's curve has no name, but explicit parameters")
}

fn unsupported_curve(oid: &[u8]) -> Unproved {
    Flaw::KeyUnsupported.because(format!("the private key is on curve {}", dotted(oid)))
}
