//! What is worth knowing about a file that is deployed.

use std::collections::BTreeMap;

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

/// The warnings of a file, in the order of [`Warning`], each with its own fact where it has one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Warnings(BTreeMap<Warning, Option<String>>);

impl Warnings {
    /// A warning that says it all.
    pub fn add(&mut self, warning: Warning) {
        self.0.entry(warning).or_default();
    }

    /// A warning with its fact, one line of ASCII; one that it has already stays.
    pub fn explain(&mut self, warning: Warning, fact: impl Into<String>) {
        self.0.entry(warning).or_default().get_or_insert_with(|| fact.into());
    }

    /// The same where its fact is the better one, whatever was known before.
    pub fn correct(&mut self, warning: Warning, fact: impl Into<String>) {
        self.0.insert(warning, Some(fact.into()));
    }

    /// Takes a warning away; whether it was there.
    pub fn remove(&mut self, warning: Warning) -> bool {
        self.0.remove(&warning).is_some()
    }

    /// Takes all of them away.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Whether it is one of them.
    #[must_use]
    pub fn has(&self, warning: Warning) -> bool {
        self.0.contains_key(&warning)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A warning's fact.
    #[must_use]
    pub fn fact(&self, warning: Warning) -> Option<&str> {
        self.0.get(&warning)?.as_deref()
    }

    /// The fact that stands for all: why a file is kept says more than whom it is served beside.
    #[must_use]
    pub fn first_fact(&self) -> Option<&str> {
        self.fact(Warning::PruneHeld).or_else(|| self.0.values().find_map(Option::as_deref))
    }

    /// They.
    pub fn iter(&self) -> impl Iterator<Item = Warning> + '_ {
        self.0.keys().copied()
    }

    /// The report's words.
    #[must_use]
    pub fn names(&self) -> Vec<&'static str> {
        self.iter().map(Warning::name).collect()
    }
}

impl Extend<Warning> for Warnings {
    fn extend<T: IntoIterator<Item = Warning>>(&mut self, warnings: T) {
        warnings.into_iter().for_each(|warning| self.add(warning));
    }
}
