//! Real `HAProxy`s of several versions, in master-worker mode, one port and one directory each.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use super::built::target_folder;
use super::cmd::toml;
use super::ports::Port;
use super::process::{Running, alive, finish};
use super::{LIMIT, wait_until, wait_until_it_is_older};

/// A HAProxy that can be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// `2.6`
    pub name: String,
    /// `2.6.12-1+deb12u4`
    pub full: String,
    /// Its program.
    pub program: PathBuf,
}

impl Version {
    /// Major and minor number, to compare.
    pub fn number(&self) -> (u32, u32) {
        let (major, minor) = self.name.split_once('.').unwrap();
        (major.parse().unwrap(), minor.parse().unwrap())
    }

    /// [`WITHOUT_AUTHORITIES`] where the version has it.
    pub fn without_authorities(&self) -> &'static str {
        if self.number() >= (2, 5) { WITHOUT_AUTHORITIES } else { "" }
    }

    fn of(program: &Path) -> Option<Self> {
        let output = Command::new(program).arg("-v").output().ok()?;
        // "HAProxy version 2.6.12-1+deb12u4 2025/08/22 - …", "HA-Proxy version 2.2.9-2+deb11u6 …"
        let text = String::from_utf8(output.stdout).ok()?;
        let full = text.lines().next()?.split_once("version ")?.1.split(' ').next()?.to_owned();
        let name = full.split('.').take(2).collect::<Vec<_>>().join(".");
        Some(Self { name, full, program: program.to_owned() })
    }
}

/// A line for the `global` section that halves the time of a start: from 2.5 on HAProxy reads all certificates of the
/// host's authorities for its own HTTP client, which no test uses.
pub const WITHOUT_AUTHORITIES: &str = "  httpclient.ssl.verify none\n";

/// The versions that every machine must have, and those that are taken wherever they can be had.
const REQUIRED: [&str; 3] = ["2.2", "2.6", "3.0"];
const MOVING: [&str; 2] = ["3.2", "3.4"];

/// The `HAProxy`s that `tests/install` unpacked. Panics where a required one is missing.
pub fn versions() -> Vec<Version> {
    static THERE: LazyLock<Vec<Version>> = LazyLock::new(|| {
        let unpacked = |name: &str| {
            Version::of(&testbed().join(format!("haproxy-{name}/usr/sbin/haproxy")))
                .filter(|v| v.name == name)
        };
        let required = REQUIRED.map(|name| {
            unpacked(name).unwrap_or_else(|| panic!("HAProxy {name} is missing, run: ./tests/install"))
        });
        required.into_iter().chain(MOVING.iter().copied().filter_map(unpacked)).collect()
    });
    THERE.clone()
}

/// One of [`versions`]; `None` where it is not required and not there.
pub fn version(name: &str) -> Option<Version> {
    versions().into_iter().find(|version| version.name == name)
}

/// The HAProxy that is installed on this machine (Debian 12: 2.6).
pub fn system_haproxy() -> Version {
    static SYSTEM: LazyLock<Version> = LazyLock::new(|| {
        Version::of(Path::new("/usr/sbin/haproxy"))
            .unwrap_or_else(|| panic!("no /usr/sbin/haproxy, run: ./tests/install"))
    });
    SYSTEM.clone()
}

/// Where `tests/install` unpacks.
pub fn testbed() -> PathBuf {
    std::env::var_os("HAPROXY_CERTS_TESTBED").map_or_else(|| target_folder().join("testbed"), PathBuf::from)
}

/// What a HAProxy is started with.
#[derive(Debug, Clone)]
pub struct Setup {
    version: Version,
    binds: Vec<Bind>,
    acme: Option<(u16, u16)>,
    stats_level: String,
    global: String,
    rest: String,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    without_master: bool,
    user: Option<u32>,
    mounts: Option<String>,
}

#[derive(Debug, Clone, Default)]
struct Bind {
    certificates: Vec<String>,
    options: String,
}

