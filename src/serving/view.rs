//! Who answers whom on a bind.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use crate::certified_key::{KeyFamily, Leaf};
use crate::serving::loads::{At, Bind, Contents, Entry, How, Identity, Load, Serving};

/// The first version with a list of default certificates in the place of one: `default-crt`, and the filter `*`.
const DEFAULTS_SINCE: (u32, u32) = (3, 0);

/// How the key of the default certificates is spelled here: a wildcard with nothing behind it, as HAProxy has it.
const DEFAULT: &str = "*";

/// One bind as a HAProxy that has just started answers on it.
#[derive(Debug)]
pub struct View<'a> {
    bind: &'a Bind,
    version: Option<(u32, u32)>,
    certificates: Vec<Served<'a>>,
    /// For a name (a wildcard with its `*`) the certificates, in load order.
    by_name: HashMap<Cow<'a, str>, Places>,
    /// The places of a store's certificates.
    by_store: HashMap<&'a str, Places>,
    is_whole: bool,
}

/// Places among the certificates of a bind, in their order: nearly always one.
#[derive(Debug)]
struct Places {
    first: usize,
    others: Vec<usize>,
}

impl Places {
    fn iter(&self) -> impl Iterator<Item = usize> {
        std::iter::once(self.first).chain(self.others.iter().copied())
    }

    /// Each comes once.
    fn add(&mut self, place: usize) {
        if *self.others.last().unwrap_or(&self.first) != place {
            self.others.push(place);
        }
    }
}

impl From<usize> for Places {
    fn from(first: usize) -> Self {
        Self { first, others: Vec::new() }
    }
}

/// Which certificate a bind presents to clients that name no site it has depends on HAProxy's version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the default certificate of {bind} depends on HAProxy's version, which isn't known")]
pub struct UnknownDefault<'a> {
    /// The bind.
    pub bind: &'a At,
}

/// A certificate of a bind that is loaded.
#[derive(Debug, Clone)]
pub struct Served<'a> {
    /// The word of the bind line that loads it.
    pub load: &'a Load,
    /// Where it comes from.
    pub entry: &'a Entry,
    /// What it is.
    pub leaf: &'a Arc<Leaf>,
    /// Which file it is.
    pub identity: Option<Identity>,
    /// Whether 3.0 and later has it among the default certificates.
    is_default: bool,
}

impl Served<'_> {
    fn family(&self) -> KeyFamily {
        self.leaf.key_type.family()
    }

    /// The names that its own line excludes from its wildcards, or it itself where the line has no filters.
    pub(super) fn excluded(&self) -> impl Iterator<Item = &'_ str> {
        let own = self.leaf.excluded_names().filter(|_| self.entry.filters.is_empty());
        self.entry.filters.iter().filter_map(|filter| filter.strip_prefix('!')).chain(own)
    }

    /// Whether it excludes this name from its wildcards.
    fn excludes(&self, name: &str) -> bool {
        self.excluded().any(|excluded| excluded.eq_ignore_ascii_case(name))
    }
}

/// A store that stands behind another one for a name that both serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rival<'a> {
    /// The store.
    pub store: &'a str,
    /// A name that both serve; `*` stands for clients that name no site.
    pub name: String,
    /// The bind.
    pub bind: &'a At,
}

/// The names that a certificate with these filters is served for: what HAProxy has in its two trees.
fn keys<'a>(filters: &'a [String], leaf: &'a Leaf) -> impl Iterator<Item = Cow<'a, str>> {
    let own = leaf.served_names().filter(|_| filters.is_empty());
    filters
        .iter()
        .map(String::as_str)
        .chain(own)
        .filter(|name| !name.starts_with('!') && !name.is_empty())
        .map(lowercase)
}

fn lowercase(name: &str) -> Cow<'_, str> {
    let is_lower = name.bytes().all(|byte| !byte.is_ascii_uppercase());
    if is_lower { Cow::Borrowed(name) } else { Cow::Owned(name.to_ascii_lowercase()) }
}

