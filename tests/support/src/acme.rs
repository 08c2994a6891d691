//! A real certbot, and Pebble: an ACME server for tests; and the clients that `tests/install` unpacks.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use tempfile::TempDir;

use super::cmd::Cmd;
use super::haproxy::{Haproxy, system_haproxy, testbed};
use super::pki::{Authority, KeyKind, Validity};
use super::ports::Port;
use super::process::{Running, finish};
use super::tls::try_served;
use super::tree::{make_directory, write};
use super::{LIMIT, wait_until};

/// A running Pebble with a DNS server that resolves every name to 127.0.0.1. Keeps nothing; ends when it is dropped.
#[derive(Debug)]
pub struct Pebble {
    _server: Running,
    _dns: Running,
    api: Port,
    _management: Port,
    _dns_port: Port,
    dns_management: Port,
    _tls: Port,
    temporary: TempDir,
}

/// The life of a certificate of the profile `shortlived`.
pub const SHORT_LIFE: Duration = Duration::from_secs(6 * 86_400);

/// What a Pebble is started with.
#[derive(Debug, Clone)]
pub struct PebbleSetup {
    program: PathBuf,
    life: Duration,
    names: Option<SocketAddr>,
    /// Where every name is, unless a name server tells.
    at: Ipv4Addr,
    http_port: u16,
}

impl PebbleSetup {
    /// Certificates live as long as this, other than 90 days.
    pub fn life(self, life: Duration) -> Self {
        Self { life, ..self }
    }

    /// One that has profiles of certificates: `shortlived` is one. Debian 12's has none.
    pub fn with_profiles(self) -> Self {
        Self { program: unpacked("pebble/usr/bin/pebble"), ..self }
    }

    /// Names are looked up at this name server.
    pub fn names_at(self, server: SocketAddr) -> Self {
        Self { names: Some(server), ..self }
    }

    /// Every name is on the host with this address, and HTTP challenges are validated on its port 80.
    pub fn on_port_80_of(self, at: Ipv4Addr) -> Pebble {
        Pebble::run(&Self { at, http_port: 80, ..self })
    }

    /// Starts it; it validates HTTP challenges at `127.0.0.1:http_port`.
    pub fn start(self, http_port: &Port) -> Pebble {
        Pebble::run(&Self { http_port: http_port.number(), ..self })
    }
}

/// A program that `tests/install` unpacked.
pub fn unpacked(path: &str) -> PathBuf {
    let program = testbed().join(path);
    assert!(program.exists(), "no {}, run: ./tests/install", program.display());
    program
}

/// The newest certbot, from `PyPI`.
pub fn newest_certbot() -> PathBuf {
    unpacked("certbot/bin/certbot")
}

impl Pebble {
    /// What to start: Debian's own.
    pub fn setup() -> PebbleSetup {
        let life = Duration::from_secs(90 * 86_400);
        PebbleSetup { program: "pebble".into(), life, names: None, at: Ipv4Addr::LOCALHOST, http_port: 80 }
    }

    /// Starts one that validates HTTP challenges at `127.0.0.1:http_port`.
    pub fn start(http_port: &Port) -> Self {
        Self::setup().start(http_port)
    }

    /// [`Pebble::start`], whose certificates live as long as this.
    pub fn issuing_for(http_port: &Port, life: Duration) -> Self {
        Self::setup().life(life).start(http_port)
    }

