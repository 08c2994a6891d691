//! What an entry of the sites directory serves after the run.

use std::ffi::OsStr;
use std::sync::Arc;

use crate::certified_key::Leaf;
use crate::plan::action::Action;
use crate::plan::files::Files;
use crate::plan::row::Row;
use crate::plan::situation::Situation;

/// The file of the sites directory that HAProxy reads for this entry: a link may lead to another one.
pub(super) fn file_behind<'a>(situation: &'a Situation, file: &'a OsStr) -> &'a OsStr {
    situation.deployed.get(file).and_then(|deployed| deployed.leads_to.as_deref()).unwrap_or(file)
}

/// The leaf that HAProxy serves from this entry after the plan is carried out.
pub(super) fn presented_leaf<'a>(
    situation: &'a Situation,
    sites: &'a Files,
    (file, row): (&'a OsStr, &'a Row),
) -> Option<&'a Arc<Leaf>> {
    let behind = file_behind(situation, file);
    served_leaf(situation, behind, if behind == file { row } else { sites.get(behind)? })
}

/// The leaf that HAProxy serves from this file after the plan is carried out.
fn served_leaf<'a>(situation: &'a Situation, file: &OsStr, row: &'a Row) -> Option<&'a Arc<Leaf>> {
    match row.action {
        Action::Prune => None,
        Action::Install | Action::Replace | Action::Repair => row.leaf.as_ref(),
        // It has what the row says.
        Action::Unchanged => row.leaf.as_ref().filter(|_| row.loadable),
        Action::Refuse | Action::Conflict | Action::Foreign => {
            situation.deployed.get(file).filter(|deployed| deployed.presented)?.leaf.as_ref()
        }
    }
}

pub(crate) fn is_foreign(row: &Row) -> bool {
    matches!(row.action, Action::Foreign | Action::Conflict)
}
