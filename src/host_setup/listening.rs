//! Who listens at a TCP port: the sockets that the kernel shows, and the process that has one of them open.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use crate::sys::escape::escaped;
use crate::sys::system::System;

/// A process that listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listener {
    /// Its process id.
    pub(crate) pid: i32,
    /// Its name, as the kernel has it.
    pub(crate) program: String,
}

impl std::fmt::Display for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (process {})", escaped(&self.program), self.pid)
    }
}

/// Who listens at this port, of those whom we may look at.
pub(crate) fn at(system: &System, port: u16) -> Option<Listener> {
    let inodes: HashSet<String> = ["tcp", "tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(system.proc.join("self/net").join(table)).ok())
        .flat_map(|table| listening(&table, port))
        .collect();
    if inodes.is_empty() {
        return None;
    }
    let processes = fs::read_dir(&system.proc).ok()?.flatten();
    let mut pids: Vec<i32> = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    pids.into_iter().find_map(|pid| {
        let folder = system.proc.join(pid.to_string());
        has_one(&folder, &inodes).then(|| Listener { pid, program: program(&folder) })
    })
}

/// The inodes of the sockets that listen at this port: `sl local remote st ... inode` (proc(5); state 0A is LISTEN).
fn listening(table: &str, port: u16) -> Vec<String> {
    let ending = format!(":{port:04X}");
    let inode = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let is_it = fields.get(1)?.ends_with(&ending) && *fields.get(3)? == "0A";
        is_it.then(|| fields.get(9).map(|inode| (*inode).to_owned()))?
    };
    table.lines().skip(1).filter_map(inode).collect()
}

fn has_one(process: &Path, inodes: &HashSet<String>) -> bool {
    let links = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    links.filter_map(|entry| fs::read_link(entry.path()).ok()).any(|link| {
        let name = link.to_string_lossy();
        let inode = name.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
        inode.is_some_and(|inode| inodes.contains(inode))
    })
}

/// A script is named by its own name, not by its interpreter's: certbot's is python3.
fn program(process: &Path) -> String {
    let name = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    let line = fs::read(process.join("cmdline")).unwrap_or_default();
    let line = String::from_utf8_lossy(&line).into_owned();
    let mut words = line.split('\0').filter(|word| !word.is_empty());
    let first = words.next().map(name).unwrap_or_default();
    let script = words.find(|word| !word.starts_with('-')).filter(|word| word.starts_with('/')).map(name);
    match script {
        Some(script) if first.starts_with("python") || first.ends_with("sh") || first.starts_with("perl") => {
            script
        }
        _ if first.is_empty() => {
            fs::read_to_string(process.join("comm")).unwrap_or_default().trim().to_owned()
        }
        _ => first,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn our_own_listener_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let found = at(&System::host(), port).unwrap();
        assert_eq!(found.pid, i32::try_from(std::process::id()).unwrap());
        drop(listener);
    }
}
