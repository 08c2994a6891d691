//! Whatever HAProxy refuses, and whenever: a HAProxy that is started afterwards loads what is there, each lineage has a
//! true answer, and the next run does no more and no less than what is missing.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may fail loudly")]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};

use serde_json::Value;

use support::live::{demanding_openssl, unaware};
use support::process::Running;
use support::{
    Cmd, Haproxy, KeyKind, LIMIT, Leaf, Run, Tree, Validity, Version, served, versions, wait_until,
};

/// certbot's tree with some lineages deployed, and a HAProxy at OpenSSL's security level 3 that serves them: it refuses
/// RSA keys of 2048 bits.
struct Strict {
    tree: Tree,
    cmd: Cmd,
    haproxy: Haproxy,
    level: String,
    folder: tempfile::TempDir,
}

impl Strict {
    /// Whose check of staged files doesn't know how strict it is.
    fn unaware(version: &Version, lineages: &[&str], reload: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let version = unaware(version, folder.path());
        Self::start(&version, folder, lineages, reload, |_, setup| setup)
    }

    fn start(
        version: &Version,
        folder: tempfile::TempDir,
        lineages: &[&str],
        reload: &str,
        change: impl FnOnce(&Path, support::haproxy::Setup) -> support::haproxy::Setup,
    ) -> Self {
        let mut tree = Tree::new();
        for name in lineages {
            tree.issue(name, KeyKind::P256, &[name], Validity::days(90));
        }
        let level = demanding_openssl(folder.path());
        let sites = folder.path().join("sites");
        let first = Cmd::new(tree.live()).with_sites(&sites).without_haproxy();
        first.assemble(&[]).exits(0);
        let setup = Haproxy::of(version).crt(&sites).env("OPENSSL_CONF", &level);
        let haproxy = change(folder.path(), setup).start();
        let more = format!("reload = \"{reload}\"\ntimeout = \"60s\"");
        let cmd = Cmd::new(tree.live()).with_sites(&sites).haproxy(&haproxy, &more);
        Self { tree, cmd, haproxy, level, folder }
    }

    fn weak(&self, lineage: &str) -> Leaf {
        self.tree.authority().issue(KeyKind::Rsa2048, &[lineage], Validity::days(90))
    }

    /// What a HAProxy that is started now says to its configuration, in this one's environment.
    #[track_caller]
    fn must_start(&self, context: &str) {
        let mut command = std::process::Command::new(&self.haproxy.version().program);
        command.env("OPENSSL_CONF", &self.level).arg("-c").arg("-f").arg(self.haproxy.config());
        let output = support::process::finish(&mut command, LIMIT);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{context}: {said}\n{:?}", self.cmd.deployed());
    }

    fn state(&self) -> Value {
        let own = self.cmd.sites().join(".haproxy-certs");
        serde_json::from_str(&fs::read_to_string(own.join("state.json")).unwrap()).unwrap()
    }

    /// No previous or staged file is left, and nothing is owed.
    #[track_caller]
    fn is_tidy(&self) {
        let own = self.cmd.sites().join(".haproxy-certs");
        for folder in ["stage", "previous"] {
            assert_eq!(support::cmd::names_in(&own.join(folder)), Vec::<String>::new(), "{folder}");
        }
        let (state, none) = (self.state(), serde_json::json!({}));
        assert_eq!((&state["owed"], &state["pending"]), (&none, &none));
    }
}

fn outcome(run: &Run) -> String {
    run.json()["haproxy"][0]["outcome"].as_str().unwrap().to_owned()
}

fn detail(run: &Run, file: &str) -> String {
    run.site(file)["detail"].as_str().unwrap_or_default().to_owned()
}

fn warns(run: &Run, file: &str, word: &str) -> bool {
    run.site(file)["warnings"].as_array().unwrap().iter().any(|warning| warning == word)
}

// --- The last file -------------------------------------------------------------------------------------------------

