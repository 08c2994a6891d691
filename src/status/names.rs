//! By which names a HAProxy has our files: by what its lines load, whatever the spelling, as a run asks for them.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::path::PathBuf;

use super::observation::SiteViews;
use crate::config::Haproxy;
use crate::haproxy::cli::replies::is_one_line;
use crate::haproxy::target::Target;
use crate::plan::action::Action;
use crate::plan::names::is_loaded_name;
use crate::plan::row::Role;
use crate::serving::contents::identity;
use crate::serving::loads::{Identity, Loaded, Serving, Store};
use crate::serving::one_by_one::Unreached;

/// The names that one HAProxy has for the sites' files.
#[derive(Debug, Default)]
pub struct Names {
    /// For each site: the names under which lines load its file, and then the one that the settings spell.
    of_sites: Vec<Vec<String>>,
    /// The site of each name.
    sites: HashMap<String, usize>,
    /// The sites whose files this HAProxy isn't to have.
    apart: Vec<bool>,
}

impl Names {
    /// Those of the HAProxy in this place of the settings.
    #[must_use]
    pub fn of(haproxy: &Haproxy, sites: &[SiteViews], loaded: &Loaded, place: usize) -> Self {
        let serving = loaded.servings.get(place);
        let by_lines = serving.map(|serving| by_lines(serving, sites, loaded)).unwrap_or_default();
        let of_line = |(site, names): (&usize, &'_ Vec<String>)| {
            names.iter().map(|it| (it.clone(), *site)).collect::<Vec<_>>()
        };
        let of_lines: HashMap<String, usize> = by_lines.iter().flat_map(of_line).collect();
        let mut names = Self::default();
        let is_clear = serving.is_some_and(|serving| serving.unclear.is_none());
        let is_site = |&site: &usize| sites.get(site).is_some_and(|views| views.role == Role::Site);
        let loads_some = is_clear && by_lines.keys().any(is_site);
        for (site, views) in sites.iter().enumerate() {
            let lines = by_lines.get(&site).cloned().unwrap_or_default();
            let is_unlisted = views.place.unreached.as_ref().is_some_and(Unreached::is_unnamed);
            let is_apart =
                loads_some && lines.is_empty() && !is_unlisted && is_site(&site) && !views.place.is_elsewhere;
            names.apart.push(is_apart);
            let mut all = lines;
            // By a line a link is the file that it leads to.
            let is_anothers = |name: &String| of_lines.get(name.as_str()).is_some_and(|of| *of != site);
            let spelled = spelled(haproxy, views).filter(|name| !all.contains(name) && !is_anothers(name));
            all.extend(spelled);
            names.sites.extend(all.iter().map(|name| (name.clone(), site)));
            names.of_sites.push(all);
        }
        names
    }

    /// The site that a name is of.
    #[must_use]
    pub fn site(&self, name: &str) -> Option<usize> {
        self.sites.get(name).copied()
    }

    /// The names of a site's file; none: HAProxy can't be asked for it.
    #[must_use]
    pub fn of_site(&self, site: usize) -> &[String] {
        self.of_sites.get(site).map_or(&[], Vec::as_slice)
    }

    /// Whether this HAProxy names files of the sites directory by lines of their own, and not this one, which another
    /// HAProxy loads.
    #[must_use]
    pub fn is_apart(&self, site: usize) -> bool {
        self.apart.get(site).copied().unwrap_or_default()
    }
}

/// For each site the names of the stores that are its file, by device and inode of its directory, or of itself where a
/// link from elsewhere leads to it.
fn by_lines(serving: &Serving, sites: &[SiteViews], loaded: &Loaded) -> BTreeMap<usize, Vec<String>> {
    let ours = |(_, views): &(usize, &SiteViews)| !views.place.is_elsewhere;
    let numbered = || sites.iter().enumerate().filter(ours);
    let of_role = |role| numbered().filter(move |(_, views)| views.role == role);
    let file = |(site, views): (usize, &SiteViews)| Some((views.file.clone()?, site));
    let by_file: HashMap<_, usize> = of_role(Role::Site).filter_map(file).collect();
    let host = of_role(Role::Host).map(|(site, _)| site).next();
    // Of a regular file of the sites directory the bytes are known.
    let may_be_link = |site: usize| {
        let row = sites.get(site).and_then(|views| views.row.as_ref());
        row.is_some_and(|row| row.role == Role::Site && row.before.is_none() && row.action == Action::Foreign)
    };
    let mut folders: HashMap<PathBuf, Option<Identity>> = HashMap::new();
    let mut by_identity: Option<HashMap<Identity, usize>> = None;
    let mut found: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for (name, store) in &serving.stores {
        let is_in_sites = store.path.parent().is_some_and(|folder| {
            let folder = folders.entry(folder.to_owned()).or_insert_with(|| identity(folder));
            folder.is_some() && *folder == loaded.sites
        });
        let of_name = |file: &OsStr| by_file.get(file).copied().filter(|_| is_in_sites);
        let site = store.path.file_name().and_then(of_name);
        let site = if site.is_some_and(|site| !may_be_link(site)) || (is_in_sites && !is_link(store)) {
            site
        } else if loaded.host.is_some() && store.identity == loaded.host {
            host
        } else if is_link(store) {
            let stat = |(site, views): (usize, &SiteViews)| Some((identity(&views.place.path)?, site));
            let files = || numbered().filter(|(site, _)| !may_be_link(*site));
            let by_identity = by_identity.get_or_insert_with(|| files().filter_map(stat).collect());
            store.identity.and_then(|identity| by_identity.get(&identity)).copied().or(site)
        } else {
            None
        };
        if let Some(site) = site {
            found.entry(site).or_default().push(name.clone());
        }
    }
    found
}

/// Whether a store's path is a link: only that can lead to a file of ours from elsewhere.
fn is_link(store: &Store) -> bool {
    store.path.symlink_metadata().is_ok_and(|found| found.is_symlink())
}

/// A site's file as the settings spell it for this HAProxy; `None`: HAProxy can't be asked for it.
fn spelled(haproxy: &Haproxy, site: &SiteViews) -> Option<String> {
    let file = site.file.as_ref().filter(|_| !site.place.is_elsewhere)?.to_str()?;
    if !is_one_line(file) {
        return None;
    }
    match site.role {
        Role::Host => Some(Target::Host.spelled(haproxy)),
        Role::Site => is_loaded_name(file.as_ref()).then(|| Target::Site(file.to_owned()).spelled(haproxy)),
    }
}
