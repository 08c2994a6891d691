//! Whether a HAProxy serves from memory what it would serve after a start, by what it shows: its lists' lines, and from 3.2 on
//! which file has which name. Others change both through the Runtime API. Pure.
//!
//! A line that is taken out and put in again stands at the end of its list, and a commit puts a certificate behind the
//! others of its names (measured, 2.2 to 3.4). `show ssl sni` shows both; before 3.2 only the lists can be seen.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::loads::{BUNDLE, Bind, Contents, Entry, How, Load, Serving, base_name};
use super::view::{Served, View};
use crate::certified_key::KeyFamily;
use crate::haproxy::cli::replies::{ListedName, ListedStore};
use crate::sys::escape::escaped;

/// What a HAProxy shows beside its certificates.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InMemory {
    /// The lines of its lists, by their names, as far as they were asked for; a directory is a list.
    pub lists: BTreeMap<String, Vec<ListedStore>>,
    /// Which files have which name, the one that is served first; `None`: it is older than 3.2, or doesn't say.
    pub names: Option<Vec<ListedName>>,
}

/// The first version that shows which file has which name.
pub const SHOWS_NAMES_SINCE: (u32, u32) = (3, 2);

/// The first version in which the files of a bundle are stores of their own.
const PARTS_SINCE: (u32, u32) = (2, 3);

/// The lists that must be asked for: of the binds that speak TLS.
#[must_use]
pub fn lists(serving: &Serving) -> BTreeSet<String> {
    let has_bundle = |load: &&Load| load.entries.iter().any(|entry| is_part(&entry.store));
    let is_list = |load: &&Load| matches!(load.how, How::Directory | How::List);
    let is_one_store = |load: &&Load| serving.version.is_none_or(|it| it < PARTS_SINCE) && has_bundle(load);
    let loads = serving.binds.iter().filter(|bind| bind.serves()).flat_map(|bind| &bind.loads);
    loads.filter(is_list).filter(|load| !is_one_store(load)).map(|load| load.path.clone()).collect()
}

/// The binds that don't listen, as `show ssl sni` names them: it shows them, too (measured, 3.2 and 3.4).
#[must_use]
pub fn silent(serving: &Serving) -> BTreeSet<String> {
    serving.binds.iter().filter(|bind| bind.is_disabled).filter_map(known_as).collect()
}

/// How `show ssl sni` names a bind.
fn known_as(bind: &Bind) -> Option<String> {
    let section = bind.section.split_whitespace().nth(1)?;
    Some(format!("{section}/{}:{}", bind.at.file, bind.at.line))
}

/// The first difference between what memory serves and what a start would, as a fact that goes behind HAProxy's name. Only
/// certificates count that memory has as the disk does: `is_as_on_disk`.
#[must_use]
pub fn difference(
    serving: &Serving,
    shown: &InMemory,
    is_as_on_disk: &dyn Fn(&str) -> bool,
) -> Option<String> {
    let fresh: Vec<Cow<'_, Bind>> = serving.binds.iter().map(|bind| only(bind, is_as_on_disk)).collect();
    match &shown.names {
        Some(names) => by_names(serving, &fresh, names, is_as_on_disk),
        None => by_lists(serving, &fresh, &shown.lists, is_as_on_disk),
    }
}

/// A bind with no other entries than these.
fn only<'a>(bind: &'a Bind, is_wanted: &dyn Fn(&str) -> bool) -> Cow<'a, Bind> {
    if bind.entries().all(|entry| is_wanted(&entry.store)) {
        return Cow::Borrowed(bind);
    }
    let mut bind = bind.clone();
    for load in &mut bind.loads {
        load.entries.retain(|entry| is_wanted(&entry.store));
    }
    Cow::Owned(bind)
}

/// A name with a family of keys, on one bind.
type Key<'a> = (&'a str, KeyFamily);

