//! From a configuration that was read to the files that it loads, and what they hold.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::configuration::{BindLine, Configuration, FileNames, Keyword, extra};
use super::contents::{KeyFile, elsewhere, judge, nowhere, unfound};
use super::crt_list;
use super::disk::{Disk, Illegible, OnDisk, Unfound};
use super::loads::{
    At, BUNDLE, Bind, BrokenList, Contents, Entry, How, Identity, Load, Named, Serving, Store, base_name,
    bundle_of, in_bundle, is_loaded,
};
use super::spared::Spared;
use crate::sys::escape::escaped;
use crate::sys::parallel;

/// The first version that has no bundles in directories.
pub(super) const BUNDLES_UNTIL: (u32, u32) = (2, 3);

/// A file that is to be read: where its key is, if not in itself.
pub(super) struct WantedFile {
    /// As HAProxy has it. No descriptor is held: there may be thousands of files.
    pub(super) path: PathBuf,
    /// Else what is to be thought of it.
    found: Result<Identity, Contents>,
    pub(super) key: KeyFile,
    is_unread: bool,
}

/// Why it isn't known what a crt-list loads.
#[derive(Debug, thiserror::Error)]
pub(super) enum UnreadList {
    #[error("{0}")]
    Illegible(#[from] Illegible),
    /// HAProxy refuses it.
    #[error("line {line} {why}")]
    Refused { line: usize, why: &'static str },
}

pub(super) struct Gathering<'a> {
    configuration: &'a Configuration,
    disk: &'a Disk,
    version: Option<(u32, u32)>,
    pub(super) wanted: BTreeMap<String, WantedFile>,
    pub(super) directories: BTreeMap<String, (Option<Identity>, Vec<String>)>,
    bundles: BTreeMap<String, Vec<OsString>>,
    lists: BTreeMap<String, Vec<crt_list::ListLine>>,
    pub(super) names: FileNames,
    /// The paths among these that are loaded as certificates.
    pub(super) certificates: BTreeSet<String>,
    /// What lines have HAProxy load with a store.
    extras: BTreeMap<String, String>,
    /// What lines may have HAProxy read when it starts, but certificates.
    pub(super) read_at_start: BTreeSet<String>,
    broken_lists: BTreeSet<BrokenList>,
    unclear: Option<String>,
    pub(super) spared: Spared<'a>,
    /// The places of the configuration files.
    pub(super) sources: Vec<PathBuf>,
}

impl<'a> Gathering<'a> {
    pub(super) fn of(configuration: &'a Configuration, disk: &'a Disk, version: Option<(u32, u32)>) -> Self {
        Gathering {
            configuration,
            disk,
            version,
            wanted: BTreeMap::new(),
            directories: BTreeMap::new(),
            bundles: BTreeMap::new(),
            lists: BTreeMap::new(),
            names: configuration.names.clone(),
            certificates: BTreeSet::new(),
            extras: BTreeMap::new(),
            read_at_start: configuration.read_at_start.clone(),
            broken_lists: BTreeSet::new(),
            unclear: configuration.unclear.clone(),
            spared: Spared::default(),
            sources: Vec::new(),
        }
    }

    /// What every line loads.
    pub(super) fn binds(&mut self) -> Vec<Bind> {
        for (name, defined) in &self.configuration.defined {
            let key = defined.key.as_ref().map(|key| (key.as_str(), &defined.at));
            self.certificates.insert(defined.crt.clone());
            self.want(name, &defined.crt, key);
            self.extras.extend(defined.extra.clone().map(|extra| (name.clone(), extra)));
            if defined.is_special {
                self.note(format!("{}: this certificate's options aren't followed", defined.at));
            }
        }
        let binds = self.configuration.binds.iter().map(|line| self.bind(line)).collect();
        for (path, _) in &self.configuration.others {
            self.single(path);
        }
        binds
    }

