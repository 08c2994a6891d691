//! Whether a head counts: who signed it, for which fleet, until when, and what was seen before it.
//!
//! A sequence is remembered for each publisher's key, so that one who stole a key can't shut out the key that replaces it
//! with a huge number. Between keys the time of signing decides, which can't be far ahead.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::head::SignedHead;
use super::name::FleetName;
use super::signed_text::{BadText, time, unhex};
use super::sshsig::VerifyingKey;
use crate::certified_key::hex;

/// How far a publisher's clock may be ahead of ours, in seconds.
pub const AHEAD: i64 = 3600;

/// The heads that were accepted before.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownHeads {
    /// The last one of each publisher, by the key's line.
    #[serde(default)]
    publishers: BTreeMap<String, KnownHead>,
    /// The one that was accepted last.
    #[serde(default)]
    newest: Option<Newest>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Newest {
    /// Whose it is: the key's line.
    publisher: String,
    /// In seconds since 1970.
    signed: i64,
}

/// What is remembered of a head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct KnownHead {
    sequence: u64,
    /// The SHA-256 of all its bytes, in hex.
    hash: String,
    #[serde(default)]
    epoch: u64,
}

impl KnownHeads {
    /// Remembers a head that was accepted and now counts here: everything that it names is here, and on the disk.
    ///
    /// Not before: a publisher that lost its cache and the store goes on from what the nodes report that they have. Whoever
    /// also remembered what it only saw would hold that publisher to a number that nobody tells it of. A store that hands
    /// such a head out and takes it back does no more than one that withholds it.
    ///
    /// What is remembered never falls, so that a head on the disk may be remembered once more.
    pub fn remember(&mut self, head: &SignedHead) {
        let publisher = head.publisher.to_string();
        if self.publishers.get(&publisher).is_some_and(|known| known.sequence > head.head.sequence) {
            return;
        }
        let known = KnownHead { sequence: head.head.sequence, hash: hex(&head.hash), epoch: head.head.epoch };
        self.publishers.insert(publisher.clone(), known);
        let signed = head.head.signed;
        if self.newest.as_ref().is_none_or(|newest| newest.publisher == publisher || newest.signed <= signed)
        {
            self.newest = Some(Newest { publisher, signed });
        }
    }

    /// A publisher that isn't among these any more, as one whose key was stolen, doesn't shut out the others by when it signed.
    pub fn trust_only(&mut self, publishers: &[VerifyingKey]) {
        let is_trusted = |newest: &Newest| publishers.iter().any(|it| it.to_string() == newest.publisher);
        self.newest = self.newest.take().filter(is_trusted);
    }

    /// The sequence and the hash of the head that was taken last.
    #[must_use]
    pub fn newest(&self) -> Option<(u64, [u8; 32])> {
        let known = self.publishers.get(&self.newest.as_ref()?.publisher)?;
        Some((known.sequence, unhex(&known.hash)?))
    }

    /// The highest sequence of this publisher.
    #[must_use]
    pub fn sequence(&self, publisher: &VerifyingKey) -> Option<u64> {
        self.publishers.get(&publisher.to_string()).map(|known| known.sequence)
    }
}

/// A head that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accepted {
    /// It wasn't seen before.
    New(SignedHead),
    /// It is the one that was remembered.
    Unchanged(SignedHead),
}

/// Why a head doesn't count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RefusedHead {
    /// It isn't one, or its signature doesn't fit.
    #[error("the head can't be used: {0}")]
    Damaged(#[from] BadText),
    /// Somebody signed it who isn't among the publishers.
    #[error("the head was signed by {0}, who is not among the publishers")]
    UnknownPublisher(VerifyingKey),
    /// It was made for another fleet.
    #[error("the head belongs to the fleet {0}")]
    OtherFleet(FleetName),
    /// Its publisher's clock is ahead, or this host's behind.
    #[error("the head was signed at {}, which is in the future: one of the clocks is wrong", time(.signed.to_owned()))]
    Future {
        /// When it was signed, in seconds since 1970.
        signed: i64,
    },
    /// The same publisher signed a later one.
    #[error("the head has the sequence {sequence}, though {known} was seen before")]
    Rollback {
        /// Its sequence.
        sequence: u64,
        /// The one that was seen.
        known: u64,
    },
    /// The same publisher signed one of a later epoch: who was removed before that could read this one.
    #[error("the head is of the epoch {epoch}, though {known} was seen before")]
    EpochBack {
        /// Its epoch.
        epoch: u64,
        /// The one that was seen.
        known: u64,
    },
    /// The same publisher signed two heads with one sequence.
    #[error(
        "two heads with the sequence {sequence}: somebody else publishes with this key, or the store lies"
    )]
    Fork {
        /// Of both.
        sequence: u64,
    },
    /// Another publisher signed a later one.
    #[error("the head was signed at {}, before another publisher's that was seen", time(.signed.to_owned()))]
    Older {
        /// When it was signed, in seconds since 1970.
        signed: i64,
    },
    /// It is past its time.
    #[error("the head expired at {}", time(.head.head.expires))]
    Expired {
        /// What it says.
        head: Box<SignedHead>,
        /// Whether it is the one that was remembered.
        is_known: bool,
    },
}

