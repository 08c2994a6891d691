//! What others change in HAProxy's memory through the Runtime API, with the same files on disk: a crt-list's lines, the order
//! of certificates, a certificate. Clients get something else than after a start: the status says so, no run confirms it,
//! and what is printed mends it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may fail loudly")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;

use serde_json::Value;
use support::cmd::toml;
use support::scene::put;
use support::summary::long;
use support::tls::try_served_to;
use support::{
    Cmd, Haproxy, KeyKind, LIMIT, Reload, Run, Tree, Validity, Version, versions, wait_until,
    wait_until_it_is_older,
};

/// Every name that is served, or is after an edit; without one last.
const NAMES: [&str; 12] = [
    "a.test",
    "b.test",
    "c.test",
    "default.test",
    "list.test",
    "gone.test",
    "other.test",
    "new.test",
    "any.wild.test",
    "not.wild.test",
    "nor.wild.test",
    "",
];

/// Three lineages, which a HAProxy has by their directory on one bind and by a crt-list on another.
struct Scene {
    tree: Tree,
    cmd: Cmd,
    haproxy: Haproxy,
}

impl Scene {
    fn start(version: &Version) -> Self {
        Self::of(version, &[("a.test", &["a.test"]), ("b.test", &["b.test"]), ("c.test", &["c.test"])], "")
    }

    /// `ADDRESS` is the one of the directory's bind.
    fn of(version: &Version, lineages: &[(&str, &[&str])], more: &str) -> Self {
        let tree = Tree::of(lineages);
        let cmd = Cmd::new(tree.live()).without_haproxy();
        cmd.assemble(&[]);
        let site = |name| cmd.site(name).to_str().unwrap().to_owned();
        let [a, b, c] = ["a.test", "b.test", "c.test"].map(site);
        let text = format!(
            "{c} default.test\n{a} list.test\n\n{b} list.test gone.test *.wild.test !not.wild.test\n"
        );
        let list = cmd.beside("list");
        fs::write(&list, text).unwrap();
        let making = Haproxy::of(version).crt(cmd.sites()).another_bind();
        let making = making.bind_option(&format!("crt-list {}", list.display()));
        let haproxy = making.start();
        let binary = toml(&haproxy.version().program);
        let table = haproxy.table(&format!("name = \"h\"\nunit = \"\"\nbinary = {binary}\n{more}"));
        let cmd = cmd.with_tables(&table.replace("ADDRESS", &format!("\"{}\"", haproxy.addresses()[0])));
        cmd.assemble(&[]);
        let scene = Self { tree, cmd, haproxy };
        scene.is_quiet("at first");
        scene
    }

    fn context(&self, context: &str) -> String {
        format!("HAProxy {}, {context}", self.haproxy.version().full)
    }

    fn status(&self) -> Run {
        self.cmd.run(&["status", "--format", "json"])
    }

    /// Nothing is wrong, and clients get what they would get after a start.
    #[track_caller]
    fn is_quiet(&self, context: &str) {
        let context = self.context(context);
        wait_until(LIMIT, "the old workers' end", || {
            self.haproxy.processes().is_none_or(|shown| shown.old_workers.is_empty())
        });
        assert_eq!(answers(&self.haproxy), answers(&self.haproxy.twin()), "{context}");
        let status = self.status();
        assert!(stale(&status).is_none() && matches!(status.code, Some(0 | 1)), "{context}: {status}");
    }

    /// Clients get something else than after a start, and the status says so.
    #[track_caller]
    fn is_told(&self, context: &str) -> Value {
        let context = self.context(context);
        assert_ne!(answers(&self.haproxy), answers(&self.haproxy.twin()), "{context}");
        let status = self.status();
        assert!(matches!(status.code, Some(1 | 2)), "{context}: {status}");
        stale(&status).unwrap_or_else(|| panic!("{context}: {status}"))
    }

