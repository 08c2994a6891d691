//! Asks one member after the other until one answers, and logs in where that is needed.

use std::io::Read as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use ureq::http::Response;
use ureq::{Agent, Body};
use zeroize::Zeroizing;

use super::answer::{Authenticated, Complaint};
use super::settings::EtcdSettings;
use super::tls;
use crate::fleet::store::error::StoreError;

/// More than any complaint has, in bytes.
const MAX_COMPLAINT: usize = 65536;

/// The cause where user and password aren't sent.
const NO_LOGIN: &str = "the user and the password can't be sent";

/// The cause where a member didn't answer in time.
pub(super) const NOT_IN_TIME: &str = "no answer in time";

/// A line that carries fewer bytes in a second is too slow.
const SLOW: usize = 256 << 10;

/// The pause before all members are asked again.
const PAUSE: Duration = Duration::from_millis(250);

/// What an answer couldn't be had for.
pub(super) enum Unanswered {
    /// It is larger than what was asked for.
    TooLarge,
    /// Anything else.
    Failed(StoreError),
}

impl From<Unanswered> for StoreError {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::TooLarge => Self::Malformed("it is too long".into()),
            Unanswered::Failed(failed) => failed,
        }
    }
}

/// Why one member gave no answer.
pub(super) enum NoAnswer {
    /// Another member may, or this one in a moment.
    Elsewhere(String),
    /// The token is too old.
    LogIn(String),
    /// No member will.
    Final(Unanswered),
}

/// An etcd's members.
pub(super) struct Gateway {
    agent: Agent,
    settings: EtcdSettings,
    members: Vec<String>,
    /// The one that answered last.
    current: AtomicUsize,
    token: Mutex<Option<Zeroizing<String>>>,
}

impl Gateway {
    pub(super) fn new(settings: &EtcdSettings) -> Result<Self, StoreError> {
        let members = settings.members()?;
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            // The environment isn't trusted: it would name a proxy.
            .proxy(None)
            .max_redirects(0)
            .user_agent(concat!("haproxy-certs/", env!("CARGO_PKG_VERSION")))
            // Without it etcd takes the rights of a user that the *server's* certificate names.
            .accept("application/json")
            .timeout_connect(Some(settings.time_out.min(Duration::from_secs(5))))
            .max_idle_connections_per_host(1);
        if let Some(tls) = tls::config(settings, &members)? {
            config = config.tls_config(tls);
        }
        Ok(Self {
            agent: config.build().into(),
            settings: settings.clone(),
            members,
            current: AtomicUsize::new(0),
            token: Mutex::new(None),
        })
    }

    /// How long a member may take to answer.
    pub(super) fn time_out(&self) -> Duration {
        self.settings.time_out
    }

    /// How many members there are.
    pub(super) fn members(&self) -> usize {
        self.members.len()
    }

