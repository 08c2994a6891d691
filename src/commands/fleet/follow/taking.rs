//! Taking the store's head: whether it counts, whether it is waited for, and bringing what it names.

use std::hash::{BuildHasher as _, RandomState};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::commands::fleet::follow::{Closely, Follower};
use crate::config::fleet::StorePlace;
use crate::fleet::accept::{Accepted, RefusedHead, accept};
use crate::fleet::cache::{CacheFolder, FleetMemory, Opened, own_name};
use crate::fleet::fetch::{Extent, Fetched, Unfetched, fetch, fetch_nodes};
use crate::fleet::head::SignedHead;
use crate::fleet::name::NodeName;
use crate::fleet::node_list::NodeList;
use crate::fleet::reach::{Patience, reach};
use crate::fleet::report::NodeReport;
use crate::fleet::store::{FleetStore, StoreKey, get_one};
use crate::fleet::trouble::FleetTrouble;
use crate::sys::clock::now;

/// What is on its way into a directory is waited for so long.
const ARRIVING: Duration = Duration::from_secs(3);

/// Why a head isn't taken: the trouble, and the fact.
type Untaken = (FleetTrouble, String);

impl Follower<'_> {
    /// Takes the store's head where it counts: `None` where it is the one that is here, whole.
    pub(super) fn take(
        &mut self,
        folder: &CacheFolder,
        memory: &mut FleetMemory,
        kept: Option<&Opened>,
        look: Closely,
        pause: &dyn Fn(Duration) -> bool,
    ) -> Result<Option<Opened>, Untaken> {
        let unreachable = |e: &dyn std::fmt::Display| (FleetTrouble::FleetUnreachable, e.to_string());
        if self.store.is_none() {
            self.store = Some(reach(self.fleet, Patience::Usual).map_err(|e| unreachable(&e))?.into());
        }
        let Some(store) = &self.store else { return Err(unreachable(&"it can't be opened")) };
        let found = get_one(store.as_ref(), StoreKey::Head)
            .map_err(|e| (FleetTrouble::of_store(&e), e.to_string()))?;
        let Some(found) = found else {
            self.revision = None;
            let fact = format!("the store {} has no head of the fleet {}", self.fleet.store, self.name);
            return Err((FleetTrouble::FleetEmpty, fact));
        };
        self.revision = Some(found.revision);
        let at = now();
        let signed = match accept(&found.bytes, &memory.heads, &self.name, &self.publishers, at) {
            Ok(Accepted::New(signed) | Accepted::Unchanged(signed)) => signed,
            // A torn head of a directory isn't an attack.
            Err(RefusedHead::Damaged(e)) if !found.settled => {
                return Err((FleetTrouble::FleetIncomplete, format!("the head isn't whole yet: {e}")));
            }
            Err(refused) => return Err((FleetTrouble::of(&refused), refused.to_string())),
        };
        let nodes = self.bring(&signed, || fetch_nodes(store.as_ref(), folder, &signed.head, kept))?;
        let node = own_name(&nodes, &self.identity).ok_or_else(|| {
            let fact =
                format!("number {} of the fleet {} doesn't name this host", signed.head.sequence, self.name);
            (FleetTrouble::FleetNotANode, fact)
        })?;
        // Who never took one says by this name what keeps it from that.
        memory.node = Some(node.clone());
        let is_here = kept.is_some_and(|kept| kept.signed.hash == signed.hash);
        if is_here && look == Closely::Changes && !memory.unfinished {
            return Ok(None);
        }
        if !is_here {
            // Heads may follow each other faster than the longest wait.
            let since = *memory.waiting.get_or_insert(signed.head.signed);
            self.wait_for_canaries(store.as_ref(), &signed, &nodes, &node, (since, at))?;
        }
        memory.waiting = None;
        let every_object = look == Closely::All || memory.unfinished;
        let extent = Extent { before: kept, objects: true, every_object };
        let bring = || fetch(store.as_ref(), folder, &signed.head, (&self.identity, &node), extent);
        let Fetched { key, entries, fresh } = self.bring(&signed, bring)?;
        if is_here {
            return Ok(None);
        }
        if kept.is_some() && !self.fleet.spread.is_zero() && !pause(random_part(self.fleet.spread)) {
            return Err((
                FleetTrouble::FleetWaiting,
                "this run ended before it took the new head".to_owned(),
            ));
        }
        if let Some(kept) = kept {
            folder.keep_leaves(&kept.entries, &entries);
        }
        folder.switch_over(&found.bytes, &fresh).map_err(|e| (FleetTrouble::FleetNotFollowed, e.message))?;
        let opened = Opened { signed, key, nodes, entries };
        if let Some(kept) = kept {
            folder.drop_replaced(kept, &opened.signed.head, &opened.entries);
        }
        Ok(Some(opened))
    }

    /// Brings something that a head names; what may still be on its way is waited for.
    fn bring<T>(
        &self,
        signed: &SignedHead,
        mut bring: impl FnMut() -> Result<T, Unfetched>,
    ) -> Result<T, Untaken> {
        let until = Instant::now() + ARRIVING;
        let is_carried = matches!(self.fleet.store, StorePlace::Directory(_));
        loop {
            let unfetched = match bring() {
                Ok(fetched) => return Ok(fetched),
                Err(unfetched) => unfetched,
            };
            if is_carried && unfetched.may_come() && Instant::now() < until {
                sleep(Duration::from_millis(500));
                continue;
            }
            let trouble = match &unfetched {
                Unfetched::Missing(_) | Unfetched::NotYet(_) => FleetTrouble::FleetIncomplete,
                Unfetched::Unkept(_) => FleetTrouble::FleetNotFollowed,
                Unfetched::Damaged(_) => FleetTrouble::FleetDamaged,
                Unfetched::Store(e) => FleetTrouble::of_store(e),
            };
            return Err((trouble, format!("number {}: {unfetched}", signed.head.sequence)));
        }
    }

    /// Whether the nodes that this one waits for have confirmed the head, or it waited for long enough. `since`: when the first
    /// one was signed that it waits with, and `at`: now.
    fn wait_for_canaries(
        &self,
        store: &dyn FleetStore,
        signed: &SignedHead,
        nodes: &NodeList,
        own: &NodeName,
        (since, at): (i64, i64),
    ) -> Result<(), Untaken> {
        let others: Vec<&String> = self.fleet.wait_for.iter().filter(|name| *name != own.as_ref()).collect();
        let limit = i64::try_from(self.fleet.wait_at_most.as_secs()).unwrap_or(i64::MAX);
        if others.is_empty() || at >= since.saturating_add(limit) {
            return Ok(());
        }
        let sequence = signed.head.sequence;
        for name in others {
            let waiting = |why: String| {
                (FleetTrouble::FleetWaiting, format!("number {sequence} waits for {name}: {why}"))
            };
            let Some((node, key)) = nodes.get(name) else {
                return Err(waiting("the fleet has no node of that name".to_owned()));
            };
            let found = get_one(store, StoreKey::Report(node.clone()))
                .map_err(|e| (FleetTrouble::FleetUnreachable, e.to_string()))?;
            let Some(found) = found else {
                return Err(waiting("it has never reported".to_owned()));
            };
            let report = NodeReport::read(&found.bytes, &key.signing, &self.name, node)
                .map_err(|e| waiting(format!("its report can't be used: {e}")))?;
            if report.head != signed.hash {
                return Err(waiting("it hasn't taken it yet".to_owned()));
            }
            if !report.confirmed {
                let why = report
                    .exceptions
                    .first()
                    .map_or_else(String::new, |first| format!(": {}", first.problem));
                return Err(waiting(format!("it could not confirm it{why}")));
            }
        }
        Ok(())
    }
}

/// A random part of a time.
fn random_part(of: Duration) -> Duration {
    let most = u64::try_from(of.as_millis()).unwrap_or(u64::MAX).max(1);
    Duration::from_millis(RandomState::new().hash_one(0_u8) % most)
}
