//! The way of the ACME challenge: does what the CA asks at port 80 reach certbot's port?
//!
//! It is tried: for a moment a listener stands in certbot's place, on loopback only and only where nobody else listens, and a
//! request goes the CA's way. Where that can't be done the configuration is only read, and that is said.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::certified_key::hex;
use crate::config::Settings;
use crate::escape::escaped;
use crate::failure::io_cause;

use super::{Configuration, Finding, Plain};

/// How long the whole trial may take, since certbot can't listen meanwhile: it takes milliseconds where the way is right,
/// and HAProxy gives up a server that nobody listens at after three seconds.
const LIMIT: Duration = Duration::from_secs(5);

/// How long somebody who connects to the listener may take to say what he wants.
const PATIENCE: Duration = Duration::from_millis(500);

/// The most that is read of a request or a reply: their first lines are enough.
const LONGEST: usize = 4096;

/// What became of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    /// It reached certbot's port.
    Arrived,
    /// It was answered with this status, and did not.
    Answered(u16),
    /// It was not answered in time, or not in HTTP.
    Unanswered,
}

pub(super) fn finding(settings: &Settings, configuration: &Configuration) -> Finding {
    let port = settings.certbot.http_01_port;
    let front = configuration.challenged();
    judge(port, &read(configuration, port), front, tried(settings, configuration))
}

/// The judgement. Pure. `read`: the fact, right or wrong; `tried`: the outcome, or why there is none.
fn judge(
    port: u16,
    read: &Result<String, String>,
    front: Option<&Plain>,
    tried: Result<Outcome, String>,
) -> Finding {
    let sent = front.map_or(String::new(), |front| {
        format!("a challenge sent to {} ({}, {})", front.address, escaped(&front.section), front.at)
    });
    let only_read = match tried {
        Ok(Outcome::Arrived) => {
            return Finding::fine("acme", format!("{sent} reached certbot's port {port} (tried)"));
        }
        // The CA follows it, to port 443 and other hosts too.
        Ok(Outcome::Answered(status @ 300..=399)) => {
            format!("{sent} was redirected, status {status}, which isn't followed")
        }
        Ok(outcome) => {
            let what = match outcome {
                Outcome::Answered(status) => format!("got status {status}"),
                _ => format!("got no answer in {} seconds", LIMIT.as_secs()),
            };
            let because = read.as_ref().err().map(|why| format!("; {why}")).unwrap_or_default();
            return wrong(port, &format!("{sent} {what} and did not reach port {port} (tried){because}"));
        }
        Err(why) => why,
    };
    match read {
        Ok(fact) => Finding::fine("acme", format!("{fact} (only read: {only_read})")),
        Err(why) => wrong(port, &format!("{why} (only read: {only_read})")),
    }
}

fn wrong(port: u16, fact: &str) -> Finding {
    Finding::wrong(
        "acme",
        format!("{fact}: certbot's http-01 challenge fails"),
        &[
            "frontend http: use_backend certbot if { path_beg /.well-known/acme-challenge/ }",
            &format!("backend certbot: server certbot 127.0.0.1:{port}"),
        ],
    )
}

/// What the text of the configuration says.
fn read(configuration: &Configuration, port: u16) -> Result<String, String> {
    if configuration.acme_sections.is_empty() {
        return Err("no line names /.well-known/acme-challenge/".to_owned());
    }
    if !configuration.servers.iter().any(|(_, of)| *of == port) {
        return Err(format!("no server line has certbot's port {port}"));
    }
    Ok(format!("the ACME path has a backend with certbot's port {port}"))
}

/// Tries it where it can be tried.
fn tried(settings: &Settings, configuration: &Configuration) -> Result<Outcome, String> {
    let port = settings.certbot.http_01_port;
    let front = configuration.challenged().ok_or("no bind line without TLS has port 80")?;
    let is_here = |host: &str| {
        let host = host.rsplit('@').next().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || host == "::1" || host.starts_with("127.")
    };
    let servers: Vec<&str> =
        configuration.servers.iter().filter(|(_, of)| *of == port).map(|(host, _)| host.as_str()).collect();
    if !servers.is_empty() && !servers.iter().any(|host| is_here(host)) {
        return Err(format!("the server with port {port} is another host"));
    }
    attempt(front.address, port, &host_of_a_lineage(settings))
}

/// A name to ask for, as the CA asks for one that is in the certificate; lineages mostly have such names.
fn host_of_a_lineage(settings: &Settings) -> String {
    let is_host = |name: &String| {
        name.contains('.') && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte))
    };
    let entries = std::fs::read_dir(&settings.live_dir).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(is_host).min().unwrap_or_else(|| "localhost".to_owned())
}

