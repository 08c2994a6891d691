//! `status --setup`: is everything around the certificates as it must be? Each finding is a fact and the line that mends it.

pub mod adopt;
pub mod bind_words;
pub mod certbot;
pub mod challenge;
pub mod drop_in;
pub mod finding;
pub mod fleet_part;
pub mod haproxy;
pub mod hooks;
pub mod listeners;
pub mod listening;
pub mod modes;
pub mod placeholder;
pub mod settings_file;
pub mod timer;

use crate::config::{Haproxy, Settings};
use crate::host_setup::finding::Finding;
use crate::host_setup::fleet_part::FleetPart;
use crate::plan::client::Client;
use crate::status::checking::Checked;
use crate::status::problem::Problem;
use crate::status::running::Running;
use crate::sys::escape::escaped;
use crate::sys::system::System;

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
    let part = FleetPart::of(settings);
    let mut findings: Vec<Finding> = settings
        .haproxys
        .iter()
        .zip(running)
        .flat_map(|(haproxy, running)| haproxy::findings(settings, system, haproxy, running.down.is_some()))
        .collect();
    // A node has no certbot.
    let client = Client::of(settings);
    if part != FleetPart::Node {
        findings.extend(certbot::findings(settings, system));
    }
    let (others, problems) = match client {
        Client::Certbot => hooks::look(settings, system),
        Client::Another | Client::Publisher => (Vec::new(), Vec::new()),
    };
    findings.extend(others);
    match part {
        FleetPart::Node => {}
        FleetPart::OnlyPublisher => findings.extend(timer::of_publisher(system, client)),
        FleetPart::None | FleetPart::Unsaid | FleetPart::Publisher => {
            findings.extend(timer::findings(system, client));
        }
    }
    findings.extend(fleet_part::findings(settings, system));
    if part != FleetPart::OnlyPublisher {
        findings.extend(modes::of_sites_dir(settings, system));
    }
    findings.extend(modes::of_certbot(settings));
    Setup { findings, problems }
}
