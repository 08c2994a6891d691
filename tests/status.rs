//! `status` against real trees and real `HAProxy`s: each problem is made for real and seen named.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "test code may fail loudly"
)]

mod contract;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use openssl::ec::{EcGroup, EcKey};
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::{Authority, Cmd, Haproxy, Key, KeyKind, Kind, Run, Tree, Validity, Version};
use support::{system_haproxy, version};

/// The versions that are looked at: 2.6 and 3.0 always, 3.2 where it can be had.
fn versions() -> Vec<Version> {
    [Some(system_haproxy()), version("3.0"), version("3.2")].into_iter().flatten().collect()
}

/// A tree with two good lineages, deployed, and a HAProxy that has loaded them.
fn healthy(version: &Version) -> (Tree, Cmd, Haproxy) {
    let mut tree = Tree::new();
    tree.issue("a.example", KeyKind::P256, &["a.example", "www.a.example"], Validity::days(90));
    tree.issue("b.example", KeyKind::Rsa2048, &["b.example", "*.b.example"], Validity::days(90));
    let cmd = Cmd::new(tree.live());
    let haproxy = served(&cmd, version);
    let cmd = cmd.haproxy(&haproxy, &probe(&haproxy));
    (tree, cmd, haproxy)
}

/// Deploys everything and starts a HAProxy with it.
fn served(cmd: &Cmd, version: &Version) -> Haproxy {
    untold(cmd);
    Haproxy::of(version).crt(cmd.sites()).start()
}

fn probe(haproxy: &Haproxy) -> String {
    format!("probe = [\"{}\"]", haproxy.address())
}

/// Brings the disk into step, and tells nobody.
fn untold(cmd: &Cmd) {
    let run = cmd.run(&["assemble", "--reload", "none"]);
    assert!(matches!(run.code, Some(0 | 1)), "{run}");
}

fn json(cmd: &Cmd) -> Run {
    cmd.run(&["status", "--format", "json"])
}

#[track_caller]
fn problems(run: &Run, file: &str) -> Vec<String> {
    let site = run.site(file);
    site["problems"].as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect()
}

/// One deployed lineage without a HAProxy, made by `make`.
fn lonely(make: impl FnOnce(&mut Tree)) -> (Tree, Cmd) {
    let mut tree = Tree::new();
    make(&mut tree);
    let cmd = Cmd::new(tree.live()).without_haproxy();
    untold(&cmd);
    (tree, cmd)
}

fn issue(tree: &mut Tree, name: &str, validity: Validity) {
    tree.issue(name, KeyKind::P256, &[name], validity);
}

#[test]
fn a_healthy_setup_has_no_problems_on_every_version() {
    for version in versions() {
        let (tree, cmd, _haproxy) = healthy(&version);
        let run = json(&cmd).exits(0);
        let report = run.json();
        assert_eq!((&report["state"], &report["command"]), (&"ok".into(), &"status".into()), "{run}");
        for site in report["sites"].as_array().unwrap() {
            assert_eq!(site["problems"], Value::Array(vec![]), "{site}");
            assert_eq!(site["severity"], "ok");
            let serial = &site["certbot"]["serial"];
            assert_eq!(serial.as_str().unwrap(), tree.leaf(site["lineage"].as_str().unwrap()).serial());
            assert_eq!((&site["disk"]["serial"], &site["haproxy"][0]["serial"]), (serial, serial));
            assert_eq!(site["haproxy"][0]["seen_by"], "runtime");
            assert_eq!(site["haproxy"][0]["not_after"], site["disk"]["not_after"], "{site}");
            assert_eq!(site["haproxy"][0]["fingerprint"], site["disk"]["fingerprint"]);
        }
        assert_eq!(report["haproxy"][0]["seen_by"], serde_json::json!(["runtime", "probe"]));
        let human = cmd.run(&["status"]).exits(0);
        assert!(human.stdout.contains("OK: 2 sites in step"), "{human}");
        assert_eq!(human.stderr, "");
        assert_eq!(cmd.run(&["-q", "status"]).exits(0).stdout, "");
    }
}

#[test]
fn renewed_and_still_the_old_one_served_is_critical() {
    for version in versions() {
        let (mut tree, cmd, mut haproxy) = healthy(&version);
        tree.renew("a.example");
        untold(&cmd);
        let run = json(&cmd).exits(2);
        assert_eq!(problems(&run, "a.example.pem"), ["haproxy-stale"], "{run}");
        let site = run.site("a.example.pem");
        assert_eq!(site["certbot"]["serial"], site["disk"]["serial"]);
        assert_ne!(site["haproxy"][0]["serial"], site["disk"]["serial"]);
        assert_eq!(problems(&run, "b.example.pem"), Vec::<String>::new());
        let human = cmd.run(&["status"]).exits(2);
        assert!(human.stdout.contains("CRIT a.example.pem"), "{human}");
        assert!(human.stdout.contains("haproxy-stale: haproxy has serial"), "{human}");
        haproxy.reload_and_wait();
        json(&cmd).exits(0);
    }
}

#[test]
fn a_handshake_sees_what_no_socket_shows() {
    let mut tree = Tree::new();
    issue(&mut tree, "a.example", Validity::days(90));
    let cmd = Cmd::new(tree.live());
    let mut haproxy = served(&cmd, &system_haproxy());
    let cmd = cmd.table(&format!("[[haproxy]]\nmaster_socket = \"/nonexistent/x\"\n{}", probe(&haproxy)));
    let seen = json(&cmd).exits(0);
    assert_eq!(seen.site("a.example.pem")["haproxy"][0]["seen_by"], "probe");
    let old = tree.leaf("a.example").serial();
    tree.renew("a.example");
    untold(&cmd);
    let run = json(&cmd).exits(2);
    assert_eq!(problems(&run, "a.example.pem"), ["haproxy-stale"]);
    assert_eq!(run.site("a.example.pem")["haproxy"][0]["serial"], Value::from(old));
    haproxy.stop();
    let run = json(&cmd).exits(3);
    assert_eq!(run.json()["state"], "unknown");
    assert_eq!(run.site("a.example.pem")["haproxy"][0]["seen_by"], Value::Null);
}

#[test]
fn new_files_that_haproxy_has_not_loaded_are_missing_and_removed_ones_stale() {
    for version in versions() {
        let (mut tree, cmd, _haproxy) = healthy(&version);
        issue(&mut tree, "new.example", Validity::days(90));
        let run = json(&cmd).exits(2);
        assert_eq!(problems(&run, "new.example.pem"), ["disk-missing"]);
        assert_eq!(run.site("new.example.pem")["disk"], Value::Null);
        untold(&cmd);
        let run = json(&cmd).exits(2);
        assert_eq!(problems(&run, "new.example.pem"), ["haproxy-missing"]);
        fs::remove_dir_all(tree.lineage("b.example")).unwrap();
        fs::remove_file(tree.conf("b.example")).unwrap();
        let run = json(&cmd).exits(2);
        assert_eq!(problems(&run, "b.example.pem"), ["disk-stale"], "{run}");
        untold(&cmd);
        let run = json(&cmd).exits(2);
        assert_eq!(problems(&run, "b.example.pem"), ["haproxy-stale"], "{run}");
        assert_eq!(run.site("b.example.pem")["lineage"], Value::Null);
    }
}

#[test]
fn a_renewal_that_is_not_deployed_is_stale_on_disk() {
    let (mut tree, cmd) = lonely(|tree| issue(tree, "a.example", Validity::days(90)));
    json(&cmd).exits(0);
    tree.renew("a.example");
    let run = json(&cmd).exits(1);
    assert_eq!(problems(&run, "a.example.pem"), ["disk-stale"]);
    fs::remove_file(cmd.site("a.example")).unwrap();
    assert_eq!(problems(&json(&cmd).exits(2), "a.example.pem"), ["disk-missing"]);
}

#[test]
fn lifetimes_are_judged_relative_to_themselves() {
    let six_days =
        |hours: i64| Validity::between(time::Duration::hours(hours - 160), time::Duration::hours(hours));
    for (validity, word, code) in [
        (Validity::expired(), "expired", 2),
        (Validity::left(0.05), "expires-soon", 2),
        (Validity::left(0.2), "expires-soon", 1),
        (six_days(15), "expires-soon", 2),
        (six_days(39), "expires-soon", 1),
        (Validity::not_yet(), "not-yet-valid", 1),
    ] {
        let (_tree, cmd) = lonely(|tree| issue(tree, "a.example", validity));
        // certbot should have renewed what is about to expire.
        let overdue = ["renewal-overdue"].into_iter().filter(|_| word != "not-yet-valid");
        let words: Vec<&str> = [word].into_iter().chain(overdue).collect();
        assert_eq!(problems(&json(&cmd).exits(code), "a.example.pem"), words, "{validity:?}");
    }
    let (_tree, cmd) = lonely(|tree| {
        issue(tree, "six.example", six_days(100));
        tree.issue("192.0.2.7", KeyKind::P256, &["192.0.2.7"], Validity::left(0.5));
    });
    json(&cmd).exits(0);
}

