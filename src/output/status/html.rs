//! The status for browsers: what is in the middle of its page. Pure.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use askama::Template;

use super::{edition_line, human, verdict};
use crate::host_setup::finding::Finding;
use crate::output::json::timestamp;
use crate::output::page::{Fact, Frame, ProblemPart, mark, readable, rendered};
use crate::plan::names::is_loaded_name;
use crate::plan::row::Role;
use crate::status::Status;
use crate::status::advice::{day, span};
use crate::status::judge::Site;
use crate::status::problem::Problem;
use crate::status::running::Running;
use crate::status::severity::{PlaceState, Severity};
use crate::sys::escape::{escaped, escaped_path};

/// How wide the bar of a life is, in its own units.
const BAR: i64 = 1000;

/// What the page is about.
const TITLE: &str = "certificates of HAProxy";

/// The same where no HAProxy is.
const TITLE_OF_PUBLISHER: &str = "certificates for a fleet";

/// More names than these are folded.
const MOST_NAMES: usize = 6;

#[derive(Template)]
#[template(
    ext = "html",
    source = r#"
{%- if !problems.is_empty() %}
<section aria-labelledby="problems">
<h2 id="problems">Problems of the host</h2>
{%- for it in problems %}{{ it }}{% endfor %}
</section>
{%- endif %}
{%- if !sites.is_empty() %}
<section aria-labelledby="certificates">
<h2 id="certificates">Certificates</h2>
<p class="legend quiet"><span class="key past"></span> gone by <span class="key"></span> left <span class="key renewal"></span> renewal due <span class="key now"></span> now</p>
<ul class="sites">
{%- for site in sites %}
<li class="site {{ site.class }}">
<div class="what">
<h3><span class="mark" aria-hidden="true">{{ site.mark }}</span> {{ site.file }}</h3>
<p class="quiet">{{ site.word }}{% if let Some(key) = site.key %}, {{ key }}{% endif %}</p>
{%- if !site.names.is_empty() %}
<p class="names quiet">{{ site.names }}</p>
{%- endif %}
{%- if !site.more_names.is_empty() %}
<details class="quiet"><summary>all names</summary><p class="names">{{ site.more_names }}</p></details>
{%- endif %}
</div>
<div class="life">
{%- if let Some(life) = site.life %}
<p class="left">{{ life.left }}</p>
<svg viewBox="0 0 {{ BAR }} 10" preserveAspectRatio="none" aria-hidden="true" focusable="false">
<rect class="track" width="{{ BAR }}" height="10"/>
{%- if let Some(due) = life.due_at %}
<rect class="renewal" x="{{ due }}" width="{{ BAR - due }}" height="10"/>
{%- endif %}
<rect class="past" width="{{ life.now_at }}" height="10"/>
{%- if let Some(due) = life.due_at %}
<line class="due" x1="{{ due }}" x2="{{ due }}" y1="0" y2="10"/>
{%- endif %}
<line class="now" x1="{{ life.now_at }}" x2="{{ life.now_at }}" y1="0" y2="10"/>
</svg>
<p class="dates quiet"><span>from {{ life.begins }}</span> <span>until {{ life.ends }}</span>{% if let Some(due) = life.due %} <span>renewal due {{ due }}</span>{% endif %}</p>
{%- else %}
<p class="quiet">no certificate can be read</p>
{%- endif %}
</div>
<ul class="places">
{%- for place in site.places %}
<li class="{{ place.class }}"><span class="mark" aria-hidden="true">{{ place.mark }}</span> <span class="quiet">{{ place.name }}</span> {{ place.word }}</li>
{%- endfor %}
</ul>
{%- for it in site.problems %}{{ it }}{% endfor %}
</li>
{%- endfor %}
</ul>
</section>
{%- endif %}
{%- if !haproxys.is_empty() %}
<section aria-labelledby="haproxys">
<h2 id="haproxys">HAProxy</h2>
<ul class="lines">
{%- for it in haproxys %}
<li class="{{ it.class }}"><span class="mark" aria-hidden="true">{{ it.mark }}</span> <strong>{{ it.name }}</strong> {{ it.word }}</li>
{%- endfor %}
</ul>
</section>
{%- endif %}
{%- if !unseen.is_empty() %}
<section aria-labelledby="unseen">
<h2 id="unseen">Not to be seen</h2>
<ul class="lines">
{%- for what in unseen %}
<li class="unknown"><span class="mark" aria-hidden="true">?</span> {{ what }}</li>
{%- endfor %}
</ul>
</section>
{%- endif %}
{%- if !findings.is_empty() %}
<section aria-labelledby="setup">
<h2 id="setup">Setup</h2>
<ul class="lines">
{%- for it in findings %}
<li class="{{ it.class }}"><span class="mark" aria-hidden="true">{{ it.mark }}</span> <strong>{{ it.name }}</strong> {{ it.fact }}
{%- if !it.mend.is_empty() %}
<pre><code>{% for line in it.mend %}{{ line }}
{% endfor %}</code></pre>
{%- endif %}</li>
{%- endfor %}
</ul>
</section>
{%- endif %}"#
)]
struct Main<'a> {
    problems: Vec<ProblemPart>,
    sites: Vec<Card>,
    haproxys: Vec<Line>,
    unseen: &'a [String],
    findings: Vec<Setting<'a>>,
}

