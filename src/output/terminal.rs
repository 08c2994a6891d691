//! The only file that prints: how wide, in which colours, and whether all of it arrived.

use std::io::{IsTerminal, Write};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anstream::{AutoStream, ColorChoice};
use clap::CommandFactory;
use clap::builder::styling::{AnsiColor, Style};
use clap::error::ErrorKind;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::human::{self, Line, Tone};
use super::status::human::{self as status_human, Detail};
use super::wrap::wrapped;
use super::{Exit, Report};
use crate::cli::{Cli, Color, Global};
use crate::config::Settings;
use crate::status::Status;
use crate::status::advice::Given;
use crate::sys::escape::escaped;
use crate::sys::failure::{Failure, FailureKind, io_cause};

/// A sweep that takes longer than this shows its progress.
const PATIENCE: Duration = Duration::from_secs(1);

/// Standard output and error, as the command line wants them.
#[derive(Debug, Default)]
pub struct Terminal {
    color: ColorChoice,
    quiet: bool,
    verbose: bool,
    /// The first error of writing to stdout; a reader that doesn't want any more is none.
    lost: OnceLock<String>,
}

impl Terminal {
    /// With the colours and the detail that were asked for.
    #[must_use]
    pub fn new(global: &Global) -> Self {
        let color = match global.color {
            Color::Auto => ColorChoice::Auto,
            Color::Always => ColorChoice::Always,
            Color::Never => ColorChoice::Never,
        };
        Self { color, quiet: global.quiet, verbose: global.verbose, lost: OnceLock::new() }
    }