#[test]
fn an_expired_certificate_in_haproxy_is_critical() {
    let mut tree = Tree::new();
    issue(&mut tree, "a.example", Validity::expired());
    let cmd = Cmd::new(tree.live());
    let haproxy = served(&cmd, &system_haproxy());
    let cmd = cmd.haproxy(&haproxy, "");
    let fresh = tree.authority().issue(KeyKind::P256, &["a.example"], Validity::days(90));
    tree.renew_with("a.example", &fresh);
    untold(&cmd);
    let run = json(&cmd).exits(2);
    let mut words = problems(&run, "a.example.pem");
    words.sort();
    assert_eq!(words, ["expired", "haproxy-stale"]);
    assert!(cmd.run(&["status"]).stdout.contains("the certificate in haproxy expired 24 hours ago"));
}

#[test]
fn an_expired_leftover_that_sorts_first_is_named_with_the_file_it_shadows() {
    for version in versions() {
        let mut tree = Tree::new();
        issue(&mut tree, "shop.example", Validity::days(90));
        let cmd = Cmd::new(tree.live());
        untold(&cmd);
        let leftover = tree.authority().issue(KeyKind::P256, &["shop.example"], Validity::expired());
        fs::write(cmd.sites().join("old-shop.pem"), leftover.combined()).unwrap();
        let haproxy = Haproxy::of(&version).crt(cmd.sites()).start();
        let cmd = cmd.haproxy(&haproxy, &probe(&haproxy));
        let run = json(&cmd).exits(2);
        assert_eq!(problems(&run, "shop.example.pem"), ["shadowed"], "{run}");
        // Whoever renews it: HAProxy has loaded it.
        assert_eq!(problems(&run, "old-shop.pem"), ["expired", "foreign"]);
        assert_eq!(run.site("old-shop.pem")["severity"], "critical");
        let human = cmd.run(&["status"]).stdout;
        let fact = "shop.example is served from old-shop.pem, which sorts first, isn't ours and has expired";
        assert_eq!(run.site("shop.example.pem")["details"][0]["fact"], fact, "{human}");
    }
}

#[test]
fn a_file_from_elsewhere_that_wins_a_name_is_named() {
    let version = system_haproxy();
    let mut tree = Tree::new();
    issue(&mut tree, "shop.example", Validity::days(90));
    let cmd = Cmd::new(tree.live());
    untold(&cmd);
    let leftover = tree.authority().issue(KeyKind::P256, &["shop.example"], Validity::expired());
    let elsewhere = cmd.beside("leftover.pem");
    fs::write(&elsewhere, leftover.combined()).unwrap();
    let haproxy = Haproxy::of(&version).crt(&elsewhere).crt(cmd.sites()).start();
    let cmd = cmd.haproxy(&haproxy, "");
    let run = json(&cmd).exits(2);
    assert_eq!(problems(&run, "shop.example.pem"), ["shadowed"], "{run}");
    assert_eq!(problems(&run, elsewhere.to_str().unwrap()), ["expired", "foreign"], "{run}");
    let fact = run.site("shop.example.pem")["details"][0]["fact"].as_str().unwrap().to_owned();
    assert!(fact.contains(elsewhere.to_str().unwrap()), "{fact}");
    // No handshake is asked for a name that the file can't win.
    let cmd = cmd.table(&probe(&haproxy));
    assert_eq!(problems(&json(&cmd).exits(2), "shop.example.pem"), ["shadowed"]);
    cmd.assemble(&[]).exits(1);
}

#[test]
fn foreign_files_are_fine_and_conflicts_are_not() {
    let (mut tree, cmd) = lonely(|tree| issue(tree, "a.example", Validity::days(90)));
    let other = tree.authority().issue(KeyKind::P256, &["z.example"], Validity::days(90));
    fs::write(cmd.sites().join("zz.pem"), other.combined()).unwrap();
    let run = json(&cmd).exits(0);
    assert_eq!(problems(&run, "zz.pem"), ["foreign"]);
    assert!(cmd.run(&["status"]).stdout.contains("OK: 1 site in step"), "a foreign file is no site");
    issue(&mut tree, "zz", Validity::days(90));
    let run = json(&cmd).exits(1);
    assert_eq!(problems(&run, "zz.pem"), ["conflict"]);
    assert_eq!(run.site("zz.pem")["disk_state"], "foreign");
}

#[test]
fn refusals_and_warnings_are_problems() {
    let (tree, cmd) = lonely(|tree| {
        for name in ["good.example", "torn.example", "chain.example", "order.example", "loose.example"] {
            issue(tree, name, Validity::days(90));
        }
    });
    json(&cmd).exits(0);
    let other = tree.authority().issue(KeyKind::P256, &["x.example"], Validity::days(90));
    tree.overwrite("torn.example", Kind::Privkey, other.key.pem());
    let cert = tree.leaf("chain.example").cert.clone();
    tree.overwrite("chain.example", Kind::Fullchain, &cert);
    let leaf = tree.leaf("order.example").clone();
    let root = tree.authority().root().to_owned();
    tree.overwrite("order.example", Kind::Fullchain, format!("{}{root}{}", leaf.cert, leaf.chain));
    fs::set_permissions(tree.file("loose.example", Kind::Privkey, 1), fs::Permissions::from_mode(0o644))
        .unwrap();
    let run = json(&cmd).exits(1);
    assert_eq!(problems(&run, "torn.example.pem"), ["key-mismatch"]);
    assert!(problems(&run, "chain.example.pem").contains(&"chain-incomplete".to_owned()), "{run}");
    assert!(problems(&run, "order.example.pem").contains(&"chain-order".to_owned()), "{run}");
    assert_eq!(problems(&run, "loose.example.pem"), ["loose-permissions"]);
    assert_eq!(problems(&run, "good.example.pem"), Vec::<String>::new());
    fs::write(cmd.sites().join("good.example.pem.ocsp"), "x").unwrap();
    fs::set_permissions(cmd.site("loose.example"), fs::Permissions::from_mode(0o644)).unwrap();
    let run = json(&cmd).exits(1);
    assert_eq!(problems(&run, "good.example.pem"), ["sibling-files"]);
    let human = cmd.run(&["status"]).stdout;
    let keys = tree.archive("loose.example");
    assert!(human.contains(&format!("chmod 600 {}/privkey*.pem\n", keys.display())), "{human}");
    assert!(human.contains("the file's owner or mode is not as configured"), "{human}");
}

