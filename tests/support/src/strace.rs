//! The program under `strace`: what it calls, and what happens when it is killed at a call or when a call fails.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::cmd::{Cmd, Run};
use super::process::finish;

/// How long a run under strace may take.
pub const TRACED_LIMIT: Duration = Duration::from_secs(150);

/// The system calls that touch files or sockets, and those that end or start what the program waits for.
const TRACED: &str = "%file,%desc,%network,%process,prctl";

/// Calls that are listed with these classes, but touch neither a file nor a socket.
const MEMORY: [&str; 8] = ["mmap", "munmap", "mremap", "mprotect", "brk", "execve", "exit_group", "prctl"];

/// One system call of a recorded run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Its name.
    pub name: String,
    /// Which one of this name it was, counted from 1.
    pub number: usize,
    /// Its arguments as strace shows them, descriptors with their paths.
    pub arguments: String,
    /// What it returned.
    pub result: String,
}

impl Call {
    /// Whether it can change something on disk, or make it durable.
    pub fn changes(&self) -> bool {
        match self.name.as_str() {
            "open" | "openat" => self.arguments.contains("O_CREAT"),
            "write" | "writev" | "pwrite64" => self.arguments.contains("/.haproxy-certs"),
            "mkdir" | "mkdirat" | "fchown" | "fchmod" | "fchownat" | "fchmodat" | "fsync" | "fdatasync"
            | "syncfs" | "link" | "linkat" | "rename" | "renameat" | "renameat2" | "unlink" | "unlinkat"
            | "ftruncate" | "flock" | "symlinkat" => true,
            _ => false,
        }
    }

    /// Whether it belongs to a conversation with HAProxy or another program.
    pub fn tells(&self) -> bool {
        const NAMES: [&str; 11] = [
            "socket",
            "connect",
            "sendto",
            "recvfrom",
            "shutdown",
            "poll",
            "ppoll",
            "pidfd_open",
            "pidfd_send_signal",
            "clone3",
            "waitid",
        ];
        NAMES.contains(&self.name.as_str())
    }

    /// Whether it succeeded.
    pub fn succeeded(&self) -> bool {
        !self.result.starts_with('-')
    }
}

impl std::fmt::Display for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} no. {}: {}({}) = {}", self.name, self.number, self.name, self.arguments, self.result)
    }
}

/// What is done to a run at one of its calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL before the call is carried out.
    Kill,
    /// The call fails so, and isn't carried out.
    Error(&'static str),
    /// This call and all later ones of its name fail so.
    Errors(&'static str),
}

/// A run under strace.
#[derive(Debug)]
pub struct Traced {
    /// How it ended.
    pub run: Run,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// What strace wrote.
    pub log: String,
}

/// Runs the program with one worker thread (strace counts calls per thread, the program has one per processor).
#[track_caller]
fn traced(cmd: &Cmd, arguments: &[&str], options: &[&str], processor: usize) -> Traced {
    let log = cmd.beside("strace.log");
    let mut command = Command::new("taskset");
    command.arg("-c").arg(processor.to_string());
    if cmd.is_alone() {
        command.args(["unshare", "--pid", "--fork", "--mount-proc"]);
    }
    command.arg("strace").args(options).arg("-o").arg(&log);
    command.arg(Cmd::program()).arg("--config").arg(cmd.config()).args(arguments);
    cmd.prepare(&mut command);
    let output = finish(&mut command, TRACED_LIMIT);
    let text = String::from_utf8_lossy(&fs::read(&log).unwrap()).into_owned();
    fs::remove_file(&log).unwrap();
    // The first process of a namespace, strace, doesn't end by the signal that it would pass on.
    let passed_on = output.status.code().filter(|code| cmd.is_alone() && *code > 128).map(|code| code - 128);
    Traced {
        signal: output.status.signal().or(passed_on),
        run: Run {
            code: output.status.code().filter(|_| passed_on.is_none()),
            stdout: String::from_utf8_lossy(&output.stdout).into(),
            stderr: String::from_utf8_lossy(&output.stderr).into(),
        },
        log: text,
    }
}

/// Circumstances for [`record`] and [`inject`]: a file system without hard links.
pub const NO_HARD_LINKS: &[&str] = &["-e", "inject=linkat:error=EPERM"];

/// Runs it and lists its calls that touch files or sockets, those of the dynamic linker left out.
#[track_caller]
pub fn record(cmd: &Cmd, arguments: &[&str], circumstances: &[&str], processor: usize) -> (Run, Vec<Call>) {
    let trace = format!("trace={TRACED}");
    let mut options = vec!["-y", "-s", "0", "-e", &trace];
    options.extend(circumstances);
    let done = traced(cmd, arguments, &options, processor);
    (done.run, calls(&done.log))
}

/// The calls in a log of strace.
pub fn calls(log: &str) -> Vec<Call> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut began = false;
    let mut calls = Vec::new();
    for line in log.lines() {
        let Some((name, rest)) = line.split_once('(') else { continue };
        let Some((arguments, result)) = rest.rsplit_once(" = ") else { continue };
        if !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_') {
            continue;
        }
        let number = counts.entry(name).or_default();
        *number += 1;
        // The first thing that the program does by itself.
        began |= name == "prctl" && arguments.contains("PR_SET_DUMPABLE");
        if began && !MEMORY.contains(&name) {
            calls.push(Call {
                name: name.to_owned(),
                number: *number,
                arguments: arguments.trim_end().trim_end_matches(')').to_owned(),
                result: result.to_owned(),
            });
        }
    }
    assert!(began, "the program's own beginning is not in this log:\n{log}");
    calls
}

/// Runs it with a fault at one of its calls; whether the fault happened is [`Traced::happened`].
#[track_caller]
pub fn inject(
    cmd: &Cmd,
    arguments: &[&str],
    circumstances: &[&str],
    call: &Call,
    fault: Fault,
    processor: usize,
) -> Traced {
    let Call { name, number, .. } = call;
    let trace =
        if circumstances.is_empty() { format!("trace={name}") } else { format!("trace={name},linkat") };
    let inject = match fault {
        Fault::Kill => format!("inject={name}:signal=KILL:when={number}"),
        Fault::Error(error) => format!("inject={name}:error={error}:when={number}"),
        Fault::Errors(error) => format!("inject={name}:error={error}:when={number}+"),
    };
    let mut options = vec!["-y", "-s", "0", "-e", &trace, "-e", &inject];
    options.extend(circumstances);
    traced(cmd, arguments, &options, processor)
}

impl Traced {
    /// Whether the injected fault happened.
    pub fn happened(&self) -> bool {
        self.signal == Some(9) || self.log.contains("(INJECTED)")
    }
}

/// The processors that this process may use.
pub fn processors() -> Vec<usize> {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim();
    let number = |text: &str| text.parse::<usize>().unwrap();
    list.split(',')
        .flat_map(|range| match range.split_once('-') {
            Some((first, last)) => number(first)..=number(last),
            None => number(range)..=number(range),
        })
        .collect()
}

/// Whether everything that [`record`] needs is there.
pub fn must_be_there() {
    for program in ["/usr/bin/strace", "/usr/bin/taskset"] {
        assert!(Path::new(program).exists(), "{program} is missing, run: ./tests/install");
    }
}
