//! Asking HAProxy, before anything is renamed into place, whether it would load the staged files.

use std::io::{self, Write};
use std::path::Path;
use std::time::Instant;

use tempfile::NamedTempFile;

use crate::config::Haproxy;
use crate::escape::{escaped, escaped_path};
use crate::failure::io_cause;
use crate::program::{Finished, Program};
use crate::world::World;

use super::words;

/// After so many rejected files the remaining ones aren't asked about any more.
const REJECTIONS: usize = 16;

/// What HAProxy says about staged files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StagedCheck {
    /// The files that it would refuse, each with its words.
    pub rejected: Vec<(String, String)>,
    /// Whether the remaining ones were checked; why not.
    pub checked: Result<(), String>,
}

/// Asks whether HAProxy would load the files of the directory `dir`, an absolute path without a slash at the end,
/// which holds exactly `files` and their siblings.
///
/// HAProxy names only the first file that it can't load. It is handed to `remove`, which takes it and its siblings
/// out of the directory, and the rest is asked again. The configuration for it is a temporary file beside `dir`.
pub fn staged(
    world: &World,
    haproxy: &Haproxy,
    dir: &Path,
    files: &[String],
    deadline: Instant,
    remove: &mut dyn FnMut(&str) -> io::Result<()>,
) -> StagedCheck {
    let mut rejected = Vec::new();
    let checked = ask(world, haproxy, dir, files, deadline, remove, &mut rejected);
    StagedCheck { rejected, checked }
}

fn ask(
    world: &World,
    haproxy: &Haproxy,
    dir: &Path,
    files: &[String],
    deadline: Instant,
    remove: &mut dyn FnMut(&str) -> io::Result<()>,
    rejected: &mut Vec<(String, String)>,
) -> Result<(), String> {
    if files.is_empty() {
        return Ok(());
    }
    let name = haproxy.binary.as_ref().ok_or("binary is empty, so HAProxy is never run")?;
    let binary = world.program(name).ok_or_else(|| {
        format!("there is no program {} here; set binary to its path, or to \"\"", escaped(name))
    })?;
    let configuration = write_configuration(dir)?;
    let program = Program::new(&binary).args(["-c", "-f"]).arg(configuration.path());
    let spelled = dir.to_string_lossy();
    let mut left = files.to_vec();
    loop {
        let done = program
            .run(deadline)
            .map_err(|e| format!("cannot run {}: {}", escaped_path(&binary), io_cause(&e)))?;
        if done.succeeded() {
            return Ok(());
        }
        let (file, said) = match words::first_in(&done.output, &spelled, &left) {
            Some((index, said)) if is_refusal(&done) => (left.remove(index), said),
            _ => return Err(unclear(&binary, &done)),
        };
        if rejected.len() == REJECTIONS {
            let said = format!(
                "HAProxy rejected {REJECTIONS} staged files one after another: the rest was not asked"
            );
            rejected.push((file, said.clone()));
            rejected.extend(left.into_iter().map(|file| (file, said.clone())));
            return Ok(());
        }
        let removed = remove(&file);
        let failure = removed.err().map(|e| {
            format!("cannot remove {} from {}: {}", escaped(&file), escaped_path(dir), io_cause(&e))
        });
        rejected.push((file, said));
        match failure {
            Some(failure) => return Err(failure),
            None if left.is_empty() => return Ok(()),
            None => {}
        }
    }
}

/// HAProxy ended by itself, and said no: not a crash, not a time-out.
fn is_refusal(done: &Finished) -> bool {
    !done.timed_out && done.status.is_some_and(|status| status.code().is_some())
}

fn unclear(binary: &Path, done: &Finished) -> String {
    let said = match words::words(&done.output) {
        said if said.is_empty() => done.last_line().unwrap_or_default(),
        said => said,
    };
    let colon = if said.is_empty() { "" } else { ": " };
    format!("{} -c {}{colon}{said}", escaped_path(binary), done.end())
}

/// A frontend that loads the directory. `-c` never binds, so the address is of no importance.
fn write_configuration(dir: &Path) -> Result<NamedTempFile, String> {
    let bytes = dir.as_os_str().as_encoded_bytes();
    if bytes.contains(&b'\n') || bytes.contains(&b'\r') {
        return Err(format!("the name {} can't be written in a configuration file", escaped_path(dir)));
    }
    let folder = dir.parent().unwrap_or(dir);
    let write = || {
        let mut file = tempfile::Builder::new().prefix(".check-").suffix(".cfg").tempfile_in(folder)?;
        file.write_all(
            b"global\n    tune.ssl.default-dh-param 2048\n\nfrontend staged\n    mode tcp\n    timeout client 1s\n    bind 127.0.0.1:1 ssl crt ",
        )?;
        file.write_all(&single_quoted(bytes))?;
        file.write_all(b"\n")?;
        Ok(file)
    };
    write()
        .map_err(|e: io::Error| format!("cannot write a file in {}: {}", escaped_path(folder), io_cause(&e)))
}

/// Strong quotes, as haproxy.cfg and the shell know them: only the quote itself needs care.
fn single_quoted(bytes: &[u8]) -> Vec<u8> {
    let mut quoted = vec![b'\''];
    for &byte in bytes {
        match byte {
            b'\'' => quoted.extend_from_slice(b"'\\''"),
            _ => quoted.push(byte),
        }
    }
    quoted.push(b'\'');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_ends_and_begins_the_quotes() {
        assert_eq!(single_quoted(b"/a 'b' $c#"), b"'/a '\\''b'\\'' $c#'");
    }
}
