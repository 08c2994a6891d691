//! Why a lineage is refused.

use serde::{Serialize, Serializer};

use crate::certified_key::Flaw;
use crate::plan::client::Client;

/// Why a lineage is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum Reason {
    /// Key and chain are no proved pair.
    #[strum(transparent)]
    Unproved(Flaw),
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
    /// The operating system could not read or write one of its files.
    #[strum(serialize = "read-error")]
    Io,
}

impl From<Flaw> for Reason {
    fn from(flaw: Flaw) -> Self {
        Self::Unproved(flaw)
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl Reason {
    /// The report's word.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// The next step, where the fact alone doesn't name one; NAME stands for the lineage's.
    #[must_use]
    pub fn advice(self, client: Client) -> Option<String> {
        let again = |verb: &str, options: &str| {
            format!("{verb}{}", client.by(&format!("renew --force-renewal --cert-name NAME{options}")))
        };
        match self {
            Self::Unproved(
                Flaw::KeyMismatch | Flaw::KeyInconsistent | Flaw::KeyUnreadable | Flaw::CertificateUnreadable,
            ) => Some(again("issue it again", "")),
            // It depends on what certbot still has of it.
            Self::Unproved(Flaw::CertificateMissing | Flaw::KeyMissing)
            | Self::LineageTorn
            | Self::NotARegularFile
            | Self::TooLarge => Some("what mends it says: haproxy-certs status".to_owned()),
            Self::Unproved(Flaw::KeyEncrypted) if client == Client::Certbot => {
                Some(again("let certbot make a new one", ""))
            }
            Self::Unproved(Flaw::KeyEncrypted) => {
                Some(again("issue it again, with a key that isn't encrypted,", ""))
            }
            Self::Unproved(Flaw::KeyUnsupported) => {
                Some(again("issue it again with another one", " --key-type ecdsa"))
            }
            Self::Unproved(Flaw::KeyTooSmall) => {
                Some(again("issue it again with a larger one", " --rsa-key-size 2048"))
            }
            Self::HaproxyRejects => {
                Some("it is tried again when the lineage, HAProxy or its configuration changes".to_owned())
            }
            Self::NameUnsafe | Self::OlderThanDeployed | Self::WouldReplaceGood | Self::Io => None,
        }
    }
}
