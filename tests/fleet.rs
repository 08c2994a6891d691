//! Fleets with the real program: one publisher with certbot's tree, nodes with and without HAProxys of several versions,
//! and a store in between that loses, lies and withholds.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may fail loudly")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use haproxy_certs::certified_key::hex;
use haproxy_certs::fleet::head::SignedHead;
use haproxy_certs::fleet::identity::HostIdentity;
use haproxy_certs::fleet::node_list::NodeList;
use haproxy_certs::fleet::report::NodeReport;
use rustix::process::Signal;
use serde_json::Value;
use support::cmd::toml;
use support::etcd::{EtcdSetup, newest_etcd};
use support::fleet::{Contents, Fleet, NO_HAPROXY, Node, files, must_hold_no_key, serves};
use support::process::Running;
use support::promtool::{judge, series};
use support::strace::{self, processors};
use support::{Authority, Cmd, KeyKind, Kind, LIMIT, Port, Tree, Validity};
use support::{served, wait_until};

/// What somebody does to a store.
type Change<'a> = &'a dyn Fn(&mut Contents);

/// What is lost, and how.
type Loss<'a> = (&'a str, &'a dyn Fn(&Fleet));

#[test]
fn published_renewed_and_deleted_on_every_node() {
    let mut fleet = Fleet::of(vec![Some("2.2"), Some("2.6"), Some("3.0"), Some("3.4")]);
    fleet.bring_in_step(&["a.example", "b.example", "c.example"]);
    serves(&fleet, "the first time");
    must_hold_no_key(&fleet.folder(), &fleet);
    must_hold_no_key(&fleet.nodes[0].cmd.beside("cache"), &fleet);
    must_hold_no_key(&fleet.publisher.beside("cache"), &fleet);

    // The last node is down meanwhile.
    fleet.renew("b.example");
    fleet.issue("d.example");
    let run = fleet.publish();
    assert!(run.stdout.contains("publish    b.example\npublish    d.example\n"), "{run}");
    let before = fleet.stored();
    assert!(fleet.publish().stdout.contains("nothing changed"));
    assert_eq!(fleet.stored(), before);
    for node in &fleet.nodes[..3] {
        node.follow().exits(0);
        node.must_have(&fleet.wanted, "after a renewal");
    }
    let status = fleet.publisher.run(&["fleet", "status", "--format", "json"]).exits(0).json();
    assert_eq!(status["nodes"][0]["confirmed"], true, "{status}");
    assert_eq!(
        (&status["nodes"][0]["current"], &status["nodes"][3]["current"]),
        (&true.into(), &false.into())
    );
    fleet.delete("a.example");
    let run = fleet.publish();
    assert!(run.stdout.contains("gone       a.example"), "{run}");
    fleet.all_follow();
    serves(&fleet, "after a deletion");
    let text = fleet.nodes[0].cmd.run(&["fleet", "status"]).exits(0).stdout;
    assert!(text.contains("4 of 4 nodes confirmed number 3"), "{text}");
    for node in &fleet.nodes {
        node.cmd.run(&["status"]).exits(0);
    }
}

#[test]
fn a_refused_lineage_stays_as_it_was_published() {
    let mut fleet = Fleet::new(1);
    for name in ["a.example", "b.example"] {
        fleet.issue(name);
    }
    fleet.publish();
    fleet.tell_nodes("");
    let other = Authority::new().issue(KeyKind::P256, &["x.example"], Validity::days(9));
    fleet.tree.overwrite("a.example", Kind::Privkey, other.key.pem());
    fleet.renew("b.example");
    let run = fleet.publisher.run(&["fleet", "publish"]).exits(1);
    assert!(run.stdout.contains("refuse     a.example"), "{run}");
    fleet.all_follow();
    fleet.must_all_be_as_wanted("with a refused one");
    // Also when everything is sealed anew.
    let run = fleet.publisher.run(&["fleet", "rotate"]).exits(1);
    assert!(run.stdout.contains("refuse     a.example"), "{run}");
    fleet.all_follow();
    fleet.must_all_be_as_wanted("after a rotation");
}

#[test]
fn what_is_gone_passes_the_guards_of_publisher_and_nodes() {
    let mut fleet = Fleet::new(1);
    let names: Vec<String> = (0..8).map(|at| format!("n{at}.example")).collect();
    for name in &names {
        fleet.issue(name);
    }
    fleet.publish();
    fleet.tell_nodes("");
    fleet.all_follow();
    let all = fleet.wanted.clone();
    for name in &names[..4] {
        fleet.delete(name);
    }
    let run = fleet.publisher.run(&["fleet", "publish"]).exits(1);
    assert!(run.stdout.contains("too many to prune at once"), "{run}");
    fleet.all_follow();
    fleet.nodes[0].must_have(&all, "held by the publisher");
    fleet.publisher.run(&["fleet", "publish", "--prune-many"]).exits(0);
    fleet.all_follow();
    fleet.must_all_be_as_wanted("permitted by the publisher");
    // A tree that isn't there is no empty one.
    fs::rename(fleet.tree.live(), fleet.tree.root().join("gone")).unwrap();
    for conf in fs::read_dir(fleet.tree.root().join("renewal")).unwrap() {
        fs::remove_file(conf.unwrap().path()).unwrap();
    }
    fleet.publisher.run(&["fleet", "publish", "--prune-many"]).exits(1);
    fleet.all_follow();
    fleet.must_all_be_as_wanted("without certbot's tree");
}

#[test]
fn a_second_publisher_is_refused_and_can_take_over() {
    let mut fleet = Fleet::new(1);
    fleet.bring_in_step(&["a.example"]);
    let first = fs::read_to_string(fleet.publisher.beside("identity.pub")).unwrap();
    fleet.forget_publisher();
    let before = fleet.stored();
    let run = fleet.publisher.run(&["fleet", "publish"]).exits(3);
    assert!(run.stderr.contains("another publisher, SHA256:") && run.stderr.contains("number 1"), "{run}");
    assert_eq!(fleet.stored(), before);
    fleet.issue("b.example");
    fleet.publisher.run(&["fleet", "publish", "--take-over"]).exits(0);
    // The node doesn't know the new one, and keeps what it has.
    let node = &fleet.nodes[0];
    let run = node.follow().exits(2);
    assert!(run.stdout.contains("fleet-unknown-publisher"), "{run}");
    assert_eq!(node.cmd.deployed(), ["a.example.pem"]);
    assert!(node.words().contains(&"fleet-unknown-publisher".to_owned()));
    fleet.tell_nodes("");
    fleet.all_follow();
    fleet.must_all_be_as_wanted("by the new publisher");
    // The first one, back again, is refused in its turn.
    assert_ne!(fs::read_to_string(fleet.publisher.beside("identity.pub")).unwrap(), first);
}

