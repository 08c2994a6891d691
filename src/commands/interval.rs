//! `assemble --interval`: runs, waits, runs again, until it is told to end. What a timer does on a host, for containers.
//!
//! Runs are done by a thread of their own, so that a signal is heard at once. A run that is under way when the end comes is
//! waited for, but not for longer than an engine waits before it kills: what a run that is killed leaves is made good by the
//! next one, wherever it was.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{JoinHandle, spawn};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rustix::process::{WaitOptions, wait};

use crate::cli::{Assemble, Global};
use crate::commands::rounds::{Came, rounds};
use crate::commands::schedule::is_proof_due;
use crate::output::fleet::human::{self, published};
use crate::output::news::{News, standing};
use crate::output::terminal::Terminal;
use crate::output::{Exit, syslog};
use crate::sys::failure::{Failure, FailureKind};
use crate::sys::signals::listen;
use crate::sys::system::System;

/// How long a run may go on after the end was asked for: engines kill after ten seconds.
const GRACE: Duration = Duration::from_secs(5);

/// What wakes it.
enum Event {
    /// The run is over.
    Done,
    /// It is to run at once.
    Run,
    /// It is to end.
    End,
}

/// Goes on until it is told to end.
///
/// # Errors
/// The settings can't be used from the beginning, signals can't be waited for, or the last run was not over when it ended.
pub fn run(terminal: &Terminal, global: &Global, args: &Assemble) -> Result<Exit, Failure> {
    let Some(interval) = args.interval else { return Ok(Exit::Usage) };
    let (sender, events) = channel();
    let signals = sender.clone();
    listen(&[Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP], move |signal| {
        signals.send(if signal == Signal::SIGHUP { Event::Run } else { Event::End }).is_ok()
    })?;
    // A slip in the settings is seen at once; one that comes later is one failure among others.
    global.settings(args.reload)?;
    let began = Instant::now();
    let mut said = Memory::default();
    let mut proved: Option<Instant> = None;
    loop {
        let at = Instant::now();
        let is_full = args.full || is_proof_due(proved.map(|then| at - then));
        let args = Assemble { full: is_full, ..args.clone() };
        let run = start(global.clone(), args, said, began, sender.clone());
        let next = finish(&events)?;
        // Whatever a panic said is on stderr; then everything is said again.
        let (memory, exit) = run.join().unwrap_or((Memory::default(), Exit::Unable));
        said = memory;
        if is_full && exit != Exit::Unable {
            proved = Some(at);
        }
        reap();
        match next {
            Next::End => return Ok(Exit::Fine),
            Next::Run => continue,
            Next::Wait => {}
        }
        let time = interval.wait(RandomState::new().hash_one(0_u8));
        if terminal.is_verbose() {
            terminal.print_line(&format!("wait       {} s, exit status {}", time.as_secs(), exit.code()));
        }
        match events.recv_timeout(time) {
            Ok(Event::End) | Err(RecvTimeoutError::Disconnected) => return Ok(Exit::Fine),
            Ok(Event::Run | Event::Done) | Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

/// What was said of earlier runs.
#[derive(Debug, Default)]
struct Memory {
    runs: News,
    publishing: News,
}

/// Starts a run; its end, also by a panic, is an event.
fn start(
    global: Global,
    args: Assemble,
    mut said: Memory,
    began: Instant,
    events: Sender<Event>,
) -> JoinHandle<(Memory, Exit)> {
    spawn(move || {
        let _over = Over(events);
        let exit = once(&global, &args, &mut said, began);
        (said, exit)
    })
}

/// Says so when it is dropped.
struct Over(Sender<Event>);

impl Drop for Over {
    fn drop(&mut self) {
        // Nobody listens any more when the program ends meanwhile.
        let _ = self.0.send(Event::Done);
    }
}

/// One run, of which is said what is new.
fn once(global: &Global, args: &Assemble, said: &mut Memory, began: Instant) -> Exit {
    let terminal = Terminal::new(global);
    let of = |message: &str| vec![message.to_owned()];
    let settings = match global.settings(args.reload) {
        Ok(settings) => settings,
        Err(failure) => {
            syslog::failure(&System::host(), &failure);
            if said.runs.has_facts(of(&failure.message), false, began.elapsed()) {
                terminal.complain(&failure.message);
            }
            return Exit::Unable;
        }
    };
    let verbose = terminal.is_verbose();
    let exit = rounds(&settings, args, &mut |came| match came {
        Came::Report(report) => {
            if said.runs.has_report(report, began.elapsed()) || verbose {
                terminal.print_report(&settings, report);
            }
        }
        Came::Published(done) => {
            let facts = standing(&published(done, false));
            if said.publishing.has_facts(facts, done.is_new, began.elapsed()) || verbose {
                terminal.print_deeds(&settings, published(done, verbose));
            }
        }
        Came::Unpublished(failure, announced) => {
            let lines = announced.map(|it| human::announced(it, verbose)).unwrap_or_default();
            terminal.print_deeds(&settings, lines);
            if said.publishing.has_facts(of(&failure.message), false, began.elapsed()) || verbose {
                terminal.complain(&failure.message);
            }
        }
    });
    terminal.unless_lost(exit)
}

/// What is next when a run is over.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// To wait.
    Wait,
    /// Another run.
    Run,
    /// The end.
    End,
}

/// Waits for the end of a run; where the end of all was asked for, not for long.
fn finish(events: &Receiver<Event>) -> Result<Next, Failure> {
    let mut next = Next::Wait;
    let mut until: Option<Instant> = None;
    loop {
        let event = match until {
            None => events.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(until) => events.recv_timeout(until.saturating_duration_since(Instant::now())),
        };
        match event {
            Ok(Event::Done) => return Ok(next),
            Ok(Event::Run) if next == Next::Wait => next = Next::Run,
            Ok(Event::Run) => {}
            Ok(Event::End) => {
                next = Next::End;
                // Some send it twice.
                until.get_or_insert_with(|| Instant::now() + GRACE);
            }
            Err(_) => {
                let fact = "ended while a run was under way; the next run finishes what it began";
                return Err(Failure::new(FailureKind::Io, fact));
            }
        }
    }
}

/// Takes the statuses of processes that were left to us, as process 1 of a container: between runs there are no others.
fn reap() {
    while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(events: impl IntoIterator<Item = Event>) -> Result<Next, Failure> {
        let (sender, receiver) = channel();
        events.into_iter().for_each(|event| sender.send(event).unwrap());
        finish(&receiver)
    }

    #[test]
    fn a_run_is_finished() {
        assert_eq!(after([Event::Done]), Ok(Next::Wait));
        assert_eq!(after([Event::Run, Event::Run, Event::Done]), Ok(Next::Run));
        assert_eq!(after([Event::Run, Event::End, Event::Done]), Ok(Next::End));
        assert_eq!(after([Event::End, Event::End, Event::Run, Event::Done]), Ok(Next::End));
    }
}
