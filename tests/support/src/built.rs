//! Where cargo puts what it builds, and what the running test is called: known by the program that runs.

use std::path::PathBuf;

/// The project's own directory.
pub const PROJECT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// The directory that the running test's own program is in, or one around it.
fn around(parents: usize) -> PathBuf {
    let program = std::env::current_exe().unwrap();
    program.ancestors().nth(parents).unwrap().to_owned()
}

/// The directory of cargo's, `target` where nothing says otherwise.
pub fn target_folder() -> PathBuf {
    around(3)
}

/// The program under test, which cargo builds beside the tests.
pub fn program() -> PathBuf {
    around(2).join("haproxy-certs")
}

/// The name of the running suite: cargo puts a hash behind it.
pub fn suite() -> String {
    let program = std::env::current_exe().unwrap();
    let name = program.file_stem().unwrap().to_str().unwrap().to_owned();
    name.rsplit_once('-').map_or(name.clone(), |(name, _)| name.to_owned())
}
