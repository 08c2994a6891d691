//! A store that lies, over the whole product: whatever stands in it, a node deploys what was published and prunes nothing
//! else, and says by its name what is wrong. And `publish` mends it.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::too_many_lines,
    reason = "test code may fail loudly"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use haproxy_certs::certified_key::{hex, sha256};
use haproxy_certs::fleet::epoch::EpochKey;
use haproxy_certs::fleet::head::{Head, SignedHead};
use haproxy_certs::fleet::identity::HostIdentity;
use haproxy_certs::fleet::name::NodeName;
use haproxy_certs::fleet::node_list::NodeList;
use haproxy_certs::fleet::object::{self, PlainPair};
use haproxy_certs::fleet::page;
use haproxy_certs::fleet::store::directory::Directory;
use haproxy_certs::fleet::store::etcd::Etcd as Store;
use haproxy_certs::fleet::store::{FleetStore, StoreFolder, StoreKey, get_one};

use support::Kind;
use support::etcd::{Etcd, EtcdSetup, EtcdVersion, etcds};
use support::fleet::{Fleet, Node};
use support::strace::{self, processors};
use support::summary::{Count, long};
use zeroize::Zeroizing;

type Values = BTreeMap<StoreKey, Vec<u8>>;

/// What somebody does to the store's values.
type Lie<'a> = &'a dyn Fn(&mut Values);

/// A fleet over an etcd, in which a reader writes by a hole of the etcd's.
struct Lied {
    fleet: Fleet,
    etcd: Etcd,
    store: Store,
    reader: (&'static str, &'static str),
    /// What the node has: the head before the last one.
    old: BTreeMap<String, String>,
    /// What was published first, second and last.
    first: Values,
    last: Values,
    /// The node's cache as it is with the head before the last one.
    cached: support::fleet::Contents,
}

impl Lied {
    fn new(version: &EtcdVersion) -> Self {
        let mut etcd = EtcdSetup::of(version).start();
        etcd.users_on("edge", "readwrite");
        let reader = etcd.reader("edge");
        let settings = etcd.settings("edge");
        let store = Store::open(&settings).unwrap();
        let mut fleet = Fleet::in_etcd(&settings);
        for name in ["lb1", "lb2"] {
            fleet.join(name, None);
        }
        fleet.tell_publisher();
        for name in ["a.example", "b.example", "c.example"] {
            fleet.issue(name);
        }
        fleet.publish();
        fleet.tell_nodes("");
        let first = values(&store);
        fleet.renew("a.example");
        fleet.publish();
        fleet.all_follow();
        let old = fleet.wanted.clone();
        let cached = support::fleet::files(&fleet.nodes[0].cmd.beside("cache"));
        // Another list of nodes too.
        fleet.join("lb3", None);
        fleet.tell_publisher();
        fleet.tell_nodes("");
        fleet.renew("a.example");
        fleet.renew("b.example");
        fleet.delete("c.example");
        // Another epoch too, so that its key has to be fetched.
        fleet.publisher.run(&["fleet", "rotate"]).exits(0);
        let last = values(&store);
        Self { fleet, etcd, store, reader, old, first, last, cached }
    }

    fn node(&self) -> &Node {
        &self.fleet.nodes[0]
    }

    /// The node has the head before the last one again.
    fn forget(&self) {
        let cache = self.node().cmd.beside("cache");
        for path in support::fleet::files(&cache).keys().filter(|path| !self.cached.contains_key(*path)) {
            fs::remove_file(cache.join(path)).unwrap();
        }
        for (path, bytes) in &self.cached {
            fs::write(cache.join(path), bytes).unwrap();
        }
    }

    /// The store has these values: what is other than in the last ones is written by the reader.
    fn lie(&self, values: &Values) {
        for (key, bytes) in values.iter().filter(|(key, bytes)| self.last.get(*key) != Some(*bytes)) {
            let path = format!("/haproxy-certs/edge/{key}");
            self.etcd.overwrite(self.reader, &path, bytes);
        }
        let gone: Vec<StoreKey> =
            self.last.keys().filter(|key| !values.contains_key(*key)).cloned().collect();
        if !gone.is_empty() {
            self.store.delete(&gone).unwrap();
        }
    }

    /// The truth again.
    fn mend(&self, values: &Values) {
        let other: Vec<_> = self
            .last
            .iter()
            .filter(|(key, bytes)| values.get(*key) != Some(*bytes))
            .map(|(key, bytes)| (key.clone(), bytes.clone()))
            .collect();
        self.store.put(&other).unwrap();
        let added: Vec<StoreKey> =
            values.keys().filter(|key| !self.last.contains_key(*key)).cloned().collect();
        self.store.delete(&added).unwrap();
    }

    /// A lie about what the node needs is noticed by one of these names, and changes nothing.
    #[track_caller]
    fn is_noticed(&self, what: &str, words: &[&str], lie: Lie<'_>) {
        let mut values = self.last.clone();
        lie(&mut values);
        self.forget();
        self.lie(&values);
        let run = self.node().follow();
        self.node().must_have(&self.old, what);
        assert!(run.code != Some(0), "{what}: {run}");
        assert!(words.iter().any(|word| run.stdout.contains(&format!("{word}:"))), "{what}: {run}");
        let said = self.node().words();
        assert!(said.iter().any(|word| words.contains(&word.as_str())), "{what}: {said:?}");
        self.mend(&values);
    }

