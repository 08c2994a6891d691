//! Hooks of ours in certbot's own files: the line for `cli.ini`, and those that stop certbot once the program is removed.

use std::fs;
use std::path::{Path, PathBuf};

use crate::sys::escape::{escaped_path, shell_word};

/// The keys of a hook, in `cli.ini` (with a hyphen) and in `renewal/*.conf`, where certbot saves it (with an underscore).
const KEYS: [&str; 4] = ["pre", "post", "deploy", "renew"];

/// A hook that names this program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedHook {
    /// The file that it is in.
    pub file: PathBuf,
    /// The number of its line there.
    pub line: usize,
    /// What certbot runs.
    pub command: String,
}

impl SavedHook {
    /// Whether certbot goes on where the program or its link is gone: only a command that looks first does.
    #[must_use]
    pub fn outlives_us(&self) -> bool {
        self.command.starts_with("test ! -x ")
    }

    /// Whether it is a path to this program and nothing else, which [`mend`] can make better.
    fn is_bare(&self) -> bool {
        self.command.ends_with("haproxy-certs") && !self.command.contains(char::is_whitespace)
    }
}

/// The line of `cli.ini` that makes every certbot run the link when it issues, too.
///
/// certbot stops before it does anything where the first word of such a hook isn't a program (`validate_hook`), and copies
/// the hook into every `renewal/*.conf`. `test` is always there, and makes nothing of a link that is gone.
#[must_use]
pub fn line(kind: &str, link: &Path) -> String {
    let link = shell_path(link);
    format!("{kind}-hook = test ! -x {link} || {link}")
}

/// The command that adds this line.
#[must_use]
pub fn add(line: &str, cli_ini: &Path) -> String {
    format!("printf '\\n%s\\n' '{}' >> {}", line.replace('\'', "'\\''"), shell_path(cli_ini))
}

/// The hooks in a file's text that name this program: line and command.
#[must_use]
pub fn hooks_in(text: &str) -> Vec<(usize, String)> {
    let hook = |line: &str| {
        let (key, command) = line.split_once('=')?;
        let kind = key.trim().strip_suffix("hook")?.strip_suffix(['-', '_'])?;
        let is_ours = KEYS.contains(&kind) && command.contains("haproxy-certs");
        is_ours.then(|| command.trim().to_owned())
    };
    (1..).zip(text.lines()).filter_map(|(number, line)| Some((number, hook(line)?))).collect()
}

/// The hooks that name this program in certbot's `cli.ini` and `renewal/*.conf`.
#[must_use]
pub fn saved_hooks(folder: &Path) -> Vec<SavedHook> {
    let entries = fs::read_dir(folder.join("renewal")).into_iter().flatten().flatten();
    let confs = entries.map(|entry| entry.path());
    let mut files: Vec<PathBuf> =
        confs.filter(|file| file.extension().is_some_and(|extension| extension == "conf")).collect();
    files.sort();
    files.insert(0, folder.join("cli.ini"));
    let hooks = |file: PathBuf| {
        let text = fs::read_to_string(&file).unwrap_or_default();
        hooks_in(&text).into_iter().map(move |(line, command)| SavedHook {
            file: file.clone(),
            line,
            command,
        })
    };
    files.into_iter().flat_map(hooks).collect()
}

/// The command that lets the bare ones of these hooks look for their program first; `None` where none is bare.
#[must_use]
pub fn mend(hooks: &[SavedHook]) -> Option<String> {
    let mut files: Vec<String> =
        hooks.iter().filter(|hook| hook.is_bare()).map(|hook| shell_path(&hook.file)).collect();
    files.dedup();
    if files.is_empty() {
        return None;
    }
    let replace = r"s#^\( *[a-z]*[-_]hook *= *\)\([^ ]*haproxy-certs\) *$#\1test ! -x \2 || \2#";
    Some(format!("sed -i '{replace}' {}", files.join(" ")))
}

/// A path as a word of a shell's command line.
fn shell_path(path: &Path) -> String {
    let shown = escaped_path(path).to_string();
    if shown.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte)) {
        return shown;
    }
    shell_word(path.as_os_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: &str = "/etc/letsencrypt/renewal-hooks/post/haproxy-certs";

    fn hook(command: &str) -> SavedHook {
        SavedHook { file: "/etc/letsencrypt/cli.ini".into(), line: 1, command: command.to_owned() }
    }

    #[test]
    fn hooks_are_found_in_both_of_certbots_spellings_and_not_in_comments() {
        let text = "max-log-backups = 0\n# post-hook = haproxy-certs\npost-hook=haproxy-certs assemble\n\
                    [renewalparams]\nrenew_hook = /usr/bin/haproxy-certs\npost_hook = /root/other\n";
        let found = hooks_in(text);
        let expected = [(3, "haproxy-certs assemble"), (5, "/usr/bin/haproxy-certs")];
        assert_eq!(found, expected.map(|(line, command)| (line, command.to_owned())));
    }

    #[test]
    fn the_line_that_is_printed_is_known_and_outlives_the_program() {
        let line = line("post", Path::new(LINK));
        assert_eq!(line, format!("post-hook = test ! -x {LINK} || {LINK}"));
        let (_, command) = hooks_in(&line).remove(0);
        assert!(hook(&command).outlives_us());
        assert!(!hook(LINK).outlives_us());
    }

    /// sed itself makes the old line the new one, and leaves what isn't ours alone.
    #[test]
    fn the_printed_commands_do_what_they_say() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("renewal")).unwrap();
        let (cli_ini, conf) = (folder.path().join("cli.ini"), folder.path().join("renewal/a.test.conf"));
        fs::write(&cli_ini, "max-log-backups = 0").unwrap();
        fs::write(&conf, format!("[renewalparams]\npost_hook = {LINK}\nrenew_hook = /x && {LINK}\n"))
            .unwrap();
        let run = |command: &str| {
            assert!(
                std::process::Command::new("sh").args(["-ec", command]).status().unwrap().success(),
                "{command}"
            );
        };
        let wanted = line("post", Path::new(LINK));
        run(&add(&wanted, &cli_ini));
        assert_eq!(fs::read_to_string(&cli_ini).unwrap(), format!("max-log-backups = 0\n{wanted}\n"));
        let hooks = saved_hooks(folder.path());
        assert_eq!(hooks.iter().map(|hook| hook.line).collect::<Vec<_>>(), [2, 2, 3]);
        run(&mend(&hooks).unwrap());
        assert_eq!(
            fs::read_to_string(&conf).unwrap(),
            format!("[renewalparams]\npost_hook = test ! -x {LINK} || {LINK}\nrenew_hook = /x && {LINK}\n")
        );
        assert_eq!(fs::read_to_string(&cli_ini).unwrap(), format!("max-log-backups = 0\n{wanted}\n"));
        assert_eq!(mend(&saved_hooks(folder.path())), None);
    }
}
