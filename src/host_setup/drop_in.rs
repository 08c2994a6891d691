//! The drop-ins that tell our hardened units of other directories than the default ones. Pure.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::config::fleet::{CACHES, IDENTITY, StorePlace};
use crate::config::{Address, OWN_DIR, Settings};
use crate::host_setup::fleet_part::FleetPart;

/// The first line of a drop-in: a file that begins with it is ours to write again.
pub const MARK: &str = "# Written by haproxy-certs init.";
/// What the units may write to without a drop-in, and the sites directory that haproxy-certs.service waits for.
const WRITABLE: &str = "/usr/local/ssl/certs";
const SITES_DIR: &str = "/usr/local/ssl/certs/sites";
/// What a unit with `PrivateTmp` has of its own.
const TEMPORARY: [&str; 2] = ["/tmp", "/var/tmp"];
/// What `ProtectHome` protects (`systemd.exec(5)`).
const HOMES: [&str; 3] = ["/home", "/root", "/run/user"];

/// A service of ours that is told of what the settings name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnUnit {
    /// `assemble`.
    Assemble,
    /// `fleet follow`.
    Follow,
    /// `fleet follow --once`.
    FollowOnce,
    /// `fleet publish`.
    Publish,
    /// `status --textfile`, which writes nothing that the settings name.
    Metrics,
}

impl OwnUnit {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Assemble => "haproxy-certs.service",
            Self::Follow => "haproxy-certs-follow.service",
            Self::FollowOnce => "haproxy-certs-follow-once.service",
            Self::Publish => "haproxy-certs-publish.service",
            Self::Metrics => "haproxy-certs-metrics.service",
        }
    }

    /// Those that may run on a host with this part in a fleet. `serves`: something is loaded here.
    #[must_use]
    pub fn of(part: FleetPart, serves: bool) -> Vec<Self> {
        let own = serves.then_some(Self::Assemble);
        let of_fleet: &[Self] = match part {
            FleetPart::Node => &[Self::Follow, Self::FollowOnce],
            FleetPart::OnlyPublisher => &[Self::Publish],
            FleetPart::None | FleetPart::Unsaid | FleetPart::Publisher => &[],
        };
        own.into_iter().chain(of_fleet.iter().copied()).chain([Self::Metrics]).collect()
    }

    /// Whether it does something for HAProxy: not where nobody loads anything.
    #[must_use]
    pub fn serves(self) -> bool {
        matches!(self, Self::Assemble | Self::Follow | Self::FollowOnce)
    }

    /// Whether it writes what the settings name.
    #[must_use]
    pub fn writes(self) -> bool {
        self != Self::Metrics
    }

    /// Whether it reads certbot's certificates.
    fn reads_certbots(self) -> bool {
        !matches!(self, Self::Follow | Self::FollowOnce)
    }
}

/// Whether these settings need the unit to be told of something.
#[must_use]
pub fn is_needed(unit: OwnUnit, settings: &Settings) -> bool {
    // What can't be expressed is needed, too.
    let is_default = unit != OwnUnit::Assemble || settings.sites_dir == Path::new(SITES_DIR);
    !is_default || lines(unit, settings).is_none_or(|lines| !lines.is_empty())
}

/// The drop-in that tells a unit of what these settings name; `None`: a unit can't name it.
#[must_use]
pub fn text(unit: OwnUnit, settings: &Settings) -> Option<String> {
    let Lines { mut conditions, service } = lines(unit, settings)?;
    if unit == OwnUnit::Assemble {
        let own_dir = unit_path(&settings.sites_dir.join(OWN_DIR))?;
        conditions = condition("ConditionPathIsDirectory", &own_dir);
    }
    let mut text = format!("{MARK}\n");
    for (section, lines) in [("Unit", conditions), ("Service", service)] {
        if !lines.is_empty() {
            let gap = if text.contains('[') { "\n" } else { "" };
            // Writing to a String never fails.
            let _ = writeln!(text, "{gap}[{section}]\n{}", lines.join("\n"));
        }
    }
    Some(text)
}

/// The lines of a drop-in, by section.
struct Lines {
    conditions: Vec<String>,
    service: Vec<String>,
}

impl Lines {
    fn is_empty(&self) -> bool {
        self.conditions.is_empty() && self.service.is_empty()
    }
}

/// A condition in the place of those that the unit has.
fn condition(word: &str, path: &str) -> Vec<String> {
    vec![format!("{word}="), format!("{word}={path}")]
}

