//! The judgement: from what was seen in three places to problems and their severity. Pure.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::sync::Arc;

use serde::Serialize;

use super::advice;
use super::observation::{LoadedLeaf, Outranked, Presented, Shown, Sight, SiteViews};
use super::running::Running;
use super::severity::{PlaceState, ProblemKind, Severity};
use crate::certified_key::{Flaw, Leaf, hex};
use crate::fleet::page::PageEntry;
use crate::haproxy::cli::replies::StoreStatus;
use crate::host_setup::placeholder::is_placeholder;
use crate::plan::action::Action;
use crate::plan::client::Client;
use crate::plan::hold::Hold;
use crate::plan::names::is_loaded_name;
use crate::plan::reason::Reason;
use crate::plan::refusal::Refusal;
use crate::plan::row::{NamesWon, Role, Row};
use crate::plan::warning::Warning;
use crate::serving::loads::KEY_LINE;
use crate::serving::one_by_one::Unreached;
use crate::status::circumstances::Circumstances;
use crate::status::lost::GONE;
use crate::status::problem::{Problem, problem};
use crate::sys::escape::escaped;

/// What is owed for longer than this is critical, in seconds.
const OWED_PATIENCE: i64 = 60 * 60;

/// How long after a renewal a run must have followed, in seconds.
const HOOK_PATIENCE: i64 = 24 * 60 * 60;

/// How far a run may be in the future, in seconds: clocks are set.
const CLOCK_PATIENCE: i64 = 5 * 60;

/// One HAProxy's view of one site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HaproxyView {
    /// Its name.
    pub name: String,
    /// How it was seen: `runtime` or `probe`.
    pub seen_by: Option<&'static str>,
    /// What it holds, compared with the disk.
    pub state: PlaceState,
    /// Which of its names it serves from this file, where it has it.
    pub serves: Option<Serves>,
    /// The leaf's serial number, in hex.
    pub serial: Option<String>,
    /// The leaf's SHA-1 as HAProxy prints it: upper-case hex.
    pub fingerprint: Option<String>,
    /// From when it is valid: seconds since 1970.
    pub not_before: Option<i64>,
    /// Until when it is valid.
    pub not_after: Option<i64>,
}

/// Which of a file's names are served from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Serves {
    /// All of them.
    All,
    /// Some: another file has the others, or the filters of its lines leave them out.
    Some,
    /// None: it is only loaded.
    None,
}

/// One site, judged.
#[derive(Debug, Clone)]
pub struct Site {
    /// What was seen.
    pub views: SiteViews,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, the worst first.
    pub problems: Vec<Problem>,
    /// What certbot has.
    pub certbot: PlaceState,
    /// What the file holds, compared with certbot.
    pub disk: PlaceState,
    /// What is published, compared with certbot; `None`: this host doesn't publish it.
    pub published: Option<PlaceState>,
    /// What each HAProxy holds.
    pub haproxy: Vec<HaproxyView>,
    /// When certbot renews what it has, where that can be known.
    pub renewal_due: Option<i64>,
}

impl Site {
    /// The leaf that the site is about: what is deployed, else what certbot has.
    #[must_use]
    pub fn leaf(&self) -> Option<&Arc<Leaf>> {
        self.views.disk.here().or_else(|| self.views.certbot.here())
    }

    /// Whether its file only holds the host certificate's place: nobody is served by it.
    #[must_use]
    pub fn is_placeholder(&self) -> bool {
        self.views.disk.here().is_some_and(|leaf| is_placeholder(leaf))
    }

    /// When the first of its certificates in use expires: on disk, in a HAProxy or published.
    #[must_use]
    pub fn expires(&self) -> Option<i64> {
        let shown = self.haproxy.iter().filter_map(|view| view.not_after);
        shown
            .chain(self.views.in_edition().map(|entry| entry.not_after))
            .chain(self.leaf().map(|leaf| leaf.not_after))
            .min()
    }

    /// How long the deployed certificate lives from its first to its last second, where a lineage renews it.
    #[must_use]
    pub fn lifetime(&self) -> Option<i64> {
        let leaf = self.views.disk.here().filter(|_| self.views.lineage.is_some())?;
        Some(leaf.not_after.saturating_sub(leaf.not_before))
    }

    /// Adds a problem that was seen elsewhere.
    pub fn add(&mut self, problem: Problem) {
        self.severity = match self.severity {
            Severity::Unknown if problem.severity == Severity::Ok => Severity::Unknown,
            severity => severity.max(problem.severity),
        };
        self.problems.push(problem);
        sort(&mut self.problems);
    }

    /// Which HAProxys, by their places in the settings, can't be seen to have the file, though it is there for them.
    pub fn unseen_in(&self) -> impl Iterator<Item = usize> {
        unseen_in(&self.views, &self.haproxy)
    }

