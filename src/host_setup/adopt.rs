//! What a HAProxy that is there already loads, as settings of ours: the directory, the certificate before it, owner and mode
//! as they are, and the sockets.
//!
//! [`look`] reads, `propose` decides (pure), [`Proposal::keys`] says it as settings.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Group, Uid, User};

use crate::config::{Address, Haproxy, Settings};
use crate::haproxy::methods::master::ANSWERS_SINCE;
use crate::haproxy::process::arguments::{master_socket, value_of};
use crate::haproxy::process::release::release;
use crate::haproxy::process::started::Started;
use crate::host_setup::bind_words::{loaded_now, what_to_add};
use crate::host_setup::settings_file::{Values, quoted};
use crate::serving::configuration::Configuration;
use crate::serving::contents;
use crate::serving::loads::{At, Bind, Entry, How, Identity, Load, Serving};
use crate::serving::one_by_one::{self, Example};
use crate::serving::set_up;
use crate::sys::escape::{escaped, shell_word};
use crate::sys::procfs::Proc;
use crate::sys::system::System;

/// The modes that a file with a key may have here.
const MODES: [u32; 4] = [0o400, 0o440, 0o600, 0o640];

/// The settings that fit what is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// The line that loads the directory.
    pub at: At,
    /// The directory.
    pub sites_dir: String,
    /// The certificate that is loaded before it, else a place for one beside the directory.
    pub host_file: String,
    /// `user:group` of its files, where that isn't `root:root`.
    pub owner: Option<String>,
    /// Their mode, where that isn't the default one.
    pub mode: Option<u32>,
    /// The stats socket at level admin.
    pub runtime_socket: Option<String>,
    /// Its master socket, where that isn't the default one.
    pub master_socket: Option<String>,
    /// Its pidfile, where that isn't the default one.
    pub pidfile: Option<String>,
    /// Where lines name the directory's files one by one: such a line. A new file needs one of its own.
    pub one_by_one: Option<Example>,
    /// Where nothing can make it reload: what to start it with, and the settings that go with it.
    pub deaf: Vec<String>,
    /// Whether these are paths of a root directory of its own, as in a container, where this host has something else.
    pub is_elsewhere: bool,
    /// The other directories of certificates that HAProxy loads, each with a line that does; none where one was chosen.
    pub others: Vec<(String, At)>,
}

/// A HAProxy that runs: how it was started, and whether something else than its arguments leads to it.
#[derive(Debug, Clone, Default)]
struct Running {
    arguments: Vec<OsString>,
    version: Option<(u32, u32)>,
    /// systemd, or the pidfile of the settings.
    is_known: bool,
}

/// A file's numbers: user, group and permission bits.
pub type FileMode = (u32, u32, u32);

/// What the HAProxy of these settings loads, as settings; `None`: it loads no directory, or the one of the settings. With
/// `is_chosen` that one is meant, among others: then `None` says that it isn't loaded.
#[must_use]
pub fn look(settings: &Settings, system: &System, is_chosen: bool) -> Option<Proposal> {
    let haproxy = settings.haproxys.first()?;
    let (configuration, serving) = set_up::set_up(system, haproxy).ok()?;
    let modes = |path: &str| -> Vec<FileMode> {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        files.sort();
        let looked = files.iter().filter_map(|file| std::fs::metadata(file).ok());
        looked
            .filter(std::fs::Metadata::is_file)
            .map(|file| (file.uid(), file.gid(), file.mode() & 0o7777))
            .collect()
    };
    let started = Started::find(system, haproxy).ok();
    // systemd starts programs in the root directory.
    let folder = started.as_ref().map_or_else(|| "/".into(), |started| started.folder.clone());
    let is_followed = |it: &&Started| haproxy.config.is_empty() || it.is_surely_this;
    let root = started.as_ref().filter(is_followed).and_then(|started| started.root.clone());
    let running = started.and_then(|started| {
        let has_pidfile =
            || crate::haproxy::process::pidfile::read(&haproxy.pidfile).is_ok_and(|pid| pid.is_some());
        let arguments = Proc::new(system).arguments(started.pid).ok()?;
        let version = release(system, haproxy, Some(&started));
        Some(Running { arguments, version, is_known: system.has_systemd() || has_pidfile() })
    });
    let folder = match configuration.beginning().map(|beginning| folder.join(beginning)) {
        None => folder,
        // Without the `..` of `default-path parent`, which leads on from where a link leads.
        Some(begun) if root.is_none() => begun.canonicalize().unwrap_or(begun),
        Some(begun) => begun,
    };
    let sites = contents::identity(&settings.sites_dir);
    let lineages = |directory: &Path| -> usize {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        let names =
            entries.filter_map(|entry| Path::new(&entry.file_name()).file_stem().map(OsStr::to_owned));
        names.filter(|name| settings.live_dir.join(name).is_dir()).count()
    };
    let is_lineages = |file: &Path| {
        let name = file.file_name().and_then(|name| name.as_encoded_bytes().strip_suffix(b".pem"));
        name.is_some_and(|name| settings.live_dir.join(OsStr::from_bytes(name)).is_dir())
    };
    let around = Around {
        running: running.as_ref(),
        folder: &folder,
        sites,
        is_chosen,
        modes: &modes,
        lineages: &lineages,
        is_lineages: &is_lineages,
    };
    let is_certbots = |directory: &str| Path::new(directory).starts_with(&settings.live_dir);
    let mut proposal = propose(haproxy, &configuration, &serving, &around)?;
    if is_certbots(&proposal.sites_dir) {
        return None;
    }
    proposal.others.retain(|(directory, _)| !is_certbots(directory));
    proposal.is_elsewhere = root.is_some_and(|root| !is_same_below(&root, &proposal.sites_dir));
    Some(proposal)
}

