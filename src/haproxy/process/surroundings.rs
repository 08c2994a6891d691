//! The environment and the directory that a running HAProxy was started in: `OPENSSL_CONF` may ask more of a key than
//! OpenSSL does by itself.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::unistd::geteuid;

use super::environment::{OPENSSL_CONF, variables, without_masters_own};
use super::pidfile;
use super::user::User;
use crate::config::{Address, Haproxy};
use crate::haproxy::cli::worker::Worker;
use crate::haproxy::methods::{master, systemd};
use crate::haproxy::staged_check::Surroundings;
use crate::sys::procfs::{Proc, same_file};
use crate::sys::system::System;
use crate::sys::trusted::trusted;

/// How long a socket is asked for a process.
const ANSWER: Duration = Duration::from_secs(2);

/// What the HAProxy that runs, with a master or without, was started in; `None`: it isn't found, or isn't ours to see.
#[must_use]
pub fn surroundings(system: &System, haproxy: &Haproxy) -> Option<Surroundings> {
    let proc = Proc::new(system);
    let ways: [&dyn Fn() -> Option<i32>; 4] = [
        &|| pidfile::haproxy(&proc, &haproxy.pidfile),
        &|| systemd::main_pid(system, haproxy),
        &|| of_master_socket(haproxy),
        &|| of_runtime_socket(haproxy),
    ];
    let pid = ways.iter().find_map(|way| way().filter(|&pid| proc.haproxy(pid).is_some()))?;
    let environment = proc.environment(pid).ok().filter(|entries| !entries.is_empty())?;
    let environment = without_masters_own(variables(&environment));
    let user = User::parse(&proc.status(pid).ok()?)?;
    let same_files = proc.shares_mounts(pid);
    let us = geteuid().as_raw();
    if same_files && user.uid == us {
        return Some(Surroundings { environment, folder: fs::read_link(proc.path(pid, "cwd")).ok()? });
    }
    // The only variable that is taken from a process of another user, or with other files. It may name programs to load, so
    // the file must be one that nobody but root and us can change.
    let root = proc.path(pid, "root");
    let is_ours_too =
        |file: &Path| same_files || same_file(file, &root.join(file.strip_prefix("/").unwrap_or(file)));
    let file = environment.into_iter().find(|(name, _)| name == OPENSSL_CONF).map(|(_, file)| file);
    Some(with(file.filter(|file| is_safe(Path::new(file)) && is_ours_too(Path::new(file)))))
}

/// What a HAProxy that doesn't run was started in, as far as it is remembered: with this OpenSSL configuration.
#[must_use]
pub fn remembered(openssl_conf: &str) -> Surroundings {
    with(Some(openssl_conf.into()).filter(|_| is_safe(Path::new(openssl_conf))))
}

/// Whether a file is one that nobody but root and us can change.
fn is_safe(file: &Path) -> bool {
    file.is_absolute() && trusted(file, geteuid().as_raw()).is_ok()
}

/// A fixed environment, with this OpenSSL configuration where there is one.
fn with(file: Option<OsString>) -> Surroundings {
    let mut environment: Vec<(OsString, OsString)> =
        crate::sys::program::FIXED.iter().map(|(name, value)| (name.into(), value.into())).collect();
    environment.extend(file.map(|file| (OPENSSL_CONF.into(), file)));
    Surroundings { environment, folder: "/".into() }
}

/// A socket of another host's HAProxy names a process there.
fn is_here(address: &Address) -> bool {
    matches!(address, Address::Unix(_))
}

fn of_master_socket(haproxy: &Haproxy) -> Option<i32> {
    let address = haproxy.master_socket.as_ref().filter(|address| is_here(address))?;
    let shown = master::processes(Some(address), Instant::now() + ANSWER).ok()?;
    i32::try_from(shown.master).ok()
}

fn of_runtime_socket(haproxy: &Haproxy) -> Option<i32> {
    let own = Worker::ways(haproxy).into_iter().find(|worker| !worker.is_through_master())?;
    let answering = is_here(own.address()).then(|| own.answering(Instant::now() + ANSWER))?;
    i32::try_from(answering.ok()?.pid).ok()
}
