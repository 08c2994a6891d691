//! The whole truth of `status`: each fault is made with the real programs and seen by its own word, and what is advised is
//! run by a shell. Afterwards the state is ok, or the test says why no command can bring it there.
//!
//! systemd can't run here: where a unit matters a script stands in for `systemctl`, which is said there.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "test code may fail loudly"
)]

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use haproxy_certs::config::{Overrides, Settings};
use haproxy_certs::status::problem::Problem;
use haproxy_certs::status::status;
use haproxy_certs::sys::system::System;
use serde_json::Value;
use support::process::finish;
use support::{
    Authority, Certbot, Cmd, Haproxy, KeyKind, LIMIT, Pebble, Port, Reload, Run, Tree, Validity,
    system_haproxy, tree, versions, wait_until,
};

/// Two lineages, deployed, and a HAProxy of this version that serves them.
fn healthy(version: &support::Version) -> (Tree, Cmd, Haproxy) {
    let mut tree = Tree::new();
    for name in ["a.example", "b.example"] {
        tree.issue(name, KeyKind::P256, &[name], Validity::days(90));
    }
    let cmd = Cmd::new(tree.live());
    cmd.run(&["assemble", "--reload", "none"]).exits(0);
    let haproxy = Haproxy::of(version).crt(cmd.sites()).bind_option("strict-sni").start();
    let cmd = cmd.haproxy(&haproxy, "");
    (tree, cmd, haproxy)
}

fn json(cmd: &Cmd, more: &[&str]) -> Run {
    let mut arguments = vec!["status", "--format", "json"];
    arguments.extend(more);
    cmd.run(&arguments)
}

/// All problems with their details: those of the sites, and those that aren't one's.
fn details(report: &Value) -> Vec<Value> {
    let sites = report["sites"].as_array().unwrap().iter();
    let of_sites = sites.flat_map(|site| site["details"].as_array().unwrap().clone());
    report["problems"].as_array().unwrap().iter().cloned().chain(of_sites).collect()
}

/// The problem of this word and severity; its fact has these words.
#[track_caller]
fn problem(run: &Run, word: &str, severity: &str, fact: &str) -> Value {
    let report = run.json();
    let all = details(&report);
    let found = all.iter().find(|detail| detail["problem"] == word);
    let found = found.unwrap_or_else(|| panic!("no {word} in {run}")).clone();
    assert_eq!(found["severity"], severity, "{found}");
    assert!(found["fact"].as_str().unwrap().contains(fact), "no {fact:?} in {found}");
    found
}

/// The findings of `--setup` with this name.
fn findings(run: &Run, name: &str) -> Vec<Value> {
    let report = run.json();
    report["setup"].as_array().unwrap().iter().filter(|finding| finding["name"] == name).cloned().collect()
}

/// The one finding of this name has this severity and fact.
#[track_caller]
fn finds(run: &Run, name: &str, severity: &str, fact: &str) -> Value {
    let found = findings(run, name);
    assert_eq!(found.len(), 1, "{name}: {run}");
    assert_eq!(found[0]["severity"], severity, "{run}");
    assert!(found[0]["fact"].as_str().unwrap().contains(fact), "no {fact:?} in {}", found[0]);
    found[0].clone()
}

/// A shell in which the programs of an advice are those of the test.
struct Shell {
    programs: tempfile::TempDir,
}

impl Shell {
    fn of(cmd: &Cmd, haproxy: Option<&Haproxy>) -> Self {
        let shell = Self { programs: tempfile::tempdir().unwrap() };
        // The configuration is written, and what is printed has to name it.
        cmd.config();
        shell.program("haproxy-certs", &format!("exec {} \"$@\"", Cmd::program().display()));
        if let Some(haproxy) = haproxy {
            shell.program("haproxy", &format!("exec {} \"$@\"", haproxy.version().program.display()));
        }
        shell
    }

    fn program(&self, name: &str, script: &str) {
        tree::write(&self.programs.path().join(name), format!("#!/bin/sh\n{script}\n"), 0o755);
    }

    /// Runs a command as it is printed, but that what goes to root's home goes to a folder of its own.
    fn run(&self, command: &str) -> std::process::Output {
        let attic = self.programs.path().join("attic");
        fs::create_dir_all(&attic).unwrap();
        let command = command.replace(" /root/", &format!(" {}/", attic.display()));
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", self.programs.path().display());
        // It may be certbot.
        finish(Command::new("sh").args(["-c", &command]).env("PATH", path), 5 * LIMIT)
    }