/// Each lineage is deployed, then spoilt, and what is deployed stays in step with nothing: the reason alone is named.
#[test]
fn every_reason_of_a_refusal_is_named() {
    let expected = [
        ("encrypted", "key-encrypted"),
        ("forged", "key-inconsistent"),
        ("mismatch", "key-mismatch"),
        ("key-damaged", "key-unreadable"),
        ("key-gone", "key-missing"),
        ("curve", "key-unsupported"),
        ("small", "key-too-small"),
        ("chain-damaged", "certificate-unreadable"),
        ("chain-gone", "certificate-missing"),
        ("torn", "lineage-torn"),
        ("folder", "not-a-regular-file"),
        ("large", "too-large"),
        ("older", "older-than-deployed"),
        ("staging", "would-replace-good"),
        ("no-way", "read-error"),
    ];
    let (mut tree, cmd) = lonely(|tree| {
        for (name, _) in expected {
            issue(tree, name, Validity::days(90));
        }
    });
    json(&cmd).exits(0);
    let key = tree.leaf("encrypted").key.clone();
    let cipher = openssl::symm::Cipher::aes_256_cbc();
    let encrypted = key.openssl().private_key_to_pem_pkcs8_passphrase(cipher, b"secret").unwrap();
    tree.overwrite("encrypted", Kind::Privkey, encrypted);
    tree.overwrite("forged", Kind::Privkey, contract::forged(&tree.leaf("forged").key));
    tree.overwrite("mismatch", Kind::Privkey, Key::fresh(KeyKind::P256).pem());
    tree.overwrite("key-damaged", Kind::Privkey, key.pem().replace('M', "!"));
    fs::remove_file(tree.link("key-gone", Kind::Privkey)).unwrap();
    let curve = EcGroup::from_curve_name(Nid::SECP256K1).unwrap();
    let self_signed = |tree: &Tree, name: &str, key: &PKey<Private>| {
        tree.overwrite(name, Kind::Privkey, key.private_key_to_pem_pkcs8().unwrap());
        tree.overwrite(name, Kind::Fullchain, contract::self_signed(key, name));
    };
    self_signed(&tree, "curve", &PKey::from_ec_key(EcKey::generate(&curve).unwrap()).unwrap());
    self_signed(&tree, "small", &PKey::from_rsa(Rsa::generate(1024).unwrap()).unwrap());
    let chain = tree.leaf("chain-damaged").fullchain();
    tree.overwrite("chain-damaged", Kind::Fullchain, &chain[..chain.len() - 40]);
    fs::remove_file(tree.link("chain-gone", Kind::Fullchain)).unwrap();
    tree.renew_stopped_before(10, "torn");
    fs::remove_file(tree.link("folder", Kind::Privkey)).unwrap();
    fs::create_dir(tree.link("folder", Kind::Privkey)).unwrap();
    tree.overwrite("large", Kind::Privkey, vec![b'#'; (1 << 20) + 1]);
    let older = Validity::between(time::Duration::days(-2), time::Duration::days(200));
    let older = tree.authority().issue(KeyKind::P256, &["older"], older);
    tree.renew_with("older", &older);
    let staging = Authority::named("(STAGING) Test CA");
    tree.renew_with("staging", &staging.issue(KeyKind::P256, &["staging"], Validity::days(90)));
    fs::remove_file(tree.link("no-way", Kind::Privkey)).unwrap();
    std::os::unix::fs::symlink("/etc/passwd/x", tree.link("no-way", Kind::Privkey)).unwrap();

    let run = json(&cmd).exits(1);
    for (name, reason) in expected {
        let file = format!("{name}.pem");
        let words = problems(&run, &file);
        assert!(words.contains(&reason.to_owned()), "{name}: {words:?}");
        // A staging certificate is called one besides; nothing else is added.
        assert!(words.iter().all(|word| word == reason || word == "staging-issuer"), "{name}: {words:?}");
        let site = run.site(&file);
        assert_eq!(site["severity"], "warning", "{site}");
        // What to do is the advice, or a command at the end of the fact.
        let (fact, advice) = (&site["details"][0]["fact"], &site["details"][0]["advice"]);
        assert!(advice.is_string() || fact.as_str().unwrap().contains("; run assemble"), "{site}");
    }
    // One that was never deployed is missing besides, for visitors the worse of both.
    issue(&mut tree, "new", Validity::days(90));
    tree.overwrite("new", Kind::Privkey, Key::fresh(KeyKind::P256).pem());
    assert_eq!(problems(&json(&cmd).exits(2), "new.pem"), ["disk-missing", "key-mismatch"]);
    let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    tree.overwrite("new", Kind::Fullchain, garbage);
    assert_eq!(problems(&json(&cmd).exits(2), "new.pem"), ["disk-missing", "certificate-unreadable"]);
}

#[test]
fn a_name_that_no_file_can_have_is_named() {
    let (_tree, cmd) = lonely(|tree| {
        issue(tree, "a.example", Validity::days(90));
        issue(tree, ".hidden", Validity::days(90));
    });
    let report = json(&cmd).exits(1).json();
    let site = report["sites"].as_array().unwrap().iter().find(|site| site["lineage"] == ".hidden").unwrap();
    assert_eq!(
        (&site["file"], &site["problems"]),
        (&Value::Null, &serde_json::json!(["name-unsafe"])),
        "{site}"
    );
}

/// HAProxy refuses RSA keys of 2048 bits here, by its own environment, and is asked by a real roll-back.
#[test]
fn what_haproxy_refused_is_named() {
    let mut tree = Tree::new();
    issue(&mut tree, "a.example", Validity::days(90));
    let cmd = Cmd::new(tree.live());
    untold(&cmd);
    let demanding = support::live::demanding_openssl(cmd.sites().parent().unwrap());
    let unaware = support::live::unaware(&system_haproxy(), cmd.sites().parent().unwrap());
    let haproxy = Haproxy::of(&unaware).crt(cmd.sites()).env("OPENSSL_CONF", &demanding).start();
    let cmd = cmd.haproxy(&haproxy, "");
    json(&cmd).exits(0);
    let weak = tree.authority().issue(KeyKind::Rsa2048, &["a.example"], Validity::days(90));
    tree.renew_with("a.example", &weak);
    cmd.run(&["assemble"]).exits(2);
    let run = json(&cmd).exits(1);
    assert_eq!(problems(&run, "a.example.pem"), ["haproxy-rejects"], "{run}");
}

/// Refused before it was put in place: by the run that asked, and by a status after it.
#[test]
fn what_haproxy_refused_before_it_was_deployed_is_named() {
    let mut tree = Tree::new();
    issue(&mut tree, "a.example", Validity::days(90));
    let binary = support::cmd::toml(&system_haproxy().program);
    let cmd = Cmd::new(tree.live()).table(&format!("[[haproxy]]\nreload = \"none\"\nbinary = {binary}"));
    untold(&cmd);
    let sibling = cmd.sites().join("a.example.pem.sctl");
    fs::write(&sibling, "").unwrap();
    tree.renew("a.example");
    issue(&mut tree, "b.example", Validity::days(90));
    fs::write(cmd.sites().join("b.example.pem.sctl"), "").unwrap();
    let refused = cmd.assemble(&[]).exits(1).site("a.example.pem")["detail"].clone();
    let run = json(&cmd).exits(2);
    assert_eq!(problems(&run, "a.example.pem"), ["haproxy-rejects", "sibling-files"], "{run}");
    assert_eq!(run.site("a.example.pem")["details"][0]["fact"], refused);
    assert_eq!(
        problems(&run, "b.example.pem"),
        ["disk-missing", "haproxy-rejects", "sibling-files"],
        "{run}"
    );
    // What certbot has since then was never refused.
    tree.renew("a.example");
    assert_eq!(problems(&json(&cmd).exits(2), "a.example.pem"), ["sibling-files", "disk-stale"]);
    fs::remove_file(&sibling).unwrap();
    cmd.assemble(&[]).exits(1);
    assert_eq!(problems(&json(&cmd).exits(2), "a.example.pem"), Vec::<String>::new());
}

#[test]
fn pruning_that_is_held_is_named() {
    let names: Vec<String> = (0..8).map(|number| format!("{number}.example")).collect();
    let (mut tree, cmd) = lonely(|tree| {
        for name in &names {
            issue(tree, name, Validity::days(90));
        }
    });
    for name in &names[..4] {
        tree.delete(name);
    }
    let run = json(&cmd).exits(1);
    assert_eq!(problems(&run, "0.example.pem"), ["prune-held"], "{run}");
    let detail = run.site("0.example.pem")["details"][0].clone();
    assert!(detail["fact"].as_str().unwrap().ends_with("if meant: assemble --prune-many"), "{detail}");
    assert_eq!(problems(&run, "7.example.pem"), Vec::<String>::new());
    assert_eq!(cmd.deployed().len(), 8, "status changes nothing");
}

#[test]
fn a_new_default_certificate_is_said_and_is_fine() {
    let (mut tree, cmd) = lonely(|tree| issue(tree, "b.example", Validity::days(90)));
    issue(&mut tree, "a.example", Validity::days(90));
    let run = json(&cmd).exits(2);
    assert_eq!(problems(&run, "a.example.pem"), ["disk-missing", "default-certificate-changed"]);
    let details = run.site("a.example.pem")["details"].clone();
    assert_eq!(details[1]["severity"], "ok", "{details}");
}

/// A shadowed lineage that is refused, too: each problem has its own fact.
#[test]
fn the_facts_of_two_problems_are_not_mixed_up() {
    let (tree, cmd) = lonely(|tree| {
        for lineage in ["a.example", "b.example"] {
            tree.issue(lineage, KeyKind::P256, &["x.example"], Validity::days(90));
        }
    });
    tree.overwrite("b.example", Kind::Privkey, Key::fresh(KeyKind::P256).pem());
    let run = json(&cmd).exits(1);
    let mut words = problems(&run, "b.example.pem");
    words.sort();
    assert_eq!(words, ["key-mismatch", "shadowed"]);
    for detail in run.site("b.example.pem")["details"].as_array().unwrap() {
        let is_of_the_key = detail["fact"].as_str().unwrap().contains("private key");
        assert_eq!(is_of_the_key, detail["problem"] == "key-mismatch", "{detail}");
    }
}

#[test]
fn a_sites_directory_that_others_may_change_is_named() {
    let (_tree, cmd) = lonely(|tree| issue(tree, "a.example", Validity::days(90)));
    fs::set_permissions(cmd.sites(), fs::Permissions::from_mode(0o777)).unwrap();
    let report = json(&cmd).exits(1).json();
    assert_eq!(report["problems"][0]["problem"], "loose-permissions", "{report}");
}