    /// What all HAProxys hold: the worst of it.
    #[must_use]
    pub fn all_haproxys(&self) -> PlaceState {
        let order = |state: &PlaceState| match state {
            PlaceState::Missing => 4,
            PlaceState::Stale => 3,
            PlaceState::Unknown => 2,
            PlaceState::Foreign => 1,
            PlaceState::Current => 0,
        };
        self.haproxy.iter().map(|view| view.state).max_by_key(order).unwrap_or(PlaceState::Unknown)
    }
}

/// Judges one site.
#[must_use]
pub fn judge(views: SiteViews, around: &Circumstances<'_>) -> Site {
    let disk = disk_state(&views, around.sees_state);
    let certbot = certbot_state(&views);
    let published = published_state(&views);
    let haproxy: Vec<HaproxyView> = views
        .haproxy
        .iter()
        .zip(around.running)
        .map(|(shown, running)| haproxy_view(&views, shown, running))
        .collect();
    let mut problems = planned(&views, disk, around);
    problems.extend(unloadable(&views, around).or_else(|| unserved(&views)));
    problems.extend(on_disk(&views, disk, around.client));
    problems.extend(not_published(&views, around.client).map(|found| {
        let is_gone = views.certbot == Sight::Absent;
        let advice = if is_gone { Some(around.publish_gone.to_owned()) } else { found.advice };
        Problem { advice, ..found }
    }));
    problems.extend(unreached(&views, around));
    problems.extend(lacks_ocsp(&views, around));
    problems.extend(lifetimes(&views, &haproxy, around));
    if is_served(&views) {
        for (shown, view) in views.haproxy.iter().zip(&haproxy) {
            problems.extend(in_haproxy(&views, shown, view, around));
            problems.extend(
                outranked(shown, view).filter(|_| !views.row.as_ref().is_some_and(|row| row.outranked)),
            );
        }
    }
    problems.extend(owed(&views, around));
    sort(&mut problems);
    let worst = problems.iter().map(|problem| problem.severity).max().unwrap_or(Severity::Ok);
    let is_unseen = [certbot, disk, published.unwrap_or(disk)].contains(&PlaceState::Unknown)
        || unseen_in(&views, &haproxy).any(|at| around.running.get(at).is_some_and(|running| running.wanted));
    let severity = if worst == Severity::Ok && is_unseen { Severity::Unknown } else { worst };
    Site { views, severity, problems, certbot, disk, published, haproxy, renewal_due: None }
}

/// The worst first.
fn sort(problems: &mut [Problem]) {
    problems.sort_by(|a, b| b.severity.cmp(&a.severity).then(a.kind.cmp(&b.kind)));
}

/// See [`Site::unseen_in`].
fn unseen_in(views: &SiteViews, haproxy: &[HaproxyView]) -> impl Iterator<Item = usize> {
    let is_due = is_served(views) && views.disk.here().is_some();
    let shown = haproxy.iter().enumerate().filter(move |_| is_due);
    shown.filter(|(_, view)| view.state == PlaceState::Unknown).map(|(at, _)| at)
}

/// Whether HAProxy is expected to serve what the file holds: it isn't a stranger's.
fn is_served(views: &SiteViews) -> bool {
    is_loaded(views) && !is_foreign(views)
}

/// Whether HAProxy takes the file for a certificate.
fn is_loaded(views: &SiteViews) -> bool {
    views.role == Role::Host || views.place.is_elsewhere || views.file.as_deref().is_some_and(is_loaded_name)
}

/// Whether it matters when it expires: HAProxy takes it, here or where it is published to.
fn is_in_use(views: &SiteViews) -> bool {
    is_loaded(views) || views.published.is_some()
}

fn is_foreign(views: &SiteViews) -> bool {
    views.row.as_ref().is_some_and(|row| matches!(row.action, Action::Foreign | Action::Conflict))
}

fn certbot_state(views: &SiteViews) -> PlaceState {
    match views.certbot {
        Sight::Here(_) => PlaceState::Current,
        Sight::Unseen => PlaceState::Unknown,
        Sight::Absent | Sight::Damaged => PlaceState::Missing,
    }
}