/// A certificate.
struct Card {
    class: &'static str,
    mark: &'static str,
    word: &'static str,
    file: String,
    key: Option<String>,
    names: String,
    more_names: String,
    life: Option<Life>,
    places: Vec<Line>,
    problems: Vec<ProblemPart>,
}

/// The life of the certificate in use, in days and in the bar's own units.
struct Life {
    begins: String,
    ends: String,
    due: Option<String>,
    now_at: i64,
    due_at: Option<i64>,
    left: String,
}

/// Something with a mark before it.
struct Line {
    class: &'static str,
    mark: &'static str,
    name: String,
    word: String,
}

/// What `--setup` found.
struct Setting<'a> {
    class: &'static str,
    mark: &'static str,
    name: &'static str,
    fact: &'a str,
    mend: &'a [String],
}

/// The page, without its last line end.
#[must_use]
pub fn text(status: &Status) -> String {
    let run = status.last_run.here();
    let told = |haproxy: &Running| run.and_then(|run| run.told.get(&haproxy.name)).map(|told| told.at);
    let main = Main {
        problems: status.problems.iter().map(trouble).collect(),
        sites: status.sites.iter().map(|site| card(site, status)).collect(),
        haproxys: status.haproxy.iter().map(|it| haproxy(it, status, told(it))).collect(),
        unseen: &status.unseen,
        findings: status.findings.iter().map(setting).collect(),
    };
    let fleet = status.edition.as_ref().map(|it| format!("the fleet {}", edition_line(it, status.at)));
    let sites_dir = (!status.only_publishes()).then(|| escaped_path(&status.sites_dir).to_string());
    let to: Vec<String> = sites_dir.into_iter().chain(fleet).collect();
    let runs: Vec<String> = human::last_run(status).into_iter().chain(human::last_publish(status)).collect();
    Frame {
        title: if status.only_publishes() { TITLE_OF_PUBLISHER } else { TITLE },
        severity: status.severity(),
        verdict: verdict(status),
        at: status.at,
        note: (!runs.is_empty()).then(|| runs.join(". ")),
        main: rendered(&main),
        from: Some(format!("from {} to {}", escaped_path(&status.live_dir), to.join(" and to "))),
    }
    .page()
}

/// The page where there were no settings to report on: an old one must not stay as if it were true.
#[must_use]
pub fn failure(message: &str, now: i64) -> String {
    crate::output::page::failure(TITLE, message, now)
}

fn trouble(problem: &Problem) -> ProblemPart {
    ProblemPart {
        class: problem.severity.name(),
        kind: problem.kind.name(),
        facts: vec![Fact { about: None, fact: problem.fact.clone() }],
        advice: problem.advice.clone().unwrap_or_default(),
    }
}

fn card(site: &Site, status: &Status) -> Card {
    let leaf = site.leaf();
    let names: Vec<String> = leaf
        .map(|leaf| leaf.names.iter().map(|name| escaped(name).to_string()).collect())
        .unwrap_or_default();
    let (first, is_more) = (names.iter().take(MOST_NAMES), names.len() > MOST_NAMES);
    let first = first.map(String::as_str).collect::<Vec<_>>().join(", ");
    Card {
        class: site.severity.name(),
        mark: mark(site.severity),
        word: site.severity.name(),
        file: human::file_cell(site),
        key: leaf.map(|leaf| leaf.key_type.to_string()),
        names: if is_more { format!("{first} and {} more", names.len() - MOST_NAMES) } else { first },
        more_names: if is_more { names.join(", ") } else { String::new() },
        life: life(site, status.at),
        places: places(site, status),
        problems: site
            .problems
            .iter()
            .filter(|problem| human::is_worth_a_line(problem, human::Detail::Normal))
            .map(trouble)
            .collect(),
    }
}

