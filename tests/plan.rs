//! What is decided about a proved certificate: the guards of a good one, every warning, and HAProxy's own opinion.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may fail loudly")]

mod contract;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use time::Duration;

use contract::{brief, brief_of, haproxy_objects_to, self_signed};
use support::tree::{make_directory, write};
use support::{Authority, Cmd, Haproxy, Key, KeyKind, Kind, Leaf, Run, Tree, Validity, system_haproxy};

const NAME: &str = "example.org";
const FILE: &str = "example.org.pem";

fn issue_leaf(tree: &mut Tree, name: &str, validity: Validity) -> Leaf {
    tree.issue(name, KeyKind::P256, &[name], validity)
}

fn on_disk(cmd: &Cmd) -> String {
    fs::read_to_string(cmd.site(NAME)).unwrap()
}

/// Deploys a certificate of one validity, and has certbot renew it with another one.
fn renewed(deployed: Validity, renewed: Validity) -> (Tree, Leaf, Leaf, Cmd) {
    let mut tree = Tree::new();
    let old = issue_leaf(&mut tree, NAME, deployed);
    let cmd = Cmd::new(tree.live()).without_haproxy();
    cmd.assemble(&[]).exits(0);
    let new = tree.authority().issue(KeyKind::P256, &[NAME], renewed);
    tree.renew_with(NAME, &new);
    (tree, old, new, cmd)
}

// --- Guards of a good certificate ----------------------------------------------------------------------------------

#[test]
fn an_older_certificate_is_refused_while_the_deployed_one_is_valid() {
    let older = Validity::between(Duration::days(-10), Duration::days(300));
    let (_tree, old, new, cmd) = renewed(Validity::days(90), older);
    // Its notAfter is later: that says nothing.
    assert_eq!(brief(&cmd.assemble(&[]).exits(1)), [format!("{FILE} refuse older-than-deployed")]);
    assert_eq!(on_disk(&cmd), old.combined());
    assert_eq!(
        brief(&cmd.assemble(&["--force", "another"]).exits(1)),
        [format!("{FILE} refuse older-than-deployed")]
    );
    let mistyped = cmd.run(&["assemble", "--force", "another"]).exits(1).stdout;
    assert!(mistyped.contains("note       --force another: there is no such lineage"), "{mistyped}");
    let row = cmd.assemble(&["--dry-run"]).exits(1).site(FILE);
    assert_eq!(row["serial"], new.serial(), "what certbot has");
    assert!(row["detail"].as_str().unwrap().contains("--force"));
    assert_eq!(brief(&cmd.assemble(&["--force", NAME]).exits(0)), [format!("{FILE} replace")]);
    assert_eq!(on_disk(&cmd), new.combined());
}

#[test]
fn a_shorter_life_or_an_expired_predecessor_is_no_reason_to_refuse() {
    for (deployed, next) in [
        // Lifetimes shrink: the newer certificate ends earlier.
        (Validity::days(90), Validity::between(Duration::minutes(-30), Duration::days(6))),
        // The deployed one has expired: anything is better, an older one and an expired one too.
        (Validity::expired(), Validity::between(Duration::days(-100), Duration::days(100))),
        // Issued in the same second.
        (Validity::days(90), Validity::days(90)),
    ] {
        let (_tree, _, new, cmd) = renewed(deployed, next);
        let report = cmd.assemble(&[]).exits(0);
        assert_eq!(report.action(FILE), "replace", "{report}");
        assert_eq!(on_disk(&cmd), new.combined());
    }
}

#[test]
fn a_certificate_of_the_future_does_not_replace_a_valid_one() {
    let (_tree, old, new, cmd) = renewed(Validity::days(90), Validity::not_yet());
    let refused = [format!("{FILE} refuse would-replace-good [not-yet-valid]")];
    assert_eq!(brief(&cmd.assemble(&[]).exits(1)), refused);
    assert_eq!(on_disk(&cmd), old.combined());
    assert_eq!(
        brief(&cmd.assemble(&["--force", NAME]).exits(0)),
        [format!("{FILE} replace [not-yet-valid]")]
    );
    assert_eq!(on_disk(&cmd), new.combined());
    // Over an expired one it is deployed.
    let (_tree, _, new, cmd) = renewed(Validity::expired(), Validity::not_yet());
    assert_eq!(brief(&cmd.assemble(&[]).exits(0)), [format!("{FILE} replace [not-yet-valid]")]);
    assert_eq!(on_disk(&cmd), new.combined());
}

