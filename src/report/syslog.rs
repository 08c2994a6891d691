//! The system log: certbot hides what its hooks print and ignores their exit status, so failures must be seen elsewhere.
//!
//! What changed is always logged. A failure that stays is logged once a day, so that a timer doesn't fill the log.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::net::UnixDatagram;

use super::human::{Tone, haproxy_line, has_news, row_line, was_told};
use super::{Exit, HaproxyRow, Report, Weight};
use crate::certified_key::hex;
use crate::config::Settings;
use crate::escape::escaped;
use crate::failure::{Failure, FailureKind};
use crate::plan::{Reason, Row};
use crate::sites::last_run::{LastRun, Rejected, Told};
use crate::sweep::now;
use crate::world::World;

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
pub fn log(settings: &Settings, world: &World, report: &Report, exit: Exit) {
    let before = LastRun::load(&settings.sites_dir);
    let (lines, complaints) = compose(report, &before.complaints, now());
    send(world, &lines);
    let at = now();
    let run = LastRun {
        at,
        exit: exit.code(),
        error: report.error.clone(),
        changes: changes(report),
        succeeded: if exit == Exit::Fine { at } else { before.succeeded },
        told: told(report, before.told, at),
        complaints,
        rejected: report.rows.iter().filter_map(rejected).collect(),
    };
    // Status and the log's reminders live on it, nothing else does; who may not write there has been told so already.
    if let Err(failure) = run.save(settings)
        && failure.kind == FailureKind::Io
    {
        send(world, &[(Severity::Error, format!("the record of this run is not kept: {}", failure.message))]);
    }
}

/// Logs a failure that happened before anything was known.
pub fn failure(world: &World, failure: &Failure) {
    send(world, &[(Severity::Error, failure.message.clone())]);
}

fn changes(report: &Report) -> usize {
    report.rows.iter().filter(|row| row.action.is_change()).count()
}

/// How each HAProxy was last told: by this run, where there was something to tell, else by an earlier one.
fn told(report: &Report, mut before: BTreeMap<String, Told>, at: i64) -> BTreeMap<String, Told> {
    for row in report.haproxy.iter().filter(|row| was_told(row)) {
        let HaproxyRow { method, outcome, confirmed, .. } = *row;
        let told = Told { at, method, outcome, confirmed, detail: row.detail.clone() };
        before.insert(row.name.clone(), told);
    }
    before
}

/// What HAProxy refused of a row, by its file.
fn rejected(row: &Row) -> Option<(String, Rejected)> {
    if row.reason != Some(Reason::HaproxyRejects) {
        return None;
    }
    let words = row.detail.clone().unwrap_or_default();
    Some((row.file.as_ref()?.to_str()?.to_owned(), Rejected { sha256: hex(row.sha256.as_ref()?), words }))
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
            let line = row_line(row);
            (if line.tone == Tone::Good { Severity::Notice } else { Severity::Warning }, line.text)
        }));
    }
    let told = report.haproxy.iter().filter(|row| was_told(row) && !row.is_bad());
    lines.extend(told.map(|row| (Severity::Notice, haproxy_line(row).text)));

    let alarms = report.notes.iter().filter(|note| note.weight == Weight::Alarm);
    let mut standing: BTreeSet<String> = alarms.map(|note| note.text.clone()).collect();
    standing.extend(report.rows.iter().filter(|row| row.is_bad()).map(|row| row_line(row).text));
    standing.extend(
        report.haproxy.iter().filter(|row: &&HaproxyRow| row.is_bad()).map(|row| haproxy_line(row).text),
    );
    standing.extend(report.error.iter().map(|error| error.message.clone()));
    let mut complaints = BTreeMap::new();
    for text in standing {
        let logged = before.get(&text).copied().filter(|&at| (0..REMINDER).contains(&now.saturating_sub(at)));
        if logged.is_none() {
            lines.push((Severity::Error, text.clone()));
        }
        complaints.insert(text, logged.unwrap_or(now));
    }
    let cleared = before.keys().filter(|text| !complaints.contains_key(*text));
    lines.extend(cleared.map(|text| (Severity::Notice, format!("no longer: {text}"))));
    (lines, complaints)
}

/// Sends lines to the system log; one that doesn't take them at once is not waited for.
fn send(world: &World, lines: &[(Severity, String)]) {
    let connect = || {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.connect(&world.syslog)?;
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
    use crate::config::Overrides;

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
        assert_eq!(lines.len(), 2, "{lines:?}");
        let mut healthy = failing("");
        healthy.error = None;
        let (lines, standing) = compose(&healthy, &standing, 3000 + REMINDER);
        assert_eq!(lines, [(Severity::Notice, "no longer: something else".to_owned())]);
        assert!(standing.is_empty());
    }
}
