//! The matrix of a fleet's page: which node serves what of which lineage. What is in step is summed up where it is much;
//! what isn't is named. Pure.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, BTreeSet};

use super::counted;
use crate::fleet::overview::{FleetOverview, HeadLineage, NodeRow, NodeState};
use crate::fleet::report::{EVERYTHING, LEFT_OUT, ReportedException};
use crate::fleet::trouble::FleetTrouble;
use crate::status::advice::{day, span};
use crate::status::severity::Severity;
use crate::sys::escape::escaped;

/// Up to so many nodes have a column each, also where nothing is to be said of them.
const FEW_NODES: usize = 8;

/// Up to so many lineages have a row each, also where nothing is to be said of them.
const FEW_LINEAGES: usize = 20;

/// More columns can't be read.
const MOST_COLUMNS: usize = 8;

/// More columns need a wide page.
const FEW_COLUMNS: usize = 4;

/// So many names of others are listed.
const MOST_OTHERS: usize = 1000;

/// What is named at both of its edges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matrix {
    /// What stands over the rows' names.
    pub corner: &'static str,
    /// The names of the columns; none: each row names its own.
    pub columns: Vec<Edge>,
    /// The rows.
    pub rows: Vec<MatrixRow>,
    /// Lineages that no report names, where they have no rows of their own.
    pub others: Vec<Edge>,
    /// How many of those aren't listed.
    pub unlisted: usize,
}

/// A row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatrixRow {
    /// Its name.
    pub edge: Edge,
    /// What is said, by column.
    pub cells: Vec<Cell>,
}

/// A node, a lineage, or several of which the same is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    /// How bad it is; `None`: that is said in the cells.
    pub severity: Option<Severity>,
    /// The name, in ASCII.
    pub name: String,
    /// A lineage's serial number, as the head has it.
    pub serial: Option<String>,
    /// More about it.
    pub notes: Vec<String>,
}

/// What is said of a lineage on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// Whose cell it is in its row.
    pub of: String,
    /// What is said; nothing: there is nothing to say.
    pub said: Vec<Said>,
}

/// One thing that is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// How bad it is.
    pub severity: Severity,
    /// In a word or a few.
    pub word: String,
    /// The serial number of what is served.
    pub serves: Option<String>,
    /// More for people.
    pub detail: String,
}

/// Nodes of which the same is said: one, or several that report no exception.
#[derive(Debug, Clone)]
struct Nodes<'a> {
    state: NodeState,
    first: &'a NodeRow,
    others: Vec<&'a NodeRow>,
    /// What the first reports, by lineage.
    exceptions: BTreeMap<&'a str, Vec<Reported<'a>>>,
}

/// Something that a node reports, and how bad it is.
type Reported<'a> = (Severity, &'a ReportedException);

impl<'a> Nodes<'a> {
    fn of(node: &'a NodeRow) -> Self {
        let mut exceptions: BTreeMap<&str, Vec<Reported<'_>>> = BTreeMap::new();
        if let Some(report) = &node.report {
            let bad = report.exceptions.iter().map(|it| (Severity::Warning, it));
            let severity = |word| {
                if FleetTrouble::is_of_ending(word) { Severity::Critical } else { Severity::Ok }
            };
            let notes = report.notes.iter().map(|it| (severity(&it.problem), it));
            for (severity, it) in bad.chain(notes) {
                exceptions.entry(&it.lineage).or_default().push((severity, it));
            }
        }
        Self { state: node.state(), first: node, others: Vec::new(), exceptions }
    }

    /// Exceptions for which there was no room in the report.
    fn omitted(&self) -> u64 {
        self.first.report.as_ref().map_or(0, |report| report.omitted)
    }

    /// Whether it reports nothing but what it has.
    fn is_plain(&self) -> bool {
        self.exceptions.is_empty() && self.omitted() == 0
    }

    /// Whether something is to be said of it by itself.
    fn names(&self, about: Lineages<'_>) -> bool {
        match about {
            Lineages::Node => self.exceptions.contains_key(EVERYTHING) || self.omitted() > 0,
            Lineages::One(name) => self.exceptions.contains_key(name),
            Lineages::Others(..) => false,
        }
    }

    /// Whether it leaves out more lineages than it names.
    fn leaves_out_more(&self) -> bool {
        self.exceptions(Lineages::Node).iter().any(|(_, it)| it.problem == LEFT_OUT)
    }

