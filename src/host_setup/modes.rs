//! Owners and modes: who else could read the keys, or change what HAProxy loads.

use std::path::Path;

use nix::unistd::{Gid, Group};
use rustix::fs::stat;

use crate::config::Settings;
use crate::host_setup::finding::Finding;
use crate::sites::guard;
use crate::sys::escape::{escaped, escaped_path, shell_word};
use crate::sys::system::System;

pub(crate) fn of_sites_dir(settings: &Settings, system: &System) -> Vec<Finding> {
    match std::fs::canonicalize(&settings.sites_dir) {
        Ok(path) => match guard::check(&path, settings, system) {
            Ok(()) => by_group(settings, &path),
            Err(failure) => vec![match failure.message.split_once("; run: ") {
                Some((fact, command)) => Finding::wrong("modes", fact, &[command]),
                None => Finding::wrong("modes", failure.message, &[]),
            }],
        },
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => vec![Finding::wrong(
            "modes",
            format!("there is no {}", escaped_path(&settings.sites_dir)),
            &["haproxy-certs init"],
        )],
        Err(_) => {
            let fact = format!("cannot look at {}", escaped_path(&settings.sites_dir));
            vec![Finding::unknown("modes", fact)]
        }
    }
}

pub(crate) fn of_certbot(settings: &Settings) -> Vec<Finding> {
    let mut findings = Vec::new();
    let archive = settings.live_dir.parent().unwrap_or(Path::new("/")).join("archive");
    for folder in [&settings.live_dir, &archive] {
        let Ok(stat) = stat(folder) else { continue };
        let shown = escaped_path(folder);
        let word = shell_word(folder.as_os_str());
        if stat.st_mode & 0o022 != 0 {
            findings.push(Finding::wrong(
                "modes",
                format!("others than the owner may write to {shown}"),
                &[&format!("chmod go-w {word}")],
            ));
        }
    }
    findings
}

/// The groups that can change what HAProxy loads; nobody else can.
fn by_group(settings: &Settings, path: &Path) -> Vec<Finding> {
    let finding = |folder: &Path| {
        let gid = stat(folder).map_or(0, |stat| stat.st_gid);
        let group = Group::from_gid(Gid::from_raw(gid)).ok().flatten();
        let group = group.map_or_else(|| gid.to_string(), |group| escaped(&group.name).to_string());
        Finding::wrong(
            "modes",
            format!("group {group} can change {}", escaped_path(folder)),
            &[&format!("chmod g-w {}", shell_word(folder.as_os_str()))],
        )
    };
    let findings: Vec<Finding> = guard::group_writable(path).into_iter().map(finding).collect();
    if findings.is_empty() {
        let fact = format!("nobody else can change {}", escaped_path(&settings.sites_dir));
        return vec![Finding::fine("modes", fact)];
    }
    findings
}
