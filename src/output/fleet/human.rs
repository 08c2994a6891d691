//! The commands of `fleet` for people: ASCII lines.

use std::path::Path;

use super::{counted, head_line, serves};
use crate::commands::fleet::follow::Followed;
use crate::commands::fleet::join::Joined;
use crate::commands::fleet::publish::Published;
use crate::commands::fleet::publish::announcing::Announced;
use crate::fleet::edition::Held;
use crate::fleet::overview::{FleetOverview, NodeRow};
use crate::fleet::report::EVERYTHING;
use crate::output::human::{Line, Tone};
use crate::output::json::timestamp;
use crate::status::advice::span;
use crate::status::severity::Severity;
use crate::sys::escape::{escaped, escaped_path};

/// What isn't served is listed up to so many.
const MOST_UNSERVED: usize = 5;

fn line(tone: Tone, text: String) -> Line {
    Line { tone, text }
}

/// What `fleet join` did; the table for the publisher isn't among it.
#[must_use]
pub fn joined(joined: &Joined) -> Vec<Line> {
    let file = escaped_path(&joined.file);
    let first = if joined.made {
        line(Tone::Good, format!("{:<10} {file}: this host's keys; they never leave it", "made"))
    } else {
        line(Tone::Plain, format!("{:<10} {file}: this host's keys are there already", "kept"))
    };
    let mut lines = vec![first];
    lines.push(line(
        Tone::Plain,
        format!("{:<10} put this into the publisher's settings, and publish there", "left to do"),
    ));
    if !joined.follows {
        lines.push(line(
            Tone::Wary,
            format!("{:<10} into this host's settings: [fleet] with name, store and publishers, see haproxy-certs-fleet(7)", "left to do"),
        ));
    }
    lines
}

/// The keys of a publisher whose publish failed: those that were made, and any where more is to be said.
#[must_use]
pub fn announced(announced: &Announced, verbose: bool) -> Vec<Line> {
    let made = announced.made.as_deref().map(made);
    let publisher = (made.is_some() || verbose).then(|| publisher(&announced.line));
    made.into_iter().chain(publisher).collect()
}

fn made(file: &Path) -> Line {
    line(Tone::Good, format!("{:<10} {}: this host's keys", "made", escaped_path(file)))
}

fn publisher(key: &str) -> Line {
    line(Tone::Plain, format!("{:<10} for the nodes' settings: publishers = [\"{key}\"]", "publisher"))
}

/// What `fleet publish` did.
#[must_use]
pub fn published(done: &Published, verbose: bool) -> Vec<Line> {
    let mut lines: Vec<Line> = done.made.as_deref().map(made).into_iter().collect();
    let mut of = |tone, word: &str, text: String| lines.push(line(tone, format!("{word:<10} {text}")));
    for name in &done.published {
        of(Tone::Good, "publish", escaped(name).to_string());
    }
    for name in &done.gone {
        of(Tone::Good, "gone", escaped(name).to_string());
    }
    for (name, why) in &done.refused {
        of(Tone::Bad, "refuse", format!("{}: {}", escaped(name), escaped(why)));
    }
    if let Some((names, why)) = &done.held {
        let some: Vec<String> = names.iter().take(5).map(|name| escaped(name).to_string()).collect();
        let more = if names.len() > 5 { format!(" and {} more", names.len() - 5) } else { String::new() };
        let stay = if names.len() == 1 { "stays" } else { "stay" };
        let tone = if *why == Held::Wanted { Tone::Plain } else { Tone::Wary };
        of(tone, "held", format!("{}{more} {stay} published: {}", some.join(", "), why.why()));
    }
    for alarm in &done.alarms {
        of(Tone::Bad, "note", alarm.clone());
    }
    for fact in &done.removed {
        of(Tone::Wary, "note", format!("{fact}: run haproxy-certs fleet rotate"));
    }
    if done.rotated {
        let again = done.client.by("renew --force-renewal");
        of(
            Tone::Wary,
            "note",
            format!("what removed nodes held stays theirs until it is issued again{again}"),
        );
    }
    if done.is_first || verbose {
        lines.push(publisher(&done.line));
    }
    let (lineages, nodes) = (counted(done.lineages, "lineage"), counted(done.nodes, "node"));
    let (fleet, sequence) = (&done.fleet, done.sequence);
    let text = if done.is_new {
        format!("{fleet} is at number {sequence}: {lineages} for {nodes}")
    } else {
        format!("{fleet} stays at number {sequence}: {lineages} for {nodes}, nothing changed")
    };
    lines.push(line(Tone::Plain, text));
    lines
}

