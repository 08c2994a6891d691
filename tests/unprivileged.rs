//! A HAProxy that its unit starts as another user than root: what it can read stays readable to it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may fail loudly")]

use std::fs::{Permissions, metadata, set_permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;
use std::process::Command;

use support::{Cmd, Haproxy, KeyKind, Run, Tree, Validity, Version, served, versions};

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

/// A directory's owner, group and permission bits.
fn is(folder: &Path) -> (u32, u32, u32) {
    let meta = metadata(folder).unwrap();
    (meta.uid(), meta.gid(), meta.mode() & 0o777)
}

/// A site, deployed where a HAProxy of this version that runs as nobody loads it, and what it is served with.
fn running(version: &Version, options: &str) -> (Tree, Cmd, Haproxy) {
    let mut tree = Tree::new();
    tree.issue("a.example", KeyKind::P256, &["a.example"], Validity::days(90));
    let cmd = options.lines().fold(Cmd::new(tree.live()), Cmd::option);
    let sites = cmd.beside("top").join("sites");
    let cmd = cmd.with_sites(sites);
    cmd.run(&["assemble", "--reload", "none"]).exits(0);
    set_permissions(cmd.beside(""), Permissions::from_mode(0o755)).unwrap();
    let haproxy = Haproxy::of(version).crt(cmd.sites()).user(NOBODY).start();
    let cmd = cmd.haproxy(&haproxy, "");
    cmd.assemble(&[]).exits(0);
    cmd.run(&["status"]).exits(0);
    (tree, cmd, haproxy)
}

/// What a message tells to run, run.
#[track_caller]
fn follow(message: &str) -> String {
    let command = message.split_once("run: ").unwrap_or_else(|| panic!("{message}")).1;
    let done = Command::new("sh").args(["-c", command]).status().unwrap();
    assert!(done.success(), "{command}");
    command.to_owned()
}

/// The only alarm of a run that goes on with what it can, and the critical problem, which say the same.
#[track_caller]
fn shut_out(cmd: &Cmd) -> String {
    let run = cmd.assemble(&[]).exits(1).json();
    let notes = run["notes"].as_array().unwrap();
    assert_eq!(notes.len(), 1, "{run}");
    let status = cmd.run(&["status", "--setup", "--format", "json"]).json();
    let of = |kind: &str| {
        let problems = status["problems"].as_array().unwrap();
        problems.iter().find(|it| it["problem"] == kind).unwrap_or_else(|| panic!("{kind}: {status}"))
    };
    let found = of("settings-broken");
    assert_eq!(found["severity"], "critical", "{found}");
    // HAProxy itself says so, too.
    assert_eq!(of("haproxy-config")["advice"], found["advice"], "{status}");
    let (fact, advice) = (found["fact"].as_str().unwrap(), found["advice"].as_str().unwrap());
    assert_eq!(notes[0], format!("{fact}: {advice}"), "{run}");
    notes[0].as_str().unwrap().to_owned()
}

/// It is all in step, also for a HAProxy that starts again.
#[track_caller]
fn starts_again(cmd: &Cmd, haproxy: &mut Haproxy) {
    cmd.assemble(&[]).exits(0);
    haproxy.run_again();
    cmd.run(&["status"]).exits(0);
}

#[test]
fn a_directory_that_haproxy_cannot_list_or_reach_is_critical_and_opened_by_the_advice() {
    for version in versions() {
        let (mut tree, cmd, mut haproxy) = running(&version, "owner = \"nobody\"");
        let (sites, top) = (cmd.sites(), cmd.beside("top"));
        assert_eq!(is(&sites), (NOBODY, NOBODY, 0o711));
        for (folder, deed, mode) in
            [(&sites, "list", 0o700), (&sites, "list", 0o711), (&top, "search", 0o700)]
        {
            chown(folder, Some(0), Some(0)).unwrap();
            set_permissions(folder, Permissions::from_mode(mode)).unwrap();
            // Who has it in memory is given the renewal; what needs a reload waits.
            let renewed = tree.renew("a.example").serial();
            tree.issue("b.example", KeyKind::P256, &["b.example"], Validity::days(90));
            let said = shut_out(&cmd);
            assert!(said.contains(&format!("can't {deed} the directory {}:", folder.display())), "{said}");
            assert_eq!(served(haproxy.address(), "a.example").serial, renewed, "{}", version.full);
            assert!(!cmd.site("b.example").exists(), "{}", version.full);
            follow(&said);
            // Nobody else but its group is let in.
            assert_eq!(is(folder).2 & 0o007, mode & 0o007, "{said}");
            starts_again(&cmd, &mut haproxy);
            assert!(cmd.site("b.example").exists(), "{}", version.full);
            tree.delete("b.example");
            cmd.assemble(&[]).exits(0);
        }
        // Another group has a meaning of its own there.
        chown(&sites, Some(0), Some(1)).unwrap();
        set_permissions(&sites, Permissions::from_mode(0o750)).unwrap();
        follow(&shut_out(&cmd));
        assert_eq!(is(&sites), (0, 1, 0o755));
        starts_again(&cmd, &mut haproxy);
    }
}

/// HAProxy's user owns the directory, and the settings name another owner: giving it to root doesn't shut HAProxy out.
#[test]
fn a_directory_that_is_given_to_root_stays_open_to_haproxy() {
    let version = support::system_haproxy();
    for (group, command) in [(NOBODY, "chmod g+rx"), (0, "chgrp nogroup")] {
        for settings in
            ["owner = \"root:nogroup\"\nmode = \"0440\"", "owner = \"root:65534\"\nmode = \"0640\""]
        {
            let (tree, cmd, mut haproxy) = running(&version, "owner = \"nobody\"");
            chown(cmd.sites(), Some(NOBODY), Some(group)).unwrap();
            let renamed = settings.lines().fold(Cmd::new(tree.live()).with_sites(cmd.sites()), Cmd::option);
            let cmd = renamed.haproxy(&haproxy, "");
            let said = cmd.assemble(&[]).exits(3).json()["error"]["message"].as_str().unwrap().to_owned();
            assert!(follow(&said).contains(command), "{said}");
            starts_again(&cmd, &mut haproxy);
            assert_eq!(metadata(cmd.site("a.example")).unwrap().uid(), 0);
        }
    }
    // Files that only root could read aren't put there; those that are there are still found.
    let (tree, cmd, mut haproxy) = running(&version, "owner = \"nobody\"");
    let cmd = Cmd::new(tree.live()).with_sites(cmd.sites()).haproxy(&haproxy, "");
    follow(cmd.assemble(&[]).exits(3).json()["error"]["message"].as_str().unwrap());
    is_refused(&cmd.run(&["assemble", "--format", "json"]).exits(1));
    haproxy.run_again();
}

#[test]
fn who_reads_the_files_in_their_group_lists_the_directory_that_is_made() {
    for (settings, expected) in [
        ("owner = \"root:nogroup\"\nmode = \"0440\"", (0, NOBODY, 0o750)),
        ("owner = \"root:65534\"\nmode = \"0640\"", (0, NOBODY, 0o750)),
        ("owner = \"root:nogroup\"\nmode = \"0400\"", (0, NOBODY, 0o700)),
        ("owner = \"99:nogroup\"\nmode = \"0440\"", (99, NOBODY, 0o751)),
        ("owner = \"99:99\"", (99, 99, 0o711)),
    ] {
        let mut tree = Tree::new();
        tree.issue("a.example", KeyKind::P256, &["a.example"], Validity::days(90));
        let cmd = settings.lines().fold(Cmd::new(tree.live()).without_haproxy(), Cmd::option);
        cmd.run(&["init"]);
        assert_eq!(is(&cmd.sites()), expected, "{settings}");
        std::fs::remove_dir_all(cmd.sites()).unwrap();
        cmd.assemble(&[]).exits(0);
        assert_eq!(is(&cmd.sites()), expected, "{settings}");
        // A run that was killed over making it left it empty, and still its own.
        for owner in [0, expected.0] {
            std::fs::remove_dir_all(cmd.sites()).unwrap();
            support::tree::make_directory(&cmd.sites(), 0o700);
            chown(cmd.sites(), Some(owner), Some(0)).unwrap();
            cmd.assemble(&[]).exits(0);
            let is_finished = owner == 0 && (expected.0 != 0 || expected.2 & 0o050 != 0);
            assert_eq!(
                is(&cmd.sites()),
                if is_finished { expected } else { (owner, 0, 0o700) },
                "{settings}"
            );
        }
    }
    for version in versions() {
        let (_tree, cmd, mut haproxy) = running(&version, "owner = \"root:nogroup\"\nmode = \"0440\"");
        starts_again(&cmd, &mut haproxy);
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
