//! `init` on a host whose HAProxy loads certificates already: what it proposes, writes, and what a run says then.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may fail loudly")]

mod support;

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::process::finish;
use support::tree::write;
use support::{KeyKind, LIMIT, Tree, Validity};
use tempfile::TempDir;

/// A host of its own: in its mount and process namespaces `/etc/haproxy/haproxy.cfg` is this one, `/etc/letsencrypt` this
/// tree's, and no HAProxy runs.
struct Host {
    folder: TempDir,
    tree: Tree,
}

/// What the program said, and its exit status.
struct Said {
    text: String,
    code: Option<i32>,
}

impl Host {
    fn new(tree: Tree) -> Self {
        let folder = tempfile::Builder::new().prefix("haproxy-certs-adopt-").tempdir().unwrap();
        fs::create_dir_all(folder.path().join("haproxy")).unwrap();
        Self { folder, tree }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes the haproxy.cfg; `DIR` in it stands for this host's directory.
    fn haproxy_cfg(&self, text: &str) {
        let text = text.replace("DIR", self.folder.path().to_str().unwrap());
        fs::write(self.at("haproxy/haproxy.cfg"), text).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Said {
        let script = "mkdir -p /etc/haproxy && mount --bind \"$1\" /etc/haproxy && shift && exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--mount-proc", "sh", "-c", script, "sh"]);
        command.arg(self.at("haproxy")).arg(env!("CARGO_BIN_EXE_haproxy-certs"));
        command.arg("--live-dir").arg(self.tree.live()).args(arguments);
        command.env("HAPROXY_CERTS_CONFIG", self.at("settings.toml")).env("COLUMNS", "999");
        let output = finish(&mut command, LIMIT);
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        Said { text: text.into_owned(), code: output.status.code() }
    }

    /// The lines of the settings that are no comments.
    fn settings(&self) -> Vec<String> {
        let text = fs::read_to_string(self.at("settings.toml")).unwrap();
        let text = text.replace(self.folder.path().to_str().unwrap(), "DIR");
        text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
    }
}

fn tree() -> Tree {
    let mut tree = Tree::new();
    tree.issue("a.example", KeyKind::P256, &["a.example"], Validity::days(90));
    tree.issue("b.example", KeyKind::P256, &["b.example"], Validity::days(90));
    tree
}

fn put(path: &Path, pem: impl AsRef<[u8]>, mode: u32) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    write(path, pem, mode);
}

const GLOBAL: &str = "global\n stats socket /run/haproxy/admin.sock mode 660 level admin\n";

/// The layout that most scripts have: what the hook laid down is taken over, and nothing else is touched.
#[test]
fn a_directory_that_is_loaded_becomes_the_settings() {
    let host = Host::new(tree());
    host.haproxy_cfg(&format!(
        "{GLOBAL}frontend https\n bind :443 ssl crt DIR/ssl/default.pem crt DIR/certs/ alpn h2\n"
    ));
    put(&host.at("certs/a.example.pem"), host.tree.leaf("a.example").combined(), 0o640);
    put(&host.at("ssl/default.pem"), host.tree.leaf("b.example").combined(), 0o600);
    chown(host.at("certs/a.example.pem"), Some(0), Some(4)).unwrap();
    let dry = host.run(&["init", "--write-config", "--dry-run"]);
    assert_eq!(dry.code, Some(0), "{}", dry.text);
    for part in
        ["HAProxy loads ", "/certs already (/etc/haproxy/haproxy.cfg:4)", "\n           sites_dir = \""]
    {
        assert!(dry.text.contains(part), "no {part:?} in {}", dry.text);
    }
    assert!(!host.at("settings.toml").exists(), "a dry run");
    let made = host.run(&["init", "--write-config"]);
    assert!(made.code == Some(0) && made.text.starts_with("made "), "{}", made.text);
    let expected = [
        "sites_dir = \"DIR/certs\"",
        "owner = \"root:adm\"",
        "mode = \"0640\"",
        "host_file = \"DIR/ssl/default.pem\"",
        "[[haproxy]]",
        "runtime_socket = \"/run/haproxy/admin.sock\"",
    ];
    assert_eq!(host.settings(), expected);
    let run = host.run(&["assemble", "--dry-run", "-v"]);
    assert_eq!(run.code, Some(0), "{}", run.text);
    assert!(run.text.contains("unchanged  a.example.pem"), "{}", run.text);
    assert!(run.text.contains("install    b.example.pem"), "{}", run.text);

    // What was edited stays, and what would fit is said.
    fs::write(host.at("settings.toml"), "mode = \"0600\"\n").unwrap();
    let again = host.run(&["init", "--write-config"]);
    assert!(again.text.contains("was edited: these settings would fit"), "{}", again.text);
    assert!(again.text.contains("-> owner = \"root:adm\""), "{}", again.text);
    assert_eq!(host.settings(), ["mode = \"0600\""]);
    // The file of comments that an earlier one wrote isn't an edited one.
    fs::write(host.at("settings.toml"), include_str!("../packaging/haproxy-certs.toml")).unwrap();
    host.run(&["init", "--write-config"]);
    assert_eq!(host.settings(), expected);
}