    /// Whether a line loads this directory, or a file of it.
    pub(super) fn loads(&self, directory: &str) -> bool {
        let identity = |path: &Path| self.disk.find(path).ok().map(|found| found.identity());
        let ours = identity(Path::new(directory));
        let files = self.wanted.values().filter_map(|wanted| wanted.path.parent());
        let folders: BTreeSet<&Path> = files.collect();
        ours.is_some()
            && (self.directories.values().any(|(identity, _)| *identity == ours)
                || folders.into_iter().any(|folder| identity(folder) == ours))
    }

    fn note(&mut self, why: String) {
        self.unclear.get_or_insert(why);
    }

    /// Reads every file once.
    pub(super) fn read(self, binds: Vec<Bind>) -> Serving {
        let lines = self.lists.values().flatten();
        let fetches_ocsp = lines.into_iter().any(|line| line.option("ocsp-update") == Some("on"));
        let is_here =
            |path: &&String| !matches!(self.disk.find(Path::new(path.as_str())), Err(Unfound::Elsewhere));
        let place = |path: &String| self.disk.place(Path::new(path));
        let lists = self.lists.keys().filter(is_here).map(place);
        let is_other = |path: &&String| !self.certificates.contains(*path);
        let read_at_start = self.read_at_start.iter().filter(is_other).filter(is_here).map(place).collect();
        let sources = self.sources.iter().cloned().chain(lists).collect();
        let Gathering {
            disk,
            version,
            wanted,
            directories,
            bundles,
            names,
            certificates,
            extras,
            unclear,
            spared,
            ..
        } = self;
        let wanted: Vec<(String, WantedFile)> = wanted.into_iter().collect();
        let read = |(name, wanted): &(String, WantedFile)| {
            let has_named_key = matches!(wanted.key, KeyFile::Named(..));
            let contents = match &wanted.found {
                _ if wanted.is_unread => Contents::Unseen("it wasn't read".to_owned()),
                // It may be that it isn't loaded, or that its name leads elsewhere.
                Err(Contents::Unloadable { why, .. }) if unclear.is_some() => Contents::Unseen(why.clone()),
                Err(contents) => contents.clone(),
                Ok(identity) => {
                    match spared.known.and_then(|known| known.get(identity)).filter(|_| !has_named_key) {
                        Some(contents) => contents.clone(),
                        None => judge(&wanted.path, &wanted.key, disk, version),
                    }
                }
            };
            let (path, identity) = (disk.place(&wanted.path), wanted.found.clone().ok());
            Store { path, identity, contents, extra: extras.get(name).cloned() }
        };
        let stores = parallel::map(&wanted, read, &|_, _| ());
        let mut mentioned = names.mentioned;
        for (path, at) in &names.paths {
            // It may be ours by another name.
            if let Err(Unfound::Elsewhere) = disk.find(Path::new(path)) {
                mentioned.entry(base_name(path).to_owned()).or_insert_with(|| at.clone());
            }
        }
        Serving {
            binds,
            stores: wanted.iter().map(|(name, _)| name.clone()).zip(stores).collect(),
            for_servers: self.configuration.others.iter().cloned().collect(),
            directories: directories.into_iter().map(|(path, (identity, _))| (path, identity)).collect(),
            bundles,
            sources,
            named: named(names.paths, &certificates, disk),
            read_at_start,
            broken_lists: self.broken_lists,
            fetches_ocsp: self.configuration.fetches_ocsp || fetches_ocsp,
            readers: named(self.configuration.readers.clone(), &BTreeSet::new(), disk),
            mentioned,
            unseen: names.unseen,
            crt_base: self.configuration.crt_base.clone(),
            version,
            unclear,
        }
    }

