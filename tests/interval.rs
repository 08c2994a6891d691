//! `assemble --interval`: the runs go on until a signal ends them. With real signals; nothing is supposed of how long anything
//! takes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "test code may fail loudly"
)]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use support::process::{Running, alive, children};
use support::tree::write;
use support::{Cmd, KeyKind, LIMIT, Tree, Validity, wait_until};

/// Longer than any test: what comes before was made to come.
const LONG: &str = "24h";

/// The program, going on, and what it says.
struct Loop {
    running: Running,
    output: PathBuf,
}

impl Loop {
    fn start(cmd: &Cmd, arguments: &[&str]) -> Self {
        Self::start_by(cmd, Cmd::program().to_str().unwrap(), &[], arguments)
    }

    /// By another program, which starts it with what comes behind its own arguments.
    fn start_by(cmd: &Cmd, program: &str, own: &[&str], arguments: &[&str]) -> Self {
        let (config, output) = (cmd.config(), cmd.beside("said"));
        let running = Running::start(program, |command| {
            cmd.prepare(command);
            let file = File::create(&output).unwrap();
            command.args(own).arg("--config").arg(config).arg("assemble").args(arguments);
            command.stdout(Stdio::from(file.try_clone().unwrap())).stderr(Stdio::from(file))
        });
        Self { running, output }
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.output).unwrap()
    }

    #[track_caller]
    fn says(&self, words: &str) {
        let mut said = String::new();
        let is_said = || {
            said = self.said();
            said.contains(words)
        };
        wait_until(LIMIT, words, is_said);
    }

    /// Ends it by a signal; its exit status.
    #[track_caller]
    fn end(mut self, signal: Signal) -> (Option<i32>, String) {
        self.running.signal(signal);
        let status = self.running.wait(LIMIT);
        (status.code(), self.said())
    }
}

fn tree() -> Tree {
    let mut tree = Tree::new();
    issue(&mut tree, "a.example");
    tree
}

fn issue(tree: &mut Tree, name: &str) {
    tree.issue(name, KeyKind::P256, &[name], Validity::days(90));
}

#[test]
fn it_runs_at_once_and_again_and_ends_by_signals() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut tree = tree();
        let cmd = Cmd::new(tree.live()).without_haproxy();
        let going = Loop::start(&cmd, &["--interval", "1s"]);
        going.says("install    a.example.pem\n");
        issue(&mut tree, "b.example");
        going.says("install    b.example.pem\n");
        let (code, said) = going.end(signal);
        assert_eq!(code, Some(0), "{said}");
        assert_eq!(said.matches("a.example.pem").count(), 1, "what stays is said once: {said}");
        assert_eq!(cmd.deployed(), ["a.example.pem", "b.example.pem"]);
    }
}

#[test]
fn sighup_makes_it_run_at_once() {
    let mut tree = tree();
    let cmd = Cmd::new(tree.live()).without_haproxy();
    let mut going = Loop::start(&cmd, &["--interval", LONG]);
    going.says("a.example.pem");
    for name in ["b.example", "c.example"] {
        issue(&mut tree, name);
        going.running.signal(Signal::HUP);
        going.says(&format!("install    {name}.pem\n"));
    }
    assert_eq!(going.end(Signal::TERM).0, Some(0));
}

#[test]
fn a_run_that_fails_ends_nothing() {
    let mut tree = tree();
    let cmd = Cmd::new(tree.live()).without_haproxy();
    let good = fs::read_to_string(cmd.config()).unwrap();
    let mut going = Loop::start(&cmd, &["--interval", LONG]);
    going.says("install    a.example.pem\n");
    issue(&mut tree, "b.example");
    write(&cmd.beside("haproxy-certs.toml"), "no_such_key = 1\n", 0o644);
    going.running.signal(Signal::HUP);
    going.says("unknown field `no_such_key`");
    write(&cmd.beside("haproxy-certs.toml"), &good, 0o644);
    going.running.signal(Signal::HUP);
    going.says("install    b.example.pem\n");

    // One lineage that fails: said once, however often it fails, and the rest goes on.
    fs::write(tree.live().join("b.example/privkey.pem"), "garbage").unwrap();
    going.running.signal(Signal::HUP);
    going.says("refuse     b.example.pem: key-missing");
    for name in ["c.example", "d.example"] {
        issue(&mut tree, name);
        going.running.signal(Signal::HUP);
        going.says(&format!("install    {name}.pem\n"));
    }
    let (code, said) = going.end(Signal::INT);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(said.matches("no_such_key").count(), 1, "{said}");
}

#[test]
fn settings_that_cannot_be_used_at_the_beginning_end_it() {
    let cmd = Cmd::new(tree().live()).option("no_such_key = 1");
    let run = cmd.run(&["assemble", "--interval", LONG]).exits(3);
    assert!(run.stderr.contains("unknown field `no_such_key`"), "{run}");
}

