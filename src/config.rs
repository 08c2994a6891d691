//! What is meant: the configuration file and the command line's flags, validated into [`Settings`].

pub mod challenge;
pub mod fleet;

use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf, absolute};
use std::str::FromStr;
use std::time::Duration;

use nix::unistd::{Group, User, geteuid};
use serde::{Deserialize, Serialize};

use self::fleet::{Fleet, FleetTable};
use crate::sys::escape::{escaped, escaped_path, shell_word};
use crate::sys::failure::{Failure, FailureKind};

/// The configuration file that is read when none is named; its absence means the defaults.
pub const DEFAULT_FILE: &str = "/etc/haproxy-certs.toml";

/// certbot's lineages, where nothing else is said.
const LIVE_DIR: &str = "/etc/letsencrypt/live";

/// Our own directory inside the sites directory: every HAProxy version ignores subdirectories.
pub const OWN_DIR: &str = ".haproxy-certs";

/// How a HAProxy is notified that its certificates changed.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum, strum::IntoStaticStr,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Method {
    /// The best one that applies.
    Auto,
    /// The Runtime API: in memory, without a reload.
    Runtime,
    /// `reload` on the master CLI (HAProxy 2.7 or later answers it).
    Master,
    /// `systemctl reload`.
    Systemd,
    /// SIGUSR2 to the master named by the pidfile.
    Pidfile,
    /// A command of the operator's.
    Command,
    /// Nobody is notified.
    None,
}

impl Method {
    /// The name that the configuration and the report use.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// Everything that a run needs to know, validated.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The file that they were read from, absolute; `None`: none.
    pub file: Option<PathBuf>,
    /// The options of this program that lead to the same settings: `--config FILE --sites-dir DIR`; empty where none is needed.
    pub given: String,
    /// certbot's `live` directory, absolute; on a node of a fleet what stands for its cache, `fleet:NAME`.
    pub live_dir: PathBuf,
    /// The directory that HAProxy loads, absolute.
    pub sites_dir: PathBuf,
    /// The owner of written files.
    pub owner: Owner,
    /// The permission bits of written files.
    pub mode: u32,
    /// Which lineages are deployed.
    pub selection: Selection,
    /// The private key's file in a lineage's directory.
    pub key_file: String,
    /// The chain's file there, the leaf first.
    pub chain_file: String,
    /// The lineage that is written as the host certificate too.
    pub host_lineage: Option<String>,
    /// The host certificate's file, absolute.
    pub host_file: PathBuf,
    /// The HAProxys to notify, at least one.
    pub haproxys: Vec<Haproxy>,
    /// The fleet that this host belongs to.
    pub fleet: Option<Fleet>,
    /// How certbot is run by `issue` and `renew`.
    pub certbot: Certbot,
}

/// A numeric owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

/// Which lineages are wanted: shell globs over their names.
#[derive(Debug, Clone)]
pub struct Selection {
    include: Vec<glob::Pattern>,
    exclude: Vec<glob::Pattern>,
}

impl Selection {
    /// Whether the lineage is wanted.
    #[must_use]
    pub fn includes(&self, lineage: &OsStr) -> bool {
        let name = lineage.to_string_lossy();
        let any = |patterns: &[glob::Pattern]| patterns.iter().any(|pattern| pattern.matches(&name));
        any(&self.include) && !any(&self.exclude)
    }
}

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
    /// Files for the configuration check; none: as the running master was started.
    pub config: Vec<PathBuf>,
    /// The program for checks; `None`: it is never run.
    pub binary: Option<String>,
    /// How long notifying it and seeing that it took it may take.
    pub timeout: Duration,
    /// `host:port` addresses to do a TLS handshake with.
    pub probe: Vec<String>,
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

impl Marks {
    /// Whether nothing tells a process of this HAProxy from another's.
    #[must_use]
    pub fn are_none(&self) -> bool {
        let Self { unit, pidfile, sockets, config } = self;
        unit.is_empty() && pidfile.as_os_str().is_empty() && sockets.is_empty() && config.is_empty()
    }
}

