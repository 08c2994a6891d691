//! The decision: what certbot has against what is deployed, as one action per file.
//!
//! A pure function of values. Nothing here touches a file, a process or a socket.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod action;
pub mod client;
pub mod decision;
pub mod elsewhere;
mod files;
mod load_order;
pub mod names;
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
use crate::plan::names::{SIBLING_ENDINGS, site_file};
use crate::plan::planned::Planned;
use crate::plan::row::{Plan, Role, Row};
use crate::plan::situation::{Deployed, EntryKind, Situation};
use crate::plan::warning::Warning;

/// Decides what is to be done.
pub fn plan(situation: &Situation) -> Plan {
    let (mut wanted, mut nameless) = (Vec::with_capacity(situation.lineages.len()), Vec::new());
    for (name, lineage) in &situation.lineages {
        match site_file(name) {
            Ok(file) => wanted.push((file, name, lineage)),
            Err(refusal) => nameless.push(without_file(name, lineage, refusal)),
        }
    }
    // In the files' order, as what is deployed is: both are gone through side by side.
    wanted.sort_by(|(one, ..), (other, ..)| one.cmp(other));
    let mut rows: Vec<Row> = Vec::with_capacity(wanted.len());
    let mut there = situation.deployed.iter().peekable();
    let mut add = |file: &OsStr, mut row: Row, deployed: Option<&Deployed>| {
        row.loadable = situation.is_loaded(file) && deployed.is_some_and(Deployed::is_loadable);
        rows.push(row);
    };
    let no_lineages = |file: &OsString, deployed: &Deployed| {
        (deployed.kind != EntryKind::Directory).then(|| unneeded(situation, file, deployed))
    };
    for (file, name, lineage) in wanted {
        while let Some((other, deployed)) = there.next_if(|(other, _)| **other < file) {
            if let Some(row) = no_lineages(other, deployed) {
                add(other, row, Some(deployed));
            }
        }
        let deployed = there.next_if(|(other, _)| **other == file).map(|(_, deployed)| deployed);
        let recorded = situation.recorded.get(&file);
        let place = Spot { role: Role::Site, file: &file, deployed, recorded };
        let row = decide(situation, name, lineage, &place);
        add(&file, row, deployed);
    }
    for (other, deployed) in there {
        if let Some(row) = no_lineages(other, deployed) {
            add(other, row, Some(deployed));
        }
    }
    let mut sites = Files::new(rows);
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
            SIBLING_ENDINGS.contains(&ending).then(|| OsString::from(owner))
        })
        .collect();
    for file in with_siblings {
        // What is beside somebody else's file belongs to that: its only key may be there.
        let is_ours = |row: &&mut Row| row.lineage.is_some() && row.action != Action::Conflict;
        if let Some(row) = sites.get_mut(&file).filter(is_ours) {
            row.warnings.insert(Warning::SiblingFiles);
        }
    }
}
