//! Asking HAProxy, before anything is renamed into place, whether it would load the staged files.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use tempfile::NamedTempFile;

use super::alerts;
use crate::config::Haproxy;
use crate::sys::escape::{escaped, escaped_path};
use crate::sys::failure::io_cause;
use crate::sys::program::{Finished, Program};
use crate::sys::system::System;

/// So many files are asked about at once, each on a line of its own, where the whole directory is refused: HAProxy reads
/// no further after 50 errors (measured, 2.2), and with a good file behind each one there may be two for each.
const TOGETHER: usize = 24;

/// The search for the file that makes HAProxy's answers unclear ends after so many of them.
const UNCLEAR: usize = 32;

/// What HAProxy says about staged files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StagedCheck {
    /// The files that it would refuse, each with its words.
    pub rejected: Vec<(String, String)>,
    /// Whether the remaining ones were checked.
    pub checked: Result<(), Unchecked>,
}

/// Files of which HAProxy said nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unchecked {
    /// Which.
    pub files: BTreeSet<String>,
    /// Why.
    pub why: String,
}

/// What a HAProxy is started in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Surroundings {
    /// The variables.
    pub environment: Vec<(OsString, OsString)>,
    /// The working directory.
    pub folder: PathBuf,
}

/// Asks whether HAProxy, started in these surroundings, would load the files of the directory `dir`, an absolute path
/// without a slash at the end, which holds exactly `files` and their siblings.
///
/// Of a directory HAProxy names only the first file that it can't load. So the files are then asked about on lines of
/// their own, and all that it can't load are named at once (measured, 2.2 to 3.4); what is left is asked about as a
/// directory again. Every file that it would refuse is handed to `remove`, which takes it and its siblings out of the
/// directory. The configuration for it is a temporary file beside `dir`.
pub fn staged(
    system: &System,
    haproxy: &Haproxy,
    surroundings: Option<&Surroundings>,
    dir: &Path,
    files: &[String],
    deadline: Instant,
    remove: &mut dyn FnMut(&str) -> io::Result<()>,
) -> StagedCheck {
    let binary = match binary(system, haproxy) {
        Ok(binary) => binary,
        Err(why) => {
            let files = files.iter().cloned().collect();
            return StagedCheck {
                rejected: Vec::new(),
                checked: Err(Unchecked { files, why: why.to_string() }),
            };
        }
    };
    let mut asking = Asking {
        binary,
        surroundings,
        dir,
        deadline,
        remove,
        left: files.to_vec(),
        loadable: BTreeSet::new(),
        rejected: Vec::new(),
    };
    let checked = asking.ask().map_err(|why| {
        let unasked = asking.left.iter().filter(|file| !asking.loadable.contains(*file));
        Unchecked { files: unasked.cloned().collect(), why: why.to_string() }
    });
    StagedCheck { rejected: asking.rejected, checked }
}

/// Why HAProxy can't be asked, or not to the end.
#[derive(Debug, thiserror::Error)]
enum Unasked {
    #[error("binary is empty, so HAProxy is never run")]
    Never,
    #[error("{0}; set binary to its path, or to \"\"")]
    NoProgram(String),
    #[error("cannot run {}: {}", escaped_path(.0), io_cause(.1))]
    NotRun(PathBuf, io::Error),
    #[error("the name {} can't be written in a configuration file", escaped_path(.0))]
    Name(PathBuf),
    #[error("cannot write a file in {}: {}", escaped_path(.0), io_cause(.1))]
    Unwritten(PathBuf, io::Error),
    #[error("cannot remove {} from {}: {}", escaped(.file), escaped_path(.dir), io_cause(.cause))]
    NotRemoved { file: String, dir: PathBuf, cause: io::Error },
    /// It was asked, and what it said means nothing.
    #[error("{0}")]
    Unclear(String),
}

