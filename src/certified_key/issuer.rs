//! Whether one certificate issued another.

use x509_parser::certificate::X509Certificate;
use x509_parser::error::X509Error;
use x509_parser::oid_registry as oid;
use x509_parser::x509::X509Name;

use crate::certified_key::public_key::{KeyFamily, KeyType, PublicKey};

/// Whether `issuer` issued `subject`: by name and signature. A signature of a kind that can't be verified here
/// counts as good.
pub(crate) fn issued(subject: &X509Certificate<'_>, issuer: &X509Certificate<'_>) -> bool {
    same_name(subject.issuer(), issuer.subject()) && signed(subject, issuer)
}

fn signed(subject: &X509Certificate<'_>, issuer: &X509Certificate<'_>) -> bool {
    let algorithm = &subject.signature_algorithm.algorithm;
    let (_, key_type) = PublicKey::of(issuer.public_key());
    let made_by = if RSA_SIGNATURES.contains(algorithm) {
        KeyFamily::Rsa
    } else if ECDSA_SIGNATURES.contains(algorithm) {
        KeyFamily::Ecdsa
    } else if *algorithm == oid::OID_SIG_ED25519 {
        KeyFamily::Other
    } else {
        return true;
    };
    if key_type.family() != made_by {
        return false;
    }
    // The verifier has no other sizes, and calls their signatures wrong.
    if let KeyType::Rsa(..2048 | 8193..) = key_type {
        return true;
    }
    match subject.verify_signature(Some(issuer.public_key())) {
        Ok(()) | Err(X509Error::SignatureUnsupportedAlgorithm) => true,
        Err(_) => false,
    }
}

/// RSA-PSS isn't among them: the verifier knows one salt length only.
const RSA_SIGNATURES: [oid::Oid<'static>; 4] = [
    oid::OID_PKCS1_SHA1WITHRSA,
    oid::OID_PKCS1_SHA256WITHRSA,
    oid::OID_PKCS1_SHA384WITHRSA,
    oid::OID_PKCS1_SHA512WITHRSA,
];

const ECDSA_SIGNATURES: [oid::Oid<'static>; 3] =
    [oid::OID_SIG_ECDSA_WITH_SHA256, oid::OID_SIG_ECDSA_WITH_SHA384, oid::OID_SIG_ECDSA_WITH_SHA512];

/// Whether two names are the same: byte for byte, or in their text, since CAs change string types.
fn same_name(one: &X509Name<'_>, other: &X509Name<'_>) -> bool {
    one.as_raw() == other.as_raw() || {
        let attributes = |name: &X509Name<'_>| -> Option<Vec<(Vec<u8>, String)>> {
            name.iter_attributes()
                .map(|attribute| {
                    let text = attribute.as_str().ok()?.split_whitespace().collect::<Vec<_>>().join(" ");
                    Some((attribute.attr_type().as_bytes().to_vec(), text.to_lowercase()))
                })
                .collect()
        };
        attributes(one).is_some_and(|one| Some(one) == attributes(other))
    }
}
