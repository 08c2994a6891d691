//! The sites directory among what HAProxy loads.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::contents::{KeyFile, identity, judge, nowhere};
use super::disk::Disk;
use super::loads::{At, BUNDLE, Bind, Contents, Identity, Loaded, Serving, Store, is_loaded};
use super::spared::SeenFiles;
use crate::config::{Haproxy, Settings};
use crate::sys::parallel;

/// The files of a directory that a line names by itself, under whatever spelling, and which of them as certificates.
pub(super) fn named_in(
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
pub(super) fn with_parts(directory: &Path, files: impl Iterator<Item = OsString>) -> BTreeSet<OsString> {
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
