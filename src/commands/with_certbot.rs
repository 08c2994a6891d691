//! `issue` and `renew` as they are typed: certbot runs, and then a sweep.

use std::ffi::OsString;

use crate::cli::{Assemble, Global, Issue, Renew};
use crate::commands::issue::{CertbotCall, Deed, address_advice, passed_on};
use crate::commands::rounds;
use crate::output::Exit;
use crate::output::human::{Line, Tone};
use crate::output::terminal::Terminal;
use crate::sys::failure::Failure;
use crate::sys::system::System;

/// Runs `issue`.
///
/// # Errors
/// certbot can't be run.
pub fn issue(terminal: &Terminal, global: &Global, args: &Issue) -> Result<Exit, Failure> {
    run(terminal, global, Deed::Issue(&args.domains), &args.certbot)
}

/// Runs `renew`.
///
/// # Errors
/// certbot can't be run.
pub fn renew(terminal: &Terminal, global: &Global, args: &Renew) -> Result<Exit, Failure> {
    run(terminal, global, Deed::Renew, &args.certbot)
}

/// Where certbot failed its exit status is passed on.
fn run(terminal: &Terminal, global: &Global, deed: Deed<'_>, more: &[OsString]) -> Result<Exit, Failure> {
    let settings = global.settings(None)?;
    let call = CertbotCall::new(&settings, &System::host(), deed, more)?;
    if global.verbose {
        terminal.print_line(&format!("run        {call}"));
    }
    let status = call.run()?;
    if !status.success() && !deed.sweeps_after_failure() {
        terminal.complain("certbot failed; nothing was deployed");
        return Ok(Exit::Certbot(passed_on(status)));
    }
    let exit = rounds::run(terminal, global, &Assemble::default());
    if !status.success() {
        return Ok(Exit::Certbot(passed_on(status)));
    }
    if let Deed::Issue(names) = deed {
        let advice = address_advice(&settings, names, more);
        let line = advice.map(|text| Line { tone: Tone::Wary, text: format!("left to do {text}") });
        terminal.print_lines(line.into_iter().collect());
    }
    Ok(exit)
}
