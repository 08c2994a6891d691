//! Makes a large certbot tree for the benchmarks: `bench-tree FOLDER COUNT`.
//!
//! 85 % P-256 and 15 % RSA 2048, leaf and intermediate, every certificate with its own serial number and name; RSA
//! keys come from a small pool, as making them is slow. A tree that is there already with this count stays.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool for the benchmarks"
)]

use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::ExitCode;
use std::thread;

use openssl::ec::{EcGroup, EcKey};
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SerialNumber,
};
use time::{Duration, OffsetDateTime};

const POOL: usize = 16;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, count] = arguments.as_slice() else {
        eprintln!("usage: bench-tree FOLDER COUNT");
        return ExitCode::from(64);
    };
    let (folder, count) = (Path::new(folder), count.parse::<usize>().expect("COUNT is a number"));
    let done = folder.join("done");
    if fs::read_to_string(&done).is_ok_and(|made| made == count.to_string()) {
        return ExitCode::SUCCESS;
    }
    if folder.exists() {
        fs::remove_dir_all(folder).unwrap();
    }
    for (name, mode) in [("live", 0o700), ("archive", 0o700), ("renewal", 0o755)] {
        fs::create_dir_all(folder.join(name)).unwrap();
        fs::set_permissions(folder.join(name), Permissions::from_mode(mode)).unwrap();
    }
    let maker = Maker::new();
    let workers = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for worker in 0..workers {
            let maker = &maker;
            scope.spawn(move || {
                for number in (worker..count).step_by(workers) {
                    maker.lineage(folder, number);
                }
            });
        }
    });
    fs::write(done, count.to_string()).unwrap();
    ExitCode::SUCCESS
}

struct Maker {
    rsa: Vec<(String, KeyPair)>,
    intermediate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Maker {
    fn new() -> Self {
        let rsa = (0..POOL).map(|_| PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap());
        let ca = |name: &str, depth: u8| {
            let mut params = params(name, usize::from(depth));
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(depth));
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            params
        };
        let (root_params, root_key) = (ca("root", 1), p256().1);
        let root = Issuer::new(root_params, root_key);
        let (intermediate_params, key) = (ca("intermediate", 0), p256().1);
        Self {
            rsa: rsa.map(|key| pair(&key)).collect(),
            intermediate: intermediate_params.signed_by(&key, &root).unwrap().pem().replace('\r', ""),
            issuer: Issuer::new(intermediate_params, key),
        }
    }

    /// One lineage, as certbot leaves it.
    fn lineage(&self, folder: &Path, number: usize) {
        let name = format!("site-{number:06}.example.org");
        let fresh;
        // 15 of 100, spread evenly.
        let (key, key_pair) = if number * 15 % 100 < 15 {
            let at = number % POOL;
            self.rsa.get(at).expect("the pool is full")
        } else {
            fresh = p256();
            &fresh
        };
        let mut params = params(&name, number + 10);
        params.subject_alt_names = vec![
            rcgen::SanType::DnsName(name.as_str().try_into().unwrap()),
            rcgen::SanType::DnsName(format!("www.{name}").try_into().unwrap()),
        ];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let cert = params.signed_by(key_pair, &self.issuer).unwrap().pem().replace('\r', "");

        let (archive, live) = (folder.join("archive").join(&name), folder.join("live").join(&name));
        fs::create_dir(&archive).unwrap();
        fs::create_dir(&live).unwrap();
        let mut conf = format!("version = 2.1.0\narchive_dir = {}\n", archive.display());
        let fullchain = format!("{cert}{}", self.intermediate);
        for (kind, contents) in
            [("cert", &cert), ("privkey", key), ("chain", &self.intermediate), ("fullchain", &fullchain)]
        {
            let (file, link) = (archive.join(format!("{kind}1.pem")), live.join(format!("{kind}.pem")));
            fs::write(&file, contents).unwrap();
            if kind == "privkey" {
                fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
            }
            symlink(format!("../../archive/{name}/{kind}1.pem"), &link).unwrap();
            writeln!(conf, "{kind} = {}", link.display()).unwrap();
        }
        fs::write(live.join("README"), "This directory contains your keys and certificates.\n").unwrap();
        fs::write(folder.join("renewal").join(format!("{name}.conf")), conf).unwrap();
    }
}

fn params(name: &str, serial: usize) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, format!("{name} test, do not trust"));
    let now = OffsetDateTime::now_utc();
    params.not_before = now - Duration::days(1);
    params.not_after = now + Duration::days(3650);
    let serial = [&[0x40; 8][..], &serial.to_be_bytes()].concat();
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params
}

fn p256() -> (String, KeyPair) {
    let curve = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    pair(&PKey::from_ec_key(EcKey::generate(&curve).unwrap()).unwrap())
}

fn pair(key: &PKey<Private>) -> (String, KeyPair) {
    let pem = String::from_utf8(key.private_key_to_pem_pkcs8().unwrap()).unwrap();
    let pair = KeyPair::from_pem(&pem).unwrap();
    (pem, pair)
}
