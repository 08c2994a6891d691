//! `init`: makes a host ready, and is safe to repeat.
//!
//! [`found::look`] gathers facts, [`preparation::plan`] decides (pure), [`making::carry_out`] does: what is there already is
//! only said.

pub mod adopting;
pub mod found;
mod left;
pub mod lines;
pub mod making;
pub mod preparation;

use std::fs;
use std::path::{Path, absolute};

use self::adopting::{Loads, plan_adoption, plan_config};
use self::found::{Places, look};
use self::left::Left;
use self::lines::{dry_lines, left_lines};
use self::making::carry_out;
use self::preparation::plan;
use crate::cli::{Global, Init};
use crate::config::{DEFAULT_FILE, Settings};
use crate::haproxy::tableless::tableless;
use crate::host_setup::adopt::{self, Proposal};
use crate::host_setup::settings_file::{COMMENTS, Values, filled_in, quoted};
use crate::output::Exit;
use crate::output::terminal::Terminal;
use crate::sites::looking;
use crate::sys::escape::escaped_path;
use crate::sys::failure::Failure;
use crate::sys::system::System;

/// Runs `init`.
///
/// # Errors
/// The settings can't be used, or something can't be made.
pub fn run(terminal: &Terminal, global: &Global, args: &Init) -> Result<Exit, Failure> {
    let system = System::host();
    let (settings, plan) = if args.write_config {
        // By no file: this one is only to be made, or mended by hand.
        let settings = global
            .settings(None)
            .or_else(|_| Settings::without_file(global.config_file(), &global.overrides(None)))
            .map_err(|why| Failure::config(why.to_string()))?;
        let file = global.config_file().unwrap_or(Path::new(DEFAULT_FILE));
        let there = fs::symlink_metadata(file).ok().map(|_| fs::read(file).unwrap_or_default());
        let proposal = adopt::look(&settings, &system, global.sites_dir.is_some());
        let others = proposal.is_none().then(|| adopt::loads_others(&settings, &system)).flatten();
        let loads = Loads { proposal: proposal.as_ref(), others };
        let mut plan = plan_config(file, there.as_deref(), &given(global)?, loads);
        let written = plan.configuration(there.as_deref());
        let then =
            written.and_then(|text| Some((text, Settings::parse(text, &global.overrides(None)).ok()?)));
        let left = then.map(|(text, then)| without_table(&then, &system, file, text.as_bytes()));
        // Before what comes last.
        let place = plan.left.len().saturating_sub(1);
        plan.left.splice(place..place, left.unwrap_or_default());
        (settings, plan)
    } else {
        let settings = global.settings(None)?;
        let is_told = global.sites_dir.is_some() || settings.file.as_ref().is_some_and(|file| file.exists());
        let proposal = adopt::look(&settings, &system, false).filter(|_| !is_told);
        let plan = if let Some(proposal) = proposal {
            let mut plan = plan_adoption(&proposal);
            plan.left.splice(0..0, without_table_yet(&proposal, global, &system));
            plan
        } else {
            let mut plan = plan(&settings, &look(&settings, &system, &Places::host()?, args.hook), args.hook);
            let file = settings.file.as_deref().unwrap_or(Path::new(DEFAULT_FILE));
            let text = fs::read(file).unwrap_or_default();
            plan.left.extend(without_table(&settings, &system, file, &text));
            plan
        };
        (settings, plan)
    };
    if args.dry_run {
        terminal.print_lines(dry_lines(&plan));
    } else {
        carry_out(&settings, &system, &plan, &mut |line| terminal.print_lines(vec![line]))?;
    }
    terminal.print_advice(&settings, left_lines(&plan));
    if let Some(path) = global.config_file().filter(|path| *path != Path::new(DEFAULT_FILE)) {
        let path = escaped_path(path);
        terminal.complain(&format!("note: certbot's hook and the timer read {DEFAULT_FILE}, not {path}"));
    }
    Ok(if plan.is_blocked() { Exit::Partly } else { Exit::Fine })
}

/// What is left to do for HAProxys that load the directory of these settings and have no table in this file.
fn without_table(settings: &Settings, system: &System, file: &Path, text: &[u8]) -> Vec<Left> {
    let place = looking::look_at(settings, system).ok().flatten();
    let state = place.and_then(|place| looking::look_at_state(&place).ok());
    let found = tableless(system, settings, state.as_ref());
    found.iter().map(|found| Left::without_table(found, settings, file, text)).collect()
}

/// The same where the settings are only proposed: the command is said once they are written.
fn without_table_yet(proposal: &Proposal, global: &Global, system: &System) -> Vec<Left> {
    let (top, table) = proposal.keys();
    let then = Settings::parse(&filled_in(COMMENTS, &top, &table), &global.overrides(None));
    let facts = |then: Settings| -> Vec<Left> {
        tableless(system, &then, None).iter().map(|found| Left::new(found.fact(&then), &[])).collect()
    };
    then.map(facts).unwrap_or_default()
}

/// The settings that the command line gives.
///
/// # Errors
/// One of them can't be written into a configuration file.
fn given(global: &Global) -> Result<Values, Failure> {
    let flags = global.overrides(None);
    let given = [("live_dir", flags.live_dir), ("sites_dir", flags.sites_dir)];
    let given = given.into_iter().filter_map(|(key, path)| Some((key, path?)));
    let value = |path: &Path| {
        let path = absolute(path).ok()?;
        path.to_str().map(quoted)
    };
    let written = given.map(|(key, path)| match value(&path) {
        Some(value) => Ok((key, value)),
        None => Err(Failure::config(format!(
            "{key} can't be written into a configuration file: {} isn't UTF-8",
            escaped_path(&path)
        ))),
    });
    written.collect()
}
