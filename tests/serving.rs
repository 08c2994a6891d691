//! What HAProxy loads and would serve, as the program sees it, against what a HAProxy that was just started does.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may fail loudly")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use haproxy_certs::certified_key::KeyFamily;
use haproxy_certs::config::{self, Overrides, Settings};
use haproxy_certs::serving::gather::gather;
use haproxy_certs::serving::spared::Spared;
use haproxy_certs::sys::system::System;
use support::cmd::toml;
use support::process::{Running, finish};
use support::tls::{try_served, try_served_to};
use support::{
    Authority, Cmd, Haproxy, Key, KeyKind, LIMIT, Leaf, Port, Reload, Run, Tree, Validity, Version, served,
    system_haproxy, version, versions, wait_until,
};

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

/// The files of every system: a path, a kind of key and names.
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
    let text = format!("[[haproxy]]\npidfile = {}\n{more}", support::cmd::toml(&haproxy.pidfile()));
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
        let system = System::host();
        let serving = gather(&system, &table(&haproxy, ""), Some(version.number()), Spared::default());
        assert_eq!(serving.unclear, None, "{}", version.name);
        assert_eq!(serving.binds.len(), lines.len());
        assert_eq!(serving.unloadable().count(), 0, "{:?}", serving.unloadable().collect::<Vec<_>>());
        let without_version = gather(&system, &table(&haproxy, ""), None, Spared::default());
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

/// Common names with their ASN.1 strings' tags, and DNS names: HAProxy takes all through `ASN1_STRING_to_UTF8()`, as C strings.
type Names = (&'static [(u8, &'static [u8])], &'static [&'static [u8]]);

const STRANGE: [Names; 25] = [
    (&[(0x0c, b"A.test")], &[b"z.test"]),
    (&[(0x14, b"a.test")], &[b"z.test"]),
    (&[(0x14, b"\xe4.test")], &[b"z.test"]),
    (&[(0x16, b"\xe4.test")], &[b"z.test"]),
    (&[(0x13, b"*.test")], &[b"z.test"]),
    (&[(0x12, b"a.test")], &[b"z.test"]),
    (&[(0x03, b"\0a.test")], &[b"z.test"]),
    (&[(0x1e, b"\0a\0.\0t\0e\0s\0t")], &[b"z.test"]),
    (&[(0x1e, b"\0a\0.\0t\0e\0s\0t\0\0\0x")], &[b"z.test"]),
    (&[(0x1c, b"\0\0\0a\0\0\0.\0\0\0t\0\0\0e\0\0\0s\0\0\0t")], &[b"z.test"]),
    (&[(0x0c, b"a.test\0x")], &[b"z.test"]),
    (&[(0x0c, b"a.test\0")], &[]),
    (&[(0x0c, b"\0a.test")], &[b"z.test"]),
    (&[(0x0c, b""), (0x0c, b"a.test")], &[b"z.test"]),
    (&[(0x14, b"a.test"), (0x1e, b"\0x\0.\0t\0e\0s\0t")], &[b"z.test"]),
    (&[], &[b"a.test\0.evil.test", b"z.test"]),
    (&[], &[b"a.test\0", b"z.test"]),
    (&[], &[b"", b"a.test"]),
    (&[], &[b"\0a.test", b"z.test"]),
    (&[], &[b"\xe4.test", b"a.test"]),
    (&[], &[b"\xc3\xa4.test", b"a.test"]),
    (&[], &[b"!a.test", b"z.test"]),
    (&[], &[b"*.test", b"!a.test"]),
    (&[(0x14, b"!a.test\0x")], &[b"*.test\0.evil.test", b"!*.test"]),
    (&[], &[b"*", b"z.test"]),
];

