//! HAProxy's own words about what it could not load, and which files they name. Pure.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::path::{Path, PathBuf};

use crate::config::Haproxy;
use crate::haproxy::batch::{Batch, Change};
use crate::haproxy::target::Target;
use crate::serving::beside::{EXTRAS, SIBLINGS};
use crate::serving::configuration::UnknownLine;
use crate::sys::escape::{escaped, shell_word};

/// How many bytes of one line are quoted.
const LINE: usize = 600;
/// How many lines are quoted.
const LINES: usize = 4;

/// HAProxy's error lines as one line of bounded, printable ASCII; empty where there are none.
#[must_use]
pub fn words(log: &str) -> String {
    let alerts = alerts(log);
    let mut words = alerts.iter().take(LINES).map(|line| quoted(line)).collect::<Vec<_>>().join("; ");
    if alerts.len() > LINES {
        words.push_str("; ...");
    }
    words
}

/// HAProxy's words, beginning with the place that they are about: `[haproxy.cfg:60] unknown keyword ...`.
pub(super) fn cause(words: &str) -> String {
    match words.strip_prefix("parsing ") {
        Some(rest) if rest.starts_with('[') => rest.replacen("] : ", "] ", 1),
        _ => words.to_owned(),
    }
}

/// What to do about a configuration that HAProxy refuses; `program`: the one that refused it; `files`: all that it
/// consists of, as far as they are known; `loads`: what it loads.
pub(crate) fn advice(words: &str, program: &Path, files: &[PathBuf], loads: &[String]) -> String {
    let place = place_in(words);
    let named = place.map(|(file, _)| PathBuf::from(file));
    let files = if files.is_empty() { named.as_slice() } else { files };
    let mut command = format!("{} -c", shell_word(program.as_os_str()));
    for file in files {
        command.push_str(" -f ");
        command.push_str(&shell_word(file.as_os_str()));
    }
    let check = if files.is_empty() { String::new() } else { format!("; check it with: {command}") };
    let unloadable = named_in(words, loads).first().and_then(|&index| loads.get(index));
    match (unloadable, place) {
        (Some(file), _) => format!("mend {}, which it can't load{check}", escaped(file)),
        (None, Some((file, line))) => {
            let other = list_in(words).map_or_else(
                || not_taken(words).map(|path| format!("{}, which it can't load", escaped(path))),
                |(list, line)| Some(format!("line {line} of {}", escaped(list))),
            );
            let other = other.map(|other| format!(", or {other}")).unwrap_or_default();
            format!("mend line {line} of {file}{other}{check}")
        }
        (None, None) => format!("mend its configuration{check}"),
    }
}

/// Why a refusal says nothing of a start in another environment: all that it complains about may hang on these lines.
#[must_use]
pub fn doubt(log: &str, unknown: &[UnknownLine]) -> Option<String> {
    let of_alert = |alert: &String| {
        let place = place_in(alert);
        let is_it = |line: &&UnknownLine| {
            let is_there =
                |(file, number): (&str, &str)| *line.at.file == *file && number.parse() == Ok(line.at.line);
            line.leads || place.is_none_or(is_there)
        };
        unknown.iter().find(is_it)
    };
    let doubts: Option<Vec<&UnknownLine>> = alerts(log).iter().map(of_alert).collect();
    let first = doubts?.into_iter().next()?;
    Some(format!("{} holds a variable or a condition whose value isn't known", first.at))
}

/// The first file and line in brackets.
fn place_in(words: &str) -> Option<(&str, &str)> {
    let (place, _) = words.get(words.find('[')? + 1..)?.split_once(']')?;
    let (file, line) = place.rsplit_once(':')?;
    let is_place = !file.is_empty() && !file.ends_with(':') && is_number(line);
    is_place.then_some((file, line))
}

fn is_number(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit())
}

