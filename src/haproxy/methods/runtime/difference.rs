//! What speaks against an update in memory: what HAProxy has otherwise than the disk, or loads beside a certificate.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::settled::{Settled, changed_since};
use super::shown::{is_of, served_otherwise};
use super::update::{Stop, Update};
use crate::haproxy::cli::replies::{Listing, ShownStore};
use crate::haproxy::cli::worker::can_be_shown;
use crate::haproxy::memory::{Filling, Memory, Step};
use crate::haproxy::target::Target;
use crate::serving::contents::{chain_len, identity};
use crate::serving::in_memory::SHOWS_NAMES_SINCE;
use crate::serving::loads::{Contents, Identity, Named, Store};
use crate::sys::change_time::changed_at;
use crate::sys::escape::{escaped, escaped_path};

/// How many files beside the batch HAProxy is asked for, and how many of ours are among them: the cost of an update mustn't
/// grow with what is there.
const ASKED_AT_MOST: usize = 1000;
const OURS_ASKED_AT_MOST: usize = 100;

/// How memory is otherwise than the disk, beside the batch.
pub(super) enum Difference {
    /// It is.
    Seen(String),
    /// It may be: HAProxy can't be asked.
    Unseen(String),
}

impl Update<'_> {
    /// Why a step must not be taken, for what HAProxy loads beside the certificate.
    pub(super) fn obstacle(
        &self,
        step: &Step,
        target: Option<&Target>,
        on_disk: Option<&Store>,
        worker: Settled,
    ) -> Option<String> {
        // A commit drops it, or ends HAProxy, see `siblings`.
        if let Some(extra) = on_disk.and_then(|store| store.extra.as_ref()) {
            return Some(format!("HAProxy loads it with {}", escaped(extra)));
        }
        let ours = |store: &Store| {
            let ours = self.batch.ours.iter().find(|(_, identity)| Some(**identity) == store.identity)?;
            Some(self.batch.homes.path(ours.0))
        };
        let home = target.map(|target| self.batch.homes.path(target)).or_else(|| on_disk.and_then(ours));
        let paths: Vec<PathBuf> = home.into_iter().chain(on_disk.map(|store| store.path.clone())).collect();
        if paths.is_empty() {
            return Some("whether HAProxy loads something with it isn't known".to_owned());
        }
        // Of a new one memory has nothing.
        let is_new = matches!(step, Step::Fill { how: Filling::Add { .. }, .. });
        let loaded = (!is_new).then(|| worker.answering.started(self.system));
        paths.iter().find_map(|path| self.batch.homes.obstacle(path, loaded))
    }

    /// The first difference between memory and disk that this batch doesn't make up for.
    pub(super) fn difference(
        &self,
        memory: &Memory<'_>,
        worker: Settled,
    ) -> Result<Option<Difference>, Stop> {
        let told = self.batch.stores(self.haproxy);
        if let Some(difference) = memory.difference(&told) {
            return Ok(Some(Difference::Seen(difference)));
        }
        if let Some(reader) = self.reader() {
            return Ok(Some(Difference::Seen(reader)));
        }
        let stores = self.batch.serving.stores.values().filter(|store| store.extra.is_none());
        let paths = stores.map(|store| store.path.as_path()).filter(|path| path.is_absolute());
        let started = worker.answering.started(self.system);
        let since = if worker.is_fresh { worker.read_since(self.system) } else { started };
        if let Some(change) = self.batch.homes.change(paths, (since, started)) {
            return Ok(Some(Difference::Seen(change)));
        }
        let extras =
            self.batch.serving.stores.values().filter_map(|store| store.extra.as_ref()?.split_once(' '));
        let mut extras = extras.map(|(_, file)| Path::new(file)).filter(|file| file.is_absolute());
        if let Some(file) = extras.find(|file| changed_at(file).is_none_or(|changed| changed >= since)) {
            let why = format!("{}: HAProxy may not have read it", escaped_path(file));
            return Ok(Some(Difference::Seen(why)));
        }
        self.others(memory, &told, worker)
    }

    /// The first certificate beside the batch that HAProxy has otherwise than the disk: others replace them in memory, with
    /// whatever names. Of ours, whose number is anything, only some are asked for: what this program gave it is known, and from
    /// 3.2 on their names tell, see [`served_otherwise`].
    fn others(
        &self,
        memory: &Memory<'_>,
        told: &BTreeSet<String>,
        worker: Settled,
    ) -> Result<Option<Difference>, Stop> {
        let ours: BTreeSet<Identity> = self.batch.ours.values().copied().collect();
        let is_ours = |store: &Store| store.identity.is_some_and(|identity| ours.contains(&identity));
        let shows_names = worker.answering.version >= Some(SHOWS_NAMES_SINCE);
        let (started, read_since) = (worker.answering.started(self.system), worker.read_since(self.system));
        let stores = self.batch.serving.stores.iter();
        let others = stores.filter(|(name, _)| !told.contains(*name) && memory.has(name));
        let (own, foreign): (Vec<_>, Vec<_>) = others.partition(|(_, store)| is_ours(store));
        let own = own.into_iter().take(OURS_ASKED_AT_MOST);
        for (asked, (name, store)) in foreign.into_iter().chain(own).enumerate() {
            let Contents::Pair(leaf) = &store.contents else { continue };
            // What is older than the worker it has read.
            let (is_ours, is_new) = (is_ours(store), changed_since(store, read_since));
            if is_ours && shows_names && !is_new {
                continue;
            }
            if worker.may_die_of(store, started) || !can_be_shown(leaf) || asked >= ASKED_AT_MOST {
                let why = format!("{}: HAProxy isn't asked for it", escaped(name));
                match (is_ours, is_new) {
                    (true, _) => continue,
                    (false, true) => return Ok(Some(Difference::Seen(why))),
                    // Its names are seen with all others.
                    (false, false) if shows_names => continue,
                    (false, false) => return Ok(Some(Difference::Unseen(why))),
                }
            }
            let shown = self.commands.worker.store(name, self.commands.deadline)?;
            // Through 2.2 a bundle can't be asked for.
            let is_it = |shown: &ShownStore| is_of(shown, &leaf.sha1, &leaf.serial);
            let other_chain = |shown: &ShownStore| {
                let must = || chain_len(&store.path);
                !is_ours
                    && is_new
                    && shown.chain_shown().is_some_and(|is| must().is_none_or(|must| is != must))
            };
            if shown.as_ref().is_some_and(other_chain) {
                let why = format!("{}: HAProxy has another chain with it", escaped(name));
                return Ok(Some(Difference::Seen(why)));
            }
            if !shown.as_ref().map_or(!is_new, is_it) {
                let why = format!("{}: HAProxy has another certificate", escaped(name));
                return Ok(Some(Difference::Seen(why)));
            }
        }
        Ok(None)
    }

    /// See [`served_otherwise`].
    pub(super) fn served_otherwise(
        &self,
        before: &Listing,
        worker: Settled,
        left: &dyn Fn(&Target) -> bool,
    ) -> Result<Option<String>, Stop> {
        let Self { haproxy, batch, commands, .. } = self;
        let version = worker.answering.version;
        Ok(served_otherwise(haproxy, batch, commands.worker, (version, before), left, commands.deadline)?)
    }

    /// What HAProxy reads a file of the batch for besides, and keeps as it was.
    fn reader(&self) -> Option<String> {
        let changed = self.batch.changes.iter().map(|change| self.batch.homes.path(&change.target));
        let changed: Vec<PathBuf> = changed.collect();
        let places = changed.iter().flat_map(|path| [Some(path.as_path()), path.parent()]).flatten();
        let places: BTreeSet<Identity> =
            places.collect::<BTreeSet<_>>().into_iter().filter_map(identity).collect();
        let is_read = |named: &&Named| named.identity.is_some_and(|it| places.contains(&it));
        let Named { path, at, .. } = self.batch.serving.readers.iter().find(is_read)?;
        Some(format!("HAProxy keeps what it has read from {} for {at}", escaped(path)))
    }
}
