//! Which of the HAProxy processes in sight may be the one of a table: that a unit is inactive or a pidfile's process is
//! gone says nothing about a HAProxy that was started in another way.

use std::fs;
use std::path::{Path, PathBuf};

use crate::config::{Address, Haproxy, Marks, unit_name};
use crate::haproxy::process::arguments::{master_socket, only_checks};
use crate::haproxy::process::pidfile;
use crate::haproxy::process::started::Started;
use crate::sys::procfs::{Proc, same_file};
use crate::sys::system::System;

/// The largest configuration file that is looked into.
const LARGEST: u64 = 16 << 20;

/// A HAProxy process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    /// Its process id.
    pub(crate) pid: i32,
    /// Whether it has no arguments: it executes something in this moment.
    pub(crate) is_between: bool,
    /// Why it may be this table's.
    pub(crate) why: &'static str,
    /// The mark of this table that it bears.
    pub(crate) mark: Option<&'static str>,
}

/// Why nobody knows what runs here: with `hidepid` only one's own processes are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the other processes here can't be seen")]
pub(crate) struct Hidden;

/// The processes that may be this table's HAProxy, masters and workers alike.
///
/// One that bears a mark of another table and none of this one is that one's; one that bears none is this table's if
/// its configuration may load the directory.
///
/// # Errors
/// The processes can't be seen.
pub(crate) fn in_sight(system: &System, haproxy: &Haproxy) -> Result<Vec<Process>, Hidden> {
    let proc = Proc::new(system);
    let all = proc.all().filter(|_| proc.stat(1).is_ok()).ok_or(Hidden)?;
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    let others = all.into_iter().filter(|&pid| pid != own);
    Ok(others.filter_map(|pid| look(&proc, haproxy, pid)).collect())
}

/// The master of this table's HAProxy, or the only process where it has no master: the one that the pidfile names, else
/// one that bears a mark of this table and of no other. Only processes are looked at.
pub(crate) fn master(system: &System, haproxy: &Haproxy) -> Option<i32> {
    let proc = Proc::new(system);
    let is_haproxy = |&pid: &i32| proc.haproxy(pid).is_some();
    let named = pidfile::haproxy(&proc, &haproxy.pidfile);
    let marks = haproxy.marks();
    named.or_else(|| {
        if marks.are_none() {
            return None;
        }
        let bears = |pid: &i32| Started::read(&proc, *pid).is_some_and(|it| it.mark(&proc, &marks).is_some());
        let mut marked: Vec<i32> =
            proc.all().unwrap_or_default().into_iter().filter(|pid| is_haproxy(pid) && bears(pid)).collect();
        marked.sort_unstable();
        let has_workers = |pid: &&i32| !proc.workers(**pid).is_empty();
        marked.iter().find(has_workers).or_else(|| marked.first()).copied()
    })
}

fn look(proc: &Proc, haproxy: &Haproxy, pid: i32) -> Option<Process> {
    proc.haproxy(pid)?;
    let may_be = |why| Some(Process { pid, is_between: false, why, mark: None });
    let Some(it) = Started::read(proc, pid) else {
        // Between two images it has no arguments for a moment; the program of an exporter has others.
        let between = proc.arguments(pid).is_ok_and(|arguments| arguments.is_empty());
        let why = "is about to execute something";
        return between.then_some(Process { pid, is_between: true, why, mark: None });
    };
    if only_checks(&it.arguments) {
        return None;
    }
    if let Some(mark) = it.mark(proc, &haproxy.marks()) {
        return Some(Process { pid, is_between: false, why: mark, mark: Some(mark) });
    }
    if haproxy.others.iter().any(|marks| it.mark(proc, marks).is_some()) {
        return None;
    }
    match it.may_load(proc, &[&haproxy.sites_dir, &haproxy.host_file].map(Path::new)) {
        Some(true) => may_be("may load this directory"),
        Some(false) => None,
        // What a container's process loads is its own, unless its configuration says otherwise.
        None if it.file_of("-p").is_some() || !proc.is_in_our_namespace(pid) => None,
        None => may_be("has a configuration that can't be read"),
    }
}

