//! Private keys stay where they belong, and the program needs no more rights than it says.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    clippy::case_sensitive_file_extension_comparisons,
    reason = "tests may fail loudly"
)]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, lchown};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use support::live::{Live, renew_two};
use support::memory::{Memory, needles};
use support::process::finish;
use support::scene::{Scene, put};
use support::strace::TRACED_LIMIT;
use support::summary::{Count, say};
use support::{Cmd, KeyKind, Kind, LIMIT, Run, Tree, Validity, version, wait_until};

/// No write that the kernel sees has a key's bytes but those to the PEM, staged, and to HAProxy's socket.
#[test]
fn keys_are_written_nowhere_else() {
    support::strace::must_be_there();
    let mut live = Live::start(&version("2.6").unwrap(), "", &[]);
    renew_two(&mut live);
    let secrets: Vec<String> = ["a.example", "b.example", "c.example"]
        .iter()
        .flat_map(|name| needles(live.tree.leaf(name)))
        .collect();
    assert_eq!(secrets.len(), 3, "one piece of each: the rest of a P-256 key is public");
    let log = live.cmd.beside("strace.log");
    let mut command = Command::new("strace");
    command.args(["-f", "-y", "-s", "100000", "-e"]);
    command.arg("trace=write,writev,pwrite64,pwritev,pwritev2,sendto,sendmsg,sendmmsg,execve,splice,sendfile,copy_file_range");
    command.arg("-o").arg(&log).arg(Cmd::program());
    command.arg("--config").arg(live.cmd.config()).args(["assemble", "-v"]);
    live.cmd.prepare(&mut command);
    let output = finish(&mut command, TRACED_LIMIT);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
    let (mut staged, mut sent, mut looked) = (0, 0, 0);
    for line in String::from_utf8_lossy(&fs::read(&log).unwrap()).lines() {
        looked += 1;
        if !secrets.iter().any(|secret| line.contains(secret.as_str())) {
            continue;
        }
        let call = line.split_once(' ').unwrap().1.trim_start();
        let sites = live.cmd.sites();
        let stage = format!("<{}/.haproxy-certs/stage/", sites.display());
        let target = call.split_once('>').unwrap().0;
        match call.split('(').next().unwrap() {
            "write" if target.contains(&stage) && target.ends_with(".pem") => staged += 1,
            "sendto" if target.contains("<socket:") => sent += 1,
            _ => panic!("a key in {}", &line[..line.len().min(200)]),
        }
    }
    assert_eq!((staged, sent), (2, 2), "both PEMs are staged, and sent to HAProxy");
    live.must_be_as_wanted("under strace");

    // Nor in what is said or remembered.
    let run = live.cmd.assemble(&["-v"]);
    let own = live.cmd.sites().join(".haproxy-certs");
    let mut texts = vec![format!("{run}"), String::from_utf8_lossy(&output.stdout).into_owned()];
    for file in ["state.json", "last-run.json"] {
        texts.push(fs::read_to_string(own.join(file)).unwrap());
    }
    for text in &texts {
        assert!(
            !secrets.iter().any(|secret| text.contains(secret.as_str()))
                && !text.contains("PRIVATE KEY-----\n")
        );
    }
    Count::Keys.add("calls that write or execute", secrets.len());
    say(&format!(
        "{looked:>9} such calls, {} of them with a key: the PEMs staged, and sent to HAProxy",
        staged + sent
    ));
}

