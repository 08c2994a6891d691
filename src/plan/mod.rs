//! The decision: what certbot has against what is deployed, as one action per file.
//!
//! A pure function of values. Nothing here touches a file, a process or a socket.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod elsewhere;
mod prune;
mod serving;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::sync::Arc;

use serde::Serialize;

pub use prune::LAST_FILE;
pub use words::Action;
pub use words::Reason;
pub use words::Warning;

use crate::certified_key::{ChainState, Leaf};
use crate::config::Owner;
use crate::serving::Loaded;
use crate::sys::escape::shell_word;

/// Endings that HAProxy never takes for a certificate (`.key` since 2.2, the others since 1.8).
const SIBLING_ENDINGS: [&str; 4] = ["key", "ocsp", "issuer", "sctl"];

/// A lineage that fails: why, and the fact for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The report's word.
    pub reason: Reason,
    /// One line of ASCII.
    pub detail: String,
}

impl Refusal {
    /// A refusal for this reason.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }

    /// A refusal of HAProxy's that is remembered, with its words.
    #[must_use]
    pub fn remembered(lineage: &OsStr, words: &str) -> Self {
        Self::new(Reason::HaproxyRejects, format!("{words}; run {} to try it again", force(lineage)))
    }
}

/// A lineage whose key was proved to belong to its leaf: the facts, without the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// SHA-256 of its combined PEM.
    pub sha256: [u8; 32],
    /// Its leaf.
    pub leaf: Arc<Leaf>,
    /// Whether the chain hangs together.
    pub chain: ChainState,
    /// Whether a staging CA issued it.
    pub staging: bool,
    /// Whether others than its owner may read the key file.
    pub loose_permissions: bool,
}

/// One lineage of certbot's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lineage {
    /// What came of reading and proving it.
    pub proof: Result<Candidate, Refusal>,
    /// The leaf's facts where the lineage was refused but its leaf could be read.
    pub leaf: Option<Arc<Leaf>>,
}

/// A file that is on disk where HAProxy loads certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployed {
    /// What kind of directory entry it is.
    pub kind: Kind,
    /// SHA-256 of its bytes; `None` where it isn't a regular file of a sensible size.
    pub sha256: Option<[u8; 32]>,
    /// Its first certificate.
    pub leaf: Option<Arc<Leaf>>,
    /// Whether it holds a private key.
    pub has_key: bool,
    /// Whether its first certificate is found in the archive of the lineage that its name stands for.
    pub archived: bool,
}

impl Deployed {
    /// Whether HAProxy can load it, as far as can be seen without it.
    #[must_use]
    pub fn is_loadable(&self) -> bool {
        matches!(self.kind, Kind::Regular { .. }) && self.has_key && self.leaf.is_some()
    }
}

/// What kind of directory entry a deployed file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    Regular {
        /// Its owner.
        owner: Owner,
        /// Its permission bits.
        mode: u32,
    },
    /// A directory, which HAProxy ignores.
    Directory,
    /// Anything else, links among them.
    Other,
}

/// What the state file says of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// The lineage that it was written for.
    pub lineage: OsString,
    /// The SHA-256 values that this program may have left in it: more than one after an interrupted run.
    pub sha256: Vec<[u8; 32]>,
    /// Whether the chain of the PEM with this SHA-256 hangs together, as an earlier run found.
    pub chain: Option<([u8; 32], ChainState)>,
    /// Whether it was written from the `live` directory of this run.
    pub same_tree: bool,
    /// The SHA-256 of a PEM that HAProxy refused to take in this place, with its words.
    pub rejected: Option<([u8; 32], String)>,
    /// HAProxy's words when the file was pruned and had to be put back.
    pub prune_refused: Option<String>,
}

/// How the operator wants this run.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// Prune nothing.
    pub no_prune: bool,
    /// Prune however many there are.
    pub prune_many: bool,
    /// Take over every file that a lineage needs.
    pub adopt: bool,
    /// Lineages to deploy although they are older, from staging or not yet valid, or were refused by HAProxy before.
    pub force: BTreeSet<OsString>,
}

/// Everything that the decision is made from.
#[derive(Debug, Clone)]
pub struct Situation {
    /// The lineages that are wanted as sites.
    pub lineages: BTreeMap<OsString, Lineage>,
    /// Whether certbot's `live` directory has any lineage, wanted or not.
    pub any_lineage: bool,
    /// Every entry of the sites directory but our own.
    pub deployed: BTreeMap<OsString, Deployed>,
    /// What the state file says of the files in the sites directory.
    pub recorded: BTreeMap<OsString, Recorded>,
    /// The host certificate, where one is configured.
    pub host: Option<HostSituation>,
    /// What the HAProxys load besides.
    pub loaded: Loaded,
    /// Who is to own the files.
    pub owner: Owner,
    /// The files' permission bits.
    pub mode: u32,
    /// The time, in seconds since 1970.
    pub now: i64,
    /// How the operator wants it.
    pub policy: Policy,
}

