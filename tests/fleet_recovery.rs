//! Fleets whose publisher is replaced, cloned, restored or loses what it remembers, and nodes of which nothing can be seen:
//! what is said of them is what is so.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may fail loudly")]

mod support;

use std::fs;

use haproxy_certs::fleet::head::SignedHead;
use support::fleet::{Fleet, files, put_back};

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
    fleet.issue("a.example");
    fleet.publish();
    fleet.tell_nodes("");
    fleet.all_follow();
    fleet.nodes.pop();
    fleet.tell_publisher();
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
    fleet.issue("a.example");
    fleet.publish();
    fleet.tell_nodes("");
    fleet.all_follow();
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
