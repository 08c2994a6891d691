//! What somebody else changes: the configuration, files that aren't ours, and dotfiles, which only some versions load.
//! HAProxy answers as one that is started now, or the program doesn't claim it, and the status says what helps.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may fail loudly")]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use serde_json::Value;
use support::cmd::toml;
use support::scene::put;
use support::{
    Cmd, Haproxy, KeyKind, LIMIT, Run, Tree, Validity, Version, served, versions, wait_until,
    wait_until_it_is_older,
};

/// certbot's tree with two lineages deployed, another directory with somebody else's files, and a HAProxy that serves
/// both.
struct Scene {
    tree: Tree,
    cmd: Cmd,
    haproxy: Haproxy,
    folder: PathBuf,
}

impl Scene {
    /// With a crt-list behind the directories.
    fn start(version: &Version) -> Self {
        Self::start_with(version, "crt-list @/list")
    }

    /// With this at the end of the bind line.
    fn start_with(version: &Version, loads: &str) -> Self {
        let tree = Tree::of(&[("a.test", &["a.test"]), ("m.test", &["m.test"])]);
        let cmd = Cmd::new(tree.live()).without_haproxy();
        let folder = cmd.sites().parent().unwrap().to_owned();
        cmd.assemble(&[]).exits(0);
        let foreign = tree.authority().issue(KeyKind::P256, &["o.test"], Validity::days(90));
        fs::create_dir(folder.join("other")).unwrap();
        put(&folder.join("other/o.pem"), foreign.combined(), 0o400);
        put(&folder.join("other/f.pem"), foreign.combined(), 0o400);
        put(&folder.join("sites/f.pem"), foreign.combined(), 0o400);
        fs::write(folder.join("list"), format!("{}/other/o.pem zz.test\n", folder.display())).unwrap();
        fs::write(folder.join("list.2"), format!("{}/other/o.pem yy.test\n", folder.display())).unwrap();
        let more = folder.join("more");
        fs::create_dir(&more).unwrap();
        fs::write(more.join("z.cfg"), "backend z\n").unwrap();
        let loads = loads.replace("@/", &format!("{}/", folder.display()));
        let setup = Haproxy::of(version).bind_option(&loads);
        let setup = setup.argument("-f").argument(more.to_str().unwrap());
        wait_until_it_is_older(more.join("z.cfg"));
        let haproxy = setup.crt(cmd.sites()).crt(folder.join("other")).start();
        let binary = toml(&haproxy.version().program);
        let more = format!("name = \"h\"\nunit = \"\"\nbinary = {binary}\n");
        let cmd = cmd.with_tables(&haproxy.table(&more));
        cmd.assemble(&[]).exits(0);
        let scene = Self { tree, cmd, haproxy, folder };
        scene.is_quiet("at first");
        scene
    }

    /// Once HAProxy has been reloaded nothing is wrong, and full runs notify it of nothing.
    #[track_caller]
    fn is_left_alone(&mut self, context: &str) {
        self.haproxy.reload_and_wait();
        self.cmd.assemble(&[]);
        let context = format!("{} {context}", self.haproxy.version().full);
        let status = self.status();
        assert!(!status.stdout.contains("haproxy-stale"), "{context}: {status}");
        let run = self.cmd.assemble(&["--full"]);
        assert_eq!(run.haproxy()["outcome"], "not-needed", "{context}: {run}");
    }

    fn foreign(&self, names: &[&str]) -> String {
        self.tree.authority().issue(KeyKind::P256, names, Validity::days(90)).combined()
    }

    fn status(&self) -> Run {
        self.cmd.run(&["status", "--format", "json"])
    }

    #[track_caller]
    fn is_quiet(&self, context: &str) {
        let status = self.status();
        assert!(problem(&status).is_none(), "{} {context}: {status}", self.haproxy.version().full);
    }

    /// The status says this, and what helps; once that is done it says so no more.
    #[track_caller]
    fn is_told(&mut self, fact: &str, context: &str) {
        let context = format!("{} {context}", self.haproxy.version().full);
        let status = self.status();
        let problem = problem(&status).unwrap_or_else(|| panic!("{context}: {status}"));
        assert!(problem["fact"].as_str().unwrap().contains(fact), "{context}: {status}");
        assert!(problem["advice"].as_str().unwrap().starts_with("run: kill -USR2"), "{context}: {status}");
        assert_ne!(status.code, Some(0), "{context}: {status}");
    }
}

/// What a HAProxy as a whole is behind with.
fn problem(status: &Run) -> Option<Value> {
    let problems = status.json()["problems"].as_array().unwrap().clone();
    problems.into_iter().find(|problem| problem["problem"] == "haproxy-stale")
}