fn by_names(
    serving: &Serving,
    fresh: &[Cow<'_, Bind>],
    names: &[ListedName],
    is_as_on_disk: &dyn Fn(&str) -> bool,
) -> Option<String> {
    let mut of_binds: HashMap<&str, HashMap<Key<'_>, Vec<&ListedName>>> = HashMap::new();
    let mut with_other_defaults: BTreeSet<&str> = BTreeSet::new();
    for name in names {
        let of_bind = of_binds.entry(&name.bind).or_default();
        if is_as_on_disk(&name.store) || is_strange(serving, &name.store) {
            of_bind.entry((&name.name, name.family())).or_default().push(name);
        } else if name.name == "*" {
            with_other_defaults.insert(&name.bind);
        }
    }
    let binds = fresh.iter().zip(&serving.binds).filter(|(bind, _)| bind.serves());
    binds.into_iter().find_map(|(bind, whole)| {
        let known_as = known_as(bind)?;
        let of_bind = of_binds.get(known_as.as_str())?;
        let view = serving.view(bind);
        // Without the one that is the default, here or there, another one would seem to be.
        let whole = serving.view(whole);
        let families = [KeyFamily::Ecdsa, KeyFamily::Rsa, KeyFamily::Other];
        let mut defaults = families.into_iter().flat_map(|family| whole.all_with("*", family));
        let has_defaults = defaults.all(|served| is_as_on_disk(&served.entry.store))
            && !with_other_defaults.contains(known_as.as_str());
        let keys: BTreeSet<Key<'_>> = view.names().chain(of_bind.keys().copied()).collect();
        let is_compared = |name: &str| can_be_asked_for(name) && (has_defaults || name != "*");
        keys.into_iter().filter(|(name, _)| is_compared(name)).find_map(|(name, family)| {
            let expected: Vec<&Served<'_>> = view.all_with(name, family).collect();
            let found = of_bind.get(&(name, family)).map(Vec::as_slice).unwrap_or_default();
            // Of two names for one file the lines may have other options.
            let wanted = runs(expected.iter().map(|it| (Some(it.leaf.sha256), it.entry.store.as_str())));
            let has = runs(found.iter().map(|found| (leaf(serving, &found.store), found.store.as_str())));
            // Behind the first one they matter where that is passed over for some names.
            let passes_over = found.iter().any(|found| !found.excluded.is_empty())
                || expected.iter().any(|served| served.excluded().next().is_some());
            let is_same = if passes_over { wanted == has } else { wanted.first() == has.first() };
            let is = found.first().map(|found| found.store.as_str());
            let must = expected.first().map(|served| served.entry.store.as_str());
            if !is_same {
                let is_damaged = |store| matches!(serving.stores.get(store), Some(it) if it.is_unloadable());
                return Some(match is.filter(|store| is_damaged(*store)) {
                    Some(store) => format!(
                        "serves {} from {}, which it can't load any more",
                        escaped(name),
                        escaped(store)
                    ),
                    None => fact(bind, name, is, must),
                });
            }
            let in_memory = found.iter().flat_map(|found| found.excluded.iter().map(String::as_str));
            let excluded = expected.iter().flat_map(|served| served.excluded()).chain(in_memory);
            excluded.into_iter().filter(|excluded| is_below(excluded, name)).find_map(|excluded| {
                let passes =
                    |found: &&&ListedName| !found.excluded.iter().any(|it| it.eq_ignore_ascii_case(excluded));
                let asked = excluded.to_ascii_lowercase();
                let exact = of_bind.get(&(asked.as_str(), family)).and_then(|all| all.first());
                let is = exact.or_else(|| found.iter().find(passes)).map(|found| found.store.as_str());
                let must = view.serving(excluded, family).map(|served| served.entry.store.as_str());
                let leaf = |store: Option<&str>| store.and_then(|store| leaf(serving, store));
                (leaf(is) != leaf(must)).then(|| fact(bind, excluded, is, must))
            })
        })
    })
}

/// Whether a name is one that a wildcard stands for.
fn is_below(name: &str, wildcard: &str) -> bool {
    let parent = name.find('.').and_then(|dot| name.get(dot..));
    parent.zip(wildcard.strip_prefix('*')).is_some_and(|(parent, of)| parent.eq_ignore_ascii_case(of))
        && can_be_asked_for(name)
}

fn by_lists(
    serving: &Serving,
    fresh: &[Cow<'_, Bind>],
    lists: &BTreeMap<String, Vec<ListedStore>>,
    is_as_on_disk: &dyn Fn(&str) -> bool,
) -> Option<String> {
    let is_known =
        |line: &&ListedStore| serving.stores.contains_key(&line.store) && is_as_on_disk(&line.store);
    // What has no slash may be the rest of a name with a line end in it.
    let is_strange = |line: &&ListedStore| line.store.contains('/') && is_strange(serving, &line.store);
    let listed = |load: &Load| {
        lists.get(&load.path).filter(|_| matches!(load.how, How::Directory | How::List)).map(Vec::as_slice)
    };
    let binds = || fresh.iter().map(AsRef::as_ref).filter(|bind| bind.serves());
    for (load, listed) in binds().flat_map(|bind| &bind.loads).filter_map(|load| Some((load, listed(load)?)))
    {
        if let Some(strange) = listed.iter().find(is_strange) {
            let (store, list) = (escaped(&strange.store), escaped(&load.path));
            return Some(format!("has {store} in {list}, where a start would not put it: {CHANGED}"));
        }
    }
    let in_memory = |bind: &Bind| {
        let (mut memory, mut added) = (bind.clone(), Vec::new());
        for load in &mut memory.loads {
            let Some(listed) = listed(load) else { continue };
            let (kept, others) = in_place(load, listed.iter().filter(is_known));
            load.entries = kept;
            added.push(Load { how: How::List, path: load.path.clone(), entries: others });
        }
        memory.loads.extend(added);
        memory
    };
    let is_same = |bind: &&Bind| {
        bind.loads
            .iter()
            .all(|load| listed(load).is_none_or(|listed| is_in_place(load, listed.iter().filter(is_known))))
    };
    binds().filter(|bind| !is_same(bind)).find_map(|bind| {
        let memory = in_memory(bind);
        other_winner((serving.view(bind), serving.view(&memory)))
    })
}

/// Whether no line of the configuration leads to a store. The files of a directory are compared one by one.
fn is_strange(serving: &Serving, store: &str) -> bool {
    let folder = store.strip_suffix(base_name(store)).unwrap_or_default().trim_end_matches('/');
    !serving.stores.contains_key(store) && !serving.directories.contains_key(folder)
}

/// Whether a line of a list is this entry, where a start would put it.
fn is_of(load: &Load) -> impl Fn(&ListedStore, &Entry) -> bool + use<'_> {
    // A line with a bundle is several lines of the list, and shifts the numbers of the next ones.
    let are_shifted = load.entries.iter().any(|entry| is_part(&entry.store));
    let number = |entry: &Entry| if load.how == How::Directory { 0 } else { entry.at.line };
    move |line, entry| {
        entry.store == line.store
            && entry.filters == line.filters
            && (are_shifted || number(entry) == line.number)
    }
}

/// Whether all lines stand where a start would put them.
fn is_in_place<'a>(load: &Load, mut listed: impl Iterator<Item = &'a ListedStore>) -> bool {
    let is_it = is_of(load);
    load.entries.iter().all(|entry| listed.next().is_some_and(|line| is_it(line, entry)))
        && listed.next().is_none()
}

