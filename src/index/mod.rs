//! The index: what the files of each lineage looked like when they were last proved, so that what still looks so needs no
//! reading. [`trust`] says when that is.
//!
//! It is a cache in a file of its own beside the state. Missing, damaged, from another program or another time it only
//! costs the time of a full sweep. It holds no key material, and nothing is owned or pruned by it.

pub mod entry;
pub mod format;
pub mod trust;

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::io::Read as _;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, fstat, fstatfs, openat, statat};
use rustix::process::{getegid, geteuid, getgroups};

use self::entry::{Look, Looks, Proven, Stamp};
use self::trust::Rule;
use crate::certified_key::sha256;
use crate::config::{OWN_DIR, Settings};
use crate::plan::situation::Candidate;
use crate::serving::loads::Identity;
use crate::sites::durable::write_whole;
use crate::sites::place::Place;
use crate::sites::state::State;
use crate::sys::clock::Moment;
use crate::sys::failure::Failure;
use crate::sys::parallel;
use crate::sys::system::System;

/// The index's name in our directory.
pub const INDEX_FILE: &str = "index";

/// Entries that are looked at together.
const TOGETHER: usize = 64;

/// A lineage that isn't read, as it was when it was.
#[derive(Debug, Clone)]
pub struct Remembered {
    /// What the proof gave.
    pub candidate: Candidate,
    /// When it was proved, in seconds since 1970.
    pub proved: i64,
    /// Which file is deployed of it.
    pub site: Identity,
    /// Where its bytes are in the index.
    span: Range<usize>,
}

/// What the index says that can be trusted.
#[derive(Debug, Default)]
pub struct Index {
    stamp: Option<Stamp>,
    known: HashMap<OsString, Remembered>,
    /// How many entries it has.
    entries: usize,
}

impl Index {
    /// Nothing is known: everything is read. What is proved can be written down.
    #[must_use]
    pub fn empty(stamp: Option<Stamp>) -> Self {
        Self { stamp, ..Self::default() }
    }

    /// [`Index::recall`] for a run that writes nothing.
    #[must_use]
    pub fn look(settings: &Settings, system: &System, sites: &Place, state: &State) -> Self {
        match sites.subdirectory(OWN_DIR) {
            Ok(Some(own)) => Self::recall(settings, sites, &own, state, stamp(settings, system)),
            Ok(None) | Err(_) => Self::default(),
        }
    }

    /// Looks at the files of every entry, and knows those that can be trusted. Whatever is wrong with the index, nothing is
    /// known of what it is wrong with.
    #[must_use]
    pub fn recall(
        settings: &Settings,
        sites: &Place,
        own: &Place,
        state: &State,
        stamp: Option<Stamp>,
    ) -> Self {
        let mut index = Self::empty(stamp);
        let Some((now, text)) = stamp.zip(read(&own.dir)) else { return index };
        let Some((written, entries)) = format::split(&text) else { return index };
        let Some(live) =
            Some(&settings.live_dir).filter(|_| written.is_continued_by(&now)).and_then(|path| {
                openat(CWD, path, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()
            })
        else {
            return index;
        };
        let Some(witness) = Witness::new(settings, state, &live, sites, &written) else { return index };
        let chunks: Vec<&[Range<usize>]> = entries.chunks(TOGETHER).collect();
        let known = parallel::map(&chunks, |chunk| witness.known(&text, chunk), &|_, _| ());
        index.known = known.into_iter().flatten().collect();
        index.entries = entries.len();
        index
    }

    /// How many lineages need no reading.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Which file of this name in the sites directory was found as it was deployed; `None`: nobody has looked.
    #[must_use]
    pub fn seen(&self, file: &OsStr) -> Option<Identity> {
        let lineage = file.as_encoded_bytes().strip_suffix(b".pem").map(OsStr::from_bytes)?;
        self.get(lineage).map(|known| known.site)
    }

    /// A lineage that needs no reading; `None`: it does.
    #[must_use]
    pub fn get(&self, lineage: &OsStr) -> Option<&Remembered> {
        self.known.get(lineage)
    }

    /// When the run began that this index belongs to; `None`: nothing can be written down.
    #[must_use]
    pub fn stamp(&self) -> Option<&Stamp> {
        self.stamp.as_ref()
    }

    /// Writes the index, what was known and what was proved in this run, where that is another one than before.
    ///
    /// # Errors
    /// It can't be written: then the next run reads more.
    pub fn save(&self, own: &Place, proved: &[Proven]) -> Result<(), Failure> {
        let Some(stamp) = &self.stamp else { return Ok(()) };
        let settled: Vec<&Proven> =
            proved.iter().filter(|entry| entry.looks.are_settled(stamp.began)).collect();
        if settled.is_empty() && self.known.len() == self.entries {
            return Ok(());
        }
        // The same as was read: nobody else writes it while the directory is locked.
        let before = if self.known.is_empty() { None } else { read(&own.dir) }.unwrap_or_default();
        let mut bytes = format::header(stamp);
        let mut kept: Vec<&Range<usize>> = self.known.values().map(|known| &known.span).collect();
        kept.sort_unstable_by_key(|span| span.start);
        for entry in kept.into_iter().filter_map(|span| before.get(span.clone())) {
            format::push_again(&mut bytes, entry);
        }
        for entry in settled {
            format::push(&mut bytes, entry);
        }
        write_whole(own.dir.as_fd(), INDEX_FILE, &bytes)
            .map_err(|e| Failure::io("write", &own.path.join(INDEX_FILE), &e.into()))
    }
}

/// The circumstances of a run that begins now; `None`: they can't be told, and nothing is trusted.
#[must_use]
pub fn stamp(settings: &Settings, system: &System) -> Option<Stamp> {
    let moment = Moment::now();
    let program = std::fs::metadata(system.proc.join("self/exe")).ok()?;
    let boot = std::fs::read_to_string(system.proc.join("sys/kernel/random/boot_id")).ok()?;
    let mut facts = String::new();
    // Writing to a String never fails.
    let _ = write!(
        facts,
        "{} {:?} {boot} {:?} {:?} {:?} {:?} {:o} {:?} {:?} {:?}",
        env!("CARGO_PKG_VERSION"),
        (
            program.dev(),
            program.ino(),
            program.size(),
            program.mtime_nsec(),
            program.ctime(),
            program.ctime_nsec()
        ),
        settings.live_dir.as_os_str().as_encoded_bytes(),
        settings.sites_dir.as_os_str().as_encoded_bytes(),
        (&settings.key_file, &settings.chain_file),
        settings.owner,
        settings.mode,
        geteuid(),
        getegid(),
        getgroups().ok()?,
    );
    Some(Stamp { circumstances: sha256(facts.as_bytes()), began: moment.at, ahead: moment.ahead() })
}

/// The bytes of the index; `None`: there is none, or it isn't a plain file of ours of a sensible size.
fn read(own: &OwnedFd) -> Option<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = openat(own, INDEX_FILE, flags, Mode::empty()).ok()?;
    let stat = fstat(&fd).ok()?;
    let is_ours = stat.st_uid == 0 || stat.st_uid == geteuid().as_raw();
    let is_private = stat.st_mode & 0o022 == 0;
    if !is_ours || !is_private || FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return None;
    }
    let mut bytes = Vec::new();
    std::fs::File::from(fd).take(format::MAX_BYTES).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Looks at the files of entries.
