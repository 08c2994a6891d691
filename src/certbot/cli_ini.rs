//! The settings in certbot's own files, and our hooks among them: the line for `cli.ini`, and those that stop certbot once
//! the program is removed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::sys::escape::{escaped_path, shell_word};

/// A setting of `cli.ini`, or of a `renewal/*.conf`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The number of its line.
    pub line: usize,
    /// The option's name as it is written there.
    pub key: String,
    /// Its value, without quotes; empty where there is none.
    pub value: String,
}

impl Setting {
    /// Which hook it sets, where it is one: `pre`, `post`, `deploy`; `renew` is certbot's older name of `deploy`.
    #[must_use]
    pub fn hook(&self) -> Option<&str> {
        let kind = self.key.strip_suffix("hook")?.strip_suffix(['-', '_'])?;
        let kind = if kind == "renew" { "deploy" } else { kind };
        // What ConfigObj writes for a value that isn't set.
        let is_set = !self.value.is_empty() && self.value != "None";
        (["pre", "post", "deploy"].contains(&kind) && is_set).then_some(kind)
    }

    /// Whether it switches this option on.
    #[must_use]
    pub fn switches_on(&self, option: &str) -> bool {
        let value = self.value.to_ascii_lowercase();
        self.key.replace('_', "-") == option && matches!(value.as_str(), "" | "true" | "yes" | "1")
    }
}

/// The settings in a file's text, as `ConfigArgParse` reads it (1.5, `DefaultConfigFileParser`): `key = value`, `key: value` or
/// `key value`, with or without quotes. Of a key that is there twice the last one counts.
#[must_use]
pub fn settings(text: &str) -> Vec<Setting> {
    let setting = |(line, text): (usize, &str)| {
        let text = text.trim();
        if text.is_empty() || text.starts_with(['#', ';', '[']) || text.starts_with("---") {
            return None;
        }
        let end = text.find(|it: char| "=:;#".contains(it) || it.is_whitespace()).unwrap_or(text.len());
        let (key, rest) = text.split_at_checked(end)?;
        let rest = rest.trim_start();
        let value = rest.strip_prefix(['=', ':']).unwrap_or(rest).trim();
        let unquoted = ['"', '\''].iter().find_map(|&quote| {
            let (inside, after) = value.strip_prefix(quote)?.rsplit_once(quote)?;
            after.trim_start().is_empty().then_some(inside)
        });
        let plain = || {
            let comment = [" #", " ;", "\t#", "\t;"].iter().filter_map(|mark| value.find(mark)).min();
            value.get(..comment.unwrap_or(value.len())).unwrap_or(value).trim_end()
        };
        let value = unquoted.unwrap_or_else(plain);
        Some(Setting { line, key: key.to_owned(), value: value.to_owned() })
    };
    (1..).zip(text.lines()).filter_map(setting).collect()
}

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
    let settings = settings(text).into_iter();
    let ours = settings.filter(|setting| setting.hook().is_some() && setting.value.contains("haproxy-certs"));
    ours.map(|setting| (setting.line, setting.value)).collect()
}

/// The hook of each kind that counts: certbot takes the last one.
#[must_use]
pub fn hooks_that_count(text: &str) -> BTreeMap<String, Setting> {
    let settings = settings(text).into_iter();
    settings.filter_map(|setting| Some((setting.hook()?.to_owned(), setting))).collect()
}

/// The command that makes every certbot run the link, `kind` being the hook to take; hooks that are there go on.
#[must_use]
pub fn add_beside(kind: &str, link: &Path, cli_ini: &Path, text: &str) -> String {
    let there = hooks_that_count(text);
    let free = [kind, "deploy", "post"].into_iter().find(|kind| !there.contains_key(*kind));
    let (Some(other), None) = (there.get(kind), free) else {
        return add(&line(free.unwrap_or(kind), link), cli_ini);
    };
    // certbot looks whether the first word is a program, so ours comes first; it ends with a success where the link is gone.
    let link = shell_path(link);
    let before = format!("test ! -x {link} || {link}; ");
    let number = other.line;
    let script = format!(r"{number}s#^\([^=: ]* *[=: ] *[^a-zA-Z0-9/._]*\)#\1{before}#");
    format!("sed -i '{}' {}", script.replace('\'', r"'\''"), shell_path(cli_ini))
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
    fn settings_are_read_as_certbot_reads_them() {
        let text = "a = b\nc: 'd e'\nf g h # i\n# j = k\n; l\n[m]\nno-directory-hooks\npost_hook = \"n; o\"\nrenew-hook = None\n";
        let read: Vec<(usize, String, String)> =
            settings(text).into_iter().map(|it| (it.line, it.key, it.value)).collect();
        let expected = [
            (1, "a", "b"),
            (2, "c", "d e"),
            (3, "f", "g h"),
            (7, "no-directory-hooks", ""),
            (8, "post_hook", "n; o"),
            (9, "renew-hook", "None"),
        ];
        assert_eq!(read, expected.map(|(line, key, value)| (line, key.to_owned(), value.to_owned())));
        let all = settings(text);
        assert!(all[3].switches_on("no-directory-hooks") && !all[0].switches_on("a"));
        assert_eq!((all[4].hook(), all[5].hook()), (Some("post"), None));
    }

    /// Where certbot has hooks already they go on running: `sh` runs what comes of it.
    #[test]
    fn what_is_added_leaves_the_hooks_that_are_there() {
        let folder = tempfile::tempdir().unwrap();
        let [cli_ini, link, theirs, log] =
            ["cli.ini", "link", "theirs", "log"].map(|name| folder.path().join(name));
        for (file, word) in [(&link, "ours"), (&theirs, "theirs")] {
            fs::write(file, format!("#!/bin/sh\necho {word} >>{}\n", log.display())).unwrap();
            fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        }
        let there = theirs.display();
        for (text, kinds) in [
            ("x = y\n".to_owned(), vec!["post"]),
            (format!("post-hook = {there}\n"), vec!["deploy", "post"]),
            (format!("post-hook: {there}\nrenew-hook = '{there} x'\n"), vec!["deploy", "post"]),
        ] {
            fs::write(&cli_ini, &text).unwrap();
            let command = add_beside("post", &link, &cli_ini, &text);
            assert!(
                std::process::Command::new("sh").args(["-ec", &command]).status().unwrap().success(),
                "{command}"
            );
            let hooks = hooks_that_count(&fs::read_to_string(&cli_ini).unwrap());
            assert_eq!(hooks.keys().collect::<Vec<_>>(), kinds, "{command}");
            let _ = fs::remove_file(&log);
            for hook in hooks.values() {
                assert!(
                    std::process::Command::new("sh").args(["-c", &hook.value]).status().unwrap().success()
                );
            }
            let ran = fs::read_to_string(&log).unwrap();
            assert_eq!(ran.matches("ours").count(), 1, "{text} {ran}");
            assert_eq!(ran.matches("theirs").count(), text.matches("theirs").count(), "{text} {ran}");
        }
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
