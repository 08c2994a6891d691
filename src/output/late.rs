//! Deploys that don't come: what has been refused for longer than a day makes the run fail, so that `systemctl --failed` shows
//! it. Pure.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, BTreeSet};

use super::Report;
use crate::plan::action::Action;
use crate::plan::row::Row;
use crate::sys::escape::escaped;

/// How long a lineage may stay refused or in conflict before the run fails, in seconds.
const PATIENCE: i64 = 24 * 60 * 60;

/// What isn't deployed after this run, and since when: `before` is what an earlier one recorded. Of what a run that failed
/// didn't come to nothing else is known.
#[must_use]
pub fn undeployed(report: &Report, before: &BTreeMap<String, i64>, now: i64) -> BTreeMap<String, i64> {
    let is_left = |row: &&Row| matches!(row.action, Action::Refuse | Action::Conflict);
    let name = |row: &Row| {
        let name = row.file.as_ref().or(row.lineage.as_ref())?;
        Some(escaped(name.as_encoded_bytes()).to_string())
    };
    let left = report.rows.iter().filter(is_left).filter_map(name);
    let mut all: BTreeMap<String, i64> = left
        .map(|name| {
            let since = before.get(&name).copied().filter(|&since| since <= now).unwrap_or(now);
            (name, since)
        })
        .collect();
    if report.error.is_some() {
        let is_deployed = |row: &&Row| row.proved && !is_left(row);
        let deployed: BTreeSet<String> = report.rows.iter().filter(is_deployed).filter_map(name).collect();
        for (name, since) in before.iter().filter(|(name, _)| !deployed.contains(*name)) {
            all.entry(name.clone()).or_insert(*since);
        }
    }
    all
}

/// The first of those that have been waited for too long.
#[must_use]
pub fn late(undeployed: &BTreeMap<String, i64>, now: i64) -> Option<&str> {
    let is_late = |(_, since): &(&String, &i64)| now.saturating_sub(**since) > PATIENCE;
    undeployed.iter().find(is_late).map(|(name, _)| name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_for_more_than_a_day_is_late() {
        let undeployed: BTreeMap<String, i64> = [("a.pem".to_owned(), 1_000), ("b.pem".to_owned(), 9)].into();
        assert_eq!(late(&undeployed, 1_000), None);
        assert_eq!(late(&undeployed, PATIENCE + 9), None);
        assert_eq!(late(&undeployed, PATIENCE + 10), Some("b.pem"));
        assert_eq!(late(&BTreeMap::new(), i64::MAX), None);
    }
}
