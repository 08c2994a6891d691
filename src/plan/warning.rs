//! What is worth knowing about a file that is deployed.

use serde::Serialize;

/// What is worth knowing about a file although it doesn't keep it from being deployed.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, strum::IntoStaticStr, strum::VariantArray,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Warning {
    /// The certificate has expired.
    Expired,
    /// Less than a quarter of its life is left.
    ExpiresSoon,
    /// Its life hasn't begun.
    NotYetValid,
    /// The leaf stands alone and didn't sign itself.
    ChainIncomplete,
    /// A certificate wasn't issued by the one after it.
    ChainOrder,
    /// It comes from a staging CA, which no client trusts.
    StagingIssuer,
    /// Another file that sorts before it serves one of its names.
    Shadowed,
    /// Another file than before answers clients that name no site.
    DefaultCertificateChanged,
    /// Others than the owner may read certbot's key file.
    LoosePermissions,
    /// There are `.key`, `.ocsp`, `.issuer` or `.sctl` files beside it, which HAProxy loads with it.
    SiblingFiles,
    /// HAProxy could not be asked whether it would load it.
    NotChecked,
    /// It would have been pruned if a guard didn't hold it.
    PruneHeld,
}

impl Warning {
    /// The report's word.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.into()
    }
}
