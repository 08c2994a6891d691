//! The fleet's store: the same calls on a directory and on real etcds, and what happens when they fail or lie.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "test code may fail loudly"
)]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use haproxy_certs::certified_key::sha256;
use haproxy_certs::fleet::accept::{Accepted, KnownHeads, RefusedHead, accept};
use haproxy_certs::fleet::epoch::EpochKey;
use haproxy_certs::fleet::head::Head;
use haproxy_certs::fleet::identity::HostIdentity;
use haproxy_certs::fleet::object::{self, PlainPair};
use haproxy_certs::fleet::page::{self, PageEntry};
use haproxy_certs::fleet::store::directory::Directory;
use haproxy_certs::fleet::store::etcd::{Etcd, EtcdSettings};
use haproxy_certs::fleet::store::{FleetStore, StoreError, StoreFolder, StoreKey, Swap, Woken};
use zeroize::Zeroizing;

use support::etcd::EtcdVersion;
use support::{EtcdSetup, LIMIT, Port, etcds, newest_etcd, wait_until};

/// Long enough for what happens at once on a machine that is busy.
const SOON: Duration = Duration::from_secs(60);

/// Short enough to be waited for.
const SHORT: Duration = Duration::from_millis(300);

fn object(number: usize) -> (StoreKey, Vec<u8>) {
    let bytes = format!("object {number} ").repeat(1 + number % 700).into_bytes();
    (StoreKey::Object(sha256(&bytes)), bytes)
}

fn report(node: &str) -> StoreKey {
    StoreKey::Report(node.parse().unwrap())
}

fn bytes(store: &dyn FleetStore, key: &StoreKey) -> Option<Vec<u8>> {
    store.get(std::slice::from_ref(key)).unwrap().remove(0).map(|stored| stored.bytes)
}

fn done(swap: Result<Swap, StoreError>) -> haproxy_certs::fleet::store::Revision {
    match swap.unwrap() {
        Swap::Done(revision) => revision,
        Swap::Lost => panic!("lost"),
    }
}

/// What every store must do.
fn does_what_a_store_does(store: &dyn FleetStore) {
    // Nothing is there.
    assert_eq!(store.get(&[]).unwrap(), []);
    assert_eq!(bytes(store, &StoreKey::Head), None);
    for folder in [StoreFolder::Pages, StoreFolder::Objects, StoreFolder::EpochKeys, StoreFolder::Reports] {
        assert_eq!(store.list(folder).unwrap(), []);
    }
    store.delete(&[StoreKey::Head, object(1).0]).unwrap();

    // Many, more than fit into one transaction and one page of a list; one of them twice.
    let mut objects: Vec<_> = (0..1100).map(object).collect();
    objects.push(objects[7].clone());
    store.put(&objects).unwrap();
    objects.pop();
    let keys: Vec<_> = objects.iter().map(|(key, _)| key.clone()).collect();
    let read = store.get(&keys).unwrap();
    assert!(read.iter().zip(&objects).all(|(read, (_, bytes))| read.as_ref().unwrap().bytes == *bytes));
    let mut listed = store.list(StoreFolder::Objects).unwrap();
    listed.sort();
    let mut expected = keys.clone();
    expected.sort();
    assert_eq!(listed, expected);
    // In the order that was asked for, with what isn't there.
    let missing = StoreKey::Page([9; 32]);
    let read = store.get(&[keys[5].clone(), missing, keys[3].clone()]).unwrap();
    let read: Vec<_> = read.into_iter().map(|stored| stored.map(|stored| stored.bytes)).collect();
    assert_eq!(read, [Some(objects[5].1.clone()), None, Some(objects[3].1.clone())]);

    // The largest values, several at once.
    let large: Vec<_> = (0..9)
        .map(|number| {
            let key = StoreKey::Object([number; 32]);
            (key.clone(), vec![number; key.max_bytes()])
        })
        .collect();
    store.put(&large).unwrap();
    let keys_of_large: Vec<_> = large.iter().map(|(key, _)| key.clone()).collect();
    let read = store.get(&keys_of_large).unwrap();
    assert!(read.iter().zip(&large).all(|(read, (_, bytes))| read.as_ref().unwrap().bytes == *bytes));
    let too_large = (keys[0].clone(), vec![0; keys[0].max_bytes() + 1]);
    assert!(matches!(store.put(&[too_large]), Err(StoreError::TooLarge(_))));

    // Names of each kind.
    let sealed = |epoch, node: &str| StoreKey::EpochKey { epoch, node: node.parse().unwrap() };
    let others =
        [sealed(1, "lb1"), sealed(1, "lb2"), sealed(10, "lb1"), report("lb1"), report("lb1.example.org")];
    store.put(&others.each_ref().map(|key| (key.clone(), key.to_string().into_bytes()))).unwrap();
    let mut listed = store.list(StoreFolder::EpochKeys).unwrap();
    listed.sort();
    assert_eq!(listed, others[..3]);
    store.delete(&[sealed(1, "lb1"), sealed(1, "lb2"), sealed(1, "lb1")]).unwrap();
    assert_eq!(store.list(StoreFolder::EpochKeys).unwrap(), others[2..3]);
    assert_eq!(store.list(StoreFolder::Reports).unwrap().len(), 2);

    store.delete(&keys).unwrap();
    store.delete(&keys_of_large).unwrap();
    assert_eq!(store.list(StoreFolder::Objects).unwrap(), []);

    one_writer_wins(store);
    a_wait_ends(store);
}

