//! What is meant: the configuration file and the command line's flags, validated into [`Settings`].

pub mod challenge;
mod file;
pub mod fleet;
mod haproxy;
mod method;
mod toml_error;
mod unusable;
mod values;

use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf, absolute};

use self::file::ConfigFile;
use self::fleet::Fleet;
use self::haproxy::haproxys;
pub use self::haproxy::{Address, DEFAULT_MASTER_SOCKET, Haproxy, Marks, unit_name};
pub use self::method::Method;
use self::toml_error::locate;
pub use self::unusable::{BadTable, Unusable};
pub use self::values::{Owner, Selection};
use self::values::{absolute_path, is_file_name};
use crate::sys::escape::{escaped_path, shell_word};
use crate::sys::failure::{Failure, FailureKind};

/// The configuration file that is read when none is named; its absence means the defaults.
pub const DEFAULT_FILE: &str = "/etc/haproxy-certs.toml";

/// certbot's lineages, where nothing else is said.
const LIVE_DIR: &str = "/etc/letsencrypt/live";

/// Our own directory inside the sites directory: every HAProxy version ignores subdirectories.
pub const OWN_DIR: &str = ".haproxy-certs";

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
    /// The group that is to read the files, beside their owner; `None`: it is root's, or has no right to.
    #[must_use]
    pub fn reading_group(&self) -> Option<u32> {
        Some(self.owner.gid).filter(|&gid| gid != 0 && self.mode & 0o040 != 0)
    }

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
            .map_err(|why| Failure::config(format!("{}: {why}", escaped_path(path))))?;
        let file = absolute(path).ok();
        let given = flags.given(explicit.and(file.as_deref()));
        Ok(Self { file, given, ..settings })
    }

    /// The defaults, for a file that isn't there yet or can't be used.
    ///
    /// # Errors
    /// The flags can't be used.
    pub fn without_file(explicit: Option<&Path>, flags: &Overrides) -> Result<Self, Unusable> {
        let file = explicit.and_then(|path| absolute(path).ok());
        let given = flags.given(file.as_deref());
        Ok(Self { file, given, ..Self::parse("", flags)? })
    }

    /// The fleet whose cache is deployed here in the place of certbot's tree; `None`: certbot's tree is.
    #[must_use]
    pub fn followed(&self) -> Option<&Fleet> {
        self.fleet.as_ref().filter(|fleet| fleet.is_node())
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
    pub fn parse(text: &str, flags: &Overrides) -> Result<Self, Unusable> {
        let file: ConfigFile = toml::from_str(text).map_err(|e| locate(text, &e))?;
        let sites_dir = absolute_path("sites_dir", flags.sites_dir.as_ref().unwrap_or(&file.sites_dir))?;
        let host_file = absolute_path("host_file", &file.host_file)?;
        if host_file.parent() == Some(&sites_dir) {
            return Err(Unusable::HostFileIsSite(host_file));
        }
        let fleet = file.fleet.map(|fleet| fleet.validate(!file.haproxy.is_empty())).transpose()?;
        let followed = fleet.as_ref().filter(|fleet| fleet.is_node());
        let live_dir = match (&flags.live_dir, &file.live_dir, followed) {
            (Some(_), _, Some(_)) => return Err(Unusable::TwoSources("--live-dir")),
            (None, Some(_), Some(_)) => return Err(Unusable::TwoSources("live_dir")),
            (Some(path), ..) | (None, Some(path), None) => absolute_path("live_dir", path)?,
            (None, None, Some(fleet)) => fleet.source(),
            (None, None, None) => LIVE_DIR.into(),
        };
        if sites_dir.starts_with(&live_dir) || sites_dir == Path::new("/") {
            return Err(Unusable::SitesDir { sites_dir, live_dir });
        }
        if let Some(fleet) = &fleet {
            fleet.check_places(&sites_dir, &live_dir)?;
        }
        if host_file == sites_dir || host_file.starts_with(sites_dir.join(OWN_DIR)) {
            return Err(Unusable::HostFileIsOurs(host_file));
        }
        if let Some(name) = file.host_lineage.as_ref().filter(|name| !is_file_name(name)) {
            return Err(Unusable::NotALineage(name.clone()));
        }
        for (key, name) in [("key_file", &file.key_file), ("chain_file", &file.chain_file)] {
            if !is_file_name(name) {
                return Err(Unusable::NotAFileName { key, name: name.clone() });
            }
        }
        let haproxys = haproxys(file.haproxy, flags.reload, &sites_dir, &host_file)?;
        file.certbot.check()?;
        Ok(Self {
            file: None,
            given: String::new(),
            live_dir,
            sites_dir,
            owner: file.owner.as_deref().map_or_else(|| Ok(values::ourselves()), values::owner)?,
            mode: values::mode(&file.mode)?,
            selection: Selection::of(&file.include, &file.exclude)?,
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

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::time::Duration;

    use super::*;

    fn parse(text: &str) -> Result<Settings, Unusable> {
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
            let message = parse(text).expect_err(text).to_string();
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
}