    /// The same about what it doesn't need: it gets the truth.
    #[track_caller]
    fn is_passed_over(&self, what: &str, lie: Lie<'_>) {
        let mut values = self.last.clone();
        lie(&mut values);
        self.forget();
        self.lie(&values);
        let run = self.node().follow();
        assert_eq!(run.code, Some(0), "{what}: {run}");
        self.node().must_have(&self.fleet.wanted, what);
        self.mend(&values);
        self.again(what);
    }

    /// What is deployed is of the head before the last one again, too.
    fn again(&self, what: &str) {
        self.forget();
        let node = &self.node().cmd;
        for (name, pem) in &self.old {
            support::scene::put(&node.site(name), pem, 0o400);
        }
        let _ = fs::remove_file(node.sites().join(".haproxy-certs/state.json"));
        node.run(&["assemble"]);
        self.node().must_have(&self.old, what);
    }
}

/// All that is in the store but for the reports.
fn values(store: &Store) -> Values {
    let folders = [StoreFolder::Pages, StoreFolder::Objects, StoreFolder::EpochKeys];
    let mut keys: Vec<StoreKey> =
        folders.into_iter().flat_map(|folder| store.list(folder).unwrap()).collect();
    keys.push(StoreKey::Head);
    let found = store.get(&keys).unwrap();
    keys.into_iter().zip(found).map(|(key, found)| (key, found.unwrap().bytes)).collect()
}

/// What each kind of value is called by when it isn't what it should be.
fn words(key: &StoreKey) -> &'static [&'static str] {
    match key {
        StoreKey::Head => &["fleet-head-damaged", "fleet-unknown-publisher", "fleet-other"],
        StoreKey::Page(_) | StoreKey::Object(_) | StoreKey::EpochKey { .. } => &["fleet-damaged"],
        StoreKey::Report(_) => &["fleet-report-forged"],
    }
}

/// Whether the node needs a value for the last head.
fn is_needed(key: &StoreKey, lied: &Lied) -> bool {
    match key {
        StoreKey::Head => true,
        StoreKey::EpochKey { epoch, node } => *epoch == 2 && node.as_ref() == "lb1",
        StoreKey::Page(_) | StoreKey::Object(_) => !lied.before_last(key),
        StoreKey::Report(_) => false,
    }
}

impl Lied {
    /// Whether a value was there before the last epoch: all of that is sealed anew.
    fn before_last(&self, key: &StoreKey) -> bool {
        let cached = match key {
            StoreKey::Page(_) | StoreKey::Object(_) => key.to_string(),
            _ => return false,
        };
        self.cached.contains_key(&cached) || self.first.contains_key(key)
    }
}

/// Numbers that are the same in each run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % below.max(1)
    }
}

