//! The oracle: random worlds and steps with real `HAProxy`s, judged by outcomes only.
//!
//! After a run that says that everything is in step, every name, on every bind line, from clients with either kind of
//! key, is answered as a HAProxy that is freshly started from the same files and configuration would answer it. After
//! any run, and after one that was killed, such a start is possible, and nothing of anybody else's has vanished; the next
//! run mends what is missing. Only what no check could show beforehand (see [`world::Checked`]) is waited for until HAProxy
//! was told.
//!
//! A finding prints its seed, the fewest steps that still show it, and a script that a person can run. Longer runs:
//! `HAPROXY_CERTS_WORLDS=1000 HAPROXY_CERTS_STEPS=10 HAPROXY_CERTS_SEED=7 cargo test --test oracle`;
//! `HAPROXY_CERTS_RELOAD=1` has a reload forced at each step, which must always be right.

#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "test code may fail loudly, and its parts are modules of one test"
)]

#[path = "oracle/judge.rs"]
mod judge;
#[path = "oracle/script.rs"]
mod script;
#[path = "oracle/steps.rs"]
mod steps;
#[path = "oracle/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use judge::{Answers, compare, fresh};
use steps::{Stage, Step, Trouble};
use support::summary::{Count, say};
use support::{Run, Version, versions};
use world::{Random, World};

const WORLDS: usize = 40;
const STEPS: usize = 6;
const SEED: usize = 1;

/// How many times a finding's world is tried again with less in it.
const SHRINK: usize = 40;

/// What was counted.
#[derive(Debug, Default)]
struct Counts {
    worlds: AtomicUsize,
    steps: AtomicUsize,
    compared: AtomicUsize,
    late: AtomicUsize,
    killed: AtomicUsize,
}

/// What is wrong.
#[derive(Debug, Clone)]
struct Finding {
    /// Findings of one class have the same cause, as far as this can be told.
    class: String,
    /// In which step, counted from 0.
    step: usize,
    /// What was seen.
    what: String,
    /// What happened until then.
    journal: Vec<String>,
}

/// What a run says.
#[derive(Debug, PartialEq, Eq)]
enum Word {
    /// Everything is in step, and it has seen that.
    Confirmed,
    /// Everything is in step, but there was no way to see it.
    Unseen,
    /// There is nothing to do.
    Nothing,
    /// It owes something, or failed.
    Trouble,
}

fn word(run: &Run) -> Word {
    let told = &run.json()["haproxy"][0];
    let good = matches!(run.code, Some(0 | 1)) && told["owed"] == false;
    match () {
        () if !good => Word::Trouble,
        () if told["confirmed"] == true => Word::Confirmed,
        () if told["outcome"] == "not-needed" => Word::Nothing,
        () => Word::Unseen,
    }
}

fn rolled_back(run: &Run) -> bool {
    run.json()["haproxy"][0]["outcome"] == "rolled-back"
}

fn holds_a_prune(run: &Run) -> bool {
    let rows = run.json();
    let rows = rows["sites"].as_array().unwrap().iter();
    rows.flat_map(|row| row["warnings"].as_array().unwrap()).any(|warning| warning == "prune-held")
}

fn method(run: &Run) -> String {
    let told = run.json()["haproxy"][0].clone();
    let word = |key: &str| told[key].as_str().unwrap_or("-").to_owned();
    format!("{}/{}", word("method"), word("outcome"))
}

/// Carries out a world; what is wrong, if something is.
fn carry_out(world: &World, steps: &[Step], counts: &Counts) -> Option<Finding> {
    let version = support::version(&world.version).unwrap();
    let mut stage = Stage::new(world, &version);
    let first = stage.run(&["--reload", "none"]);
    assert!(matches!(first.code, Some(0 | 1)), "the very first run: {first}");
    stage.mend_list();
    stage.start().unwrap_or_else(|log| panic!("HAProxy {} did not start: {log}", version.full));
    counts.worlds.fetch_add(1, Ordering::Relaxed);
    for (number, step) in steps.iter().enumerate() {
        counts.steps.fetch_add(1, Ordering::Relaxed);
        let found = catch_unwind(AssertUnwindSafe(|| take(&mut stage, step, counts)));
        let found = found.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map_or("a panic", String::as_str);
            Some(("panic of the harness".to_owned(), text.to_owned()))
        });
        if let Some((class, what)) = found {
            return Some(Finding { class, step: number, what, journal: stage.journal.clone() });
        }
    }
    None
}

/// The class of a finding.
const NO_START: &str = "no fresh start";

type Found = Option<(String, String)>;

