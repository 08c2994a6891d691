//! What HAProxy's bind lines load now, and the words that have them load our files.

use crate::config::Haproxy;
use crate::serving::loads::{At, Bind, Serving};
use crate::sys::escape::{escaped, haproxy_word};

/// What is to be done where nothing of ours is loaded: the words for a bind line that speaks TLS already, else a line of its own.
#[must_use]
pub fn what_to_add(haproxy: &Haproxy, serving: &Serving) -> String {
    let (word, host) = (haproxy_word(&haproxy.sites_dir), haproxy_word(&haproxy.host_file));
    match serving.binds.iter().find(|bind| bind.ssl && !bind.is_disabled) {
        Some(bind) => {
            format!("{}: \"crt {word}\" in the place of the files that this is to replace", bind.at)
        }
        None => format!("bind :443 ssl crt {host} crt {word} strict-sni"),
    }
}

/// The certificates that binds with TLS load, with their lines, the first of them by name; `None`: there are none.
#[must_use]
pub fn loaded_now(serving: &Serving) -> Option<String> {
    const NAMED: usize = 3;
    let binds = serving.binds.iter().filter(|bind| bind.ssl);
    let mut found: Vec<(&str, &At)> = Vec::new();
    for entry in binds.flat_map(Bind::entries) {
        if found.iter().all(|(store, _)| *store != entry.store) {
            found.push((&entry.store, &entry.at));
        }
    }
    let named: Vec<String> =
        found.iter().take(NAMED).map(|(store, at)| format!("{} ({at})", escaped(store))).collect();
    let rest = found.len() - named.len();
    let rest = if rest == 0 { String::new() } else { format!(" and {rest} more") };
    (!named.is_empty()).then(|| named.join(", ") + &rest)
}
