//! Settings that can't work: they name a program or a file that isn't there, a file of certbot's that holds something else,
//! or a place that a run can't write to. The next change would find that out, and nothing else mends it.

use std::cell::LazyCell;
use std::io::ErrorKind;
use std::path::Path;

use crate::certified_key::Flaw;
use crate::config::{Haproxy, Method, Settings};
use crate::plan::reason::Reason;
use crate::plan::row::Row;
use crate::sites::making;
use crate::sites::place::Place;
use crate::status::advice;
use crate::status::judge::Site;
use crate::status::observation::Sight;
use crate::status::problem::{Problem, problem};
use crate::status::severity::{ProblemKind, Severity};
use crate::sys::escape::{escaped, escaped_path};
use crate::sys::failure::FailureKind;
use crate::sys::system::System;

/// What a table has where nothing is set: that it isn't installed here isn't the settings' fault.
const USUAL_BINARY: &str = "haproxy";

/// A value of a table that leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Nowhere {
    /// The table's name.
    haproxy: String,
    /// The key.
    key: &'static str,
    /// What isn't there.
    what: &'static str,
    /// The value.
    value: String,
    /// Its line in the file, from 1, where it is found.
    line: Option<usize>,
}

/// What of these settings can't work.
#[must_use]
pub fn problems(settings: &Settings, system: &System, sites: &[Site]) -> Vec<Unworkable> {
    let found: Vec<Nowhere> = settings.haproxys.iter().flat_map(|haproxy| nowhere(haproxy, system)).collect();
    let text = || settings.file.as_deref().and_then(|file| std::fs::read_to_string(file).ok());
    let text = LazyCell::new(|| text().unwrap_or_default());
    let with_line = |it: Nowhere| Nowhere { line: line_of(&text, it.key, &it.value), ..it };
    let alone = |problem| Unworkable { problem, hinders: Hinders::Nothing };
    let nowhere = found.into_iter().map(|it| alone(judged(&with_line(it), settings.file.as_deref())));
    let of_top = |(key, value, fact, hinders): (&str, String, String, Hinders)| {
        let place = place(key, line_of(&text, key, &value), settings.file.as_deref());
        let advice = Some(format!("change {place}"));
        Unworkable { problem: problem(ProblemKind::SettingsBroken, Severity::Warning, fact, advice), hinders }
    };
    let parts = parts(settings, sites).into_iter().map(of_top);
    nowhere.chain(host_place(settings, system).map(of_top)).chain(parts).collect()
}

/// What a setting that can't work keeps from being mended by anything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hinders {
    /// Nothing that is judged elsewhere.
    Nothing,
    /// Every run.
    Runs,
    /// The lineages that are refused for this.
    Refused(Reason),
}

/// A setting that can't work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unworkable {
    /// What is said of it.
    pub problem: Problem,
    hinders: Hinders,
}

impl Unworkable {
    /// What helps against another problem in the place of what it advises, where that can't help while this is so.
    #[must_use]
    pub fn instead(&self, other: &Problem) -> Option<String> {
        let first = self.problem.advice.as_deref()?;
        let is_hindered = match self.hinders {
            Hinders::Nothing => false,
            Hinders::Runs => other.advice.as_deref() == Some(advice::ASSEMBLE),
            Hinders::Refused(reason) => other.kind == ProblemKind::Refused(reason),
        };
        is_hindered.then(|| format!("{first}; then {}", advice::ASSEMBLE))
    }
}

/// A host certificate's place that a run refuses.
fn host_place(settings: &Settings, system: &System) -> Option<(&'static str, String, String, Hinders)> {
    settings.host_lineage.as_ref()?;
    let sites = Place::open(&settings.sites_dir).ok()??;
    let failure = making::host_place(settings, system, &sites).err()?;
    let value = settings.host_file.to_string_lossy().into_owned();
    (failure.kind == FailureKind::Config).then_some(("host_file", value, failure.message, Hinders::Runs))
}

