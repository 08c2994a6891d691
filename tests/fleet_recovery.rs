//! Fleets whose publisher is replaced, cloned, restored or loses what it remembers, and nodes of which nothing can be seen:
//! what is said of them is what is so.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may fail loudly")]

use std::fs;

use haproxy_certs::fleet::head::SignedHead;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use support::cmd::toml;
use support::etcd::{EtcdSetup, newest_etcd};
use support::fleet::{Fleet, NO_HAPROXY, files, put_back};
use support::middleman::Middleman;
use support::process::Running;
use support::{Cmd, LIMIT, served, wait_until};

const MINUTE: i64 = 60;

/// The store's head.
fn head(fleet: &Fleet) -> SignedHead {
    SignedHead::read(&fs::read(fleet.folder().join("head")).unwrap()).unwrap()
}

/// Whether the publisher's status has a problem of this name.
fn has_problem(fleet: &Fleet, word: &str) -> bool {
    fleet.publisher.run(&["fleet", "status", "--format", "json"]).json()["problems"]
        .to_string()
        .contains(word)
}

/// A publisher that ends as soon as its head is there knows all the same who was left out of it and can read, and after
/// `rotate` that nobody can.
#[test]
fn who_can_still_read_is_known_whenever_a_publish_ends() {
    let etcd = EtcdSetup::of(&newest_etcd()).start();
    let middleman = Middleman::before(&etcd.endpoints()[0]);
    let mut settings = etcd.settings("edge");
    settings.endpoints = vec![middleman.endpoint()];
    let mut fleet = Fleet::in_etcd(&settings);
    for name in ["lb1", "lb2"] {
        fleet.join(name, None);
    }
    fleet.tell_publisher();
    fleet.issue("a.example");
    fleet.publish();
    let config = fleet.publisher.config();
    let is_killed_at_its_head = |fleet: &Fleet, arguments: &[&str]| {
        let number = || {
            fleet.publisher.run(&["fleet", "status", "--format", "json"]).json()["head"]["sequence"].as_u64()
        };
        let before = number();
        middleman.hold("\"compare\"");
        let mut publisher = Running::start(Cmd::program(), |command| {
            fleet.publisher.prepare(command);
            command.arg("--config").arg(&config).args(arguments).stdout(std::process::Stdio::null())
        });
        wait_until(LIMIT, "the head", || middleman.held() > 0);
        publisher.signal(rustix::process::Signal::KILL);
        publisher.wait(LIMIT);
        middleman.let_go();
        wait_until(LIMIT, "the next head", || number() > before);
    };
    fleet.nodes.pop();
    fleet.tell_publisher();
    is_killed_at_its_head(&fleet, &["fleet", "publish"]);
    assert!(has_problem(&fleet, "lb2 is no node any more, and can still read"));
    is_killed_at_its_head(&fleet, &["fleet", "rotate"]);
    assert!(!has_problem(&fleet, "fleet-not-rotated"));
    fleet.publish();
    assert!(!has_problem(&fleet, "fleet-not-rotated"));
}

/// The nodes go by when a head was signed: the one that is replaced may be from a clock that is ahead.
#[test]
fn a_publisher_takes_over_from_one_whose_clock_is_ahead() {
    let mut fleet = Fleet::new(1);
    fleet.issue("a.example");
    fleet.publish();
    fleet.tell_nodes("");
    fleet.sign(|head| {
        head.sequence += 1;
        head.signed += 50 * MINUTE;
        head.expires += 50 * MINUTE;
    });
    fleet.all_follow();
    let ahead = head(&fleet).head.signed;
    let old = fleet.line();
    fleet.forget_publisher();
    fleet.publisher.run(&["fleet", "publish", "--take-over"]).exits(0);
    fleet.renew("a.example");
    fleet.publish();
    assert!(head(&fleet).head.signed > ahead);
    // Both count while one takes the other's place.
    fleet.publisher.run(&["fleet", "publish", "-v"]).exits(0);
    let new = fleet.line();
    fleet.tell_node(0, &[&old, &new], "");
    fleet.all_follow();
    fleet.must_all_be_as_wanted("by the new publisher");
}