    /// Prints a text as it is.
    pub fn print(&self, text: &str) {
        let mut out = std::io::stdout();
        self.note(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
    }

    /// Prints what is written piece by piece.
    pub fn print_by(&self, write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) {
        let mut out = std::io::stdout().lock();
        self.note(write(&mut out).and_then(|()| out.flush()));
    }

    /// Prints a line.
    pub fn print_line(&self, text: &str) {
        self.print(&format!("{text}\n"));
    }

    /// Prints lines that are broken only for a terminal: in a file each thing is one line.
    pub fn print_lines(&self, lines: Vec<Line>) {
        let lines = match width() {
            Some(width) => wrapped(lines, width),
            None => lines,
        };
        let mut out = self.stdout();
        for line in lines {
            let style = style(line.tone);
            self.note(writeln!(out, "{style}{}{style:#}", line.text));
        }
        self.note(out.flush());
    }

    /// Prints lines whose commands are to act on the same settings as this one.
    pub fn print_advice(&self, settings: &Settings, mut lines: Vec<Line>) {
        let given = Given::of(settings);
        for line in &mut lines {
            line.text = given.put_into(&line.text);
        }
        self.print_lines(lines);
    }

    /// Prints lines as [`Terminal::print_advice`] does; of those of a quiet command only what failed.
    pub fn print_deeds(&self, settings: &Settings, mut lines: Vec<Line>) {
        if self.quiet {
            lines.retain(|line| line.tone == Tone::Bad);
        }
        self.print_advice(settings, lines);
    }

    /// Whether only what is wrong is to be said.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Whether more is to be said.
    #[must_use]
    pub fn is_verbose(&self) -> bool {
        self.verbose
    }

    /// Prints what came of a run.
    pub fn print_report(&self, settings: &Settings, report: &Report) {
        self.print_deeds(settings, human::lines(report, self.verbose));
        if let Some(failure) = &report.error {
            self.complain(&failure.message);
        }
    }

    /// Prints the table of a status.
    pub fn print_status(&self, status: &Status) {
        let detail = match (self.quiet, self.verbose) {
            (true, _) => Detail::Quiet,
            (false, true) => Detail::Verbose,
            (false, false) => Detail::Normal,
        };
        let mut out = self.stdout();
        for line in status_human::lines(status, width().unwrap_or(80), detail) {
            let style = style(line.tone);
            let (toned, rest) = line.text.split_at_checked(line.toned).unwrap_or(("", &line.text));
            self.note(writeln!(out, "{style}{toned}{style:#}{rest}"));
        }
        self.note(out.flush());
    }

    /// Says on stderr what is wrong.
    #[allow(clippy::unused_self, reason = "whoever complains has a terminal")]
    pub fn complain(&self, text: &str) {
        let _ = writeln!(std::io::stderr(), "haproxy-certs: {text}");
    }

    /// Says why a command can't be done, and how it ends.
    pub fn unable(&self, failure: &Failure) -> Exit {
        self.complain(&failure.message);
        Exit::Unable
    }

    /// Prints what clap answers in place of a command: help, the version, or what is wrong with the words.
    ///
    /// clap quotes what was typed as it is, which isn't always fit for certbot's decoder.
    pub fn answer(&self, answer: &clap::Error) -> Exit {
        let mut err = std::io::stderr();
        match answer.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                self.note(answer.print().and_then(|()| std::io::stdout().flush()));
                return Exit::Fine;
            }
            ErrorKind::MissingSubcommand => {
                let _ = write!(err, "{}", Cli::command().render_help());
            }
            _ => {
                let text = answer.render().to_string();
                if text.is_ascii() {
                    let _ = answer.print();
                } else {
                    text.lines().for_each(|line| drop(writeln!(err, "{}", escaped(line))));
                }
            }
        }
        Exit::Usage
    }

    /// How a command ends whose output may be lost: nobody is to take an empty one for the truth.
    #[must_use]
    pub fn unless_lost(&self, exit: Exit) -> Exit {
        match self.lost.get() {
            Some(why) if !matches!(exit, Exit::Certbot(_)) => {
                self.unable(&Failure::new(FailureKind::Io, format!("cannot write to stdout: {why}")))
            }
            _ => exit,
        }
    }

    fn note(&self, written: std::io::Result<()>) {
        if let Err(e) = written
            && e.kind() != std::io::ErrorKind::BrokenPipe
        {
            self.lost.get_or_init(|| io_cause(&e));
        }
    }

    fn stdout(&self) -> AutoStream<std::io::StdoutLock<'static>> {
        let choice = match self.color {
            ColorChoice::Auto => AutoStream::choice(&std::io::stdout()),
            choice => choice,
        };
        AutoStream::new(std::io::stdout().lock(), choice)
    }
}

/// Draws a bar on a terminal once a sweep has taken more than a second.
pub fn progress() -> impl Fn(usize, usize) + Sync {
    let (start, bar) = (Instant::now(), OnceLock::new());
    let on_terminal = std::io::stderr().is_terminal();
    move |done, all| {
        if !on_terminal || (bar.get().is_none() && start.elapsed() < PATIENCE) {
            return;
        }
        let bar: &ProgressBar = bar.get_or_init(|| {
            let style = ProgressStyle::with_template("{bar:40} {pos}/{len} lineages")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10))
                .with_style(style.progress_chars("=> "))
        });
        bar.set_length(all as u64);
        bar.set_position(done as u64);
        if done == all {
            bar.finish_and_clear();
        }
    }
}

/// How many columns there are: the terminal's, else those that `COLUMNS` names.
fn width() -> Option<usize> {
    let terminal = rustix::termios::tcgetwinsize(std::io::stdout()).ok().map(|size| usize::from(size.ws_col));
    let named = || std::env::var("COLUMNS").ok()?.parse().ok();
    terminal.filter(|&columns| columns > 0).or_else(named)
}

fn style(tone: Tone) -> Style {
    match tone {
        Tone::Good => AnsiColor::Green.on_default(),
        Tone::Wary => AnsiColor::Yellow.on_default(),
        Tone::Bad => AnsiColor::Red.on_default(),
        Tone::Plain => Style::new(),
    }
}
