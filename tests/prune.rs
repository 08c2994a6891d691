//! Pruning: what is gone goes, and every guard that keeps a file from going.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may fail loudly")]

mod contract;
use std::fs;

use contract::{brief, differences, haproxy_objects_to, listing};
use support::tree::write;
use support::{Cmd, KeyKind, Kind, Tree, Validity};

/// A tree of so many lineages, all deployed.
fn deployed(number: usize) -> (Tree, Cmd) {
    let mut tree = Tree::new();
    for number in 0..number {
        tree.issue(&name(number), KeyKind::P256, &[&name(number)], Validity::days(90));
    }
    let cmd = Cmd::new(tree.live()).without_haproxy();
    cmd.assemble(&[]).exits(0);
    (tree, cmd)
}

fn name(number: usize) -> String {
    format!("{number:02}.example")
}

fn summary(run: &support::Run, action: &str) -> u64 {
    run.json()["summary"][action].as_u64().unwrap()
}

#[test]
fn a_deleted_lineage_is_pruned_and_reported_as_what_the_file_had() {
    let (mut tree, cmd) = deployed(2);
    let serial = tree.leaf(&name(1)).serial();
    tree.delete(&name(1));
    let report = cmd.assemble(&[]).exits(0);
    assert_eq!(brief(&report), ["00.example.pem unchanged", "01.example.pem prune"]);
    let row = report.site("01.example.pem");
    assert_eq!(row["lineage"], name(1));
    assert_eq!(row["serial"], serial);
    assert_eq!(row["names"], serde_json::json!([name(1)]));
    assert_eq!(cmd.deployed(), ["00.example.pem"]);
    assert_eq!(haproxy_objects_to(&cmd.sites()), None);
    assert_eq!(brief(&cmd.assemble(&[]).exits(0)), ["00.example.pem unchanged"]);
    // It comes back as a new one.
    tree.issue(&name(1), KeyKind::P256, &[&name(1)], Validity::days(90));
    assert_eq!(brief(&cmd.assemble(&[]).exits(0))[1], "01.example.pem install");
}

#[test]
fn neither_links_without_a_conf_nor_a_conf_without_links_are_gone() {
    let (tree, cmd) = deployed(4);
    fs::remove_file(tree.conf(&name(0))).unwrap();
    for kind in [Kind::Cert, Kind::Chain, Kind::Fullchain] {
        fs::remove_file(tree.link(&name(0), kind)).unwrap();
    }
    fs::remove_file(tree.conf(&name(1))).unwrap();
    for kind in [Kind::Cert, Kind::Chain, Kind::Privkey] {
        fs::remove_file(tree.link(&name(1), kind)).unwrap();
    }
    fs::remove_dir_all(tree.lineage(&name(2))).unwrap();
    fs::remove_dir_all(tree.archive(&name(2))).unwrap();
    let report = cmd.assemble(&["--prune-many"]).exits(1);
    assert_eq!(
        brief(&report),
        [
            "00.example.pem refuse certificate-missing",
            "01.example.pem refuse key-missing",
            "02.example.pem refuse certificate-missing",
            "03.example.pem unchanged"
        ]
    );
    assert_eq!(cmd.deployed().len(), 4);
}

#[test]
fn an_excluded_lineage_is_pruned_and_comes_back_when_it_is_included() {
    let (_tree, cmd) = deployed(3);
    let cmd = cmd.option("exclude = [\"02.*\", \"nothing*\"]");
    assert_eq!(brief(&cmd.assemble(&[]).exits(0))[2], "02.example.pem prune");
    let (_tree, cmd) = deployed(3);
    let cmd = cmd.option("include = [\"0[01].example\"]");
    assert_eq!(brief(&cmd.assemble(&[]).exits(0))[2], "02.example.pem prune");
    let (_tree, cmd) = deployed(3);
    let cmd = cmd.option("include = [\"0?.example\"]\nexclude = [\"*\"]");
    let report = cmd.assemble(&[]).exits(1);
    assert_eq!(summary(&report, "prune"), 2, "exclude beats include; the last one stays");
    assert_eq!(cmd.deployed().len(), 1);
}

#[test]
fn expiry_is_never_a_reason() {
    let mut tree = Tree::new();
    tree.issue("expired.example", KeyKind::P256, &["expired.example"], Validity::expired());
    let cmd = Cmd::new(tree.live()).without_haproxy();
    assert_eq!(brief(&cmd.assemble(&[]).exits(0)), ["expired.example.pem install [expired]"]);
    assert_eq!(brief(&cmd.assemble(&[]).exits(0)), ["expired.example.pem unchanged [expired]"]);
    assert_eq!(haproxy_objects_to(&cmd.sites()), None);
}

