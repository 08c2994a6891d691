//! What the next head follows on: the last one, as the store and this publisher's cache have it.

use crate::certified_key::hex;
use crate::commands::fleet::failures::in_store;
use crate::commands::fleet::values::reports;
use crate::config::fleet::Fleet;
use crate::fleet::cache::{CacheFolder, FleetMemory, HostPart, Opened};
use crate::fleet::fetch::{Extent, fetch, fetch_nodes};
use crate::fleet::head::{Head, SignedHead};
use crate::fleet::identity::HostIdentity;
use crate::fleet::name::{FleetName, NodeName};
use crate::fleet::node_list::NodeList;
use crate::fleet::report::NodeReport;
use crate::fleet::store::{FleetStore, Revision, StoreKey, get_one};
use crate::fleet::trouble::FleetTrouble;
use crate::sys::failure::{Failure, FailureKind};

/// The highest number that is believed when a node says that it has it.
const MOST_BELIEVED: u64 = 1 << 53;

/// What is the last head, and what is known of the store.
pub(super) struct Base {
    /// The head that counts, opened; `None`: nothing that this publisher can read.
    pub opened: Option<Opened>,
    /// The store's head as it was seen.
    pub revision: Option<Revision>,
    /// The highest number and epoch that were ever seen.
    pub last: (u64, u64),
    /// When the head was signed that is replaced, in seconds since 1970: nodes take none of another publisher that was signed
    /// before.
    pub signed: i64,
    /// Whether the store must be looked through for what is missing.
    pub is_doubtful: bool,
    /// Whether later heads were seen than this host and the store know of: their epoch may be another one, too.
    pub went_back: bool,
    /// Whether something stands in the head's place that can't be one, and has to go first.
    pub is_in_the_way: bool,
}

/// What the last head is: the cache's, or the store's where that is newer and ours.
pub(super) fn base(
    store: &dyn FleetStore,
    folder: &CacheFolder,
    fleet: &Fleet,
    name: &FleetName,
    identity: &HostIdentity,
    (memory, take_over): (&FleetMemory, bool),
    alarms: &mut Vec<String>,
) -> Result<Base, Failure> {
    // What can't be opened is made anew.
    let kept = folder.open(fleet, identity, HostPart::Publisher).ok().flatten();
    let found = get_one(store, StoreKey::Head);
    let last = kept.as_ref().map_or((0, 0), |kept| (kept.signed.head.sequence, kept.signed.head.epoch));
    let signed = kept.as_ref().map_or(0, |kept| kept.signed.head.signed);
    let base = |opened: Option<Opened>, revision: Option<Revision>| Base {
        opened,
        revision,
        last,
        signed,
        is_doubtful: true,
        went_back: false,
        is_in_the_way: false,
    };
    let found = match found {
        Ok(found) => found,
        Err(e) if e.of_value().is_some() => {
            alarms.push(format!("{e}; a new one took its place"));
            return Ok(Base { is_in_the_way: true, ..base(kept, None) });
        }
        Err(e) => return Err(in_store(&e)),
    };
    let Some(found) = found else { return Ok(base(kept, None)) };
    let revision = Some(found.revision);
    let signed = match SignedHead::read(&found.bytes) {
        Ok(signed) => signed,
        Err(e) => {
            alarms.push(format!("the store's head was no head of ours ({e}); a new one took its place"));
            return Ok(base(kept, revision));
        }
    };
    let after = |opened: Option<Opened>, signed: &Head| Base {
        last: (last.0.max(signed.sequence), last.1.max(signed.epoch)),
        signed: signed.signed,
        ..base(opened, revision)
    };
    if signed.head.fleet != *name || signed.publisher != identity.public().signing {
        if !take_over {
            return Err(not_ours(&signed, name, identity));
        }
        return Ok(after(None, &signed.head));
    }
    if let Some(kept) = kept {
        if kept.signed.hash == signed.hash {
            return Ok(Base { is_doubtful: false, ..base(Some(kept), revision) });
        }
        if kept.signed.head.sequence > signed.head.sequence {
            alarms.push(format!(
                "the store's head had gone back from number {} to {}: it was restored, or somebody changes it",
                kept.signed.head.sequence, signed.head.sequence
            ));
            return Ok(base(Some(kept), revision));
        }
        let is_own = memory.intended.as_ref() == Some(&hex(&signed.hash));
        if !is_own && !take_over {
            return Err(same_identity(&signed, &kept.signed));
        }
    }
    // It is ours and newer: a run that was interrupted, or a cache that was lost.
    let extent = Extent { before: None, objects: false, every_object: false };
    let fetched = fetch(store, folder, &signed.head, (identity, &NodeName::publisher()), extent);
    let nodes = fetch_nodes(store, folder, &signed.head, None);
    let head = signed.head.clone();
    let opened = fetched.ok().zip(nodes.ok()).map(|(fetched, nodes)| Opened {
        signed,
        key: fetched.key,
        nodes,
        entries: fetched.entries,
    });
    Ok(after(opened, &head))
}