#[test]
fn a_staging_certificate_does_not_replace_a_valid_one() {
    let staging = Authority::named("(STAGING) Pretend Pear");
    let mut tree = Tree::new();
    let good = issue_leaf(&mut tree, NAME, Validity::days(90));
    let first = staging.issue(KeyKind::P256, &["first.example"], Validity::days(90));
    tree.issue_leaf("first.example", &first);
    let cmd = Cmd::new(tree.live()).without_haproxy();
    // Where there is nothing it is deployed.
    let report = cmd.assemble(&[]).exits(0);
    assert_eq!(brief(&report), [&format!("{FILE} install"), "first.example.pem install [staging-issuer]"]);
    let later = Validity::between(Duration::minutes(-5), Duration::days(90));
    tree.renew_with(NAME, &staging.issue(KeyKind::P256, &[NAME], later));
    // One staging certificate replaces another, and a good one replaces it.
    let second = staging.issue(KeyKind::P256, &["first.example"], later);
    tree.renew_with("first.example", &second);
    assert_eq!(
        brief(&cmd.assemble(&[]).exits(1)),
        [
            &format!("{FILE} refuse would-replace-good [staging-issuer]"),
            "first.example.pem replace [staging-issuer]"
        ]
    );
    assert_eq!(on_disk(&cmd), good.combined());
    let real = tree.authority().issue(KeyKind::P256, &["first.example"], later);
    tree.renew_with("first.example", &real);
    let report = cmd.assemble(&["--force", NAME]).exits(0);
    assert_eq!(brief(&report), [&format!("{FILE} replace [staging-issuer]"), "first.example.pem replace"]);
}

// --- Warnings ------------------------------------------------------------------------------------------------------

#[test]
fn lifetimes_are_judged_by_themselves() {
    let mut tree = Tree::new();
    let hours = |before: i64, after: i64| Validity::between(Duration::hours(-before), Duration::hours(after));
    for (name, validity) in [
        ("a-90-days-soon", Validity::left(0.24)),
        ("b-90-days-fine", Validity::left(0.26)),
        // Six days: forty hours are a quarter.
        ("c-6-days-soon", hours(121, 39)),
        ("d-6-days-fine", hours(119, 41)),
        ("e-10-years-soon", Validity::between(Duration::days(-2800), Duration::days(850))),
        ("f-expired", Validity::expired()),
        ("g-future", Validity::not_yet()),
        ("h-critical", Validity::left(0.05)),
    ] {
        issue_leaf(&mut tree, name, validity);
    }
    let cmd = Cmd::new(tree.live()).without_haproxy();
    assert_eq!(
        brief(&cmd.assemble(&[]).exits(0)),
        [
            "a-90-days-soon.pem install [expires-soon]",
            "b-90-days-fine.pem install",
            "c-6-days-soon.pem install [expires-soon]",
            "d-6-days-fine.pem install",
            "e-10-years-soon.pem install [expires-soon]",
            "f-expired.pem install [expired]",
            "g-future.pem install [not-yet-valid]",
            "h-critical.pem install [expires-soon]"
        ]
    );
    assert_eq!(haproxy_objects_to(&cmd.sites()), None);
}

#[test]
fn chains_that_do_not_hang_together_are_deployed_with_a_warning() {
    let mut tree = Tree::new();
    let root = tree.authority().root().to_owned();
    let other = Authority::new();
    let names = ["alone", "order", "root", "wrong-ca", "wrong-name", "doubled"];
    for name in names {
        let leaf = issue_leaf(&mut tree, &format!("{name}.example"), Validity::days(90));
        let chain = match name {
            "alone" => String::new(),
            "order" => format!("{root}{}", leaf.chain),
            "root" => format!("{}{root}", leaf.chain),
            // The same names, other keys.
            "wrong-ca" => other.intermediate().to_owned(),
            "wrong-name" => Authority::named("another name").intermediate().to_owned(),
            _ => leaf.fullchain(),
        };
        tree.overwrite(&format!("{name}.example"), Kind::Fullchain, format!("{}{chain}", leaf.cert));
    }
    let own = Key::fresh(KeyKind::P256);
    issue_leaf(&mut tree, "self.example", Validity::days(90));
    tree.overwrite("self.example", Kind::Privkey, own.pem());
    tree.overwrite("self.example", Kind::Fullchain, self_signed(own.openssl(), "self.example"));
    let cmd = Cmd::new(tree.live()).without_haproxy();
    let expected = |action: &str| {
        [
            format!("alone.example.pem {action} [chain-incomplete]"),
            format!("doubled.example.pem {action} [chain-order]"),
            format!("order.example.pem {action} [chain-order]"),
            format!("root.example.pem {action}"),
            format!("self.example.pem {action}"),
            format!("wrong-ca.example.pem {action} [chain-order]"),
            format!("wrong-name.example.pem {action} [chain-order]"),
        ]
    };
    assert_eq!(brief(&cmd.assemble(&[]).exits(0)), expected("install"));
    assert_eq!(brief(&cmd.assemble(&[]).exits(0)), expected("unchanged"), "they stay as long as their cause");
    assert_eq!(haproxy_objects_to(&cmd.sites()), None);
}

