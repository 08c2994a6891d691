//! Taking a file out of HAProxy's way, for people to paste: only where HAProxy starts without it. Pure.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::observation::SiteViews;
use crate::config::{Haproxy, Method, Settings};
use crate::plan::action::Action;
use crate::plan::names::is_loaded_name;
use crate::plan::row::Role;
use crate::serving::loads::{Loaded, Serving, move_out};

/// What has to stay where it is, so that HAProxy starts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// The files that HAProxy can load, and that nobody is told to take away.
    staying: BTreeSet<PathBuf>,
    /// Of the sites directory: that no HAProxy needs a file in it.
    may_be_empty: Option<PathBuf>,
    /// Whether a run brings a file there.
    pub some_come: bool,
}

/// Why a file can't go as it is: HAProxy wouldn't start without it. Its text is what to do instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Needed<'a> {
    /// A line names it, here.
    #[error("take the file out of {0}")]
    Named(&'a str),
    /// It is the last one of a directory that mustn't be empty.
    #[error("deploy another one first, since HAProxy doesn't start with an empty directory")]
    Last,
}

impl Needs {
    /// What these HAProxys need of these files at this time.
    #[must_use]
    pub fn of(settings: &Settings, loaded: &Loaded, sites: &[SiteViews], now: i64) -> Self {
        let stays = |site: &&SiteViews| {
            let is_sure =
                site.row.as_ref().is_some_and(|row| row.action != Action::Prune && row.held.is_none());
            let can = site.disk.here().is_some() && site.place.unloadable.is_none();
            let is_loaded = site.place.is_elsewhere || site.file.as_deref().is_some_and(is_loaded_name);
            is_sure && can && is_loaded && site.role == Role::Site && !is_to_go(site, now)
        };
        let staying = sites.iter().filter(stays).map(|site| site.place.path.clone()).collect();
        let starts = |(serving, haproxy): (&Serving, &Haproxy)| {
            // Nobody is notified, and nothing is known: nobody's.
            let is_nobodys = haproxy.method == Method::None && serving.sources.is_empty();
            let is_known = serving.unclear.is_none();
            is_nobodys || (is_known && serving.starts_only_with(&haproxy.sites_dir, loaded.sites).is_none())
        };
        let all_start = loaded.servings.iter().zip(&settings.haproxys).all(starts);
        let comes = |site: &SiteViews| {
            site.role == Role::Site && site.row.as_ref().is_some_and(|row| row.action.writes())
        };
        let some_come = sites.iter().any(comes);
        Self { staying, may_be_empty: all_start.then(|| settings.sites_dir.clone()), some_come }
    }

    /// The command that takes this file out of HAProxy's way.
    ///
    /// # Errors
    /// HAProxy wouldn't start without it: what to do instead.
    pub fn without<'a>(&self, path: &Path, named: Option<&'a str>) -> Result<String, Needed<'a>> {
        if let Some(at) = named {
            return Err(Needed::Named(at));
        }
        let folder = path.parent();
        let is_beside = |other: &&PathBuf| other.as_path() != path && other.parent() == folder;
        let may_be_empty = folder.is_some() && self.may_be_empty.as_deref() == folder;
        if may_be_empty || self.staying.iter().any(|other| is_beside(&other)) {
            Ok(move_out(path))
        } else {
            Err(Needed::Last)
        }
    }
}

/// Whether people are told to renew this file or to take it away: nobody's lineage renews it, and its time is coming.
fn is_to_go(site: &SiteViews, now: i64) -> bool {
    let is_foreign = site.row.as_ref().is_some_and(|row| row.action == Action::Foreign);
    is_foreign && site.disk.here().is_some_and(|leaf| leaf.is_ending(now))
}
