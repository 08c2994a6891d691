//! certbot's hooks: are they where this certbot runs them?

use std::path::{Path, PathBuf};

use crate::certbot::certbot_dir;
use crate::certbot::cli_ini::{self, Setting, hooks_that_count};
use crate::certbot::version;
use crate::config::Settings;
use crate::host_setup::finding::Finding;
use crate::plan::client::Client;
use crate::status::severity::Severity;
use crate::sys::escape::{escaped, escaped_path, shell_word};
use crate::sys::system::{System, is_program};

/// The first certbot that runs the directory hooks `post` (first number) and `deploy` after a first issue.
const POST_SINCE: (u32, u32) = (3, 2);
const DEPLOY_SINCE: (u32, u32) = (5, 3);

pub(crate) fn findings(settings: &Settings, system: &System) -> Vec<Finding> {
    let Some(folder) = certbot_dir(settings).filter(|_| Client::of(settings) == Client::Certbot) else {
        let live_dir = escaped_path(&settings.live_dir);
        return vec![Finding::unknown(
            "hook",
            format!("{live_dir} is not certbot's own: whatever fills it has to run haproxy-certs assemble"),
        )];
    };
    let version = system.program(&settings.certbot.binary).and_then(|program| version::ask(&program));
    let version = version.map(|[major, minor, _]| (major, minor));
    let cli_ini = std::fs::read_to_string(folder.join("cli.ini")).unwrap_or_default();
    let hooks = folder.join("renewal-hooks");
    let found = Found { cli_ini, post: hook(&hooks.join("post")), deploy: hook(&hooks.join("deploy")) };
    vec![judge(folder, &found, version)]
}

/// What there is of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    /// The text of cli.ini, whose hooks every certbot runs: when it issues, too.
    cli_ini: String,
    post: Hook,
    deploy: Hook,
}

/// What is in a directory of hooks.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Hook {
    Absent,
    Unseen,
    There(PathBuf),
    /// By its name it is ours, and it is no program.
    Broken(PathBuf),
    /// By its name it is ours, and it does something else.
    Other(PathBuf),
}

/// The judgement. Pure but for a look whether the program that cli.ini names is there.
fn judge(folder: &Path, found: &Found, version: Option<(u32, u32)>) -> Finding {
    let install = "haproxy-certs init --hook";
    let cli_ini_file = folder.join("cli.ini");
    let cli_ini = escaped_path(&cli_ini_file);
    let hooks = folder.join("renewal-hooks");
    let is_ours = |setting: &Setting| setting.hook().is_some() && setting.value.contains("haproxy-certs");
    let counting = hooks_that_count(&found.cli_ini);
    let in_cli_ini = counting.values().find(|hook| is_ours(hook)).map(|hook| hook.value.clone());
    let settings = cli_ini::settings(&found.cli_ini);
    let off = settings.iter().rfind(|setting| setting.switches_on("no-directory-hooks"));
    let again = |path: &Path| format!("rm -- {}", shell_word(path.as_os_str()));
    let stranger = |path: &Path| {
        let fact = format!(
            "{} has the name of our hook and isn't ours: it doesn't run haproxy-certs assemble",
            escaped_path(path)
        );
        // certbot passes over a name that ends so.
        let path = shell_word(path.as_os_str());
        Finding::wrong("hook", fact, &[&format!("mv -- {path} {path}~"), install])
    };
    if let (None, Some(over)) = (&in_cli_ini, settings.iter().rfind(|setting| is_ours(setting))) {
        let by = over.hook().and_then(|kind| counting.get(kind)).map(|hook| hook.line).unwrap_or_default();
        let fact = format!(
            "{cli_ini} has a {} of haproxy-certs in line {}, and certbot takes the one of line {by}",
            over.key, over.line
        );
        let file = shell_word(cli_ini_file.as_os_str());
        return Finding::wrong(
            "hook",
            fact,
            &[&format!("sed -i {}d {file}", over.line), "haproxy-certs status --setup"],
        );
    }
    let there = |path: &Path, kind: &str, since: (u32, u32)| {
        let add = cli_ini::add_beside(kind, path, &cli_ini_file, &found.cli_ini);
        let path = escaped_path(path);
        match (&in_cli_ini, version) {
            (Some(_), _) => Finding::fine("hook", format!("{path}, and in {cli_ini}")),
            (None, Some((major, minor))) if (major, minor) < since => Finding {
                severity: Severity::Ok,
                ..Finding::wrong(
                    "hook",
                    format!(
                        "{path}; certbot {major}.{minor} runs it when it renews, not when it issues: haproxy-certs issue \
                         needs no hook, but certbot certonly needs a line in {cli_ini}"
                    ),
                    &[&add],
                )
            },
            _ => Finding::fine("hook", path.to_string()),
        }
    };
    match (&in_cli_ini, &found.post, &found.deploy) {
        (Some(command), ..) if !is_runnable(command) => Finding::wrong(
            "hook",
            format!(
                "{cli_ini} has the hook {}, which is not a program: certbot stops before it issues",
                escaped(command)
            ),
            &[install, "or remove that line"],
        ),
        (None, post, deploy)
            if off.is_some() && [post, deploy].iter().any(|hook| matches!(hook, Hook::There(_))) =>
        {
            let line = off.map(|setting| setting.line).unwrap_or_default();
            Finding::wrong(
                "hook",
                format!("line {line} of {cli_ini} switches the hooks in {} off", escaped_path(&hooks)),
                &[&format!("sed -i {line}d {}", shell_word(cli_ini_file.as_os_str()))],
            )
        }
        (_, Hook::Broken(path), _) | (_, _, Hook::Broken(path)) => Finding::wrong(
            "hook",
            format!("{} is not a program, so certbot skips it silently", escaped_path(path)),
            &[&again(path), install],
        ),
        (Some(line), Hook::Other(path), _) | (Some(line), _, Hook::Other(path))
            if path.to_str().is_some_and(|path| line.contains(path)) =>
        {
            stranger(path)
        }
        (None, Hook::Other(path), _) | (None, _, Hook::Other(path)) => stranger(path),
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

/// The hook of ours in a directory: a file by our name, a link to us, or a script that names us.
fn hook(folder: &Path) -> Hook {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => return Hook::Unseen,
        Err(_) => return Hook::Absent,
    };
    let mut other = Hook::Absent;
    for entry in entries.flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        let target = std::fs::read_link(&path).unwrap_or_default();
        let is_named = name.contains("haproxy-certs") || target.to_string_lossy().contains("haproxy-certs");
        // certbot passes over names that end so.
        if name.ends_with('~') {
            continue;
        }
        match (is_program(&path), runs_us(&path)) {
            (true, true) => return Hook::There(path),
            (true, false) if is_named => other = Hook::Other(path),
            (false, ours) if is_named || ours => other = Hook::Broken(path),
            _ => {}
        }
    }
    other
}

