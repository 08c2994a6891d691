//! `status --setup` against real `HAProxy`s: each finding is made for real and seen named, and a right setup has none.
//!
//! The timers are looked at where systemd is PID 1: in tests/systemd.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may fail loudly")]

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use support::{Authority, Cmd, Haproxy, KeyKind, Port, Run, Tree, Validity, system_haproxy, tree, versions};

/// A tree with one lineage, deployed, and a host certificate.
fn deployed() -> (Tree, Cmd) {
    let mut tree = Tree::new();
    tree.issue("a.example", KeyKind::P256, &["a.example"], Validity::days(90));
    let cmd = Cmd::new(tree.live());
    cmd.run(&["assemble", "--reload", "none"]).exits(0);
    let host = Authority::new().issue(KeyKind::P256, &["host.example"], Validity::days(3650));
    tree::write(&cmd.beside("host.pem"), host.combined(), 0o400);
    (tree, cmd)
}

/// `status --setup` with certbot's `port`, and more in the HAProxy's table.
fn with(cmd: Cmd, haproxy: &Haproxy, more: &str, port: u16) -> Cmd {
    cmd.haproxy(haproxy, more).table(&format!("[certbot]\nhttp_01_port = {port}"))
}

fn look(cmd: &Cmd) -> Run {
    cmd.run(&["status", "--setup", "--format", "json"])
}

/// The findings of this name.
fn all(run: &Run, name: &str) -> Vec<Value> {
    let report = run.json();
    let findings = report["setup"].as_array().unwrap();
    findings.iter().filter(|finding| finding["name"] == name).cloned().collect()
}

/// The only finding of this name has this severity and fact.
#[track_caller]
fn finds(run: &Run, name: &str, severity: &str, fact: &str) {
    let findings = all(run, name);
    assert_eq!(findings.len(), 1, "{name}: {run}");
    assert_eq!(findings[0]["severity"], severity, "{run}");
    assert!(findings[0]["fact"].as_str().unwrap().contains(fact), "no {fact:?} in {}", findings[0]);
    // What is wrong comes with what mends it.
    let is_wrong = ["warning", "critical"].contains(&severity);
    assert!(
        !is_wrong || findings[0]["mend"].as_array().is_some_and(|mend| !mend.is_empty()),
        "{}",
        findings[0]
    );
}

fn link_hook(tree: &Tree, kind: &str) -> PathBuf {
    let link = tree.root().join("renewal-hooks").join(kind).join("haproxy-certs");
    fs::create_dir_all(link.parent().unwrap()).unwrap();
    symlink(Cmd::program(), &link).unwrap();
    link
}

#[test]
fn a_right_setup_has_no_findings_on_every_version() {
    for version in versions() {
        let (tree, cmd) = deployed();
        link_hook(&tree, "post");
        let (http, challenge) = (Port::free(), Port::free());
        let haproxy = Haproxy::of(&version)
            .crt(cmd.beside("host.pem"))
            .crt(cmd.sites())
            .acme(&http, &challenge)
            .start();
        let socket = format!("runtime_socket = {}", support::cmd::toml(&haproxy.stats_socket()));
        let cmd = with(cmd, &haproxy, &socket, challenge.number());
        let run = look(&cmd).exits(0);
        for finding in run.json()["setup"].as_array().unwrap() {
            let is_fine = finding["severity"] == "ok" || finding["name"] == "timer";
            assert!(is_fine, "{}: {finding}", version.full);
        }
        finds(&run, "crt", "ok", "frontend sites (");
        finds(&run, "empty", "ok", "loads even if");
        finds(&run, "acme", "ok", &format!("reached certbot's port {} (tried)", challenge.number()));
        finds(&run, "modes", "ok", "nobody else can change");
        let sockets = all(&run, "socket");
        assert_eq!(sockets.len(), 2, "{run}");
        assert!(
            sockets.iter().all(|socket| socket["fact"].as_str().unwrap().ends_with("answers at level admin"))
        );
        // Nobody listens there afterwards, and the next look finds the same.
        assert!(TcpListener::bind(challenge.address()).is_ok());
        look(&cmd).exits(0);
    }
}

