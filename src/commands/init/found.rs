//! What a host has of what `init` makes.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::certbot::cli_ini::{self, SavedHook};
use crate::certbot::version::{self, Version};
use crate::certbot::{CertbotTree, certbot_dir};
use crate::config::{OWN_DIR, Settings};
use crate::host_setup::adopt;
use crate::host_setup::drop_in::OwnUnit;
use crate::host_setup::fleet_part::{self, FleetFound, FleetPart};
use crate::plan::client::Client;
use crate::sys::failure::Failure;
use crate::sys::system::System;

/// The name of the link in certbot's directory of hooks.
pub const HOOK_NAME: &str = "haproxy-certs";

/// Where things are that `init` looks at, besides what the settings name.
#[derive(Debug, Clone)]
pub struct Places {
    /// Where systemd's units may be installed.
    pub units: Vec<PathBuf>,
    /// The administrator's units and drop-ins.
    pub drop_ins: PathBuf,
    /// The program that the hook is to run: this one.
    pub program: PathBuf,
}

impl Places {
    /// This host's.
    ///
    /// # Errors
    /// It can't be told which program is running.
    pub fn host() -> Result<Self, Failure> {
        let program = std::env::current_exe()
            .map_err(|e| Failure::io("find the running program,", Path::new("/proc/self/exe"), &e))?;
        Ok(Self {
            units: ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"]
                .map(PathBuf::from)
                .into(),
            drop_ins: "/etc/systemd/system".into(),
            program,
        })
    }
}

/// What is found in the place of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostFile {
    /// Nothing.
    Absent,
    /// Nothing, and the place is on another file system than the sites directory, as beside one that is mounted: none can
    /// be put there.
    OutOfReach,
    /// A file, or a link to one.
    File,
    /// A link that leads nowhere: HAProxy can't load it.
    Dangling,
    /// A directory: HAProxy would load what is in it.
    Directory,
    /// Anything else.
    Other,
}

/// What is found in the place of the hook's link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hook {
    /// Nothing.
    Absent,
    /// A link to this program.
    Ours,
    /// Anything else.
    Other,
}

/// A systemd unit of ours that is installed.
#[derive(Debug, Clone)]
pub struct FoundUnit {
    /// Which.
    pub unit: OwnUnit,
    /// What its drop-in holds, where there is one.
    pub drop_in: Option<String>,
    /// Where that drop-in is, or would be.
    pub file: PathBuf,
}

/// The facts that the plan is made from.
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
#[derive(Debug, Clone)]
pub struct Found {
    /// Whether the sites directory is there.
    pub sites_dir: bool,
    /// Whether our own directory is in it, without which haproxy-certs.service does nothing.
    pub own_dir: bool,
    /// What is in the place of the host certificate.
    pub host_file: HostFile,
    /// certbot's directory of hooks, and what it has under our name; `None`: the tree isn't certbot's own.
    pub hook: Option<(PathBuf, Hook)>,
    /// certbot's version, where it could be asked.
    pub certbot: Option<Version>,
    /// The hooks in certbot's own files that name this program.
    pub saved_hooks: Vec<SavedHook>,
    /// The text of certbot's `cli.ini`.
    pub cli_ini: String,
    /// Whether there is a lineage.
    pub any_lineage: bool,
    /// Those of our systemd units that are installed and may run here.
    pub units: Vec<FoundUnit>,
    /// Whether HAProxy's configuration names the sites directory; `None`: it can't be read.
    pub configured: Option<bool>,
    /// Where it names other certificates instead: which, and what to do.
    pub loads_others: Option<String>,
    /// The program that the hook is to run.
    pub program: PathBuf,
    /// What there is of this host's part in a fleet.
    pub fleet: FleetFound,
}

