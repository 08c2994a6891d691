//! What the commands of `fleet` say: for people, for browsers, for scripts, for monitoring plugins, for Prometheus. Pure.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod html;
pub mod human;
pub mod json;
pub mod matrix;
pub mod monitoring;
pub mod prometheus;

use std::collections::{BTreeMap, BTreeSet};

use crate::fleet::head::Head;
use crate::fleet::overview::{FleetOverview, NodeRow};
use crate::fleet::report::EVERYTHING;
use crate::status::advice::span;

/// The verdict in one line, without its first word.
#[must_use]
pub fn verdict(overview: &FleetOverview) -> String {
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, problem) in overview.all_problems() {
        *kinds.entry(problem.trouble.name()).or_default() += 1;
    }
    let nodes = overview.nodes.len();
    let number = overview.head.as_ref().map(|head| head.head.sequence);
    let leave_out = overview.nodes.iter().filter(|node| node.left_out().next().is_some()).count();
    let leave_out = if leave_out > 0 { format!(", {leave_out} not all of it") } else { String::new() };
    let of = match number {
        Some(number) => {
            format!("{} of {nodes} nodes confirmed number {number}{leave_out}", overview.confirmed())
        }
        None => "the fleet has no head that counts".to_owned(),
    };
    if kinds.is_empty() {
        return of;
    }
    let kinds: Vec<String> = kinds
        .into_iter()
        .map(|(kind, count)| if count == 1 { kind.to_owned() } else { format!("{count} {kind}") })
        .collect();
    format!("{of}; {}", kinds.join(", "))
}

/// Which head it is, for how long it counts, and where the store is.
#[must_use]
pub fn head_line(overview: &FleetOverview) -> String {
    let FleetOverview { fleet, store, .. } = overview;
    let Some(signed) = &overview.head else { return format!("{fleet}: store {store}") };
    let lineages = overview.lineages.as_ref().map(|lineages| counted(lineages.all.len(), "lineage"));
    let lineages = lineages.map(|lineages| format!(", {lineages}")).unwrap_or_default();
    format!("{fleet}: {}{lineages}; store {store}", head_words(&signed.head, overview.at))
}

/// Which head it is, and for how long it counts.
#[must_use]
pub fn head_words(head: &Head, at: i64) -> String {
    let age = span((at - head.signed).max(0));
    let left = head.expires - at;
    let counts = if left > 0 { format!("counts for {}", span(left)) } else { "is past its time".to_owned() };
    format!("number {} of {age} ago, {counts}", head.sequence)
}

/// What a node serves, by its report.
#[must_use]
pub fn serves(node: &NodeRow) -> String {
    let Some(report) = &node.report else { return "unknown".to_owned() };
    if report.number().is_none() {
        return "unknown".to_owned();
    }
    let exceptions = report.exceptions.len();
    if exceptions == 0 && !report.confirmed {
        return "not confirmed".to_owned();
    }
    let left_out: BTreeSet<&str> = node.left_out().map(|note| note.lineage.as_str()).collect();
    let mut but = Vec::new();
    if exceptions > 0 {
        but.push(counted(exceptions, "exception"));
    }
    let named = left_out.iter().filter(|name| **name != EVERYTHING).count();
    if named > 0 {
        but.push(counted(named, "lineage"));
    }
    if left_out.contains(EVERYTHING) {
        but.push("more".to_owned());
    }
    if but.is_empty() { "all of it".to_owned() } else { format!("all but {}", but.join(" and ")) }
}

/// So many of these.
#[must_use]
pub fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}
