//! A host's part in a fleet, and what it needs for that beside what every host needs: keys, and a service or a timer.

use crate::config::fleet::Fleet;
use crate::config::{OWN_DIR, Settings};
use crate::host_setup::finding::Finding;
use crate::status::unit;
use crate::sys::escape::{escaped, escaped_path};
use crate::sys::system::System;

/// What a node runs, and what it may run in its place.
const FOLLOWS: [&str; 2] = ["haproxy-certs-follow.service", "haproxy-certs-follow-once.timer"];
/// What a publisher without a HAProxy runs.
const PUBLISHES: [&str; 1] = ["haproxy-certs-publish.timer"];

/// A host's part in a fleet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FleetPart {
    /// It belongs to none.
    #[default]
    None,
    /// The settings have a fleet, and don't say yet what this host is in it.
    Unsaid,
    /// It deploys what is published.
    Node,
    /// It publishes, and deploys its own certificates as well.
    Publisher,
    /// It publishes, and nobody loads anything here.
    OnlyPublisher,
}

impl FleetPart {
    /// As the settings, and what earlier runs made, have it.
    #[must_use]
    pub fn of(settings: &Settings) -> Self {
        let Some(fleet) = &settings.fleet else { return Self::None };
        // Who may not look can't tell.
        let is_bare = || settings.sites_dir.join(OWN_DIR).try_exists().is_ok_and(|there| !there);
        match (settings.followed(), settings.published()) {
            (Some(_), _) => Self::Node,
            (None, Some(_)) if !fleet.names_haproxys && is_bare() => Self::OnlyPublisher,
            (None, Some(_)) => Self::Publisher,
            (None, None) if fleet.is_node() => Self::None,
            (None, None) => Self::Unsaid,
        }
    }

    /// As `init` makes it: whoever only publishes deploys as well from then on where a HAProxy loads the sites directory.
    /// `is_loaded`: whether one does; `None`: no configuration was found.
    #[must_use]
    pub fn once_ready(settings: &Settings, is_loaded: Option<bool>) -> Self {
        match Self::of(settings) {
            Self::OnlyPublisher if is_loaded == Some(true) => Self::Publisher,
            part => part,
        }
    }

    /// What becomes of its certificates.
    #[must_use]
    pub fn deeds(self) -> &'static str {
        match self {
            Self::OnlyPublisher => "published",
            Self::None | Self::Unsaid | Self::Node | Self::Publisher => "deployed",
        }
    }

    /// What makes this host's keys.
    fn makes_keys(self) -> &'static str {
        match self {
            Self::Publisher | Self::OnlyPublisher => "haproxy-certs fleet publish",
            Self::None | Self::Unsaid | Self::Node => "haproxy-certs fleet join",
        }
    }

    /// The units, one of which is to run; empty: what every host has does it.
    fn units(self) -> &'static [&'static str] {
        match self {
            Self::Node => &FOLLOWS,
            Self::OnlyPublisher => &PUBLISHES,
            Self::None | Self::Unsaid | Self::Publisher => &[],
        }
    }
}

/// What is found of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FleetFound {
    /// This host's part.
    pub part: FleetPart,
    /// Whether it has keys.
    pub has_keys: bool,
    /// Whether it has a cache.
    pub has_cache: bool,
    /// Whether what it has to run does run; `None`: that can't be seen, or nothing has to.
    pub runs: Option<bool>,
}

/// Looks for it, of a host with this part.
#[must_use]
pub fn look(settings: &Settings, system: &System, part: FleetPart) -> FleetFound {
    let has_keys = settings.fleet.as_ref().is_some_and(|fleet| fleet.identity.exists());
    let is_on = |name: &&str| unit::show(system, name).map(|unit| unit.active == "active");
    let seen: Vec<bool> = part.units().iter().filter_map(is_on).collect();
    let has_cache = settings.fleet.as_ref().is_some_and(|fleet| fleet.cache.is_dir());
    FleetFound { part, has_keys, has_cache, runs: (!seen.is_empty()).then(|| seen.contains(&true)) }
}

