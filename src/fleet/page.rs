//! Pages: which object each lineage is, some 256 lineages a page, so that a renewal changes one page and the head.
//!
//! A page is sealed. Inside are its entries, in the byte order of their lineages:
//!
//! ```text
//! lineage  object: 32  content: 32  leaf: 32  serial  not after: i64          as often as there are entries
//! ```

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use zeroize::Zeroizing;

use super::epoch::EpochKey;
use super::fields::{push, text};
use super::head::MAX_PAGES;
use super::name::FleetName;
use super::seal::{Context, around};
use super::unsealed::Unsealed;
use crate::certified_key::sha256;
use crate::sys::cursor::Cursor;

/// So many lineages are on a page, more or less.
pub const LINEAGES: usize = 256;

/// A larger page isn't read.
pub const MAX_BYTES: usize = MAX_TEXT + around(KIND);

const MAX_TEXT: usize = 512 << 10;
const KIND: &[u8] = b"haproxy-certs fleet page 1\n";

/// As long as a file name may be, without its ending.
const MAX_NAME: usize = 251;

/// The longest serial that certificates have is 40 digits (RFC 5280, section 4.1.2.2); some have more.
const MAX_SERIAL: usize = 256;

/// What is known of a published lineage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageEntry {
    /// Its name.
    pub lineage: String,
    /// The SHA-256 of its object as it is stored.
    pub object: [u8; 32],
    /// What the object holds: see [`super::object::PlainPair::content`].
    pub content: [u8; 32],
    /// The SHA-256 of its leaf's DER.
    pub leaf: [u8; 32],
    /// Its leaf's serial number, as `openssl` prints it.
    pub serial: String,
    /// When its leaf expires, in seconds since 1970.
    pub not_after: i64,
}

/// How many pages there are for so many lineages, where there were `before`. It changes seldom: when it does, all are new.
#[must_use]
pub fn count(lineages: usize, before: Option<usize>) -> usize {
    let needed = lineages.div_ceil(LINEAGES).next_power_of_two().min(MAX_PAGES);
    let fits = |before: &usize| before.is_power_of_two() && (needed..=2 * needed).contains(before);
    before.filter(fits).unwrap_or(needed).min(MAX_PAGES)
}

/// The page that a lineage is on.
#[must_use]
pub fn place(lineage: &str, pages: usize) -> usize {
    let [.., high, low] = sha256(lineage.as_bytes());
    usize::from(u16::from_be_bytes([high, low])) % pages.max(1)
}

/// Whether a lineage of this name can be published: it becomes a file's name elsewhere.
#[must_use]
pub fn can_be_published(lineage: &str) -> bool {
    let is_plain = |character: char| !character.is_control() && character != '/';
    !lineage.is_empty()
        && lineage.len() <= MAX_NAME
        && !lineage.starts_with('.')
        && lineage.chars().all(is_plain)
}

/// Seals the entries of one page, in whatever order they are: those of other pages are left out.
///
/// # Errors
/// A lineage is there twice or can't be published, or the page would be too large.
pub fn seal(
    entries: &[PageEntry],
    (page, pages): (usize, usize),
    fleet: &FleetName,
    key: &EpochKey,
) -> Result<Vec<u8>, Unsealed> {
    let mut entries: Vec<&PageEntry> =
        entries.iter().filter(|entry| place(&entry.lineage, pages) == page).collect();
    entries.sort_by(|a, b| a.lineage.cmp(&b.lineage));
    if !are_right(entries.iter().copied(), page, pages) {
        return Err(Unsealed::Malformed);
    }
    let mut text = Zeroizing::new(Vec::new());
    for entry in entries {
        write(&mut text, entry).ok_or(Unsealed::TooLarge)?;
    }
    context(fleet, &name(page, pages)).seal(&text, key)
}

/// Opens a page.
///
/// # Errors
/// It was changed, belongs elsewhere, or what is inside can't be right.
pub fn open(
    sealed: &[u8],
    (page, pages): (usize, usize),
    fleet: &FleetName,
    key: &EpochKey,
) -> Result<Vec<PageEntry>, Unsealed> {
    let entries_text = context(fleet, &name(page, pages)).open(sealed, key)?;
    let mut rest = Cursor(&entries_text);
    let mut entries = Vec::new();
    while !rest.0.is_empty() {
        entries.push(read(&mut rest).ok_or(Unsealed::Malformed)?);
    }
    if are_right(entries.iter(), page, pages) { Ok(entries) } else { Err(Unsealed::Malformed) }
}

