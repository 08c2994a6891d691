//! HAProxys whose configuration names the directory's files one by one, and certificates that no client is presented.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may fail loudly")]

use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use support::tree::write;
use support::{Authority, Cmd, Haproxy, KeyKind, Tree, Validity, Version, served, versions};

/// The problems of a file, and the advice of the first.
fn problems(cmd: &Cmd, file: &str) -> (Vec<Value>, String) {
    let status = cmd.run(&["status", "--format", "json"]);
    let site = status.site(file);
    let problems = site["problems"].as_array().unwrap().clone();
    let advice = site["details"][0]["advice"].as_str().unwrap_or_default().to_owned();
    (problems, advice)
}

/// A host certificate, older than whatever is started afterwards.
fn put_host(cmd: &Cmd) {
    let host = Authority::new().issue(KeyKind::P256, &["host.example"], Validity::days(3650));
    let path = cmd.beside("host.pem");
    write(&path, host.combined(), 0o400);
    support::wait_until_it_is_older(&path);
}

fn tree() -> Tree {
    let mut tree = Tree::new();
    for name in ["a.example", "b.example"] {
        tree.issue(name, KeyKind::P256, &[name], Validity::days(90));
    }
    tree
}

/// A crt-list that names one of two files: a replaced file is updated in memory, the new one is a problem with the command
/// that adds its line, and then it is served.
#[test]
fn a_new_file_that_no_crt_list_names_is_a_problem_with_its_line() {
    for version in versions().iter().filter(|version| ["2.2", "3.0", "3.4"].contains(&&*version.name)) {
        let mut tree = tree();
        let cmd = Cmd::new(tree.live());
        cmd.run(&["assemble", "--reload", "none"]).exits(0);
        let list = cmd.beside("list.txt");
        write(&list, format!("{} [alpn h2] a.example\n", cmd.site("a.example").display()), 0o644);
        put_host(&cmd);
        let mut haproxy = Haproxy::of(version)
            .crt(cmd.beside("host.pem"))
            .bind_option(&format!("crt-list {}", list.display()))
            .start();
        let cmd = cmd.haproxy(&haproxy, "");
        let (of_a, _) = problems(&cmd, "a.example.pem");
        assert_eq!(of_a, Vec::<Value>::new());
        let (of_b, advice) = problems(&cmd, "b.example.pem");
        assert_eq!(of_b, ["not-listed"], "{}", version.full);
        let setup = cmd.run(&["status", "--setup", "--format", "json"]);
        assert!(setup.stdout.contains("that lines name one by one"), "{setup}");

        tree.renew("a.example");
        let workers = haproxy.worker_pids();
        let run = cmd.assemble(&[]).exits(1);
        assert_eq!(run.json()["haproxy"][0]["outcome"], "updated", "{run}");
        assert_eq!(haproxy.worker_pids(), workers);
        let now = run.site("a.example.pem")["serial"].as_str().unwrap().to_owned();
        assert_eq!(served(haproxy.address(), "a.example").serial, now);

        let command = advice.split(": ").nth(1).and_then(|rest| rest.split("; then").next()).unwrap();
        assert!(Command::new("sh").args(["-ec", command]).status().unwrap().success(), "{advice}");
        haproxy.reload_and_wait();
        assert_eq!(served(haproxy.address(), "b.example").names, ["b.example"]);
        assert_eq!(problems(&cmd, "b.example.pem").0, Vec::<Value>::new());
    }
}

