//! A node's report: which head it has deployed, and what isn't as the head says. Plain text with the node's signature behind
//! it:
//!
//! ```text
//! haproxy-certs fleet report 1
//! fleet edge
//! node lb1
//! sequence 42
//! head SHA256
//! since 2026-11-29T22:50:00Z
//! time 2026-11-29T23:00:05Z
//! program 0.2.0
//! confirmed no
//! omitted 0
//! exception WORD SERIAL LINEAGE DETAIL        with tabs between; as often as there are exceptions
//! exception note:WORD SERIAL LINEAGE DETAIL   then what takes nothing from what is confirmed
//! ```
//!
//! A reader that knows of no notes takes them for exceptions beside what is confirmed, and goes by that.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt::Write as _;

use super::name::{FleetName, NodeName};
use super::page::can_be_published;
use super::signed_text::{self, BadText, WordLines, flag, time};
use super::sshsig::{SigningKey, VerifyingKey};
use crate::certified_key::hex;

/// What stands for the lineage in an exception that is about none of them.
pub const EVERYTHING: &str = "*";

/// The word of a note: a lineage that the node's settings leave out.
pub const LEFT_OUT: &str = "left-out";

/// A larger report isn't read.
pub const MAX_BYTES: usize = 128 << 10;

/// What the exceptions may take of it.
const MAX_EXCEPTIONS: usize = 120 << 10;

/// Longer details are cut.
const MAX_DETAIL: usize = 500;

const MAX_WORD: usize = 63;

const FIRST_LINE: &str = "haproxy-certs fleet report 1";

/// What begins the word of a note.
const NOTE: &str = "note:";

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeReport {
    /// The fleet.
    pub fleet: FleetName,
    /// The node.
    pub node: NodeName,
    /// The sequence of the head that it has deployed.
    pub sequence: u64,
    /// The SHA-256 of that head.
    pub head: [u8; 32],
    /// Since when it has deployed that head, in seconds since 1970.
    pub since: i64,
    /// When it reported, in seconds since 1970.
    pub time: i64,
    /// The version of its program.
    pub program: String,
    /// Whether its HAProxys were seen to serve everything that isn't among the exceptions.
    pub confirmed: bool,
    /// How many exceptions there was no room for.
    pub omitted: u64,
    /// What isn't as the head says.
    pub exceptions: Vec<ReportedException>,
    /// What is so for good and takes nothing from what is confirmed: what it leaves out or presents otherwise, and what expires.
    pub notes: Vec<ReportedException>,
}

/// A lineage that a node doesn't serve as the head says, or that something else is to be said of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportedException {
    /// Its name.
    pub lineage: String,
    /// What is wrong: a reason, a warning, a problem.
    pub problem: String,
    /// The serial number of what is served instead, where that was seen.
    pub served: Option<String>,
    /// More for people, in one line.
    pub detail: String,
}

/// Why a report isn't one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadReport {
    /// It isn't one, or its signature doesn't fit.
    #[error("the report can't be used: {0}")]
    Damaged(#[from] BadText),
    /// Somebody else than the node signed it.
    #[error("the report was signed by {0}, which is another host's key")]
    Forged(VerifyingKey),
    /// It is another fleet's or another node's.
    #[error("the report is that of {0} in the fleet {1}")]
    Other(NodeName, FleetName),
}

impl NodeReport {
    /// The value to store. Exceptions for which there is no room are counted as omitted.
    #[must_use]
    pub fn sign(&self, key: &SigningKey) -> Vec<u8> {
        signed_text::signed(self.fitting().text(), key)
    }

    /// Reads a stored report of this node.
    ///
    /// # Errors
    /// It isn't one, or not this node's.
    pub fn read(
        bytes: &[u8],
        key: &VerifyingKey,
        fleet: &FleetName,
        node: &NodeName,
    ) -> Result<Self, BadReport> {
        let (text, signer) = signed_text::split(bytes, MAX_BYTES)?;
        if signer != *key {
            return Err(BadReport::Forged(signer));
        }
        let report = Self::parse(text)?;
        if report.fleet == *fleet && report.node == *node {
            Ok(report)
        } else {
            Err(BadReport::Other(report.node, report.fleet))
        }
    }

    /// The number of the head that the node has; `None`: it never took one.
    #[must_use]
    pub fn number(&self) -> Option<u64> {
        Some(self.sequence).filter(|sequence| *sequence > 0)
    }

