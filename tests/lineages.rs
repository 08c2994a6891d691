//! What certbot, its users and its accidents leave in `live`: each is deployed, refused for its own reason, or none of
//! our business.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may fail loudly")]

mod contract;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use haproxy_certs::commands::assemble::{Options, assemble};
use haproxy_certs::config::{Overrides, Settings};
use haproxy_certs::plan::action::Action;
use haproxy_certs::plan::reason::Reason;
use haproxy_certs::sys::system::System;
use openssl::ec::{EcGroup, EcKey};
use openssl::nid::Nid;
use openssl::pkey::PKey;
use openssl::rsa::Rsa;
use serde_json::Value;

use contract::{brief, brief_of, forged, give, haproxy_objects_to, listing, nobody, run, self_signed};
use support::tree::make_directory;
use support::{Cmd, Key, KeyKind, Kind, Leaf, Tree, Validity};

fn issue(tree: &mut Tree, name: &str) -> Leaf {
    tree.issue(name, KeyKind::P256, &["x.example"], Validity::days(90))
}

fn deployed(cmd: &Cmd, name: &str) -> String {
    fs::read_to_string(cmd.site(name)).unwrap()
}

// --- Interrupted by a kill (facts/certbot.md, 2.1) -----------------------------------------------------------------

/// Between two calls of a renewal the old pair or the new one is there, or the lineage is torn: never half of each.
#[test]
fn a_killed_renewal_is_the_old_pair_or_the_new_one_or_torn() {
    let mut tree = Tree::new();
    let cmd = Cmd::new(tree.live()).without_haproxy();
    let name = |call: usize| format!("{call:02}.example");
    let old: Vec<Leaf> = (1..=17)
        .map(|call| tree.issue(&name(call), KeyKind::P256, &[&name(call)], Validity::days(90)))
        .collect();
    cmd.assemble(&[]).exits(0);
    let new: Vec<Leaf> = (1..=17).map(|call| tree.renew_stopped_before(call, &name(call))).collect();
    let report = cmd.assemble(&[]).exits(1);
    let expected: Vec<String> = (1..=17)
        .map(|call| match call {
            1..=7 => format!("{}.pem unchanged", name(call)),
            8..=12 => format!("{}.pem refuse lineage-torn", name(call)),
            _ => format!("{}.pem replace", name(call)),
        })
        .collect();
    assert_eq!(brief(&report), expected);
    for (call, (old, new)) in (1..=17).zip(old.iter().zip(&new)) {
        let whole = if call <= 12 { old } else { new };
        assert_eq!(deployed(&cmd, &name(call)), whole.combined(), "killed before call {call}");
    }
    assert_eq!(haproxy_objects_to(&cmd.sites()), None);

    for call in 1..=17 {
        tree.repair(&name(call));
    }
    let report = cmd.assemble(&[]).exits(0);
    assert_eq!(report.json()["summary"]["replace"], 12);
    for (call, new) in (1..=17).zip(&new) {
        assert_eq!(deployed(&cmd, &name(call)), new.combined());
    }
}

#[test]
fn torn_lineages_are_waited_for_together() {
    let mut tree = Tree::new();
    for number in 0..40 {
        let name = format!("{number}.example");
        issue(&mut tree, &name);
        tree.renew_stopped_before(10, &name);
    }
    let cmd = Cmd::new(tree.live()).without_haproxy();
    let begun = Instant::now();
    let report = cmd.assemble(&[]).exits(1);
    // One after the other would be two minutes; three seconds in all leave room for a busy machine.
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    assert_eq!(report.json()["summary"]["refuse"], 40);
}

/// certbot rolls back to absolute links where all four previous links are left.
#[test]
fn a_rolled_back_lineage_has_absolute_links() {
    let mut tree = Tree::new();
    let old = issue(&mut tree, "example.org");
    tree.renew_stopped_before(12, "example.org");
    for kind in Kind::ALL {
        let link = tree.link("example.org", kind);
        let previous = tree.lineage("example.org").join(format!("previous_{}.pem", kind.stem()));
        let _ = fs::remove_file(&link);
        fs::rename(previous, link).unwrap();
    }
    assert!(fs::read_link(tree.link("example.org", Kind::Privkey)).unwrap().is_absolute());
    let cmd = Cmd::new(tree.live()).without_haproxy();
    assert_eq!(brief(&cmd.assemble(&[]).exits(0)), ["example.org.pem install"]);
    assert_eq!(deployed(&cmd, "example.org"), old.combined());
}

