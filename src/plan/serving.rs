//! What HAProxy serves from which file: shadowed names, and the default certificate.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use super::elsewhere;
use crate::certified_key::{KeyFamily, Leaf};
use crate::plan::files::Files;
use crate::plan::load_order::{Lost, Standing, standings};
use crate::plan::planned::PlannedBind;
use crate::plan::row::{NamesWon, Row};
use crate::plan::served::{file_behind, is_foreign, presented_leaf};
use crate::plan::situation::Situation;
use crate::plan::warning::Warning;
use crate::sys::escape::escaped;

/// A name and the family of keys that it is served with: HAProxy keeps one certificate for each.
type Served<'a> = (&'a str, KeyFamily);

/// What HAProxy serves from each file, by the files' places; `None`: nothing.
type Leaves = [Option<Arc<Leaf>>];

/// A file that HAProxy serves something from.
#[derive(Clone, Copy)]
struct Claimant<'a> {
    file: &'a OsStr,
    row: &'a Row,
    leaf: &'a Arc<Leaf>,
}

impl<'a> Claimant<'a> {
    fn at(sites: &'a Files, leaves: &'a Leaves, place: usize) -> Option<Self> {
        let (file, row) = sites.at(place)?;
        Some(Self { file, row, leaf: leaves.get(place)?.as_ref()? })
    }

    fn has_expired(&self, situation: &Situation) -> bool {
        self.leaf.not_after < situation.now
    }

    /// Whoever is shadowed by it is not served as certbot's user expects.
    fn is_alarming(&self, situation: &Situation) -> bool {
        is_foreign(self.row) || self.has_expired(situation)
    }
}

fn served(leaf: &Leaf) -> impl Iterator<Item = Served<'_>> {
    let family = leaf.key_type.family();
    leaf.served_names().map(move |name| (name, family))
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
    let presented = |(file, row): (&OsStr, &Row)| {
        presented_leaf(situation, sites, (file, row)).filter(|_| situation.is_loaded(file)).cloned()
    };
    let leaves: Vec<Option<Arc<Leaf>>> = sites.iter().map(presented).collect();
    let winners = contested(situation, sites, &leaves);
    let mut is_first = true;
    for place in 0..leaves.len() {
        let Some(claimant) = Claimant::at(sites, &leaves, place) else { continue };
        let addable = !std::mem::take(&mut is_first)
            && !served(claimant.leaf).any(|served| winners.contains_key(&served))
            && is_plain_name(claimant.file);
        let outcome = match &standings {
            Some(standings) => {
                let standing = standings.get(claimant.file.to_string_lossy().as_ref());
                as_loaded(situation, sites, &leaves, claimant, standing)
            }
            None => as_named(situation, sites, &leaves, claimant, &winners),
        };
        let Some(row) = sites.at_mut(place) else { return };
        (row.names_won, row.addable) = (outcome.names_won, addable && outcome.addable);
        row.is_of_use = outcome.is_of_use;
        if let Some((fact, is_alarming)) = outcome.shadowed {
            row.warnings.explain(Warning::Shadowed, fact);
            row.alarming |= is_alarming;
        }
    }
}

/// What several files have, and the first of them, by its place: whose it is.
fn contested<'a>(situation: &Situation, sites: &Files, leaves: &'a Leaves) -> HashMap<Served<'a>, usize> {
    let all = || leaves.iter().enumerate().filter_map(|(place, leaf)| Some((place, leaf.as_deref()?)));
    // Nearly all names have one file: no more than a number is kept of each.
    let random = RandomState::new();
    let each = all().flat_map(|(_, leaf)| served(leaf));
    let mut hashes: Vec<u64> = each.map(|served| random.hash_one(served)).collect();
    hashes.sort_unstable();
    let repeated = hashes.chunk_by(u64::eq).filter(|same| same.len() > 1).flatten().copied();
    let repeated: HashSet<u64> = repeated.collect();
    if repeated.is_empty() {
        return HashMap::new();
    }
    let behind = |place| sites.at(place).map(|(file, _)| file_behind(situation, file));
    let (mut winners, mut contested) = (HashMap::new(), HashSet::new());
    for (place, leaf) in all() {
        for served in served(leaf).filter(|served| repeated.contains(&random.hash_one(served))) {
            if behind(*winners.entry(served).or_insert(place)) != behind(place) {
                contested.insert(served);
            }
        }
    }
    winners.retain(|served, _| contested.contains(served));
    winners
}

