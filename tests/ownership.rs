//! Whose a file is: what is taken over, what is in conflict, what is foreign, and what the state file may say.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may fail loudly")]

mod contract;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use contract::{brief, brief_of, haproxy_objects_to, listing, mode_and_owner};
use support::process::finish;
use support::tree::{make_directory, write};
use support::{Cmd, KeyKind, Kind, LIMIT, Leaf, Tree, Validity};

const NAME: &str = "example.org";
const FILE: &str = "example.org.pem";

/// A lineage, and a sites directory without anything in it.
fn undeployed() -> (Tree, Leaf, Cmd) {
    let mut tree = Tree::new();
    let leaf = tree.issue(NAME, KeyKind::P256, &[NAME], Validity::days(90));
    let cmd = Cmd::new(tree.live()).without_haproxy();
    make_directory(&cmd.sites(), 0o700);
    (tree, leaf, cmd)
}

fn deployed() -> (Tree, Leaf, Cmd) {
    let (tree, leaf, cmd) = undeployed();
    cmd.assemble(&[]).exits(0);
    (tree, leaf, cmd)
}

fn stranger(tree: &Tree) -> Leaf {
    tree.authority().issue(KeyKind::P256, &["stranger.example"], Validity::days(90))
}

fn state(cmd: &Cmd) -> PathBuf {
    cmd.sites().join(".haproxy-certs/state.json")
}

fn adopted(cmd: &Cmd) -> PathBuf {
    cmd.sites().join(".haproxy-certs/adopted")
}

// --- Without a record ----------------------------------------------------------------------------------------------

#[test]
fn a_file_is_taken_over_when_it_is_what_would_be_written() {
    let (mut tree, leaf, cmd) = undeployed();
    write(&cmd.site(NAME), leaf.combined(), 0o400);
    let before = listing(&cmd.site(NAME));
    assert_eq!(brief(&cmd.assemble(&[]).exits(0)), [format!("{FILE} unchanged")]);
    assert_eq!(listing(&cmd.site(NAME)), before);
    // It is ours from now on: pruned when the lineage goes.
    tree.issue("other.example", KeyKind::P256, &["other.example"], Validity::days(90));
    tree.delete(NAME);
    assert_eq!(brief(&cmd.assemble(&[]).exits(0))[0], format!("{FILE} prune"));
}

#[test]
fn a_file_is_taken_over_when_its_leaf_is_in_the_archive() {
    let (mut tree, old, cmd) = undeployed();
    tree.renew(NAME);
    let new = tree.renew(NAME);
    // As `cat` in an earlier hook script left it: the chain first, some text, laxer.
    write(&cmd.site(NAME), format!("# by hand\n{}\n{}", old.fullchain(), old.key.pem()), 0o644);
    assert_eq!(brief(&cmd.assemble(&[]).exits(0)), [format!("{FILE} replace")]);
    assert_eq!(fs::read_to_string(cmd.site(NAME)).unwrap(), new.combined());
    assert_eq!(mode_and_owner(&cmd.site(NAME)), (0o400, 0, 0));

    // The current leaf in another shape, too.
    fs::remove_file(state(&cmd)).unwrap();
    write(&cmd.site(NAME), format!("{}{}", new.fullchain(), new.key.pem()), 0o400);
    assert_eq!(brief(&cmd.assemble(&[]).exits(0)), [format!("{FILE} replace")]);
    assert_eq!(fs::read_to_string(cmd.site(NAME)).unwrap(), new.combined());
}

