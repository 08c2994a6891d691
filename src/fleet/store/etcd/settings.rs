//! What is needed to reach an etcd.

use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::CWD;
use ureq::http::Uri;
use zeroize::Zeroizing;

use crate::fleet::name::FleetName;
use crate::fleet::store::error::StoreError;
use crate::sys::escape::{escaped, escaped_path, shell_word};
use crate::sys::safe_read::read_regular;

/// How to reach an etcd, and which fleet's values are meant.
#[derive(Debug, Clone)]
pub struct EtcdSettings {
    /// The fleet.
    pub fleet: FleetName,
    /// The members' addresses: `https://e1:2379`.
    pub endpoints: Vec<String>,
    /// The CA of the members' certificates, PEM; without it those that this system trusts.
    pub ca: Option<PathBuf>,
    /// This host's certificate, PEM. Without a CN: etcd's gateway refuses one with a CN once users are on.
    pub certificate: Option<PathBuf>,
    /// Its private key, PEM.
    pub key: Option<PathBuf>,
    /// etcd's user.
    pub user: Option<String>,
    /// A file with the user's password.
    pub password_file: Option<PathBuf>,
    /// How long one member may take to answer.
    pub time_out: Duration,
    /// How long all of them are tried again and again.
    pub patience: Duration,
}

/// A password file has at most so many bytes.
const MAX_PASSWORD: usize = 4096;

impl EtcdSettings {
    /// The settings of these members, without TLS and users.
    #[must_use]
    pub fn new(fleet: FleetName, endpoints: Vec<String>) -> Self {
        Self {
            fleet,
            endpoints,
            ca: None,
            certificate: None,
            key: None,
            user: None,
            password_file: None,
            // Without a quorum etcd says so after 7 seconds.
            time_out: Duration::from_secs(10),
            patience: Duration::from_secs(20),
        }
    }

    /// The members' addresses, without a slash at their end.
    pub(super) fn members(&self) -> Result<Vec<String>, StoreError> {
        if self.endpoints.is_empty() {
            return Err(StoreError::Setup("no store is set".into()));
        }
        self.endpoints.iter().map(|endpoint| self.member(endpoint)).collect()
    }

    fn member(&self, endpoint: &str) -> Result<String, StoreError> {
        let wrong = |what| Err(StoreError::Setup(format!("the store {}: {what}", escaped(endpoint))));
        let Ok(uri) = endpoint.parse::<Uri>() else { return wrong("it is not an address") };
        let Some(host) = uri.host().filter(|host| !host.is_empty()) else { return wrong("it names no host") };
        if !uri.path().trim_end_matches('/').is_empty() || uri.query().is_some() || endpoint.contains('@') {
            return wrong("it is more than a scheme, a host and a port");
        }
        let is_here = host == "localhost" || host == "[::1]" || host.starts_with("127.");
        match uri.scheme_str() {
            Some("https") => {}
            Some("http") if self.user.is_none() || is_here => {}
            Some("http") => return wrong("the password would be sent in plain text: take https"),
            _ => return wrong("it begins with neither http:// nor https://"),
        }
        Ok(endpoint.trim_end_matches('/').to_owned())
    }

    /// The password, as it is in its file now.
    pub(super) fn password(&self) -> Result<Zeroizing<String>, StoreError> {
        use std::os::unix::fs::PermissionsExt as _;
        let Some(path) = &self.password_file else {
            return Err(StoreError::Setup("the store has a user, but no password file is set".into()));
        };
        let failed = |cause| StoreError::Io { deed: "read", path: path.clone(), cause };
        let meta = std::fs::metadata(path).map_err(failed)?;
        let shown = escaped_path(path);
        let no_password = || StoreError::Setup(format!("{shown} is no password file"));
        if meta.permissions().mode() & 0o007 != 0 {
            let word = shell_word(path.as_os_str());
            let advice = format!("anybody may read {shown}; run: chmod o= {word}");
            return Err(StoreError::Setup(advice));
        }
        if !meta.is_file() || meta.len() > MAX_PASSWORD as u64 {
            return Err(no_password());
        }
        let (text, _) = read_regular(&CWD, path.as_os_str()).map_err(|e| failed(e.into()))?;
        let password = str::from_utf8(&text).map_err(|_| no_password())?.trim_end_matches(['\r', '\n']);
        if password.is_empty() {
            return Err(StoreError::Setup(format!("{shown} is empty")));
        }
        Ok(Zeroizing::new(password.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn settings(endpoint: &str) -> EtcdSettings {
        EtcdSettings::new("edge".parse().unwrap(), vec![endpoint.into()])
    }

    #[test]
    fn what_is_no_address_of_a_member() {
        for good in ["http://e1:2379", "https://e1:2379/", "https://10.0.0.1", "https://[::1]:2379"] {
            assert_eq!(settings(good).members().unwrap(), [good.trim_end_matches('/')]);
        }
        for bad in
            ["", "e1:2379", "ftp://e1", "https://", "https://u:p@e1", "https://e1/v3", "https://e1?x", "a b"]
        {
            assert!(settings(bad).members().is_err(), "{bad}");
        }
        let with_user = |endpoint: &str| EtcdSettings { user: Some("u".into()), ..settings(endpoint) };
        assert!(with_user("http://e1:2379").members().is_err());
        assert!(with_user("http://127.0.0.1:2379").members().is_ok());
        assert!(with_user("https://e1:2379").members().is_ok());
    }

    #[test]
    fn a_password_file_that_anybody_may_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        fs::write(&path, "secret\n").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let settings = EtcdSettings { password_file: Some(path.clone()), ..settings("https://e1") };
        assert_eq!(*settings.password().unwrap(), "secret");
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert!(settings.password().unwrap_err().to_string().contains("chmod o="));
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        for none in [&b"\xff"[..], b"\n", &[b'x'; MAX_PASSWORD + 1]] {
            fs::write(&path, none).unwrap();
            assert!(matches!(settings.password(), Err(StoreError::Setup(_))));
        }
    }

    #[test]
    fn advice_can_be_pasted_where_the_path_has_a_blank() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pass word");
        fs::write(&path, "secret\n").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let settings = EtcdSettings { password_file: Some(path), ..settings("https://e1") };
        let said = settings.password().unwrap_err().to_string();
        let advice = said.split_once("; run: ").unwrap().1;
        assert!(std::process::Command::new("sh").args(["-ec", advice]).status().unwrap().success());
        assert_eq!(*settings.password().unwrap(), "secret");
    }
}
