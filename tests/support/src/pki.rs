//! Test keys, and a test CA with a root and an intermediate.

use std::cell::Cell;
use std::net::IpAddr;
use std::path::Path;
use std::sync::OnceLock;

use openssl::asn1::{Asn1Object, Asn1OctetString, Asn1Time};
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::{X509, X509Extension, X509Name};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use time::{Duration, OffsetDateTime};

use super::tls::ServedCertificate;

/// The kinds of private key that certbot makes, and one that users bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// ECDSA on secp256r1, certbot's default.
    P256,
    /// ECDSA on secp384r1.
    P384,
    /// ECDSA on secp521r1.
    P521,
    /// RSA with 2048 bits.
    Rsa2048,
    /// RSA with 4096 bits.
    Rsa4096,
    /// Ed25519.
    Ed25519,
}

impl KeyKind {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::P256, Self::P384, Self::P521, Self::Rsa2048, Self::Rsa4096, Self::Ed25519];

    /// The `key_type` of the JSON report.
    pub fn name(self) -> &'static str {
        match self {
            Self::P256 => "ecdsa-p256",
            Self::P384 => "ecdsa-p384",
            Self::P521 => "ecdsa-p521",
            Self::Rsa2048 => "rsa-2048",
            Self::Rsa4096 => "rsa-4096",
            Self::Ed25519 => "ed25519",
        }
    }
}

/// A private key, made by OpenSSL.
#[derive(Clone)]
pub struct Key(PKey<Private>);

impl Key {
    /// A new key. Slow for RSA: [`Key::some`] is enough for most tests.
    pub fn fresh(kind: KeyKind) -> Self {
        let ec = |curve| {
            PKey::from_ec_key(EcKey::generate(&EcGroup::from_curve_name(curve).unwrap()).unwrap()).unwrap()
        };
        let rsa = |bits| PKey::from_rsa(Rsa::generate(bits).unwrap()).unwrap();
        Self(match kind {
            KeyKind::P256 => ec(Nid::X9_62_PRIME256V1),
            KeyKind::P384 => ec(Nid::SECP384R1),
            KeyKind::P521 => ec(Nid::SECP521R1),
            KeyKind::Rsa2048 => rsa(2048),
            KeyKind::Rsa4096 => rsa(4096),
            KeyKind::Ed25519 => PKey::generate_ed25519().unwrap(),
        })
    }

    /// A key that differs from the one that this thread was given before. RSA keys come from a few that are made once
    /// per process: [`Key::fresh`] where all of them must differ.
    pub fn some(kind: KeyKind) -> Self {
        static RSA_2048: [OnceLock<Key>; 4] = [const { OnceLock::new() }; 4];
        static RSA_4096: [OnceLock<Key>; 2] = [const { OnceLock::new() }; 2];
        thread_local!(static TURN: Cell<usize> = const { Cell::new(0) });
        let pool: &[OnceLock<Self>] = match kind {
            KeyKind::Rsa2048 => &RSA_2048,
            KeyKind::Rsa4096 => &RSA_4096,
            _ => return Self::fresh(kind),
        };
        let turn = TURN.get();
        TURN.set(turn + 1);
        pool[turn % pool.len()].get_or_init(|| Self::fresh(kind)).clone()
    }

    /// PKCS#8 version 1 as PEM, as most versions of certbot write it.
    pub fn pem(&self) -> String {
        text(self.0.private_key_to_pem_pkcs8().unwrap())
    }

    /// `RSA PRIVATE KEY` or `EC PRIVATE KEY` as PEM, as certbot 3.1 wrote it.
    pub fn traditional_pem(&self) -> String {
        if let Ok(rsa) = self.0.rsa() {
            text(rsa.private_key_to_pem().unwrap())
        } else {
            text(self.0.ec_key().unwrap().private_key_to_pem().unwrap())
        }
    }

    /// The public half, DER.
    pub fn spki(&self) -> Vec<u8> {
        self.0.public_key_to_der().unwrap()
    }

    /// OpenSSL's own view of it.
    pub fn openssl(&self) -> &PKey<Private> {
        &self.0
    }

    fn rcgen(&self) -> KeyPair {
        KeyPair::from_pem(&self.pem()).unwrap()
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[test key]")
    }
}

/// When a certificate is valid.
#[derive(Debug, Clone, Copy)]
pub struct Validity {
    /// From this second on.
    pub not_before: OffsetDateTime,
    /// Until this second.
    pub not_after: OffsetDateTime,
}

