//! A store that lies: whatever it changes, swaps, brings back or withholds, a node gets what was published or is told why not.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may fail loudly")]

use std::collections::BTreeMap;

use haproxy_certs::certified_key::sha256;
use haproxy_certs::fleet::accept::{Accepted, KnownHeads, accept};
use haproxy_certs::fleet::epoch::EpochKey;
use haproxy_certs::fleet::head::Head;
use haproxy_certs::fleet::identity::HostIdentity;
use haproxy_certs::fleet::name::{FleetName, NodeName};
use haproxy_certs::fleet::node_list::NodeList;
use haproxy_certs::fleet::object::{self, PlainPair};
use haproxy_certs::fleet::page::{self, PageEntry};
use haproxy_certs::fleet::report::NodeReport;
use haproxy_certs::fleet::store::StoreKey;
use zeroize::Zeroizing;

const NOW: i64 = 1_796_000_000;
const PAGES: usize = 2;

type Values = BTreeMap<StoreKey, Vec<u8>>;
type Pairs = BTreeMap<String, PlainPair>;

fn fleet() -> FleetName {
    "edge".parse().unwrap()
}

fn node(name: &str) -> NodeName {
    name.parse().unwrap()
}

fn pairs(version: &str) -> Pairs {
    let pair = |name: &str| PlainPair {
        key: Zeroizing::new(format!("key of {name}, {version}").into_bytes()),
        chain: Zeroizing::new(format!("chain of {name}, {version}").into_bytes()),
    };
    ["a.test", "b.test", "c.test"].map(|name| (name.to_owned(), pair(name))).into()
}

/// A publisher, as simple as one can be.
struct Publisher {
    fleet: FleetName,
    identity: HostIdentity,
    sequence: u64,
    epoch: u64,
    values: Values,
}

impl Publisher {
    fn new(fleet: FleetName) -> Self {
        let identity = HostIdentity::generate().unwrap();
        Self { fleet, identity, sequence: 0, epoch: 1, values: Values::new() }
    }

    fn publish(&mut self, pairs: &Pairs, nodes: &[(NodeName, &HostIdentity)]) {
        let key = EpochKey::generate(self.epoch).unwrap();
        let mut entries = Vec::new();
        for (lineage, pair) in pairs {
            let sealed = object::seal(pair, lineage, &self.fleet, &key).unwrap();
            entries.push(PageEntry {
                lineage: lineage.clone(),
                object: sha256(&sealed),
                content: pair.content(),
                leaf: [0; 32],
                serial: "00".into(),
                not_after: NOW,
            });
            self.values.insert(StoreKey::Object(sha256(&sealed)), sealed);
        }
        let pages =
            (0..PAGES).map(|number| page::seal(&entries, (number, PAGES), &self.fleet, &key).unwrap());
        let pages: Vec<_> = pages.collect();
        for (node, identity) in nodes {
            let sealed = key.seal(&self.fleet, node, &identity.public()).unwrap();
            self.values.insert(StoreKey::EpochKey { epoch: self.epoch, node: node.clone() }, sealed);
        }
        let list = NodeList::of(nodes.iter().map(|(node, identity)| (node.clone(), identity.public())));
        self.sequence += 1;
        let head = Head {
            fleet: self.fleet.clone(),
            sequence: self.sequence,
            signed: NOW,
            expires: NOW + 1000,
            epoch: self.epoch,
            epoch_key: key.commitment(&self.fleet),
            prune_many: false,
            nodes: list.hash(),
            pages: pages.iter().map(|page| sha256(page)).collect(),
        };
        self.values.extend(pages.into_iter().map(|page| (StoreKey::Page(sha256(&page)), page)));
        self.values.insert(StoreKey::Page(list.hash()), list.to_bytes());
        self.values.insert(StoreKey::Head, head.sign(self.identity.signing()));
    }
}

/// A node, as simple as one can be: all that the head says, or why not.
struct Node {
    name: NodeName,
    identity: HostIdentity,
    known: KnownHeads,
}

impl Node {
    fn new(name: &str) -> Self {
        Self { name: node(name), identity: HostIdentity::generate().unwrap(), known: KnownHeads::default() }
    }

