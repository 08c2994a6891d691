//! Files of a directory that lines name one by one, in a crt-list or by `crt`: what a new one needs; and certificates that no
//! client is presented. Pure.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use super::crt_list;
use super::loads::{At, Entry, How, Identity, Loaded, Serving, base_name};
use crate::config::Settings;
use crate::sys::escape::{escaped, escaped_path, haproxy_word, shell_word};

/// A file of the directory that a line names by itself, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// The line.
    pub at: At,
    /// The path as it stands there, `crt-base` before it where that belongs.
    pub path: String,
    /// What kind of line it is.
    pub how: How,
    /// Its name in a `crt-store`, `@STORE/NAME`, where the line is one of these.
    pub store: Option<String>,
    /// The section of the bind that loads it.
    pub section: String,
    /// That bind line.
    pub bind: At,
    /// What stands before the relative names of a crt-list.
    pub base: Option<String>,
}

/// The first file of this directory that a line names by itself; `None`: there is none, or a bind loads the whole
/// directory.
#[must_use]
pub fn example(serving: &Serving, sites: Option<Identity>, directory: &str) -> Option<Example> {
    if sites.is_some_and(|sites| serving.loads_directory(sites)) {
        return None;
    }
    let is_in = |path: &str| is_in(sites, directory, path, &[serving]);
    let binds = serving.binds.iter().filter(|bind| bind.ssl);
    let mut all = binds.flat_map(|bind| bind.loads.iter().map(move |load| (bind, load)));
    all.find_map(|(bind, load)| {
        // Those of a `crt-store` have a name, and their files are elsewhere.
        let path = |entry: &Entry| match serving.stores.get(&entry.store) {
            Some(store) if entry.store.starts_with('@') => store.path.to_string_lossy().into_owned(),
            _ => entry.store.clone(),
        };
        let entry = load.entries.iter().find(|entry| is_in(&path(entry)))?;
        let path = path(entry);
        let named = serving.named.iter().find(|named| named.path == path);
        let store = entry.store.starts_with('@').then(|| entry.store.clone());
        let is_elsewhere = load.how == How::Used || store.is_some();
        let at = named.filter(|_| is_elsewhere).map_or(&entry.at, |named| &named.at);
        let (section, bind, base) = (bind.section.clone(), bind.at.clone(), serving.crt_base.clone());
        Some(Example { at: at.clone(), path, how: load.how, store, section, bind, base })
    })
}

/// The files of the directory that are no certificates to HAProxy: no line loads the whole directory, and none this file as a
/// certificate, whatever else it may be named for. Where other lines may load it, that is what is named for something else.
pub fn passed_over<'a>(settings: &Settings, loaded: &'a Loaded) -> impl Fn(&OsStr) -> bool + use<'a> {
    let directory = settings.haproxys.first().map_or("", |haproxy| haproxy.sites_dir.as_str());
    let servings = || loaded.servings.iter();
    let loads = |serving: &Serving| {
        let mut all = serving.binds.iter().flat_map(|bind| &bind.loads);
        all.any(|load| load.how == How::Directory && serving.is_spelled(load, directory, loaded.sites))
    };
    let is_loaded = servings().any(loads);
    let by_lines = servings().all(|serving| serving.unclear.is_none())
        && servings().any(|serving| example(serving, loaded.sites, directory).is_some());
    move |file| {
        !is_loaded && !loaded.certificates.contains(file) && (by_lines || loaded.named.contains_key(file))
    }
}

/// Why no client is presented a file of the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unreached {
    /// The files are named one by one, and this one isn't: an example of those that are.
    Unlisted(Example),
    /// It is the host certificate, and no line names it: a bind line that could, and the word for it there.
    Host {
        /// That line.
        bind: At,
        /// The host certificate as it can be named there.
        word: String,
    },
    /// It has only addresses, and no bind has it first.
    Addresses,
    /// This line's filters leave it none of its names.
    Filters(At),
    /// HAProxy passes over it for this file, which begins a bundle.
    Bundle(PathBuf),
}