/// Two hosts with one identity: who comes second is refused, and nothing of the first one's goes.
#[test]
fn a_clone_of_the_publisher_is_refused() {
    let mut fleet = Fleet::new(1);
    fleet.issue("a.example");
    fleet.publish();
    fleet.tell_nodes("");
    let cache = fleet.publisher.beside("cache");
    let before = files(&cache);
    fleet.issue("b.example");
    fleet.publish();
    fleet.all_follow();
    // As the other host has it.
    let after = files(&cache);
    put_back(&cache, &before);
    fleet.tree.delete("b.example");
    let stored = fleet.stored();
    let run = fleet.publisher.run(&["fleet", "publish"]).exits(3);
    assert!(run.stderr.contains("number 2 was published with this host's identity"), "{run}");
    assert_eq!(fleet.stored(), stored);
    fleet.all_follow();
    fleet.must_all_be_as_wanted("by the first one");
    let run = fleet.publisher.run(&["status", "--format", "json"]).exits(1);
    assert!(run.stdout.contains("run-failed"), "{run}");
    // Where it is one host, from a backup, that is said once.
    fleet.publisher.run(&["fleet", "publish", "--take-over"]).exits(0);
    fleet.wanted.remove("b.example");
    fleet.all_follow();
    fleet.must_all_be_as_wanted("from the backup");
    // And the first one hears of it in its turn.
    put_back(&cache, &after);
    fleet.publisher.run(&["fleet", "publish"]).exits(3);
}

/// Who was removed and can still read is known as long as that is so, whatever the publisher has lost.
#[test]
fn a_removed_node_is_told_of_until_the_next_epoch() {
    let mut fleet = Fleet::new(2);
    fleet.bring_in_step(&["a.example"]);
    fleet.nodes.pop();
    fleet.tell_publisher();
    assert!(has_problem(&fleet, "fleet-not-rotated"), "nothing is published yet");
    fleet.publisher.run(&["fleet", "publish"]).exits(1);
    fs::remove_dir_all(fleet.publisher.beside("cache")).unwrap();
    let run = fleet.publisher.run(&["fleet", "publish"]).exits(1);
    assert!(run.stdout.contains("lb2 is no node any more, and can still read"), "{run}");
    assert!(has_problem(&fleet, "fleet-not-rotated"));

    let between = fleet.stored();
    fleet.publisher.run(&["fleet", "rotate"]).exits(0);
    assert!(!has_problem(&fleet, "fleet-not-rotated"));
    fleet.all_follow();
    let rotated = head(&fleet).head;
    // The store comes back as it was before that, but for the nodes' reports; and the publisher remembers nothing.
    let reports = files(&fleet.folder().join("report"));
    fleet.restore(&between);
    for (name, bytes) in &reports {
        fs::write(fleet.folder().join("report").join(name), bytes).unwrap();
    }
    fs::remove_dir_all(fleet.publisher.beside("cache")).unwrap();
    fleet.renew("a.example");
    let run = fleet.publisher.run(&["fleet", "publish"]).exits(1);
    assert!(run.stdout.contains("lb1 has number"), "{run}");
    let now = head(&fleet).head;
    assert!(now.epoch > rotated.epoch && now.epoch_key != rotated.epoch_key, "{now:?}");
    fleet.all_follow();
    fleet.must_all_be_as_wanted("of a later epoch");
    // One of an earlier epoch is taken by no node, whatever its number.
    fleet.sign(|head| {
        head.sequence += 1;
        head.epoch = 1;
    });
    let run = fleet.nodes[0].follow();
    assert!(run.stdout.contains("fleet-rollback"), "{run}");
    fleet.must_all_be_as_wanted("after an earlier epoch");
}

/// What comes faster than the longest wait isn't waited with for ever.
#[test]
fn heads_that_follow_each_other_are_not_waited_with_for_ever() {
    let mut fleet = Fleet::new(2);
    fleet.bring_in_step(&["a.example"]);
    let line = fleet.line();
    let waits = |fleet: &mut Fleet, most: &str| {
        fleet.tell_node(1, &[&line], &format!("wait_for = [\"lb1\"]\nwait_at_most = \"{most}\""));
    };
    waits(&mut fleet, "1h");
    let old = fleet.wanted.clone();
    fleet.renew("a.example");
    fleet.publish();
    // Its canary is down since then.
    fleet.sign(|head| {
        head.sequence += 1;
        head.signed -= 50 * MINUTE;
    });
    let run = fleet.nodes[1].follow().exits(1);
    assert!(run.stdout.contains("fleet-waiting"), "{run}");
    fleet.nodes[1].must_have(&old, "while it waits");
    fleet.sign(|head| {
        head.sequence += 1;
        head.signed += 50 * MINUTE;
    });
    let run = fleet.nodes[1].follow().exits(1);
    assert!(run.stdout.contains("fleet-waiting"), "{run}");
    waits(&mut fleet, "40m");
    fleet.nodes[1].follow().exits(0);
    fleet.nodes[1].must_have(&fleet.wanted, "it waited for long enough");
}

