//! Hooks that aren't ours, in certbot's own files: one whose program is gone stops certbot, one that still writes for
//! HAProxy does so beside us.
//!
//! certbot looks for the first word of every hook of `cli.ini` before it does anything, and stops where it isn't a program
//! (`hooks.py`, `validate_hook`); those that it saved in `renewal/*.conf` it runs by a shell after the renewal, and only
//! warns (measured, 2.1.0).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::certbot::certbot_dir;
use crate::certbot::cli_ini::{self, Setting, hooks_that_count};
use crate::config::Settings;
use crate::host_setup::finding::Finding;
use crate::status::problem::Problem;
use crate::status::severity::{ProblemKind, Severity};
use crate::sys::escape::{escaped, escaped_path, shell_word};
use crate::sys::system::{System, is_program};

/// This program's name.
const US: &str = "haproxy-certs";

/// A script longer than this isn't read.
const LONGEST: u64 = 256 * 1024;

/// A hook in a file of certbot's.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Hook {
    file: PathBuf,
    line: usize,
    key: String,
    command: String,
}

/// What is found, and what has a word of its own.
pub(crate) fn look(settings: &Settings, system: &System) -> (Vec<Finding>, Vec<Problem>) {
    let Some(folder) = certbot_dir(settings) else { return (Vec::new(), Vec::new()) };
    let main_file = folder.join("cli.ini");
    let mut files = confs(&folder.join("renewal"));
    files.insert(0, main_file.clone());
    let hooks: Vec<Hook> = files.iter().flat_map(|file| hooks_of(file)).collect();
    let text = fs::read_to_string(&main_file).unwrap_or_default();
    let validates =
        !cli_ini::settings(&text).iter().any(|setting| setting.switches_on("disable-hook-validation"));
    let mut problems = Vec::new();
    let mut dead: BTreeMap<&Path, Vec<&Hook>> = BTreeMap::new();
    let mut beside: Vec<Finding> = Vec::new();
    for hook in &hooks {
        if is_dead(system, &hook.command, hook.file == main_file) {
            dead.entry(&hook.file).or_default().push(hook);
        } else if let Some(why) = works_for_haproxy(settings, system, &hook.command) {
            beside.push(old(&format!("{}:{}", escaped_path(&hook.file), hook.line), &why, &delete(&[hook])));
        }
    }
    for (file, hooks) in dead {
        let stops = file == main_file && validates;
        problems.extend(broken(&hooks, stops));
    }
    beside.extend(in_directories(settings, folder));
    (beside, problems)
}

/// A hook whose program isn't there.
fn broken(hooks: &[&Hook], stops: bool) -> Option<Problem> {
    let first = hooks.first()?;
    let lines: Vec<String> = hooks.iter().map(|hook| hook.line.to_string()).collect();
    let effect = if stops {
        "certbot stops before it issues or renews anything"
    } else {
        "certbot renews, and what the hook should do isn't done"
    };
    let fact = format!(
        "{}:{} has {} = {}, whose program is not there: {effect}",
        escaped_path(&first.file),
        lines.join(","),
        escaped(&first.key),
        escaped(&first.command)
    );
    Some(Problem {
        kind: ProblemKind::HookBroken,
        severity: if stops { Severity::Critical } else { Severity::Warning },
        haproxy: None,
        fact,
        advice: Some(format!("put it back, or remove the line: {}", delete(hooks))),
    })
}

/// Removes the lines of these hooks, all of one file.
fn delete(hooks: &[&Hook]) -> String {
    let lines: Vec<String> = hooks.iter().map(|hook| format!("{}d", hook.line)).collect();
    let file = hooks.first().map(|hook| shell_word(hook.file.as_os_str())).unwrap_or_default();
    format!("sed -i '{}' {file}", lines.join(";"))
}

/// A script that does our work beside us.
fn old(place: &str, why: &str, mend: &str) -> Finding {
    Finding::wrong("old-hook", format!("{place} {why}, beside haproxy-certs"), &[mend])
}

/// Scripts in `renewal-hooks` that aren't ours and work for HAProxy.
fn in_directories(settings: &Settings, folder: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    for kind in ["pre", "deploy", "post"] {
        let entries = fs::read_dir(folder.join("renewal-hooks").join(kind)).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        paths.sort();
        // certbot runs every executable file there whose name doesn't end in `~`.
        paths.retain(|path| !path.as_os_str().as_encoded_bytes().ends_with(b"~") && is_program(path));
        for path in paths {
            let Some((line, why)) = reads_like_ours(settings, &path) else { continue };
            let shown = shell_word(path.as_os_str());
            findings.push(old(
                &format!("{}:{line}", escaped_path(&path)),
                &why,
                &format!("chmod a-x {shown}"),
            ));
        }
    }
    findings
}

/// The `.conf` files of a directory, in byte order.
fn confs(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "conf"));
    files.sort();
    files
}