/// The host certificate's part of the situation.
#[derive(Debug, Clone)]
pub struct HostSituation {
    /// The lineage that it is made from.
    pub lineage: OsString,
    /// What is known of it.
    pub source: Lineage,
    /// Its file's whole path.
    pub file: OsString,
    /// What is there.
    pub deployed: Option<Deployed>,
    /// What the state file says of it.
    pub recorded: Option<Recorded>,
}

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
    pub reason: Option<Reason>,
    /// The fact for people.
    pub detail: Option<String>,
    /// What is worth knowing.
    pub warnings: BTreeSet<Warning>,
    /// The leaf that the row is about: certbot's, or the file's for `prune`, `conflict` and `foreign`.
    pub leaf: Option<Arc<Leaf>>,
    /// SHA-256 of the combined PEM that the file holds after an action that writes, or holds unchanged.
    pub sha256: Option<[u8; 32]>,
    /// Whether that PEM is one that was proved in this run, and not merely found.
    pub proved: bool,
    /// Whether its chain hangs together.
    pub chain: Option<ChainState>,
    /// SHA-256 of what the file holds before.
    pub before: Option<[u8; 32]>,
    /// Whether HAProxy can load what the file holds before.
    pub loadable: bool,
    /// Whether what is there belongs to somebody else and is to be kept aside (`--adopt`).
    pub adopts: bool,
    /// The DNS names that HAProxy serves from this file.
    pub names_won: Vec<String>,
    /// Whether one of its names is served from a file that isn't in the sites directory.
    pub outranked: bool,
    /// Whether adding it at run time serves the same as a reload would.
    pub addable: bool,
    /// Whether it makes the run exit 1 although it is deployed.
    pub alarming: bool,
}

impl Row {
    fn new(role: Role, action: Action) -> Self {
        Self {
            lineage: None,
            file: None,
            role,
            action,
            reason: None,
            detail: None,
            warnings: BTreeSet::new(),
            leaf: None,
            sha256: None,
            proved: false,
            chain: None,
            before: None,
            loadable: false,
            adopts: false,
            names_won: Vec::new(),
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
        self.reason = Some(refusal.reason);
        self.detail = Some(refusal.detail);
    }
}

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

/// Decides what is to be done.
pub fn plan(situation: &Situation) -> Plan {
    let mut sites: BTreeMap<OsString, Row> = BTreeMap::new();
    let mut nameless = Vec::new();
    for (name, lineage) in &situation.lineages {
        match site_file(name) {
            Ok(file) => {
                let place = Place {
                    role: Role::Site,
                    file: &file,
                    deployed: situation.deployed.get(&file),
                    recorded: situation.recorded.get(&file),
                };
                sites.insert(file.clone(), decide(situation, name, lineage, &place));
            }
            Err(refusal) => {
                let mut row = Row::new(Role::Site, Action::Refuse);
                row.lineage = Some(name.clone());
                row.leaf = leaf_of(lineage).cloned();
                row.refuse(refusal);
                nameless.push(row);
            }
        }
    }
    for (file, deployed) in &situation.deployed {
        if !sites.contains_key(file) && deployed.kind != Kind::Directory {
            sites.insert(file.clone(), unneeded(situation, file, deployed));
        }
    }
    for (file, row) in &mut sites {
        row.loadable =
            is_loaded_name(file) && situation.deployed.get(file).is_some_and(Deployed::is_loadable);
    }
    prune::guard_prunes(situation, &mut sites);
    note_siblings(&mut sites);
    serving::note_shadows(situation, &mut sites);
    elsewhere::note(situation, &mut sites);
    serving::note_default_certificate(situation, &mut sites);
    let mut rows: Vec<Row> = sites.into_values().collect();
    if let Some(host) = &situation.host {
        rows.push(decide_host(situation, host));
        rows.sort_by(|a, b| a.file.cmp(&b.file));
    }
    rows.extend(nameless);
    let mut plan = Plan { rows };
    plan.hold_last_file();
    plan
}

/// Where a lineage's PEM goes, and what is known of that place.
struct Place<'a> {
    role: Role,
    file: &'a OsStr,
    deployed: Option<&'a Deployed>,
    recorded: Option<&'a Recorded>,
}

