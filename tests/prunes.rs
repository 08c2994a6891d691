//! A file that a HAProxy needs for its next start isn't pruned, whether it runs or not, and however its configuration comes
//! by the file; one that no line needs goes without more ado.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may fail loudly")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::cmd::toml;
use support::haproxy::Setup;
use support::scene::put;
use support::{Cmd, Haproxy, KeyKind, LIMIT, Run, Tree, Validity, Version, served, versions};

/// The lineage that goes.
const GONE: &str = "gone.test";

/// certbot's tree with three lineages deployed, one of them gone since, and a HAProxy that serves them.
struct Scene {
    tree: Tree,
    cmd: Cmd,
    haproxy: Haproxy,
    folder: PathBuf,
}

impl Scene {
    fn start(version: &Version, change: impl FnOnce(&Path, Setup) -> Setup) -> Self {
        let tree = Tree::of(&[(GONE, &[GONE]), ("keep.test", &["keep.test"]), ("z.test", &["z.test"])]);
        let cmd = Cmd::new(tree.live()).without_haproxy();
        let folder = cmd.sites().parent().unwrap().to_owned();
        cmd.assemble(&[]).exits(0);
        let haproxy = change(&folder, Haproxy::of(version)).start();
        Self { tree, cmd, haproxy, folder }.with("")
    }

    fn with(self, more: &str) -> Self {
        let binary = format!("binary = {}\n", toml(&self.haproxy.version().program));
        let binary = if more.contains("binary") { "" } else { &binary };
        let table = self.haproxy.table(&format!("unit = \"\"\n{binary}{more}"));
        Self { cmd: self.cmd.with_tables(&table), ..self }
    }

    /// It is told everything, stopped, and not known to have run from any configuration but the one that is set.
    #[track_caller]
    fn down(self, more: &str) -> Self {
        let config = format!("config = [{}]\n", toml(&self.haproxy.config()));
        let mut scene = self.with(&format!("{config}{more}"));
        let run = scene.cmd.assemble(&[]);
        assert!(matches!(run.code, Some(0)), "{run}");
        scene.haproxy.kill();
        scene
    }

    /// What a HAProxy that is started now says to its configuration, in this environment.
    #[track_caller]
    fn must_start(&self, environment: &[(&str, &str)], context: &str) {
        let mut command = Command::new(&self.haproxy.version().program);
        command.envs(environment.iter().copied()).arg("-c").arg("-f").arg(self.haproxy.config());
        command.current_dir("/");
        let output = support::process::finish(&mut command, LIMIT);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{context}: {said}\n{:?}", self.cmd.deployed());
    }

    #[track_caller]
    fn holds(&self, run: &Run, why: &str, context: &str) {
        assert_eq!(run.action("gone.test.pem"), "unchanged", "{context}: {run}");
        let row = run.site("gone.test.pem");
        assert!(row["warnings"].to_string().contains("prune-held"), "{context}: {run}");
        assert!(row["detail"].as_str().unwrap().contains(why), "{context}: {run}");
        assert!(self.cmd.site(GONE).exists(), "{context}");
    }
}

fn outcome(run: &Run) -> String {
    run.json()["haproxy"][0]["outcome"].as_str().unwrap().to_owned()
}

/// A HAProxy whose configuration loads the key of a certificate from a file of ours, in ways that are known or not.
fn with_a_list(version: &Version, list: impl Fn(&Path, &Path) -> String) -> Scene {
    Scene::start(version, |folder, setup| {
        let sites = folder.join("sites");
        let spelled = list(folder, &sites);
        setup.bind_option(&format!("crt-list {spelled}")).crt(&sites)
    })
}

// --- It runs -------------------------------------------------------------------------------------------------------

/// The key of another file's certificate: the global `key-base` stands before it.
#[test]
fn a_key_of_a_store_is_needed() {
    for version in versions().into_iter().filter(|version| version.number() >= (3, 2)) {
        let mut scene = Scene::start(&version, |folder, setup| {
            let sites = folder.join("sites");
            let pem = fs::read_to_string(sites.join("gone.test.pem")).unwrap();
            let chain = pem.find("-----BEGIN CERTIFICATE").unwrap();
            put(&folder.join("other.pem"), &pem[chain..], 0o400);
            setup
                .global(&format!("key-base {}", sites.display()))
                .section(&format!(
                    "crt-store web\n  load crt {}/other.pem key gone.test.pem alias x\n",
                    folder.display()
                ))
                .crt(&sites)
        });
        scene.cmd.assemble(&[]).exits(0);
        scene.tree.delete(GONE);
        for _ in 0..2 {
            let run = scene.cmd.assemble(&[]).exits(1);
            scene.holds(&run, "names it", &version.full);
            scene.must_start(&[], &version.full);
        }
        assert_eq!(
            served(scene.haproxy.address(), "keep.test").serial,
            scene.tree.leaf("keep.test").serial()
        );
    }
}