/// A run never says `confirmed` of a new file that no line names: it says so, as `status` does, until the line is there.
#[test]
fn a_new_file_that_no_line_names_is_not_confirmed() {
    for version in versions() {
        let mut tree = tree();
        let cmd = Cmd::new(tree.live());
        cmd.run(&["assemble", "--reload", "none"]).exits(0);
        let list = cmd.beside("list.txt");
        let lines = ["a.example", "b.example"].map(|name| format!("{}\n", cmd.site(name).display()));
        write(&list, lines.concat(), 0o644);
        let mut haproxy = Haproxy::of(&version).bind_option(&format!("crt-list {}", list.display())).start();
        let cmd = cmd.haproxy(&haproxy, "");
        cmd.assemble(&[]).exits(0);
        tree.issue("c.example", KeyKind::P256, &["c.example"], Validity::days(90));
        let file = cmd.site("c.example");
        let line = format!("printf '\\n%s\\n' {} >> {}", file.display(), list.display());
        let planned = cmd.assemble(&["--dry-run"]).exits(1);
        assert!(planned.stdout.contains("names files one by one"), "{planned}");
        let run = cmd.assemble(&[]).exits(1);
        assert_eq!(run.site("c.example.pem")["action"], "install", "{run}");
        assert_ne!(run.json()["haproxy"][0]["confirmed"], true, "{}: {run}", version.full);
        assert_ne!(served(haproxy.address(), "c.example").names, ["c.example"]);
        cmd.assemble(&[]).exits(1);
        let said = cmd.run(&["assemble"]).exits(1);
        assert!(said.stdout.contains(&line), "{said}");
        assert!(Command::new("sh").args(["-ec", &line]).status().unwrap().success());
        haproxy.reload_and_wait();
        assert_eq!(served(haproxy.address(), "c.example").names, ["c.example"]);
        let run = cmd.assemble(&[]).exits(0);
        assert_eq!(run.json()["haproxy"][0]["owed"], false, "{run}");
    }
}

/// Where only lines lead into the directory, what none of them names stops no HAProxy, nor does the list itself.
#[test]
fn what_no_line_names_is_no_certificate() {
    for version in versions() {
        let tree = tree();
        let cmd = Cmd::new(tree.live());
        cmd.run(&["assemble", "--reload", "none"]).exits(0);
        let list = cmd.sites().join("list.txt");
        let lines = ["a.example", "b.example"].map(|name| format!("{}\n", cmd.site(name).display()));
        write(&list, lines.concat(), 0o644);
        write(&cmd.sites().join("README"), "no certificate\n", 0o644);
        let mut haproxy = Haproxy::of(&version).bind_option(&format!("crt-list {}", list.display())).start();
        let cmd = cmd.haproxy(&haproxy, "");
        let run = cmd.assemble(&[]).exits(0);
        assert_eq!(run.json()["notes"], serde_json::json!([]), "{}: {run}", version.full);
        for file in ["README", "list.txt"] {
            let (found, _) = problems(&cmd, file);
            assert_eq!(found, ["foreign"], "{file}, {}", version.full);
        }
        haproxy.reload_and_wait();
        assert_eq!(served(haproxy.address(), "b.example").names, ["b.example"]);
        // One that a line names is another thing.
        write(&list, format!("{}{}\n", lines.concat(), cmd.sites().join("README").display()), 0o644);
        let (found, _) = problems(&cmd, "README");
        assert!(found.contains(&"unloadable".into()), "{found:?}, {}", version.full);
    }
}

const DH: &str = "-----BEGIN DH PARAMETERS-----\n\
    MIIBCAKCAQEA//////////+t+FRYortKmq/cViAnPTzx2LnFg84tNpWp4TZBFGQz\n\
    +8yTnc4kmz75fS/jY2MMddj2gbICrsRhetPfHtXV/WVhJDP1H18GbtCFY2VVPe0a\n\
    87VXE15/V8k1mE8McODmi3fipona8+/och3xWKE2rec1MKzKT0g6eXq8CrGCsyT7\n\
    YdEIqUuyyOP7uWrat2DX9GgdT0Kj3jlN9K5W7edjcrsZCwenyO4KbXCeAvzhzffi\n\
    7MA0BM0oNC9hkXL+nOmFg/+OTxIy7vKBg8P+OxtMb61zO7X8vC7CIAXFjvGDfRaD\n\
    ssbzSibBsu/6iGtCOGEoXJf//////////wIBAg==\n-----END DH PARAMETERS-----\n";

