//! Gathers the situation: every lineage read and proved, every deployed file looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use crate::certbot::{CertbotTree, SETTLING};
use crate::certified_key::{CertifiedKey, CombinedPem, Leaf, Unproved, read_leaf};
use crate::config::Settings;
use crate::plan::names::site_file;
use crate::plan::reason::Reason;
use crate::plan::refusal::Refusal;
use crate::plan::situation::{
    Candidate, Deployed, EntryKind, HostSituation, Lineage, Policy, Recorded, Situation,
};
use crate::serving::loads::Loaded;
use crate::sites::entries;
use crate::sites::place::Place;
use crate::sites::state::State;
use crate::sys::escape::escaped_path;
use crate::sys::failure::{Failure, FailureKind, io_cause};
use crate::sys::parallel::{self, Progress};

const POLL: Duration = Duration::from_millis(50);

/// What there is, before anything is decided.
#[derive(Debug)]
pub struct Swept {
    /// For the planner.
    pub situation: Situation,
    /// Whether certbot's `live` directory is missing.
    pub live_dir_missing: bool,
    /// Why a file of ours that no lineage needs can't be read: nothing is decided about it.
    pub failure: Option<Failure>,
}

/// Reads and proves every lineage, and looks at every deployed file. `haproxy` says which HAProxy this is: what
/// another one refused isn't held against a PEM.
///
/// # Errors
/// A whole directory can't be read; what is wrong with one lineage or file is part of the situation.
pub fn sweep(
    settings: &Settings,
    sites: Option<&Place>,
    state: &State,
    policy: Policy,
    haproxy: &str,
    progress: Progress<'_>,
) -> Result<Swept, Failure> {
    let tree = CertbotTree::of(settings);
    let discovery = tree.discover()?;
    let names: Vec<&OsString> =
        discovery.lineages.iter().filter(|name| settings.selection.includes(name)).collect();
    let live_dirs = state.spellings(&settings.live_dir);
    let recorded = |name: &str| state.recorded(name, &live_dirs, haproxy);
    let look_for = |name: &OsStr, lineage: &Lineage| {
        let file = site_file(name).ok()?;
        let record = file.to_str().and_then(recorded);
        let found = look_at(sites?, &file, Some(lineage), record.as_ref(), name, &tree)?;
        Some((file, found))
    };
    let observe = |name: &&OsString| {
        let record = site_file(name).ok().and_then(|file| recorded(file.to_str()?));
        let (lineage, unsettled) = examine(&tree, name, record.as_ref());
        let found = look_for(name, &lineage);
        ((*name).clone(), lineage, found, unsettled)
    };
    let mut lineages = BTreeMap::new();
    let mut deployed = BTreeMap::new();
    let mut unsettled = BTreeSet::new();
    for (name, mut lineage, found, may_settle) in parallel::map(&names, observe, progress) {
        if may_settle {
            unsettled.insert(name.clone());
        }
        note(&mut lineage, &mut deployed, found);
        lineages.insert(name, lineage);
    }
    for (name, mut lineage) in settle(&tree, unsettled) {
        let found = look_for(&name, &lineage);
        note(&mut lineage, &mut deployed, found);
        lineages.insert(name, lineage);
    }
    let mut failure = None;
    if let Some(sites) = sites {
        let entries = entries::entries(&sites.dir, &sites.path)?;
        let others: Vec<OsString> = entries.into_iter().filter(|name| !deployed.contains_key(name)).collect();
        let look = |file: &OsString| {
            let record = file.to_str().and_then(recorded);
            let lineage = record.as_ref().map(|record| record.lineage.clone()).unwrap_or_default();
            let found = look_at(sites, file, None, record.as_ref(), &lineage, &tree)?;
            Some((file.clone(), found.map_err(|refusal| record.is_some().then_some(refusal))))
        };
        for (file, found) in parallel::map(&others, look, &|_, _| ()).into_iter().flatten() {
            if let Err(Some(refusal)) = &found {
                failure.get_or_insert_with(|| Failure::new(FailureKind::Io, refusal.detail.clone()));
            }
            deployed.insert(file, found.unwrap_or_else(|_| unreadable()));
        }
    }
    let host = settings.host_lineage.as_ref().map(|name| host(settings, &tree, name, &lineages, &recorded));
    Ok(Swept {
        live_dir_missing: discovery.live_dir_missing,
        failure,
        situation: Situation {
            any_lineage: !discovery.lineages.is_empty(),
            recorded: state
                .files
                .keys()
                .filter_map(|name| Some((OsString::from(name), recorded(name)?)))
                .collect(),
            lineages,
            deployed,
            host,
            loaded: Loaded::default(),
            owner: settings.owner,
            mode: settings.mode,
            now: now(),
            policy,
        },
    })
}

