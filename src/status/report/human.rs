//! The status for people: a table, under each row what is wrong and what to do about it, and a verdict.

use std::fmt::Write;

use time::OffsetDateTime;

use super::{file, verdict};
use crate::certified_key::KeyType;
use crate::escape::escaped;
use crate::plan::{Role, is_loaded_name};
use crate::report::human::{Line, Tone};
use crate::status::Status;
use crate::status::advice::span;
use crate::status::judge::{Problem, Site};
use crate::status::setup::Finding;
use crate::status::words::{Kind, PlaceState, Severity};

/// From this width on the names have a column of their own.
const WIDE: usize = 110;

/// What every row has beside its file and names, with a space before each column.
const FIXED: usize = 4 + 8 + 11 + 6 + 8 + 8 + 8;

/// The narrowest table that is drawn.
const NARROWEST: usize = 60;

/// How much is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Only what is wrong.
    Quiet,
    /// Every site.
    Normal,
    /// Also what isn't worth a problem.
    Verbose,
}

/// How wide the columns are.
struct Columns {
    all: usize,
    file: usize,
    names: usize,
}

/// The lines of a status, for a terminal of this width.
#[must_use]
pub fn lines(status: &Status, width: usize, detail: Detail) -> Vec<Line> {
    let columns = columns(status, width.max(NARROWEST));
    let shown = |site: &&Site| detail != Detail::Quiet || site.severity > Severity::Unknown;
    let mut lines = Vec::new();
    let sites: Vec<&Site> = status.sites.iter().filter(shown).collect();
    if !sites.is_empty() {
        lines.push(plain(row(
            &columns,
            ["STAT", "FILE", "NAMES", "KEY", "EXPIRES", "LEFT", "CERTBOT", "DISK", "HAPROXY"]
                .map(str::to_owned),
        )));
    }
    for site in sites {
        lines.push(Line { tone: tone(site.severity), text: row(&columns, cells(site, &columns, status.at)) });
        for problem in site.problems.iter().filter(|problem| is_worth_a_line(problem, detail)) {
            lines.extend(explained("", problem, &columns));
        }
    }
    // A line of its own, as that of a site.
    for problem in &status.problems {
        lines.extend(explained(stat(problem.severity), problem, &columns));
    }
    if detail != Detail::Quiet {
        lines.extend(status.unseen.iter().flat_map(|what| wrapped("unseen: ", what, &columns, Tone::Wary)));
        lines.extend(haproxys(status, &columns, detail));
        lines.extend(last_run(status).into_iter().flat_map(|text| wrapped("", &text, &columns, Tone::Plain)));
    }
    lines.extend(status.findings.iter().flat_map(|finding| found(finding, &columns, detail)));
    let severity = status.severity();
    if detail != Detail::Quiet || severity > Severity::Ok {
        let first = format!("{}: ", severity.name().to_ascii_uppercase());
        lines.extend(wrapped(&first, &verdict(status), &columns, tone(severity)));
    }
    lines
}

fn columns(status: &Status, width: usize) -> Columns {
    let free = width - FIXED - 1;
    let longest = status.sites.iter().map(|site| file_cell(site, width >= WIDE).len()).max().unwrap_or(4);
    if width < WIDE {
        return Columns { all: width, file: longest.clamp(20, free), names: 0 };
    }
    let file = longest.clamp(20, free / 2);
    let names = status.sites.iter().map(|site| names(site).len()).max().unwrap_or(0);
    Columns { all: width, file, names: names.clamp(5, free - file - 1) }
}

/// One line of the table.
fn row(columns: &Columns, cells: [String; 9]) -> String {
    let [stat, file, names, key, expires, left, certbot, disk, haproxy] = cells;
    let mut text = format!("{stat:<4} {:<width$} ", cut(&file, columns.file), width = columns.file);
    if columns.names > 0 {
        let _ = write!(text, "{:<width$} ", cut(&names, columns.names), width = columns.names);
    }
    let _ = write!(text, "{key:<7} {expires:<10} {left:>5} {certbot:<7} {disk:<7} {haproxy:<7}");
    text.trim_end().to_owned()
}

fn cells(site: &Site, columns: &Columns, now: i64) -> [String; 9] {
    let leaf = site.leaf();
    let expires = site.expires();
    let is_loaded = site.views.role == Role::Host || site.views.file.as_deref().is_some_and(is_loaded_name);
    [
        stat(site.severity).to_owned(),
        file_cell(site, columns.names > 0),
        names(site),
        leaf.map(|leaf| key(&leaf.key_type)).unwrap_or_default(),
        expires.and_then(day).unwrap_or_default(),
        expires.map(|at| left(at - now)).unwrap_or_default(),
        place(site.certbot, site.views.lineage.is_some()),
        place(site.disk, site.views.file.is_some()),
        place(site.all_haproxys(), is_loaded && !site.haproxy.is_empty()),
    ]
}

fn place(state: PlaceState, is_expected: bool) -> String {
    if is_expected || state == PlaceState::Unknown { state.name() } else { "-" }.to_owned()
}

fn file_cell(site: &Site, names_have_a_column: bool) -> String {
    let mut text = file(site);
    if site.views.role == Role::Host {
        text = format!("{} (host)", text.rsplit('/').next().unwrap_or_default());
    }
    let others = site.leaf().map_or(0, |leaf| leaf.names.len().saturating_sub(1));
    if !names_have_a_column && others > 0 {
        let _ = write!(text, " +{others}");
    }
    text
}

fn names(site: &Site) -> String {
    site.leaf().map(|leaf| escaped(&leaf.names.join(" ")).to_string()).unwrap_or_default()
}

