//! What is deployed and no client is presented. Pure.

use std::ffi::OsStr;

use crate::certified_key::Leaf;
use crate::config::Settings;
use crate::plan::action::Action;
use crate::plan::names::is_loaded_name;
use crate::plan::row::{Role, Row};
use crate::plan::warning::Warning;
use crate::serving::loads::Loaded;
use crate::serving::one_by_one::{LineLookup, Unreached};

/// The lines that may lead to these settings' files.
#[must_use]
pub fn lines<'a>(settings: &Settings, loaded: &'a Loaded) -> LineLookup<'a> {
    let sites = settings.haproxys.first().map_or("", |haproxy| haproxy.sites_dir.as_str());
    let hosts: Vec<&str> = settings.haproxys.iter().map(|haproxy| haproxy.host_file.as_str()).collect();
    LineLookup::of(loaded, sites, &hosts)
}

/// Why no client is presented the leaf that the file of this row holds; `None`: somebody may be, or the file isn't ours.
#[must_use]
pub fn unreached(settings: &Settings, lines: &LineLookup<'_>, row: &Row, leaf: &Leaf) -> Option<Unreached> {
    let file = row.file.as_ref()?;
    let is_foreign = matches!(row.action, Action::Foreign | Action::Conflict);
    if row.role == Role::Host {
        return lines.host_unreached().filter(|_| !is_foreign && settings.host_lineage.is_some());
    }
    if is_foreign || !is_loaded_name(file) {
        return None;
    }
    if let Some(first) = lines.bundle_before(file) {
        return Some(Unreached::Bundle(settings.sites_dir.join(first)));
    }
    let is_host =
        row.lineage.is_some() && row.lineage.as_deref() == settings.host_lineage.as_deref().map(OsStr::new);
    // A common name is nobody's name beside addresses.
    let has_names = leaf.dns_names().next().is_some() || leaf.names.is_empty() || is_host;
    // One that another file stands before is said to be.
    let is_left_out = row.serves_nobody() && !row.warnings.has(Warning::Shadowed);
    lines.unreached(file, has_names, is_left_out)
}
