//! Asking a HAProxy that doesn't run whether it would start from its configuration.

use std::path::{Path, PathBuf};
use std::time::Instant;

use super::checker::OTHER_PATHS;
use super::config_check::ConfigCheck;
use super::surroundings::remembered;
use crate::config::Haproxy;
use crate::sys::escape::escaped;
use crate::sys::program::Program;
use crate::sys::system::System;

/// Asks it, with these configuration files and in the OpenSSL configuration that it was last seen with. More of its
/// environment isn't known.
#[must_use]
pub fn would_start(
    system: &System,
    haproxy: &Haproxy,
    files: &[PathBuf],
    openssl_conf: Option<&str>,
) -> ConfigCheck {
    let Some(binary) = &haproxy.binary else {
        return ConfigCheck::Unchecked("binary is empty, so HAProxy is never run".to_owned());
    };
    if haproxy.has_paths_of_its_own() {
        return ConfigCheck::Unchecked(OTHER_PATHS.to_owned());
    }
    let Some(path) = system.program(binary) else {
        return ConfigCheck::Unchecked(format!("there is no program {} here", escaped(binary)));
    };
    let named = files.iter().flat_map(|file| [Path::new("-f"), file.as_path()]);
    let mut program = Program::new(path).arg("-c").args(named);
    if let Some(openssl_conf) = openssl_conf {
        program = program.environment(remembered(openssl_conf).environment);
    }
    ConfigCheck::by(&program, Instant::now() + haproxy.timeout)
}