/// What the unit has to be told besides the sites directory that it waits for; `None`: a unit can't name it.
fn lines(unit: OwnUnit, settings: &Settings) -> Option<Lines> {
    let mut lines = Lines { conditions: Vec::new(), service: Vec::new() };
    // What it writes, and what it has to be allowed for that.
    let mut written: Vec<(&Path, &Path)> = Vec::new();
    let mut is_open = false;
    if unit.serves() {
        let allowed = common_folder(&settings.sites_dir, settings.host_file.parent()?);
        is_open = allowed.parent().is_none();
        if is_open {
            lines
                .service
                .push("# The sites directory and the host certificate have no directory in common.".into());
            lines.service.push("ProtectSystem=no".into());
        } else if !allowed.starts_with(WRITABLE) {
            lines.service.push(format!("ReadWritePaths={}", unit_word(allowed)?));
        }
        written.extend([(settings.sites_dir.as_path(), allowed), (&settings.host_file, allowed)]);
    }
    if let Some(fleet) = settings.fleet.as_ref().filter(|_| unit.writes() && works_for_fleet(unit, settings))
    {
        if unit != OwnUnit::Assemble && fleet.identity != Path::new(IDENTITY) {
            lines.conditions = condition("ConditionPathExists", &unit_path(&fleet.identity)?);
        }
        let mut of_fleet: Vec<&Path> = Vec::new();
        // The publisher makes its keys itself.
        let keys = Path::new(IDENTITY).parent()?;
        if !fleet.is_node() && !fleet.identity.starts_with(keys) {
            of_fleet.extend(fleet.identity.parent());
        }
        if !fleet.cache.starts_with(CACHES) {
            of_fleet.push(&fleet.cache);
        }
        if let StorePlace::Directory(store) = &fleet.store {
            of_fleet.push(store);
        }
        for path in of_fleet.iter().filter(|_| !is_open) {
            // It may come later, as what is mounted does.
            let word = unit_word(path)?;
            let word = if let Some(quoted) = word.strip_prefix('"') {
                format!("\"-{quoted}")
            } else {
                format!("-{word}")
            };
            lines.service.push(format!("ReadWritePaths={word}"));
        }
        written.extend(of_fleet.iter().map(|&path| (path, if is_open { Path::new("/") } else { path })));
    }
    if written.iter().any(|(path, allowed)| is_shut(path, allowed)) {
        lines.service.push("# ProtectHome would keep what is written read-only.".into());
        lines.service.push("ProtectHome=no".into());
    }
    if used(unit, settings).iter().any(|path| TEMPORARY.iter().any(|folder| path.starts_with(folder))) {
        lines.service.push("PrivateTmp=no".into());
    }
    Some(lines)
}

fn works_for_fleet(unit: OwnUnit, settings: &Settings) -> bool {
    unit != OwnUnit::Assemble || settings.published().is_some()
}

/// All that the unit reads or writes by these settings.
fn used(unit: OwnUnit, settings: &Settings) -> Vec<&Path> {
    let mut used: Vec<&Path> = Vec::new();
    if unit.reads_certbots() {
        used.push(&settings.live_dir);
    }
    if unit.serves() || unit == OwnUnit::Metrics {
        used.extend([settings.sites_dir.as_path(), &settings.host_file]);
        for haproxy in &settings.haproxys {
            let sockets = haproxy.master_socket.iter().chain(&haproxy.runtime_socket);
            used.extend(sockets.filter_map(|socket| match socket {
                Address::Unix(path) => Some(path.as_path()),
                Address::Tcp(_) => None,
            }));
            used.push(&haproxy.pidfile);
            used.extend(haproxy.config.iter().map(PathBuf::as_path));
        }
    }
    if let Some(fleet) = settings.fleet.as_ref().filter(|_| works_for_fleet(unit, settings)) {
        used.extend([fleet.identity.as_path(), &fleet.cache]);
        if let StorePlace::Directory(store) = &fleet.store {
            used.push(store);
        }
    }
    used
}

/// Whether `ProtectHome=read-only` keeps a unit from writing to a path although it is allowed this directory: what is allowed
/// has to lie below a directory that is protected (`systemd.exec(5)`; systemd 247 and 257 do so).
fn is_shut(path: &Path, allowed: &Path) -> bool {
    HOMES.iter().any(|home| path.starts_with(home) && Path::new(home).starts_with(allowed))
}

