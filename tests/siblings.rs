//! What HAProxy loads beside a certificate, refuses by name, or can't be asked for: it lives on, answers as one that is
//! started from the same files, and what can't be told in memory is left to a reload.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may fail loudly")]

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use serde_json::Value;
use support::haproxy::Setup;
use support::live::demanding_openssl;
use support::scene::put;
use support::{
    Cmd, Haproxy, KeyKind, LIMIT, Run, Tree, Validity, Version, served, versions, wait_until,
    wait_until_it_is_older,
};

/// certbot's tree, deployed, and a HAProxy that serves it.
struct Scene {
    tree: Tree,
    cmd: Cmd,
    haproxy: Haproxy,
}

const AUTO: &str = "binary = \"\"";
const RUNTIME: &str = "binary = \"\"\nreload = \"runtime\"";

impl Scene {
    fn start(
        version: &Version,
        sites: &[(&str, &[&str])],
        table: &str,
        prepare: impl FnOnce(&Tree, &Cmd),
        setup: impl FnOnce(Setup, &Path) -> Setup,
    ) -> Self {
        let tree = Tree::of(sites);
        let cmd = Cmd::new(tree.live()).without_haproxy();
        cmd.assemble(&[]);
        prepare(&tree, &cmd);
        let folder = cmd.sites().parent().unwrap().to_owned();
        let haproxy = setup(Haproxy::of(version), &folder).start();
        let cmd = cmd.with_tables(&haproxy.table(&format!("unit = \"no-such-unit.service\"\n{table}")));
        // Who put the files there isn't known to this table's HAProxy.
        cmd.assemble(&[]);
        Self { tree, cmd, haproxy }
    }

    fn beside(&self, lineage: &str, ending: &str) -> PathBuf {
        beside(&self.cmd, lineage, ending)
    }

    #[track_caller]
    fn run(&self) -> (Run, Value) {
        let run = self.cmd.assemble(&[]);
        let row = run.haproxy();
        (run, row)
    }

    /// One run that says that HAProxy has everything; by which method.
    #[track_caller]
    fn deploys(&self, context: &str) -> String {
        let (run, row) = self.run();
        assert!(matches!(run.code, Some(0 | 1)), "{context}, {}: {run}", self.haproxy.version().full);
        assert_eq!((&row["confirmed"], &row["owed"]), (&true.into(), &false.into()), "{context}: {run}");
        self.lives(context);
        row["method"].as_str().unwrap().to_owned()
    }

    /// One run that leaves something to a reload: what it says.
    #[track_caller]
    fn leaves(&self, context: &str) -> String {
        let (run, row) = self.run();
        assert_eq!((run.code, &row["owed"]), (Some(2), &true.into()), "{context}: {run}");
        assert_ne!(row["confirmed"], Value::Bool(true), "{context}: {run}");
        self.lives(context);
        row["detail"].as_str().unwrap().to_owned()
    }

    /// It answers still, and as a fresh one does where it is told everything.
    #[track_caller]
    fn lives(&self, context: &str) {
        let shown = self.haproxy.runtime("show ssl cert");
        assert!(shown.contains("# filename"), "{context}, {}: {shown}", self.haproxy.version().full);
    }

    #[track_caller]
    fn serves(&self, lineage: &str, name: &str, context: &str) {
        wait_until(LIMIT, "the old workers' end", || {
            self.haproxy.processes().is_none_or(|shown| shown.old_workers.is_empty())
        });
        let shown = served(self.haproxy.address(), name);
        let version = &self.haproxy.version().full;
        assert_eq!(shown, self.tree.leaf(lineage).served(), "{context}, {version}");
    }
}

fn beside(cmd: &Cmd, lineage: &str, ending: &str) -> PathBuf {
    let mut path = cmd.site(lineage).into_os_string();
    path.push(ending);
    path.into()
}

/// A list of one signed certificate timestamp, as far as HAProxy looks.
fn sctl() -> Vec<u8> {
    let mut list = vec![0, 49, 0, 47];
    list.resize(51, 0);
    list
}

