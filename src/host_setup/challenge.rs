//! The way of the ACME challenge: does what the CA asks at port 80 reach certbot's port?
//!
//! It is tried: for a moment a listener stands in certbot's place, on loopback only and only where nobody else listens, and a
//! request goes the CA's way, through one redirection. Where that can't be done the configuration is only read, and that is said.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::TryRecvError;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustls::pki_types::ServerName;

use super::listening::{self, Listener};
use crate::certified_key::{KeyType, hex};
use crate::config::Settings;
use crate::haproxy::tls_probe;
use crate::host_setup::finding::Finding;
use crate::host_setup::listeners::{Directives, Plain};
use crate::plan::client::Client;
use crate::sys::escape::escaped;
use crate::sys::failure::io_cause;
use crate::sys::system::System;

/// Between two looks whether there is an answer.
const PAUSE: Duration = Duration::from_millis(20);

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
    /// It reached certbot's port; where it was redirected first, to where.
    Arrived(Option<String>),
    /// It was answered with this status, and did not.
    Answered(u16),
    /// It was not answered in time, or not in HTTP.
    Unanswered,
    /// It was redirected to where the way isn't followed: where to, and why not.
    Left(String, &'static str),
    /// Somebody else has certbot's port.
    Taken(Listener),
}

/// Why a challenge can't arrive, by the text of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum NoWay {
    #[error("no line names /.well-known/acme-challenge/")]
    NoPath,
    #[error("no server line has certbot's port {0}")]
    NoServer(u16),
}

/// Why it isn't tried whether a challenge arrives.
#[derive(Debug, thiserror::Error)]
enum NotTried {
    #[error("no bind line without TLS has port 80")]
    NoPort80,
    /// certbot's port is behind this one, elsewhere.
    #[error("the server with port {0} is another host")]
    AnotherHost(u16),
    #[error("there is no randomness")]
    NoRandomness,
    #[error("{front} can't be reached from here: {}", io_cause(.cause))]
    NotReached { front: SocketAddr, cause: io::Error },
    #[error("can't listen on port {port}: {}", io_cause(.cause))]
    NoListener { port: u16, cause: io::Error },
    #[error("can't start a thread: {}", io_cause(.0))]
    NoThread(io::Error),
}

pub(crate) fn finding(settings: &Settings, system: &System, configuration: &Directives) -> Finding {
    match Client::of(settings) {
        Client::Certbot => {}
        Client::Another => {
            let why = "it isn't certbot that renews: how a challenge reaches what does can't be seen";
            return Finding::unknown("acme", why);
        }
        Client::Publisher => {
            return Finding::unknown("acme", "certificates are renewed on the host that publishes them");
        }
    }
    let port = settings.certbot.http_01_port;
    let front = configuration.challenged();
    judge(port, read(configuration, port), front, tried(settings, system, configuration))
}

