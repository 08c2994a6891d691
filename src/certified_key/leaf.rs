//! What the system wants to know about a certificate.

use core::net::{Ipv4Addr, Ipv6Addr};
use std::fmt::Write;

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension, X509Extension};
use x509_parser::prelude::FromDer;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

use super::der::Der;
use super::digest::{sha1, sha256};
use super::flaw::{Flaw, Unproved};
use super::pem_text::{first_certificate, ordinal};
use super::public_key::{KeyType, PublicKey};
use super::{text, well_formed};
use crate::certified_key::issuer::issued;

/// The facts of a certificate that is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// The DNS names (in lower case) and IP addresses of the subject alternative names, in the certificate's order.
    /// They may hold any character, NUL among them: escape them where they are printed.
    pub names: Vec<String>,
    /// The places of the IP addresses among them; the others are DNS names.
    pub addresses: Vec<usize>,
    /// The common names of the subject, in lower case, whatever string type they have. They name nobody any more, but HAProxy
    /// serves them too.
    pub common_names: Vec<String>,
    /// The type of its key.
    pub key_type: KeyType,
    /// The serial number in upper-case hex, as `openssl x509 -serial` prints it.
    pub serial: String,
    /// The SHA-256 of its DER.
    pub sha256: [u8; 32],
    /// The SHA-1 of its DER.
    pub sha1: [u8; 20],
    /// From when it is valid: seconds since 1970.
    pub not_before: i64,
    /// Until when it is valid: seconds since 1970.
    pub not_after: i64,
    /// Whether its issuer is its subject, and its signature its own (or one that can't be verified here).
    pub is_self_signed: bool,
    /// Whether its issuer is a staging one: a name that begins with `(STAGING)`.
    pub issuer_is_staging: bool,
    /// Whether it demands an OCSP response in every handshake (RFC 7633): clients that obey refuse it without one.
    pub demands_ocsp: bool,
}

/// The facts of the first certificate of a PEM text.
///
/// # Errors
/// The text has no certificate, or the first one is damaged.
pub fn read_leaf(pem_text: &[u8]) -> Result<Leaf, Unproved> {
    let der = first_certificate(pem_text)?;
    Leaf::of(&der, &parse(&der, 0)?)
}

/// The facts of a certificate as a TLS peer presents it.
///
/// # Errors
/// It is damaged.
pub fn leaf_of_der(der: &[u8]) -> Result<Leaf, Unproved> {
    Leaf::of(der, &parse(der, 0)?)
}

impl Leaf {
    /// The names that HAProxy serves it for, in lower case: DNS names and common names, each up to its first NUL (measured, 2.2
    /// to 3.4).
    pub fn served_names(&self) -> impl Iterator<Item = &str> {
        let dns_names = || self.dns_names().map(before_nul);
        let is_alternative = move |name: &&str| dns_names().any(|other| other == *name);
        let only_common =
            self.common_names.iter().map(|name| before_nul(name)).filter(move |name| !is_alternative(name));
        dns_names().chain(only_common).filter(|name| !name.is_empty() && !name.starts_with('!'))
    }

    /// The names that its wildcards don't stand for in HAProxy: it takes `!a.example` in a certificate as it does in a crt-list
    /// (measured, 2.2 to 3.4).
    pub fn excluded_names(&self) -> impl Iterator<Item = &str> {
        let all = self.dns_names().chain(self.common_names.iter().map(String::as_str));
        all.filter_map(|name| before_nul(name).strip_prefix('!'))
    }

    /// The DNS names among its names.
    pub fn dns_names(&self) -> impl Iterator<Item = &str> {
        let is_dns = |place: &usize| !self.addresses.contains(place);
        self.names.iter().enumerate().filter(move |(place, _)| is_dns(place)).map(|(_, name)| name.as_str())
    }

    /// Whether less than a quarter of its life is left at this time, in seconds since 1970, or nothing: lifetimes range from 6
    /// days to years, so they are judged relative to themselves.
    #[must_use]
    pub fn is_ending(&self, now: i64) -> bool {
        let life = self.not_after.saturating_sub(self.not_before);
        self.not_after.saturating_sub(now).saturating_mul(4) < life
    }

    /// The facts of `certificate`, whose DER is `der`.
    pub(super) fn of(der: &[u8], certificate: &X509Certificate<'_>) -> Result<Self, Unproved> {
        let (names, addresses) = alternative_names(certificate)?;
        let validity = certificate.validity();
        Ok(Self {
            names,
            addresses,
            common_names: certificate.subject().iter_common_name().filter_map(common_name).collect(),
            key_type: PublicKey::of(certificate.public_key()).1,
            serial: serial(certificate.raw_serial()),
            sha256: sha256(der),
            sha1: sha1(der),
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
            is_self_signed: issued(certificate, certificate),
            issuer_is_staging: is_staging(certificate.issuer()),
            demands_ocsp: demands_ocsp(certificate),
        })
    }
}

/// Parses the certificate at this place of a chain.
pub(super) fn parse(der: &[u8], place: usize) -> Result<X509Certificate<'_>, Unproved> {
    let unreadable = |what| Err(unreadable(place, what));
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) if well_formed::certificate(der).is_some() => Ok(certificate),
        Ok(([], _)) => unreadable("is damaged"),
        Ok(_) => unreadable("is followed by other bytes in its block"),
        Err(_) => unreadable("isn't an X.509 certificate"),
    }
}

/// What is wrong with the certificate at this place of a chain.
pub(super) fn unreadable(place: usize, what: &str) -> Unproved {
    Flaw::CertificateUnreadable.because(format!("the {} certificate {what}", ordinal(place + 1)))
}

