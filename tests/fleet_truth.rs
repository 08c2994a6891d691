//! What the fleet's status says is what is so: what isn't published as certbot has it, what expires, what a node leaves out or
//! serves otherwise; and what is advised mends it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may fail loudly")]

use std::fs;
use std::os::unix::ffi::OsStrExt as _;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::Value;
use support::cmd::toml;
use support::fleet::Fleet;
use support::tree::make_directory;
use support::{Authority, KeyKind, Kind, Run, Tree, Validity, served};

const FORMATS: [&str; 4] = ["human", "html", "monitoring", "json"];

fn overview(fleet: &Fleet) -> Value {
    fleet.publisher.run(&["fleet", "status", "--format", "json"]).json()
}

/// The problem of the fleet as a whole with this word.
fn problem(fleet: &Fleet, word: &str) -> Value {
    let said = overview(fleet);
    let all = said["problems"].as_array().unwrap();
    all.iter().find(|problem| problem["problem"] == word).unwrap_or_else(|| panic!("{word}: {said}")).clone()
}

/// What the fleet's status says in a format, and that it exits so.
#[track_caller]
fn said(fleet: &Fleet, format: &str, exit: i32) -> String {
    fleet.publisher.run(&["fleet", "status", "--format", format]).exits(exit).stdout
}

/// Does what the fleet's status advises on the publisher, which is a command of ours.
fn follow_advice(fleet: &Fleet, advice: &str) -> Run {
    let command = advice.split("haproxy-certs ").nth(1).unwrap_or_else(|| panic!("no command: {advice}"));
    fleet.publisher.run(&command.split(' ').collect::<Vec<_>>())
}

/// The key of a lineage belongs to another certificate from now on.
fn spoil(fleet: &Fleet, lineage: &str) {
    let other = Authority::new().issue(KeyKind::P256, &["x.example"], Validity::days(9));
    fleet.tree.overwrite(lineage, Kind::Privkey, other.key.pem());
}

#[test]
fn a_renewal_that_is_refused_is_said_with_its_reason_and_what_mends_it() {
    let mut fleet = Fleet::new(1);
    fleet.bring_in_step(&["a.example", "b.example"]);
    said(&fleet, "human", 0);
    fleet.renew("a.example");
    spoil(&fleet, "a.example");
    fleet.publisher.run(&["fleet", "publish"]).exits(1);
    fleet.all_follow();
    let own = fleet.publisher.run(&["status", "--format", "json"]).exits(1).json();
    let site = own["sites"].as_array().unwrap().iter().find(|site| site["lineage"] == "a.example").unwrap();
    let found = problem(&fleet, "not-published");
    // As bad as the host's own status says.
    assert_eq!(found["severity"], site["severity"], "{found}");
    let fact = found["fact"].as_str().unwrap();
    assert!(fact.starts_with("a.example: serial ") && fact.contains(": key-mismatch: "), "{fact}");
    let advice = found["advice"].as_str().unwrap();
    assert_eq!(advice, "issue it again: certbot renew --force-renewal --cert-name a.example", "{found}");
    for format in FORMATS {
        let text = said(&fleet, format, 1);
        assert!(text.contains("key-mismatch") && text.contains("--cert-name a.example"), "{format}: {text}");
    }
    // What was never published is worse, and what mends several of them is said one by one.
    fleet.tree.issue("c.example", KeyKind::P256, &["c.example"], Validity::days(90));
    spoil(&fleet, "c.example");
    fleet.tree.issue(".d.example", KeyKind::P256, &["d.example"], Validity::days(90));
    fleet.publisher.run(&["fleet", "publish"]).exits(1);
    let found = problem(&fleet, "not-published");
    let fact = found["fact"].as_str().unwrap();
    for words in
        [".d.example: certbot has a certificate, and it is not published: name-unsafe: ", "c.example: "]
    {
        assert!(fact.contains(words), "{words} in {fact}");
    }
    let advice = found["advice"].as_str().unwrap();
    let says = follow_advice(&fleet, advice).exits(2).stdout;
    assert!(
        advice.contains("one") || says.contains("name-unsafe") && says.contains("key-mismatch"),
        "{says}"
    );
    said(&fleet, "human", 2);
    for lineage in ["c.example", ".d.example"] {
        fleet.tree.delete(lineage);
    }
    fleet.renew("a.example");
    fleet.publish();
    fleet.all_follow();
    said(&fleet, "human", 0);
}

