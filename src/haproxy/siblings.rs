//! What HAProxy loads beside a certificate, and what becomes of that in memory.
//!
//! A `set ssl cert` drops the OCSP response, its issuer and the SCTs that were loaded with a certificate; a start loads
//! them again. And a commit ends HAProxy where a `.sctl` was loaded with what it replaces, which is freed twice: 2.2 and
//! 2.6 at once, 3.0 to 3.4 sooner or later (measured). None shows whether there was one: the disk must tell.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::haproxy::target::Target;
use crate::serving::loads::Identity;
use crate::sys::change_time::change_time;
use crate::sys::escape::escaped_path;

/// The endings of what a commit drops. A `.key` belongs to the certificate itself.
const DROPPED: [&str; 3] = ["sctl", "ocsp", "issuer"];

/// The directories of our files.
#[derive(Debug, Clone, Default)]
pub struct Homes {
    /// The sites directory.
    pub sites_dir: PathBuf,
    /// The host certificate.
    pub host_file: PathBuf,
    /// When a `.sctl` last went from a directory, or may have.
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

    /// When a `.sctl` last went from this directory, or may have; `None`: that can't be known.
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
            "HAProxy may have loaded a .sctl with it, which a commit would end it for: one has gone from {} since, or may have",
            escaped_path(folder)
        ))
    }
}

/// The first file beside a certificate that HAProxy loads with it, or that can't be looked for.
fn present(path: &Path) -> Option<PathBuf> {
    let short = path.extension().filter(|ending| *ending == "crt").map(|_| path.with_extension(""));
    let names = [Some(path.to_owned()), short];
    let siblings = names.into_iter().flatten().flat_map(|name| {
        DROPPED.map(|ending| {
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
