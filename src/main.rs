//! Parses, runs, prints, exits: the only file that prints or exits.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is the file that prints")]

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anstream::{AutoStream, ColorChoice};
use clap::CommandFactory;
use clap::builder::styling::{AnsiColor, Style};
use clap::error::ErrorKind;
use haproxy_certs::certbot::tree_mark::TreeMark;
use haproxy_certs::cli::{
    Assemble, Cli, Color, Command, Completions, FleetCommand, FleetFollow, FleetStatus, Format, Global,
    HaproxyConfig, Init, StatusArgs, StatusFormat,
};
use haproxy_certs::commands::assemble::assemble;
use haproxy_certs::commands::fleet::follow::{Closely, Followed, Follower};
use haproxy_certs::commands::fleet::publish::{self, Published, Wanted};
use haproxy_certs::commands::fleet::{join, status as fleet_status, watch};
use haproxy_certs::commands::haproxy_config::{self, haproxy_config};
use haproxy_certs::commands::issue::{CertbotCall, Deed, address_advice, passed_on};
use haproxy_certs::commands::{completions, init};
use haproxy_certs::config::{DEFAULT_FILE, OWN_DIR, Settings};
use haproxy_certs::host_setup::adopt;
use haproxy_certs::output::fleet as fleet_report;
use haproxy_certs::output::late::{late, undeployed};
use haproxy_certs::output::status::textfile;
use haproxy_certs::output::wrap::wrapped;
use haproxy_certs::output::{Exit, Report, human, json, status as status_report, syslog};
use haproxy_certs::sites::last_run::LastRun;
use haproxy_certs::status::advice::Given;
use haproxy_certs::status::severity::Severity;
use haproxy_certs::status::{self, status};
use haproxy_certs::sweep::now;
use haproxy_certs::sys::escape::{escaped, escaped_path};
use haproxy_certs::sys::failure::{Failure, FailureKind, io_cause};
use haproxy_certs::sys::system::System;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How many times a run sweeps a tree that changes under it.
const ROUNDS: usize = 3;

/// A sweep that takes longer than this shows its progress.
const PATIENCE: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    // A core dump would hold private keys, also that of a HAProxy that is asked about them.
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Core, none);
    let exit = match Cli::parse_from_args(std::env::args_os().collect()) {
        Ok(cli) => run(cli),
        Err(e) if e.kind() == ErrorKind::MissingSubcommand => {
            let _ = write!(std::io::stderr(), "{}", Cli::command().render_help());
            Exit::Usage.code()
        }
        Err(e) if matches!(e.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            note_lost(e.print().and_then(|()| std::io::stdout().flush()));
            unless_lost(Exit::Fine).code()
        }
        Err(e) => {
            say(&e);
            Exit::Usage.code()
        }
    };
    ExitCode::from(exit)
}

/// Prints what clap has to say; it quotes what was typed as it is, which isn't always fit for certbot's decoder.
fn say(error: &clap::Error) {
    let text = error.render().to_string();
    if text.is_ascii() {
        let _ = error.print();
    } else {
        for line in text.lines() {
            let _ = writeln!(std::io::stderr(), "{}", escaped(line));
        }
    }
}

/// Runs the command; its exit status.
fn run(cli: Cli) -> u8 {
    let global = &cli.global;
    let exit = match cli.command {
        Command::Assemble(args) => run_assemble(global, &args),
        Command::Status(args) => run_status(global, &args),
        Command::Issue(args) => return run_certbot(global, Deed::Issue(&args.domains), &args.certbot),
        Command::Renew(args) => return run_certbot(global, Deed::Renew, &args.certbot),
        Command::Init(args) => run_init(global, &args).unwrap_or_else(|e| unable(&e)),
        Command::HaproxyConfig(args) => print_haproxy_config(global, &args).unwrap_or_else(|e| unable(&e)),
        Command::Fleet(command) => run_fleet(global, &command),
        Command::Completions { shell } => print_completions(global, shell).unwrap_or_else(|e| unable(&e)),
    };
    unless_lost(exit).code()
}

/// The first error of writing to stdout; a reader that doesn't want any more is none.
static LOST: OnceLock<String> = OnceLock::new();

