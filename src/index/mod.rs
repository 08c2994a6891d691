//! The index: what the files of each lineage looked like when they were last proved, so that what still looks so needs no
//! reading. [`trust`] says when that is.
//!
//! It is a cache in a file of its own beside the state. Missing, damaged, from another program or another time it only
//! costs the time of a full sweep. It holds no key material, and nothing is owned or pruned by it.

pub mod entry;
pub mod format;
pub mod known_pair;
pub mod pair_files;
pub mod trust;

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, fstat, fstatfs, openat, statat};
use rustix::process::{getegid, geteuid, getgroups};

use self::entry::{Look, Looks, Proven, Stamp};
use self::pair_files::PairFiles;
use self::trust::Rule;
use crate::certified_key::sha256;
use crate::config::{OWN_DIR, Settings};
use crate::plan::situation::Candidate;
use crate::serving::loads::Identity;
use crate::sites::durable::write_pieces;
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

/// So many bytes are read at a time; no entry that this program writes is longer.
const PIECE: usize = 1 << 22;

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
    span: Range<u64>,
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
    pub fn look(
        settings: &Settings,
        system: &System,
        pairs: Option<&dyn PairFiles>,
        sites: &Place,
        state: &State,
    ) -> Self {
        match sites.subdirectory(OWN_DIR) {
            Ok(Some(own)) => {
                let began = Moment::now();
                let stamp = stamp(settings, system, &began);
                Self::recall(settings, pairs, sites, &own, state, stamp, &began)
            }
            Ok(None) | Err(_) => Self::default(),
        }
    }

    /// Looks at the files of every entry, and knows those that can be trusted. Whatever is wrong with the index, nothing is
    /// known of what it is wrong with; nor is anything where the clock was set since the run `began`. `pairs`: the source's
    /// files, where it has any.
    #[must_use]
    pub fn recall(
        settings: &Settings,
        pairs: Option<&dyn PairFiles>,
        sites: &Place,
        own: &Place,
        state: &State,
        stamp: Option<Stamp>,
        began: &Moment,
    ) -> Self {
        let mut index = Self::empty(stamp);
        // Best effort: what can't be read isn't known.
        let _ =
            stamp.zip(pairs).and_then(|(now, pairs)| index.know(settings, pairs, sites, own, state, &now));
        // What was written after it was set, and looked at after that, may have the time of its last change again.
        if began.was_set_until(&Moment::now()) {
            index.known.clear();
        }
        index
    }

    /// Reads the index piece by piece; `None`: the rest of it can't be trusted.
    fn know(
        &mut self,
        settings: &Settings,
        pairs: &dyn PairFiles,
        sites: &Place,
        own: &Place,
        state: &State,
        now: &Stamp,
    ) -> Option<()> {
        let mut pieces = Pieces { file: open(&own.dir)?, at: 0, bytes: Vec::new() };
        pieces.read(format::HEADER_BYTES).ok()?;
        let written = format::stamp(&pieces.bytes).filter(|written| written.is_continued_by(now))?;
        pieces.skip(format::HEADER_BYTES);
        let witness = Witness::new(settings, state, pairs, sites, &written)?;
        // What the state doesn't have isn't trusted.
        self.known.reserve(state.files.len());
        loop {
            let is_end = pieces.read(PIECE).ok()?;
            let entries = format::entries(&pieces.bytes);
            let chunks: Vec<&[Range<usize>]> = entries.chunks(TOGETHER).collect();
            let known =
                parallel::map(&chunks, |chunk| witness.known(&pieces.bytes, pieces.at, chunk), &|_, _| ());
            self.known.extend(known.into_iter().flatten());
            self.entries += entries.len();
            match entries.last() {
                Some(last) if !is_end => pieces.skip(last.end),
                _ => return Some(()),
            }
        }
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
        self.get(lineage_of(file)?).map(|known| known.site)
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

    /// What is needed to write the next one, and, where a run may change something, what was seen; the rest is forgotten.
    #[must_use]
    pub fn successor(self, may_change: bool) -> Successor {
        let Self { stamp, known, entries } = self;
        let (mut kept, mut seen) = (Vec::with_capacity(known.len()), HashMap::new());
        for (lineage, Remembered { site, span, .. }) in known {
            kept.push(span);
            if may_change {
                seen.insert(lineage, site);
            }
        }
        kept.sort_unstable_by_key(|span| span.start);
        Successor { stamp, kept, seen, entries }
    }
}

/// The next index: what is kept of this one, and what was proved since.
#[derive(Debug)]
pub struct Successor {
    stamp: Option<Stamp>,
    /// Where the entries are that are kept, in order.
    kept: Vec<Range<u64>>,
    /// Which files are deployed of their lineages.
    seen: HashMap<OsString, Identity>,
    /// How many entries there are.
    entries: usize,
}

/// The lineage that a file of the sites directory is named after.
fn lineage_of(file: &OsStr) -> Option<&OsStr> {
    file.as_encoded_bytes().strip_suffix(b".pem").map(OsStr::from_bytes)
}

impl Successor {
    /// See [`Index::seen`].
    #[must_use]
    pub fn seen(&self, file: &OsStr) -> Option<Identity> {
        self.seen.get(lineage_of(file)?).copied()
    }