#[test]
fn any_other_file_is_a_conflict_and_stays() {
    let (mut tree, _, cmd) = undeployed();
    let stranger = stranger(&tree);
    tree.issue("garbage.example", KeyKind::P256, &["garbage.example"], Validity::days(90));
    tree.issue("empty.example", KeyKind::P256, &["empty.example"], Validity::days(90));
    tree.issue("folder.example", KeyKind::P256, &["folder.example"], Validity::days(90));
    tree.issue("link.example", KeyKind::P256, &["link.example"], Validity::days(90));
    tree.issue("large.example", KeyKind::P256, &["large.example"], Validity::days(90));
    write(&cmd.site(NAME), stranger.combined(), 0o600);
    write(&cmd.site("garbage.example"), "garbage", 0o600);
    write(&cmd.site("empty.example"), "", 0o600);
    write(&cmd.site("large.example"), vec![b'#'; (1 << 20) + 1], 0o600);
    fs::create_dir(cmd.site("folder.example")).unwrap();
    let outside = cmd.beside("outside.pem");
    // Not even a link to the right contents is followed.
    write(&outside, tree.leaf("link.example").combined(), 0o400);
    symlink(&outside, cmd.site("link.example")).unwrap();
    let before = listing(&cmd.sites());
    for arguments in [&[][..], &["--prune-many", "--force", NAME]] {
        let report = cmd.assemble(arguments).exits(1);
        assert_eq!(
            brief(&report),
            [
                "empty.example.pem conflict",
                "example.org.pem conflict",
                "folder.example.pem conflict",
                "garbage.example.pem conflict",
                "large.example.pem conflict",
                "link.example.pem conflict"
            ]
        );
        let row = report.site(FILE);
        assert_eq!(row["lineage"], NAME);
        assert_eq!(row["reason"], Value::Null);
        assert_eq!(row["serial"], stranger.serial(), "what the file has");
        assert_eq!(row["names"], json!(["stranger.example"]));
        assert!(row["detail"].as_str().unwrap().contains("--adopt"));
        assert_eq!(report.site("garbage.example.pem")["serial"], Value::Null);
    }
    for (name, was) in &before {
        if !name.is_empty() {
            assert_eq!(Some(was), listing(&cmd.sites()).get(name), "{name}");
        }
    }
    assert_eq!(fs::read_to_string(outside).unwrap(), tree.leaf("link.example").combined());
}

#[test]
fn files_that_no_lineage_needs_are_foreign_and_stay() {
    let (tree, _, cmd) = undeployed();
    let stranger = stranger(&tree);
    write(&cmd.sites().join("stranger.pem"), stranger.combined(), 0o644);
    write(&cmd.sites().join("README"), "not a certificate", 0o644);
    fs::create_dir(cmd.sites().join("folder")).unwrap();
    symlink("stranger.pem", cmd.sites().join("link.pem")).unwrap();
    let odd = std::os::unix::ffi::OsStringExt::from_vec(b"raw-\xff.pem".to_vec());
    let odd: std::ffi::OsString = odd;
    write(&cmd.sites().join(&odd), "", 0o644);
    let names = ["README", "folder", "link.pem", "stranger.pem"];
    let before = names.map(|name| listing(&cmd.sites().join(name)));
    let runs =
        [(&[][..], "install [default-certificate-changed]"), (&["--adopt", "--prune-many"], "unchanged")];
    for (arguments, what) in runs {
        // HAProxy can't load two of them: the run says so.
        let report = cmd.assemble(arguments).exits(1);
        assert_eq!(
            brief(&report),
            [
                "README foreign",
                &format!("{FILE} {what}"),
                "link.pem foreign",
                "raw-\u{fffd}.pem foreign",
                "stranger.pem foreign"
            ],
            "a directory is nothing to HAProxy"
        );
        let row = report.site("stranger.pem");
        assert_eq!(row["lineage"], Value::Null);
        assert_eq!(row["serial"], stranger.serial());
        assert_eq!(row["key_type"], "ecdsa-p256");
        assert_eq!(report.site("README")["serial"], Value::Null);
    }
    assert_eq!(before, names.map(|name| listing(&cmd.sites().join(name))));
    assert!(cmd.sites().join(odd).exists());
}

// --- With a record -------------------------------------------------------------------------------------------------

