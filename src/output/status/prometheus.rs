//! The status for Prometheus, in the text exposition format.
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fmt::{Display, Write};

use super::Status;
use crate::plan::action::Action;
use crate::status::judge::Site;
use crate::status::observation::Sight;
use crate::status::severity::{PlaceState, Severity};
use crate::sys::escape::escaped;

/// A label and its value.
type Label<'a> = (&'static str, &'a str);

const STATE: &str = "The state of all sites: 0 ok, 1 warning, 2 critical, 3 unknown.";

/// The metrics, each line with its end.
#[must_use]
pub fn text(status: &Status) -> String {
    let mut page = Page::default();
    page.gauge("build_info", "The version of haproxy-certs, as a label.");
    page.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);

    page.gauge("state", STATE);
    page.sample(&[], status.severity().code());

    page.gauge("status_timestamp_seconds", "When this status was taken.");
    page.sample(&[], status.at);

    page.gauge("sites", "How many sites there are of each severity.");
    for (severity, count) in status.counts() {
        page.sample(&[("severity", severity.name())], count);
    }
    sites(&mut page, status);
    setup(&mut page, status);
    runs(&mut page, status);
    page.text
}

/// The metrics where the settings can't be used: nothing is known but that.
#[must_use]
pub fn failure(now: i64) -> String {
    let mut page = Page::default();
    page.gauge("build_info", "The version of haproxy-certs, as a label.");
    page.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    page.gauge("state", STATE);
    page.sample(&[], Severity::Unknown.code());
    page.gauge("status_timestamp_seconds", "When this status was taken.");
    page.sample(&[], now);
    page.text
}

/// What there is for each site, and for each of its places.
fn sites(page: &mut Page, status: &Status) {
    let called = Named::of(&status.sites);
    let names: Vec<(String, String)> = status.sites.iter().map(|site| called.labels(site)).collect();
    let all = || status.sites.iter().zip(&names);

    let mut place_gauge =
        |name: &'static str, help: &'static str, value: &dyn Fn(&Place<'_>) -> Option<i64>| {
            page.gauge(name, help);
            for (site, (lineage, file)) in all() {
                for place in places(site) {
                    if let Some(value) = value(&place) {
                        page.sample(&place.labels(lineage, file), value);
                    }
                }
            }
        };
    place_gauge(
        "certificate_not_after_timestamp_seconds",
        "When the certificate in this place expires.",
        &|place| place.not_after,
    );
    place_gauge(
        "certificate_not_before_timestamp_seconds",
        "From when the certificate in this place is valid.",
        &|place| place.not_before,
    );
    place_gauge(
        "in_step",
        "1 if up to date with its source (disk and fleet with certbot, HAProxy with the disk), 0 if not; absent if unknown.",
        &|place| match place.state {
            PlaceState::Current => Some(1),
            PlaceState::Stale | PlaceState::Missing => Some(0),
            PlaceState::Foreign | PlaceState::Unknown => None,
        },
    );
    page.gauge("refused", "Whether the lineage is refused: what is deployed stays as it is.");
    for (site, (lineage, file)) in all().filter(|(site, _)| site.views.lineage.is_some()) {
        let Some(row) = &site.views.row else { continue };
        page.sample(&[("lineage", lineage), ("file", file)], u8::from(row.action == Action::Refuse));
    }
    page.gauge("problem", "Always 1: a problem of a site, or of all of them where the file is empty.");
    let mut said = BTreeSet::new();
    for (site, problem) in status.all_problems() {
        let (lineage, file) = site.map(|site| called.labels(site)).unwrap_or_default();
        let labels = [
            ("lineage", lineage.as_str()),
            ("file", file.as_str()),
            ("problem", problem.kind.name()),
            ("severity", problem.severity.name()),
            ("haproxy", problem.haproxy.as_deref().unwrap_or_default()),
        ];
        if said.insert(labels.map(|(_, value)| value.to_owned())) {
            page.sample(&labels, 1);
        }
    }
}

/// What `--setup` found.
fn setup(page: &mut Page, status: &Status) {
    if status.findings.is_empty() {
        return;
    }
    page.gauge("setup", "How many findings of --setup there are of each name and severity.");
    let mut counts: BTreeMap<(&str, Severity), usize> = BTreeMap::new();
    for finding in &status.findings {
        *counts.entry((finding.name, finding.severity)).or_default() += 1;
    }
    for ((name, severity), count) in counts {
        page.sample(&[("name", name), ("severity", severity.name())], count);
    }
}

/// What there is for each HAProxy, and of the last run.
fn runs(page: &mut Page, status: &Status) {
    page.gauge("haproxy_seen", "Whether what this HAProxy serves can be seen.");
    for haproxy in &status.haproxy {
        page.sample(&[("haproxy", &haproxy.name)], u8::from(!haproxy.is_unseen()));
    }
    page.gauge("haproxy_down", "Whether this HAProxy should run and does not.");
    for haproxy in &status.haproxy {
        page.sample(&[("haproxy", &haproxy.name)], u8::from(haproxy.down.is_some()));
    }
    page.gauge("reload_owed", "1 if this HAProxy is waiting for an update, else 0.");
    for haproxy in &status.haproxy {
        page.sample(&[("haproxy", &haproxy.name)], u8::from(status.owed.contains_key(&haproxy.name)));
    }
    let since: Vec<(&String, i64)> =
        status.owed.iter().filter_map(|(name, since)| Some((name, (*since)?))).collect();
    if !since.is_empty() {
        page.gauge(
            "reload_owed_since_timestamp_seconds",
            "Since when this HAProxy has been waiting for an update.",
        );
        for (name, since) in since {
            page.sample(&[("haproxy", name)], since);
        }
    }
    // Where there is something to deploy it is known that nothing ran, too: an alert can't see what isn't there.
    let at = match &status.last_run {
        Sight::Here(run) => run.at,
        Sight::Absent if status.sites.iter().any(|site| site.views.lineage.is_some()) => 0,
        _ => return,
    };
    page.gauge(
        "last_run_timestamp_seconds",
        "When the last run of assemble or fleet publish ended, 0 if none is recorded.",
    );
    page.sample(&[], at);
    let Some(run) = status.whole_run() else { return };
    page.gauge("last_run_exit_status", "The exit status of the last run of assemble or fleet publish.");
    page.sample(&[], run.exit);
    page.gauge(
        "last_success_timestamp_seconds",
        "When the last run of assemble or fleet publish ended with everything in step, 0 if none did.",
    );
    page.sample(&[], run.succeeded);
    if run.told.is_empty() {
        return;
    }
    page.gauge("last_reload_timestamp_seconds", "When this HAProxy was last notified.");
    for (name, told) in &run.told {
        page.sample(&[("haproxy", name), ("method", told.method.name())], told.at);
    }
    page.gauge("last_reload_success", "1 if this HAProxy took its last notification, else 0.");
    for (name, told) in &run.told {
        page.sample(&[("haproxy", name), ("method", told.method.name())], u8::from(told.worked()));
    }
}

