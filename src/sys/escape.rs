//! Names and quotations from outside, made fit for a terminal, a log line and certbot's decoder.

use std::ffi::OsStr;
use std::fmt::{self, Write};
use std::path::Path;

/// Text from outside that displays as printable ASCII: everything else, and the backslash, as `\xNN`.
///
/// certbot declares a renewal failed when a hook prints bytes that it can't decode, and a lineage's name may hold
/// any byte but `/` and NUL, terminal escapes among them.
#[derive(Debug, Clone, Copy)]
pub struct Escaped<'a>(&'a [u8]);

/// Escapes `text` for display.
#[must_use]
pub fn escaped<T: AsRef<[u8]> + ?Sized>(text: &T) -> Escaped<'_> {
    Escaped(text.as_ref())
}

/// Escapes a path for display.
#[must_use]
pub fn escaped_path(path: &Path) -> Escaped<'_> {
    Escaped(path.as_os_str().as_encoded_bytes())
}

/// A name as a word of a shell's command line, in printable ASCII.
#[must_use]
pub fn shell_word(name: &OsStr) -> String {
    let shown = escaped(name.as_encoded_bytes()).to_string();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    if !shown.is_empty() && shown.bytes().all(is_plain) {
        shown
    } else if shown.contains('\\') {
        // bash and zsh read there what `escaped` writes.
        format!("$'{}'", shown.replace('\'', "\\'"))
    } else {
        format!("'{}'", shown.replace('\'', "'\\''"))
    }
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for &byte in self.0 {
            match byte {
                b'\\' => f.write_str("\\\\")?,
                b' '..=b'~' => f.write_char(char::from(byte))?,
                _ => write!(f, "\\x{byte:02x}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::{escaped, shell_word};

    #[test]
    fn control_bytes_and_foreign_letters_become_ascii() {
        assert_eq!(escaped("a\x1b[31m\n\u{fc}\\b c").to_string(), "a\\x1b[31m\\x0a\\xc3\\xbc\\\\b c");
    }

    #[test]
    fn a_shell_reads_the_name_again() {
        for name in ["example.org", "a b;c", "it's", "", "*", "a\n\u{fc}\\'b"] {
            let script = format!("printf %s {}", shell_word(OsStr::new(name)));
            let output = std::process::Command::new("bash").arg("-c").arg(script).output().unwrap();
            assert_eq!(output.stdout, name.as_bytes(), "{name:?}");
        }
    }
}
