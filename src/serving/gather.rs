//! What a HAProxy loads, from its configuration as its master was started, or as the settings name it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::configuration::{Environment, FileNames};
use super::contents::{KeyFile, identity, judge, unfound};
use super::disk::{Disk, OnDisk};
use super::gathering::{Gathering, named};
use super::loads::{At, Identity, Loaded, Named, Serving, Store};
use super::reading::{Disks, configuration, environment};
use super::sites::{named_in, with_parts};
use super::spared::{SeenFiles, Spared};
use crate::config::{Haproxy, Settings};
use crate::haproxy::process::environment::{OPENSSL_CONF, value};
use crate::haproxy::process::release::release;
use crate::haproxy::process::started::{NoneFound, Started, usual_configuration};
use crate::sys::escape::escaped_path;
use crate::sys::system::System;

/// Where distributions' HAProxy has its pidfile.
const DEFAULT_PIDFILE: &str = "/run/haproxy.pid";

/// Gathers what this HAProxy would load if it started now. Only its files are read, and nothing is asked of it but its
/// version, where nobody knows it.
#[must_use]
pub fn gather(
    system: &System,
    haproxy: &Haproxy,
    version: Option<(u32, u32)>,
    spared: Spared<'_>,
) -> Serving {
    let started = Started::find(system, haproxy);
    let version = version.or_else(|| release(system, haproxy, started.as_ref().ok()));
    gather_around(&started, haproxy, version, spared, &[])
}

/// The names by which one that doesn't run, and will be started with these configuration files, loads what is in the sites
/// directory; what these files hold isn't read.
#[must_use]
pub fn of_stopped(system: &System, haproxy: &Haproxy, files: &[PathBuf], sites: Option<Identity>) -> Serving {
    let version = release(system, haproxy, None);
    let spared = Spared { sites, is_unread: true, ..Spared::default() };
    gather_around(&Err(NoneFound::PerhapsAnother), haproxy, version, spared, files)
}

/// What the HAProxys load around the sites directory; `last`: the configuration files that one that doesn't run was last
/// seen to be started with, by its name in the settings.
#[must_use]
pub fn loaded<'a>(
    settings: &Settings,
    system: &System,
    last: impl Fn(&str) -> &'a [PathBuf],
    seen: &SeenFiles<'_>,
) -> Loaded {
    let sites = identity(&settings.sites_dir);
    let (mut servings, mut configurations, mut stopped) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
    let mut openssl_confs = BTreeMap::new();
    let mut unseen = None;
    for haproxy in &settings.haproxys {
        let started = Started::find(system, haproxy);
        let surely = started.as_ref().ok().filter(|started| started.is_surely_this && started.root.is_none());
        let last = last(&haproxy.name);
        let is_seen = sees_its_files(&started, haproxy);
        if !is_surely_running(&started) && is_seen {
            let files = if haproxy.config.is_empty() { last } else { &haproxy.config };
            if !files.is_empty() {
                stopped.insert(haproxy.name.clone(), files.to_vec());
            }
        }
        if let Some(started) = surely {
            configurations.insert(haproxy.name.clone(), started.paths().collect());
            if let Some(variables) = &started.environment {
                let named = value(variables, OPENSSL_CONF).map(str::to_owned);
                openssl_confs.insert(haproxy.name.clone(), named);
            }
        }
        let version = release(system, haproxy, started.as_ref().ok());
        let spared = Spared { sites, seen, is_unread: true, ..Spared::default() };
        let around = |started| gather_around(started, haproxy, version, spared, last);
        let mut serving = Serving { version, ..around(&started) };
        if started.is_ok() && !is_surely_running(&started) && haproxy.config.is_empty() && !last.is_empty() {
            // The one that runs may be another one.
            let down = around(&Err(NoneFound::PerhapsAnother));
            serving.named.extend(down.named);
            serving.mentioned.extend(down.mentioned);
            serving.unseen = down.unseen;
        }
        if !is_seen {
            unseen = unseen.or_else(|| serving.unseen.clone());
        }
        let is_unknown = serving.unclear.is_some() && haproxy.config.is_empty() && last.is_empty();
        if is_unknown && !is_surely_running(&started) {
            unseen = unseen.or_else(|| ran_unseen(haproxy));
        }
        servings.push(serving);
    }
    let found = sites.map(|sites| named_in(&settings.sites_dir, sites, &servings, seen));
    let (named, certificates) = found.unwrap_or_default();
    let certificates = with_parts(&settings.sites_dir, certificates.into_iter());
    let mentions = servings.iter().flat_map(|serving| &serving.mentioned);
    let mut mentioned: BTreeMap<OsString, At> =
        mentions.map(|(name, at)| (name.into(), at.clone())).collect();
    mentioned.retain(|name, _| settings.sites_dir.join(name).symlink_metadata().is_ok());
    let host = identity(&settings.host_file);
    let linked = BTreeMap::new();
    Loaded {
        servings,
        sites,
        host,
        named,
        certificates,
        mentioned,
        linked,
        unseen,
        stopped,
        configurations,
        openssl_confs,
    }
}