#[test]
fn a_key_that_others_may_read_is_a_warning() {
    let mut tree = Tree::new();
    for (name, mode) in [("a", 0o600), ("b", 0o640), ("c", 0o604), ("d", 0o400), ("e", 0o610)] {
        issue_leaf(&mut tree, name, Validity::days(90));
        fs::set_permissions(tree.file(name, Kind::Privkey, 1), fs::Permissions::from_mode(mode)).unwrap();
        fs::set_permissions(tree.file(name, Kind::Fullchain, 1), fs::Permissions::from_mode(0o644)).unwrap();
    }
    let cmd = Cmd::new(tree.live()).without_haproxy();
    assert_eq!(
        brief(&cmd.assemble(&[]).exits(0)),
        [
            "a.pem install",
            "b.pem install [loose-permissions]",
            "c.pem install [loose-permissions]",
            "d.pem install",
            "e.pem install [loose-permissions]"
        ]
    );
}

#[test]
fn a_name_that_another_file_serves_is_shadowed() {
    let mut tree = Tree::new();
    // `-` sorts before `.`: the duplicate wins.
    tree.issue("x.example", KeyKind::P256, &["x.example", "only.x.example"], Validity::days(90));
    tree.issue("x.example-0001", KeyKind::P384, &["X.example"], Validity::days(90));
    // Another kind of key is no rival, and a wildcard isn't the name that it covers.
    tree.issue("y.example", KeyKind::Rsa2048, &["x.example", "www.x.example"], Validity::days(90));
    tree.issue("z.example", KeyKind::P256, &["*.x.example"], Validity::days(90));
    let cmd = Cmd::new(tree.live()).without_haproxy();
    assert_eq!(
        brief(&cmd.assemble(&[]).exits(0)),
        [
            "x.example-0001.pem install",
            "x.example.pem install [shadowed]",
            "y.example.pem install",
            "z.example.pem install"
        ]
    );
    let row = cmd.assemble(&[]).exits(0).site("x.example.pem");
    assert!(row["detail"].as_str().unwrap().contains("x.example-0001.pem"), "{row}");
    tree.delete("x.example-0001");
    assert_eq!(
        brief(&cmd.assemble(&[]).exits(0))[1],
        "x.example.pem unchanged [default-certificate-changed]"
    );
    assert_eq!(brief(&cmd.assemble(&[]).exits(0))[0], "x.example.pem unchanged");
}

