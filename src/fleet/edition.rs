//! What the next head is to name: decided from what the last one names and what certbot has. Pure.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;

use crate::fleet::page::{self, PageEntry};

/// So many lineages may go at once whatever their share, as on a single host.
const GO_FREELY: usize = 3;

/// What becomes of lineages that are gone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Pruning {
    /// They go where they are few.
    #[default]
    Few,
    /// They go, however many there are.
    Many,
    /// They stay.
    Nothing,
}

/// Why lineages that are gone stay published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// It is wanted so.
    Wanted,
    /// certbot's tree is empty.
    NoLineage,
    /// They are too many.
    TooMany,
}

impl Held {
    /// The cause, and what to do about it.
    #[must_use]
    pub fn why(self) -> &'static str {
        match self {
            Self::Wanted => "--no-prune",
            Self::NoLineage => "live_dir has no lineage at all",
            Self::TooMany => "too many to prune at once; if meant: fleet publish --prune-many",
        }
    }
}

/// What came of reading one lineage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Looked {
    /// It is as it was published.
    Same,
    /// A proved pair that isn't published yet.
    Proved(PageEntry),
    /// It fails, and why: what was published of it stays.
    Refused(String),
}

/// What the next head names, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edition {
    /// Its lineages.
    pub entries: BTreeMap<String, PageEntry>,
    /// Those that are new or renewed.
    pub published: Vec<String>,
    /// Those that are gone.
    pub gone: Vec<String>,
    /// Those that are gone and stay published all the same.
    pub held: Vec<String>,
    /// Why they stay.
    pub why_held: Option<Held>,
    /// Those that were refused, and why.
    pub refused: Vec<(String, String)>,
}

impl Edition {
    /// What follows `before`, where every lineage that certbot has is in `looked`.
    #[must_use]
    pub fn after(
        before: &BTreeMap<String, PageEntry>,
        looked: BTreeMap<String, Looked>,
        any_lineage: bool,
        pruning: Pruning,
    ) -> Self {
        let gone: Vec<String> = before.keys().filter(|name| !looked.contains_key(*name)).cloned().collect();
        let too_many = are_too_many(gone.len(), before.len()) && pruning != Pruning::Many;
        let why_held = if gone.is_empty() {
            None
        } else if pruning == Pruning::Nothing {
            Some(Held::Wanted)
        } else if !any_lineage {
            Some(Held::NoLineage)
        } else if too_many {
            Some(Held::TooMany)
        } else {
            None
        };
        let mut next = Self { why_held, ..Self::default() };
        for (name, found) in looked {
            let last = before.get(&name).cloned();
            let entry = match found {
                Looked::Same => last,
                Looked::Proved(entry) => {
                    next.published.push(name.clone());
                    Some(entry)
                }
                Looked::Refused(why) => {
                    next.refused.push((name.clone(), why));
                    last
                }
            };
            next.entries.extend(entry.map(|entry| (name, entry)));
        }
        if why_held.is_some() {
            let kept = gone.iter().filter_map(|name| Some((name.clone(), before.get(name)?.clone())));
            next.entries.extend(kept.collect::<Vec<_>>());
            next.held = gone;
        } else {
            next.gone = gone;
        }
        next
    }
}

/// Whether so many of the lineages that are published don't go at once unless that is permitted.
#[must_use]
pub fn are_too_many(gone: usize, published: usize) -> bool {
    gone > GO_FREELY && gone * 4 > published
}

/// The lineages of each page.
#[must_use]
pub fn pages_of(entries: &BTreeMap<String, PageEntry>, pages: usize) -> Vec<Vec<&PageEntry>> {
    let mut all = vec![Vec::new(); pages];
    for (name, entry) in entries {
        if let Some(page) = all.get_mut(page::place(name, pages)) {
            page.push(entry);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, content: u8) -> PageEntry {
        PageEntry {
            lineage: name.to_owned(),
            object: [content; 32],
            content: [content; 32],
            leaf: [content; 32],
            serial: "01".to_owned(),
            not_after: 0,
        }
    }

    fn entries(names: &[&str]) -> BTreeMap<String, PageEntry> {
        names.iter().map(|name| ((*name).to_owned(), entry(name, 1))).collect()
    }

    fn looked(names: &[&str]) -> BTreeMap<String, Looked> {
        names.iter().map(|name| ((*name).to_owned(), Looked::Same)).collect()
    }

    #[test]
    fn a_refused_lineage_keeps_what_was_published_of_it() {
        let before = entries(&["a", "b"]);
        let mut now = looked(&["a"]);
        now.insert("b".into(), Looked::Refused("torn".into()));
        now.insert("c".into(), Looked::Refused("never whole".into()));
        let next = Edition::after(&before, now, true, Pruning::Few);
        assert_eq!(next.entries, before);
        assert_eq!(next.refused.len(), 2);
        assert!(next.published.is_empty() && next.gone.is_empty());
    }

    #[test]
    fn few_may_go_and_many_are_held() {
        let names: Vec<String> = (0..8).map(|at| format!("n{at}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let before = entries(&names);
        let three = Edition::after(&before, looked(&names[3..]), true, Pruning::Few);
        assert_eq!((three.gone.len(), three.held.len(), three.entries.len()), (3, 0, 5));
        let four = Edition::after(&before, looked(&names[4..]), true, Pruning::Few);
        assert_eq!((four.gone.len(), four.held.len(), four.entries.len()), (0, 4, 8));
        let meant = Edition::after(&before, looked(&names[4..]), true, Pruning::Many);
        assert_eq!((meant.gone.len(), meant.entries.len()), (4, 4));
        let none = Edition::after(&entries(&["a"]), BTreeMap::new(), false, Pruning::Many);
        assert_eq!((none.held.len(), none.entries.len()), (1, 1));
    }

    #[test]
    fn every_lineage_is_on_one_page() {
        let before = entries(&["a", "b", "c", "d", "e"]);
        let pages = pages_of(&before, 4);
        assert_eq!(pages.len(), 4);
        let all: BTreeMap<String, PageEntry> =
            pages.into_iter().flatten().map(|entry| (entry.lineage.clone(), entry.clone())).collect();
        assert_eq!(all, before);
    }
}
