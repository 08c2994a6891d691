//! The law of fleets: after any sequence of renewals, publishes, looks and losses, when everything can be reached again one
//! look of each node makes it equal to a single host with the same tree.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "test code may fail loudly"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use support::fleet::{Contents, Fleet, files};
use support::scene::failure;
use support::summary::{Count, long};
use support::{Cmd, tree};

const NODES: usize = 2;

/// Numbers that are the same in each run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % below
    }
}

/// A fleet to which something happens.
struct World {
    fleet: Fleet,
    dice: Dice,
    issued: usize,
    deleted: usize,
    /// Stores as they were.
    stores: Vec<Contents>,
    script: String,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut fleet = Fleet::new(NODES);
        for name in ["a.example", "b.example"] {
            fleet.issue(name);
        }
        fleet.publish();
        fleet.tell_nodes("");
        // Small seeds have small first numbers.
        let dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        Self { fleet, dice, issued: 0, deleted: 0, stores: Vec::new(), script: String::new() }
    }

    fn some_lineage(&mut self) -> String {
        let at = self.dice.roll(self.fleet.wanted.len());
        self.fleet.wanted.keys().nth(at).unwrap().clone()
    }

    fn some_node(&mut self) -> usize {
        self.dice.roll(NODES)
    }

    fn step(&mut self) {
        let what = self.dice.roll(16);
        let said = match what {
            0..=2 => {
                let name = self.some_lineage();
                self.fleet.renew(&name);
                format!("renew {name}")
            }
            3 => {
                self.issued += 1;
                let name = format!("n{}.example", self.issued);
                self.fleet.issue(&name);
                format!("issue {name}")
            }
            // As many as no guard holds.
            4 if self.deleted < 3 && self.fleet.wanted.len() > 1 => {
                self.deleted += 1;
                let name = self.some_lineage();
                self.fleet.delete(&name);
                format!("delete {name}")
            }
            5..=7 => {
                self.fleet.publisher.run(&["fleet", "publish"]);
                self.stores.push(self.fleet.stored());
                "publish".to_owned()
            }
            8..=9 => {
                let at = self.some_node();
                self.fleet.nodes[at].follow();
                format!("node {at} looks")
            }
            10 => {
                self.fleet.restore(&Contents::new());
                "the store is lost".to_owned()
            }
            11 if !self.stores.is_empty() => {
                let at = self.dice.roll(self.stores.len());
                self.fleet.restore(&self.stores[at]);
                format!("the store is as it was after publish {at}")
            }
            12 => {
                let _ = fs::remove_dir_all(self.fleet.publisher.beside("cache"));
                "the publisher's cache is lost".to_owned()
            }
            13 => {
                let at = self.some_node();
                let cache = self.fleet.nodes[at].cmd.beside("cache");
                if !cache.exists() {
                    return;
                }
                let all = files(&cache);
                let lost = self.dice.roll(3);
                for (number, path) in all.keys().enumerate() {
                    match (lost, number % 2) {
                        (0, _) | (2, 1) => fs::remove_file(cache.join(path)).unwrap(),
                        (1, 0) => fs::write(cache.join(path), "?").unwrap(),
                        _ => {}
                    }
                }
                format!("node {at}'s cache is lost or damaged ({lost})")
            }
            14 => {
                let at = self.some_node();
                // What nobody remembers stays, by contract: while a lineage is gone, or the cache is lost, too, the file is
                // somebody else's.
                let node = &self.fleet.nodes[at];
                if node.follow().code != Some(0) {
                    return;
                }
                let _ = fs::remove_file(node.cmd.sites().join(".haproxy-certs/state.json"));
                node.follow();
                format!("node {at} looks, its state is lost, and it looks")
            }
            15 => {
                let stored = self.fleet.stored();
                let at = self.dice.roll(stored.len().max(1));
                let Some(path) = stored.keys().nth(at) else { return };
                fs::remove_file(self.fleet.folder().join(path)).unwrap();
                format!("{path} is lost")
            }
            _ => return,
        };
        writeln!(self.script, "{said}").unwrap();
    }

    /// Everything can be reached again: the publisher's timer comes, and each node looks once.
    fn must_be_as_a_single_host(&self) {
        // What the nodes have may be later than everything that is left: the first publish that sees their reports passes them.
        let first = self.fleet.publisher.run(&["fleet", "publish"]);
        assert!(matches!(first.code, Some(0 | 1)), "{}{first}", self.script);
        let single = single(&self.fleet);
        for node in &self.fleet.nodes {
            let mut run = node.follow();
            if run.stdout.contains("fleet-rollback") || run.stdout.contains("fleet-fork") {
                // Then this one sees it.
                self.fleet.publisher.run(&["fleet", "publish"]);
                run = node.follow();
            }
            assert_eq!(run.code, Some(0), "{}then {}: {run}", self.script, node.name);
            assert!(sites(&node.cmd) == single, "{}{} differs: {run}", self.script, node.name);
        }
        for node in &self.fleet.nodes {
            assert!(sites(&node.cmd) == single, "{}{} differs", self.script, node.name);
        }
        let again = self.fleet.publisher.run(&["fleet", "publish"]);
        assert!(again.stdout.contains("nothing changed"), "{}{again}", self.script);
    }
}

/// What a host has that is alone with this tree.
fn single(fleet: &Fleet) -> BTreeMap<String, Vec<u8>> {
    let host = Cmd::new(fleet.tree.live()).without_haproxy();
    tree::make_directory(&host.sites(), 0o700);
    host.run(&["assemble"]).exits(0);
    sites(&host)
}

fn sites(cmd: &Cmd) -> BTreeMap<String, Vec<u8>> {
    let read = |name: String| {
        let bytes = fs::read(cmd.sites().join(&name)).unwrap();
        (name, bytes)
    };
    cmd.deployed().into_iter().map(read).collect()
}

/// A world to which something happens, by the number of its script.
#[track_caller]
fn must_converge(seed: usize) {
    let mut world = World::new(seed as u64 + 1);
    for _ in 0..(8 + seed % 10) {
        world.step();
    }
    world.must_be_as_a_single_host();
}

/// Scripts in which a node saw a head that it never had whole, before the publisher and the store lost everything.
#[test]
fn scripts_that_failed_once() {
    for seed in [18, 397] {
        must_converge(seed);
    }
}

#[test]
fn every_node_becomes_a_single_host() {
    let worlds = if long() { 400 } else { 10 };
    let next = AtomicUsize::new(0);
    let failed: Vec<String> = thread::scope(|scope| {
        let work = || {
            let mut failed = Vec::new();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= worlds {
                    return failed;
                }
                let context = failure(|| must_converge(seed));
                failed.extend(context.map(|text| format!("seed {seed}: {text}")));
            }
        };
        let workers: Vec<_> = (0..2).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    assert!(failed.is_empty(), "{} of {worlds}:\n{}", failed.len(), failed.join("\n---\n"));
    Count::Properties.add("sequences of what happens to a fleet", worlds);
}