#[test]
fn what_was_pruned_comes_back_where_nothing_else_could_be_loaded() {
    for (number, version) in versions().into_iter().enumerate() {
        for reload in if number == 0 { &["pidfile", "auto"][..] } else { &["auto"] } {
            let context = format!("{} {reload}", version.full);
            let mut strict = Strict::unaware(&version, &["old.example"], reload);
            let old = strict.tree.leaf("old.example").clone();
            strict.tree.delete("old.example");
            let weak = strict.weak("new.example");
            strict.tree.issue_leaf("new.example", &weak);

            let run = strict.cmd.assemble(&[]).exits(2);
            assert_eq!(outcome(&run), "rolled-back", "{context}: {run}");
            assert_eq!(run.reason("new.example.pem").as_deref(), Some("haproxy-rejects"), "{context}: {run}");
            assert_eq!(run.action("old.example.pem"), "unchanged", "{context}: {run}");
            assert!(warns(&run, "old.example.pem", "prune-held"), "{context}: {run}");
            assert_eq!(strict.cmd.deployed(), ["old.example.pem"], "{context}");
            strict.must_start(&context);
            strict.is_tidy();

            let again = strict.cmd.assemble(&[]).exits(1);
            assert_eq!(outcome(&again), "not-needed", "{context}: {again}");
            assert_eq!(again.action("old.example.pem"), "unchanged", "{context}: {again}");
            strict.haproxy.run_again();
            assert_eq!(served(strict.haproxy.address(), "old.example").serial, old.serial(), "{context}");

            // Once there is a good one, the old one goes.
            let good = strict.tree.authority().issue(KeyKind::P256, &["new.example"], Validity::days(90));
            strict.tree.renew_with("new.example", &good);
            strict.cmd.assemble(&[]).exits(0);
            assert_eq!(strict.cmd.deployed(), ["new.example.pem"], "{context}");
            assert_eq!(served(strict.haproxy.address(), "new.example").serial, good.serial(), "{context}");
        }
    }
}

/// A damaged file isn't one that HAProxy could load: neither when the plan is made nor when it is carried out.
#[test]
fn a_damaged_file_does_not_let_the_last_one_go() {
    let mut tree = Tree::new();
    for name in ["a.example", "b.example"] {
        tree.issue(name, KeyKind::P256, &[name], Validity::days(90));
    }
    let cmd = Cmd::new(tree.live()).without_haproxy();
    cmd.assemble(&[]).exits(0);
    // Its key isn't its certificate's, and its lineage is no better.
    let other = tree.authority().issue(KeyKind::P256, &["b.example"], Validity::days(90));
    let crossed = format!("{}{}", other.key.pem(), tree.leaf("b.example").fullchain());
    fs::remove_file(cmd.site("b.example")).unwrap();
    support::tree::write(&cmd.site("b.example"), crossed, 0o400);
    tree.overwrite("b.example", support::Kind::Privkey, "");
    tree.delete("a.example");
    let run = cmd.assemble(&[]).exits(1);
    assert_eq!(run.action("a.example.pem"), "unchanged", "{run}");
    assert!(warns(&run, "a.example.pem", "prune-held"), "{run}");
    assert_eq!(cmd.deployed(), ["a.example.pem", "b.example.pem"]);
}

#[test]
fn a_link_that_was_adopted_comes_back_as_a_link() {
    for version in versions() {
        let mut strict = Strict::unaware(&version, &["a.example"], "pidfile");
        // What is there instead is a link to somebody else's certificate.
        let foreign = strict.tree.authority().issue(KeyKind::P256, &["a.example"], Validity::days(90));
        let outside = strict.folder.path().join("outside.pem");
        support::tree::write(&outside, foreign.combined(), 0o400);
        fs::remove_file(strict.cmd.site("a.example")).unwrap();
        symlink(&outside, strict.cmd.site("a.example")).unwrap();
        let weak = strict.weak("a.example");
        strict.tree.renew_with("a.example", &weak);

        let run = strict.cmd.assemble(&["--adopt"]).exits(2);
        assert_eq!(outcome(&run), "rolled-back", "{}: {run}", version.full);
        assert_eq!(fs::read_link(strict.cmd.site("a.example")).unwrap(), outside, "{}", version.full);
        strict.must_start(&version.full);
        strict.is_tidy();
        let again = strict.cmd.assemble(&["--adopt"]).exits(1);
        assert_eq!(outcome(&again), "not-needed", "{}: {again}", version.full);
        assert_eq!(fs::read_link(strict.cmd.site("a.example")).unwrap(), outside, "{}", version.full);
    }
}

