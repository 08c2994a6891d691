//! Which HAProxys these are: a PEM that one refused may be taken by another program, by the same one with another
//! configuration, or after a restart or a reload.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::certified_key::{hex, sha256};
use crate::config::Haproxy;
use crate::world::World;

use super::process::Proc;
use super::{as_started, sight};

/// A digest of what is cheaply known of them, without a word to their sockets: their programs, the files by which they
/// judge a PEM, and since when their masters and newest workers run.
#[must_use]
pub fn identity(world: &World, haproxys: &[Haproxy]) -> String {
    let proc = Proc::new(world);
    let mut facts = String::new();
    for haproxy in haproxys {
        let program = haproxy.binary.as_ref().and_then(|name| world.program(name));
        for file in program.into_iter().chain(as_started::sources(world, haproxy)) {
            describe(&file, &mut facts);
        }
        let Some(pid) = sight::master(world, haproxy) else { continue };
        let since = proc.stat(pid).map(|stat| stat.started).unwrap_or_default();
        let newest = proc.workers(pid).into_iter().max_by_key(|worker| (worker.started, worker.pid));
        let _ = writeln!(facts, "process {pid} since {since}, {newest:?}");
    }
    hex(&sha256(facts.as_bytes()))
}

/// A file by its size and time.
fn describe(path: &Path, facts: &mut String) {
    let Ok(meta) = fs::metadata(path) else { return };
    let _ = writeln!(facts, "{} {} {:?}", path.display(), meta.len(), meta.modified().ok());
}
