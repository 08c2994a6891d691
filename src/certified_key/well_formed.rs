//! Whether a certificate is put together as X.509 asks.
//!
//! x509-parser skips over some damage that OpenSSL refuses, and one certificate that OpenSSL refuses keeps HAProxy
//! from starting. Only the structure is looked at here: what the parts say is left to x509-parser.

use super::der::{BIT_STRING, Der, INTEGER, NULL, OCTET_STRING, OID, SEQUENCE};

const BOOLEAN: u8 = 0x01;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SET: u8 = 0x31;

/// `None`: it isn't.
pub(super) fn certificate(der: &[u8]) -> Option<()> {
    let mut certificate = Der::sequence(der)?;
    let inner = to_be_signed(certificate.inside(SEQUENCE)?)?;
    // HAProxy refuses a certificate whose two signature algorithms differ, where it knows only one of them.
    (inner == algorithm(&mut certificate)?).then_some(())?;
    bits(certificate.read(BIT_STRING)?)?;
    certificate.end()
}

/// The part that is signed: gives its signature algorithm.
fn to_be_signed(mut part: Der<'_>) -> Option<&[u8]> {
    if part.tag() == Some(0xa0) {
        let mut version = part.inside(0xa0)?;
        integer(&mut version)?;
        version.end()?;
    }
    integer(&mut part)?;
    let signature = algorithm(&mut part)?;
    name(&mut part)?;
    let mut validity = part.inside(SEQUENCE)?;
    time(&mut validity)?;
    time(&mut validity)?;
    validity.end()?;
    name(&mut part)?;
    let mut key = part.inside(SEQUENCE)?;
    algorithm(&mut key)?;
    bits(key.read(BIT_STRING)?)?;
    key.end()?;
    for unique_id in [0x81, 0x82] {
        if part.tag() == Some(unique_id) {
            bits(part.read(unique_id)?)?;
        }
    }
    if part.tag() == Some(0xa3) {
        let mut wrapped = part.inside(0xa3)?;
        let mut extensions = wrapped.inside(SEQUENCE)?;
        while !extensions.is_empty() {
            extension(extensions.inside(SEQUENCE)?)?;
        }
        wrapped.end()?;
    }
    part.is_empty().then_some(signature)
}

fn extension(mut extension: Der<'_>) -> Option<()> {
    oid(&mut extension)?;
    if extension.tag() == Some(BOOLEAN) && extension.read(BOOLEAN)?.len() != 1 {
        return None;
    }
    extension.read(OCTET_STRING)?;
    extension.end()
}

/// Gives the whole element.
fn algorithm<'a>(part: &mut Der<'a>) -> Option<&'a [u8]> {
    let whole = part.element()?;
    let mut algorithm = Der::sequence(whole)?;
    oid(&mut algorithm)?;
    match algorithm.tag() {
        None => (),
        Some(OID) => oid(&mut algorithm)?,
        Some(NULL) => algorithm.read(NULL)?.is_empty().then_some(())?,
        Some(_) => drop(algorithm.inside(SEQUENCE)?),
    }
    algorithm.is_empty().then_some(whole)
}

fn name(part: &mut Der<'_>) -> Option<()> {
    let mut name = part.inside(SEQUENCE)?;
    while !name.is_empty() {
        let mut relative = name.inside(SET)?;
        while !relative.is_empty() {
            let mut attribute = relative.inside(SEQUENCE)?;
            oid(&mut attribute)?;
            let tag = attribute.tag()?;
            string(tag, attribute.read(tag)?)?;
            attribute.end()?;
        }
    }
    Some(())
}

/// The string types that are seen in names; BMP and universal strings have two and four bytes a character.
fn string(tag: u8, text: &[u8]) -> Option<()> {
    let valid = match tag {
        0x0c => str::from_utf8(text).is_ok(),
        // OpenSSL knows no visible strings (0x1a) there.
        0x12 | 0x13 | 0x14 | 0x16 => true,
        0x1c => {
            let (characters, rest) = text.as_chunks::<4>();
            rest.is_empty()
                && characters.iter().all(|&bytes| char::from_u32(u32::from_be_bytes(bytes)).is_some())
        }
        0x1e => {
            let (units, rest) = text.as_chunks::<2>();
            // OpenSSL knows no surrogates.
            let is_character = |&bytes| char::from_u32(u16::from_be_bytes(bytes).into()).is_some();
            rest.is_empty() && units.iter().all(is_character)
        }
        BIT_STRING => return bits(text),
        _ => false,
    };
    valid.then_some(())
}

fn time(part: &mut Der<'_>) -> Option<()> {
    let tag = part.tag().filter(|tag| matches!(*tag, UTC_TIME | GENERALIZED_TIME))?;
    part.read(tag).map(drop)
}

/// Of any sign, with no byte too many.
fn integer(part: &mut Der<'_>) -> Option<()> {
    match part.read(INTEGER)? {
        [] | [0, 0..=0x7f, ..] | [0xff, 0x80..=0xff, ..] => None,
        _ => Some(()),
    }
}

/// Every number ends, and begins with no byte too many.
fn oid(part: &mut Der<'_>) -> Option<()> {
    let oid = part.read(OID)?;
    let mut begins = true;
    for &byte in oid {
        if begins && byte == 0x80 {
            return None;
        }
        begins = byte < 0x80;
    }
    (begins && !oid.is_empty()).then_some(())
}

/// The contents of a `BIT STRING`: at most seven unused bits, in a byte that is there.
fn bits(contents: &[u8]) -> Option<()> {
    match contents {
        [] | [8..=0xff, ..] | [1..=7] => None,
        _ => Some(()),
    }
}