/// The judgement: what isn't proved is no good news. Pure. `tried`: the outcome, or why there is
/// none.
fn judge(
    port: u16,
    read: Result<(), NoWay>,
    front: Option<&Plain>,
    tried: Result<Outcome, NotTried>,
) -> Finding {
    let sent = front.map_or(String::new(), |front| {
        format!("a challenge sent to {} ({}, {})", front.address, escaped(&front.section), front.at)
    });
    let only_read = match tried {
        Ok(Outcome::Arrived(via)) => {
            let via = via.map(|to| format!(" by a redirection to {to}")).unwrap_or_default();
            return Finding::fine("acme", format!("{sent} reached certbot's port {port}{via} (tried)"));
        }
        // It does its work: not the time to look.
        Ok(Outcome::Taken(by)) if by.program == "certbot" => {
            return Finding::unknown("acme", format!("certbot listens on port {port} just now: not tried"));
        }
        Ok(Outcome::Taken(by)) => {
            return Finding::wrong(
                "acme",
                format!(
                    "certbot's port {port} is taken by {by}: certbot can't answer the http-01 challenge there"
                ),
                &[&format!("ss -ltnp 'sport = :{port}'"), "end that program, or set another http_01_port"],
            );
        }
        Ok(Outcome::Left(to, why)) => format!("{sent} was redirected to {to}, {why}"),
        Ok(outcome) => {
            let what = match outcome {
                Outcome::Answered(status) => format!("got status {status}"),
                _ => format!("got no answer in {} seconds", LIMIT.as_secs()),
            };
            let because = read.err().map(|why| format!("; {why}")).unwrap_or_default();
            return wrong(port, &format!("{sent} {what} and did not reach port {port} (tried){because}"));
        }
        Err(why) => why.to_string(),
    };
    match read {
        Ok(()) => Finding::wrong(
            "acme",
            format!(
                "the ACME path has a backend with certbot's port {port}, but it is not proved that a challenge arrives \
                 there: {only_read}"
            ),
            &["certbot renew --dry-run"],
        ),
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

/// What the text of the configuration says: the ACME path has a backend with certbot's port, or what is missing.
fn read(configuration: &Directives, port: u16) -> Result<(), NoWay> {
    if configuration.acme_sections.is_empty() {
        return Err(NoWay::NoPath);
    }
    if !configuration.servers.iter().any(|(_, of)| *of == port) {
        return Err(NoWay::NoServer(port));
    }
    Ok(())
}

/// Tries it where it can be tried.
fn tried(settings: &Settings, system: &System, configuration: &Directives) -> Result<Outcome, NotTried> {
    let port = settings.certbot.http_01_port;
    if let Some(listener) = listening::at(system, port) {
        return Ok(Outcome::Taken(listener));
    }
    let front = configuration.challenged().ok_or(NotTried::NoPort80)?;
    let is_here = |host: &str| {
        let host = host.rsplit('@').next().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || host == "::1" || host.starts_with("127.")
    };
    let servers: Vec<&str> =
        configuration.servers.iter().filter(|(_, of)| *of == port).map(|(host, _)| host.as_str()).collect();
    if !servers.is_empty() && !servers.iter().any(|host| is_here(host)) {
        return Err(NotTried::AnotherHost(port));
    }
    let host = host_of_a_lineage(settings);
    let deadline = Instant::now() + LIMIT;
    let mut nonce = [0; 16];
    aws_lc_rs::rand::fill(&mut nonce).map_err(|_| NotTried::NoRandomness)?;
    let path = format!("/.well-known/acme-challenge/haproxy-certs-{}", hex(&nonce));
    let first = Request { address: front.address, tls: false, host: host.clone(), path: path.clone() };
    let Reply { status: 300..=399, location } = (match attempt(first, port, deadline)? {
        Ok(reply) => reply,
        Err(outcome) => return Ok(outcome),
    }) else {
        return Ok(Outcome::Unanswered);
    };
    let to = location.unwrap_or_default();
    let shown = escaped(&to).to_string();
    let left = |why| Ok(Outcome::Left(shown.clone(), why));
    let Some((tls, to_host, to_port, to_path)) = target(&to, &host) else {
        return left("which is no address that the CA follows");
    };
    if to_port != if tls { 443 } else { 80 } {
        return left("and the CA follows only to ports 80 and 443");
    }
    if to_host != host {
        return left("another name, which may be another host");
    }
    let Some(there) = configuration.redirected(tls) else {
        return left("and no bind line here has that port");
    };
    let second = Request { address: there.address, tls, host: to_host, path: to_path };
    match attempt(second, port, deadline)? {
        Ok(Reply { status: 300..=399, .. }) => left("and redirected from there again"),
        Ok(_) => Ok(Outcome::Unanswered),
        Err(Outcome::Arrived(_)) => Ok(Outcome::Arrived(Some(shown))),
        Err(outcome) => Ok(outcome),
    }
}

/// Where a `Location` leads: with TLS or not, host, port and path.
fn target(location: &str, host: &str) -> Option<(bool, String, u16, String)> {
    if location.starts_with('/') {
        return Some((false, host.to_owned(), 80, location.to_owned()));
    }
    let (tls, rest) = match location.strip_prefix("https://") {
        Some(rest) => (true, rest),
        None => (false, location.strip_prefix("http://")?),
    };
    let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    let usual = if tls { 443 } else { 80 };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok()?),
        None => (authority, usual),
    };
    Some((tls, host.to_ascii_lowercase(), port, path.to_owned()))
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

/// A request as the CA sends it.
#[derive(Debug, Clone)]
struct Request {
    address: SocketAddr,
    tls: bool,
    host: String,
    path: String,
}

/// The first lines of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reply {
    status: u16,
    location: Option<String>,
}

