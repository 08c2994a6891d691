//! From PEM text, as people and programs leave it, to blocks: lenient where nothing can be lost, never a silently
//! shortened chain.
//!
//! A marker counts at the start of a line or right behind another one. Within a block the first five dashes are its
//! end: base64 has none. So the text is read once, and a damaged block can't swallow the one after it.
//!
//! The `pem` crate isn't used for that: it ends at a block without an END line as at the end of a chain, and leaves copies
//! of keys on the heap.

use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::{Engine, decoded_len_estimate};
use zeroize::Zeroizing;

use super::flaw::{Flaw, Unproved};

const DASHES: &[u8] = b"-----";
const BEGIN: &[u8] = b"-----BEGIN";
const END: &[u8] = b"-----END ";

/// How base64 is read and written here. Stray bits behind the last byte say nothing.
pub(super) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

/// A block of the text, or what is left of one.
pub(super) struct Block<'a> {
    /// The label of its BEGIN line, or of its END line where it has no other.
    pub(super) label: &'a str,
    /// The label of the END line.
    end: &'a str,
    /// Whether the BEGIN line breaks off, so that the label may lack its end.
    is_cut: bool,
    /// What is between the two lines, or what is wrong.
    body: Result<&'a [u8], &'static str>,
}

const CERTIFICATES: [&str; 3] = ["CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE"];
const PRIVATE_KEYS: [&str; 4] = ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "ENCRYPTED PRIVATE KEY"];

impl Block<'_> {
    /// Whether one of its labels says that this is a certificate.
    pub(super) fn is_certificate(&self) -> bool {
        self.has_label(|label| CERTIFICATES.contains(&label)) || self.is_cut_from(&CERTIFICATES)
    }

    /// Whether one of its labels says that this is a private key, of whatever kind.
    pub(super) fn is_private_key(&self) -> bool {
        self.has_label(|label| label.ends_with("PRIVATE KEY")) || self.is_cut_from(&PRIVATE_KEYS)
    }

    fn has_label(&self, fits: impl Fn(&str) -> bool) -> bool {
        fits(self.label) || fits(self.end)
    }

    fn is_cut_from(&self, labels: &[&str]) -> bool {
        self.is_cut && labels.iter().any(|label| label.starts_with(self.label))
    }

    /// Whether it has both its lines.
    pub(super) fn is_whole(&self) -> bool {
        self.body.is_ok()
    }

    /// Whether its RFC 1421 header says that it is encrypted.
    pub(super) fn is_encrypted(&self) -> bool {
        let (header, _) = self.body.map(split_header).unwrap_or_default();
        header.split(|&byte| byte == b'\n').any(|line| {
            line.trim_ascii().starts_with(b"Proc-Type:") && line.trim_ascii().ends_with(b"ENCRYPTED")
        })
    }

    /// The bytes that it stands for. The error goes behind "the private key", "the 2nd certificate".
    pub(super) fn decode(&self) -> Result<Zeroizing<Vec<u8>>, &'static str> {
        let (_, data) = split_header(self.body?);
        let mut base64 = Zeroizing::new(Vec::with_capacity(data.len()));
        for line in data.split(|&byte| byte == b'\n') {
            let line = line.trim_ascii();
            if line.iter().any(u8::is_ascii_whitespace) {
                base64.extend(line.iter().filter(|byte| !byte.is_ascii_whitespace()));
            } else {
                base64.extend_from_slice(line);
            }
        }
        let mut bytes = Zeroizing::new(vec![0; decoded_len_estimate(base64.len())]);
        let length = BASE64.decode_slice(&*base64, &mut bytes).map_err(|_| "isn't valid base64")?;
        bytes.truncate(length);
        if bytes.is_empty() { Err("is empty") } else { Ok(bytes) }
    }
}

/// The header of a block, which may be empty, and its data.
fn split_header(body: &[u8]) -> (&[u8], &[u8]) {
    let body = body.trim_ascii_start();
    let mut data = body;
    loop {
        let length = data.iter().position(|&byte| byte == b'\n').unwrap_or(data.len());
        let (line, rest) = data.split_at(length);
        let continues = line.starts_with(b" ") && data.len() < body.len();
        if !line.contains(&b':') && !continues {
            return (body.get(..body.len() - data.len()).unwrap_or_default(), data);
        }
        data = rest.get(1..).unwrap_or_default();
    }
}

/// The blocks of `text` in their order, damaged ones included.
pub(super) fn blocks(text: &[u8]) -> Blocks<'_> {
    Blocks { rest: text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text) }
}

/// See [`blocks`].
pub(super) struct Blocks<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Blocks<'a> {
    type Item = Block<'a>;

    fn next(&mut self) -> Option<Block<'a>> {
        loop {
            self.rest = self.rest.trim_ascii_start();
            if let Some(after) = self.rest.strip_prefix(BEGIN) {
                return Some(self.block(after));
            }
            if let Some(after) = self.rest.strip_prefix(END) {
                let (label, after) = marker(after);
                self.rest = after.unwrap_or_else(|rest| rest);
                return Some(Block { label, end: label, is_cut: false, body: Err("has no BEGIN line") });
            }
            if self.rest.is_empty() {
                return None;
            }
            if self.rest.len() > DASHES.len() && BEGIN.starts_with(self.rest) {
                self.rest = &[];
                return Some(Block { label: "", end: "", is_cut: true, body: Err("has half a BEGIN line") });
            }
            self.rest = behind_line(self.rest);
        }
    }
}