#[test]
fn a_killed_first_issue_is_certificate_missing_until_it_is_whole() {
    let mut tree = Tree::new();
    let name = |call: usize| format!("{call:02}.example");
    for call in 1..=13 {
        tree.issue_stopped_before(call, &name(call), KeyKind::P256, &["x.example"], Validity::days(90));
    }
    let cmd = Cmd::new(tree.live()).without_haproxy();
    let report = cmd.assemble(&[]).exits(1);
    let expected: Vec<String> = (2..=13)
        .map(|call| match call {
            2..=11 => format!("{}.pem refuse certificate-missing", name(call)),
            12 => format!("{}.pem install", name(call)),
            _ => format!("{}.pem install [shadowed]", name(call)),
        })
        .collect();
    assert_eq!(brief(&report), expected);
    assert_eq!(cmd.deployed(), ["12.example.pem", "13.example.pem"]);
}

#[test]
fn a_killed_delete_keeps_the_file_until_nothing_is_left_of_the_lineage() {
    let mut tree = Tree::new();
    let name = |call: usize| format!("{call:02}.example");
    for call in 1..=10 {
        tree.issue(&name(call), KeyKind::P256, &[&name(call)], Validity::days(90));
    }
    let cmd = Cmd::new(tree.live()).without_haproxy();
    cmd.assemble(&[]).exits(0);
    for call in 1..=9 {
        tree.delete_stopped_before(call, &name(call));
    }
    // A file of somebody else's keeps the directory of the tenth.
    fs::write(tree.lineage("10.example").join("haproxy.pem"), "an earlier script's").unwrap();
    tree.delete("10.example");
    assert!(tree.lineage("10.example").exists());
    let report = cmd.assemble(&["--prune-many"]).exits(1);
    let expected: Vec<String> = (1..=10)
        .map(|call| match call {
            1..=3 => format!("{}.pem unchanged", name(call)),
            4 | 5 => format!("{}.pem refuse key-missing", name(call)),
            _ => format!("{}.pem prune", name(call)),
        })
        .collect();
    assert_eq!(brief(&report), expected);
    assert_eq!(cmd.deployed(), (1..=5).map(|call| format!("{}.pem", name(call))).collect::<Vec<_>>());
    assert_eq!(haproxy_objects_to(&cmd.sites()), None);
}

/// The renewal's last calls come while the sweep looks at the torn lineage: it must see them, within three seconds.
#[test]
fn a_renewal_that_goes_on_during_the_sweep_is_waited_for() {
    // On a busy machine this test itself may be too slow to finish the renewal in time: such an attempt says nothing.
    let begun = Instant::now();
    while !waits_for_a_renewal() {
        assert!(begun.elapsed() < support::LIMIT, "never fast enough to tell");
    }
}