/// More than three *and* more than a quarter.
#[test]
fn many_at_once_are_held_and_none_of_them_goes() {
    for (all, gone, goes) in [(4, 3, true), (16, 4, true), (15, 4, false), (20, 5, true), (19, 5, false)] {
        let (mut tree, cmd) = deployed(all);
        for number in 0..gone {
            tree.delete(&name(number));
        }
        let before = listing(&cmd.sites());
        if goes {
            let report = cmd.assemble(&[]).exits(0);
            assert_eq!(summary(&report, "prune"), gone as u64, "{gone} of {all}");
            assert_eq!(cmd.deployed().len(), all - gone);
            continue;
        }
        for dry in [&["--dry-run", "--exit-code"][..], &[]] {
            let report = cmd.assemble(dry).exits(1);
            assert_eq!(summary(&report, "prune"), 0, "{gone} of {all}");
            assert_eq!(brief(&report)[0], "00.example.pem unchanged [prune-held]");
            assert!(report.site("00.example.pem")["detail"].as_str().unwrap().contains("--prune-many"));
            assert_eq!(
                report.site("00.example.pem")["serial"].as_str().map(str::len),
                Some(32),
                "as the file has it"
            );
        }
        assert_eq!(differences(&before, &listing(&cmd.sites())), contract::OF_AN_IDLE_RUN);
        let report = cmd.assemble(&["--prune-many"]).exits(0);
        assert_eq!(summary(&report, "prune"), gone as u64);
        assert_eq!(cmd.deployed().len(), all - gone);
        cmd.assemble(&["--dry-run", "--exit-code"]).exits(0);
    }
}

#[test]
fn no_prune_keeps_everything_without_complaint() {
    let (mut tree, cmd) = deployed(3);
    tree.delete(&name(1));
    assert_eq!(brief(&cmd.assemble(&["--no-prune"]).exits(0))[1], "01.example.pem unchanged");
    assert_eq!(cmd.deployed().len(), 3);
    // It is still ours afterwards.
    assert_eq!(brief(&cmd.assemble(&[]).exits(0))[1], "01.example.pem prune");
}

#[test]
fn the_last_loadable_file_stays() {
    let (mut tree, cmd) = deployed(2);
    tree.issue("broken.example", KeyKind::P256, &["broken.example"], Validity::days(90));
    tree.overwrite("broken.example", Kind::Privkey, "");
    for number in 0..2 {
        tree.delete(&name(number));
    }
    // Not loadable: HAProxy ignores the one and would choke on the other whatever else is there.
    write(&cmd.sites().join("x.pem.key"), "a sibling", 0o600);
    fs::create_dir(cmd.sites().join("folder.pem")).unwrap();
    let report = cmd.assemble(&[]).exits(1);
    assert_eq!(
        brief(&report),
        [
            "00.example.pem prune",
            "01.example.pem unchanged [prune-held]",
            "broken.example.pem refuse key-missing",
            "x.pem.key foreign"
        ]
    );
    assert_eq!(haproxy_objects_to(&cmd.sites()), None);
    assert_eq!(brief(&cmd.assemble(&["--prune-many"]).exits(1))[0], "01.example.pem unchanged [prune-held]");
    // As soon as there is another, it goes: ours or a foreign one.
    tree.issue("new.example", KeyKind::P256, &["new.example"], Validity::days(90));
    assert_eq!(brief(&cmd.assemble(&[]).exits(1))[0], "01.example.pem prune");
    assert_eq!(haproxy_objects_to(&cmd.sites()), None);
}

#[test]
fn a_foreign_file_that_haproxy_loads_lets_the_last_of_ours_go() {
    let (mut tree, cmd) = deployed(1);
    // Another lineage that is excluded, so that certbot's tree isn't empty.
    tree.issue("other.example", KeyKind::P256, &["other.example"], Validity::days(90));
    let cmd = cmd.option("exclude = [\"*\"]");
    assert_eq!(brief(&cmd.assemble(&[]).exits(1)), ["00.example.pem unchanged [prune-held]"]);
    let foreign = tree.authority().issue(KeyKind::P256, &["foreign.example"], Validity::days(90));
    write(&cmd.sites().join(".hidden.pem"), foreign.combined(), 0o400);
    write(&cmd.sites().join("foreign.pem.ocsp"), foreign.combined(), 0o400);
    write(&cmd.sites().join("only-a-certificate.txt"), foreign.fullchain(), 0o400);
    let report = cmd.assemble(&[]).exits(1);
    assert_eq!(brief(&report)[1], "00.example.pem unchanged [prune-held]", "none of these is loaded");
    fs::remove_file(cmd.sites().join("only-a-certificate.txt")).unwrap();
    write(&cmd.sites().join("foreign"), foreign.combined(), 0o400);
    let report = cmd.assemble(&[]).exits(0);
    assert_eq!(
        brief(&report),
        [
            ".hidden.pem foreign",
            "00.example.pem prune",
            "foreign foreign [default-certificate-changed]",
            "foreign.pem.ocsp foreign"
        ]
    );
    fs::remove_file(cmd.sites().join("foreign.pem.ocsp")).unwrap();
    assert_eq!(haproxy_objects_to(&cmd.sites()), None);
}

