//! What certbot has, what is on disk, and what this program remembers; what may not be read is unseen, and said so.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustix::fs::{Access, access};
use rustix::io::Errno;

use super::edition::LastEdition;
use super::links::Links;
use super::lost;
use super::observation::{Inside, Location, Sight, SiteViews};
use crate::certified_key::Leaf;
use crate::config::{Haproxy, Settings};
use crate::decide::decide;
use crate::haproxy::fingerprint::fingerprints;
use crate::index::Index;
use crate::plan::action::Action;
use crate::plan::client::Client;
use crate::plan::reason::Reason;
use crate::plan::row::{Role, Row};
use crate::plan::situation::{Deployed, EntryKind, Lineage, Policy, Situation};
use crate::plan::unreached::{lines, unreached};
use crate::serving::gather;
use crate::serving::loads::{Contents, Loaded, Serving, Store, is_loaded};
use crate::serving::one_by_one::passed_over;
use crate::serving::sites;
use crate::sites::last_run::LastRun;
use crate::sites::looking::{foresee, look_at_state};
use crate::sites::place::Place;
use crate::sites::state::State;
use crate::sites::{entries, guard};
use crate::source::{Source, absence};
use crate::sweep::sweep;
use crate::sys::escape::{escaped, escaped_path};
use crate::sys::failure::{Failure, FailureKind};
use crate::sys::parallel::Progress;
use crate::sys::room::without_room;
use crate::sys::system::System;

#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
/// Everything that is known without HAProxy.
#[derive(Debug, Default)]
pub struct Ground {
    /// One for each file, in the order of a plan; what HAProxy shows is still to be added.
    pub sites: Vec<SiteViews>,
    /// What this program remembers; `None`: it can't be seen.
    pub state: Option<State>,
    /// The last run; outer `None`: it can't be seen.
    pub last_run: Sight<LastRun>,
    /// When certbot last changed each lineage, in seconds since 1970.
    pub renewals: Vec<i64>,
    /// Whether certbot's tree could be read.
    pub sees_certbot: bool,
    /// Whether the sites directory could be read.
    pub sees_disk: bool,
    /// By which name a HAProxy loads the sites directory, where it isn't the one that our settings have.
    pub spellings: BTreeMap<String, String>,
    /// Who else could change the sites directory: the fact, and what mends it.
    pub open_to_others: Option<String>,
    /// Places that can't be seen, and why.
    pub unseen: Vec<String>,
    /// What the HAProxys would load if they started now.
    pub loaded: Loaded,
    /// Whether certbot's directory of lineages isn't there.
    pub live_is_missing: bool,
    /// Whether there is no lineage in it at all.
    pub has_no_lineage: bool,
    /// What was published last; `None`: this host is no publisher.
    pub edition: Option<LastEdition>,
    /// What will keep the next run from writing anything: the fact.
    pub unwritable_sites: Option<String>,
    /// What will keep the next publish from succeeding: the fact.
    pub unwritable_cache: Option<String>,
    /// How the last publish ended, where the last run is one of `assemble`.
    pub last_publish: Sight<LastRun>,
    /// What is broken rather than forbidden.
    pub error: Option<Failure>,
}

impl Ground {
    /// Keeps a failure for the report: what is only forbidden is no error.
    pub(super) fn note(&mut self, failure: Failure) {
        match failure.kind {
            // Two looks may fail at the same place.
            FailureKind::Permission if self.unseen.contains(&failure.message) => {}
            FailureKind::Permission => self.unseen.push(failure.message),
            FailureKind::Lock | FailureKind::Io | FailureKind::Config => {
                self.error.get_or_insert(failure);
            }
        }
    }

    /// What the call gave; a failure is kept for the report.
    fn noted<T>(&mut self, result: Result<T, Failure>) -> Option<T> {
        result.map_err(|failure| self.note(failure)).ok()
    }
}

/// What is read of certbot's tree and of the sites directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// All of it.
    All,
    /// What the index doesn't know.
    Changes,
}

