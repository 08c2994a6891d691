//! What a publisher published last, for its status.

use crate::fleet::head::SignedHead;
use crate::status::observation::Sight;

/// What this host published last.
#[derive(Debug, Clone)]
pub struct LastEdition {
    /// The fleet's name.
    pub fleet: String,
    /// Where its store is.
    pub store: String,
    /// The head that this host put there.
    pub head: Sight<SignedHead>,
    /// How many lineages that names.
    pub lineages: usize,
    /// Whether to publish is all that this host does: nothing is deployed here.
    pub is_all: bool,
}