/// Whether a client that asks for certificate timestamps is given some.
fn shows_scts(address: SocketAddr, name: &str) -> bool {
    let output = Command::new("openssl")
        .args(["s_client", "-tls1_2", "-serverinfo", "18", "-servername", name, "-connect"])
        .arg(address.to_string())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).contains("BEGIN SERVERINFO")
}

/// Whether a client gets a certificate with this version of TLS, an option of `openssl s_client`.
fn speaks(address: SocketAddr, name: &str, option: &str) -> bool {
    let output = Command::new("openssl")
        .args(["s_client", option, "-servername", name, "-connect"])
        .arg(address.to_string())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).contains("BEGIN CERTIFICATE")
}

/// Whether status says what HAProxy has of a file.
#[track_caller]
fn is_seen(scene: &Scene, file: &str) -> bool {
    let run = scene.cmd.run(&["status", "--format", "json"]);
    scene.lives(file);
    let shown = run.site(file)["haproxy"][0].clone();
    assert_eq!(shown["serial"].is_null(), shown["seen_by"].is_null(), "{run}");
    shown["serial"].is_string()
}

fn with_each(test: fn(&Version)) {
    thread::scope(|scope| {
        for version in versions() {
            scope.spawn(move || test(&version));
        }
    });
}

fn sites(setup: Setup, folder: &Path) -> Setup {
    setup.crt(folder.join("sites"))
}

const TWO: &[(&str, &[&str])] = &[("a", &["a.test"]), ("b", &["b.test"])];

#[test]
fn scts_are_loaded_again_and_end_no_haproxy() {
    with_each(|version| {
        let with_scts = |_: &Tree, cmd: &Cmd| fs::write(beside(cmd, "a", ".sctl"), sctl()).unwrap();
        let mut scene = Scene::start(version, TWO, AUTO, with_scts, sites);
        assert!(shows_scts(scene.haproxy.address(), "a.test"), "{}", version.full);
        for round in ["once", "twice"] {
            scene.tree.renew("a");
            assert_ne!(scene.deploys(round), "runtime", "{}", version.full);
            scene.serves("a", "a.test", round);
            assert!(shows_scts(scene.haproxy.address(), "a.test"), "{round}, {}", version.full);
        }
        // What has none beside it is told in memory.
        scene.tree.renew("b");
        assert_eq!(scene.deploys("another"), "runtime");
        scene.serves("b", "b.test", "another");

        // It is off the disk, and HAProxy may have it still.
        fs::remove_file(scene.beside("a", ".sctl")).unwrap();
        scene.tree.renew("a");
        let by = scene.deploys("removed meanwhile");
        assert_ne!(by, "runtime", "{}", version.full);
        scene.serves("a", "a.test", "removed meanwhile");
    });
}

#[test]
fn scts_that_came_were_loaded_and_went_between_two_runs_end_no_haproxy() {
    with_each(|version| {
        let mut scene = Scene::start(version, TWO, AUTO, |_, _| {}, sites);
        scene.tree.renew("a");
        assert_eq!(scene.deploys("nothing was ever there"), "runtime", "{}", version.full);
        fs::write(scene.beside("a", ".sctl"), sctl()).unwrap();
        scene.haproxy.run_again();
        assert!(shows_scts(scene.haproxy.address(), "a.test"), "{}", version.full);
        fs::remove_file(scene.beside("a", ".sctl")).unwrap();
        scene.tree.renew("a");
        assert_ne!(scene.deploys("it was there"), "runtime", "{}", version.full);
        scene.serves("a", "a.test", "it was there");
        scene.tree.renew("a");
        assert_eq!(scene.deploys("loaded without it"), "runtime", "{}", version.full);
        scene.serves("a", "a.test", "loaded without it");
    });
}

