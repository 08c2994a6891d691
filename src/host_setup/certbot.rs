//! certbot's hooks: are they where this certbot runs them?

use std::path::{Path, PathBuf};

use crate::certbot::cli_ini::{self, hooks_in};
use crate::certbot::version;
use crate::commands::issue::certbot_dir;
use crate::config::Settings;
use crate::host_setup::finding::Finding;
use crate::status::severity::Severity;
use crate::sys::escape::{escaped, escaped_path};
use crate::sys::system::System;

/// The first certbot that runs the directory hooks `post` (first number) and `deploy` after a first issue.
const POST_SINCE: (u32, u32) = (3, 2);
const DEPLOY_SINCE: (u32, u32) = (5, 3);

pub(crate) fn findings(settings: &Settings, system: &System) -> Vec<Finding> {
    let Some(folder) = certbot_dir(settings) else {
        let live_dir = escaped_path(&settings.live_dir);
        return vec![Finding::unknown(
            "hook",
            format!(
                "{live_dir} is not certbot's own (it isn't named \"live\"): whatever fills it has to run haproxy-certs assemble"
            ),
        )];
    };
    let version = system.program(&settings.certbot.binary).and_then(|program| version::ask(&program));
    let version = version.map(|[major, minor, _]| (major, minor));
    let cli_ini = std::fs::read_to_string(folder.join("cli.ini")).unwrap_or_default();
    let hooks = folder.join("renewal-hooks");
    let found = Found {
        in_cli_ini: hooks_in(&cli_ini).into_iter().next().map(|(_, command)| command),
        post: hook(&hooks.join("post")),
        deploy: hook(&hooks.join("deploy")),
    };
    vec![judge(folder, &found, version)]
}

/// What there is of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    /// The command in cli.ini, which every certbot runs: when it issues, too.
    in_cli_ini: Option<String>,
    post: Hook,
    deploy: Hook,
}

/// What is in a directory of hooks.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Hook {
    Absent,
    Unseen,
    There(PathBuf),
    Broken(PathBuf),
}

/// The judgement. Pure but for a look whether the program that cli.ini names is there.
fn judge(folder: &Path, found: &Found, version: Option<(u32, u32)>) -> Finding {
    let install = "haproxy-certs init --hook";
    let cli_ini_file = folder.join("cli.ini");
    let cli_ini = escaped_path(&cli_ini_file);
    let hooks = folder.join("renewal-hooks");
    let there = |path: &Path, kind: &str, since: (u32, u32)| {
        let add = cli_ini::add(&cli_ini::line(kind, path), &cli_ini_file);
        let path = escaped_path(path);
        match (&found.in_cli_ini, version) {
            (Some(_), _) => Finding::fine("hook", format!("{path}, and in {cli_ini}")),
            (None, Some((major, minor))) if (major, minor) < since => Finding {
                severity: Severity::Ok,
                ..Finding::wrong(
                    "hook",
                    format!(
                        "{path}; certbot {major}.{minor} runs it when it renews, not when it issues: haproxy-certs issue \
                         deploys by itself, but certbot certonly needs a line in {cli_ini}"
                    ),
                    &[&add],
                )
            },
            _ => Finding::fine("hook", path.to_string()),
        }
    };
    match (&found.in_cli_ini, &found.post, &found.deploy) {
        (Some(command), ..) if !is_runnable(command) => Finding::wrong(
            "hook",
            format!(
                "{cli_ini} has the hook {}, which is not a program: certbot stops before it issues",
                escaped(command)
            ),
            &[install, "or remove that line"],
        ),
        (_, Hook::Broken(path), _) | (_, _, Hook::Broken(path)) => Finding::wrong(
            "hook",
            format!("{} is not a program, so certbot skips it silently", escaped_path(path)),
            &[install],
        ),
        (_, Hook::There(path), _) => there(path, "post", POST_SINCE),
        (_, _, Hook::There(path)) => there(path, "deploy", DEPLOY_SINCE),
        (Some(command), ..) => Finding::fine("hook", format!("{} in {cli_ini}", escaped(command))),
        (_, Hook::Unseen, _) | (_, _, Hook::Unseen) => {
            Finding::unknown("hook", format!("cannot read {}", escaped_path(&hooks)))
        }
        (_, Hook::Absent, Hook::Absent) => Finding::wrong(
            "hook",
            format!("there is no hook of haproxy-certs in {}", escaped_path(&hooks)),
            &[install],
        ),
    }
}