impl Setup {
    /// `crt FILE-OR-DIRECTORY` of the current bind line; may be repeated. A directory is spelled as given.
    pub fn crt(mut self, path: impl AsRef<Path>) -> Self {
        let path = path.as_ref().to_str().unwrap().to_owned();
        self.binds.last_mut().unwrap().certificates.push(path);
        self
    }

    /// More on the current bind line: `strict-sni`.
    pub fn bind_option(mut self, option: &str) -> Self {
        write!(self.binds.last_mut().unwrap().options, " {option}").unwrap();
        self
    }

    /// Begins another bind line, with a port of its own, for the following [`Setup::crt`].
    pub fn another_bind(mut self) -> Self {
        self.binds.push(Bind::default());
        self
    }

    /// A plain-HTTP frontend on `port` that sends ACME challenges to `localhost:challenge_port` and redirects
    /// everything else to HTTPS.
    pub fn acme(mut self, port: &Port, challenge_port: &Port) -> Self {
        self.acme = Some((port.number(), challenge_port.number()));
        self
    }

    /// The level of the stats socket; `admin` unless told.
    pub fn stats_level(mut self, level: &str) -> Self {
        level.clone_into(&mut self.stats_level);
        self
    }

    /// More lines for the `global` section.
    pub fn global(mut self, lines: &str) -> Self {
        writeln!(self.global, "{lines}").unwrap();
        self
    }

    /// More sections at the end of the configuration.
    pub fn section(mut self, text: &str) -> Self {
        writeln!(self.rest, "{text}").unwrap();
        self
    }

    /// One process that ignores SIGUSR2, as `haproxy -D` is; its pidfile is there all the same.
    pub fn without_master(mut self) -> Self {
        self.without_master = true;
        self
    }

    /// Started by this user, as a unit with `User=` is.
    pub fn user(mut self, user: u32) -> Self {
        self.user = Some(user);
        self
    }

    /// With mounts of its own, as a unit with `BindPaths=` has: a script makes them. Its root directory is ours.
    pub fn mounts(mut self, script: &str) -> Self {
        self.mounts = Some(script.to_owned());
        self
    }

    /// One more argument on the command line.
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// A variable in its environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts it and waits until it serves.
    #[track_caller]
    pub fn start(self) -> Haproxy {
        let version = self.version.full.clone();
        self.try_start().unwrap_or_else(|log| panic!("HAProxy {version} did not start:\n{log}"))
    }

    /// Starts it and waits until it serves; what it said where it ends instead.
    pub fn try_start(self) -> Result<Haproxy, String> {
        let temporary = tempfile::Builder::new().prefix("haproxy-certs-haproxy-").tempdir().unwrap();
        let ports = self.binds.iter().map(|_| Port::free()).collect();
        let mut haproxy = Haproxy { running: None, ports, setup: self, temporary };
        fs::write(haproxy.config(), haproxy.config_text()).unwrap();
        // Whatever it loads was there before.
        wait_until_it_is_older(haproxy.config());
        haproxy.try_run()?;
        Ok(haproxy)
    }
}

/// What came of a reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reload {
    /// A new worker serves, the old ones are gone.
    Loaded,
    /// HAProxy refused its configuration or a certificate; the old worker serves.
    Refused,
}

/// A running HAProxy: a master and its worker. Ends, with all its workers, when it is dropped.
#[derive(Debug)]
pub struct Haproxy {
    running: Option<Running>,
    ports: Vec<Port>,
    setup: Setup,
    temporary: TempDir,
}

impl Haproxy {
    /// What to start: this version with one bind line, which speaks TLS where it gets a [`Setup::crt`].
    pub fn of(version: &Version) -> Setup {
        Setup {
            version: version.clone(),
            binds: vec![Bind::default()],
            acme: None,
            stats_level: "admin".into(),
            global: String::new(),
            rest: String::new(),
            arguments: Vec::new(),
            environment: Vec::new(),
            without_master: false,
            user: None,
            mounts: None,
        }
    }

    /// A HAProxy that starts now from the same certificates, on other ports.
    #[track_caller]
    pub fn twin(&self) -> Self {
        self.setup.clone().start()
    }