/// A certificate may hold its names in any string type, with anything in them.
#[test]
fn a_name_is_served_however_the_certificate_has_it() {
    const ASKED: [&str; 6] = ["a.test", "z.test", "x.test", "\u{e4}.test", "a.test.evil.test", "evil.test"];
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, leaf: &Leaf| {
        let path = folder.path().join(name);
        fs::write(&path, leaf.combined()).unwrap();
        path
    };
    let host = write("host.pem", &authority.issue(KeyKind::P256, &["host.test"], Validity::days(90)));
    let files: Vec<_> = (0..)
        .zip(STRANGE)
        .map(|(number, (common, dns))| write(&format!("{number}.pem"), &authority.issue_raw(common, dns)))
        .collect();
    for version in &versions() {
        let mut setup = Haproxy::of(version);
        for (number, file) in files.iter().enumerate() {
            setup = if number == 0 { setup } else { setup.another_bind() };
            setup = setup.crt(&host).crt(file);
        }
        let haproxy = setup.start();
        let serving =
            gather(&System::host(), &table(&haproxy, ""), Some(version.number()), Spared::default());
        assert_eq!(serving.unclear, None, "{}", version.name);
        let mut wrong = Vec::new();
        for ((bind, names), address) in serving.binds.iter().zip(STRANGE).zip(haproxy.addresses()) {
            for name in ASKED {
                let view = serving.view(bind);
                let said = view.presented(Some(name), &[KeyFamily::Ecdsa]).unwrap();
                let said = said.map(|said| said.leaf.serial.clone());
                let found = try_served(address, name).ok().map(|served| served.serial);
                if said.is_none() || said != found {
                    wrong.push(format!("{names:?}: {name}: said {said:?}, is {found:?}"));
                }
            }
        }
        assert!(wrong.is_empty(), "{}:\n{}", version.name, wrong.join("\n"));
    }
}

/// The lineage that is loaded first has the name of the second one, in a way that few look for.
#[test]
fn whoever_shares_a_strange_name_is_served_as_after_a_start() {
    let strange: [Names; 3] = [
        (&[(0x14, b"b.test")], &[b"a.test"]),
        (&[(0x1e, b"\0b\0.\0t\0e\0s\0t")], &[b"a.test"]),
        (&[], &[b"b.test\0.evil.test", b"a.test"]),
    ];
    for version in &versions() {
        for (common, dns) in strange {
            let mut tree = Tree::new();
            let first = tree.authority().issue_raw(common, dns);
            tree.issue_leaf("a", &first);
            tree.issue("b", KeyKind::P256, &["b.test"], Validity::days(90));
            let cmd = Cmd::new(tree.live());
            cmd.run(&["assemble", "--reload", "none"]);
            let haproxy = Haproxy::of(version).crt(cmd.sites()).start();
            let cmd = cmd.haproxy(&haproxy, "");
            let renewed = tree.authority().issue_raw(common, dns);
            tree.renew_with("a", &renewed);
            let run = cmd.assemble(&[]);
            let fresh = haproxy.twin();
            for name in ["a.test", "b.test"] {
                let (is, must) = (served(haproxy.address(), name), served(fresh.address(), name));
                assert_eq!(must.serial, renewed.serial(), "{} {dns:?} {name}", version.name);
                assert_eq!(is, must, "{} {dns:?} {name}: {}", version.name, run.stdout);
            }
            assert!(run.stdout.contains("b.test is served from a.pem"), "{}", run.stdout);
        }
    }
}

/// A file of ours by a name that a `crt-store` gives to it is ours.
#[test]
fn what_a_store_names_is_still_ours() {
    for version in versions().into_iter().filter(|version| version.number() >= (3, 0)) {
        let (mut tree, cmd) = deployed();
        tree.issue("a.example-0001", KeyKind::P256, &["a.example", "x.example"], Validity::days(90));
        cmd.run(&["assemble", "--reload", "none"]);
        let store = format!("crt-store s1\n  load crt {} alias A", cmd.site("a.example").display());
        let setup = Haproxy::of(&version).global(&store).crt("@s1/A").crt(cmd.sites());
        let haproxy = setup.start();
        let cmd = cmd.haproxy(&haproxy, "");
        for name in ["a.example", "a.example-0001"] {
            tree.renew(name);
            let run = cmd.assemble(&[]).exits(0);
            assert!(!run.stdout.contains("isn't ours"), "{} {name}: {run}", version.full);
            assert_eq!(
                served(haproxy.address(), "a.example").serial,
                tree.leaf("a.example").serial(),
                "{} {name}",
                version.full
            );
        }
        let shadowed = said(&status(&cmd), "a.example-0001.pem", "shadowed").0;
        assert!(shadowed.starts_with("a.example is served from a.example.pem, which "), "{shadowed}");
    }
}