#[test]
fn a_file_that_haproxy_cannot_load_is_critical() {
    let (_tree, cmd) = lonely(|tree| issue(tree, "a.example", Validity::days(90)));
    fs::write(cmd.sites().join("README"), "read me").unwrap();
    assert_eq!(problems(&json(&cmd).exits(2), "README"), ["unloadable", "foreign"]);
}

#[test]
fn the_host_certificate_is_a_site_of_its_own() {
    let mut tree = Tree::new();
    issue(&mut tree, "a.example", Validity::days(90));
    let cmd = Cmd::new(tree.live());
    let host = cmd.beside("host.pem");
    let option = format!("host_lineage = \"a.example\"\nhost_file = {}", support::cmd::toml(&host));
    let cmd = cmd.option(&option);
    untold(&cmd);
    let mut haproxy = Haproxy::of(&system_haproxy()).crt(&host).crt(cmd.sites()).start();
    let cmd = cmd.haproxy(&haproxy, &probe(&haproxy));
    json(&cmd).exits(0);
    let file = host.to_str().unwrap();
    tree.renew("a.example");
    assert_eq!(problems(&json(&cmd).exits(1), file), ["disk-stale"]);
    untold(&cmd);
    assert_eq!(problems(&json(&cmd).exits(2), file), ["haproxy-stale"]);
    fs::remove_file(&host).unwrap();
    assert!(problems(&json(&cmd).exits(2), file).contains(&"disk-missing".to_owned()));
    untold(&cmd);
    haproxy.reload_and_wait();
    json(&cmd).exits(0);
}

#[test]
fn without_a_socket_that_is_said() {
    let mut tree = Tree::new();
    issue(&mut tree, "a.example", Validity::days(90));
    let cmd = Cmd::new(tree.live());
    let haproxy = served(&cmd, &system_haproxy());
    let pidfile = support::cmd::toml(&haproxy.pidfile());
    let cmd = cmd.table(&format!("[[haproxy]]\nmaster_socket = \"\"\npidfile = {pidfile}"));
    tree.renew("a.example");
    let text = fs::read_to_string(haproxy.config()).unwrap();
    fs::write(haproxy.config(), format!("{text}  bogus-keyword on\n")).unwrap();
    let told = cmd.assemble(&[]).exits(2).json()["haproxy"][0]["detail"].as_str().unwrap().to_owned();
    let reason = "neither runtime_socket nor master_socket is set";
    let shown = cmd.run(&["-v", "assemble"]).exits(2).stdout;
    assert!(shown.contains(&format!("runtime: {reason}")), "{shown}");
    assert!(
        told.contains(&format!("0 of 1 files are replaced in memory meanwhile (a.example.pem: {reason})")),
        "{told}"
    );
    // HAProxy couldn't start again.
    let seen = json(&cmd).exits(2).json();
    assert_eq!(seen["haproxy"][0]["detail"], reason);
    assert_eq!(seen["problems"][0]["problem"], "haproxy-config", "{seen}");
}

/// Each look leaves a connection that nobody takes: once the socket has no place for another one, nobody waits for it.
#[test]
fn a_haproxy_that_hangs_keeps_nobody_waiting() {
    let version = version("3.2").unwrap();
    let tree = Tree::of(&[("a.example", &["a.example"])]);
    let cmd = Cmd::new(tree.live());
    let haproxy = served(&cmd, &version);
    let cmd = cmd.haproxy(&haproxy, "timeout = \"5s\"");
    let all = || {
        let processes = haproxy.worker_pids().into_iter().chain([haproxy.master_pid()]);
        processes.map(|pid| Pid::from_raw(pid.try_into().unwrap()).unwrap()).collect::<Vec<_>>()
    };
    let processes = all();
    for pid in &processes {
        kill_process(*pid, Signal::STOP).unwrap();
    }
    // Its end is what counts; `run` doesn't wait for ever.
    for _ in 0..5 {
        json(&cmd);
    }
    for pid in &processes {
        kill_process(*pid, Signal::CONT).unwrap();
    }
    json(&cmd).exits(0);
}

#[test]
fn advice_can_be_followed() {
    let (mut tree, cmd) = lonely(|tree| {
        for name in ["a.example", "it's $HOME", "z.example"] {
            tree.issue(name, KeyKind::P256, &["a.example"], Validity::days(90));
        }
    });
    tree.overwrite("it's $HOME", Kind::Privkey, Key::fresh(KeyKind::P256).pem());
    tree.issue("folder", KeyKind::P256, &["folder.example"], Validity::days(90));
    fs::create_dir(cmd.site("folder")).unwrap();
    let said = cmd.run(&["assemble", "--adopt"]).exits(1).stdout;
    assert!(said.contains(r"--cert-name 'it'\''s $HOME'"), "{said}");
    assert!(said.contains("conflict   folder.pem: it is a directory; move it away\n"), "{said}");
    // Whichever guard holds a file says itself what helps.
    for name in ["a.example", "it's $HOME", "z.example", "folder"] {
        tree.delete(name);
    }
    let held = json(&cmd).exits(1).site("z.example.pem")["details"][1].clone();
    assert!(held["fact"].as_str().unwrap().contains("live_dir has no lineage at all"), "{held}");
    assert!(!held.to_string().contains("--prune-many"), "it wouldn't help: {held}");
    let mut other = Tree::new();
    other.issue("new.example", KeyKind::P256, &["a.example"], Validity::days(90));
    let run = cmd.run(&["--live-dir", other.live().to_str().unwrap(), "status", "--format", "json"]).exits(2);
    assert_eq!(problems(&run, "z.example.pem"), ["shadowed", "prune-held"]);
    let details = run.site("z.example.pem")["details"].clone();
    for (detail, fact) in
        [(0, "is served from a.example.pem, which sorts first"), (1, "another live directory; see live_dir")]
    {
        assert!(details[detail]["fact"].as_str().unwrap().contains(fact), "{details}");
    }
}

#[test]
fn an_output_that_is_lost_is_no_success() {
    let (_tree, cmd) = lonely(|tree| issue(tree, "a.example", Validity::days(90)));
    let commands: [&[&str]; 9] = [
        &["status"],
        &["status", "--format", "html"],
        &["status", "--format", "json"],
        &["status", "--format", "monitoring"],
        &["status", "--format", "prometheus"],
        &["assemble"],
        &["assemble", "--format", "json"],
        &["haproxy-config"],
        &["completions", "bash"],
    ];
    for arguments in commands {
        let start = |out: Stdio| {
            let mut command = Command::new(Cmd::program());
            command.arg("--config").arg(cmd.config()).args(arguments).stdout(out);
            let output = command.output().unwrap();
            (output.status.code(), String::from_utf8(output.stderr).unwrap())
        };
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let said = "haproxy-certs: cannot write to stdout: no space left on device\n";
        assert_eq!(start(full.into()), (Some(3), said.to_owned()), "{arguments:?}");
        // Somebody who has read enough, as `head`.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        assert_eq!(start(writer.into()), (Some(0), String::new()), "{arguments:?}");
    }
}

#[test]
fn help_that_is_lost_is_no_success() {
    for arguments in [&["--help"][..], &["--version"], &["status", "--help"]] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let status = Command::new(Cmd::program()).args(arguments).stdout(full).stderr(Stdio::null()).status();
        assert_eq!(status.unwrap().code(), Some(3), "{arguments:?}");
        let status = Command::new(Cmd::program()).args(arguments).stdout(Stdio::null()).status();
        assert_eq!(status.unwrap().code(), Some(0), "{arguments:?}");
    }
}

/// A pipe, a device and a link belong to somebody: what is renamed over them would be gone.
#[test]
fn the_text_file_replaces_regular_files_only() {
    use std::os::unix::fs::FileTypeExt as _;
    let (_tree, cmd) = lonely(|tree| issue(tree, "a.example", Validity::days(90)));
    let pipe = cmd.beside("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let link = cmd.beside("link");
    std::os::unix::fs::symlink("nowhere", &link).unwrap();
    let folder = cmd.beside("folder");
    fs::create_dir(&folder).unwrap();
    for path in [&pipe, &link, &folder] {
        let run = cmd.run(&["status", "--textfile", path.to_str().unwrap()]).exits(3);
        assert!(run.stdout.contains("not a regular file"), "{run}");
    }
    assert!(fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo());
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    let file = cmd.beside("metrics.prom");
    for _ in 0..2 {
        cmd.run(&["status", "--textfile", file.to_str().unwrap()]).exits(0);
    }
    assert!(fs::read_to_string(&file).unwrap().contains("haproxy_certs_state 0\n"));
    // Settings that can't be used are no reason to leave the last good state there.
    let broken = cmd.option("nonsense = 1");
    broken.run(&["status", "--textfile", file.to_str().unwrap()]).exits(3);
    assert!(fs::read_to_string(&file).unwrap().contains("haproxy_certs_state 3\n"));
}

#[test]
fn a_configuration_that_is_a_pipe_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut command = Command::new(Cmd::program());
    let output = support::process::finish(command.arg("--config").arg(&pipe).arg("status"), support::LIMIT);
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("it is a FIFO"));
}

