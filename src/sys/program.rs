//! Running another program: a fixed environment, bounded output, a deadline that holds.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io::{self, PipeReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use super::escape::escaped;

/// How much of the beginning and of the end of a program's output is kept.
const KEPT: usize = 64 * 1024;
/// How long a program may take to end after SIGTERM, before SIGKILL.
const GRACE: Duration = Duration::from_secs(1);
/// How long its output is read after its end, while something that it left behind goes on writing.
const AFTERWARDS: Duration = Duration::from_millis(250);

/// The environment of a program that isn't given another one.
pub const FIXED: [(&str, &str); 2] = [("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), ("LC_ALL", "C")];

/// A program to run.
///
/// It gets an empty stdin, a process group of its own and, unless told otherwise, nothing in its environment but a
/// fixed `PATH` and `LC_ALL=C`: what the hook that started us was given isn't trusted.
#[derive(Debug, Clone)]
pub struct Program {
    path: PathBuf,
    args: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    folder: PathBuf,
    user: Option<(u32, u32)>,
}

/// A program that has ended, or was ended.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Its status; `None` where the system didn't keep it.
    pub status: Option<ExitStatus>,
    /// What it wrote to stdout and stderr, in that order of writing; the middle of a very long output is left out.
    pub output: String,
    /// Whether it was ended because the deadline was over.
    pub timed_out: bool,
}

impl Program {
    /// The program at this absolute path.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            args: Vec::new(),
            environment: FIXED.map(|(name, value)| (name.into(), value.into())).into(),
            folder: "/".into(),
            user: None,
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Replaces the whole environment.
    #[must_use]
    pub fn environment(mut self, environment: Vec<(OsString, OsString)>) -> Self {
        self.environment = environment;
        self
    }

    /// Sets the working directory; it is the root directory otherwise.
    #[must_use]
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = folder.into();
        self
    }

    /// Runs it as this user and group, without supplementary groups.
    #[must_use]
    pub fn user(mut self, uid: u32, gid: u32) -> Self {
        self.user = Some((uid, gid));
        self
    }

    /// The program's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs it to its end, or until `deadline`, when its process group is ended.
    ///
    /// # Errors
    /// It can't be started.
    pub fn run(&self, deadline: Instant) -> io::Result<Finished> {
        let (reader, writer) = io::pipe()?;
        let mut command = Command::new(&self.path);
        command
            .args(&self.args)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .process_group(0);
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        let child = command.spawn()?;
        drop(command); // and with it our ends of the pipe that the child writes to
        Running::new(child, reader)?.finish(deadline)
    }
}

impl Finished {
    /// Whether it ended by itself: not by a signal, a crash among them, and not by a time-out.
    #[must_use]
    pub fn has_ended_itself(&self) -> bool {
        !self.timed_out && self.status.is_some_and(|status| status.code().is_some())
    }

    /// Whether it ended by itself with status 0.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        !self.timed_out && self.status.is_some_and(|status| status.success())
    }

    /// How it ended, in words: "ended with status 1".
    #[must_use]
    pub fn end(&self) -> String {
        match self.status {
            _ if self.timed_out => "took too long and was ended".to_owned(),
            None => "ended, its status is unknown".to_owned(),
            Some(status) => match (status.code(), status.signal()) {
                (Some(code), _) => format!("ended with status {code}"),
                (None, Some(signal)) => format!("was ended by signal {signal}"),
                (None, None) => "ended".to_owned(),
            },
        }
    }

    /// Its last line that isn't blank, escaped and bounded.
    #[must_use]
    pub fn last_line(&self) -> Option<String> {
        let line = self.output.lines().map(str::trim).rfind(|line| !line.is_empty())?;
        Some(escaped(&line.chars().take(400).collect::<String>()).to_string())
    }
}

/// A child of ours: its process id stays its own until it is waited for.
struct Running {
    child: Child,
    pidfd: OwnedFd,
    /// `None` once the other end is closed.
    reader: Option<PipeReader>,
    output: Output,
}

impl Running {
    fn new(mut child: Child, reader: PipeReader) -> io::Result<Self> {
        let opened = pid_of(&child).and_then(|pid| Ok(pidfd_open(pid, PidfdFlags::empty())?));
        match opened {
            Ok(pidfd) => Ok(Self { child, pidfd, reader: Some(reader), output: Output::default() }),
            Err(e) => {
                // Without a descriptor nobody could wait for it with a deadline.
                drop(child.kill());
                drop(child.wait());
                Err(e)
            }
        }
    }

    fn finish(mut self, deadline: Instant) -> io::Result<Finished> {
        let mut timed_out = false;
        if !self.read_until_exit(deadline)? {
            timed_out = true;
            self.signal_group(Signal::TERM);
            if !self.read_until_exit(Instant::now() + GRACE)? {
                self.signal_group(Signal::KILL);
                self.read_until_exit(Instant::now() + GRACE)?;
            }
            // Its children may have ignored the first signal. It is still unwaited for: the group is its own.
            self.signal_group(Signal::KILL);
        }
        self.read_rest();
        let exited = timed_out || self.wait_readable(Duration::ZERO, false)?.0;
        // After SIGKILL a process in an uninterruptible state may still be there: never wait for that.
        let status = if exited { self.child.try_wait().ok().flatten() } else { None };
        Ok(Finished { status, output: self.output.into_text(), timed_out })
    }