/// Whether a directory is the same one for a process with this root directory and for us.
fn is_same_below(root: &Path, directory: &str) -> bool {
    let there = contents::identity(&root.join(directory.trim_start_matches('/')));
    there.is_some() && there == contents::identity(Path::new(directory))
}

/// Where a socket of this HAProxy can be: the official images run it as a user who may write to one directory.
#[must_use]
pub fn socket_folder(configuration: &Configuration) -> &'static str {
    let is_image =
        configuration.files.iter().any(|file| Path::new(file).starts_with("/usr/local/etc/haproxy"));
    if is_image { "/var/lib/haproxy" } else { "/run/haproxy" }
}

impl Running {
    fn argument(&self, option: &str) -> Option<String> {
        Some(value_of(&self.arguments, option)?.to_str()?.to_owned())
    }

    /// What it is to be started with so that something can make it reload, and the settings: nothing where something can.
    /// An old master's socket doesn't say what came of a reload; the pidfile is for that one.
    fn deaf(&self, pidfile: Option<&String>, folder: &str) -> Vec<String> {
        let socket = self.argument("-S");
        let answers = socket.is_some() && self.version.is_none_or(|version| version >= ANSWERS_SINCE);
        if self.is_known || pidfile.is_some() || answers {
            return Vec::new();
        }
        let is_master = self.arguments.iter().any(|word| word == "-W" || word == "-Ws");
        let mut more = if is_master { Vec::new() } else { vec!["-W".to_owned()] };
        let mut settings = Vec::new();
        let missing = [("-S", "master_socket", "master.sock"), ("-p", "pidfile", "haproxy.pid")];
        for (option, key, name) in missing.into_iter().skip(usize::from(socket.is_some())) {
            more.push(format!("{option} {folder}/{name}"));
            settings.push(format!("{key} = \"{folder}/{name}\""));
        }
        let mut words: Vec<String> = self.arguments.iter().map(|word| shell_word(word)).collect();
        let behind = words.len().min(1);
        words.splice(behind..behind, more);
        std::iter::once(words.join(" ")).chain(settings).collect()
    }
}

/// What a proposal depends on, besides the configuration.
struct Around<'a> {
    running: Option<&'a Running>,
    /// Where HAProxy's relative paths begin; those of the settings would begin wherever a run is started.
    folder: &'a Path,
    /// Which directory the one of the settings is.
    sites: Option<Identity>,
    /// Whether that one was chosen.
    is_chosen: bool,
    /// Looks at a directory's files.
    modes: &'a dyn Fn(&str) -> Vec<FileMode>,
    /// How many files of certbot's lineages somebody has put into a directory.
    lineages: &'a dyn Fn(&Path) -> usize,
    /// Whether a file has the name that a lineage of certbot's has here.
    is_lineages: &'a dyn Fn(&Path) -> bool,
}

