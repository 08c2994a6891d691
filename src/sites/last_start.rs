//! How a HAProxy was last seen to be started: one that is down will start with it again.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What matters of it while it is down.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastStart {
    /// OpenSSL's configuration, the variable `OPENSSL_CONF`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub openssl_conf: Option<String>,
    /// Its own configuration files, by absolute paths.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub configuration: Vec<PathBuf>,
}
