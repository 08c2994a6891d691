//! Whether files can be changed in memory so that HAProxy then answers as one that starts from the same files would, by
//! which commands, and in which order. Pure.
//!
//! A commit puts the certificate's names behind those of every other certificate that has the same name with the same
//! family of keys (measured, 2.2 to 3.4): whoever was loaded behind it would be served from then on. Committing these
//! again, in load order, restores the order; until then, for milliseconds, another file of the same name is served.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, BTreeSet};

use crate::certified_key::Leaf;
use crate::serving::Views;
use crate::serving::answers::Unsure;
use crate::serving::loads::{At, Bind, Contents, Entry, How, Identity, Serving, Store, base_name};
use crate::sys::escape::escaped;

/// The first version that is known to present what is committed to everybody.
const SWAPS_EVERYTHING: (u32, u32) = (2, 6);

/// A file that HAProxy is to be notified of.
#[derive(Debug, Clone, Copy)]
pub struct File<'a> {
    /// Its name as the settings spell it for this HAProxy.
    pub spelled: &'a str,
    /// Which file it is.
    pub identity: Option<Identity>,
    /// Its leaf; `None`: it has none, and HAProxy will refuse it.
    pub leaf: Option<&'a Leaf>,
    /// Whether the directory's own files let it be added at run time.
    pub addable: bool,
}

/// One command, or a few that belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A store gets the contents of a file of the batch.
    Fill {
        /// The store.
        store: String,
        /// The file's place in the batch.
        file: usize,
        /// How it gets them.
        how: Filling,
    },
    /// A store gets what it has once more, to stand behind the one that it shares a name with.
    Again {
        /// The store.
        store: String,
        /// Why.
        why: String,
    },
}

/// How a store gets the contents of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filling {
    /// They replace what it has.
    Put {
        /// The directory that it may be added to, should nothing serve it yet.
        list: Option<String>,
    },
    /// It is made, filled, and put into a list.
    Add {
        /// The directory, as HAProxy spells it.
        list: String,
    },
}

/// Why a file can't be changed in memory: a reload may do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotInMemory {
    /// Nothing in the configuration leads to it, and HAProxy has it.
    #[error("HAProxy has it, and its configuration doesn't load it")]
    Unconfigured,
    /// Nothing leads to it.
    #[error("HAProxy doesn't load it")]
    NotLoaded,
    /// Several stores would have to be made.
    #[error("is new, and HAProxy loads it under more than one name")]
    SeveralNames,
    /// There is no list that it can be put into.
    #[error("is new, and belongs to no directory alone")]
    NoDirectory,
    /// A start would put it before others.
    #[error("is new, and sorts first or shares a name with another file")]
    SortsFirst,
    /// A command's words are cut at blanks.
    #[error("its name is no plain word")]
    NoPlainWord,
    /// There is no order in which all binds answer as after a start.
    #[error("the binds load {} in different orders", escaped(.0))]
    Orders(String),
    /// HAProxy goes on with the old one where this line leads.
    #[error("HAProxy {0} keeps the old one for {1} until it is reloaded")]
    Kept(&'static str, At),
    /// Which stores are this file isn't clear.
    #[error("HAProxy also loads {}, which may be the same file", escaped(.0))]
    PerhapsAlso(String),
}

impl Step {
    /// A store that is there gets the contents of a file of the batch.
    #[must_use]
    pub fn put(file: usize, list: Option<String>, store: String) -> Self {
        Self::Fill { store, file, how: Filling::Put { list } }
    }

    /// The store that it is about.
    #[must_use]
    pub fn store(&self) -> &str {
        match self {
            Self::Fill { store, .. } | Self::Again { store, .. } => store,
        }
    }

    /// The place of its file in the batch.
    #[must_use]
    pub fn file(&self) -> Option<usize> {
        match self {
            Self::Fill { file, .. } => Some(*file),
            Self::Again { .. } => None,
        }
    }
}

