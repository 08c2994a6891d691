//! `fleet status --format html`: it says what the other formats say, whatever the fleet's size, and nothing that a node
//! writes is more than text.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may fail loudly")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use haproxy_certs::fleet::former::FormerKeys;
use haproxy_certs::fleet::head::{Head, SignedHead};
use haproxy_certs::fleet::identity::HostIdentity;
use haproxy_certs::fleet::name::{FleetName, NodeName};
use haproxy_certs::fleet::node_key::NodeKey;
use haproxy_certs::fleet::overview::{
    FleetOverview, HeadLineage, HeadLineages, NodeState, node_row, problem,
};
use haproxy_certs::fleet::report::{NodeReport, ReportedException};
use haproxy_certs::fleet::trouble::FleetTrouble;
use haproxy_certs::output::fleet::html;
use haproxy_certs::status::advice::Given;
use serde_json::Value;
use support::Kind;
use support::fleet::Fleet;
use support::page::{elements, needs_nothing, needs_nothing_but, words};

/// When the fleets of this test are looked at: 2026-11-30T23:00:00Z.
const NOW: i64 = 1_796_079_600;

const MINUTE: i64 = 60;
const DAY: i64 = 24 * 60 * MINUTE;

/// A fleet that nobody runs, as it would be seen.
struct Scene {
    keys: HostIdentity,
    fleet: FleetName,
    overview: FleetOverview,
}

impl Scene {
    fn new(lineages: usize) -> Self {
        let place = tempfile::tempdir().unwrap();
        let (keys, _) = HostIdentity::load_or_create(&place.path().join("identity"), "pub").unwrap();
        let fleet: FleetName = "edge".parse().unwrap();
        let head = Head {
            fleet: fleet.clone(),
            sequence: 42,
            signed: NOW - 60 * MINUTE,
            expires: NOW + 34 * 60 * MINUTE,
            epoch: 3,
            epoch_key: [7; 32],
            prune_many: false,
            nodes: [3; 32],
            pages: vec![[1; 32]],
        };
        let signed = SignedHead::read(&head.sign(keys.signing())).unwrap();
        let all: BTreeMap<String, HeadLineage> = (0..lineages)
            .map(|at| {
                let lineage = HeadLineage { serial: serial(at), not_after: NOW + 30 * DAY };
                (lineage_name(at), lineage)
            })
            .collect();
        let overview = FleetOverview {
            at: NOW,
            fleet: "edge".to_owned(),
            store: "/srv/fleet".to_owned(),
            lineages: Some(HeadLineages { sequence: 42, hash: signed.hash, all }),
            head: Some(signed),
            nodes: Vec::new(),
            problems: Vec::new(),
        };
        Self { keys, fleet, overview }
    }

