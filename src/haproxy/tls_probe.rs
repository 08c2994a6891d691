//! A TLS handshake with a running HAProxy: which certificate does it present for a name?
//!
//! Whether the certificate is trusted doesn't matter here, only whether it is the deployed one; that the peer has its
//! private key is verified by the handshake's signature.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, DnsName, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};

use crate::certified_key::KeyType;
use crate::config::Haproxy;
use crate::haproxy::batch::{Batch, Expected};
use crate::sys::escape::escaped;
use crate::sys::failure::io_cause;
use crate::sys::host_port::HostPort;
use crate::sys::parallel;

/// How long one handshake may take.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);

/// How many handshakes are under way at once.
const AT_ONCE: usize = 16;

/// How long to wait before the names that aren't right yet are tried again.
const PAUSE: Duration = Duration::from_millis(100);

/// Why no certificate was presented.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// No connection, or it broke off.
    #[error("{}", io_cause(.0))]
    Io(#[from] io::Error),
    /// The TLS handshake failed.
    #[error("{0}")]
    Tls(#[from] rustls::Error),
    /// The name can't be sent as SNI.
    #[error("not a DNS name")]
    NoName,
}

/// What probing a batch showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probed {
    /// Every name at every address presented exactly what is deployed.
    Right,
    /// Some didn't in time: the first of them, and what was presented.
    Wrong(String),
    /// No address that isn't right speaks TLS, which no reload mends: the first of them, and the cause.
    Unanswered {
        /// The address.
        address: String,
        /// The name that was asked for there, and the cause.
        how: String,
    },
    /// There is no address, or no name to ask for.
    Nothing,
}

/// One handshake to be done.
struct Probe<'a> {
    address: &'a HostPort,
    name: String,
    expected: &'a Expected,
}

/// Does one handshake with `address` for `name`, as a client that knows only `key_type`, and returns the DER of the
/// leaf that was presented.
///
/// # Errors
/// No certificate was presented in time.
pub fn presented(
    address: &HostPort,
    name: &str,
    key_type: &KeyType,
    deadline: Instant,
) -> Result<Vec<u8>, ProbeError> {
    let name = DnsName::try_from(name.to_owned()).map_err(|_| ProbeError::NoName)?;
    let deadline = deadline.min(Instant::now() + HANDSHAKE_LIMIT);
    let mut stream = Timed { stream: connect(address, deadline)?, deadline };
    let mut session = ClientConnection::new(config(key_type)?, ServerName::DnsName(name))?;
    while session.is_handshaking() {
        if let Err(error) = session.complete_io(&mut stream) {
            // A peer that wants a certificate of ours has shown its own by now.
            if session.peer_certificates().is_some() {
                break;
            }
            // What TLS itself objects to, a refusal by the peer too, comes wrapped.
            return Err(error.downcast::<rustls::Error>().map_or_else(ProbeError::Io, ProbeError::Tls));
        }
    }
    let leaf = session.peer_certificates().and_then(<[_]>::first).map(|leaf| leaf.to_vec());
    leaf.ok_or(ProbeError::Tls(rustls::Error::NoCertificatesPresented))
}

/// Probes every name that the changed files win at every address, until each presents exactly the deployed leaf or
/// the time is up.
#[must_use]
pub fn confirm(haproxy: &Haproxy, batch: &Batch<'_>, deadline: Instant) -> Probed {
    let mut probes = probes(haproxy, batch);
    if probes.is_empty() {
        return Probed::Nothing;
    }
    loop {
        let mut wrong = run(probes, deadline);
        wrong.sort_by(|(a, _), (b, _)| (a.address.as_str(), &a.name).cmp(&(b.address.as_str(), &b.name)));
        // What is presented says more than that nobody answers.
        let says_more = wrong.iter().find(|(_, wrong)| !wrong.is_unanswered);
        let Some((first, worst)) = says_more.or_else(|| wrong.first()) else { return Probed::Right };
        if Instant::now() + PAUSE >= deadline {
            let how = format!("{} at {}: {}", escaped(&first.name), first.address, worst.how);
            let address = first.address.as_str().to_owned();
            return if worst.is_unanswered {
                Probed::Unanswered { address, how }
            } else {
                Probed::Wrong(how)
            };
        }
        probes = wrong.into_iter().map(|(probe, _)| probe).collect();
        sleep(PAUSE);
    }
}

fn probes<'a>(haproxy: &'a Haproxy, batch: &'a Batch<'_>) -> Vec<Probe<'a>> {
    let mut probes = Vec::new();
    for expected in batch.changes.iter().filter_map(|change| change.now.as_ref()) {
        for name in expected.names_won.iter().filter_map(|name| server_name(name)) {
            probes.extend(haproxy.probe.iter().map(|address| Probe {
                address,
                name: name.clone(),
                expected,
            }));
        }
    }
    probes
}

