//! Killed and failing at every step of a fleet: whenever `publish` or `follow` ends, a node has the whole old or the whole
//! new, and one run more makes good whatever is missing. The same where a conversation with etcd breaks off.
//!
//! Each run is listed once under strace, and then run once per call with a fault in its place: at some calls, evenly
//! spread; `HAPROXY_CERTS_LONG=1` takes all.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "test code may fail loudly"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use support::etcd::{EtcdSetup, newest_etcd};
use support::fleet::{Fleet, Node};
use support::middleman::{Fault as Broken, Middleman};
use support::scene::failure;
use support::strace::{self, Call, Fault};
use support::summary::{Count, long};

/// How many calls of a run meet a fault, unless all do.
const SOME: usize = 18;

/// What the node's names hold.
type Deployed = BTreeMap<String, String>;

/// A fleet in which something is to be done, and everything of it put aside.
struct Prepared {
    fleet: Fleet,
    old: Deployed,
    kept: Vec<(PathBuf, PathBuf)>,
}

/// What is interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Publisher,
    /// Where it has a fleet's head already.
    Node,
    /// For the first time.
    NewNode,
}

impl Prepared {
    /// One lineage is renewed, one is new and one is gone since the node looked last.
    fn new(who: Who) -> Self {
        let mut fleet = Fleet::new(1);
        for name in ["a.example", "b.example", "c.example"] {
            fleet.issue(name);
        }
        fleet.publish();
        fleet.tell_nodes("");
        let mut old = Deployed::new();
        if who != Who::NewNode {
            fleet.all_follow();
            old.clone_from(&fleet.wanted);
        }
        fleet.renew("a.example");
        fleet.issue("d.example");
        fleet.delete("b.example");
        if who != Who::Publisher {
            fleet.publish();
        }
        fleet.publisher.see_no_others();
        fleet.nodes[0].cmd.see_no_others();
        let node = &fleet.nodes[0].cmd;
        let folders = [fleet.folder(), fleet.publisher.beside("cache"), node.sites(), node.beside("cache")];
        let mut prepared = Self { fleet, old, kept: Vec::new() };
        for (number, folder) in folders.into_iter().enumerate() {
            let aside = prepared.fleet.publisher.beside(&format!("aside-{number}"));
            copy(&folder, &aside);
            prepared.kept.push((folder, aside));
        }
        prepared
    }

    fn restore(&self) {
        for (folder, aside) in &self.kept {
            let _ = fs::remove_dir_all(folder);
            copy(aside, folder);
        }
    }

    fn node(&self) -> &Node {
        &self.fleet.nodes[0]
    }

    /// Each name holds the whole old or the whole new.
    #[track_caller]
    fn must_be_old_or_new(&self, context: &str) {
        let node = &self.node().cmd;
        for file in node.deployed() {
            let name = file.trim_end_matches(".pem");
            let found = fs::read_to_string(node.sites().join(&file)).unwrap();
            let is = |all: &Deployed| all.get(name).is_some_and(|pem| *pem == found);
            assert!(is(&self.old) || is(&self.fleet.wanted), "{context}: {file}");
        }
        // Nothing that was there and is wanted still is lost.
        for name in self.old.keys().filter(|name| self.fleet.wanted.contains_key(*name)) {
            assert!(node.site(name).exists(), "{context}: {name} is lost");
        }
    }

    /// Only all of the old or all of the new.
    #[track_caller]
    fn must_be_all_old_or_all_new(&self, context: &str) {
        let node = &self.node().cmd;
        let found: Deployed = node
            .deployed()
            .iter()
            .map(|file| {
                let text = fs::read_to_string(node.sites().join(file)).unwrap();
                (file.trim_end_matches(".pem").to_owned(), text)
            })
            .collect();
        assert!(found == self.old || found == self.fleet.wanted, "{context}: {:?}", found.keys());
    }