fn print(text: &str) {
    let mut out = std::io::stdout();
    note_lost(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}

fn note_lost(written: std::io::Result<()>) {
    if let Err(e) = written
        && e.kind() != std::io::ErrorKind::BrokenPipe
    {
        LOST.get_or_init(|| io_cause(&e));
    }
}

/// How a command ends whose output may be lost: nobody is to take an empty one for the truth.
fn unless_lost(exit: Exit) -> Exit {
    match LOST.get() {
        Some(why) => unable(&Failure::new(FailureKind::Io, format!("cannot write to stdout: {why}"))),
        None => exit,
    }
}

fn print_completions(global: &Global, what: Completions) -> Result<Exit, Failure> {
    use clap_complete::Shell;
    let text = match what {
        Completions::Bash => completions::script(Shell::Bash),
        Completions::Elvish => completions::script(Shell::Elvish),
        Completions::Fish => completions::script(Shell::Fish),
        Completions::PowerShell => completions::script(Shell::PowerShell),
        Completions::Zsh => completions::script(Shell::Zsh),
        Completions::Lineages => {
            completions::lineages(&Settings::load(global.config_file(), &global.overrides(None))?)
        }
    };
    print(&text);
    Ok(Exit::Fine)
}

fn run_assemble(global: &Global, args: &Assemble) -> Exit {
    let settings = match Settings::load(global.config_file(), &global.overrides(args.reload)) {
        Ok(settings) => settings,
        Err(failure) => {
            match args.format {
                Format::Json => print_line(&json::failure("assemble", args.dry_run, &failure)),
                Format::Human => complain(&failure.message),
            }
            syslog::failure(&System::host(), &failure);
            return Exit::Unable;
        }
    };
    if let (Some(_), false) = (settings.published(), args.dry_run)
        && !writes_sites(&settings)
    {
        // Nobody loads anything here: the publisher has no HAProxy.
        return publish_after(global, &settings, args.format);
    }
    let system = System::host();
    let options = args.options(std::env::var_os("RENEWED_LINEAGE"));
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
            Format::Json => print_line(&json::assemble(&report)),
            Format::Human => print_report(global, &settings, &report),
        }
        exit = report.exit(args.exit_code);
        if !report.dry_run {
            syslog::log(&settings, &system, &report, exit);
        }
        // A run that failed wouldn't be better for another one.
        let looks_again = report.error.is_none() && before.is_some_and(|it| it != TreeMark::look(&settings));
        if !looks_again {
            break;
        }
    }
    if settings.published().is_some() && !args.dry_run {
        let published = publish_after(global, &settings, args.format);
        if published.code() > exit.code() {
            exit = published;
        }
    }
    exit
}

/// Whether a publisher has a HAProxy of its own: a table says so, or a first run did.
fn writes_sites(settings: &Settings) -> bool {
    settings.names_haproxys || settings.sites_dir.join(OWN_DIR).exists()
}

/// Publishes after `assemble`; for scripts that is the part that is said on stderr, where something is wrong.
fn publish_after(global: &Global, settings: &Settings, format: Format) -> Exit {
    match publish::publish(settings, Wanted::default(), &progress()) {
        Ok(done) => {
            if format == Format::Human {
                print_published(global, settings, &done);
            }
            published_exit(&done)
        }
        Err(failure) => {
            syslog::failure(&System::host(), &failure);
            unable(&failure)
        }
    }
}

fn published_exit(done: &Published) -> Exit {
    if done.is_partly() { Exit::Partly } else { Exit::Fine }
}

fn print_published(global: &Global, settings: &Settings, done: &Published) {
    let mut lines = completed(settings, fleet_report::human::published(done, global.verbose));
    if global.quiet {
        lines.retain(|line| line.tone == human::Tone::Bad);
    }
    print_wrapped(global, lines);
}

