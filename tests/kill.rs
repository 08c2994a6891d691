//! Killed at every step: whenever the program ends, every name that HAProxy loads holds the whole old or the whole new
//! PEM, and the next run makes good whatever is missing.
//!
//! Each scenario is run once to list its system calls, and then once per call with SIGKILL in its place.
//! A call that only reads leaves what the call before it left: of those every eighth is taken, or fewer where a scenario
//! says so. Where a killed run leaves everything exactly as it found it, the runs after it are the same each time, and are
//! judged once. `HAPROXY_CERTS_LONG=1` takes those calls and judges those runs too.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    clippy::case_sensitive_file_extension_comparisons,
    reason = "tests may fail loudly"
)]

use std::collections::BTreeSet;
use std::os::unix::fs::chown;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use support::live::{ASSEMBLE, Live, Work, demanding_openssl, one_of_each, renew_two, sites, two_refused};
use support::scene::{
    OTHER, Scene, every_action, every_action_indexed, failure, first_run, is_a_pair, many, must_be_old_or_new,
};
use support::strace::{self, Call, Fault};
use support::summary::{Count, long};
use support::{Version, version};

#[test]
fn killed_while_every_action_is_carried_out() {
    kill_everywhere("every action", every_action, &[], changes_or_is_an_eighth);
}

#[test]
fn killed_while_every_action_is_carried_out_with_an_index() {
    // Calls that only read leave what the same calls leave without it; of the others of one kind every second is taken.
    kill_everywhere("every action, indexed", every_action_indexed, &[], |call| {
        long() || call.changes() && call.number.is_multiple_of(2)
    });
}

#[test]
fn killed_in_the_very_first_run() {
    kill_everywhere("first run", first_run, &[], changes_or_is_an_eighth);
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
    kill_everywhere("many files", many, &[], |call| {
        call.changes() && (long() || call.number.is_multiple_of(8))
    });
}

fn changes_or_is_an_eighth(call: &Call) -> bool {
    long() || call.changes() || call.number.is_multiple_of(8)
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
    let states = counts.iter().map(|count| count.1).max().unwrap();
    Count::Killed.add(
        &format!("{name}, at {} calls, {states} states left", counts[0].0),
        counts.iter().map(|count| count.2).sum(),
    );
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
    scene.must_be_as_without_index(name, &calm);
    scene.grow_old();
    scene.restore();
    let (run, calls) = strace::record(&scene.cmd, &scene.arguments, circumstances, processor);
    assert_eq!(run.code, Some(0), "{name}: {run}");
    must_be_old_or_new(name, &scene.shown(), &new, &new);

    let points: Vec<&Call> = calls.iter().filter(|call| wanted(call)).collect();
    let mut states = BTreeSet::new();
    let mut killed = 0;
    let mut followed = false;
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

        if scene.is_as_saved() {
            if followed && !long() {
                return;
            }
            followed = true;
        }
        let told = scene.told().len();
        let run = scene.run();
        assert_eq!(run.code, calm.code, "{context}, then {run}");
        must_be_old_or_new(context, &scene.shown(), &new, &new);
        scene.must_be_told(context);
        assert!(scene.told().len() <= told + 1, "{context}: told more than once");
        scene.must_have_no_more_than(&leftovers, context);

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
    (points.len(), states.len(), killed, failed)
}

/// The tests run as root, as the program does: otherwise no file could be another user's.
#[test]
fn the_tests_are_root() {
    let file = tempfile::NamedTempFile::new().unwrap();
    chown(file.path(), Some(OTHER.0), Some(OTHER.1)).expect("run the tests as root");
}

// ---- with a HAProxy

#[test]
fn killed_while_the_runtime_api_is_used() {
    kill_with_haproxy("runtime 2.6", &version("2.6").unwrap(), "", &[], renew_two);
}

#[test]
fn killed_while_the_runtime_api_is_used_through_the_stats_socket() {
    kill_with_haproxy("runtime 3.0", &version("3.0").unwrap(), "STATS", &[], renew_two);
}

