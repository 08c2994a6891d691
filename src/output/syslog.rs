//! The system log: certbot hides what its hooks print and ignores their exit status, so failures must be seen elsewhere.
//!
//! What changed is always logged. A failure that stays is logged once a day, so that a timer doesn't fill the log.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::net::UnixDatagram;

use super::human::{Tone, haproxy_line, has_news, outcome, row_line, was_told};
use super::late::undeployed;
use super::{Exit, HaproxyRow, Report, Weight};
use crate::certified_key::hex;
use crate::config::Settings;
use crate::haproxy::verdict::Outcome;
use crate::plan::reason::Reason;
use crate::plan::row::Row;
use crate::sites::last_run::{LastRun, RejectedFile, Told};
use crate::sys::clock::now;
use crate::sys::escape::escaped;
use crate::sys::failure::{Failure, FailureKind};
use crate::sys::system::System;

/// A failure that stays is logged again after so many seconds.
const REMINDER: i64 = 24 * 60 * 60;

/// More changes than this are one line.
const MAX_CHANGES: usize = 50;

/// `LOG_DAEMON` of RFC 3164, shifted.
const FACILITY: u8 = 3 << 3;

/// How urgent a line is (RFC 5424, section 6.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Severity {
    Error = 3,
    Warning = 4,
    Notice = 5,
}

/// Logs what a run did and records when, and how, it ended.
pub fn log(settings: &Settings, system: &System, report: &Report, exit: Exit) {
    let before = LastRun::load(&settings.sites_dir);
    let (lines, complaints) = compose(report, &before.complaints, now());
    send(system, &lines);
    let at = now();
    // What it didn't come to is as it was.
    let has_failed = report.error.is_some();
    let known = if has_failed { before.rejected } else { BTreeMap::new() };
    let run = LastRun {
        at,
        exit: exit.code(),
        only_warned: report.is_deployed_with_warnings(),
        error: report.error.clone(),
        changes: report.changed_before + report.changes(),
        succeeded: if exit == Exit::Fine { at } else { before.succeeded },
        told: told(report, before.told, at),
        complaints,
        undeployed: undeployed(report, &before.undeployed, at),
        accepted: report.accepted.clone().or(before.accepted.filter(|_| has_failed)),
        rejected: known.into_iter().chain(report.rows.iter().filter_map(rejected)).collect(),
    };
    // Status and the log's reminders live on it, nothing else does; who may not write there has been told so already.
    if let Err(failure) = run.save(settings, system)
        && failure.kind == FailureKind::Io
    {
        send(
            system,
            &[(Severity::Error, format!("the record of this run is not kept: {}", failure.message))],
        );
    }
}

/// Logs how publishing to a fleet ended, where that is news: `before` is what [`LastRun::complaints`] had. Returns what it has
/// from now on.
#[must_use]
pub fn publishing(
    system: &System,
    failure: Option<&Failure>,
    before: &BTreeMap<String, i64>,
) -> BTreeMap<String, i64> {
    let standing =
        failure.map(|failure| Complaint::of("publishing failed", &failure.message, &failure.message));
    let (lines, complaints) = news(standing.into_iter().collect(), true, before, now());
    send(system, &lines);
    complaints
}

/// Logs a failure that happened before anything was known.
pub fn failure(system: &System, failure: &Failure) {
    send(system, &[(Severity::Error, failure.message.clone())]);
}

/// How each HAProxy was last notified: by this run, where there was something to tell, else by an earlier one. What failed is
/// over once nothing is left to tell, as after a restart by somebody else.
fn told(report: &Report, mut before: BTreeMap<String, Told>, at: i64) -> BTreeMap<String, Told> {
    for row in &report.haproxy {
        let failed = |told: &Told| !told.worked() && told.outcome != Outcome::RolledBack;
        let is_over = || !row.owed && before.get(&row.name).is_some_and(failed);
        if !was_told(row) && !is_over() {
            continue;
        }
        let HaproxyRow { method, outcome, confirmed, .. } = *row;
        let told =
            Told { at, method, outcome, confirmed, detail: row.detail.clone(), advice: row.advice.clone() };
        before.insert(row.name.clone(), told);
    }
    before
}

