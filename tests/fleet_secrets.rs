//! No private key of a fleet is where it must not be: not between the hosts, not on etcd's disks, not in what the hosts
//! keep of the fleet, not in what is said, and not in memory after use.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::case_sensitive_file_extension_comparisons,
    reason = "test code may fail loudly"
)]

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use memchr::memmem;
use rustix::process::Signal;

use support::etcd::{EtcdSetup, newest_etcd};
use support::fleet::Fleet;
use support::memory::{Memory, all_needles};
use support::middleman::Middleman;
use support::process::Running;
use support::summary::Count;
use support::{Cmd, KeyKind, Kind, LIMIT, Validity, wait_until};

const KINDS: [KeyKind; 4] = [KeyKind::P256, KeyKind::Rsa2048, KeyKind::P384, KeyKind::Ed25519];

struct Watched {
    fleet: Fleet,
    middleman: Middleman,
    etcd: support::Etcd,
    issued: Vec<(String, KeyKind)>,
}

impl Watched {
    fn new() -> Self {
        let etcd = EtcdSetup::of(&newest_etcd()).start();
        let middleman = Middleman::before(&etcd.endpoints()[0]);
        let mut settings = etcd.settings("edge");
        settings.endpoints = vec![middleman.endpoint()];
        let mut fleet = Fleet::in_etcd(&settings);
        fleet.join("lb1", None);
        fleet.tell_publisher();
        let mut issued = Vec::new();
        for (number, kind) in KINDS.into_iter().enumerate() {
            let name = format!("secret-{number}.example");
            let leaf = fleet.tree.issue(&name, kind, &[&name], Validity::days(90));
            fleet.wanted.insert(name.clone(), leaf.combined());
            issued.push((name, kind));
        }
        Self { fleet, middleman, etcd, issued }
    }

    fn needles(&self) -> Vec<Vec<u8>> {
        self.issued.iter().flat_map(|(name, kind)| all_needles(self.fleet.tree.leaf(name), *kind)).collect()
    }

    /// None of the secrets, and of the names of lineages none, in these bytes.
    #[track_caller]
    fn must_be_clean(&self, what: &str, bytes: &[u8]) {
        for needle in self.needles() {
            assert!(!has(bytes, &needle), "a key in {what}");
        }
    }

    #[track_caller]
    fn folder_must_be_clean(&self, folder: &Path) -> usize {
        let mut all = support::fleet::files(folder);
        for (path, bytes) in &mut all {
            // etcd makes files of 64 MiB in advance.
            bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
            self.must_be_clean(path, bytes);
            // What a publisher knows of pairs stays on the host that has the lineages.
            let is_at_home = path.ends_with(".json") || path.ends_with("pairs");
            assert!(is_at_home || !has(bytes, b"secret-0.example"), "a name in {path}");
        }
        all.len()
    }
}

fn has(bytes: &[u8], needle: &[u8]) -> bool {
    memmem::find(bytes, needle).is_some()
}

#[test]
fn no_key_is_said_sent_or_kept_on_the_way() {
    let mut watched = Watched::new();
    let fleet = &mut watched.fleet;
    let mut said = vec![fleet.publisher.run(&["-v", "fleet", "publish"]).exits(0)];
    fleet.tell_nodes("");
    said.push(fleet.nodes[0].cmd.run(&["-v", "fleet", "follow", "--once"]).exits(0));
    let old = watched.needles();
    for (name, _) in watched.issued.clone() {
        watched.fleet.renew(&name);
    }
    let fleet = &watched.fleet;
    said.push(fleet.publisher.run(&["-v", "fleet", "rotate"]).exits(0));
    said.push(fleet.nodes[0].cmd.run(&["-v", "fleet", "follow", "--once"]).exits(0));
    for host in [&fleet.publisher, &fleet.nodes[0].cmd] {
        for format in ["human", "html", "json", "monitoring", "prometheus"] {
            said.push(host.run(&["fleet", "status", "--format", format]));
            said.push(host.run(&["status", "--format", format]));
        }
    }
    fleet.must_all_be_as_wanted("in the end");
    for run in &said {
        let text = run.to_string();
        watched.must_be_clean("what is said", text.as_bytes());
        assert!(!text.contains("PRIVATE KEY-----\n"), "{text}");
    }

    // Traffic: as it is, and what is base64 in it.
    let heard = watched.middleman.heard();
    watched.must_be_clean("the traffic", &heard);
    let mut values = 0;
    for word in heard.split(|byte| *byte == b'"').filter(|word| word.len() >= 40) {
        let Ok(value) = BASE64_STANDARD.decode(word) else { continue };
        watched.must_be_clean("a value in the traffic", &value);
        assert!(old.iter().all(|needle| !has(&value, needle)), "an old key in the traffic");
        values += 1;
    }
    assert!(values > 20, "{values} values were found");
    // What lies somewhere.
    let looked = [
        watched.etcd.folder().to_owned(),
        fleet.nodes[0].cmd.beside("cache"),
        fleet.publisher.beside("cache"),
    ];
    for folder in looked {
        let count = watched.folder_must_be_clean(&folder);
        assert!(count > 1, "{} has {count} files", folder.display());
    }
    // It would be found.
    let site = fs::read(fleet.nodes[0].cmd.site("secret-1.example")).unwrap();
    assert!(watched.needles().iter().any(|needle| has(&site, needle)));
    Count::Keys.add("a fleet's traffic, disks and words", 2 * KINDS.len());
}

