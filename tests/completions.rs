//! The completions as somebody at a terminal meets them: bash itself, on a terminal of its own, and the Tab key.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code may fail loudly")]

mod support;

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use support::tree::{make_directory, write};
use support::{Cmd, KeyKind, Tree, Validity};

/// Types these lines into bash, and says with what arguments it called the program for each.
fn typed(folder: &Path, lines: &[String]) -> Vec<String> {
    let (called, script) = (folder.join("called"), folder.join("completion.bash"));
    let output = Command::new(Cmd::program()).args(["completions", "bash"]).output().unwrap();
    fs::write(&script, output.stdout).unwrap();
    make_directory(&folder.join("bin"), 0o755);
    let program = format!(
        "#!/bin/sh\ncase \"$*\" in *\"completions lineages\") exec {} \"$@\" ;; esac\n{{ printf '<%s>' \"$@\"; echo; }} >>{}\n",
        Cmd::program().display(),
        called.display()
    );
    write(&folder.join("bin/haproxy-certs"), program, 0o755);
    let mut bash = Command::new("script")
        .args(["--quiet", "--return", "--command", "bash --norc --noprofile -i", "/dev/null"])
        .env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", folder.join("bin").display()))
        .env("TERM", "dumb")
        .env_remove("HAPROXY_CERTS_CONFIG")
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("script is one of Debian's essential programs");
    let mut keys = format!("bind 'set bell-style none'; source {}\n", script.display());
    for line in lines {
        keys.push_str(line);
        keys.push('\n');
    }
    keys.push_str("exit\n");
    bash.stdin.take().unwrap().write_all(keys.as_bytes()).unwrap();
    let shown = bash.wait_with_output().unwrap();
    let called = fs::read_to_string(called).unwrap_or_default();
    let called: Vec<String> = called.lines().map(ToOwned::to_owned).collect();
    assert_eq!(called.len(), lines.len(), "{called:#?}\n{}", String::from_utf8_lossy(&shown.stdout));
    called
}

#[test]
fn tab_offers_lineages_and_goes_on_below_directories() {
    let mut tree = Tree::new();
    for name in ["alpha.example", "beta.example"] {
        tree.issue(name, KeyKind::P256, &[name], Validity::days(90));
    }
    let folder = tempfile::tempdir().unwrap();
    let (live, here) = (tree.live(), folder.path());
    make_directory(&here.join("certs"), 0o755);
    make_directory(&here.join("certs/sites"), 0o755);
    write(&here.join("certs/settings.toml"), format!("live_dir = \"{}\"", live.display()), 0o644);
    let (live, here) = (live.display().to_string(), here.display());
    let called = typed(
        folder.path(),
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

/// zsh and fish are rarely here: their scripts at least ask for lineages where --force is completed.
#[test]
fn every_script_that_can_asks_for_lineages() {
    for (shell, asks) in [
        (
            "bash",
            "--force)\n                    COMPREPLY=($(compgen -W \"$(_haproxy_certs_lineages)\" -- \"${cur}\"))",
        ),
        ("zsh", ":LINEAGE:_haproxy_certs_lineages'"),
        ("fish", " -x -a \"(__haproxy_certs_lineages)\"\n"),
    ] {
        let output = Command::new(Cmd::program()).args(["completions", shell]).output().unwrap();
        let script = String::from_utf8(output.stdout).unwrap();
        assert_eq!(script.matches(asks).count(), 1, "{shell}: {script}");
        assert!(!script.contains("zsh lineages"), "{shell} offers what only scripts ask for");
        if Command::new(shell).arg("-c").arg("exit").status().is_ok() {
            let file = tempfile::NamedTempFile::new().unwrap();
            fs::write(file.path(), &script).unwrap();
            assert!(Command::new(shell).arg("-n").arg(file.path()).status().unwrap().success(), "{shell}");
        }
    }
}
