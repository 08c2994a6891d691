//! `fleet status` for monitoring plugins: `STATE - text|performance data`, then the problems.

use std::fmt::Write;

use crate::fleet::overview::FleetOverview;
use crate::sys::escape::escaped;

/// Monitoring cuts off what is longer than some kilobytes.
const LONGEST_LIST: usize = 50;

/// The plugin's output, without a line end.
#[must_use]
pub fn text(overview: &FleetOverview) -> String {
    let state = overview.severity().name().to_ascii_uppercase();
    let mut text = format!("{state} - {}", without_bars(&super::verdict(overview)));
    let _ = write!(text, "|nodes={};;;0 confirmed={};;;0", overview.nodes.len(), overview.confirmed());
    if let Some(signed) = &overview.head {
        let (head, at) = (&signed.head, overview.at);
        let _ = write!(text, " head={} head_age={}s;;;0", head.sequence, (at - head.signed).max(0));
    }
    let problems = overview.all_problems();
    for (node, problem) in problems.iter().take(LONGEST_LIST) {
        let about = node.map(|node| format!("{}: ", node.name)).unwrap_or_default();
        let line = format!(
            "{}: {about}{}: {} -> {}",
            problem.severity.name(),
            problem.trouble.name(),
            escaped(&problem.fact),
            problem.advice()
        );
        let _ = write!(text, "\n{}", without_bars(&line));
    }
    let notes = overview.nodes.iter().flat_map(|node| node.left_out().map(move |note| (node, note)));
    for (node, note) in notes.take(LONGEST_LIST.saturating_sub(problems.len())) {
        let line = format!("ok: {}: {}", node.name, escaped(&note.words()));
        let _ = write!(text, "\n{}", without_bars(&line));
    }
    if let Some(left @ 1..) = problems.len().checked_sub(LONGEST_LIST) {
        let _ = write!(text, "\nand {left} more: haproxy-certs fleet status");
    }
    text
}

/// A bar begins the performance data.
fn without_bars(text: &str) -> String {
    text.replace('|', "\\x7c")
}

/// A failure before there was anything to report on.
#[must_use]
pub fn failure(message: &str) -> String {
    format!("UNKNOWN - {}", without_bars(message))
}