/// Whether it is this program, whatever it is called, or a script that calls `haproxy-certs assemble`. A script isn't this
/// program because it has its name.
fn runs_us(hook: &Path) -> bool {
    let Ok(real) = std::fs::canonicalize(hook) else { return false };
    if std::env::current_exe().is_ok_and(|us| us == real) {
        return true;
    }
    if begins_as_a_program(&real) {
        // Another one of this name, as in another directory.
        return real.file_name().is_some_and(|name| name == "haproxy-certs");
    }
    let is_small = std::fs::metadata(&real).is_ok_and(|file| file.is_file() && file.len() < 65_536);
    let text = if is_small { std::fs::read(&real).unwrap_or_default() } else { Vec::new() };
    let text = String::from_utf8_lossy(&text);
    let mut lines = text.lines().map(str::trim_start).filter(|line| !line.starts_with('#'));
    lines.any(|line| line.split_once("haproxy-certs").is_some_and(|(_, after)| after.contains("assemble")))
}

/// Whether a file is machine code (ELF), and no script.
fn begins_as_a_program(file: &Path) -> bool {
    use std::io::Read as _;
    let mut magic = [0; 4];
    let is_file = std::fs::metadata(file).is_ok_and(|found| found.is_file());
    is_file
        && std::fs::File::open(file).and_then(|mut file| file.read_exact(&mut magic)).is_ok()
        && magic == *b"\x7fELF"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hooks_are_judged_by_what_this_certbot_runs() {
        let there = || Hook::There("/le/renewal-hooks/post/x".into());
        let with = |post: Hook, deploy: Hook, cli_ini: &str, version| {
            judge(Path::new("/le"), &Found { cli_ini: cli_ini.to_owned(), post, deploy }, version)
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
        let theirs = format!("{line}post-hook = /bin/own\n");
        let over = with(there(), Hook::Absent, &theirs, Some((2, 1)));
        assert!(over.fact.contains("in line 2, and certbot takes the one of line 3"), "{over:?}");
        let off = with(there(), Hook::Absent, "no-directory-hooks = true\n", Some((4, 0)));
        assert!(off.severity == Severity::Warning && off.mend[0] == "sed -i 1d /le/cli.ini", "{off:?}");
        let other = judged(Hook::Other("/h/haproxy-certs".into()), Hook::Absent, Some((4, 0)));
        assert_eq!(other.mend[0], "mv -- /h/haproxy-certs /h/haproxy-certs~", "{other:?}");
        // A line of cli.ini that calls it is no better.
        let calls =
            |line: &str| with(Hook::Other("/bin/true".into()), Hook::Absent, line, Some((4, 0))).severity;
        assert_eq!(
            calls("post-hook = test ! -x /bin/true || /bin/true # haproxy-certs\n"),
            Severity::Warning
        );
        assert_eq!(calls("post-hook = haproxy-certs assemble\n"), Severity::Ok);
        let commented = "# post-hook = haproxy-certs assemble";
        assert_eq!(with(Hook::Absent, Hook::Absent, commented, None).severity, Severity::Warning);
        let dangling = with(there(), Hook::Absent, "post-hook = /nonexistent/haproxy-certs", Some((4, 0)));
        assert!(dangling.fact.contains("certbot stops before it issues"), "{dangling:?}");
    }
}
