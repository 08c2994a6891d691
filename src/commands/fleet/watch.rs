//! `fleet follow` without `--once`: looks, waits until something wakes it, and looks again. Each look is by the settings and
//! the keys as they are then.

use std::cell::Cell;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::commands::fleet::follow::{Closely, Followed, Follower};
use crate::commands::fleet::store_watch::{StoreNews, StoreWatch};
use crate::config::Settings;
use crate::config::fleet::StorePlace;
use crate::fleet::store::{FleetStore, Revision};
use crate::fleet::trouble::FleetTrouble;
use crate::output::{Exit, Report};
use crate::sys::clock::now;
use crate::sys::failure::{Failure, FailureKind};
use crate::sys::file_mark::FileMarks;
use crate::sys::parallel::Progress;
use crate::sys::service_manager::ServiceManager;
use crate::sys::signals::listen;
use crate::sys::system::System;

/// Nothing woke it: it looks all the same, and gives a sign of life.
const IDLE: Duration = Duration::from_secs(10 * 60);

/// Something isn't as it should be: it tries again.
const SOON: Duration = Duration::from_secs(15);

/// So often the files that a look is done by are looked at.
const GLANCE: Duration = Duration::from_secs(2);

/// A look that takes longer hangs: no sign of life is given any more.
const HANGS: i64 = 20 * 60;

/// What wakes it.
enum Event {
    /// The store has news.
    Store(StoreNews),
    /// It is to look at once, at everything.
    Look,
    /// It is to end.
    End,
}

/// Why a wait ended before its time was over.
enum Woken {
    /// It is to look.
    Look(Closely),
    /// It is to look at everything, and to deploy without a delay.
    Hurry,
    /// It is to end.
    End,
}

/// Where the settings are had from.
#[derive(Clone, Copy)]
pub struct SettingsSource<'a> {
    /// The file that they are read from.
    pub file: &'a Path,
    /// Reads them.
    pub load: &'a dyn Fn() -> Result<Settings, Failure>,
}

/// How a look ended.
#[derive(Clone, Copy)]
pub enum LookEnd<'a> {
    /// What came of it.
    Done(&'a Settings, &'a Followed),
    /// Why there could be none.
    Failed(&'a Failure),
}

/// Follows until it is told to end. `say`: called with what of a look is worth a word.
///
/// # Errors
/// Signals can't be waited for, or the first look can't be done: the settings, the keys or the cache can't be used.
pub fn watch(
    settings: SettingsSource<'_>,
    system: &System,
    progress: Progress<'_>,
    say: &mut dyn FnMut(LookEnd<'_>),
) -> Result<(), Failure> {
    let (sender, events) = channel();
    let signals = sender.clone();
    listen(&[Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP], move |signal| {
        signals.send(if signal == Signal::SIGHUP { Event::Look } else { Event::End }).is_ok()
    })?;
    let manager = ServiceManager::of_environment();
    let busy_since = Arc::new(AtomicI64::new(0));
    give_signs_of_life(&manager, &busy_since);
    let files = FileMarks::default();
    let have_changed = false;
    let store = None;
    let daemon = Daemon {
        settings,
        system,
        progress,
        manager,
        sender,
        events,
        busy_since,
        files,
        have_changed,
        store,
    };
    daemon.run(say)
}

/// A node's looks, one after the other.
struct Daemon<'a> {
    settings: SettingsSource<'a>,
    system: &'a System,
    progress: Progress<'a>,
    manager: ServiceManager,
    sender: Sender<Event>,
    events: Receiver<Event>,
    busy_since: Arc<AtomicI64>,
    /// The files that the last look was by, and whether they were others than before.
    files: FileMarks,
    have_changed: bool,
    store: Option<OpenStore>,
}

/// A store, and what it was opened by.
struct OpenStore {
    store: Arc<dyn FleetStore>,
    by: StoreSetup,
    /// Its head as it was seen last.
    revision: Option<Revision>,
    watch: Option<StoreWatch>,
}

/// What a store is opened by; where any of it is another one, the store is opened again.
#[derive(PartialEq, Eq)]
struct StoreSetup {
    fleet: String,
    place: StorePlace,
    files: FileMarks,
}

