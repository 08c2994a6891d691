//! Files that a HAProxy can read stay as they are where it couldn't read what would take their place.

use crate::haproxy::process::reader::Shut;
use crate::output::Note;
use crate::plan::reason::Reason;
use crate::plan::refusal::Refusal;
use crate::plan::row::{Plan, Role, Row};
use crate::plan::situation::{Deployed, EntryKind, Situation};

/// Refuses the rows that would take a file from a HAProxy. What none of them can read as it is gets no worse.
pub(crate) fn hold(shut: &[Shut], situation: &Situation, plan: &mut Plan) {
    let deployed = |row: &Row| -> Option<&Deployed> {
        match row.role {
            Role::Site => situation.deployed.get(row.file.as_ref()?),
            Role::Host => situation.host.as_ref()?.deployed.as_ref(),
        }
    };
    for row in plan.rows.iter_mut().filter(|row| row.action.writes()) {
        let kept = deployed(row).map(|deployed| &deployed.kind);
        let takes = shut.iter().find(|shut| match kept {
            Some(&EntryKind::Regular { owner, mode }) => shut.loses(owner, mode),
            Some(_) | None => true,
        });
        if let Some(shut) = takes {
            let is_new = kept.is_none();
            let deed = if is_new { "it isn't written" } else { "its file stays as it is" };
            row.refuse(Refusal::new(Reason::HaproxyRejects, format!("{}: {deed}", shut.fact)));
        }
    }
}

/// What is to be said of them.
pub(crate) fn notes(shut: &[Shut]) -> impl Iterator<Item = Note> {
    shut.iter().map(|shut| Note::alarm(format!("{}: {}", shut.fact, shut.advice)))
}
