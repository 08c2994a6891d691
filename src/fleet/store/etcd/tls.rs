//! TLS to etcd: which CA counts, and this host's certificate.

use std::path::Path;
use std::sync::Arc;

use rustix::fs::CWD;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};
use zeroize::Zeroizing;

use super::settings::EtcdSettings;
use crate::fleet::store::error::StoreError;
use crate::sys::escape::escaped_path;
use crate::sys::safe_read::{Unopened, read_regular_within};

/// What this system trusts (Debian's `ca-certificates`, and Fedora's link to its own).
const SYSTEM_CAS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Larger files hold no certificates.
const MAX_BYTES: u64 = 4 << 20;

/// How to speak TLS; `None`: nobody is spoken to by TLS.
pub(super) fn config(settings: &EtcdSettings, members: &[String]) -> Result<Option<TlsConfig>, StoreError> {
    if !members.iter().any(|member| member.starts_with("https:")) {
        return Ok(None);
    }
    let cas = certificates(settings.ca.as_deref().unwrap_or(Path::new(SYSTEM_CAS)))?;
    let mut config = TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(aws_lc_rs::default_provider()))
        .root_certs(RootCerts::new_with_certs(&own(&cas)));
    match (&settings.certificate, &settings.key) {
        (None, None) => {}
        (Some(certificate), key) => {
            let key = key.as_ref().unwrap_or(certificate);
            config = config.client_cert(Some(client(certificate, key)?));
        }
        (None, Some(_)) => return Err(StoreError::Setup("the store has a key, but no certificate".into())),
    }
    Ok(Some(config.build()))
}

fn client(certificate: &Path, key: &Path) -> Result<ClientCert, StoreError> {
    let chain = certificates(certificate)?;
    let text = read(key)?;
    let Ok(private) = PrivateKeyDer::from_pem_slice(&text) else {
        return Err(StoreError::Setup(format!("{} holds no private key", escaped_path(key))));
    };
    // Tried here: later it would be a panic.
    let tried = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map(|builder| builder.with_root_certificates(RootCertStore::empty()))
        .and_then(|builder| builder.with_client_auth_cert(chain.clone(), private));
    if let Err(cause) = tried {
        let paths = (escaped_path(certificate), escaped_path(key));
        return Err(StoreError::Setup(format!("{} and {} can't be used: {cause}", paths.0, paths.1)));
    }
    let Ok(private) = PrivateKey::from_pem(&text) else {
        return Err(StoreError::Setup(format!("{} holds no private key", escaped_path(key))));
    };
    Ok(ClientCert::new_with_certs(&own(&chain), private))
}

fn own(certificates: &[CertificateDer<'_>]) -> Vec<Certificate<'static>> {
    certificates.iter().map(|der| Certificate::from_der(der).to_owned()).collect()
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, StoreError> {
    let text = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(StoreError::Setup(format!("{} holds no certificate", escaped_path(path)))),
    }
}

/// What is read may be a private key, also where certificates are looked for.
fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    match read_regular_within(&CWD, path.as_os_str(), MAX_BYTES) {
        Ok((text, _)) => Ok(text),
        Err(Unopened::Io(cause)) => Err(StoreError::Io { deed: "read", path: path.to_owned(), cause }),
        Err(Unopened::NotRegular(_) | Unopened::TooLarge(_)) => {
            Err(StoreError::Setup(format!("{} is no PEM file", escaped_path(path))))
        }
    }
}
