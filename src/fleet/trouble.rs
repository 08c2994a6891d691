//! What can be wrong with a fleet, in one word each, and what to do about it. Pure.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use serde::{Deserialize, Serialize};
use strum::VariantArray as _;

use crate::fleet::accept::RefusedHead;
use crate::fleet::store::{StoreError, StoreKey};

/// A trouble of a fleet.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    strum::IntoStaticStr,
    strum::VariantArray,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum FleetTrouble {
    /// The store can't be asked.
    FleetUnreachable,
    /// The store has no head.
    FleetEmpty,
    /// The head is past its time.
    FleetStale,
    /// The store's head is older than one that counted here.
    FleetRollback,
    /// It has the number of one that counted here, and is another.
    FleetFork,
    /// The head is damaged.
    FleetHeadDamaged,
    /// Somebody signed the head whom this host doesn't know.
    FleetUnknownPublisher,
    /// The head is of another fleet.
    FleetOther,
    /// The head, or a node's report, is from the future.
    FleetClock,
    /// What the head names isn't all in the store.
    FleetIncomplete,
    /// What the store has isn't what the head names.
    FleetDamaged,
    /// The head doesn't name this host.
    FleetNotANode,
    /// The head isn't confirmed by the nodes that this one waits for.
    FleetWaiting,
    /// Nothing has looked at the store for an hour, or nothing can, or what is there can't be kept here.
    FleetNotFollowed,
    /// This node's own report could not be put.
    FleetUnreported,
    /// A node has never reported, or not with the key that it has now.
    FleetNodeMissing,
    /// A node hasn't reported for an hour.
    FleetNodeSilent,
    /// A node has an earlier head.
    FleetNodeBehind,
    /// A node reports that something isn't deployed or served.
    FleetNodeFailed,
    /// A node was removed or has another key, and what was its key can still read.
    FleetNotRotated,
    /// What stands for a node's report wasn't signed by it.
    FleetReportForged,
    /// A certificate that is published, or that a node serves, has expired.
    Expired,
    /// Less than a tenth is left of the life of one.
    ExpiresSoon,
    /// On the publisher: what is published isn't what certbot has.
    NotPublished,
    /// On the publisher: the last publish failed, or the next one will.
    RunFailed,
}

impl FleetTrouble {
    /// The report's word.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// What a refused head is.
    #[must_use]
    pub fn of(refused: &RefusedHead) -> Self {
        match refused {
            RefusedHead::Damaged(_) => Self::FleetHeadDamaged,
            RefusedHead::UnknownPublisher(_) => Self::FleetUnknownPublisher,
            RefusedHead::OtherFleet(_) => Self::FleetOther,
            RefusedHead::Future { .. } => Self::FleetClock,
            RefusedHead::Rollback { .. } | RefusedHead::EpochBack { .. } | RefusedHead::Older { .. } => {
                Self::FleetRollback
            }
            RefusedHead::Fork { .. } => Self::FleetFork,
            RefusedHead::Expired { .. } => Self::FleetStale,
        }
    }

    /// What a store's error is: it can't be asked, or what it has for a value can't be one.
    #[must_use]
    pub fn of_store(error: &StoreError) -> Self {
        match error.of_value() {
            None => Self::FleetUnreachable,
            Some(StoreKey::Head) => Self::FleetHeadDamaged,
            Some(StoreKey::Report(_)) => Self::FleetReportForged,
            Some(StoreKey::Page(_) | StoreKey::Object(_) | StoreKey::EpochKey { .. }) => Self::FleetDamaged,
        }
    }

    /// Whether only somebody who changes what isn't theirs brings it about, or a mistake that looks just so.
    #[must_use]
    pub fn is_alarm(self) -> bool {
        matches!(
            self,
            Self::FleetRollback
                | Self::FleetFork
                | Self::FleetHeadDamaged
                | Self::FleetUnknownPublisher
                | Self::FleetOther
                | Self::FleetDamaged
                | Self::FleetReportForged
        )
    }

    /// Whether this is the word of such a trouble.
    #[must_use]
    pub fn is_alarms_name(word: &str) -> bool {
        Self::VARIANTS.iter().any(|it| it.is_alarm() && it.name() == word)
    }

    /// Whether this is the word of a certificate that ends, or has.
    #[must_use]
    pub fn is_of_ending(word: &str) -> bool {
        [Self::Expired, Self::ExpiresSoon].iter().any(|it| it.name() == word)
    }

    /// What to do about it.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            Self::FleetUnreachable => {
                "see whether the store answers this host; the node goes on with what it has"
            }
            Self::FleetEmpty | Self::NotPublished => "on the publisher, run: haproxy-certs fleet publish",
            Self::FleetStale => {
                "see on the publisher whether its timer runs; there, run: haproxy-certs fleet publish"
            }
            Self::FleetRollback => {
                "the store was restored from a backup, or somebody changes it; on the publisher, run: haproxy-certs fleet publish"
            }
            Self::FleetFork => {
                "two hosts publish with one identity, or the store lies; take the second publisher away, and on the first, run: haproxy-certs fleet publish --take-over"
            }
            Self::FleetOther => {
                "set name and store of [fleet] right, here or on the host that published it; if the store is this fleet's, on the publisher, run: haproxy-certs fleet publish --take-over"
            }
            Self::FleetHeadDamaged => {
                "somebody wrote to the store who shouldn't; on the publisher, run: haproxy-certs fleet publish"
            }
            Self::FleetUnknownPublisher => {
                "if the publisher was replaced, add its ssh-ed25519 line to publishers; otherwise somebody else writes to the store"
            }
            Self::FleetClock => "set the clocks of the publisher, of the nodes and of this host",
            Self::FleetIncomplete => {
                "it may still be on its way; if it stays so, on the publisher, run: haproxy-certs fleet publish"
            }
            Self::FleetDamaged => {
                "somebody changed the store; on the publisher, run: haproxy-certs fleet publish"
            }
            Self::FleetNotANode => {
                "put what haproxy-certs fleet join prints here into the publisher's settings, and there, run: haproxy-certs fleet publish"
            }
            Self::FleetWaiting => "see why those nodes don't confirm it: haproxy-certs fleet status",
            Self::FleetNotFollowed => "run: systemctl status haproxy-certs-follow.service",
            Self::FleetUnreported => {
                "see whether this host may write to the store; the others don't know what it serves"
            }
            Self::FleetNodeMissing | Self::FleetNodeSilent => {
                "see on that node: systemctl status haproxy-certs-follow.service"
            }
            Self::FleetNodeBehind | Self::FleetNodeFailed => "see on that node: haproxy-certs status",
            Self::Expired | Self::ExpiresSoon => {
                "on the publisher, see why it isn't renewed: haproxy-certs status"
            }
            Self::RunFailed => "mend that; then on the publisher, run: haproxy-certs fleet publish",
            Self::FleetNotRotated => "run: haproxy-certs fleet rotate; what it held must be issued again",
            Self::FleetReportForged => {
                "if the node was installed again, put its new key into the publisher's settings; on that node, run: haproxy-certs fleet follow --once; if it comes back, somebody else writes to the store"
            }
        }
    }
}
