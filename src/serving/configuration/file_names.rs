//! The files that the lines of haproxy.cfg name, whatever for.

use std::collections::BTreeMap;

use crate::serving::loads::{At, base_name};
use crate::serving::words::Words;

/// What stands before the name of a file or directory of certificates, or at the beginning of its line.
pub(super) const BEFORE_FILES: [&str; 14] = [
    "ca-file",
    "ca-sign-file",
    "ca-verify-file",
    "crl-file",
    "crt",
    "crt-list",
    "default-crt",
    "ech",
    "issuer",
    "key",
    "ocsp",
    "sctl",
    "-f",
    "-M",
];

/// What stands around a name within a word: `%[path,map(/etc/x.map)]`.
const AROUND: [char; 15] = ['(', ')', '[', ']', '{', '}', '<', '>', ',', ';', '=', '|', '"', '\'', '%'];

/// The files that lines name.
#[derive(Debug, Clone, Default)]
pub struct FileNames {
    /// The paths.
    pub paths: Vec<(String, At)>,
    /// The last parts of names that may lead anywhere, and the line: relative ones, since every keyword has a base directory
    /// of its own, and those with a variable whose value isn't known.
    pub mentioned: BTreeMap<String, At>,
    /// Why there may be more than these.
    pub unseen: Option<String>,
}

impl FileNames {
    /// A path.
    pub fn add(&mut self, path: &str, at: &At) {
        self.paths.push((path.to_owned(), at.clone()));
    }

    /// A word that may name a file; `is_unknown`: with a variable that nobody knows in it.
    pub fn mention(&mut self, word: &str, is_unknown: bool, at: &At) {
        for name in word.split(AROUND).chain([word]) {
            if name.contains('/') && !is_unknown {
                self.add(name, at);
            }
            let base = base_name(name);
            if !base.is_empty() && (is_unknown || !name.starts_with('/')) {
                self.mentioned.entry(base.to_owned()).or_insert_with(|| at.clone());
            }
        }
    }

    /// Keeps the first reason why there may be more names.
    pub fn note(&mut self, why: String) {
        self.unseen.get_or_insert(why);
    }

    /// Every word of a line of the configuration; `is_followed`: a certificate that is found exactly, with its base.
    pub(super) fn mention_all(&mut self, line: &Words, at: &At, is_followed: impl Fn(&str) -> bool) {
        for (place, word) in line.all.iter().enumerate() {
            let unknown = line.unknown.get(&place).copied();
            let before = place.checked_sub(1).and_then(|before| line.all.get(before));
            let is_crt = before.is_some_and(|before| before == "crt" || before == "default-crt");
            if !(is_crt && unknown.is_none() && is_followed(word)) {
                self.mention(word, unknown.is_some(), at);
            }
            let is_list = before.is_some_and(|before| before == "crt-list");
            let is_file = before.is_some_and(|before| BEFORE_FILES.contains(&before.as_str()));
            if unknown == Some(true) && is_file || unknown.is_some() && is_list {
                self.note(format!("{at} holds a variable whose value isn't known"));
            }
        }
    }
}
