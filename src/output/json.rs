//! The report for scripts: one JSON object.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};

use serde::{Serialize, Serializer};
use serde_json::ser::Formatter;
use strum::VariantArray as _;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{HaproxyRow, Report};
use crate::certified_key::hex;
use crate::plan::action::Action;
use crate::plan::reason::Reason;
use crate::plan::row::{Role, Row};
use crate::plan::warning::Warning;
use crate::sys::failure::Failure;

/// The version of the format.
const VERSION: u32 = 1;

#[derive(Default, Serialize)]
struct Frame<'a> {
    version: u32,
    command: &'a str,
    dry_run: bool,
    live_dir: Option<String>,
    sites_dir: Option<String>,
    error: Option<&'a Failure>,
    notes: Vec<&'a str>,
    proved: Option<usize>,
    unchanged_since: Option<String>,
    #[serde(serialize_with = "each")]
    sites: &'a [Row],
    summary: BTreeMap<&'static str, usize>,
    haproxy: &'a [HaproxyRow],
}

#[derive(Serialize)]
struct Site<'a> {
    lineage: Option<String>,
    file: Option<String>,
    role: Role,
    action: Action,
    reason: Option<Reason>,
    detail: Option<&'a str>,
    warnings: Vec<Warning>,
    names: Option<&'a [String]>,
    key_type: Option<String>,
    serial: Option<&'a str>,
    sha256: Option<String>,
    not_before: Option<String>,
    not_after: Option<String>,
}

/// Writes the report of a run of `assemble`, as one line of JSON: row by row, since there may be a hundred thousand.
///
/// # Errors
/// Those of `out`.
pub fn assemble(report: &Report, out: impl Write) -> io::Result<()> {
    let counts = report.counts();
    let frame = Frame {
        version: VERSION,
        command: "assemble",
        dry_run: report.dry_run,
        live_dir: Some(report.live_dir.to_string_lossy().into_owned()),
        sites_dir: Some(report.sites_dir.to_string_lossy().into_owned()),
        error: report.error.as_ref(),
        notes: report.notes.iter().map(|note| note.text.as_str()).collect(),
        proved: report.proved,
        unchanged_since: report.unchanged_since.and_then(timestamp),
        sites: &report.rows,
        summary: summary(&counts),
        haproxy: &report.haproxy,
    };
    let mut out = BufWriter::with_capacity(1 << 16, out);
    write(&frame, &mut out)?;
    out.write_all(b"\n")?;
    out.flush()
}

fn each<S: Serializer>(rows: &[Row], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(rows.iter().map(site))
}

/// A failure before there were any settings to report on.
#[must_use]
pub fn failure(command: &str, dry_run: bool, error: &Failure) -> String {
    to_text(&Frame {
        version: VERSION,
        command,
        dry_run,
        error: Some(error),
        summary: summary(&BTreeMap::new()),
        ..Frame::default()
    })
}

fn summary(counts: &BTreeMap<Action, usize>) -> BTreeMap<&'static str, usize> {
    Action::VARIANTS.iter().map(|action| (action.name(), counts.get(action).copied().unwrap_or(0))).collect()
}

fn site(row: &Row) -> Site<'_> {
    let leaf = row.leaf.as_ref();
    Site {
        lineage: row.lineage.as_ref().map(|name| name.to_string_lossy().into_owned()),
        file: row.file.as_ref().map(|name| name.to_string_lossy().into_owned()),
        role: row.role,
        action: row.action,
        reason: row.reason(),
        detail: row.detail(),
        warnings: row.warnings.iter().collect(),
        names: leaf.map(|leaf| leaf.names.as_slice()),
        key_type: leaf.map(|leaf| leaf.key_type.to_string()),
        serial: leaf.map(|leaf| leaf.serial.as_str()),
        sha256: leaf.map(|leaf| hex(&leaf.sha256)),
        not_before: leaf.and_then(|leaf| timestamp(leaf.not_before)),
        not_after: leaf.and_then(|leaf| timestamp(leaf.not_after)),
    }
}

/// Seconds since 1970 as RFC 3339, in UTC; `None` for years that it can't write.
#[must_use]
pub fn timestamp(seconds: i64) -> Option<String> {
    OffsetDateTime::from_unix_timestamp(seconds).ok()?.format(&Rfc3339).ok()
}

/// JSON in ASCII as a text, see [`Ascii`].
pub(crate) fn to_text(frame: &impl Serialize) -> String {
    let mut text = Vec::new();
    // Writing to a Vec never fails.
    let _ = write(frame, &mut text);
    String::from_utf8(text).unwrap_or_default()
}

fn write(frame: &impl Serialize, out: &mut impl Write) -> io::Result<()> {
    frame.serialize(&mut serde_json::Serializer::with_formatter(out, Ascii)).map_err(io::Error::from)
}

/// JSON in ASCII: certbot declares a renewal failed over bytes that it can't decode.
struct Ascii;

impl Formatter for Ascii {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, out: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(|letter| !matches!(letter, ' '..='~')) {
            let (plain, odd) = rest.split_at(at);
            out.write_all(plain.as_bytes())?;
            let mut letters = odd.chars();
            for unit in letters.next().into_iter().flat_map(|letter| {
                let mut units = [0; 2];
                letter.encode_utf16(&mut units).to_vec()
            }) {
                write!(out, "\\u{unit:04x}")?;
            }
            rest = letters.as_str();
        }
        out.write_all(rest.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn whatever_is_in_a_text_the_json_is_ascii_and_means_the_same() {
        for text in ["", "plain", "\u{7f}", "é", "aé𝄞b\u{7f}\n\"\\", "𝄞𝄞", "\u{0}\u{1f}~ "] {
            let json = super::to_text(&[text, "next"]);
            assert!(json.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{json}");
            assert_eq!(serde_json::from_str::<Vec<String>>(&json).unwrap(), [text, "next"]);
        }
    }
}