/// What `fleet follow` saw, without the run that it may have done.
#[must_use]
pub fn followed(done: &Followed) -> Vec<Line> {
    let mut lines = Vec::new();
    if let Some((trouble, fact)) = &done.trouble {
        let tone = if trouble.is_alarm() { Tone::Bad } else { Tone::Wary };
        lines.push(line(tone, format!("{:<10} {}: {}", "note", trouble.name(), escaped(fact))));
        lines.push(line(tone, format!("{:<10}   -> {}", "", trouble.advice())));
    }
    if done.is_back {
        lines.push(line(Tone::Plain, format!("{:<10} the store answers again", "note")));
    }
    for it in done.unserved.iter().take(MOST_UNSERVED) {
        let about =
            if it.lineage == EVERYTHING { String::new() } else { format!("{}: ", escaped(&it.lineage)) };
        let text = format!("{:<10} {about}{}: {}", "note", it.problem, escaped(&it.detail));
        lines.push(line(Tone::Bad, text));
    }
    if let Some(more @ 1..) = done.unserved.len().checked_sub(MOST_UNSERVED) {
        lines.push(line(Tone::Bad, format!("{:<10} and {more} more that aren't served", "note")));
    }
    if !done.unserved.is_empty() {
        lines.push(line(Tone::Bad, format!("{:<10}   -> see: haproxy-certs status", "")));
    }
    if let Some(why) = &done.unreported {
        lines.push(line(Tone::Wary, format!("{:<10} the report could not be put: {}", "note", escaped(why))));
    }
    let node = done.node.as_ref().map(|node| format!(" as {node}")).unwrap_or_default();
    lines.push(line(
        Tone::Plain,
        match done.sequence {
            Some(sequence) if done.is_new => {
                format!("{} is at number {sequence} here{node}, which is new", done.fleet)
            }
            Some(sequence) => format!("{} is at number {sequence} here{node}", done.fleet),
            None => format!("nothing of {} is here yet", done.fleet),
        },
    ));
    lines
}

/// The fleet as a table, and under each row what is wrong and what to do about it.
#[must_use]
pub fn status(overview: &FleetOverview, quiet: bool) -> Vec<Line> {
    let mut lines = Vec::new();
    if !quiet {
        lines.push(line(Tone::Plain, head_line(overview)));
    }
    let shown: Vec<&NodeRow> =
        overview.nodes.iter().filter(|node| !quiet || node.severity() > Severity::Unknown).collect();
    let width = shown.iter().map(|node| node.name.len()).max().unwrap_or(4).max(4);
    if !shown.is_empty() {
        lines.push(line(
            Tone::Plain,
            format!("STAT {:<width$} {:>6} {:<20} {:>10} SERVES", "NODE", "HAS", "SINCE", "SEEN"),
        ));
    }
    for node in shown {
        let (has, since, seen) = match &node.report {
            Some(report) => (
                report.number().map_or("-".to_owned(), |number| number.to_string()),
                timestamp(report.since).filter(|_| report.since > 0).unwrap_or_default(),
                span((overview.at - report.time).max(0)),
            ),
            None => ("-".to_owned(), String::new(), "never".to_owned()),
        };
        let serves = serves(node);
        let severity = node.severity();
        lines.push(line(
            tone(severity),
            format!("{:<4} {:<width$} {has:>6} {since:<20} {seen:>10} {serves}", stat(severity), node.name),
        ));
        for problem in &node.problems {
            lines.push(line(
                Tone::Plain,
                format!("     {}: {}", problem.trouble.name(), escaped(&problem.fact)),
            ));
            lines.push(line(Tone::Plain, format!("       -> {}", problem.advice())));
        }
        let left_out: Vec<_> = node.left_out().collect();
        for note in left_out.iter().take(MOST_UNSERVED) {
            lines.push(line(Tone::Plain, format!("     {}", escaped(&note.words()))));
        }
        if let Some(more @ 1..) = left_out.len().checked_sub(MOST_UNSERVED) {
            lines.push(line(Tone::Plain, format!("     and {more} more")));
        }
    }
    for problem in &overview.problems {
        lines.push(line(
            tone(problem.severity),
            format!("{:<4} {}: {}", stat(problem.severity), problem.trouble.name(), escaped(&problem.fact)),
        ));
        lines.push(line(Tone::Plain, format!("       -> {}", problem.advice())));
    }
    let severity = overview.severity();
    if !quiet || severity > Severity::Ok {
        lines.push(line(
            tone(severity),
            format!("{}: {}", severity.name().to_ascii_uppercase(), super::verdict(overview)),
        ));
    }
    lines
}

fn stat(severity: Severity) -> &'static str {
    match severity {
        Severity::Ok => "OK",
        Severity::Unknown => "UNKN",
        Severity::Warning => "WARN",
        Severity::Critical => "CRIT",
    }
}

fn tone(severity: Severity) -> Tone {
    match severity {
        Severity::Ok => Tone::Good,
        Severity::Unknown | Severity::Warning => Tone::Wary,
        Severity::Critical => Tone::Bad,
    }
}