/// The file that HAProxy loads for a lineage.
///
/// # Errors
/// The name can't be one that every HAProxy version loads and every report can show.
pub fn site_file(lineage: &OsStr) -> Result<OsString, Refusal> {
    let unsafe_name = |why: &str| {
        Err(Refusal::new(
            Reason::NameUnsafe,
            format!("the lineage's name {why}; issue it again with --cert-name and delete this one"),
        ))
    };
    let Some(name) = lineage.to_str() else { return unsafe_name("is not UTF-8") };
    match name {
        _ if name.starts_with('.') => unsafe_name("begins with a dot, and HAProxy skips such files"),
        _ if name.bytes().any(|byte| byte.is_ascii_control()) => unsafe_name("holds a control byte"),
        _ if name.len() > 251 => unsafe_name("is longer than 251 bytes"),
        _ => Ok(OsString::from(format!("{name}.pem"))),
    }
}

/// Whether HAProxy takes a file of this name in its directory for a certificate.
#[must_use]
pub fn is_loaded_name(file: &OsStr) -> bool {
    let name = file.as_encoded_bytes();
    let ending = name.rsplit(|&byte| byte == b'.').next().unwrap_or_default();
    // Dotfiles are skipped since 2.6 only; counting on them would be wrong both ways, so they never count.
    !name.starts_with(b".") && !SIBLING_ENDINGS.iter().any(|sibling| sibling.as_bytes() == ending)
}

fn leaf_of(lineage: &Lineage) -> Option<&Arc<Leaf>> {
    lineage.proof.as_ref().ok().map(|candidate| &candidate.leaf).or(lineage.leaf.as_ref())
}

fn decide(situation: &Situation, name: &OsStr, lineage: &Lineage, place: &Place<'_>) -> Row {
    let mut row = Row::new(place.role, Action::Refuse);
    row.lineage = Some(name.to_owned());
    row.file = Some(place.file.to_owned());
    row.before = place.deployed.and_then(|deployed| deployed.sha256);
    row.leaf = leaf_of(lineage).cloned();
    if let Some(leaf) = &row.leaf {
        row.warnings.extend(lifetime_warning(leaf, situation.now));
    }
    let candidate = match &lineage.proof {
        Ok(candidate) => candidate,
        Err(refusal) => {
            row.refuse(refusal.clone());
            return row;
        }
    };
    row.warnings.extend(candidate_warnings(candidate));
    row.sha256 = Some(candidate.sha256);
    row.proved = true;
    row.chain = Some(candidate.chain);
    match judge(situation, name, candidate, place) {
        Judgement::Do(action) => row.action = action,
        Judgement::Adopt => (row.action, row.adopts) = (Action::Replace, true),
        Judgement::Refuse(refusal) => row.refuse(refusal),
        Judgement::Conflict(fact) => {
            row.action = Action::Conflict;
            row.detail = Some(fact);
            row.leaf = place.deployed.and_then(|deployed| deployed.leaf.clone());
            row.warnings.clear();
        }
    }
    row
}

enum Judgement {
    Do(Action),
    Adopt,
    Refuse(Refusal),
    Conflict(String),
}

/// What is done for a proved lineage, given what is in its place.
fn judge(situation: &Situation, name: &OsStr, candidate: &Candidate, place: &Place<'_>) -> Judgement {
    if let Some((sha256, words)) = place.recorded.and_then(|recorded| recorded.rejected.as_ref())
        && *sha256 == candidate.sha256
        && !situation.policy.force.contains(name)
    {
        return Judgement::Refuse(Refusal::remembered(name, words));
    }
    let Some(deployed) = place.deployed else { return Judgement::Do(Action::Install) };
    let Kind::Regular { owner, mode } = deployed.kind else {
        return match deployed.kind {
            Kind::Directory => Judgement::Conflict("it is a directory; move it away".to_owned()),
            _ if situation.policy.adopt => Judgement::Adopt,
            _ => Judgement::Conflict(conflict_fact("is not a regular file")),
        };
    };
    if deployed.sha256 == Some(candidate.sha256) {
        let right = owner == situation.owner && mode == situation.mode;
        return Judgement::Do(if right { Action::Unchanged } else { Action::Repair });
    }
    let ours = is_ours(deployed, place.recorded, &candidate.leaf);
    if !ours && !situation.policy.adopt {
        return Judgement::Conflict(conflict_fact("was not written by haproxy-certs"));
    }
    // Somebody else's certificate may be younger than the lineage's: whoever adopts it knows. So may another lineage's,
    // of which the host certificate was made before: whoever sets host_lineage knows.
    let is_anothers = |recorded: &Recorded| place.role == Role::Host && recorded.lineage != *name;
    let is_another = !ours || place.recorded.is_some_and(is_anothers);
    let guard = too_good_to_replace(situation, name, candidate, deployed)
        .filter(|refusal| !is_another || refusal.reason != Reason::OlderThanDeployed);
    match guard {
        Some(refusal) => Judgement::Refuse(refusal),
        None if ours => Judgement::Do(Action::Replace),
        None => Judgement::Adopt,
    }
}

