//! `status`: what certbot has, what is on disk, what HAProxy serves; it changes nothing and takes no lock. Only `--setup`
//! listens on certbot's port for a moment.
//!
//! The sweep and the plan of `assemble` as a dry run, what each HAProxy shows, what earlier runs left; all of it judged by
//! pure functions, and reported as one value.

pub mod advice;
pub mod behind;
pub mod checking;
pub mod circumstances;
pub mod down;
pub mod edition;
pub mod following;
pub mod handshakes;
pub mod judge;
pub mod links;
pub mod loaded;
pub mod local;
pub mod lost;
pub mod moving;
pub mod names;
pub mod observation;
pub mod out_of_step;
pub mod problem;
pub mod publisher;
pub mod refusal;
pub mod reloading;
pub mod remedies;
pub mod renewals;
pub mod running;
pub mod severity;
pub mod shut_out;
pub mod troubles;
pub mod unit;
pub mod untried;
pub mod unworkable;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::config::Settings;
use crate::haproxy::process::reader::shut;
use crate::haproxy::tableless::tableless;
use crate::host_setup::Setup;
use crate::host_setup::finding::Finding;
use crate::plan::client::Client;
use crate::sites::last_run::LastRun;
use crate::sites::state::State;
use crate::status::circumstances::{Circumstances, ForeignFile};
use crate::status::moving::Needs;
use crate::status::observation::Sight;
use crate::status::problem::Problem;
use crate::status::refusal::Refused;
use crate::sys::clock::now;
use crate::sys::failure::Failure;
use crate::sys::parallel::Progress;
use crate::sys::system::System;
use advice::Given;
use behind::Changed;
use checking::Checked;
use edition::LastEdition;
use judge::{Site, judge};
use local::{Ground, Reading};
use running::Running;
use severity::{ProblemKind, Severity};

/// Everything that a status says.
#[derive(Debug, Clone)]
pub struct Status {
    /// When it was taken, in seconds since 1970.
    pub at: i64,
    /// certbot's `live` directory.
    pub live_dir: PathBuf,
    /// The sites directory.
    pub sites_dir: PathBuf,
    /// What kept it from seeing a place although it is allowed to.
    pub error: Option<Failure>,
    /// The sites, the worst first.
    pub sites: Vec<Site>,
    /// Problems that aren't one site's.
    pub problems: Vec<Problem>,
    /// The HAProxys, as far as they can be seen.
    pub haproxy: Vec<Running>,
    /// For each HAProxy that is still to be notified: since when; `None`: the record of it is lost.
    pub owed: BTreeMap<String, Option<i64>>,
    /// The last run of `assemble`, on a publisher without a HAProxy of `fleet publish`.
    pub last_run: Sight<LastRun>,
    /// The last run of `fleet publish` on a publisher with a HAProxy, where `assemble` ends with one.
    pub last_publish: Sight<LastRun>,
    /// Places that can't be seen, and why.
    pub unseen: Vec<String>,
    /// What `--setup` found.
    pub findings: Vec<Finding>,
    /// Who renews the certificates.
    pub client: Client,
    /// What this host published last; `None`: it is no publisher.
    pub edition: Option<LastEdition>,
}

/// Looks at everything and judges it.
#[must_use]
pub fn status(settings: &Settings, system: &System, with_setup: bool, progress: Progress<'_>) -> Status {
    status_by(settings, system, with_setup, Reading::All, progress)
}

/// The same after a run, by its index: what it proved and still looks the same isn't read again.
#[must_use]
pub fn status_after(settings: &Settings, system: &System) -> Status {
    status_by(settings, system, false, Reading::Changes, &|_, _| ())
}

/// What a publisher should have published, judged as its own status does it, whatever is deployed there as well.
#[must_use]
pub fn status_of_published(settings: &Settings, ground: Ground, now: i64) -> Status {
    let mut status = judged(settings, ground, Vec::new(), Setup::default(), now);
    status.complete(&Given::default());
    status
}