    /// Asks something that may be asked twice.
    pub(super) fn ask<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &Value,
        at_most: usize,
    ) -> Result<T, Unanswered> {
        // JSON of values that are strings: it can't fail.
        let body = serde_json::to_vec(body).unwrap_or_default();
        let end = Instant::now() + self.settings.patience;
        loop {
            let mut causes = Vec::new();
            for _ in 0..self.members.len() {
                let member = self.member();
                match self.asked(member, path, &body, at_most) {
                    Ok(answer) => return Ok(answer),
                    Err(NoAnswer::Final(failed)) => return Err(failed),
                    Err(NoAnswer::LogIn(cause)) => {
                        return Err(Unanswered::Failed(StoreError::Denied(cause)));
                    }
                    Err(NoAnswer::Elsewhere(cause)) => causes.push((member.to_owned(), cause)),
                }
                self.next_member();
            }
            if Instant::now() + PAUSE >= end {
                return Err(Unanswered::Failed(StoreError::Unreachable(causes)));
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Asks one member, and logs in if it asks for that.
    fn asked<T: DeserializeOwned>(
        &self,
        member: &str,
        path: &str,
        body: &[u8],
        at_most: usize,
    ) -> Result<T, NoAnswer> {
        let ask = || {
            // What is long takes its time on a slow line.
            let length = body.len().saturating_add(at_most) / SLOW;
            let time_out = self.settings.time_out + Duration::from_secs(length as u64);
            let mut response = self.post(member, path, body, time_out, false)?;
            let bytes = read(response.body_mut(), at_most)?;
            let malformed = |e: serde_json::Error| StoreError::Malformed(e.to_string());
            serde_json::from_slice(&bytes).map_err(|e| NoAnswer::Final(Unanswered::Failed(malformed(e))))
        };
        self.logged_in(member, ask)
    }

    /// Does it with a token, and once more with a new one.
    pub(super) fn logged_in<T>(
        &self,
        member: &str,
        mut deed: impl FnMut() -> Result<T, NoAnswer>,
    ) -> Result<T, NoAnswer> {
        if self.settings.user.is_some() && self.token().is_none() {
            self.log_in(member)?;
        }
        match deed() {
            Err(NoAnswer::LogIn(_)) if self.settings.user.is_some() => {
                self.log_in(member)?;
                deed()
            }
            done => done,
        }
    }

    fn log_in(&self, member: &str) -> Result<(), NoAnswer> {
        let Some(user) = &self.settings.user else { return Ok(()) };
        let password = self.settings.password().map_err(fails)?;
        let body = login(user, &password).ok_or_else(|| fails(StoreError::Setup(NO_LOGIN.to_owned())))?;
        self.set_token(None);
        let answered = self.post(member, "auth/authenticate", &body, self.settings.time_out, false);
        let mut response = match answered {
            // Users aren't on: the store lets everybody in.
            Err(NoAnswer::Final(Unanswered::Failed(StoreError::Rejected(cause))))
                if cause.contains("authentication is not enabled") =>
            {
                return Ok(());
            }
            answered => answered?,
        };
        let bytes = read_secret(response.body_mut())?;
        let answer: Authenticated =
            serde_json::from_slice(&bytes).map_err(|e| fails(StoreError::Malformed(e.to_string())))?;
        self.set_token(Some(Zeroizing::new(answer.token)));
        Ok(())
    }

    /// Sends a request; the answer's head is a success.
    pub(super) fn post(
        &self,
        member: &str,
        path: &str,
        body: &[u8],
        at_most: Duration,
        needs_leader: bool,
    ) -> Result<Response<Body>, NoAnswer> {
        let mut request = self
            .agent
            .post(format!("{member}/v3/{path}"))
            .config()
            .timeout_global(Some(at_most))
            .timeout_recv_response(Some(at_most.min(self.settings.time_out)))
            .build()
            .content_type("application/json");
        if let Some(token) = self.token() {
            request = request.header("Authorization", token.as_str());
        }
        if needs_leader {
            // Without it a watch on a member that lost its leader stays silent.
            request = request.header("Grpc-Metadata-hasleader", "true");
        }
        let mut response = request.send(body).map_err(|e| unsent(&e))?;
        let status = response.status().as_u16();
        if status == 200 {
            return Ok(response);
        }
        let text = read(response.body_mut(), MAX_COMPLAINT).unwrap_or_default();
        let complaint: Complaint = serde_json::from_slice(&text).unwrap_or_default();
        let words = if complaint.text().is_empty() {
            format!("HTTP status {status}")
        } else {
            complaint.text().chars().take(500).collect()
        };
        Err(no_answer(status, words))
    }

    fn token(&self) -> Option<Zeroizing<String>> {
        self.token.lock().ok()?.clone()
    }

    fn set_token(&self, token: Option<Zeroizing<String>>) {
        if let Ok(mut held) = self.token.lock() {
            *held = token;
        }
    }

    /// The member to ask.
    pub(super) fn member(&self) -> &str {
        let at = self.current.load(Ordering::Relaxed) % self.members.len().max(1);
        self.members.get(at).map_or("", String::as_str)
    }

    /// Goes on to the next one.
    pub(super) fn next_member(&self) {
        self.current.fetch_add(1, Ordering::Relaxed);
    }
}

/// The request that logs in, in one allocation that leaves no copy behind. `None`: it has no room there.
fn login(name: &str, password: &str) -> Option<Zeroizing<Vec<u8>>> {
    #[derive(Serialize)]
    struct Login<'a> {
        name: &'a str,
        password: &'a str,
    }
    // A byte is six at the most: `\u001f`.
    let room = 64 + 6 * (name.len() + password.len());
    let mut body = Zeroizing::new(vec![0; room]);
    let mut rest = &mut body[..];
    serde_json::to_writer(&mut rest, &Login { name, password }).ok()?;
    let length = room - rest.len();
    body.truncate(length);
    Some(body)
}

/// Reads an answer that holds a token, likewise.
fn read_secret(body: &mut Body) -> Result<Zeroizing<Vec<u8>>, NoAnswer> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_COMPLAINT + 1));
    let read = body.as_reader().take(bytes.capacity() as u64).read_to_end(&mut bytes);
    read.map_err(|e| NoAnswer::Elsewhere(e.to_string()))?;
    if bytes.len() > MAX_COMPLAINT { Err(NoAnswer::Final(Unanswered::TooLarge)) } else { Ok(bytes) }
}

