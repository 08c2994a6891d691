//! Whether the user that a HAProxy runs as can read what a run writes. One that starts as root reads everything before it
//! gives that up; one that its unit starts as another user (`User=`) doesn't, and a file that it can't read keeps it from
//! starting. So does a directory that it can't list, or search.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use nix::unistd::{Uid, User as Account};

use crate::config::{Haproxy, Method, Owner, Settings};
use crate::haproxy::process::limited::{limited, look, open_to};
use crate::haproxy::process::on_the_way::way;
use crate::haproxy::process::started::Started;
use crate::haproxy::process::user::User;
use crate::haproxy::process::way_in::Right;
use crate::serving::loads::{How, Loaded, Serving, Store};
use crate::serving::sites::is_in;
use crate::sys::escape::{escaped, escaped_path};
use crate::sys::procfs::same_file;
use crate::sys::system::System;

/// A HAProxy that surely can't read a file of the owner and mode that the settings ask for, or can't come to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shut {
    /// Its name in the settings.
    pub haproxy: String,
    /// What is wrong.
    pub fact: String,
    /// What mends it.
    pub advice: String,
    /// The directory that it can't use, where it is one: it can't start again whatever the files are.
    pub folder: Option<PathBuf>,
    user: User,
    /// Whether it is reloaded for each change.
    is_reloaded: bool,
}

impl Shut {
    /// Whether it can read a file of this owner and these permission bits.
    #[must_use]
    pub fn can_read(&self, owner: Owner, mode: u32) -> bool {
        self.user.may(0o4, owner, mode)
    }

    fn of(haproxy: &Haproxy, user: &User) -> Self {
        Self {
            haproxy: haproxy.name.clone(),
            fact: String::new(),
            advice: String::new(),
            folder: None,
            user: user.clone(),
            is_reloaded: matches!(haproxy.method, Method::Master | Method::Systemd | Method::Pidfile),
        }
    }

    /// Whether it would lose by another file in the place of one of this owner and these permission bits.
    #[must_use]
    pub fn loses(&self, owner: Owner, mode: u32) -> bool {
        if self.folder.is_some() { self.is_reloaded } else { self.can_read(owner, mode) }
    }
}

/// The HAProxys that load what a run writes, and surely can't read it when they start again.
#[must_use]
pub fn shut(settings: &Settings, system: &System, loaded: &Loaded) -> Vec<Shut> {
    let haproxys = settings.haproxys.iter().zip(&loaded.servings);
    let loading = haproxys.filter(|(_, serving)| loads_ours(settings, loaded, serving));
    let found = loading.filter_map(|(haproxy, serving)| {
        let (started, user) = limited(system, haproxy)?;
        let by_files =
            (!user.may(0o4, settings.owner, settings.mode)).then(|| shut_out(settings, haproxy, &user));
        let ours = Ours { settings, loaded, serving };
        let folders = ours.folders(&started).into_iter();
        let by_folders = folders.filter_map(|(path, right)| barred(settings, haproxy, &user, &path, right));
        Some(by_files.into_iter().chain(by_folders).collect::<Vec<_>>())
    });
    found.flatten().collect()
}

fn loads_ours(settings: &Settings, loaded: &Loaded, serving: &Serving) -> bool {
    let ours = Ours { settings, loaded, serving };
    loaded.sites.is_some_and(|sites| serving.loads_directory(sites))
        || serving.stores.values().any(|store| ours.is_ours(store))
}

/// What a HAProxy loads of what a run writes.
struct Ours<'a> {
    settings: &'a Settings,
    loaded: &'a Loaded,
    serving: &'a Serving,
}

