//! The whole way, with the real programs: certbot behind HAProxy's plain-HTTP frontend gets certificates from Pebble,
//! its hooks run the program, and HAProxy serves what certbot has.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may fail loudly")]

mod support;

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
