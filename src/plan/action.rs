//! What is done with a file.

use serde::Serialize;

/// What is done with a file.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, strum::IntoStaticStr, strum::VariantArray,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Action {
    /// The lineage has no file yet.
    Install,
    /// Its file differs from what certbot has now.
    Replace,
    /// Right bytes, wrong owner or mode.
    Repair,
    /// Nothing to do.
    Unchanged,
    /// Ours, and the lineage is gone or excluded.
    Prune,
    /// The lineage fails; what is deployed stays as it is.
    Refuse,
    /// A file that isn't ours has the name that a lineage needs; it stays.
    Conflict,
    /// Any other file that isn't ours; it stays.
    Foreign,
}

impl Action {
    /// The report's word.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// Whether it changes something on disk.
    #[must_use]
    pub fn is_change(self) -> bool {
        self.writes() || self == Self::Prune
    }

    /// Whether it writes a PEM.
    #[must_use]
    pub fn writes(self) -> bool {
        matches!(self, Self::Install | Self::Replace | Self::Repair)
    }
}