/// What other words of a line name is no certificate: authorities, parameters, keys of tickets, pages, dictionaries.
#[test]
fn what_is_named_for_something_else_is_no_certificate() {
    for version in versions() {
        for by_list in [true, false] {
            let tree = tree();
            let cmd = Cmd::new(tree.live());
            cmd.run(&["assemble", "--reload", "none"]).exits(0);
            let list = cmd.sites().join("list.txt");
            write(&list, format!("{}\n", cmd.site("a.example").display()), 0o644);
            let tickets = format!("{}\n", "QUJD".repeat(16)).repeat(3);
            let page = "HTTP/1.0 503 Service Unavailable\r\n\r\n";
            let others = [
                ("ca.pem", tree.authority().root()),
                ("dh.pem", DH),
                ("tickets", &tickets),
                ("503.http", page),
                ("names.map", "a b\n"),
            ];
            for (file, text) in others {
                write(&cmd.sites().join(file), text, 0o644);
            }
            let path = |file: &str| cmd.sites().join(file).display().to_string();
            let loads = if by_list {
                format!("crt-list {}", list.display())
            } else {
                format!("crt {} crt {}", cmd.site("a.example").display(), cmd.site("b.example").display())
            };
            let options = format!(
                "{loads} ca-file {0} verify optional tls-ticket-keys {1}",
                path("ca.pem"),
                path("tickets")
            );
            let lines = format!(
                "backend other\n  errorfile 503 {}\n  acl x path,map({}) -m found",
                path("503.http"),
                path("names.map")
            );
            let haproxy = Haproxy::of(&version)
                .bind_option(&options)
                .global(&format!("ssl-dh-param-file {}", path("dh.pem")))
                .section(&lines)
                .start();
            let cmd = cmd.haproxy(&haproxy, "");
            let run = cmd.assemble(&[]);
            assert_eq!(run.json()["notes"].to_string().matches("can't load").count(), 0, "{run}");
            for (file, _) in others {
                let (found, _) = problems(&cmd, file);
                assert_eq!(found, ["foreign"], "{file}, {}, {by_list}", version.full);
            }
            // A site that is named for something else alone is loaded by no line.
            let of_b = problems(&cmd, "b.example.pem").0;
            assert_eq!(of_b.contains(&"not-listed".into()), by_list, "{of_b:?}");
        }
    }
}

/// `ssl-f-use` of a frontend, from 3.2.
#[test]
fn ssl_f_use_names_files_too() {
    for version in versions().iter().filter(|version| ["3.2", "3.4"].contains(&&*version.name)) {
        let tree = tree();
        let cmd = Cmd::new(tree.live());
        cmd.run(&["assemble", "--reload", "none"]).exits(0);
        let port = support::Port::free();
        put_host(&cmd);
        let section = format!(
            "frontend used\n  bind {} ssl\n  ssl-f-use crt {}\n  http-request return status 200",
            port.address(),
            cmd.site("a.example").display()
        );
        let haproxy = Haproxy::of(version).crt(cmd.beside("host.pem")).section(&section).start();
        let cmd = cmd.haproxy(&haproxy, "");
        assert_eq!(served(port.address(), "a.example").names, ["a.example"]);
        assert_eq!(problems(&cmd, "a.example.pem").0, Vec::<Value>::new());
        let (of_b, advice) = problems(&cmd, "b.example.pem");
        assert_eq!(of_b, ["not-listed"], "{}", version.full);
        let line = format!("\"ssl-f-use crt {}\" to frontend used;", cmd.site("b.example").display());
        assert!(advice.contains(&line), "{advice}");
        let setup = cmd.run(&["status", "--setup", "--format", "json"]);
        assert!(setup.stdout.contains("that lines name one by one"), "{setup}");
    }
}

/// A certificate for addresses alone is presented where it is the first one of a bind.
#[test]
fn a_certificate_for_an_address_must_be_first() {
    let mut tree = tree();
    tree.issue("192.0.2.7", KeyKind::P256, &["192.0.2.7"], Validity::days(90));
    let cmd = Cmd::new(tree.live());
    cmd.run(&["assemble", "--reload", "none"]).exits(0);
    put_host(&cmd);
    let version = support::system_haproxy();
    let behind = Haproxy::of(&version).crt(cmd.beside("host.pem")).crt(cmd.sites()).start();
    let cmd = cmd.haproxy(&behind, "");
    let (found, advice) = problems(&cmd, "192.0.2.7.pem");
    assert_eq!(found, ["not-presented"]);
    assert!(advice.contains("set host_lineage"), "{advice}");
    drop(behind);
    let first = Haproxy::of(&version).crt(cmd.site("192.0.2.7")).crt(cmd.sites()).start();
    let cmd = cmd.with_tables("").haproxy(&first, "");
    assert_eq!(served(first.address(), "").names, ["192.0.2.7"]);
    assert_eq!(problems(&cmd, "192.0.2.7.pem").0, Vec::<Value>::new());
    fs::remove_file(cmd.site("b.example")).unwrap();
}

