//! A deploy that doesn't come for more than a day makes the run fail, as systemd sees it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may fail loudly")]

use std::fs;

use serde_json::Value;
use support::fleet::Fleet;
use support::{Cmd, KeyKind, Kind, Tree, Validity};

const NOTICE: &str = include_str!("../packaging/haproxy-certs-failure@.service");

#[test]
fn a_lineage_that_is_refused_for_more_than_a_day_fails_the_run() {
    let mut tree = Tree::new();
    tree.issue("a.example", KeyKind::P256, &["a.example"], Validity::days(90));
    let good = fs::read(tree.link("a.example", Kind::Privkey)).unwrap();
    tree.issue("b.example", KeyKind::P256, &["b.example"], Validity::days(90));
    tree.overwrite("a.example", Kind::Privkey, "nothing");
    let cmd = Cmd::new(tree.live()).without_haproxy();
    cmd.assemble(&[]).exits(1);
    let record = cmd.sites().join(".haproxy-certs/last-run.json");
    let since = || {
        let text: Value = serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
        text["undeployed"]["a.example.pem"].as_i64()
    };
    let first = since().unwrap();
    cmd.assemble(&[]).exits(1);
    assert_eq!(since(), Some(first), "since the first run");

    // A run that can't see the tree knows nothing of it.
    let (live, aside) = (tree.live(), tree.live().with_extension("aside"));
    fs::rename(&live, &aside).unwrap();
    cmd.assemble(&[]).exits(3);
    fs::rename(&aside, &live).unwrap();
    assert_eq!(since(), Some(first), "after a run that failed");

    a_day_passes(&cmd, "a.example.pem");
    let late = cmd.assemble(&[]).exits(2);
    assert!(late.stdout.contains("a.example.pem has not been deployed for more than a day"), "{late}");
    cmd.assemble(&["--dry-run"]).exits(1);
    let status = cmd.run(&["status"]);
    assert!(status.stdout.contains("a deploy has waited for more than a day"), "{status}");

    tree.overwrite("a.example", Kind::Privkey, good);
    cmd.assemble(&[]).exits(0);
    assert_eq!(since(), None);
}

fn a_day_passes(cmd: &Cmd, file: &str) {
    let record = cmd.sites().join(".haproxy-certs/last-run.json");
    let mut text: Value = serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
    let since = text["undeployed"][file].as_i64().unwrap();
    text["undeployed"][file] = (since - 86_401).into();
    fs::write(&record, text.to_string()).unwrap();
}

#[test]
fn a_node_that_cannot_deploy_for_more_than_a_day_says_so_by_its_status_too() {
    let mut fleet = Fleet::new(1);
    let stranger = fleet.tree.authority().issue(KeyKind::P256, &["a.example"], Validity::days(90));
    support::tree::write(&fleet.nodes[0].cmd.site("a.example"), stranger.combined(), 0o400);
    fleet.issue("a.example");
    fleet.publish();
    fleet.tell_nodes("");
    fleet.nodes[0].follow().exits(1);
    a_day_passes(&fleet.nodes[0].cmd, "a.example.pem");
    let late = fleet.nodes[0].follow().exits(2);
    assert!(late.stdout.contains("a.example.pem has not been deployed for more than a day"), "{late}");
}

/// More is refused than a file of one mebibyte tells of.
#[test]
fn a_long_record_of_a_run_is_read_again() {
    let mut tree = Tree::new();
    tree.issue("a.example", KeyKind::P256, &["a.example"], Validity::days(90));
    let cmd = Cmd::new(tree.live()).without_haproxy();
    cmd.assemble(&[]).exits(0);
    let record = cmd.sites().join(".haproxy-certs/last-run.json");
    let mut text: Value = serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
    let many: serde_json::Map<String, Value> = (0..20_000)
        .map(|number| (format!("refuse {number:0>60}.example.pem | key-mismatch"), 1.into()))
        .collect();
    text["complaints"] = many.into();
    fs::write(&record, text.to_string()).unwrap();
    let status = cmd.run(&["status", "--format", "json"]).exits(0).json();
    assert_eq!((&status["error"], &status["last_run"]["exit"]), (&Value::Null, &0.into()), "{status}");
}

/// The two lines of the example, as systemd would run them, with programs that only say what they get.
#[test]
fn the_failure_notice_says_what_failed_and_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    for (name, script) in [
        ("systemctl", "echo \"systemctl $*\"; exit 3"),
        ("haproxy-certs", "echo \"haproxy-certs $*\"; exit 1"),
        ("mail", "echo \"mail $*\"; cat"),
        ("curl", "echo \"curl $*\"; cat"),
    ] {
        support::tree::write(&folder.path().join(name), format!("#!/bin/sh\n{script}\n"), 0o755);
    }
    let lines: Vec<&str> =
        NOTICE.lines().filter_map(|line| line.split_once("ExecStart=").map(|it| it.1)).collect();
    assert_eq!(lines.len(), 2);
    for (line, sends) in
        lines.iter().zip(["mail -s x.service failed on ", "curl -fsS --max-time 30 --data-binary @- "])
    {
        let script = line.split('\'').nth(1).unwrap();
        assert!(line.starts_with("/bin/sh -c '") && line.ends_with("' sh %i"), "{line}");
        let output = std::process::Command::new("/bin/sh")
            .args(["-c", script, "sh", "x.service"])
            .env("PATH", format!("{}:/usr/bin:/bin", folder.path().display()))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.starts_with(sends), "{said}");
        assert!(
            said.contains("systemctl status --full --lines=20 x.service\nhaproxy-certs status\n"),
            "{said}"
        );
    }
}
