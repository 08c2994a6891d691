//! What HAProxy loads beside a certificate, and what becomes of that in memory.
//!
//! A `set ssl cert` drops the OCSP response, its issuer and the SCTs that were loaded with a certificate; a start loads
//! them again. And a commit ends HAProxy where a `.sctl` was loaded with what it replaces, which is freed twice: 2.2 and
//! 2.6 at once, 3.0 to 3.4 sooner or later (measured). None shows whether there was one: the disk must tell.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::haproxy::target::Target;
use crate::serving::beside::EXTRAS;
use crate::serving::loads::Identity;
use crate::sys::change_time::{change_time, changed_at};
use crate::sys::escape::escaped_path;

/// The directories of our files.
#[derive(Debug, Clone, Default)]
pub struct Homes {
    /// The sites directory.
    pub sites_dir: PathBuf,
    /// The host certificate.
    pub host_file: PathBuf,
    /// When a `.sctl`, `.ocsp` or `.issuer` last went from a directory, or may have.
    pub touched: BTreeMap<Identity, SystemTime>,
}

impl Homes {
    /// Where a target's file is.
    #[must_use]
    pub fn path(&self, target: &Target) -> PathBuf {
        match target {
            Target::Site(file) => self.sites_dir.join(file),
            Target::Host => self.host_file.clone(),
        }
    }

    /// Whether this is a directory of our files, of which it is remembered what went from it.
    fn is_ours(&self, folder: &Path) -> bool {
        let identity = |meta: fs::Metadata| Identity { device: meta.dev(), inode: meta.ino() };
        fs::metadata(folder).is_ok_and(|meta| self.touched.contains_key(&identity(meta)))
    }

    /// When one of these last went from this directory, or may have; `None`: that can't be known.
    fn touched(&self, folder: &Path) -> Option<SystemTime> {
        let meta = fs::metadata(folder).ok()?;
        let identity = Identity { device: meta.dev(), inode: meta.ino() };
        self.touched.get(&identity).copied().or_else(|| change_time(&meta))
    }

    /// Why the certificate of this path, which a worker may have loaded at `loaded`, must not be committed in memory.
    #[must_use]
    pub fn obstacle(&self, path: &Path, loaded: Option<SystemTime>) -> Option<String> {
        if let Some(sibling) = present(path) {
            return Some(format!("HAProxy loads {} with it when it starts", escaped_path(&sibling)));
        }
        let loaded = loaded?;
        let folder = path.parent()?;
        if self.touched(folder).is_some_and(|touched| touched < loaded) {
            return None;
        }
        Some(format!(
            "HAProxy may have loaded a .sctl, .ocsp or .issuer with it: one has gone from {} since, or may have",
            escaped_path(folder)
        ))
    }

    /// What has become of the files beside these certificates since a worker began to read them at `since`, and was there at
    /// `loaded`: it goes on with what it has read. Of other directories than ours nobody knows what has gone from them.
    #[must_use]
    pub fn change<'a>(
        &self,
        paths: impl Iterator<Item = &'a Path>,
        (since, loaded): (SystemTime, SystemTime),
    ) -> Option<String> {
        let paths: BTreeSet<&Path> = paths.collect();
        if let Some(file) = came_since(&paths, since) {
            return Some(format!("{}: HAProxy may not have read it", escaped_path(&file)));
        }
        let folders: BTreeSet<&Path> = paths.iter().filter_map(|path| path.parent()).collect();
        let may_have_lost = |folder: &&Path| self.touched(folder).is_none_or(|touched| touched >= loaded);
        let folder = folders.into_iter().filter(|folder| self.is_ours(folder)).find(may_have_lost)?;
        Some(format!(
            "HAProxy may have loaded a .sctl, .ocsp or .issuer that has gone from {}",
            escaped_path(folder)
        ))
    }
}

/// The first file beside one of these certificates that HAProxy loads with it, and that has changed since.
#[must_use]
pub fn came_since(paths: &BTreeSet<&Path>, since: SystemTime) -> Option<PathBuf> {
    let folders: BTreeSet<&Path> = paths.iter().filter_map(|path| path.parent()).collect();
    let entries = folders.into_iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
    let is_beside = |path: &PathBuf| {
        path.extension().and_then(OsStr::to_str).is_some_and(|ending| EXTRAS.contains(&ending))
            && ["", "crt"].iter().any(|owner| paths.contains(&*path.with_extension(owner)))
    };
    let is_newer = |path: &PathBuf| changed_at(path).is_none_or(|changed| changed >= since);
    entries.map(|entry| entry.path()).filter(is_beside).find(is_newer)
}

/// The first file beside a certificate that HAProxy loads with it, or that can't be looked for.
fn present(path: &Path) -> Option<PathBuf> {
    let short = path.extension().filter(|ending| *ending == "crt").map(|_| path.with_extension(""));
    let names = [Some(path.to_owned()), short];
    let siblings = names.into_iter().flatten().flat_map(|name| {
        EXTRAS.map(|ending| {
            let mut sibling = name.clone().into_os_string();
            sibling.push(".");
            sibling.push(ending);
            PathBuf::from(sibling)
        })
    });
    let is_there = |sibling: &PathBuf| {
        fs::symlink_metadata(sibling).map_or_else(|error| error.kind() != ErrorKind::NotFound, |_| true)
    };
    siblings.into_iter().find(is_there)
}