#[test]
fn a_challenge_that_goes_elsewhere_is_noticed() {
    let (_tree, cmd) = deployed();
    let (http, challenge, other) = (Port::free(), Port::free(), Port::free());
    let haproxy = Haproxy::of(&system_haproxy()).crt(cmd.sites()).acme(&http, &other).start();
    let cmd = with(cmd, &haproxy, "", challenge.number());
    let run = look(&cmd).exits(1);
    finds(&run, "acme", "warning", &format!("and did not reach port {}", challenge.number()));
    finds(&run, "acme", "warning", "(tried); no server line has certbot's port");
    let human = cmd.run(&["status", "--setup"]).exits(1).stdout;
    assert!(human.contains("setup WARN acme: a challenge sent to 127.0.0.1:"), "{human}");
    assert!(human.contains(&format!("server certbot 127.0.0.1:{}", challenge.number())), "{human}");
}

#[test]
fn a_challenge_that_has_no_way_is_noticed() {
    let (_tree, cmd) = deployed();
    let challenge = Port::free();
    // Nothing shows where the CA would come in: this is only read.
    let haproxy = Haproxy::of(&system_haproxy()).crt(cmd.sites()).start();
    let read = look(&with(deployed().1, &haproxy, "", challenge.number()));
    finds(&read, "acme", "warning", "no line names /.well-known/acme-challenge/ (only read: no bind line");

    // Port 80 of a loopback address of our own, with a site behind it and no way to certbot.
    let Some(front) = port_80() else { return };
    let section = format!("frontend plain\n  bind {front}\n  http-request return status 404");
    let haproxy = Haproxy::of(&system_haproxy()).crt(cmd.sites()).section(&section).start();
    let cmd = with(cmd, &haproxy, "", challenge.number());
    let run = look(&cmd).exits(1);
    finds(&run, "acme", "warning", &format!("sent to {front} (frontend plain, "));
    finds(&run, "acme", "warning", "got status 404 and did not reach port");
    finds(&run, "acme", "warning", "no line names /.well-known/acme-challenge/");
}

/// Port 80 of an address that nobody uses; `None` where everybody's port 80 is taken or forbidden.
fn port_80() -> Option<SocketAddr> {
    let [_, a, b, c] = std::process::id().to_be_bytes();
    let address = SocketAddr::from((Ipv4Addr::new(127, 0x80 | a, b, c.clamp(1, 254)), 80));
    TcpListener::bind(address).ok().map(|_| address)
}

/// All HTTP goes to HTTPS, at a port that no bind line here has: what isn't proved is a warning. tests/truth.rs follows one.
#[test]
fn a_redirection_to_nowhere_is_not_proved() {
    let (_tree, cmd) = deployed();
    let (http, challenge) = (Port::free(), Port::free());
    let port = challenge.number();
    let sections = format!(
        "frontend plain\n  bind 127.0.0.1:{}\n  acl challenge path_beg /.well-known/acme-challenge/\n  \
         redirect scheme https\n  use_backend certbot if challenge\n\
         backend certbot\n  server certbot 127.0.0.1:{port}",
        http.number()
    );
    let haproxy = Haproxy::of(&system_haproxy()).crt(cmd.sites()).section(&sections).start();
    let cmd = with(cmd, &haproxy, "", port);
    finds(&look(&cmd), "acme", "warning", "and no bind line here has that port");
}

#[test]
fn where_it_cannot_be_tried_the_configuration_is_read() {
    let (_tree, cmd) = deployed();
    let (http, challenge) = (Port::free(), Port::free());
    let mut haproxy = Haproxy::of(&system_haproxy()).crt(cmd.sites()).acme(&http, &challenge).start();
    let config = format!("config = [{}]", support::cmd::toml(&haproxy.config()));
    let cmd = with(cmd, &haproxy, &config, challenge.number());
    // Somebody else's.
    let busy = TcpListener::bind(challenge.address()).unwrap();
    finds(&look(&cmd), "acme", "warning", "is taken by ");
    drop(busy);
    finds(&look(&cmd), "acme", "ok", "(tried)");
    // HAProxy isn't.
    haproxy.stop();
    finds(&look(&cmd), "acme", "warning", "has a backend with certbot's port");
    finds(&look(&cmd), "acme", "warning", "can't be reached from here");
}