#[test]
fn what_is_gone_and_held_goes_by_what_is_advised() {
    let names: Vec<String> = (0..8).map(|at| format!("n{at}.example")).collect();
    let mut fleet = Fleet::new(1);
    fleet.bring_in_step(&names.iter().map(String::as_str).collect::<Vec<_>>());
    fleet.delete(&names[0]);
    let found = problem(&fleet, "not-published");
    follow_advice(&fleet, found["advice"].as_str().unwrap()).exits(0);
    fleet.all_follow();
    said(&fleet, "human", 0);
    for name in &names[1..5] {
        fleet.delete(name);
    }
    fleet.publisher.run(&["fleet", "publish"]).exits(1);
    let found = problem(&fleet, "not-published");
    assert_eq!(found["severity"], "warning", "{found}");
    follow_advice(&fleet, found["advice"].as_str().unwrap()).exits(0);
    fleet.all_follow();
    fleet.must_all_be_as_wanted("by the advice");
    said(&fleet, "human", 0);
    // Where no lineage is left none goes, whatever is permitted.
    for name in &names[5..] {
        fleet.delete(name);
    }
    fleet.publisher.run(&["fleet", "publish", "--prune-many"]).exits(1);
    for text in [said(&fleet, "human", 1), fleet.publisher.run(&["status"]).exits(1).stdout] {
        assert!(text.contains("bring the lineages back, or set live_dir"), "{text}");
        assert!(!text.contains("fleet publish"), "{text}");
    }
}

/// Whoever looks at the fleet, no node is well that serves what has expired or is about to, whether something else is wrong
/// there or not, and whether its renewal is refused or never came.
#[test]
fn nothing_is_well_that_serves_an_expired_certificate() {
    let renew = |fleet: &mut Fleet| {
        let leaf = fleet.tree.authority().issue(KeyKind::P256, &["a.example"], Validity::days(90));
        fleet.tree.renew_with("a.example", &leaf);
    };
    for (validity, word) in [(Validity::expired(), "expired"), (Validity::left(0.05), "expires-soon")] {
        let mut fleet = Fleet::new(1);
        fleet.tree.issue("a.example", KeyKind::P256, &["a.example"], validity);
        fleet.issue("b.example");
        fleet.publish();
        fleet.tell_nodes("");
        fleet.all_follow();
        for is_refused in [false, true] {
            if is_refused {
                renew(&mut fleet);
                spoil(&fleet, "a.example");
                fleet.publisher.run(&["fleet", "publish"]).exits(1);
                fleet.all_follow();
            }
            let said_by_all = overview(&fleet);
            let node = &said_by_all["nodes"][0];
            let context = format!("{word}, refused: {is_refused}: {said_by_all}");
            // It has what the head says, and confirms that.
            assert_eq!(
                (&node["confirmed"], &node["severity"]),
                (&true.into(), &"critical".into()),
                "{context}"
            );
            assert_eq!(node["problems"][0]["problem"], word, "{context}");
            for format in FORMATS {
                let text = said(&fleet, format, 2);
                assert!(text.contains(word), "{format}: {context}: {text}");
            }
            let metrics = said(&fleet, "prometheus", 2);
            let series = format!(
                "fleet_problem{{fleet=\"edge\",node=\"lb1\",problem=\"{word}\",severity=\"critical\"}} 1\n"
            );
            assert!(metrics.contains(&series), "{context}: {metrics}");
            fleet.nodes[0].cmd.run(&["fleet", "status"]).exits(2);
        }
        // Where certbot's newer one is refused, publishing doesn't mend what has expired.
        let text = fleet.publisher.run(&["status"]).stdout;
        assert!(!text.contains("fleet publish") && text.contains("--force-renewal"), "{text}");
        renew(&mut fleet);
        fleet.publish();
        fleet.all_follow();
        said(&fleet, "human", 0);
    }
}