/// What HAProxy refused of a row, by its file.
fn rejected(row: &Row) -> Option<(String, RejectedFile)> {
    let refusal = row.refusal.as_ref().filter(|refusal| refusal.reason == Reason::HaproxyRejects)?;
    let file = row.file.as_ref()?.to_str()?.to_owned();
    Some((file, RejectedFile { sha256: hex(row.sha256.as_ref()?), words: refusal.detail.clone() }))
}

type Lines = Vec<(Severity, String)>;

/// The lines to log, and the complaints that now stand, each with the time when it was last logged.
fn compose(report: &Report, before: &BTreeMap<String, i64>, now: i64) -> (Lines, BTreeMap<String, i64>) {
    let mut lines = Lines::new();
    let good: Vec<&Row> = report.rows.iter().filter(|row| has_news(row) && !row.is_bad()).collect();
    if good.len() > MAX_CHANGES {
        lines.push((Severity::Notice, format!("{} files changed", good.len())));
    } else {
        lines.extend(good.iter().map(|row| {
            let line = row_line(row, report.client);
            (if line.tone == Tone::Good { Severity::Notice } else { Severity::Warning }, line.text)
        }));
    }
    let told = report.haproxy.iter().filter(|row| was_told(row) && !row.is_bad());
    lines.extend(told.map(|row| (Severity::Notice, haproxy_line(row).text)));

    let (news, complaints) = news(standing(report), report.error.is_none(), before, now);
    lines.extend(news);
    (lines, complaints)
}

/// What is wrong and wasn't before, or was last logged long ago, and what is over; `is_all`: whether what isn't among it is over.
fn news(
    standing: Vec<Complaint>,
    is_all: bool,
    before: &BTreeMap<String, i64>,
    now: i64,
) -> (Lines, BTreeMap<String, i64>) {
    let (mut lines, mut complaints) = (Lines::new(), BTreeMap::new());
    for Complaint { key, text } in standing {
        let logged = before.get(&key).copied().filter(|&at| (0..REMINDER).contains(&now.saturating_sub(at)));
        if logged.is_none() {
            lines.push((Severity::Error, text));
        }
        complaints.insert(key, logged.unwrap_or(now));
    }
    // What goes on for another cause was just logged anew.
    let subjects: BTreeSet<String> = complaints.keys().map(|key| subject(key).to_owned()).collect();
    let others = before.iter().filter(|(key, _)| !subjects.contains(subject(key)));
    if is_all {
        let cleared: BTreeSet<&str> = others.map(|(key, _)| subject(key)).collect();
        lines.extend(cleared.iter().map(|subject| (Severity::Notice, format!("no longer: {subject}"))));
    } else {
        complaints.extend(others.map(|(key, at)| (key.clone(), *at)));
    }
    (lines, complaints)
}

/// Something that is wrong.
struct Complaint {
    /// By which a later run knows it again: what it is about, and the cause without what differs from run to run.
    key: String,
    /// The line for people.
    text: String,
}

impl Complaint {
    fn of(subject: &str, cause: &str, text: &str) -> Self {
        let cause = without_numbers(cause);
        Self { key: format!("{subject}{BECAUSE}{cause}"), text: text.to_owned() }
    }
}

/// Between what a complaint is about and its cause.
const BECAUSE: &str = " | ";

/// What a complaint is about.
fn subject(key: &str) -> &str {
    key.split_once(BECAUSE).map_or(key, |(subject, _)| subject)
}

/// What is wrong after this run.
fn standing(report: &Report) -> Vec<Complaint> {
    let mut standing = Vec::new();
    let alarms = report.notes.iter().filter(|note| note.weight == Weight::Alarm);
    standing.extend(alarms.map(|note| Complaint { key: note.text.clone(), text: note.text.clone() }));
    for row in report.rows.iter().filter(|row| row.is_bad()) {
        let name = row.file.as_ref().or(row.lineage.as_ref()).map(|name| name.as_encoded_bytes());
        let name = escaped(name.unwrap_or_default());
        let warnings = || row.warnings.names().join(", ");
        let cause = row.reason().map_or_else(warnings, |reason| reason.name().to_owned());
        standing.push(Complaint::of(
            &format!("{} {name}", row.action.name()),
            &cause,
            &row_line(row, report.client).text,
        ));
    }
    for row in report.haproxy.iter().filter(|row| row.is_bad()) {
        let cause = row.detail.as_deref().unwrap_or_default();
        let cause = cause.split("; ").next().unwrap_or_default();
        standing.push(Complaint::of(
            &format!("notify {}: {}", escaped(&row.name), outcome(row)),
            cause,
            &haproxy_line(row).text,
        ));
    }
    let failure = report.error.iter();
    standing.extend(failure.map(|error| Complaint::of("the run failed", &error.message, &error.message)));
    standing
}

