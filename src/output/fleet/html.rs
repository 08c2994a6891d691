//! `fleet status` for browsers: what is in the middle of its page. Pure.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;

use askama::Template;

use super::matrix::{Matrix, matrix};
use super::{head_line, serves, verdict};
use crate::certified_key::hex;
use crate::fleet::overview::{FleetOverview, FleetProblem, NodeRow, NodeState};
use crate::fleet::trouble::FleetTrouble;
use crate::output::json::timestamp;
use crate::output::page::{Fact, Frame, ProblemPart, mark, readable, rendered};
use crate::status::advice::{Given, span};
use crate::status::severity::Severity;
use crate::sys::escape::escaped;

/// What the page of a fleet without a name is about.
const TITLE: &str = "the fleet";

#[derive(Template)]
#[template(
    ext = "html",
    source = r#"
{%- macro edge(it) -%}
{%- if let Some(severity) = it.severity %}<span class="{{ severity.name() }}"><span class="mark" aria-hidden="true">{{ self::mark_of(severity) }}</span></span> {% endif %}{{ it.name }}
{%- if let Some(serial) = it.serial %} <span class="note quiet">serial <span class="serial">{{ serial }}</span></span>{% endif %}
{%- for note in it.notes %} <span class="note quiet">{{ note }}</span>{% endfor %}
{%- endmacro -%}
{%- macro cell(it) -%}
{%- if it.said.is_empty() %} <span class="quiet">{{ NOTHING }}</span>{% endif %}
{%- for said in it.said %}
<div class="said {{ said.severity.name() }}"><span class="mark" aria-hidden="true">{{ self::mark_of(said.severity) }}</span> <span class="word">{{ said.word }}</span>
{%- if let Some(serial) = said.serves %} <span class="note quiet">serves <span class="serial">{{ serial }}</span></span>{% endif %}
{%- if !said.detail.is_empty() %} <span class="note quiet">{{ said.detail }}</span>{% endif %}</div>
{%- endfor %}
{%- endmacro -%}
{%- if !problems.is_empty() %}
<section aria-labelledby="problems">
<h2 id="problems">Problems</h2>
{%- for it in problems %}
{{ it }}
{%- endfor %}
</section>
{%- endif %}
{%- if let Some(matrix) = matrix %}
<section aria-labelledby="matrix">
<h2 id="matrix">Who serves what</h2>
{%- if matrix.columns.is_empty() %}
<table class="grid" role="table" aria-labelledby="matrix">
<thead role="rowgroup"><tr role="row"><th role="columnheader" scope="col">{{ matrix.corner }}</th><th role="columnheader" scope="col">On its nodes</th></tr></thead>
<tbody role="rowgroup">
{%- for row in matrix.rows %}
<tr role="row"><th role="rowheader" scope="row">{% call edge(row.edge) %}{% endcall %}</th>
<td role="cell" class="many"><ul class="chips">
{%- for it in row.cells %}
<li><b>{{ it.of }}</b> {% call cell(it) %}{% endcall %}</li>
{%- endfor %}
</ul></td></tr>
{%- endfor %}
</tbody>
</table>
{%- else %}
<table class="grid{% if matrix.is_wide() %} wide{% endif %}" role="table" aria-labelledby="matrix">
<thead role="rowgroup"><tr role="row"><th role="columnheader" scope="col">{{ matrix.corner }}</th>
{%- for it in matrix.columns %}
<th role="columnheader" scope="col">{% call edge(it) %}{% endcall %}</th>
{%- endfor %}</tr></thead>
<tbody role="rowgroup">
{%- for row in matrix.rows %}
<tr role="row"><th role="rowheader" scope="row">{% call edge(row.edge) %}{% endcall %}</th>
{%- for it in row.cells %}
<td role="cell"><b class="of" aria-hidden="true">{{ it.of }}</b> {% call cell(it) %}{% endcall %}</td>
{%- endfor %}</tr>
{%- endfor %}
</tbody>
</table>
{%- endif %}
{%- if !matrix.others.is_empty() %}
<details class="others"><summary>The lineages that have no row of their own</summary>
<ul class="names quiet">
{%- for it in matrix.others %}
<li><b>{{ it.name }}</b>{% if let Some(serial) = it.serial %}, serial {{ serial }}{% endif %}{% for note in it.notes %}, {{ note }}{% endfor %}</li>
{%- endfor %}
{%- if matrix.unlisted > 0 %}
<li>and {{ matrix.unlisted }} more</li>
{%- endif %}
</ul></details>
{%- endif %}
</section>
{%- endif %}
{%- if !nodes.is_empty() %}
<section aria-labelledby="nodes">
<h2 id="nodes">Nodes</h2>
<table class="grid" role="table" aria-labelledby="nodes">
<thead role="rowgroup"><tr role="row">
{%- for name in COLUMNS %}<th role="columnheader" scope="col">{{ name }}</th>{% endfor -%}
</tr></thead>
<tbody role="rowgroup">
{%- for it in nodes %}
<tr role="row" class="{{ it.severity.name() }}"><th role="rowheader" scope="row"><span class="mark" aria-hidden="true">{{ self::mark_of(it.severity) }}</span> {{ it.name }} <span class="note quiet">{{ it.severity.name() }}</span></th>
{%- for (of, text, note) in it.cells() %}
<td role="cell"><b class="of" aria-hidden="true">{{ of }}</b> {{ text }}{% if !note.is_empty() %} <span class="note quiet">{{ note }}</span>{% endif %}</td>
{%- endfor %}</tr>
{%- endfor %}
</tbody>
</table>
</section>
{%- endif %}
{%- if let Some(head) = head %}
<section aria-labelledby="head">
<h2 id="head">The head in the store</h2>
<dl class="facts">
{%- for (name, text) in head %}
<div><dt>{{ name }}</dt><dd>{{ text }}</dd></div>
{%- endfor %}
</dl>
</section>
{%- endif %}"#
)]
struct Main {
    problems: Vec<ProblemPart>,
    matrix: Option<Matrix>,
    nodes: Vec<NodeLine>,
    head: Option<Vec<(&'static str, String)>>,
}

/// The columns of the table of nodes.
const COLUMNS: [&str; 6] = ["Node", "Has", "Since", "Reported", "Serves", "Program"];

/// What stands where there is nothing to say.
const NOTHING: &str = "\u{2013}";

/// A node in its table.
struct NodeLine {
    severity: Severity,
    name: String,
    /// Under each column but the first: the text, and a note.
    texts: [(String, String); 5],
}

impl NodeLine {
    fn cells(&self) -> impl Iterator<Item = (&'static str, &str, &str)> {
        let columns = COLUMNS.into_iter().skip(1);
        columns.zip(&self.texts).map(|(of, (text, note))| (of, text.as_str(), note.as_str()))
    }
}

/// The page, without its last line end; its commands act on the same settings as this one did.
#[must_use]
pub fn text(overview: &FleetOverview, given: &Given) -> String {
    let mut nodes: Vec<&NodeRow> = overview.nodes.iter().collect();
    nodes.sort_by_key(|node| std::cmp::Reverse(node.severity()));
    let main = Main {
        problems: problems(overview, given),
        matrix: matrix(overview),
        nodes: nodes.into_iter().map(|node| node_line(node, overview)).collect(),
        head: head(overview),
    };
    Frame {
        title: &format!("{TITLE} {}", overview.fleet),
        severity: overview.severity(),
        verdict: verdict(overview),
        at: overview.at,
        note: Some(head_line(overview)),
        main: rendered(&main),
        from: None,
    }
    .page()
}

/// The page where there was nothing to report on.
#[must_use]
pub fn failure(message: &str, now: i64) -> String {
    crate::output::page::failure(TITLE, message, now)
}

/// The problems, the worst first; what is to be done about several nodes is said once.
fn problems(overview: &FleetOverview, given: &Given) -> Vec<ProblemPart> {
    let mut all: Vec<(&FleetProblem, Vec<Fact>)> = Vec::new();
    let mut places: BTreeMap<(FleetTrouble, Severity, &str), usize> = BTreeMap::new();
    for (node, problem) in overview.all_problems() {
        let fact =
            Fact { about: node.map(|node| node.name.clone()), fact: escaped(&problem.fact).to_string() };
        let what = (problem.trouble, problem.severity, problem.advice());
        let place = *places.entry(what).or_insert(all.len());
        match all.get_mut(place) {
            Some((_, facts)) => facts.push(fact),
            None => all.push((problem, vec![fact])),
        }
    }
    all.into_iter()
        .map(|(problem, facts)| ProblemPart {
            class: problem.severity.name(),
            kind: problem.trouble.name(),
            facts,
            advice: given.put_into(problem.advice()),
        })
        .collect()
}

fn node_line(node: &NodeRow, overview: &FleetOverview) -> NodeLine {
    let when = |at: i64| timestamp(at).map(|at| readable(&at)).unwrap_or_default();
    let serves = serves(node);
    let texts = match &node.report {
        None => {
            let (has, reported) =
                if node.state() == NodeState::Missing { ("none", "never") } else { ("unknown", "unknown") };
            [has, NOTHING, reported, &serves, NOTHING].map(|text| (text.to_owned(), String::new()))
        }
        Some(report) => {
            let has = report.number().map_or("none".to_owned(), |number| format!("number {number}"));
            let is_current = if node.is_current { "the store's head" } else { "not the store's head" };
            let confirmed = if report.confirmed { "confirmed" } else { "not confirmed" };
            let omitted = if report.omitted > 0 {
                format!(", {} exceptions without room in its report", report.omitted)
            } else {
                String::new()
            };
            let since = if report.since > 0 { when(report.since) } else { NOTHING.to_owned() };
            let age = format!("{} ago", span((overview.at - report.time).max(0)));
            let confirmed = if serves == confirmed { omitted } else { format!("{confirmed}{omitted}") };
            [
                (has, is_current.to_owned()),
                (since, String::new()),
                (age, when(report.time)),
                (serves, confirmed),
                (escaped(&report.program).to_string(), String::new()),
            ]
        }
    };
    NodeLine { severity: node.severity(), name: node.name.clone(), texts }
}

fn head(overview: &FleetOverview) -> Option<Vec<(&'static str, String)>> {
    let signed = overview.head.as_ref()?;
    let when = |at: i64| timestamp(at).map(|at| readable(&at)).unwrap_or_default();
    Some(vec![
        ("Number", signed.head.sequence.to_string()),
        ("Signed", when(signed.head.signed)),
        ("Counts until", when(signed.head.expires)),
        ("Epoch", signed.head.epoch.to_string()),
        ("Publisher", signed.publisher.to_string()),
        ("SHA-256", hex(&signed.hash)),
    ])
}

/// [`mark`] as a template calls it.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "a template's expressions are references")]
fn mark_of(severity: &Severity) -> &'static str {
    mark(*severity)
}
