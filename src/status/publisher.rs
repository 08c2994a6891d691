//! A publisher, for its status: certbot's lineages, what it published of them, and how its last publish ended.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use super::advice;
use super::edition::LastEdition;
use super::links::Links;
use super::local::{Ground, certbots, renewals};
use super::observation::{Location, Sight, SiteViews};
use crate::config::Settings;
use crate::config::fleet::Fleet;
use crate::fleet::cache::{HostPart, Opened, can_be_written, look_at_head};
use crate::fleet::edition::are_too_many;
use crate::fleet::page::PageEntry;
use crate::host_setup::adopt;
use crate::host_setup::fleet_part::FleetPart;
use crate::index::Index;
use crate::plan::action::Action;
use crate::plan::client::Client;
use crate::plan::decision::{Spot, decide, without_file};
use crate::plan::names::site_file;
use crate::plan::row::{Role, Row};
use crate::plan::situation::{Lineage, Policy, Situation};
use crate::sites::last_run::LastRun;
use crate::sites::place::Place;
use crate::sites::state::State;
use crate::source::Source;
use crate::status::problem::{Problem, problem};
use crate::status::severity::{ProblemKind, Severity};
use crate::sweep::sweep;
use crate::sys::escape::escaped_path;
use crate::sys::failure::{Failure, FailureKind};
use crate::sys::parallel::Progress;
use crate::sys::system::System;

/// What counts on a publisher without a HAProxy: nothing that is HAProxy's; `None`: this host is another.
#[must_use]
pub fn settings_of_publisher(settings: &Settings) -> Option<Settings> {
    (FleetPart::of(settings) == FleetPart::OnlyPublisher).then(|| without_haproxy(settings))
}

/// What counts for what is published, whatever is deployed here as well.
#[must_use]
pub fn without_haproxy(settings: &Settings) -> Settings {
    Settings { haproxys: Vec::new(), host_lineage: None, ..settings.clone() }
}

/// Looks at certbot's tree and at what this host has of the fleet. Nothing is locked, nothing is written.
pub fn look_around(settings: &Settings, progress: Progress<'_>) -> Ground {
    let mut ground = Ground { state: Some(State::default()), ..Ground::default() };
    let Some(fleet) = settings.published() else { return ground };
    ground.last_run = look_at_last_publish(fleet, &mut ground);
    let published = look_at_edition(fleet, true, &mut ground);
    let swept = Source::of(settings).and_then(|source| {
        let tree = (source, &Index::empty(None));
        sweep(settings, tree, None, &State::default(), Policy::default(), "", progress)
    });
    match swept {
        Ok(swept) => {
            ground.sees_certbot = true;
            ground.live_is_missing = swept.live_dir_missing;
            ground.has_no_lineage = !swept.situation.any_lineage;
            if swept.live_dir_missing && published.as_ref().is_some_and(|entries| !entries.is_empty()) {
                let fact = format!(
                    "{} is missing; what was published from it stays. Set live_dir if certbot's tree moved",
                    escaped_path(&settings.live_dir)
                );
                ground.note(Failure::new(FailureKind::Io, fact));
            }
            ground.renewals = renewals(settings, swept.situation.lineages.keys());
            ground.sites = views(settings, swept.situation, published);
        }
        Err(failure) => ground.note(failure),
    }
    ground
}

/// The same beside what is deployed, where this host publishes as well.
pub(super) fn note_published(settings: &Settings, ground: &mut Ground) {
    let Some(fleet) = settings.published().filter(|_| ground.sees_certbot) else { return };
    ground.last_publish = look_at_last_publish(fleet, ground);
    let mut published = Published::of(look_at_edition(fleet, false, ground));
    for site in ground.sites.iter_mut().filter(|site| site.role == Role::Site) {
        site.published = site.lineage.as_deref().map(|lineage| published.take(lineage));
    }
    ground.sites.extend(published.gone());
}

/// What makes lineages that are gone published no more: where they are many, that they may go has to be said, and where they
/// are all, none goes.
pub(super) fn publish_gone(ground: &Ground) -> &'static str {
    let published = || ground.sites.iter().filter(|site| site.in_edition().is_some());
    let gone = published().filter(|site| site.certbot == Sight::Absent).count();
    match () {
        () if ground.has_no_lineage => advice::BRING_BACK,
        () if are_too_many(gone, published().count()) => advice::PUBLISH_MANY,
        () => advice::PUBLISH,
    }
}