/// The names of certbot's files under which no lineage has what is looked for there.
fn parts(settings: &Settings, sites: &[Site]) -> Vec<(&'static str, String, String, Hinders)> {
    let certbots = |site: &&Site| site.views.lineage.is_some() && site.views.certbot != Sight::Absent;
    let reason = |site: &Site| site.views.row.as_ref().and_then(Row::reason);
    let of_all = |flaw| {
        let mut all = sites.iter().filter(certbots).peekable();
        all.peek().is_some() && all.all(|site| reason(site) == Some(Reason::Unproved(flaw)))
    };
    let keys = [
        ("key_file", &settings.key_file, "privkey.pem", Flaw::KeyMissing, "private key"),
        ("chain_file", &settings.chain_file, "fullchain.pem", Flaw::CertificateMissing, "certificate"),
    ];
    let is_wrong = |&(_, value, usual, flaw, _): &(_, &String, &str, Flaw, _)| value != usual && of_all(flaw);
    let said = |(key, value, _, flaw, what): (&'static str, &String, _, Flaw, &str)| {
        let fact = format!("{key} is {}, and no lineage has a {what} there", escaped(value));
        (key, value.clone(), fact, Hinders::Refused(Reason::Unproved(flaw)))
    };
    keys.into_iter().filter(is_wrong).map(said).collect()
}

/// What one table names.
fn nowhere(haproxy: &Haproxy, system: &System) -> Vec<Nowhere> {
    let of = |key, what, value: &str| Nowhere {
        haproxy: haproxy.name.clone(),
        key,
        what,
        value: value.to_owned(),
        line: None,
    };
    let has_none = |name: &&String| system.program(name).is_none();
    let binary = haproxy.binary.as_ref().filter(|name| *name != USUAL_BINARY).filter(has_none);
    let command = haproxy.command.first().filter(|_| haproxy.method == Method::Command).filter(has_none);
    let is_missing = |file: &&std::path::PathBuf| {
        let seen = file.metadata().err().map(|error| error.kind());
        matches!(seen, Some(ErrorKind::NotFound | ErrorKind::NotADirectory))
    };
    let config = haproxy.config.iter().filter(is_missing);
    let binary = binary.map(|name| of("binary", "program", name));
    let command = command.map(|name| of("command", "program", name));
    let config = config.map(|file| of("config", "file", &file.to_string_lossy()));
    binary.into_iter().chain(config).chain(command).collect()
}

/// The line that has this value, or else begins this key: the value of a list may be on another line than the key.
fn line_of(text: &str, key: &str, value: &str) -> Option<usize> {
    let quoted = [format!("\"{value}\""), format!("'{value}'")];
    let is_key = |line: &str| line.split('=').next().is_some_and(|word| word.trim() == key);
    let has_value = |line: &&str| {
        let code = line.trim_start();
        !code.starts_with('#') && quoted.iter().any(|quoted| code.contains(quoted))
    };
    let mut lines: Vec<(usize, &str)> =
        text.lines().enumerate().filter(|(_, line)| has_value(line)).collect();
    lines.sort_by_key(|(_, line)| !is_key(line));
    lines.first().map(|(at, _)| at + 1)
}

/// Where a value is to be changed.
fn place(key: &str, line: Option<usize>, file: Option<&Path>) -> String {
    match (line, file) {
        (Some(line), Some(file)) => format!("line {line} of {}", escaped_path(file)),
        (None, Some(file)) => format!("{key} in {}", escaped_path(file)),
        (_, None) => format!("{key} in the settings"),
    }
}

fn judged(it: &Nowhere, file: Option<&Path>) -> Problem {
    let Nowhere { haproxy, key, what, value, line } = it;
    let fact = format!(
        "{}: the settings name the {what} {} by {key}, and it isn't there or can't be run",
        escaped(haproxy),
        escaped(value)
    );
    let fact = if *what == "file" { fact.replace(" or can't be run", "") } else { fact };
    let place = place(key, *line, file);
    let advice = match *key {
        "command" => format!("change {place}, or put the program there"),
        _ => format!("change {place}, or leave {key} out"),
    };
    Problem {
        haproxy: Some(haproxy.clone()),
        ..problem(ProblemKind::SettingsBroken, Severity::Warning, fact, Some(advice))
    }
}

#[cfg(test)]
mod tests {
    use super::line_of;

    #[test]
    fn the_line_is_the_one_that_has_the_value() {
        let text = "# config = [\"/x\"]\n[[haproxy]]\nunit = \"/x\"\nconfig = [\"/x\"]\n\
                    [[haproxy]]\nconfig = [\n  '/y',\n]\n";
        assert_eq!(line_of(text, "config", "/x"), Some(4));
        assert_eq!(line_of(text, "config", "/y"), Some(7));
        assert_eq!(line_of(text, "binary", "/z"), None);
    }
}
