//! What to do about each problem, in one line. Pure.

use crate::plan::{Reason, Row, Warning};
use crate::sys::escape::shell_word;

use super::judge::Circumstances;

/// A run does what is missing.
pub const ASSEMBLE: &str = "run: haproxy-certs assemble";

/// HAProxy doesn't load the file although it was reloaded.
pub const NOT_LOADED: &str = "see what it loads: haproxy-certs status --setup";

/// Another certificate wins the name although it was reloaded.
pub const PRESENTS_ANOTHER: &str = "another `crt` of that bind or another listener has the name";

/// Nothing newer is there.
pub const RENEW: &str = "run: certbot renew --cert-name NAME; its log says why it has not renewed";

/// Nothing runs after a renewal.
pub const HOOK: &str =
    "run: haproxy-certs assemble; then: haproxy-certs init --hook; see also: haproxy-certs status --setup";

/// The next step for a refused lineage.
#[must_use]
pub fn refused(reason: Reason, row: &Row) -> Option<String> {
    let advice = match reason {
        Reason::ReadError => "mend its permissions or the disk; then run: haproxy-certs assemble",
        Reason::OlderThanDeployed | Reason::WouldReplaceGood => {
            "if it is meant: haproxy-certs assemble --force NAME"
        }
        Reason::LineageTorn => "run: certbot renew; it mends an interrupted renewal",
        _ => reason.advice()?,
    };
    Some(row.with_name(advice))
}

/// The next step for a file that isn't ours.
#[must_use]
pub fn conflict(fact: &str) -> String {
    let advice = if fact.contains("--adopt") {
        "move it away; or take it over, a copy is kept: haproxy-certs assemble --adopt"
    } else {
        "move it away; then run: haproxy-certs assemble"
    };
    advice.to_owned()
}

/// A warning's fact, and the next step.
#[must_use]
pub fn warned(warning: Warning, row: &Row, around: &Circumstances<'_>) -> (String, Option<String>) {
    let keys = keys(row, around);
    let siblings = siblings(row, around);
    let (fact, advice) = match warning {
        Warning::Expired => ("it has expired", RENEW),
        Warning::ExpiresSoon => ("it expires soon", RENEW),
        Warning::NotYetValid => {
            ("its life has not begun: visitors get an error", "set the clock right, or wait until it begins")
        }
        Warning::ChainIncomplete => (
            "no intermediate certificate comes with the leaf",
            "deploy certbot's own fullchain.pem; or: certbot renew --force-renewal --cert-name NAME",
        ),
        Warning::ChainOrder => (
            "a certificate of the chain was not issued by the one after it",
            "run: certbot renew --force-renewal --cert-name NAME",
        ),
        Warning::StagingIssuer => (
            "it comes from a staging CA, which no visitor trusts",
            "issue it from the real CA: certbot renew --force-renewal --cert-name NAME --server \
             https://acme-v02.api.letsencrypt.org/directory",
        ),
        Warning::Shadowed if row.outranked => (
            "a file that is loaded before the sites directory serves one of its names",
            "name the sites directory before that file on the bind line, or remove the file",
        ),
        Warning::Shadowed => (
            "another file that sorts before it serves one of its names",
            "remove that file; or, if this lineage isn't wanted: certbot delete --cert-name NAME; then: haproxy-certs \
             assemble",
        ),
        Warning::DefaultCertificateChanged => ("the next run makes it HAProxy's default certificate", ""),
        Warning::LoosePermissions => ("others than the owner may read certbot's private key", keys.as_str()),
        Warning::SiblingFiles => {
            ("HAProxy loads .key, .ocsp, .issuer or .sctl files beside it", siblings.as_str())
        }
        Warning::NotChecked => ("HAProxy could not be asked whether it would load it", ""),
        Warning::PruneHeld if row.detail.as_ref().is_some_and(|detail| detail.ends_with("--prune-many")) => (
            "it is kept although its lineage is gone",
            "if it is really gone: haproxy-certs assemble --prune-many",
        ),
        Warning::PruneHeld => (
            "it is kept although its lineage is gone",
            "haproxy-certs(8) says under WHAT IS DONE WITH A FILE what holds it",
        ),
    };
    (fact.to_owned(), Some(advice).filter(|advice| !advice.is_empty()).map(|advice| row.with_name(advice)))
}

/// Takes the keys of a lineage from everybody else.
fn keys(row: &Row, around: &Circumstances<'_>) -> String {
    let folder = around.archive.join(row.lineage.as_deref().unwrap_or_default());
    format!("run: chmod 600 {}/privkey*.pem", shell_word(folder.as_os_str()))
}

