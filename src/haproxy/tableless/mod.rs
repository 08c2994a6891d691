//! HAProxys that load the sites directory, and that no `[[haproxy]]` table is about: nobody tells them of a renewal.

mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use self::table::Proposed;
use crate::config::{DEFAULT_FILE, Haproxy, Marks, Overrides, Settings};
use crate::haproxy::process::started::Started;
use crate::haproxy::process::twin::twins;
use crate::haproxy::process::{families, pidfile};
use crate::serving::contents::identity;
use crate::serving::loads::{Bind, Identity, Serving, Store};
use crate::serving::set_up::set_up_of;
use crate::serving::sites::is_in;
use crate::sites::state::State;
use crate::sys::escape::{escaped, escaped_path, shell_word};
use crate::sys::procfs::Proc;
use crate::sys::system::System;

/// A HAProxy without a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tableless {
    /// Its process: the master, where it has one.
    pub pid: i32,
    /// Where it listens with certificates of the directory, as its configuration says.
    pub addresses: Vec<String>,
    /// The table that it needs, line by line; `None`: it has files of its own, as in a container.
    pub table: Option<Vec<String>>,
    /// What it has to be started with so that the table leads to it.
    pub option: Option<String>,
    /// The process of another one whose table comes first: what this one needs is known then.
    pub after: Option<i32>,
}

/// The HAProxys that run, load the directory, listen, and are surely those of no table, neither of these settings nor of
/// others that share the directory. Nothing is claimed while one of the tables has no HAProxy in sight: it may be that one's.
#[must_use]
pub fn tableless(system: &System, settings: &Settings, state: Option<&State>) -> Vec<Tableless> {
    let proc = Proc::new(system);
    let Some(sites) = identity(&settings.sites_dir) else { return Vec::new() };
    let families = families::of_haproxys(&proc);
    if families.len() < 2 {
        return Vec::new();
    }
    let Some(tables) = tables(settings, state) else { return Vec::new() };
    // The words of a configuration are read before anything else is: most have nothing to do with this directory.
    let may_load = |first: i32| {
        Started::read(&proc, first).filter(|it| it.may_load(&proc, &[&settings.sites_dir]) != Some(false))
    };
    let mut others: BTreeMap<i32, (Started, &Vec<i32>)> =
        families.iter().filter_map(|(&first, all)| Some((first, (may_load(first)?, all)))).collect();
    for marks in &tables {
        others.retain(|first, (_, all)| !leads_to(&proc, marks, *first, all));
    }
    others.retain(|_, (_, all)| families::listens(&proc, all));
    if others.is_empty() {
        return Vec::new();
    }
    // What is said of these is that one of them is to be ended.
    for twins in settings.haproxys.iter().filter_map(|haproxy| twins(system, haproxy)) {
        others.remove(&twins.other);
    }
    // One that loads nothing of ours has the usual pidfile, and the table's own isn't in sight.
    let loads = |pid: &i32| {
        Started::read(&proc, *pid)
            .and_then(|started| set_up_of(&started, sites))
            .is_none_or(|(_, serving)| !addresses(settings, &serving, sites).is_empty())
    };
    let is_in_sight = |marks: &Marks| {
        families.iter().any(|(first, all)| leads_to(&proc, marks, *first, all) && loads(first))
    };
    if !tables.iter().all(is_in_sight) {
        return Vec::new();
    }
    let names: BTreeSet<String> = settings.haproxys.iter().map(|it| it.name.clone()).collect();
    let mut found: Vec<Tableless> = Vec::new();
    for (started, _) in others.into_values() {
        let Some((configuration, serving)) = set_up_of(&started, sites) else { continue };
        let addresses = addresses(settings, &serving, sites);
        if addresses.is_empty() {
            continue;
        }
        // What the next one needs is known once the first one has its table.
        let after = found.first().map(|first| first.pid);
        let proposed =
            || table::proposed(&proc, &started, &configuration, &table::name(&started, &names), &tables);
        let Proposed { lines: table, option } =
            if after.is_none() { proposed() } else { Proposed::default() };
        found.push(Tableless { pid: started.pid, addresses, table, option, after });
    }
    found
}

