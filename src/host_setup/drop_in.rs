//! The drop-ins that tell our hardened units of other directories than the default ones. Pure.

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

/// A service of ours that writes.
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
        own.into_iter().chain(of_fleet.iter().copied()).collect()
    }

    /// Whether it deploys, and notifies HAProxy.
    fn deploys(self) -> bool {
        self != Self::Publish
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
    let mut used: Vec<PathBuf> = Vec::new();
    let mut is_open = false;
    if unit.deploys() {
        let writable = common_folder(&settings.sites_dir, settings.host_file.parent()?);
        is_open = writable.parent().is_none();
        if is_open {
            lines
                .service
                .push("# The sites directory and the host certificate have no directory in common.".into());
            lines.service.push("ProtectSystem=no".into());
        } else if !writable.starts_with(WRITABLE) {
            lines.service.push(format!("ReadWritePaths={}", unit_word(writable)?));
        }
        used.extend([settings.sites_dir.clone(), settings.host_file.clone()]);
        let sockets =
            settings.haproxys.iter().flat_map(|it| it.master_socket.iter().chain(&it.runtime_socket));
        used.extend(sockets.filter_map(|socket| match socket {
            Address::Unix(path) => Some(path.clone()),
            Address::Tcp(_) => None,
        }));
        used.extend(settings.haproxys.iter().map(|haproxy| haproxy.pidfile.clone()));
    }
    let works_for_fleet = unit != OwnUnit::Assemble || settings.published().is_some();
    if let Some(fleet) = settings.fleet.as_ref().filter(|_| works_for_fleet) {
        if unit != OwnUnit::Assemble && fleet.identity != Path::new(IDENTITY) {
            lines.conditions = condition("ConditionPathExists", &unit_path(&fleet.identity)?);
        }
        let mut written = Vec::new();
        // The publisher makes its keys itself.
        let keys = Path::new(IDENTITY).parent()?;
        if !fleet.is_node() && !fleet.identity.starts_with(keys) {
            written.extend(fleet.identity.parent());
        }
        if !fleet.cache.starts_with(CACHES) {
            written.push(&fleet.cache);
        }
        if let StorePlace::Directory(store) = &fleet.store {
            written.push(store);
            used.push(store.clone());
        }
        for path in written.into_iter().filter(|_| !is_open) {
            // It may come later, as what is mounted does.
            let word = unit_word(path)?;
            let word = if let Some(quoted) = word.strip_prefix('"') {
                format!("\"-{quoted}")
            } else {
                format!("-{word}")
            };
            lines.service.push(format!("ReadWritePaths={word}"));
        }
        used.extend([fleet.identity.clone(), fleet.cache.clone()]);
    }
    if used.iter().any(|path| TEMPORARY.iter().any(|folder| path.starts_with(folder))) {
        lines.service.push("PrivateTmp=no".into());
    }
    Some(lines)
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
        let settings = format!("{top}[fleet]\nname = \"edge\"\n{fleet}");
        let settings = Settings::parse(&settings, &Overrides::default()).unwrap();
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

    fn settings(fleet: &str) -> Settings {
        Settings::parse(&format!("[fleet]\nname = \"edge\"\n{fleet}"), &Overrides::default()).unwrap()
    }
}