/// Its advice names the fleet, whoever signed the head, and mends.
#[test]
fn another_fleets_head_is_called_that_and_its_advice_mends() {
    let mut fleet = Fleet::new(1);
    fleet.bring_in_step(&["a.example"]);
    let own = fs::read(fleet.folder().join("head")).unwrap();
    let stranger = HostIdentity::generate().unwrap();
    let identity = HostIdentity::load(&fleet.publisher.beside("identity")).unwrap().unwrap();
    for (signer, said) in
        [(&identity, "this host's own key".to_owned()), (&stranger, stranger.public().signing.fingerprint())]
    {
        let mut head = SignedHead::read(&own).unwrap().head;
        (head.fleet, head.sequence) = ("third".parse().unwrap(), 40);
        let others = head.sign(signer.signing());
        fs::write(fleet.folder().join("head"), &others).unwrap();
        let run = fleet.nodes[0].follow().exits(2);
        if said.starts_with("this") {
            assert!(run.stdout.contains("fleet-other: the head belongs to the fleet third"), "{run}");
            assert!(run.stdout.contains("fleet publish --take-over\n"), "{run}");
        }
        fleet.renew("a.example");
        let run = fleet.publisher.run(&["fleet", "publish"]).exits(3);
        let fact =
            format!("the store holds the head of another fleet, third: number 40, signed by {said} at ");
        assert!(run.stderr.contains(&fact) && !run.stderr.contains("another publisher"), "{run}");
        assert!(run.stderr.contains("set name and store of [fleet] right"), "{run}");
        assert_eq!(fs::read(fleet.folder().join("head")).unwrap(), others);
        let advice = run.stderr.split("haproxy-certs fleet ").nth(1).unwrap();
        let advice: Vec<&str> = ["fleet"].into_iter().chain(advice.split_whitespace()).collect();
        assert_eq!(advice, ["fleet", "publish", "--take-over"]);
        fleet.publisher.run(&advice).exits(0);
        fleet.all_follow();
        fleet.must_all_be_as_wanted(&said);
        fleet.publish();
    }
}

#[test]
fn a_removed_node_reads_nothing_of_the_next_epoch() {
    let mut fleet = Fleet::new(2);
    fleet.bring_in_step(&["a.example"]);
    let removed = fleet.nodes.pop().unwrap();
    fleet.tell_publisher();
    let run = fleet.publisher.run(&["fleet", "publish"]).exits(1);
    assert!(run.stdout.contains("lb2 is no node any more, and can still read: run haproxy-certs"), "{run}");
    fleet.publisher.run(&["fleet", "rotate"]).exits(0);
    fleet.renew("a.example");
    fleet.publish();
    fleet.all_follow();
    fleet.must_all_be_as_wanted("the one that is left");
    let run = removed.follow().exits(1);
    assert!(run.stdout.contains("fleet-not-a-node"), "{run}");
    // Even with the sealed key of another put in its own place.
    let keys = fleet.folder().join("key/2");
    fs::copy(keys.join("lb1"), keys.join("lb2")).unwrap();
    fleet.sign(|head| {
        let listed = fleet.folder().join("page").join(hex(&head.nodes));
        let list = NodeList::read(&fs::read(listed).unwrap()).unwrap();
        let added = ("lb2".parse().unwrap(), removed.key.parse().unwrap());
        let list = NodeList::of(list.iter().cloned().chain([added]));
        head.nodes = list.hash();
        fs::write(fleet.folder().join("page").join(hex(&head.nodes)), list.to_bytes()).unwrap();
    });
    let identity = HostIdentity::load(&removed.cmd.beside("identity")).unwrap().unwrap();
    let head = SignedHead::read(&fs::read(fleet.folder().join("head")).unwrap()).unwrap().head;
    let sealed = fs::read(keys.join("lb2")).unwrap();
    let opened = haproxy_certs::fleet::epoch::EpochKey::open(
        &sealed,
        &identity,
        &head.fleet,
        &"lb2".parse().unwrap(),
        (head.epoch, &head.epoch_key),
    );
    assert!(opened.is_err());
    assert!(removed.cmd.deployed() == ["a.example.pem"]);
}

/// The words of what `fleet status` says on the publisher, with the node that each is about.
fn words_of_all(fleet: &Fleet) -> Vec<(String, String)> {
    let status = fleet.publisher.run(&["fleet", "status", "--format", "json"]).json();
    let word = |it: &serde_json::Value| it["problem"].as_str().unwrap().to_owned();
    let of = |name: &str, problems: &serde_json::Value| -> Vec<(String, String)> {
        problems.as_array().unwrap().iter().map(|it| (name.to_owned(), word(it))).collect()
    };
    let nodes = status["nodes"].as_array().unwrap().iter();
    let of_nodes = nodes.flat_map(|node| of(node["name"].as_str().unwrap(), &node["problems"]));
    of("", &status["problems"]).into_iter().chain(of_nodes).collect()
}

#[test]
fn a_key_that_is_a_nodes_is_none_that_was_removed() {
    let mut fleet = Fleet::new(2);
    fleet.bring_in_step(&["a.example"]);
    let must_be_told = |fleet: &Fleet, what: &str, fact: &str| {
        let run = fleet.publisher.run(&["fleet", "publish"]).exits(1);
        assert!(
            run.stdout.contains(&format!("note       {fact}: run haproxy-certs fleet rotate")),
            "{what}: {run}"
        );
        for command in [&["fleet", "status"][..], &["status"]] {
            let run = fleet.publisher.run(command).exits(1);
            assert!(run.stdout.replace("\n           ", "").contains(fact), "{what}: {run}");
        }
    };
    let must_be_fine = |fleet: &Fleet, what: &str| {
        fleet.publish();
        fleet.all_follow();
        assert_eq!(words_of_all(fleet), [], "{what}");
        fleet.publish();
        fleet.publisher.run(&["status"]).exits(0);
    };
    let removed = fleet.nodes.pop().unwrap();
    fleet.tell_publisher();
    must_be_told(&fleet, "removed", "lb2 is no node any more, and can still read");
    fleet.nodes.push(removed);
    fleet.tell_publisher();
    must_be_fine(&fleet, "put back");
    fleet.nodes[1].name = "edge-2".to_owned();
    fleet.tell_publisher();
    must_be_fine(&fleet, "another name");
    let (one, two) = fleet.nodes.split_at_mut(1);
    std::mem::swap(&mut one[0].name, &mut two[0].name);
    fleet.tell_publisher();
    must_be_fine(&fleet, "swapped");
    // Whatever names its key had, a removed node is one.
    fleet.nodes.pop();
    fleet.tell_publisher();
    must_be_told(&fleet, "removed after all", "lb1 is no node any more, and can still read");
    fleet.publisher.run(&["fleet", "rotate"]).exits(0);
    must_be_fine(&fleet, "rotated");
}