/// Where a line names them: `crt-store` and the brackets of a crt-list, since 3.0.
/// What came or went beside a file is HAProxy's after a start: another one's renewal doesn't hide that.
#[test]
fn what_came_or_went_beside_one_is_loaded_with_the_next_renewal_of_another() {
    with_each(|version| {
        let with = |_: &Tree, cmd: &Cmd| {
            let other = cmd.beside("other");
            fs::create_dir(&other).unwrap();
            fs::copy(cmd.site("a"), other.join("o.pem")).unwrap();
        };
        let setup =
            |setup: Setup, folder: &Path| sites(setup, folder).another_bind().crt(folder.join("other"));
        let mut scene = Scene::start(version, TWO, AUTO, with, setup);
        let elsewhere = scene.cmd.beside("other/o.pem.sctl");
        let addresses = scene.haproxy.addresses();
        for (path, address) in [(scene.beside("a", ".sctl"), addresses[0]), (elsewhere, addresses[1])] {
            for is_there in [true, false] {
                let context = format!("{}, {} {is_there}", version.full, path.display());
                if !is_there && address == addresses[1] {
                    // Nobody remembers what was in other directories than ours.
                    continue;
                }
                if is_there {
                    fs::write(&path, sctl()).unwrap();
                } else {
                    fs::remove_file(&path).unwrap();
                }
                scene.tree.renew("b");
                assert_ne!(scene.deploys(&context), "runtime", "{context}");
                scene.serves("b", "b.test", &context);
                assert_eq!(shows_scts(address, "a.test"), is_there, "{context}");
                // Once no reload is in flight any more.
                wait_until(LIMIT, "an update in memory", || {
                    scene.tree.renew("b");
                    scene.deploys(&context) == "runtime"
                });
            }
        }
    });
}

/// The same for an OCSP response's issuer, which nothing shows.
#[test]
fn an_issuer_that_came_was_loaded_and_went_is_no_longer_in_memory() {
    with_each(|version| {
        let mut scene = Scene::start(version, TWO, AUTO, |_, _| {}, sites);
        let issuer = scene.tree.authority().intermediate().to_owned();
        fs::write(scene.beside("a", ".issuer"), &issuer).unwrap();
        scene.haproxy.reload_and_wait();
        fs::remove_file(scene.beside("a", ".issuer")).unwrap();
        scene.tree.renew("b");
        assert_ne!(scene.deploys("went"), "runtime", "{}", version.full);
        scene.serves("b", "b.test", "went");
        wait_until(LIMIT, "an update in memory", || {
            scene.tree.renew("b");
            scene.deploys("stays away") == "runtime"
        });
    });
}

#[test]
fn scts_that_a_line_names_are_loaded_again_and_end_no_haproxy() {
    with_each(|version| {
        if version.number() < (3, 0) {
            return;
        }
        for named in ["store", "list"] {
            let with_scts = |_: &Tree, cmd: &Cmd| {
                fs::write(cmd.beside("a.sctl"), sctl()).unwrap();
                let (a, b) = (cmd.site("a"), cmd.site("b"));
                let scts = cmd.beside("a.sctl");
                let list = format!("{} [sctl {}]\n{}\n", a.display(), scts.display(), b.display());
                fs::write(cmd.beside("list"), list).unwrap();
            };
            let setup = |setup: Setup, folder: &Path| {
                let (site, scts) = (folder.join("sites/a.pem"), folder.join("a.sctl"));
                let load =
                    format!("crt-store\n  load crt {} sctl {}\nglobal", site.display(), scts.display());
                match named {
                    "store" => sites(setup.global(&load), folder),
                    _ => setup.bind_option(&format!("crt-list {}", folder.join("list").display())),
                }
            };
            let mut scene = Scene::start(version, TWO, AUTO, with_scts, setup);
            for round in ["once", "twice", "again"] {
                scene.tree.renew("a");
                let by = scene.deploys(&format!("{named}, {round}"));
                assert_ne!(by, "runtime", "{named}, {}", version.full);
                scene.serves("a", "a.test", round);
                assert!(shows_scts(scene.haproxy.address(), "a.test"), "{named}, {}", version.full);
            }
            scene.tree.renew("b");
            assert_eq!(scene.deploys("another"), "runtime", "{named}, {}", version.full);
            scene.serves("b", "b.test", "another");
        }
    });
}

