//! Watching a reload from outside: whether a worker with the new files serves, or the old ones go on.
//!
//! A new process alone proves nothing: since 3.1 a worker is forked first and reads the configuration then. What is
//! looked at instead (measured, 2.2 to 3.2): a reload executes the master anew, and its worker is forked from an
//! image that wasn't there when the watch was taken, so it read its files later; the master holds signals back until
//! it knows how the loading ended; and old workers close their listening sockets when a new one serves, even while
//! they linger with open connections.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::time::{Duration, Instant};

use super::master::{Master, STARTING};
use crate::sys::failure::io_cause;
use crate::sys::procfs::{Image, WorkerProcess};

/// How long a state that means failure must last: another reload may be about to begin.
const SETTLED: Duration = Duration::from_millis(500);
/// How long a lost worker may go without a successor while the master holds signals back.
const LOST: Duration = Duration::from_secs(3);
/// How long a master may sleep, holding signals back, before it counts as deaf, unless [`Watch::deaf_after`] says.
const DEAF: Duration = Duration::from_secs(30);
/// How long old workers get to close their listening sockets once the master says that it has loaded.
const HANDOVER: Duration = Duration::from_secs(2);
/// The longest pause between two looks.
const PAUSE: Duration = Duration::from_millis(200);

/// What a watch saw of a reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// A worker that read its files after the watch was taken serves, and the older ones have given up listening.
    Serving,
    /// The reload failed, the older workers go on: why.
    Failed(String),
    /// Neither was seen in time.
    TimedOut,
    /// There is no way to see: why.
    CannotSee(String),
}

/// Remembers the processes of a master before it is notified, to see afterwards what became of them.
#[derive(Debug)]
pub struct Watch<'a> {
    master: &'a Master,
    before: io::Result<Before>,
    deaf_after: Duration,
}

/// What the master executes, once it isn't loading; whether that was reached in time.
fn executed(master: &Master, deadline: Instant) -> io::Result<(Image, bool)> {
    let proc = master.proc();
    let deadline = deadline.min(Instant::now() + STARTING);
    loop {
        let image = proc.image(master.pid())?;
        // Looked at in this order: what was ready with this image will execute another one for the signal.
        let ready = proc.usr2(master.pid())?.is_ready() && proc.image(master.pid())? == image;
        let late = Instant::now() >= deadline;
        match image {
            Some(image) if ready || late => return Ok((image, ready)),
            None if late => return Err(io::ErrorKind::InvalidData.into()),
            _ => {}
        }
        if master.ended_within(Duration::from_millis(5)) {
            return Err(io::ErrorKind::NotFound.into());
        }
    }
}

#[derive(Debug)]
struct Before {
    image: Image,
    /// Whether the master listened for signals.
    was_ready: bool,
    workers: BTreeSet<WorkerProcess>,
    /// The sockets on which the workers listened.
    listening: HashSet<u64>,
}

/// How long each of the states that decide has been seen without a break.
#[derive(Debug, Default)]
struct Since {
    ended_without: Option<Instant>,
    lost: Option<Instant>,
    deaf: Option<Instant>,
    loaded: Option<Instant>,
    /// A worker of the new image was seen once.
    seen_worker: bool,
}

impl<'a> Watch<'a> {
    /// Taken before the master is notified, but after the files are in place.
    ///
    /// A signal that comes while the master loads is lost (measured: 2.6, 3.0), so a load that is going on is waited
    /// for, until `deadline` at most.
    #[must_use]
    pub fn before(master: &'a Master, deadline: Instant) -> Self {
        let look = || {
            let proc = master.proc();
            let (image, was_ready) = executed(master, deadline)?;
            let workers = master.workers();
            let mut listening = HashSet::new();
            for worker in &workers {
                let all = proc.listening(worker.pid);
                // Not ours to see: the master's own signs must do.
                let own = proc.sockets(worker.pid).unwrap_or_default();
                listening.extend(all.intersection(&own));
            }
            Ok(Before { image, was_ready, workers, listening })
        };
        Self { master, before: look(), deaf_after: DEAF }
    }

    /// The same with another limit for a master that sleeps and holds signals back.
    #[must_use]
    pub fn deaf_after(self, limit: Duration) -> Self {
        Self { deaf_after: limit, ..self }
    }