/// Whether certbot would run this command: only its first word is looked at, as certbot does, and only if it is a path.
fn is_runnable(command: &str) -> bool {
    let program = command.split_whitespace().next().unwrap_or_default();
    !program.starts_with('/') || is_program(Path::new(program))
}

fn is_program(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

/// The hook of ours in a directory: a file by our name, a link to us, or a script that names us.
fn hook(folder: &Path) -> Hook {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => return Hook::Unseen,
        Err(_) => return Hook::Absent,
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let named = entry.file_name().to_string_lossy().contains("haproxy-certs");
        let target = std::fs::read_link(&path).unwrap_or_default();
        let is_ours = named || target.to_string_lossy().contains("haproxy-certs") || mentions_us(&path);
        if is_ours && !entry.file_name().to_string_lossy().ends_with('~') {
            return if is_program(&path) { Hook::There(path) } else { Hook::Broken(path) };
        }
    }
    Hook::Absent
}

fn mentions_us(script: &Path) -> bool {
    let is_small = std::fs::metadata(script).is_ok_and(|file| file.is_file() && file.len() < 65_536);
    is_small
        && std::fs::read(script).is_ok_and(|text| String::from_utf8_lossy(&text).contains("haproxy-certs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hooks_are_judged_by_what_this_certbot_runs() {
        let there = || Hook::There("/le/renewal-hooks/post/x".into());
        let with = |post: Hook, deploy: Hook, cli_ini: &str, version| {
            let in_cli_ini = hooks_in(cli_ini).into_iter().next().map(|(_, command)| command);
            judge(Path::new("/le"), &Found { in_cli_ini, post, deploy }, version)
        };
        let judged = |post: Hook, deploy: Hook, version| with(post, deploy, "", version);
        assert_eq!(judged(Hook::Absent, Hook::Absent, None).severity, Severity::Warning);
        assert_eq!(judged(Hook::Absent, Hook::Unseen, None).severity, Severity::Unknown);
        assert_eq!(judged(Hook::Broken("/h/x".into()), there(), None).severity, Severity::Warning);
        assert_eq!(judged(there(), Hook::Absent, Some((4, 0))).fact, "/le/renewal-hooks/post/x");
        let old = judged(there(), Hook::Absent, Some((2, 1)));
        assert!(old.fact.contains("certbot 2.1 runs it when it renews, not when it issues"), "{old:?}");
        let add = |kind: &str| {
            format!(
                "'{kind}-hook = test ! -x /le/renewal-hooks/post/x || /le/renewal-hooks/post/x' >> /le/cli.ini"
            )
        };
        assert!(old.mend[0].ends_with(&add("post")), "{old:?}");
        assert_eq!(old.severity, Severity::Ok);
        let deploy = judged(Hook::Absent, there(), Some((4, 0)));
        assert!(deploy.mend[0].ends_with(&add("deploy")), "{deploy:?}");
        assert_eq!(judged(Hook::Absent, there(), Some((5, 3))).fact, "/le/renewal-hooks/post/x");
        // A line of cli.ini runs with every certbot.
        let line = "max-log-backups = 0\npost-hook = haproxy-certs assemble\n";
        let mended = with(there(), Hook::Absent, line, Some((2, 1)));
        assert_eq!((mended.severity, mended.mend.len()), (Severity::Ok, 0));
        let alone = with(Hook::Absent, Hook::Absent, line, Some((2, 1)));
        assert_eq!(
            (alone.severity, alone.fact.as_str()),
            (Severity::Ok, "haproxy-certs assemble in /le/cli.ini")
        );
        let commented = "# post-hook = haproxy-certs assemble";
        assert_eq!(with(Hook::Absent, Hook::Absent, commented, None).severity, Severity::Warning);
        let dangling = with(there(), Hook::Absent, "post-hook = /nonexistent/haproxy-certs", Some((4, 0)));
        assert!(dangling.fact.contains("certbot stops before it issues"), "{dangling:?}");
    }
}