#[test]
fn a_node_that_is_installed_again_has_not_reported_and_nothing_is_forged() {
    let mut fleet = Fleet::new(2);
    fleet.bring_in_step(&["a.example"]);
    let old = HostIdentity::load(&fleet.nodes[1].cmd.beside("identity")).unwrap().unwrap();
    let stood = fs::read(fleet.folder().join("report/lb2")).unwrap();
    // As the manual has it: `join` there, the new key into the table, `rotate`.
    for name in ["identity", "identity.pub"] {
        fs::remove_file(fleet.nodes[1].cmd.beside(name)).unwrap();
    }
    let joined = fleet.nodes[1].cmd.run(&["fleet", "join"]).exits(0);
    let key = joined.stdout.lines().find_map(|line| line.strip_prefix("key  = \"")).unwrap();
    fleet.nodes[1].key = key.trim_end_matches('"').to_owned();
    fleet.tell_publisher();
    let missing = ("lb2".to_owned(), "fleet-node-missing".to_owned());
    let run = fleet.publisher.run(&["fleet", "publish"]).exits(1);
    assert!(run.stdout.contains("note       the key that lb2 had before can still read: run "), "{run}");
    let not_rotated = (String::new(), "fleet-not-rotated".to_owned());
    assert_eq!(words_of_all(&fleet), [not_rotated, missing.clone()]);
    fleet.publisher.run(&["fleet", "rotate"]).exits(0);
    assert_eq!(words_of_all(&fleet), [missing]);
    let text = fleet.publisher.run(&["fleet", "status"]).exits(1).stdout;
    assert!(text.contains("fleet-node-missing: it hasn't reported since it has another key"), "{text}");
    // Neither a third key's nor another node's report is an old one.
    let report = fleet.folder().join("report/lb2");
    let (edge, lb2) = ("edge".parse().unwrap(), "lb2".parse().unwrap());
    let said = NodeReport::read(&stood, &old.public().signing, &edge, &lb2).unwrap();
    let lb1 = HostIdentity::load(&fleet.nodes[0].cmd.beside("identity")).unwrap().unwrap();
    let forged = ("lb2".to_owned(), "fleet-report-forged".to_owned());
    for (what, value) in [
        ("a stranger", said.sign(HostIdentity::generate().unwrap().signing())),
        ("another node", said.sign(lb1.signing())),
        (
            "its own of another name",
            NodeReport { node: "lb3".parse().unwrap(), ..said.clone() }.sign(old.signing()),
        ),
        ("damaged", stood.iter().map(|byte| if *byte == b'1' { b'2' } else { *byte }).collect()),
    ] {
        fs::write(&report, value).unwrap();
        assert_eq!(words_of_all(&fleet), std::slice::from_ref(&forged), "{what}");
    }
    // Its first look ends it; and so it does elsewhere, where nobody knows which key it had.
    fs::write(&report, stood).unwrap();
    let run = fleet.nodes[0].cmd.run(&["fleet", "status"]).exits(2);
    assert!(run.stdout.contains("on that node, run: haproxy-certs"), "{run}");
    assert!(run.stdout.contains("fleet follow --once"), "{run}");
    fleet.all_follow();
    assert_eq!(words_of_all(&fleet), []);
    fleet.nodes[0].cmd.run(&["fleet", "status"]).exits(0);
    fleet.must_all_be_as_wanted("installed again");
}

#[test]
fn what_looks_as_it_did_is_read_again_neither_on_the_publisher_nor_on_a_node() {
    strace::must_be_there();
    let mut fleet = Fleet::new(1);
    fleet.bring_in_step(&["a.example", "b.example", "c.example"]);
    let processor = processors()[0];
    // How many keys certbot's hook reads.
    let read = |fleet: &Fleet, arguments: &[&str]| {
        let (run, calls) = strace::record(&fleet.publisher, arguments, &[], processor);
        let opens = |call: &&strace::Call| call.name == "openat" && call.arguments.contains("privkey");
        (calls.iter().filter(opens).count(), run)
    };
    wait_until(LIMIT, "files that are old enough", || read(&fleet, &["assemble"]).0 == 0);
    let proved = |fleet: &Fleet| {
        fleet.nodes[0].cmd.run(&["assemble", "--format", "json"]).exits(0).json()["proved"].clone()
    };
    wait_until(LIMIT, "an index of everything", || proved(&fleet) == 0);

    fleet.renew("b.example");
    let (keys, run) = read(&fleet, &["assemble"]);
    assert!(keys == 1 && run.stdout.contains("publish    b.example"), "{keys} {run}");
    fleet.all_follow();
    fleet.must_all_be_as_wanted("one renewal");
    assert_eq!(read(&fleet, &["fleet", "publish"]).0, 3, "by hand everything is read");
    wait_until(LIMIT, "files that are old enough", || read(&fleet, &["assemble"]).0 == 0);

    // Another key of the same length and time in the place of the old one.
    let key = fleet.tree.live().join("a.example/privkey.pem").canonicalize().unwrap();
    let (old, time) = (fs::read(&key).unwrap(), fs::metadata(&key).unwrap().modified().unwrap());
    let mut other = old.clone();
    let middle = other.len() / 2;
    other[middle] = if other[middle] == b'A' { b'B' } else { b'A' };
    fs::write(&key, &other).unwrap();
    fs::File::options().write(true).open(&key).unwrap().set_modified(time).unwrap();
    let run = fleet.publisher.run(&["assemble"]).exits(1);
    assert!(run.stdout.contains("refuse     a.example"), "{run}");
    fs::write(&key, &old).unwrap();

    // A damaged index is none.
    let index = fleet.publisher.beside("cache/pairs");
    let mut bytes = fs::read(&index).unwrap();
    bytes[100] ^= 1;
    fs::write(&index, bytes).unwrap();
    let (keys, run) = read(&fleet, &["assemble"]);
    assert_eq!((keys, run.code), (3, Some(0)), "{run}");

    // What is damaged in a node's cache is seen, and brought again.
    wait_until(LIMIT, "an index of everything", || proved(&fleet) == 0);
    for object in fs::read_dir(fleet.nodes[0].cmd.beside("cache/object")).unwrap() {
        fs::write(object.unwrap().path(), "damaged").unwrap();
    }
    let run = fleet.nodes[0].cmd.run(&["assemble"]);
    assert!(run.code != Some(0), "{run}");
    fleet.all_follow();
    fleet.must_all_be_as_wanted("objects that were damaged");
}

#[test]
fn what_was_confirmed_once_is_looked_at_whenever_it_is_reported() {
    let mut fleet = Fleet::of(vec![Some("3.0")]);
    fleet.bring_in_step(&["a.example"]);
    serves(&fleet, "first");
    fleet.nodes[0].serves_another("a.example");
    let run = fleet.nodes[0].follow().exits(2);
    assert!(run.stdout.contains("a.example: haproxy-stale"), "{run}");
    let text = fleet.publisher.run(&["fleet", "status"]).exits(1).stdout;
    assert!(text.contains("fleet-node-failed") && text.contains("haproxy-stale (serves "), "{text}");
    assert!(text.contains("0 of 1 nodes confirmed"), "{text}");
    fleet.nodes[0].haproxy.as_mut().unwrap().reload_and_wait();
    fleet.all_follow();
    let text = fleet.publisher.run(&["fleet", "status"]).exits(0).stdout;
    assert!(text.contains("1 of 1 nodes confirmed"), "{text}");
    fleet.nodes[0].haproxy.as_mut().unwrap().stop();
    let run = fleet.nodes[0].follow();
    assert!(run.stdout.contains("haproxy-down"), "{run}");
    let text = fleet.publisher.run(&["fleet", "status"]).exits(1).stdout;
    assert!(text.contains("haproxy-down"), "{text}");
}

/// A fleet whose nodes have what was published four times.
fn at_the_fourth_head(nodes: usize) -> Fleet {
    let mut fleet = Fleet::new(nodes);
    fleet.issue("a.example");
    fleet.publish();
    fleet.tell_nodes("");
    for _ in 0..3 {
        fleet.renew("a.example");
        fleet.publish();
    }
    fleet.all_follow();
    fleet
}

#[test]
fn a_publisher_that_lost_everything_passes_the_number_that_the_nodes_have() {
    let mut fleet = at_the_fourth_head(2);
    fs::remove_dir_all(fleet.publisher.beside("cache")).unwrap();
    fleet.restore(&Contents::new());
    fleet.renew("a.example");
    fleet.publish();
    for node in &fleet.nodes {
        let run = node.follow().exits(2);
        assert!(run.stdout.contains("fleet-rollback"), "{run}");
    }
    // What the nodes say to do.
    let run = fleet.publisher.run(&["fleet", "publish"]).exits(1);
    assert!(run.stdout.contains("lb2 has number 4 already"), "{run}");
    fleet.all_follow();
    fleet.must_all_be_as_wanted("after the next publish");
    let run = fleet.publish();
    assert!(run.stdout.contains("stays at number 5"), "{run}");
}