/// Whether they are on this page, each once and in order, and nothing about them is out of bounds.
fn are_right<'a>(entries: impl Iterator<Item = &'a PageEntry> + Clone, page: usize, pages: usize) -> bool {
    entries.clone().all(|entry| {
        can_be_published(&entry.lineage)
            && place(&entry.lineage, pages) == page
            && entry.serial.len() <= MAX_SERIAL
            && entry.serial.bytes().all(|digit| digit.is_ascii_hexdigit())
    }) && entries.clone().zip(entries.skip(1)).all(|(a, b)| a.lineage < b.lineage)
}

fn write(to: &mut Vec<u8>, entry: &PageEntry) -> Option<()> {
    push(to, entry.lineage.as_bytes())?;
    for digest in [&entry.object, &entry.content, &entry.leaf] {
        to.extend_from_slice(digest);
    }
    push(to, entry.serial.as_bytes())?;
    to.extend_from_slice(&entry.not_after.to_le_bytes());
    Some(())
}

fn read(from: &mut Cursor<'_>) -> Option<PageEntry> {
    Some(PageEntry {
        lineage: text(from)?.to_owned(),
        object: from.array()?,
        content: from.array()?,
        leaf: from.array()?,
        serial: text(from)?.to_owned(),
        not_after: from.i64()?,
    })
}

fn name(page: usize, pages: usize) -> Vec<u8> {
    format!("{page}/{pages}").into_bytes()
}

