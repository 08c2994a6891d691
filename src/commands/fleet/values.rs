//! Values as the store has them, each by itself: one that can't be read takes nothing from the others.

use crate::fleet::name::NodeName;
use crate::fleet::store::{FleetStore, StoreError, StoreKey};

/// What stands for a value; `None`: nothing. An error where nobody could read it.
pub type StoredValue = Result<Option<Vec<u8>>, StoreError>;

/// What stands for each of these values, in their order.
///
/// # Errors
/// The store can't be asked.
pub fn values(store: &dyn FleetStore, keys: &[StoreKey]) -> Result<Vec<StoredValue>, StoreError> {
    match store.get(keys) {
        Ok(found) => return Ok(found.into_iter().map(|it| Ok(it.map(|stored| stored.bytes))).collect()),
        Err(e) if !is_of_one(&e) => return Err(e),
        Err(_) => {}
    }
    let one_by_one = keys.iter().map(|key| match store.get(std::slice::from_ref(key)) {
        Ok(found) => Ok(Ok(found.into_iter().next().flatten().map(|stored| stored.bytes))),
        Err(e) if is_of_one(&e) => Ok(Err(e)),
        Err(e) => Err(e),
    });
    one_by_one.collect()
}

/// What stands for each node's report, in their order.
///
/// # Errors
/// The store can't be asked.
pub fn reports(store: &dyn FleetStore, nodes: &[&NodeName]) -> Result<Vec<StoredValue>, StoreError> {
    let keys: Vec<StoreKey> = nodes.iter().map(|node| StoreKey::Report((*node).clone())).collect();
    values(store, &keys)
}

/// Whether it may be about one value and not about the store.
fn is_of_one(error: &StoreError) -> bool {
    error.of_value().is_some() || matches!(error, StoreError::Malformed(_) | StoreError::Io { .. })
}