fn run_fleet(global: &Global, command: &FleetCommand) -> Exit {
    let settings = match Settings::load(global.config_file(), &global.overrides(None)) {
        Ok(settings) => settings,
        Err(failure) => {
            if let FleetCommand::Status(args) = command {
                print_fleet_failure(args.format, &failure);
                return Exit::Unable;
            }
            return unable(&failure);
        }
    };
    match command {
        FleetCommand::Join => run_join(global, &settings),
        FleetCommand::Publish(args) => {
            let wanted = Wanted { prune_many: args.prune_many, take_over: args.take_over, rotate: false };
            run_publish(global, &settings, wanted)
        }
        FleetCommand::Rotate => run_publish(global, &settings, Wanted { rotate: true, ..Wanted::default() }),
        FleetCommand::Follow(args) => run_follow(global, &settings, args).unwrap_or_else(|e| unable(&e)),
        FleetCommand::Status(args) => run_fleet_status(global, &settings, args),
    }
}

fn run_join(global: &Global, settings: &Settings) -> Exit {
    match join::join(settings) {
        Ok(joined) => {
            print_wrapped(global, completed(settings, fleet_report::human::joined(&joined)));
            print(&format!("\n{}", joined.table));
            Exit::Fine
        }
        Err(failure) => unable(&failure),
    }
}

fn run_publish(global: &Global, settings: &Settings, wanted: Wanted) -> Exit {
    match publish::publish(settings, wanted, &progress()) {
        Ok(done) => {
            print_published(global, settings, &done);
            published_exit(&done)
        }
        Err(failure) => unable(&failure),
    }
}

fn run_follow(global: &Global, settings: &Settings, args: &FleetFollow) -> Result<Exit, Failure> {
    let system = System::host();
    let mut follower = Follower::new(settings, &system)?;
    if args.once {
        // Whoever starts it spreads it.
        let done = follower.once(Closely::All, &progress(), &|_| true)?;
        show_followed(global, settings, &system, &done);
        return Ok(done.exit());
    }
    watch::watch(&mut follower, &|_, _| (), &mut |done| show_followed(global, settings, &system, done))?;
    Ok(Exit::Fine)
}

fn show_followed(global: &Global, settings: &Settings, system: &System, done: &Followed) {
    if let Some(run) = &done.run {
        let mut run = run.clone();
        let undeployed = undeployed(&run, &LastRun::load(&settings.sites_dir).undeployed, now());
        run.note_late(late(&undeployed, now()));
        print_report(global, settings, &run);
        syslog::log(settings, system, &run, run.exit(false));
    }
    let mut lines = completed(settings, fleet_report::human::followed(done));
    if global.quiet {
        lines.retain(|line| line.tone == human::Tone::Bad);
    }
    print_wrapped(global, lines);
}

fn run_fleet_status(global: &Global, settings: &Settings, args: &FleetStatus) -> Exit {
    let overview = match fleet_status::status(settings) {
        Ok(overview) => overview,
        Err(failure) => {
            print_fleet_failure(args.format, &failure);
            return Exit::Unable;
        }
    };
    let unwritten = args
        .textfile
        .as_ref()
        .and_then(|path| textfile::write(path, &fleet_report::prometheus::text(&overview)).err());
    match args.format {
        StatusFormat::Human => {
            print_wrapped(global, completed(settings, fleet_report::human::status(&overview, global.quiet)));
        }
        StatusFormat::Json => print_line(&fleet_report::json::status(&overview)),
        StatusFormat::Monitoring => print_line(&fleet_report::monitoring::text(&overview)),
        StatusFormat::Prometheus => print_line(fleet_report::prometheus::text(&overview).trim_end()),
    }
    if let Some(failure) = unwritten {
        return unable(&failure);
    }
    match overview.severity() {
        Severity::Ok => Exit::Fine,
        Severity::Warning => Exit::Partly,
        Severity::Critical => Exit::Untold,
        Severity::Unknown => Exit::Unable,
    }
}

fn print_fleet_failure(format: StatusFormat, failure: &Failure) {
    match format {
        StatusFormat::Json => print_line(&fleet_report::json::failure(failure)),
        StatusFormat::Monitoring => print_line(&status_report::monitoring::failure(&failure.message)),
        StatusFormat::Human | StatusFormat::Prometheus => complain(&failure.message),
    }
}