/// How the last publish ended, and what will keep the next one from succeeding.
fn look_at_last_publish(fleet: &Fleet, ground: &mut Ground) -> Sight<LastRun> {
    let found = Place::open(&fleet.cache).and_then(|place| {
        let Some(place) = place else { return Ok(None) };
        let run = LastRun::look_in(&place)?;
        if run.as_ref().is_none_or(|run| run.error.is_none()) {
            ground.unwritable_cache = can_be_written(&place).err().map(|failure| failure.message);
        }
        Ok(run)
    });
    match found {
        Ok(run) => run.map_or(Sight::Absent, Sight::Here),
        Err(failure) => {
            ground.note(failure);
            Sight::Unseen
        }
    }
}

/// A HAProxy that loads the sites directory, which no run fills: `settings` name none.
#[must_use]
pub fn unserved(settings: &Settings, system: &System) -> Option<Problem> {
    adopt::loads_sites_dir(settings, system).filter(|loads| *loads)?;
    let fact = format!(
        "HAProxy loads {}, and nothing is deployed there: the settings have no [[haproxy]] table, so this host only publishes",
        escaped_path(&settings.sites_dir)
    );
    Some(problem(ProblemKind::SettingsBroken, Severity::Warning, fact, Some(advice::INIT.to_owned())))
}

/// The lineages that this host published last; `None`: they can't be seen.
fn look_at_edition(fleet: &Fleet, is_all: bool, ground: &mut Ground) -> Option<BTreeMap<String, PageEntry>> {
    let opened = look_at_head(fleet, HostPart::Publisher).map_err(|failure| ground.note(failure)).ok();
    let (head, entries) = match opened {
        Some(Some(Opened { signed, entries, .. })) => (Sight::Here(signed), Some(entries)),
        Some(None) => (Sight::Absent, Some(BTreeMap::new())),
        None => (Sight::Unseen, None),
    };
    ground.edition = Some(LastEdition {
        fleet: fleet.name.clone(),
        store: fleet.store.to_string(),
        head,
        lineages: entries.as_ref().map_or(0, BTreeMap::len),
        is_all,
    });
    entries
}

/// The published lineages that no site has yet.
struct Published {
    left: BTreeMap<String, PageEntry>,
    /// Whether what is published can be seen.
    is_seen: bool,
}

impl Published {
    fn of(entries: Option<BTreeMap<String, PageEntry>>) -> Self {
        Self { is_seen: entries.is_some(), left: entries.unwrap_or_default() }
    }

    /// What is published of this lineage.
    fn take(&mut self, lineage: &OsStr) -> Sight<PageEntry> {
        match lineage.to_str().and_then(|name| self.left.remove(name)) {
            Some(entry) => Sight::Here(entry),
            None if self.is_seen => Sight::Absent,
            None => Sight::Unseen,
        }
    }

    /// The lineages that are published, and nothing else.
    fn gone(self) -> impl Iterator<Item = SiteViews> {
        self.left.into_iter().map(|(name, entry)| nowhere_else(name.into(), Sight::Here(entry)))
    }
}

/// A lineage of which nothing is seen but what is published.
fn nowhere_else(lineage: OsString, published: Sight<PageEntry>) -> SiteViews {
    SiteViews {
        lineage: Some(lineage),
        file: None,
        role: Role::Site,
        row: None,
        certbot: Sight::Absent,
        disk: Sight::Absent,
        published: Some(published),
        links: None,
        place: Location::default(),
        haproxy: Vec::new(),
    }
}

/// Each lineage with what certbot has and what is published of it.
fn views(
    settings: &Settings,
    mut situation: Situation,
    published: Option<BTreeMap<String, PageEntry>>,
) -> Vec<SiteViews> {
    let mut published = Published::of(published);
    let is_certbots = Client::of(settings) == Client::Certbot;
    let lineages = std::mem::take(&mut situation.lineages);
    let mut views: Vec<SiteViews> = Vec::with_capacity(lineages.len());
    for (name, lineage) in lineages {
        let row = row(&situation, &name, &lineage);
        let is_refused = row.action == Action::Refuse;
        let certbot = certbots(settings, &row, Some(lineage));
        let links = (is_refused && is_certbots).then(|| Links::look(&settings.live_dir, &name)).flatten();
        let entry = published.take(&name);
        views.push(SiteViews { links, row: Some(row), certbot, ..nowhere_else(name, entry) });
    }
    views.extend(published.gone());
    views
}

/// What the plan has for a lineage, but for a file.
fn row(situation: &Situation, name: &OsStr, lineage: &Lineage) -> Row {
    let place = |file| Spot { role: Role::Site, file, deployed: None, recorded: None };
    match site_file(name) {
        Ok(file) => Row { file: None, ..decide(situation, name, lineage, &place(&file)) },
        Err(refusal) => without_file(name, lineage, refusal),
    }
}
