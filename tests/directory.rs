//! The sites directory: how it is made, who else may change it, and what a link or a stranger can't do there.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may fail loudly")]

mod contract;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use contract::{brief, differences, listing, mode_and_owner, nobody};
use support::tree::{make_directory, write};
use support::{Cmd, KeyKind, Run, Tree, Validity};

/// A lineage and a folder in which sites directories are tried.
struct Bed {
    tree: Tree,
    cmd: Cmd,
    folder: tempfile::TempDir,
}

impl Bed {
    fn new() -> Self {
        let mut tree = Tree::new();
        tree.issue("example.org", KeyKind::P256, &["example.org"], Validity::days(90));
        let cmd = Cmd::new(tree.live()).without_haproxy();
        Self { tree, cmd, folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    #[track_caller]
    fn assemble(&self, sites: &Path, arguments: &[&str]) -> Run {
        let mut all = vec!["--sites-dir", sites.to_str().unwrap()];
        all.extend(arguments);
        self.cmd.assemble(&all)
    }

    /// It is refused, in a dry run too, with a fact of this kind that holds the words, and nothing is written.
    #[track_caller]
    fn refused(&self, sites: &Path, kind: &str, words: &[&str]) {
        let before = listing(self.folder.path());
        for arguments in [&["--dry-run"][..], &[]] {
            let report = self.assemble(sites, arguments).exits(3);
            let error = &report.json()["error"];
            assert_eq!(error["kind"], kind, "{report}");
            for word in words {
                assert!(error["message"].as_str().unwrap().contains(word), "{word}: {report}");
            }
            assert!(report.stderr.is_empty(), "{report}");
        }
        assert_eq!(differences(&before, &listing(self.folder.path())), [""; 0], "nothing is written there");
    }
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn it_is_made_private_with_the_parents_that_are_missing() {
    let bed = Bed::new();
    let sites = bed.path("ssl/certs/sites");
    assert_eq!(brief(&bed.assemble(&sites, &[]).exits(0)), ["example.org.pem install"]);
    assert_eq!(mode_and_owner(&sites), (0o700, 0, 0));
    assert_eq!(mode_and_owner(&bed.path("ssl/certs")), (0o755, 0, 0));
    assert_eq!(mode_and_owner(&bed.path("ssl")), (0o755, 0, 0));
    // One that is there is left as it is.
    let open = bed.path("open");
    make_directory(&open, 0o755);
    bed.assemble(&open, &[]).exits(0);
    assert_eq!(mode_and_owner(&open), (0o755, 0, 0));
}

#[test]
fn one_that_anybody_may_write_to_is_refused_with_the_command_that_mends_it() {
    let bed = Bed::new();
    let sites = bed.path("sites");
    make_directory(&sites, 0o777);
    let command = format!("chmod o-w {}", sites.display());
    bed.refused(&sites, "permission", &["anybody may write", &command]);
    chmod(&sites, 0o1777);
    assert_eq!(
        brief(&bed.assemble(&sites, &[]).exits(0)),
        ["example.org.pem install"],
        "the sticky bit guards it"
    );

    let parent = bed.path("parent");
    make_directory(&parent, 0o755);
    make_directory(&parent.join("between/sites"), 0o700);
    chmod(&parent, 0o757);
    let command = format!("chmod o-w {}", parent.display());
    bed.refused(&parent.join("between/sites"), "permission", &[&command]);
    // Nor is one made there.
    bed.refused(&parent.join("new/sites"), "permission", &[&command]);
    chmod(&parent, 0o755);
    bed.assemble(&parent.join("between/sites"), &[]).exits(0);
}

#[test]
fn one_that_belongs_to_a_stranger_is_refused_with_the_command_that_mends_it() {
    let bed = Bed::new();
    let (uid, gid) = nobody();
    let sites = bed.path("sites");
    make_directory(&sites, 0o700);
    make_directory(&sites.join(".haproxy-certs"), 0o700);
    let chown = |path: &Path, uid| std::os::unix::fs::chown(path, Some(uid), Some(gid)).unwrap();
    chown(&sites, uid);
    chown(&sites.join(".haproxy-certs"), uid);
    let command = format!("chown root {}", sites.display());
    bed.refused(&sites, "permission", &[&uid.to_string(), &command]);
    let parent = bed.path("parent");
    make_directory(&parent.join("sites"), 0o700);
    chown(&parent, uid);
    bed.refused(&parent.join("sites"), "permission", &[&format!("chown root {}", parent.display())]);
    // The configured owner is no stranger.
    let Bed { tree, folder, .. } = bed;
    let cmd = Cmd::new(tree.live()).without_haproxy().option("owner = \"nobody\"");
    fs::remove_dir(sites.join(".haproxy-certs")).unwrap();
    let bed = Bed { tree, cmd, folder };
    bed.assemble(&sites, &[]).exits(0);
    bed.assemble(&parent.join("sites"), &[]).exits(0);
}

#[test]
fn a_group_that_may_write_is_a_note_only() {
    let bed = Bed::new();
    let staff = nix::unistd::Group::from_name("staff").unwrap().expect("Debian's group staff").gid.as_raw();
    // As Debian makes /usr/local: root:staff 2775.
    let parent = bed.path("local");
    make_directory(&parent.join("sites"), 0o700);
    std::os::unix::fs::chown(&parent, Some(0), Some(staff)).unwrap();
    chmod(&parent, 0o2775);
    let report = bed.assemble(&parent.join("sites"), &[]).exits(0);
    let notes = report.json()["notes"].to_string();
    assert!(notes.contains(&format!("chmod g-w {}", parent.display())), "{notes}");
    let sites = parent.join("sites");
    let human = |arguments: &[&str]| {
        let mut all = vec!["--sites-dir", sites.to_str().unwrap(), "assemble"];
        all.extend(arguments);
        bed.cmd.run(&all).exits(0)
    };
    for arguments in [&["-v"][..], &["--dry-run"]] {
        let said = human(arguments);
        assert!(said.stdout.contains("chmod g-w") && said.stderr.is_empty(), "{said}");
    }
    // Debian is made so: a healthy run doesn't go on about it.
    assert_eq!(human(&[]).stdout, format!("{}: 1 unchanged\n", sites.display()));
    chmod(&parent, 0o2755);
    assert_eq!(bed.assemble(&sites, &[]).exits(0).json()["notes"], serde_json::json!([]));
}

#[test]
fn a_link_to_it_is_resolved_once_and_its_real_place_is_judged() {
    let bed = Bed::new();
    let real = bed.path("real");
    make_directory(&real, 0o700);
    let link = bed.path("link");
    symlink(&real, &link).unwrap();
    assert_eq!(brief(&bed.assemble(&link, &[]).exits(0)), ["example.org.pem install"]);
    assert!(real.join("example.org.pem").is_file() && link.is_symlink());
    assert_eq!(brief(&bed.assemble(&real, &[]).exits(0)), ["example.org.pem unchanged"], "the same state");
    chmod(&real, 0o777);
    bed.refused(&link, "permission", &["anybody may write", &format!("chmod o-w {}", real.display())]);
    // A dangling link and a file are no directory.
    let dangling = bed.path("dangling");
    symlink(bed.path("nowhere"), &dangling).unwrap();
    assert_eq!(bed.assemble(&dangling, &[]).exits(3).json()["sites"], serde_json::json!([]));
    assert!(!bed.path("nowhere").exists());
    let file = bed.path("file");
    write(&file, "a file", 0o600);
    bed.refused(&file, "io", &["not a directory"]);
}

#[test]
fn links_in_the_place_of_our_own_directory_or_state_are_not_followed() {
    for what in
        [".haproxy-certs", ".haproxy-certs/stage", ".haproxy-certs/previous", ".haproxy-certs/state.json"]
    {
        let bed = Bed::new();
        let sites = bed.path("sites");
        make_directory(&sites, 0o700);
        bed.assemble(&sites, &[]).exits(0);
        fs::remove_file(sites.join("example.org.pem")).unwrap();
        let outside = bed.path("outside");
        fs::rename(sites.join(what), &outside).unwrap();
        symlink(&outside, sites.join(what)).unwrap();
        let before = listing(&outside);
        let report = bed.assemble(&sites, &[]).exits(3);
        assert!(report.json()["error"]["message"].as_str().unwrap().contains(what), "{report}");
        assert_eq!(before, listing(&outside), "{what}");
        assert!(!sites.join("example.org.pem").exists());
    }
}

#[test]
fn our_own_directory_and_state_must_be_ours() {
    let (uid, gid) = nobody();
    for what in [".haproxy-certs", ".haproxy-certs/stage", ".haproxy-certs/state.json"] {
        let bed = Bed::new();
        let sites = bed.path("sites");
        make_directory(&sites, 0o700);
        bed.assemble(&sites, &[]).exits(0);
        std::os::unix::fs::chown(sites.join(what), Some(uid), Some(gid)).unwrap();
        fs::remove_file(sites.join("example.org.pem")).unwrap();
        let report = bed.assemble(&sites, &[]).exits(3);
        assert_eq!(report.json()["error"]["kind"], "permission", "{report}");
        assert!(!sites.join("example.org.pem").exists());
    }
    // Too open is mended.
    let bed = Bed::new();
    let sites = bed.path("sites");
    bed.assemble(&sites, &[]).exits(0);
    chmod(&sites.join(".haproxy-certs"), 0o755);
    bed.assemble(&sites, &[]).exits(0);
    assert_eq!(mode_and_owner(&sites.join(".haproxy-certs")), (0o700, 0, 0));
}

/// Everything that is written is in the sites directory, whatever is done.
#[test]
fn nothing_is_written_outside_it() {
    let mut bed = Bed::new();
    let sites = bed.path("sites");
    bed.tree.issue("gone.example", KeyKind::P256, &["gone.example"], Validity::days(90));
    bed.assemble(&sites, &[]).exits(0);
    bed.tree.renew("example.org");
    bed.tree.delete("gone.example");
    bed.tree.issue("new.example", KeyKind::P256, &["new.example"], Validity::days(90));
    let (tree, folder) = (listing(bed.tree.root()), listing(bed.folder.path()));
    let report = bed.assemble(&sites, &[]).exits(0);
    assert_eq!(
        brief(&report),
        ["example.org.pem replace", "gone.example.pem prune", "new.example.pem install"]
    );
    assert_eq!(differences(&tree, &listing(bed.tree.root())), [""; 0]);
    for name in differences(&folder, &listing(bed.folder.path())) {
        assert!(name.starts_with("sites"), "{name}");
    }
}
