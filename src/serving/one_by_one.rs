//! Files of a directory that lines name one by one, in a crt-list or by `crt`: what a new one needs. Pure.

use std::path::Path;

use super::loads::{At, How, Identity, Named, Serving, base_name};
use crate::sys::escape::escaped;

/// A file of the directory that a line names by itself, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// The line.
    pub at: At,
    /// The path as it stands there, `crt-base` before it where that belongs.
    pub path: String,
    /// What kind of line it is.
    pub how: How,
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
    let is_in = |path: &str| {
        let known = serving.named.iter().find(|named: &&Named| named.path == path);
        match (known.and_then(|named| named.folder), sites) {
            (Some(folder), Some(sites)) => folder == sites,
            _ => Path::new(path).parent() == Some(Path::new(directory)),
        }
    };
    let binds = serving.binds.iter().filter(|bind| bind.ssl);
    let mut all = binds.flat_map(|bind| bind.loads.iter().map(move |load| (bind, load)));
    all.find_map(|(bind, load)| {
        let entry = load.entries.iter().find(|entry| is_in(&entry.store))?;
        let named = serving.named.iter().find(|named| named.path == entry.store);
        let at = named.filter(|_| load.how == How::Used).map_or(&entry.at, |named| &named.at);
        Some(Example {
            at: at.clone(),
            path: entry.store.clone(),
            how: load.how,
            section: bind.section.clone(),
        })
    })
}

impl Example {
    /// What to add for this file, to be copied, and where.
    #[must_use]
    pub fn line_for(&self, file: &str) -> (String, String) {
        let folder = self.path.strip_suffix(base_name(&self.path)).unwrap_or_default();
        let path = format!("{}{}", escaped(folder), escaped(file));
        match self.how {
            How::List => (path, format!("a line of {}", escaped(&self.at.file))),
            How::Used => (format!("ssl-f-use crt {path}"), format!("a line of {}", escaped(&self.section))),
            How::File | How::Default | How::Directory => {
                (format!("crt {path}"), format!("on the bind line {}", self.at))
            }
        }
    }
}
