//! A status as text: for people, for browsers, for scripts, for monitoring plugins, for Prometheus. Pure, but for the text file.

pub mod html;
pub mod human;
pub mod json;
pub mod monitoring;
pub mod prometheus;
pub mod textfile;

use std::collections::{BTreeMap, BTreeSet};

use crate::output::fleet::{counted, head_words};
use crate::status::edition::LastEdition;
use crate::status::judge::Site;
use crate::status::observation::Sight;
use crate::status::severity::{ProblemKind, Severity};
use crate::status::{Status, advice};
use crate::sys::escape::escaped;

/// The verdict in one line, without its first word.
#[must_use]
pub fn verdict(status: &Status) -> String {
    let counts = status.counts();
    let foreign = status.sites.iter().filter(|site| is_foreign(site)).count();
    let all = status.sites.len() - foreign;
    let bad = status.sites.len() - counts.get(&Severity::Ok).copied().unwrap_or_default();
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, problem) in status.all_problems() {
        *kinds.entry(problem.kind.name()).or_default() += 1;
    }
    let (site, deploy) = if status.only_publishes() { ("lineage", "publish") } else { ("site", "deploy") };
    let sites = |count| counted(count, site);
    let mut parts = Vec::new();
    if let Some(error) = &status.error {
        parts.push(error.message.clone());
    }
    if !kinds.is_empty() {
        let kinds: Vec<String> = kinds
            .into_iter()
            .map(|(kind, count)| if count == 1 { kind.to_owned() } else { format!("{count} {kind}") })
            .collect();
        let sites = if bad == 0 { String::new() } else { format!("{bad} of {} not in step: ", sites(all)) };
        parts.push(format!("{sites}{}", kinds.join(", ")));
    } else if bad == 0 && status.unseen.is_empty() && status.error.is_none() {
        parts.push(match all {
            0 => format!("there is nothing to {deploy}"),
            _ => format!("{} in step", sites(all)),
        });
    } else {
        let seen = if bad == all { "nothing" } else { "not all" };
        let why = status.unseen.first().or_else(|| status.haproxy.iter().find_map(|it| it.unseen.as_ref()));
        let why = why.map(|why| format!(": {why}")).unwrap_or_default();
        parts.push(format!("{seen} can be seen{why}"));
    }
    let setup: BTreeSet<&str> = status
        .findings
        .iter()
        .filter(|finding| finding.severity > Severity::Unknown)
        .map(|finding| finding.name)
        .collect();
    if !setup.is_empty() {
        parts.push(format!("setup: {}", setup.into_iter().collect::<Vec<_>>().join(", ")));
    }
    if let Some((site, at)) = status.first_to_expire()
        && at > status.at
    {
        parts.push(format!("{} expires first, in {}", file(site), advice::span(at - status.at)));
    }
    parts.join("; ")
}

/// What a publisher published last, for display.
fn edition_line(edition: &LastEdition, at: i64) -> String {
    let LastEdition { fleet, store, head, lineages, is_all: _ } = edition;
    let head = match head {
        Sight::Here(signed) => {
            format!("{}, {}", head_words(&signed.head, at), counted(*lineages, "lineage"))
        }
        Sight::Absent => "nothing is published yet".to_owned(),
        Sight::Unseen | Sight::Damaged => "what is published can't be seen".to_owned(),
    };
    format!("{fleet}: {head}; store {store}")
}

/// Somebody else's file, which is no site of certbot's: nothing is wrong with it.
fn is_foreign(site: &Site) -> bool {
    site.severity == Severity::Ok && site.problems.iter().any(|problem| problem.kind == ProblemKind::Foreign)
}

/// A site's file, else its lineage, for display.
fn file(site: &Site) -> String {
    let name = site.views.file.as_ref().or(site.views.lineage.as_ref());
    escaped(name.map(|name| name.as_encoded_bytes()).unwrap_or_default()).to_string()
}
