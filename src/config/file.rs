//! The configuration file as it is written.

use std::path::PathBuf;

use serde::Deserialize;

use super::challenge;
use super::fleet::FleetTable;
use super::haproxy::HaproxyTable;
use super::unusable::Unusable;

/// The whole file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(clippy::struct_field_names, reason = "the fields are the keys of the file")]
pub(super) struct ConfigFile {
    pub(super) live_dir: Option<PathBuf>,
    pub(super) sites_dir: PathBuf,
    pub(super) owner: Option<String>,
    pub(super) mode: String,
    pub(super) include: Vec<String>,
    pub(super) exclude: Vec<String>,
    pub(super) key_file: String,
    pub(super) chain_file: String,
    pub(super) host_lineage: Option<String>,
    pub(super) host_file: PathBuf,
    pub(super) haproxy: Vec<HaproxyTable>,
    pub(super) fleet: Option<FleetTable>,
    pub(super) certbot: CertbotTable,
}

impl Default for ConfigFile {
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

/// `[certbot]`
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct CertbotTable {
    pub(super) binary: String,
    pub(super) authenticator: String,
    pub(super) http_01_port: u16,
    pub(super) challenge_servers: Vec<String>,
    pub(super) args: Vec<String>,
}

impl CertbotTable {
    /// What certbot couldn't be called with is refused.
    pub(super) fn check(&self) -> Result<(), Unusable> {
        if self.http_01_port == 0 {
            return Err(Unusable::NoPort);
        }
        if self.binary.is_empty() {
            return Err(Unusable::NoCertbot);
        }
        challenge::check(&self.challenge_servers)?;
        let name = &self.authenticator;
        if name.is_empty() || name.starts_with('-') || name.contains(char::is_whitespace) {
            return Err(Unusable::Authenticator(name.clone()));
        }
        Ok(())
    }
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