    fn exceptions(&self, about: Lineages<'_>) -> &[Reported<'a>] {
        let name = match about {
            Lineages::Node => EVERYTHING,
            Lineages::One(name) => name,
            Lineages::Others(..) => return &[],
        };
        self.exceptions.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// What is said of it: its state, how bad it is, and its head.
    fn alike(&self) -> (NodeState, Severity, Option<[u8; 32]>) {
        (self.state, self.first.severity(), self.first.report.as_ref().map(|report| report.head))
    }

    /// Which head it has.
    fn has(&self) -> Option<u64> {
        self.first.report.as_ref()?.number()
    }
}

/// What a row or a column is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Lineages<'a> {
    /// None of them: the node itself.
    Node,
    /// One.
    One(&'a str),
    /// So many that no report names, where this host can tell; `true`: there are others that are named.
    Others(Option<usize>, bool),
}

impl Matrix {
    /// Whether it needs a wide page.
    #[must_use]
    pub fn is_wide(&self) -> bool {
        self.columns.len() > FEW_COLUMNS
    }
}

/// The matrix; `None`: there are no nodes, or no lineages.
#[must_use]
pub fn matrix(overview: &FleetOverview) -> Option<Matrix> {
    if overview.nodes.is_empty() {
        return None;
    }
    let named = named(overview);
    let nodes = nodes(overview);
    let lineages = lineages(overview, &nodes, &named);
    if lineages.is_empty() {
        return None;
    }
    let (others, unlisted) = others(overview, &lineages, &named);
    let of = |nodes: &Nodes<'_>, lineages: Lineages<'_>| said(overview, nodes, lineages);
    let (corner, columns, rows) = if nodes.len() <= MOST_COLUMNS {
        let columns: Vec<Edge> = nodes.iter().map(|nodes| node_edge(overview, nodes)).collect();
        let row = |about: &Lineages<'_>| MatrixRow {
            edge: lineage_edge(overview, *about),
            cells: cells(&columns, nodes.iter().map(|nodes| of(nodes, *about))),
        };
        let rows = lineages.iter().map(row).collect();
        ("Lineage", columns, rows)
    } else if lineages.len() <= MOST_COLUMNS {
        let columns: Vec<Edge> = lineages.iter().map(|about| lineage_edge(overview, *about)).collect();
        let row = |nodes: &Nodes<'_>| MatrixRow {
            edge: node_edge(overview, nodes),
            cells: cells(&columns, lineages.iter().map(|about| of(nodes, *about))),
        };
        let rows = nodes.iter().map(row).collect();
        ("Node", columns, rows)
    } else {
        ("Lineage", Vec::new(), by_themselves(overview, &nodes, &lineages))
    };
    Some(Matrix { corner, columns, rows, others, unlisted })
}

fn cells(columns: &[Edge], said: impl Iterator<Item = Vec<Said>>) -> Vec<Cell> {
    columns.iter().zip(said).map(|(edge, said)| Cell { of: edge.name.clone(), said }).collect()
}

/// For each row the nodes that name its lineage, each by itself, and then how many of which nothing else is said.
fn by_themselves(overview: &FleetOverview, nodes: &[Nodes<'_>], lineages: &[Lineages<'_>]) -> Vec<MatrixRow> {
    let mut all: BTreeMap<NodeState, usize> = BTreeMap::new();
    let mut by_lineage: BTreeMap<&str, Vec<&Nodes<'_>>> = BTreeMap::new();
    for it in nodes {
        *all.entry(it.state).or_default() += 1 + it.others.len();
        for name in it.exceptions.keys() {
            by_lineage.entry(name).or_default().push(it);
        }
    }
    let row = |about: Lineages<'_>| {
        let naming: Vec<&Nodes<'_>> = match about {
            Lineages::Node => nodes.iter().filter(|it| it.names(about)).collect(),
            Lineages::One(name) => by_lineage.get(name).cloned().unwrap_or_default(),
            Lineages::Others(..) => Vec::new(),
        };
        let mut plain = if about == Lineages::Node { BTreeMap::new() } else { all.clone() };
        let mut cells = Vec::new();
        for it in naming {
            plain.entry(it.state).and_modify(|count| *count -= 1);
            cells.push(Cell { of: it.first.name.clone(), said: said(overview, it, about) });
        }
        cells.extend(plain.into_iter().filter(|(_, count)| *count > 0).map(|(state, count)| {
            let (severity, word) = in_a_word(state, is_past(overview, about));
            let said = Said { severity, word: word.to_owned(), serves: None, detail: String::new() };
            Cell { of: counted(count, "node"), said: vec![said] }
        }));
        MatrixRow { edge: lineage_edge(overview, about), cells }
    };
    lineages.iter().map(|about| row(*about)).collect()
}