fn one_writer_wins(store: &dyn FleetStore) {
    let head = StoreKey::Head;
    let first = done(store.compare_and_put(&head, None, b"one"));
    assert_eq!(store.get(std::slice::from_ref(&head)).unwrap()[0].as_ref().unwrap().revision, first);
    assert_eq!(store.compare_and_put(&head, None, b"two").unwrap(), Swap::Lost);
    let second = done(store.compare_and_put(&head, Some(first), b"two"));
    assert_ne!(first, second);
    assert_eq!(store.compare_and_put(&head, Some(first), b"three").unwrap(), Swap::Lost);
    // Asked again because the answer got lost: it is our own value.
    assert_eq!(store.compare_and_put(&head, Some(first), b"two").unwrap(), Swap::Done(second));
    assert_eq!(bytes(store, &head).unwrap(), b"two");
    store.delete(std::slice::from_ref(&head)).unwrap();
    assert_eq!(store.compare_and_put(&head, Some(second), b"three").unwrap(), Swap::Lost);
}

fn a_wait_ends(store: &dyn FleetStore) {
    let head = StoreKey::Head;
    assert_eq!(store.wait(None, SHORT).unwrap(), Woken::TimedOut);
    let first = done(store.compare_and_put(&head, None, b"one"));
    // What happened before the wait ends it at once.
    assert_eq!(store.wait(None, LIMIT).unwrap(), Woken::Changed);
    assert_eq!(store.wait(Some(first), SHORT).unwrap(), Woken::TimedOut);
    // Other keys don't.
    store.put(&[object(1), (report("lb1"), b"x".to_vec())]).unwrap();
    assert_eq!(store.wait(Some(first), SHORT).unwrap(), Woken::TimedOut);
}

/// Whether a wait that is going on ends when another changes the head.
fn a_change_wakes(store: &dyn FleetStore, other: &(dyn FleetStore + Sync)) {
    let head = StoreKey::Head;
    let mut seen = store.get(std::slice::from_ref(&head)).unwrap().remove(0).map(|stored| stored.revision);
    for round in 0..3_u8 {
        seen = Some(thread::scope(|scope| {
            let change = scope.spawn(move || {
                thread::sleep(Duration::from_millis(200));
                done(other.compare_and_put(&StoreKey::Head, seen, &[b'a' + round]))
            });
            let begun = Instant::now();
            assert_eq!(store.wait(seen, SOON).unwrap(), Woken::Changed);
            assert!(begun.elapsed() < SOON);
            change.join().unwrap()
        }));
    }
}

#[test]
fn a_directory_does_what_a_store_does() {
    let folder = tempfile::tempdir().unwrap();
    let store = Directory::open(folder.path()).unwrap();
    does_what_a_store_does(&store);
    a_change_wakes(&store, &Directory::open(folder.path()).unwrap());
    let left = fs::read_dir(folder.path().join("object")).unwrap().count();
    assert_eq!(left, 1, "no unnamed file is left");
}

#[test]
fn each_etcd_does_what_a_store_does() {
    for version in etcds() {
        let etcd = EtcdSetup::of(&version).start();
        let open = || Etcd::open(&etcd.settings("edge")).unwrap();
        does_what_a_store_does(&open());
        a_change_wakes(&open(), &open());
        // Another fleet's values are its own.
        let other = Etcd::open(&etcd.settings("edge2")).unwrap();
        assert_eq!(
            (bytes(&other, &StoreKey::Head), other.list(StoreFolder::Reports).unwrap()),
            (None, vec![])
        );
        // Nothing lies outside of the fleet.
        let keys = etcd.ctl(&["get", "--prefix", "--keys-only", "/"]);
        assert!(keys.split_whitespace().all(|key| key.starts_with("/haproxy-certs/edge/")), "{keys}");
        compacted(&etcd, &open());
    }
}

