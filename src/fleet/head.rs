//! The head: the one value that changes, which names all others by their hashes. Plain text with a signature behind it:
//!
//! ```text
//! haproxy-certs fleet head 1
//! fleet edge
//! sequence 42
//! signed 2026-11-29T23:00:00Z
//! expires 2026-12-01T11:00:00Z
//! epoch 3
//! epoch-key SHA256
//! prune-many no
//! nodes SHA256
//! page SHA256                    as often as there are pages, in their order
//! ```

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt::Write as _;

use super::name::FleetName;
use super::signed_text::{self, BadText, WordLines, flag, time, unhex};
use super::sshsig::{SigningKey, VerifyingKey};
use crate::certified_key::{hex, sha256};

/// A larger head isn't read.
pub const MAX_BYTES: usize = 512 << 10;

/// More pages than a head names.
pub const MAX_PAGES: usize = 4096;

const FIRST_LINE: &str = "haproxy-certs fleet head 1";

/// What a publisher says that the fleet is to serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Whose it is.
    pub fleet: FleetName,
    /// One more than that of the publisher's head before.
    pub sequence: u64,
    /// When it was signed, in seconds since 1970.
    pub signed: i64,
    /// From when on it doesn't count any more.
    pub expires: i64,
    /// Which key opens pages and objects.
    pub epoch: u64,
    /// That key's [commitment](super::epoch::EpochKey::commitment).
    pub epoch_key: [u8; 32],
    /// Whether the publisher was told to prune many.
    pub prune_many: bool,
    /// The hash of the [list of nodes](super::node_list), which is stored as a page is.
    pub nodes: [u8; 32],
    /// The SHA-256 of each page as it is stored; as many as a power of two says.
    pub pages: Vec<[u8; 32]>,
}

/// A head whose signature fits, whoever made it: see [`super::accept`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedHead {
    /// What it says.
    pub head: Head,
    /// Who says it.
    pub publisher: VerifyingKey,
    /// The SHA-256 of all its bytes.
    pub hash: [u8; 32],
}

impl Head {
    /// The value to store.
    #[must_use]
    pub fn sign(&self, key: &SigningKey) -> Vec<u8> {
        signed_text::signed(self.text(), key)
    }

    fn text(&self) -> String {
        let mut text = format!(
            "{FIRST_LINE}\nfleet {}\nsequence {}\nsigned {}\nexpires {}\nepoch {}\nepoch-key {}\nprune-many {}\nnodes {}\n",
            self.fleet,
            self.sequence,
            time(self.signed),
            time(self.expires),
            self.epoch,
            hex(&self.epoch_key),
            flag(self.prune_many),
            hex(&self.nodes)
        );
        for page in &self.pages {
            // Writing to a String never fails.
            let _ = writeln!(text, "page {}", hex(page));
        }
        text
    }

    fn parse(text: &str) -> Result<Self, BadText> {
        let mut lines = WordLines::of(text, FIRST_LINE)?;
        let head = Self {
            fleet: lines.value("fleet")?.parse().map_err(|_| BadText::Malformed)?,
            sequence: lines.number("sequence")?,
            signed: lines.time("signed")?,
            expires: lines.time("expires")?,
            epoch: lines.number("epoch")?,
            epoch_key: lines.digest("epoch-key")?,
            prune_many: lines.flag("prune-many")?,
            nodes: lines.digest("nodes")?,
            pages: lines
                .rest("page")
                .map(|page| unhex(page?).ok_or(BadText::Malformed))
                .collect::<Result<_, _>>()?,
        };
        let is_count = head.pages.len().is_power_of_two() && head.pages.len() <= MAX_PAGES;
        if is_count && head.text() == text { Ok(head) } else { Err(BadText::Malformed) }
    }
}

