//! The program that checks the configuration of a running master: its own, run as it was started.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::unistd::geteuid;

use super::environment::{is_of_loader, variables, without_masters_own};
use super::master::{Master, STARTING};
use super::release::release;
use super::sight;
use super::started::Started;
use super::user::User;
use crate::config::Haproxy;
use crate::haproxy::process::arguments::{configuration_files, for_check};
use crate::serving::set_up::first_elsewhere;
use crate::sys::escape::escaped_path;
use crate::sys::failure::io_cause;
use crate::sys::procfs::{Proc, same_file};
use crate::sys::program::Program;
use crate::sys::system::System;
use crate::sys::trusted::{Untrusted, trusted};

/// Why one that is elsewhere isn't checked here.
pub(crate) const OTHER_PATHS: &str =
    "its sites_dir or host_file leads to something else here, so that only HAProxy itself can check it";

/// Why a master's program isn't run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotRun {
    /// The settings say so.
    #[error("binary is empty, so HAProxy is never run")]
    Never,
    /// procfs doesn't show it.
    #[error("cannot read the {what} of process {pid}{why}")]
    Unseen {
        /// What of it.
        what: &'static str,
        /// Its process.
        pid: i32,
        /// The cause, behind a colon.
        why: String,
    },
    /// We may not run as its user.
    #[error("process {pid} belongs to user {uid}, and we are not root")]
    User {
        /// Its process.
        pid: i32,
        /// Its user.
        uid: u32,
    },
    /// What takes its user's groups is missing.
    #[error("there is no program setpriv here")]
    NoSetpriv,
    /// It means other files by the same names.
    #[error(
        "process {pid} sees other files than we do (a container, a chroot or mounts of its own), {} among them",
        escaped_path(file)
    )]
    Elsewhere {
        /// Its process.
        pid: i32,
        /// The first of these files.
        file: PathBuf,
    },
    /// Its paths lead to something else here.
    #[error("{OTHER_PATHS}")]
    OtherPaths,
    /// Others could replace it, or that can't be seen.
    #[error("{0}")]
    Untrusted(#[from] Untrusted),
}

/// That program with all that it is run with.
pub(super) fn program(system: &System, haproxy: &Haproxy, master: &Master) -> Result<Program, NotRun> {
    let (proc, pid) = (master.proc(), master.pid());
    let setting = haproxy.binary.as_deref().ok_or(NotRun::Never)?;
    let cannot = |what: &'static str| {
        move |e: std::io::Error| NotRun::Unseen { what, pid, why: format!(": {}", io_cause(&e)) }
    };
    master.settle(Instant::now() + STARTING);
    let arguments = proc.arguments(pid).map_err(cannot("arguments"))?;
    let environment = proc.environment(pid).map_err(cannot("environment"))?;
    let folder = fs::read_link(proc.path(pid, "cwd")).map_err(cannot("directory"))?;
    let status = proc.status(pid).map_err(cannot("status"))?;
    let binary = binary(proc, pid, setting, &arguments).map_err(cannot("executable"))?;
    let user = User::parse(&status).ok_or(NotRun::Unseen { what: "user", pid, why: String::new() })?;
    let own_files = Files { binary: !setting.starts_with('/'), configuration: haproxy.config.is_empty() };
    sees_our_files(system, haproxy, master, &binary, &arguments, &folder, own_files)?;

    let arguments = for_check(&arguments, &haproxy.config);
    let environment = without_masters_own(variables(&environment));
    let run = |program: Program| program.environment(environment.clone()).folder(&folder);
    let us = geteuid().as_raw();
    match user {
        _ if user.uid == us => {
            trusted(&binary, us)?;
            Ok(run(Program::new(binary)).args(arguments))
        }
        _ if us != 0 => Err(NotRun::User { pid, uid: user.uid }),
        User { uid, gid, ref groups } if groups.iter().all(|&group| group == gid) => {
            Ok(run(Program::new(binary)).args(arguments).user(uid, gid))
        }
        User { uid, gid, groups } => {
            let setpriv = system.program("setpriv").ok_or(NotRun::NoSetpriv)?;
            let groups: Vec<String> = groups.iter().map(u32::to_string).collect();
            let ids = [
                format!("--reuid={uid}"),
                format!("--regid={gid}"),
                format!("--groups={}", groups.join(",")),
            ];
            // setpriv runs as root, and the environment is the master's: what the loader reads of it comes after.
            let (of_loader, environment): (Vec<_>, Vec<_>) =
                environment.into_iter().partition(|(name, _)| is_of_loader(name));
            let program = Program::new(setpriv).environment(environment).folder(folder).args(ids).arg("--");
            let program = match system.program("env") {
                Some(env) if !of_loader.is_empty() => {
                    program.arg(env).args(of_loader.into_iter().map(assigned))
                }
                _ => program,
            };
            Ok(program.arg(binary).args(arguments))
        }
    }
}

