//! What HAProxy refuses although the key belongs to its certificate: the previous files come back, once and for good.
//!
//! The refusal is a real one: HAProxy runs with OpenSSL's security level 3, which refuses RSA keys of 2048 bits. Its
//! environment says so, and the check of the staged files passes because it is kept from seeing that.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may fail loudly")]

use std::fs;

use support::live::{demanding_openssl, unaware};
use support::{Cmd, Haproxy, KeyKind, Leaf, Tree, Validity, Version, served, versions};

/// A tree with two lineages, deployed, and a strict HAProxy that serves them.
struct Strict {
    tree: Tree,
    cmd: Cmd,
    haproxy: Haproxy,
    old: Leaf,
    _folder: tempfile::TempDir,
}

impl Strict {
    fn start(version: &Version, reload: &str) -> Self {
        let mut tree = Tree::new();
        tree.issue("a.example", KeyKind::P256, &["a.example"], Validity::days(90));
        let old = tree.issue("b.example", KeyKind::P256, &["b.example"], Validity::days(90));
        let folder = tempfile::tempdir().unwrap();
        let level = demanding_openssl(folder.path());
        let first = Cmd::new(tree.live()).without_haproxy();
        first.assemble(&[]).exits(0);
        let sites = folder.path().join("sites");
        fs::rename(first.sites(), &sites).unwrap();
        let setup = Haproxy::of(&unaware(version, folder.path())).crt(&sites).env("OPENSSL_CONF", &level);
        let haproxy = setup.start();
        let more = format!("reload = \"{reload}\"\ntimeout = \"30s\"");
        let cmd = Cmd::new(tree.live()).with_sites(&sites).haproxy(&haproxy, &more);
        Self { tree, cmd, haproxy, old, _folder: folder }
    }

    fn renew_with(&mut self, lineage: &str, kind: KeyKind) -> Leaf {
        let leaf = self.tree.authority().issue(kind, &[lineage], Validity::days(90));
        self.tree.renew_with(lineage, &leaf);
        leaf
    }

    fn serves(&self, lineage: &str, leaf: &Leaf) -> bool {
        served(self.haproxy.address(), lineage).serial == leaf.serial()
    }

    /// No previous or staged file is left, and nothing is owed.
    fn is_tidy(&self) {
        let own = self.cmd.sites().join(".haproxy-certs");
        for folder in ["stage", "previous", "last"] {
            if own.join(folder).exists() {
                assert_eq!(support::cmd::names_in(&own.join(folder)), Vec::<String>::new(), "{folder}");
            }
        }
        let state: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(own.join("state.json")).unwrap()).unwrap();
        assert_eq!((&state["owed"], &state["pending"]), (&serde_json::json!({}), &serde_json::json!({})));
    }
}

fn a_refused_renewal_is_put_back(reload: &str) {
    for version in versions() {
        let mut strict = Strict::start(&version, reload);
        let new = strict.renew_with("a.example", KeyKind::P256);
        strict.renew_with("b.example", KeyKind::Rsa2048);

        let report = strict.cmd.assemble(&[]).exits(2);
        let told = &report.json()["haproxy"][0];
        assert_eq!(told["outcome"], "rolled-back", "{}: {told}", version.full);
        assert_eq!(told["owed"], false, "{}: {told}", version.full);
        assert_eq!(report.action("a.example.pem"), "replace", "{}", version.full);
        assert_eq!(report.action("b.example.pem"), "refuse", "{}", version.full);
        assert_eq!(report.reason("b.example.pem").as_deref(), Some("haproxy-rejects"), "{}", version.full);
        let detail = report.site("b.example.pem")["detail"].as_str().unwrap().to_owned();
        assert!(
            detail.contains("too small") || detail.contains("b.example.pem"),
            "{}: {detail}",
            version.full
        );
        assert!(strict.serves("a.example", &new), "{}: the good one is served", version.full);
        assert!(strict.serves("b.example", &strict.old), "{}: the old one is still served", version.full);
        assert_eq!(fs::read_to_string(strict.cmd.site("b.example")).unwrap(), strict.old.combined());
        strict.is_tidy();

        // Remembered: not tried again, and nobody is notified.
        let again = strict.cmd.assemble(&[]).exits(1);
        assert_eq!(again.reason("b.example.pem").as_deref(), Some("haproxy-rejects"), "{}", version.full);
        assert_eq!(again.json()["haproxy"][0]["outcome"], "not-needed", "{}", version.full);

        let better = strict.renew_with("b.example", KeyKind::P256);
        let mended = strict.cmd.assemble(&[]).exits(0);
        assert_eq!(mended.action("b.example.pem"), "replace", "{}", version.full);
        assert!(strict.serves("b.example", &better), "{}: a better one is deployed", version.full);
        strict.is_tidy();
    }
}