#[test]
fn a_damaged_file_of_ours_is_replaced() {
    let (_tree, leaf, cmd) = deployed();
    for damage in ["", "-----BEGIN PRIVATE KEY-----\n", "\0\0\0\0"] {
        fs::write(cmd.site(NAME), damage).unwrap();
        assert_eq!(brief(&cmd.assemble(&[]).exits(0)), [format!("{FILE} replace")]);
        assert_eq!(fs::read_to_string(cmd.site(NAME)).unwrap(), leaf.combined());
    }
    let whole = leaf.combined();
    fs::write(cmd.site(NAME), &whole[..whole.len() - 100]).unwrap();
    assert_eq!(brief(&cmd.assemble(&[]).exits(0)), [format!("{FILE} replace")]);
    // The tail of something longer.
    fs::write(cmd.site(NAME), format!("{whole}{}", leaf.chain)).unwrap();
    assert_eq!(brief(&cmd.assemble(&[]).exits(0)), [format!("{FILE} replace")]);
    fs::remove_file(cmd.site(NAME)).unwrap();
    assert_eq!(brief(&cmd.assemble(&[]).exits(0)), [format!("{FILE} install")]);
    assert_eq!(fs::read_to_string(cmd.site(NAME)).unwrap(), whole);
}

#[test]
fn a_file_of_ours_that_somebody_replaced_is_a_conflict() {
    let (mut tree, _, cmd) = deployed();
    let stranger = stranger(&tree);
    fs::write(cmd.site(NAME), stranger.combined()).unwrap();
    assert_eq!(brief(&cmd.assemble(&[]).exits(1)), [format!("{FILE} conflict")]);
    tree.renew(NAME);
    assert_eq!(brief(&cmd.assemble(&[]).exits(1)), [format!("{FILE} conflict")]);
    assert_eq!(fs::read_to_string(cmd.site(NAME)).unwrap(), stranger.combined());
    // An older one of the lineage's own is ours whoever put it there.
    let old = tree.leaf(NAME).clone();
    tree.renew(NAME);
    fs::write(cmd.site(NAME), old.combined()).unwrap();
    assert_eq!(brief(&cmd.assemble(&[]).exits(0)), [format!("{FILE} replace")]);
    assert_eq!(fs::read_to_string(cmd.site(NAME)).unwrap(), tree.leaf(NAME).combined());
}

// --- Adoption ------------------------------------------------------------------------------------------------------

#[test]
fn adopt_takes_over_what_a_lineage_needs_and_keeps_a_copy() {
    let (mut tree, leaf, cmd) = undeployed();
    let stranger = stranger(&tree);
    tree.issue("link.example", KeyKind::P256, &["link.example"], Validity::days(90));
    tree.issue("folder.example", KeyKind::P256, &["folder.example"], Validity::days(90));
    tree.issue("broken.example", KeyKind::P256, &["broken.example"], Validity::days(90));
    tree.overwrite("broken.example", support::Kind::Privkey, "");
    write(&cmd.site(NAME), stranger.combined(), 0o644);
    write(&cmd.site("broken.example"), "somebody's", 0o644);
    let outside = cmd.beside("outside.pem");
    write(&outside, "outside", 0o644);
    symlink(&outside, cmd.site("link.example")).unwrap();
    fs::create_dir(cmd.site("folder.example")).unwrap();
    let before = listing(&cmd.sites());
    let plan = cmd.assemble(&["--adopt", "--dry-run"]).exits(1);
    assert_eq!(listing(&cmd.sites()), before);
    let report = cmd.assemble(&["--adopt"]).exits(1);
    assert_eq!(
        brief(&report),
        [
            "broken.example.pem refuse key-missing",
            "example.org.pem replace",
            "folder.example.pem conflict",
            "link.example.pem replace"
        ]
    );
    assert_eq!(brief(&plan), brief(&report));
    assert_eq!(fs::read_to_string(cmd.site(NAME)).unwrap(), leaf.combined());
    assert_eq!(mode_and_owner(&cmd.site(NAME)), (0o400, 0, 0));
    assert_eq!(fs::read_to_string(adopted(&cmd).join(FILE)).unwrap(), stranger.combined());
    assert_eq!(mode_and_owner(&adopted(&cmd)), (0o700, 0, 0));
    assert_eq!(fs::read_link(adopted(&cmd).join("link.example.pem")).unwrap(), outside);
    assert!(!cmd.site("link.example").is_symlink());
    assert_eq!(fs::read_to_string(&outside).unwrap(), "outside");
    assert_eq!(fs::read_to_string(cmd.site("broken.example")).unwrap(), "somebody's");

    // Nothing is ever overwritten there.
    fs::write(cmd.sites().join("new"), "another stranger").unwrap();
    fs::rename(cmd.sites().join("new"), cmd.site(NAME)).unwrap();
    fs::remove_file(state(&cmd)).unwrap();
    assert_eq!(brief_of(&cmd.assemble(&[]).exits(1), &[FILE]), [format!("{FILE} conflict")]);
    cmd.assemble(&["--adopt"]).exits(1);
    assert_eq!(fs::read_to_string(cmd.site(NAME)).unwrap(), leaf.combined());
    let mut kept: Vec<String> = support::cmd::names_in(&adopted(&cmd))
        .iter()
        .filter_map(|name| fs::read_to_string(adopted(&cmd).join(name)).ok())
        .collect();
    kept.sort();
    let mut expected = vec![stranger.combined(), "another stranger".into(), "outside".into()];
    expected.sort();
    assert_eq!(kept, expected);
    // It is ours: no second adoption.
    assert_eq!(brief_of(&cmd.assemble(&["--adopt"]).exits(1), &[FILE]), [format!("{FILE} unchanged")]);
}