fn status_by(
    settings: &Settings,
    system: &System,
    with_setup: bool,
    reading: Reading,
    progress: Progress<'_>,
) -> Status {
    let of_publisher = publisher::settings_of_publisher(settings);
    let unserved = of_publisher.as_ref().and_then(|_| publisher::unserved(settings, system));
    let settings = of_publisher.as_ref().unwrap_or(settings);
    let mut ground = if of_publisher.is_some() {
        publisher::look_around(settings, progress)
    } else {
        let mut ground = local::look_around(settings, system, reading, progress);
        publisher::note_published(settings, &mut ground);
        ground
    };
    let mut haproxy = running::look(settings, system, &mut ground);
    let mut setup = Setup::default();
    let are_untried = untried::are_there(settings, system, &ground);
    let (mut culprits, mut lists) = (Vec::new(), Vec::new());
    for (place, (running, table)) in haproxy.iter_mut().zip(&settings.haproxys).enumerate() {
        let told = ground.last_run.here().and_then(|run| run.told.get(&running.name)).cloned();
        let is_suspect = told.as_ref().is_some_and(|told| told.advice.is_some());
        // It reads every certificate: only where there is a reason, or all the time there is.
        let is_suspect = is_suspect || running.failed_reloads > 0;
        let is_asked = with_setup || is_suspect || running.down.is_some() || are_untried;
        // A reload is going to be advised: where it would fail that must be said first.
        let is_behind =
            running.behind.as_ref().is_some_and(|behind| behind.changed == Changed::Configuration);
        if is_asked || is_behind {
            let checked = checking::check(system, table, ground.loaded.stopped.get(&table.name));
            if is_asked || matches!(checked, Checked::Refused { .. }) {
                setup.findings.extend(crate::host_setup::checked(table, &checked));
            }
            let found = match &checked {
                Checked::Refused { log, .. } => untried::note(settings, place, &mut ground, log),
                Checked::Accepted => None,
                Checked::Unasked(_) => {
                    let serving = ground.loaded.servings.get(place);
                    lists.extend(serving.into_iter().flat_map(|it| troubles::lists(&table.name, it)));
                    None
                }
            };
            running.refused = Refused::judge(checked, told.as_ref());
            if let Some((found, refused)) = found.zip(running.refused.as_mut()) {
                refused.advice = untried::mend(&found);
                culprits.push((running.name.clone(), found));
            }
        }
        running.failed = told
            .filter(|_| running.refused.is_none())
            .and_then(|told| crate::status::refusal::failure(&told));
        running.way_out =
            running.failed.as_ref().and_then(|_| crate::status::reloading::way_out(system, table));
    }
    if with_setup {
        // By the name that HAProxy has for the directory: that it should be ours is said above.
        let mut by_its_names = settings.clone();
        for (running, settings) in haproxy.iter().zip(&mut by_its_names.haproxys) {
            if let Some(spelled) = &running.spelled {
                settings.sites_dir.clone_from(spelled);
            }
        }
        setup.add(crate::host_setup::look(&by_its_names, system, &haproxy));
    } else {
        setup.findings.clear();
    }
    let shut = shut(settings, system, &ground.loaded);
    let shut_out = shut_out::problems(settings, &ground.loaded, &shut);
    let plain = troubles::without_tls(settings, &ground.loaded);
    // Where the state isn't ours to see, nobody knows whose they are.
    let state = ground.state.as_ref().filter(|_| of_publisher.is_none());
    let found = state.map(|state| tableless(system, settings, Some(state))).unwrap_or_default();
    let without_table = found.iter().map(|found| troubles::tableless(settings, found)).collect::<Vec<_>>();
    let mut status = judged(settings, ground, haproxy, setup, now());
    shut_out::advise(&shut, &mut status.problems);
    status.problems.extend(shut_out.into_iter().chain(plain).chain(unserved).chain(lists));
    status.problems.extend(without_table);
    for (name, found) in &culprits {
        untried::advise(name, found, &status.sites, &mut status.problems);
    }
    for found in unworkable::problems(settings, system, &status.sites) {
        let of_sites = status.sites.iter_mut().flat_map(|site| &mut site.problems);
        for problem in status.problems.iter_mut().chain(of_sites) {
            problem.advice = found.instead(problem).or_else(|| problem.advice.take());
        }
        status.problems.push(found.problem);
    }
    match following::problems(settings, status.at) {
        Ok(problems) => status.problems.extend(problems),
        Err(failure) if status.unseen.contains(&failure.message) => {}
        Err(failure) => status.unseen.push(failure.message),
    }
    status.complete(&Given::of(settings));
    status
}