impl Unreached {
    /// Whether that is because no line leads to it.
    #[must_use]
    pub fn is_unnamed(&self) -> bool {
        matches!(self, Self::Unlisted(_) | Self::Host { .. } | Self::Bundle(_))
    }

    /// The fact, as the end of a sentence about the file.
    #[must_use]
    pub fn fact(&self) -> String {
        match self {
            Self::Unlisted(example) => {
                format!("HAProxy's configuration names files one by one ({}), and not this one", example.at)
            }
            Self::Host { .. } => {
                "host_lineage is set, and no line of HAProxy's configuration names its file".to_owned()
            }
            Self::Addresses => {
                "clients send no server name for an address, and no bind has it first".to_owned()
            }
            Self::Filters(at) => {
                format!("the filters of {at} leave it none of its names, and no other client gets it")
            }
            Self::Bundle(first) => format!(
                "HAProxy takes {} for the first file of a bundle, and passes over all that begins with the bundle's name",
                escaped_path(first)
            ),
        }
    }

    /// What mends it for this file, but for the reload.
    #[must_use]
    pub fn advice(&self, file: &OsStr) -> String {
        match self {
            Self::Unlisted(example) => example.advice(file),
            Self::Host { bind, word } => {
                format!(
                    "add \"crt {word}\" to the bind line {bind}, before what it loads, or take host_lineage out of the settings"
                )
            }
            Self::Addresses => {
                "set host_lineage to its lineage, or begin a bind line with this file".to_owned()
            }
            Self::Filters(at) => {
                format!("take its filters out of {at}, or put one of its names there, then reload HAProxy")
            }
            Self::Bundle(first) => {
                let mut named = first.clone().into_os_string();
                named.push(".pem");
                let (first, named) = (shell_word(first.as_os_str()), shell_word(&named));
                format!("give that another name: mv -n -- {first} {named}")
            }
        }
    }
}

/// What the HAProxys' lines say of every file of the sites directory: looked up once for all of them.
#[derive(Debug)]
pub struct LineLookup<'a> {
    loaded: &'a Loaded,
    /// A file that is named by itself, where all of them name files one by one.
    example: Option<Example>,
    /// A bind line that could load the host certificate, where none does, and the word for it.
    host: Option<(At, String)>,
    /// The files that are presented to whoever names no site; `None`: what they load isn't surely known.
    first: Option<BTreeSet<&'a str>>,
    /// The files that are named with filters only, and such a line of each.
    filtered: BTreeMap<&'a str, &'a At>,
}

impl<'a> LineLookup<'a> {
    /// `directory`: the sites directory as the first HAProxy spells it; `hosts`: the host certificate as each does.
    #[must_use]
    pub fn of(loaded: &'a Loaded, directory: &str, hosts: &[&str]) -> Self {
        let servings: Vec<&Serving> =
            loaded.servings.iter().filter(|serving| serving.unclear.is_none()).collect();
        if servings.is_empty() || servings.len() < loaded.servings.len() {
            return Self { loaded, example: None, host: None, first: None, filtered: BTreeMap::new() };
        }
        let examples = servings.iter().map(|serving| example(serving, loaded.sites, directory));
        let example = examples.collect::<Option<Vec<_>>>().and_then(|all| all.into_iter().next());
        let binds = servings.iter().flat_map(|serving| &serving.binds);
        let firsts = binds.filter(|bind| bind.ssl && !bind.strict_sni).flat_map(|bind| {
            let first = bind.loads.iter().find_map(|load| load.entries.first());
            let defaults = bind.loads.iter().filter(|load| load.how == How::Default);
            first.into_iter().chain(defaults.flat_map(|load| &load.entries))
        });
        let firsts = firsts.map(|entry| entry.store.as_str());
        let is_in = |store: &str| is_in(loaded.sites, directory, store, &servings);
        let first = firsts.filter(|store| is_in(store)).map(base_name).collect();
        let host = host_line(loaded, &servings, hosts);
        Self { loaded, example, host, first: Some(first), filtered: filtered(&servings, is_in) }
    }

