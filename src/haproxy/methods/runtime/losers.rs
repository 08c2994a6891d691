//! Certificates that share a name with a changed one and come behind it: they are committed again, so that the order of a
//! start is restored.

use std::collections::{BTreeMap, BTreeSet};

use rustix::fs::CWD;
use zeroize::Zeroizing;

use super::job::{Job, can_be_sent};
use super::settled::Settled;
use super::shown::is_of;
use super::update::{Stop, Update};
use crate::certified_key::CertifiedKey;
use crate::haproxy::cli::worker::{can_be_shown, is_plain};
use crate::haproxy::memory::{File, Memory, Step};
use crate::haproxy::target::Target;
use crate::serving::loads::Store;
use crate::sys::escape::escaped;
use crate::sys::safe_read::read_regular;

/// Why a certificate can't be committed again.
#[derive(Debug, thiserror::Error)]
#[error("{} can't be committed again: {how}", escaped(.store))]
struct NotAgain {
    store: String,
    how: String,
}

/// A certificate that is committed again.
pub(super) struct Loser {
    pub(super) store: String,
    pub(super) pem: Zeroizing<Vec<u8>>,
}

/// What is said of a certificate that has a stapled OCSP response, from whatever file.
pub(super) const STAPLED: &str = "HAProxy staples an OCSP response to it, which a commit would drop";

/// What a PEM must not have that is made anew from its key and certificates.
const DH: &[u8] = b"-----BEGIN DH PARAMETERS";

impl Update<'_> {
    /// The steps for all files that can be sent, in order, and the certificates that must be committed again after them. A
    /// file is left out if one of these can't be, and so is a file that can't be sent without it.
    pub(super) fn with_losers(
        &self,
        (memory, apart, worker): (&Memory<'_>, &BTreeMap<String, String>, Settled),
        jobs: &[Job<'_>],
        files: &[File<'_>],
        told: &mut [Option<Vec<Step>>],
        left: &mut Vec<(Target, String)>,
    ) -> Result<(Vec<Step>, Vec<Loser>), Stop> {
        let mut losers: Vec<Loser> = Vec::new();
        loop {
            let all: Vec<Step> = told.iter().flatten().flatten().cloned().collect();
            // Alone they may have an order where together they have none.
            let sequence = memory.sequence(all, files);
            let wanted: BTreeSet<&str> = sequence
                .iter()
                .flatten()
                .filter(|step| step.file().is_none())
                .map(Step::store)
                .filter(|store| losers.iter().all(|loser| loser.store != *store))
                .collect();
            let mut impossible: BTreeMap<String, NotAgain> = BTreeMap::new();
            for store in wanted {
                let loser = match apart.get(store) {
                    Some(why) => Err(NotAgain { store: store.to_owned(), how: format!("it {why}") }),
                    None => self.loser(store, memory.store(store), worker),
                };
                match loser {
                    Ok(loser) => losers.push(loser),
                    Err(how) => drop(impossible.insert(store.to_owned(), how)),
                }
            }
            let mut is_whole = true;
            for (steps, job) in told.iter_mut().zip(jobs) {
                let Some(of_it) = &*steps else { continue };
                let obstacle = match memory.sequence(of_it.clone(), files) {
                    Ok(alone) => alone.into_iter().find_map(|step| match step {
                        Step::Again { store, why } => Some(format!("{why}: {}", impossible.get(&store)?)),
                        Step::Fill { .. } => None,
                    }),
                    Err(why) => Some(why.to_string()),
                };
                if let Some(why) = obstacle {
                    is_whole = false;
                    *steps = None;
                    left.push((job.target.clone(), why));
                }
            }
            if is_whole {
                return Ok((sequence?, losers));
            }
        }
    }

    /// What a store has that is to be committed again, where the disk has the same.
    fn loser(&self, store: &str, on_disk: Option<&Store>, worker: Settled) -> Result<Loser, NotAgain> {
        let cannot = |how: &str| NotAgain { store: store.to_owned(), how: how.to_owned() };
        let again = Step::Again { store: store.to_owned(), why: String::new() };
        if let Some(why) = self.obstacle(&again, None, on_disk, worker) {
            return Err(cannot(&why));
        }
        let on_disk = on_disk.ok_or_else(|| cannot("it isn't known"))?;
        let (pem, _) =
            read_regular(&CWD, on_disk.path.as_os_str()).map_err(|unopened| cannot(&unopened.to_string()))?;
        if pem.windows(DH.len()).any(|part| part == DH) {
            return Err(cannot("it has parameters of its own"));
        }
        let proved = CertifiedKey::prove(&pem, &pem).map_err(|unproved| cannot(&unproved.detail))?;
        let pem = Zeroizing::new(proved.combined_pem().as_bytes().to_vec());
        can_be_sent(store, &pem).map_err(|how| cannot(&how.to_string()))?;
        let leaf = proved.leaf();
        let is_ours = || self.batch.ours.values().any(|identity| Some(*identity) == on_disk.identity);
        let is_dangerous = worker.may_die_of(on_disk, worker.answering.started(self.system)) && !is_ours();
        if is_dangerous || !is_plain(store) || !can_be_shown(leaf) {
            return Err(cannot("HAProxy can't be asked for it"));
        }
        match self.commands.worker.store(store, self.commands.deadline) {
            Ok(Some(shown)) if shown.has_ocsp => Err(cannot(STAPLED)),
            Ok(Some(shown))
                if is_of(&shown, &leaf.sha1, &leaf.serial) && shown.chain_len == proved.chain().len() =>
            {
                Ok(Loser { store: store.to_owned(), pem })
            }
            Ok(_) => Err(cannot("HAProxy has something else than the disk")),
            Err(trouble) => Err(cannot(&trouble.to_string())),
        }
    }
}
