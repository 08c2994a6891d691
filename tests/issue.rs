//! `issue` with the real certbot and Pebble: whatever authenticator there is, wildcards, addresses, two kinds of keys.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may fail loudly")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use support::acme::in_front_of_certbot;
use support::cmd::toml;
use support::tls::try_served_to;
use support::tree::write;
use support::{Cmd, Haproxy, Pebble, Port, served};
use tempfile::TempDir;

/// certbot, Pebble and a HAProxy in front of them.
struct Host {
    temporary: TempDir,
    pebble: Pebble,
    haproxy: Haproxy,
    cmd: Cmd,
    _ports: [Port; 2],
}

/// A host whose `[certbot]` table has these lines, too.
fn host(more: &str) -> Host {
    let temporary = tempfile::Builder::new().prefix("haproxy-certs-issue-").tempdir().unwrap();
    let (http, challenge) = (Port::free(), Port::free());
    let pebble = Pebble::start(&http);
    let cmd = Cmd::new(temporary.path().join("letsencrypt/live"));
    let haproxy = in_front_of_certbot(&cmd, &http, &challenge);
    let folders =
        ["work", "logs"].map(|name| format!("--{name}-dir={}", temporary.path().join(name).display()));
    let mut args = vec!["-n".to_owned(), "--agree-tos".into(), "--register-unsafely-without-email".into()];
    args.extend(["--server".to_owned(), pebble.directory()]);
    args.extend(folders);
    let args = serde_json::to_string(&args).unwrap();
    let host_file = toml(&cmd.beside("host.pem"));
    let cmd = cmd
        .option(&format!("host_file = {host_file}"))
        .haproxy(&haproxy, "")
        .table(&format!("[certbot]\nhttp_01_port = {}\nargs = {args}\n{more}", challenge.number()))
        .env("REQUESTS_CA_BUNDLE", pebble.api_ca())
        .env("HOME", temporary.path());
    Host { temporary, pebble, haproxy, cmd, _ports: [http, challenge] }
}

impl Host {
    fn at(&self, name: &str) -> PathBuf {
        self.temporary.path().join(name)
    }

    /// What certbot has saved of how a lineage was issued.
    fn conf(&self, name: &str) -> String {
        fs::read_to_string(self.at(&format!("letsencrypt/renewal/{name}.conf"))).unwrap()
    }
}

/// A certbot that only says what it was called with.
fn says(folder: &Path, version: &str) -> PathBuf {
    let script = folder.join("certbot");
    let text = format!(
        "#!/bin/sh\ncase $1 in --version) echo certbot {version};; *) echo \"called $*\"; exit 7;; esac\n"
    );
    write(&script, text, 0o755);
    script
}

/// From nothing to a wildcard that is served, by the DNS challenge: certbot asks for it, a hook answers, Pebble looks.
#[test]
fn a_wildcard_comes_by_dns_and_is_served() {
    let host = host("");
    let refused = host.cmd.run(&["issue", "-d", "*.wild.test,wild.test"]).exits(3);
    assert!(refused.stderr.contains("standalone can't prove *.wild.test"), "{refused}");
    let works = "haproxy-certs issue -d '*.wild.test' -d wild.test -- --manual --preferred-challenges dns;";
    assert!(refused.stderr.contains(works), "{refused}");
    assert!(!host.at("logs").exists(), "certbot was called");

    let hook = host.pebble.dns_hook();
    let by_dns = ["--manual", "--preferred-challenges", "dns", "--manual-auth-hook", &hook];
    let mut line = vec!["issue", "-d", "*.wild.test,wild.test", "--"];
    line.extend(by_dns);
    host.cmd.run(&line).exits(0);
    let served = served(host.haproxy.address(), "shop.wild.test");
    assert!(served.names.contains(&"*.wild.test".to_owned()), "{served:?}");
    assert!(host.conf("wild.test").contains("authenticator = manual"));
}