fn disk_state(views: &SiteViews, sees_state: bool) -> PlaceState {
    let Some(row) = &views.row else {
        return if views.disk == Sight::Absent { PlaceState::Missing } else { PlaceState::Unknown };
    };
    match (row.action, &views.disk) {
        (_, Sight::Unseen) => PlaceState::Unknown,
        (_, Sight::Absent) => PlaceState::Missing,
        (Action::Conflict | Action::Foreign | Action::Prune, _) if !sees_state => PlaceState::Unknown,
        (Action::Conflict | Action::Foreign, _) => PlaceState::Foreign,
        (Action::Replace | Action::Prune | Action::Install, _) | (Action::Refuse, Sight::Damaged) => {
            PlaceState::Stale
        }
        // It isn't the fleet's.
        (Action::Unchanged, _) if row.held == Some(Hold::Elsewhere) => PlaceState::Foreign,
        (Action::Unchanged, _) if row.held.is_some() => PlaceState::Stale,
        (Action::Unchanged | Action::Repair, _) => PlaceState::Current,
        (Action::Refuse, Sight::Here(deployed)) => match views.certbot.here() {
            Some(leaf) if leaf.sha256 == deployed.sha256 => PlaceState::Current,
            Some(_) => PlaceState::Stale,
            None => PlaceState::Unknown,
        },
    }
}

/// What others get, compared with certbot.
fn published_state(views: &SiteViews) -> Option<PlaceState> {
    Some(match (views.published.as_ref()?, &views.certbot) {
        (Sight::Unseen | Sight::Damaged, _) | (Sight::Here(_), Sight::Unseen) => PlaceState::Unknown,
        (Sight::Absent, _) => PlaceState::Missing,
        (Sight::Here(entry), Sight::Here(leaf)) if entry.leaf == leaf.sha256 => PlaceState::Current,
        (Sight::Here(_), _) => PlaceState::Stale,
    })
}

fn haproxy_view(views: &SiteViews, shown: &Shown, running: &Running) -> HaproxyView {
    let by_runtime = loaded_state(views, &shown.loaded);
    let by_probe = match &shown.presented {
        Sight::Here(Presented::Right) => PlaceState::Current,
        Sight::Here(Presented::Other { .. }) => PlaceState::Stale,
        Sight::Here(Presented::Refused { .. }) => PlaceState::Missing,
        _ => PlaceState::Unknown,
    };
    let mut view = HaproxyView {
        name: running.name.clone(),
        seen_by: None,
        state: PlaceState::Unknown,
        serves: None,
        serial: None,
        fingerprint: None,
        not_before: None,
        not_after: None,
    };
    let probe_decides = match by_probe {
        PlaceState::Unknown => false,
        PlaceState::Current => by_runtime == PlaceState::Unknown,
        _ => matches!(by_runtime, PlaceState::Unknown | PlaceState::Current),
    };
    if probe_decides {
        view.seen_by = Some("probe");
        view.state = by_probe;
        let leaf = match &shown.presented {
            Sight::Here(Presented::Right) => views.disk.here().map(AsRef::as_ref),
            Sight::Here(Presented::Other { leaf, .. }) => leaf.as_deref(),
            _ => None,
        };
        if let Some(leaf) = leaf {
            view.serial = Some(leaf.serial.clone());
            view.fingerprint = Some(fingerprint(&leaf.sha1));
            (view.not_before, view.not_after) = (Some(leaf.not_before), Some(leaf.not_after));
        }
    } else if !shown.loaded.is_unseen() {
        view.seen_by = Some("runtime");
        let has_file = !matches!(views.disk, Sight::Absent);
        view.state = if shown.is_apart && has_file { PlaceState::Current } else { by_runtime };
        if let Sight::Here(loaded) = &shown.loaded {
            view.serial.clone_from(&loaded.serial);
            view.fingerprint = loaded.sha1.as_ref().map(fingerprint);
            (view.not_before, view.not_after) = (loaded.not_before, loaded.not_after);
        }
    }
    view.serves = serves(views, shown).filter(|_| view.state == PlaceState::Current && !shown.is_apart);
    view
}

/// Which of a file's names HAProxy serves from it: loaded isn't served where another file wins.
fn serves(views: &SiteViews, shown: &Shown) -> Option<Serves> {
    let (row, leaf) = (views.row.as_ref()?, views.disk.here()?);
    let is_shadowed = row.warnings.has(Warning::Shadowed);
    let has_lost_some = is_shadowed || matches!(row.names_won, NamesWon::Some(_));
    Some(match &shown.outranked {
        _ if has_lost_some && row.serves_nobody() => Serves::None,
        Some(_) if leaf.names.len() == 1 => Serves::None,
        Some(_) => Serves::Some,
        None if has_lost_some => Serves::Some,
        None => Serves::All,
    })
}

/// What HAProxy has in memory, compared with the disk.
fn loaded_state(views: &SiteViews, loaded: &Sight<LoadedLeaf>) -> PlaceState {
    match (loaded, &views.disk) {
        (Sight::Unseen | Sight::Damaged, _) | (Sight::Here(_), Sight::Unseen) => PlaceState::Unknown,
        (Sight::Absent, _) => PlaceState::Missing,
        (Sight::Here(_), Sight::Absent | Sight::Damaged) => PlaceState::Stale,
        (Sight::Here(loaded), Sight::Here(leaf)) => match loaded.status {
            StoreStatus::Used if loaded.is_of(leaf) && !views.lacks_chain(loaded) => PlaceState::Current,
            StoreStatus::Used => PlaceState::Stale,
            StoreStatus::Unused | StoreStatus::Empty | StoreStatus::Uncommitted => PlaceState::Missing,
        },
    }
}

