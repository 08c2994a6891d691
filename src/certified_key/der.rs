//! A strict reader of DER elements: definite, minimal lengths and one-byte tags only.

/// `INTEGER`.
pub(super) const INTEGER: u8 = 0x02;
/// `BIT STRING`.
pub(super) const BIT_STRING: u8 = 0x03;
/// `OCTET STRING`.
pub(super) const OCTET_STRING: u8 = 0x04;
/// `NULL`.
pub(super) const NULL: u8 = 0x05;
/// `OBJECT IDENTIFIER`.
pub(super) const OID: u8 = 0x06;
/// `SEQUENCE`.
pub(super) const SEQUENCE: u8 = 0x30;

/// The elements that are still to be read. `None` from any method: the next one isn't what was asked for.
#[derive(Clone, Copy)]
pub(super) struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// Reads the elements of `bytes`.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The contents of the one element, a `SEQUENCE`, that is the whole of `bytes`.
    pub(super) fn sequence(bytes: &'a [u8]) -> Option<Self> {
        let mut outer = Self(bytes);
        let contents = outer.read(SEQUENCE)?;
        outer.is_empty().then_some(Self(contents))
    }

    /// Whether everything has been read.
    pub(super) fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// The tag of the next element.
    pub(super) fn tag(self) -> Option<u8> {
        self.0.first().copied()
    }

    /// The contents of the next element, which has `tag`.
    pub(super) fn read(&mut self, tag: u8) -> Option<&'a [u8]> {
        (self.tag() == Some(tag)).then_some(())?;
        let (_, contents) = self.next()?;
        Some(contents)
    }

    /// The elements in the next one, which has `tag`.
    pub(super) fn inside(&mut self, tag: u8) -> Option<Self> {
        self.read(tag).map(Self)
    }

    /// Nothing is left.
    pub(super) fn end(self) -> Option<()> {
        self.is_empty().then_some(())
    }

    /// The next element, its tag and length included.
    pub(super) fn element(&mut self) -> Option<&'a [u8]> {
        let (whole, _) = self.next()?;
        Some(whole)
    }

    /// The magnitude of the next element, an `INTEGER` that isn't negative, without leading zeros: zero is empty.
    pub(super) fn unsigned(&mut self) -> Option<&'a [u8]> {
        match self.read(INTEGER)? {
            [0] => Some(&[]),
            [0, magnitude @ ..] if magnitude.first().is_some_and(|&byte| byte >= 0x80) => Some(magnitude),
            magnitude @ [1..=0x7f, ..] => Some(magnitude),
            _ => None,
        }
    }

    /// The bytes of the next element, a `BIT STRING` of whole bytes.
    pub(super) fn bytes(&mut self) -> Option<&'a [u8]> {
        self.read(BIT_STRING)?.split_first().and_then(|(&unused, bytes)| (unused == 0).then_some(bytes))
    }

    /// The next element: all of it, and its contents.
    fn next(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        let (&[tag, first], after) = self.0.split_first_chunk::<2>()?;
        if tag & 0x1f == 0x1f {
            return None;
        }
        let (length, after) = if first < 0x80 {
            (usize::from(first), after)
        } else {
            let (digits, after) = after.split_at_checked(usize::from(first & 0x7f))?;
            if digits.len() > 4 || digits.first().is_none_or(|&digit| digit == 0) {
                return None;
            }
            let length = digits.iter().fold(0, |length, &digit| length << 8 | usize::from(digit));
            (length >= 0x80).then_some((length, after))?
        };
        let (contents, rest) = after.split_at_checked(length)?;
        let whole = self.0.get(..self.0.len() - rest.len())?;
        self.0 = rest;
        Some((whole, contents))
    }
}

/// Appends an element with `tag` whose contents are `parts`, one after the other.
pub(super) fn push(out: &mut Vec<u8>, tag: u8, parts: &[&[u8]]) {
    out.push(tag);
    out.extend(length_bytes(parts.iter().map(|part| part.len()).sum()));
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// How many bytes `push` appends for contents of this length.
pub(super) fn pushed(length: usize) -> usize {
    1 + length_bytes(length).len() + length
}

/// A length as DER writes it.
fn length_bytes(length: usize) -> Vec<u8> {
    let digits = length.to_be_bytes().into_iter().skip_while(|&digit| digit == 0);
    match u8::try_from(length) {
        Ok(short @ ..0x80) => vec![short],
        _ => std::iter::once(digits.clone().fold(0x80, |count, _| count + 1)).chain(digits).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Der, INTEGER, OCTET_STRING, SEQUENCE, push, pushed};

    #[test]
    fn what_is_written_is_read() {
        for length in [0, 1, 0x7f, 0x80, 0xff, 0x100, 0xffff, 0x10000] {
            let contents = vec![7; length];
            let mut der = Vec::new();
            push(&mut der, OCTET_STRING, &[&contents]);
            assert_eq!(der.len(), pushed(length));
            let mut reader = Der::new(&der);
            assert_eq!(reader.read(OCTET_STRING), Some(&contents[..]));
            assert!(reader.is_empty());
        }
    }

    #[test]
    fn only_minimal_and_complete_elements_are_read() {
        for bad in [
            &[][..],
            &[INTEGER],
            &[INTEGER, 1],
            &[INTEGER, 0x80],
            &[INTEGER, 0x81, 1, 1],
            &[INTEGER, 0x82, 0, 1, 1],
            &[INTEGER, 0x85, 0, 0, 0, 0, 1, 1],
            &[INTEGER, 0xff],
            &[INTEGER, 0],
            &[INTEGER, 1, 0x80],
            &[INTEGER, 2, 0, 1],
        ] {
            assert_eq!(Der::new(bad).unsigned(), None, "{bad:x?}");
        }
        assert_eq!(Der::new(&[INTEGER, 1, 0]).unsigned(), Some(&[][..]));
        assert_eq!(Der::new(&[INTEGER, 2, 0, 0x80]).unsigned(), Some(&[0x80][..]));
        assert!(Der::sequence(&[SEQUENCE, 0, 0]).is_none());
        assert!(Der::new(&[0x1f, 1, 0]).element().is_none());
    }
}
