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

/// A name as a word of any POSIX shell's command line, in printable ASCII.
#[must_use]
pub fn shell_word(name: &OsStr) -> String {
    let bytes = name.as_encoded_bytes();
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-:=,@%+".contains(byte);
    match str::from_utf8(bytes) {
        Ok(text) if !text.is_empty() && bytes.iter().all(is_plain) => text.to_owned(),
        Ok(text) if bytes.iter().all(|byte| matches!(byte, b' '..=b'~')) => {
            format!("'{}'", text.replace('\'', "'\\''"))
        }
        _ => printed(bytes),
    }
}

/// A word of HAProxy's configuration language (`parse_line()` in tools.c, 2.2 and later): what it would take for a separator, a
/// comment, a quote or an escape is escaped, and so is whatever isn't ASCII.
#[must_use]
pub fn haproxy_word<T: AsRef<[u8]> + ?Sized>(text: &T) -> String {
    let mut word = String::with_capacity(text.as_ref().len());
    for &byte in text.as_ref() {
        // Writing to a String never fails.
        let _ = match byte {
            b' ' | b'#' | b'\\' | b'"' | b'\'' => write!(word, "\\{}", char::from(byte)),
            b'!'..=b'~' => write!(word, "{}", char::from(byte)),
            _ => write!(word, "\\x{byte:02x}"),
        };
    }
    word
}

/// Not every shell has `$'...'`, but each has `printf`, which knows octal numbers.
fn printed(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (at, &byte) in bytes.iter().enumerate() {
        let is_option = at == 0 && byte == b'-';
        if (byte.is_ascii_alphanumeric() || b"/._- ,;:=+@".contains(&byte)) && !is_option {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "\\{byte:03o}");
        }
    }
    // A shell takes line ends off the end of what a command prints: only bash and zsh can be told of those.
    if bytes.ends_with(b"\n") { format!("$'{text}'") } else { format!("\"$(printf '{text}')\"") }
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

    use super::{escaped, haproxy_word, shell_word};

    #[test]
    fn control_bytes_and_foreign_letters_become_ascii() {
        assert_eq!(escaped("a\x1b[31m\n\u{fc}\\b c").to_string(), "a\\x1b[31m\\x0a\\xc3\\xbc\\\\b c");
    }

    #[test]
    fn haproxy_reads_one_word() {
        assert_eq!(haproxy_word("/a b/c#'\"\\$[x]\u{fc}\t"), "/a\\ b/c\\#\\'\\\"\\\\$[x]\\xc3\\xbc\\x09");
    }

    #[test]
    fn a_shell_reads_the_name_again() {
        let names =
            ["example.org", "a b;c", "it's", "", "*", "a\\b%s$x", "a\n\u{fc}\\'b", "-\u{fc}%s$(x)`\"!-"];
        for (shell, name) in names.into_iter().flat_map(|name| [("sh", name), ("bash", name)]) {
            let word = shell_word(OsStr::new(name));
            let script = format!("printf %s {word}");
            let output = std::process::Command::new(shell).arg("-c").arg(&script).output().unwrap();
            assert_eq!(output.stdout, name.as_bytes(), "{shell} {word}");
            assert!(word.is_ascii(), "{word}");
        }
        assert_eq!(shell_word(OsStr::new("a\n")), "$'a\\012'");
    }
}
