//! The ways in which configurations name the directory: each real HAProxy loads it so, and what `init`, `status --setup` and a
//! run say of it is true.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may fail loudly")]

use std::fs;

use support::tree::{make_directory, write};
use support::{Authority, Cmd, Haproxy, KeyKind, Port, Tree, Validity, served, versions};

/// It says its version slowly, and isn't what is asked for here.
const NO_CERTBOT: &str = "[certbot]\nbinary = \"/nowhere/certbot\"";

/// Where the frontend of a way stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In the configuration itself.
    First,
    /// In a second `-f`.
    Second,
    /// In a directory that a second `-f` names.
    Folder,
}

/// A way: the first version that reads it, where it stands, and its lines: `BIND` and `OTHER` are bind lines up to `ssl`, `@` the folder
/// that holds the directory `si tes`.
const WAYS: [((u32, u32), Place, &str); 13] = [
    ((2, 2), Place::First, "BIND crt '@/si tes/'"),
    ((2, 2), Place::First, "BIND crt @/si\\ tes alpn h2"),
    ((2, 2), Place::First, "BIND crt \"@/host.pem\" crt \"${FOLDER}/si tes\""),
    ((2, 2), Place::First, "BIND crt \"$FOLDER/si\\x20tes\""),
    // crt-base is the folder.
    ((2, 2), Place::First, "BIND crt 'si tes'"),
    ((2, 2), Place::First, "OTHER crt @/host.pem\n  BIND strict-sni crt '@/si tes'"),
    ((2, 2), Place::Second, "BIND crt '@/si tes'"),
    ((2, 2), Place::Folder, "BIND crt \"${FOLDER}/si tes/\""),
    (
        (2, 4),
        Place::First,
        ".if defined(FOLDER)\n  BIND crt '@/si tes'\n  .else\n  BIND crt @/nowhere\n  .endif",
    ),
    (
        (2, 4),
        Place::First,
        ".if streq(\"$FOLDER\",x)\n  BIND crt @/x\n  .elif !defined(X)\n  BIND crt '@/si tes'\n  .endif",
    ),
    (
        (2, 4),
        Place::First,
        ".if version_before(2.4)\n  BIND crt @/x\n  .elif version_atleast(2.2)\n  BIND crt '@/si tes'\n  .endif",
    ),
    ((3, 2), Place::First, "BIND default-crt @/host.pem crt '@/si tes'"),
    ((3, 2), Place::Second, "OTHER\n  ssl-f-use crt @/host.pem\n  BIND crt '@/si tes'"),
];

/// Each way on the first version that reads it, and on the newest.
#[test]
fn however_the_directory_is_named_it_is_understood() {
    for (since, place, lines) in WAYS {
        let readers: Vec<_> = versions().into_iter().filter(|version| version.number() >= since).collect();
        let mut both: Vec<_> = readers.first().into_iter().chain(readers.last()).collect();
        both.dedup();
        for version in both {
            let what = format!("{} {lines}", version.full);
            let mut tree = Tree::new();
            tree.issue("a.example", KeyKind::P256, &["a.example"], Validity::days(90));
            let folder = tempfile::tempdir().unwrap();
            let at = |name: &str| folder.path().join(name);
            let sites = at("si tes");
            make_directory(&sites, 0o700);
            let host = Authority::new().issue(KeyKind::P256, &["host.example"], Validity::days(3650));
            write(&at("host.pem"), host.combined(), 0o400);
            write(&sites.join("a.example.pem"), tree.leaf("a.example").combined(), 0o400);
            let [port, other] = [Port::free(), Port::free()];
            let bind = |port: &Port| format!("bind {} ssl", port.address());
            let lines = lines.replace("BIND", &bind(&port)).replace("OTHER", &bind(&other));
            let lines = lines.replace('@', folder.path().to_str().unwrap());
            let frontend = format!("frontend ways\n  {lines}\n  http-request return status 200\n");
            let mut setup = Haproxy::of(version).crt(at("host.pem"));
            setup = setup.global(&format!("  crt-base {}", folder.path().display()));
            setup = setup.env("FOLDER", folder.path().to_str().unwrap());
            setup = match place {
                Place::First => setup.section(&frontend),
                Place::Second | Place::Folder => {
                    fs::create_dir(at("conf.d")).unwrap();
                    fs::write(at("conf.d/20-ways.cfg"), format!("defaults\n  mode http\n{frontend}"))
                        .unwrap();
                    fs::write(at("conf.d/30-old.txt"), "not read").unwrap();
                    let named = if place == Place::Folder { "conf.d" } else { "conf.d/20-ways.cfg" };
                    setup.argument("-f").argument(at(named).to_str().unwrap())
                }
            };
            let haproxy = setup.start();
            assert_eq!(served(port.address(), "a.example").names, ["a.example"], "{what}");
            let cmd = Cmd::new(tree.live()).with_sites(&sites).haproxy(&haproxy, "").table(NO_CERTBOT);

            let status = cmd.run(&["status", "--setup", "--format", "json"]).json();
            let findings = status["setup"].as_array().unwrap();
            let crt: Vec<_> = findings.iter().filter(|finding| finding["name"] == "crt").collect();
            assert!(
                !crt.is_empty() && crt.iter().all(|finding| finding["severity"] == "ok"),
                "{what}: {crt:?}"
            );

            // For somebody who hasn't named the directory yet.
            let nowhere = Cmd::new(tree.live()).haproxy(&haproxy, "").table(NO_CERTBOT);
            let proposed = nowhere.run(&["init", "--write-config", "--dry-run"]).exits(0).stdout;
            let line = format!("sites_dir = \"{}\"", sites.display());
            assert!(proposed.contains(&line), "{what}: {proposed}");

            tree.issue("b.example", KeyKind::P256, &["b.example"], Validity::days(90));
            let run = cmd.assemble(&[]).exits(0);
            assert_eq!(run.json()["haproxy"][0]["confirmed"], true, "{what}: {run}");
            assert_eq!(served(port.address(), "b.example").names, ["b.example"], "{what}");
        }
    }
}

