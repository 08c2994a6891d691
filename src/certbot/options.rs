//! certbot's command line as Python's argparse reads it: bundled letters, values with and without `=`, and abbreviations.
//! Pure.
//!
//! A word that begins with a dash is never the value of the option before it, unless it holds a blank and begins with no
//! option's letter (`argparse.py`, `_parse_optional`; the same for certbot 2.1 and 5.8).

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::ffi::OsString;

/// The letters of options, and their names.
const LETTERS: [(char, &str); 11] = [
    ('a', "authenticator"),
    ('c', "config"),
    ('d', "domains"),
    ('h', "help"),
    ('i', "installer"),
    ('m', "email"),
    ('n', "non-interactive"),
    ('q', "quiet"),
    ('t', "text"),
    ('v', "verbose"),
    ('w', "webroot-path"),
];

/// The letters that take no value: others may follow.
const ALONE: [char; 5] = ['h', 'n', 'q', 't', 'v'];

/// Options that are meant by the beginnings of their names, and the shortest that no other option has too: argparse refuses
/// the shorter ones (2.1 and 5.8; plugins add none). `--authenticator` has none, since there is `--authenticators`.
const SHORTEST: [(&str, &str); 9] = [
    ("cert-name", "cert-n"),
    ("configurator", "configu"),
    ("ip-address", "ip"),
    ("keep-until-expiring", "keep-"),
    ("key-type", "key-t"),
    ("non-interactive", "non-"),
    ("noninteractive", "noni"),
    ("preferred-challenges", "preferred-chal"),
    ("standalone", "stan"),
];

/// An option that is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptionGiven {
    /// Its whole name, without the dashes; a letter's too.
    pub name: String,
    /// What may be its value: what is attached to it, else the next word, where that is no option.
    pub value: Option<String>,
    /// The place of its word.
    place: usize,
    /// Where it stands in its word, and where it ends: a letter among others.
    within: Option<(usize, usize)>,
    /// Whether its value is the next word.
    is_apart: bool,
}

/// The options among these arguments, in their order.
#[must_use]
pub fn given(arguments: &[OsString]) -> Vec<OptionGiven> {
    let mut found = Vec::new();
    for (place, argument) in arguments.iter().enumerate() {
        let Some(text) = argument.to_str().filter(|_| is_option(argument)) else { continue };
        let next = arguments.get(place + 1).filter(|next| !is_option(next));
        let apart = next.map(|next| next.to_string_lossy().into_owned());
        if let Some(long) = text.strip_prefix("--") {
            let (name, value) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (long, None),
            };
            let is_apart = value.is_none() && apart.is_some();
            let (name, value) = (whole_name(name).to_owned(), value.or(apart));
            found.push(OptionGiven { name, value, place, within: None, is_apart });
            continue;
        }
        for (at, letter) in text.char_indices().skip(1) {
            let end = at + letter.len_utf8();
            let Some((_, name)) = LETTERS.iter().find(|(it, _)| *it == letter) else { break };
            let given = |value, end, is_apart| OptionGiven {
                name: (*name).to_owned(),
                value,
                place,
                within: Some((at, end)),
                is_apart,
            };
            if ALONE.contains(&letter) {
                found.push(given(None, end, false));
                continue;
            }
            let rest = text.get(end..).unwrap_or_default();
            // Only the first letter's may have it.
            let value = if at == 1 { rest.strip_prefix('=').unwrap_or(rest) } else { rest };
            found.push(match value {
                "" => given(apart.clone(), end, apart.is_some()),
                value => given(Some(value.to_owned()), text.len(), false),
            });
            break;
        }
    }
    found
}

/// The values of the options with these names.
#[must_use]
pub fn values(arguments: &[OsString], names: &[&str]) -> Vec<String> {
    let of_these = given(arguments).into_iter().filter(|it| names.contains(&&*it.name));
    of_these.filter_map(|it| it.value).collect()
}

