//! The completions as somebody at a terminal meets them: the shells themselves, bash and zsh on a terminal of their own, and the
//! Tab key.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code may fail loudly")]

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use support::tree::{make_directory, write};
use support::{Cmd, KeyKind, Tree, Validity};

/// Types these lines into an interactive shell that has been told to load its script from this folder, and says with what
/// arguments it called the program for each.
fn typed(folder: &Path, shell: &str, lines: &[String]) -> Vec<String> {
    let called = with_script(folder, shell);
    let (starts, loads) = match shell {
        "bash" => ("bash --norc --noprofile -i", "bind 'set bell-style none'; source ./script".to_owned()),
        "zsh" => (
            "zsh -f -i",
            format!(
                "fpath=({} $fpath); autoload -Uz compinit; compinit -u -D; unsetopt beep",
                folder.display()
            ),
        ),
        _ => panic!("{shell} isn't typed into"),
    };
    let mut shell = Command::new("script")
        .args(["--quiet", "--return", "--command", starts, "/dev/null"])
        .env("PATH", path(folder))
        .env("TERM", "dumb")
        .env_remove("HAPROXY_CERTS_CONFIG")
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("script is one of Debian's essential programs");
    let keys = format!("{loads}\n{}\nexit\n", lines.join("\n"));
    shell.stdin.take().unwrap().write_all(keys.as_bytes()).unwrap();
    let shown = shell.wait_with_output().unwrap();
    let called = fs::read_to_string(called).unwrap_or_default();
    let called: Vec<String> = called.lines().map(ToOwned::to_owned).collect();
    assert_eq!(called.len(), lines.len(), "{called:#?}\n{}", String::from_utf8_lossy(&shown.stdout));
    called
}

/// The shell's script, where each of them looks for it, and a program that notes in the returned file how it was called.
fn with_script(folder: &Path, shell: &str) -> PathBuf {
    let output = Command::new(Cmd::program()).args(["completions", shell]).output().unwrap();
    let script = if shell == "zsh" { "_haproxy-certs" } else { "script" };
    fs::write(folder.join(script), output.stdout).unwrap();
    make_directory(&folder.join("bin"), 0o755);
    let called = folder.join("called");
    let program = format!(
        "#!/bin/sh\ncase \"$*\" in *\"completions lineages\") exec {} \"$@\" ;; esac\n{{ printf '<%s>' \"$@\"; echo; }} >>{}\n",
        Cmd::program().display(),
        called.display()
    );
    write(&folder.join("bin/haproxy-certs"), program, 0o755);
    called
}

fn path(folder: &Path) -> String {
    format!("{}:/usr/local/bin:/usr/bin:/bin", folder.join("bin").display())
}

/// Two lineages, `certs/sites` and `certs/settings.toml`, which names the live directory.
fn here(folder: &Path) -> Tree {
    let mut tree = Tree::new();
    for name in ["alpha.example", "beta.example"] {
        tree.issue(name, KeyKind::P256, &[name], Validity::days(90));
    }
    make_directory(&folder.join("certs"), 0o755);
    make_directory(&folder.join("certs/sites"), 0o755);
    let settings = format!("live_dir = \"{}\"", tree.live().display());
    write(&folder.join("certs/settings.toml"), settings, 0o644);
    tree
}

#[test]
fn tab_in_bash_offers_lineages_and_goes_on_below_directories() {
    let folder = tempfile::tempdir().unwrap();
    let tree = here(folder.path());
    let (live, here) = (tree.live().display().to_string(), folder.path().display());
    let called = typed(
        folder.path(),
        "bash",
        &[
            format!("haproxy-certs --live-dir {live} assemble --force al\t"),
            format!("haproxy-certs assemble --live-dir={live} --force=be\t"),
            "haproxy-certs --config certs/settings.toml assemble --force be\t".to_owned(),
            format!("haproxy-certs status --sites-dir {here}/cer\tsi\t"),
            format!("haproxy-certs status --live-dir {here}/cer\tsi\t"),
            format!("haproxy-certs --config {here}/cer\tset\tstatus"),
            "haproxy-certs completions \t-v".to_owned(),
        ],
    );
    assert_eq!(
        called,
        [
            format!("<--live-dir><{live}><assemble><--force><alpha.example>"),
            format!("<assemble><--live-dir={live}><--force=beta.example>"),
            "<--config><certs/settings.toml><assemble><--force><beta.example>".to_owned(),
            format!("<status><--sites-dir><{here}/certs/sites/>"),
            format!("<status><--live-dir><{here}/certs/sites/>"),
            format!("<--config><{here}/certs/settings.toml><status>"),
            "<completions><-v>".to_owned(),
        ]
    );
}

#[test]
fn tab_in_zsh_offers_lineages_and_goes_on_below_directories() {
    let folder = tempfile::tempdir().unwrap();
    let tree = here(folder.path());
    let (live, here) = (tree.live().display().to_string(), folder.path().display());
    let called = typed(
        folder.path(),
        "zsh",
        &[
            format!("haproxy-certs --live-dir {live} assemble --force al\t"),
            format!("haproxy-certs assemble --live-dir={live} --force=be\t"),
            "haproxy-certs --config certs/settings.toml assemble --force be\t".to_owned(),
            format!("haproxy-certs status --sites-dir {here}/cer\tsi\t"),
            format!("haproxy-certs --config {here}/cer\tset\tstatus"),
            "haproxy-certs comp\tzs\t".to_owned(),
        ],
    );
    assert_eq!(
        called,
        [
            format!("<--live-dir><{live}><assemble><--force><alpha.example>"),
            format!("<assemble><--live-dir={live}><--force=beta.example>"),
            "<--config><certs/settings.toml><assemble><--force><beta.example>".to_owned(),
            format!("<status><--sites-dir><{here}/certs/sites>"),
            format!("<--config><{here}/certs/settings.toml><status>"),
            "<completions><zsh>".to_owned(),
        ]
    );
}

/// fish says itself what Tab offers: `complete -C LINE`, a line each, with a description behind a tab.
#[test]
fn fish_offers_lineages_and_subcommands() {
    let folder = tempfile::tempdir().unwrap();
    let tree = here(folder.path());
    let live = tree.live().display().to_string();
    with_script(folder.path(), "fish");
    for (line, offered) in [
        (format!("haproxy-certs --live-dir {live} assemble --force al"), vec!["alpha.example"]),
        (format!("haproxy-certs --live-dir {live} assemble --force "), vec!["alpha.example", "beta.example"]),
        (format!("haproxy-certs assemble --live-dir={live} --force=be"), vec!["--force=beta.example"]),
        ("haproxy-certs --config certs/settings.toml assemble --force be".to_owned(), vec!["beta.example"]),
        ("haproxy-certs stat".to_owned(), vec!["status"]),
        ("haproxy-certs status --sites-dir cer".to_owned(), vec!["certs/"]),
    ] {
        let output = Command::new("fish")
            .args(["--no-config", "-c", "source ./script; complete -C $argv[1]", "--", &line])
            .envs([("PATH", path(folder.path())), ("HOME", folder.path().display().to_string())])
            .env_remove("HAPROXY_CERTS_CONFIG")
            .current_dir(folder.path())
            .output()
            .expect("no fish: tests/install");
        let shown = String::from_utf8(output.stdout).unwrap();
        let words: Vec<&str> = shown.lines().map(|line| line.split('\t').next().unwrap_or(line)).collect();
        assert_eq!(words, offered, "{line}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
