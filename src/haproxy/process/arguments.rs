//! The arguments that a HAProxy was started with.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// One word of HAProxy's arguments with what belongs to it.
#[derive(Debug, PartialEq, Eq)]
enum Word<'a> {
    /// A configuration file.
    File(&'a OsStr),
    /// What a check takes over.
    Keep(&'a [OsString]),
    /// What only a start or a reload means.
    Leave,
    /// The processes that it takes the place of.
    Replace(&'a [OsString]),
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
                let count = rest.iter().skip(1).take_while(|word| !word.as_bytes().starts_with(b"-")).count();
                words.extend(rest.get(1..=count).map(Word::Replace));
                1 + count
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

/// The processes that such a process takes the place of: they serve no new client.
pub(crate) fn replaced(arguments: &[OsString]) -> Vec<i32> {
    let words = read_arguments(arguments).into_iter();
    let named = words.filter_map(|word| if let Word::Replace(pids) = word { Some(pids) } else { None });
    named.flatten().filter_map(|pid| pid.to_str()?.parse().ok()).collect()
}

/// The value of an option (`-p`, `-S`) among HAProxy's arguments; the last one counts.
pub(crate) fn value_of<'a>(arguments: &'a [OsString], option: &str) -> Option<&'a OsStr> {
    let value = |word: Word<'a>| match word {
        Word::Keep([name, value]) if name == option => Some(value.as_os_str()),
        _ => None,
    };
    read_arguments(arguments).into_iter().filter_map(value).next_back()
}

/// The path of the master's socket among HAProxy's arguments, as it stands there: `-S /run/haproxy-master.sock,mode,600`,
/// `-S unix@/run/m.sock`. One that is no path has none.
pub(crate) fn master_socket(arguments: &[OsString]) -> Option<&Path> {
    socket_path(value_of(arguments, "-S")?)
}

/// The path in what stands for a socket on HAProxy's command line.
pub(super) fn socket_path(argument: &OsStr) -> Option<&Path> {
    let path = argument.as_bytes().split(|&byte| byte == b',').next()?;
    let path = path.strip_prefix(b"unix@").unwrap_or(path);
    let is_path = path.contains(&b'/') || !path.iter().any(|byte| b"@:".contains(byte));
    is_path.then(|| Path::new(OsStr::from_bytes(path))).filter(|path| !path.as_os_str().is_empty())
}

/// The arguments of a check: those of the start, without what only a start means; `configuration` replaces the files.
pub(crate) fn for_check(arguments: &[OsString], configuration: &[PathBuf]) -> Vec<OsString> {
    let mut check = vec![OsString::from("-c")];
    for word in read_arguments(arguments) {
        match word {
            Word::Keep(words) => check.extend_from_slice(words),
            Word::File(file) if configuration.is_empty() => check.extend(["-f".into(), file.to_owned()]),
            Word::File(_) | Word::Leave | Word::Replace(_) | Word::Check => {}
        }
    }
    check.extend(configuration.iter().flat_map(|file| ["-f".into(), file.clone().into_os_string()]));
    check
}

#[cfg(test)]
mod tests {
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
        assert_eq!(replaced(&list("haproxy -W -sf 12 13 -x sockpair@3 -f /a -st 5")), [12, 13, 5]);
        assert_eq!(replaced(&list("haproxy -W -f /a")), [0; 0]);
        for (socket, path) in [
            ("/run/m.sock", Some("/run/m.sock")),
            ("/run/m.sock,mode,600", Some("/run/m.sock")),
            ("unix@/run/m.sock,level,admin", Some("/run/m.sock")),
            ("unix@m.sock", Some("m.sock")),
            ("m.sock", Some("m.sock")),
            ("abns@m", None),
            ("127.0.0.1:999", None),
            ("", None),
        ] {
            let line = ["haproxy", "-W", "-S", socket, "-f", "/a"].map(OsString::from);
            assert_eq!(master_socket(&line), path.map(Path::new), "{socket}");
        }
        assert_eq!(configuration_files(&list("haproxy -W -f a -- /b")), [Path::new("a"), Path::new("/b")]);
    }
}