    /// Somebody else's command, which HAProxy carries out.
    #[track_caller]
    fn edit(&self, command: &str) {
        let site = |name: &str| self.cmd.site(name).to_str().unwrap().to_owned();
        let list = self.cmd.beside("list").to_str().unwrap().to_owned();
        let command = command.replace("LIST", &list).replace("SITES", self.cmd.sites().to_str().unwrap());
        let command = ["a", "b", "c"].iter().fold(command, |command, name| {
            command.replace(&format!("@{name}"), &site(&format!("{name}.test")))
        });
        let reply = self.haproxy.runtime(&command);
        let is_done =
            ["Success!", "deleted", "Transaction created"].iter().any(|words| reply.contains(words));
        assert!(is_done, "{}: {reply}", self.context(&command));
    }

    /// Somebody else commits these contents.
    #[track_caller]
    fn commit(&self, name: &str, pem: &str) {
        self.edit(&format!("set ssl cert @{name} <<\n{}\n\n", pem.replace("\n\n", "\n").trim()));
        self.edit(&format!("commit ssl cert @{name}"));
    }
}

/// What every client is shown on every bind.
fn answers(haproxy: &Haproxy) -> BTreeMap<(usize, &'static str), Option<String>> {
    let binds = haproxy.addresses().into_iter().enumerate();
    let each = binds.flat_map(|(bind, address)| NAMES.map(|name| (bind, name, address)));
    let shown = |address, name| try_served_to(address, name, None).ok().map(|shown| shown.sha256);
    each.map(|(bind, name, address)| ((bind, name), shown(address, name))).collect()
}

/// That a HAProxy has something else than the disk.
fn stale(status: &Run) -> Option<Value> {
    let shown = status.json();
    let sites = shown["sites"].as_array().unwrap().iter().map(|site| &site["details"]);
    let all = sites.chain([&shown["problems"]]).filter_map(Value::as_array).flatten();
    let is_it = |problem: &&Value| {
        ["haproxy-stale", "haproxy-missing"].iter().any(|kind| problem["problem"] == **kind)
    };
    all.filter(is_it).max_by_key(|problem| problem["haproxy"].is_string()).cloned()
}

/// The command that an advice names.
fn follow(advice: &str) {
    let command = advice.strip_prefix("run: ").unwrap_or_else(|| panic!("{advice}"));
    let command = command.split("; if that changes nothing").next().unwrap();
    assert!(Command::new("sh").args(["-c", command]).status().unwrap().success(), "{advice}");
}

/// Each version on a thread of its own.
fn with_each(test: fn(&Version)) {
    thread::scope(|scope| {
        for version in versions() {
            scope.spawn(move || test(&version));
        }
    });
}

/// What somebody does to a crt-list, so that clients get other certificates.
const EDITS: [(&str, &[&str]); 7] = [
    ("other filters", &["del ssl crt-list LIST @a:2", "add ssl crt-list LIST <<\n@a other.test\n\n"]),
    ("a line more", &["add ssl crt-list LIST <<\n@b new.test\n\n"]),
    ("a line less", &["del ssl crt-list LIST @b:4"]),
    ("another order", &["del ssl crt-list LIST @a:2", "add ssl crt-list LIST <<\n@a list.test\n\n"]),
    (
        "an exclusion less",
        &["del ssl crt-list LIST @b:4", "add ssl crt-list LIST <<\n@b list.test gone.test *.wild.test\n\n"],
    ),
    (
        "another exclusion",
        &[
            "del ssl crt-list LIST @b:4",
            "add ssl crt-list LIST <<\n@b list.test gone.test *.wild.test !nor.wild.test\n\n",
        ],
    ),
    (
        "an exclusion more",
        &[
            "del ssl crt-list LIST @b:4",
            "add ssl crt-list LIST <<\n@b !nor.wild.test list.test gone.test *.wild.test !not.wild.test\n\n",
        ],
    ),
];

