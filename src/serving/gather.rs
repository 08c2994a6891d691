//! What a HAProxy loads, from its configuration as its master was started, or as the settings name it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

use super::configuration::{BindLine, Configuration, Environment, FileNames, Keyword, extra};
use super::disk::{Disk, Illegible, OnDisk, Unfound};
use super::{crt_list, pair};
use crate::config::{Haproxy, Settings};
use crate::haproxy::process::environment::{OPENSSL_CONF, value};
use crate::haproxy::process::release::release;
use crate::haproxy::process::started::{NoneFound, Started, usual_configuration};
use crate::serving::loads::{
    At, BUNDLE, Bind, BrokenList, Contents, Entry, How, Identity, Load, Loaded, Named, Serving, Store,
    base_name, bundle_of, in_bundle, is_loaded,
};
use crate::sys::escape::{escaped, escaped_path};
use crate::sys::failure::io_cause;
use crate::sys::parallel;
use crate::sys::system::System;

/// Where distributions' HAProxy has its pidfile.
const DEFAULT_PIDFILE: &str = "/run/haproxy.pid";

/// The first version that has no bundles in directories.
const BUNDLES_UNTIL: (u32, u32) = (2, 3);

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

/// Contents that are known already, by the file that holds them: they aren't read again.
pub type Known = HashMap<Identity, Contents>;

/// Which regular file has this name in the sites directory, where this run has looked at it and leaves it as it is.
pub type SeenFiles<'a> = dyn Fn(&OsStr) -> Option<Identity> + 'a;

/// What is known of files, so that they needn't be looked at or read once more.
#[derive(Clone, Copy)]
pub struct Spared<'a> {
    /// What files hold.
    pub known: Option<&'a Known>,
    /// Which directory the sites directory is.
    pub sites: Option<Identity>,
    /// Which files are in it.
    pub seen: &'a SeenFiles<'a>,
    /// Whether no file of it is read, known or not.
    pub is_unread: bool,
}

impl Default for Spared<'_> {
    fn default() -> Self {
        Self { known: None, sites: None, seen: &|_| None, is_unread: false }
    }
}

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

/// The files of a directory that a line names by itself, under whatever spelling, and which of them as certificates.
fn named_in(
    directory: &Path,
    identity: Identity,
    servings: &[Serving],
    seen: &SeenFiles<'_>,
) -> (BTreeMap<OsString, At>, BTreeSet<OsString>) {
    let (mut found, mut certificates) = (BTreeMap::new(), BTreeSet::new());
    // Links from elsewhere lead here, too.
    let mut elsewhere: HashMap<Identity, (&At, bool)> = HashMap::new();
    for named in servings.iter().flat_map(|serving| &serving.named) {
        if named.folder == Some(identity) {
            found.insert(OsString::from(named.base()), named.at.clone());
            if named.is_certificate {
                certificates.insert(named.base().into());
            }
        } else if let Some(file) = named.identity {
            let (at, is_certificate) = elsewhere.entry(file).or_insert((&named.at, false));
            (*at, *is_certificate) = (&named.at, *is_certificate || named.is_certificate);
        }
    }
    if elsewhere.is_empty() {
        return (found, certificates);
    }
    let disk = Disk::ours(directory.to_owned());
    let Ok(folder) = disk.find(Path::new(".")) else { return (found, certificates) };
    for name in folder.names().unwrap_or_default() {
        let file = seen(&name).or_else(|| folder.file(&name));
        let Some((at, is_certificate)) = file.and_then(|file| elsewhere.get(&file)) else { continue };
        if *is_certificate {
            certificates.insert(name.clone());
        }
        found.entry(name).or_insert_with(|| (*at).clone());
    }
    (found, certificates)
}