fn binary(system: &System, haproxy: &Haproxy) -> Result<PathBuf, Unasked> {
    let name = haproxy.binary.as_ref().ok_or(Unasked::Never)?;
    system.program(name).ok_or_else(|| Unasked::NoProgram(system.missing(name)))
}

/// One HAProxy being asked about a directory.
struct Asking<'a> {
    binary: PathBuf,
    surroundings: Option<&'a Surroundings>,
    dir: &'a Path,
    deadline: Instant,
    remove: &'a mut dyn FnMut(&str) -> io::Result<()>,
    /// What isn't rejected.
    left: Vec<String>,
    /// What of it was asked about, and not named.
    loadable: BTreeSet<String>,
    rejected: Vec<(String, String)>,
}

/// What came of one question.
enum Answer {
    /// It would load all of it.
    Yes,
    /// It names these.
    No(Vec<(String, String)>),
    /// A crash, a time-out, or words that name nothing of it.
    Unclear(String),
}

/// What came of asking about files on lines of their own.
enum Lines {
    /// These are named, and may be good all the same.
    Suspects(Vec<String>),
    /// There is no clear answer: why.
    Unclear(String),
}

impl Asking<'_> {
    /// Asks until all that is left would be loaded; why that can't be found out.
    fn ask(&mut self) -> Result<(), Unasked> {
        let mut is_singled_out = false;
        while !self.left.is_empty() {
            let all = self.left.clone();
            match self.question(&[self.dir.as_os_str().as_encoded_bytes().to_vec()], &all)? {
                Answer::Yes => return Ok(()),
                Answer::No(mut named) => {
                    named.truncate(1);
                    self.reject(named)?;
                }
                Answer::Unclear(why) if is_singled_out || all.len() == 1 || self.is_late() => {
                    return Err(Unasked::Unclear(why));
                }
                Answer::Unclear(_) => {}
            }
            if !is_singled_out {
                is_singled_out = true;
                self.single_out()?;
            }
        }
        Ok(())
    }

    /// Asks about the files on lines of their own. Where that has no clear answer, about half of them.
    fn single_out(&mut self) -> Result<(), Unasked> {
        let mut parts: Vec<Vec<String>> = self.left.chunks(TOGETHER).map(<[String]>::to_vec).rev().collect();
        let mut unclear = Vec::new();
        while let Some(part) = parts.pop() {
            let suspects = match self.ask_lines(&part, None)? {
                Lines::Suspects(suspects) => suspects,
                Lines::Unclear(why) => {
                    unclear.push(why);
                    if self.is_late() || unclear.len() > UNCLEAR {
                        break;
                    }
                    if part.len() > 1 {
                        let (one, other) = part.split_at(part.len() / 2);
                        parts.extend([other.to_vec(), one.to_vec()]);
                    }
                    continue;
                }
            };
            if suspects.is_empty() {
                continue;
            }
            let answer = match self.loadable.first().cloned() {
                Some(between) => Some(self.ask_lines(&suspects, Some(&between))?),
                None => None,
            };
            let unknown = if let Some(Lines::Suspects(left)) = answer { left } else { suspects };
            parts.extend(unknown.into_iter().map(|file| vec![file]));
        }
        // The directory would have no clear answer either, with these in it.
        unclear.pop().map_or(Ok(()), |why| Err(Unasked::Unclear(why)))
    }

    /// Asks about these files, each on a line of its own, and rejects those that are refused.
    ///
    /// 2.2 leaves OpenSSL's complaint about one file for the next one, which is then refused with it: whoever is named
    /// right behind one that was named may be good. A file that is known to be good, on a line `between`, takes it away.
    fn ask_lines(&mut self, part: &[String], between: Option<&String>) -> Result<Lines, Unasked> {
        let path = |file: &String| self.dir.join(file).into_os_string().into_encoded_bytes();
        let lines: Vec<Vec<u8>> =
            part.iter().flat_map(|file| [Some(file), between]).flatten().map(path).collect();
        let named = match self.question(&lines, part)? {
            Answer::Yes => Vec::new(),
            Answer::No(named) => named,
            // Nobody is named but the good one.
            Answer::Unclear(why) => return Ok(Lines::Unclear(why)),
        };
        let is_named = |file: &String| named.iter().any(|(known, _)| known == file);
        let mut suspects = Vec::new();
        let mut after_named = false;
        for file in part {
            if !is_named(file) {
                self.loadable.insert(file.clone());
            } else if after_named && between.is_none() {
                suspects.push(file.clone());
            }
            after_named = is_named(file);
        }
        let refused = named.into_iter().filter(|(file, _)| !suspects.contains(file)).collect();
        self.reject(refused)?;
        Ok(Lines::Suspects(suspects))
    }

    /// One question, about `files`, which these paths load.
    fn question(&self, paths: &[Vec<u8>], files: &[String]) -> Result<Answer, Unasked> {
        if self.is_late() {
            return Ok(Answer::Unclear("the time is up".to_owned()));
        }
        let configuration = write_configuration(self.dir, paths)?;
        let program = Program::new(&self.binary).args(["-c", "-f"]).arg(configuration.path());
        let program = match self.surroundings {
            Some(it) => program.environment(it.environment.clone()).folder(&it.folder),
            None => program,
        };
        let done = program.run(self.deadline).map_err(|e| Unasked::NotRun(self.binary.clone(), e))?;
        if done.succeeded() {
            return Ok(Answer::Yes);
        }
        let named = alerts::named_in_folder(&done.output, &self.dir.to_string_lossy(), files);
        Ok(match named {
            named if named.is_empty() || !done.has_ended_itself() => {
                Answer::Unclear(unclear(&self.binary, &done))
            }
            named => Answer::No(
                named
                    .into_iter()
                    .filter_map(|(index, said)| Some((files.get(index)?.clone(), said)))
                    .collect(),
            ),
        })
    }

    fn reject(&mut self, named: Vec<(String, String)>) -> Result<(), Unasked> {
        for (file, said) in named {
            let removed = (self.remove)(&file);
            self.left.retain(|left| *left != file);
            self.loadable.remove(&file);
            self.rejected.push((file.clone(), said));
            removed.map_err(|cause| Unasked::NotRemoved { file, dir: self.dir.to_owned(), cause })?;
        }
        Ok(())
    }

    fn is_late(&self) -> bool {
        Instant::now() >= self.deadline
    }
}

