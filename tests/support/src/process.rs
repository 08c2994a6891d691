//! Processes that end with the test that started them.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::LIMIT;

/// A process and all that it started: one process group, which ends when this value is dropped.
///
/// Where the test process itself is killed, the kernel sends the process SIGTERM (`setpriv --pdeathsig`). That is
/// tied to the *thread* that started it: a value of this type must not outlive its thread.
#[derive(Debug)]
pub struct Running {
    child: Child,
    name: String,
}

impl Running {
    /// Starts `program`; `prepare` sets arguments, environment and where the output goes.
    pub fn start(program: impl AsRef<OsStr>, prepare: impl FnOnce(&mut Command) -> &mut Command) -> Self {
        let program = program.as_ref();
        let name = program.to_string_lossy().into_owned();
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "--"]).arg(program).stdin(Stdio::null()).process_group(0);
        prepare(&mut command);
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        Self { child, name }
    }

    /// Its process id, which is its process group's too.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The status that it ended with, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Sends it a signal: only to it, and only while it runs.
    pub fn signal(&mut self, signal: Signal) {
        if self.ended().is_none() {
            kill_process(self.rustix_pid(), signal).unwrap();
        }
    }

    /// Waits until it has ended by itself.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let name = self.name.clone();
        self.ended_within(limit).unwrap_or_else(|| panic!("{name} did not end within {limit:?}"))
    }

    /// SIGTERM, and SIGKILL for whatever of its process group is left after a while.
    pub fn stop(&mut self) {
        let group = self.rustix_pid();
        if self.ended().is_none() {
            let _ = kill_process(group, Signal::TERM);
            // Not LIMIT: this is also the way out of a test that fails because it hangs.
            if self.ended_within(Duration::from_secs(10)).is_none() {
                let _ = kill_process_group(group, Signal::KILL);
                self.ended_within(LIMIT);
            }
        }
        // The leader is gone, what it started may not be: the workers of a HAProxy whose master was killed.
        let start = Instant::now();
        while in_group(self.pid()) && start.elapsed() < Duration::from_secs(10) {
            let _ = kill_process_group(group, Signal::KILL);
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn ended_within(&mut self, limit: Duration) -> Option<ExitStatus> {
        let start = Instant::now();
        loop {
            let ended = self.ended();
            if ended.is_some() || start.elapsed() >= limit {
                return ended;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn rustix_pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Runs a command to its end and takes its output; kills it and panics when that takes longer than `limit`.
#[track_caller]
pub fn finish(command: &mut Command, limit: Duration) -> Output {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let readers = [thread::spawn(move || read_all(&mut out)), thread::spawn(move || read_all(&mut err))];
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break Some(status);
        }
        if start.elapsed() >= limit {
            let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
            let _ = child.wait();
            break None;
        }
        thread::sleep(Duration::from_millis(2));
    };
    let [stdout, stderr] = readers.map(|reader| reader.join().unwrap());
    let Some(status) = status else {
        panic!(
            "{command:?} took longer than {limit:?}\n{}\n{}",
            String::from_utf8_lossy(&stdout),
            String::from_utf8_lossy(&stderr)
        );
    };
    Output { status, stdout, stderr }
}

fn read_all(from: &mut impl std::io::Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = from.read_to_end(&mut bytes);
    bytes
}

/// The processes whose parent is `pid`.
pub fn children(pid: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Whether a process of this id exists. A zombie doesn't: where a container's PID 1 is slow to reap, they stay a while.
pub fn alive(pid: u32) -> bool {
    state_and_group(pid).is_some_and(|(state, _)| state != 'Z')
}

/// Whether any process is in this process group, zombies left out.
fn in_group(group: u32) -> bool {
    let processes =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    processes.filter_map(state_and_group).any(|(state, its_group)| state != 'Z' && its_group == group)
}

fn state_and_group(pid: u32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // "PID (name) STATE PPID PGRP …", where the name may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.nth(1)?.parse().ok()?))
}