/// What doesn't listen takes no name from anybody; what it loads must be fit to be loaded all the same.
#[test]
fn a_disabled_frontend_takes_nothing_and_loads_all_the_same() {
    for version in versions() {
        let (mut tree, cmd) = deployed();
        let other = cmd.beside("other");
        fs::create_dir(&other).unwrap();
        let foreign = tree.authority().issue(KeyKind::P256, &["a.example"], Validity::days(90));
        fs::write(other.join("o.pem"), foreign.combined()).unwrap();
        let (port, sites) = (Port::free(), cmd.sites().display().to_string());
        let silent = format!(
            "frontend silent\n  disabled\n  bind {} ssl crt {} crt {sites}",
            port.address(),
            other.display()
        );
        let haproxy = Haproxy::of(&version).crt(cmd.sites()).section(&silent).start();
        assert!(try_served(port.address(), "a.example").is_err());
        let cmd = cmd.haproxy(&haproxy, "");
        let renewed = tree.renew("a.example").serial();
        let run = cmd.assemble(&[]).exits(0);
        assert!(!run.stdout.contains("o.pem"), "{}: {run}", version.full);
        assert_eq!(served(haproxy.address(), "a.example").serial, renewed, "{}", version.full);
        let seen = status(&cmd).exits(0);
        assert_eq!(problems(&seen, "a.example.pem"), [""; 0], "{}: {seen}", version.full);
        let run = cmd.assemble(&["--full"]).exits(0);
        assert_eq!(run.haproxy()["outcome"], "not-needed", "{}: {run}", version.full);
        fs::write(other.join("o.pem"), "x\n").unwrap();
        assert!(haproxy.check().is_err());
        let seen = status(&cmd).exits(2);
        assert!(seen.stdout.contains("unloadable"), "{}: {seen}", version.full);
    }
}

/// Where nothing that listens loads our files no client is presented one.
#[test]
fn files_that_only_a_disabled_frontend_loads_are_not_presented() {
    let version = system_haproxy();
    let (_tree, cmd) = deployed();
    let port = Port::free();
    let silent = format!("listen silent\n  disabled\n  bind {} ssl crt ", port.address());
    let haproxy = Haproxy::of(&version).section(&format!("{silent}{}", cmd.sites().display())).start();
    let cmd = cmd.haproxy(&haproxy, "");
    let seen = status(&cmd).exits(2);
    assert!(seen.stdout.contains("is disabled: it doesn't listen, and no client"), "{seen}");
    assert!(seen.stdout.contains("take disabled out of that section"), "{seen}");
    // A run says the same of it.
    let notes = cmd.assemble(&[]).exits(1).json()["notes"].to_string();
    assert!(notes.contains("is disabled: it doesn't listen; take disabled out of that section"), "{notes}");
    assert!(!notes.contains("add ssl"), "{notes}");
}

/// `a.example` and `b.example`, deployed.
fn deployed() -> (Tree, Cmd) {
    let mut tree = Tree::new();
    for name in ["a.example", "b.example"] {
        tree.issue(name, KeyKind::P256, &[name], Validity::days(90));
    }
    let cmd = Cmd::new(tree.live());
    cmd.run(&["assemble", "--reload", "none"]).exits(0);
    (tree, cmd)
}

fn status(cmd: &Cmd) -> Run {
    cmd.run(&["status", "--format", "json"])
}

#[track_caller]
fn problems(run: &Run, file: &str) -> Vec<String> {
    let words = run.site(file)["problems"].as_array().unwrap().clone();
    words.iter().map(|word| word.as_str().unwrap().to_owned()).collect()
}

/// The fact and the advice of a file's problem.
#[track_caller]
fn said(run: &Run, file: &str, problem: &str) -> (String, String) {
    let site = run.site(file);
    let details = site["details"].as_array().unwrap();
    let detail =
        details.iter().find(|detail| detail["problem"] == problem).unwrap_or_else(|| panic!("{run}"));
    (detail["fact"].as_str().unwrap().into(), detail["advice"].as_str().unwrap_or_default().into())
}

/// Runs what an advice says, with another place for what is moved out.
#[track_caller]
fn paste(cmd: &Cmd, advice: &str) {
    let attic = cmd.beside("attic");
    fs::create_dir_all(&attic).unwrap();
    let command = advice.strip_prefix("run: ").unwrap().replace("/root/", attic.to_str().unwrap());
    let ours = format!("haproxy-certs --config {} ", cmd.config().display());
    if let Some(arguments) = command.strip_prefix(&ours) {
        cmd.run(&arguments.split(' ').collect::<Vec<_>>()).exits(0);
        return;
    }
    let done = Command::new("/bin/sh").args(["-c", &command]).status().unwrap();
    assert!(done.success(), "{command}");
}

