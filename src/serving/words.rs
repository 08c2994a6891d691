//! The words of a line of haproxy.cfg, as HAProxy cuts them (`parse_line()` in tools.c, 2.2 and later).

use std::collections::BTreeMap;

/// The environment that the configuration is read in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    /// The variables.
    pub variables: BTreeMap<String, String>,
    /// Whether these are all: one that isn't there is empty.
    pub is_whole: bool,
    /// The first two numbers of HAProxy's version, where that is known.
    pub version: Option<(u32, u32)>,
}

impl Environment {
    /// What a variable stands for; `None`: that isn't known.
    fn value(&self, name: &str) -> Option<&str> {
        // HAProxy sets these itself while it reads the configuration, and those with a dot.
        let is_haproxys = name.starts_with("HAPROXY_") || name.starts_with('.');
        match self.variables.get(name) {
            Some(value) => Some(value),
            None if self.is_whole && !is_haproxys => Some(""),
            None => None,
        }
    }
}

/// A line that HAProxy would refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadLine {
    #[error("a quote isn't closed")]
    Quote,
    #[error("\\x isn't followed by two hexadecimal digits")]
    Hex,
    #[error("a variable has no name, or no brace at its end")]
    Variable,
}

/// The words of a line, and whether one holds a variable whose value isn't known.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Words {
    pub(super) all: Vec<String>,
    pub(super) has_unknown: bool,
    /// The places of the words that hold one, and whether it is in their last part, behind the last slash.
    pub(super) unknown: BTreeMap<usize, bool>,
}

/// Cuts a line into words.
pub(super) fn words(line: &[u8], environment: &Environment) -> Result<Words, BadLine> {
    let mut cut = Cut { rest: line, environment, found: Words::default(), word: None, unknown: None };
    cut.line()?;
    Ok(cut.found)
}

struct Cut<'a> {
    rest: &'a [u8],
    environment: &'a Environment,
    found: Words,
    word: Option<Vec<u8>>,
    /// Of the word that is being cut, see [`Words::unknown`].
    unknown: Option<bool>,
}

