//! `fleet join`: makes this node's keys, and says what the publisher is to know of them.

use std::path::PathBuf;

use crate::config::Settings;
use crate::config::fleet::IDENTITY;
use crate::fleet::identity::HostIdentity;
use crate::sys::failure::{Failure, FailureKind};
use crate::sys::host_name::host_name;

/// What came of it.
#[derive(Debug, Clone)]
pub struct Joined {
    /// The file with the keys.
    pub file: PathBuf,
    /// Whether it was made now.
    pub made: bool,
    /// The table for the publisher's settings.
    pub table: String,
    /// Whether this host's settings say already whom it follows.
    pub follows: bool,
}

/// Makes the keys where they are missing; those that are there stay.
///
/// # Errors
/// They can't be made or read.
pub fn join(settings: &Settings) -> Result<Joined, Failure> {
    let file =
        settings.fleet.as_ref().map_or_else(|| PathBuf::from(IDENTITY), |fleet| fleet.identity.clone());
    let host = host_name();
    let (identity, made) = HostIdentity::load_or_create(&file, &host)
        .map_err(|e| Failure::new(FailureKind::Io, e.to_string()))?;
    let table = format!("[[fleet.node]]\nname = \"{host}\"\nkey  = \"{}\"\n", identity.public());
    Ok(Joined { file, made, table, follows: settings.followed().is_some() })
}