/// The line of a crt-list that the words are about, which another line names: the file and the line's number (2.4 and later
/// say it in the first way).
fn list_in(words: &str) -> Option<(&str, &str)> {
    if let Some((_, behind)) = words.split_once("'crt-list' : parsing ") {
        return place_in(behind);
    }
    let (before, behind) = words.split_once(" in file '")?;
    let (_, line) = before.rsplit_once(" on line ")?;
    Some((behind.split_once('\'')?.0, line)).filter(|_| is_number(line))
}

/// The file that is named where it can't be read, or isn't what it should be (the wordings of 2.2 to 3.4).
fn not_taken(words: &str) -> Option<&str> {
    const WORDS: [&str; 8] = [
        "cannot open file '",
        "error opening file '",
        "failed to open pattern file <",
        "DH parameters from file <",
        "error in Lua file '",
        "Couldn't open the ca-file '",
        "-file' : unable to load ",
        "Can't open the file '",
    ];
    let behind = WORDS.iter().find_map(|known| Some(words.split_once(known)?.1))?;
    let path = behind.split(['\'', '>', ' ', ';']).next()?.trim_end_matches('.');
    path.starts_with('/').then_some(path)
}

/// The files that the log's error lines name, or whose siblings they name: the index in `paths` and the line, each
/// file once, in the order of the log.
#[must_use]
pub fn naming(log: &str, paths: &[String]) -> Vec<(usize, String)> {
    let mut named: Vec<(usize, String)> = Vec::new();
    for line in alerts(log) {
        for index in named_in(&line, paths) {
            if named.iter().all(|&(known, _)| known != index) {
                named.push((index, quoted(&line)));
            }
        }
    }
    named
}

/// A file that an error line names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedFile {
    /// Its place among the paths.
    pub index: usize,
    /// What makes it another file's name, where it is what HAProxy loads beside a certificate.
    pub ending: Option<&'static str>,
    /// What is said, without the place in the configuration.
    pub said: String,
}

/// The first file that the log's error lines name.
#[must_use]
pub fn first_named(log: &str, paths: &[String]) -> Option<NamedFile> {
    alerts(log).into_iter().find_map(|line| {
        let index = *named_in(&line, paths).first()?;
        let path = paths.get(index)?;
        let (before, after) = line.split_at_checked(line.find(path.as_str())?)?;
        let cause = before.rsplit_once(" : ").map_or(before, |(_, cause)| cause).trim_start();
        let behind = after.get(path.len()..).unwrap_or_default();
        // Where there is no key beside it, the certificate lacks one.
        let ending = behind.strip_prefix('.');
        let ending = ending.and_then(|behind| EXTRAS.into_iter().find(|ending| behind.starts_with(ending)));
        Some(NamedFile { index, ending, said: quoted(&format!("{cause}{after}")) })
    })
}

/// The first file of a batch that the log names, by any name that this HAProxy loads it under, and those that it misses.
///
/// Only the first: 2.2 leaves OpenSSL's complaint about one file for the next one, which may be good.
#[must_use]
pub fn named_changes(log: &str, haproxy: &Haproxy, batch: &Batch<'_>) -> Vec<(Target, String)> {
    let changes = batch.changes;
    let (owners, paths): (Vec<&Change>, Vec<String>) = changes
        .iter()
        .flat_map(|change| batch.stores_of(haproxy, change).into_iter().map(move |path| (change, path)))
        .unzip();
    let first = naming(log, &paths).into_iter().find(|(_, line)| !may_be_of_another(log, line));
    let mut named: Vec<(Target, String)> = first
        .into_iter()
        .filter_map(|(index, line)| Some((owners.get(index)?.target.clone(), line)))
        .collect();
    for change in changes.iter().filter(|change| change.now.is_none()) {
        // A crt-list may name it by another path.
        let Target::Site(file) = &change.target else { continue };
        let line = alerts(log).into_iter().find(|line| misses(line, file));
        if let Some(line) = line.filter(|_| named.iter().all(|(target, _)| *target != change.target)) {
            named.push((change.target.clone(), quoted(&line)));
        }
    }
    named
}