/// The lineages that reports name, and those that have expired.
fn named(overview: &FleetOverview) -> BTreeSet<&str> {
    let reports = overview.nodes.iter().filter_map(|node| node.report.as_ref());
    let exceptions = reports.flat_map(|report| report.exceptions.iter().chain(&report.notes));
    let expired = overview.lineages.iter().flat_map(|known| known.all.keys());
    let expired = expired.map(String::as_str).filter(|name| is_past(overview, Lineages::One(name)));
    let named = exceptions.map(|it| it.lineage.as_str()).filter(|name| *name != EVERYTHING);
    named.chain(expired).collect()
}

/// What each row is about: first what reports name.
fn lineages<'a>(
    overview: &'a FleetOverview,
    nodes: &[Nodes<'_>],
    named: &BTreeSet<&'a str>,
) -> Vec<Lineages<'a>> {
    let mut all = Vec::new();
    if nodes.iter().any(|it| it.names(Lineages::Node)) {
        all.push(Lineages::Node);
    }
    all.extend(named.iter().map(|name| Lineages::One(name)));
    let Some(known) = &overview.lineages else {
        all.push(Lineages::Others(None, !named.is_empty()));
        return all;
    };
    let others: Vec<&str> =
        known.all.keys().map(String::as_str).filter(|name| !named.contains(name)).collect();
    if known.all.len() <= FEW_LINEAGES {
        all.extend(others.into_iter().map(Lineages::One));
    } else if !others.is_empty() {
        all.push(Lineages::Others(Some(others.len()), !named.is_empty()));
    }
    all
}

/// The lineages that have no row of their own, and how many more there are.
fn others(overview: &FleetOverview, lineages: &[Lineages<'_>], named: &BTreeSet<&str>) -> (Vec<Edge>, usize) {
    let Some(Lineages::Others(Some(count), _)) = lineages.last() else { return (Vec::new(), 0) };
    let known = overview.lineages.iter().flat_map(|known| known.all.keys()).map(String::as_str);
    let others = known.filter(|name| !named.contains(name)).take(MOST_OTHERS);
    let listed: Vec<Edge> = others.map(|name| lineage_edge(overview, Lineages::One(name))).collect();
    let unlisted = count.saturating_sub(listed.len());
    (listed, unlisted)
}

/// What each column is about: the worst first, and those of which nothing is to be said together where they are many.
fn nodes(overview: &FleetOverview) -> Vec<Nodes<'_>> {
    let mut sorted: Vec<&NodeRow> = overview.nodes.iter().collect();
    sorted.sort_by_key(|node| std::cmp::Reverse(node.severity()));
    let mut all: Vec<Nodes<'_>> = Vec::new();
    for node in sorted {
        let own = Nodes::of(node);
        let alike =
            |other: &&mut Nodes<'_>| own.is_plain() && other.is_plain() && other.alike() == own.alike();
        match all.iter_mut().find(alike).filter(|_| overview.nodes.len() > FEW_NODES) {
            Some(alike) => alike.others.push(node),
            None => all.push(own),
        }
    }
    all
}

fn said(overview: &FleetOverview, nodes: &Nodes<'_>, about: Lineages<'_>) -> Vec<Said> {
    let mut all: Vec<Said> = nodes
        .exceptions(about)
        .iter()
        .map(|(severity, it)| Said {
            severity: *severity,
            word: escaped(&it.problem).to_string(),
            serves: it.served.as_ref().map(|serial| escaped(serial).to_string()),
            detail: escaped(&it.detail).to_string(),
        })
        .collect();
    if about == Lineages::Node {
        let more = nodes.omitted();
        if more > 0 {
            let word = format!("{more} more");
            let detail = "for which there was no room in its report".to_owned();
            all.push(Said { severity: Severity::Warning, word, serves: None, detail });
        }
        return all;
    }
    let is_gone = matches!(about, Lineages::One(name) if is_gone(overview, name));
    if all.is_empty() && !is_gone {
        all.push(plain(overview, nodes, about));
    }
    all
}

/// What is to be said where no exception is.
fn plain(overview: &FleetOverview, nodes: &Nodes<'_>, about: Lineages<'_>) -> Said {
    let state = nodes.state;
    // It says so of its own head, which needn't be the one in the store.
    let own = nodes.first.report.as_ref().filter(|report| state == NodeState::InStep || report.confirmed);
    let known =
        overview.lineages.as_ref().filter(|known| own.is_some_and(|report| report.head == known.hash));
    let entry = match (about, known) {
        (Lineages::One(name), Some(known)) if state != NodeState::Silent => known.all.get(name),
        _ => None,
    };
    // Which of them it leaves out it doesn't say.
    let leaves_out = nodes.leaves_out_more();
    let serves = entry.filter(|_| !leaves_out).map(|entry| short(&entry.serial));
    let has = nodes.has().map(|sequence| format!("number {sequence}"));
    let detail = match state {
        NodeState::Underway | NodeState::Behind => has.map(|has| format!("as {has} says")),
        NodeState::Silent => has.map(|has| format!("it had {has}")),
        _ => None,
    };
    let (severity, word) = match state {
        NodeState::InStep if leaves_out => (Severity::Ok, "in step, or left out"),
        _ => in_a_word(state, entry.is_some() && is_past(overview, about)),
    };
    Said { severity, word: word.to_owned(), serves, detail: detail.unwrap_or_default() }
}