/// Those of them that a version meets: each meets every other one, and each is met by every other version.
/// `HAPROXY_CERTS_LONG=1` takes all.
fn edits(version: &Version) -> Vec<(&'static str, &'static [&'static str])> {
    let turn = versions().iter().position(|it| it.full == version.full).unwrap();
    let all = EDITS.into_iter().enumerate();
    all.filter(|(place, _)| long() || (place + turn).is_multiple_of(2)).map(|(_, edit)| edit).collect()
}

/// What changes nothing for any client.
const REWRITES: [(&str, &[&str]); 2] = [
    (
        "the same in another order",
        &[
            "del ssl crt-list LIST @b:4",
            "add ssl crt-list LIST <<\n@b !NOT.wild.test gone.test *.wild.test list.test\n\n",
        ],
    ),
    (
        "an exclusion from nothing",
        &[
            "del ssl crt-list LIST @b:4",
            "add ssl crt-list LIST <<\n@b gone.test *.wild.test list.test !not.wild.test !new.test\n\n",
        ],
    ),
];

#[test]
fn a_list_that_says_the_same_otherwise_is_no_difference() {
    with_each(|version| {
        for (what, commands) in REWRITES {
            let scene = Scene::start(version);
            for command in commands {
                scene.edit(command);
            }
            scene.is_quiet(what);
            let full = scene.cmd.assemble(&["--full"]).exits(0);
            assert_eq!(full.haproxy()["outcome"], "not-needed", "{}: {full}", scene.context(what));
        }
    });
}

#[test]
fn an_edited_list_is_told_and_a_reload_mends_it() {
    with_each(|version| {
        let mut scene = Scene::start(version);
        for (what, commands) in edits(version) {
            for command in commands {
                scene.edit(command);
            }
            let problem = scene.is_told(what);
            let before = scene.haproxy.processes().unwrap();
            follow(problem["advice"].as_str().unwrap());
            scene.haproxy.wait_for_reload(&before);
            scene.is_quiet(what);
        }
    });
}

#[test]
fn no_run_confirms_an_edited_list() {
    with_each(|version| {
        let mut scene = Scene::start(version);
        for (what, commands) in edits(version) {
            for command in commands {
                scene.edit(command);
            }
            scene.is_told(what);
            scene.tree.renew("c.test");
            let run = scene.cmd.assemble(&[]).exits(0);
            assert_eq!(run.haproxy()["outcome"], "reloaded", "{}: {run}", scene.context(what));
            scene.is_quiet(what);
            // Then memory does again.
            scene.tree.renew("c.test");
            let run = scene.cmd.assemble(&[]).exits(0);
            assert_eq!(run.haproxy()["outcome"], "updated", "{}: {run}", scene.context(what));
        }
        // Where nobody may reload.
        scene.cmd = scene.cmd.with_tables(&scene.haproxy.table("name = \"h\"\nreload = \"runtime\""));
        let (what, commands) = EDITS[1];
        for command in commands {
            scene.edit(command);
        }
        scene.tree.renew("c.test");
        let run = scene.cmd.assemble(&[]);
        let told = run.haproxy();
        assert_eq!(
            (run.code, &told["owed"]),
            (Some(2), &Value::Bool(true)),
            "{}: {run}",
            scene.context(what)
        );
        assert_ne!(told["confirmed"], Value::Bool(true), "{}: {run}", scene.context(what));
    });
}

/// Before 3.2 HAProxy doesn't show in which order it has its certificates: only handshakes do.
#[test]
fn another_order_of_certificates_is_told_where_it_can_be_seen() {
    with_each(|version| {
        let shows_names = version.number() >= (3, 2);
        let more = if shows_names { "" } else { "probe = [ADDRESS]" };
        let lineages = [("a.test", &["a.test", "list.test"][..]), ("b.test", &["b.test", "list.test"])];
        let mut scene = Scene::of(version, &[lineages[0], lineages[1], ("c.test", &["c.test"])], more);
        for way in ["advice", "run"] {
            let again = scene.tree.leaf("a.test").combined();
            scene.commit("a", &again);
            let problem = scene.is_told("the winner is committed again");
            if way == "run" && shows_names {
                scene.tree.renew("c.test");
                let run = scene.cmd.assemble(&[]);
                assert_eq!(run.haproxy()["outcome"], "reloaded", "{}: {run}", scene.context("another order"));
            } else {
                let before = scene.haproxy.processes().unwrap();
                follow(problem["advice"].as_str().unwrap());
                scene.haproxy.wait_for_reload(&before);
            }
            scene.is_quiet("another order");
        }
    });
}

/// Nothing is pending, and a full run asks HAProxy all the same.
#[test]
fn a_full_run_mends_what_others_changed_in_memory() {
    type Edit<'a> = Box<dyn Fn(&Scene) + 'a>;
    with_each(|version| {
        let scene = Scene::start(version);
        let edited = |commands: &'static [&'static str]| -> Edit<'_> {
            Box::new(|scene: &Scene| commands.iter().for_each(|command| scene.edit(command)))
        };
        let strange = || scene.tree.authority().issue(KeyKind::P256, &["b.test"], Validity::days(90));
        let another: Edit<'_> = Box::new(|scene| scene.commit("b", &strange().combined()));
        let gone = &["del ssl crt-list LIST @b:4", "del ssl crt-list SITES @b", "del ssl cert @b"];
        let own = [("another certificate", another), ("no certificate", edited(gone))];
        let lists = edits(version).into_iter().map(|(what, commands)| (what, edited(commands)));
        for (what, edit) in own.into_iter().chain(lists) {
            edit(&scene);
            scene.is_told(what);
            // What costs nothing sees nothing.
            scene.cmd.assemble(&[]).exits(0);
            let dry = scene.cmd.assemble(&["--full", "--dry-run"]);
            let notes = dry.json()["notes"].to_string();
            assert!(notes.contains("--full notifies it again"), "{}: {dry}", scene.context(what));
            let run = scene.cmd.assemble(&["--full"]).exits(0);
            assert_eq!(run.haproxy()["confirmed"], Value::Bool(true), "{}: {run}", scene.context(what));
            scene.is_quiet(what);
            let run = scene.cmd.assemble(&["--full"]).exits(0);
            assert_eq!(run.haproxy()["outcome"], "not-needed", "{}: {run}", scene.context(what));
        }
    });
}

