//! What the commands of `fleet` say: for people, for scripts, for monitoring plugins, for Prometheus. Pure.

pub mod human;
pub mod json;
pub mod monitoring;
pub mod prometheus;

use std::collections::BTreeMap;

use crate::fleet::overview::FleetOverview;

/// The verdict in one line, without its first word.
#[must_use]
pub fn verdict(overview: &FleetOverview) -> String {
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, problem) in overview.all_problems() {
        *kinds.entry(problem.trouble.name()).or_default() += 1;
    }
    let nodes = overview.nodes.len();
    let number = overview.head.as_ref().map(|head| head.head.sequence);
    let of = match number {
        Some(number) => format!("{} of {nodes} nodes confirmed number {number}", overview.confirmed()),
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