/// That somebody's certificate is younger says nothing about the lineage's.
#[test]
fn a_younger_file_of_somebody_elses_is_adopted() {
    let mut tree = Tree::new();
    let stranger = stranger(&tree);
    let older = Validity::between(time::Duration::days(-30), time::Duration::days(60));
    let leaf = tree.issue(NAME, KeyKind::P256, &[NAME], older);
    let cmd = Cmd::new(tree.live()).without_haproxy();
    make_directory(&cmd.sites(), 0o700);
    write(&cmd.site(NAME), stranger.combined(), 0o600);
    assert_eq!(brief(&cmd.assemble(&["--adopt"]).exits(0)), [format!("{FILE} replace")]);
    assert_eq!(fs::read_to_string(cmd.site(NAME)).unwrap(), leaf.combined());
}

#[test]
fn adoption_does_not_put_a_worse_certificate_over_a_valid_one() {
    let (mut tree, _, cmd) = undeployed();
    let stranger = stranger(&tree);
    tree.issue("future.example", KeyKind::P256, &["future.example"], Validity::not_yet());
    tree.delete(NAME);
    write(&cmd.site("future.example"), stranger.combined(), 0o600);
    let report = cmd.assemble(&["--adopt"]).exits(1);
    assert_eq!(brief(&report), ["future.example.pem refuse would-replace-good [not-yet-valid]"]);
    assert_eq!(fs::read_to_string(cmd.site("future.example")).unwrap(), stranger.combined());
    let report = cmd.assemble(&["--adopt", "--force", "future.example"]).exits(0);
    assert_eq!(brief(&report), ["future.example.pem replace [not-yet-valid]"]);
}

// --- The state file ------------------------------------------------------------------------------------------------

#[test]
fn losing_the_state_file_loses_no_file() {
    let (mut tree, _, cmd) = deployed();
    for name in ["gone.example", "renewed.example", "same.example"] {
        tree.issue(name, KeyKind::P256, &[name], Validity::days(90));
    }
    cmd.assemble(&[]).exits(0);
    for lose in [
        (|path: &Path| fs::remove_file(path).unwrap()) as fn(&Path),
        |path| fs::write(path, "").unwrap(),
        |path| fs::write(path, "{\"version\": 1, \"files\": [").unwrap(),
        |path| fs::write(path, b"\xff\xfe\x00").unwrap(),
        |path| fs::write(path, "{\"version\": 1, \"files\": {\"a.pem\": 7}}").unwrap(),
        |path| fs::write(path, "{\"version\": 0}").unwrap(),
    ] {
        lose(&state(&cmd));
        tree.renew("renewed.example");
        tree.delete("gone.example");
        let report = cmd.assemble(&[]).exits(0);
        assert_eq!(
            brief(&report),
            [
                "example.org.pem unchanged",
                "gone.example.pem foreign",
                "renewed.example.pem replace",
                "same.example.pem unchanged"
            ]
        );
        tree.issue("gone.example", KeyKind::P256, &["gone.example"], Validity::days(90));
        fs::remove_file(cmd.site("gone.example")).unwrap();
        cmd.assemble(&[]).exits(0);
    }
    assert_eq!(haproxy_objects_to(&cmd.sites()), None);
}