impl<'a> View<'a> {
    pub(super) fn of(serving: &'a Serving, bind: &'a Bind) -> Self {
        let mut view = Self {
            bind,
            version: serving.version,
            certificates: Vec::new(),
            by_name: HashMap::new(),
            by_store: HashMap::new(),
            is_whole: true,
        };
        let first = bind.loads.iter().position(|load| !load.entries.is_empty());
        for (place, load) in bind.loads.iter().enumerate() {
            for (index, entry) in load.entries.iter().enumerate() {
                let Some(store) = serving.stores.get(&entry.store) else { continue };
                // What can't be served is presented all the same, and the handshake fails.
                let (Contents::Pair(leaf) | Contents::Unserved { leaf, .. }) = &store.contents else {
                    view.is_whole = false;
                    continue;
                };
                // A bundle is one `crt` of several files.
                let is_first = Some(place) == first && (index == 0 || load.how == How::File);
                let is_default = is_first || load.how == How::Default;
                view.add(Served { load, entry, leaf, identity: store.identity, is_default });
            }
        }
        view
    }

    fn add(&mut self, certificate: Served<'a>) {
        let place = self.certificates.len();
        let names = keys(&certificate.entry.filters, certificate.leaf);
        for name in names.chain(certificate.is_default.then_some(Cow::Borrowed(DEFAULT))) {
            self.by_name.entry(name).or_insert(place.into()).add(place);
        }
        self.by_store.entry(&certificate.entry.store).or_insert(place.into()).add(place);
        self.certificates.push(certificate);
    }

    /// The bind.
    #[must_use]
    pub fn bind(&self) -> &'a Bind {
        self.bind
    }

    /// Whether every one of its files could be read and can be loaded.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Its certificates, in load order.
    #[must_use]
    pub fn certificates(&self) -> &[Served<'a>] {
        &self.certificates
    }

    /// Every name that a certificate has here, with its family of keys, for each of them; a wildcard stands for itself, `*` for
    /// the default certificates of 3.0 and later.
    pub fn names(&self) -> impl Iterator<Item = (&str, KeyFamily)> {
        self.by_name.iter().flat_map(|(name, places)| {
            self.at(places).map(move |certificate| (name.as_ref(), certificate.family()))
        })
    }

    /// The certificate that serves this name with this family of keys: of those with the name itself the one that is
    /// loaded first, else of those with its wildcard.
    #[must_use]
    pub fn serving(&self, name: &str, family: KeyFamily) -> Option<&Served<'a>> {
        let name = lowercase(name);
        let exact = self.all(&name, family).next().filter(|_| !name.is_empty());
        exact.or_else(|| {
            let wildcard = format!("*{}", name.get(name.find('.')?..)?);
            self.all(&wildcard, family).find(|certificate| !certificate.excludes(&name))
        })
    }

    /// All that have this name, a wildcard for itself, in load order: the first one is served.
    pub fn all_with(&self, name: &str, family: KeyFamily) -> impl Iterator<Item = &Served<'a>> {
        self.all(&lowercase(name), family)
    }

    fn all<'s>(
        &'s self,
        name: &str,
        family: KeyFamily,
    ) -> impl Iterator<Item = &'s Served<'a>> + use<'s, 'a> {
        let having = self.by_name.get(name).into_iter().flat_map(|places| self.at(places));
        having.filter(move |certificate| certificate.family() == family)
    }

    fn at<'s>(&'s self, places: &'s Places) -> impl Iterator<Item = &'s Served<'a>> {
        places.iter().filter_map(|place| self.certificates.get(place))
    }

    /// The certificate that a client is presented that can these families of keys; `None`: it is refused.
    ///
    /// # Errors
    /// It depends on a version that isn't known.
    pub fn presented(
        &self,
        name: Option<&str>,
        able: &[KeyFamily],
    ) -> Result<Option<&Served<'a>>, UnknownDefault<'a>> {
        let of_name = name.and_then(|name| best(able, |family| self.serving(name, family)));
        match of_name {
            Some(certificate) => Ok(Some(certificate)),
            None if self.bind.strict_sni => Ok(None),
            None => self.default(able),
        }
    }

    /// The certificate for clients that name no site, or one that nobody has, where they aren't refused.
    ///
    /// # Errors
    /// It depends on a version that isn't known.
    pub fn default(&self, able: &[KeyFamily]) -> Result<Option<&Served<'a>>, UnknownDefault<'a>> {
        let first = self.certificates.first();
        let of_list = best(able, |family| self.all(DEFAULT, family).next());
        match self.version {
            Some(version) if version < DEFAULTS_SINCE => Ok(first),
            Some(_) => Ok(of_list),
            None if self.bind.loads.iter().any(|load| load.how == How::Default) => Ok(of_list),
            None if first.map(|it| &it.entry.store) == of_list.map(|it| &it.entry.store) => Ok(first),
            None => Err(UnknownDefault { bind: &self.bind.at }),
        }
    }

    /// See [`Views::rivals`].
    fn rivals(&self, store: &str, now: &Leaf) -> Vec<Rival<'a>> {
        let family = now.key_type.family();
        let is_other = |certificate: &&Served<'a>| certificate.entry.store != store;
        let mut found: Vec<(usize, Rival<'a>)> = Vec::new();
        for place in self.by_store.get(store).into_iter().flat_map(Places::iter) {
            let Some(own) = self.certificates.get(place) else { continue };
            let is_default = own.is_default && self.version.is_none_or(|version| version >= DEFAULTS_SINCE);
            let names = keys(&own.entry.filters, now).chain(is_default.then_some(Cow::Borrowed(DEFAULT)));
            for name in names {
                let places = self.by_name.get(&name).into_iter().flat_map(Places::iter);
                for behind in places.filter(|other| *other > place) {
                    let other = self.certificates.get(behind).filter(is_other);
                    let Some(other) = other.filter(|other| other.family() == family) else { continue };
                    let store = other.entry.store.as_str();
                    if found.iter().all(|(_, rival)| rival.store != store) {
                        let name = name.clone().into_owned();
                        found.push((behind, Rival { store, name, bind: &self.bind.at }));
                    }
                }
            }
        }
        found.sort_by_key(|(place, _)| *place);
        found.into_iter().map(|(_, rival)| rival).collect()
    }
}

