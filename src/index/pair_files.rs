//! Where the two files of a lineage's pair are, for who looks at them and doesn't read.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, openat, statat};

use crate::index::entry::Look;

/// The files of a source of pairs.
pub trait PairFiles: Sync {
    /// A directory on the file system on which they have to be.
    fn place(&self) -> BorrowedFd<'_>;

    /// What key and chain of a lineage look like now; `None`: they aren't there. `path` is room to write in.
    fn look(&self, lineage: &str, path: &mut String) -> Option<(Look, Look)>;
}

/// The files of a certbot tree, links followed.
#[derive(Debug)]
pub struct LiveFiles {
    live: OwnedFd,
    /// What follows a lineage's name in the path of its key, and of its chain.
    key: String,
    chain: String,
}

impl LiveFiles {
    /// Those in this `live` directory; `None`: it can't be opened.
    #[must_use]
    pub fn open(live_dir: &Path, key_file: &str, chain_file: &str) -> Option<Self> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let live = openat(CWD, live_dir, flags, Mode::empty()).ok()?;
        Some(Self { live, key: format!("/{key_file}"), chain: format!("/{chain_file}") })
    }
}

impl PairFiles for LiveFiles {
    fn place(&self) -> BorrowedFd<'_> {
        self.live.as_fd()
    }

    fn look(&self, lineage: &str, path: &mut String) -> Option<(Look, Look)> {
        let mut look = |ending: &str| {
            path.clear();
            path.push_str(lineage);
            path.push_str(ending);
            statat(&self.live, path.as_str(), AtFlags::empty()).ok().map(|stat| Look::of(&stat))
        };
        Some((look(&self.key)?, look(&self.chain)?))
    }
}
