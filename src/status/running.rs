//! What each HAProxy shows: looked at all at once, each within a time of its own.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use super::behind::{Behind, Changed};
use super::down::{self, Down, Silent};
use super::handshakes::{self, Asked};
use super::loaded::{self, Asking, Besides, LoadedStores};
use super::local::Ground;
use super::observation::{Location, Outranked, Shown, Sight, SiteViews};
use super::{advice, behind, reloading};
use crate::certified_key::read_leaf;
use crate::config::{Haproxy, Method, Settings};
use crate::haproxy::cli::replies::{is_one_line, lines_of_name};
use crate::haproxy::cli::worker::{Answering, NoSocket, can_be_shown, may_die_of_names};
use crate::haproxy::methods::master::processes;
use crate::haproxy::process::twin::{Twins, twins};
use crate::haproxy::target::Target;
use crate::plan::row::Role;
use crate::serving::in_memory;
use crate::serving::loads::{Loaded, base_name};
use crate::sites::dir::previous_path;
use crate::sites::state::{Pending, State, key};
use crate::status::names::Names;
use crate::status::observation::LoadedLeaf;
use crate::status::refusal::Refused;
use crate::sys::change_time::changed_at;
use crate::sys::escape::{escaped, escaped_path};
use crate::sys::parallel;
use crate::sys::system::System;

/// How long looking at the sockets may take.
const SOCKETS: Duration = Duration::from_secs(10);

/// How long all handshakes may take.
const HANDSHAKES: Duration = Duration::from_secs(30);

/// One HAProxy, as far as it can be seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// Its name.
    pub name: String,
    /// Whether its sockets answer.
    pub loaded: bool,
    /// Whether its addresses answer.
    pub presented: bool,
    /// Whether anybody wants it to be seen: it is notified, or there are addresses to ask.
    pub wanted: bool,
    /// Why it can't be seen, or not wholly.
    pub unseen: Option<String>,
    /// What says that it should run, where it doesn't.
    pub down: Option<Down>,
    /// The command that makes it read its files again, where one is known.
    pub reload: Option<String>,
    /// What isn't ours and differs from what it would load now.
    pub behind: Option<Behind>,
    /// Another HAProxy that listens where this one does.
    pub twins: Option<Twins>,
    /// How many of its last reloads failed, one after the other, by its master's word.
    pub failed_reloads: u32,
    /// By which name it loads the sites directory, where that isn't the one that our settings have.
    pub spelled: Option<String>,
    /// That it refuses its configuration, where that is known.
    pub refused: Option<Refused>,
    /// Why the last run could not notify it, where that isn't its configuration.
    pub failed: Option<String>,
    /// What leads out where the way that is set for it can't do what is missing.
    pub way_out: Option<String>,
    /// A file that it would load and can't: it doesn't reload because of it.
    pub blocked: Option<String>,
}

impl Running {
    /// What brings a HAProxy into step with the disk: a run where a notification is pending, else a reload.
    #[must_use]
    pub fn catch_up(&self, is_owed: bool) -> String {
        let first = match &self.refused {
            Some(refused) => Some(format!("{}; then ", refused.advice)),
            None => self.blocked.as_ref().map(|file| format!("mend {file}, which it can't load; then ")),
        };
        let then = match (&self.reload, is_owed) {
            (_, true) if self.failed.is_some() && first.is_none() => match &self.way_out {
                Some(way_out) => format!("{way_out}; then {}", advice::ASSEMBLE),
                None => format!("mend what reload-owed says; then {}", advice::ASSEMBLE),
            },
            (_, true) => advice::ASSEMBLE.to_owned(),
            (Some(command), false) => format!("run: {command}"),
            (None, false) => format!("reload {} the way it is reloaded here", escaped(&self.name)),
        };
        first.unwrap_or_default() + &then
    }

    /// Whether nothing of it can be seen.
    #[must_use]
    pub fn is_unseen(&self) -> bool {
        !self.loaded && !self.presented
    }

    /// Why nothing of it can be seen.
    #[must_use]
    pub fn why_unseen(&self) -> String {
        let nothing = || format!("nothing of {} can be seen", escaped(&self.name));
        self.unseen.clone().unwrap_or_else(nothing)
    }
}