/// A file that was adopted and put back is still somebody else's.
#[test]
fn an_adopted_file_that_comes_back_is_not_ours() {
    let version = versions().pop().unwrap();
    let mut strict = Strict::unaware(&version, &["a.example", "b.example"], "pidfile");
    let foreign =
        support::Authority::named("somebody else").issue(KeyKind::P256, &["b.example"], Validity::days(90));
    fs::remove_file(strict.cmd.site("b.example")).unwrap();
    support::tree::write(&strict.cmd.site("b.example"), foreign.combined(), 0o400);
    let weak = strict.weak("b.example");
    strict.tree.renew_with("b.example", &weak);
    assert_eq!(outcome(&strict.cmd.assemble(&["--adopt"]).exits(2)), "rolled-back");
    assert_eq!(fs::read_to_string(strict.cmd.site("b.example")).unwrap(), foreign.combined());
    strict.tree.delete("b.example");
    let run = strict.cmd.assemble(&[]).exits(0);
    assert_eq!(run.action("b.example.pem"), "foreign", "{run}");
    assert_eq!(fs::read_to_string(strict.cmd.site("b.example")).unwrap(), foreign.combined());
}

// --- Many ----------------------------------------------------------------------------------------------------------

#[test]
fn past_so_many_refusals_the_whole_batch_goes_back() {
    let names: Vec<String> = (0..20).map(|number| format!("{number:02}.example")).collect();
    let lineages: Vec<&str> = names.iter().map(String::as_str).chain(["gone.example"]).collect();
    for version in [versions().remove(1), versions().pop().unwrap()] {
        let mut strict = Strict::unaware(&version, &lineages, "auto");
        let before: Vec<String> =
            lineages.iter().map(|name| fs::read_to_string(strict.cmd.site(name)).unwrap()).collect();
        for name in &names {
            let weak = strict.weak(name);
            strict.tree.renew_with(name, &weak);
        }
        strict.tree.delete("gone.example");
        let refused = |run: &Run| {
            names
                .iter()
                .filter(|name| run.reason(&format!("{name}.pem")).as_deref() == Some("haproxy-rejects"))
                .count()
        };
        let is_as_before = |context: &str| {
            for (name, pem) in names.iter().zip(&before) {
                assert!(fs::read_to_string(strict.cmd.site(name)).unwrap() == *pem, "{context}: {name}");
            }
            strict.must_start(context);
            strict.is_tidy();
        };
        let run = strict.cmd.assemble(&[]).exits(2);
        assert_eq!((outcome(&run).as_str(), refused(&run)), ("rolled-back", 20), "{}: {run}", version.full);
        let unnamed = detail(&run, "19.example.pem");
        assert!(unnamed.contains("the next run tries the rest again"), "{}: {unnamed}", version.full);
        assert_eq!(run.action("gone.example.pem"), "unchanged", "{}: {run}", version.full);
        is_as_before(&version.full);
        let remembered = strict.state().to_string().matches("\"rejected\"").count();
        assert_eq!(remembered, 17, "{}: those that HAProxy named", version.full);

        let run = strict.cmd.assemble(&[]).exits(2);
        assert_eq!((outcome(&run).as_str(), refused(&run)), ("rolled-back", 20), "{}: {run}", version.full);
        assert_eq!(run.action("gone.example.pem"), "prune", "{}: {run}", version.full);
        is_as_before(&version.full);
        let run = strict.cmd.assemble(&[]).exits(1);
        assert_eq!((outcome(&run).as_str(), refused(&run)), ("not-needed", 20), "{}: {run}", version.full);
    }
}