/// The proposal: the directory that a bind with TLS loads, of several the one with most lineages' files, the first of those;
/// else the one in which the files are that lines name one by one. Pure but for what looks at files.
fn propose(
    haproxy: &Haproxy,
    configuration: &Configuration,
    serving: &Serving,
    around: &Around<'_>,
) -> Option<Proposal> {
    let Around { running, folder, sites, is_chosen, modes, lineages, is_lineages } = *around;
    let absolute = |path: &str| absolute(folder, path);
    let is_ours = |load: &Load| {
        let is_it = load.path == haproxy.sites_dir || absolute(&load.path) == Path::new(&haproxy.sites_dir);
        load.how == How::Directory && is_it
    };
    let binds: Vec<&Bind> = serving.binds.iter().filter(|bind| bind.ssl).collect();
    let loads_ours = binds.iter().any(|bind| bind.loads.iter().any(is_ours));
    if loads_ours && !is_chosen {
        return None;
    }
    // Where a relative name begins has to be known.
    let is_followed = |load: &&Load| load.path.starts_with('/') || configuration.unclear.is_none();
    let is_wanted = |load: &Load| if is_chosen { is_ours(load) } else { load.how == How::Directory };
    let all = binds.iter().flat_map(|bind| bind.loads.iter().map(move |load| (*bind, load)));
    let wanted = all.filter(|(_, load)| is_wanted(load));
    let whole = wanted
        .min_by_key(|(_, load)| std::cmp::Reverse(lineages(&absolute(&load.path))))
        .filter(|(_, load)| is_followed(load));
    let (at, sites_dir, host_file, one_by_one) = if let Some((bind, load)) = whole {
        let sites_dir = absolute(&load.path);
        let before = bind.loads.iter().take_while(|before| *before != load);
        (bind.at.clone(), sites_dir.clone(), before_it(before, &sites_dir, &absolute), None)
    } else {
        let is_clear = configuration.unclear.is_none();
        let has_ours = || one_by_one::example(serving, sites, &haproxy.sites_dir).is_some();
        if !is_clear || !is_chosen && has_ours() {
            return None;
        }
        let (sites_dir, first) = directory_of_lines(&binds, configuration, &absolute)
            .or_else(|| directory_of_words(&binds, is_lineages, &absolute))?;
        if is_chosen && sites_dir != Path::new(&haproxy.sites_dir) {
            return None;
        }
        // A directory that HAProxy's own configuration is in is no place for certificates alone.
        if configuration.files.iter().any(|file| absolute(file).parent() == Some(&*sites_dir)) {
            return None;
        }
        let before = binds.iter().flat_map(|bind| &bind.loads);
        let first = first.or_else(|| before_it(before, &sites_dir, &absolute));
        let example = one_by_one::example(serving, None, &sites_dir.to_string_lossy()).or_else(|| {
            let spelled = binds.iter().flat_map(|bind| &bind.loads).flat_map(|load| &load.entries);
            let mut spelled = spelled.filter_map(|entry| entry.store.rsplit_once('/'));
            let (spelled, _) = spelled.find(|(folder, _)| absolute(folder) == sites_dir)?;
            one_by_one::example(serving, None, spelled)
        })?;
        (example.at.clone(), sites_dir, first, Some(example))
    };
    let host_file = host_file.unwrap_or_else(|| sites_dir.with_file_name("host.pem"));
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let found = modes(&text(&sites_dir));
    let most = most_frequent(&found);
    let owner = most.and_then(|(uid, gid, _)| owner(uid, gid));
    let mode = most.map(|(.., mode)| mode).filter(|mode| MODES.contains(mode) && *mode != 0o400);
    // Of a variable nobody here knows the value.
    let is_plain = |path: &&str| path.starts_with('/') && !path.contains('$');
    let sockets = configuration.admin_sockets.iter();
    let runtime_socket = sockets.map(|socket| socket.trim_start_matches("unix@")).find(is_plain);
    let is_default = |pidfile: &&String| Path::new(pidfile.as_str()) == haproxy.pidfile;
    let argument = |option: &str| running?.argument(option);
    let master_socket = running
        .and_then(|it| master_socket(&it.arguments))
        .map(|socket| text(&absolute(&socket.to_string_lossy())));
    let pidfile = argument("-p").or_else(|| configuration.pidfile.clone().filter(|path| !path.contains('$')));
    let deaf = running.map(|it| it.deaf(pidfile.as_ref(), socket_folder(configuration)));
    let is_usual = |socket: &String| match &haproxy.master_socket {
        Some(Address::Unix(usual)) => usual == Path::new(socket),
        _ => false,
    };
    let others = if is_chosen { Vec::new() } else { directories(&binds, &is_followed, &absolute) };
    Some(Proposal {
        others: others.into_iter().filter(|it| it.0 != sites_dir).map(|it| (text(&it.0), it.1)).collect(),
        at,
        one_by_one,
        sites_dir: text(&sites_dir),
        host_file: text(&host_file),
        owner,
        mode,
        runtime_socket: runtime_socket.map(str::to_owned),
        master_socket: master_socket.filter(|socket| !is_usual(socket)),
        pidfile: pidfile.filter(|it| !is_default(&it)),
        deaf: deaf.unwrap_or_default(),
        is_elsewhere: false,
    })
}

