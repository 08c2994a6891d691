//! What HAProxy finds in a file of certificates, or why it finds nothing.

use std::path::Path;

use rustix::io::Errno;

use super::disk::{Disk, Unfound};
use super::loads::{At, Contents, Identity};
use super::pair;
use crate::sys::escape::{escaped, escaped_path};

/// Which file a path of ours leads to, links followed.
#[must_use]
pub fn identity(path: &Path) -> Option<Identity> {
    Disk::ours("/".into()).identity(path)
}

/// How many certificates follow the leaf in a file of ours, as OpenSSL reads it; `None`: it can't be read.
#[must_use]
pub fn chain_len(path: &Path) -> Option<usize> {
    let pem = Disk::ours("/".into()).find(path).ok()?.secret().ok()?;
    Some(pair::chain_len(&pem))
}

/// Where HAProxy looks for the key of a certificate.
pub(super) enum KeyFile {
    /// In its file.
    None,
    /// In this file beside it, where it isn't in its own.
    Beside(String),
    /// In this one, which a line names, whatever its own holds (measured, 3.0 to 3.4).
    Named(String, At),
}

pub(super) fn judge(path: &Path, key: &KeyFile, disk: &Disk, version: Option<(u32, u32)>) -> Contents {
    let read = |path: &Path| disk.find(path)?.secret();
    let pem = match read(path) {
        Ok(pem) => pem,
        Err(why) => return Contents::Unseen(format!("cannot read {}: {why}", escaped_path(path))),
    };
    let beside = match key {
        KeyFile::None => None,
        KeyFile::Beside(key) => read(Path::new(key)).ok(),
        KeyFile::Named(file, _) if matches!(disk.find(Path::new(file)), Err(Unfound::Elsewhere)) => {
            return Contents::Unseen(elsewhere(file));
        }
        KeyFile::Named(file, at) => {
            let key = read(Path::new(file));
            return pair::with_named_key(&pem, key.as_ref().map(|key| key.as_slice()), &|how| {
                format!("its key is taken from {}, as {at} says, which {how}", escaped(file))
            });
        }
    };
    pair::contents(&pem, beside.as_ref().map(|key| key.as_slice()), version)
}

/// What is to be thought of a file that isn't found: only what surely isn't there can't be loaded.
pub(super) fn unfound(path: &str, e: Unfound) -> Contents {
    match e {
        Unfound::Elsewhere => Contents::Unseen(elsewhere(path)),
        e @ Unfound::Cause(_) if e.is_missing() => Contents::Unloadable { leaf: None, why: nowhere(e) },
        e @ Unfound::Cause(_) => Contents::Unseen(format!("cannot look at {}: {e}", escaped(path))),
    }
}

/// Why HAProxy finds no file there.
pub(super) fn nowhere(e: Unfound) -> String {
    match e {
        Unfound::Cause(Errno::NOENT | Errno::NOTDIR) => "there is no such file".to_owned(),
        Unfound::Cause(Errno::LOOP) => "it is a link to itself".to_owned(),
        e @ (Unfound::Cause(_) | Unfound::Elsewhere) => e.to_string(),
    }
}

/// What isn't known of a path that only HAProxy can follow.
pub(super) fn elsewhere(path: &str) -> String {
    format!("{} can't be seen from here: HAProxy has paths of its own", escaped(path))
}
