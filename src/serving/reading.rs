//! Reads a HAProxy's configuration, wherever it has its files.

use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::configuration::{Configuration, Environment};
use super::disk::{Disk, Illegible};
use crate::config::Haproxy;
use crate::haproxy::process::started::Started;
use crate::sys::escape::escaped_path;
use crate::sys::failure::io_cause;

/// Why a HAProxy's configuration isn't known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoConfiguration {
    /// Its root directory isn't ours to see.
    #[error("cannot see the files of process {pid}: {}", io_cause(.cause))]
    Closed {
        /// Its process.
        pid: i32,
        /// Why.
        cause: io::Error,
    },
    /// It has no file of its configuration among its arguments.
    #[error("HAProxy was started without a configuration file")]
    NoFile,
    /// A file or directory of it can't be read.
    #[error("cannot read {}: {why}", escaped_path(.file))]
    Illegible {
        /// Which.
        file: PathBuf,
        /// Why.
        why: Illegible,
    },
}

/// Where a HAProxy's configuration is, and what it names.
pub(super) struct Disks {
    /// Where the files are that hold the configuration.
    pub(super) configuration: Disk,
    /// Where what they name is.
    pub(super) loads: Disk,
}

impl Disks {
    pub(super) fn ours(folder: PathBuf) -> Self {
        Self { configuration: Disk::ours(folder.clone()), loads: Disk::ours(folder) }
    }

    /// Those of this HAProxy. The settings name our files by `config`, wherever it runs: what these name are its files.
    ///
    /// # Errors
    /// Its files can't be seen: why.
    pub(super) fn of(started: Option<&Started>, haproxy: &Haproxy) -> Result<Self, NoConfiguration> {
        let folder = started.map_or_else(|| "/".into(), |started| started.folder.clone());
        let root = started.and_then(|started| Some((started, started.root.as_ref()?)));
        if haproxy.config.is_empty() {
            let Some((started, root)) = root else { return Ok(Self::ours(folder)) };
            let below = || Disk::below(root, folder.clone()).map(|disk| disk.knowing(haproxy.places()));
            let cannot = |cause| NoConfiguration::Closed { pid: started.pid, cause };
            let (configuration, loads) = (below().map_err(cannot)?, below().map_err(cannot)?);
            return Ok(Self { configuration, loads });
        }
        let loads = match root.filter(|(started, _)| started.is_surely_this) {
            Some((_, root)) => {
                Disk::below(root, folder.clone()).unwrap_or_else(|_| Disk::unseen(Some(folder.clone())))
            }
            None if started.is_some_and(|started| started.is_surely_this) => Disk::ours(folder.clone()),
            None if haproxy.has_paths_of_its_own() => Disk::unseen(None),
            None => Disk::ours(folder.clone()),
        };
        Ok(Self { configuration: Disk::ours(folder), loads: loads.knowing(haproxy.places()) })
    }
}

/// Reads the configuration files in their order; of a directory those that end in `.cfg`. With the disk in which the names of
/// what they load begin, and the places of the files and directories.
pub(super) fn configuration(
    files: &[PathBuf],
    environment: Environment,
    disks: Disks,
) -> Result<(Configuration, Disk, Vec<PathBuf>), NoConfiguration> {
    let Disks { configuration: disk, loads } = disks;
    let mut configuration = Configuration::new(environment);
    let mut folders = Vec::new();
    if files.is_empty() {
        return Err(NoConfiguration::NoFile);
    }
    for file in files {
        let cannot = |why| NoConfiguration::Illegible { file: file.clone(), why };
        let find = |path: &Path| disk.find(path).map_err(|unfound| cannot(unfound.into()));
        let found = find(file)?;
        if !found.is_directory() {
            configuration.read(&file.to_string_lossy(), &found.text().map_err(cannot)?);
            continue;
        }
        folders.push(disk.place(file));
        for name in found.names().map_err(cannot)? {
            if name.as_bytes().starts_with(b".") || !name.as_bytes().ends_with(b".cfg") {
                continue;
            }
            let path = file.join(name);
            let found = find(&path)?;
            if found.is_file() {
                configuration.read(&path.to_string_lossy(), &found.text().map_err(cannot)?);
            }
        }
    }
    configuration.finish();
    let read = configuration.files.iter().map(|file| disk.place(Path::new(file)));
    let places = read.chain(folders).collect();
    // Where its own copy of the configuration is, nobody here knows.
    let is_copy = disk.is_ours() && !loads.is_ours();
    let loads = match configuration.beginning() {
        Some(_) if is_copy && configuration.begins_beside_itself() => loads.beginning_at(None),
        Some(folder) => loads.beginning_at(Some(Path::new(folder))),
        None => loads,
    };
    Ok((configuration, loads, places))
}

pub(super) fn environment(started: &Started) -> Environment {
    // Another HAProxy's variables aren't this one's.
    let variables = started.environment.as_ref().filter(|_| started.is_surely_this);
    let Some(variables) = variables else { return Environment::default() };
    let variables = variables
        .iter()
        .filter_map(|(name, value)| Some((name.to_str()?.to_owned(), value.to_str()?.to_owned())))
        .collect();
    Environment { variables, is_whole: true, version: None }
}