/// The number that comes again is one that the nodes have already, of another head: what they say to do mends it.
#[test]
fn a_publisher_that_lost_everything_passes_the_same_number() {
    let mut fleet = Fleet::new(1);
    fleet.bring_in_step(&["a.example"]);
    fs::remove_dir_all(fleet.publisher.beside("cache")).unwrap();
    fleet.restore(&Contents::new());
    fleet.renew("a.example");
    fleet.publish();
    let run = fleet.nodes[0].follow().exits(2);
    assert!(run.stdout.contains("fleet-fork"), "{run}");
    let run = fleet.publisher.run(&["fleet", "publish"]).exits(1);
    assert!(run.stdout.contains("lb1 has another head of number 1"), "{run}");
    fleet.all_follow();
    fleet.must_all_be_as_wanted("after the next publish");
    assert!(fleet.publish().stdout.contains("nothing changed"));
}

/// A node holds its publisher to the heads that it had, and not to one that it only saw: it reports no other.
#[test]
fn a_head_that_was_never_here_whole_is_not_remembered() {
    let mut fleet = Fleet::new(1);
    fleet.bring_in_step(&["a.example"]);
    fleet.renew("a.example");
    fleet.publish();
    fs::remove_dir_all(fleet.folder().join("object")).unwrap();
    let run = fleet.nodes[0].follow().exits(1);
    assert!(run.stdout.contains("fleet-incomplete"), "{run}");
    // All but what the node reported is lost, and the next head has the number of the one that it saw.
    let report = fleet.stored().into_iter().filter(|(path, _)| path.starts_with("report/")).collect();
    fleet.restore(&report);
    fs::remove_dir_all(fleet.publisher.beside("cache")).unwrap();
    let run = fleet.publisher.run(&["fleet", "publish"]).exits(1);
    assert!(run.stdout.contains("lb1 has number 1 already"), "{run}");
    assert!(run.stdout.contains("edge is at number 2"), "{run}");
    fleet.all_follow();
    fleet.must_all_be_as_wanted("after the loss");
    // The store can't bring back what the node had, also where what it remembers is older than that, or lost.
    let kept = fleet.stored();
    let memory = fleet.nodes[0].cmd.beside("cache/memory.json");
    let older = fs::read(&memory).unwrap();
    fleet.renew("a.example");
    fleet.publish();
    fleet.all_follow();
    for lost in [Some(&older), None] {
        match lost {
            Some(older) => fs::write(&memory, older).unwrap(),
            None => fs::remove_file(&memory).unwrap(),
        }
        let newer = fleet.stored();
        fleet.restore(&kept);
        let run = fleet.nodes[0].follow().exits(2);
        assert!(run.stdout.contains("fleet-rollback"), "{lost:?}: {run}");
        fleet.must_all_be_as_wanted("after a roll-back");
        fleet.restore(&newer);
        fleet.all_follow();
    }
}

/// Where a node can't write to its cache it goes on with what it has; its own status and the fleet's say so.
#[test]
fn a_cache_that_cannot_be_written_shows_in_both_statuses() {
    let mut fleet = Fleet::new(1);
    fleet.bring_in_step(&["a.example"]);
    // Who may only look, as a service that writes metrics, knows nothing of that.
    for cmd in [&fleet.publisher, &fleet.nodes[0].cmd] {
        let looks =
            "mount --bind \"$1\" \"$1\" && mount -o remount,bind,ro \"$1\" && mount -o remount,bind,ro /";
        cmd.run_with_mounts(looks, &cmd.beside("cache"), &["status"]).exits(0);
    }
    let old = fleet.wanted.clone();
    fleet.renew("a.example");
    fleet.publish();
    let node = &fleet.nodes[0];
    let cache = node.cmd.beside("cache");
    let read_only = "mount --bind \"$1\" \"$1\" && mount -o remount,bind,ro \"$1\"";
    let full = "mount -t tmpfs -o mode=0700,size=64k none /mnt && cp -a \"$1\"/. /mnt/ && \
                { dd if=/dev/zero of=/mnt/filler bs=4k 2>/dev/null; mount --bind /mnt \"$1\"; }";
    for (what, mount, cause) in
        [("read-only", read_only, "read-only file system"), ("full", full, "no space left")]
    {
        let run = |arguments: &[&str]| {
            let run = node.cmd.run_with_mounts(mount, &cache, arguments);
            (run.code, run.stdout)
        };
        let (code, text) = run(&["fleet", "follow", "--once"]);
        assert_eq!(code, Some(3), "{what}: {text}");
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains("fleet-not-followed: ") && words.contains(cause), "{what}: {text}");
        node.must_have(&old, what);
        let (code, text) = run(&["status"]);
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains("fleet-not-followed: ") && words.contains(what), "{what}: {text}");
        assert_eq!(code, Some(1), "{what}: {text}");
        let all = fleet.publisher.run(&["fleet", "status"]).exits(1).stdout;
        let words = all.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            words.contains("fleet-node-failed: fleet-not-followed") && words.contains(cause),
            "{what}: {all}"
        );
    }
    fleet.all_follow();
    fleet.must_all_be_as_wanted("when it can be written again");
    fleet.publisher.run(&["fleet", "status"]).exits(0);
}

/// A node that lost what it had remembers the number: it tells that too, for it takes no head before that is passed.
#[test]
fn a_node_whose_cache_is_lost_tells_the_number_that_it_had() {
    let fleet = at_the_fourth_head(1);
    fs::remove_file(fleet.nodes[0].cmd.beside("cache/head")).unwrap();
    fs::remove_dir_all(fleet.publisher.beside("cache")).unwrap();
    fleet.restore(&Contents::new());
    fleet.publish();
    let run = fleet.nodes[0].follow().exits(2);
    assert!(run.stdout.contains("fleet-rollback") && run.stdout.contains("nothing of edge is here"), "{run}");
    let run = fleet.publisher.run(&["fleet", "publish"]).exits(1);
    assert!(run.stdout.contains("lb1 has number 4 already"), "{run}");
    fleet.all_follow();
    fleet.must_all_be_as_wanted("after the next publish");
}

#[test]
fn the_fleets_status_is_not_ok_by_what_is_old_from_the_future_or_another_hosts() {
    let mut fleet = Fleet::new(2);
    fleet.bring_in_step(&["a.example"]);
    let all = |fleet: &Fleet, code| fleet.publisher.run(&["fleet", "status"]).exits(code).stdout;
    all(&fleet, 0);
    // A node whose clock was a day ahead, and which is silent since.
    let path = fleet.folder().join("report/lb1");
    let identity = HostIdentity::load(&fleet.nodes[0].cmd.beside("identity")).unwrap().unwrap();
    let (edge, lb1) = ("edge".parse().unwrap(), "lb1".parse().unwrap());
    let bytes = fs::read(&path).unwrap();
    let mut report = NodeReport::read(&bytes, &identity.public().signing, &edge, &lb1).unwrap();
    report.time += 24 * 60 * 60;
    fs::write(&path, report.sign(identity.signing())).unwrap();
    let text = all(&fleet, 1);
    assert!(text.contains("fleet-clock: its report is of "), "{text}");
    // One whose clock is slow: it reports of a head that wasn't signed yet by then, and isn't only silent.
    report.time -= 26 * 60 * 60;
    fs::write(&path, report.sign(identity.signing())).unwrap();
    let text = all(&fleet, 1);
    assert!(text.contains("which is before the head was signed that it has"), "{text}");
    assert!(text.contains("fleet-node-silent"), "{text}");
    fleet.all_follow();
    // The store went back, with the reports.
    let stored = fleet.stored();
    fleet.renew("a.example");
    fleet.publish();
    fleet.restore(&stored);
    let text = all(&fleet, 2);
    assert!(text.contains("fleet-rollback"), "{text}");
    fleet.publisher.run(&["fleet", "publish"]).exits(1);
    fleet.all_follow();
    all(&fleet, 0);
    // A node that is none any more.
    let removed = fleet.nodes.pop().unwrap();
    fleet.tell_publisher();
    fleet.publisher.run(&["fleet", "rotate"]).exits(0);
    let text = removed.cmd.run(&["fleet", "status"]).exits(1).stdout;
    assert!(text.contains("fleet-not-a-node"), "{text}");
}

