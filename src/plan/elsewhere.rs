//! What the sites directory is among what HAProxy loads: names that a file from elsewhere serves, and whether it is loaded
//! first.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::sync::Arc;

use crate::certified_key::Leaf;
use crate::plan::files::Files;
use crate::plan::row::{NamesWon, Row};
use crate::plan::served::{is_foreign, served_leaf};
use crate::plan::situation::Situation;
use crate::plan::warning::Warning;
use crate::serving::loads::{At, Bind, Identity, Serving, base_name};
use crate::serving::{Served, View};
use crate::sys::escape::escaped;

/// What a file from elsewhere takes from one of the sites directory.
#[derive(Default)]
struct Lost {
    /// The names that it serves instead.
    names: BTreeSet<String>,
    /// The first of them, said as a fact.
    fact: Option<String>,
    /// Whether it shares a name with one, whoever is served.
    shares: bool,
}

/// Notes the names that are served from elsewhere, since a bind line loads that first.
pub(super) fn note(situation: &Situation, sites: &mut Files) {
    let Some(directory) = situation.loaded.sites else { return };
    let after: Vec<(String, Arc<Leaf>)> = sites
        .iter()
        .filter(|(file, _)| situation.is_loaded(file))
        .filter_map(|(file, row)| {
            Some((file.to_str()?.to_owned(), Arc::clone(served_leaf(situation, file, row)?)))
        })
        .collect();
    // Nobody renews the file in its place where no lineage is meant for it.
    let host = situation.loaded.host.filter(|_| situation.host.is_some());
    for serving in situation.loaded.servings.iter().filter(|serving| serving.unclear.is_none()) {
        let serving = serving.with_directory(directory, &after);
        for bind in serving.binds.iter().filter(|bind| bind.ssl) {
            let view = serving.view(bind);
            for (file, lost) in lost_on(&serving, &view, directory, host) {
                if let Some(row) = sites.get_mut(OsStr::new(&file)) {
                    apply(row, lost);
                }
            }
        }
    }
}

fn apply(row: &mut Row, lost: Lost) {
    row.addable &= !lost.shares;
    if !lost.names.is_empty() {
        let won = row.names_won.to_vec().into_iter().filter(|name| !lost.names.contains(name));
        row.names_won = NamesWon::Some(won.collect());
    }
    let Some(fact) = lost.fact.filter(|_| !is_foreign(row)) else { return };
    row.warnings.insert(Warning::Shadowed);
    (row.outranked, row.alarming) = (true, true);
    row.detail.get_or_insert(fact);
}

fn lost_on(
    serving: &Serving,
    view: &View<'_>,
    directory: Identity,
    host: Option<Identity>,
) -> BTreeMap<String, Lost> {
    let is_site = |certificate: &Served<'_>| serving.is_directory(certificate.load, directory);
    let mut all: BTreeMap<String, Lost> = BTreeMap::new();
    for own in view.certificates().iter().filter(|certificate| is_site(certificate)) {
        let file = base_name(&own.entry.store).to_owned();
        // The same file under a name of its own, or another copy of what it holds.
        let is_other = |other: &&Served<'_>| !is_site(other) && other.leaf.sha256 != own.leaf.sha256;
        for name in own.leaf.served_names() {
            let family = own.leaf.key_type.family();
            if !view.all_with(name, family).any(|other| is_other(&other)) {
                continue;
            }
            let lost = all.entry(file.clone()).or_default();
            lost.shares = true;
            let Some(winner) = view.all_with(name, family).next().filter(is_other) else { continue };
            lost.names.insert(name.to_owned());
            // The host certificate comes first on purpose, and is renewed as the file is.
            if host.is_none() || winner.identity != host {
                lost.fact.get_or_insert_with(|| {
                    let (name, store, at) = (escaped(name), escaped(&winner.entry.store), &view.bind().at);
                    format!("{name} is served from {store}, which {at} loads first and isn't ours")
                });
            }
        }
    }
    all
}

/// The binds that load the sites directory before anything else, so that its first file answers clients that name no
/// site; `None`: that isn't known.
pub(super) fn first_on(situation: &Situation) -> Option<Vec<At>> {
    let directory = situation.loaded.sites?;
    let servings = &situation.loaded.servings;
    if servings.is_empty() || servings.iter().any(|serving| serving.unclear.is_some()) {
        return None;
    }
    let first = |(serving, bind): (&Serving, &Bind)| {
        let first = bind
            .loads
            .iter()
            .find(|load| serving.is_directory(load, directory) || !load.entries.is_empty())?;
        let counts = bind.ssl && !bind.strict_sni && serving.is_directory(first, directory);
        counts.then(|| bind.at.clone())
    };
    let binds = servings.iter().flat_map(|serving| serving.binds.iter().map(move |bind| (serving, bind)));
    Some(binds.filter_map(first).collect())
}