/// The program that checks: the settings' where that is a path, else the master's own.
fn binary(proc: &Proc, pid: i32, setting: &str, arguments: &[OsString]) -> std::io::Result<PathBuf> {
    match arguments.first().map(Path::new) {
        _ if setting.starts_with('/') => Ok(setting.into()),
        Some(first) if first.is_absolute() => Ok(first.to_owned()),
        _ => proc.executable(pid),
    }
}

/// The program that a person is to check the configuration with: the one that a check of ours runs, as short as it can be
/// typed.
pub(crate) fn for_people(system: &System, haproxy: &Haproxy) -> PathBuf {
    let setting = haproxy.binary.as_deref().unwrap_or("haproxy");
    let of_master = || {
        let (proc, pid) = (Proc::new(system), sight::master(system, haproxy)?);
        binary(&proc, pid, setting, &proc.arguments(pid).ok()?).ok()
    };
    let usual = system.program(setting);
    match of_master() {
        Some(own) if !usual.is_some_and(|usual| same_file(&usual, &own)) => own,
        _ => setting.into(),
    }
}

/// A variable as `env(1)` takes it.
fn assigned((name, value): (OsString, OsString)) -> OsString {
    let mut word = name;
    word.push("=");
    word.push(value);
    word
}

/// Which files are the master's own choice, and not our configuration's.
#[derive(Clone, Copy)]
struct Files {
    binary: bool,
    configuration: bool,
}

/// A master in a container, in a chroot or with mounts of its own (`PrivateTmp=`, `BindPaths=`) means other files by the same
/// names. What a check here says of it holds only where every file that its configuration names is the same.
fn sees_our_files(
    system: &System,
    haproxy: &Haproxy,
    master: &Master,
    binary: &Path,
    arguments: &[OsString],
    folder: &Path,
    own: Files,
) -> Result<(), NotRun> {
    let (proc, pid) = (master.proc(), master.pid());
    if proc.sees_our_files(pid) {
        return Ok(());
    }
    if haproxy.has_paths_of_its_own() {
        return Err(NotRun::OtherPaths);
    }
    let root = proc.path(pid, "root");
    let mut files = Vec::new();
    if own.binary {
        files.push(binary.to_owned());
    }
    if own.configuration {
        files.extend(configuration_files(arguments).into_iter().map(|file| folder.join(file)));
    }
    let inside = |file: &Path| root.join(file.strip_prefix("/").unwrap_or(file));
    let elsewhere = |file| NotRun::Elsewhere { pid, file };
    if let Some(file) = files.into_iter().find(|file| !same_file(file, &inside(file))) {
        return Err(elsewhere(file));
    }
    let cannot = || NotRun::Unseen { what: "arguments", pid, why: String::new() };
    let started = Started::read(proc, pid).ok_or_else(cannot)?;
    let started = Started { is_surely_this: true, ..started };
    let version = release(system, haproxy, Some(&started));
    first_elsewhere(&started, haproxy, version).map_or(Ok(()), |file| Err(elsewhere(file)))
}
