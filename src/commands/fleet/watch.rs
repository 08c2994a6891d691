//! `fleet follow` without `--once`: looks, waits until something wakes it, and looks again.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::commands::fleet::follow::{Closely, Followed, Follower};
use crate::fleet::store::{FleetStore, Revision, Woken};
use crate::sys::clock::now;
use crate::sys::failure::{Failure, FailureKind};
use crate::sys::parallel::Progress;
use crate::sys::service_manager::ServiceManager;
use crate::sys::signals::listen;

/// Nothing woke it: it looks all the same, and gives a sign of life.
const IDLE: Duration = Duration::from_secs(10 * 60);

/// Something isn't as it should be: it tries again.
const SOON: Duration = Duration::from_secs(15);

/// The longest that a wait of the store's takes before it is begun again.
const AT_MOST: Duration = Duration::from_secs(5 * 60);

/// A look that takes longer hangs: no sign of life is given any more.
const HANGS: i64 = 20 * 60;

/// What wakes it.
enum Event {
    /// There is another head, or the store can be asked again.
    Head,
    /// It is to end.
    End,
}

/// Follows until it is told to end. `show`: called with what came of each look that is worth a word.
///
/// # Errors
/// Signals can't be waited for, or the cache can't be used.
pub fn watch(
    follower: &mut Follower<'_>,
    progress: Progress<'_>,
    show: &mut dyn FnMut(&Followed),
) -> Result<(), Failure> {
    let manager = ServiceManager::of_environment();
    let (sender, events) = channel();
    let signals = sender.clone();
    listen(&[Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP], move |_| {
        let _ = signals.send(Event::End);
        false
    })?;
    let mut seen = WatchedHead::default();
    let (wanted, heads) = channel();
    wake_by_store(sender, heads);
    let busy_since = Arc::new(AtomicI64::new(0));
    give_signs_of_life(&manager, &busy_since);
    let mut look = Closely::All;
    let mut last = None;
    loop {
        busy_since.store(now(), Ordering::Relaxed);
        let mut ends = false;
        let done = {
            let ended = std::cell::Cell::new(false);
            let pause = |time: Duration| {
                busy_since.store(0, Ordering::Relaxed);
                let goes_on = rest(&events, time);
                busy_since.store(now(), Ordering::Relaxed);
                ended.set(!goes_on);
                goes_on
            };
            let done = follower.once(look, progress, &pause);
            ends |= ended.get();
            done
        };
        let done = match done {
            Ok(done) => done,
            // Another run works here.
            Err(failure) if failure.kind == FailureKind::Lock => Followed::default(),
            Err(failure) => {
                manager.tell(&format!("STATUS={}: {}", follower.fleet().name, failure.message));
                return Err(failure);
            }
        };
        busy_since.store(0, Ordering::Relaxed);
        let unserved: Vec<_> =
            done.unserved.iter().map(|it| (it.lineage.clone(), it.problem.clone())).collect();
        let news = (done.sequence, done.trouble.clone(), done.unreported.is_some(), unserved);
        if done.is_new || last.as_ref() != Some(&news) || done.run.as_ref().is_some_and(is_worth_a_word) {
            show(&done);
        }
        last = Some(news);
        manager.tell(&format!("READY=1\nSTATUS={}", told(&done)));
        if ends {
            break;
        }
        if let Some(store) = follower.store()
            && seen.is_other(follower.revision)
        {
            // Nobody waits any more: then the time-out does.
            let _ = wanted.send((store, follower.revision));
        }
        let time = if done.is_unfinished() { SOON } else { IDLE };
        match events.recv_timeout(time) {
            Ok(Event::End) | Err(RecvTimeoutError::Disconnected) => break,
            Ok(Event::Head) | Err(RecvTimeoutError::Timeout) => {}
        }
        look = Closely::Changes;
    }
    manager.tell("STOPPING=1");
    Ok(())
}

/// Which head the store's watcher was told of.
#[derive(Default)]
struct WatchedHead {
    is_told: bool,
    revision: Option<Revision>,
}

impl WatchedHead {
    fn is_other(&mut self, revision: Option<Revision>) -> bool {
        let is_other = !self.is_told || self.revision != revision;
        *self = Self { is_told: true, revision };
        is_other
    }
}

fn is_worth_a_word(run: &crate::output::Report) -> bool {
    run.exit(false) != crate::output::Exit::Fine || run.rows.iter().any(|row| row.action.is_change())
}

/// Waits; whether nobody said that it is to end.
fn rest(events: &Receiver<Event>, time: Duration) -> bool {
    let until = Instant::now() + time;
    loop {
        match events.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(Event::End) | Err(RecvTimeoutError::Disconnected) => return false,
            Ok(Event::Head) => {}
            Err(RecvTimeoutError::Timeout) => return true,
        }
    }
}

/// One line for the service manager.
fn told(done: &Followed) -> String {
    let number = done.sequence.map_or_else(|| "nothing here yet".to_owned(), |it| format!("number {it}"));
    let mut text = format!("{}: {number}", done.fleet);
    if let Some((trouble, _)) = &done.trouble {
        let _ = write!(text, ", {}", trouble.name());
    }
    if let Some(run) = done.run.as_ref().filter(|run| run.exit(false) != crate::output::Exit::Fine) {
        let why = run.error.as_ref().map(|failure| format!(": {}", failure.message)).unwrap_or_default();
        let _ = write!(text, ", the run from it isn't fine{why}");
    }
    if !done.unserved.is_empty() {
        let _ = write!(text, ", {} not served", done.unserved.len());
    }
    if let Some(why) = &done.unreported {
        let _ = write!(text, ", the report could not be put: {why}");
    }
    text
}

/// What the store's watcher is told: the store, and which of its heads was seen.
type SeenHead = (Arc<dyn FleetStore>, Option<Revision>);

/// Waits for another head than the one that was seen last. It is the store that the looks use: while nothing happens there
/// is one connection.
fn wake_by_store(sender: Sender<Event>, heads: Receiver<SeenHead>) {
    spawn(move || {
        let Ok((store, mut seen)) = heads.recv() else { return };
        loop {
            while let Ok((_, newer)) = heads.try_recv() {
                seen = newer;
            }
            match store.wait(seen, AT_MOST) {
                Ok(Woken::Changed) => {
                    if sender.send(Event::Head).is_err() {
                        return;
                    }
                    // What was seen is told when the look is done; where it is the same again, it isn't.
                    match heads.recv_timeout(SOON) {
                        Ok((_, newer)) => seen = newer,
                        Err(RecvTimeoutError::Timeout) => {}
                        Err(RecvTimeoutError::Disconnected) => return,
                    }
                }
                Ok(Woken::TimedOut) => {}
                Err(_) => sleep(SOON),
            }
        }
    });
}

/// Tells the watchdog that it lives, as long as no look hangs.
fn give_signs_of_life(manager: &ServiceManager, busy_since: &Arc<AtomicI64>) {
    let Some(every) = manager.watchdog() else { return };
    let (manager, busy_since) = (manager.clone(), Arc::clone(busy_since));
    spawn(move || {
        loop {
            let since = busy_since.load(Ordering::Relaxed);
            if since == 0 || now() - since < HANGS {
                manager.tell("WATCHDOG=1");
            }
            sleep(every);
        }
    });
}