#[test]
fn what_needs_a_reload_for_what_is_beside_it_waits_for_one() {
    with_each(|version| {
        for ending in [".sctl", ".issuer"] {
            let with = |tree: &Tree, cmd: &Cmd| {
                let issuer = tree.authority().intermediate().as_bytes().to_vec();
                let contents = if ending == ".sctl" { sctl() } else { issuer };
                fs::write(beside(cmd, "a", ending), contents).unwrap();
            };
            let mut scene = Scene::start(version, TWO, RUNTIME, with, sites);
            let before = scene.tree.leaf("a").served();
            scene.tree.renew("a");
            scene.tree.renew("b");
            for round in ["once", "twice"] {
                let said = scene.leaves(round);
                assert!(said.contains(&format!("a.pem{ending}")), "{said}");
                assert_eq!(served(scene.haproxy.address(), "a.test"), before, "{}", version.full);
                scene.serves("b", "b.test", round);
            }
            if ending == ".sctl" {
                fs::remove_file(scene.beside("a", ending)).unwrap();
                let said = scene.leaves("removed meanwhile");
                assert!(said.contains("may have loaded a .sctl"), "{said}");
            }
            scene.haproxy.run_again();
            let (run, row) = scene.run();
            assert_eq!((run.code.unwrap() < 2, &row["owed"]), (true, &false.into()), "{run}");
            scene.serves("a", "a.test", "started again");
        }
    });
}

#[test]
fn a_loser_with_something_beside_it_is_not_committed_again() {
    with_each(|version| {
        let other = |tree: &Tree, cmd: &Cmd| {
            let folder = cmd.beside("other");
            fs::create_dir(&folder).unwrap();
            let leaf = tree.authority().issue(KeyKind::P256, &["a.test", "o.test"], Validity::days(90));
            put(&folder.join("o.pem"), leaf.combined(), 0o400);
            fs::write(folder.join("o.pem.sctl"), sctl()).unwrap();
        };
        let setup = |setup: Setup, folder: &Path| sites(setup, folder).crt(folder.join("other"));
        let mut scene = Scene::start(version, TWO, RUNTIME, other, setup);
        scene.tree.renew("a");
        let said = scene.leaves("a loser with SCTs");
        assert!(said.contains("o.pem.sctl"), "{said}");
        assert!(shows_scts(scene.haproxy.address(), "o.test"), "{}", version.full);
        fs::remove_file(scene.cmd.beside("other").join("o.pem.sctl")).unwrap();
        let said = scene.leaves("off the disk");
        assert!(said.contains("may have loaded a .sctl"), "{said}");
    });
}

#[test]
fn one_after_the_other_is_told_in_memory_where_nothing_is_beside_them() {
    with_each(|version| {
        let mut scene = Scene::start(version, TWO, RUNTIME, |_, _| {}, sites);
        for name in ["a", "b", "a", "b"] {
            scene.tree.renew(name);
            assert_eq!(scene.deploys(name), "runtime", "{}", version.full);
            scene.serves(name, &format!("{name}.test"), "in a row");
        }
    });
}

// --- Refusals -------------------------------------------------------------------------------------------------------

/// A HAProxy whose OpenSSL refuses RSA keys of 2048 bits; nobody asks it beforehand.
fn strict(version: &Version, lineages: &[(&str, &[&str])], table: &str, folder: &Path) -> Scene {
    let level = demanding_openssl(folder);
    Scene::start(
        version,
        lineages,
        table,
        |_, _| {},
        |setup, at| sites(setup, at).env("OPENSSL_CONF", &level),
    )
}

