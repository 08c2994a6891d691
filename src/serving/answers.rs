//! Who would be served, as far as a HAProxy's bind lines say.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use crate::certified_key::Leaf;
use crate::serving::loads::{
    At, BUNDLE, Bind, Contents, Entry, How, Identity, Load, Named, Serving, Store, base_name, bundle_of,
    in_bundle,
};
use crate::serving::view::{View, Views};

/// Why it isn't surely known who would be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unsure<'a> {
    /// What it loads isn't, see [`Serving::unclear`].
    #[error("{0}")]
    Unclear(&'a str),
    /// What is in one of its files isn't, see [`Contents::Unseen`].
    #[error("{0}")]
    Unseen(&'a str),
}

impl Serving {
    /// Nothing is known, for this reason.
    #[must_use]
    pub fn unknown(why: impl Into<String>) -> Self {
        Self { unclear: Some(why.into()), ..Self::default() }
    }

    /// Whether a certificate of this store is on a bind.
    #[must_use]
    pub fn is_loaded(&self, store: &str) -> bool {
        self.binds.iter().flat_map(Bind::entries).any(|entry| entry.store == store)
    }

    /// The stores that are this same file, whatever their spelling: by device and inode where both are known, else by
    /// their base name.
    pub fn stores_of(&self, identity: Option<Identity>, base: &str) -> impl Iterator<Item = &str> {
        self.stores.iter().filter_map(move |(name, store)| {
            let same = match (store.identity, identity) {
                (Some(one), Some(other)) => one == other,
                _ => base_name(name) == base,
            };
            same.then_some(name.as_str())
        })
    }

    /// The line that names this file of a directory by itself.
    #[must_use]
    pub fn names(
        &self,
        folder: Option<Identity>,
        file: &OsStr,
        identity: Option<Identity>,
    ) -> Option<&Named> {
        self.named.iter().find(|named| {
            let in_place = named.base().as_bytes() == file.as_bytes()
                && match (named.folder, folder) {
                    (Some(one), Some(other)) => one == other,
                    _ => true,
                };
            in_place || (identity.is_some() && named.identity == identity)
        })
    }

    /// The stores that HAProxy can't load, and why.
    pub fn unloadable(&self) -> impl Iterator<Item = (&str, &Store, &str)> {
        self.stores.iter().filter_map(|(name, store)| match &store.contents {
            Contents::Unloadable { why, .. } => Some((name.as_str(), store, why.as_str())),
            Contents::Pair(_) | Contents::Unserved { .. } | Contents::Unseen(_) => None,
        })
    }

    /// Whether a bind loads this directory, whatever its spelling.
    #[must_use]
    pub fn loads_directory(&self, identity: Identity) -> bool {
        let loads = self.binds.iter().flat_map(|bind| &bind.loads);
        loads.filter(|load| load.how == How::Directory).any(|load| self.is_directory(load, identity))
    }

    /// A bind line that loads such a store, where it is surely known that all of these lack `ssl` or are disabled: HAProxy loads
    /// the certificates there, and the port speaks no TLS (measured, 2.2 to 3.4).
    #[must_use]
    pub fn only_without_tls(&self, is_ours: &dyn Fn(&Store) -> bool) -> Option<&Bind> {
        let has_ours =
            |bind: &&Bind| bind.entries().any(|entry| self.stores.get(&entry.store).is_some_and(is_ours));
        let mut binds = self.binds.iter().filter(has_ours).peekable();
        let first = binds.peek().copied().filter(|_| self.unclear.is_none())?;
        (!binds.any(Bind::serves)).then_some(first)
    }

    /// Whether this is the directory that a word of a bind line names.
    #[must_use]
    pub fn is_directory(&self, load: &Load, identity: Identity) -> bool {
        load.how == How::Directory && self.directories.get(&load.path).is_some_and(|it| *it == Some(identity))
    }

    /// Whether a word of a bind line names the directory that is spelled so, or is this one under another spelling: also
    /// where it isn't there yet.
    #[must_use]
    pub fn is_spelled(&self, load: &Load, directory: &str, identity: Option<Identity>) -> bool {
        load.path.trim_end_matches('/') == directory
            || identity.is_some_and(|identity| self.is_directory(load, identity))
    }

    /// The bind line without which this HAProxy would start with an empty directory.
    #[must_use]
    pub fn starts_only_with(&self, directory: &str, identity: Option<Identity>) -> Option<&At> {
        let is_it = |load| self.is_spelled(load, directory, identity);
        let mut binds = self.binds.iter().filter(|bind| bind.ssl && !bind.strict_sni);
        let bind = binds.find(|bind| !bind.loads.is_empty() && bind.loads.iter().all(is_it))?;
        Some(&bind.at)
    }

    /// The same with other files in this directory, in the order that HAProxy loads them: what is there after a plan.
    #[must_use]
    pub fn with_directory(&self, identity: Identity, files: &[(String, Arc<Leaf>)]) -> Self {
        let mut changed = self.clone();
        let in_directory = self.named.iter().filter(|named| named.folder == Some(identity));
        for named in in_directory {
            let leaf = files.iter().find(|(file, _)| file == named.base()).map(|(_, leaf)| leaf);
            let Some(leaf) = leaf else { continue };
            let is_it = |name: &str, store: &Store| {
                name == named.path
                    || (name.starts_with('@') && named.identity.is_some() && store.identity == named.identity)
            };
            for (_, store) in changed.stores.iter_mut().filter(|(name, store)| is_it(name, store)) {
                store.contents = Contents::Pair(Arc::clone(leaf));
            }
        }
        let spellings: Vec<String> = self
            .directories
            .iter()
            .filter(|(_, it)| **it == Some(identity))
            .map(|(path, _)| path.clone())
            .collect();
        // The names that a `crt-store` gives to files.
        let aliases: Vec<String> = self.stores.keys().filter(|name| name.starts_with('@')).cloned().collect();
        for path in spellings {
            let store_of = |file: &str| format!("{path}/{file}");
            let firsts = self.bundles.get(&path).map(Vec::as_slice).unwrap_or_default();
            let is_loaded = |file: &str| {
                let file = OsStr::new(file);
                in_bundle(file, firsts).is_none_or(|first| bundle_of(file) == bundle_of(first))
            };
            let files = || files.iter().filter(|(file, _)| is_loaded(file));
            for load in changed.binds.iter_mut().flat_map(|bind| &mut bind.loads) {
                if load.how != How::Directory || load.path != path {
                    continue;
                }
                let Some(at) =
                    load.entries.first().map(|entry| entry.at.clone()).or_else(|| load_at(self, &path))
                else {
                    continue;
                };
                load.entries = files()
                    .map(|(file, _)| Entry { store: store_of(file), at: at.clone(), filters: Vec::new() })
                    .collect();
            }
            for (file, leaf) in files() {
                let name = store_of(file);
                let known = self.stores.get(&name);
                for alias in &aliases {
                    let store = changed.stores.get_mut(alias);
                    let is_it = |store: &&mut Store| known.is_some_and(|known| known.path == store.path);
                    if let Some(store) = store.filter(is_it) {
                        store.contents = Contents::Pair(Arc::clone(leaf));
                    }
                }
                let contents = Contents::Pair(Arc::clone(leaf));
                let store = changed.stores.entry(name).or_insert_with(|| Store {
                    path: PathBuf::new(),
                    identity: None,
                    contents: contents.clone(),
                    extra: None,
                });
                (store.contents, store.extra) = (contents, None);
            }
        }
        for named in self.named.iter().filter(|named| named.folder == Some(identity)) {
            changed.follow_again(named, files);
        }
        changed
    }

    /// What a line leads to that names a path of a directory with these files: the file, else its bundle.
    fn follow_again(&mut self, named: &Named, files: &[(String, Arc<Leaf>)]) {
        let parts = BUNDLE.map(|ending| format!("{}.{ending}", named.path));
        let leaf = |store: &str| {
            let found = files.iter().find(|(file, _)| file == base_name(store));
            found.map(|(_, leaf)| (store.to_owned(), Arc::clone(leaf)))
        };
        let now: Vec<(String, Arc<Leaf>)> = match leaf(&named.path) {
            Some(whole) => vec![whole],
            None => parts.iter().filter_map(|part| leaf(part)).collect(),
        };
        // Who names a part by itself means that.
        let of_bundle: Vec<&String> =
            parts.iter().filter(|part| self.named.iter().all(|named| named.path != **part)).collect();
        let mut is_changed = false;
        for load in self.binds.iter_mut().flat_map(|bind| &mut bind.loads) {
            let is_line = match load.how {
                How::Directory => false,
                How::List => true,
                How::File | How::Default | How::Used => load.path == named.path,
            };
            let is_it = |entry: &Entry| entry.store == named.path || of_bundle.contains(&&entry.store);
            let before = load.entries.iter().filter(|entry| is_it(entry)).map(|entry| &entry.store);
            if !is_line || now.is_empty() || before.eq(now.iter().map(|(store, _)| store)) {
                continue;
            }
            let mut entries: Vec<Entry> = Vec::with_capacity(load.entries.len());
            for entry in std::mem::take(&mut load.entries) {
                if !is_it(&entry) {
                    entries.push(entry);
                } else if entries.last().is_none_or(|last| last.at != entry.at || !is_it(last)) {
                    entries
                        .extend(now.iter().map(|(store, _)| Entry { store: store.clone(), ..entry.clone() }));
                }
            }
            load.entries = entries;
            is_changed = true;
        }
        for (store, leaf) in now.into_iter().filter(|_| is_changed) {
            let unseen =
                Store { path: PathBuf::new(), identity: None, contents: Contents::Pair(leaf), extra: None };
            self.stores.entry(store).or_insert(unseen);
        }
    }

    /// How a bind answers.
    #[must_use]
    pub fn view<'a>(&'a self, bind: &'a Bind) -> View<'a> {
        View::of(self, bind)
    }

    /// Every bind, looked at once: for many questions, see [`Views::rivals`].
    ///
    /// # Errors
    /// What HAProxy loads isn't surely known: why. Then only a reload brings what a fresh start would serve.
    pub fn views(&self) -> Result<Views<'_>, Unsure<'_>> {
        self.unsure().map_or_else(|| Ok(Views::of(self)), Err)
    }

    /// Why it isn't surely known what HAProxy loads; `None`: it is.
    #[must_use]
    pub fn unsure(&self) -> Option<Unsure<'_>> {
        if let Some(why) = &self.unclear {
            return Some(Unsure::Unclear(why));
        }
        self.stores.values().find_map(|store| match &store.contents {
            Contents::Unseen(why) => Some(Unsure::Unseen(why)),
            Contents::Pair(_) | Contents::Unloadable { .. } | Contents::Unserved { .. } => None,
        })
    }
}

/// The bind line that names this directory.
fn load_at(serving: &Serving, path: &str) -> Option<At> {
    let names = |bind: &&Bind| bind.loads.iter().any(|load| load.path == path);
    serving.binds.iter().find(names).map(|bind| bind.at.clone())
}