fn stat(severity: Severity) -> &'static str {
    match severity {
        Severity::Ok => "ok",
        Severity::Unknown => "?",
        Severity::Warning => "WARN",
        Severity::Critical => "CRIT",
    }
}

fn key(key: &KeyType) -> String {
    let text = key.to_string().replace("ecdsa-", "").replace('-', "");
    cut(&text, 7)
}

/// A time as a day: `2027-02-21`.
fn day(at: i64) -> Option<String> {
    let date = OffsetDateTime::from_unix_timestamp(at).ok()?.date();
    Some(format!("{:04}-{:02}-{:02}", date.year(), u8::from(date.month()), date.day()))
}

/// What is left, in as few letters as may be: `89d`, `40h`, `5m`; `-3d` where it is over.
fn left(seconds: i64) -> String {
    let sign = if seconds < 0 { "-" } else { "" };
    let text = match seconds.abs() {
        past @ 172_800.. => format!("{}d", past / 86_400),
        past @ 7_200.. => format!("{}h", past / 3_600),
        past => format!("{}m", past / 60),
    };
    format!("{sign}{text}")
}

fn cut(text: &str, width: usize) -> String {
    match text.get(..width.saturating_sub(2)) {
        Some(start) if text.len() > width => format!("{start}.."),
        _ => text.to_owned(),
    }
}

/// What is owed to a HAProxy is said once, not for each site.
fn is_worth_a_line(problem: &Problem, detail: Detail) -> bool {
    let least = if detail == Detail::Verbose { Severity::Ok } else { Severity::Unknown };
    problem.kind != Kind::ReloadOwed && problem.severity >= least && problem.kind != Kind::Foreign
}

/// A problem and what to do about it.
fn explained(stat: &str, problem: &Problem, columns: &Columns) -> Vec<Line> {
    let tone = tone(problem.severity);
    let first = format!("{stat:<4} {}: ", problem.kind.name());
    let mut lines = wrapped(&first, &problem.fact, columns, tone);
    if let Some(advice) = &problem.advice {
        lines.extend(wrapped("       -> ", advice, columns, Tone::Plain));
    }
    lines
}

fn found(finding: &Finding, columns: &Columns, detail: Detail) -> Vec<Line> {
    if detail == Detail::Quiet && finding.severity <= Severity::Unknown {
        return Vec::new();
    }
    let first = format!("setup {:<4} {}: ", stat(finding.severity), finding.name);
    let mut lines = wrapped(&first, &finding.fact, columns, tone(finding.severity));
    for line in &finding.mend {
        // To be copied: never broken.
        lines.push(plain(format!("       -> {line}")));
    }
    lines
}

/// A line for each HAProxy that can't be wholly seen, or was told something.
fn haproxys(status: &Status, columns: &Columns, detail: Detail) -> Vec<Line> {
    let mut lines = Vec::new();
    for haproxy in &status.haproxy {
        let name = escaped(&haproxy.name);
        if let Some(why) = haproxy.unseen.as_ref().filter(|_| haproxy.wanted) {
            if haproxy.is_unseen() {
                let fact = format!("what {name} serves: {why}");
                lines.extend(wrapped("unseen: ", &fact, columns, Tone::Wary));
                let advice = "set runtime_socket, master_socket or probe of its [[haproxy]] table";
                lines.extend(wrapped("       -> ", advice, columns, Tone::Plain));
            } else if detail == Detail::Verbose {
                lines.extend(wrapped("unseen: ", &format!("part of {name}: {why}"), columns, Tone::Plain));
            }
        }
    }
    lines
}

/// When the last run was, and what came of it.
fn last_run(status: &Status) -> Option<String> {
    let ago = |at: i64| span(status.at.saturating_sub(at).max(0));
    let Some(run) = status.last_run.as_ref()? else {
        return Some("Last run: none is known of".to_owned());
    };
    let mut text = format!("Last run: {} ago, {}", ago(run.at), ended(run));
    let files = if run.changes == 1 { "1 file" } else { &format!("{} files", run.changes) };
    let _ = write!(text, ", {files} changed");
    for (name, told) in &run.told {
        let outcome = serde_json::to_value(told.outcome).ok();
        let outcome = outcome.as_ref().and_then(|outcome| outcome.as_str()).unwrap_or("told");
        let _ = write!(text, "; {} {outcome} {} ago", escaped(name), ago(told.at));
        if told.confirmed == Some(true) {
            text.push_str(" and confirmed");
        }
        if let Some(detail) = told.detail.as_ref().filter(|_| run.exit == 2) {
            let _ = write!(text, ": {detail}");
        }
    }
    Some(text)
}

fn ended(run: &crate::sites::last_run::LastRun) -> &'static str {
    match run.exit {
        0 => "everything in step",
        1 if run.only_warned => "deployed, with warnings",
        1 => "some lineages not deployed",
        2 => "HAProxy not told",
        _ => "not finished",
    }
}

/// A text behind its first words, broken at spaces and indented as far as they are.
fn wrapped(first: &str, text: &str, columns: &Columns, tone: Tone) -> Vec<Line> {
    let indent = " ".repeat(first.len().min(11));
    let mut lines = Vec::new();
    let mut line = first.to_owned();
    let mut is_empty = true;
    for word in text.split(' ') {
        if !is_empty && line.len() + 1 + word.len() > columns.all {
            lines.push(Line { tone, text: std::mem::replace(&mut line, indent.clone()) });
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
        is_empty = false;
    }
    lines.push(Line { tone, text: line });
    lines
}

fn plain(text: String) -> Line {
    Line { tone: Tone::Plain, text }
}

fn tone(severity: Severity) -> Tone {
    match severity {
        Severity::Ok => Tone::Good,
        Severity::Unknown | Severity::Warning => Tone::Wary,
        Severity::Critical => Tone::Bad,
    }
}