/// Whether one of the names that a staging CA goes by begins with `(STAGING)`.
pub(super) fn is_staging(issuer: &X509Name<'_>) -> bool {
    texts(issuer.iter_common_name().chain(issuer.iter_organization()))
        .any(|name| name.starts_with("(STAGING)"))
}

/// Whether its TLS features (RFC 7633: `1.3.6.1.5.5.7.1.24`, a sequence of small integers) have `status_request`, 5.
fn demands_ocsp(certificate: &X509Certificate<'_>) -> bool {
    const TLS_FEATURE: [u8; 8] = [0x2b, 6, 1, 5, 5, 7, 1, 24];
    let is_feature = |extension: &&X509Extension<'_>| extension.oid.as_bytes() == TLS_FEATURE;
    let feature = certificate.extensions().iter().find(is_feature);
    feature.is_some_and(|feature| feature.value.windows(3).any(|triple| triple == [2, 1, 5]))
}

fn texts<'a>(
    attributes: impl Iterator<Item = &'a x509_parser::x509::AttributeTypeAndValue<'a>>,
) -> impl Iterator<Item = &'a str> {
    attributes.filter_map(|attribute| attribute.as_str().ok())
}

fn common_name(attribute: &AttributeTypeAndValue<'_>) -> Option<String> {
    let value = attribute.attr_value();
    Some(text::of(value.tag().0, value.data)?.to_ascii_lowercase())
}

/// What a reader of C strings takes of a text.
fn before_nul(text: &str) -> &str {
    text.split_once('\0').map_or(text, |(before, _)| before)
}

/// All names, and the places of the IP addresses among them.
///
/// OpenSSL gives HAProxy no names where they are damaged or there twice, a client may see some all the same.
fn alternative_names(certificate: &X509Certificate<'_>) -> Result<(Vec<String>, Vec<usize>), Unproved> {
    const ALTERNATIVE_NAMES: [u8; 3] = [0x55, 0x1d, 0x11];
    let mut all = certificate.extensions().iter().filter(|it| it.oid.as_bytes() == ALTERNATIVE_NAMES);
    match (all.next(), all.next()) {
        (None, _) => Ok((Vec::new(), Vec::new())),
        (Some(extension), None) => general_names(extension).ok_or_else(|| unreadable(0, "has damaged names")),
        (Some(_), Some(_)) => Err(unreadable(0, "has two lists of names")),
    }
}

/// DNS names as OpenSSL reads them: `IA5String`s, whose other bytes it takes for Latin-1.
fn general_names(extension: &X509Extension<'_>) -> Option<(Vec<String>, Vec<usize>)> {
    let ParsedExtension::SubjectAlternativeName(parsed) = extension.parsed_extension() else { return None };
    // What x509-parser wants of strings OpenSSL doesn't ask for: e-mail, DNS name, URI.
    let is_damaged =
        |name: &GeneralName<'_>| matches!(name, GeneralName::Invalid(tag, _) if ![1, 2, 6].contains(&tag.0));
    if parsed.general_names.iter().any(is_damaged) {
        return None;
    }
    let (mut names, mut addresses) = (Vec::new(), Vec::new());
    let mut elements = Der::sequence(extension.value)?;
    while let Some(tag) = elements.tag() {
        let contents = elements.read(tag)?;
        match tag {
            0x82 => names.push(text::latin_1(contents).to_ascii_lowercase()),
            0x87 => {
                if let Some(address) = address_text(contents) {
                    addresses.push(names.len());
                    names.push(address);
                }
            }
            0x81 | 0x86 | 0x88 | 0xa0 | 0xa3 | 0xa4 | 0xa5 => (),
            _ => return None,
        }
    }
    Some((names, addresses))
}

fn address_text(address: &[u8]) -> Option<String> {
    let v4 = <[u8; 4]>::try_from(address).map(|bytes| Ipv4Addr::from(bytes).to_string());
    let v6 = <[u8; 16]>::try_from(address).map(|bytes| Ipv6Addr::from(bytes).to_string());
    v4.or(v6).ok()
}

/// The contents of an `INTEGER` as OpenSSL writes it: sign and magnitude.
fn serial(contents: &[u8]) -> String {
    let negative = contents.first().is_some_and(|&first| first >= 0x80);
    let mut magnitude = contents.to_vec();
    if negative {
        let mut carry = true;
        for byte in magnitude.iter_mut().rev() {
            (*byte, carry) = (!*byte).overflowing_add(u8::from(carry));
        }
    }
    let zeros = magnitude.iter().take_while(|&&byte| byte == 0).count();
    let significant = magnitude.get(zeros..).filter(|digits| !digits.is_empty()).unwrap_or(&[0]);
    let mut text = String::from(if negative { "-" } else { "" });
    for byte in significant {
        // Writing to a String never fails.
        let _ = write!(text, "{byte:02X}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::serial;

    #[test]
    fn serials_are_written_as_openssl_does() {
        use openssl::asn1::Asn1Integer;
        use openssl::bn::BigNum;
        for (contents, text) in [
            (&[0][..], "00"),
            (&[0x0f], "0F"),
            (&[0x00, 0x80], "80"),
            (&[0x04, 0xab, 0xcd], "04ABCD"),
            (&[0xff], "-01"),
            (&[0x80], "-80"),
            (&[0xff, 0x7f], "-81"),
            (&[0x80, 0x00], "-8000"),
        ] {
            assert_eq!(serial(contents), text);
            let number = BigNum::from_hex_str(text).unwrap();
            let integer = Asn1Integer::from_bn(&number).unwrap();
            assert_eq!(integer.to_bn().unwrap(), number);
        }
    }
}