/// The row of a lineage in the page's matrix, as words.
fn matrix_row(page: &str, lineage: &str) -> String {
    let rows = support::page::words(page);
    let at = rows.find(&format!("{lineage} serial ")).unwrap();
    rows[at..].chars().take(260).collect()
}

#[test]
fn what_a_node_leaves_out_or_serves_otherwise_is_said_and_takes_nothing_from_what_it_confirms() {
    let mut fleet = Fleet::of(vec![Some("3.0"), None]);
    fleet.bring_in_step(&["b.example", "m.example"]);
    let line = fleet.line();
    let own = fleet.nodes[0].own.clone();
    fleet.nodes[0].own = format!("exclude = [\"b.*\"]\n{own}");
    fleet.tell_node(0, &[&line], "");
    fleet.tell_node(1, &[&line], "wait_for = [\"lb1\"]");
    // It serves the names of the other one, too, and sorts before it.
    let both = fleet.tree.issue("a.example", KeyKind::P256, &["a.example", "m.example"], Validity::days(90));
    fleet.renew("b.example");
    fleet.renew("m.example");
    fleet.publish();
    let run = fleet.nodes[0].follow().exits(0);
    assert_eq!(fleet.nodes[0].cmd.deployed(), ["a.example.pem", "m.example.pem"], "{run}");
    if let Some(haproxy) = &fleet.nodes[0].haproxy {
        assert_eq!(served(haproxy.address(), "m.example").serial, both.serial());
    }
    // The canary's word counts.
    fleet.nodes[1].follow().exits(0);
    let all = overview(&fleet);
    let node = &all["nodes"][0];
    assert_eq!((&node["confirmed"], &node["severity"]), (&true.into(), &"ok".into()), "{all}");
    assert_eq!(node["exceptions"], serde_json::json!([]), "{all}");
    let notes: Vec<(&str, &str)> = node["notes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|note| (note["lineage"].as_str().unwrap(), note["problem"].as_str().unwrap()))
        .collect();
    assert_eq!(notes, [("b.example", "left-out"), ("m.example", "shadowed")], "{all}");
    let text = said(&fleet, "human", 0);
    let row = text.lines().find(|line| line.contains(" lb1 ")).unwrap();
    assert!(row.ends_with("all but 2 lineages"), "{text}");
    for format in ["human", "monitoring", "html"] {
        let text = said(&fleet, format, 0);
        let text = if format == "html" { support::page::words(&text) } else { text };
        for words in ["left-out", "m.example is served from a.example.pem"] {
            assert!(text.contains(words), "{format}: {words} in {text}");
        }
        assert!(text.contains("confirmed number 2, 2 not all of it"), "{format}: {text}");
    }
    let metrics = said(&fleet, "prometheus", 0);
    assert!(metrics.contains("fleet_node_left_out{fleet=\"edge\",node=\"lb1\"} 2\n"), "{metrics}");
    let page = said(&fleet, "html", 0);
    let lies = format!("lb1 \u{2713} in step serves {}..", &fleet.tree.leaf("b.example").serial()[..8]);
    assert!(!matrix_row(&page, "b.example").contains(&lies), "{page}");
    let shadowed = matrix_row(&page, "m.example");
    assert!(shadowed.contains(&format!("lb1 \u{2713} shadowed serves {}", both.serial())), "{shadowed}");

    // It is said the same way where something else fails.
    fs::remove_file(fleet.nodes[0].cmd.site("a.example")).unwrap();
    make_directory(&fleet.nodes[0].cmd.site("a.example"), 0o700);
    fs::write(fleet.nodes[0].cmd.site("a.example").join("x"), "x").unwrap();
    fleet.nodes[0].follow();
    let all = overview(&fleet);
    let node = &all["nodes"][0];
    assert_eq!(node["confirmed"], false, "{all}");
    assert!(node["notes"].to_string().contains("left-out"), "{all}");
    let exceptions = node["exceptions"].to_string();
    assert!(!exceptions.contains("shadowed") && exceptions.contains("conflict"), "{all}");
    fs::remove_dir_all(fleet.nodes[0].cmd.site("a.example")).unwrap();
    fleet.nodes[0].own = own;
    fleet.tell_node(0, &[&line], "");
    fleet.nodes[0].follow();
    let all = overview(&fleet);
    assert!(!all["nodes"][0]["notes"].to_string().contains("left-out"), "{all}");
}

#[test]
fn very_many_lineages_that_are_left_out_are_summed_up() {
    let mut fleet = Fleet::new(1);
    let names: Vec<String> = (0..60).map(|at| format!("n{at:02}.example")).collect();
    for name in &names {
        fleet.issue(name);
    }
    fleet.issue("a.example");
    fleet.publish();
    fleet.nodes[0].own = format!("exclude = [\"n*\"]\n{}", fleet.nodes[0].own);
    fleet.tell_nodes("");
    fleet.nodes[0].follow().exits(0);
    let text = said(&fleet, "human", 0);
    assert!(text.contains("all but 50 lineages and more"), "{text}");
    // Of those that aren't named nobody says that they are served.
    let page = support::page::words(&said(&fleet, "html", 0));
    assert!(page.contains("in step, or left out") && !page.contains("in step serves"), "{page}");
}

/// A node that had a certbot of its own goes on with its files: that is no alarm, at no look.
#[test]
fn what_a_node_had_before_it_joined_is_no_alarm() {
    let mut own = Tree::new();
    for name in ["x.example", "a.example"] {
        own.issue(name, KeyKind::P256, &[name], Validity::days(90));
    }
    let mut fleet = Fleet::of(vec![Some("3.0")]);
    fleet.issue("a.example");
    fleet.publish();
    let live = own.live();
    let live = live.to_str().unwrap();
    let before = format!("{}{}", fleet.nodes[0].own, "");
    fleet.nodes[0].cmd.set_tables(&before);
    fleet.nodes[0].cmd.run(&["--live-dir", live, "assemble"]).exits(0);
    fleet.renew("a.example");
    fleet.publish();
    fleet.tell_nodes("");
    for _ in 0..2 {
        fleet.nodes[0].follow().exits(0);
        let all = overview(&fleet);
        let node = &all["nodes"][0];
        assert_eq!(
            (&node["confirmed"], &node["exceptions"]),
            (&true.into(), &serde_json::json!([])),
            "{all}"
        );
    }
    let node = &fleet.nodes[0];
    assert_eq!(node.cmd.deployed(), ["a.example.pem", "x.example.pem"]);
    said(&fleet, "human", 0);
    node.cmd.run(&["status"]).exits(0);
    let run = node.cmd.run(&["assemble", "--format", "json"]).exits(0);
    let detail = run.site("x.example.pem")["detail"].to_string();
    assert!(detail.contains("it was written from elsewhere, and not from the fleet"), "{run}");
    let text = node.cmd.run(&["-v", "status"]).exits(0).stdout;
    assert!(text.contains("it was written from elsewhere, and not from the fleet"), "{text}");
    if let Some(haproxy) = &node.haproxy {
        assert_eq!(served(haproxy.address(), "x.example").serial, own.leaf("x.example").serial());
    }
    // On a single host whose live_dir is another one it is an alarm as ever.
    let other = Tree::of(&[("a.example", &["a.example"])]);
    let single = support::Cmd::new(own.live()).without_haproxy();
    single.assemble(&[]).exits(0);
    let moved = other.live();
    single.run(&["--live-dir", moved.to_str().unwrap(), "assemble", "--adopt"]).exits(1);
    assert!(single.deployed().contains(&"x.example.pem".to_owned()));
}

/// A node that can't take the head of a store says so, whether it ever had one: the last thing that it said isn't so any more.
#[test]
fn a_node_without_a_head_says_what_keeps_it_from_taking_one() {
    let mut fleet = Fleet::new(2);
    fleet.bring_in_step(&["a.example"]);
    let object = fleet.stored().into_keys().find(|path| path.starts_with("object/")).unwrap();
    let object = fleet.folder().join(object);
    let whole = fs::read(&object).unwrap();
    fs::remove_file(&object).unwrap();
    mkfifo(&object, Mode::from_bits_truncate(0o600)).unwrap();
    fs::remove_dir_all(fleet.nodes[0].cmd.beside("cache")).unwrap();
    fleet.nodes[0].follow().exits(2);
    let all = overview(&fleet);
    let node = &all["nodes"][0];
    assert_eq!((&node["current"], &node["confirmed"]), (&false.into(), &false.into()), "{all}");
    assert_eq!(node["exceptions"][0]["problem"], "fleet-damaged", "{all}");
    let text = said(&fleet, "human", 2);
    let row = text.lines().find(|line| line.contains(" lb1 ")).unwrap();
    assert!(row.starts_with("CRIT") && row.ends_with(" unknown"), "{text}");
    fs::remove_file(&object).unwrap();
    fs::write(&object, whole).unwrap();
    fleet.nodes[0].follow().exits(0);
    said(&fleet, "human", 0);
}

#[test]
fn a_host_certificate_that_the_fleet_has_not_is_said_to_be_that() {
    let mut fleet = Fleet::new(1);
    fleet.bring_in_step(&["a.example"]);
    let host = fleet.nodes[0].cmd.beside("the-host.pem");
    let own = fleet.nodes[0].own.clone();
    let line = fleet.line();
    fleet.nodes[0].own = format!("host_lineage = \"z.example\"\nhost_file = {}\n{own}", toml(&host));
    fleet.tell_node(0, &[&line], "");
    fleet.nodes[0].follow().exits(1);
    let status = fleet.nodes[0].cmd.run(&["status", "--format", "json"]).exits(1).json();
    let site = status["sites"].as_array().unwrap().iter().find(|site| site["role"] == "host").unwrap();
    assert_eq!(site["problems"], serde_json::json!(["certificate-missing"]), "{status}");
    let text = fleet.nodes[0].cmd.run(&["status"]).exits(1).stdout;
    assert!(text.contains("set host_lineage to a lineage that the fleet has"), "{text}");
    fleet.issue("z.example");
    fleet.publish();
    fleet.nodes[0].follow().exits(0);
    assert!(host.as_os_str().as_bytes().starts_with(b"/") && host.exists());
}

/// The first look of a node tells of nothing but that look: nobody says that nothing has looked yet.
#[test]
fn the_first_report_is_of_the_first_look() {
    let mut fleet = Fleet::new(1);
    fleet.issue("a.example");
    fleet.publish();
    fleet.tell_nodes("");
    fs::write(fleet.nodes[0].cmd.site("a.example"), "somebody else's").unwrap();
    fleet.nodes[0].follow().exits(1);
    let all = overview(&fleet);
    let words: Vec<&Value> =
        all["nodes"][0]["exceptions"].as_array().unwrap().iter().map(|it| &it["problem"]).collect();
    assert!(words.contains(&&Value::from("conflict")), "{all}");
    assert!(words.iter().all(|word| !word.as_str().unwrap().starts_with("fleet-")), "{all}");
}

/// The nodes have to be told of a publisher's keys, also where its first publish is refused.
#[test]
fn a_publish_that_is_refused_prints_the_line_of_keys_that_it_made() {
    let mut fleet = Fleet::new(1);
    fleet.bring_in_step(&["a.example"]);
    fleet.forget_publisher();
    let run = fleet.publisher.run(&["fleet", "publish"]).exits(3);
    let line = format!("publishers = [\"{}\"]", fleet.line());
    assert!(run.stdout.contains(&line) && run.stdout.contains("made "), "{run}");
    let run = fleet.publisher.run(&["fleet", "publish"]).exits(3);
    assert!(!run.stdout.contains("ssh-ed25519"), "{run}");
    for command in [&["-v", "fleet", "publish"][..], &["-v", "assemble"]] {
        let run = fleet.publisher.run(command).exits(3);
        assert!(run.stdout.contains(&line) && !run.stdout.contains("made "), "{run}");
    }
}