#[test]
fn a_cache_that_others_may_write_is_refused_with_what_mends_it() {
    let mut fleet = Fleet::new(1);
    fleet.bring_in_step(&["a.example"]);
    let cache = fleet.nodes[0].cmd.beside("cache");
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o777)).unwrap();
    let run = fleet.nodes[0].follow().exits(3);
    let advice = run.stderr.split("run: ").nth(1).unwrap().trim();
    assert_eq!(advice, format!("chmod -R go-w {}", cache.display()), "{run}");
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o700)).unwrap();
    fleet.all_follow();
}

#[test]
fn publish_brings_back_whatever_the_store_lost() {
    let mut fleet = Fleet::new(1);
    fleet.issue("a.example");
    fleet.publish();
    fleet.tell_nodes("");
    for lost in ["object", "page", "key"] {
        fleet.all_follow();
        fleet.renew("a.example");
        fleet.publish();
        // A fresh node has nothing of its own to go on with.
        let _ = fs::remove_dir_all(fleet.nodes[0].cmd.beside("cache"));
        fs::remove_dir_all(fleet.folder().join(lost)).unwrap();
        let run = fleet.nodes[0].follow();
        assert!(run.stdout.contains("fleet-incomplete"), "{lost}: {run}");
        fleet.publish();
        fleet.all_follow();
        fleet.must_all_be_as_wanted(lost);
    }
}

#[test]
fn one_report_that_cannot_be_read_takes_nothing_from_the_others() {
    let mut fleet = Fleet::new(2);
    fleet.bring_in_step(&["a.example"]);
    let report = fleet.folder().join("report/lb1");
    for place in [
        |path: &Path| fs::write(path, vec![b'x'; 3 << 20]).unwrap(),
        |path: &Path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        },
    ] {
        place(&report);
        let text = fleet.publisher.run(&["fleet", "status"]).exits(2).stdout;
        assert!(text.contains("OK   lb2") && text.contains("fleet-report-forged"), "{text}");
        fleet.renew("a.example");
        fleet.publish();
        fleet.nodes[1].follow().exits(0);
    }
}

#[test]
fn nothing_of_a_fleet_is_put_where_haproxy_certbot_or_others_look() {
    let mut fleet = Fleet::new(1);
    fleet.bring_in_step(&["a.example"]);
    let (sites, store) = (fleet.nodes[0].cmd.sites(), fleet.folder());
    for (key, place, said) in [
        ("cache", sites.clone(), "must be outside sites_dir"),
        ("cache", sites.join("cache"), "must be outside sites_dir"),
        ("identity", sites.join("identity"), "must be outside sites_dir"),
        ("identity", store.join("identity"), "identity must be outside store"),
    ] {
        let node = &mut fleet.nodes[0];
        let config = fs::read_to_string(node.cmd.config()).unwrap();
        let lines = config.lines().filter(|line| !line.starts_with(&format!("{key} = ")));
        let rest = lines.collect::<Vec<_>>().join("\n");
        let own = rest.replace("[fleet]", &format!("[fleet]\n{key} = {}", toml(&place)));
        let file = node.cmd.beside("other.toml");
        fs::write(&file, own).unwrap();
        for command in ["join", "follow"] {
            let mut program = std::process::Command::new(Cmd::program());
            let config = file.to_str().unwrap();
            program.args(["--config", config, "fleet", command]);
            let output = program.output().unwrap();
            let text = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(3), "{text}");
            assert!(text.contains(said), "{key} {}: {text}", place.display());
        }
        assert_eq!(node.cmd.deployed(), ["a.example.pem"]);
    }
}

#[test]
fn a_node_whose_cache_is_lost_is_told_what_brings_it_back() {
    let mut fleet = Fleet::new(1);
    fleet.bring_in_step(&["a.example"]);
    fs::remove_dir_all(fleet.nodes[0].cmd.beside("cache")).unwrap();
    let text = fleet.nodes[0].cmd.run(&["status"]).exits(1).stdout;
    assert!(text.contains("bring what the fleet has here:") && !text.contains("set live_dir"), "{text}");
    fleet.all_follow();
    fleet.must_all_be_as_wanted("brought back");
}

#[test]
fn prometheus_is_told_of_a_node_that_is_silent_behind_or_lied_about() {
    let mut fleet = Fleet::new(2);
    fleet.bring_in_step(&["a.example"]);
    let metrics = |fleet: &Fleet| fleet.publisher.run(&["fleet", "status", "--format", "prometheus"]).stdout;
    let hours = |metrics: &str, goes_on: &[&str]| series(metrics, 15, 48, goes_on);
    let (statuses, reports, heads) = ("fleet_status_", "fleet_node_report_", "fleet_head_");

    // All is well while statuses, reports and heads go on; then each of them stops.
    let well = metrics(&fleet);
    let silent = [("FleetNodeSilent", "lb1"), ("FleetNodeSilent", "lb2")];
    judge(15, &hours(&well, &[statuses, reports, heads]), &[(0, &[]), (1, &[]), (40, &[])]);
    judge(15, &hours(&well, &[statuses, heads]), &[(1, &[]), (2, &silent)]);
    judge(15, &hours(&well, &[statuses, reports]), &[(35, &[]), (37, &[("FleetNotPublished", "")])]);
    judge(15, &hours(&well, &[reports, heads]), &[(1, &[]), (2, &[("FleetMetricsOld", "")])]);

    // A renewal that only lb1 has, and a node that has never been there. Neither loses its other metrics.
    fleet.join("lb3", None);
    fleet.tell_publisher();
    fleet.renew("a.example");
    fleet.publish();
    fleet.nodes[0].follow().exits(0);
    let behind = metrics(&fleet);
    for node in ["lb1", "lb2", "lb3"] {
        for name in ["current", "confirmed"] {
            assert!(
                behind.contains(&format!("fleet_node_{name}{{fleet=\"edge\",node=\"{node}\"}}")),
                "{behind}"
            );
        }
    }
    let goes_on = [statuses, reports, heads];
    let known = [("FleetNodeBehind", "lb2"), ("FleetNodeSilent", "lb3")];
    judge(15, &hours(&behind, &goes_on), &[(0, &[]), (1, &known)]);

    // Somebody writes lb1's report.
    fs::write(fleet.folder().join("report/lb1"), "all is well").unwrap();
    let known = [("FleetNodeBehind", "lb2"), ("FleetNodeSilent", "lb3"), ("FleetProblem", "lb1")];
    judge(15, &hours(&metrics(&fleet), &goes_on), &[(0, &[]), (1, &known)]);

    // The store's head is gone: what is known of the nodes goes on.
    fs::remove_file(fleet.folder().join("head")).unwrap();
    let known = [&known[..], &[("FleetUnreachable", "")]].concat();
    judge(15, &hours(&metrics(&fleet), &goes_on), &[(0, &[]), (1, &known)]);
}

