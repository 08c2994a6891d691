//! What HAProxy serves from which file: shadowed names, and the default certificate.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::sync::Arc;

use super::elsewhere;
use crate::certified_key::{KeyFamily, Leaf};
use crate::plan::files::Files;
use crate::plan::row::{NamesWon, Row};
use crate::plan::served::{is_foreign, served_leaf};
use crate::plan::situation::{Deployed, Situation};
use crate::plan::warning::Warning;
use crate::sys::escape::escaped;

/// A name and the family of keys that it is served with: HAProxy keeps one certificate for each.
type Served<'a> = (&'a str, KeyFamily);

/// A file that HAProxy loads, in its order.
struct Claimant<'a> {
    /// Its place among all files.
    number: usize,
    file: &'a OsStr,
    row: &'a Row,
    leaf: &'a Arc<Leaf>,
    /// The names that it has and doesn't serve.
    lost: Vec<Served<'a>>,
}

impl<'a> Claimant<'a> {
    fn served(&self) -> impl Iterator<Item = Served<'a>> + use<'a> {
        let family = self.leaf.key_type.family();
        self.leaf.served_names().map(move |name| (name, family))
    }

    fn has_expired(&self, situation: &Situation) -> bool {
        self.leaf.not_after < situation.now
    }

    /// Whoever is shadowed by it is not served as certbot's user expects.
    fn is_alarming(&self, situation: &Situation) -> bool {
        is_foreign(self.row) || self.has_expired(situation)
    }
}

/// What became of one file's names.
struct Outcome {
    names_won: NamesWon,
    addable: bool,
    /// The worst of what it lost, as a fact, and whether that is alarming.
    shadowed: Option<(String, bool)>,
}

/// Notes which file wins which name: HAProxy serves a name from the first file, in byte order, that has it with a key
/// of that family, whatever the dates (measured with 2.6, 3.0 and 3.5-dev).
pub(super) fn note_shadows(situation: &Situation, sites: &mut Files) {
    let outcomes = outcomes(situation, sites);
    let mut rows = sites.iter_mut().enumerate();
    for (number, outcome) in outcomes {
        let Some((_, row)) = rows.find(|(at, _)| *at == number) else { return };
        (row.names_won, row.addable) = (outcome.names_won, outcome.addable);
        if let Some((fact, is_alarming)) = outcome.shadowed {
            row.warnings.insert(Warning::Shadowed);
            row.alarming |= is_alarming;
            row.detail.get_or_insert(fact);
        }
    }
}

/// In the files' order, each with its place among all of them.
fn outcomes(situation: &Situation, sites: &Files) -> Vec<(usize, Outcome)> {
    let mut claimants: Vec<Claimant<'_>> = sites
        .iter()
        .enumerate()
        .filter(|(_, (file, _))| situation.is_loaded(file))
        .filter_map(|(number, (file, row))| {
            let leaf = served_leaf(situation, file, row)?;
            Some(Claimant { number, file, row, leaf, lost: Vec::new() })
        })
        .collect();
    let mut winners: HashMap<Served<'_>, usize> = HashMap::with_capacity(2 * claimants.len());
    let mut contested: HashSet<Served<'_>> = HashSet::new();
    for (place, claimant) in claimants.iter_mut().enumerate() {
        for served in claimant.served() {
            if *winners.entry(served).or_insert(place) != place {
                claimant.lost.push(served);
                contested.insert(served);
            }
        }
    }
    let outcome = |(place, claimant): (usize, &Claimant<'_>)| {
        let won = || claimant.served().filter(|served| winners.get(served) == Some(&place));
        let is_wholly_won = claimant.lost.is_empty() && won().all(|served| !contested.contains(&served));
        Outcome {
            names_won: match claimant.lost.as_slice() {
                [] => NamesWon::AllOf(Arc::clone(claimant.leaf)),
                _ => NamesWon::Some(won().map(|(name, _)| name.to_owned()).collect()),
            },
            addable: place > 0 && is_wholly_won && is_plain_name(claimant.file),
            shadowed: shadowed(situation, claimant, &claimants, &winners),
        }
    };
    let outcomes = claimants.iter().enumerate().map(|it| (it.1.number, outcome(it)));
    outcomes.collect()
}

/// The worst of the names of ours that are served from another file.
fn shadowed(
    situation: &Situation,
    loser: &Claimant<'_>,
    claimants: &[Claimant<'_>],
    winners: &HashMap<Served<'_>, usize>,
) -> Option<(String, bool)> {
    if is_foreign(loser.row) {
        return None;
    }
    let (name, winner) = loser
        .lost
        .iter()
        .filter_map(|served| Some((served.0, claimants.get(*winners.get(served)?)?)))
        .reduce(|worst, next| {
            if next.1.is_alarming(situation) && !worst.1.is_alarming(situation) { next } else { worst }
        })?;
    let besides = match (is_foreign(winner.row), winner.has_expired(situation)) {
        (false, false) => "",
        (true, false) => " and isn't ours",
        (false, true) => " and has expired",
        (true, true) => ", isn't ours and has expired",
    };
    let file = escaped(winner.file.as_encoded_bytes());
    let fact = format!("{} is served from {file}, which sorts first{besides}", escaped(name));
    Some((fact, winner.is_alarming(situation)))
}

/// Warns where another file than before answers clients that name no site, or one that nobody has.
pub(super) fn note_default_certificate(situation: &Situation, sites: &mut Files) {
    let loadable = |(_, deployed): &(&OsString, &Deployed)| deployed.is_loadable();
    let before = situation.deployed.iter().filter(loadable).find(|(file, _)| situation.is_loaded(file));
    let after = sites
        .iter()
        .find(|(file, row)| situation.is_loaded(file) && served_leaf(situation, file, row).is_some());
    let (Some((before, _)), Some((after, _))) = (before, after) else { return };
    if before == after {
        return;
    }
    let (before, after) = (before.clone(), after.to_owned());
    let said = match elsewhere::first_on(situation) {
        Some(binds) => match binds.first() {
            Some(at) => format!("it is HAProxy's default certificate now ({at})"),
            None => return,
        },
        // Where a host certificate is configured it is loaded first, as a rule.
        None if situation.host.is_some() => return,
        None => "it is HAProxy's default certificate now, if nothing is loaded before the sites directory"
            .to_owned(),
    };
    let Some(row) = sites.get_mut(&after) else { return };
    row.warnings.insert(Warning::DefaultCertificateChanged);
    row.detail.get_or_insert_with(|| format!("{said}, which was {}", escaped(before.as_encoded_bytes())));
}

/// Whether a file's name needs no quoting in HAProxy's commands.
fn is_plain_name(file: &OsStr) -> bool {
    file.as_encoded_bytes().iter().all(|byte| byte.is_ascii_alphanumeric() || b"._:-".contains(byte))
}
