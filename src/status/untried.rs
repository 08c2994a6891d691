//! Files that aren't ours and that no run has had HAProxy's word on: it is asked, and what it can't load is noted at the file.

use crate::config::Settings;
use crate::haproxy::fingerprint::fingerprints;
use crate::haproxy::untried::{Culprit, Strangers, culprit};
use crate::plan::row::Row;
use crate::status::judge::Site;
use crate::status::local::Ground;
use crate::status::observation::SiteViews;
use crate::status::problem::Problem;
use crate::status::severity::ProblemKind;
use crate::sys::escape::escaped_path;
use crate::sys::system::System;

/// Whether there are such files.
#[must_use]
pub fn are_there(settings: &Settings, system: &System, ground: &Ground) -> bool {
    let strangers = Strangers::of(settings, &ground.loaded, rows(&ground.sites));
    if strangers.is_empty() {
        return false;
    }
    let accepted = ground.last_run.here().and_then(|run| run.accepted.as_ref());
    let Some(accepted) = accepted else { return true };
    let state = ground.state.as_ref();
    let last = |name: &str| state.map(|state| state.configuration_of(name)).unwrap_or_default();
    strangers.mark(&fingerprints(system, &settings.haproxys, last)) != *accepted
}

/// The rows of the plan.
fn rows(sites: &[SiteViews]) -> impl Iterator<Item = &Row> {
    sites.iter().filter(|site| !site.place.is_elsewhere).filter_map(|site| site.row.as_ref())
}

/// Notes at its file what the HAProxy in this place of the settings says of it; what is to be done first, where that is it.
pub fn note(settings: &Settings, place: usize, ground: &mut Ground, log: &str) -> Option<Culprit> {
    let haproxy = settings.haproxys.get(place)?;
    let around = (&ground.loaded, ground.loaded.servings.get(place));
    let found = culprit(settings, haproxy, around, rows(&ground.sites), log)?;
    let site = ground.sites.iter_mut().find(|site| site.place.path == found.path)?;
    site.place.unloadable.get_or_insert_with(|| found.why.clone());
    Some(found)
}

/// What mends a file.
#[must_use]
pub fn mend(found: &Culprit) -> String {
    format!("mend {}, which it can't load", escaped_path(&found.path))
}

/// Gives the problem of a HAProxy that refuses its configuration for a file the advice that mends the file.
pub fn advise(name: &str, found: &Culprit, sites: &[Site], problems: &mut [Problem]) {
    let site = sites.iter().find(|site| site.views.place.path == found.path);
    let of_file = |problem: &&Problem| problem.kind == ProblemKind::Unloadable;
    let Some(advice) = site.and_then(|site| site.problems.iter().find(of_file)?.advice.clone()) else {
        return;
    };
    let is_it = |problem: &&mut Problem| {
        problem.kind == ProblemKind::HaproxyConfig && problem.haproxy.as_deref() == Some(name)
    };
    for problem in problems.iter_mut().filter(is_it) {
        problem.advice = Some(advice.clone());
    }
}
