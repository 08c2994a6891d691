//! What OpenSSL reads of a PEM text. Files that aren't ours are judged by it: HAProxy loads them as they are, and OpenSSL
//! is stricter than [`super::pem_text`].
//!
//! This follows `PEM_read_bio_ex` in `crypto/pem/pem_lib.c`, the same from OpenSSL 1.1.1 to 3.5 but where it is said
//! (measured with HAProxy 2.2 on OpenSSL 1.1.1, 2.6 and 3.0 on 3.0, 3.2 and 3.4 on 3.5).

use base64::Engine as _;
use zeroize::Zeroizing;

use super::pem_text::BASE64;

/// OpenSSL's buffer for a line: a longer one is read in pieces of one byte less.
const PIECE: usize = 254;

/// The longest line behind a header or an empty line, and the length of all but the last one.
const FULL_LINE: usize = 64;

const BEGIN: &[u8] = b"-----BEGIN ";
const END: &[u8] = b"-----END ";
const TAIL: &[u8] = b"-----";
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The labels that it takes for a certificate or a private key of a kind that HAProxy loads.
const LABELS: [&[u8]; 9] = [
    b"CERTIFICATE",
    b"X509 CERTIFICATE",
    b"TRUSTED CERTIFICATE",
    b"PRIVATE KEY",
    b"ENCRYPTED PRIVATE KEY",
    b"RSA PRIVATE KEY",
    b"EC PRIVATE KEY",
    b"DSA PRIVATE KEY",
    b"SM2 PRIVATE KEY",
];

/// What OpenSSL reads of a text.
#[derive(Debug, Default)]
pub struct OpensslReads {
    /// The certificates and keys that it reads before it meets a damaged block, each as a block of its own.
    pub text: Zeroizing<Vec<u8>>,
    /// The line, from 1, of the block that it can't read; HAProxy reads nothing behind it.
    pub breaks_off_in: Option<usize>,
    /// Why it isn't sure that every OpenSSL reads the same.
    pub unclear: Option<&'static str>,
}

/// Reads a text as OpenSSL does.
#[must_use]
pub fn openssl_reads(text: &[u8]) -> OpensslReads {
    let mut reads = OpensslReads { text: with_room(2 * text.len()), ..OpensslReads::default() };
    if text.contains(&0) {
        reads.unclear = Some("it holds NUL bytes");
    }
    let mut pieces = Pieces { rest: text, line: 1 };
    loop {
        match block(&mut pieces, &mut reads.unclear) {
            Ok(Some(block)) => block.write(&mut reads.text),
            Ok(None) => return reads,
            Err(line) => {
                reads.breaks_off_in = Some(line);
                return reads;
            }
        }
    }
}

/// The text in the pieces in which OpenSSL reads it: lines, but no longer ones than its buffer.
struct Pieces<'a> {
    rest: &'a [u8],
    line: usize,
}

/// A piece without its end of line.
struct Piece<'a> {
    text: &'a [u8],
    line: usize,
    /// Whether the line goes on in the next one.
    is_partial: bool,
}

impl<'a> Pieces<'a> {
    fn next(&mut self) -> Option<Piece<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let end = self.rest.iter().position(|&byte| byte == b'\n').map_or(self.rest.len(), |at| at + 1);
        let (piece, rest) = self.rest.split_at(end.min(PIECE));
        let line = self.line;
        let is_whole = piece.ends_with(b"\n");
        self.line += usize::from(is_whole);
        self.rest = rest;
        Some(Piece { text: piece, line, is_partial: !is_whole && piece.len() == PIECE })
    }
}

/// The text without what OpenSSL takes from its end. It takes bytes from 0x80 too where `char` has a sign.
fn trimmed<'a>(text: &'a [u8], unclear: &mut Option<&'static str>) -> &'a [u8] {
    let is_left = |byte: &u8| *byte > b' ';
    let end = text.iter().rposition(is_left).map_or(0, |at| at + 1);
    let trimmed = text.get(..end).unwrap_or_default();
    if trimmed.last().is_some_and(|&last| last >= 0x80) && trimmed.starts_with(TAIL) {
        unclear.get_or_insert("a line that begins or ends a block has bytes behind it");
    }
    trimmed
}

