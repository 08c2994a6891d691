//! A HAProxy that its unit starts as another user than root: what it can read stays readable to it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may fail loudly")]

mod support;

use std::fs::{Permissions, metadata, set_permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;

use support::{Cmd, Haproxy, KeyKind, Run, Tree, Validity, versions};

/// `nobody` on Debian.
const NOBODY: u32 = 65534;

fn whose(file: &Path) -> (u32, u32) {
    let meta = metadata(file).unwrap();
    (meta.uid(), meta.mode() & 0o777)
}

/// All that it says, whatever the lines are.
fn said(run: &Run) -> String {
    format!("{} {}", run.stdout, run.stderr).split_whitespace().collect::<Vec<_>>().join(" ")
}

#[track_caller]
fn is_refused(run: &Run) {
    let row = run.json()["sites"][0].clone();
    assert_eq!((&row["action"], &row["reason"]), (&"refuse".into(), &"haproxy-rejects".into()), "{run}");
    assert!(row["detail"].as_str().unwrap().contains("runs as user nobody, and can't read files"), "{run}");
}

#[test]
fn a_file_that_haproxy_can_read_as_its_user_is_not_taken_from_it() {
    for version in versions() {
        let mut tree = Tree::new();
        let leaf = tree.issue("a.example", KeyKind::P256, &["a.example"], Validity::days(90));
        let cmd = Cmd::new(tree.live());
        support::tree::make_directory(&cmd.sites(), 0o755);
        set_permissions(cmd.beside(""), Permissions::from_mode(0o755)).unwrap();
        let file = cmd.site("a.example");
        support::tree::write(&file, leaf.combined(), 0o600);
        chown(&file, Some(NOBODY), Some(NOBODY)).unwrap();
        let mut haproxy = Haproxy::of(&version).crt(cmd.sites()).user(NOBODY).start();
        let cmd = cmd.haproxy(&haproxy, "");
        // What it would write is what is there: only owner and mode differ.
        is_refused(&cmd.run(&["assemble", "--dry-run", "--format", "json"]).exits(1));
        is_refused(&cmd.run(&["assemble", "--format", "json"]).exits(1));
        assert_eq!(whose(&file), (NOBODY, 0o600));
        // A renewal neither.
        tree.renew("a.example");
        is_refused(&cmd.run(&["assemble", "--format", "json"]).exits(1));
        assert_eq!(whose(&file), (NOBODY, 0o600));
        let status = cmd.run(&["status", "--format", "json"]).json();
        let found =
            status["problems"].as_array().unwrap().iter().find(|it| it["problem"] == "settings-broken");
        let found = found.unwrap_or_else(|| panic!("{status}"));
        assert_eq!(found["severity"], "warning", "{found}");
        assert!(found["advice"].as_str().unwrap().contains("set owner = \"nobody\""), "{found}");
        // As it is advised.
        let cmd = cmd.option("owner = \"nobody\"");
        cmd.assemble(&[]).exits(0);
        cmd.run(&["status"]).exits(0);
        assert_eq!(whose(&file), (NOBODY, 0o400));
        haproxy.stop();
        haproxy.run_again();
    }
}

#[test]
fn files_that_haproxy_can_no_longer_read_are_critical() {
    let mut tree = Tree::new();
    tree.issue("a.example", KeyKind::P256, &["a.example"], Validity::days(90));
    let cmd = Cmd::new(tree.live());
    cmd.run(&["assemble", "--reload", "none"]).exits(0);
    set_permissions(cmd.beside(""), Permissions::from_mode(0o755)).unwrap();
    set_permissions(cmd.sites(), Permissions::from_mode(0o755)).unwrap();
    let file = cmd.site("a.example");
    chown(&file, Some(NOBODY), Some(NOBODY)).unwrap();
    let haproxy = Haproxy::of(&support::system_haproxy()).crt(cmd.sites()).user(NOBODY).start();
    let cmd = cmd.haproxy(&haproxy, "");
    chown(&file, Some(0), Some(0)).unwrap();
    let status = said(&cmd.run(&["status"]).exits(2));
    assert!(status.contains("can't read files of owner root and mode 0400"), "{status}");
    let run = said(&cmd.assemble(&[]).exits(1));
    assert!(run.contains("set owner = "), "{run}");
}
