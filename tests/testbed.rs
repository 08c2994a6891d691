//! The test bed itself: what the other tests rely on.

#![allow(clippy::unwrap_used, reason = "test code may fail loudly")]

use std::fs;

use support::process::alive;
use support::{Authority, Certbot, Haproxy, Key, KeyKind, Kind, Pebble, Port, Reload, Tree, Validity};
use support::{s_client, served, system_haproxy, tree, try_served, versions, wait_until};

#[test]
fn haproxy_serves_reloads_refuses_and_ends_on_every_version() {
    for version in versions() {
        let folder = tempfile::tempdir().unwrap();
        let sites = folder.path().join("sites");
        tree::make_directory(&sites, 0o700);
        let authority = Authority::new();
        let first = authority.issue(KeyKind::P256, &["a.example"], Validity::days(90));
        let file = sites.join("a.example.pem");
        fs::write(&file, first.combined()).unwrap();

        let mut haproxy = Haproxy::of(&version).crt(&sites).start();
        assert_eq!(served(haproxy.address(), "a.example"), first.served(), "{version:?}");
        assert_eq!(s_client(haproxy.address(), "a.example"), first.served());
        assert!(haproxy.runtime("show info").contains(&version.full));
        assert_eq!(fs::read_to_string(haproxy.pidfile()).unwrap().trim(), haproxy.master_pid().to_string());

        let second = authority.issue(KeyKind::Rsa2048, &["a.example"], Validity::days(90));
        fs::write(&file, second.combined()).unwrap();
        assert_eq!(haproxy.reload_and_wait(), Reload::Loaded, "{version:?}");
        assert_eq!(served(haproxy.address(), "a.example"), second.served());

        fs::write(&file, "garbage").unwrap();
        assert!(haproxy.check().is_err());
        assert_eq!(haproxy.reload_and_wait(), Reload::Refused, "{version:?}");
        assert_eq!(served(haproxy.address(), "a.example"), second.served());
        assert!(haproxy.log().contains("unable to load"), "{}", haproxy.log());

        fs::write(&file, first.combined()).unwrap();
        assert_eq!(haproxy.reload_and_wait(), Reload::Loaded, "{version:?}");
        assert_eq!(served(haproxy.address(), "a.example"), first.served());

        let pids: Vec<u32> = haproxy.worker_pids().into_iter().chain([haproxy.master_pid()]).collect();
        let address = haproxy.address();
        haproxy.kill();
        assert!(!pids.iter().any(|pid| alive(*pid)), "a worker outlives its master: {version:?}");
        haproxy.run_again();
        let pids: Vec<u32> = haproxy.worker_pids().into_iter().chain([haproxy.master_pid()]).collect();
        assert_eq!(pids.len(), 2, "{version:?}");
        drop(haproxy);
        assert!(!pids.iter().any(|pid| alive(*pid)), "something is left: {version:?}");
        assert!(try_served(address, "a.example").is_err());

        fs::write(&file, "garbage").unwrap();
        let refused = Haproxy::of(&version).crt(&sites).try_start().map(|_| ()).unwrap_err();
        assert!(refused.contains("unable to load"), "{refused}");
    }
}

#[test]
fn every_kind_of_key_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let mut setup = Haproxy::of(&system_haproxy());
    let mut expected = Vec::new();
    for (number, kind) in KeyKind::ALL.into_iter().enumerate() {
        let leaf = authority.issue(kind, &["x.example", "192.0.2.7", "2001:db8::1"], Validity::days(90));
        assert_eq!(leaf.served().names, ["x.example", "192.0.2.7", "2001:db8::1"]);
        let file = folder.path().join(format!("{number}.pem"));
        fs::write(&file, leaf.combined()).unwrap();
        setup = if number == 0 { setup } else { setup.another_bind() }.crt(&file);
        expected.push(leaf.served());
    }
    let haproxy = setup.start();
    let seen: Vec<_> = haproxy.addresses().into_iter().map(|address| served(address, "x.example")).collect();
    assert_eq!(seen, expected);
}

#[test]
fn keys_differ_and_rsa_keys_can_be_had_at_will() {
    for kind in KeyKind::ALL {
        assert_ne!(Key::some(kind).spki(), Key::some(kind).spki(), "{kind:?}");
    }
    assert!(Key::some(KeyKind::Rsa2048).traditional_pem().starts_with("-----BEGIN RSA PRIVATE KEY-----\n"));
    assert!(Key::some(KeyKind::P384).traditional_pem().starts_with("-----BEGIN EC PRIVATE KEY-----\n"));
}