/// While HAProxy is notified, which may take minutes, no key is in the program's memory any more.
#[test]
fn keys_are_wiped_from_memory() {
    let mut tree = Tree::new();
    for number in 0..20 {
        let kind = [KeyKind::P256, KeyKind::Rsa2048, KeyKind::P384, KeyKind::Ed25519][number % 4];
        tree.issue(&format!("site-{number}"), kind, &["site.example"], Validity::days(90));
    }
    // Nothing keeps a key out of a chain's file.
    for name in ["site-0", "site-5", "site-10", "site-15"] {
        let both = format!("{}{}", tree.leaf(name).fullchain(), tree.leaf(name).key.pem());
        tree.overwrite(name, Kind::Fullchain, both);
    }
    let cmd = Cmd::new(tree.live());
    let (told, go) = (cmd.beside("told"), cmd.beside("go"));
    let script = format!("touch {}; while [ ! -e {} ]; do sleep 0.05; done", told.display(), go.display());
    let command = serde_json::json!(["/bin/sh", "-c", script]);
    let cmd = cmd.table(&format!("[[haproxy]]\nreload = \"command\"\ncommand = {command}\nbinary = \"\""));
    let mut program = Command::new(Cmd::program());
    program.arg("--config").arg(cmd.config()).arg("assemble").stdin(Stdio::null()).stdout(Stdio::piped());
    cmd.prepare(&mut program);
    let mut child = program.spawn().unwrap();
    let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        wait_until(LIMIT, "it tells", || told.exists());
        // The search finds what is there.
        let live = tree.live().into_os_string().into_encoded_bytes();
        let memory = Memory::of(child.id());
        assert!(memory.times(&live) > 0, "the search finds nothing");
        let mut found = Vec::new();
        for number in 0..20 {
            let name = format!("site-{number}");
            let leaf = tree.leaf(&name);
            let der = leaf.key.openssl().private_key_to_pkcs8().unwrap();
            // The end of a P-256 or P-384 PKCS#8 is the public key: the middle is the secret.
            let (from, length) = match number % 4 {
                0 => (36, 32),
                1 => (der.len() - 400, 64),
                2 => (35, 48),
                _ => (der.len() - 32, 32),
            };
            let mut needles: Vec<Vec<u8>> = needles(leaf)
                .into_iter()
                .take(if number % 4 == 1 { 99 } else { 1 })
                .map(String::into_bytes)
                .collect();
            needles.push(der[from..from + length].to_vec());
            for needle in needles {
                let times = memory.times(&needle);
                if times > 0 {
                    found.push(format!("{name}: {times} times {}", String::from_utf8_lossy(&needle)));
                }
            }
        }
        found
    }));
    fs::write(&go, "").unwrap();
    let status = child.wait().unwrap();
    let found = found.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    assert!(status.success());
    assert_eq!(found, Vec::<String>::new(), "keys in the program's memory while it notifies HAProxy");
    Count::Keys.add("memory", 20);
}

/// What a hook is given decides nothing: neither which programs are started, nor with which environment.
#[test]
fn the_environment_of_a_hook_is_not_trusted() {
    let mut scene = Scene::new(&[]);
    scene.issue("one");
    let folder = tempfile::tempdir().unwrap();
    let (ran, seen) = (folder.path().join("ran"), folder.path().join("seen"));
    for name in ["haproxy", "systemctl", "sh", "cat"] {
        put(&folder.path().join(name), format!("#!/bin/sh\ntouch {}\n", ran.display()), 0o755);
    }
    let script = format!("env > {}", seen.display());
    let command = serde_json::json!(["sh", "-c", script]);
    let cmd = Cmd::new(scene.tree.live())
        .table(&format!("[[haproxy]]\nreload = \"command\"\ncommand = {command}"))
        .env("PATH", folder.path())
        .env("LD_PRELOAD", "/nonexistent/hook.so")
        .env("LD_LIBRARY_PATH", folder.path())
        .env("OPENSSL_CONF", folder.path().join("openssl.cnf"))
        .env("IFS", "/")
        .env("BASH_ENV", folder.path().join("sh"))
        .env("ENV", folder.path().join("sh"));
    let run = cmd.assemble(&[]).exits(0);
    assert_eq!(run.action("one.pem"), "install", "{run}");
    assert!(!ran.exists(), "a program of the hook's PATH was started");
    let environment = fs::read_to_string(&seen).unwrap();
    let mut lines: Vec<&str> = environment
        .lines()
        .filter(|line| !["PWD=/", "SHLVL=0", "SHLVL=1", "OLDPWD=/", "_=/usr/bin/env"].contains(line))
        .collect();
    lines.sort_unstable();
    assert_eq!(lines, ["LC_ALL=C", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]);
}

