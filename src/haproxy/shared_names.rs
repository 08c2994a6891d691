//! Which certificates an update in memory would take a name from, where it isn't known what HAProxy loads, nor in which
//! order: by the names of everything that it has. Pure.
//!
//! A commit puts the certificate's names behind those of every other certificate that has the same name with the same
//! family of keys (measured, 2.2 to 3.4).

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, BTreeSet};

use crate::certified_key::KeyFamily;
use crate::haproxy::cli::replies::ListedName;
use crate::sys::escape::escaped;

/// A name with a family of keys.
pub type Key = (String, KeyFamily);

/// What a HAProxy shows of the names of its certificates.
#[derive(Debug, Default)]
pub struct NamesShown {
    /// The names of each store.
    pub names: BTreeMap<String, BTreeSet<Key>>,
    /// The stores whose names can't be seen.
    pub unseen: BTreeSet<String>,
    /// In which order it has them now (3.2 and later).
    pub order: Option<Vec<ListedName>>,
    /// Those of which it is known in which order it loads them.
    pub ordered: BTreeSet<String>,
    /// Whether this is the order of their names.
    pub is_by_name: bool,
}

/// Where a name stands with a family of keys: the stores of each bind, the one that is served first.
type Places<'a> = BTreeMap<(&'a str, KeyFamily), BTreeMap<&'a str, Vec<&'a str>>>;

impl NamesShown {
    /// Of these stores, with the names that they would have: those that would lose a name to another one, or may, without
    /// anybody knowing how to bring it back; with why.
    #[must_use]
    pub fn apart(&self, updates: &BTreeMap<String, BTreeSet<Key>>) -> BTreeMap<String, String> {
        let mut having: BTreeMap<&Key, BTreeSet<&str>> = BTreeMap::new();
        for (store, keys) in &self.names {
            for key in keys {
                having.entry(key).or_default().insert(store);
            }
        }
        let places = self.places();
        let why = |store: &str, keys: &BTreeSet<Key>| {
            if let Some(unseen) = self.unseen.iter().find(|unseen| *unseen != store) {
                return Some(format!("may share a name with {}, whose names can't be seen", escaped(unseen)));
            }
            let defaults =
                [KeyFamily::Ecdsa, KeyFamily::Rsa, KeyFamily::Other].map(|it| ("*".to_owned(), it));
            let own = self.names.get(store);
            let defaults = defaults.into_iter().filter(|key| own.is_some_and(|own| own.contains(key)));
            keys.iter().cloned().chain(defaults).find_map(|key| {
                let others = having.get(&key).into_iter().flatten().filter(|other| **other != store);
                let mut lost = others.filter(|other| self.may_lose(store, other, &key, places.as_ref()));
                lost.next().map(|other| {
                    let name = if key.0 == "*" { "the default".into() } else { escaped(&key.0).to_string() };
                    format!(
                        "shares {name} with {}, and which of them is loaded first isn't known",
                        escaped(other)
                    )
                })
            })
        };
        updates.iter().filter_map(|(store, keys)| Some((store.clone(), why(store, keys)?))).collect()
    }