    fn run(setup: &PebbleSetup) -> Self {
        let temporary = tempfile::Builder::new().prefix("haproxy-certs-pebble-").tempdir().unwrap();
        let folder = temporary.path();
        let [api, management, dns_port, dns_management, tls] = std::array::from_fn(|_| Port::free());
        // The certificate of its API isn't one of those that it issues.
        let authority = Authority::new();
        let (certificate, key) = authority.localhost(folder);
        fs::write(folder.join("api-ca.pem"), authority.root()).unwrap();
        let config = serde_json::json!({ "pebble": {
            "listenAddress": api.address(),
            "managementListenAddress": management.address(),
            "certificate": certificate,
            "privateKey": key,
            "httpPort": setup.http_port,
            "tlsPort": tls.number(),
            "ocspResponderURL": "",
            "externalAccountBindingRequired": false,
            "certificateValidityPeriod": setup.life.as_secs(),
            "profiles": {
                "default": { "description": "by default", "validityPeriod": setup.life.as_secs() },
                "shortlived": { "description": "six days", "validityPeriod": SHORT_LIFE.as_secs() },
            },
        }});
        fs::write(folder.join("pebble.json"), config.to_string()).unwrap();
        let log = |name: &str| File::create(folder.join(name)).unwrap();
        let dns_log = log("dns.log");
        let dns = Running::start("pebble-challtestsrv", |command| {
            command.args(["-defaultIPv4", &setup.at.to_string(), "-defaultIPv6", ""]);
            command.args(["-http01", "", "-https01", "", "-tlsalpn01", ""]);
            command.arg("-dns01").arg(dns_port.address().to_string());
            command.arg("-management").arg(dns_management.address().to_string());
            command.stdout(dns_log.try_clone().unwrap()).stderr(dns_log)
        });
        let pebble_log = log("pebble.log");
        let mut pebble = Running::start(&setup.program, |command| {
            command.arg("-config").arg(folder.join("pebble.json"));
            command.arg("-dnsserver").arg(setup.names.unwrap_or(dns_port.address()).to_string());
            // No artificial delays, no rejected nonces, no validation left out.
            command
                .env("PEBBLE_VA_NOSLEEP", "1")
                .env("PEBBLE_WFE_NONCEREJECT", "0")
                .env("PEBBLE_AUTHZREUSE", "0");
            command.stdout(pebble_log.try_clone().unwrap()).stderr(pebble_log)
        });
        let reached =
            |address: SocketAddr| TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok();
        wait_until(LIMIT, "Pebble and its DNS server", || {
            let ended = pebble.ended();
            assert!(ended.is_none(), "pebble: {ended:?}\n{}", read(&folder.join("pebble.log")));
            reached(dns_management.address()) && try_served(api.address(), "localhost").is_ok()
        });
        Self {
            _server: pebble,
            _dns: dns,
            api,
            _management: management,
            _dns_port: dns_port,
            dns_management,
            _tls: tls,
            temporary,
        }
    }

    /// The address of its directory: `certbot --server`.
    pub fn directory(&self) -> String {
        format!("https://localhost:{}/dir", self.api.number())
    }

    /// The command of a shell that lets its DNS server answer a DNS challenge of certbot's: a `--manual-auth-hook`.
    pub fn dns_hook(&self) -> String {
        format!(
            "curl -fsS -d '{{\"host\":\"_acme-challenge.'$CERTBOT_DOMAIN'.\",\"value\":\"'$CERTBOT_VALIDATION'\"}}' \
             http://{}/set-txt",
            self.dns_management.address()
        )
    }

    /// The root certificate of its API, PEM file.
    pub fn api_ca(&self) -> PathBuf {
        self.temporary.path().join("api-ca.pem")
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        read(&self.temporary.path().join("pebble.log"))
    }
}

/// The real certbot, in standalone mode, with directories of its own.
#[derive(Debug)]
pub struct Certbot {
    temporary: TempDir,
    server: String,
    api_ca: PathBuf,
    challenge_port: u16,
    environment: Vec<(OsString, OsString)>,
}

impl Certbot {
    /// One that asks `pebble`, and answers its HTTP challenges on `challenge_port`.
    pub fn of(pebble: &Pebble, challenge_port: &Port) -> Self {
        Self::answering_on(pebble, challenge_port.number())
    }

