//! Processes, as procfs shows them.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use std::{fs, io};

use rustix::process::Signal;

use crate::sys::system::System;

/// A worker process: its id and when it started, in the kernel's clock ticks since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerProcess {
    /// The process id.
    pub pid: i32,
    /// Its start time.
    pub started: u64,
}

/// procfs.
#[derive(Debug, Clone)]
pub(crate) struct Proc {
    root: PathBuf,
}

/// The fields of `stat` that matter here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) comm: String,
    pub(crate) state: char,
    pub(crate) parent: i32,
    pub(crate) started: u64,
    /// Where the stack began: a number of the executed image's own, which a forked child keeps; 0 where we may
    /// not see it.
    pub(crate) stack: u64,
}

/// What SIGUSR2 does to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Disposition {
    pub(crate) blocked: bool,
    pub(crate) ignored: bool,
    pub(crate) caught: bool,
}

/// One executed image of a process, or of the process that it was forked from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image {
    stack: u64,
    /// Tells images apart where addresses aren't random or not ours to see: each reload has other arguments.
    arguments: Vec<u8>,
}

impl Proc {
    pub(crate) fn new(system: &System) -> Self {
        Self { root: system.proc.clone() }
    }

    pub(crate) fn path(&self, pid: i32, name: &str) -> PathBuf {
        self.root.join(pid.to_string()).join(name)
    }

    pub(crate) fn own(&self, name: &str) -> PathBuf {
        self.root.join("self").join(name)
    }