/// Whether what the line says may be left from an earlier one: so 2.2 words it.
fn may_be_of_another(log: &str, line: &str) -> bool {
    line.contains("unable to load certificate chain from file")
        && alerts(log).first().is_some_and(|first| quoted(first) != line)
}

/// Whether the line says that a file of this name isn't there (the first wording is 2.2's).
fn misses(line: &str, file: &str) -> bool {
    let is_about_one = ["Didn't find any certificate for bundle", "No such file or directory"];
    is_about_one.iter().any(|words| line.contains(words))
        && ["/", "'"].iter().any(|before| line.contains(&format!("{before}{file}'")))
}

/// The `files` in folder `dir` that the log names: the first of each line, as its index, and what is wrong with it,
/// without the place in the configuration and without the folder.
pub(super) fn named_in_folder(log: &str, dir: &str, files: &[String]) -> Vec<(usize, String)> {
    let paths: Vec<String> = files.iter().map(|file| format!("{dir}/{file}")).collect();
    let mut named: Vec<(usize, String)> = Vec::new();
    for line in alerts(log) {
        let Some((index, said)) = named_first(&line, dir, &paths) else { continue };
        if named.iter().all(|&(known, _)| known != index) {
            named.push((index, said));
        }
    }
    named
}

fn named_first(line: &str, dir: &str, paths: &[String]) -> Option<(usize, String)> {
    let index = *named_in(line, paths).first()?;
    let place = line.find(paths.get(index)?.as_str())?;
    let (before, after) = line.split_at_checked(place)?;
    let cause = before.rsplit_once(" : ").map_or(before, |(_, cause)| cause);
    let after = after.replace(&format!("{dir}/"), "");
    Some((index, quoted(format!("{cause}{after}").trim_start())))
}

/// The messages of level ALERT with the lines that continue them, without time, process id and the closing ones
/// that only say that there were errors.
fn alerts(log: &str) -> Vec<String> {
    let mut alerts: Vec<String> = Vec::new();
    let mut inside = false;
    for line in log.lines() {
        let line = line.trim_end();
        if let Some(message) = line.strip_prefix("[ALERT]") {
            let message = without_origin(message);
            inside = !is_closing(message);
            if inside {
                alerts.push(message.to_owned());
            }
        } else if is_message(line) || line.trim().is_empty() {
            inside = false;
        } else if let Some(last) = alerts.last_mut().filter(|_| inside) {
            last.push(' ');
            last.push_str(line.trim_start());
        }
    }
    alerts.dedup();
    for alert in &mut alerts {
        // HAProxy itself doubles it (2.2 to 3.4), and no file has this name.
        while alert.contains(".sctl.sctl") {
            *alert = alert.replace(".sctl.sctl", ".sctl");
        }
    }
    alerts
}

/// Cuts ` 327/013633 (17516) : ` (2.2) or `    (17518) : config : ` (later).
fn without_origin(message: &str) -> &str {
    let message = message.split_once(") : ").map_or(message, |(_, rest)| rest).trim_start();
    message.strip_prefix("config : ").unwrap_or(message)
}

fn is_closing(message: &str) -> bool {
    ["Error(s) found in configuration file", "Fatal errors found in configuration"]
        .iter()
        .any(|closing| message.starts_with(closing))
}

/// Whether the line begins a message of HAProxy's: `[NOTICE]`, `[WARNING]`, `[diag]`...
fn is_message(line: &str) -> bool {
    line.strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
        .is_some_and(|(level, _)| !level.is_empty() && level.bytes().all(|byte| byte.is_ascii_alphabetic()))
}