/// By a user of etcd 3.4.23 who may only read, and whom its holes let write.
#[test]
fn whatever_a_reader_writes_into_an_etcd_is_noticed_by_its_name() {
    let lied = Lied::new(&etcds()[0]);
    let mut dice = Dice(16);
    let mut count = 0;
    let needed: Vec<StoreKey> = lied.last.keys().filter(|key| is_needed(key, &lied)).cloned().collect();
    assert_eq!(needed.len(), 6, "head, list of nodes, key, page and two objects: {needed:?}");

    // Bits.
    for key in &needed {
        let bits = lied.last[key].len() * 8;
        let every: Vec<usize> = if long() {
            (0..lied.last[key].len()).map(|byte| byte * 8 + dice.roll(8)).collect()
        } else {
            (0..3).map(|_| dice.roll(bits)).collect()
        };
        for bit in every {
            lied.is_noticed(&format!("bit {bit} of {key}"), words(key), &|values| {
                values.get_mut(key).unwrap()[bit / 8] ^= 1 << (bit % 8);
            });
            count += 1;
        }
        for (what, change) in [
            ("nothing", (|_: &mut Vec<u8>| ()) as fn(&mut Vec<u8>)),
            ("empty", Vec::clear),
            ("half", |bytes| bytes.truncate(bytes.len() / 2)),
            ("longer", |bytes| bytes.push(b'x')),
            ("long", |bytes| bytes.extend(vec![b'x'; 300_000])),
        ] {
            if what == "nothing" || what == "long" && !matches!(key, StoreKey::Head | StoreKey::Page(_)) {
                continue;
            }
            if !long() && what == "empty" && dice.roll(2) == 0 {
                continue;
            }
            lied.is_noticed(&format!("{what}: {key}"), words(key), &|values| {
                change(values.get_mut(key).unwrap());
            });
            count += 1;
        }
        let lost = if *key == StoreKey::Head { "fleet-empty" } else { "fleet-incomplete" };
        lied.is_noticed(&format!("without {key}"), &[lost], &|values| drop(values.remove(key)));
        count += 1;
    }

    // Swapped, each with each.
    for (at, one) in needed.iter().enumerate() {
        for two in &needed[at + 1..] {
            let all = [words(one), words(two)].concat();
            lied.is_noticed(&format!("{one} and {two} swapped"), &all, &|values| {
                let (a, b) = (values[one].clone(), values[two].clone());
                values.insert(one.clone(), b);
                values.insert(two.clone(), a);
            });
            count += 1;
        }
    }

    // Heads.
    let publisher = HostIdentity::load(&lied.fleet.publisher.beside("identity")).unwrap().unwrap();
    let stranger = HostIdentity::generate().unwrap();
    let head = |change: &dyn Fn(&mut Head), by: &HostIdentity| {
        let mut head = SignedHead::read(&lied.last[&StoreKey::Head]).unwrap().head;
        change(&mut head);
        head.sign(by.signing())
    };
    lied.is_noticed("the first head", &["fleet-rollback"], &|values| {
        values.insert(StoreKey::Head, lied.first[&StoreKey::Head].clone());
    });
    lied.is_noticed("all of the first", &["fleet-rollback"], &|values| values.clone_from(&lied.first));
    lied.is_noticed("a stranger's head", &["fleet-unknown-publisher"], &|values| {
        values.insert(StoreKey::Head, head(&|head| head.sequence += 1, &stranger));
    });
    let node = HostIdentity::load(&lied.node().cmd.beside("identity")).unwrap().unwrap();
    lied.is_noticed("a node's own head", &["fleet-unknown-publisher"], &|values| {
        values.insert(StoreKey::Head, head(&|head| head.sequence += 1, &node));
    });
    lied.is_noticed("a stranger's head that prunes", &["fleet-unknown-publisher"], &|values| {
        values.insert(StoreKey::Head, head(&|head| head.prune_many = true, &stranger));
    });
    lied.is_noticed("another fleet's head by the same publisher", &["fleet-other"], &|values| {
        values.insert(StoreKey::Head, head(&|head| head.fleet = "core".parse().unwrap(), &publisher));
    });
    lied.is_noticed("a head of tomorrow", &["fleet-clock"], &|values| {
        values.insert(StoreKey::Head, head(&|head| head.signed += 86_400, &publisher));
    });
    lied.is_noticed("a head that is past its time", &["fleet-stale"], &|values| {
        let old =
            |head: &mut Head| (head.signed, head.expires) = (head.signed - 200_000, head.expires - 200_000);
        values.insert(StoreKey::Head, head(&old, &publisher));
    });
    lied.is_noticed("a head that doesn't name it", &["fleet-not-a-node"], &|values| {
        let nodes = SignedHead::read(&lied.last[&StoreKey::Head]).unwrap().head.nodes;
        let list = NodeList::read(&values[&StoreKey::Page(nodes)]).unwrap();
        let list = NodeList::of(list.iter().filter(|it| it.0.as_ref() != "lb1").cloned());
        values.insert(StoreKey::Page(list.hash()), list.to_bytes());
        values.insert(StoreKey::Head, head(&|head| head.nodes = list.hash(), &publisher));
    });
    // Another list of nodes in the place of the one that the head names.
    let list_of = |values: &Values| {
        let nodes = SignedHead::read(&values[&StoreKey::Head]).unwrap().head.nodes;
        (StoreKey::Page(nodes), NodeList::read(&values[&StoreKey::Page(nodes)]).unwrap())
    };
    let ((list, members), (_, old)) = (list_of(&lied.last), list_of(&lied.first));
    assert_eq!((members.len(), old.len()), (3, 2));
    let others_key = members.get("lb2").unwrap().1;
    let swapped = NodeList::of(members.iter().map(|(name, key)| {
        let key = if name.as_ref() == "lb1" { others_key } else { *key };
        (name.clone(), key)
    }));
    for (what, other) in [
        ("the first head's list", old),
        ("a list without it", NodeList::of(members.iter().filter(|it| it.0.as_ref() != "lb1").cloned())),
        ("a list with another's key", swapped),
        ("a list of nobody", NodeList::default()),
    ] {
        lied.is_noticed(what, &["fleet-damaged"], &|values| {
            values.insert(list.clone(), other.to_bytes());
        });
        // Whoever looks at the fleet is told of nobody whom the head doesn't name.
        let mut values = lied.last.clone();
        values.insert(list.clone(), other.to_bytes());
        lied.lie(&values);
        let seen = lied.fleet.publisher.run(&["fleet", "status", "--format", "json"]).exits(2).json();
        assert_eq!(seen["nodes"], serde_json::json!([]), "{what}");
        assert!(seen["problems"].to_string().contains("fleet-damaged"), "{what}: {seen}");
        lied.mend(&values);
        count += 1;
    }
    // A key of the same epoch that somebody else made, sealed to the node.
    let place = StoreKey::EpochKey { epoch: 2, node: "lb1".parse().unwrap() };
    let forged = EpochKey::generate(2).unwrap();
    let forged = forged.seal(&"edge".parse().unwrap(), &"lb1".parse().unwrap(), &node.public()).unwrap();
    lied.is_noticed("a forged epoch key", &["fleet-damaged"], &|values| {
        values.insert(place.clone(), forged.clone());
    });
    // That of another node, and its own of the epoch before.
    for other in [
        StoreKey::EpochKey { epoch: 2, node: "lb2".parse().unwrap() },
        StoreKey::EpochKey { epoch: 1, node: "lb1".parse().unwrap() },
    ] {
        lied.is_noticed(&format!("{other} in its place"), &["fleet-damaged"], &|values| {
            values.insert(place.clone(), values[&other].clone());
        });
    }
    count += 12;

    // What it doesn't need may be anything.
    let others: Vec<&StoreKey> = lied.last.keys().filter(|key| !is_needed(key, &lied)).collect();
    lied.is_passed_over("what no head names is garbage", &|values| {
        for key in &others {
            values.insert((*key).clone(), b"garbage".to_vec());
        }
        values.insert(StoreKey::Object(sha256(b"x")), b"y".to_vec());
    });
    // The node's last word is in time: a fork is what has the number of what it took.
    lied.forget();
    lied.fleet.all_follow();
    lied.fleet.must_all_be_as_wanted("the truth");
    let fork = head(&|head| head.prune_many = !head.prune_many, &publisher);
    lied.etcd.overwrite(lied.reader, "/haproxy-certs/edge/head", &fork);
    let run = lied.node().follow().exits(2);
    assert!(run.stdout.contains("fleet-fork:"), "{run}");
    lied.fleet.must_all_be_as_wanted("after a fork");
    lied.mend(&Values::from([(StoreKey::Head, fork)]));

    // Reports: nobody speaks for another.
    lied.fleet.all_follow();
    let reports = [1, 2].map(|number| StoreKey::Report(format!("lb{number}").parse().unwrap()));
    let stored = lied.store.get(&reports).unwrap();
    let text = |number: usize| stored[number].as_ref().unwrap().bytes.clone();
    let mut forged: Vec<(String, Vec<u8>)> = vec![
        ("another's report".into(), text(1)),
        ("an empty one".into(), Vec::new()),
        ("half of one".into(), text(0)[..100].to_vec()),
    ];
    let bits = if long() { text(0).len() } else { 6 };
    for at in 0..bits {
        let bit = if long() { at * 8 + dice.roll(8) } else { dice.roll(text(0).len() * 8) };
        let mut bytes = text(0);
        bytes[bit / 8] ^= 1 << (bit % 8);
        forged.push((format!("bit {bit} of a report"), bytes));
    }
    for (what, bytes) in forged {
        lied.etcd.overwrite(lied.reader, "/haproxy-certs/edge/report/lb1", &bytes);
        let run = lied.fleet.publisher.run(&["fleet", "status"]).exits(2);
        assert!(
            run.stdout.contains("fleet-report-forged") && run.stdout.contains("OK   lb2"),
            "{what}: {run}"
        );
        count += 1;
    }
    // One publish, or look, and all is well.
    lied.fleet.publisher.run(&["fleet", "publish"]);
    lied.fleet.all_follow();
    lied.fleet.publisher.run(&["fleet", "status"]).exits(0);
    Count::Hostile.add("lies of a fleet's store", count);
}