#[test]
fn what_is_meant_for_one_run_is_refused() {
    let cmd = Cmd::new(tree().live()).without_haproxy();
    for other in [
        &["--dry-run"][..],
        &["--prune-many"],
        &["--adopt"],
        &["--force", "a.example"],
        &["--defer-reload"],
        &["--format", "json"],
    ] {
        let run = cmd.run(&[&["assemble", "--interval", "1m"], other].concat()).exits(64);
        let words = format!("'--interval <DURATION>' cannot be used with '{}", other[0]);
        assert!(run.stderr.contains(&words), "{run}");
    }
    for (interval, words) in [("0s", "between 1s and 24h"), ("48h", "between 1s and 24h"), ("5", "time unit")]
    {
        let run = cmd.run(&["assemble", "--interval", interval]).exits(64);
        assert!(run.stderr.contains(words), "{run}");
    }
    assert!(!cmd.sites().exists(), "nothing was run");
}

/// A program in HAProxy's place that says that it was started, and then waits until a FIFO is opened: a run that takes as
/// long as the test wants.
fn slow(cmd: Cmd) -> (Cmd, PathBuf, PathBuf) {
    let (started, fifo) = (cmd.beside("started"), cmd.beside("fifo"));
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let script = format!("echo $$ >{}.new; mv {0}.new {0}; : <{}", started.display(), fifo.display());
    let table = format!(
        "[[haproxy]]\nreload = \"command\"\ncommand = [\"/bin/sh\", \"-c\", {script:?}]\nbinary = \"\"\nunit = \"\"\n\
         pidfile = \"\"\nmaster_socket = \"\"\ntimeout = \"1h\""
    );
    (cmd.table(&table), started, fifo)
}

fn is_there(path: &Path) -> u32 {
    wait_until(LIMIT, "the command", || path.exists());
    fs::read_to_string(path).unwrap().trim().parse().unwrap()
}

#[test]
fn a_run_under_way_is_finished_first() {
    let tree = tree();
    let (cmd, started, fifo) = slow(Cmd::new(tree.live()));
    let mut going = Loop::start(&cmd, &["--interval", LONG]);
    is_there(&started);
    going.running.signal(Signal::TERM);
    drop(File::options().write(true).open(&fifo).unwrap());
    let code = going.running.wait(LIMIT).code();
    let said = going.said();
    // It was notified; where that was too late for the engine's patience, the run says so.
    match code {
        Some(0) => assert!(said.contains("install    a.example.pem\nnotify     haproxy: reloaded"), "{said}"),
        _ => assert!(code == Some(3) && said.contains("while a run was under way"), "{code:?} {said}"),
    }
    assert_eq!(cmd.deployed(), ["a.example.pem"]);
}

/// The command goes on for an hour; engines kill after ten seconds.
#[test]
fn a_run_that_takes_too_long_is_left_and_made_good() {
    let tree = tree();
    let (mut cmd, started, fifo) = slow(Cmd::new(tree.live()));
    let going = Loop::start(&cmd, &["--interval", LONG]);
    let command = is_there(&started);
    let (code, said) = going.end(Signal::TERM);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("ended while a run was under way"), "{said}");
    drop(File::options().write(true).open(&fifo).unwrap());
    wait_until(LIMIT, "the command's end", || !alive(command));
    cmd.set_tables(
        "[[haproxy]]\nreload = \"command\"\ncommand = [\"/bin/true\"]\nbinary = \"\"\nunit = \"\"\npidfile = \"\"\n\
         master_socket = \"\"",
    );
    let run = cmd.run(&["assemble"]).exits(0);
    assert!(run.stdout.contains("notify     haproxy: reloaded"), "what was pending is done: {run}");
    cmd.run(&["assemble", "--dry-run", "--exit-code"]).exits(0);
}

/// What a container's engine does: no signal reaches process 1 that it doesn't wait for, and every orphan is its child.
#[test]
fn as_process_1_it_hears_signals_and_keeps_no_zombies() {
    let mut tree = tree();
    // A command that leaves a child behind.
    let table = "[[haproxy]]\nreload = \"command\"\ncommand = [\"/bin/sh\", \"-c\", \"sh -c : & exit\"]\nbinary = \"\"\n\
                 unit = \"\"\npidfile = \"\"\nmaster_socket = \"\"";
    let cmd = Cmd::new(tree.live()).table(table);
    let own = ["--pid", "--fork", "--kill-child", Cmd::program().to_str().unwrap()].map(ToOwned::to_owned);
    let user = ["--user", "--map-root-user"].map(ToOwned::to_owned);
    let own = if rustix::process::geteuid().is_root() { own.to_vec() } else { [&user[..], &own].concat() };
    let own: Vec<&str> = own.iter().map(String::as_str).collect();
    let mut going = Loop::start_by(&cmd, "unshare", &own, &["--interval", LONG]);
    going.says("install    a.example.pem\n");
    let first = children(going.running.pid())[0];
    let signal =
        |signal| kill_process(Pid::from_raw(i32::try_from(first).unwrap()).unwrap(), signal).unwrap();
    for name in ["b.example", "c.example"] {
        issue(&mut tree, name);
        signal(Signal::HUP);
        going.says(&format!("install    {name}.pem\n"));
    }
    // An orphan that ended after the last look is taken by the next.
    wait_until(LIMIT, "no zombies", || {
        signal(Signal::HUP);
        children(first).is_empty()
    });
    signal(Signal::TERM);
    assert_eq!(going.running.wait(LIMIT).code(), Some(0), "{}", going.said());
}
