//! Opening the store that the settings name.

use std::time::Duration;

use crate::config::fleet::{Fleet, StorePlace};
use crate::fleet::cache::fleet_name;
use crate::fleet::store::FleetStore;
use crate::fleet::store::directory::Directory;
use crate::fleet::store::etcd::{Etcd, EtcdSettings};
use crate::sys::failure::{Failure, FailureKind};

/// How long a store that doesn't answer is asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// As long as a cluster needs for another leader.
    Usual,
    /// Who only looks comes again: monitoring waits ten seconds for an answer.
    Short,
}

/// What a short patience has, for one member and for all.
const SHORT: Duration = Duration::from_secs(4);

/// Opens it.
///
/// # Errors
/// The settings can't be used; whether the store answers is seen when it is asked.
pub fn reach(fleet: &Fleet, patience: Patience) -> Result<Box<dyn FleetStore>, Failure> {
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
            let mut settings = EtcdSettings {
                ca: cluster.ca.clone(),
                certificate,
                key,
                user,
                password_file,
                ..EtcdSettings::new(name, cluster.endpoints.clone())
            };
            if patience == Patience::Short {
                settings.time_out = SHORT;
                settings.patience = SHORT;
            }
            let store = Etcd::open(&settings).map_err(|e| fail(&e))?;
            Ok(Box::new(store))
        }
    }
}
