//! `host:port`, and the addresses that it stands for.
//!
//! The system's resolver has time-outs of its own, of many seconds for each name server: it is asked by a thread, which is
//! left behind where it takes too long.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::Builder;
use std::time::Instant;

use super::escape::escaped;
use super::failure::io_cause;

/// `host:port`, as it is written.
#[derive(Debug, Clone)]
pub struct HostPort {
    text: String,
    /// What the name was found to stand for, where that is asked once.
    found: Option<Arc<Lookup>>,
}

impl HostPort {
    /// The same, whose name is looked up once, by this one and by its clones.
    #[must_use]
    pub fn looked_up_once(&self) -> Self {
        Self { text: self.text.clone(), found: Some(Arc::default()) }
    }

    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The addresses that it stands for.
    ///
    /// # Errors
    /// The name isn't known, or that isn't seen by the deadline.
    pub fn addresses(&self, deadline: Instant) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = self.text.parse() {
            return Ok(vec![address]);
        }
        self.found.clone().unwrap_or_default().answer(&self.text, deadline)
    }
}

impl From<&str> for HostPort {
    fn from(text: &str) -> Self {
        Self { text: text.to_owned(), found: None }
    }
}

impl From<String> for HostPort {
    fn from(text: String) -> Self {
        Self { text, found: None }
    }
}

impl PartialEq for HostPort {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for HostPort {}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        escaped(&self.text).fmt(f)
    }
}

/// One question to the resolver.
#[derive(Debug, Default)]
struct Lookup {
    state: Mutex<State>,
    answered: Condvar,
}

#[derive(Debug, Clone, Default)]
enum State {
    #[default]
    Unasked,
    Asked,
    Known(Vec<SocketAddr>),
    /// And why.
    Unknown(String),
}

impl Lookup {
    /// Asks, unless that was done, and waits for the answer.
    fn answer(self: Arc<Self>, name: &str, deadline: Instant) -> io::Result<Vec<SocketAddr>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match &*state {
                State::Known(addresses) => return Ok(addresses.clone()),
                State::Unknown(cause) => return Err(io::Error::other(cause.clone())),
                _ if left.is_zero() => return Err(io::ErrorKind::TimedOut.into()),
                State::Asked => {
                    let waited = self.answered.wait_timeout(state, left);
                    state = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                State::Unasked => {
                    let (asking, name) = (Arc::clone(&self), name.to_owned());
                    Builder::new().spawn(move || asking.ask(&name))?;
                    *state = State::Asked;
                }
            }
        }
    }

    fn ask(&self, name: &str) {
        let found = match name.to_socket_addrs() {
            Ok(addresses) => State::Known(addresses.collect()),
            Err(e) => State::Unknown(io_cause(&e)),
        };
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = found;
        self.answered.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_address_is_itself_and_a_name_is_looked_up() {
        let past = Instant::now();
        let soon = past + Duration::from_secs(60);
        for text in ["192.0.2.1:443", "[2001:db8::1]:443"] {
            assert_eq!(HostPort::from(text).addresses(past).unwrap(), [text.parse().unwrap()]);
        }
        let here = HostPort::from("localhost:443");
        assert_eq!(
            here.addresses(past).unwrap_err().kind(),
            io::ErrorKind::TimedOut,
            "nobody is asked too late"
        );
        let once = here.looked_up_once();
        for host in [&here, &once, &once.clone()] {
            assert!(host.addresses(soon).unwrap().iter().all(|it| it.ip().is_loopback() && it.port() == 443));
        }
        // What was found is known, however late it is.
        assert!(once.addresses(past).is_ok() && here.addresses(past).is_err());
        assert_eq!(once, here);
    }
}