/// The directories that binds load, and those of files that crt-lists and `ssl-f-use` name: each once, with its line.
fn directories(
    binds: &[&Bind],
    is_followed: &dyn Fn(&&Load) -> bool,
    absolute: &dyn Fn(&str) -> PathBuf,
) -> Vec<(PathBuf, At)> {
    let mut found: Vec<(PathBuf, At)> = Vec::new();
    for (bind, load) in binds.iter().flat_map(|bind| bind.loads.iter().map(move |load| (bind, load))) {
        let files = || load.entries.iter().filter(|entry| !entry.store.starts_with('@'));
        let folders: Vec<(PathBuf, At)> = match load.how {
            How::Directory if is_followed(&load) => vec![(absolute(&load.path), bind.at.clone())],
            How::List | How::Used if is_followed(&load) => {
                let folder =
                    |entry: &Entry| Some((absolute(&entry.store).parent()?.to_owned(), entry.at.clone()));
                files().filter_map(folder).collect()
            }
            _ => Vec::new(),
        };
        for folder in folders {
            if found.iter().all(|known| known.0 != folder.0) {
                found.push(folder);
            }
        }
    }
    found
}

/// Without the `.` of `./certs`.
fn absolute(folder: &Path, path: &str) -> PathBuf {
    folder.join(path).components().collect()
}

/// The first certificate that these load by itself, and that isn't in the directory.
fn before_it<'a>(
    loads: impl Iterator<Item = &'a Load>,
    sites_dir: &Path,
    absolute: &dyn Fn(&str) -> PathBuf,
) -> Option<PathBuf> {
    // One that begins so is the name of a `crt-store`'s.
    loads
        .filter(|load| matches!(load.how, How::File | How::Default) && !load.path.starts_with('@'))
        .map(|load| absolute(&load.path))
        .find(|path| path.parent() != Some(sites_dir))
}

/// The one directory in which the files are that crt-lists, `ssl-f-use` and `crt-store` name; the very first may be elsewhere,
/// and is then the certificate before it. Those with a key of its own file aren't ours to write.
fn directory_of_lines(
    binds: &[&Bind],
    configuration: &Configuration,
    absolute: &dyn Fn(&str) -> PathBuf,
) -> Option<(PathBuf, Option<PathBuf>)> {
    let is_one = |load: &&Load| {
        matches!(load.how, How::List | How::Used) || configuration.defined.contains_key(&load.path)
    };
    let entries = binds.iter().flat_map(|bind| &bind.loads).filter(is_one).flat_map(|load| &load.entries);
    let mut files = Vec::new();
    for entry in entries {
        files.push(match configuration.defined.get(&entry.store) {
            Some(defined) if defined.key.as_ref().is_some_and(|key| *key != defined.crt) => return None,
            Some(defined) => absolute(&defined.crt),
            None => absolute(&entry.store),
        });
    }
    let folder = |file: &PathBuf| file.parent().map(Path::to_path_buf);
    let last = folder(files.last()?)?;
    let is_in = |file: &PathBuf| folder(file).as_ref() == Some(&last);
    match files.split_first()? {
        (first, rest) if !is_in(first) && rest.iter().all(is_in) => Some((last, Some(first.clone()))),
        _ => files.iter().all(is_in).then_some((last, None)),
    }
}