    /// Why nobody is presented the host certificate by any of these HAProxys; `None`: a line names it, or that isn't surely known.
    #[must_use]
    pub fn host_unreached(&self) -> Option<Unreached> {
        self.host.clone().map(|(bind, word)| Unreached::Host { bind, word })
    }

    /// The file that begins a bundle for which a HAProxy passes over this one, which no line names.
    #[must_use]
    pub fn bundle_before(&self, file: &OsStr) -> Option<&OsStr> {
        self.loaded.passed_over_for(file).filter(|_| !self.loaded.named.contains_key(file))
    }

    /// Why nobody is presented this file by any of these HAProxys; `None`: somebody may be. `has_names`: whether it has a
    /// name that a client can ask for; `serves_nobody`: whether it wins none of these.
    #[must_use]
    pub fn unreached(&self, file: &OsStr, has_names: bool, serves_nobody: bool) -> Option<Unreached> {
        if let Some(example) = self.example.as_ref().filter(|_| !self.loaded.certificates.contains(file)) {
            return Some(Unreached::Unlisted(example.clone()));
        }
        if let Some(at) = file.to_str().and_then(|file| self.filtered.get(file)).filter(|_| serves_nobody) {
            return Some(Unreached::Filters((*at).clone()));
        }
        let first = self.first.as_ref().filter(|_| !has_names)?;
        let is_first = file.to_str().is_some_and(|file| first.contains(file));
        (!is_first).then_some(Unreached::Addresses)
    }
}

/// The files that lines name with filters only, and such a line of each.
fn filtered<'a>(servings: &[&'a Serving], is_in: impl Fn(&str) -> bool) -> BTreeMap<&'a str, &'a At> {
    let entries = || {
        let binds = servings.iter().flat_map(|serving| &serving.binds).filter(|bind| bind.ssl);
        binds.flat_map(|bind| &bind.loads).flat_map(|load| &load.entries)
    };
    let with_filters = entries().filter(|entry| !entry.filters.is_empty() && is_in(&entry.store));
    let mut filtered: BTreeMap<&str, &At> =
        with_filters.map(|entry| (base_name(&entry.store), &entry.at)).collect();
    if !filtered.is_empty() {
        for entry in entries().filter(|entry| entry.filters.is_empty()) {
            filtered.remove(base_name(&entry.store));
        }
    }
    filtered
}

/// A bind line that could load the host certificate, where no line does, and the word for it.
fn host_line(loaded: &Loaded, servings: &[&Serving], hosts: &[&str]) -> Option<(At, String)> {
    let all = || servings.iter().zip(hosts);
    if all().any(|(serving, host)| serving.names_host(loaded.host, host)) {
        return None;
    }
    let lines = all().flat_map(|(serving, host)| serving.binds.iter().map(move |bind| (bind, host)));
    let (bind, host) = { lines }.find(|(bind, _)| bind.ssl)?;
    Some((bind.at.clone(), haproxy_word(host)))
}

/// Whether a store is a file of the directory, whatever its spelling.
fn is_in(sites: Option<Identity>, directory: &str, store: &str, servings: &[&Serving]) -> bool {
    let folder = store.strip_suffix(base_name(store)).unwrap_or_default().trim_end_matches('/');
    let is_spelling = |serving: &&Serving| {
        sites.is_some() && serving.directories.get(folder).is_some_and(|identity| *identity == sites)
    };
    let is_named = |serving: &&Serving| {
        serving
            .named
            .iter()
            .any(|named| named.path == store && named.folder.is_some() && named.folder == sites)
    };
    folder == directory || servings.iter().any(|serving| is_spelling(serving) || is_named(serving))
}