/// History goes while a node sleeps, and while it waits.
fn compacted(etcd: &support::Etcd, store: &Etcd) {
    let revision = || {
        let text = etcd.ctl(&["endpoint", "status", "-w", "json"]);
        let status: serde_json::Value = serde_json::from_str(&text).unwrap();
        status[0]["Status"]["header"]["revision"].to_string()
    };
    let seen = store.get(&[StoreKey::Head]).unwrap().remove(0).map(|stored| stored.revision);
    for number in 0..20 {
        store.put(&[object(number)]).unwrap();
    }
    etcd.ctl(&["compaction", &revision()]);
    assert_eq!(store.wait(seen, SHORT).unwrap(), Woken::TimedOut);
    let other = Etcd::open(&etcd.settings("edge")).unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| store.wait(seen, SOON).unwrap());
        thread::sleep(Duration::from_millis(200));
        other.put(&[object(1)]).unwrap();
        etcd.ctl(&["compaction", &revision()]);
        let swap = other.compare_and_put(&StoreKey::Head, seen, b"after the compaction");
        assert!(matches!(swap, Ok(Swap::Done(_))));
        assert_eq!(waiting.join().unwrap(), Woken::Changed);
    });
}

#[test]
fn each_etcd_with_tls_and_users() {
    for version in etcds() {
        with_tls_and_users(&version);
    }
}

fn with_tls_and_users(version: &EtcdVersion) {
    let mut etcd = EtcdSetup::of(version).tls().start();
    etcd.users_on("edge", "readwrite");
    let settings = etcd.settings("edge");
    let store = Etcd::open(&settings).unwrap();
    store.put(&[object(1)]).unwrap();
    assert_eq!(store.wait(None, SHORT).unwrap(), Woken::TimedOut);

    // Another fleet isn't ours to read, to write or to wait for.
    let other = Etcd::open(&etcd.settings("core")).unwrap();
    let denied = |result: Result<(), StoreError>| assert!(matches!(result, Err(StoreError::Denied(_))));
    denied(other.get(&[StoreKey::Head]).map(drop));
    denied(other.list(StoreFolder::Pages).map(drop));
    denied(other.put(&[object(1)]));
    denied(other.wait(None, SHORT).map(drop));

    // A token that has gone is had again: after a restart, and after whatever changes users or roles.
    etcd.kill(0);
    etcd.run(0);
    etcd.wait_until_it_answers();
    store.put(&[object(2)]).unwrap();
    etcd.ctl(&["user", "add", "somebody:else"]);
    assert_eq!(store.list(StoreFolder::Objects).unwrap().len(), 2);
    assert!(matches!(store.compare_and_put(&StoreKey::Head, None, b"x"), Ok(Swap::Done(_))));

    // What can't work says so.
    let with = |change: &dyn Fn(&mut EtcdSettings)| {
        let mut changed = EtcdSettings { patience: SHORT, ..settings.clone() };
        change(&mut changed);
        Etcd::open(&changed).and_then(|store| store.get(&[StoreKey::Head]).map(drop))
    };
    assert!(with(&|_| ()).is_ok());
    denied(with(&|settings| settings.password_file = Some(etcd.password_file("wrong"))));
    denied(with(&|settings| settings.user = None));
    let unreachable = |result: Result<(), StoreError>| {
        assert!(matches!(result, Err(StoreError::Unreachable(_))), "{result:?}");
    };
    unreachable(with(&|settings| (settings.certificate, settings.key) = (None, None)));
    let stranger = etcd.file("stranger.pem");
    fs::write(&stranger, support::Authority::new().root()).unwrap();
    unreachable(with(&|settings| settings.ca = Some(stranger.clone())));
    let mismatched = with(&|settings| settings.key = Some(etcd.file("server.key")));
    assert!(matches!(mismatched, Err(StoreError::Setup(_))), "{mismatched:?}");
    let password = fs::read_to_string(etcd.file("0.log")).unwrap();
    assert!(!password.contains("secret"));
}