/// Whatever is in the directory and makes HAProxy refuse it is critical, and the advice mends it.
#[test]
fn what_haproxy_cannot_load_is_critical_whoever_put_it_there() {
    for version in versions() {
        let (tree, cmd) = deployed();
        let mut haproxy = Haproxy::of(&version).crt(cmd.sites()).start();
        let cmd = cmd.haproxy(&haproxy, "");
        status(&cmd).exits(0);
        let leaf = tree.authority().issue(KeyKind::P256, &["x.example"], Validity::days(90));
        let crossed = format!("{}{}", Key::fresh(KeyKind::P256).pem(), leaf.fullchain());
        let cut = leaf.combined().lines().take(9).collect::<Vec<_>>().join("\n");
        let bad = [
            ("README", "read me\n".to_owned(), "it holds no certificate"),
            ("empty.pem", String::new(), "it is empty"),
            ("crossed 1.pem", crossed, "its key belongs to another certificate"),
            ("z.pem~", leaf.fullchain(), "it has no private key"),
            ("key.bak", leaf.key.pem(), "it holds no certificate"),
            ("cut", cut, "its certificate is damaged"),
            ("link", "->".to_owned(), "there is no such file"),
        ];
        for (file, text, why) in bad {
            let path = cmd.sites().join(file);
            if text == "->" {
                std::os::unix::fs::symlink("nowhere", &path).unwrap();
            } else {
                fs::write(&path, text).unwrap();
            }
            assert!(haproxy.check().is_err(), "{}: {file}", version.name);
            let run = status(&cmd).exits(2);
            assert_eq!(problems(&run, file), ["unloadable", "foreign"], "{run}");
            let (fact, advice) = said(&run, file, "unloadable");
            assert_eq!(fact, format!("HAProxy can't load this file, and won't start again: {why}"));
            for arguments in [&["assemble"][..], &["assemble", "--dry-run"]] {
                let run = cmd.run(arguments).exits(1);
                assert!(run.stdout.contains(why) && run.stdout.contains("mv --backup=numbered -- "), "{run}");
            }
            paste(&cmd, &advice);
            assert_eq!(haproxy.check(), Ok(()), "{file}");
            status(&cmd).exits(0);
            cmd.run(&["assemble"]).exits(0);
        }
        // What HAProxy passes over, or loads, is fine.
        for (file, text) in [("README.key", "no key"), ("good.old", &leaf.combined())] {
            fs::write(cmd.sites().join(file), text).unwrap();
        }
        fs::create_dir(cmd.sites().join("folder")).unwrap();
        assert_eq!(haproxy.check(), Ok(()));
        // Once it has read them.
        assert_eq!(haproxy.reload_and_wait(), Reload::Loaded);
        status(&cmd).exits(0);
        cmd.run(&["assemble"]).exits(0);
    }
}

/// A stats socket may speak TLS, with certificates of its own.
#[test]
fn what_a_stats_socket_loads_is_judged_too() {
    for version in versions() {
        let (tree, cmd) = deployed();
        let (folder, port) = (cmd.beside("more"), Port::free());
        fs::create_dir(&folder).unwrap();
        let file = folder.join("z.pem");
        let leaf = tree.authority().issue(KeyKind::P256, &["z.example"], Validity::days(90));
        fs::write(&file, leaf.combined()).unwrap();
        let line = format!("stats socket ipv4@{} level admin ssl crt {}", port.address(), folder.display());
        let haproxy = Haproxy::of(&version).crt(cmd.sites()).global(&line).start();
        let cmd = cmd.haproxy(&haproxy, "");
        status(&cmd).exits(0);
        fs::write(&file, "no certificate").unwrap();
        assert!(haproxy.check().is_err(), "{}", version.full);
        let run = status(&cmd).exits(2);
        assert!(run.stdout.contains("unloadable"), "{}: {run}", version.full);
        cmd.run(&["assemble"]).exits(1);
    }
}

#[test]
fn the_sites_directory_is_judged_also_where_nothing_is_known_of_haproxy() {
    let (_tree, cmd) = deployed();
    let cmd = cmd.without_haproxy();
    fs::write(cmd.sites().join("README"), "read me").unwrap();
    let run = status(&cmd).exits(2);
    assert_eq!(problems(&run, "README"), ["unloadable", "foreign"], "{run}");
    cmd.run(&["assemble"]).exits(1);
}

#[test]
fn a_file_of_ours_with_another_key_is_critical_and_the_next_run_mends_it() {
    let (tree, cmd) = deployed();
    let haproxy = Haproxy::of(&system_haproxy()).crt(cmd.sites()).start();
    let cmd = cmd.haproxy(&haproxy, "");
    let text = format!("{}{}", Key::fresh(KeyKind::P256).pem(), tree.leaf("a.example").fullchain());
    fs::remove_file(cmd.site("a.example")).unwrap();
    support::tree::write(&cmd.site("a.example"), text, 0o400);
    assert!(haproxy.check().is_err());
    let run = status(&cmd).exits(2);
    assert!(problems(&run, "a.example.pem").contains(&"unloadable".to_owned()), "{run}");
    let (fact, advice) = said(&run, "a.example.pem", "unloadable");
    assert!(fact.ends_with("its key belongs to another certificate"), "{fact}");
    paste(&cmd, &advice);
    assert_eq!(haproxy.check(), Ok(()));
    status(&cmd).exits(0);
}