#[test]
fn a_directory_that_is_not_loaded_or_keeps_haproxy_from_starting_is_noticed() {
    let (_tree, cmd) = deployed();
    let haproxy = Haproxy::of(&system_haproxy()).crt(cmd.sites()).start();
    let here = with(cmd, &haproxy, "", Port::free().number());
    let run = look(&here).exits(1);
    finds(&run, "crt", "ok", "frontend sites (");
    finds(&run, "empty", "warning", "keeps HAProxy from starting while");
    fs::write(
        haproxy.config(),
        fs::read_to_string(haproxy.config()).unwrap().replace(" ssl ", " ssl strict-sni "),
    )
    .unwrap();
    finds(&look(&here), "empty", "ok", "loads even if");
    fs::write(haproxy.config(), fs::read_to_string(haproxy.config()).unwrap().replace(" ssl ", " ")).unwrap();
    assert!(haproxy.check().is_ok());
    finds(&look(&here), "crt", "warning", "but has no ssl");
    let plain = here.run(&["status", "--format", "json"]).json();
    assert!(
        plain["problems"].as_array().unwrap().iter().any(|it| it["problem"] == "not-presented"),
        "{plain}"
    );
    let run = here.assemble(&[]).exits(1);
    let words = format!("{run}").split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("has crt without ssl"), "{run}");

    let (_tree, cmd) = deployed();
    let other = cmd.beside("other.pem");
    std::fs::copy(cmd.site("a.example"), &other).unwrap();
    let elsewhere = Haproxy::of(&system_haproxy()).crt(&other).start();
    let there = with(cmd, &elsewhere, "", Port::free().number());
    let run = look(&there).exits(2);
    finds(&run, "crt", "critical", "no bind line of haproxy loads");
    let human = there.run(&["status", "--setup"]).exits(2).stdout;
    assert!(human.contains("setup CRIT crt: no bind line of haproxy loads"), "{human}");

    let unread = there.table("").run(&["status", "--setup", "--format", "json"]);
    finds(&unread, "crt", "critical", "no bind line");
    let (_tree, cmd) = deployed();
    let gone = with(cmd, &elsewhere, "config = [\"/nonexistent/h.cfg\"]", Port::free().number());
    finds(&look(&gone), "configuration", "unknown", "cannot read /nonexistent/h.cfg");
}

#[test]
fn sockets_are_told_apart_by_what_they_allow() {
    for (level, severity) in [("admin", "ok"), ("operator", "ok"), ("user", "warning")] {
        let (_tree, cmd) = deployed();
        let haproxy = Haproxy::of(&system_haproxy()).crt(cmd.sites()).stats_level(level).start();
        let socket =
            format!("runtime_socket = {}\nreload = \"pidfile\"", support::cmd::toml(&haproxy.stats_socket()));
        let run = look(&with(cmd, &haproxy, &socket, Port::free().number()));
        let sockets = all(&run, "socket");
        let of = |what: &str| {
            let is_it = |socket: &&Value| socket["fact"].as_str().unwrap().starts_with(what);
            sockets.iter().find(is_it).unwrap_or_else(|| panic!("no {what} in {run}"))
        };
        assert_eq!(of("runtime_socket")["severity"], severity, "{run}");
        assert!(
            of("runtime_socket")["fact"].as_str().unwrap().contains(&format!("at level {level}")),
            "{run}"
        );
        assert!(of("master_socket")["fact"].as_str().unwrap().ends_with("at level admin"), "{run}");
    }
    let (_tree, cmd) = deployed();
    let mut haproxy = Haproxy::of(&system_haproxy()).crt(cmd.sites()).start();
    let cmd = with(cmd, &haproxy, "", Port::free().number());
    haproxy.stop();
    let run = look(&cmd);
    // It should run: which sockets it might have besides isn't the question then.
    assert_eq!(run.json()["problems"][0]["problem"], "haproxy-down", "{run}");
    let silent = all(&run, "socket");
    assert!(silent.iter().all(|socket| socket["severity"] == "unknown"), "{run}");
    let (_tree, cmd) = deployed();
    let run = look(&with(cmd, &haproxy, "", Port::free().number()).table(
        "[[haproxy]]\nname = \"other\"\nmaster_socket = \"/nonexistent/m\"\npidfile = \"/nonexistent/p\"\n\
         unit = \"no-such-unit.service\"",
    ));
    assert!(
        all(&run, "socket").iter().any(|socket| socket["severity"] == "warning"
            && socket["fact"].as_str().unwrap().starts_with("no socket of other answers")),
        "{run}"
    );
}