/// Filters may leave a file none of its names: what status says of each is what clients of its names get.
#[test]
fn what_filters_leave_no_name_is_presented_to_nobody() {
    for version in versions() {
        let mut tree = tree();
        tree.issue("c.example", KeyKind::P256, &["c.example", "w.c.example"], Validity::days(90));
        tree.issue("d.example", KeyKind::P256, &["d.example"], Validity::days(90));
        let cmd = Cmd::new(tree.live());
        cmd.run(&["assemble", "--reload", "none"]).exits(0);
        let list = cmd.beside("list.txt");
        let filters = [("a", ""), ("b", "*"), ("c", "w.c.example"), ("d", "!w.d.example")];
        let line =
            |(name, filters)| format!("{} {filters}\n", cmd.site(&format!("{name}.example")).display());
        write(&list, filters.map(line).concat(), 0o644);
        put_host(&cmd);
        let setup = Haproxy::of(&version).crt(cmd.beside("host.pem"));
        let haproxy = setup.bind_option(&format!("crt-list {}", list.display())).start();
        let cmd = cmd.haproxy(&haproxy, "");
        cmd.assemble(&[]).exits(0);
        let status = cmd.run(&["status", "--format", "json"]).exits(1);
        for (name, serves) in [("a", "all"), ("b", "none"), ("c", "some"), ("d", "none")] {
            let name = format!("{name}.example");
            let site = status.site(&format!("{name}.pem"));
            let context = format!("{name}, {}: {site}", version.full);
            assert_eq!(site["haproxy"][0]["serves"], serves, "{context}");
            let says_so = site["problems"].as_array().unwrap().contains(&json!("not-presented"));
            assert_eq!(says_so, serves == "none", "{context}");
            let gets_it = |name: &str| served(haproxy.address(), name).names.contains(&name.to_owned());
            assert_eq!(gets_it(&name), serves == "all", "{context}");
            assert!(serves != "some" || gets_it("w.c.example"), "{context}");
        }
    }
}

/// Files of the directory in a crt-list, a line each.
fn list(cmd: &Cmd, lines: &[&str]) -> String {
    let lines: Vec<String> = lines.iter().map(|line| format!("{}/{line}\n", cmd.sites().display())).collect();
    let list = cmd.beside("list.txt");
    write(&list, lines.concat(), 0o644);
    format!("crt-list {}", list.display())
}

/// Two lineages that share `s.example`, deployed.
fn sharing() -> (Tree, Cmd) {
    let tree = Tree::of(&[("a", &["a.example", "s.example"][..]), ("b", &["b.example", "s.example"])]);
    let cmd = Cmd::new(tree.live());
    cmd.run(&["assemble", "--reload", "none"]).exits(0);
    (tree, cmd)
}

fn warnings(run: &support::Run, file: &str) -> Value {
    run.site(file)["warnings"].clone()
}

/// A crt-list names somebody else's file first, which sorts last: clients get that one.
#[test]
fn what_a_list_names_first_shadows_what_sorts_first() {
    for version in &versions() {
        let tree = tree();
        let cmd = Cmd::new(tree.live());
        cmd.run(&["assemble", "--reload", "none"]).exits(0);
        let other = tree.authority().issue(KeyKind::P256, &["a.example"], Validity::days(90));
        write(&cmd.sites().join("z.pem"), other.combined(), 0o400);
        let line = list(&cmd, &["b.example.pem", "z.pem", "a.example.pem"]);
        let haproxy = Haproxy::of(version).bind_option(&line).start();
        let cmd = cmd.haproxy(&haproxy, "");
        assert_eq!(served(haproxy.address(), "a.example").serial, other.serial(), "{}", version.full);
        let run = cmd.assemble(&[]).exits(1);
        assert_eq!(warnings(&run, "a.example.pem"), serde_json::json!(["shadowed"]), "{run}");
        let (found, _) = problems(&cmd, "a.example.pem");
        assert_eq!(found, ["shadowed"], "HAProxy {}", version.full);
    }
}

