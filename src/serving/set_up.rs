//! What is set up, for people who want to know.

use std::path::{Path, PathBuf};

use super::configuration::{Configuration, Environment, UnknownLine};
use super::contents::KeyFile;
use super::disk::{Disk, OnDisk};
use super::gathering::Gathering;
use super::loads::{Identity, Serving};
use super::reading::{Disks, NoConfiguration, configuration, environment};
use crate::config::Haproxy;
use crate::haproxy::process::release::release;
use crate::haproxy::process::started::{Started, usual_configuration};
use crate::sys::system::System;

/// The configuration of this HAProxy and what it loads, for people who want to know what is set up: the files that the
/// settings name, else those of the HAProxy that runs, else what distributions start it with. It is read, whoever's it is.
///
/// # Errors
/// It can't be read: why.
pub(crate) fn set_up(
    system: &System,
    haproxy: &Haproxy,
) -> Result<(Configuration, Serving), NoConfiguration> {
    let started = Started::find(system, haproxy).ok();
    let disks = Disks::of(started.as_ref(), haproxy)?;
    let files = match (&started, haproxy.config.as_slice()) {
        (_, [_, ..]) => haproxy.config.clone(),
        (Some(started), []) if !started.files.is_empty() => started.files.clone(),
        _ => vec![usual_configuration()],
    };
    let version = release(system, haproxy, started.as_ref());
    let environment = Environment { version, ..started.as_ref().map(environment).unwrap_or_default() };
    let (configuration, disk, sources) = configuration(&files, environment, disks)?;
    let mut gathering = Gathering::of(&configuration, &disk, None);
    gathering.sources = sources;
    let binds = gathering.binds();
    let serving = gathering.read(binds);
    Ok((configuration, serving))
}

/// The configuration of a HAProxy that runs, and what it loads, by its files alone; `None`: it can't be read. What is in the
/// sites directory isn't.
pub(crate) fn set_up_of(started: &Started, sites: Identity) -> Option<(Configuration, Serving)> {
    let ours = || Some(Disk::ours(started.folder.clone()));
    let disk = || match &started.root {
        Some(root) => Disk::below(root, started.folder.clone()).ok(),
        None => ours(),
    };
    let disks = Disks { configuration: disk()?, loads: disk()? };
    // It is surely itself.
    let environment = environment(&Started { is_surely_this: true, ..started.clone() });
    let (configuration, disk, _) = configuration(&started.files, environment, disks).ok()?;
    let mut gathering = Gathering::of(&configuration, &disk, None);
    (gathering.spared.sites, gathering.spared.is_unread) = (Some(sites), true);
    let binds = gathering.binds();
    let serving = gathering.read(binds);
    Some((configuration, serving))
}

/// The lines of these configuration files that are read otherwise in an environment which nobody knows; none where a file
/// can't be read.
pub(crate) fn unknown_lines(files: &[PathBuf]) -> Vec<UnknownLine> {
    let read = configuration(files, Environment::default(), Disks::ours("/".into()));
    read.map(|(configuration, ..)| configuration.unknown).unwrap_or_default()
}

/// The first file that a process's configuration names and that is another one for us, where its mounts or its root directory
/// aren't ours; `None`: there is none. What can't be read counts as another one.
pub(crate) fn first_elsewhere(
    started: &Started,
    haproxy: &Haproxy,
    version: Option<(u32, u32)>,
) -> Option<PathBuf> {
    let files = if haproxy.config.is_empty() { &started.files } else { &haproxy.config };
    let whole = || files.first().map(|file| started.folder.join(file)).unwrap_or_default();
    let Ok(disks) = Disks::of(Some(started), haproxy) else { return Some(whole()) };
    let environment = Environment { version, ..environment(started) };
    let Ok((configuration, disk, _)) = configuration(files, environment, disks) else { return Some(whole()) };
    let beginning = configuration.beginning().map(Path::new);
    let ours = match beginning {
        Some(folder) => Disk::ours(started.folder.clone()).beginning_at(Some(folder)),
        None => Disk::ours(started.folder.clone()),
    };
    let mut gathering = Gathering::of(&configuration, &disk, version);
    gathering.binds();
    // A directory is more than its files: they may come and go.
    let is_other = |path: &Path, counts: fn(&OnDisk) -> bool| {
        let look = |disk: &Disk| disk.find(path).ok().filter(counts).map(|found| found.identity());
        look(&disk) != look(&ours)
    };
    let is_any = |_: &OnDisk| true;
    let own = files.iter().filter(|_| haproxy.config.is_empty()).map(PathBuf::as_path);
    let keys = gathering.wanted.values().filter_map(|wanted| match &wanted.key {
        KeyFile::Named(key, _) => Some(Path::new(key)),
        KeyFile::None | KeyFile::Beside(_) => None,
    });
    let certificates = gathering.wanted.values().map(|wanted| wanted.path.as_path()).chain(keys);
    let directories = gathering.directories.keys().map(Path::new);
    let readers = configuration.readers.iter().map(|(path, _)| Path::new(path.as_str()));
    let read = gathering.read_at_start.iter().map(Path::new);
    let found = own
        .chain(certificates)
        .chain(directories)
        .chain(readers)
        .find(|path| is_other(path, is_any))
        .or_else(|| read.clone().find(|path| is_other(path, OnDisk::is_file)));
    found.map(|path| started.folder.join(path))
}