fn conflict_fact(fact: &str) -> String {
    format!("it {fact}; move it away, or run assemble --adopt to take it over (a copy is kept)")
}

/// Whether a file that differs from what certbot has is one that this program may replace.
fn is_ours(deployed: &Deployed, recorded: Option<&Recorded>, lineages_leaf: &Leaf) -> bool {
    let of_this_lineage =
        deployed.archived || deployed.leaf.as_ref().is_some_and(|leaf| leaf.sha256 == lineages_leaf.sha256);
    of_this_lineage || recorded.is_some_and(|recorded| is_as_recorded_or_damaged(deployed, recorded))
}

fn is_as_recorded_or_damaged(deployed: &Deployed, recorded: &Recorded) -> bool {
    let Kind::Regular { .. } = deployed.kind else { return false };
    deployed.sha256.is_some_and(|sha256| deployed.leaf.is_none() || recorded.sha256.contains(&sha256))
}

/// Guards a good deployed certificate against a worse one.
fn too_good_to_replace(
    situation: &Situation,
    name: &OsStr,
    candidate: &Candidate,
    deployed: &Deployed,
) -> Option<Refusal> {
    let old = deployed.leaf.as_ref()?;
    let now = situation.now;
    if situation.policy.force.contains(name) || old.not_after < now {
        return None;
    }
    let new = &candidate.leaf;
    let force = format!("run {} if this is wanted", force(name));
    if !old.issuer_is_staging && old.not_before <= now {
        let worse = match new {
            _ if candidate.staging => Some("comes from a staging CA"),
            _ if new.not_before > now => Some("is not valid yet"),
            _ => None,
        };
        if let Some(worse) = worse {
            let detail = format!("certbot's certificate {worse}, the deployed one is valid; {force}");
            return Some(Refusal::new(Reason::WouldReplaceGood, detail));
        }
    }
    (new.not_before < old.not_before).then(|| {
        let detail = format!(
            "certbot's certificate was issued before the deployed one, which is still valid; {force}"
        );
        Refusal::new(Reason::OlderThanDeployed, detail)
    })
}

/// The command that deploys a lineage against what speaks against it.
fn force(name: &OsStr) -> String {
    format!("assemble --force {}", shell_word(name))
}

/// A file that no wanted lineage needs.
fn unneeded(situation: &Situation, file: &OsStr, deployed: &Deployed) -> Row {
    let mut row = Row::new(Role::Site, Action::Foreign);
    row.file = Some(file.to_owned());
    row.before = deployed.sha256;
    row.leaf.clone_from(&deployed.leaf);
    if let Some(recorded) = situation.recorded.get(file)
        && (is_as_recorded_or_damaged(deployed, recorded)
            || (deployed.archived && matches!(deployed.kind, Kind::Regular { .. })))
    {
        row.lineage = Some(recorded.lineage.clone());
        row.action = Action::Prune;
    }
    row
}

fn note_siblings(sites: &mut BTreeMap<OsString, Row>) {
    let with_siblings: Vec<OsString> = sites
        .keys()
        .filter_map(|file| {
            let (owner, ending) = file.to_str()?.rsplit_once('.')?;
            SIBLING_ENDINGS.contains(&ending).then(|| OsString::from(owner))
        })
        .collect();
    for file in with_siblings {
        if let Some(row) = sites.get_mut(&file).filter(|row| row.lineage.is_some()) {
            row.warnings.insert(Warning::SiblingFiles);
        }
    }
}

fn decide_host(situation: &Situation, host: &HostSituation) -> Row {
    let place = Place {
        role: Role::Host,
        file: &host.file,
        deployed: host.deployed.as_ref(),
        recorded: host.recorded.as_ref(),
    };
    decide(situation, &host.lineage, &host.source, &place)
}

fn candidate_warnings(candidate: &Candidate) -> impl Iterator<Item = Warning> {
    let chain = match candidate.chain {
        ChainState::Complete => None,
        ChainState::Incomplete => Some(Warning::ChainIncomplete),
        ChainState::Disordered { .. } => Some(Warning::ChainOrder),
    };
    let staging = candidate.staging.then_some(Warning::StagingIssuer);
    let loose = candidate.loose_permissions.then_some(Warning::LoosePermissions);
    [chain, staging, loose].into_iter().flatten()
}

/// Lifetimes range from 6 days to years, so they are judged relative to themselves.
fn lifetime_warning(leaf: &Leaf, now: i64) -> Option<Warning> {
    let life = leaf.not_after.saturating_sub(leaf.not_before);
    let left = leaf.not_after.saturating_sub(now);
    match () {
        () if left < 0 => Some(Warning::Expired),
        () if leaf.not_before > now => Some(Warning::NotYetValid),
        () if left.saturating_mul(4) < life => Some(Warning::ExpiresSoon),
        () => None,
    }
}