/// Whose names a list leaves to another file has them all the same, and its line keeps its file.
#[test]
fn who_is_shadowed_by_a_line_is_not_told_to_be_deleted() {
    for version in &versions() {
        let (_tree, mut cmd) = sharing();
        let haproxy = Haproxy::of(version).bind_option(&list(&cmd, &["b.pem", "a.pem s.example"])).start();
        cmd.set_tables(&haproxy.table(""));
        let (found, advice) = problems(&cmd, "a.pem");
        assert_eq!(found, ["shadowed"], "HAProxy {}", version.full);
        assert!(!advice.contains("delete") && !advice.contains("has all its names"), "{advice}");
    }
}

/// What is to go needs no line of its own.
#[test]
fn a_file_whose_lineage_is_gone_is_not_missing_in_a_list() {
    for version in &versions() {
        let (mut tree, mut cmd) = sharing();
        let mut haproxy = Haproxy::of(version).bind_option(&list(&cmd, &["a.pem", "b.pem"])).start();
        cmd.set_tables(&haproxy.table(""));
        tree.delete("b");
        let held = cmd.assemble(&[]).exits(1);
        assert!(warnings(&held, "b.pem").to_string().contains("prune-held"), "{held}");
        list(&cmd, &["a.pem"]);
        haproxy.reload_and_wait();
        let run = cmd.run(&["status", "--format", "json"]);
        assert!(!run.stdout.contains("not-listed"), "HAProxy {}: {run}", version.full);
        cmd.assemble(&[]).exits(0);
        cmd.run(&["status"]).exits(0);
    }
}

/// The file that is served isn't called shadowed by the one that sorts first, whichever way the lines give it the name.
#[test]
fn what_the_lines_give_a_name_is_not_shadowed() {
    for version in &versions() {
        let (tree, mut cmd) = sharing();
        let sites = cmd.sites();
        let b = sites.join("b.pem");
        let mut ways = vec![
            (Haproxy::of(version).bind_option(&list(&cmd, &["b.pem", "a.pem"])), true),
            (Haproxy::of(version).crt(&b).crt(&sites), true),
        ];
        if version.number() >= (3, 0) {
            let line = format!("default-crt {} crt {}", b.display(), sites.display());
            ways.push((Haproxy::of(version).bind_option(&line), true));
        }
        let apart = Haproxy::of(version).crt(&b).another_bind().crt(sites.join("a.pem"));
        ways.push((apart, false));
        for (place, (setup, is_lost)) in ways.into_iter().enumerate() {
            let haproxy = setup.start();
            cmd.set_tables(&haproxy.table(""));
            let context = format!("HAProxy {}, way {place}", version.full);
            assert_eq!(served(haproxy.address(), "s.example"), tree.leaf("b").served(), "{context}");
            let run = cmd.assemble(&[]).exits(0);
            let of_a = if is_lost { serde_json::json!(["shadowed"]) } else { serde_json::json!([]) };
            assert_eq!(warnings(&run, "b.pem"), serde_json::json!([]), "{context}: {run}");
            assert_eq!(warnings(&run, "a.pem"), of_a, "{context}: {run}");
            assert_eq!(problems(&cmd, "b.pem").0, Vec::<Value>::new(), "{context}");
        }
    }
}

/// What a list's filters leave out isn't served from a file, and nobody demands it.
#[test]
fn a_probe_demands_what_the_lists_filters_leave() {
    for version in &versions() {
        let (mut tree, cmd) = sharing();
        let line = list(&cmd, &["b.pem", "a.pem a.example"]);
        let haproxy = Haproxy::of(version).bind_option(&line).start();
        let probe = format!("probe = [\"{}\"]", haproxy.address());
        let cmd = cmd.haproxy(&haproxy, &probe);
        for _ in 0..2 {
            assert_eq!(served(haproxy.address(), "a.example"), tree.leaf("a").served());
            assert_eq!(served(haproxy.address(), "s.example"), tree.leaf("b").served());
            let (found, _) = problems(&cmd, "a.pem");
            assert_eq!(found, Vec::<Value>::new(), "HAProxy {}", version.full);
            tree.renew("a");
            let run = cmd.assemble(&[]).exits(0);
            assert_eq!(run.haproxy()["confirmed"], true, "{run}");
        }
    }
}