/// One step.
#[allow(clippy::too_many_lines, reason = "what happens, in its order")]
fn take(stage: &mut Stage, step: &Step, counts: &Counts) -> Found {
    let trouble = step.trouble;
    let broken = trouble == Trouble::Broken;
    if broken {
        stage.break_config(true);
    }
    let held = (trouble == Trouble::InFlight).then(|| stage.begin_reload()).flatten();
    for change in &step.changes {
        stage.change(change);
    }
    let mut transaction = None;
    match trouble {
        Trouble::Reload => stage.reload(),
        Trouble::Restart => {
            stage.stop();
            if let Err(log) = stage.start() {
                return Some(("no restart before the run".to_owned(), log));
            }
        }
        // Nothing would show what HAProxy refuses.
        Trouble::Down if stage.has_a_surprise() => {}
        Trouble::Down => stage.stop(),
        Trouble::Transaction => transaction = stage.open_transaction(),
        _ => {}
    }
    let before = stage.foreign();
    let name = trouble.to_string();
    let run = match trouble {
        Trouble::Killed(moment) => {
            if stage.run_killed(moment) {
                counts.killed.fetch_add(1, Ordering::Relaxed);
                if let Err((class, what)) = judge_files(stage, &before)
                    && !(class == NO_START && stage.has_a_surprise())
                {
                    return Some((format!("{class} after a kill"), what));
                }
            }
            stage.run(&[])
        }
        Trouble::ReloadMeanwhile(moment) => stage.run_and_reload(moment),
        Trouble::TransactionMeanwhile(moment) => {
            let (run, command) = stage.run_and_transaction(moment);
            transaction = command;
            run
        }
        Trouble::Deferred | Trouble::Renamed => stage.run(&["--defer-reload"]),
        _ => stage.run_meanwhile(held),
    };
    if !stage.is_up()
        && let Err(log) = stage.start()
    {
        return Some(("no start after the run".to_owned(), format!("{log}\n{}", brief(&run))));
    }
    let is_untold = matches!(trouble, Trouble::Deferred | Trouble::Renamed);
    if !(is_untold && stage.has_a_surprise())
        && let Some(found) = judge_run(stage, &run, &before, &name, counts)
    {
        return Some(found);
    }

    // The obstacle goes away.
    if let Some(command) = transaction {
        stage.end_transaction(&command);
    }
    if broken {
        stage.break_config(false);
    }
    if trouble == Trouble::Renamed {
        stage.rename_table();
    }
    let obstructed =
        !matches!(trouble, Trouble::Calm | Trouble::Reload | Trouble::Restart | Trouble::Killed(_));
    let mut last = run;
    // A configuration that broke within moments of HAProxy's start isn't seen to be newer: only the prune waits for it.
    let waits = trouble == Trouble::Down || trouble == Trouble::Broken && word(&last) != Word::Trouble;
    if waits && holds_a_prune(&last) {
        // As long as nothing ran that could be asked, or that was refused. Now it runs.
        last = stage.run(&[]);
        if let Some(found) = judge_run(stage, &last, &before, "no longer held", counts) {
            return Some(found);
        }
    }
    if word(&last) == Word::Trouble {
        stage.mend_list();
        let mut next = stage.run(&[]);
        if rolled_back(&next) {
            // Right, and the end of it: the run after that knows.
            next = stage.run(&[]);
        }
        if let Some(found) = judge_run(stage, &next, &before, "mended", counts) {
            return Some(found);
        }
        if word(&next) == Word::Trouble {
            // Without a master nobody can have it reload: it must be started again.
            if stage.world.master {
                let class = format!("not right once the obstacle is gone: {}, after {name}", method(&next));
                return Some((
                    class,
                    format!("first {}\nthen {}\n{}", brief(&last), brief(&next), tail(&stage.log())),
                ));
            }
            stage.stop();
            if let Err(log) = stage.start() {
                return Some(("no restart".to_owned(), format!("{log}\n{}", brief(&next))));
            }
            let after = stage.run(&[]);
            if let Some(found) = judge_run(stage, &after, &before, "restarted", counts) {
                return Some(found);
            }
            if word(&after) == Word::Trouble {
                let class = format!("not right after a restart: {}", method(&after));
                return Some((
                    class,
                    format!(
                        "first {}\nthen {}\nafter a restart {}",
                        brief(&last),
                        brief(&next),
                        brief(&after)
                    ),
                ));
            }
            last = after;
        } else {
            let listed = stage.world.uses(world::Item::List);
            if !obstructed && !rolled_back(&last) && !listed && stage.world.master {
                let class = format!("trouble without an obstacle: {}", method(&last));
                return Some((class, format!("first {}\nthen {}", brief(&last), brief(&next))));
            }
            last = next;
        }
    }
    // What is in step has nothing to do.
    let is_new = stage.is_new || matches!(trouble, Trouble::Killed(_));
    let mut again = stage.run(&[]);
    if is_new && rolled_back(&again) {
        // A HAProxy that was started or reloaded may have changed its mind: it was asked again.
        again = stage.run(&[]);
    }
    let idle =
        again.json()["sites"].as_array().unwrap().iter().all(|row| {
            ["unchanged", "refuse", "conflict", "foreign"].contains(&row["action"].as_str().unwrap())
        });
    if word(&again) != Word::Nothing || !idle {
        let class = format!("something to do right after: {} after {}", method(&again), method(&last));
        return Some((class, format!("{}\nthen {}", brief(&last), brief(&again))));
    }
    judge_run(stage, &again, &before, "again", counts)
}