/// The SHA-1 of a leaf as HAProxy prints it.
#[must_use]
pub fn fingerprint(sha1: &[u8; 20]) -> String {
    hex(sha1).to_ascii_uppercase()
}

/// What the plan says.
fn planned(views: &SiteViews, disk: PlaceState, around: &Circumstances<'_>) -> Vec<Problem> {
    let Some(row) = &views.row else { return Vec::new() };
    let mut problems = Vec::new();
    let ownership_unknown = disk == PlaceState::Unknown;
    if let Some(Refusal { reason, detail }) = &row.refusal
        && !is_only_forbidden(views)
    {
        let advice = crate::status::remedies::refused(*reason, row, views, around.client);
        problems.push(problem(ProblemKind::Refused(*reason), Severity::Warning, detail.clone(), advice));
    }
    if let Some(obstacle) = row.obstacle.filter(|_| !ownership_unknown) {
        let advice = crate::status::remedies::conflict(obstacle, row, views, around.client);
        let fact = obstacle.fact().to_owned();
        problems.push(problem(ProblemKind::Conflict, Severity::Warning, fact, Some(advice)));
    }
    if row.action == Action::Foreign && !ownership_unknown {
        let is_ours = views.disk.here().is_some_and(|leaf| is_placeholder(leaf));
        let fact = if is_ours { advice::PLACEHOLDER } else { "" };
        problems.push(problem(ProblemKind::Foreign, Severity::Ok, fact.to_owned(), None));
    }
    for warning in row.warnings.iter() {
        let severity = match warning {
            // Judged where it is served.
            Warning::Expired | Warning::ExpiresSoon => continue,
            _ if row.action == Action::Foreign => continue,
            _ if ownership_unknown && warning == Warning::PruneHeld && !around.sees_state => continue,
            Warning::PruneHeld if row.held == Some(Hold::Elsewhere) => Severity::Ok,
            Warning::DefaultCertificateChanged | Warning::NotChecked => Severity::Ok,
            Warning::NotYetValid
            | Warning::ChainIncomplete
            | Warning::ChainOrder
            | Warning::StagingIssuer
            | Warning::Shadowed
            | Warning::LoosePermissions
            | Warning::SiblingFiles
            | Warning::PruneHeld => Severity::Warning,
        };
        let (fact, advice) = crate::status::remedies::warned(warning, row, around);
        problems.push(problem(ProblemKind::Warned(warning), severity, fact, advice));
    }
    problems
}

/// Whether the lineage was refused only since we may not read it or its file.
fn is_only_forbidden(views: &SiteViews) -> bool {
    let is_unread = || views.row.as_ref().is_some_and(|row| row.reason() == Some(Reason::Io));
    let sees_no_edition = views.published.as_ref().is_some_and(Sight::is_unseen);
    views.certbot.is_unseen() || views.disk.is_unseen() || (sees_no_edition && is_unread())
}

/// A file that HAProxy would load at its next start, and can't.
fn unloadable(views: &SiteViews, around: &Circumstances<'_>) -> Option<Problem> {
    let why = views.place.unloadable.as_ref()?;
    let fact = format!("HAProxy can't load this file, and won't start again: {why}");
    let advice = match (&views.row, &views.place.named) {
        (Some(row), _) if row.action.writes() => advice::ASSEMBLE.to_owned(),
        (Some(row), _) if row.action == Action::Conflict => advice::ADOPT.to_owned(),
        _ if views.place.path == around.sites_dir && around.needs.some_come => advice::ASSEMBLE.to_owned(),
        _ if why == GONE && [around.sites_dir, around.host_file].contains(&views.place.path.as_path()) => {
            advice::INIT.to_owned()
        }
        _ if views.place.path == around.sites_dir => advice::EMPTY.to_owned(),
        (_, named) => match around.needs.without(&views.place.path, named.as_deref()) {
            Ok(command) => format!("run: {command}"),
            Err(instead) => format!("put a certificate with its key there, or {instead}"),
        },
    };
    Some(problem(ProblemKind::Unloadable, Severity::Critical, fact, Some(advice)))
}

/// A file that HAProxy loads with a key that isn't its own.
fn unserved(views: &SiteViews) -> Option<Problem> {
    let why = views.place.unserved.as_ref()?;
    let fact = format!("HAProxy can't serve this file once it starts again: {why}");
    Some(problem(ProblemKind::Unloadable, Severity::Critical, fact, Some(KEY_LINE.to_owned())))
}

