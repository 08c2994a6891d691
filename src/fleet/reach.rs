//! Opening the store that the settings name.

use crate::config::fleet::{Fleet, StorePlace};
use crate::fleet::cache::fleet_name;
use crate::fleet::store::FleetStore;
use crate::fleet::store::directory::Directory;
use crate::fleet::store::etcd::{Etcd, EtcdSettings};
use crate::sys::failure::{Failure, FailureKind};

/// Opens it.
///
/// # Errors
/// The settings can't be used; whether the store answers is seen when it is asked.
pub fn reach(fleet: &Fleet) -> Result<Box<dyn FleetStore>, Failure> {
    let name = fleet_name(fleet)?;
    let fail = |e: &dyn std::fmt::Display| {
        Failure::new(FailureKind::Io, format!("the fleet's store {}: {e}", fleet.store))
    };
    match &fleet.store {
        StorePlace::Directory(path) => {
            let store = Directory::open(path).map_err(|e| fail(&e))?;
            Ok(Box::new(store))
        }
        StorePlace::Etcd(cluster) => {
            let (certificate, key) = cluster.client.clone().unzip();
            let (user, password_file) = cluster.user.clone().unzip();
            let settings = EtcdSettings {
                ca: cluster.ca.clone(),
                certificate,
                key,
                user,
                password_file,
                ..EtcdSettings::new(name, cluster.endpoints.clone())
            };
            let store = Etcd::open(&settings).map_err(|e| fail(&e))?;
            Ok(Box::new(store))
        }
    }
}