/// A file that is surely newer than the worker, whatever the clock's ticks.
fn write_later(scene: &Scene, path: &Path, text: &str) {
    let mode = fs::metadata(path).map(|meta| meta.permissions());
    let newer = std::time::SystemTime::now() + std::time::Duration::from_millis(300);
    wait_until(LIMIT, "the worker is older", || {
        fs::write(path, text).unwrap();
        fs::metadata(path).unwrap().modified().unwrap() >= newer
    });
    if let Ok(mode) = mode {
        fs::set_permissions(path, mode).unwrap();
    }
    assert!(scene.haproxy.master_pid() > 0);
}

/// The directory that wins our name is taken off the bind line, or added to it, or a list names another site.
#[test]
fn a_configuration_that_is_newer_than_its_worker_takes_a_reload() {
    type Edit = fn(&Scene) -> (PathBuf, String);
    let edits: [(&str, Edit); 2] = [
        ("haproxy.cfg", |scene| {
            let text = fs::read_to_string(scene.haproxy.config()).unwrap();
            let other = format!(" crt {}", scene.folder.join("other").display());
            assert!(text.contains(&other), "{text}");
            (scene.haproxy.config(), text.replace(&other, ""))
        }),
        ("list", |scene| {
            let text = format!("{}/other/o.pem yy.test\n", scene.folder.display());
            (scene.folder.join("list"), text)
        }),
    ];
    for version in versions() {
        for (name, edit) in edits {
            let mut scene = Scene::start(&version);
            let (path, text) = edit(&scene);
            write_later(&scene, &path, &text);
            scene.is_told(&format!("{name} has changed since"), name);
            let new = scene.tree.renew("a.test");
            let run = scene.cmd.assemble(&[]).exits(0);
            let told = run.haproxy();
            assert_eq!(told["outcome"], "reloaded", "{} {name}: {run}", version.full);
            assert_eq!(served(scene.haproxy.address(), "a.test").serial, new.serial(), "{}", version.full);
            scene.is_quiet(name);
            // Then memory does again.
            scene.tree.renew("a.test");
            assert_eq!(scene.cmd.assemble(&[]).exits(0).haproxy()["outcome"], "updated", "{}", version.full);
        }
    }
}

/// Does it until this file's change time, of a link its own, is surely later than the worker.
fn later(path: &Path, act: impl Fn()) {
    let newer = std::time::SystemTime::now() + std::time::Duration::from_millis(300);
    let newer = newer.duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap();
    wait_until(LIMIT, "the worker is older", || {
        act();
        let meta = fs::symlink_metadata(path).unwrap();
        std::time::Duration::new(meta.ctime().try_into().unwrap(), meta.ctime_nsec().try_into().unwrap())
            >= newer
    });
}

/// A text as old as the worker, or older, in the place of this file (`cp -p`, `mv`).
fn replace_by_an_old_one(path: &Path, text: &str) {
    later(path, || {
        let new = path.with_extension("old");
        fs::write(&new, text).unwrap();
        let old = std::time::SystemTime::now() - std::time::Duration::from_secs(1_000_000);
        fs::File::options().write(true).open(&new).unwrap().set_modified(old).unwrap();
        fs::rename(new, path).unwrap();
    });
}

/// A file's own time can be set, and it comes along with its contents; that of its last change can't.
#[test]
fn a_configuration_that_only_looks_old_takes_one_reload() {
    type Edit = fn(&Scene);
    let edits: [(&str, Edit); 5] = [
        ("haproxy.cfg was replaced", |scene| {
            let text = fs::read_to_string(scene.haproxy.config()).unwrap();
            let other = format!(" crt {}", scene.folder.join("other").display());
            replace_by_an_old_one(&scene.haproxy.config(), &text.replace(&other, ""));
        }),
        ("/list was replaced", |scene| {
            let text = format!("{}/other/o.pem yy.test\n", scene.folder.display());
            replace_by_an_old_one(&scene.folder.join("list"), &text);
        }),
        ("/list was replaced", |scene| {
            let list = scene.folder.join("list");
            later(&list, || {
                let next = scene.folder.join("next");
                symlink("list.2", &next).unwrap();
                fs::rename(&next, &list).unwrap();
            });
        }),
        ("names in", |scene| {
            let more = scene.folder.join("more");
            later(&more, || {
                let _ = fs::remove_file(more.join("z.cfg"));
                fs::write(more.join("left"), "").unwrap();
                fs::remove_file(more.join("left")).unwrap();
            });
        }),
        // Who can't tell asks for a reload once.
        ("or its owner, mode or links changed", |scene| {
            let config = scene.haproxy.config();
            later(&config, || fs::set_permissions(&config, fs::Permissions::from_mode(0o600)).unwrap());
        }),
    ];
    for version in versions() {
        for (fact, edit) in edits {
            let mut scene = Scene::start(&version);
            edit(&scene);
            scene.is_told(fact, fact);
            let new = scene.tree.renew("a.test");
            let run = scene.cmd.assemble(&[]).exits(0);
            assert_eq!(run.haproxy()["outcome"], "reloaded", "{} {fact}: {run}", version.full);
            assert_eq!(served(scene.haproxy.address(), "a.test").serial, new.serial(), "{}", version.full);
            scene.is_quiet(fact);
            scene.tree.renew("a.test");
            assert_eq!(scene.cmd.assemble(&[]).exits(0).haproxy()["outcome"], "updated", "{}", version.full);
        }
    }
}

