//! Knot: a real name server whose zone a DNS plugin of certbot's changes (RFC 2136).

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use tempfile::TempDir;

use super::ports::Port;
use super::process::Running;
use super::tree::write;
use super::{LIMIT, wait_until};

/// The key that allows changes: for these tests only.
const SECRET: &str = "bWFkZSBmb3IgdGhlIHRlc3RzIG9ubHksIDMyIGJ5dGU=";

/// A running name server with one zone, in which every name is 127.0.0.1.
#[derive(Debug)]
pub struct NameServer {
    _running: Running,
    port: Port,
    temporary: TempDir,
}

impl NameServer {
    /// Starts one for this zone: `example.org`.
    pub fn of(zone: &str) -> Self {
        let temporary = tempfile::Builder::new().prefix("haproxy-certs-knot-").tempdir().unwrap();
        let folder = temporary.path();
        let port = Port::free();
        for name in ["run", "db"] {
            fs::create_dir(folder.join(name)).unwrap();
        }
        let shown = folder.display();
        let config = format!(
            "server:\n  rundir: {shown}/run\n  listen: 127.0.0.1@{}\nlog:\n- target: stderr\n  any: info\n\
             database:\n  storage: {shown}/db\nkey:\n- id: certbot\n  algorithm: hmac-sha256\n  secret: {SECRET}\n\
             acl:\n- id: certbot\n  key: certbot\n  action: update\n\
             zone:\n- domain: {zone}\n  storage: {shown}\n  file: zone\n  acl: certbot\n",
            port.number()
        );
        fs::write(folder.join("knot.conf"), config).unwrap();
        let records = "@ SOA ns admin 1 3600 600 86400 60\n@ NS ns\n@ A 127.0.0.1\n* A 127.0.0.1\n";
        fs::write(folder.join("zone"), format!("$ORIGIN {zone}.\n$TTL 60\n{records}")).unwrap();
        let credentials = format!(
            "dns_rfc2136_server = 127.0.0.1\ndns_rfc2136_port = {}\ndns_rfc2136_name = certbot\n\
             dns_rfc2136_secret = {SECRET}\ndns_rfc2136_algorithm = HMAC-SHA256\n",
            port.number()
        );
        write(&folder.join("rfc2136.ini"), credentials, 0o600);
        let log = fs::File::create(folder.join("log")).unwrap();
        let mut running = Running::start("knotd", |command| {
            command.arg("-c").arg(folder.join("knot.conf"));
            command.stdout(log.try_clone().unwrap()).stderr(log)
        });
        let said = || fs::read_to_string(folder.join("log")).unwrap_or_default();
        wait_until(LIMIT, "the name server", || {
            let ended = running.ended();
            assert!(ended.is_none(), "knotd: {ended:?}\n{}", said());
            said().contains("server started")
        });
        Self { _running: running, port, temporary }
    }

    /// Where it answers.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// The file that lets certbot change the zone: `--dns-rfc2136-credentials`.
    pub fn credentials(&self) -> PathBuf {
        self.temporary.path().join("rfc2136.ini")
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.temporary.path().join("log")).unwrap()
    }
}
