//! What HAProxy serves from which file: shadowed names, and the default certificate.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::sync::Arc;

use super::elsewhere;
use crate::certified_key::{KeyFamily, Leaf};
use crate::plan::files::Files;
use crate::plan::load_order::{Lost, Standing, standings};
use crate::plan::planned::PlannedBind;
use crate::plan::row::{NamesWon, Row};
use crate::plan::served::{file_behind, is_foreign, presented_leaf};
use crate::plan::situation::{Deployed, Situation};
use crate::plan::warning::Warning;
use crate::sys::escape::escaped;

/// A name and the family of keys that it is served with: HAProxy keeps one certificate for each.
type Served<'a> = (&'a str, KeyFamily);

/// Who serves a name: its place among the claimants, and its file.
type Winner<'a> = (usize, &'a OsStr);

/// A file that HAProxy loads, in its order.
struct Claimant<'a> {
    /// Its place among all files.
    number: usize,
    file: &'a OsStr,
    /// The file that it is, where it is a link.
    behind: &'a OsStr,
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
    is_of_use: bool,
    addable: bool,
    /// The worst of what it lost, as a fact, and whether that is alarming.
    shadowed: Option<(String, bool)>,
}

/// Notes which file wins which name: HAProxy serves a name from the first file, in byte order, that has it with a key
/// of that family, whatever the dates (measured with 2.6, 3.0 and 3.5-dev). `binds`: where lines say another order, and it is
/// known, what is loaded by each HAProxy's binds.
pub(super) fn note_shadows(
    situation: &Situation,
    sites: &mut Files,
    binds: Option<&Vec<Vec<PlannedBind<'_>>>>,
) {
    let standings = binds.map(|binds| standings(binds));
    let outcomes = outcomes(situation, sites, standings.as_ref());
    let mut rows = sites.iter_mut().enumerate();
    for (number, outcome) in outcomes {
        let Some((_, row)) = rows.find(|(at, _)| *at == number) else { return };
        (row.names_won, row.addable) = (outcome.names_won, outcome.addable);
        row.is_of_use = outcome.is_of_use;
        if let Some((fact, is_alarming)) = outcome.shadowed {
            row.warnings.insert(Warning::Shadowed);
            row.alarming |= is_alarming;
            row.detail.get_or_insert(fact);
        }
    }
}

/// In the files' order, each with its place among all of them.
fn outcomes(
    situation: &Situation,
    sites: &Files,
    standings: Option<&HashMap<&str, Standing<'_>>>,
) -> Vec<(usize, Outcome)> {
    let mut claimants: Vec<Claimant<'_>> = sites
        .iter()
        .enumerate()
        .filter(|(_, (file, _))| situation.is_loaded(file))
        .filter_map(|(number, (file, row))| {
            let leaf = presented_leaf(situation, sites, file)?;
            let behind = file_behind(situation, file);
            Some(Claimant { number, file, behind, row, leaf, lost: Vec::new() })
        })
        .collect();
    let mut winners: HashMap<Served<'_>, Winner<'_>> = HashMap::with_capacity(2 * claimants.len());
    let mut contested: HashSet<Served<'_>> = HashSet::new();
    for (place, claimant) in claimants.iter_mut().enumerate() {
        for served in claimant.served() {
            if winners.entry(served).or_insert((place, claimant.behind)).1 != claimant.behind {
                claimant.lost.push(served);
                contested.insert(served);
            }
        }
    }
    let outcome = |(place, claimant): (usize, &Claimant<'_>)| {
        let is_winner = |served: &Served<'_>| winners.get(served).is_some_and(|it| it.1 == claimant.behind);
        let won = || claimant.served().filter(is_winner);
        let is_wholly_won = claimant.lost.is_empty() && won().all(|served| !contested.contains(&served));
        let addable = place > 0 && is_wholly_won && is_plain_name(claimant.file);
        if let Some((standings, file)) = standings.zip(claimant.file.to_str()) {
            return as_loaded(situation, claimant, addable, standings.get(file), &claimants);
        }
        Outcome {
            is_of_use: false,
            names_won: match claimant.lost.as_slice() {
                [] => NamesWon::AllOf(Arc::clone(claimant.leaf)),
                _ => NamesWon::Some(won().map(|(name, _)| name.to_owned()).collect()),
            },
            addable,
            shadowed: shadowed(situation, claimant, &claimants, &winners),
        }
    };
    let outcomes = claimants.iter().enumerate().map(|it| (it.1.number, outcome(it)));
    outcomes.collect()
}

