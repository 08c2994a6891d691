//! One row per file, and the plan that they make up.

use std::ffi::OsString;
use std::sync::Arc;

use serde::Serialize;

use crate::certified_key::{ChainState, Leaf};
use crate::plan::action::Action;
use crate::plan::hold::Hold;
use crate::plan::obstacle::Obstacle;
use crate::plan::reason::Reason;
use crate::plan::refusal::Refusal;
use crate::plan::warning::Warnings;
use crate::sys::escape::shell_word;

/// Which of HAProxy's files a row is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A file of the sites directory.
    Site,
    /// The host certificate.
    Host,
}

#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
/// What is to be done with one file, and everything that the effect side and the report need to know for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The lineage; `None` for a foreign file.
    pub lineage: Option<OsString>,
    /// The file's name in the sites directory, or the host certificate's whole path; `None` for an unsafe name.
    pub file: Option<OsString>,
    /// Site or host certificate.
    pub role: Role,
    /// What is done.
    pub action: Action,
    /// Why it is refused.
    pub refusal: Option<Refusal>,
    /// What stands in its place, in a conflict.
    pub obstacle: Option<Obstacle>,
    /// What is worth knowing.
    pub warnings: Warnings,
    /// What holds back its prune.
    pub held: Option<Hold>,
    /// The leaf that the row is about: certbot's, or the file's for `prune`, `conflict` and `foreign`.
    pub leaf: Option<Arc<Leaf>>,
    /// SHA-256 of the combined PEM that the file holds after an action that writes, or holds unchanged.
    pub sha256: Option<[u8; 32]>,
    /// Whether that PEM is one that was proved, in this run or in the one that the index knows it from, and not merely found.
    pub proved: bool,
    /// Whether its chain hangs together.
    pub chain: Option<ChainState>,
    /// SHA-256 of what the file holds before.
    pub before: Option<[u8; 32]>,
    /// Whether HAProxy can load what the file holds before.
    pub loadable: bool,
    /// Whether what is there belongs to somebody else and is to be kept aside (`--adopt`).
    pub adopts: bool,
    /// The DNS names that HAProxy serves from this file, on every bind that loads it.
    pub names_won: NamesWon,
    /// Whether some clients are surely served from it, whatever it has lost.
    pub is_of_use: bool,
    /// Whether one of its names is served from a file that isn't in the sites directory.
    pub outranked: bool,
    /// Whether adding it at run time serves the same as a reload would.
    pub addable: bool,
    /// Whether it makes the run exit 1 although it is deployed.
    pub alarming: bool,
}

impl Row {
    pub(crate) fn new(role: Role, action: Action) -> Self {
        Self {
            lineage: None,
            file: None,
            role,
            action,
            refusal: None,
            obstacle: None,
            warnings: Warnings::default(),
            held: None,
            leaf: None,
            sha256: None,
            proved: false,
            chain: None,
            before: None,
            loadable: false,
            adopts: false,
            names_won: NamesWon::default(),
            is_of_use: false,
            outranked: false,
            addable: false,
            alarming: false,
        }
    }

    /// The row of a file that a HAProxy loads from elsewhere, by its whole path.
    #[must_use]
    pub fn elsewhere(path: OsString, leaf: Option<Arc<Leaf>>) -> Self {
        Self { file: Some(path), leaf, ..Self::new(Role::Site, Action::Foreign) }
    }

    /// Whether it makes the run exit 1.
    #[must_use]
    pub fn is_bad(&self) -> bool {
        self.alarming || matches!(self.action, Action::Refuse | Action::Conflict)
    }

    /// The advice with the lineage's name in the place of NAME.
    #[must_use]
    pub fn with_name(&self, advice: &str) -> String {
        match &self.lineage {
            Some(lineage) => advice.replace("NAME", &shell_word(lineage)),
            None => advice.to_owned(),
        }
    }

    /// Turns the row into a refusal: what is deployed stays.
    pub fn refuse(&mut self, refusal: Refusal) {
        self.action = Action::Refuse;
        self.refusal = Some(refusal);
    }

    /// Why it is refused.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        self.refusal.as_ref().map(|refusal| refusal.reason)
    }

    /// Whether HAProxy surely presents its file to nobody, where it is known what it loads.
    #[must_use]
    pub fn serves_nobody(&self) -> bool {
        self.names_won.is_empty() && !self.is_of_use
    }

    /// The fact for people: that of a refusal or a conflict, else that of a warning.
    #[must_use]
    pub fn detail(&self) -> Option<&str> {
        let refusal = self.refusal.as_ref().map(|refusal| refusal.detail.as_str());
        let obstacle = self.obstacle.map(Obstacle::fact);
        refusal.or(obstacle).or_else(|| self.warnings.first_fact())
    }
}

/// The DNS names that HAProxy serves from a file.
#[derive(Debug, Clone, Default)]
pub enum NamesWon {
    /// None.
    #[default]
    None,
    /// All that its certificate has, which are not kept once more.
    AllOf(Arc<Leaf>),
    /// These.
    Some(Box<[String]>),
}

impl NamesWon {
    /// They.
    #[must_use]
    pub fn to_vec(&self) -> Vec<String> {
        match self {
            Self::None => Vec::new(),
            Self::AllOf(leaf) => leaf.served_names().map(str::to_owned).collect(),
            Self::Some(names) => names.to_vec(),
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::AllOf(leaf) => leaf.served_names().count(),
            Self::Some(names) => names.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl PartialEq for NamesWon {
    fn eq(&self, other: &Self) -> bool {
        self.to_vec() == other.to_vec()
    }
}

impl Eq for NamesWon {}

/// What is to be done: one row per file in byte order, then the rows without a file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a plan is only a value: it does nothing until it is committed"]
pub struct Plan {
    /// The rows.
    pub rows: Vec<Row>,
}

impl Plan {
    /// Whether carrying it out would change anything on disk.
    #[must_use]
    pub fn has_changes(&self) -> bool {
        self.rows.iter().any(|row| row.action.is_change())
    }
}
