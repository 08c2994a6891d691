//! Fleets end to end: a real certbot and Pebble on the publisher, a cluster of etcds with TLS, users and permissions in
//! between, nodes with real HAProxys of all versions, each host with a network of its own. And what happens to that cluster.
//!
//! On the newest etcd; `HAPROXY_CERTS_LONG=1` takes all that are there.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    reason = "test code may fail loudly, and this is one story"
)]

use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use support::etcd::{EtcdSetup, EtcdVersion, etcds, newest_etcd};
use support::fleet::{Fleet, Node, serves};
use support::network::{Host, Network};
use support::process::Running;
use support::summary::long;
use support::{Certbot, Cmd, LIMIT, Pebble, served, versions, wait_until};

/// Where certbot answers.
const CHALLENGES: u16 = 8080;

/// A node that was cut off hears of the store when TCP sends again what was lost.
const LONG_LIMIT: Duration = Duration::from_secs(300);

fn chosen() -> Vec<EtcdVersion> {
    if long() { etcds() } else { vec![newest_etcd()] }
}

/// Port 80 of a node as `haproxy-config` has it, where certbot runs on another host.
fn port_80(node: &Host, publisher: &Host) -> String {
    let table = format!("[certbot]\nchallenge_servers = [\"{}:{CHALLENGES}\"]\n", publisher.address());
    let text = Cmd::new("").with_tables(&table).run(&["haproxy-config"]).exits(0).stdout;
    let section = |name: &str| {
        let start = text.find(&format!("\n{name}\n")).unwrap();
        let rest = &text[start + 1..];
        let end = ["\nfrontend ", "\nbackend "].into_iter().filter_map(|next| rest.find(next)).min();
        rest[..end.unwrap_or(rest.len())].to_owned()
    };
    let front = section("frontend http");
    let bind = front.lines().find(|line| line.trim_start().starts_with("bind ")).unwrap();
    let front = front.replace(bind, &format!("    bind {}:80", node.address()));
    format!("{front}\n{}\n", section("backend certbot"))
}

/// The row of a node in `fleet status`.
fn row(fleet: &Fleet, name: &str) -> Value {
    let status = fleet.publisher.run(&["fleet", "status", "--format", "json"]).json();
    let nodes = status["nodes"].as_array().unwrap().clone();
    nodes.into_iter().find(|node| node["node"] == name || node["name"] == name).unwrap_or_default()
}

fn is_current(fleet: &Fleet, name: &str) -> bool {
    let row = row(fleet, name);
    row["current"] == true && row["confirmed"] == true
}

#[track_caller]
fn end(daemon: &mut Running) {
    daemon.signal(Signal::TERM);
    assert!(daemon.wait(LIMIT).success());
}

/// What a node serves to a client on the same host.
fn serial_at(host: &Host, node: &Node, name: &str) -> String {
    host.inside(|| served(node.haproxy.as_ref().unwrap().address(), name).serial)
}

/// Each host has a network of its own, and nothing between them but wires.
#[test]
fn issued_renewed_deleted_and_a_node_removed_over_a_cluster() {
    for version in chosen() {
        over_a_cluster(&version);
    }
}

