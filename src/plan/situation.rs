//! Everything that the decision is made from.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::sync::Arc;

use crate::certified_key::{ChainState, Leaf};
use crate::config::Owner;
use crate::plan::names::{is_loaded_name, site_file};
use crate::plan::refusal::Refusal;
use crate::serving::loads::Loaded;

/// A lineage whose key was proved to belong to its leaf: the facts, without the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// SHA-256 of its combined PEM.
    pub sha256: [u8; 32],
    /// Its leaf.
    pub leaf: Arc<Leaf>,
    /// Whether the chain hangs together.
    pub chain: ChainState,
    /// Whether a staging CA issued it.
    pub staging: bool,
    /// Whether others than its owner may read the key file.
    pub loose_permissions: bool,
}

/// One lineage of certbot's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lineage {
    /// What came of reading and proving it.
    pub proof: Result<Candidate, Refusal>,
    /// The leaf's facts where the lineage was refused but its leaf could be read.
    pub leaf: Option<Arc<Leaf>>,
}

/// A file that is on disk where HAProxy loads certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployed {
    /// What kind of directory entry it is.
    pub kind: EntryKind,
    /// SHA-256 of its bytes; `None` where it isn't a regular file of a sensible size.
    pub sha256: Option<[u8; 32]>,
    /// Its first certificate.
    pub leaf: Option<Arc<Leaf>>,
    /// Whether it holds a private key.
    pub has_key: bool,
    /// Whether HAProxy would present its certificate: there is a key, in it or beside it; links are followed.
    pub presented: bool,
    /// The entry of the same directory that it leads to, where it is a link to one.
    pub leads_to: Option<OsString>,
    /// Whether its first certificate is found in the archive of the lineage that its name stands for.
    pub archived: bool,
}

impl Deployed {
    /// One of which nothing is known but what kind of entry it is.
    #[must_use]
    pub fn unread(kind: EntryKind) -> Self {
        let (sha256, leaf, leads_to) = (None, None, None);
        Self { kind, sha256, leaf, has_key: false, presented: false, leads_to, archived: false }
    }

    /// Whether HAProxy can load it whatever becomes of other files, as far as can be seen without it.
    #[must_use]
    pub fn is_loadable(&self) -> bool {
        matches!(self.kind, EntryKind::Regular { .. }) && self.has_key && self.leaf.is_some()
    }
}

/// What kind of directory entry a deployed file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    Regular {
        /// Its owner.
        owner: Owner,
        /// Its permission bits.
        mode: u32,
    },
    /// A directory, which HAProxy ignores.
    Directory,
    /// Anything else, links among them.
    Other,
}

/// What the state file says of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// The lineage that it was written for.
    pub lineage: OsString,
    /// The SHA-256 values that this program may have left in it: more than one after an interrupted run.
    pub sha256: Vec<[u8; 32]>,
    /// Whether the chain of the PEM with this SHA-256 hangs together, as an earlier run found.
    pub chain: Option<([u8; 32], ChainState)>,
    /// Whether it was written from the `live` directory of this run.
    pub same_tree: bool,
    /// The SHA-256 of a PEM that HAProxy refused to take in this place, with its words.
    pub rejected: Option<([u8; 32], String)>,
    /// HAProxy's words when the file was pruned and had to be put back.
    pub prune_refused: Option<String>,
}

/// How the operator wants this run.
#[derive(Debug, Clone, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is a word of its own")]
pub struct Policy {
    /// Prune nothing.
    pub no_prune: bool,
    /// Prune however many there are.
    pub prune_many: bool,
    /// Take over every file that a lineage needs.
    pub adopt: bool,
    /// Whether the lineages are a fleet's, whose publisher says what is gone.
    pub follows: bool,
    /// Lineages to deploy although they are older, from staging or not yet valid, or were refused by HAProxy before.
    pub force: BTreeSet<OsString>,
}

/// Everything that the decision is made from.
#[derive(Debug, Clone)]
pub struct Situation {
    /// The lineages that are wanted as sites and aren't read, in byte order: each was proved before and is deployed as it was
    /// proved, and the state file says just that.
    pub unchanged: Vec<(OsString, Candidate)>,
    /// The others that are wanted as sites.
    pub lineages: BTreeMap<OsString, Lineage>,
    /// Whether certbot's `live` directory has any lineage, wanted or not.
    pub any_lineage: bool,
    /// Every other entry of the sites directory but our own.
    pub deployed: BTreeMap<OsString, Deployed>,
    /// What the state file says of the other files in the sites directory.
    pub recorded: BTreeMap<OsString, Recorded>,
    /// The host certificate, where one is configured.
    pub host: Option<HostSituation>,
    /// What the HAProxys load besides.
    pub loaded: Loaded,
    /// Who is to own the files.
    pub owner: Owner,
    /// The files' permission bits.
    pub mode: u32,
    /// The time, in seconds since 1970.
    pub now: i64,
    /// How the operator wants it.
    pub policy: Policy,
}

impl Situation {
    /// Whether it has a lineage of this name that is wanted as a site.
    #[must_use]
    pub fn has_lineage(&self, name: &OsStr) -> bool {
        self.lineages.contains_key(name) || named(&self.unchanged, name).is_some()
    }

    /// What would be found by reading a lineage that is unchanged, and its file.
    #[must_use]
    pub fn found(&self, unchanged: &Candidate) -> (Lineage, Deployed) {
        let kind = EntryKind::Regular { owner: self.owner, mode: self.mode };
        let deployed = Deployed {
            sha256: Some(unchanged.sha256),
            leaf: Some(Arc::clone(&unchanged.leaf)),
            has_key: true,
            presented: true,
            ..Deployed::unread(kind)
        };
        (Lineage { proof: Ok(unchanged.clone()), leaf: None }, deployed)
    }

    /// The same situation as if everything had been read.
    #[must_use]
    pub fn as_if_read(mut self) -> Self {
        for (name, unchanged) in std::mem::take(&mut self.unchanged) {
            let (lineage, deployed) = self.found(&unchanged);
            self.deployed.extend(site_file(&name).map(|file| (file, deployed)));
            self.lineages.insert(name, lineage);
        }
        self
    }

    /// Whether a HAProxy takes a file of this name in the sites directory for a certificate.
    #[must_use]
    pub fn is_loaded(&self, file: &OsStr) -> bool {
        (is_loaded_name(file) || self.loaded.takes_dotfile(file))
            && self.loaded.passed_over_for(file).is_none()
    }
}

/// The one of this name among unchanged lineages.
#[must_use]
pub fn named<'a>(all: &'a [(OsString, Candidate)], name: &OsStr) -> Option<&'a Candidate> {
    let place = all.binary_search_by(|(other, _)| other.as_os_str().cmp(name)).ok()?;
    all.get(place).map(|(_, candidate)| candidate)
}

/// The host certificate's part of the situation.
#[derive(Debug, Clone)]
pub struct HostSituation {
    /// The lineage that it is made from.
    pub lineage: OsString,
    /// What is known of it.
    pub source: Lineage,
    /// Its file's whole path.
    pub file: OsString,
    /// What is there.
    pub deployed: Option<Deployed>,
    /// What the state file says of it.
    pub recorded: Option<Recorded>,
}
