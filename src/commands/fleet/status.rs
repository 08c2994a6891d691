//! `fleet status`: reads the head and every node's report, and judges them.

use crate::config::Settings;
use crate::config::fleet::Fleet;
use crate::fleet::accept::{Accepted, KnownHeads, RefusedHead, accept};
use crate::fleet::cache::{FleetCache, fleet_name, identity, look_at_memory, publishers};
use crate::fleet::head::SignedHead;
use crate::fleet::overview::{FleetOverview, node_row, problem, staleness};
use crate::fleet::reach::reach;
use crate::fleet::sshsig::VerifyingKey;
use crate::fleet::store::{FleetStore, StoreError, StoreKey};
use crate::fleet::trouble::FleetTrouble;
use crate::sys::clock::now;
use crate::sys::failure::Failure;

/// Looks at the fleet.
///
/// # Errors
/// The settings know of no fleet, or can't be used.
pub fn status(settings: &Settings) -> Result<FleetOverview, Failure> {
    let fleet = settings.fleet.as_ref().ok_or_else(|| Failure::config("the settings have no [fleet]"))?;
    let name = fleet_name(fleet)?;
    let keys = keys(fleet)?;
    let at = now();
    let mut overview = FleetOverview {
        at,
        fleet: fleet.name.clone(),
        store: fleet.store.to_string(),
        head: None,
        lineages: lineages(settings),
        nodes: Vec::new(),
        problems: Vec::new(),
    };
    let memory = look_at_memory(fleet).ok().flatten().unwrap_or_default();
    let store = match reach(fleet) {
        Ok(store) => store,
        Err(failure) => {
            overview.problems.push(problem(FleetTrouble::FleetUnreachable, failure.message));
            return Ok(overview);
        }
    };
    let value = match get(store.as_ref(), &[StoreKey::Head]) {
        Ok(found) => found.into_iter().next().flatten(),
        Err(e) => {
            overview.problems.push(problem(FleetTrouble::FleetUnreachable, e.to_string()));
            return Ok(overview);
        }
    };
    let Some(value) = value else {
        let fact = format!("the store has no head of the fleet {name}");
        overview.problems.push(problem(FleetTrouble::FleetEmpty, fact));
        return Ok(overview);
    };
    overview.head = match accept(&value, &known(fleet, memory.heads), &name, &keys, at) {
        Ok(Accepted::New(signed) | Accepted::Unchanged(signed)) => Some(signed),
        Err(RefusedHead::Expired { head, .. }) => {
            overview.problems.extend(staleness(&head, at));
            Some(*head)
        }
        Err(refused) => {
            overview.problems.push(problem(FleetTrouble::of(&refused), refused.to_string()));
            // Its nodes are shown all the same, where it is signed by whom it should be.
            SignedHead::read(&value)
                .ok()
                .filter(|signed| keys.contains(&signed.publisher) && signed.head.fleet == name)
        }
    };
    let Some(signed) = &overview.head else { return Ok(overview) };
    let reports: Vec<StoreKey> =
        signed.head.nodes.iter().map(|(node, _)| StoreKey::Report(node.clone())).collect();
    match get(store.as_ref(), &reports) {
        Ok(values) => {
            let rows =
                signed.head.nodes.iter().zip(values).map(|((node, key), value)| {
                    node_row((node, key), value.as_deref(), &name, Some(signed), at)
                });
            overview.nodes = rows.collect();
        }
        Err(e) => overview.problems.push(problem(FleetTrouble::FleetUnreachable, e.to_string())),
    }
    for node in memory.removed.iter().filter(|_| fleet.is_publisher()) {
        let fact = format!("{node} was removed and can still read: run haproxy-certs fleet rotate");
        overview.problems.push(problem(FleetTrouble::FleetNotRotated, fact));
    }
    Ok(overview)
}

/// On the publisher the heads that were seen are its own.
fn known(fleet: &Fleet, heads: KnownHeads) -> KnownHeads {
    if fleet.is_node() { heads } else { KnownHeads::default() }
}

/// Whose heads count here.
fn keys(fleet: &Fleet) -> Result<Vec<VerifyingKey>, Failure> {
    if fleet.is_node() { publishers(fleet) } else { Ok(vec![identity(fleet)?.public().signing]) }
}

fn get(store: &dyn FleetStore, keys: &[StoreKey]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
    Ok(store.get(keys)?.into_iter().map(|found| found.map(|stored| stored.bytes)).collect())
}

fn lineages(settings: &Settings) -> Option<usize> {
    let fleet = settings.followed()?;
    let cache = FleetCache::open(fleet).ok()?;
    cache.head()?;
    Some(cache.discover().lineages.len())
}