impl Validity {
    /// From an hour ago (as Let's Encrypt backdates) until `days` days from then.
    pub fn days(days: i64) -> Self {
        Self::between(-Duration::HOUR, Duration::days(days) - Duration::HOUR)
    }

    /// Ended yesterday, after 90 days.
    pub fn expired() -> Self {
        Self::between(Duration::days(-91), Duration::days(-1))
    }

    /// Begins tomorrow, for 90 days.
    pub fn not_yet() -> Self {
        Self::between(Duration::days(1), Duration::days(91))
    }

    /// 90 days, of which this part (0.0 to 1.0) is left.
    pub fn left(part: f64) -> Self {
        let life = Duration::days(90);
        Self::between(life * part - life, life * part)
    }

    /// Both ends relative to now.
    pub fn between(from: Duration, to: Duration) -> Self {
        let now = OffsetDateTime::now_utc().replace_nanosecond(0).unwrap();
        Self { not_before: now + from, not_after: now + to }
    }
}

/// A leaf certificate with its key and the chain that belongs to it.
#[derive(Debug, Clone)]
pub struct Leaf {
    /// The private key.
    pub key: Key,
    /// The certificate as PEM: certbot's `cert.pem`.
    pub cert: String,
    /// What follows it: certbot's `chain.pem`.
    pub chain: String,
}

impl Leaf {
    /// certbot's `fullchain.pem`.
    pub fn fullchain(&self) -> String {
        format!("{}{}", self.cert, self.chain)
    }

    /// Key and chain in one PEM: what HAProxy loads.
    pub fn combined(&self) -> String {
        format!("{}{}", self.key.pem(), self.fullchain())
    }

    /// OpenSSL's own view of the certificate.
    pub fn x509(&self) -> X509 {
        X509::from_pem(self.cert.as_bytes()).unwrap()
    }

    /// What a server presents that has it.
    pub fn served(&self) -> ServedCertificate {
        let chain = X509::stack_from_pem(self.chain.as_bytes()).unwrap();
        ServedCertificate::of(&self.x509(), 1 + chain.len())
    }

    /// Its serial number, as openssl prints it.
    pub fn serial(&self) -> String {
        self.served().serial
    }
}

/// A test CA: a root, and an intermediate that issues.
pub struct Authority {
    root: String,
    intermediate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new one.
    pub fn new() -> Self {
        Self::named("haproxy-certs TEST CA, do not trust")
    }

