//! Fleets end to end: a real certbot and Pebble on the publisher, a cluster of etcds with TLS, users and permissions in
//! between, nodes with real HAProxys. And what happens to that cluster.
//!
//! On the newest etcd; `HAPROXY_CERTS_LONG=1` takes all that are there.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may fail loudly")]

mod support;

use rustix::process::Signal;
use serde_json::Value;

use support::etcd::{EtcdSetup, EtcdVersion, etcds, newest_etcd};
use support::fleet::{Fleet, Node, serves};
use support::process::Running;
use support::summary::long;
use support::{Certbot, Cmd, LIMIT, Pebble, Port, served, wait_until};

fn chosen() -> Vec<EtcdVersion> {
    if long() { etcds() } else { vec![newest_etcd()] }
}

/// Port 80 of a node as `haproxy-config` has it, where certbot runs elsewhere.
fn port_80(http: &Port, challenge: &Port) -> String {
    let table = format!("[certbot]\nchallenge_servers = [\"127.0.0.1:{}\"]\n", challenge.number());
    let text = Cmd::new("").with_tables(&table).run(&["haproxy-config"]).exits(0).stdout;
    let section = |name: &str| {
        let start = text.find(&format!("\n{name}\n")).unwrap();
        let rest = &text[start + 1..];
        let end = ["\nfrontend ", "\nbackend "].into_iter().filter_map(|next| rest.find(next)).min();
        rest[..end.unwrap_or(rest.len())].to_owned()
    };
    let front = section("frontend http");
    let bind = front.lines().find(|line| line.trim_start().starts_with("bind ")).unwrap();
    let front = front.replace(bind, &format!("    bind {}", http.address()));
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

#[test]
fn issued_renewed_deleted_and_a_node_removed_over_a_cluster() {
    for version in chosen() {
        over_a_cluster(&version);
    }
}

fn over_a_cluster(version: &EtcdVersion) {
    let mut etcd = EtcdSetup::of(version).three().tls().start();
    etcd.users_on("edge", "readwrite");
    let (http, challenge) = (Port::free(), Port::free());
    let pebble = Pebble::start(&http);
    let certbot = Certbot::of(&pebble, &challenge);
    let mut fleet = Fleet::in_etcd(&etcd.settings("edge"));
    fleet.publisher = Cmd::new(certbot.live());
    // certbot answers behind the first node.
    fleet.join_with("lb1", Some("2.6"), &port_80(&http, &challenge));
    fleet.join("lb2", Some("3.0"));
    fleet.join("lb3", Some("3.4"));
    fleet.tell_publisher();

    let hook =
        format!("{} --config {} assemble", Cmd::program().display(), fleet.publisher.config().display());
    let issue = |name: &str| {
        let output = certbot.certonly(&["--cert-name", name, "-d", name, "--deploy-hook", &hook]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!said.contains("reported error code"), "{said}\n{}", certbot.log());
    };
    let all_serve = |nodes: &[Node], name: &str| {
        let serial = certbot.serial(name);
        for node in nodes {
            let address = node.haproxy.as_ref().unwrap().address();
            let what = format!("{name} on {}", node.name);
            wait_until(LIMIT, &what, || served(address, name).serial == serial);
        }
    };
    issue("www.example.org");
    fleet.tell_nodes("");
    let mut daemons: Vec<Running> = fleet.nodes.iter().map(Node::start).collect();
    all_serve(&fleet.nodes, "www.example.org");

    // One is down while others are renewed, issued and deleted.
    end(&mut daemons[2]);
    let before = served(fleet.nodes[2].haproxy.as_ref().unwrap().address(), "www.example.org").serial;
    certbot.succeed(&["renew", "--force-renewal"]);
    all_serve(&fleet.nodes[..2], "www.example.org");
    issue("b.example.org");
    all_serve(&fleet.nodes[..2], "b.example.org");
    for name in ["lb1", "lb2"] {
        wait_until(LIMIT, name, || is_current(&fleet, name));
    }
    assert!(!is_current(&fleet, "lb3"));
    let still = served(fleet.nodes[2].haproxy.as_ref().unwrap().address(), "www.example.org").serial;
    assert_eq!(still, before, "without the store it goes on with what it has");
    certbot.succeed(&["delete", "--cert-name", "www.example.org"]);
    // certbot runs no hook when it deletes: the timer's run does it.
    fleet.publisher.run(&["assemble"]).exits(0);
    daemons[2] = fleet.nodes[2].start();
    for node in &fleet.nodes {
        let what = format!("only b.example.org on {}", node.name);
        wait_until(LIMIT, &what, || node.cmd.deployed() == ["b.example.org.pem"]);
        wait_until(LIMIT, &what, || is_current(&fleet, &node.name));
    }
    all_serve(&fleet.nodes, "b.example.org");
    let text = fleet.publisher.run(&["fleet", "status"]).exits(0).stdout;
    assert!(text.contains("3 of 3 nodes confirmed"), "{text}");

    // One is removed: it reads nothing that comes later.
    let removed = fleet.nodes.remove(1);
    let serial = certbot.serial("b.example.org");
    fleet.tell_publisher();
    let run = fleet.publisher.run(&["fleet", "publish"]).exits(1);
    assert!(run.stdout.contains("lb2 is no node any more, and can still read"), "{run}");
    fleet.publisher.run(&["fleet", "status"]).exits(1);
    fleet.publisher.run(&["fleet", "rotate"]).exits(0);
    certbot.succeed(&["renew", "--force-renewal"]);
    all_serve(&fleet.nodes, "b.example.org");
    for name in ["lb1", "lb3"] {
        wait_until(LIMIT, name, || is_current(&fleet, name));
    }
    wait_until(LIMIT, "the removed one says so", || removed.words().contains(&"fleet-not-a-node".to_owned()));
    let address = removed.haproxy.as_ref().unwrap().address();
    assert_eq!(served(address, "b.example.org").serial, serial, "it has what it had");
    let text = fleet.publisher.run(&["fleet", "status"]).exits(0).stdout;
    assert!(text.contains("2 of 2 nodes confirmed") && !text.contains("lb2"), "{text}");
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