    fn reads(&self, values: &Values, publisher: &Publisher) -> Result<Pairs, String> {
        let publishers = [publisher.identity.public().signing];
        let value = |key: &StoreKey| values.get(key).ok_or_else(|| format!("{key} is missing"));
        let named = |key: StoreKey, hash: [u8; 32]| {
            let bytes = value(&key)?;
            if sha256(bytes) == hash { Ok(bytes) } else { Err(format!("{key} was changed")) }
        };
        let accepted = accept(value(&StoreKey::Head)?, &self.known, &fleet(), &publishers, NOW + 1);
        let (Accepted::New(signed) | Accepted::Unchanged(signed)) =
            accepted.map_err(|e| e.word().to_owned())?;
        let head = signed.head;
        let list =
            NodeList::read(named(StoreKey::Page(head.nodes), head.nodes)?).map_err(|e| e.to_string())?;
        let own = list.name_of(&self.identity.public());
        let sealed = value(&StoreKey::EpochKey { epoch: head.epoch, node: self.name.clone() })?;
        let key = EpochKey::open(sealed, &self.identity, &fleet(), &self.name, (head.epoch, &head.epoch_key));
        let key = key.map_err(|e| format!("the key: {e}"))?;
        if own != Some(&self.name) {
            return Err("it isn't listed".into());
        }
        let mut found = Pairs::new();
        for (number, hash) in head.pages.iter().enumerate() {
            let bytes = named(StoreKey::Page(*hash), *hash)?;
            let entries = page::open(bytes, (number, head.pages.len()), &fleet(), &key);
            for entry in entries.map_err(|e| format!("a page: {e}"))? {
                let bytes = named(StoreKey::Object(entry.object), entry.object)?;
                let pair = object::open(bytes, &entry.lineage, &fleet(), &key);
                found.insert(entry.lineage, pair.map_err(|e| format!("an object: {e}"))?);
            }
        }
        Ok(found)
    }

    fn remembers(&mut self, values: &Values) {
        let head = haproxy_certs::fleet::head::SignedHead::read(&values[&StoreKey::Head]).unwrap();
        self.known.remember(&head);
    }
}

fn published() -> (Publisher, Node, Node) {
    let mut publisher = Publisher::new(fleet());
    let [lb1, lb2] = ["lb1", "lb2"].map(Node::new);
    publisher.publish(&pairs("1"), &[(node("lb1"), &lb1.identity), (node("lb2"), &lb2.identity)]);
    (publisher, lb1, lb2)
}

#[test]
fn an_honest_store() {
    let (publisher, lb1, lb2) = published();
    assert_eq!(lb1.reads(&publisher.values, &publisher), Ok(pairs("1")));
    assert_eq!(lb2.reads(&publisher.values, &publisher), Ok(pairs("1")));
    let stranger = Node::new("lb1");
    assert!(stranger.reads(&publisher.values, &publisher).unwrap_err().starts_with("the key"));
}

#[test]
fn a_bit_that_is_flipped_anywhere() {
    let (publisher, lb1, _) = published();
    for (key, bytes) in &publisher.values {
        let is_another_nodes = matches!(key, StoreKey::EpochKey { node, .. } if node.as_ref() == "lb2");
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut values = publisher.values.clone();
                values.get_mut(key).unwrap()[at] ^= 1 << bit;
                let read = lb1.reads(&values, &publisher);
                assert_eq!(read.is_ok(), is_another_nodes, "{key} {at} {bit}");
            }
        }
    }
}

#[test]
fn a_value_that_is_cut_missing_or_longer() {
    let (publisher, lb1, _) = published();
    for (key, bytes) in &publisher.values {
        if matches!(key, StoreKey::EpochKey { node, .. } if node.as_ref() == "lb2") {
            continue;
        }
        let with = |value: Option<Vec<u8>>| {
            let mut values = publisher.values.clone();
            match value {
                Some(value) => values.insert(key.clone(), value),
                None => values.remove(key),
            };
            lb1.reads(&values, &publisher)
        };
        assert_eq!(with(None).unwrap_err(), format!("{key} is missing"));
        for length in [0, 1, bytes.len() / 2, bytes.len() - 2] {
            assert!(with(Some(bytes[..length].to_vec())).is_err(), "{key} {length}");
        }
        assert!(with(Some([&bytes[..], b"x"].concat())).is_err(), "{key}");
    }
}

#[test]
fn any_two_values_that_are_swapped() {
    let (publisher, lb1, _) = published();
    let keys: Vec<_> = publisher.values.keys().cloned().collect();
    for one in &keys {
        for two in keys.iter().filter(|two| *two > one) {
            let mut values = publisher.values.clone();
            values.insert(one.clone(), publisher.values[two].clone());
            values.insert(two.clone(), publisher.values[one].clone());
            assert!(lb1.reads(&values, &publisher).is_err(), "{one} and {two}");
        }
    }
}

