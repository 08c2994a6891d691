//! What HAProxy loads and would serve, as the program sees it, against what a HAProxy that was just started does.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may fail loudly")]

mod support;

use std::fs;
use std::path::Path;

use haproxy_certs::certified_key::KeyFamily;
use haproxy_certs::config::{self, Overrides, Settings};
use haproxy_certs::serving::gather::{Known, gather};
use haproxy_certs::world::World;
use support::Authority;
use support::haproxy::{Haproxy, Version, versions};
use support::pki::{KeyKind, Validity};
use support::tls::try_served_to;

const BOTH: &[KeyFamily] = &[KeyFamily::Ecdsa, KeyFamily::Rsa];

/// Clients by what they can: their signature algorithms as OpenSSL writes them.
const CLIENTS: [(&[KeyFamily], Option<&str>); 3] = [
    (BOTH, None),
    (&[KeyFamily::Ecdsa], Some("ECDSA+SHA256:ECDSA+SHA384")),
    (&[KeyFamily::Rsa], Some("RSA-PSS+SHA256:RSA+SHA256")),
];

/// Names that the certificates below have, and others.
const NAMES: [&str; 14] = [
    "",
    "a.test",
    "b.test",
    "c.test",
    "host.test",
    "other.test",
    "x.wild.test",
    "no.wild.test",
    "a.wild.test",
    "only.filter.test",
    "q.filter.test",
    "no.filter.test",
    "WWW.A.TEST",
    "unknown.example",
];

/// The files of every world: a path, a kind of key and names.
const FILES: [(&str, KeyKind, &[&str]); 19] = [
    ("host.pem", KeyKind::P256, &["host.test"]),
    ("rsa.pem", KeyKind::Rsa2048, &["host.test", "r.test"]),
    ("ed.pem", KeyKind::Ed25519, &["ed.test"]),
    ("sites/a.pem", KeyKind::P256, &["a.test", "www.a.test"]),
    ("sites/a-0001.pem", KeyKind::P256, &["a.test"]),
    ("sites/b.pem", KeyKind::Rsa2048, &["b.test", "c.test"]),
    ("sites/c.pem", KeyKind::P384, &["c.test", "*.wild.test"]),
    ("sites/d.pem", KeyKind::Rsa2048, &["*.wild.test", "a.wild.test"]),
    ("sites/e.pem", KeyKind::Ed25519, &["ed.test", "b.test"]),
    ("sites/note.key", KeyKind::P256, &["a.test"]),
    ("sites/sub/z.pem", KeyKind::P256, &["a.test"]),
    ("legacy/a.pem", KeyKind::P256, &["a.test", "b.test"]),
    ("legacy/z.crt.old", KeyKind::Rsa2048, &["a.test", "other.test"]),
    ("legacy/b c.pem", KeyKind::P256, &["c.test"]),
    ("listed/l1.pem", KeyKind::P256, &["l1.test", "a.test"]),
    ("listed/l2.pem", KeyKind::Rsa2048, &["l2.test", "b.test"]),
    ("listed/l3.pem", KeyKind::P256, &["l3.test"]),
    ("bundle.pem.ecdsa", KeyKind::P256, &["bundle.test"]),
    ("bundle.pem.rsa", KeyKind::Rsa2048, &["bundle.test"]),
];

/// A crt-list; `@` stands for the folder, a relative path begins at `crt-base`.
const LIST: &str = "# all of it\n\n@/listed/l1.pem [alpn h2] *.filter.test !no.filter.test\nlisted/l2.pem\n\
                    \t@/listed/l3.pem only.filter.test !* no.filter.test A.Test\nlisted/l2.pem *.filter.test\n";

/// The bind lines, `@` for the folder, and the first version that reads them.
const BINDS: [((u32, u32), &str); 18] = [
    ((2, 2), "crt @/sites"),
    ((2, 2), "crt @/host.pem crt @/sites"),
    ((2, 2), "crt @/sites crt @/legacy"),
    ((2, 2), "crt @/legacy crt @/sites/"),
    ((2, 2), "crt sites crt host.pem strict-sni"),
    ((2, 2), "crt-list @/list crt @/sites"),
    ((2, 2), "crt @/sites crt-list @/list strict-sni"),
    ((2, 2), "crt '@/legacy/b c.pem' crt @/legacy/b\\ c.pem"),
    ((2, 2), "crt \"${FOLDER}/rsa.pem\" crt @/sites # crt nothing"),
    ((2, 2), "crt @/rsa.pem crt @/sites/../sites"),
    ((2, 2), "crt @/ed.pem crt @/link"),
    ((2, 3), "crt @/bundle.pem crt @/sites"),
    ((3, 0), "crt @/sites default-crt @/host.pem"),
    ((3, 0), "default-crt @/host.pem default-crt @/rsa.pem crt @/sites"),
    ((3, 0), "crt @/legacy default-crt @/rsa.pem crt-list @/defaults"),
    ((3, 0), "crt-list @/defaults crt @/sites"),
    ((3, 0), "crt @/sites default-crt @/rsa.pem strict-sni"),
    ((3, 0), "crt @store/one crt @store/listed/l2.pem crt @/sites"),
];