    fn bind(&mut self, line: &BindLine) -> Bind {
        let loads = line.loads.iter().map(|(keyword, path)| self.load(*keyword, path, &line.at)).collect();
        Bind {
            at: line.at.clone(),
            section: line.section.clone(),
            addresses: line.addresses.clone(),
            ssl: line.ssl,
            is_disabled: line.is_disabled,
            strict_sni: line.strict_sni,
            accepts_proxy: line.accepts_proxy,
            loads,
        }
    }

    fn load(&mut self, keyword: Keyword, path: &str, at: &At) -> Load {
        let entry = |store: String| Entry { store, at: at.clone(), filters: Vec::new() };
        let (how, path, entries) = match keyword {
            Keyword::CrtList => (How::List, path.to_owned(), self.list(path, at)),
            Keyword::Crt | Keyword::DefaultCrt
                if !self.is_known(path)
                    && self.disk.find(Path::new(path)).is_ok_and(|it| it.is_directory()) =>
            {
                let path = path.trim_end_matches('/').to_owned();
                let files = self.directory(&path);
                (How::Directory, path, files.into_iter().map(entry).collect())
            }
            Keyword::Used => (How::Used, path.to_owned(), self.single(path).into_iter().map(entry).collect()),
            Keyword::Crt | Keyword::DefaultCrt => {
                let how = if keyword == Keyword::Crt { How::File } else { How::Default };
                (how, path.to_owned(), self.single(path).into_iter().map(entry).collect())
            }
        };
        Load { how, path, entries }
    }

    fn is_known(&self, store: &str) -> bool {
        self.wanted.contains_key(store)
    }

    /// A file by itself, or the files of a bundle.
    fn single(&mut self, path: &str) -> Vec<String> {
        self.certificates.insert(path.to_owned());
        if self.is_known(path) || path.starts_with('@') || self.disk.find(Path::new(path)).is_ok() {
            self.want(path, path, None);
            return vec![path.to_owned()];
        }
        let parts = BUNDLE.map(|ending| format!("{path}.{ending}"));
        let there: Vec<String> = parts
            .into_iter()
            .filter(|part| self.is_known(part) || self.disk.find(Path::new(part)).is_ok())
            .collect();
        for part in &there {
            self.want(part, part, None);
        }
        if there.is_empty() {
            self.want(path, path, None);
            return vec![path.to_owned()];
        }
        // Through 2.2 a bundle is one store, which has the path's name.
        if self.version.is_none_or(|version| version < (2, 3)) {
            let why = format!("how HAProxy names the bundle {} depends on its version", escaped(path));
            self.note(why);
        }
        there
    }

    /// The files of a directory.
    fn directory(&mut self, path: &str) -> Vec<String> {
        if let Some((_, files)) = self.directories.get(path) {
            return files.clone();
        }
        let mut files = Vec::new();
        let found = self.disk.find(Path::new(path));
        let identity = found.as_ref().ok().map(OnDisk::identity);
        let names = match &found {
            Ok(found) => found.names(),
            Err(unfound) => Err((*unfound).into()),
        };
        match names {
            Ok(names) => {
                let version = self.version;
                let depends = |name: &&OsString| {
                    version.is_none() && is_loaded(name, Some((2, 2))) && !is_loaded(name, version)
                };
                let is_file = |name: &&OsString| {
                    self.disk.find(&Path::new(path).join(name)).is_ok_and(|found| found.is_file())
                };
                if let Some(name) = names.iter().filter(depends).find(is_file) {
                    let name = escaped(name.as_bytes());
                    self.note(format!(
                        "whether HAProxy loads {name} depends on its version, which isn't known"
                    ));
                }
                let firsts = self.bundles(path, found.as_ref().ok(), &names);
                // Its own parts are loaded.
                let is_passed_over = |name: &&OsString| {
                    in_bundle(name, &firsts).is_some_and(|first| bundle_of(name) != bundle_of(first))
                };
                for name in names.iter().filter(|name| is_loaded(name, version) && !is_passed_over(name)) {
                    files.extend(self.in_directory(path, found.as_ref().ok(), name));
                }
                self.bundles.insert(path.to_owned(), firsts);
            }
            Err(why) => {
                self.note(format!("cannot read the directory {}: {why}", escaped(path)));
            }
        }
        self.directories.insert(path.to_owned(), (identity, files.clone()));
        files
    }

