//! The files that say what a HAProxy loads, and by which it judges a PEM.

use std::fs;
use std::path::PathBuf;

use super::environment::{OPENSSL_CONF, variables};
use super::sight;
use crate::config::Haproxy;
use crate::haproxy::process::started::Started;
use crate::sys::procfs::Proc;
use crate::sys::system::System;

/// Where OpenSSL's configuration is on most systems, and where it is otherwise (`openssl version -d`).
const USUAL: [&str; 3] = ["/etc/ssl/openssl.cnf", "/etc/pki/tls/openssl.cnf", "/usr/local/ssl/openssl.cnf"];

/// The configuration files of this HAProxy: those that the settings name, else those that its master was started with.
pub(crate) fn configuration(system: &System, haproxy: &Haproxy) -> Vec<PathBuf> {
    if !haproxy.config.is_empty() {
        return haproxy.config.clone();
    }
    sight::master(system, haproxy).map_or_else(Vec::new, |pid| started_with(&Proc::new(system), pid))
}

fn started_with(proc: &Proc, pid: i32) -> Vec<PathBuf> {
    Started::read(proc, pid).map(|it| it.paths().collect()).unwrap_or_default()
}

/// All files by which this HAProxy, whose master or only process is `pid`, judges a PEM: its configuration, a directory's
/// files each, and OpenSSL's.
pub(crate) fn sources(proc: &Proc, haproxy: &Haproxy, pid: i32) -> Vec<PathBuf> {
    let configuration =
        if haproxy.config.is_empty() { started_with(proc, pid) } else { haproxy.config.clone() };
    let mut files = Vec::new();
    for path in configuration {
        if !path.is_dir() {
            files.push(path);
            continue;
        }
        let mut entries: Vec<PathBuf> =
            fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        entries.sort();
        files.extend(entries.into_iter().filter(|entry| entry.is_file()));
    }
    let variables = variables(&proc.environment(pid).unwrap_or_default());
    let named = variables.into_iter().filter(|(name, _)| name == OPENSSL_CONF);
    files.extend(named.map(|(_, path)| PathBuf::from(path)));
    files.extend(USUAL.map(PathBuf::from));
    files
}