impl Haproxy {
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

/// Where a stream socket is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A UNIX socket's path.
    Unix(PathBuf),
    /// `host:port`.
    Tcp(String),
}

impl Address {
    /// An absolute path is a UNIX socket, anything else must be `host:port`.
    fn parse(text: &str) -> Option<Self> {
        if text.starts_with('/') {
            return Some(Self::Unix(text.into()));
        }
        is_host_port(text).then(|| Self::Tcp(text.to_owned()))
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
            Self::Tcp(address) => escaped(address).fmt(f),
        }
    }
}

/// How certbot is run.
#[derive(Debug, Clone)]
pub struct Certbot {
    /// The program.
    pub binary: String,
    /// The authenticator that `issue` names, where nothing else names one.
    pub authenticator: String,
    /// The port on which certbot answers the http-01 challenge.
    pub http_01_port: u16,
    /// The hosts that HAProxy passes challenges to, `host:port`; none: this one, at `http_01_port`.
    pub challenge_servers: Vec<String>,
    /// Arguments that are always given.
    pub args: Vec<String>,
}

/// The flags that beat the configuration file.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--live-dir`
    pub live_dir: Option<PathBuf>,
    /// `--sites-dir`
    pub sites_dir: Option<PathBuf>,
    /// `--reload`
    pub reload: Option<Method>,
}

impl Overrides {
    /// The options that mean these, and this file where it isn't the default one.
    fn given(&self, file: Option<&Path>) -> String {
        let option = |name: &str, path: Option<&Path>| {
            Some(format!("{name} {}", shell_word(absolute(path?).ok()?.as_os_str())))
        };
        let file = file.filter(|file| *file != Path::new(DEFAULT_FILE));
        let options = [
            option("--config", file),
            option("--live-dir", self.live_dir.as_deref()),
            option("--sites-dir", self.sites_dir.as_deref()),
        ];
        options.into_iter().flatten().collect::<Vec<_>>().join(" ")
    }
}

