//! The table for a HAProxy that has none: what it is known by, and the commands that add it.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use super::Tableless;
use crate::config::{DEFAULT_FILE, Marks, Settings};
use crate::haproxy::process::arguments::master_socket;
use crate::haproxy::process::started::Started;
use crate::host_setup::settings_file::quoted;
use crate::serving::configuration::Configuration;
use crate::sys::escape::shell_word;
use crate::sys::procfs::Proc;

/// A HAProxy with the table that it needs, of this name, as far as that can be seen.
pub(super) fn proposed(
    proc: &Proc,
    started: &Started,
    configuration: &Configuration,
    addresses: Vec<String>,
    (name, tables): (&str, &[Marks]),
) -> Tableless {
    let pid = started.pid;
    if started.root.is_some() {
        return Tableless { pid, addresses, table: None, option: None, after: None };
    }
    let absolute = |path: &Path| started.folder.join(path);
    let pidfile =
        started.file_of("-p").or_else(|| Some(absolute(Path::new(configuration.pidfile.as_ref()?))));
    let master = master_socket(&started.arguments).map(absolute);
    let admin = configuration.admin_sockets.iter().map(|socket| socket.trim_start_matches("unix@"));
    let admin = admin.map(PathBuf::from).find(|socket| socket.is_absolute());
    let mut table = vec!["[[haproxy]]".to_owned(), format!("name = {}", quoted(name))];
    let found = [
        ("unit", unit(proc, pid).map(PathBuf::from)),
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
    Tableless { pid, addresses, table: Some(table), option, after: None }
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

impl Tableless {
    /// What adds its table to a settings file that holds this; `None`: only the operator knows.
    #[must_use]
    pub fn command(&self, file: &Path, text: &[u8]) -> Option<String> {
        let has_table =
            text.split(|&byte| byte == b'\n').any(|line| line.trim_ascii().starts_with(b"[[haproxy]]"));
        // Without any there is one with the defaults; the first table takes its place.
        let first = if has_table { None } else { Some("[[haproxy]]") };
        let lines = self.table.as_ref()?.iter().map(String::as_str);
        let words = std::iter::once("").chain(first).chain(lines).map(|line| shell_word(OsStr::new(line)));
        let words: Vec<String> = words.collect();
        Some(format!("printf '%s\\n' {} >> {}", words.join(" "), shell_word(file.as_os_str())))
    }

    /// What to do, with commands that can be pasted.
    #[must_use]
    pub fn advice(&self, settings: &Settings) -> String {
        if let Some(other) = self.after {
            return format!("add a [[haproxy]] table for the HAProxy of process {other} first");
        }
        let file = settings.file.as_deref().unwrap_or(Path::new(DEFAULT_FILE));
        let Some(command) = self.command(file, &fs::read(file).unwrap_or_default()) else {
            return "add a [[haproxy]] table for it (CONTAINERS AND CHROOTS in haproxy-certs(7))".to_owned();
        };
        let start = self.option.as_ref().map(|option| format!("start it with {option} besides; then "));
        format!("{}run: {command}; then run: haproxy-certs assemble", start.unwrap_or_default())
    }
}