/// Files that are in nobody's care here, and one of ours that isn't renewed: what others commit into them may have any name.
#[test]
fn what_others_commit_into_other_files_is_told_and_a_reload_mends_it() {
    with_each(|version| {
        let tree = Tree::of(&[("a.test", &["a.test"]), ("b.test", &["b.test"])]);
        let cmd = Cmd::new(tree.live()).without_haproxy();
        cmd.assemble(&[]).exits(0);
        let legacy = cmd.beside("legacy");
        fs::create_dir(&legacy).unwrap();
        let host = cmd.beside("host.pem");
        let files = [
            (host.clone(), "default.test"),
            (cmd.sites().join("0.pem"), "new.test"),
            (legacy.join("l.pem"), "other.test"),
            (cmd.site("b.test"), "b.test"),
        ];
        for (path, name) in &files[..3] {
            let leaf = tree.authority().issue(KeyKind::P256, &[name], Validity::days(90));
            put(path, leaf.combined(), 0o400);
        }
        wait_until_it_is_older(&files[2].0);
        let haproxy = Haproxy::of(version).crt(&host).crt(cmd.sites()).crt(&legacy).start();
        let more = format!("name = \"h\"\nunit = \"\"\nbinary = {}\n", toml(&version.program));
        let cmd = cmd.option(&format!("host_file = {}", toml(&host))).with_tables(&haproxy.table(&more));
        cmd.assemble(&[]);
        let mut scene = Scene { tree, cmd, haproxy };
        scene.is_quiet("at first");
        let commit = |scene: &Scene, path: &Path, names: &[&str], validity| {
            let pem = scene.tree.authority().issue(KeyKind::P256, names, validity).combined();
            let pem = pem.replace("\n\n", "\n");
            scene.edit(&format!("set ssl cert {} <<\n{}\n\n", path.display(), pem.trim()));
            scene.edit(&format!("commit ssl cert {}", path.display()));
        };
        for (path, name) in &files {
            let what = path.display().to_string();
            commit(&scene, path, &[name, "a.test"], Validity::days(90));
            scene.is_told(&what);
            scene.status().exits(2);
            let new = scene.tree.renew("a.test");
            let run = scene.cmd.assemble(&[]).exits(0);
            let told = run.haproxy();
            assert_eq!(
                (&told["outcome"], &told["confirmed"]),
                (&"reloaded".into(), &true.into()),
                "{}: {run}",
                scene.context(&what)
            );
            scene.is_quiet(&what);
            let shown = try_served_to(scene.haproxy.address(), "a.test", None).unwrap();
            assert_eq!(shown.sha256, new.served().sha256, "{}", scene.context(&what));
        }
        for (path, name) in &files[..3] {
            let what = format!("expired in {}", path.display());
            commit(&scene, path, &[name], Validity::expired());
            scene.is_told(&what);
            scene.status().exits(2);
            let run = scene.cmd.assemble(&["--full"]).exits(0);
            assert_eq!(run.haproxy()["outcome"], "reloaded", "{}: {run}", scene.context(&what));
            scene.is_quiet(&what);
            let run = scene.cmd.assemble(&["--full"]).exits(0);
            assert_eq!(run.haproxy()["outcome"], "not-needed", "{}: {run}", scene.context(&what));
        }
        // Then memory does again.
        scene.tree.renew("a.test");
        let run = scene.cmd.assemble(&[]).exits(0);
        assert_eq!(run.haproxy()["outcome"], "updated", "{}: {run}", scene.context("as on disk"));
        scene.is_quiet("as on disk");
        // Where nobody may reload.
        scene.cmd = scene.cmd.with_tables(&scene.haproxy.table("name = \"h\"\nreload = \"runtime\""));
        commit(&scene, &files[2].0, &["other.test", "a.test"], Validity::days(90));
        scene.tree.renew("a.test");
        for arguments in [&[][..], &["--full"]] {
            let run = scene.cmd.assemble(arguments).exits(2);
            let told = run.haproxy();
            assert_eq!(
                (&told["confirmed"], &told["owed"]),
                (&false.into(), &true.into()),
                "{}: {run}",
                scene.context("runtime alone")
            );
        }
    });
}

