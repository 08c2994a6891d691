//! HAProxys that run as another user than root, and what lets them into a directory.

use std::ffi::OsStr;
use std::path::Path;

use nix::unistd::{Gid, Group};
use rustix::fs::{getxattr, stat};

use crate::config::{Haproxy, Owner, Settings};
use crate::haproxy::process::started::Started;
use crate::haproxy::process::user::User;
use crate::haproxy::process::way_in::{Folder, Opening, Right};
use crate::sys::escape::shell_word;
use crate::sys::procfs::Proc;
use crate::sys::system::System;

/// `CAP_DAC_OVERRIDE` and `CAP_DAC_READ_SEARCH`, as bits of `CapEff` (capabilities(7)).
const READS_ALL: u64 = 1 << 1 | 1 << 2;

/// Where the kernel keeps an access list, which decides beside owner and mode (acl(5)).
const ACCESS_LIST: &str = "system.posix_acl_access";

/// How a HAProxy was started, and the user of its master, which opens the files, where that can't read everything. A process
/// without a master may have been started as root.
pub(crate) fn limited(system: &System, haproxy: &Haproxy) -> Option<(Started, User)> {
    let proc = Proc::new(system);
    let started = Started::find(system, haproxy).ok().filter(|started| started.is_surely_this)?;
    if proc.workers(started.pid).is_empty() {
        return None;
    }
    let status = proc.status(started.pid).ok()?;
    let user = (rights(&status)? & READS_ALL == 0).then(|| User::parse(&status)).flatten()?;
    Some((started, user))
}

/// The effective capabilities in a process's status.
fn rights(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// Who may enter a directory; `None`: it can't be said by its owner and mode alone.
pub(crate) fn look(path: &Path) -> Option<Folder> {
    let has_list = getxattr(path, ACCESS_LIST, &mut [0_u8; 0]).is_ok();
    let stat = stat(path).ok().filter(|_| !has_list)?;
    Some(Folder { owner: Owner { uid: stat.st_uid, gid: stat.st_gid }, mode: stat.st_mode })
}

/// The commands that let this user into a directory that doesn't admit it, and what is then.
pub(crate) fn open_to(
    path: &Path,
    folder: Folder,
    user: &User,
    right: Right,
    settings: &Settings,
) -> (Folder, Vec<String>) {
    let (then, steps) = folder.opened(user, right, &[settings.owner.gid, user.gid]);
    let word = shell_word(path.as_os_str());
    let command = |step: Opening| match step {
        Opening::Group(gid) => {
            let group = Group::from_gid(Gid::from_raw(gid)).ok().flatten();
            let name = group.map_or_else(|| gid.to_string(), |group| group.name);
            format!("chgrp {} {word}", shell_word(OsStr::new(&name)))
        }
        Opening::Mode(mode) => format!("chmod {mode} {word}"),
    };
    (then, steps.into_iter().map(command).collect())
}

/// The commands that keep a directory open to who reads what this program writes, once it is given to root. Those are the users
/// of HAProxys that could enter it before, and the files' group.
pub(crate) fn kept_open(path: &Path, is_sites: bool, settings: &Settings, system: &System) -> Vec<String> {
    let right = if is_sites { Right::List } else { Right::Search };
    let Some(now) = look(path) else { return Vec::new() };
    let found = settings.haproxys.iter().filter_map(|haproxy| limited(system, haproxy));
    // The way to a directory in a container isn't ours.
    let enters =
        |(started, user): &(Started, User)| (is_sites || started.root.is_none()) && now.admits(user, right);
    let running = found.filter(enters).map(|(_, user)| user);
    let group = settings.reading_group().map(User::of_group);
    let mut then = Folder { owner: Owner { uid: 0, ..now.owner }, ..now };
    let mut all = Vec::new();
    for user in running.chain(group) {
        if !then.admits(&user, right) {
            let (opened, commands) = open_to(path, then, &user, right, settings);
            then = opened;
            all.extend(commands);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_the_effective_ones() {
        assert_eq!(
            rights("CapPrm:\t00\nCapEff:\t000001ffffffffff\n").map(|all| all & READS_ALL),
            Some(READS_ALL)
        );
        assert_eq!(rights("CapEff:\t0000000000000400\n").map(|all| all & READS_ALL), Some(0));
        assert_eq!(rights("Uid:\t0"), None);
    }
}
