//! The command that makes a HAProxy read its files again, for people to paste.

use std::ffi::OsStr;

use super::unit;
use crate::config::{Haproxy, Method};
use crate::haproxy::process::master::{Master, NotAMaster};
use crate::sys::escape::{escaped, shell_word};
use crate::sys::system::System;

/// The command; `None` where nothing here shows how this HAProxy is reloaded.
///
/// It doesn't depend on anything being owed: a reload reads the disk whatever this program remembers.
#[must_use]
pub fn command(system: &System, haproxy: &Haproxy) -> Option<String> {
    let by_unit = || {
        let is_active = unit::show(system, &haproxy.unit).is_some_and(|unit| unit.active == "active");
        is_active.then(|| format!("systemctl reload {}", shell_word(haproxy.unit.as_ref())))
    };
    let by_pidfile = || {
        let pid = crate::haproxy::process::pidfile::read(&haproxy.pidfile).ok().flatten()?;
        let is_master = Master::open(system, pid).is_ok();
        is_master.then(|| format!("kill -USR2 \"$(cat {})\"", shell_word(haproxy.pidfile.as_os_str())))
    };
    match haproxy.method {
        Method::Command => {
            let words: Vec<String> =
                haproxy.command.iter().map(|word| shell_word(OsStr::new(word))).collect();
            Some(words.join(" ")).filter(|command| !command.is_empty())
        }
        Method::Pidfile => by_pidfile().or_else(by_unit),
        Method::Systemd => by_unit(),
        Method::Auto | Method::Runtime | Method::Master => by_unit().or_else(by_pidfile),
        // Whoever set that reloads it in another way, or not at all.
        Method::None => None,
    }
}

/// What leads out where the way that its table sets can't do what is missing, however often it is tried; `None`: nothing says
/// that it can't.
#[must_use]
pub fn way_out(system: &System, haproxy: &Haproxy) -> Option<String> {
    if has_no_master(system, haproxy) {
        return Some(restart(system, haproxy));
    }
    if !matches!(haproxy.method, Method::Runtime | Method::Master) {
        return None;
    }
    let reload = command(system, haproxy)
        .map_or_else(|| "reload HAProxy the way it is reloaded here".to_owned(), |it| format!("run: {it}"));
    Some(format!("set reload of \"{}\" to \"auto\", or {reload}", escaped(&haproxy.name)))
}

/// Whether its pidfile shows a HAProxy that can't be reloaded.
fn has_no_master(system: &System, haproxy: &Haproxy) -> bool {
    let pid = crate::haproxy::process::pidfile::read(&haproxy.pidfile).ok().flatten();
    pid.is_some_and(|pid| matches!(Master::open(system, pid), Err(NotAMaster::NoMaster(_))))
}

fn restart(system: &System, haproxy: &Haproxy) -> String {
    if unit::show(system, &haproxy.unit).is_some_and(|unit| unit.active == "active") {
        format!("run: systemctl restart {}", shell_word(haproxy.unit.as_ref()))
    } else {
        "restart HAProxy the way it is started here".to_owned()
    }
}