impl<'a> Blocks<'a> {
    /// The block after whose `BEGIN` this is.
    fn block(&mut self, text: &'a [u8]) -> Block<'a> {
        let (label, after) = marker(text.strip_prefix(b" ").unwrap_or(text));
        let damaged = |what| Block { label, end: "", is_cut: false, body: Err(what) };
        let after = match after {
            Ok(after) if text.starts_with(b" ") => after,
            Ok(rest) | Err(rest) => {
                self.rest = rest;
                return Block { is_cut: true, ..damaged("has a broken BEGIN line") };
            }
        };
        let Some(length) = after.windows(DASHES.len()).position(|window| window == DASHES) else {
            self.rest = &[];
            return damaged("has no END line");
        };
        let (body, marks) = after.split_at(length);
        self.rest = marks;
        if marks.starts_with(BEGIN) {
            return damaged("has no END line");
        }
        let Some((end, Ok(after))) = marks.strip_prefix(END).map(marker) else {
            self.rest = behind_line(marks);
            return damaged("has a broken END line");
        };
        self.rest = after;
        let body = if end == label { Ok(body) } else { Err("has the END line of another block") };
        Block { label, end, is_cut: false, body }
    }
}

/// The label that `text` begins with, and what comes behind the dashes after it; without those the next line.
fn marker(text: &[u8]) -> (&str, Result<&[u8], &[u8]>) {
    let length = text.iter().position(|&byte| byte == b'-' || !(b' '..=b'~').contains(&byte));
    let (label, rest) = text.split_at(length.unwrap_or(text.len()));
    let label = str::from_utf8(label).unwrap_or_default();
    (label, rest.strip_prefix(DASHES).ok_or_else(|| behind_line(rest)))
}

/// What comes behind the line that `text` begins with.
fn behind_line(text: &[u8]) -> &[u8] {
    let length = text.iter().position(|&byte| matches!(byte, b'\n' | b'\r')).unwrap_or(text.len());
    text.get(length..).unwrap_or_default()
}

/// What kind of bytes a file without a fitting block holds, where that can be told.
pub(super) fn not_pem(text: &[u8]) -> Option<&'static str> {
    match text {
        [0x30, 0x80..=0x84, ..] => Some("is DER (binary), not PEM"),
        _ if text.contains(&0) => Some("holds NUL bytes: not PEM, or damaged"),
        _ => None,
    }
}

/// The certificates of a chain, in their order, as DER.
pub(super) fn certificates(text: &[u8]) -> Result<Vec<Vec<u8>>, Unproved> {
    if let Some(what) = not_pem(text) {
        return Err(Flaw::CertificateUnreadable.because(format!("the chain {what}")));
    }
    let mut certificates = Vec::with_capacity(4);
    for block in blocks(text).filter(Block::is_certificate) {
        certificates.push(certificate(&block, certificates.len())?);
    }
    if certificates.is_empty() { Err(no_certificate(text)) } else { Ok(certificates) }
}

/// The first certificate as DER.
pub(super) fn first_certificate(text: &[u8]) -> Result<Vec<u8>, Unproved> {
    match blocks(text).find(Block::is_certificate) {
        Some(block) => certificate(&block, 0),
        None => Err(no_certificate(text)),
    }
}

fn no_certificate(text: &[u8]) -> Unproved {
    if let Some(what) = not_pem(text) {
        return Flaw::CertificateUnreadable.because(format!("the chain {what}"));
    }
    if blocks(text).any(|block| matches!(block.label, "PKCS7" | "CMS" | "PKCS #7 SIGNED DATA")) {
        return Flaw::CertificateUnreadable.because("the chain is PKCS#7, not a row of certificates");
    }
    Flaw::CertificateMissing.because(if text.trim_ascii().is_empty() {
        "the chain is empty"
    } else {
        "the chain holds no certificate"
    })
}

/// The certificate at this place as DER.
fn certificate(block: &Block<'_>, place: usize) -> Result<Vec<u8>, Unproved> {
    let unreadable =
        |what| Flaw::CertificateUnreadable.because(format!("the {} certificate {what}", ordinal(place + 1)));
    if block.is_encrypted() {
        return Err(unreadable("is encrypted"));
    }
    let mut der = block.decode().map_err(unreadable)?;
    if block.label == "TRUSTED CERTIFICATE" {
        let length = super::der::Der::new(&der).element().map(<[u8]>::len);
        der.truncate(length.ok_or_else(|| unreadable("isn't DER"))?);
    }
    Ok(std::mem::take(&mut der))
}

/// `1st`, `2nd`, …
pub(super) fn ordinal(number: usize) -> String {
    let suffix = match (number % 10, number % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{number}{suffix}")
}

#[cfg(test)]
mod tests {
    use super::certificates;

    #[test]
    fn a_chain_that_breaks_off_is_not_shortened_as_the_pem_crate_would() {
        let whole = "-----BEGIN CERTIFICATE-----\nMAAA\n-----END CERTIFICATE-----\n";
        let cut = format!("{whole}-----BEGIN CERTIFICATE-----\nMAAA\n");
        assert_eq!(pem::parse_many(&cut).unwrap().len(), 1);
        assert!(
            certificates(cut.as_bytes()).unwrap_err().detail.contains("the 2nd certificate has no END line")
        );
        assert_eq!(certificates(whole.repeat(2).as_bytes()).unwrap().len(), 2);
    }
}
