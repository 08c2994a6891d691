//! The host certificate's place before there is one: `init` puts a placeholder there, and records it as ours.

use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::fs::{RenameFlags, fsync, renameat, renameat_with};
use rustix::io::Errno;

use super::dir::HOST_STAGE;
use super::durable::create;
use super::state::Record;
use crate::certified_key::CombinedPem;
use crate::config::Settings;
use crate::sites::dir::SitesDir;
use crate::sites::making::host_place;
use crate::sys::failure::Failure;
use crate::sys::shared_folder::make_shared;
use crate::sys::system::System;

impl SitesDir {
    /// Puts `pem` in the host certificate's place where there is none; whether it did.
    ///
    /// # Errors
    /// The place can't be written to, or isn't on the sites directory's file system.
    pub fn put_placeholder(
        &mut self,
        settings: &Settings,
        system: &System,
        pem: &CombinedPem,
    ) -> Result<bool, Failure> {
        let path = &settings.host_file;
        if let Some(folder) = path.parent() {
            make_shared(folder).map_err(|e| Failure::io("create", folder, &e))?;
        }
        let host = host_place(settings, system, &self.place)?;
        let Some(name) = path.file_name() else {
            return Err(Failure::config("host_file is not the name of a file"));
        };
        let fail = |e: Errno| Failure::io("install", path, &e.into());
        let staged =
            create(self.own.dir.as_fd(), HOST_STAGE, Some(settings.owner), settings.mode, pem.as_bytes())
                .map_err(fail)?;
        fsync(&staged).map_err(fail)?;
        // The record comes first: a crash in between leaves a record without a file, never a file that isn't ours.
        let record = Record {
            lineage: String::new(),
            live_dir: Arc::from(&*settings.live_dir.to_string_lossy()),
            sha256: pem.sha256(),
            rejected: None,
            prune_refused: None,
            chain: None,
        };
        let key = path.to_string_lossy().into_owned();
        let before = self.state.files.insert(key.clone(), record);
        self.state.save(&self.own.dir, &self.own.path)?;
        let placed = match renameat_with(&self.own.dir, HOST_STAGE, &host.dir, name, RenameFlags::NOREPLACE) {
            // A file system that can't say "only where there is none": the caller has looked.
            Err(Errno::INVAL | Errno::NOSYS) => {
                renameat(&self.own.dir, HOST_STAGE, &host.dir, name).map(|()| true)
            }
            Err(Errno::EXIST) => Ok(false),
            result => result.map(|()| true),
        };
        if !matches!(placed, Ok(true)) {
            match before {
                Some(before) => self.state.files.insert(key, before),
                None => self.state.files.remove(&key),
            };
            self.state.save(&self.own.dir, &self.own.path)?;
            self.clear_leftovers()?;
        }
        fsync(&host.dir).map_err(fail)?;
        placed.map_err(fail)
    }
}