/// The name to ask for: a label made up for a wildcard; none for an IP address, which SNI can't carry.
pub(crate) fn server_name(name: &str) -> Option<String> {
    let name = match name.strip_prefix("*.") {
        Some(parent) => format!("haproxy-certs-probe.{parent}"),
        None => name.to_owned(),
    };
    matches!(ServerName::try_from(name.as_str()), Ok(ServerName::DnsName(_))).then_some(name)
}

/// Does all probes, some at once; the ones that aren't right, and how.
fn run(probes: Vec<Probe<'_>>, deadline: Instant) -> Vec<(Probe<'_>, Wrong)> {
    let hows = parallel::at_once(&probes, AT_ONCE, |probe| probe.run(deadline).err());
    probes.into_iter().zip(hows).filter_map(|(probe, how)| Some((probe, how?))).collect()
}

/// Why a probe isn't right.
struct Wrong {
    how: String,
    /// Whether nobody speaks TLS there: it isn't HAProxy's certificates that are wrong.
    is_unanswered: bool,
}

impl From<ProbeError> for Wrong {
    fn from(error: ProbeError) -> Self {
        let is_unanswered =
            matches!(error, ProbeError::Io(_) | ProbeError::Tls(rustls::Error::InvalidMessage(_)));
        Self { how: escaped(&error.to_string()).to_string(), is_unanswered }
    }
}

impl Probe<'_> {
    fn run(&self, deadline: Instant) -> Result<(), Wrong> {
        let leaf = presented(self.address, &self.name, &self.expected.key_type, deadline)?;
        let sha256 = ::aws_lc_rs::digest::digest(&::aws_lc_rs::digest::SHA256, &leaf);
        if sha256.as_ref() == self.expected.sha256 {
            Ok(())
        } else {
            Err(Wrong { how: "presents another certificate".to_owned(), is_unanswered: false })
        }
    }
}

/// For a client that knows only `key_type` and accepts every issuer; any other than these kinds stands for all of them.
///
/// # Errors
/// rustls has none of its protocol versions.
pub fn config(key_type: &KeyType) -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let schemes = schemes(key_type, &provider);
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyIssuer { provider, schemes }))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// The signature schemes that a client offers who knows only keys of this type: HAProxy chooses between the
/// certificates of a name by them.
fn schemes(key_type: &KeyType, provider: &CryptoProvider) -> Vec<SignatureScheme> {
    use SignatureScheme as S;
    match key_type {
        KeyType::EcdsaP256 => vec![S::ECDSA_NISTP256_SHA256],
        KeyType::EcdsaP384 => vec![S::ECDSA_NISTP384_SHA384],
        KeyType::EcdsaP521 => vec![S::ECDSA_NISTP521_SHA512],
        KeyType::Rsa(_) => vec![
            S::RSA_PSS_SHA256,
            S::RSA_PSS_SHA384,
            S::RSA_PSS_SHA512,
            S::RSA_PKCS1_SHA256,
            S::RSA_PKCS1_SHA384,
            S::RSA_PKCS1_SHA512,
        ],
        KeyType::Ed25519 => vec![S::ED25519],
        KeyType::OtherEcdsa(_) | KeyType::Other(_) => {
            provider.signature_verification_algorithms.supported_schemes()
        }
    }
}

/// Accepts every issuer, and checks that the peer has the key of what it presents.
#[derive(Debug)]
struct AnyIssuer {
    provider: Arc<CryptoProvider>,
    schemes: Vec<SignatureScheme>,
}

impl ServerCertVerifier for AnyIssuer {
    fn verify_server_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, leaf, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, leaf, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}

/// A connection of which every read and write ends by the deadline.
struct Timed {
    stream: TcpStream,
    deadline: Instant,
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(remaining(self.deadline)?))?;
        self.stream.read(buffer).map_err(in_time)
    }
}

impl Write for Timed {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(remaining(self.deadline)?))?;
        self.stream.write(buffer).map_err(in_time)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

fn connect(address: &HostPort, deadline: Instant) -> io::Result<TcpStream> {
    let mut last = io::ErrorKind::NotFound.into();
    for address in address.addresses(deadline)? {
        match TcpStream::connect_timeout(&address, remaining(deadline)?) {
            Ok(stream) => {
                // The handshake's small messages would wait for one another.
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn remaining(deadline: Instant) -> io::Result<Duration> {
    deadline
        .checked_duration_since(Instant::now())
        .filter(|left| !left.is_zero())
        .ok_or_else(|| io::ErrorKind::TimedOut.into())
}

/// The kernel's word for a time-out of a blocking socket is `EAGAIN`.
fn in_time(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock { io::ErrorKind::TimedOut.into() } else { error }
}

#[cfg(test)]
mod tests {
    use super::server_name;

    #[test]
    fn names_are_asked_for_as_sni_can_carry_them() {
        assert_eq!(server_name("a.example").as_deref(), Some("a.example"));
        assert_eq!(server_name("*.a.example").as_deref(), Some("haproxy-certs-probe.a.example"));
        for none in ["192.0.2.7", "::1", "", "a b", "*"] {
            assert_eq!(server_name(none), None, "{none}");
        }
    }
}