fn write(folder: &Path, authority: &Authority) {
    for (file, kind, names) in FILES {
        let path = folder.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, authority.issue(kind, names, Validity::days(90)).combined()).unwrap();
    }
    std::os::unix::fs::symlink(folder.join("sites"), folder.join("link")).unwrap();
    std::os::unix::fs::symlink("../host.pem", folder.join("legacy/0-link.pem")).unwrap();
    fs::write(folder.join("list"), within(folder, LIST)).unwrap();
    fs::write(folder.join("defaults"), within(folder, "@/listed/l1.pem *\n@/listed/l2.pem * x.test\n"))
        .unwrap();
}

fn within(folder: &Path, text: &str) -> String {
    // `@store` is a name of HAProxy's.
    text.replace("@/", &format!("{}/", folder.display()))
}

/// The program's idea of this HAProxy.
fn table(haproxy: &Haproxy, more: &str) -> config::Haproxy {
    let text = format!("[[haproxy]]\npidfile = {:?}\n{more}", haproxy.pidfile());
    Settings::parse(&text, &Overrides::default()).unwrap().haproxys.remove(0)
}

fn start(version: &Version, folder: &Path) -> (Haproxy, Vec<&'static str>) {
    let mut setup = Haproxy::of(version).global(&format!("  crt-base {}", folder.display()));
    let mut lines = Vec::new();
    for (_, line) in BINDS.into_iter().filter(|(since, _)| version.number() >= *since) {
        if !lines.is_empty() {
            setup = setup.another_bind();
        }
        setup = setup.bind_option(&within(folder, line));
        lines.push(line);
    }
    if version.number() >= (3, 0) {
        let store = within(
            folder,
            "crt-store store\n  crt-base @/\n  load crt host.pem alias one\n  load crt listed/l2.pem",
        );
        setup = setup.global(&store);
    }
    (setup.env("FOLDER", folder.to_str().unwrap()).start(), lines)
}

/// Every bind, name and kind of client: what the value says is what a handshake shows.
#[test]
fn whoever_is_said_to_be_served_is_served() {
    for version in &versions() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        write(&folder, &Authority::new());
        let (haproxy, lines) = start(version, &folder);
        let world = World::host();
        let serving = gather(&world, &table(&haproxy, ""), Some(version.number()), &Known::new());
        assert_eq!(serving.unclear, None, "{}", version.name);
        assert_eq!(serving.binds.len(), lines.len());
        assert_eq!(serving.unloadable().count(), 0, "{:?}", serving.unloadable().collect::<Vec<_>>());
        let without_version = gather(&world, &table(&haproxy, ""), None, &Known::new());
        let (mut wrong, mut answered) = (Vec::new(), 0);
        for ((bind, line), address) in serving.binds.iter().zip(&lines).zip(haproxy.addresses()) {
            let view = serving.view(bind);
            let blind = without_version.binds.iter().find(|other| other.at == bind.at).unwrap();
            let blind = without_version.view(blind);
            for name in NAMES {
                for (able, algorithms) in CLIENTS {
                    let asked = Some(name).filter(|name| !name.is_empty());
                    let said = view.presented(asked, able).unwrap();
                    let expected = said
                        .filter(|said| algorithms.is_none() || able.contains(&said.leaf.key_type.family()))
                        .map(|said| said.leaf.serial.clone());
                    let found = try_served_to(address, name, algorithms).ok().map(|served| served.serial);
                    answered += usize::from(found.is_some());
                    if expected != found {
                        let store = said.map(|said| said.entry.store.clone());
                        wrong.push(format!("{line}: {name:?} {able:?}: said {store:?}, is {found:?}"));
                    }
                    if let Ok(other) = blind.presented(asked, able) {
                        let (one, other) = (said.map(|it| &it.leaf.serial), other.map(|it| &it.leaf.serial));
                        assert_eq!(one, other, "without the version, {line}: {name:?} {able:?}");
                    }
                }
            }
        }
        assert!(answered > 250, "{}: only {answered} handshakes", version.name);
        assert!(wrong.is_empty(), "{}:\n{}", version.name, wrong.join("\n"));
        // Every store has the name that HAProxy has for it.
        let shown = haproxy.runtime("show ssl cert");
        let mut shown: Vec<&str> =
            shown.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
        shown.sort_unstable();
        let stores: Vec<&str> = serving.stores.keys().map(String::as_str).collect();
        assert_eq!(stores, shown, "{}", version.name);
    }
}
