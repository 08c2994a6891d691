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

use self::adopting::{plan_adoption, plan_config};
use self::found::{Places, look};
use self::lines::{dry_lines, left_lines};
use self::making::carry_out;
use self::preparation::plan;
use crate::cli::{Global, Init};
use crate::config::{DEFAULT_FILE, Settings};
use crate::host_setup::adopt;
use crate::host_setup::settings_file::{Values, quoted};
use crate::output::Exit;
use crate::output::terminal::Terminal;
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
        let plan = plan_config(file, there.as_deref(), &given(global)?, proposal.as_ref());
        (settings, plan)
    } else {
        let settings = global.settings(None)?;
        let is_told = global.sites_dir.is_some() || settings.file.as_ref().is_some_and(|file| file.exists());
        let proposal = adopt::look(&settings, &system, false).filter(|_| !is_told);
        let plan = match proposal {
            Some(proposal) => plan_adoption(&proposal),
            None => plan(&settings, &look(&settings, &system, &Places::host()?, args.hook), args.hook),
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
