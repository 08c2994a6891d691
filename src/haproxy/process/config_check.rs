//! Checking a running master's configuration as it would load it on a reload: with its binary, arguments,
//! environment, directory and user.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use nix::unistd::geteuid;

use super::master::{Master, STARTING};
use super::sight;
use super::watch::Seen;
use crate::config::Haproxy;
use crate::haproxy::alerts;
use crate::haproxy::attempt::Attempt;
use crate::haproxy::batch::Batch;
use crate::haproxy::cli::worker::Answering;
use crate::haproxy::process::arguments::{configuration_files, for_check};
use crate::haproxy::process::started::Started;
use crate::sys::change_time::{changed_at, modified_at};
use crate::sys::escape::escaped_path;
use crate::sys::failure::io_cause;
use crate::sys::procfs::{Proc, same_file};
use crate::sys::program::Program;
use crate::sys::system::System;

/// Where OpenSSL's configuration is on most systems, and where it is otherwise (`openssl version -d`).
const OPENSSL_CONF: [&str; 3] =
    ["/etc/ssl/openssl.cnf", "/etc/pki/tls/openssl.cnf", "/usr/local/ssl/openssl.cnf"];

/// How long the check after a failed reload may take.
const AGAIN: Duration = Duration::from_secs(30);

/// Why one that is elsewhere isn't checked here.
pub(crate) const OTHER_PATHS: &str =
    "its sites_dir or host_file leads to something else here, so that only HAProxy itself can check it";

/// What a configuration check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigCheck {
    /// HAProxy would load it.
    Valid,
    /// HAProxy would refuse it.
    Invalid {
        /// Its error lines, as one line of ASCII.
        words: String,
        /// Everything it said, for [`crate::haproxy::alerts::named_changes`].
        log: String,
    },
    /// It wasn't checked, and why.
    Unchecked(String),
}

/// Checks a master's configuration with its own binary, arguments, environment, directory and user.
#[must_use]
pub fn check(system: &System, haproxy: &Haproxy, master: &Master, deadline: Instant) -> ConfigCheck {
    let program = match program(system, haproxy, master) {
        Ok(program) => program,
        Err(why) => return ConfigCheck::Unchecked(why.to_string()),
    };
    ConfigCheck::by(&program, deadline)
}

impl ConfigCheck {
    /// Runs `haproxy -c`, and reads what it says. One that ends by a signal or a time-out has refused nothing.
    pub(crate) fn by(program: &Program, deadline: Instant) -> Self {
        let shown = escaped_path(program.path());
        let done = match program.run(deadline) {
            Ok(done) => done,
            Err(e) => return Self::Unchecked(format!("cannot run {shown}: {}", io_cause(&e))),
        };
        let words = alerts::words(&done.output);
        if done.succeeded() {
            Self::Valid
        } else if done.has_ended_itself() && !words.is_empty() {
            Self::Invalid { words, log: done.output }
        } else {
            let said = done.last_line().map(|line| format!(": {line}")).unwrap_or_default();
            Self::Unchecked(format!("{shown} -c {}{said}", done.end()))
        }
    }
}

/// The same with this HAProxy's master, where one is in sight.
#[must_use]
pub fn check_of_master(system: &System, haproxy: &Haproxy) -> ConfigCheck {
    let Some(pid) = sight::master(system, haproxy) else {
        return ConfigCheck::Unchecked("no master is in sight".to_owned());
    };
    match Master::open(system, pid) {
        Ok(master) => check(system, haproxy, &master, Instant::now() + AGAIN),
        Err(why) => ConfigCheck::Unchecked(why.to_string()),
    }
}

/// Checks before a reload: the refusal, or else what there is to say about a check that could not be done.
pub(crate) fn before_reload(
    system: &System,
    haproxy: &Haproxy,
    batch: &Batch<'_>,
    master: &Master,
    deadline: Instant,
) -> Result<Option<String>, Attempt> {
    match check(system, haproxy, master, deadline) {
        ConfigCheck::Valid => Ok(None),
        ConfigCheck::Unchecked(why) => Ok(Some(format!("the configuration was not checked: {why}"))),
        ConfigCheck::Invalid { words, log } => {
            let files = alerts::named_changes(&log, haproxy, batch);
            Err(Attempt::Refused { words, files })
        }
    }
}