#[test]
fn killed_while_the_master_reloads() {
    kill_with_haproxy("reload by the master 3.0", &version("3.0").unwrap(), "", &[], one_of_each);
}

#[test]
fn killed_while_a_signal_reloads() {
    kill_with_haproxy("reload by signal 2.6", &version("2.6").unwrap(), "", &[], one_of_each);
}

#[test]
fn killed_while_it_is_rolled_back() {
    // A HAProxy that asks more of keys than the check of the staged files does.
    let folder = tempfile::tempdir().unwrap();
    let path = demanding_openssl(folder.path());
    let environment = [("OPENSSL_CONF", path.as_str())];
    kill_with_haproxy("roll-back", &version("2.6").unwrap(), "", &environment, two_refused);
}

fn kill_with_haproxy(
    name: &'static str,
    version: &Version,
    more: &str,
    environment: &[(&str, &str)],
    work: Work,
) {
    strace::must_be_there();
    let processors = strace::processors();
    // The second time a run has the shape that it has from then on.
    let start = || {
        let mut live = Live::start(version, more, environment);
        work(&mut live);
        live.cmd.assemble(&[]);
        live
    };
    let mut live = start();
    work(&mut live);
    let (run, calls) = strace::record(&live.cmd, &ASSEMBLE, &[], processors[0]);
    let code = run.code;
    assert_eq!(run.json()["haproxy"][0]["outcome"] == "rolled-back", code == Some(2), "{name}: {run}");
    assert!(matches!(code, Some(0 | 2)), "{name}: {run}");
    live.must_be_as_wanted(name);

    // Calls that only read are killed at where there is no HAProxy. Of those that notify every third is taken, and every
    // sixth where a roll-back is notified of, which is as any other.
    let every = if code == Some(0) { 3 } else { 6 };
    let wanted = |call: &&Call| long() || call.changes() || call.tells() && call.number.is_multiple_of(every);
    let points: Vec<&Call> = calls.iter().filter(wanted).collect();
    let next = AtomicUsize::new(0);
    let killed_at = |mut live: Live, processor: usize| {
        let (mut killed, mut missed, mut failed) = (0, 0, Vec::new());
        while let Some(call) = points.get(next.fetch_add(1, Ordering::Relaxed)) {
            let context = format!("{name}, killed before {call}");
            failed.extend(failure(|| {
                let happened = kill_live(&context, &mut live, work, call, processor);
                *if happened { &mut killed } else { &mut missed } += 1;
                live.must_converge(&context, code == Some(2));
            }));
        }
        live.haproxy.check().unwrap();
        (killed, missed, failed)
    };
    // They wait more than they work: two HAProxies for each scenario.
    let (killed, missed, failed) = thread::scope(|scope| {
        let other = scope.spawn(|| killed_at(start(), *processors.last().unwrap()));
        let (killed, missed, mut failed) = killed_at(live, processors[0]);
        let (others, other_missed, other_failed) = other.join().unwrap();
        failed.extend(other_failed);
        (killed + others, missed + other_missed, failed)
    });
    Count::Killed
        .add(&format!("{name}, at {} calls, {missed} of which did not come again", points.len()), killed);
    assert!(failed.is_empty(), "{} of them failed:\n{failed:#?}", failed.len());
    assert!(missed * 10 <= killed, "{missed} kills did not happen, {killed} did");
}

/// Kills runs with something to do at a call until it happened; whether it did: how often a run polls differs.
fn kill_live(context: &str, live: &mut Live, work: Work, call: &Call, processor: usize) -> bool {
    (0..3).any(|_| {
        work(live);
        let old = sites(&live.cmd);
        let traced = strace::inject(&live.cmd, &ASSEMBLE, &[], call, Fault::Kill, processor);
        live.must_be_whole(context, &old);
        traced.happened()
    })
}