/// The time, in seconds since 1970.
#[must_use]
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Reads a lineage and proves its key once more, for its PEM.
///
/// # Errors
/// Why it isn't deployed.
pub fn prove(tree: &CertbotTree, name: &OsStr) -> Result<CombinedPem, Refusal> {
    let pair = tree.read(name).map_err(|unread| unread.refusal)?;
    match CertifiedKey::prove(&pair.key, &pair.chain) {
        Ok(proved) => Ok(proved.combined_pem()),
        // It was a pair a moment ago.
        Err(_) if pair.versions_differ || pair.unsettled => {
            let fact = format!("{} changed while it was being deployed", escaped_path(&tree.folder(name)));
            Err(Refusal::new(Reason::LineageTorn, fact))
        }
        Err(unproved) => Err(refused(tree, name, &unproved)),
    }
}

/// The refusal of a pair that was read but not proved.
fn refused(tree: &CertbotTree, name: &OsStr, unproved: &Unproved) -> Refusal {
    Refusal::new(unproved.flaw.into(), format!("{}: {}", escaped_path(&tree.folder(name)), unproved.detail))
}

/// What came of reading and proving a lineage, and whether it may be whole in a moment.
fn examine(tree: &CertbotTree, name: &OsStr, record: Option<&Recorded>) -> (Lineage, bool) {
    let pair = match tree.read(name) {
        Ok(pair) => pair,
        Err(unread) => {
            let leaf = tree.leaf(name).map(Arc::new);
            return (Lineage { proof: Err(unread.refusal), leaf }, unread.unsettled);
        }
    };
    match CertifiedKey::prove(&pair.key, &pair.chain) {
        Ok(proved) => {
            let sha256 = proved.combined_pem().sha256();
            let known = record.and_then(|record| record.chain).filter(|(of, _)| *of == sha256);
            let candidate = Candidate {
                sha256,
                leaf: Arc::new(proved.leaf().clone()),
                chain: known.map_or_else(|| proved.chain_state(), |(_, chain)| chain),
                staging: proved.staging_issuer(),
                loose_permissions: pair.loose_permissions,
            };
            (Lineage { proof: Ok(candidate), leaf: None }, false)
        }
        Err(unproved) => {
            let refusal = if pair.versions_differ {
                let fact =
                    format!("the links in {} name different versions", escaped_path(&tree.folder(name)));
                Refusal::new(Reason::LineageTorn, fact)
            } else {
                refused(tree, name, &unproved)
            };
            (Lineage { proof: Err(refusal), leaf: read_leaf(&pair.chain).ok().map(Arc::new) }, pair.unsettled)
        }
    }
}

/// Looks again at lineages that changed a moment ago, until they are whole or have settled as they are.
fn settle(tree: &CertbotTree, mut unsettled: BTreeSet<OsString>) -> BTreeMap<OsString, Lineage> {
    let until = Instant::now() + SETTLING;
    let mut settled = BTreeMap::new();
    while !unsettled.is_empty() && Instant::now() < until {
        sleep(POLL);
        unsettled.retain(|name| {
            let (lineage, may_settle) = examine(tree, name, None);
            settled.insert(name.clone(), lineage);
            may_settle
        });
    }
    settled
}