#[test]
fn expiry_counts_for_every_file_that_haproxy_loads() {
    let (tree, cmd) = deployed();
    let legacy = cmd.beside("legacy");
    fs::create_dir(&legacy).unwrap();
    let issue = |validity, name: &str| tree.authority().issue(KeyKind::P256, &[name], validity).combined();
    fs::write(legacy.join("bought.pem"), issue(Validity::days(365), "bought.example")).unwrap();
    fs::write(cmd.sites().join("bought-too.pem"), issue(Validity::days(365), "other.example")).unwrap();
    let haproxy = Haproxy::of(&system_haproxy()).crt(cmd.sites()).crt(&legacy).start();
    let cmd = cmd.haproxy(&haproxy, "");
    let run = status(&cmd).exits(0);
    assert_eq!(problems(&run, legacy.join("bought.pem").to_str().unwrap()), ["foreign"], "{run}");
    for (path, shown) in [
        (cmd.sites().join("old.pem"), "old.pem".to_owned()),
        (legacy.join("old.pem"), legacy.join("old.pem").to_str().unwrap().to_owned()),
    ] {
        fs::write(&path, issue(Validity::expired(), "old.example")).unwrap();
        let run = status(&cmd).exits(2);
        assert_eq!(problems(&run, &shown), ["expired", "foreign"], "{run}");
        let (fact, advice) = said(&run, &shown, "expired");
        assert_eq!(fact, "the certificate on disk expired 24 hours ago; no lineage renews it");
        assert!(advice.contains(" mv --backup=numbered -- "), "{advice}");
        fs::remove_file(&path).unwrap();
        fs::write(&path, issue(Validity::left(0.2), "old.example")).unwrap();
        assert_eq!(problems(&status(&cmd).exits(1), &shown), ["expires-soon", "foreign"]);
        fs::remove_file(&path).unwrap();
    }
    status(&cmd).exits(0);
}

#[test]
fn the_default_certificate_changes_only_where_the_directory_is_loaded_first() {
    for version in versions() {
        for (host_first, is_said) in [(true, false), (false, true)] {
            let (mut tree, cmd) = deployed();
            let host = cmd.beside("host.pem");
            let host_leaf = Authority::new().issue(KeyKind::P256, &["host.example"], Validity::days(365));
            support::tree::write(&host, host_leaf.combined(), 0o400);
            let setup = Haproxy::of(&version);
            let setup = if host_first {
                setup.crt(&host).crt(cmd.sites())
            } else {
                setup.crt(cmd.sites()).crt(&host)
            };
            let haproxy = setup.start();
            let cmd = cmd.haproxy(&haproxy, "");
            let before = served(haproxy.address(), "").serial;
            tree.issue("0.example", KeyKind::P256, &["0.example"], Validity::days(90));
            let row = cmd.assemble(&[]).exits(0).site("0.example.pem");
            let warned = row["warnings"].as_array().unwrap().contains(&"default-certificate-changed".into());
            assert_eq!(warned, is_said, "{row}");
            assert_eq!(served(haproxy.address(), "").serial != before, is_said, "{}", version.name);
            if is_said {
                let expected =
                    format!("it is HAProxy's default certificate now ({}:", haproxy.config().display());
                assert!(row["detail"].as_str().unwrap().starts_with(&expected), "{row}");
            }
        }
    }
}