#[test]
fn a_cluster_that_loses_members() {
    let mut etcd = EtcdSetup::of(&newest_etcd()).three().start();
    let settings =
        EtcdSettings { time_out: Duration::from_secs(8), patience: LIMIT, ..etcd.settings("edge") };
    let store = Etcd::open(&settings).unwrap();
    let mut head = done(store.compare_and_put(&StoreKey::Head, None, b"0"));
    // One after the other is killed and comes back.
    for number in 0..3_u8 {
        etcd.kill(number.into());
        head = done(store.compare_and_put(&StoreKey::Head, Some(head), &[number]));
        assert_eq!(store.wait(Some(head), SHORT).unwrap(), Woken::TimedOut);
        etcd.run(number.into());
        etcd.wait_until_it_answers();
    }
    // One is frozen, whichever it is that is asked: nobody answers there, but the others do.
    let impatient = EtcdSettings { time_out: Duration::from_secs(2), ..settings.clone() };
    let store = Etcd::open(&impatient).unwrap();
    etcd.freeze(0);
    head = done(store.compare_and_put(&StoreKey::Head, Some(head), b"frozen"));
    etcd.thaw(0);

    // Without a quorum nothing is written, and it says so; a wait that was going on ends with an error.
    let waiter = Etcd::open(&EtcdSettings { patience: SHORT, ..settings.clone() }).unwrap();
    assert_eq!(waiter.wait(Some(head), SHORT).unwrap(), Woken::TimedOut);
    etcd.kill(1);
    etcd.kill(2);
    let end = waiter.wait(Some(head), SOON);
    assert!(matches!(end, Err(StoreError::Unreachable(_))), "{end:?}");
    let hasty = EtcdSettings { patience: SHORT, time_out: Duration::from_secs(1), ..settings };
    let put = Etcd::open(&hasty).unwrap().put(&[object(1)]);
    assert!(matches!(&put, Err(StoreError::Unreachable(causes)) if causes.len() == 3), "{put:?}");
    etcd.run(1);
    etcd.run(2);
    etcd.wait_until_it_answers();
    assert_eq!(bytes(&store, &StoreKey::Head).unwrap(), b"frozen");
    store.put(&[object(1)]).unwrap();
}

#[test]
fn a_full_etcd_says_so_and_is_still_read() {
    for version in etcds() {
        let etcd = EtcdSetup::of(&version).argument("--quota-backend-bytes=4194304").start();
        let store = Etcd::open(&etcd.settings("edge")).unwrap();
        let large = |number| (StoreKey::Object([number; 32]), vec![number; 500_000]);
        let full = (0..100).find_map(|number| store.put(&[large(number)]).err()).unwrap();
        assert!(matches!(full, StoreError::Full(_)), "{full}");
        assert!(bytes(&store, &large(0).0).is_some());
        store.delete(&[large(0).0]).unwrap();
        assert_eq!(bytes(&store, &large(0).0), None);
    }
}

/// What a user who may only read can do to an etcd whose permissions have a hole (CVE-2026-33343: a transaction inside a
/// transaction isn't asked for them): nothing that counts.
#[test]
fn a_head_that_a_read_only_user_has_written_does_not_count() {
    let version = etcds().remove(0);
    let mut etcd = EtcdSetup::of(&version).start();
    etcd.users_on("edge", "read");
    let store = Etcd::open(&etcd.settings("edge")).unwrap();
    let denied = store.compare_and_put(&StoreKey::Head, None, b"x");
    assert!(matches!(denied, Err(StoreError::Denied(_))), "{denied:?}");

    let [publisher, thief] = [(); 2].map(|()| HostIdentity::generate().unwrap());
    let head = |sequence| Head {
        fleet: "edge".parse().unwrap(),
        sequence,
        signed: 1000,
        expires: 2000,
        epoch: 1,
        epoch_key: [0; 32],
        prune_many: false,
        nodes: [0; 32],
        pages: vec![[0; 32]],
    };
    let key = "/haproxy-certs/edge/head";
    let first = head(1).sign(publisher.signing());
    etcd.ctl(&["put", key, str::from_utf8(&first).unwrap()]);
    let (mut known, publishers) = (KnownHeads::default(), [publisher.public().signing]);
    let mut judge = || {
        let value = bytes(&store, &StoreKey::Head).unwrap();
        let accepted = accept(&value, &known, &"edge".parse().unwrap(), &publishers, 1500);
        if let Ok(Accepted::New(head)) = &accepted {
            known.remember(head);
        }
        accepted
    };
    assert!(matches!(judge(), Ok(Accepted::New(_))));
    etcd.overwrite(("node", "secret"), key, &head(2).sign(thief.signing()));
    assert_eq!(judge().unwrap_err(), RefusedHead::UnknownPublisher(thief.public().signing));
    etcd.overwrite(("node", "secret"), key, b"garbage");
    assert_eq!(judge().unwrap_err().word(), "fleet-head-damaged");
    etcd.overwrite(("node", "secret"), key, &first);
    assert!(matches!(judge(), Ok(Accepted::Unchanged(_))));
}