impl SignedHead {
    /// Reads a stored head.
    ///
    /// # Errors
    /// It isn't one, or its signature doesn't fit.
    pub fn read(bytes: &[u8]) -> Result<Self, BadText> {
        let (text, publisher) = signed_text::split(bytes, MAX_BYTES)?;
        Ok(Self { head: Head::parse(text)?, publisher, hash: sha256(bytes) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zeroize::Zeroizing;

    use super::*;

    fn key() -> SigningKey {
        SigningKey::of_seed(Zeroizing::new([5; 32])).unwrap()
    }

    fn head(pages: usize) -> Head {
        Head {
            fleet: "edge".parse().unwrap(),
            sequence: 42,
            signed: 1_796_000_000,
            expires: 1_796_129_600,
            epoch: 3,
            epoch_key: [7; 32],
            prune_many: false,
            nodes: [3; 32],
            pages: (0..pages).map(|page| sha256(&page.to_le_bytes())).collect(),
        }
    }

    #[test]
    fn what_is_signed_is_read_again() {
        for pages in [1, 2, 64, MAX_PAGES] {
            let head = head(pages);
            let bytes = head.sign(&key());
            assert!(bytes.len() <= MAX_BYTES);
            let read = SignedHead::read(&bytes).unwrap();
            assert_eq!((&read.head, read.publisher, read.hash), (&head, key().public(), sha256(&bytes)));
        }
        assert!(Head { prune_many: true, ..head(1) }.text().contains("\nprune-many yes\n"));
    }

    #[test]
    #[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "the judge is another program")]
    fn ssh_keygen_accepts_its_text_and_signature() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = String::from_utf8(head(2).sign(&key())).unwrap();
        let (text, signature) = bytes.split_at(bytes.find("-----BEGIN").unwrap());
        std::fs::write(folder.path().join("sig"), signature).unwrap();
        std::fs::write(folder.path().join("text"), text).unwrap();
        std::fs::write(folder.path().join("allowed"), format!("p {}\n", key().public())).unwrap();
        let verify = |text: &str| {
            let line = format!("ssh-keygen -Y verify -f allowed -I p -n haproxy-certs-fleet -s sig <{text}");
            let mut shell = std::process::Command::new("sh");
            shell.args(["-c", &line]).current_dir(folder.path()).output().unwrap().status.success()
        };
        assert!(verify("text"));
        assert!(!verify("allowed"));
    }

    #[test]
    fn no_bit_can_be_changed() {
        let bytes = head(2).sign(&key());
        let whole = SignedHead::read(&bytes).unwrap();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                let read = SignedHead::read(&changed);
                assert!(!read.is_ok_and(|read| read.publisher == whole.publisher), "{at} {bit}");
            }
            assert!(SignedHead::read(&bytes[..at]).is_err(), "{at}");
        }
        for more in ["\n", "x", "page"] {
            assert!(SignedHead::read(&[&bytes[..], more.as_bytes()].concat()).is_err());
        }
    }

    #[test]
    fn what_this_program_would_not_have_written_is_malformed_though_it_is_signed() {
        let text = head(2).text();
        let changes = [
            ("sequence 42", "sequence 042"),
            ("sequence 42", "sequence +42"),
            ("sequence 42", "sequence 99999999999999999999999"),
            ("sequence 42", "sequence -1"),
            ("fleet edge", "fleet ../edge"),
            ("fleet edge", "fleet edge "),
            ("prune-many no", "prune-many maybe"),
            ("epoch 3\n", ""),
            ("20Z", "20+00:00"),
            ("page ", "page  "),
            ("page ", "side "),
        ];
        for (from, to) in changes {
            let lie = text.replacen(from, to, 1);
            assert_ne!(lie, text, "{from}");
            let bytes = signed_text::signed(lie, &key());
            assert_eq!(SignedHead::read(&bytes), Err(BadText::Malformed), "{from} {to}");
        }
        for (text, expected) in [
            (text.replace("head 1", "head 2"), BadText::Kind),
            (head(0).text(), BadText::Malformed),
            (head(3).text(), BadText::Malformed),
            (head(MAX_PAGES * 2).text(), BadText::TooLarge),
            (head(2).text().replace("page ", "page A"), BadText::Malformed),
        ] {
            assert_eq!(SignedHead::read(&signed_text::signed(text, &key())), Err(expected));
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(bytes: Vec<u8>, text: String) {
            prop_assert!(SignedHead::read(&bytes).is_err());
            prop_assert!(SignedHead::read(&signed_text::signed(text.clone(), &key())).is_err());
            let text = format!("{FIRST_LINE}\n{text}\n");
            prop_assert!(SignedHead::read(&signed_text::signed(text, &key())).is_err());
        }

        #[test]
        fn whatever_its_numbers_are(sequence: u64, epoch: u64, signed in 0_i64..253_402_300_799, expires in 0_i64..253_402_300_799) {
            let head = Head { sequence, signed, expires, epoch, ..head(1) };
            prop_assert_eq!(SignedHead::read(&head.sign(&key())).unwrap().head, head);
        }
    }
}