#[test]
fn a_name_that_an_earlier_directory_serves_is_shadowed_and_the_advice_says_which_line() {
    for version in [system_haproxy(), version("3.0").unwrap()] {
        let (tree, cmd) = deployed();
        let legacy = cmd.beside("legacy");
        fs::create_dir(&legacy).unwrap();
        let old = tree.authority().issue(KeyKind::P256, &["a.example"], Validity::days(30));
        fs::write(legacy.join("any.pem"), old.combined()).unwrap();
        let mut haproxy = Haproxy::of(&version).crt(&legacy).crt(cmd.sites()).start();
        let probe = format!("probe = [\"{}\"]", haproxy.address());
        let cmd = cmd.haproxy(&haproxy, &probe);
        assert_eq!(served(haproxy.address(), "a.example").serial, old.serial());
        let report = cmd.assemble(&[]).exits(1);
        let row = report.site("a.example.pem");
        assert_eq!(row["warnings"], serde_json::json!(["shadowed"]), "{row}");
        let fact = format!("a.example is served from {}/any.pem, which ", legacy.display());
        assert!(row["detail"].as_str().unwrap().starts_with(&fact), "{row}");
        assert_eq!(report.site("b.example.pem")["warnings"], serde_json::json!([]));
        let run = status(&cmd).exits(1);
        assert_eq!(problems(&run, "a.example.pem"), ["shadowed"], "{run}");
        let (fact_again, advice) = said(&run, "a.example.pem", "shadowed");
        assert!(fact_again.contains(&haproxy.config().display().to_string()), "{fact_again}");
        assert!(advice.contains("before that file on the bind line"), "{advice}");
        fs::remove_file(legacy.join("any.pem")).unwrap();
        let other = tree.authority().issue(KeyKind::P256, &["other.example"], Validity::days(90));
        fs::write(legacy.join("any.pem"), other.combined()).unwrap();
        assert_eq!(haproxy.reload_and_wait(), Reload::Loaded);
        assert_eq!(problems(&status(&cmd).exits(0), "a.example.pem"), [""; 0]);
    }
}

/// HAProxy doesn't start without a file that a line names by itself: it isn't pruned until the line is gone.
#[test]
fn a_file_that_a_line_names_by_itself_is_not_pruned() {
    for version in versions() {
        for runs in [true, false] {
            let (mut tree, cmd) = deployed();
            let list = cmd.beside("list");
            fs::write(&list, format!("# list\n{}\n", cmd.site("b.example").display())).unwrap();
            let mut haproxy = Haproxy::of(&version)
                .crt(cmd.sites())
                .bind_option(&format!("crt-list {}", list.display()))
                .start();
            let mut more = String::new();
            if !runs {
                haproxy.stop();
                more = format!("config = [{}]", support::cmd::toml(&haproxy.config()));
            }
            let cmd = cmd.haproxy(&haproxy, &more);
            tree.delete("b.example");
            for _ in 0..2 {
                let row = cmd.assemble(&[]).exits(1).site("b.example.pem");
                assert_eq!(
                    (&row["action"], &row["warnings"][0]),
                    (&"unchanged".into(), &"prune-held".into()),
                    "{row}"
                );
                assert!(
                    row["detail"].as_str().unwrap().contains(&format!("{}:2 names it", list.display())),
                    "{row}"
                );
                assert_eq!(haproxy.check(), Ok(()));
            }
            fs::write(&list, format!("{}\n", cmd.site("a.example").display())).unwrap();
            // Whether one that is stopped counts as not running depends on the other HAProxys here.
            let run = cmd.assemble(&[]);
            assert_eq!(run.action("b.example.pem"), "prune", "{run}");
            assert!(run.code == Some(0) || !runs, "{run}");
            assert_eq!(haproxy.check(), Ok(()));
            if runs {
                assert_eq!(haproxy.reload_and_wait(), Reload::Loaded);
            }
        }
    }
}

/// A HAProxy in a mount namespace of its own, as in a container: what is mounted at `/mnt` there is a directory of ours. Its
/// stats socket alone has the same path on both sides.
struct Container {
    folder: PathBuf,
    version: Version,
    port: Port,
    running: Option<Running>,
    /// Whether its processes can be seen.
    is_in_sight: bool,
}

impl Container {
    /// `lines`: what its bind line loads.
    fn new(folder: &Path, version: &Version, is_in_sight: bool, lines: &str) -> Self {
        let port = Port::free();
        fs::create_dir_all(folder.join("run")).unwrap();
        let text = format!(
            "global\n  stats socket {} level admin\n{}defaults\n  mode http\n  timeout connect 10s\n  \
             timeout client 30s\n  timeout server 30s\nfrontend sites\n  bind {} ssl {lines}\n  \
             http-request return status 200\n",
            folder.join("run/admin.sock").display(),
            version.without_authorities(),
            port.address(),
        );
        fs::write(folder.join("haproxy.cfg"), text).unwrap();
        Self { folder: folder.to_owned(), version: version.clone(), port, running: None, is_in_sight }
    }

    /// Starts it, or starts it again.
    #[track_caller]
    fn start(&mut self) {
        self.running = None;
        let mount = "mount --bind \"$0\" /mnt && exec \"$@\"";
        let (folder, program) = (self.folder.clone(), self.version.program.clone());
        let running = Running::start("unshare", |command| {
            command.args(["--mount", "sh", "-c", mount]).arg(folder).arg(program);
            command.args(["-W", "-db", "-f", "/mnt/haproxy.cfg"])
        });
        let running = self.running.insert(running);
        wait_until(LIMIT, "HAProxy in its container", || {
            assert_eq!(running.ended(), None, "it doesn't start");
            try_served(self.port.address(), "a.example").is_ok()
        });
    }