/// A link that leads nowhere keeps HAProxy from starting, in our directory and in another one: the file stays, the dry run and
/// the status say so beforehand, and what they advise mends it.
#[test]
fn a_file_that_a_link_leads_to_stays_and_the_dry_run_says_so() {
    for version in versions() {
        for is_beside in [true, false] {
            let context = format!("{} {is_beside}", version.full);
            let mut scene = Scene::start(&version, |folder, setup| {
                let (other, sites) = (folder.join("other"), folder.join("sites"));
                fs::create_dir(&other).unwrap();
                let link = if is_beside { sites.join("y.pem") } else { other.join("link.pem") };
                std::os::unix::fs::symlink(sites.join("gone.test.pem"), link).unwrap();
                if is_beside { setup.crt(&sites) } else { setup.crt(&sites).crt(&other) }
            });
            scene.cmd.assemble(&[]).exits(0);
            scene.tree.delete(GONE);
            let dry = scene.cmd.assemble(&["--dry-run"]).exits(1);
            scene.holds(&dry, "leads to it", &context);
            let status = scene.cmd.run(&["status", "--format", "json"]);
            assert!(status.stdout.contains("leads to it; remove the link first"), "{context}: {status}");
            for _ in 0..2 {
                let run = scene.cmd.assemble(&[]).exits(1);
                scene.holds(&run, "leads to it", &context);
                scene.must_start(&[], &context);
            }
            let link = if is_beside { scene.cmd.site("y") } else { scene.folder.join("other/link.pem") };
            fs::remove_file(link).unwrap();
            if !is_beside {
                let leaf = scene.tree.authority().issue(KeyKind::P256, &["o.test"], Validity::days(90));
                fs::write(scene.folder.join("other/o.pem"), leaf.combined()).unwrap();
            }
            let dry = scene.cmd.assemble(&["--dry-run"]).exits(0);
            assert_eq!(dry.action("gone.test.pem"), "prune", "{context}: {dry}");
            let run = scene.cmd.assemble(&[]).exits(0);
            assert_eq!(run.action("gone.test.pem"), "prune", "{context}: {run}");
            scene.must_start(&[], &context);
        }
    }
}

/// Nothing shows that the file is needed, and HAProxy's words name another one: once it is back HAProxy reloads.
#[test]
fn what_haproxy_cannot_reload_without_comes_back() {
    for version in versions() {
        for more in ["", "reload = \"pidfile\"\n", "reload = \"pidfile\"\nbinary = \"\"\n"] {
            let context = format!("{} {more:?}", version.full);
            let mut scene = with_a_list(&version, |folder, _| {
                // A link that leads nowhere once the file is gone, in a directory that isn't looked at.
                let other = folder.join("other");
                fs::create_dir(&other).unwrap();
                fs::write(other.join("keep.list"), "").unwrap();
                let list = folder.join("list");
                fs::write(&list, "").unwrap();
                list.to_str().unwrap().to_owned()
            })
            .with(more);
            scene.cmd.assemble(&[]).exits(0);
            scene.tree.delete(GONE);
            scene.cmd.assemble(&["--defer-reload"]).exits(0);
            assert!(!scene.cmd.site(GONE).exists(), "{context}");
            // Another name leads to it: a copy of the list is put there meanwhile.
            let link = scene.folder.join("link.pem");
            std::os::unix::fs::symlink(scene.cmd.site(GONE), &link).unwrap();
            fs::write(scene.folder.join("list"), format!("{}\n", link.display())).unwrap();
            let new = scene.tree.renew("keep.test");
            let run = scene.cmd.assemble(&[]).exits(2);
            assert_eq!(outcome(&run), "rolled-back", "{context}: {run}");
            scene.holds(&run, "needs it", &context);
            scene.must_start(&[], &context);
            assert_eq!(served(scene.haproxy.address(), "keep.test").serial, new.serial(), "{context}");
            let again = scene.cmd.assemble(&[]).exits(1);
            assert_eq!(outcome(&again), "not-needed", "{context}: {again}");
            scene.must_start(&[], &context);
        }
    }
}

