//! What `status` advises is pasted as it stands: it mends what it says, and HAProxy starts afterwards.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may fail loudly")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use support::cmd::toml;
use support::tree::write;
use support::{
    Cmd, Haproxy, KeyKind, Kind, LIMIT, Tree, Validity, served, system_haproxy, version, versions, wait_until,
};

fn tree(names: &[&str]) -> Tree {
    let mut tree = Tree::new();
    for name in names {
        tree.issue(name, KeyKind::P256, &[name], Validity::days(90));
    }
    tree
}

/// Brings the disk into step, and notifies nobody.
fn untold(cmd: &Cmd) {
    cmd.run(&["-q", "assemble", "--reload", "none"]);
}

fn status(cmd: &Cmd) -> Value {
    cmd.run(&["status", "--format", "json"]).json()
}

/// Every problem: its file, its word, its advice, its commands.
fn problems(cmd: &Cmd) -> Vec<(String, String, String, Vec<String>)> {
    let status = status(cmd);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut found = Vec::new();
    let sites = status["sites"].as_array().unwrap().iter();
    let of_sites = sites.flat_map(|site| {
        site["details"].as_array().unwrap().iter().map(move |detail| (text(&site["file"]), detail))
    });
    let general = status["problems"].as_array().unwrap().iter().map(|detail| (String::new(), detail));
    for (file, detail) in of_sites.chain(general) {
        let commands = detail["commands"].as_array().unwrap().iter().map(text).collect();
        found.push((file, text(&detail["problem"]), text(&detail["advice"]), commands));
    }
    found.retain(|(_, word, ..)| word != "foreign");
    found
}

/// The advice for this problem of this file.
#[track_caller]
fn advice(cmd: &Cmd, file: &str, word: &str) -> (String, Vec<String>) {
    let all = problems(cmd);
    let found = all.iter().find(|it| it.0 == file && it.1 == word);
    let (_, _, advice, commands) = found.unwrap_or_else(|| panic!("no {word} of {file}: {all:?}")).clone();
    (advice, commands)
}

/// Pastes every command of every advice, in the order in which they are printed, each once.
fn paste_all(cmd: &Cmd) {
    let mut done: Vec<String> = Vec::new();
    for command in problems(cmd).into_iter().flat_map(|problem| problem.3) {
        if !done.contains(&command) {
            paste(&command);
            done.push(command);
        }
    }
}

fn paste(command: &str) {
    let program = Cmd::program();
    let line = command.replace("haproxy-certs ", &format!("{} ", program.display()));
    assert!(!line.contains("/root/"), "a test moves nothing there: {line}");
    Command::new("sh").args(["-c", &line]).output().unwrap();
}

/// A file that a line names by itself stays, whatever is said against it: HAProxy wouldn't start without it.
#[test]
fn what_a_line_names_is_not_moved_away() {
    let mut tree = tree(&["shop.example"]);
    let cmd = Cmd::new(tree.live());
    untold(&cmd);
    let first = cmd.sites().join("0.pem");
    for validity in [Validity::days(90), Validity::expired()] {
        let old = tree.authority().issue(KeyKind::P256, &["shop.example"], validity);
        write(&first, old.combined(), 0o400);
        let haproxy = Haproxy::of(&system_haproxy()).crt(&first).crt(cmd.sites()).start();
        let cmd = Cmd::new(tree.live()).with_sites(cmd.sites()).haproxy(&haproxy, "");
        let (said, _) = advice(&cmd, "shop.example.pem", "shadowed");
        assert!(
            ["take the file out of ", "name the sites directory"].iter().any(|it| said.starts_with(it)),
            "{said}"
        );
        for (_, word, said, _) in problems(&cmd) {
            assert!(!said.contains("mv "), "{word}: {said}");
        }
        paste_all(&cmd);
        haproxy.check().unwrap();
    }
    tree.renew("shop.example");
}