/// The verdict on what was seen.
fn judged(settings: &Settings, mut ground: Ground, haproxy: Vec<Running>, setup: Setup, now: i64) -> Status {
    let sees_state = ground.state.is_some();
    if let Sight::Here(run) = &mut ground.last_run {
        // What is no longer in the settings is nobody's.
        run.told.retain(|name, _| settings.haproxys.iter().any(|haproxy| haproxy.name == *name));
    }
    let publish_gone = publisher::publish_gone(&ground);
    let mut state = ground.state.unwrap_or_default();
    state.pass_debts_on(settings, None);
    let owed: Vec<BTreeMap<String, i64>> =
        settings.haproxys.iter().map(|haproxy| owed_files(&state, &haproxy.name)).collect();
    let client = Client::of(settings);
    let archive = settings.live_dir.with_file_name("archive");
    let foreign = ForeignFile::among(&ground.sites);
    let needs = Needs::of(settings, &ground.loaded, &ground.sites, now);
    let superfluous = circumstances::superfluous(&ground.sites);
    let around = Circumstances {
        now,
        sees_state,
        running: &haproxy,
        owed: &owed,
        archive: &archive,
        client,
        live_dir: &settings.live_dir,
        key_file: &settings.key_file,
        sites_dir: &settings.sites_dir,
        host_file: &settings.host_file,
        foreign: &foreign,
        superfluous: &superfluous,
        needs: &needs,
        live_is_missing: ground.live_is_missing,
        publish_gone,
        follows: settings.followed().is_some(),
    };
    let mut sites: Vec<Site> = ground.sites.into_iter().map(|views| judge(views, &around)).collect();
    renewals::note_renewals(settings, &mut sites, now);
    sites.sort_by_key(|site| std::cmp::Reverse(site.severity));
    let owed = owed_since(settings, &state);
    let mut problems: Vec<Problem> = haproxy.iter().filter_map(troubles::down).collect();
    problems.extend(haproxy.iter().filter_map(|running| troubles::refused(running, now)));
    problems.extend(haproxy.iter().filter_map(troubles::behind));
    problems.extend(haproxy.iter().filter_map(troubles::twin));
    problems.extend(haproxy.iter().filter_map(troubles::failed_reload));
    for (name, since) in &owed {
        let running = haproxy.iter().find(|running| running.name == *name);
        problems.extend(running.map(|running| judge::owed_problem(running, *since, now)));
    }
    problems.extend(setup.problems);
    let last_run = ground.last_run.here();
    problems.extend(troubles::failed_run(last_run, now));
    problems.extend(troubles::failed_publish(ground.last_publish.here(), now));
    problems.extend(ground.unwritable_sites.as_deref().map(troubles::cannot_deploy));
    problems.extend(ground.unwritable_cache.as_deref().map(troubles::cannot_publish));
    if !ground.last_run.is_unseen() {
        let at = last_run.map(|run| run.at);
        let longest = sites.iter().filter_map(Site::lifetime).max();
        let missed = judge::hook(&ground.renewals, at, now, client);
        let doubtful = || at.and_then(|at| judge::runs(at, longest, now, client));
        problems.extend(missed.or_else(doubtful));
    }
    problems.extend(ground.open_to_others.map(judge::open_to_others));
    Status {
        at: now,
        live_dir: settings.live_dir.clone(),
        sites_dir: settings.sites_dir.clone(),
        error: ground.error,
        sites,
        problems,
        haproxy,
        owed,
        last_run: ground.last_run,
        last_publish: ground.last_publish,
        unseen: ground.unseen,
        findings: setup.findings,
        client,
        edition: ground.edition,
    }
}

/// The files that a HAProxy is still to be notified of, and since when.
fn owed_files(state: &State, name: &str) -> BTreeMap<String, i64> {
    let Some(owed) = state.owed.get(name) else { return BTreeMap::new() };
    let files = owed.files.clone().unwrap_or_else(|| state.files.keys().cloned().collect());
    files.into_iter().map(|file| (file, owed.since)).collect()
}

/// Which HAProxys are still to be notified, and since when. Where the state was lost, all of them are.
fn owed_since(settings: &Settings, state: &State) -> BTreeMap<String, Option<i64>> {
    let since = |name: &String| match state.owed.get(name) {
        Some(owed) => Some(Some(owed.since)),
        None => state.lost.then_some(None),
    };
    let names = settings.haproxys.iter().map(|haproxy| &haproxy.name);
    names.filter_map(|name| Some((name.clone(), since(name)?))).collect()
}

