//! Parses, dispatches, exits.

use std::process::ExitCode;

use haproxy_certs::cli::{Cli, Command};
use haproxy_certs::commands::{
    completions, fleet, haproxy_config, init, interval, rounds, status, with_certbot,
};
use haproxy_certs::output::Exit;
use haproxy_certs::output::terminal::Terminal;
use haproxy_certs::sys::core_dump;

fn main() -> ExitCode {
    core_dump::forbid();
    let (terminal, exit) = match Cli::parse_from_args(std::env::args_os().collect()) {
        Ok(cli) => {
            let terminal = Terminal::new(&cli.global);
            let exit = run(&terminal, &cli);
            (terminal, exit)
        }
        Err(answer) => {
            let terminal = Terminal::default();
            let exit = terminal.answer(&answer);
            (terminal, exit)
        }
    };
    ExitCode::from(terminal.unless_lost(exit).code())
}

fn run(terminal: &Terminal, cli: &Cli) -> Exit {
    let global = &cli.global;
    let done = match &cli.command {
        Command::Assemble(args) if args.interval.is_some() => interval::run(terminal, global, args),
        Command::Assemble(args) => Ok(rounds::run(terminal, global, args)),
        Command::Status(args) => Ok(status::run(terminal, global, args)),
        Command::Issue(args) => with_certbot::issue(terminal, global, args),
        Command::Renew(args) => with_certbot::renew(terminal, global, args),
        Command::Init(args) => init::run(terminal, global, args),
        Command::HaproxyConfig(args) => haproxy_config::run(terminal, global, args),
        Command::Fleet(command) => fleet::run::run(terminal, global, command),
        Command::Completions { shell } => completions::run(terminal, global, *shell),
    };
    done.unwrap_or_else(|failure| terminal.unable(&failure))
}
