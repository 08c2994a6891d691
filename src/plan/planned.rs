//! What every bind would load after the plan, and which of that are files of the sites directory.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;

use crate::certified_key::Leaf;
use crate::plan::files::Files;
use crate::plan::served::{file_behind, presented_leaf};
use crate::plan::situation::Situation;
use crate::serving::loads::{Bind, Contents, Identity, Load, Named, Serving, Store, base_name};
use crate::serving::{Served, View};

/// What the HAProxys of which it is known would load with the planned files.
pub(super) struct Planned(Vec<Known>);

struct Known {
    serving: Serving,
    sites: Sites,
}

/// What of a HAProxy's stores is in the sites directory.
struct Sites {
    directory: Identity,
    /// How lines spell the directory that name its files one by one.
    folders: HashSet<String>,
    /// Its links to files of its own, and these.
    links: HashMap<String, String>,
    /// The names that a `crt-store` gives to files of its, and these.
    aliases: HashMap<String, String>,
}

/// A bind that speaks TLS.
pub(super) struct PlannedBind<'a> {
    /// Whose bind it is.
    pub(super) serving: &'a Serving,
    /// How it would answer.
    pub(super) view: View<'a>,
    sites: &'a Sites,
}

impl Sites {
    fn has(&self, serving: &Serving, load: &Load, store: &str) -> bool {
        serving.is_directory(load, self.directory)
            || self.aliases.contains_key(store)
            || (!self.folders.is_empty() && self.folders.contains(folder_of(store)))
    }
}

impl PlannedBind<'_> {
    /// The file of the sites directory that this certificate comes from, whichever line and link loads it.
    pub(super) fn site<'c>(&'c self, certificate: &Served<'c>) -> Option<&'c str> {
        let store = certificate.entry.store.as_str();
        let is_site = self.sites.has(self.serving, certificate.load, store);
        let aliased = self.sites.aliases.get(store).map(String::as_str);
        let name = is_site.then(|| aliased.unwrap_or_else(|| base_name(store)))?;
        Some(self.sites.links.get(name).map_or(name, String::as_str))
    }
}

impl Planned {
    pub(super) fn of(situation: &Situation, sites: &Files) -> Self {
        let Some(directory) = situation.loaded.sites else { return Self(Vec::new()) };
        let servings = situation.loaded.servings.iter();
        let clear: Vec<&Serving> = servings.filter(|serving| serving.unclear.is_none()).collect();
        if clear.is_empty() {
            return Self(Vec::new());
        }
        let after: Vec<(String, Arc<Leaf>)> = sites
            .iter()
            .filter(|(file, _)| situation.is_loaded(file))
            .filter_map(|it| {
                let leaf = presented_leaf(situation, sites, it)?;
                Some((it.0.to_string_lossy().into_owned(), Arc::clone(leaf)))
            })
            .collect();
        let link = |file: &OsStr| {
            let behind = file_behind(situation, file);
            (behind != file).then(|| Some((file.to_str()?.to_owned(), behind.to_str()?.to_owned())))?
        };
        let links: HashMap<String, String> = sites.iter().filter_map(|(file, _)| link(file)).collect();
        let known = |serving: &Serving| {
            let named = serving.named.iter().filter(|named| named.folder == Some(directory));
            let folders = named.map(|named| folder_of(&named.path).to_owned()).collect();
            let (links, aliases) = (links.clone(), aliases(serving, directory));
            let serving = serving.with_directory(directory, &after);
            Known { serving, sites: Sites { directory, folders, links, aliases } }
        };
        Self(clear.into_iter().map(known).collect())
    }

    /// Every bind, looked at once, HAProxy by HAProxy.
    pub(super) fn binds(&self) -> Vec<Vec<PlannedBind<'_>>> {
        self.0.iter().map(Known::planned_binds).collect()
    }

    /// Whether the order of the files' names isn't the order in which they are loaded, and that one is known: a line names
    /// a file of the directory by itself, or a bind loads the directory twice.
    pub(super) fn has_an_order_of_its_own(&self, situation: &Situation) -> bool {
        let is_known = self.0.len() == situation.loaded.servings.len() && self.0.iter().all(Known::is_seen);
        is_known && self.0.iter().any(|known| known.binds().any(|bind| known.is_ordered(bind)))
    }
}

impl Known {
    fn binds(&self) -> impl Iterator<Item = &Bind> {
        self.serving.binds.iter().filter(|bind| bind.serves())
    }

    fn planned_binds(&self) -> Vec<PlannedBind<'_>> {
        let Self { serving, sites } = self;
        self.binds().map(|bind| PlannedBind { serving, view: serving.view(bind), sites }).collect()
    }

    /// Whether it could be seen what every file holds that a bind loads.
    fn is_seen(&self) -> bool {
        let stores =
            self.binds().flat_map(Bind::entries).filter_map(|entry| self.serving.stores.get(&entry.store));
        stores.into_iter().all(|store| !matches!(store.contents, Contents::Unseen(_)))
    }

    fn is_ordered(&self, bind: &Bind) -> bool {
        let is_directory = |load: &&Load| self.serving.is_directory(load, self.sites.directory);
        let others = bind.loads.iter().filter(|load| !is_directory(load));
        let mut entries = others.flat_map(|load| load.entries.iter().map(move |entry| (load, entry)));
        bind.loads.iter().filter(is_directory).count() > 1
            || entries.any(|(load, entry)| self.sites.has(&self.serving, load, &entry.store))
    }
}

/// The names that a `crt-store` gives to files of this directory, whatever the lines' spelling, and these files.
fn aliases(serving: &Serving, directory: Identity) -> HashMap<String, String> {
    let in_directory = |store: &Store| {
        let is_it = |named: &&Named| {
            named.folder == Some(directory)
                && (Path::new(&named.path) == store.path
                    || (named.identity.is_some() && named.identity == store.identity))
        };
        serving.named.iter().find(is_it).map(|named| named.base().to_owned())
    };
    let stores = serving.stores.iter().filter(|(name, _)| name.starts_with('@'));
    stores.filter_map(|(name, store)| Some((name.clone(), in_directory(store)?))).collect()
}

fn folder_of(path: &str) -> &str {
    path.strip_suffix(base_name(path)).unwrap_or_default().trim_end_matches('/')
}
