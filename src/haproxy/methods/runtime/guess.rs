//! What is known of a HAProxy whose configuration isn't: what its socket shows.
//!
//! The files of our directory are loaded in the order of their names where HAProxy shows the directory among its lists. Of
//! all others only the names are seen, and from 3.2 on the order in which it has them.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::sync::Arc;
use std::time::Instant;

use rustix::fs::CWD;

use crate::certified_key::{Leaf, read_leaf};
use crate::config::Haproxy;
use crate::haproxy::batch::Batch;
use crate::haproxy::cli::replies::{ListedStore, ShownStore, StoreStatus};
use crate::haproxy::cli::worker::{Worker, can_be_shown, is_plain, may_die_of_names};
use crate::haproxy::memory::File;
use crate::haproxy::shared_names::{Key, NamesShown};
use crate::haproxy::target::Target;
use crate::serving::in_memory::SHOWS_NAMES_SINCE;
use crate::serving::loads::{At, Bind, Contents, Entry, How, Load, Serving, Store};
use crate::sys::safe_read::read_regular;

/// How many files beside ours HAProxy is asked for, and how many lists.
const ASKED_AT_MOST: usize = 1000;

/// What is known of a HAProxy.
pub(super) struct Guess {
    /// What it loads, as far as that is seen.
    pub(super) serving: Serving,
    /// The stores that mustn't be committed, and why: nobody knows how to restore the order of their names.
    pub(super) apart: BTreeMap<String, String>,
}

/// A HAProxy of which nothing is known but what it shows.
pub(super) struct ShownOnly<'a> {
    pub(super) worker: Worker<'a>,
    pub(super) version: Option<(u32, u32)>,
    pub(super) haproxy: &'a Haproxy,
    pub(super) batch: &'a Batch<'a>,
    /// The names of `show ssl cert`.
    pub(super) stores: &'a BTreeSet<String>,
    pub(super) deadline: Instant,
}

impl Guess {
    /// `files`: what is to be notified.
    pub(super) fn of(look: &ShownOnly<'_>, files: &[File<'_>]) -> Self {
        let ShownOnly { haproxy, batch, stores, .. } = look;
        let known = batch.serving;
        let mut serving = Serving { unclear: None, version: known.version.or(look.version), ..known.clone() };
        let ours = look.ours(files);
        let lists = look.lists();
        let mut ordered: BTreeSet<String> = match serving.views() {
            Ok(_) => serving.stores.keys().cloned().collect(),
            Err(_) => BTreeSet::new(),
        };
        let is_by_name = ours.keys().all(|store| !serving.stores.contains_key(store));
        if is_by_name && ordered.len() == serving.stores.len() {
            let directory = directory(haproxy, &ours, &lists);
            ordered.extend(directory.iter().cloned());
            add(&mut serving, haproxy, batch, &ours, directory);
        }
        let mut updates: BTreeMap<String, BTreeSet<Key>> = ours
            .iter()
            .filter(|(store, _)| ordered.contains(*store))
            .map(|(store, (_, leaf))| (store.clone(), keys(leaf)))
            .collect();
        for file in files.iter().filter(|file| stores.contains(file.spelled)) {
            updates.insert(file.spelled.to_owned(), file.leaf.map(keys).unwrap_or_default());
        }
        let shown = look.names(&ours, &lists, ordered, is_by_name);
        Self { serving, apart: shown.apart(&updates) }
    }
}

/// Files of ours that a HAProxy has, by its names for them.
type Ours<'a> = BTreeMap<String, (&'a Target, Arc<Leaf>)>;

/// Its lists.
type Lists = BTreeMap<String, Vec<ListedStore>>;

