//! The table for a HAProxy that has none: what it is known by, and the commands that add it.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::config::Marks;
use crate::haproxy::process::arguments::master_socket;
use crate::haproxy::process::started::Started;
use crate::host_setup::settings_file::quoted;
use crate::serving::configuration::Configuration;
use crate::sys::escape::shell_word;
use crate::sys::procfs::Proc;

/// The table that a HAProxy needs.
#[derive(Debug, Default)]
pub(super) struct Proposed {
    /// Line by line; `None`: it has files of its own, as in a container.
    pub(super) lines: Option<Vec<String>>,
    /// What it has to be started with so that the table leads to it.
    pub(super) option: Option<String>,
}

/// The table of this name that leads to a HAProxy and, as far as that can be seen, to no other: what one of `tables` has isn't
/// in it.
pub(super) fn proposed(
    proc: &Proc,
    started: &Started,
    configuration: &Configuration,
    name: &str,
    tables: &[Marks],
) -> Proposed {
    if started.root.is_some() {
        return Proposed::default();
    }
    let absolute = |path: &Path| started.folder.join(path);
    let pidfile =
        started.file_of("-p").or_else(|| Some(absolute(Path::new(configuration.pidfile.as_ref()?))));
    let master = master_socket(&started.arguments).map(absolute);
    let admin = configuration.admin_sockets.iter().map(|socket| socket.trim_start_matches("unix@"));
    let admin = admin.map(PathBuf::from).find(|socket| socket.is_absolute());
    let mut table = vec!["[[haproxy]]".to_owned(), format!("name = {}", quoted(name))];
    let found = [
        ("unit", unit(proc, started.pid).map(PathBuf::from)),
        ("pidfile", pidfile),
        ("master_socket", master),
        ("runtime_socket", admin),
    ];
    let keys = found.into_iter().filter_map(|(key, value)| Some((key, value?.to_str()?.to_owned())));
    // What another table has is taken for that one's, and of a variable nobody here knows the value.
    let is_free =
        |(_, value): &(&str, String)| !value.contains('$') && !tables.iter().any(|marks| marks.have(value));
    let mut keys: Vec<(&str, String)> = keys.filter(is_free).collect();
    let mut option = None;
    // A stats socket alone makes nobody reload.
    if keys.iter().all(|(key, _)| *key == "runtime_socket") {
        let place = format!("/run/haproxy-{name}.pid");
        option = Some(format!("-p {}", shell_word(OsStr::new(&place))));
        keys.insert(0, ("pidfile", place));
    }
    table.extend(keys.into_iter().map(|(key, value)| format!("{key} = {}", quoted(&value))));
    Proposed { lines: Some(table), option }
}

/// A name for its table: that of its configuration file, where no other table has it.
pub(super) fn name(started: &Started, names: &BTreeSet<String>) -> String {
    let stem = started.files.first().and_then(|file| file.file_stem()?.to_str());
    let is_plain =
        |name: &&str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    let first = stem.filter(is_plain).filter(|name| !name.is_empty()).unwrap_or("haproxy").to_owned();
    let more = (2..).map(|number| format!("{first}-{number}"));
    std::iter::once(first.clone()).chain(more).find(|name| !names.contains(name)).unwrap_or(first)
}

/// The systemd service that a process belongs to.
fn unit(proc: &Proc, pid: i32) -> Option<String> {
    let groups = proc.control_groups(pid);
    let found = groups.lines().filter_map(|line| line.rsplit('/').next());
    found.filter(|unit| unit.ends_with(".service") && unit.contains("haproxy")).map(str::to_owned).next()
}
