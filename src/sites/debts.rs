//! The pending notifications of each HAProxy, also where its table has another name now. Pure.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::{Deserialize, Serialize};

/// What one HAProxy is still to be notified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owed {
    /// Since when, in seconds since 1970.
    pub since: i64,
    /// The files; `None`: all of ours.
    pub files: Option<Vec<String>>,
    /// The configuration file that its table was in, by its absolute path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

/// Passes the debts of names that vanished from this configuration file to the names without an entry: a renamed table
/// is still to be notified. What another configuration file owes, which shares the sites directory, is its own.
pub fn inherit(
    owed: &mut BTreeMap<String, Owed>,
    names: &[&str],
    file: Option<&Path>,
    exists: impl Fn(&Path) -> bool,
) {
    let is_ours = |owed: &Owed| match owed.file.as_deref().map(Path::new) {
        Some(of) => Some(of) == file || !exists(of),
        // An earlier version didn't record it.
        None => true,
    };
    let has_vanished = |name: &String, owed: &Owed| !names.contains(&name.as_str()) && is_ours(owed);
    let vanished = take(owed, has_vanished);
    let Some((first, rest)) = vanished.split_first() else { return };
    let estate = rest.iter().fold(first.clone(), joined);
    let heirs: Vec<&str> = names.iter().copied().filter(|name| !owed.contains_key(*name)).collect();
    if heirs.is_empty() {
        // Each of them is to be notified anyway: of these files too.
        owed.values_mut().filter(|own| is_ours(own)).for_each(|own| *own = joined(own.clone(), &estate));
    }
    for name in heirs {
        owed.insert(name.to_owned(), estate.clone());
    }
}

/// Adds to what one HAProxy is still to be notified of.
pub fn owe(owed: &mut BTreeMap<String, Owed>, name: &str, more: Owed) {
    let all = match owed.remove(name) {
        Some(own) => joined(own, &more),
        None => more,
    };
    owed.insert(name.to_owned(), all);
}

/// What runs with other settings have changed since the last run with these: their HAProxys are still to be notified of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Elsewhere {
    /// Their tables in the last run with them, and where each finds its HAProxy; `None`: an earlier version didn't record that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tables: Option<BTreeMap<String, String>>,
    /// What is pending for each of them; `None`: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<Owed>,
    /// Whether one of them could not be notified by its own run: it may still refuse what is there now.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub undecided: bool,
}

impl Elsewhere {
    /// Adds to what is pending.
    pub fn add(&mut self, more: Owed) {
        self.pending = Some(match self.pending.take() {
            Some(own) => joined(own, &more),
            None => more,
        });
    }
}

/// Makes pending for the HAProxys of this settings file what runs with others have changed since its last run; and what stands
/// under one of their names for another file's HAProxy is left to that file. `tables`: their names, and where each finds its
/// HAProxy. One that wasn't seen here in the last run with this file owes all files, for nobody knows what its HAProxy has; but
/// one that is renamed isn't another one. `now`: when a run with them begins; `None`: somebody only looks, and nothing is new.
pub fn between_settings(
    owed: &mut BTreeMap<String, Owed>,
    elsewhere: &mut BTreeMap<String, Elsewhere>,
    tables: &BTreeMap<String, String>,
    file: Option<&Path>,
    exists: impl Fn(&Path) -> bool,
    now: Option<i64>,
) {
    let own = settings_key(file);
    let is_others = |owed: &Owed| owed.file.as_ref().is_some_and(|of| *of != own && exists(Path::new(of)));
    for debt in take(owed, |name, owed| tables.contains_key(name) && is_others(owed)) {
        let others = elsewhere.entry(debt.file.clone().unwrap_or_default()).or_default();
        others.undecided = true;
        others.add(debt);
    }
    elsewhere.retain(|file, _| file.is_empty() || *file == own || exists(Path::new(file)));
    let is_first = elsewhere.is_empty();
    let after = Elsewhere { tables: Some(tables.clone()), ..Elsewhere::default() };
    let before = elsewhere.insert(own.clone(), after);
    let new: Vec<&String> = match &before {
        Some(Elsewhere { tables: Some(before), .. }) => added(before, tables),
        None if !is_first => tables.keys().collect(),
        Some(_) | None => Vec::new(),
    };
    let of_file = Some(own).filter(|own| !own.is_empty());
    if let Some(debt) = before.and_then(|own| own.pending) {
        for name in tables.keys() {
            owe(owed, name, Owed { file: of_file.clone(), ..debt.clone() });
        }
    }
    let Some(since) = now else { return };
    for name in new {
        owe(owed, name, Owed { since, files: None, file: of_file.clone() });
    }
}