/// `default-path`, 2.4 and later: what a directory, a list and its lines are is what HAProxy itself loads, and never a place
/// where nothing is.
#[test]
fn relative_names_begin_where_default_path_says() {
    for version in versions() {
        for (words, place) in [("config", "etc/conf"), ("parent", "etc"), ("origin FOLDER/org", "org")] {
            for load in ["crt sites", "crt-list list"] {
                let what = format!("{} {words} {load}", version.full);
                let mut tree = Tree::new();
                tree.issue("a.example", KeyKind::P256, &["a.example"], Validity::days(90));
                let folder = tempfile::tempdir().unwrap();
                let sites = folder.path().join(place).join("sites");
                for part in ["etc", "etc/conf", "org"] {
                    make_directory(&folder.path().join(part), 0o700);
                }
                make_directory(&sites, 0o700);
                write(&sites.join("a.example.pem"), tree.leaf("a.example").combined(), 0o400);
                write(&folder.path().join(place).join("list"), "sites/a.example.pem\n", 0o644);
                let host = Authority::new().issue(KeyKind::P256, &["host.example"], Validity::days(3650));
                write(&folder.path().join("host.pem"), host.combined(), 0o400);
                let port = Port::free();
                let text = format!(
                    "global\n  default-path {}\ndefaults\n  mode http\nfrontend ways\n  bind {} ssl {load}\n  \
                     http-request return status 200\n",
                    words.replace("FOLDER", folder.path().to_str().unwrap()),
                    port.address()
                );
                let file = folder.path().join("etc/conf/20-ways.cfg");
                fs::write(&file, text).unwrap();
                let setup = Haproxy::of(&version).crt(folder.path().join("host.pem"));
                let setup = setup.argument("-f").argument(file.to_str().unwrap());
                if version.number() < (2, 4) {
                    assert!(setup.try_start().is_err(), "{what}");
                    continue;
                }
                let haproxy = setup.start();
                assert_eq!(served(port.address(), "a.example").names, ["a.example"], "{what}");

                let nowhere = Cmd::new(tree.live()).haproxy(&haproxy, "").table(NO_CERTBOT);
                let proposed = nowhere.run(&["init", "--write-config", "--dry-run"]).exits(0).stdout;
                assert!(
                    proposed.contains(&format!("sites_dir = \"{}\"", sites.display())),
                    "{what}: {proposed}"
                );

                let cmd = Cmd::new(tree.live()).with_sites(&sites);
                let cmd = cmd.haproxy(&haproxy, "sites_dir = \"sites\"").table(NO_CERTBOT);
                let status = cmd.run(&["status", "--setup", "--format", "json"]).json();
                let findings = status["setup"].as_array().unwrap();
                let mut crt = findings.iter().filter(|finding| finding["name"] == "crt");
                assert!(
                    crt.next().is_some_and(|finding| finding["severity"] == "ok"),
                    "{what}: {findings:?}"
                );
                let renewed = tree.renew("a.example");
                let run = cmd.assemble(&[]).exits(0);
                assert_eq!(run.json()["haproxy"][0]["confirmed"], true, "{what}: {run}");
                assert_eq!(served(port.address(), "a.example").serial, renewed.served().serial, "{what}");
            }
        }
    }
}
