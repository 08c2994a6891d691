//! What a run did, as one value: everything that is shown to people, scripts and the system log comes from it.

pub mod fleet;
pub mod human;
pub mod json;
pub mod late;
pub mod news;
pub mod page;
pub mod status;
pub mod syslog;
pub mod terminal;
pub mod wrap;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::certbot::tree_mark::TreeMark;
use crate::config::{Method, Settings};
use crate::haproxy::verdict::{Ending, Outcome};
use crate::plan::action::Action;
use crate::plan::client::Client;
use crate::plan::row::Row;
use crate::status::severity::Severity;
use crate::sweep::Swept;
use crate::sys::escape::escaped_path;
use crate::sys::failure::Failure;

/// What a run of `assemble` did.
#[derive(Debug, Clone)]
pub struct Report {
    /// Whether it only said what it would do.
    pub dry_run: bool,
    /// certbot's `live` directory.
    pub live_dir: PathBuf,
    /// Who renews what is in it.
    pub client: Client,
    /// The sites directory.
    pub sites_dir: PathBuf,
    /// What kept it from running, or from finishing.
    pub error: Option<Failure>,
    /// One row per file.
    pub rows: Vec<Row>,
    /// One row per HAProxy.
    pub haproxy: Vec<HaproxyRow>,
    /// How many lineages were read and proved; `None`: it didn't come that far.
    pub proved: Option<usize>,
    /// When the others were proved, the first of them, in seconds since 1970: they look as they did then.
    pub unchanged_since: Option<i64>,
    /// Facts about the run as a whole.
    pub notes: Vec<Note>,
    /// Whether a HAProxy was still to be notified when a dry run looked.
    pub owed: bool,
    /// What has been refused or in conflict for more than a day, one of them.
    pub late: Option<String>,
    /// The mark of the files that aren't ours, where the HAProxys would load them.
    pub accepted: Option<String>,
    /// How many files the rounds before this one changed.
    pub changed_before: usize,
    /// How certbot's tree was when the sweep began.
    pub tree: Option<TreeMark>,
}

/// A fact about a run as a whole.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Note {
    /// One line of ASCII.
    pub text: String,
    /// Whom it is for.
    pub weight: Weight,
    /// The file that HAProxy can't load, where it is about one.
    pub unloadable: Option<PathBuf>,
}

impl Note {
    /// It makes the run exit 1.
    pub fn alarm(text: impl Into<String>) -> Self {
        Self { text: text.into(), weight: Weight::Alarm, unloadable: None }
    }

    /// It explains what the run did.
    pub fn fact(text: impl Into<String>) -> Self {
        Self { weight: Weight::Fact, ..Self::alarm(text) }
    }

    /// For whoever looks closely.
    pub fn hint(text: impl Into<String>) -> Self {
        Self { weight: Weight::Hint, ..Self::alarm(text) }
    }

    /// A file that HAProxy can't load: why, and what to do.
    #[must_use]
    pub fn unloadable(path: &Path, why: &str, advice: &str) -> Self {
        let shown = escaped_path(path);
        let text = format!("HAProxy can't load {shown} ({why}), and won't start again: {advice}");
        Self { unloadable: Some(path.to_owned()), ..Self::alarm(text) }
    }
}

/// Whom a note is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// It makes the run exit 1.
    Alarm,
    /// It explains what the run did.
    Fact,
    /// For whoever looks closely: `--verbose` and `--dry-run`.
    Hint,
}

/// What came of notifying one HAProxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HaproxyRow {
    /// Its name.
    pub name: String,
    /// The way that was used.
    pub method: Method,
    /// How it ended.
    pub outcome: Outcome,
    /// Whether it was seen to have taken it.
    pub confirmed: Option<bool>,
    /// Whether the next run notifies it again.
    pub owed: bool,
    /// The fact for people.
    pub detail: Option<String>,
    /// The better ways that didn't apply, each with why.
    #[serde(skip)]
    pub passed_over: Vec<String>,
    /// What mends its configuration, where it refuses that.
    #[serde(skip)]
    pub advice: Option<String>,
}

impl HaproxyRow {
    /// The row that shows how notifying a HAProxy has ended.
    #[must_use]
    pub fn of(Ending { haproxy, verdict, owed }: Ending) -> Self {
        Self {
            name: haproxy,
            method: verdict.method,
            outcome: verdict.outcome,
            confirmed: verdict.confirmed,
            owed,
            detail: verdict.detail,
            passed_over: verdict.passed_over,
            advice: verdict.advice.filter(|_| verdict.outcome == Outcome::Failed),
        }
    }