/// What the nodes have may be later than everything that the store and this host have: then both went back, and no node
/// would take a head before that number is passed.
pub(super) fn pass_nodes(
    base: &mut Base,
    store: &dyn FleetStore,
    name: &FleetName,
    members: &NodeList,
    alarms: &mut Vec<String>,
) -> Result<(), Failure> {
    let nodes: Vec<&NodeName> = members.iter().map(|(node, _)| node).collect();
    let found = reports(store, &nodes).map_err(|e| in_store(&e))?;
    let last = base.last.0;
    for ((node, key), found) in members.iter().zip(found) {
        let Ok(Some(bytes)) = found else { continue };
        let Ok(report) = NodeReport::read(&bytes, &key.signing, name, node) else { continue };
        // A later one may count there: it is signed later.
        base.is_doubtful |=
            report.exceptions.iter().any(|it| it.problem == FleetTrouble::FleetRollback.name());
        // Another head of the same number was published before all was lost, or somebody else publishes with these keys.
        let is_of_last =
            |opened: &Opened| opened.signed.head.sequence == last && opened.signed.hash != report.head;
        if report.sequence == last && base.opened.as_ref().is_some_and(is_of_last) {
            alarms.push(format!(
                "{node} has another head of number {last} than this host: the store and this host's cache went back, or \
                 somebody else publishes with this identity"
            ));
            base.is_doubtful = true;
            continue;
        }
        // Whatever a node says, the numbers don't come to an end.
        if report.sequence <= last || report.sequence > MOST_BELIEVED {
            continue;
        }
        alarms.push(format!(
            "{node} has number {} already, and the last that is known here is {last}: the store and this host's cache went back",
            report.sequence
        ));
        base.last.0 = base.last.0.max(report.sequence);
        (base.is_doubtful, base.went_back) = (true, true);
    }
    Ok(())
}

/// The refusal where somebody else published with this host's identity, or this host's cache is an older one.
fn same_identity(signed: &SignedHead, kept: &SignedHead) -> Failure {
    let when = crate::output::json::timestamp(signed.head.signed).unwrap_or_default();
    Failure::new(
        FailureKind::Lock,
        format!(
            "number {} was published with this host's identity at {when}, and this host published number {} last: two hosts \
             publish with one identity, or this host was restored from a backup; if no other host does: \
             haproxy-certs fleet publish --take-over",
            signed.head.sequence, kept.head.sequence
        ),
    )
}

/// The refusal of a second publisher, and of a store that another fleet's head is in.
fn not_ours(signed: &SignedHead, name: &FleetName, identity: &HostIdentity) -> Failure {
    let (head, publisher) = (&signed.head, signed.publisher);
    let when = crate::output::json::timestamp(head.signed).unwrap_or_default();
    let is_own = publisher == identity.public().signing;
    let by = if is_own { "this host's own key".to_owned() } else { publisher.fingerprint() };
    let fact = if head.fleet == *name {
        format!(
            "another publisher, {by}, published number {} of {name} at {when}; if this host is to take its place: \
             haproxy-certs fleet publish --take-over",
            head.sequence
        )
    } else {
        format!(
            "the store holds the head of another fleet, {}: number {}, signed by {by} at {when}; set name and store \
             of [fleet] right, or if this store is to be that of {name}: haproxy-certs fleet publish --take-over",
            head.fleet, head.sequence
        )
    };
    Failure::new(FailureKind::Lock, fact)
}

/// Somebody put a head while this run worked.
pub(super) fn lost(store: &dyn FleetStore, name: &FleetName, identity: &HostIdentity) -> Failure {
    let found = get_one(store, StoreKey::Head).ok().flatten();
    let is_ours = |it: &SignedHead| it.head.fleet == *name && it.publisher == identity.public().signing;
    match found.and_then(|found| SignedHead::read(&found.bytes).ok()) {
        Some(signed) if !is_ours(&signed) => not_ours(&signed, name, identity),
        _ => Failure::new(
            FailureKind::Lock,
            "the store's head changed while this run worked; the next run tries again",
        ),
    }
}