#[test]
fn a_foreign_or_expired_winner_makes_the_run_exit_1() {
    let mut tree = Tree::new();
    tree.issue("b.example", KeyKind::P256, &["b.example"], Validity::days(90));
    let cmd = Cmd::new(tree.live()).without_haproxy();
    cmd.assemble(&[]).exits(0);
    let foreign = tree.authority().issue(KeyKind::P256, &["b.example"], Validity::days(90));
    // Not loaded by HAProxy under these names, or after ours.
    for name in [".a.pem", "a.pem.ocsp", "c.pem"] {
        write(&cmd.sites().join(name), foreign.combined(), 0o400);
        let report = cmd.assemble(&[]).exits(0);
        assert_eq!(brief_of(&report, &["b.example.pem"]), ["b.example.pem unchanged"], "{name}");
        fs::remove_file(cmd.sites().join(name)).unwrap();
    }
    write(&cmd.sites().join("a.pem"), foreign.combined(), 0o400);
    assert_eq!(brief(&cmd.assemble(&[]).exits(1)), ["a.pem foreign", "b.example.pem unchanged [shadowed]"]);
    fs::remove_file(cmd.sites().join("a.pem")).unwrap();
    tree.issue("a.example", KeyKind::P256, &["b.example"], Validity::expired());
    assert_eq!(
        brief(&cmd.assemble(&[]).exits(1)),
        ["a.example.pem install [expired default-certificate-changed]", "b.example.pem unchanged [shadowed]"]
    );
    // A file in conflict is foreign, too.
    let mut tree = Tree::new();
    tree.issue("a.example", KeyKind::P256, &["a.example"], Validity::days(90));
    tree.issue("b.example", KeyKind::P256, &["b.example"], Validity::days(90));
    let cmd = Cmd::new(tree.live()).without_haproxy();
    make_directory(&cmd.sites(), 0o700);
    write(&cmd.site("a.example"), foreign.combined(), 0o400);
    assert_eq!(
        brief(&cmd.assemble(&[]).exits(1)),
        ["a.example.pem conflict", "b.example.pem install [shadowed]"]
    );
}

#[test]
fn a_new_first_file_is_a_new_default_certificate() {
    let mut tree = Tree::new();
    issue_leaf(&mut tree, "m.example", Validity::days(90));
    let cmd = Cmd::new(tree.live()).without_haproxy();
    assert_eq!(brief(&cmd.assemble(&[]).exits(0)), ["m.example.pem install"], "there was none before");
    issue_leaf(&mut tree, "a.example", Validity::days(90));
    issue_leaf(&mut tree, "z.example", Validity::days(90));
    let report = cmd.assemble(&[]).exits(0);
    assert_eq!(
        brief(&report),
        [
            "a.example.pem install [default-certificate-changed]",
            "m.example.pem unchanged",
            "z.example.pem install"
        ]
    );
    assert!(report.site("a.example.pem")["detail"].as_str().unwrap().contains("m.example.pem"));
    tree.renew("a.example");
    assert_eq!(brief(&cmd.assemble(&[]).exits(0))[0], "a.example.pem replace", "the same file");
    // With a host certificate that one comes first, whatever is in the directory.
    issue_leaf(&mut tree, "0.example", Validity::days(90));
    let host = cmd.beside("host.pem");
    let cmd = cmd.option("host_lineage = \"z.example\"");
    let cmd = cmd.option(&format!("host_file = {}", support::cmd::toml(&host)));
    assert_eq!(brief_of(&cmd.assemble(&[]).exits(0), &["0.example.pem"]), ["0.example.pem install"]);
}

#[test]
fn siblings_that_haproxy_loads_with_a_file_are_a_warning() {
    let mut tree = Tree::new();
    for name in ["issuer", "key", "none", "ocsp", "sctl"] {
        issue_leaf(&mut tree, name, Validity::days(90));
    }
    let cmd = Cmd::new(tree.live()).without_haproxy();
    make_directory(&cmd.sites(), 0o700);
    for ending in ["issuer", "key", "ocsp", "sctl"] {
        write(&cmd.sites().join(format!("{ending}.pem.{ending}")), "x", 0o600);
    }
    write(&cmd.sites().join("none.key"), "x", 0o600);
    write(&cmd.sites().join("other.pem.ocsp"), "x", 0o600);
    // Somebody's certificate in the place of a lineage's: beside it may be its only key.
    issue_leaf(&mut tree, "theirs", Validity::days(90));
    let theirs = tree.authority().issue(KeyKind::P256, &["theirs.test"], Validity::days(90));
    write(&cmd.site("theirs"), &theirs.chain, 0o600);
    write(&cmd.sites().join("theirs.pem.key"), "x", 0o600);
    let report = cmd.assemble(&[]).exits(1);
    assert_eq!(brief_of(&report, &["theirs.pem"]), ["theirs.pem conflict"]);
    let files = ["issuer.pem", "key.pem", "none.pem", "ocsp.pem", "sctl.pem"];
    assert_eq!(
        brief_of(&report, &files),
        [
            "issuer.pem install [sibling-files]",
            "key.pem install [sibling-files]",
            "none.pem install",
            "ocsp.pem install [sibling-files]",
            "sctl.pem install [sibling-files]"
        ]
    );
    assert_eq!(report.action("other.pem.ocsp"), "foreign");
}