    /// Writes it, where it is another one than before.
    ///
    /// # Errors
    /// It can't be written: then the next run reads more.
    pub fn save(&self, own: &Place, proved: &[Proven]) -> Result<(), Failure> {
        let Some(stamp) = &self.stamp else { return Ok(()) };
        let settled: Vec<&Proven> =
            proved.iter().filter(|entry| entry.looks.are_settled(stamp.began)).collect();
        if settled.is_empty() && self.kept.len() == self.entries {
            return Ok(());
        }
        let runs = runs(&self.kept);
        // The same as was read: nobody else writes it while the directory is locked.
        let before = if runs.is_empty() { None } else { open(&own.dir) };
        let write = |out: &mut dyn std::io::Write| {
            out.write_all(&format::header(stamp))?;
            for (run, before) in runs.iter().zip(before.iter().cycle()) {
                copy(before, run, out)?;
            }
            let mut bytes = Vec::new();
            for entry in settled {
                format::push(&mut bytes, entry);
                out.write_all(&bytes)?;
                bytes.clear();
            }
            Ok(())
        };
        write_pieces(own.dir.as_fd(), INDEX_FILE, write)
            .map_err(|e| Failure::io("write", &own.path.join(INDEX_FILE), &e.into()))
    }
}

/// Where entries are that stand behind each other, as they are in the file, with what comes before each.
fn runs(entries: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for entry in entries {
        let start = entry.start.saturating_sub(format::LENGTH_BYTES);
        match runs.last_mut().filter(|run| run.end == start) {
            Some(run) => run.end = entry.end,
            None => runs.push(start..entry.end),
        }
    }
    runs
}

/// Copies a part of a file, all of it.
fn copy(mut from: &File, part: &Range<u64>, to: &mut dyn std::io::Write) -> std::io::Result<()> {
    from.seek(SeekFrom::Start(part.start))?;
    let length = part.end - part.start;
    let copied = std::io::copy(&mut from.take(length), to)?;
    if copied == length { Ok(()) } else { Err(std::io::ErrorKind::UnexpectedEof.into()) }
}

/// A file that is read piece by piece: it may be large.
struct Pieces {
    file: File,
    /// Where in the file `bytes` begins.
    at: u64,
    bytes: Vec<u8>,
}

impl Pieces {
    /// Reads on until there are so many bytes; whether the file ends with them.
    fn read(&mut self, bytes: usize) -> std::io::Result<bool> {
        let wanted = bytes.saturating_sub(self.bytes.len());
        // Room for that and no more: it would be had for twice as much.
        self.bytes.reserve_exact(wanted);
        let wanted = wanted as u64;
        let left = format::MAX_BYTES.saturating_sub(self.at + self.bytes.len() as u64);
        let read = (&self.file).take(wanted.min(left)).read_to_end(&mut self.bytes)?;
        Ok((read as u64) < wanted)
    }

    fn skip(&mut self, bytes: usize) {
        self.at += bytes as u64;
        self.bytes.drain(..bytes);
    }
}

/// The circumstances of a run that began a moment ago; `None`: they can't be told, and nothing is trusted.
#[must_use]
pub fn stamp(settings: &Settings, system: &System, began: &Moment) -> Option<Stamp> {
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
    Some(Stamp { circumstances: sha256(facts.as_bytes()), began: began.at, ahead: began.ahead() })
}

/// The index; `None`: there is none, or it isn't a plain file of ours.
fn open(own: &OwnedFd) -> Option<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = openat(own, INDEX_FILE, flags, Mode::empty()).ok()?;
    let stat = fstat(&fd).ok()?;
    let is_ours = stat.st_uid == 0 || stat.st_uid == geteuid().as_raw();
    let is_private = stat.st_mode & 0o022 == 0;
    let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    (is_ours && is_private && is_file).then(|| fd.into())
}

/// Looks at the files of entries.
struct Witness<'a> {
    rule: Rule<'a>,
    pairs: &'a dyn PairFiles,
    sites: &'a OwnedFd,
    state: &'a State,
}

impl<'a> Witness<'a> {
    /// `None`: nothing on these file systems is trusted.
    fn new(
        settings: &'a Settings,
        state: &'a State,
        pairs: &'a dyn PairFiles,
        sites: &'a Place,
        written: &'a Stamp,
    ) -> Option<Self> {
        let rule = Rule {
            written,
            live_device: device(pairs.place())?,
            sites_device: device(sites.dir.as_fd())?,
            live_dir: &settings.live_dir,
            owner: settings.owner,
            mode: settings.mode,
        };
        Some(Self { rule, pairs, sites: &sites.dir, state })
    }

    /// Those of these entries that can be trusted; `begin` is where `text` begins in the index.
    fn known(&self, text: &[u8], begin: u64, spans: &[Range<usize>]) -> Vec<(OsString, Remembered)> {
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
                span: begin + span.start as u64..begin + span.end as u64,
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
        let (key, chain) = self.pairs.look(lineage, path)?;
        path.clear();
        path.push_str(lineage);
        path.push_str(".pem");
        let site = statat(self.sites, path.as_str(), AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some(Looks { key, chain, site: Look::of(&site) })
    }
}

/// The device that a directory is on; `None`: nothing on its file system is trusted.
#[must_use]
pub fn device(dir: BorrowedFd<'_>) -> Option<u64> {
    #[allow(clippy::unnecessary_cast, reason = "its type differs between architectures")]
    let file_system = fstatfs(dir).ok()?.f_type as i64;
    let stat = fstat(dir).ok()?;
    trust::keeps_change_times(file_system).then(|| Look::of(&stat).device)
}
