//! The arguments that a HAProxy was started with.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// One word of HAProxy's arguments with what belongs to it.
#[derive(Debug, PartialEq, Eq)]
enum Word<'a> {
    /// A configuration file.
    File(&'a OsStr),
    /// What a check takes over.
    Keep(&'a [OsString]),
    /// What only a start or a reload means.
    Leave,
    /// That the configuration is checked, and nothing else.
    Check,
}

/// HAProxy's arguments after the program, as HAProxy reads them.
fn read_arguments(arguments: &[OsString]) -> Vec<Word<'_>> {
    let mut words = Vec::new();
    let mut rest = arguments.get(1..).unwrap_or_default();
    while let Some(first) = rest.first() {
        let with_value = rest.len().min(2);
        let length = match first.as_bytes() {
            b"--" => {
                words.extend(rest.iter().skip(1).map(|file| Word::File(file)));
                break;
            }
            b"-f" => {
                words.extend(rest.get(1).map(|file| Word::File(file)));
                with_value
            }
            b"-sf" | b"-st" => {
                words.push(Word::Leave);
                1 + rest.iter().skip(1).take_while(|word| !word.as_bytes().starts_with(b"-")).count()
            }
            b"-x" => {
                words.push(Word::Leave);
                with_value
            }
            b"-c" => {
                words.push(Word::Check);
                1
            }
            b"-D" | b"-q" => {
                words.push(Word::Leave);
                1
            }
            b"-C" | b"-L" | b"-N" | b"-S" | b"-m" | b"-n" | b"-p" => {
                words.extend(rest.get(..with_value).map(Word::Keep));
                with_value
            }
            _ => {
                words.extend(rest.get(..1).map(Word::Keep));
                1
            }
        };
        rest = rest.get(length..).unwrap_or_default();
    }
    words
}

/// The configuration files among HAProxy's arguments.
pub(crate) fn configuration_files(arguments: &[OsString]) -> Vec<PathBuf> {
    let file = |word: Word<'_>| if let Word::File(file) = word { Some(PathBuf::from(file)) } else { None };
    read_arguments(arguments).into_iter().filter_map(file).collect()
}

/// Whether such a process only checks its configuration, or says its version: it is gone in a moment.
pub(crate) fn only_checks(arguments: &[OsString]) -> bool {
    let says =
        |word: &Word<'_>| matches!(word, Word::Keep([only]) if ["-v", "-vv"].iter().any(|it| only == it));
    read_arguments(arguments).iter().any(|word| *word == Word::Check || says(word))
}

/// The value of an option (`-p`, `-S`) among HAProxy's arguments; the last one counts.
pub(crate) fn value_of<'a>(arguments: &'a [OsString], option: &str) -> Option<&'a OsStr> {
    let value = |word: Word<'a>| match word {
        Word::Keep([name, value]) if name == option => Some(value.as_os_str()),
        _ => None,
    };
    read_arguments(arguments).into_iter().filter_map(value).next_back()
}

/// The arguments of a check: those of the start, without what only a start means; `configuration` replaces the files.
pub(crate) fn for_check(arguments: &[OsString], configuration: &[PathBuf]) -> Vec<OsString> {
    let mut check = vec![OsString::from("-c")];
    for word in read_arguments(arguments) {
        match word {
            Word::Keep(words) => check.extend_from_slice(words),
            Word::File(file) if configuration.is_empty() => check.extend(["-f".into(), file.to_owned()]),
            Word::File(_) | Word::Leave | Word::Check => {}
        }
    }
    check.extend(configuration.iter().flat_map(|file| ["-f".into(), file.clone().into_os_string()]));
    check
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn list(text: &str) -> Vec<OsString> {
        text.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn who_only_checks_or_says_its_version_is_gone_in_a_moment() {
        let of = |line: &str| only_checks(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        for line in ["haproxy -c -f a.cfg", "haproxy -f a.cfg -c", "haproxy -v", "haproxy -vv"] {
            assert!(of(line), "{line}");
        }
        for line in ["haproxy -W -f a.cfg", "haproxy -f -c", "haproxy -L -v -f a.cfg", "haproxy -- -c"] {
            assert!(!of(line), "{line}");
        }
    }

    #[test]
    fn a_check_has_the_arguments_of_the_start() {
        for (started, check) in [
            ("haproxy -W -p /p -f /a.cfg", "-c -W -p /p -f /a.cfg"),
            ("haproxy -sf 12 13 -x sockpair@3 -Ws -f /a -f /b -S /m.sock", "-c -Ws -f /a -f /b -S /m.sock"),
            ("haproxy -D -q -V -L peer -n 100 -- /a.cfg /b.cfg", "-c -V -L peer -n 100 -f /a.cfg -f /b.cfg"),
            ("haproxy -f /-q -st 5", "-c -f /-q"),
            ("haproxy -L -q -f /a", "-c -L -q -f /a"),
            ("haproxy -f", "-c"),
        ] {
            assert_eq!(for_check(&list(started), &[]), list(check), "{started}");
        }
        let other = [PathBuf::from("/x y.cfg")];
        let mut expected = list("-c -W -f");
        expected.push("/x y.cfg".into());
        assert_eq!(for_check(&list("haproxy -W -f /a -- /b"), &other), expected);
        assert_eq!(value_of(&list("haproxy -p /a -f /b -p /c"), "-p"), Some(OsStr::new("/c")));
        assert_eq!(value_of(&list("haproxy -f -p /c"), "-p"), None);
        assert_eq!(configuration_files(&list("haproxy -W -f a -- /b")), [Path::new("a"), Path::new("/b")]);
    }
}
