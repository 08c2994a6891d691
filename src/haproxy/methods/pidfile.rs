//! The pidfile: SIGUSR2 to the master that it names.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Instant;

use crate::config::Haproxy;
use crate::sys::escape::escaped_path;
use crate::sys::failure::io_cause;
use crate::sys::system::System;

use crate::haproxy::process::config_check;
use crate::haproxy::process::master::{Master, NotAMaster, Watch};
use crate::haproxy::{Attempt, Batch, is_another_ones};

/// A pidfile holds a number or a few.
const LARGEST: u64 = 4096;

/// Tells HAProxy by a signal to the master that its pidfile names, and watches what becomes of it.
///
/// Only a process that was verified to be a HAProxy master is ever signalled.
#[must_use]
pub fn reload(system: &System, haproxy: &Haproxy, batch: &Batch<'_>) -> Attempt {
    let begin = Instant::now();
    let deadline = begin + haproxy.timeout;
    if haproxy.pidfile.as_os_str().is_empty() {
        return Attempt::NotApplicable("no pidfile is configured".to_owned());
    }
    let file = escaped_path(&haproxy.pidfile);
    let pid = match read(&haproxy.pidfile) {
        Ok(Some(pid)) => pid,
        Ok(None) => {
            return Attempt::Failed(format!("pidfile {file} holds no process id; set pidfile or reload"));
        }
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Attempt::NotApplicable(format!("there is no pidfile {file}"));
        }
        Err(e) => return Attempt::Failed(format!("cannot read pidfile {file}: {}", io_cause(&e))),
    };
    let master = match Master::open_started(system, pid, deadline) {
        Ok(master) => master,
        Err(why) => return no_master(&haproxy.pidfile, &why),
    };
    if let Some(why) = is_another_ones(haproxy, deadline, |pid| master.has_worker(pid)) {
        return Attempt::NotApplicable(format!("pidfile {file} {why}; set it to its own, or to \"\""));
    }
    let unchecked =
        match config_check::before_reload(system, haproxy, batch, &master, begin + haproxy.timeout / 2) {
            Ok(unchecked) => unchecked,
            Err(refused) => return refused,
        };
    let watch = Watch::before(&master, deadline);
    if let Err(e) = master.reload_signal() {
        return Attempt::Failed(format!("cannot signal process {pid} of pidfile {file}: {}", io_cause(&e)));
    }
    let seen = watch.wait(deadline);
    config_check::after_reload(system, haproxy, batch, &master, seen, unchecked)
}

/// What it means that the pidfile's process isn't a master.
fn no_master(file: &Path, why: &NotAMaster) -> Attempt {
    let said = format!("pidfile {}: {why}", escaped_path(file));
    match why {
        NotAMaster::Gone(_) => Attempt::NotRunning(said),
        NotAMaster::Stranger { .. } => {
            Attempt::Failed(format!("{said}; remove the stale pidfile, or set reload"))
        }
        NotAMaster::NoMaster(_) => Attempt::Failed(format!("{said}, or set another reload method")),
        NotAMaster::Worker { .. } => {
            Attempt::Failed(format!("{said}; set pidfile to the master's (option -p)"))
        }
        NotAMaster::Starting(_) => Attempt::Failed(format!("{said}; the next run tells it")),
        NotAMaster::Unseen { .. } => Attempt::Failed(said),
    }
}

/// The process id in the first line; `None` where there is none.
///
/// # Errors
/// It can't be read, or isn't a regular file.
pub fn read(path: &Path) -> io::Result<Option<i32>> {
    // A FIFO in its place must not hang us.
    let flags = rustix::fs::OFlags::NONBLOCK.bits();
    let file = OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut text = Vec::new();
    file.take(LARGEST).read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    Ok(text.lines().next().and_then(|line| line.trim().parse().ok()).filter(|&pid| pid > 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid");
        for (text, pid) in [
            ("123\n", Some(123)),
            (" 7 \n8\n", Some(7)),
            ("", None),
            ("\n5\n", None),
            ("1\n", None),
            ("0", None),
            ("-5", None),
            ("99999999999", None),
            ("12x", None),
        ] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(read(&path).unwrap(), pid, "{text:?}");
        }
        assert!(read(folder.path()).is_err());
        let fifo = folder.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(read(&fifo).unwrap_err().to_string().contains("regular"));
    }
}