    /// The files of a directory that begin a bundle.
    fn bundles(&mut self, path: &str, folder: Option<&OnDisk>, names: &[OsString]) -> Vec<OsString> {
        if self.configuration.no_bundles || self.version.is_some_and(|version| version >= BUNDLES_UNTIL) {
            return Vec::new();
        }
        let is_file = |name: &&OsString| {
            bundle_of(name).is_some()
                && self
                    .disk
                    .regular_file(folder, &Path::new(path).join(name))
                    .is_ok_and(|file| file.is_some())
        };
        let firsts: Vec<OsString> = names.iter().filter(is_file).cloned().collect();
        if self.version.is_some() {
            return firsts;
        }
        let is_other = |name: &&OsString| {
            in_bundle(name, &firsts).is_some_and(|first| bundle_of(name) != bundle_of(first))
        };
        if let Some(name) = names.iter().find(is_other) {
            let name = escaped(name.as_bytes());
            self.note(format!("whether HAProxy loads {name} depends on its version, which isn't known"));
        }
        Vec::new()
    }

    /// A directory's entry, where HAProxy takes it for a certificate: links are followed, all but regular files passed
    /// over.
    fn in_directory(&mut self, path: &str, folder: Option<&OnDisk>, name: &OsStr) -> Option<String> {
        let store = format!("{path}/{}", name.to_string_lossy());
        let file = Path::new(path).join(name);
        let is_site = folder.is_some_and(|folder| Some(folder.identity()) == self.spared.sites);
        // Below another root something else may be mounted there.
        let seen = if is_site && self.disk.is_ours() { (self.spared.seen)(name) } else { None };
        let found = match seen.map_or_else(|| self.disk.regular_file(folder, &file), |seen| Ok(Some(seen))) {
            Ok(None) => return None,
            Ok(Some(identity)) => Ok(identity),
            Err(e) => Err(unfound(&store, e)),
        };
        if !self.is_known(&store) {
            let key = self.key_file(&store);
            let is_unread = is_site && self.spared.is_unread;
            self.wanted.insert(store.clone(), WantedFile { path: file, found, key, is_unread });
        }
        Some(store)
    }

    fn lines_of(&self, list: &str) -> Result<Vec<crt_list::ListLine>, UnreadList> {
        let text = self.disk.find(Path::new(list)).map_err(Illegible::from)?.text()?;
        crt_list::lines(&text).map_err(|(line, why)| UnreadList::Refused { line, why })
    }

    /// Why HAProxy surely refuses a crt-list.
    fn is_refused(&self, path: &str, why: &UnreadList) -> Option<String> {
        match (why, self.disk.find(Path::new(path))) {
            (UnreadList::Refused { .. }, _) => Some(why.to_string()),
            (UnreadList::Illegible(_), Err(e)) if e != Unfound::Elsewhere && e.is_missing() => {
                Some(nowhere(e))
            }
            (UnreadList::Illegible(_), _) => None,
        }
    }