/// The indices of the paths that the line names; a path that only begins a longer one there isn't named.
fn named_in(line: &str, paths: &[String]) -> Vec<usize> {
    let mut found: Vec<(usize, usize, usize)> = Vec::new(); // place, length, index
    for (index, path) in paths.iter().enumerate().filter(|(_, path)| !path.is_empty()) {
        for (place, _) in line.match_indices(path.as_str()) {
            if is_named_at(line, place, path.len()) {
                found.push((place, path.len(), index));
            }
        }
    }
    found.sort_by_key(|&(place, length, _)| (place, std::cmp::Reverse(length)));
    found.dedup_by_key(|&mut (place, ..)| place);
    found.into_iter().map(|(.., index)| index).collect()
}

/// Whether a name stands there by itself: between quotes, else between spaces, a colon or the end.
fn is_named_at(line: &str, place: usize, length: usize) -> bool {
    let before = line.get(..place).unwrap_or_default();
    let after = line.get(place + length..).unwrap_or_default();
    let after = without_siblings(after);
    if before.ends_with(['\'', '"']) {
        return after.starts_with(['\'', '"']);
    }
    (before.is_empty() || before.ends_with(' '))
        && (after.is_empty() || after == "." || after.starts_with([' ', ':', ',', ';']))
}

/// Without what makes it a sibling's name.
fn without_siblings(mut after: &str) -> &str {
    while let Some(rest) = without_sibling(after) {
        after = rest;
    }
    after
}

fn without_sibling(after: &str) -> Option<&str> {
    let ending = after.strip_prefix('.')?;
    SIBLINGS.iter().find_map(|sibling| ending.strip_prefix(sibling))
}

