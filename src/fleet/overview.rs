//! The whole fleet at a glance: what each node says of itself, judged. Pure.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;

use crate::fleet::accept::AHEAD;
use crate::fleet::former::FormerKeys;
use crate::fleet::head::SignedHead;
use crate::fleet::name::{FleetName, NodeName};
use crate::fleet::node_key::NodeKey;
use crate::fleet::report::{BadReport, EVERYTHING, NodeReport, ReportedException};
use crate::fleet::signed_text::time;
use crate::fleet::trouble::FleetTrouble;
use crate::status::severity::Severity;

/// A node that hasn't reported for so long is silent.
pub const SILENCE: i64 = 60 * 60;

/// What is new may take so long to come to a node before that is a problem.
const UNDERWAY: i64 = 10 * 60;

/// What mends each of several lineages.
const ONE_BY_ONE: &str = "on the publisher, see what mends each: haproxy-certs status";

/// A problem of several lineages names so many.
const MOST_FACTS: usize = 3;

/// A head that is past its time for so long is critical.
pub const STALE_FOR_LONG: i64 = 7 * 24 * 60 * 60;

/// A problem of the fleet, or of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FleetProblem {
    /// What it is.
    pub trouble: FleetTrouble,
    /// How bad it is.
    pub severity: Severity,
    /// One line of ASCII.
    pub fact: String,
    /// What mends it, where that is known better than by the trouble alone.
    pub advice: Option<String>,
}

impl FleetProblem {
    /// What to do about it.
    #[must_use]
    pub fn advice(&self) -> &str {
        self.advice.as_deref().unwrap_or_else(|| self.trouble.advice())
    }
}

/// One node.
#[derive(Debug, Clone)]
pub struct NodeRow {
    /// Its name.
    pub name: String,
    /// What it says of itself; `None`: nothing that could be used.
    pub report: Option<NodeReport>,
    /// Whether it has the head that is in the store; where there is none, the last one that this host has.
    pub is_current: bool,
    /// What is wrong.
    pub problems: Vec<FleetProblem>,
}

impl NodeRow {
    /// How bad it is.
    #[must_use]
    pub fn severity(&self) -> Severity {
        self.problems.iter().map(|problem| problem.severity).max().unwrap_or(Severity::Ok)
    }

    /// What it leaves out of the head, or presents otherwise, for good.
    pub fn left_out(&self) -> impl Iterator<Item = &ReportedException> {
        let notes = self.report.iter().flat_map(|report| &report.notes);
        notes.filter(|note| !FleetTrouble::is_of_ending(&note.problem))
    }

    /// What it has of the lineages that its report doesn't name.
    #[must_use]
    pub fn state(&self) -> NodeState {
        let has = |trouble| self.problems.iter().any(|problem| problem.trouble == trouble);
        let Some(report) = &self.report else {
            let is_missing = has(FleetTrouble::FleetNodeMissing);
            return if is_missing { NodeState::Missing } else { NodeState::Unreadable };
        };
        let is_of_one = |it: &ReportedException| it.lineage != EVERYTHING;
        // A look at everything named what it doesn't serve, and that was all.
        let names_all = report.omitted == 0 && !report.exceptions.is_empty();
        let serves_others = report.confirmed || names_all && report.exceptions.iter().all(is_of_one);
        match () {
            () if has(FleetTrouble::FleetNodeSilent) => NodeState::Silent,
            () if has(FleetTrouble::FleetNodeBehind) => NodeState::Behind,
            () if !self.is_current => NodeState::Underway,
            () if serves_others => NodeState::InStep,
            () => NodeState::Unconfirmed,
        }
    }
}

/// What a node has of the lineages that its report doesn't name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodeState {
    /// What the head says, and its HAProxys serve it.
    InStep,
    /// What the head says, and that its HAProxys serve it wasn't seen.
    Unconfirmed,
    /// What another head says: the head is new.
    Underway,
    /// What another head says, for longer than the head is new.
    Behind,
    /// Nobody knows: it hasn't reported for an hour.
    Silent,
    /// Nobody knows: it has never reported.
    Missing,
    /// Nobody knows: what stands for its report can't be used.
    Unreadable,
}

impl NodeState {
    /// How bad it is.
    #[must_use]
    pub fn severity(self) -> Severity {
        match self {
            Self::InStep => Severity::Ok,
            Self::Underway => Severity::Unknown,
            Self::Unconfirmed | Self::Behind | Self::Silent | Self::Missing => Severity::Warning,
            Self::Unreadable => Severity::Critical,
        }
    }
}

/// The lineages of a head, as this host has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadLineages {
    /// The head's number.
    pub sequence: u64,
    /// The head's hash: the store's head may be another one.
    pub hash: [u8; 32],
    /// Each lineage by its name.
    pub all: BTreeMap<String, HeadLineage>,
}