/// Looks at every HAProxy and adds what it shows to the sites; files that only a HAProxy has become sites of their own.
pub fn look(settings: &Settings, system: &System, ground: &mut Ground) -> Vec<Running> {
    let (sites, loaded, state) = (&ground.sites, &ground.loaded, ground.state.as_ref());
    let known = Previous::look(settings, state);
    let haproxys: Vec<(usize, &Haproxy)> = settings.haproxys.iter().enumerate().collect();
    let looks = parallel::at_once(&haproxys, haproxys.len(), |(place, haproxy)| {
        Look::at(settings, haproxy, system, sites, &known, loaded, *place)
    });
    let blocked = sites.iter().find(|site| site.place.unloadable.is_some());
    let blocked = blocked.map(|site| escaped_path(&site.place.path).to_string());
    let mut running = Vec::with_capacity(looks.len());
    for (haproxy, mut look) in settings.haproxys.iter().zip(looks) {
        let spelled = ground.spellings.get(&haproxy.name).cloned();
        let seen = Running { spelled, blocked: blocked.clone(), ..look.running(haproxy) };
        for (place, site) in ground.sites.iter_mut().enumerate() {
            site.haproxy.push(look.shown(site, place));
        }
        add_unknown(haproxy, look, &running, ground);
        running.push(seen);
    }
    running
}

/// What HAProxy can have of our files, by what this program remembers.
struct Previous<'a> {
    state: Option<&'a State>,
    /// The files that are pending and were small before.
    small: BTreeSet<&'a String>,
}

impl<'a> Previous<'a> {
    fn look(settings: &Settings, state: Option<&'a State>) -> Self {
        let is_small = |(key, pending): &(&String, &Pending)| {
            let path = previous_path(settings, key);
            let before = std::fs::read(path).ok().and_then(|pem| read_leaf(&pem).ok());
            !pending.several && (pending.was.is_none() || before.is_some_and(|leaf| can_be_shown(&leaf)))
        };
        let pending = state.iter().flat_map(|state| &state.pending);
        Self { state, small: pending.filter(is_small).map(|(key, _)| key).collect() }
    }

    /// Whether it can only be the file on disk, or the one before it, and neither has too many names.
    fn has_it(&self, settings: &Settings, haproxy: &Haproxy, site: &SiteViews) -> bool {
        let Some(state) = self.state.filter(|state| !state.lost && haproxy.method != Method::None) else {
            return false;
        };
        let target = match (site.role, site.file.as_ref().and_then(|file| file.to_str())) {
            (Role::Host, _) => Target::Host,
            (Role::Site, Some(file)) => Target::Site(file.to_owned()),
            (Role::Site, None) => return false,
        };
        let key = key(&target, &settings.host_file);
        if state.pending.contains_key(&key) {
            return self.small.contains(&key);
        }
        let on_disk = site.row.as_ref().and_then(|row| row.before);
        let is_told = state.owed.get(&haproxy.name).is_none_or(|owed| {
            owed.files.as_ref().is_some_and(|files| files.iter().all(|file| *file != key))
        });
        is_told && on_disk.is_some_and(|sha256| state.vouches_for(&key, &sha256))
    }
}

/// One look at a HAProxy.
struct Look {
    memory: Result<LoadedStores, NoSocket>,
    names: Names,
    answers: handshakes::Answers,
    silent: Option<Silent>,
    reload: Option<String>,
    behind: Option<Behind>,
    twins: Option<Twins>,
    failed_reloads: u32,
    /// Whether it is known what it loads.
    is_configured: bool,
}

