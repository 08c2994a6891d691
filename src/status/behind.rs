//! What isn't ours and has changed since a HAProxy read it: it serves the old state, and the new one after a reload.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::loaded::LoadedStores;
use super::observation::{LoadedLeaf, SiteViews};
use crate::certified_key::Leaf;
use crate::config::Haproxy;
use crate::haproxy::cli::replies::{is_one_line, lines_of_name};
use crate::haproxy::cli::worker::can_be_shown;
use crate::haproxy::process::newer_source::newer_source;
use crate::haproxy::target::Target;
use crate::plan::action::Action;
use crate::plan::row::Role;
use crate::serving::contents::{chain_len, identity};
use crate::serving::in_memory;
use crate::serving::loads::{Bind, Contents, Identity, Loaded, Serving, Store, base_name, is_loaded};
use crate::sys::change_time::changed_at;
use crate::sys::escape::escaped;
use crate::sys::system::System;

/// How many files from elsewhere a HAProxy is asked for.
const ASKED_AT_MOST: usize = 1000;

/// The files that a HAProxy loads from elsewhere, by its names for them, as far as it can be asked.
#[must_use]
pub fn elsewhere(serving: &Serving) -> BTreeSet<String> {
    let can_be_asked = |(_, store): &(&String, &Store)| match &store.contents {
        Contents::Pair(leaf) | Contents::Unserved { leaf, .. } => can_be_shown(leaf),
        Contents::Unloadable { .. } | Contents::Unseen(_) => false,
    };
    let found = serving.stores.iter().filter(can_be_asked);
    found.map(|(name, _)| name.clone()).take(ASKED_AT_MOST).collect()
}

/// What a HAProxy is behind with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Behind {
    /// The fact, which goes behind its name.
    pub fact: String,
    /// What has changed since it read the disk.
    pub changed: Changed,
}

/// What has changed since a HAProxy read the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// Its configuration.
    Configuration,
    /// A file that it loads.
    File,
    /// Its memory: by somebody else.
    Memory,
}

impl Changed {
    fn memory_if(is_memory: bool) -> Self {
        if is_memory { Self::Memory } else { Self::File }
    }
}

impl Behind {
    fn on_disk(fact: String) -> Self {
        Self { fact, changed: Changed::File }
    }
}

/// What HAProxy is behind with; `None`: nothing is seen.
#[must_use]
pub fn look(
    system: &System,
    haproxy: &Haproxy,
    loaded: &Loaded,
    serving: &Serving,
    sites: &[SiteViews],
    memory: &LoadedStores,
) -> Option<Behind> {
    let question = Question { system, haproxy, loaded, serving, sites, memory };
    let configuration = question.configuration();
    let configuration = configuration.map(|fact| Behind { fact, changed: Changed::Configuration });
    let asked = configuration.or_else(|| question.asked());
    let found =
        asked.or_else(|| question.unasked().map(Behind::on_disk)).or_else(|| question.foreign_sites());
    // Names can be compared where it is clear what HAProxy loads.
    if found.is_some() || serving.unclear.is_some() {
        return found;
    }
    let others = || question.missing().or_else(|| question.gone().map(Behind::on_disk));
    others().or_else(|| Some(Behind { fact: question.served_otherwise()?, changed: Changed::Memory }))
}

/// What a HAProxy is compared by.
struct Question<'a> {
    system: &'a System,
    haproxy: &'a Haproxy,
    loaded: &'a Loaded,
    serving: &'a Serving,
    sites: &'a [SiteViews],
    memory: &'a LoadedStores,
}

fn has_another(part: &str, name: &str) -> String {
    format!("has another {part} than {} has now", escaped(name))
}

fn may_lack(name: &str) -> String {
    format!("may not have read {}, which has changed since it started", escaped(name))
}

fn is_foreign(views: &SiteViews) -> bool {
    views.row.as_ref().is_some_and(|row| matches!(row.action, Action::Foreign | Action::Conflict))
}

impl<'a> Question<'a> {
    /// Its configuration has changed since its worker started.
    fn configuration(&self) -> Option<String> {
        let newer = newer_source(self.system, &self.serving.sources, &self.memory.worker?)?;
        let runs = if newer.is_sure() { "runs" } else { "may run" };
        Some(format!("{runs} with an older configuration: {}", newer.fact()))
    }

