//! `issue` and `renew` as they are typed: certbot runs, and then a sweep.

use std::process::ExitStatus;

use crate::cli::{Assemble, Global, Issue, Renew};
use crate::commands::certbot_call::{CertbotCall, Deed, address_advice, passed_on};
use crate::commands::rounds;
use crate::host_setup::fleet_part::FleetPart;
use crate::output::Exit;
use crate::output::human::{Line, Tone};
use crate::output::terminal::Terminal;
use crate::sys::escape::escaped;
use crate::sys::failure::Failure;
use crate::sys::system::System;

/// Runs `issue`; where certbot failed its exit status is passed on.
///
/// # Errors
/// certbot can't be run.
pub fn issue(terminal: &Terminal, global: &Global, args: &Issue) -> Result<Exit, Failure> {
    let settings = global.settings(None)?;
    let part = FleetPart::of(&settings);
    let calls = if args.both_keys {
        CertbotCall::for_both_keys(&settings, &System::host(), &args.domains, &args.certbot)?.into()
    } else {
        vec![CertbotCall::new(&settings, &System::host(), Deed::Issue(&args.domains), &args.certbot)?]
    };
    let mut failed = None;
    for (issued, call) in calls.iter().enumerate() {
        let status = run(terminal, global, call)?;
        if status.success() {
            continue;
        }
        if issued == 0 {
            terminal.complain(&format!("certbot failed; nothing was {}", part.deeds()));
            return Ok(Exit::Certbot(passed_on(status)));
        }
        let missing = call.lineage().unwrap_or_default();
        terminal.complain(&format!(
            "certbot failed for the RSA key: the certificate {} is missing, and what it issued before is {}; once the cause \
             is mended, run the same command again, which leaves the other certificate as it is",
            escaped(&missing),
            part.deeds()
        ));
        failed = Some(Exit::Certbot(passed_on(status)));
    }
    let exit = rounds::run(terminal, global, &Assemble::default());
    // Where it is only published other hosts present it.
    if failed.is_none() && part != FleetPart::OnlyPublisher {
        let advice = address_advice(&settings, &args.domains, &args.certbot);
        let line = advice.map(|text| Line { tone: Tone::Wary, text: format!("left to do {text}") });
        terminal.print_lines(line.into_iter().collect());
    }
    Ok(failed.unwrap_or(exit))
}

/// Runs `renew`; where certbot failed its exit status is passed on.
///
/// # Errors
/// certbot can't be run.
pub fn renew(terminal: &Terminal, global: &Global, args: &Renew) -> Result<Exit, Failure> {
    let call = CertbotCall::new(&global.settings(None)?, &System::host(), Deed::Renew, &args.certbot)?;
    let status = run(terminal, global, &call)?;
    // It fails when one of many renewals does, and the others are to be deployed nevertheless.
    let exit = rounds::run(terminal, global, &Assemble::default());
    Ok(if status.success() { exit } else { Exit::Certbot(passed_on(status)) })
}

fn run(terminal: &Terminal, global: &Global, call: &CertbotCall) -> Result<ExitStatus, Failure> {
    if global.verbose {
        terminal.print_line(&format!("run        {call}"));
    }
    call.run()
}
