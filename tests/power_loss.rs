//! Power loss: in the order in which a run calls the system, everything is durable before something relies on it.
//!
//! A checker reads the recorded calls with the strictest idea of a file system: nothing that was written is durable
//! before it is synced, no name before its directory is, and neither waits for the other.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    reason = "tests may fail loudly"
)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use haproxy_certs::index::INDEX_FILE;
use support::live::{Live, demanding_openssl, one_of_each, renew_two, two_refused};
use support::scene::{Scene, every_action, every_action_indexed, first_run, many};
use support::strace::{self, Call};
use support::summary::Count;
use support::version;

/// What isn't durable at a point of a run.
struct Checker {
    sites: PathBuf,
    host: PathBuf,
    /// Files with contents or attributes that aren't durable.
    unsynced: BTreeSet<PathBuf>,
    /// Directories with names that aren't durable: new ones, or old ones that are gone.
    unnamed: BTreeSet<PathBuf>,
    /// Directories in which something was kept aside whose name there isn't durable.
    unkept: BTreeSet<PathBuf>,
    /// Whether this run's state file has its name, durably.
    intent: bool,
    renames: usize,
    syncs: usize,
    tellings: usize,
    wrong: Vec<String>,
}

impl Checker {
    /// What is wrong with the order of these calls, for this sites directory and this host certificate.
    fn check(calls: &[Call], sites: &Path, host: &Path) -> Self {
        let mut checker = Self {
            sites: sites.to_owned(),
            host: host.to_owned(),
            unsynced: BTreeSet::new(),
            unnamed: BTreeSet::new(),
            unkept: BTreeSet::new(),
            intent: false,
            renames: 0,
            syncs: 0,
            tellings: 0,
            wrong: Vec::new(),
        };
        for call in calls.iter().filter(|call| call.succeeded()) {
            checker.look_at(call);
        }
        checker
    }

    fn look_at(&mut self, call: &Call) {
        match call.name.as_str() {
            "openat" | "open" if call.arguments.contains("O_CREAT") => {
                let path = opened(call);
                if self.is_ours(&path) {
                    self.unsynced.insert(path.clone());
                    self.rename_in(&path);
                }
            }
            "write" | "writev" | "pwrite64" | "fchmod" | "fchown" | "ftruncate" => {
                let path = descriptor(&call.arguments);
                if self.is_ours(&path) && path != self.sites && !self.unnamed.contains(&path) {
                    self.unsynced.insert(path);
                }
            }
            "fsync" | "fdatasync" => {
                self.syncs += 1;
                let path = descriptor(&call.arguments);
                self.unsynced.remove(&path);
                self.unnamed.remove(&path);
                self.unkept.remove(&path);
                self.note_intent();
            }
            "syncfs" => {
                self.syncs += 1;
                self.unsynced.clear();
                self.unnamed.clear();
                self.unkept.clear();
                self.note_intent();
            }
            "mkdir" | "mkdirat" => self.rename_in(&places(&call.arguments)[0]),
            "unlinkat" | "unlink" => {
                let path = &places(&call.arguments)[0];
                self.rename_in(path);
                if self.is_loaded(path) {
                    self.change(call);
                }
            }
            "linkat" => {
                let both = places(&call.arguments);
                if self.unsynced.contains(&both[0]) {
                    self.wrong.push(format!("a second name for what isn't durable: {call}"));
                }
                self.rename_in(&both[1]);
                self.keep(&both[1]);
            }
            "renameat" | "renameat2" | "rename" => self.rename(call),
            // What is started or connected to after the first rename may read the directory.
            "connect" | "clone3" | "clone" | "vfork" | "pidfd_send_signal" if self.renames > 0 => {
                self.tellings += 1;
                for path in self.unnamed.clone() {
                    if self.leads_to_what_is_loaded(&path) {
                        self.wrong
                            .push(format!("told while names in {} aren't durable: {call}", path.display()));
                    }
                }
            }
            _ => {}
        }
    }