/// The hooks of a file that count: of each kind the last one.
fn hooks_of(file: &Path) -> Vec<Hook> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let hook = |Setting { line, key, value }| Hook { file: file.to_owned(), line, key, command: value };
    let mut hooks: Vec<Hook> = hooks_that_count(&text).into_values().map(hook).collect();
    hooks.sort_by_key(|hook| hook.line);
    hooks
}

/// Whether the first word is no program: a path that isn't there, or a name that is nowhere. Those of `cli.ini` certbot
/// looks for itself; the others it hands to a shell, whose own words, variables and quotes aren't ours to judge.
fn is_dead(system: &System, command: &str, is_validated: bool) -> bool {
    const BUILT_IN: [&str; 12] =
        ["test", "[", "cd", "echo", "exec", "if", "for", "while", "export", "umask", "true", "false"];
    let first = command.split_whitespace().next().unwrap_or_default();
    let is_shells = BUILT_IN.contains(&first) || first.contains(['=', '$', '(', '{', '\'', '"', '/']);
    match first {
        _ if first.starts_with('/') => !is_program(Path::new(first)),
        _ if is_shells && !is_validated => false,
        _ if first.contains('/') => true,
        _ => system.program(first).is_none(),
    }
}

/// Whether a command of a hook, or the script that it runs, works for HAProxy without us.
fn works_for_haproxy(settings: &Settings, system: &System, command: &str) -> Option<String> {
    if calls_us(command) {
        return None;
    }
    let first = command.split_whitespace().next().unwrap_or_default();
    let program = system.program(first);
    says(settings, command).map(str::to_owned).or_else(|| {
        let (line, why) = reads_like_ours(settings, &program?)?;
        Some(format!("runs a script whose line {line} {why}"))
    })
}

/// The first line of a script that works for HAProxy, where it doesn't call us.
fn reads_like_ours(settings: &Settings, script: &Path) -> Option<(usize, String)> {
    let meta = fs::metadata(script).ok().filter(|meta| meta.is_file() && meta.len() < LONGEST)?;
    let bytes = fs::read(script).ok().filter(|_| meta.len() > 0)?;
    if bytes.starts_with(b"\x7fELF") {
        return None;
    }
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<(usize, &str)> =
        (1..).zip(text.lines()).filter(|(_, line)| !line.trim_start().starts_with('#')).collect();
    if lines.iter().any(|(_, line)| calls_us(line)) {
        return None;
    }
    lines.into_iter().find_map(|(number, line)| Some((number, says(settings, line)?.to_owned())))
}

/// Whether a text names this program: not only a path that begins like it.
fn calls_us(text: &str) -> bool {
    text.match_indices(US).any(|(at, _)| {
        let before = text.get(..at).and_then(|text| text.chars().next_back());
        let after = text.get(at + US.len()..).and_then(|text| text.chars().next());
        let goes_on = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
        !before.is_some_and(goes_on) && !after.is_some_and(|letter| goes_on(letter) || letter == '/')
    })
}

/// What a line does for HAProxy.
fn says(settings: &Settings, line: &str) -> Option<&'static str> {
    let names = |path: &str| !path.is_empty() && line.contains(path);
    let sites = settings.sites_dir.to_string_lossy();
    if names(&sites) || settings.haproxys.iter().any(|haproxy| names(&haproxy.sites_dir)) {
        return Some("writes to the sites directory");
    }
    let reloads = ["reload", "restart", "USR2", "set ssl cert"].iter().any(|word| line.contains(word));
    (line.contains("haproxy") && reloads).then_some("reloads HAProxy")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Overrides;

    #[test]
    fn hooks_are_told_from_each_other() {
        let system = System::host();
        assert!(is_dead(&system, "/nonexistent/hook.sh --now", false));
        assert!(is_dead(&system, "no-such-program-here", false));
        for fine in [
            "/bin/sh -c x",
            "test ! -x /nonexistent/haproxy-certs || /nonexistent/haproxy-certs",
            "A=b c",
            "cd /",
        ] {
            assert!(!is_dead(&system, fine, false), "{fine}");
        }
        // certbot 2.1.0: "Unable to find post-hook command cd in the PATH."
        for stops in ["A=b c", "cd / && x", "if x; then y; fi", "/bin/true; x"] {
            assert!(is_dead(&system, stops, true), "{stops}");
        }
        assert!(!is_dead(&system, "test ! -x /x || /x", true));
        let settings = Settings::parse("sites_dir = \"/s/sites\"", &Overrides::default()).unwrap();
        let judged = |line| works_for_haproxy(&settings, &system, line);
        assert_eq!(judged("cat a b > /s/sites/x.pem").as_deref(), Some("writes to the sites directory"));
        assert_eq!(judged("systemctl reload haproxy").as_deref(), Some("reloads HAProxy"));
        assert_eq!(judged("systemctl reload nginx"), None);
        assert!(calls_us("/usr/bin/haproxy-certs assemble") && calls_us("haproxy-certs"));
        assert!(!calls_us("cat x > /etc/haproxy-certs.d/x") && !calls_us("/tmp/my-haproxy-certs"));
        assert_eq!(judged("test ! -x /h/haproxy-certs || /h/haproxy-certs"), None);
    }
}