    /// A file from elsewhere, for which it was asked.
    fn asked(&self) -> Option<Behind> {
        let (name, part) = self.memory.others.iter().find_map(|(name, shown)| {
            let store = self.serving.stores.get(name)?;
            Some((name, self.other_part(shown, store.contents.leaf()?, &store.path)?))
        })?;
        Some(Behind { fact: has_another(part, name), changed: Changed::memory_if(self.is_older(name)) })
    }

    /// What it has otherwise than a file that isn't ours. The chain counts where the file has changed since.
    fn other_part(&self, shown: &LoadedLeaf, leaf: &Leaf, path: &Path) -> Option<&'static str> {
        if !shown.is_of(leaf) {
            return Some("certificate");
        }
        let is_other = |is: usize| self.is_newer(path) && chain_len(path).is_some_and(|must| is != must);
        shown.chain_len.is_some_and(is_other).then_some("chain")
    }

    /// A file from elsewhere, for which it can't be asked: the file's time tells.
    fn unasked(&self) -> Option<String> {
        let memory = self.memory;
        let is_unasked = |name: &String| {
            memory.listed.contains(name)
                && ![&memory.others, &memory.stores].iter().any(|asked| asked.contains_key(name))
                && ![&memory.avoided, &memory.hidden].iter().any(|ours| ours.contains(name))
        };
        let is_newer =
            |name: &String| self.serving.stores.get(name).is_some_and(|store| self.is_newer(&store.path));
        elsewhere(self.serving)
            .iter()
            .find(|name| is_unasked(name) && is_newer(name))
            .map(|name| may_lack(name))
    }

    /// Somebody else's file in the sites directory.
    fn foreign_sites(&self) -> Option<Behind> {
        for views in self.sites().filter(|views| is_foreign(views)) {
            let Some(file) = views.file.as_ref().and_then(|file| file.to_str()) else { continue };
            let name = Target::Site(file.to_owned()).spelled(self.haproxy);
            if self.memory.avoided.contains(&name) && self.is_newer(&views.place.path) {
                return Some(Behind::on_disk(may_lack(&name)));
            }
            let shown = self.memory.stores.get(&name).zip(views.disk.here());
            let part = shown.and_then(|(shown, leaf)| self.other_part(shown, leaf, &views.place.path));
            if let Some(part) = part {
                let in_memory = self.has_read(&views.place.path);
                return Some(Behind {
                    fact: has_another(part, &name),
                    changed: Changed::memory_if(in_memory),
                });
            }
        }
        None
    }

    /// A file that it loads by its configuration, and hasn't loaded.
    fn missing(&self) -> Option<Behind> {
        let Self { loaded, serving, memory, .. } = self;
        // A bundle through 2.2 is one store, which has another name.
        let has_bundles = serving.version.is_none_or(|version| version < (2, 3));
        let is_part =
            |name: &str| has_bundles && [".dsa", ".ecdsa", ".rsa"].iter().any(|end| name.ends_with(end));
        let name = |views: &'a SiteViews| views.file.as_ref()?.to_str();
        let broken = self.sites.iter().filter(|views| views.place.unloadable.is_some());
        let broken: BTreeSet<&str> = broken.filter_map(name).collect();
        let ours: BTreeSet<&str> = self.sites().filter(|views| !is_foreign(views)).filter_map(name).collect();
        let mut folders: BTreeMap<PathBuf, Option<Identity>> = BTreeMap::new();
        let mut is_ours = |name: &str, store: &Store| {
            if loaded.host.is_some() && store.identity == loaded.host {
                return true;
            }
            let Some(folder) = store.path.parent().filter(|_| ours.contains(base_name(name))) else {
                return false;
            };
            loaded.sites.is_some()
                && *folders.entry(folder.to_owned()).or_insert_with(|| identity(folder)) == loaded.sites
        };
        for entry in serving.binds.iter().flat_map(Bind::entries) {
            let Some(store) = serving.stores.get(&entry.store) else { continue };
            // With a file that it can't load it doesn't start at all.
            let is_loadable = !matches!(store.contents, Contents::Unloadable { .. })
                && !broken.contains(base_name(&entry.store))
                && !is_part(&entry.store);
            if is_loadable
                && is_one_line(&entry.store)
                && !memory.listed.contains(&entry.store)
                && !is_ours(&entry.store, store)
            {
                let in_memory = self.is_older(&entry.store);
                let name = escaped(&entry.store);
                let fact = if in_memory {
                    format!("no longer has {name}")
                } else {
                    format!("doesn't have {name} yet")
                };
                return Some(Behind { fact, changed: Changed::memory_if(in_memory) });
            }
        }
        None
    }

    /// A file that it has, and that is gone.
    fn gone(&self) -> Option<String> {
        let torn = self.serving.stores.keys().filter(|name| !is_one_line(name));
        let lines: BTreeSet<String> = torn.flat_map(|name| lines_of_name(name)).collect();
        let is_gone = |name: &&String| {
            let folder = name.strip_suffix(base_name(name)).unwrap_or_default().trim_end_matches('/');
            // Of the sites directory each has a row.
            let is_elsewhere =
                self.serving.directories.get(folder).is_some_and(|folder| *folder != self.loaded.sites);
            is_elsewhere && !self.serving.stores.contains_key(*name) && !lines.contains(*name)
        };
        let gone = self.memory.listed.iter().find(is_gone)?;
        Some(format!("still has {}, which is gone", escaped(gone)))
    }

    /// A name that it serves from another file than after a start, with the same files.
    fn served_otherwise(&self) -> Option<String> {
        let shown = self.memory.in_memory.as_ref()?;
        if self.sites.iter().any(|views| views.place.unloadable.is_some()) {
            return None;
        }
        let file = |views: &'a SiteViews| Some((views.file.as_ref()?, views.disk.here()?));
        let is_site = |views: &&SiteViews| {
            let is_loaded = |file: &OsString| is_loaded(file, self.serving.version);
            views.role == Role::Site && views.file.as_ref().is_some_and(is_loaded)
        };
        let mut files: Vec<(&OsString, &Arc<Leaf>)> = self.sites().filter(is_site).filter_map(file).collect();
        files.sort_by_key(|(file, _)| *file);
        // As HAProxy's replies are read, too.
        let as_shown =
            |(file, leaf): (&OsString, &Arc<Leaf>)| (file.to_string_lossy().into(), Arc::clone(leaf));
        let files: Vec<(String, Arc<Leaf>)> = files.into_iter().map(as_shown).collect();
        let fresh = match self.loaded.sites {
            Some(sites) => self.serving.with_directory(sites, &files),
            None => self.serving.clone(),
        };
        // What of ours isn't served at all is told where it is shown.
        let is_as_on_disk = |name: &str| {
            let on_disk = fresh.stores.get(name).and_then(|store| store.contents.leaf());
            on_disk.is_some_and(|leaf| match self.memory.stores.get(name) {
                Some(shown) => shown.is_current(leaf),
                None => self.memory.others.get(name).is_some_and(|shown| shown.is_of(leaf)),
            })
        };
        in_memory::difference(&fresh, shown, &is_as_on_disk)
    }

    fn sites(&self) -> impl Iterator<Item = &'a SiteViews> {
        self.sites.iter().filter(|views| !views.place.is_elsewhere)
    }

    /// Whether a store's file surely hasn't changed since its worker started.
    fn is_older(&self, store: &str) -> bool {
        self.serving.stores.get(store).is_some_and(|store| self.has_read(&store.path))
    }

    /// Whether a file surely hasn't changed since its worker started.
    fn has_read(&self, path: &Path) -> bool {
        let started = self.memory.worker.map(|worker| worker.started(self.system));
        started.zip(changed_at(path)).is_some_and(|(started, changed)| changed < started)
    }

    /// Whether a file has changed since its worker started.
    fn is_newer(&self, path: &Path) -> bool {
        let started = self.memory.worker.map(|worker| worker.started(self.system));
        started.zip(changed_at(path)).is_some_and(|(started, changed)| changed >= started)
    }
}
