//! What is changed in memory ends as a HAProxy would answer that starts from the same files: every name, on every bind,
//! with either kind of key and without a name, is asked of the running HAProxy and of one that was just started.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may fail loudly")]

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use support::cmd::toml;
use support::haproxy::Setup;
use support::scene::put;
use support::tls::try_served_to;
use support::{Cmd, Haproxy, KeyKind, LIMIT, Reload, Run, Tree, Validity, Version, versions, wait_until};

/// Clients by what they can: OpenSSL's signature algorithms.
const CLIENTS: [Option<&str>; 3] =
    [None, Some("ECDSA+SHA256:ECDSA+SHA384"), Some("RSA-PSS+SHA256:RSA+SHA256")];

/// Every name of a certificate below, and others.
const NAMES: [&str; 9] = [
    "a.test",
    "example.com",
    "www.example.com",
    "z.test",
    "host.test",
    "legacy.test",
    "new.test",
    "unknown.test",
    "",
];

/// The `crt` of each bind line; `@` is the folder that the directory is in.
type Binds = &'static [&'static [&'static str]];

const ALONE: Binds = &[&["@/sites"]];
const BEFORE_ANOTHER: Binds = &[&["@/host.pem", "@/sites", "@/legacy"]];
const BEHIND_ANOTHER: Binds = &[&["@/host.pem", "@/legacy", "@/sites"]];
const CROSSED: Binds = &[&["@/sites", "@/legacy"], &["@/legacy", "@/sites"]];
const SPELLED: Binds = &[&["@/sites"], &["@/link", "@/other/./../sites/"], &["@/sites//a.pem", "@/sites"]];

/// A HAProxy with certbot's tree beside it.
struct System {
    tree: Tree,
    cmd: Cmd,
    haproxy: Haproxy,
}

impl System {
    /// Four lineages of which two share a name, a host certificate and another directory, each of which shares one with
    /// them.
    fn start(version: &Version, binds: Binds, table: &str, setup: impl FnOnce(Setup) -> Setup) -> Self {
        let tree = Tree::of(&[
            ("a", &["a.test"][..]),
            ("example.com", &["example.com", "www.example.com"]),
            ("example.com-0001", &["example.com"]),
            ("z", &["z.test", "host.test"]),
        ]);
        let cmd = Cmd::new(tree.live());
        let folder = cmd.sites().parent().unwrap().to_owned();
        for (file, names) in [
            ("host.pem", &["host.test", "www.example.com"][..]),
            ("legacy/a.pem", &["a.test"]),
            ("legacy/l.pem", &["z.test", "legacy.test"]),
        ] {
            fs::create_dir_all(folder.join(file).parent().unwrap()).unwrap();
            let leaf = tree.authority().issue(KeyKind::P256, names, Validity::days(90));
            put(&folder.join(file), leaf.combined(), 0o400);
        }
        fs::create_dir(folder.join("other")).unwrap();
        std::os::unix::fs::symlink(cmd.sites(), folder.join("link")).unwrap();
        let cmd = cmd.without_haproxy();
        let first = cmd.assemble(&[]);
        assert!(matches!(first.code, Some(0 | 1)), "{first}");
        let mut making = Haproxy::of(version);
        for (place, bind) in binds.iter().enumerate() {
            if place > 0 {
                making = making.another_bind();
            }
            for crt in *bind {
                making = making.crt(crt.replace('@', folder.to_str().unwrap()));
            }
        }
        let haproxy = setup(making).start();
        let table = format!(
            "[[haproxy]]\nunit = \"no-such-unit.service\"\nbinary = {}\npidfile = {}\nruntime_socket = {}\n{}",
            toml(&haproxy.version().program),
            toml(&haproxy.pidfile()),
            toml(&haproxy.stats_socket()),
            table.replace("MASTER", &toml(&haproxy.master_socket())),
        );
        let cmd = cmd.with_tables(&table);
        Self { tree, cmd, haproxy }
    }

    fn renew(&mut self, names: &[&str]) {
        for name in names {
            self.tree.renew(name);
        }
    }

    /// One run, and what it says of HAProxy.
    #[track_caller]
    fn run(&self) -> (Run, Value) {
        let run = self.cmd.assemble(&[]);
        let row = run.haproxy();
        (run, row)
    }

    /// One run that says that HAProxy has everything: then it answers as one that starts now. By which method.
    #[track_caller]
    fn deploys(&self, context: &str) -> String {
        let (run, row) = self.run();
        assert!(matches!(run.code, Some(0 | 1)), "{context}: {run}");
        assert_eq!(
            (&row["confirmed"], &row["owed"]),
            (&Value::Bool(true), &Value::Bool(false)),
            "{context}: {run}"
        );
        self.answers_as_a_fresh_one(context);
        row["method"].as_str().unwrap().to_owned()
    }

    /// The same where the configuration was changed since the start: a restart shows what a fresh one answers.
    #[track_caller]
    fn runs(&mut self, context: &str) -> String {
        let (run, row) = self.run();
        assert_eq!(
            (&row["confirmed"], &row["owed"]),
            (&Value::Bool(true), &Value::Bool(false)),
            "{context}: {run}"
        );
        wait_until(LIMIT, "the old workers' end", || {
            self.haproxy.processes().is_some_and(|shown| shown.old_workers.is_empty())
        });
        let before = answers(&self.haproxy);
        self.haproxy.run_again();
        assert_eq!(before, answers(&self.haproxy), "{context}, HAProxy {}", self.haproxy.version().full);
        row["method"].as_str().unwrap().to_owned()
    }

    #[track_caller]
    fn answers_as_a_fresh_one(&self, context: &str) {
        let fresh = self.haproxy.twin();
        // Until the old workers are gone a connection may still reach one of them.
        wait_until(LIMIT, "the old workers' end", || {
            self.haproxy.processes().is_none_or(|shown| shown.old_workers.is_empty())
        });
        let version = &self.haproxy.version().full;
        assert_eq!(answers(&self.haproxy), answers(&fresh), "{context}, HAProxy {version}");
    }
}

/// What every client is shown on every bind.
fn answers(haproxy: &Haproxy) -> BTreeMap<(usize, &'static str, usize), Option<String>> {
    let mut answers = BTreeMap::new();
    for (bind, address) in haproxy.addresses().into_iter().enumerate() {
        for name in NAMES {
            for (client, able) in CLIENTS.iter().enumerate() {
                let shown = try_served_to(address, name, *able).ok().map(|shown| shown.sha256);
                answers.insert((bind, name, client), shown);
            }
        }
    }
    answers
}

/// Each version on a thread of its own.
fn with_each(test: fn(&Version)) {
    thread::scope(|scope| {
        for version in versions() {
            scope.spawn(move || test(&version));
        }
    });
}

const MASTER: &str = "master_socket = MASTER";
const NO_MASTER: &str = "master_socket = \"/nowhere/master.sock\"";

#[test]
fn a_name_shared_within_the_directory_stays_with_its_winner() {
    with_each(|version| {
        let mut system = System::start(version, ALONE, MASTER, |setup| setup);
        system.renew(&["example.com"]);
        assert_eq!(system.deploys("the loser"), "runtime");
        system.renew(&["a"]);
        assert_eq!(system.deploys("another"), "runtime");
        system.renew(&["example.com-0001"]);
        assert_ne!(system.deploys("the winner"), "runtime");
        system.renew(&["example.com-0001", "example.com"]);
        assert_eq!(system.deploys("both"), "runtime");
    });
}

#[test]
fn a_name_shared_with_another_directory_or_file_stays_with_its_winner() {
    with_each(|version| {
        let mut system = System::start(version, BEFORE_ANOTHER, MASTER, |setup| setup);
        system.renew(&["a"]);
        assert_ne!(system.deploys("the winner"), "runtime");
        system.renew(&["example.com"]);
        assert_eq!(system.deploys("a loser to the host certificate"), "runtime");
        // New, and another directory has its name.
        system.tree.issue("n", KeyKind::P256, &["new.test", "legacy.test"], Validity::days(90));
        assert_ne!(system.deploys("new, before another"), "runtime");
        system.tree.issue("o", KeyKind::P256, &["o.test"], Validity::days(90));
        assert_eq!(system.deploys("new"), "runtime");

        let mut system = System::start(version, BEHIND_ANOTHER, MASTER, |setup| setup);
        system.renew(&["a", "z"]);
        assert_eq!(system.deploys("losers"), "runtime");
        system.tree.issue("n", KeyKind::P256, &["new.test", "legacy.test"], Validity::days(90));
        system.deploys("new, behind another");
    });
}

#[test]
fn a_file_that_is_loaded_under_several_names_is_told_under_each() {
    with_each(|version| {
        let mut system = System::start(version, SPELLED, MASTER, |setup| setup);
        system.renew(&["a", "example.com", "z"]);
        system.deploys("several spellings");
        system.renew(&["example.com-0001"]);
        system.deploys("several spellings, shared");
        system.tree.issue("n", KeyKind::P256, &["new.test"], Validity::days(90));
        system.deploys("several spellings, new");
    });
}

#[test]
fn what_is_not_ours_and_changed_is_not_passed_over() {
    with_each(|version| {
        let mut system = System::start(version, BEFORE_ANOTHER, MASTER, |setup| setup);
        let legacy = system.cmd.beside("legacy").join("l.pem");
        let leaf = system.tree.authority().issue(KeyKind::P256, &["legacy.test"], Validity::days(90));
        put(&legacy, leaf.combined(), 0o400);
        system.renew(&["example.com"]);
        system.deploys("another's file changed");
        put(&system.cmd.sites().join("0-first.pem"), leaf.combined(), 0o400);
        system.renew(&["example.com"]);
        system.deploys("another's file came");
        fs::remove_file(system.cmd.sites().join("0-first.pem")).unwrap();
        system.renew(&["example.com"]);
        system.deploys("another's file went");
    });
}

#[test]
fn where_no_reload_is_possible_the_losers_are_committed_again() {
    with_each(|version| {
        let table = "reload = \"runtime\"\nmaster_socket = MASTER";
        let mut system = System::start(version, BEFORE_ANOTHER, table, |setup| setup);
        system.renew(&["example.com-0001", "a", "z"]);
        assert_eq!(system.deploys("by the Runtime API alone"), "runtime");

        let mut system = System::start(version, BEHIND_ANOTHER, NO_MASTER, Setup::without_master);
        system.renew(&["example.com-0001", "a", "z"]);
        assert_eq!(system.deploys("a HAProxy without a master"), "runtime");

        // One order of commits can't serve both binds.
        let mut system = System::start(version, CROSSED, table, |setup| setup);
        system.renew(&["a", "example.com"]);
        let (run, row) = system.run();
        assert_eq!((run.code, &row["owed"]), (Some(2), &Value::Bool(true)), "{run}");
        assert_ne!(row["confirmed"], Value::Bool(true), "{run}");
        assert!(row["detail"].as_str().unwrap().contains("different orders"), "{run}");
    });
}

/// A socket of another host, say: nothing tells which HAProxy answers there, nor what it loads.
#[test]
fn where_the_configuration_is_not_known_no_name_changes_hands() {
    with_each(|version| {
        for binds in [ALONE, BEFORE_ANOTHER, BEHIND_ANOTHER] {
            let what = format!("{binds:?}, HAProxy {}", version.full);
            let port = support::Port::free();
            let stats = format!("  stats socket ipv4@{} level admin", port.address());
            let mut system = System::start(version, binds, MASTER, |setup| setup.global(&stats));
            // Which of the two it is shows nowhere.
            let _another = Haproxy::of(version).crt(system.cmd.sites()).start();
            let table = format!("[[haproxy]]\nname = \"far\"\nruntime_socket = \"{}\"\n", port.address());
            system.cmd.set_tables(&table);
            let served = |system: &System| support::served(system.haproxy.address(), "a.test");

            system.renew(&["example.com-0001"]);
            let (run, row) = system.run();
            let is_host_before = binds != ALONE;
            if !is_host_before {
                assert_eq!(
                    (&row["outcome"], &row["owed"]),
                    (&"updated".into(), &false.into()),
                    "{what}: {run}"
                );
                assert!(row["confirmed"].is_null(), "{what}: {run}");
                system.answers_as_a_fresh_one(&what);
                let probing = &mut system.cmd;
                probing.set_tables(&format!("{table}probe = [\"{}\"]", system.haproxy.address()));
                system.renew(&["a"]);
                let detail = system.cmd.assemble(&[]).haproxy()["detail"].to_string();
                assert!(detail.contains("set config of") && !detail.contains("or probe"), "{what}: {detail}");
                continue;
            }
            let before = served(&system);
            system.renew(&["a"]);
            let (run, row) = system.run();
            let shows_order = version.number() >= (3, 2);
            if shows_order && binds == BEHIND_ANOTHER {
                assert_eq!(
                    (&row["outcome"], &row["owed"]),
                    (&"updated".into(), &false.into()),
                    "{what}: {run}"
                );
                system.answers_as_a_fresh_one(&what);
                continue;
            }
            assert_eq!((run.code, &row["owed"]), (Some(2), &Value::Bool(true)), "{what}: {run}");
            let detail = row["detail"].as_str().unwrap();
            assert!(
                detail.contains("shares") && detail.contains("reload HAProxy where it runs"),
                "{what}: {run}"
            );
            assert_eq!(served(&system), before, "{what}: {run}");
            assert_eq!(system.cmd.run(&["status", "--format", "json"]).code, Some(2), "{what}");
            // What is said leads out.
            system.haproxy.reload_and_wait();
            let (run, row) = system.run();
            assert_eq!(
                (&row["outcome"], &row["owed"]),
                (&"not-needed".into(), &false.into()),
                "{what}: {run}"
            );
            system.answers_as_a_fresh_one(&what);
        }
    });
}

#[test]
fn what_needs_a_reload_holds_nothing_else_back() {
    with_each(|version| {
        let master = |setup: Setup| setup;
        for (what, table, setup) in [
            ("without a master", NO_MASTER, Setup::without_master as fn(Setup) -> Setup),
            ("runtime", "reload = \"runtime\"\nmaster_socket = MASTER", master),
            ("broken elsewhere", "reload = \"master\"\nmaster_socket = MASTER", master),
        ] {
            let mut system = System::start(version, ALONE, table, setup);
            let config = fs::read_to_string(system.haproxy.config()).unwrap();
            if what == "broken elsewhere" {
                fs::write(system.haproxy.config(), format!("{config}  bogus-keyword on\n")).unwrap();
            }
            system.tree.delete("z");
            system.renew(&["a"]);
            for round in 1..=2 {
                let (run, row) = system.run();
                assert_eq!((run.code, &row["owed"]), (Some(2), &Value::Bool(true)), "{what}, {round}: {run}");
                // What is refused for whatever reason takes no prune with it.
                let detail = row["detail"].as_str().unwrap();
                let is_refused = what == "broken elsewhere" && detail.contains("bogus-keyword");
                assert!(is_refused || detail.contains("z.pem: is removed"), "{what}: {run}");
                let shown = support::served(system.haproxy.address(), "a.test");
                assert_eq!(shown, system.tree.leaf("a").served(), "{what}");
            }
            fs::write(system.haproxy.config(), config).unwrap();
            system.haproxy.run_again();
            system.answers_as_a_fresh_one(what);
        }
    });
}

/// The file in the host certificate's place is nobody's to renew where no lineage is meant for it: what it takes is said.
#[test]
fn a_file_in_the_host_certificates_place_shadows_where_nobody_renews_it() {
    with_each(|version| {
        let mut system = System::start(version, BEFORE_ANOTHER, MASTER, |setup| setup);
        let host = system.cmd.beside("host.pem");
        system.cmd = system.cmd.option(&format!("host_file = {}", toml(&host)));
        system.renew(&["example.com"]);
        let run = system.cmd.assemble(&[]).exits(1);
        assert_eq!(run.site("z.pem")["warnings"], serde_json::json!(["shadowed"]), "{run}");
        assert_eq!(
            support::served(system.haproxy.address(), "host.test").names,
            ["host.test", "www.example.com"]
        );
        // Where a lineage is meant for it, it is renewed, and first on purpose.
        let cmd = system.cmd.option("host_lineage = \"a\"");
        let run = cmd.assemble(&["--dry-run", "--adopt"]);
        assert_eq!(run.site("z.pem")["warnings"], serde_json::json!([]), "{run}");
    });
}

/// 2.2 keeps what it has for a default without a name, and for servers.
#[test]
fn where_a_commit_does_not_reach_everybody_haproxy_is_reloaded() {
    with_each(|version| {
        let mut system = System::start(version, ALONE, MASTER, |setup| setup);
        system.haproxy.stop();
        let list = system.cmd.beside("list");
        let line = |name: &str, filter: &str| format!("{} {filter}\n", system.cmd.site(name).display());
        fs::write(&list, line("a", "*") + &line("example.com", "") + &line("z", "")).unwrap();
        let server = format!(
            "backend b\n  server s 127.0.0.1:1 ssl crt {} verify none",
            system.cmd.site("z").display()
        );
        system.haproxy = Haproxy::of(version)
            .bind_option(&format!("crt-list {}", list.display()))
            .section(&server)
            .start();
        system.cmd = system.cmd.with_tables("").haproxy(&system.haproxy, "");
        system.cmd.assemble(&[]);
        for (name, old) in [("a", "nameless"), ("z", "for a server")] {
            system.renew(&[name]);
            let (run, row) = system.run();
            assert_eq!((&row["confirmed"], &row["owed"]), (&true.into(), &false.into()), "{run}");
            let is_reload = row["method"] != "runtime";
            assert_eq!(is_reload, version.number() < (2, 6), "{old}, {}: {run}", version.full);
            system.answers_as_a_fresh_one(old);
        }
    });
}

#[test]
fn somebody_elses_reload_in_flight_is_seen_without_a_master_socket() {
    with_each(|version| {
        let folder = tempfile::tempdir().unwrap();
        let gate = folder.path().join("addresses");
        fs::write(&gate, "127.0.0.1\n").unwrap();
        let section = format!("backend gated\n  acl gated src -f {}", gate.display());
        let mut system = System::start(version, ALONE, NO_MASTER, |setup| setup.section(&section));
        let before = system.haproxy.processes().unwrap();
        // It has read the certificates, and waits for the rest of its configuration.
        fs::remove_file(&gate).unwrap();
        nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::S_IRWXU).unwrap();
        system.haproxy.signal_reload();
        let mut held = None;
        wait_until(LIMIT, "HAProxy reads the gate's file", || {
            let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
            held = fs::File::options().write(true).custom_flags(flags).open(&gate).ok();
            held.is_some()
        });
        system.renew(&["a"]);
        let (run, row) = thread::scope(|scope| {
            let running = scope.spawn(|| system.run());
            let new = system.tree.leaf("a").combined();
            wait_until(LIMIT, "the file is in place", || {
                fs::read_to_string(system.cmd.site("a")).is_ok_and(|text| text == new)
            });
            thread::sleep(Duration::from_secs(3));
            let next = folder.path().join("next");
            fs::write(&next, "127.0.0.1\n").unwrap();
            fs::rename(next, &gate).unwrap();
            drop(held);
            running.join().unwrap()
        });
        assert!(matches!(run.code, Some(0 | 1)), "{run}");
        assert_eq!(row["confirmed"], Value::Bool(true), "{run}");
        assert_eq!(system.haproxy.wait_for_reload(&before), Reload::Loaded);
        let shown = support::served(system.haproxy.address(), "a.test");
        assert_eq!(shown, system.tree.leaf("a").served(), "HAProxy {}: {run}", version.full);
    });
}

