//! The frame of every page for browsers, and the parts that they share: a page needs nothing else, neither scripts nor
//! another file. Pure.
//!
//! Everything from outside is escaped by the template engine; what is safe without that is the style, and what a template
//! rendered.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use askama::Template;
use askama::filters::HtmlSafe;

use crate::output::json::timestamp;
use crate::status::advice::{Part, parts};
use crate::status::severity::Severity;

/// Of which version the page is.
const VERSION: &str = env!("HAPROXY_CERTS_VERSION");

/// What browsers show before anything is known of the page, and all of its looks.
const STYLE: &str = include_str!("page.css");

/// More facts about one problem are folded; on paper they aren't.
const MOST_FACTS: usize = 8;

/// A page: the verdict, what is in its middle, and the version.
#[derive(Debug, Template)]
#[template(
    ext = "html",
    source = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{{ self.word() }}: {{ title }}</title>
<style>
{{ STYLE|safe }}</style>
</head>
<body>
<header class="{{ severity.name() }}">
<h1><span class="mark" aria-hidden="true">{{ self::mark(*severity) }}</span> {{ self.word() }}</h1>
<p class="verdict">{{ verdict }}</p>
<p class="quiet">Seen {% if let Some(at) = self::timestamp(*at) %}<time datetime="{{ at }}">{{ self::readable(at) }}</time>{% endif %}
{%- if let Some(note) = note %}. {{ note }}{% endif %}</p>
</header>
<main>{{ main|safe }}
</main>
<footer class="quiet"><p>haproxy-certs {{ VERSION }}{% if let Some(from) = from %}, {{ from }}{% endif %}</p></footer>
</body>
</html>"#
)]
pub struct Frame<'a> {
    /// What the page is about.
    pub title: &'a str,
    /// How bad it is.
    pub severity: Severity,
    /// The verdict, without its first word.
    pub verdict: String,
    /// When it was seen, in seconds since 1970.
    pub at: i64,
    /// A sentence under the verdict, without its full stop.
    pub note: Option<String>,
    /// What is in the middle: text that a template rendered.
    pub main: String,
    /// Where it is from, under the page.
    pub from: Option<String>,
}

impl Frame<'_> {
    /// The page, without its last line end.
    #[must_use]
    pub fn page(&self) -> String {
        rendered(self)
    }

    fn word(&self) -> String {
        self.severity.name().to_ascii_uppercase()
    }
}

/// A problem and what to do about it, as a part of a page.
#[derive(Debug, Template)]
#[template(
    ext = "html",
    source = r#"
{%- macro fact(it) -%}
{%- if let Some(about) = it.about %}<b>{{ about }}</b>{% if !it.fact.is_empty() %}: {% endif %}{% endif %}{{ it.fact }}
{%- endmacro -%}
<div class="problem {{ class }}">
<p><strong>{{ kind }}</strong>
{%- if facts.len() > 1 %}, {{ facts.len() }} times{% endif %}
{%- if let [it] = facts.as_slice() %}{% if !it.is_empty() %}: {% call fact(it) %}{% endcall %}{% endif %}{% endif %}</p>
{%- if !advice.is_empty() %}
<p class="advice"><span class="quiet">What to do:</span> {% for part in self::parts(advice) -%}
{%- match part %}{% when Part::Words with (words) %}{{ words }}{% when Part::Command with (command) %}<code>{{ command }}</code>{% endmatch -%}
{%- endfor %}</p>
{%- endif %}
{%- if facts.len() > 1 %}
<ul>
{%- for it in self.first() %}
<li>{% call fact(it) %}{% endcall %}</li>
{%- endfor %}
</ul>
{%- if !self.others().is_empty() %}
<details><summary>and {{ self.others().len() }} more</summary>
<ul>
{%- for it in self.others() %}
<li>{% call fact(it) %}{% endcall %}</li>
{%- endfor %}
</ul></details>
{%- endif %}
{%- endif %}
</div>"#
)]
pub struct ProblemPart {
    /// How bad it is.
    pub class: &'static str,
    /// What it is.
    pub kind: &'static str,
    /// What was seen, of each that it is about.
    pub facts: Vec<Fact>,
    /// What to do; empty: nothing.
    pub advice: String,
}

impl HtmlSafe for ProblemPart {}

impl ProblemPart {
    fn first(&self) -> &[Fact] {
        self.facts.get(..MOST_FACTS).unwrap_or(&self.facts)
    }

    fn others(&self) -> &[Fact] {
        self.facts.get(MOST_FACTS..).unwrap_or_default()
    }
}

/// What was seen.
#[derive(Debug)]
pub struct Fact {
    /// Of whom; `None`: of what the problem stands under.
    pub about: Option<String>,
    /// The fact.
    pub fact: String,
}

impl Fact {
    fn is_empty(&self) -> bool {
        self.about.is_none() && self.fact.is_empty()
    }
}

/// The page where there was nothing to report on: an old one must not stay as if it were true.
#[must_use]
pub fn failure(title: &str, message: &str, now: i64) -> String {
    let verdict = message.to_owned();
    let severity = Severity::Unknown;
    Frame { title, severity, verdict, at: now, note: None, main: String::new(), from: None }.page()
}

/// What a template makes of it, without blanks at its end: writing to a string can't fail, and nothing in the templates does.
#[must_use]
pub fn rendered(template: &impl Template) -> String {
    template.render().map_or_else(|e| e.to_string(), |text| text.trim_end().to_owned())
}

/// A time of RFC 3339 for people.
#[must_use]
pub fn readable(at: &str) -> String {
    at.replace('T', " ").replace('Z', " UTC")
}

/// A colour alone says nothing to some, and nothing on paper.
#[must_use]
pub fn mark(severity: Severity) -> &'static str {
    match severity {
        Severity::Ok => "\u{2713}",
        Severity::Unknown => "?",
        Severity::Warning => "!",
        Severity::Critical => "\u{2717}",
    }
}