/// A node's state, and how bad it is, where it has a lineage whose certificate has expired or not.
fn in_a_word(state: NodeState, is_past: bool) -> (Severity, &'static str) {
    if is_past && state == NodeState::InStep {
        (Severity::Critical, FleetTrouble::Expired.name())
    } else {
        (state.severity(), state_word(state))
    }
}

/// Whether a lineage's certificate has expired, as this host's head has it.
fn is_past(overview: &FleetOverview, about: Lineages<'_>) -> bool {
    let Lineages::One(name) = about else { return false };
    let entry = overview.lineages.as_ref().and_then(|known| known.all.get(name));
    entry.is_some_and(|entry| entry.not_after < overview.at)
}

/// The lineages of the head that the page is about, where this host has that head.
fn of_head(overview: &FleetOverview) -> Option<&BTreeMap<String, HeadLineage>> {
    let (known, head) = (overview.lineages.as_ref()?, overview.head.as_ref()?);
    (known.hash == head.hash).then_some(&known.all)
}

/// Whether that head has no such lineage.
fn is_gone(overview: &FleetOverview, name: &str) -> bool {
    of_head(overview).is_some_and(|all| !all.contains_key(name))
}

fn state_word(state: NodeState) -> &'static str {
    match state {
        NodeState::InStep => "in step",
        NodeState::Unconfirmed => "not confirmed",
        NodeState::Underway => "underway",
        NodeState::Behind => "behind",
        NodeState::Silent => "silent",
        NodeState::Missing => "never reported",
        NodeState::Unreadable => "report not usable",
    }
}

/// A node, or several.
fn node_edge(overview: &FleetOverview, of: &Nodes<'_>) -> Edge {
    let Nodes { state, first, others, .. } = of;
    let all = || [*first].into_iter().chain(others.iter().copied());
    let mut notes = Vec::new();
    let name = if others.is_empty() {
        first.name.clone()
    } else {
        let count = 1 + others.len();
        // All nodes are in their own table.
        if *state != NodeState::InStep {
            notes.push(all().map(|node| node.name.as_str()).collect::<Vec<_>>().join(", "));
        }
        format!("{count} nodes {}", state_word(*state))
    };
    if let Some(report) = &first.report {
        notes.push(of.has().map_or("has none".to_owned(), |sequence| format!("has number {sequence}")));
        let oldest = all().filter_map(|node| node.report.as_ref()).map(|report| report.time).min();
        let age = span((overview.at - oldest.unwrap_or(report.time)).max(0));
        let within = if others.is_empty() {
            format!("reported {age} ago")
        } else {
            format!("reported at most {age} ago")
        };
        notes.push(within);
    }
    let severity = all().map(NodeRow::severity).max();
    Edge { severity, name, serial: None, notes }
}

/// A lineage, or several.
fn lineage_edge(overview: &FleetOverview, about: Lineages<'_>) -> Edge {
    let (mut serial, mut notes) = (None, Vec::new());
    let name = match about {
        Lineages::Node => "the node itself".to_owned(),
        Lineages::One(name) => {
            let known = overview.lineages.as_ref();
            if let Some((known, entry)) = known.and_then(|known| Some((known, known.all.get(name)?))) {
                serial = Some(entry.serial.clone());
                let left = entry.not_after - overview.at;
                let left = if left > 0 { format!("{} left", span(left)) } else { "expired".to_owned() };
                notes.push(format!("until {}, {left}", day(entry.not_after).unwrap_or_default()));
                if of_head(overview).is_none() {
                    notes.push(format!("by number {}, which this host has", known.sequence));
                }
            } else if is_gone(overview, name) {
                notes.push("the head has no such lineage".to_owned());
            }
            escaped(name).to_string()
        }
        Lineages::Others(Some(count), true) => counted(count, "more lineage"),
        Lineages::Others(Some(count), false) => format!("all {}", counted(count, "lineage")),
        Lineages::Others(None, true) => "every other lineage".to_owned(),
        Lineages::Others(None, false) => "every lineage".to_owned(),
    };
    Edge { severity: None, name, serial, notes }
}

/// The first digits of a serial number, which is whole beside the lineage.
fn short(serial: &str) -> String {
    match serial.get(..8) {
        Some(first) if serial.len() > 10 => format!("{first}.."),
        _ => serial.to_owned(),
    }
}