    fn rename(&mut self, call: &Call) {
        let [from, to] = places(&call.arguments).try_into().expect("two names");
        if to == self.own().join(INDEX_FILE) {
            // After another start of the machine nothing in it is trusted, whatever it is.
            self.unsynced.remove(&from);
            return;
        }
        if self.unsynced.remove(&from) {
            self.wrong.push(format!("a name for contents that aren't durable: {call}"));
            self.unsynced.insert(to.clone());
        }
        self.rename_in(&from);
        self.rename_in(&to);
        self.keep(&to);
        if self.is_loaded(&to) || self.is_loaded(&from) {
            self.change(call);
        }
        if to == self.own().join("state.json") {
            self.intent = false;
        }
    }

    /// A file that HAProxy loads comes, goes or becomes another one.
    fn change(&mut self, call: &Call) {
        self.renames += 1;
        if !self.intent {
            self.wrong.push(format!("a file changes before the intent is durable: {call}"));
        }
        if !self.unkept.is_empty() {
            self.wrong.push(format!("a file changes before what would be put back is durable: {call}"));
        }
    }

    /// Something got this name; if it is what was loaded, it is kept there.
    fn keep(&mut self, path: &Path) {
        if path.parent() == Some(&self.own().join("previous"))
            || *path == self.own().join("previous-host.pem")
        {
            self.unkept.insert(path.parent().unwrap().to_owned());
        }
    }

    fn is_loaded(&self, path: &Path) -> bool {
        *path == self.host || path.parent() == Some(&self.sites)
    }

    /// A name in the directory of `path` has come or gone.
    fn rename_in(&mut self, path: &Path) {
        if self.is_ours(path) {
            self.unnamed.insert(path.parent().unwrap().to_owned());
        }
    }

    /// The state file counts once all that leads to it is durable.
    fn note_intent(&mut self) {
        let state = self.own().join("state.json");
        self.intent |= !self.unsynced.contains(&state)
            && !self.unnamed.contains(&self.own())
            && (self.renames > 0 || !self.unnamed.contains(&self.sites));
    }

    fn own(&self) -> PathBuf {
        self.sites.join(".haproxy-certs")
    }

    fn is_ours(&self, path: &Path) -> bool {
        // Nothing relies on when the last run was: whatever is left of that is fine.
        let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        if name.starts_with("last-run.json") {
            return false;
        }
        path.starts_with(&self.sites) || *path == self.host
    }

    /// Whether HAProxy, or the way to what it loads, depends on the names in this directory.
    fn leads_to_what_is_loaded(&self, path: &Path) -> bool {
        self.sites.starts_with(path) || self.host.starts_with(path)
    }
}

/// `3</the/path>, ...`
fn descriptor(arguments: &str) -> PathBuf {
    arguments
        .split_once('<')
        .and_then(|(_, rest)| rest.split_once('>'))
        .map_or_else(PathBuf::new, |(path, _)| path.into())
}

/// Every `DIRFD</folder>, "name"` of the arguments, joined.
fn places(arguments: &str) -> Vec<PathBuf> {
    let mut folder = PathBuf::new();
    let mut places = Vec::new();
    for word in arguments.split(", ") {
        if let Some(name) = word.strip_prefix('"').and_then(|name| name.strip_suffix('"')) {
            places.push(folder.join(name));
        } else if word.contains('<') {
            folder = descriptor(word);
        }
    }
    places
}

fn opened(call: &Call) -> PathBuf {
    places(&call.arguments).remove(0)
}

/// Checks a scenario, and counts.
fn must_be_durable(name: &str, calls: &[Call], sites: &Path, host: &Path) {
    let found = Checker::check(calls, sites, host);
    assert_eq!(found.wrong, Vec::<String>::new(), "{name}");
    assert!(found.renames > 0 && found.tellings > 0 && found.syncs > 0, "{name}: nothing was checked");
    Count::Renames.add(name, found.renames);
}

fn record(scene: &Scene, circumstances: &[&str]) -> Vec<Call> {
    let processor = strace::processors()[0];
    let (run, calls) = strace::record(&scene.cmd, &scene.arguments, circumstances, processor);
    assert_eq!(run.code, Some(0), "{run}");
    calls
}