impl Settings {
    /// Reads the configuration file, `explicit` or the default one, and puts the flags over it.
    ///
    /// # Errors
    /// A named file that can't be read, a file that isn't the expected TOML, or a value that can't be used.
    pub fn load(explicit: Option<&Path>, flags: &Overrides) -> Result<Self, Failure> {
        let path = explicit.unwrap_or(Path::new(DEFAULT_FILE));
        // Nobody may ever write into a pipe that has a name; one that a shell makes is another thing.
        let is_shells = path.starts_with("/dev") || path.starts_with("/proc");
        if !is_shells && path.metadata().is_ok_and(|found| found.file_type().is_fifo()) {
            let path = escaped_path(path);
            return Err(Failure::config(format!("cannot read the configuration {path}: it is a FIFO")));
        }
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if explicit.is_none() && e.kind() == io::ErrorKind::NotFound => String::new(),
            Err(e) => {
                let cause = Failure::io("read the configuration", path, &e);
                let kind = if cause.kind == FailureKind::Io { FailureKind::Config } else { cause.kind };
                return Err(Failure { kind, ..cause });
            }
        };
        let settings = Self::parse(&text, flags)
            .map_err(|message| Failure::config(format!("{}: {message}", escaped_path(path))))?;
        let file = absolute(path).ok();
        let given = flags.given(explicit.and(file.as_deref()));
        Ok(Self { file, given, ..settings })
    }

    /// The defaults, for a file that isn't there yet or can't be used.
    ///
    /// # Errors
    /// The flags can't be used.
    pub fn without_file(explicit: Option<&Path>, flags: &Overrides) -> Result<Self, String> {
        let file = explicit.and_then(|path| absolute(path).ok());
        let given = flags.given(file.as_deref());
        Ok(Self { file, given, ..Self::parse("", flags)? })
    }

    /// The fleet whose cache is deployed here in the place of certbot's tree; `None`: certbot's tree is.
    #[must_use]
    pub fn followed(&self) -> Option<&Fleet> {
        self.fleet.as_ref().filter(|fleet| fleet.is_node() && self.live_dir == fleet.source())
    }

    /// The fleet that this host publishes to.
    #[must_use]
    pub fn published(&self) -> Option<&Fleet> {
        self.fleet.as_ref().filter(|fleet| fleet.is_publisher())
    }

    /// Validates the configuration `text` with the flags over it.
    ///
    /// # Errors
    /// One line that says what can't be used and where.
    pub fn parse(text: &str, flags: &Overrides) -> Result<Self, String> {
        let file: File = toml::from_str(text).map_err(|e| locate(text, &e))?;
        let sites_dir = directory("sites_dir", flags.sites_dir.as_ref().unwrap_or(&file.sites_dir))?;
        let host_file = directory("host_file", &file.host_file)?;
        if host_file.parent() == Some(&sites_dir) {
            return Err(format!(
                "host_file {} lies in sites_dir, where it would be taken for a site; put it beside the directory",
                escaped_path(&host_file)
            ));
        }
        let fleet = file
            .fleet
            .map(|fleet| fleet.validate(!file.haproxy.is_empty()))
            .transpose()
            .map_err(|e| e.to_string())?;
        let live_dir = match (&flags.live_dir, &file.live_dir, fleet.as_ref().filter(|fleet| fleet.is_node()))
        {
            (Some(path), ..) | (None, Some(path), None) => directory("live_dir", path)?,
            (None, Some(_), Some(_)) => {
                return Err(
                    "live_dir and [fleet] publishers are two sources of certificates; this host can have one"
                        .to_owned(),
                );
            }
            (None, None, Some(fleet)) => fleet.source(),
            (None, None, None) => LIVE_DIR.into(),
        };
        if sites_dir.starts_with(&live_dir) || sites_dir == Path::new("/") {
            return Err(format!(
                "sites_dir {} must be a directory of its own, outside live_dir {}",
                escaped_path(&sites_dir),
                escaped_path(&live_dir)
            ));
        }
        if let Some(fleet) = &fleet {
            fleet.check_places(&sites_dir, &live_dir).map_err(|e| e.to_string())?;
        }
        if host_file == sites_dir || host_file.starts_with(sites_dir.join(OWN_DIR)) {
            return Err(format!(
                "host_file {} is sites_dir or a place of our own in it; put it beside the directory",
                escaped_path(&host_file)
            ));
        }
        if let Some(name) = &file.host_lineage
            && (name.is_empty() || name.contains('/') || name == "." || name == "..")
        {
            return Err(format!("host_lineage \"{}\" is not a lineage's name", escaped(name)));
        }
        for (key, name) in [("key_file", &file.key_file), ("chain_file", &file.chain_file)] {
            if name.is_empty() || name.contains(['/', '\0']) || name == "." || name == ".." {
                return Err(format!(
                    "{key} \"{}\" is not the name of a file in a lineage's directory",
                    escaped(name)
                ));
            }
        }
        let haproxys = haproxys(file.haproxy, flags.reload, &sites_dir, &host_file)?;
        if file.certbot.http_01_port == 0 {
            return Err("http_01_port must not be 0".to_owned());
        }
        if file.certbot.binary.is_empty() {
            return Err("[certbot] binary must not be empty".to_owned());
        }
        challenge::check(&file.certbot.challenge_servers)
            .map_err(|why| format!("[certbot] challenge_servers {why}"))?;
        let name = &file.certbot.authenticator;
        if name.is_empty() || name.starts_with('-') || name.contains(char::is_whitespace) {
            return Err(format!(
                "[certbot] authenticator must be a name such as \"dns-rfc2136\", not \"{}\"",
                escaped(name)
            ));
        }
        Ok(Self {
            file: None,
            given: String::new(),
            live_dir,
            sites_dir,
            owner: file.owner.as_deref().map_or_else(|| Ok(ourselves()), parse_owner)?,
            mode: parse_mode(&file.mode)?,
            selection: Selection {
                include: patterns("include", &file.include)?,
                exclude: patterns("exclude", &file.exclude)?,
            },
            key_file: file.key_file,
            chain_file: file.chain_file,
            host_lineage: file.host_lineage,
            host_file,
            haproxys,
            fleet,
            certbot: Certbot {
                binary: file.certbot.binary,
                authenticator: file.certbot.authenticator,
                http_01_port: file.certbot.http_01_port,
                challenge_servers: file.certbot.challenge_servers,
                args: file.certbot.args,
            },
        })
    }
}

