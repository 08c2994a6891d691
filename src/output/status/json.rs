//! The status for scripts: one JSON object.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::certified_key::{Leaf, hex};
use crate::host_setup::finding::Finding;
use crate::output::json::{timestamp, to_text};
use crate::plan::action::Action;
use crate::plan::reason::Reason;
use crate::plan::row::{Role, Row};
use crate::sites::last_run::Told;
use crate::status::edition::LastEdition;
use crate::status::judge::{HaproxyView, Serves, Site, fingerprint};
use crate::status::problem::Problem;
use crate::status::severity::{PlaceState, ProblemKind, Severity};
use crate::status::{Status, advice};
use crate::sys::failure::Failure;

/// The version of the format.
const VERSION: u32 = 1;

#[derive(Serialize)]
struct Frame<'a> {
    version: u32,
    command: &'static str,
    dry_run: bool,
    state: Severity,
    time: Option<String>,
    live_dir: Option<String>,
    sites_dir: Option<String>,
    error: Option<&'a Failure>,
    unseen: &'a [String],
    problems: Vec<Detail<'a>>,
    sites: Vec<OneSite<'a>>,
    summary: BTreeMap<&'static str, usize>,
    haproxy: Vec<OneHaproxy<'a>>,
    last_run: Option<LastRun>,
    fleet: Option<Edition<'a>>,
    setup: Option<&'a [Finding]>,
}

#[derive(Serialize)]
struct OneSite<'a> {
    lineage: Option<String>,
    file: Option<String>,
    role: Role,
    severity: Severity,
    problems: Vec<ProblemKind>,
    details: Vec<Detail<'a>>,
    action: Option<Action>,
    reason: Option<Reason>,
    names: Option<&'a [String]>,
    key_type: Option<String>,
    certbot_state: PlaceState,
    disk_state: Option<PlaceState>,
    fleet_state: Option<PlaceState>,
    certbot: Option<View<'a>>,
    disk: Option<View<'a>>,
    fleet: Option<InFleet<'a>>,
    haproxy: Vec<InHaproxy<'a>>,
}

#[derive(Serialize)]
struct Detail<'a> {
    problem: ProblemKind,
    severity: Severity,
    haproxy: Option<&'a str>,
    fact: &'a str,
    advice: Option<&'a str>,
    commands: Vec<&'a str>,
}

#[derive(Serialize)]
struct View<'a> {
    serial: &'a str,
    fingerprint: String,
    sha256: String,
    names: &'a [String],
    key_type: String,
    not_before: Option<String>,
    not_after: Option<String>,
}

#[derive(Serialize)]
struct InFleet<'a> {
    serial: &'a str,
    sha256: String,
    not_after: Option<String>,
}

#[derive(Serialize)]
struct Edition<'a> {
    name: &'a str,
    sequence: Option<u64>,
    signed: Option<String>,
    expires: Option<String>,
}

#[derive(Serialize)]
struct InHaproxy<'a> {
    name: &'a str,
    seen_by: Option<&'static str>,
    state: PlaceState,
    serves: Option<Serves>,
    serial: Option<&'a str>,
    fingerprint: Option<&'a str>,
    not_before: Option<String>,
    not_after: Option<String>,
}

#[derive(Serialize)]
struct OneHaproxy<'a> {
    name: &'a str,
    seen_by: Vec<&'static str>,
    owed: bool,
    owed_since: Option<String>,
    detail: Option<&'a str>,
    last_told: Option<LastTold>,
}

#[derive(Serialize)]
struct LastTold {
    time: Option<String>,
    #[serde(flatten)]
    told: Told,
}

#[derive(Serialize)]
struct LastRun {
    time: Option<String>,
    exit: u8,
    error: Option<Failure>,
    changes: usize,
    succeeded: Option<String>,
}

