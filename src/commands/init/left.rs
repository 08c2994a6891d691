//! What is left to the operator on a host. Pure.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::path::Path;

use super::found::{Found, Hook};
use crate::certbot::cli_ini::{self, SavedHook};
use crate::certbot::version::Version;
use crate::config::Settings;
use crate::haproxy::tableless::Tableless;
use crate::host_setup::drop_in::OwnUnit;
use crate::host_setup::fleet_part;
use crate::plan::client::Client;
use crate::sys::escape::escaped_path;

/// The first certbot that runs the hooks of `renewal-hooks/post` on a first issue, too.
const POST_ON_FIRST_ISSUE: Version = [3, 2, 0];

/// Something that is left to the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// What, and why.
    pub text: String,
    /// The commands that do it, to be pasted.
    pub commands: Vec<String>,
}

impl Left {
    pub(super) fn new(text: impl Into<String>, commands: &[&str]) -> Self {
        Self { text: text.into(), commands: commands.iter().map(|&command| command.to_owned()).collect() }
    }
}

impl Left {
    /// That a HAProxy needs a table in this settings file, which holds this.
    pub(super) fn without_table(found: &Tableless, settings: &Settings, file: &Path, text: &[u8]) -> Self {
        let fact = found.fact(settings);
        let command = found.command(file, text);
        let need = match (&command, &found.option) {
            (None, _) if found.after.is_some() => "add one once the first of these has its own".to_owned(),
            (None, _) => "add one (CONTAINERS AND CHROOTS in haproxy-certs(7))".to_owned(),
            (Some(_), None) => "add one".to_owned(),
            (Some(_), Some(option)) => format!("start it with {option} besides, and add one"),
        };
        Self { text: format!("{fact}; {need}"), commands: command.into_iter().collect() }
    }
}

/// What the operator has to do.
pub(super) fn left_to_do(settings: &Settings, found: &Found, hook: bool) -> Vec<Left> {
    let mut left = Vec::new();
    if found.only_publishes() {
        left.extend(is_to_serve(settings, found));
    } else if found.configured != Some(true) {
        left.push(if let Some(others) = &found.loads_others {
            Left::new(others, &[])
        } else {
            let sites_dir = escaped_path(&settings.sites_dir);
            let text = format!("let HAProxy load {sites_dir}; this prints a configuration that does");
            Left::new(text, &["haproxy-certs haproxy-config"])
        });
    }
    if found.is_node() {
        // What there is to deploy is said by the fleet.
    } else if !found.any_lineage {
        match Client::of(settings) {
            Client::Certbot => {
                let command = "haproxy-certs issue -d example.org,www.example.org";
                left.push(Left::new("issue the first certificate", &[command]));
            }
            client => left.push(Left::new(format!("issue the first certificate{}", client.by("")), &[])),
        }
    } else if !found.own_dir && !found.only_publishes() {
        left.push(Left::new(
            "deploy the certificates that are there; the first command only says what would be done",
            &["haproxy-certs assemble --dry-run -v", "haproxy-certs assemble"],
        ));
    }
    match &found.hook {
        _ if found.is_node() => {}
        None if hook => left.push(Left::new(
            format!(
                "no hook: {} is not certbot's own; the timer or another caller has to run \
                 haproxy-certs assemble",
                escaped_path(&settings.live_dir)
            ),
            &[],
        )),
        Some((_, Hook::Absent)) if !hook && !found.in_cli_ini() => {
            left.push(Left::new(
                format!("let certbot's renewals be {} at once", found.fleet.part.deeds()),
                &["haproxy-certs init --hook"],
            ));
        }
        // What has the hook's name and isn't ours does something else.
        Some((link, Hook::Absent | Hook::Ours)) if hook && !found.in_cli_ini() => {
            left.extend(first_issue(link, found));
        }
        _ => {}
    }
    left.extend(bare_hooks(&found.saved_hooks));
    let of_fleet = fleet_part::left_to_do(settings.fleet.as_ref(), &found.fleet, found.has_units_of_fleet());
    left.extend(of_fleet.into_iter().map(|(text, commands)| Left { text, commands }));
    let (unit, command) = if found.only_publishes() {
        (OwnUnit::Publish, "haproxy-certs -q fleet publish")
    } else {
        (OwnUnit::Assemble, "haproxy-certs -q assemble")
    };
    // What a publisher has signed must be signed anew in time.
    let often = if found.publishes() { "twice a day" } else { "daily" };
    if !found.units.iter().any(|found| found.unit == unit) && !found.is_node() {
        left.push(Left::new(
            format!("no {} is installed: run this {often}, from cron; it says only what failed", unit.name()),
            &[command],
        ));
    }
    left
}

/// What is to be said where a HAProxy is configured on a host that only publishes, and loads nothing of ours.
fn is_to_serve(settings: &Settings, found: &Found) -> Option<Left> {
    found.configured?;
    let sites_dir = escaped_path(&settings.sites_dir);
    let text = format!(
        "only if the HAProxy of this host is to serve these certificates too: let it load {sites_dir}, and run init \
         again; this prints a configuration that does"
    );
    Some(Left::new(text, &["haproxy-certs haproxy-config"]))
}

/// What is to be said where certbot doesn't run the hook on a first issue.
fn first_issue(link: &Path, found: &Found) -> Option<Left> {
    let version = match found.certbot {
        Some(version) if version >= POST_ON_FIRST_ISSUE => return None,
        Some([major, minor, patch]) => format!("certbot {major}.{minor}.{patch}"),
        None => "a certbot before 3.2.0".to_owned(),
    };
    let cli_ini = link.ancestors().nth(3)?.join("cli.ini");
    Some(Left::new(
        format!(
            "{version} runs this hook when it renews, not when it issues; haproxy-certs issue needs no hook, but \
             certbot certonly needs a line in {}",
            escaped_path(&cli_ini)
        ),
        &[&cli_ini::add_beside("post", link, &cli_ini, &found.cli_ini)],
    ))
}

/// What is to be said of hooks that stop certbot, or make it complain, once this program is removed.
fn bare_hooks(hooks: &[SavedHook]) -> Option<Left> {
    let command = cli_ini::mend(hooks)?;
    let bare: Vec<String> = hooks
        .iter()
        .filter(|hook| !hook.outlives_us())
        .map(|hook| format!("{} line {}", escaped_path(&hook.file), hook.line))
        .collect();
    Some(Left::new(
        format!(
            "certbot issues and renews nothing while a hook of its cli.ini isn't there, as when haproxy-certs is removed; \
             let the hook look first: {}",
            bare.join(", ")
        ),
        &[&command],
    ))
}