/// Where its name may be longer than a socket's.
fn make_socket(path: &Path) {
    let short = tempfile::tempdir().unwrap();
    let first = short.path().join("s");
    drop(std::os::unix::net::UnixListener::bind(&first).unwrap());
    fs::rename(first, path).unwrap();
}

/// Makes something at a path.
type Odd = fn(&Path);

/// What stands in the place of a value in a directory, and no value can be.
const ODD: [(&str, Odd); 6] = [
    ("a link", |path| symlink("/etc/hostname", path).unwrap()),
    ("a link that leads nowhere", |path| symlink("/nowhere/at/all", path).unwrap()),
    ("a FIFO", |path| assert!(Command::new("mkfifo").arg(path).status().unwrap().success())),
    ("a socket", make_socket),
    ("a terabyte", |path| fs::File::create(path).unwrap().set_len(1 << 40).unwrap()),
    ("an empty directory", |path| fs::create_dir(path).unwrap()),
];

#[test]
fn what_is_no_file_in_a_directory_is_named_and_publish_puts_another_in_its_place() {
    let mut fleet = Fleet::new(1);
    fleet.bring_in_step(&["a.example"]);
    let head = fleet.folder().join("head");
    for (what, make) in ODD {
        fs::remove_file(&head).unwrap();
        make(&head);
        let run = fleet.nodes[0].follow().exits(2);
        assert!(run.stdout.contains("fleet-head-damaged: "), "{what}: {run}");
        assert!(!run.stdout.contains("fleet-unreachable"), "{what}: {run}");
        assert!(fleet.nodes[0].words().contains(&"fleet-head-damaged".to_owned()), "{what}");
        for host in [&fleet.publisher, &fleet.nodes[0].cmd] {
            let run = host.run(&["fleet", "status"]).exits(2);
            assert!(run.stdout.contains("fleet-head-damaged: "), "{what}: {run}");
        }
        fleet.renew("a.example");
        let run = fleet.publisher.run(&["fleet", "publish"]).exits(1);
        assert!(run.stdout.contains("a new one took its place"), "{what}: {run}");
        fleet.all_follow();
        fleet.must_all_be_as_wanted(what);
        fleet.publish();
    }
    // One that isn't empty is nobody's to remove: it is said what does.
    for path in [head.clone(), fleet.folder().join(".head.new")] {
        let _ = fs::remove_file(&path);
        fs::create_dir_all(path.join("somebody's")).unwrap();
        fleet.renew("a.example");
        let run = fleet.publisher.run(&["fleet", "publish"]).exits(3);
        let command = run.stderr.split("run: ").nth(1).unwrap().trim().to_owned();
        assert_eq!(command, format!("rm -r {}", path.display()), "{run}");
        assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success());
        fleet.publisher.run(&["fleet", "publish"]);
        fleet.all_follow();
        fleet.must_all_be_as_wanted("after its advice");
    }
    // Whole folders that are none.
    for name in ["object", "page", "key"] {
        let path = fleet.folder().join(name);
        fs::remove_dir_all(&path).unwrap();
        symlink("/tmp", &path).unwrap();
        fleet.renew("a.example");
        let run = fleet.publisher.run(&["fleet", "publish"]).exits(3);
        let command = run.stderr.split("run: ").nth(1).unwrap().trim().to_owned();
        assert_eq!(command, format!("rm -r {}", path.display()), "{run}");
        assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success());
        fleet.publish();
        fleet.all_follow();
        fleet.must_all_be_as_wanted(name);
    }
    Count::Hostile.add("entries that are no files in a fleet's directory", ODD.len() + 5);
}