/// Monitoring waits ten seconds; an etcd without a leader is waited for by who publishes or follows.
#[test]
fn monitoring_gets_an_answer_from_a_fleet_whose_etcd_gives_none() {
    let mut fleet = Fleet::new(1);
    fleet.issue("a.example");
    fleet.publish();
    let port = Port::free();
    fleet.store = format!("[\"http://127.0.0.1:{}\"]", port.number());
    fleet.tell_publisher();
    let publisher = fleet.publisher.limit(std::time::Duration::from_secs(15));
    let run = publisher.run(&["fleet", "status", "--format", "monitoring"]).exits(1);
    assert!(run.stdout.contains("fleet-unreachable"), "{run}");
}

#[test]
fn a_node_waits_for_its_canary() {
    let mut fleet = Fleet::of(vec![Some("3.0"), None]);
    fleet.issue("a.example");
    fleet.publish();
    fleet.tell_nodes("");
    let canary = fleet.nodes[0].own.clone();
    fleet.all_follow();
    let line = fleet.line();
    fleet.tell_node(1, &[&line], "wait_for = [\"lb1\"]");
    let old = fleet.wanted.clone();
    fleet.renew("a.example");
    fleet.publish();
    let waiting = &fleet.nodes[1];
    let run = waiting.follow().exits(1);
    assert!(run.stdout.contains("fleet-waiting: number 2 waits for lb1: it hasn't taken it yet"), "{run}");
    waiting.must_have(&old, "before the canary");
    let text = fleet.publisher.run(&["fleet", "status"]).exits(1).stdout;
    assert!(text.contains("fleet-waiting"), "{text}");
    fleet.nodes[0].follow().exits(0);
    fleet.nodes[1].follow().exits(0);
    fleet.must_all_be_as_wanted("after the canary");
    drop(canary);
}

/// A canary whose HAProxy was down when the head came says soon that it serves it, and nobody has to ask for that; who waits
/// for it says what it waits for now.
#[test]
fn a_canary_that_serves_again_is_not_waited_for_any_longer() {
    let mut fleet = Fleet::of(vec![Some("3.0"), None]);
    fleet.bring_in_step(&["a.example"]);
    let line = fleet.line();
    fleet.tell_node(1, &[&line], "wait_for = [\"lb1\"]");
    let mut daemons = [fleet.nodes[1].start(), fleet.nodes[0].start()];
    let all = |fleet: &Fleet| fleet.publisher.run(&["fleet", "status", "--format", "json"]).json();
    let says = |fleet: &Fleet, at: usize, text: &str| {
        all(fleet)["nodes"][at]["exceptions"].to_string().contains(text)
    };
    fleet.nodes[0].haproxy.as_mut().unwrap().stop();
    fleet.renew("a.example");
    fleet.publish();
    wait_until(LIMIT, "what keeps the canary from it", || says(&fleet, 0, "haproxy-down"));
    wait_until(LIMIT, "what the other one waits for", || {
        says(&fleet, 1, "could not confirm it: haproxy-down")
    });
    fleet.nodes[0].haproxy.as_mut().unwrap().run_again();
    wait_until(LIMIT, "all of them", || {
        let is_there = |node: &Value| node["current"] == true && node["confirmed"] == true;
        all(&fleet)["nodes"].as_array().unwrap().iter().all(is_there)
    });
    for daemon in &mut daemons {
        daemon.signal(Signal::TERM);
        assert!(daemon.wait(LIMIT).success());
    }
    fleet.must_all_be_as_wanted("after the canary");
    serves(&fleet, "after it came back");
}

#[test]
fn a_head_past_its_time_prunes_nothing_and_is_not_taken() {
    let mut fleet = Fleet::new(2);
    for name in ["a.example", "b.example"] {
        fleet.issue(name);
    }
    fleet.publish();
    fleet.tell_nodes("");
    let day = 24 * 60 * 60;
    fleet.nodes[0].follow().exits(0);
    let old = fleet.wanted.clone();
    fleet.delete("a.example");
    fleet.publish();
    fleet.sign(|head| {
        head.sequence += 1;
        head.signed -= 3 * day;
        head.expires -= 3 * day;
    });
    // One that has an earlier one, and a fresh one.
    for node in &fleet.nodes {
        let run = node.follow().exits(1);
        assert!(run.stdout.contains("fleet-stale"), "{run}");
    }
    fleet.nodes[0].must_have(&old, "the earlier one stays");
    assert_eq!(fleet.nodes[1].cmd.deployed(), Vec::<String>::new());
    assert!(fleet.nodes[0].words().contains(&"fleet-stale".to_owned()));
    let text = fleet.publisher.run(&["fleet", "status"]).exits(1).stdout;
    assert!(text.contains("fleet-stale"), "{text}");
}