/// What came of a reload: a failed one is explained by HAProxy's own words where a check finds them.
pub(crate) fn after_reload(
    system: &System,
    haproxy: &Haproxy,
    batch: &Batch<'_>,
    master: &Master,
    seen: Seen,
    unchecked: Option<String>,
) -> Attempt {
    let told = |seen, facts: [Option<String>; 2]| {
        let facts: Vec<String> = facts.into_iter().flatten().collect();
        Attempt::Told { seen, detail: Some(facts.join("; ")).filter(|detail| !detail.is_empty()) }
    };
    match seen {
        Seen::Serving => told(Some(true), [unchecked, None]),
        Seen::TimedOut => {
            let limit = humantime::format_duration(haproxy.timeout);
            told(
                Some(false),
                [unchecked, Some(format!("no worker with the new files was seen within {limit}"))],
            )
        }
        Seen::CannotSee(why) => told(None, [unchecked, Some(why)]),
        Seen::Failed(why) => {
            before_reload(system, haproxy, batch, master, Instant::now() + AGAIN).err().unwrap_or_else(|| {
                Attempt::Unexplained(
                    [Some(why), unchecked].into_iter().flatten().collect::<Vec<_>>().join("; "),
                )
            })
        }
    }
}

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
        "process {pid} sees other files than we do (a container or chroot), {} among them",
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
    /// A place on its way can't be looked at.
    #[error("cannot {deed} {}: {why}", escaped_path(.place))]
    Unreadable {
        /// What can't be done.
        deed: &'static str,
        /// Where.
        place: PathBuf,
        /// The cause.
        why: String,
    },
    /// Others could replace it.
    #[error("{} is writable by others, so we don't run {}", escaped_path(.place), escaped_path(.program))]
    Untrusted {
        /// What they can write.
        place: PathBuf,
        /// The program.
        program: PathBuf,
    },
}

