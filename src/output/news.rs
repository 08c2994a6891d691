//! What of the reports of many runs is worth a word: what changed, what fails anew or no more, and once a day the rest.

use std::time::Duration;

use super::Report;
use super::human::{Line, Tone, points};
use crate::haproxy::verdict::Outcome;

/// What stays as it is is said again after so long.
const REMINDER: Duration = Duration::from_secs(24 * 60 * 60);

/// What was said last.
#[derive(Debug, Clone, Default)]
pub struct News {
    said: Option<Said>,
}

/// The standing facts that were said, and when, by a clock that begins anywhere.
#[derive(Debug, Clone)]
struct Said {
    facts: Vec<String>,
    at: Duration,
}

impl News {
    /// Whether a report at this time says anything new; then it counts as said.
    pub fn has_report(&mut self, report: &Report, at: Duration) -> bool {
        let has_changed = report.rows.iter().any(|row| row.action.is_change())
            || report
                .haproxy
                .iter()
                .any(|row| matches!(row.outcome, Outcome::Updated | Outcome::Reloaded | Outcome::RolledBack));
        let mut facts = standing(&points(report, false));
        facts.extend(report.error.iter().map(|failure| failure.message.clone()));
        self.has_facts(facts, has_changed, at)
    }

    /// Whether these standing facts at this time are new, or something changed besides; then they count as said.
    pub fn has_facts(&mut self, facts: Vec<String>, has_changed: bool, at: Duration) -> bool {
        let is_old = |said: &Said| said.facts == facts && at.saturating_sub(said.at) < REMINDER;
        if !has_changed && self.said.as_ref().is_some_and(is_old) {
            return false;
        }
        // What changed is no standing fact: the next run, which has nothing to do, says nothing of it.
        let facts = if has_changed { Vec::new() } else { facts };
        self.said = Some(Said { facts, at });
        true
    }
}

/// What of these lines is more than a matter of course.
#[must_use]
pub fn standing(lines: &[Line]) -> Vec<String> {
    lines.iter().filter(|line| line.tone != Tone::Plain).map(|line| line.text.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn hours(hours: u64) -> Duration {
        Duration::from_secs(hours * 60 * 60)
    }

    fn facts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_stays_is_said_once_a_day() {
        let mut news = News::default();
        assert!(news.has_facts(facts(&[]), false, hours(0)), "the first run is always said");
        assert!(!news.has_facts(facts(&[]), false, hours(1)));
        assert!(news.has_facts(facts(&["no permission"]), false, hours(2)));
        assert!(!news.has_facts(facts(&["no permission"]), false, hours(25)));
        assert!(news.has_facts(facts(&["no permission"]), false, hours(26)));
        assert!(news.has_facts(facts(&[]), false, hours(27)), "it is over");
        assert!(!news.has_facts(facts(&[]), false, hours(28)));
    }

    #[test]
    fn what_changed_is_always_said() {
        let mut news = News::default();
        for hour in 0..3 {
            assert!(news.has_facts(facts(&["replace a.pem"]), true, hours(hour)));
        }
        assert!(!news.has_facts(facts(&[]), false, hours(4)));
        assert!(news.has_facts(facts(&["refuse a.pem"]), true, hours(5)));
        assert!(news.has_facts(facts(&["refuse a.pem"]), false, hours(6)), "it stays");
        assert!(!news.has_facts(facts(&["refuse a.pem"]), false, hours(7)));
    }
}