/// The tables that weren't there before under any name, and those whose name stood for another place: that may be another
/// HAProxy's.
fn added<'a>(before: &BTreeMap<String, String>, now: &'a BTreeMap<String, String>) -> Vec<&'a String> {
    let mut vanished: Vec<&String> =
        before.iter().filter(|(name, _)| !now.contains_key(*name)).map(|(_, place)| place).collect();
    let mut is_renamed = |place: &String| {
        let found = vanished.iter().position(|it| *it == place);
        found.map(|at| vanished.swap_remove(at)).is_some()
    };
    let new = now.iter().filter(|(name, place)| before.get(*name) != Some(*place));
    new.filter(|(_, place)| !is_renamed(place)).map(|(name, _)| name).collect()
}

/// How the state names a settings file; empty where there is none.
#[must_use]
pub fn settings_key(file: Option<&Path>) -> String {
    file.map(|file| file.to_string_lossy().into_owned()).unwrap_or_default()
}

fn take(owed: &mut BTreeMap<String, Owed>, wanted: impl Fn(&String, &Owed) -> bool) -> Vec<Owed> {
    let names: Vec<String> =
        owed.iter().filter(|(name, owed)| wanted(name, owed)).map(|(name, _)| name.clone()).collect();
    names.iter().filter_map(|name| owed.remove(name)).collect()
}

