//! Which lineages are as they were published, as far as that is seen without reading them.

use std::collections::{BTreeMap, HashSet};

use crate::certbot::CertbotTree;
use crate::config::Settings;
use crate::fleet::cache::CacheFolder;
use crate::fleet::page::PageEntry;
use crate::index::entry::Stamp;
use crate::index::known_pair::{self, KnownPair};
use crate::index::pair_files::PairFiles as _;
use crate::index::{device, stamp};
use crate::sys::clock::Moment;
use crate::sys::parallel;
use crate::sys::system::System;

/// Pairs that are looked at together.
const TOGETHER: usize = 64;

/// The pairs that need no reading.
pub(super) struct KnownPairs {
    stamp: Option<Stamp>,
    /// Those that are trusted.
    pairs: Vec<KnownPair>,
    names: HashSet<String>,
    /// How many were written down.
    written: usize,
}

impl KnownPairs {
    /// Looks at the files of every pair that was read before, and knows those that are trusted and are as they were
    /// published. Whatever is wrong, nothing is known. `everything`: all of it is to be read.
    pub(super) fn recall(
        settings: &Settings,
        folder: &CacheFolder,
        tree: &CertbotTree,
        published: &BTreeMap<&str, &PageEntry>,
        everything: bool,
    ) -> Self {
        let began = Moment::now();
        let stamp = stamp(settings, &System::host(), &began);
        let nothing = Self { stamp, pairs: Vec::new(), names: HashSet::new(), written: 0 };
        let known = folder.known_pairs().and_then(|bytes| known_pair::read(&bytes));
        let Some(((written, pairs), now)) = known.zip(stamp).filter(|_| !everything) else { return nothing };
        let Some(files) = tree.files().filter(|_| written.is_continued_by(&now)) else { return nothing };
        let Some(device) = device(files.place()) else { return nothing };
        let count = pairs.len();
        let is_trusted = |pair: &KnownPair, path: &mut String| {
            let is_published = published.get(&*pair.lineage).is_some_and(|it| it.content == pair.content);
            is_published
                && files
                    .look(&pair.lineage, path)
                    .is_some_and(|found| pair.is_trusted(&written, device, found))
        };
        let chunks: Vec<&[KnownPair]> = pairs.chunks(TOGETHER).collect();
        let judged = parallel::map(
            &chunks,
            |chunk| {
                let mut path = String::new();
                chunk.iter().map(|pair| is_trusted(pair, &mut path)).collect::<Vec<bool>>()
            },
            &|_, _| (),
        );
        // What was written after the clock was set may have the time of its last change again.
        if began.was_set_until(&Moment::now()) {
            return nothing;
        }
        let trusted = pairs.into_iter().zip(judged.into_iter().flatten()).filter(|(_, is)| *is);
        let pairs: Vec<KnownPair> = trusted.map(|(pair, _)| pair).collect();
        let names = pairs.iter().map(|pair| pair.lineage.clone()).collect();
        Self { pairs, names, written: count, ..nothing }
    }

    /// Whether this lineage is as it was published.
    pub(super) fn has(&self, lineage: &str) -> bool {
        self.names.contains(lineage)
    }

    /// Writes down what is known now, where that is something else than before. Where it can't be, the next run reads more.
    pub(super) fn save(&self, folder: &CacheFolder, read: &[KnownPair]) {
        let Some(stamp) = &self.stamp else { return };
        let is_settled =
            |pair: &&KnownPair| [pair.key, pair.chain].iter().all(|it| it.is_settled(stamp.began));
        let settled: Vec<&KnownPair> = read.iter().filter(is_settled).collect();
        if !settled.is_empty() || self.pairs.len() != self.written {
            folder.keep_known_pairs(&known_pair::write(stamp, self.pairs.iter().chain(settled)));
        }
    }
}