impl Look {
    fn at(
        settings: &Settings,
        haproxy: &Haproxy,
        system: &System,
        sites: &[SiteViews],
        known: &Previous<'_>,
        around: &Loaded,
        place: usize,
    ) -> Self {
        let serving = around.servings.get(place);
        let besides = Besides {
            others: serving.map(behind::elsewhere).unwrap_or_default(),
            lists: serving.map(in_memory::lists).unwrap_or_default(),
            silent: serving.map(in_memory::silent).unwrap_or_default(),
        };
        let haproxy = &haproxy.looked_up_once();
        let names = Names::of(haproxy, sites, around, place);
        let may_ask = |file: &str, worker: Option<Answering>| {
            let site = names.site(file).and_then(|site| sites.get(site));
            let leaf = site.and_then(|site| site.disk.here());
            if leaf.is_some_and(|leaf| !can_be_shown(leaf)) {
                return Asking::TooLong;
            }
            let survives = worker.is_some_and(|worker| !may_die_of_names(worker.version));
            let is_older = |path: &Path| Some(changed_at(path)? < worker?.started(system));
            let has_read = |site: &SiteViews| Some(leaf.is_some() && is_older(&site.place.path)?);
            let is_known =
                |site: &SiteViews| has_read(site).unwrap_or(false) || known.has_it(settings, haproxy, site);
            let other = serving.and_then(|serving| serving.stores.get(file)).filter(|_| site.is_none());
            let is_as_read = other.and_then(|store| is_older(&store.path)).unwrap_or(false);
            if survives || is_as_read || site.is_some_and(is_known) {
                Asking::Safe
            } else {
                Asking::Dangerous
            }
        };
        let deadline = Instant::now() + SOCKETS.min(haproxy.timeout);
        let mut memory = loaded::memory(haproxy, &names, &may_ask, &besides, deadline);
        let asked: Vec<Asked<'_>> = sites
            .iter()
            .enumerate()
            .filter(|(site, _)| !names.is_apart(*site))
            .filter_map(|(site, views)| {
                let names = views.row.as_ref()?.names_won.to_vec();
                Some(Asked { site, leaf: views.disk.here()?, names })
            })
            .collect();
        let deadline = Instant::now() + HANDSHAKES.min(haproxy.timeout);
        let answers = handshakes::ask(&haproxy.probe, &asked, deadline);
        let is_silent = memory.is_err() && (haproxy.probe.is_empty() || answers.unseen.is_some());
        let is_wanted = haproxy.method != Method::None || !haproxy.probe.is_empty();
        let silent = if is_silent && is_wanted { down::look(system, haproxy) } else { None };
        let behind = memory
            .as_ref()
            .ok()
            .zip(serving)
            .and_then(|(memory, serving)| behind::look(system, haproxy, around, serving, sites, memory));
        if let (Ok(memory), Some(Behind { changed: Changed::Memory, .. })) = (&mut memory, &behind) {
            // Its configuration names it first no longer than until a reload.
            memory.outranked.clear();
        }
        let worker = memory.as_ref().ok().and_then(|memory| memory.worker);
        let failed_reloads = worker.map(|worker| failed_reloads(haproxy, worker)).unwrap_or_default();
        let reload = reloading::command(system, haproxy);
        let is_configured = serving.is_some_and(|serving| serving.unclear.is_none());
        let twins = twins(system, haproxy);
        Self { memory, names, answers, silent, reload, behind, twins, failed_reloads, is_configured }
    }

    /// What it shows for one site.
    fn shown(&mut self, site: &SiteViews, place: usize) -> Shown {
        let presented = self.answers.take(place);
        let unseen = Shown { presented, ..Shown::UNSEEN };
        let (Ok(memory), names) = (&mut self.memory, self.names.of_site(place)) else { return unseen };
        let is_kept_from_us = |name: &String| memory.hidden.contains(name) || memory.avoided.contains(name);
        if names.is_empty() || names.iter().any(is_kept_from_us) {
            return unseen;
        }
        let outranked = names.iter().find_map(|name| memory.outranked.remove(name));
        let is_configured = self.is_configured;
        let outranked = outranked.map(|(name, by)| Outranked { name, by, is_configured });
        let found: Vec<LoadedLeaf> = names.iter().filter_map(|name| memory.stores.remove(name)).collect();
        // What isn't as it should be, where it has the file by several names.
        let is_right = |found: &LoadedLeaf| {
            site.disk.here().is_some_and(|leaf| found.is_current(leaf)) && !site.lacks_chain(found)
        };
        let wrong = found.iter().position(|found| !is_right(found)).unwrap_or_default();
        let loaded = found.into_iter().nth(wrong).map_or(Sight::Absent, Sight::Here);
        let is_apart = loaded == Sight::Absent && self.names.is_apart(place);
        Shown { loaded, outranked, is_apart, ..unseen }
    }