#[test]
fn a_new_file_that_haproxy_refuses_in_memory_goes_back() {
    with_each(|version| {
        for table in [AUTO, RUNTIME] {
            let folder = tempfile::tempdir().unwrap();
            let mut scene = strict(version, TWO, table, folder.path());
            let weak = scene.tree.authority().issue(KeyKind::Rsa2048, &["n.test"], Validity::days(90));
            scene.tree.issue_leaf("n", &weak);
            scene.tree.renew("b");
            let (run, _) = scene.run();
            let context = format!("{}, {table}: {run}", version.full);
            assert_eq!(run.code, Some(2), "{context}");
            assert_eq!(run.reason("n.pem").as_deref(), Some("haproxy-rejects"), "{context}");
            assert_eq!(scene.cmd.deployed(), ["a.pem", "b.pem"], "{context}");
            scene.lives(&context);
            scene.serves("b", "b.test", &context);
        }
    });
}

#[test]
fn a_refusal_in_a_batch_that_needs_a_reload_goes_back() {
    with_each(|version| {
        let folder = tempfile::tempdir().unwrap();
        let three: &[(&str, &[&str])] = &[("a", &["a.test"]), ("b", &["b.test"]), ("g", &["g.test"])];
        let mut scene = strict(version, three, RUNTIME, folder.path());
        let old = fs::read(scene.cmd.site("b")).unwrap();
        let weak = scene.tree.authority().issue(KeyKind::Rsa2048, &["b.test"], Validity::days(90));
        scene.tree.renew_with("b", &weak);
        scene.tree.renew("a");
        scene.tree.delete("g");
        let (run, row) = scene.run();
        let context = format!("{}: {run}", version.full);
        assert_eq!((run.code, &row["owed"]), (Some(2), &true.into()), "{context}");
        assert_eq!(run.reason("b.pem").as_deref(), Some("haproxy-rejects"), "{context}");
        assert_eq!(fs::read(scene.cmd.site("b")).unwrap(), old, "{context}");
        scene.lives(&context);
        scene.serves("a", "a.test", &context);
    });
}

// --- Losers ---------------------------------------------------------------------------------------------------------

#[test]
fn a_winner_and_a_loser_are_told_before_a_third_one() {
    with_each(|version| {
        let shared: &[(&str, &[&str])] =
            &[("a", &["a.test", "sh.test"]), ("b", &["b.test", "sh.test"]), ("d", &["d.test", "sh.test"])];
        for renewed in [&["a", "b"][..], &["a", "d"], &["b"], &["a", "b", "d"]] {
            let mut scene = Scene::start(version, shared, RUNTIME, |_, _| {}, sites);
            for name in renewed {
                scene.tree.renew(name);
            }
            assert_eq!(scene.deploys("shared"), "runtime");
            scene.serves("a", "sh.test", "the winner");
            for name in ["a", "b", "d"] {
                scene.serves(name, &format!("{name}.test"), "each");
            }
        }
    });
}

// --- What isn't loaded at all, and what isn't asked for ----------------------------------------------------------------

#[test]
fn a_file_that_no_list_names_is_not_waited_for() {
    with_each(|version| {
        let setup = |setup: Setup, folder: &Path| {
            let list = folder.join("list");
            fs::write(&list, format!("{}/sites/a.pem\n", folder.display())).unwrap();
            let host = folder.join("first.pem");
            fs::copy(folder.join("sites/b.pem"), &host).unwrap();
            setup.crt(host).bind_option(&format!("crt-list {}", list.display()))
        };
        let mut scene = Scene::start(version, TWO, AUTO, |_, _| {}, setup);
        scene.tree.issue("n", KeyKind::P256, &["n.test"], Validity::days(90));
        let (run, row) = scene.run();
        assert_eq!(
            (run.code, &row["confirmed"], &row["owed"]),
            (Some(1), &Value::Null, &false.into()),
            "{run}"
        );
        scene.tree.renew("a");
        scene.deploys("named by the list");
        scene.serves("a", "a.test", "named by the list");
    });
}

