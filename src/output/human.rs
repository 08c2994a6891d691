//! The report for people: one ASCII line for each thing that changed or failed, and a summary.

use std::fmt::Write;

use strum::VariantArray as _;

use super::{HaproxyRow, Note, Report, Weight};
use crate::haproxy::verdict::Outcome;
use crate::plan::action::Action;
use crate::plan::client::Client;
use crate::plan::row::{Role, Row};
use crate::sys::escape::{escaped, escaped_path};

/// What a line is about, for its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// Something changed as it should.
    Good,
    /// Worth a look.
    Wary,
    /// Something failed.
    Bad,
    /// Neither.
    Plain,
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// What it is about.
    pub tone: Tone,
    /// The text, ASCII, without a line end.
    pub text: String,
}

/// The lines of a report. `verbose`: also for what is unchanged.
#[must_use]
pub fn lines(report: &Report, verbose: bool) -> Vec<Line> {
    let mut lines = points(report, verbose);
    // Where the run didn't look there is nothing to sum up.
    if (report.error.is_none() && report.proved.is_some()) || !report.rows.is_empty() {
        lines.push(summary(report));
    }
    lines
}

/// The lines of a report without the one that sums it up.
pub(crate) fn points(report: &Report, verbose: bool) -> Vec<Line> {
    let closely = verbose || report.dry_run;
    let notes = report.notes.iter().filter(|note| closely || note.weight != Weight::Hint);
    let mut lines: Vec<Line> = notes.map(note_line).collect();
    lines.extend(
        report.rows.iter().filter(|row| verbose || has_news(row)).map(|row| row_line(row, report.client)),
    );
    lines.extend(
        report.haproxy.iter().filter(|row| verbose || was_told(row)).map(|row| told_line(row, verbose)),
    );
    lines
}

fn note_line(note: &Note) -> Line {
    let tone = if note.weight == Weight::Alarm { Tone::Bad } else { Tone::Wary };
    Line { tone, text: format!("{:<10} {}", "note", note.text) }
}

/// Whether a row is worth a line of its own.
pub(crate) fn has_news(row: &Row) -> bool {
    row.is_bad() || row.action.is_change()
}

/// Whether a HAProxy was notified something, or should have been.
pub(crate) fn was_told(row: &HaproxyRow) -> bool {
    !matches!(row.outcome, Outcome::NotNeeded | Outcome::Skipped)
}

/// The line of one file; `client` renews it.
pub(crate) fn row_line(row: &Row, client: Client) -> Line {
    let tone = match row.action {
        _ if row.is_bad() => Tone::Bad,
        _ if !row.warnings.is_empty() => Tone::Wary,
        _ if row.action.is_change() => Tone::Good,
        _ => Tone::Plain,
    };
    let name = row.file.as_ref().or(row.lineage.as_ref()).map(|name| name.as_encoded_bytes());
    let mut text = format!("{:<10} {}", row.action.name(), escaped(name.unwrap_or_default()));
    if row.role == Role::Host {
        text.push_str(" (host certificate)");
    }
    if let Some(reason) = row.reason() {
        let _ = write!(text, ": {}", reason.name());
    }
    if !row.warnings.is_empty() {
        let _ = write!(text, " [{}]", row.warnings.names().join(", "));
    }
    if let Some(detail) = row.detail() {
        let _ = write!(text, ": {detail}");
    }
    if let Some(advice) = row.reason().and_then(|reason| reason.advice(client)) {
        let _ = write!(text, "; {}", row.with_name(&advice));
    }
    Line { tone, text }
}

/// The line of one HAProxy.
pub(crate) fn haproxy_line(row: &HaproxyRow) -> Line {
    let tone = match row.is_bad() {
        true => Tone::Bad,
        false if row.owed => Tone::Wary,
        false => Tone::Good,
    };
    let told = outcome(row);
    let mut text = format!("{:<10} {}: {told} ({}", "notify", escaped(&row.name), row.method.name());
    text.push_str(match row.confirmed {
        Some(true) => ", confirmed)",
        Some(false) => ", not confirmed)",
        None => ")",
    });
    if let Some(detail) = &row.detail {
        let _ = write!(text, ": {detail}");
    }
    if row.owed && row.outcome != Outcome::Deferred {
        text.push_str("; the next run notifies it again");
    }
    Line { tone, text }
}

/// How notifying a HAProxy ended, in words.
pub(crate) fn outcome(row: &HaproxyRow) -> &'static str {
    match row.outcome {
        Outcome::Updated => "updated in memory",
        Outcome::Reloaded => "reloaded",
        Outcome::Failed => "could not be notified",
        Outcome::RolledBack => "refused, the previous files are back",
        Outcome::NotNeeded => "nothing to do",
        Outcome::NotRunning => "not running",
        Outcome::Skipped => "not notified, as configured",
        Outcome::Deferred => "the next run notifies it",
    }
}

/// The line of one HAProxy; `verbose`: with the ways that were passed over.
fn told_line(row: &HaproxyRow, verbose: bool) -> Line {
    let Line { tone, mut text } = haproxy_line(row);
    if verbose && !row.passed_over.is_empty() {
        let _ = write!(text, "; passed over: {}", row.passed_over.join("; "));
    }
    Line { tone, text }
}

fn summary(report: &Report) -> Line {
    let counts = report.counts();
    let parts: Vec<String> = Action::VARIANTS
        .iter()
        .filter_map(|action| Some(format!("{} {}", counts.get(action)?, done(*action, report.dry_run))))
        .collect();
    let bad = report.rows.iter().any(Row::is_bad);
    let outcome = if report.is_deployed_with_warnings() { "deployed, with warnings: " } else { "" };
    let list = if parts.is_empty() { "nothing there".to_owned() } else { parts.join(", ") };
    let indexed = if report.unchanged_since.is_some() { " (indexed)" } else { "" };
    let owed = if report.owed { "; HAProxy has not been notified of an earlier change" } else { "" };
    Line {
        tone: if bad { Tone::Wary } else { Tone::Plain },
        text: format!("{}: {outcome}{list}{indexed}{owed}", escaped_path(&report.sites_dir)),
    }
}

fn done(action: Action, dry_run: bool) -> &'static str {
    match (action, dry_run) {
        (Action::Install, false) => "installed",
        (Action::Install, true) => "to install",
        (Action::Replace, false) => "replaced",
        (Action::Replace, true) => "to replace",
        (Action::Repair, false) => "repaired",
        (Action::Repair, true) => "to repair",
        (Action::Prune, false) => "pruned",
        (Action::Prune, true) => "to prune",
        (Action::Unchanged, _) => "unchanged",
        (Action::Refuse, _) => "refused",
        (Action::Conflict, _) => "in conflict",
        (Action::Foreign, _) => "foreign",
    }
}