#[test]
fn everything_is_durable_before_something_relies_on_it() {
    strace::must_be_there();
    for (name, prepare) in [
        ("every action", every_action as fn() -> Scene),
        ("every action, indexed", every_action_indexed),
        ("first run", first_run),
        ("many files", many),
    ] {
        let scene = prepare();
        let calls = record(&scene, &[]);
        must_be_durable(name, &calls, &scene.cmd.sites(), &scene.cmd.beside("host.pem"));
    }
    let scene = every_action();
    let calls = record(&scene, strace::NO_HARD_LINKS);
    must_be_durable("no hard links", &calls, &scene.cmd.sites(), &scene.cmd.beside("host.pem"));
}

#[test]
fn everything_is_durable_before_haproxy_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = demanding_openssl(folder.path());
    let demanding = [("OPENSSL_CONF", path.as_str())];
    for (name, haproxy, work) in [
        ("runtime", "2.6", renew_two as support::live::Work),
        ("reload by signal", "2.6", one_of_each),
        ("reload by the master", "3.0", one_of_each),
        ("roll-back", "2.6", two_refused),
    ] {
        let (environment, code) = if name == "roll-back" { (&demanding[..], 2) } else { (&[][..], 0) };
        let mut live = Live::start(&version(haproxy).unwrap(), "", environment);
        work(&mut live);
        live.cmd.assemble(&[]);
        work(&mut live);
        let arguments = ["assemble", "--format", "json"];
        let (run, calls) = strace::record(&live.cmd, &arguments, &[], strace::processors()[0]);
        assert_eq!(run.code, Some(code), "{name}: {run}");
        must_be_durable(name, &calls, &live.cmd.sites(), &live.cmd.beside("host.pem"));
    }
}

/// The checker itself: it notices each sync that is left out and each rename that comes too early.
#[test]
fn a_wrong_order_is_noticed() {
    let mut noticed = 0;
    for prepare in [every_action as fn() -> Scene, many] {
        let scene = prepare();
        let calls = record(&scene, &[]);
        let (sites, host) = (scene.cmd.sites(), scene.cmd.beside("host.pem"));
        let wrong = |calls: &[Call]| Checker::check(calls, &sites, &host).wrong;
        assert_eq!(wrong(&calls), Vec::<String>::new());
        let first_rename = calls
            .iter()
            .position(|call| {
                call.name.starts_with("rename") && places(&call.arguments)[1].parent() == Some(&sites)
            })
            .unwrap();
        for (position, call) in calls.iter().enumerate() {
            let path = descriptor(&call.arguments);
            let is_sync = matches!(call.name.as_str(), "fsync" | "syncfs");
            // What the run only tidies up with afterwards is nothing to rely on.
            let is_needed = position < first_rename || path == sites || Some(&*path) == host.parent();
            // A later one of the same directory, still in time, does as well.
            let again = calls[position + 1..first_rename.max(position + 1)]
                .iter()
                .any(|later| later.name == "fsync" && descriptor(&later.arguments) == path);
            let is_of_a_copy = calls[position.saturating_sub(1)].arguments.contains("\"adopted\"");
            if is_sync && is_needed && !again && !is_of_a_copy {
                let mut without = calls.clone();
                without.remove(position);
                assert_ne!(wrong(&without), Vec::<String>::new(), "unnoticed without {call}");
                // The same call too late.
                let mut late = calls.clone();
                let call = late.remove(position);
                late.push(call.clone());
                assert_ne!(wrong(&late), Vec::<String>::new(), "unnoticed at the end: {call}");
                noticed += 2;
            }
        }
        // The first rename before everything.
        let mut early = calls.clone();
        let rename = early.remove(first_rename);
        early.insert(0, rename);
        assert_ne!(wrong(&early), Vec::<String>::new());
        noticed += 1;
    }
    assert!(noticed > 10, "{noticed}");
    Count::WrongOrders.add("every action, many files", noticed);
}
