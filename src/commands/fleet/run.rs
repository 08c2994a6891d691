//! The commands of `fleet` as they are typed.

use std::path::Path;

use crate::cli::{FleetCommand, FleetFollow, FleetFormat, FleetStatus, Global};
use crate::commands::fleet::follow::{Closely, Followed, Follower};
use crate::commands::fleet::join::join;
use crate::commands::fleet::publish::announcing::publish_announcing;
use crate::commands::fleet::publish::{LookThrough, Wanted};
use crate::commands::fleet::status::status;
use crate::commands::fleet::watch::{LookEnd, SettingsSource, watch};
use crate::config::{DEFAULT_FILE, Settings};
use crate::fleet::edition::Pruning;
use crate::output::fleet::{html, human, json, monitoring, prometheus};
use crate::output::status::textfile;
use crate::output::terminal::{Terminal, progress};
use crate::output::{Exit, syslog};
use crate::status::advice::Given;
use crate::sys::clock::now;
use crate::sys::failure::Failure;
use crate::sys::system::System;

/// Runs a command of `fleet`.
///
/// # Errors
/// The settings can't be used, or it could not be done.
pub fn run(terminal: &Terminal, global: &Global, command: &FleetCommand) -> Result<Exit, Failure> {
    let settings = global.settings(None);
    match command {
        FleetCommand::Join => joined(terminal, &settings?),
        FleetCommand::Publish(args) => {
            let wanted = Wanted {
                pruning: if args.prune_many { Pruning::Many } else { Pruning::Few },
                take_over: args.take_over,
                rotate: false,
                missing: LookThrough::Now,
            };
            published(terminal, &settings?, wanted)
        }
        FleetCommand::Rotate => published(terminal, &settings?, Wanted { rotate: true, ..Wanted::default() }),
        FleetCommand::Follow(args) => followed(terminal, global, &settings?, args),
        FleetCommand::Status(args) => Ok(seen(terminal, settings, args)),
    }
}

fn joined(terminal: &Terminal, settings: &Settings) -> Result<Exit, Failure> {
    let joined = join(settings)?;
    terminal.print_advice(settings, human::joined(&joined));
    terminal.print(&format!("\n{}", joined.table));
    Ok(Exit::Fine)
}

fn published(terminal: &Terminal, settings: &Settings, wanted: Wanted) -> Result<Exit, Failure> {
    let done = publish_announcing(settings, wanted, &progress()).map_err(|(failure, announced)| {
        let lines = announced.map(|it| human::announced(&it, terminal.is_verbose())).unwrap_or_default();
        terminal.print_deeds(settings, lines);
        failure
    })?;
    terminal.print_deeds(settings, human::published(&done, terminal.is_verbose()));
    Ok(done.exit())
}

fn followed(
    terminal: &Terminal,
    global: &Global,
    settings: &Settings,
    args: &FleetFollow,
) -> Result<Exit, Failure> {
    let system = System::host();
    if args.once {
        // Whoever starts it spreads it.
        let done = Follower::new(settings, &system)?
            .once(Closely::All, &progress(), &|_| true)
            .inspect_err(|failure| syslog::failure(&system, failure))?;
        show(terminal, settings, &system, &done);
        return Ok(done.exit());
    }
    let file = global.config_file().unwrap_or(Path::new(DEFAULT_FILE));
    // What a shell pipes in can be read once.
    let is_there_again = file.metadata().map_or(true, |found| found.is_file());
    let load = || if is_there_again { global.settings(None) } else { Ok(settings.clone()) };
    let source = SettingsSource { file, load: &load };
    let mut say = |said: LookEnd<'_>| match said {
        LookEnd::Done(settings, done) => show(terminal, settings, &system, done),
        LookEnd::Failed(failure) => {
            terminal.complain(&failure.message);
            syslog::failure(&system, failure);
        }
    };
    watch(source, &system, &|_, _| (), &mut say).inspect_err(|failure| syslog::failure(&system, failure))?;
    Ok(Exit::Fine)
}

fn show(terminal: &Terminal, settings: &Settings, system: &System, done: &Followed) {
    if let Some(run) = &done.run {
        terminal.print_report(settings, run);
        syslog::log(settings, system, run, run.exit(false));
    }
    terminal.print_deeds(settings, human::followed(done));
}

/// Runs `fleet status`; it exits as monitoring plugins do.
fn seen(terminal: &Terminal, settings: Result<Settings, Failure>, args: &FleetStatus) -> Exit {
    // Which fleet it is may be known also where it can't be looked at.
    let name = settings.as_ref().ok().and_then(|settings| settings.fleet.as_ref()).map(|it| it.name.clone());
    let looked =
        settings.and_then(|settings| status(&settings, &progress()).map(|overview| (settings, overview)));
    let (settings, overview) = match looked {
        Ok(looked) => looked,
        Err(failure) => {
            if let Some(path) = &args.textfile
                && let Err(unwritten) = textfile::write(path, &prometheus::failure(name.as_deref(), now()))
            {
                terminal.complain(&unwritten.message);
            }
            match args.format {
                FleetFormat::Html => terminal.print_line(&html::failure(&failure.message, now())),
                FleetFormat::Json => terminal.print_line(&json::failure(&failure)),
                FleetFormat::Monitoring => terminal.print_line(&monitoring::failure(&failure.message)),
                FleetFormat::Human | FleetFormat::Prometheus => {
                    terminal.complain(&failure.message);
                }
            }
            return Exit::Unable;
        }
    };
    let written = args.textfile.as_ref().map(|path| textfile::write(path, &prometheus::text(&overview)));
    match args.format {
        FleetFormat::Human => {
            terminal.print_advice(&settings, human::status(&overview, terminal.is_quiet()));
        }
        FleetFormat::Html => terminal.print_line(&html::text(&overview, &Given::of(&settings))),
        FleetFormat::Json => terminal.print_line(&json::status(&overview)),
        FleetFormat::Monitoring => terminal.print_line(&monitoring::text(&overview)),
        FleetFormat::Prometheus => terminal.print_line(prometheus::text(&overview).trim_end()),
    }
    match written {
        Some(Err(failure)) => terminal.unable(&failure),
        Some(Ok(())) | None => Exit::Seen(overview.severity()),
    }
}
