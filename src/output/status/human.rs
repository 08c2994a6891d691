//! The status for people: a table, under each row what is wrong and what to do about it, and a verdict.

use std::fmt::Write;

use super::{edition_line, file, verdict};
use crate::certified_key::KeyType;
use crate::host_setup::finding::Finding;
use crate::output::fleet::counted;
use crate::output::human::Tone;
use crate::output::late::late;
use crate::plan::client::Client;
use crate::plan::names::is_loaded_name;
use crate::plan::row::Role;
use crate::sites::last_run::LastRun;
use crate::status::Status;
use crate::status::advice::{Part, day, parts, span};
use crate::status::judge::{Serves, Site, is_future};
use crate::status::problem::Problem;
use crate::status::severity::{PlaceState, ProblemKind, Severity};
use crate::sys::escape::escaped;

/// From this width on the names have a column of their own.
const WIDE: usize = 110;

/// The narrowest that a line is broken to.
const NARROWEST: usize = 20;

/// What a file's name gets at least before columns are left out for it.
const LEAST_FILE: usize = 20;

/// The columns beside the file and its names, each with its width, the dearest first.
const COLUMNS: [(Column, usize); 7] = [
    (Column::Haproxy, 7),
    (Column::Fleet, 7),
    (Column::Left, 5),
    (Column::Disk, 7),
    (Column::Certbot, 7),
    (Column::Expires, 10),
    (Column::Key, 7),
];

/// A column that is left out where there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Column {
    Key,
    Expires,
    Left,
    Certbot,
    Disk,
    Fleet,
    Haproxy,
}

/// A line, of which only the beginning has a tone: its first word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusLine {
    /// What the toned part says of itself.
    pub tone: Tone,
    /// How long the toned part is, in bytes.
    pub toned: usize,
    /// The text, ASCII.
    pub text: String,
}

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
    others: Vec<(Column, usize)>,
}

/// The lines of a status, for a terminal of this width.
#[must_use]
pub fn lines(status: &Status, width: usize, detail: Detail) -> Vec<StatusLine> {
    let columns = columns(status, width.max(NARROWEST));
    let shown = |site: &&Site| detail != Detail::Quiet || site.severity > Severity::Unknown;
    let mut lines = Vec::new();
    let sites: Vec<&Site> = status.sites.iter().filter(shown).collect();
    if !sites.is_empty() {
        let what = if status.only_publishes() { "LINEAGE" } else { "FILE" };
        lines.push(plain(row(&columns, "STAT", what, "NAMES", |column| column.title(status.client))));
    }
    for site in sites {
        let text = row(&columns, stat(site.severity), &file_cell(site), &names(site), |column| {
            cell(site, column, status.at)
        });
        lines.push(StatusLine { tone: tone(site.severity), toned: stat(site.severity).len(), text });
        if detail == Detail::Verbose {
            lines.extend(in_full(site, &columns));
        }
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
        let edition = status.edition.as_ref().map(|it| format!("Fleet {}", edition_line(it, status.at)));
        let notes = edition.into_iter().chain(last_run(status)).chain(last_publish(status));
        lines.extend(notes.flat_map(|text| wrapped("", &text, &columns, Tone::Plain)));
    }
    lines.extend(status.findings.iter().flat_map(|finding| found(finding, &columns, detail)));
    let severity = status.severity();
    if detail != Detail::Quiet || severity > Severity::Ok {
        let first = format!("{}: ", severity.name().to_ascii_uppercase());
        lines.extend(wrapped(&first, &verdict(status), &columns, tone(severity)));
    }
    lines
}

/// As many columns as there is room for beside the file.
fn columns(status: &Status, width: usize) -> Columns {
    let longest = status.sites.iter().map(|site| file_cell(site).len()).max().unwrap_or(4);
    let mut free = width.saturating_sub(4 + 1);
    let mut others = Vec::new();
    let is_asked = |column| match column {
        Column::Haproxy | Column::Disk => !status.only_publishes(),
        Column::Fleet => status.edition.is_some(),
        _ => true,
    };
    for (column, of) in COLUMNS.into_iter().filter(|(column, _)| is_asked(*column)) {
        if free < LEAST_FILE + 1 + of {
            break;
        }
        free -= of + 1;
        others.push((column, of));
    }
    others.sort();
    if width < WIDE {
        return Columns { all: width, file: longest.max(LEAST_FILE).min(free), names: 0, others };
    }
    let file = longest.max(LEAST_FILE).min(free / 2);
    let names = status.sites.iter().map(|site| names(site).len()).max().unwrap_or(0);
    Columns { all: width, file, names: names.max(5).min(free.saturating_sub(file + 1)), others }
}

/// One line of the table.
fn row(columns: &Columns, stat: &str, file: &str, names: &str, cell: impl Fn(Column) -> String) -> String {
    let mut text = format!("{stat:<4} {:<width$}", cut(file, columns.file), width = columns.file);
    if columns.names > 0 {
        let _ = write!(text, " {:<width$}", cut(names, columns.names), width = columns.names);
    }
    for (column, width) in &columns.others {
        let _ = match column {
            Column::Left => write!(text, " {:>width$}", cell(*column)),
            _ => write!(text, " {:<width$}", cell(*column)),
        };
    }
    text.trim_end().to_owned()
}