// --- HAProxy's opinion ---------------------------------------------------------------------------------------------

fn with_binary(tree: &Tree, binary: &Path, more: &str) -> Cmd {
    Cmd::new(tree.live())
        .table(&format!("[[haproxy]]\nreload = \"none\"\nbinary = {}\n{more}", support::cmd::toml(binary)))
}

/// HAProxy itself loads what is right, and its words are the refusal of what isn't.
#[test]
fn what_haproxy_rejects_is_refused_in_its_words_and_the_rest_is_deployed() {
    let mut tree = Tree::new();
    for name in ["a.example", "b.example", "c.example", "d.example"] {
        issue_leaf(&mut tree, name, Validity::days(90));
    }
    let cmd = with_binary(&tree, Path::new("/usr/sbin/haproxy"), "");
    make_directory(&cmd.sites(), 0o700);
    // An empty SCT list beside a file makes HAProxy refuse it.
    for name in ["b.example", "d.example"] {
        write(&cmd.sites().join(format!("{name}.pem.sctl")), "", 0o600);
    }
    let report = cmd.assemble(&[]).exits(1);
    let files = ["a.example.pem", "b.example.pem", "c.example.pem", "d.example.pem"];
    assert_eq!(
        brief_of(&report, &files),
        [
            "a.example.pem install",
            "b.example.pem refuse haproxy-rejects [sibling-files]",
            "c.example.pem install",
            "d.example.pem refuse haproxy-rejects [sibling-files]"
        ]
    );
    let words = report.site("b.example.pem")["detail"].as_str().unwrap().to_owned();
    assert!(words.contains("b.example.pem") && !words.contains("d.example"), "{words}");
    assert_eq!(haproxy_objects_to(&cmd.sites()), None);
    let own = contract::listing(&cmd.sites().join(".haproxy-certs"));
    assert!(!own.keys().any(|name| name.contains("example") || name.contains("cfg")), "{own:?}");
    // What was rejected is asked again: here its cause is gone.
    fs::remove_file(cmd.sites().join("b.example.pem.sctl")).unwrap();
    assert_eq!(brief_of(&cmd.assemble(&[]).exits(1), &files)[1], "b.example.pem install");
}

/// A running HAProxy that refuses RSA keys of 2048 bits, by its own environment, and a renewal with one.
fn refused_renewal() -> (Tree, Cmd, Haproxy, PathBuf) {
    let mut tree = Tree::new();
    issue_leaf(&mut tree, NAME, Validity::days(90));
    let cmd = Cmd::new(tree.live());
    cmd.assemble(&["--reload", "none"]).exits(0);
    let demanding = support::live::demanding_openssl(cmd.sites().parent().unwrap());
    let unaware = support::live::unaware(&system_haproxy(), cmd.sites().parent().unwrap());
    let haproxy = Haproxy::of(&unaware).crt(cmd.sites()).env("OPENSSL_CONF", &demanding).start();
    let weak = tree.authority().issue(KeyKind::Rsa2048, &[NAME], Validity::days(90));
    tree.renew_with(NAME, &weak);
    (tree, cmd, haproxy, demanding.into())
}

#[track_caller]
fn is_rolled_back(run: &Run) {
    assert_eq!(run.json()["haproxy"][0]["outcome"], "rolled-back", "{run}");
    assert_eq!(brief(run), [format!("{FILE} refuse haproxy-rejects")]);
}

#[test]
fn what_haproxy_refused_is_tried_again_on_request_and_with_another_configuration() {
    let (_tree, cmd, haproxy, openssl) = refused_renewal();
    let cmd = cmd.haproxy(&haproxy, "reload = \"pidfile\"");
    let refused = cmd.assemble(&[]).exits(2);
    is_rolled_back(&refused);
    let remembered = cmd.assemble(&[]).exits(1);
    assert_eq!(remembered.json()["haproxy"][0]["outcome"], "not-needed");
    let detail = remembered.site(FILE)["detail"].as_str().unwrap().to_owned();
    assert_eq!(refused.site(FILE)["detail"], detail, "one complaint in the system log");
    assert!(detail.ends_with("; run assemble --force example.org to try it again"), "{detail}");
    is_rolled_back(&cmd.assemble(&["--force", NAME]).exits(2));
    cmd.assemble(&[]).exits(1);
    let text = fs::read_to_string(haproxy.config()).unwrap();
    fs::write(haproxy.config(), format!("{text}# another one\n")).unwrap();
    is_rolled_back(&cmd.assemble(&[]).exits(2));
    cmd.assemble(&[]).exits(1);
    fs::write(openssl, "").unwrap();
    assert_eq!(brief(&cmd.assemble(&["--force", NAME]).exits(0)), [format!("{FILE} replace")]);
    assert_eq!(brief(&cmd.assemble(&[]).exits(0)), [format!("{FILE} unchanged")]);
}