/// A block that OpenSSL reads.
struct Read<'a> {
    label: &'a [u8],
    header: Zeroizing<Vec<u8>>,
    data: Zeroizing<Vec<u8>>,
}

impl Read<'_> {
    /// Into a buffer with room for it: in one that grows, copies of keys would stay behind.
    fn write(&self, into: &mut Vec<u8>) {
        if LABELS.contains(&self.label) {
            let header: &[u8] = if self.header.is_empty() { b"" } else { b"\n" };
            for part in [
                BEGIN,
                self.label,
                TAIL,
                b"\n",
                &self.header,
                header,
                &self.data,
                END,
                self.label,
                TAIL,
                b"\n",
            ] {
                into.extend_from_slice(part);
            }
        }
    }
}

/// The next block; the error is the line of one that can't be read.
fn block<'a>(pieces: &mut Pieces<'a>, unclear: &mut Option<&'static str>) -> Result<Option<Read<'a>>, usize> {
    let Some(label) = label(pieces, unclear) else { return Ok(None) };
    let begin = pieces.line;
    let mut header = Zeroizing::default();
    let mut data = with_room(2 * pieces.rest.len());
    let (mut has_colon, mut is_behind_empty, mut is_over, mut was_partial) = (false, false, false, false);
    loop {
        let piece = pieces.next().ok_or(begin)?;
        has_colon |= piece.text.contains(&b':');
        let text = trimmed(piece.text, unclear);
        if text.is_empty() {
            if was_partial {
                // OpenSSL 1.1.1 takes the end of the line for an empty one.
                unclear.get_or_insert("a line is as long as OpenSSL's buffer");
            } else if is_behind_empty {
                return Err(piece.line);
            } else {
                is_behind_empty = true;
                header = std::mem::replace(&mut data, with_room(2 * pieces.rest.len()));
            }
            was_partial = piece.is_partial;
            continue;
        }
        was_partial = piece.is_partial;
        if let Some(rest) = text.strip_prefix(END) {
            if rest.strip_suffix(TAIL) != Some(label) {
                return Err(piece.line);
            }
            break;
        }
        if is_over {
            return Err(piece.line);
        }
        data.extend_from_slice(text);
        data.push(b'\n');
        if is_behind_empty {
            if text.len() > FULL_LINE {
                return Err(piece.line);
            }
            is_over = text.len() < FULL_LINE;
        }
    }
    let is_header = header.is_empty() || header.starts_with(b"Proc-Type:");
    let is_data = is_base64(&data) && (is_behind_empty || !has_colon);
    if is_data && (is_header || !LABELS.contains(&label)) {
        Ok(Some(Read { label, header, data }))
    } else {
        Err(begin)
    }
}

/// The label of the next line that begins a block; what stands before it is passed over.
fn label<'a>(pieces: &mut Pieces<'a>, unclear: &mut Option<&'static str>) -> Option<&'a [u8]> {
    let mut is_first = true;
    loop {
        let piece = pieces.next()?;
        let mut text = piece.text;
        if let (true, Some(rest)) = (is_first, text.strip_prefix(BYTE_ORDER_MARK)) {
            text = rest;
            if text.starts_with(BEGIN) {
                unclear.get_or_insert("a byte order mark stands before a block");
            }
        }
        is_first = false;
        let label = trimmed(text, unclear).strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(TAIL));
        if label.is_some() {
            return label;
        }
    }
}

fn is_base64(data: &[u8]) -> bool {
    let mut text = with_room(data.len());
    text.extend(data.iter().filter(|byte| !matches!(byte, b' ' | b'\t' | b'\r' | b'\n')));
    let mut bytes = Zeroizing::new(vec![0; base64::decoded_len_estimate(text.len())]);
    !text.is_empty() && BASE64.decode_slice(&*text, &mut bytes).is_ok()
}

fn with_room(bytes: usize) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(Vec::with_capacity(bytes + PIECE))
}