    fn report(&self, name: &str) -> NodeReport {
        let head = self.overview.head.as_ref().unwrap();
        NodeReport {
            fleet: self.fleet.clone(),
            node: name.parse().unwrap(),
            sequence: head.head.sequence,
            head: head.hash,
            since: NOW - 50 * MINUTE,
            time: NOW - 3 * MINUTE,
            program: "0.1.0".to_owned(),
            confirmed: true,
            omitted: 0,
            exceptions: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// A node that reported this, signed by itself.
    fn node(&mut self, name: &str, change: impl FnOnce(&mut NodeReport)) {
        let mut report = self.report(name);
        change(&mut report);
        let value = report.sign(self.keys.signing());
        self.judged(name, Some(&value));
    }

    fn judged(&mut self, name: &str, value: Option<&[u8]>) {
        let node: NodeName = name.parse().unwrap();
        let key: NodeKey = self.keys.public();
        let row = node_row(
            (&node, &key),
            value,
            &self.fleet,
            (self.overview.head.as_ref(), &FormerKeys::default()),
            NOW,
        );
        self.overview.nodes.push(row);
    }

    /// The page, left in the target directory for who wants to look at it.
    fn page(&self, name: &str) -> String {
        let page = self.any_page(name);
        needs_nothing(&page);
        page
    }

    fn any_page(&self, name: &str) -> String {
        let page = html::text(&self.overview, &Given::default());
        fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fleet-{name}.html")), &page).unwrap();
        page
    }
}

fn serial(at: usize) -> String {
    format!("04AB{at:032X}")
}

fn lineage_name(at: usize) -> String {
    let names =
        ["blog.example.org", "example.org", "mail.example.org", "shop.example.org", "wiki.example.org"];
    names.get(at).map_or_else(|| format!("customer-{at:04}.example.net"), |name| (*name).to_owned())
}

fn exception(lineage: &str, problem: &str, served: Option<&str>, detail: &str) -> ReportedException {
    ReportedException {
        lineage: lineage.to_owned(),
        problem: problem.to_owned(),
        served: served.map(str::to_owned),
        detail: detail.to_owned(),
    }
}

fn refused(lineage: usize) -> ReportedException {
    let why = "the private key belongs to another certificate";
    exception(&lineage_name(lineage), "key-mismatch", Some("2B01401A5AADF00D"), why)
}

fn stale(lineage: usize) -> ReportedException {
    let why = "haproxy has serial 2B01401A5AAD.., the file has 04AB00000000..";
    exception(&lineage_name(lineage), "haproxy-stale", Some("2B01401A5AADF00D"), why)
}

fn fails(exceptions: Vec<ReportedException>) -> impl FnOnce(&mut NodeReport) {
    |report| {
        report.confirmed = false;
        report.exceptions = exceptions;
    }
}

fn earlier(report: &mut NodeReport) {
    report.sequence = 41;
    report.head = [9; 32];
}

/// The words of each row of a table, by the row's first cell.
fn rows(page: &str, title: &str) -> Vec<String> {
    let section = page.split(&format!("<h2 id=\"{title}\">")).nth(1).unwrap();
    let table = section.split("<tbody").nth(1).unwrap().split("</tbody>").next().unwrap();
    table.split("<tr").skip(1).map(|row| words(&format!("<body><tr{row}"))).collect()
}

#[test]
fn a_small_fleet_is_a_cell_for_each_node_and_lineage() {
    let mut scene = Scene::new(5);
    scene.node("lb1", |_| {});
    scene.node("lb2", fails(vec![stale(3), refused(0)]));
    scene.node("lb3", earlier);
    let page = scene.page("small");
    let shown = words(&page);
    for text in [
        "WARNING 1 of 3 nodes confirmed number 42; fleet-node-behind, fleet-node-failed",
        "edge: number 42 of 60 minutes ago, counts for 34 hours, 5 lineages; store /srv/fleet",
        "fleet-node-behind: lb3: it has number 41, and the head is number 42",
        "What to do: see on that node: haproxy-certs status",
        "2026-11-30 22:57:00 UTC",
    ] {
        assert!(shown.contains(text), "{text} in {shown}");
    }
    let rows = rows(&page, "matrix");
    assert_eq!(rows.len(), 5, "{rows:?}");
    let row = |name: &str| rows.iter().find(|row| row.starts_with(name)).unwrap();
    let shop = row("shop.example.org");
    for text in [
        &*format!("serial {}", serial(3)),
        "30 days left",
        "lb1 \u{2713} in step serves 04AB0000..",
        "lb2 ! haproxy-stale serves 2B01401A5AADF00D",
        "lb3 ! behind as number 41 says",
    ] {
        assert!(shop.contains(text), "{text} in {shop}");
    }
    assert!(row("blog.example.org").contains("lb2 ! key-mismatch serves 2B01"), "{rows:?}");
    assert!(row("wiki.example.org").contains("lb2 \u{2713} in step"), "{rows:?}");
}

#[test]
fn each_state_of_a_node_has_its_word() {
    let mut scene = Scene::new(2);
    scene.node("fine", |_| {});
    scene.node("unsure", |report| report.confirmed = false);
    scene.node("silent", |report| report.time = NOW - 3 * 60 * MINUTE);
    scene.node("behind", earlier);
    scene.judged("missing", None);
    scene.judged("forged", Some(b"all is well"));
    let down = exception("*", "haproxy-down", None, "haproxy isn't running");
    scene.node("down", fails(vec![down]));
    scene.node("cut", |report| {
        fails(vec![stale(0)])(report);
        report.omitted = 1234;
    });
    let states: Vec<(&str, NodeState)> =
        scene.overview.nodes.iter().map(|node| (node.name.as_str(), node.state())).collect();
    assert_eq!(
        states,
        [
            ("fine", NodeState::InStep),
            ("unsure", NodeState::Unconfirmed),
            ("silent", NodeState::Silent),
            ("behind", NodeState::Behind),
            ("missing", NodeState::Missing),
            ("forged", NodeState::Unreadable),
            ("down", NodeState::Unconfirmed),
            ("cut", NodeState::Unconfirmed),
        ]
    );
    let page = scene.page("states");
    let rows = rows(&page, "matrix");
    let row = |name: &str| rows.iter().find(|row| row.contains(name)).unwrap();
    for text in [
        "fine \u{2713} in step",
        "unsure ! not confirmed",
        "silent ! silent it had number 42",
        "behind ! behind",
        "missing ! never reported",
        "forged \u{2717} report not usable",
        "down ! not confirmed",
        "cut ! haproxy-stale",
    ] {
        assert!(row("blog.example.org").contains(text), "{text} in {rows:?}");
    }
    assert!(row("the node itself").contains("down ! haproxy-down haproxy isn&#39;t running"), "{rows:?}");
    assert!(row("the node itself").contains("cut ! 1234 more for which there was no room"), "{rows:?}");
    // The worst first.
    assert!(self::rows(&page, "nodes")[0].contains("forged critical"), "{page}");
    // A head that is new is on its way.
    let head = scene.overview.head.as_mut().unwrap();
    head.head.signed = NOW - MINUTE;
    scene.overview.nodes.clear();
    scene.node("lb1", earlier);
    assert_eq!(scene.overview.nodes[0].state(), NodeState::Underway);
    assert!(words(&scene.page("underway")).contains("lb1 ? underway as number 41 says"));
}

#[test]
fn many_nodes_in_step_are_one_column_and_the_others_are_named() {
    let mut scene = Scene::new(10);
    for at in 0..50 {
        let name = format!("lb{at:02}");
        match at {
            7 => scene.node(&name, fails(vec![stale(3)])),
            9 => scene.node(&name, earlier),
            11 | 12 => scene.node(&name, |report| report.time = NOW - 2 * DAY),
            _ => scene.node(&name, |_| {}),
        }
    }
    let page = scene.page("wide");
    let shown = words(&page);
    for text in ["46 nodes in step", "2 nodes silent", "lb11, lb12", "lb07", "lb09"] {
        assert!(shown.contains(text), "{text} in {shown}");
    }
    assert_eq!(rows(&page, "matrix").len(), 10);
    assert_eq!(rows(&page, "nodes").len(), 50);
    // A node of the same state whose clock is wrong isn't among those of which nothing is to be said.
    scene.node("lb50", |report| report.time = NOW + DAY);
    let clock = words(&scene.page("wide"));
    assert!(
        clock.contains("46 nodes in step") && clock.contains("lb50: its report is of 2026-12-01"),
        "{clock}"
    );
    // What is to be done about both is said once.
    assert_eq!(page.matches("haproxy-certs-follow.service").count(), 1, "{page}");
    assert!(shown.contains("lb11: it hasn&#39;t reported for 2 days"), "{shown}");
}

#[test]
fn a_thousand_lineages_in_step_are_one_row_and_the_others_are_named() {
    let mut scene = Scene::new(1300);
    scene.node("lb1", |_| {});
    scene.node("lb2", fails(vec![stale(77), refused(1200)]));
    scene.node("lb3", fails(vec![refused(1200)]));
    let page = scene.page("long");
    let rows = rows(&page, "matrix");
    assert_eq!(rows.len(), 3, "{rows:?}");
    let all = rows.join("\n");
    for text in ["customer-0077.example.net", "customer-1200.example.net", "1298 more lineages"] {
        assert!(all.contains(text), "{text} in {all}");
    }
    let shown = words(&page);
    assert!(
        shown.contains("customer-0500.example.net, serial ") && shown.contains("and 298 more"),
        "{shown}"
    );
    // Nothing is published yet.
    let mut empty = Scene::new(0);
    empty.node("lb1", |_| {});
    let page = empty.page("empty");
    assert!(!page.contains("id=\"matrix\"") && page.contains("id=\"nodes\""), "{page}");
    // All is well.
    scene.overview.nodes.clear();
    scene.node("lb1", |_| {});
    let page = scene.page("well");
    assert!(words(&page).contains("OK 1 of 1 nodes confirmed number 42"), "{page}");
    assert!(words(&page).contains("all 1300 lineages") && !page.contains("id=\"problems\""), "{page}");
}

#[test]
fn where_nodes_and_lineages_are_many_each_row_names_its_nodes() {
    let mut scene = Scene::new(40);
    for at in 0..30_usize {
        let name = format!("lb{at:02}");
        if at < 20 {
            scene.node(&name, fails(vec![stale(at), stale(at + 1)]));
        } else {
            scene.node(&name, |_| {});
        }
    }
    let page = scene.page("both");
    let rows = rows(&page, "matrix");
    let row = rows.iter().find(|row| row.contains("customer-0010")).unwrap();
    for text in ["lb09 ! haproxy-stale", "lb10 ! haproxy-stale", "28 nodes \u{2713} in step"] {
        assert!(row.contains(text), "{text} in {row}");
    }
    // What is about no lineage stands by itself, too.
    scene.node("cut", |report| report.omitted = 17);
    let page = scene.page("both");
    assert!(self::rows(&page, "matrix")[0].contains("the node itself cut ! 17 more for which"), "{page}");
    // Few lineages and many nodes that name them: a row for each node.
    scene.overview.nodes.clear();
    for at in 0..30_usize {
        scene.node(&format!("lb{at:02}"), fails(vec![stale(at % 3)]));
    }
    let page = scene.page("tall");
    let rows = self::rows(&page, "matrix");
    assert_eq!(rows.len(), 30, "{rows:?}");
    assert!(rows[1].contains("lb01") && rows[1].contains("37 more lineages \u{2713} in step"), "{rows:?}");
}

/// Whoever has a node's key writes its report.
#[test]
fn what_a_node_writes_is_text() {
    const EVIL: &str = "<script>alert('1')</script>\"&\u{202e}<img src=x onload=alert(1)>";
    let mut scene = Scene::new(30);
    let lineage = EVIL.replace('/', "!");
    scene.node("lb1", |report| {
        report.program = "</td><svg onload=alert(1)>".to_owned();
        report.confirmed = false;
        report.exceptions = vec![
            exception(&lineage, "<b>word</b>", Some("</code><script>"), EVIL),
            exception("*", "</main>", Some("\" style=\"color:red"), EVIL),
        ];
    });
    let all = scene.overview.lineages.as_mut().unwrap();
    all.all.insert(format!("{lineage}2"), HeadLineage { serial: "<i>".to_owned(), not_after: i64::MAX });
    scene.overview.problems.push(problem(FleetTrouble::FleetUnreachable, EVIL.to_owned()));
    scene.overview.store = "</p><script>".to_owned();
    let page = scene.any_page("hostile");
    needs_nothing_but(&page.replace(" style=&#34;", ""));
    let found = elements(&page);
    for name in ["script", "svg", "img", "i"] {
        assert!(!found.iter().any(|it| it == name), "<{name}> in {page}");
    }
    assert!(!page.contains('\u{202e}'), "{page}");
    assert!(words(&page).contains("\\xe2\\x80\\xae"), "{page}");
    // The frame's own.
    assert_eq!(page.matches("<style").count(), 1);
    let report = scene.report("lb2");
    let huge: Vec<ReportedException> =
        (0..2000).map(|at| exception(&format!("n{at}<"), "x", None, "")).collect();
    scene.node("lb2", |it| *it = NodeReport { exceptions: huge, confirmed: false, ..report });
    let page = html::text(&scene.overview, &Given::default());
    assert!(page.contains("n1999&#60;"), "no row of the last");
}

/// A real fleet over a directory: the page names what the JSON says, and both exit alike.
#[test]
fn the_page_names_what_json_says() {
    let mut fleet = Fleet::of(vec![Some("3.0"), None, None]);
    fleet.bring_in_step(&["a.example", "b.example", "c.example"]);
    let page = fleet.publisher.run(&["fleet", "status", "--format", "html"]).exits(0).stdout;
    needs_nothing(&page);
    assert!(words(&page).contains("OK 3 of 3 nodes confirmed number 1"), "{page}");
    for name in fleet.wanted.keys() {
        let serial = fleet.tree.leaf(name).serial();
        assert!(page.contains(&serial), "{name} {serial} in {page}");
    }

    // HAProxy serves another file than what is on the disk; a node never comes; somebody writes a report.
    let other = fleet.nodes[0].serves_another("a.example");
    fleet.nodes[0].follow().exits(2);
    fleet.join("lb4", None);
    fleet.tell_publisher();
    fleet.tree.overwrite("b.example", Kind::Privkey, other.key.pem());
    fleet.publisher.run(&["fleet", "publish"]).exits(1);
    fs::write(fleet.folder().join("report/lb3"), "all is well").unwrap();
    let json = fleet.publisher.run(&["fleet", "status", "--format", "json"]).exits(2).json();
    assert_eq!(json["lineages"], 3, "{json}");
    for host in [&fleet.publisher, &fleet.nodes[1].cmd] {
        let run = host.run(&["fleet", "status", "--format", "html"]).exits(2);
        assert_eq!(run.stderr, "");
        needs_nothing(&run.stdout);
        fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join("fleet-real.html"), &run.stdout).unwrap();
        let shown = words(&run.stdout);
        let mut texts = Vec::new();
        strings(&json, &mut texts);
        texts.retain(|text| !["fleet status", "haproxy-certs"].contains(&text.as_str()));
        assert!(texts.len() > 30, "{texts:?}");
        for text in texts {
            assert!(shown.contains(&text), "{text} of {json} in {shown}");
        }
        assert!(shown.contains(&other.serial()), "what HAProxy serves in {shown}");
        assert!(shown.contains("haproxy-stale") && shown.contains("never reported"), "{shown}");
    }
}

/// Every text of a JSON value, as the page writes it.
fn strings(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => {
            let is_time = text.len() == 20 && text.ends_with('Z');
            let text = if is_time { text.replace('T', " ").replace('Z', " UTC") } else { text.clone() };
            let text = text.replace('\'', "&#39;").replace('"', "&#34;").replace('<', "&#60;");
            found.push(text.replace('>', "&#62;"));
        }
        Value::Array(all) => all.iter().for_each(|it| strings(it, found)),
        Value::Object(all) => all.values().for_each(|it| strings(it, found)),
        _ => {}
    }
}

