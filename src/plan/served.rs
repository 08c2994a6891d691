//! What a file of the sites directory serves after the run.

use std::ffi::OsStr;
use std::sync::Arc;

use crate::certified_key::Leaf;
use crate::plan::action::Action;
use crate::plan::row::Row;
use crate::plan::situation::Situation;

/// The leaf that HAProxy serves from this file after the plan is carried out.
pub(crate) fn served_leaf<'a>(situation: &'a Situation, file: &OsStr, row: &'a Row) -> Option<&'a Arc<Leaf>> {
    match row.action {
        Action::Prune => None,
        Action::Install | Action::Replace | Action::Repair => row.leaf.as_ref(),
        // It has what the row says.
        Action::Unchanged => row.leaf.as_ref().filter(|_| row.loadable),
        Action::Refuse | Action::Conflict | Action::Foreign => {
            situation.deployed.get(file).filter(|deployed| deployed.is_loadable())?.leaf.as_ref()
        }
    }
}

pub(crate) fn is_foreign(row: &Row) -> bool {
    matches!(row.action, Action::Foreign | Action::Conflict)
}