#[track_caller]
fn memory_must_be_clean(watched: &Watched, what: &str, memory: &Memory, known: &[u8]) {
    assert!(memory.times(known) > 0, "{what}: the search finds nothing");
    for needle in watched.needles() {
        assert_eq!(memory.times(&needle), 0, "{what}: a key: {}", String::from_utf8_lossy(&needle));
    }
}

/// Whoever publishes has no key in its memory any more when it puts the head, and a node none while it waits.
#[test]
fn keys_of_a_fleet_are_wiped_from_memory() {
    let mut watched = Watched::new();
    // Nothing keeps a key out of a chain's file.
    for (name, _) in &watched.issued {
        let leaf = watched.fleet.tree.leaf(name);
        let both = format!("{}{}", leaf.fullchain(), leaf.key.pem());
        watched.fleet.tree.overwrite(name, Kind::Fullchain, both);
    }
    watched.middleman.hold("\"compare\"");
    let config = watched.fleet.publisher.config();
    let mut publisher = Running::start(Cmd::program(), |command| {
        watched.fleet.publisher.prepare(command);
        command.arg("--config").arg(&config).args(["fleet", "publish"]);
        command.stdout(std::process::Stdio::null())
    });
    wait_until(LIMIT, "the head", || watched.middleman.held() > 0);
    let live = watched.fleet.tree.live().into_os_string().into_encoded_bytes();

    // It waits for the store's answer for so long only.
    let memory = Memory::of(publisher.pid());
    watched.middleman.let_go();
    assert!(publisher.wait(LIMIT).success());
    memory_must_be_clean(&watched, "the publisher", &memory, &live);

    watched.fleet.tell_nodes("");
    let mut daemon = watched.fleet.nodes[0].start();
    let is_there = || {
        let status = watched.fleet.publisher.run(&["fleet", "status", "--format", "json"]).json();
        status["nodes"][0]["confirmed"] == true
    };
    wait_until(LIMIT, "the node", is_there);
    watched.fleet.must_all_be_as_wanted("before its memory is looked at");
    let cache = watched.fleet.nodes[0].cmd.beside("cache").into_os_string().into_encoded_bytes();
    memory_must_be_clean(&watched, "the node", &Memory::of(daemon.pid()), &cache);
    daemon.signal(Signal::TERM);
    assert!(daemon.wait(LIMIT).success());
    Count::Keys.add("a fleet's memory", 2 * KINDS.len());
}

/// Whoever has logged in to the store has its user's password no more.
#[test]
fn the_password_of_the_store_is_wiped_from_memory() {
    const PASSWORD: &str = "nothing of this is to be found in memory, and not its end either";
    // What frees memory writes over its beginning.
    let end = &PASSWORD.as_bytes()[32..];
    let mut etcd = EtcdSetup::of(&newest_etcd()).start();
    // Before users are on: etcd may refuse root a moment after it has changed a user.
    etcd.ctl(&["user", "add", &format!("publisher:{PASSWORD}")]);
    etcd.ctl(&["role", "add", "publishing"]);
    etcd.ctl(&[
        "role",
        "grant-permission",
        "--prefix=true",
        "publishing",
        "readwrite",
        "/haproxy-certs/edge/",
    ]);
    etcd.ctl(&["user", "grant-role", "publisher", "publishing"]);
    etcd.users_on("edge", "readwrite");
    let middleman = Middleman::before(&etcd.endpoints()[0]);
    let mut settings = etcd.settings("edge");
    settings.endpoints = vec![middleman.endpoint()];
    // Its path is in memory.
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("password");
    support::tree::write(&file, PASSWORD, 0o600);
    (settings.user, settings.password_file) = (Some("publisher".to_owned()), Some(file));
    let mut fleet = Fleet::in_etcd(&settings);
    fleet.join("lb1", None);
    fleet.tell_publisher();
    fleet.issue("a.example");
    // The first question after the login.
    middleman.hold("request_range");
    let config = fleet.publisher.config();
    let mut publisher = Running::start(Cmd::program(), |command| {
        fleet.publisher.prepare(command);
        command.arg("--config").arg(&config).args(["fleet", "publish"]);
        command.stdout(std::process::Stdio::null())
    });
    wait_until(LIMIT, "the question", || middleman.held() > 0);
    assert!(has(&middleman.heard(), PASSWORD.as_bytes()), "it was sent");
    let live = fleet.tree.live().into_os_string().into_encoded_bytes();
    let memory = Memory::of(publisher.pid());
    middleman.let_go();
    assert!(publisher.wait(LIMIT).success());
    assert!(memory.times(&live) > 0, "the search finds nothing");
    assert_eq!(memory.times(end), 0, "the password is in the program's memory");
}
