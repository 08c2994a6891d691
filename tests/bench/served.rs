//! Times a renewal until it is served: `bench-served ADDRESS NAME COMMAND…` runs the command and does one TLS handshake
//! after the other until another certificate than before is served for the name. Prints the milliseconds from the start of
//! the command to the first such handshake.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool for the benchmarks"
)]

use std::net::TcpStream;
use std::process::{Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode};

const LIMIT: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, name, program, rest @ ..] = arguments.as_slice() else {
        eprintln!("usage: bench-served ADDRESS NAME COMMAND...");
        return ExitCode::from(64);
    };
    let mut connector = SslConnector::builder(SslMethod::tls_client()).unwrap();
    connector.set_verify(SslVerifyMode::NONE);
    let connector = connector.build();
    let served = || served(&connector, address, name);
    let before = served().unwrap();
    let begun = Instant::now();
    let mut command = Command::new(program).args(rest).stdout(Stdio::null()).spawn().unwrap();
    // A reload's handshakes may fail for a moment.
    while served().is_none_or(|now| now == before) {
        if begun.elapsed() > LIMIT {
            eprintln!("bench-served: not served after {LIMIT:?}");
            command.kill().unwrap();
            break;
        }
        sleep(Duration::from_millis(3));
    }
    let milliseconds = begun.elapsed().as_secs_f64() * 1e3;
    let status = command.wait().unwrap();
    if !status.success() {
        eprintln!("bench-served: {program}: {status}");
        return ExitCode::FAILURE;
    }
    println!("{milliseconds:.1}");
    ExitCode::SUCCESS
}

/// The DER of the certificate that is served for the name.
fn served(connector: &SslConnector, address: &str, name: &str) -> Option<Vec<u8>> {
    let stream = TcpStream::connect(address).ok()?;
    let configuration = connector.configure().unwrap().verify_hostname(false);
    let session = configuration.connect(name, stream).ok()?;
    session.ssl().peer_certificate()?.to_der().ok()
}