/// Gathers the facts; changes nothing.
#[must_use]
pub fn look(settings: &Settings, system: &System, places: &Places, hook: bool) -> Found {
    let folder = certbot_dir(settings).filter(|_| Client::of(settings) == Client::Certbot);
    let link = folder.map(|folder| folder.join("renewal-hooks/post").join(HOOK_NAME));
    let configured = adopt::loads_sites_dir(settings, system);
    let fleet = fleet_part::look(settings, system, FleetPart::once_ready(settings, configured));
    let units = OwnUnit::of(fleet.part, true);
    let installed =
        units.into_iter().filter(|unit| places.units.iter().any(|folder| folder.join(unit.name()).exists()));
    Found {
        sites_dir: settings.sites_dir.is_dir(),
        own_dir: settings.sites_dir.join(OWN_DIR).is_dir(),
        host_file: match host_file_at(&settings.host_file) {
            HostFile::Absent if is_out_of_reach(settings) => HostFile::OutOfReach,
            found => found,
        },
        hook: link.map(|link| {
            let found = hook_at(&link, &places.program);
            (link, found)
        }),
        certbot: system
            .program(&settings.certbot.binary)
            .filter(|_| hook)
            .and_then(|program| version::ask(&program)),
        saved_hooks: folder.map(cli_ini::saved_hooks).unwrap_or_default(),
        cli_ini: folder
            .and_then(|folder| fs::read_to_string(folder.join("cli.ini")).ok())
            .unwrap_or_default(),
        any_lineage: CertbotTree::of(settings).discover().is_ok_and(|found| !found.lineages.is_empty()),
        units: installed.map(|unit| found_unit(unit, &places.drop_ins)).collect(),
        configured,
        loads_others: adopt::loads_others(settings, system),
        program: places.program.clone(),
        fleet,
    }
}

fn found_unit(unit: OwnUnit, drop_ins: &Path) -> FoundUnit {
    let file = drop_ins.join(format!("{}.d/paths.conf", unit.name()));
    FoundUnit { unit, drop_in: fs::read_to_string(&file).ok(), file }
}

fn host_file_at(path: &Path) -> HostFile {
    match (fs::symlink_metadata(path), fs::metadata(path)) {
        (Err(_), _) => HostFile::Absent,
        (Ok(_), Err(_)) => HostFile::Dangling,
        (_, Ok(found)) if found.is_file() => HostFile::File,
        (_, Ok(found)) if found.is_dir() => HostFile::Directory,
        _ => HostFile::Other,
    }
}

/// Whether the host certificate's place is on another file system than the sites directory, and no lineage has to be written
/// there.
fn is_out_of_reach(settings: &Settings) -> bool {
    let device = |folder: &Path| fs::metadata(folder).ok().map(|found| found.dev());
    let places = settings.host_file.parent().and_then(device).zip(device(&settings.sites_dir));
    settings.host_lineage.is_none() && places.is_some_and(|(host, sites)| host != sites)
}

fn hook_at(link: &Path, program: &Path) -> Hook {
    match fs::symlink_metadata(link) {
        Err(_) => Hook::Absent,
        Ok(found) if found.is_symlink() && leads_to(link, program) => Hook::Ours,
        Ok(_) => Hook::Other,
    }
}

fn leads_to(link: &Path, program: &Path) -> bool {
    fs::read_link(link).is_ok_and(|target| target == program)
        || fs::canonicalize(link).is_ok_and(|target| fs::canonicalize(program).is_ok_and(|own| own == target))
}

impl Found {
    /// Whether this host only publishes: nobody loads anything here.
    pub(super) fn only_publishes(&self) -> bool {
        self.fleet.part == FleetPart::OnlyPublisher
    }

    /// Whether it publishes to a fleet.
    pub(super) fn publishes(&self) -> bool {
        matches!(self.fleet.part, FleetPart::OnlyPublisher | FleetPart::Publisher)
    }

    /// Whether its certificates are another host's, which has certbot.
    pub(super) fn is_node(&self) -> bool {
        self.fleet.part == FleetPart::Node
    }

    /// Whether systemd has what this host's part in a fleet needs.
    pub(super) fn has_units_of_fleet(&self) -> bool {
        let all = OwnUnit::of(self.fleet.part, false);
        self.units.iter().any(|found| found.unit.writes() && all.contains(&found.unit))
    }

    /// Whether certbot's cli.ini calls this program.
    pub(super) fn in_cli_ini(&self) -> bool {
        self.saved_hooks.iter().any(|hook| hook.file.ends_with("cli.ini"))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_is_in_its_place_is_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("host.pem");
        assert_eq!(host_file_at(&path), HostFile::Absent);
        symlink("nowhere", &path).unwrap();
        assert_eq!(host_file_at(&path), HostFile::Dangling);
        fs::write(folder.path().join("nowhere"), "").unwrap();
        assert_eq!(host_file_at(&path), HostFile::File);
        assert_eq!(host_file_at(folder.path()), HostFile::Directory);
        assert_eq!(host_file_at(Path::new("/dev/null")), HostFile::Other);
    }
}
