//! The step "plan": what is decided about every file, once it is known what HAProxy loads where something would be pruned.

use crate::commands::assemble::pruning::{Startable, prunes};
use crate::config::Settings;
use crate::decide::decide;
use crate::haproxy::process::config_check::ConfigCheck;
use crate::plan::plan;
use crate::plan::row::Plan;
use crate::plan::situation::Situation;
use crate::sites::last_start::LastStart;
use crate::sys::system::System;

/// The plan, and the HAProxys that can be asked after its prunes. Where one can't be, and not all of what its configuration
/// names can be seen, nothing is pruned.
pub(crate) fn planned<'s, 'l>(
    settings: &'s Settings,
    system: &System,
    situation: &mut Situation,
    last: impl Fn(&str) -> Option<&'l LastStart>,
) -> (Plan, Vec<Startable<'s>>) {
    let first = decide(settings, situation);
    if !prunes(&first) {
        return (first, Vec::new());
    }
    let loaded = &mut situation.loaded;
    let mut startable = Vec::new();
    for (haproxy, serving) in settings.haproxys.iter().zip(&loaded.servings) {
        let Some(files) = loaded.stopped.get(&haproxy.name) else { continue };
        let one = Startable::new(haproxy, files, last(&haproxy.name));
        match (one.ask(system), &serving.unseen) {
            (ConfigCheck::Valid, _) => startable.push(one),
            (ConfigCheck::Invalid { .. } | ConfigCheck::Unchecked(_), Some(why)) => {
                loaded.unseen.get_or_insert_with(|| why.clone());
            }
            (ConfigCheck::Invalid { .. } | ConfigCheck::Unchecked(_), None) => {}
        }
    }
    let settled = if situation.loaded.unseen.is_some() { plan(situation) } else { first };
    (settled, startable)
}