/// All paths in a folder: what is there may be larger than what can be read.
fn paths(folder: &Path) -> BTreeSet<String> {
    let all = walkdir::WalkDir::new(folder).into_iter().map(Result::unwrap);
    all.map(|entry| entry.path().strip_prefix(folder).unwrap().to_str().unwrap().to_owned()).collect()
}

#[test]
fn parts_that_are_no_files_are_damage_and_publish_mends_it() {
    let mut fleet = Fleet::new(1);
    fleet.bring_in_step(&["a.example", "b.example"]);
    for (number, (what, make)) in ODD.into_iter().enumerate() {
        let old = fleet.wanted.clone();
        let before = paths(&fleet.folder());
        fleet.renew("a.example");
        fleet.publisher.run(&["fleet", "rotate"]).exits(0);
        let kind = ["object/", "page/", "key/"][number % 3];
        let is_fresh =
            |path: &&String| path.starts_with(kind) && path.len() > kind.len() + 2 && !before.contains(*path);
        for path in
            paths(&fleet.folder()).iter().filter(is_fresh).filter(|path| !path.ends_with("/publisher"))
        {
            fs::remove_file(fleet.folder().join(path)).unwrap();
            make(&fleet.folder().join(path));
        }
        let run = fleet.nodes[0].follow();
        let word = "fleet-damaged";
        assert!(run.stdout.contains(word), "{what} as {kind}: {run}");
        fleet.nodes[0].must_have(&old, what);
        if run.code == Some(2) && kind != "page/" {
            let all = fleet.publisher.run(&["fleet", "status"]).exits(2);
            assert!(all.stdout.contains("fleet-node-failed: fleet-damaged: "), "{what}: {all}");
        }
        // What it says to do.
        assert!(
            run.stdout.contains(
                "-> somebody changed the store; on the publisher, run: haproxy-certs fleet publish"
            ),
            "{run}"
        );
        let run = fleet.publisher.run(&["fleet", "publish"]);
        assert!(matches!(run.code, Some(0 | 1)), "{what}: {run}");
        fleet.all_follow();
        fleet.must_all_be_as_wanted(what);
        fleet.publish();
    }
}

/// What somebody makes of a value, which may be that of another key of its kind.
type Damage<'a> = (&'a str, fn(&[u8], &[u8]) -> Vec<u8>);

const DAMAGES: [Damage<'static>; 4] = [
    ("cut", |bytes, _| bytes[..bytes.len() / 2].to_vec()),
    ("a bit", |bytes, _| {
        let mut bytes = bytes.to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        bytes
    }),
    ("another's", |_, other| other.to_vec()),
    ("nothing in it", |_, _| Vec::new()),
];