/// What a client prefers: ECDSA, then RSA, then what belongs to neither; where it can none of them, it gets one all the
/// same.
fn best<T>(able: &[KeyFamily], find: impl Fn(KeyFamily) -> Option<T>) -> Option<T> {
    let able = |family| if able.contains(&family) { find(family) } else { None };
    able(KeyFamily::Ecdsa)
        .or_else(|| able(KeyFamily::Rsa))
        .or_else(|| find(KeyFamily::Other))
        .or_else(|| find(KeyFamily::Ecdsa))
        .or_else(|| find(KeyFamily::Rsa))
}

/// The binds of a [`Serving`], looked at once: for many questions.
#[derive(Debug)]
pub struct Views<'a> {
    views: Vec<View<'a>>,
}

impl<'a> Views<'a> {
    pub(super) fn of(serving: &'a Serving) -> Self {
        Self { views: serving.binds.iter().map(|bind| View::of(serving, bind)).collect() }
    }

    /// One for each bind.
    pub fn iter(&self) -> impl Iterator<Item = &View<'a>> {
        self.views.iter()
    }

    /// What a fresh start would serve from this certificate; `None`: no bind has it.
    #[must_use]
    pub fn claim(&self, leaf: &Leaf) -> Option<Claim> {
        let is_it = |certificate: &&Served<'_>| certificate.leaf.sha256 == leaf.sha256;
        let having: Vec<&View<'_>> =
            self.views.iter().filter(|view| view.certificates().iter().any(|one| is_it(&one))).collect();
        if having.is_empty() {
            return None;
        }
        let family = leaf.key_type.family();
        let is_won = |name: &&str| {
            having.iter().all(|view| view.all_with(name, family).next().as_ref().is_some_and(is_it))
        };
        let is_shared =
            |name: &str| having.iter().any(|view| view.all_with(name, family).any(|one| !is_it(&one)));
        Some(Claim {
            names_won: leaf.served_names().filter(is_won).map(str::to_owned).collect(),
            shares: leaf.served_names().any(is_shared),
        })
    }

    /// The stores that an update of `store` in memory, to `now`, would hand one of its names to: on some bind they are
    /// loaded behind it and serve that name with the same family of keys, and HAProxy puts what is committed behind them
    /// (measured, 2.2 to 3.4). In load order, bind by bind, each once; another spelling of the same file is one, too: its
    /// line may have other options, as a client certificate that is demanded.
    ///
    /// Committing these again, with what they hold and in this order, makes the winner served again.
    #[must_use]
    pub fn rivals(&self, store: &str, now: &Leaf) -> Vec<Rival<'a>> {
        let mut found: Vec<Rival<'a>> = Vec::new();
        for view in &self.views {
            for rival in view.rivals(store, now) {
                if found.iter().all(|known| known.store != rival.store) {
                    found.push(rival);
                }
            }
        }
        found
    }
}

