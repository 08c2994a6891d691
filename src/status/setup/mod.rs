//! `status --setup`: is everything around the certificates as it must be? Each finding is a fact and the line that mends it.

mod certbot;
mod challenge;
mod configuration;
mod haproxy;
mod modes;
mod timer;

use crate::config::Settings;
use crate::world::World;

use super::words::Severity;

pub use configuration::{Bind, Configuration, Plain};

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

impl Finding {
    /// As it should be.
    fn fine(name: &'static str, fact: impl Into<String>) -> Self {
        Self { name, severity: Severity::Ok, fact: fact.into(), mend: Vec::new() }
    }

    /// Not as it should be.
    fn wrong(name: &'static str, fact: impl Into<String>, mend: &[&str]) -> Self {
        let mend = mend.iter().map(|&line| line.to_owned()).collect();
        Self { name, severity: Severity::Warning, fact: fact.into(), mend }
    }

    /// Not to be seen.
    fn unknown(name: &'static str, fact: impl Into<String>) -> Self {
        Self { severity: Severity::Unknown, ..Self::fine(name, fact) }
    }
}

/// Looks at everything around the certificates.
#[must_use]
pub fn findings(settings: &Settings, world: &World) -> Vec<Finding> {
    let mut findings: Vec<Finding> =
        settings.haproxys.iter().flat_map(|haproxy| haproxy::findings(settings, world, haproxy)).collect();
    findings.extend(certbot::findings(settings, world));
    findings.extend(timer::findings(world));
    findings.extend(modes::findings(settings));
    findings
}
