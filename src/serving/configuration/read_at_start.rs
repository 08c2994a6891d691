//! What HAProxy reads when it starts, but the certificates that it presents.

use std::collections::BTreeSet;

use super::default_path::joined;
use super::file_names::{BEFORE_FILES, FileNames};
use crate::serving::loads::At;
use crate::serving::words::Words;

/// What stands before a file or directory that certificates are read from for something else than to present them. HAProxy
/// keeps what it has read until it is reloaded.
pub(super) const BEFORE_READ: [&str; 7] = [
    "ca-file",
    "ca-sign-file",
    "ca-verify-file",
    "crl-file",
    "httpclient.ssl.ca-file",
    "issuers-chain-path",
    "ssl-server-ca-file",
];

/// What stands before a file that HAProxy reads when it starts, and that may have a name without a directory.
const BEFORE_TEXTS: [&str; 7] =
    ["crt-list", "lua-load", "ssl-dh-param-file", "tls-ticket-keys", "errorfile", "-f", "-M"];

/// The first words of lines, and of parts of lines, that name what HAProxy or somebody else writes while it runs, or what it can
/// be without.
const WRITTEN: [&str; 10] = [
    "account-key",
    "backing-file",
    "chroot",
    "load-server-state-from-file",
    "log",
    "pidfile",
    "server-state-file",
    "server-state-file-name",
    "stats",
    "stats-file",
];

/// What a line has HAProxy read when it starts, but certificates; `first`: the line's first word.
pub(super) fn by_line(first: &str, line: &Words, at: &At, ca_base: Option<&String>) -> BTreeSet<String> {
    let mut read = BTreeSet::new();
    if WRITTEN.contains(&first) {
        return read;
    }
    let mut named = FileNames::default();
    named.mention_all(line, at, |_| true);
    let paths = named.paths.into_iter().map(|(path, _)| path);
    read.extend(paths.filter(|path| !path.contains("%[")));
    for (place, word) in line.all.iter().enumerate() {
        let is_known = |place: &usize| !line.unknown.contains_key(place);
        let behind = |distance: usize| {
            let place = Some(place + distance).filter(is_known)?;
            line.all.get(place).filter(|path| !path.starts_with('@'))
        };
        if BEFORE_READ.contains(&word.as_str()) {
            read.extend(behind(1).map(|path| joined(ca_base, path)));
        }
        if BEFORE_TEXTS.contains(&word.as_str()) {
            // `errorfile 503 FILE`.
            let distance = if word == "errorfile" { 2 } else { 1 };
            read.extend(behind(distance).cloned());
        }
        if is_known(&place) {
            read.extend(maps(word).map(ToOwned::to_owned));
        }
    }
    read
}

/// What a line of a crt-list with these options has HAProxy read when it starts, beside its certificate.
pub(super) fn by_list(options: &[String], ca_base: Option<&String>) -> Vec<String> {
    let read = options.windows(2).filter_map(|pair| match pair {
        [keyword, path] if BEFORE_READ.contains(&keyword.as_str()) => Some(joined(ca_base, path)),
        [keyword, path] if BEFORE_FILES.contains(&keyword.as_str()) && path.contains('/') => {
            Some(path.clone())
        }
        _ => None,
    });
    read.collect()
}

/// The files of the converters `map`, `map_str` and the like in a word: `%[path,map(a.map)]`.
fn maps(word: &str) -> impl Iterator<Item = &str> {
    word.match_indices('(').filter_map(|(open, _)| {
        let (before, behind) = (word.get(..open)?, word.get(open + 1..)?);
        let converter =
            before.rsplit(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').next()?;
        let file = behind.split([',', ')']).next()?;
        (converter.starts_with("map") && !file.is_empty() && !file.contains('@')).then_some(file)
    })
}