/// What is left to the operator: what, and the commands. `is_installed`: whether systemd has what it needs to run.
#[must_use]
pub fn left_to_do(
    fleet: Option<&Fleet>,
    found: &FleetFound,
    is_installed: bool,
) -> Vec<(String, Vec<String>)> {
    let Some(fleet) = fleet else { return Vec::new() };
    let name = escaped(&fleet.name);
    let mut left = Vec::new();
    let mut add = |text: String, command: &str| left.push((text, vec![command.to_owned()]));
    match found.part {
        FleetPart::None => return left,
        FleetPart::Unsaid => add(
            format!(
                "say what this host is in the fleet {name}: publishers make it a node, [[fleet.node]] tables the publisher; \
                 a node has keys first"
            ),
            found.part.makes_keys(),
        ),
        FleetPart::Node if !found.has_keys => add(
            "make this host's keys, and put the table that this prints into the publisher's settings"
                .to_owned(),
            found.part.makes_keys(),
        ),
        FleetPart::Publisher | FleetPart::OnlyPublisher if !found.has_keys => add(
            format!(
                "publish to the fleet {name} for the first time: it makes this host's keys, and prints the nodes' line"
            ),
            found.part.makes_keys(),
        ),
        FleetPart::Node | FleetPart::Publisher | FleetPart::OnlyPublisher => {}
    }
    if let Some(unit) = found.part.units().first().filter(|_| found.runs != Some(true)) {
        match found.part {
            FleetPart::Node if is_installed => {
                add(format!("follow the fleet {name}"), &format!("systemctl enable --now {unit}"));
            }
            FleetPart::Node => add(
                format!(
                    "no {unit} is installed: run this every few minutes, from cron, to follow the fleet {name}"
                ),
                "haproxy-certs -q fleet follow --once",
            ),
            _ if is_installed => add(
                format!("publish to the fleet {name} what no hook of certbot's reports"),
                &format!("systemctl enable --now {unit}"),
            ),
            // Every host is told what to run where no unit is installed.
            _ => {}
        }
    }
    left
}

/// For `status --setup`.
pub(crate) fn findings(settings: &Settings, system: &System) -> Vec<Finding> {
    let found = look(settings, system, FleetPart::of(settings));
    let Some(fleet) = settings.fleet.as_ref().filter(|_| found.part != FleetPart::None) else {
        return Vec::new();
    };
    let (name, file) = (escaped(&fleet.name), escaped_path(&fleet.identity));
    let what = match found.part {
        FleetPart::None | FleetPart::Unsaid => {
            let fact = format!(
                "the settings don't say what this host is in the fleet {name}: publishers make it a node, [[fleet.node]] \
                 tables the publisher"
            );
            return vec![Finding::wrong("fleet", fact, &[])];
        }
        FleetPart::Node => "a node",
        FleetPart::Publisher => "the publisher",
        FleetPart::OnlyPublisher => "the publisher, without a HAProxy,",
    };
    let keys = if found.has_keys {
        Finding::fine("fleet", format!("this host is {what} of the fleet {name}; its keys are {file}"))
    } else {
        let fact =
            format!("this host is {what} of the fleet {name}, and has no keys yet: there is no {file}");
        Finding::wrong("fleet", fact, &[found.part.makes_keys()])
    };
    let runs = found.part.units().first().map(|unit| match found.runs {
        Some(true) => Finding::fine("fleet", format!("{unit}, or what may stand for it, is active")),
        Some(false) => Finding::wrong(
            "fleet",
            format!("{unit} is not active: what changes comes late, or never"),
            &[&format!("systemctl enable --now {unit}")],
        ),
        None => Finding::unknown(
            "fleet",
            format!("systemd is not PID 1 here: whether something does the work of {unit} can't be seen"),
        ),
    });
    [Some(keys), runs].into_iter().flatten().collect()
}