/// What a head says of a lineage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadLineage {
    /// Its serial number.
    pub serial: String,
    /// When it expires, in seconds since 1970.
    pub not_after: i64,
}

/// The fleet.
#[derive(Debug, Clone)]
pub struct FleetOverview {
    /// When it was looked at, in seconds since 1970.
    pub at: i64,
    /// Its name.
    pub fleet: String,
    /// Where its store is.
    pub store: String,
    /// The store's head, where it counts, or what this host has.
    pub head: Option<SignedHead>,
    /// The lineages, where this host can tell.
    pub lineages: Option<HeadLineages>,
    /// The nodes.
    pub nodes: Vec<NodeRow>,
    /// What is wrong with the fleet as a whole.
    pub problems: Vec<FleetProblem>,
}

impl FleetOverview {
    /// How bad it is, all in all.
    #[must_use]
    pub fn severity(&self) -> Severity {
        let own = self.problems.iter().map(|problem| problem.severity);
        own.chain(self.nodes.iter().map(NodeRow::severity)).max().unwrap_or(Severity::Ok)
    }

    /// Every problem, with the node that it is about.
    #[must_use]
    pub fn all_problems(&self) -> Vec<(Option<&NodeRow>, &FleetProblem)> {
        let own = self.problems.iter().map(|problem| (None, problem));
        let of_nodes =
            self.nodes.iter().flat_map(|node| node.problems.iter().map(move |it| (Some(node), it)));
        let mut all: Vec<_> = own.chain(of_nodes).collect();
        all.sort_by_key(|(_, problem)| std::cmp::Reverse(problem.severity));
        all
    }

    /// How many nodes have the head, confirmed.
    #[must_use]
    pub fn confirmed(&self) -> usize {
        let is =
            |node: &&NodeRow| node.is_current && node.report.as_ref().is_some_and(|report| report.confirmed);
        self.nodes.iter().filter(is).count()
    }
}

/// A problem of how bad its trouble is by itself.
#[must_use]
pub fn problem(trouble: FleetTrouble, fact: String) -> FleetProblem {
    let severity = if trouble.is_alarm() { Severity::Critical } else { Severity::Warning };
    FleetProblem { trouble, severity, fact, advice: None }
}

/// That a head is past its time, and for how long.
#[must_use]
pub fn staleness(signed: &SignedHead, at: i64) -> Option<FleetProblem> {
    let past = at - signed.head.expires;
    if past < 0 {
        return None;
    }
    let severity = if past >= STALE_FOR_LONG { Severity::Critical } else { Severity::Warning };
    let fact = format!(
        "number {} is past its time since {}: nothing is pruned by it",
        signed.head.sequence,
        crate::status::advice::span(past)
    );
    Some(FleetProblem { trouble: FleetTrouble::FleetStale, severity, fact, advice: None })
}

/// Problems of lineages, as one; `None`: there are none.
#[must_use]
pub fn together(trouble: FleetTrouble, mut found: Vec<LineageProblem>) -> Option<FleetProblem> {
    found.sort_by_key(|it| std::cmp::Reverse(it.severity));
    let severity = found.first()?.severity;
    // Several are mended in several ways: there it is said.
    let advice = match found.as_slice() {
        [one, others @ ..] if others.iter().all(|it| it.advice == one.advice) => one.advice.clone(),
        _ => Some(ONE_BY_ONE.to_owned()),
    };
    let count = found.len() as u64;
    let facts = the_first(found.into_iter().map(|it| it.fact), count);
    Some(FleetProblem { trouble, severity, fact: facts.join("; "), advice })
}

/// What is wrong with one lineage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineageProblem {
    /// How bad it is.
    pub severity: Severity,
    /// One line of ASCII, which begins with the lineage's name.
    pub fact: String,
    /// What mends it; `None`: what mends such a trouble.
    pub advice: Option<String>,
}

/// The first of these facts, and how many more of `all` there are.
fn the_first(facts: impl Iterator<Item = String>, all: u64) -> Vec<String> {
    let mut some: Vec<String> = facts.take(MOST_FACTS).collect();
    if let Some(more @ 1..) = all.checked_sub(MOST_FACTS as u64) {
        some.push(format!("and {more} more"));
    }
    some
}

/// That a head is past its time, since when.
#[must_use]
pub fn expired(signed: &SignedHead) -> String {
    format!(
        "number {} expired at {}: nothing is pruned by it",
        signed.head.sequence,
        time(signed.head.expires)
    )
}