/// A status as one line of JSON. `with_setup`: with what `--setup` found.
#[must_use]
pub fn status(status: &Status, with_setup: bool) -> String {
    let run = status.whole_run();
    let run = run.as_deref();
    let is_deployed = !status.only_publishes();
    // As in the report of a run: by file, then those without one.
    let mut sites: Vec<&Site> = status.sites.iter().collect();
    sites.sort_by_key(|site| (site.views.file.is_none(), &site.views.file, &site.views.lineage));
    to_text(&Frame {
        version: VERSION,
        command: "status",
        dry_run: false,
        state: status.severity(),
        time: timestamp(status.at),
        live_dir: Some(status.live_dir.to_string_lossy().into_owned()),
        // Where nothing is deployed it means nothing.
        sites_dir: is_deployed.then(|| status.sites_dir.to_string_lossy().into_owned()),
        error: status.error.as_ref(),
        unseen: &status.unseen,
        problems: status.problems.iter().map(detail).collect(),
        sites: sites.into_iter().map(|it| site(it, is_deployed)).collect(),
        summary: status.counts().into_iter().map(|(severity, count)| (severity.name(), count)).collect(),
        haproxy: status
            .haproxy
            .iter()
            .map(|haproxy| OneHaproxy {
                name: &haproxy.name,
                seen_by: [("runtime", haproxy.loaded), ("probe", haproxy.presented)]
                    .into_iter()
                    .filter_map(|(way, seen)| seen.then_some(way))
                    .collect(),
                owed: status.owed.contains_key(&haproxy.name),
                owed_since: status.owed.get(&haproxy.name).copied().flatten().and_then(timestamp),
                detail: haproxy.unseen.as_deref(),
                last_told: run
                    .and_then(|run| run.told.get(&haproxy.name))
                    .map(|told| LastTold { time: timestamp(told.at), told: told.clone() }),
            })
            .collect(),
        last_run: run.map(|run| LastRun {
            time: timestamp(run.at),
            exit: run.exit,
            error: run.error.clone(),
            changes: run.changes,
            succeeded: Some(run.succeeded).filter(|&at| at > 0).and_then(timestamp),
        }),
        fleet: status.edition.as_ref().map(edition),
        setup: with_setup.then_some(&status.findings),
    })
}

/// A failure before there were any settings to report on.
#[must_use]
pub fn failure(error: &Failure) -> String {
    to_text(&Frame {
        version: VERSION,
        command: "status",
        dry_run: false,
        state: Severity::Unknown,
        time: None,
        live_dir: None,
        sites_dir: None,
        error: Some(error),
        unseen: &[],
        problems: Vec::new(),
        sites: Vec::new(),
        summary: BTreeMap::new(),
        haproxy: Vec::new(),
        last_run: None,
        fleet: None,
        setup: None,
    })
}

fn site(site: &Site, is_deployed: bool) -> OneSite<'_> {
    let views = &site.views;
    let leaf = site.leaf();
    let text = |name: &std::ffi::OsString| name.to_string_lossy().into_owned();
    OneSite {
        lineage: views.lineage.as_ref().map(text),
        file: views.file.as_ref().map(text),
        role: views.role,
        severity: site.severity,
        problems: site.problems.iter().map(|problem| problem.kind).collect(),
        details: site.problems.iter().map(detail).collect(),
        // Nothing is done with a file where nothing is deployed.
        action: views
            .row
            .as_ref()
            .map(|row| row.action)
            .filter(|action| is_deployed || *action == Action::Refuse),
        reason: views.row.as_ref().and_then(Row::reason),
        names: leaf.map(|leaf| leaf.names.as_slice()),
        key_type: leaf.map(|leaf| leaf.key_type.to_string()),
        certbot_state: site.certbot,
        disk_state: is_deployed.then_some(site.disk),
        fleet_state: site.published,
        certbot: views.certbot.here().map(|leaf| view(leaf)),
        disk: views.disk.here().map(|leaf| view(leaf)),
        fleet: views.in_edition().map(|entry| InFleet {
            serial: &entry.serial,
            sha256: hex(&entry.leaf),
            not_after: timestamp(entry.not_after),
        }),
        haproxy: site.haproxy.iter().map(in_haproxy).collect(),
    }
}

fn detail(problem: &Problem) -> Detail<'_> {
    Detail {
        problem: problem.kind,
        severity: problem.severity,
        haproxy: problem.haproxy.as_deref(),
        fact: &problem.fact,
        advice: problem.advice.as_deref(),
        commands: problem.advice.as_deref().map(advice::commands).unwrap_or_default(),
    }
}

fn view(leaf: &Leaf) -> View<'_> {
    View {
        serial: &leaf.serial,
        fingerprint: fingerprint(&leaf.sha1),
        sha256: hex(&leaf.sha256),
        names: &leaf.names,
        key_type: leaf.key_type.to_string(),
        not_before: timestamp(leaf.not_before),
        not_after: timestamp(leaf.not_after),
    }
}

fn edition(edition: &LastEdition) -> Edition<'_> {
    let head = edition.head.here().map(|signed| &signed.head);
    Edition {
        name: &edition.fleet,
        sequence: head.map(|head| head.sequence),
        signed: head.and_then(|head| timestamp(head.signed)),
        expires: head.and_then(|head| timestamp(head.expires)),
    }
}

fn in_haproxy(view: &HaproxyView) -> InHaproxy<'_> {
    InHaproxy {
        name: &view.name,
        seen_by: view.seen_by,
        state: view.state,
        serves: view.serves,
        serial: view.serial.as_deref(),
        fingerprint: view.fingerprint.as_deref(),
        not_before: view.not_before.and_then(timestamp),
        not_after: view.not_after.and_then(timestamp),
    }
}