/// What the store's head names, by kind.
fn named(store: &dyn FleetStore) -> [(&'static str, Vec<StoreKey>); 4] {
    let head = get_one(store, StoreKey::Head).unwrap().unwrap();
    let head = SignedHead::read(&head.bytes).unwrap().head;
    let keys = store.list(StoreFolder::EpochKeys).unwrap();
    let is_current = |key: &StoreKey| matches!(key, StoreKey::EpochKey { epoch, .. } if *epoch == head.epoch);
    [
        ("objects", store.list(StoreFolder::Objects).unwrap()),
        ("pages", head.pages.iter().map(|hash| StoreKey::Page(*hash)).collect()),
        ("the list of nodes", vec![StoreKey::Page(head.nodes)]),
        ("keys", keys.into_iter().filter(is_current).collect()),
    ]
}

/// Damages what the head names; `publish` by hand notices each, and a node without a past has everything.
fn every_damage_is_mended(fleet: &mut Fleet, store: &dyn FleetStore) {
    let mut count = 0;
    for (number, (what, damage)) in DAMAGES.into_iter().enumerate() {
        for at in 0..named(store).len() {
            let (kind, keys) = named(store)[at].clone();
            let context = format!("{kind}: {what}");
            let whole: Vec<Vec<u8>> =
                store.get(&keys).unwrap().into_iter().map(|found| found.unwrap().bytes).collect();
            let others = whole.iter().cycle().skip(1);
            let other = |other: &Vec<u8>| if whole.len() > 1 { other.clone() } else { b"x".to_vec() };
            let damaged = keys.iter().zip(&whole).zip(others);
            let damaged: Vec<(StoreKey, Vec<u8>)> =
                damaged.map(|((key, bytes), next)| (key.clone(), damage(bytes, &other(next)))).collect();
            store.put(&damaged).unwrap();
            let _ = fs::remove_dir_all(fleet.nodes[0].cmd.beside("cache"));
            // What may still arrive is waited for.
            if at == number {
                let run = fleet.nodes[0].follow();
                assert!(matches!(run.code, Some(1 | 2)), "{context}: {run}");
                let advice = "on the publisher, run: haproxy-certs fleet publish";
                assert!(run.stdout.contains(advice), "{context}: {run}");
            }
            let run = fleet.publisher.run(&["fleet", "publish"]).exits(1);
            assert!(run.stdout.contains("wasn't what this host had put there"), "{context}: {run}");
            fleet.all_follow();
            fleet.must_all_be_as_wanted(&context);
            // What is damaged stays for those who have an earlier head, and goes in a day; nothing else is to be done.
            let run = fleet.publish();
            assert!(run.stdout.contains("nothing changed"), "{context}: {run}");
            count += keys.len();
        }
    }
    Count::Hostile.add("values of a fleet's store that were damaged", count);
}

fn two_nodes_of(mut fleet: Fleet) -> Fleet {
    for name in ["lb1", "lb2"] {
        fleet.join(name, None);
    }
    fleet.tell_publisher();
    fleet.bring_in_step(&["a.example", "b.example"]);
    fleet
}

#[test]
fn what_is_damaged_in_a_directory_is_found_and_put_again() {
    let mut fleet = two_nodes_of(Fleet::new(0));
    let store = Directory::open(&fleet.folder()).unwrap();
    every_damage_is_mended(&mut fleet, &store);
}

#[test]
fn what_is_damaged_in_an_etcd_is_found_and_put_again() {
    let etcd = EtcdSetup::of(&etcds()[0]).start();
    let settings = etcd.settings("edge");
    let mut fleet = two_nodes_of(Fleet::in_etcd(&settings));
    every_damage_is_mended(&mut fleet, &Store::open(&settings).unwrap());
}

#[test]
fn a_renewal_doesnt_read_the_store_and_the_daily_look_does() {
    strace::must_be_there();
    let mut fleet = two_nodes_of(Fleet::new(0));
    let object = fleet.folder().join("object");
    let reads = |fleet: &Fleet, arguments: &[&str]| {
        let (run, calls) = strace::record(&fleet.publisher, arguments, &[], processors()[0]);
        let objects: Vec<String> =
            fs::read_dir(&object).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
        let is_one = |call: &&strace::Call| {
            call.name == "openat"
                && call.arguments.contains("O_RDONLY")
                && objects.iter().any(|name| call.arguments.contains(&format!("\"{name}\"")))
        };
        (calls.iter().filter(is_one).count(), run)
    };
    let cut = |fleet: &Fleet| {
        let head = SignedHead::read(&fs::read(fleet.folder().join("head")).unwrap()).unwrap().head;
        let path = fleet.folder().join("page").join(hex(&head.pages[0]));
        fs::write(path, "cut").unwrap();
    };
    fleet.renew("a.example");
    let (count, run) = reads(&fleet, &["assemble"]);
    assert!(count == 0 && run.stdout.contains("publish    a.example"), "{count} {run}");
    cut(&fleet);
    let (count, run) = reads(&fleet, &["assemble"]);
    assert!(count == 0 && run.code == Some(0), "{count} {run}");
    // As if the last look were of the day before yesterday.
    let memory = fleet.publisher.beside("cache/memory.json");
    let mut kept: serde_json::Value = serde_json::from_slice(&fs::read(&memory).unwrap()).unwrap();
    kept["swept"] = (kept["swept"].as_i64().unwrap() - 2 * 86_400).into();
    fs::write(&memory, kept.to_string()).unwrap();
    let (count, run) = reads(&fleet, &["assemble"]);
    assert!(count >= 2 && run.code == Some(1), "{count} {run}");
    assert!(run.stdout.contains("wasn't what this host had put there"), "{run}");
    let _ = fs::remove_dir_all(fleet.nodes[0].cmd.beside("cache"));
    fleet.all_follow();
    fleet.must_all_be_as_wanted("after the daily look");
    assert_eq!(reads(&fleet, &["assemble"]).0, 0);
}

/// What is lost of a lineage that can't be read holds nobody up who has it.
#[test]
fn damage_to_what_is_refused_stops_nothing_else() {
    let mut fleet = two_nodes_of(Fleet::new(0));
    let key = fs::read(fleet.tree.link("b.example", Kind::Privkey)).unwrap();
    fleet.tree.overwrite("b.example", Kind::Privkey, "none");
    for object in fs::read_dir(fleet.folder().join("object")).unwrap() {
        fs::write(object.unwrap().path(), "damaged").unwrap();
    }
    fleet.renew("a.example");
    let run = fleet.publisher.run(&["fleet", "publish"]).exits(1);
    assert!(run.stdout.contains("the store has lost what was published of b.example"), "{run}");
    assert!(run.stdout.contains("refuse     b.example"), "{run}");
    fleet.all_follow();
    fleet.must_all_be_as_wanted("who has it keeps it");
    // Everything anew is more than can be done.
    let run = fleet.publisher.run(&["fleet", "rotate"]).exits(3);
    assert!(run.stderr.contains("b.example is refused here"), "{run}");
    fleet.tree.overwrite("b.example", Kind::Privkey, String::from_utf8(key).unwrap());
    fleet.publisher.run(&["fleet", "publish"]);
    fleet.publish();
    let _ = fs::remove_dir_all(fleet.nodes[0].cmd.beside("cache"));
    fleet.all_follow();
    fleet.must_all_be_as_wanted("when it is mended");
}

/// Whoever has taken the publisher over has all of its keys; a node proves each pair for itself.
#[test]
fn a_publisher_cannot_make_a_node_deploy_a_bad_pair() {
    let mut fleet = Fleet::new(1);
    fleet.bring_in_step(&["a.example", "b.example"]);
    let identity = HostIdentity::load(&fleet.publisher.beside("identity")).unwrap().unwrap();
    let stored = fleet.stored();
    let head = SignedHead::read(&stored["head"]).unwrap().head;
    let sealed = &stored[&format!("key/{}/publisher", head.epoch)];
    let own = NodeName::publisher();
    let key = EpochKey::open(sealed, &identity, &head.fleet, &own, (head.epoch, &head.epoch_key)).unwrap();
    let (good, other) = (fleet.renew("a.example"), fleet.renew("b.example"));
    let mut old = fleet.wanted.clone();
    for name in ["a.example", "b.example"] {
        old.insert(name.into(), fs::read_to_string(fleet.nodes[0].cmd.site(name)).unwrap());
    }
    let text = |text: String| Zeroizing::new(text.into_bytes());
    let (key_of, chain_of) = (other.key.pem(), good.fullchain());
    for (number, (what, private, chain)) in [
        ("another's key", text(key_of.clone()), text(chain_of.clone())),
        ("no key", text(String::new()), text(chain_of.clone())),
        ("no chain", text(key_of), text(String::new())),
        ("garbage", text("garbage".into()), text("garbage".into())),
    ]
    .into_iter()
    .enumerate()
    {
        let pair = PlainPair { key: private, chain };
        let object = object::seal(&pair, "a.example", &head.fleet, &key).unwrap();
        let before = fleet.stored();
        let mut head = SignedHead::read(&before["head"]).unwrap().head;
        let page = &before[&StoreKey::Page(head.pages[0]).to_string()];
        let mut entries = page::open(page, (0, 1), &head.fleet, &key).unwrap();
        let entry = entries.iter_mut().find(|entry| entry.lineage == "a.example").unwrap();
        (entry.object, entry.content) = (sha256(&object), pair.content());
        let page = page::seal(&entries, (0, 1), &head.fleet, &key).unwrap();
        head.pages = vec![sha256(&page)];
        head.sequence += 1;
        for (key, bytes) in [
            (StoreKey::Object(sha256(&object)), object),
            (StoreKey::Page(sha256(&page)), page),
            (StoreKey::Head, head.sign(identity.signing())),
        ] {
            fs::write(fleet.folder().join(key.to_string()), bytes).unwrap();
        }
        let run = fleet.nodes[0].follow().exits(1);
        assert!(run.stdout.contains("refuse     a.example.pem"), "{what}: {run}");
        fleet.nodes[0].must_have(&old, what);
        let text = fleet.publisher.run(&["fleet", "status"]).stdout;
        assert!(text.contains("fleet-node-failed") && text.contains("a.example"), "{what}, {number}: {text}");
    }
    let run = fleet.publisher.run(&["fleet", "publish"]).exits(3);
    assert!(run.stderr.contains("two hosts publish with one identity"), "{run}");
    fleet.publisher.run(&["fleet", "publish", "--take-over"]).exits(0);
    fleet.all_follow();
    fleet.must_all_be_as_wanted("by the publisher again");
}

#[test]
fn a_node_that_missed_the_permission_to_prune_many_is_told_how() {
    let mut fleet = Fleet::new(2);
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
    fleet.publisher.run(&["fleet", "publish", "--prune-many"]).exits(0);
    fleet.nodes[0].follow().exits(0);
    // The other one wasn't there; the next head has no such permission.
    fleet.renew("n7.example");
    fleet.publish();
    let mut held = all.clone();
    held.insert("n7.example".into(), fleet.wanted["n7.example"].clone());
    let missed = &fleet.nodes[1];
    let run = missed.follow().exits(1);
    missed.must_have(&held, "held");
    assert!(run.stdout.contains("on the publisher: fleet publish --prune-many"), "{run}");
    let status = missed.cmd.run(&["status"]).stdout;
    let words: Vec<&str> = status.split_whitespace().collect();
    // The publisher's settings aren't this host's, and this host's are.
    let config = missed.cmd.config().display().to_string();
    let advice = format!(
        "on the publisher, run: haproxy-certs fleet publish --prune-many; or for this node alone: haproxy-certs --config \
         {config} assemble --prune-many"
    );
    assert!(words.join(" ").contains(&advice), "{status}");
    let text = fleet.publisher.run(&["fleet", "status"]).stdout;
    assert!(text.contains("prune-held"), "{text}");
    // Either of them does it.
    fleet.publisher.run(&["fleet", "publish", "--prune-many"]).exits(0);
    fleet.all_follow();
    fleet.must_all_be_as_wanted("by the publisher");
    for at in 0..4 {
        fleet.issue(&format!("m{at}.example"));
    }
    fleet.publish();
    fleet.all_follow();
    for name in &names[4..] {
        fleet.delete(name);
    }
    fleet.publisher.run(&["fleet", "publish", "--prune-many"]).exits(0);
    fleet.nodes[0].follow().exits(0);
    fleet.renew("m0.example");
    fleet.publish();
    fleet.nodes[1].follow().exits(1);
    fleet.nodes[1].cmd.run(&["assemble", "--prune-many"]).exits(0);
    fleet.all_follow();
    fleet.must_all_be_as_wanted("here");
}

/// What fails on a node is said by its status at once, and not when it has been silent for an hour.
#[test]
fn a_look_that_fails_is_said_at_once() {
    let mut fleet = Fleet::new(1);
    fleet.bring_in_step(&["a.example"]);
    let node = &fleet.nodes[0];
    assert_eq!(node.words(), Vec::<String>::new());
    // Its keys.
    let (identity, aside) = (node.cmd.beside("identity"), node.cmd.beside("aside"));
    fs::rename(&identity, &aside).unwrap();
    node.follow().exits(3);
    assert!(node.words().contains(&"fleet-not-followed".to_owned()));
    fs::rename(&aside, &identity).unwrap();
    assert_eq!(node.words(), Vec::<String>::new());
    // Its cache.
    let cache = node.cmd.beside("cache");
    let mode =
        |mode| fs::set_permissions(&cache, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    mode(0o777);
    node.follow().exits(3);
    assert!(node.words().contains(&"fleet-not-followed".to_owned()));
    mode(0o700);
    // Its report.
    let reports = fleet.folder().join("report");
    fs::remove_dir_all(&reports).unwrap();
    fs::write(&reports, "").unwrap();
    let run = node.follow().exits(1);
    assert!(run.stdout.contains("the report could not be put: "), "{run}");
    assert!(node.words().contains(&"fleet-unreported".to_owned()));
    fs::remove_file(&reports).unwrap();
    node.follow().exits(0);
    assert_eq!(node.words(), Vec::<String>::new());
    // The store.
    fs::rename(fleet.folder(), fleet.folder().with_extension("gone")).unwrap();
    node.follow().exits(3);
    assert!(node.words().contains(&"fleet-unreachable".to_owned()));
    fs::rename(fleet.folder().with_extension("gone"), fleet.folder()).unwrap();
    node.follow().exits(0);
    assert_eq!(node.words(), Vec::<String>::new());
}

/// What only the store says pushes out nothing that the publisher knows for itself, and what can't be read is not forgotten.
#[test]
fn invented_names_make_a_publisher_forget_nothing() {
    const NOTED: usize = 100_000;
    let mut fleet = Fleet::new(2);
    fleet.bring_in_step(&["a.example"]);
    fleet.nodes.pop();
    fleet.tell_publisher();
    let told = "lb2 is no node any more, and can still read";
    let run = fleet.publisher.run(&["fleet", "publish"]).exits(1);
    assert!(run.stdout.contains(told), "{run}");

    for at in 0..NOTED + 20 {
        fs::File::create(fleet.folder().join(format!("object/{at:064x}"))).unwrap();
    }
    for at in 0..1003 {
        fs::File::create(fleet.folder().join(format!("key/1/invented-{at}"))).unwrap();
    }
    let run = fleet.publisher.run(&["fleet", "publish"]).exits(1);
    assert!(run.stdout.contains(&format!("beside the {NOTED} that are noted at once")), "{run}");
    assert!(run.stdout.contains("for 4 more that are no nodes"), "{run}");
    let path = fleet.publisher.beside("cache/memory.json");
    let memory = fs::read_to_string(&path).unwrap();
    assert!(memory.len() < 16 << 20, "{}", memory.len());
    let kept: serde_json::Value = serde_json::from_str(&memory).unwrap();
    assert_eq!(kept["dropped"].as_object().unwrap().len(), NOTED);
    let must_be_told = |fleet: &Fleet| {
        let run = fleet.publisher.run(&["fleet", "publish"]).exits(1);
        assert!(run.stdout.contains(told), "{run}");
        let status = fleet.publisher.run(&["fleet", "status"]);
        assert!(status.stdout.contains(told), "{status}");
    };
    must_be_told(&fleet);

    // Longer than any file of ours is read.
    let long = format!("{}{memory}", " ".repeat(64 << 20));
    fs::write(&path, &long).unwrap();
    for command in ["publish", "status"] {
        let run = fleet.publisher.run(&["fleet", command]).exits(3);
        assert!(run.to_string().contains(&format!("run: rm {}", path.display())), "{run}");
    }
    assert!(fs::read_to_string(&path).unwrap() == long, "it was written over");
    fs::write(&path, &memory).unwrap();
    must_be_told(&fleet);
}
