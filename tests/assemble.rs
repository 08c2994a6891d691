//! `assemble` as a user meets it: what it writes, what it reports, how it exits, and that it does nothing twice.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may fail loudly")]

mod contract;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use time::macros::format_description;

use contract::{
    OF_AN_IDLE_RUN, assemble_command, brief, differences, haproxy_objects_to, listing, mode_and_owner,
    nobody, run, secrets,
};
use support::tls::hex;
use support::tree::{make_directory, write};
use support::{Cmd, KeyKind, Kind, Leaf, Tree, Validity, wait_until};

fn one_lineage() -> (Tree, Leaf, Cmd) {
    let mut tree = Tree::new();
    let leaf = tree.issue("example.org", KeyKind::P256, &["example.org"], Validity::days(90));
    let cmd = Cmd::new(tree.live()).without_haproxy();
    (tree, leaf, cmd)
}

fn timestamp(at: time::OffsetDateTime) -> String {
    at.format(format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z")).unwrap()
}

/// What the report says of a leaf, according to OpenSSL.
fn facts(leaf: &Leaf, kind: KeyKind, names: &[&str], validity: Validity) -> Value {
    let digest = leaf.x509().digest(openssl::hash::MessageDigest::sha256()).unwrap();
    json!({
        "names": names,
        "key_type": kind.name(),
        "serial": leaf.serial(),
        "sha256": hex(&digest).to_lowercase(),
        "not_before": timestamp(validity.not_before),
        "not_after": timestamp(validity.not_after),
    })
}

fn merged(mut one: Value, other: &Value) -> Value {
    one.as_object_mut().unwrap().extend(other.as_object().unwrap().clone());
    one
}

#[test]
fn a_first_run_installs_every_lineage_and_the_report_says_all_about_it() {
    let mut tree = Tree::new();
    let cmd = Cmd::new(tree.live()).without_haproxy();
    let mut rows = Vec::new();
    for (name, kind, names) in [
        ("a.example", KeyKind::P256, vec!["a.example", "www.a.example"]),
        ("b.example", KeyKind::Rsa2048, vec!["b.example", "*.b.example", "192.0.2.7", "2001:db8::1"]),
        ("c.example", KeyKind::P384, vec!["c.example"]),
        ("d.example", KeyKind::P521, vec!["d.example"]),
        ("e.example", KeyKind::Ed25519, vec!["e.example"]),
    ] {
        let validity = Validity::days(90);
        let leaf = tree.issue(name, kind, &names, validity);
        let row = json!({
            "lineage": name, "file": format!("{name}.pem"), "role": "site", "action": "install",
            "reason": null, "detail": null, "warnings": [],
        });
        rows.push(merged(row, &facts(&leaf, kind, &names, validity)));
    }
    let report = cmd.assemble(&[]).exits(0);
    assert_eq!(report.stderr, "");
    assert_eq!(report.stdout.trim_end().lines().count(), 1, "one object and nothing else");
    let mut seen = report.json();
    // Facts about the run as a whole: an addition to the contract's object.
    seen.as_object_mut().unwrap().remove("notes");
    assert_eq!(
        seen,
        json!({
            "version": 1, "command": "assemble", "dry_run": false,
            "live_dir": tree.live(), "sites_dir": cmd.sites(), "error": null, "proved": 5,
            "unchanged_since": null, "sites": rows,
            "summary": { "install": 5, "replace": 0, "repair": 0, "unchanged": 0, "prune": 0,
                         "refuse": 0, "conflict": 0, "foreign": 0 },
            "haproxy": [ { "name": "haproxy", "method": "none", "outcome": "skipped", "confirmed": null,
                           "owed": false, "detail": null } ],
        })
    );
    assert_eq!(
        cmd.deployed(),
        ["a.example.pem", "b.example.pem", "c.example.pem", "d.example.pem", "e.example.pem"]
    );
    for name in ["a.example", "b.example", "c.example", "d.example", "e.example"] {
        let leaf = tree.leaf(name);
        assert_eq!(
            fs::read_to_string(cmd.site(name)).unwrap(),
            leaf.combined(),
            "{name}: key first, then the chain"
        );
        assert_eq!(mode_and_owner(&cmd.site(name)), (0o400, 0, 0));
    }
    assert_eq!(haproxy_objects_to(&cmd.sites()), None);
}

#[test]
fn a_second_run_touches_nothing_but_the_record_of_it() {
    let mut tree = Tree::new();
    for number in 0..40 {
        let name = format!("{number}.example");
        tree.issue(&name, KeyKind::P256, &[&name], Validity::days(90));
    }
    let host = tempfile::tempdir().unwrap();
    let cmd = Cmd::new(tree.live())
        .option("host_lineage = \"7.example\"")
        .option(&format!("host_file = {}", support::cmd::toml(&host.path().join("host.pem"))))
        .table("[[haproxy]]\nreload = \"none\"\nbinary = \"/usr/sbin/haproxy\"");
    cmd.assemble(&[]).exits(0);
    let (sites, beside, live) = (listing(&cmd.sites()), listing(host.path()), listing(tree.root()));
    let report = cmd.assemble(&[]).exits(0).json();
    assert_eq!(report["summary"]["unchanged"], 41);
    assert_eq!(report["haproxy"][0]["outcome"], "not-needed");
    assert_eq!(differences(&sites, &listing(&cmd.sites())), OF_AN_IDLE_RUN);
    assert_eq!(differences(&beside, &listing(host.path())), [""; 0]);
    assert_eq!(differences(&live, &listing(tree.root())), [""; 0]);

    let human = cmd.run(&["assemble"]).exits(0);
    assert_eq!(human.stdout, format!("{}: 41 unchanged\n", cmd.sites().display()), "only the summary");
    assert_eq!(human.stderr, "");
    assert_eq!(cmd.run(&["-q", "assemble"]).exits(0).stdout, "");
    assert_eq!(cmd.run(&["-v", "assemble"]).exits(0).stdout.lines().count(), 43, "also what is unchanged");
}

#[test]
fn a_renewed_lineage_is_replaced_and_nothing_of_the_old_file_is_left() {
    let mut tree = Tree::new();
    tree.issue("long.example", KeyKind::Rsa4096, &["long.example"], Validity::days(90));
    tree.issue("other.example", KeyKind::P256, &["other.example"], Validity::days(90));
    let cmd = Cmd::new(tree.live()).without_haproxy();
    cmd.assemble(&[]).exits(0);
    let before = listing(&cmd.sites());
    let shorter = tree.authority().issue(KeyKind::P256, &["long.example"], Validity::days(90));
    tree.renew_with("long.example", &shorter);
    let report = cmd.assemble(&[]).exits(0);
    assert_eq!(brief(&report), ["long.example.pem replace", "other.example.pem unchanged"]);
    assert_eq!(report.site("long.example.pem")["serial"], shorter.serial());
    assert_eq!(fs::read_to_string(cmd.site("long.example")).unwrap(), shorter.combined());
    let after = listing(&cmd.sites());
    assert_eq!(before["other.example.pem"], after["other.example.pem"]);
    assert_eq!(haproxy_objects_to(&cmd.sites()), None);
    // Nobody is waited for: neither staged nor previous files are kept.
    let left: Vec<&String> = after.keys().filter(|name| name.contains(".pem")).collect();
    assert_eq!(left, ["long.example.pem", "other.example.pem"]);
}

#[test]
fn wrong_owner_or_mode_is_repaired_and_nothing_else_is_written() {
    let mut tree = Tree::new();
    for name in ["mode.example", "owner.example", "right.example", "suid.example"] {
        tree.issue(name, KeyKind::P256, &[name], Validity::days(90));
    }
    let cmd = Cmd::new(tree.live()).without_haproxy();
    cmd.assemble(&[]).exits(0);
    fs::set_permissions(cmd.site("mode.example"), fs::Permissions::from_mode(0o444)).unwrap();
    fs::set_permissions(cmd.site("suid.example"), fs::Permissions::from_mode(0o4400)).unwrap();
    std::os::unix::fs::chown(cmd.site("owner.example"), Some(nobody().0), Some(nobody().1)).unwrap();
    let before = listing(&cmd.sites());
    let report = cmd.assemble(&[]).exits(0);
    assert_eq!(
        brief(&report),
        [
            "mode.example.pem repair",
            "owner.example.pem repair",
            "right.example.pem unchanged",
            "suid.example.pem repair"
        ]
    );
    assert_eq!(report.json()["haproxy"][0]["outcome"], "not-needed", "the bytes are the same");
    for name in ["mode.example", "owner.example", "right.example", "suid.example"] {
        assert_eq!(mode_and_owner(&cmd.site(name)), (0o400, 0, 0), "{name}");
        assert_eq!(fs::read_to_string(cmd.site(name)).unwrap(), tree.leaf(name).combined());
    }
    assert_eq!(before["right.example.pem"], listing(&cmd.sites())["right.example.pem"]);
    assert_eq!(cmd.assemble(&[]).exits(0).json()["summary"]["unchanged"], 4);
}

#[test]
fn owner_and_mode_are_as_configured_whatever_the_umask() {
    let (uid, gid) = nobody();
    for umask in ["000", "022", "077", "777"] {
        let (_tree, _, cmd) = one_lineage();
        let cmd = cmd.option("owner = \"nobody\"\nmode = \"0440\"");
        let mut command = Command::new("/bin/sh");
        let line = format!("umask {umask}; exec \"$0\" --config \"$1\" assemble --format json");
        let report = run(command.args(["-c", &line]).arg(Cmd::program()).arg(cmd.config())).exits(0);
        assert_eq!(brief(&report), ["example.org.pem install"]);
        assert_eq!(mode_and_owner(&cmd.site("example.org")), (0o440, uid, gid), "umask {umask}");
        assert_eq!(mode_and_owner(&cmd.sites()), (0o751, uid, gid), "an unprivileged HAProxy lists it");
        let own = cmd.sites().join(".haproxy-certs");
        for (name, mode) in [
            ("", 0o700),
            ("stage", 0o700),
            ("previous", 0o700),
            ("state.json", 0o600),
            ("last-run.json", 0o600),
        ] {
            assert_eq!(mode_and_owner(&own.join(name)), (mode, 0, 0), "{name} with umask {umask}");
        }
        assert_eq!(brief(&cmd.assemble(&[]).exits(0)), ["example.org.pem unchanged"]);
    }
}

#[test]
fn a_change_of_owner_or_mode_in_the_configuration_is_a_repair() {
    let (_tree, _, cmd) = one_lineage();
    cmd.assemble(&[]).exits(0);
    let cmd = cmd.option("mode = \"0640\"\nowner = \"root:nogroup\"");
    assert_eq!(brief(&cmd.assemble(&[]).exits(0)), ["example.org.pem repair"]);
    let nogroup = nix::unistd::Group::from_name("nogroup").unwrap().unwrap().gid.as_raw();
    assert_eq!(mode_and_owner(&cmd.site("example.org")), (0o640, 0, nogroup));
}

#[test]
fn what_a_killed_run_left_behind_is_cleared() {
    let (_tree, leaf, cmd) = one_lineage();
    cmd.assemble(&[]).exits(0);
    let own = cmd.sites().join(".haproxy-certs");
    let before: Vec<String> = listing(&own).into_keys().collect();
    for name in [
        "stage/half.pem",
        "stage/example.org.pem",
        "host.pem",
        "previous/old.pem",
        "state.json.new",
        ".check-Ab3.cfg",
        "last-run.json.4711",
    ] {
        fs::write(own.join(name), "-----BEGIN PRIV").unwrap();
    }
    cmd.assemble(&[]).exits(0);
    fs::remove_file(cmd.site("example.org")).unwrap();
    assert_eq!(brief(&cmd.assemble(&[]).exits(0)), ["example.org.pem install"]);
    assert_eq!(fs::read_to_string(cmd.site("example.org")).unwrap(), leaf.combined());
    assert_eq!(listing(&own).into_keys().collect::<Vec<_>>(), before);
}

// --- Dry runs ------------------------------------------------------------------------------------------------------

#[test]
fn a_dry_run_writes_nothing_at_all_and_says_what_would_be_done() {
    let mut tree = Tree::new();
    for name in ["mode.example", "same.example", "renewed.example", "z-gone.example"] {
        tree.issue(name, KeyKind::P256, &[name], Validity::days(90));
    }
    let cmd = Cmd::new(tree.live()).without_haproxy();
    // Without a sites directory.
    assert_eq!(cmd.assemble(&["--dry-run"]).exits(0).json()["summary"]["install"], 4);
    assert!(!cmd.sites().exists());
    assert_eq!(cmd.assemble(&["--dry-run", "--exit-code"]).exits(4).json()["summary"]["install"], 4);
    assert!(!cmd.sites().exists());

    cmd.assemble(&[]).exits(0);
    cmd.assemble(&["--dry-run", "--exit-code"]).exits(0);
    tree.delete("z-gone.example");
    tree.renew("renewed.example");
    tree.issue("new.example", KeyKind::P256, &["new.example"], Validity::days(90));
    fs::set_permissions(cmd.site("mode.example"), fs::Permissions::from_mode(0o444)).unwrap();
    let foreign = tree.authority().issue(KeyKind::P256, &["foreign.example"], Validity::days(90));
    write(&cmd.sites().join("foreign.pem"), foreign.combined(), 0o600);
    fs::write(cmd.sites().join(".haproxy-certs/stage/left.pem"), "left by a killed run").unwrap();
    let (sites, live) = (listing(&cmd.sites()), listing(tree.root()));
    let report = cmd.assemble(&["--dry-run", "--exit-code"]).exits(4);
    assert_eq!(
        brief(&report),
        [
            "foreign.pem foreign",
            "mode.example.pem repair",
            "new.example.pem install",
            "renewed.example.pem replace",
            "same.example.pem unchanged",
            "z-gone.example.pem prune"
        ]
    );
    assert_eq!(report.json()["dry_run"], true);
    assert_eq!(report.json()["haproxy"], json!([]));
    cmd.run(&["assemble", "--dry-run"]).exits(0);
    assert_eq!(differences(&sites, &listing(&cmd.sites())), [""; 0]);
    assert_eq!(differences(&live, &listing(tree.root())), [""; 0]);

    // What it said is what is done.
    assert_eq!(brief(&cmd.assemble(&[]).exits(0)), brief(&report));
}

#[test]
fn a_dry_run_takes_no_lock() {
    let (_tree, _, cmd) = one_lineage();
    cmd.assemble(&[]).exits(0);
    let held = hold_lock(&cmd.sites());
    cmd.assemble(&["--dry-run"]).exits(0);
    drop(held);
}

#[test]
fn what_is_owed_is_something_to_do() {
    let (mut tree, _, cmd) = one_lineage();
    let marker = cmd.beside("told");
    let cmd = cmd_with_command(&tree, &format!("[\"/usr/bin/touch\", {}]", support::cmd::toml(&marker)));
    let deferred = cmd.assemble(&["--defer-reload"]).exits(0).json();
    assert_eq!(deferred["haproxy"][0]["outcome"], "deferred");
    assert_eq!(deferred["haproxy"][0]["owed"], true);
    assert!(!marker.exists());
    let report = cmd.assemble(&["--dry-run", "--exit-code"]).exits(4);
    assert_eq!(brief(&report), ["example.org.pem unchanged"]);
    assert!(
        cmd.run(&["assemble", "--dry-run"])
            .exits(0)
            .stdout
            .contains("has not been notified of an earlier change")
    );
    // A later deferral keeps the debt, together with its own.
    tree.issue("second.example", KeyKind::P256, &["second.example"], Validity::days(90));
    cmd.assemble(&["--defer-reload"]).exits(0);
    let paid = cmd.assemble(&[]).exits(0).json();
    assert_eq!(paid["summary"]["unchanged"], 2);
    assert_eq!(paid["haproxy"][0]["outcome"], "reloaded");
    assert_eq!(paid["haproxy"][0]["owed"], false);
    assert!(marker.exists(), "although no file changed");
    cmd.assemble(&["--dry-run", "--exit-code"]).exits(0);
    assert_eq!(cmd.assemble(&[]).exits(0).json()["haproxy"][0]["outcome"], "not-needed");
}

// --- Exit status ---------------------------------------------------------------------------------------------------

fn cmd_with_command(tree: &Tree, command: &str) -> Cmd {
    Cmd::new(tree.live())
        .table(&format!("[[haproxy]]\nreload = \"command\"\nbinary = \"\"\ncommand = {command}"))
}

#[test]
fn the_worst_thing_that_happened_is_the_exit_status() {
    let mut tree = Tree::new();
    tree.issue("good.example", KeyKind::P256, &["good.example"], Validity::days(90));
    let failing = cmd_with_command(&tree, "[\"/bin/false\"]");
    let told = failing.assemble(&[]).exits(2).json();
    assert_eq!(told["haproxy"][0]["outcome"], "failed");
    assert_eq!(told["haproxy"][0]["owed"], true);
    // A failed deployment is tried again although the files are in place.
    assert_eq!(failing.assemble(&[]).exits(2).json()["summary"]["unchanged"], 1);

    // 2 beats 1: the same with a conflict.
    tree.issue("taken.example", KeyKind::P256, &["taken.example"], Validity::days(90));
    write(&failing.site("taken.example"), "somebody's", 0o600);
    let report = failing.assemble(&[]).exits(2);
    assert_eq!(brief(&report), ["good.example.pem unchanged", "taken.example.pem conflict"]);
    // 1 beats 4: the conflict beats that there is something to do.
    tree.renew("good.example");
    failing.assemble(&["--dry-run", "--exit-code"]).exits(1);
    fs::remove_file(failing.site("taken.example")).unwrap();
    failing.assemble(&["--dry-run", "--exit-code"]).exits(4);
    // 3 beats 2: the tree is gone, and HAProxy still can't be told.
    failing.assemble(&[]).exits(2);
    fs::rename(tree.live(), tree.root().join("elsewhere")).unwrap();
    let report = failing.assemble(&[]).exits(3).json();
    assert_eq!(report["error"]["kind"], "io");
    assert_eq!(report["haproxy"][0]["outcome"], "failed", "told nevertheless");
    assert_eq!(report["summary"]["unchanged"], 2, "what was deployed stays");
}

#[test]
fn an_error_on_one_file_leaves_the_rest_deployed_and_told() {
    let mut tree = Tree::new();
    for name in ["a.example", "b.example", "c.example"] {
        tree.issue(name, KeyKind::P256, &[name], Validity::days(90));
    }
    let marker = tempfile::tempdir().unwrap();
    let cmd = cmd_with_command(
        &tree,
        &format!("[\"/usr/bin/touch\", {}]", support::cmd::toml(&marker.path().join("told"))),
    );
    cmd.assemble(&[]).exits(0);
    fs::remove_file(marker.path().join("told")).unwrap();
    let old = fs::read(cmd.site("b.example")).unwrap();
    for name in ["a.example", "b.example", "c.example"] {
        tree.renew(name);
    }
    let immutable = Immutable::new(&cmd.site("b.example"));
    let report = cmd.assemble(&[]).exits(3);
    assert_eq!(report.json()["error"]["kind"], "permission");
    assert_eq!(
        brief(&report),
        ["a.example.pem replace", "b.example.pem refuse read-error", "c.example.pem replace"]
    );
    assert_eq!(fs::read(cmd.site("b.example")).unwrap(), old);
    assert!(marker.path().join("told").exists());
    drop(immutable);
    assert_eq!(brief(&cmd.assemble(&[]).exits(0))[1], "b.example.pem replace");
    assert_eq!(fs::read_to_string(cmd.site("b.example")).unwrap(), tree.leaf("b.example").combined());
}

/// A file that not even root may change, until this is dropped.
struct Immutable(std::path::PathBuf);

impl Immutable {
    fn new(path: &Path) -> Self {
        let this = Self(path.to_owned());
        this.chattr("+i");
        this
    }

    fn chattr(&self, flag: &str) {
        let status = Command::new("chattr").arg(flag).arg(&self.0).status().unwrap();
        assert!(
            status.success(),
            "chattr {flag} {}: the tests need ext4, xfs or btrfs below /tmp",
            self.0.display()
        );
    }
}

impl Drop for Immutable {
    fn drop(&mut self) {
        self.chattr("-i");
    }
}

#[test]
fn without_certbot_there_is_nothing_to_do() {
    let nowhere = tempfile::tempdir().unwrap();
    let cmd = Cmd::new(nowhere.path().join("letsencrypt/live")).without_haproxy();
    let report = cmd.assemble(&[]).exits(0);
    assert_eq!(brief(&report), [""; 0]);
    assert_eq!(report.json()["error"], Value::Null);
    assert!(!cmd.sites().exists());
    cmd.assemble(&["--dry-run", "--exit-code"]).exits(0);
}

#[test]
fn wrong_usage_is_64() {
    let (_tree, _, cmd) = one_lineage();
    for arguments in [
        &["no-such-command"][..],
        &["assemble", "--no-such-flag"],
        &["assemble", "stray"],
        &["assemble", "--exit-code"],
        &["assemble", "--reload", "sometimes"],
        &["assemble", "--format", "xml"],
        &["assemble", "--force"],
        &["assemble", "--prune-many", "--no-prune"],
        &["-v", "-q", "assemble"],
        &["--color", "blue", "assemble"],
        &["completions", "tcsh"],
        &["\u{fc}"],
    ] {
        let report = cmd.run(arguments).exits(64);
        assert_eq!(report.stdout, "", "{arguments:?}");
        assert!(!report.stderr.is_empty(), "{arguments:?}");
        assert!(report.stderr.is_ascii(), "{report}");
    }
    assert!(!cmd.sites().exists());
    let nothing = run(&mut Command::new(Cmd::program())).exits(64);
    assert!(
        format!("{nothing}").contains("Usage:") && format!("{nothing}").contains("assemble"),
        "{nothing}"
    );
    for arguments in
        [&["--help"][..], &["assemble", "--help"], &["help"], &["--version"], &["completions", "bash"]]
    {
        let report = cmd.run(arguments).exits(0);
        assert_eq!(report.stderr, "", "{arguments:?}");
        assert!(!report.stdout.is_empty() && report.stdout.is_ascii(), "{arguments:?}");
    }
}

#[test]
fn certbot_calls_it_through_a_link_without_arguments() {
    let (tree, leaf, cmd) = one_lineage();
    for folder in ["pre", "deploy", "post"] {
        let hook = tree.root().join("renewal-hooks").join(folder).join("haproxy-certs");
        make_directory(hook.parent().unwrap(), 0o755);
        symlink(Cmd::program(), &hook).unwrap();
        let _ = fs::remove_file(cmd.site("example.org"));
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(&hook).env("HAPROXY_CERTS_CONFIG", cmd.config());
        command.env("RENEWED_LINEAGE", tree.lineage("example.org")).env("RENEWED_DOMAINS", "example.org");
        let report = run(&mut command).exits(0);
        assert_eq!(report.stderr, "");
        assert!(report.stdout.contains("installed"), "{report}");
        assert_eq!(fs::read_to_string(cmd.site("example.org")).unwrap(), leaf.combined());
        // Not as a hook: with arguments they count.
        run(Command::new(&hook).arg("--no-such").env("HAPROXY_CERTS_CONFIG", cmd.config())).exits(64);
    }
    let elsewhere = tree.root().join("haproxy-certs");
    symlink(Cmd::program(), &elsewhere).unwrap();
    run(Command::new(&elsewhere).env("HAPROXY_CERTS_CONFIG", cmd.config())).exits(64);
}

#[test]
fn a_hint_to_another_tree_is_a_warning_and_never_narrows_the_sweep() {
    let (tree, _, cmd) = one_lineage();
    let linked = tree.root().join("linked-live");
    symlink(tree.live(), &linked).unwrap();
    for inside in [
        tree.lineage("example.org"),
        tree.lineage("gone.example"),
        linked.join("example.org"),
        tree.lineage("example.org").join(""),
    ] {
        let mut command = assemble_command(&cmd);
        let report = run(command.env("RENEWED_LINEAGE", &inside)).exits(0);
        assert_eq!(brief(&report).len(), 1, "{}", inside.display());
    }
    let mut command = assemble_command(&cmd);
    run(command.env("RENEWED_LINEAGE", "")).exits(0);
    fs::remove_file(cmd.site("example.org")).unwrap();
    let other = Tree::new();
    for dry in [&["--dry-run"][..], &[]] {
        let mut command = assemble_command(&cmd);
        let report = run(command.args(dry).env("RENEWED_LINEAGE", other.lineage("example.org"))).exits(1);
        assert_eq!(brief(&report), ["example.org.pem install"], "the sweep goes on");
        assert!(report.stdout.contains("another certbot tree shares this hook"), "{report}");
    }
    assert!(cmd.site("example.org").exists());
    let mut command = Command::new(Cmd::program());
    command.arg("--config").arg(cmd.config()).arg("assemble");
    let report = run(command.env("RENEWED_LINEAGE", other.lineage("a\u{fc}"))).exits(1);
    assert!(report.stdout.contains("another certbot tree") && report.stdout.is_ascii(), "{report}");
}

// --- Failures ------------------------------------------------------------------------------------------------------

#[test]
fn a_configuration_that_cannot_be_meant_is_3_with_its_line() {
    let (_tree, _, cmd) = one_lineage();
    let folder = tempfile::tempdir().unwrap();
    let wrong = folder.path().join("wrong.toml");
    fs::write(&wrong, "# first line\nlive_dri = \"/x\"\n").unwrap();
    let wrong = wrong.to_str().unwrap();
    let report =
        run(Command::new(Cmd::program()).args(["--config", wrong, "assemble", "--format", "json"])).exits(3);
    assert_eq!(report.json()["error"]["kind"], "config");
    let message = report.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(
        message.contains("line 2") && message.contains("live_dri") && message.contains(wrong),
        "{message}"
    );
    assert_eq!(report.json()["command"], "assemble");
    let human = run(Command::new(Cmd::program()).args(["--config", wrong, "assemble"])).exits(3);
    assert_eq!(human.stdout, "");
    assert!(human.stderr.contains("line 2"), "{human}");
    // One that was named must be there; the environment names one too, and a flag beats it.
    let missing = folder.path().join("missing.toml");
    let json = ["assemble", "--format", "json"];
    let report = run(Command::new(Cmd::program()).args(json).env("HAPROXY_CERTS_CONFIG", &missing)).exits(3);
    assert_eq!(report.json()["error"]["kind"], "config");
    let mut command = assemble_command(&cmd);
    run(command.env("HAPROXY_CERTS_CONFIG", &missing)).exits(0);
}

#[test]
fn a_flag_beats_the_configuration_file() {
    let (tree, _, cmd) = one_lineage();
    let mut other = Tree::new();
    other.issue("other.example", KeyKind::P256, &["other.example"], Validity::days(90));
    let place = tempfile::tempdir().unwrap();
    let sites = place.path().join("sites");
    let arguments = ["--live-dir", other.live().to_str().unwrap(), "--sites-dir", sites.to_str().unwrap()]
        .map(ToOwned::to_owned);
    let report = cmd.assemble(&arguments.each_ref().map(String::as_str)).exits(0);
    assert_eq!(brief(&report), ["other.example.pem install"]);
    assert_eq!(report.json()["live_dir"], json!(other.live()));
    assert!(sites.join("other.example.pem").exists() && !cmd.sites().exists());
    let failing = cmd_with_command(&tree, "[\"/bin/false\"]");
    let told = failing.assemble(&["--reload", "none"]).exits(0).json();
    assert_eq!(told["haproxy"][0]["outcome"], "skipped");
}

/// Holds the lock of a sites directory as another run would.
fn hold_lock(sites: &Path) -> fs::File {
    let directory = fs::File::open(sites).unwrap();
    rustix::fs::flock(&directory, rustix::fs::FlockOperation::LockExclusive).unwrap();
    directory
}

#[test]
fn a_run_waits_for_the_one_before_it() {
    let (_tree, leaf, cmd) = one_lineage();
    make_directory(&cmd.sites(), 0o700);
    let held = hold_lock(&cmd.sites());
    let output = tempfile::NamedTempFile::new().unwrap();
    let config = cmd.config();
    let mut waiting = support::process::Running::start(Cmd::program(), |command| {
        command.arg("--config").arg(config).args(["assemble", "--format", "json"]);
        command.stdout(output.reopen().unwrap())
    });
    // It sleeps between two looks at the lock: each is a voluntary switch of context.
    let status = format!("/proc/{}/status", waiting.pid());
    let switches = || -> u32 {
        let status = fs::read_to_string(&status).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.and_then(|number| number.trim().parse().ok()).unwrap_or_default()
    };
    let has_directory = || {
        let Ok(open) = fs::read_dir(format!("/proc/{}/fd", waiting.pid())) else { return false };
        open.flatten().any(|fd| fs::read_link(fd.path()).is_ok_and(|path| path == cmd.sites()))
    };
    wait_until(support::LIMIT, "it has the directory open", has_directory);
    let begun = switches();
    wait_until(support::LIMIT, "it looks at the lock again and again", || switches() >= begun + 20);
    assert!(waiting.ended().is_none());
    assert_eq!(cmd.deployed(), [""; 0], "nothing is done without the lock");
    drop(held);
    assert_eq!(waiting.wait(support::LIMIT).code(), Some(0));
    assert_eq!(fs::read_to_string(cmd.site("example.org")).unwrap(), leaf.combined());
}

#[test]
fn a_lock_that_stays_held_is_a_failure_that_names_the_holder() {
    let (tree, _, cmd) = one_lineage();
    make_directory(&cmd.sites(), 0o700);
    let held = hold_lock(&cmd.sites());
    let text = format!(
        "live_dir = {}\nsites_dir = {}",
        support::cmd::toml(&tree.live()),
        support::cmd::toml(&cmd.sites())
    );
    let settings =
        haproxy_certs::config::Settings::parse(&text, &haproxy_certs::config::Overrides::default()).unwrap();
    let system = haproxy_certs::sys::system::System::host();
    let lock = || {
        haproxy_certs::sites::dir::SitesDir::lock(&settings, &system, std::time::Duration::from_millis(120))
    };
    let failure = lock().map(|_| ()).unwrap_err();
    assert_eq!(failure.kind, haproxy_certs::sys::failure::FailureKind::Lock);
    assert!(failure.message.contains(&format!("process {} (", std::process::id())), "{failure}");
    assert!(failure.message.contains(cmd.sites().to_str().unwrap()), "{failure}");
    let mut report = haproxy_certs::output::Report::begin(&settings, false);
    report.error = Some(failure);
    assert_eq!(report.exit(false).code(), 3);
    drop(held);
    lock().map(|_| ()).unwrap();
}

// --- Output --------------------------------------------------------------------------------------------------------

#[test]
fn output_is_ascii_and_holds_no_key_whatever_certbot_has() {
    let mut tree = Tree::new();
    let names = [
        "uml-\u{fc}",
        "esc-\u{1b}[31m",
        "new\nline",
        "odd name",
        "quote'\"\\",
        "emoji-\u{1f600}",
        "\u{85}c1",
    ];
    let mut keys = Vec::new();
    for name in names {
        let leaf = tree.issue(name, KeyKind::P256, &["x.example"], Validity::days(90));
        keys.extend(secrets(&leaf.key.pem()));
    }
    let broken = tree.issue("brok\u{e9}", KeyKind::Rsa2048, &["x.example"], Validity::days(90));
    keys.extend(secrets(&broken.key.pem()));
    let mismatch = support::Key::fresh(KeyKind::P256);
    keys.extend(secrets(&mismatch.pem()));
    tree.overwrite("brok\u{e9}", Kind::Privkey, mismatch.pem());
    let damaged = tree.issue("damag\u{e9}d", KeyKind::P256, &["x.example"], Validity::days(90));
    keys.extend(secrets(&damaged.key.pem()));
    let text = damaged.key.pem();
    tree.overwrite("damag\u{e9}d", Kind::Privkey, &text[..text.len() - 40]);
    let raw = std::ffi::OsStr::new("raw-");
    let raw: std::ffi::OsString =
        std::os::unix::ffi::OsStringExt::from_vec([raw.as_encoded_bytes(), &[0xff, 0xfe]].concat());
    fs::create_dir(tree.live().join(&raw)).unwrap();
    symlink("../../archive/x/privkey1.pem", tree.live().join(&raw).join("privkey.pem")).unwrap();
    let cmd = Cmd::new(tree.live()).without_haproxy();
    make_directory(&cmd.sites(), 0o700);
    fs::write(cmd.sites().join(&raw), "foreign").unwrap();
    let mut outputs = Vec::new();
    for arguments in [
        &["assemble", "--dry-run"][..],
        &["assemble", "--dry-run", "--format", "json"],
        &["assemble"],
        &["-v", "assemble"],
        &["assemble", "--format", "json"],
        &["--color", "always", "-v", "assemble"],
    ] {
        let report = cmd.run(arguments).exits(1);
        let colourless = report.stdout.replace("\u{1b}[", "");
        assert!(
            colourless.bytes().all(|byte| byte == b'\n' || (b' '..=b'~').contains(&byte)),
            "{arguments:?}: {report}"
        );
        assert_eq!(report.stderr, "", "{arguments:?}");
        if !arguments.contains(&"always") {
            assert!(!report.stdout.contains('\u{1b}'), "{arguments:?}");
        }
        outputs.push(report.stdout);
    }
    let own = cmd.sites().join(".haproxy-certs");
    for name in ["state.json", "last-run.json"] {
        outputs.push(fs::read_to_string(own.join(name)).unwrap());
    }
    for output in &outputs {
        assert!(!output.contains("PRIVATE KEY"), "{output}");
        for line in &keys {
            // Any part of a line that is long enough to be no accident.
            let found = (0..line.len().saturating_sub(12)).find(|&at| output.contains(&line[at..at + 12]));
            assert_eq!(found, None, "a key shows in {output}");
        }
    }
    // In JSON names are whole, and can be told from each other.
    let report: Value = serde_json::from_str(&outputs[4]).unwrap();
    let rows = report["sites"].as_array().unwrap();
    assert!(rows.iter().any(|row| row["lineage"] == "uml-\u{fc}" && row["file"] == "uml-\u{fc}.pem"));
    assert!(rows.iter().any(|row| row["lineage"] == "new\nline" && row["file"] == Value::Null));
}

/// systemd doesn't start a service again for what changes while it runs: the run itself looks again.
#[test]
fn what_arrives_while_a_run_works_is_deployed_by_it() {
    let (tree, ..) = one_lineage();
    let mut other = Tree::new();
    other.issue("late.example", KeyKind::P256, &["late.example"], Validity::days(90));
    // Notifying HAProxy is when it arrives: as if rsync weren't done yet.
    let bring = ["/bin/cp", "-a", &format!("{}/.", other.root().display()), tree.root().to_str().unwrap()];
    let cmd = Cmd::new(tree.live())
        .table(&format!("[[haproxy]]\nreload = \"command\"\nbinary = \"\"\ncommand = {bring:?}"));
    let run = cmd.run(&["assemble"]).exits(0);
    assert_eq!(cmd.deployed(), ["example.org.pem", "late.example.pem"], "{run}");
    assert!(run.stdout.contains("install    late.example.pem"), "{run}");
}