fn run_status(global: &Global, args: &StatusArgs) -> Exit {
    let settings = match Settings::load(global.config_file(), &global.overrides(None)) {
        Ok(settings) => settings,
        Err(failure) => {
            if let Some(path) = &args.textfile
                && let Err(unwritten) = textfile::write(path, &status_report::prometheus::failure(now()))
            {
                complain(&unwritten.message);
            }
            match args.format {
                StatusFormat::Json => print_line(&status_report::json::failure(&failure)),
                StatusFormat::Monitoring => print_line(&status_report::monitoring::failure(&failure.message)),
                StatusFormat::Human | StatusFormat::Prometheus => complain(&failure.message),
            }
            return Exit::Unable;
        }
    };
    let mut status = status(&settings, &System::host(), args.setup, &progress());
    let unwritten = args.textfile.as_ref().and_then(|path| {
        let metrics = status_report::prometheus::text(&status);
        textfile::write(path, &metrics).err()
    });
    let is_written = unwritten.is_none();
    status.error = status.error.or(unwritten);
    match args.format {
        StatusFormat::Human => print_status(global, &status),
        StatusFormat::Json => print_line(&status_report::json::status(&status, args.setup)),
        StatusFormat::Monitoring => print_line(&status_report::monitoring::text(&status)),
        StatusFormat::Prometheus => print_line(status_report::prometheus::text(&status).trim_end()),
    }
    match status.severity() {
        _ if !is_written => Exit::Unable,
        Severity::Ok => Exit::Fine,
        Severity::Warning => Exit::Partly,
        Severity::Critical => Exit::Untold,
        Severity::Unknown => Exit::Unable,
    }
}

fn print_status(global: &Global, status: &status::Status) {
    use status_report::human::Detail;
    let detail = match (global.quiet, global.verbose) {
        (true, _) => Detail::Quiet,
        (false, true) => Detail::Verbose,
        (false, false) => Detail::Normal,
    };
    let lines = status_report::human::lines(status, width().unwrap_or(80), detail);
    let mut out = stdout(global);
    for line in lines {
        let style = style(line.tone);
        let (toned, rest) = line.text.split_at_checked(line.toned).unwrap_or(("", &line.text));
        note_lost(writeln!(out, "{style}{toned}{style:#}{rest}"));
    }
    note_lost(out.flush());
}

/// How many columns there are: the terminal's, else those that `COLUMNS` tells.
fn width() -> Option<usize> {
    let terminal = rustix::termios::tcgetwinsize(std::io::stdout()).ok().map(|size| usize::from(size.ws_col));
    let told = || std::env::var("COLUMNS").ok()?.parse().ok();
    terminal.filter(|&columns| columns > 0).or_else(told)
}

/// Prints lines that are broken only for a terminal: in a file each thing is one line.
fn print_wrapped(global: &Global, lines: Vec<human::Line>) {
    let lines = match width() {
        Some(width) => wrapped(lines, width),
        None => lines,
    };
    print_lines(global, &lines);
}

/// Runs certbot, and then sweeps; where certbot failed its exit status is passed on.
fn run_certbot(global: &Global, deed: Deed<'_>, more: &[OsString]) -> u8 {
    let run = || {
        let settings = Settings::load(global.config_file(), &global.overrides(None))?;
        let call = CertbotCall::new(&settings, &System::host(), deed, more)?;
        if global.verbose {
            print_line(&format!("run        {call}"));
        }
        call.run().map(|status| (status, settings))
    };
    let (status, settings) = match run() {
        Ok(done) => done,
        Err(failure) => return unable(&failure).code(),
    };
    if !status.success() && !deed.sweeps_after_failure() {
        complain("certbot failed; nothing was deployed");
        return passed_on(status);
    }
    let exit = run_assemble(global, &Assemble::default());
    if let (true, Deed::Issue(names)) = (status.success(), deed) {
        let advice = address_advice(&settings, names, more);
        let lines =
            advice.map(|text| human::Line { tone: human::Tone::Wary, text: format!("left to do {text}") });
        print_wrapped(global, lines.into_iter().collect());
    }
    if status.success() { unless_lost(exit).code() } else { passed_on(status) }
}