/// The last file that HAProxy can load stays, also where a person is asked to move it.
#[test]
fn the_last_file_is_not_moved_away() {
    let tree = tree(&[]);
    let cmd = Cmd::new(tree.live());
    untold(&cmd);
    support::tree::make_directory(&cmd.sites(), 0o700);
    let old = tree.authority().issue(KeyKind::P256, &["shop.example"], Validity::expired());
    write(&cmd.sites().join("old.pem"), old.combined(), 0o400);
    let haproxy = Haproxy::of(&system_haproxy()).crt(cmd.sites()).start();
    let cmd = cmd.haproxy(&haproxy, "");
    let (said, commands) = advice(&cmd, "old.pem", "expired");
    assert!(said.contains("deploy another one first"), "{said}");
    assert_eq!(commands, Vec::<String>::new());
    // Nor is one of two, of which both are to go.
    write(&cmd.sites().join("older.pem"), old.combined(), 0o400);
    for file in ["old.pem", "older.pem"] {
        assert!(advice(&cmd, file, "expired").0.contains("deploy another one first"), "{file}");
    }
    fs::remove_file(cmd.sites().join("older.pem")).unwrap();
    // Beside another one, or where the bind line has something else, it may go.
    let good = tree.authority().issue(KeyKind::P256, &["new.example"], Validity::days(90));
    write(&cmd.sites().join("new.pem"), good.combined(), 0o400);
    assert!(advice(&cmd, "old.pem", "expired").0.contains("mv --backup=numbered"));
}

/// An old script's expired file stands before a lineage's: HAProxy has it until it reads the disk again.
#[test]
fn what_takes_an_expired_file_away_is_notified_of() {
    for version in versions() {
        let tree = tree(&["b.example"]);
        let cmd = Cmd::new(tree.live());
        untold(&cmd);
        let old = tree.authority().issue(KeyKind::P256, &["b.example"], Validity::expired());
        write(&cmd.sites().join("a.old"), old.combined(), 0o400);
        let haproxy = Haproxy::of(&version).crt(cmd.sites()).start();
        let cmd = cmd.haproxy(&haproxy, "");
        cmd.assemble(&[]).exits(1);
        assert_eq!(served(haproxy.address(), "b.example").serial, old.serial());
        let attic = tempfile::tempdir().unwrap();
        let (_, commands) = advice(&cmd, "a.old", "expired");
        for command in commands {
            paste(&command.replace(" /root/", &format!(" {}/", attic.path().display())));
        }
        assert_eq!(served(haproxy.address(), "b.example").serial, tree.leaf("b.example").serial());
        assert_eq!(problems(&cmd), []);
    }
}

/// What only HAProxy has is no lineage's: certbot isn't asked for it.
#[test]
fn what_is_gone_from_the_disk_goes_by_a_reload() {
    for version in versions() {
        let tree = tree(&["b.example"]);
        let cmd = Cmd::new(tree.live());
        untold(&cmd);
        let old = tree.authority().issue(KeyKind::P256, &["old.example"], Validity::expired());
        write(&cmd.sites().join("old.pem"), old.combined(), 0o400);
        let haproxy = Haproxy::of(&version).crt(cmd.sites()).start();
        let cmd = cmd.haproxy(&haproxy, &format!("runtime_socket = {}", toml(&haproxy.stats_socket())));
        fs::remove_file(cmd.sites().join("old.pem")).unwrap();
        let said = problems(&cmd);
        assert!(said.iter().any(|(file, ..)| file == "old.pem"), "{said:?}");
        for (_, word, said, _) in said {
            assert!(!said.contains("certbot ") && !said.contains("NAME"), "{word}: {said}");
        }
        paste_all(&cmd);
        // A signal's reload takes its time.
        wait_until(LIMIT, "the reload", || problems(&cmd).is_empty());
    }
}