    /// The table of haproxy-certs(7).
    fn table(&self) -> String {
        format!(
            "[[haproxy]]\nname = \"lb\"\nreload = \"runtime\"\nruntime_socket = {}\nmaster_socket = \"\"\nunit = \"\"\n\
             pidfile = \"\"\nsites_dir = \"/mnt/sites\"\nconfig = [{}]\nbinary = \"\"\ntimeout = \"30s\"",
            toml(&self.folder.join("run/admin.sock")),
            toml(&self.folder.join("haproxy.cfg")),
        )
    }

    /// Runs the program beside it.
    fn run(&self, cmd: &Cmd, arguments: &[&str]) -> Run {
        if self.is_in_sight {
            return cmd.run(arguments);
        }
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]).arg(Cmd::program());
        command.arg("--config").arg(cmd.config()).args(arguments);
        cmd.prepare(&mut command);
        let output = finish(&mut command, LIMIT * 2);
        Run {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into(),
            stderr: String::from_utf8_lossy(&output.stderr).into(),
        }
    }

    fn assemble(&self, cmd: &Cmd) -> Run {
        self.run(cmd, &["assemble", "--format", "json"])
    }

    fn status(&self, cmd: &Cmd) -> Run {
        self.run(cmd, &["status", "--format", "json"])
    }
}

/// With each version: in sight or not, with two lineages deployed and nobody notified.
fn with_each_container(name: &str, lines: &str, test: impl Fn(Container, Tree, Cmd)) {
    if !nix::unistd::geteuid().is_root() {
        support::summary::skipped(name, "it needs root");
        return;
    }
    for version in versions() {
        for is_in_sight in [true, false] {
            let mut tree = Tree::new();
            for name in ["a.example", "b.example"] {
                tree.issue(name, KeyKind::P256, &[name], Validity::days(90));
            }
            let temporary = tempfile::tempdir().unwrap();
            let folder = temporary.path().join("lb");
            let container = Container::new(&folder, &version, is_in_sight, lines);
            let cmd = Cmd::new(tree.live()).with_sites(folder.join("sites")).table(&container.table());
            let run = cmd.assemble(&["--reload", "none"]).exits(0);
            assert_eq!(run.json()["notes"], serde_json::json!([]), "{run}");
            test(container, tree, cmd);
        }
    }
}

/// The container of haproxy-certs(7): its configuration is read here, and its paths are its own.
#[test]
fn the_paths_of_a_container_lead_to_our_directory() {
    let name = "the_paths_of_a_container_lead_to_our_directory";
    with_each_container(name, "crt /mnt/sites", |mut container, mut tree, cmd| {
        let what = format!("{}, in sight: {}", container.version.full, container.is_in_sight);
        container.status(&cmd).json()["sites"].as_array().unwrap().iter().for_each(|site| {
            assert_eq!(site["problems"], serde_json::json!([]), "{what}: {site}");
        });
        container.start();
        container.assemble(&cmd).exits(0);
        container.status(&cmd).exits(0);
        let leaf = tree.renew("a.example");
        let run = container.assemble(&cmd).exits(0);
        let told = run.haproxy();
        assert_eq!(told["outcome"], "updated", "{what}: {run}");
        let confirmed = if container.is_in_sight { true.into() } else { serde_json::Value::Null };
        assert_eq!(told["confirmed"], confirmed, "{what}: {run}");
        assert_eq!(run.json()["notes"], serde_json::json!([]), "{what}: {run}");
        assert_eq!(served(container.port.address(), "a.example").serial, leaf.serial(), "{what}");
        container.status(&cmd).exits(0);
        let setup = container.run(&cmd, &["status", "--setup", "--format", "json"]);
        assert!(setup.stdout.contains(") loads /mnt/sites\""), "{what}: {setup}");
        // What its own file is missing is.
        fs::write(cmd.sites().join("c.pem"), "no certificate\n").unwrap();
        let (fact, _) = said(&container.status(&cmd).exits(2), "c.pem", "unloadable");
        assert!(fact.contains("can't load"), "{what}: {fact}");
    });
}