struct Witness<'a> {
    rule: Rule<'a>,
    /// What follows a lineage's name in the path of its key, and of its chain.
    key: String,
    chain: String,
    live: &'a OwnedFd,
    sites: &'a OwnedFd,
    state: &'a State,
}

impl<'a> Witness<'a> {
    /// `None`: nothing on these file systems is trusted.
    fn new(
        settings: &'a Settings,
        state: &'a State,
        live: &'a OwnedFd,
        sites: &'a Place,
        written: &'a Stamp,
    ) -> Option<Self> {
        let device = |dir: &OwnedFd| {
            #[allow(clippy::unnecessary_cast, reason = "its type differs between architectures")]
            let file_system = fstatfs(dir).ok()?.f_type as i64;
            let stat = fstat(dir).ok()?;
            trust::keeps_change_times(file_system).then(|| Look::of(&stat).device)
        };
        let rule = Rule {
            written,
            live_device: device(live)?,
            sites_device: device(&sites.dir)?,
            live_dir: &settings.live_dir,
            owner: settings.owner,
            mode: settings.mode,
        };
        let [key, chain] = [&settings.key_file, &settings.chain_file].map(|name| format!("/{name}"));
        Some(Self { rule, key, chain, live, sites: &sites.dir, state })
    }

    /// Those of these entries that can be trusted.
    fn known(&self, text: &[u8], spans: &[Range<usize>]) -> Vec<(OsString, Remembered)> {
        let mut path = String::new();
        let trusted = |span: &Range<usize>| {
            let entry = format::entry(text.get(span.clone())?)?;
            let found = self.look(&entry.lineage, &mut path)?;
            let record = self.state.files.get(&path).filter(|_| !self.state.pending.contains_key(&path));
            if !self.rule.trusts(&entry, &found, record) {
                return None;
            }
            let Looks { site: Look { device, inode, .. }, .. } = found;
            let known = Remembered {
                candidate: entry.candidate,
                proved: entry.proved,
                site: Identity { device, inode },
                span: span.clone(),
            };
            Some((entry.lineage.into(), known))
        };
        spans.iter().filter_map(trusted).collect()
    }

    /// What a lineage's files look like now; `path` then is the deployed file's name.
    fn look(&self, lineage: &str, path: &mut String) -> Option<Looks> {
        if lineage.is_empty() || lineage.contains('/') || lineage.starts_with('.') {
            return None;
        }
        let mut look = |dir: &OwnedFd, ending: &str, flags| {
            path.clear();
            path.push_str(lineage);
            path.push_str(ending);
            statat(dir, path.as_str(), flags).ok().map(|stat| Look::of(&stat))
        };
        Some(Looks {
            key: look(self.live, &self.key, AtFlags::empty())?,
            chain: look(self.live, &self.chain, AtFlags::empty())?,
            site: look(self.sites, ".pem", AtFlags::SYMLINK_NOFOLLOW)?,
        })
    }
}
