//! Gathers the situation: every lineage that isn't known from the index read and proved, every deployed file looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::certbot::SETTLING;
use crate::certified_key::{CertifiedKey, CombinedPem, Leaf, Unproved, read_leaf};
use crate::config::Settings;
use crate::index::Index;
use crate::index::entry::{Look, Looks, Proven};
use crate::plan::names::site_file;
use crate::plan::reason::Reason;
use crate::plan::refusal::Refusal;
use crate::plan::situation::{
    Candidate, Deployed, EntryKind, HostSituation, Lineage, Policy, Recorded, Situation, named,
};
use crate::serving::loads::Loaded;
use crate::sites::entries;
use crate::sites::place::Place;
use crate::sites::state::State;
use crate::source::Source;
use crate::sys::clock::now;
use crate::sys::escape::escaped_path;
use crate::sys::failure::{Failure, FailureKind, io_cause};
use crate::sys::parallel::{self, Progress};

const POLL: Duration = Duration::from_millis(50);

/// What there is, before anything is decided.
#[derive(Debug)]
pub struct Swept {
    /// Where the pairs come from.
    pub source: Source,
    /// For the planner.
    pub situation: Situation,
    /// Whether certbot's `live` directory is missing.
    pub live_dir_missing: bool,
    /// Why a file of ours that no lineage needs can't be read: nothing is decided about it.
    pub failure: Option<Failure>,
    /// What was proved in this run and is deployed as it was proved: for the index.
    pub proved: Vec<Proven>,
    /// How many lineages were read.
    pub read: usize,
    /// When the lineages that weren't read were proved, the first of them: seconds since 1970.
    pub unchanged_since: Option<i64>,
}

