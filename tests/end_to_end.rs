//! The whole way, with the real programs: certbot behind HAProxy's plain-HTTP frontend gets certificates from Pebble,
//! its hooks run the program, and HAProxy serves what certbot has.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may fail loudly")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::symlink;

use support::cmd::names_in;
use support::{Authority, Certbot, Cmd, Haproxy, KeyKind, LIMIT, Pebble, Port, Validity};
use support::{s_client, served, system_haproxy, tree, wait_until};

/// The lineages: name, what certbot is asked for, the names in the certificate.
const LINEAGES: [(&str, &[&str], &[&str]); 3] = [
    ("ecdsa.example.org", &["--key-type", "ecdsa", "-d", "ecdsa.example.org"], &["ecdsa.example.org"]),
    (
        "rsa.example.org",
        &["--key-type", "rsa", "--rsa-key-size", "2048", "-d", "rsa.example.org"],
        &["rsa.example.org"],
    ),
    (
        "www.example.org",
        &["-d", "www.example.org", "-d", "web.example.net"],
        &["www.example.org", "web.example.net"],
    ),
];

#[test]
fn issued_renewed_and_deleted_as_it_is() {
    issued_renewed_and_deleted("auto");
}

#[test]
fn issued_renewed_and_deleted_by_reloads() {
    issued_renewed_and_deleted("pidfile");
}

fn issued_renewed_and_deleted(reload: &str) {
    let (http, challenge) = (Port::free(), Port::free());
    let pebble = Pebble::start(&http);
    let certbot = Certbot::of(&pebble, &challenge);

    // What the owner has before the first certificate: a host certificate and an empty directory.
    let cmd = Cmd::new(certbot.live());
    let (host_file, sites) = (cmd.beside("host.pem"), cmd.sites());
    let host = Authority::new().issue(KeyKind::P256, &["host.example.org"], Validity::days(3650));
    tree::write(&host_file, host.combined(), 0o400);
    tree::make_directory(&sites, 0o700);
    let haproxy = Haproxy::of(&system_haproxy()).crt(&host_file).crt(&sites).acme(&http, &challenge).start();
    let address = haproxy.address();
    let cmd = cmd.haproxy(&haproxy, &format!("reload = {reload:?}\nprobe = [\"{address}\"]"));
    let config = cmd.config();
    let certbot = certbot.env("HAPROXY_CERTS_CONFIG", &config);
    let sees = |what: &str, name: &str, serial: &str| {
        wait_until(LIMIT, what, || s_client(address, name).serial == serial);
    };
    let redirected = plain_get(http.address(), "/");
    assert!(redirected.starts_with("HTTP/1.1 302") && redirected.contains("https://"), "{redirected}");

    // Issue: each is served as soon as certbot returns.
    let hook = format!("{} --config {} assemble", Cmd::program().display(), config.display());
    for (lineage, arguments, names) in LINEAGES {
        let mut all = vec!["--cert-name", lineage, "--deploy-hook", &hook];
        all.extend(arguments);
        let output = certbot.certonly(&all);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!said.contains("reported error code"), "{said}\n{}", certbot.log());
        let serial = certbot.serial(lineage);
        for name in names {
            sees("the new certificate", name, &serial);
        }
        let now = served(address, names[0]);
        assert_eq!(now.names, names);
        assert!(now.chain_len >= 2, "the intermediate is sent too: {now:?}");
    }
    assert_eq!(cmd.deployed(), ["ecdsa.example.org.pem", "rsa.example.org.pem", "www.example.org.pem"]);
    nothing_to_do(&cmd, &haproxy, 3);

    // Renew, now by a directory hook, which certbot runs without arguments: the saved deploy hooks go.
    let hooks = certbot.config_dir().join("renewal-hooks/post");
    symlink(Cmd::program(), hooks.join("haproxy-certs")).unwrap();
    for conf in names_in(&certbot.config_dir().join("renewal")) {
        let path = certbot.config_dir().join("renewal").join(conf);
        let text = fs::read_to_string(&path).unwrap();
        let kept: Vec<&str> = text.lines().filter(|line| !line.starts_with("renew_hook")).collect();
        assert_eq!(text.lines().count(), kept.len() + 1);
        fs::write(&path, kept.join("\n") + "\n").unwrap();
    }
    let before = LINEAGES.map(|(lineage, ..)| certbot.serial(lineage));
    let output = certbot.succeed(&["renew", "--force-renewal"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!said.contains("reported error code"), "{said}\n{}", certbot.log());
    let after = LINEAGES.map(|(lineage, ..)| certbot.serial(lineage));
    for ((_, _, names), (old, new)) in LINEAGES.iter().zip(before.iter().zip(&after)) {
        assert_ne!(old, new);
        for name in *names {
            sees("the renewed certificate", name, new);
        }
    }
    nothing_to_do(&cmd, &haproxy, 3);

    // Delete: certbot runs no hook; the next sweep finds out.
    certbot.succeed(&["delete", "--cert-name", "rsa.example.org"]);
    sees("what is still deployed", "rsa.example.org", &after[1]);
    let run = cmd.assemble(&[]).exits(0);
    assert_eq!(run.action("rsa.example.org.pem"), "prune", "{run}");
    assert_eq!(cmd.deployed(), ["ecdsa.example.org.pem", "www.example.org.pem"]);
    sees("the default certificate in its place", "rsa.example.org", &host.serial());
    sees("the others as before", "ecdsa.example.org", &after[0]);
    sees("the others as before", "www.example.org", &after[2]);
    let loaded = haproxy.runtime("show ssl cert");
    assert!(!loaded.contains("rsa.example.org") && loaded.contains("www.example.org"), "{loaded}");
    nothing_to_do(&cmd, &haproxy, 2);
}

