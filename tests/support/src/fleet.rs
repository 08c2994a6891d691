//! A fleet over a directory or an etcd, with the real program: one publisher with certbot's tree, and nodes with and
//! without `HAProxy`s.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use haproxy_certs::fleet::head::{Head, SignedHead};
use haproxy_certs::fleet::identity::HostIdentity;
use haproxy_certs::fleet::store::etcd::EtcdSettings;

use super::cmd::toml;
use super::process::Running;
use super::scene::put;
use super::{Authority, Cmd, Haproxy, KeyKind, Kind, Leaf, Run, Tree, Validity, served, tree, version};

/// The table of a host whose HAProxy is another's business.
pub const NO_HAPROXY: &str =
    "[[haproxy]]\nreload = \"none\"\nbinary = \"\"\nunit = \"\"\npidfile = \"\"\nmaster_socket = \"\"\n";

/// Puts a directory's whole content back.
pub fn put_back(folder: &Path, contents: &Contents) {
    fs::remove_dir_all(folder).unwrap();
    tree::make_directory(folder, 0o700);
    for (path, bytes) in contents {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

/// What is in a directory, by paths.
pub type Contents = BTreeMap<String, Vec<u8>>;

/// A fleet over a directory.
pub struct Fleet {
    /// certbot's tree on the publisher.
    pub tree: Tree,
    /// As the settings have it.
    pub store: String,
    /// The program on the publisher.
    pub publisher: Cmd,
    /// The nodes that have joined.
    pub nodes: Vec<Node>,
    /// What holds the store, where it is a directory.
    pub place: tempfile::TempDir,
    /// What every site is to be.
    pub wanted: BTreeMap<String, String>,
}

/// A node.
pub struct Node {
    /// What the fleet calls it.
    pub name: String,
    /// The program on it.
    pub cmd: Cmd,
    /// Its HAProxy, where it has one.
    pub haproxy: Option<Haproxy>,
    /// Its table of a HAProxy.
    pub own: String,
    /// What its table on the publisher has for a key.
    pub key: String,
}

impl Fleet {
    /// With as many nodes, in front of which no HAProxy stands, and nothing published.
    pub fn new(nodes: usize) -> Self {
        Self::of(vec![None; nodes])
    }

    /// With a HAProxy of each of these versions.
    pub fn of(versions: Vec<Option<&str>>) -> Self {
        let place = tempfile::Builder::new().prefix("haproxy-certs-fleet-").tempdir().unwrap();
        let folder = place.path().join("store");
        tree::make_directory(&folder, 0o700);
        let store = toml(&folder);
        let tree = Tree::new();
        let publisher = Cmd::new(tree.live());
        let mut fleet = Self { tree, store, publisher, nodes: Vec::new(), place, wanted: BTreeMap::new() };
        for (at, version) in versions.into_iter().enumerate() {
            fleet.join(&format!("lb{}", at + 1), version);
        }
        fleet.tell_publisher();
        fleet
    }

    /// Over an etcd, and without nodes.
    pub fn in_etcd(settings: &EtcdSettings) -> Self {
        let mut fleet = Self::new(0);
        fleet.store = Self::etcd_store(settings);
        fleet
    }

    /// An etcd as the settings have it.
    pub fn etcd_store(settings: &EtcdSettings) -> String {
        let endpoints: Vec<String> = settings.endpoints.iter().map(|it| format!("\"{it}\"")).collect();
        let mut text = format!("[{}]", endpoints.join(", "));
        for (name, path) in [
            ("ca", &settings.ca),
            ("certificate", &settings.certificate),
            ("key", &settings.key),
            ("password_file", &settings.password_file),
        ] {
            if let Some(path) = path {
                let _ = write!(text, "\n{name} = {}", toml(path));
            }
        }
        if let Some(user) = &settings.user {
            let _ = write!(text, "\nuser = \"{user}\"");
        }
        text
    }

    /// The `[fleet]` table of a host.
    pub fn table(&self, cmd: &Cmd, more: &str) -> String {
        format!(
            "[fleet]\nname = \"edge\"\nidentity = {}\ncache = {}\nstore = {}\nspread = \"0s\"\n{more}\n",
            toml(&cmd.beside("identity")),
            toml(&cmd.beside("cache")),
            self.store,
        )
    }

    /// A new node; the publisher doesn't know of it yet.
    pub fn join(&mut self, name: &str, with: Option<&str>) {
        self.join_with(name, with, "");
    }

    /// The same, with more sections in its HAProxy's configuration.
    pub fn join_with(&mut self, name: &str, with: Option<&str>, section: &str) {
        let mut cmd = Cmd::new("");
        tree::make_directory(&cmd.sites(), 0o700);
        let haproxy = with.and_then(version).map(|version| {
            let host = Authority::new().issue(KeyKind::P256, &["host.example"], Validity::days(3650));
            put(&cmd.beside("host.pem"), host.combined(), 0o400);
            Haproxy::of(&version).crt(cmd.beside("host.pem")).crt(cmd.sites()).section(section).start()
        });
        let own = match &haproxy {
            None => NO_HAPROXY.to_owned(),
            Some(haproxy) => format!(
                "[[haproxy]]\npidfile = {}\nmaster_socket = {}\nbinary = {}\nunit = \"\"\n",
                toml(&haproxy.pidfile()),
                toml(&haproxy.master_socket()),
                toml(&haproxy.version().program),
            ),
        };
        cmd.set_tables(&self.table(&cmd, ""));
        let joined = cmd.run(&["fleet", "join"]).exits(0);
        let key = joined.stdout.lines().find_map(|line| line.strip_prefix("key  = \"")).unwrap();
        let key = key.trim_end_matches('"').to_owned();
        self.nodes.push(Node { name: name.to_owned(), cmd, haproxy, own, key });
    }

    /// Puts the nodes into the publisher's settings.
    pub fn tell_publisher(&mut self) {
        let tables: Vec<String> = self
            .nodes
            .iter()
            .map(|node| format!("[[fleet.node]]\nname = \"{}\"\nkey = \"{}\"\n", node.name, node.key))
            .collect();
        let table = self.table(&self.publisher, &tables.concat());
        self.publisher.set_tables(&table);
    }

    /// Tells the nodes whose heads count.
    pub fn tell_nodes(&mut self, more: &str) {
        let run = self.publisher.run(&["fleet", "publish", "-v"]).exits(0);
        let line = run.stdout.split('"').find(|part| part.starts_with("ssh-ed25519 ")).unwrap().to_owned();
        for at in 0..self.nodes.len() {
            self.tell_node(at, &[&line], more);
        }
    }

    /// Tells one node whose heads count.
    pub fn tell_node(&mut self, at: usize, publishers: &[&str], more: &str) {
        let node = &self.nodes[at];
        let table = self.table(&node.cmd, &format!("publishers = {publishers:?}\n{more}"));
        let tables = format!("{}{table}", node.own);
        self.nodes[at].cmd.set_tables(&tables);
    }

    /// The publisher's line for the nodes.
    pub fn line(&self) -> String {
        let public = fs::read_to_string(self.publisher.beside("identity.pub")).unwrap();
        public.lines().find(|line| line.starts_with("ssh-ed25519")).unwrap().to_owned()
    }

    /// The publisher is another one from now on, and knows of nothing.
    pub fn forget_publisher(&self) {
        for name in ["identity", "identity.pub"] {
            fs::remove_file(self.publisher.beside(name)).unwrap();
        }
        fs::remove_dir_all(self.publisher.beside("cache")).unwrap();
    }

    /// Issues a lineage on the publisher: it is wanted from now on.
    pub fn issue(&mut self, name: &str) -> Leaf {
        let leaf = self.tree.issue(name, KeyKind::P256, &[name], Validity::days(90));
        self.wanted.insert(name.to_owned(), leaf.combined());
        leaf
    }

    /// Renews a lineage on the publisher.
    pub fn renew(&mut self, name: &str) -> Leaf {
        let leaf = self.tree.renew(name);
        self.wanted.insert(name.to_owned(), leaf.combined());
        leaf
    }

    /// Deletes a lineage on the publisher: it isn't wanted any more.
    pub fn delete(&mut self, name: &str) {
        self.tree.delete(name);
        self.wanted.remove(name);
    }

    /// Publishes, which must be fine.
    #[track_caller]
    pub fn publish(&self) -> Run {
        self.publisher.run(&["fleet", "publish"]).exits(0)
    }

    /// Issues these lineages, publishes them, and has every node follow.
    #[track_caller]
    pub fn bring_in_step(&mut self, lineages: &[&str]) {
        for name in lineages {
            self.issue(name);
        }
        self.publish();
        self.tell_nodes("");
        self.all_follow();
    }

    /// Each node looks once, which must be fine.
    #[track_caller]
    pub fn all_follow(&self) {
        for node in &self.nodes {
            node.follow().exits(0);
        }
    }

    /// Every node has what a single host would have.
    #[track_caller]
    pub fn must_all_be_as_wanted(&self, context: &str) {
        for node in &self.nodes {
            node.must_have(&self.wanted, context);
        }
    }

    /// What is in the store, by its path.
    pub fn stored(&self) -> Contents {
        files(&self.folder())
    }

    /// The fleet's directory in the store.
    pub fn folder(&self) -> PathBuf {
        self.place.path().join("store")
    }

    /// Puts a store's whole content back.
    pub fn restore(&self, stored: &Contents) {
        put_back(&self.folder(), stored);
    }

    /// Signs a head with the publisher's key and puts it into the store.
    pub fn sign(&self, change: impl FnOnce(&mut Head)) {
        let identity = HostIdentity::load(&self.publisher.beside("identity")).unwrap().unwrap();
        let path = self.folder().join("head");
        let mut head = SignedHead::read(&fs::read(&path).unwrap()).unwrap().head;
        change(&mut head);
        fs::write(path, head.sign(identity.signing())).unwrap();
    }

    /// The head that is published is as old as that, in seconds: what time would have made of it, the store and the publisher
    /// have.
    pub fn grow_old(&self, age: i64) {
        let published = self.folder().join("head");
        self.sign(|head| {
            let at = time::OffsetDateTime::now_utc().unix_timestamp() - age;
            head.expires += at - head.signed;
            head.signed = at;
            head.sequence += 1;
        });
        fs::copy(published, self.publisher.beside("cache").join("head")).unwrap();
    }
}

impl Node {
    /// Its HAProxy is made to load another file for a lineage of one name, and the disk is as it was; the other
    /// one.
    pub fn serves_another(&mut self, lineage: &str) -> Leaf {
        let site = self.cmd.site(lineage);
        let deployed = fs::read(&site).unwrap();
        let other = Authority::new().issue(KeyKind::P256, &[lineage], Validity::days(90));
        put(&site, other.combined(), 0o400);
        self.haproxy.as_mut().unwrap().reload_and_wait();
        put(&site, &deployed, 0o400);
        other
    }

    /// As a daemon.
    pub fn start(&self) -> Running {
        let config = self.cmd.config();
        Running::start(Cmd::program(), |command| {
            self.cmd.prepare(command);
            command.arg("--config").arg(config).args(["fleet", "follow"]).stdout(Stdio::null())
        })
    }

    /// It looks once.
    pub fn follow(&self) -> Run {
        self.cmd.run(&["fleet", "follow", "--once"])
    }

    /// Its files are these, and no others.
    #[track_caller]
    pub fn must_have(&self, wanted: &BTreeMap<String, String>, context: &str) {
        let files: Vec<String> = wanted.keys().map(|name| format!("{name}.pem")).collect();
        assert_eq!(self.cmd.deployed(), files, "{context}: {}", self.name);
        for (name, pem) in wanted {
            let found = fs::read_to_string(self.cmd.site(name)).unwrap();
            assert!(found == *pem, "{context}: {} has another {name}", self.name);
        }
    }

    /// The words of what its status says of the fleet.
    pub fn words(&self) -> Vec<String> {
        let status = self.cmd.run(&["status", "--format", "json"]).json();
        let problems = status["problems"].as_array().unwrap();
        problems.iter().map(|problem| problem["problem"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

/// What is in a directory and those below it.
pub fn files(folder: &Path) -> Contents {
    let all = walkdir::WalkDir::new(folder).into_iter().map(Result::unwrap);
    let regular = all.filter(|entry| entry.file_type().is_file());
    regular
        .map(|entry| {
            let path = entry.path().strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
            (path, fs::read(entry.path()).unwrap())
        })
        .collect()
}

/// No text that only a key of a lineage has.
pub fn must_hold_no_key(folder: &Path, fleet: &Fleet) {
    let secrets: Vec<String> = fleet
        .wanted
        .keys()
        .map(|name| fs::read_to_string(fleet.tree.link(name, Kind::Privkey)).unwrap())
        .collect();
    for (path, bytes) in files(folder) {
        let text = String::from_utf8_lossy(&bytes);
        for secret in &secrets {
            let line = secret.lines().nth(1).unwrap();
            assert!(!text.contains(line), "{path}");
        }
    }
}
/// Each node has what is wanted, and its HAProxy serves it.
#[track_caller]
pub fn serves(fleet: &Fleet, context: &str) {
    fleet.must_all_be_as_wanted(context);
    for node in &fleet.nodes {
        let Some(haproxy) = &node.haproxy else { continue };
        for name in fleet.wanted.keys() {
            let serial = fleet.tree.leaf(name).serial();
            assert_eq!(served(haproxy.address(), name).serial, serial, "{context}: {} {name}", node.name);
        }
    }
}
