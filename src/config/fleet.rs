//! What is meant by `[fleet]`: which fleet this host belongs to, where its store is, and what the host does in it.

use std::fmt;
use std::path::{Path, PathBuf, absolute};
use std::time::Duration;

use serde::Deserialize;

use crate::sys::escape::{escaped, escaped_path};

/// Where a host's keys are, where nothing else is said.
pub const IDENTITY: &str = "/etc/haproxy-certs/identity";

/// Below it each fleet has its cache, where nothing else is said.
pub const CACHES: &str = "/var/lib/haproxy-certs";

/// The longest name of a fleet or node, in bytes: it is part of a store's keys and of file names.
const LONGEST_NAME: usize = 64;

/// The longest wait for canaries and the longest spread.
const LONGEST_WAIT: Duration = Duration::from_secs(7 * 24 * 3600);

/// This host's part in a fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fleet {
    /// The fleet's name.
    pub name: String,
    /// This host's keys.
    pub identity: PathBuf,
    /// What this host keeps of the fleet: ciphertext.
    pub cache: PathBuf,
    /// Where the fleet's objects are.
    pub store: StorePlace,
    /// Whose heads count on a node, as `ssh-ed25519 …` lines; none: this host isn't a node.
    pub publishers: Vec<String>,
    /// The nodes that are to have a head confirmed before this one takes it.
    pub wait_for: Vec<String>,
    /// How long after it was signed a head is taken whatever those say.
    pub wait_at_most: Duration,
    /// At most so long a node waits before it deploys what is new.
    pub spread: Duration,
    /// Whether the settings name a HAProxy: a publisher may have none.
    pub names_haproxys: bool,
    /// Who may read; none: this host isn't the publisher.
    pub nodes: Vec<Member>,
}

/// A node, as the publisher knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its public keys, as `fleet join` prints them.
    pub key: String,
}

/// Where a store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StorePlace {
    /// A directory that something else carries.
    Directory(PathBuf),
    /// An etcd cluster.
    Etcd(Cluster),
}

/// How an etcd cluster is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// `https://host:port`, at least one.
    pub endpoints: Vec<String>,
    /// Who may have signed its certificates; none: the system's authorities.
    pub ca: Option<PathBuf>,
    /// This host's certificate and private key for it.
    pub client: Option<(PathBuf, PathBuf)>,
    /// The user, and the file with the password.
    pub user: Option<(String, PathBuf)>,
}

impl Fleet {
    /// Whether this host publishes.
    #[must_use]
    pub fn is_publisher(&self) -> bool {
        !self.nodes.is_empty()
    }

    /// Whether this host deploys what is published.
    #[must_use]
    pub fn is_node(&self) -> bool {
        !self.publishers.is_empty()
    }

    /// What stands for the fleet where a `live` directory is recorded.
    #[must_use]
    pub fn source(&self) -> PathBuf {
        PathBuf::from(format!("fleet:{}", self.name))
    }
}

impl Cluster {
    /// The files that a connection is made with.
    pub fn tls_files(&self) -> impl Iterator<Item = &Path> {
        let client = self.client.iter().flat_map(|(certificate, key)| [certificate, key]);
        self.ca.iter().chain(client).map(PathBuf::as_path)
    }

    /// Those, and the one with the password.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.tls_files().chain(self.user.iter().map(|(_, password)| password.as_path()))
    }
}

impl fmt::Display for StorePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => escaped(path.as_os_str().as_encoded_bytes()).fmt(f),
            Self::Etcd(cluster) => escaped(&cluster.endpoints.join(", ")).fmt(f),
        }
    }
}

/// What can't be meant: one line that says why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadFleet(String);

impl BadFleet {
    fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

/// The table as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FleetTable {
    name: String,
    identity: PathBuf,
    cache: Option<PathBuf>,
    store: Places,
    ca: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    user: Option<String>,
    password_file: Option<PathBuf>,
    publishers: Vec<String>,
    wait_for: Vec<String>,
    wait_at_most: String,
    spread: String,
    node: Vec<NodeTable>,
}

