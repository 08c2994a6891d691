//! Crowds: many runs at once, certbot and rsync at work meanwhile, HAProxy reloading all the time.
//!
//! `HAPROXY_CERTS_LONG=1` goes on for ten times as long.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    reason = "tests may fail loudly"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use haproxy_certs::certified_key::Flaw;
use haproxy_certs::commands::assemble::{Options, assemble};
use haproxy_certs::config::{Overrides, Settings};
use haproxy_certs::output::Report;
use haproxy_certs::plan::action::Action;
use haproxy_certs::plan::reason::Reason;
use haproxy_certs::sys::system::System;
use support::live::{Live, one_of_each};
use support::process::finish;
use support::scene::{Scene, is_a_pair, put};
use support::summary::{Count, long, say};
use support::{
    Authority, Cmd, Haproxy, KeyKind, LIMIT, Leaf, Reload, Tree, Validity, system_haproxy, version,
};

/// So many runs at once.
const CROWD: usize = 50;

/// Sets the flag when it goes out of scope, also by a panic: whoever waits for it must end.
struct Flag<'a>(&'a AtomicBool);

impl Drop for Flag<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Starts [`CROWD`] runs at once and waits for all of them; their JSON reports.
fn crowd(cmd: &Cmd) -> Vec<serde_json::Value> {
    let config = cmd.config();
    let start = || {
        let mut command = Command::new(Cmd::program());
        command.arg("--config").arg(&config).args(["assemble", "--format", "json"]);
        cmd.prepare(&mut command);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let children: Vec<_> = (0..CROWD).map(|_| start()).collect();
    children
        .into_iter()
        .map(|child| {
            let output = child.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert_eq!(output.status.code(), Some(0), "{said}{}", String::from_utf8_lossy(&output.stderr));
            assert_eq!(String::from_utf8_lossy(&output.stderr), "");
            serde_json::from_str(&said).unwrap()
        })
        .collect()
}

fn changes(report: &serde_json::Value) -> u64 {
    ["install", "replace", "repair", "prune"]
        .iter()
        .map(|action| report["summary"][action].as_u64().unwrap())
        .sum()
}

#[test]
fn one_of_fifty_does_the_work() {
    let mut scene = Scene::new(&["owner = \"1:1\""]);
    for number in 0..5 {
        scene.issue(&format!("site-{number}"));
    }
    // The first time not even the directory is there.
    for expected in [5, 2] {
        let told = scene.told().len();
        let mut done: Vec<u64> = crowd(&scene.cmd).iter().map(changes).collect();
        done.sort_unstable();
        assert_eq!(done.pop(), Some(expected));
        assert_eq!(done, vec![0; CROWD - 1]);
        assert_eq!(scene.told().len(), told + 1, "told once");
        scene.must_be_told("after a crowd");
        // The next time the index knows the others.
        scene.settle();
        scene.tree.renew("site-0");
        scene.tree.renew("site-1");
    }
    let mut live = Live::start(&version("3.0").unwrap(), "", &[]);
    // A batch that prunes needs a reload.
    one_of_each(&mut live);
    live.cmd.assemble(&[]).exits(0);
    one_of_each(&mut live);
    let before = live.haproxy.processes().unwrap().reloads;
    let reports = crowd(&live.cmd);
    assert_eq!(reports.iter().filter(|report| changes(report) > 0).count(), 1);
    let told = reports.iter().filter(|report| report["haproxy"][0]["outcome"] != "not-needed").count();
    assert_eq!(told, 1, "told once");
    assert_eq!(live.haproxy.processes().unwrap().reloads, before + 1, "reloaded once");
    live.must_be_as_wanted("after a crowd");
    Count::Crowd.add("three times", 3 * CROWD);
}

/// Refusals in run after run.
#[derive(Default)]
struct Refused {
    in_a_row: BTreeMap<OsString, usize>,
    times: usize,
}

impl Refused {
    /// Only what a renewal in progress looks like is refused, and nothing for good.
    fn note(&mut self, report: &Report) {
        assert_eq!(report.error, None);
        for row in &report.rows {
            assert!(row.action != Action::Prune, "{row:?}");
            let file = row.file.clone().unwrap();
            if row.action != Action::Refuse {
                self.in_a_row.remove(&file);
                continue;
            }
            let passes = [
                Reason::LineageTorn,
                Reason::Unproved(Flaw::CertificateMissing),
                Reason::Unproved(Flaw::KeyMissing),
            ];
            assert!(row.reason().is_some_and(|reason| passes.contains(&reason)), "{row:?}");
            self.times += 1;
            let times = self.in_a_row.entry(file).or_default();
            *times += 1;
            assert!(*times < 20, "a refusal that stays: {row:?}");
        }
    }
}

/// What may stand in a file: the PEMs of these leaves.
fn pems(leaves: &[Leaf]) -> BTreeSet<Vec<u8>> {
    leaves.iter().map(|leaf| leaf.combined().into_bytes()).collect()
}

#[test]
fn certbot_renews_and_haproxy_reloads_meanwhile() {
    let rounds = if long() { 20_000 } else { 2_000 };
    let mut tree = Tree::new();
    let names: Vec<String> = (0..6).map(|number| format!("site-{number}.example")).collect();
    let validity = Validity::days(90);
    // For each lineage some certificates that take turns.
    let leaves: BTreeMap<&String, Vec<Leaf>> = names
        .iter()
        .map(|name| {
            let issue = |_| tree.authority().issue(KeyKind::P256, &[name], validity);
            (name, (0..4).map(issue).collect())
        })
        .collect();
    let allowed: BTreeMap<&String, BTreeSet<Vec<u8>>> =
        leaves.iter().map(|(name, leaves)| (*name, pems(leaves))).collect();
    for name in &names {
        tree.issue_leaf(name, &leaves[name][0]);
    }
    let cmd = Cmd::new(tree.live());
    let host = Authority::new().issue(KeyKind::P256, &["host.example"], Validity::days(3650));
    put(&cmd.beside("host.pem"), host.combined(), 0o400);
    support::tree::make_directory(&cmd.sites(), 0o700);
    let mut haproxy = Haproxy::of(&system_haproxy()).crt(cmd.beside("host.pem")).crt(cmd.sites()).start();
    // HAProxy is notified by the test itself.
    let cmd = cmd.table("[[haproxy]]\nreload = \"none\"\nbinary = \"\"");
    let settings = Settings::load(Some(&cmd.config()), &Overrides::default()).unwrap();
    let run = || assemble(&settings, &System::host(), &Options::default(), &|_, _| ());

    let over = AtomicBool::new(false);
    let (runs, swaps, looks) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let (mut reloads, mut refusals) = (0, 0);
    thread::scope(|scope| {
        // certbot: one lineage after the other, its links swapped call by call.
        let tree = &mut tree;
        let renewing = scope.spawn(|| {
            let _over = Flag(&over);
            let began = Instant::now();
            for round in 1.. {
                let enough = round > rounds && runs.load(Ordering::SeqCst) >= rounds;
                if enough || over.load(Ordering::SeqCst) || began.elapsed() > 10 * LIMIT {
                    break;
                }
                let name = &names[round % names.len()];
                tree.renew_with(name, &leaves[name][round % 4]);
                swaps.fetch_add(1, Ordering::SeqCst);
                // Not faster than the runs: a certbot that renews without a pause is never read whole.
                let seen = runs.load(Ordering::SeqCst);
                let paced = Instant::now();
                while runs.load(Ordering::SeqCst) == seen
                    && paced.elapsed() < Duration::from_millis(20)
                    && !over.load(Ordering::SeqCst)
                {
                    thread::sleep(Duration::from_micros(200));
                }
            }
        });
        // The program, all the time.
        let running = scope.spawn(|| {
            let mut refused = Refused::default();
            while !over.load(Ordering::SeqCst) {
                refused.note(&run());
                runs.fetch_add(1, Ordering::SeqCst);
            }
            refused.times
        });
        // Somebody who looks at the files.
        let looking = scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                for name in &names {
                    if let Ok(pem) = fs::read(cmd.site(name)) {
                        assert!(
                            allowed[name].contains(&pem),
                            "{name} holds something else than a pair of its own"
                        );
                        looks.fetch_add(1, Ordering::SeqCst);
                    }
                }
                // The others need the processors too.
                thread::sleep(Duration::from_millis(1));
            }
        });
        // HAProxy must be able to load whatever it finds.
        {
            let _over = Flag(&over);
            while !renewing.is_finished() && !running.is_finished() && !looking.is_finished() {
                assert_eq!(haproxy.reload_and_wait(), Reload::Loaded, "{}", haproxy.log());
                reloads += 1;
                thread::sleep(Duration::from_millis(20));
            }
        }
        for thread in [renewing, looking] {
            thread.join().unwrap();
        }
        refusals = running.join().unwrap();
    });
    let last = run();
    assert!(
        last.error.is_none() && last.rows.iter().all(|row| row.action != Action::Refuse),
        "{:?}",
        last.rows
    );
    for name in &names {
        let pem = fs::read(cmd.site(name)).unwrap();
        assert!(pem == tree.leaf(name).combined().into_bytes() && is_a_pair(&pem), "{name}");
    }
    let runs = runs.into_inner();
    assert!(runs >= rounds, "only {runs} runs");
    Count::Renewals.add("link by link", swaps.into_inner());
    Count::Runs.add("link by link", runs);
    say(&format!("{refusals:>9} refusals, none of which stayed"));
    Count::Looks.add("link by link", looks.into_inner());
    Count::Reloads.add("link by link", reloads);
}