/// Twenty that this HAProxy refuses, by its own environment, and five that it takes.
#[test]
fn staged_files_are_asked_about_in_the_environment_of_the_one_that_runs() {
    for version in versions() {
        let folder = tempfile::tempdir().unwrap();
        let mut strict = Strict::start(&version, folder, &["first.example"], "auto", |_, setup| setup);
        for number in 0..25 {
            let name = format!("{number:02}.example");
            let kind = if number % 5 == 0 { KeyKind::P256 } else { KeyKind::Rsa2048 };
            strict.tree.issue(&name, kind, &[&name], Validity::days(90));
        }
        let run = strict.cmd.assemble(&[]).exits(1);
        let summary = run.json()["summary"].clone();
        assert_eq!(
            (&summary["install"], &summary["refuse"]),
            (&5.into(), &20.into()),
            "{}: {run}",
            version.full
        );
        assert_eq!(run.reason("01.example.pem").as_deref(), Some("haproxy-rejects"), "{run}");
        assert!(detail(&run, "01.example.pem").contains("01.example.pem"), "{run}");
        assert!(!warns(&run, "00.example.pem", "not-checked"), "{run}");
        assert_ne!(outcome(&run), "rolled-back", "{}: {run}", version.full);
        assert_eq!(strict.cmd.deployed().len(), 6, "{}", version.full);
        let good = strict.tree.leaf("05.example").serial();
        assert_eq!(served(strict.haproxy.address(), "05.example").serial, good, "{}", version.full);
        strict.must_start(&version.full);
        let again = strict.cmd.assemble(&[]).exits(1);
        assert_eq!(outcome(&again), "not-needed", "{}: {again}", version.full);
    }
}

#[test]
fn one_that_is_down_is_asked_about_in_the_environment_that_it_had() {
    for version in versions() {
        let folder = tempfile::tempdir().unwrap();
        let mut strict =
            Strict::start(&version, folder, &["a.example", "b.example"], "auto", |_, setup| setup);
        let weak = strict.weak("a.example");
        strict.tree.renew_with("a.example", &weak);
        let run = strict.cmd.assemble(&[]).exits(1);
        assert_eq!(
            run.reason("a.example.pem").as_deref(),
            Some("haproxy-rejects"),
            "{}: {run}",
            version.full
        );
        strict.haproxy.stop();
        let weak = strict.weak("b.example");
        strict.tree.renew_with("b.example", &weak);
        let run = strict.cmd.assemble(&[]).exits(1);
        for file in ["a.example.pem", "b.example.pem"] {
            assert_eq!(run.reason(file).as_deref(), Some("haproxy-rejects"), "{}: {run}", version.full);
        }
        strict.must_start(&version.full);
    }
}

#[test]
fn a_haproxy_without_a_master_is_asked_in_its_environment_too() {
    for version in versions() {
        let folder = tempfile::tempdir().unwrap();
        let mut tree = Tree::new();
        tree.issue("a.example", KeyKind::P256, &["a.example"], Validity::days(90));
        let cmd = Cmd::new(tree.live());
        cmd.assemble(&["--reload", "none"]).exits(0);
        let (socket, config) = (folder.path().join("stats.sock"), folder.path().join("haproxy.cfg"));
        let text = format!(
            "global\n  tune.ssl.default-dh-param 2048\n  stats socket {} level admin\nfrontend f\n  mode tcp\n  \
             timeout client 1s\n  bind unix@{} ssl crt {}\n",
            socket.display(),
            folder.path().join("bind.sock").display(),
            cmd.sites().display()
        );
        fs::write(&config, text).unwrap();
        let level = demanding_openssl(folder.path());
        let _running = Running::start(&version.program, |command| {
            command.arg("-db").arg("-f").arg(&config).env("OPENSSL_CONF", &level)
        });
        wait_until(LIMIT, "HAProxy", || support::haproxy::try_ask(&socket, "show info").is_ok());
        let binary = support::cmd::toml(&version.program);
        let nowhere = support::cmd::toml(&folder.path().join("none"));
        let cmd = cmd.table(&format!(
            "[[haproxy]]\nruntime_socket = {}\nbinary = {binary}\npidfile = {nowhere}\nmaster_socket = \"\"\n\
             unit = \"none.service\"\ntimeout = \"20s\"",
            support::cmd::toml(&socket)
        ));
        let weak = tree.authority().issue(KeyKind::Rsa2048, &["a.example"], Validity::days(90));
        let good = fs::read_to_string(cmd.site("a.example")).unwrap();
        tree.renew_with("a.example", &weak);
        let run = cmd.assemble(&[]).exits(1);
        assert_eq!(
            run.reason("a.example.pem").as_deref(),
            Some("haproxy-rejects"),
            "{}: {run}",
            version.full
        );
        assert_eq!(outcome(&run), "not-needed", "{}: {run}", version.full);
        assert_eq!(fs::read_to_string(cmd.site("a.example")).unwrap(), good, "{}", version.full);
    }
}