/// The arguments without the options of which `is_out` says so; `takes_value`: whether such an option has one.
#[must_use]
pub fn without(
    arguments: &[OsString],
    is_out: &dyn Fn(&str) -> bool,
    takes_value: &dyn Fn(&str) -> bool,
) -> Vec<OsString> {
    let mut left: Vec<Option<OsString>> = arguments.iter().cloned().map(Some).collect();
    // From the end, so that the places before stay as they are.
    for given in given(arguments).into_iter().rev().filter(|given| is_out(&given.name)) {
        if given.is_apart
            && takes_value(&given.name)
            && let Some(value) = left.get_mut(given.place + 1)
        {
            *value = None;
        }
        let Some(word) = left.get_mut(given.place) else { continue };
        *word = match (given.within, word.as_ref().and_then(|word| word.to_str())) {
            (Some((begin, end)), Some(text)) => {
                let rest = format!("{}{}", text.get(..begin).unwrap_or("-"), text.get(end..).unwrap_or(""));
                (rest != "-").then(|| rest.into())
            }
            _ => None,
        };
    }
    left.into_iter().flatten().collect()
}

/// Whether argparse takes a word for an option.
fn is_option(word: &OsString) -> bool {
    let text = word.to_string_lossy();
    let mut letters = text.chars();
    let (Some('-'), Some(second)) = (letters.next(), letters.next()) else { return false };
    let is_letter = LETTERS.iter().any(|(letter, _)| *letter == second);
    let is_long = || second == '-' && text.split_once('=').is_some_and(|(name, _)| !name.contains(' '));
    is_letter || !text.contains(' ') || is_long()
}

/// The option that a name, or the beginning of one, stands for.
fn whole_name(name: &str) -> &str {
    let is_meant = |(whole, shortest): &&(&str, &str)| whole.starts_with(name) && name.starts_with(shortest);
    SHORTEST.iter().find(is_meant).map_or(name, |(whole, _)| whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').filter(|word| !word.is_empty()).map(|word| word.replace('_', " ").into()).collect()
    }

    #[test]
    fn options_are_found_as_argparse_finds_them() {
        for (line, name, expected) in [
            ("-na manual", "authenticator", &["manual"][..]),
            ("-vvnamanual", "authenticator", &["manual"]),
            ("-a=manual", "authenticator", &["manual"]),
            ("-na=manual", "authenticator", &["=manual"]),
            ("-nia webroot", "authenticator", &[]),
            ("-nia webroot", "installer", &["a"]),
            ("-a x --authenticator=y --authenticator z", "authenticator", &["x", "y", "z"]),
            ("--auth x", "authenticator", &[]),
            ("--cert-n x --cert x", "cert-name", &["x"]),
            ("-m -a x", "email", &[]),
            ("-m -a x", "authenticator", &["x"]),
            ("--manual-auth-hook -na_x", "authenticator", &[" x"]),
            ("--manual-auth-hook --authenticator_x", "authenticator", &[]),
            ("--preferred-chall=dns --preferred-chain x", "preferred-challenges", &["dns"]),
            ("-nd a.test --domain b.test", "domains", &["a.test"]),
        ] {
            assert_eq!(values(&words(line), &[name]), expected, "{line}");
        }
    }

    #[test]
    fn what_is_taken_out_leaves_the_rest_as_it_was() {
        let is_out = |name: &str| ["authenticator", "non-interactive", "webroot"].contains(&name);
        for (line, left) in [
            ("-nva manual -d a.test", "-v -d a.test"),
            ("-namanual --key-type rsa", "--key-type rsa"),
            ("-n --webroot -w /x", "-w /x"),
            ("--authenticator=x --authenticator y z", "z"),
            ("-tn -qa x", "-t -q"),
            ("--manual-auth-hook --webroot_x y", "--manual-auth-hook --webroot_x y"),
        ] {
            let found = without(&words(line), &is_out, &|name| name == "authenticator");
            assert_eq!(found, words(left), "{line}");
        }
    }
}