/// Looks at everything but HAProxy. Nothing is locked, nothing is written.
pub fn look_around(settings: &Settings, system: &System, reading: Reading, progress: Progress<'_>) -> Ground {
    let mut ground = Ground::default();
    let opened = Place::open(&settings.sites_dir);
    let place = ground.noted(opened);
    ground.sees_disk = place.is_some();
    let place = place.flatten();
    if let Some(place) = &place {
        ground.open_to_others =
            guard::check(&place.path, settings, system).err().map(|failure| failure.message);
        ground.unwritable_sites =
            without_room(&place.dir).map(|why| format!("{} {why}", escaped_path(&place.path)));
        let state = look_at_state(place);
        ground.state = ground.noted(state);
    } else if ground.sees_disk {
        ground.state = Some(State::default());
    }
    if ground.sees_disk {
        let last_run = LastRun::look(&settings.sites_dir);
        ground.last_run = match ground.noted(last_run) {
            Some(Some(run)) => Sight::Here(run),
            Some(None) => Sight::Absent,
            None => Sight::Unseen,
        };
    }
    let state = ground.state.clone().unwrap_or_default();
    let fingerprints = fingerprints(system, &settings.haproxys, |name| state.configuration_of(name));
    let swept = Source::of(settings).and_then(|source| {
        let index = match &place {
            Some(place) if reading == Reading::Changes => {
                Index::look(settings, system, source.files().as_deref(), place, &state)
            }
            _ => Index::empty(None),
        };
        sweep(settings, (source, &index), place.as_ref(), &state, Policy::default(), &fingerprints, progress)
    });
    match swept {
        Ok(mut swept) => {
            ground.sees_certbot = true;
            ground.live_is_missing = swept.live_dir_missing;
            ground.has_no_lineage = !swept.situation.any_lineage;
            swept.situation.loaded =
                gather::loaded(settings, system, |name| state.configuration_of(name), &|_| None);
            if swept.live_dir_missing && state.knows_lineages() {
                ground.note(Failure::new(FailureKind::Io, absence(settings)));
            }
            ground.renewals = renewals(
                settings,
                swept.situation.unchanged.iter().map(|(name, _)| name).chain(swept.situation.lineages.keys()),
            );
            ground.unseen.extend(unclear_dotfile(&swept.situation));
            ground.spellings = spellings(settings, &swept.situation.loaded);
            let elsewhere = elsewhere(settings, &swept.situation.loaded);
            ground.loaded = swept.situation.loaded.clone();
            ground.sites = views(settings, &ground, swept.situation);
            let elsewhere = with_host(&mut ground.sites, elsewhere);
            ground.sites.extend(elsewhere);
            lost::note(settings, &ground.loaded, &mut ground.sites);
        }
        Err(failure) => {
            ground.note(failure);
            if let Some(place) = &place {
                let found = disk_only(place);
                ground.sites = ground.noted(found).unwrap_or_default();
            }
        }
    }
    ground
}

/// A file that HAProxy loads or not, by its version, which isn't known.
fn unclear_dotfile(situation: &Situation) -> Option<String> {
    let is_file =
        |deployed: &Deployed| matches!(deployed.kind, EntryKind::Regular { .. }) || deployed.leaf.is_some();
    let depends = |name: &OsStr| is_loaded(name, Some((2, 2))) && !is_loaded(name, None);
    let servings = &situation.loaded.servings;
    let mut files = situation.deployed.iter().filter(|(_, deployed)| is_file(deployed));
    let (name, _) = files.find(|(name, _)| depends(name))?;
    let is_unknown = servings.iter().any(|serving| serving.version.is_none());
    let name = escaped(name.as_encoded_bytes());
    is_unknown.then(|| format!("whether HAProxy loads {name} depends on its version, which isn't known"))
}

/// By which name each HAProxy loads the sites directory where it doesn't load it by ours.
fn spellings(settings: &Settings, loaded: &Loaded) -> BTreeMap<String, String> {
    let other = |(haproxy, serving): (&Haproxy, &Serving)| {
        let sites = loaded.sites?;
        let mut names = serving.directories.iter().filter(|(_, identity)| **identity == Some(sites));
        let is_ours = serving.directories.contains_key(&haproxy.sites_dir);
        let (name, _) = names.next().filter(|_| !is_ours)?;
        Some((haproxy.name.clone(), name.clone()))
    };
    settings.haproxys.iter().zip(&loaded.servings).filter_map(other).collect()
}