/// The directory that holds both. It has to be allowed as one: each directory that a unit may write to becomes a mount of
/// its own, and the host certificate is renamed from the sites directory into its own.
fn common_folder<'a>(one: &'a Path, other: &Path) -> &'a Path {
    one.ancestors().find(|folder| other.starts_with(folder)).unwrap_or(Path::new("/"))
}

/// A path in a unit's list: quotes hold blanks together, and a backslash escapes (`systemd.syntax(7)`).
fn unit_word(path: &Path) -> Option<String> {
    let text = unit_path(path)?.replace('\\', "\\\\");
    if text.bytes().any(|byte| matches!(byte, b' ' | b'"' | b'\'')) {
        return Some(format!("\"{}\"", text.replace('"', "\\\"")));
    }
    Some(text)
}

/// A path in a unit's condition, which is taken as it is to the end of its line; `%` begins a specifier. systemd passes
/// over lines that aren't UTF-8, and a path can't hold the end of a line.
fn unit_path(path: &Path) -> Option<String> {
    let text =
        path.to_str().filter(|text| !text.contains(char::is_control) && !text.ends_with([' ', '\\']))?;
    Some(text.replace('%', "%%"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Overrides;

    const NODE: &str = "publishers = [\"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAjhDE5Ru3XRyR/WtKsmhAZpUXU62u6H2doMsuaQIfUR vm\"]\n";
    const PUBLISHER: &str = "[[fleet.node]]\nname = \"lb1\"\nkey = \"x\"\n";

    fn told(unit: OwnUnit, top: &str, fleet: &str) -> String {
        let settings = settings_of(top, fleet);
        assert_eq!(is_needed(unit, &settings), text(unit, &settings).unwrap() != format!("{MARK}\n"));
        text(unit, &settings).unwrap().strip_prefix(MARK).unwrap().trim().to_owned()
    }

    #[test]
    fn a_follower_is_told_of_what_it_writes_elsewhere() {
        let etcd = format!("store = [\"https://e1:2379\"]\n{NODE}");
        for unit in [OwnUnit::Follow, OwnUnit::FollowOnce] {
            assert_eq!(told(unit, "", &etcd), "");
            let sites = "sites_dir = \"/etc/haproxy/certs\"\nhost_file = \"/etc/haproxy/host.pem\"\n";
            assert_eq!(told(unit, sites, &etcd), "[Service]\nReadWritePaths=/etc/haproxy");
            assert_eq!(
                told(unit, "", &format!("store = \"/srv/my fleet\"\ncache = \"/srv/cache\"\n{NODE}")),
                "[Service]\nReadWritePaths=-/srv/cache\nReadWritePaths=\"-/srv/my fleet\""
            );
            assert_eq!(
                told(unit, "", &format!("identity = \"/etc/keys/100%\"\n{etcd}")),
                "[Unit]\nConditionPathExists=\nConditionPathExists=/etc/keys/100%%"
            );
            let socket = format!("{etcd}[[haproxy]]\nruntime_socket = \"/tmp/haproxy.sock\"\n");
            assert_eq!(told(unit, "", &socket), "[Service]\nPrivateTmp=no");
            // Everything may be written to already.
            let apart =
                told(unit, "sites_dir = \"/srv/sites\"\n", &format!("store = \"/srv/fleet\"\n{NODE}"));
            assert!(apart.ends_with("ProtectSystem=no"), "{apart}");
        }
    }

    #[test]
    fn a_publisher_is_told_of_its_keys_too() {
        let store = format!("store = \"/srv/fleet\"\nidentity = \"/srv/keys/identity\"\n{PUBLISHER}");
        let written = "[Service]\nReadWritePaths=-/srv/keys\nReadWritePaths=-/srv/fleet";
        let condition = "[Unit]\nConditionPathExists=\nConditionPathExists=/srv/keys/identity";
        assert_eq!(told(OwnUnit::Publish, "", &store), format!("{condition}\n\n{written}"));
        assert!(told(OwnUnit::Assemble, "", &store).ends_with(written));
        // A node's own runs write nothing of the fleet's.
        let followed = format!("store = \"/srv/fleet\"\n{NODE}");
        assert_eq!(lines(OwnUnit::Assemble, &settings(&followed)).map(|lines| lines.is_empty()), Some(true));
    }

    /// Each unit that deploys, with these two in its settings.
    fn told_of(sites_dir: &str, host_file: &str, fleet: &str) -> String {
        let text = format!("sites_dir = \"{sites_dir}\"\nhost_file = \"{host_file}\"\n");
        let each = [OwnUnit::Follow, OwnUnit::FollowOnce].map(|unit| told(unit, &text, fleet));
        assert_eq!(each[0], each[1]);
        each[0].clone()
    }

    /// In what `ProtectHome` protects a unit writes below a directory that it is allowed, not to the protected one itself.
    #[test]
    fn homes_are_opened_where_they_are_themselves_written_to() {
        let etcd = format!("store = [\"https://e1:2379\"]\n{NODE}");
        for home in ["/root", "/home", "/run/user"] {
            let below = told_of(&format!("{home}/lb/sites"), &format!("{home}/lb/host.pem"), &etcd);
            assert_eq!(below, format!("[Service]\nReadWritePaths={home}/lb"));
            let itself = told_of(&format!("{home}/sites"), &format!("{home}/host.pem"), &etcd);
            assert!(
                itself.starts_with(&format!("[Service]\nReadWritePaths={home}\n"))
                    && itself.ends_with("\nProtectHome=no"),
                "{itself}"
            );
            // Without anything in common, all of the system may be written to but that.
            let apart = told_of(&format!("{home}/lb/sites"), "/srv/host.pem", &etcd);
            assert!(apart.contains("\nProtectSystem=no\n") && apart.ends_with("\nProtectHome=no"), "{apart}");
            let store = format!("store = \"{home}\"\n{NODE}");
            assert!(told(OwnUnit::Follow, "", &store).ends_with("\nProtectHome=no"));
            assert!(!told(OwnUnit::Metrics, "", &store).contains("ProtectHome"));
        }
        let run = told_of("/run/user/0/sites", "/run/host.pem", &etcd);
        assert!(run.contains("=/run\n") && run.ends_with("\nProtectHome=no"), "{run}");
        let both = told_of("/run/sites", "/run/host.pem", &etcd);
        assert_eq!(both, "[Service]\nReadWritePaths=/run");
    }

    /// They only read: what they don't see without being told is what is below their own `/tmp`.
    #[test]
    fn the_metrics_are_told_of_what_is_below_tmp() {
        let etcd = format!("store = [\"https://e1:2379\"]\n{PUBLISHER}");
        let metrics = |top: &str, fleet: &str| told(OwnUnit::Metrics, top, fleet);
        for top in [
            "",
            "sites_dir = \"/srv/sites\"\n",
            "sites_dir = \"/root/sites\"\nhost_file = \"/root/host.pem\"\nlive_dir = \"/tmpfs\"\n",
        ] {
            assert_eq!(metrics(top, &etcd), "", "{top}");
        }
        assert_eq!(
            metrics("", &format!("identity = \"/srv/keys/identity\"\nstore = \"/srv/fleet\"\n{NODE}")),
            ""
        );
        for top in [
            "sites_dir = \"/tmp/sites\"\n",
            "host_file = \"/var/tmp/host.pem\"\n",
            "live_dir = \"/tmp/live\"\n",
        ] {
            assert_eq!(metrics(top, &etcd), "[Service]\nPrivateTmp=no", "{top}");
        }
        for haproxy in
            ["pidfile = \"/tmp/pid\"", "master_socket = \"/tmp/master\"", "config = [\"/tmp/haproxy.cfg\"]"]
        {
            let table = format!("{etcd}[[haproxy]]\n{haproxy}\n");
            assert_eq!(metrics("", &table), "[Service]\nPrivateTmp=no", "{haproxy}");
        }
        // Who reads certbot's certificates sees them.
        let live = settings_of("live_dir = \"/tmp/live\"\n", &etcd);
        let opens = |unit| text(unit, &live).unwrap().contains("PrivateTmp=no");
        assert!(opens(OwnUnit::Assemble) && opens(OwnUnit::Publish) && !opens(OwnUnit::Follow));
    }

    #[test]
    fn the_metrics_are_written_on_every_host() {
        for part in [FleetPart::None, FleetPart::Node, FleetPart::Publisher, FleetPart::OnlyPublisher] {
            assert_eq!(OwnUnit::of(part, true).last(), Some(&OwnUnit::Metrics), "{part:?}");
        }
    }

    fn settings(fleet: &str) -> Settings {
        settings_of("", fleet)
    }

    fn settings_of(top: &str, fleet: &str) -> Settings {
        Settings::parse(&format!("{top}[fleet]\nname = \"edge\"\n{fleet}"), &Overrides::default()).unwrap()
    }
}
