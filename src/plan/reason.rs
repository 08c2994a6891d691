//! Why a lineage is refused.

use serde::Serialize;

use crate::certified_key::Flaw;

/// Why a lineage is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The private key belongs to another certificate.
    KeyMismatch,
    /// The private key is well-formed, but its parts don't fit each other.
    KeyInconsistent,
    /// The private key is protected by a passphrase.
    KeyEncrypted,
    /// The private key can't be parsed.
    KeyUnreadable,
    /// There is no private key.
    KeyMissing,
    /// The private key is of a kind that no CA issues for or that can't be proved.
    KeyUnsupported,
    /// The private key is too small for HAProxy's TLS library.
    KeyTooSmall,
    /// A certificate of the chain can't be parsed.
    CertificateUnreadable,
    /// There is no certificate.
    CertificateMissing,
    /// Key and chain come from two different renewals.
    LineageTorn,
    /// Something else stands where a file should be.
    NotARegularFile,
    /// A file is larger than any key or chain.
    TooLarge,
    /// The lineage's name can't be a file name that HAProxy loads everywhere.
    NameUnsafe,
    /// It was issued before the deployed certificate.
    OlderThanDeployed,
    /// A staging or not-yet-valid certificate would replace a valid one.
    WouldReplaceGood,
    /// HAProxy itself would not load it.
    HaproxyRejects,
    /// The operating system could not read it.
    ReadError,
}

impl From<Flaw> for Reason {
    fn from(flaw: Flaw) -> Self {
        match flaw {
            Flaw::KeyMismatch => Self::KeyMismatch,
            Flaw::KeyInconsistent => Self::KeyInconsistent,
            Flaw::KeyEncrypted => Self::KeyEncrypted,
            Flaw::KeyUnreadable => Self::KeyUnreadable,
            Flaw::KeyMissing => Self::KeyMissing,
            Flaw::KeyUnsupported => Self::KeyUnsupported,
            Flaw::KeyTooSmall => Self::KeyTooSmall,
            Flaw::CertificateUnreadable => Self::CertificateUnreadable,
            Flaw::CertificateMissing => Self::CertificateMissing,
        }
    }
}

impl Reason {
    /// The report's word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::KeyMismatch => "key-mismatch",
            Self::KeyInconsistent => "key-inconsistent",
            Self::KeyEncrypted => "key-encrypted",
            Self::KeyUnreadable => "key-unreadable",
            Self::KeyMissing => "key-missing",
            Self::KeyUnsupported => "key-unsupported",
            Self::KeyTooSmall => "key-too-small",
            Self::CertificateUnreadable => "certificate-unreadable",
            Self::CertificateMissing => "certificate-missing",
            Self::LineageTorn => "lineage-torn",
            Self::NotARegularFile => "not-a-regular-file",
            Self::TooLarge => "too-large",
            Self::NameUnsafe => "name-unsafe",
            Self::OlderThanDeployed => "older-than-deployed",
            Self::WouldReplaceGood => "would-replace-good",
            Self::HaproxyRejects => "haproxy-rejects",
            Self::ReadError => "read-error",
        }
    }

    /// The next step, where the fact alone doesn't name one.
    #[must_use]
    pub fn advice(self) -> Option<&'static str> {
        match self {
            Self::KeyMismatch
            | Self::KeyInconsistent
            | Self::KeyUnreadable
            | Self::KeyMissing
            | Self::CertificateUnreadable => {
                Some("issue it again: certbot renew --force-renewal --cert-name NAME")
            }
            Self::CertificateMissing => Some("issue it again, or remove it: certbot delete --cert-name NAME"),
            Self::KeyEncrypted => Some("take the passphrase off it, or let certbot make a new key"),
            Self::KeyUnsupported => Some("issue it with --key-type ecdsa or rsa"),
            Self::KeyTooSmall => Some("issue it with --rsa-key-size 2048 or more"),
            Self::LineageTorn => Some("run certbot renew, which mends an interrupted renewal"),
            Self::NotARegularFile | Self::TooLarge => Some("put certbot's own file or link back"),
            Self::HaproxyRejects => {
                Some("it is tried again when the lineage, HAProxy or its configuration changes")
            }
            Self::NameUnsafe | Self::OlderThanDeployed | Self::WouldReplaceGood | Self::ReadError => None,
        }
    }
}