#[test]
fn the_filters_of_a_list_are_the_names_of_its_files() {
    with_each(|version| {
        let mut system = System::start(version, ALONE, MASTER, |setup| setup);
        let list = system.cmd.beside("list");
        let legacy = system.cmd.beside("legacy");
        fs::write(&list, format!("{}/l.pem *.filter.test a.test\n", legacy.display())).unwrap();
        let config = fs::read_to_string(system.haproxy.config()).unwrap();
        let line = format!(" crt-list {}\n  http-request return", list.display());
        let config = config.replace("\n  http-request return", &line);
        let sites = format!("crt {}", system.cmd.sites().display());
        assert!(config.contains(&sites), "{config}");
        fs::write(system.haproxy.config(), config).unwrap();
        assert_eq!(system.haproxy.reload_and_wait(), Reload::Loaded);
        system.renew(&["z"]);
        assert_eq!(system.runs("its own names don't count"), "runtime");
        system.renew(&["a"]);
        assert_ne!(system.runs("its filters do"), "runtime");
    });
}

#[test]
fn a_host_certificate_of_ours_that_shares_a_name_stays_the_winner() {
    with_each(|version| {
        let mut system = System::start(version, BEHIND_ANOTHER, MASTER, |setup| setup);
        let host = system.cmd.beside("host.pem");
        fs::remove_file(&host).unwrap();
        system.cmd =
            system.cmd.option("host_lineage = \"z\"").option(&format!("host_file = {}", toml(&host)));
        assert_ne!(system.deploys("another host certificate"), "runtime");
        system.renew(&["z"]);
        system.deploys("renewed in two places");
        system.renew(&["example.com"]);
        assert_eq!(system.deploys("another"), "runtime");
    });
}

