//! One HAProxy: its configuration, and its sockets.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::{adopt, challenge, settings_file};
use crate::config::{Haproxy, Method, Settings};
use crate::haproxy::cli::replies::quoted;
use crate::haproxy::cli::socket::SocketError;
use crate::haproxy::cli::worker::{Trouble, Worker};
use crate::host_setup::bind_words::{loaded_now, what_to_add};
use crate::host_setup::finding::Finding;
use crate::host_setup::listeners::Directives;
use crate::serving::configuration::Configuration;
use crate::serving::contents;
use crate::serving::loads::{Bind, How, Identity, Load, Serving};
use crate::serving::one_by_one;
use crate::serving::reading::NoConfiguration;
use crate::serving::set_up;
use crate::status::severity::Severity;
use crate::sys::escape::{escaped, escaped_path, haproxy_word};
use crate::sys::failure::io_cause;
use crate::sys::system::System;

/// How long a socket may take.
const SOCKET: Duration = Duration::from_secs(3);

pub(crate) fn findings(
    settings: &Settings,
    system: &System,
    haproxy: &Haproxy,
    is_down: bool,
) -> Vec<Finding> {
    let mut folder = adopt::socket_folder(&Configuration::default());
    let mut findings = match read(system, haproxy) {
        Ok(configuration) => {
            let (configuration, serving) = configuration;
            folder = adopt::socket_folder(&configuration);
            let sites = contents::identity(&settings.sites_dir);
            let is_first = settings.haproxys.first().is_some_and(|first| first.name == haproxy.name);
            let adopted = if is_first { adopt::look(settings, system, false) } else { None };
            let adopted = adopted.map(|proposal| match &settings.file {
                Some(file) if file.exists() => {
                    format!("sites_dir = {}", settings_file::quoted(&proposal.sites_dir))
                }
                _ => "haproxy-certs init --write-config".to_owned(),
            });
            let has_host = settings.host_file.exists();
            let mut findings =
                configured(haproxy, &configuration, &serving, (sites, has_host), adopted.as_deref());
            findings.push(challenge::finding(settings, system, &Directives::of(&configuration)));
            findings
        }
        Err(why) => vec![Finding::unknown("configuration", format!("{}: {why}", escaped(&haproxy.name)))],
    };
    findings.extend(sockets(haproxy, folder, is_down));
    findings
}