/// Each row of the plan with what certbot and the disk have for it.
fn views(settings: &Settings, ground: &Ground, mut situation: Situation) -> Vec<SiteViews> {
    let mut plan = decide(settings, &mut situation);
    // A run would ask HAProxy again, a status takes the answer of the last one.
    let place = Place::open(&settings.sites_dir).ok().flatten();
    foresee(place.as_ref(), ground.last_run.here(), &mut plan);
    let rows = plan.rows;
    let Situation { mut lineages, mut deployed, mut host, loaded, .. } = situation.as_if_read();
    let good: BTreeSet<OsString> = rows
        .iter()
        .filter(|row| row.proved && matches!(row.action, Action::Unchanged | Action::Repair))
        .filter_map(|row| row.file.clone())
        .collect();
    let is_passed_over = passed_over(settings, &loaded);
    let is_good = |file: &OsStr| good.contains(file) || is_passed_over(file);
    let mut unloadable = sites::unloadable(&settings.sites_dir, loaded.oldest(), &is_good);
    let mut unserved = unserved(settings, &loaded);
    let is_certbots = Client::of(settings) == Client::Certbot;
    let lines = lines(settings, &loaded);
    rows.into_iter()
        .map(|row| {
            let host = host.take_if(|_| row.role == Role::Host);
            let (lineage, found, path) = match (&row.file, host) {
                (_, Some(host)) => (Some(host.source), host.deployed, PathBuf::from(host.file)),
                (Some(file), None) => {
                    let lineage = row.lineage.as_ref().and_then(|name| lineages.remove(name));
                    (lineage, deployed.remove(file), settings.sites_dir.join(file))
                }
                (None, None) => {
                    (row.lineage.as_ref().and_then(|name| lineages.remove(name)), None, PathBuf::new())
                }
            };
            let place = Location {
                unloadable: row.file.as_ref().and_then(|file| unloadable.remove(file)),
                unserved: row.file.as_ref().and_then(|file| unserved.remove(file)),
                named: row.file.as_ref().and_then(|file| loaded.named.get(file)).map(ToString::to_string),
                path: path.clone(),
                ..Location::default()
            };
            let is_refused = row.action == Action::Refuse;
            let disk = if ground.sees_disk { on_disk(found, &path) } else { Sight::Unseen };
            let unreached = disk.here().and_then(|leaf| unreached(settings, &lines, &row, leaf));
            let lacks_ocsp = disk.here().is_some_and(|leaf| lacks_ocsp(leaf, &path, &loaded));
            let place = Location { unreached, lacks_ocsp, ..place };
            SiteViews {
                place,
                published: None,
                links: row
                    .lineage
                    .as_ref()
                    .filter(|_| is_refused && is_certbots)
                    .and_then(|name| Links::look(&settings.live_dir, name)),
                lineage: row.lineage.clone(),
                file: row.file.clone(),
                role: row.role,
                certbot: certbots(settings, &row, lineage),
                disk,
                row: Some(row),
                haproxy: Vec::new(),
            }
        })
        .collect()
}

/// The files of the sites directory that HAProxy can't serve for the key that a line gives them, and why.
fn unserved(settings: &Settings, loaded: &Loaded) -> BTreeMap<OsString, String> {
    let stores = loaded.servings.iter().flat_map(|serving| serving.stores.values());
    stores
        .filter_map(|store| {
            let why = store.contents.unserved()?;
            let is_site = sites::is_in(&settings.sites_dir, loaded.sites, store);
            is_site.then(|| Some((store.path.file_name()?.to_owned(), why.to_owned()))).flatten()
        })
        .collect()
}

/// Whether a certificate demands an OCSP response, and HAProxy has none for it: none lies beside it, and none is fetched.
fn lacks_ocsp(leaf: &Leaf, path: &Path, loaded: &Loaded) -> bool {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".ocsp");
    leaf.demands_ocsp
        && !Path::new(&beside).exists()
        && !loaded.servings.iter().any(|serving| serving.fetches_ocsp)
}

/// The files that HAProxys load from elsewhere, each once.
fn elsewhere(settings: &Settings, loaded: &Loaded) -> Vec<SiteViews> {
    let host = |store: &Store| {
        store.path == settings.host_file || (loaded.host.is_some() && store.identity == loaded.host)
    };
    let mut found: BTreeMap<PathBuf, SiteViews> = BTreeMap::new();
    for (haproxy, serving) in settings.haproxys.iter().zip(&loaded.servings) {
        for (name, store) in &serving.stores {
            let is_site = sites::is_in(&settings.sites_dir, loaded.sites, store);
            let (disk, unloadable) = match &store.contents {
                _ if is_site => continue,
                Contents::Unseen(_) => continue,
                Contents::Pair(leaf) | Contents::Unserved { leaf, .. } => {
                    (Sight::Here(Arc::clone(leaf)), None)
                }
                Contents::Unloadable { leaf, why } => {
                    (leaf.clone().map_or(Sight::Damaged, Sight::Here), Some(why.clone()))
                }
            };
            let unserved = store.contents.unserved().map(str::to_owned);
            let named = serving.line_of(name).map(ToString::to_string);
            // The host certificate by the name that it has in our settings.
            let path = if host(store) { settings.host_file.clone() } else { store.path.clone() };
            let file = path.clone().into_os_string();
            let lacks_ocsp = disk.here().is_some_and(|leaf| lacks_ocsp(leaf, &path, loaded));
            found.entry(path.clone()).or_insert_with(|| SiteViews {
                lineage: None,
                file: Some(file.clone()),
                role: Role::Site,
                row: Some(Row::elsewhere(file, disk.here().cloned())),
                certbot: Sight::Absent,
                disk,
                published: None,
                links: None,
                place: Location {
                    inside: Inside::of(&haproxy.name, &path),
                    path,
                    unloadable,
                    unserved,
                    named,
                    unreached: None,
                    lacks_ocsp,
                    is_elsewhere: true,
                },
                haproxy: Vec::new(),
            });
        }
    }
    found.into_values().collect()
}