/// Somebody's own certificate is valid, and what certbot has is worse: nobody is told to let go of the good one.
#[test]
fn a_good_certificate_of_somebody_elses_is_not_adopted_away() {
    let older = Validity::between(time::Duration::days(-30), time::Duration::days(60));
    for (validity, why, refused) in [
        (Validity::expired(), "has expired", true),
        (Validity::not_yet(), "is not valid yet", true),
        (older, "was issued before it", false),
    ] {
        let mut tree = tree(&[]);
        tree.issue("shop.example", KeyKind::P256, &["shop.example"], validity);
        let bought = tree.authority().issue(KeyKind::P256, &["shop.example"], Validity::days(365));
        let cmd = Cmd::new(tree.live());
        support::tree::make_directory(&cmd.sites(), 0o700);
        write(&cmd.site("shop.example"), bought.combined(), 0o400);
        let haproxy = Haproxy::of(&system_haproxy()).crt(cmd.sites()).start();
        let cmd = cmd.haproxy(&haproxy, "");
        let run = cmd.assemble(&[]).exits(1);
        assert_eq!(run.action("shop.example.pem"), "conflict", "{run}");
        assert!(run.site("shop.example.pem")["detail"].as_str().unwrap().contains(why), "{run}");
        let (said, _) = advice(&cmd, "shop.example.pem", "conflict");
        assert!(said.starts_with("to keep that file, leave the lineage out by exclude; "), "{said}");
        assert!(said.ends_with(" assemble --adopt"), "{said}");
        // Too early.
        if refused {
            let run = cmd.assemble(&["--adopt"]).exits(1);
            assert_eq!(run.reason("shop.example.pem").as_deref(), Some("would-replace-good"), "{run}");
            assert_eq!(served(haproxy.address(), "shop.example").serial, bought.serial());
            cmd.assemble(&["--adopt", "--force", "shop.example"]).exits(0);
        } else {
            cmd.assemble(&["--adopt"]).exits(0);
        }
        assert_eq!(served(haproxy.address(), "shop.example").serial, tree.leaf("shop.example").serial());
    }
}

/// The only lineage was deleted, and HAProxy has nothing else: no command leaves it without a file.
#[test]
fn what_is_held_is_not_moved_away_where_nothing_else_is_left() {
    for (with_host, is_offered) in [(false, false), (true, true)] {
        let mut tree = tree(&["shop.example"]);
        let cmd = Cmd::new(tree.live());
        untold(&cmd);
        let host = tree.authority().issue(KeyKind::P256, &["host.example"], Validity::days(90));
        write(&cmd.beside("host.pem"), host.combined(), 0o400);
        let setup = Haproxy::of(&system_haproxy());
        let setup = if with_host { setup.crt(cmd.beside("host.pem")) } else { setup };
        let haproxy = setup.crt(cmd.sites()).start();
        let cmd = cmd.haproxy(&haproxy, "");
        tree.delete("shop.example");
        let (said, commands) = advice(&cmd, "shop.example.pem", "prune-held");
        assert_eq!(commands.iter().any(|command| command.starts_with("mv ")), is_offered, "{said}");
    }
}

/// certbot's directory isn't there, as when a disk isn't mounted: nothing is to be moved.
#[test]
fn without_certbots_directory_nothing_is_moved_away() {
    let tree = tree(&["a.example", "b.example"]);
    let cmd = Cmd::new(tree.live()).without_haproxy();
    untold(&cmd);
    fs::rename(tree.live(), tree.root().join("elsewhere")).unwrap();
    let (said, commands) = advice(&cmd, "a.example.pem", "prune-held");
    assert!(said.contains("bring certbot's directory back") && commands.is_empty(), "{said}");
}

/// A file of the directory that a line names by itself, and that is gone: HAProxy doesn't start or reload.
#[test]
fn a_named_file_that_is_gone_is_unloadable() {
    for version in versions() {
        let tree = tree(&["a.example"]);
        let cmd = Cmd::new(tree.live());
        untold(&cmd);
        let named = cmd.sites().join("zz.pem");
        fs::copy(cmd.site("a.example"), &named).unwrap();
        let haproxy = Haproxy::of(&version).crt(&named).crt(cmd.sites()).start();
        let cmd = cmd.haproxy(&haproxy, "");
        fs::remove_file(&named).unwrap();
        let words: Vec<String> = problems(&cmd).into_iter().map(|problem| problem.1).collect();
        assert_eq!(words, ["unloadable"], "{}", version.full);
        let (said, _) = advice(&cmd, "zz.pem", "unloadable");
        assert!(said.contains("or take the file out of "), "{said}");
        assert!(haproxy.check().is_err());
    }
}

