//! What a server presents: by a handshake in this process, or by the `openssl s_client` program.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use openssl::hash::MessageDigest;
use openssl::ssl::{Ssl, SslContext, SslMethod, SslVerifyMode};
use openssl::x509::{X509, X509Ref};

use super::process::finish;

/// The certificate that a server presented, and how many came with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServedCertificate {
    /// Upper-case hex, as openssl prints it.
    pub serial: String,
    /// SHA-256 of the leaf's DER, lower-case hex.
    pub sha256: String,
    /// The names of the subjectAltName extension, DNS names and IP addresses, in its order.
    pub names: Vec<String>,
    /// How many certificates were sent, the leaf included.
    pub chain_len: usize,
}

impl ServedCertificate {
    /// What `leaf` would look like, sent in a chain of this length.
    pub fn of(leaf: &X509Ref, chain_len: usize) -> Self {
        let names = leaf.subject_alt_names().map_or_else(Vec::new, |names| {
            let text = |name: &openssl::x509::GeneralNameRef| {
                name.dnsname().map(ToOwned::to_owned).or_else(|| match name.ipaddress()? {
                    &[a, b, c, d] => Some(std::net::Ipv4Addr::new(a, b, c, d).to_string()),
                    bytes => Some(std::net::Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).to_string()),
                })
            };
            names.iter().filter_map(text).collect()
        });
        Self {
            serial: serial(leaf),
            sha256: hex(&leaf.digest(MessageDigest::sha256()).unwrap()),
            names,
            chain_len,
        }
    }
}

/// A certificate's serial number as `openssl x509 -serial` prints it.
pub fn serial(certificate: &X509Ref) -> String {
    certificate.serial_number().to_bn().unwrap().to_hex_str().unwrap().to_string()
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// Does a TLS handshake with `server`, asking for the name `sni` (none where it is empty), and says what was presented.
#[track_caller]
pub fn served(server: SocketAddr, sni: &str) -> ServedCertificate {
    try_served(server, sni)
        .unwrap_or_else(|error| panic!("no certificate for {sni:?} from {server}: {error}"))
}

/// [`served`], where the handshake may fail.
pub fn try_served(server: SocketAddr, sni: &str) -> Result<ServedCertificate, String> {
    try_served_to(server, sni, None)
}

/// [`try_served`] to a client that takes only these signature algorithms (OpenSSL's list: `RSA-PSS+SHA256:…`).
pub fn try_served_to(
    server: SocketAddr,
    sni: &str,
    signature_algorithms: Option<&str>,
) -> Result<ServedCertificate, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let mut context = SslContext::builder(SslMethod::tls_client()).map_err(|e| text(&e))?;
    context.set_verify(SslVerifyMode::NONE);
    if let Some(list) = signature_algorithms {
        context.set_sigalgs_list(list).map_err(|e| text(&e))?;
    }
    let mut ssl = Ssl::new(&context.build()).map_err(|e| text(&e))?;
    if !sni.is_empty() {
        ssl.set_hostname(sni).map_err(|e| text(&e))?;
    }
    let limit = Duration::from_secs(10);
    let tcp = TcpStream::connect_timeout(&server, limit).map_err(|e| text(&e))?;
    tcp.set_read_timeout(Some(limit)).map_err(|e| text(&e))?;
    tcp.set_write_timeout(Some(limit)).map_err(|e| text(&e))?;
    let tls = ssl.connect(Patient(tcp)).map_err(|e| text(&e))?;
    let leaf = tls.ssl().peer_certificate().ok_or("no certificate")?;
    Ok(ServedCertificate::of(&leaf, tls.ssl().peer_cert_chain().map_or(0, openssl::stack::StackRef::len)))
}

/// With a time-out a read that a signal interrupts isn't started again by the kernel.
#[derive(Debug)]
struct Patient(TcpStream);

impl Patient {
    fn again<R>(mut act: impl FnMut() -> io::Result<R>) -> io::Result<R> {
        loop {
            match act() {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }
}

impl Read for Patient {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        Self::again(|| self.0.read(into))
    }
}

impl Write for Patient {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Self::again(|| self.0.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// What the program `openssl s_client` is presented: the second opinion.
#[track_caller]
pub fn s_client(server: SocketAddr, sni: &str) -> ServedCertificate {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-showcerts", "-connect"]).arg(server.to_string());
    if sni.is_empty() {
        command.arg("-noservername")
    } else {
        command.args(["-servername", sni])
    };
    let output = finish(&mut command, Duration::from_secs(60));
    let chain = X509::stack_from_pem(&output.stdout).unwrap_or_default();
    let leaf = chain.first().unwrap_or_else(|| {
        panic!("openssl s_client was presented nothing: {}", String::from_utf8_lossy(&output.stderr))
    });
    ServedCertificate::of(leaf, chain.len())
}
