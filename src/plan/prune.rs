//! What keeps a file from being pruned although its lineage is gone.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use crate::plan::action::Action;
use crate::plan::files::Files;
use crate::plan::hold::Hold;
use crate::plan::refusal::force;
use crate::plan::row::{Plan, Role, Row};
use crate::plan::situation::{Recorded, Situation};
use crate::plan::warning::Warning;
use crate::sys::escape::{escaped, escaped_path};

/// How many of our files may be pruned at once whatever their share.
const PRUNE_FREELY: usize = 3;

/// Holds back prunes that would do harm.
pub(super) fn guard_prunes(situation: &Situation, sites: &mut Files) {
    let differ = situation.recorded.keys().filter(|file| situation.deployed.contains_key(*file)).count();
    let ours = differ + situation.unchanged.len();
    let candidates = sites.iter().filter(|(_, row)| row.action == Action::Prune).count();
    let too_many = candidates > PRUNE_FREELY && candidates * 4 > ours && !situation.policy.prune_many;
    // Of a fleet's lineages this host has no directory.
    let (empty, elsewhere, many) = if situation.policy.follows {
        (
            "the fleet has no lineage at all",
            "it was written from elsewhere, and not from the fleet",
            "too many to prune at once; if meant, for every node, on the publisher: fleet publish --prune-many; for this \
             one, here: assemble --prune-many",
        )
    } else {
        (
            "live_dir has no lineage at all",
            "it was written from another live directory; see live_dir",
            "too many to prune at once; if meant: assemble --prune-many",
        )
    };
    let refused = |file: &OsString, recorded: &Recorded| {
        let words =
            recorded.prune_refused.as_ref().filter(|_| !situation.policy.force.contains(&recorded.lineage));
        words.map(|words| (file.clone(), words.clone()))
    };
    let refused: BTreeMap<OsString, String> =
        situation.recorded.iter().filter_map(|(file, recorded)| refused(file, recorded)).collect();
    for row in sites.iter_mut().filter(|row| row.action == Action::Prune) {
        let Some(file) = row.file.clone() else { continue };
        let same_tree = situation.recorded.get(&file).is_some_and(|recorded| recorded.same_tree);
        if situation.policy.no_prune {
            row.keep();
        } else if situation.policy.follows && !same_tree {
            row.hold(Hold::Elsewhere, elsewhere);
        } else if !situation.any_lineage {
            row.hold(Hold::Orphan, empty);
        } else if !same_tree {
            row.hold(Hold::Orphan, elsewhere);
        } else if situation.loaded.named.contains_key(&file) {
            row.hold(Hold::Needed, &named(situation, &file));
        } else if let Some(link) = situation.loaded.linked.get(&file) {
            let link = escaped_path(link);
            let why = format!(
                "HAProxy doesn't start without it, since the link {link} leads to it; remove the link first"
            );
            row.hold(Hold::Needed, &why);
        } else if let Some(at) = situation.loaded.mentioned.get(&file) {
            let why = format!(
                "HAProxy may need it, since {at} names a file of this name; take it out of that line"
            );
            row.hold(Hold::Needed, &why);
        } else if let Some(why) = &situation.loaded.unseen {
            row.hold(Hold::Needed, &format!("whether HAProxy needs it can't be seen: {why}"));
        } else if too_many {
            row.hold(Hold::TooMany, many);
        } else if let Some(words) = refused.get(&file) {
            row.hold_as_refused(words);
        }
    }
}

/// HAProxy doesn't start without a file that a line of its configuration names by itself.
fn named(situation: &Situation, file: &OsStr) -> String {
    let at = situation.loaded.named.get(file).map(ToString::to_string).unwrap_or_default();
    format!("HAProxy doesn't start without it, since {at} names it; take it out of that line")
}

/// Why the last file isn't pruned.
pub const LAST_FILE: &str =
    "HAProxy doesn't start with an empty directory, and this is its last file; deploy another first";

impl Plan {
    /// Holds back the last prune that would leave HAProxy without a file to load: it doesn't start with an empty
    /// directory.
    pub fn hold_last_file(&mut self) {
        let remains = |row: &Row| row.action.writes() || (row.loadable && row.action != Action::Prune);
        let mut sites = self.rows.iter_mut().filter(|row| row.role == Role::Site);
        if sites.any(|row| remains(row)) {
            return;
        }
        let last = self.rows.iter_mut().rfind(|row| row.action == Action::Prune && row.loadable);
        if let Some(row) = last {
            row.hold(Hold::Needed, LAST_FILE);
        }
    }
}

impl Row {
    /// A row for a file that was pruned by an earlier run, and had to be put back.
    #[must_use]
    pub fn put_back(file: OsString, lineage: OsString, sha256: Option<[u8; 32]>) -> Self {
        let mut row = Self::new(Role::Site, Action::Prune);
        (row.file, row.lineage, row.before) = (Some(file), Some(lineage), sha256);
        row
    }

    fn keep(&mut self) {
        self.action = Action::Unchanged;
        self.sha256 = self.before;
    }

    /// Turns a prune into a file that is kept, and says why.
    pub fn hold(&mut self, hold: Hold, why: &str) {
        self.keep();
        self.held = Some(hold);
        // What is found out later says more.
        self.warnings.correct(Warning::PruneHeld, format!("kept: {why}"));
        self.alarming |= hold.is_alarming();
    }

    /// The same for a file that HAProxy refuses to be without.
    pub fn hold_as_refused(&mut self, words: &str) {
        let lineage = self.lineage.as_ref().map(|lineage| force(lineage)).unwrap_or_default();
        let file =
            self.file.as_ref().map(|file| escaped(file.as_encoded_bytes()).to_string()).unwrap_or_default();
        let why = format!(
            "HAProxy's configuration needs it ({words}); take {file} out of there, then run {lineage}"
        );
        self.hold(Hold::Needed, &why);
    }
}
