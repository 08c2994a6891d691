//! The decision: what certbot has against what is deployed, as one action per file.
//!
//! A pure function of values. Nothing here touches a file, a process or a socket.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod action;
pub mod client;
pub mod decision;
pub mod elsewhere;
mod files;
pub mod hold;
mod load_order;
pub mod names;
pub mod obstacle;
mod planned;
pub mod prune;
pub mod reason;
pub mod refusal;
pub mod row;
pub mod served;
pub mod serving;
pub mod situation;
pub mod unreached;
pub mod warning;

use std::ffi::{OsStr, OsString};

use crate::plan::action::Action;
use crate::plan::decision::{Spot, decide, decide_host, unneeded, without_file};
use crate::plan::files::Files;
use crate::plan::names::site_file;
use crate::plan::planned::Planned;
use crate::plan::row::{Plan, Role, Row};
use crate::plan::situation::{Deployed, EntryKind, Lineage, Situation};
use crate::plan::warning::Warning;
use crate::serving::beside::SIBLINGS;

/// Decides what is to be done.
pub fn plan(situation: &Situation) -> Plan {
    let mut rows = Vec::with_capacity(situation.unchanged.len() + situation.lineages.len());
    let mut nameless = Vec::new();
    let is_loadable = |file: &OsStr, deployed: &Deployed| situation.is_loaded(file) && deployed.is_loadable();
    let mut add = |name: &OsString, lineage: &Lineage, found: Option<&Deployed>| match site_file(name) {
        Ok(file) => {
            let deployed = found.or_else(|| situation.deployed.get(&file));
            let recorded = situation.recorded.get(&file);
            let loadable = deployed.is_some_and(|deployed| is_loadable(&file, deployed));
            let place = Spot { role: Role::Site, file: &file, deployed, recorded };
            rows.push(Row { loadable, ..decide(situation, name, lineage, &place) });
        }
        Err(refusal) => nameless.push(without_file(name, lineage, refusal)),
    };
    for (name, unchanged) in &situation.unchanged {
        let (lineage, found) = situation.found(unchanged);
        add(name, &lineage, Some(&found));
    }
    for (name, lineage) in &situation.lineages {
        add(name, lineage, None);
    }
    let lineages = Files::new(rows);
    let others = situation
        .deployed
        .iter()
        .filter(|(file, deployed)| deployed.kind != EntryKind::Directory && lineages.place(file).is_none());
    let others = others.map(|(file, deployed)| Row {
        loadable: is_loadable(file, deployed),
        ..unneeded(situation, file, deployed)
    });
    let others: Vec<Row> = others.collect();
    let mut sites = lineages.and(others);
    prune::guard_prunes(situation, &mut sites);
    note_siblings(&mut sites);
    let planned = Planned::of(situation, &sites);
    let binds = planned.binds();
    let has_an_order = planned.has_an_order_of_its_own(situation);
    serving::note_shadows(situation, &mut sites, has_an_order.then_some(&binds));
    elsewhere::note(situation, &mut sites, &binds);
    serving::note_default_certificate(situation, &mut sites);
    let mut rows = sites.into_rows();
    if let Some(host) = &situation.host {
        rows.push(decide_host(situation, host));
        rows.sort_by(|a, b| a.file.cmp(&b.file));
    }
    rows.extend(nameless);
    let mut plan = Plan { rows };
    plan.hold_last_file();
    plan
}

fn note_siblings(sites: &mut Files) {
    let with_siblings: Vec<OsString> = sites
        .iter()
        .filter_map(|(file, _)| {
            let (owner, ending) = file.to_str()?.rsplit_once('.')?;
            SIBLINGS.contains(&ending).then(|| OsString::from(owner))
        })
        .collect();
    for file in with_siblings {
        // What is beside somebody else's file belongs to that: its only key may be there.
        let is_ours = |row: &&mut Row| row.lineage.is_some() && row.action != Action::Conflict;
        if let Some(row) = sites.get_mut(&file).filter(is_ours) {
            row.warnings.add(Warning::SiblingFiles);
        }
    }
}