/// The directory was emptied by hand: HAProxy runs, and doesn't start again.
#[test]
fn an_empty_directory_that_must_not_be_is_unloadable() {
    let tree = tree(&["a.example"]);
    let cmd = Cmd::new(tree.live());
    untold(&cmd);
    let haproxy = Haproxy::of(&system_haproxy()).crt(cmd.sites()).start();
    let cmd = cmd.haproxy(&haproxy, "");
    fs::remove_file(cmd.site("a.example")).unwrap();
    let directory = cmd.sites().to_str().unwrap().to_owned();
    assert_eq!(
        advice(&cmd, &directory, "unloadable").0.split(" --config").next(),
        Some("run: haproxy-certs")
    );
    paste_all(&cmd);
    assert_eq!(problems(&cmd), []);
    haproxy.check().unwrap();
}

/// The file of a lineage is in conflict, and shadows another one: one advice, not two that contradict each other.
#[test]
fn a_conflict_that_shadows_is_taken_over() {
    let tree = tree(&["a.example", "b.example"]);
    let cmd = Cmd::new(tree.live());
    untold(&cmd);
    // It is newer than the lineage's, and for another name.
    let other = tree.authority().issue(KeyKind::P256, &["b.example"], Validity::left(1.0));
    fs::remove_file(cmd.site("a.example")).unwrap();
    write(&cmd.site("a.example"), other.combined(), 0o400);
    fs::remove_file(cmd.sites().join(".haproxy-certs/state.json")).unwrap();
    let haproxy = Haproxy::of(&system_haproxy()).crt(cmd.sites()).start();
    let cmd = cmd.haproxy(&haproxy, "");
    assert!(advice(&cmd, "b.example.pem", "shadowed").0.contains("assemble --adopt"));
    paste_all(&cmd);
    assert_eq!(problems(&cmd), []);
}

/// What HAProxy still serves isn't reloaded away while its file is missing or damaged.
#[test]
fn a_reload_is_not_advised_where_it_would_lose_a_certificate() {
    for is_damaged in [false, true] {
        let mut tree = tree(&["a.example", "b.example"]);
        let cmd = Cmd::new(tree.live());
        untold(&cmd);
        let haproxy = Haproxy::of(&version("3.0").unwrap()).crt(cmd.sites()).start();
        let cmd = cmd.haproxy(&haproxy, "");
        fs::remove_file(cmd.site("a.example")).unwrap();
        if is_damaged {
            write(&cmd.site("a.example"), "damaged", 0o400);
        }
        for (_, word, said, commands) in problems(&cmd) {
            assert!(commands.iter().all(|command| command.starts_with("haproxy-certs")), "{word}: {said}");
        }
        // With a lineage that no run can deploy nothing but the lineage helps.
        tree.overwrite("a.example", Kind::Privkey, "damaged");
        let (said, commands) = advice(&cmd, "a.example.pem", "haproxy-stale");
        assert!(said.contains("would lose what HAProxy has") && commands.is_empty(), "{said}");
        tree.renew("a.example");
        paste_all(&cmd);
        assert_eq!(problems(&cmd), []);
    }
}

/// A HAProxy with a file that it can't load isn't to be reloaded before that is mended.
#[test]
fn a_reload_comes_after_what_keeps_haproxy_from_loading() {
    let mut tree = tree(&["a.example", "b.example"]);
    let cmd = Cmd::new(tree.live());
    untold(&cmd);
    let haproxy = Haproxy::of(&system_haproxy()).crt(cmd.sites()).start();
    let cmd = cmd.haproxy(&haproxy, "");
    tree.renew("a.example");
    untold(&cmd);
    write(&cmd.sites().join("README"), "text", 0o400);
    let (said, _) = advice(&cmd, "a.example.pem", "haproxy-stale");
    assert!(said.starts_with("mend ") && said.contains("/README, which it can't load; then "), "{said}");
}

