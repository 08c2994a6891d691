//! The certificates behind the leaf, and whether each was issued by the next.

use serde::{Deserialize, Serialize};

use super::leaf::parse;
use crate::certified_key::issuer::issued;

/// A certificate of the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    der: Vec<u8>,
}

impl Certificate {
    pub(super) fn new(der: Vec<u8>) -> Self {
        Self { der }
    }

    /// Its DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }
}

/// Whether a chain leads from the leaf upwards. Where it ends isn't judged: a root at its end is fine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChainState {
    /// Every certificate was issued by the one after it.
    Complete,
    /// The leaf stands alone and didn't sign itself.
    Incomplete,
    /// A certificate wasn't issued (name and signature) by the one after it.
    Disordered {
        /// The first such certificate; 1 is the leaf.
        certificate: u32,
    },
}

/// Judges a chain, leaf first.
pub(super) fn state(certificates: &[Certificate]) -> ChainState {
    let all: Vec<_> = certificates
        .iter()
        .enumerate()
        .filter_map(|(place, certificate)| parse(&certificate.der, place).ok())
        .collect();
    match &all[..] {
        [leaf] if !issued(leaf, leaf) => ChainState::Incomplete,
        _ => {
            let mut links = (1..).zip(all.iter().zip(all.iter().skip(1)));
            match links.find(|(_, (subject, issuer))| !issued(subject, issuer)) {
                Some((certificate, _)) => ChainState::Disordered { certificate },
                None => ChainState::Complete,
            }
        }
    }
}
