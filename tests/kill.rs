//! Killed at every step: whenever the program ends, every name that HAProxy loads holds the whole old or the whole new
//! PEM, and the next run makes good whatever is missing.
//!
//! Each scenario is run once to list its system calls, and then once per call with SIGKILL in its place.
//! `HAPROXY_CERTS_LONG=1` takes every call of every scenario, not only every call that changes something.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    clippy::case_sensitive_file_extension_comparisons,
    reason = "tests may fail loudly"
)]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::chown;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use support::scene::{OTHER, Scene, failure, is_a_pair, must_be_old_or_new, put, somebody_elses};
use support::strace::{self, Call, Fault};
use support::summary::{Summary, long};
use support::{KeyKind, Kind, Validity};

/// Every action on a site, and the host certificate, at once: ten lineages.
fn every_action() -> Scene {
    let mut scene =
        Scene::new(&["host_lineage = \"host.example\"", "exclude = [\"host.example\"]", "owner = \"1:1\""]);
    for name in ["replace-1", "replace-2", "repair", "gone", "same-1", "same-2", "host.example"] {
        scene.issue(name);
    }
    // What an archive doesn't vouch for.
    scene.tree.issue_plain("plain", KeyKind::P256, &["plain"], Validity::days(90));
    let first = scene.run().exits(0);
    assert_eq!(first.json()["summary"]["install"], 8, "{first}");
    scene.tree.renew("replace-1");
    scene.tree.renew("replace-2");
    scene.tree.renew("host.example");
    let renewed = scene.tree.authority().issue(KeyKind::P256, &["plain"], Validity::days(90));
    scene.tree.overwrite("plain", Kind::Privkey, renewed.key.pem());
    scene.tree.overwrite("plain", Kind::Fullchain, renewed.fullchain());
    put(&scene.cmd.site("repair"), fs::read(scene.cmd.site("repair")).unwrap(), 0o644);
    scene.tree.delete("gone");
    for name in ["install-1", "install-2", "adopted"] {
        scene.issue(name);
    }
    put(&scene.cmd.site("adopted"), somebody_elses("adopted"), 0o400);
    put(&scene.cmd.site("foreign"), somebody_elses("foreign"), 0o400);
    scene.arguments.push("--adopt");
    scene
}

/// The very first run: the sites directory isn't there, and will be another user's.
fn first_run() -> Scene {
    let mut scene = Scene::new(&["owner = \"1:1\""]);
    scene.issue("one");
    scene.issue("two");
    scene
}

/// So many that they are synced together.
fn many() -> Scene {
    let mut scene = Scene::new(&[]);
    for number in 0..36 {
        scene.issue(&format!("site-{number:02}"));
    }
    scene.run().exits(0);
    for number in 0..34 {
        scene.tree.renew(&format!("site-{number:02}"));
    }
    scene
}

#[test]
fn killed_while_every_action_is_carried_out() {
    kill_everywhere("every action", every_action, &[], |_| true);
}

#[test]
fn killed_in_the_very_first_run() {
    kill_everywhere("first run", first_run, &[], |_| true);
}

#[test]
fn killed_where_there_are_no_hard_links() {
    kill_everywhere("no hard links", every_action, strace::NO_HARD_LINKS, |call| {
        call.changes() && call.name != "linkat"
    });
}

#[test]
fn killed_with_many_files() {
    // One file is like the other: of the calls for one each, those of every eighth.
    kill_everywhere("many files", many, &[], |call| call.changes() && (long() || call.number % 8 == 0));
}