/// These files of a directory, and where there is none the files of its bundle.
fn with_parts(directory: &Path, files: impl Iterator<Item = OsString>) -> BTreeSet<OsString> {
    let parts = |file: OsString| {
        let is_there = directory.join(&file).symlink_metadata().is_ok();
        let endings = if is_there { &[][..] } else { &BUNDLE[..] };
        let part = |ending: &&str| {
            let mut part = file.clone();
            part.push(".");
            part.push(ending);
            part
        };
        let mut all: Vec<OsString> = endings.iter().map(part).collect();
        all.push(file);
        all
    };
    files.flat_map(parts).collect()
}

/// The links that HAProxy loads, by those of these files of the directory that they lead to: it doesn't start with a link that
/// leads nowhere (measured, 2.2 to 3.4).
#[must_use]
pub fn links_to<'a>(
    directory: &Path,
    loaded: &Loaded,
    files: impl Iterator<Item = &'a OsString>,
) -> BTreeMap<OsString, PathBuf> {
    let file = |name: &'a OsString| {
        let found = directory.join(name).symlink_metadata().ok().filter(std::fs::Metadata::is_file)?;
        Some((Identity { device: found.dev(), inode: found.ino() }, name))
    };
    let files: HashMap<Identity, &OsString> = files.filter_map(file).collect();
    if files.is_empty() {
        return BTreeMap::new();
    }
    let stores = loaded.servings.iter().flat_map(|serving| serving.stores.values());
    let leads_to = |store: &Store| files.get(&store.identity?).copied();
    let is_link = |store: &Store| store.path.symlink_metadata().is_ok_and(|found| found.is_symlink());
    let links =
        stores.filter_map(|store| Some((leads_to(store)?, store))).filter(|(_, store)| is_link(store));
    links.map(|(file, store)| (file.clone(), store.path.clone())).collect()
}

/// Whether a store's file is in this directory, which has this identity.
#[must_use]
pub fn is_in(directory: &Path, itself: Option<Identity>, store: &Store) -> bool {
    store.path.parent().is_some_and(|folder| {
        folder == directory || identity(folder).is_some_and(|folder| Some(folder) == itself)
    })
}

/// The HAProxys that load our files only where no TLS is spoken, and such a bind of each.
pub fn without_tls<'a>(
    settings: &'a Settings,
    loaded: &'a Loaded,
) -> impl Iterator<Item = (&'a Haproxy, &'a Bind)> {
    settings.haproxys.iter().zip(&loaded.servings).filter_map(|(haproxy, serving)| {
        let is_ours = |store: &Store| is_in(&settings.sites_dir, loaded.sites, store);
        Some((haproxy, serving.only_without_tls(&is_ours)?))
    })
}