/// What helps where no lineage renews a certificate that HAProxy loads.
fn renew_elsewhere(views: &SiteViews, around: &Circumstances<'_>) -> String {
    if views.row.as_ref().is_some_and(|row| row.action == Action::Conflict) {
        return advice::ADOPT.to_owned();
    }
    match around.needs.without(&views.place.path, views.place.named.as_deref()) {
        // HAProxy has it until it reads the disk again.
        Ok(command) => {
            format!("renew it where it comes from, or: {command} && haproxy-certs assemble --full")
        }
        Err(instead) => format!("renew it where it comes from, or {instead}"),
    }
}

/// What helps where certbot has nothing left that it could renew: the file goes, or what keeps it is said elsewhere.
fn gone(views: &SiteViews, around: &Circumstances<'_>) -> Option<String> {
    let row = views.row.as_ref().filter(|_| views.certbot == Sight::Absent)?;
    match row.action {
        Action::Prune => Some(advice::ASSEMBLE.to_owned()),
        _ if row.held.is_some() => crate::status::remedies::warned(Warning::PruneHeld, row, around).1,
        _ => None,
    }
}

/// The disk, compared with certbot.
fn on_disk(views: &SiteViews, disk: PlaceState, client: Client) -> Option<Problem> {
    let row = views.row.as_ref()?;
    let who = client.who();
    match (row.action, disk) {
        (Action::Install | Action::Refuse, PlaceState::Missing) => {
            views.file.as_ref()?;
            let has_none =
                row.reason() == Some(Reason::Unproved(Flaw::CertificateMissing)) || views.certbot.is_unseen();
            if has_none && views.certbot.here().is_none() {
                return None;
            }
            let fact = format!("{who} has a certificate, and there is no file for it");
            let advice = (row.action == Action::Install).then(|| advice::ASSEMBLE.to_owned());
            Some(problem(ProblemKind::DiskMissing, Severity::Critical, fact, advice))
        }
        (Action::Replace, PlaceState::Stale) => {
            let fact = match (views.disk.here(), views.certbot.here()) {
                (Some(old), Some(new)) if old.sha256 == new.sha256 => {
                    format!(
                        "the file has the right certificate, but its key, chain or form is not what {who} has"
                    )
                }
                (Some(old), Some(new)) => {
                    format!("the file has serial {}, {who} has {}", short(&old.serial), short(&new.serial))
                }
                _ => "the file is damaged".to_owned(),
            };
            Some(problem(ProblemKind::DiskStale, Severity::Warning, fact, Some(advice::ASSEMBLE.to_owned())))
        }
        (Action::Prune, PlaceState::Stale) => {
            let fact = "the lineage is gone, and its file is still there".to_owned();
            Some(problem(ProblemKind::DiskStale, Severity::Warning, fact, Some(advice::ASSEMBLE.to_owned())))
        }
        (Action::Repair, _) => {
            let fact = "the file's owner or mode is not as configured".to_owned();
            let kind = ProblemKind::Warned(Warning::LoosePermissions);
            Some(problem(kind, Severity::Warning, fact, Some(advice::ASSEMBLE.to_owned())))
        }
        _ => None,
    }
}

/// What is published, compared with certbot.
fn not_published(views: &SiteViews, client: Client) -> Option<Problem> {
    let is_refused = is_refused(views);
    let state = published_state(views)?;
    let fact = other_than_published(views, client)?;
    let severity = match state {
        PlaceState::Missing => Severity::Critical,
        // Why it is refused says more.
        _ if is_refused => return None,
        _ => Severity::Warning,
    };
    let advice = (!is_refused).then(|| advice::PUBLISH.to_owned());
    Some(problem(ProblemKind::NotPublished, severity, fact, advice))
}

/// What certbot has of a lineage otherwise than it is published, whatever the reason.
#[must_use]
pub fn other_than_published(views: &SiteViews, client: Client) -> Option<String> {
    let who = client.who();
    Some(match (published_state(views)?, views.certbot.here(), views.in_edition()) {
        (PlaceState::Missing, Some(_), _) => format!("{who} has a certificate, and it is not published"),
        (PlaceState::Stale, Some(leaf), Some(entry)) => {
            format!("serial {} is published, {who} has {}", short(&entry.serial), short(&leaf.serial))
        }
        (PlaceState::Stale, None, Some(entry)) if is_refused(views) => {
            format!("serial {} is published, and it is not what {who} has", short(&entry.serial))
        }
        (PlaceState::Stale, None, _) => "the lineage is gone, and it is still published".to_owned(),
        _ => return None,
    })
}

fn is_refused(views: &SiteViews) -> bool {
    views.row.as_ref().is_some_and(|row| row.action == Action::Refuse)
}