/// What a HAProxy has in memory, beside what it would load when it starts.
#[derive(Debug)]
pub struct Memory<'a> {
    serving: &'a Serving,
    views: Views<'a>,
    stores: &'a BTreeSet<String>,
}

impl<'a> Memory<'a> {
    /// `stores`: the names of `show ssl cert`.
    ///
    /// # Errors
    /// What it would load when it starts isn't surely known: why.
    pub fn of(serving: &'a Serving, stores: &'a BTreeSet<String>) -> Result<Self, Unsure<'a>> {
        Ok(Self { serving, views: serving.views()?, stores })
    }

    /// Whether it has this store.
    #[must_use]
    pub fn has(&self, store: &str) -> bool {
        self.stores.contains(store)
    }

    /// Whether it would load this store when it starts.
    #[must_use]
    pub fn loads(&self, store: &str) -> bool {
        self.serving.stores.contains_key(store)
    }

    /// What it would load as this store.
    #[must_use]
    pub fn store(&self, store: &str) -> Option<&'a Store> {
        self.serving.stores.get(store)
    }

    /// The first difference that isn't one of the batch's: a file that HAProxy would load and doesn't have, or has and
    /// wouldn't load any more. `told` are the stores of the batch.
    #[must_use]
    pub fn difference(&self, told: &BTreeSet<String>) -> Option<String> {
        // With a file that it can't load it doesn't start at all.
        let loads = |store: &str| {
            self.serving.stores.get(store).is_some_and(|store| matches!(store.contents, Contents::Pair(_)))
        };
        let lacks = |store: &&str| !self.stores.contains(*store) && !told.contains(*store) && loads(store);
        let loaded = || self.serving.binds.iter().flat_map(Bind::entries).map(|entry| entry.store.as_str());
        if let Some(store) = loaded().find(lacks) {
            return Some(format!("HAProxy doesn't have {} yet", escaped(store)));
        }
        let is_gone = |store: &&String| {
            let folder = store.strip_suffix(base_name(store)).unwrap_or_default().trim_end_matches('/');
            self.serving.directories.contains_key(folder)
                && !self.serving.stores.contains_key(*store)
                && !told.contains(*store)
        };
        let gone = self.stores.iter().find(is_gone)?;
        Some(format!("HAProxy still has {}, which is gone", escaped(gone)))
    }

    /// The steps that tell one file: every store that it is.
    ///
    /// # Errors
    /// It can't be changed in memory: why.
    pub fn told(&self, place: usize, file: &File<'_>) -> Result<Vec<Step>, NotInMemory> {
        let stores = stores_of(self.serving, file.spelled, file.identity)?;
        let Some(first) = stores.first() else {
            let is_there = self.stores.contains(file.spelled);
            return Err(if is_there { NotInMemory::Unconfigured } else { NotInMemory::NotLoaded });
        };
        if let Some(at) = stores.iter().find_map(|store| self.keeps(store)) {
            return Err(NotInMemory::Kept("before 2.6", at.clone()));
        }
        if stores.iter().all(|store| self.stores.contains(store)) {
            let put = |store: String| Step::put(place, self.addable(file, &store).ok(), store);
            return Ok(stores.into_iter().map(put).collect());
        }
        if stores.len() > 1 {
            return Err(NotInMemory::SeveralNames);
        }
        let list = self.addable(file, first)?;
        Ok(vec![Step::Fill { store: first.clone(), file: place, how: Filling::Add { list } }])
    }

    /// The line for which HAProxy keeps what it has of this store, whatever is committed: a `server`, and a list's line that has
    /// nothing but the filter `*` and is the default (measured: 2.2 does, 2.6 to 3.4 don't).
    fn keeps(&self, store: &str) -> Option<&At> {
        if self.serving.version.is_some_and(|version| version >= SWAPS_EVERYTHING) {
            return None;
        }
        let is_nameless = |entry: &&Entry| {
            entry.store == store
                && !entry.filters.is_empty()
                && entry.filters.iter().all(|filter| filter == "*")
        };
        let firsts = || self.serving.binds.iter().filter_map(|bind| bind.entries().next());
        let for_server = self.serving.for_servers.get(store);
        for_server.or_else(|| firsts().find(is_nameless).map(|entry| &entry.at))
    }

    /// The directory that a new file may be added to: it belongs to that alone, and no bind has it first.
    fn addable(&self, file: &File<'_>, store: &str) -> Result<String, NotInMemory> {
        let loads = || self.serving.binds.iter().flat_map(|bind| &bind.loads);
        let has_it =
            |load: &&crate::serving::loads::Load| load.entries.iter().any(|entry| entry.store == store);
        let mut paths: BTreeSet<(&str, bool)> = BTreeSet::new();
        paths.extend(loads().filter(has_it).map(|load| (load.path.as_str(), load.how == How::Directory)));
        let mut paths = paths.into_iter();
        let (Some((list, true)), None) = (paths.next(), paths.next()) else {
            return Err(NotInMemory::NoDirectory);
        };
        let is_first = self
            .serving
            .binds
            .iter()
            .any(|bind| bind.entries().next().is_some_and(|entry| entry.store == store));
        if is_first || !file.addable {
            return Err(NotInMemory::SortsFirst);
        }
        Ok(list.to_owned())
    }

    /// The steps in an order in which every certificate ends where a start would have it, with the ones that have to be
    /// committed again for that.
    ///
    /// # Errors
    /// There is none: the binds load them in different orders.
    pub fn sequence(&self, steps: Vec<Step>, files: &[File<'_>]) -> Result<Vec<Step>, NotInMemory> {
        let mut open: Vec<String> = steps.iter().map(|step| step.store().to_owned()).collect();
        let mut steps: BTreeMap<String, Step> =
            steps.into_iter().map(|step| (step.store().to_owned(), step)).collect();
        let mut before: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        while let Some(store) = open.pop() {
            let of_batch = steps.get(&store).and_then(Step::file).and_then(|file| files.get(file));
            let on_disk = || self.serving.stores.get(&store)?.contents.leaf().map(AsRef::as_ref);
            let Some(leaf) = of_batch.map_or_else(on_disk, |file| file.leaf) else { continue };
            for rival in self.views.rivals(&store, leaf) {
                before.entry(rival.store.to_owned()).or_default().insert(store.clone());
                if !steps.contains_key(rival.store) {
                    let name = if rival.name == "*" { "the default" } else { &rival.name };
                    let why = format!("shares {} with {}", escaped(name), escaped(rival.store));
                    let step = Step::Again { store: rival.store.to_owned(), why };
                    steps.insert(rival.store.to_owned(), step);
                    open.push(rival.store.to_owned());
                }
            }
        }
        let mut sequence = Vec::with_capacity(steps.len());
        while !steps.is_empty() {
            let waits = |store: &String| {
                before.get(store).is_some_and(|ahead| ahead.iter().any(|ahead| steps.contains_key(ahead)))
            };
            let Some(next) = steps.keys().find(|store| !waits(store)).cloned() else {
                let names: Vec<&str> = steps.keys().map(String::as_str).take(2).collect();
                return Err(NotInMemory::Orders(names.join(" and ")));
            };
            sequence.extend(steps.remove(&next));
        }
        Ok(sequence)
    }
}

/// The stores that are this file, as HAProxy spells them: it may load one file under several names.
///
/// # Errors
/// Whether a store is this file can't be seen.
pub fn stores_of(
    serving: &Serving,
    spelled: &str,
    identity: Option<Identity>,
) -> Result<Vec<String>, NotInMemory> {
    let mut stores = Vec::new();
    for store in serving.stores_of(identity, base_name(spelled)) {
        let is_certain = store == spelled
            || (identity.is_some()
                && serving.stores.get(store).is_some_and(|store| store.identity == identity));
        if !is_certain {
            return Err(NotInMemory::PerhapsAlso(store.to_owned()));
        }
        stores.push(store.to_owned());
    }
    if stores.is_empty() && serving.stores.contains_key(spelled) {
        stores.push(spelled.to_owned());
    }
    Ok(stores)
}