#[test]
fn an_old_head_that_is_brought_back() {
    let (mut publisher, mut lb1, lb2) = published();
    let old = publisher.values.clone();
    publisher.publish(&pairs("2"), &[(node("lb1"), &lb1.identity), (node("lb2"), &lb2.identity)]);
    assert_eq!(lb1.reads(&publisher.values, &publisher), Ok(pairs("2")));
    lb1.remembers(&publisher.values);
    assert_eq!(lb1.reads(&old, &publisher).unwrap_err(), "fleet-rollback");
    // The old head's parts under the new head, and the other way round.
    let mut mixed = old.clone();
    mixed.insert(StoreKey::Head, publisher.values[&StoreKey::Head].clone());
    assert!(lb1.reads(&mixed, &publisher).is_err());
    // Two heads with one number.
    let new = publisher.values.clone();
    publisher.sequence -= 1;
    publisher.publish(&pairs("3"), &[(node("lb1"), &lb1.identity)]);
    assert_eq!(lb1.reads(&publisher.values, &publisher).unwrap_err(), "fleet-fork");
    assert_eq!(lb1.reads(&new, &publisher), Ok(pairs("2")));
}

#[test]
fn values_of_another_fleet() {
    let (publisher, lb1, _) = published();
    let mut other = Publisher::new("core".parse().unwrap());
    other.publish(&pairs("other"), &[(node("lb1"), &lb1.identity)]);
    assert_eq!(lb1.reads(&other.values, &publisher).unwrap_err(), "fleet-unknown-publisher");
    // The same publisher may have two fleets.
    assert_eq!(lb1.reads(&other.values, &other).unwrap_err(), "fleet-other");
}

#[test]
fn a_node_that_was_removed_reads_nothing_that_comes_later() {
    let (mut publisher, lb1, lb2) = published();
    let old = publisher.values.clone();
    publisher.epoch += 1;
    publisher.publish(&pairs("2"), &[(node("lb1"), &lb1.identity)]);
    assert_eq!(lb1.reads(&publisher.values, &publisher), Ok(pairs("2")));
    let gone = lb2.reads(&publisher.values, &publisher).unwrap_err();
    assert_eq!(gone, "key/2/lb2 is missing");
    // The store puts its old key back, and that of another node, under its name.
    for key in [
        old[&StoreKey::EpochKey { epoch: 1, node: node("lb2") }].clone(),
        publisher.values[&StoreKey::EpochKey { epoch: 2, node: node("lb1") }].clone(),
    ] {
        let mut values = publisher.values.clone();
        values.insert(StoreKey::EpochKey { epoch: 2, node: node("lb2") }, key);
        assert!(lb2.reads(&values, &publisher).unwrap_err().starts_with("the key"));
    }
    // A key that somebody else made and sealed to it isn't the one that the head names.
    let forged = EpochKey::generate(2).unwrap().seal(&fleet(), &node("lb1"), &lb1.identity.public()).unwrap();
    let mut values = publisher.values.clone();
    values.insert(StoreKey::EpochKey { epoch: 2, node: node("lb1") }, forged);
    let refused = lb1.reads(&values, &publisher).unwrap_err();
    assert_eq!(refused, "the key: it holds another key than the one that the head names");
}

#[test]
fn a_report_that_is_forged() {
    let [lb1, lb2] = ["lb1", "lb2"].map(Node::new);
    let report = |name| NodeReport {
        fleet: fleet(),
        node: node(name),
        sequence: 1,
        head: [1; 32],
        since: NOW,
        time: NOW,
        program: "0.1.0".into(),
        confirmed: true,
        omitted: 0,
        exceptions: Vec::new(),
        notes: Vec::new(),
    };
    let read = |bytes: &[u8]| NodeReport::read(bytes, &lb1.identity.public().signing, &fleet(), &node("lb1"));
    assert!(read(&report("lb1").sign(lb1.identity.signing())).is_ok());
    // Another node speaks for it, or its own words are put under another's name.
    assert!(read(&report("lb1").sign(lb2.identity.signing())).is_err());
    assert!(read(&report("lb2").sign(lb1.identity.signing())).is_err());
    // A head by the same key is no report, and a report no head.
    let mut publisher = Publisher { identity: lb1.identity, ..Publisher::new(fleet()) };
    publisher.publish(&pairs("1"), &[]);
    let key = publisher.identity.public().signing;
    let head = &publisher.values[&StoreKey::Head];
    assert!(NodeReport::read(head, &key, &fleet(), &node("lb1")).is_err());
    let report = report("lb1").sign(publisher.identity.signing());
    assert!(accept(&report, &KnownHeads::default(), &fleet(), &[key], NOW).is_err());
}