impl Column {
    fn title(self, client: Client) -> String {
        let title = match self {
            Self::Key => "KEY",
            Self::Expires => "EXPIRES",
            Self::Left => "LEFT",
            Self::Certbot => client.place(),
            Self::Disk => "DISK",
            Self::Fleet => "FLEET",
            Self::Haproxy => "HAPROXY",
        };
        title.to_ascii_uppercase()
    }
}

fn cell(site: &Site, column: Column, now: i64) -> String {
    let expires = site.expires();
    let is_loaded = site.views.role == Role::Host || site.views.file.as_deref().is_some_and(is_loaded_name);
    match column {
        Column::Key => site.leaf().map(|leaf| key(&leaf.key_type)).unwrap_or_default(),
        Column::Expires => expires.and_then(day).unwrap_or_default(),
        Column::Left => expires.map(|at| left(at - now)).unwrap_or_default(),
        Column::Certbot => place(site.certbot, site.views.lineage.is_some()),
        Column::Disk => place(site.disk, site.views.file.is_some()),
        Column::Fleet => site.published.map(|state| state.name().to_owned()).unwrap_or_default(),
        Column::Haproxy => match served(site) {
            Some(word) => word.to_owned(),
            None => place(site.all_haproxys(), is_loaded && !site.haproxy.is_empty()),
        },
    }
}

/// The word for a file that HAProxy has loaded, and doesn't serve all names from.
pub(super) fn served(site: &Site) -> Option<&'static str> {
    if site.all_haproxys() != PlaceState::Current {
        return None;
    }
    let serves = |what: Serves| site.haproxy.iter().any(|view| view.serves == Some(what));
    if serves(Serves::None) {
        Some("loaded")
    } else if serves(Serves::Some) {
        Some("partly")
    } else {
        None
    }
}

/// What the table had no room for.
fn in_full(site: &Site, columns: &Columns) -> Vec<StatusLine> {
    let mut lines = Vec::new();
    let file = file_cell(site);
    if file.len() > columns.file {
        lines.extend(wrapped("     file: ", &file, columns, Tone::Plain));
    }
    let names = names(site);
    if !names.is_empty() && names.len() > columns.names {
        lines.extend(wrapped("     names: ", &names, columns, Tone::Plain));
    }
    lines
}

pub(super) fn place(state: PlaceState, is_expected: bool) -> String {
    if is_expected || state == PlaceState::Unknown { state.name() } else { "-" }.to_owned()
}

pub(super) fn file_cell(site: &Site) -> String {
    let text = file(site);
    if site.views.role == Role::Host || site.is_placeholder() {
        let what = if site.is_placeholder() { "placeholder" } else { "host" };
        return format!("{} ({what})", text.rsplit('/').next().unwrap_or_default());
    }
    text
}

