//! What a site is judged by besides its views.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::certified_key::KeyFamily;
use crate::plan::action::Action;
use crate::plan::client::Client;
use crate::plan::obstacle::Obstacle;
use crate::plan::row::{Role, Row};
use crate::status::advice::{ASSEMBLE, KEEP};
use crate::status::moving::Needs;
use crate::status::observation::SiteViews;
use crate::status::running::Running;

/// What a site is judged by besides its views.
#[derive(Debug, Clone)]
pub struct Circumstances<'a> {
    /// The time, in seconds since 1970.
    pub now: i64,
    /// Whether it is known which files are ours.
    pub sees_state: bool,
    /// The HAProxys, in the order of the views.
    pub running: &'a [Running],
    /// For each HAProxy the files that it is still to be notified of, and since when.
    pub owed: &'a [BTreeMap<String, i64>],
    /// The directory of certbot's `archive`, where there is one.
    pub archive: &'a Path,
    /// Who renews the certificates.
    pub client: Client,
    /// The directory with a directory for each lineage, and the key's file in one.
    pub live_dir: &'a Path,
    /// See [`Circumstances::live_dir`].
    pub key_file: &'a str,
    /// The sites directory.
    pub sites_dir: &'a Path,
    /// The host certificate's place.
    pub host_file: &'a Path,
    /// Files of the sites directory that aren't ours and serve names.
    pub foreign: &'a [ForeignFile],
    /// Files that no line names, and whose names are all served from files of other lineages.
    pub superfluous: &'a BTreeSet<OsString>,
    /// What HAProxy needs of the files.
    pub needs: &'a Needs,
    /// Whether certbot's directory of lineages isn't there.
    pub live_is_missing: bool,
    /// What makes lineages that are gone published no more.
    pub publish_gone: &'static str,
    /// Whether a fleet takes the place of certbot's directory.
    pub follows: bool,
}

/// A file of the sites directory that isn't ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignFile {
    /// Where it is.
    pub path: PathBuf,
    /// The names that are served from it.
    pub names: Vec<String>,
    /// The family of its key.
    pub family: KeyFamily,
    /// The line of a configuration that names it by itself.
    pub named: Option<String>,
    /// What it is to the lineage that needs its name, where one does.
    pub obstacle: Option<Obstacle>,
}

impl ForeignFile {
    /// Those among these.
    #[must_use]
    pub fn among(sites: &[SiteViews]) -> Vec<Self> {
        let foreign = |site: &SiteViews| {
            let row = site.row.as_ref().filter(|_| !site.place.is_elsewhere)?;
            let is_foreign = matches!(row.action, Action::Foreign | Action::Conflict);
            let leaf = site.disk.here().filter(|_| is_foreign && site.role == Role::Site)?;
            Some(Self {
                path: site.place.path.clone(),
                names: row.names_won.to_vec(),
                family: leaf.key_type.family(),
                named: site.place.named.clone(),
                obstacle: row.obstacle,
            })
        };
        sites.iter().filter_map(foreign).collect()
    }
}

/// See [`Circumstances::superfluous`].
#[must_use]
pub fn superfluous(sites: &[SiteViews]) -> BTreeSet<OsString> {
    let ours = sites.iter().filter(|site| site.role == Role::Site && !site.place.is_elsewhere);
    let rows: Vec<(&SiteViews, &Row)> = ours.filter_map(|site| Some((site, site.row.as_ref()?))).collect();
    if !rows.iter().any(|(_, row)| row.serves_nobody()) {
        return BTreeSet::new();
    }
    let is_lineages = |row: &Row| !matches!(row.action, Action::Foreign | Action::Conflict | Action::Prune);
    let served: BTreeSet<(String, KeyFamily)> = rows
        .iter()
        .filter(|(_, row)| is_lineages(row))
        .filter_map(|(_, row)| Some((row, row.leaf.as_ref()?.key_type.family())))
        .flat_map(|(row, family)| row.names_won.to_vec().into_iter().map(move |name| (name, family)))
        .collect();
    let is_served = |row: &Row| {
        row.leaf.as_ref().is_some_and(|leaf| {
            let family = leaf.key_type.family();
            leaf.served_names().all(|name| served.contains(&(name.to_owned(), family)))
        })
    };
    let is_it = |(site, row): &&(&SiteViews, &Row)| {
        row.serves_nobody() && site.place.named.is_none() && is_served(row)
    };
    rows.iter().filter(is_it).filter_map(|(_, row)| row.file.clone()).collect()
}

impl Circumstances<'_> {
    /// What makes the HAProxys read the disk again.
    pub(crate) fn reload_all(&self) -> String {
        let wanted = self.running.iter().filter(|running| running.wanted && running.down.is_none());
        let reloads: Vec<String> = wanted.map(|running| running.catch_up(false)).collect();
        if reloads.is_empty() { ASSEMBLE.to_owned() } else { reloads.join("; then ") }
    }

    /// What brings this HAProxy into step with the disk.
    ///
    /// Where a run writes the file, a reload before it would make HAProxy lose what it has, or fail.
    pub(crate) fn catch_up(&self, views: &SiteViews, name: &str) -> String {
        let has_file = views.disk.here().is_some() || views.disk.is_unseen();
        match views.row.as_ref().map(|row| row.action) {
            Some(Action::Install | Action::Replace) => return ASSEMBLE.to_owned(),
            Some(Action::Refuse) if !has_file => return KEEP.to_owned(),
            _ => {}
        }
        let file = views.file.as_ref().and_then(|file| file.to_str()).unwrap_or_default();
        let mut all = self.running.iter().zip(self.owed);
        let found = all.find(|(running, _)| running.name == name);
        found.map_or_else(String::new, |(running, owed)| running.catch_up(owed.contains_key(file)))
    }
}