/// A HAProxy that ran here, as its pidfile shows, and whose configuration nobody knows: no run of ours has seen it run, and
/// it isn't the one that distributions start.
fn ran_unseen(haproxy: &Haproxy) -> Option<String> {
    let is_usual = haproxy.pidfile == Path::new(DEFAULT_PIDFILE) && usual_configuration().exists();
    (haproxy.pidfile.exists() && !is_usual).then(|| {
        let pidfile = escaped_path(&haproxy.pidfile);
        format!("its pidfile {pidfile} is there, but not what it was started with; start it, or set config")
    })
}

/// See [`gather`] and [`loaded`].
fn gather_around(
    started: &Result<Started, NoneFound>,
    haproxy: &Haproxy,
    version: Option<(u32, u32)>,
    spared: Spared<'_>,
    last: &[PathBuf],
) -> Serving {
    let (files, environment) = match (started, haproxy.config.is_empty()) {
        (Err(why), true) if !last.iter().all(|file| file.exists()) || last.is_empty() => {
            return stopped(why, haproxy);
        }
        (Err(_), true) => (last.to_vec(), Environment::default()),
        (Err(_), false) => (haproxy.config.clone(), Environment::default()),
        (Ok(started), false) => (haproxy.config.clone(), environment(started)),
        (Ok(started), true) => (started.files.clone(), environment(started)),
    };
    let disks = match Disks::of(started.as_ref().ok(), haproxy) {
        Ok(disks) => disks,
        Err(why) => return Serving::unknown(why.to_string()),
    };
    let is_unseen = disks.loads.is_unseen();
    let environment = Environment { version, ..environment };
    let (configuration, disk, sources) = match configuration(&files, environment, disks) {
        Ok(read) => read,
        Err(why) if is_surely_running(started) => return Serving::unknown(why.to_string()),
        Err(why) => return Serving { unseen: Some(why.to_string()), ..Serving::unknown(why.to_string()) },
    };
    let is_guess = haproxy.config.is_empty() && !started.as_ref().is_ok_and(|started| started.is_surely_this);
    let mut gathering = Gathering::of(&configuration, &disk, version);
    (gathering.spared, gathering.sources) = (spared, sources);
    let binds = gathering.binds();
    if is_guess && !gathering.loads(&haproxy.sites_dir) {
        let why = NoneFound::NoneLoads;
        if started.is_ok() {
            // One that runs is another one: ours doesn't run.
            return gather_around(&Err(why), haproxy, version, spared, last);
        }
        let FileNames { paths, mentioned, unseen } = gathering.names;
        let named = named(paths, &gathering.certificates, &disk);
        return Serving { named, mentioned, unseen, ..Serving::unknown(why.to_string()) };
    }
    let serving = gathering.read(binds);
    // One that runs says itself what it can't be without.
    if is_surely_running(started) && !is_unseen { Serving { unseen: None, ..serving } } else { serving }
}

/// A HAProxy that doesn't run, with nothing that says what it loads: what distributions start it with still tells which files
/// mustn't go, and whether it names our host certificate. More isn't claimed from it: it may be somebody else's.
fn stopped(why: &NoneFound, haproxy: &Haproxy) -> Serving {
    let disk = Disk::ours("/".into());
    let (named, mentioned): (Vec<Named>, BTreeMap<String, At>) =
        configuration(&[usual_configuration()], Environment::default(), Disks::ours("/".into()))
            .map(|(configuration, disk, _)| {
                let mut gathering = Gathering::of(&configuration, &disk, None);
                gathering.binds();
                let named = named(gathering.names.paths, &gathering.certificates, &disk);
                (named, gathering.names.mentioned)
            })
            .unwrap_or_default();
    let mut stores = BTreeMap::new();
    if named.iter().any(|named| named.path == haproxy.host_file) {
        let path = PathBuf::from(&haproxy.host_file);
        let found = disk.find(&path);
        let identity = found.as_ref().ok().map(OnDisk::identity);
        let contents = match found {
            Ok(_) => judge(&path, &KeyFile::None, &disk, None),
            Err(e) => unfound(&haproxy.host_file, e),
        };
        stores.insert(haproxy.host_file.clone(), Store { path, identity, contents, extra: None });
    }
    Serving { stores, named, mentioned, ..Serving::unknown(why.to_string()) }
}

/// Whether what its configuration names can be seen from here.
fn sees_its_files(started: &Result<Started, NoneFound>, haproxy: &Haproxy) -> bool {
    Disks::of(started.as_ref().ok(), haproxy).map_or(true, |disks| !disks.loads.is_unseen())
}

fn is_surely_running(started: &Result<Started, NoneFound>) -> bool {
    started.as_ref().is_ok_and(|started| started.is_surely_this)
}