/// Reads an answer to its end.
fn read(body: &mut Body, at_most: usize) -> Result<Vec<u8>, NoAnswer> {
    body.with_config().limit(at_most as u64).read_to_vec().map_err(|e| match e {
        ureq::Error::BodyExceedsLimit(_) => NoAnswer::Final(Unanswered::TooLarge),
        e => NoAnswer::Elsewhere(e.to_string()),
    })
}

fn unsent(cause: &ureq::Error) -> NoAnswer {
    NoAnswer::Elsewhere(match cause {
        ureq::Error::Timeout(_) => NOT_IN_TIME.to_owned(),
        ureq::Error::TooManyRedirects => "it sends us elsewhere".to_owned(),
        cause => cause.to_string(),
    })
}

fn fails(failed: StoreError) -> NoAnswer {
    NoAnswer::Final(Unanswered::Failed(failed))
}

/// What a complaint means. etcd's own words come first: behind one status are several (`rpctypes/error.go`).
pub(super) fn no_answer(status: u16, words: String) -> NoAnswer {
    let says = |part: &str| words.contains(part);
    if says("database space exceeded") {
        return fails(StoreError::Full(words));
    }
    if status == 401 || says("invalid auth token") || says("revision of auth store is old") {
        return NoAnswer::LogIn(words);
    }
    if status == 403
        || says("permission denied")
        || says("authentication failed")
        || says("user name is empty")
        || says("certificate auth")
        || says("CommonName of client")
    {
        return fails(StoreError::Denied(words));
    }
    match status {
        // Too many requests, or no leader, no quorum, no time.
        429 | 500 | 502 | 503 | 504 => NoAnswer::Elsewhere(words),
        404 => fails(StoreError::Malformed(format!("there is no etcd of 3.4 or later: {words}"))),
        _ => fails(StoreError::Rejected(words)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_what_etcd_reads_and_was_never_moved() {
        for (name, password) in [("lb", "secret"), ("", ""), ("\u{1}", "\u{1}\u{1f}\"\\\u{fc}\u{20ac}\n")] {
            let body = login(name, password).unwrap();
            let read: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(read, serde_json::json!({ "name": name, "password": password }));
            assert_eq!(body.capacity(), 64 + 6 * (name.len() + password.len()));
        }
    }

    #[test]
    fn words_say_more_than_a_status() {
        let is = |status, words: &str| match no_answer(status, words.into()) {
            NoAnswer::Elsewhere(_) => "elsewhere",
            NoAnswer::LogIn(_) => "log in",
            NoAnswer::Final(Unanswered::Failed(StoreError::Full(_))) => "full",
            NoAnswer::Final(Unanswered::Failed(StoreError::Denied(_))) => "denied",
            NoAnswer::Final(_) => "final",
        };
        assert_eq!(is(429, "etcdserver: mvcc: database space exceeded"), "full");
        assert_eq!(is(429, "etcdserver: too many requests"), "elsewhere");
        assert_eq!(is(401, "etcdserver: invalid auth token"), "log in");
        assert_eq!(is(400, "etcdserver: revision of auth store is old"), "log in");
        assert_eq!(is(403, "etcdserver: permission denied"), "denied");
        assert_eq!(is(400, "etcdserver: authentication failed, invalid user ID or password"), "denied");
        assert_eq!(is(503, "etcdserver: no leader"), "elsewhere");
        assert_eq!(is(400, "etcdserver: request is too large"), "final");
    }
}