    pub(crate) fn stat(&self, pid: i32) -> io::Result<Stat> {
        let bytes = fs::read(self.path(pid, "stat"))?;
        parse_stat(&String::from_utf8_lossy(&bytes)).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    pub(crate) fn usr2(&self, pid: i32) -> io::Result<Disposition> {
        parse_usr2(&self.status(pid)?).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    pub(crate) fn status(&self, pid: i32) -> io::Result<String> {
        let bytes = fs::read(self.path(pid, "status"))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    pub(crate) fn arguments(&self, pid: i32) -> io::Result<Vec<OsString>> {
        Ok(split_nul(fs::read(self.path(pid, "cmdline"))?))
    }

    pub(crate) fn environment(&self, pid: i32) -> io::Result<Vec<OsString>> {
        Ok(split_nul(fs::read(self.path(pid, "environ"))?))
    }

    /// What a process executes; `None` in the moment in which it executes something else.
    pub(crate) fn image(&self, pid: i32) -> io::Result<Option<Image>> {
        let stack = self.stat(pid)?.stack;
        let arguments = fs::read(self.path(pid, "cmdline"))?;
        let whole = !arguments.is_empty() && self.stat(pid)?.stack == stack;
        Ok(whole.then_some(Image { stack, arguments }))
    }

    /// The executable's path, also where it was replaced since.
    pub(crate) fn executable(&self, pid: i32) -> io::Result<PathBuf> {
        let bytes = fs::read_link(self.path(pid, "exe"))?.into_os_string().into_vec();
        let bytes = bytes.strip_suffix(b" (deleted)").map(<[u8]>::to_vec).unwrap_or(bytes);
        Ok(PathBuf::from(OsString::from_vec(bytes)))
    }

    pub(crate) fn workers(&self, master: i32) -> BTreeSet<WorkerProcess> {
        let Ok(stat) = self.stat(master) else { return BTreeSet::new() };
        self.children(master)
            .into_iter()
            .filter(|&child| self.same_program(master, &stat, child))
            .filter_map(|pid| {
                let stat = self.stat(pid).ok().filter(|stat| stat.parent == master && !stat.is_zombie())?;
                Some(WorkerProcess { pid, started: stat.started })
            })
            .collect()
    }

    /// When a HAProxy's process started, to a clock tick; `None`: no such process is in sight.
    pub(crate) fn started_at(&self, pid: u32) -> Option<SystemTime> {
        let pid = i32::try_from(pid).ok()?;
        let stat = self.haproxy(pid)?;
        let ticks = rustix::param::clock_ticks_per_second();
        let started = Duration::from_millis(stat.started.checked_mul(1000)?.checked_div(ticks)?);
        booted_at()?.checked_add(started)
    }

    pub(crate) fn is_haproxy(&self, pid: i32, stat: &Stat) -> bool {
        // This program's name begins so, too.
        let is_ours = |rest: &[u8]| matches!(rest, [b'-' | b'_', b'c', b'e', b'r', b't', b's', ..]);
        let named = |name: &OsStr| {
            name.as_encoded_bytes().strip_prefix(b"haproxy").is_some_and(|rest| !is_ours(rest))
        };
        named(OsStr::new(&stat.comm))
            || self.executable(pid).is_ok_and(|exe| exe.file_name().is_some_and(named))
    }

    /// Its line in procfs, where it is a HAProxy's process that hasn't ended.
    pub(crate) fn haproxy(&self, pid: i32) -> Option<Stat> {
        self.stat(pid).ok().filter(|stat| !stat.is_zombie() && self.is_haproxy(pid, stat))
    }

    /// Whether `other` executes the same program as `pid`.
    pub(crate) fn same_program(&self, pid: i32, stat: &Stat, other: i32) -> bool {
        if other <= 0 {
            return false;
        }
        match (self.executable(pid), self.executable(other)) {
            (Ok(one), Ok(two)) => one == two,
            _ => self.stat(other).is_ok_and(|other| other.comm == stat.comm),
        }
    }

    pub(crate) fn children(&self, pid: i32) -> Vec<i32> {
        if let Ok(text) = fs::read_to_string(self.path(pid, &format!("task/{pid}/children"))) {
            return text.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect();
        }
        // A kernel without that file.
        let all = self.all().unwrap_or_default().into_iter();
        all.filter(|&other| self.stat(other).is_ok_and(|stat| stat.parent == pid)).collect()
    }

    /// Every process there is.
    pub(crate) fn all(&self) -> Option<Vec<i32>> {
        let entries = fs::read_dir(&self.root).ok()?;
        Some(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
    }

    /// The inodes of the sockets that a process has open.
    pub(crate) fn sockets(&self, pid: i32) -> io::Result<HashSet<u64>> {
        let mut inodes = HashSet::new();
        for entry in fs::read_dir(self.path(pid, "fd"))? {
            // A descriptor may be closed meanwhile.
            let Ok(link) = entry.and_then(|entry| fs::read_link(entry.path())) else { continue };
            let name = link.to_string_lossy();
            let inode: Option<u64> =
                name.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')?.parse().ok());
            inodes.extend(inode);
        }
        Ok(inodes)
    }

    /// Whether a process means the same files as we do: it is in no container and no chroot.
    pub(crate) fn sees_our_files(&self, pid: i32) -> bool {
        self.shares_mounts(pid) && self.has_no_chroot(pid)
    }

    /// Whether a process is in our mount namespace.
    pub(crate) fn shares_mounts(&self, pid: i32) -> bool {
        let link = |path: PathBuf| fs::read_link(path).ok();
        link(self.own("ns/mnt")).is_some_and(|ours| link(self.path(pid, "ns/mnt")) == Some(ours))
    }

    /// Whether the root directory of a process is its namespace's own.
    pub(crate) fn has_no_chroot(&self, pid: i32) -> bool {
        fs::read_link(self.path(pid, "root")).is_ok_and(|root| root == Path::new("/"))
    }

    /// Whether a process has this UNIX socket open, whatever links its configuration spells its folder with.
    pub(crate) fn has_open(&self, pid: i32, path: &Path) -> bool {
        let Ok(table) = fs::read(self.path(pid, "net/unix")) else { return false };
        let folder = |path: &Path| path.parent().and_then(|folder| folder.canonicalize().ok());
        let ours = folder(path);
        let is_it = |bound: &Path| bound == path || ours.is_some() && folder(bound) == ours;
        let named =
            parse_unix(&String::from_utf8_lossy(&table), path.file_name().unwrap_or_default(), &is_it);
        !named.is_empty() && self.sockets(pid).is_ok_and(|own| named.iter().any(|inode| own.contains(inode)))
    }

    /// The same, and the process means this very file by the path: one in a container may have a socket of the same name.
    pub(crate) fn surely_has_open(&self, pid: i32, path: &Path) -> bool {
        self.has_open(pid, path) && self.means_our(pid, path)
    }

    /// Whether a process means the same file by this path as we do.
    pub(crate) fn means_our(&self, pid: i32, path: &Path) -> bool {
        let inside = || self.path(pid, "root").join(path.strip_prefix("/").unwrap_or(path));
        self.shares_mounts(pid) || same_file(&inside(), path)
    }

    /// Whether a process is in our namespace of processes; where that can't be seen, it may be.
    pub(crate) fn is_in_our_namespace(&self, pid: i32) -> bool {
        let link = |path: PathBuf| fs::read_link(path).ok();
        match (link(self.own("ns/pid")), link(self.path(pid, "ns/pid"))) {
            (Some(ours), Some(its)) => ours == its,
            _ => true,
        }
    }

    /// Whether a process is in this unit's control group.
    pub(crate) fn is_in_unit(&self, pid: i32, unit: &str) -> bool {
        self.control_groups(pid).lines().any(|line| line.rsplit('/').any(|part| part == unit))
    }

    /// The control groups of a process, a line for each hierarchy; empty where they can't be seen.
    pub(crate) fn control_groups(&self, pid: i32) -> String {
        fs::read_to_string(self.path(pid, "cgroup")).unwrap_or_default()
    }

    /// The inodes of the TCP sockets that listen in the network namespace of a process.
    pub(crate) fn listening(&self, pid: i32) -> HashSet<u64> {
        self.listeners(pid).into_keys().collect()
    }

    /// Those of these sockets that a process has open.
    pub(crate) fn among(&self, pid: i32, all: &HashMap<u64, String>) -> HashMap<u64, String> {
        let own = self.sockets(pid).unwrap_or_default();
        all.iter().filter(|(inode, _)| own.contains(inode)).map(|(inode, at)| (*inode, at.clone())).collect()
    }

    /// The TCP sockets that listen in the network namespace of a process: their inodes, and the addresses as the kernel writes
    /// them.
    pub(crate) fn listeners(&self, pid: i32) -> HashMap<u64, String> {
        ["net/tcp", "net/tcp6"]
            .iter()
            .filter_map(|table| fs::read_to_string(self.path(pid, table)).ok())
            .flat_map(|table| parse_listening(&table))
            .collect()
    }
}

/// When this machine was started. Between two clocks another process may run: the closest of a few looks counts, and none is
/// later than it was.
fn booted_at() -> Option<SystemTime> {
    const LOOKS: usize = 4;
    let look = |_| {
        let before = SystemTime::now();
        let since_boot =
            Duration::try_from(rustix::time::clock_gettime(rustix::time::ClockId::Boottime)).ok()?;
        before.checked_sub(since_boot)
    };
    (0..LOOKS).filter_map(look).max()
}

impl Stat {
    pub(crate) fn is_zombie(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }
}

impl Disposition {
    /// Whether the process listens for it: a master that isn't busy with loading.
    pub(crate) fn is_ready(self) -> bool {
        self.caught && !self.blocked
    }
}

fn split_nul(bytes: Vec<u8>) -> Vec<OsString> {
    let bytes = bytes.strip_suffix(b"\0").map(<[u8]>::to_vec).unwrap_or(bytes);
    if bytes.is_empty() {
        return Vec::new();
    }
    bytes.split(|&byte| byte == 0).map(|word| OsString::from_vec(word.to_vec())).collect()
}

/// `PID (COMM) STATE PPID ...`: the name may hold anything, parentheses among it.
pub(crate) fn parse_stat(text: &str) -> Option<Stat> {
    let (before, after) = text.rsplit_once(')')?;
    let fields: Vec<&str> = after.split_ascii_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok(); // numbered as in proc(5)
    Some(Stat {
        comm: before.split_once('(')?.1.to_owned(),
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        started: number(22)?,
        stack: number(28)?,
    })
}

pub(crate) fn parse_usr2(status: &str) -> Option<Disposition> {
    let has = |key: &str| {
        let mask = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        let mask = u64::from_str_radix(mask.trim(), 16).ok()?;
        Some(mask >> (Signal::USR2.as_raw() - 1) & 1 == 1)
    };
    Some(Disposition { blocked: has("SigBlk")?, ignored: has("SigIgn")?, caught: has("SigCgt")? })
}

/// `sl local remote st queues tr retrnsmt uid timeout inode`; state 0A is LISTEN.
fn parse_listening(table: &str) -> Vec<(u64, String)> {
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let [_, local, _, "0A", ..] = fields[..] else { return None };
            Some((fields.get(9)?.parse().ok()?, local.to_owned()))
        })
        .collect()
}

/// `num refcount protocol flags type st inode path`: the sockets of this path. HAProxy binds under a name with an
/// ending of its own and renames it: the kernel goes on showing that one.
fn parse_unix(table: &str, name: &OsStr, is_it: &dyn Fn(&Path) -> bool) -> Vec<u64> {
    let name = name.to_string_lossy();
    let is_bound = |shown: &str| {
        let (folder, last) = shown.rsplit_once('/')?;
        let rest = last.strip_prefix(&*name)?;
        let ending = rest.strip_prefix('.').and_then(|rest| rest.strip_suffix(".tmp"));
        let is_own =
            ending.is_some_and(|pid| !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit()));
        let is_named = rest.is_empty() || is_own;
        (is_named && is_it(Path::new(&format!("{folder}/{name}")))).then_some(())
    };
    let inode = |line: &str| {
        let mut rest = line;
        for _ in 0..6 {
            rest = rest.trim_start().split_once(' ')?.1;
        }
        let (inode, shown) = rest.trim_start().split_once(' ')?;
        is_bound(shown).and_then(|()| inode.parse().ok())
    };
    table.lines().skip(1).filter_map(inode).collect()
}

/// Whether two names are of one file.
pub(crate) fn same_file(one: &Path, two: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (fs::metadata(one), fs::metadata(two)) {
        (Ok(one), Ok(two)) => (one.dev(), one.ino()) == (two.dev(), two.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let mut fields: Vec<String> = (0..50).map(|n| n.to_string()).collect();
        fields[0] = "S".into();
        let stat = parse_stat(&format!("12 (ha) pro (x)) {}\n", fields.join(" "))).unwrap();
        assert_eq!(stat, Stat { comm: "ha) pro (x)".into(), state: 'S', parent: 1, started: 19, stack: 25 });
        assert_eq!(parse_stat("12 haproxy S"), None);
    }

    #[test]
    fn our_own_stat_is_read() {
        let proc = Proc { root: "/proc".into() };
        let own = i32::try_from(std::process::id()).unwrap();
        let stat = proc.stat(own).unwrap();
        assert!(stat.stack != 0 && stat.started > 0 && !stat.is_zombie());
        assert!(!proc.usr2(own).unwrap().caught);
        assert!(proc.image(own).unwrap().is_some());
    }

    #[test]
    fn masks_are_read_at_the_bit_of_sigusr2() {
        let status = |blk, ign, cgt| format!("Name:\tx\nSigBlk:\t{blk}\nSigIgn:\t{ign}\nSigCgt:\t{cgt}\n");
        let zero = "0000000000000000";
        let usr2 = parse_usr2(&status(zero, "0000000000000800", "0000000000004201")).unwrap();
        assert_eq!(usr2, Disposition { blocked: false, ignored: true, caught: false });
        assert_eq!(parse_usr2("Name:\tx\n"), None);
    }

    #[test]
    fn only_listening_sockets_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            \x20  0: 0100007F:C5AB 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2104 1 0\n\
            \x20  1: 0100007F:C5AB 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 2105 1 0\n";
        assert_eq!(parse_listening(table), [(2104, "0100007F:C5AB".to_owned())]);
    }

    #[test]
    fn a_unix_socket_is_known_by_the_name_that_it_was_bound_to() {
        let table = "Num       RefCount Protocol Flags    Type St Inode Path\n\
            0000: 00000002 00000000 00010000 0001 01 11 /run/a.sock\n\
            0000: 00000002 00000000 00010000 0001 01 12 /run/a.sock.1234.tmp\n\
            0000: 00000002 00000000 00010000 0001 01 13 /run/a.sock.old.tmp\n\
            0000: 00000002 00000000 00010000 0001 01 14 /run/a.socket\n\
            0000: 00000002 00000000 00010000 0001 01 15\n\
            0000: 00000002 00000000 00010000 0001 01 16 /srv/a b/a.sock.5.tmp\n\
            0000: 00000002 00000000 00010000 0001 01 17 @a.sock\n";
        let of = |folder: &str| {
            parse_unix(table, OsStr::new("a.sock"), &|path| path.parent() == Some(Path::new(folder)))
        };
        assert_eq!((of("/run"), of("/srv/a b")), (vec![11, 12], vec![16]));
    }
}