/// Whatever became of a run: everybody else's files are there, and HAProxy can be started; what it would answer then.
fn judge_files(stage: &mut Stage, before: &BTreeMap<PathBuf, Vec<u8>>) -> Result<Answers, (String, String)> {
    for (file, bytes) in before {
        if fs::read(file).ok().as_ref() != Some(bytes) {
            return Err(("a foreign file vanished or changed".to_owned(), file.display().to_string()));
        }
    }
    if stage.deployed().is_empty() {
        return Err(("the directory is empty".to_owned(), String::new()));
    }
    stage.journal.push("compare".to_owned());
    fresh(stage).map_err(|log| (NO_START.to_owned(), log))
}

fn judge_run(
    stage: &mut Stage,
    run: &Run,
    before: &BTreeMap<PathBuf, Vec<u8>>,
    when: &str,
    counts: &Counts,
) -> Found {
    if !matches!(run.code, Some(0..=2)) {
        return Some((format!("exit status {:?}", run.code), run.to_string()));
    }
    let fresh = match judge_files(stage, before) {
        Ok(answers) => answers,
        Err((class, what)) => {
            return Some((
                format!("{class} after {}, {when}", method(run)),
                format!("{what}\n{}", brief(run)),
            ));
        }
    };
    let said = word(run);
    // A reload brings everybody's changes; nobody claims anything of them otherwise.
    let told = &run.json()["haproxy"][0];
    if told["outcome"] == "reloaded" && told["owed"] == false {
        stage.drift = false;
    }
    if said == Word::Trouble || (said == Word::Nothing && stage.drift) {
        return None;
    }
    counts.compared.fetch_add(fresh.len(), Ordering::Relaxed);
    let difference = compare(stage, &fresh)?;
    if difference.late {
        counts.late.fetch_add(1, Ordering::Relaxed);
        return None;
    }
    let drift = if stage.drift { ", with somebody else's change not loaded" } else { "" };
    let class = format!("{said:?} but answers differ: {}, {when}{drift}", method(run));
    Some((class, format!("{difference}\n{}\n{}", brief(run), tail(&stage.log()))))
}

/// What a run came to, without what doesn't matter here.
fn brief(run: &Run) -> String {
    let report = run.json();
    let mut text = format!("exit status {:?}", run.code);
    for site in report["sites"].as_array().unwrap() {
        let word = |key: &str| site[key].as_str().unwrap_or_default().to_owned();
        let (file, detail) = (word("file"), word("detail"));
        write!(text, "\n  {file}: {} {} {}", word("action"), word("reason"), site["warnings"]).unwrap();
        if word("action") == "refuse" {
            write!(text, " {detail}").unwrap();
        }
    }
    write!(text, "\n  {}", report["haproxy"][0]).unwrap();
    text
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(8)..].join("\n")
}

/// Leaves out whatever the finding doesn't need.
fn shrink(world: &World, steps: &[Step], finding: &Finding, counts: &Counts) -> (World, Vec<Step>, Finding) {
    let mut best = (world.clone(), steps[..=finding.step].to_vec(), finding.clone());
    let mut left = setting("HAPROXY_CERTS_SHRINK", SHRINK);
    let mut again = |world: &World, steps: &[Step]| -> Option<Finding> {
        left = left.checked_sub(1)?;
        let found = catch_unwind(AssertUnwindSafe(|| carry_out(world, steps, counts))).ok().flatten()?;
        (found.class == finding.class).then_some(found)
    };
    let mut index = 0;
    while index < best.1.len() {
        let mut fewer = best.1.clone();
        fewer.remove(index);
        match again(&best.0, &fewer) {
            Some(found) => {
                fewer.truncate(found.step + 1);
                best = (best.0.clone(), fewer, found);
            }
            None => index += 1,
        }
    }
    for index in 0..best.1.len() {
        if best.1[index].trouble != Trouble::Calm {
            let mut simpler = best.1.clone();
            simpler[index].trouble = Trouble::Calm;
            if let Some(found) = again(&best.0, &simpler) {
                best = (best.0.clone(), simpler, found);
            }
        }
        let mut change = 0;
        while change < best.1[index].changes.len() {
            let mut simpler = best.1.clone();
            simpler[index].changes.remove(change);
            match again(&best.0, &simpler) {
                Some(found) => best = (best.0.clone(), simpler, found),
                None => change += 1,
            }
        }
    }
    let steps = best.1.clone();
    for simpler in world::SIMPLER {
        while let Some((world, found)) = simpler(&best.0)
            .into_iter()
            .filter(World::makes_sense)
            .find_map(|world| again(&world, &steps).map(|found| (world, found)))
        {
            best = (world, steps.clone(), found);
        }
    }
    best
}

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().map_or(default, |value| value.parse().unwrap())
}