    /// Which version it is.
    pub fn version(&self) -> &Version {
        &self.setup.version
    }

    /// The address of the first bind line.
    pub fn address(&self) -> SocketAddr {
        self.ports[0].address()
    }

    /// The addresses of all bind lines.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.ports.iter().map(Port::address).collect()
    }

    /// Its configuration file; a test may change it and reload.
    pub fn config(&self) -> PathBuf {
        self.temporary.path().join("haproxy.cfg")
    }

    /// Its pidfile, which holds the master's process id.
    pub fn pidfile(&self) -> PathBuf {
        self.temporary.path().join("haproxy.pid")
    }

    /// Its master socket.
    pub fn master_socket(&self) -> PathBuf {
        self.temporary.path().join("master.sock")
    }

    /// Its stats socket: the Runtime API.
    pub fn stats_socket(&self) -> PathBuf {
        self.temporary.path().join("stats.sock")
    }

    /// A `[[haproxy]]` table for it, reached by its pidfile and both sockets; `more` are further lines.
    pub fn table(&self, more: &str) -> String {
        let [pidfile, master, runtime] =
            [self.pidfile(), self.master_socket(), self.stats_socket()].map(|path| toml(&path));
        format!(
            "[[haproxy]]\npidfile = {pidfile}\nmaster_socket = {master}\nruntime_socket = {runtime}\n{more}"
        )
    }

    /// The master's process id.
    pub fn master_pid(&self) -> u32 {
        self.running.as_ref().expect("it runs").pid()
    }

    /// The process ids of its workers, old ones too, as the master shows them.
    pub fn worker_pids(&self) -> Vec<u32> {
        let shown = self.processes().expect("the master answers");
        shown.workers.iter().chain(&shown.old_workers).map(|worker| worker.pid).collect()
    }

    /// What it has written to stdout and stderr since it was made.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// The reply of the Runtime API to one command (with its payload, if it has one).
    #[track_caller]
    pub fn runtime(&self, command: &str) -> String {
        self.ask(&self.stats_socket(), command)
    }

    /// The reply of the master's command line to one command.
    #[track_caller]
    pub fn master(&self, command: &str) -> String {
        self.ask(&self.master_socket(), command)
    }

    /// The SHA-1 fingerprint, 40 upper-case hex digits, of the certificate that it has in memory under this file name.
    pub fn fingerprint(&self, file: &Path) -> Option<String> {
        let reply = self.runtime(&format!("show ssl cert {}", file.display()));
        reply.lines().find_map(|line| line.strip_prefix("SHA1 FingerPrint: ")).map(ToOwned::to_owned)
    }

    /// Reloads in the way that is best for this version, and waits until that has come to its end.
    #[track_caller]
    pub fn reload_and_wait(&mut self) -> Reload {
        let before = self.processes().expect("the master answers");
        if self.version().number() >= (2, 7) {
            let reply = self.master("reload");
            match reply.lines().next() {
                Some("Success=1") => {}
                Some("Success=0") => return Reload::Refused,
                _ => panic!("the reply to reload: {reply:?}"),
            }
        } else {
            self.signal_reload();
        }
        self.wait_for_reload(&before)
    }

    /// Sends the signal that makes the master reload, and doesn't wait.
    pub fn signal_reload(&mut self) {
        self.running.as_mut().expect("it runs").signal(Signal::USR2);
    }

    /// Waits until a reload that began after `before` was taken has come to its end.
    #[track_caller]
    pub fn wait_for_reload(&mut self, before: &Processes) -> Reload {
        let known: BTreeSet<u32> = before.workers.iter().chain(&before.old_workers).map(|w| w.pid).collect();
        let mut result = None;
        wait_until(LIMIT, "the reload", || {
            let Some(now) = self.processes() else { return false };
            if now.reloads <= before.reloads {
                return false;
            }
            let new = now.workers.iter().any(|worker| worker.reloads == 0 && !known.contains(&worker.pid));
            if !new {
                result = Some(Reload::Refused);
                return true;
            }
            // Until the old ones are gone a connection may still reach one of them.
            result = Some(Reload::Loaded);
            now.old_workers.is_empty() && known.iter().all(|pid| !alive(*pid))
        });
        result.unwrap()
    }

    /// What `show proc` says; `None` while the master doesn't answer.
    pub fn processes(&self) -> Option<Processes> {
        Processes::parse(&try_ask(&self.master_socket(), "show proc").ok()?)
    }

    /// Ends it; its directory, ports and configuration stay for [`Haproxy::run_again`].
    pub fn stop(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.stop();
        }
    }

    /// Kills master and workers without a chance to tidy up: pidfile and sockets stay.
    pub fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.signal(Signal::KILL);
            running.stop();
        }
    }

    /// Starts it again after [`Haproxy::stop`] or [`Haproxy::kill`].
    #[track_caller]
    pub fn run_again(&mut self) {
        self.stop();
        self.try_run().unwrap_or_else(|log| panic!("HAProxy did not start again:\n{log}"));
    }

    /// `haproxy -c` on its configuration: what it objects to.
    pub fn check(&self) -> Result<(), String> {
        let mut command = Command::new(&self.setup.version.program);
        let output = finish(command.arg("-c").arg("-f").arg(self.config()), LIMIT);
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into()) }
    }

    fn log_path(&self) -> PathBuf {
        self.temporary.path().join("haproxy.log")
    }

    fn try_run(&mut self) -> Result<(), String> {
        let log = File::options().create(true).append(true).open(self.log_path()).unwrap();
        let start = self.log().len();
        let program = match self.setup.user {
            Some(user) => {
                std::os::unix::fs::chown(self.temporary.path(), Some(user), Some(user)).unwrap();
                Path::new("setpriv")
            }
            None if self.setup.mounts.is_some() => Path::new("unshare"),
            None => &self.setup.version.program,
        };
        let mut running = Running::start(program, |command| {
            if let Some(user) = self.setup.user {
                // The signal of the outer one is lost with its rights.
                command.args(["--pdeathsig", "TERM"]);
                let ids = [format!("--reuid={user}"), format!("--regid={user}"), "--clear-groups".to_owned()];
                command.args(ids).arg("--").arg(&self.setup.version.program);
            } else if let Some(script) = &self.setup.mounts {
                let script = format!("{script} && exec \"$@\"");
                command.args(["--mount", "--propagation", "private", "sh", "-c", &script, "sh"]);
                command.arg(&self.setup.version.program);
            }
            if self.setup.without_master {
                command.arg("-db");
            } else {
                command.arg("-W").arg("-S").arg(self.master_socket()).arg("-p").arg(self.pidfile());
            }
            command
                .arg("-f")
                .arg(self.config())
                .args(&self.setup.arguments)
                .envs(self.setup.environment.iter().map(|(name, value)| (name, value)))
                .current_dir(self.temporary.path());
            command.stdout(log.try_clone().unwrap()).stderr(log)
        });
        let begun = Instant::now();
        loop {
            if let Some(status) = running.ended() {
                return Err(format!("{status}\n{}", &self.log()[start..]));
            }
            let serving =
                |address: &SocketAddr| TcpStream::connect_timeout(address, Duration::from_secs(1)).is_ok();
            // From 3.1 on a worker that refuses its configuration ends, and its master with it: not before it
            // answers for itself is it there to stay.
            if self.addresses().iter().all(serving)
                && try_ask(&self.stats_socket(), "show info").is_ok_and(|reply| reply.contains("Version:"))
                && (self.setup.without_master
                    || self.processes().is_some_and(|shown| !shown.workers.is_empty()))
            {
                break;
            }
            if begun.elapsed() > LIMIT {
                return Err(format!("not serving after {LIMIT:?}\n{}", &self.log()[start..]));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        if self.setup.without_master {
            fs::write(self.pidfile(), format!("{}\n", running.pid())).unwrap();
        }
        self.running = Some(running);
        note_that_it_ran(&self.setup.version);
        Ok(())
    }

    fn config_text(&self) -> String {
        let setup = &self.setup;
        let mut text = String::from("global\n  maxconn 1000\n  tune.ssl.default-dh-param 2048\n");
        writeln!(text, "  stats socket {} level {}", self.stats_socket().display(), setup.stats_level)
            .unwrap();
        text.push_str(setup.version.without_authorities());
        text.push_str(&setup.global);
        text.push_str(
            "defaults\n  mode http\n  timeout connect 10s\n  timeout client 30s\n  timeout server 30s\n",
        );
        text.push_str("frontend sites\n");
        for (bind, port) in setup.binds.iter().zip(&self.ports) {
            let tls = if bind.certificates.is_empty() && bind.options.is_empty() { "" } else { " ssl" };
            write!(text, "  bind {}{tls}", port.address()).unwrap();
            for path in &bind.certificates {
                write!(text, " crt {}", path.replace('\\', "\\\\").replace(' ', "\\ ")).unwrap();
            }
            writeln!(text, "{}", bind.options).unwrap();
        }
        text.push_str("  http-request return status 200\n");
        if let Some((port, challenge_port)) = setup.acme {
            writeln!(
                text,
                "frontend plain\n  bind 127.0.0.1:{port}\n  acl challenge path_beg /.well-known/acme-challenge/\n  \
                 use_backend certbot if challenge\n  redirect scheme https unless challenge\n\
                 backend certbot\n  server certbot localhost:{challenge_port}"
            )
            .unwrap();
        }
        text.push_str(&setup.rest);
        text
    }

    #[track_caller]
    fn ask(&self, socket: &Path, command: &str) -> String {
        try_ask(socket, command)
            .unwrap_or_else(|error| panic!("{command:?} to {}: {error}\n{}", socket.display(), self.log()))
    }
}

/// The processes of a HAProxy, as its master shows them (`show proc`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Processes {
    /// How often the master has executed itself again.
    pub reloads: u32,
    /// How many of the last of these failed (counted since 2.5).
    pub failed: u32,
    /// The workers of the present configuration.
    pub workers: Vec<Worker>,
    /// Those that were replaced and finish their connections; after a failed reload also the one that serves.
    pub old_workers: Vec<Worker>,
}