#[test]
fn no_key_is_in_the_files_of_an_etcd() {
    let etcd = EtcdSetup::of(&newest_etcd()).start();
    let store = Etcd::open(&etcd.settings("edge")).unwrap();
    let (fleet, identity) = ("edge".parse().unwrap(), HostIdentity::generate().unwrap());
    let epoch_key = EpochKey::generate(1).unwrap();
    let marker = b"a private key that nobody may see".to_vec();
    let pair = PlainPair { key: Zeroizing::new(marker.clone()), chain: Zeroizing::new(b"a chain".to_vec()) };
    let sealed = object::seal(&pair, "secret.lineage.test", &fleet, &epoch_key).unwrap();
    let entry = PageEntry {
        lineage: "secret.lineage.test".into(),
        object: sha256(&sealed),
        content: pair.content(),
        leaf: [0; 32],
        serial: "00".into(),
        not_after: 0,
    };
    let page = page::seal(&[entry], (0, 1), &fleet, &epoch_key).unwrap();
    let node: haproxy_certs::fleet::name::NodeName = "lb1".parse().unwrap();
    let key = epoch_key.seal(&fleet, &node, &identity.public()).unwrap();
    store
        .put(&[
            (StoreKey::Object(sha256(&sealed)), sealed.clone()),
            (StoreKey::Page(sha256(&page)), page),
            (StoreKey::EpochKey { epoch: 1, node }, key),
        ])
        .unwrap();
    let mut found_sealed = false;
    for entry in walkdir::WalkDir::new(etcd.folder()) {
        let entry = entry.unwrap();
        if entry.file_type().is_file() {
            let text = fs::read(entry.path()).unwrap();
            let has = |part: &[u8]| text.windows(part.len()).any(|window| window == part);
            assert!(!has(&marker) && !has(b"secret.lineage.test"), "{}", entry.path().display());
            found_sealed |= has(&sealed);
        }
    }
    assert!(found_sealed, "it was looked for in the right files");
}

/// An etcd that lies: what it answers to a request (path, head, body).
struct Liar {
    endpoint: String,
    asked: Arc<AtomicUsize>,
    ends: Arc<AtomicBool>,
    _port: Port,
}

type Answer = dyn Fn(usize, &str, &str, &mut TcpStream) + Send + Sync;

impl Liar {
    fn new(answer: impl Fn(usize, &str, &str, &mut TcpStream) + Send + Sync + 'static) -> Self {
        let port = Port::free();
        let listener = TcpListener::bind(port.address()).unwrap();
        let answer: Arc<Answer> = Arc::new(answer);
        let (asked, ends) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, end) = (Arc::clone(&asked), Arc::clone(&ends));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if end.load(Ordering::Relaxed) {
                    return;
                }
                let (answer, count) = (Arc::clone(&answer), Arc::clone(&count));
                thread::spawn(move || serve(stream.unwrap(), &*answer, &count));
            }
        });
        Self { endpoint: format!("http://{}", port.address()), asked, ends, _port: port }
    }

    fn store(&self) -> Etcd {
        let mut settings = EtcdSettings::new("edge".parse().unwrap(), vec![self.endpoint.clone()]);
        (settings.patience, settings.time_out) = (SHORT, Duration::from_secs(20));
        Etcd::open(&settings).unwrap()
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.endpoint.trim_start_matches("http://"));
    }
}

fn serve(stream: TcpStream, answer: &Answer, count: &AtomicUsize) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).unwrap_or(0) == 0 {
                return;
            }
        }
        let lower = head.to_lowercase();
        // Without it etcd takes another user's rights.
        assert!(lower.contains("\r\naccept: application/json\r\n"), "{head}");
        let length = lower.split("content-length: ").nth(1).unwrap().lines().next().unwrap().parse().unwrap();
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let number = count.fetch_add(1, Ordering::Relaxed);
        answer(number, &head, &String::from_utf8(body).unwrap(), &mut stream);
    }
}

fn say(stream: &mut TcpStream, status: &str, body: &str) {
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
    let _ = stream.write_all((head + body).as_bytes());
}

fn begin(stream: &mut TcpStream, lines: &[&str]) {
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    for line in lines {
        let _ = stream.write_all(format!("{:x}\r\n{line}\n\r\n", line.len() + 1).as_bytes());
    }
}

#[test]
fn gigabytes_are_not_read() {
    let liar = Liar::new(|_, _, _, stream| {
        begin(stream, &[]);
        let chunk = format!("100000\r\n{}\r\n", "[".repeat(0x10_0000));
        while stream.write_all(chunk.as_bytes()).is_ok() {}
    });
    assert!(matches!(liar.store().get(&[StoreKey::Head]), Err(StoreError::TooLarge(StoreKey::Head))));
    let many: Vec<_> = (0..4).map(|number| object(number).0).collect();
    assert!(matches!(liar.store().get(&many), Err(StoreError::TooLarge(_))));
    assert!(matches!(liar.store().list(StoreFolder::Pages), Err(StoreError::Malformed(_))));
    assert!(liar.store().wait(None, LIMIT).is_err());
}

