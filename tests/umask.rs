//! The umask of who starts it, as the units' 0077, decides nothing: what others are to read they can read, and what is
//! private stays private.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may fail loudly")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use support::cmd::toml;
use support::fleet::Fleet;
use support::process::finish;
use support::tree::make_directory;
use support::{Cmd, LIMIT};

/// None at all, a usual one, and the one of the units.
const UMASKS: [&str; 3] = ["000", "027", "077"];

/// Runs the program under this umask.
#[track_caller]
fn run(umask: &str, cmd: &Cmd, arguments: &[&str]) {
    let mut command = Command::new("sh");
    command.args(["-c", "umask \"$1\" && shift && exec \"$@\"", "sh", umask]).arg(Cmd::program());
    command.arg("--config").arg(cmd.config()).args(arguments);
    cmd.prepare(&mut command);
    let output = finish(&mut command, LIMIT);
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{umask}, {arguments:?}: {}", String::from_utf8_lossy(&said));
}

/// The permission bits at a path.
fn mode(path: &Path) -> u32 {
    path.symlink_metadata().unwrap_or_else(|e| panic!("{}: {e}", path.display())).permissions().mode()
        & 0o7777
}

/// The permission bits of all that is below this directory.
fn modes(folder: &Path) -> BTreeMap<String, u32> {
    let all = walkdir::WalkDir::new(folder).min_depth(1).into_iter().map(Result::unwrap);
    all.map(|entry| {
        let path = entry.path().strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
        (path, mode(entry.path()))
    })
    .collect()
}

#[test]
fn of_a_fleet_the_store_and_the_public_key_are_for_all_and_nothing_else_is() {
    for umask in UMASKS {
        let mut fleet = Fleet::new(1);
        fleet.issue("a.example");
        let keys = |cmd: &Cmd| cmd.beside("keys/identity");
        // Of a carrier's own folder its mode and its group stay.
        let report = fleet.folder().join("report");
        make_directory(&report, 0o2750);
        let table = fleet.table(&fleet.publisher, "");
        let table = table.replace(&toml(&fleet.publisher.beside("identity")), &toml(&keys(&fleet.publisher)));
        let node = &fleet.nodes[0];
        let table = format!("{table}[[fleet.node]]\nname = \"lb1\"\nkey = \"{}\"\n", node.key);
        fleet.publisher.set_tables(&table);
        run(umask, &fleet.publisher, &["fleet", "publish"]);
        let public = fs::read_to_string(fleet.publisher.beside("keys/identity.pub")).unwrap();
        let line = public.lines().next().unwrap().to_owned();
        fleet.tell_node(0, &[&line], "");
        let node = &fleet.nodes[0].cmd;
        fs::remove_dir(node.sites()).unwrap();
        run(umask, node, &["fleet", "follow", "--once"]);
        let (metrics, of_node) = (node.beside("fleet.prom"), node.beside("node.prom"));
        run(umask, node, &["fleet", "status", "--textfile", metrics.to_str().unwrap()]);
        run(umask, node, &["status", "--textfile", of_node.to_str().unwrap()]);
        fleet.must_all_be_as_wanted(umask);

        let store = modes(&fleet.folder());
        assert!(["page", "object", "key", "report/lb1", "head"].iter().all(|it| store.contains_key(*it)));
        for (path, mode) in store {
            let wanted = match fleet.folder().join(&path) {
                it if it == report => 0o2750,
                it if it.is_dir() => 0o755,
                _ => 0o644,
            };
            assert!(mode == wanted, "{umask}: {path} has {mode:o}");
        }
        let publisher = &fleet.publisher;
        let node = &fleet.nodes[0].cmd;
        for (path, wanted) in [
            (publisher.beside("keys"), 0o755),
            (publisher.beside("keys/identity"), 0o400),
            (publisher.beside("keys/identity.pub"), 0o644),
            (metrics, 0o644),
            (of_node, 0o644),
            (node.site("a.example"), 0o400),
        ] {
            let mode = mode(&path);
            assert!(mode == wanted, "{umask}: {} has {mode:o}", path.display());
        }
        let private = [publisher.beside("cache"), node.beside("cache"), node.sites()];
        for folder in private {
            for (path, mode) in modes(&folder).into_iter().chain([(String::new(), mode(&folder))]) {
                assert_eq!(mode & 0o077, 0, "{umask}: {}/{path} has {mode:o}", folder.display());
            }
        }
    }
}

#[test]
fn the_directories_that_init_makes_can_be_looked_into() {
    for umask in UMASKS {
        let tree = support::Tree::new();
        let cmd = Cmd::new(tree.live()).without_haproxy();
        let cmd = cmd.with_sites(tree.root().join("ssl/certs/sites"));
        let host = tree.root().join("tls/host/host.pem");
        let cmd = cmd.option(&format!("host_file = {}", toml(&host)));
        run(umask, &cmd, &["init", "--hook"]);
        for (path, wanted) in [
            ("ssl", 0o755),
            ("ssl/certs", 0o755),
            ("ssl/certs/sites", 0o700),
            ("ssl/certs/sites/.haproxy-certs", 0o700),
            ("tls", 0o755),
            ("tls/host", 0o755),
            ("tls/host/host.pem", 0o400),
            ("renewal-hooks", 0o755),
            ("renewal-hooks/post", 0o755),
        ] {
            let mode = mode(&tree.root().join(path));
            assert!(mode == wanted, "{umask}: {path} has {mode:o}");
        }
    }
}
