//! Asking a HAProxy that doesn't run whether it would start from its configuration.

use std::path::{Path, PathBuf};
use std::time::Instant;

use super::checker::OTHER_PATHS;
use super::config_check::ConfigCheck;
use super::surroundings::remembered;
use crate::config::Haproxy;
use crate::haproxy::alerts;
use crate::haproxy::start::Start;
use crate::serving::set_up::unknown_lines;
use crate::sys::program::Program;
use crate::sys::system::System;

/// Why it can't be told whether one that doesn't run would start, although a check refuses these files with these words: in
/// its own environment they may say something else.
#[must_use]
pub fn doubt(files: &[PathBuf], log: &str) -> Option<String> {
    alerts::doubt(log, &unknown_lines(files))
}

/// Asks it.
#[must_use]
pub fn would_start(system: &System, haproxy: &Haproxy, start: &Start, deadline: Instant) -> ConfigCheck {
    if start.files.is_empty() {
        return ConfigCheck::Unchecked("nobody knows what it is started with; set config".to_owned());
    }
    let Some(binary) = &haproxy.binary else {
        return ConfigCheck::Unchecked("binary is empty, so HAProxy is never run".to_owned());
    };
    if haproxy.has_paths_of_its_own() {
        return ConfigCheck::Unchecked(OTHER_PATHS.to_owned());
    }
    let Some(path) = system.program(binary) else {
        return ConfigCheck::Unchecked(system.missing(binary));
    };
    let named = start.files.iter().flat_map(|file| [Path::new("-f"), file.as_path()]);
    let mut program = Program::new(path).arg("-c").args(named);
    if let Some(openssl_conf) = &start.openssl_conf {
        program = program.environment(remembered(openssl_conf).environment);
    }
    ConfigCheck::by(&program, deadline)
}