/// Shows what HAProxy loads beside a file.
fn siblings(row: &Row, around: &Circumstances<'_>) -> String {
    let file = around.sites_dir.join(row.file.as_deref().unwrap_or_default());
    let file = shell_word(file.as_os_str());
    format!(
        "remove them where nothing keeps them up to date: rm -f {file}.key {file}.ocsp {file}.issuer {file}.sctl"
    )
}

/// A time as a day: `2027-02-21`.
#[must_use]
pub fn day(at: i64) -> Option<String> {
    let date = time::OffsetDateTime::from_unix_timestamp(at).ok()?.date();
    Some(format!("{:04}-{:02}-{:02}", date.year(), u8::from(date.month()), date.day()))
}

/// How a command begins.
const PROGRAMS: [&str; 14] = [
    "haproxy-certs",
    "certbot",
    "haproxy",
    "systemctl",
    "kill",
    "chmod",
    "chown",
    "chgrp",
    "sed",
    "rm",
    "mv",
    "ss",
    "journalctl",
    "printf",
];

/// The parts of an advice: plain words, and whole commands, which are there to be pasted.
///
/// A command stands behind a colon and goes on to the next semicolon that isn't quoted.
#[must_use]
pub fn parts(advice: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut rest = advice;
    while let Some(start) = command_in(rest) {
        let (words, from) = rest.split_at(start);
        let end = unquoted_semicolon(from).unwrap_or(from.len());
        let (command, behind) = from.split_at(end);
        parts.extend([Part::Words(words), Part::Command(command.trim_end())]);
        rest = behind;
    }
    parts.push(Part::Words(rest));
    parts.retain(|part| !matches!(part, Part::Words("")));
    parts
}

/// A part of an advice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part<'a> {
    /// Words for people.
    Words(&'a str),
    /// A command for a shell.
    Command(&'a str),
}

/// The commands of an advice.
#[must_use]
pub fn commands(advice: &str) -> Vec<&str> {
    let command = |part| if let Part::Command(command) = part { Some(command) } else { None };
    parts(advice).into_iter().filter_map(command).collect()
}

/// Where the first command begins.
fn command_in(text: &str) -> Option<usize> {
    let after_colons = text.match_indices(": ").map(|(at, colon)| at + colon.len());
    after_colons.into_iter().find(|&at| {
        let word = text.get(at..).unwrap_or_default().split([' ', ';']).next().unwrap_or_default();
        word.starts_with('/') || PROGRAMS.contains(&word)
    })
}

/// Where a command ends, as a shell reads it.
fn unquoted_semicolon(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match (quote, letter) {
            (None, ';') => return Some(at),
            (None, '\'' | '"') => quote = Some(letter),
            (None | Some('"'), '\\') => {
                letters.next();
            }
            (Some(open), _) if open == letter => quote = None,
            _ => {}
        }
    }
    None
}

/// A number of seconds for people: `89 days`, `40 hours`, `5 minutes`.
#[must_use]
pub fn span(seconds: i64) -> String {
    let (count, unit) = match seconds {
        172_800.. => (seconds / 86_400, "day"),
        7_200.. => (seconds / 3_600, "hour"),
        120.. => (seconds / 60, "minute"),
        _ => (seconds, "second"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::{commands, span};

    #[test]
    fn commands_are_whole_and_end_where_a_shell_ends_them() {
        let advice = "mend line 2 of a.cfg; check it with: haproxy -c -f '/a; b.cfg'; then run: haproxy-certs assemble";
        assert_eq!(commands(advice), ["haproxy -c -f '/a; b.cfg'", "haproxy-certs assemble"]);
        assert_eq!(commands("run: certbot renew; its log says why"), ["certbot renew"]);
        assert_eq!(commands("wait: it begins soon"), Vec::<&str>::new());
        let quoted = "run: kill -USR2 \"$(cat '/run/it'\\''s; x')\"; then: rm x";
        assert_eq!(commands(quoted), ["kill -USR2 \"$(cat '/run/it'\\''s; x')\"", "rm x"]);
    }

    #[test]
    fn spans_are_short() {
        for (seconds, text) in [
            (1, "1 second"),
            (119, "119 seconds"),
            (7_199, "119 minutes"),
            (172_799, "47 hours"),
            (7_776_000, "90 days"),
        ] {
            assert_eq!(span(seconds), text);
        }
    }
}