    /// Runs every command of a problem's advice.
    #[track_caller]
    fn follow(&self, problem: &Value) {
        let commands = problem["commands"].as_array().unwrap();
        assert!(!commands.is_empty(), "nothing to paste in {problem}");
        for command in commands {
            let command = command.as_str().unwrap();
            let output = self.run(command);
            assert!(
                output.status.success(),
                "{command}: {}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
        }
    }

    /// Runs what mends a finding.
    #[track_caller]
    fn mend(&self, finding: &Value) {
        for command in finding["mend"].as_array().unwrap() {
            let output = self.run(command.as_str().unwrap());
            assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

/// A reload takes its time: the state is ok in the end.
#[track_caller]
fn becomes_ok(cmd: &Cmd, more: &[&str]) {
    let start = Instant::now();
    loop {
        let run = json(cmd, more);
        if run.code == Some(0) {
            return;
        }
        assert!(start.elapsed() < LIMIT, "{run}");
    }
}

/// What the operator does who is notified "mend line N of FILE".
#[track_caller]
fn mend_the_line(problem: &Value) {
    let advice = problem["advice"].as_str().unwrap();
    let (line, rest) = advice.split_once("mend line ").expect(advice).1.split_once(" of ").unwrap();
    let file = rest.split([';', ',']).next().unwrap();
    let sed = Command::new("sed").args(["-i", &format!("{line}d"), file]).status().unwrap();
    assert!(sed.success(), "{advice}");
}

fn break_configuration(haproxy: &Haproxy) {
    let text = fs::read_to_string(haproxy.config()).unwrap();
    fs::write(haproxy.config(), text.replacen("defaults\n", "  no-such-keyword 1\ndefaults\n", 1)).unwrap();
}

// ---- HAProxy ------------------------------------------------------------------------------------------------------

#[test]
fn a_configuration_that_haproxy_refuses_is_critical_on_every_version() {
    for version in versions() {
        let (_tree, cmd, haproxy) = healthy(&version);
        break_configuration(&haproxy);
        // No reload is advised that would fail.
        let broken = fs::read_to_string(haproxy.config()).unwrap();
        wait_until(LIMIT, "that the file is seen to be newer", || {
            fs::write(haproxy.config(), &broken).unwrap();
            json(&cmd, &[]).stdout.contains("haproxy-stale")
        });
        let plain = json(&cmd, &[]).exits(2);
        problem(&plain, "haproxy-config", "critical", "no-such-keyword");
        let behind = problem(&plain, "haproxy-stale", "warning", "an older configuration");
        assert!(behind["advice"].as_str().unwrap().starts_with("mend line "), "{behind}");
        let run = json(&cmd, &["--setup"]).exits(2);
        let said = problem(&run, "haproxy-config", "critical", "no-such-keyword");
        assert!(said["fact"].as_str().unwrap().contains("haproxy refuses its configuration"), "{said}");
        mend_the_line(&said);
        Shell::of(&cmd, Some(&haproxy)).follow(&said);
        let mended = json(&cmd, &["--setup"]);
        finds(&mended, "configuration", "ok", "haproxy accepts its configuration");
        assert!(!details(&mended.json()).iter().any(|detail| detail["problem"] == "haproxy-config"));
        // The one that runs has read neither the broken one nor the mended one.
        let behind = problem(&json(&cmd, &[]).exits(1), "haproxy-stale", "warning", "an older configuration");
        Shell::of(&cmd, Some(&haproxy)).follow(&behind);
        becomes_ok(&cmd, &[]);
    }
}

/// A file of somebody else's, in a directory of its own: HAProxy takes ours, and would not start again. Both commands say
/// so, on every run, and what they advise mends it.
#[test]
fn a_broken_file_from_elsewhere_is_said_by_every_run() {
    for version in versions() {
        let mut tree = Tree::new();
        tree.issue("a.example", KeyKind::P256, &["a.example"], Validity::days(90));
        let cmd = Cmd::new(tree.live());
        cmd.run(&["assemble", "--reload", "none"]).exits(0);
        let other = cmd.beside("other");
        fs::create_dir(&other).unwrap();
        let leaf = tree.authority().issue(KeyKind::P256, &["o.example"], Validity::days(90));
        fs::write(other.join("o.pem"), leaf.combined()).unwrap();
        let haproxy = Haproxy::of(&version).crt(cmd.sites()).crt(&other).start();
        let cmd = cmd.haproxy(&haproxy, "");
        fs::write(other.join("broken.pem"), "nothing").unwrap();
        tree.renew("a.example");
        for _ in 0..2 {
            let run = cmd.assemble(&[]).exits(1);
            assert!(
                run.stdout.contains("broken.pem (it holds no certificate), and won't start again"),
                "{run}"
            );
            assert!(haproxy.check().is_err());
        }
        let dry = cmd.assemble(&["--dry-run"]).exits(1);
        assert!(dry.stdout.contains("broken.pem (it"), "{dry}");
        let said = problem(&json(&cmd, &[]).exits(2), "unloadable", "critical", "it holds no certificate");
        Shell::of(&cmd, Some(&haproxy)).follow(&said);
        haproxy.check().unwrap();
        cmd.assemble(&[]).exits(0);
    }
}

/// Authorities are read at a start, too: nothing of ours has changed, and it would not come up again.
#[test]
fn a_file_of_authorities_that_is_gone_or_damaged_is_said_by_every_run() {
    for version in versions() {
        let mut tree = Tree::new();
        tree.issue("a.example", KeyKind::P256, &["a.example"], Validity::days(90));
        let cmd = Cmd::new(tree.live());
        cmd.run(&["assemble", "--reload", "none"]).exits(0);
        let authorities = cmd.beside("authorities.pem");
        let good = tree.authority().root().to_owned();
        fs::write(&authorities, &good).unwrap();
        let option = format!("verify optional ca-file {}", authorities.display());
        let haproxy = Haproxy::of(&version).crt(cmd.sites()).bind_option(&option).start();
        let cmd = cmd.haproxy(&haproxy, "");
        cmd.assemble(&[]).exits(0);
        becomes_ok(&cmd, &[]);
        for bad in [None, Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")] {
            fs::remove_file(&authorities).unwrap();
            if let Some(bad) = bad {
                fs::write(&authorities, bad).unwrap();
            }
            assert!(haproxy.check().is_err(), "{}: it would start", version.full);
            let said = problem(&json(&cmd, &[]).exits(2), "haproxy-config", "critical", "authorities.pem");
            assert!(said["advice"].as_str().unwrap().starts_with("mend line "), "{said}");
            for _ in 0..2 {
                let run = cmd.assemble(&[]).exits(1);
                assert!(run.stdout.contains("refuses its configuration ("), "{}: {run}", version.full);
                assert!(run.stdout.contains("authorities.pem"), "{}: {run}", version.full);
            }
            fs::write(&authorities, &good).unwrap();
            cmd.assemble(&[]).exits(0);
            let seen = json(&cmd, &[]);
            assert!(
                !details(&seen.json()).iter().any(|detail| detail["problem"] == "haproxy-config"),
                "{seen}"
            );
        }
    }
}

/// So is every other file that a line names, whatever for.
#[test]
fn every_file_that_haproxy_reads_at_a_start_is_said_where_it_is_gone_or_damaged() {
    for version in versions() {
        let mut tree = Tree::new();
        tree.issue("a.example", KeyKind::P256, &["a.example"], Validity::days(90));
        let cmd = Cmd::new(tree.live());
        cmd.run(&["assemble", "--reload", "none"]).exits(0);
        let folder = cmd.beside("named");
        fs::create_dir_all(folder.join("own")).unwrap();
        let root = tree.authority().root().to_owned();
        let leaf = tree.authority().issue(KeyKind::P256, &["o.example"], Validity::days(90));
        fs::write(cmd.beside("o.pem"), leaf.combined()).unwrap();
        let entry = format!("{}\n", cmd.beside("o.pem").display());
        let page = "HTTP/1.0 503 Service Unavailable\r\nConnection: close\r\n\r\n".to_owned();
        // The file, what is in it, and what it is damaged with.
        let files = [
            ("sites.list", entry.as_str(), Some("/a.pem [b [c]\n")),
            ("own/authorities.pem", root.as_str(), Some("no certificate\n")),
            ("503.http", page.as_str(), None),
            ("addresses.acl", "192.0.2.1\n", None),
            ("hosts.map", "a b\n", None),
        ];
        for (name, text, _) in files {
            fs::write(folder.join(name), text).unwrap();
        }
        let named = |name: &str| folder.join(name).display().to_string();
        let backend = format!(
            "backend b\n  errorfile 503 {}\n  acl known src -f {}\n  http-request set-header x \
             %[req.hdr(host),map({})] if known\n  server s 127.0.0.1:1 ssl verify required ca-file {}",
            named("503.http"),
            named("addresses.acl"),
            named("hosts.map"),
            named("own/authorities.pem"),
        );
        let list = format!("crt-list {}", named("sites.list"));
        let haproxy = Haproxy::of(&version).crt(cmd.sites()).bind_option(&list).section(&backend).start();
        let calls = cmd.beside("calls");
        let counting = cmd.beside("counting");
        let program = haproxy.version().program.display();
        tree::write(
            &counting,
            format!("#!/bin/sh\necho \"$*\" >>{}\nexec {program} \"$@\"\n", calls.display()),
            0o755,
        );
        let table = haproxy.table(&format!("unit = \"\"\nbinary = {}", support::cmd::toml(&counting)));
        let cmd = cmd.with_tables(&table);
        let asked = || {
            let calls = fs::read_to_string(&calls).unwrap_or_default();
            let config = haproxy.config().display().to_string();
            calls.lines().filter(|line| line.starts_with("-c") && line.contains(&config)).count()
        };
        cmd.assemble(&[]).exits(0);
        becomes_ok(&cmd, &[]);
        // What it has taken isn't asked again, also after a certificate of ours is another one.
        let before = asked();
        for _ in 0..2 {
            tree.renew("a.example");
            assert_eq!(cmd.assemble(&[]).exits(0).haproxy()["outcome"], "updated");
            cmd.assemble(&["--full"]).exits(0);
            json(&cmd, &[]).exits(0);
        }
        assert_eq!(asked(), before, "{}: {}", version.full, fs::read_to_string(&calls).unwrap());
        for (name, text, damage) in files {
            let path = folder.join(name);
            let gone = |path: &Path| match path.parent() {
                Some(own) if own.ends_with("own") => fs::remove_dir_all(own).unwrap(),
                _ => fs::remove_file(path).unwrap(),
            };
            for bad in [None, damage].iter().take(1 + usize::from(damage.is_some())) {
                gone(&path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                match bad {
                    Some(bad) => fs::write(&path, bad).unwrap(),
                    None if name.starts_with("own/") => gone(&path),
                    None => {}
                }
                let context = format!("{} {name} {bad:?}", version.full);
                assert!(haproxy.check().is_err(), "{context}: it would start");
                let said = problem(&json(&cmd, &[]).exits(2), "haproxy-config", "critical", name);
                let advice = said["advice"].as_str().unwrap();
                let file = path.display().to_string();
                assert!(advice.starts_with("mend line "), "{context}: {said}");
                assert!(advice.contains(&file) || name == "hosts.map", "{context}: {said}");
                for arguments in [&[][..], &["--full"]] {
                    let run = cmd.assemble(arguments).exits(1);
                    assert!(run.stdout.contains("refuses its configuration ("), "{context}: {run}");
                    assert!(run.stdout.contains(&file), "{context}: {run}");
                }
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(&path, text).unwrap();
                cmd.assemble(&[]).exits(0);
                // The one that runs hasn't read the list anew.
                let seen = json(&cmd, &[]).json();
                assert!(
                    details(&seen).iter().all(|it| it["problem"] != "haproxy-config"),
                    "{context}: {seen}"
                );
            }
        }
    }
}

/// A unit's `BindPaths=`: with our root directory, and other files by some names. What this host has by them says nothing.
#[test]
fn a_haproxy_with_mounts_of_its_own_is_judged_by_its_own_files() {
    for version in versions() {
        let mut tree = Tree::new();
        for name in ["a.example", "b.example"] {
            tree.issue(name, KeyKind::P256, &[name], Validity::days(90));
        }
        let cmd = Cmd::new(tree.live());
        cmd.run(&["assemble", "--reload", "none"]).exits(0);
        let (there, other) = (cmd.beside("there"), cmd.beside("other"));
        for folder in [&there, &other] {
            fs::create_dir(folder).unwrap();
        }
        let leaf = tree.authority().issue(KeyKind::P256, &["o.example"], Validity::days(90));
        fs::write(other.join("o.pem"), leaf.combined()).unwrap();
        fs::write(other.join("sites.list"), format!("{}/o.pem\n", there.display())).unwrap();
        let mounts = format!("mount --bind {} {}", other.display(), there.display());
        let list = format!("crt-list {}", there.join("sites.list").display());
        let setup = Haproxy::of(&version).mounts(&mounts).crt(cmd.sites()).crt(there.join("o.pem"));
        let haproxy = setup.bind_option(&list).start();
        assert!(haproxy.check().is_err(), "the host has it, too");
        let cmd = cmd.haproxy(&haproxy, "");
        cmd.assemble(&[]).exits(0);
        // Only a reload takes these.
        tree.issue("0.example", KeyKind::P256, &["0.example"], Validity::days(90));
        let row = cmd.assemble(&[]).exits(0).haproxy();
        assert_eq!((&row["outcome"], &row["owed"]), (&"reloaded".into(), &false.into()), "{row}");
        tree.delete("0.example");
        let run = cmd.assemble(&[]).exits(0);
        assert_eq!(run.action("0.example.pem"), "prune", "{run}");
        becomes_ok(&cmd, &[]);
        // Its own files count.
        fs::remove_file(other.join("o.pem")).unwrap();
        problem(&json(&cmd, &[]).exits(2), "unloadable", "critical", "no such file");
        cmd.assemble(&["--full"]).exits(1);
        fs::write(other.join("o.pem"), leaf.combined()).unwrap();
        fs::write(other.join("sites.list"), "[ a\n").unwrap();
        let seen = problem(&json(&cmd, &[]).exits(2), "unloadable", "critical", "line 1 begins with '['");
        assert!(seen["fact"].as_str().unwrap().contains("sites.list"), "{seen}");
        let run = cmd.assemble(&[]).exits(1);
        assert!(run.stdout.contains("sites.list (line 1 begins with '['), and won't start"), "{run}");
        drop(haproxy);

        // Where all that it names is the same, what is said here holds there.
        let haproxy = Haproxy::of(&version).mounts(&mounts).crt(cmd.sites()).start();
        let cmd = cmd.with_tables("").haproxy(&haproxy, "");
        cmd.assemble(&[]).exits(0);
        break_configuration(&haproxy);
        tree.issue("0.example", KeyKind::P256, &["0.example"], Validity::days(90));
        let run = cmd.assemble(&[]).exits(2);
        assert!(run.stdout.contains("unknown keyword 'no-such-keyword'"), "{run}");
    }
}

/// The settings ask for a host certificate, and no line of HAProxy's loads it: no reload brings it there.
#[test]
fn a_host_certificate_that_no_line_names_is_said_and_reloads_nothing() {
    for version in versions() {
        let mut tree = Tree::new();
        for name in ["a.example", "b.example"] {
            tree.issue(name, KeyKind::P256, &[name], Validity::days(90));
        }
        let cmd = Cmd::new(tree.live());
        cmd.run(&["assemble", "--reload", "none"]).exits(0);
        let mut haproxy = Haproxy::of(&version).crt(cmd.sites()).start();
        let host = format!("host_file = {}", support::cmd::toml(&cmd.beside("host.pem")));
        let cmd = cmd.option("host_lineage = \"a.example\"").option(&host).haproxy(&haproxy, "");
        let said = "no client is presented";
        let run = cmd.assemble(&[]).exits(1);
        assert!(run.stdout.contains(said), "{}: {run}", version.full);
        assert_eq!(run.haproxy()["confirmed"], Value::Null, "{}: {run}", version.full);
        let workers = haproxy.worker_pids();
        for arguments in [&[][..], &["--full"], &["--full"]] {
            let run = cmd.assemble(arguments).exits(1);
            assert_eq!(run.stdout.matches(said).count(), 1, "{}: {run}", version.full);
            assert_eq!(run.haproxy()["outcome"], "not-needed", "{}: {run}", version.full);
        }
        assert_eq!(haproxy.worker_pids(), workers, "{}: it reloads for nothing", version.full);
        let seen = json(&cmd, &[]).exits(2);
        let problem = problem(&seen, "not-listed", "critical", "host_lineage is set, and no line");
        assert!(details(&seen.json()).iter().all(|it| it["problem"] != "haproxy-missing"), "{seen}");
        // What is advised is done.
        let advice = problem["advice"].as_str().unwrap();
        let word = advice.split('"').nth(1).unwrap();
        let text = fs::read_to_string(haproxy.config()).unwrap();
        fs::write(haproxy.config(), text.replacen(" ssl crt ", &format!(" ssl {word} crt "), 1)).unwrap();
        haproxy.check().unwrap();
        haproxy.reload_and_wait();
        cmd.assemble(&["--full"]).exits(0);
        becomes_ok(&cmd, &[]);
    }
}

/// A line names a file whose directory isn't there, beside a directory that is full.
#[test]
fn a_line_whose_file_is_nowhere_is_what_is_to_be_mended() {
    for version in versions() {
        let (_tree, cmd, haproxy) = healthy(&version);
        let text = fs::read_to_string(haproxy.config()).unwrap();
        let nowhere = cmd.beside("nowhere/x.pem").display().to_string();
        fs::write(haproxy.config(), text.replacen(" ssl crt ", &format!(" ssl crt {nowhere} crt "), 1))
            .unwrap();
        assert!(haproxy.check().is_err(), "{}", version.full);
        let run = cmd.assemble(&[]).exits(1);
        let line = text.lines().position(|line| line.contains(" ssl crt ")).unwrap() + 1;
        let at = format!("{}:{line}", haproxy.config().display());
        let advice = format!("put a certificate with its key there, or take it out of {at}");
        assert!(run.stdout.contains(&advice), "{}: {run}", version.full);
        let seen = problem(&json(&cmd, &[]).exits(2), "unloadable", "critical", "no such file");
        let advice = seen["advice"].as_str().unwrap();
        assert!(advice.ends_with(&format!("or take the file out of {at}")), "{}: {seen}", version.full);
    }
}

/// One bind loads somebody else's file first, and the directory has another file for the name, too: fact and advice are of
/// one file.
#[test]
fn a_name_that_somebody_elses_file_takes_is_said_of_that_file() {
    let version = system_haproxy();
    let mut tree = Tree::new();
    for lineage in ["a.example", "a.example-0001"] {
        tree.issue(lineage, KeyKind::P256, &["a.example"], Validity::days(90));
    }
    let cmd = Cmd::new(tree.live());
    cmd.run(&["assemble", "--reload", "none"]).exits(0);
    let other = cmd.beside("o.pem");
    fs::write(&other, tree.authority().issue(KeyKind::P256, &["a.example"], Validity::days(90)).combined())
        .unwrap();
    let haproxy = Haproxy::of(&version).crt(&other).crt(cmd.sites()).another_bind().crt(cmd.sites()).start();
    let cmd = cmd.haproxy(&haproxy, "");
    cmd.assemble(&[]).exits(1);
    let seen = json(&cmd, &[]).exits(1);
    for file in ["a.example.pem", "a.example-0001.pem"] {
        let site = seen.site(file);
        let details = site["details"].as_array().unwrap();
        let shadowed = details.iter().find(|it| it["problem"] == "shadowed").expect(file);
        assert!(shadowed["fact"].as_str().unwrap().ends_with("isn't ours"), "{file}: {shadowed}");
        assert!(shadowed["advice"].as_str().unwrap().contains("before that file"), "{file}: {shadowed}");
    }
}

/// The directory that it loads has a file with the name of ours: that it reloads from there confirms nothing.
#[test]
fn a_haproxy_that_loads_a_file_of_the_same_name_confirms_nothing() {
    for version in versions() {
        let mut tree = Tree::new();
        tree.issue("a.example", KeyKind::P256, &["a.example"], Validity::days(90));
        let first = Cmd::new(tree.live()).without_haproxy();
        first.assemble(&[]).exits(0);
        // The whole directory, or the file by its name.
        for loaded in [first.sites(), first.site("a.example")] {
            let haproxy = Haproxy::of(&version).crt(&loaded).start();
            let cmd = Cmd::new(tree.live()).haproxy(&haproxy, "");
            let workers = haproxy.worker_pids();
            for _ in 0..2 {
                tree.renew("a.example");
                let run = cmd.assemble(&[]).exits(1);
                assert_eq!(run.stdout.matches("haproxy loads nothing from").count(), 1, "{run}");
                let line = format!("crt {}\\\" in the place of", cmd.sites().display());
                assert!(run.stdout.contains(&line), "{run}");
                let row = run.haproxy();
                assert_eq!(
                    (&row["outcome"], &row["confirmed"]),
                    (&"not-needed".into(), &Value::Null),
                    "{run}"
                );
            }
            assert_eq!(haproxy.worker_pids(), workers, "no reload brings it anything: {}", version.full);
        }
    }
}

/// It runs, and none of its lines leads to our directory: that it was reloaded is no success.
#[test]
fn a_haproxy_that_loads_nothing_of_ours_is_said() {
    for version in versions() {
        let mut tree = Tree::new();
        tree.issue("a.example", KeyKind::P256, &["a.example"], Validity::days(90));
        let cmd = Cmd::new(tree.live());
        let other = cmd.beside("other");
        fs::create_dir(&other).unwrap();
        let leaf = tree.authority().issue(KeyKind::P256, &["o.example"], Validity::days(90));
        fs::write(other.join("o.pem"), leaf.combined()).unwrap();
        // The second one has no TLS at all.
        for has_tls in [true, false] {
            let setup = Haproxy::of(&version);
            let setup = if has_tls { setup.crt(&other) } else { setup };
            let mut haproxy = setup.start();
            let cmd = Cmd::new(tree.live()).haproxy(&haproxy, "");
            let workers = haproxy.worker_pids();
            for _ in 0..2 {
                let run = cmd.assemble(&[]).exits(1);
                assert_eq!(run.stdout.matches("haproxy loads nothing from").count(), 1, "{run}");
                assert!(run.stdout.contains("add to its configuration"), "{run}");
                assert_eq!(run.stdout.contains("in the place of the files"), has_tls, "{run}");
                let row = run.haproxy();
                assert_eq!((&row["outcome"], &row["owed"]), (&"not-needed".into(), &false.into()), "{run}");
            }
            assert_eq!(haproxy.worker_pids(), workers, "no reload brings it anything: {}", version.full);
            problem(&json(&cmd, &[]).exits(2), "haproxy-missing", "critical", "doesn't have it");
            // The line that leads there, and a reload: then it is served.
            let text = fs::read_to_string(haproxy.config()).unwrap();
            let port = support::Port::free();
            let line =
                format!("\nfrontend more\n  bind {} ssl crt {}\n", port.address(), cmd.sites().display());
            fs::write(haproxy.config(), text + &line + "  http-request return status 200\n").unwrap();
            haproxy.reload_and_wait();
            cmd.assemble(&[]).exits(0);
            let now = tree.renew("a.example").served().serial;
            let run = cmd.assemble(&[]).exits(0);
            assert_eq!(run.haproxy()["confirmed"], true, "{run}");
            assert_eq!(support::served(port.address(), "a.example").serial, now, "{}", version.full);
        }
    }
}

/// A line that gives our file the key of another one: HAProxy starts, and its handshakes fail.
#[test]
fn a_key_that_a_line_names_must_belong_to_the_file() {
    for version in versions().into_iter().filter(|version| version.number() >= (3, 0)) {
        let mut tree = Tree::new();
        tree.issue("a.example", KeyKind::P256, &["a.example"], Validity::days(90));
        let cmd = Cmd::new(tree.live());
        cmd.run(&["assemble", "--reload", "none"]).exits(0);
        let key = cmd.beside("a.key");
        fs::copy(tree.live().join("a.example/privkey.pem"), &key).unwrap();
        let site = cmd.site("a.example");
        let load = format!("crt-store\n  load crt {} key {}\nglobal", site.display(), key.display());
        let haproxy = Haproxy::of(&version).global(&load).crt(cmd.sites()).start();
        let cmd = cmd.haproxy(&haproxy, "");
        becomes_ok(&cmd, &[]);
        tree.renew("a.example");
        let run = cmd.assemble(&[]).exits(1);
        assert!(run.stdout.contains("which belongs to another certificate"), "{run}");
        let twin = haproxy.twin();
        assert!(support::tls::try_served(twin.address(), "a.example").is_err());
        drop(twin);
        problem(&json(&cmd, &[]).exits(2), "unloadable", "critical", "which belongs to another certificate");
        fs::copy(tree.live().join("a.example/privkey.pem"), &key).unwrap();
        cmd.assemble(&[]).exits(0);
        becomes_ok(&cmd, &[]);
    }
}

/// A run that could not reload knows it, and `status` asks again: it goes on being said until it is mended.
#[test]
fn what_the_last_run_could_not_do_is_explained_and_mended_without_a_circle() {
    for version in versions() {
        let (mut tree, cmd, haproxy) = healthy(&version);
        break_configuration(&haproxy);
        tree.renew("b.example");
        cmd.assemble(&["--reload", "pidfile"]).exits(2);
        let run = json(&cmd, &[]).exits(2);
        let said = problem(&run, "haproxy-config", "critical", "no-such-keyword");
        let owed = problem(&run, "reload-owed", "warning", "haproxy has been waiting");
        assert!(owed["advice"].as_str().unwrap().starts_with("mend line "), "{owed}");
        assert!(
            run.json()["haproxy"][0]["last_told"]["detail"].as_str().unwrap().contains("no-such-keyword"),
            "{run}"
        );
        mend_the_line(&said);
        Shell::of(&cmd, Some(&haproxy)).follow(&owed);
        becomes_ok(&cmd, &[]);
    }
}

#[test]
fn a_haproxy_that_has_died_is_critical_on_every_version() {
    for version in versions() {
        let (_tree, cmd, mut haproxy) = healthy(&version);
        haproxy.kill();
        for more in [&[][..], &["--setup"]] {
            let run = json(&cmd, more).exits(2);
            problem(&run, "haproxy-down", "critical", "haproxy should run and does not: process ");
        }
        let human = cmd.run(&["status", "--setup"]).exits(2).stdout;
        assert!(human.contains("CRIT haproxy-down: "), "{human}");
        assert!(!human.contains("runtime_socket"), "{human}");
        // No command can be said: without a unit nothing here tells how it is started.
        haproxy.run_again();
        json(&cmd, &[]).exits(0);
    }
}

/// A pidfile of another start says nothing about one that is seen to run.
#[test]
fn a_haproxy_that_runs_is_not_down_whatever_its_pidfile_says() {
    let (_tree, mut cmd, haproxy) = healthy(&system_haproxy());
    let pidfile = cmd.beside("old.pid");
    let mut gone = Command::new("true").spawn().unwrap();
    gone.wait().unwrap();
    fs::write(&pidfile, format!("{}\n", gone.id())).unwrap();
    cmd.set_tables(&format!(
        "[[haproxy]]\nunit = \"\"\nmaster_socket = \"\"\npidfile = {}\nbinary = {}\n",
        support::cmd::toml(&pidfile),
        support::cmd::toml(&haproxy.version().program)
    ));
    let run = json(&cmd, &[]).exits(3);
    assert!(!run.stdout.contains("haproxy-down"), "{run}");
    let detail = run.json()["haproxy"][0]["detail"].to_string();
    assert!(
        detail.contains("is gone, but the HAProxy of process") && detail.contains("set unit, pidfile"),
        "{run}"
    );
}

/// Without a pidfile a dead socket says it.
#[test]
fn a_socket_that_nobody_listens_at_is_evidence() {
    let (_tree, cmd, mut haproxy) = healthy(&system_haproxy());
    haproxy.kill();
    fs::remove_file(haproxy.pidfile()).unwrap();
    problem(&json(&cmd, &[]).exits(2), "haproxy-down", "critical", "nobody listens at ");
    fs::remove_file(haproxy.master_socket()).unwrap();
    // Nothing says any more that it should run.
    let run = json(&cmd, &[]).exits(3);
    assert!(!run.stdout.contains("haproxy-down"), "{run}");
}

/// What the status says of a HAProxy that is down where systemd shows this of its unit.
fn down_by_its_unit(cmd: &Cmd, show: &str) -> Problem {
    let folder = tempfile::tempdir().unwrap();
    let programs = folder.path().join("programs");
    fs::create_dir_all(&programs).unwrap();
    fs::create_dir_all(folder.path().join("run/systemd/system")).unwrap();
    tree::write(&programs.join("systemctl"), format!("#!/bin/sh\ncat <<X\n{show}\nX\n"), 0o755);
    let system = System { run: folder.path().join("run"), programs: vec![programs], ..System::host() };
    let text = fs::read_to_string(cmd.config()).unwrap().replace("unit = \"\"", "unit = \"haproxy.service\"");
    let settings = Settings::parse(&text, &Overrides::default()).unwrap();
    let seen = status(&settings, &system, false, &|_, _| {});
    assert_eq!(seen.severity().name(), "critical");
    seen.problems.into_iter().find(|problem| problem.kind.name() == "haproxy-down").unwrap()
}

/// A script stands in for `systemctl`: this isn't systemd.
#[test]
fn a_unit_that_is_not_active_is_started_by_the_advice() {
    let (_tree, cmd, mut haproxy) = healthy(&system_haproxy());
    let cmd = cmd.table("").option("");
    haproxy.stop();
    for active in ["inactive", "failed"] {
        let show = format!("LoadState=loaded\nActiveState={active}\nResult=success\nMainPID=0");
        let down = down_by_its_unit(&cmd, &show);
        assert!(down.fact.contains(&format!("haproxy.service is {active}")), "{down:?}");
        assert_eq!(down.advice.as_deref(), Some("run: systemctl start haproxy.service"));
    }
}

/// A unit that ends each time and is started again is as good as down.
#[test]
fn a_restart_loop_is_down() {
    let (_tree, cmd, mut haproxy) = healthy(&system_haproxy());
    let cmd = cmd.option("");
    haproxy.stop();
    for more in ["SubState=auto-restart\nNRestarts=0", "SubState=start\nNRestarts=3"] {
        let show = format!("LoadState=loaded\nActiveState=activating\n{more}\nResult=exit-code\nMainPID=0");
        let down = down_by_its_unit(&cmd, &show);
        assert!(down.fact.contains("haproxy.service is started again and again"), "{down:?}");
        assert!(down.advice.as_deref().unwrap().ends_with("; then run: systemctl restart haproxy.service"));
    }
}

/// A HAProxy that has no certificate at all answers with an empty list.
#[test]
fn a_haproxy_without_any_certificate_lacks_them_on_every_version() {
    for version in versions() {
        let mut tree = Tree::new();
        tree.issue("a.example", KeyKind::P256, &["a.example"], Validity::days(90));
        let cmd = Cmd::new(tree.live());
        tree::make_directory(&cmd.sites(), 0o755);
        let haproxy = Haproxy::of(&version).crt(cmd.sites()).bind_option("strict-sni").start();
        cmd.run(&["assemble", "--reload", "none"]).exits(0);
        let cmd = cmd.haproxy(&haproxy, "");
        let said = problem(&json(&cmd, &[]).exits(2), "haproxy-missing", "critical", "doesn't have it");
        assert!(!json(&cmd, &[]).stdout.contains("broke off"), "{version:?}");
        let shell = Shell::of(&cmd, Some(&haproxy));
        assert!(shell.run(said["commands"][0].as_str().unwrap()).status.success());
        becomes_ok(&cmd, &[]);
    }
}

/// It loads the directory by a link: no reload and no other bind line would help, only its name in our settings.
/// A run tells HAProxy of a file by its device and inode, whatever the line's spelling, and so is it asked.
#[test]
fn a_directory_that_haproxy_loads_by_another_name_is_seen_as_a_run_sees_it() {
    for version in
        support::versions().iter().filter(|version| ["2.2", "3.0", "3.4"].contains(&&*version.name))
    {
        let mut tree = Tree::new();
        tree.issue("a.example", KeyKind::P256, &["a.example"], Validity::days(90));
        let cmd = Cmd::new(tree.live());
        cmd.run(&["assemble", "--reload", "none"]).exits(0);
        let link = cmd.beside("link");
        symlink(cmd.sites(), &link).unwrap();
        let dotted = cmd.sites().parent().unwrap().join("./sites");
        for name in [link.to_str().unwrap(), dotted.to_str().unwrap()] {
            let mut haproxy = Haproxy::of(version).crt(name).bind_option("strict-sni").start();
            let cmd = Cmd::new(tree.live()).with_sites(cmd.sites()).haproxy(&haproxy, "");
            let run = json(&cmd, &["--setup"]);
            finds(&run, "crt", "ok", name);
            let right = json(&cmd, &[]).exits(0);
            let serial = tree.leaf("a.example").serial();
            assert_eq!(right.site("a.example.pem")["haproxy"][0]["serial"], Value::from(serial), "{right}");
            tree.renew("a.example");
            cmd.run(&["assemble", "--reload", "none"]).exits(0);
            problem(&json(&cmd, &[]).exits(2), "haproxy-stale", "critical", "has serial");
            haproxy.reload_and_wait();
            json(&cmd, &[]).exits(0);
            tree.renew("a.example");
            cmd.run(&["assemble"]).exits(0);
            json(&cmd, &[]).exits(0);
        }
    }
}

/// A file that keeps HAProxy from starting is critical also while HAProxy is away.
#[test]
fn a_host_certificate_that_cannot_be_loaded_is_seen_while_haproxy_is_away() {
    let mut tree = Tree::new();
    tree.issue("a.example", KeyKind::P256, &["a.example"], Validity::days(90));
    let cmd = Cmd::new(tree.live());
    let host = cmd.beside("host.pem");
    let cmd = cmd.option(&format!("host_file = {}", support::cmd::toml(&host)));
    cmd.run(&["assemble", "--reload", "none"]).exits(0);
    let placeholder = haproxy_certs::host_setup::placeholder::placeholder().unwrap();
    tree::write(&host, placeholder.as_bytes(), 0o400);
    let mut haproxy = Haproxy::of(&system_haproxy()).crt(&host).crt(cmd.sites()).start();
    let cmd = cmd.haproxy(&haproxy, "");
    cmd.run(&["assemble"]).exits(0);
    json(&cmd, &[]).exits(0);
    haproxy.stop();
    tree::write(&host, "junk", 0o400);
    // Another test's HAProxy, which is looked at for a moment, may be ending just now.
    let seen = |what: &str| {
        let mut run = json(&cmd, &[]);
        wait_until(LIMIT, what, || {
            run = json(&cmd, &[]);
            details(&run.json()).iter().any(|detail| detail["problem"] == "unloadable")
        });
        problem(&run.exits(2), "unloadable", "critical", "");
    };
    seen("what is in the host certificate's place");
    fs::remove_file(&host).unwrap();
    seen("that the host certificate is gone");
}

/// Also where nobody has ever seen that HAProxy run: what distributions start it with names the file.
#[test]
fn the_usual_configuration_names_the_host_certificate() {
    let usual = Path::new("/etc/haproxy/haproxy.cfg");
    let cmd = Cmd::new("/nonexistent/live");
    let host = cmd.beside("host.pem");
    let cmd = cmd.option(&format!("host_file = {}", support::cmd::toml(&host)));
    let pidfile = support::cmd::toml(&cmd.beside("haproxy.pid"));
    let cmd = cmd.table(&format!(
        "[[haproxy]]\npidfile = {pidfile}\nunit = \"\"\nmaster_socket = \"\"\nbinary = \"\""
    ));
    let configuration = cmd.beside("haproxy.cfg");
    fs::write(&configuration, format!("frontend f\n bind :443 ssl crt {}\n", host.display())).unwrap();
    let script = "mount --bind \"$1\" /etc/haproxy/haproxy.cfg || exit 77; shift; exec \"$@\"";
    let status = || {
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", script, "sh"]).arg(&configuration).arg(Cmd::program());
        command.arg("--config").arg(cmd.config()).args(["status", "--format", "json"]);
        finish(&mut command, LIMIT)
    };
    for contents in [None, Some("junk")] {
        if let Some(contents) = contents {
            tree::write(&host, contents, 0o400);
        }
        let output = status();
        if !usual.exists() || !matches!(output.status.code(), Some(0..=3)) {
            support::summary::skipped(
                "the_usual_configuration_names_the_host_certificate",
                "nothing can be mounted over /etc/haproxy/haproxy.cfg here",
            );
            return;
        }
        // Another test's HAProxy, which is looked at for a moment, may be ending just now.
        wait_until(LIMIT, "what is in the host certificate's place", || {
            let output = status();
            let report: Value = serde_json::from_slice(&output.stdout).unwrap();
            let is_seen = details(&report).iter().any(|detail| detail["problem"] == "unloadable");
            is_seen && output.status.code() == Some(2)
        });
    }
}

/// What `init` puts in the host certificate's place expired in 2000, and nobody is served by it.
#[test]
fn the_placeholder_of_init_is_fine_and_says_what_it_is() {
    let mut tree = Tree::new();
    tree.issue("a.example", KeyKind::P256, &["a.example"], Validity::days(90));
    let cmd = Cmd::new(tree.live());
    let host = cmd.beside("host.pem");
    let cmd = cmd.option(&format!("host_file = {}", support::cmd::toml(&host)));
    cmd.run(&["assemble", "--reload", "none"]).exits(0);
    let placeholder = haproxy_certs::host_setup::placeholder::placeholder().unwrap();
    tree::write(&host, placeholder.as_bytes(), 0o400);
    let haproxy = Haproxy::of(&system_haproxy()).crt(&host).crt(cmd.sites()).start();
    let cmd = cmd.haproxy(&haproxy, "");
    let run = json(&cmd, &[]).exits(0);
    let said = &run.site(host.to_str().unwrap())["details"][0];
    assert_eq!((said["problem"].as_str(), said["severity"].as_str()), (Some("foreign"), Some("ok")), "{run}");
    assert!(said["fact"].as_str().unwrap().contains("set host_lineage to replace it"), "{run}");
    let shown = cmd.run(&["status"]).exits(0).stdout;
    assert!(shown.contains("host.pem (placeholder)") && shown.contains("set host_lineage"), "{shown}");
    assert!(shown.contains("OK: 1 site in step"), "{shown}");
    let metrics = cmd.run(&["status", "--format", "prometheus"]).exits(0).stdout;
    assert!(
        !metrics.lines().any(|line| line.contains("not_after") && line.contains("host.pem")),
        "{metrics}"
    );
    // Another one that has expired is no placeholder.
    let expired = tree.authority().issue(KeyKind::P256, &["host.example"], Validity::expired());
    fs::remove_file(&host).unwrap();
    tree::write(&host, expired.combined(), 0o400);
    problem(&json(&cmd, &[]).exits(2), "expired", "critical", "");
}

/// What is known to be wrong counts more than what can't be seen.
#[test]
fn an_error_does_not_hide_what_is_critical() {
    let (mut tree, cmd, _) = one(issue);
    let state = cmd.sites().join(".haproxy-certs/state.json");
    fs::write(&state, r#"{"version":99}"#).unwrap();
    json(&cmd, &[]).exits(3);
    let expired = tree.authority().issue(KeyKind::P256, &["a.example"], Validity::expired());
    tree.renew_with(ODD, &expired);
    fs::remove_file(cmd.site(ODD)).unwrap();
    tree::write(&cmd.site(ODD), expired.combined(), 0o400);
    let run = json(&cmd, &[]).exits(2);
    assert!(run.json()["error"].is_object() && run.json()["state"] == "critical", "{run}");
}

/// Whoever named the settings by options has them in the commands, whatever the way.
#[test]
fn every_command_acts_on_the_same_settings() {
    let (_tree, cmd, shell) = one(issue);
    fs::remove_file(cmd.site(ODD)).unwrap();
    let config = cmd.config();
    let commands = |command: &mut Command| {
        let output = finish(command.args(["status", "--format", "json"]), LIMIT);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        details(&report).iter().find(|it| it["problem"] == "disk-missing").unwrap()["commands"].clone()
    };
    let by_option = commands(Command::new(Cmd::program()).arg("--config").arg(&config));
    let by_variable = commands(Command::new(Cmd::program()).env("HAPROXY_CERTS_CONFIG", &config));
    let expected = format!("haproxy-certs --config {} assemble", config.display());
    assert_eq!(by_option, serde_json::json!([expected]));
    assert_eq!(by_variable, by_option);
    let text = fs::read_to_string(&config).unwrap();
    let live = text.lines().next().unwrap().split('"').nth(1).unwrap();
    let mut with_directories = Command::new(Cmd::program());
    with_directories.args(["--live-dir", live, "--sites-dir"]).arg(cmd.sites());
    let by_directories = commands(&mut with_directories);
    let expected = format!("haproxy-certs --live-dir {live} --sites-dir {} assemble", cmd.sites().display());
    assert_eq!(by_directories, serde_json::json!([expected]));
    assert!(shell.run(by_option[0].as_str().unwrap()).status.success());
    json(&cmd, &[]).exits(0);
}

/// Nothing is owed, and HAProxy has what the disk no longer has: no run would change that, a reload does.
#[test]
fn a_haproxy_behind_the_disk_is_reloaded_by_the_advice() {
    for version in versions() {
        let (mut tree, cmd, mut haproxy) = healthy(&version);
        let shell = Shell::of(&cmd, Some(&haproxy));
        // A file of somebody else's that was moved out.
        let foreign = Authority::new().issue(KeyKind::P256, &["old.example"], Validity::days(30));
        let place = cmd.site("zz-old");
        tree::write(&place, foreign.combined(), 0o400);
        let reload = format!("kill -USR2 \"$(cat {})\"", haproxy.pidfile().display());
        assert_eq!(haproxy.reload_and_wait(), Reload::Loaded);
        becomes_ok(&cmd, &[]);
        fs::rename(&place, cmd.beside("old.pem")).unwrap();
        let said = problem(&json(&cmd, &[]).exits(2), "haproxy-stale", "critical", "and the file is gone");
        assert_eq!(said["commands"], serde_json::json!([reload]));
        shell.follow(&said);
        becomes_ok(&cmd, &[]);
        // A renewal that a run brought to the disk without telling anybody.
        tree.renew("a.example");
        cmd.run(&["assemble", "--reload", "none"]).exits(0);
        let said = problem(&json(&cmd, &[]).exits(2), "haproxy-stale", "critical", "haproxy has serial");
        shell.follow(&said);
        becomes_ok(&cmd, &[]);
    }
}

// ---- what is around -------------------------------------------------------------------------------------------------

/// A port of a loopback address of our own; `None` where everybody's is taken or forbidden.
fn own(port: u16) -> Option<SocketAddr> {
    let [_, a, b, c] = std::process::id().to_be_bytes();
    let address = SocketAddr::from((Ipv4Addr::new(127, 0x40 | (a & 0x3f), b, c.clamp(1, 254)), port));
    TcpListener::bind(address).ok().map(|_| address)
}

#[test]
fn a_redirected_challenge_is_followed_and_what_is_not_proved_is_a_warning() {
    let (Some(http), Some(https)) = (own(80), own(443)) else { return };
    let way = "use_backend certbot if { path_beg /.well-known/acme-challenge/ }";
    for (there, severity, fact) in [
        (way, "ok", "by a redirection to https://a.example/.well-known/acme-challenge/"),
        ("http-request return status 404", "warning", "got status 404 and did not reach port"),
    ] {
        let (tree, cmd, _) = healthy(&system_haproxy());
        let challenge = Port::free();
        let port = challenge.number();
        let sections = format!(
            "frontend plain\n  bind {http}\n  http-request redirect scheme https code 301\n\
             frontend tls\n  bind {https} ssl crt {}\n  {there}\n\
             backend certbot\n  server certbot 127.0.0.1:{port}",
            cmd.sites().display()
        );
        let haproxy = Haproxy::of(&system_haproxy()).crt(cmd.sites()).section(&sections).start();
        let cmd = Cmd::new(tree.live())
            .with_sites(cmd.sites())
            .haproxy(&haproxy, "")
            .table(&format!("[certbot]\nhttp_01_port = {port}"));
        finds(&json(&cmd, &["--setup"]), "acme", severity, fact);
    }
    // It leads to a port that the CA doesn't follow to, and then to another host: nothing is proved.
    for (location, why) in [
        ("https://a.example:8443/x", "the CA follows only to ports 80 and 443"),
        ("https://elsewhere.example/x", "another name, which may be another host"),
    ] {
        let (tree, cmd, _) = healthy(&system_haproxy());
        let challenge = Port::free();
        let port = challenge.number();
        let sections = format!(
            "frontend plain\n  bind {http}\n  http-request redirect location {location}\n  {way}\n\
             backend certbot\n  server certbot 127.0.0.1:{port}"
        );
        let haproxy = Haproxy::of(&system_haproxy()).crt(cmd.sites()).section(&sections).start();
        let cmd = Cmd::new(tree.live())
            .with_sites(cmd.sites())
            .haproxy(&haproxy, "")
            .table(&format!("[certbot]\nhttp_01_port = {port}"));
        let run = json(&cmd, &["--setup"]).exits(1);
        finds(&run, "acme", "warning", why);
        finds(&run, "acme", "warning", "it is not proved that a challenge arrives there");
    }
}

#[test]
fn a_taken_port_names_the_process() {
    let (tree, cmd, _) = healthy(&system_haproxy());
    let (http, challenge) = (Port::free(), Port::free());
    let haproxy = Haproxy::of(&system_haproxy()).crt(cmd.sites()).acme(&http, &challenge).start();
    let cmd = Cmd::new(tree.live())
        .with_sites(cmd.sites())
        .haproxy(&haproxy, "")
        .table(&format!("[certbot]\nhttp_01_port = {}", challenge.number()));
    let script = format!(
        "import socket,sys\ns=socket.socket()\ns.setsockopt(socket.SOL_SOCKET,socket.SO_REUSEADDR,1)\ns.bind(('127.0.0.1',{}))\ns.listen()\nsys.stdin.read()\n",
        challenge.number()
    );
    let mut other =
        Command::new("python3").args(["-c", &script]).stdin(std::process::Stdio::piped()).spawn().unwrap();
    let id = other.id();
    wait_until(LIMIT, "the port to be taken", || std::net::TcpStream::connect(challenge.address()).is_ok());
    let run = json(&cmd, &["--setup"]);
    other.kill().unwrap();
    other.wait().unwrap();
    finds(&run, "acme", "warning", &format!("is taken by python3 (process {id})"));
    // Ending that program is what mends it.
    finds(&json(&cmd, &["--setup"]), "acme", "ok", "(tried)");
}

#[test]
fn a_group_that_can_write_is_named() {
    let (_tree, cmd, haproxy) = healthy(&system_haproxy());
    nix_chown(&cmd.sites(), "www-data");
    fs::set_permissions(cmd.sites(), fs::Permissions::from_mode(0o770)).unwrap();
    let found = finds(
        &json(&cmd, &["--setup"]),
        "modes",
        "warning",
        &format!("group www-data can change {}", cmd.sites().display()),
    );
    Shell::of(&cmd, Some(&haproxy)).mend(&found);
    finds(&json(&cmd, &["--setup"]), "modes", "ok", "nobody else can change");
}

fn nix_chown(path: &Path, group: &str) {
    assert!(Command::new("chgrp").arg(group).arg(path).status().unwrap().success());
}

// ---- certbot --------------------------------------------------------------------------------------------------------

#[test]
fn a_dead_hook_is_named_with_its_line_and_removed_by_the_advice() {
    let (tree, cmd, haproxy) = healthy(&system_haproxy());
    let shell = Shell::of(&cmd, Some(&haproxy));
    let cli_ini = tree.root().join("cli.ini");
    fs::write(&cli_ini, "max-log-backups = 0\npost-hook = /nonexistent/haproxy-certs\n").unwrap();
    let said = problem(&json(&cmd, &["--setup"]).exits(2), "hook-broken", "critical", "certbot stops before");
    assert!(
        said["fact"].as_str().unwrap().contains(&format!("{}:2 has post-hook", cli_ini.display())),
        "{said}"
    );
    shell.follow(&said);
    assert_eq!(fs::read_to_string(&cli_ini).unwrap(), "max-log-backups = 0\n");
    // One that certbot saved doesn't stop it.
    let conf = tree.conf("a.example");
    let text = fs::read_to_string(&conf).unwrap();
    fs::write(&conf, format!("{text}renew_hook = /nonexistent/deploy.sh --all\n")).unwrap();
    let said = problem(&json(&cmd, &["--setup"]).exits(1), "hook-broken", "warning", "certbot renews, and");
    shell.follow(&said);
    assert_eq!(fs::read_to_string(&conf).unwrap(), text);
    // Both spellings of ours are hooks that certbot can run, and nothing old.
    let link = tree.root().join("renewal-hooks/post/haproxy-certs");
    fs::create_dir_all(link.parent().unwrap()).unwrap();
    symlink(Cmd::program(), &link).unwrap();
    let link = link.display();
    for line in [format!("{link}"), format!("test ! -x {link} || {link}")] {
        fs::write(&cli_ini, format!("post-hook = {line}\n")).unwrap();
        fs::write(&conf, format!("{text}post_hook = {line}\n")).unwrap();
        let run = json(&cmd, &["--setup"]);
        assert!(details(&run.json()).is_empty() && findings(&run, "old-hook").is_empty(), "{run}");
        finds(&run, "hook", "ok", &format!("and in {}", cli_ini.display()));
    }
}

#[test]
fn an_old_script_beside_us_is_named_with_its_line_and_stopped_by_the_advice() {
    let (tree, cmd, haproxy) = healthy(&system_haproxy());
    let shell = Shell::of(&cmd, Some(&haproxy));
    let script = tree.root().join("renewal-hooks/deploy/haproxy.sh");
    let text = format!(
        "#!/bin/sh\n# for HAProxy\ncat \"$RENEWED_LINEAGE\"/*.pem > {}/x.pem\nsystemctl reload haproxy\n",
        cmd.sites().display()
    );
    fs::create_dir_all(script.parent().unwrap()).unwrap();
    tree::write(&script, text, 0o755);
    tree::write(&script.with_file_name("mail.sh"), "#!/bin/sh\nsystemctl reload postfix\n", 0o755);
    let run = json(&cmd, &["--setup"]).exits(1);
    let fact = format!("{}:3 writes to the sites directory", script.display());
    shell.mend(&finds(&run, "old-hook", "warning", &fact));
    assert!(findings(&json(&cmd, &["--setup"]), "old-hook").is_empty());
    let conf = tree.conf("a.example");
    let kept = fs::read_to_string(&conf).unwrap();
    fs::write(&conf, format!("{kept}renew_hook = systemctl reload haproxy\n")).unwrap();
    shell.mend(&finds(&json(&cmd, &["--setup"]), "old-hook", "warning", " reloads HAProxy"));
    assert_eq!(fs::read_to_string(&conf).unwrap(), kept);
}

/// certbot's own words about a renewal that fails, and the renewal that the advice brings about.
#[test]
fn a_renewal_that_fails_is_said_with_certbots_words() {
    let challenge = Port::free();
    let pebble = Pebble::start(&challenge);
    let certbot = Certbot::of(&pebble, &challenge);
    certbot.certonly(&["-d", "a.example"]);
    certbot.forget_account("a.example");
    let folder = certbot.config_dir();
    let logs = folder.parent().unwrap().join("logs");
    fs::write(folder.join("cli.ini"), format!("logs-dir = {}\n", logs.display())).unwrap();
    let cmd = Cmd::new(certbot.live()).without_haproxy();
    cmd.run(&["assemble"]).exits(0);
    json(&cmd, &[]).exits(0);
    // Of a life of 90 days: it is due since ten days.
    let conf = folder.join("renewal/a.example.conf");
    let text = fs::read_to_string(&conf).unwrap();
    fs::write(&conf, format!("renew_before_expiry = 100 days\n{text}")).unwrap();
    let said =
        problem(&json(&cmd, &[]).exits(1), "renewal-overdue", "warning", "for 10 days, and not renewed");
    assert!(!said["fact"].as_str().unwrap().contains("certbot said"), "{said}");
    let busy = TcpListener::bind(challenge.address()).unwrap();
    assert!(!certbot.run(&["renew"]).status.success());
    drop(busy);
    let said = problem(&json(&cmd, &[]).exits(1), "renewal-overdue", "warning", "; certbot said: ");
    assert!(said["fact"].as_str().unwrap().contains("ould not bind"), "{said}");
    let before = certbot.serial("a.example");
    // A dead hook that certbot saved doesn't stop it: this is why it is only a warning.
    let text = fs::read_to_string(&conf).unwrap();
    fs::write(&conf, format!("{text}post_hook = /nonexistent/hook\n")).unwrap();
    let shell = Shell::of(&cmd, None);
    real_certbot(&shell, &pebble, &certbot, &challenge);
    shell.follow(&said);
    assert_ne!(certbot.serial("a.example"), before);
    // By the usual rule it isn't due any more: the line was the test's.
    let text = fs::read_to_string(&conf).unwrap();
    fs::write(&conf, text.replace("renew_before_expiry = 100 days\n", "")).unwrap();
    cmd.run(&["assemble"]).exits(0);
    json(&cmd, &[]).exits(0);
}

/// The real certbot in the shell, and in the configuration of its directory what it asks Pebble by.
fn real_certbot(shell: &Shell, pebble: &Pebble, certbot: &Certbot, challenge: &Port) -> PathBuf {
    let folder = certbot.config_dir().parent().unwrap().to_owned();
    let common = format!(
        "--config-dir {} --work-dir {} --logs-dir {} --non-interactive",
        certbot.config_dir().display(),
        folder.join("work").display(),
        folder.join("logs").display()
    );
    let issuing = format!(
        "--server {} --agree-tos --register-unsafely-without-email --http-01-port {}",
        pebble.directory(),
        challenge.number()
    );
    let script = format!(
        "export REQUESTS_CA_BUNDLE={}\ncase $1 in\nrenew) set -- \"$@\" {issuing} --no-random-sleep-on-renew ;;\n\
         certonly) set -- \"$@\" {issuing} ;;\nesac\nexec /usr/bin/certbot \"$@\" {common}",
        pebble.api_ca().display(),
    );
    shell.program("certbot", &script);
    shell.programs.path().join("certbot")
}

/// What certbot would do is done by the test; what it is called with is what the advice says.
fn certbot_is_called(shell: &Shell, problem: &Value) -> String {
    let called = shell.programs.path().join("called");
    shell.program("certbot", &format!("echo \"$*\" >> {}", called.display()));
    shell.follow(problem);
    fs::read_to_string(called).unwrap()
}

// ---- certbot's tree and the disk ------------------------------------------------------------------------------------

/// One lineage with an odd name and without a HAProxy, deployed unless it is refused.
fn one(make: impl FnOnce(&mut Tree, &str)) -> (Tree, Cmd, Shell) {
    let mut tree = Tree::new();
    make(&mut tree, ODD);
    let cmd = Cmd::new(tree.live()).without_haproxy();
    cmd.run(&["assemble"]);
    let shell = Shell::of(&cmd, None);
    (tree, cmd, shell)
}

/// A shell must not take it apart.
const ODD: &str = "it's a;site";

fn issue(tree: &mut Tree, name: &str) {
    tree.issue(name, KeyKind::P256, &["a.example"], Validity::days(90));
}

#[test]
fn what_is_wrong_on_the_disk_is_mended_by_what_is_advised() {
    use support::Kind;
    type Fault = (&'static str, &'static str, fn(&mut Tree, &Cmd));
    let file = format!("{ODD}.pem");
    let faults: [Fault; 6] = [
        ("disk-missing", "critical", |_, cmd| fs::remove_file(cmd.site(ODD)).unwrap()),
        ("disk-stale", "warning", |tree, _| drop(tree.renew(ODD))),
        ("loose-permissions", "warning", |_, cmd| {
            fs::set_permissions(cmd.site(ODD), fs::Permissions::from_mode(0o644)).unwrap();
        }),
        ("loose-permissions", "warning", |tree, _| {
            let key = tree.file(ODD, Kind::Privkey, 1);
            fs::set_permissions(key, fs::Permissions::from_mode(0o644)).unwrap();
        }),
        ("sibling-files", "warning", |_, cmd| {
            fs::write(cmd.sites().join(format!("{ODD}.pem.ocsp")), "x").unwrap();
        }),
        ("conflict", "warning", |_, cmd| {
            // The older one: certbot needn't issue a newer one.
            let other =
                Authority::named("somebody else").issue(KeyKind::P256, &["a.example"], Validity::left(0.5));
            fs::remove_file(cmd.site(ODD)).unwrap();
            tree::write(&cmd.site(ODD), other.combined(), 0o400);
        }),
    ];
    for (word, severity, make) in faults {
        let (mut tree, cmd, shell) = one(issue);
        make(&mut tree, &cmd);
        let run = json(&cmd, &[]);
        assert_ne!(run.code, Some(0), "{word}: {run}");
        let said = problem(&run, word, severity, "");
        shell.follow(&said);
        json(&cmd, &[]).exits(0);
        assert_eq!(cmd.deployed(), std::slice::from_ref(&file), "{word}");
    }
}

/// certbot is to do something for this lineage, which a script in its place writes down; the test does it, and certbot's
/// hook sweeps.
#[test]
fn what_certbot_is_to_mend_is_asked_of_certbot_in_whole_commands() {
    use support::Kind;
    type Fault = (&'static str, &'static str, fn(&mut Tree, &str));
    let faults: [Fault; 6] = [
        ("expired", "renew", |tree, name| {
            tree.issue(name, KeyKind::P256, &["a.example"], Validity::expired());
        }),
        ("expires-soon", "renew", |tree, name| {
            tree.issue(name, KeyKind::P256, &["a.example"], Validity::left(0.05));
        }),
        ("renewal-overdue", "renew", |tree, name| {
            tree.issue(name, KeyKind::P256, &["a.example"], Validity::left(0.2));
        }),
        ("key-mismatch", "renew --force-renewal", |tree, name| {
            issue(tree, name);
            tree.overwrite(name, Kind::Privkey, support::Key::fresh(KeyKind::P256).pem());
        }),
        ("key-missing", "renew --force-renewal", |tree, name| {
            issue(tree, name);
            tree.overwrite(name, Kind::Privkey, "no key");
        }),
        ("chain-incomplete", "renew --force-renewal", |tree, name| {
            let leaf = tree.issue(name, KeyKind::P256, &["a.example"], Validity::days(90));
            let alone = leaf.x509().to_pem().unwrap();
            tree.overwrite(name, Kind::Fullchain, alone);
        }),
    ];
    for (word, verb, make) in faults {
        let (mut tree, cmd, shell) = one(make);
        let run = json(&cmd, &[]);
        let report = run.json();
        let said = details(&report).into_iter().find(|detail| detail["problem"] == word);
        let said = said.unwrap_or_else(|| panic!("no {word} in {run}"));
        let folder = format!(" --config-dir {}", tree.live().parent().unwrap().display());
        let called = certbot_is_called(&shell, &said).replace(&folder, "");
        assert!(called.lines().any(|line| line.starts_with(verb)), "{called}");
        assert!(called.lines().all(|line| line.contains(&format!("--cert-name {ODD}"))), "{called}");
        let fresh = tree.authority().issue(KeyKind::P256, &["a.example"], Validity::days(90));
        tree.renew_with(ODD, &fresh);
        cmd.run(&["assemble"]).exits(0);
        json(&cmd, &[]).exits(0);
    }
}

/// Of every word that the manual lists: the test that runs the advice, or why no command can help.
const MENDED: [(&str, &str); 49] = [
    ("fleet-*", "as the fleet's problems are mended: tests/fleet.rs"),
    ("not-published", "fleet publish, which the advice says: tests/fleet_setup.rs runs it"),
    ("not-listed", "as files that no list names are reached: tests of one by one"),
    ("not-presented", "as files that no list names are reached: tests of one by one"),
    ("ocsp-missing", "no command for all of it: tests/foreign.rs issues it again"),
    ("haproxy-config", "a_configuration_that_haproxy_refuses_is_critical_on_every_version"),
    ("reload-owed", "what_the_last_run_could_not_do_is_explained_and_mended_without_a_circle"),
    ("haproxy-down", "a_unit_that_is_not_active_is_started_by_the_advice"),
    ("haproxy-stale", "a_haproxy_behind_the_disk_is_reloaded_by_the_advice"),
    ("haproxy-missing", "a_haproxy_behind_the_disk_is_reloaded_by_the_advice"),
    ("hook-broken", "a_dead_hook_is_named_with_its_line_and_removed_by_the_advice"),
    ("renewal-overdue", "a_renewal_that_fails_is_said_with_certbots_words"),
    ("run-failed", "a_run_that_failed_for_a_full_disk_is_the_last_run"),
    ("settings-broken", "no command: only the operator knows what is meant"),
    ("hook-not-running", "a_hook_that_does_not_run_is_made_good"),
    ("disk-missing", "what_is_wrong_on_the_disk_is_mended_by_what_is_advised"),
    ("disk-stale", "what_is_wrong_on_the_disk_is_mended_by_what_is_advised"),
    ("conflict", "what_is_wrong_on_the_disk_is_mended_by_what_is_advised"),
    ("loose-permissions", "what_is_wrong_on_the_disk_is_mended_by_what_is_advised"),
    ("sibling-files", "what_is_wrong_on_the_disk_is_mended_by_what_is_advised"),
    ("expired", "what_certbot_is_to_mend_is_asked_of_certbot_in_whole_commands"),
    ("expires-soon", "what_certbot_is_to_mend_is_asked_of_certbot_in_whole_commands"),
    ("key-mismatch", "what_certbot_is_to_mend_is_asked_of_certbot_in_whole_commands"),
    ("key-inconsistent", "as key-mismatch: certbot renews it"),
    ("key-unreadable", "as key-mismatch: certbot renews it"),
    ("key-missing", "what_certbot_is_to_mend_is_asked_of_certbot_in_whole_commands"),
    ("certificate-unreadable", "as key-mismatch: certbot renews it"),
    ("certificate-missing", "links_and_files_that_are_gone_come_back_without_losing_the_lineage"),
    ("chain-incomplete", "what_certbot_is_to_mend_is_asked_of_certbot_in_whole_commands"),
    ("chain-order", "as chain-incomplete: certbot renews it"),
    ("staging-issuer", "as chain-incomplete: certbot renews it from the real CA"),
    ("lineage-torn", "links_and_files_that_are_gone_come_back_without_losing_the_lineage"),
    ("shadowed", "a_foreign_file_that_shadows_is_moved_away_and_nothing_is_deleted"),
    ("foreign", "no problem"),
    ("key-encrypted", "no command: only the operator knows the passphrase"),
    ("key-unsupported", "no command: the operator chooses another kind of key"),
    ("key-too-small", "no command: the operator chooses a larger key"),
    ("not-a-regular-file", "no command: what is meant by it isn't known"),
    ("too-large", "no command: what is meant by it isn't known"),
    ("name-unsafe", "no command: the lineage needs another name"),
    ("older-than-deployed", "no command unless it is meant: tests/plan.rs runs --force"),
    ("would-replace-good", "no command unless it is meant: tests/plan.rs runs --force"),
    ("haproxy-rejects", "no command: the lineage, HAProxy or its configuration must change"),
    ("read-error", "no command: the disk or its permissions must be mended"),
    ("not-yet-valid", "no command: time mends it"),
    ("default-certificate-changed", "no problem: a fact about the next run"),
    ("not-checked", "no problem: only a run asks HAProxy about staged files"),
    ("prune-held", "the_file_of_the_last_lineage_goes_by_the_advice"),
    ("unloadable", "as foreign files are judged: tests of what HAProxy loads"),
];

#[test]
fn every_word_has_an_advice_that_was_run_or_a_reason_why_none_can() {
    let manual = include_str!("../man/haproxy-certs.8");
    let here = include_str!("truth.rs");
    for title in ["Reasons of a refusal", "Warnings", "Problems"] {
        let (_, part) = manual.split_once(&format!("\n.Ss {title}\n")).unwrap();
        let part = part.split("\n.Ss ").next().unwrap().split("\n.Sh ").next().unwrap();
        for word in part.lines().filter_map(|line| line.strip_prefix(".It Sy ")) {
            let (_, how) = MENDED
                .iter()
                .find(|(of, _)| *of == word)
                .unwrap_or_else(|| panic!("nobody says what mends {word}"));
            let is_reason = how.contains(' ');
            assert!(is_reason || here.contains(&format!("fn {how}()")), "{word}: no test {how}");
        }
    }
}

#[test]
fn a_hook_that_does_not_run_is_made_good() {
    let (mut tree, cmd, shell) = one(issue);
    tree.renew(ODD);
    cmd.run(&["assemble"]).exits(0);
    // All of it was two days ago, and certbot renewed after the run: it looks the same again.
    let record = cmd.sites().join(".haproxy-certs/last-run.json");
    let mut run: Value = serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
    run["at"] = (run["at"].as_i64().unwrap() - 3 * 86_400).into();
    fs::write(&record, run.to_string()).unwrap();
    let link = tree.link(ODD, support::Kind::Fullchain);
    let touched = Command::new("touch").args(["-h", "-d", "2 days ago"]).arg(link).status().unwrap();
    assert!(touched.success());
    let said =
        problem(&json(&cmd, &[]).exits(1), "hook-not-running", "warning", "certbot renewed 2 days ago");
    // `init --hook` would change this machine: only the first command is run.
    let given = cmd.config();
    assert_eq!(said["commands"][1], format!("haproxy-certs --config {} init --hook", given.display()));
    assert!(shell.run(said["commands"][0].as_str().unwrap()).status.success());
    json(&cmd, &[]).exits(0);
}

/// A script in certbot's place writes down what it is called with; the test deletes as certbot does.
#[test]
fn a_lineage_that_is_shadowed_and_not_wanted_is_deleted() {
    let (mut tree, cmd, shell) = one(|tree, name| {
        tree.issue("a.example", KeyKind::P256, &["a.example"], Validity::days(90));
        issue(tree, name);
    });
    let said = problem(&json(&cmd, &[]).exits(1), "shadowed", "warning", "");
    let commands: Vec<&str> =
        said["commands"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
    assert_eq!(commands.len(), 2, "{said}");
    assert!(commands[0].starts_with("certbot delete --config-dir "), "{said}");
    assert!(commands[0].ends_with(r" --cert-name 'it'\''s a;site'"), "{said}");
    let called = certbot_is_called(&shell, &said);
    assert!(called.starts_with("delete ") && called.ends_with(&format!(" --cert-name {ODD}\n")), "{called}");
    tree.delete(ODD);
    assert!(shell.run(commands[1]).status.success());
    json(&cmd, &[]).exits(0);
}

/// The advice offered `certbot delete` here, for a certificate that is wanted.
#[test]
fn a_foreign_file_that_shadows_is_moved_away_and_nothing_is_deleted() {
    let (tree, cmd, shell) = one(issue);
    let other = tree.authority().issue(KeyKind::P256, &["a.example"], Validity::days(30));
    // Before all others, and no name that every shell reads in `$'...'`.
    let name = "0 gr\u{f6}\u{df}e.pem";
    tree::write(&cmd.sites().join(name), other.combined(), 0o400);
    let said = problem(&json(&cmd, &[]).exits(1), "shadowed", "warning", "isn't ours");
    let commands: Vec<&str> =
        said["commands"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
    assert!(commands[0].starts_with("mv --backup=numbered -- "), "{said}");
    assert!(commands.iter().all(|command| !command.contains("certbot")), "{said}");
    // What has its name there stays.
    let attic = cmd.beside("attic");
    fs::create_dir_all(&attic).unwrap();
    fs::write(attic.join(name), "junk").unwrap();
    for command in commands {
        let output = shell.run(&command.replace("/root/", attic.to_str().unwrap()));
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(fs::read_to_string(attic.join(format!("{name}.~1~"))).unwrap(), "junk");
    assert!(fs::read_to_string(attic.join(name)).unwrap().contains("BEGIN CERTIFICATE"));
    json(&cmd, &[]).exits(0);
}

/// The lineage that is shadowed is the good one: nobody is to delete it.
#[test]
fn what_an_expired_lineage_shadows_is_not_to_be_deleted() {
    let (_tree, cmd, _) = one(|tree, name| {
        tree.issue("a.example", KeyKind::P256, &["a.example"], Validity::expired());
        issue(tree, name);
    });
    let said = problem(&json(&cmd, &[]).exits(2), "shadowed", "warning", "has expired");
    assert_eq!(said["commands"], serde_json::json!([]), "{said}");
}

/// Without a lineage there is nothing that says whether the last file is still wanted.
#[test]
fn the_file_of_the_last_lineage_goes_by_the_advice() {
    let (mut tree, cmd, shell) = one(issue);
    tree.delete(ODD);
    cmd.run(&["assemble"]);
    let said = problem(&json(&cmd, &[]).exits(1), "prune-held", "warning", "no lineage at all");
    let attic = cmd.beside("attic");
    fs::create_dir_all(&attic).unwrap();
    for command in said["commands"].as_array().unwrap() {
        let command = command.as_str().unwrap().replace("/root/", attic.to_str().unwrap());
        assert!(shell.run(&command).status.success(), "{command}");
    }
    json(&cmd, &[]).exits(0);
    assert_eq!(fs::read_dir(attic).unwrap().count(), 1);
}

/// A fault, what it is called, how it is made, and whether certbot issues anew for it.
type LinkFault = (&'static str, fn(&Path, &Path), bool);

/// All of it with the real certbot: no advice loses a lineage, or leads to certbot's `parsefail`.
#[test]
fn links_and_files_that_are_gone_come_back_without_losing_the_lineage() {
    let challenge = Port::free();
    let pebble = Pebble::start(&challenge);
    let certbot = Certbot::of(&pebble, &challenge);
    let cmd = Cmd::new(certbot.live()).without_haproxy();
    let shell = Shell::of(&cmd, None);
    let program = real_certbot(&shell, &pebble, &certbot, &challenge);
    let cmd = cmd.table(&format!("[certbot]\nbinary = {}", support::cmd::toml(&program)));
    let faults: [LinkFault; 7] = [
        ("certificate-missing", |live, _| fs::remove_file(live.join("fullchain.pem")).unwrap(), false),
        ("key-missing", |live, _| fs::remove_file(live.join("privkey.pem")).unwrap(), false),
        ("certificate-missing", |live, _| fs::remove_dir_all(live).unwrap(), false),
        (
            "lineage-torn",
            |live, _| {
                fs::remove_file(live.join("privkey.pem")).unwrap();
                symlink("../../archive/a.example/privkey1.pem", live.join("privkey.pem")).unwrap();
            },
            false,
        ),
        (
            "key-missing",
            |live, _| fs::remove_file(live.join("privkey.pem").canonicalize().unwrap()).unwrap(),
            true,
        ),
        (
            "key-missing",
            |_, archive| {
                for entry in fs::read_dir(archive).unwrap().flatten() {
                    if entry.file_name().to_str().unwrap().starts_with("privkey") {
                        fs::remove_file(entry.path()).unwrap();
                    }
                }
            },
            true,
        ),
        ("certificate-missing", |_, archive| fs::remove_dir_all(archive).unwrap(), true),
    ];
    certbot.certonly(&["-d", "a.example,b.example"]);
    certbot.succeed(&["renew", "--force-renewal"]);
    cmd.run(&["assemble"]).exits(0);
    for (number, (word, make, is_issued)) in faults.into_iter().enumerate() {
        let before = certbot.serial("a.example");
        make(&certbot.live().join("a.example"), &certbot.config_dir().join("archive/a.example"));
        cmd.run(&["assemble"]).exits(1);
        let said = problem(&json(&cmd, &[]).exits(1), word, "warning", "");
        let commands = said["commands"].as_array().unwrap();
        assert!(!commands[0].as_str().unwrap().contains("certbot delete"), "{said}");
        if number == 6 {
            // The run that follows the new one's issue still refuses the old one.
            for command in commands {
                shell.run(command.as_str().unwrap());
            }
        } else {
            shell.follow(&said);
        }
        json(&cmd, &[]).exits(0);
        // Only where nothing was left of it has the lineage another name.
        let is_new = number == 6;
        let name = if is_new { "a.example-0001" } else { "a.example" };
        assert_eq!(cmd.deployed(), [format!("{name}.pem")], "{said}");
        assert_eq!(certbot.serial(name) != before, is_issued, "{said}");
        // certbot takes it as it is.
        assert!(certbot.run(&["renew", "--dry-run", "--cert-name", name]).status.success(), "{said}");
    }
}

// ---- the last run ---------------------------------------------------------------------------------------------------

/// A file system of some kilobytes, which a file fills up.
struct Tiny {
    folder: tempfile::TempDir,
}

impl Tiny {
    /// `None` where we may not mount one.
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=256k,mode=755", "tmpfs"])
            .arg(folder.path())
            .status();
        mounted.is_ok_and(|status| status.success()).then_some(Self { folder })
    }

    fn fill(&self) -> PathBuf {
        use std::io::Write as _;
        let path = self.folder.path().join("full");
        let mut file = fs::File::create(&path).unwrap();
        while file.write_all(&[0; 1024]).is_ok() {}
        path
    }
}

impl Drop for Tiny {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.folder.path()).status();
    }
}

#[test]
fn a_run_that_failed_for_a_full_disk_is_the_last_run() {
    let Some(tiny) = Tiny::mount() else {
        support::summary::skipped(
            "a_run_that_failed_for_a_full_disk_is_the_last_run",
            "no file system can be mounted here",
        );
        return;
    };
    let mut tree = Tree::new();
    tree.issue("a.example", KeyKind::P256, &["a.example"], Validity::days(90));
    let cmd = Cmd::new(tree.live()).with_sites(tiny.folder.path().join("sites")).without_haproxy();
    cmd.run(&["assemble"]).exits(0);
    json(&cmd, &[]).exits(0);
    let filler = tiny.fill();
    tree.renew("a.example");
    let failed = cmd.run(&["assemble"]).exits(3);
    assert!(failed.stderr.contains("no space left on device"), "{failed}");
    let run = json(&cmd, &[]).exits(1);
    let said = problem(&run, "run-failed", "warning", "no space left on device");
    assert_eq!(run.json()["last_run"]["exit"], 3, "{run}");
    let human = cmd.run(&["status"]).exits(1).stdout;
    assert!(human.contains("ago, failed: "), "{human}");
    assert!(!human.contains("everything in step"), "{human}");
    // "mend that": make room.
    fs::remove_file(filler).unwrap();
    Shell::of(&cmd, None).follow(&said);
    json(&cmd, &[]).exits(0);
}

/// What another run is writing just now isn't taken away from it; what a dead one left is.
#[test]
fn the_record_that_a_living_run_writes_stays() {
    let (_tree, cmd, _haproxy) = healthy(&system_haproxy());
    let own = cmd.sites().join(".haproxy-certs");
    let [living, dead] = [std::process::id(), 4_194_300].map(|pid| own.join(format!("last-run.json.{pid}")));
    for file in [&living, &dead] {
        fs::write(file, "{}").unwrap();
    }
    cmd.run(&["assemble"]).exits(0);
    assert!(living.exists() && !dead.exists());
}

// ---- how it looks ---------------------------------------------------------------------------------------------------

#[test]
fn status_prints_at_every_width() {
    let mut tree = Tree::new();
    let names: Vec<String> = (0..9).map(|number| format!("a-long-name-{number}.of.a.site.example")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    tree.issue(names[0], KeyKind::P256, &names, Validity::left(0.2));
    let cmd = Cmd::new(tree.live()).without_haproxy();
    cmd.run(&["assemble"]).exits(0);
    let mut cmd = cmd;
    for columns in [1, 20, 21, 33, 40, 47, 54, 60, 66, 72, 73, 74, 80, 109, 110, 200] {
        cmd = cmd.env("COLUMNS", columns.to_string());
        let run = cmd.run(&["-v", "status"]).exits(1);
        assert_eq!(run.stderr, "", "{columns}");
        // No name is lost, and commands stay whole.
        let text = run.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
        for name in &names {
            assert!(text.contains(name), "{columns}: no {name} in {run}");
        }
        let folder = tree.live().parent().unwrap().to_owned();
        let command = format!("certbot renew --config-dir {} --cert-name {}", folder.display(), names[0]);
        assert!(run.stdout.lines().any(|line| line.contains(&command)), "{columns}: {run}");
        let table = run.stdout.lines().next().unwrap();
        assert!(table.len() <= columns.max(20), "{columns}: {table:?}");
    }
}

#[test]
fn loaded_is_not_served() {
    for version in versions() {
        let (mut tree, cmd, mut haproxy) = healthy(&version);
        tree.issue("z.example", KeyKind::P256, &["a.example"], Validity::days(90));
        tree.issue("zz.example", KeyKind::P256, &["a.example", "zz.example"], Validity::days(90));
        cmd.run(&["assemble", "--reload", "none"]);
        haproxy.reload_and_wait();
        let run = json(&cmd, &[]).exits(1);
        for (file, serves) in [("a", "all"), ("z", "none"), ("zz", "some")] {
            let site = run.site(&format!("{file}.example.pem"));
            assert_eq!(site["haproxy"][0]["state"], "current", "{}: {run}", version.full);
            assert_eq!(site["haproxy"][0]["serves"], serves, "{}: {run}", version.full);
        }
        let human = cmd.run(&["status"]).exits(1).stdout;
        let row = |file: &str| human.lines().find(|line| line.contains(file)).unwrap().to_owned();
        assert!(row("WARN z.example.pem").ends_with(" loaded"), "{human}");
        assert!(row("WARN zz.example.pem").ends_with(" partly"), "{human}");
        assert!(row("ok   a.example.pem").ends_with(" current"), "{human}");
    }
}

/// What is wrong is coloured by its word, not as a whole.
#[test]
fn the_word_is_coloured() {
    let (mut tree, cmd, _haproxy) = healthy(&system_haproxy());
    tree.renew("a.example");
    cmd.run(&["assemble", "--reload", "none"]).exits(0);
    let text = cmd.run(&["--color", "always", "status"]).exits(2).stdout;
    assert!(text.contains("\x1b[31mCRIT\x1b[0m a.example.pem"), "{text:?}");
    assert!(text.contains("\x1b[31mCRITICAL:\x1b[0m "), "{text:?}");
}