/// Links of a lineage whose versions are where its renewal configuration says, or that something else stands in for.
#[test]
fn links_are_put_back_where_the_versions_are() {
    let mut tree = tree(&["moved.example", "folder.example", "loop.example"]);
    let cmd = Cmd::new(tree.live()).without_haproxy();
    untold(&cmd);
    let place = tree.root().join("far away");
    fs::rename(tree.archive("moved.example"), &place).unwrap();
    let conf = fs::read_to_string(tree.conf("moved.example")).unwrap_or_default();
    let conf: String = conf
        .lines()
        .filter(|line| !line.starts_with("archive_dir"))
        .fold(String::new(), |all, line| all + line + "\n");
    fs::write(tree.conf("moved.example"), format!("archive_dir = {}\n{conf}", place.display())).unwrap();
    for (lineage, kind) in [("moved.example", Kind::Fullchain), ("loop.example", Kind::Privkey)] {
        let link = tree.link(lineage, kind);
        fs::remove_file(&link).unwrap();
        symlink(link.file_name().unwrap(), &link).unwrap();
    }
    for kind in [Kind::Cert, Kind::Chain, Kind::Privkey] {
        let link = tree.link("moved.example", kind);
        fs::remove_file(&link).unwrap();
        symlink(place.join(format!("{}1.pem", kind.stem())), &link).unwrap();
    }
    let key = tree.link("folder.example", Kind::Privkey);
    fs::remove_file(&key).unwrap();
    fs::create_dir(&key).unwrap();
    for lineage in ["moved.example", "folder.example", "loop.example"] {
        let file = format!("{lineage}.pem");
        let (said, commands) = advice(&cmd, &file, "not-a-regular-file");
        assert!(said.starts_with("put its links back: "), "{said}");
        for command in commands {
            paste(&command.replace("/root/", tree.root().to_str().unwrap()));
        }
        assert_eq!(cmd.assemble(&[]).action(&file), "unchanged", "{said}");
    }
    tree.renew("folder.example");
}

/// What can't be notified says why, and that this comes first: the same advice again would change nothing.
#[test]
fn what_is_owed_says_why() {
    let tree = tree(&["a.example"]);
    let cmd = Cmd::new(tree.live());
    untold(&cmd);
    let haproxy = Haproxy::of(&system_haproxy()).crt(cmd.sites()).without_master().start();
    let cmd = cmd.haproxy(&haproxy, "");
    fs::remove_file(cmd.sites().join(".haproxy-certs/state.json")).unwrap();
    cmd.run(&["-q", "assemble", "--reload", "pidfile"]).exits(2);
    let status = status(&cmd);
    let owed =
        status["problems"].as_array().unwrap().iter().find(|it| it["problem"] == "reload-owed").unwrap();
    assert!(owed["fact"].as_str().unwrap().contains("without master-worker mode"), "{owed}");
    let restart = "restart HAProxy the way it is started here; then run: ";
    assert!(owed["advice"].as_str().unwrap().starts_with(restart), "{owed}");
    // What is told of a HAProxy that is no longer in the settings is nobody's.
    let other = cmd.with_tables("[[haproxy]]\nname = \"other\"\nreload = \"none\"\nbinary = \"\"");
    assert!(!other.run(&["status"]).stdout.contains("haproxy failed"));
}

/// A way that is set, and can't do it, is never told to be tried again alone: what is said leads out.
#[test]
fn what_the_way_that_is_set_cannot_do_has_a_way_out() {
    for method in ["runtime", "master"] {
        for version in support::versions().iter().filter(|version| version.number() < (2, 7)) {
            let mut tree = tree(&["b.example"]);
            let cmd = Cmd::new(tree.live());
            untold(&cmd);
            let haproxy = Haproxy::of(version).crt(cmd.sites()).start();
            let cmd = cmd.haproxy(&haproxy, &format!("reload = \"{method}\""));
            // New, and loaded first: only a reload brings it.
            tree.issue("a.example", KeyKind::P256, &["a.example"], Validity::days(90));
            for _ in 0..2 {
                cmd.assemble(&[]).exits(2);
            }
            let status = status(&cmd);
            let problems = status["problems"].as_array().unwrap();
            let owed = problems.iter().find(|it| it["problem"] == "reload-owed").unwrap();
            let said = owed["advice"].as_str().unwrap();
            assert!(said.starts_with("set reload of \"haproxy\" to \"auto\", or run: kill -USR2 "), "{owed}");
            assert!(!cmd.run(&["status"]).stdout.contains("mend that"), "{method}");
            let before = haproxy.worker_pids();
            paste_all(&cmd);
            support::wait_until(support::LIMIT, "the reload", || haproxy.worker_pids() != before);
            support::wait_until(support::LIMIT, "that all is told", || cmd.assemble(&[]).code == Some(0));
            cmd.run(&["status"]).exits(0);
        }
    }
}

