//! The text of an ASN.1 string as OpenSSL gives it to HAProxy (`ASN1_STRING_to_UTF8()`, 1.1.1 and later).

const UTF8: u8 = 0x0c;
const NUMERIC: u8 = 0x12;
const PRINTABLE: u8 = 0x13;
const TELETEX: u8 = 0x14;
const IA5: u8 = 0x16;
const UNIVERSAL: u8 = 0x1c;
const BMP: u8 = 0x1e;

/// The text of the contents of a string with this tag; `None`: it has none.
pub(super) fn of(tag: u32, contents: &[u8]) -> Option<String> {
    match u8::try_from(tag).ok()? {
        UTF8 => str::from_utf8(contents).ok().map(str::to_owned),
        NUMERIC | PRINTABLE | TELETEX | IA5 => Some(latin_1(contents)),
        UNIVERSAL => characters(contents.as_chunks::<4>(), u32::from_be_bytes),
        BMP => characters(contents.as_chunks::<2>(), |bytes| u16::from_be_bytes(bytes).into()),
        // A BIT STRING, say, which it takes for no text.
        _ => None,
    }
}

/// The text of what has one byte for each character, whatever its type.
pub(super) fn latin_1(contents: &[u8]) -> String {
    contents.iter().copied().map(char::from).collect()
}

fn characters<const N: usize>(
    (characters, rest): (&[[u8; N]], &[u8]),
    number: impl Fn([u8; N]) -> u32,
) -> Option<String> {
    let text = characters.iter().map(|&bytes| char::from_u32(number(bytes))).collect::<Option<String>>();
    text.filter(|_| rest.is_empty())
}