/// The life of the first of its certificates in use to expire.
fn life(site: &Site, now: i64) -> Option<Life> {
    let ends = site.expires()?;
    let mut of_haproxy = site.haproxy.iter().filter(|view| view.not_after == Some(ends));
    let of_leaf = site.leaf().filter(|leaf| leaf.not_after == ends).map(|leaf| leaf.not_before);
    let begins = of_leaf.or_else(|| of_haproxy.find_map(|view| view.not_before))?;
    // What certbot renews is what certbot has.
    let is_certbots = site.views.certbot.here().is_some_and(|leaf| leaf.not_after == ends);
    let due = site.renewal_due.filter(|due| is_certbots && (begins..ends).contains(due));
    let at = |moment: i64| {
        let whole = i128::from(ends) - i128::from(begins);
        let part = (i128::from(moment) - i128::from(begins)) * i128::from(BAR);
        i64::try_from(part / whole.max(1)).unwrap_or(BAR).clamp(0, BAR)
    };
    let left = ends.saturating_sub(now);
    Some(Life {
        begins: day(begins)?,
        ends: day(ends)?,
        due: due.and_then(day),
        now_at: at(now),
        due_at: due.map(at),
        left: if left > 0 { format!("{} left", span(left)) } else { format!("expired {} ago", span(-left)) },
    })
}

/// certbot or whoever renews, then the disk and all HAProxys, and the fleet.
fn places(site: &Site, status: &Status) -> Vec<Line> {
    let is_loaded = site.views.role == Role::Host || site.views.file.as_deref().is_some_and(is_loaded_name);
    let line = |name: &str, state, is_expected| {
        let word = human::place(state, is_expected);
        if word == "-" {
            return Line {
                class: "none",
                mark: "\u{2013}",
                name: name.to_owned(),
                word: "not expected".into(),
            };
        }
        let (class, mark) = match state {
            PlaceState::Current => (Severity::Ok.name(), mark(Severity::Ok)),
            PlaceState::Stale | PlaceState::Missing => (Severity::Critical.name(), mark(Severity::Critical)),
            PlaceState::Foreign | PlaceState::Unknown => (Severity::Unknown.name(), mark(Severity::Unknown)),
        };
        Line { class, mark, name: name.to_owned(), word }
    };
    let certbot = line(status.client.place(), site.certbot, site.views.lineage.is_some());
    let fleet = site.published.map(|state| line("fleet", state, true));
    if status.only_publishes() {
        return [certbot].into_iter().chain(fleet).collect();
    }
    let mut haproxy = line("HAProxy", site.all_haproxys(), is_loaded && !site.haproxy.is_empty());
    if let Some(word) = human::served(site) {
        (haproxy.class, haproxy.mark) = (Severity::Warning.name(), mark(Severity::Warning));
        word.clone_into(&mut haproxy.word);
    } else if site.haproxy.len() > 1 && haproxy.class != "none" {
        let each = |view: &crate::status::judge::HaproxyView| {
            format!("{} {}", escaped(&view.name), view.state.name())
        };
        haproxy.word = site.haproxy.iter().map(each).collect::<Vec<_>>().join(", ");
    }
    let disk = line("disk", site.disk, site.views.file.is_some());
    [certbot, disk, haproxy].into_iter().chain(fleet).collect()
}

fn haproxy(it: &Running, status: &Status, told: Option<i64>) -> Line {
    let mut words = Vec::new();
    let severity = if it.down.is_some() {
        words.push("does not run".to_owned());
        Severity::Critical
    } else if it.refused.is_some() {
        words.push("refuses its configuration".to_owned());
        Severity::Critical
    } else if it.is_unseen() {
        words.push(if it.wanted { "can't be seen" } else { "is not looked at" }.to_owned());
        if it.wanted { Severity::Unknown } else { Severity::Ok }
    } else {
        let by = [("the Runtime API", it.loaded), ("handshakes", it.presented)];
        let by: Vec<&str> = by.into_iter().filter_map(|(way, seen)| seen.then_some(way)).collect();
        words.push(format!("seen by {}", by.join(" and ")));
        Severity::Ok
    };
    if let Some(why) = it.unseen.as_ref().filter(|_| it.wanted && it.down.is_none()) {
        words.push(why.clone());
    }
    let mut severity = severity;
    if let Some(since) = status.owed.get(&it.name) {
        severity = severity.max(Severity::Warning);
        words.push(match since.and_then(timestamp) {
            Some(since) => format!("a notification is pending since {}", readable(&since)),
            None => "a notification is pending".to_owned(),
        });
    }
    if let Some(at) = told.and_then(timestamp) {
        words.push(format!("last notified {}", readable(&at)));
    }
    Line {
        class: severity.name(),
        mark: mark(severity),
        name: escaped(&it.name).to_string(),
        word: words.join("; "),
    }
}

fn setting(finding: &Finding) -> Setting<'_> {
    let Finding { name, severity, fact, mend } = finding;
    Setting { class: severity.name(), mark: mark(*severity), name, fact, mend }
}