    /// What is left of a run that was interrupted harms nobody, and one run makes it good.
    #[track_caller]
    fn must_converge(&self, who: Who, refuses: bool, context: &str) {
        if who == Who::Publisher {
            // A node that looks in between sees one of the two heads, whole.
            let run = self.node().follow();
            assert_eq!(run.code, Some(0), "{context}: {run}");
            if refuses {
                // What could not be read stays as it was published.
                self.must_be_old_or_new(context);
            } else {
                self.must_be_all_old_or_all_new(context);
            }
            let run = self.fleet.publisher.run(&["fleet", "publish"]);
            assert_eq!(run.code, Some(0), "{context}, then {run}");
        } else {
            self.must_be_old_or_new(context);
        }
        let run = self.node().follow();
        assert_eq!(run.code, Some(0), "{context}, then {run}");
        self.node().must_have(&self.fleet.wanted, context);
        let status = self.fleet.publisher.run(&["fleet", "status"]);
        assert_eq!(status.code, Some(0), "{context}, then {status}");
        let run = self.fleet.publisher.run(&["fleet", "publish"]);
        assert!(run.stdout.contains("nothing changed"), "{context}, then twice {run}");
    }
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    if from.exists() {
        assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
    }
}

/// These of the calls, evenly spread: every other one of those that change something.
fn some_of(calls: &[Call]) -> Vec<&Call> {
    if long() {
        return calls.iter().collect();
    }
    let changing: Vec<&Call> = calls.iter().filter(|call| call.changes()).collect();
    let reading: Vec<&Call> = calls.iter().filter(|call| !call.changes()).collect();
    let spread = |calls: Vec<&'_ Call>, count: usize| -> Vec<usize> {
        let all = calls.len();
        (0..count.min(all)).map(|at| at * all / count.min(all)).collect()
    };
    let first = spread(changing.clone(), SOME * 2 / 3).into_iter().map(|at| changing[at]);
    let second = spread(reading.clone(), SOME / 3).into_iter().map(|at| reading[at]);
    first.chain(second).collect()
}

/// Which errors a call meets.
fn faults(position: usize, kills: bool) -> Vec<Fault> {
    const ERRORS: [&str; 6] = ["ENOSPC", "EIO", "EACCES", "EMFILE", "EROFS", "EDQUOT"];
    if kills {
        return vec![Fault::Kill];
    }
    if long() {
        let one = ERRORS[position % ERRORS.len()];
        return vec![Fault::Error(one), Fault::Errors(ERRORS[(position + 1) % ERRORS.len()])];
    }
    let error = ERRORS[position % ERRORS.len()];
    vec![if position.is_multiple_of(3) { Fault::Errors(error) } else { Fault::Error(error) }]
}

