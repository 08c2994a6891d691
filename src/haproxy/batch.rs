//! What a HAProxy is to be notified of.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::SystemTime;

use zeroize::Zeroizing;

use crate::config::Haproxy;
use crate::haproxy::memory;
use crate::haproxy::patience::SocketPatience;
use crate::haproxy::siblings::Homes;
use crate::haproxy::start::Start;
use crate::haproxy::target::Target;
use crate::serving::loads::{Identity, Serving};

/// One file that a HAProxy is notified about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Which file.
    pub target: Target,
    /// What the file holds now; `None`: it was pruned.
    pub now: Option<Expected>,
}

/// What HAProxy must show for a file that it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// SHA-1 of the leaf's DER: what `show ssl cert` calls its fingerprint.
    pub sha1: [u8; 20],
    /// SHA-256 of the leaf's DER.
    pub sha256: [u8; 32],
    /// The leaf's serial number in upper-case hex: of an Ed25519 certificate HAProxy shows no more.
    pub serial: String,
    /// How many certificates follow the leaf.
    pub chain_len: usize,
    /// The key's kind, for probes: signature algorithms are limited to it.
    pub key_type: crate::certified_key::KeyType,
    /// The DNS names that HAProxy serves from this file, on every bind that loads it: probes ask for them.
    pub names_won: Vec<String>,
    /// Whether it can be added at run time without changing what a reload would serve: it doesn't sort first, it
    /// shares no name with another file, and its name needs no quoting.
    pub addable: bool,
    /// Whether HAProxy can be asked for it, see [`crate::haproxy::cli::worker::can_be_shown`].
    pub can_be_shown: bool,
}

/// What a HAProxy is notified about, all at once.
#[derive(Clone, Copy)]
pub struct Batch<'a> {
    /// The files, each once.
    pub changes: &'a [Change],
    /// Reads what a file holds now.
    pub read: &'a dyn Fn(&Target) -> io::Result<Zeroizing<Vec<u8>>>,
    /// When the last file was renamed into place.
    pub committed: SystemTime,
    /// What this HAProxy would load if it started now.
    pub serving: &'a Serving,
    /// All our files, and which ones they are.
    pub ours: &'a BTreeMap<Target, Identity>,
    /// Where they are.
    pub homes: &'a Homes,
    /// How it will be started, should it not run.
    pub start: &'a Start,
    /// How its sockets have behaved in this run.
    pub patience: &'a SocketPatience,
}

impl Batch<'_> {
    /// Which file it is, where it is there.
    pub(crate) fn identity(&self, target: &Target) -> Option<Identity> {
        self.ours.get(target).copied()
    }

    /// The stores that a change is about, as HAProxy spells them: it may load one file under several names.
    pub(crate) fn stores_of(&self, haproxy: &Haproxy, change: &Change) -> Vec<String> {
        let spelled = change.target.spelled(haproxy);
        let identity = change.now.as_ref().and_then(|_| self.identity(&change.target));
        let known = memory::stores_of(self.serving, &spelled, identity).unwrap_or_default();
        if known.is_empty() { vec![spelled] } else { known }
    }

    /// Whether a HAProxy that starts surely serves other files, and not this one.
    pub(crate) fn is_left_out(&self, haproxy: &Haproxy, change: &Change) -> bool {
        let spelled = change.target.spelled(haproxy);
        let stores = memory::stores_of(self.serving, &spelled, self.identity(&change.target));
        let is_known = self.serving.unclear.is_none() && !self.serving.stores.is_empty();
        is_known && stores.is_ok_and(|stores| stores.is_empty())
    }

    /// Those of all changes.
    pub(crate) fn stores(&self, haproxy: &Haproxy) -> BTreeSet<String> {
        self.changes.iter().flat_map(|change| self.stores_of(haproxy, change)).collect()
    }
}