impl Ours<'_> {
    fn is_host(&self, store: &Store) -> bool {
        self.loaded.host.is_some() && store.identity == self.loaded.host
    }

    fn is_ours(&self, store: &Store) -> bool {
        is_in(&self.settings.sites_dir, self.loaded.sites, store) || self.is_host(store)
    }

    /// The directories that it can't do without, and what it does with them.
    fn folders(&self, started: &Started) -> BTreeMap<PathBuf, Right> {
        let binds = self.serving.binds.iter();
        let loads = binds.flat_map(|bind| &bind.loads).filter(|load| load.how == How::Directory);
        let is_sites = |path: &str| {
            let found = self.serving.directories.get(path).copied().flatten();
            found.is_some() && found == self.loaded.sites
        };
        let listed = loads.map(|load| load.path.as_str()).filter(|path| is_sites(path));
        let mut spelled: BTreeMap<&str, (Right, &Path)> = BTreeMap::new();
        let host = self.settings.host_file.parent().unwrap_or(Path::new("/"));
        for (name, store) in self.serving.stores.iter().filter(|(_, store)| self.is_ours(store)) {
            let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
            let ours = if self.is_host(store) { host } else { self.settings.sites_dir.as_path() };
            spelled.insert(
                if name.starts_with('/') && folder.is_empty() { "/" } else { folder },
                (Right::Search, ours),
            );
        }
        spelled.extend(listed.map(|path| (path, (Right::List, self.settings.sites_dir.as_path()))));
        let root = started.root.as_deref().unwrap_or(Path::new("/"));
        let mut all = BTreeMap::new();
        for (path, (right, ours)) in spelled {
            let way = way(root, &started.folder, Path::new(path));
            // What a relative path begins at may be another directory than the one it was started in.
            let way = way.filter(|way| same_file(&way.end, ours));
            // As we reach it, where that is another way than by its process.
            let as_ours = |path: &Path| {
                let inside = Path::new("/").join(path.strip_prefix(root).ok()?);
                same_file(&inside, path).then_some(inside)
            };
            let (searched, end) = way.map_or_else(Default::default, |way| (way.searched, as_ours(&way.end)));
            let searched = searched.into_iter().map(|path| (as_ours(&path).unwrap_or(path), Right::Search));
            for (path, right) in searched.chain([(end.unwrap_or_else(|| ours.to_owned()), right)]) {
                let most = all.entry(path).or_insert(right);
                *most = right.max(*most);
            }
        }
        all
    }
}

/// That this user can't do so with a directory, where that is so.
fn barred(settings: &Settings, haproxy: &Haproxy, user: &User, path: &Path, right: Right) -> Option<Shut> {
    let folder = look(path).filter(|folder| !folder.admits(user, right))?;
    let deed = match right {
        Right::Search => "search",
        Right::List => "list",
    };
    let fact = format!(
        "{} runs as user {}, and can't {deed} the directory {}: like that it can't reload or start again",
        escaped(&haproxy.name),
        named(user.uid),
        escaped_path(path)
    );
    let advice = format!("run: {}", open_to(path, folder, user, right, settings).1.join(" && "));
    Some(Shut { fact, advice, folder: Some(path.to_owned()), ..Shut::of(haproxy, user) })
}

fn named(uid: u32) -> String {
    let account = Account::from_uid(Uid::from_raw(uid)).ok().flatten();
    account.map_or_else(|| uid.to_string(), |account| escaped(&account.name).to_string())
}

fn shut_out(settings: &Settings, haproxy: &Haproxy, user: &User) -> Shut {
    let (name, owner) = (escaped(&haproxy.name), settings.owner.uid);
    let its = named(user.uid);
    let fact = format!(
        "{name} runs as user {its}, and can't read files of owner {} and mode {:04o}: with those it can't reload or start \
         again",
        named(owner),
        settings.mode
    );
    let place = settings
        .file
        .as_deref()
        .map_or_else(|| "the settings".to_owned(), |file: &Path| escaped_path(file).to_string());
    let advice = if user.uid == owner {
        format!("set mode = \"0400\" in {place}; then run: haproxy-certs assemble")
    } else {
        format!(
            "set owner = \"{its}\" (or a group of {its} and mode = \"0440\") in {place}; then run: haproxy-certs assemble"
        )
    };
    Shut { fact, advice, ..Shut::of(haproxy, user) }
}
