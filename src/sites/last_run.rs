//! When the last run was and how it ended: a file of its own beside the state, rewritten by every run and never synced.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{fstat, renameat};
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};

use super::durable::{create, remove};
use super::{OWN_DIR, Place, guard, look};
use crate::config::Settings;
use crate::failure::Failure;

const LAST_RUN_FILE: &str = "last-run.json";

/// What is known of the last run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LastRun {
    /// When it ended, in seconds since 1970.
    pub at: i64,
    /// Its exit status.
    pub exit: u8,
    /// How many files it changed.
    pub changes: usize,
    /// What is wrong, each with the time when it was last logged.
    pub complaints: BTreeMap<String, i64>,
}

impl LastRun {
    /// The last run on this sites directory; the default where nothing is known of one.
    #[must_use]
    pub fn load(sites_dir: &Path) -> Self {
        let read = || {
            let own = Place::open(sites_dir).ok()??.subdirectory(OWN_DIR).ok()??;
            serde_json::from_slice(&look::bytes(&own.dir, LAST_RUN_FILE.as_ref()).ok()?).ok()
        };
        read().unwrap_or_default()
    }

    /// Records this run, but not where a stranger may write.
    ///
    /// # Errors
    /// It can't be written.
    pub fn save(&self, settings: &Settings) -> Result<(), Failure> {
        let Some(place) = Place::open(&settings.sites_dir)? else { return Ok(()) };
        guard::check(&place.path, settings.owner)?;
        let Some(own) = place.subdirectory(OWN_DIR)? else { return Ok(()) };
        let ours = fstat(&own.dir).is_ok_and(|stat| [0, geteuid().as_raw()].contains(&stat.st_uid));
        if !ours {
            return Ok(());
        }
        let text = serde_json::to_vec(self).unwrap_or_default();
        // Two runs may end at once: each writes a file of its own.
        let unnamed = format!("{LAST_RUN_FILE}.{}", std::process::id());
        let write = || {
            remove(&own.dir, &*unnamed)?;
            create(own.dir.as_fd(), &unnamed, None, 0o600, &text)?;
            renameat(&own.dir, &*unnamed, &own.dir, LAST_RUN_FILE)
        };
        write().map_err(|e| Failure::io("write", &own.path.join(LAST_RUN_FILE), &e.into()))
    }
}