fn quoted(line: &str) -> String {
    match line.char_indices().nth(LINE) {
        Some((end, _)) => format!("{}...", escaped(line.get(..end).unwrap_or_default())),
        None => escaped(line).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(paths: &[&str]) -> Vec<String> {
        paths.iter().map(|&path| path.to_owned()).collect()
    }

    const OLD: &str = "\
[NOTICE] 327/013633 (17516) : haproxy version is 2.2.9-2+deb11u6
[NOTICE] 327/013633 (17516) : path to executable is /d/a.pem
[ALERT] 327/013633 (17516) : parsing [h.cfg:6] : 'bind :1' : unable to load certificate from file '/d/a.pem'.
[ALERT] 327/013633 (17516) : Error(s) found in configuration file : h.cfg
[ALERT] 327/013633 (17516) : Fatal errors found in configuration.
";

    fn new(message: &str) -> String {
        format!(
            "[NOTICE]   (1) : haproxy version is 3.2.26-1\n[WARNING]  (1) : config : '/d/aa.pem' is odd\n\
             [ALERT]    (1) : config : parsing [h.cfg:9] : 'bind *:443' in section 'frontend' : {message}\n\
             [ALERT]    (1) : config : Error(s) found in configuration file : h.cfg\n\
             [ALERT]    (1) : config : Fatal errors found in configuration.\n"
        )
    }

    #[test]
    fn only_its_own_error_lines_are_quoted() {
        assert_eq!(
            words(OLD),
            "parsing [h.cfg:6] : 'bind :1' : unable to load certificate from file '/d/a.pem'."
        );
        assert_eq!(
            words(&new("unknown keyword 'bogus'.")),
            "parsing [h.cfg:9] : 'bind *:443' in section 'frontend' : unknown keyword 'bogus'."
        );
        assert_eq!(words("Configuration file is valid\n"), "");
        assert_eq!(words("[WARNING] (1) : config : x\n"), "");
    }

    #[test]
    fn a_line_that_continues_an_alert_belongs_to_it() {
        let log = "[ALERT]    (1) : config : one\n  more of it\n\nnot this\n[NOTICE]   (1) : x\nnor this\n";
        assert_eq!(words(log), "one more of it");
    }

    #[test]
    fn the_cause_comes_first_and_the_advice_can_be_pasted() {
        let said = "parsing [/etc/haproxy/haproxy.cfg:60] : unknown keyword 'bogus' in 'global' section";
        assert_eq!(cause(said), "[/etc/haproxy/haproxy.cfg:60] unknown keyword 'bogus' in 'global' section");
        let of = |words, files: &[&str]| {
            advice(words, Path::new("haproxy"), &files.iter().map(PathBuf::from).collect::<Vec<_>>(), &[])
        };
        assert_eq!(
            of(said, &[]),
            "mend line 60 of /etc/haproxy/haproxy.cfg; check it with: haproxy -c -f /etc/haproxy/haproxy.cfg"
        );
        assert_eq!(
            of("parsing [b.cfg:2] : x", &["/etc/a.cfg", "/etc/b c.cfg"]),
            "mend line 2 of b.cfg; check it with: haproxy -c -f /etc/a.cfg -f '/etc/b c.cfg'"
        );
        let proxy = "Proxy 'x': unable to find required default_backend: 'y'.";
        assert_eq!(cause(proxy), proxy);
        assert_eq!(of(proxy, &["/a.cfg"]), "mend its configuration; check it with: haproxy -c -f /a.cfg");
        assert_eq!(of(proxy, &[]), "mend its configuration");
        assert_eq!(
            advice(proxy, Path::new("/opt/new/haproxy"), &[PathBuf::from("/a.cfg")], &[]),
            "mend its configuration; check it with: /opt/new/haproxy -c -f /a.cfg"
        );
        assert_eq!(of("x [::1] y", &[]), "mend its configuration");
        let file = "[/a.cfg:10] 'bind :443' in section 'frontend' : no private key found in '/more/z.pem'.";
        let loads = ["/more/z".to_owned(), "/more/z.pem".to_owned()];
        assert_eq!(
            advice(file, Path::new("haproxy"), &[], &loads),
            "mend /more/z.pem, which it can't load; check it with: haproxy -c -f /a.cfg"
        );
    }

    /// Each as the versions say it.
    #[test]
    fn the_file_that_a_line_names_may_be_what_is_to_be_mended() {
        for (said, other) in [
            (
                "'crt-list' : cannot open file '/c/l.list' : No such file or directory",
                "/c/l.list, which it can't load",
            ),
            ("'crt-list' : too many '[' on line 7 in file '/c/l.list'.", "line 7 of /c/l.list"),
            ("'crt-list' : parsing [/c/l.list:7]: too many '['", "line 7 of /c/l.list"),
            ("'ca-file' : unable to load /c/ca.pem.", "/c/ca.pem, which it can't load"),
            (
                "'server b/s' : Couldn't open the ca-file '/c/ca.pem' (No such file or directory).",
                "/c/ca.pem, which it can't load",
            ),
            (
                "'ssl-dh-param-file': unable to load DH parameters from file </c/dh>.",
                "/c/dh, which it can't load",
            ),
            ("errorfile : error opening file '/c/503.http'.", "/c/503.http, which it can't load"),
            (
                "error in Lua file '/c/x.lua': cannot open /c/x.lua: No such file",
                "/c/x.lua, which it can't load",
            ),
            (
                "error detected while parsing ACL 'x' : failed to open pattern file </c/x.acl>.",
                "/c/x.acl, which it can't load",
            ),
        ] {
            for words in [format!("parsing [/a.cfg:10] : {said}"), format!("[/a.cfg:10] : {said}")] {
                let advice = advice(&words, Path::new("haproxy"), &[], &[]);
                let expected =
                    format!("mend line 10 of /a.cfg, or {other}; check it with: haproxy -c -f /a.cfg");
                assert_eq!(advice, expected, "{words}");
            }
        }
    }

    #[test]
    fn words_are_bounded_and_printable() {
        let said = words(&new(&format!("\x1b[31m\u{fc}{}", "x".repeat(9000))));
        assert!(
            said.is_ascii() && said.contains("\\x1b[31m") && said.len() < 1000 && said.ends_with("..."),
            "{said}"
        );
        let many = (0..100).map(|n| format!("[ALERT] (1) : error {n}")).collect::<Vec<_>>().join("\n");
        assert_eq!(words(&many), "error 0; error 1; error 2; error 3; ...");
    }

    #[test]
    fn files_are_named_exactly_in_the_forms_of_every_version() {
        let list = paths(&["/d/aa.pem", "/d/a.pem.key.pem", "/d/a.pem", "/d/b.pem"]);
        assert_eq!(naming(OLD, &list).iter().map(|(index, _)| *index).collect::<Vec<_>>(), [2]);
        for message in [
            "unable to load certificate from file '/d/a.pem': no start line.",
            "inconsistencies between private key and certificate loaded '/d/a.pem'.",
            "No Private Key found in '/d/a.pem.key'.",
            "No Private Key found in '/d/a.pem' or '/d/a.pem.key'.",
            "error processing line 0 in file '/d' : unable to load SSL certificate into SSL Context '/d/a.pem': ee key too small.",
            "unable to load certificate chain from file '/d/a.pem': bad end line",
            "unable to load SSL private key from file /d/a.pem: x",
            " '/d/a.pem.sctl' is present but cannot be read or parsed'.",
            "error processing line 0 in file '/d' :  '/d/a.pem.ocsp' is present and activates OCSP but it is impossible.",
            "cannot open /d/a.pem",
        ] {
            let named = naming(&new(message), &list);
            assert_eq!(named.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [2], "{message}");
            assert!(named[0].1.contains(message), "{message}: {named:?}");
        }
    }

    #[test]
    fn the_file_that_is_named_is_there() {
        let log = new(" '/d/a.pem.sctl.sctl' is present but cannot be read or parsed'.");
        let said = "'/d/a.pem.sctl' is present";
        assert!(words(&log).contains(said), "{}", words(&log));
        let named = naming(&log, &paths(&["/d/a.pem"]));
        assert!(matches!(named.as_slice(), [(0, line)] if line.contains(said)), "{named:?}");
        let staged = named_in_folder(&log, "/d", &paths(&["a.pem"]));
        assert!(matches!(staged.as_slice(), [(0, line)] if line.contains("'a.pem.sctl' is")), "{staged:?}");
    }

    #[test]
    fn what_only_resembles_a_name_is_not_one() {
        let list = paths(&["/d/a.pem"]);
        for message in [
            "unable to load certificate from file '/d/aa.pem'.",
            "unable to load certificate from file '/x/d/a.pem'.",
            "unable to load certificate from file '/d/a.pem.old'.",
            "unable to load certificate from file '/d/a.pem~'.",
            "unable to load certificate from file '/d/a.pem x.pem'.",
            "unable to stat SSL certificate from file '/d' : No such file or directory.",
        ] {
            assert_eq!(naming(&new(message), &list), [], "{message}");
        }
        assert_eq!(naming(&new("x"), &paths(&["/d/aa.pem"])), [], "a warning is no refusal");
    }

    #[test]
    fn the_longer_name_wins_where_one_begins_the_other() {
        let list = paths(&["/d/a.pem", "/d/a.pem' b.pem"]);
        let log = new("unable to load certificate from file '/d/a.pem' b.pem'.");
        assert_eq!(naming(&log, &list).iter().map(|(index, _)| *index).collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn staged_files_lose_the_place_and_the_folder() {
        let files = paths(&["b.pem", "a.pem"]);
        for (message, cause) in [
            (
                "inconsistencies between private key and certificate loaded '/d/a.pem'.",
                "inconsistencies between private key and certificate loaded 'a.pem'.",
            ),
            (
                "error processing line 0 in file '/d' : unable to load SSL certificate into SSL Context '/d/a.pem': ee key too small.",
                "unable to load SSL certificate into SSL Context 'a.pem': ee key too small.",
            ),
            (
                "No Private Key found in '/d/a.pem' or '/d/a.pem.key'.",
                "No Private Key found in 'a.pem' or 'a.pem.key'.",
            ),
        ] {
            assert_eq!(named_in_folder(&new(message), "/d", &files), [(1, cause.to_owned())]);
        }
        assert_eq!(named_in_folder(&new("out of memory"), "/d", &files), []);
    }
}