#[test]
fn a_configuration_that_is_not_understood_is_told_by_a_reload() {
    with_each(|version| {
        if version.number() < (2, 4) {
            return; // It has no conditional blocks.
        }
        let mut system =
            System::start(version, ALONE, MASTER, |setup| setup.section(".if feature(OPENSSL)\n.endif"));
        system.renew(&["a"]);
        assert_ne!(system.deploys("a conditional block"), "runtime");
        system.cmd = system.cmd.table("reload = \"runtime\"");
        system.renew(&["a"]);
        let (run, row) = system.run();
        // Nothing false is said.
        assert_eq!((&row["outcome"], &row["confirmed"]), (&"updated".into(), &Value::Null), "{run}");
        system.answers_as_a_fresh_one("in memory");
    });
}

#[test]
fn a_chain_that_haproxy_adds_is_no_difference() {
    with_each(|version| {
        let chains = tempfile::tempdir().unwrap();
        let tree = Tree::new();
        let authority = tree.authority();
        fs::write(chains.path().join("i.pem"), authority.intermediate()).unwrap();
        drop(tree);
        let line = format!("  issuers-chain-path {}", chains.path().display());
        let mut system = System::start(version, ALONE, MASTER, |setup| setup.global(&line));
        fs::write(chains.path().join("i.pem"), system.tree.authority().intermediate()).unwrap();
        assert_eq!(system.haproxy.reload_and_wait(), Reload::Loaded);
        let workers = system.haproxy.worker_pids();
        let mut leaf = system.tree.authority().issue(KeyKind::P256, &["a.test"], Validity::days(90));
        leaf.chain = String::new();
        system.tree.renew_with("a", &leaf);
        assert_eq!(system.deploys("a leaf without its chain"), "runtime");
        assert_eq!(system.haproxy.worker_pids(), workers, "no reload");
        assert_eq!(
            support::served(system.haproxy.address(), "a.test").chain_len,
            2,
            "HAProxy {}",
            version.full
        );
    });
}