/// The HAProxys of the tables, at least one. The default socket, unit and pidfile are those of one HAProxy: the first.
fn haproxys(
    tables: Vec<HaproxyTable>,
    reload: Option<Method>,
    sites_dir: &Path,
    host_file: &Path,
) -> Result<Vec<Haproxy>, String> {
    let tables = if tables.is_empty() { vec![HaproxyTable::default()] } else { tables };
    let mut haproxys: Vec<Haproxy> = Vec::with_capacity(tables.len());
    for (index, table) in tables.into_iter().enumerate() {
        if table.name.is_empty() {
            return Err("name of a [[haproxy]] table must not be empty".to_owned());
        }
        let defaults = if index == 0 { Defaults::OF_THE_FIRST } else { Defaults::NONE };
        let haproxy = table.validate(reload, sites_dir, host_file, &defaults)?;
        let name = escaped(&haproxy.name);
        for before in &haproxys {
            if before.name == haproxy.name {
                return Err(format!("two [[haproxy]] tables have the name \"{name}\""));
            }
            if let Some((key, value)) = haproxy.shared_with(before) {
                return Err(format!(
                    "[[haproxy]] \"{}\" and \"{name}\" have the same {key} {value}; give each its own, or {key} = \"\" where it has none",
                    escaped(&before.name)
                ));
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(clippy::struct_field_names, reason = "the fields are the keys of the file")]
struct File {
    live_dir: Option<PathBuf>,
    sites_dir: PathBuf,
    owner: Option<String>,
    mode: String,
    include: Vec<String>,
    exclude: Vec<String>,
    key_file: String,
    chain_file: String,
    host_lineage: Option<String>,
    host_file: PathBuf,
    haproxy: Vec<HaproxyTable>,
    fleet: Option<FleetTable>,
    certbot: CertbotTable,
}

impl Default for File {
    fn default() -> Self {
        Self {
            live_dir: None,
            sites_dir: "/usr/local/ssl/certs/sites".into(),
            owner: None,
            mode: "0400".into(),
            include: vec!["*".into()],
            exclude: Vec::new(),
            key_file: "privkey.pem".into(),
            chain_file: "fullchain.pem".into(),
            host_lineage: None,
            host_file: "/usr/local/ssl/certs/host.pem".into(),
            haproxy: Vec::new(),
            fleet: None,
            certbot: CertbotTable::default(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct CertbotTable {
    binary: String,
    authenticator: String,
    http_01_port: u16,
    challenge_servers: Vec<String>,
    args: Vec<String>,
}

impl Default for CertbotTable {
    fn default() -> Self {
        Self {
            binary: "certbot".into(),
            authenticator: "standalone".into(),
            http_01_port: 54321,
            challenge_servers: Vec::new(),
            args: Vec::new(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct HaproxyTable {
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

/// What a table has that doesn't say otherwise.
struct Defaults {
    unit: &'static str,
    pidfile: &'static str,
    master_socket: &'static str,
}

impl Defaults {
    const OF_THE_FIRST: Self = Self {
        unit: "haproxy.service",
        pidfile: "/run/haproxy.pid",
        master_socket: "/run/haproxy-master.sock",
    };
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
    ) -> Result<Haproxy, String> {
        let unit = self.unit.unwrap_or_else(|| defaults.unit.to_owned());
        let pidfile = self.pidfile.unwrap_or_else(|| defaults.pidfile.into());
        let master_socket = self.master_socket.unwrap_or_else(|| defaults.master_socket.to_owned());
        let name = self.name;
        let wrong = |what: &str| format!("[[haproxy]] \"{}\": {what}", escaped(&name));
        let method = reload.unwrap_or(self.reload);
        if method == Method::Command && self.command.is_empty() {
            return Err(wrong("reload = \"command\" needs the command, as a list of words"));
        }
        let needs = match method {
            Method::Runtime if self.runtime_socket.is_empty() && master_socket.is_empty() => {
                "runtime_socket or master_socket"
            }
            Method::Master if master_socket.is_empty() => "master_socket",
            Method::Systemd if unit.is_empty() => "unit",
            Method::Pidfile if pidfile.as_os_str().is_empty() => "pidfile",
            _ => "",
        };
        if !needs.is_empty() {
            return Err(wrong(&format!("reload = \"{}\" needs {needs}", method.name())));
        }
        if self.command.first().is_some_and(String::is_empty) {
            return Err(wrong("the first word of command is empty"));
        }
        if unit.starts_with('-') {
            return Err(wrong("unit must be the name of a systemd unit"));
        }
        let address = |key: &str, text: &str| match text {
            "" => Ok(None),
            text => Address::parse(text).map(Some).ok_or_else(|| {
                wrong(&format!("{key} must be an absolute path or host:port, not \"{}\"", escaped(text)))
            }),
        };
        let timeout = humantime::parse_duration(&self.timeout)
            .ok()
            .filter(|timeout| !timeout.is_zero())
            .ok_or_else(|| {
                wrong(&format!("timeout must be like \"5m\" or \"30s\", not \"{}\"", escaped(&self.timeout)))
            })?;
        if timeout > LONGEST_TIMEOUT {
            return Err(wrong(&format!("timeout must be a day at most, not \"{}\"", escaped(&self.timeout))));
        }
        if let Some(bad) = self.probe.iter().find(|probe| !is_host_port(probe)) {
            return Err(wrong(&format!("probe must be like \"127.0.0.1:443\", not \"{}\"", escaped(bad))));
        }
        if self.binary.contains('/') && !self.binary.starts_with('/') {
            return Err(wrong("binary must be a program's name, an absolute path or empty"));
        }
        Ok(Haproxy {
            method,
            master_socket: address("master_socket", &master_socket)?,
            runtime_socket: address("runtime_socket", &self.runtime_socket)?,
            sites_dir: spelled(&self.sites_dir, sites_dir),
            host_file: spelled(&self.host_file, host_file),
            config: self.config.iter().map(|path| directory("config", path)).collect::<Result<_, _>>()?,
            binary: Some(self.binary).filter(|binary| !binary.is_empty()),
            pidfile: match pidfile {
                pidfile if pidfile.as_os_str().is_empty() => pidfile,
                pidfile => directory("pidfile", &pidfile)?,
            },
            unit,
            command: self.command,
            timeout,
            probe: self.probe,
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

fn directory(key: &str, path: &Path) -> Result<PathBuf, String> {
    absolute(path).map(|path| path.components().collect()).map_err(|_| format!("{key} must not be empty"))
}

fn is_host_port(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        let bare_ipv6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
        !host.is_empty() && !bare_ipv6 && u16::from_str(port).is_ok_and(|port| port != 0)
    })
}

fn patterns(key: &str, globs: &[String]) -> Result<Vec<glob::Pattern>, String> {
    globs
        .iter()
        .map(|text| {
            glob::Pattern::new(text)
                .map_err(|e| format!("{key}: \"{}\" is not a shell glob: {e}", escaped(text)))
        })
        .collect()
}

fn parse_mode(text: &str) -> Result<u32, String> {
    let wrong = |why: &str| format!("mode \"{}\" {why}", escaped(text));
    let mode = u32::from_str_radix(text, 8).map_err(|_| wrong("is not an octal number like \"0400\""))?;
    match mode {
        _ if mode & 0o400 == 0 => Err(wrong("doesn't let the owner read the file")),
        _ if mode & !0o640 != 0 => Err(wrong("is too wide for private keys: use 0400, 0440, 0600 or 0640")),
        _ => Ok(mode),
    }
}

/// The user who runs the program: root, as a rule.
fn ourselves() -> Owner {
    Owner { uid: geteuid().as_raw(), gid: nix::unistd::getegid().as_raw() }
}

fn parse_owner(text: &str) -> Result<Owner, String> {
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    let unknown = |what: &str, name: &str| format!("owner: there is no {what} \"{}\" here", escaped(name));
    let account = User::from_name(user).ok().flatten();
    let numeric = || user.parse().ok();
    let uid = account
        .as_ref()
        .map(|user| user.uid.as_raw())
        .or_else(numeric)
        .ok_or_else(|| unknown("user", user))?;
    let gid = match group {
        Some(group) => Group::from_name(group)
            .ok()
            .flatten()
            .map(|group| group.gid.as_raw())
            .or_else(|| group.parse().ok())
            .ok_or_else(|| unknown("group", group))?,
        None => account
            .or_else(|| User::from_uid(uid.into()).ok().flatten())
            .map(|user| user.gid.as_raw())
            .ok_or_else(|| format!("owner: user {uid} has no group here; write \"{uid}:GROUP\""))?,
    };
    Ok(Owner { uid, gid })
}

/// The parser's message with the line that it is about, in one line.
fn locate(text: &str, error: &toml::de::Error) -> String {
    let message = error.message().replace('\n', ", ");
    let Some(span) = error.span() else { return escaped(&message).to_string() };
    let before = text.get(..span.start).unwrap_or_default();
    let number = 1 + before.bytes().filter(|&byte| byte == b'\n').count();
    let line = text.lines().nth(number - 1).unwrap_or_default();
    match better(line, &message) {
        Some(answer) => format!("line {number}: {}", escaped(&answer)),
        None => format!("line {number}: {}", escaped(&message)),
    }
}

/// What to write instead, where a line is nearly right.
fn better(line: &str, message: &str) -> Option<String> {
    let code = line.split('#').next().unwrap_or_default().trim();
    let is_a = |found: &str, wanted: &str| {
        message.starts_with(&format!("invalid type: {found}"))
            && message.contains(&format!("expected {wanted}"))
    };
    if is_a("map", "a sequence") && code.trim_start_matches('[').starts_with("haproxy") {
        return Some(
            "write [[haproxy]], with two brackets on each side: there may be several of them".to_owned(),
        );
    }
    if message.starts_with("invalid type: map") && code.starts_with("[[certbot") {
        return Some("write [certbot], with one bracket on each side: there is only one".to_owned());
    }
    let (key, value) = code.split_once('=').map(|(key, value)| (key.trim(), value.trim()))?;
    let quoted = value.trim_matches(['"', '\'']);
    if ["integer", "floating point", "boolean"]
        .iter()
        .any(|found| is_a(found, "a string") || is_a(found, "path string"))
    {
        let unit = if key == "timeout" { "s" } else { "" };
        return Some(format!("{key} = {value} needs quotes: write {key} = \"{quoted}{unit}\""));
    }
    if is_a("string", "a sequence") {
        let words = if ["command", "args"].contains(&key) { words(quoted) } else { format!("\"{quoted}\"") };
        return Some(format!("{key} is a list: write {key} = [{words}]"));
    }
    if message.contains("leading zero") && key == "mode" {
        return Some(format!("{key} = {value} needs quotes: write {key} = \"{quoted}\""));
    }
    if is_a("string", "u16") {
        return Some(format!("{key} is a number: write {key} = {quoted}"));
    }
    None
}

/// A command line as the list of its words.
fn words(line: &str) -> String {
    let quoted: Vec<String> = line.split_whitespace().map(|word| format!("\"{word}\"")).collect();
    quoted.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Settings, String> {
        Settings::parse(text, &Overrides::default())
    }

    #[test]
    fn an_empty_file_means_the_defaults() {
        let settings = parse("").unwrap();
        assert_eq!(settings.live_dir, Path::new("/etc/letsencrypt/live"));
        assert_eq!(settings.mode, 0o400);
        assert!(settings.selection.includes(OsStr::new("example.org")));
        let [haproxy] = settings.haproxys.as_slice() else { panic!("one HAProxy") };
        assert_eq!((haproxy.method, haproxy.timeout), (Method::Auto, Duration::from_secs(300)));
        assert_eq!(haproxy.sites_dir, "/usr/local/ssl/certs/sites");
        assert_eq!(haproxy.runtime_socket, None);
    }

    #[test]
    fn a_flag_beats_the_file() {
        let flags = Overrides {
            live_dir: Some("/x/live/".into()),
            reload: Some(Method::None),
            ..Overrides::default()
        };
        let settings =
            Settings::parse("live_dir = \"/y\"\n[[haproxy]]\nreload = \"systemd\"", &flags).unwrap();
        assert_eq!(settings.live_dir, Path::new("/x/live"));
        assert_eq!(settings.haproxys[0].method, Method::None);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_its_place() {
        for (text, said) in [
            ("live_dir = \"/x\"\nsite_dir = \"/y\"\n", "line 2: unknown field `site_dir`"),
            ("[[haproxy]]\nname = \"a\"\nbinry = \"\"", "line 3: unknown field `binry`"),
            ("mode = \"0444\"", "too wide"),
            ("mode = \"0200\"", "owner read"),
            ("mode = \"rw\"", "octal"),
            ("owner = \"nobody-of-that-name\"", "no user"),
            ("include = [\"[\"]", "not a shell glob"),
            ("host_file = \"/usr/local/ssl/certs/sites/host.pem\"", "lies in sites_dir"),
            ("sites_dir = \"/\"", "sites_dir / must be a directory of its own"),
            ("sites_dir = \"/etc/letsencrypt/live/\"", "sites_dir /etc/letsencrypt/live must be"),
            ("sites_dir = \"/etc/letsencrypt/live/sites\"", "outside live_dir"),
            (
                "host_file = \"/usr/local/ssl/certs/sites/\"",
                "host_file /usr/local/ssl/certs/sites is sites_dir",
            ),
            ("host_file = \"/usr/local/ssl/certs/sites/.haproxy-certs/h.pem\"", "a place of our own in it"),
            ("[[haproxy]]\nname = \"\"", "name of a [[haproxy]] table must not be empty"),
            ("[certbot]\nbinary = \"\"", "[certbot] binary must not be empty"),
            (
                "[certbot]\nchallenge_servers = [\"lb1\"]",
                "challenge_servers must be like \"192.0.2.7:54321\", not \"lb1\"",
            ),
            (
                "[certbot]\nchallenge_servers = [\"lb1:1\", \"LB1:1\"]",
                "[certbot] challenge_servers has LB1:1 twice",
            ),
            ("[certbot]\nauthenticator = \"--manual\"", "authenticator must be a name such as"),
            ("host_lineage = \"../x\"", "not a lineage's name"),
            ("key_file = \"../key.pem\"", "key_file \"../key.pem\" is not the name of a file"),
            ("chain_file = \"\"", "chain_file \"\" is not the name of a file"),
            ("[[haproxy]]\n[[haproxy]]\n", "two [[haproxy]] tables"),
            (
                "[[haproxy]]\n[[haproxy]]\nname = \"lab\"\nmaster_socket = \"/run/./haproxy-master.sock\"",
                "[[haproxy]] \"haproxy\" and \"lab\" have the same master_socket /run/",
            ),
            (
                "[[haproxy]]\n[[haproxy]]\nname = \"lab\"\nunit = \"haproxy\"",
                "[[haproxy]] \"haproxy\" and \"lab\" have the same unit haproxy;",
            ),
            (
                "[[haproxy]]\n[[haproxy]]\nname = \"lab\"\npidfile = \"/run/haproxy.pid\"",
                "have the same pidfile /run/haproxy.pid; give each its own, or pidfile = \"\" where it has none",
            ),
            (
                "[[haproxy]]\n[[haproxy]]\nname = \"lab\"\nruntime_socket = \"/run/haproxy-master.sock\"",
                "have the same runtime_socket /run/haproxy-master.sock",
            ),
            (
                "[[haproxy]]\n[[haproxy]]\nname = \"lab\"\nreload = \"master\"",
                "\"lab\": reload = \"master\" needs master_socket",
            ),
            (
                "[[haproxy]]\n[[haproxy]]\nname = \"lab\"\nreload = \"runtime\"",
                "needs runtime_socket or master_socket",
            ),
            ("[[haproxy]]\nreload = \"systemd\"\nunit = \"\"", "needs unit"),
            ("[[haproxy]]\nreload = \"pidfile\"\npidfile = \"\"", "needs pidfile"),
            ("[[haproxy]]\ntimeout = \"300000000000y\"", "timeout must be"),
            ("[[haproxy]]\ntimeout = \"25h\"", "timeout must be a day at most, not \"25h\""),
            ("[[haproxy]]\ntimeout = 30", "line 2: timeout = 30 needs quotes: write timeout = \"30s\""),
            ("mode = 400", "line 1: mode = 400 needs quotes: write mode = \"400\""),
            ("sites_dir = true", "sites_dir = true needs quotes"),
            ("[haproxy]\nname = \"x\"", "line 1: write [[haproxy]], with two brackets on each side"),
            ("[[certbot]]\nargs = []", "line 1: write [certbot], with one bracket on each side"),
            (
                "[[haproxy]]\nprobe = \"127.0.0.1:443\" # ours",
                "line 2: probe is a list: write probe = [\"127.0.0.1:443\"]",
            ),
            ("mode = 0400", "line 1: mode = 0400 needs quotes: write mode = \"0400\""),
            (
                "[[haproxy]]\ncommand = \"/bin/kill -HUP 1\"",
                "line 2: command is a list: write command = [\"/bin/kill\", \"-HUP\", \"1\"]",
            ),
            ("include = \"*\"", "include is a list: write include = [\"*\"]"),
            ("[certbot]\nhttp_01_port = \"54321\"", "http_01_port is a number: write http_01_port = 54321"),
            ("[[haproxy]]\nreload = \"command\"", "needs the command"),
            ("[[haproxy]]\ntimeout = \"soon\"", "timeout must be like"),
            ("[[haproxy]]\ntimeout = \"0s\"", "timeout must be like"),
            ("[[haproxy]]\nprobe = [\"localhost\"]", "probe must be like"),
            ("[[haproxy]]\nruntime_socket = \"admin.sock\"", "absolute path or host:port"),
            ("[[haproxy]]\nreload = \"sometimes\"", "line 2: unknown variant `sometimes`"),
            ("live_dir = \"\"", "live_dir must not be empty"),
            ("= 3", "line 1"),
        ] {
            let message = parse(text).expect_err(text);
            assert!(message.contains(said), "{text}: {message}");
        }
    }

    #[test]
    fn only_the_first_table_has_default_sockets_unit_and_pidfile() {
        let text = "[[haproxy]]\nname = \"edge\"\n[[haproxy]]\nname = \"lab\"\npidfile = \"/run/lab.pid\"\n\
                    [[haproxy]]\nname = \"none\"\n";
        let haproxys = parse(text).unwrap().haproxys;
        let known_by: Vec<Marks> = haproxys.iter().map(Haproxy::marks).collect();
        assert_eq!(known_by[0], parse("").unwrap().haproxys[0].marks());
        assert_eq!(known_by[0].sockets, [Address::Unix("/run/haproxy-master.sock".into())]);
        assert_eq!(known_by[1].pidfile, Path::new("/run/lab.pid"));
        for marks in &known_by[1..] {
            assert_eq!((marks.unit.as_str(), marks.sockets.as_slice()), ("", [].as_slice()));
        }
        assert_eq!(known_by[2].pidfile, Path::new(""));
        assert_eq!(haproxys[1].others, [known_by[0].clone(), known_by[2].clone()]);
        let nothing = "[[haproxy]]\nunit = \"\"\npidfile = \"\"\nmaster_socket = \"\"\n";
        assert_eq!(parse(nothing).unwrap().haproxys[0].marks(), known_by[2]);
    }

    #[test]
    fn owners_are_names_or_numbers() {
        assert_eq!(parse_owner("root"), Ok(Owner { uid: 0, gid: 0 }));
        assert_eq!(parse_owner("99:98"), Ok(Owner { uid: 99, gid: 98 }));
        assert_eq!(parse_owner("root:daemon").map(|owner| owner.uid), Ok(0));
    }
}