#[test]
fn ports_are_given_to_one_only() {
    let ports: Vec<Port> = (0..50).map(|_| Port::free()).collect();
    let mut numbers: Vec<u16> = ports.iter().map(Port::number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 50);
}

/// A renewal killed before each call leaves what the table of partial states says.
#[test]
fn a_killed_renewal_leaves_certbots_partial_states() {
    for call in 1..=17 {
        let mut tree = Tree::new();
        let name = "example.org";
        let old = tree.issue(name, KeyKind::P256, &[name], Validity::days(90));
        let new = tree.renew_stopped_before(call, name);
        let read = |kind| fs::read_to_string(tree.link(name, kind)).ok();
        let expect = |from_old: usize, gap: usize, before: String, after: String| match call {
            _ if call <= from_old => Some(before),
            _ if call == gap => None,
            _ => Some(after),
        };
        assert_eq!(read(Kind::Cert), expect(5, 6, old.cert.clone(), new.cert.clone()), "before call {call}");
        assert_eq!(read(Kind::Privkey), expect(7, 8, old.key.pem(), new.key.pem()), "before call {call}");
        assert_eq!(
            read(Kind::Chain),
            expect(9, 10, old.chain.clone(), new.chain.clone()),
            "before call {call}"
        );
        assert_eq!(
            read(Kind::Fullchain),
            expect(11, 12, old.fullchain(), new.fullchain()),
            "before call {call}"
        );
        let previous = ["cert", "privkey", "chain", "fullchain"]
            .iter()
            .filter(|kind| tree.lineage(name).join(format!("previous_{kind}.pem")).symlink_metadata().is_ok())
            .count();
        assert_eq!(previous, if call <= 4 { call - 1 } else { 4_usize.min(17 - call) }, "before call {call}");
        tree.repair(name);
        assert_eq!(fs::read_to_string(tree.link(name, Kind::Privkey)).unwrap(), new.key.pem());
        assert_eq!(fs::read_to_string(tree.link(name, Kind::Fullchain)).unwrap(), new.fullchain());
        tree.delete(name);
        assert!(!tree.lineage(name).exists() && !tree.archive(name).exists() && !tree.conf(name).exists());
    }
}

/// The tree that [`Tree`] makes, by files, links and modes, against the one that certbot makes.
#[test]
fn the_tree_is_the_one_that_certbot_makes() {
    let (http, challenge) = (Port::free(), Port::free());
    let pebble = Pebble::start(&http);
    let folder = tempfile::tempdir().unwrap();
    let placeholder = folder.path().join("host.pem");
    let leaf = Authority::new().issue(KeyKind::P256, &["placeholder.example"], Validity::days(90));
    fs::write(&placeholder, leaf.combined()).unwrap();
    let haproxy = Haproxy::of(&system_haproxy()).crt(&placeholder).acme(&http, &challenge).start();
    let certbot = Certbot::of(&pebble, &challenge);
    certbot.certonly(&["-d", "example.org", "--cert-name", "example.org"]);
    assert!(certbot.serial("example.org").len() >= 2);
    assert_eq!(served(haproxy.address(), ""), leaf.served());

    let mut tree = Tree::new();
    tree.issue("example.org", KeyKind::P256, &["example.org"], Validity::days(90));
    let of_certbot = listing(&certbot.config_dir());
    assert_eq!(listing(tree.root()), of_certbot);

    certbot.succeed(&["renew", "--force-renewal"]);
    tree.renew("example.org");
    assert_eq!(listing(tree.root()), listing(&certbot.config_dir()));

    certbot.succeed(&["delete", "--cert-name", "example.org"]);
    tree.delete("example.org");
    assert_eq!(listing(tree.root()), listing(&certbot.config_dir()));
    wait_until(support::LIMIT, "nothing is left of the challenge", || {
        std::net::TcpStream::connect(challenge.address()).is_err()
    });
}

/// Paths, types, modes and the targets of links in `live`, `archive` and `renewal`.
fn listing(root: &std::path::Path) -> Vec<String> {
    use std::os::unix::fs::PermissionsExt as _;
    let mut lines: Vec<String> = ["live", "archive", "renewal"]
        .iter()
        .flat_map(|folder| walkdir::WalkDir::new(root.join(folder)))
        .map(|entry| {
            let entry = entry.unwrap();
            let path = entry.path().strip_prefix(root).unwrap().display().to_string();
            if let Ok(target) = fs::read_link(entry.path()) {
                return format!("{path} -> {}", target.display());
            }
            let meta = entry.metadata().unwrap();
            format!("{path} {:o}", meta.permissions().mode())
        })
        .collect();
    lines.sort();
    lines
}