/// Reads and proves every lineage of `tree` that `index` doesn't know, and looks at every deployed file. `haproxy` says which
/// HAProxy this is: what another one refused isn't held against a PEM.
///
/// # Errors
/// A whole directory can't be read; what is wrong with one lineage or file is part of the situation.
pub fn sweep(
    settings: &Settings,
    (tree, index): (Source, &Index),
    sites: Option<&Place>,
    state: &State,
    policy: Policy,
    haproxy: &str,
    progress: Progress<'_>,
) -> Result<Swept, Failure> {
    let policy = tree.policy(policy);
    let discovery = tree.discover(&|name| index.get(name).is_some())?;
    let any_lineage = !discovery.lineages.is_empty();
    let wanted = discovery.lineages.into_iter().filter(|name| settings.selection.includes(name));
    let live_dirs = state.spellings(&settings.live_dir);
    let recorded = |name: &str| state.recorded(name, &live_dirs, haproxy);
    let look_for = |name: &OsStr, lineage: &Lineage| {
        let file = site_file(name).ok()?;
        let record = file.to_str().and_then(recorded);
        let found = look_at(sites?, &file, Some(lineage), record.as_ref(), name, &tree)?;
        Some((file, found))
    };
    let (mut unchanged, mut unread) = (Vec::with_capacity(index.len()), Vec::new());
    let mut unchanged_since = None;
    for name in wanted {
        let Some(known) = index.get(&name) else {
            unread.push(name);
            continue;
        };
        unchanged_since = unchanged_since.into_iter().chain([known.proved]).min();
        unchanged.push((name, known.candidate.clone()));
    }
    let at = now();
    let observe = |name: &OsString| {
        let record = site_file(name).ok().and_then(|file| recorded(file.to_str()?));
        let Examined { lineage, unsettled, looks } = examine(&tree, name, record.as_ref());
        let found = look_for(name, &lineage);
        let entry = looks.and_then(|looks| entry(settings, name, &lineage, looks, found.as_ref()?, at));
        let found = found.map(|(file, found)| (file, found.map(|(deployed, _)| deployed)));
        Observed { lineage, found, unsettled, entry }
    };
    let mut unsettled = BTreeSet::new();
    let (mut lineages, mut deployed, mut proved) = (Vec::new(), Vec::new(), Vec::new());
    let observed = parallel::map(&unread, observe, progress);
    let read = unread.len();
    for (name, observed) in unread.into_iter().zip(observed) {
        let Observed { mut lineage, found, unsettled: may_settle, entry } = observed;
        if may_settle {
            unsettled.insert(name.clone());
        }
        proved.extend(entry);
        deployed.extend(note(&mut lineage, found));
        lineages.push((name, lineage));
    }
    // Made at once of what comes in order a map has no gaps.
    let mut lineages: BTreeMap<OsString, Lineage> = lineages.into_iter().collect();
    let mut deployed: BTreeMap<OsString, Deployed> = deployed.into_iter().collect();
    for (name, mut lineage) in settle(&tree, unsettled) {
        let found = look_for(&name, &lineage);
        let found = found.map(|(file, found)| (file, found.map(|(deployed, _)| deployed)));
        deployed.extend(note(&mut lineage, found));
        lineages.insert(name, lineage);
    }
    // Whether a file is that of a lineage that isn't read, and the state says of it just what it is.
    let is_known = |file: &OsStr| {
        let lineage = file.as_encoded_bytes().strip_suffix(b".pem").map(OsStr::from_bytes);
        let is_wanted = |name: &&OsStr| unchanged.len() == index.len() || named(&unchanged, name).is_some();
        lineage.filter(|name| index.get(name).is_some()).as_ref().is_some_and(is_wanted)
    };
    let mut failure = None;
    if let Some(sites) = sites {
        let is_other = |name: &OsStr| !is_known(name) && !deployed.contains_key(name);
        let others = look_at_others(sites, &is_other, &recorded, &tree)?;
        failure = others.failure;
        deployed.extend(others.files);
    }
    let recorded_otherwise = state
        .files
        .keys()
        .filter(|name| !is_known(OsStr::new(name)))
        .filter_map(|name| Some((OsString::from(name), recorded(name)?)))
        .collect();
    let known = |name: &OsStr| match named(&unchanged, name) {
        Some(candidate) => Some(Lineage { proof: Ok(candidate.clone()), leaf: None }),
        None => lineages.get(name).cloned(),
    };
    let host = settings.host_lineage.as_ref().map(|name| host(settings, &tree, name, &known, &recorded));
    Ok(Swept {
        source: tree,
        live_dir_missing: discovery.live_dir_missing,
        failure,
        proved,
        read,
        unchanged_since,
        situation: Situation {
            unchanged,
            any_lineage,
            recorded: recorded_otherwise,
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

/// The files that no lineage accounts for.
struct Others {
    files: Vec<(OsString, Deployed)>,
    /// The first of ours that can't be read.
    failure: Option<Failure>,
}

fn look_at_others(
    sites: &Place,
    is_other: &dyn Fn(&OsStr) -> bool,
    recorded: &(dyn Fn(&str) -> Option<Recorded> + Sync),
    tree: &Source,
) -> Result<Others, Failure> {
    let names = entries::entries_that(&sites.dir, &sites.path, is_other)?;
    let look = |file: &OsString| {
        let record = file.to_str().and_then(recorded);
        let lineage = record.as_ref().map(|record| record.lineage.clone()).unwrap_or_default();
        let found = look_at(sites, file, None, record.as_ref(), &lineage, tree)?;
        let found = found.map(|(deployed, _)| deployed);
        Some((file.clone(), found.map_err(|refusal| record.is_some().then_some(refusal))))
    };
    let mut others = Others { files: Vec::new(), failure: None };
    for (file, found) in parallel::map(&names, look, &|_, _| ()).into_iter().flatten() {
        if let Err(Some(refusal)) = &found {
            others.failure.get_or_insert_with(|| Failure::new(FailureKind::Io, refusal.detail.clone()));
        }
        others.files.push((file, found.unwrap_or_else(|_| unreadable())));
    }
    Ok(others)
}

/// Reads a lineage and proves its key once more, for its PEM.
///
/// # Errors
/// Why it isn't deployed.
pub fn prove(tree: &Source, name: &OsStr) -> Result<CombinedPem, Refusal> {
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
fn refused(tree: &Source, name: &OsStr, unproved: &Unproved) -> Refusal {
    Refusal::new(unproved.flaw.into(), format!("{}: {}", escaped_path(&tree.folder(name)), unproved.detail))
}

/// A lineage, and what is deployed of it.
struct Observed {
    lineage: Lineage,
    found: Option<(OsString, Result<Deployed, Refusal>)>,
    unsettled: bool,
    entry: Option<Proven>,
}

/// What the index may say of a lineage: it was proved, and is deployed as it was proved.
fn entry(
    settings: &Settings,
    name: &OsStr,
    lineage: &Lineage,
    (key, chain): (Look, Look),
    (_, found): &(OsString, Result<(Deployed, Look), Refusal>),
    proved: i64,
) -> Option<Proven> {
    let candidate = lineage.proof.as_ref().ok()?;
    let (deployed, site) = found.as_ref().ok()?;
    let is_right = deployed.sha256 == Some(candidate.sha256)
        && deployed.kind == EntryKind::Regular { owner: settings.owner, mode: settings.mode };
    is_right.then(|| Proven {
        lineage: name.to_str().unwrap_or_default().to_owned(),
        looks: Looks { key, chain, site: *site },
        proved,
        candidate: candidate.clone(),
    })
}

/// What came of reading and proving a lineage.
struct Examined {
    lineage: Lineage,
    /// Whether it may be whole in a moment.
    unsettled: bool,
    /// What key and chain looked like, where they were proved.
    looks: Option<(Look, Look)>,
}

/// Reads and proves a lineage.
fn examine(tree: &Source, name: &OsStr, record: Option<&Recorded>) -> Examined {
    let pair = match tree.read(name) {
        Ok(pair) => pair,
        Err(unread) => {
            let leaf = tree.leaf(name).map(Arc::new);
            let lineage = Lineage { proof: Err(unread.refusal), leaf };
            return Examined { lineage, unsettled: unread.unsettled, looks: None };
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
            let looks = Some((pair.key_look, pair.chain_look));
            Examined { lineage: Lineage { proof: Ok(candidate), leaf: None }, unsettled: false, looks }
        }
        Err(unproved) => {
            let refusal = if pair.versions_differ {
                let fact =
                    format!("the links in {} name different versions", escaped_path(&tree.folder(name)));
                Refusal::new(Reason::LineageTorn, fact)
            } else {
                refused(tree, name, &unproved)
            };
            let lineage = Lineage { proof: Err(refusal), leaf: read_leaf(&pair.chain).ok().map(Arc::new) };
            Examined { lineage, unsettled: pair.unsettled, looks: None }
        }
    }
}

/// Looks again at lineages that changed a moment ago, until they are whole or have settled as they are.
fn settle(tree: &Source, mut unsettled: BTreeSet<OsString>) -> BTreeMap<OsString, Lineage> {
    let until = Instant::now() + SETTLING;
    let mut settled = BTreeMap::new();
    while !unsettled.is_empty() && Instant::now() < until {
        sleep(POLL);
        unsettled.retain(|name| {
            let examined = examine(tree, name, None);
            settled.insert(name.clone(), examined.lineage);
            examined.unsettled
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
    tree: &Source,
) -> Option<Result<(Deployed, Look), Refusal>> {
    let candidate = lineage.and_then(|lineage| lineage.proof.as_ref().ok());
    let known = candidate.map(|candidate| (&candidate.sha256, &candidate.leaf));
    let (found, look) = match entries::entry(&place.dir, file, known) {
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
    Some(Ok((Deployed { archived, ..found }, look)))
}

/// The deployed file for the situation; one that can't be read refuses its lineage.
fn note(
    lineage: &mut Lineage,
    found: Option<(OsString, Result<Deployed, Refusal>)>,
) -> Option<(OsString, Deployed)> {
    match found? {
        (file, Ok(found)) => Some((file, found)),
        (file, Err(refusal)) => {
            lineage.leaf = leaf(lineage);
            lineage.proof = Err(refusal);
            Some((file, unreadable()))
        }
    }
}

fn leaf(lineage: &Lineage) -> Option<Arc<Leaf>> {
    lineage.proof.as_ref().ok().map(|candidate| candidate.leaf.clone()).or_else(|| lineage.leaf.clone())
}

fn unreadable() -> Deployed {
    Deployed::unread(EntryKind::Other)
}

fn host(
    settings: &Settings,
    tree: &Source,
    name: &str,
    known: &dyn Fn(&OsStr) -> Option<Lineage>,
    recorded: &dyn Fn(&str) -> Option<Recorded>,
) -> HostSituation {
    let lineage_name = OsString::from(name);
    let mut source = known(&lineage_name).unwrap_or_else(|| {
        let mut unsettled = BTreeSet::from([lineage_name.clone()]);
        let examined = examine(tree, &lineage_name, recorded(&settings.host_file.to_string_lossy()).as_ref());
        unsettled.retain(|_| examined.unsettled);
        settle(tree, unsettled).remove(&lineage_name).unwrap_or(examined.lineage)
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
        Some(Ok((found, _))) => deployed = Some(found),
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