/// The certbot that is installed, and one that says to be another: what is asked of it is its version.
#[test]
fn hooks_are_looked_for_where_this_certbot_runs_them() {
    let (tree, cmd) = deployed();
    let folder = tempfile::tempdir().unwrap();
    let says = |version: &str| {
        let path = folder.path().join(version);
        tree::write(&path, format!("#!/bin/sh\necho certbot {version}\n"), 0o755);
        format!("[certbot]\nbinary = {}", support::cmd::toml(&path))
    };
    let look_with = |certbot: &str| {
        let cmd = Cmd::new(tree.live()).with_sites(cmd.sites()).without_haproxy().table(certbot);
        look(&cmd)
    };
    finds(&look_with(""), "hook", "warning", "there is no hook of haproxy-certs in");

    let deploy = link_hook(&tree, "deploy");
    let old = look_with(&says("4.0.0"));
    finds(&old, "hook", "ok", "certbot 4.0 runs it when it renews, not when it issues");
    let line = |kind: &str, link: &Path| format!("{kind}-hook = test ! -x {0} || {0}", link.display());
    let mend = all(&old, "hook")[0]["mend"][0].clone();
    assert!(mend.as_str().unwrap().contains(&line("deploy", &deploy)), "{mend}");
    finds(&look_with(&says("5.3.0")), "hook", "ok", deploy.to_str().unwrap());

    let post = link_hook(&tree, "post");
    let new = look_with(&says("3.2.0"));
    finds(&new, "hook", "ok", post.to_str().unwrap());
    assert_eq!(all(&new, "hook")[0]["mend"], serde_json::json!([]), "{new}");
    let old = look_with(&says("2.1.0"));
    finds(&old, "hook", "ok", post.to_str().unwrap());
    // The command is the one that `init --hook` prints; it is done, and all is well.
    let mend = all(&old, "hook")[0]["mend"][0].clone();
    let human =
        Cmd::new(tree.live()).without_haproxy().table(&says("2.1.0")).run(&["status", "--setup"]).stdout;
    assert!(human.contains(&format!("-> {}\n", mend.as_str().unwrap())), "{human}");
    fs::write(tree.root().join("cli.ini"), "max-log-backups = 0\n").unwrap();
    let status = std::process::Command::new("sh").args(["-ec", mend.as_str().unwrap()]).status();
    assert!(status.unwrap().success());
    let cli_ini = fs::read_to_string(tree.root().join("cli.ini")).unwrap();
    assert_eq!(cli_ini, format!("max-log-backups = 0\n\n{}\n", line("post", &post)));
    let mended = look_with(&says("2.1.0"));
    finds(&mended, "hook", "ok", &format!("and in {}", tree.root().join("cli.ini").display()));
    assert_eq!(all(&mended, "hook")[0]["mend"], serde_json::json!([]));

    // The program is gone: the line of the first version stops certbot, this one doesn't.
    fs::remove_file(&post).unwrap();
    finds(&look_with(""), "hook", "ok", "and in ");
    fs::write(tree.root().join("cli.ini"), format!("post-hook = {}\n", post.display())).unwrap();
    finds(&look_with(""), "hook", "warning", "which is not a program: certbot stops before it issues");
    fs::remove_file(tree.root().join("cli.ini")).unwrap();
    symlink("/nonexistent/haproxy-certs", &post).unwrap();
    finds(&look_with(""), "hook", "warning", "is not a program, so certbot skips it silently");
    fs::remove_file(&post).unwrap();
    fs::write(&post, "#!/bin/sh\nhaproxy-certs assemble\n").unwrap();
    finds(&look_with(""), "hook", "warning", "is not a program, so certbot skips it silently");
}

/// A script that has our hook's name isn't our hook: what it does decides, not what it is called.
#[test]
fn a_strangers_script_by_our_hooks_name_is_told_apart() {
    for kind in ["deploy", "post"] {
        let (tree, cmd) = deployed();
        let cmd = cmd.without_haproxy();
        let script = tree.root().join("renewal-hooks").join(kind).join("haproxy-certs");
        fs::create_dir_all(script.parent().unwrap()).unwrap();
        for text in [
            "#!/bin/sh\nsystemctl restart nginx\n",
            "#!/bin/sh\n# haproxy-certs assemble\ntrue\n",
            "#!/bin/sh\ncat a > /usr/local/ssl/certs/sites/a.pem # by haproxy-certs\n",
        ] {
            tree::write(&script, text, 0o755);
            finds(&look(&cmd), "hook", "warning", "has the name of our hook and isn't ours");
        }
        // A line of cli.ini that calls it doesn't make it ours.
        let line = format!("{kind}-hook = test ! -x {0} || {0}\n", script.display());
        fs::write(tree.root().join("cli.ini"), line).unwrap();
        let found = look(&cmd);
        finds(&found, "hook", "warning", "has the name of our hook and isn't ours");
        fs::remove_file(tree.root().join("cli.ini")).unwrap();
        // It is kept where certbot passes over it, and then there is none.
        let mend = all(&found, "hook")[0]["mend"][0].clone();
        let done = Command::new("sh").args(["-ec", mend.as_str().unwrap()]).status().unwrap();
        assert!(done.success() && script.with_file_name("haproxy-certs~").exists());
        finds(&look(&cmd), "hook", "warning", "there is no hook of haproxy-certs in");
        // A script that calls us is one, and so is the link that init makes.
        tree::write(&script, "#!/bin/sh\nexec /usr/bin/haproxy-certs -q assemble\n", 0o755);
        finds(&look(&cmd), "hook", "ok", "haproxy-certs");
        fs::remove_file(&script).unwrap();
        link_hook(&tree, kind);
        finds(&look(&cmd), "hook", "ok", "haproxy-certs");
    }
}

