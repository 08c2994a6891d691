//! One run at a time: a lock on the sites directory itself.
//!
//! Not certbot's lock: a run may be inside a hook of the certbot that holds it.

use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock, fstat};
use rustix::io::Errno;

use crate::sites::place::Place;
use crate::sys::escape::{escaped, escaped_path};
use crate::sys::failure::{Failure, FailureKind};
use crate::sys::system::System;

const POLL: Duration = Duration::from_millis(50);

/// Locks the directory, waiting as long as `patience`.
pub(super) fn lock(place: &Place, system: &System, patience: Duration) -> Result<(), Failure> {
    let until = Instant::now() + patience;
    loop {
        match flock(&place.dir, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(Errno::INTR) if Instant::now() < until => {}
            Err(Errno::WOULDBLOCK) if Instant::now() < until => sleep(POLL),
            Err(Errno::WOULDBLOCK) => {
                let fact = format!("{} is locked by {}", escaped_path(&place.path), holder(place, system));
                return Err(Failure::new(
                    FailureKind::Lock,
                    format!("{fact}; wait for it to end, or end it"),
                ));
            }
            Err(e) => return Err(Failure::io("lock", &place.path, &e.into())),
        }
    }
}

/// Who holds the lock, as `/proc/locks` (proc(5)) tells it.
fn holder(place: &Place, system: &System) -> String {
    let another = || "another run".to_owned();
    let Ok(inode) = fstat(&place.dir).map(|stat| stat.st_ino) else { return another() };
    let Ok(locks) = std::fs::read_to_string(system.proc.join("locks")) else { return another() };
    let pid = locks.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip_while(|word| *word != "FLOCK");
        let pid = words.nth(3)?;
        let file = words.next()?;
        (file.rsplit(':').next() == Some(&inode.to_string())).then(|| pid.to_owned())
    });
    let Some(pid) = pid else { return another() };
    match std::fs::read(system.proc.join(&pid).join("cmdline")) {
        Ok(line) => {
            let words: Vec<String> = line
                .split(|&byte| byte == 0)
                .filter(|word| !word.is_empty())
                .map(|word| escaped(word).to_string())
                .collect();
            format!("process {pid} ({})", words.join(" "))
        }
        Err(_) => format!("process {pid}"),
    }
}
