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

use support::live::{Live, Work, demanding_openssl, one_of_each, one_refused, renew_two, sites};
use support::scene::{OTHER, Scene, every_action, failure, first_run, is_a_pair, many, must_be_old_or_new};
use support::strace::{self, Call, Fault};
use support::summary::{Summary, long};
use support::{Kind, Version, served, version};

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
    kill_with_haproxy("roll-back", &version("2.6").unwrap(), "", &environment, one_refused);
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
    let processor = processors[name.len() % processors.len()];
    let mut live = Live::start(version, more, environment);
    let mut summary = Summary::of("kill");

    // The second time it has the shape that it has from then on.
    work(&mut live, 0);
    live.cmd.assemble(&[]);
    work(&mut live, 1);
    let (run, calls) = strace::record(&live.cmd, &["assemble", "--format", "json"], &[], processor);
    let refused = run.json()["haproxy"][0]["outcome"] == "rolled-back";
    assert_eq!(run.code, Some(if refused { 2 } else { 0 }), "{name}: {run}");
    live.must_be_as_wanted(name);

    // What only reads before the first change is covered without a HAProxy.
    let points: Vec<&Call> = calls.iter().filter(|call| call.changes() || call.tells()).collect();
    let step = if long() { 1 } else { points.len().div_ceil(70) };
    let (mut killed, mut too_late, mut failed) = (0, 0, Vec::new());
    for (round, call) in (2..).zip(points.iter().step_by(step)) {
        let context = format!("{name}, killed before {call}");
        failed.extend(failure(|| {
            let old = sites(&live.cmd);
            work(&mut live, round);
            let traced = strace::inject(
                &live.cmd,
                &["assemble", "--format", "json"],
                &[],
                call,
                Fault::Kill,
                processor,
            );
            // How often it polls differs from run to run.
            if traced.happened() {
                killed += 1;
            } else {
                too_late += 1;
            }
            for (file, bytes) in sites(&live.cmd) {
                let lineage = file.strip_suffix(".pem").unwrap();
                let as_certbot = fs::read_to_string(live.tree.link(lineage, Kind::Privkey))
                    .unwrap_or_default()
                    + &fs::read_to_string(live.tree.link(lineage, Kind::Fullchain)).unwrap_or_default();
                assert!(
                    old.get(&file) == Some(&bytes) || as_certbot.as_bytes() == bytes,
                    "{context}: {file} is neither old nor new"
                );
            }
            for file in old.keys() {
                let lineage = file.strip_suffix(".pem").unwrap();
                assert!(
                    live.cmd.site(lineage).exists() || !live.wanted.contains_key(lineage),
                    "{context}: {file} is gone"
                );
            }
            assert_eq!(
                served(live.haproxy.address(), "host.example").serial,
                live.host.serial(),
                "{context}"
            );

            let run = live.cmd.assemble(&[]);
            let expected: &[i32] = if refused { &[1, 2] } else { &[0] };
            assert!(run.code.is_some_and(|code| expected.contains(&code)), "{context}, then {run}");
            assert_eq!(run.json()["haproxy"][0]["owed"], false, "{context}, then {run}");
            live.must_be_as_wanted(&context);
            for folder in ["stage", "previous"] {
                let left = support::cmd::names_in(&live.cmd.sites().join(".haproxy-certs").join(folder));
                assert_eq!(left, Vec::<String>::new(), "{context}: left over");
            }
            let before = live.haproxy.processes();
            let again = live.cmd.assemble(&[]);
            assert_eq!(again.code, Some(i32::from(refused)), "{context}, then twice {again}");
            assert_eq!(again.json()["haproxy"][0]["outcome"], "not-needed", "{context}, then twice {again}");
            assert_eq!(live.haproxy.processes(), before, "{context}");
            assert!(
                live.haproxy.runtime("show ssl cert").lines().all(|line| !line.starts_with('*')),
                "{context}"
            );
        }));
    }
    live.haproxy.check().unwrap();
    summary.count(format!("{name}: calls of a run that change or tell"), points.len());
    summary.count(format!("{name}: killed at such a call, checked, run to its end"), killed);
    summary.count(format!("{name}: such calls that did not come again"), too_late);
    summary.show();
    assert!(failed.is_empty(), "{} of them failed:\n{failed:#?}", failed.len());
    assert!(killed >= 2 * too_late, "most kills must happen: {killed} did, {too_late} did not");
}