    /// The same on a port of a host that nobody else has.
    pub fn answering_on(pebble: &Pebble, challenge_port: u16) -> Self {
        Self {
            temporary: tempfile::Builder::new().prefix("haproxy-certs-certbot-").tempdir().unwrap(),
            server: pebble.directory(),
            api_ca: pebble.api_ca(),
            challenge_port,
            environment: Vec::new(),
        }
    }

    /// Sets a variable in the environment of certbot and its hooks.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.as_ref().into(), value.as_ref().into()));
        self
    }

    /// Its configuration directory.
    pub fn config_dir(&self) -> PathBuf {
        self.temporary.path().join("letsencrypt")
    }

    /// Its `live` directory.
    pub fn live(&self) -> PathBuf {
        self.config_dir().join("live")
    }

    /// The serial number of what `live/NAME/cert.pem` holds, as openssl prints it.
    pub fn serial(&self, name: &str) -> String {
        let pem = fs::read(self.live().join(name).join("cert.pem")).unwrap();
        super::tls::serial(&openssl::x509::X509::from_pem(&pem).unwrap())
    }

    /// `certbot certonly --standalone` with these arguments; it must succeed.
    #[track_caller]
    pub fn certonly(&self, arguments: &[&str]) -> Output {
        let mut all = vec!["certonly", "--standalone"];
        all.extend(arguments);
        self.succeed(&all)
    }

    /// `certbot` with these arguments; it must succeed.
    #[track_caller]
    pub fn succeed(&self, arguments: &[&str]) -> Output {
        let output = self.run(arguments);
        assert!(
            output.status.success(),
            "certbot {arguments:?}: {}\n{}{}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
            self.log()
        );
        output
    }

    /// `certbot` with these arguments.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Output {
        let folder = self.temporary.path();
        let mut command = Command::new("certbot");
        command.args(arguments).arg("--config-dir").arg(self.config_dir());
        command.arg("--work-dir").arg(folder.join("work")).arg("--logs-dir").arg(folder.join("logs"));
        command.args(["--server", &self.server, "--non-interactive"]);
        // certbot refuses arguments that its verb doesn't know.
        if matches!(arguments.first(), Some(&("certonly" | "renew"))) {
            command.args(["--agree-tos", "--register-unsafely-without-email"]);
            command.arg("--http-01-port").arg(self.challenge_port.to_string());
        }
        if arguments.first() == Some(&"renew") {
            command.arg("--no-random-sleep-on-renew");
        }
        command.env("REQUESTS_CA_BUNDLE", &self.api_ca);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        finish(&mut command, Duration::from_secs(300))
    }

    /// The next renewal of this lineage is by a new account, which must answer a challenge: Pebble takes one in a hundred of
    /// an account's valid authorizations again, whatever `PEBBLE_AUTHZREUSE` says.
    pub fn forget_account(&self, lineage: &str) {
        fs::remove_dir_all(self.config_dir().join("accounts")).unwrap();
        let conf = self.config_dir().join("renewal").join(format!("{lineage}.conf"));
        let text = fs::read_to_string(&conf).unwrap();
        let kept: Vec<&str> = text.lines().filter(|line| !line.starts_with("account =")).collect();
        assert_ne!(kept.len(), text.lines().count(), "{text}");
        fs::write(&conf, kept.join("\n") + "\n").unwrap();
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        read(&self.temporary.path().join("logs/letsencrypt.log"))
    }
}

/// A HAProxy that passes challenges on, with a host certificate and this program's sites directory.
pub fn in_front_of_certbot(cmd: &Cmd, http: &Port, challenge: &Port) -> Haproxy {
    let host = Authority::new().issue(KeyKind::P256, &["host.example"], Validity::days(3650));
    write(&cmd.beside("host.pem"), host.combined(), 0o400);
    make_directory(&cmd.sites(), 0o700);
    Haproxy::of(&system_haproxy()).crt(cmd.beside("host.pem")).crt(cmd.sites()).acme(http, challenge).start()
}

fn read(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}