#[test]
fn files_from_another_live_directory_are_kept() {
    let (_tree, cmd) = deployed(2);
    let mut other = Tree::new();
    other.issue("new.example", KeyKind::P256, &["new.example"], Validity::days(90));
    let report = cmd.assemble(&["--live-dir", other.live().to_str().unwrap(), "--prune-many"]).exits(1);
    assert_eq!(
        brief(&report),
        [
            "00.example.pem unchanged [prune-held]",
            "01.example.pem unchanged [prune-held]",
            "new.example.pem install"
        ]
    );
    assert!(report.site("00.example.pem")["detail"].as_str().unwrap().contains("another live directory"));
    // Back again: the other tree's file is held in its turn, and what was ours before still is.
    let report = cmd.assemble(&[]).exits(1);
    assert_eq!(
        brief(&report),
        ["00.example.pem unchanged", "01.example.pem unchanged", "new.example.pem unchanged [prune-held]"]
    );
}

#[test]
fn a_link_to_the_live_directory_is_the_same_one() {
    let (mut tree, cmd) = deployed(3);
    let link = cmd.beside("live");
    std::os::unix::fs::symlink(tree.live(), &link).unwrap();
    tree.delete("02.example");
    let by_link = ["--live-dir", link.to_str().unwrap()];
    assert_eq!(
        brief(&cmd.assemble(&by_link).exits(0)),
        ["00.example.pem unchanged", "01.example.pem unchanged", "02.example.pem prune"]
    );
    tree.delete("01.example");
    assert_eq!(brief(&cmd.assemble(&[]).exits(0)), ["00.example.pem unchanged", "01.example.pem prune"]);
}

#[test]
fn a_file_that_is_not_as_it_was_written_is_pruned_only_if_it_is_damaged_or_the_lineages() {
    let (mut tree, cmd) = deployed(6);
    let stranger = tree.authority().issue(KeyKind::P256, &["stranger.example"], Validity::days(90));
    // 1: of the lineage, with the conf gone but the archive left; 2: damaged; 3: somebody else's now; 4: a directory
    let text = fs::read_to_string(cmd.site(&name(1))).unwrap();
    fs::write(cmd.site(&name(1)), format!("# a remark\n{text}")).unwrap();
    fs::write(cmd.site(&name(2)), "").unwrap();
    fs::write(cmd.site(&name(3)), stranger.combined()).unwrap();
    fs::remove_file(cmd.site(&name(4))).unwrap();
    fs::create_dir(cmd.site(&name(4))).unwrap();
    tree.delete_stopped_before(8, &name(1));
    for number in 2..=4 {
        tree.delete(&name(number));
    }
    let report = cmd.assemble(&[]).exits(0);
    assert_eq!(
        brief(&report),
        [
            "00.example.pem unchanged",
            "01.example.pem prune",
            "02.example.pem prune",
            "03.example.pem foreign",
            "05.example.pem unchanged"
        ]
    );
    assert!(cmd.site(&name(4)).is_dir());
    assert_eq!(fs::read_to_string(cmd.site(&name(3))).unwrap(), stranger.combined());
    assert_eq!(haproxy_objects_to(&cmd.sites()), None);
}

#[test]
fn a_link_is_never_followed_when_its_target_would_be_pruned() {
    let (mut tree, cmd) = deployed(2);
    let outside = cmd.beside("outside.pem");
    fs::rename(cmd.site(&name(1)), &outside).unwrap();
    std::os::unix::fs::symlink(&outside, cmd.site(&name(1))).unwrap();
    tree.delete(&name(1));
    assert_eq!(brief(&cmd.assemble(&[]).exits(0))[1], "01.example.pem foreign");
    assert!(outside.exists() && cmd.site(&name(1)).is_symlink());
}

#[test]
fn siblings_of_a_pruned_file_are_not_ours_and_stay() {
    let (mut tree, cmd) = deployed(2);
    let sibling = cmd.sites().join(format!("{}.pem.ocsp", name(1)));
    write(&sibling, "somebody's", 0o600);
    tree.delete(&name(1));
    let report = cmd.assemble(&[]).exits(0);
    assert_eq!(brief(&report)[1..], ["01.example.pem prune [sibling-files]", "01.example.pem.ocsp foreign"]);
    assert!(sibling.exists());
}
