//! What the sites directory is among what HAProxy loads: names that a file from elsewhere serves, and whether it is loaded
//! first.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;

use crate::plan::files::Files;
use crate::plan::hold::Hold;
use crate::plan::planned::PlannedBind;
use crate::plan::row::{NamesWon, Row};
use crate::plan::served::is_foreign;
use crate::plan::situation::Situation;
use crate::plan::warning::Warning;
use crate::serving::Served;
use crate::serving::loads::{At, Bind, Identity, Serving};
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
pub(super) fn note(situation: &Situation, sites: &mut Files, binds: &[Vec<PlannedBind<'_>>]) {
    for file in served_by_copies(binds) {
        let Some(row) = sites.get_mut(OsStr::new(&file)) else { continue };
        if row.warnings.remove(Warning::Shadowed) {
            row.alarming = row.held.is_some_and(Hold::is_alarming);
        }
    }
    // Nobody renews the file in its place where no lineage is meant for it.
    let host = situation.loaded.host.filter(|_| situation.host.is_some());
    for bind in binds.iter().flatten() {
        for (file, lost) in lost_on(bind, host) {
            if let Some(row) = sites.get_mut(OsStr::new(&file)) {
                apply(row, lost);
            }
        }
    }
}

/// The files of which a copy from elsewhere, as the host certificate is one, serves a name that the directory's order gives
/// to another file, so that all their names are served from what they hold.
fn served_by_copies(binds: &[Vec<PlannedBind<'_>>]) -> BTreeSet<String> {
    let (mut copied, mut lost): (BTreeSet<&str>, BTreeSet<&str>) = (BTreeSet::new(), BTreeSet::new());
    for bind in binds.iter().flatten() {
        for (own, file) in bind.view.certificates().iter().filter_map(|own| Some((own, bind.site(own)?))) {
            let family = own.leaf.key_type.family();
            for name in own.leaf.served_names() {
                let Some(winner) = bind.view.all_with(name, family).next() else { continue };
                match (winner.leaf.sha256 == own.leaf.sha256, bind.site(winner)) {
                    (true, None) => drop(copied.insert(file)),
                    (true, Some(_)) => {}
                    (false, _) => drop(lost.insert(file)),
                }
            }
        }
    }
    copied.difference(&lost).map(|file| (*file).to_owned()).collect()
}

fn apply(row: &mut Row, lost: Lost) {
    row.addable &= !lost.shares;
    if !lost.names.is_empty() {
        let won = row.names_won.to_vec().into_iter().filter(|name| !lost.names.contains(name));
        row.names_won = NamesWon::Some(won.collect());
    }
    let Some(fact) = lost.fact.filter(|_| !is_foreign(row)) else { return };
    if row.outranked {
        row.warnings.explain(Warning::Shadowed, fact);
    } else {
        // Another one of ours is no more than a part of it: what is advised goes by the fact.
        row.warnings.correct(Warning::Shadowed, fact);
    }
    (row.outranked, row.alarming) = (true, true);
}

fn lost_on(bind: &PlannedBind<'_>, host: Option<Identity>) -> BTreeMap<String, Lost> {
    let view = &bind.view;
    let mut all: BTreeMap<String, Lost> = BTreeMap::new();
    for (own, file) in view.certificates().iter().filter_map(|own| Some((own, bind.site(own)?))) {
        // The same file by a link, or another copy of what it holds.
        let is_other =
            |other: &&Served<'_>| bind.site(other).is_none() && other.leaf.sha256 != own.leaf.sha256;
        for name in own.leaf.served_names() {
            let family = own.leaf.key_type.family();
            let has_it = |other: &Served<'_>| other.entry.store == own.entry.store;
            // A line's filters may leave the name to another file.
            if !view.all_with(name, family).any(|other| is_other(&other))
                || !view.all_with(name, family).any(has_it)
            {
                continue;
            }
            let lost = all.entry(file.to_owned()).or_default();
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
        let counts = bind.serves() && !bind.strict_sni && serving.is_directory(first, directory);
        counts.then(|| bind.at.clone())
    };
    let binds = servings.iter().flat_map(|serving| serving.binds.iter().map(move |bind| (serving, bind)));
    Some(binds.filter_map(first).collect())
}
