//! The lines of a crt-list (`crtlist_parse_line()` in `ssl_crtlist.c`): no quotes, no escapes.

/// A line that loads a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListLine {
    /// Its number, from 1.
    pub number: usize,
    /// The file, as it stands there.
    pub path: String,
    /// The words in brackets: options of the bind, and since 3.0 of the store.
    pub options: Vec<String>,
    /// The names that it is served for.
    pub filters: Vec<String>,
}

impl ListLine {
    /// The value of a store's option: `key`, say.
    #[must_use]
    pub fn option(&self, name: &str) -> Option<&str> {
        let place = self.options.iter().position(|word| word == name)?;
        self.options.get(place + 1).map(String::as_str)
    }
}

/// The lines of a crt-list.
///
/// # Errors
/// HAProxy refuses the list: the line and why.
pub fn lines(text: &[u8]) -> Result<Vec<ListLine>, (usize, &'static str)> {
    let mut found = Vec::new();
    for (index, line) in text.split(|&byte| byte == b'\n').enumerate() {
        let number = index + 1;
        if line.starts_with(b"#") || line.starts_with(b"\r") {
            continue;
        }
        if line.contains(&0) {
            return Err((number, "holds a NUL byte"));
        }
        found.extend(parse(&String::from_utf8_lossy(line), number).map_err(|why| (number, why))?);
    }
    Ok(found)
}

/// Whether a path can be the first word of a line: nothing is quoted there.
#[must_use]
pub fn can_be_named(path: &str) -> bool {
    let ends_it =
        |letter: char| matches!(letter, ' ' | '\t' | '\r' | '\n' | '\x0b' | '\x0c' | '[' | ']' | '\0');
    !path.is_empty() && !path.starts_with('#') && !path.contains(ends_it)
}

fn parse(line: &str, number: usize) -> Result<Option<ListLine>, &'static str> {
    let mut words: Vec<String> = Vec::new();
    let (mut begin, mut end) = (None, None);
    let mut is_new = true;
    for letter in line.chars() {
        match letter {
            ' ' | '\t' | '\r' | '\x0b' | '\x0c' => is_new = true,
            '[' if begin.is_some() => return Err("has two '['"),
            '[' if words.is_empty() => return Err("begins with '['"),
            ']' if end.is_some() => return Err("has two ']'"),
            ']' if begin.is_none() => return Err("has no '['"),
            '[' | ']' => {
                let mark = if letter == '[' { &mut begin } else { &mut end };
                *mark = Some(words.len());
                is_new = true;
            }
            _ if is_new => {
                words.push(letter.into());
                is_new = false;
            }
            _ => {
                if let Some(word) = words.last_mut() {
                    word.push(letter);
                }
            }
        }
    }
    let Some(path) = words.first().cloned() else { return Ok(None) };
    let options = begin.unwrap_or(1)..end.or(begin).unwrap_or(1);
    let filters = words.get(options.end..).unwrap_or_default().to_vec();
    let options = words.get(options).unwrap_or_default().to_vec();
    Ok(Some(ListLine { number, path, options, filters }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_a_file_options_and_filters() {
        let text = "# comment\n\n/a.pem\n b.pem [alpn h2 ssl-min-ver TLSv1.2] *.x !y.x\n\
                    c.pem[key c.key]z  \n\t \nd.pem !d *\r\nlast.pem";
        let line = |number, path: &str, options: &[&str], filters: &[&str]| ListLine {
            number,
            path: path.into(),
            options: options.iter().map(|word| (*word).to_owned()).collect(),
            filters: filters.iter().map(|word| (*word).to_owned()).collect(),
        };
        let found = lines(text.as_bytes()).unwrap();
        assert_eq!(
            found,
            [
                line(3, "/a.pem", &[], &[]),
                line(4, "b.pem", &["alpn", "h2", "ssl-min-ver", "TLSv1.2"], &["*.x", "!y.x"]),
                line(5, "c.pem", &["key", "c.key"], &["z"]),
                line(7, "d.pem", &[], &["!d", "*"]),
                line(8, "last.pem", &[], &[]),
            ]
        );
        assert_eq!(found[2].option("key"), Some("c.key"));
    }

    #[test]
    fn a_path_that_can_be_named_is_read_as_it_stands() {
        for (path, can_be) in [
            ("/a/b.pem", true),
            ("/a;'\"\\#$*/b:c.pem", true),
            ("/a b/c.pem", false),
            ("/a/[b].pem", false),
            ("#a.pem", false),
            ("", false),
        ] {
            let read = lines(format!("{path}\n").as_bytes());
            let is_read = read.is_ok_and(|lines| lines.first().is_some_and(|line| line.path == path));
            assert_eq!((can_be_named(path), is_read), (can_be, can_be), "{path:?}");
        }
    }

    #[test]
    fn what_haproxy_refuses_is_refused() {
        for (text, number) in [("a [b [c]", 1), ("\n[b] a", 2), ("a b]", 1), ("a [b] c]", 1), ("a\0b", 1)] {
            assert_eq!(lines(text.as_bytes()).unwrap_err().0, number, "{text:?}");
        }
    }
}
