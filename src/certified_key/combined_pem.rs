//! The canonical PEM that HAProxy loads.

use std::fmt;

use base64::{Engine, encoded_len};
use zeroize::Zeroizing;

use super::digest::sha256;
use super::pem_text::BASE64;

/// As many bytes as fill a line of 64 columns.
const LINE: usize = 48;

/// A proved private key and its chain as the canonical PEM: key first, LF, 64 columns, nothing around the blocks.
///
/// It comes only from a [`CertifiedKey`](super::CertifiedKey), is zeroized on drop and never printed.
#[derive(Clone)]
pub struct CombinedPem {
    text: Zeroizing<Vec<u8>>,
}

impl CombinedPem {
    /// Writes the blocks: label and DER.
    pub(super) fn of<'a>(blocks: impl Iterator<Item = (&'static str, &'a [u8])> + Clone) -> Self {
        // No reallocation that leaves a copy of the key behind.
        let length = blocks.clone().map(|(label, der)| block_length(label, der)).sum();
        let mut text = Zeroizing::new(Vec::with_capacity(length));
        for (label, der) in blocks {
            push_block(&mut text, label, der);
        }
        debug_assert_eq!(text.len(), length);
        Self { text }
    }

    /// The text.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.text
    }

    /// The SHA-256 of the text.
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        sha256(&self.text)
    }
}

impl fmt::Debug for CombinedPem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[private key]")
    }
}

fn block_length(label: &str, der: &[u8]) -> usize {
    let marks = "-----BEGIN -----\n-----END -----\n".len() + 2 * label.len();
    marks + encoded_len(der.len(), true).unwrap_or_default() + der.len().div_ceil(LINE)
}

fn push_block(text: &mut Vec<u8>, label: &str, der: &[u8]) {
    for part in ["-----BEGIN ", label, "-----\n"] {
        text.extend_from_slice(part.as_bytes());
    }
    let mut line = Zeroizing::new([0; 64]);
    for bytes in der.chunks(LINE) {
        // 48 bytes are 64 columns: there is always room.
        let length = BASE64.encode_slice(bytes, &mut *line).unwrap_or_default();
        text.extend_from_slice(line.get(..length).unwrap_or_default());
        text.push(b'\n');
    }
    for part in ["-----END ", label, "-----\n"] {
        text.extend_from_slice(part.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::CombinedPem;

    #[test]
    fn the_text_is_what_the_pem_crate_writes() {
        let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
        for length in [1, 2, 3, 47, 48, 49, 95, 96, 97, 1000] {
            let der: Vec<u8> = (0..length).map(|byte| u8::try_from(byte % 251).unwrap()).collect();
            let ours =
                CombinedPem::of([("RSA PRIVATE KEY", &der[..]), ("CERTIFICATE", &der[..])].into_iter());
            let theirs = pem::encode_many_config(
                &[pem::Pem::new("RSA PRIVATE KEY", der.clone()), pem::Pem::new("CERTIFICATE", der)],
                config,
            );
            assert_eq!(ours.as_bytes(), theirs.replace("\n\n", "\n").as_bytes());
            assert_eq!(format!("{ours:?}"), "[private key]");
        }
    }
}
