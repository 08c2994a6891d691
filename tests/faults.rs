//! Every call fails: whichever system call of a run fails, and however, the run says so, changes nothing by half, and the
//! next one makes good what is missing.
//!
//! A call that changes something meets one of the errors, by turns; of those that only read every eighth does.
//! Where a run leaves everything exactly as it found it, the runs after it are the same each time, and are judged once.
//! `HAPROXY_CERTS_LONG=1` tries every error at every call, and judges those runs too.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    reason = "tests may fail loudly"
)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use support::live::{ASSEMBLE, Live, Work, one_of_each, renew_two, sites};
use support::scene::{
    Scene, Shown, every_action, every_action_indexed, failure, first_run, must_be_old_or_new,
};
use support::strace::{self, Call, Fault};
use support::summary::{Count, long};
use support::version;

/// How often a fault is tried until it happens: how often a run polls differs, and so the numbers of its last calls.
const TRIES: usize = 5;

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
fn every_call_fails_while_every_action_is_carried_out_with_an_index() {
    fail_everywhere("every action, indexed", every_action_indexed);
}

#[test]
fn every_call_fails_in_the_very_first_run() {
    fail_everywhere("first run", first_run);
}

fn fail_everywhere(name: &'static str, prepare: fn() -> Scene) {
    strace::must_be_there();
    let next = AtomicUsize::new(0);
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
        total.add(counts);
    }
    total.must_be_fine(name);
}

#[derive(Default)]
struct Counts {
    exits: BTreeMap<i32, usize>,
    failed: Vec<String>,
}

impl Counts {
    fn add(&mut self, other: Self) {
        for (code, number) in other.exits {
            *self.exits.entry(code).or_default() += number;
        }
        self.failed.extend(other.failed);
    }

    fn must_be_fine(&self, name: &str) {
        let Self { exits, failed } = self;
        Count::Failed.add(&format!("{name}, exit statuses {exits:?}"), exits.values().sum());
        assert!(failed.is_empty(), "{} of them failed:\n{failed:#?}", failed.len());
    }
}

