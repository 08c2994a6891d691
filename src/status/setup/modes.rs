//! Owners and modes: who else could read the keys, or change what HAProxy loads.

use std::path::Path;

use rustix::fs::stat;

use crate::config::Settings;
use crate::escape::escaped_path;
use crate::sites::guard;

use super::Finding;

pub(super) fn findings(settings: &Settings) -> Vec<Finding> {
    let mut findings = Vec::new();
    match std::fs::canonicalize(&settings.sites_dir) {
        Ok(path) => match guard::check(&path, settings.owner) {
            Ok(()) => {
                let fact = format!("nobody else can change {}", escaped_path(&settings.sites_dir));
                findings.push(Finding::fine("modes", fact));
            }
            Err(failure) => findings.push(Finding::wrong("modes", failure.message, &[])),
        },
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => findings.push(Finding::wrong(
            "modes",
            format!("there is no {}", escaped_path(&settings.sites_dir)),
            &["haproxy-certs assemble"],
        )),
        Err(_) => {
            let fact = format!("cannot look at {}", escaped_path(&settings.sites_dir));
            findings.push(Finding::unknown("modes", fact));
        }
    }
    let archive = settings.live_dir.parent().unwrap_or(Path::new("/")).join("archive");
    for folder in [&settings.live_dir, &archive] {
        let Ok(stat) = stat(folder) else { continue };
        let shown = escaped_path(folder);
        if stat.st_mode & 0o022 != 0 {
            findings.push(Finding::wrong(
                "modes",
                format!("others than the owner may write to {shown}"),
                &[&format!("chmod go-w {shown}")],
            ));
        }
    }
    findings
}
