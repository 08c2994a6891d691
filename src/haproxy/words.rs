//! HAProxy's own words about what it could not load, and which files they name. Pure.

use crate::config::Haproxy;

use super::{Change, Target};

/// HAProxy's error lines in one line of bounded, printable ASCII; empty where there are none.
#[must_use]
pub fn words(log: &str) -> String {
    todo_words(log)
}

/// The files that the log names as the ones that could not be loaded: the index in `paths` and the line, each file
/// once, in the order of the log.
#[must_use]
pub fn naming(log: &str, paths: &[String]) -> Vec<(usize, String)> {
    let _ = (log, paths);
    Vec::new()
}

/// The files of a batch that the log names, spelled as this HAProxy's configuration does.
#[must_use]
pub fn named_changes(log: &str, haproxy: &Haproxy, changes: &[Change]) -> Vec<(Target, String)> {
    let paths: Vec<String> = changes
        .iter()
        .map(|change| match &change.target {
            Target::Site(file) => format!("{}/{file}", haproxy.sites_dir),
            Target::Host => haproxy.host_file.clone(),
        })
        .collect();
    naming(log, &paths)
        .into_iter()
        .filter_map(|(index, line)| Some((changes.get(index)?.target.clone(), line)))
        .collect()
}

fn todo_words(log: &str) -> String {
    crate::escape::escaped(log).to_string()
}