/// What a node says of itself, by the publisher's look at the fleet: it has the store's head, and whether it confirms it.
#[track_caller]
fn said_of(fleet: &Fleet, node: usize, is_confirmed: bool, context: &str) -> Value {
    let run = fleet.publisher.run(&["fleet", "status", "--format", "json"]);
    let mut report = run.exits(i32::from(!is_confirmed)).json();
    let said = report["nodes"][node].take();
    assert_eq!(
        (&said["current"], &said["confirmed"]),
        (&true.into(), &is_confirmed.into()),
        "{context}: {said}"
    );
    said
}

/// Two nodes with the first head, of which the second waits for the first from now on.
fn with_a_canary(version: Option<&str>, own: impl FnOnce(&str) -> String) -> Fleet {
    let mut fleet = Fleet::of(vec![version, None]);
    fleet.bring_in_step(&["a.example", "b.example"]);
    said_of(&fleet, 0, true, "at first");
    let line = fleet.line();
    fleet.nodes[0].own = own(&fleet.nodes[0].own);
    fleet.tell_node(0, &[&line], "");
    fleet.tell_node(1, &[&line], "wait_for = [\"lb1\"]");
    fleet
}

/// A renewal reaches the node that waits once its canary was seen to have it, and not before. `exit`: how the canary's look
/// ends.
#[track_caller]
fn must_wait(fleet: &mut Fleet, exit: i32, word: &str, context: &str) {
    let waiting = fleet.nodes[1].cmd.site("a.example");
    let old = fs::read(&waiting).unwrap();
    fleet.renew("a.example");
    fleet.publish();
    // What was seen once needn't be so now.
    for _ in 0..2 {
        let run = fleet.nodes[0].follow();
        assert_eq!(run.code, Some(exit), "{context}: {run}");
        assert!(run.stdout.contains(word), "{context}: {run}");
    }
    fleet.nodes[0].must_have(&fleet.wanted, context);
    let said = said_of(fleet, 0, false, context);
    assert!(said.to_string().contains(word), "{context}: {said}");
    let run = fleet.nodes[1].follow().exits(1);
    assert!(run.stdout.contains("fleet-waiting"), "{context}: {run}");
    assert!(fs::read(waiting).unwrap() == old, "{context}");
}

#[track_caller]
fn must_be_let_through(fleet: &Fleet, context: &str) {
    fleet.all_follow();
    said_of(fleet, 0, true, context);
    fleet.must_all_be_as_wanted(context);
}

/// HAProxy isn't asked for what very many names would end it by: as long as it may have the old certificate, nobody says that
/// it has the new one.
#[test]
fn what_a_haproxy_is_not_asked_for_is_not_confirmed() {
    for version in ["2.2", "2.6"] {
        let mut fleet = with_a_canary(Some(version), |own| format!("{own}reload = \"none\"\n"));
        if fleet.nodes[0].haproxy.is_none() {
            continue;
        }
        let old = fleet.tree.leaf("a.example").serial();
        must_wait(&mut fleet, 2, "haproxy-not-confirmed", version);
        let address = fleet.nodes[0].haproxy.as_ref().unwrap().address();
        assert_eq!(served(address, "a.example").serial, old, "{version}");
        fleet.nodes[0].cmd.run(&["status"]).exits(3);
        // Of the other lineage it is known what it has.
        assert!(!said_of(&fleet, 0, false, version).to_string().contains("b.example"), "{version}");
        fleet.nodes[0].haproxy.as_mut().unwrap().reload_and_wait();
        assert_eq!(served(address, "a.example").serial, fleet.tree.leaf("a.example").serial(), "{version}");
        must_be_let_through(&fleet, version);
    }
}

