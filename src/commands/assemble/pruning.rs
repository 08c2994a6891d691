//! Prunes while a HAProxy is down: nobody refuses a reload then, and a file that it needs would be missed at its next start.

use std::path::PathBuf;

use crate::config::{Haproxy, Settings};
use crate::haproxy::process::config_check::ConfigCheck;
use crate::haproxy::process::stopped::would_start;
use crate::plan::action::Action;
use crate::plan::plan;
use crate::plan::row::Plan;
use crate::plan::situation::Situation;
use crate::sites::commit::Committed;
use crate::sites::last_start::LastStart;
use crate::sweep::decide;
use crate::sys::system::System;

/// A HAProxy that doesn't run, and that would start from its configuration.
pub(crate) struct Startable<'a> {
    haproxy: &'a Haproxy,
    files: Vec<PathBuf>,
    openssl_conf: Option<String>,
}

impl Startable<'_> {
    fn ask(&self, system: &System) -> ConfigCheck {
        would_start(system, self.haproxy, &self.files, self.openssl_conf.as_deref())
    }
}

fn prunes(plan: &Plan) -> bool {
    plan.rows.iter().any(|row| row.action == Action::Prune)
}

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
        let openssl_conf = last(&haproxy.name).and_then(|last| last.openssl_conf.clone());
        let one = Startable { haproxy, files: files.clone(), openssl_conf };
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

/// Asks them again, now that the files are gone; where one wouldn't start any more, they come back.
pub(crate) fn verified(
    system: &System,
    startable: &[Startable<'_>],
    committed: &mut Committed<'_>,
    identity: &str,
) {
    if !prunes(&committed.plan) {
        return;
    }
    for one in startable {
        let ConfigCheck::Invalid { words, .. } = one.ask(system) else { continue };
        let back = committed.put_prunes_back(&words);
        // Where it refuses still, something else is the cause.
        if one.ask(system) == ConfigCheck::Valid {
            committed.remember_prunes(&back, &words, identity);
        }
        return;
    }
}