/// Whether a sweep took what a renewal left that was finished under its eyes; `false`: it was finished too late.
fn waits_for_a_renewal() -> bool {
    let mut tree = Tree::new();
    issue(&mut tree, "example.org");
    let torn = Instant::now();
    let new = tree.renew_stopped_before(9, "example.org");
    let cmd = Cmd::new(tree.live()).without_haproxy();
    make_directory(&cmd.sites(), 0o700);
    let config = cmd.config();
    let output = tempfile::NamedTempFile::new().unwrap();
    let mut running = support::process::Running::start(Cmd::program(), |command| {
        command.arg("--config").arg(config).args(["assemble", "--format", "json"]);
        command.stdout(output.reopen().unwrap())
    });
    let locked = || {
        let directory = fs::File::open(cmd.sites()).unwrap();
        rustix::fs::flock(&directory, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err()
    };
    support::wait_until(support::LIMIT, "the sweep has begun", locked);
    // What was left of the renewal. Not Tree::repair: that goes through the old pair, which is whole, too.
    for kind in [Kind::Chain, Kind::Fullchain] {
        let link = tree.link("example.org", kind);
        fs::remove_file(&link).unwrap();
        symlink(format!("../../archive/example.org/{}2.pem", kind.stem()), link).unwrap();
    }
    for kind in Kind::ALL {
        fs::remove_file(tree.lineage("example.org").join(format!("previous_{}.pem", kind.stem()))).unwrap();
    }
    let in_time = torn.elapsed() < Duration::from_secs(2);
    let code = running.wait(support::LIMIT).code();
    if in_time {
        assert_eq!(code, Some(0), "{}", fs::read_to_string(output.path()).unwrap());
        assert_eq!(deployed(&cmd, "example.org"), new.combined());
    }
    in_time
}

/// A renewal that begins between the sweep and the staging: what is staged is what was proved, or nothing.
#[test]
fn a_renewal_between_sweep_and_staging() {
    for call in 1..=17 {
        let mut tree = Tree::new();
        let old = issue(&mut tree, "example.org");
        let cmd = Cmd::new(tree.live()).without_haproxy();
        cmd.assemble(&[]).exits(0);
        let swept = tree.renew("example.org");
        let settings = Settings::load(Some(&cmd.config()), &Overrides::default()).unwrap();
        let (tree, newest) = (Mutex::new(tree), Mutex::new(None));
        // The sweep has seen every lineage when it says so for the first time.
        let renew = |done: usize, all: usize| {
            let mut newest = newest.lock().unwrap();
            if done == all && newest.is_none() {
                *newest = Some(tree.lock().unwrap().renew_stopped_before(call, "example.org"));
            }
        };
        let report = assemble(&settings, &System::host(), &Options::default(), &renew);
        let row = &report.rows[0];
        let context = format!("renewed up to call {call}: {row:?}");
        if call <= 7 {
            assert_eq!(
                (row.action, deployed(&cmd, "example.org")),
                (Action::Replace, swept.combined()),
                "{context}"
            );
        } else {
            assert_eq!((row.action, row.reason()), (Action::Refuse, Some(Reason::LineageTorn)), "{context}");
            assert_eq!(deployed(&cmd, "example.org"), old.combined(), "{context}");
        }
        tree.lock().unwrap().repair("example.org");
        cmd.assemble(&[]).exits(0);
        assert_eq!(
            deployed(&cmd, "example.org"),
            newest.into_inner().unwrap().unwrap().combined(),
            "{context}"
        );
    }
}

// --- Other shapes --------------------------------------------------------------------------------------------------

#[test]
fn plain_files_absolute_links_and_links_to_links_are_read() {
    let mut tree = Tree::new();
    let plain = tree.issue_plain("plain.example", KeyKind::Rsa2048, &["plain.example"], Validity::days(90));
    let reused = tree.issue("reused.example", KeyKind::P256, &["reused.example"], Validity::days(90));
    // certbot up to some version linked a key that was kept: privkey2.pem -> privkey1.pem
    let renewed = tree.authority().issue_for(&reused.key, &["reused.example"], Validity::days(90));
    tree.renew_with("reused.example", &renewed);
    let second = tree.file("reused.example", Kind::Privkey, 2);
    fs::remove_file(&second).unwrap();
    symlink("privkey1.pem", &second).unwrap();
    let outside = tempfile::tempdir().unwrap();
    tree.issue("moved.example", KeyKind::P256, &["moved.example"], Validity::days(90));
    fs::rename(tree.lineage("moved.example"), outside.path().join("moved")).unwrap();
    for kind in Kind::ALL {
        let link = outside.path().join("moved").join(format!("{}.pem", kind.stem()));
        fs::remove_file(&link).unwrap();
        symlink(tree.file("moved.example", kind, 1), link).unwrap();
    }
    symlink(outside.path().join("moved"), tree.lineage("moved.example")).unwrap();
    let cmd = Cmd::new(tree.live()).without_haproxy();
    let report = cmd.assemble(&[]).exits(0);
    assert_eq!(
        brief(&report),
        ["moved.example.pem install", "plain.example.pem install", "reused.example.pem install"]
    );
    assert_eq!(deployed(&cmd, "plain.example"), plain.combined());
    assert_eq!(deployed(&cmd, "reused.example"), renewed.combined());
    assert_eq!(deployed(&cmd, "moved.example"), tree.leaf("moved.example").combined());

    // rsync brings a renewal of a plain tree: there is no archive to recognise it by, the record does.
    let next = tree.authority().issue(KeyKind::P256, &["plain.example"], Validity::days(90));
    fs::write(tree.link("plain.example", Kind::Privkey), next.key.pem()).unwrap();
    fs::write(tree.link("plain.example", Kind::Fullchain), next.fullchain()).unwrap();
    assert_eq!(brief(&cmd.assemble(&[]).exits(0))[1], "plain.example.pem replace");
    assert_eq!(deployed(&cmd, "plain.example"), next.combined());
}

#[test]
fn half_a_copy_by_rsync_is_refused_and_the_old_file_stays() {
    let mut tree = Tree::new();
    let old = tree.issue_plain("plain.example", KeyKind::P256, &["plain.example"], Validity::days(90));
    let cmd = Cmd::new(tree.live()).without_haproxy();
    cmd.assemble(&[]).exits(0);
    let next = tree.authority().issue(KeyKind::P256, &["plain.example"], Validity::days(90));
    fs::write(tree.link("plain.example", Kind::Privkey), next.key.pem()).unwrap();
    assert_eq!(brief(&cmd.assemble(&[]).exits(1)), ["plain.example.pem refuse key-mismatch"]);
    assert_eq!(deployed(&cmd, "plain.example"), old.combined());
}

/// Puts something else in the place of a lineage's file.
fn replace(tree: &Tree, name: &str, kind: Kind, put: impl FnOnce(&Path)) {
    let path = tree.link(name, kind);
    fs::remove_file(&path).unwrap();
    put(&path);
}

#[test]
fn only_regular_files_are_read_and_nothing_can_hang_the_sweep() {
    let mut tree = Tree::new();
    let fifo = |path: &Path| {
        rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
            .unwrap();
    };
    let mut sockets = Vec::new();
    for kind in [Kind::Privkey, Kind::Fullchain] {
        let stem = kind.stem();
        for what in ["device", "directory", "fifo", "fifo-link", "loop", "socket"] {
            let name = format!("{stem}-{what}.example");
            issue(&mut tree, &name);
            replace(&tree, &name, kind, |path| match what {
                "device" => symlink("/dev/zero", path).unwrap(),
                "directory" => fs::create_dir(path).unwrap(),
                "fifo" => fifo(path),
                "fifo-link" => {
                    fifo(&path.with_file_name("fifo"));
                    symlink("fifo", path).unwrap();
                }
                "loop" => symlink(path.file_name().unwrap(), path).unwrap(),
                // A socket's path is limited to 108 bytes.
                _ => {
                    let short = tempfile::Builder::new().prefix("s").tempdir().unwrap();
                    sockets.push(UnixListener::bind(short.path().join("s")).unwrap());
                    fs::rename(short.path().join("s"), path).unwrap();
                }
            });
        }
    }
    let cmd = Cmd::new(tree.live()).without_haproxy();
    let report = cmd.assemble(&[]).exits(1);
    assert_eq!(brief(&report).len(), 12);
    for row in brief(&report) {
        assert!(row.ends_with(".pem refuse not-a-regular-file"), "{row}");
    }
    for (name, what) in [
        ("privkey-device", "device"),
        ("privkey-directory", "directory"),
        ("fullchain-fifo-link", "FIFO"),
        ("fullchain-loop", "loop"),
        ("privkey-socket", "socket"),
    ] {
        let row = report.site(&format!("{name}.example.pem"));
        assert!(row["detail"].as_str().unwrap().contains(what), "{row}");
    }
}

#[test]
fn a_file_may_have_a_mebibyte_and_no_more() {
    let mut tree = Tree::new();
    for name in ["chain-most", "chain-more", "key-most", "key-more", "key-sparse"] {
        let name = format!("{name}.example");
        let leaf = tree.issue(&name, KeyKind::P256, &[&name], Validity::days(90));
        let pad = |text: String, size: usize| text.clone() + &"#".repeat(size - text.len());
        match name.as_str() {
            "chain-most.example" => tree.overwrite(&name, Kind::Fullchain, pad(leaf.fullchain(), 1 << 20)),
            "chain-more.example" => {
                tree.overwrite(&name, Kind::Fullchain, pad(leaf.fullchain(), (1 << 20) + 1));
            }
            "key-most.example" => tree.overwrite(&name, Kind::Privkey, pad(leaf.key.pem(), 1 << 20)),
            "key-more.example" => tree.overwrite(&name, Kind::Privkey, pad(leaf.key.pem(), (1 << 20) + 1)),
            _ => {
                let file = fs::File::options().write(true).open(tree.link(&name, Kind::Privkey)).unwrap();
                file.set_len(1 << 40).unwrap();
            }
        }
    }
    let cmd = Cmd::new(tree.live()).without_haproxy();
    let report = cmd.assemble(&[]).exits(1);
    assert_eq!(
        brief(&report),
        [
            "chain-more.example.pem refuse too-large",
            "chain-most.example.pem install",
            "key-more.example.pem refuse too-large",
            "key-most.example.pem install",
            "key-sparse.example.pem refuse too-large"
        ]
    );
    assert_eq!(deployed(&cmd, "key-most.example"), tree.leaf("key-most.example").combined());
    assert_eq!(deployed(&cmd, "chain-most.example"), tree.leaf("chain-most.example").combined());
}

#[test]
fn what_is_no_lineage_is_passed_over() {
    let mut tree = Tree::new();
    issue(&mut tree, "example.org");
    let live = tree.live();
    fs::write(live.join("stray.pem"), "stray").unwrap();
    fs::create_dir(live.join("empty")).unwrap();
    fs::create_dir(live.join("with-readme")).unwrap();
    fs::write(live.join("with-readme/README"), "text").unwrap();
    fs::write(live.join("with-readme/cert.pem"), "no key and no chain").unwrap();
    symlink("/nowhere", live.join("dangling")).unwrap();
    symlink(".", live.join("loop")).unwrap();
    symlink("ring", live.join("ring")).unwrap();
    symlink("/etc/passwd", live.join("file-link")).unwrap();
    // What `--cert-name README` and `--cert-name ..` leave behind.
    for conf in ["README.conf", "...conf", ".conf"] {
        fs::write(tree.root().join("renewal").join(conf), "").unwrap();
    }
    fs::write(tree.root().join("renewal/example.org.conf.bak"), "no conf").unwrap();
    fs::create_dir(tree.root().join("renewal/folder")).unwrap();
    let cmd = Cmd::new(tree.live()).without_haproxy();
    assert_eq!(brief(&cmd.assemble(&[]).exits(0)), ["example.org.pem install"]);
}

#[test]
fn a_conf_without_key_and_chain_is_a_missing_certificate() {
    let mut tree = Tree::new();
    issue(&mut tree, "example.org");
    tree.issue("damaged.example", KeyKind::P256, &["damaged.example"], Validity::days(90));
    let cmd = Cmd::new(tree.live()).without_haproxy();
    cmd.assemble(&[]).exits(0);
    fs::remove_dir_all(tree.lineage("damaged.example")).unwrap();
    fs::write(tree.root().join("renewal/empty.conf"), "").unwrap();
    let report = cmd.assemble(&[]).exits(1);
    assert_eq!(
        brief(&report),
        [
            "damaged.example.pem refuse certificate-missing",
            "empty.pem refuse certificate-missing",
            "example.org.pem unchanged"
        ]
    );
    assert_eq!(
        deployed(&cmd, "damaged.example"),
        tree.leaf("damaged.example").combined(),
        "kept: it may come back"
    );
}

// --- Names ---------------------------------------------------------------------------------------------------------

#[test]
fn names_that_haproxy_loads_are_deployed_and_others_are_unsafe() {
    let mut tree = Tree::new();
    let longest = "l".repeat(251);
    let deployable = [
        "-dash",
        "192.0.2.7",
        "2001:db8::1",
        "a*b",
        "back\\slash",
        "odd name",
        "q'uote\"",
        "semi;colon",
        "uml-\u{fc}",
        "xn--bcher-kva.example",
        "name.pem",
        "name.key",
        "~tilde~",
        "{}[]$#",
    ];
    for (number, name) in deployable.iter().enumerate() {
        tree.issue(name, KeyKind::P256, &[&format!("{number}.example")], Validity::days(90));
    }
    // certbot can't write their renewal/NAME.conf.
    tree.issue_plain(&longest, KeyKind::P256, &["longest.example"], Validity::days(90));
    let too_long = "m".repeat(252);
    tree.issue_plain(&too_long, KeyKind::P256, &["longer.example"], Validity::days(90));
    let unsafe_names = [".hidden", "..dots", "bell\u{7}", "delete\u{7f}", "new\nline", "esc\u{1b}[0m"];
    for name in unsafe_names {
        issue(&mut tree, name);
    }
    let raw = OsString::from_vec(b"raw-\xff".to_vec());
    issue(&mut tree, "raw");
    fs::rename(tree.lineage("raw"), tree.live().join(&raw)).unwrap();
    fs::remove_file(tree.conf("raw")).unwrap();
    // Only the conf is left of this one.
    fs::write(tree.root().join("renewal").join(OsStr::from_bytes(b"conf-\xfe.conf")), "").unwrap();

    let cmd = Cmd::new(tree.live()).without_haproxy();
    let report = cmd.assemble(&[]).exits(1);
    let mut files: Vec<String> =
        deployable.iter().copied().chain([longest.as_str()]).map(|name| format!("{name}.pem")).collect();
    files.sort();
    let mut rows: Vec<String> = files.iter().map(|file| format!("{file} install")).collect();
    let mut nameless: Vec<String> = unsafe_names
        .iter()
        .copied()
        .chain([too_long.as_str(), "raw-\u{fffd}", "conf-\u{fffd}"])
        .map(|name| format!("({name}) refuse name-unsafe"))
        .collect();
    nameless.sort();
    rows.extend(nameless);
    assert_eq!(brief(&report), rows, "by file in byte order, then those without one");
    assert_eq!(cmd.deployed(), files);
    for name in deployable {
        assert_eq!(deployed(&cmd, name), tree.leaf(name).combined(), "{name}");
    }
    let json = report.json();
    let hidden = json["sites"].as_array().unwrap().iter().find(|row| row["lineage"] == ".hidden").unwrap();
    assert_eq!(hidden["file"], Value::Null);
    assert_eq!(hidden["serial"], tree.leaf(".hidden").serial(), "what certbot has is described nevertheless");
    assert_eq!(haproxy_objects_to(&cmd.sites()), None, "HAProxy loads every one of these names");
    assert_eq!(cmd.assemble(&[]).exits(1).json()["summary"]["unchanged"], 15);
}

// --- Reasons -------------------------------------------------------------------------------------------------------

#[test]
fn every_flaw_of_a_pair_has_its_reason_and_the_rest_is_deployed() {
    let mut tree = Tree::new();
    let mut expected = Vec::new();
    let mut case = |tree: &mut Tree, name: &str, reason: &str| -> Leaf {
        let file = format!("{name}.example.pem");
        expected.push(format!("{file} refuse {reason}"));
        tree.issue(
            &format!("{name}.example"),
            KeyKind::P256,
            &[&format!("{name}.example")],
            Validity::days(90),
        )
    };
    let leaf = case(&mut tree, "encrypted", "key-encrypted");
    let cipher = openssl::symm::Cipher::aes_256_cbc();
    let encrypted = leaf.key.openssl().private_key_to_pem_pkcs8_passphrase(cipher, b"secret").unwrap();
    tree.overwrite("encrypted.example", Kind::Privkey, encrypted);

    let leaf = case(&mut tree, "forged", "key-inconsistent");
    tree.overwrite("forged.example", Kind::Privkey, forged(&leaf.key));

    case(&mut tree, "mismatch", "key-mismatch");
    tree.overwrite("mismatch.example", Kind::Privkey, Key::fresh(KeyKind::P256).pem());
    case(&mut tree, "other-type", "key-mismatch");
    tree.overwrite("other-type.example", Kind::Privkey, Key::some(KeyKind::Rsa2048).pem());

    let leaf = case(&mut tree, "key-damaged", "key-unreadable");
    tree.overwrite("key-damaged.example", Kind::Privkey, leaf.key.pem().replace('M', "!"));

    case(&mut tree, "key-empty", "key-missing");
    tree.overwrite("key-empty.example", Kind::Privkey, "");
    case(&mut tree, "key-gone", "key-missing");
    fs::remove_file(tree.link("key-gone.example", Kind::Privkey)).unwrap();

    case(&mut tree, "curve", "key-unsupported");
    let group = EcGroup::from_curve_name(Nid::SECP256K1).unwrap();
    let odd = PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap();
    tree.overwrite("curve.example", Kind::Privkey, odd.private_key_to_pem_pkcs8().unwrap());
    tree.overwrite("curve.example", Kind::Fullchain, self_signed(&odd, "curve.example"));

    case(&mut tree, "small", "key-too-small");
    let small = PKey::from_rsa(Rsa::generate(1024).unwrap()).unwrap();
    tree.overwrite("small.example", Kind::Privkey, small.private_key_to_pem_pkcs8().unwrap());
    tree.overwrite("small.example", Kind::Fullchain, self_signed(&small, "small.example"));

    let leaf = case(&mut tree, "chain-damaged", "certificate-unreadable");
    tree.overwrite(
        "chain-damaged.example",
        Kind::Fullchain,
        &leaf.fullchain()[..leaf.fullchain().len() - 40],
    );
    let leaf = case(&mut tree, "leaf-damaged", "certificate-unreadable");
    tree.overwrite("leaf-damaged.example", Kind::Fullchain, leaf.fullchain().replacen('M', "!", 3));

    case(&mut tree, "chain-empty", "certificate-missing");
    tree.overwrite("chain-empty.example", Kind::Fullchain, "");
    case(&mut tree, "chain-gone", "certificate-missing");
    fs::remove_file(tree.link("chain-gone.example", Kind::Fullchain)).unwrap();

    case(&mut tree, "not-a-folder", "read-error");
    replace(&tree, "not-a-folder.example", Kind::Privkey, |path| symlink("/etc/passwd/x", path).unwrap());

    expected.push("good.example.pem install".into());
    let good = tree.issue("good.example", KeyKind::P256, &["good.example"], Validity::days(90));
    expected.sort();
    let cmd = Cmd::new(tree.live()).without_haproxy();
    let report = cmd.assemble(&[]).exits(1);
    assert_eq!(brief(&report), expected);
    assert_eq!(cmd.deployed(), ["good.example.pem"]);
    assert_eq!(deployed(&cmd, "good.example"), good.combined());
    let rows = report.json()["sites"].as_array().unwrap().clone();
    for row in rows.iter().filter(|row| row["action"] == "refuse") {
        let detail = row["detail"].as_str().unwrap();
        assert!(!detail.is_empty() && detail.is_ascii() && !detail.contains("PRIVATE"), "{row}");
        let lineage = row["lineage"].as_str().unwrap();
        assert!(detail.contains(tree.lineage(lineage).to_str().unwrap()), "the fact names its place: {row}");
    }
    // What certbot has is described wherever its leaf can be read, whatever is wrong with the key.
    for name in ["encrypted", "forged", "mismatch", "key-damaged", "key-empty", "key-gone", "not-a-folder"] {
        let name = format!("{name}.example");
        let row = report.site(&format!("{name}.pem"));
        assert_eq!(row["serial"], tree.leaf(&name).serial(), "{row}");
        assert_eq!(row["names"], serde_json::json!([name]));
    }
    for name in ["leaf-damaged", "chain-empty", "chain-gone"] {
        let row = report.site(&format!("{name}.example.pem"));
        for field in ["names", "key_type", "serial", "sha256", "not_before", "not_after"] {
            assert_eq!(row[field], Value::Null, "{name}: {field}");
        }
    }
}

#[test]
fn a_refused_lineage_keeps_what_is_deployed() {
    let mut tree = Tree::new();
    let good = issue(&mut tree, "example.org");
    let cmd = Cmd::new(tree.live()).without_haproxy();
    cmd.assemble(&[]).exits(0);
    tree.renew("example.org");
    tree.overwrite("example.org", Kind::Privkey, "");
    let before = listing(&cmd.site("example.org"));
    assert_eq!(brief(&cmd.assemble(&[]).exits(1)), ["example.org.pem refuse key-missing"]);
    assert_eq!(listing(&cmd.site("example.org")), before);
    assert_eq!(deployed(&cmd, "example.org"), good.combined());
}

// --- The live directory --------------------------------------------------------------------------------------------

#[test]
fn without_its_tree_what_was_deployed_stays_and_that_is_an_error() {
    let mut tree = Tree::new();
    issue(&mut tree, "example.org");
    let cmd = Cmd::new(tree.live()).without_haproxy();
    cmd.assemble(&[]).exits(0);
    let before = listing(&cmd.site("example.org"));
    let aside = tree.root().join("aside");
    fs::rename(tree.live(), &aside).unwrap();
    for arguments in [&["--dry-run", "--exit-code"][..], &["--prune-many"]] {
        let report = cmd.assemble(arguments).exits(3).json();
        assert_eq!(report["error"]["kind"], "io");
        let message = report["error"]["message"].as_str().unwrap();
        assert!(
            message.contains("is missing") && message.contains(tree.live().to_str().unwrap()),
            "{message}"
        );
        assert_eq!(report["summary"]["prune"], 0);
    }
    // Empty: no lineage at all.
    make_directory(&tree.live(), 0o700);
    fs::remove_file(tree.conf("example.org")).unwrap();
    assert_eq!(brief(&cmd.assemble(&["--prune-many"]).exits(1)), ["example.org.pem unchanged [prune-held]"]);
    fs::remove_dir(tree.live()).unwrap();
    fs::write(tree.live(), "a file").unwrap();
    let error = cmd.assemble(&["--prune-many"]).exits(3).json()["error"].clone();
    assert_eq!(error["kind"], "io");
    assert!(error["message"].as_str().unwrap().ends_with("/live: not a directory"), "{error}");
    assert_eq!(listing(&cmd.site("example.org")), before);
    fs::remove_file(tree.live()).unwrap();
    fs::rename(aside, tree.live()).unwrap();
    assert_eq!(brief(&cmd.assemble(&[]).exits(0)), ["example.org.pem unchanged"]);
}

/// The program and a tree of its own for a user without rights.
struct Unprivileged {
    tree: Tree,
    cmd: Cmd,
    _folder: tempfile::TempDir,
    program: std::path::PathBuf,
}

impl Unprivileged {
    fn new(names: &[&str]) -> Self {
        let mut tree = Tree::new();
        for name in names {
            tree.issue(name, KeyKind::P256, &[name], Validity::days(90));
        }
        let cmd = Cmd::new(tree.live()).without_haproxy();
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("haproxy-certs");
        fs::copy(Cmd::program(), &program).unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let this = Self { tree, cmd, _folder: folder, program };
        this.cmd.config();
        give(this.tree.root().parent().unwrap(), nobody());
        give(this.cmd.sites().parent().unwrap(), nobody());
        this
    }

    #[track_caller]
    fn assemble(&self, arguments: &[&str]) -> support::Run {
        let (uid, gid) = nobody();
        let config = self.cmd.config();
        std::os::unix::fs::chown(&config, Some(uid), Some(gid)).unwrap();
        let mut command = Command::new("setpriv");
        command.args([format!("--reuid={uid}"), format!("--regid={gid}")]).args(["--clear-groups", "--"]);
        command.arg(&self.program).arg("--config").arg(config).args(["assemble", "--format", "json"]);
        run(command.args(arguments))
    }
}

#[test]
fn a_user_without_rights_works_on_his_own_tree() {
    let (uid, gid) = nobody();
    let mut user = Unprivileged::new(&["example.org", "second.example"]);
    assert_eq!(
        brief(&user.assemble(&[]).exits(0)),
        ["example.org.pem install", "second.example.pem install"]
    );
    assert_eq!(contract::mode_and_owner(&user.cmd.site("example.org")), (0o400, uid, gid));
    assert_eq!(deployed(&user.cmd, "example.org"), user.tree.leaf("example.org").combined());
    user.tree.renew("example.org");
    user.tree.delete("second.example");
    give(user.tree.root(), nobody());
    assert_eq!(brief(&user.assemble(&[]).exits(0)), ["example.org.pem replace", "second.example.pem prune"]);
    assert_eq!(brief(&user.assemble(&[]).exits(0)), ["example.org.pem unchanged"]);
    fs::set_permissions(user.cmd.site("example.org"), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(brief(&user.assemble(&[]).exits(0)), ["example.org.pem repair"]);
}

#[test]
fn files_that_cannot_be_given_to_their_owner_say_so() {
    let mut user = Unprivileged::new(&["example.org"]);
    user.cmd = user.cmd.option("owner = \"root\"");
    for _ in ["the directory is missing", "a renewal"] {
        let error = user.assemble(&[]).exits(3).json()["error"].clone();
        assert_eq!(error["kind"], "permission", "{error}");
        let message = error["message"].as_str().unwrap();
        assert!(
            message.ends_with("(its owner is to be 0:0); run it as root, or set owner to who runs it"),
            "{error}"
        );
        support::tree::make_directory(&user.cmd.sites(), 0o700);
        give(&user.cmd.sites(), nobody());
    }
}

#[test]
fn what_may_not_be_read_is_never_taken_for_gone() {
    let user =
        Unprivileged::new(&["example.org", "locked.example", "no-entry.example", "unreadable.example"]);
    user.assemble(&[]).exits(0);
    let before = listing(&user.cmd.sites());
    let close = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o000)).unwrap();
    let open = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    // Certificates without a conf: copies, or certbot broke off. Their directory is all that speaks for them.
    for name in ["locked.example", "no-entry.example", "unreadable.example"] {
        fs::remove_file(user.tree.conf(name)).unwrap();
    }
    close(&user.tree.lineage("locked.example"));
    fs::set_permissions(user.tree.lineage("no-entry.example"), fs::Permissions::from_mode(0o444)).unwrap();
    let key = user.tree.file("unreadable.example", Kind::Privkey, 1);
    close(&key);
    let report = user.assemble(&[]).exits(1);
    assert_eq!(
        brief(&report),
        [
            "example.org.pem unchanged",
            "locked.example.pem refuse read-error",
            "no-entry.example.pem refuse read-error",
            "unreadable.example.pem refuse read-error"
        ]
    );
    for (folder, opened) in [(user.tree.root().join("renewal"), 0o755), (user.tree.live(), 0o700)] {
        close(&folder);
        let report = user.assemble(&["--prune-many"]).exits(3).json();
        assert_eq!(report["error"]["kind"], "permission");
        assert!(report["error"]["message"].as_str().unwrap().contains(folder.to_str().unwrap()), "{report}");
        fs::set_permissions(&folder, fs::Permissions::from_mode(opened)).unwrap();
    }
    let after = listing(&user.cmd.sites());
    for name in ["example.org", "locked.example", "no-entry.example", "unreadable.example"] {
        assert_eq!(before[&format!("{name}.pem")], after[&format!("{name}.pem")]);
    }
    open(&user.tree.lineage("locked.example"));
    open(&user.tree.lineage("no-entry.example"));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(user.assemble(&[]).exits(0).json()["summary"]["unchanged"], 4);
}

