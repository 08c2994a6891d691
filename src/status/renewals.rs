//! Renewals that are due and don't happen: from each lineage's `renewal/NAME.conf` and certbot's log, as far as they can
//! be read.
//!
//! certbot renews a third of a certificate's life before it expires, half of it where the life is under ten days
//! (certbot 4.1), thirty days before with earlier versions, or as `renew_before_expiry` says (`certbot/_internal/renewal.py`,
//! `storage.py`). Where two of these apply the later moment counts here: nobody is alarmed too early.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use super::advice;
use super::judge::Site;
use super::severity::{ProblemKind, Severity};
use crate::certbot::cli_ini::{Setting, settings};
use crate::certbot::{CERTBOT_DIR, certbot_dir};
use crate::certified_key::Leaf;
use crate::config::Settings;
use crate::status::problem::Problem;
use crate::sys::escape::{escaped, shell_word};

const DAY: i64 = 24 * 60 * 60;

/// certbot tries twice a day: after so long it has failed several times.
const PATIENCE: i64 = 2 * DAY;

/// Where certbot logs unless told otherwise.
const LOGS: &str = "/var/log/letsencrypt";

/// How many logs are looked at, the newest first, and how much of the end of each.
const MOST_LOGS: usize = 20;
const LONGEST_LOG: u64 = 1024 * 1024;

/// How certbot logs that a renewal failed (`renewal.py`, `handle_renewal_request`; before and since 2.0).
const FAILED: [&str; 2] = ["Failed to renew certificate ", "Attempting to renew cert ("];

/// The longest quotation.
const LONGEST_QUOTE: usize = 300;

/// What a renewal configuration says about when.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Conf {
    /// `renew_before_expiry`, in seconds.
    before_expiry: Option<i64>,
    /// `autorenew = False`.
    is_off: bool,
    /// `logs_dir`.
    logs: Option<PathBuf>,
}

/// Notes for each site when its lineage is due, and adds the problem where it is for too long.
pub fn note_renewals(settings: &Settings, sites: &mut [Site], now: i64) {
    let Some(folder) = certbot_dir(settings) else { return };
    let mut logs: BTreeMap<PathBuf, Vec<String>> = BTreeMap::new();
    for site in sites {
        let (Some(name), Some(leaf)) = (&site.views.lineage, site.views.certbot.here()) else { continue };
        let mut file = name.clone();
        file.push(".conf");
        let Ok(text) = std::fs::read_to_string(folder.join("renewal").join(file)) else { continue };
        let conf = conf(&text);
        let due = due(leaf, &conf);
        site.renewal_due = (!conf.is_off).then_some(due);
        if conf.is_off || now.saturating_sub(due) < patience(leaf) {
            continue;
        }
        let its = logs.entry(conf.logs.unwrap_or_else(|| logs_dir(folder)));
        let logs = its.or_insert_with_key(|folder| read_logs(folder));
        let failure = logs.iter().find_map(|log| last_failure(log, name));
        let fact = fact(due, now, failure.as_deref());
        let problem = Problem {
            kind: ProblemKind::RenewalOverdue,
            severity: Severity::Warning,
            haproxy: None,
            fact,
            advice: Some(try_it(folder, name)),
        };
        site.add(problem);
    }
}

/// When certbot should have renewed it.
fn due(leaf: &Leaf, conf: &Conf) -> i64 {
    let life = leaf.not_after.saturating_sub(leaf.not_before);
    let before = conf.before_expiry.unwrap_or_else(|| {
        let part = if life < 10 * DAY { life / 2 } else { life / 3 };
        part.min(30 * DAY)
    });
    leaf.not_after.saturating_sub(before)
}

/// A certificate of some days can't wait for two of them.
fn patience(leaf: &Leaf) -> i64 {
    PATIENCE.min(leaf.not_after.saturating_sub(leaf.not_before) / 10)
}

fn fact(due: i64, now: i64, failure: Option<&str>) -> String {
    let said = match failure {
        Some(words) => format!("; certbot said: {words}"),
        None => String::new(),
    };
    let since = advice::day(due).unwrap_or_default();
    format!("due since {since}, for {}, and not renewed{said}", advice::span(now.saturating_sub(due)))
}

/// Tries the renewal without changing anything, and says what stops it.
fn try_it(folder: &Path, name: &OsStr) -> String {
    let config_dir = match folder {
        usual if usual == Path::new(CERTBOT_DIR) => String::new(),
        other => format!(" --config-dir {}", shell_word(other.as_os_str())),
    };
    let name = shell_word(name);
    format!(
        "see what stops it: certbot renew{config_dir} --cert-name {name} --dry-run; then renew it: \
         certbot renew{config_dir} --cert-name {name}"
    )
}