/// What the HAProxys of all tables are known by; `None`: another settings file can't be read.
fn tables(settings: &Settings, state: Option<&State>) -> Option<Vec<Marks>> {
    let own = settings.file.as_deref();
    let files = state.into_iter().flat_map(|state| state.elsewhere.keys().map(Path::new));
    let others = files.filter(|file| !file.as_os_str().is_empty() && Some(*file) != own);
    let mut tables: Vec<Marks> = settings.haproxys.iter().map(Haproxy::marks).collect();
    for file in others.filter(|file| file.exists()) {
        let others = Settings::load(Some(file), &Overrides::default()).ok()?;
        tables.extend(others.haproxys.iter().map(Haproxy::marks));
    }
    Some(tables)
}

/// Whether these marks lead to this HAProxy.
fn leads_to(proc: &Proc, marks: &Marks, first: i32, all: &[i32]) -> bool {
    let named = pidfile::haproxy(proc, &marks.pidfile);
    let bears = |pid: i32| Started::read(proc, pid).is_some_and(|it| it.mark(proc, marks).is_some());
    named.is_some_and(|pid| pid == first || all.contains(&pid))
        || bears(first)
        || all.iter().any(|&pid| bears(pid))
}

/// Where it presents certificates of the directory.
fn addresses(settings: &Settings, serving: &Serving, sites: Identity) -> Vec<String> {
    let is_ours = |store: &Store| is_in(&settings.sites_dir, Some(sites), store);
    let loads = |bind: &&Bind| {
        bind.loads.iter().any(|load| serving.is_directory(load, sites))
            || bind.entries().any(|entry| serving.stores.get(&entry.store).is_some_and(is_ours))
    };
    let binds = serving.binds.iter().filter(|bind| bind.serves()).filter(loads);
    binds.map(|bind| bind.addresses.clone()).collect()
}

impl Tableless {
    /// The fact, and what it comes to.
    #[must_use]
    pub fn fact(&self, settings: &Settings) -> String {
        let addresses: Vec<String> = self.addresses.iter().map(|it| escaped(it).to_string()).collect();
        format!(
            "the HAProxy of process {} loads {} ({}), and no [[haproxy]] table is about it: it serves what it has loaded \
             until somebody reloads it",
            self.pid,
            escaped_path(&settings.sites_dir),
            addresses.join(", ")
        )
    }

    /// What adds its table to a settings file that holds this; `None`: only the operator knows.
    #[must_use]
    pub fn command(&self, file: &Path, text: &[u8]) -> Option<String> {
        let has_table =
            text.split(|&byte| byte == b'\n').any(|line| line.trim_ascii().starts_with(b"[[haproxy]]"));
        // Without any there is one with the defaults; the first table takes its place.
        let first = if has_table { None } else { Some("[[haproxy]]") };
        let lines = self.table.as_ref()?.iter().map(String::as_str);
        let words = std::iter::once("").chain(first).chain(lines).map(|line| shell_word(OsStr::new(line)));
        let words: Vec<String> = words.collect();
        Some(format!("printf '%s\\n' {} >> {}", words.join(" "), shell_word(file.as_os_str())))
    }

    /// What to do, with commands that can be pasted.
    #[must_use]
    pub fn advice(&self, settings: &Settings) -> String {
        if let Some(other) = self.after {
            return format!("add a [[haproxy]] table for the HAProxy of process {other} first");
        }
        let file = settings.file.as_deref().unwrap_or(Path::new(DEFAULT_FILE));
        let Some(command) = self.command(file, &fs::read(file).unwrap_or_default()) else {
            return "add a [[haproxy]] table for it (CONTAINERS AND CHROOTS in haproxy-certs(7))".to_owned();
        };
        let start = self.option.as_ref().map(|option| format!("start it with {option} besides; then "));
        format!("{}run: {command}; then run: haproxy-certs assemble", start.unwrap_or_default())
    }
}