#[test]
fn rsync_brings_the_tree_meanwhile() {
    assert!(std::path::Path::new("/usr/bin/rsync").exists(), "rsync is missing, run: ./tests/install");
    let rounds = if long() { 2_000 } else { 200 };
    let mut source = Tree::new();
    let names: Vec<String> = (0..4).map(|number| format!("site-{number}.example")).collect();
    let leaves: BTreeMap<&String, Vec<Leaf>> = names
        .iter()
        .map(|name| {
            let issue = |_| source.authority().issue(KeyKind::P256, &[name], Validity::days(90));
            (name, (0..4).map(issue).collect())
        })
        .collect();
    for name in &names {
        source.issue_leaf(name, &leaves[name][0]);
    }
    // As a fleet's other hosts have it: a copy, nothing else.
    let copy = tempfile::tempdir().unwrap();
    let cmd = Cmd::new(copy.path().join("live")).without_haproxy();
    let settings = Settings::load(Some(&cmd.config()), &Overrides::default()).unwrap();
    let run = || assemble(&settings, &System::host(), &Options::default(), &|_, _| ());
    let rsync = |source: &Tree| {
        let mut from = source.root().as_os_str().to_owned();
        from.push("/");
        let output = finish(Command::new("rsync").args(["-a", "--delete"]).arg(from).arg(copy.path()), LIMIT);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    rsync(&source);
    let over = AtomicBool::new(false);
    let (runs, looks, refusals) = thread::scope(|scope| {
        let running = scope.spawn(|| {
            let (mut refused, mut runs, mut looks) = (Refused::default(), 0, 0);
            while !over.load(Ordering::SeqCst) {
                refused.note(&run());
                for name in &names {
                    if let Ok(pem) = fs::read(cmd.site(name)) {
                        assert!(pems(&leaves[name]).contains(&pem), "{name}: a mixed pair");
                        looks += 1;
                    }
                }
                runs += 1;
            }
            (runs, looks, refused.times)
        });
        {
            let _over = Flag(&over);
            for round in 0..rounds {
                for name in &names {
                    source.renew_with(name, &leaves[name][(round + 1) % 4]);
                }
                rsync(&source);
                // Now and then one run that began when rsync had ended: all of it is in place.
                if round % 10 == 9 {
                    let report = run();
                    assert!(report.rows.iter().all(|row| row.action != Action::Refuse), "{:?}", report.rows);
                    for name in &names {
                        let pem = fs::read(cmd.site(name)).unwrap();
                        assert!(pem == source.leaf(name).combined().into_bytes(), "{name} isn't in place");
                    }
                }
                assert!(!running.is_finished(), "the runs have ended");
            }
        }
        running.join().unwrap()
    });
    Count::Renewals.add("by rsync", rounds * names.len());
    Count::Runs.add("rsync", runs);
    Count::Looks.add("rsync", looks);
    say(&format!("{refusals:>9} refusals, none of which stayed"));
}