/// The first digits of a serial number: enough to tell two apart.
fn short(serial: &str) -> String {
    match serial.get(..12) {
        Some(first) if serial.len() > 14 => format!("{first}.."),
        _ => serial.to_owned(),
    }
}

/// What one HAProxy shows, compared with the disk.
fn in_haproxy(
    views: &SiteViews,
    shown: &Shown,
    view: &HaproxyView,
    around: &Circumstances<'_>,
) -> Option<Problem> {
    let name = escaped(&view.name).to_string();
    let catch_up = around.catch_up(views, &view.name);
    let or_another = |why: &str| format!("{catch_up}; if that changes nothing, {why}");
    let about = |kind, fact: String, advice: &str| {
        Some(Problem {
            haproxy: Some(view.name.clone()),
            ..problem(kind, Severity::Critical, fact, Some(advice.to_owned()))
        })
    };
    match (view.state, &shown.presented, &shown.loaded) {
        (PlaceState::Stale, Sight::Here(Presented::Other { asked, .. }), _)
            if view.seen_by == Some("probe") =>
        {
            about(
                ProblemKind::HaproxyStale,
                format!("{name} presents another certificate for {asked}"),
                &or_another(advice::PRESENTS_ANOTHER),
            )
        }
        (PlaceState::Missing, Sight::Here(Presented::Refused { asked, why }), _)
            if view.seen_by == Some("probe") =>
        {
            about(
                ProblemKind::HaproxyMissing,
                format!("{name} presents no certificate for {asked}: {why}"),
                &or_another(advice::NOT_LOADED),
            )
        }
        (PlaceState::Stale, _, Sight::Here(loaded)) => {
            let fact = match (&views.disk, &loaded.serial) {
                _ if views.lacks_chain(loaded) => {
                    format!("{name} sends it without the other certificates that the file has")
                }
                (Sight::Here(leaf), Some(serial)) => {
                    format!(
                        "{name} has serial {}, the file has {}",
                        short(&escaped(serial).to_string()),
                        short(&leaf.serial)
                    )
                }
                (Sight::Absent, _) => format!("{name} still has it, and the file is gone"),
                _ => format!("{name} has another certificate than the file"),
            };
            about(ProblemKind::HaproxyStale, fact, &catch_up)
        }
        (PlaceState::Missing, _, Sight::Here(_)) => about(
            ProblemKind::HaproxyMissing,
            format!("{name} has it in memory and doesn't serve it"),
            &catch_up,
        ),
        // What keeps it away is a problem of its own.
        (PlaceState::Missing, _, Sight::Absent)
            if views.place.unreached.as_ref().is_some_and(Unreached::is_unnamed) =>
        {
            None
        }
        (PlaceState::Missing, _, Sight::Absent) if views.disk.here().is_some() => about(
            ProblemKind::HaproxyMissing,
            format!("{name} doesn't have it"),
            &or_another(advice::NOT_LOADED),
        ),
        _ => None,
    }
}

/// It demands what HAProxy doesn't have.
fn lacks_ocsp(views: &SiteViews, around: &Circumstances<'_>) -> Option<Problem> {
    if !views.place.lacks_ocsp || !is_loaded(views) {
        return None;
    }
    let fact = "the certificate demands an OCSP response in every handshake (must-staple), and HAProxy has none: clients \
                that obey refuse it"
        .to_owned();
    let advice = match &views.row {
        Some(row) if !is_foreign(views) => {
            let again = around.client.by("renew --force-renewal --cert-name NAME");
            let what = match around.client {
                Client::Certbot => {
                    "take must_staple out of renewal/NAME.conf and cli.ini, then issue it again"
                }
                Client::Another | Client::Publisher => "issue it again without must-staple",
            };
            row.with_name(&format!("{what}{again}"))
        }
        _ => "replace it by one that was issued without must-staple".to_owned(),
    };
    Some(problem(ProblemKind::OcspMissing, Severity::Warning, fact, Some(advice)))
}

/// No client is presented it.
fn unreached(views: &SiteViews, around: &Circumstances<'_>) -> Option<Problem> {
    let file = views.file.as_deref()?;
    // What is to go needs no line.
    let is_to_go = |row: &Row| row.action == Action::Prune || row.held.is_some();
    let why = views.place.unreached.as_ref().filter(|_| !views.row.as_ref().is_some_and(is_to_go))?;
    let (fact, advice) = (why.fact(), why.advice(file));
    Some(match why {
        Unreached::Unlisted(_) | Unreached::Host { .. } | Unreached::Bundle(_) => {
            let advice = format!("{advice}; then {}", around.reload_all());
            problem(ProblemKind::NotListed, Severity::Critical, fact, Some(advice))
        }
        Unreached::Addresses | Unreached::Filters(_) => {
            let fact = format!("no client is presented it: {fact}");
            problem(ProblemKind::NotPresented, Severity::Warning, fact, Some(advice))
        }
    })
}