    /// Whether it makes the run exit 2.
    #[must_use]
    pub fn is_bad(&self) -> bool {
        match self.outcome {
            Outcome::Failed | Outcome::RolledBack => true,
            Outcome::Updated | Outcome::Reloaded => self.confirmed == Some(false),
            Outcome::NotNeeded | Outcome::NotRunning | Outcome::Skipped | Outcome::Deferred => false,
        }
    }
}

/// How a command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Everything is in step.
    Fine,
    /// Some lineages were refused or in conflict, or a guard held.
    Partly,
    /// HAProxy was not notified, didn't confirm, or refused; or a deploy has been refused for more than a day.
    Untold,
    /// It could not run, or not finish.
    Unable,
    /// `--dry-run --exit-code`: there is something to do.
    ToDo,
    /// Wrong usage (`EX_USAGE` of sysexits.h).
    Usage,
    /// What `status` saw: monitoring plugins have statuses of their own.
    Seen(Severity),
    /// certbot's own exit status, passed on.
    Certbot(u8),
}

impl Exit {
    /// The process's exit status.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Fine => 0,
            Self::Partly => 1,
            Self::Untold => 2,
            Self::Unable => 3,
            Self::ToDo => 4,
            Self::Usage => 64,
            Self::Seen(severity) => severity.code(),
            Self::Certbot(code) => code,
        }
    }
}

impl Report {
    /// A report with nothing in it yet.
    #[must_use]
    pub fn begin(settings: &Settings, dry_run: bool) -> Self {
        Self {
            dry_run,
            live_dir: settings.live_dir.clone(),
            client: Client::of(settings),
            sites_dir: settings.sites_dir.clone(),
            error: None,
            rows: Vec::new(),
            haproxy: Vec::new(),
            proved: None,
            unchanged_since: None,
            notes: Vec::new(),
            owed: false,
            late: None,
            accepted: None,
            changed_before: 0,
            tree: None,
        }
    }

    /// Notes what was proved, and what was known to be unchanged.
    pub fn note_proofs(&mut self, swept: &Swept) {
        (self.proved, self.unchanged_since) = (Some(swept.read), swept.unchanged_since);
    }

    /// How many rows there are of each action.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<Action, usize> {
        let mut counts = BTreeMap::new();
        for row in &self.rows {
            *counts.entry(row.action).or_default() += 1;
        }
        counts
    }

    /// Whether it ends with exit status 1 although everything is deployed.
    #[must_use]
    pub fn is_deployed_with_warnings(&self) -> bool {
        let is_left = |row: &Row| matches!(row.action, Action::Refuse | Action::Conflict);
        self.exit(false) == Exit::Partly && !self.dry_run && !self.rows.iter().any(is_left)
    }

    /// Whether it came so far that it knows what is to be done with each file.
    #[must_use]
    pub fn knows_files(&self) -> bool {
        self.error.is_none() || !self.rows.is_empty()
    }

    /// How many files it changed.
    #[must_use]
    pub fn changes(&self) -> usize {
        self.rows.iter().filter(|row| row.action.is_change()).count()
    }

    /// Notes that a file has waited for too long: the run fails, and says of which.
    pub fn note_late(&mut self, file: Option<&str>) {
        let Some(file) = file else { return };
        let text = format!("{file} has not been deployed for more than a day: the run exits 2 until it is");
        self.notes.push(Note::alarm(text));
        self.late = Some(file.to_owned());
    }

    /// Confirms nothing of these HAProxys: of one that doesn't load a file of the run, or presents it to nobody.
    pub fn withhold_confirmation(&mut self, of: impl Fn(&str) -> bool) {
        for row in self.haproxy.iter_mut().filter(|row| of(&row.name)) {
            row.confirmed = row.confirmed.filter(|took_it| !took_it);
        }
    }

    /// How the run ends. `exit_code`: a dry run says by its status whether there is something to do.
    #[must_use]
    pub fn exit(&self, exit_code: bool) -> Exit {
        let to_do = || self.owed || self.rows.iter().any(|row| row.action.is_change());
        if self.error.is_some() {
            Exit::Unable
        } else if self.haproxy.iter().any(HaproxyRow::is_bad) || self.late.is_some() {
            Exit::Untold
        } else if self.rows.iter().any(Row::is_bad)
            || self.notes.iter().any(|note| note.weight == Weight::Alarm)
        {
            Exit::Partly
        } else if exit_code && self.dry_run && to_do() {
            Exit::ToDo
        } else {
            Exit::Fine
        }
    }
}