/// Whatever the store does, nothing wrong is deployed and nothing pruned; each is noticed by its name.
#[test]
fn a_hostile_store_is_noticed_by_name() {
    let mut fleet = Fleet::new(1);
    for name in ["a.example", "b.example", "c.example"] {
        fleet.issue(name);
    }
    fleet.publish();
    fleet.tell_nodes("");
    let first = fleet.stored();
    fleet.renew("a.example");
    fleet.publish();
    fleet.all_follow();
    let second = fleet.stored();
    let cache = fleet.nodes[0].cmd.beside("cache");
    let cached = files(&cache);
    let kept = fleet.wanted.clone();
    fleet.renew("a.example");
    fleet.renew("b.example");
    fleet.delete("c.example");
    fleet.publish();
    let third = fleet.stored();
    let objects = |stored: &Contents, not: &Contents| -> Vec<String> {
        stored
            .keys()
            .filter(|path| path.starts_with("object/") && !not.contains_key(*path))
            .cloned()
            .collect()
    };
    let fresh = objects(&third, &second);
    assert_eq!(fresh.len(), 2);
    let page =
        third.keys().find(|path| path.starts_with("page/") && !second.contains_key(*path)).unwrap().clone();
    let try_it = |what: &str, expected: &[&str], change: Change<'_>| {
        let mut stored = third.clone();
        change(&mut stored);
        fleet.restore(&stored);
        // What an earlier look brought is as good as ever: here nothing is left of it.
        for path in files(&cache).keys().filter(|path| !cached.contains_key(*path)) {
            fs::remove_file(cache.join(path)).unwrap();
        }
        let node = &fleet.nodes[0];
        let run = node.follow();
        assert!(run.code != Some(0), "{what}: {run}");
        assert!(expected.iter().any(|word| run.stdout.contains(&format!("{word}:"))), "{what}: {run}");
        node.must_have(&kept, what);
        let words = node.words();
        assert!(words.iter().any(|word| expected.contains(&word.as_str())), "{what}: {words:?}");
    };
    let flip = |bytes: &mut Vec<u8>, at: usize| bytes[at] ^= 1;
    try_it("no head", &["fleet-empty"], &|stored| drop(stored.remove("head")));
    try_it("an old head", &["fleet-rollback"], &|stored| {
        stored.insert("head".into(), first["head"].clone());
    });
    try_it("half a head", &["fleet-head-damaged", "fleet-incomplete"], &|stored| {
        stored.get_mut("head").unwrap().truncate(300);
    });
    for at in [0, 40, 200, 600] {
        let words = ["fleet-head-damaged", "fleet-unknown-publisher", "fleet-incomplete"];
        try_it("a bit of the head", &words, &|stored| flip(stored.get_mut("head").unwrap(), at));
    }
    try_it("a page is gone", &["fleet-incomplete"], &|stored| drop(stored.remove(&page)));
    try_it("an object is gone", &["fleet-incomplete"], &|stored| drop(stored.remove(&fresh[0])));
    for at in [0, 100, 500] {
        let words = ["fleet-damaged", "fleet-incomplete"];
        try_it("a bit of a page", &words, &|stored| {
            let bytes = stored.get_mut(&page).unwrap();
            let at = at % bytes.len();
            flip(bytes, at);
        });
        try_it("a bit of an object", &words, &|stored| flip(stored.get_mut(&fresh[0]).unwrap(), at));
    }
    try_it("swapped objects", &["fleet-damaged", "fleet-incomplete"], &|stored| {
        let (one, two) = (stored[&fresh[0]].clone(), stored[&fresh[1]].clone());
        stored.insert(fresh[0].clone(), two);
        stored.insert(fresh[1].clone(), one);
    });
    // Somebody else with a key of his own.
    let stranger = HostIdentity::generate().unwrap();
    try_it("another's head", &["fleet-unknown-publisher"], &|stored| {
        let mut head = SignedHead::read(&stored["head"]).unwrap().head;
        head.sequence += 1;
        stored.insert("head".into(), head.sign(stranger.signing()));
    });
    // As it was meant to be, it is taken.
    fleet.restore(&third);
    fleet.all_follow();
    fleet.must_all_be_as_wanted("as it was published");
    // A fork, by who has the publisher's key.
    fleet.sign(|head| head.prune_many = !head.prune_many);
    let run = fleet.nodes[0].follow().exits(2);
    assert!(run.stdout.contains("fleet-fork:"), "{run}");
    fleet.must_all_be_as_wanted("after a fork");
    // The publisher makes it good, and says what it saw.
    let run = fleet.publisher.run(&["fleet", "publish"]).exits(3);
    assert!(run.stderr.contains("two hosts publish with one identity"), "{run}");
    let run = fleet.publisher.run(&["fleet", "publish", "--take-over"]).exits(1);
    assert!(run.stdout.contains("or somebody else publishes with this identity"), "{run}");
    fleet.all_follow();
    fleet.must_all_be_as_wanted("after the next publish");
    // A report that somebody else wrote.
    let report = fleet.folder().join("report/lb1");
    let mut text = fs::read(&report).unwrap();
    flip(&mut text, 60);
    fs::write(&report, text).unwrap();
    let text = fleet.publisher.run(&["fleet", "status"]).exits(2).stdout;
    assert!(text.contains("fleet-report-forged"), "{text}");
}

/// After any losses one publish, and one look of each node, makes each node equal to a single host.
#[test]
fn after_losses_every_node_is_as_a_single_host() {
    let mut fleet = Fleet::new(2);
    fleet.bring_in_step(&["a.example", "b.example", "c.example"]);
    let backup = fleet.stored();
    let steps: [Loss<'_>; 7] = [
        ("the store is empty", &|fleet| fleet.restore(&BTreeMap::new())),
        ("the store is an old one", &|fleet| fleet.restore(&backup)),
        ("the publisher's cache is lost", &|fleet| {
            fs::remove_dir_all(fleet.publisher.beside("cache")).unwrap();
        }),
        ("a node's cache is lost", &|fleet| fs::remove_dir_all(fleet.nodes[0].cmd.beside("cache")).unwrap()),
        ("a node's cache is damaged", &|fleet| {
            for (path, _) in files(&fleet.nodes[1].cmd.beside("cache")) {
                fs::write(fleet.nodes[1].cmd.beside("cache").join(path), "?").unwrap();
            }
        }),
        ("a node's state is lost", &|fleet| {
            fs::remove_file(fleet.nodes[0].cmd.sites().join(".haproxy-certs/state.json")).unwrap();
        }),
        ("objects are lost, and the publisher's memory", &|fleet| {
            fs::remove_dir_all(fleet.folder().join("object")).unwrap();
            fs::remove_file(fleet.publisher.beside("cache/memory.json")).unwrap();
        }),
    ];
    for (what, step) in steps {
        step(&fleet);
        fleet.renew("a.example");
        let run = fleet.publisher.run(&["fleet", "publish"]);
        assert!(matches!(run.code, Some(0 | 1)), "{what}: {run}");
        for node in &fleet.nodes {
            node.follow().exits(0);
        }
        fleet.must_all_be_as_wanted(what);
        assert!(fleet.publish().stdout.contains("nothing changed"), "{what}");
        let before = fleet.stored();
        fleet.publish();
        assert_eq!(fleet.stored(), before, "{what}");
    }
}

#[test]
fn assemble_publishes_and_a_publisher_without_haproxy_writes_no_sites() {
    let mut fleet = Fleet::new(1);
    fleet.issue("a.example");
    let run = fleet.publisher.run(&["assemble"]).exits(0);
    assert!(run.stdout.contains("edge is at number 1: 1 lineage for 1 node"), "{run}");
    assert!(!fleet.publisher.sites().exists());
    fleet.tell_nodes("");
    fleet.all_follow();
    fleet.must_all_be_as_wanted("published by assemble");
    // A node deploys from its cache without the store.
    fs::remove_dir_all(fleet.folder()).unwrap();
    fs::remove_file(fleet.nodes[0].cmd.site("a.example")).unwrap();
    fleet.nodes[0].cmd.run(&["assemble"]).exits(0);
    fleet.must_all_be_as_wanted("by hand, without the store");
    let run = fleet.nodes[0].follow().exits(3);
    assert!(run.stdout.contains("fleet-unreachable"), "{run}");
}

#[test]
fn another_source_prunes_nothing() {
    // From a tree of its own, before it joined.
    let mut own = Tree::new();
    for name in ["x.example", "a.example"] {
        own.issue(name, KeyKind::P256, &[name], Validity::days(90));
    }
    // What is older would be refused.
    let mut fleet = Fleet::new(1);
    fleet.issue("a.example");
    fleet.publish();
    let tables = fleet.nodes[0].own.clone();
    fleet.nodes[0].cmd.set_tables(&tables);
    let live = own.live();
    let from_elsewhere = ["--live-dir", live.to_str().unwrap(), "assemble"];
    fleet.nodes[0].cmd.run(&from_elsewhere).exits(0);
    assert_eq!(fleet.nodes[0].cmd.deployed(), ["a.example.pem", "x.example.pem"]);
    fleet.tell_nodes("");
    // What still calls it so is told that there is one source now.
    let run = fleet.nodes[0].cmd.run(&from_elsewhere).exits(3);
    assert!(run.stderr.contains("--live-dir and [fleet] publishers are two sources"), "{run}");
    fleet.renew("a.example");
    fleet.publish();
    let node = &fleet.nodes[0];
    let run = node.cmd.run(&["-v", "fleet", "follow", "--once"]).exits(0);
    assert!(run.stdout.contains("prune-held"), "{run}");
    assert_eq!(node.cmd.deployed(), ["a.example.pem", "x.example.pem"]);
    assert!(fs::read_to_string(node.cmd.site("a.example")).unwrap() == fleet.wanted["a.example"], "{run}");
}