/// A file from elsewhere in HAProxy's configuration serves one of the names.
fn outranked(shown: &Shown, view: &HaproxyView) -> Option<Problem> {
    let Outranked { name, by, is_configured } = shown.outranked.as_ref()?;
    let (name, by, haproxy) = (escaped(name), escaped(by), escaped(&view.name));
    let order =
        "name the sites directory before that file on the bind line, or let HAProxy load that file no more";
    let (fact, advice) = if *is_configured {
        (format!("{haproxy} serves {name} from {by}, which its configuration names first"), order.to_owned())
    } else {
        (
            format!("{haproxy} serves {name} from {by}; what its configuration names first isn't known"),
            format!("reload HAProxy where it runs; if that changes nothing, {order}"),
        )
    };
    Some(Problem {
        haproxy: Some(view.name.clone()),
        ..problem(ProblemKind::Warned(Warning::Shadowed), Severity::Warning, fact, Some(advice))
    })
}

/// How long the certificates have to live: in use on disk or in a HAProxy, else certbot's.
fn lifetimes(views: &SiteViews, haproxy: &[HaproxyView], around: &Circumstances<'_>) -> Option<Problem> {
    // A placeholder expired before it was made.
    if !is_in_use(views) || views.disk.here().is_some_and(|leaf| is_placeholder(leaf)) {
        return None;
    }
    let (nobodys, advice) = if is_foreign(views) {
        ("; no lineage renews it", renew_elsewhere(views, around))
    } else if let Some(gone) = gone(views, around) {
        ("; its lineage is gone", gone)
    } else {
        let row = views.row.as_ref().filter(|row| row.lineage.is_some());
        // Only HAProxy has it still.
        ("", row.map_or_else(|| around.reload_all(), |row| row.with_name(&advice::renew(around.client))))
    };
    let mut worst: Option<Problem> = None;
    let mut note = |place: &str, not_before: Option<i64>, not_after: i64, in_use: bool| {
        let left = not_after.saturating_sub(around.now);
        let part = |parts: i64| {
            not_before.is_some_and(|from| left.saturating_mul(parts) < not_after.saturating_sub(from))
        };
        let (kind, severity) = if left < 0 {
            (Warning::Expired, Severity::Critical)
        } else if part(10) {
            (Warning::ExpiresSoon, Severity::Critical)
        } else if part(4) {
            (Warning::ExpiresSoon, Severity::Warning)
        } else {
            return;
        };
        let severity = if in_use { severity } else { Severity::Warning };
        if worst.as_ref().is_some_and(|worst| worst.severity >= severity) {
            return;
        }
        let fact = match left {
            ..0 => format!("the certificate {place} expired {} ago{nobodys}", advice::span(-left)),
            _ => format!("the certificate {place} expires in {}{nobodys}", advice::span(left)),
        };
        worst = Some(problem(ProblemKind::Warned(kind), severity, fact, Some(advice.clone())));
    };
    if let Some(leaf) = views.disk.here() {
        note("on disk", Some(leaf.not_before), leaf.not_after, true);
    }
    for view in haproxy {
        if let Some(not_after) = view.not_after {
            note(&format!("in {}", escaped(&view.name)), view.not_before, not_after, true);
        }
    }
    let published = views.in_edition();
    if let Some(leaf) = views.certbot.here()
        && let Some(entry) = published.filter(|entry| entry.leaf != leaf.sha256)
    {
        note("that is published", None, entry.not_after, true);
    }
    if let (Some(leaf), None) = (views.certbot.here(), views.disk.here()) {
        let is_published = published.is_some_and(|entry| entry.leaf == leaf.sha256);
        let place = format!("that {} has", around.client.who());
        note(&place, Some(leaf.not_before), leaf.not_after, is_published);
    }
    // The better certificate is there already: bringing it where it is used is what helps, and where it is refused, what mends
    // that.
    let refused = || {
        let row = views.row.as_ref()?;
        crate::status::remedies::refused(row.reason()?, row, views, around.client)
    };
    let bring = |command: &str| refused().unwrap_or_else(|| command.to_owned());
    let disk_is_fresh = |disk: &Leaf, certbot: &Leaf| certbot.not_after > disk.not_after;
    if let (Some(problem), Some(disk), Some(certbot)) = (&mut worst, views.disk.here(), views.certbot.here())
    {
        if haproxy.iter().any(|view| view.not_after.is_some_and(|at| at < disk.not_after)) {
            problem.advice = Some(advice::ASSEMBLE.to_owned());
        } else if disk_is_fresh(disk, certbot) {
            problem.advice = Some(bring(advice::ASSEMBLE));
        }
    }
    let is_outdated =
        |entry: &&PageEntry| views.certbot.here().is_some_and(|leaf| leaf.not_after > entry.not_after);
    if let (Some(problem), Some(_)) = (&mut worst, views.in_edition().filter(is_outdated)) {
        problem.advice = Some(bring(advice::PUBLISH));
    }
    worst
}

