//! What keeps a file from being pruned although its lineage is gone.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use super::{Action, Plan, Role, Row, Situation, Warning};

/// How many of our files may be pruned at once whatever their share.
const PRUNE_FREELY: usize = 3;

/// Holds back prunes that would do harm.
pub(super) fn guard_prunes(situation: &Situation, sites: &mut BTreeMap<OsString, Row>) {
    let ours = situation.recorded.keys().filter(|file| situation.deployed.contains_key(*file)).count();
    let candidates = sites.values().filter(|row| row.action == Action::Prune).count();
    let too_many = candidates > PRUNE_FREELY && candidates * 4 > ours && !situation.policy.prune_many;
    for (file, row) in sites.iter_mut().filter(|(_, row)| row.action == Action::Prune) {
        let same_tree = situation.recorded.get(file).is_some_and(|recorded| recorded.same_tree);
        match () {
            () if situation.policy.no_prune => keep(row),
            () if !situation.any_lineage => hold(row, "live_dir has no lineage at all"),
            () if !same_tree => hold(row, "it was written from another live directory; see live_dir"),
            () if situation.loaded.named.contains_key(file) => hold(row, &named(situation, file)),
            () if too_many => hold(row, "too many to prune at once; if meant: assemble --prune-many"),
            () => {}
        }
    }
}

/// HAProxy doesn't start without a file that a line of its configuration names by itself.
fn named(situation: &Situation, file: &OsStr) -> String {
    let at = situation.loaded.named.get(file).map(ToString::to_string).unwrap_or_default();
    format!("HAProxy doesn't start without it, since {at} names it; take it out of that line")
}

impl Plan {
    /// Holds back the last prune that would leave HAProxy without a file to load: it doesn't start with an empty
    /// directory. To be asked again whenever a file that was to be written can't be.
    pub fn hold_last_file(&mut self) {
        let remains = |row: &Row| row.action.writes() || (row.loadable && row.action != Action::Prune);
        let mut sites = self.rows.iter_mut().filter(|row| row.role == Role::Site);
        if sites.any(|row| remains(row)) {
            return;
        }
        let last = self.rows.iter_mut().rfind(|row| row.action == Action::Prune && row.loadable);
        if let Some(row) = last {
            hold(
                row,
                "HAProxy doesn't start with an empty directory, and this is its last file; deploy another first",
            );
        }
    }
}

fn keep(row: &mut Row) {
    row.action = Action::Unchanged;
    row.sha256 = row.before;
}

fn hold(row: &mut Row, why: &str) {
    keep(row);
    row.warnings.insert(Warning::PruneHeld);
    row.detail = Some(format!("kept: {why}"));
    row.alarming = true;
}