impl Cut<'_> {
    fn line(&mut self) -> Result<(), BadLine> {
        let mut quote = None;
        while let Some(byte) = self.next() {
            match (quote, byte) {
                (_, b'\n' | b'\r' | 0) | (None, b'#') => break,
                (None, b'"' | b'\'') => {
                    quote = Some(byte);
                    self.word.get_or_insert_default();
                }
                (Some(open), _) if open == byte => quote = None,
                (None | Some(b'"'), b'\\') => {
                    let escaped = self.escaped(quote.is_some())?;
                    self.push(escaped);
                }
                (Some(b'"'), b'$') => self.variable()?,
                (None, _) if byte.is_ascii_whitespace() || byte == 0x0b => self.end_word(),
                _ => self.push(byte),
            }
        }
        self.end_word();
        if quote.is_some() { Err(BadLine::Quote) } else { Ok(()) }
    }

    fn next(&mut self) -> Option<u8> {
        let (&first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first)
    }

    fn push(&mut self, byte: u8) {
        if byte == b'/' {
            self.unknown = self.unknown.map(|_| false);
        }
        self.word.get_or_insert_default().push(byte);
    }

    fn end_word(&mut self) {
        let word = self.word.take();
        if let (Some(_), Some(in_last_part)) = (&word, self.unknown.take()) {
            self.found.unknown.insert(self.found.all.len(), in_last_part);
        }
        self.found.all.extend(word.map(|word| String::from_utf8_lossy(&word).into_owned()));
    }

    /// What stands for a backslash and what follows it; other combinations are no escapes.
    fn escaped(&mut self, in_double_quotes: bool) -> Result<u8, BadLine> {
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let (stands_for, length) = match *self.rest {
            [byte @ (b' ' | b'\\' | b'#' | b'\'' | b'"'), ..] => (byte, 1),
            [b'$', ..] if in_double_quotes => (b'$', 1),
            [b't', ..] => (b'\t', 1),
            [b'n', ..] => (b'\n', 1),
            [b'r', ..] => (b'\r', 1),
            [b'x', high, low, ..] => match (digit(high), digit(low)) {
                (Some(high), Some(low)) => (high << 4 | low, 3),
                _ => return Err(BadLine::Hex),
            },
            [b'x', ..] => return Err(BadLine::Hex),
            _ => (b'\\', 0),
        };
        self.rest = self.rest.get(length..).unwrap_or_default();
        Ok(stands_for)
    }

    /// `$X`, `${X}`, `${X-default}` and `${X[*]}`, within double quotes.
    fn variable(&mut self) -> Result<(), BadLine> {
        let in_braces = self.rest.first() == Some(&b'{');
        if in_braces {
            self.next();
        }
        let is_inner = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        let name = match self.rest {
            [first, tail @ ..] if first.is_ascii_alphabetic() || matches!(first, b'_' | b'.') => {
                let length = 1 + tail.iter().take_while(|byte| is_inner(byte)).count();
                self.rest.get(..length).unwrap_or_default()
            }
            _ => return Err(BadLine::Variable),
        };
        self.rest = self.rest.get(name.len()..).unwrap_or_default();
        let name = String::from_utf8_lossy(name).into_owned();
        let expands = in_braces && self.rest.starts_with(b"[*]");
        if expands {
            self.rest = self.rest.get(3..).unwrap_or_default();
        }
        let mut default = None;
        if in_braces {
            let end = self.rest.iter().position(|&byte| byte == b'}').ok_or(BadLine::Variable)?;
            let (inside, behind) = self.rest.split_at(end);
            default = match inside {
                [] => None,
                [b'-', default @ ..] => Some(default.to_vec()),
                _ => return Err(BadLine::Variable),
            };
            self.rest = behind.get(1..).unwrap_or_default();
        }
        let known = self.environment.value(&name);
        // Only what isn't set has its default; an empty variable is set.
        let is_set = self.environment.variables.contains_key(&name);
        self.found.has_unknown |= known.is_none();
        let is_unknown = known.is_none();
        let value = match default {
            Some(default) if !is_set => default,
            _ => known.unwrap_or_default().as_bytes().to_vec(),
        };
        for byte in value {
            if expands && byte.is_ascii_whitespace() {
                self.end_word();
            } else {
                self.push(byte);
            }
        }
        if is_unknown {
            self.unknown = Some(true);
        }
        if expands && self.word.as_ref().is_some_and(Vec::is_empty) {
            // Nothing in it is no word, although it stands in quotes.
            self.word = None;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(line: &str) -> Vec<String> {
        let variables = [("X", "/x y"), ("EMPTY", "")].map(|(name, value)| (name.into(), value.into()));
        let environment = Environment { variables: variables.into(), is_whole: true, version: None };
        words(line.as_bytes(), &environment).unwrap().all
    }

    #[test]
    fn words_are_cut_as_haproxy_does() {
        for (line, expected) in [
            ("", &[][..]),
            ("  # all of it", &[]),
            ("bind  :443\tssl # no more", &["bind", ":443", "ssl"]),
            ("a#b c", &["a"]),
            (r"a\#b a\ b a\\b a\x41 \q", &["a#b", "a b", "a\\b", "aA", "\\q"]),
            (r#"'a b'"c d"e "" '\'"#, &["a bc de", "", "\\"]),
            (r#""\"q\"" \' \""#, &["\"q\"", "'", "\""]),
            (r#""${X}/z" '$X' $X "$X" "\$X""#, &["/x y/z", "$X", "$X", "/x y", "$X"]),
            (r#""${X[*]}" "${NONE[*]}" b"#, &["/x", "y", "b"]),
            (r#""${NONE-d e}" "${EMPTY-d}" "${NONE}""#, &["d e", "", ""]),
        ] {
            assert_eq!(cut(line), expected, "{line}");
        }
    }

    #[test]
    fn what_haproxy_refuses_is_refused() {
        for (line, why) in [
            ("'a", BadLine::Quote),
            ("\"a", BadLine::Quote),
            (r"\x4", BadLine::Hex),
            (r"\xzz", BadLine::Hex),
            ("\"${X\"", BadLine::Variable),
            ("\"$\"", BadLine::Variable),
            ("\"${X+y}\"", BadLine::Variable),
        ] {
            assert_eq!(words(line.as_bytes(), &Environment::default()), Err(why), "{line}");
        }
    }

    #[test]
    fn a_variable_that_nobody_knows_is_told() {
        let whole = Environment { is_whole: true, ..Environment::default() };
        assert!(words(b"\"$Y\"", &Environment::default()).unwrap().has_unknown);
        let line = br#"a "$Y/b.pem" "/c/$Y" c "${Y}" "${Y[*]}" d"#;
        let found = words(line, &Environment::default()).unwrap();
        assert_eq!(found.all, ["a", "/b.pem", "/c/", "c", "", "d"]);
        assert_eq!(found.unknown, [(1, false), (2, true), (4, true)].into());
        assert!(!words(b"\"$Y\"", &whole).unwrap().has_unknown);
        assert!(words(b"\"$HAPROXY_LOCALPEER\" \"${.LINE}\"", &whole).unwrap().has_unknown);
        assert!(!words(b"$Y '$Y'", &Environment::default()).unwrap().has_unknown);
    }
}