    fn running(&self, haproxy: &Haproxy) -> Running {
        let unshown = self.memory.as_ref().map_or_else(|why| Some(why.to_string()), LoadedStores::unseen);
        let (down, elsewhere) = match self.silent.clone() {
            Some(Silent::Down(down)) => (Some(down), None),
            Some(Silent::Elsewhere(why)) => (None, Some(why)),
            None => (None, None),
        };
        let why = [elsewhere, unshown, self.answers.unseen.clone()];
        let seen = self.memory.is_ok() || !self.answers.sites.is_empty();
        Running {
            name: haproxy.name.clone(),
            loaded: self.memory.is_ok(),
            presented: !haproxy.probe.is_empty() && self.answers.unseen.is_none(),
            wanted: haproxy.method != Method::None || !haproxy.probe.is_empty() || seen,
            unseen: why.into_iter().flatten().next(),
            down,
            reload: self.reload.clone(),
            behind: self.behind.clone(),
            twins: self.twins,
            failed_reloads: self.failed_reloads,
            spelled: None,
            refused: None,
            failed: None,
            way_out: None,
            blocked: None,
        }
    }
}

/// How many of the last reloads failed, where the master of this worker says so.
fn failed_reloads(haproxy: &Haproxy, worker: Answering) -> u32 {
    let deadline = Instant::now() + SOCKETS.min(haproxy.timeout);
    let processes = processes(haproxy.master_socket.as_ref(), deadline).ok();
    processes.filter(|processes| processes.has(worker.pid)).map_or(0, |processes| processes.failed)
}

/// What of a file's name HAProxy's replies show, where that isn't all of it as it is.
fn shown_otherwise(site: &SiteViews) -> Vec<String> {
    let name = site.file.as_ref().map(|file| file.to_string_lossy());
    let torn = name.filter(|name| !is_one_line(name) || name.contains(char::REPLACEMENT_CHARACTER));
    torn.map(|name| lines_of_name(&name)).unwrap_or_default()
}

/// Files that HAProxy has, and neither certbot nor the disk, as far as they can be seen.
fn add_unknown(haproxy: &Haproxy, look: Look, others: &[Running], ground: &mut Ground) {
    let Look { memory: Ok(LoadedStores { stores, avoided, .. }), names, .. } = look else { return };
    // It has those, too, whatever is in them.
    let of_avoided = |file: String| (file, LoadedLeaf::of_unknown());
    let torn: BTreeSet<String> = ground.sites.iter().flat_map(shown_otherwise).collect();
    let is_unknown = |file: &String| names.site(file).is_none() && !torn.contains(base_name(file));
    let avoided = avoided.into_iter().filter(is_unknown).map(of_avoided);
    let mut left: Vec<_> =
        stores.into_iter().chain(avoided).filter(|(file, _)| *file != haproxy.host_file).collect();
    left.sort_by(|(a, _), (b, _)| a.cmp(b));
    let unless_seen = |seen| if seen { Sight::Absent } else { Sight::Unseen };
    for (file, loaded) in left {
        let before = others.iter().map(|other| {
            let loaded = if other.loaded { Sight::Absent } else { Sight::Unseen };
            Shown { loaded, ..Shown::UNSEEN }
        });
        let shown = Shown { loaded: Sight::Here(loaded), ..Shown::UNSEEN };
        let haproxy = before.chain([shown]).collect();
        ground.sites.push(SiteViews {
            lineage: None,
            file: Some(file.rsplit('/').next().unwrap_or_default().into()),
            role: Role::Site,
            row: None,
            certbot: unless_seen(ground.sees_certbot),
            disk: unless_seen(ground.sees_disk),
            published: None,
            links: None,
            place: Location::default(),
            haproxy,
        });
    }
}