// --- While the debt stays ------------------------------------------------------------------------------------------

#[test]
fn a_refusal_is_remembered_although_the_debt_stays() {
    for version in versions() {
        let mut strict = Strict::unaware(&version, &["a.example", "b.example"], "pidfile");
        let good = fs::read_to_string(strict.cmd.site("b.example")).unwrap();
        let weak = strict.weak("b.example");
        strict.tree.renew_with("b.example", &weak);
        strict.tree.renew("a.example");
        // Another one that can't be told, so that the batch isn't done with.
        strict.cmd = strict.cmd.table(
            "[[haproxy]]\nname = \"away\"\nreload = \"master\"\nmaster_socket = \"/nonexistent/master.sock\"\nbinary = \"\"",
        );
        let run = strict.cmd.assemble(&[]).exits(2);
        assert_eq!(outcome(&run), "rolled-back", "{}: {run}", version.full);
        assert_eq!(run.json()["haproxy"][1]["owed"], true, "{}: {run}", version.full);
        assert_eq!(fs::read_to_string(strict.cmd.site("b.example")).unwrap(), good, "{}", version.full);
        let inode = fs::metadata(strict.cmd.site("b.example")).unwrap().ino();
        let again = strict.cmd.assemble(&[]).exits(2);
        assert_eq!(outcome(&again), "not-needed", "{}: {again}", version.full);
        assert_eq!(
            again.reason("b.example.pem").as_deref(),
            Some("haproxy-rejects"),
            "{}: {again}",
            version.full
        );
        assert_eq!(
            fs::metadata(strict.cmd.site("b.example")).unwrap().ino(),
            inode,
            "{}: not tried",
            version.full
        );
        strict.must_start(&version.full);
    }
}

// --- Prunes that HAProxy refuses -----------------------------------------------------------------------------------

/// A list beside the sites directory that names a file of it, and a HAProxy that loads both.
fn with_a_list(version: &Version, reload: &str, named: &str) -> (Strict, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("list.txt");
    let lineages = ["a.example", "b.example", "c.example"];
    let strict = Strict::start(version, folder, &lineages, reload, |folder, setup| {
        let text = named.replace("SITES", folder.join("sites").to_str().unwrap());
        fs::write(folder.join("list.txt"), text).unwrap();
        let listed = format!("crt-list {}", folder.join("list.txt").display());
        setup.bind_option(&listed)
    });
    (strict, list)
}

/// The list is read before anything is removed.
#[test]
fn a_prune_that_a_list_forbids_is_not_tried() {
    for version in versions() {
        // The first one is a path that the settings don't know.
        let mut ways = vec![("auto", "SITES/../sites/b.example.pem\n")];
        if version.number() <= (2, 6) {
            ways.push(("pidfile", "SITES/b.example.pem [alpn h2] b.example\n"));
        }
        for (reload, named) in ways {
            let context = format!("{} {reload} {named}", version.full);
            let (mut strict, list) = with_a_list(&version, reload, named);
            let changed = fs::metadata(strict.cmd.site("b.example")).unwrap().ctime_nsec();
            strict.tree.delete("b.example");
            strict.tree.delete("c.example");
            for wanted in ["prune", "absent"] {
                let run = strict.cmd.assemble(&[]).exits(1);
                assert!(wanted == "absent" || run.action("c.example.pem") == "prune", "{context}: {run}");
                assert_eq!(run.action("b.example.pem"), "unchanged", "{context}: {run}");
                assert!(warns(&run, "b.example.pem", "prune-held"), "{context}: {run}");
                let why = detail(&run, "b.example.pem");
                assert!(why.contains("list.txt:1 names it"), "{context}: {why}");
                assert_eq!(strict.cmd.deployed(), ["a.example.pem", "b.example.pem"], "{context}");
                strict.must_start(&context);
                strict.is_tidy();
            }
            let unchanged = fs::metadata(strict.cmd.site("b.example")).unwrap().ctime_nsec() == changed;
            assert!(unchanged, "{context}: it wasn't even moved");

            // What the row says helps.
            fs::write(&list, format!("{}\n", strict.cmd.site("a.example").display())).unwrap();
            let run = strict.cmd.assemble(&[]).exits(0);
            assert_eq!(run.action("b.example.pem"), "prune", "{context}: {run}");
            assert_eq!(strict.cmd.deployed(), ["a.example.pem"], "{context}");
            strict.must_start(&context);
            strict.cmd.assemble(&["--dry-run", "--exit-code"]).exits(0);
        }
    }
}