fn unclear(binary: &Path, done: &Finished) -> String {
    let said = match alerts::words(&done.output) {
        said if said.is_empty() => done.last_line().unwrap_or_default(),
        said => said,
    };
    let colon = if said.is_empty() { "" } else { ": " };
    format!("{} -c {}{colon}{said}", escaped_path(binary), done.end())
}

/// A frontend that loads each of these paths. `-c` never binds, so the address is of no importance.
fn write_configuration(dir: &Path, paths: &[Vec<u8>]) -> Result<NamedTempFile, Unasked> {
    let bytes = dir.as_os_str().as_encoded_bytes();
    if bytes.contains(&b'\n') || bytes.contains(&b'\r') {
        return Err(Unasked::Name(dir.to_owned()));
    }
    let folder = dir.parent().unwrap_or(dir);
    let write = || {
        let mut text = b"global\n    tune.ssl.default-dh-param 2048\n\nfrontend staged\n    mode tcp\n    timeout client 1s\n".to_vec();
        for path in paths {
            text.extend_from_slice(b"    bind 127.0.0.1:1 ssl crt ");
            text.extend(single_quoted(path));
            text.push(b'\n');
        }
        let mut file = tempfile::Builder::new().prefix(".check-").suffix(".cfg").tempfile_in(folder)?;
        file.write_all(&text)?;
        Ok(file)
    };
    write().map_err(|e| Unasked::Unwritten(folder.to_owned(), e))
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
