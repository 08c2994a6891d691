//! HAProxys that can't read files of the owner and mode that the settings ask for.

use std::fs::{Metadata, symlink_metadata};
use std::os::unix::fs::MetadataExt as _;

use crate::config::{Owner, Settings};
use crate::haproxy::process::reader::{Shut, shut};
use crate::serving::loads::Loaded;
use crate::status::problem::Problem;
use crate::status::severity::{ProblemKind, Severity};
use crate::sys::system::System;

/// One problem for each: critical where a file is there that it can't read.
#[must_use]
pub fn problems(settings: &Settings, system: &System, loaded: &Loaded) -> Vec<Problem> {
    let all = shut(settings, system, loaded);
    if all.is_empty() {
        return Vec::new();
    }
    let files = deployed(settings, loaded);
    let is_shut = |shut: &Shut| {
        files.iter().any(|file| !shut.can_read(Owner { uid: file.uid(), gid: file.gid() }, file.mode()))
    };
    let judged = |shut: Shut| Problem {
        kind: ProblemKind::SettingsBroken,
        severity: if is_shut(&shut) { Severity::Critical } else { Severity::Warning },
        haproxy: Some(shut.haproxy),
        fact: shut.fact,
        advice: Some(shut.advice),
    };
    all.into_iter().map(judged).collect()
}

/// The regular files of the sites directory that may be loaded, and the host certificate where it is.
fn deployed(settings: &Settings, loaded: &Loaded) -> Vec<Metadata> {
    let entries = std::fs::read_dir(&settings.sites_dir).into_iter().flatten().flatten();
    let sites =
        entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|it| it == "pem"));
    let mut stores = loaded.servings.iter().flat_map(|serving| serving.stores.values());
    let loads_host = loaded.host.is_some() && stores.any(|store| store.identity == loaded.host);
    let files = sites.chain(loads_host.then(|| settings.host_file.clone()));
    files.filter_map(|path| symlink_metadata(path).ok()).filter(Metadata::is_file).collect()
}
