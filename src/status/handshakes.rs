//! What a HAProxy presents to its clients: a TLS handshake for each name of each file.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::observation::{Presented, Sight};
use crate::certified_key::{Leaf, leaf_of_der, sha256};
use crate::haproxy::tls_probe::{ProbeError, presented, server_name};
use crate::sys::escape::escaped;
use crate::sys::host_port::HostPort;
use crate::sys::parallel;

/// How many handshakes are under way at once.
const AT_ONCE: usize = 16;

/// A file whose names are asked for.
pub struct Asked<'a> {
    /// Its place in the list of sites.
    pub site: usize,
    /// What must be presented.
    pub leaf: &'a Arc<Leaf>,
    /// The names that HAProxy serves from it.
    pub names: Vec<String>,
}

/// What came of one HAProxy's handshakes.
#[derive(Debug, Default)]
pub struct Answers {
    /// By the site's place; a site that isn't here could not be asked for.
    pub sites: BTreeMap<usize, Presented>,
    /// Why some handshakes could not be done: the first cause.
    pub unseen: Option<String>,
}

/// Nobody at an address presented anything.
#[derive(Debug, thiserror::Error)]
#[error("{address}: {}", escaped(&.why.to_string()))]
struct Mute<'a> {
    address: &'a HostPort,
    why: ProbeError,
}

struct Probe<'a> {
    address: &'a HostPort,
    name: String,
    asked: &'a Asked<'a>,
}

/// Asks every address for every name, the first name of every file first, until the time is up.
#[must_use]
pub fn ask(addresses: &[HostPort], files: &[Asked<'_>], deadline: Instant) -> Answers {
    let probes = probes(addresses, files);
    let mut answers = Answers::default();
    let seen = parallel::at_once(&probes, AT_ONCE, |probe| probe.run(deadline));
    for (probe, seen) in probes.iter().zip(seen) {
        answers.add(probe, seen);
    }
    answers
}

fn probes<'a>(addresses: &'a [HostPort], files: &'a [Asked<'a>]) -> Vec<Probe<'a>> {
    let mut probes: Vec<(usize, Probe<'a>)> = Vec::new();
    for asked in files {
        for (rank, name) in asked.names.iter().filter_map(|name| server_name(name)).enumerate() {
            probes
                .extend(addresses.iter().map(|address| (rank, Probe { address, name: name.clone(), asked })));
        }
    }
    probes.sort_by_key(|(rank, _)| *rank);
    probes.into_iter().map(|(_, probe)| probe).collect()
}

impl<'a> Probe<'a> {
    /// What is presented; the cause where nobody answers.
    fn run(&self, deadline: Instant) -> Result<Presented, Mute<'a>> {
        let asked = || format!("{} at {}", escaped(&self.name), self.address);
        match presented(self.address, &self.name, &self.asked.leaf.key_type, deadline) {
            Ok(der) if sha256(&der) == self.asked.leaf.sha256 => Ok(Presented::Right),
            Ok(der) => {
                let leaf = leaf_of_der(&der).ok().map(Box::new);
                Ok(Presented::Other { asked: asked(), leaf })
            }
            Err(ProbeError::Tls(why)) => {
                Ok(Presented::Refused { asked: asked(), why: escaped(&why.to_string()).to_string() })
            }
            Err(why) => Err(Mute { address: self.address, why }),
        }
    }
}

impl Answers {
    /// Adds an answer: one that is wrong is kept.
    fn add(&mut self, probe: &Probe<'_>, seen: Result<Presented, Mute<'_>>) {
        match seen {
            Ok(seen) => {
                let known = self.sites.entry(probe.asked.site).or_insert(Presented::Right);
                if *known == Presented::Right {
                    *known = seen;
                }
            }
            Err(mute) => {
                self.unseen.get_or_insert_with(|| mute.to_string());
            }
        }
    }

    /// What was seen of a site.
    pub fn take(&mut self, site: usize) -> Sight<Presented> {
        self.sites.remove(&site).map_or(Sight::Unseen, Sight::Here)
    }
}
