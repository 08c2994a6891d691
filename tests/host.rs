//! The host certificate: one lineage written a second time, as the file that HAProxy loads first.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may fail loudly")]

mod contract;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use contract::{brief, brief_of, differences, listing, mode_and_owner};
use support::cmd::toml;
use support::tree::write;
use support::{Cmd, KeyKind, Kind, Leaf, Tree, Validity};

const HOST: &str = "lb1.example";

/// A lineage for the host, another one, and where the host certificate goes.
fn with_host() -> (Tree, Leaf, Cmd, PathBuf) {
    let mut tree = Tree::new();
    let leaf = tree.issue(HOST, KeyKind::P256, &[HOST], Validity::days(90));
    tree.issue("a.example", KeyKind::P256, &["a.example"], Validity::days(90));
    let cmd = Cmd::new(tree.live()).without_haproxy();
    let file = cmd.beside("host.pem");
    let cmd =
        cmd.option(&format!("host_lineage = \"{HOST}\"")).option(&format!("host_file = {}", toml(&file)));
    (tree, leaf, cmd, file)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn it_is_installed_replaced_and_repaired_like_a_site() {
    let (mut tree, leaf, cmd, file) = with_host();
    let report = cmd.assemble(&[]).exits(0);
    assert_eq!(brief(&report), ["host:host.pem install", "a.example.pem install", "lb1.example.pem install"]);
    assert_eq!(report.json()["summary"]["install"], 3, "sites and host alike");
    let row = report.site(file.to_str().unwrap());
    assert_eq!(row["role"], "host");
    assert_eq!(row["lineage"], HOST);
    assert_eq!(row["serial"], leaf.serial());
    assert_eq!(row["warnings"], serde_json::json!([]), "not counted for shadowed");
    assert_eq!(read(&file), leaf.combined());
    assert_eq!(mode_and_owner(&file), (0o400, 0, 0));

    let beside = listing(file.parent().unwrap());
    assert_eq!(brief(&cmd.assemble(&[]).exits(0))[0], "host:host.pem unchanged");
    let changed = differences(&beside, &listing(file.parent().unwrap()));
    let config = "haproxy-certs.toml"; // written anew by the test itself
    let changed: Vec<&String> = changed.iter().filter(|name| *name != config).collect();
    assert_eq!(changed, ["sites/.haproxy-certs", "sites/.haproxy-certs/last-run.json"]);

    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(brief(&cmd.assemble(&[]).exits(0))[0], "host:host.pem repair");
    assert_eq!(mode_and_owner(&file), (0o400, 0, 0));

    let new = tree.renew(HOST);
    let report = cmd.assemble(&["--dry-run", "--exit-code"]).exits(4);
    assert_eq!(brief_of(&report, &[file.to_str().unwrap()]), ["host:host.pem replace"]);
    assert_eq!(read(&file), leaf.combined());
    cmd.assemble(&[]).exits(0);
    assert_eq!(read(&file), new.combined());
    let left = listing(&cmd.sites().join(".haproxy-certs"));
    assert!(!left.keys().any(|name| name.contains("pem")), "{left:?}");
}

#[test]
fn its_lineage_need_not_be_a_site() {
    let (_tree, leaf, cmd, file) = with_host();
    let cmd = cmd.option(&format!("exclude = [\"{HOST}\"]"));
    assert_eq!(brief(&cmd.assemble(&[]).exits(0)), ["host:host.pem install", "a.example.pem install"]);
    assert_eq!(read(&file), leaf.combined());
    assert_eq!(brief(&cmd.assemble(&[]).exits(0)), ["host:host.pem unchanged", "a.example.pem unchanged"]);
}

#[test]
fn it_is_never_pruned() {
    let (mut tree, leaf, cmd, file) = with_host();
    cmd.assemble(&[]).exits(0);
    tree.delete(HOST);
    let report = cmd.assemble(&["--prune-many"]).exits(1);
    assert_eq!(
        brief(&report),
        ["host:host.pem refuse certificate-missing", "a.example.pem unchanged", "lb1.example.pem prune"]
    );
    assert_eq!(read(&file), leaf.combined());
    let (_tree, leaf, cmd, file) = with_host();
    cmd.assemble(&[]).exits(0);
    // No host certificate any more: the file stays.
    let without = read(&cmd.config()).replace("host_lineage", "# host_lineage");
    let config = cmd.beside("other.toml");
    fs::write(&config, without).unwrap();
    let mut command = std::process::Command::new(Cmd::program());
    command.arg("--config").arg(&config).args(["assemble", "--format", "json"]);
    assert_eq!(brief(&contract::run(&mut command).exits(0)).len(), 2);
    assert_eq!(read(&file), leaf.combined());
}

#[test]
fn somebody_elses_file_in_its_place_is_a_conflict_until_it_is_adopted() {
    let (tree, leaf, cmd, file) = with_host();
    let stranger = tree.authority().issue(KeyKind::P256, &["stranger.example"], Validity::days(90));
    write(&file, stranger.combined(), 0o600);
    let report = cmd.assemble(&[]).exits(1);
    assert_eq!(brief(&report)[0], "host:host.pem conflict");
    assert_eq!(report.site(file.to_str().unwrap())["serial"], stranger.serial());
    assert_eq!(read(&file), stranger.combined());
    assert_eq!(brief(&cmd.assemble(&["--adopt"]).exits(0))[0], "host:host.pem replace");
    assert_eq!(read(&file), leaf.combined());
    assert_eq!(read(&cmd.sites().join(".haproxy-certs/adopted/host.pem")), stranger.combined());
    assert_eq!(brief(&cmd.assemble(&[]).exits(0))[0], "host:host.pem unchanged");
    // A damaged one of ours is replaced.
    fs::write(&file, "").unwrap();
    assert_eq!(brief(&cmd.assemble(&[]).exits(0))[0], "host:host.pem replace");
}

#[test]
fn an_older_one_of_its_lineage_is_taken_over() {
    let (mut tree, old, cmd, file) = with_host();
    let new = tree.renew(HOST);
    write(&file, format!("{}{}", old.fullchain(), old.key.pem()), 0o600);
    assert_eq!(brief(&cmd.assemble(&[]).exits(0))[0], "host:host.pem replace");
    assert_eq!(read(&file), new.combined());
}

#[test]
fn a_bad_pair_leaves_it_alone() {
    let (tree, leaf, cmd, file) = with_host();
    cmd.assemble(&[]).exits(0);
    tree.overwrite(HOST, Kind::Privkey, support::Key::fresh(KeyKind::P256).pem());
    assert_eq!(
        brief(&cmd.assemble(&[]).exits(1)),
        [
            "host:host.pem refuse key-mismatch",
            "a.example.pem unchanged",
            "lb1.example.pem refuse key-mismatch"
        ]
    );
    assert_eq!(read(&file), leaf.combined());
}

/// HAProxy's own opinion counts for it as for a site.
#[test]
fn what_haproxy_rejects_is_no_host_certificate_either() {
    let mut tree = Tree::new();
    tree.issue(HOST, KeyKind::P256, &[HOST], Validity::days(90));
    tree.issue("a.example", KeyKind::P256, &["a.example"], Validity::days(90));
    let folder = tempfile::tempdir().unwrap();
    let binary = folder.path().join("haproxy");
    // Stands in for a HAProxy with stricter rules than ours: it refuses whatever holds this leaf.
    let leaf = tree.leaf(HOST).cert.lines().nth(5).unwrap().to_owned();
    let script = format!(
        "#!/bin/sh\nconf=$3\ndir=$(sed -n \"s/.* crt '\\(.*\\)'$/\\1/p\" \"$conf\")\n\
         for file in \"$dir\"/*; do\n  if [ -f \"$file\" ] && grep -qF '{leaf}' \"$file\"; then\n    \
         echo \"[ALERT] (1) : config : parsing [x:1] : 'bind' : unable to load certificate from file '$file': too odd.\" >&2\n    \
         exit 1\n  fi\ndone\nexit 0\n"
    );
    write(&binary, script, 0o755);
    for excluded in [false, true] {
        let cmd = Cmd::new(tree.live())
            .table(&format!("[[haproxy]]\nreload = \"none\"\nbinary = {}", toml(&binary)));
        let file = cmd.beside("host.pem");
        let cmd = cmd
            .option(&format!("host_lineage = \"{HOST}\""))
            .option(&format!("host_file = {}", toml(&file)))
            .option(if excluded { "exclude = [\"lb1.*\"]" } else { "" });
        let report = cmd.assemble(&[]).exits(1);
        assert_eq!(
            brief_of(&report, &[file.to_str().unwrap(), "a.example.pem"]),
            ["host:host.pem refuse haproxy-rejects", "a.example.pem install"],
            "excluded: {excluded}"
        );
        assert!(!file.exists());
    }
}

#[test]
fn another_file_system_or_no_directory_is_a_configuration_error() {
    let (_tree, _, cmd, _) = with_host();
    // /dev/shm is a file system of its own.
    let elsewhere = tempfile::Builder::new().prefix("haproxy-certs-").tempdir_in("/dev/shm").unwrap();
    let text = read(&cmd.config());
    let config = cmd.beside("other.toml");
    let old = toml(&cmd.beside("host.pem"));
    let refused = |host_file: &Path, arguments: &[&str]| {
        fs::write(&config, text.replace(&old, &toml(host_file))).unwrap();
        let mut command = std::process::Command::new(Cmd::program());
        command.arg("--config").arg(&config).args(["assemble", "--format", "json"]).args(arguments);
        let report = contract::run(&mut command).exits(3).json();
        assert_eq!(report["error"]["kind"], "config", "{report}");
        report["error"]["message"].as_str().unwrap().to_owned()
    };
    // Before and after the sites directory is there.
    for _ in 0..2 {
        let message = refused(&elsewhere.path().join("host.pem"), &[]);
        assert!(message.contains("another file system"), "{message}");
        assert_eq!(cmd.deployed(), [""; 0], "nothing is deployed before the configuration is right");
    }
    let message = refused(&elsewhere.path().join("host.pem"), &["--dry-run"]);
    assert!(message.contains("another file system"), "{message}");
    let message = refused(&cmd.beside("no-such-folder").join("host.pem"), &[]);
    assert!(message.contains("no-such-folder"), "{message}");
    let message = refused(&cmd.sites().join("host.pem"), &[]);
    assert!(message.contains("sites_dir"), "{message}");
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
}

/// As the defaults have it on a new machine: `certs/host.pem` beside `certs/sites`, and nothing of it there.
#[test]
fn its_directory_is_made_with_the_sites_directory() {
    let (_tree, leaf, cmd, _) = with_host();
    let file = cmd.beside("ssl/certs/host.pem");
    let text = read(&cmd.config())
        .replace(&toml(&cmd.beside("host.pem")), &toml(&file))
        .replace(&toml(&cmd.sites()), &toml(&cmd.beside("ssl/certs/sites")));
    let config = cmd.beside("other.toml");
    fs::write(&config, text).unwrap();
    for (arguments, code) in [(&["--dry-run", "--exit-code"][..], 4), (&[], 0)] {
        let mut command = std::process::Command::new(Cmd::program());
        command.arg("--config").arg(&config).args(["assemble", "--format", "json"]).args(arguments);
        let report = contract::run(&mut command).exits(code);
        assert_eq!(
            brief(&report),
            ["host:host.pem install", "a.example.pem install", "lb1.example.pem install"]
        );
    }
    assert_eq!(read(&file), leaf.combined());
}

#[test]
fn its_directory_must_be_safe_too() {
    let (_tree, _, cmd, _) = with_host();
    let open = cmd.beside("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    let text = read(&cmd.config()).replace(&toml(&cmd.beside("host.pem")), &toml(&open.join("host.pem")));
    let config = cmd.beside("other.toml");
    fs::write(&config, text).unwrap();
    let mut command = std::process::Command::new(Cmd::program());
    command.arg("--config").arg(&config).args(["assemble", "--format", "json"]);
    let report = contract::run(&mut command).exits(3).json();
    assert_eq!(report["error"]["kind"], "permission");
    assert!(report["error"]["message"].as_str().unwrap().contains("chmod o-w"), "{report}");
}

/// Which lineage it is made of is the operator's choice: that one may have been renewed earlier than the one before.
#[test]
fn another_lineage_may_be_an_older_one() {
    let mut tree = Tree::new();
    let older = tree.issue("older.example", KeyKind::P256, &["older.example"], Validity::left(0.6));
    tree.issue(HOST, KeyKind::P256, &[HOST], Validity::days(90));
    let cmd = |lineage: &str, sites: Option<&Path>, file: &Path| {
        let cmd = Cmd::new(tree.live()).without_haproxy();
        let cmd = if let Some(sites) = sites { cmd.with_sites(sites) } else { cmd };
        cmd.option(&format!("host_lineage = \"{lineage}\"")).option(&format!("host_file = {}", toml(file)))
    };
    let folder = tempfile::tempdir().unwrap();
    let (file, sites) = (folder.path().join("host.pem"), folder.path().join("sites"));
    cmd(HOST, Some(&sites), &file).assemble(&[]).exits(0);
    let changed = cmd("older.example", Some(&sites), &file);
    assert_eq!(brief(&changed.assemble(&[]).exits(0))[0], "host:host.pem replace");
    assert_eq!(read(&file), older.combined());
    assert_eq!(brief(&changed.assemble(&[]).exits(0))[0], "host:host.pem unchanged");
}
