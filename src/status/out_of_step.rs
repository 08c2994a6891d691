//! What a HAProxy has otherwise than a start would give it although no notification is pending: somebody else has changed its
//! memory. A full run asks for it as `status` does, and notifies that HAProxy again.

use std::collections::{BTreeMap, BTreeSet};

use super::behind::Changed;
use super::judge::Site;
use super::local::{self, Reading};
use super::severity::ProblemKind;
use super::{judged, running};
use crate::config::{Method, Settings};
use crate::host_setup::Setup;
use crate::plan::action::Action;
use crate::plan::row::Role;
use crate::serving::loads::{Bind, Identity, Serving, base_name};
use crate::status::problem::Problem;
use crate::sys::clock::now;
use crate::sys::escape::escaped;
use crate::sys::system::System;

/// What one HAProxy has otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutOfStep {
    /// The files, as the state knows them; `None`: all of ours.
    pub files: Option<BTreeSet<String>>,
    /// The first fact, which begins with its name.
    pub fact: String,
}

/// Asks every HAProxy that is to be notified; by their names.
#[must_use]
pub fn out_of_step(settings: &Settings, system: &System) -> BTreeMap<String, OutOfStep> {
    if settings.haproxys.iter().all(|haproxy| haproxy.method == Method::None) {
        return BTreeMap::new();
    }
    let mut ground = local::look_around(settings, system, Reading::Changes, &|_, _| ());
    let haproxys = running::look(settings, system, &mut ground);
    let loaded = ground.loaded.clone();
    let status = judged(settings, ground, haproxys, Setup::default(), now());
    let mut found = BTreeMap::new();
    for ((haproxy, running), serving) in settings.haproxys.iter().zip(&status.haproxy).zip(&loaded.servings) {
        if haproxy.method == Method::None {
            continue;
        }
        let question = Question {
            settings,
            serving,
            sites: loaded.sites,
            host: loaded.host,
            spelled_host: &haproxy.host_file,
            name: &haproxy.name,
        };
        let of_sites = status.sites.iter().filter_map(|site| question.of(site));
        let behind = running.behind.as_ref().filter(|behind| behind.changed == Changed::Memory);
        let of_all = behind.map(|behind| (None, format!("{} {}", escaped(&haproxy.name), behind.fact)));
        let mut all: Option<OutOfStep> = None;
        for (file, fact) in of_sites.chain(of_all) {
            let known = all.get_or_insert(OutOfStep { files: Some(BTreeSet::new()), fact });
            match (&mut known.files, file) {
                (Some(files), Some(file)) => drop(files.insert(file)),
                (files, _) => *files = None,
            }
        }
        found.extend(all.map(|all| (haproxy.name.clone(), all)));
    }
    found
}

struct Question<'a> {
    settings: &'a Settings,
    serving: &'a Serving,
    sites: Option<Identity>,
    host: Option<Identity>,
    /// What this HAProxy calls the host certificate.
    spelled_host: &'a str,
    name: &'a str,
}

impl Question<'_> {
    /// What is wrong with a site in this HAProxy's memory, and surely wouldn't be after a start: the file, `None` where a run
    /// has none, and the fact.
    fn of(&self, site: &Site) -> Option<(Option<String>, String)> {
        let is_it = |problem: &&Problem| {
            problem.haproxy.as_deref() == Some(self.name)
                && matches!(problem.kind, ProblemKind::HaproxyStale | ProblemKind::HaproxyMissing)
        };
        let problem = site.problems.iter().find(is_it)?;
        let views = &site.views;
        let file = views.file.as_ref()?.to_str()?;
        let key = match views.role {
            Role::Host => self.settings.host_file.to_string_lossy().into_owned(),
            Role::Site => file.to_owned(),
        };
        let is_clear = self.serving.unclear.is_none();
        match views.row.as_ref().map(|row| row.action) {
            _ if views.place.is_elsewhere => None,
            // A reload drops what no line leads to.
            None if is_clear && self.sites.is_some() && !self.is_loaded(file) => {
                Some((None, problem.fact.clone()))
            }
            Some(Action::Unchanged | Action::Repair)
                if problem.kind == ProblemKind::HaproxyStale
                    || is_clear && self.would_load(views.role, file) =>
            {
                Some((Some(key), problem.fact.clone()))
            }
            _ => None,
        }
    }

    fn is_loaded(&self, file: &str) -> bool {
        self.serving
            .binds
            .iter()
            .flat_map(Bind::entries)
            .any(|entry| base_name(&entry.store) == base_name(file))
    }

    /// Whether a start loads a file of ours.
    fn would_load(&self, role: Role, file: &str) -> bool {
        if role == Role::Host {
            return self.serving.names_host(self.host, self.spelled_host);
        }
        self.is_loaded(file) || self.sites.is_some_and(|sites| self.serving.loads_directory(sites))
    }
}