/// Two settings files with a sites directory in common: what a run with one changes the other's HAProxy is notified of, too.
#[test]
fn each_settings_file_notifies_its_own_haproxy() {
    with_each(|version| {
        let scene = Scene::start(version);
        let Scene { mut tree, cmd: one, haproxy: first } = scene;
        let second = first.twin();
        let more = format!("name = \"h\"\nunit = \"\"\nbinary = {}", toml(&version.program));
        let other = Cmd::new(tree.live()).with_sites(one.sites()).with_tables(&second.table(&more));
        let context = |what: &str| format!("HAProxy {}, {what}", version.full);
        // Nobody knows what this one has.
        other.assemble(&[]).exits(0);
        for (what, by, left, behind) in
            [("the first", &one, &other, &second), ("the second", &other, &one, &first)]
        {
            let status = |cmd: &Cmd| cmd.run(&["status", "--format", "json"]);
            let new = tree.renew("b.test");
            by.assemble(&[]).exits(0);
            let before = try_served_to(behind.address(), "b.test", None).unwrap();
            assert_ne!(before.sha256, new.served().sha256, "{}", context(what));
            let waits = status(left);
            assert!(waits.stdout.contains("reload-owed"), "{}: {waits}", context(what));
            let run = left.assemble(&[]).exits(0);
            assert_eq!(run.haproxy()["confirmed"], Value::Bool(true), "{}: {run}", context(what));
            for haproxy in [&first, &second] {
                let shown = try_served_to(haproxy.address(), "b.test", None).unwrap();
                assert_eq!(shown.sha256, new.served().sha256, "{}", context(what));
            }
            for cmd in [&one, &other] {
                let run = cmd.assemble(&[]).exits(0);
                assert_eq!(run.haproxy()["outcome"], "not-needed", "{}: {run}", context(what));
                status(cmd).exits(0);
            }
        }
        // One that is used no more holds nothing up.
        let config = other.config();
        fs::remove_file(&config).unwrap();
        tree.renew("c.test");
        one.assemble(&[]).exits(0);
        let state = fs::read_to_string(one.sites().join(".haproxy-certs/state.json")).unwrap();
        assert!(!state.contains(config.to_str().unwrap()), "{}: {state}", context("removed"));
    });
}