/// The same by the order in which lines load the files; `addable`: as far as the directory alone says.
fn as_loaded(
    situation: &Situation,
    claimant: &Claimant<'_>,
    addable: bool,
    standing: Option<&Standing<'_>>,
    claimants: &[Claimant<'_>],
) -> Outcome {
    // What no bind loads serves nobody, and nobody takes anything from it.
    let Some(standing) = standing else {
        return Outcome { names_won: NamesWon::None, is_of_use: false, addable, shadowed: None };
    };
    let winner = |lost: &Lost<'_>| {
        // They are in the files' order.
        let place = claimants.binary_search_by(|other| other.file.cmp(OsStr::new(lost.winner))).ok()?;
        claimants.get(place)
    };
    let lost = standing.lost.iter().filter_map(|lost| Some((*lost, winner(lost)?)));
    let shadowed = worst(situation, claimant, lost)
        .map(|(lost, winner)| said(situation, lost.name, winner, &format!("{} loads first", lost.at)));
    Outcome {
        names_won: if standing.wins_all() {
            NamesWon::AllOf(Arc::clone(claimant.leaf))
        } else {
            NamesWon::Some(standing.names_won())
        },
        is_of_use: standing.is_of_use,
        addable: addable && !standing.shares,
        shadowed,
    }
}

/// The worst of the names of ours that are served from another file.
fn shadowed(
    situation: &Situation,
    loser: &Claimant<'_>,
    claimants: &[Claimant<'_>],
    winners: &HashMap<Served<'_>, Winner<'_>>,
) -> Option<(String, bool)> {
    let lost =
        loser.lost.iter().filter_map(|served| Some((served.0, claimants.get(winners.get(served)?.0)?)));
    let (name, winner) = worst(situation, loser, lost)?;
    Some(said(situation, name, winner, "sorts first"))
}

/// What a loser of ours has lost to the worst winner.
fn worst<'c, 'a: 'c, T>(
    situation: &Situation,
    loser: &Claimant<'_>,
    lost: impl Iterator<Item = (T, &'c Claimant<'a>)>,
) -> Option<(T, &'c Claimant<'a>)> {
    if is_foreign(loser.row) {
        return None;
    }
    lost.reduce(
        |worst, next| {
            if next.1.is_alarming(situation) && !worst.1.is_alarming(situation) { next } else { worst }
        },
    )
}

/// A lost name as a fact, and whether it is alarming.
fn said(situation: &Situation, name: &str, winner: &Claimant<'_>, why: &str) -> (String, bool) {
    let besides = match (is_foreign(winner.row), winner.has_expired(situation)) {
        (false, false) => "",
        (true, false) => " and isn't ours",
        (false, true) => " and has expired",
        (true, true) => ", isn't ours and has expired",
    };
    let file = escaped(winner.file.as_encoded_bytes());
    let fact = format!("{} is served from {file}, which {why}{besides}", escaped(name));
    (fact, winner.is_alarming(situation))
}

/// Warns where another file than before answers clients that name no site, or one that nobody has.
pub(super) fn note_default_certificate(situation: &Situation, sites: &mut Files) {
    let presented = |(_, deployed): &(&OsString, &Deployed)| deployed.presented;
    let before = situation.deployed.iter().filter(presented).find(|(file, _)| situation.is_loaded(file));
    let after = sites
        .iter()
        .find(|(file, _)| situation.is_loaded(file) && presented_leaf(situation, sites, file).is_some());
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