#[test]
fn status_asks_an_old_haproxy_only_for_what_it_is_known_to_have() {
    with_each(|version| {
        let stranger = |tree: &Tree, cmd: &Cmd| {
            let leaf = tree.authority().issue(KeyKind::P256, &["s.test"], Validity::days(90));
            put(&cmd.sites().join("s.pem"), leaf.combined(), 0o400);
            wait_until_it_is_older(cmd.sites().join("s.pem"));
        };
        let mut scene = Scene::start(version, TWO, RUNTIME, stranger, sites);
        for file in ["a.pem", "b.pem", "s.pem"] {
            assert!(is_seen(&scene, file), "{file}, {}", version.full);
        }
        // What it has of these may have any number of names.
        let leaf = scene.tree.authority().issue(KeyKind::P256, &["s.test"], Validity::days(90));
        put(&scene.cmd.sites().join("s.pem"), leaf.combined(), 0o400);
        assert_eq!(is_seen(&scene, "s.pem"), version.number() >= (3, 0), "{}", version.full);
        // One that is owed is the one before or this one; after two it may be any.
        scene.tree.renew("a");
        scene.cmd.assemble(&["--defer-reload"]);
        assert!(is_seen(&scene, "a.pem"), "{}", version.full);
        scene.tree.renew("a");
        scene.cmd.assemble(&["--defer-reload"]);
        assert_eq!(is_seen(&scene, "a.pem"), version.number() >= (3, 0), "{}", version.full);
        scene.haproxy.run_again();
        for file in ["a.pem", "b.pem", "s.pem"] {
            assert!(is_seen(&scene, file), "{file}, {}", version.full);
        }
    });
}

/// One file under two spellings, whose lines have other options: after an update the first line's still count.
#[test]
fn the_options_of_the_line_that_comes_first_stay_in_force() {
    with_each(|version| {
        let setup = |setup: Setup, folder: &Path| {
            let (sites, list, link) = (folder.join("sites"), folder.join("list"), folder.join("a-link"));
            symlink(&sites, &link).unwrap();
            put(&list, format!("{}/a.pem [ssl-max-ver TLSv1.2] a.test\n", sites.display()), 0o644);
            setup.bind_option(&format!("crt-list {} crt {}", list.display(), link.display()))
        };
        let mut scene = Scene::start(version, TWO, RUNTIME, |_, _| {}, setup);
        for renewed in 0..3 {
            let context = format!("renewed {renewed} times, {}", version.full);
            scene.serves("a", "a.test", &context);
            let speaks = |option| speaks(scene.haproxy.address(), "a.test", option);
            assert_eq!((speaks("-tls1_2"), speaks("-tls1_3")), (true, false), "{context}");
            scene.tree.renew("a");
            assert_eq!(scene.deploys(&context), "runtime", "{context}");
        }
    });
}

/// The name that a `crt-store` gives to a file of ours is no file of somebody else's.
#[test]
fn a_name_that_a_store_gives_is_the_file() {
    with_each(|version| {
        if version.number() < (3, 0) {
            return;
        }
        let setup = |setup: Setup, folder: &Path| {
            let (sites, list) = (folder.join("sites"), folder.join("list"));
            put(&list, "@web/a [ssl-max-ver TLSv1.2] a.test\n", 0o644);
            let section = format!("crt-store web\n  load crt {}/a.pem alias a", sites.display());
            let lists = format!("crt-list {} crt {}", list.display(), sites.display());
            setup.global(&section).bind_option(&lists)
        };
        let mut scene = Scene::start(version, TWO, RUNTIME, |_, _| {}, setup);
        for renewed in 0..2 {
            let context = format!("renewed {renewed} times, {}", version.full);
            let speaks = |option| speaks(scene.haproxy.address(), "a.test", option);
            assert_eq!((speaks("-tls1_2"), speaks("-tls1_3")), (true, false), "{context}");
            scene.tree.renew("a");
            assert_eq!(scene.run().0.code, Some(0), "{context}");
            scene.serves("a", "a.test", &context);
        }
    });
}