/// Where nobody may reload, what is in memory isn't said to be what a start would serve.
#[test]
fn memory_alone_is_not_confirmed_with_a_newer_configuration() {
    for version in versions() {
        let mut scene = Scene::start(&version);
        let table = format!(
            "[[haproxy]]\nname = \"h\"\nunit = \"\"\nreload = \"runtime\"\npidfile = {}\nruntime_socket = {}\n",
            toml(&scene.haproxy.pidfile()),
            toml(&scene.haproxy.stats_socket()),
        );
        scene.cmd = scene.cmd.with_tables(&table);
        let text = fs::read_to_string(scene.haproxy.config()).unwrap();
        write_later(&scene, &scene.haproxy.config(), &format!("{text}# newer\n"));
        scene.tree.renew("a.test");
        let run = scene.cmd.assemble(&[]);
        let told = run.haproxy();
        assert_eq!((&told["outcome"], &told["confirmed"]), (&"updated".into(), &Value::Null), "{run}");
        assert!(told["detail"].as_str().unwrap().contains("only a reload"), "{run}");
    }
}

#[test]
fn what_somebody_else_changed_is_told_until_haproxy_has_read_it() {
    for version in versions() {
        for folder in ["sites", "other"] {
            for what in ["replaced", "given a chain", "added", "removed"] {
                let context = format!("{folder} {what}");
                let mut scene = Scene::start(&version);
                let file = scene.folder.join(folder).join(if what == "added" { "g.pem" } else { "f.pem" });
                let mut new = scene.foreign(&["g.test"]);
                if what == "given a chain" {
                    let old = fs::read_to_string(&file).unwrap();
                    let last = old.rfind("-----BEGIN CERTIFICATE").unwrap();
                    new = format!("{old}{}", &old[last..]);
                }
                match what {
                    "removed" if folder == "sites" => continue,
                    "removed" => fs::remove_file(&file).unwrap(),
                    _ => {
                        let _ = fs::remove_file(&file);
                        put(&file, new, 0o400);
                    }
                }
                let fact = match what {
                    // It isn't asked for what may end it.
                    "replaced" | "given a chain" if version.number() < (3, 0) => {
                        "which has changed since it started"
                    }
                    "given a chain" => "has another chain than",
                    "replaced" => "has another certificate than",
                    "added" => "doesn't have",
                    _ => "which is gone",
                };
                scene.is_told(fact, &context);
                scene.haproxy.reload_and_wait();
                scene.is_quiet(&context);
            }
        }
    }
}

/// HAProxy can't be asked for such a file, or its reply isn't understood: that is no difference, and nothing to reload for.
#[test]
fn a_name_that_haproxy_cannot_be_asked_for_alarms_nobody() {
    let names: [&[u8]; 6] =
        [b"0\xff.pem", b"0\nx.pem", b"0:1\nx.pem:2", b"0\tx.pem", b"0x.pem\r", b"zz\xff\nx.pem"];
    for version in versions() {
        let mut scene = Scene::start_with(&version, "");
        for folder in ["sites", "other"] {
            for name in names {
                let context = format!("{folder} {}", name.escape_ascii());
                let file = scene.folder.join(folder).join(OsStr::from_bytes(name));
                put(&file, scene.foreign(&["q.test"]), 0o400);
                scene.is_left_alone(&context);
                fs::remove_file(&file).unwrap();
            }
        }
        for text in [&b"a\tb\tc"[..], b"c\nd", b"f/h:9\ta\nf/h:9\tb\t-\tecdsa\t/x\tt\tt"] {
            let leaf = scene.tree.authority().issue_raw(&[(0x0c, text)], &[b"q.test"]);
            let file = scene.folder.join("sites/0.pem");
            put(&file, leaf.combined(), 0o400);
            scene.is_left_alone(&text.escape_ascii().to_string());
            fs::remove_file(&file).unwrap();
        }
    }
}

