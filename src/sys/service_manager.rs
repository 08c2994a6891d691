//! Telling systemd how a service is, as `sd_notify(3)` says.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Where the service manager listens; `None` in it: there is none.
#[derive(Debug, Clone)]
pub struct ServiceManager {
    address: Option<SocketAddr>,
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// By what it put into the environment.
    #[must_use]
    pub fn of_environment() -> Self {
        let text = std::env::var("NOTIFY_SOCKET").unwrap_or_default();
        let address = match text.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name).ok(),
            None if text.starts_with('/') => SocketAddr::from_pathname(&text).ok(),
            None => None,
        };
        let ours = std::env::var("WATCHDOG_PID").map_or(true, |pid| pid.parse() == Ok(std::process::id()));
        let every = std::env::var("WATCHDOG_USEC").ok().and_then(|text| text.parse().ok());
        Self { address, watchdog: every.filter(|every| ours && *every > 0).map(Duration::from_micros) }
    }

    /// How often it wants a sign of life: twice in the time that it waits.
    #[must_use]
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog.map(|limit| limit / 2)
    }

    /// Tells it. Nobody is there, or doesn't listen: then nothing is told.
    pub fn tell(&self, text: &str) {
        let Some(address) = &self.address else { return };
        if let Ok(socket) = UnixDatagram::unbound() {
            let _ = socket.set_nonblocking(true);
            let _ = socket.send_to_addr(text.as_bytes(), address);
        }
    }
}