/// No core dump, neither of the program nor of what it starts, and nobody but root looks into it.
#[test]
fn nothing_is_dumped() {
    let mut scene = Scene::new(&[]);
    scene.issue("one");
    let (told, go) = (scene.cmd.beside("limits"), scene.cmd.beside("go"));
    let script = format!(
        "cat /proc/self/limits > {0}.new; mv {0}.new {0}; while [ ! -e {1} ]; do sleep 0.05; done",
        told.display(),
        go.display()
    );
    let command = serde_json::json!(["/bin/sh", "-c", script]);
    let cmd = Cmd::new(scene.tree.live())
        .table(&format!("[[haproxy]]\nreload = \"command\"\ncommand = {command}\nbinary = \"\""));
    // Whoever starts the tests in the background may have the signal ignored.
    let mut program = Command::new("env");
    program
        .args(["--default-signal=QUIT", "prlimit", "--core=unlimited", "--"])
        .arg(Cmd::program())
        .arg("--config")
        .arg(cmd.config())
        .arg("assemble");
    let mut child = program.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until(LIMIT, "it tells", || told.exists());
    let none = |limits: &str| limits.lines().any(|line| line.starts_with("Max core file size        0 "));
    assert!(none(&fs::read_to_string(&told).unwrap()), "what it starts may dump core");
    assert!(none(&fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap()));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::QUIT).unwrap();
    let status = child.wait().unwrap();
    fs::write(&go, "").unwrap();
    assert_eq!((status.signal(), status.core_dumped()), (Some(3), false));
}