/// A HAProxy of several that isn't notified, and of which nothing can be seen, may have the old one.
#[test]
fn each_of_several_haproxys_has_to_be_seen() {
    let second = "[[haproxy]]\nname = \"two\"\nreload = \"none\"\nbinary = \"\"\n";
    let mut fleet = with_a_canary(Some("3.0"), |own| format!("{own}{second}"));
    must_wait(&mut fleet, 0, "haproxy-not-confirmed", "nothing to see it by");
    let socket = format!("runtime_socket = {}\n", toml(&fleet.place.path().join("nobody")));
    fleet.nodes[0].own += &socket;
    let line = fleet.line();
    fleet.tell_node(0, &[&line], "");
    must_wait(&mut fleet, 0, "haproxy-not-confirmed", "nobody listens");
    fleet.nodes[0].own = fleet.nodes[0].own.replace(&format!("{second}{socket}"), "");
    fleet.tell_node(0, &[&line], "");
    must_be_let_through(&fleet, "of the first one alone");
}

/// Where no HAProxy is this program's business, that the files are there is all that there is to confirm.
#[test]
fn a_node_without_a_haproxy_confirms_its_files() {
    // The default master socket of the first table isn't there.
    let own = |own: &str| {
        assert!(own.starts_with(NO_HAPROXY));
        let own = own.replace("master_socket = \"\"\n", "");
        format!("{own}[[haproxy]]\nname = \"two\"\nreload = \"none\"\nbinary = \"\"\n")
    };
    let mut fleet = with_a_canary(None, own);
    fleet.renew("a.example");
    fleet.publish();
    must_be_let_through(&fleet, "nothing to see");
}

/// A single look ends as its words say: where HAProxy hangs or doesn't run although it should, with a refused lineage beside
/// it or without, it isn't 0 or 1.
#[test]
fn a_look_at_a_haproxy_that_hangs_or_is_down_ends_with_2() {
    let mut fleet = with_a_canary(Some("3.0"), |own| format!("{own}timeout = \"2s\"\n"));
    let haproxy = fleet.nodes[0].haproxy.as_ref().unwrap();
    let processes = [haproxy.worker_pids(), vec![haproxy.master_pid()]].concat();
    let signal = |signal| {
        for pid in &processes {
            kill(Pid::from_raw(pid.cast_signed()), signal).unwrap();
        }
    };
    let must_end_with_2 = |fleet: &Fleet, word: &str, context: &str| {
        let run = fleet.nodes[0].follow().exits(2);
        assert!(run.stdout.contains(word), "{context}: {run}");
        assert!(said_of(fleet, 0, false, context).to_string().contains(word), "{context}");
    };
    signal(Signal::SIGSTOP);
    must_end_with_2(&fleet, "haproxy-not-confirmed", "it hangs, and nothing is new");
    signal(Signal::SIGCONT);
    must_be_let_through(&fleet, "it goes on");
    let line = fleet.line();
    fleet.nodes[0].own = fleet.nodes[0].own.replace("timeout = \"2s\"\n", "");
    fleet.tell_node(0, &[&line], "");
    fleet.nodes[0].haproxy.as_mut().unwrap().kill();
    must_end_with_2(&fleet, "haproxy-down", "it was killed, and nothing is new");
    must_wait(&mut fleet, 2, "haproxy-down", "it was killed");
    // A file of somebody else's in the way of a lineage is a matter of its own.
    let site = fleet.nodes[0].cmd.site("c.example");
    fs::copy(fleet.nodes[0].cmd.site("b.example"), &site).unwrap();
    fleet.issue("c.example");
    fleet.publish();
    must_end_with_2(&fleet, "haproxy-down", "it was killed, and a lineage is in conflict");
    fs::remove_file(site).unwrap();
    fleet.nodes[0].haproxy.as_mut().unwrap().run_again();
    must_be_let_through(&fleet, "it runs again");
}

/// HAProxy was started twice: clients get either, so nobody says what they are served.
#[test]
fn a_haproxy_that_was_started_twice_confirms_nothing() {
    let fleet = with_a_canary(Some("3.0"), str::to_owned);
    let haproxy = fleet.nodes[0].haproxy.as_ref().unwrap();
    let mut twin = Running::start(&haproxy.version().program, |command| {
        command.arg("-W").arg("-f").arg(haproxy.config()).arg("-S").arg(fleet.place.path().join("twin"))
    });
    let says_so = || fleet.nodes[0].cmd.run(&["status"]).stdout.contains("clients get either");
    wait_until(LIMIT, "it listens, too", says_so);
    let run = fleet.nodes[0].follow().exits(2);
    assert!(run.stdout.contains("haproxy-not-confirmed"), "{run}");
    said_of(&fleet, 0, false, "twice");
    twin.stop();
    wait_until(LIMIT, "it is gone", || !says_so());
    must_be_let_through(&fleet, "once");
}