impl StoreSetup {
    fn of(settings: &Settings) -> Option<Self> {
        let fleet = settings.followed()?;
        let files = match &fleet.store {
            StorePlace::Directory(_) => FileMarks::default(),
            StorePlace::Etcd(cluster) => FileMarks::look(cluster.tls_files()),
        };
        Some(Self { fleet: fleet.name.clone(), place: fleet.store.clone(), files })
    }
}

/// What was said last.
#[derive(PartialEq, Eq)]
enum News {
    Done {
        sequence: Option<u64>,
        trouble: Option<(FleetTrouble, String)>,
        is_unreported: bool,
        unserved: Vec<(String, String)>,
    },
    Failed(String),
}

impl News {
    fn of(done: &Followed) -> Self {
        // What a store that is away says of itself changes from one try to the next.
        let fact = |trouble: FleetTrouble, fact: &String| match trouble {
            FleetTrouble::FleetUnreachable => String::new(),
            _ => fact.clone(),
        };
        Self::Done {
            sequence: done.sequence,
            trouble: done.trouble.as_ref().map(|(trouble, why)| (*trouble, fact(*trouble, why))),
            is_unreported: done.unreported.is_some(),
            unserved: done.unserved.iter().map(|it| (it.lineage.clone(), it.problem.clone())).collect(),
        }
    }

    fn is_unreachable(&self) -> bool {
        matches!(self, Self::Done { trouble: Some((FleetTrouble::FleetUnreachable, _)), .. })
    }
}

