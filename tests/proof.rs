//! The proof, judged by OpenSSL and by a real HAProxy: every accepted pair belongs and loads, every other one is
//! refused for exactly the reason that the contract names.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]
#![allow(clippy::many_single_char_names, clippy::too_many_lines, reason = "RSA's own names; tables of cases")]

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use haproxy_certs::certified_key::{
    CertifiedKey, ChainState, Flaw, KeyType, has_private_key, hex, read_leaf,
};
use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey, EcPoint};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::sign::{Signer, Verifier};
use openssl::symm::Cipher;
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::{X509, X509Builder, X509NameBuilder};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use support::summary::Count;

const CASES: u32 = 3000;

type Key = PKey<Private>;

// ---- what the cases are made of

fn ec(curve: Nid) -> Key {
    PKey::from_ec_key(EcKey::generate(&EcGroup::from_curve_name(curve).unwrap()).unwrap()).unwrap()
}

fn p256() -> Key {
    ec(Nid::X9_62_PRIME256V1)
}

fn rsa(bits: u32) -> Key {
    PKey::from_rsa(Rsa::generate(bits).unwrap()).unwrap()
}

/// The object identifiers, as whole elements.
const EC_OID: &[u8] = &[6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
const P256_OID: &[u8] = &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
const P384_OID: &[u8] = &[6, 5, 0x2b, 0x81, 4, 0, 0x22];
const RSA_OID: &[u8] = &[6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
const RSA_PSS_OID: &[u8] = &[6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 10];
const ED25519_OID: &[u8] = &[6, 3, 0x2b, 0x65, 0x70];
const NULL: &[u8] = &[5, 0];

fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let contents = parts.concat();
    let length = u32::try_from(contents.len()).unwrap().to_be_bytes();
    let mut der = vec![tag];
    match contents.len() {
        0..0x80 => der.push(length[3]),
        0x80..0x100 => der.extend([0x81, length[3]]),
        _ => der.extend([0x82, length[2], length[3]]),
    }
    der.extend(contents);
    der
}

fn integer(number: &[u8]) -> Vec<u8> {
    if number.first().is_none_or(|&first| first >= 0x80) {
        tlv(2, &[&[0], number])
    } else {
        tlv(2, &[number])
    }
}

fn pem(label: &str, der: &[u8]) -> Vec<u8> {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new(label, der), config).into_bytes()
}

fn der_of(pem_text: &[u8]) -> Vec<u8> {
    pem::parse(pem_text).unwrap().into_contents()
}

fn pkcs8(version: u8, algorithm: &[&[u8]], key: &[u8], rest: &[&[u8]]) -> Vec<u8> {
    let (algorithm, key, rest) = (tlv(0x30, algorithm), tlv(4, &[key]), rest.concat());
    tlv(0x30, &[&[2, 1, version], &algorithm, &key, &rest])
}

/// SEC1 with the parts that are wanted; `curve` is the whole element.
fn sec1(number: &[u8], curve: Option<&[u8]>, point: Option<&[u8]>) -> Vec<u8> {
    let curve = curve.map_or(Vec::new(), |oid| tlv(0xa0, &[oid]));
    let point = point.map_or(Vec::new(), |point| tlv(0xa1, &[&tlv(3, &[&[0], point])]));
    tlv(0x30, &[&[2, 1, 1], &tlv(4, &[number]), &curve, &point])
}

fn number(key: &Key, length: i32) -> Vec<u8> {
    key.ec_key().unwrap().private_key().to_vec_padded(length).unwrap()
}

fn point(key: &Key, form: openssl::ec::PointConversionForm) -> Vec<u8> {
    let key = key.ec_key().unwrap();
    let mut context = openssl::bn::BigNumContext::new().unwrap();
    key.public_key().to_bytes(key.group(), form, &mut context).unwrap()
}

fn uncompressed(key: &Key) -> Vec<u8> {
    point(key, openssl::ec::PointConversionForm::UNCOMPRESSED)
}

/// The numbers n, e, d, p, q, dP, dQ, qInv.
fn rsa_numbers(key: &Key) -> [Vec<u8>; 8] {
    let rsa = key.rsa().unwrap();
    [
        rsa.n().to_vec(),
        rsa.e().to_vec(),
        rsa.d().to_vec(),
        rsa.p().unwrap().to_vec(),
        rsa.q().unwrap().to_vec(),
        rsa.dmp1().unwrap().to_vec(),
        rsa.dmq1().unwrap().to_vec(),
        rsa.iqmp().unwrap().to_vec(),
    ]
}

fn pkcs1(numbers: &[Vec<u8>; 8]) -> Vec<u8> {
    let numbers: Vec<u8> = numbers.iter().flat_map(|number| integer(number)).collect();
    tlv(0x30, &[&[2, 1, 0], &numbers])
}

fn openssl(args: &[&str], stdin: &[u8]) -> Vec<u8> {
    let mut child = Command::new("openssl")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("no openssl: apt-get install openssl");
    child.stdin.take().unwrap().write_all(stdin).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

// ---- a CA

struct Issuer {
    name: &'static str,
    key: Key,
    certificate: X509,
}

fn name(common_name: &str) -> openssl::x509::X509Name {
    let mut name = X509NameBuilder::new().unwrap();
    name.append_entry_by_nid(Nid::COMMONNAME, common_name).unwrap();
    name.build()
}

/// A certificate for the public half of `key`; without an issuer it signs itself.
fn certificate(common_name: &str, key: &Key, issuer: Option<&Issuer>) -> X509 {
    let mut builder = builder(common_name, key, issuer.map_or(common_name, |issuer| issuer.name));
    let signer = issuer.map_or(key, |issuer| &issuer.key);
    builder.sign(signer, digest(signer)).unwrap();
    builder.build()
}

fn digest(key: &Key) -> MessageDigest {
    match key.id() {
        openssl::pkey::Id::ED25519 | openssl::pkey::Id::ED448 => MessageDigest::null(),
        _ => MessageDigest::sha256(),
    }
}

fn builder(common_name: &str, key: &Key, issuer: &str) -> X509Builder {
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    let mut serial = BigNum::new().unwrap();
    serial.rand(120, openssl::bn::MsbOption::ONE, false).unwrap();
    builder.set_serial_number(&serial.to_asn1_integer().unwrap()).unwrap();
    builder.set_subject_name(&name(common_name)).unwrap();
    builder.set_issuer_name(&name(issuer)).unwrap();
    builder.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
    builder.set_not_after(&Asn1Time::days_from_now(30).unwrap()).unwrap();
    builder.set_pubkey(key).unwrap();
    builder.append_extension(BasicConstraints::new().ca().build().unwrap()).unwrap();
    let names =
        SubjectAlternativeName::new().dns(common_name).build(&builder.x509v3_context(None, None)).unwrap();
    builder.append_extension(names).unwrap();
    builder
}

fn issuer(name: &'static str, key: Key, above: Option<&Issuer>) -> Issuer {
    Issuer { name, certificate: certificate(name, &key, above), key }
}

/// The intermediate that issues the leaves of the cases.
fn intermediate() -> &'static Issuer {
    static INTERMEDIATE: OnceLock<Issuer> = OnceLock::new();
    INTERMEDIATE.get_or_init(|| issuer("Intermediate", p256(), Some(&issuer("Root", p256(), None))))
}

/// The chain of two for this key.
fn chain(key: &Key) -> Vec<u8> {
    let leaf = certificate("example.org", key, Some(intermediate()));
    [leaf.to_pem().unwrap(), intermediate().certificate.to_pem().unwrap()].concat()
}

/// The chain of two for a key that the openssl crate can't build a certificate for.
fn chain_by_program(key_pem: &[u8], args: &[&str]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let key_file = folder.path().join("key.pem");
    fs::write(&key_file, key_pem).unwrap();
    let mut all = vec!["req", "-x509", "-new", "-subj", "/CN=example.org", "-days", "30"];
    all.extend(["-key", key_file.to_str().unwrap()]);
    all.extend(args);
    openssl(&all, b"")
}

// ---- the cases

struct Case {
    name: String,
    key: Vec<u8>,
    chain: Vec<u8>,
    /// The label of the written key, or the flaw.
    expected: Result<&'static str, Flaw>,
}

#[derive(Default)]
struct Cases(Vec<Case>);

impl Cases {
    fn good(
        &mut self,
        name: impl Into<String>,
        label: &'static str,
        key: impl AsRef<[u8]>,
        chain: impl AsRef<[u8]>,
    ) {
        self.push(name, Ok(label), key, chain);
    }

    fn bad(&mut self, flaw: Flaw, name: impl Into<String>, key: impl AsRef<[u8]>, chain: impl AsRef<[u8]>) {
        self.push(name, Err(flaw), key, chain);
    }

    fn push(
        &mut self,
        name: impl Into<String>,
        expected: Result<&'static str, Flaw>,
        key: impl AsRef<[u8]>,
        chain: impl AsRef<[u8]>,
    ) {
        let (key, chain) = (key.as_ref().to_vec(), chain.as_ref().to_vec());
        self.0.push(Case { name: name.into(), key, chain, expected });
    }