fn kill_everywhere(
    name: &'static str,
    prepare: fn() -> Scene,
    circumstances: &[&str],
    wanted: fn(&Call) -> bool,
) {
    strace::must_be_there();
    let next = AtomicUsize::new(0);
    let processors = strace::processors();
    let mut summary = Summary::of("kill");
    let counts: Vec<(usize, usize, usize, Vec<String>)> = thread::scope(|scope| {
        let workers: Vec<_> = processors
            .iter()
            .take(2)
            .map(|&processor| {
                scope.spawn({
                    let next = &next;
                    move || killed_at(name, prepare, circumstances, wanted, processor, next)
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    summary.count(format!("{name}: calls of a run"), counts[0].0);
    summary.count(
        format!("{name}: killed at a call, checked, run to its end"),
        counts.iter().map(|c| c.1).sum(),
    );
    summary.count(
        format!("{name}: different states that a kill left"),
        counts.iter().map(|c| c.2).max().unwrap(),
    );
    summary.show();
    let failed: Vec<&String> = counts.iter().flat_map(|c| &c.3).collect();
    assert!(failed.is_empty(), "{} of them failed:\n{failed:#?}", failed.len());
}

/// Takes turns with the other threads; each has a scene of its own.
fn killed_at(
    name: &str,
    prepare: fn() -> Scene,
    circumstances: &[&str],
    wanted: fn(&Call) -> bool,
    processor: usize,
    next: &AtomicUsize,
) -> (usize, usize, usize, Vec<String>) {
    let mut scene = prepare();
    scene.save();
    let old = scene.shown();

    // Undisturbed: where it is to end, and what it does on its way.
    let calm = scene.run();
    let new = scene.shown();
    let leftovers = scene.names();
    assert_eq!(calm.code, Some(0), "{name}: {calm}");
    scene.must_be_told(name);
    for (file, entry) in new.iter().filter(|(file, _)| file.ends_with(".pem")) {
        assert!(is_a_pair(&entry.bytes), "{name}: {file}");
    }
    scene.restore();
    let (run, calls) = strace::record(&scene.cmd, &scene.arguments, circumstances, processor);
    assert_eq!(run.code, Some(0), "{name}: {run}");
    must_be_old_or_new(name, &scene.shown(), &new, &new);

    let points: Vec<&Call> = calls.iter().filter(|call| wanted(call)).collect();
    let mut states = BTreeSet::new();
    let mut killed = 0;
    let mut check = |scene: &mut Scene, call: &Call, context: &str| {
        scene.restore();
        let traced =
            strace::inject(&scene.cmd, &scene.arguments, circumstances, call, Fault::Kill, processor);
        assert_eq!(
            traced.signal,
            Some(9),
            "{context}: the kill did not happen: {}\n{}",
            traced.run,
            traced.log
        );
        killed += 1;
        scene.wait_for_orphans();

        let mut left = scene.shown();
        // The directory itself is its owner's in the end, as the next run shows.
        left.remove("sites");
        let mut expected = [old.clone(), new.clone()];
        for shown in &mut expected {
            shown.remove("sites");
        }
        must_be_old_or_new(context, &left, &expected[0], &expected[1]);
        scene.must_be_loadable(context);
        for (file, bytes) in scene.kept() {
            let was = old.get(&file).map(|entry| &entry.bytes);
            assert_eq!(was, Some(&bytes), "{context}: what is kept of {file} is not what it was");
        }
        states.insert(left);

        let told = scene.told().len();
        let run = scene.run();
        assert_eq!(run.code, calm.code, "{context}, then {run}");
        must_be_old_or_new(context, &scene.shown(), &new, &new);
        scene.must_be_told(context);
        assert!(scene.told().len() <= told + 1, "{context}: told more than once");
        let extra: Vec<String> = scene
            .names()
            .difference(&leftovers)
            .filter(|name| !name.contains("/adopted/"))
            .cloned()
            .collect();
        assert_eq!(extra, Vec::<String>::new(), "{context}: left over");

        let told = scene.told();
        let again = scene.run();
        assert_eq!(again.code, calm.code, "{context}, then twice {again}");
        assert_eq!(again.json()["haproxy"][0]["outcome"], "not-needed", "{context}, then twice {again}");
        for action in ["install", "replace", "repair", "prune", "refuse", "conflict"] {
            assert_eq!(again.json()["summary"][action], 0, "{context}, then twice {again}");
        }
        assert_eq!(scene.told(), told, "{context}: told again");
        must_be_old_or_new(context, &scene.shown(), &new, &new);
    };
    let mut failed = Vec::new();
    while let Some(call) = points.get(next.fetch_add(1, Ordering::Relaxed)) {
        let context = format!("{name}, killed before {call}");
        failed.extend(failure(|| check(&mut scene, call, &context)));
    }
    (points.len(), killed, states.len(), failed)
}

/// The tests run as root, as the program does: otherwise no file could be another user's.
#[test]
fn the_tests_are_root() {
    let file = tempfile::NamedTempFile::new().unwrap();
    chown(file.path(), Some(OTHER.0), Some(OTHER.1)).expect("run the tests as root");
}
