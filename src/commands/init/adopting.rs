//! The configuration file that `--write-config` makes, by what HAProxy loads already. Pure.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::ffi::OsStr;
use std::path::Path;

use super::left::Left;
use super::preparation::{Fate, Item, Preparation};
use crate::host_setup::adopt::Proposal;
use crate::host_setup::settings_file::{COMMENTS, Values, filled_in, quoted, settings_in};
use crate::serving::loads::At;
use crate::sys::escape::{escaped, escaped_path, shell_word};

/// What the HAProxy of a host loads that has no settings yet.
#[derive(Debug, Clone, Default)]
pub struct Loads<'a> {
    /// What fits it, as settings.
    pub proposal: Option<&'a Proposal>,
    /// Where nothing does: which certificates it loads, and what to do.
    pub others: Option<String>,
}

/// What `--write-config` makes: a file to edit, before anything is made by it, with what was given; with a proposal, by what
/// HAProxy loads already. One that was edited stays. `there`: what the file holds, where there is one.
pub fn plan_config(
    file: &Path,
    there: Option<&[u8]>,
    given: &Values,
    Loads { proposal, others }: Loads<'_>,
) -> Preparation {
    let elsewhere = proposal.filter(|proposal| proposal.is_elsewhere);
    let proposal = proposal.filter(|proposal| !proposal.is_elsewhere);
    let (mut top, table) = proposal.map(Proposal::keys).unwrap_or_default();
    for (key, value) in given {
        if top.iter().all(|(there, _)| there != key) {
            top.push((key, value.clone()));
        }
    }
    let text = filled_in(COMMENTS, &top, &table);
    let is_unedited = there == Some(COMMENTS.as_bytes()) && text != COMMENTS;
    let fate = if is_unedited || there.is_none() { Fate::Make } else { Fate::There };
    let fact = proposal.map(Proposal::fact);
    let mut left = Vec::new();
    let lines = settings_in(&text);
    if fate == Fate::There && !lines.is_empty() && there != Some(text.as_bytes()) {
        let edited = format!("{} was edited: these settings would fit", escaped_path(file));
        let edited = fact.iter().fold(edited, |edited, fact| format!("{fact}; {edited}"));
        left.push(Left::new(edited, &lines));
    }
    left.extend(proposal.and_then(others_left));
    left.extend(proposal.and_then(deaf));
    left.extend(proposal.and_then(one_by_one_left));
    left.extend(elsewhere.map(mounted));
    left.extend(others.map(|others| Left::new(others, &[])));
    left.push(Left::new(
        "look through it, see what a run would do, then make this host ready",
        &["haproxy-certs assemble --dry-run -v", "haproxy-certs init --hook"],
    ));
    Preparation { items: vec![(Item::Config { file: file.to_owned(), text, fact }, fate)], left }
}

/// What is proposed on a host without a configuration file whose HAProxy loads a directory already: nothing is made before
/// somebody has said which directory is meant.
pub fn plan_adoption(proposal: &Proposal) -> Preparation {
    if proposal.is_elsewhere {
        let next = Left::new("write a file to set that in", &["haproxy-certs init --write-config"]);
        return Preparation { items: Vec::new(), left: vec![mounted(proposal), next] };
    }
    let next = Left::new(
        format!("{}; let haproxy-certs look after it", proposal.fact()),
        &[
            "haproxy-certs init --write-config",
            "haproxy-certs assemble --dry-run -v",
            "haproxy-certs init --hook",
        ],
    );
    Preparation {
        items: Vec::new(),
        left: [others_left(proposal), deaf(proposal), one_by_one_left(proposal), Some(next)]
            .into_iter()
            .flatten()
            .collect(),
    }
}

/// What is to be said of a HAProxy whose paths aren't this host's: only the operator knows what is mounted there.
fn mounted(proposal: &Proposal) -> Left {
    let text = format!(
        "{}; set sites_dir to the directory of this host that is mounted there, and this; CONTAINERS AND CHROOTS in \
         haproxy-certs(7) has the other settings",
        proposal.fact()
    );
    Left::new(text, &["[[haproxy]]", &format!("sites_dir = {}", quoted(&proposal.sites_dir))])
}

/// What is to be said of other directories than the proposed one: a run looks after one of them.
fn others_left(proposal: &Proposal) -> Option<Left> {
    let named: Vec<String> =
        proposal.others.iter().map(|(directory, at)| format!("{} ({at})", escaped(directory))).collect();
    let text = format!(
        "HAProxy also loads {}: one directory is looked after; to choose another one than {}",
        named.join(", "),
        escaped(&proposal.sites_dir)
    );
    let command = |(directory, _): &(String, At)| {
        format!("haproxy-certs --sites-dir {} init --write-config", shell_word(OsStr::new(directory)))
    };
    let commands: Vec<String> = proposal.others.iter().map(command).collect();
    let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
    (!commands.is_empty()).then(|| Left::new(text, &commands))
}

/// What is to be said of a HAProxy that nothing can make reload.
fn deaf(proposal: &Proposal) -> Option<Left> {
    let lines: Vec<&str> = proposal.deaf.iter().map(String::as_str).collect();
    let text = "nothing can make HAProxy reload; start it like this, and say so in [[haproxy]]";
    (!lines.is_empty()).then(|| Left::new(text, &lines))
}

/// What is to be said where lines name the directory's files one by one: no list is generated.
fn one_by_one_left(proposal: &Proposal) -> Option<Left> {
    let example = proposal.one_by_one.as_ref()?;
    let text = format!(
        "a new certificate needs a line of its own, else it is deployed and not served (not-listed, says haproxy-certs \
         status): for example.org {}",
        example.advice("example.org.pem".as_ref())
    );
    Some(Left::new(text, &[]))
}