#[test]
fn an_unreadable_state_file_counts_as_owed() {
    let (tree, _, _) = undeployed();
    let told = tempfile::tempdir().unwrap();
    let marker = told.path().join("told");
    let cmd = Cmd::new(tree.live()).table(&format!(
        "[[haproxy]]\nreload = \"command\"\nbinary = \"\"\ncommand = [\"/usr/bin/touch\", {}]",
        support::cmd::toml(&marker)
    ));
    cmd.assemble(&[]).exits(0);
    fs::remove_file(&marker).unwrap();
    fs::write(state(&cmd), "{").unwrap();
    let before = listing(&cmd.sites());
    assert_eq!(brief(&cmd.assemble(&["--dry-run", "--exit-code"]).exits(4)), [format!("{FILE} unchanged")]);
    assert_eq!(listing(&cmd.sites()), before);
    let report = cmd.assemble(&[]).exits(0).json();
    assert_eq!(report["summary"]["unchanged"], 1);
    assert_eq!(report["haproxy"][0]["outcome"], "reloaded");
    assert!(marker.exists());
    cmd.assemble(&["--dry-run", "--exit-code"]).exits(0);
}

#[test]
fn a_state_file_of_a_later_version_stops_the_run() {
    let (mut tree, _, cmd) = deployed();
    tree.renew(NAME);
    fs::write(state(&cmd), "{\"version\": 2, \"something\": [\"new\"]}").unwrap();
    let before = listing(&cmd.sites());
    for arguments in [&["--dry-run"][..], &[]] {
        let report = cmd.assemble(arguments).exits(3).json();
        assert_eq!(report["error"]["kind"], "config");
        assert!(report["error"]["message"].as_str().unwrap().contains("version 2"), "{report}");
        assert_eq!(report["sites"], json!([]));
    }
    let changed = contract::differences(&before, &listing(&cmd.sites()));
    assert_eq!(changed, contract::OF_AN_IDLE_RUN, "not even the state file");
}

/// Whoever could write there could otherwise have files elsewhere removed.
#[test]
fn names_in_the_state_file_never_lead_out_of_the_directory() {
    let (mut tree, _, cmd) = deployed();
    tree.issue("other.example", KeyKind::P256, &["other.example"], Validity::days(90));
    let victim = cmd.beside("victim.pem");
    write(&victim, "precious", 0o600);
    let digest = openssl::sha::sha256(b"precious");
    let digest = digest.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    let mut text: Value = serde_json::from_slice(&fs::read(state(&cmd)).unwrap()).unwrap();
    let mut record = text["files"][FILE].clone();
    record["sha256"] = digest.clone().into();
    for name in
        ["../victim.pem", victim.to_str().unwrap(), "folder/x.pem", "..", ".hidden.pem", "nul\u{0}.pem"]
    {
        text["files"][name] = record.clone();
        text["pending"][name] = json!({ "was": digest, "now": null });
    }
    write(&cmd.sites().join(".hidden.pem"), "precious", 0o600);
    text["owed"]["haproxy"] = json!({ "since": 0, "files": ["../victim.pem", "/etc/passwd"] });
    fs::write(state(&cmd), text.to_string()).unwrap();
    let report = cmd.assemble(&["--prune-many"]).exits(0);
    assert_eq!(
        brief(&report),
        [".hidden.pem foreign", "example.org.pem unchanged", "other.example.pem install"]
    );
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    assert!(cmd.sites().join(".hidden.pem").exists());
    let text = fs::read_to_string(state(&cmd)).unwrap();
    assert!(!text.contains("victim") && !text.contains("hidden"), "{text}");
}

