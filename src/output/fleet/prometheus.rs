//! `fleet status` for Prometheus, in the text exposition format.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use crate::fleet::overview::{FleetOverview, FleetProblem, NodeRow};
use crate::output::status::prometheus::Page;
use crate::status::severity::Severity;

const STATE: &str = "The state of the fleet: 0 ok, 1 warning, 2 critical, 3 unknown.";
const LEFT_OUT: &str = "How much of the head the node leaves out, or presents otherwise, for good.";
const LOOKED: &str = "When the fleet was looked at.";

/// The metrics, each line with its end.
#[must_use]
pub fn text(overview: &FleetOverview) -> String {
    let mut page = Page::default();
    let fleet = ("fleet", overview.fleet.as_str());
    page.gauge("fleet_state", STATE);
    page.sample(&[fleet], overview.severity().code());
    page.gauge("fleet_status_timestamp_seconds", LOOKED);
    page.sample(&[fleet], overview.at);
    if let Some(signed) = &overview.head {
        page.gauge("fleet_head_sequence", "The number of the head that is in the store.");
        page.sample(&[fleet], signed.head.sequence);
        page.gauge("fleet_head_signed_timestamp_seconds", "When it was signed.");
        page.sample(&[fleet], signed.head.signed);
        page.gauge("fleet_head_expires_timestamp_seconds", "Until when it counts.");
        page.sample(&[fleet], signed.head.expires);
    }
    page.gauge("fleet_node_current", "Whether the node has the store's head, or the last one.");
    for node in &overview.nodes {
        page.sample(&[fleet, ("node", &node.name)], u8::from(node.is_current));
    }
    page.gauge("fleet_node_confirmed", "Whether its HAProxys were seen to serve everything.");
    for node in &overview.nodes {
        let confirmed = node.report.as_ref().is_some_and(|report| report.confirmed);
        page.sample(&[fleet, ("node", &node.name)], u8::from(confirmed));
    }
    page.gauge("fleet_node_left_out", LEFT_OUT);
    for node in overview.nodes.iter().filter(|node| node.report.is_some()) {
        page.sample(&[fleet, ("node", &node.name)], node.left_out().count());
    }
    page.gauge("fleet_node_sequence", "The number of the head that the node has.");
    for (node, report) in overview.nodes.iter().filter_map(|node| Some((node, node.report.as_ref()?))) {
        page.sample(&[fleet, ("node", &node.name)], report.sequence);
    }
    page.gauge("fleet_node_report_timestamp_seconds", "When the node reported last.");
    for (node, report) in overview.nodes.iter().filter_map(|node| Some((node, node.report.as_ref()?))) {
        page.sample(&[fleet, ("node", &node.name)], report.time);
    }
    page.gauge("fleet_problem", "Always 1: a problem of a node, or of the fleet where the node is empty.");
    let of = |(node, problem): (Option<&NodeRow>, &FleetProblem)| {
        let name = node.map(|node| node.name.clone()).unwrap_or_default();
        (Reverse(problem.severity), name, problem.trouble.name())
    };
    // A series is there once, however many facts there are.
    let series: BTreeSet<_> = overview.all_problems().into_iter().map(of).collect();
    for (Reverse(severity), name, trouble) in series {
        page.sample(&[fleet, ("node", &name), ("problem", trouble), ("severity", severity.name())], 1);
    }
    page.text
}

/// The metrics where the fleet can't be looked at: nothing is known but that. `fleet`: its name, where that is known.
#[must_use]
pub fn failure(fleet: Option<&str>, now: i64) -> String {
    let mut page = Page::default();
    let labels: Vec<_> = fleet.map(|name| ("fleet", name)).into_iter().collect();
    page.gauge("fleet_state", STATE);
    page.sample(&labels, Severity::Unknown.code());
    page.gauge("fleet_status_timestamp_seconds", LOOKED);
    page.sample(&labels, now);
    page.text
}