/// A line that names a bundle leads to the file of a lineage once that is there: nobody shadows it.
#[test]
fn a_file_that_takes_a_bundles_place_on_its_line_is_not_shadowed() {
    for version in versions().iter().filter(|version| ["2.6", "3.0", "3.4"].contains(&&*version.name)) {
        let mut tree = tree();
        let cmd = Cmd::new(tree.live());
        cmd.run(&["assemble", "--reload", "none"]).exits(0);
        for (ending, kind) in [("rsa", KeyKind::Rsa2048), ("ecdsa", KeyKind::P256)] {
            let leaf = tree.authority().issue(kind, &["r.example"], Validity::days(90));
            write(&cmd.sites().join(format!("r.pem.{ending}")), leaf.combined(), 0o400);
        }
        let haproxy = Haproxy::of(version).crt(cmd.sites().join("r.pem")).crt(cmd.sites()).start();
        let cmd = cmd.haproxy(&haproxy, "");
        cmd.assemble(&[]).exits(0);
        tree.issue("r", KeyKind::P256, &["r.example"], Validity::days(90));
        let first = cmd.assemble(&[]).exits(0);
        assert_eq!(first.site("r.pem")["warnings"], Value::Array(vec![]), "{first}");
        let serial = first.site("r.pem")["serial"].as_str().unwrap().to_owned();
        assert_eq!(served(haproxy.address(), "r.example").serial, serial, "{}", version.full);
        let second = cmd.assemble(&[]).exits(0);
        assert_eq!(second.site("r.pem")["warnings"], Value::Array(vec![]), "{second}");
    }
}

/// The second of two HAProxys loads one of our files by a line of its own: the others are the first one's.
#[test]
fn what_another_haproxy_loads_is_not_missing_where_a_line_names_one_file() {
    for version in versions().iter().filter(|version| ["2.2", "3.0", "3.4"].contains(&&*version.name)) {
        let mut tree = tree();
        let cmd = Cmd::new(tree.live());
        cmd.run(&["assemble", "--reload", "none"]).exits(0);
        let all = Haproxy::of(version).crt(cmd.sites()).start();
        let mut one = Haproxy::of(version).crt(cmd.site("b.example")).start();
        let probe =
            |haproxy: &Haproxy, name| format!("name = \"{name}\"\nprobe = [\"{}\"]", haproxy.address());
        let (first, second) = (probe(&all, "all"), probe(&one, "one"));
        let probed =
            Cmd::new(tree.live()).with_sites(cmd.sites()).haproxy(&all, &first).haproxy(&one, &second);
        probed.run(&["status"]).exits(0);
        let cmd = cmd.haproxy(&all, "name = \"all\"").haproxy(&one, "name = \"one\"");
        let status = cmd.run(&["status", "--format", "json"]).exits(0);
        assert_eq!(status.site("a.example.pem")["haproxy"][1]["serial"], Value::Null, "{status}");
        assert_ne!(status.site("b.example.pem")["haproxy"][1]["serial"], Value::Null, "{status}");
        for renewed in ["a.example", "b.example"] {
            tree.renew(renewed);
            // Nobody asks it for a name that none of its lines loads.
            probed.run(&["assemble"]).exits(0);
            cmd.run(&["status"]).exits(0);
        }
        // What it is to have is judged as before.
        tree.renew("b.example");
        cmd.run(&["assemble", "--reload", "none"]).exits(0);
        let (of_b, _) = problems(&cmd, "b.example.pem");
        assert_eq!(of_b, ["haproxy-stale", "haproxy-stale"]);
        one.reload_and_wait();
        assert_eq!(problems(&cmd, "b.example.pem").0, ["haproxy-stale"]);
    }
}

/// Whether this version has such lines.
fn has(version: &Version, way: &str) -> bool {
    let since = match way {
        "ssl-f-use" => (3, 2),
        "crt-store" => (3, 0),
        _ => (2, 2),
    };
    version.number() >= since
}