#[test]
fn labels_are_fit_for_a_terminal() {
    let (_tree, cmd) = lonely(|tree| issue(tree, "a\u{1b}[31m", Validity::days(90)));
    let metrics = cmd.run(&["status", "--format", "prometheus"]).stdout;
    assert!(metrics.contains(r"a\\x1b[31m") && !metrics.contains('\u{1b}'), "{metrics}");
}

/// One case of each on the versions that the other tests leave out.
#[test]
fn in_step_stale_and_missing_on_the_oldest_and_the_newest_version() {
    for version in [version("2.2"), version("3.4")].into_iter().flatten() {
        let (mut tree, cmd, mut haproxy) = healthy(&version);
        json(&cmd).exits(0);
        tree.renew("a.example");
        issue(&mut tree, "new.example", Validity::days(90));
        untold(&cmd);
        let run = json(&cmd).exits(2);
        assert_eq!(problems(&run, "a.example.pem"), ["haproxy-stale"], "{}: {run}", version.full);
        assert_eq!(problems(&run, "new.example.pem"), ["haproxy-missing"], "{}: {run}", version.full);
        assert_eq!(problems(&run, "b.example.pem"), Vec::<String>::new());
        haproxy.reload_and_wait();
        let run = json(&cmd).exits(0);
        assert_eq!(run.site("a.example.pem")["haproxy"][0]["seen_by"], "runtime", "{}: {run}", version.full);
    }
}

/// Asked for a certificate of so many names that they just fill its buffer, 2.6 ends; the others break off.
#[test]
fn a_certificate_with_too_many_names_to_be_shown_leaves_the_others_seen() {
    for version in [Some(system_haproxy()), version("2.2"), version("3.4")].into_iter().flatten() {
        for count in [738, 1200] {
            let mut tree = Tree::new();
            issue(&mut tree, "a.example", Validity::days(90));
            let names: Vec<String> = (0..count).map(|number| format!("{number}.many.example")).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            tree.issue("many.example", KeyKind::P256, &names, Validity::days(90));
            tree.issue("z.example", KeyKind::Ed25519, &["z.example"], Validity::days(90));
            let cmd = Cmd::new(tree.live());
            let haproxy = served(&cmd, &version);
            let cmd = cmd.haproxy(&haproxy, "timeout = \"30s\"");
            let states = |run: &Run| {
                ["a", "many", "z"].map(|name| {
                    let view = run.site(&format!("{name}.example.pem"))["haproxy"][0].clone();
                    view["state"].as_str().unwrap().to_owned()
                })
            };
            let run = json(&cmd).exits(3);
            assert_eq!(states(&run), ["current", "unknown", "current"], "{}: {run}", version.full);
            let human = cmd.run(&["status"]).exits(3).stdout;
            let said = "not all can be seen: many.example.pem has too many names for HAProxy to show it";
            assert!(human.replace("\n         ", " ").contains(said), "{human}");

            let new = tree.authority().issue(KeyKind::P256, &names, Validity::days(90));
            tree.renew_with("many.example", &new);
            let told = cmd.assemble(&[]).exits(0).json()["haproxy"][0].clone();
            assert_eq!(
                (&told["outcome"], &told["confirmed"]),
                (&"reloaded".into(), &true.into()),
                "{}: {told}",
                version.full
            );
            assert_eq!(support::served(haproxy.address(), names[0]).serial, new.serial(), "{}", version.full);

            // HAProxy isn't asked for the long one either when a short one takes its place.
            let short = tree.authority().issue(KeyKind::P256, &["many.example"], Validity::days(90));
            tree.renew_with("many.example", &short);
            let told = cmd.assemble(&[]).exits(0).json()["haproxy"][0].clone();
            assert_eq!(told["outcome"], "reloaded", "{}: {told}", version.full);
            assert_eq!(support::served(haproxy.address(), "many.example").serial, short.serial());
            json(&cmd).exits(0);
        }
    }
}

#[test]
fn what_is_in_memory_and_not_served_is_missing() {
    let (mut tree, cmd, haproxy) = healthy(&system_haproxy());
    issue(&mut tree, "new.example", Validity::days(90));
    untold(&cmd);
    let file = cmd.site("new.example");
    haproxy.runtime(&format!("new ssl cert {}", file.display()));
    let pem = fs::read_to_string(&file).unwrap();
    haproxy.runtime(&format!("set ssl cert {} <<\n{pem}\n", file.display()));
    haproxy.runtime(&format!("commit ssl cert {}", file.display()));
    let run = json(&cmd).exits(2);
    assert_eq!(problems(&run, "new.example.pem"), ["haproxy-missing"], "{run}");
    let human = cmd.run(&["status"]).stdout;
    assert!(human.contains("haproxy has it in memory and doesn't serve it"), "{human}");
}

#[test]
fn a_refused_handshake_is_missing() {
    let mut tree = Tree::new();
    issue(&mut tree, "a.example", Validity::days(90));
    let cmd = Cmd::new(tree.live());
    untold(&cmd);
    let haproxy = Haproxy::of(&system_haproxy()).crt(cmd.sites()).bind_option("strict-sni").start();
    issue(&mut tree, "new.example", Validity::days(90));
    untold(&cmd);
    let cmd = cmd.table(&format!("[[haproxy]]\nmaster_socket = \"/nonexistent/x\"\n{}", probe(&haproxy)));
    let run = json(&cmd).exits(2);
    assert_eq!(problems(&run, "new.example.pem"), ["haproxy-missing"], "{run}");
    let human = cmd.run(&["status"]).stdout;
    assert!(human.contains("haproxy presents no certificate for new.example at"), "{human}");
}

#[test]
fn a_damaged_record_counts_as_owed() {
    let (_tree, cmd, _haproxy) = healthy(&system_haproxy());
    fs::write(cmd.sites().join(".haproxy-certs/state.json"), "{").unwrap();
    let report = json(&cmd).exits(1).json();
    assert_eq!(report["problems"][0]["problem"], "reload-owed", "{report}");
    let fact = "haproxy counts as waiting for an update: .haproxy-certs/state.json is damaged";
    assert_eq!((&report["problems"][0]["fact"], &report["haproxy"][0]["owed"]), (&fact.into(), &true.into()));
    assert_eq!(report["haproxy"][0]["owed_since"], Value::Null);
    cmd.run(&["assemble"]).exits(0);
    json(&cmd).exits(0);
}

#[test]
fn a_staging_certificate_is_named() {
    let staging = Authority::named("(STAGING) Test CA");
    let leaf = staging.issue(KeyKind::P256, &["s.example"], Validity::days(90));
    let (_tree, cmd) = lonely(|tree| tree.issue_leaf("s.example", &leaf));
    assert_eq!(problems(&json(&cmd).exits(1), "s.example.pem"), ["staging-issuer"]);
}

#[test]
fn what_is_owed_is_a_warning_and_after_an_hour_critical() {
    let (mut tree, cmd, _haproxy) = healthy(&system_haproxy());
    tree.renew("a.example");
    cmd.run(&["assemble", "--defer-reload"]).exits(0);
    let run = json(&cmd).exits(2);
    let words = problems(&run, "a.example.pem");
    assert_eq!(words, ["haproxy-stale", "reload-owed"]);
    let severity = |run: &Run| run.json()["problems"][0]["severity"].clone();
    assert_eq!(
        (severity(&run), &run.json()["problems"][0]["problem"]),
        ("warning".into(), &"reload-owed".into())
    );
    assert_eq!(run.json()["haproxy"][0]["owed"], true);
    let human = cmd.run(&["status"]).stdout;
    assert!(human.contains("\nWARN reload-owed: haproxy has been waiting"), "no site's: {human}");
    let state = cmd.sites().join(".haproxy-certs/state.json");
    let mut remembered: Value = serde_json::from_slice(&fs::read(&state).unwrap()).unwrap();
    remembered["owed"]["haproxy"]["since"] = Value::from(1_000_000);
    fs::write(&state, remembered.to_string()).unwrap();
    assert_eq!(severity(&json(&cmd).exits(2)), "critical");
    // The clock was set back since.
    let later =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() + 90_000;
    remembered["owed"]["haproxy"]["since"] = Value::from(later);
    fs::write(&state, remembered.to_string()).unwrap();
    let seen = json(&cmd).exits(2).json();
    let fact = seen["problems"][0]["fact"].as_str().unwrap();
    assert!(fact.contains("since when can't be told") && !fact.contains('-'), "{fact}");
    cmd.run(&["assemble"]).exits(0);
    json(&cmd).exits(0);
}