    /// Reads what it writes until it has exited (true) or the time is over (false).
    fn read_until_exit(&mut self, deadline: Instant) -> io::Result<bool> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let (exited, readable) = self.wait_readable(left, true)?;
            if exited {
                return Ok(true);
            }
            if readable {
                self.read_once();
            }
            if left.is_zero() {
                return Ok(false);
            }
        }
    }

    /// What it wrote before its end is in the pipe already; whoever else holds the pipe isn't waited for.
    fn read_rest(&mut self) {
        let until = Instant::now() + AFTERWARDS;
        while self.reader.is_some() && Instant::now() < until {
            match self.wait_readable(Duration::ZERO, true) {
                Ok((_, true)) => self.read_once(),
                _ => break,
            }
        }
    }

    fn read_once(&mut self) {
        let mut buffer = [0; 16 * 1024];
        match self.reader.as_mut().map(|reader| reader.read(&mut buffer)) {
            Some(Ok(n)) if n > 0 => self.output.push(buffer.get(..n).unwrap_or_default()),
            Some(Err(e)) if e.kind() == io::ErrorKind::Interrupted => {}
            _ => self.reader = None,
        }
    }

    /// Waits for its end or, with `output`, for something to read: whether each is there.
    fn wait_readable(&self, left: Duration, output: bool) -> io::Result<(bool, bool)> {
        let timeout = Timespec::try_from(left.min(Duration::from_secs(3600))).map_err(io::Error::other)?;
        let mut fds = vec![PollFd::new(&self.pidfd, PollFlags::IN)];
        if let Some(reader) = self.reader.as_ref().filter(|_| output) {
            fds.push(PollFd::new(reader, PollFlags::IN));
        }
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        let ready = |i: usize| fds.get(i).is_some_and(|fd| !fd.revents().is_empty());
        Ok((ready(0), ready(1)))
    }

    fn signal_group(&self, signal: Signal) {
        if let Ok(pid) = pid_of(&self.child) {
            // The group may be empty already: nothing to do then.
            let _ = kill_process_group(pid, signal);
        }
    }
}

fn pid_of(child: &Child) -> io::Result<Pid> {
    i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| io::Error::other("a process id out of range"))
}

/// The beginning and the end of what a program wrote.
#[derive(Default)]
struct Output {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    left_out: bool,
}

impl Output {
    fn push(&mut self, bytes: &[u8]) {
        let (head, rest) = bytes.split_at(bytes.len().min(KEPT.saturating_sub(self.head.len())));
        self.head.extend_from_slice(head);
        self.tail.extend(rest);
        let excess = self.tail.len().saturating_sub(KEPT);
        self.left_out |= excess > 0;
        self.tail.drain(..excess);
    }

    fn into_text(mut self) -> String {
        if self.left_out {
            self.head.extend_from_slice(b"\n[...]\n");
        }
        self.head.extend(self.tail);
        String::from_utf8_lossy(&self.head).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Program {
        Program::new("/bin/sh").arg("-c").arg(script)
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[test]
    fn status_and_both_outputs_come_back() {
        let done = sh("echo out; echo err >&2; exit 3").run(soon()).unwrap();
        assert_eq!(done.output, "out\nerr\n");
        assert_eq!(done.end(), "ended with status 3");
        assert_eq!(done.last_line().as_deref(), Some("err"));
        assert!(!done.succeeded() && !done.timed_out);
        assert!(sh("exit 0").run(soon()).unwrap().succeeded());
    }

    #[test]
    fn the_environment_is_fixed_and_stdin_empty() {
        let done = sh("env -u PWD -u SHLVL -u OLDPWD -u _ | sort; pwd; cat").run(soon()).unwrap();
        assert_eq!(done.output, "LC_ALL=C\nPATH=/usr/sbin:/usr/bin:/sbin:/bin\n/\n");
        let own = sh("echo $A").environment(vec![("A".into(), "b".into())]).run(soon()).unwrap();
        assert_eq!(own.output, "b\n");
    }

    #[test]
    fn a_program_that_hangs_is_ended_with_its_children() {
        let begin = Instant::now();
        let done = sh("sleep 600 & echo $!; trap '' TERM; sleep 600")
            .run(begin + Duration::from_millis(300))
            .unwrap();
        assert!(done.timed_out && !done.succeeded());
        assert!(begin.elapsed() < Duration::from_secs(10));
        let child: i32 = done.output.trim().parse().unwrap();
        let gone = || {
            let stat = std::fs::read_to_string(format!("/proc/{child}/stat"));
            stat.map_or(true, |stat| stat.contains(") Z "))
        };
        while !gone() {
            assert!(begin.elapsed() < Duration::from_secs(10), "its child {child} is still there");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn a_background_child_that_keeps_stdout_open_is_not_waited_for() {
        let begin = Instant::now();
        let done = sh("sleep 5 & echo started").run(soon()).unwrap();
        assert!(done.succeeded());
        assert_eq!(done.output, "started\n");
        assert!(begin.elapsed() < Duration::from_secs(4));
    }

    #[test]
    fn a_closed_stdout_is_not_an_end() {
        let done = sh("exec >&- 2>&-; sleep 0.2; exit 7").run(soon()).unwrap();
        assert_eq!(done.end(), "ended with status 7");
    }

    #[test]
    fn only_the_ends_of_a_long_output_are_kept() {
        let done =
            sh("echo first; head -c 3000000 /dev/zero | tr '\\0' x; echo; echo last").run(soon()).unwrap();
        assert!(done.output.starts_with("first\n") && done.output.ends_with("\nlast\n"));
        assert!(done.output.contains("[...]") && done.output.len() < 3 * KEPT);
    }

    #[test]
    fn what_cannot_be_started_is_an_error() {
        assert_eq!(Program::new("/nonexistent/x").run(soon()).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_signal_is_named() {
        assert_eq!(sh("kill -9 $$").run(soon()).unwrap().end(), "was ended by signal 9");
    }
}