/// Both debts as one.
fn joined(mut one: Owed, other: &Owed) -> Owed {
    one.since = one.since.min(other.since);
    one.files = match (one.files, &other.files) {
        (Some(one), Some(other)) => {
            let all: BTreeSet<String> = one.into_iter().chain(other.iter().cloned()).collect();
            Some(all.into_iter().collect())
        }
        _ => None,
    };
    one
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owed(since: i64, files: &[&str], file: Option<&str>) -> Owed {
        let files = files.iter().map(|&file| file.to_owned()).collect();
        Owed { since, files: Some(files), file: file.map(str::to_owned) }
    }

    fn after(
        before: &[(&str, Owed)],
        names: &[&str],
        file: Option<&str>,
    ) -> Vec<(String, i64, Option<Vec<String>>)> {
        let mut debts = before.iter().map(|(name, owed)| ((*name).to_owned(), owed.clone())).collect();
        inherit(&mut debts, names, file.map(Path::new), |path| path != Path::new("/gone.toml"));
        debts.into_iter().map(|(name, owed)| (name, owed.since, owed.files)).collect()
    }

    fn entry(name: &str, since: i64, files: &[&str]) -> (String, i64, Option<Vec<String>>) {
        (name.to_owned(), since, Some(files.iter().map(|&file| file.to_owned()).collect()))
    }

    #[test]
    fn a_renamed_table_is_still_to_be_told() {
        for written_by in [None, Some("/own.toml"), Some("/gone.toml")] {
            let before = [("haproxy", owed(7, &["a.pem"], written_by))];
            assert_eq!(after(&before, &["edge"], Some("/own.toml")), [entry("edge", 7, &["a.pem"])]);
            let both = [entry("edge", 7, &["a.pem"]), entry("lab", 7, &["a.pem"])];
            assert_eq!(after(&before, &["edge", "lab"], Some("/own.toml")), both, "either may be it");
        }
    }

    #[test]
    fn who_keeps_the_name_keeps_the_debt() {
        let before = [("edge", owed(9, &["b.pem"], None)), ("haproxy", owed(7, &["a.pem"], None))];
        assert_eq!(
            after(&before, &["edge", "lab"], None),
            [entry("edge", 9, &["b.pem"]), entry("lab", 7, &["a.pem"])]
        );
        assert_eq!(
            after(&before, &["edge", "haproxy"], None),
            [entry("edge", 9, &["b.pem"]), entry("haproxy", 7, &["a.pem"])]
        );
        // None without an entry: nothing is lost.
        assert_eq!(after(&before, &["edge"], None), [entry("edge", 7, &["a.pem", "b.pem"])]);
    }

    #[test]
    fn the_debts_of_another_configuration_stay_its_own() {
        let before = [("lab", owed(7, &["a.pem"], Some("/other.toml")))];
        assert_eq!(after(&before, &["edge"], Some("/own.toml")), [entry("lab", 7, &["a.pem"])]);
    }

    #[test]
    fn each_settings_file_has_its_own_haproxys() {
        let (a, b) = (Path::new("/a.toml"), Path::new("/b.toml"));
        let mut debts = BTreeMap::from([("haproxy".to_owned(), owed(7, &["a.pem"], Some("/a.toml")))]);
        let mut others = BTreeMap::from([("/a.toml".to_owned(), Elsewhere::default())]);
        let run = |file, debts: &mut BTreeMap<String, Owed>, others: &mut BTreeMap<String, Elsewhere>| {
            let exists = |file: &Path| file != Path::new("/gone.toml");
            let tables = BTreeMap::from([("haproxy".to_owned(), "/run/h".to_owned())]);
            between_settings(debts, others, &tables, Some(file), exists, Some(8));
        };
        run(b, &mut debts, &mut others);
        let all = Owed { since: 8, files: None, file: Some("/b.toml".into()) };
        assert_eq!(debts["haproxy"], all, "it was never seen, and the other debt isn't its own");
        debts.clear();
        assert!(others["/a.toml"].undecided);
        others.get_mut("/b.toml").unwrap().add(owed(9, &["b.pem"], None));
        others.insert("/gone.toml".to_owned(), Elsewhere::default());
        run(a, &mut debts, &mut others);
        assert_eq!(debts["haproxy"], owed(7, &["a.pem"], Some("/a.toml")));
        let tables = Some(BTreeMap::from([("haproxy".to_owned(), "/run/h".to_owned())]));
        assert_eq!(others["/a.toml"], Elsewhere { tables, ..Elsewhere::default() });
        assert!(!others.contains_key("/gone.toml"));
        debts.clear();
        run(b, &mut debts, &mut others);
        assert_eq!(debts["haproxy"], owed(9, &["b.pem"], Some("/b.toml")));
    }

    #[test]
    fn a_table_that_is_added_is_new() {
        let mut others = BTreeMap::new();
        let mut run = |names: &[&str]| {
            let mut debts = BTreeMap::new();
            let table = |name: &str| {
                let (name, place) = name.split_once('=').unwrap_or((name, name));
                (name.to_owned(), place.to_owned())
            };
            let tables = names.iter().map(|name| table(name)).collect();
            between_settings(&mut debts, &mut others, &tables, Some(Path::new("/a.toml")), |_| true, Some(8));
            debts.into_iter().map(|(name, owed)| (name, owed.files)).collect::<Vec<_>>()
        };
        assert_eq!(run(&["one"]), [], "all that there is is told anyway");
        assert_eq!(run(&["one", "two"]), [("two".to_owned(), None)]);
        assert_eq!(run(&["one", "two"]), []);
        assert_eq!(run(&["two"]), []);
        assert_eq!(run(&["one", "two"]), [("one".to_owned(), None)], "it was away");
        assert_eq!(run(&["eins=one", "two"]), [], "it is the same one");
        assert_eq!(run(&["eins=one", "three"]), [("three".to_owned(), None)], "it is another one");
        let both = [("eins".to_owned(), None), ("three".to_owned(), None)];
        assert_eq!(run(&["eins=three", "three=one"]), both, "each is the other one");
        assert_eq!(run(&["eins=three", "three=four"]), [("three".to_owned(), None)], "it was moved");
    }

    #[test]
    fn all_files_are_more_than_some() {
        let all = Owed { since: 5, files: None, file: None };
        let before = [("a", all), ("b", owed(7, &["b.pem"], None))];
        assert_eq!(after(&before, &["c"], None), [("c".to_owned(), 5, None)]);
    }
}