#[test]
fn a_probe_that_contradicts_is_followed_by_a_reload() {
    with_each(|version| {
        let mut system = System::start(version, ALONE, MASTER, |setup| setup);
        // Somebody has put another certificate before ours, in memory.
        let folder = system.cmd.sites();
        let reply = system.haproxy.runtime(&format!(
            "set ssl cert {} <<\n{}\n",
            folder.join("a.pem").display(),
            system.tree.authority().issue(KeyKind::P256, &["z.test"], Validity::days(90)).combined()
        ));
        assert!(reply.contains("Transaction created"), "{reply}");
        system.haproxy.runtime(&format!("commit ssl cert {}", folder.join("a.pem").display()));
        let probe = format!("probe = [\"{}\"]\n", system.haproxy.address());
        system.cmd = system.cmd.table(&probe);
        system.renew(&["z"]);
        let method = system.deploys("another certificate is in the way");
        assert_ne!(method, "runtime");
    });
}

/// Who doesn't answer at all, or not by TLS, isn't mended by a reload: one is enough for what needs one.
#[test]
fn a_probe_that_nobody_answers_reloads_nothing_again() {
    with_each(|version| {
        let closed = support::Port::free();
        let mut system = System::start(version, ALONE, MASTER, |setup| setup);
        let probe = |address: SocketAddr| format!("timeout = \"20s\"\nprobe = [\"{address}\"]");
        system.cmd.set_tables(&system.haproxy.table(&probe(closed.address())));
        let context = &version.full;
        let workers = |system: &System| {
            let shown = system.haproxy.processes().unwrap();
            shown.workers.iter().map(|worker| worker.pid).collect::<Vec<_>>()
        };
        let fails = |system: &System| {
            let (run, row) = system.run();
            assert_eq!((run.code, &row["owed"]), (Some(2), &Value::Bool(true)), "{context}: {run}");
            let detail = row["detail"].as_str().unwrap();
            assert!(detail.contains("no reload mends that: set probe"), "{run}");
        };
        let before = workers(&system);
        system.renew(&["a"]);
        fails(&system);
        fails(&system);
        assert_eq!(workers(&system), before, "{context}: in memory");
        assert_eq!(support::served(system.haproxy.address(), "a.test"), system.tree.leaf("a").served());
        // A pruned file needs one.
        system.tree.delete("z");
        fails(&system);
        let before = workers(&system);
        fails(&system);
        fails(&system);
        assert_eq!(workers(&system), before, "{context}: after a reload");
        let status = system.cmd.run(&["status"]);
        assert!(status.stdout.contains("set probe of"), "{context}: {status}");
        system.cmd.set_tables(&system.haproxy.table(&probe(system.haproxy.address())));
        let (run, row) = system.run();
        assert_eq!(row["owed"], Value::Bool(false), "{context}: {run}");
        assert_eq!(workers(&system), before, "{context}");
    });
}

