//! How a HAProxy that doesn't run will be started.

use std::path::PathBuf;

use crate::haproxy::process::started::usual_configuration;

/// How a HAProxy will be started, as far as that is known: more of its environment isn't.
#[derive(Debug, Clone, Default)]
pub struct Start {
    /// Its configuration files.
    pub files: Vec<PathBuf>,
    /// The OpenSSL configuration that it was last seen with.
    pub openssl_conf: Option<String>,
}

impl Start {
    /// With these files, else with what distributions start it with, where that is there.
    #[must_use]
    pub fn with(files: Option<&Vec<PathBuf>>, openssl_conf: Option<String>) -> Self {
        let usual = || Some(usual_configuration()).filter(|file| file.exists()).into_iter().collect();
        Self { files: files.cloned().unwrap_or_else(usual), openssl_conf }
    }
}
