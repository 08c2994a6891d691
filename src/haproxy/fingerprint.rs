//! Which HAProxys these are: a PEM that one refused may be taken by another program, by the same one with another
//! configuration, or after a restart or a reload.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use super::process::sight;
use super::process::sources::sources;
use crate::certified_key::{hex, sha256};
use crate::config::Haproxy;
use crate::sys::change_time::changed_at;
use crate::sys::procfs::Proc;
use crate::sys::system::System;

/// What stands for a HAProxy that isn't in sight; behind it is a digest of what it will start from, where that is known.
const NOT_IN_SIGHT: char = '-';

/// A digest for each of them of what is cheaply known, without a word to its sockets: its program, the files by which it
/// judges a PEM, and since when its master and newest worker run. `last`: the configuration files that one that isn't in
/// sight was last seen to be started with, by its name in the settings.
#[must_use]
pub fn fingerprints<'a>(
    system: &System,
    haproxys: &[Haproxy],
    last: impl Fn(&str) -> &'a [PathBuf],
) -> String {
    let each: Vec<String> =
        haproxys.iter().map(|haproxy| of_one(system, haproxy, last(&haproxy.name))).collect();
    each.join(" ")
}

fn of_one(system: &System, haproxy: &Haproxy, last: &[PathBuf]) -> String {
    let proc = Proc::new(system);
    let mut facts = String::new();
    let program = haproxy.binary.as_ref().and_then(|name| system.program(name));
    let Some(pid) = sight::master(system, haproxy) else {
        let files = if haproxy.config.is_empty() { last } else { &haproxy.config };
        if files.is_empty() {
            return NOT_IN_SIGHT.to_string();
        }
        for file in program.iter().chain(files) {
            describe(file, &mut facts);
        }
        return format!("{NOT_IN_SIGHT}{}", hex(&sha256(facts.as_bytes())));
    };
    for file in program.into_iter().chain(sources(&proc, haproxy, pid)) {
        describe(&file, &mut facts);
    }
    let since = proc.stat(pid).map(|stat| stat.started).unwrap_or_default();
    let newest = proc.workers(pid).into_iter().max_by_key(|worker| (worker.started, worker.pid));
    let _ = writeln!(facts, "process {pid} since {since}, {newest:?}");
    hex(&sha256(facts.as_bytes()))
}

/// Whether what the HAProxys of `before` refused is still refused by those of `now`. One that isn't in sight has not
/// changed its mind, unless it refused when it wasn't either, and would start from something else now: when it starts it
/// may refuse the same.
#[must_use]
pub fn are_still(before: &str, now: &str) -> bool {
    let (before, now): (Vec<&str>, Vec<&str>) = (before.split(' ').collect(), now.split(' ').collect());
    before.len() == now.len()
        && before.iter().zip(&now).all(|(then, now)| {
            let is_away = now.starts_with(NOT_IN_SIGHT);
            then == now || is_away && (!then.starts_with(NOT_IN_SIGHT) || now.len() == 1)
        })
}

/// A file by its size and times: no program can set when it was changed.
fn describe(path: &Path, facts: &mut String) {
    let Ok(meta) = fs::metadata(path) else { return };
    let times = (meta.modified().ok(), changed_at(path));
    let _ = writeln!(facts, "{} {} {times:?}", path.display(), meta.len());
}

#[cfg(test)]
mod tests {
    use super::are_still;

    #[test]
    fn what_isnt_in_sight_has_not_changed_its_mind() {
        assert!(are_still("a", "a") && are_still("a", "-") && are_still("a b", "- b"));
        assert!(are_still("-1", "-1") && are_still("a", "-1") && are_still("-1", "-"));
        assert!(
            !are_still("a", "b")
                && !are_still("a b", "- c")
                && !are_still("-", "a")
                && !are_still("-1", "-2")
                && !are_still("a", "a b")
        );
    }
}