/// The files from elsewhere but the host certificate where that has a row of its own, which learns what is known of it.
fn with_host(sites: &mut [SiteViews], mut elsewhere: Vec<SiteViews>) -> Vec<SiteViews> {
    for host in sites.iter_mut().filter(|site| site.role == Role::Host) {
        let Some(place) = elsewhere.iter().position(|other| other.place.path == host.place.path) else {
            continue;
        };
        let Location { unloadable, unserved, named, .. } = elsewhere.remove(place).place;
        (host.place.unloadable, host.place.unserved, host.place.named) = (unloadable, unserved, named);
    }
    elsewhere
}

pub(super) fn certbots(settings: &Settings, row: &Row, lineage: Option<Lineage>) -> Sight<Arc<Leaf>> {
    let (Some(name), Some(lineage)) = (&row.lineage, lineage) else { return Sight::Absent };
    let (leaf, reason) = match lineage.proof {
        Ok(candidate) => (Some(candidate.leaf), None),
        Err(refusal) => (lineage.leaf, Some(refusal.reason)),
    };
    match leaf {
        Some(leaf) => Sight::Here(leaf),
        None if reason == Some(Reason::Io) && is_lineage_forbidden(settings, name) => Sight::Unseen,
        None => Sight::Damaged,
    }
}

fn on_disk(found: Option<Deployed>, path: &Path) -> Sight<Arc<Leaf>> {
    match found {
        None => Sight::Absent,
        Some(Deployed { leaf: Some(leaf), .. }) => Sight::Here(leaf),
        Some(_) if is_forbidden(path) => Sight::Unseen,
        Some(_) => Sight::Damaged,
    }
}

fn is_lineage_forbidden(settings: &Settings, lineage: &OsStr) -> bool {
    let folder = settings.live_dir.join(lineage);
    [&settings.chain_file, &settings.key_file].iter().any(|file| is_forbidden(&folder.join(file)))
}

fn is_forbidden(path: &Path) -> bool {
    access(path, Access::READ_OK) == Err(Errno::ACCESS)
}

/// The files of the sites directory, where certbot's tree can't be read.
fn disk_only(place: &Place) -> Result<Vec<SiteViews>, Failure> {
    let mut names = entries::entries(&place.dir, &place.path)?;
    names.sort();
    let look = |file: OsString| {
        let path = place.path.join(&file);
        let disk = match entries::entry(&place.dir, &file, None) {
            Ok(Some((Deployed { kind: EntryKind::Directory, .. }, _)) | None) => {
                return None;
            }
            Ok(Some((found, _))) => on_disk(Some(found), &path),
            Err(_) => Sight::Unseen,
        };
        Some(SiteViews {
            lineage: None,
            file: Some(file),
            role: Role::Site,
            row: None,
            certbot: Sight::Unseen,
            disk,
            published: None,
            links: None,
            place: Location { path, ..Location::default() },
            haproxy: Vec::new(),
        })
    };
    Ok(names.into_iter().filter_map(look).collect())
}

/// When the lineages' chains were last put into place.
pub(super) fn renewals<'a>(settings: &Settings, lineages: impl Iterator<Item = &'a OsString>) -> Vec<i64> {
    let changed = |name: &OsString| {
        let chain = settings.live_dir.join(name).join(&settings.chain_file);
        let since = chain.symlink_metadata().ok()?.modified().ok()?.duration_since(SystemTime::UNIX_EPOCH);
        i64::try_from(since.ok()?.as_secs()).ok()
    };
    lineages.filter_map(changed).collect()
}