/// The one directory in which the files are that binds name by themselves, some of them as a lineage's file is named here; the
/// very first may be elsewhere, and is then the certificate before it.
fn directory_of_words(
    binds: &[&Bind],
    is_lineages: &dyn Fn(&Path) -> bool,
    absolute: &dyn Fn(&str) -> PathBuf,
) -> Option<(PathBuf, Option<PathBuf>)> {
    let loads: Vec<&Load> = binds.iter().flat_map(|bind| &bind.loads).collect();
    let is_word = |load: &&Load| matches!(load.how, How::File | How::Default) && !load.path.starts_with('@');
    if !loads.iter().all(is_word) {
        return None;
    }
    let files: Vec<PathBuf> = loads.iter().map(|load| absolute(&load.path)).collect();
    let ours: BTreeSet<&Path> =
        files.iter().filter(|file| is_lineages(file)).filter_map(|file| file.parent()).collect();
    let only = ours.iter().next().filter(|_| ours.len() == 1)?;
    let others: BTreeSet<&PathBuf> = files.iter().filter(|file| file.parent() != Some(only)).collect();
    let first = files.first().filter(|first| others.contains(first));
    (others.len() == usize::from(first.is_some())).then(|| (only.to_path_buf(), first.cloned()))
}

/// What most of the files have.
fn most_frequent(all: &[FileMode]) -> Option<FileMode> {
    let mut counts: BTreeMap<FileMode, usize> = BTreeMap::new();
    for one in all {
        *counts.entry(*one).or_default() += 1;
    }
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(one, _)| one)
}

/// `user:group`, by their names where they have any; `None`: root's own.
fn owner(uid: u32, gid: u32) -> Option<String> {
    if (uid, gid) == (0, 0) {
        return None;
    }
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    let group = Group::from_gid(Gid::from_raw(gid)).ok().flatten();
    let user = user.map_or_else(|| uid.to_string(), |user| user.name);
    Some(format!("{user}:{}", group.map_or_else(|| gid.to_string(), |group| group.name)))
}