/// A node in whose report's place there is something that can't be read.
#[must_use]
pub fn unreadable_row(name: &NodeName, why: String) -> NodeRow {
    let forged = problem(FleetTrouble::FleetReportForged, why);
    NodeRow { name: name.to_string(), report: None, is_current: false, problems: vec![forged] }
}

/// A report that was refused since a key signed it that the node had before: it is as old as that, and no forgery.
fn earlier(
    value: &[u8],
    refused: &BadReport,
    (fleet, name): (&FleetName, &NodeName),
    former: &FormerKeys,
) -> Option<NodeReport> {
    match refused {
        BadReport::Forged(signer) if former.had(name, signer) => {
            NodeReport::read(value, signer, fleet, name).ok()
        }
        BadReport::Forged(_) | BadReport::Damaged(_) | BadReport::Other(..) => None,
    }
}

/// What is wrong with when a node reported, which its own clock says.
fn of_its_time(report: &NodeReport, head: Option<&SignedHead>, at: i64) -> Vec<FleetProblem> {
    let (when, silent) = (time(report.time), at - report.time);
    let has_this = head.filter(|head| head.hash == report.head);
    let what = if report.time > at.saturating_add(AHEAD) {
        Some("in the future")
    } else if has_this.is_some_and(|head| head.head.signed > report.time.saturating_add(AHEAD)) {
        Some("before the head was signed that it has")
    } else {
        None
    };
    let of_clock = what.map(|what| {
        let fact = format!("its report is of {when}, which is {what}: one of the clocks is wrong");
        problem(FleetTrouble::FleetClock, fact)
    });
    let of_silence = (silent >= SILENCE).then(|| {
        let fact = format!("it hasn't reported for {}", crate::status::advice::span(silent));
        problem(FleetTrouble::FleetNodeSilent, fact)
    });
    of_clock.into_iter().chain(of_silence).collect()
}

/// A node by what stands for its report in the store. `former`: what this host knows of the keys that nodes had.
#[must_use]
pub fn node_row(
    (name, key): (&NodeName, &NodeKey),
    value: Option<&[u8]>,
    fleet: &FleetName,
    (head, former): (Option<&SignedHead>, &FormerKeys),
    at: i64,
) -> NodeRow {
    let mut row = NodeRow { name: name.to_string(), report: None, is_current: false, problems: Vec::new() };
    let age = head.map_or(0, |head| at - head.head.signed);
    let report = match value.map(|value| NodeReport::read(value, &key.signing, fleet, name)) {
        None => {
            row.problems.push(problem(FleetTrouble::FleetNodeMissing, "it has never reported".to_owned()));
            return row;
        }
        Some(Err(e)) => {
            if let Some(report) = value.and_then(|value| earlier(value, &e, (fleet, name), former)) {
                let when = time(report.time);
                let fact =
                    format!("it hasn't reported since it has another key; its last report was of {when}");
                row.problems.push(problem(FleetTrouble::FleetNodeMissing, fact));
                return row;
            }
            row.problems.push(problem(FleetTrouble::FleetReportForged, e.to_string()));
            return row;
        }
        Some(Ok(report)) => report,
    };
    row.problems.extend(of_its_time(&report, head, at));
    if let Some(head) = head {
        row.is_current = report.head == head.hash;
        if !row.is_current && age >= UNDERWAY {
            let has = report.number().map_or("none".to_owned(), |number| format!("number {number}"));
            let fact = format!("it has {has}, and the head is number {}", head.head.sequence);
            row.problems.push(problem(FleetTrouble::FleetNodeBehind, fact));
        }
    }
    if !report.confirmed || !report.exceptions.is_empty() || report.omitted > 0 {
        let all = report.exceptions.len() as u64 + report.omitted;
        let mut facts = the_first(report.exceptions.iter().map(ReportedException::words), all);
        if facts.is_empty() {
            facts.push("its HAProxy wasn't seen to serve everything".to_owned());
        }
        // What is critical on the node is so here.
        let is_alarm = report.exceptions.iter().any(|it| FleetTrouble::is_alarms_name(&it.problem));
        let severity = if is_alarm { Severity::Critical } else { Severity::Warning };
        let (trouble, fact) = (FleetTrouble::FleetNodeFailed, facts.join("; "));
        row.problems.push(FleetProblem { trouble, severity, fact, advice: None });
    }
    for trouble in [FleetTrouble::Expired, FleetTrouble::ExpiresSoon] {
        let found = report.notes.iter().filter(|note| note.problem == trouble.name());
        let judged = |note: &ReportedException| LineageProblem {
            severity: Severity::Critical,
            fact: format!("{}: {}", note.lineage, note.detail),
            advice: None,
        };
        row.problems.extend(together(trouble, found.map(judged).collect()));
    }
    row.report = Some(report);
    row
}
