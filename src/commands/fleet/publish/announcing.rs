//! What a publish that fails has to say all the same: the keys that it made, and whose heads the nodes are to take.

use std::path::PathBuf;

use crate::config::Settings;
use crate::fleet::identity::HostIdentity;
use crate::sys::host_name::host_name;

/// Whether this host had its keys before a publish.
#[derive(Debug)]
pub struct Announcing {
    file: Option<PathBuf>,
    had_keys: bool,
}

/// The keys of a publisher whose publish failed.
#[derive(Debug, Clone)]
pub struct Announced {
    /// The identity file, where it was made now.
    pub made: Option<PathBuf>,
    /// The line for the nodes' `publishers`.
    pub line: String,
}

impl Announcing {
    /// Before it publishes.
    #[must_use]
    pub fn begin(settings: &Settings) -> Self {
        let file = settings.published().map(|fleet| fleet.identity.clone());
        let had_keys = file.as_ref().is_some_and(|file| file.symlink_metadata().is_ok());
        Self { file, had_keys }
    }

    /// After it failed: where it came as far as to have keys.
    #[must_use]
    pub fn end(self) -> Option<Announced> {
        let file = self.file?;
        let identity = HostIdentity::load(&file).ok()??;
        let line = identity.public().signing.line(&host_name());
        Some(Announced { made: (!self.had_keys).then_some(file), line })
    }
}
