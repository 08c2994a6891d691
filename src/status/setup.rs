//! `status --setup`: is everything around the certificates as it must be? Each finding is a fact and the line that mends it.

use crate::config::Settings;
use crate::world::World;

use super::words::Severity;

/// Something about the setup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at, in one word.
    pub name: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// One line of ASCII.
    pub fact: String,
    /// The lines that mend it, to be copied.
    pub mend: Vec<String>,
}

/// Looks at everything around the certificates.
#[must_use]
pub fn findings(_settings: &Settings, _world: &World) -> Vec<Finding> {
    Vec::new()
}
