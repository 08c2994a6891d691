//! HAProxys that can't read files of the owner and mode that the settings ask for, or can't come to them.

use std::fs::{Metadata, symlink_metadata};
use std::os::unix::fs::MetadataExt as _;

use crate::config::{Owner, Settings};
use crate::haproxy::process::reader::Shut;
use crate::serving::loads::Loaded;
use crate::status::problem::Problem;
use crate::status::severity::{ProblemKind, Severity};
use crate::sys::escape::escaped_path;

/// One problem for each: critical where a file is there that it can't read, or a directory keeps it from all of them.
#[must_use]
pub fn problems(settings: &Settings, loaded: &Loaded, all: &[Shut]) -> Vec<Problem> {
    if all.is_empty() {
        return Vec::new();
    }
    let files = deployed(settings, loaded);
    let is_shut = |shut: &Shut| {
        shut.folder.is_some()
            || files
                .iter()
                .any(|file| !shut.can_read(Owner { uid: file.uid(), gid: file.gid() }, file.mode()))
    };
    let judged = |shut: &Shut| Problem {
        kind: ProblemKind::SettingsBroken,
        severity: if is_shut(shut) { Severity::Critical } else { Severity::Warning },
        haproxy: Some(shut.haproxy.clone()),
        fact: shut.fact.clone(),
        advice: Some(shut.advice.clone()),
    };
    all.iter().map(judged).collect()
}

/// What opens a directory mends a configuration that HAProxy refuses for it: its words name what it didn't find there.
pub fn advise(all: &[Shut], problems: &mut [Problem]) {
    for problem in problems.iter_mut().filter(|it| it.kind == ProblemKind::HaproxyConfig) {
        let is_for = |shut: &&Shut| {
            let folder = shut.folder.as_deref().map(|folder| escaped_path(folder).to_string());
            problem.haproxy.as_deref() == Some(&*shut.haproxy)
                && folder.is_some_and(|folder| problem.fact.contains(&folder))
        };
        if let Some(shut) = all.iter().find(is_for) {
            problem.advice = Some(shut.advice.clone());
        }
    }
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