fn program(system: &System, haproxy: &Haproxy, master: &Master) -> Result<Program, NotRun> {
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
    let has_own_paths = haproxy.has_paths_of_its_own();
    sees_our_files(master, &binary, &arguments, &folder, own_files, has_own_paths)?;

    let arguments = for_check(&arguments, &haproxy.config);
    let environment = without_masters_own(environment);
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

/// Whether the loader or the C library obeys this variable in any program: what glibc itself takes away from a program
/// with more rights than its caller (its `unsecvars.h`).
fn is_of_loader(name: &OsStr) -> bool {
    const NAMES: [&str; 11] = [
        "GCONV_PATH",
        "GETCONF_DIR",
        "HOSTALIASES",
        "LOCALDOMAIN",
        "LOCPATH",
        "NIS_PATH",
        "NLSPATH",
        "RESOLV_HOST_CONF",
        "RES_OPTIONS",
        "TMPDIR",
        "TZDIR",
    ];
    let starts = |prefix: &str| name.as_bytes().starts_with(prefix.as_bytes());
    ["LD_", "GLIBC_", "MALLOC_"].into_iter().any(starts) || NAMES.iter().any(|known| name == *known)
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

/// A master in a container or a chroot means other files by the same names.
fn sees_our_files(
    master: &Master,
    binary: &Path,
    arguments: &[OsString],
    folder: &Path,
    own: Files,
    has_own_paths: bool,
) -> Result<(), NotRun> {
    let (proc, pid) = (master.proc(), master.pid());
    if proc.sees_our_files(pid) {
        return Ok(());
    }
    if has_own_paths {
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
    match files.iter().find(|file| !same_file(file, &inside(file))) {
        None => Ok(()),
        Some(file) => Err(NotRun::Elsewhere { pid, file: file.clone() }),
    }
}

/// Nobody but root and us may be able to replace what we run.
pub(crate) fn trusted(binary: &Path, us: u32) -> Result<(), NotRun> {
    let unreadable = |deed, place: &Path, e: &std::io::Error| NotRun::Unreadable {
        deed,
        place: place.to_owned(),
        why: io_cause(e),
    };
    let path = binary.canonicalize().map_err(|e| unreadable("run", binary, &e))?;
    for place in path.ancestors() {
        let meta = fs::metadata(place).map_err(|e| unreadable("look at", place, &e))?;
        let sticky = meta.is_dir() && meta.mode() & 0o1000 != 0;
        let others = meta.mode() & 0o002 != 0 || (meta.mode() & 0o020 != 0 && meta.gid() != 0);
        if (meta.uid() != 0 && meta.uid() != us) || (others && !sticky) {
            return Err(NotRun::Untrusted { place: place.to_owned(), program: binary.to_owned() });
        }
    }
    Ok(())
}

/// Whom a process runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    gid: u32,
    groups: Vec<u32>,
}

impl User {
    /// Whether it has the rights of this group.
    pub(crate) fn is_in(&self, group: u32) -> bool {
        self.gid == group || self.groups.contains(&group)
    }

    pub(crate) fn parse(status: &str) -> Option<Self> {
        let numbers = |key: &str| -> Option<Vec<u32>> {
            let line = status.lines().find_map(|line| line.strip_prefix(key))?;
            line.split_ascii_whitespace().map(|word| word.parse().ok()).collect()
        };
        // Real, effective, saved, file system.
        Some(Self {
            uid: *numbers("Uid:")?.get(1)?,
            gid: *numbers("Gid:")?.get(1)?,
            groups: numbers("Groups:")?,
        })
    }
}

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
    let environment = proc.environment(pid).unwrap_or_default();
    let named = environment.iter().filter_map(|entry| entry.as_bytes().strip_prefix(b"OPENSSL_CONF="));
    files.extend(named.map(|path| PathBuf::from(OsStr::from_bytes(path))));
    files.extend(OPENSSL_CONF.map(PathBuf::from));
    files
}

/// By how much a file must be newer than a process: procfs rounds to clock ticks, and file systems to the kernel's.
const TICKS: Duration = Duration::from_millis(30);

/// A file or directory that says what a worker loads, and that the worker may not have read as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewerSource {
    path: PathBuf,
    how: Newer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Newer {
    /// A file's contents are.
    Contents,
    /// A directory had other names in it: perhaps none that count.
    Names,
    /// It may be another file, which was moved to its place or is as old as what it was copied from (`cp -p`); or only its
    /// owner, mode or number of names has changed.
    Perhaps,
}

impl NewerSource {
    /// Whether the worker surely hasn't read it as it is.
    #[must_use]
    pub fn is_sure(&self) -> bool {
        self.how == Newer::Contents
    }

    /// What has become of it since the worker started.
    #[must_use]
    pub fn fact(&self) -> String {
        let path = escaped_path(&self.path);
        match self.how {
            Newer::Contents => format!("{path} has changed since"),
            Newer::Names => format!("names in {path} came or went since"),
            Newer::Perhaps => format!("{path} was replaced since, or its owner, mode or links changed"),
        }
    }
}

/// The first of the files that say what this worker loads that has changed since it started, as far as that can be seen:
/// surely, or else perhaps.
#[must_use]
pub fn newer_source(system: &System, sources: &[PathBuf], worker: &Answering) -> Option<NewerSource> {
    let started = worker.forked(system).unwrap_or(worker.until);
    let is_later = |moment: Option<SystemTime>| moment.is_some_and(|moment| moment > started + TICKS);
    let surely = |path: &&PathBuf| path.is_file() && is_later(modified_at(path));
    let found = sources.iter().find(surely).map(|path| (path, Newer::Contents));
    let (path, how) = found.or_else(|| {
        let path = sources.iter().find(|path| is_later(changed_at(path)))?;
        Some((path, if path.is_dir() { Newer::Names } else { Newer::Perhaps }))
    })?;
    Some(NewerSource { path: path.clone(), how })
}

/// Whether one of them is newer than this moment, in which a worker started, or may be.
pub(crate) fn is_newer(system: &System, haproxy: &Haproxy, moment: SystemTime) -> bool {
    let Some(pid) = sight::master(system, haproxy) else { return false };
    let changed = |file: &PathBuf| changed_at(file).max(modified_at(file));
    sources(&Proc::new(system), haproxy, pid).iter().filter_map(changed).any(|changed| changed > moment)
}

/// The environment without what the master, or systemd for it alone, has put there.
///
/// 2.2 cuts its `HAPROXY_PROCESSES` in place, so that its parts look like variables of their own.
pub(crate) fn without_masters_own(environment: Vec<OsString>) -> Vec<(OsString, OsString)> {
    const OWN: [&str; 9] = [
        "HAPROXY_CFGFILES",
        "HAPROXY_CLI",
        "HAPROXY_LOAD_SUCCESS",
        "HAPROXY_MASTER_CLI",
        "HAPROXY_PROCESSES",
        "HAPROXY_STARTUPLOGS_FD",
        "HAPROXY_STARTUP_VERSION",
        "NOTIFY_SOCKET",
        "WATCHDOG_PID",
    ];
    const PARTS: [&str; 9] =
        ["fd", "cfd", "pid", "rpid", "reloads", "failedreloads", "timestamp", "id", "version"];
    let mut kept = Vec::new();
    let mut inside = false;
    for entry in environment {
        let bytes = entry.as_bytes();
        let Some(equals) = bytes.iter().position(|&byte| byte == b'=').filter(|&place| place > 0) else {
            continue;
        };
        let (name, value) =
            (bytes.get(..equals).unwrap_or_default(), bytes.get(equals + 1..).unwrap_or_default());
        let is = |known: &&str| known.as_bytes() == name;
        inside = name == b"HAPROXY_PROCESSES" || (inside && PARTS.iter().any(is));
        let prefixed =
            ["HAPROXY_MWORKER", "LISTEN_"].iter().any(|prefix| name.starts_with(prefix.as_bytes()));
        if !inside && !prefixed && !OWN.iter().any(is) {
            kept.push((OsStr::from_bytes(name).to_owned(), OsStr::from_bytes(value).to_owned()));
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_masters_own_variables_are_left_out_and_the_operators_stay() {
        let environment = [
            "PATH=/bin",
            "HAPROXY_MWORKER=1",
            "HAPROXY_MWORKER_WAIT_ONLY=1",
            "HAPROXY_PROCESSES=|type=w",
            "fd=4",
            "pid=12",
            "version=2.2.9",
            "pid=mine",
            "HAPROXY_PORT=443",
            "id=mine",
            "NOTIFY_SOCKET=/run/x",
            "LISTEN_FDS=1",
            "EMPTY=",
            "A=b=c",
            "broken",
        ]
        .map(OsString::from)
        .to_vec();
        let kept: Vec<String> = without_masters_own(environment)
            .into_iter()
            .map(|(name, value)| format!("{}={}", name.display(), value.display()))
            .collect();
        assert_eq!(kept, ["PATH=/bin", "HAPROXY_PORT=443", "id=mine", "EMPTY=", "A=b=c"]);
    }

    #[test]
    fn users_are_the_effective_ones() {
        let status = "Name:\tx\nUid:\t0\t99\t0\t0\nGid:\t0\t98\t0\t0\nGroups:\t98 5 \n";
        assert_eq!(User::parse(status), Some(User { uid: 99, gid: 98, groups: vec![98, 5] }));
        assert_eq!(User::parse("Uid:\t0\n"), None);
    }

    #[test]
    fn a_check_that_a_signal_ended_has_refused_nothing() {
        let says = |end: &str| {
            let script = format!("echo '[ALERT] (1) : config : no'; {end}");
            let program = Program::new("/bin/sh").arg("-c").arg(script);
            ConfigCheck::by(&program, Instant::now() + Duration::from_secs(60))
        };
        assert!(matches!(says("exit 1"), ConfigCheck::Invalid { .. }));
        assert!(matches!(says("kill -KILL $$"), ConfigCheck::Unchecked(_)));
        assert_eq!(says("exit 0"), ConfigCheck::Valid);
    }

    #[test]
    fn what_others_can_replace_is_not_run() {
        let us = geteuid().as_raw();
        assert_eq!(trusted(Path::new("/bin/sh"), us), Ok(()));
        let folder = tempfile::tempdir().unwrap();
        let binary = folder.path().join("haproxy");
        fs::write(&binary, "").unwrap();
        let permit =
            |mode| fs::set_permissions(&binary, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        permit(0o755);
        assert_eq!(trusted(&binary, us), Ok(()));
        permit(0o777);
        assert!(matches!(trusted(&binary, us), Err(NotRun::Untrusted { .. })));
        permit(0o755);
        let folder_mode = |mode| {
            fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        };
        folder_mode(0o777);
        assert!(matches!(trusted(&binary, us), Err(NotRun::Untrusted { .. })));
        folder_mode(0o1777);
        assert_eq!(trusted(&binary, us), Ok(()));
    }
}