/// One place of a site.
struct Place<'a> {
    is: &'static str,
    haproxy: &'a str,
    state: PlaceState,
    not_before: Option<i64>,
    not_after: Option<i64>,
}

impl<'a> Place<'a> {
    fn labels<'b>(&'b self, lineage: &'b str, file: &'b str) -> [Label<'b>; 4]
    where
        'a: 'b,
    {
        [("lineage", lineage), ("file", file), ("place", self.is), ("haproxy", self.haproxy)]
    }
}

fn places(site: &Site) -> Vec<Place<'_>> {
    let certbot = site.views.certbot.here();
    // A placeholder expired before it was made: nobody is to be woken by that.
    let disk = site.views.disk.here().filter(|_| !site.is_placeholder());
    let mut places = Vec::new();
    if site.views.lineage.is_some() {
        places.push(Place {
            is: "certbot",
            haproxy: "",
            state: site.certbot,
            not_before: certbot.map(|leaf| leaf.not_before),
            not_after: certbot.map(|leaf| leaf.not_after),
        });
    }
    if let Some(state) = site.published {
        let entry = site.views.in_edition();
        // What is published is known by its serial and its end.
        let leaf = certbot.filter(|_| state == PlaceState::Current);
        places.push(Place {
            is: "fleet",
            haproxy: "",
            state,
            not_before: leaf.map(|leaf| leaf.not_before),
            not_after: entry.map(|entry| entry.not_after),
        });
    }
    if site.views.file.is_some() {
        places.push(Place {
            is: "disk",
            haproxy: "",
            state: site.disk,
            not_before: disk.map(|leaf| leaf.not_before),
            not_after: disk.map(|leaf| leaf.not_after),
        });
        places.extend(site.haproxy.iter().map(|view| Place {
            is: "haproxy",
            haproxy: &view.name,
            state: view.state,
            not_before: view.not_before,
            not_after: view.not_after,
        }));
    }
    places
}

/// What the sites are called: lineage and file. A series goes on as long as it is the same site's, and is no other's.
struct Named {
    /// What several sites would be called.
    shared: BTreeSet<(String, String)>,
}

impl Named {
    fn of(sites: &[Site]) -> Self {
        let (mut seen, mut shared) = (BTreeSet::new(), BTreeSet::new());
        for names in sites.iter().map(names) {
            if seen.contains(&names) {
                shared.insert(names);
            } else {
                seen.insert(names);
            }
        }
        Self { shared }
    }

    fn labels(&self, site: &Site) -> (String, String) {
        let names = names(site);
        match &site.views.place.inside {
            Some(inside) if self.shared.contains(&names) => {
                let (lineage, file) = names;
                (lineage, format!("{}:{file}", escaped(&inside.haproxy)))
            }
            _ => names,
        }
    }
}

/// Of a HAProxy that has another root directory the path that it has there: process ids don't stay.
fn names(site: &Site) -> (String, String) {
    let text = |name: Option<&OsStr>| escaped(name.unwrap_or_default().as_encoded_bytes()).to_string();
    let file = match &site.views.place.inside {
        Some(inside) => Some(inside.path.as_os_str()),
        // An empty one would be no site's.
        None if site.views.file.is_none() && site.published.is_some() => site.views.lineage.as_deref(),
        None => site.views.file.as_deref(),
    };
    (text(site.views.lineage.as_deref()), text(file))
}

/// The text as far as it is written.
#[derive(Default)]
pub(crate) struct Page {
    pub(crate) text: String,
    metric: &'static str,
}

impl Page {
    /// Begins a metric.
    pub(crate) fn gauge(&mut self, metric: &'static str, help: &str) {
        self.metric = metric;
        let _ =
            writeln!(self.text, "# HELP haproxy_certs_{metric} {help}\n# TYPE haproxy_certs_{metric} gauge");
    }

    pub(crate) fn sample(&mut self, labels: &[Label<'_>], value: impl Display) {
        let _ = write!(self.text, "haproxy_certs_{}", self.metric);
        for (at, (label, value)) in labels.iter().enumerate() {
            let _ = write!(self.text, "{}{label}=\"", if at == 0 { '{' } else { ',' });
            for letter in value.chars() {
                match letter {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    // Fit for a terminal, as everywhere.
                    letter if letter.is_control() => {
                        let _ = write!(self.text, "\\\\x{:02x}", u32::from(letter));
                    }
                    letter => self.text.push(letter),
                }
            }
            self.text.push('"');
        }
        let _ = writeln!(self.text, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }
}
