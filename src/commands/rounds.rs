//! `assemble` as it is typed: a round of the pipeline, and another one where certbot's tree changed meanwhile.

use crate::certbot::tree_mark::TreeMark;
use crate::cli::{Assemble, Format, Global};
use crate::commands::assemble::{Options, assemble};
use crate::commands::fleet::run::publish_after;
use crate::host_setup::fleet_part::FleetPart;
use crate::output::late::{late, undeployed};
use crate::output::terminal::{Terminal, progress};
use crate::output::{Exit, json, syslog};
use crate::plan::situation::Policy;
use crate::sites::last_run::LastRun;
use crate::sys::clock::now;
use crate::sys::system::System;

/// How many times a run sweeps a tree that changes under it.
const ROUNDS: usize = 3;

/// Runs `assemble`, reports and logs it.
pub fn run(terminal: &Terminal, global: &Global, args: &Assemble) -> Exit {
    let system = System::host();
    let settings = match global.settings(args.reload) {
        Ok(settings) => settings,
        Err(failure) => {
            match args.format {
                Format::Json => terminal.print_line(&json::failure("assemble", args.dry_run, &failure)),
                Format::Human => terminal.complain(&failure.message),
            }
            syslog::failure(&system, &failure);
            return Exit::Unable;
        }
    };
    if !args.dry_run && FleetPart::of(&settings) == FleetPart::OnlyPublisher {
        // Nobody loads anything here: the publisher has no HAProxy.
        return publish_after(terminal, &settings, args.format);
    }
    let options = options(args);
    let mut exit = Exit::Fine;
    // JSON is one object.
    let may_look_again = args.format == Format::Human && !args.dry_run;
    for _ in 0..ROUNDS {
        let before = may_look_again.then(|| TreeMark::look(&settings));
        let mut report = assemble(&settings, &system, &options, &progress());
        if !report.dry_run {
            let undeployed = undeployed(&report, &LastRun::load(&settings.sites_dir).undeployed, now());
            report.note_late(late(&undeployed, now()));
        }
        match args.format {
            Format::Json => terminal.print_by(|out| json::assemble(&report, out)),
            Format::Human => terminal.print_report(&settings, &report),
        }
        exit = report.exit(args.exit_code);
        if !report.dry_run {
            syslog::log(&settings, &system, &report, exit);
        }
        // A run that failed wouldn't be better for another one.
        let looks_again = report.error.is_none() && before.is_some_and(|it| it.is_outdated(&settings));
        if !looks_again {
            break;
        }
    }
    if settings.published().is_some() && !args.dry_run {
        let published = publish_after(terminal, &settings, args.format);
        return if published.code() > exit.code() { published } else { exit };
    }
    exit
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