/// The entries of a directory that HAProxy would take for certificates and can't load, and why; those that are known to
/// be good aren't read.
#[must_use]
pub fn unloadable(
    directory: &Path,
    version: Option<(u32, u32)>,
    is_good: &(dyn Fn(&OsStr) -> bool + Sync),
) -> BTreeMap<OsString, String> {
    let disk = Disk::ours(directory.to_owned());
    let names = disk.find(Path::new(".")).ok().and_then(|found| found.names().ok()).unwrap_or_default();
    let names: Vec<OsString> =
        names.into_iter().filter(|name| is_loaded(name, version) && !is_good(name)).collect();
    let judge = |name: &OsString| match disk.find(Path::new(name)) {
        Ok(found) if !found.is_file() => None,
        Ok(_) => {
            let key = KeyFile::Beside(format!("{}.key", name.to_string_lossy()));
            match judge(Path::new(name), &key, &disk, version) {
                Contents::Unloadable { why, .. } => Some(why),
                Contents::Pair(_) | Contents::Unserved { .. } | Contents::Unseen(_) => None,
            }
        }
        // It is gone again, or a link that leads nowhere.
        Err(_) if directory.join(name).symlink_metadata().is_err() => None,
        Err(e) => e.is_missing().then(|| nowhere(e)),
    };
    let found = parallel::map(&names, judge, &|_, _| ());
    names.iter().cloned().zip(found).filter_map(|(name, why)| Some((name, why?))).collect()
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
    let mut gathering = Gathering { spared, sources, ..Gathering::of(&configuration, &disk, version) };
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
    let mut gathering = Gathering { sources, ..Gathering::of(&configuration, &disk, None) };
    let binds = gathering.binds();
    let serving = gathering.read(binds);
    Ok((configuration, serving))
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

/// Which file a path of ours leads to, links followed.
#[must_use]
pub fn identity(path: &Path) -> Option<Identity> {
    Disk::ours("/".into()).identity(path)
}

/// How many certificates follow the leaf in a file of ours, as OpenSSL reads it; `None`: it can't be read.
#[must_use]
pub fn chain_len(path: &Path) -> Option<usize> {
    let pem = Disk::ours("/".into()).find(path).ok()?.secret().ok()?;
    Some(pair::chain_len(&pem))
}

fn environment(started: &Started) -> Environment {
    // Another HAProxy's variables aren't this one's.
    let variables = started.environment.as_ref().filter(|_| started.is_surely_this);
    let Some(variables) = variables else { return Environment::default() };
    let variables = variables
        .iter()
        .filter_map(|(name, value)| Some((name.to_str()?.to_owned(), value.to_str()?.to_owned())))
        .collect();
    Environment { variables, is_whole: true, version: None }
}

/// Whether what its configuration names can be seen from here.
fn sees_its_files(started: &Result<Started, NoneFound>, haproxy: &Haproxy) -> bool {
    Disks::of(started.as_ref().ok(), haproxy).map_or(true, |disks| !disks.loads.is_unseen())
}

fn is_surely_running(started: &Result<Started, NoneFound>) -> bool {
    started.as_ref().is_ok_and(|started| started.is_surely_this)
}

/// Where a HAProxy's configuration is, and what it names.
struct Disks {
    /// Where the files are that hold the configuration.
    configuration: Disk,
    /// Where what they name is.
    loads: Disk,
}

impl Disks {
    fn ours(folder: PathBuf) -> Self {
        Self { configuration: Disk::ours(folder.clone()), loads: Disk::ours(folder) }
    }

    /// Those of this HAProxy. The settings name our files by `config`, wherever it runs: what these name are its files.
    ///
    /// # Errors
    /// Its files can't be seen: why.
    fn of(started: Option<&Started>, haproxy: &Haproxy) -> Result<Self, NoConfiguration> {
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
fn configuration(
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

/// A file that is to be read: where its key is, if not in itself.
struct Wanted {
    /// As HAProxy has it. No descriptor is held: there may be thousands of files.
    path: PathBuf,
    /// Else what is to be thought of it.
    found: Result<Identity, Contents>,
    key: KeyFile,
    is_unread: bool,
}

/// Where HAProxy looks for the key of a certificate.
enum KeyFile {
    /// In its file.
    None,
    /// In this file beside it, where it isn't in its own.
    Beside(String),
    /// In this one, which a line names, whatever its own holds (measured, 3.0 to 3.4).
    Named(String, At),
}

/// Why it isn't known what a crt-list loads.
#[derive(Debug, thiserror::Error)]
enum UnreadList {
    #[error("{0}")]
    Illegible(#[from] Illegible),
    /// HAProxy refuses it.
    #[error("line {line} {why}")]
    Refused { line: usize, why: &'static str },
}

struct Gathering<'a> {
    configuration: &'a Configuration,
    disk: &'a Disk,
    version: Option<(u32, u32)>,
    wanted: BTreeMap<String, Wanted>,
    directories: BTreeMap<String, (Option<Identity>, Vec<String>)>,
    bundles: BTreeMap<String, Vec<OsString>>,
    lists: BTreeMap<String, Vec<crt_list::ListLine>>,
    names: FileNames,
    /// The paths among these that are loaded as certificates.
    certificates: BTreeSet<String>,
    /// What lines have HAProxy load with a store.
    extras: BTreeMap<String, String>,
    /// What lines may have HAProxy read when it starts, but certificates.
    read_at_start: BTreeSet<String>,
    broken_lists: BTreeSet<BrokenList>,
    unclear: Option<String>,
    spared: Spared<'a>,
    /// The places of the configuration files.
    sources: Vec<PathBuf>,
}

impl<'a> Gathering<'a> {
    fn of(configuration: &'a Configuration, disk: &'a Disk, version: Option<(u32, u32)>) -> Self {
        Gathering {
            configuration,
            disk,
            version,
            wanted: BTreeMap::new(),
            directories: BTreeMap::new(),
            bundles: BTreeMap::new(),
            lists: BTreeMap::new(),
            names: configuration.names.clone(),
            certificates: BTreeSet::new(),
            extras: BTreeMap::new(),
            read_at_start: configuration.read_at_start.clone(),
            broken_lists: BTreeSet::new(),
            unclear: configuration.unclear.clone(),
            spared: Spared::default(),
            sources: Vec::new(),
        }
    }

    /// What every line loads.
    fn binds(&mut self) -> Vec<Bind> {
        for (name, defined) in &self.configuration.defined {
            let key = defined.key.as_ref().map(|key| (key.as_str(), &defined.at));
            self.certificates.insert(defined.crt.clone());
            self.want(name, &defined.crt, key);
            self.extras.extend(defined.extra.clone().map(|extra| (name.clone(), extra)));
            if defined.is_special {
                self.note(format!("{}: this certificate's options aren't followed", defined.at));
            }
        }
        let binds = self.configuration.binds.iter().map(|line| self.bind(line)).collect();
        for (path, _) in &self.configuration.others {
            self.single(path);
        }
        binds
    }

    /// Whether a line loads this directory, or a file of it.
    fn loads(&self, directory: &str) -> bool {
        let identity = |path: &Path| self.disk.find(path).ok().map(|found| found.identity());
        let ours = identity(Path::new(directory));
        let files = self.wanted.values().filter_map(|wanted| wanted.path.parent());
        let folders: BTreeSet<&Path> = files.collect();
        ours.is_some()
            && (self.directories.values().any(|(identity, _)| *identity == ours)
                || folders.into_iter().any(|folder| identity(folder) == ours))
    }

    fn note(&mut self, why: String) {
        self.unclear.get_or_insert(why);
    }

    /// Reads every file once.
    fn read(self, binds: Vec<Bind>) -> Serving {
        let lines = self.lists.values().flatten();
        let fetches_ocsp = lines.into_iter().any(|line| line.option("ocsp-update") == Some("on"));
        let is_here =
            |path: &&String| !matches!(self.disk.find(Path::new(path.as_str())), Err(Unfound::Elsewhere));
        let place = |path: &String| self.disk.place(Path::new(path));
        let lists = self.lists.keys().filter(is_here).map(place);
        let is_other = |path: &&String| !self.certificates.contains(*path);
        let read_at_start = self.read_at_start.iter().filter(is_other).filter(is_here).map(place).collect();
        let sources = self.sources.iter().cloned().chain(lists).collect();
        let Gathering {
            disk,
            version,
            wanted,
            directories,
            bundles,
            names,
            certificates,
            extras,
            unclear,
            spared,
            ..
        } = self;
        let wanted: Vec<(String, Wanted)> = wanted.into_iter().collect();
        let read = |(name, wanted): &(String, Wanted)| {
            let has_named_key = matches!(wanted.key, KeyFile::Named(..));
            let contents = match &wanted.found {
                _ if wanted.is_unread => Contents::Unseen("it wasn't read".to_owned()),
                // It may be that it isn't loaded, or that its name leads elsewhere.
                Err(Contents::Unloadable { why, .. }) if unclear.is_some() => Contents::Unseen(why.clone()),
                Err(contents) => contents.clone(),
                Ok(identity) => {
                    match spared.known.and_then(|known| known.get(identity)).filter(|_| !has_named_key) {
                        Some(contents) => contents.clone(),
                        None => judge(&wanted.path, &wanted.key, disk, version),
                    }
                }
            };
            let (path, identity) = (disk.place(&wanted.path), wanted.found.clone().ok());
            Store { path, identity, contents, extra: extras.get(name).cloned() }
        };
        let stores = parallel::map(&wanted, read, &|_, _| ());
        let mut mentioned = names.mentioned;
        for (path, at) in &names.paths {
            // It may be ours by another name.
            if let Err(Unfound::Elsewhere) = disk.find(Path::new(path)) {
                mentioned.entry(base_name(path).to_owned()).or_insert_with(|| at.clone());
            }
        }
        Serving {
            binds,
            stores: wanted.iter().map(|(name, _)| name.clone()).zip(stores).collect(),
            for_servers: self.configuration.others.iter().cloned().collect(),
            directories: directories.into_iter().map(|(path, (identity, _))| (path, identity)).collect(),
            bundles,
            sources,
            named: named(names.paths, &certificates, disk),
            read_at_start,
            broken_lists: self.broken_lists,
            fetches_ocsp: self.configuration.fetches_ocsp || fetches_ocsp,
            readers: named(self.configuration.readers.clone(), &BTreeSet::new(), disk),
            mentioned,
            unseen: names.unseen,
            crt_base: self.configuration.crt_base.clone(),
            version,
            unclear,
        }
    }

    fn bind(&mut self, line: &BindLine) -> Bind {
        let loads = line.loads.iter().map(|(keyword, path)| self.load(*keyword, path, &line.at)).collect();
        Bind {
            at: line.at.clone(),
            section: line.section.clone(),
            addresses: line.addresses.clone(),
            ssl: line.ssl,
            is_disabled: line.is_disabled,
            strict_sni: line.strict_sni,
            accepts_proxy: line.accepts_proxy,
            loads,
        }
    }

    fn load(&mut self, keyword: Keyword, path: &str, at: &At) -> Load {
        let entry = |store: String| Entry { store, at: at.clone(), filters: Vec::new() };
        let (how, path, entries) = match keyword {
            Keyword::CrtList => (How::List, path.to_owned(), self.list(path, at)),
            Keyword::Crt | Keyword::DefaultCrt
                if !self.is_known(path)
                    && self.disk.find(Path::new(path)).is_ok_and(|it| it.is_directory()) =>
            {
                let path = path.trim_end_matches('/').to_owned();
                let files = self.directory(&path);
                (How::Directory, path, files.into_iter().map(entry).collect())
            }
            Keyword::Used => (How::Used, path.to_owned(), self.single(path).into_iter().map(entry).collect()),
            Keyword::Crt | Keyword::DefaultCrt => {
                let how = if keyword == Keyword::Crt { How::File } else { How::Default };
                (how, path.to_owned(), self.single(path).into_iter().map(entry).collect())
            }
        };
        Load { how, path, entries }
    }

    fn is_known(&self, store: &str) -> bool {
        self.wanted.contains_key(store)
    }

    /// A file by itself, or the files of a bundle.
    fn single(&mut self, path: &str) -> Vec<String> {
        self.certificates.insert(path.to_owned());
        if self.is_known(path) || path.starts_with('@') || self.disk.find(Path::new(path)).is_ok() {
            self.want(path, path, None);
            return vec![path.to_owned()];
        }
        let parts = BUNDLE.map(|ending| format!("{path}.{ending}"));
        let there: Vec<String> = parts
            .into_iter()
            .filter(|part| self.is_known(part) || self.disk.find(Path::new(part)).is_ok())
            .collect();
        for part in &there {
            self.want(part, part, None);
        }
        if there.is_empty() {
            self.want(path, path, None);
            return vec![path.to_owned()];
        }
        // Through 2.2 a bundle is one store, which has the path's name.
        if self.version.is_none_or(|version| version < (2, 3)) {
            let why = format!("how HAProxy names the bundle {} depends on its version", escaped(path));
            self.note(why);
        }
        there
    }

    /// The files of a directory.
    fn directory(&mut self, path: &str) -> Vec<String> {
        if let Some((_, files)) = self.directories.get(path) {
            return files.clone();
        }
        let mut files = Vec::new();
        let found = self.disk.find(Path::new(path));
        let identity = found.as_ref().ok().map(OnDisk::identity);
        let names = match &found {
            Ok(found) => found.names(),
            Err(unfound) => Err((*unfound).into()),
        };
        match names {
            Ok(names) => {
                let version = self.version;
                let depends = |name: &&OsString| {
                    version.is_none() && is_loaded(name, Some((2, 2))) && !is_loaded(name, version)
                };
                let is_file = |name: &&OsString| {
                    self.disk.find(&Path::new(path).join(name)).is_ok_and(|found| found.is_file())
                };
                if let Some(name) = names.iter().filter(depends).find(is_file) {
                    let name = escaped(name.as_bytes());
                    self.note(format!(
                        "whether HAProxy loads {name} depends on its version, which isn't known"
                    ));
                }
                let firsts = self.bundles(path, found.as_ref().ok(), &names);
                // Its own parts are loaded.
                let is_passed_over = |name: &&OsString| {
                    in_bundle(name, &firsts).is_some_and(|first| bundle_of(name) != bundle_of(first))
                };
                for name in names.iter().filter(|name| is_loaded(name, version) && !is_passed_over(name)) {
                    files.extend(self.in_directory(path, found.as_ref().ok(), name));
                }
                self.bundles.insert(path.to_owned(), firsts);
            }
            Err(why) => {
                self.note(format!("cannot read the directory {}: {why}", escaped(path)));
            }
        }
        self.directories.insert(path.to_owned(), (identity, files.clone()));
        files
    }

    /// The files of a directory that begin a bundle.
    fn bundles(&mut self, path: &str, folder: Option<&OnDisk>, names: &[OsString]) -> Vec<OsString> {
        if self.configuration.no_bundles || self.version.is_some_and(|version| version >= BUNDLES_UNTIL) {
            return Vec::new();
        }
        let is_file = |name: &&OsString| {
            bundle_of(name).is_some()
                && self
                    .disk
                    .regular_file(folder, &Path::new(path).join(name))
                    .is_ok_and(|file| file.is_some())
        };
        let firsts: Vec<OsString> = names.iter().filter(is_file).cloned().collect();
        if self.version.is_some() {
            return firsts;
        }
        let is_other = |name: &&OsString| {
            in_bundle(name, &firsts).is_some_and(|first| bundle_of(name) != bundle_of(first))
        };
        if let Some(name) = names.iter().find(is_other) {
            let name = escaped(name.as_bytes());
            self.note(format!("whether HAProxy loads {name} depends on its version, which isn't known"));
        }
        Vec::new()
    }

    /// A directory's entry, where HAProxy takes it for a certificate: links are followed, all but regular files passed
    /// over.
    fn in_directory(&mut self, path: &str, folder: Option<&OnDisk>, name: &OsStr) -> Option<String> {
        let store = format!("{path}/{}", name.to_string_lossy());
        let file = Path::new(path).join(name);
        let is_site = folder.is_some_and(|folder| Some(folder.identity()) == self.spared.sites);
        // Below another root something else may be mounted there.
        let seen = if is_site && self.disk.is_ours() { (self.spared.seen)(name) } else { None };
        let found = match seen.map_or_else(|| self.disk.regular_file(folder, &file), |seen| Ok(Some(seen))) {
            Ok(None) => return None,
            Ok(Some(identity)) => Ok(identity),
            Err(e) => Err(unfound(&store, e)),
        };
        if !self.is_known(&store) {
            let key = self.key_file(&store);
            let is_unread = is_site && self.spared.is_unread;
            self.wanted.insert(store.clone(), Wanted { path: file, found, key, is_unread });
        }
        Some(store)
    }

    fn lines_of(&self, list: &str) -> Result<Vec<crt_list::ListLine>, UnreadList> {
        let text = self.disk.find(Path::new(list)).map_err(Illegible::from)?.text()?;
        crt_list::lines(&text).map_err(|(line, why)| UnreadList::Refused { line, why })
    }

    /// Why HAProxy surely refuses a crt-list.
    fn is_refused(&self, path: &str, why: &UnreadList) -> Option<String> {
        match (why, self.disk.find(Path::new(path))) {
            (UnreadList::Refused { .. }, _) => Some(why.to_string()),
            (UnreadList::Illegible(_), Err(e)) if e != Unfound::Elsewhere && e.is_missing() => {
                Some(nowhere(e))
            }
            (UnreadList::Illegible(_), _) => None,
        }
    }

    /// The certificates of a crt-list, which this line names.
    fn list(&mut self, path: &str, at: &At) -> Vec<Entry> {
        if !self.lists.contains_key(path) {
            let lines = self.lines_of(path).unwrap_or_else(|why| {
                // Where it isn't clear which lines count, it may be that this one doesn't.
                if let Some(why) = self.is_refused(path, &why).filter(|_| self.unclear.is_none()) {
                    let path = self.disk.place(Path::new(path));
                    self.broken_lists.insert(BrokenList { path, why, at: at.clone() });
                }
                let why = format!("cannot read the crt-list {}: {why}", escaped(path));
                self.names.note(why.clone());
                self.note(why);
                Vec::new()
            });
            self.lists.insert(path.to_owned(), lines);
        }
        let lines = self.lists.get(path).cloned().unwrap_or_default();
        // Where people find it from here.
        let file: Arc<str> = if self.disk.is_ours() {
            path.into()
        } else {
            self.disk.place(Path::new(path)).to_string_lossy().into()
        };
        let mut entries = Vec::new();
        for line in lines {
            let at = At { file: Arc::clone(&file), line: line.number };
            let whole = self.configuration.with_base(&line.path);
            if let Some(crt) = line.option("crt") {
                self.note(format!("{at}: crt {} isn't followed", escaped(crt)));
            }
            if let (Some(key), false) = (line.option("key"), self.is_known(&whole)) {
                self.want(&whole, &whole, Some((&self.configuration.with_key_base(key), &at)));
            }
            let extra = extra(|name| line.option(name).map(str::to_owned));
            self.extras.extend(extra.map(|extra| (whole.clone(), extra)));
            self.names.add(&whole, &at);
            for word in [&line.path].into_iter().chain(&line.options) {
                if word != &line.path || !whole.starts_with('/') {
                    self.names.mention(word, false, &at);
                }
            }
            self.read_at_start.extend(self.configuration.read_by_list(&line.options));
            let filters = line.filters;
            entries.extend(self.single(&whole).into_iter().map(|store| Entry {
                store,
                at: at.clone(),
                filters: filters.clone(),
            }));
        }
        entries
    }

    /// `key`: the file that a line names for its key, and the line.
    fn want(&mut self, store: &str, path: &str, key: Option<(&str, &At)>) {
        if self.is_known(store) {
            return;
        }
        let found = match self.disk.find(Path::new(path)) {
            Ok(found) if found.is_file() => Ok(found.identity()),
            Ok(_) => Err(Contents::Unloadable { leaf: None, why: "it isn't a regular file".to_owned() }),
            Err(e) => {
                // It may be a directory, or a bundle.
                if e == Unfound::Elsewhere {
                    self.note(elsewhere(path));
                }
                Err(unfound(path, e))
            }
        };
        let named = key.map(|(key, at)| KeyFile::Named(key.to_owned(), at.clone()));
        let key = named.unwrap_or_else(|| self.key_file(path));
        self.wanted.insert(store.to_owned(), Wanted { path: path.into(), found, key, is_unread: false });
    }

    /// Where HAProxy looks for the key of a file that has none.
    fn key_file(&self, path: &str) -> KeyFile {
        if self.configuration.no_key_files {
            return KeyFile::None;
        }
        let stem = path.strip_suffix(".crt").filter(|_| self.configuration.without_ending);
        KeyFile::Beside(format!("{}.key", stem.unwrap_or(path)))
    }
}

/// Why HAProxy finds no file there.
fn nowhere(e: Unfound) -> String {
    match e {
        Unfound::Cause(Errno::NOENT | Errno::NOTDIR) => "there is no such file".to_owned(),
        Unfound::Cause(Errno::LOOP) => "it is a link to itself".to_owned(),
        e @ (Unfound::Cause(_) | Unfound::Elsewhere) => e.to_string(),
    }
}

/// What isn't known of a path that only HAProxy can follow.
fn elsewhere(path: &str) -> String {
    format!("{} can't be seen from here: HAProxy has paths of its own", escaped(path))
}

/// What is to be thought of a file that isn't found: only what surely isn't there can't be loaded.
fn unfound(path: &str, e: Unfound) -> Contents {
    match e {
        Unfound::Elsewhere => Contents::Unseen(elsewhere(path)),
        e @ Unfound::Cause(_) if e.is_missing() => Contents::Unloadable { leaf: None, why: nowhere(e) },
        e @ Unfound::Cause(_) => Contents::Unseen(format!("cannot look at {}: {e}", escaped(path))),
    }
}

fn judge(path: &Path, key: &KeyFile, disk: &Disk, version: Option<(u32, u32)>) -> Contents {
    let read = |path: &Path| disk.find(path)?.secret();
    let pem = match read(path) {
        Ok(pem) => pem,
        Err(why) => return Contents::Unseen(format!("cannot read {}: {why}", escaped_path(path))),
    };
    let beside = match key {
        KeyFile::None => None,
        KeyFile::Beside(key) => read(Path::new(key)).ok(),
        KeyFile::Named(file, _) if matches!(disk.find(Path::new(file)), Err(Unfound::Elsewhere)) => {
            return Contents::Unseen(elsewhere(file));
        }
        KeyFile::Named(file, at) => {
            let key = read(Path::new(file));
            return pair::with_named_key(&pem, key.as_ref().map(|key| key.as_slice()), &|how| {
                format!("its key is taken from {}, as {at} says, which {how}", escaped(file))
            });
        }
    };
    pair::contents(&pem, beside.as_ref().map(|key| key.as_slice()), version)
}

/// The paths that lead somewhere; `certificates`: those that are loaded as such.
fn named(mut paths: Vec<(String, At)>, certificates: &BTreeSet<String>, disk: &Disk) -> Vec<Named> {
    paths.sort();
    paths.dedup_by(|one, other| one.0 == other.0);
    let mut folders: HashMap<PathBuf, Option<Identity>> = HashMap::new();
    let named = |(path, at): (String, At)| {
        let whole = Path::new(&path);
        let folder = whole.parent().map_or_else(PathBuf::new, Path::to_owned);
        let find = |path: &Path| disk.find(path).ok().map(|found| found.identity());
        let in_folder = *folders.entry(folder).or_insert_with_key(|folder| {
            find(if folder.as_os_str().is_empty() { Path::new(".") } else { folder })
        });
        in_folder?;
        let identity = find(whole);
        let is_certificate = certificates.contains(&path);
        Some(Named { path, folder: in_folder, identity, at, is_certificate })
    };
    paths.into_iter().filter_map(named).collect()
}