/// A worker in `show proc`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    /// Its process id.
    pub pid: u32,
    /// How many reloads it has seen.
    pub reloads: u32,
}

impl Processes {
    fn parse(text: &str) -> Option<Self> {
        let mut shown = Self::default();
        let mut old = false;
        let mut master = false;
        // 2.2 has one more column, "<relative PID>", before the reloads: a number, or "[was: 1]" for old workers.
        let text = text.replace("[was: ", "[was:");
        let column = if text.lines().next()?.contains("relative") { 3 } else { 2 };
        for line in text.lines() {
            if let Some(section) = line.strip_prefix("# ") {
                old = section.starts_with("old workers");
                if section.starts_with("programs") || section.starts_with("old programs") {
                    break;
                }
                continue;
            }
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (Some(Ok(pid)), Some(kind)) = (fields.first().map(|f| f.parse()), fields.get(1)) else {
                continue;
            };
            let reloads = fields.get(column)?.parse().ok()?;
            match *kind {
                "master" => {
                    master = true;
                    shown.reloads = reloads;
                    if let Some((_, rest)) = line.split_once("[failed: ") {
                        shown.failed = rest.split(']').next()?.parse().ok()?;
                    }
                }
                "worker" if old => shown.old_workers.push(Worker { pid, reloads }),
                "worker" => shown.workers.push(Worker { pid, reloads }),
                _ => {}
            }
        }
        master.then_some(shown)
    }
}

/// One command to a HAProxy socket: half-closed, read to the end.
pub fn try_ask(socket: &Path, command: &str) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    stream.write_all(command.as_bytes())?;
    if !command.ends_with('\n') {
        stream.write_all(b"\n")?;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply)?;
    Ok(String::from_utf8_lossy(&reply).into())
}

/// For the summary of `tests/run`: which versions really ran.
fn note_that_it_ran(version: &Version) {
    let folder = testbed().join("ran");
    if fs::create_dir_all(&folder).is_ok() {
        let _ = fs::write(folder.join(&version.full), "");
    }
}