fn context<'a>(fleet: &'a FleetName, name: &'a [u8]) -> Context<'a> {
    Context { kind: KIND, fleet, name, at_most: MAX_TEXT }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fleet() -> FleetName {
        "edge".parse().unwrap()
    }

    fn entry(lineage: &str) -> PageEntry {
        PageEntry {
            lineage: lineage.into(),
            object: sha256(lineage.as_bytes()),
            content: [1; 32],
            leaf: [2; 32],
            serial: "04AB".into(),
            not_after: -5,
        }
    }

    #[test]
    fn what_is_sealed_is_opened_again() {
        let key = EpochKey::generate(1).unwrap();
        let all: Vec<PageEntry> = (0..1000).map(|number| entry(&format!("site-{number}.test"))).collect();
        let pages = count(all.len(), None);
        assert_eq!(pages, 4);
        let mut found = Vec::new();
        for page in 0..pages {
            let sealed = seal(&all, (page, pages), &fleet(), &key).unwrap();
            let entries = open(&sealed, (page, pages), &fleet(), &key).unwrap();
            assert!((150..350).contains(&entries.len()), "{}", entries.len());
            found.extend(entries);
        }
        found.sort_by_key(|entry| all.iter().position(|other| other == entry));
        assert_eq!(found, all);
        assert_eq!(open(&seal(&[], (0, 1), &fleet(), &key).unwrap(), (0, 1), &fleet(), &key), Ok(Vec::new()));
    }

    #[test]
    fn the_number_of_pages_changes_seldom() {
        for (lineages, before, expected) in [
            (0, None, 1),
            (256, None, 1),
            (257, None, 2),
            (10_000, None, 64),
            (100_000, None, 512),
            (usize::MAX / 2, None, MAX_PAGES),
            (257, Some(1), 2),
            (256, Some(2), 2),
            (129, Some(2), 2),
            (256, Some(4), 1),
            (10_000, Some(64), 64),
            (8000, Some(64), 64),
            (4096, Some(64), 16),
            (10_000, Some(63), 64),
        ] {
            assert_eq!(count(lineages, before), expected, "{lineages} {before:?}");
        }
    }

    #[test]
    fn a_page_opens_nowhere_else() {
        let key = EpochKey::generate(1).unwrap();
        let sealed = seal(&[entry("a.test")], (0, 1), &fleet(), &key).unwrap();
        let opened = |page, fleet: &str, key: &EpochKey| open(&sealed, page, &fleet.parse().unwrap(), key);
        assert!(opened((0, 1), "edge", &key).is_ok());
        assert_eq!(opened((1, 2), "edge", &key), Err(Unsealed::Wrong));
        assert_eq!(opened((0, 2), "edge", &key), Err(Unsealed::Wrong));
        assert_eq!(opened((0, 1), "core", &key), Err(Unsealed::Wrong));
        assert_eq!(opened((0, 1), "edge", &EpochKey::generate(1).unwrap()), Err(Unsealed::Wrong));
    }

    #[test]
    fn no_bit_can_be_changed() {
        let key = EpochKey::generate(1).unwrap();
        let sealed = seal(&[entry("a.test")], (0, 1), &fleet(), &key).unwrap();
        for at in 0..sealed.len() {
            for bit in 0..8 {
                let mut changed = sealed.clone();
                changed[at] ^= 1 << bit;
                assert!(open(&changed, (0, 1), &fleet(), &key).is_err());
            }
            assert!(open(&sealed[..at], (0, 1), &fleet(), &key).is_err());
        }
    }

    /// Seals what [`seal`] wouldn't.
    fn lie(entries: &[PageEntry], page: (usize, usize), key: &EpochKey) -> Result<Vec<PageEntry>, Unsealed> {
        let mut text = Vec::new();
        for entry in entries {
            write(&mut text, entry).unwrap();
        }
        let sealed = context(&fleet(), &name(page.0, page.1)).seal(&text, key).unwrap();
        open(&sealed, page, &fleet(), key)
    }

    #[test]
    fn a_publisher_that_lies_is_refused() {
        let key = EpochKey::generate(1).unwrap();
        assert!(lie(&[entry("a"), entry("b")], (0, 1), &key).is_ok());
        for entries in [
            vec![entry("b"), entry("a")],
            vec![entry("a"), entry("a")],
            vec![entry("../etc/a")],
            vec![entry("a/b")],
            vec![entry(".a")],
            vec![entry("")],
            vec![entry("a\nb")],
            vec![entry(&"x".repeat(252))],
            vec![PageEntry { serial: "0\n".into(), ..entry("a") }],
        ] {
            assert_eq!(lie(&entries, (0, 1), &key), Err(Unsealed::Malformed), "{entries:?}");
            assert_eq!(seal(&entries, (0, 1), &fleet(), &key).is_ok(), entries[0].lineage == "b");
        }
        let elsewhere = 1 - place("a", 2);
        assert_eq!(lie(&[entry("a")], (elsewhere, 2), &key), Err(Unsealed::Malformed));
    }

    #[test]
    fn a_page_that_would_be_too_large_is_not_sealed() {
        let key = EpochKey::generate(1).unwrap();
        let many: Vec<_> = (0..5000).map(|number| entry(&format!("{number:0>200}"))).collect();
        assert_eq!(seal(&many, (0, 1), &fleet(), &key), Err(Unsealed::TooLarge));
        assert_eq!(open(&vec![0; 10 << 20], (0, 1), &fleet(), &key), Err(Unsealed::Kind));
        assert_eq!(
            open(&[KIND, &vec![0; 10 << 20]].concat(), (0, 1), &fleet(), &key),
            Err(Unsealed::TooLarge)
        );
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(bytes: Vec<u8>) {
            let key = EpochKey::generate(1).unwrap();
            prop_assert!(open(&bytes, (0, 1), &fleet(), &key).is_err());
            prop_assert!(open(&[KIND, &bytes].concat(), (0, 1), &fleet(), &key).is_err());
            // What is inside may lie though it is sealed well.
            let sealed = context(&fleet(), b"0/1").seal(&bytes, &key).unwrap();
            let opened = open(&sealed, (0, 1), &fleet(), &key);
            prop_assert!(bytes.is_empty() || opened.is_err());
        }

        #[test]
        fn lengths_that_lie(length: u32, bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let key = EpochKey::generate(1).unwrap();
            let text = [&length.to_le_bytes()[..], &bytes].concat();
            let sealed = context(&fleet(), b"0/1").seal(&text, &key).unwrap();
            let _ = open(&sealed, (0, 1), &fleet(), &key);
        }
    }
}
