//! The status for monitoring plugins: `STATE - text|performance data`, then the problems.
//! <https://www.monitoring-plugins.org/doc/guidelines.html>

use std::fmt::Write;

use super::{file, verdict};
use crate::status::Status;
use crate::status::severity::Severity;

/// Monitoring cuts off what is longer than some kilobytes.
const LONGEST_LIST: usize = 50;

/// The plugin's output, without a line end.
#[must_use]
pub fn text(status: &Status) -> String {
    let mut text = format!("{}|{}", headline(status.severity(), &verdict(status)), performance(status));
    let problems = status.all_problems();
    for (site, problem) in problems.iter().take(LONGEST_LIST) {
        let about = site.map(|site| format!("{}: ", file(site))).unwrap_or_default();
        let line = format!("{}: {about}{}: {}", problem.severity.name(), problem.kind.name(), problem.fact);
        let advice = problem.advice.as_ref().map(|advice| format!(" -> {advice}")).unwrap_or_default();
        let _ = write!(text, "\n{}", without_bars(&format!("{line}{advice}")));
    }
    if let Some(left @ 1..) = problems.len().checked_sub(LONGEST_LIST) {
        let _ = write!(text, "\nand {left} more: haproxy-certs status");
    }
    for finding in status.findings.iter().filter(|finding| finding.severity != Severity::Ok) {
        let mend = finding.mend.first().map(|line| format!(" -> {line}")).unwrap_or_default();
        let line = format!("{}: setup: {}: {}{mend}", finding.severity.name(), finding.name, finding.fact);
        let _ = write!(text, "\n{}", without_bars(&line));
    }
    text
}

/// A failure before there was anything to report on.
#[must_use]
pub fn failure(message: &str) -> String {
    headline(Severity::Unknown, message)
}

fn headline(severity: Severity, text: &str) -> String {
    format!("{} - {}", severity.name().to_ascii_uppercase(), without_bars(text))
}

/// A bar begins the performance data.
fn without_bars(text: &str) -> String {
    text.replace('|', "\\x7c")
}

fn performance(status: &Status) -> String {
    let mut text = format!("sites={};;;0", status.sites.len());
    for (severity, count) in status.counts().into_iter().rev() {
        let _ = write!(text, " {}={count};;;0", severity.name());
    }
    let _ = write!(text, " owed={};;;0", status.owed.len());
    if let Some((_, at)) = status.first_to_expire() {
        let _ = write!(text, " first_expiry={}s", at - status.at);
    }
    if let Some(run) = status.last_run.here() {
        let _ = write!(text, " last_run_age={}s;;;0", (status.at - run.at).max(0));
    }
    text
}
