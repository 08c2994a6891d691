//! `status --setup`: is everything around the certificates as it must be? Each finding is a fact and the line that mends it.

pub mod certbot;
pub mod challenge;
pub mod configuration;
pub mod haproxy;
pub mod hooks;
pub mod listening;
pub mod modes;
pub mod placeholder;
pub mod timer;

use crate::config::{Haproxy, Settings};
use crate::sys::escape::escaped;
use crate::sys::system::System;

use crate::status::checking::Checked;
use crate::status::judge::Problem;
use crate::status::running::Running;
use crate::status::severity::Severity;

pub use configuration::Bind;
pub use configuration::Configuration;
pub use configuration::Plain;

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

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    /// Everything that was looked at.
    pub findings: Vec<Finding>,
    /// What has a word of its own among the problems.
    pub problems: Vec<Problem>,
}

impl Setup {
    /// Together with what else was found.
    pub fn add(&mut self, other: Self) {
        self.findings.extend(other.findings);
        self.problems.extend(other.problems);
    }
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

/// What HAProxy said of its own configuration; a refusal is a problem with a word of its own.
#[must_use]
pub fn checked(haproxy: &Haproxy, checked: &Checked) -> Option<Finding> {
    let name = escaped(&haproxy.name);
    match checked {
        Checked::Accepted => {
            Some(Finding::fine("configuration", format!("{name} accepts its configuration (haproxy -c)")))
        }
        Checked::Refused { .. } => None,
        Checked::Unasked(why) => Some(Finding::unknown(
            "configuration",
            format!("{name} was not asked whether it accepts its configuration: {why}"),
        )),
    }
}

/// Looks at everything around the certificates.
#[must_use]
pub fn look(settings: &Settings, system: &System, running: &[Running]) -> Setup {
    let haproxys = settings.haproxys.iter().zip(running);
    let mut findings: Vec<Finding> = haproxys
        .flat_map(|(haproxy, running)| haproxy::findings(settings, system, haproxy, running.down.is_some()))
        .collect();
    findings.extend(certbot::findings(settings, system));
    let (others, problems) = hooks::look(settings, system);
    findings.extend(others);
    findings.extend(timer::findings(system));
    findings.extend(modes::findings(settings));
    Setup { findings, problems }
}