/// The lines that stand where a start would put them, and those that stand behind all others.
fn in_place<'a>(load: &Load, listed: impl Iterator<Item = &'a ListedStore>) -> (Vec<Entry>, Vec<Entry>) {
    let is_of_load = is_of(load);
    let (mut kept, mut others) = (Vec::new(), Vec::new());
    let mut open = load.entries.as_slice();
    for line in listed {
        let is_it = |entry: &Entry| is_of_load(line, entry);
        let found = open.iter().position(is_it).and_then(|place| open.split_at_checked(place));
        if let Some((_, [entry, rest @ ..])) = found {
            kept.push(entry.clone());
            open = rest;
        } else if let Some(first) = load.entries.first() {
            let (store, filters) = (line.store.clone(), line.filters.clone());
            others.push(Entry { store, at: first.at.clone(), filters });
        }
    }
    (kept, others)
}

/// The first name that memory serves with another certificate.
fn other_winner((fresh, memory): (View<'_>, View<'_>)) -> Option<String> {
    let store = |served: Option<&Served<'_>>| served.map(|served| served.entry.store.clone());
    let leaf = |served: Option<&Served<'_>>| served.map(|served| served.leaf.sha256);
    let keys: BTreeSet<Key<'_>> = fresh.names().chain(memory.names()).collect();
    let named = keys.into_iter().filter(|(name, _)| can_be_asked_for(name)).find_map(|(name, family)| {
        let all = |view: &View<'_>| runs(view.all_with(name, family).map(|served| served.leaf.sha256));
        let views = [&fresh, &memory];
        let mut excluded = views
            .into_iter()
            .flat_map(|view| view.all_with(name, family))
            .flat_map(Served::excluded)
            .filter(|excluded| is_below(excluded, name))
            .peekable();
        let (before, after) = (all(&fresh), all(&memory));
        let is_same =
            if excluded.peek().is_some() { before == after } else { before.first() == after.first() };
        if !is_same {
            let first = |view: &View<'_>| store(view.all_with(name, family).next());
            let (must, is) = (first(&fresh), first(&memory));
            return Some(fact(fresh.bind(), name, is.as_deref(), must.as_deref()));
        }
        excluded.into_iter().find_map(|excluded| {
            let (must, is) = (fresh.serving(excluded, family), memory.serving(excluded, family));
            (leaf(must) != leaf(is))
                .then(|| fact(fresh.bind(), excluded, store(is).as_deref(), store(must).as_deref()))
        })
    });
    let able = [KeyFamily::Ecdsa, KeyFamily::Rsa];
    let defaults = || {
        let (before, after) = (fresh.default(&able).ok()?, memory.default(&able).ok()?);
        let is_same = fresh.bind().strict_sni || leaf(before) == leaf(after);
        let (must, is) = (store(before), store(after));
        (!is_same).then(|| fact(fresh.bind(), "*", is.as_deref(), must.as_deref()))
    };
    named.or_else(defaults)
}