/// Reads what matters of a renewal configuration (`ConfigObj`).
fn conf(text: &str) -> Conf {
    let mut conf = Conf::default();
    for line in text.lines() {
        let Some((key, value)) = line.split_once('=') else { continue };
        let value = value.trim().trim_matches(['"', '\'']);
        match key.trim() {
            "renew_before_expiry" => conf.before_expiry = interval(value),
            "autorenew" => conf.is_off = value.eq_ignore_ascii_case("false"),
            "logs_dir" => conf.logs = Some(value.into()),
            _ => {}
        }
    }
    conf
}

/// `30 days`, `12 hours`, `1 week`; a number alone are days (`storage.py`, `add_time_interval`, which reads it by parsedatetime).
fn interval(text: &str) -> Option<i64> {
    let text = text.trim();
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = match unit.trim().trim_end_matches('s') {
        "" | "day" | "d" => DAY,
        "week" | "w" => 7 * DAY,
        "month" => 30 * DAY,
        "hour" | "h" => 60 * 60,
        "minute" | "min" | "m" => 60,
        _ => return None,
    };
    number.parse::<i64>().ok()?.checked_mul(unit)
}

/// Where this certbot logs: `logs-dir` of its cli.ini.
fn logs_dir(folder: &Path) -> PathBuf {
    let cli_ini = std::fs::read_to_string(folder.join("cli.ini")).unwrap_or_default();
    let is_named = |setting: &Setting| matches!(setting.key.as_str(), "logs-dir" | "logs_dir");
    let named = settings(&cli_ini).into_iter().rfind(is_named);
    named.map_or_else(|| LOGS.into(), |setting| setting.value.into())
}

/// The ends of certbot's logs, the newest first; none where they may not be read.
fn read_logs(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries
        .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"letsencrypt.log"))
        .filter_map(|entry| {
            let meta = entry.metadata().ok().filter(std::fs::Metadata::is_file)?;
            Some((meta.modified().ok()?, entry.path()))
        })
        .collect();
    files.sort();
    files.into_iter().rev().take(MOST_LOGS).filter_map(|(_, path)| end_of(&path)).collect()
}

fn end_of(path: &Path) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LONGEST_LOG))).ok()?;
    let mut bytes = Vec::new();
    file.take(LONGEST_LOG).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// What certbot last said of this lineage's renewal:
/// `2026-11-29 12:00:01,123:ERROR:certbot._internal.renewal:Failed to renew certificate NAME with error: ...`
fn last_failure(log: &str, name: &OsStr) -> Option<String> {
    let name = name.to_str()?;
    let line = log.lines().rev().find(|line| {
        let about = FAILED.iter().find_map(|words| Some(line.split_once(words)?.1));
        about.and_then(|rest| rest.strip_prefix(name)).is_some_and(|rest| rest.starts_with([' ', ')']))
    })?;
    let day = line.get(..16).filter(|day| day.starts_with("20")).unwrap_or_default();
    let words = line.split_once(" with error: ").or_else(|| line.split_once(" error: "))?.1;
    let words: String = words.chars().take(LONGEST_QUOTE).collect();
    let words = escaped(words.trim()).to_string();
    Some(if day.is_empty() { words } else { format!("{words} ({day})") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_matters_is_read() {
        let text = "# renew_before_expiry = 30 days\nversion = 2.1.0\n[renewalparams]\nserver = x\n";
        assert_eq!(conf(text), Conf::default());
        let text = "renew_before_expiry = 10 days\n[renewalparams]\nautorenew = False\nlogs_dir = /l\n";
        let expected = Conf { before_expiry: Some(10 * DAY), is_off: true, logs: Some("/l".into()) };
        assert_eq!(conf(text), expected);
        for (text, seconds) in
            [("30", Some(30 * DAY)), ("36 hours", Some(36 * 3600)), ("1 week", Some(7 * DAY)), ("soon", None)]
        {
            assert_eq!(interval(text), seconds, "{text}");
        }
    }

    #[test]
    fn the_last_failure_of_the_lineage_is_quoted() {
        let log = "2026-11-28 03:00:01,5:ERROR:certbot._internal.renewal:Failed to renew certificate a.test with error: old\n\
                   2026-11-29 03:00:01,5:ERROR:certbot._internal.renewal:Failed to renew certificate a.test with error: Some challenges have failed.\n\
                   2026-11-29 03:00:02,5:ERROR:certbot._internal.renewal:Failed to renew certificate a.test-0001 with error: other\n";
        let quoted = last_failure(log, OsStr::new("a.test")).unwrap();
        assert_eq!(quoted, "Some challenges have failed. (2026-11-29 03:00)");
        assert_eq!(last_failure(log, OsStr::new("b.test")), None);
    }
}