    /// Judges every case; HAProxy loads all accepted ones in one run.
    fn judge(self) {
        let folder = tempfile::tempdir().unwrap();
        let sites = folder.path().join("sites");
        fs::create_dir(&sites).unwrap();
        let mut accepted = 0;
        for case in self.0 {
            let proved = CertifiedKey::prove(&case.key, &case.chain);
            match (case.expected, proved) {
                (Ok(label), Ok(proved)) => {
                    judge(&case.name, label, &case.chain, &proved);
                    let file: String =
                        case.name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
                    let file = sites.join(format!("{file}.pem"));
                    assert!(!file.exists(), "two cases are called {}", case.name);
                    fs::write(file, proved.combined_pem().as_bytes()).unwrap();
                    accepted += 1;
                }
                (Err(flaw), Err(unproved)) => {
                    assert_eq!(unproved.flaw, flaw, "{}: {unproved}", case.name);
                    assert!(
                        unproved.detail.bytes().all(|byte| (b' '..=b'~').contains(&byte)),
                        "{}",
                        case.name
                    );
                    assert!(unproved.detail.len() < 120, "{}: {}", case.name, unproved.detail);
                }
                (Ok(_), Err(unproved)) => panic!("{}: refused, {}: {unproved}", case.name, unproved.flaw),
                (Err(flaw), Ok(_)) => panic!("{}: accepted, but it is {flaw}", case.name),
            }
        }
        if accepted > 0 {
            haproxy_loads(folder.path());
        }
    }
}

/// OpenSSL's verdict about an accepted pair, and the form of the text.
fn judge(name: &str, label: &str, chain: &[u8], proved: &CertifiedKey) {
    let combined = proved.combined_pem();
    let text = str::from_utf8(combined.as_bytes()).unwrap();
    belongs(text.as_bytes()).unwrap_or_else(|why| panic!("{name}: {why}"));

    assert!(
        text.starts_with(&format!("-----BEGIN {label}-----\n")),
        "{name}: {}",
        text.lines().next().unwrap()
    );
    assert!(text.ends_with("-----END CERTIFICATE-----\n"), "{name}");
    assert!(text.lines().all(|line| (1..=64).contains(&line.len())), "{name}");
    assert!(!text.contains('\r'), "{name}");
    assert_eq!(text.matches("PRIVATE KEY-----\n").count(), 2, "{name}");
    assert_eq!(text.matches("-----BEGIN CERTIFICATE-----\n").count(), 1 + proved.chain().len(), "{name}");
    let again = CertifiedKey::prove(text.as_bytes(), text.as_bytes()).unwrap();
    assert_eq!(again.combined_pem().as_bytes(), text.as_bytes(), "{name}: not canonical");
    assert_eq!(combined.sha256().as_slice(), openssl::sha::sha256(text.as_bytes()), "{name}");
    assert_eq!(read_leaf(text.as_bytes()).unwrap(), *proved.leaf(), "{name}");
    assert_eq!(read_leaf(chain).unwrap(), *proved.leaf(), "{name}");
    assert!(has_private_key(text.as_bytes()), "{name}");
    // Nothing of the key, in whatever spelling.
    let printed = format!("{proved:?} {combined:?}");
    assert!(printed.contains("[private key]"), "{name}");
    let key = PKey::private_key_from_pem(text.as_bytes()).unwrap();
    let secret = match (key.rsa(), key.ec_key()) {
        (Ok(rsa), _) => rsa.d().to_vec(),
        (_, Ok(ec)) => ec.private_key().to_vec(),
        _ => key.raw_private_key().unwrap(),
    };
    for printed in [printed, format!("{:?}", proved.chain())] {
        assert!(!printed.contains(format!("{:?}", &secret[..8]).trim_matches(['[', ']'])), "{name}");
        assert!(!printed.to_lowercase().contains(&hex(&secret[..8])), "{name}");
    }
}

/// Whether the first key belongs to the first certificate: public halves, and a signature.
fn belongs(combined: &[u8]) -> Result<(), String> {
    let leaf =
        X509::stack_from_pem(combined).map_err(|why| format!("OpenSSL can't read the chain: {why}"))?;
    let key =
        PKey::private_key_from_pem(combined).map_err(|why| format!("OpenSSL can't read the key: {why}"))?;
    let public = leaf[0].public_key().map_err(|why| format!("OpenSSL can't read the leaf's key: {why}"))?;
    if !key.public_eq(&public) {
        return Err("the public halves differ".into());
    }
    let ed25519 = key.id() == openssl::pkey::Id::ED25519;
    let (mut signer, mut verifier) = if ed25519 {
        (Signer::new_without_digest(&key).unwrap(), Verifier::new_without_digest(&public).unwrap())
    } else {
        let digest = MessageDigest::sha256();
        (Signer::new(digest, &key).unwrap(), Verifier::new(digest, &public).unwrap())
    };
    let signature = signer.sign_oneshot_to_vec(b"proof").map_err(|why| format!("can't sign: {why}"))?;
    match verifier.verify_oneshot(&signature, b"proof") {
        Ok(true) => Ok(()),
        _ => Err("the signature is wrong".into()),
    }
}

