//! A text with its signature behind it, as one value: heads and reports.
//!
//! Each line is a word, a blank and a value. A text counts only if it is what this program would have written: the same
//! facts have one text, and one hash.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::str::Split;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::sshsig::{BEGIN, BadSignature, SigningKey, VerifyingKey, signer};

/// Why a signed text isn't one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadText {
    /// It is larger than any.
    #[error("it is too large")]
    TooLarge,
    /// It is of a later version, or something else.
    #[error("it is nothing that this version can read")]
    Kind,
    /// A line is missing, in a wrong place or malformed.
    #[error("it is malformed")]
    Malformed,
    /// Its signature.
    #[error("its signature: {0}")]
    Signature(#[from] BadSignature),
}

/// Signs a text.
pub(super) fn signed(text: String, key: &SigningKey) -> Vec<u8> {
    let signature = key.sign(text.as_bytes());
    (text + &signature).into_bytes()
}

/// The text, and who signed it.
pub(super) fn split(bytes: &[u8], at_most: usize) -> Result<(&str, VerifyingKey), BadText> {
    if bytes.len() > at_most {
        return Err(BadText::TooLarge);
    }
    let whole = str::from_utf8(bytes).map_err(|_| BadText::Kind)?;
    let length = whole.find(BEGIN).ok_or(BadText::Signature(BadSignature::Armor))?;
    let (text, armor) = whole.split_at(length);
    Ok((text, signer(armor, text.as_bytes())?))
}

/// A text's lines.
pub(super) struct WordLines<'a>(Split<'a, char>);

impl<'a> WordLines<'a> {
    /// Those behind the first line, which says what the text is.
    pub(super) fn of(text: &'a str, first: &str) -> Result<Self, BadText> {
        let mut lines = text.strip_suffix('\n').ok_or(BadText::Kind)?.split('\n');
        if lines.next() == Some(first) { Ok(Self(lines)) } else { Err(BadText::Kind) }
    }

    /// The value of the next line, which must begin with this word.
    pub(super) fn value(&mut self, word: &str) -> Result<&'a str, BadText> {
        self.0.next().and_then(|line| value(line, word)).ok_or(BadText::Malformed)
    }

    /// The same for a number.
    pub(super) fn number(&mut self, word: &str) -> Result<u64, BadText> {
        self.value(word)?.parse().map_err(|_| BadText::Malformed)
    }

    /// The same for a time, in seconds since 1970.
    pub(super) fn time(&mut self, word: &str) -> Result<i64, BadText> {
        let time = OffsetDateTime::parse(self.value(word)?, &Rfc3339).map_err(|_| BadText::Malformed)?;
        Ok(time.unix_timestamp())
    }

    /// The same for a SHA-256.
    pub(super) fn digest(&mut self, word: &str) -> Result<[u8; 32], BadText> {
        unhex(self.value(word)?).ok_or(BadText::Malformed)
    }

    /// The same for a yes or no.
    pub(super) fn flag(&mut self, word: &str) -> Result<bool, BadText> {
        match self.value(word)? {
            "yes" => Ok(true),
            "no" => Ok(false),
            _ => Err(BadText::Malformed),
        }
    }

    /// The values of all lines that are left, each of which must begin with this word.
    pub(super) fn rest(self, word: &str) -> impl Iterator<Item = Result<&'a str, BadText>> {
        self.0.map(move |line| value(line, word).ok_or(BadText::Malformed))
    }
}

fn value<'a>(line: &'a str, word: &str) -> Option<&'a str> {
    line.strip_prefix(word)?.strip_prefix(' ')
}

/// A time as a line has it. What no calendar has becomes 1970.
pub(super) fn time(seconds: i64) -> String {
    let time = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    time.format(&Rfc3339).unwrap_or_default()
}

/// A yes or no as a line has it.
pub(super) fn flag(flag: bool) -> &'static str {
    if flag { "yes" } else { "no" }
}

/// 32 bytes of lower-case hex.
pub(super) fn unhex(text: &str) -> Option<[u8; 32]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    let mut bytes = [0; 32];
    if pairs.len() != bytes.len() {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}