#[test]
fn a_renewal_that_a_reload_refuses_is_put_back() {
    a_refused_renewal_is_put_back("pidfile");
}

#[test]
fn a_renewal_that_the_runtime_api_refuses_is_put_back() {
    a_refused_renewal_is_put_back("auto");
}

/// Nobody refuses a reload of a HAProxy that is down: its configuration is asked about in its place. It asks more of a key
/// than the check of the staged files, which knows nothing of its settings.
#[test]
fn a_renewal_that_keeps_a_stopped_haproxy_from_starting_is_put_back() {
    // `ssl-security-level` is new in 3.0.
    for version in versions().into_iter().filter(|version| version.number() >= (3, 0)) {
        for is_named in [true, false] {
            let mut tree = Tree::new();
            let old = tree.issue("a.example", KeyKind::P256, &["a.example"], Validity::days(90));
            let first = Cmd::new(tree.live()).without_haproxy();
            first.assemble(&[]).exits(0);
            let setup = Haproxy::of(&version).crt(first.sites()).global("ssl-security-level 3");
            let mut haproxy = setup.start();
            let config =
                if is_named { format!("config = [{:?}]\n", haproxy.config()) } else { String::new() };
            let more = format!("{config}binary = {:?}\ntimeout = \"1m\"", version.program);
            let cmd = first.with_tables(&haproxy.table(&more));
            // How it is started is seen while it runs.
            cmd.assemble(&[]).exits(0);
            haproxy.stop();

            let bad = tree.authority().issue(KeyKind::Rsa2048, &["a.example"], Validity::days(90));
            tree.renew_with("a.example", &bad);
            tree.issue("b.example", KeyKind::P256, &["b.example"], Validity::days(90));
            let refused = cmd.assemble(&[]).exits(2);
            let context = format!("{}, {is_named}: {refused}", version.full);
            assert_eq!(refused.json()["haproxy"][0]["outcome"], "rolled-back", "{context}");
            assert_eq!(refused.reason("a.example.pem").as_deref(), Some("haproxy-rejects"), "{context}");
            assert_eq!(refused.action("b.example.pem"), "install", "{context}");
            assert_eq!(fs::read_to_string(cmd.site("a.example")).unwrap(), old.combined(), "{context}");
            cmd.assemble(&["--full"]).exits(1);
            haproxy.run_again();
            assert_eq!(served(haproxy.address(), "a.example").serial, old.serial(), "{context}");

            // Where it is the settings that change meanwhile, no file is to blame; status says what they are.
            haproxy.stop();
            let text = fs::read_to_string(haproxy.config()).unwrap();
            fs::write(haproxy.config(), text.replace("security-level 3", "security-level 5")).unwrap();
            let status = cmd.run(&["status"]).exits(2);
            assert!(status.stdout.contains("haproxy-config"), "{context}: {status}");
        }
    }
}