/// Its stats socket is in another place by now: what is to be set isn't the pidfile, which is right.
#[test]
fn a_socket_that_moved_is_what_is_to_be_set() {
    let (_tree, cmd, haproxy) = healthy(&system_haproxy());
    let dead = cmd.beside("admin.sock");
    drop(std::os::unix::net::UnixListener::bind(&dead).unwrap());
    let table = format!(
        "[[haproxy]]\nunit = \"\"\nmaster_socket = \"\"\npidfile = {}\nruntime_socket = {}",
        support::cmd::toml(&haproxy.pidfile()),
        support::cmd::toml(&dead)
    );
    let seen = json(&cmd.with_tables(&table)).exits(3);
    assert!(seen.stdout.contains("was started with this pidfile; set runtime_socket to its own"), "{seen}");
}

#[test]
fn a_hook_that_does_not_run_is_noticed_after_a_day() {
    let (mut tree, cmd) = lonely(|tree| issue(tree, "a.example", Validity::days(90)));
    let last_run = cmd.sites().join(".haproxy-certs/last-run.json");
    let mut run: Value = serde_json::from_slice(&fs::read(&last_run).unwrap()).unwrap();
    run["at"] = Value::from(run["at"].as_i64().unwrap() - 3 * 86_400);
    fs::write(&last_run, run.to_string()).unwrap();
    tree.renew("a.example");
    assert_eq!(json(&cmd).exits(1).json()["problems"], Value::Array(vec![]), "renewed just now");
    let mut touch = Command::new("touch");
    touch.args(["-h", "-d", "2 days ago"]).arg(tree.link("a.example", Kind::Fullchain));
    assert!(touch.status().unwrap().success());
    let seen = json(&cmd).exits(1);
    assert_eq!(seen.json()["problems"][0]["problem"], "hook-not-running", "{seen}");
    let human = cmd.run(&["status"]).stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(human.contains("the last run was 3 days ago"), "{human}");
    untold(&cmd);
    json(&cmd).exits(0);
}

#[test]
fn settings_that_cannot_work_are_named_before_the_next_change() {
    let (tree, healthy) = lonely(|tree| issue(tree, "a.example", Validity::days(90)));
    json(&healthy).exits(0);
    let there = healthy.beside("there");
    support::tree::write(&there, "#!/bin/sh\n", 0o755);
    let table = |line: &str, more: &str| format!("[[haproxy]]\n# {line}\nreload = \"none\"\n{line}\n{more}");
    let without = "binary = \"\"";
    for (key, line, more) in [
        ("binary", "binary = \"/nonexistent/haproxy\"", ""),
        ("binary", "binary = \"no-such-haproxy\"", ""),
        ("config", "config = [\"/nonexistent/haproxy.cfg\"]", without),
        ("command", "command = [\"/nonexistent/reload\", \"x\"]", without),
    ] {
        let table = table(line, more).replace(
            "reload = \"none\"",
            if key == "command" { "reload = \"command\"" } else { "reload = \"none\"" },
        );
        let cmd = Cmd::new(tree.live()).with_sites(healthy.sites()).table(&table);
        let run = json(&cmd);
        let all = run.json()["problems"].as_array().unwrap().clone();
        let said = all.iter().find(|said| said["problem"] == "settings-broken");
        let said = said.unwrap_or_else(|| panic!("{run}"));
        assert_eq!(said["severity"], "warning", "{said}");
        let text = fs::read_to_string(cmd.config()).unwrap();
        let number = 1 + text.lines().position(|of_file| of_file == line).unwrap();
        let place = format!("change line {number} of {}", cmd.config().display());
        assert!(said["advice"].as_str().unwrap().starts_with(&place), "{said}");
        let mended = table
            .replace("/nonexistent/haproxy.cfg", there.to_str().unwrap())
            .replace("/nonexistent/haproxy", there.to_str().unwrap())
            .replace("/nonexistent/reload", there.to_str().unwrap())
            .replace("no-such-haproxy", "sh");
        let cmd = Cmd::new(tree.live()).with_sites(healthy.sites()).table(&mended);
        let run = json(&cmd);
        assert!(!run.stdout.contains("settings-broken"), "{run}");
    }
}

/// What no other command mends while the settings are so is advised to be mended in the settings.
#[test]
fn advice_mends_the_settings_first_where_they_hinder_the_rest() {
    let (tree, healthy) = lonely(|tree| issue(tree, "a.example", Validity::days(90)));
    // /dev/shm is a file system of its own.
    let elsewhere = tempfile::Builder::new().prefix("haproxy-certs-").tempdir_in("/dev/shm").unwrap();
    let host = support::cmd::toml(&elsewhere.path().join("host.pem"));
    for (setting, problem) in [
        (format!("host_lineage = \"a.example\"\nhost_file = {host}"), "disk-missing"),
        ("key_file = \"fullchain.pem\"".to_owned(), "key-missing"),
        ("key_file = \"no-such-file.pem\"".to_owned(), "key-missing"),
        ("chain_file = \"privkey.pem\"".to_owned(), "certificate-missing"),
    ] {
        let cmd = Cmd::new(tree.live()).with_sites(healthy.sites()).option(&setting).without_haproxy();
        let run = json(&cmd);
        let report = run.json();
        let number = fs::read_to_string(cmd.config()).unwrap();
        let last = setting.lines().last().unwrap();
        let number = 1 + number.lines().position(|line| line == last).unwrap();
        let advice = format!("change line {number} of {}", cmd.config().display());
        let said = report["problems"].as_array().unwrap();
        let said = said.iter().find(|said| said["problem"] == "settings-broken");
        assert_eq!(said.unwrap_or_else(|| panic!("{run}"))["advice"], advice, "{run}");
        let sites = report["sites"].as_array().unwrap().iter();
        let details = sites.flat_map(|site| site["details"].as_array().unwrap());
        let hindered: Vec<&Value> = details.filter(|said| said["problem"] == problem).collect();
        assert_eq!(hindered.len(), 1, "{run}");
        let then = hindered[0]["advice"].as_str().unwrap();
        assert!(then.starts_with(&format!("{advice}; then run: haproxy-certs ")), "{then}");
    }
    json(&healthy).exits(0);
}

/// Sets the recorded end of the last run to so many days from now.
fn move_last_run(cmd: &Cmd, days: i64) {
    let last_run = cmd.sites().join(".haproxy-certs/last-run.json");
    let mut run: Value = serde_json::from_slice(&fs::read(&last_run).unwrap()).unwrap();
    run["at"] = Value::from(run["at"].as_i64().unwrap() + days * 86_400);
    fs::write(&last_run, run.to_string()).unwrap();
}

#[test]
fn a_last_run_in_the_future_or_long_ago_is_a_warning() {
    let (_tree, cmd) = lonely(|tree| issue(tree, "a.example", Validity::days(90)));
    for (days, shown) in [(6, "days in the future"), (-185, "Last run: 185 days ago")] {
        move_last_run(&cmd, days);
        let run = json(&cmd).exits(1);
        assert_eq!(run.json()["problems"][0]["problem"], "hook-not-running", "{run}");
        let human = cmd.run(&["status"]).exits(1).stdout;
        let human = human.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(human.contains(shown), "{human}");
        untold(&cmd);
        json(&cmd).exits(0);
    }
    // No longer than what is deployed lives: nothing had to be done.
    move_last_run(&cmd, -80);
    json(&cmd).exits(0);
}

#[test]
fn nothing_at_all_is_ok() {
    let tree = Tree::new();
    let cmd = Cmd::new(tree.live().join("none")).without_haproxy();
    let run = cmd.run(&["status", "--format", "monitoring"]).exits(0);
    assert!(run.stdout.starts_with("OK - there is nothing to deploy|sites=0"), "{run}");
}

#[test]
fn monitoring_reads_the_first_line() {
    let (mut tree, cmd, _haproxy) = healthy(&system_haproxy());
    let run = cmd.run(&["status", "--format", "monitoring"]).exits(0);
    assert!(run.stdout.starts_with("OK - 2 sites in step; "), "{run}");
    let (text, performance) = run.stdout.lines().next().unwrap().split_once('|').unwrap();
    assert!(text.ends_with("expires first, in 89 days"), "{text}");
    assert!(
        performance.contains("sites=2;;;0 critical=0;;;0 warning=0;;;0 unknown=0;;;0 ok=2;;;0 owed=0;;;0")
    );
    tree.renew("a.example");
    untold(&cmd);
    let run = cmd.run(&["status", "--format", "monitoring"]).exits(2);
    assert!(run.stdout.starts_with("CRITICAL - 1 of 2 sites not in step: haproxy-stale; "), "{run}");
    assert!(
        run.stdout.lines().nth(1).unwrap().starts_with("critical: a.example.pem: haproxy-stale: "),
        "{run}"
    );
    let broken = cmd.option("no_such = 1").run(&["status", "--format", "monitoring"]).exits(3);
    assert!(broken.stdout.starts_with("UNKNOWN - "), "{broken}");
}

