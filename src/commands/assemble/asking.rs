//! Asking HAProxy whether it would load what is staged.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::config::Settings;
use crate::haproxy::process::environment::{OPENSSL_CONF, value};
use crate::haproxy::process::surroundings::{remembered, surroundings};
use crate::haproxy::staged_check::{self, Unchecked};
use crate::plan::reason::Reason;
use crate::plan::refusal::Refusal;
use crate::plan::row::Role;
use crate::plan::warning::Warning;
use crate::sites::stage::Staged;
use crate::sys::system::System;

/// Asks HAProxy whether it would load what is staged; what it rejects is refused.
pub(crate) fn ask(settings: &Settings, system: &System, staged: &mut Staged<'_>) {
    let mut asked = BTreeSet::new();
    for haproxy in &settings.haproxys {
        let Some(binary) = &haproxy.binary else { continue };
        let host = staged.show_host();
        let files: Vec<String> = staged.files().into_iter().chain(host.clone()).collect();
        if files.is_empty() {
            continue;
        }
        let seen = surroundings(system, haproxy);
        if let Some(seen) = &seen {
            let file = value(&seen.environment, OPENSSL_CONF).map(str::to_owned);
            staged.sites().remember_start(&haproxy.name, |start| start.openssl_conf = file);
        }
        let last = staged.sites().state.last_start.get(&haproxy.name);
        let surroundings =
            seen.or_else(|| last.and_then(|last| last.openssl_conf.as_deref()).map(remembered));
        if !asked.insert((binary, surroundings.clone())) {
            if let Some(host) = &host {
                staged.drop_file(host);
            }
            continue;
        }
        staged.copy_siblings();
        let deadline = Instant::now() + haproxy.timeout;
        let mut remove = |file: &str| {
            staged.drop_file(file);
            Ok(())
        };
        let folder = staged.folder();
        let answer = staged_check::staged(
            system,
            haproxy,
            surroundings.as_ref(),
            folder,
            &files,
            deadline,
            &mut remove,
        );
        let rejected: BTreeMap<String, String> = answer.rejected.into_iter().collect();
        for file in rejected.keys().chain(&host) {
            staged.drop_file(file);
        }
        let unchecked = answer.checked.err();
        staged.amend(|row| {
            if !row.action.writes() {
                return;
            }
            let file = match row.role {
                Role::Site => row.file.as_ref().and_then(|file| file.to_str()),
                Role::Host => host.as_deref(),
            };
            let Some(file) = file else { return };
            if let Some(words) = rejected.get(file) {
                row.refuse(Refusal::new(Reason::HaproxyRejects, words.clone()));
            } else if let Some(Unchecked { why, .. }) =
                unchecked.as_ref().filter(|it| it.files.contains(file))
            {
                row.warnings.explain(Warning::NotChecked, why.clone());
            }
        });
    }
}