    /// The same with as many exceptions as there is room for, each on one line.
    fn fitting(&self) -> Self {
        let mut fitting = Self {
            program: plain(&self.program, MAX_WORD),
            exceptions: Vec::new(),
            notes: Vec::new(),
            ..self.clone()
        };
        let mut room = MAX_EXCEPTIONS;
        let mut has_room = |it: &ReportedException| {
            let left = room.checked_sub(it.line().len() + 11 + NOTE.len());
            room = left.unwrap_or(room);
            left.is_some() && can_be_published(&it.lineage)
        };
        for (all, fitting_ones) in
            [(&self.exceptions, &mut fitting.exceptions), (&self.notes, &mut fitting.notes)]
        {
            for exception in all.iter().map(ReportedException::fitting) {
                if has_room(&exception) {
                    fitting_ones.push(exception);
                } else {
                    fitting.omitted += 1;
                }
            }
        }
        fitting
    }

    fn text(&self) -> String {
        let mut text = format!(
            "{FIRST_LINE}\nfleet {}\nnode {}\nsequence {}\nhead {}\nsince {}\ntime {}\nprogram {}\nconfirmed {}\nomitted {}\n",
            self.fleet,
            self.node,
            self.sequence,
            hex(&self.head),
            time(self.since),
            time(self.time),
            self.program,
            flag(self.confirmed),
            self.omitted
        );
        for exception in &self.exceptions {
            // Writing to a String never fails.
            let _ = writeln!(text, "exception {}", exception.line());
        }
        for note in &self.notes {
            let _ = writeln!(text, "exception {NOTE}{}", note.line());
        }
        text
    }

    fn parse(text: &str) -> Result<Self, BadText> {
        let mut lines = WordLines::of(text, FIRST_LINE)?;
        let mut report = Self {
            fleet: lines.value("fleet")?.parse().map_err(|_| BadText::Malformed)?,
            node: lines.value("node")?.parse().map_err(|_| BadText::Malformed)?,
            sequence: lines.number("sequence")?,
            head: lines.digest("head")?,
            since: lines.time("since")?,
            time: lines.time("time")?,
            program: lines.value("program")?.to_owned(),
            confirmed: lines.flag("confirmed")?,
            omitted: lines.number("omitted")?,
            exceptions: lines
                .rest("exception")
                .map(|line| ReportedException::parse(line?).ok_or(BadText::Malformed))
                .collect::<Result<_, _>>()?,
            notes: Vec::new(),
        };
        let is_note = |it: &mut ReportedException| it.problem.starts_with(NOTE);
        report.notes = report.exceptions.extract_if(.., is_note).collect();
        for note in &mut report.notes {
            note.problem.drain(..NOTE.len());
        }
        let is_plain = report.program == plain(&report.program, MAX_WORD);
        if is_plain && report.text() == text { Ok(report) } else { Err(BadText::Malformed) }
    }
}

impl ReportedException {
    /// It as a fact.
    #[must_use]
    pub fn words(&self) -> String {
        let about = if self.lineage == EVERYTHING { String::new() } else { format!("{}: ", self.lineage) };
        let served = self.served.as_ref().map(|serial| format!(" (serves {serial})")).unwrap_or_default();
        format!("{about}{}{served}: {}", self.problem, self.detail)
    }

    fn fitting(&self) -> Self {
        Self {
            lineage: self.lineage.clone(),
            problem: plain(&self.problem, MAX_WORD),
            served: self.served.as_ref().map(|serial| plain(serial, MAX_WORD)),
            detail: plain(&self.detail, MAX_DETAIL),
        }
    }

    fn line(&self) -> String {
        let served = self.served.as_deref().unwrap_or("-");
        format!("{}\t{served}\t{}\t{}", self.problem, self.lineage, self.detail)
    }

    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split('\t');
        let (problem, served, lineage, detail) =
            (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let exception = Self {
            lineage: lineage.into(),
            problem: problem.into(),
            served: (served != "-").then(|| served.to_owned()),
            detail: detail.into(),
        };
        let is_plain =
            fields.next().is_none() && can_be_published(lineage) && exception == exception.fitting();
        is_plain.then_some(exception)
    }
}