#[test]
fn the_state_file_holds_digests_and_can_be_read_by_its_owner_only() {
    let (_tree, leaf, cmd) = deployed();
    let text = fs::read_to_string(state(&cmd)).unwrap();
    assert_eq!(mode_and_owner(&state(&cmd)), (0o600, 0, 0));
    for secret in contract::secrets(&leaf.key.pem()) {
        assert!(!text.contains(&secret));
    }
    let digest = openssl::sha::sha256(leaf.combined().as_bytes());
    assert!(text.contains(&digest.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))));
    let parsed: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(parsed["version"], 1);
    assert_eq!(parsed["files"][FILE]["lineage"], NAME);
}

// --- What fails on its way ----------------------------------------------------------------------------------------------

/// A run for which this was mounted before.
fn run_with(cmd: &Cmd, mounted: &str, on: &Path, arguments: &[&str]) -> Option<i32> {
    let mut command = Command::new("unshare");
    let script = format!("mount {mounted} \"$1\" && shift && exec \"$@\"");
    command.args(["-m", "sh", "-c", &script, "sh"]).arg(on).arg(Cmd::program());
    command.arg("--config").arg(cmd.config()).arg("assemble").args(arguments);
    cmd.prepare(&mut command);
    finish(&mut command, LIMIT).status.code()
}

#[test]
fn what_could_not_be_put_in_place_is_ours_still() {
    let (mut tree, _, cmd) = deployed();
    tree.renew(NAME);
    // Only the state says whose the deployed one is.
    for kind in [Kind::Privkey, Kind::Cert, Kind::Chain, Kind::Fullchain] {
        fs::remove_file(tree.file(NAME, kind, 1)).unwrap();
    }
    let deployed = listing(&cmd.site(NAME));
    // Nothing is renamed onto what something is mounted on.
    assert_eq!(run_with(&cmd, "--bind \"$1\"", &cmd.site(NAME), &[]), Some(3));
    assert_eq!(listing(&cmd.site(NAME)), deployed);
    assert_eq!(brief(&cmd.assemble(&[]).exits(0)), [format!("{FILE} replace")]);
    assert_eq!(fs::read_to_string(cmd.site(NAME)).unwrap(), tree.leaf(NAME).combined());
}

#[test]
fn what_could_not_be_pruned_is_pruned_by_the_next_run() {
    let (mut tree, _, cmd) = deployed();
    tree.issue("other.example", KeyKind::P256, &["other.example"], Validity::days(90));
    cmd.assemble(&[]).exits(0);
    tree.delete(NAME);
    assert_eq!(run_with(&cmd, "--bind \"$1\"", &cmd.site(NAME), &[]), Some(3));
    assert!(cmd.site(NAME).exists());
    assert_eq!(brief(&cmd.assemble(&[]).exits(0))[0], format!("{FILE} prune"));
    assert!(!cmd.site(NAME).exists());
}

/// The copy can't be kept: the file stays somebody else's, damaged as it is.
#[test]
fn what_could_not_be_kept_is_not_taken_over() {
    let (_tree, leaf, cmd) = undeployed();
    write(&cmd.site(NAME), "of great value to somebody", 0o400);
    cmd.assemble(&[]).exits(1);
    make_directory(&adopted(&cmd), 0o700);
    let before = listing(&cmd.site(NAME));
    let code = run_with(&cmd, "-t tmpfs -o ro,mode=0700 tmpfs", &adopted(&cmd), &["--adopt"]);
    assert_eq!(code, Some(3));
    assert_eq!(brief(&cmd.assemble(&[]).exits(1)), [format!("{FILE} conflict")]);
    assert_eq!(listing(&cmd.site(NAME)), before);
    assert_eq!(brief(&cmd.assemble(&["--adopt"]).exits(0))[0], format!("{FILE} replace"));
    assert_eq!(fs::read_to_string(cmd.site(NAME)).unwrap(), leaf.combined());
    assert_eq!(fs::read_to_string(adopted(&cmd).join(FILE)).unwrap(), "of great value to somebody");
}