/// What a certificate has of its names, see [`Views::claim`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The names that it serves on every bind that has it.
    pub names_won: Vec<String>,
    /// Whether another certificate has one of its names, too, whoever serves it.
    pub shares: bool,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use super::*;
    use crate::certified_key::KeyType;
    use crate::serving::loads::Store;

    const ECDSA: &[KeyFamily] = &[KeyFamily::Ecdsa];
    const RSA: &[KeyFamily] = &[KeyFamily::Rsa];
    const BOTH: &[KeyFamily] = &[KeyFamily::Ecdsa, KeyFamily::Rsa];

    fn leaf(key_type: KeyType, names: &[&str]) -> Leaf {
        Leaf {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            addresses: Vec::new(),
            common_names: Vec::new(),
            key_type,
            serial: "01".into(),
            sha256: [0; 32],
            sha1: [0; 20],
            not_before: 0,
            not_after: 1,
            is_self_signed: false,
            issuer_is_staging: false,
            demands_ocsp: false,
        }
    }

    fn at() -> At {
        At { file: "h.cfg".into(), line: 1 }
    }

    /// `FILE=KEY:NAMES` in load order, `[FILTERS]` behind; the files of one word of the bind line.
    fn serving(version: Option<(u32, u32)>, loads: &[(How, &[&str])]) -> Serving {
        let mut stores = BTreeMap::new();
        let loads = loads
            .iter()
            .map(|(how, files)| Load {
                how: *how,
                path: "/x".into(),
                entries: files
                    .iter()
                    .map(|text| {
                        let (text, filters) = text.split_once('[').unwrap_or((text, ""));
                        let (file, rest) = text.split_once('=').unwrap();
                        let (kind, names) = rest.split_once(':').unwrap();
                        let kind = match kind {
                            "e" => KeyType::EcdsaP256,
                            "r" => KeyType::Rsa(2048),
                            _ => KeyType::Ed25519,
                        };
                        let names: Vec<&str> = names.split_whitespace().collect();
                        let contents = Contents::Pair(Arc::new(leaf(kind, &names)));
                        let store = Store { path: PathBuf::new(), identity: None, contents, extra: None };
                        stores.insert(file.to_owned(), store);
                        let filters =
                            filters.trim_end_matches(']').split_whitespace().map(str::to_owned).collect();
                        Entry { store: file.to_owned(), at: at(), filters }
                    })
                    .collect(),
            })
            .collect();
        let bind = Bind {
            at: at(),
            section: "frontend f".into(),
            addresses: ":443".into(),
            ssl: true,
            is_disabled: false,
            strict_sni: false,
            accepts_proxy: false,
            loads,
        };
        Serving { binds: vec![bind], stores, version, ..Serving::default() }
    }

    fn presented(serving: &Serving, name: Option<&str>, able: &[KeyFamily]) -> Option<String> {
        let view = serving.view(&serving.binds[0]);
        view.presented(name, able).unwrap().map(|certificate| certificate.entry.store.clone())
    }

    #[test]
    fn the_first_file_with_the_name_is_served_and_the_wildcard_only_where_there_is_none() {
        let system = serving(
            Some((3, 2)),
            &[
                (How::File, &["host=e:host.x"]),
                (How::Directory, &["0=e:*.x", "1=r:a.x", "2=r:a.x", "3=e:b.x", "4=r:*.x", "5=d:c.x"]),
            ],
        );
        for (name, able, store) in [
            (Some("host.x"), BOTH, "host"),
            (Some("HOST.X"), ECDSA, "host"),
            (Some("a.x"), RSA, "1"),
            // The wildcard's ECDSA key beats the RSA key of the name itself where the client can both.
            (Some("a.x"), BOTH, "0"),
            (Some("b.x"), BOTH, "3"),
            (Some("b.x"), RSA, "4"),
            (Some("c.x"), BOTH, "0"),
            (Some("z.x"), RSA, "4"),
            (Some("a.b.x"), BOTH, "host"),
            (Some("x"), BOTH, "host"),
            (None, BOTH, "host"),
            (None, RSA, "host"),
        ] {
            assert_eq!(presented(&system, name, able).as_deref(), Some(store), "{name:?} {able:?}");
        }
        let mut strict = system.clone();
        strict.binds[0].strict_sni = true;
        assert_eq!(presented(&strict, None, BOTH), None);
        assert_eq!(presented(&strict, Some("y"), BOTH), None);
        assert_eq!(presented(&strict, Some("b.x"), BOTH).as_deref(), Some("3"));
    }

    #[test]
    fn filters_stand_for_the_names_and_exclude_from_their_own_wildcards_only() {
        let system = serving(
            Some((3, 0)),
            &[(How::List, &["a=e:a.x [*.y !no.y]", "b=e:b.x [!*.y no.x]", "c=e:c.x [*.y]"])],
        );
        for (name, store) in
            [("a.x", "a"), ("q.y", "a"), ("no.y", "c"), ("b.x", "a"), ("no.x", "b"), ("NO.Y", "c")]
        {
            assert_eq!(presented(&system, Some(name), ECDSA).as_deref(), Some(store), "{name}");
        }
    }

    #[test]
    fn the_default_is_the_first_one_and_since_3_0_a_list() {
        let explicit =
            &[(How::Directory, &["a=e:a"][..]), (How::Default, &["b=r:b"]), (How::Default, &["c=e:c"])];
        let system = serving(Some((3, 0)), explicit);
        assert_eq!(presented(&system, None, BOTH).as_deref(), Some("a"));
        assert_eq!(presented(&system, None, RSA).as_deref(), Some("b"));
        assert_eq!(presented(&serving(None, explicit), None, RSA).as_deref(), Some("b"));
        let list = &[(How::List, &["a=e:a", "b=r:b [* b]"][..])];
        assert_eq!(presented(&serving(Some((3, 0)), list), None, RSA).as_deref(), Some("b"));
        assert_eq!(presented(&serving(Some((2, 6)), list), None, RSA).as_deref(), Some("a"));
        let unknown = serving(None, list);
        let view = unknown.view(&unknown.binds[0]);
        assert!(view.default(RSA).is_err());
        assert_eq!(view.default(ECDSA).unwrap().unwrap().entry.store, "a");
        let reversed = serving(Some((3, 2)), &[(How::Default, &["d=e:d"]), (How::Directory, &["a=e:a"])]);
        assert_eq!(presented(&reversed, None, BOTH).as_deref(), Some("d"));
    }

    #[test]
    fn rivals_are_loaded_behind_with_a_name_and_family_in_common() {
        let system = serving(
            Some((2, 6)),
            &[
                (How::File, &["host=e:a b"]),
                (How::Directory, &["1=e:a *.w", "2=r:a", "3=e:c *.w", "4=e:a", "5=e:b"]),
                (How::Directory, &["6=e:a"]),
            ],
        );
        let views = system.views().unwrap();
        let of = |store: &str, key, names: &[&str]| -> Vec<String> {
            views.rivals(store, &leaf(key, names)).into_iter().map(|rival| rival.store.to_owned()).collect()
        };
        let ecdsa = || KeyType::EcdsaP384;
        assert_eq!(of("1", ecdsa(), &["a", "*.w"]), ["3", "4", "6"]);
        assert_eq!(of("1", ecdsa(), &["z"]), [""; 0]);
        assert_eq!(of("1", KeyType::Rsa(4096), &["a"]), ["2"]);
        assert_eq!(of("3", ecdsa(), &["c", "b"]), ["5"]);
        assert_eq!(of("6", ecdsa(), &["a"]), [""; 0]);
        assert_eq!(of("host", ecdsa(), &["a", "b"]), ["1", "4", "5", "6"]);
        assert_eq!(of("unknown", ecdsa(), &["a"]), [""; 0]);

        assert!(Serving::unknown("not read").views().is_err());
    }

    #[test]
    fn the_defaults_have_an_order_too() {
        let explicit = &[(How::Default, &["a=e:a"][..]), (How::Default, &["b=e:b"])];
        let rivals = |version| {
            let system = serving(version, explicit);
            let views = system.views().unwrap();
            views
                .rivals("a", &leaf(KeyType::EcdsaP256, &["a"]))
                .into_iter()
                .map(|rival| rival.name)
                .collect::<Vec<_>>()
        };
        assert_eq!(rivals(Some((3, 2))), ["*"]);
        assert_eq!(rivals(None), ["*"]);
    }
}