impl ShownOnly<'_> {
    /// Those of our files that it has, with what they hold now.
    fn ours(&self, files: &[File<'_>]) -> Ours<'_> {
        let leaf = |target: &Target, spelled: &str| {
            let told = files.iter().find(|file| file.spelled == spelled).and_then(|file| file.leaf);
            told.cloned().or_else(|| read_leaf(&(self.batch.read)(target).ok()?).ok())
        };
        let targets = self.batch.ours.keys().map(|target| (target, target.spelled(self.haproxy)));
        let loaded = targets.filter(|(_, spelled)| self.stores.contains(spelled));
        loaded
            .filter_map(|(target, spelled)| {
                let leaf = leaf(target, &spelled)?;
                Some((spelled, (target, Arc::new(leaf))))
            })
            .collect()
    }

    fn lists(&self) -> Lists {
        let names = self.worker.lists(self.deadline).unwrap_or_default();
        let lines = |list: &String| self.worker.list(list, self.deadline).ok().flatten();
        names.into_iter().take(ASKED_AT_MOST).filter_map(|list| Some((list.clone(), lines(&list)?))).collect()
    }

    /// The names of everything that it has.
    fn names(
        &self,
        ours: &Ours<'_>,
        lists: &Lists,
        ordered: BTreeSet<String>,
        is_by_name: bool,
    ) -> NamesShown {
        let mut shown = NamesShown { ordered, is_by_name, ..NamesShown::default() };
        for (store, (_, leaf)) in ours {
            shown.names.insert(store.clone(), keys(leaf));
        }
        if self.version >= Some(SHOWS_NAMES_SINCE)
            && let Ok(order) = self.worker.sni(self.deadline)
        {
            for line in &order {
                let of_store = shown.names.entry(line.store.clone()).or_default();
                of_store.insert((line.name.to_ascii_lowercase(), line.family()));
            }
            shown.order = Some(order);
            return shown;
        }
        let others = self.stores.iter().filter(|store| !ours.contains_key(*store));
        for (asked, store) in others.enumerate() {
            let ask = || self.worker.store(store, self.deadline).ok().flatten();
            let is_asked = asked < ASKED_AT_MOST && is_plain(store) && self.can_be_asked_for(store);
            match is_asked.then(ask).flatten() {
                Some(ShownStore { status: StoreStatus::Used, names, family, .. }) => {
                    let filters = lists.values().flatten().filter(|line| line.store == *store);
                    let filters = filters.flat_map(|line| line.filters.iter().cloned());
                    let names = names.into_iter().chain(filters.filter(|filter| !filter.starts_with('!')));
                    let keys = names.map(|name| (name.to_ascii_lowercase(), family));
                    shown.names.insert(store.clone(), keys.collect());
                }
                Some(_) => {}
                None => drop(shown.unseen.insert(store.clone())),
            }
        }
        shown
    }

    /// Whether it survives to be asked for a certificate, as far as that can be seen from here: one of some hundred names
    /// may end 2.6 and earlier. What lies elsewhere is asked for: a name that it shares with a file of ours is far
    /// likelier than that many names.
    fn can_be_asked_for(&self, store: &str) -> bool {
        let has_many = || {
            let read = read_regular(&CWD, OsStr::new(store)).ok().filter(|_| store.starts_with('/'));
            read.and_then(|(text, _)| read_leaf(&text).ok()).is_some_and(|leaf| !can_be_shown(&leaf))
        };
        !may_die_of_names(self.version) || !has_many()
    }
}

/// Those that it loads from our directory, and from nowhere else as far as its lists say.
fn directory(haproxy: &Haproxy, ours: &Ours<'_>, lists: &Lists) -> BTreeSet<String> {
    let (own, others): (Vec<_>, Vec<_>) = lists.iter().partition(|(list, _)| **list == haproxy.sites_dir);
    let others: BTreeSet<&str> =
        others.iter().flat_map(|(_, lines)| *lines).map(|line| line.store.as_str()).collect();
    let is_alone = |line: &&ListedStore| {
        line.filters.is_empty() && ours.contains_key(&line.store) && !others.contains(line.store.as_str())
    };
    own.iter().flat_map(|(_, lines)| *lines).filter(is_alone).map(|line| line.store.clone()).collect()
}

/// Has them on a bind.
fn add(
    serving: &mut Serving,
    haproxy: &Haproxy,
    batch: &Batch<'_>,
    ours: &Ours<'_>,
    directory: BTreeSet<String>,
) {
    let at = At { file: haproxy.name.as_str().into(), line: 0 };
    for store in &directory {
        let Some((target, leaf)) = ours.get(store) else { continue };
        let store_of = Store {
            path: batch.homes.path(target),
            identity: batch.identity(target),
            contents: Contents::Pair(Arc::clone(leaf)),
            extra: None,
        };
        serving.stores.insert(store.clone(), store_of);
    }
    let entry = |store: String| Entry { store, at: at.clone(), filters: Vec::new() };
    let load = Load {
        how: How::Directory,
        path: haproxy.sites_dir.clone(),
        entries: directory.into_iter().map(entry).collect(),
    };
    serving.binds.push(Bind {
        at: at.clone(),
        section: String::new(),
        addresses: String::new(),
        ssl: true,
        is_disabled: false,
        strict_sni: true,
        accepts_proxy: false,
        loads: vec![load],
    });
}

fn keys(leaf: &Leaf) -> BTreeSet<Key> {
    let family = leaf.key_type.family();
    leaf.served_names().map(|name| (name.to_owned(), family)).collect()
}