/// Which faults are tried at a call, the `position`-th of its run.
fn faults(call: &Call, position: usize) -> Vec<(Fault, &'static str)> {
    let one = |(error, words)| (Fault::Error(error), words);
    // The standard library panics where closing a directory fails, and Linux never lets that fail.
    if call.name == "close" {
        return Vec::new();
    }
    let mut faults = match call {
        _ if long() => ERRORS.map(one).into(),
        _ if call.changes() => vec![one(ERRORS[position % ERRORS.len()])],
        _ if position.is_multiple_of(8) => vec![one(ERRORS[position / 8 % ERRORS.len()])],
        _ => vec![],
    };
    // Interrupted for ever is no fault that there is, and the standard library waits it out.
    let (error, words) = ERRORS[position / 10 % ERRORS.len()];
    let waits = call.tells() || call.name == "setsockopt";
    // A socket that never works is waited for a minute.
    if error != "EINTR" && (long() || !waits) && (long() || position.is_multiple_of(10)) {
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
    scene.must_be_as_without_index(name, &calm);
    scene.grow_old();
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
    let mut followed = false;
    while let Some((call, fault, words)) = points.get(next.fetch_add(1, Ordering::Relaxed)) {
        let context = format!("{name}, {fault:?} at {call}");
        let exits = &mut counts.exits;
        counts.failed.extend(failure(|| {
            let mut inject = || {
                scene.restore();
                strace::inject(&scene.cmd, &scene.arguments, &[], call, *fault, processor)
            };
            let traced =
                (1..TRIES).map(|_| inject()).find(strace::Traced::happened).unwrap_or_else(&mut inject);
            assert!(traced.happened(), "{context}: the fault did not happen: {}", traced.run);
            scene.wait_for_orphans();
            let code = traced.run.code.unwrap_or(-1);
            *exits.entry(code).or_default() += 1;
            judge(&context, &mut scene, call, &traced, words, &old, &new);

            if scene.is_as_saved() {
                if followed && !long() {
                    return;
                }
                followed = true;
            }
            let run = scene.run();
            assert_eq!(run.code, Some(0), "{context} ({code}), then {run}");
            must_be_old_or_new(&context, &scene.shown(), &new, &new);
            scene.must_be_told(&context);
            scene.must_have_no_more_than(&leftovers, &context);
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
        Some(2) => {
            let row = &report["haproxy"][0];
            assert!(row["owed"] == true || row["outcome"] == "rolled-back", "{context}: {run}");
        }
        _ => assert!(said.contains(words), "{context}: the cause isn't said: {run}"),
    }
}

// ---- with a HAProxy

/// What a conversation with HAProxy may meet besides.
const ON_SOCKETS: [&str; 4] = ["ECONNRESET", "EPIPE", "ECONNREFUSED", "ETIMEDOUT"];

#[test]
fn every_call_fails_while_the_runtime_api_is_used() {
    fail_with_haproxy("runtime 3.0", "3.0", "STATS", renew_two);
}

#[test]
fn every_call_fails_while_the_master_reloads() {
    fail_with_haproxy("reload by the master 3.0", "3.0", "", one_of_each);
}

#[test]
fn every_call_fails_while_a_signal_reloads() {
    fail_with_haproxy("reload by signal 2.6", "2.6", "", one_of_each);
}

/// The calls of the conversation with HAProxy: the others fail where there is none.
fn fail_with_haproxy(name: &'static str, haproxy: &str, more: &str, work: Work) {
    strace::must_be_there();
    let processors = strace::processors();
    let start = || {
        let mut live = Live::start(&version(haproxy).unwrap(), more, &[]);
        work(&mut live);
        live.cmd.assemble(&[]).exits(0);
        live
    };
    let mut live = start();
    work(&mut live);
    let (run, calls) = strace::record(&live.cmd, &ASSEMBLE, &[], processors[0]);
    assert_eq!(run.code, Some(0), "{name}: {run}");
    let errors: Vec<&str> = ERRORS.iter().map(|(error, _)| *error).chain(ON_SOCKETS).collect();
    let points: Vec<(&Call, &str)> = calls
        .iter()
        .filter(|call| call.tells())
        .enumerate()
        .flat_map(|(position, call)| {
            let wanted = if long() { errors.len() } else { 1 };
            let errors = &errors;
            (0..wanted).map(move |more| (call, errors[(position + more) % errors.len()]))
        })
        .collect();
    let next = AtomicUsize::new(0);
    let failed_at = |mut live: Live, processor: usize| {
        let mut counts = Counts::default();
        while let Some(&(call, error)) = points.get(next.fetch_add(1, Ordering::Relaxed)) {
            let context = format!("{name}, {error} at {call}");
            let exits = &mut counts.exits;
            counts.failed.extend(failure(|| {
                let old = sites(&live.cmd);
                work(&mut live);
                let traced = strace::inject(&live.cmd, &ASSEMBLE, &[], call, Fault::Error(error), processor);
                if traced.happened() {
                    *exits.entry(traced.run.code.unwrap_or(-1)).or_default() += 1;
                }
                judge_live(&context, &live, &traced);
                live.must_be_whole(&context, &old);
                live.must_converge(&context, false);
            }));
        }
        counts
    };
    let total = thread::scope(|scope| {
        let other = scope.spawn(|| failed_at(start(), *processors.last().unwrap()));
        let mut counts = failed_at(live, processors[0]);
        counts.add(other.join().unwrap());
        counts
    });
    total.must_be_fine(name);
}

/// A fault of ours is never taken for HAProxy's refusal, and what it says holds.
fn judge_live(context: &str, live: &Live, traced: &strace::Traced) {
    let run = &traced.run;
    assert_eq!(traced.signal, None, "{context}: {run}");
    assert!(!run.stderr.contains("panicked"), "{context}: {run}");
    let report = run.json();
    assert!(!run.stdout.contains("haproxy-rejects"), "{context}: {run}");
    let told = &report["haproxy"][0];
    match run.code {
        Some(0) => {
            assert_eq!(told["owed"], false, "{context}: {run}");
            live.must_be_as_wanted(context);
        }
        Some(2) => {
            assert_eq!(told["owed"], true, "{context}: {run}");
            assert!(told["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{context}: {run}");
        }
        _ => panic!("{context}: {run}"),
    }
}