#[test]
fn it_goes_on_until_it_is_told_to_end() {
    let mut fleet = Fleet::of(vec![Some("3.0")]);
    fleet.issue("a.example");
    fleet.publish();
    fleet.tell_nodes("");
    let node = &fleet.nodes[0];
    let notify = node.cmd.beside("notify");
    let listener = std::os::unix::net::UnixDatagram::bind(&notify).unwrap();
    listener.set_read_timeout(Some(LIMIT)).unwrap();
    let config = node.cmd.config();
    let mut process = Running::start(Cmd::program(), |command| {
        node.cmd.prepare(command);
        command.arg("--config").arg(&config).args(["fleet", "follow"]);
        command.env("NOTIFY_SOCKET", &notify).env("WATCHDOG_USEC", "400000")
    });
    let hears = |word: &str| {
        let mut bytes = [0; 512];
        loop {
            let length = listener.recv(&mut bytes).unwrap();
            if String::from_utf8_lossy(&bytes[..length]).contains(word) {
                return;
            }
        }
    };
    hears("READY=1");
    node.must_have(&fleet.wanted, "at the start");
    hears("WATCHDOG=1");
    let leaf = fleet.renew("a.example");
    fleet.publish();
    let address = fleet.nodes[0].haproxy.as_ref().unwrap().address();
    wait_until(LIMIT, "the renewed certificate", || served(address, "a.example").serial == leaf.serial());
    process.signal(Signal::TERM);
    assert!(process.wait(LIMIT).success());
    hears("STOPPING=1");
}

/// The same over etcd, with TLS, a user and a daemon on each node.
#[test]
fn published_over_etcd_and_followed_by_daemons() {
    let mut etcd = EtcdSetup::of(&newest_etcd()).three().tls().start();
    etcd.users_on("edge", "readwrite");
    let settings = etcd.settings("edge");
    let mut fleet = Fleet::in_etcd(&settings);
    for (name, version) in [("lb1", Some("2.6")), ("lb2", Some("3.4")), ("lb3", None)] {
        fleet.join(name, version);
    }
    fleet.tell_publisher();
    for name in ["a.example", "b.example"] {
        fleet.issue(name);
    }
    fleet.publish();
    fleet.tell_nodes("");
    let mut daemons: Vec<Running> = fleet.nodes.iter().map(Node::start).collect();
    let all_have = |fleet: &Fleet, what: &str| {
        wait_until(LIMIT, what, || {
            let text = fleet.publisher.run(&["fleet", "status", "--format", "json"]).json();
            let nodes = text["nodes"].as_array().unwrap();
            nodes.iter().all(|node| node["current"] == true && node["confirmed"] == true)
        });
        serves(fleet, what);
    };
    all_have(&fleet, "the first time");
    fleet.renew("a.example");
    fleet.issue("c.example");
    fleet.publish();
    all_have(&fleet, "after a renewal");
    // A member goes; a node is down meanwhile.
    etcd.kill(0);
    daemons[2].signal(Signal::TERM);
    assert!(daemons[2].wait(LIMIT).success());
    fleet.delete("b.example");
    fleet.publish();
    daemons[2] = fleet.nodes[2].start();
    all_have(&fleet, "without a member");
    // No key in etcd's log and data.
    must_hold_no_key(etcd.folder(), &fleet);
    for daemon in &mut daemons {
        daemon.signal(Signal::TERM);
        assert!(daemon.wait(LIMIT).success());
    }
}

/// The start of the manual page: its commands, run in its order, say what it says.
#[test]
fn the_five_minutes_of_the_manual_are_their_transcript() {
    let page = include_str!("../man/haproxy-certs-fleet.7");
    let section = page.split(".Sh FIVE MINUTES\n").nth(1).unwrap().split("\n.Sh ").next().unwrap();
    let displays: Vec<&str> =
        section.split(".Bd -literal\n").skip(1).map(|rest| rest.split(".Ed").next().unwrap()).collect();
    let fleet = Fleet::new(0);
    let mut tree = Tree::new();
    tree.issue("example.org", KeyKind::P256, &["example.org"], Validity::days(90));
    let (mut publisher, mut node) = (Cmd::new(tree.live()), Cmd::new(""));
    let quiet = NO_HAPROXY;
    // Where everything of this test is, as the page has it.
    let plain = |text: &str, cmd: &Cmd| {
        let text = text.replace(fleet.folder().to_str().unwrap(), "/srv/fleet");
        let text = text.replace(cmd.sites().to_str().unwrap(), "/usr/local/ssl/certs/sites");
        text.replace(cmd.beside("identity").to_str().unwrap(), "/etc/haproxy-certs/identity")
    };
    let masked = |text: &str| -> Vec<String> {
        let word = |word: &str| {
            let letters: String = word.chars().map(|it| if it.is_ascii_digit() { '0' } else { it }).collect();
            match () {
                () if word.contains("hcn1-") => "NODE-KEY".to_owned(),
                () if word.starts_with("AAAA") || word == "KEY" => "KEY".to_owned(),
                () => letters.replace("00", "0"),
            }
        };
        let text = text.replace(" second ", " seconds ");
        text.split_whitespace().map(word).collect()
    };
    let (mut node_key, mut line, mut said) = (String::new(), String::new(), 0);
    for display in displays {
        if display.starts_with("[fleet]") {
            let cmd = if display.contains("publishers") { &mut node } else { &mut publisher };
            let text = display.replace("hcn1-KEY", &node_key).replace("ssh-ed25519 KEY pub", &line);
            let own = format!(
                "[fleet]\nidentity = {}\ncache = {}",
                toml(&cmd.beside("identity")),
                toml(&cmd.beside("cache"))
            );
            let text = text.replace("[fleet]", &own).replace("\"/srv/fleet\"", &fleet.store);
            let sites = if display.contains("publishers") { quiet } else { "" };
            cmd.set_tables(&format!("{sites}{text}"));
            continue;
        }
        for part in display.split("\nlb1# ").flat_map(|part| part.split("\npub# ")) {
            let at = display.find(part).unwrap();
            let before = display.get(..at).unwrap();
            let is_node = before.ends_with("lb1# ") || part.starts_with("lb1# ");
            let part = part.trim_start_matches("lb1# ").trim_start_matches("pub# ");
            let (command, expected) = part.split_once('\n').unwrap_or((part, ""));
            let Some(arguments) = command.strip_prefix("haproxy-certs ") else {
                assert!(command.starts_with("systemctl enable --now haproxy-certs-"), "{command}");
                continue;
            };
            if node_key.is_empty() {
                node.set_tables(&format!(
                    "[fleet]\nname = \"edge\"\nidentity = {}\nstore = {}\n",
                    toml(&node.beside("identity")),
                    fleet.store
                ));
            }
            let cmd = if is_node { &node } else { &publisher };
            let arguments: Vec<&str> = arguments.split(' ').collect();
            let run = cmd.run(&arguments).exits(0);
            // This machine's name.
            let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
            let host = host.trim().split('.').next().unwrap().to_owned();
            let of_host = |text: &str| {
                let text = text.replace(&format!("name = \"{host}\""), "name = \"lb1\"");
                text.replace(&format!(" {host}\"]"), " pub\"]")
            };
            let text = of_host(&plain(&run.stdout, cmd));
            assert_eq!(masked(&text), masked(expected), "{command}: {run}");
            said += 1;
            if let Some(key) = run.stdout.split('"').find(|word| word.starts_with("hcn1-")) {
                key.clone_into(&mut node_key);
            }
            if let Some(key) = run.stdout.split('"').find(|word| word.starts_with("ssh-ed25519 ")) {
                key.clone_into(&mut line);
            }
        }
    }
    assert_eq!(said, 4);
}