/// Why it isn't known how HAProxy is set up.
#[derive(Debug, thiserror::Error)]
enum NotKnown {
    /// What says which HAProxy it is can't be read.
    #[error("cannot read {}: {}", escaped_path(.0), io_cause(.1))]
    Pidfile(PathBuf, io::Error),
    /// Its configuration isn't known.
    #[error("{0}")]
    Configuration(#[from] NoConfiguration),
}

/// Reads the configuration. Where the pidfile can't be read another file than the usual one may be in use.
fn read(system: &System, haproxy: &Haproxy) -> Result<(Configuration, Serving), NotKnown> {
    match crate::haproxy::process::pidfile::read(&haproxy.pidfile) {
        Err(e) if haproxy.config.is_empty() && e.kind() == io::ErrorKind::PermissionDenied => {
            Err(NotKnown::Pidfile(haproxy.pidfile.clone(), e))
        }
        _ => Ok(set_up::set_up(system, haproxy)?),
    }
}

/// What the configuration says. Pure. `sites`: which directory the sites directory is; `has_host`: whether the host certificate
/// is there; `adopted`: what makes the directory that is loaded already the sites directory.
fn configured(
    haproxy: &Haproxy,
    configuration: &Configuration,
    serving: &Serving,
    (sites, has_host): (Option<Identity>, bool),
    adopted: Option<&str>,
) -> Vec<Finding> {
    let directory = haproxy.sites_dir.as_str();
    let is_it = |load: &Load| serving.is_spelled(load, directory, sites);
    let binds: Vec<&Bind> = serving.binds.iter().filter(|bind| bind.loads.iter().any(is_it)).collect();
    if binds.is_empty() {
        return vec![not_loaded(haproxy, configuration, serving, sites, adopted)];
    }
    let mut findings = Vec::new();
    for bind in binds {
        let place = format!("{} ({})", escaped(&bind.section), bind.at);
        // As it stands there: another spelling than ours is said as it is.
        let spelled = bind.loads.iter().find(|load| is_it(load)).map_or(directory, |load| load.path.as_str());
        let (shown, word) = (escaped(spelled), haproxy_word(spelled));
        if bind.serves() {
            findings.push(Finding::fine("crt", format!("{place} loads {shown}")));
        } else if bind.ssl {
            let (fact, mend) = bind.silence();
            let fact = format!("{place} loads {shown}, but {fact}");
            findings.push(Finding::wrong("crt", fact, &[mend]));
        } else {
            let fact =
                format!("{place} loads {shown}, but has no ssl: it speaks no TLS, and presents nothing");
            let mend = format!("bind {} ssl crt {word}", escaped(&bind.addresses));
            findings.push(Finding::wrong("crt", fact, &[&mend]));
        }
        if bind.strict_sni || bind.loads.iter().any(|load| !is_it(load)) {
            findings.push(Finding::fine("empty", format!("{place} loads even if {shown} is empty")));
        } else {
            let with_host = format!("bind ... ssl crt {} crt {word}", haproxy_word(&haproxy.host_file));
            let ways = [with_host.as_str(), "bind ... strict-sni"];
            // A file that isn't there would keep it from starting, too.
            let ways = if has_host { &ways[..] } else { &ways[1..] };
            let fact = format!("{place} keeps HAProxy from starting while {shown} is empty");
            findings.push(Finding::wrong("empty", fact, ways));
        }
    }
    findings
}

/// No bind line loads the directory: its files may be named one by one.
fn not_loaded(
    haproxy: &Haproxy,
    configuration: &Configuration,
    serving: &Serving,
    sites: Option<Identity>,
    adopted: Option<&str>,
) -> Finding {
    let (name, shown) = (escaped(&haproxy.name), escaped(&haproxy.sites_dir));
    let example = one_by_one::example(serving, sites, &haproxy.sites_dir);
    let word = haproxy_word(&haproxy.sites_dir);
    if let Some(example) = &example {
        let is_on_bind = matches!(example.how, How::File | How::Default) && example.store.is_none();
        let needed = if is_on_bind {
            format!(
                "a new file needs a word of its own there; \"crt {word}\" in the place of each needs none"
            )
        } else {
            "a new file needs a line of its own".to_owned()
        };
        let fact =
            format!("{name} loads files of {shown} that lines name one by one ({}): {needed}", example.at);
        return Finding::fine("crt", fact);
    }
    if let Some(why) = &serving.unclear {
        let fact = format!("whether {name} loads {shown} isn't known: {why}");
        return Finding::unknown("crt", fact);
    }
    let files: Vec<String> = configuration.files.iter().map(|file| escaped(file).to_string()).collect();
    // What is loaded already isn't to be loaded twice.
    let mend = adopted.map_or_else(|| what_to_add(haproxy, serving), str::to_owned);
    let now = loaded_now(serving).map(|now| format!("; it loads {now}")).unwrap_or_default();
    let fact = format!("no bind line of {name} loads {shown} ({}){now}", files.join(", "));
    Finding { severity: Severity::Critical, ..Finding::wrong("crt", fact, &[&mend]) }
}

/// Which sockets answer, and at which level; `folder`: where one can be.
fn sockets(haproxy: &Haproxy, folder: &str, is_down: bool) -> Vec<Finding> {
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
                        &[&format!(
                            "stats socket {} mode 660 level admin",
                            haproxy_word(&address.to_string())
                        )],
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
                &format!("stats socket {folder}/admin.sock mode 660 level admin"),
                &format!("runtime_socket = \"{folder}/admin.sock\""),
            ],
        ));
    }
    findings
}