#[test]
fn answers_that_make_no_sense_are_refused() {
    let head = "L2hhcHJveHktY2VydHMvZWRnZS9oZWFk";
    let large = "A".repeat(1 << 20);
    let value = |key: &str, value: &str| {
        format!(r#"{{"responses":[{{"response_range":{{"kvs":[{{"key":"{key}","value":"{value}"}}]}}}}]}}"#)
    };
    let is = |answer: String, expected: fn(&Result<Vec<_>, StoreError>) -> bool| {
        let text = answer.clone();
        let liar = Liar::new(move |_, _, _, stream| say(stream, "200 OK", &text));
        let got = liar.store().get(&[StoreKey::Head]);
        assert!(expected(&got), "{} {got:?}", &answer[..answer.len().min(200)]);
        // Nobody else is asked, and not again.
        assert_eq!(liar.asked(), 1);
    };
    is(value(head, "eA=="), |got| matches!(got.as_deref(), Ok([Some(stored)]) if stored.bytes == b"x"));
    is(value(head, ""), |got| matches!(got.as_deref(), Ok([Some(stored)]) if stored.bytes.is_empty()));
    is(value(head, &large), |got| matches!(got, Err(StoreError::TooLarge(StoreKey::Head))));
    for answer in [
        value("L2hhcHJveHktY2VydHMvY29yZS9oZWFk", "eA=="),
        value(head, "e"),
        value(head, "\\u0000"),
        String::new(),
        "{".into(),
        "[]".into(),
        "{}".into(),
        r#"{"responses":[{}]}"#.into(),
        r#"{"responses":[{"response_range":{}},{"response_range":{}}]}"#.into(),
        r#"{"responses":[{"response_range":{"kvs":[{"mod_revision":"99999999999999999999"}]}}]}"#.into(),
        "[".repeat(60_000),
    ] {
        is(answer, |got| matches!(got, Err(StoreError::Malformed(_))));
    }
}

#[test]
fn a_list_without_an_end_has_one() {
    let liar = Liar::new(|_, _, _, stream| {
        say(stream, "200 OK", r#"{"more":true,"kvs":[{"key":"L2hhcHJveHktY2VydHMvZWRnZS9wYWdlLw=="}]}"#);
    });
    assert!(matches!(liar.store().list(StoreFolder::Pages), Err(StoreError::Malformed(_))));
    assert!(liar.asked() <= 2);
}

#[test]
fn nobody_is_followed_elsewhere() {
    let liar = Liar::new(|_, head, _, stream| {
        let there = if head.contains("/v3/") { "/elsewhere" } else { "/" };
        let _ = stream.write_all(
            format!("HTTP/1.1 307 Elsewhere\r\nLocation: {there}\r\nContent-Length: 0\r\n\r\n").as_bytes(),
        );
    });
    assert!(liar.store().get(&[StoreKey::Head]).is_err());
    for status in ["200 OK", "400 Bad Request", "404 Not Found", "503 Service Unavailable"] {
        let liar = Liar::new(move |_, _, _, stream| say(stream, status, "<html>a proxy</html>"));
        assert!(liar.store().get(&[StoreKey::Head]).is_err());
    }
}

#[test]
fn a_watch_that_was_cancelled_or_is_silent_does_not_hang() {
    let range = r#"{"header":{"revision":"5"}}"#;
    let watching = |lines: &'static [&'static str]| {
        Liar::new(move |_, head, body, stream| {
            if head.contains("/v3/watch") {
                assert!(body.contains(r#""start_revision":"6""#), "{body}");
                assert!(head.to_lowercase().contains("grpc-metadata-hasleader: true"), "{head}");
                // The connection stays open, and nothing more comes.
                begin(stream, lines);
            } else {
                say(stream, "200 OK", range);
            }
        })
    };
    // Silent: the time is over.
    let liar = watching(&[]);
    assert_eq!(liar.store().wait(None, SHORT).unwrap(), Woken::TimedOut);
    // Compacted: the head is looked at again, and then it is waited on.
    let liar = watching(&[r#"{"result":{"created":true,"canceled":true,"compact_revision":"9"}}"#]);
    assert_eq!(liar.store().wait(None, SHORT).unwrap(), Woken::TimedOut);
    assert!(liar.asked() > 2);
    // Something that never happened: it isn't asked about over and over.
    let liar = watching(&[r#"{"result":{"events":[{}]}}"#]);
    assert_eq!(liar.store().wait(None, SHORT).unwrap(), Woken::TimedOut);
    assert!(liar.asked() < 20, "{}", liar.asked());
    // Refused: an error, though the status was 200.
    for lines in [
        &[r#"{"result":{"created":true,"canceled":true,"cancel_reason":"rpc error: permission denied"}}"#][..],
        &[r#"{"error":{"grpc_code":14,"http_code":503,"message":"etcdserver: no leader"}}"#],
        &["garbage"],
        // A line that is longer than any, whose end doesn't come.
        Vec::leak(vec![&*String::leak("x".repeat(2 << 20))]),
    ] {
        let liar = watching(lines);
        assert!(liar.store().wait(None, LIMIT).is_err());
    }
}

#[test]
fn a_token_that_has_gone_is_had_again_once() {
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    fs::write(&password, "secret").unwrap();
    fs::set_permissions(&password, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let ask = |valid: usize| {
        let liar = Liar::new(move |number, head, body, stream| {
            if head.contains("/auth/authenticate") {
                assert!(body.contains("secret"));
                say(stream, "200 OK", &format!(r#"{{"token":"t{number}"}}"#));
            } else if head.contains(&format!("t{valid}")) {
                say(stream, "200 OK", r#"{"responses":[{"response_range":{}}]}"#);
            } else {
                say(stream, "401 Unauthorized", r#"{"code":16,"message":"etcdserver: invalid auth token"}"#);
            }
        });
        let mut settings = EtcdSettings::new("edge".parse().unwrap(), vec![liar.endpoint.clone()]);
        settings.user = Some("node".into());
        settings.password_file = Some(password.clone());
        let got = Etcd::open(&settings).unwrap().get(&[StoreKey::Head]);
        (got, liar.asked())
    };
    let (got, asked) = ask(0);
    assert_eq!((got.unwrap(), asked), (vec![None], 2));
    let (got, asked) = ask(2);
    assert_eq!((got.unwrap(), asked), (vec![None], 4));
    // A store that takes no token isn't asked for ever.
    let (got, asked) = ask(9);
    assert!(matches!(got, Err(StoreError::Denied(_))), "{got:?}");
    assert_eq!(asked, 4);
}

#[test]
fn an_answer_that_was_cut_is_asked_for_again() {
    // The first transaction is carried out, and its answer gets lost.
    let mine = "dHdv";
    let liar = Liar::new(move |number, _, body, stream| {
        assert!(body.contains(mine));
        if number == 0 {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"hea");
            let _ = stream.shutdown(std::net::Shutdown::Both);
        } else {
            let key = "L2hhcHJveHktY2VydHMvZWRnZS9oZWFk";
            let found = format!(r#"{{"key":"{key}","value":"{mine}","mod_revision":"7"}}"#);
            let text = format!(r#"{{"responses":[{{"response_range":{{"kvs":[{found}]}}}}]}}"#);
            say(stream, "200 OK", &text);
        }
    });
    let mut settings = EtcdSettings::new("edge".parse().unwrap(), vec![liar.endpoint.clone()]);
    settings.patience = LIMIT;
    let swap = Etcd::open(&settings).unwrap().compare_and_put(&StoreKey::Head, None, b"two");
    assert!(matches!(swap, Ok(Swap::Done(_))), "{swap:?}");
    assert_eq!(liar.asked(), 2);
}

#[test]
fn where_an_answer_is_cut_or_a_member_is_busy_the_next_one_answers() {
    const FOUND: &str = r#"{"responses":[{"response_range":{"kvs":[{"key":"L2hhcHJveHktY2VydHMvZWRnZS9oZWFk","value":"eA==","mod_revision":"7"}]}}]}"#;
    let whole = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{FOUND}", FOUND.len());
    let busy = ["429 Too Many", "500 Internal", "502 Bad Gateway", "503 Unavailable", "504 Gateway Timeout"];
    let busy = busy.map(|status| format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\n{{}}"));
    let answers: Vec<String> = (0..whole.len()).map(|at| whole[..at].to_owned()).chain(busy).collect();
    let count = answers.len();
    let first = Liar::new(move |number, _, _, stream| {
        let _ = stream.write_all(answers[number].as_bytes());
        let _ = stream.shutdown(std::net::Shutdown::Both);
    });
    let second = Liar::new(|_, _, _, stream| say(stream, "200 OK", FOUND));
    for number in 0..count {
        let endpoints = vec![first.endpoint.clone(), second.endpoint.clone()];
        let store = Etcd::open(&EtcdSettings::new("edge".parse().unwrap(), endpoints)).unwrap();
        assert_eq!(bytes(&store, &StoreKey::Head).unwrap(), b"x", "{number}");
        assert_eq!((first.asked(), second.asked()), (number + 1, number + 1));
    }
}

#[test]
fn the_next_member_is_asked_where_one_does_not_answer() {
    let closed = Port::free();
    let busy = Liar::new(|_, _, _, stream| {
        say(stream, "503 Service Unavailable", r#"{"code":14,"message":"etcdserver: no leader"}"#);
    });
    let good = Liar::new(|_, _, _, stream| {
        say(stream, "200 OK", r#"{"responses":[{"response_range":{}}]}"#);
    });
    let endpoints =
        vec![format!("http://{}", closed.address()), busy.endpoint.clone(), good.endpoint.clone()];
    let store = Etcd::open(&EtcdSettings::new("edge".parse().unwrap(), endpoints)).unwrap();
    assert_eq!(store.get(&[StoreKey::Head]).unwrap(), [None]);
    // And from then on first.
    assert_eq!(store.get(&[StoreKey::Head]).unwrap(), [None]);
    assert_eq!((busy.asked(), good.asked()), (1, 2));
}

fn directory(path: &Path) -> Directory {
    Directory::open(path).unwrap()
}

#[test]
fn what_others_do_in_a_directory_on_the_way() {
    let folder = tempfile::tempdir().unwrap();
    let store = directory(folder.path());
    let (key, value) = object(3);
    let hash = key.to_string().replace("object/", "");
    let objects = folder.path().join("object");
    fs::create_dir(&objects).unwrap();
    // rsync's and Syncthing's temporary names, and what else may lie there.
    for name in [
        format!(".{hash}.x7Gh3k"),
        format!(".syncthing.{hash}.tmp"),
        format!("~syncthing~{hash}.tmp"),
        format!("{hash}.sync-conflict-20261129-230000-ABCDEFG"),
        ".stfolder".into(),
        ".DS_Store".into(),
        hash.to_uppercase(),
    ] {
        fs::write(objects.join(name), "part").unwrap();
    }
    assert_eq!((bytes(&store, &key), store.list(StoreFolder::Objects).unwrap()), (None, vec![]));
    // Written in place: half of it is there, which isn't settled.
    fs::write(objects.join(&hash), &value[..value.len() / 2]).unwrap();
    let half = store.get(std::slice::from_ref(&key)).unwrap().remove(0).unwrap();
    assert!(!half.settled && half.bytes != value);
    fs::write(objects.join(&hash), &value).unwrap();
    assert_eq!(bytes(&store, &key), Some(value));
    // A folder in the place of a file is what it is.
    fs::create_dir(folder.path().join("head")).unwrap();
    assert!(store.get(&[StoreKey::Head]).is_err());
}

#[test]
fn rsync_carries_a_fleet() {
    let [here, there] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let (publisher, node) = (directory(here.path()), directory(there.path()));
    let values: Vec<_> = (0..50).map(object).collect();
    publisher.put(&values).unwrap();
    let head = done(publisher.compare_and_put(&StoreKey::Head, None, b"head"));
    let from = format!("{}/", here.path().display());
    let woken = thread::scope(|scope| {
        let waiting = scope.spawn(|| node.wait(None, SOON).unwrap());
        thread::sleep(Duration::from_millis(200));
        let mut rsync = std::process::Command::new("rsync");
        assert!(rsync.arg("-a").arg(from).arg(there.path()).status().unwrap().success());
        waiting.join().unwrap()
    });
    assert_eq!(woken, Woken::Changed);
    let read = node.get(&[StoreKey::Head, values[9].0.clone()]).unwrap();
    assert_eq!(read[0].as_ref().unwrap().revision, head);
    assert_eq!(read[1].as_ref().unwrap().bytes, values[9].1);
    assert_eq!(node.list(StoreFolder::Objects).unwrap().len(), 50);
}

#[test]
fn a_hostile_directory_does_no_harm() {
    let [folder, elsewhere] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let store = directory(folder.path());
    let (key, value) = object(3);
    // Links lead nowhere: neither to read nor to write.
    symlink(elsewhere.path(), folder.path().join("object")).unwrap();
    assert!(store.put(&[(key.clone(), value.clone())]).is_err());
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    assert_eq!(bytes(&store, &key), None);
    symlink("/etc/passwd", folder.path().join("head")).unwrap();
    assert!(store.get(&[StoreKey::Head]).is_err());
    let before = fs::read("/etc/passwd").unwrap();
    let _ = store.compare_and_put(&StoreKey::Head, None, b"x");
    assert_eq!(fs::read("/etc/passwd").unwrap(), before);
    // A FIFO and a device don't make it hang.
    fs::remove_file(folder.path().join("head")).unwrap();
    let fifo = folder.path().join("head");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    assert!(matches!(store.get(&[StoreKey::Head]), Err(StoreError::Odd { .. })));
    fs::remove_file(&fifo).unwrap();
    // What is too large isn't read: it is a hole of a terabyte.
    fs::File::create(&fifo).unwrap().set_len(1 << 40).unwrap();
    assert!(matches!(store.get(&[StoreKey::Head]), Err(StoreError::TooLarge(StoreKey::Head))));
    // A directory that isn't there is no empty fleet.
    assert!(Directory::open(&folder.path().join("gone")).is_err());
    drop(folder);
    assert!(store.get(&[key]).is_err());
    wait_until(LIMIT, "an error", || store.wait(None, SHORT).is_err());
}