    /// Whether the master has begun anything since.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        let now = self.master.proc().image(self.master.pid()).ok().flatten();
        self.before.as_ref().is_ok_and(|before| now.as_ref() != Some(&before.image))
    }

    /// Waits until the effect is seen.
    #[must_use]
    pub fn wait(&self, deadline: Instant) -> Seen {
        let before = match &self.before {
            Ok(before) => before,
            Err(e) => {
                return Seen::CannotSee(format!(
                    "cannot look at process {}: {}",
                    self.master.pid(),
                    io_cause(e)
                ));
            }
        };
        let mut since = Since::default();
        let mut pause = Duration::from_millis(10);
        loop {
            let begin = Instant::now();
            match self.look(before, &mut since) {
                Ok(Some(seen)) => return seen,
                Err(_) if self.master.ended_within(Duration::ZERO) => return self.ended(),
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                    return Seen::CannotSee(format!(
                        "cannot look at process {}: {}",
                        self.master.pid(),
                        io_cause(&e)
                    ));
                }
                Ok(None) | Err(_) => {}
            }
            let now = Instant::now();
            if now >= deadline {
                return Seen::TimedOut;
            }
            // A look is dear where there are many connections.
            let wait = pause.max((now - begin) * 4).min(deadline - now);
            if self.master.ended_within(wait) {
                return self.ended();
            }
            pause = (pause * 3 / 2).min(PAUSE);
        }
    }

    fn look(&self, before: &Before, since: &mut Since) -> io::Result<Option<Seen>> {
        let (proc, pid) = (self.master.proc(), self.master.pid());
        let stat = proc.stat(pid)?;
        let usr2 = proc.usr2(pid)?;
        let Some(image) = proc.image(pid)? else { return Ok(None) };
        let executed_anew = image != before.image;
        let (new, old): (Vec<WorkerProcess>, Vec<WorkerProcess>) =
            self.master.workers().into_iter().partition(|worker| {
                let of_before = |image: Option<Image>| image.is_none_or(|image| image == before.image);
                // One that is just gone counts for nothing: the next look won't find it.
                executed_anew
                    && !before.workers.contains(worker)
                    && !proc.image(worker.pid).map_or(true, of_before)
            });
        let serves = !new.is_empty();
        since.seen_worker |= serves;
        let lasts = |since: &mut Option<Instant>, holds: bool| {
            *since = if holds { since.or_else(|| Some(Instant::now())) } else { None };
            since.map(|since| since.elapsed()).unwrap_or_default()
        };
        let loaded = lasts(&mut since.loaded, serves && usr2.is_ready());
        if serves {
            if since.loaded.is_some() && (old.is_empty() || loaded >= HANDOVER) {
                return Ok(Some(Seen::Serving));
            }
            if !before.listening.is_empty() && self.has_taken_over(before, &new, &old) {
                return Ok(Some(Seen::Serving));
            }
        }
        if lasts(&mut since.ended_without, executed_anew && usr2.is_ready() && !serves) >= SETTLED {
            let why = if before.was_ready {
                "HAProxy could not load the configuration; its previous worker goes on, see its log"
            } else {
                "HAProxy was loading for somebody else when it was notified, and loses signals then; the next run notifies it"
            };
            return Ok(Some(Seen::Failed(why.to_owned())));
        }
        if lasts(&mut since.lost, executed_anew && since.seen_worker && !serves) >= LOST {
            return Ok(Some(Seen::Failed(format!(
                "HAProxy could not load the configuration, and its master, process {pid}, holds signals back since; \
                 its previous worker goes on, see its log and restart it in time"
            ))));
        }
        if lasts(&mut since.deaf, usr2.blocked && stat.state == 'S' && !serves && !executed_anew)
            >= self.deaf_after
        {
            return Ok(Some(Seen::Failed(format!(
                "HAProxy's master, process {pid}, holds SIGUSR2 back, as 3.1 to 3.3 do after a failed reload; \
                 restart it, or set reload = \"master\""
            ))));
        }
        Ok(None)
    }

    /// Whether new workers listen and no old one does any more.
    fn has_taken_over(&self, before: &Before, new: &[WorkerProcess], old: &[WorkerProcess]) -> bool {
        let proc = self.master.proc();
        let Some(listening) = new.first().map(|worker| proc.listening(worker.pid)) else { return false };
        let listens = |worker: &WorkerProcess| {
            proc.sockets(worker.pid).map(|own| {
                own.iter().any(|inode| listening.contains(inode) || before.listening.contains(inode))
            })
        };
        let gone = |worker: &WorkerProcess| proc.stat(worker.pid).map_or(true, |stat| stat.is_zombie());
        new.iter().any(|worker| matches!(listens(worker), Ok(true)))
            && old.iter().all(|worker| matches!(listens(worker), Ok(false)) || gone(worker))
    }

    fn ended(&self) -> Seen {
        Seen::Failed(format!("HAProxy's master, process {}, ended", self.master.pid()))
    }
}