impl Started {
    /// Which of these marks it bears.
    pub(crate) fn mark(&self, proc: &Proc, marks: &Marks) -> Option<&'static str> {
        let pidfile = Some(&marks.pidfile).filter(|pidfile| !pidfile.as_os_str().is_empty());
        if let (Some(ours), Some(its)) = (pidfile, self.file_of("-p"))
            && self.is_file(proc, &its, ours)
        {
            return Some("was started with this pidfile");
        }
        let is_ours = |file: PathBuf| marks.config.iter().any(|ours| self.is_file(proc, &file, ours));
        if self.paths().any(is_ours) {
            return Some("was started with this configuration file");
        }
        let socket = master_socket(&self.arguments);
        let is_socket = |ours: &Address, its: &Path| match ours {
            Address::Unix(ours) => self.is_file(proc, its, ours),
            Address::Tcp(_) => false,
        };
        if socket.is_some_and(|its| marks.sockets.iter().any(|ours| is_socket(ours, &self.folder.join(its))))
        {
            return Some("was started with this master socket");
        }
        let is_open = |ours: &Address| match ours {
            Address::Unix(path) => proc.has_open(self.pid, path),
            Address::Tcp(_) => false,
        };
        if marks.sockets.iter().any(is_open) {
            return Some("has this socket open");
        }
        let in_unit = !marks.unit.is_empty() && proc.is_in_unit(self.pid, &unit_name(&marks.unit));
        in_unit.then_some("belongs to this unit")
    }

    /// Whether a path of this process is the file that we mean by `ours`.
    fn is_file(&self, proc: &Proc, its: &Path, ours: &Path) -> bool {
        let resolved = |path: &Path| Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?));
        let same_place = its == ours || resolved(its).is_some_and(|its| Some(its) == resolved(ours));
        if self.sees_our_files(proc) { same_place } else { same_file(&self.inside(proc, its), ours) }
    }

    /// Whether the configuration that it was started with may load one of these, a directory or a file; `None`: it can't be
    /// read.
    pub(crate) fn may_load(&self, proc: &Proc, targets: &[&Path]) -> Option<bool> {
        let mut all = Vec::new();
        for file in self.paths() {
            let file = self.inside(proc, &file);
            if file.is_dir() {
                let entries = fs::read_dir(&file).ok()?;
                all.extend(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()));
            } else {
                all.push(file);
            }
        }
        let mut texts = Vec::new();
        for file in all {
            texts.push(text(&file)?);
        }
        let config = || texts.iter().flat_map(|text| lines(text));
        let crt_bases = config().filter_map(|words| match words.as_slice() {
            ["crt-base", base, ..] => Some(self.folder.join(base)),
            _ => None,
        });
        let bases: Vec<PathBuf> = crt_bases.chain([self.folder.clone()]).collect();
        let is_target = |path: &Path| {
            let inside = self.inside(proc, path);
            targets
                .iter()
                .any(|target| path.components().eq(target.components()) || same_file(&inside, target))
        };
        // A variable may stand for anything.
        let may_be_ours = |word: &str| {
            let mut paths = bases.iter().map(|base| base.join(word));
            word.contains('$') || paths.any(|path| is_target(&path) || path.parent().is_some_and(is_target))
        };
        for words in config() {
            for pair in words.windows(2) {
                let [key, value] = pair else { continue };
                let listed = match *key {
                    "crt" | "default-crt" => may_be_ours(value),
                    "crt-list" => {
                        let list = bases.iter().find_map(|base| text(&self.inside(proc, &base.join(value))));
                        let list = list.unwrap_or_default();
                        lines(&list).any(|words| words.first().is_some_and(|word| may_be_ours(word)))
                    }
                    _ => false,
                };
                if listed {
                    return Some(true);
                }
            }
        }
        Some(false)
    }

    /// A path of this process, as we reach it.
    fn inside(&self, proc: &Proc, path: &Path) -> PathBuf {
        if self.sees_our_files(proc) {
            return path.to_owned();
        }
        proc.path(self.pid, "root").join(path.strip_prefix("/").unwrap_or(path))
    }

    fn sees_our_files(&self, proc: &Proc) -> bool {
        proc.sees_our_files(self.pid)
    }
}