/// One place or several.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a directory or a list of etcd's addresses")]
enum Places {
    One(String),
    Several(Vec<String>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeTable {
    name: String,
    key: String,
}

impl Default for FleetTable {
    fn default() -> Self {
        Self {
            name: String::new(),
            identity: IDENTITY.into(),
            cache: None,
            store: Places::Several(Vec::new()),
            ca: None,
            certificate: None,
            key: None,
            user: None,
            password_file: None,
            publishers: Vec::new(),
            wait_for: Vec::new(),
            wait_at_most: "1h".into(),
            spread: "30s".into(),
            node: Vec::new(),
        }
    }
}

impl FleetTable {
    pub(super) fn validate(self, names_haproxys: bool) -> Result<Fleet, BadFleet> {
        check_name("[fleet] name", &self.name)?;
        let mut nodes: Vec<Member> = Vec::with_capacity(self.node.len());
        for NodeTable { name, key } in self.node {
            check_name("name of a [[fleet.node]] table", &name)?;
            if key.trim().is_empty() {
                return Err(BadFleet::new(format!(
                    "[[fleet.node]] \"{name}\" needs its key: haproxy-certs fleet join prints it there"
                )));
            }
            if nodes.iter().any(|before| before.name == name) {
                return Err(BadFleet::new(format!("two [[fleet.node]] tables have the name \"{name}\"")));
            }
            nodes.push(Member { name, key: key.trim().to_owned() });
        }
        let publishers: Vec<String> = self.publishers.iter().map(|line| line.trim().to_owned()).collect();
        if let Some(bad) = publishers.iter().find(|line| !line.starts_with("ssh-ed25519 ")) {
            return Err(BadFleet::new(format!(
                "[fleet] publishers must be lines like \"ssh-ed25519 AAAA...\", as the first fleet publish prints, not \"{}\"",
                escaped(bad)
            )));
        }
        if !nodes.is_empty() && !publishers.is_empty() {
            return Err(BadFleet::new(
                "[fleet] has publishers and [[fleet.node]] tables: a host either follows or publishes",
            ));
        }
        for name in &self.wait_for {
            check_name("[fleet] wait_for", name)?;
        }
        if !self.wait_for.is_empty() && publishers.is_empty() {
            return Err(BadFleet::new("[fleet] wait_for is for nodes: it needs publishers"));
        }
        let cache = match self.cache {
            Some(path) => place("cache", &path)?,
            None => Path::new(CACHES).join(&self.name),
        };
        let tls = [&self.ca, &self.certificate, &self.key, &self.password_file];
        let is_for_etcd = tls.iter().any(|it| it.is_some()) || self.user.is_some();
        let store = match locate(self.store)? {
            StorePlace::Directory(_) if is_for_etcd => {
                return Err(BadFleet::new(
                    "[fleet] ca, certificate, key, user and password_file are for etcd, and store is a directory",
                ));
            }
            StorePlace::Directory(path) if path.starts_with(&cache) || cache.starts_with(&path) => {
                return Err(BadFleet::new(
                    "[fleet] store and cache must be two directories, neither in the other",
                ));
            }
            StorePlace::Directory(path) => StorePlace::Directory(path),
            StorePlace::Etcd(cluster) => {
                let client = match (self.certificate, self.key) {
                    (Some(certificate), Some(key)) => {
                        Some((place("certificate", &certificate)?, place("key", &key)?))
                    }
                    (None, None) => None,
                    _ => return Err(BadFleet::new("[fleet] certificate and key belong together")),
                };
                let user = match (self.user, self.password_file) {
                    (Some(user), Some(file)) if !user.is_empty() => {
                        Some((user, place("password_file", &file)?))
                    }
                    (None, None) => None,
                    _ => return Err(BadFleet::new("[fleet] user and password_file belong together")),
                };
                let ca = self.ca.map(|path| place("ca", &path)).transpose()?;
                StorePlace::Etcd(Cluster { ca, client, user, ..cluster })
            }
        };
        Ok(Fleet {
            identity: place("identity", &self.identity)?,
            cache,
            store,
            publishers,
            wait_for: self.wait_for,
            wait_at_most: duration("wait_at_most", &self.wait_at_most)?,
            spread: duration("spread", &self.spread)?,
            names_haproxys,
            nodes,
            name: self.name,
        })
    }
}

impl Fleet {
    /// Nothing of the fleet may be where HAProxy or certbot looks, and no key where others look.
    pub(super) fn check_places(&self, sites_dir: &Path, live_dir: &Path) -> Result<(), BadFleet> {
        let store = match &self.store {
            StorePlace::Directory(path) => Some(path),
            StorePlace::Etcd(_) => None,
        };
        let own = [("identity", Some(&self.identity)), ("cache", Some(&self.cache)), ("store", store)];
        for (key, place) in own {
            let Some(place) = place else { continue };
            for (dir, of) in [("sites_dir", sites_dir), ("live_dir", live_dir)] {
                if place.starts_with(of) {
                    return Err(BadFleet::new(format!(
                        "[fleet] {key} {} must be outside {dir}",
                        escaped_path(place)
                    )));
                }
            }
        }
        if store.is_some_and(|store| self.identity.starts_with(store)) {
            return Err(BadFleet::new(
                "[fleet] identity must be outside store, which others read: its keys never leave this host",
            ));
        }
        Ok(())
    }
}

/// An absolute path is a directory; anything else must be etcd's addresses.
fn locate(places: Places) -> Result<StorePlace, BadFleet> {
    let texts = match places {
        Places::One(text) => vec![text],
        Places::Several(texts) => texts,
    };
    if texts.is_empty() || texts.iter().all(String::is_empty) {
        return Err(BadFleet::new("[fleet] needs store: a directory, or a list of etcd's addresses"));
    }
    if let [text] = texts.as_slice()
        && text.starts_with('/')
    {
        return place("store", Path::new(text)).map(StorePlace::Directory);
    }
    let is_address = |text: &&String| {
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        rest.is_some_and(|rest| {
            !rest.is_empty() && !rest.contains(|c: char| c.is_whitespace() || "/?#@".contains(c))
        })
    };
    if let Some(bad) = texts.iter().find(|text| !is_address(text)) {
        // What may be a password isn't said.
        if let Some((_, host)) = bad.rsplit_once('@') {
            return Err(BadFleet::new(format!(
                "[fleet] store: the address of {} must have no user and no password in it; use user and password_file",
                escaped(host)
            )));
        }
        return Err(BadFleet::new(format!(
            "[fleet] store must be one absolute directory, or a list like [\"https://e1:2379\"], not \"{}\"",
            escaped(bad)
        )));
    }
    Ok(StorePlace::Etcd(Cluster { endpoints: texts, ca: None, client: None, user: None }))
}

/// A name is part of keys and paths of the store.
fn check_name(what: &str, name: &str) -> Result<(), BadFleet> {
    let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let starts_well = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if starts_well && name.len() <= LONGEST_NAME && name.bytes().all(is_of_name) {
        return Ok(());
    }
    Err(BadFleet::new(format!(
        "{what} must be of letters, digits, '.', '_' and '-', at most {LONGEST_NAME} of them, not \"{}\"",
        escaped(name)
    )))
}

fn place(key: &str, path: &Path) -> Result<PathBuf, BadFleet> {
    let whole = absolute(path).map_err(|_| BadFleet::new(format!("[fleet] {key} must not be empty")))?;
    Ok(whole.components().collect())
}

fn duration(key: &str, text: &str) -> Result<Duration, BadFleet> {
    humantime::parse_duration(text).ok().filter(|it| *it <= LONGEST_WAIT).ok_or_else(|| {
        BadFleet::new(format!(
            "[fleet] {key} must be like \"30s\" or \"1h\", seven days at most, not \"{}\"",
            escaped(text)
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Fleet, BadFleet> {
        let table: FleetTable = toml::from_str(text).map_err(|e| BadFleet::new(e.message()))?;
        table.validate(false)
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let fleet = parse("name = \"edge\"\nstore = \"/srv/fleet/\"").unwrap();
        assert_eq!(fleet.identity, Path::new("/etc/haproxy-certs/identity"));
        assert_eq!(fleet.cache, Path::new("/var/lib/haproxy-certs/edge"));
        assert_eq!(fleet.store, StorePlace::Directory("/srv/fleet".into()));
        assert_eq!((fleet.spread, fleet.wait_at_most), (Duration::from_secs(30), Duration::from_secs(3600)));
        assert!(!fleet.is_node() && !fleet.is_publisher());
        assert_eq!(fleet.source(), Path::new("fleet:edge"));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let edge = "name = \"edge\"\nstore = \"/srv/fleet\"\n";
        for (text, said) in [
            ("store = \"/srv\"".to_owned(), "[fleet] name must be of letters"),
            ("name = \"../x\"\nstore = \"/srv\"".to_owned(), "[fleet] name must be of letters"),
            ("name = \"edge\"".to_owned(), "[fleet] needs store"),
            ("name = \"edge\"\nstore = \"e1:2379\"".to_owned(), "one absolute directory, or a list"),
            ("name = \"edge\"\nstore = [\"https://e1/x\"]".to_owned(), "one absolute directory, or a list"),
            (format!("{edge}cache = \"/srv/fleet/cache\""), "two directories, neither in the other"),
            (format!("{edge}ca = \"/x\""), "are for etcd, and store is a directory"),
            (format!("{edge}publishers = [\"AAAA\"]"), "lines like \"ssh-ed25519 AAAA...\""),
            (format!("{edge}wait_for = [\"lb1\"]"), "it needs publishers"),
            (format!("{edge}spread = \"soon\""), "spread must be like"),
            (format!("{edge}[[node]]\nname = \"a\"\nkey = \"\""), "needs its key"),
            (
                format!("{edge}[[node]]\nname = \"a\"\nkey = \"x\"\n[[node]]\nname = \"a\"\nkey = \"y\""),
                "two [[fleet.node]] tables",
            ),
            (
                format!("{edge}publishers = [\"ssh-ed25519 AAAA\"]\n[[node]]\nname = \"a\"\nkey = \"x\""),
                "a host either follows or publishes",
            ),
            (
                "name = \"edge\"\nstore = [\"https://e1:2379\"]\ncertificate = \"/x\"".to_owned(),
                "certificate and key belong together",
            ),
            (
                "name = \"edge\"\nstore = [\"https://e1:2379\"]\nuser = \"x\"".to_owned(),
                "user and password_file belong together",
            ),
        ] {
            let message = parse(&text).expect_err(&text);
            assert!(message.0.contains(said), "{text}: {message}");
        }
    }

    #[test]
    fn a_password_in_an_address_is_refused_and_not_said() {
        for store in
            ["\"https://me:se@cret@e1:2379\"", "[\"https://e2:2379\", \"https://me:se@cret@e1:2379\"]"]
        {
            let message = parse(&format!("name = \"edge\"\nstore = {store}")).expect_err(store);
            assert_eq!(
                message.0,
                "[fleet] store: the address of e1:2379 must have no user and no password in it; use user and \
                 password_file"
            );
        }
    }
}
