//! `assemble` as it is typed: a round of the pipeline, and another one where certbot's tree changed meanwhile.

use crate::cli::{Assemble, Format, Global};
use crate::commands::assemble::{Options, assemble};
use crate::commands::fleet::publish::announcing::{Announced, publish_announcing};
use crate::commands::fleet::publish::{LookThrough, Published, Wanted};
use crate::config::Settings;
use crate::fleet::edition::Pruning;
use crate::haproxy::verdict::Outcome;
use crate::host_setup::fleet_part::FleetPart;
use crate::output::fleet::human::{self, published};
use crate::output::terminal::{Terminal, progress};
use crate::output::{Exit, Note, Report, json, syslog};
use crate::plan::situation::Policy;
use crate::sys::failure::Failure;
use crate::sys::system::System;

/// How many times a run sweeps a tree that changes under it: certbot may be renewing many lineages, one every few seconds, and
/// the path unit hears of nothing that changes while its service runs.
const ROUNDS: usize = 10;

/// Runs `assemble`, reports and logs it.
pub fn run(terminal: &Terminal, global: &Global, args: &Assemble) -> Exit {
    let settings = match global.settings(args.reload) {
        Ok(settings) => settings,
        Err(failure) => {
            match args.format {
                Format::Json => terminal.print_line(&json::failure("assemble", args.dry_run, &failure)),
                Format::Human => terminal.complain(&failure.message),
            }
            syslog::failure(&System::host(), &failure);
            return Exit::Unable;
        }
    };
    rounds(&settings, args, &mut |came| match (came, args.format) {
        (Came::Report(report), Format::Json) => terminal.print_by(|out| json::assemble(report, out)),
        (Came::Report(report), Format::Human) => terminal.print_report(&settings, report),
        // For scripts only what is wrong is said, on stderr.
        (Came::Published(_), Format::Json) => {}
        (Came::Published(done), Format::Human) => {
            terminal.print_deeds(&settings, published(done, terminal.is_verbose()));
        }
        (Came::Unpublished(failure, announced), format) => {
            if let (Some(announced), Format::Human) = (announced, format) {
                terminal.print_deeds(&settings, human::announced(announced, terminal.is_verbose()));
            }
            terminal.complain(&failure.message);
        }
    })
}

/// What came of a part of a run.
#[derive(Debug, Clone, Copy)]
pub enum Came<'a> {
    /// A round of the pipeline.
    Report(&'a Report),
    /// What the publisher of a fleet did after it.
    Published(&'a Published),
    /// Why it could not, and the keys that it has all the same.
    Unpublished(&'a Failure, Option<&'a Announced>),
}

/// Runs `assemble` with these settings, and logs it. `show`: called with what came of each part.
pub fn rounds(settings: &Settings, args: &Assemble, show: &mut dyn FnMut(Came<'_>)) -> Exit {
    let system = System::host();
    if FleetPart::of(settings) == FleetPart::OnlyPublisher {
        return only_publish(settings, args, show);
    }
    let options = options(args);
    let (mut exit, mut was_refused) = (Exit::Fine, false);
    let is_json = args.format == Format::Json;
    let publishes = settings.published().is_some() && !args.dry_run;
    let mut changed = 0;
    let mut last = None;
    for _ in 0..ROUNDS {
        let mut report = assemble(settings, &system, &options, &progress());
        report.changed_before = changed;
        changed += report.changes();
        if !is_json {
            show(Came::Report(&report));
        }
        // What a HAProxy refused an earlier round put back, and a later one doesn't try again.
        was_refused |= report.haproxy.iter().any(|row| row.outcome == Outcome::RolledBack);
        exit = match report.exit(args.exit_code) {
            Exit::Fine | Exit::Partly if was_refused => Exit::Untold,
            exit => exit,
        };
        if !report.dry_run {
            syslog::log(settings, &system, &report, exit);
        }
        // A run that failed wouldn't be better for another one, and JSON is one object.
        let tree = report.tree.take().filter(|_| report.error.is_none() && !is_json);
        let looks_again = tree.is_some_and(|tree| tree.is_outdated(settings));
        last = is_json.then_some(report);
        if !looks_again {
            break;
        }
    }
    let ended = publishes.then(|| publish_after(settings, args, last.as_mut(), show));
    // One object, with all that came of it.
    if let Some(report) = last.filter(|_| is_json) {
        show(Came::Report(&report));
    }
    ended.filter(|ended| ended.code() > exit.code()).unwrap_or(exit)
}

/// Nobody loads anything here: the publisher has no HAProxy.
fn only_publish(settings: &Settings, args: &Assemble, show: &mut dyn FnMut(Came<'_>)) -> Exit {
    let mut report = Report::begin(settings, args.dry_run);
    report
        .notes
        .push(Note::fact("this host only publishes; haproxy-certs status says what isn't published yet"));
    let exit = if args.dry_run { Exit::Fine } else { publish_after(settings, args, Some(&mut report), show) };
    // JSON is one object.
    if args.dry_run || args.format == Format::Json {
        show(Came::Report(&report));
    }
    exit
}

/// Publishes as the run before it was to do it; where that fails, `report` says so.
fn publish_after(
    settings: &Settings,
    args: &Assemble,
    report: Option<&mut Report>,
    show: &mut dyn FnMut(Came<'_>),
) -> Exit {
    match publish_announcing(settings, wanted(args), &progress()) {
        Ok(done) => {
            show(Came::Published(&done));
            done.exit()
        }
        Err((failure, announced)) => {
            show(Came::Unpublished(&failure, announced.as_ref()));
            if let Some(report) = report {
                report.error.get_or_insert(failure);
            }
            Exit::Unable
        }
    }
}

fn wanted(args: &Assemble) -> Wanted {
    let pruning = match (args.no_prune, args.prune_many) {
        (true, _) => Pruning::Nothing,
        (false, true) => Pruning::Many,
        (false, false) => Pruning::Few,
    };
    let missing = if args.full { LookThrough::Now } else { LookThrough::Daily };
    Wanted { pruning, missing, ..Wanted::default() }
}

fn options(args: &Assemble) -> Options {
    Options {
        dry_run: args.dry_run,
        full: args.full,
        defer_reload: args.defer_reload,
        policy: Policy {
            no_prune: args.no_prune,
            prune_many: args.prune_many,
            adopt: args.adopt,
            force: args.force.iter().cloned().collect(),
            // Where it follows a fleet, its cache says so.
            ..Policy::default()
        },
        renewed_lineage: std::env::var_os("RENEWED_LINEAGE"),
    }
}