/// A lineage that is gone is not renewed.
#[test]
fn what_is_gone_is_not_renewed() {
    let mut tree = tree(&["b.example"]);
    tree.issue("a.example", KeyKind::P256, &["a.example"], Validity::expired());
    let cmd = Cmd::new(tree.live()).without_haproxy();
    untold(&cmd);
    tree.delete("a.example");
    let (said, commands) = advice(&cmd, "a.example.pem", "expired");
    assert!(commands.iter().all(|command| command.starts_with("haproxy-certs ")), "{said}");
    paste_all(&cmd);
    assert!(!Path::new(&cmd.site("a.example")).exists());
}

/// The sites directory or the host certificate is gone: what makes it is known.
#[test]
fn the_host_certificate_that_is_gone_is_made_again() {
    let tree = tree(&["a.example"]);
    let cmd = Cmd::new(tree.live());
    let cmd = {
        let host = format!("host_file = \"{}\"", cmd.beside("host.pem").display());
        cmd.option(&host)
    };
    cmd.run(&["init"]).exits(0);
    untold(&cmd);
    let haproxy = Haproxy::of(&system_haproxy()).crt(cmd.beside("host.pem")).crt(cmd.sites()).start();
    let cmd = cmd.haproxy(&haproxy, "");
    fs::remove_file(cmd.beside("host.pem")).unwrap();
    let host = cmd.beside("host.pem").to_str().unwrap().to_owned();
    assert!(advice(&cmd, &host, "unloadable").0.ends_with(" init"));
    paste_all(&cmd);
    assert_eq!(problems(&cmd), []);
    haproxy.check().unwrap();
}

/// `certbot renew` doesn't mend what isn't due: the run's own line leads to the advice that does.
#[test]
fn a_torn_lineage_leads_to_its_links() {
    let mut tree = tree(&["a.example"]);
    let cmd = Cmd::new(tree.live()).without_haproxy();
    untold(&cmd);
    tree.renew("a.example");
    let key = tree.link("a.example", Kind::Privkey);
    fs::remove_file(&key).unwrap();
    symlink(tree.file("a.example", Kind::Privkey, 1), &key).unwrap();
    let said = cmd.run(&["assemble"]).exits(1).stdout;
    assert!(
        said.contains("lineage-torn")
            && said.contains("what mends it says: haproxy-certs ")
            && !said.contains("certbot renew"),
        "{said}"
    );
    paste_all(&cmd);
    assert_eq!(problems(&cmd), []);
}

