//! certbot's hooks: are they where this certbot runs them?

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::config::Settings;
use crate::escape::escaped_path;
use crate::program::Program;
use crate::world::World;

use super::Finding;

/// The first certbot that runs the directory hooks `post` (first number) and `deploy` after a first issue.
const POST_SINCE: (u32, u32) = (3, 2);
const DEPLOY_SINCE: (u32, u32) = (5, 3);

/// certbot takes a second to say its version.
const LIMIT: Duration = Duration::from_secs(20);

pub(super) fn findings(settings: &Settings, world: &World) -> Vec<Finding> {
    let hooks = settings.live_dir.parent().unwrap_or(Path::new("/")).join("renewal-hooks");
    let version = world.program(&settings.certbot.binary).and_then(|program| version(&program));
    let post = hook(&hooks.join("post"));
    let deploy = hook(&hooks.join("deploy"));
    vec![judge(&hooks, &post, &deploy, version)]
}

/// What is in a directory of hooks.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Hook {
    Absent,
    Unseen,
    There(PathBuf),
    Broken(PathBuf),
}

/// The judgement. Pure.
fn judge(hooks: &Path, post: &Hook, deploy: &Hook, version: Option<(u32, u32)>) -> Finding {
    let install = "haproxy-certs init --hook";
    let first = |since: (u32, u32), kind: &str| match version {
        Some((major, minor)) if (major, minor) < since => format!(
            "; certbot {major}.{minor} doesn't run {kind} hooks after a first certificate, the timer does it"
        ),
        _ => String::new(),
    };
    match (post, deploy) {
        (Hook::Broken(path), _) | (_, Hook::Broken(path)) => Finding::wrong(
            "hook",
            format!("{} is not a program, so certbot skips it silently", escaped_path(path)),
            &[install],
        ),
        (Hook::There(path), _) => {
            Finding::fine("hook", format!("{}{}", escaped_path(path), first(POST_SINCE, "post")))
        }
        (_, Hook::There(path)) => {
            Finding::fine("hook", format!("{}{}", escaped_path(path), first(DEPLOY_SINCE, "deploy")))
        }
        (Hook::Unseen, _) | (_, Hook::Unseen) => {
            Finding::unknown("hook", format!("cannot read {}", escaped_path(hooks)))
        }
        (Hook::Absent, Hook::Absent) => Finding::wrong(
            "hook",
            format!("there is no hook of haproxy-certs in {}", escaped_path(hooks)),
            &[install],
        ),
    }
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
            let is_program = path.is_file() && rustix::fs::access(&path, rustix::fs::Access::EXEC_OK).is_ok();
            return if is_program { Hook::There(path) } else { Hook::Broken(path) };
        }
    }
    Hook::Absent
}

fn mentions_us(script: &Path) -> bool {
    let is_small = std::fs::metadata(script).is_ok_and(|file| file.is_file() && file.len() < 65_536);
    is_small
        && std::fs::read(script).is_ok_and(|text| String::from_utf8_lossy(&text).contains("haproxy-certs"))
}

/// `certbot 2.1.0`
fn version(program: &Path) -> Option<(u32, u32)> {
    let done = Program::new(program).arg("--version").run(Instant::now() + LIMIT).ok()?;
    let version = done.output.lines().find_map(|line| line.strip_prefix("certbot "))?;
    let mut numbers = version.split('.').map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Some((major, minor)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::words::Severity;

    #[test]
    fn hooks_are_judged_by_what_this_certbot_runs() {
        let there = || Hook::There("/h/x".into());
        let fact = |post: &Hook, deploy: &Hook, version| judge(Path::new("/h"), post, deploy, version);
        assert_eq!(fact(&Hook::Absent, &Hook::Absent, None).severity, Severity::Warning);
        assert_eq!(fact(&Hook::Broken("/h/x".into()), &there(), None).severity, Severity::Warning);
        assert_eq!(fact(&there(), &Hook::Absent, Some((4, 0))).fact, "/h/x");
        assert!(
            fact(&there(), &Hook::Absent, Some((2, 1))).fact.contains("certbot 2.1 doesn't run post hooks")
        );
        assert!(fact(&Hook::Absent, &there(), Some((4, 0))).fact.contains("deploy hooks"));
        assert_eq!(fact(&Hook::Absent, &there(), Some((5, 3))).fact, "/h/x");
    }
}
