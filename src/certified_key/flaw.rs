//! Why a pair is refused: a name for scripts and a fact for people.

use std::fmt;

/// Why a private key and a chain are no proved pair.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, strum::IntoStaticStr, strum::VariantArray,
)]
#[strum(serialize_all = "kebab-case")]
pub enum Flaw {
    /// The private key is whole, but belongs to another certificate.
    KeyMismatch,
    /// The private key is well-formed, but its numbers don't fit together.
    KeyInconsistent,
    /// The private key is encrypted.
    KeyEncrypted,
    /// The private key is damaged, or isn't PEM.
    KeyUnreadable,
    /// There is no private key.
    KeyMissing,
    /// The key is of a kind that isn't proved here: another algorithm, another curve, an uncommon encoding.
    KeyUnsupported,
    /// The RSA key has fewer than 2048 bits.
    KeyTooSmall,
    /// A certificate of the chain is damaged, or isn't PEM.
    CertificateUnreadable,
    /// There is no certificate.
    CertificateMissing,
}

impl Flaw {
    /// The name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// This flaw with a fact for people.
    pub(super) fn because(self, detail: impl Into<String>) -> Unproved {
        Unproved { flaw: self, detail: detail.into() }
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A refusal: the flaw, and a fact for people that is ASCII and never holds key material.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Unproved {
    /// What is wrong.
    pub flaw: Flaw,
    /// The fact, in lower case, such as `the 2nd certificate has no END line`.
    pub detail: String,
}
