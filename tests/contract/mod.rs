//! What the tests of the contract share: reading reports at a glance, and comparing directories before and after.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    reason = "test code may fail loudly, and each test file uses its own part of it"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;

use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::x509::{X509, X509NameBuilder};
use serde_json::Value;

use support::process::finish;
use support::{Cmd, Key, KeyKind, LIMIT, Run};

/// One word list per row: `example.org.pem replace`, `x.pem refuse key-mismatch [expired]`; rows without a file go by
/// their lineage in brackets, the host certificate by its last name and `host:`.
pub fn brief(run: &Run) -> Vec<String> {
    let report = run.json();
    report["sites"].as_array().expect("sites").iter().map(brief_row).collect()
}

fn brief_row(row: &Value) -> String {
    let mut text = match (row["file"].as_str(), row["role"].as_str()) {
        (Some(file), Some("host")) => format!("host:{}", file.rsplit('/').next().unwrap()),
        (Some(file), _) => file.to_owned(),
        (None, _) => format!("({})", row["lineage"].as_str().unwrap()),
    };
    write!(text, " {}", row["action"].as_str().unwrap()).unwrap();
    if let Some(reason) = row["reason"].as_str() {
        write!(text, " {reason}").unwrap();
    }
    let warnings: Vec<&str> =
        row["warnings"].as_array().unwrap().iter().map(|warning| warning.as_str().unwrap()).collect();
    if !warnings.is_empty() {
        write!(text, " [{}]", warnings.join(" ")).unwrap();
    }
    text
}

/// The rows of these files only.
pub fn brief_of(run: &Run, files: &[&str]) -> Vec<String> {
    files.iter().map(|file| brief_row(&run.site(file))).collect()
}

/// Everything below a directory, itself included: type, mode, owner, inode, times of change, contents.
pub fn listing(root: &Path) -> BTreeMap<String, String> {
    let describe = |path: &Path| {
        let meta = path.symlink_metadata().unwrap();
        let contents = match meta.file_type() {
            kind if kind.is_file() => {
                let digest = openssl::sha::sha256(&fs::read(path).unwrap());
                digest.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
            }
            kind if kind.is_symlink() => format!("-> {}", fs::read_link(path).unwrap().display()),
            kind if kind.is_dir() => "directory".to_owned(),
            kind if kind.is_fifo() => "FIFO".to_owned(),
            _ => "something else".to_owned(),
        };
        format!(
            "{:o} {}:{} inode {} mtime {}.{} ctime {}.{} {contents}",
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.ino(),
            meta.mtime(),
            meta.mtime_nsec(),
            meta.ctime(),
            meta.ctime_nsec()
        )
    };
    walkdir::WalkDir::new(root)
        .into_iter()
        .map(|entry| {
            let entry = entry.unwrap();
            let name = entry.path().strip_prefix(root).unwrap().to_string_lossy().into_owned();
            (name, describe(entry.path()))
        })
        .collect()
}

/// The names that are in only one of two listings, or differ.
pub fn differences(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<String> {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    names.into_iter().filter(|name| before.get(*name) != after.get(*name)).cloned().collect()
}

/// What a run that has nothing to do may touch: the record of when it was.
pub const OF_AN_IDLE_RUN: [&str; 2] = [".haproxy-certs", ".haproxy-certs/last-run.json"];

/// What HAProxy says to a directory that it can't load; `None`: it takes it.
pub fn haproxy_objects_to(folder: &Path) -> Option<String> {
    let temporary = tempfile::tempdir().unwrap();
    let config = temporary.path().join("haproxy.cfg");
    let text = format!(
        "global\n tune.ssl.default-dh-param 2048\nfrontend f\n mode http\n timeout client 1s\n bind 127.0.0.1:1 ssl crt {}\n",
        folder.to_str().unwrap()
    );
    fs::write(&config, text).unwrap();
    let output = finish(Command::new("/usr/sbin/haproxy").arg("-c").arg("-f").arg(&config), LIMIT);
    (!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Runs a command line of the program's that [`Cmd`] can't express.
#[track_caller]
pub fn run(command: &mut Command) -> Run {
    for name in ["HAPROXY_CERTS_CONFIG", "RENEWED_LINEAGE", "RENEWED_DOMAINS"] {
        if !command.get_envs().any(|(set, _)| set == name) {
            command.env_remove(name);
        }
    }
    let output = finish(command, LIMIT);
    Run {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("UTF-8 on stdout"),
        stderr: String::from_utf8(output.stderr).expect("UTF-8 on stderr"),
    }
}

/// `assemble` as a command that can be changed further.
pub fn assemble_command(cmd: &Cmd) -> Command {
    let mut command = Command::new(Cmd::program());
    command.arg("--config").arg(cmd.config()).args(["assemble", "--format", "json"]);
    command
}

/// Mode and owner of a file.
pub fn mode_and_owner(path: &Path) -> (u32, u32, u32) {
    let meta = path.symlink_metadata().unwrap();
    (meta.permissions().mode() & 0o7777, meta.uid(), meta.gid())
}

/// The numeric user and group `nobody`.
pub fn nobody() -> (u32, u32) {
    let user = nix::unistd::User::from_name("nobody").unwrap().expect("a user nobody");
    (user.uid.as_raw(), user.gid.as_raw())
}

/// Gives a directory and everything below it to somebody else.
pub fn give(root: &Path, (uid, gid): (u32, u32)) {
    for entry in walkdir::WalkDir::new(root) {
        std::os::unix::fs::lchown(entry.unwrap().path(), Some(uid), Some(gid)).unwrap();
    }
}

/// A self-signed certificate for any key that OpenSSL has, as PEM.
pub fn self_signed(key: &PKey<Private>, name: &str) -> String {
    let mut subject = X509NameBuilder::new().unwrap();
    subject.append_entry_by_text("CN", name).unwrap();
    let subject = subject.build();
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    builder.set_serial_number(&BigNum::from_u32(0x04ab).unwrap().to_asn1_integer().unwrap()).unwrap();
    builder.set_subject_name(&subject).unwrap();
    builder.set_issuer_name(&subject).unwrap();
    builder.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
    builder.set_not_after(&Asn1Time::days_from_now(90).unwrap()).unwrap();
    builder.set_pubkey(key).unwrap();
    let names = openssl::x509::extension::SubjectAlternativeName::new()
        .dns(name)
        .build(&builder.x509v3_context(None, None))
        .unwrap();
    builder.append_extension(names).unwrap();
    let digest =
        if key.id() == openssl::pkey::Id::ED25519 { MessageDigest::null() } else { MessageDigest::sha256() };
    builder.sign(key, digest).unwrap();
    String::from_utf8(builder.build().to_pem().unwrap()).unwrap()
}

/// A P-256 key file that carries the public half of `key` and another private half: openssl's own comparison of public
/// halves calls it a match.
pub fn forged(key: &Key) -> String {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    let right = key.openssl().ec_key().unwrap();
    let other = Key::fresh(KeyKind::P256).openssl().ec_key().unwrap();
    let forged = EcKey::from_private_components(&group, other.private_key(), right.public_key()).unwrap();
    String::from_utf8(PKey::from_ec_key(forged).unwrap().private_key_to_pem_pkcs8().unwrap()).unwrap()
}

/// Lines of a private key that must be nowhere but in the PEM.
pub fn secrets(key_pem: &str) -> Vec<String> {
    let lines: Vec<String> =
        key_pem.lines().filter(|line| !line.starts_with("-----")).map(ToOwned::to_owned).collect();
    assert!(!lines.is_empty(), "a key has lines");
    lines
}