    fn places(&self) -> Option<Places<'_>> {
        let mut places = Places::new();
        for line in self.order.as_ref()? {
            let of_bind = places.entry((&line.name, line.family())).or_default();
            of_bind.entry(&line.bind).or_default().push(&line.store);
        }
        Some(places)
    }

    /// Whether the other one may serve this name afterwards, and not before, where nobody knows better.
    fn may_lose(&self, store: &str, other: &str, key: &Key, places: Option<&Places<'_>>) -> bool {
        let is_ordered = self.ordered.contains(store) && self.ordered.contains(other);
        let Some(places) = places else { return !is_ordered };
        let of_name = places.get(&(key.0.as_str(), key.1)).into_iter().flatten();
        of_name.into_iter().any(|(bind, stores)| {
            let place = |of: &str| stores.iter().position(|store| *store == of);
            match (place(store), place(other)) {
                (_, None) => false,
                (Some(own), Some(other_place)) if is_ordered => {
                    self.is_by_name && (own < other_place) != (store < other)
                }
                (Some(own), Some(other)) => own < other,
                (None, Some(_)) => !is_ordered && self.is_on(bind, store),
            }
        })
    }

    fn is_on(&self, bind: &str, store: &str) -> bool {
        self.order.iter().flatten().any(|line| line.bind == bind && line.store == store)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(names: &[&str]) -> BTreeSet<Key> {
        names.iter().map(|name| ((*name).to_owned(), KeyFamily::Ecdsa)).collect()
    }

    fn shown(stores: &[(&str, &[&str])], ordered: &[&str]) -> NamesShown {
        NamesShown {
            names: stores.iter().map(|(store, names)| ((*store).to_owned(), keys(names))).collect(),
            ordered: ordered.iter().map(|store| (*store).to_owned()).collect(),
            is_by_name: true,
            ..NamesShown::default()
        }
    }

    fn with_order(mut shown: NamesShown, lines: &[(&str, &str, &str)]) -> NamesShown {
        let line = |(bind, name, store): &(&str, &str, &str)| ListedName {
            bind: (*bind).to_owned(),
            name: (*name).to_owned(),
            excluded: Vec::new(),
            kind: "ecdsa".to_owned(),
            store: (*store).to_owned(),
        };
        shown.order = Some(lines.iter().map(line).collect());
        shown
    }

    fn is_apart(shown: &NamesShown, store: &str, names: &[&str]) -> bool {
        !shown.apart(&BTreeMap::from([(store.to_owned(), keys(names))])).is_empty()
    }

    #[test]
    fn who_shares_a_name_and_has_no_known_place_is_apart() {
        let stores: [(&str, &[&str]); 3] = [("/s/a", &["a", "s"]), ("/s/b", &["b", "s"]), ("/x/c", &["c"])];
        let in_directory = shown(&stores, &["/s/a", "/s/b"]);
        assert!(!is_apart(&in_directory, "/s/a", &["a", "s"]));
        assert!(is_apart(&in_directory, "/s/a", &["a", "c"]));
        assert!(is_apart(&shown(&stores, &[]), "/s/a", &["a", "s"]));
        let unseen = NamesShown { unseen: ["/y".to_owned()].into(), ..shown(&stores, &["/s/a"]) };
        assert!(is_apart(&unseen, "/s/a", &["a"]));
    }

    #[test]
    fn who_is_loaded_behind_all_others_loses_nothing() {
        let stores: [(&str, &[&str]); 2] = [("/s/a", &["a"]), ("/x/c", &["a", "n"])];
        let order = |lines: &[(&str, &str, &str)]| with_order(shown(&stores, &["/s/a"]), lines);
        let behind = order(&[("f", "a", "/x/c"), ("f", "a", "/s/a"), ("f", "n", "/x/c")]);
        assert!(!is_apart(&behind, "/s/a", &["a"]));
        // Of a name that it gets anew its place isn't known.
        assert!(is_apart(&behind, "/s/a", &["a", "n"]));
        let before = order(&[("f", "a", "/s/a"), ("f", "a", "/x/c")]);
        assert!(is_apart(&before, "/s/a", &["a"]));
        let on_another = order(&[("f", "a", "/s/a"), ("g", "a", "/x/c")]);
        assert!(!is_apart(&on_another, "/s/a", &["a"]));
    }

    #[test]
    fn an_order_that_is_not_the_directorys_is_no_known_one() {
        let stores: [(&str, &[&str]); 2] = [("/s/a", &["s"]), ("/s/b", &["s"])];
        let turned = [("f", "s", "/s/b"), ("f", "s", "/s/a")];
        assert!(is_apart(&with_order(shown(&stores, &["/s/a", "/s/b"]), &turned), "/s/a", &["s"]));
    }
}
