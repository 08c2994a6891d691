//! Files that HAProxy reads at a start and that aren't ours: certificates, and what else its lines name: crt-lists, authorities,
//! revocation lists, maps, pages of errors. Whether it would take one is known from itself alone: its version, its OpenSSL and the
//! security level decide of a short key, a weak signature, an uncommon curve (measured, 2.2 to 3.4).

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::certified_key::{hex, sha256};
use crate::config::{Haproxy, Settings};
use crate::haproxy::alerts;
use crate::haproxy::target::Target;
use crate::plan::action::Action;
use crate::plan::row::{Role, Row};
use crate::serving::beside::SIBLINGS;
use crate::serving::contents::identity;
use crate::serving::loads::{Contents, Loaded, Serving, Store};
use crate::serving::one_by_one::passed_over;
use crate::serving::sites::is_in;

/// The files that HAProxys read at a start and that aren't ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Strangers {
    certificates: BTreeSet<PathBuf>,
    /// What else may be read then, also where there is nothing.
    read: BTreeSet<PathBuf>,
}

impl Strangers {
    /// Those among these rows of the sites directory, and those from elsewhere.
    #[must_use]
    pub fn of<'a>(settings: &Settings, loaded: &Loaded, rows: impl Iterator<Item = &'a Row>) -> Self {
        let is_passed_over = passed_over(settings, loaded);
        let rows: Vec<&Row> = rows.collect();
        let is_foreign = |row: &Row| matches!(row.action, Action::Foreign | Action::Conflict);
        let of_ours = rows.iter().filter(|row| row.role == Role::Site && !is_foreign(row));
        let ours: BTreeSet<&OsStr> = of_ours.filter_map(|row| row.file.as_deref()).collect();
        let stores = || loaded.servings.iter().flat_map(|serving| serving.stores.values());
        // What is known to be no good is said by itself.
        let is_bad = |store: &&Store| matches!(store.contents, Contents::Unloadable { .. });
        let bad: BTreeSet<&Path> = stores().filter(is_bad).map(|store| store.path.as_path()).collect();
        let of_row = |row: &Row| {
            let file = row.file.as_ref()?;
            let is_loaded = row.role == Role::Host || !is_passed_over(file);
            (is_foreign(row) && is_loaded).then(|| settings.sites_dir.join(file))
        };
        let is_ours = |store: &Store| {
            settings.host_lineage.is_some() && loaded.host.is_some() && store.identity == loaded.host
                || is_in(&settings.sites_dir, loaded.sites, store)
        };
        let elsewhere = stores().filter(|store| !is_ours(store)).map(|store| store.path.clone());
        // It doesn't start without one, or with one that it can't read (measured, 2.2 to 3.4).
        let is_ours_there = |path: &&PathBuf| {
            let folder = path.parent().and_then(identity);
            let is_there = loaded.sites.is_some() && folder == loaded.sites;
            let is_host =
                || settings.host_lineage.is_some() && loaded.host.is_some() && identity(path) == loaded.host;
            is_there && path.file_name().is_some_and(|file| ours.contains(file)) || is_host()
        };
        let read = loaded.servings.iter().flat_map(|serving| &serving.read_at_start);
        let read: BTreeSet<PathBuf> = read.filter(|path| !is_ours_there(path)).cloned().collect();
        let files = rows.iter().copied().filter_map(of_row).chain(elsewhere);
        let certificates = files.filter(|path| !bad.contains(path.as_path())).collect();
        Self { certificates, read }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.certificates.is_empty() && self.read.is_empty()
    }

    /// What tells whether they, what is beside them, and the HAProxys of these `fingerprints` are still the same.
    #[must_use]
    pub fn mark(&self, fingerprints: &str) -> String {
        let mut facts = format!("{fingerprints}\n");
        for file in &self.certificates {
            describe(file, &mut facts);
            for ending in SIBLINGS {
                let mut beside: OsString = file.clone().into_os_string();
                beside.push(".");
                beside.push(ending);
                describe(Path::new(&beside), &mut facts);
            }
        }
        for path in &self.read {
            if path.is_file() {
                describe(path, &mut facts);
            } else if path.is_dir() {
                // What is in it may change all the time.
                let _ = writeln!(facts, "{} is a directory", path.display());
            }
        }
        hex(&sha256(facts.as_bytes()))
    }
}

fn describe(file: &Path, facts: &mut String) {
    let Ok(meta) = fs::metadata(file) else { return };
    let id = (meta.dev(), meta.ino(), meta.size(), meta.ctime(), meta.ctime_nsec());
    // Writing to a String never fails.
    let _ = writeln!(facts, "{} {id:?}", file.display());
}

/// A file that HAProxy says it can't load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Culprit {
    /// Where it is; in the sites directory by our name for that.
    pub path: PathBuf,
    /// HAProxy's words, without the place in its configuration.
    pub why: String,
}

/// The first file of those that it loads, or that are in the sites directory, that a HAProxy's words name.
///
/// Only the first: 2.2 leaves OpenSSL's complaint about one file for the next one, which may be good.
#[must_use]
pub fn culprit<'a>(
    settings: &Settings,
    haproxy: &Haproxy,
    (loaded, serving): (&Loaded, Option<&Serving>),
    rows: impl Iterator<Item = &'a Row>,
    log: &str,
) -> Option<Culprit> {
    let of_row = |row: &Row| {
        let file = row.file.as_ref()?;
        let target = match row.role {
            Role::Site => Target::Site(file.to_str()?.to_owned()),
            Role::Host => Target::Host,
        };
        Some((target.spelled(haproxy), settings.sites_dir.join(file)))
    };
    let place = |store: &Store| match store.path.file_name() {
        Some(file) if is_in(&settings.sites_dir, loaded.sites, store) => settings.sites_dir.join(file),
        _ if loaded.host.is_some() && store.identity == loaded.host => settings.host_file.clone(),
        _ => store.path.clone(),
    };
    let stores = serving.iter().flat_map(|serving| &serving.stores);
    let (names, places): (Vec<String>, Vec<PathBuf>) =
        stores.map(|(name, store)| (name.clone(), place(store))).chain(rows.filter_map(of_row)).unzip();
    let alerts::NamedFile { index, ending, said } = alerts::first_named(log, &names)?;
    let mut path = places.get(index)?.clone().into_os_string();
    if let Some(ending) = ending {
        path.push(".");
        path.push(ending);
    }
    Some(Culprit { path: path.into(), why: said })
}
