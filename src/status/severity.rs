//! The words of a status: how bad it is, what a place holds, and what is wrong.

use serde::{Serialize, Serializer};

use crate::fleet::trouble::FleetTrouble;
use crate::plan::reason::Reason;
use crate::plan::warning::Warning;

/// How bad something is, the worst last: what is known to be wrong counts more than what can't be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, strum::IntoStaticStr)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Severity {
    /// Nothing to do.
    Ok,
    /// It can't be seen.
    Unknown,
    /// To be looked at soon.
    Warning,
    /// Visitors see it, or will in a moment.
    Critical,
}

impl Severity {
    /// Every severity, the worst first.
    pub const ALL: [Self; 4] = [Self::Critical, Self::Warning, Self::Unknown, Self::Ok];

    /// The report's word.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// The number that monitoring plugins exit with.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Warning => 1,
            Self::Critical => 2,
            Self::Unknown => 3,
        }
    }
}

/// What a place holds, compared with the place that it is filled from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, strum::IntoStaticStr)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum PlaceState {
    /// What it should.
    Current,
    /// Something else, or what should be gone.
    Stale,
    /// Nothing.
    Missing,
    /// Something that isn't ours.
    Foreign,
    /// It can't be seen.
    Unknown,
}

impl PlaceState {
    /// The report's word.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// What can be wrong with a site, or with all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum ProblemKind {
    /// The lineage is refused.
    #[strum(transparent)]
    Refused(Reason),
    /// The plan's warning.
    #[strum(transparent)]
    Warned(Warning),
    /// A file that isn't ours has the name that a lineage needs.
    Conflict,
    /// Another file that isn't ours.
    Foreign,
    /// certbot has a certificate, and there is no file.
    DiskMissing,
    /// HAProxy would load the file, and can't: it won't start again.
    Unloadable,
    /// The file isn't what certbot has.
    DiskStale,
    /// certbot has a certificate, and what this host published isn't that.
    NotPublished,
    /// HAProxy has or presents another certificate than the file's.
    HaproxyStale,
    /// HAProxy doesn't serve the file.
    HaproxyMissing,
    /// HAProxy's configuration names the directory's files one by one, and not this one.
    NotListed,
    /// No client is presented it: it has only addresses, and no bind has it first.
    NotPresented,
    /// The certificate demands an OCSP response, and HAProxy has none: clients that obey refuse it.
    OcspMissing,
    /// A HAProxy is still to be notified.
    ReloadOwed,
    /// A unit, a pidfile or a socket says that HAProxy should run, and it doesn't.
    HaproxyDown,
    /// HAProxy refuses its configuration.
    HaproxyConfig,
    /// certbot renewed, and nothing followed.
    HookNotRunning,
    /// certbot's configuration names a hook whose program isn't there.
    HookBroken,
    /// certbot should have renewed, and hasn't.
    RenewalOverdue,
    /// Something is wrong with the fleet that this host belongs to.
    #[strum(transparent)]
    Fleet(FleetTrouble),
    /// The last run could not be done, or not to its end.
    RunFailed,
    /// The settings name a program or a file that isn't there.
    SettingsBroken,
}

impl ProblemKind {
    /// The report's word.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.into()
    }
}

impl Serialize for ProblemKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}
