//! What is meant by the `[[haproxy]]` tables: how each HAProxy is reached, notified and seen.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::method::Method;
use super::unusable::{BadTable, Unusable};
use super::values::{absolute_path, is_host_port};
use crate::sys::escape::{escaped, escaped_path};
use crate::sys::host_port::HostPort;

/// One HAProxy: how it is reached, notified and seen.
#[derive(Debug, Clone)]
pub struct Haproxy {
    /// Its name in reports and in the state file.
    pub name: String,
    /// How it is notified.
    pub method: Method,
    /// Its systemd unit; empty: it has none.
    pub unit: String,
    /// The file with its master's process id; empty: it has none.
    pub pidfile: PathBuf,
    /// The master CLI's socket, where it is to be used.
    pub master_socket: Option<Address>,
    /// The Runtime API's socket, where one is configured.
    pub runtime_socket: Option<Address>,
    /// The operator's command for [`Method::Command`].
    pub command: Vec<String>,
    /// The sites directory as this HAProxy's configuration spells it, without a slash at the end.
    pub sites_dir: String,
    /// The host certificate as this HAProxy's configuration spells it.
    pub host_file: String,
    /// The sites directory and the host certificate as we see them.
    pub ours: [PathBuf; 2],
    /// Files for the configuration check; none: as the running master was started.
    pub config: Vec<PathBuf>,
    /// The program for checks; `None`: it is never run.
    pub binary: Option<String>,
    /// How long notifying it and seeing that it took it may take.
    pub timeout: Duration,
    /// `host:port` addresses to do a TLS handshake with.
    pub probe: Vec<HostPort>,
    /// What the HAProxys of the other tables are known by.
    pub others: Vec<Marks>,
}

/// What a running HAProxy is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marks {
    /// Its systemd unit; empty: none.
    pub unit: String,
    /// Its pidfile; empty: none.
    pub pidfile: PathBuf,
    /// Its sockets: the master CLI's and the Runtime API's, as far as it has them.
    pub sockets: Vec<Address>,
    /// Its configuration files, where they are named.
    pub config: Vec<PathBuf>,
}

impl fmt::Display for Marks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { unit, pidfile, sockets, config } = self;
        write!(f, "{unit} {}", pidfile.display())?;
        sockets.iter().try_for_each(|socket| write!(f, " {socket}"))?;
        config.iter().try_for_each(|file| write!(f, " {}", file.display()))
    }
}

impl Marks {
    /// Whether nothing tells a process of this HAProxy from another's.
    #[must_use]
    pub fn are_none(&self) -> bool {
        let Self { unit, pidfile, sockets, config } = self;
        unit.is_empty() && pidfile.as_os_str().is_empty() && sockets.is_empty() && config.is_empty()
    }

    /// Whether this unit or path is one of them.
    #[must_use]
    pub fn have(&self, mark: &str) -> bool {
        let is_it = |path: &Path| path == Path::new(mark);
        let is_socket = |socket: &Address| matches!(socket, Address::Unix(path) if is_it(path));
        self.unit == mark || is_it(&self.pidfile) || self.sockets.iter().any(is_socket)
    }
}

impl Haproxy {
    /// The same, of which each name is looked up once: a name server that doesn't answer costs its time once.
    #[must_use]
    pub fn looked_up_once(&self) -> Self {
        Self {
            master_socket: self.master_socket.as_ref().map(Address::looked_up_once),
            runtime_socket: self.runtime_socket.as_ref().map(Address::looked_up_once),
            probe: self.probe.iter().map(HostPort::looked_up_once).collect(),
            ..self.clone()
        }
    }

    /// What it is known by.
    #[must_use]
    pub fn marks(&self) -> Marks {
        let sockets = self.master_socket.iter().chain(&self.runtime_socket);
        Marks {
            unit: self.unit.clone(),
            pidfile: self.pidfile.clone(),
            sockets: sockets.cloned().collect(),
            config: self.config.clone(),
        }
    }

    /// What it calls the sites directory and the host certificate, and where these are for us.
    pub fn places(&self) -> impl Iterator<Item = (&Path, &Path)> {
        let its = [&self.sites_dir, &self.host_file].map(Path::new);
        its.into_iter().zip(self.ours.iter().map(PathBuf::as_path))
    }

    /// Whether its paths are those of a container or of another host: one that it calls ours by leads to something else here.
    #[must_use]
    pub fn has_paths_of_its_own(&self) -> bool {
        let is_same = |its: &Path, ours: &Path| its == ours || is_one(its, ours) || place(its) == place(ours);
        // A relative one begins at `crt-base`.
        self.places().any(|(its, ours)| its.is_absolute() && !is_same(its, ours))
    }

