//! `init` on a host whose HAProxy loads certificates already: what it proposes, writes, and what a run says then.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may fail loudly")]

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
use support::cmd::toml;
use support::process::{Running, finish};
use support::tree::write;
use support::{Cmd, KeyKind, LIMIT, Port, Tree, Validity, served, system_haproxy, try_served, wait_until};
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

    /// Runs a shell's line there, in which `$@` is the program.
    fn shell(&self, line: &str) -> Said {
        let script = format!("mkdir -p /etc/haproxy && mount --bind \"$1\" /etc/haproxy && shift && {line}");
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--mount-proc", "sh", "-c", &script, "sh"]);
        command.arg(self.at("haproxy")).arg(env!("CARGO_BIN_EXE_haproxy-certs"));
        command.env("COLUMNS", "999");
        let output = finish(&mut command, LIMIT);
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        Said { text: text.into_owned(), code: output.status.code() }
    }

    /// The lines of the settings that are no comments, but for the directory of lineages, which each run is given.
    fn settings(&self) -> Vec<String> {
        let text = fs::read_to_string(self.at("settings.toml")).unwrap();
        let text = text.replace(self.folder.path().to_str().unwrap(), "DIR");
        let given = format!("live_dir = \"{}\"", self.tree.live().display());
        let is_found = |line: &&str| !line.is_empty() && !line.starts_with('#') && *line != given;
        text.lines().filter(is_found).map(str::to_owned).collect()
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
    // What is to be typed next reads the file that was just written.
    let next = format!("-> haproxy-certs --config {} ", host.at("settings.toml").display());
    assert!(made.text.contains(&next), "{}", made.text);
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

/// Of several directories the first is proposed and the others are named; the command that is said chooses one of these.
#[test]
fn several_directories_are_named_and_each_can_be_chosen() {
    let host = Host::new(tree());
    host.haproxy_cfg(&format!(
        "{GLOBAL}frontend a\n bind :443 ssl crt DIR/ssl/default.pem crt DIR/one\nfrontend b\n bind :444 ssl crt 'DIR/t wo/' crt \
         DIR/one crt-list DIR/list\n"
    ));
    put(&host.at("one/a.example.pem"), host.tree.leaf("a.example").combined(), 0o640);
    put(&host.at("t wo/b.example.pem"), host.tree.leaf("b.example").combined(), 0o600);
    put(&host.at("three/b.example.pem"), host.tree.leaf("b.example").combined(), 0o600);
    put(&host.at("ssl/default.pem"), host.tree.leaf("b.example").combined(), 0o600);
    let here = |text: &str| text.replace("DIR", host.folder.path().to_str().unwrap());
    fs::write(host.at("list"), here("DIR/three/b.example.pem\n")).unwrap();
    let also = here(
        "HAProxy also loads DIR/t wo (/etc/haproxy/haproxy.cfg:6), DIR/three (DIR/list:1): one directory is looked after; to \
         choose another one than DIR/one",
    );
    let command = here("--sites-dir 'DIR/t wo' init --write-config");
    let first = host.run(&["init", "--write-config", "--dry-run"]);
    assert!(first.code == Some(0) && first.text.contains(&also), "no {also} in {}", first.text);
    assert!(!host.at("settings.toml").exists());
    let line = first
        .text
        .lines()
        .find(|line| line.contains(&command))
        .unwrap()
        .split_once("-> ")
        .unwrap()
        .1
        .to_owned();
    let pasted = line.replace("haproxy-certs ", "\"$@\" ");
    let made = host.shell(&pasted);
    assert_eq!(made.code, Some(0), "{pasted}: {}", made.text);
    assert!(!made.text.contains("HAProxy also loads"), "{}", made.text);
    let settings = host.settings();
    assert_eq!(settings[..2], ["sites_dir = \"DIR/t wo\"", "mode = \"0600\""], "{}", made.text);
    // Where somebody has put lineages' files is where they belong, whatever comes first.
    fs::remove_file(host.at("settings.toml")).unwrap();
    put(&host.at("t wo/a.example.pem"), host.tree.leaf("a.example").combined(), 0o600);
    host.run(&["init", "--write-config"]);
    assert_eq!(host.settings()[0], "sites_dir = \"DIR/t wo\"");
    // The other one fits still.
    let other = host.run(&["--sites-dir", &here("DIR/one"), "init", "--write-config"]);
    assert!(other.text.contains(&here("-> sites_dir = \"DIR/one\"")), "{}", other.text);
}

/// Files that lines name one by one: their directory becomes the settings, nothing is to be loaded twice, and it is said that a
/// new one needs a line.
#[test]
fn files_that_lines_name_are_looked_after_where_they_are() {
    let used = "frontend https\n bind :443 ssl\n ssl-f-use crt DIR/certs/a.example.pem\n";
    let store = "crt-store s\n crt-base DIR/certs\n load crt a.example.pem alias a\nfrontend https\n bind :443 ssl crt @s/a\n";
    let with_default = "frontend https\n bind :443 ssl crt DIR/ssl/default.pem crt-list DIR/list\n";
    for (text, host_file, needed) in [
        (
            with_default,
            "DIR/ssl/default.pem",
            "add its line: printf '\\n%s\\n' DIR/certs/example.org.pem >> DIR/list",
        ),
        (used, "DIR/host.pem", "add \"ssl-f-use crt DIR/certs/example.org.pem\" to frontend https"),
        (store, "DIR/host.pem", "add \"load crt DIR/certs/example.org.pem alias example.org.pem\" behind"),
    ] {
        let host = Host::new(tree());
        let here = |text: &str| text.replace("DIR", host.folder.path().to_str().unwrap());
        host.haproxy_cfg(&format!("{GLOBAL}{text}"));
        put(&host.at("certs/a.example.pem"), host.tree.leaf("a.example").combined(), 0o640);
        put(&host.at("ssl/default.pem"), host.tree.leaf("b.example").combined(), 0o600);
        fs::write(host.at("list"), here("DIR/certs/a.example.pem [alpn h2]\n")).unwrap();
        fs::write(host.at("settings.toml"), "# nothing\n").unwrap();
        let setup = host.run(&["status", "--setup"]);
        assert!(!setup.text.contains("-> bind :443"), "{}", setup.text);
        assert!(setup.text.contains(&here("-> sites_dir = \"DIR/certs\"")), "{}", setup.text);
        fs::remove_file(host.at("settings.toml")).unwrap();
        let made = host.run(&["init", "--write-config"]);
        assert_eq!(made.code, Some(0), "{}", made.text);
        for part in ["by a line for each", "a new certificate needs a line of its own", &here(needed)] {
            assert!(made.text.contains(part), "no {part:?} in {}", made.text);
        }
        let expected = [
            "sites_dir = \"DIR/certs\"",
            "mode = \"0640\"",
            &format!("host_file = \"{host_file}\""),
            "[[haproxy]]",
            "runtime_socket = \"/run/haproxy/admin.sock\"",
        ];
        assert_eq!(host.settings(), expected, "{text}");
        let run = host.run(&["assemble", "--dry-run", "-v"]);
        assert!(run.text.contains("unchanged  a.example.pem"), "{}", run.text);
        assert!(run.text.contains("install    b.example.pem"), "{}", run.text);
        let setup = host.run(&["status", "--setup"]);
        assert!(setup.text.contains("that lines name one by one"), "{}", setup.text);
        assert!(!setup.text.contains("no bind line of haproxy loads"), "{}", setup.text);
    }
}

/// Files that a bind names one by one: where they are named as ours, their directory is proposed; else it is said what is loaded.
#[test]
fn files_that_a_bind_names_are_looked_after_where_they_are() {
    for (certificates, host_file) in [
        ("crt DIR/certs/a.example.pem crt DIR/certs/b.example.pem", "DIR/host.pem"),
        (
            "crt DIR/ssl/default.pem crt DIR/certs/a.example.pem crt DIR/certs/other.pem",
            "DIR/ssl/default.pem",
        ),
    ] {
        let host = Host::new(tree());
        let here = |text: &str| text.replace("DIR", host.folder.path().to_str().unwrap());
        host.haproxy_cfg(&format!("{GLOBAL}frontend https\n bind :443 ssl {certificates}\n"));
        for name in ["a.example", "b.example"] {
            put(&host.at(&format!("certs/{name}.pem")), host.tree.leaf(name).combined(), 0o600);
        }
        for other in ["certs/other.pem", "ssl/default.pem"] {
            put(&host.at(other), host.tree.leaf("b.example").combined(), 0o600);
        }
        let made = host.run(&["init", "--write-config"]);
        assert!(made.code == Some(0) && made.text.contains("by a line for each"), "{}", made.text);
        let needed = here("add \"crt DIR/certs/example.org.pem\" to the bind line");
        assert!(made.text.contains(&needed), "{}", made.text);
        let host_file = format!("host_file = \"{host_file}\"");
        let expected = ["sites_dir = \"DIR/certs\"", "mode = \"0600\"", &host_file];
        assert_eq!(host.settings()[..3], expected, "{certificates}");
        let setup = host.run(&["status", "--setup", "-v"]);
        assert!(setup.text.contains("setup ok   crt:"), "{}", setup.text);
        assert!(!setup.text.contains("no bind line of haproxy loads"), "{}", setup.text);
    }
    // Under other names, in several directories, and beside HAProxy's own configuration.
    for certificates in [
        "crt DIR/certs/one.pem",
        "crt DIR/certs/a.example.pem crt DIR/more/b.example.pem",
        "crt /etc/haproxy/a.example.pem",
    ] {
        let host = Host::new(tree());
        host.haproxy_cfg(&format!("{GLOBAL}frontend https\n bind :443 ssl {certificates}\n"));
        for file in ["certs/one.pem", "certs/a.example.pem", "more/b.example.pem", "haproxy/a.example.pem"] {
            put(&host.at(file), host.tree.leaf("a.example").combined(), 0o600);
        }
        let first = certificates.split(' ').nth(1).unwrap();
        let first = first.replace("DIR", host.folder.path().to_str().unwrap());
        for arguments in [&["init", "--write-config"][..], &["init", "--dry-run"]] {
            let said = host.run(arguments);
            let now = format!("HAProxy loads {first} (/etc/haproxy/haproxy.cfg:4)");
            assert!(said.text.contains(&now), "no {now} in {}", said.text);
            assert!(said.text.contains("/etc/haproxy/haproxy.cfg:4: \"crt /usr/local/ssl"), "{}", said.text);
        }
        assert_eq!(host.settings(), [""; 0], "{certificates}");
    }
}

/// certbot's own two files by a `crt-store`, and files of several directories: nothing is proposed, least of all certbot's tree.
#[test]
fn what_lines_name_here_and_there_is_not_adopted() {
    let host = Host::new(tree());
    let live = host.tree.live().display().to_string();
    let store = format!(
        "crt-store s\n load crt {live}/a.example/fullchain.pem key {live}/a.example/privkey.pem alias a\n\
         frontend https\n bind :443 ssl crt @s/a\n"
    );
    put(&host.at("one/a.pem"), host.tree.leaf("a.example").combined(), 0o640);
    put(&host.at("two/b.pem"), host.tree.leaf("b.example").combined(), 0o640);
    fs::write(
        host.at("list"),
        "DIR/one/a.pem\nDIR/two/b.pem\nDIR/one/a.pem\n".replace("DIR", host.folder.path().to_str().unwrap()),
    )
    .unwrap();
    for text in [store.as_str(), "frontend https\n bind :443 ssl crt-list DIR/list\n"] {
        host.haproxy_cfg(text);
        let dry = host.run(&["init", "--write-config", "--dry-run"]);
        assert!(dry.code == Some(0) && !dry.text.contains("sites_dir = "), "{}", dry.text);
    }
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

/// The layout of the official container images, emulated, since no image can be had: user 99, process 1, its configuration
/// and a mounted directory below /usr/local/etc/haproxy, /var/lib/haproxy to write to, neither systemd nor /etc/haproxy.
/// The network and the libraries are this host's.
struct Image {
    folder: PathBuf,
    container: Option<Running>,
}

/// Where the program is in there.
const PROGRAM: &str = "/usr/local/etc/haproxy-certs";

impl Image {
    /// Starts HAProxy with this line of a shell, and waits until it serves on this port.
    fn start(&mut self, line: &str, port: &Port) {
        self.stop();
        let mounts = "set -e; for name in /run /var/lib/haproxy /etc/haproxy /usr/local/etc; do
            mount -t tmpfs none $name; done
            chown 99:99 /var/lib/haproxy; mkdir /usr/local/etc/haproxy; cp $2 /usr/local/etc/haproxy-certs
            mount --bind $1 /usr/local/etc/haproxy; cd /var/lib/haproxy
            exec setpriv --reuid 99 --regid 99 --clear-groups $3";
        let container = Running::start("unshare", |command| {
            command.args([
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "--mount-proc",
                "sh",
                "-c",
                mounts,
                "sh",
            ]);
            command.arg(&self.folder).arg(env!("CARGO_BIN_EXE_haproxy-certs")).arg(line)
        });
        self.container = Some(container);
        wait_until(LIMIT, "HAProxy", || try_served(port.address(), "a.example").is_ok());
    }

    /// Ends HAProxy, and its container with it: `unshare` itself passes no signal on.
    fn stop(&mut self) {
        if let Some(mut container) = self.container.take() {
            let _ = kill_process(Pid::from_raw(Self::first(&container)).unwrap(), Signal::TERM);
            container.wait(LIMIT);
        }
    }

    /// What is process 1 in there.
    fn first(container: &Running) -> i32 {
        let outer = container.pid();
        let children = fs::read_to_string(format!("/proc/{outer}/task/{outer}/children")).unwrap();
        children.trim().parse().unwrap()
    }

    /// Runs the program in there, as root by way of `docker exec -u 0`, or as the image's user.
    fn run(&self, as_root: bool, arguments: &[&str], settings: Option<&Path>) -> Said {
        let first = Self::first(self.container.as_ref().unwrap()).to_string();
        let mut command = Command::new("nsenter");
        command.args(["-t", &first, "-m", "-p", "setpriv"]);
        let id = if as_root { 0 } else { 99 };
        command.args([&format!("--reuid={id}"), &format!("--regid={id}"), "--clear-groups", PROGRAM]);
        command.args(arguments).env("COLUMNS", "999").env_remove("HAPROXY_CERTS_CONFIG");
        command.envs(settings.map(|file| ("HAPROXY_CERTS_CONFIG", file)));
        Self::said(&mut command)
    }

    /// Runs the program with the host's files, where no other HAProxy is in sight than this one.
    fn run_outside(&self, arguments: &[&str], settings: &Path) -> Said {
        let first = Self::first(self.container.as_ref().unwrap()).to_string();
        let mut command = Command::new("nsenter");
        command.args(["-t", &first, "-p", "unshare", "--mount", "--mount-proc"]);
        command.arg(env!("CARGO_BIN_EXE_haproxy-certs")).args(arguments);
        command.env("COLUMNS", "999").env("HAPROXY_CERTS_CONFIG", settings);
        Self::said(&mut command)
    }

    fn said(command: &mut Command) -> Said {
        let output = finish(command, LIMIT);
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        Said { text: text.into_owned(), code: output.status.code() }
    }
}

#[test]
fn the_official_images_layout() {
    let mut tree = tree();
    let temporary = tempfile::Builder::new().prefix("haproxy-certs-image-").tempdir().unwrap();
    let folder = temporary.path().join("mounted");
    let port = Port::free();
    put(&folder.join("certs/a.example.pem"), tree.leaf("a.example").combined(), 0o600);
    let text = format!(
        "defaults\n mode http\n timeout client 9s\n timeout connect 9s\n timeout server 9s\n\
         frontend https\n bind 127.0.0.1:{} ssl crt /usr/local/etc/haproxy/certs/\n default_backend web\n\
         backend web\n server web 127.0.0.1:9\n",
        port.number()
    );
    write(&folder.join("haproxy.cfg"), text, 0o644);
    for path in ["", "certs", "certs/a.example.pem"] {
        chown(folder.join(path), Some(99), Some(99)).unwrap();
    }
    let mut image = Image { folder, container: None };
    let haproxy = system_haproxy().program;
    // What the image's entry point makes of `haproxy -f …`.
    image.start(&format!("{} -W -db -f /usr/local/etc/haproxy/haproxy.cfg", haproxy.display()), &port);

    let loads = "HAProxy loads /usr/local/etc/haproxy/certs already (/usr/local/etc/haproxy/haproxy.cfg:7)";
    let deaf = "nothing can make HAProxy reload";
    if !Path::new("/etc/haproxy-certs.toml").exists() {
        for as_root in [true, false] {
            let first = image.run(as_root, &["init", "--dry-run"], None);
            assert!(first.code == Some(0) && first.text.contains(loads), "{}", first.text);
            assert!(first.text.contains(deaf) && !first.text.contains("to make"), "{}", first.text);
        }
    }
    let settings = temporary.path().join("settings.toml");
    let made = image.run(true, &["init", "--write-config"], Some(&settings));
    assert!(made.code == Some(0) && made.text.contains(loads), "{}", made.text);
    let text = fs::read_to_string(&settings).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let expected = [
        "sites_dir = \"/usr/local/etc/haproxy/certs\"",
        "owner = \"99:99\"",
        "mode = \"0600\"",
        "host_file = \"/usr/local/etc/haproxy/host.pem\"",
    ];
    assert_eq!(lines, expected);
    // The host sees this HAProxy, too: those paths aren't the host's.
    let outside = temporary.path().join("outside.toml");
    let said = image.run_outside(&["init", "--write-config"], &outside);
    for part in [
        "as in a container; set sites_dir to the directory of this host that is mounted there",
        "-> sites_dir = \"/usr/local/etc/haproxy/certs\"",
    ] {
        assert!(said.code == Some(0) && said.text.contains(part), "no {part:?} in {}", said.text);
    }
    assert!(!said.text.contains(deaf), "{}", said.text);
    assert_eq!(fs::read_to_string(&outside).unwrap(), include_str!("../packaging/haproxy-certs.toml"));

    let live = tree.live().display().to_string();
    let run = |image: &Image, arguments: &[&str]| {
        let mut all = vec!["--live-dir", &live];
        all.extend(arguments);
        image.run(true, &all, Some(&settings))
    };
    let dry = run(&image, &["assemble", "--dry-run", "-v"]);
    assert!(dry.code == Some(0) && dry.text.contains("unchanged  a.example.pem"), "{}", dry.text);
    assert!(dry.text.contains("install    b.example.pem"), "{}", dry.text);
    let status = run(&image, &["status", "--setup"]);
    for line in [
        "haproxy accepts its configuration",
        "crt: frontend https (/usr/local/etc/haproxy/haproxy.cfg:7) loads /usr/local/etc/haproxy/certs",
        "-> stats socket /var/lib/haproxy/admin.sock mode 660 level admin",
        "nobody else can change /usr/local/etc/haproxy/certs",
    ] {
        assert!(status.text.contains(line), "no {line:?} in {}", status.text);
    }

    // The lines of the advice, as they are.
    let advice: Vec<&str> = made.text.split(deaf).nth(1).unwrap().lines().skip(1).take(3).collect();
    let [command, socket, pidfile] = [0, 1, 2].map(|line| advice[line].trim().trim_start_matches("-> "));
    fs::write(&settings, format!("{}\n[[haproxy]]\n{socket}\n{pidfile}\n", expected.join("\n"))).unwrap();
    image.start(command, &port);
    let deployed = run(&image, &["assemble"]);
    assert_eq!(deployed.code, Some(0), "{}", deployed.text);
    assert_eq!(served(port.address(), "b.example").names, ["b.example"]);
    let renewed = tree.renew("a.example");
    assert_eq!(run(&image, &["assemble"]).code, Some(0));
    assert_eq!(served(port.address(), "a.example"), renewed.served());
    let status = run(&image, &["status"]);
    assert_eq!(status.code, Some(0), "{}", status.text);
    image.stop();
}

/// A directory that is mounted, as in a container: no host certificate can lie beside it, and all else is made.
#[test]
fn a_directory_on_a_file_system_of_its_own_is_made_ready() {
    // /dev/shm is a file system of its own.
    let mounted = tempfile::Builder::new().tempdir_in("/dev/shm").unwrap();
    let tree = tree();
    let cmd = Cmd::new(tree.live()).with_sites(mounted.path()).without_haproxy();
    let host = cmd.beside("host.pem");
    let cmd = cmd.option(&format!("host_file = {}", toml(&host)));
    let said = cmd.run(&["init", "--hook"]).exits(0);
    assert!(!said.stdout.contains("host certificate"), "{said}");
    assert!(!host.exists() && mounted.path().join(".haproxy-certs").is_dir(), "{said}");
    cmd.assemble(&[]).exits(0);
    // With a lineage for it, a run would refuse: so does init.
    let said = cmd.option("host_lineage = \"a.example\"").run(&["init"]).exits(3);
    assert!(said.stderr.contains("is on another file system than sites_dir"), "{said}");
}