/// Whether a HAProxy is still to be notified of this file.
pub(crate) fn owed(views: &SiteViews, around: &Circumstances<'_>) -> Option<Problem> {
    let file = views.file.as_ref()?.to_str()?;
    let oldest = around
        .running
        .iter()
        .zip(around.owed)
        .filter_map(|(running, files)| Some((files.get(file)?, running)));
    let (since, running) = oldest.min_by_key(|(since, _)| **since)?;
    Some(owed_problem(running, Some(*since), around.now))
}

/// A HAProxy that is still to be notified since `since`; `None`: the record of it is lost.
#[must_use]
pub fn owed_problem(running: &Running, since: Option<i64>, now: i64) -> Problem {
    let name = running.name.as_str();
    let ago = since.map(|since| now.saturating_sub(since));
    let is_long = ago.is_some_and(|ago| ago > OWED_PATIENCE);
    let severity = if is_long { Severity::Critical } else { Severity::Warning };
    let name_shown = escaped(name);
    let waits = |ago: i64| match ago {
        0.. => format!("{name_shown} has been waiting {} for an update", advice::span(ago)),
        _ => format!(
            "{name_shown} is waiting for an update, since when can't be told: that is recorded {} in the future",
            advice::span(ago.saturating_neg())
        ),
    };
    let fact = match (ago, &running.failed) {
        (Some(ago), Some(why)) => format!("{}: {why}", waits(ago)),
        (Some(ago), None) => waits(ago),
        (None, _) => {
            format!("{name_shown} counts as waiting for an update: .haproxy-certs/state.json is damaged")
        }
    };
    // Here it is said what is to be mended.
    let advice = running.catch_up(true).replacen("mend what reload-owed says", "mend that", 1);
    Problem {
        haproxy: Some(name.to_owned()),
        ..problem(ProblemKind::ReloadOwed, severity, fact, Some(advice))
    }
}

/// Whether the last run is recorded in the future: nothing can be judged by it.
#[must_use]
pub fn is_future(at: i64, now: i64) -> bool {
    at.saturating_sub(now) > CLOCK_PATIENCE
}

/// What makes it doubtful that runs follow, where no renewal shows it: the clock was set back, or there was none for longer
/// than any certificate here lives, `longest`.
#[must_use]
pub fn runs(last_run: i64, longest: Option<i64>, now: i64, client: Client) -> Option<Problem> {
    let (fact, advice) = if is_future(last_run, now) {
        let ahead = advice::span(last_run.saturating_sub(now));
        let fact = format!(
            "the last run is recorded {ahead} in the future, so whether one followed {} last renewal can't be told",
            client.whose()
        );
        (fact, advice::ASSEMBLE.to_owned())
    } else {
        let ago = now.saturating_sub(last_run);
        longest.filter(|&longest| ago > longest.max(HOOK_PATIENCE))?;
        let ago = advice::span(ago);
        (format!("the last run was {ago} ago, and no certificate here lives that long"), advice::hook(client))
    };
    Some(problem(ProblemKind::HookNotRunning, Severity::Warning, fact, Some(advice)))
}

/// Whether certbot renewed something over a day ago, and nothing followed.
#[must_use]
pub fn hook(renewals: &[i64], last_run: Option<i64>, now: i64, client: Client) -> Option<Problem> {
    let is_missed = |&&at: &&i64| at > last_run.unwrap_or(i64::MIN) && at < now.saturating_sub(HOOK_PATIENCE);
    let first = renewals.iter().filter(is_missed).min()?;
    let fact = match last_run {
        Some(at) => format!(
            "{} renewed {} ago, and the last run was {} ago",
            client.who(),
            advice::span(now.saturating_sub(*first)),
            advice::span(now.saturating_sub(at))
        ),
        None => format!(
            "{} renewed {} ago, and haproxy-certs has never run here",
            client.who(),
            advice::span(now.saturating_sub(*first))
        ),
    };
    Some(problem(ProblemKind::HookNotRunning, Severity::Warning, fact, Some(advice::hook(client))))
}

/// A sites directory that others could change: `assemble` refuses to write to it.
#[must_use]
pub fn open_to_others(fact: String) -> Problem {
    let (fact, advice) = match fact.split_once("; run: ") {
        Some((fact, command)) => (fact.to_owned(), Some(format!("run: {command}"))),
        None => (fact, None),
    };
    problem(ProblemKind::Warned(Warning::LoosePermissions), Severity::Warning, fact, advice)
}
