//! Every call fails: whichever system call of a run fails, and however, the run says so, changes nothing by half, and the
//! next one makes good what is missing.
//!
//! `HAPROXY_CERTS_LONG=1` tries every error at every call, not only at every call that changes something.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    reason = "tests may fail loudly"
)]

mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use support::scene::{Scene, Shown, every_action, failure, first_run, must_be_old_or_new};
use support::strace::{self, Call, Fault};
use support::summary::{Summary, long};

/// Each with the words that a report has for it.
const ERRORS: [(&str, &str); 7] = [
    ("ENOSPC", "no space left"),
    ("EIO", "input/output error"),
    ("EACCES", "permission denied"),
    ("EMFILE", "too many open files"),
    ("EROFS", "read-only file system"),
    ("EINTR", "interrupted"),
    ("EDQUOT", "quota"),
];

#[test]
fn every_call_fails_while_every_action_is_carried_out() {
    fail_everywhere("every action", every_action);
}

#[test]
fn every_call_fails_in_the_very_first_run() {
    fail_everywhere("first run", first_run);
}

fn fail_everywhere(name: &'static str, prepare: fn() -> Scene) {
    strace::must_be_there();
    let next = AtomicUsize::new(0);
    let mut summary = Summary::of("faults");
    let results: Vec<Counts> = thread::scope(|scope| {
        let workers: Vec<_> = strace::processors()
            .into_iter()
            .take(2)
            .map(|processor| {
                let next = &next;
                scope.spawn(move || fail_at(name, prepare, processor, next))
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    let mut total = Counts::default();
    for counts in results {
        for (code, number) in counts.exits {
            *total.exits.entry(code).or_default() += number;
        }
        total.failed.extend(counts.failed);
    }
    summary.count(format!("{name}: calls failed, checked, run to its end"), total.exits.values().sum());
    for (code, number) in &total.exits {
        summary.count(format!("{name}: of these runs exited {code}"), *number);
    }
    summary.show();
    assert!(total.failed.is_empty(), "{} of them failed:\n{:#?}", total.failed.len(), total.failed);
}

#[derive(Default)]
struct Counts {
    exits: BTreeMap<i32, usize>,
    failed: Vec<String>,
}

/// Which faults are tried at a call, the `position`-th of its run.
fn faults(call: &Call, position: usize) -> Vec<(Fault, &'static str)> {
    let one = |(error, words)| (Fault::Error(error), words);
    // The standard library panics where closing a directory fails, and Linux never lets that fail.
    if call.name == "close" {
        return Vec::new();
    }
    let mut faults = match call {
        _ if long() || (call.changes() && position.is_multiple_of(4)) => ERRORS.map(one).into(),
        _ if call.changes() => {
            vec![one(ERRORS[position % ERRORS.len()]), one(ERRORS[(position + 3) % ERRORS.len()])]
        }
        _ if position.is_multiple_of(3) => vec![one(ERRORS[position / 3 % ERRORS.len()])],
        _ => vec![],
    };
    // Interrupted for ever is no fault that there is, and the standard library waits it out.
    let (error, words) = ERRORS[position / 5 % ERRORS.len()];
    let waits = call.tells() || call.name == "setsockopt";
    // A socket that never works is waited for a minute.
    if error != "EINTR" && (long() || !waits) && (long() || position.is_multiple_of(5)) {
        faults.push((Fault::Errors(error), words));
    }
    faults
}

fn fail_at(name: &str, prepare: fn() -> Scene, processor: usize, next: &AtomicUsize) -> Counts {
    let mut scene = prepare();
    scene.save();
    let old = scene.shown();
    let calm = scene.run().exits(0);
    let new = scene.shown();
    let leftovers = scene.names();
    assert_eq!(calm.stderr, "", "{name}");
    scene.restore();
    let (_, calls) = strace::record(&scene.cmd, &scene.arguments, &[], processor);
    let points: Vec<(&Call, Fault, &str)> = calls
        .iter()
        .enumerate()
        .flat_map(|(position, call)| {
            faults(call, position).into_iter().map(move |(fault, words)| (call, fault, words))
        })
        .collect();
    let mut counts = Counts::default();
    while let Some((call, fault, words)) = points.get(next.fetch_add(1, Ordering::Relaxed)) {
        let context = format!("{name}, {fault:?} at {call}");
        let exits = &mut counts.exits;
        counts.failed.extend(failure(|| {
            scene.restore();
            let traced = strace::inject(&scene.cmd, &scene.arguments, &[], call, *fault, processor);
            assert!(traced.happened(), "{context}: the fault did not happen: {}", traced.run);
            scene.wait_for_orphans();
            let code = traced.run.code.unwrap_or(-1);
            *exits.entry(code).or_default() += 1;
            judge(&context, &mut scene, call, &traced, words, &old, &new);

            let run = scene.run();
            assert_eq!(run.code, Some(0), "{context} ({code}), then {run}");
            must_be_old_or_new(&context, &scene.shown(), &new, &new);
            scene.must_be_told(&context);
            let extra: Vec<String> = scene
                .names()
                .difference(&leftovers)
                .filter(|name| !name.contains("/adopted/"))
                .cloned()
                .collect();
            assert_eq!(extra, Vec::<String>::new(), "{context}: left over");
            let told = scene.told();
            let again = scene.run().exits(0);
            assert_eq!(again.json()["haproxy"][0]["outcome"], "not-needed", "{context}, then twice {again}");
            assert_eq!(scene.told(), told, "{context}: told again");
        }));
    }
    counts
}

/// What a run with a fault must be like, and leave.
fn judge(
    context: &str,
    scene: &mut Scene,
    call: &Call,
    traced: &strace::Traced,
    words: &str,
    old: &Shown,
    new: &Shown,
) {
    let run = &traced.run;
    assert_eq!(traced.signal, None, "{context}: {run}");
    assert!(!run.stderr.contains("panicked"), "{context}: {run}");
    assert!(run.code.is_some_and(|code| (0..=3).contains(&code)), "{context}: {run}");

    let mut left = scene.shown();
    let mut expected = [old.clone(), new.clone()];
    for shown in [&mut left].into_iter().chain(&mut expected) {
        shown.remove("sites");
    }
    must_be_old_or_new(context, &left, &expected[0], &expected[1]);
    scene.must_be_loadable(context);

    // Where the report itself can't be written there is no report.
    let to_us = call.name == "write" && (call.arguments.starts_with("1<") || traced.run.stdout.is_empty());
    if to_us || run.stdout.is_empty() {
        assert!(to_us || run.code != Some(0), "{context}: no report: {run}");
        assert!(to_us || run.stderr.contains(words), "{context}: {run}");
        return;
    }
    let report = run.json();
    let said = run.stdout.to_lowercase();
    match run.code {
        Some(0) => {
            assert_eq!(left, expected[1], "{context}: it says that all is well: {run}");
            scene.must_be_told(context);
        }
        Some(3) => {
            let message = report["error"]["message"].as_str().unwrap_or_default();
            assert!(message.contains('/') && message.is_ascii(), "{context}: no path in {message:?}");
            assert!(message.contains(words), "{context}: not the cause in {message:?}");
        }
        // Why a program can't be started or watched is said in other words.
        Some(2) => assert_eq!(report["haproxy"][0]["owed"], true, "{context}: {run}"),
        _ => assert!(said.contains(words), "{context}: the cause isn't said: {run}"),
    }
}
