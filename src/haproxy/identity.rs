//! Which HAProxys these are: a PEM that one refused may be taken by another program, by the same one with another
//! configuration, or after a restart.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use crate::certified_key::{hex, sha256};
use crate::config::Haproxy;
use crate::world::World;

use super::as_started::configuration_files;
use super::pidfile;
use super::process::Proc;

/// A digest of what is cheaply known of them: their programs, their configuration files, and since when their masters
/// run.
#[must_use]
pub fn identity(world: &World, haproxys: &[Haproxy]) -> String {
    let mut facts = String::new();
    for haproxy in haproxys {
        let program = haproxy.binary.as_ref().and_then(|name| world.program(name));
        let master = Master::of_pidfile(world, haproxy);
        let files = match &master {
            Some(master) if haproxy.config.is_empty() => master.files.as_slice(),
            _ => &haproxy.config,
        };
        for file in program.iter().chain(files) {
            describe(file, &mut facts);
        }
        if let Some(Master { pid, started, .. }) = master {
            let _ = writeln!(facts, "process {pid} since {started}");
        }
    }
    hex(&sha256(facts.as_bytes()))
}

/// The process of the pidfile, where it is a HAProxy.
struct Master {
    pid: i32,
    started: u64,
    files: Vec<PathBuf>,
}

impl Master {
    fn of_pidfile(world: &World, haproxy: &Haproxy) -> Option<Self> {
        let pid = pidfile::read(&haproxy.pidfile).ok().flatten()?;
        let proc = Proc::new(world);
        let stat = proc.stat(pid).ok().filter(|stat| proc.is_haproxy(pid, stat))?;
        let folder = fs::read_link(proc.path(pid, "cwd")).unwrap_or_default();
        let files = configuration_files(&proc.arguments(pid).unwrap_or_default());
        let files = files.into_iter().map(|file| folder.join(file)).collect();
        Some(Self { pid, started: stat.started, files })
    }
}

/// A file by its size and time, a directory by those of what is in it.
fn describe(path: &Path, facts: &mut String) {
    let Ok(meta) = fs::metadata(path) else { return };
    if !meta.is_dir() {
        let _ = writeln!(facts, "{} {} {:?}", path.display(), meta.len(), meta.modified().ok());
        return;
    }
    let mut entries: Vec<PathBuf> =
        fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    entries.sort();
    for entry in entries.iter().filter(|entry| entry.is_file()) {
        describe(entry, facts);
    }
}