/// Without process ids, durations, ports: a run of digits is one mark.
fn without_numbers(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '0'..='9' if shown.ends_with('#') => {}
            '0'..='9' => shown.push('#'),
            _ => shown.push(letter),
        }
    }
    shown
}

/// Sends lines to the system log; one that doesn't take them at once is not waited for.
fn send(system: &System, lines: &[(Severity, String)]) {
    let connect = || {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.connect(&system.syslog)?;
        std::io::Result::Ok(socket)
    };
    let Ok(socket) = connect() else { return };
    for (severity, text) in lines {
        let priority = FACILITY | *severity as u8;
        let line = format!("<{priority}>haproxy-certs[{}]: {}", std::process::id(), escaped(text));
        let _ = socket.send(line.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Method, Overrides};
    use crate::haproxy::verdict::{Ending, Outcome, Verdict};
    use crate::sys::failure::FailureKind;

    fn failing(message: &str) -> Report {
        let mut report = Report::begin(&Settings::parse("", &Overrides::default()).unwrap(), false);
        report.error = Some(Failure::new(FailureKind::Io, message));
        report
    }

    #[test]
    fn a_failure_is_logged_when_it_is_new_once_a_day_and_when_it_is_gone() {
        let (lines, standing) = compose(&failing("disk full"), &BTreeMap::new(), 1000);
        assert_eq!(lines, [(Severity::Error, "disk full".to_owned())]);
        let (lines, standing) = compose(&failing("disk full"), &standing, 1000 + REMINDER - 1);
        assert_eq!(lines, []);
        let (lines, standing) = compose(&failing("disk full"), &standing, 1000 + REMINDER);
        assert_eq!(lines.len(), 1);
        let (lines, standing) = compose(&failing("something else"), &standing, 2000 + REMINDER);
        assert_eq!(lines, [(Severity::Error, "something else".to_owned())]);
        let mut healthy = failing("");
        healthy.error = None;
        let (lines, standing) = compose(&healthy, &standing, 3000 + REMINDER);
        assert_eq!(lines, [(Severity::Notice, "no longer: the run failed".to_owned())]);
        assert!(standing.is_empty());
    }

    #[test]
    fn of_what_a_run_did_not_come_to_nothing_is_over() {
        let before: BTreeMap<String, i64> = [("refuse a.pem | key-mismatch".to_owned(), 1000)].into();
        let (lines, standing) = compose(&failing("disk full"), &before, 2000);
        assert_eq!(lines, [(Severity::Error, "disk full".to_owned())]);
        assert_eq!(standing.get("refuse a.pem | key-mismatch"), Some(&1000));
        let mut healthy = failing("");
        healthy.error = None;
        let (lines, standing) = compose(&healthy, &standing, 3000);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(standing.is_empty());
    }

    fn untold(detail: &str) -> Report {
        let mut report = failing("");
        report.error = None;
        let verdict = Verdict::of(Method::Pidfile, Outcome::Failed).with(detail);
        report.haproxy = vec![HaproxyRow::of(Ending::of("haproxy", verdict, None))];
        report
    }

    #[test]
    fn the_problem_is_known_again_by_what_it_is_not_by_its_text() {
        let told = |detail: &str, before: &BTreeMap<String, i64>, at| compose(&untold(detail), before, at);
        let (lines, standing) = told("there is no process 77; set pidfile", &BTreeMap::new(), 1000);
        assert_eq!(lines.len(), 1);
        // The same cause in other words, with another number.
        let (lines, standing) = told("there is no process 4242; 2 of 3 files are replaced", &standing, 1100);
        assert_eq!(lines, []);
        // Another cause: said, and nothing is over.
        let (lines, standing) = told("[haproxy.cfg:60] unknown keyword", &standing, 1200);
        assert!(
            matches!(lines.as_slice(), [(Severity::Error, text)] if text.contains("unknown keyword")),
            "{lines:?}"
        );
        let mut healthy = untold("");
        healthy.haproxy.clear();
        let (lines, _) = compose(&healthy, &standing, 1300);
        assert_eq!(
            lines,
            [(Severity::Notice, "no longer: notify haproxy: could not be notified".to_owned())]
        );
    }
}