/// A line may read our file as an authority of clients, and HAProxy keeps that until it is reloaded.
#[test]
fn what_a_line_reads_for_something_else_is_reloaded() {
    with_each(|version| {
        for is_directory in [false, true] {
            if is_directory && version.number() < (2, 6) {
                continue;
            }
            let setup = |setup: Setup, folder: &Path| {
                let file = if is_directory { "sites" } else { "sites/a.pem" };
                let base = setup.global(&format!("ca-base {}", folder.display()));
                sites(base.bind_option(&format!("verify optional ca-file {file}")), folder)
            };
            let mut scene = Scene::start(version, TWO, AUTO, |_, _| {}, setup);
            for (name, reads) in [("a", true), ("b", is_directory), ("a", true)] {
                scene.tree.renew(name);
                let context = format!("{name}, {is_directory}, {}", version.full);
                assert_eq!(scene.deploys(&context) != "runtime", reads, "{context}");
                scene.serves(name, &format!("{name}.test"), &context);
            }
        }
    });
}

/// Certificates that HAProxy loads already, laid down by somebody else, and a stats socket alone: neither `init` nor the first run,
/// which make a directory of their own there, is taken for somebody who has removed a `.sctl`.
#[test]
fn what_was_there_before_the_first_run_is_updated_in_memory() {
    for version in versions() {
        for (how, is_removed) in [("assemble", false), ("init", false), ("assemble", true), ("init", true)] {
            let context = format!("{how}, {is_removed}, {}", version.full);
            let mut tree = Tree::of(&[("a.example", &["a.example"]), ("b.example", &["b.example"])]);
            let cmd = Cmd::new(tree.live());
            support::tree::make_directory(&cmd.sites(), 0o755);
            let host = tree.authority().issue(KeyKind::P256, &["host.example"], Validity::days(90));
            put(&cmd.beside("host.pem"), host.combined(), 0o400);
            wait_until_it_is_older(cmd.beside("host.pem"));
            for lineage in ["a.example", "b.example"] {
                put(&cmd.site(lineage), tree.leaf(lineage).combined(), 0o400);
            }
            fs::write(beside(&cmd, "a.example", ".key"), "").unwrap();
            let gone = cmd.sites().join("gone.sctl");
            fs::write(&gone, sctl()).unwrap();
            let haproxy = Haproxy::of(&version).crt(cmd.beside("host.pem")).crt(cmd.sites()).start();
            let table = format!(
                "[[haproxy]]\nunit = \"\"\npidfile = \"\"\nmaster_socket = \"\"\nbinary = \"\"\nruntime_socket = {}",
                support::cmd::toml(&haproxy.stats_socket())
            );
            let host = format!("host_file = {}", support::cmd::toml(&cmd.beside("host.pem")));
            let cmd = cmd.option(&host).table(&table);
            if is_removed {
                // So that the clocks of files and processes tell them apart.
                thread::sleep(std::time::Duration::from_millis(1100));
                fs::remove_file(&gone).unwrap();
            }
            if how == "init" {
                cmd.run(&["init"]).exits(0);
            }
            let now = tree.renew("a.example").served();
            let run = cmd.assemble(&[]);
            let row = run.haproxy();
            if is_removed {
                assert_eq!(row["outcome"], "failed", "{context}: {run}");
                assert!(row["detail"].as_str().unwrap().contains(".sctl"), "{context}: {run}");
                continue;
            }
            assert_eq!((run.code, &row["outcome"]), (Some(0), &"updated".into()), "{context}: {run}");
            assert_eq!(row["confirmed"], true, "{context}: {run}");
            assert_eq!(served(haproxy.address(), "a.example"), now, "{context}");
            let again = tree.renew("b.example").served();
            assert_eq!(cmd.assemble(&[]).exits(0).haproxy()["confirmed"], true, "{context}");
            assert_eq!(served(haproxy.address(), "b.example"), again, "{context}");
        }
    }
}
