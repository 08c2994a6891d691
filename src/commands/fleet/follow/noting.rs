//! What is said of a file in a report: a problem, or what is so for good and takes nothing from what is confirmed, as what the
//! settings leave out of the head, what another file takes the names of, and what expires.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;

use crate::commands::fleet::follow::Follower;
use crate::fleet::cache::{KeptException, Opened};
use crate::fleet::report::{EVERYTHING, LEFT_OUT};
use crate::output::Report;
use crate::plan::row::Row;
use crate::plan::warning::Warning;
use crate::status::Status;
use crate::status::judge::Site;
use crate::status::problem::Problem;
use crate::status::severity::{ProblemKind, Severity};

/// So many lineages that are left out are named.
const MOST_LEFT_OUT: usize = 50;

/// The most notes of another kind.
const MOST_NOTES: usize = 50;

impl Follower<'_> {
    /// The lineages of a head that the settings leave out.
    pub(super) fn left_out(&self, opened: &Opened) -> Vec<String> {
        let is_host = |name: &str| self.settings.host_lineage.as_deref().is_some_and(|host| *host == *name);
        let is_wanted = |name: &String| self.settings.selection.includes(OsStr::new(name)) || is_host(name);
        opened.entries.keys().filter(|name| !is_wanted(name)).cloned().collect()
    }

    /// Whether a run itself saw every HAProxy take what it changed, and nothing of it is to be noted.
    pub(super) fn says_it_all(&self, run: &Report) -> bool {
        let warnings = [Warning::Shadowed, Warning::Expired, Warning::ExpiresSoon];
        let may_note = |row: &Row| warnings.iter().any(|warning| row.warnings.has(*warning));
        self.has_seen_all(run) && !run.rows.iter().any(may_note)
    }
}

/// Whether a problem takes nothing from what is confirmed.
pub(super) fn is_note(site: Option<&Site>, problem: &Problem) -> bool {
    let Some(site) = site.filter(|site| site.views.lineage.is_some()) else { return false };
    match problem.kind {
        // Where the run fails for it, it is no state to stay.
        ProblemKind::Warned(Warning::Shadowed) => !site.views.row.as_ref().is_some_and(|row| row.alarming),
        ProblemKind::NotPresented => true,
        ProblemKind::Warned(Warning::Expired | Warning::ExpiresSoon) => {
            problem.severity == Severity::Critical
        }
        _ => false,
    }
}

/// A problem of the host's own status, for the report.
pub(super) fn exception(site: Option<&Site>, problem: &Problem) -> KeptException {
    let about = site.map_or_else(|| KeptException::of_everything("", String::new()), of_site);
    KeptException { problem: problem.kind.name().to_owned(), detail: problem.fact.clone(), ..about }
}

/// About a file, and what is served of it.
pub(super) fn of_site(site: &Site) -> KeptException {
    let lineage = site.views.lineage.as_ref();
    KeptException {
        lineage: lineage.map_or_else(|| EVERYTHING.to_owned(), |name| name.to_string_lossy().into_owned()),
        problem: String::new(),
        served: shown_serial(site),
        detail: String::new(),
    }
}

/// The serial number of what a HAProxy shows of a site.
fn shown_serial(site: &Site) -> Option<String> {
    site.views.haproxy.iter().find_map(|shown| shown.loaded.here()?.serial.clone())
}

/// The notes of a look.
pub(super) fn notes(looked: &Status, left_out: &[String]) -> Vec<KeptException> {
    let winners = OnceCell::new();
    let winners = || winners.get_or_init(|| Winners::of(looked));
    let named = left_out.iter().take(MOST_LEFT_OUT).map(|name| KeptException {
        lineage: name.clone(),
        problem: LEFT_OUT.to_owned(),
        served: winners().serial(name),
        detail: "the settings of this node leave it out".to_owned(),
    });
    let more = left_out.len().checked_sub(MOST_LEFT_OUT).filter(|more| *more > 0);
    let more = more.map(|more| {
        KeptException::of_everything(LEFT_OUT, format!("and {more} more that the settings leave out"))
    });
    let mut told = BTreeSet::new();
    let others = looked.all_problems().into_iter().filter_map(|(site, problem)| {
        let site = site.filter(|site| is_note(Some(site), problem))?;
        let note = exception(Some(site), problem);
        if !told.insert((note.lineage.clone(), note.problem.clone())) {
            return None;
        }
        let is_of_names =
            !matches!(problem.kind, ProblemKind::Warned(Warning::Expired | Warning::ExpiresSoon));
        Some(if is_of_names { KeptException { served: winners().instead(site), ..note } } else { note })
    });
    let others: Vec<KeptException> = others.take(MOST_NOTES).collect();
    named.chain(more).chain(others).collect()
}

/// Which site serves each name.
struct Winners<'a>(BTreeMap<String, &'a Site>);

impl<'a> Winners<'a> {
    fn of(looked: &'a Status) -> Self {
        let won = |site: &'a Site| {
            let names = site.views.row.as_ref().map(|row| row.names_won.to_vec()).unwrap_or_default();
            names.into_iter().map(move |name| (name, site))
        };
        Self(looked.sites.iter().flat_map(won).collect())
    }

    /// The serial number of what is served of a name.
    fn serial(&self, name: &str) -> Option<String> {
        let by_wildcard = || self.0.get(&format!("*.{}", name.split_once('.')?.1));
        let winner = self.0.get(name).or_else(by_wildcard)?;
        shown_serial(winner).or_else(|| winner.leaf().map(|leaf| leaf.serial.clone()))
    }

    /// The same of the first name that a site's file has lost.
    fn instead(&self, site: &Site) -> Option<String> {
        let won = site.views.row.as_ref()?.names_won.to_vec();
        let mut lost = site.leaf()?.served_names().filter(|name| !won.iter().any(|won| won == name));
        lost.find_map(|name| self.serial(name))
    }
}
