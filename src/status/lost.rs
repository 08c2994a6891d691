//! What HAProxy's lines name, and the sites directory doesn't have: HAProxy won't start again without it.

use std::ffi::OsStr;
use std::path::Path;

use crate::config::Settings;
use crate::plan::row::{Role, Row};
use crate::serving::loads::{At, Loaded, Serving, Store};
use crate::serving::sites::is_in;
use crate::status::observation::{Location, Sight, SiteViews};

/// What is said of it.
pub const GONE: &str = "there is no such file";

/// What is said of a directory that has nothing to load.
const EMPTY: &str = "there is no certificate in this directory";

/// Adds it to the sites: files that a line names by itself, and a directory that is empty and must not be.
pub fn note(settings: &Settings, loaded: &Loaded, sites: &mut Vec<SiteViews>) {
    for (serving, haproxy) in loaded.servings.iter().zip(&settings.haproxys) {
        for (store, at) in named(settings, loaded, serving) {
            let Some(file) = store.path.file_name() else { continue };
            let path = settings.sites_dir.join(file);
            if path.symlink_metadata().is_ok() {
                continue;
            }
            let is_it = |site: &&mut SiteViews| site.role == Role::Site && site.file.as_deref() == Some(file);
            match sites.iter_mut().find(is_it) {
                Some(site) => {
                    site.place.unloadable = Some(GONE.to_owned());
                    site.place.named = Some(at.to_string());
                }
                None => sites.push(missing(file, &path, at, GONE, false)),
            }
        }
        let is_known = serving.unclear.is_none() && loaded.sites.is_some();
        let needs_one = serving.starts_only_with(&haproxy.sites_dir, loaded.sites).filter(|_| is_known);
        let bind = needs_one.and_then(|at| serving.binds.iter().find(|bind| bind.at == *at));
        if let Some(bind) = bind.filter(|bind| bind.entries().next().is_none())
            && !sites.iter().any(|site| site.place.path == settings.sites_dir)
        {
            let path = settings.sites_dir.as_path();
            sites.push(missing(path.as_os_str(), path, &bind.at, EMPTY, true));
        }
    }
}

/// The files of the sites directory that a line names by itself.
fn named<'a>(
    settings: &'a Settings,
    loaded: &'a Loaded,
    serving: &'a Serving,
) -> impl Iterator<Item = (&'a Store, &'a At)> {
    serving.named.iter().filter_map(|named| {
        let store = serving.stores.get(&named.path)?;
        is_in(&settings.sites_dir, loaded.sites, store).then_some((store, &named.at))
    })
}

fn missing(file: &OsStr, path: &Path, at: &At, why: &str, is_elsewhere: bool) -> SiteViews {
    SiteViews {
        lineage: None,
        file: Some(file.to_owned()),
        role: Role::Site,
        row: Some(Row::elsewhere(file.to_owned(), None)),
        certbot: Sight::Absent,
        disk: Sight::Absent,
        published: None,
        links: None,
        place: Location {
            path: path.to_owned(),
            unloadable: Some(why.to_owned()),
            named: Some(at.to_string()),
            is_elsewhere,
            ..Location::default()
        },
        haproxy: Vec::new(),
    }
}