/// Listens on `port`, sends the request, and looks where it arrives: a redirection, or else what became of it; why not,
/// where that can't be done.
fn attempt(request: Request, port: u16, deadline: Instant) -> Result<Result<Reply, Outcome>, NotTried> {
    let front = request.address;
    // Before the listener: where nobody answers there is nothing to listen for.
    let client =
        TcpStream::connect_timeout(&front, LIMIT).map_err(|cause| NotTried::NotReached { front, cause })?;
    let listeners = listeners(port).map_err(|cause| NotTried::NoListener { port, cause })?;
    let path = request.path.clone();
    let (send, answered) = std::sync::mpsc::channel();
    // It ends with its own time limit; nobody waits for it.
    let asked = std::thread::Builder::new().spawn(move || send.send(request.send(client, deadline)));
    asked.map_err(NotTried::NoThread)?;
    loop {
        let mut watched: Vec<PollFd<'_>> =
            listeners.iter().map(|listener| PollFd::new(listener, PollFlags::IN)).collect();
        let pause = Timespec::try_from(PAUSE).ok();
        let ready = poll(&mut watched, pause.as_ref());
        if Instant::now() >= deadline || ready.is_err_and(|error| error != Errno::INTR) {
            return Ok(Err(Outcome::Unanswered));
        }
        if listeners.iter().any(|listener| arrives(listener, &path)) {
            return Ok(Err(Outcome::Arrived(None)));
        }
        match answered.try_recv() {
            Ok(Some(reply @ Reply { status: 300..=399, .. })) => return Ok(Ok(reply)),
            Ok(Some(reply)) => return Ok(Err(Outcome::Answered(reply.status))),
            Ok(None) | Err(TryRecvError::Disconnected) => return Ok(Err(Outcome::Unanswered)),
            Err(TryRecvError::Empty) => {}
        }
    }
}

impl Request {
    /// Sends it and reads the answer's first lines; any certificate will do, as for the CA.
    fn send(&self, mut client: TcpStream, deadline: Instant) -> Option<Reply> {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        client.set_read_timeout(Some(left)).and_then(|()| client.set_write_timeout(Some(left))).ok()?;
        let Self { host, path, .. } = self;
        let text = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        if !self.tls {
            client.write_all(text.as_bytes()).ok()?;
            return reply(&head(&mut client));
        }
        let name = ServerName::try_from(host.clone()).ok()?;
        let config = tls_probe::config(&KeyType::Other(String::new())).ok()?;
        let mut session = rustls::ClientConnection::new(config, name).ok()?;
        let mut stream = rustls::Stream::new(&mut session, &mut client);
        stream.write_all(text.as_bytes()).ok()?;
        reply(&head(&mut stream))
    }
}

/// The lines before the body, as far as they come.
fn head(stream: &mut impl Read) -> String {
    let mut text = Vec::new();
    let mut buffer = [0; 512];
    while text.len() < LONGEST && !text.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(read) => text.extend_from_slice(buffer.get(..read).unwrap_or_default()),
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// `HTTP/1.1 301 Moved Permanently`, `location: ...`
fn reply(head: &str) -> Option<Reply> {
    let mut lines = head.lines();
    let status = lines.next()?.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    let location = lines.find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case("location").then(|| value.trim().to_owned())
    });
    Some(Reply { status, location })
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
    use crate::status::severity::Severity;

    #[test]
    fn what_was_tried_counts_more_than_what_was_read() {
        let front = Plain {
            section: "frontend http".into(),
            at: "c:3".into(),
            address: "127.0.0.1:80".parse().unwrap(),
        };
        let right = || Ok(());
        let bad = || Err(NoWay::NoServer(9));
        let busy = || Err(NotTried::NoPort80);
        for (read, tried, severity, part) in [
            (right(), Ok(Outcome::Arrived(None)), Severity::Ok, "127.0.0.1:80 (frontend http, c:3) reached"),
            (
                bad(),
                Ok(Outcome::Arrived(Some("https://a/".into()))),
                Severity::Ok,
                "by a redirection to https://a/ (tried)",
            ),
            (
                right(),
                Ok(Outcome::Taken(Listener { pid: 7, program: "python3".into() })),
                Severity::Warning,
                "port 9 is taken by python3 (process 7)",
            ),
            (
                right(),
                Ok(Outcome::Taken(Listener { pid: 7, program: "certbot".into() })),
                Severity::Unknown,
                "not tried",
            ),
            (right(), Ok(Outcome::Answered(503)), Severity::Warning, "got status 503"),
            (
                bad(),
                Ok(Outcome::Unanswered),
                Severity::Warning,
                "got no answer in 5 seconds and did not reach port 9 (tried); no server line has certbot's port 9",
            ),
            (
                right(),
                Ok(Outcome::Left("https://b/".into(), "another name")),
                Severity::Warning,
                "certbot's port 9, but it is not proved that a challenge arrives there: a challenge sent to",
            ),
            (
                right(),
                busy(),
                Severity::Warning,
                "not proved that a challenge arrives there: no bind line without TLS has port 80",
            ),
            (
                bad(),
                busy(),
                Severity::Warning,
                "no server line has certbot's port 9 (only read: no bind line without TLS has port 80): certbot's",
            ),
        ] {
            let finding = judge(9, read, Some(&front), tried);
            assert_eq!(finding.severity, severity, "{finding:?}");
            assert!(finding.fact.contains(part), "{finding:?}");
            assert_eq!(finding.mend.is_empty(), severity != Severity::Warning);
        }
    }
}