/// By the order of the files' names.
fn as_named(
    situation: &Situation,
    sites: &Files,
    leaves: &Leaves,
    claimant: Claimant<'_>,
    winners: &HashMap<Served<'_>, usize>,
) -> Outcome {
    let behind = file_behind(situation, claimant.file);
    let winner = |served: &Served<'_>| {
        let winner = Claimant::at(sites, leaves, *winners.get(served)?)?;
        (file_behind(situation, winner.file) != behind).then_some(winner)
    };
    let lost: Vec<(&str, Claimant<'_>)> =
        served(claimant.leaf).filter_map(|served| Some((served.0, winner(&served)?))).collect();
    let won = served(claimant.leaf).filter(|served| winner(served).is_none());
    Outcome {
        names_won: match lost.as_slice() {
            [] => NamesWon::AllOf(Arc::clone(claimant.leaf)),
            _ => NamesWon::Some(won.map(|(name, _)| name.to_owned()).collect()),
        },
        is_of_use: false,
        addable: true,
        shadowed: worst(situation, claimant, lost.into_iter())
            .map(|(name, winner)| said(situation, name, winner, "sorts first")),
    }
}

/// By the order in which lines load the files.
fn as_loaded(
    situation: &Situation,
    sites: &Files,
    leaves: &Leaves,
    claimant: Claimant<'_>,
    standing: Option<&Standing<'_>>,
) -> Outcome {
    // What no bind loads serves nobody, and nobody takes anything from it.
    let Some(standing) = standing else {
        return Outcome { names_won: NamesWon::None, is_of_use: false, addable: true, shadowed: None };
    };
    // The name of one that isn't UTF-8 is only known as HAProxy's replies are read.
    let is_winner = |file: &OsStr, lost: &Lost<'_>| file.to_string_lossy() == lost.winner;
    let place_of = |lost: &Lost<'_>| {
        let place = sites.place(OsStr::new(lost.winner));
        place.or_else(|| sites.iter().position(|(file, _)| is_winner(file, lost)))
    };
    let winner = |lost: &Lost<'_>| Claimant::at(sites, leaves, place_of(lost)?);
    let lost = standing.lost.iter().filter_map(|lost| Some((*lost, winner(lost)?)));
    let shadowed = worst(situation, claimant, lost)
        .map(|(lost, winner)| said(situation, lost.name, winner, &format!("{} loads first", lost.at)));
    Outcome {
        names_won: if standing.wins_all() {
            NamesWon::AllOf(Arc::clone(claimant.leaf))
        } else {
            NamesWon::Some(standing.names_won().into())
        },
        is_of_use: standing.is_of_use,
        addable: !standing.shares,
        shadowed,
    }
}

/// What a loser of ours has lost to the worst winner.
fn worst<'a, T>(
    situation: &Situation,
    loser: Claimant<'_>,
    lost: impl Iterator<Item = (T, Claimant<'a>)>,
) -> Option<(T, Claimant<'a>)> {
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
fn said(situation: &Situation, name: &str, winner: Claimant<'_>, why: &str) -> (String, bool) {
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
    // Of the files that aren't among those that were found the unchanged ones hold something: all are presented.
    let presented_before = |(file, row): &(&OsStr, &Row)| match situation.deployed.get(*file) {
        Some(deployed) => deployed.presented,
        None => row.before.is_some(),
    };
    let presented_after = |it: &(&OsStr, &Row)| presented_leaf(situation, sites, *it).is_some();
    let loaded = || sites.iter().filter(|(file, _)| situation.is_loaded(file));
    let (before, after) = (loaded().find(presented_before), loaded().find(presented_after));
    let (Some((before, _)), Some((after, _))) = (before, after) else { return };
    if before == after {
        return;
    }
    let (before, after) = (before.to_owned(), after.to_owned());
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
    let fact = format!("{said}, which was {}", escaped(before.as_encoded_bytes()));
    row.warnings.explain(Warning::DefaultCertificateChanged, fact);
}

/// Whether a file's name needs no quoting in HAProxy's commands.
fn is_plain_name(file: &OsStr) -> bool {
    file.as_encoded_bytes().iter().all(|byte| byte.is_ascii_alphanumeric() || b"._:-".contains(byte))
}