/// A bind line that expects a proxy is named.
#[test]
fn a_probe_of_a_line_that_expects_a_proxy_is_told_so() {
    let mut tree = Tree::of(&[("a", &["a.test"][..])]);
    let cmd = Cmd::new(tree.live()).without_haproxy();
    cmd.assemble(&[]).exits(0);
    let haproxy =
        Haproxy::of(&support::system_haproxy()).crt(cmd.sites()).bind_option("accept-proxy").start();
    let probe = format!("timeout = \"20s\"\nprobe = [\"{}\"]", haproxy.address());
    let cmd = cmd.with_tables(&haproxy.table(&probe));
    tree.renew("a");
    let row = cmd.assemble(&[]).exits(2).haproxy();
    let detail = row["detail"].as_str().unwrap();
    assert!(detail.contains("has accept-proxy, so only a proxy reaches it: set probe of"), "{row}");
}

/// The host certificate is a lineage's, and comes first: its names aren't served from what sorts first in the directory.
#[test]
fn the_host_certificates_lineage_is_not_shadowed_by_what_sorts_first() {
    with_each(|version| {
        let tree = Tree::of(&[("lb", &["lb.test", "a.test"][..]), ("a", &["a.test"])]);
        let cmd = Cmd::new(tree.live()).option("host_lineage = \"lb\"").without_haproxy();
        let host = format!("host_file = {}", toml(&cmd.beside("host.pem")));
        let cmd = cmd.option(&host);
        cmd.assemble(&[]);
        let haproxy = Haproxy::of(version).crt(cmd.beside("host.pem")).crt(cmd.sites()).start();
        assert_eq!(
            support::served(haproxy.address(), "a.test"),
            tree.leaf("lb").served(),
            "{}",
            version.full
        );
        let cmd = cmd.with_tables(&haproxy.table(""));
        let run = cmd.assemble(&[]).exits(0);
        assert_eq!(run.site("lb.pem")["warnings"], serde_json::json!([]), "{}: {run}", version.full);
        assert!(!run.stdout.contains("sorts first"), "{}: {run}", version.full);
    });
}
