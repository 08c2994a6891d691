//! Certificates of other ACME clients, laid down the same way under other names: dehydrated, lego and acme.sh themselves,
//! against Pebble; `NixOS`'s files as that writes them.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may fail loudly")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use support::acme::in_front_of_certbot;
use support::process::finish;
use support::tree::write;
use support::{Cmd, Haproxy, KeyKind, Pebble, Port, Tree, Validity, served, unpacked};

/// A HAProxy with a host certificate and this program's sites directory.
fn served_by(cmd: Cmd, http: &Port, challenge: &Port) -> (Cmd, Haproxy) {
    let haproxy = in_front_of_certbot(&cmd, http, challenge);
    (cmd.haproxy(&haproxy, ""), haproxy)
}

#[track_caller]
fn succeeds(command: &mut Command) -> String {
    let output = finish(command, Duration::from_secs(300));
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}: {said}", output.status);
    said.into_owned()
}

/// Its files have certbot's names, links in the same directory; its hook deploys; a directory that is gone is pruned,
/// since there is no renewal configuration.
#[test]
fn dehydrated_from_its_hook_to_what_is_served() {
    let folder = tempfile::Builder::new().prefix("haproxy-certs-dehydrated-").tempdir().unwrap();
    let (http, challenge) = (Port::free(), Port::free());
    let pebble = Pebble::start(&http);
    let certs = folder.path().join("certs");
    let (cmd, haproxy) = served_by(Cmd::new(&certs), &http, &challenge);
    let hook = folder.path().join("hook");
    let text = format!(
        "#!/bin/sh\ncase $1 in\ndeploy_challenge) CERTBOT_DOMAIN=$2 CERTBOT_VALIDATION=$4; {};;\n\
         deploy_cert) {} --config {} assemble;;\nesac\n",
        pebble.dns_hook(),
        Cmd::program().display(),
        cmd.config().display(),
    );
    write(&hook, text, 0o755);
    let config = folder.path().join("config");
    let text = format!(
        "CA={}\nBASEDIR={}\nCHALLENGETYPE=dns-01\nHOOK={}\nCURL_OPTS='--cacert {}'\n",
        pebble.directory(),
        folder.path().display(),
        hook.display(),
        pebble.api_ca().display(),
    );
    write(&config, text, 0o644);
    let dehydrated = |arguments: &[&str]| {
        succeeds(Command::new("dehydrated").arg("--config").arg(&config).args(arguments))
    };
    dehydrated(&["--register", "--accept-terms"]);
    for name in ["a.test", "b.test", "c.test"] {
        let said = dehydrated(&["--cron", "--domain", name]);
        assert_eq!(served(haproxy.address(), name).names, [name], "{said}");
    }
    let first = served(haproxy.address(), "a.test").serial;
    dehydrated(&["--cron", "--force", "--domain", "a.test"]);
    assert_ne!(served(haproxy.address(), "a.test").serial, first);
    assert_eq!(cmd.assemble(&[]).exits(0).action("a.test.pem"), "unchanged");

    // What an older script left of one of its earlier certificates is taken over: dehydrated keeps those.
    let old: Vec<_> =
        fs::read_dir(certs.join("a.test")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let mut chains: Vec<_> =
        old.iter().filter(|path| path.to_str().unwrap().contains("/fullchain-")).collect();
    chains.sort();
    assert_eq!(chains.len(), 2, "{old:?}");
    let key = chains[0].to_str().unwrap().replace("/fullchain-", "/privkey-");
    let state = cmd.sites().join(".haproxy-certs/state.json");
    fs::remove_file(state).unwrap();
    let left = [fs::read(chains[0]).unwrap(), fs::read(key).unwrap()].concat();
    fs::remove_file(cmd.site("a.test")).unwrap();
    write(&cmd.site("a.test"), left, 0o400);
    assert_eq!(cmd.assemble(&[]).exits(0).action("a.test.pem"), "replace");

    fs::remove_dir_all(certs.join("b.test")).unwrap();
    assert_eq!(cmd.assemble(&[]).exits(0).action("b.test.pem"), "prune");
    // The guards hold: a tree that is gone altogether prunes nothing.
    fs::rename(&certs, folder.path().join("elsewhere")).unwrap();
    cmd.assemble(&[]);
    assert_eq!(cmd.deployed(), ["a.test.pem", "c.test.pem"]);
}

/// lego keeps all in one directory: one of links for each name, made once, is what is read.
#[test]
fn lego_through_two_links_for_each_name() {
    let folder = tempfile::Builder::new().prefix("haproxy-certs-lego-").tempdir().unwrap();
    let (http, challenge) = (Port::free(), Port::free());
    let pebble = Pebble::start(&http);
    let live = folder.path().join("by-name");
    let (cmd, haproxy) = served_by(Cmd::new(&live), &http, &challenge);
    let lego = |arguments: &[&str]| {
        let port = format!("127.0.0.1:{}", challenge.number());
        let mut command = Command::new("lego");
        command.args(["--server", &pebble.directory(), "--email", "a@example.org", "--accept-tos"]);
        command.args(["--http", "--http.port", &port, "--domains", "a.test"]);
        command.arg("--path").arg(folder.path()).args(arguments);
        succeeds(command.env("LEGO_CA_CERTIFICATES", pebble.api_ca()))
    };
    lego(&["run"]);
    fs::create_dir_all(live.join("a.test")).unwrap();
    for (link, ending) in [("privkey.pem", "key"), ("fullchain.pem", "crt")] {
        symlink(format!("../../certificates/a.test.{ending}"), live.join("a.test").join(link)).unwrap();
    }
    cmd.assemble(&[]).exits(0);
    let first = served(haproxy.address(), "a.test");
    assert_eq!(first.names, ["a.test"]);
    let hook = format!("{} --config {} assemble", Cmd::program().display(), cmd.config().display());
    lego(&["renew", "--days", "10000", "--no-random-sleep", "--renew-hook", &hook]);
    assert_ne!(served(haproxy.address(), "a.test").serial, first.serial);
}

/// acme.sh keeps its files to itself: what `--install-cert` copies is read, and its `--reloadcmd` deploys, then and whenever
/// it renews.
#[test]
fn acme_sh_copies_two_files_and_its_command_deploys() {
    let folder = tempfile::Builder::new().prefix("haproxy-certs-acme-sh-").tempdir().unwrap();
    let (http, challenge) = (Port::free(), Port::free());
    let pebble = Pebble::start(&http);
    let live = folder.path().join("by-name");
    fs::create_dir_all(live.join("a.test")).unwrap();
    let (cmd, haproxy) = served_by(Cmd::new(&live), &http, &challenge);
    let cmd = cmd.option("key_file = \"key.pem\"");
    fs::create_dir_all(folder.path().join("home/dnsapi")).unwrap();
    let hook = format!(
        "dns_pebble_add() {{ CERTBOT_DOMAIN=${{1#_acme-challenge.}}; CERTBOT_VALIDATION=$2; {}; }}\n\
         dns_pebble_rm() {{ :; }}\n",
        pebble.dns_hook()
    );
    write(&folder.path().join("home/dnsapi/dns_pebble.sh"), hook, 0o755);
    let acme_sh = |arguments: &[&str]| {
        let mut command = Command::new(unpacked("acme.sh/usr/bin/acme.sh"));
        command.args(arguments).args(["--server", &pebble.directory()]);
        command.arg("--home").arg(folder.path().join("home")).arg("--ca-bundle").arg(pebble.api_ca());
        succeeds(command.env("HOME", folder.path()))
    };
    acme_sh(&["--issue", "--dns", "dns_pebble", "--dnssleep", "1", "-d", "a.test"]);
    let [key, chain] = ["key.pem", "fullchain.pem"].map(|name| live.join("a.test").join(name));
    let deploy = format!("{} --config {} assemble", Cmd::program().display(), cmd.config().display());
    let mut install = vec!["--install-cert", "-d", "a.test", "--reloadcmd", &deploy];
    install.extend(["--key-file", key.to_str().unwrap(), "--fullchain-file", chain.to_str().unwrap()]);
    let said = acme_sh(&install);
    let first = served(haproxy.address(), "a.test");
    assert_eq!(first.names, ["a.test"], "{said}");
    acme_sh(&["--renew", "--force", "-d", "a.test"]);
    assert_ne!(served(haproxy.address(), "a.test").serial, first.serial);
    assert_eq!(cmd.assemble(&[]).exits(0).action("a.test.pem"), "unchanged");
}

/// Other names for the same two files: `NixOS`'s `key.pem`, acme.sh's after `--install-cert`.
#[test]
fn the_two_files_may_have_other_names() {
    for (key, chain) in
        [("key.pem", "fullchain.pem"), ("example.key", "fullchain.cer"), ("full.pem", "full.pem")]
    {
        let mut tree = Tree::new();
        let leaf = tree.issue_plain("a.example", KeyKind::P256, &["a.example"], Validity::days(90));
        let lineage = tree.lineage("a.example");
        let read = |name: &str| fs::read(lineage.join(name)).unwrap();
        let (pair, all) = ([read("privkey.pem"), read("fullchain.pem")], leaf.combined());
        for name in support::cmd::names_in(&lineage) {
            fs::remove_file(lineage.join(name)).unwrap();
        }
        if key == chain {
            write(&lineage.join(key), &all, 0o600);
        } else {
            write(&lineage.join(key), &pair[0], 0o600);
            write(&lineage.join(chain), &pair[1], 0o644);
        }
        fs::remove_dir_all(tree.root().join("renewal")).unwrap_or_default();
        let cmd = Cmd::new(tree.live()).without_haproxy();
        cmd.assemble(&[]);
        assert!(!cmd.site("a.example").exists(), "by certbot's names there is no pair");
        let cmd = cmd.option(&format!("key_file = {key:?}\nchain_file = {chain:?}"));
        assert_eq!(cmd.assemble(&[]).exits(0).action("a.example.pem"), "install");
        assert_eq!(fs::read(cmd.site("a.example")).unwrap(), all.as_ref() as &[u8]);
        // What is missing is named as it is called here.
        fs::remove_file(lineage.join(key)).unwrap();
        if key != chain {
            let report = cmd.assemble(&[]).exits(1);
            assert_eq!(report.reason("a.example.pem").as_deref(), Some("key-missing"));
            assert!(report.stdout.contains(&format!("/{key} is missing")), "{report}");
        }
        assert!(Path::new(&cmd.site("a.example")).exists());
    }
}

/// `status` speaks of the client that lays the files down, and not of certbot; in JSON the keys are the same everywhere.
#[test]
fn status_names_the_client_in_trees_of_others() {
    for more in ["", "key_file = \"key.pem\"", "chain_file = \"chain.cer\""] {
        let mut tree = Tree::new();
        let live = tempfile::Builder::new().prefix("haproxy-certs-other-").tempdir().unwrap();
        let key = if more.contains("key_file") { "key.pem" } else { "privkey.pem" };
        let chain = if more.contains("chain_file") { "chain.cer" } else { "fullchain.pem" };
        // What certbot has now, laid down by somebody else.
        let lay_down = |tree: &Tree| {
            let (from, to) = (tree.lineage("a.example"), live.path().join("a.example"));
            fs::create_dir_all(&to).unwrap();
            fs::copy(from.join("privkey.pem"), to.join(key)).unwrap();
            fs::copy(from.join("fullchain.pem"), to.join(chain)).unwrap();
        };
        tree.issue("a.example", KeyKind::P256, &["a.example"], Validity::days(90));
        lay_down(&tree);
        let cmd = Cmd::new(live.path()).without_haproxy().option(more);
        let mut said = Vec::new();
        let mut look = |problem: &str, fact: &str| {
            let status = cmd.run(&["status"]);
            assert!(status.stdout.contains(problem) && status.stdout.contains(fact), "{more}: {status}");
            assert!(status.stdout.contains(" CLIENT "), "{more}: {status}");
            said.push(status.stdout);
            let page = cmd.run(&["status", "--format", "html"]).stdout;
            assert!(page.contains("client"), "{page}");
            said.push(page);
            let site = cmd.run(&["status", "--format", "json"]).site("a.example.pem");
            assert!(site["certbot"]["serial"].is_string(), "{site}");
        };
        look("disk-missing", "the client has a certificate, and there is no file for it");
        cmd.assemble(&[]).exits(0);
        tree.renew("a.example");
        lay_down(&tree);
        look("disk-stale", "the client has");
        for said in said {
            assert!(!said.to_lowercase().contains("certbot"), "{more}: {said}");
        }
    }
    let tree = Tree::of(&[("a.example", &["a.example"])]);
    let status = Cmd::new(tree.live()).without_haproxy().run(&["status"]);
    assert!(status.stdout.contains(" CERTBOT ") && status.stdout.contains("certbot has a cert"), "{status}");
}
