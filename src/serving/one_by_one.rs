//! Files of a directory that lines name one by one, in a crt-list or by `crt`: what a new one needs; and certificates that no
//! client is presented. Pure.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use super::loads::{At, Bind, Entry, How, Identity, Load, Loaded, Serving, base_name};
use crate::config::Settings;
use crate::sys::escape::{escaped, escaped_path, shell_word};

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
        Some(Example { at: at.clone(), path, how: load.how, store, section: bind.section.clone() })
    })
}

/// The files of the directory that are no certificates to HAProxy, where only lines lead into it, each to one file: what no
/// line names, and the lists themselves.
pub fn passed_over<'a>(settings: &'a Settings, loaded: &'a Loaded) -> impl Fn(&OsStr) -> bool + use<'a> {
    let directory = settings.haproxys.first().map_or("", |haproxy| haproxy.sites_dir.as_str());
    let is_by_lines =
        |serving: &Serving| serving.unclear.is_none() && example(serving, loaded.sites, directory).is_some();
    let by_lines = !loaded.servings.is_empty() && loaded.servings.iter().all(is_by_lines);
    move |file| {
        let is_list = || {
            let file = settings.sites_dir.join(file);
            loaded.servings.iter().any(|serving| serving.sources.contains(&file))
        };
        by_lines && (!loaded.named.contains_key(file) || is_list())
    }
}

/// Why no client is presented a file of the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unreached {
    /// The files are named one by one, and this one isn't: an example of those that are.
    Unlisted(Example),
    /// It has only addresses, and no bind has it first.
    Addresses,
    /// HAProxy passes over it for this file, which begins a bundle.
    Bundle(PathBuf),
}

impl Unreached {
    /// The fact, as the end of a sentence about the file.
    #[must_use]
    pub fn fact(&self) -> String {
        match self {
            Self::Unlisted(example) => {
                format!("HAProxy's configuration names files one by one ({}), and not this one", example.at)
            }
            Self::Addresses => {
                "clients send no server name for an address, and no bind has it first".to_owned()
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
            Self::Addresses => {
                "set host_lineage to its lineage, or begin a bind line with this file".to_owned()
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

/// Why nobody is presented this file of the sites directory by any of these HAProxys; `None`: somebody may be.
/// `has_names`: whether it has a name that a client can ask for.
#[must_use]
pub fn unreached(loaded: &Loaded, directory: &str, file: &OsStr, has_names: bool) -> Option<Unreached> {
    let servings: Vec<&Serving> =
        loaded.servings.iter().filter(|serving| serving.unclear.is_none()).collect();
    if servings.is_empty() || servings.len() < loaded.servings.len() {
        return None;
    }
    let examples: Vec<Option<Example>> =
        servings.iter().map(|serving| example(serving, loaded.sites, directory)).collect();
    if !loaded.named.contains_key(file)
        && examples.iter().all(Option::is_some)
        && let Some(Some(example)) = examples.into_iter().next()
    {
        return Some(Unreached::Unlisted(example));
    }
    if has_names {
        return None;
    }
    let is_it = |entry: &Entry| {
        base_name(&entry.store).as_bytes() == file.as_bytes()
            && is_in(loaded.sites, directory, &entry.store, &servings)
    };
    let answers_anybody = |bind: &&Bind| {
        let is_default = |load: &Load| load.how == How::Default && load.entries.iter().any(is_it);
        let first = bind.loads.iter().find_map(|load| load.entries.first());
        bind.ssl && !bind.strict_sni && (first.is_some_and(is_it) || bind.loads.iter().any(is_default))
    };
    let is_presented = servings.iter().flat_map(|serving| &serving.binds).any(|bind| answers_anybody(&bind));
    (!is_presented).then_some(Unreached::Addresses)
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
        let (path, shown) = (shell_word(OsStr::new(&path)), escaped(&path).to_string());
        if let Some((store, _)) = self.store.as_ref().and_then(|store| store.split_once('/')) {
            let (store, alias) = (escaped(store), escaped(file.as_bytes()));
            return format!(
                "add \"load crt {shown} alias {alias}\" behind {}, and \"{store}/{alias}\" where {} has the others",
                self.at,
                escaped(&self.section)
            );
        }
        let add = match self.how {
            How::List => {
                let list = shell_word(OsStr::new(&self.at.file));
                return format!("add its line: printf '\\n%s\\n' {path} >> {list}");
            }
            How::Used => format!("\"ssl-f-use crt {shown}\" to {}", escaped(&self.section)),
            How::File | How::Default | How::Directory => {
                format!("\"crt {shown}\" to the bind line {}", self.at)
            }
        };
        format!("add {add}")
    }
}