/// A process that isn't dumpable is root's in procfs, whoever's it is: not even its own user looks into it.
#[test]
fn not_even_its_user_looks_into_it() {
    let mut tree = Tree::new();
    tree.issue("one", KeyKind::P256, &["one"], Validity::days(90));
    let cmd = Cmd::new(tree.live());
    support::tree::make_directory(&cmd.sites(), 0o700);
    let (told, go) = (cmd.beside("sites/told"), cmd.beside("go"));
    let script = format!("touch {}; while [ ! -e {} ]; do sleep 0.05; done", told.display(), go.display());
    let command = serde_json::json!(["/bin/sh", "-c", script]);
    let cmd = cmd.table(&format!("[[haproxy]]\nreload = \"command\"\ncommand = {command}\nbinary = \"\""));
    for folder in [tree.root().parent().unwrap().to_owned(), cmd.sites()] {
        for entry in walkdir::WalkDir::new(folder) {
            lchown(entry.unwrap().path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }
    let mut child = nobody(&cmd).arg("assemble").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until(LIMIT, "it tells", || told.exists());
    let owner = fs::metadata(format!("/proc/{}/environ", child.id())).unwrap().uid();
    let of = fs::metadata(format!("/proc/{}", child.id())).unwrap().uid();
    fs::write(&go, "").unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!((owner, of), (0, NOBODY), "it can be looked into");
}

// ---- least privilege

const NOBODY: u32 = 4711;

/// The program as a user without any rights but those that the files give.
fn nobody(cmd: &Cmd) -> Command {
    fs::copy(Cmd::program(), cmd.beside("program")).unwrap();
    mode(&cmd.beside("program"), 0o755);
    mode(cmd.sites().parent().unwrap(), 0o755);
    let mut command = Command::new("setpriv");
    let id = NOBODY.to_string();
    command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--no-new-privs", "--"]);
    command.arg("/usr/bin/env").arg("-i").arg(cmd.beside("program")).arg("--config").arg(cmd.config());
    command
}

fn as_nobody(cmd: &Cmd) -> Run {
    as_nobody_with(cmd, &["assemble", "--format", "json"])
}

fn as_nobody_with(cmd: &Cmd, arguments: &[&str]) -> Run {
    let output = finish(nobody(cmd).args(arguments), TRACED_LIMIT);
    Run {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into(),
        stderr: String::from_utf8_lossy(&output.stderr).into(),
    }
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Read on certbot's tree, write on the sites directory, access to the socket: with these it works, and it says which
/// one is missing.
#[test]
fn a_user_with_just_three_rights() {
    let mut live = Live::start(&version("2.6").unwrap(), "STATS", &[]);
    // By a group, as Debian's ssl-cert is meant: nothing of certbot's is writable.
    for entry in walkdir::WalkDir::new(live.tree.root().parent().unwrap()) {
        let entry = entry.unwrap();
        if !entry.path_is_symlink() {
            chown(entry.path(), None, Some(NOBODY)).unwrap();
            mode(entry.path(), if entry.file_type().is_dir() { 0o750 } else { 0o640 });
        }
    }
    let readable = |live: &Live| {
        for name in ["a.example", "b.example", "c.example"] {
            for entry in fs::read_dir(live.tree.archive(name)).unwrap() {
                let path = entry.unwrap().path();
                chown(&path, None, Some(NOBODY)).unwrap();
                mode(&path, 0o640);
            }
        }
    };
    let sites = live.cmd.sites();
    for entry in walkdir::WalkDir::new(&sites) {
        chown(entry.unwrap().path(), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let socket = live.haproxy.stats_socket();
    mode(socket.parent().unwrap(), 0o755);
    mode(&socket, 0o666);

    live.renew("a.example");
    readable(&live);
    let run = as_nobody(&live.cmd).exits(0);
    assert_eq!(run.action("a.example.pem"), "replace", "{run}");
    assert_eq!(run.json()["haproxy"][0]["method"], "runtime", "{run}");
    live.must_be_as_wanted("as nobody");
    as_nobody(&live.cmd).exits(0);

    // Without the socket: the files are in place, HAProxy is owed.
    mode(&socket, 0o600);
    live.renew("a.example");
    readable(&live);
    let run = as_nobody(&live.cmd).exits(2);
    let detail = run.json()["haproxy"][0]["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("operation not permitted"), "{detail}");
    // The socket's words are those of a way that was passed over.
    let shown = as_nobody_with(&live.cmd, &["-v", "assemble"]).exits(2).stdout;
    assert!(shown.contains(socket.to_str().unwrap()) && shown.contains("permission denied"), "{shown}");
    mode(&socket, 0o666);
    as_nobody(&live.cmd).exits(0);
    live.must_be_as_wanted("with the socket again");

    // Without write on the sites directory: nothing is done.
    live.renew("b.example");
    readable(&live);
    let before = support::live::sites(&live.cmd);
    for path in [sites.clone(), sites.join(".haproxy-certs"), sites.join(".haproxy-certs/stage")] {
        chown(&path, Some(0), Some(0)).unwrap();
        mode(&path, 0o755);
        let run = as_nobody(&live.cmd).exits(3);
        let message = run.json()["error"]["message"].as_str().unwrap().to_owned();
        assert_eq!(run.json()["error"]["kind"], "permission", "{message}");
        assert!(message.contains(sites.to_str().unwrap()), "{message}");
        assert_eq!(support::live::sites(&live.cmd), before, "{run}");
        chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
        mode(&path, 0o700);
    }

    // Without read on one key, on one lineage, on all of certbot's tree.
    let key = live.tree.file("b.example", support::Kind::Privkey, live.tree.version("b.example"));
    mode(&key, 0o600);
    let run = as_nobody(&live.cmd).exits(1);
    assert_eq!(run.reason("b.example.pem").as_deref(), Some("read-error"), "{run}");
    assert!(run.site("b.example.pem")["detail"].as_str().unwrap().contains("permission denied"), "{run}");
    mode(&key, 0o640);
    fs::remove_file(live.tree.conf("b.example")).unwrap();
    mode(&live.tree.lineage("b.example"), 0o700);
    let run = as_nobody(&live.cmd).exits(1);
    assert_eq!(run.reason("b.example.pem").as_deref(), Some("read-error"), "{run}");
    mode(&live.tree.lineage("b.example"), 0o750);
    mode(&live.tree.live(), 0o700);
    let run = as_nobody(&live.cmd).exits(3);
    let message = run.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(
        message.contains(live.tree.live().to_str().unwrap()) && message.contains("permission denied"),
        "{message}"
    );
    assert_eq!(support::live::sites(&live.cmd), before, "{run}");
    mode(&live.tree.live(), 0o750);
    as_nobody(&live.cmd).exits(0);
    live.must_be_as_wanted("in the end");
}