    /// What both would be known by: the key of the table, and its value.
    fn shared_with(&self, other: &Self) -> Option<(&'static str, String)> {
        if !self.unit.is_empty() && unit_name(&self.unit) == unit_name(&other.unit) {
            return Some(("unit", escaped(&self.unit).to_string()));
        }
        if !self.pidfile.as_os_str().is_empty() && place(&self.pidfile) == place(&other.pidfile) {
            return Some(("pidfile", escaped_path(&self.pidfile).to_string()));
        }
        let theirs = other.marks().sockets;
        let sockets = [("master_socket", &self.master_socket), ("runtime_socket", &self.runtime_socket)];
        sockets.into_iter().find_map(|(key, address)| {
            let address = address.as_ref()?;
            theirs.iter().any(|their| their.is_same(address)).then(|| (key, address.to_string()))
        })
    }
}

/// A unit's whole name: systemctl adds the ending of a service where there is none.
#[must_use]
pub fn unit_name(unit: &str) -> String {
    if unit.contains('.') { unit.to_owned() } else { format!("{unit}.service") }
}

/// A file's place, whatever links lead to its directory: `/var/run` is `/run`.
fn place(path: &Path) -> PathBuf {
    let real = |path: &Path| Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?));
    real(path).unwrap_or_else(|| path.components().collect())
}

/// Whether two paths lead to the same file.
fn is_one(one: &Path, other: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let id = |path: &Path| path.metadata().ok().map(|meta| (meta.dev(), meta.ino()));
    id(one).is_some_and(|found| id(other) == Some(found))
}

/// Where a stream socket is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A UNIX socket's path.
    Unix(PathBuf),
    /// `host:port`.
    Tcp(HostPort),
}

impl Address {
    /// An absolute path is a UNIX socket, anything else must be `host:port`.
    fn parse(text: &str) -> Option<Self> {
        if text.starts_with('/') {
            return Some(Self::Unix(text.into()));
        }
        is_host_port(text).then(|| Self::Tcp(text.into()))
    }

    /// The same, whose name is looked up once.
    fn looked_up_once(&self) -> Self {
        match self {
            Self::Unix(path) => Self::Unix(path.clone()),
            Self::Tcp(address) => Self::Tcp(address.looked_up_once()),
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Unix(one), Self::Unix(two)) => place(one) == place(two),
            _ => self == other,
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => escaped_path(path).fmt(f),
            Self::Tcp(address) => address.fmt(f),
        }
    }
}

/// The HAProxys of the tables, at least one. The default socket, unit and pidfile are those of one HAProxy: the first.
pub(super) fn haproxys(
    tables: Vec<HaproxyTable>,
    reload: Option<Method>,
    sites_dir: &Path,
    host_file: &Path,
) -> Result<Vec<Haproxy>, Unusable> {
    let tables = if tables.is_empty() { vec![HaproxyTable::default()] } else { tables };
    let mut haproxys: Vec<Haproxy> = Vec::with_capacity(tables.len());
    for (index, table) in tables.into_iter().enumerate() {
        if table.name.is_empty() {
            return Err(Unusable::Nameless);
        }
        let defaults = if index == 0 { Defaults::OF_THE_FIRST } else { Defaults::NONE };
        let haproxy = table.validate(reload, sites_dir, host_file, &defaults)?;
        for before in &haproxys {
            if before.name == haproxy.name {
                return Err(Unusable::SameName(haproxy.name));
            }
            if let Some((key, value)) = haproxy.shared_with(before) {
                return Err(Unusable::Shared { one: before.name.clone(), other: haproxy.name, key, value });
            }
        }
        haproxys.push(haproxy);
    }
    let marks: Vec<Marks> = haproxys.iter().map(Haproxy::marks).collect();
    for (own, haproxy) in haproxys.iter_mut().enumerate() {
        let others = marks.iter().enumerate().filter(|(index, _)| *index != own);
        haproxy.others = others.map(|(_, marks)| marks.clone()).collect();
    }
    Ok(haproxys)
}

/// One table as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct HaproxyTable {
    name: String,
    reload: Method,
    unit: Option<String>,
    pidfile: Option<PathBuf>,
    master_socket: Option<String>,
    runtime_socket: String,
    command: Vec<String>,
    sites_dir: String,
    host_file: String,
    config: Vec<PathBuf>,
    binary: String,
    timeout: String,
    probe: Vec<String>,
}