/// The settings name a stats socket and nothing else, and lines name the files: who has the socket open is this HAProxy.
#[test]
fn a_stats_socket_alone_says_which_haproxy_it_is() {
    for version in versions() {
        for way in ["crt-list", "crt", "ssl-f-use", "crt-store"] {
            if !has(&version, way) {
                continue;
            }
            let what = format!("{} {way}", version.full);
            let mut tree = tree();
            let cmd = Cmd::new(tree.live());
            cmd.run(&["assemble", "--reload", "none"]).exits(0);
            put_host(&cmd);
            let list = cmd.beside("list.txt");
            let files = ["a.example", "b.example"].map(|name| cmd.site(name).display().to_string());
            write(&list, files.join("\n") + "\n", 0o644);
            let port = support::Port::free();
            let mut setup = Haproxy::of(&version).crt(cmd.beside("host.pem"));
            let lines = match way {
                "crt-list" => format!("bind {} ssl crt-list {}", port.address(), list.display()),
                "crt" => format!("bind {} ssl crt {} crt {}", port.address(), files[0], files[1]),
                "ssl-f-use" => format!(
                    "bind {} ssl\n  ssl-f-use crt {}\n  ssl-f-use crt {}",
                    port.address(),
                    files[0],
                    files[1]
                ),
                _ => {
                    let load = |at: usize| format!("  load crt {} alias n{at}\n", files[at]);
                    setup = setup.section(&format!("crt-store ours\n{}{}", load(0), load(1)));
                    format!("bind {} ssl crt @ours/n0 crt @ours/n1", port.address())
                }
            };
            setup = setup.section(&format!("frontend more\n  {lines}\n  http-request return status 200"));
            let haproxy = setup.start();
            let table = format!(
                "[[haproxy]]\nruntime_socket = {}\nbinary = {}",
                support::cmd::toml(&haproxy.stats_socket()),
                support::cmd::toml(&version.program)
            );
            let cmd = cmd.table(&table);
            let now = tree.renew("a.example").served().serial;
            let workers = haproxy.worker_pids();
            let run = cmd.assemble(&[]).exits(0);
            let row = run.haproxy();
            assert_eq!(
                (&row["outcome"], &row["confirmed"]),
                (&"updated".into(), &true.into()),
                "{what}: {run}"
            );
            assert_eq!(row["detail"], Value::Null, "{what}: {run}");
            assert_eq!(served(port.address(), "a.example").serial, now, "{what}");
            assert_eq!(haproxy.worker_pids(), workers, "{what}");
            let settled = cmd.assemble(&[]).exits(0);
            assert_eq!(settled.haproxy()["outcome"], "not-needed", "{what}: {settled}");
        }
    }
}

/// Where nothing tells which HAProxy answers on a socket what it loads isn't known: nothing is confirmed, and the setting that
/// settles it is named, in one sentence.
#[test]
fn what_is_behind_a_socket_alone_is_not_confirmed() {
    for version in versions() {
        let mut tree = tree();
        let cmd = Cmd::new(tree.live());
        cmd.run(&["assemble", "--reload", "none"]).exits(0);
        let list = cmd.beside("list.txt");
        let lines =
            ["a.example", "b.example"].map(|name| format!("{} [alpn h2]\n", cmd.site(name).display()));
        write(&list, lines.concat(), 0o644);
        let of_list = || Haproxy::of(&version).bind_option(&format!("crt-list {}", list.display()));
        // Which of the two it is shows nowhere.
        let _another = of_list().start();
        let tcp = support::Port::free();
        let stats = format!("  stats socket ipv4@{} level admin", tcp.address());
        put_host(&cmd);
        let haproxy = of_list().global(&stats).another_bind().crt(cmd.beside("host.pem")).start();
        let table = format!(
            "[[haproxy]]\nruntime_socket = \"{}\"\nbinary = {}\n",
            tcp.address(),
            support::cmd::toml(&version.program)
        );
        let mut cmd = cmd.table(&table);
        let mut confirmed = |cmd: &Cmd| {
            let now = tree.renew("a.example").served().serial;
            let row = cmd.assemble(&[]).exits(0).haproxy();
            assert_eq!(row["outcome"], "updated", "{}: {row}", version.full);
            assert_eq!(served(haproxy.address(), "a.example").serial, now, "{}", version.full);
            (row["confirmed"].clone(), row["detail"].as_str().unwrap_or_default().to_owned())
        };
        let advice = "set config of \"haproxy\" to its configuration files, or probe to an address of it";
        let (is_seen, detail) = confirmed(&cmd);
        assert!(is_seen.is_null() && detail.ends_with(advice), "{}: {detail}", version.full);
        assert!(!detail.contains("no way"), "{}: {detail}", version.full);
        for setting in [
            format!("config = [{}]", support::cmd::toml(&haproxy.config())),
            format!("probe = [\"{}\"]", haproxy.address()),
        ] {
            cmd.set_tables(&format!("{table}{setting}"));
            assert_eq!(confirmed(&cmd).0, true, "{} {setting}", version.full);
        }
    }
}

