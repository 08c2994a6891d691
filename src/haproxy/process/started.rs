//! How a HAProxy was started: its arguments, environment and directory, and whose files it means by its paths.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::config::{Address, Haproxy, unit_name};
use crate::haproxy::process::arguments::{configuration_files, master_socket, only_checks, value_of};
use crate::haproxy::process::environment::variables;
use crate::haproxy::process::pidfile;
use crate::sys::failure::io_cause;
use crate::sys::procfs::Proc;
use crate::sys::system::System;

/// Where the configuration is: as distributions start HAProxy, and as the official container images and HAProxy's own
/// `make install` do.
const USUAL: [&str; 2] = ["/etc/haproxy/haproxy.cfg", "/usr/local/etc/haproxy/haproxy.cfg"];

/// What HAProxy is started with where nothing says so.
#[must_use]
pub fn usual_configuration() -> PathBuf {
    let there = USUAL.iter().find(|file| Path::new(file).exists());
    there.unwrap_or(&USUAL[0]).into()
}

/// A HAProxy that runs, as procfs shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// Its process: the master, where it has one.
    pub pid: i32,
    /// Its arguments, the program first.
    pub(crate) arguments: Vec<OsString>,
    /// The configuration files and directories among its arguments.
    pub files: Vec<PathBuf>,
    /// The directory that relative paths begin at.
    pub folder: PathBuf,
    /// Its environment; `None`: it isn't ours to see.
    pub environment: Option<Vec<(OsString, OsString)>>,
    /// Its root directory, where it means other files by a path than we do.
    pub root: Option<PathBuf>,
    /// Whether something says that it is this one: its pidfile, its unit, one of its sockets. Otherwise it is only the one
    /// that there is.
    pub is_surely_this: bool,
}

/// Why no HAProxy is taken for the one of the settings.
#[derive(Debug, thiserror::Error)]
pub enum NoneFound {
    /// The settings have no mark of it.
    #[error("nothing says which HAProxy this is")]
    Unmarked,
    /// None runs.
    #[error("no HAProxy runs here")]
    NoneRuns,
    /// Several run, and none has a mark of it.
    #[error("several HAProxys run here, and none of them is surely this one")]
    Several,
    /// procfs doesn't show how it was started.
    #[error("cannot read the {what} of process {pid}: {}", io_cause(.cause))]
    Unreadable {
        /// What of it.
        what: &'static str,
        /// Its process.
        pid: i32,
        /// Why.
        cause: io::Error,
    },
    /// One runs, without a mark of it.
    #[error("it may be another one")]
    PerhapsAnother,
    /// Those that run, without a mark of it, load other files.
    #[error("no HAProxy that runs here loads the sites directory")]
    NoneLoads,
}

impl Started {
    /// Finds this HAProxy.
    ///
    /// # Errors
    /// None runs, or it isn't clear which one it is: why.
    pub fn find(system: &System, haproxy: &Haproxy) -> Result<Self, NoneFound> {
        if haproxy.marks().are_none() {
            return Err(NoneFound::Unmarked);
        }
        let proc = Proc::new(system);
        let named = pidfile::haproxy(&proc, &haproxy.pidfile).filter(|&pid| is_haproxy(&proc, pid));
        if let Some(pid) = named {
            return Self::look(&proc, first_of_its_kind(&proc, pid), true);
        }
        let runs = |pid: &i32| {
            is_haproxy(&proc, *pid) && !proc.arguments(*pid).is_ok_and(|arguments| only_checks(&arguments))
        };
        let all = proc.all().unwrap_or_default().into_iter().filter(runs);
        // The first of each kind, and the best that a process of its kind is known by: its workers have the stats socket.
        let mut kinds: BTreeMap<i32, Sign> = BTreeMap::new();
        for pid in all {
            let known = kinds.entry(first_of_its_kind(&proc, pid)).or_default();
            *known = (*known).max(known_by(&proc, haproxy, pid));
        }
        // Another one, in a container say, may have the usual names.
        let best = kinds.values().copied().max().filter(|best| *best > Sign::Nothing);
        let (sure, others): (Vec<i32>, Vec<i32>) =
            kinds.keys().partition(|pid| best.is_some() && kinds.get(pid).copied() == best);
        match (&sure[..], &others[..]) {
            ([pid], _) => Self::look(&proc, *pid, true),
            ([], [pid]) => Self::look(&proc, *pid, false),
            ([], []) => Err(NoneFound::NoneRuns),
            _ => Err(NoneFound::Several),
        }
    }