/// The text of a configuration file; `None`: it can't be read.
fn text(file: &Path) -> Option<String> {
    fs::metadata(file).ok().filter(|meta| meta.is_file() && meta.len() <= LARGEST)?;
    Some(String::from_utf8_lossy(&fs::read(file).ok()?).into_owned())
}

/// The words of each line, without quotes, as far as a name needs no more care.
fn lines(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let is_between = |letter: char| letter.is_whitespace() || letter == '"' || letter == '\'';
    text.lines().map(move |line| {
        let line = line.split(" #").next().unwrap_or_default();
        line.split(is_between).filter(|word| !word.is_empty()).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Overrides, Settings};

    /// A procfs of a test's own, with HAProxys as they would be there.
    struct Host {
        folder: tempfile::TempDir,
    }

    impl Host {
        fn new() -> Self {
            let host = Self { folder: tempfile::tempdir().unwrap() };
            fs::create_dir_all(host.path("sites")).unwrap();
            fs::write(
                host.path("loads.cfg"),
                format!("bind :443 ssl crt \"{}/\"\n", host.path("sites").display()),
            )
            .unwrap();
            fs::write(
                host.path("list"),
                format!("# a list\n{}/a.pem [alpn h2] a.example\n", host.path("sites").display()),
            )
            .unwrap();
            fs::write(
                host.path("by-list.cfg"),
                format!("bind :443 ssl crt-list {}\n", host.path("list").display()),
            )
            .unwrap();
            fs::write(host.path("not.cfg"), "frontend f\n  bind :80 # crt sites\n").unwrap();
            std::os::unix::fs::symlink(host.path("sites"), host.path("link")).unwrap();
            fs::write(
                host.path("by-link.cfg"),
                format!("bind :443 ssl crt {}\n", host.path("link").display()),
            )
            .unwrap();
            fs::write(
                host.path("by-base.cfg"),
                format!("crt-base {}\nbind :443 ssl crt sites\n", host.folder.path().display()),
            )
            .unwrap();
            host.process(1, "systemd", &["/sbin/init"], "");
            fs::create_dir_all(host.path("proc/self/ns")).unwrap();
            std::os::unix::fs::symlink("mnt:[1]", host.path("proc/self/ns/mnt")).unwrap();
            std::os::unix::fs::symlink("pid:[1]", host.path("proc/self/ns/pid")).unwrap();
            host
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn process(&self, pid: i32, comm: &str, arguments: &[&str], unit: &str) {
            let folder = self.path(&format!("proc/{pid}"));
            let _ = fs::remove_dir_all(&folder);
            fs::create_dir_all(folder.join("ns")).unwrap();
            let fields: Vec<String> = (2..50).map(|n| n.to_string()).collect();
            fs::write(folder.join("stat"), format!("{pid} ({comm}) S {}\n", fields.join(" "))).unwrap();
            let in_folder = |text: &&str| text.replace("DIR", self.folder.path().to_str().unwrap());
            let line: Vec<String> = arguments.iter().map(in_folder).collect();
            fs::write(folder.join("cmdline"), line.iter().flat_map(|word| [word, "\0"]).collect::<String>())
                .unwrap();
            fs::write(folder.join("cgroup"), format!("0::/system.slice/{unit}\n")).unwrap();
            for (name, to) in [("root", "/"), ("cwd", "/"), ("ns/mnt", "mnt:[1]"), ("ns/pid", "pid:[1]")] {
                std::os::unix::fs::symlink(to, folder.join(name)).unwrap();
            }
        }

        fn table(&self, more: &str) -> Haproxy {
            let text = format!(
                "sites_dir = \"{0}/sites\"\n[[haproxy]]\npidfile = \"{0}/edge.pid\"\nmaster_socket = \"{0}/edge.sock\"\n{more}",
                self.folder.path().display()
            )
            .replace("DIR", self.folder.path().to_str().unwrap());
            Settings::parse(&text, &Overrides::default()).unwrap().haproxys.remove(0)
        }

        fn seen(&self, more: &str) -> Vec<&'static str> {
            let system = System { proc: self.path("proc"), ..System::host() };
            in_sight(&system, &self.table(more)).unwrap().into_iter().map(|process| process.why).collect()
        }
    }

    #[test]
    fn whose_a_process_is_shows_in_how_it_was_started() {
        let host = Host::new();
        let lab = "[[haproxy]]\nname = \"lab\"\npidfile = \"DIR/lab.pid\"\nunit = \"lab\"\nruntime_socket = \"DIR/lab.sock\"\n";
        for (arguments, unit, more, seen) in [
            // Its own pidfile, socket or configuration, whatever else it loads.
            ("haproxy -W -p DIR/edge.pid -f DIR/not.cfg", "", "", Some("was started with this pidfile")),
            ("haproxy -W -p DIR/./edge.pid -f DIR/not.cfg", "", "", Some("was started with this pidfile")),
            (
                "haproxy -W -S DIR/edge.sock,mode,600 -f DIR/not.cfg",
                "",
                "",
                Some("was started with this master socket"),
            ),
            (
                "haproxy -W -f DIR/not.cfg",
                "",
                "config = [\"DIR/not.cfg\"]",
                Some("was started with this configuration file"),
            ),
            ("haproxy -W -f DIR/not.cfg", "haproxy.service", "", Some("belongs to this unit")),
            // Nothing of its own, but the directory.
            ("haproxy -W -f DIR/loads.cfg", "", "", Some("may load this directory")),
            ("haproxy -W -f DIR/by-link.cfg -p DIR/x.pid", "", "", Some("may load this directory")),
            ("haproxy -W -f DIR/by-base.cfg -p DIR/x.pid", "lb.service", "", Some("may load this directory")),
            ("haproxy -W -f DIR/by-list.cfg -p DIR/x.pid", "", "", Some("may load this directory")),
            ("haproxy -W -f DIR/missing.cfg", "", "", Some("has a configuration that can't be read")),
            ("", "", "", Some("is about to execute something")),
            // Somebody else's.
            ("haproxy -W -f DIR/not.cfg", "", "", None),
            ("haproxy -W -f DIR/missing.cfg -p DIR/x.pid", "", "", None),
            ("haproxy -W -f DIR/loads.cfg -p DIR/lab.pid", "", lab, None),
            ("haproxy -W -f DIR/loads.cfg -S DIR/lab.sock", "", lab, None),
            ("haproxy -W -f DIR/loads.cfg", "lab.service", lab, None),
            ("haproxy_exporter --web.listen=:9101", "", "", None),
        ] {
            let words: Vec<&str> = arguments.split(' ').filter(|word| !word.is_empty()).collect();
            host.process(77, "haproxy", &words, unit);
            assert_eq!(host.seen(more), seen.into_iter().collect::<Vec<_>>(), "{arguments} {unit} {more}");
        }
        host.process(77, "nginx", &["nginx", "-p", "DIR/edge.pid", "-f", "DIR/loads.cfg"], "");
        assert_eq!(host.seen(""), [""; 0]);
    }

    /// By whatever spelling of the settings or of its arguments.
    #[test]
    fn what_is_seen_of_one_is_what_it_is_found_by() {
        let host = Host::new();
        for (arguments, unit, more) in [
            ("haproxy -W -f DIR/not.cfg", "edge.service", "unit = \"edge\"\n"),
            ("haproxy -W -f DIR/not.cfg", "edge.service", "unit = \"edge.service\"\n"),
            ("haproxy -W -S unix@DIR/edge.sock,level,admin -f DIR/not.cfg", "", ""),
            ("haproxy -W -S DIR/edge.sock -f DIR/not.cfg", "", ""),
            ("haproxy -W -p DIR/edge.pid -f DIR/not.cfg", "", ""),
        ] {
            host.process(78, "haproxy", &["haproxy", "-W", "-f", "DIR/not.cfg"], "other.service");
            host.process(77, "haproxy", &arguments.split(' ').collect::<Vec<_>>(), unit);
            assert_eq!(host.seen(more).len(), 1, "{arguments} {more}");
            let system = System { proc: host.path("proc"), ..System::host() };
            let found = Started::find(&system, &host.table(more)).unwrap();
            assert_eq!((found.pid, found.is_surely_this), (77, true), "{arguments} {more}");
        }
    }

    #[test]
    fn where_processes_are_hidden_nobody_knows() {
        let nothing = tempfile::tempdir().unwrap();
        let system = System { proc: nothing.path().into(), ..System::host() };
        assert!(in_sight(&system, &Host::new().table("")).is_err());
    }
}