#[test]
fn a_prune_that_the_configuration_of_one_that_is_down_forbids_is_not_tried() {
    for version in versions() {
        let (mut strict, _) = with_a_list(&version, "auto", "SITES/b.example.pem\n");
        strict.cmd.assemble(&[]).exits(0);
        strict.haproxy.stop();
        strict.tree.delete("b.example");
        let run = strict.cmd.assemble(&[]).exits(1);
        assert!(warns(&run, "b.example.pem", "prune-held"), "{}: {run}", version.full);
        assert!(detail(&run, "b.example.pem").contains("list.txt:1 names it"), "{}: {run}", version.full);
        strict.must_start(&version.full);
    }
}

/// The list comes to name it after it was removed and before HAProxy was notified: the next run mends that, and remembers it.
#[test]
fn a_prune_that_haproxy_refuses_is_undone_and_not_tried_again() {
    for version in versions() {
        let (mut strict, list) = with_a_list(&version, "pidfile", "SITES/a.example.pem\n");
        strict.tree.delete("b.example");
        strict.cmd.assemble(&["--defer-reload"]).exits(0);
        assert_eq!(strict.cmd.deployed(), ["a.example.pem", "c.example.pem"]);
        fs::write(&list, format!("{}\n", strict.cmd.site("b.example").display())).unwrap();
        let run = strict.cmd.assemble(&[]).exits(2);
        assert_eq!(outcome(&run), "rolled-back", "{}: {run}", version.full);
        assert!(warns(&run, "b.example.pem", "prune-held"), "{}: {run}", version.full);
        assert_eq!(run.site("b.example.pem")["lineage"], "b.example", "{run}");
        strict.must_start(&version.full);
        strict.is_tidy();
        let again = strict.cmd.assemble(&[]).exits(1);
        assert_eq!(outcome(&again), "not-needed", "{}: {again}", version.full);
        assert!(warns(&again, "b.example.pem", "prune-held"), "{}: {again}", version.full);
    }
}

/// Two HAProxys on one directory, and somebody breaks the configuration of one: what has to stay for that one costs the other
/// no reload, however many runs there are.
#[test]
fn a_prune_that_one_haproxy_holds_up_reloads_no_other_one() {
    // Where its configuration may be older than the worker, that one has everything in memory and is owed nothing: then runs
    // exit 1, else 2.
    for (turn, version) in versions().into_iter().enumerate() {
        let is_newer = turn % 2 == 0;
        let mut tree = Tree::of(&[("a.example", &["a.example"]), ("b.example", &["b.example"])]);
        let cmd = Cmd::new(tree.live()).without_haproxy();
        cmd.assemble(&[]).exits(0);
        let page = cmd.beside("503.http");
        fs::write(&page, "HTTP/1.0 503 No\r\n\r\n").unwrap();
        let section = format!("defaults other\n    errorfile 503 {}\n", page.display());
        let [well, ill] =
            ["", section.as_str()].map(|more| Haproxy::of(&version).crt(cmd.sites()).section(more).start());
        let [of_well, of_ill] = [(&well, "well"), (&ill, "ill")]
            .map(|(haproxy, name)| haproxy.table(&format!("name = \"{name}\"\ntimeout = \"60s\"\n")));
        let cmd = cmd.with_tables(&format!("{of_well}{of_ill}"));
        cmd.assemble(&[]).exits(0);
        let good = fs::read_to_string(ill.config()).unwrap();
        if is_newer {
            fs::write(ill.config(), format!("{good}\nno such section\n")).unwrap();
        } else {
            fs::remove_file(&page).unwrap();
        }
        tree.delete("b.example");
        let assemble = || {
            let run = cmd.assemble(&[]);
            assert!(matches!(run.code, Some(1 | 2)), "{}: {run}", version.full);
            run
        };
        assemble();
        let workers = well.worker_pids();
        for _ in 0..2 {
            let run = assemble();
            assert_eq!(outcome(&run), "not-needed", "{}: {run}", version.full);
            assert!(warns(&run, "b.example.pem", "prune-held"), "{}: {run}", version.full);
            assert_eq!(well.worker_pids(), workers, "{}: {run}", version.full);
        }
        // What is renewed meanwhile isn't reloaded for it either, where memory takes it.
        let leaf = tree.renew("a.example");
        let run = assemble();
        let is_updated = version.number() > (2, 2);
        assert!(!is_updated || outcome(&run) == "updated", "{}: {run}", version.full);
        for haproxy in [&well, &ill] {
            assert_eq!(
                served(haproxy.address(), "a.example").serial,
                leaf.serial(),
                "{}: {run}",
                version.full
            );
        }
        fs::write(ill.config(), good).unwrap();
        fs::write(&page, "HTTP/1.0 503 No\r\n\r\n").unwrap();
        let run = cmd.assemble(&[]).exits(0);
        assert_eq!(run.action("b.example.pem"), "prune", "{}: {run}", version.full);
    }
}