impl Default for HaproxyTable {
    fn default() -> Self {
        Self {
            name: "haproxy".into(),
            reload: Method::Auto,
            unit: None,
            pidfile: None,
            master_socket: None,
            runtime_socket: String::new(),
            command: Vec::new(),
            sites_dir: String::new(),
            host_file: String::new(),
            config: Vec::new(),
            binary: "haproxy".into(),
            timeout: "5m".into(),
            probe: Vec::new(),
        }
    }
}

/// The master socket of a table that names none.
pub const DEFAULT_MASTER_SOCKET: &str = "/run/haproxy-master.sock";

/// What a table has that doesn't say otherwise.
struct Defaults {
    unit: &'static str,
    pidfile: &'static str,
    master_socket: &'static str,
}

impl Defaults {
    const OF_THE_FIRST: Self =
        Self { unit: "haproxy.service", pidfile: "/run/haproxy.pid", master_socket: DEFAULT_MASTER_SOCKET };
    const NONE: Self = Self { unit: "", pidfile: "", master_socket: "" };
}

/// A time-out that is longer is a slip.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

impl HaproxyTable {
    fn validate(
        self,
        reload: Option<Method>,
        sites_dir: &Path,
        host_file: &Path,
        defaults: &Defaults,
    ) -> Result<Haproxy, Unusable> {
        let unit = self.unit.unwrap_or_else(|| defaults.unit.to_owned());
        let pidfile = self.pidfile.unwrap_or_else(|| defaults.pidfile.into());
        let master_socket = self.master_socket.unwrap_or_else(|| defaults.master_socket.to_owned());
        let name = self.name;
        let wrong = |why: BadTable| Unusable::Table { name: name.clone(), why };
        let method = reload.unwrap_or(self.reload);
        if method == Method::Command && self.command.is_empty() {
            return Err(wrong(BadTable::NoCommand));
        }
        let what = match method {
            Method::Runtime if self.runtime_socket.is_empty() && master_socket.is_empty() => {
                "runtime_socket or master_socket"
            }
            Method::Master if master_socket.is_empty() => "master_socket",
            Method::Systemd if unit.is_empty() => "unit",
            Method::Pidfile if pidfile.as_os_str().is_empty() => "pidfile",
            _ => "",
        };
        if !what.is_empty() {
            return Err(wrong(BadTable::Needs { method, what }));
        }
        if self.command.first().is_some_and(String::is_empty) {
            return Err(wrong(BadTable::EmptyCommand));
        }
        if unit.starts_with('-') {
            return Err(wrong(BadTable::Unit));
        }
        let address = |key: &'static str, text: &str| match text {
            "" => Ok(None),
            text => Address::parse(text)
                .map(Some)
                .ok_or_else(|| wrong(BadTable::Address { key, text: text.to_owned() })),
        };
        let timeout = humantime::parse_duration(&self.timeout)
            .ok()
            .filter(|timeout| !timeout.is_zero())
            .ok_or_else(|| wrong(BadTable::Timeout(self.timeout.clone())))?;
        if timeout > LONGEST_TIMEOUT {
            return Err(wrong(BadTable::LongTimeout(self.timeout)));
        }
        if let Some(bad) = self.probe.iter().find(|probe| !is_host_port(probe)) {
            return Err(wrong(BadTable::Probe(bad.clone())));
        }
        if self.binary.contains('/') && !self.binary.starts_with('/') {
            return Err(wrong(BadTable::Binary));
        }
        Ok(Haproxy {
            method,
            master_socket: address("master_socket", &master_socket)?,
            runtime_socket: address("runtime_socket", &self.runtime_socket)?,
            sites_dir: spelled(&self.sites_dir, sites_dir),
            host_file: spelled(&self.host_file, host_file),
            config: self.config.iter().map(|path| absolute_path("config", path)).collect::<Result<_, _>>()?,
            binary: Some(self.binary).filter(|binary| !binary.is_empty()),
            pidfile: match pidfile {
                pidfile if pidfile.as_os_str().is_empty() => pidfile,
                pidfile => absolute_path("pidfile", &pidfile)?,
            },
            unit,
            command: self.command,
            timeout,
            probe: self.probe.into_iter().map(HostPort::from).collect(),
            ours: [sites_dir.to_owned(), host_file.to_owned()],
            others: Vec::new(),
            name,
        })
    }
}

/// As this HAProxy spells it: what its table says, else our own path.
fn spelled(own: &str, path: &Path) -> String {
    let text = if own.is_empty() { path.to_string_lossy().into_owned() } else { own.to_owned() };
    match text.trim_end_matches('/') {
        "" => "/".to_owned(),
        trimmed => trimmed.to_owned(),
    }
}