fn run_init(global: &Global, args: &Init) -> Result<Exit, Failure> {
    let system = System::host();
    let (settings, plan) = if args.write_config {
        // By no file: this one is only to be made, or mended by hand.
        let settings = Settings::load(global.config_file(), &global.overrides(None))
            .or_else(|_| Settings::parse("", &global.overrides(None)))
            .map_err(Failure::config)?;
        let file = global.config_file().unwrap_or(Path::new(DEFAULT_FILE));
        let plan = init::plan_config(file, adopt::look(&settings, &system).as_ref());
        (settings, plan)
    } else {
        let settings = Settings::load(global.config_file(), &global.overrides(None))?;
        let is_told = global.sites_dir.is_some() || settings.file.as_ref().is_some_and(|file| file.exists());
        let proposal = adopt::look(&settings, &system).filter(|_| !is_told);
        let plan = if let Some(proposal) = proposal {
            init::plan_adoption(&proposal)
        } else {
            let found = init::look(&settings, &system, &init::Places::host()?, args.hook);
            init::plan(&settings, &found, args.hook)
        };
        (settings, plan)
    };
    if args.dry_run {
        print_wrapped(global, init::dry_lines(&plan));
    } else {
        init::carry_out(&settings, &system, &plan, &mut |line| print_wrapped(global, vec![line]))?;
    }
    print_wrapped(global, completed(&settings, init::left_lines(&plan)));
    if let Some(path) = global.config_file().filter(|path| *path != Path::new(DEFAULT_FILE)) {
        let path = escaped_path(path);
        complain(&format!("note: certbot's hook and the timer read {DEFAULT_FILE}, not {path}"));
    }
    Ok(if plan.is_blocked() { Exit::Partly } else { Exit::Fine })
}

fn print_haproxy_config(global: &Global, args: &HaproxyConfig) -> Result<Exit, Failure> {
    let settings = Settings::load(global.config_file(), &global.overrides(None))?;
    let wanted = |name: &str| args.haproxy.as_ref().is_none_or(|wanted| wanted == name);
    let Some(haproxy) = settings.haproxys.iter().find(|haproxy| wanted(&haproxy.name)) else {
        let name = args.haproxy.as_deref().unwrap_or_default();
        return Err(Failure::config(format!(
            "there is no [[haproxy]] table with the name \"{}\"",
            escaped(name)
        )));
    };
    let host = haproxy_config::Host::look(&System::host());
    print(&haproxy_config(&settings, haproxy, &host));
    Ok(Exit::Fine)
}

fn unable(failure: &Failure) -> Exit {
    complain(&failure.message);
    Exit::Unable
}

/// Draws a bar on a terminal once a sweep has taken more than a second.
fn progress() -> impl Fn(usize, usize) + Sync {
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

fn print_report(global: &Global, settings: &Settings, report: &Report) {
    let mut lines = completed(settings, human::lines(report, global.verbose));
    if global.quiet {
        lines.retain(|line| line.tone == human::Tone::Bad);
    }
    print_wrapped(global, lines);
    if let Some(failure) = &report.error {
        complain(&failure.message);
    }
}

/// The lines with commands that act on the same settings.
fn completed(settings: &Settings, mut lines: Vec<human::Line>) -> Vec<human::Line> {
    let given = Given::of(settings);
    for line in &mut lines {
        line.text = given.put_into(&line.text);
    }
    lines
}

fn print_lines(global: &Global, lines: &[human::Line]) {
    let mut out = stdout(global);
    for line in lines {
        let style = style(line.tone);
        note_lost(writeln!(out, "{style}{}{style:#}", line.text));
    }
    note_lost(out.flush());
}

fn stdout(global: &Global) -> AutoStream<std::io::StdoutLock<'static>> {
    let choice = match global.color {
        Color::Auto => AutoStream::choice(&std::io::stdout()),
        Color::Always => ColorChoice::Always,
        Color::Never => ColorChoice::Never,
    };
    AutoStream::new(std::io::stdout().lock(), choice)
}

fn style(tone: human::Tone) -> Style {
    match tone {
        human::Tone::Good => AnsiColor::Green.on_default(),
        human::Tone::Wary => AnsiColor::Yellow.on_default(),
        human::Tone::Bad => AnsiColor::Red.on_default(),
        human::Tone::Plain => Style::new(),
    }
}

fn print_line(text: &str) {
    print(&format!("{text}\n"));
}

fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "haproxy-certs: {text}");
}