/// HAProxy's verdict about the directory `sites` in this folder.
fn haproxy_loads(folder: &std::path::Path) {
    let config = folder.join("haproxy.cfg");
    fs::write(
        &config,
        format!(
            "defaults\n mode http\n timeout client 1s\n timeout server 1s\n timeout connect 1s\n\
             frontend f\n bind 127.0.0.1:1 ssl crt {}\n",
            folder.join("sites").display()
        ),
    )
    .unwrap();
    let output = Command::new("/usr/sbin/haproxy")
        .args(["-c", "-f"])
        .arg(&config)
        .output()
        .expect("no HAProxy: apt-get install haproxy");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn keys_of_every_supported_type_and_format() {
    let mut cases = Cases::default();
    for (name, key) in [
        ("P-256", p256()),
        ("P-384", ec(Nid::SECP384R1)),
        ("P-521", ec(Nid::SECP521R1)),
        ("RSA 2048", rsa(2048)),
        ("RSA 3072", rsa(3072)),
        ("RSA 4096", rsa(4096)),
        ("Ed25519", PKey::generate_ed25519().unwrap()),
    ] {
        let chain = chain(&key);
        let p8 = key.private_key_to_pem_pkcs8().unwrap();
        cases.good(format!("{name} PKCS#8"), "PRIVATE KEY", &p8, &chain);
        if let Ok(key) = key.rsa() {
            cases.good(
                format!("{name} PKCS#1"),
                "RSA PRIVATE KEY",
                key.private_key_to_pem().unwrap(),
                &chain,
            );
        }
        if let Ok(key) = key.ec_key() {
            cases.good(format!("{name} SEC1"), "EC PRIVATE KEY", key.private_key_to_pem().unwrap(), &chain);
        }
        let encrypted = key.private_key_to_pem_pkcs8_passphrase(Cipher::aes_128_cbc(), b"secret").unwrap();
        cases.bad(Flaw::KeyEncrypted, format!("{name} encrypted PKCS#8"), encrypted, &chain);
        cases.bad(
            Flaw::KeyMismatch,
            format!("{name} mismatch"),
            p256().private_key_to_pem_pkcs8().unwrap(),
            &chain,
        );
    }
    cases.judge();
}

#[test]
fn rsa_keys_at_the_upper_end() {
    let mut cases = Cases::default();
    // One prime is a well-known one: two would take long to find.
    let p = BigNum::get_rfc3526_prime_4096().unwrap();
    for (bits, expected) in [(4096, Ok("RSA PRIVATE KEY")), (4097, Err(Flaw::KeyUnsupported))] {
        let context = &mut openssl::bn::BigNumContext::new().unwrap();
        let new = || BigNum::new().unwrap();
        let (mut q, one, e) = (new(), BigNum::from_u32(1).unwrap(), BigNum::from_u32(65537).unwrap());
        q.generate_prime(bits, false, None, None).unwrap();
        let (mut n, mut p1, mut q1, mut phi) = (new(), new(), new(), new());
        n.checked_mul(&p, &q, context).unwrap();
        p1.checked_sub(&p, &one).unwrap();
        q1.checked_sub(&q, &one).unwrap();
        phi.checked_mul(&p1, &q1, context).unwrap();
        let (mut d, mut dp, mut dq, mut inverse) = (new(), new(), new(), new());
        d.mod_inverse(&e, &phi, context).unwrap();
        dp.nnmod(&d, &p1, context).unwrap();
        dq.nnmod(&d, &q1, context).unwrap();
        inverse.mod_inverse(&q, &p, context).unwrap();
        let p = BigNum::get_rfc3526_prime_4096().unwrap();
        let key = Rsa::from_private_components(n, e, d, p, q, dp, dq, inverse).unwrap();
        let text = key.private_key_to_pem().unwrap();
        let chain = chain(&PKey::from_rsa(key).unwrap());
        assert!(matches!(read_leaf(&chain).unwrap().key_type, KeyType::Rsa(8192 | 8193)));
        cases.push(format!("RSA of 4096 and {bits} bits"), expected, text, chain);
    }
    cases.judge();
}

#[test]
fn envelopes_of_ec_keys() {
    let mut cases = Cases::default();
    let (key, other) = (p256(), p256());
    let chain = chain(&key);
    let (secret, public) = (number(&key, 32), uncompressed(&key));
    let compressed = point(&key, openssl::ec::PointConversionForm::COMPRESSED);
    let hybrid = point(&key, openssl::ec::PointConversionForm::HYBRID);
    let wrong = uncompressed(&other);
    let named = Some(P256_OID);
    let mut case = |expected, name: &str, label: &str, der: Vec<u8>| {
        cases.push(name, expected, pem(label, &der), &chain);
    };
    let (p8, s1, rsa_label) = ("PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY");
    let algorithm: &[&[u8]] = &[EC_OID, P256_OID];

    case(Ok(s1), "SEC1 without public point", s1, sec1(&secret, named, None));
    case(Ok(s1), "SEC1 with compressed point", s1, sec1(&secret, named, Some(&compressed)));
    case(
        Ok(p8),
        "SEC1 in a PKCS#8 label's place",
        rsa_label,
        pkcs8(0, algorithm, &sec1(&secret, None, None), &[]),
    );
    case(Ok(s1), "SEC1 with a label that lies", p8, sec1(&secret, named, Some(&public)));
    case(
        Ok(p8),
        "PKCS#8 with a label that lies",
        s1,
        pkcs8(0, algorithm, &sec1(&secret, None, Some(&public)), &[]),
    );
    case(Ok(p8), "PKCS#8 without public point", p8, pkcs8(0, algorithm, &sec1(&secret, None, None), &[]));
    case(
        Ok(p8),
        "PKCS#8 with the curve twice",
        p8,
        pkcs8(0, algorithm, &sec1(&secret, named, Some(&public)), &[]),
    );
    case(
        Ok(p8),
        "PKCS#8 with compressed point",
        p8,
        pkcs8(0, algorithm, &sec1(&secret, None, Some(&compressed)), &[]),
    );
    let inner = sec1(&secret, None, Some(&public));
    let attribute = tlv(0x30, &[&[6, 3, 0x55, 0x1d, 0x0f], &tlv(0x31, &[&[3, 2, 7, 0x80]])]);
    let attributes = tlv(0xa0, &[&attribute]);
    case(Ok(p8), "PKCS#8 v1 with attributes", p8, pkcs8(0, algorithm, &inner, &[&attributes]));
    case(
        Ok(p8),
        "PKCS#8 v1 with damaged attributes",
        p8,
        pkcs8(0, algorithm, &inner, &[&tlv(0xa0, &[&[0xff; 5]])]),
    );
    case(Ok(p8), "PKCS#8 v2 bare", p8, pkcs8(1, algorithm, &inner, &[]));
    let outer = tlv(0x81, &[&[0], &public]);
    case(Ok(p8), "PKCS#8 v2", p8, pkcs8(1, algorithm, &inner, &[&outer]));
    case(Ok(p8), "PKCS#8 v2 with attributes", p8, pkcs8(1, algorithm, &inner, &[&attributes, &outer]));
    let ring = tlv(0xa1, &[&tlv(3, &[&[0], &public])]);
    case(
        Ok(p8),
        "PKCS#8 v2 as ring writes it",
        p8,
        pkcs8(1, algorithm, &sec1(&secret, None, None), &[&ring]),
    );

    let bad = Err(Flaw::KeyInconsistent);
    case(bad, "SEC1 with another's point", s1, sec1(&secret, named, Some(&wrong)));
    case(bad, "SEC1 with another's number", s1, sec1(&number(&other, 32), named, Some(&public)));
    case(bad, "SEC1 with a point at infinity", s1, sec1(&secret, named, Some(&[0])));
    case(bad, "SEC1 with a point that is too short", s1, sec1(&secret, named, Some(&public[..64])));
    case(bad, "SEC1 with number zero", s1, sec1(&[0; 32], named, None));
    case(bad, "SEC1 with a number as large as the order", s1, sec1(&[0xff; 32], named, None));
    case(bad, "SEC1 with a number that is too long", s1, sec1(&[1; 33], named, None));
    case(bad, "SEC1 without a number", s1, sec1(&[], named, None));
    case(
        bad,
        "PKCS#8 with another's point",
        p8,
        pkcs8(0, algorithm, &sec1(&secret, None, Some(&wrong)), &[]),
    );
    let swapped = sec1(&number(&other, 32), None, Some(&public));
    case(bad, "PKCS#8 with another's number", p8, pkcs8(0, algorithm, &swapped, &[]));
    case(
        bad,
        "PKCS#8 v2 with another's outer point",
        p8,
        pkcs8(1, algorithm, &inner, &[&tlv(0x81, &[&[0], &wrong])]),
    );
    case(bad, "PKCS#8 with two curves", p8, pkcs8(0, algorithm, &sec1(&secret, Some(P384_OID), None), &[]));
    let mut flipped = compressed.clone();
    flipped[0] ^= 1;
    case(bad, "compressed point of the other sign", s1, sec1(&secret, named, Some(&flipped)));

    let mismatch = Err(Flaw::KeyMismatch);
    case(mismatch, "another key without public point", s1, sec1(&number(&other, 32), named, None));
    case(mismatch, "a number with one bit flipped", s1, {
        let mut secret = secret.clone();
        secret[31] ^= 1;
        sec1(&secret, named, None)
    });

    let unsupported = Err(Flaw::KeyUnsupported);
    case(unsupported, "hybrid point", s1, sec1(&secret, named, Some(&hybrid)));
    let k256 = &[6, 5, 0x2b, 0x81, 4, 0, 10][..];
    case(unsupported, "secp256k1 in PKCS#8", p8, pkcs8(0, &[EC_OID, k256], &sec1(&secret, None, None), &[]));
    case(unsupported, "secp256k1 in SEC1", s1, sec1(&secret, Some(k256), None));
    case(unsupported, "explicit parameters", s1, sec1(&secret, Some(&tlv(0x30, &[&[2, 1, 1]])), None));
    case(unsupported, "implicit parameters", s1, sec1(&secret, Some(NULL), None));
    case(
        unsupported,
        "PKCS#8 with explicit parameters",
        p8,
        pkcs8(0, &[EC_OID, &tlv(0x30, &[&[2, 1, 1]])], &inner, &[]),
    );
    case(unsupported, "an RSA-PSS key", p8, pkcs8(0, &[RSA_PSS_OID], &inner, &[]));

    let unreadable = Err(Flaw::KeyUnreadable);
    case(unreadable, "SEC1 without a curve", s1, sec1(&secret, None, Some(&public)));
    case(unreadable, "bytes behind SEC1", s1, [sec1(&secret, named, None), vec![0]].concat());
    case(unreadable, "bytes inside SEC1", s1, tlv(0x30, &[&sec1(&secret, named, None)[2..], &[5, 0]]));
    case(unreadable, "bytes behind PKCS#8", p8, [pkcs8(0, algorithm, &inner, &[]), vec![0, 0]].concat());
    case(unreadable, "PKCS#8 v1 with a public key", p8, pkcs8(0, algorithm, &inner, &[&outer]));
    case(unreadable, "PKCS#8 v3", p8, pkcs8(2, algorithm, &inner, &[]));
    case(unreadable, "PKCS#8 with garbage for a key", p8, pkcs8(0, algorithm, b"garbage", &[]));
    case(unreadable, "a certificate in a key's block", p8, intermediate().certificate.to_der().unwrap());
    case(unreadable, "garbage", p8, b"garbage".to_vec());
    case(unreadable, "a public key in a key's block", p8, key.public_key_to_der().unwrap());
    cases.judge();
}

#[test]
fn numbers_with_leading_zeros() {
    let mut cases = Cases::default();
    for (curve, oid, length) in [
        (Nid::X9_62_PRIME256V1, P256_OID, 32),
        (Nid::SECP384R1, P384_OID, 48),
        (Nid::SECP521R1, &[6, 5, 0x2b, 0x81, 4, 0, 0x23], 66),
    ] {
        let group = EcGroup::from_curve_name(curve).unwrap();
        let number = BigNum::from_slice(&vec![0x5a; length - 3]).unwrap();
        let mut public = EcPoint::new(&group).unwrap();
        public.mul_generator2(&group, &number, &mut openssl::bn::BigNumContext::new().unwrap()).unwrap();
        let key =
            PKey::from_ec_key(EcKey::from_private_components(&group, &number, &public).unwrap()).unwrap();
        for zeros in [0, 1, 3, 4] {
            let number = [vec![0; zeros], number.to_vec()].concat();
            let name = format!("a number of {} bytes for {length}", number.len());
            let sec1 = sec1(&number, Some(oid), None);
            cases.good(
                name.clone() + " in SEC1",
                "EC PRIVATE KEY",
                pem("EC PRIVATE KEY", &sec1),
                chain(&key),
            );
            let pkcs8 = pkcs8(0, &[EC_OID, oid], &sec1, &[]);
            cases.good(name + " in PKCS#8", "PRIVATE KEY", pem("PRIVATE KEY", &pkcs8), chain(&key));
        }
    }
    cases.judge();
}

#[test]
fn ec_parameters_beside_the_key() {
    let mut cases = Cases::default();
    let key = p256();
    let chain = chain(&key);
    let bare = pem("EC PRIVATE KEY", &sec1(&number(&key, 32), None, Some(&uncompressed(&key))));
    let full = key.ec_key().unwrap().private_key_to_pem().unwrap();
    let (p256, p384) = (pem("EC PARAMETERS", P256_OID), pem("EC PARAMETERS", P384_OID));
    cases.good("parameters before a whole key", "EC PRIVATE KEY", [&p256[..], &full].concat(), &chain);
    cases.good("other parameters before a whole key", "EC PRIVATE KEY", [&p384[..], &full].concat(), &chain);
    cases.good("the curve only in the parameters", "PRIVATE KEY", [&p256[..], &bare].concat(), &chain);
    let other = [&p384[..], &bare].concat();
    cases.bad(Flaw::KeyInconsistent, "another curve in the parameters", other, &chain);
    cases.bad(Flaw::KeyUnreadable, "parameters behind the key", [&bare[..], &p256].concat(), &chain);
    let damaged = b"-----BEGIN EC PARAMETERS-----\n????\n-----END EC PARAMETERS-----\n";
    cases.good(
        "damaged parameters before a whole key",
        "EC PRIVATE KEY",
        [&damaged[..], &full].concat(),
        &chain,
    );
    cases.judge();
}

#[test]
fn numbers_of_rsa_keys() {
    let mut cases = Cases::default();
    let (key, other) = (rsa(2048), rsa(2048));
    let chain = chain(&key);
    let (good, foreign) = (rsa_numbers(&key), rsa_numbers(&other));
    let mut case = |flaw, name: String, numbers: &[Vec<u8>; 8]| {
        let der = pkcs1(numbers);
        cases.bad(flaw, name.clone() + " in PKCS#1", pem("RSA PRIVATE KEY", &der), &chain);
        let der = pkcs8(0, &[RSA_OID, NULL], &der, &[]);
        cases.bad(flaw, name + " in PKCS#8", pem("PRIVATE KEY", &der), &chain);
    };
    for (place, name) in ["n", "e", "d", "p", "q", "dP", "dQ", "qInv"].into_iter().enumerate() {
        let mut numbers = good.clone();
        // The low bits of n and e say that they are odd.
        *numbers[place].last_mut().unwrap() ^= 4;
        case(Flaw::KeyInconsistent, format!("{name} with a bit flipped"), &numbers);
        if name == "e" {
            continue;
        }
        numbers[place].clone_from(&foreign[place]);
        case(Flaw::KeyInconsistent, format!("{name} of another key"), &numbers);
        if !["n"].contains(&name) {
            numbers[place] = Vec::new();
            case(Flaw::KeyInconsistent, format!("{name} zero"), &numbers);
        }
    }
    let [n, e, ..] = good.clone();
    let mut numbers = foreign.clone();
    (numbers[0], numbers[1]) = (n.clone(), e.clone());
    case(Flaw::KeyInconsistent, "another key behind the public half".into(), &numbers);
    let none = Vec::new;
    let public = [n.clone(), e.clone(), good[2].clone(), none(), none(), none(), none(), none()];
    case(Flaw::KeyInconsistent, "nothing but n, e and d".into(), &public);
    let public = [n.clone(), none(), good[2].clone(), none(), none(), none(), none(), none()];
    case(Flaw::KeyInconsistent, "nothing but n and d".into(), &public);
    let public = [n.clone(), e.clone(), foreign[2].clone(), none(), none(), none(), none(), none()];
    case(Flaw::KeyInconsistent, "nothing but n, e and another d".into(), &public);
    let mut swapped = good.clone();
    swapped.swap(3, 4);
    case(Flaw::KeyInconsistent, "p and q swapped alone".into(), &swapped);
    case(Flaw::KeyMismatch, "another key".into(), &foreign);
    let mut large = good.clone();
    large[1] = vec![1, 0, 0, 0, 0, 0, 0, 1];
    case(Flaw::KeyUnsupported, "a large public exponent".into(), &large);
    case(Flaw::KeyTooSmall, "RSA 1024".into(), &rsa_numbers(&rsa(1024)));
    case(Flaw::KeyTooSmall, "RSA 2047".into(), &rsa_numbers(&rsa(2047)));
    let mut huge = good.clone();
    huge[0] = vec![0xff; 1025];
    case(Flaw::KeyUnsupported, "RSA 8200".into(), &huge);

    // The same numbers in another order are the same key.
    let number = |at: usize| BigNum::from_slice(&good[at]).unwrap();
    let mut inverse = BigNum::new().unwrap();
    inverse.mod_inverse(&number(3), &number(4), &mut openssl::bn::BigNumContext::new().unwrap()).unwrap();
    let exchanged = [0, 1, 2, 4, 3, 6, 5].map(|at| good[at].clone());
    let [n, e, d, p, q, dp, dq] = exchanged;
    let exchanged = pkcs1(&[n, e, d, p, q, dp, dq, inverse.to_vec()]);
    cases.good("p and q exchanged", "RSA PRIVATE KEY", pem("RSA PRIVATE KEY", &exchanged), &chain);
    let whole = pkcs1(&good);
    cases.good("RSA as it is", "RSA PRIVATE KEY", pem("RSA PRIVATE KEY", &whole), &chain);
    cases.good("PKCS#1 with a label that lies", "RSA PRIVATE KEY", pem("EC PRIVATE KEY", &whole), &chain);
    let public = key.rsa().unwrap().public_key_to_der_pkcs1().unwrap();
    let v2 = pkcs8(1, &[RSA_OID, NULL], &whole, &[&tlv(0x81, &[&[0], &public])]);
    cases.good("RSA in PKCS#8 v2", "PRIVATE KEY", pem("PRIVATE KEY", &v2), &chain);
    let public = other.rsa().unwrap().public_key_to_der_pkcs1().unwrap();
    let v2 = pkcs8(1, &[RSA_OID, NULL], &whole, &[&tlv(0x81, &[&[0], &public])]);
    cases.bad(Flaw::KeyInconsistent, "RSA in PKCS#8 v2 with another's half", pem("PRIVATE KEY", &v2), &chain);
    let mut multi = whole.clone();
    multi[6] = 1;
    cases.bad(Flaw::KeyUnsupported, "more than two primes", pem("RSA PRIVATE KEY", &multi), &chain);
    let negative = tlv(0x30, &[&[2, 1, 0, 2, 1, 0x80], &whole[8..]]);
    cases.bad(Flaw::KeyUnreadable, "a negative modulus", pem("RSA PRIVATE KEY", &negative), &chain);
    let trailing = [&whole[..], &[0]].concat();
    cases.bad(Flaw::KeyUnreadable, "bytes behind PKCS#1", pem("RSA PRIVATE KEY", &trailing), &chain);
    let encrypted =
        key.rsa().unwrap().private_key_to_pem_passphrase(Cipher::aes_128_cbc(), b"secret").unwrap();
    cases.bad(Flaw::KeyEncrypted, "RFC 1421 encryption", encrypted, &chain);
    cases.judge();
}

#[test]
fn envelopes_of_ed25519_keys() {
    let mut cases = Cases::default();
    let (key, other) = (PKey::generate_ed25519().unwrap(), PKey::generate_ed25519().unwrap());
    let chain = chain(&key);
    let inner = tlv(4, &[&key.raw_private_key().unwrap()]);
    let public = key.raw_public_key().unwrap();
    let foreign = other.raw_public_key().unwrap();
    let label = "PRIVATE KEY";
    let implicit = |public: &[u8]| tlv(0x81, &[&[0], public]);
    let explicit = |public: &[u8]| tlv(0xa1, &[&tlv(3, &[&[0], public])]);
    let wrap = |version, rest: &[u8]| pem(label, &pkcs8(version, &[ED25519_OID], &inner, &[rest]));
    cases.good("Ed25519 v1", label, wrap(0, b""), &chain);
    cases.good("Ed25519 v2", label, wrap(1, &implicit(&public)), &chain);
    cases.good("Ed25519 v2 as ring writes it", label, wrap(1, &explicit(&public)), &chain);
    cases.bad(Flaw::KeyInconsistent, "Ed25519 v2 of another", wrap(1, &implicit(&foreign)), &chain);
    cases.bad(Flaw::KeyInconsistent, "Ed25519 v2 as ring, of another", wrap(1, &explicit(&foreign)), &chain);
    cases.bad(Flaw::KeyMismatch, "another Ed25519", other.private_key_to_pem_pkcs8().unwrap(), &chain);
    cases.bad(Flaw::KeyUnreadable, "Ed25519 v1 with a public half", wrap(0, &implicit(&public)), &chain);
    let parameters = pem(label, &pkcs8(0, &[ED25519_OID, NULL], &inner, &[]));
    cases.bad(Flaw::KeyUnreadable, "Ed25519 with parameters", parameters, &chain);
    let short = pem(label, &pkcs8(0, &[ED25519_OID], &tlv(4, &[&[1; 31]]), &[]));
    cases.bad(Flaw::KeyUnreadable, "a short Ed25519 seed", short, &chain);
    cases.judge();
}

#[test]
fn kinds_that_are_not_proved_here() {
    let mut cases = Cases::default();
    let ordinary = p256();
    let ordinary = (ordinary.private_key_to_pem_pkcs8().unwrap(), chain(&ordinary));
    for (name, args, oid) in [
        ("Ed448", &["genpkey", "-algorithm", "ED448"][..], "1.3.101.113"),
        (
            "secp256k1",
            &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:secp256k1"],
            "1.3.132.0.10",
        ),
        (
            "brainpoolP256r1",
            &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:brainpoolP256r1"],
            "1.3.36.3.3.2.8.1.1.7",
        ),
        ("secp256k1 in SEC1", &["ecparam", "-name", "secp256k1", "-genkey", "-noout"], "1.3.132.0.10"),
        (
            "RSA-PSS",
            &["genpkey", "-algorithm", "RSA-PSS", "-pkeyopt", "rsa_keygen_bits:2048"],
            "1.2.840.113549.1.1.10",
        ),
        (
            "explicit parameters",
            &[
                "genpkey",
                "-algorithm",
                "EC",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-pkeyopt",
                "ec_param_enc:explicit",
            ],
            "1.2.840.10045.2.1",
        ),
    ] {
        let key = openssl(args, b"");
        let chain = chain_by_program(&key, &[]);
        cases.bad(Flaw::KeyUnsupported, format!("{name} pair"), &key, &chain);
        cases.bad(Flaw::KeyUnsupported, format!("{name} certificate"), &ordinary.0, &chain);
        cases.bad(Flaw::KeyUnsupported, format!("{name} key"), &key, &ordinary.1);
        assert_eq!(read_leaf(&chain).unwrap().key_type.to_string(), oid, "{name}");
    }
    let openssh = pem("OPENSSH PRIVATE KEY", b"openssh-key-v1");
    cases.bad(Flaw::KeyUnsupported, "OpenSSH", openssh, &ordinary.1);
    let dsa = pem("DSA PRIVATE KEY", &tlv(0x30, &[&[2, 1, 0]]));
    cases.bad(Flaw::KeyUnsupported, "DSA", dsa, &ordinary.1);
    let dsa = pem("PRIVATE KEY", &pkcs8(0, &[&[6, 7, 0x2a, 0x86, 0x48, 0xce, 0x38, 4, 1]], &[2, 1, 1], &[]));
    cases.bad(Flaw::KeyUnsupported, "DSA in PKCS#8", dsa, &ordinary.1);
    cases.judge();
}

#[test]
fn a_leaf_with_a_compressed_or_hybrid_point() {
    let mut cases = Cases::default();
    for (form, expected) in [
        ("compressed", Ok("PRIVATE KEY")),
        ("hybrid", Err(Flaw::KeyUnsupported)),
        ("uncompressed", Ok("PRIVATE KEY")),
    ] {
        let conversion = format!("ec_point_format:{form}");
        let _ = conversion;
        let plain = p256();
        let text = openssl(&["pkey", "-ec_conv_form", form], &plain.private_key_to_pem_pkcs8().unwrap());
        let chain = chain_by_program(&text, &[]);
        let plain = plain.private_key_to_pem_pkcs8().unwrap();
        cases.push(format!("{form} point in the leaf"), expected, plain, &chain);
        cases.push(format!("{form} point in both"), expected, text, &chain);
    }
    cases.judge();
}

#[test]
fn certificates_of_another_algorithm_are_a_mismatch() {
    let mut cases = Cases::default();
    let keys = [p256(), ec(Nid::SECP384R1), rsa(2048), PKey::generate_ed25519().unwrap()];
    for (a, key) in keys.iter().enumerate() {
        for (b, other) in keys.iter().enumerate() {
            if a != b {
                let text = key.private_key_to_pem_pkcs8().unwrap();
                cases.bad(Flaw::KeyMismatch, format!("{a} {b}"), text, chain(other));
            }
        }
    }
    cases.judge();
}

// ---- texts

/// A way to write the same text.
type Rewrite = fn(&str) -> String;

#[test]
fn texts_as_people_and_programs_leave_them() {
    const WAYS: [(&str, Rewrite); 18] = [
        ("as it is", |text| text.into()),
        ("BOM", |text| format!("\u{feff}{text}")),
        ("CRLF", |text| text.replace('\n', "\r\n")),
        ("CR", |text| text.replace('\n', "\r")),
        ("lone trailing CR", |text| format!("{text}\r")),
        ("no final newline", |text| text.trim_end().into()),
        ("trailing blanks", |text| text.replace('\n', " \t\n")),
        ("leading blanks", |text| text.replace('\n', "\n \t")),
        ("joined", |text| text.replace("-----\n-----", "----------")),
        ("joined without newline", |text| text.replace("-----\n-----", "----------").trim_end().into()),
        ("blank lines between", |text| text.replace("-----\n-----", "-----\n\n\n-----")),
        ("blank lines everywhere", |text| text.replace('\n', "\n\n")),
        ("one line", |text| {
            let joined = text.replace('\n', "");
            joined
                .replace("KEY-----", "KEY-----\n")
                .replace("CATE-----", "CATE-----\n")
                .replace("-----E", "\n-----E")
        }),
        ("markers and data on one line", |text| text.replace('\n', "").replace("----------", "-----\n-----")),
        ("bag attributes", |text| {
            let bag = "Bag Attributes\n    friendlyName: x\n    localKeyID: 01 02\nKey Attributes: <No Attributes>\n";
            format!("{bag}{}{bag}", text.replace("-----BEGIN", &format!("{bag}-----BEGIN")))
        }),
        ("comments that quote markers", |text| {
            format!(
                "# it begins with -----BEGIN CERTIFICATE-----\n# and ends with -----END CERTIFICATE-----\n{text}"
            )
        }),
        ("blanks in the data", |text| {
            let lines = text.lines().map(|line| {
                if line.starts_with('-') {
                    format!("{line}\n")
                } else {
                    format!("{} {}\n", &line[..2], &line[2..])
                }
            });
            lines.collect()
        }),
        ("other blocks around", |text| {
            let damaged = "-----BEGIN DH PARAMETERS-----\n!!!\n";
            let request = "-----BEGIN CERTIFICATE REQUEST-----\n!!!\n-----END CERTIFICATE REQUEST-----\n";
            format!(
                "{request}{}{damaged}",
                text.replace("-----BEGIN", &format!("{damaged}{request}-----BEGIN"))
            )
        }),
    ];
    let mut cases = Cases::default();
    let key = p256();
    let text = String::from_utf8(key.private_key_to_pem_pkcs8().unwrap()).unwrap();
    let chain = String::from_utf8(chain(&key)).unwrap();
    for (name, write) in WAYS {
        let (written, expected) =
            (CertifiedKey::prove(write(&text).as_bytes(), write(&chain).as_bytes()), &chain);
        let written = written.unwrap_or_else(|why| panic!("{name}: {why}"));
        // The same bytes, whatever was around them.
        assert_eq!(written.combined_pem().as_bytes(), format!("{text}{expected}").as_bytes(), "{name}");
        cases.good(name, "PRIVATE KEY", write(&text), write(&chain));
        let both = write(&format!("{text}{chain}"));
        cases.good(format!("{name}, one file"), "PRIVATE KEY", &both, &both);
        let both = write(&format!("{chain}{text}"));
        cases.good(format!("{name}, one file, key last"), "PRIVATE KEY", &both, &both);
    }
    cases.judge();
}

#[test]
fn labels_of_certificates() {
    let mut cases = Cases::default();
    let key = p256();
    let text = key.private_key_to_pem_pkcs8().unwrap();
    let plain = String::from_utf8(chain(&key)).unwrap();
    cases.good("X509 CERTIFICATE", "PRIVATE KEY", &text, plain.replace(" CERTIFICATE", " X509 CERTIFICATE"));
    cases.good(
        "TRUSTED without trust",
        "PRIVATE KEY",
        &text,
        plain.replace(" CERTIFICATE", " TRUSTED CERTIFICATE"),
    );
    let (leaf, above) = plain.split_at(plain.find("-----END").unwrap() + "-----END CERTIFICATE-----\n".len());
    let trust = ["x509", "-trustout", "-addtrust", "serverAuth", "-setalias", "alias"];
    let trusted = [openssl(&trust, leaf.as_bytes()), openssl(&trust, above.as_bytes())].concat();
    assert!(trusted.starts_with(b"-----BEGIN TRUSTED CERTIFICATE-----"));
    cases.good("TRUSTED with trust", "PRIVATE KEY", &text, &trusted);
    let proved = CertifiedKey::prove(&text, &trusted).unwrap();
    assert!(proved.combined_pem().as_bytes().ends_with(plain.as_bytes()));
    cases.judge();
}

#[test]
fn a_damaged_chain_is_never_shortened() {
    let mut cases = Cases::default();
    let key = p256();
    let text = key.private_key_to_pem_pkcs8().unwrap();
    let leaf =
        String::from_utf8(certificate("example.org", &key, Some(intermediate())).to_pem().unwrap()).unwrap();
    let above = String::from_utf8(intermediate().certificate.to_pem().unwrap()).unwrap();
    let der = der_of(above.as_bytes());
    let damages = [
        ("bad base64", above.replacen('M', "?", 1)),
        ("a digit missing", above.replacen("MII", "MI", 1)),
        (
            "padding missing",
            String::from_utf8(pem("CERTIFICATE", &der)).unwrap().replace("\n-----END", "A\n-----END"),
        ),
        ("no END", above.replace("-----END CERTIFICATE-----\n", "")),
        ("half an END", above.replace("-----END CERTIFICATE-----\n", "-----END CERTIF")),
        ("END with four dashes", above.replace("-----END CERTIFICATE-----\n", "-----END CERTIFICATE----\n")),
        ("another END", above.replace("END CERTIFICATE", "END CERTIFICATF")),
        ("a request's END", above.replace("END CERTIFICATE", "END CERTIFICATE REQUEST")),
        ("no BEGIN", above.replace("-----BEGIN CERTIFICATE-----\n", "")),
        (
            "BEGIN with four dashes",
            above.replace("-----BEGIN CERTIFICATE-----", "-----BEGIN CERTIFICATE----"),
        ),
        ("BEGIN with four dashes before", above.replace("-----BEGIN", "----BEGIN")),
        ("BEGIN and END with four dashes", above.replace("CERTIFICATE-----", "CERTIFICATE----")),
        ("another BEGIN", above.replace("BEGIN CERTIFICATE", "BEGIN CERTIFICATF")),
        ("text before BEGIN", format!("# {above}")),
        ("truncated", above[..above.len() / 2].into()),
        ("dangling BEGIN", "-----BEGIN CERTIFICATE-----".into()),
        ("dangling BEGIN with a newline", "-----BEGIN CERTIFICATE-----\n".into()),
        ("a BEGIN without dashes", "-----BEGIN CERTIFICATE".into()),
        ("half a BEGIN", "-----BEGIN CERTIF".into()),
        ("a quarter of a BEGIN", "-----BE".into()),
        ("empty", "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n".into()),
        ("not DER", String::from_utf8(pem("CERTIFICATE", b"garbage")).unwrap()),
        (
            "not a certificate",
            String::from_utf8(pem("CERTIFICATE", &key.public_key_to_der().unwrap())).unwrap(),
        ),
        ("DER cut", String::from_utf8(pem("CERTIFICATE", &der[..der.len() - 1])).unwrap()),
        ("trailing bytes", String::from_utf8(pem("CERTIFICATE", &[&der[..], &[0]].concat())).unwrap()),
        ("two in one block", String::from_utf8(pem("CERTIFICATE", &[&der[..], &der].concat())).unwrap()),
        ("a key inside", above.replace("-----END", &format!("{}-----END", String::from_utf8_lossy(&text)))),
        ("NUL bytes", "\0\0\0\0".into()),
        (
            "encrypted",
            above.replacen("-----\n", "-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\n", 1),
        ),
    ];
    for (name, damaged) in &damages {
        let flaw = Flaw::CertificateUnreadable;
        cases.bad(flaw, format!("{name}, last"), &text, format!("{leaf}{damaged}"));
        cases.bad(flaw, format!("{name}, joined"), &text, format!("{}{damaged}", leaf.trim_end()));
        // What can only be the end of a text is a comment elsewhere.
        if damaged.len() > 10 {
            cases.bad(flaw, format!("{name}, in the middle"), &text, format!("{leaf}{damaged}\n{above}"));
            cases.bad(flaw, format!("{name}, first"), &text, format!("{damaged}\n{leaf}"));
            let unproved = CertifiedKey::prove(&text, format!("{leaf}{damaged}").as_bytes()).unwrap_err();
            assert!(unproved.detail.starts_with("the 2nd certificate "), "{name}: {unproved}");
        }
    }
    cases.judge();
}

#[test]
fn nothing_there_and_not_pem() {
    let mut cases = Cases::default();
    let key = p256();
    let (text, chain) = (key.private_key_to_pem_pkcs8().unwrap(), chain(&key));
    let first = X509::stack_from_pem(&chain).unwrap().remove(0);
    let der = first.to_der().unwrap();
    for (name, nothing) in
        [("empty", &b""[..]), ("blank", b" \r\n\n"), ("BOM", b"\xef\xbb\xbf"), ("text", b"hello\n")]
    {
        cases.bad(Flaw::CertificateMissing, format!("chain {name}"), &text, nothing);
        cases.bad(Flaw::KeyMissing, format!("key {name}"), nothing, &chain);
        cases.bad(Flaw::CertificateMissing, format!("both {name}"), nothing, nothing);
    }
    cases.bad(Flaw::CertificateMissing, "a key for a chain", &text, &text);
    cases.bad(Flaw::KeyMissing, "a chain for a key", &chain, &chain);
    cases.bad(Flaw::CertificateMissing, "a request for a chain", &text, pem("CERTIFICATE REQUEST", &der));
    cases.bad(Flaw::CertificateUnreadable, "DER for a chain", &text, &der);
    let bundle = openssl(&["crl2pkcs7", "-nocrl", "-certfile", "/dev/stdin"], &chain);
    cases.bad(Flaw::CertificateUnreadable, "PKCS#7 for a chain", &text, &bundle);
    cases.bad(Flaw::CertificateUnreadable, "PKCS#7 in DER for a chain", &text, der_of(&bundle));
    cases.bad(Flaw::CertificateUnreadable, "NUL bytes for a chain", &text, [0; 4096]);
    cases.bad(Flaw::KeyUnreadable, "NUL bytes for a key", [0; 4096], &chain);
    let utf16: Vec<u8> = text.iter().flat_map(|&byte| [byte, 0]).collect();
    cases.bad(Flaw::KeyUnreadable, "a key in UTF-16", utf16, &chain);
    cases.bad(Flaw::KeyUnreadable, "DER for a key", key.private_key_to_pkcs8().unwrap(), &chain);
    cases.bad(
        Flaw::KeyUnreadable,
        "SEC1 in DER for a key",
        key.ec_key().unwrap().private_key_to_der().unwrap(),
        &chain,
    );
    cases.judge();
}

#[test]
fn the_first_key_counts() {
    let mut cases = Cases::default();
    let (key, other) = (p256(), p256());
    let chain = chain(&key);
    let (good, foreign) =
        (key.private_key_to_pem_pkcs8().unwrap(), other.private_key_to_pem_pkcs8().unwrap());
    let text = |parts: &[&[u8]]| parts.concat();
    cases.good("good first", "PRIVATE KEY", text(&[&good, &foreign]), &chain);
    cases.good("damaged second", "PRIVATE KEY", text(&[&good, &foreign[..50]]), &chain);
    cases.bad(Flaw::KeyMismatch, "foreign first", text(&[&foreign, &good]), &chain);
    let encrypted = key.private_key_to_pem_pkcs8_passphrase(Cipher::aes_128_cbc(), b"secret").unwrap();
    cases.bad(Flaw::KeyEncrypted, "encrypted first", text(&[&encrypted, &good]), &chain);
    let mislabelled = String::from_utf8(encrypted).unwrap().replace("ENCRYPTED ", "");
    cases.bad(Flaw::KeyEncrypted, "encrypted without saying so", mislabelled, &chain);
    for (name, damaged) in [
        ("truncated", String::from_utf8_lossy(&good[..100]).into_owned()),
        ("bad base64", String::from_utf8_lossy(&good).replacen('M', "?", 1)),
        ("no BEGIN", String::from_utf8_lossy(&good).replace("-----BEGIN", "")),
        ("no END", String::from_utf8_lossy(&good).replace("-----END PRIVATE KEY-----\n", "")),
        ("dangling BEGIN", "-----BEGIN PRIVATE KEY-----\n".into()),
        ("another END", String::from_utf8_lossy(&good).replace("END PRIVATE", "END EC PRIVATE")),
        ("another BEGIN", String::from_utf8_lossy(&good).replace("BEGIN PRIVATE KEY", "BEGIN SOMETHING")),
        ("empty", "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n".into()),
    ] {
        cases.bad(
            Flaw::KeyUnreadable,
            format!("{name}, first"),
            format!("{damaged}\n{}", String::from_utf8_lossy(&good)),
            &chain,
        );
        cases.bad(Flaw::KeyUnreadable, format!("{name}, alone"), &damaged, &chain);
        assert!(!has_private_key(damaged.as_bytes()) || name == "bad base64" || name == "empty", "{name}");
    }
    cases.judge();
}

// ---- leaf and chain

#[test]
fn facts_of_a_leaf() {
    let key = p256();
    let mut builder = builder("WWW.Example.ORG", &key, "Intermediate");
    let mut names = SubjectAlternativeName::new();
    names
        .dns("B.example.org")
        .ip("192.0.2.7")
        .dns("*.a.example.org")
        .ip("2001:db8::1")
        .email("x@example.org");
    let names = names.build(&builder.x509v3_context(None, None)).unwrap();
    // The builder above has added names already: start anew.
    let mut fresh = X509::builder().unwrap();
    fresh.set_version(2).unwrap();
    let serial = BigNum::from_hex_str("00F1234567").unwrap();
    fresh.set_serial_number(&serial.to_asn1_integer().unwrap()).unwrap();
    fresh.set_subject_name(&name("WWW.Example.ORG")).unwrap();
    let mut staging = X509NameBuilder::new().unwrap();
    staging.append_entry_by_nid(Nid::ORGANIZATIONNAME, "(STAGING) Let's Encrypt").unwrap();
    fresh.set_issuer_name(&staging.build()).unwrap();
    fresh.set_not_before(&Asn1Time::from_unix(1_700_000_000).unwrap()).unwrap();
    fresh.set_not_after(&Asn1Time::from_unix(4_000_000_000).unwrap()).unwrap();
    fresh.set_pubkey(&key).unwrap();
    fresh.append_extension(names).unwrap();
    fresh.sign(&intermediate().key, MessageDigest::sha256()).unwrap();
    builder = fresh;
    let certificate = builder.build();
    let text = certificate.to_pem().unwrap();

    let leaf = read_leaf(&text).unwrap();
    assert_eq!(leaf.names, ["b.example.org", "192.0.2.7", "*.a.example.org", "2001:db8::1"]);
    assert_eq!(leaf.dns_names().collect::<Vec<_>>(), ["b.example.org", "*.a.example.org"]);
    assert_eq!(leaf.common_names, ["www.example.org"]);
    let served: Vec<_> = leaf.served_names().collect();
    assert_eq!(served, ["b.example.org", "*.a.example.org", "www.example.org"]);
    assert_eq!(leaf.key_type, KeyType::EcdsaP256);
    assert_eq!((leaf.not_before, leaf.not_after), (1_700_000_000, 4_000_000_000));
    assert!(leaf.issuer_is_staging && !leaf.is_self_signed);
    assert_eq!(hex(&leaf.sha256), hex(&certificate.digest(MessageDigest::sha256()).unwrap()));
    assert_eq!(hex(&leaf.sha1), hex(&certificate.digest(MessageDigest::sha1()).unwrap()));
    assert_eq!(leaf.serial, "F1234567");

    let proved = CertifiedKey::prove(&key.private_key_to_pem_pkcs8().unwrap(), &text).unwrap();
    assert!(proved.staging_issuer());
    assert_eq!(proved.chain_state(), ChainState::Incomplete);
}

#[test]
fn serials_as_the_openssl_program_prints_them() {
    let key = p256();
    for serial in ["0", "1", "7f", "80", "ff", "0100", "8000", "-1", "-7f", "-80", "-81", "-ff", "-0100"] {
        let mut builder = builder("example.org", &key, "example.org");
        let number = BigNum::from_hex_str(serial).unwrap();
        builder.set_serial_number(&number.to_asn1_integer().unwrap()).unwrap();
        builder.sign(&key, MessageDigest::sha256()).unwrap();
        let text = builder.build().to_pem().unwrap();
        let printed = String::from_utf8(openssl(&["x509", "-noout", "-serial"], &text)).unwrap();
        assert_eq!(format!("serial={}\n", read_leaf(&text).unwrap().serial), printed);
    }
}

#[test]
fn states_of_chains() {
    let key = p256();
    let text = key.private_key_to_pem_pkcs8().unwrap();
    let prove = |certificates: &[&X509]| {
        let chain: Vec<u8> =
            certificates.iter().flat_map(|certificate| certificate.to_pem().unwrap()).collect();
        CertifiedKey::prove(&text, &chain).unwrap()
    };
    for (name, one, two) in [
        ("P-256", p256(), p256()),
        ("P-384", ec(Nid::SECP384R1), ec(Nid::SECP384R1)),
        ("P-521", ec(Nid::SECP521R1), ec(Nid::SECP521R1)),
        ("RSA 2048", rsa(2048), rsa(2048)),
        ("RSA 1024", rsa(1024), rsa(1024)),
        ("Ed25519", PKey::generate_ed25519().unwrap(), PKey::generate_ed25519().unwrap()),
        ("RSA above ECDSA", ec(Nid::SECP384R1), rsa(4096)),
    ] {
        let root = issuer("Root", two, None);
        let middle = issuer("Middle", one, Some(&root));
        let leaf = certificate("example.org", &key, Some(&middle));
        let (root, middle) = (&root.certificate, &middle.certificate);
        let state = |certificates: &[&X509]| {
            let proved = prove(certificates);
            assert_eq!(proved.chain().len() + 1, certificates.len());
            for (ours, theirs) in proved.chain().iter().zip(&certificates[1..]) {
                assert_eq!(ours.der(), theirs.to_der().unwrap());
            }
            proved.chain_state()
        };
        let disordered = |certificate| ChainState::Disordered { certificate };
        assert_eq!(state(&[&leaf]), ChainState::Incomplete, "{name}");
        assert_eq!(state(&[&leaf, middle]), ChainState::Complete, "{name}");
        assert_eq!(state(&[&leaf, middle, root]), ChainState::Complete, "{name}");
        assert_eq!(state(&[&leaf, root, middle]), disordered(1), "{name}");
        assert_eq!(state(&[&leaf, &leaf, middle]), disordered(1), "{name}");
        assert_eq!(state(&[&leaf, middle, middle]), disordered(2), "{name}");
        assert_eq!(state(&[&leaf, middle, root, middle]), disordered(3), "{name}");
        assert_eq!(state(&[&leaf, middle, root, root]), ChainState::Complete, "{name}: a root issued itself");
        // The right name, but another key, of the same kind and of another.
        for stranger in [rsa(2048), ec(Nid::SECP384R1)] {
            let stranger = certificate("Middle", &stranger, None);
            assert_eq!(state(&[&leaf, &stranger]), disordered(1), "{name}");
        }
    }
    let alone = certificate("example.org", &key, None);
    assert!(read_leaf(&alone.to_pem().unwrap()).unwrap().is_self_signed);
    assert_eq!(prove(&[&alone]).chain_state(), ChainState::Complete);
    let pretender =
        certificate("example.org", &key, Some(&Issuer { name: "example.org", ..issuer("x", p256(), None) }));
    assert!(!read_leaf(&pretender.to_pem().unwrap()).unwrap().is_self_signed);
    assert_eq!(prove(&[&pretender]).chain_state(), ChainState::Incomplete);
}

#[test]
fn staging_issuers_anywhere_in_the_chain() {
    let key = p256();
    let text = key.private_key_to_pem_pkcs8().unwrap();
    let root = issuer("(STAGING) Pretend Pear X1", p256(), None);
    let middle = issuer("Middle", p256(), Some(&root));
    let leaf = certificate("example.org", &key, Some(&middle));
    let all = [leaf.to_pem().unwrap(), middle.certificate.to_pem().unwrap()].concat();
    let proved = CertifiedKey::prove(&text, &all).unwrap();
    assert!(proved.staging_issuer() && !proved.leaf().issuer_is_staging);
    let proved = CertifiedKey::prove(&text, &leaf.to_pem().unwrap()).unwrap();
    assert!(!proved.staging_issuer());
}

#[test]
fn pairs_that_rcgen_makes() {
    let mut cases = Cases::default();
    for algorithm in [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ECDSA_P521_SHA512,
        &rcgen::PKCS_ED25519,
    ] {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let certificate =
            rcgen::CertificateParams::new(["example.org".to_owned()]).unwrap().self_signed(&key).unwrap();
        cases.good(format!("rcgen {algorithm:?}"), "PRIVATE KEY", key.serialize_pem(), certificate.pem());
    }
    cases.judge();
}

// ---- anything

/// The label of a key, the key and its chain, in DER.
type Pair = (&'static str, Vec<u8>, Vec<Vec<u8>>);

/// Pairs of every kind.
fn pairs() -> &'static [Pair] {
    static PAIRS: OnceLock<Vec<Pair>> = OnceLock::new();
    PAIRS.get_or_init(|| {
        let chain = |key: &Key| -> Vec<Vec<u8>> {
            X509::stack_from_pem(&chain(key))
                .unwrap()
                .iter()
                .map(|certificate| certificate.to_der().unwrap())
                .collect()
        };
        let (ec, rsa, ed) = (p256(), rsa(2048), PKey::generate_ed25519().unwrap());
        let secret = number(&ec, 32);
        vec![
            ("PRIVATE KEY", ec.private_key_to_pkcs8().unwrap(), chain(&ec)),
            ("EC PRIVATE KEY", ec.ec_key().unwrap().private_key_to_der().unwrap(), chain(&ec)),
            ("EC PRIVATE KEY", sec1(&secret, Some(P256_OID), None), chain(&ec)),
            ("PRIVATE KEY", rsa.private_key_to_pkcs8().unwrap(), chain(&rsa)),
            ("RSA PRIVATE KEY", rsa.rsa().unwrap().private_key_to_der().unwrap(), chain(&rsa)),
            ("PRIVATE KEY", ed.private_key_to_pkcs8().unwrap(), chain(&ed)),
        ]
    })
}

/// A change of some bytes.
#[derive(Debug, Clone)]
enum Change {
    Flip(prop::sample::Index, u8),
    Set(prop::sample::Index, u8),
    Insert(prop::sample::Index, u8),
    Remove(prop::sample::Index),
    Truncate(prop::sample::Index),
    Drop(prop::sample::Index, u8),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let length = bytes.len();
        match self {
            Self::Flip(at, bit) => bytes[at.index(length)] ^= 1 << (bit % 8),
            Self::Set(at, byte) => bytes[at.index(length)] = *byte,
            Self::Insert(at, byte) => bytes.insert(at.index(length), *byte),
            Self::Remove(at) => drop(bytes.remove(at.index(length))),
            Self::Truncate(at) => bytes.truncate(at.index(length)),
            Self::Drop(at, count) => {
                let at = at.index(length);
                bytes.drain(at..length.min(at + usize::from(*count)));
            }
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        4 => (at(), any::<u8>()).prop_map(|(at, bit)| Change::Flip(at, bit)),
        1 => (at(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        1 => (at(), any::<u8>()).prop_map(|(at, byte)| Change::Insert(at, byte)),
        1 => at().prop_map(Change::Remove),
        1 => at().prop_map(Change::Truncate),
        1 => (at(), any::<u8>()).prop_map(|(at, count)| Change::Drop(at, count)),
    ]
}

/// Whatever is accepted belongs, in OpenSSL's judgement, and has the whole chain.
fn whatever_is_accepted_belongs(
    key: &[u8],
    chain: &[u8],
    length: Option<usize>,
) -> Result<(), TestCaseError> {
    let _ = (read_leaf(chain), has_private_key(chain));
    if let Ok(proved) = CertifiedKey::prove(key, chain) {
        let _ = proved.chain_state();
        let combined = proved.combined_pem();
        if let Err(why) = belongs(combined.as_bytes()) {
            return Err(TestCaseError::fail(why));
        }
        prop_assert_eq!(1 + proved.chain().len(), length.unwrap_or(1 + proved.chain().len()));
        let again = CertifiedKey::prove(combined.as_bytes(), combined.as_bytes()).unwrap().combined_pem();
        prop_assert_eq!(again.as_bytes(), combined.as_bytes());
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    fn changed_texts(
        pair in 0..6_usize,
        in_key in prop::collection::vec(change(), 0..3),
        in_chain in prop::collection::vec(change(), 0..3),
    ) {
        let (label, key, chain) = &pairs()[pair];
        let mut key = pem(label, key);
        let mut chain: Vec<u8> = chain.iter().flat_map(|der| pem("CERTIFICATE", der)).collect();
        for change in in_key {
            change.apply(&mut key);
        }
        for change in &in_chain {
            change.apply(&mut chain);
        }
        // One change never loses a certificate, unless it cuts the text between two of them; a second one may hide
        // what the first has done.
        let begins = chain.windows(10).filter(|window| *window == b"-----BEGIN").count();
        let length = if in_chain.len() > 1 { None } else { Some(begins.min(2)) };
        whatever_is_accepted_belongs(&key, &chain, length)?;
    }

    fn changed_der(
        pair in 0..6_usize,
        in_key in prop::collection::vec(change(), 0..3),
        in_leaf in prop::collection::vec(change(), 0..2),
        in_issuer in prop::collection::vec(change(), 0..2),
    ) {
        let (label, key, chain) = &pairs()[pair];
        let (mut key, mut leaf, mut above) = (key.clone(), chain[0].clone(), chain[1].clone());
        for (changes, der) in [(in_key, &mut key), (in_leaf, &mut leaf), (in_issuer, &mut above)] {
            for change in changes {
                change.apply(der);
            }
        }
        let chain = [pem("CERTIFICATE", &leaf), pem("CERTIFICATE", &above)].concat();
        whatever_is_accepted_belongs(&pem(label, &key), &chain, Some(2))?;
    }

    fn any_bytes(key in prop::collection::vec(any::<u8>(), 0..300), chain in "(-----(BEGIN|END) |CERTIFICATE|PRIVATE KEY|-----|\n|\r|:| |[A-Za-z0-9+/=]{1,8}){0,60}") {
        prop_assert!(CertifiedKey::prove(&key, chain.as_bytes()).is_err());
        prop_assert!(CertifiedKey::prove(chain.as_bytes(), &key).is_err());
        let _ = read_leaf(chain.as_bytes());
    }
}

#[test]
fn no_damage_is_accepted() {
    for (name, law) in
        [("changed texts", changed_texts as fn()), ("changed DER", changed_der), ("any bytes", any_bytes)]
    {
        law();
        Count::Properties.add(name, CASES as usize);
    }
}

/// A kind of string that OpenSSL doesn't read in a name.
#[test]
fn a_name_of_a_visible_string_is_refused() {
    for (label, key, chain) in pairs() {
        let mut leaf = chain[0].clone();
        let common_name = [0x06, 0x03, 0x55, 0x04, 0x03];
        let at = leaf.windows(5).position(|bytes| bytes == common_name).unwrap() + 5;
        leaf[at] = 0x1a;
        assert!(X509::from_der(&leaf).is_err());
        assert!(CertifiedKey::prove(&pem(label, key), &pem("CERTIFICATE", &leaf)).is_err());
    }
}

#[test]
fn haproxy_loads_whatever_is_accepted() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("sites")).unwrap();
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut accepted = 0;
    for round in 0..2000 {
        let (label, key, chain) = &pairs()[round % pairs().len()];
        let (mut key, mut chain) = (key.clone(), chain.clone());
        let change = change().new_tree(&mut runner).unwrap().current();
        match round % 5 {
            0 => change.apply(&mut key),
            1 => change.apply(&mut chain[1]),
            _ => change.apply(&mut chain[0]),
        }
        let chain: Vec<u8> = chain.iter().flat_map(|der| pem("CERTIFICATE", der)).collect();
        // Which kinds of CA keys HAProxy knows is for itself to say.
        let is_known = |proved: &CertifiedKey| {
            let above = read_leaf(&pem("CERTIFICATE", proved.chain()[0].der())).map(|above| above.key_type);
            !matches!(above, Ok(KeyType::Other(_) | KeyType::OtherEcdsa(_)))
        };
        if let Some(proved) = CertifiedKey::prove(&pem(label, &key), &chain).ok().filter(is_known) {
            fs::write(folder.path().join(format!("sites/{round}.pem")), proved.combined_pem().as_bytes())
                .unwrap();
            accepted += 1;
        }
    }
    assert!(accepted > 200, "{accepted}");
    haproxy_loads(folder.path());
}

#[test]
fn the_proof_touches_nothing_outside() {
    let sources = concat!(env!("CARGO_MANIFEST_DIR"), "/src/certified_key");
    for source in fs::read_dir(sources).unwrap() {
        let text = fs::read_to_string(source.unwrap().path()).unwrap();
        let text = text.split("#[cfg(test)]").next().unwrap();
        for name in [
            "std::fs",
            "std::process",
            "std::net",
            "std::os",
            "std::io",
            "std::env",
            "std::path",
            "rustix",
            "nix::",
        ] {
            assert!(!text.contains(name), "{name}");
        }
    }
}

#[test]
fn a_large_text_takes_no_longer_than_its_size() {
    let key = p256();
    let (text, chain) = (key.private_key_to_pem_pkcs8().unwrap(), chain(&key));
    let started = std::time::Instant::now();
    for pattern in
        ["-----BEGIN CERTIFICATE-----", "-----BEGIN ", "-----END ", "-", "-----\n", "a:\n", " \n", "A", "\r"]
    {
        let large = pattern.repeat((1 << 20) / pattern.len());
        let _ = CertifiedKey::prove(&text, &[chain.clone(), large.clone().into_bytes()].concat());
        let _ = CertifiedKey::prove(&[large.into_bytes(), text.clone()].concat(), &chain);
    }
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}