    fn look(proc: &Proc, pid: i32, is_surely_this: bool) -> Result<Self, NoneFound> {
        let cannot = |what| move |cause| NoneFound::Unreadable { what, pid, cause };
        let arguments = proc.arguments(pid).map_err(cannot("arguments"))?;
        let folder = fs::read_link(proc.path(pid, "cwd")).map_err(cannot("directory"))?;
        Ok(Self { is_surely_this, ..Self::of(proc, pid, arguments, folder) })
    }

    /// A process as far as it can be seen; `None`: it has no configuration file among its arguments, or is gone.
    pub(crate) fn read(proc: &Proc, pid: i32) -> Option<Self> {
        let arguments = proc.arguments(pid).ok()?;
        let folder = fs::read_link(proc.path(pid, "cwd")).unwrap_or_else(|_| "/".into());
        Some(Self::of(proc, pid, arguments, folder)).filter(|it| !it.files.is_empty())
    }

    fn of(proc: &Proc, pid: i32, arguments: Vec<OsString>, folder: PathBuf) -> Self {
        // A HAProxy without a master locks itself up after it has read its configuration (`chroot`).
        let is_master = arguments.iter().any(|argument| argument == "-W" || argument == "-Ws");
        let sees_ours = proc.shares_mounts(pid) && (!is_master || proc.has_no_chroot(pid));
        Self {
            pid,
            files: configuration_files(&arguments),
            arguments,
            folder,
            environment: proc.environment(pid).ok().map(|entries| variables(&entries)),
            root: (!sees_ours).then(|| proc.path(pid, "root")),
            is_surely_this: false,
        }
    }

    /// Its configuration files and directories, as absolute paths.
    pub(crate) fn paths(&self) -> impl Iterator<Item = PathBuf> {
        self.files.iter().map(|file| self.folder.join(file))
    }

    /// The file that follows this option.
    pub(crate) fn file_of(&self, option: &str) -> Option<PathBuf> {
        value_of(&self.arguments, option).map(|file| self.folder.join(file))
    }
}

fn is_haproxy(proc: &Proc, pid: i32) -> bool {
    let own = i32::try_from(std::process::id());
    Ok(pid) != own && proc.haproxy(pid).is_some()
}

/// The process itself, or the master that it is a worker of.
pub(crate) fn first_of_its_kind(proc: &Proc, pid: i32) -> i32 {
    let parent = proc.stat(pid).map(|stat| stat.parent).unwrap_or_default();
    let is_worker = parent > 0
        && is_haproxy(proc, parent)
        && match (proc.executable(pid), proc.executable(parent)) {
            (Ok(one), Ok(other)) => one == other,
            _ => true,
        };
    if is_worker { parent } else { pid }
}

/// What says that a process is this HAProxy's, the better last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Sign {
    #[default]
    Nothing,
    /// Its arguments name this master socket or pidfile, or systemd has put it into this unit.
    Name,
    /// It has the stats socket open.
    Socket,
}

fn known_by(proc: &Proc, haproxy: &Haproxy, pid: i32) -> Sign {
    if let Some(Address::Unix(path)) = &haproxy.runtime_socket
        && proc.surely_has_open(pid, path)
    {
        return Sign::Socket;
    }
    let arguments = proc.arguments(pid).unwrap_or_default();
    let folder = fs::read_link(proc.path(pid, "cwd")).unwrap_or_else(|_| "/".into());
    // One in a container has the usual names in files of its own.
    let is = |its: Option<&Path>, ours: &Path| {
        its.is_some_and(|its| folder.join(its) == ours) && proc.means_our(pid, ours)
    };
    let has_socket = match &haproxy.master_socket {
        Some(Address::Unix(ours)) => is(master_socket(&arguments), ours),
        Some(Address::Tcp(_)) | None => false,
    };
    let has_pidfile = is(value_of(&arguments, "-p").map(Path::new), &haproxy.pidfile);
    let in_unit = || {
        let unit = unit_name(&haproxy.unit);
        !haproxy.unit.is_empty() && proc.is_in_unit(pid, &unit) && proc.is_in_our_namespace(pid)
    };
    if has_socket || has_pidfile || in_unit() { Sign::Name } else { Sign::Nothing }
}