/// A configuration that is broken in another place is no reason to keep a file for good.
#[test]
fn a_refusal_for_another_reason_is_not_held_against_a_prune() {
    for version in versions() {
        let mut scene = Scene::start(&version, |folder, setup| setup.crt(folder.join("sites")));
        scene.cmd.assemble(&[]).exits(0);
        let good = fs::read_to_string(scene.haproxy.config()).unwrap();
        fs::write(scene.haproxy.config(), format!("{good}\nbogus\n")).unwrap();
        scene.tree.delete(GONE);
        let run = scene.cmd.assemble(&[]);
        // Whether memory does is told by the clock's ticks.
        assert!(matches!(run.code, Some(1 | 2)), "{run}");
        scene.holds(&run, "the next run tries it again", &version.full);
        fs::write(scene.haproxy.config(), good).unwrap();
        let run = scene.cmd.assemble(&[]).exits(0);
        assert_eq!(run.action("gone.test.pem"), "prune", "{}: {run}", version.full);
        assert!(!scene.cmd.site(GONE).exists(), "{}", version.full);
    }
}

/// What HAProxy has not accepted yet is kept as it is, too: the lineage goes while its file is pending.
#[test]
fn a_file_that_is_pending_is_kept_as_it_is() {
    for version in versions() {
        for is_new in [true, false] {
            let context = format!("{}, new: {is_new}", version.full);
            let mut scene = Scene::start(&version, |folder, setup| setup.crt(folder.join("sites")));
            if is_new {
                scene.tree.delete(GONE);
            }
            scene.cmd.assemble(&[]).exits(0);
            let good = fs::read_to_string(scene.haproxy.config()).unwrap();
            fs::write(scene.haproxy.config(), format!("{good}\nbogus\n")).unwrap();
            let leaf = if is_new {
                scene.tree.issue(GONE, KeyKind::P256, &[GONE], Validity::days(90))
            } else {
                scene.tree.renew(GONE)
            };
            // Whether memory does is told by the clock's ticks: pending it is in any case.
            scene.cmd.assemble(&["--defer-reload"]);
            scene.tree.delete(GONE);
            for _ in 0..2 {
                let run = scene.cmd.assemble(&[]);
                assert!(matches!(run.code, Some(1 | 2)), "{context}: {run}");
                scene.holds(&run, "the next run tries it again", &context);
                assert_eq!(fs::read_to_string(scene.cmd.site(GONE)).unwrap(), leaf.combined(), "{context}");
                assert!(!run.stdout.contains("default-certificate-changed"), "{context}: {run}");
            }
            fs::write(scene.haproxy.config(), good).unwrap();
            let run = scene.cmd.assemble(&[]).exits(0);
            assert_eq!(run.action("gone.test.pem"), "prune", "{context}: {run}");
            assert!(!scene.cmd.site(GONE).exists(), "{context}");
            scene.must_start(&[], &context);
        }
    }
}

// --- It is down ----------------------------------------------------------------------------------------------------

#[test]
fn an_ordinary_configuration_keeps_nothing_while_haproxy_is_down() {
    for version in versions() {
        for more in ["", "binary = \"\"\n"] {
            let mut scene =
                Scene::start(&version, |folder, setup| setup.global("setenv A b").crt(folder.join("sites")))
                    .down(more);
            scene.tree.delete(GONE);
            let run = scene.cmd.assemble(&[]).exits(0);
            assert_eq!(run.action("gone.test.pem"), "prune", "{}: {run}", version.full);
            scene.must_start(&[], &version.full);
        }
    }
}