#[test]
fn a_new_file_that_is_refused_goes_again_and_a_pruned_one_comes_not_back() {
    for version in versions() {
        let mut strict = Strict::start(&version, "auto");
        strict.tree.issue("c.example", KeyKind::Rsa2048, &["c.example"], Validity::days(90));
        strict.tree.delete("b.example");
        let report = strict.cmd.assemble(&[]).exits(2);
        assert_eq!(report.json()["haproxy"][0]["outcome"], "rolled-back", "{}", version.full);
        assert_eq!(report.action("b.example.pem"), "prune", "{}", version.full);
        assert_eq!(report.reason("c.example.pem").as_deref(), Some("haproxy-rejects"), "{}", version.full);
        assert_eq!(strict.cmd.deployed(), ["a.example.pem"], "{}", version.full);
        assert_eq!(strict.haproxy.fingerprint(&strict.cmd.site("b.example")), None, "{}", version.full);
        strict.is_tidy();
        strict.cmd.assemble(&[]).exits(1);
    }
}

/// A HAProxy that is still to be notified keeps the oldest file; the other one has taken what came between.
#[test]
fn what_a_haproxy_took_comes_back_and_not_what_was_before_that() {
    for version in versions() {
        for reload in ["pidfile", "auto"] {
            let context = format!("{} {reload}", version.full);
            let mut strict = Strict::start(&version, reload);
            let dead =
                "[[haproxy]]\nname = \"dead\"\nreload = \"runtime\"\nbinary = \"\"\ntimeout = \"2s\"\n";
            let dead = format!("{dead}runtime_socket = {:?}\n", strict.cmd.beside("dead.sock"));
            let more = format!("reload = \"{reload}\"\ntimeout = \"30s\"\n{dead}");
            strict.cmd = strict.cmd.with_tables("").haproxy(&strict.haproxy, &more);
            let mut taken = strict.old.clone();
            for _ in 0..2 {
                taken = strict.renew_with("b.example", KeyKind::P256);
                let run = strict.cmd.assemble(&[]).exits(2);
                assert_eq!(run.json()["haproxy"][1]["owed"], true, "{context}: {run}");
                assert!(strict.serves("b.example", &taken), "{context}: {run}");
            }
            strict.renew_with("b.example", KeyKind::Rsa2048);
            let run = strict.cmd.assemble(&[]).exits(2);
            assert_eq!(run.json()["haproxy"][0]["outcome"], "rolled-back", "{context}: {run}");
            let on_disk = fs::read_to_string(strict.cmd.site("b.example")).unwrap();
            assert_eq!(on_disk, taken.combined(), "{context}: {run}");
            assert!(strict.serves("b.example", &taken), "{context}: {run}");
            // Remembered, whoever is still to be notified.
            let again = strict.cmd.assemble(&[]).exits(2);
            assert_eq!(
                again.reason("b.example.pem").as_deref(),
                Some("haproxy-rejects"),
                "{context}: {again}"
            );
            assert!(strict.serves("b.example", &taken), "{context}: {again}");
            strict.haproxy.reload_and_wait();
            assert!(strict.serves("b.example", &taken), "{context}: a start serves another one");
        }
    }
}

/// What came between was never seen to be taken: what every HAProxy had comes back at once.
#[test]
fn what_nobody_took_does_not_come_back() {
    for version in versions() {
        let mut strict = Strict::start(&version, "pidfile");
        for _ in 0..2 {
            strict.renew_with("b.example", KeyKind::Rsa2048);
            strict.cmd.assemble(&["--defer-reload"]);
        }
        let run = strict.cmd.assemble(&[]).exits(2);
        assert_eq!(run.json()["haproxy"][0]["outcome"], "rolled-back", "{}: {run}", version.full);
        assert_eq!(fs::read_to_string(strict.cmd.site("b.example")).unwrap(), strict.old.combined());
        assert!(strict.serves("b.example", &strict.old), "{}: {run}", version.full);
        strict.is_tidy();
        let again = strict.cmd.assemble(&[]).exits(1);
        assert_eq!(again.json()["haproxy"][0]["outcome"], "not-needed", "{}: {again}", version.full);
        assert_eq!(again.reason("b.example.pem").as_deref(), Some("haproxy-rejects"), "{again}");
    }
}