#[test]
fn a_copy_of_certbots_tree_has_no_hooks_of_its_own() {
    let (tree, cmd) = deployed();
    let copy = tree.root().join("certs");
    fs::rename(tree.live(), &copy).unwrap();
    let cmd = Cmd::new(&copy).with_sites(cmd.sites()).without_haproxy();
    finds(&look(&cmd), "hook", "unknown", "is not certbot's own");
}

#[test]
fn what_others_could_change_is_noticed() {
    let (tree, cmd) = deployed();
    let cmd = cmd.without_haproxy();
    finds(&look(&cmd), "modes", "ok", "nobody else can change");
    let open = |path: &Path, mode: u32| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    for folder in [tree.live(), tree.root().join("archive")] {
        open(&folder, 0o770);
        let modes = all(&look(&cmd), "modes");
        let fact = format!("others than the owner may write to {}", folder.display());
        assert!(
            modes.iter().any(|finding| finding["fact"] == fact && finding["severity"] == "warning"),
            "{modes:?}"
        );
        open(&folder, 0o700);
    }
    open(&cmd.sites(), 0o777);
    assert_eq!(all(&look(&cmd), "modes")[0]["severity"], "warning");
    fs::remove_dir_all(cmd.sites()).unwrap();
    finds(&look(&cmd), "modes", "warning", "there is no");
}

/// Who may not look sees that it is unknown; nothing fails.
#[test]
fn who_may_not_look_is_told_so() {
    let (tree, cmd) = deployed();
    let (http, challenge) = (Port::free(), Port::free());
    let haproxy = Haproxy::of(&system_haproxy()).crt(cmd.sites()).acme(&http, &challenge).start();
    let open = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir().unwrap();
    let cmd = with(cmd, &haproxy, "", challenge.number());
    let config = open.path().join("c.toml");
    fs::copy(cmd.config(), &config).unwrap();
    let program = open.path().join("haproxy-certs");
    fs::copy(Cmd::program(), &program).unwrap();
    fs::set_permissions(&config, fs::Permissions::from_mode(0o644)).unwrap();
    for folder in [tree.root(), cmd.sites().parent().unwrap(), haproxy.config().parent().unwrap()] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).unwrap();
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&program);
    command.arg("--config").arg(&config).args(["status", "--setup", "--format", "json"]);
    let output = command.output().unwrap();
    let run = Run {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    };
    assert_eq!(run.stderr, "");
    finds(&run, "modes", "unknown", "cannot look at");
    finds(&run, "hook", "unknown", "cannot read");
    let of_configuration = all(&run, "configuration");
    let is_said = |finding: &serde_json::Value| {
        finding["severity"] == "unknown" && finding["fact"].as_str().unwrap().contains("haproxy: cannot read")
    };
    assert!(of_configuration.iter().any(is_said), "{run}");
    finds(&run, "socket", "unknown", "permission denied");
    assert_eq!(run.code, Some(3), "{run}");
}

/// Where systemd isn't PID 1 nothing is claimed of the timers.
#[test]
fn without_systemd_the_timers_are_unknown() {
    if Path::new("/run/systemd/system").is_dir() {
        support::summary::skipped("without_systemd_the_timers_are_unknown", "systemd is PID 1 here");
        return;
    }
    let (_tree, cmd) = deployed();
    finds(&look(&cmd.without_haproxy()), "timer", "unknown", "systemd is not PID 1 here");
}
