//! A file that HAProxy loads.

use std::fmt;

use crate::config::Haproxy;
use crate::plan::row::{Role, Row};
use crate::sys::escape::escaped;

/// A file that HAProxy loads.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// This file of the sites directory.
    Site(String),
    /// The host certificate.
    Host,
}

impl Target {
    /// The file that a row of a plan is about; `None`: it has none that HAProxy could be notified of.
    #[must_use]
    pub fn of(row: &Row) -> Option<Self> {
        match row.role {
            Role::Site => Some(Self::Site(row.file.as_ref()?.to_str()?.to_owned())),
            Role::Host => Some(Self::Host),
        }
    }

    /// The file's whole name as this HAProxy's configuration spells it.
    #[must_use]
    pub fn spelled(&self, haproxy: &Haproxy) -> String {
        match self {
            Self::Site(file) => format!("{}/{file}", haproxy.sites_dir),
            Self::Host => haproxy.host_file.clone(),
        }
    }

    /// Whether the Runtime API is notified about a file of this name; others need a reload.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
        match self {
            Self::Site(file) => file.bytes().all(is_plain),
            Self::Host => true,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Site(file) => escaped(file).fmt(f),
            Self::Host => f.write_str("the host certificate"),
        }
    }
}
