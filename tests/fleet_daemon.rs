//! `fleet follow` as a daemon, while its settings, its keys and its store change under it: each look is by what they are
//! then, and what can't be looked at is said.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may fail loudly")]

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;
use support::etcd::newest_etcd;
use support::fleet::{Fleet, Node};
use support::process::Running;
use support::{Authority, Cmd, EtcdSetup, KeyKind, LIMIT, Validity, served, wait_until};

/// An etcd is asked again for 20 seconds before it counts as away, by the watch and by the look after it.
const AWAY: Duration = Duration::from_secs(180);

/// A node's daemon, whose log is a file, and which tells a service manager how it is.
struct Daemon {
    running: Running,
    log: PathBuf,
    manager: UnixDatagram,
}

impl Daemon {
    fn start(node: &Node) -> Self {
        let (log, socket) = (node.cmd.beside("daemon.log"), node.cmd.beside("notify"));
        let manager = UnixDatagram::bind(&socket).unwrap();
        manager.set_read_timeout(Some(LIMIT)).unwrap();
        let config = node.cmd.config();
        let file = File::create(&log).unwrap();
        let running = Running::start(Cmd::program(), |command| {
            node.cmd.prepare(command);
            command.arg("--config").arg(config).args(["fleet", "follow"]);
            command.env("NOTIFY_SOCKET", &socket).stdout(file.try_clone().unwrap()).stderr(file)
        });
        let daemon = Self { running, log, manager };
        daemon.tells("READY=1");
        daemon
    }

    /// What it has told until now is not meant.
    fn forget(&self) {
        self.manager.set_nonblocking(true).unwrap();
        let mut bytes = [0; 1024];
        while self.manager.recv(&mut bytes).is_ok() {}
        self.manager.set_nonblocking(false).unwrap();
    }

    /// Waits until it tells this of a look.
    #[track_caller]
    fn tells(&self, word: &str) {
        let mut bytes = [0; 1024];
        loop {
            match self.manager.recv(&mut bytes) {
                Ok(length) if String::from_utf8_lossy(&bytes[..length]).contains(word) => return,
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => panic!("{word} is never told: {e}\n{}", self.said()),
            }
        }
    }