impl Example {
    /// What brings this file to HAProxy: a command, or the exact words to add.
    #[must_use]
    pub fn advice(&self, file: &OsStr) -> String {
        let folder = self.path.strip_suffix(base_name(&self.path)).unwrap_or_default();
        let path = format!("{folder}{}", file.to_string_lossy());
        let word = haproxy_word(&path);
        let section = escaped(&self.section);
        if let Some((store, _)) = self.store.as_ref().and_then(|store| store.split_once('/')) {
            let (store, alias) = (haproxy_word(store), haproxy_word(file.as_bytes()));
            return format!(
                "add \"load crt {word} alias {alias}\" behind {}, and \"{store}/{alias}\" where {section} has the others",
                self.at,
            );
        }
        match self.how {
            How::List => match self.listed(&path) {
                Some(line) => {
                    let (line, list) = (shell_word(OsStr::new(line)), shell_word(OsStr::new(&*self.at.file)));
                    format!("add its line: printf '\\n%s\\n' {line} >> {list}")
                }
                // Such a list has no quotes.
                None => format!("add \"crt {word}\" to the bind line {}: no crt-list can name it", self.bind),
            },
            How::Used => format!("add \"ssl-f-use crt {word}\" to {section}"),
            How::File | How::Default | How::Directory => {
                format!("add \"crt {word}\" to the bind line {}", self.at)
            }
        }
    }

    /// A path as a crt-list can name it, from `crt-base` where it must; `None`: it can't.
    fn listed<'a>(&self, path: &'a str) -> Option<&'a str> {
        let below = || path.strip_prefix(self.base.as_deref()?)?.strip_prefix('/');
        let below = || below().filter(|path| !path.starts_with(['/', '@']));
        let mut spellings = [Some(path), below()].into_iter().flatten();
        spellings.find(|path| crt_list::can_be_named(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serving::loads::{Bind, Load, Named};

    /// A HAProxy with a crt-list that names `/s/a.pem`.
    fn with_a_list() -> Serving {
        let at = At { file: "/l".into(), line: 1 };
        let here = Identity { device: 1, inode: 2 };
        let named = Named {
            path: "/s/a.pem".into(),
            folder: Some(here),
            identity: None,
            at: at.clone(),
            is_certificate: true,
        };
        let entry = Entry { store: "/s/a.pem".into(), at: at.clone(), filters: Vec::new() };
        let load = Load { how: How::List, path: "/l".into(), entries: vec![entry] };
        let (section, addresses, loads) = ("frontend f".into(), ":443".into(), vec![load]);
        let bind = Bind {
            at,
            section,
            addresses,
            ssl: true,
            is_disabled: false,
            strict_sni: false,
            accepts_proxy: false,
            loads,
        };
        Serving { binds: vec![bind], named: vec![named], ..Serving::default() }
    }

    /// The lines are looked at once, and say of each file what they would say of it alone.
    #[test]
    fn every_file_is_judged_by_the_same_lines() {
        let sites = Some(Identity { device: 1, inode: 2 });
        let certificates = BTreeSet::from(["a.pem".into()]);
        let servings = vec![with_a_list(), with_a_list()];
        let both = Loaded { servings, sites, certificates, ..Loaded::default() };
        let lines = LineLookup::of(&both, "/s", &["/host.pem"; 2]);
        assert_eq!(lines.unreached("a.pem".as_ref(), true, false), None);
        // It has only addresses, and is the first one.
        assert_eq!(lines.unreached("a.pem".as_ref(), false, false), None);
        for file in ["b.pem", "c.pem"] {
            let why = lines.unreached(file.as_ref(), true, false).unwrap();
            assert_eq!(why.advice(file.as_ref()), format!("add its line: printf '\\n%s\\n' /s/{file} >> /l"));
        }
        // One that loads whatever is there, or nobody knows what.
        let whole = Serving { directories: BTreeMap::from([("/s".into(), sites)]), ..Serving::default() };
        let unknown = Serving { unclear: Some("?".into()), ..with_a_list() };
        for other in [whole, unknown] {
            let loaded = Loaded { servings: vec![with_a_list(), other], ..both.clone() };
            assert_eq!(
                LineLookup::of(&loaded, "/s", &["/host.pem"; 2]).unreached("b.pem".as_ref(), true, false),
                None
            );
        }
    }
}