/// An old page that stays would be taken for the truth.
#[test]
fn settings_without_a_fleet_make_a_page_too() {
    let fleet = Fleet::new(0);
    let cmd = support::Cmd::new(fleet.tree.live());
    let run = cmd.run(&["fleet", "status", "--format", "html"]).exits(3);
    needs_nothing(&run.stdout);
    assert!(words(&run.stdout).contains("UNKNOWN the settings have no [fleet]"), "{run}");
}

/// However many nodes and lineages there are, one that has expired is in step nowhere, and one that is left out is served
/// nowhere that leaves it out.
#[test]
fn what_expired_or_is_left_out_is_in_no_sum_of_what_is_in_step() {
    for (nodes, lineages) in [(1, 5), (30, 5), (1, 200), (30, 200)] {
        let mut scene = Scene::new(lineages);
        let all = &mut scene.overview.lineages.as_mut().unwrap().all;
        all.get_mut(&lineage_name(1)).unwrap().not_after = NOW - DAY;
        for at in 0..nodes {
            scene.node(&format!("lb{at:02}"), |_| {});
        }
        scene.node("odd", |report| {
            report.notes.push(exception(&lineage_name(2), "left-out", None, "by choice"));
        });
        let context = format!("{nodes} nodes, {lineages} lineages");
        let rows = rows(&scene.page(&format!("notes-{nodes}-{lineages}")), "matrix");
        let row = |name: String| rows.iter().find(|row| row.starts_with(&name)).unwrap();
        let expired = row(lineage_name(1));
        assert!(
            expired.contains("\u{2717} expired") && !expired.contains("\u{2713} in step"),
            "{context}: {expired}"
        );
        let left_out = row(lineage_name(2));
        let said = left_out.split("odd \u{2713} ").nth(1).or_else(|| left_out.split("left-out").next());
        assert!(left_out.contains("\u{2713} left-out by choice"), "{context}: {left_out}");
        assert!(said.is_some_and(|said| !said.starts_with("in step")), "{context}: {left_out}");
    }
}