/// A run that can write nothing can't record that either: so it is seen beforehand. Who may only look isn't taken for that.
#[test]
fn a_directory_that_takes_nothing_is_said() {
    let tree = Tree::of(&[("a.example", &["a.example"])]);
    let cmd = Cmd::new(tree.live()).without_haproxy();
    cmd.run(&["assemble"]).exits(0);
    cmd.run(&["status"]).exits(0);
    let on_tmpfs =
        "mount -t tmpfs -o mode=0700,size=256k none /mnt && cp -a \"$1\"/. /mnt/ && mount --bind /mnt \"$1\"";
    let full = "{ dd if=/dev/zero of=/mnt/.haproxy-certs/filler bs=4k 2>/dev/null; true; }";
    for (what, then) in [("mounted read-only", "mount -o remount,ro /mnt"), ("full", full)] {
        let mounts = format!("{on_tmpfs} && {then}");
        let run = cmd.run_with_mounts(&mounts, &cmd.sites(), &["status"]);
        let words = run.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains("run-failed: the next run will fail: ") && words.contains(what), "{run}");
        assert_eq!(run.code, Some(1), "{run}");
    }
    // What such a run says is so.
    let mounts = format!("{on_tmpfs} && mount -o remount,ro /mnt");
    let run = cmd.run_with_mounts(&mounts, &cmd.sites(), &["assemble"]).exits(3);
    assert!(!run.to_string().contains("host.pem"), "no such file is there: {run}");
    let looks = "mount --bind \"$1\" \"$1\" && mount -o remount,bind,ro \"$1\" && mount -o remount,bind,ro /";
    cmd.run_with_mounts(looks, &cmd.sites(), &["status"]).exits(0);
}

#[test]
fn prometheus_takes_the_metrics() {
    let (mut tree, cmd, mut haproxy) = healthy(&system_haproxy());
    issue(&mut tree, "we\"ird\\na me", Validity::days(90));
    cmd.run(&["assemble"]);
    tree.renew("a.example");
    cmd.run(&["assemble", "--defer-reload"]);
    let file = cmd.beside("haproxy_certs.prom");
    fs::write(&file, "old").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let run = cmd.run(&["status", "--format", "prometheus", "--textfile", file.to_str().unwrap()]).exits(2);
    assert_eq!(fs::read_to_string(&file).unwrap(), run.stdout);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o644);
    assert_eq!(
        support::cmd::names_in(file.parent().unwrap())
            .iter()
            .filter(|name| name.starts_with(".haproxy"))
            .count(),
        0
    );
    for line in [
        "haproxy_certs_build_info{version=\"",
        "haproxy_certs_state 2",
        "haproxy_certs_in_step{lineage=\"a.example\",file=\"a.example.pem\",place=\"disk\",haproxy=\"\"} 1",
        "haproxy_certs_in_step{lineage=\"a.example\",file=\"a.example.pem\",place=\"haproxy\",haproxy=\"haproxy\"} 0",
        "haproxy_certs_refused{lineage=\"b.example\",file=\"b.example.pem\"} 0",
        "haproxy_certs_reload_owed{haproxy=\"haproxy\"} 1",
        "haproxy_certs_last_reload_success{haproxy=\"haproxy\",method=\"",
        // A backslash is escaped by the program, as everywhere, and by the format.
        "lineage=\"we\\\"ird\\\\\\\\na me\"",
        "haproxy_certs_last_success_timestamp_seconds ",
        "haproxy_certs_certificate_not_before_timestamp_seconds{lineage=\"b.example\",file=\"b.example.pem\",place=\"haproxy\"",
    ] {
        assert!(run.stdout.contains(line), "{line} in {run}");
    }
    let text = fs::File::open(&file).unwrap();
    // What failed is over when somebody else has started it anew.
    let success = |cmd: &Cmd, code| {
        let page = cmd.run(&["status", "--format", "prometheus"]).exits(code).stdout;
        let line = page.lines().find(|line| line.starts_with("haproxy_certs_last_reload_success{"));
        line.unwrap().ends_with(" 1")
    };
    assert!(!success(&cmd, 2));
    haproxy.stop();
    haproxy.run_again();
    cmd.run(&["assemble"]);
    assert!(success(&cmd, 0));
    let judged = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(text)
        .output()
        .expect("promtool: tests/install");
    assert!(judged.status.success(), "{}", String::from_utf8_lossy(&judged.stderr));
    assert_eq!(String::from_utf8_lossy(&judged.stderr), "");
    let lost = cmd.run(&["status", "--textfile", "/nonexistent/x.prom"]).exits(3);
    assert!(lost.stdout.contains("cannot write /nonexistent/x.prom"), "{lost}");
}

/// A series that is there twice has the exporter refuse the whole file.
#[track_caller]
fn no_series_twice(metrics: &str) {
    let mut seen = std::collections::BTreeSet::new();
    for line in metrics.lines().filter(|line| !line.starts_with('#')) {
        assert!(seen.insert(line.rsplit_once(' ').unwrap().0), "{line}");
    }
}

#[test]
fn names_that_no_text_has_are_told_apart_in_the_metrics() {
    use std::os::unix::ffi::OsStrExt as _;
    let mut tree = Tree::new();
    issue(&mut tree, "a.example", Validity::days(90));
    let cmd = Cmd::new(tree.live());
    cmd.run(&["assemble", "--reload", "none"]).exits(0);
    let names: [&[u8]; 5] = [b"x\xff.pem", b"x\xfe.pem", b"x\\xff.pem", b"\xc3\xbc.pem", b"q\"\n.pem"];
    for name in names {
        let pem = tree.authority().issue(KeyKind::P256, &["x.example"], Validity::days(90)).combined();
        support::tree::write(&cmd.sites().join(std::ffi::OsStr::from_bytes(name)), pem, 0o400);
    }
    let metrics = cmd.run(&["status", "--format", "prometheus"]).stdout;
    no_series_twice(&metrics);
    for file in [r"x\\xff.pem", r"x\\xfe.pem", r"x\\\\xff.pem", r"\\xc3\\xbc.pem", r#"q\"\\x0a.pem"#] {
        let line = "haproxy_certs_certificate_not_after_timestamp_seconds{lineage=\"\",";
        let line = format!("{line}file=\"{file}\",place=\"disk\",haproxy=\"\"}} ");
        assert!(metrics.contains(&line), "{line} in {metrics}");
    }
}

#[test]
fn a_problem_that_is_there_twice_is_one_series() {
    let tree = Tree::new();
    let cmd = Cmd::new(tree.live())
        .table("[[haproxy]]\nconfig = [\"/nonexistent/a\", \"/nonexistent/b\"]\nbinary = \"\"");
    let run = cmd.run(&["status", "--format", "json"]);
    assert!(run.stdout.contains("/nonexistent/a") && run.stdout.contains("/nonexistent/b"), "{run}");
    let metrics = cmd.run(&["status", "--format", "prometheus"]).stdout;
    assert!(metrics.contains("problem=\"settings-broken\""), "{metrics}");
    no_series_twice(&metrics);
}