    /// The same of a look that ends after now.
    #[track_caller]
    fn tells_again(&self, word: &str) {
        self.forget();
        self.tells(word);
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    #[track_caller]
    fn ends(mut self) {
        assert!(self.running.ended().is_none(), "{}", self.said());
        self.running.signal(Signal::TERM);
        assert!(self.running.wait(LIMIT).success(), "{}", self.said());
    }
}

/// A fleet whose nodes have what is published, `a.example` and `b.example`.
fn followed(versions: Vec<Option<&str>>) -> Fleet {
    let mut fleet = Fleet::of(versions);
    fleet.bring_in_step(&["a.example", "b.example"]);
    fleet
}

fn has_all(fleet: &Fleet, at: usize) -> bool {
    let node = &fleet.nodes[at].cmd;
    let is_there =
        |(name, pem): (&String, &String)| fs::read_to_string(node.site(name)).is_ok_and(|it| it == *pem);
    fleet.wanted.iter().all(is_there)
}

#[track_caller]
fn arrives(fleet: &Fleet, daemon: &Daemon, what: &str) {
    let start = std::time::Instant::now();
    while !has_all(fleet, 0) {
        assert!(start.elapsed() < LIMIT, "{what}: never here\n{}", daemon.said());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What the manual says of replacing a publisher, with the daemon running: the new line counts, and the old one counts no
/// more once it is taken out.
#[test]
fn whose_heads_count_is_what_the_settings_say_now() {
    let mut fleet = followed(vec![Some("3.0")]);
    let daemon = Daemon::start(&fleet.nodes[0]);
    let old = fleet.line();
    let aside = fleet.place.path().join("old");
    fs::create_dir(&aside).unwrap();
    for name in ["identity", "identity.pub"] {
        fs::copy(fleet.publisher.beside(name), aside.join(name)).unwrap();
    }
    fleet.forget_publisher();
    fleet.publisher.run(&["fleet", "publish", "--take-over"]).exits(0);
    daemon.tells_again("fleet-unknown-publisher");
    let new = fleet.line();
    fleet.renew("a.example");
    fleet.publish();
    fleet.tell_node(0, &[&old, &new], "");
    fleet.nodes[0].cmd.config();
    arrives(&fleet, &daemon, "by the new publisher");
    // Its key was stolen: nothing that is signed by it is taken any more.
    fleet.tell_node(0, &[&new], "");
    daemon.forget();
    fleet.nodes[0].cmd.config();
    daemon.tells("READY=1");
    let wanted = fleet.wanted.clone();
    fleet.forget_publisher();
    for name in ["identity", "identity.pub"] {
        fs::rename(aside.join(name), fleet.publisher.beside(name)).unwrap();
    }
    let serial = fleet.tree.leaf("b.example").serial();
    fleet.renew("b.example");
    fleet.publisher.run(&["fleet", "publish", "--take-over"]).exits(0);
    daemon.tells_again("fleet-unknown-publisher");
    fleet.nodes[0].must_have(&wanted, "by a publisher that counts no more");
    let address = fleet.nodes[0].haproxy.as_ref().unwrap().address();
    assert_eq!(served(address, "b.example").serial, serial);
    assert!(fleet.nodes[0].words().contains(&"fleet-unknown-publisher".to_owned()));
    daemon.ends();
}

/// What a node is not to have goes, and doesn't come back with the next head.
#[test]
fn what_is_excluded_stays_away() {
    let mut fleet = followed(vec![None]);
    let daemon = Daemon::start(&fleet.nodes[0]);
    let line = fleet.line();
    let node = &fleet.nodes[0];
    let table = fleet.table(&node.cmd, &format!("publishers = [\"{line}\"]"));
    let tables = format!("exclude = [\"b.example\"]\n{}{table}", node.own);
    fleet.nodes[0].cmd.set_tables(&tables);
    fleet.nodes[0].cmd.config();
    wait_until(LIMIT, "the excluded one goes", || fleet.nodes[0].cmd.deployed() == ["a.example.pem"]);
    fleet.renew("b.example");
    fleet.renew("a.example");
    fleet.publish();
    fleet.wanted.remove("b.example");
    arrives(&fleet, &daemon, "the next head");
    assert_eq!(fleet.nodes[0].cmd.deployed(), ["a.example.pem"]);
    daemon.ends();
}

/// A node that is installed again while its daemon runs.
#[test]
fn a_nodes_keys_are_those_that_it_has_now() {
    let mut fleet = followed(vec![None]);
    let daemon = Daemon::start(&fleet.nodes[0]);
    for name in ["identity", "identity.pub"] {
        fs::remove_file(fleet.nodes[0].cmd.beside(name)).unwrap();
    }
    daemon.tells_again("there is no ");
    let joined = fleet.nodes[0].cmd.run(&["fleet", "join"]).exits(0);
    let key = joined.stdout.lines().find_map(|line| line.strip_prefix("key  = \"")).unwrap();
    fleet.nodes[0].key = key.trim_end_matches('"').to_owned();
    daemon.tells_again("fleet-not-a-node");
    fleet.tell_publisher();
    fleet.publisher.run(&["fleet", "rotate"]).exits(0);
    fleet.renew("a.example");
    fleet.publish();
    arrives(&fleet, &daemon, "for the new keys");
    let status = || fleet.publisher.run(&["fleet", "status", "--format", "json"]).json();
    wait_until(LIMIT, "its report", || status()["nodes"][0]["confirmed"] == true);
    daemon.ends();
}

/// Nothing is deployed by what the settings said before they were broken; it is said once, and over when they are right.
#[test]
fn broken_settings_are_waited_for() {
    let mut fleet = followed(vec![None]);
    let daemon = Daemon::start(&fleet.nodes[0]);
    let old = fleet.wanted.clone();
    let node = &fleet.nodes[0];
    let config = node.cmd.config();
    let (right, broken) = (fs::read(&config).unwrap(), config.with_extension("broken"));
    fs::write(&broken, "publisher = [").unwrap();
    fs::rename(&broken, &config).unwrap();
    daemon.tells_again("line 1");
    fleet.renew("a.example");
    fleet.publish();
    // Looks after the head came.
    daemon.tells_again("line 1");
    daemon.tells_again("line 1");
    fleet.nodes[0].must_have(&old, "by broken settings");
    assert_eq!(daemon.said().matches("line 1").count(), 1, "{}", daemon.said());
    fs::write(&broken, right).unwrap();
    fs::rename(&broken, &config).unwrap();
    arrives(&fleet, &daemon, "by the right settings");
    daemon.ends();
}

/// Another store in the place of the first one, and back in a place that isn't there yet.
#[test]
fn the_store_is_the_one_that_the_settings_name_now() {
    let mut fleet = followed(vec![None]);
    let daemon = Daemon::start(&fleet.nodes[0]);
    let line = fleet.line();
    let moves = |fleet: &mut Fleet, name: &str| {
        fleet.store = support::cmd::toml(&fleet.place.path().join(name));
        fleet.tell_publisher();
        fleet.tell_node(0, &[&line], "");
    };
    fs::create_dir(fleet.place.path().join("other")).unwrap();
    moves(&mut fleet, "other");
    fleet.renew("a.example");
    fleet.publish();
    fleet.nodes[0].cmd.config();
    arrives(&fleet, &daemon, "from another store");
    fleet.renew("a.example");
    fleet.publish();
    arrives(&fleet, &daemon, "the other store is waited for");
    moves(&mut fleet, "third");
    fleet.nodes[0].cmd.config();
    daemon.tells_again("fleet-unreachable");
    fs::create_dir(fleet.place.path().join("third")).unwrap();
    fleet.renew("b.example");
    fleet.publish();
    arrives(&fleet, &daemon, "from the third store");
    daemon.ends();
}

/// SIGHUP is a look at everything; what else is lost is seen when something happens.
#[test]
fn sighup_is_a_look_at_everything() {
    let fleet = followed(vec![None]);
    let mut daemon = Daemon::start(&fleet.nodes[0]);
    fs::remove_file(fleet.nodes[0].cmd.site("a.example")).unwrap();
    daemon.running.signal(Signal::HUP);
    arrives(&fleet, &daemon, "after SIGHUP");
    daemon.ends();
}

fn waits_with_the_head(fleet: &Fleet) {
    let memory = fleet.nodes[0].cmd.beside("cache");
    let is_locked = || {
        let folder = File::open(&memory).unwrap();
        rustix::fs::flock(&folder, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err()
    };
    wait_until(LIMIT, "it waits with the head", is_locked);
}

/// A change of the settings counts for a head that is waited with, too, and so does SIGHUP.
#[test]
fn a_delayed_head_is_judged_again() {
    let mut fleet = followed(vec![None]);
    let line = fleet.line();
    let spread = |fleet: &mut Fleet, time: &str| {
        let spread = format!("spread = \"{time}\"");
        fleet.tell_node(0, &[&line], "");
        let node = &fleet.nodes[0];
        let table = fleet.table(&node.cmd, &format!("publishers = [\"{line}\"]"));
        let tables = format!("{}{}", node.own, table.replace("spread = \"0s\"", &spread));
        fleet.nodes[0].cmd.set_tables(&tables);
        fleet.nodes[0].cmd.config();
    };
    // A random part of it is never as short as this test.
    spread(&mut fleet, "168h");
    let mut daemon = Daemon::start(&fleet.nodes[0]);
    let before = fleet.wanted.clone();
    fleet.renew("a.example");
    fleet.publish();
    waits_with_the_head(&fleet);
    fleet.nodes[0].must_have(&before, "while it waits");
    spread(&mut fleet, "0s");
    arrives(&fleet, &daemon, "without a delay");

    // Whoever is in a hurry needn't change them.
    spread(&mut fleet, "168h");
    daemon.tells_again("READY=1");
    fleet.renew("a.example");
    fleet.publish();
    waits_with_the_head(&fleet);
    daemon.running.signal(Signal::HUP);
    arrives(&fleet, &daemon, "after SIGHUP");
    daemon.ends();
}

/// A store that is away is said once, wherever one looks, long before the ten minutes of an idle node are over; so is its
/// return.
#[test]
fn a_store_that_is_away_is_said_soon() {
    let mut fleet = followed(vec![None]);
    let daemon = Daemon::start(&fleet.nodes[0]);
    let aside = fleet.place.path().join("aside");
    fs::rename(fleet.folder(), &aside).unwrap();
    is_away_and_back(&mut fleet, &daemon, |fleet| fs::rename(&aside, fleet.folder()).unwrap());
    daemon.ends();
}

#[test]
fn a_dead_etcd_is_said_soon() {
    let mut etcd = EtcdSetup::of(&newest_etcd()).start();
    let mut fleet = Fleet::in_etcd(&etcd.settings("edge"));
    fleet.join("lb1", None);
    fleet.tell_publisher();
    fleet.issue("a.example");
    fleet.issue("b.example");
    fleet.publish();
    fleet.tell_nodes("");
    let daemon = Daemon::start(&fleet.nodes[0]);
    fleet.nodes[0].must_have(&fleet.wanted, "at the start");
    // A member that is restarted is none of it.
    etcd.kill(0);
    etcd.run(0);
    etcd.wait_until_it_answers();
    fleet.renew("b.example");
    fleet.publish();
    arrives(&fleet, &daemon, "after a restart");
    assert!(!daemon.said().contains("fleet-unreachable"), "{}", daemon.said());
    etcd.kill(0);
    is_away_and_back(&mut fleet, &daemon, |_| {
        etcd.run(0);
        etcd.wait_until_it_answers();
    });
    daemon.ends();
}

#[track_caller]
fn is_away_and_back(fleet: &mut Fleet, daemon: &Daemon, come_back: impl FnOnce(&Fleet)) {
    let is_said = |fleet: &Fleet| fleet.nodes[0].words().contains(&"fleet-unreachable".to_owned());
    wait_until(AWAY, "its status says so", || is_said(fleet));
    // It is tried again.
    daemon.tells_again("fleet-unreachable");
    let said = daemon.said();
    assert_eq!(said.matches("fleet-unreachable").count(), 1, "{said}");
    assert!(!said.contains("answers again"), "{said}");
    come_back(fleet);
    fleet.renew("a.example");
    fleet.publish();
    arrives(fleet, daemon, "it is back");
    wait_until(LIMIT, "its status is well", || !is_said(fleet));
    // It speaks when the look is done.
    wait_until(LIMIT, "it says so", || daemon.said().contains("the store answers again"));
    let said = daemon.said();
    assert_eq!(said.matches("the store answers again").count(), 1, "{said}");
    assert_eq!(said.matches("fleet-unreachable").count(), 1, "{said}");
}

/// A certificate for the etcd that was renewed is used without a restart.
#[test]
fn the_files_for_etcd_are_read_again() {
    let etcd = EtcdSetup::of(&newest_etcd()).tls().start();
    let mut settings = etcd.settings("edge");
    let place = tempfile::tempdir().unwrap();
    let (certificate, key) = (place.path().join("client.pem"), place.path().join("client.key"));
    let mut fleet = Fleet::in_etcd(&settings);
    fleet.join("lb1", None);
    fleet.tell_publisher();
    fleet.issue("a.example");
    fleet.publish();
    let stranger = Authority::new().issue(KeyKind::P256, &["client.example"], Validity::days(90));
    fs::write(&certificate, stranger.fullchain()).unwrap();
    fs::write(&key, stranger.key.pem()).unwrap();
    settings.certificate = Some(certificate.clone());
    settings.key = Some(key.clone());
    let line = fleet.line();
    fleet.store = Fleet::etcd_store(&settings);
    fleet.tell_node(0, &[&line], "");
    let daemon = Daemon::start(&fleet.nodes[0]);
    assert!(daemon.said().contains("fleet-unreachable"), "{}", daemon.said());
    fs::copy(etcd.file("client.key"), &key).unwrap();
    fs::copy(etcd.file("client.pem"), &certificate).unwrap();
    arrives(&fleet, &daemon, "with the right certificate");
    daemon.ends();
}