/// Listens on `port`, sends a challenge to `front`, and looks where it arrives; why not, where that can't be done.
fn attempt(front: SocketAddr, port: u16, host: &str) -> Result<Outcome, String> {
    let deadline = Instant::now() + LIMIT;
    let mut nonce = [0; 16];
    aws_lc_rs::rand::fill(&mut nonce).map_err(|_| "there is no randomness".to_owned())?;
    let path = format!("/.well-known/acme-challenge/haproxy-certs-{}", hex(&nonce));
    // Before the listener: where nobody answers there is nothing to listen for.
    let mut client = TcpStream::connect_timeout(&front, LIMIT)
        .map_err(|e| format!("{front} can't be reached from here: {}", io_cause(&e)))?;
    let listeners = listeners(port).map_err(|e| format!("can't listen on port {port}: {}", io_cause(&e)))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let sent = client.set_write_timeout(Some(LIMIT)).and_then(|()| client.write_all(request.as_bytes()));
    if sent.is_err() {
        return Ok(Outcome::Unanswered);
    }
    loop {
        let mut watched: Vec<PollFd<'_>> =
            listeners.iter().map(|listener| PollFd::new(listener, PollFlags::IN)).collect();
        watched.push(PollFd::new(&client, PollFlags::IN));
        let left = deadline.saturating_duration_since(Instant::now());
        let ready = poll(&mut watched, Timespec::try_from(left).ok().as_ref());
        if left.is_zero() || ready.is_err_and(|error| error != Errno::INTR) {
            return Ok(Outcome::Unanswered);
        }
        let is_answered = watched.pop().is_some_and(|client| !client.revents().is_empty());
        if listeners.iter().any(|listener| arrives(listener, &path)) {
            return Ok(Outcome::Arrived);
        }
        if is_answered {
            return Ok(status(client, left).map_or(Outcome::Unanswered, Outcome::Answered));
        }
    }
}

/// In certbot's place, for both kinds of address: `localhost` may be either. Not where one of them is taken.
fn listeners(port: u16) -> io::Result<Vec<TcpListener>> {
    let mut all = vec![TcpListener::bind((Ipv4Addr::LOCALHOST, port))?];
    match TcpListener::bind((Ipv6Addr::LOCALHOST, port)) {
        Ok(listener) => all.push(listener),
        Err(e) if e.kind() == ErrorKind::AddrInUse => return Err(e),
        // There is no IPv6 here.
        Err(_) => {}
    }
    for listener in &all {
        listener.set_nonblocking(true)?;
    }
    Ok(all)
}

/// Whether somebody is there who asks for `path`; whoever asks for anything else is told that it isn't here.
fn arrives(listener: &TcpListener, path: &str) -> bool {
    let Ok((mut stream, _)) = listener.accept() else { return false };
    let line = first_line(&mut stream, PATIENCE);
    let is_ours = line.is_some_and(|line| line.split(' ').nth(1) == Some(path));
    let status = if is_ours { "200 OK" } else { "404 Not Found" };
    // Best effort: what counts is that it came.
    let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    is_ours
}

/// `HTTP/1.1 503 Service Unavailable`
fn status(mut client: TcpStream, left: Duration) -> Option<u16> {
    first_line(&mut client, left)?.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()
}

fn first_line(stream: &mut TcpStream, limit: Duration) -> Option<String> {
    stream.set_nonblocking(false).ok()?;
    let deadline = Instant::now() + limit;
    let mut text = Vec::new();
    let mut buffer = [0; 512];
    while !text.contains(&b'\n') && text.len() < LONGEST {
        let left = deadline.saturating_duration_since(Instant::now());
        // Zero would be an error, and means no limit elsewhere.
        stream.set_read_timeout(Some(left.max(Duration::from_millis(1)))).ok()?;
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(read) => text.extend_from_slice(buffer.get(..read)?),
        }
    }
    Some(String::from_utf8_lossy(&text).lines().next()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::words::Severity;

    #[test]
    fn what_was_tried_counts_more_than_what_was_read() {
        let front = Plain {
            section: "frontend http".into(),
            at: "c:3".into(),
            address: "127.0.0.1:80".parse().unwrap(),
        };
        let right = || Ok("it is right".to_owned());
        let bad = || Err("it is wrong".to_owned());
        for (read, tried, severity, part) in [
            (right(), Ok(Outcome::Arrived), Severity::Ok, "127.0.0.1:80 (frontend http, c:3) reached"),
            (bad(), Ok(Outcome::Arrived), Severity::Ok, "(tried)"),
            (right(), Ok(Outcome::Answered(503)), Severity::Warning, "got status 503"),
            (
                bad(),
                Ok(Outcome::Unanswered),
                Severity::Warning,
                "got no answer in 5 seconds and did not reach port 9 (tried); it is wrong",
            ),
            (right(), Ok(Outcome::Answered(301)), Severity::Ok, "it is right (only read: a challenge"),
            (bad(), Ok(Outcome::Answered(301)), Severity::Warning, "it is wrong (only read: a challenge"),
            (right(), Err("busy".to_owned()), Severity::Ok, "it is right (only read: busy)"),
            (bad(), Err("busy".to_owned()), Severity::Warning, "it is wrong (only read: busy): certbot's"),
        ] {
            let finding = judge(9, &read, Some(&front), tried);
            assert_eq!(finding.severity, severity, "{finding:?}");
            assert!(finding.fact.contains(part), "{finding:?}");
            assert_eq!(finding.mend.is_empty(), severity == Severity::Ok);
        }
    }
}