fn over_a_cluster(version: &EtcdVersion) {
    let mut network = Network::new();
    let [at_store, at_publisher] = [network.host(), network.host()];
    let etcd = at_store.inside(|| {
        let mut etcd = EtcdSetup::of(version).at(at_store.address()).three().tls().start();
        etcd.users_on("edge", "readwrite");
        etcd
    });
    let mut fleet = Fleet::in_etcd(&etcd.settings("edge"));
    let mut hosts = Vec::new();
    for version in versions() {
        let (host, name) = (network.host(), format!("lb{}", hosts.len() + 1));
        // certbot answers behind the first node.
        let section = if hosts.is_empty() { port_80(&host, &at_publisher) } else { String::new() };
        host.inside(|| fleet.join_with(&name, Some(&version.name), &section));
        hosts.push(host);
    }
    let count = hosts.len();
    let last = count - 1;
    let pebble = at_publisher.inside(|| Pebble::setup().on_port_80_of(hosts[0].address()));
    let certbot = Certbot::answering_on(&pebble, CHALLENGES);
    fleet.publisher = Cmd::new(certbot.live());
    fleet.tell_publisher();

    let hook =
        format!("{} --config {} assemble", Cmd::program().display(), fleet.publisher.config().display());
    let on_publisher = |arguments: &[&str]| at_publisher.inside(|| certbot.succeed(arguments));
    let issue = |name: &str| {
        let arguments = ["--cert-name", name, "-d", name, "--deploy-hook", &hook];
        let output = at_publisher.inside(|| certbot.certonly(&arguments));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!said.contains("reported error code"), "{said}\n{}", certbot.log());
    };
    let publisher =
        |fleet: &Fleet, arguments: &[&str]| at_publisher.inside(|| fleet.publisher.run(arguments));
    let all_serve = |hosts: &[Host], nodes: &[Node], name: &str| {
        let serial = certbot.serial(name);
        for (host, node) in hosts.iter().zip(nodes) {
            wait_until(LONG_LIMIT, &format!("{name} on {}", node.name), || {
                serial_at(host, node, name) == serial
            });
        }
    };
    let is_current = |fleet: &Fleet, name: &str| at_publisher.inside(|| is_current(fleet, name));
    let all_are_current = |fleet: &Fleet, nodes: &[Node]| {
        for node in nodes {
            wait_until(LONG_LIMIT, &node.name, || is_current(fleet, &node.name));
        }
    };
    issue("www.example.org");
    at_publisher.inside(|| fleet.tell_nodes(""));
    let start = |host: &Host, node: &Node| host.inside(|| node.start());
    let mut daemons: Vec<Running> =
        hosts.iter().zip(&fleet.nodes).map(|(host, node)| start(host, node)).collect();
    all_serve(&hosts, &fleet.nodes, "www.example.org");

    // The last one is down, and the one before it is cut off without a word, while others are renewed, issued and deleted.
    end(&mut daemons[last]);
    network.cut(&hosts[last - 1]);
    let before = certbot.serial("www.example.org");
    let reached = last - 1;
    on_publisher(&["renew", "--force-renewal"]);
    all_serve(&hosts[..reached], &fleet.nodes[..reached], "www.example.org");
    issue("b.example.org");
    all_serve(&hosts[..reached], &fleet.nodes[..reached], "b.example.org");
    all_are_current(&fleet, &fleet.nodes[..reached]);
    for (host, node) in hosts.iter().zip(&fleet.nodes).skip(reached) {
        assert!(!is_current(&fleet, &node.name), "{}", node.name);
        let still = serial_at(host, node, "www.example.org");
        assert_eq!(still, before, "without the store {} goes on with what it has", node.name);
    }
    on_publisher(&["delete", "--cert-name", "www.example.org"]);
    // certbot runs no hook when it deletes: the timer's run does it.
    publisher(&fleet, &["assemble"]).exits(0);
    daemons[last] = start(&hosts[last], &fleet.nodes[last]);
    network.mend(&hosts[last - 1]);
    for node in &fleet.nodes {
        let what = format!("only b.example.org on {}", node.name);
        wait_until(LONG_LIMIT, &what, || node.cmd.deployed() == ["b.example.org.pem"]);
    }
    all_are_current(&fleet, &fleet.nodes);
    all_serve(&hosts, &fleet.nodes, "b.example.org");
    let text = publisher(&fleet, &["fleet", "status"]).exits(0).stdout;
    assert!(text.contains(&format!("{count} of {count} nodes confirmed")), "{text}");

    // The publisher is cut off: it says so, and the nodes go on.
    network.cut(&at_publisher);
    let run = publisher(&fleet, &["fleet", "publish"]).exits(3);
    assert!(run.stderr.contains("cannot reach the store"), "{run}");
    all_serve(&hosts, &fleet.nodes, "b.example.org");
    network.mend(&at_publisher);

    // One is removed: it reads nothing that comes later.
    let (removed, at_removed) = (fleet.nodes.remove(1), hosts.remove(1));
    let serial = certbot.serial("b.example.org");
    fleet.tell_publisher();
    let run = publisher(&fleet, &["fleet", "publish"]).exits(1);
    assert!(run.stdout.contains("lb2 is no node any more, and can still read"), "{run}");
    publisher(&fleet, &["fleet", "status"]).exits(1);
    publisher(&fleet, &["fleet", "rotate"]).exits(0);
    on_publisher(&["renew", "--force-renewal"]);
    all_serve(&hosts, &fleet.nodes, "b.example.org");
    all_are_current(&fleet, &fleet.nodes);
    wait_until(LONG_LIMIT, "the removed one says so", || {
        at_removed.inside(|| removed.words()).contains(&"fleet-not-a-node".to_owned())
    });
    assert_eq!(serial_at(&at_removed, &removed, "b.example.org"), serial, "it has what it had");
    let left = count - 1;
    let text = publisher(&fleet, &["fleet", "status"]).exits(0).stdout;
    assert!(text.contains(&format!("{left} of {left} nodes confirmed")) && !text.contains("lb2"), "{text}");
    daemons.iter_mut().for_each(end);
}