#[test]
fn a_deployed_file_that_may_not_be_read_refuses_its_lineage_only() {
    let user = Unprivileged::new(&["example.org", "second.example"]);
    user.assemble(&[]).exits(0);
    fs::set_permissions(user.cmd.site("example.org"), fs::Permissions::from_mode(0o000)).unwrap();
    let report = user.assemble(&[]).exits(1);
    assert_eq!(
        brief_of(&report, &["example.org.pem", "second.example.pem"]),
        ["example.org.pem refuse read-error", "second.example.pem unchanged"]
    );
}

/// Half of a listing must not look like a tree from which half of the lineages were deleted.
#[test]
fn a_live_directory_that_cannot_be_listed_to_its_end_prunes_nothing() {
    let mut tree = Tree::new();
    for name in ["a.example", "b.example", "c.example"] {
        tree.issue(name, KeyKind::P256, &[name], Validity::days(90));
        fs::remove_file(tree.conf(name)).unwrap();
    }
    let cmd = Cmd::new(tree.live()).without_haproxy();
    cmd.assemble(&[]).exits(0);
    let before = cmd.deployed();
    // The second call comes after a first one that gave all there is.
    for call in [1, 2] {
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=getdents64", "-P"]).arg(tree.live());
        command.args(["-e", &format!("inject=getdents64:error=EIO:when={call}+")]);
        command.arg(Cmd::program()).arg("--config").arg(cmd.config()).args(["assemble", "--format", "json"]);
        let report = run(&mut command).exits(3).json();
        assert_eq!(report["error"]["kind"], "io", "{report}");
        assert_eq!(cmd.deployed(), before);
    }
    cmd.assemble(&["--dry-run", "--exit-code"]).exits(0);
}