/// A node that notifies a HAProxy of which it can see nothing confirms nothing, and who waits for it waits on.
#[test]
fn what_nobody_can_see_is_not_confirmed() {
    let mut fleet = Fleet::new(2);
    fleet.issue("a.example");
    fleet.publish();
    let blind = "[[haproxy]]\nreload = \"command\"\ncommand = [\"/bin/true\"]\nbinary = \"\"\nunit = \"\"\npidfile = \"\"\nmaster_socket = \"\"\n";
    fleet.nodes[0].own = blind.to_owned();
    fleet.tell_nodes("");
    let table = fs::read_to_string(fleet.nodes[1].cmd.config()).unwrap();
    fleet.all_follow();
    fleet.must_all_be_as_wanted("by a command");
    let report = fleet.publisher.run(&["fleet", "status", "--format", "json"]).exits(1).json();
    assert_eq!(report["nodes"][0]["confirmed"], false, "{report}");
    assert!(report.to_string().contains("haproxy-not-confirmed"), "{report}");
    assert!(table.contains("publishers"), "{table}");
    let line = fleet.line();
    fleet.tell_node(1, &[&line], "wait_for = [\"lb1\"]");
    let old = fleet.wanted.clone();
    fleet.renew("a.example");
    fleet.publish();
    fleet.nodes[0].follow().exits(0);
    let run = fleet.nodes[1].follow().exits(1);
    assert!(run.stdout.contains("fleet-waiting"), "{run}");
    fleet.nodes[1].must_have(&old, "its canary is blind");
}

/// A fleet's status grows as bad as its hosts' own where nobody publishes: also where the store lost its head, or is gone.
#[test]
fn a_store_without_a_head_becomes_critical_as_an_old_head_does() {
    let mut fleet = Fleet::new(1);
    fleet.bring_in_step(&["a.example"]);
    let (hour, away) = (60 * MINUTE, fleet.place.path().join("away"));
    for (age, stale) in [(1, None), (40, Some("warning")), (36 + 8 * 24, Some("critical"))] {
        fleet.grow_old(age * hour);
        let (head, cache) = (fleet.folder().join("head"), fleet.nodes[0].cmd.beside("cache"));
        fs::copy(&head, cache.join("head")).unwrap();
        let kept = fleet.stored();
        let hosts = [&fleet.publisher, &fleet.nodes[0].cmd];
        let must_be = |context: &str| {
            for (cmd, command) in hosts.into_iter().flat_map(|cmd| [(cmd, &["fleet"][..]), (cmd, &[])]) {
                let run = cmd.run(&[command, &["status", "--format", "json"]].concat());
                let context = format!("{context}, {age} hours: {run}");
                let status = run.json();
                let problems = status["problems"].as_array().unwrap();
                let found = problems.iter().find(|it| it["problem"] == "fleet-stale");
                assert_eq!(found.map(|it| it["severity"].as_str().unwrap()), stale, "{context}");
                if stale == Some("critical") {
                    assert_eq!(run.code, Some(2), "{context}");
                }
            }
            let run = fleet.publisher.run(&["fleet", "status", "--format", "json"]);
            (run.json()["nodes"].clone(), run)
        };
        must_be("the store has it");
        fs::rename(fleet.folder(), &away).unwrap();
        let (_, run) = must_be("the store is gone");
        assert!(run.stdout.contains("fleet-unreachable"), "{run}");
        fs::rename(&away, fleet.folder()).unwrap();
        fs::write(&head, "nonsense").unwrap();
        must_be("something else is in its place");
        fs::remove_file(&head).unwrap();
        let (nodes, run) = must_be("the head is gone");
        assert!(run.stdout.contains("fleet-empty") && run.code > Some(0), "{run}");
        assert_eq!(nodes[0]["name"], "lb1", "what can be read is shown: {run}");
        fleet.restore(&kept);
    }
}
