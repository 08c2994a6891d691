//! The ways of notifying a HAProxy, by the names that the configuration and the report use.

use serde::{Deserialize, Serialize};

/// How a HAProxy is notified that its certificates changed.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum, strum::IntoStaticStr,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Method {
    /// The best one that applies.
    Auto,
    /// The Runtime API: in memory, without a reload.
    Runtime,
    /// `reload` on the master CLI (HAProxy 2.7 or later answers it).
    Master,
    /// `systemctl reload`.
    Systemd,
    /// SIGUSR2 to the master named by the pidfile.
    Pidfile,
    /// A command of the operator's.
    Command,
    /// Nobody is notified.
    None,
}

impl Method {
    /// The name that the configuration and the report use.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.into()
    }
}
