//! The plan, once it is known to which of the files that would go HAProxy has links.

use crate::config::Settings;
use crate::plan::action::Action;
use crate::plan::plan;
use crate::plan::row::Plan;
use crate::plan::situation::Situation;
use crate::serving::sites::links_to;

/// Plans, in the light of the links that HAProxy loads where something would be pruned.
pub(crate) fn decide(settings: &Settings, situation: &mut Situation) -> Plan {
    let first = plan(situation);
    let pruned = first.rows.iter().filter(|row| row.action == Action::Prune);
    let pruned = pruned.filter_map(|row| row.file.as_ref());
    situation.loaded.linked = links_to(&settings.sites_dir, &situation.loaded, pruned);
    if situation.loaded.linked.is_empty() { first } else { plan(situation) }
}
