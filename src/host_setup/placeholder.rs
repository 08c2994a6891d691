//! A self-signed certificate that takes the host certificate's place until there is one, so that HAProxy can start.

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, date_time_ymd};
use zeroize::Zeroizing;

use crate::certified_key::{CertifiedKey, CombinedPem, Leaf};
use crate::sys::failure::{Failure, FailureKind};

/// The common name, for people who meet it.
const NAME: &str = "haproxy-certs placeholder";

/// Makes a fresh key and a self-signed certificate for it.
///
/// It expired in 2000: no client takes it for a real certificate, and neither does the rule that keeps a valid one from
/// being replaced by one from a staging CA or by one that was issued earlier.
///
/// # Errors
/// The cryptographic library fails.
pub fn placeholder() -> Result<CombinedPem, Failure> {
    let failed = |cause: String| {
        Failure::new(FailureKind::Io, format!("cannot make a self-signed placeholder certificate: {cause}"))
    };
    let make = || -> Result<(Zeroizing<Vec<u8>>, Vec<u8>), rcgen::Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, NAME);
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(2000, 1, 2);
        let certificate = params.self_signed(&key)?;
        Ok((Zeroizing::new(key.serialize_der()), certificate.der().to_vec()))
    };
    let (key, certificate) = make().map_err(|e| failed(e.to_string()))?;
    let proved = CertifiedKey::prove_der(&key, &certificate);
    proved.map(|proved| proved.combined_pem()).map_err(|unproved| failed(unproved.detail))
}

/// Whether this is such a certificate: it has no name that a client asks for.
#[must_use]
pub fn is_placeholder(leaf: &Leaf) -> bool {
    leaf.is_self_signed && leaf.names.is_empty() && leaf.common_names == [NAME]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openssl_takes_it_for_a_pair_and_each_is_another() {
        let pem = placeholder().unwrap();
        let key = openssl::pkey::PKey::private_key_from_pem(pem.as_bytes()).unwrap();
        let certificate = openssl::x509::X509::from_pem(pem.as_bytes()).unwrap();
        assert!(certificate.public_key().unwrap().public_eq(&key));
        assert!(certificate.verify(&key).unwrap());
        assert_ne!(placeholder().unwrap().as_bytes(), pem.as_bytes());
        assert!(is_placeholder(&crate::certified_key::read_leaf(pem.as_bytes()).unwrap()));
    }
}