/// Without a certificate before the directory, and with what acme.sh's hook and old scripts leave there.
#[test]
fn what_others_left_there_is_told_apart() {
    let host = Host::new(tree());
    host.haproxy_cfg("frontend https\n bind :443 ssl crt 'DIR/ssl/haproxy'\n");
    put(&host.at("ssl/haproxy/a.example.pem"), host.tree.leaf("a.example").combined(), 0o600);
    let mut other = Tree::new();
    let theirs = other.issue("c.example", KeyKind::P256, &["c.example"], Validity::days(90));
    put(&host.at("ssl/haproxy/c.example.pem"), theirs.combined(), 0o600);
    put(&host.at("ssl/haproxy/b.example.pem"), theirs.combined(), 0o600);
    host.run(&["init", "--write-config"]);
    let expected = ["sites_dir = \"DIR/ssl/haproxy\"", "mode = \"0600\"", "host_file = \"DIR/ssl/host.pem\""];
    assert_eq!(host.settings(), expected);
    let run = host.run(&["assemble", "--dry-run", "-v"]);
    assert_eq!(run.code, Some(1), "{}", run.text);
    for line in ["unchanged  a.example.pem", "conflict   b.example.pem", "foreign    c.example.pem"] {
        assert!(run.text.contains(line), "no {line} in {}", run.text);
    }
}

/// Plain `init` makes no directory that HAProxy doesn't load: it says which one it does.
#[test]
fn without_settings_init_proposes_before_it_makes() {
    let host = Host::new(tree());
    host.haproxy_cfg("frontend https\n bind :443 ssl crt DIR/certs\n");
    put(&host.at("certs/a.example.pem"), host.tree.leaf("a.example").combined(), 0o600);
    let mut command = Command::new("unshare");
    let script = "mkdir -p /etc/haproxy && mount --bind \"$1\" /etc/haproxy && shift && exec \"$@\"";
    command.args(["--mount", "--pid", "--fork", "--mount-proc", "sh", "-c", script, "sh"]);
    command.arg(host.at("haproxy")).arg(env!("CARGO_BIN_EXE_haproxy-certs"));
    command.args(["init", "--dry-run"]).env_remove("HAPROXY_CERTS_CONFIG").env("COLUMNS", "999");
    let output = finish(&mut command, LIMIT);
    let said = String::from_utf8_lossy(&output.stdout);
    if !Path::new("/etc/haproxy-certs.toml").exists() {
        assert!(
            said.contains("/certs already (/etc/haproxy/haproxy.cfg:2); let haproxy-certs look after it")
        );
        assert!(
            said.contains("-> haproxy-certs init --write-config\n") && !said.contains("to make"),
            "{said}"
        );
    }
}