/// A deployed file, with what the planner needs to know about its origin; `None`: there is none.
fn look_at(
    place: &Place,
    file: &OsStr,
    lineage: Option<&Lineage>,
    record: Option<&Recorded>,
    name: &OsStr,
    tree: &CertbotTree,
) -> Option<Result<Deployed, Refusal>> {
    let candidate = lineage.and_then(|lineage| lineage.proof.as_ref().ok());
    let known = candidate.map(|candidate| (&candidate.sha256, &candidate.leaf));
    let found = match entries::entry(&place.dir, file, known) {
        Ok(found) => found?,
        Err(e) => {
            let fact = format!(
                "cannot read the deployed {}: {}",
                escaped_path(&place.path.join(file)),
                io_cause(&e)
            );
            return Some(Err(Refusal::new(Reason::Io, fact)));
        }
    };
    let as_known = |sha256: &[u8; 32]| {
        candidate.is_some_and(|candidate| candidate.sha256 == *sha256)
            || record.is_some_and(|record| record.sha256.contains(sha256))
    };
    let archived = match (&found.sha256, &found.leaf) {
        (Some(sha256), Some(leaf)) if !name.is_empty() && !as_known(sha256) => {
            tree.has_archived(name, &leaf.sha256)
        }
        _ => false,
    };
    Some(Ok(Deployed { archived, ..found }))
}

/// Adds a deployed file to the situation; one that can't be read refuses its lineage.
fn note(
    lineage: &mut Lineage,
    deployed: &mut BTreeMap<OsString, Deployed>,
    found: Option<(OsString, Result<Deployed, Refusal>)>,
) {
    match found {
        Some((file, Ok(found))) => {
            deployed.insert(file, found);
        }
        Some((file, Err(refusal))) => {
            lineage.leaf = leaf(lineage);
            lineage.proof = Err(refusal);
            deployed.insert(file, unreadable());
        }
        None => {}
    }
}

fn leaf(lineage: &Lineage) -> Option<Arc<Leaf>> {
    lineage.proof.as_ref().ok().map(|candidate| candidate.leaf.clone()).or_else(|| lineage.leaf.clone())
}

fn unreadable() -> Deployed {
    Deployed { kind: EntryKind::Other, sha256: None, leaf: None, has_key: false, archived: false }
}

fn host(
    settings: &Settings,
    tree: &CertbotTree,
    name: &str,
    lineages: &BTreeMap<OsString, Lineage>,
    recorded: &dyn Fn(&str) -> Option<Recorded>,
) -> HostSituation {
    let lineage_name = OsString::from(name);
    let mut source = lineages.get(&lineage_name).cloned().unwrap_or_else(|| {
        let mut unsettled = BTreeSet::from([lineage_name.clone()]);
        let (lineage, may_settle) =
            examine(tree, &lineage_name, recorded(&settings.host_file.to_string_lossy()).as_ref());
        unsettled.retain(|_| may_settle);
        settle(tree, unsettled).remove(&lineage_name).unwrap_or(lineage)
    });
    let record = recorded(&settings.host_file.to_string_lossy());
    let file = settings.host_file.file_name().unwrap_or_default();
    let found = match settings.host_file.parent().map(Place::open) {
        Some(Ok(Some(parent))) => look_at(&parent, file, Some(&source), record.as_ref(), &lineage_name, tree),
        Some(Err(failure)) => Some(Err(Refusal::new(Reason::Io, failure.message))),
        Some(Ok(None)) | None => None,
    };
    let mut deployed = None;
    match found {
        Some(Ok(found)) => deployed = Some(found),
        Some(Err(refusal)) => source = Lineage { leaf: leaf(&source), proof: Err(refusal) },
        None => {}
    }
    HostSituation {
        lineage: lineage_name,
        source,
        file: settings.host_file.clone().into_os_string(),
        deployed,
        recorded: record,
    }
}
