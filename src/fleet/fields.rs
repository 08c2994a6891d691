//! Binary fields: bytes with their length before them, 32 bits, little-endian.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use zeroize::Zeroizing;

use crate::sys::cursor::Cursor;

/// The most that a field may hold, in bytes: more than any value in the store.
const MAX_FIELD: usize = 1 << 24;

/// Reads a field.
pub(super) fn bytes<'a>(from: &mut Cursor<'a>) -> Option<&'a [u8]> {
    let length = from.u32()?;
    from.take(usize::try_from(length).ok()?)
}

/// The same for UTF-8.
pub(super) fn text<'a>(from: &mut Cursor<'a>) -> Option<&'a str> {
    str::from_utf8(bytes(from)?).ok()
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
