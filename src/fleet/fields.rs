//! Binary fields: numbers little-endian, bytes with their length before them.
//!
//! A length is only ever compared with what is there: nothing is allocated by a number that was read.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use zeroize::Zeroizing;

/// The most that a field may hold, in bytes: more than any value in the store.
const MAX_FIELD: usize = 1 << 24;

/// What is still to be read.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(super) fn i64(&mut self) -> Option<i64> {
        Some(i64::from_le_bytes(self.array()?))
    }

    pub(super) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = u32::from_le_bytes(self.array()?);
        self.take(usize::try_from(length).ok()?)
    }

    pub(super) fn text(&mut self) -> Option<&'a str> {
        str::from_utf8(self.bytes()?).ok()
    }

    /// Whether everything was read.
    pub(super) fn end(self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

/// How many bytes a field of this length takes.
pub(super) fn length(bytes: &[u8]) -> usize {
    4 + bytes.len()
}

/// Writes a field. `None`: it is too long.
pub(super) fn push(to: &mut Vec<u8>, bytes: &[u8]) -> Option<()> {
    let length = u32::try_from(bytes.len()).ok().filter(|_| bytes.len() <= MAX_FIELD)?;
    to.extend_from_slice(&length.to_le_bytes());
    to.extend_from_slice(bytes);
    Some(())
}

/// All of these fields, one behind the other, in one allocation that leaves no copy behind.
pub(super) fn joined(fields: &[&[u8]]) -> Option<Zeroizing<Vec<u8>>> {
    let mut all = Zeroizing::new(Vec::with_capacity(fields.iter().map(|field| length(field)).sum()));
    for field in fields {
        push(&mut all, field)?;
    }
    Some(all)
}