/// The text in one line of at most so many bytes.
fn plain(text: &str, at_most: usize) -> String {
    let mut plain: String =
        text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect();
    let end = (0..=at_most.min(plain.len())).rev().find(|&end| plain.is_char_boundary(end));
    plain.truncate(end.unwrap_or_default());
    plain
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zeroize::Zeroizing;

    use super::*;

    fn key(byte: u8) -> SigningKey {
        SigningKey::of_seed(Zeroizing::new([byte; 32])).unwrap()
    }

    fn exception(lineage: &str) -> ReportedException {
        ReportedException {
            lineage: lineage.into(),
            problem: "haproxy-rejects".into(),
            served: Some("04AB".into()),
            detail: "no SSL certificate".into(),
        }
    }

    fn report(exceptions: Vec<ReportedException>) -> NodeReport {
        NodeReport {
            fleet: "edge".parse().unwrap(),
            node: "lb1".parse().unwrap(),
            sequence: 42,
            head: [1; 32],
            since: 1_795_000_000,
            time: 1_796_000_000,
            program: "0.1.0".into(),
            confirmed: false,
            omitted: 0,
            exceptions,
            notes: Vec::new(),
        }
    }

    fn read(bytes: &[u8]) -> Result<NodeReport, BadReport> {
        NodeReport::read(bytes, &key(1).public(), &"edge".parse().unwrap(), &"lb1".parse().unwrap())
    }

    #[test]
    fn what_is_signed_is_read_again() {
        let nothing_served =
            ReportedException { served: None, detail: String::new(), ..exception("b c.test") };
        for exceptions in [vec![], vec![exception("a.test"), nothing_served]] {
            let report = report(exceptions);
            assert_eq!(read(&report.sign(&key(1))), Ok(report));
        }
    }

    #[test]
    fn a_reader_that_knows_of_no_notes_takes_them_for_exceptions() {
        let note = ReportedException { problem: "left-out".into(), ..exception("c.test") };
        let all = NodeReport { confirmed: true, notes: vec![note], ..report(vec![exception("a.test")]) };
        assert_eq!(read(&all.sign(&key(1))), Ok(all.clone()));
        let told = ReportedException { problem: "note:left-out".into(), ..exception("c.test") };
        let as_exceptions = NodeReport { confirmed: true, ..report(vec![exception("a.test"), told]) };
        assert_eq!(all.text(), as_exceptions.text());
    }

    #[test]
    fn no_node_speaks_for_another() {
        assert_eq!(read(&report(vec![]).sign(&key(2))), Err(BadReport::Forged(key(2).public())));
        let other = NodeReport { node: "lb2".parse().unwrap(), ..report(vec![]) };
        let refused = BadReport::Other("lb2".parse().unwrap(), "edge".parse().unwrap());
        assert_eq!(read(&other.sign(&key(1))), Err(refused));
        let other = NodeReport { fleet: "core".parse().unwrap(), ..report(vec![]) };
        assert!(matches!(read(&other.sign(&key(1))), Err(BadReport::Other(..))));
    }

    #[test]
    fn a_head_is_no_report() {
        let text = report(vec![]).text().replace("fleet report", "fleet head");
        let bytes = signed_text::signed(text, &key(1));
        assert_eq!(read(&bytes), Err(BadReport::Damaged(BadText::Kind)));
    }

    #[test]
    fn no_bit_can_be_changed() {
        let bytes = report(vec![exception("a.test")]).sign(&key(1));
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                assert!(read(&changed).is_err(), "{at} {bit}");
            }
        }
    }

    #[test]
    fn what_has_no_room_is_counted() {
        let many = (0..10_000).map(|number| exception(&format!("site-{number}.test"))).collect();
        let bytes = report(many).sign(&key(1));
        assert!(bytes.len() <= MAX_BYTES, "{}", bytes.len());
        let read = read(&bytes).unwrap();
        assert_eq!(usize::try_from(read.omitted).unwrap() + read.exceptions.len(), 10_000);
        assert!(read.exceptions.len() > 1000);
    }

    #[test]
    fn what_would_break_the_lines_is_made_plain() {
        let odd = ReportedException {
            detail: format!("two\nlines\t{}", "ä".repeat(1000)),
            problem: "a\tb".into(),
            ..exception("a.test")
        };
        let bytes = report(vec![odd, exception("../x")]).sign(&key(1));
        let read = read(&bytes).unwrap();
        assert_eq!((read.exceptions[0].problem.as_str(), read.omitted), ("a b", 1));
        assert!(read.exceptions[0].detail.starts_with("two lines ää"));
        assert_eq!(read.exceptions[0].detail.len(), MAX_DETAIL);
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(bytes: Vec<u8>, text: String) {
            prop_assert!(read(&bytes).is_err());
            prop_assert!(read(&signed_text::signed(text.clone(), &key(1))).is_err());
            let text = format!("{FIRST_LINE}\n{text}\n");
            prop_assert!(read(&signed_text::signed(text, &key(1))).is_err());
        }

        #[test]
        fn whatever_is_reported_is_read(lineage: String, problem: String, served: Option<String>, detail: String) {
            let odd = ReportedException { lineage, problem, served, detail };
            let read = read(&report(vec![odd]).sign(&key(1)));
            prop_assert!(read.is_ok_and(|read| read.exceptions.len() as u64 + read.omitted == 1));
        }
    }
}