fn everywhere(who: Who, kills: bool) {
    strace::must_be_there();
    let next = AtomicUsize::new(0);
    let results: Vec<(usize, usize, Vec<String>)> = thread::scope(|scope| {
        let workers: Vec<_> = strace::processors()
            .into_iter()
            .take(2)
            .map(|processor| {
                let next = &next;
                scope.spawn(move || at_some(who, kills, processor, next))
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    let count = if kills { Count::Killed } else { Count::Failed };
    let happened = results.iter().map(|result| result.1).sum();
    count.add(&format!("fleet, {who:?}, of {} calls", results[0].0), happened);
    let failed: Vec<&String> = results.iter().flat_map(|result| &result.2).collect();
    assert!(failed.is_empty(), "{} of them failed:\n{failed:#?}", failed.len());
    assert!(happened > 0);
}

fn at_some(who: Who, kills: bool, processor: usize, next: &AtomicUsize) -> (usize, usize, Vec<String>) {
    let prepared = Prepared::new(who);
    let (cmd, arguments): (_, &[&str]) = match who {
        Who::Publisher => (&prepared.fleet.publisher, &["fleet", "publish"]),
        Who::Node | Who::NewNode => (&prepared.node().cmd, &["fleet", "follow", "--once"]),
    };
    prepared.restore();
    let (run, calls) = strace::record(cmd, arguments, &[], processor);
    assert_eq!(run.code, Some(0), "{run}");
    let points = some_of(&calls);
    let (mut happened, mut failed) = (0, Vec::new());
    loop {
        let position = next.fetch_add(1, Ordering::Relaxed);
        let Some(&call) = points.get(position) else { break };
        // The standard library panics where closing a directory fails, and Linux never lets that fail.
        if !kills && call.name == "close" {
            continue;
        }
        for fault in faults(position, kills) {
            let context = format!("{who:?}, {fault:?} at {call}");
            failed.extend(failure(|| {
                prepared.restore();
                let traced = strace::inject(cmd, arguments, &[], call, fault, processor);
                happened += usize::from(traced.happened());
                if kills {
                    assert_eq!(traced.signal, Some(9), "{context}: {}\n{}", traced.run, traced.log);
                } else {
                    assert!(matches!(traced.run.code, Some(0..=3)), "{context}: {}", traced.run);
                    assert!(!traced.run.stderr.contains("panicked"), "{context}: {}", traced.run);
                }
                let refuses = traced.run.stdout.contains("refuse ");
                prepared.must_converge(who, refuses, &context);
            }));
        }
    }
    (calls.len(), happened, failed)
}

#[test]
fn publish_is_killed_at_any_call() {
    everywhere(Who::Publisher, true);
}

#[test]
fn follow_is_killed_at_any_call() {
    everywhere(Who::Node, true);
}

#[test]
fn the_first_follow_is_killed_at_any_call() {
    everywhere(Who::NewNode, true);
}

#[test]
fn any_call_of_publish_fails() {
    everywhere(Who::Publisher, false);
}

#[test]
fn any_call_of_follow_fails() {
    everywhere(Who::Node, false);
}

/// A fleet over an etcd, reached through somebody who breaks off what is said.
struct Talked {
    fleet: Fleet,
    middleman: Middleman,
    /// The number of what is renewed next.
    renewals: usize,
}

impl Talked {
    fn publish_and_look(&mut self, who: Who, broken: Option<(usize, Broken)>, context: &str) -> usize {
        let old = self.fleet.wanted.clone();
        let name = ["a.example", "b.example", "c.example"][self.renewals % 3];
        self.renewals += 1;
        self.fleet.renew(name);
        let node = &self.fleet.nodes[0];
        let publish = || self.fleet.publisher.run(&["fleet", "publish"]);
        if who != Who::Publisher {
            publish().exits(0);
        }
        self.middleman.arm(broken);
        let run = if who == Who::Publisher { publish() } else { node.follow() };
        let asked = self.middleman.disarm();
        assert!(matches!(run.code, Some(0..=3)), "{context}: {run}");
        assert!(!run.stderr.contains("panicked"), "{context}: {run}");
        // One that may ask again gets its answer.
        if !matches!(broken, Some((_, Broken::Status(401 | 403) | Broken::Nonsense))) {
            assert_eq!(run.code, Some(0), "{context}: {run}");
        }
        let is = |all: &BTreeMap<String, String>| {
            all.iter().all(|(name, pem)| fs::read_to_string(node.cmd.site(name)).unwrap() == *pem)
        };
        if who == Who::Publisher {
            node.follow().exits(0);
        }
        assert!(is(&old) || is(&self.fleet.wanted), "{context}: it is mixed");
        publish().exits(0);
        node.follow().exits(0);
        node.must_have(&self.fleet.wanted, context);
        asked
    }
}

#[test]
fn any_answer_of_an_etcd_is_cut_late_or_refused() {
    let etcd = EtcdSetup::of(&newest_etcd()).start();
    let middleman = Middleman::before(&etcd.endpoints()[0]);
    let mut settings = etcd.settings("edge");
    settings.endpoints = vec![middleman.endpoint()];
    let mut fleet = Fleet::in_etcd(&settings);
    fleet.join("lb1", None);
    fleet.tell_publisher();
    fleet.bring_in_step(&["a.example", "b.example", "c.example"]);
    let mut talked = Talked { fleet, middleman, renewals: 0 };
    let all = [
        Broken::NoAnswer,
        Broken::Cut(60),
        Broken::Status(503),
        Broken::Unasked,
        Broken::Status(429),
        Broken::Cut(300),
        Broken::Late,
        Broken::Status(401),
        Broken::Status(500),
        Broken::Nonsense,
    ];
    let mut count = 0;
    for (who, offset) in [(Who::Publisher, 0), (Who::Node, 1)] {
        let asked = talked.publish_and_look(who, None, "undisturbed");
        assert!(asked >= 3, "{asked}");
        for number in 0..asked {
            let some = if long() { all.len() } else { 2 };
            for at in 0..some {
                let broken = all[(number * some + at + offset) % all.len()];
                let context = format!("{who:?}, {broken:?} at question {number}");
                talked.publish_and_look(who, Some((number, broken)), &context);
                count += 1;
            }
        }
    }
    Count::Failed.add("answers of an etcd", count);
}
