//! What is said of a preparation, as lines. Pure.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::preparation::{Fate, Item, Preparation};
use crate::host_setup::settings_file::settings_in;
use crate::output::human::{Line, Tone};
use crate::sys::escape::{escaped, escaped_path};

/// What is said of a plan that isn't carried out.
#[must_use]
pub fn dry_lines(plan: &Preparation) -> Vec<Line> {
    let lines = plan
        .items
        .iter()
        .flat_map(|(item, fate)| std::iter::once(line(item, fate, true)).chain(settings_shown(item, fate)));
    lines.collect()
}

/// The settings that are written into a configuration file, one a line.
pub(super) fn settings_shown(item: &Item, fate: &Fate) -> Vec<Line> {
    match (item, fate) {
        (Item::Config { text, .. }, Fate::Make) => settings_in(text)
            .into_iter()
            .map(|text| Line { tone: Tone::Plain, text: format!("           {}", escaped(text)) })
            .collect(),
        _ => Vec::new(),
    }
}

/// What is left to do, as lines.
#[must_use]
pub fn left_lines(plan: &Preparation) -> Vec<Line> {
    let lines = plan.left.iter().flat_map(|left| {
        let command = |command: &String| Line { tone: Tone::Plain, text: format!("       -> {command}") };
        let text = Line { tone: Tone::Wary, text: format!("left to do {}", left.text) };
        std::iter::once(text).chain(left.commands.iter().map(command))
    });
    lines.collect()
}

pub(super) fn line(item: &Item, fate: &Fate, dry_run: bool) -> Line {
    let (tone, word) = match fate {
        Fate::There => (Tone::Plain, "there"),
        Fate::Make if dry_run => (Tone::Good, "to make"),
        Fate::Make => (Tone::Good, "made"),
        Fate::Blocked(_) => (Tone::Bad, "left alone"),
    };
    let made = *fate == Fate::Make;
    let what = match item {
        Item::Config { file, fact: Some(fact), .. } if made => {
            format!("{} (the settings; {fact})", escaped_path(file))
        }
        Item::Config { file, text, .. } if made && settings_in(text).is_empty() => {
            format!("{} (the settings; all of them are comments)", escaped_path(file))
        }
        Item::Config { file, .. } => format!("{} (the settings)", escaped_path(file)),
        Item::SitesDir(path) => format!("{} (the sites directory)", escaped_path(path)),
        Item::OwnDir(path) => {
            format!("{} (what haproxy-certs remembers; from now on its timer deploys)", escaped_path(path))
        }
        Item::HostFile(path) if made => {
            format!("{} (the host certificate: a self-signed placeholder)", escaped_path(path))
        }
        Item::HostFile(path) => format!("{} (the host certificate)", escaped_path(path)),
        Item::Hook { link, program } => {
            format!("{} (certbot's hook, a link to {})", escaped_path(link), escaped_path(program))
        }
        Item::Cache(path) => format!("{} (the fleet's cache)", escaped_path(path)),
        Item::DropIn { unit, file, .. } => {
            format!("{} (tells {} of these directories)", escaped_path(file), unit.name())
        }
    };
    let why = match fate {
        Fate::Blocked(why) => format!(": {}", escaped(why)),
        _ => String::new(),
    };
    Line { tone, text: format!("{word:<10} {what}{why}") }
}