/// A tree that another client lays down: nothing of certbot's is advised, whatever is wrong with it.
#[test]
fn nothing_of_certbots_is_advised_for_another_clients_tree() {
    for (folder, key, chain) in [
        ("certs", "privkey.pem", "fullchain.pem"),
        ("live", "key.pem", "fullchain.pem"),
        ("live", "a.key", "a.cer"),
    ] {
        let authority = support::Authority::new();
        let root = tempfile::tempdir().unwrap();
        let live = root.path().join(folder);
        let put = |name: &str, key_pem: &str, chain_pem: &str| {
            fs::create_dir_all(live.join(name)).unwrap();
            write(&live.join(name).join(key), key_pem, 0o600);
            write(&live.join(name).join(chain), chain_pem, 0o644);
        };
        let leaf = |name: &str, validity| authority.issue(KeyKind::P256, &[name], validity);
        let good = |name: &str, validity| {
            let leaf = leaf(name, validity);
            put(name, &leaf.key.pem(), &leaf.fullchain());
        };
        let (one, two) =
            (leaf("mismatch.example", Validity::days(90)), leaf("other.example", Validity::days(90)));
        put("mismatch.example", &one.key.pem(), &two.fullchain());
        put("unreadable.example", "junk", &two.fullchain());
        put("nokey.example", &one.key.pem(), &two.fullchain());
        fs::remove_file(live.join("nokey.example").join(key)).unwrap();
        put("nochain.example", &one.key.pem(), &two.fullchain());
        fs::remove_file(live.join("nochain.example").join(chain)).unwrap();
        put("large.example", &one.key.pem(), &"x".repeat(2 << 20));
        fs::create_dir_all(live.join("folder.example").join(chain)).unwrap();
        write(&live.join("folder.example").join(key), one.key.pem(), 0o600);
        put(".dot.example", &two.key.pem(), &two.fullchain());
        let alone = leaf("alone.example", Validity::days(90));
        put("alone.example", &alone.key.pem(), &alone.cert);
        good("expired.example", Validity::expired());
        good("soon.example", Validity::left(0.2));
        good("later.example", Validity::not_yet());
        good("loose.example", Validity::days(90));
        fs::set_permissions(
            live.join("loose.example").join(key),
            std::os::unix::fs::PermissionsExt::from_mode(0o644),
        )
        .unwrap();
        let cmd =
            Cmd::new(&live).option(&format!("key_file = {key:?}\nchain_file = {chain:?}")).without_haproxy();
        let run = cmd.run(&["assemble", "-v"]);
        assert!(
            !run.stdout.contains("certbot renew") && run.stdout.contains("with the client that laid it down"),
            "{run}"
        );
        let all = problems(&cmd);
        let words: std::collections::BTreeSet<&str> = all.iter().map(|(_, word, ..)| word.as_str()).collect();
        for word in [
            "key-mismatch",
            "key-missing",
            "chain-incomplete",
            "expired",
            "expires-soon",
            "loose-permissions",
        ] {
            assert!(words.contains(word), "{word}: {words:?}");
        }
        for (file, word, said, commands) in &all {
            assert!(!said.contains("certbot"), "{file} {word}: {said}");
            assert!(commands.iter().all(|command| !command.contains("certbot")), "{commands:?}");
        }
        // The key that is too open is the one that is there.
        let (_, commands) = advice(&cmd, "loose.example.pem", "loose-permissions");
        assert_eq!(commands, [format!("chmod 600 {}", live.join("loose.example").join(key).display())]);
        let setup = cmd.run(&["status", "--setup", "--format", "json"]).json();
        for finding in setup["setup"].as_array().unwrap() {
            assert!(!finding["mend"].to_string().contains("certbot "), "{finding}");
        }
        let init = cmd.run(&["init", "--hook", "--dry-run"]);
        assert!(
            !init.stdout.contains("haproxy-certs issue") && !init.stdout.contains("-> certbot"),
            "{init}"
        );
        cmd.run(&["issue", "-d", "new.example"]).exits(3);
    }
}

/// `reload = "none"`: whoever set that is not told to send a signal.
#[test]
fn no_reload_is_advised_where_none_is_configured() {
    let mut tree = tree(&["a.example"]);
    let cmd = Cmd::new(tree.live());
    untold(&cmd);
    let haproxy = Haproxy::of(&version("3.4").unwrap()).crt(cmd.sites()).start();
    tree.issue("b.example", KeyKind::P256, &["b.example"], Validity::days(90));
    tree.renew("a.example");
    untold(&cmd);
    let none = "reload = \"none\"";
    let cmd = Cmd::new(tree.live()).with_sites(cmd.sites()).haproxy(&haproxy, none);
    for (file, word) in [("a.example.pem", "haproxy-stale"), ("b.example.pem", "haproxy-missing")] {
        let (said, commands) = advice(&cmd, file, word);
        assert!(said.starts_with("reload haproxy the way it is reloaded here"), "{said}");
        for no in ["kill", "systemctl", "USR2"] {
            assert!(commands.iter().all(|command| !command.contains(no)), "{commands:?}");
        }
    }
}