    /// The certificates of a crt-list, which this line names.
    fn list(&mut self, path: &str, at: &At) -> Vec<Entry> {
        if !self.lists.contains_key(path) {
            let lines = self.lines_of(path).unwrap_or_else(|why| {
                // Where it isn't clear which lines count, it may be that this one doesn't.
                if let Some(why) = self.is_refused(path, &why).filter(|_| self.unclear.is_none()) {
                    let path = self.disk.place(Path::new(path));
                    self.broken_lists.insert(BrokenList { path, why, at: at.clone() });
                }
                let why = format!("cannot read the crt-list {}: {why}", escaped(path));
                self.names.note(why.clone());
                self.note(why);
                Vec::new()
            });
            self.lists.insert(path.to_owned(), lines);
        }
        let lines = self.lists.get(path).cloned().unwrap_or_default();
        // Where people find it from here.
        let file: Arc<str> = if self.disk.is_ours() {
            path.into()
        } else {
            self.disk.place(Path::new(path)).to_string_lossy().into()
        };
        let mut entries = Vec::new();
        for line in lines {
            let at = At { file: Arc::clone(&file), line: line.number };
            let whole = self.configuration.with_base(&line.path);
            if let Some(crt) = line.option("crt") {
                self.note(format!("{at}: crt {} isn't followed", escaped(crt)));
            }
            if let (Some(key), false) = (line.option("key"), self.is_known(&whole)) {
                self.want(&whole, &whole, Some((&self.configuration.with_key_base(key), &at)));
            }
            let extra = extra(|name| line.option(name).map(str::to_owned));
            self.extras.extend(extra.map(|extra| (whole.clone(), extra)));
            self.names.add(&whole, &at);
            for word in [&line.path].into_iter().chain(&line.options) {
                if word != &line.path || !whole.starts_with('/') {
                    self.names.mention(word, false, &at);
                }
            }
            self.read_at_start.extend(self.configuration.read_by_list(&line.options));
            let filters = line.filters;
            entries.extend(self.single(&whole).into_iter().map(|store| Entry {
                store,
                at: at.clone(),
                filters: filters.clone(),
            }));
        }
        entries
    }

    /// `key`: the file that a line names for its key, and the line.
    fn want(&mut self, store: &str, path: &str, key: Option<(&str, &At)>) {
        if self.is_known(store) {
            return;
        }
        let found = match self.disk.find(Path::new(path)) {
            Ok(found) if found.is_file() => Ok(found.identity()),
            Ok(_) => Err(Contents::Unloadable { leaf: None, why: "it isn't a regular file".to_owned() }),
            Err(e) => {
                // It may be a directory, or a bundle.
                if e == Unfound::Elsewhere {
                    self.note(elsewhere(path));
                }
                Err(unfound(path, e))
            }
        };
        let named = key.map(|(key, at)| KeyFile::Named(key.to_owned(), at.clone()));
        let key = named.unwrap_or_else(|| self.key_file(path));
        self.wanted.insert(store.to_owned(), WantedFile { path: path.into(), found, key, is_unread: false });
    }

    /// Where HAProxy looks for the key of a file that has none.
    fn key_file(&self, path: &str) -> KeyFile {
        if self.configuration.no_key_files {
            return KeyFile::None;
        }
        let stem = path.strip_suffix(".crt").filter(|_| self.configuration.without_ending);
        KeyFile::Beside(format!("{}.key", stem.unwrap_or(path)))
    }
}

/// The paths that lead somewhere; `certificates`: those that are loaded as such.
pub(super) fn named(
    mut paths: Vec<(String, At)>,
    certificates: &BTreeSet<String>,
    disk: &Disk,
) -> Vec<Named> {
    paths.sort();
    paths.dedup_by(|one, other| one.0 == other.0);
    let mut folders: HashMap<PathBuf, Option<Identity>> = HashMap::new();
    let named = |(path, at): (String, At)| {
        let whole = Path::new(&path);
        let folder = whole.parent().map_or_else(PathBuf::new, Path::to_owned);
        let find = |path: &Path| disk.find(path).ok().map(|found| found.identity());
        let in_folder = *folders.entry(folder).or_insert_with_key(|folder| {
            find(if folder.as_os_str().is_empty() { Path::new(".") } else { folder })
        });
        in_folder?;
        let identity = find(whole);
        let is_certificate = certificates.contains(&path);
        Some(Named { path, folder: in_folder, identity, at, is_certificate })
    };
    paths.into_iter().filter_map(named).collect()
}