/// A certbot before 3.2 runs no directory hook when it issues: the line of `init` in cli.ini makes it do so, is harmless
/// beside the link, and neither it nor what certbot saves of it stops certbot once the program is gone.
#[test]
fn the_line_for_cli_ini_deploys_and_outlives_the_program() {
    let port = Port::free();
    let pebble = Pebble::start(&port);
    let certbot = Certbot::of(&pebble, &port);
    // One that doesn't say its version is taken for an old one.
    let cmd = Cmd::new(certbot.live()).without_haproxy().table("[certbot]\nbinary = \"/nonexistent\"");
    let host_file = cmd.beside("host.pem");
    let cmd = cmd.option(&format!("host_file = {}", support::cmd::toml(&host_file)));
    let certbot = certbot.env("HAPROXY_CERTS_CONFIG", cmd.config());

    // The printed command, as it is.
    let printed = cmd.run(&["init", "--hook"]).exits(0).stdout;
    let add = printed
        .lines()
        .find_map(|line| line.trim_start().strip_prefix("-> ").filter(|line| line.starts_with("printf")));
    shell(add.unwrap_or_else(|| panic!("no command in {printed}")));
    let cli_ini = certbot.config_dir().join("cli.ini");
    let conf = certbot.config_dir().join("renewal/a.test.conf");
    // certbot reads cli.ini of its default directory only, unless it is notified.
    let with_it = |arguments: &[&str]| {
        let mut all = arguments.to_vec();
        all.extend(["--config", cli_ini.to_str().unwrap()]);
        let output = certbot.run(&all);
        let said =
            String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(!said.contains("reported error code"), "{said}\n{}", certbot.log());
        output.status.success()
    };
    let deployed = || fs::read_to_string(cmd.site("a.test")).unwrap_or_default();
    let issue = ["certonly", "--standalone", "-d", "a.test"];
    let renew = ["renew", "--force-renewal"];

    assert!(with_it(&issue));
    let first = deployed();
    assert!(first.contains("BEGIN CERTIFICATE"), "deployed when it was issued: {}", certbot.log());
    assert!(fs::read_to_string(&conf).unwrap().contains("post_hook = test ! -x "), "certbot saves it");
    // Now the directory's hook runs, too: one of the two has nothing to do.
    assert!(with_it(&renew));
    let second = deployed();
    assert_ne!(first, second);

    // The program is removed, with its link: certbot goes on, with the line and with what it saved.
    let link = certbot.config_dir().join("renewal-hooks/post/haproxy-certs");
    fs::remove_file(&link).unwrap();
    assert!(with_it(&renew) && with_it(&["certonly", "--standalone", "--force-renewal", "-d", "a.test"]));
    assert_eq!(deployed(), second);

    // The line that an earlier version printed stops it.
    let bare = format!("post-hook = {}\n", link.display());
    fs::write(&cli_ini, format!("max-log-backups = 0\n{bare}")).unwrap();
    assert!(!with_it(&renew));
    let finding = cmd.run(&["init", "--dry-run"]).exits(0).stdout;
    let mend = finding
        .lines()
        .find_map(|line| line.trim_start().strip_prefix("-> ").filter(|line| line.starts_with("sed")));
    shell(mend.unwrap_or_else(|| panic!("no command in {finding}")));
    assert!(with_it(&renew));
    assert!(cmd.run(&["init", "--dry-run"]).exits(0).stdout.lines().all(|line| !line.contains("sed -i")));

    // What the packages say of it when they are removed: the command leaves nothing of ours, and the rest as it is.
    let theirs = format!("deploy-hook = /x && {}\n", link.display());
    for script in ["debian/prerm", "rpm/preun"] {
        fs::write(&cli_ini, format!("max-log-backups = 0\n# post-hook = haproxy-certs\n{bare}{theirs}"))
            .unwrap();
        let saved = format!("{}post_hook = test ! -x {1} || {1}\n", without_hooks(&conf), link.display());
        fs::write(&conf, saved).unwrap();
        let say = format!(
            "eval \"$(sed -n '/^name_hooks()/,/^}}/p' packaging/{script})\"; name_hooks {}",
            certbot.config_dir().display()
        );
        let said = shell(&say);
        let remove = said.lines().find_map(|line| line.trim_start().strip_prefix("sed -i "));
        shell(&format!("sed -i {}", remove.unwrap_or_else(|| panic!("no command in {said}"))));
        assert_eq!(
            fs::read_to_string(&cli_ini).unwrap(),
            format!("max-log-backups = 0\n# post-hook = haproxy-certs\n{theirs}")
        );
        assert!(said.contains(&format!("cli.ini:4:{theirs}")), "{said}");
        assert!(!fs::read_to_string(&conf).unwrap().contains("hook"), "{said}");
    }
    fs::write(&cli_ini, "max-log-backups = 0\n").unwrap();
    assert!(with_it(&renew));
}

/// A renewal configuration without its hooks.
fn without_hooks(conf: &std::path::Path) -> String {
    let text = fs::read_to_string(conf).unwrap();
    text.split_inclusive('\n').filter(|line| !line.contains("hook")).collect()
}

/// What a shell says to this, on both of its outputs; it must succeed.
#[track_caller]
fn shell(command: &str) -> String {
    let output =
        std::process::Command::new("sh").args(["-ec", &format!("exec 2>&1; {command}")]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command}: {said}");
    said
}

/// A run with nothing to do changes nothing, tells nobody, and exits 0.
fn nothing_to_do(cmd: &Cmd, haproxy: &Haproxy, sites: usize) {
    let (processes, log) = (haproxy.processes(), haproxy.log());
    let run = cmd.assemble(&[]).exits(0);
    let report = run.json();
    assert_eq!(report["summary"]["unchanged"], sites, "{run}");
    assert_eq!(report["haproxy"][0]["outcome"], "not-needed", "{run}");
    assert_eq!(run.stderr, "");
    assert_eq!((haproxy.processes(), haproxy.log()), (processes, log));
}

/// The reply to a plain HTTP request.
fn plain_get(server: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: www.example.org\r\nConnection: close\r\n\r\n").unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    reply
}
