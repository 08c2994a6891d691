//! What HAProxy serves from which file: shadowed names, and the default certificate.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};

use super::elsewhere;
use crate::certified_key::KeyFamily;
use crate::plan::names::is_loaded_name;
use crate::plan::row::Row;
use crate::plan::served::{is_foreign, served_leaf};
use crate::plan::situation::{Deployed, Situation};
use crate::plan::warning::Warning;
use crate::sys::escape::escaped;

/// A name and the family of keys that it is served with: HAProxy keeps one certificate for each.
type Served = (String, KeyFamily);

/// The file that HAProxy serves a name from.
struct Winner {
    file: OsString,
    /// It isn't ours.
    foreign: bool,
    /// It has expired.
    expired: bool,
}

impl Winner {
    /// Whoever is shadowed by it is not served as certbot's user expects.
    fn alarming(&self) -> bool {
        self.foreign || self.expired
    }
}

/// What became of one file's names.
#[derive(Default)]
struct Claim {
    won: Vec<Served>,
    lost: Vec<Served>,
}

/// Notes which file wins which name: HAProxy serves a name from the first file, in byte order, that has it with a key
/// of that family, whatever the dates (measured with 2.6, 3.0 and 3.5-dev).
pub(super) fn note_shadows(situation: &Situation, sites: &mut BTreeMap<OsString, Row>) {
    let mut winners: HashMap<Served, Winner> = HashMap::new();
    let mut claims: Vec<(OsString, Claim)> = Vec::new();
    for (file, row) in sites.iter().filter(|(file, _)| is_loaded_name(file)) {
        let Some(leaf) = served_leaf(situation, file, row) else { continue };
        let mut claim = Claim::default();
        for name in leaf.served_names() {
            let served = (name.to_owned(), leaf.key_type.family());
            if winners.contains_key(&served) {
                claim.lost.push(served);
                continue;
            }
            let (foreign, expired) = (is_foreign(row), leaf.not_after < situation.now);
            winners.insert(served.clone(), Winner { file: file.clone(), foreign, expired });
            claim.won.push(served);
        }
        claims.push((file.clone(), claim));
    }
    let contested: BTreeSet<Served> =
        claims.iter().flat_map(|(_, claim)| claim.lost.iter().cloned()).collect();
    for (position, (file, claim)) in claims.into_iter().enumerate() {
        let Some(row) = sites.get_mut(&file) else { continue };
        row.addable = position > 0
            && claim.lost.is_empty()
            && is_plain_name(&file)
            && claim.won.iter().all(|served| !contested.contains(served));
        if !is_foreign(row) {
            note_lost(row, &claim.lost, &winners);
        }
        row.names_won = claim.won.into_iter().map(|(name, _)| name).collect();
    }
}

/// Warns of the names that are served from another file; the worst one is named.
fn note_lost(row: &mut Row, lost: &[Served], winners: &HashMap<Served, Winner>) {
    let worst = lost
        .iter()
        .filter_map(|served| Some((served, winners.get(served)?)))
        .reduce(|worst, next| if next.1.alarming() && !worst.1.alarming() { next } else { worst });
    let Some(((name, _), winner)) = worst else { return };
    row.warnings.insert(Warning::Shadowed);
    row.alarming |= winner.alarming();
    row.detail.get_or_insert_with(|| {
        let besides = match (winner.foreign, winner.expired) {
            (false, false) => "",
            (true, false) => " and isn't ours",
            (false, true) => " and has expired",
            (true, true) => ", isn't ours and has expired",
        };
        let winner = escaped(winner.file.as_encoded_bytes());
        format!("{} is served from {winner}, which sorts first{besides}", escaped(name))
    });
}

/// Warns where another file than before answers clients that name no site, or one that nobody has.
pub(super) fn note_default_certificate(situation: &Situation, sites: &mut BTreeMap<OsString, Row>) {
    let loadable = |(_, deployed): &(&OsString, &Deployed)| deployed.is_loadable();
    let before = situation.deployed.iter().filter(loadable).find(|(file, _)| is_loaded_name(file));
    let after =
        sites.iter().find(|(file, row)| is_loaded_name(file) && served_leaf(situation, file, row).is_some());
    let (Some((before, _)), Some((after, _))) = (before, after) else { return };
    if before == after {
        return;
    }
    let (before, after) = (before.clone(), after.clone());
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