/// What one HAProxy took in an earlier run goes back when another one refuses it later: the first one is told of that, too.
#[test]
fn whoever_took_what_goes_back_later_is_told() {
    for (turn, version) in versions().into_iter().enumerate() {
        let mut strict = Strict::unaware(&version, &["a.example", "b.example"], "pidfile");
        let lenient = Haproxy::of(&version).crt(strict.cmd.sites()).start();
        let of_lenient = lenient.table("name = \"lenient\"\ntimeout = \"60s\"\n");
        let of_strict = |pidfile: &Path| {
            let pidfile = support::cmd::toml(pidfile);
            format!(
                "[[haproxy]]\nname = \"strict\"\nreload = \"pidfile\"\npidfile = {pidfile}\ntimeout = \"60s\"\n"
            )
        };
        let binary = support::cmd::toml(&strict.haproxy.version().program);
        let right = format!("{}binary = {binary}\n", of_strict(&strict.haproxy.pidfile()));
        strict.cmd.set_tables(&format!("{of_lenient}{right}"));
        strict.cmd.assemble(&[]).exits(0);
        let nowhere = of_strict(&strict.cmd.beside("no.pid"));
        strict.cmd.set_tables(&format!("{of_lenient}{nowhere}binary = \"\"\n"));
        let (weak, old) = (strict.weak("new.example"), strict.tree.leaf("b.example").serial());
        let weak_too = strict.weak("b.example");
        let is_one = turn % 2 == 0;
        if !is_one {
            strict.tree.issue_leaf("new.example", &weak);
        }
        strict.tree.renew_with("b.example", &weak_too);
        let run = strict.cmd.assemble(&[]).exits(2);
        let serves_new = |haproxy: &Haproxy| served(haproxy.address(), "new.example").serial == weak.serial();
        assert_eq!(serves_new(&lenient), !is_one, "{}: {run}", version.full);
        assert_eq!(
            served(lenient.address(), "b.example").serial,
            weak_too.serial(),
            "{}: {run}",
            version.full
        );

        strict.cmd.set_tables(&format!("{of_lenient}{right}"));
        if is_one {
            // It refuses one after the other, and what comes back isn't what this run has found.
            let another = strict.weak("b.example");
            strict.tree.renew_with("b.example", &another);
        }
        let run = strict.cmd.assemble(&[]).exits(2);
        assert_eq!(strict.cmd.deployed(), ["a.example.pem", "b.example.pem"], "{}: {run}", version.full);
        strict.must_start(&version.full);
        for haproxy in [&lenient, &strict.haproxy] {
            assert!(!serves_new(haproxy), "{}: {run}", version.full);
            assert_eq!(served(haproxy.address(), "b.example").serial, old, "{}: {run}", version.full);
        }
    }
}