/// A table that is added, or put back after it was taken out: nobody knows what its HAProxy has.
#[test]
fn a_table_that_is_added_is_notified_of_everything() {
    with_each(|version| {
        let Scene { mut tree, cmd, haproxy: first } = Scene::start(version);
        let second = first.twin();
        let more =
            |name: &str| format!("name = \"{name}\"\nunit = \"\"\nbinary = {}", toml(&version.program));
        let (one, two) = (first.table(&more("one")), second.table(&more("two")));
        let (one, both) = (cmd.with_tables(&one), format!("{one}\n{two}"));
        one.assemble(&[]).exits(0);
        let mut at = one;
        for what in ["added", "put back"] {
            let new = tree.renew("b.test");
            at.assemble(&[]).exits(0);
            let context = format!("HAProxy {}, {what}", version.full);
            let before = try_served_to(second.address(), "b.test", None).unwrap();
            assert_ne!(before.sha256, new.served().sha256, "{context}");
            let alone = first.table(&more("one"));
            at.set_tables(&both);
            let owed = at.run(&["assemble", "--dry-run", "--exit-code"]);
            assert_eq!(owed.code, Some(4), "{context}: {owed}");
            let run = at.assemble(&[]).exits(0);
            assert_eq!(run.json()["haproxy"][1]["confirmed"], Value::Bool(true), "{context}: {run}");
            let shown = try_served_to(second.address(), "b.test", None).unwrap();
            assert_eq!(shown.sha256, new.served().sha256, "{context}");
            let run = at.assemble(&[]).exits(0);
            assert_eq!(run.json()["haproxy"][1]["outcome"], "not-needed", "{context}: {run}");
            at.set_tables(&alone);
        }
        // Each table leads to the other one's HAProxy: what one of them is behind with isn't the other one's debt.
        at.set_tables(&both);
        at.assemble(&[]).exits(0);
        let new = tree.renew("b.test");
        let dead = second.table(&more("two")).replace("/stats.", "/no.").replace("/master.", "/no.");
        let dead = dead.replace("/haproxy.pid", "/no.pid");
        at.set_tables(&format!("{}\n{dead}", first.table(&more("one"))));
        let run = at.assemble(&[]);
        assert_ne!(run.json()["haproxy"][1]["confirmed"], Value::Bool(true), "{}: {run}", version.full);
        at.set_tables(&format!("{}\n{}", second.table(&more("one")), first.table(&more("two"))));
        at.assemble(&[]).exits(0);
        let shown = try_served_to(second.address(), "b.test", None).unwrap();
        assert_eq!(shown.sha256, new.served().sha256, "{}", version.full);
    });
}

/// Somebody's reload failed for something that no other place shows: 2.5 and later count these.
#[test]
fn a_reload_that_failed_is_told() {
    with_each(|version| {
        if version.number() < (2, 5) {
            return;
        }
        let tree = Tree::of(&[("a.test", &["a.test"])]);
        let cmd = Cmd::new(tree.live()).without_haproxy();
        cmd.assemble(&[]).exits(0);
        let page = cmd.beside("page");
        let text = "HTTP/1.0 503 x\r\n\r\n";
        fs::write(&page, text).unwrap();
        let section = format!("backend b\n  errorfile 503 {}\n", page.display());
        let mut haproxy = Haproxy::of(version).crt(cmd.sites()).section(&section).start();
        let more = format!("name = \"h\"\nunit = \"\"\nbinary = {}", toml(&version.program));
        let cmd = cmd.with_tables(&haproxy.table(&more));
        cmd.assemble(&[]).exits(0);
        let status = || cmd.run(&["status", "--format", "json"]);
        status().exits(0);
        fs::remove_file(&page).unwrap();
        assert_eq!(haproxy.reload_and_wait(), Reload::Refused, "{}", version.full);
        let refused = status().exits(2);
        let problem = refused.json()["problems"][0].clone();
        assert_eq!(problem["problem"], "haproxy-config", "{}: {refused}", version.full);
        fs::write(&page, text).unwrap();
        let told = status().exits(1);
        let problem = stale(&told).unwrap_or_else(|| panic!("{}: {told}", version.full));
        assert!(problem["fact"].as_str().unwrap().contains("which failed"), "{}: {told}", version.full);
        let before = haproxy.processes().unwrap();
        follow(problem["advice"].as_str().unwrap());
        assert_eq!(haproxy.wait_for_reload(&before), Reload::Loaded, "{}", version.full);
        status().exits(0);
    });
}