/// The refused one would have had another kind of key; what came back shares its name with a new file that sorts first.
#[test]
fn what_came_back_is_asked_only_for_the_names_that_it_serves() {
    for version in versions() {
        for reload in ["pidfile", "auto"] {
            let mut strict = Strict::start(&version, reload);
            strict.renew_with("b.example", KeyKind::Rsa2048);
            let first = strict.tree.issue("aa.example", KeyKind::P256, &["b.example"], Validity::days(90));
            let more = format!("reload = \"{reload}\"\nprobe = [\"{}\"]\n", strict.haproxy.address());
            strict.cmd = strict.cmd.with_tables("").haproxy(&strict.haproxy, &more);
            let report = strict.cmd.assemble(&[]).exits(2);
            let row = &report.json()["haproxy"][0];
            assert_eq!((&row["outcome"], &row["owed"]), (&"rolled-back".into(), &false.into()), "{report}");
            assert_eq!(report.reason("b.example.pem").as_deref(), Some("haproxy-rejects"), "{report}");
            assert!(strict.serves("b.example", &first), "{}: {report}", version.full);
            strict.cmd.assemble(&[]).exits(1);
        }
    }
}

/// Through 2.6 a master doesn't say what it refuses, and here its program isn't run to ask it: what it may be is said, and what
/// is said leads out.
#[test]
fn what_is_refused_without_a_word_is_said_as_far_as_it_is_known() {
    for version in versions() {
        let mut strict = Strict::start(&version, "auto");
        // It sorts first: memory can't take it.
        strict.tree.issue("0.example", KeyKind::Rsa2048, &["0.example"], Validity::days(90));
        let new = strict.renew_with("a.example", KeyKind::P256);
        let program = support::cmd::toml(&strict.haproxy.version().program);
        let table = |binary: &str| {
            let more = format!("name = \"h\"\nunit = \"\"\ntimeout = \"30s\"\nbinary = {binary}");
            strict.haproxy.table(&more)
        };
        let (unable, able) = (table("\"\""), table(&program));
        strict.cmd.set_tables(&unable);
        let report = strict.cmd.assemble(&[]).exits(2);
        let told = report.json()["haproxy"][0].clone();
        assert!(strict.serves("a.example", &new), "{}: {report}", version.full);
        if version.number() < (2, 7) {
            let detail = told["detail"].as_str().unwrap();
            let said = "it may have refused 0.example.pem: with binary set, the next run asks HAProxy";
            assert!(detail.contains(said), "{}: {report}", version.full);
            assert_eq!((&told["outcome"], &told["owed"]), (&"failed".into(), &true.into()), "{report}");
            // Nobody is sent to a reload that would fail again.
            let status = strict.cmd.run(&["status", "--format", "json"]).exits(2);
            assert!(!status.stdout.contains("kill -USR2"), "{}: {status}", version.full);
            assert!(status.stdout.contains(said), "{}: {status}", version.full);
            strict.cmd.set_tables(&able);
            let report = strict.cmd.assemble(&[]).exits(2);
            assert_eq!(report.json()["haproxy"][0]["outcome"], "rolled-back", "{}: {report}", version.full);
            assert_eq!(report.reason("0.example.pem").as_deref(), Some("haproxy-rejects"), "{report}");
        } else {
            assert_eq!(told["outcome"], "rolled-back", "{}: {report}", version.full);
        }
        strict.haproxy.check().unwrap();
        assert!(strict.serves("a.example", &new), "{}: {report}", version.full);
        strict.is_tidy();
    }
}