    /// A new one whose certificates have subjects that begin with `name`: `(STAGING) …`.
    pub fn named(name: &str) -> Self {
        let validity = Validity::between(Duration::days(-4000), Duration::days(4000));
        let ca = |subject: String, depth: u8| {
            let mut params = params(&subject, validity);
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(depth));
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            params
        };
        let root_key = Key::fresh(KeyKind::P256).rcgen();
        let root_params = ca(format!("{name} (root)"), 1);
        let root = root_params.self_signed(&root_key).unwrap().pem();
        let root_issuer = Issuer::new(root_params, root_key);
        let key = Key::fresh(KeyKind::P256).rcgen();
        let mut params = ca(format!("{name} (intermediate)"), 0);
        // Python 3.13 and later asks for it.
        params.use_authority_key_identifier_extension = true;
        let intermediate = params.signed_by(&key, &root_issuer).unwrap().pem();
        Self { root: lf(&root), intermediate: lf(&intermediate), issuer: Issuer::new(params, key) }
    }

    /// The root certificate, PEM.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// The intermediate certificate, PEM: the chain of every leaf.
    pub fn intermediate(&self) -> &str {
        &self.intermediate
    }

    /// Issues a certificate for `names` (DNS names, wildcards, IP addresses) with a new key.
    pub fn issue(&self, kind: KeyKind, names: &[&str], validity: Validity) -> Leaf {
        self.issue_for(&Key::some(kind), names, validity)
    }

    /// Issues a certificate for a key that is there already.
    pub fn issue_for(&self, key: &Key, names: &[&str], validity: Validity) -> Leaf {
        let mut params = params(&format!("haproxy-certs test {}", names.first().unwrap_or(&"")), validity);
        params.subject_alt_names = alternative_names(names);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let cert = params.signed_by(&key.rcgen(), &self.issuer).unwrap().pem();
        Leaf { key: key.clone(), cert: lf(&cert), chain: self.intermediate.clone() }
    }

    /// Issues a certificate whose names are these bytes: common names with the tags of their strings, and DNS names.
    pub fn issue_raw(&self, common_names: &[(u8, &[u8])], dns_names: &[&[u8]]) -> Leaf {
        let key = Key::fresh(KeyKind::P256);
        let issuer = X509::from_pem(self.intermediate.as_bytes()).unwrap();
        let issuer_key = PKey::private_key_from_pem(self.issuer.key().serialize_pem().as_bytes()).unwrap();
        let attribute = |(tag, text): &(u8, &[u8])| {
            let text = element(*tag, text);
            element(0x31, &element(0x30, &[&[0x06, 3, 0x55, 0x04, 0x03][..], &text].concat()))
        };
        let subject: Vec<u8> = common_names.iter().flat_map(attribute).collect();
        let mut builder = X509::builder().unwrap();
        builder.set_version(2).unwrap();
        let mut serial = BigNum::new().unwrap();
        serial.rand(120, MsbOption::MAYBE_ZERO, false).unwrap();
        builder.set_serial_number(&serial.to_asn1_integer().unwrap()).unwrap();
        builder.set_issuer_name(issuer.subject_name()).unwrap();
        builder.set_subject_name(&X509Name::from_der(&element(0x30, &subject)).unwrap()).unwrap();
        builder.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
        builder.set_not_after(&Asn1Time::days_from_now(90).unwrap()).unwrap();
        builder.set_pubkey(&key.0).unwrap();
        if !dns_names.is_empty() {
            let names: Vec<u8> = dns_names.iter().flat_map(|name| element(0x82, name)).collect();
            let names = Asn1OctetString::new_from_bytes(&element(0x30, &names)).unwrap();
            let oid = Asn1Object::from_str("2.5.29.17").unwrap();
            builder.append_extension(X509Extension::new_from_der(&oid, false, &names).unwrap()).unwrap();
        }
        builder.sign(&issuer_key, MessageDigest::sha256()).unwrap();
        let cert = text(builder.build().to_pem().unwrap());
        Leaf { key, cert, chain: self.intermediate.clone() }
    }

    /// Issues a certificate for a server that is a client too, without a CN: etcd takes one for a user's name.
    pub fn issue_for_both(&self, names: &[&str]) -> Leaf {
        let key = Key::fresh(KeyKind::P256);
        let mut params = params("", Validity::days(90));
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = alternative_names(names);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let cert = params.signed_by(&key.rcgen(), &self.issuer).unwrap().pem();
        Leaf { key, cert: lf(&cert), chain: self.intermediate.clone() }
    }

    /// Writes `NAME.pem` (chain and root are left out) and `NAME.key` for a server on localhost; for a test's own API.
    pub fn localhost(&self, folder: &Path) -> (std::path::PathBuf, std::path::PathBuf) {
        let leaf = self.issue(KeyKind::P256, &["localhost", "127.0.0.1"], Validity::days(30));
        let (cert, key) = (folder.join("localhost.pem"), folder.join("localhost.key"));
        std::fs::write(&cert, leaf.fullchain()).unwrap();
        std::fs::write(&key, leaf.key.pem()).unwrap();
        (cert, key)
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[test CA]")
    }
}

/// A DER element; at most 255 bytes fit.
fn element(tag: u8, contents: &[u8]) -> Vec<u8> {
    let length = u8::try_from(contents.len()).unwrap();
    let long: &[u8] = if length < 0x80 { &[] } else { &[0x81] };
    [&[tag], long, &[length], contents].concat()
}

/// DNS names, wildcards and IP addresses.
fn alternative_names(names: &[&str]) -> Vec<SanType> {
    let name = |name: &&str| match name.parse::<IpAddr>() {
        Ok(address) => SanType::IpAddress(address),
        Err(_) => SanType::DnsName((*name).try_into().unwrap()),
    };
    names.iter().map(name).collect()
}

fn params(subject: &str, validity: Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    // At most 64 characters fit into a common name.
    params.distinguished_name.push(DnType::CommonName, subject.chars().take(64).collect::<String>());
    params.not_before = validity.not_before;
    params.not_after = validity.not_after;
    let mut serial = [0; 16];
    openssl::rand::rand_bytes(&mut serial).unwrap();
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params
}

/// rcgen writes CRLF where its pem crate does: certbot and OpenSSL write LF.
fn lf(pem: &str) -> String {
    pem.replace('\r', "")
}

fn text(pem: Vec<u8>) -> String {
    String::from_utf8(pem).unwrap()
}