impl RefusedHead {
    /// The problem's word.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Damaged(_) => "fleet-head-damaged",
            Self::UnknownPublisher(_) => "fleet-unknown-publisher",
            Self::OtherFleet(_) => "fleet-other",
            Self::Future { .. } => "fleet-clock",
            Self::Rollback { .. } | Self::EpochBack { .. } | Self::Older { .. } => "fleet-rollback",
            Self::Fork { .. } => "fleet-fork",
            Self::Expired { .. } => "fleet-stale",
        }
    }
}

/// Whether a stored head counts now (in seconds since 1970).
///
/// A replay is told from mere age: it is looked for first.
///
/// # Errors
/// It doesn't, and why.
pub fn accept(
    value: &[u8],
    known: &KnownHeads,
    fleet: &FleetName,
    publishers: &[VerifyingKey],
    now: i64,
) -> Result<Accepted, RefusedHead> {
    let signed = SignedHead::read(value)?;
    if !publishers.contains(&signed.publisher) {
        return Err(RefusedHead::UnknownPublisher(signed.publisher));
    }
    let head = &signed.head;
    if head.fleet != *fleet {
        return Err(RefusedHead::OtherFleet(head.fleet.clone()));
    }
    if head.signed > now.saturating_add(AHEAD) {
        return Err(RefusedHead::Future { signed: head.signed });
    }
    let publisher = signed.publisher.to_string();
    let others = known.newest.as_ref().filter(|newest| newest.publisher != publisher);
    let mut is_known = false;
    if let Some(last) = known.publishers.get(&publisher) {
        if head.sequence < last.sequence {
            return Err(RefusedHead::Rollback { sequence: head.sequence, known: last.sequence });
        }
        let is_same = hex(&signed.hash) == last.hash;
        if head.sequence == last.sequence && !is_same {
            return Err(RefusedHead::Fork { sequence: head.sequence });
        }
        if head.epoch < last.epoch {
            return Err(RefusedHead::EpochBack { epoch: head.epoch, known: last.epoch });
        }
        is_known = is_same && others.is_none();
    }
    if others.is_some_and(|newest| head.signed < newest.signed) {
        return Err(RefusedHead::Older { signed: head.signed });
    }
    if now >= head.expires {
        return Err(RefusedHead::Expired { head: Box::new(signed), is_known });
    }
    Ok(if is_known { Accepted::Unchanged(signed) } else { Accepted::New(signed) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zeroize::Zeroizing;

    use super::super::head::Head;
    use super::super::sshsig::{BadSignature, SigningKey};
    use super::*;

    const NOW: i64 = 1_796_000_000;

    fn key(byte: u8) -> SigningKey {
        SigningKey::of_seed(Zeroizing::new([byte; 32])).unwrap()
    }

    fn head(sequence: u64, signed: i64) -> Head {
        Head {
            fleet: "edge".parse().unwrap(),
            sequence,
            signed,
            expires: signed + 36 * 3600,
            epoch: 1,
            epoch_key: [1; 32],
            prune_many: false,
            nodes: [3; 32],
            pages: vec![[2; 32]],
        }
    }

    struct Node {
        known: KnownHeads,
        publishers: Vec<VerifyingKey>,
    }

    impl Node {
        fn new(publishers: &[u8]) -> Self {
            let publishers = publishers.iter().map(|byte| key(*byte).public()).collect();
            Self { known: KnownHeads::default(), publishers }
        }

        fn asks(&self, value: &[u8], now: i64) -> Result<Accepted, RefusedHead> {
            accept(value, &self.known, &"edge".parse().unwrap(), &self.publishers, now)
        }

        /// Accepts and remembers.
        fn takes(&mut self, value: &[u8], now: i64) -> Result<Accepted, RefusedHead> {
            let accepted = self.asks(value, now)?;
            let (Accepted::New(head) | Accepted::Unchanged(head)) = &accepted;
            self.known.remember(head);
            // As it is kept on disk.
            let kept = serde_json::to_string(&self.known).unwrap();
            assert_eq!(serde_json::from_str::<KnownHeads>(&kept).unwrap(), self.known);
            Ok(accepted)
        }
    }

    #[test]
    fn one_after_the_other_is_new_and_the_same_is_unchanged() {
        let mut node = Node::new(&[1]);
        let first = head(1, NOW).sign(&key(1));
        assert!(matches!(node.takes(&first, NOW), Ok(Accepted::New(_))));
        assert!(matches!(node.takes(&first, NOW + 5), Ok(Accepted::Unchanged(_))));
        // The sequence counts, not the publisher's clock.
        assert!(matches!(node.takes(&head(7, NOW - 60).sign(&key(1)), NOW), Ok(Accepted::New(_))));
        assert_eq!(node.known.sequence(&key(1).public()), Some(7));
    }

    #[test]
    fn a_store_can_not_bring_an_older_head_back() {
        let mut node = Node::new(&[1]);
        let old = head(1, NOW).sign(&key(1));
        node.takes(&old, NOW).unwrap();
        node.takes(&head(2, NOW + 9).sign(&key(1)), NOW + 9).unwrap();
        assert_eq!(node.asks(&old, NOW + 10), Err(RefusedHead::Rollback { sequence: 1, known: 2 }));
        // Nor long after.
        let much_later = NOW + 1_000_000;
        assert_eq!(node.asks(&old, much_later).unwrap_err().word(), "fleet-rollback");
    }

    #[test]
    fn a_fork_is_an_alarm() {
        let mut node = Node::new(&[1]);
        node.takes(&head(1, NOW).sign(&key(1)), NOW).unwrap();
        let refused = node.asks(&head(1, NOW + 1).sign(&key(1)), NOW + 1).unwrap_err();
        assert_eq!((refused.word(), refused), ("fleet-fork", RefusedHead::Fork { sequence: 1 }));
    }

    #[test]
    fn an_epoch_that_is_over_does_not_come_back() {
        let mut node = Node::new(&[1]);
        let of_epoch = |sequence, epoch| Head { epoch, ..head(sequence, NOW) }.sign(&key(1));
        node.takes(&of_epoch(2, 2), NOW).unwrap();
        assert_eq!(node.asks(&of_epoch(3, 1), NOW), Err(RefusedHead::EpochBack { epoch: 1, known: 2 }));
        assert!(node.takes(&of_epoch(3, 3), NOW).is_ok());
    }

    #[test]
    fn who_is_no_publisher_any_more_shuts_nobody_out() {
        let mut node = Node::new(&[1, 2]);
        node.takes(&head(5, NOW + 600).sign(&key(1)), NOW).unwrap();
        let next = head(1, NOW).sign(&key(2));
        assert_eq!(node.asks(&next, NOW), Err(RefusedHead::Older { signed: NOW }));
        node.publishers.remove(0);
        node.known.trust_only(&node.publishers);
        assert!(matches!(node.takes(&next, NOW), Ok(Accepted::New(_))));
        assert_eq!(node.known.newest().map(|(sequence, _)| sequence), Some(1));
    }

    #[test]
    fn an_expired_head_is_stale() {
        let mut node = Node::new(&[1]);
        let bytes = head(1, NOW).sign(&key(1));
        let late = NOW + 36 * 3600;
        assert!(matches!(node.asks(&bytes, late), Err(RefusedHead::Expired { is_known: false, .. })));
        node.takes(&bytes, late - 1).unwrap();
        let refused = node.asks(&bytes, late).unwrap_err();
        assert_eq!(refused.word(), "fleet-stale");
        assert!(matches!(refused, RefusedHead::Expired { is_known: true, .. }));
    }

    #[test]
    fn a_head_from_elsewhere_is_refused() {
        let node = Node::new(&[1]);
        let stranger = head(1, NOW).sign(&key(2));
        assert_eq!(node.asks(&stranger, NOW), Err(RefusedHead::UnknownPublisher(key(2).public())));
        let other = Head { fleet: "core".parse().unwrap(), ..head(1, NOW) };
        let refused = node.asks(&other.sign(&key(1)), NOW);
        assert_eq!(refused, Err(RefusedHead::OtherFleet("core".parse().unwrap())));
        let forged = head(1, NOW)
            .sign(&key(1))
            .iter()
            .map(|byte| if *byte == b'1' { b'2' } else { *byte })
            .collect::<Vec<_>>();
        assert!(matches!(node.asks(&forged, NOW), Err(RefusedHead::Damaged(_))));
        let text = String::from_utf8(head(1, NOW).sign(&key(1))).unwrap().replace("sequence 1", "sequence 2");
        let wrong = RefusedHead::Damaged(BadText::Signature(BadSignature::Wrong));
        assert_eq!(node.asks(text.as_bytes(), NOW), Err(wrong));
    }

    #[test]
    fn a_head_from_the_future_is_refused() {
        let node = Node::new(&[1]);
        assert!(node.asks(&head(1, NOW + AHEAD).sign(&key(1)), NOW).is_ok());
        let ahead = NOW + AHEAD + 1;
        assert_eq!(node.asks(&head(1, ahead).sign(&key(1)), NOW), Err(RefusedHead::Future { signed: ahead }));
    }

    #[test]
    fn a_huge_number_of_a_stolen_key_does_not_shut_out_the_next_key() {
        let mut node = Node::new(&[1]);
        node.takes(&head(u64::MAX, NOW).sign(&key(1)), NOW).unwrap();
        node.publishers = vec![key(2).public()];
        assert!(matches!(node.takes(&head(1, NOW + 9).sign(&key(2)), NOW + 9), Ok(Accepted::New(_))));
    }

    #[test]
    fn while_one_publisher_is_replaced_the_store_can_not_bring_the_old_ones_head_back() {
        let mut node = Node::new(&[1, 2]);
        let old = head(5, NOW).sign(&key(1));
        let unseen = head(6, NOW + 1).sign(&key(1));
        node.takes(&old, NOW).unwrap();
        node.takes(&head(1, NOW + 9).sign(&key(2)), NOW + 9).unwrap();
        assert_eq!(node.asks(&old, NOW + 10), Err(RefusedHead::Older { signed: NOW }));
        assert_eq!(node.asks(&unseen, NOW + 10), Err(RefusedHead::Older { signed: NOW + 1 }));
        // But it may publish again.
        assert!(matches!(node.takes(&head(7, NOW + 20).sign(&key(1)), NOW + 20), Ok(Accepted::New(_))));
    }

    #[test]
    fn what_was_refused_is_not_remembered() {
        let mut node = Node::new(&[1]);
        node.takes(&head(1, NOW).sign(&key(1)), NOW).unwrap();
        let before = node.known.clone();
        for (value, now) in [
            (head(9, NOW).sign(&key(2)), NOW),
            (head(9, NOW).sign(&key(1)), NOW + 1_000_000),
            (head(9, NOW + 99_999).sign(&key(1)), NOW),
        ] {
            assert!(node.takes(&value, now).is_err());
        }
        assert_eq!(node.known, before);
    }

    #[test]
    fn what_is_remembered_never_falls() {
        let mut node = Node::new(&[1, 2]);
        let read = |value: &[u8]| SignedHead::read(value).unwrap();
        let [first, second] = [1, 2].map(|sequence| read(&head(sequence, NOW).sign(&key(1))));
        let others = read(&head(1, NOW + 9).sign(&key(2)));
        for (taken, newest) in
            [(&first, &first), (&second, &second), (&first, &second), (&others, &others), (&second, &others)]
        {
            node.known.remember(taken);
            assert_eq!(node.known.newest(), Some((newest.head.sequence, newest.hash)));
        }
        assert_eq!(node.known.sequence(&key(1).public()), Some(2));
        assert_eq!(KnownHeads::default().newest(), None);
    }

    proptest! {
        /// Whatever a store hands out of what was ever signed, and in whatever order, no publisher's sequence falls.
        #[test]
        fn sequences_never_fall(picks in proptest::collection::vec((1_u8..3, 0_u64..6, 0_i64..3), 1..40)) {
            let mut node = Node::new(&[1, 2]);
            let mut highest = [0, 0, 0];
            for (publisher, sequence, fork) in picks {
                let value = head(sequence, NOW + fork).sign(&key(publisher));
                if node.takes(&value, NOW + 10).is_ok() {
                    prop_assert!(sequence >= highest[usize::from(publisher)]);
                    highest[usize::from(publisher)] = sequence;
                }
            }
        }
    }
}