#[test]
fn where_one_of_two_refuses_both_go_back() {
    for version in versions() {
        for lenient_first in [false, true] {
            let mut strict = Strict::start(&version, "auto");
            let lenient = Haproxy::of(&version).crt(strict.cmd.sites()).start();
            let more = "name = \"lenient\"\ntimeout = \"30s\"";
            // The one that was notified before the refusal has to be notified once more.
            strict.cmd = if lenient_first {
                let cmd = Cmd::new(strict.tree.live()).with_sites(strict.cmd.sites());
                cmd.haproxy(&lenient, more).haproxy(&strict.haproxy, "timeout = \"30s\"")
            } else {
                strict.cmd.haproxy(&lenient, more)
            };
            strict.renew_with("b.example", KeyKind::Rsa2048);
            let report = strict.cmd.assemble(&[]).exits(2);
            let told = report.json()["haproxy"].clone();
            let (of_strict, of_lenient) =
                (&told[usize::from(lenient_first)], &told[usize::from(!lenient_first)]);
            assert_eq!(
                (&of_strict["outcome"], &of_strict["owed"]),
                (&"rolled-back".into(), &false.into()),
                "{told}"
            );
            assert_eq!(
                (&of_lenient["outcome"], &of_lenient["confirmed"]),
                (&"updated".into(), &true.into()),
                "{told}"
            );
            for haproxy in [&strict.haproxy, &lenient] {
                let serial = served(haproxy.address(), "b.example").serial;
                assert_eq!(serial, strict.old.serial(), "{}", version.full);
            }
            strict.is_tidy();
        }
    }
}

#[test]
fn where_one_of_two_cannot_be_told_the_other_one_is() {
    for version in versions() {
        let mut strict = Strict::start(&version, "auto");
        let new = strict.renew_with("a.example", KeyKind::P256);
        let away =
            "[[haproxy]]\nname = \"away\"\nreload = \"master\"\nmaster_socket = \"/nonexistent/master.sock\"";
        let with = |table: &str| {
            let cmd = Cmd::new(strict.tree.live()).with_sites(strict.cmd.sites()).table(table);
            cmd.haproxy(&strict.haproxy, "timeout = \"30s\"")
        };
        let cmd = with(&format!("{away}\nbinary = \"\""));
        let report = cmd.assemble(&[]).exits(2);
        let told = report.json()["haproxy"].clone();
        assert_eq!((&told[0]["outcome"], &told[0]["owed"]), (&"failed".into(), &true.into()), "{told}");
        assert_eq!((&told[1]["outcome"], &told[1]["owed"]), (&"updated".into(), &false.into()), "{told}");
        assert!(strict.serves("a.example", &new), "{}", version.full);
        // Each has its own debt.
        let told = cmd.assemble(&[]).exits(2).json()["haproxy"].clone();
        assert_eq!(
            (&told[0]["outcome"], &told[1]["outcome"]),
            (&"failed".into(), &"not-needed".into()),
            "{told}"
        );
        // Of a settings file that is gone nobody waits any more.
        drop(cmd);
        let paying = "[[haproxy]]\nname = \"away\"\nreload = \"command\"\nmaster_socket = \"\"\ncommand = [\"/bin/true\"]";
        let told = with(&format!("{paying}\nbinary = \"\"")).assemble(&[]).exits(0).json()["haproxy"].clone();
        assert_eq!((&told[0]["outcome"], &told[0]["owed"]), (&"reloaded".into(), &false.into()), "{told}");
        strict.is_tidy();
    }
}