/// The file that answered clients who name no site is gone, and a reload is pending: nobody else did that.
#[test]
fn a_first_file_that_is_gone_is_not_laid_to_others() {
    for version in versions() {
        let mut scene = Scene::start_with(&version, "");
        scene.tree.delete("a.test");
        scene.cmd.assemble(&["--reload", "none"]);
        assert!(!scene.cmd.site("a.test").exists());
        let status = scene.status();
        assert!(status.stdout.contains("still has"), "{}: {status}", version.full);
        assert!(!status.stdout.contains("Runtime API"), "{}: {status}", version.full);
        scene.haproxy.reload_and_wait();
    }
}

/// 2.2 has the parts of a bundle under one name: they are no files that it lacks.
#[test]
fn a_bundle_that_was_read_is_not_missing() {
    for version in versions() {
        let mut scene = Scene::start(&version);
        let rsa = scene.tree.authority().issue(KeyKind::Rsa2048, &["b.test"], Validity::days(90));
        put(&scene.folder.join("other/b.pem.rsa"), rsa.combined(), 0o400);
        put(&scene.folder.join("other/b.pem.ecdsa"), scene.foreign(&["b.test"]), 0o400);
        scene.haproxy.reload_and_wait();
        scene.is_quiet("a bundle");
    }
}

/// 2.2 takes a dotfile for a certificate, later ones pass over it.
#[test]
fn a_dotfile_counts_where_haproxy_loads_it() {
    for version in versions() {
        let loads = version.number() < (2, 6);
        for good in [true, false] {
            let context = format!("{} good: {good}", version.full);
            let mut scene = Scene::start(&version);
            let text = if good { scene.foreign(&["hidden.test"]) } else { "x\n".to_owned() };
            put(&scene.folder.join("sites/.hidden.pem"), text, 0o400);
            let before = scene.status();
            assert_eq!(before.code == Some(0), !loads, "{context}: {before}");
            scene.tree.renew("a.test");
            let run = scene.cmd.assemble(&[]);
            match (loads, good) {
                (false, _) => assert_eq!(
                    (run.haproxy()["outcome"].as_str(), run.code),
                    (Some("updated"), Some(0)),
                    "{context}: {run}"
                ),
                (true, true) => assert_eq!(run.haproxy()["outcome"], "reloaded", "{context}: {run}"),
                (true, false) => assert_eq!(run.code, Some(1), "{context}: {run}"),
            }
            assert_eq!(scene.haproxy.check().is_ok(), good || !loads, "{context}");
        }
    }
}

/// Nobody says the version: then it isn't known whether it is loaded.
#[test]
fn a_dotfile_is_unclear_where_the_version_is() {
    let tree = {
        let mut tree = Tree::new();
        tree.issue("a.test", KeyKind::P256, &["a.test"], Validity::days(90));
        tree
    };
    let cmd = Cmd::new(tree.live()).without_haproxy();
    cmd.assemble(&[]).exits(0);
    put(&cmd.sites().join(".hidden.pem"), "x\n", 0o400);
    let status = cmd.run(&["status", "--format", "json"]);
    assert_eq!(status.json()["state"], "unknown", "{status}");
    assert!(status.json()["unseen"].to_string().contains("depends on its version"), "{status}");
}

/// Another tool sends the leaf and its key alone, as one does whose PEM is cut at an empty line: the chain is gone.
#[test]
fn a_chain_that_somebody_else_cuts_is_seen() {
    for version in versions() {
        let mut scene = Scene::start(&version);
        let pem = fs::read_to_string(scene.cmd.site("a.test")).unwrap();
        let end = "-----END CERTIFICATE-----\n";
        let alone = &pem[..pem.find(end).unwrap() + end.len()];
        assert_ne!(alone, pem);
        let store = scene.cmd.site("a.test");
        scene.haproxy.runtime(&format!("set ssl cert {} <<\n{alone}\n", store.display()));
        scene.haproxy.runtime(&format!("commit ssl cert {}", store.display()));
        let status = scene.status();
        let site = status.site("a.test.pem");
        assert_eq!(site["problems"], serde_json::json!(["haproxy-stale"]), "{}: {status}", version.full);
        assert!(
            site["details"][0]["fact"].as_str().unwrap().contains("without the other certificates"),
            "{status}"
        );
        scene.haproxy.reload_and_wait();
        scene.is_quiet("after a reload");
        assert_eq!(scene.status().site("a.test.pem")["problems"], serde_json::json!([]), "{}", version.full);
    }
}
