//! Settings that can't work: they name a program or a file that isn't there. The next change would find that out.

use std::io::ErrorKind;
use std::path::Path;

use crate::config::{Haproxy, Method, Settings};
use crate::status::problem::{Problem, problem};
use crate::status::severity::{ProblemKind, Severity};
use crate::sys::escape::{escaped, escaped_path};
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

/// What these settings name that isn't there.
#[must_use]
pub fn problems(settings: &Settings, system: &System) -> Vec<Problem> {
    let found: Vec<Nowhere> = settings.haproxys.iter().flat_map(|haproxy| nowhere(haproxy, system)).collect();
    if found.is_empty() {
        return Vec::new();
    }
    let text = settings.file.as_deref().and_then(|file| std::fs::read_to_string(file).ok());
    let text = text.unwrap_or_default();
    let with_line = |it: Nowhere| Nowhere { line: line_of(&text, it.key, &it.value), ..it };
    found.into_iter().map(|it| judged(&with_line(it), settings.file.as_deref())).collect()
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

fn judged(it: &Nowhere, file: Option<&Path>) -> Problem {
    let Nowhere { haproxy, key, what, value, line } = it;
    let fact = format!(
        "{}: the settings name the {what} {} by {key}, and it isn't there or can't be run",
        escaped(haproxy),
        escaped(value)
    );
    let fact = if *what == "file" { fact.replace(" or can't be run", "") } else { fact };
    let place = match (line, file) {
        (Some(line), Some(file)) => format!("line {line} of {}", escaped_path(file)),
        (None, Some(file)) => format!("{key} in {}", escaped_path(file)),
        (_, None) => format!("{key} in the settings"),
    };
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
