//! What is done with the file of one lineage, and with a file that no lineage needs.

use std::ffi::OsStr;
use std::sync::Arc;

use crate::certified_key::{ChainState, Leaf};
use crate::plan::action::Action;
use crate::plan::obstacle::{Drawback, Obstacle};
use crate::plan::reason::Reason;
use crate::plan::refusal::{Refusal, force};
use crate::plan::row::{Role, Row};
use crate::plan::situation::{Candidate, Deployed, EntryKind, HostSituation, Lineage, Recorded, Situation};
use crate::plan::warning::Warning;

/// Where a lineage's PEM goes, and what is known of that place.
pub(crate) struct Spot<'a> {
    pub(crate) role: Role,
    pub(crate) file: &'a OsStr,
    pub(crate) deployed: Option<&'a Deployed>,
    pub(crate) recorded: Option<&'a Recorded>,
}

pub(crate) fn leaf_of(lineage: &Lineage) -> Option<&Arc<Leaf>> {
    lineage.proof.as_ref().ok().map(|candidate| &candidate.leaf).or(lineage.leaf.as_ref())
}

pub(crate) fn decide(situation: &Situation, name: &OsStr, lineage: &Lineage, place: &Spot<'_>) -> Row {
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
        Judgement::Conflict(obstacle) => {
            row.action = Action::Conflict;
            row.obstacle = Some(obstacle);
            row.leaf = place.deployed.and_then(|deployed| deployed.leaf.clone());
            row.warnings.clear();
        }
    }
    row
}

/// A lineage whose name no file can have.
pub(crate) fn without_file(name: &OsStr, lineage: &Lineage, refusal: Refusal) -> Row {
    let mut row = Row::new(Role::Site, Action::Refuse);
    row.lineage = Some(name.to_owned());
    row.leaf = leaf_of(lineage).cloned();
    row.refuse(refusal);
    row
}

enum Judgement {
    Do(Action),
    Adopt,
    Refuse(Refusal),
    Conflict(Obstacle),
}

/// What is done for a proved lineage, given what is in its place.
fn judge(situation: &Situation, name: &OsStr, candidate: &Candidate, place: &Spot<'_>) -> Judgement {
    if let Some((sha256, words)) = place.recorded.and_then(|recorded| recorded.rejected.as_ref())
        && *sha256 == candidate.sha256
        && !situation.policy.force.contains(name)
    {
        return Judgement::Refuse(Refusal::remembered(name, words));
    }
    let Some(deployed) = place.deployed else { return Judgement::Do(Action::Install) };
    let drawback = deployed.leaf.as_ref().and_then(|old| Drawback::of(candidate, old, situation.now));
    let is_forced = situation.policy.force.contains(name);
    // Somebody else's certificate may be younger than the lineage's: whoever adopts it knows.
    let guard = drawback.filter(|it| !is_forced && *it != Drawback::Older);
    let adopted = guard.map_or(Judgement::Adopt, |guard| Judgement::Refuse(too_good(name, guard)));
    // Of two certificates for other names none is the newer one.
    let is_for_its_names = |old: &Arc<Leaf>| old.names.iter().any(|name| candidate.leaf.names.contains(name));
    let is_one_of_its = deployed.leaf.as_ref().is_some_and(is_for_its_names);
    let worse = drawback.filter(|it| *it != Drawback::Older || is_one_of_its);
    let in_conflict = |plain| Judgement::Conflict(worse.map_or(plain, Obstacle::Better));
    let EntryKind::Regular { owner, mode } = deployed.kind else {
        return match deployed.kind {
            EntryKind::Directory => Judgement::Conflict(Obstacle::Directory),
            _ if situation.policy.adopt => adopted,
            _ => in_conflict(Obstacle::Irregular),
        };
    };
    if deployed.sha256 == Some(candidate.sha256) {
        let right = owner == situation.owner && mode == situation.mode;
        return Judgement::Do(if right { Action::Unchanged } else { Action::Repair });
    }
    if !is_ours(deployed, place.recorded, &candidate.leaf) {
        return if situation.policy.adopt { adopted } else { in_conflict(Obstacle::Anothers) };
    }
    // So may another lineage's, of which the host certificate was made before: whoever sets host_lineage knows.
    let is_anothers = |recorded: &Recorded| place.role == Role::Host && recorded.lineage != *name;
    let guard = if place.recorded.is_some_and(is_anothers) {
        guard
    } else {
        // A restored backup, as a rule, whether or not it has expired since.
        let is_older = |old: &Arc<Leaf>| candidate.leaf.not_before < old.not_before;
        let is_older = deployed.leaf.as_ref().is_some_and(is_older);
        let drawback =
            drawback.map(|it| if it == Drawback::Expired && is_older { Drawback::Older } else { it });
        drawback.filter(|_| !is_forced)
    };
    guard.map_or(Judgement::Do(Action::Replace), |guard| Judgement::Refuse(too_good(name, guard)))
}

/// Whether a file that differs from what certbot has is one that this program may replace.
fn is_ours(deployed: &Deployed, recorded: Option<&Recorded>, lineages_leaf: &Leaf) -> bool {
    let of_this_lineage =
        deployed.archived || deployed.leaf.as_ref().is_some_and(|leaf| leaf.sha256 == lineages_leaf.sha256);
    of_this_lineage || recorded.is_some_and(|recorded| is_as_recorded_or_damaged(deployed, recorded))
}

fn is_as_recorded_or_damaged(deployed: &Deployed, recorded: &Recorded) -> bool {
    let EntryKind::Regular { .. } = deployed.kind else { return false };
    deployed.sha256.is_some_and(|sha256| deployed.leaf.is_none() || recorded.sha256.contains(&sha256))
}

/// Guards a good deployed certificate against a worse one.
fn too_good(name: &OsStr, drawback: Drawback) -> Refusal {
    let (reason, fact) = match drawback {
        Drawback::Staging => (Reason::WouldReplaceGood, "comes from a staging CA, the deployed one is valid"),
        Drawback::NotYetValid => (Reason::WouldReplaceGood, "is not valid yet, the deployed one is valid"),
        Drawback::Expired => (Reason::WouldReplaceGood, "has expired, the deployed one is valid"),
        Drawback::Older => {
            (Reason::OlderThanDeployed, "was issued before the deployed one, which is still valid")
        }
    };
    let force = force(name);
    Refusal::new(reason, format!("the lineage's certificate {fact}; run {force} if this is wanted"))
}

/// A file that no wanted lineage needs.
pub(crate) fn unneeded(situation: &Situation, file: &OsStr, deployed: &Deployed) -> Row {
    let mut row = Row::new(Role::Site, Action::Foreign);
    row.file = Some(file.to_owned());
    row.before = deployed.sha256;
    row.leaf.clone_from(&deployed.leaf);
    if let Some(recorded) = situation.recorded.get(file)
        && (is_as_recorded_or_damaged(deployed, recorded)
            || (deployed.archived && matches!(deployed.kind, EntryKind::Regular { .. })))
    {
        row.lineage = Some(recorded.lineage.clone());
        row.action = Action::Prune;
    }
    row
}

pub(crate) fn decide_host(situation: &Situation, host: &HostSituation) -> Row {
    let place = Spot {
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

fn lifetime_warning(leaf: &Leaf, now: i64) -> Option<Warning> {
    if leaf.not_after < now {
        Some(Warning::Expired)
    } else if leaf.not_before > now {
        Some(Warning::NotYetValid)
    } else {
        leaf.is_ending(now).then_some(Warning::ExpiresSoon)
    }
}