/// Where certbot's own cli.ini, or the settings, name an authenticator, ours isn't named beside it.
#[test]
fn the_authenticator_of_cli_ini_or_of_the_settings_is_used() {
    let host = host("authenticator = \"manual\"");
    let hook = host.pebble.dns_hook();
    let by_dns = ["--preferred-challenges", "dns", "--manual-auth-hook", &hook];
    let mut line = vec!["issue", "-d", "a.test", "--"];
    line.extend(by_dns);
    host.cmd.run(&line).exits(0);
    assert!(host.conf("a.test").contains("authenticator = manual"));

    // What certbot reads itself: its personal file, and one that is named.
    let personal = host.at(".config/letsencrypt");
    fs::create_dir_all(&personal).unwrap();
    fs::write(personal.join("cli.ini"), "manual = true\n").unwrap();
    line[2] = "b.test";
    host.cmd.run(&line).exits(0);
    fs::write(personal.join("cli.ini"), "authenticator = webroot\n").unwrap();
    line[2] = "c.test";
    host.cmd.run(&line).exits(0);
    assert!(host.conf("c.test").contains("authenticator = manual"), "the settings beat it");
    fs::write(personal.join("cli.ini"), "# nothing\nwebroot = true\n").unwrap();
    let refused = host.cmd.run(&["issue", "-d", "d.test"]).exits(3);
    assert!(refused.stderr.contains("/.config/letsencrypt/cli.ini line 2, webroot;"), "{refused}");
    // One behind the dashes is told by its name.
    fs::write(personal.join("cli.ini"), "authenticator = webroot\n").unwrap();
    host.cmd.run(&["issue", "-d", "d.test", "--", "-a", "standalone"]).exits(0);
    assert_eq!(served(host.haproxy.address(), "d.test").names, ["d.test"]);
}

#[test]
fn an_address_needs_a_certbot_that_can_and_the_first_place() {
    let folder = tempfile::tempdir().unwrap();
    let with = |version: &str| {
        let binary = says(folder.path(), version);
        Cmd::new(folder.path().join("live"))
            .without_haproxy()
            .table(&format!("[certbot]\nbinary = {}", toml(&binary)))
            .env("HOME", folder.path())
    };
    let old = with("4.0.0").run(&["issue", "-d", "192.0.2.7"]).exits(3);
    assert!(old.stderr.contains("this certbot is 4.0, and standalone can't prove the address"), "{old}");
    assert!(!old.stdout.contains("called"), "{old}");
    let new =
        with("5.4.0").run(&["issue", "-d", "192.0.2.7,a.test", "--", "--preferred-profile", "shortlived"]);
    let called = "--ip-address 192.0.2.7 -d a.test --preferred-profile shortlived\n";
    assert!(new.code == Some(7) && new.stdout.contains(called), "{new}");
    let staging = with("2.1.0").run(&["issue", "-d", "a.test", "--", "--staging"]).exits(7);
    assert!(staging.stdout.ends_with("-d a.test --staging\n"), "{staging}");
}

/// The two calls of the manual page: one name, a certificate for each kind of key, and each client gets the one it can.
#[test]
fn two_kinds_of_keys_for_one_name() {
    let host = host("");
    host.cmd.run(&["issue", "-d", "a.test", "--", "--key-type", "ecdsa"]).exits(0);
    let rsa = ["issue", "-d", "a.test", "--", "--key-type", "rsa", "--cert-name", "a.test-rsa"];
    let second = host.cmd.run(&rsa).exits(0);
    assert!(!second.stdout.contains("shadowed"), "{second}");
    assert_eq!(host.cmd.deployed(), ["a.test-rsa.pem", "a.test.pem"]);
    let address = host.haproxy.address();
    let to = |algorithms: &str| try_served_to(address, "a.test", Some(algorithms)).unwrap().serial;
    let report = host.cmd.assemble(&[]).exits(0);
    let serial = |file: &str| report.site(file)["serial"].as_str().unwrap().to_owned();
    assert_eq!(to("ECDSA+SHA256"), serial("a.test.pem"));
    assert_eq!(to("RSA-PSS+SHA256:RSA+SHA256"), serial("a.test-rsa.pem"));
    let status = host.cmd.run(&["status", "--format", "json"]);
    assert!(!status.stdout.contains("shadowed"), "{status}");
    // Both are renewed, each with its own kind of key.
    let renew = ["renew", "--", "--force-renewal", "-n", "--no-random-sleep-on-renew"];
    let folders = ["work", "logs"].map(|name| format!("--{name}-dir={}", host.at(name).display()));
    let mut line = renew.to_vec();
    line.extend(folders.iter().map(String::as_str));
    let before = [to("ECDSA+SHA256"), to("RSA-PSS+SHA256:RSA+SHA256")];
    host.cmd.run(&line).exits(0);
    assert_ne!(to("ECDSA+SHA256"), before[0]);
    assert_ne!(to("RSA-PSS+SHA256:RSA+SHA256"), before[1]);
}