/// What a container has of its own is called in the metrics what it calls it, as long as that is one file.
#[test]
fn series_do_not_end_with_a_process() {
    if !nix::unistd::geteuid().is_root() {
        support::summary::skipped("series_do_not_end_with_a_process", "it needs root");
        return;
    }
    let mut tree = Tree::new();
    tree.issue("a.example", KeyKind::P256, &["a.example"], Validity::days(90));
    let temporary = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let mut containers = ["lb", "other"].map(|name| {
        let folder = temporary.path().join(name);
        let container = Container::new(&folder, &system_haproxy(), true, "crt /mnt/own.pem crt /mnt/own");
        fs::create_dir(folder.join("own")).unwrap();
        for file in ["own.pem".to_owned(), format!("own/{name}.pem")] {
            let pem = authority.issue(KeyKind::P256, &["a.example"], Validity::days(90)).combined();
            fs::write(folder.join(file), pem).unwrap();
        }
        container
    });
    let others = containers[1].table().replace("\"lb\"", "\"other\"");
    let cmd = Cmd::new(tree.live()).table(&containers[0].table()).table(&others);
    containers.iter_mut().for_each(Container::start);
    let series = || {
        let run = cmd.run(&["status", "--format", "prometheus"]);
        let lines = run.stdout.lines().filter(|line| line.contains("not_after") && !line.starts_with('#'));
        let all: Vec<String> = lines.map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect();
        let different: BTreeSet<String> = all.iter().cloned().collect();
        assert_eq!(all.len(), different.len(), "{run}");
        assert!(!run.stdout.contains("/proc/"), "{run}");
        different
    };
    let before = series();
    for file in ["lb:/mnt/own.pem", "other:/mnt/own.pem", "/mnt/own/lb.pem", "/mnt/own/other.pem"] {
        let line = format!("lineage=\"\",file=\"{file}\",place=\"disk\"");
        assert!(before.iter().any(|series| series.contains(&line)), "{line} in {before:#?}");
    }
    containers.iter_mut().for_each(Container::start);
    assert_eq!(before, series());
    // People are told where they find it.
    let shown = cmd.run(&["status", "--format", "json"]).stdout;
    assert!(shown.contains("/root/mnt/own.pem"), "{shown}");
}

/// A file that a line of the container names is not pruned: it starts again.
#[test]
fn what_a_line_names_in_a_container_is_kept() {
    let name = "what_a_line_names_in_a_container_is_kept";
    with_each_container(
        name,
        "crt /mnt/sites/b.example.pem crt /mnt/sites",
        |mut container, mut tree, cmd| {
            let what = format!("{}, in sight: {}", container.version.full, container.is_in_sight);
            container.start();
            tree.delete("b.example");
            let run = container.assemble(&cmd).exits(1);
            assert_eq!(
                run.site("b.example.pem")["warnings"],
                serde_json::json!(["prune-held"]),
                "{what}: {run}"
            );
            assert!(cmd.site("b.example").exists(), "{what}");
            container.start();
        },
    );
}

/// What else a container loads is missing nowhere: where it can't be seen nothing is confirmed, nor pruned that may be needed.
#[test]
fn what_only_a_container_sees_is_not_missing() {
    let name = "what_only_a_container_sees_is_not_missing";
    let lines = "crt /mnt/own/first.pem crt-list /mnt/own/list crt /mnt/sites";
    with_each_container(name, lines, |mut container, mut tree, cmd| {
        let what = format!("{}, in sight: {}", container.version.full, container.is_in_sight);
        let first = Authority::new().issue(KeyKind::P256, &["first.example"], Validity::days(90));
        let own = container.folder.join("own");
        fs::create_dir_all(&own).unwrap();
        fs::write(own.join("first.pem"), first.combined()).unwrap();
        fs::write(own.join("list"), "/mnt/sites/b.example.pem\n").unwrap();
        container.start();
        container.assemble(&cmd).exits(0);
        let status = container.status(&cmd).exits(0);
        assert!(!status.stdout.contains("unloadable"), "{what}: {status}");
        let leaf = tree.renew("a.example");
        let run = container.assemble(&cmd).exits(0);
        let confirmed = if container.is_in_sight { true.into() } else { serde_json::Value::Null };
        assert_eq!(run.haproxy()["confirmed"], confirmed, "{what}: {run}");
        assert_eq!(served(container.port.address(), "a.example").serial, leaf.serial(), "{what}");
        tree.delete("b.example");
        let run = container.assemble(&cmd).exits(1);
        assert_eq!(run.site("b.example.pem")["warnings"], serde_json::json!(["prune-held"]), "{what}: {run}");
        container.start();
        // Nor while it is down; that another test's may be it is said there.
        container.running = None;
        let status = container.status(&cmd);
        assert!(!status.stdout.contains("unloadable"), "{what}: {status}");
        container.assemble(&cmd);
        assert!(cmd.site("b.example").exists(), "{what}");
        container.start();
    });
}
