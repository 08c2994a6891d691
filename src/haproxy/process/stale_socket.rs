//! Whether a socket that refuses connections may come back: a master that re-executes itself refuses them for a
//! moment, a dead one's socket for good.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::config::Address;
use crate::haproxy::process::arguments::socket_path;
use crate::sys::procfs::Proc;
use crate::sys::system::System;

/// What procfs calls the namespace of processes that the kernel starts with (`PROC_PID_INIT_INO`).
const FIRST_NAMESPACE: &str = "pid:[4026531836]";

/// Whether it is certain that no running master is this socket's: every process is ours to see, and none was started
/// with it (`-S`).
#[must_use]
pub(crate) fn is_nobodys(system: &System, address: &Address) -> bool {
    let Address::Unix(socket) = address else { return false };
    let proc = Proc::new(system);
    let (Some(name), Some(place), Some(all)) = (socket.file_name(), resolved(socket), proc.all()) else {
        return false;
    };
    let may_have_it = |pid: i32| {
        let arguments = proc.arguments(pid).unwrap_or_default();
        let may_name = |argument: &OsString| match path_in(argument, name) {
            Some(path) if path.is_absolute() && proc.sees_our_files(pid) => {
                resolved(path).is_none_or(|other| other == place)
            }
            Some(_) => true,
            None => false,
        };
        // One that executes itself anew has none for a moment; the kernel's own never have, nor a program.
        arguments.iter().any(may_name) || (arguments.is_empty() && proc.executable(pid).is_ok())
    };
    sees_all(&proc) && !all.into_iter().any(may_have_it)
}

/// Whoever is in the first namespace and is shown the arguments of its first process (`hidepid`) is shown all of them.
fn sees_all(proc: &Proc) -> bool {
    fs::read_link(proc.own("ns/pid")).is_ok_and(|own| own == Path::new(FIRST_NAMESPACE))
        && proc.arguments(1).is_ok_and(|arguments| !arguments.is_empty())
}

/// The path in an argument that has this name in it: `/run/haproxy-master.sock,mode,600`, `unix@master.sock`.
fn path_in<'a>(argument: &'a OsStr, name: &OsStr) -> Option<&'a Path> {
    let bytes = argument.as_bytes();
    bytes.windows(name.len()).find(|part| *part == name.as_bytes())?;
    socket_path(argument)
}

/// Without the links of its directory.
fn resolved(path: &Path) -> Option<PathBuf> {
    Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn an_argument_names_a_socket_in_many_ways() {
        for (argument, expected) in [
            ("/run/m.sock", Some("/run/m.sock")),
            ("/run/m.sock,mode,600", Some("/run/m.sock")),
            ("unix@/run/m.sock", Some("/run/m.sock")),
            ("m.sock", Some("m.sock")),
            ("haproxy -S /run/m.sock", Some("haproxy -S /run/m.sock")),
            ("/run/m2.sock", None),
            ("-W", None),
            ("", None),
        ] {
            let path = path_in(OsStr::new(argument), OsStr::new("m.sock"));
            assert_eq!(path, expected.map(Path::new), "{argument}");
        }
    }

    #[test]
    fn a_socket_is_somebodys_while_a_process_has_it_among_its_arguments() {
        let system = System::host();
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("of-this-test.sock");
        let address = Address::Unix(socket.clone());
        let blind = System { proc: folder.path().into(), ..System::host() };
        assert!(!is_nobodys(&blind, &address), "nothing is seen");
        assert!(!is_nobodys(&system, &Address::Tcp("127.0.0.1:1".into())), "it may be on another host");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path(), &link).unwrap();
        for argument in [socket, link.join("of-this-test.sock"), "of-this-test.sock".into()] {
            let mut holder = Command::new("/bin/sh")
                .args(["-c", "read line", "-S"])
                .arg(&argument)
                .stdin(Stdio::piped())
                .spawn()
                .unwrap();
            let nobodys = is_nobodys(&system, &address);
            holder.kill().unwrap();
            holder.wait().unwrap();
            assert!(!nobodys, "{}", argument.display());
        }
        // In a container there may be others that we don't see; and another test's program may be between arguments.
        let begin = Instant::now();
        while sees_all(&Proc::new(&system)) && !is_nobodys(&system, &address) {
            assert!(begin.elapsed() < Duration::from_secs(30));
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