#[test]
fn what_the_program_says_is_what_a_fresh_start_would_serve() {
    let (worlds, length) = (setting("HAPROXY_CERTS_WORLDS", WORLDS), setting("HAPROXY_CERTS_STEPS", STEPS));
    let seed = setting("HAPROXY_CERTS_SEED", SEED);
    let threads = setting("HAPROXY_CERTS_THREADS", 4);
    let forced = setting("HAPROXY_CERTS_RELOAD", 0) == 1;
    let names: Vec<String> = versions().iter().map(|Version { name, .. }| name.clone()).collect();
    let (next, counts) = (AtomicUsize::new(0), Counts::default());
    let found: Mutex<BTreeMap<String, Vec<u64>>> = Mutex::default();
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= worlds {
                        return;
                    }
                    let seed = u64::try_from(seed * 1_000_000 + number).unwrap();
                    one_world(seed, length, &names, forced, &counts, &found);
                }
            });
        }
    });
    Count::Worlds.add("the oracle", counts.worlds.into_inner());
    Count::Steps.add("the oracle", counts.steps.into_inner());
    Count::Compared.add("the oracle", counts.compared.into_inner());
    let killed = counts.killed.into_inner();
    say(&format!("{killed:>9} runs of them were killed before they had ended"));
    let late = counts.late.into_inner();
    if late > 0 {
        say(&format!("{late:>9} runs after which an answer was right a moment later only"));
    }
    let mut text = String::new();
    for (class, seeds) in found.into_inner().unwrap() {
        writeln!(text, "{:>4} worlds: {class}\n             seeds {seeds:?}", seeds.len()).unwrap();
    }
    assert!(text.is_empty(), "findings:\n{text}");
}

fn one_world(
    seed: u64,
    length: usize,
    versions: &[String],
    forced: bool,
    counts: &Counts,
    found: &Mutex<BTreeMap<String, Vec<u64>>>,
) {
    let world = World::random(seed, versions, forced);
    let random = &mut Random::new(!seed);
    let steps: Vec<Step> = (0..length).map(|_| Step::random(random, &world)).collect();
    let finding = match catch_unwind(AssertUnwindSafe(|| carry_out(&world, &steps, counts))) {
        Ok(None) => return,
        Ok(Some(finding)) => finding,
        Err(panic) => {
            let what = panic.downcast_ref::<String>().cloned().unwrap_or_default();
            Finding { class: "panic before the first step".to_owned(), step: 0, what, journal: Vec::new() }
        }
    };
    let first = {
        let mut found = found.lock().unwrap();
        let seeds = found.entry(finding.class.clone()).or_default();
        seeds.push(seed);
        seeds.len() == 1
    };
    if !first {
        say(&format!("world {seed}: {} again", finding.class));
        return;
    }
    let (world, steps, finding) = shrink(&world, &steps, &finding, &Counts::default());
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("oracle");
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join(format!("world-{seed}.sh"));
    fs::write(&path, script::script(&world, &finding.class, &finding.journal)).unwrap();
    say(&format!(
        "world {seed}: {}\n{world:?}\n{}\nseen in the last step: {}\nto see it by hand: bash {}\n",
        finding.class,
        steps.iter().map(|step| format!("  {step:?}")).collect::<Vec<_>>().join("\n"),
        finding.what,
        path.display()
    ));
}

/// A report has what [`word`] looks at.
#[test]
fn the_words_of_a_report() {
    let run = |code, told: &str| {
        word(&Run { code: Some(code), stdout: format!("{{\"haproxy\": [{told}]}}"), stderr: String::new() })
    };
    let told = r#"{"outcome": "updated", "confirmed": true, "owed": false}"#;
    assert_eq!((run(0, told), run(1, told), run(2, told)), (Word::Confirmed, Word::Confirmed, Word::Trouble));
    assert_eq!(run(0, r#"{"outcome": "not-needed", "confirmed": null, "owed": false}"#), Word::Nothing);
    assert_eq!(run(0, r#"{"outcome": "reloaded", "confirmed": null, "owed": false}"#), Word::Unseen);
    assert_eq!(run(0, r#"{"outcome": "deferred", "confirmed": null, "owed": true}"#), Word::Trouble);
}