/// Every keyword has a base directory of its own, or none; the file's name is the same.
#[test]
fn a_name_holds_a_prune_while_haproxy_is_down() {
    type Case = ((u32, u32), &'static str, &'static str);
    const CASES: [Case; 7] = [
        (
            (2, 2),
            "ca-base @/sites",
            "backend b\n  server s 127.0.0.1:1 ssl verify required ca-file gone.test.pem",
        ),
        (
            (2, 2),
            "",
            "backend b\n  server s 127.0.0.1:1 ssl verify none crt \"${FOLDER}/sites/gone.test.pem\"",
        ),
        ((2, 2), "", "backend b\n  http-request deny if { path -f \"${FOLDER}/sites/gone.test.pem\" }"),
        (
            (2, 6),
            "default-path origin @",
            "backend b\n  http-request deny if { path -f sites/gone.test.pem }",
        ),
        ((2, 6), "crt-base @/sites", "peers p\n  default-bind ssl crt gone.test.pem"),
        ((3, 2), "key-base @/sites", "crt-store web\n  load crt @/other.pem key gone.test.pem alias x"),
        (
            (3, 2),
            "crt-base @/sites",
            "frontend x\n  mode http\n  bind @/x.sock ssl\n  ssl-f-use crt gone.test.pem",
        ),
    ];
    for version in versions() {
        for (_, global, section) in CASES.into_iter().filter(|(since, ..)| version.number() >= *since) {
            let mut folder = String::new();
            let mut scene = Scene::start(&version, |at, setup| {
                at.to_str().unwrap().clone_into(&mut folder);
                let pem = fs::read_to_string(at.join("sites/gone.test.pem")).unwrap();
                let chain = pem.find("-----BEGIN CERTIFICATE").unwrap();
                put(&at.join("other.pem"), &pem[chain..], 0o400);
                let within = |text: &str| {
                    text.replace("@/", &format!("{folder}/")).replace(" @", &format!(" {folder}"))
                };
                setup
                    .global(&within(global))
                    .section(&within(section))
                    .env("FOLDER", &folder)
                    .crt(at.join("sites"))
            })
            .down("");
            let context = format!("{} {section}", version.full);
            scene.tree.delete(GONE);
            let run = scene.cmd.assemble(&[]).exits(1);
            scene.holds(&run, "haproxy.cfg:", &context);
            scene.must_start(&[("FOLDER", &folder)], &context);
        }
    }
}

/// A list is found where `default-path` has relative names begin, whether HAProxy can be asked or not.
#[test]
fn a_relative_list_holds_a_prune_while_haproxy_is_down() {
    for version in versions().into_iter().filter(|version| version.number() >= (2, 6)) {
        for more in ["", "binary = \"\"\n"] {
            let context = format!("{} {more:?}", version.full);
            let mut scene = Scene::start(&version, |folder, setup| {
                let sites = folder.join("sites");
                fs::write(folder.join("list"), format!("{}/gone.test.pem gone.test\n", sites.display()))
                    .unwrap();
                setup
                    .global(&format!("default-path origin {}", folder.display()))
                    .bind_option("crt-list list")
                    .crt(&sites)
            })
            .down(more);
            scene.tree.delete(GONE);
            for _ in 0..2 {
                let run = scene.cmd.assemble(&[]).exits(1);
                scene.holds(&run, "list:1 names it", &context);
                scene.must_start(&[], &context);
            }
            // Nobody waits for it to start once the line is gone.
            let config = scene.haproxy.config();
            let text = fs::read_to_string(&config).unwrap();
            fs::write(&config, text.replace(" crt-list list", "")).unwrap();
            let run = scene.cmd.assemble(&[]).exits(0);
            assert_eq!(run.action("gone.test.pem"), "prune", "{context}: {run}");
            scene.must_start(&[], &context);
        }
    }
}

/// It was started and stopped between two runs, and nothing but its pidfile says that it was there.
#[test]
fn a_haproxy_that_no_run_has_seen_holds_every_prune() {
    for version in versions() {
        let mut scene = Scene::start(&version, |folder, setup| {
            let sites = folder.join("sites");
            fs::write(folder.join("list"), format!("{}/gone.test.pem gone.test\n", sites.display())).unwrap();
            setup.bind_option(&format!("crt-list {}/list", folder.display())).crt(&sites)
        });
        scene.haproxy.kill();
        scene.tree.delete(GONE);
        let run = scene.cmd.assemble(&[]).exits(1);
        scene.holds(&run, "set config", &version.full);
        scene.must_start(&[], &version.full);
    }
}

/// The list's name has a variable that only HAProxy knows.
#[test]
fn a_list_that_nobody_finds_holds_every_prune() {
    for version in versions() {
        let mut folder = String::new();
        let mut scene = Scene::start(&version, |at, setup| {
            at.to_str().unwrap().clone_into(&mut folder);
            let sites = at.join("sites");
            fs::write(at.join("list"), format!("{}/gone.test.pem gone.test\n", sites.display())).unwrap();
            setup.env("FOLDER", &folder).bind_option("crt-list \"${FOLDER}/list\"").crt(&sites)
        })
        .down("");
        scene.tree.delete(GONE);
        for arguments in [&["--dry-run"][..], &[]] {
            let run = scene.cmd.assemble(arguments);
            scene.holds(&run, "holds a variable whose value isn't known", &version.full);
        }
        scene.must_start(&[("FOLDER", &folder)], &version.full);
    }
}
