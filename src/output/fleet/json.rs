//! `fleet status` for scripts: one JSON object.

use serde::Serialize;

use crate::certified_key::hex;
use crate::fleet::overview::{FleetOverview, FleetProblem, NodeRow};
use crate::fleet::report::{EVERYTHING, ReportedException};
use crate::output::json::{timestamp, to_text};
use crate::status::severity::Severity;
use crate::sys::failure::Failure;

const VERSION: u32 = 1;

#[derive(Serialize)]
struct Frame<'a> {
    version: u32,
    command: &'static str,
    state: Severity,
    error: Option<&'a Failure>,
    fleet: Option<&'a str>,
    store: Option<&'a str>,
    lineages: Option<usize>,
    head: Option<HeadFrame>,
    nodes: Vec<NodeFrame<'a>>,
    problems: Vec<ProblemFrame<'a>>,
}

#[derive(Serialize)]
struct HeadFrame {
    sequence: u64,
    sha256: String,
    publisher: String,
    signed: Option<String>,
    expires: Option<String>,
    epoch: u64,
}

#[derive(Serialize)]
struct NodeFrame<'a> {
    name: &'a str,
    severity: Severity,
    current: bool,
    confirmed: Option<bool>,
    sequence: Option<u64>,
    since: Option<String>,
    reported: Option<String>,
    program: Option<&'a str>,
    exceptions: Vec<ExceptionFrame<'a>>,
    notes: Vec<ExceptionFrame<'a>>,
    omitted: u64,
    problems: Vec<ProblemFrame<'a>>,
}

#[derive(Serialize)]
struct ExceptionFrame<'a> {
    lineage: Option<&'a str>,
    problem: &'a str,
    served: Option<&'a str>,
    detail: &'a str,
}

#[derive(Serialize)]
struct ProblemFrame<'a> {
    problem: &'static str,
    severity: Severity,
    fact: &'a str,
    advice: &'a str,
}

/// The fleet as one line of JSON.
#[must_use]
pub fn status(overview: &FleetOverview) -> String {
    to_text(&Frame {
        version: VERSION,
        command: "fleet status",
        state: overview.severity(),
        error: None,
        fleet: Some(&overview.fleet),
        store: Some(&overview.store),
        lineages: overview.lineages.as_ref().map(|lineages| lineages.all.len()),
        head: overview.head.as_ref().map(|signed| HeadFrame {
            sequence: signed.head.sequence,
            sha256: hex(&signed.hash),
            publisher: signed.publisher.to_string(),
            signed: timestamp(signed.head.signed),
            expires: timestamp(signed.head.expires),
            epoch: signed.head.epoch,
        }),
        nodes: overview.nodes.iter().map(node).collect(),
        problems: overview.problems.iter().map(problem).collect(),
    })
}

/// A failure before there was anything to report on.
#[must_use]
pub fn failure(error: &Failure) -> String {
    to_text(&Frame {
        version: VERSION,
        command: "fleet status",
        state: Severity::Unknown,
        error: Some(error),
        fleet: None,
        store: None,
        lineages: None,
        head: None,
        nodes: Vec::new(),
        problems: Vec::new(),
    })
}

fn node(row: &NodeRow) -> NodeFrame<'_> {
    let report = row.report.as_ref();
    NodeFrame {
        name: &row.name,
        severity: row.severity(),
        current: row.is_current,
        confirmed: report.map(|report| report.confirmed),
        sequence: report.map(|report| report.sequence),
        since: report.filter(|report| report.since > 0).and_then(|report| timestamp(report.since)),
        reported: report.and_then(|report| timestamp(report.time)),
        program: report.map(|report| report.program.as_str()),
        exceptions: report.into_iter().flat_map(|report| &report.exceptions).map(exception).collect(),
        notes: report.into_iter().flat_map(|report| &report.notes).map(exception).collect(),
        omitted: report.map_or(0, |report| report.omitted),
        problems: row.problems.iter().map(problem).collect(),
    }
}

fn exception(it: &ReportedException) -> ExceptionFrame<'_> {
    ExceptionFrame {
        lineage: Some(it.lineage.as_str()).filter(|name| *name != EVERYTHING),
        problem: &it.problem,
        served: it.served.as_deref(),
        detail: &it.detail,
    }
}

fn problem(problem: &FleetProblem) -> ProblemFrame<'_> {
    ProblemFrame {
        problem: problem.trouble.name(),
        severity: problem.severity,
        fact: &problem.fact,
        advice: problem.advice(),
    }
}