/// A member killed, the cluster restarted, history compacted while a node sleeps: nothing is lost. With
/// `HAPROXY_CERTS_LONG=1` also a member that is frozen, and a quorum that is lost.
#[test]
fn whatever_happens_to_the_cluster_nothing_is_lost() {
    for version in chosen() {
        cluster_in_trouble(&version);
    }
}

fn cluster_in_trouble(version: &EtcdVersion) {
    let mut etcd = EtcdSetup::of(version).three().start();
    etcd.users_on("edge", "readwrite");
    let mut fleet = Fleet::in_etcd(&etcd.settings("edge"));
    fleet.join("lb1", Some("3.0"));
    fleet.join("lb2", None);
    fleet.tell_publisher();
    for name in ["a.example", "b.example"] {
        fleet.issue(name);
    }
    fleet.publish();
    fleet.tell_nodes("");
    let mut daemon = fleet.nodes[0].start();
    fleet.nodes[1].follow().exits(0);
    let arrives = |fleet: &mut Fleet, what: &str| {
        fleet.renew("a.example");
        fleet.publish();
        wait_until(LIMIT, what, || is_current(fleet, "lb1"));
        fleet.nodes[0].must_have(&fleet.wanted, what);
    };
    arrives(&mut fleet, "undisturbed");
    etcd.kill(0);
    arrives(&mut fleet, "without a member");
    etcd.run(0);
    etcd.wait_until_it_answers();
    // Tokens and watches are gone.
    (0..3).for_each(|member| etcd.kill(member));
    (0..3).for_each(|member| etcd.run(member));
    etcd.wait_until_it_answers();
    arrives(&mut fleet, "restarted");
    // The other node sleeps; what it saw last isn't there any more.
    for _ in 0..3 {
        arrives(&mut fleet, "before compaction");
    }
    let status: Value = serde_json::from_str(&etcd.ctl(&["get", "/", "-w", "json"])).unwrap();
    etcd.ctl(&["compaction", &status["header"]["revision"].to_string()]);
    arrives(&mut fleet, "compacted under a watch");
    fleet.nodes[1].follow().exits(0);
    fleet.must_all_be_as_wanted("after it slept");
    if long() {
        etcd.freeze(1);
        arrives(&mut fleet, "with a frozen member");
        etcd.thaw(1);
        etcd.wait_until_it_answers();
        fleet.nodes[1].follow().exits(0);
        (1..3).for_each(|member| etcd.kill(member));
        let old = fleet.wanted.clone();
        fleet.renew("a.example");
        let run = fleet.publisher.run(&["fleet", "publish"]).exits(3);
        assert!(run.stderr.contains("cannot reach the store"), "{run}");
        let run = fleet.nodes[1].follow().exits(3);
        assert!(run.stdout.contains("fleet-unreachable"), "{run}");
        for node in &fleet.nodes {
            node.must_have(&old, "without a quorum");
        }
        (1..3).for_each(|member| etcd.run(member));
        etcd.wait_until_it_answers();
        fleet.publish();
        fleet.nodes[1].follow().exits(0);
        wait_until(LIMIT, "with a quorum again", || is_current(&fleet, "lb1"));
        fleet.must_all_be_as_wanted("with a quorum again");
    }
    serves(&fleet, "in the end");
    end(&mut daemon);
}

#[test]
fn an_etcd_without_space_is_named_and_room_mends_it() {
    for version in chosen() {
        let etcd = EtcdSetup::of(&version).argument("--quota-backend-bytes=4194304").start();
        let mut fleet = Fleet::in_etcd(&etcd.settings("edge"));
        fleet.join("lb1", None);
        fleet.tell_publisher();
        fleet.bring_in_step(&["a.example"]);
        let large = "x".repeat(100_000);
        while etcd.try_ctl(&["put", "/somebody/else", &large]).is_ok() {}
        let old = fleet.wanted.clone();
        fleet.renew("a.example");
        let run = fleet.publisher.run(&["fleet", "publish"]).exits(3);
        assert!(run.stderr.contains("the store is full"), "{run}");
        // A node goes on, and can't say so.
        let run = fleet.nodes[0].follow().exits(1);
        assert!(run.stdout.contains("the report could not be put: the store is full"), "{run}");
        fleet.nodes[0].must_have(&old, "without space");
        assert_eq!(fleet.nodes[0].words(), ["fleet-unreported"]);
        let status: Value = serde_json::from_str(&etcd.ctl(&["get", "/", "-w", "json"])).unwrap();
        etcd.ctl(&["compaction", &status["header"]["revision"].to_string()]);
        etcd.ctl(&["defrag"]);
        etcd.ctl(&["alarm", "disarm"]);
        fleet.publish();
        fleet.all_follow();
        fleet.must_all_be_as_wanted("with space again");
        assert_eq!(fleet.nodes[0].words(), Vec::<String>::new());
    }
}