impl Daemon<'_> {
    fn run(mut self, say: &mut dyn FnMut(LookEnd<'_>)) -> Result<(), Failure> {
        let mut look = Closely::All;
        let mut is_hurried = false;
        let mut said: Option<News> = None;
        // How long it waited because something isn't served.
        let mut waited: Option<Duration> = None;
        loop {
            self.busy_since.store(now(), Ordering::Relaxed);
            let looked = self.look(look, std::mem::take(&mut is_hurried));
            self.busy_since.store(0, Ordering::Relaxed);
            let time = match looked {
                Ok((_, _, Some(Woken::End))) => break,
                // What it began with isn't so any more.
                Ok((_, _, Some(Woken::Look(again)))) => {
                    look = again;
                    continue;
                }
                Ok((_, _, Some(Woken::Hurry))) => {
                    (look, is_hurried) = (Closely::All, true);
                    continue;
                }
                Ok((settings, mut done, None)) => {
                    look = Closely::Changes;
                    let news = News::of(&done);
                    done.is_back = said.as_ref().is_some_and(News::is_unreachable) && !news.is_unreachable();
                    let is_new = done.is_new || self.have_changed || said.as_ref() != Some(&news);
                    if is_new || done.run.as_ref().is_some_and(is_worth_a_word) {
                        say(LookEnd::Done(&settings, &done));
                    }
                    self.manager.tell(&format!("READY=1\nSTATUS={}", told(&done)));
                    said = Some(news);
                    waited = (!done.unserved.is_empty()).then(|| longer(waited.filter(|_| !done.is_new)));
                    if done.is_unfinished() { SOON } else { waited.unwrap_or(IDLE) }
                }
                // Another run works here.
                Err(failure) if failure.kind == FailureKind::Lock => {
                    look = Closely::All;
                    SOON
                }
                Err(failure) => {
                    self.manager.tell(&format!("STATUS={}", failure.message));
                    let news = News::Failed(failure.message.clone());
                    match &said {
                        None => return Err(failure),
                        Some(before) if *before == news && !self.have_changed => {}
                        Some(_) => say(LookEnd::Failed(&failure)),
                    }
                    said = Some(news);
                    look = Closely::All;
                    SOON
                }
            };
            // Of a store that can't be waited for the next look hears soon anyway.
            let wakes = |news| news == StoreNews::Head || time > SOON;
            match self.wait(time, wakes) {
                Some(Woken::End) => break,
                Some(Woken::Look(Closely::All)) => look = Closely::All,
                Some(Woken::Hurry) => (look, is_hurried) = (Closely::All, true),
                Some(Woken::Look(Closely::Changes)) | None => {}
            }
        }
        self.manager.tell("STOPPING=1");
        Ok(())
    }

    /// One look, by what the settings and the keys are now; and what ended its pause, if anything did. `is_hurried`: it makes
    /// none.
    fn look(
        &mut self,
        look: Closely,
        is_hurried: bool,
    ) -> Result<(Settings, Followed, Option<Woken>), Failure> {
        let (settings, files) = self.read();
        self.have_changed = files != self.files;
        let look = if self.have_changed { Closely::All } else { look };
        self.files = files;
        let settings = settings?;
        let mut follower = Follower::new(&settings, self.system)?;
        let by = StoreSetup::of(&settings);
        self.store = self.store.take().filter(|open| Some(&open.by) == by.as_ref());
        if let Some(open) = &self.store {
            follower.go_on_with(Arc::clone(&open.store), open.revision);
        }
        let woken = Cell::new(None);
        let pause = |time: Duration| {
            if is_hurried {
                return true;
            }
            self.busy_since.store(0, Ordering::Relaxed);
            // Heads that come meanwhile are seen by the next look.
            let ended = self.wait(time, |_| false);
            self.busy_since.store(now(), Ordering::Relaxed);
            let goes_on = ended.is_none();
            woken.set(ended);
            goes_on
        };
        let done = follower.once(look, self.progress, &pause)?;
        let opened = follower.store().zip(by);
        let revision = follower.revision;
        if let Some((store, by)) = opened {
            let watch = self.store.take().and_then(|open| open.watch);
            let watch = self.watch(watch, &store, revision);
            self.store = Some(OpenStore { store, by, revision, watch: Some(watch) });
        }
        Ok((settings, done, woken.into_inner()))
    }

    /// The settings, and what the files were that they and the keys are read from, before they are read.
    fn read(&self) -> (Result<Settings, Failure>, FileMarks) {
        let files = FileMarks::look([self.settings.file]);
        let settings = (self.settings.load)();
        let Some(fleet) = settings.as_ref().ok().and_then(Settings::followed) else {
            return (settings, files);
        };
        let files = files.and(FileMarks::look([fleet.identity.as_path()]));
        let files = match &fleet.store {
            StorePlace::Directory(_) => files,
            StorePlace::Etcd(cluster) => files.and(FileMarks::look(cluster.files())),
        };
        (settings, files)
    }

    /// Has the store waited for, by who does so already where that is this store's.
    fn watch(
        &self,
        watch: Option<StoreWatch>,
        store: &Arc<dyn FleetStore>,
        seen: Option<Revision>,
    ) -> StoreWatch {
        if let Some(mut watch) = watch.filter(|watch| watch.is_of(store)) {
            watch.saw(seen);
            return watch;
        }
        let sender = self.sender.clone();
        StoreWatch::start(Arc::clone(store), seen, move |news| sender.send(Event::Store(news)).is_ok())
    }

    /// Waits; `None`: the time is over. `wakes`: whether this ends it.
    fn wait(&self, time: Duration, wakes: impl Fn(StoreNews) -> bool) -> Option<Woken> {
        let until = Instant::now() + time;
        loop {
            if self.files.are_outdated() {
                return Some(Woken::Look(Closely::All));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            match self.events.recv_timeout(left.min(GLANCE)) {
                Ok(Event::End) | Err(RecvTimeoutError::Disconnected) => return Some(Woken::End),
                Ok(Event::Look) => return Some(Woken::Hurry),
                Ok(Event::Store(news)) if wakes(news) => return Some(Woken::Look(Closely::Changes)),
                Ok(Event::Store(_)) | Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

/// How long it waits for what isn't served: others may wait for this node, and it may be so for good.
fn longer(waited: Option<Duration>) -> Duration {
    waited.map_or(SOON, |time| (time * 2).min(IDLE))
}

fn is_worth_a_word(run: &Report) -> bool {
    run.exit(false) != Exit::Fine || run.rows.iter().any(|row| row.action.is_change())
}

/// One line for the service manager.
fn told(done: &Followed) -> String {
    let number = done.sequence.map_or_else(|| "nothing here yet".to_owned(), |it| format!("number {it}"));
    let mut text = format!("{}: {number}", done.fleet);
    if let Some((trouble, _)) = &done.trouble {
        let _ = write!(text, ", {}", trouble.name());
    }
    if let Some(run) = done.run.as_ref().filter(|run| run.exit(false) != Exit::Fine) {
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