/// Why memory differs, as nothing else does that.
const CHANGED: &str = "somebody has changed that through the Runtime API";

fn fact(bind: &Bind, name: &str, is: Option<&str>, must: Option<&str>) -> String {
    let place = format!("{} ({})", escaped(&bind.section), bind.at);
    let from = |store: Option<&str>| store.map_or_else(|| "nothing".to_owned(), |it| escaped(it).to_string());
    let (is, must) = (from(is), from(must));
    match name {
        "*" => format!(
            "serves clients that name no site on {place} from {is}, and after a start from {must}: {CHANGED}"
        ),
        name => {
            let name = escaped(name);
            format!("serves {name} on {place} from {is}, and after a start from {must}: {CHANGED}")
        }
    }
}

/// Whether a client can ask for a name: common names may be any text, which HAProxy and we may spell differently.
fn can_be_asked_for(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".*_-".contains(&byte))
}

/// Without what stands there twice in a row.
fn runs<T: PartialEq>(all: impl Iterator<Item = T>) -> Vec<T> {
    let mut found: Vec<T> = all.collect();
    found.dedup();
    found
}

fn leaf(serving: &Serving, store: &str) -> Option<[u8; 32]> {
    match &serving.stores.get(store)?.contents {
        Contents::Pair(leaf) | Contents::Unserved { leaf, .. } => Some(leaf.sha256),
        Contents::Unloadable { .. } | Contents::Unseen(_) => None,
    }
}

fn is_part(store: &str) -> bool {
    store.rsplit_once('.').is_some_and(|(_, ending)| BUNDLE.contains(&ending))
}