/// A command isn't run either while the configuration is refused: memory takes what it can, and what may be needed stays.
#[test]
fn a_command_is_not_run_while_the_configuration_is_refused() {
    for version in versions() {
        let mut tree = Tree::of(&[("a.example", &["a.example"]), ("b.example", &["b.example"])]);
        let cmd = Cmd::new(tree.live()).without_haproxy();
        cmd.assemble(&[]).exits(0);
        let haproxy = Haproxy::of(&version).crt(cmd.sites()).start();
        let calls = cmd.beside("calls");
        let script = format!("echo >> {}; kill -USR2 {}", calls.display(), haproxy.master_pid());
        let command = serde_json::json!(["/bin/sh", "-c", script]);
        let more = format!("reload = \"command\"\ncommand = {command}\ntimeout = \"60s\"\n");
        let cmd = cmd.with_tables(&haproxy.table(&more));
        cmd.assemble(&[]).exits(0);
        let called = || fs::read_to_string(&calls).unwrap_or_default().len();
        let before = called();
        let broken = cmd.sites().join("zz.pem");
        fs::write(&broken, "no certificate\n").unwrap();
        let leaf = tree.renew("a.example");
        tree.delete("b.example");
        let run = cmd.assemble(&[]).exits(2);
        assert_eq!((outcome(&run).as_str(), called()), ("failed", before), "{}: {run}", version.full);
        assert!(warns(&run, "b.example.pem", "prune-held"), "{}: {run}", version.full);
        assert_eq!(served(haproxy.address(), "a.example").serial, leaf.serial(), "{}: {run}", version.full);
        fs::remove_file(&broken).unwrap();
        let run = cmd.assemble(&[]).exits(0);
        assert_eq!((outcome(&run).as_str(), called()), ("reloaded", before + 1), "{}: {run}", version.full);
        assert_eq!(run.action("b.example.pem"), "prune", "{}: {run}", version.full);
    }
}

// --- What the state file no longer knows ---------------------------------------------------------------------------

/// However the state was lost: what is in place and not recorded is notified, as a dry run says, and once only.
#[test]
fn a_debt_outlives_the_state_file() {
    for version in versions() {
        let folder = tempfile::tempdir().unwrap();
        let mut strict =
            Strict::start(&version, folder, &["a.example", "b.example"], "auto", |_, setup| setup);
        let own = strict.cmd.sites().join(".haproxy-certs");
        let state = own.join("state.json");
        for how in ["no state file", "nothing of ours", "an older one", "an empty one", "a script"] {
            let context = format!("{}: {how}", version.full);
            let older = fs::read(&state).unwrap();
            let new = strict.tree.renew("b.example");
            if how == "a script" {
                fs::remove_file(strict.cmd.site("b.example")).unwrap();
                support::tree::write(&strict.cmd.site("b.example"), new.combined(), 0o400);
            } else {
                strict.cmd.assemble(&["--defer-reload"]).exits(0);
            }
            match how {
                "no state file" => fs::remove_file(&state).unwrap(),
                "nothing of ours" => fs::remove_dir_all(&own).unwrap(),
                "an older one" => fs::write(&state, older).unwrap(),
                "an empty one" => fs::write(&state, "{\"version\":1}").unwrap(),
                _ => {}
            }
            let dry = strict.cmd.assemble(&["--dry-run", "--exit-code"]);
            assert_eq!(dry.code, Some(4), "{context}: {dry}");
            let human = strict.cmd.run(&["assemble", "--dry-run"]);
            assert!(
                human.stdout.contains("HAProxy has not been notified of an earlier change"),
                "{context}: {human}"
            );
            let run = strict.cmd.assemble(&[]).exits(0);
            assert_eq!(run.action("b.example.pem"), "unchanged", "{context}: {run}");
            assert_ne!(outcome(&run), "not-needed", "{context}: {run}");
            assert_eq!(served(strict.haproxy.address(), "b.example").serial, new.serial(), "{context}");
            strict.is_tidy();
            strict.cmd.assemble(&["--dry-run", "--exit-code"]).exits(0);
            let again = strict.cmd.assemble(&[]).exits(0);
            assert_eq!(outcome(&again), "not-needed", "{context}: {again}");
        }
    }
}