/// What HAProxy was notified and isn't seen to have stays, and is owed; what it had before is kept until it has something
/// newer, however many renewals come between.
#[test]
fn only_what_haproxy_has_accepted_replaces_what_would_be_put_back() {
    for version in versions() {
        let mut strict = Strict::start(&version, "auto");
        let own = strict.cmd.sites().join(".haproxy-certs");
        let accepted = fs::read_to_string(strict.cmd.site("b.example")).unwrap();
        let between = strict.renew_with("b.example", KeyKind::P256);
        let deaf = "reload = \"command\"\ncommand = [\"/bin/true\"]\ntimeout = \"3s\"";
        let cmd = Cmd::new(strict.tree.live()).with_sites(strict.cmd.sites()).haproxy(&strict.haproxy, deaf);
        let report = cmd.assemble(&[]).exits(2);
        let told = report.json()["haproxy"][0].clone();
        assert_eq!(
            (&told["outcome"], &told["confirmed"], &told["owed"]),
            (&"reloaded".into(), &false.into(), &true.into()),
            "{}: {told}",
            version.full
        );
        assert_eq!(report.action("b.example.pem"), "replace", "{}", version.full);
        assert_eq!(fs::read_to_string(strict.cmd.site("b.example")).unwrap(), between.combined());
        assert_eq!(fs::read_to_string(own.join("previous/b.example.pem")).unwrap(), accepted);
        assert!(strict.serves("b.example", &strict.old), "{}", version.full);

        strict.renew_with("b.example", KeyKind::Rsa2048);
        let told = strict.cmd.assemble(&[]).exits(2).json()["haproxy"][0].clone();
        assert_eq!(told["outcome"], "rolled-back", "{}: {told}", version.full);
        assert_eq!(fs::read_to_string(strict.cmd.site("b.example")).unwrap(), accepted);
        assert!(strict.serves("b.example", &strict.old), "{}", version.full);
        strict.is_tidy();
    }
}

#[test]
fn somebody_elses_error_leaves_the_new_files_and_is_made_good_when_it_is_gone() {
    for version in versions() {
        let mut strict = Strict::start(&version, "pidfile");
        let stranger = strict.cmd.sites().join("zz-stranger.pem");
        fs::write(&stranger, "not a certificate\n").unwrap();
        let new = strict.renew_with("a.example", KeyKind::P256);
        let report = strict.cmd.assemble(&[]).exits(2);
        let told = report.json()["haproxy"][0].clone();
        assert_eq!((&told["outcome"], &told["owed"]), (&"failed".into(), &true.into()), "{told}");
        assert!(told["detail"].as_str().unwrap().contains("zz-stranger.pem"), "{told}");
        assert_eq!(report.action("a.example.pem"), "replace", "{}", version.full);
        assert_eq!(fs::read_to_string(strict.cmd.site("a.example")).unwrap(), new.combined());
        assert!(strict.serves("a.example", &new), "{}: replaced in memory meanwhile {told}", version.full);
        assert!(stranger.exists());

        fs::remove_file(&stranger).unwrap();
        let paid = strict.cmd.assemble(&[]).exits(0);
        assert_eq!(paid.json()["haproxy"][0]["outcome"], "reloaded", "{}", version.full);
        strict.is_tidy();
    }
}

/// What arrives meanwhile makes the run look again; that HAProxy refused something isn't forgotten for it.
#[test]
fn a_run_that_looks_again_still_says_that_it_was_refused() {
    let version = versions().pop().unwrap();
    let mut strict = Strict::start(&version, "pidfile");
    strict.renew_with("b.example", KeyKind::Rsa2048);
    let mut late = Tree::new();
    late.issue("late.example", KeyKind::P256, &["late.example"], Validity::days(90));
    // The second one is notified when it arrives: as if rsync weren't done yet.
    let (from, to) = (format!("{}/.", late.root().display()), strict.tree.root().display().to_string());
    let bring = ["/bin/cp", "-a", &from, &to];
    let cmd = strict.cmd.table(&format!(
        "[[haproxy]]\nname = \"second\"\nreload = \"command\"\nbinary = \"\"\ncommand = {bring:?}\nunit = \"\"\npidfile = \"\"\nmaster_socket = \"\""
    ));
    let run = cmd.run(&["assemble"]).exits(2);
    assert!(run.stdout.contains("the previous files are back"), "{run}");
    assert!(run.stdout.contains("install    late.example.pem"), "{run}");
    assert!(served(strict.haproxy.address(), "b.example").serial == strict.old.serial(), "{run}");
}