impl Proposal {
    /// The keys with their values, those of the first `[[haproxy]]` table behind the others.
    #[must_use]
    pub fn keys(&self) -> (Values, Values) {
        let own = |(key, value): (&'static str, &Option<String>)| Some((key, quoted(value.as_ref()?)));
        let mut top = vec![("sites_dir", quoted(&self.sites_dir)), ("host_file", quoted(&self.host_file))];
        top.extend(own(("owner", &self.owner)));
        top.extend(self.mode.map(|mode| ("mode", format!("\"{mode:04o}\""))));
        let table = [
            ("runtime_socket", &self.runtime_socket),
            ("master_socket", &self.master_socket),
            ("pidfile", &self.pidfile),
        ];
        (top, table.into_iter().filter_map(own).collect())
    }

    /// What HAProxy does already, as a fact.
    #[must_use]
    pub fn fact(&self) -> String {
        let directory = escaped(&self.sites_dir);
        let fact = if self.one_by_one.is_some() {
            format!("HAProxy loads files of {directory} already, by a line for each ({})", self.at)
        } else {
            format!("HAProxy loads {directory} already ({})", self.at)
        };
        if self.is_elsewhere { fact + ", below a root directory of its own, as in a container" } else { fact }
    }
}

/// Whether one of the HAProxys loads its sites directory, or files of it; `None`: no configuration could be read.
#[must_use]
pub fn loads_sites_dir(settings: &Settings, system: &System) -> Option<bool> {
    let sites = contents::identity(&settings.sites_dir);
    let loads = |haproxy: &Haproxy| {
        let (_, serving) = set_up::set_up(system, haproxy).ok()?;
        let mut loads = serving.binds.iter().flat_map(|bind| &bind.loads);
        Some(
            loads.any(|load| serving.is_spelled(load, &haproxy.sites_dir, sites))
                || one_by_one::example(&serving, sites, &haproxy.sites_dir).is_some(),
        )
    };
    settings.haproxys.iter().filter_map(loads).reduce(|any, one| any || one)
}

/// Where the first HAProxy loads certificates, and none of the sites directory: which, and what to do.
#[must_use]
pub fn loads_others(settings: &Settings, system: &System) -> Option<String> {
    let haproxy = settings.haproxys.first()?;
    let (_, serving) = set_up::set_up(system, haproxy).ok()?;
    let now = loaded_now(&serving)?;
    if serving.unclear.is_some() || loads_sites_dir(settings, system) != Some(false) {
        return None;
    }
    Some(format!(
        "HAProxy loads {now}, and nothing from {}; once haproxy-certs assemble has filled that, say so in HAProxy's \
         configuration and reload it: {}",
        escaped(&haproxy.sites_dir),
        what_to_add(haproxy, &serving)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Overrides;
    use crate::host_setup::settings_file::{COMMENTS, filled_in, settings_in};
    use crate::serving::configuration::{Defined, Environment, Keyword};
    use crate::serving::loads::{Contents, Store};

    fn bind(loads: &[(How, &str)]) -> Bind {
        let load = |&(how, path): &(How, &str)| Load { how, path: path.into(), entries: Vec::new() };
        Bind {
            at: At { file: "/etc/haproxy/haproxy.cfg".into(), line: 7 },
            section: "frontend https".into(),
            addresses: ":443".into(),
            ssl: true,
            is_disabled: false,
            strict_sni: false,
            accepts_proxy: false,
            loads: loads.iter().map(load).collect(),
        }
    }

    fn around<'a>(folder: &'a Path, modes: &'a dyn Fn(&str) -> Vec<FileMode>) -> Around<'a> {
        Around {
            running: None,
            folder,
            sites: None,
            is_chosen: false,
            modes,
            lineages: &|_| 0,
            is_lineages: &|_| false,
        }
    }

    fn proposed(
        loads: &[(How, &str)],
        configuration: &Configuration,
        files: &[FileMode],
    ) -> Option<Proposal> {
        let settings = Settings::parse("", &Overrides::default()).unwrap();
        let serving = Serving { binds: vec![bind(loads)], ..Serving::default() };
        propose(
            &settings.haproxys[0],
            configuration,
            &serving,
            &around(Path::new("/srv"), &|_| files.to_vec()),
        )
    }

    /// A container's: nothing but its own arguments leads to it.
    #[test]
    fn a_haproxy_that_nothing_can_make_reload_is_told() {
        let settings = Settings::parse("", &Overrides::default()).unwrap();
        let serving = Serving { binds: vec![bind(&[(How::Directory, "/c")])], ..Serving::default() };
        let files = vec!["/usr/local/etc/haproxy/haproxy.cfg".into()];
        let mut configuration = Configuration::default();
        configuration.files = files;
        let proposed = |line: &str, is_known| {
            let arguments = line.split(' ').map(OsString::from).collect();
            let running = Running { arguments, version: Some((2, 6)), is_known };
            let folder = Path::new("/");
            let around = Around { running: Some(&running), ..around(folder, &|_| Vec::new()) };
            propose(&settings.haproxys[0], &configuration, &serving, &around).unwrap()
        };
        let (socket, pidfile) = ("/var/lib/haproxy/master.sock", "/var/lib/haproxy/haproxy.pid");
        let expected = [
            format!("haproxy -S {socket} -p {pidfile} -W -db -f /a"),
            format!("master_socket = \"{socket}\""),
            format!("pidfile = \"{pidfile}\""),
        ];
        assert_eq!(proposed("haproxy -W -db -f /a", false).deaf, expected);
        assert!(proposed("haproxy -f /a", false).deaf[0].starts_with("haproxy -W -S /var"));
        let with_socket = proposed("haproxy -W -S /m.sock,mode,600 -f /a", false);
        assert_eq!(with_socket.deaf[1..], expected[2..]);
        assert_eq!(with_socket.master_socket, Some("/m.sock".to_owned()));
        assert_eq!(proposed("haproxy -W -f /a", true).deaf, [""; 0]);
        let with_pidfile = proposed("haproxy -W -p /p -f /a", false);
        assert_eq!((with_pidfile.deaf, with_pidfile.pidfile), (Vec::new(), Some("/p".to_owned())));
    }

    #[test]
    fn a_directory_with_what_is_around_it_becomes_settings() {
        let mut configuration = Configuration::default();
        configuration.admin_sockets = vec!["ipv4@127.0.0.1:9999".into(), "/run/haproxy/admin.sock".into()];
        configuration.pidfile = Some("/run/haproxy.pid".into());
        let loads = [(How::File, "/etc/haproxy/default.pem"), (How::Directory, "/etc/haproxy/certs")];
        let files = [(0, 0, 0o640), (0, 0, 0o644), (0, 0, 0o640)];
        let proposal = proposed(&loads, &configuration, &files).unwrap();
        assert_eq!(proposal.fact(), "HAProxy loads /etc/haproxy/certs already (/etc/haproxy/haproxy.cfg:7)");
        let (top, table) = proposal.keys();
        let text = filled_in(COMMENTS, &top, &table);
        let expected = [
            "sites_dir = \"/etc/haproxy/certs\"",
            "mode = \"0640\"",
            "host_file = \"/etc/haproxy/default.pem\"",
            "[[haproxy]]",
            "runtime_socket = \"/run/haproxy/admin.sock\"",
        ];
        assert_eq!(settings_in(&text), expected);
        let settings = Settings::parse(&text, &Overrides::default()).unwrap();
        assert_eq!(settings.sites_dir, Path::new("/etc/haproxy/certs"));
        assert_eq!(settings.haproxys[0].sites_dir, "/etc/haproxy/certs");
    }

    /// The settings' own relative paths would begin wherever a run is started: a hook's, a timer's, a shell's directory.
    #[test]
    fn a_relative_path_begins_where_haproxy_was_started() {
        let none = Configuration::default();
        let loads = [(How::File, "@store/a"), (How::File, "default.pem"), (How::Directory, "./certs")];
        let proposal = proposed(&loads, &none, &[]).unwrap();
        assert_eq!((&*proposal.sites_dir, &*proposal.host_file), ("/srv/certs", "/srv/default.pem"));
        assert_eq!(proposed(&loads[2..], &none, &[]).unwrap().host_file, "/srv/host.pem");
        let settings = Settings::parse("sites_dir = \"/srv/certs\"", &Overrides::default()).unwrap();
        let serving = Serving { binds: vec![bind(&loads)], ..Serving::default() };
        let folder = Path::new("/srv");
        assert_eq!(propose(&settings.haproxys[0], &none, &serving, &around(folder, &|_| Vec::new())), None);
    }

    /// What lines name one by one, with the store's files where a `crt-store` has them.
    #[test]
    fn the_directory_of_files_that_lines_name_becomes_settings() {
        let settings = Settings::parse("", &Overrides::default()).unwrap();
        let proposed = |text: &str, lists: &[(&str, &[&str])]| {
            let mut configuration = Configuration::new(Environment::default());
            configuration.read("/h.cfg", text.as_bytes());
            configuration.finish();
            let at = |line| At { file: "/l".into(), line };
            let entry = |path: &str| Entry { store: path.into(), at: at(1), filters: Vec::new() };
            let load = |(keyword, path): &(Keyword, String)| {
                let list = lists.iter().find(|(list, _)| list == path);
                let (how, entries) = match (keyword, list) {
                    (_, Some((_, files))) => (How::List, files.iter().map(|file| entry(file)).collect()),
                    (Keyword::Used, _) => (How::Used, vec![entry(path)]),
                    _ => (How::File, vec![entry(path)]),
                };
                Load { how, path: path.clone(), entries }
            };
            let binds: Vec<Bind> = configuration
                .binds
                .iter()
                .map(|line| Bind {
                    at: line.at.clone(),
                    loads: line.loads.iter().map(load).collect(),
                    ..bind(&[])
                })
                .collect();
            let store = |(name, defined): (&String, &Defined)| {
                let contents = Contents::Unseen(String::new());
                (
                    name.clone(),
                    Store { path: defined.crt.clone().into(), identity: None, contents, extra: None },
                )
            };
            let stores = configuration.defined.iter().map(store).collect();
            let serving = Serving { binds, stores, ..Serving::default() };
            let folder = Path::new("/srv");
            propose(&settings.haproxys[0], &configuration, &serving, &around(folder, &|_| Vec::new()))
                .map(|it| (it.sites_dir, it.host_file))
        };
        let found = |sites: &str, host: &str| Some((sites.to_owned(), host.to_owned()));
        let list: &[(&str, &[&str])] = &[("/l", &["/c/a.pem", "/c/b.pem"])];
        assert_eq!(proposed("frontend f\n bind :1 ssl crt-list /l\n", list), found("/c", "/host.pem"));
        let with_default = "frontend f\n bind :1 ssl crt /etc/h.pem crt-list /l\n";
        assert_eq!(proposed(with_default, list), found("/c", "/etc/h.pem"));
        let first: &[(&str, &[&str])] = &[("/l", &["/etc/h.pem", "c/a.pem", "/srv/c/b.pem"])];
        assert_eq!(proposed("frontend f\n bind :1 ssl crt-list /l\n", first), found("/srv/c", "/etc/h.pem"));
        let several: &[(&str, &[&str])] = &[("/l", &["/c/a.pem", "/d/b.pem", "/e/b.pem"])];
        assert_eq!(proposed("frontend f\n bind :1 ssl crt-list /l\n", several), None);
        let used = "frontend f\n bind :1 ssl\n ssl-f-use crt /c/a.pem\n ssl-f-use crt /c/b.pem\n";
        assert_eq!(proposed(used, &[]), found("/c", "/host.pem"));
        let store = "crt-store s\n crt-base /c\n load crt a.pem alias a\nfrontend f\n bind :1 ssl crt @s/a\n";
        assert_eq!(proposed(store, &[]), found("/c", "/host.pem"));
        // certbot's own two files: nothing is to be written there.
        let pairs = store.replace("alias", "key /k/a.key alias");
        assert_eq!(proposed(&pairs, &[]), None);
    }

    /// The first one is proposed, the others are named, and whichever is chosen is proposed as well.
    #[test]
    fn of_several_directories_each_can_be_chosen() {
        let none = Configuration::default();
        let loads = [
            (How::Directory, "/c/one"),
            (How::File, "/c/host.pem"),
            (How::Directory, "./two"),
            (How::Directory, "/c/one"),
        ];
        let first = proposed(&loads, &none, &[]).unwrap();
        let at = At { file: "/etc/haproxy/haproxy.cfg".into(), line: 7 };
        assert_eq!((&*first.sites_dir, first.others), ("/c/one", vec![("/srv/two".to_owned(), at)]));
        let chosen = |directory: &str| {
            let settings = format!("sites_dir = \"{directory}\"");
            let settings = Settings::parse(&settings, &Overrides::default()).unwrap();
            let serving = Serving { binds: vec![bind(&loads)], ..Serving::default() };
            let around = Around { is_chosen: true, ..around(Path::new("/srv"), &|_| Vec::new()) };
            propose(&settings.haproxys[0], &none, &serving, &around)
                .map(|it| (it.sites_dir, it.host_file, it.others))
        };
        let two = ("/srv/two".to_owned(), "/c/host.pem".to_owned(), Vec::new());
        assert_eq!(chosen("/srv/two"), Some(two));
        assert_eq!(chosen("/c/one").unwrap().0, "/c/one");
        assert_eq!(chosen("/c/three"), None);
    }

    #[test]
    fn nothing_is_proposed_where_nothing_differs_or_nothing_is_loaded() {
        let none = Configuration::default();
        assert_eq!(proposed(&[(How::Directory, "/usr/local/ssl/certs/sites")], &none, &[]), None);
        assert_eq!(proposed(&[(How::File, "/etc/haproxy/one.pem")], &none, &[]), None);
        // Without a certificate before it, or with one that is in the directory itself: a place beside it.
        let loads = [(How::File, "/etc/ssl/haproxy/a.pem"), (How::Directory, "/etc/ssl/haproxy")];
        let proposal = proposed(&loads, &none, &[(0, 0, 0o777)]).unwrap();
        let keys = [("sites_dir", "\"/etc/ssl/haproxy\""), ("host_file", "\"/etc/ssl/host.pem\"")];
        assert_eq!(proposal.keys(), (keys.map(|(key, value)| (key, value.to_owned())).into(), Vec::new()));
        let (top, table) = proposal.keys();
        let text = filled_in("# sites_dir = \"x\"\n# [[haproxy]]\n# sites_dir = \"\"\n", &top, &table);
        assert_eq!(text, "sites_dir = \"/etc/ssl/haproxy\"\n# [[haproxy]]\n# sites_dir = \"\"\n");
    }
}
