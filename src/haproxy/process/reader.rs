//! Whether the user that a HAProxy runs as can read what a run writes. One that starts as root reads everything before it
//! gives that up; one that its unit starts as another user (`User=`) doesn't, and a file that it can't read keeps it from
//! starting.

use std::path::Path;

use nix::unistd::{Uid, User as Account};

use crate::config::{Haproxy, Owner, Settings};
use crate::haproxy::process::started::Started;
use crate::haproxy::process::user::User;
use crate::serving::gather::is_in;
use crate::serving::loads::{Loaded, Serving};
use crate::sys::escape::{escaped, escaped_path};
use crate::sys::procfs::Proc;
use crate::sys::system::System;

/// `CAP_DAC_OVERRIDE` and `CAP_DAC_READ_SEARCH`, as bits of `CapEff` (capabilities(7)).
const READS_ALL: u64 = 1 << 1 | 1 << 2;

/// A HAProxy that surely can't read a file of the owner and mode that the settings ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shut {
    /// Its name in the settings.
    pub haproxy: String,
    /// What is wrong.
    pub fact: String,
    /// What mends it.
    pub advice: String,
    user: User,
}

impl Shut {
    /// Whether it can read a file of this owner and these permission bits.
    #[must_use]
    pub fn can_read(&self, owner: Owner, mode: u32) -> bool {
        self.user.can_read(owner, mode)
    }
}

impl User {
    /// Whether a process of this user without more rights can read a file of this owner and these permission bits.
    pub(crate) fn can_read(&self, owner: Owner, mode: u32) -> bool {
        let bit = match owner {
            Owner { uid, .. } if uid == self.uid => 0o400,
            Owner { gid, .. } if self.is_in(gid) => 0o040,
            Owner { .. } => 0o004,
        };
        mode & bit != 0
    }
}

/// The HAProxys that load what a run writes, and surely can't read it when they start again.
#[must_use]
pub fn shut(settings: &Settings, system: &System, loaded: &Loaded) -> Vec<Shut> {
    let haproxys = settings.haproxys.iter().zip(&loaded.servings);
    let loading = haproxys.filter(|(_, serving)| loads_ours(settings, loaded, serving));
    loading
        .filter_map(|(haproxy, _)| {
            let user = master(system, haproxy)?;
            (!user.can_read(settings.owner, settings.mode)).then(|| shut_out(settings, haproxy, user))
        })
        .collect()
}

fn loads_ours(settings: &Settings, loaded: &Loaded, serving: &Serving) -> bool {
    loaded.sites.is_some_and(|sites| serving.loads_directory(sites))
        || serving.stores.values().any(|store| {
            is_in(&settings.sites_dir, loaded.sites, store)
                || loaded.host.is_some() && store.identity == loaded.host
        })
}

/// The user of a HAProxy's master, which opens the files, where that can't read everything. A process without a master may
/// have been started as root.
fn master(system: &System, haproxy: &Haproxy) -> Option<User> {
    let proc = Proc::new(system);
    let started = Started::find(system, haproxy).ok().filter(|started| started.is_surely_this)?;
    if proc.workers(started.pid).is_empty() {
        return None;
    }
    let status = proc.status(started.pid).ok()?;
    (rights(&status)? & READS_ALL == 0).then(|| User::parse(&status)).flatten()
}

/// The effective capabilities in a process's status.
fn rights(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn shut_out(settings: &Settings, haproxy: &Haproxy, user: User) -> Shut {
    let account = |uid: u32| Account::from_uid(Uid::from_raw(uid)).ok().flatten().map(|account| account.name);
    let named = |uid: u32| account(uid).unwrap_or_else(|| uid.to_string());
    let (name, owner) = (escaped(&haproxy.name), settings.owner.uid);
    let (uid, its) = (user.uid, escaped(&named(user.uid)).to_string());
    let fact = format!(
        "{name} runs as user {its}, and can't read files of owner {} and mode {:04o}: with those it can't reload or start \
         again",
        escaped(&named(owner)),
        settings.mode
    );
    let place = settings
        .file
        .as_deref()
        .map_or_else(|| "the settings".to_owned(), |file: &Path| escaped_path(file).to_string());
    let advice = if uid == owner {
        format!("set mode = \"0400\" in {place}; then run: haproxy-certs assemble")
    } else {
        format!(
            "set owner = \"{its}\" (or a group of {its} and mode = \"0440\") in {place}; then run: haproxy-certs assemble"
        )
    };
    Shut { haproxy: haproxy.name.clone(), fact, advice, user }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_class_that_fits_decides_as_in_the_kernel() {
        let user = User::parse("Uid:\t9\t9\t9\t9\nGid:\t8\t8\t8\t8\nGroups:\t7 6\n").unwrap();
        for (uid, gid, mode, can) in [
            (0, 0, 0o400, false),
            (0, 0, 0o444, true),
            (9, 0, 0o400, true),
            (9, 8, 0o044, false),
            (0, 8, 0o440, true),
            (0, 6, 0o640, true),
            (0, 6, 0o604, false),
            (0, 5, 0o440, false),
        ] {
            assert_eq!(user.can_read(Owner { uid, gid }, mode), can, "{uid} {gid} {mode:o}");
        }
        assert_eq!(
            rights("CapPrm:\t00\nCapEff:\t000001ffffffffff\n").map(|all| all & READS_ALL),
            Some(READS_ALL)
        );
        assert_eq!(rights("CapEff:\t0000000000000400\n").map(|all| all & READS_ALL), Some(0));
        assert_eq!(rights("Uid:\t0"), None);
    }
}
