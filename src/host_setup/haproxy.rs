//! One HAProxy: its configuration, and its sockets.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::challenge;
use crate::config::{Haproxy, Method, Settings};
use crate::haproxy::cli::replies::quoted;
use crate::haproxy::cli::socket::SocketError;
use crate::haproxy::cli::worker::{Trouble, Worker};
use crate::host_setup::configuration::Directives;
use crate::host_setup::finding::Finding;
use crate::status::severity::Severity;
use crate::sys::escape::{escaped, escaped_path};
use crate::sys::failure::io_cause;
use crate::sys::system::System;

/// Where distributions put it.
const USUAL: &str = "/etc/haproxy/haproxy.cfg";

/// How long a socket may take.
const SOCKET: Duration = Duration::from_secs(3);

pub(crate) fn findings(
    settings: &Settings,
    system: &System,
    haproxy: &Haproxy,
    is_down: bool,
) -> Vec<Finding> {
    let mut findings = match read(system, haproxy) {
        Ok(configuration) => {
            let mut findings = configured(haproxy, &configuration);
            findings.push(challenge::finding(settings, system, &configuration));
            findings
        }
        Err(why) => vec![Finding::unknown("configuration", format!("{}: {why}", escaped(&haproxy.name)))],
    };
    findings.extend(sockets(haproxy, is_down));
    findings
}

/// Reads the configuration: the files that are set, else those of the running master, else the usual one.
fn read(system: &System, haproxy: &Haproxy) -> Result<Directives, String> {
    let mut files = haproxy.config.clone();
    if files.is_empty() {
        files = running(system, haproxy)?.unwrap_or_else(|| vec![PathBuf::from(USUAL)]);
    }
    let mut configuration = Directives::default();
    for file in files.iter().flat_map(|file| files_of(file)) {
        let text = std::fs::read(&file)
            .map_err(|e| format!("cannot read {}: {}", escaped_path(&file), io_cause(&e)))?;
        configuration.read(&escaped_path(&file).to_string(), &String::from_utf8_lossy(&text));
    }
    Ok(configuration)
}

/// A directory stands for the `.cfg` files in it, in byte order.
fn files_of(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(path) else { return vec![path.to_owned()] };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension() == Some(OsStr::new("cfg")));
    files.sort();
    files
}

/// The files that the process of the pidfile was started with; `None`: there is none.
fn running(system: &System, haproxy: &Haproxy) -> Result<Option<Vec<PathBuf>>, String> {
    match crate::haproxy::process::pidfile::read(&haproxy.pidfile) {
        Ok(pid) => Ok(pid.and_then(|pid| started_with(system, pid))),
        // Another one than the usual file may be in use.
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
            Err(format!("cannot read {}: {}", escaped_path(&haproxy.pidfile), io_cause(&e)))
        }
        Err(_) => Ok(None),
    }
}

fn started_with(system: &System, pid: i32) -> Option<Vec<PathBuf>> {
    let process = system.proc.join(pid.to_string());
    let folder = std::fs::read_link(process.join("cwd")).unwrap_or_else(|_| "/".into());
    let line = std::fs::read(process.join("cmdline")).ok()?;
    let words: Vec<OsString> =
        line.split(|&byte| byte == 0).map(|word| OsString::from_vec(word.to_vec())).collect();
    let program = Path::new(words.first()?).file_name()?.to_string_lossy().into_owned();
    if !program.contains("haproxy") {
        return None;
    }
    let behind = words.iter().zip(words.iter().skip(1)).filter(|(option, _)| *option == "-f");
    let files: Vec<PathBuf> = behind.map(|(_, file)| folder.join(file)).collect();
    Some(files).filter(|files| !files.is_empty())
}

/// What the configuration says. Pure.
fn configured(haproxy: &Haproxy, configuration: &Directives) -> Vec<Finding> {
    let directory = haproxy.sites_dir.as_str();
    let shown = escaped(directory);
    let mut findings = Vec::new();
    let binds: Vec<_> = configuration.loading(directory).collect();
    if binds.is_empty() {
        findings.push(Finding {
            severity: Severity::Critical,
            ..Finding::wrong(
                "crt",
                format!(
                    "no bind line of {} loads {shown} ({})",
                    escaped(&haproxy.name),
                    configuration.files.join(", ")
                ),
                &[&format!("bind :443 ssl crt {} crt {shown} strict-sni", escaped(&haproxy.host_file))],
            )
        });
    }
    for bind in binds {
        let place = format!("{} ({})", escaped(&bind.section), bind.at);
        findings.push(Finding::fine("crt", format!("{place} loads {shown}")));
        if bind.may_be_empty(directory) {
            findings.push(Finding::fine("empty", format!("{place} loads even if {shown} is empty")));
        } else {
            findings.push(Finding::wrong(
                "empty",
                format!("{place} keeps HAProxy from starting while {shown} is empty"),
                &[
                    &format!("bind ... ssl crt {} crt {shown}", escaped(&haproxy.host_file)),
                    "bind ... strict-sni",
                ],
            ));
        }
    }
    findings
}

/// Which sockets answer, and at which level.
fn sockets(haproxy: &Haproxy, is_down: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (mut answered, mut forbidden) = (false, false);
    for worker in Worker::ways(haproxy) {
        let address = worker.address();
        let what = if worker.is_through_master() { "master_socket" } else { "runtime_socket" };
        match worker.command("show cli level", Instant::now() + SOCKET) {
            Ok(level) if level.trim() == "admin" => {
                answered = true;
                findings.push(Finding::fine("socket", format!("{what} {address} answers at level admin")));
            }
            Ok(level) => {
                answered = true;
                findings.push(Finding {
                    severity: if level.trim() == "operator" { Severity::Ok } else { Severity::Warning },
                    ..Finding::wrong(
                        "socket",
                        format!(
                            "{what} {address} answers at level {}: certificates can't be updated through it",
                            quoted(&level)
                        ),
                        &[&format!("stats socket {address} mode 660 level admin")],
                    )
                });
            }
            Err(Trouble::Socket(SocketError::Denied)) => {
                forbidden = true;
                findings.push(Finding::unknown("socket", format!("{what} {address}: permission denied")));
            }
            // Worth a warning where no other answers: below.
            Err(trouble) => findings.push(Finding::unknown("socket", format!("{what} {address}: {trouble}"))),
        }
    }
    if !answered && !forbidden && !is_down && haproxy.method != Method::None {
        findings.push(Finding::wrong(
            "socket",
            format!(
                "no socket of {} answers: what it serves can't be seen or updated",
                escaped(&haproxy.name)
            ),
            &[
                "stats socket /run/haproxy/admin.sock mode 660 level admin",
                "runtime_socket = \"/run/haproxy/admin.sock\"",
            ],
        ));
    }
    findings
}
