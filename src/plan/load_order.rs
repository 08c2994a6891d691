//! Which file wins which name where lines name the files of the sites directory by themselves: who is loaded first.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::certified_key::{KeyFamily, Leaf};
use crate::plan::planned::PlannedBind;
use crate::serving::loads::{At, How};
use crate::serving::{Served, View};

/// What becomes of a file's names on the binds that load it.
pub(super) struct Standing<'a> {
    leaf: &'a Arc<Leaf>,
    /// The names that it doesn't serve on every bind that loads it.
    not_everywhere: HashSet<&'a str>,
    /// What another file of the directory serves on every bind of one HAProxy that has the name from this one.
    pub(super) lost: Vec<Lost<'a>>,
    /// Whether it serves anybody.
    pub(super) is_of_use: bool,
    /// Whether another certificate has one of its names, whoever serves it.
    pub(super) shares: bool,
}

/// A name, the file of the directory that serves it, and the line that loads that file first.
#[derive(Clone, Copy)]
pub(super) struct Lost<'a> {
    pub(super) name: &'a str,
    pub(super) winner: &'a str,
    pub(super) at: &'a At,
}

/// What one HAProxy does with a name of a file.
#[derive(Default)]
struct Tally<'a> {
    is_won: bool,
    lost: Option<Lost<'a>>,
}

/// By files and names.
type Tallies<'a> = BTreeMap<(&'a str, &'a str), Tally<'a>>;

impl Standing<'_> {
    /// The names that it serves on every bind that loads it.
    pub(super) fn names_won(&self) -> Vec<String> {
        let names = self.leaf.served_names().filter(|name| !self.not_everywhere.contains(name));
        names.map(str::to_owned).collect()
    }

    pub(super) fn wins_all(&self) -> bool {
        self.not_everywhere.is_empty()
    }
}

/// By the files' names; what no bind loads isn't here.
pub(super) fn standings<'a>(servings: &'a [Vec<PlannedBind<'a>>]) -> HashMap<&'a str, Standing<'a>> {
    let mut standings: HashMap<&str, Standing<'_>> = HashMap::new();
    for binds in servings {
        let mut tallies = Tallies::new();
        for bind in binds {
            let mut done: HashSet<&str> = HashSet::new();
            for own in bind.view.certificates() {
                let Some(file) = bind.site(own) else { continue };
                let standing = standings.entry(file).or_insert_with(|| Standing::of(own.leaf));
                standing.is_of_use |= answers_others(bind, own);
                if done.insert(file) {
                    look(bind, file, standing, &mut tallies);
                }
            }
        }
        for ((file, _), tally) in tallies {
            let Some(standing) = standings.get_mut(file) else { continue };
            standing.is_of_use |= tally.is_won;
            standing.lost.extend(tally.lost.filter(|_| !tally.is_won));
        }
    }
    standings
}

impl<'a> Standing<'a> {
    fn of(leaf: &'a Arc<Leaf>) -> Self {
        Self { leaf, not_everywhere: HashSet::new(), lost: Vec::new(), is_of_use: false, shares: false }
    }
}

/// Looks at one bind that loads the file.
fn look<'a>(
    bind: &'a PlannedBind<'a>,
    file: &'a str,
    standing: &mut Standing<'a>,
    tallies: &mut Tallies<'a>,
) {
    let (leaf, family) = (standing.leaf, standing.leaf.key_type.family());
    // The same file by a link, or another copy of what it holds.
    let is_own = |other: &Served<'_>| match bind.site(other) {
        Some(site) => site == file,
        None => other.leaf.sha256 == leaf.sha256,
    };
    for name in leaf.served_names() {
        let winner = winner(&bind.view, name, family);
        standing.shares |= bind.view.all_with(name, family).any(|other| !is_own(other));
        if winner.is_some_and(is_own) {
            tallies.entry((file, name)).or_default().is_won = true;
            continue;
        }
        standing.not_everywhere.insert(name);
        // A line's filters may leave the name to another file.
        if !bind.view.all_with(name, family).any(is_own) {
            continue;
        }
        if let Some((winner, at)) = winner.and_then(|winner| Some((bind.site(winner)?, &winner.entry.at))) {
            tallies.entry((file, name)).or_default().lost.get_or_insert(Lost { name, winner, at });
        }
    }
}

/// Who serves a name; a wildcard stands for itself.
fn winner<'v>(view: &'v View<'v>, name: &str, family: KeyFamily) -> Option<&'v Served<'v>> {
    if name.starts_with("*.") { view.all_with(name, family).next() } else { view.serving(name, family) }
}

/// Whether it serves clients that name none of its certificate's names: those of its line's filters, or no name at all.
fn answers_others(bind: &PlannedBind<'_>, own: &Served<'_>) -> bool {
    let view = &bind.view;
    let is_first = view.certificates().first().is_some_and(|first| std::ptr::eq(first, own));
    let is_default = own.load.how == How::Default || (is_first && !view.bind().strict_sni);
    let is_it = |other: &Served<'_>| other.entry.store == own.entry.store;
    let family = own.leaf.key_type.family();
    let mut filters = own.entry.filters.iter().filter(|filter| !filter.starts_with('!'));
    is_default || filters.any(|filter| winner(view, filter, family).is_some_and(is_it))
}