#[test]
fn what_haproxy_refused_is_tried_again_after_its_restart() {
    let (_tree, cmd, mut haproxy, openssl) = refused_renewal();
    let (pidfile, socket) = (haproxy.pidfile(), haproxy.master_socket());
    let (pidfile, socket) = (support::cmd::toml(&pidfile), support::cmd::toml(&socket));
    let cmd =
        cmd.table(&format!("[[haproxy]]\nbinary = \"\"\npidfile = {pidfile}\nmaster_socket = {socket}"));
    is_rolled_back(&cmd.assemble(&[]).exits(2));
    cmd.assemble(&[]).exits(1);
    fs::write(openssl, "").unwrap();
    haproxy.run_again();
    assert_eq!(brief(&cmd.assemble(&[]).exits(0)), [format!("{FILE} replace")]);
}

/// An executable that stands in for a HAProxy that is broken.
fn broken_haproxy(folder: &Path, script: &str) -> PathBuf {
    let path = folder.join("haproxy");
    write(&path, format!("#!/bin/sh\n{script}\n"), 0o755);
    path
}

#[test]
fn where_haproxy_cannot_be_asked_the_run_goes_on_with_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let leaves = |tree: &mut Tree| {
        issue_leaf(tree, "a.example", Validity::days(90));
        issue_leaf(tree, "b.example", Validity::days(90));
    };
    for (script, timeout) in [
        ("kill -SEGV $$", "5m"),
        ("exec sleep 600", "1s"),
        ("echo '[ALERT] something else is wrong'; exit 1", "5m"),
    ] {
        let mut tree = Tree::new();
        leaves(&mut tree);
        let binary = broken_haproxy(folder.path(), script);
        let cmd = with_binary(&tree, &binary, &format!("timeout = \"{timeout}\""));
        let report = cmd.assemble(&[]).exits(0);
        assert_eq!(
            brief(&report),
            ["a.example.pem install [not-checked]", "b.example.pem install [not-checked]"],
            "{script}"
        );
        assert!(report.site("a.example.pem")["detail"].as_str().is_some_and(|why| why.contains("haproxy")));
        assert_eq!(cmd.deployed().len(), 2);
        assert_eq!(brief(&cmd.assemble(&[]).exits(0))[0], "a.example.pem unchanged", "nothing is asked");
    }
    let mut tree = Tree::new();
    leaves(&mut tree);
    let cmd = with_binary(&tree, &folder.path().join("nowhere"), "");
    assert_eq!(brief(&cmd.assemble(&[]).exits(0))[0], "a.example.pem install [not-checked]");
    // On request it is never run, and that is no warning.
    let mut tree = Tree::new();
    leaves(&mut tree);
    let cmd = Cmd::new(tree.live()).without_haproxy();
    assert_eq!(brief(&cmd.assemble(&[]).exits(0))[0], "a.example.pem install");
}

/// Every kind of key and shape that is deployed here loads in HAProxy, and HAProxy is asked while it is staged.
#[test]
fn haproxy_takes_every_kind_of_key() {
    let mut tree = Tree::new();
    for kind in KeyKind::ALL {
        tree.issue(kind.name(), kind, &[&format!("{}.example", kind.name())], Validity::days(90));
        let old = format!("{}-old", kind.name());
        if kind != KeyKind::Ed25519 {
            let leaf = tree.issue(&old, kind, &[&format!("{old}.example")], Validity::days(90));
            tree.overwrite(&old, Kind::Privkey, leaf.key.traditional_pem());
        }
    }
    let cmd = with_binary(&tree, Path::new("/usr/sbin/haproxy"), "");
    let report = cmd.assemble(&[]).exits(0);
    assert_eq!(report.json()["summary"]["install"], 11);
    for row in brief(&report) {
        assert!(row.ends_with(" install"), "{row}");
    }
    assert_eq!(haproxy_objects_to(&cmd.sites()), None);
}