pub(super) fn names(site: &Site) -> String {
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

/// What is left, in as few letters as may be: `89d`, `40h`, `5m`, `40s`; `-3d` where it is over.
fn left(seconds: i64) -> String {
    let sign = if seconds < 0 { "-" } else { "" };
    let text = match seconds.abs() {
        past @ 172_800.. => format!("{}d", past / 86_400),
        past @ 7_200.. => format!("{}h", past / 3_600),
        past @ 120.. => format!("{}m", past / 60),
        past => format!("{past}s"),
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
pub(super) fn is_worth_a_line(problem: &Problem, detail: Detail) -> bool {
    let least = if detail == Detail::Verbose { Severity::Ok } else { Severity::Unknown };
    match problem.kind {
        ProblemKind::ReloadOwed => false,
        ProblemKind::Foreign => !problem.fact.is_empty(),
        _ => problem.severity >= least,
    }
}

/// A problem and what to do about it.
fn explained(stat: &str, problem: &Problem, columns: &Columns) -> Vec<StatusLine> {
    let first = format!("{stat:<4} {}: ", problem.kind.name());
    let mut lines = wrapped(&first, &problem.fact, columns, tone(problem.severity));
    if let Some(advice) = &problem.advice {
        lines.extend(advised(advice, columns));
    }
    lines
}

/// What to do, broken at spaces, but never within a command: it is there to be copied.
fn advised(advice: &str, columns: &Columns) -> Vec<StatusLine> {
    let mut pieces: Vec<String> = Vec::new();
    for part in parts(advice) {
        match part {
            Part::Command(command) => pieces.push(command.to_owned()),
            // What ends a command stays with it.
            Part::Words(words) => {
                let mut words = words;
                if let (Some(last), true) = (pieces.last_mut(), words.starts_with(';')) {
                    last.push(';');
                    words = words.get(1..).unwrap_or_default();
                }
                pieces.extend(words.split_ascii_whitespace().map(str::to_owned));
            }
        }
    }
    broken("       -> ", pieces, columns, Tone::Plain)
}

fn found(finding: &Finding, columns: &Columns, detail: Detail) -> Vec<StatusLine> {
    if detail == Detail::Quiet && finding.severity <= Severity::Unknown {
        return Vec::new();
    }
    let first = format!("setup {:<4} {}: ", stat(finding.severity), finding.name);
    let mut lines = wrapped(&first, &finding.fact, columns, tone(finding.severity));
    for line in &mut lines {
        // The word behind "setup".
        line.toned = if line.text.starts_with("setup ") { 10 } else { 0 };
    }
    for line in &finding.mend {
        // To be copied: never broken.
        lines.push(plain(format!("       -> {line}")));
    }
    lines
}

/// A line for each HAProxy that can't be wholly seen, or was notified something.
fn haproxys(status: &Status, columns: &Columns, detail: Detail) -> Vec<StatusLine> {
    let mut lines = Vec::new();
    for haproxy in &status.haproxy {
        let name = escaped(&haproxy.name);
        if let Some(why) = haproxy.unseen.as_ref().filter(|_| haproxy.wanted) {
            if haproxy.down.is_some() {
                // It is a problem with a line of its own.
            } else if haproxy.is_unseen() {
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
pub(super) fn last_run(status: &Status) -> Option<String> {
    let when = |at| when(at, status.at);
    let Some(run) = status.last_run.here() else {
        let is_known = !status.last_run.is_unseen();
        return is_known.then(|| "Last run: none is known of".to_owned());
    };
    if let Some(error) = &run.error {
        return Some(format!("Last run: {}, failed: {}", when(run.at), error.message));
    }
    let (ended, what) =
        if status.only_publishes() { (published(run), "lineage") } else { (ended(run), "file") };
    let mut text = format!("Last run: {}, {ended}, {} changed", when(run.at), counted(run.changes, what));
    for (name, told) in &run.told {
        let outcome = serde_json::to_value(told.outcome).ok();
        let outcome = outcome.as_ref().and_then(|outcome| outcome.as_str()).unwrap_or("told");
        let _ = write!(text, "; {} {outcome} {}", escaped(name), when(told.at));
        if told.confirmed == Some(true) {
            text.push_str(" and confirmed");
        }
        if let Some(detail) = told.detail.as_ref().filter(|_| run.exit == 2) {
            let _ = write!(text, ": {detail}");
        }
    }
    Some(text)
}

/// When the last publish was, and what came of it, where that isn't all of the last run.
pub(super) fn last_publish(status: &Status) -> Option<String> {
    let run = status.last_publish.here()?;
    let when = when(run.at, status.at);
    if let Some(error) = &run.error {
        return Some(format!("Last publish: {when}, failed: {}", error.message));
    }
    let changed = counted(run.changes, "lineage");
    Some(format!("Last publish: {when}, {}, {changed} changed", published(run)))
}

fn when(at: i64, now: i64) -> String {
    match now.saturating_sub(at) {
        since if is_future(at, now) => format!("{} in the future", span(-since)),
        since => format!("{} ago", span(since.max(0))),
    }
}

/// How a publish ended.
fn published(run: &LastRun) -> &'static str {
    match run.exit {
        0 => "everything published",
        1 if run.only_warned => "published, with warnings",
        1 => "some lineages not published",
        _ => "not finished",
    }
}

fn ended(run: &LastRun) -> &'static str {
    match run.exit {
        0 => "everything in step",
        1 if run.only_warned => "deployed, with warnings",
        1 => "some lineages not deployed",
        2 if late(&run.undeployed, run.at).is_some() && run.told.values().all(|told| told.at < run.at) => {
            "a deploy has waited for more than a day"
        }
        2 => "HAProxy not notified",
        _ => "not finished",
    }
}

/// A text behind its first words, broken at spaces and indented as far as they are.
fn wrapped(first: &str, text: &str, columns: &Columns, tone: Tone) -> Vec<StatusLine> {
    broken(first, text.split(' ').map(str::to_owned), columns, tone)
}

/// Pieces behind the first words, on as many lines as they need. Only the first word of all has the tone.
fn broken(
    first: &str,
    pieces: impl IntoIterator<Item = String>,
    columns: &Columns,
    tone: Tone,
) -> Vec<StatusLine> {
    let indent = " ".repeat(first.len().min(11).min(columns.all / 3));
    let mut lines = Vec::new();
    let mut line = first.to_owned();
    let mut is_empty = true;
    for piece in pieces {
        if !is_empty && line.len() + 1 + piece.len() > columns.all {
            lines.push(plain(std::mem::replace(&mut line, indent.clone())));
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(&piece);
        is_empty = false;
    }
    lines.push(plain(line));
    if let Some(start) = lines.first_mut().filter(|_| !first.trim().is_empty()) {
        let blanks = first.len() - first.trim_start().len();
        let word = first.trim_start().find(' ').map_or(first.len(), |at| blanks + at);
        (start.tone, start.toned) = (tone, word);
    }
    lines
}

fn plain(text: String) -> StatusLine {
    StatusLine { tone: Tone::Plain, toned: 0, text }
}

fn tone(severity: Severity) -> Tone {
    match severity {
        Severity::Ok => Tone::Good,
        Severity::Unknown | Severity::Warning => Tone::Wary,
        Severity::Critical => Tone::Bad,
    }
}
