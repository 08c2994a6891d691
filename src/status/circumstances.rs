//! What a site is judged by besides its views.

use std::collections::BTreeMap;
use std::path::Path;

use crate::status::observation::SiteViews;
use crate::status::running::Running;

/// What a site is judged by besides its views.
#[derive(Debug, Clone)]
pub struct Circumstances<'a> {
    /// The time, in seconds since 1970.
    pub now: i64,
    /// Whether it is known which files are ours.
    pub sees_state: bool,
    /// The HAProxys, in the order of the views.
    pub running: &'a [Running],
    /// For each HAProxy the files that it is still to be notified of, and since when.
    pub owed: &'a [BTreeMap<String, i64>],
    /// The directory of certbot's `archive`, where there is one.
    pub archive: &'a Path,
    /// The sites directory.
    pub sites_dir: &'a Path,
}

impl Circumstances<'_> {
    /// What brings this HAProxy into step with the disk.
    pub(crate) fn catch_up(&self, views: &SiteViews, name: &str) -> String {
        let file = views.file.as_ref().and_then(|file| file.to_str()).unwrap_or_default();
        let mut all = self.running.iter().zip(self.owed);
        let found = all.find(|(running, _)| running.name == name);
        found.map_or_else(String::new, |(running, owed)| running.catch_up(owed.contains_key(file)))
    }
}