impl Status {
    /// Every command that is printed acts on the same settings, and does what is done on this host.
    fn complete(&mut self, given: &Given) {
        let publishes = self.only_publishes();
        let of_sites = self.sites.iter_mut().flat_map(|site| &mut site.problems);
        for problem in self.problems.iter_mut().chain(of_sites) {
            let advice = problem.advice.take();
            let advice = advice.map(|advice| if publishes { advice::by_publishing(&advice) } else { advice });
            problem.advice = advice.map(|advice| given.put_into(&advice));
        }
        for line in self.findings.iter_mut().flat_map(|finding| &mut finding.mend) {
            *line = given.put_into(line);
        }
    }

    /// Whether nothing is deployed here: what counts is what is published.
    #[must_use]
    pub fn only_publishes(&self) -> bool {
        self.edition.as_ref().is_some_and(|edition| edition.is_all)
    }

    /// The last run with all that belongs to it: on a publisher it has published, too.
    #[must_use]
    pub fn whole_run(&self) -> Option<Cow<'_, LastRun>> {
        let run = self.last_run.here()?;
        Some(match self.last_publish.here() {
            Some(publish) => Cow::Owned(run.followed_by(publish)),
            None => Cow::Borrowed(run),
        })
    }

    /// How bad it is, all in all.
    #[must_use]
    pub fn severity(&self) -> Severity {
        let sites = self.sites.iter().map(|site| site.severity);
        let others = self.problems.iter().map(|problem| problem.severity);
        // Where there is no systemd to ask, say, the sites are seen all the same.
        let findings = self.findings.iter().map(|finding| finding.severity);
        let findings = findings.filter(|&severity| severity != Severity::Unknown);
        let is_blind = self.error.is_some() || self.all_unseen().next().is_some();
        let unseen = if is_blind { Severity::Unknown } else { Severity::Ok };
        sites.chain(others).chain(findings).chain([unseen]).max().unwrap_or(Severity::Ok)
    }

    /// Why places, or HAProxys that somebody wants to be seen, can't be seen.
    pub fn all_unseen(&self) -> impl Iterator<Item = String> {
        let is_blind = |running: &&Running| running.wanted && running.is_unseen();
        let haproxys = self.haproxy.iter().filter(|_| !self.sites.is_empty()).filter(is_blind);
        self.unseen.iter().cloned().chain(haproxys.map(Running::why_unseen))
    }

    /// The files that a HAProxy can't be seen to have, each with the HAProxy, whether anybody wants that to be seen or not.
    pub fn unseen_files(&self) -> impl Iterator<Item = (&Site, &Running)> {
        let running = |(site, at)| Some((site, self.haproxy.get(at)?));
        self.sites.iter().flat_map(|site| site.unseen_in().map(move |at| (site, at))).filter_map(running)
    }

    /// How many sites there are of each severity.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<Severity, usize> {
        let mut counts: BTreeMap<Severity, usize> =
            Severity::ALL.into_iter().map(|severity| (severity, 0)).collect();
        for site in &self.sites {
            *counts.entry(site.severity).or_default() += 1;
        }
        counts
    }

    /// The site whose certificate in use expires first, and when.
    #[must_use]
    pub fn first_to_expire(&self) -> Option<(&Site, i64)> {
        let ours = self.sites.iter().filter(|site| site.views.lineage.is_some() && !site.is_placeholder());
        ours.filter_map(|site| Some((site, site.expires()?))).min_by_key(|(_, at)| *at)
    }

    /// Every problem with the site that it is about, the worst first; what is owed counts once for each HAProxy.
    #[must_use]
    pub fn all_problems(&self) -> Vec<(Option<&Site>, &Problem)> {
        let general = self.problems.iter().map(|problem| (None, problem));
        let of_sites = self.sites.iter().flat_map(|site| {
            let own = site.problems.iter().filter(|problem| problem.kind != ProblemKind::ReloadOwed);
            own.map(move |problem| (Some(site), problem))
        });
        let mut all: Vec<_> =
            general.chain(of_sites).filter(|(_, problem)| problem.severity != Severity::Ok).collect();
        all.sort_by_key(|(_, problem)| std::cmp::Reverse(problem.severity));
        all
    }
}