#[test]
fn who_may_not_read_sees_that_it_is_unknown() {
    let (_tree, cmd, _haproxy) = healthy(&system_haproxy());
    let open = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir().unwrap();
    let config = open.path().join("c.toml");
    fs::copy(cmd.config(), &config).unwrap();
    let program = open.path().join("haproxy-certs");
    fs::copy(Cmd::program(), &program).unwrap();
    fs::set_permissions(&config, fs::Permissions::from_mode(0o644)).unwrap();
    let as_nobody = |format: &str| {
        let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
        let mut command = Command::new("setpriv");
        command.args(nobody).arg(&program).arg("--config").arg(&config).args(["status", "--format", format]);
        let output = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Run { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    };
    // Nothing at all may be read: the temporary directories are closed.
    let run = as_nobody("json").exits(3);
    assert_eq!(run.json()["state"], "unknown", "{run}");
    assert!(!run.json()["unseen"].as_array().unwrap().is_empty(), "{run}");
    assert_eq!(run.stderr, "");
    for format in ["human", "html", "monitoring", "prometheus"] {
        let run = as_nobody(format).exits(3);
        assert_eq!(run.stderr, "", "{run}");
    }
    // The directories may be listed, and the files not be read.
    for folder in [cmd.sites().parent().unwrap(), &cmd.sites()] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let run = as_nobody("json").exits(3);
    let unseen: Vec<Value> = run.json()["unseen"].as_array().unwrap().clone();
    assert!(unseen.iter().enumerate().all(|(place, what)| !unseen[..place].contains(what)), "{run}");
    let site = run.site("a.example.pem");
    assert_eq!((&site["severity"], &site["disk"]), (&"unknown".into(), &Value::Null), "{run}");
    assert_eq!(site["problems"], Value::Array(vec![]));
}

/// A status with everything in it; dates, serial numbers and times as letters.
fn shown(cmd: &Cmd, columns: &str, color: &str) -> String {
    let mut command = Command::new(Cmd::program());
    command.arg("--config").arg(cmd.config()).args(["--color", color, "status"]).env("COLUMNS", columns);
    let text = String::from_utf8(command.output().unwrap().stdout).unwrap();
    text.lines().map(|line| normalised(line) + "\n").collect()
}

/// Days become `DDDD-DD-DD`, serial numbers `SERIAL..`, the time of the last run `some time ago`.
fn normalised(line: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    for word in line.split(' ') {
        let bare = word.trim_end_matches("\u{1b}[0m").trim_end_matches([',', ';']);
        let is_day = bare.len() == 10
            && bare.bytes().filter(u8::is_ascii_digit).count() == 8
            && bare.matches('-').count() == 2;
        let is_serial = bare.len() == 14
            && bare.ends_with("..")
            && bare.bytes().take(12).all(|byte| byte.is_ascii_hexdigit());
        let after = &word[bare.len()..];
        words.push(match () {
            () if is_day => format!("DDDD-DD-DD{after}"),
            () if is_serial => format!("SSSSSSSSSSSS..{after}"),
            () => word.to_owned(),
        });
    }
    let text = words.join(" ");
    match text.strip_prefix("Last run: ") {
        Some(rest) => format!("Last run: some time ago{}", rest.split_once(" ago").unwrap().1),
        None => text,
    }
}

#[test]
fn the_table_is_as_it_was() {
    let (mut tree, cmd, haproxy) = healthy(&system_haproxy());
    let soon = Validity::between(time::Duration::days(-72), time::Duration::hours(18 * 24 + 12));
    issue(&mut tree, "soon.example", soon);
    tree.issue(
        "a-very-long-name-of-a-lineage-that-does-not-fit.example",
        KeyKind::P384,
        &["long.example", "www.long.example", "mail.long.example"],
        Validity::days(45),
    );
    untold(&cmd);
    tree.renew("a.example");
    for (columns, color) in [("80", "never"), ("160", "never"), ("80", "always"), ("160", "always")] {
        let text = shown(&cmd, columns, color)
            .replace(haproxy.pidfile().to_str().unwrap(), "PIDFILE")
            .replace(cmd.config().to_str().unwrap(), "CONFIG")
            .replace(tree.root().to_str().unwrap(), "TREE");
        let width: usize = columns.parse().unwrap();
        if color == "never" {
            // A command is never broken.
            let fits =
                |line: &str| line.len() <= width || line.contains("--config") || line.contains("kill ");
            assert!(text.lines().all(fits), "{text}");
        }
        let name = format!("tests/snapshots/status-{columns}-{color}.txt");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &text).unwrap();
        }
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            text,
            "{} differs; UPDATE_SNAPSHOTS=1",
            path.display()
        );
    }
}

#[test]
fn certbots_own_tree_is_followed_from_the_first_certificate_on() {
    let (http, challenge) = (support::Port::free(), support::Port::free());
    let pebble = support::Pebble::start(&http);
    let certbot = support::Certbot::of(&pebble, &challenge);
    let cmd = Cmd::new(certbot.live());
    let (host_file, sites) = (cmd.beside("host.pem"), cmd.sites());
    let host = Authority::new().issue(KeyKind::P256, &["host.example.org"], Validity::days(3650));
    support::tree::write(&host_file, host.combined(), 0o400);
    support::tree::make_directory(&sites, 0o700);
    let haproxy = Haproxy::of(&system_haproxy()).crt(&host_file).crt(&sites).acme(&http, &challenge).start();
    let port = challenge.number();
    let cmd = cmd.haproxy(&haproxy, &probe(&haproxy)).table(&format!("[certbot]\nhttp_01_port = {port}"));
    json(&cmd).exits(0);

    certbot.succeed(&["certonly", "--standalone", "--cert-name", "e.example.org", "-d", "e.example.org"]);
    let file = "e.example.org.pem";
    assert_eq!(problems(&json(&cmd).exits(2), file), ["disk-missing"]);
    cmd.run(&["assemble"]).exits(0);
    assert_eq!(problems(&json(&cmd).exits(0), file), Vec::<String>::new());
    certbot.succeed(&["renew", "--force-renewal"]);
    assert_eq!(problems(&json(&cmd).exits(1), file), ["disk-stale"]);
    cmd.run(&["assemble"]).exits(0);
    json(&cmd).exits(0);
    let run = cmd.run(&["status", "--setup", "--format", "json"]);
    let setup = run.json()["setup"].as_array().unwrap().clone();
    for name in ["crt", "empty", "acme", "socket"] {
        let finding = setup.iter().find(|finding| finding["name"] == name).unwrap();
        assert_eq!(finding["severity"], "ok", "{run}");
    }
    let acme = setup.iter().find(|finding| finding["name"] == "acme").unwrap();
    assert!(acme["fact"].as_str().unwrap().ends_with("(tried)"), "{acme}");
    // certbot finds its port as it was.
    certbot.succeed(&["renew", "--force-renewal"]);
}

/// The manual has every word (tests/docs.rs): each problem that it explains is made in this file, or in those beside it.
#[test]
fn every_problem_of_the_manual_is_made_here() {
    let manual = include_str!("../man/haproxy-certs.8");
    let here = [
        include_str!("status.rs"),
        include_str!("truth.rs"),
        include_str!("one_by_one.rs"),
        include_str!("fleet_setup.rs"),
    ]
    .concat();
    let mut words = 0;
    for title in ["Reasons of a refusal", "Warnings", "Problems"] {
        let (_, part) = manual.split_once(&format!("\n.Ss {title}\n")).unwrap();
        let part = part.split("\n.Ss ").next().unwrap().split("\n.Sh ").next().unwrap();
        for word in part.lines().filter_map(|line| line.strip_prefix(".It Sy ")) {
            // Only a run asks HAProxy about staged files, and a fleet's problems are made in fleet.rs.
            let is_elsewhere = ["not-checked", "fleet-*"].contains(&word);
            assert!(is_elsewhere || here.contains(&format!("\"{word}\"")), "no test makes {word}");
            words += 1;
        }
    }
    assert!(words > 30, "{words}");
}

/// Six days, as Let's Encrypt's shortlived profile: the CA's default life is set, since certbot before 4.0 can't ask for a
/// profile. An IP address needs certbot 5.3: that one is generated.
#[test]
fn six_days_and_an_address_are_as_good_as_ninety_and_a_name() {
    let port = support::Port::free();
    let life = std::time::Duration::from_hours(160);
    let pebble = support::Pebble::issuing_for(&port, life);
    let certbot = support::Certbot::of(&pebble, &port);
    certbot.certonly(&["--cert-name", "six.example.org", "-d", "six.example.org"]);
    let tree = Tree::new();
    let six_days = Validity::between(-time::Duration::HOUR, time::Duration::hours(159));
    let address = tree.authority().issue(KeyKind::P256, &["192.0.2.7"], six_days);
    let folder = certbot.live().join("192.0.2.7");
    support::tree::make_directory(&folder, 0o755);
    support::tree::write(&folder.join("privkey.pem"), address.key.pem(), 0o600);
    support::tree::write(&folder.join("fullchain.pem"), address.fullchain(), 0o644);

    let cmd = Cmd::new(certbot.live());
    let haproxy = served(&cmd, &system_haproxy());
    let cmd = cmd.haproxy(&haproxy, &probe(&haproxy));
    let run = json(&cmd).exits(0);
    for (file, name) in [("six.example.org.pem", "six.example.org"), ("192.0.2.7.pem", "192.0.2.7")] {
        let site = run.site(file);
        assert_eq!((&site["severity"], &site["names"]), (&"ok".into(), &serde_json::json!([name])), "{site}");
        assert_eq!(site["haproxy"][0]["state"], "current", "{site}");
    }
    let monitoring = cmd.run(&["status", "--format", "monitoring"]).exits(0);
    assert!(monitoring.stdout.contains("expires first, in 6 days"), "{monitoring}");

    // certbot finds it due by itself, each time that it runs.
    let old = certbot.serial("six.example.org");
    certbot.succeed(&["renew"]);
    assert_ne!(certbot.serial("six.example.org"), old);
    assert_eq!(problems(&json(&cmd).exits(1), "six.example.org.pem"), ["disk-stale"]);
    cmd.run(&["assemble"]).exits(0);
    let run = json(&cmd).exits(0);
    assert_eq!(run.site("six.example.org.pem")["haproxy"][0]["serial"], certbot.serial("six.example.org"));
}