/// A word of haproxy.cfg.
fn word(text: &str) -> String {
    let special = |letter: char| matches!(letter, ' ' | '#' | '\'' | '"' | '\\');
    text.chars().map(|it| if special(it) { format!("\\{it}") } else { it.to_string() }).collect()
}

/// The line that is advised is loaded as it is pasted, whatever the path: each file has its own rules.
#[test]
fn the_line_that_is_advised_is_loaded_whatever_the_path() {
    for version in versions() {
        for way in ["crt", "ssl-f-use", "crt-store", "crt-base", "crt-list"] {
            if !has(&version, way) {
                continue;
            }
            let what = format!("{} {way}", version.full);
            let mut tree = Tree::new();
            let second = if way == "crt-list" { "b c#[d]" } else { "b" };
            tree.issue("a", KeyKind::P256, &["a.example"], Validity::days(90));
            tree.issue(second, KeyKind::P256, &["b.example"], Validity::days(90));
            let cmd = Cmd::new(tree.live());
            let folder = if way == "crt-list" { "sites" } else { "si t#e's \"$x\"\\" };
            let sites = cmd.beside(folder);
            let cmd = cmd.with_sites(&sites);
            cmd.run(&["assemble", "--reload", "none"]).exits(0);
            put_host(&cmd);
            let port = support::Port::free();
            let list = cmd.beside("list.txt");
            let base = if way == "crt-base" { String::new() } else { format!("{}/", sites.display()) };
            write(&list, format!("{base}a.pem [alpn h2]\n"), 0o644);
            let first = word(cmd.site("a").to_str().unwrap());
            let bind = format!("bind {} ssl", port.address());
            let mut setup = Haproxy::of(&version).crt(cmd.beside("host.pem"));
            if way == "crt-base" {
                setup = setup.global(&format!("  crt-base {}", word(sites.to_str().unwrap())));
            }
            let section = match way {
                "crt" => format!("frontend x\n  {bind} crt {first}"),
                "ssl-f-use" => format!("frontend x\n  {bind}\n  ssl-f-use crt {first}"),
                "crt-store" => {
                    format!(
                        "crt-store ours\n  load crt {first} alias one\nfrontend x\n  {bind} crt @ours/one"
                    )
                }
                _ => format!("frontend x\n  {bind} crt-list {}", list.display()),
            };
            let mut haproxy = setup.section(&format!("{section}\n  http-request return status 200")).start();
            let cmd = cmd.haproxy(&haproxy, "");
            let (of_b, advice) = problems(&cmd, &format!("{second}.pem"));
            assert_eq!(of_b, ["not-listed"], "{what}");
            let text = fs::read_to_string(haproxy.config()).unwrap();
            // As it stands between `add "` and what says where.
            let between = |begin: &str, end: &str| {
                let rest = advice.split_once(begin).unwrap_or_else(|| panic!("{what}: {advice}")).1;
                rest.split_once(end).unwrap_or_else(|| panic!("{what}: {advice}")).0.to_owned()
            };
            let text = match way {
                "crt" | "crt-list" => {
                    let more = between("add \"", "\" to the bind line");
                    text.replace(&bind, &format!("{bind} {more}"))
                }
                "ssl-f-use" => {
                    let line = between("add \"", "\" to frontend x");
                    text.replace(&bind, &format!("{bind}\n  {line}"))
                }
                "crt-store" => {
                    let line = between("add \"", "\" behind ");
                    let name = between(", and \"", "\" where frontend x");
                    let text = text.replace("crt @ours/one", &format!("crt @ours/one crt {name}"));
                    text.replace("crt-store ours\n", &format!("crt-store ours\n  {line}\n"))
                }
                _ => {
                    let command = between(": ", "; then ");
                    assert!(
                        Command::new("sh").args(["-ec", &command]).status().unwrap().success(),
                        "{advice}"
                    );
                    text
                }
            };
            fs::write(haproxy.config(), text).unwrap();
            haproxy.reload_and_wait();
            assert_eq!(served(port.address(), "b.example").names, ["b.example"], "{what}: {advice}");
            assert_eq!(problems(&cmd, &format!("{second}.pem")).0, Vec::<Value>::new(), "{what}");
        }
    }
}
