//! What `init` and `status --setup` say on a fleet's publisher, on a node, and where the settings don't say yet which of
//! the two a host is.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may fail loudly")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use support::cmd::toml;
use support::fleet::{Fleet, Node};
use support::process::finish;
use support::{Cmd, Key, KeyKind, Kind, LIMIT, Run, Validity};

/// The findings of `status --setup` of this name: how bad each is, and its fact.
fn findings(cmd: &Cmd, name: &str) -> Vec<(String, String)> {
    let status = cmd.run(&["status", "--setup", "--format", "json"]).json();
    let all = status["setup"].as_array().unwrap().clone();
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
    let of_name = all.iter().filter(|finding| finding["name"] == name);
    of_name.map(|finding| (text(finding, "severity"), text(finding, "fact"))).collect()
}

/// What a host has besides what a settings file names.
#[derive(Default)]
struct Host<'a> {
    /// HAProxy's configuration, where it is installed.
    configuration: Option<&'a str>,
    /// The units that a package put there.
    units: &'a [&'a str],
}

impl Host<'_> {
    fn run(&self, cmd: &Cmd, arguments: &[&str]) -> Run {
        let (haproxy, units) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        if let Some(text) = self.configuration {
            fs::write(haproxy.path().join("haproxy.cfg"), text).unwrap();
        }
        for name in self.units {
            let packaged = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging");
            fs::copy(Path::new(packaged).join(name), units.path().join(name)).unwrap();
        }
        let script = "mount --bind \"$1\" /etc/haproxy && mount --bind \"$2\" /etc/systemd/system && shift 2 && exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", script, "sh"]).arg(haproxy.path()).arg(units.path());
        command.arg(Cmd::program()).arg("--config").arg(cmd.config()).args(arguments);
        cmd.prepare(&mut command);
        let output = finish(&mut command, LIMIT);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Run { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

/// `init` where no HAProxy is installed.
fn init(cmd: &Cmd, arguments: &[&str]) -> String {
    Host::default().run(cmd, &[&["init"], arguments].concat()).exits(0).stdout
}

#[test]
fn a_publisher_without_a_haproxy_gets_a_hook_and_nothing_to_load() {
    let mut fleet = Fleet::new(1);
    fleet.issue("a.example");
    let said = init(&fleet.publisher, &["--hook", "--dry-run"]);
    assert!(said.contains("renewal-hooks/post/haproxy-certs (certbot's hook"), "{said}");
    for other in
        ["the sites directory", "the host certificate", "let HAProxy load", "deploy the certificates"]
    {
        assert!(!said.contains(other), "{other}: {said}");
    }
    assert!(said.contains("left to do publish to the fleet edge for the first time"), "{said}");
    let command = format!("-> haproxy-certs --config {} fleet publish", fleet.publisher.config().display());
    assert!(said.contains(&command), "{said}");
    let before = findings(&fleet.publisher, "fleet");
    assert!(before[0].0 == "warning" && before[0].1.contains("has no keys yet"), "{before:?}");
    fleet.publish();
    // Something publishes twice a day: the timer where it is installed, else what the operator makes of it.
    let (timer, cron) = ("systemctl enable", "from cron");
    let said = init(&fleet.publisher, &["--hook", "--dry-run"]);
    assert!(!said.contains("for the first time") && !said.contains(timer), "{said}");
    assert!(said.contains(cron) && said.contains("-q fleet publish"), "{said}");
    let host = Host { units: &["haproxy-certs-publish.service"], ..Host::default() };
    let said = host.run(&fleet.publisher, &["init", "--hook", "--dry-run"]).exits(0).stdout;
    assert!(said.contains("-> systemctl enable --now haproxy-certs-publish.timer"), "{said}");
    assert!(!said.contains(cron), "{said}");
    let after = findings(&fleet.publisher, "fleet");
    assert!(after[0].0 == "ok" && after[0].1.contains("the publisher, without a HAProxy, of"), "{after:?}");
    assert!(after[1].1.contains("haproxy-certs-publish.timer"), "{after:?}");
    // What is HAProxy's isn't looked for, what is certbot's is.
    assert_eq!(findings(&fleet.publisher, "crt"), []);
    assert_eq!(findings(&fleet.publisher, "timer"), []);
    assert_eq!(findings(&fleet.publisher, "hook").len(), 1);
    // It is made, and makes nothing more: a run goes on publishing only.
    init(&fleet.publisher, &["--hook"]);
    assert!(fleet.tree.root().join("renewal-hooks/post/haproxy-certs").is_symlink());
    fleet.renew("a.example");
    let said = fleet.publisher.run(&["assemble"]).exits(0).stdout;
    assert!(said.contains("edge is at number 2"), "{said}");
    assert!(!fleet.publisher.sites().exists());
}

/// What `status` says in every form, without the help of the metrics and the style of the page, which are the same
/// everywhere.
fn said(cmd: &Cmd, exit: i32) -> String {
    let forms = ["human", "html", "json", "monitoring", "prometheus"];
    let of = |form: &&str| cmd.run(&["status", "-v", "--setup", "--format", form]).exits(exit).stdout;
    let text = forms.iter().map(of).collect::<Vec<_>>().join("\n");
    let (head, rest) = text.split_once("<style>").unwrap();
    let text = format!("{head}{}", rest.split_once("</style>").unwrap().1);
    text.lines().filter(|line| !line.starts_with("# ")).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_publisher_without_a_haproxy_is_judged_by_what_it_published() {
    let mut fleet = Fleet::new(1);
    fleet.issue("a.example");
    fleet.issue("b.example");
    let said_briefly = |fleet: &Fleet, exit| fleet.publisher.run(&["status"]).exits(exit).stdout;
    let command = format!("haproxy-certs --config {} fleet publish", fleet.publisher.config().display());

    // Nothing is published yet.
    let before = said_briefly(&fleet, 2);
    assert_eq!(
        before.matches("not-published: certbot has a certificate, and it is not published").count(),
        2
    );
    assert!(before.contains(&command) && before.contains("Fleet edge: nothing is published yet"), "{before}");
    assert!(before.contains("2 of 2 lineages not in step: 2 not-published"), "{before}");

    // All is well, and nothing of it is about a HAProxy or about files.
    fleet.publish();
    init(&fleet.publisher, &["--hook"]);
    let text = said(&fleet.publisher, 0);
    assert!(text.contains("OK - 2 lineages in step; a.example expires first"), "{text}");
    assert!(
        text.contains("Last run: ") && text.contains("everything published, 2 lineages changed"),
        "{text}"
    );
    assert!(text.contains("Fleet edge: number 1 of ") && text.contains("LINEAGE"), "{text}");
    assert!(text.contains("place=\"fleet\"") && text.contains("certificates for a fleet"), "{text}");
    for other in [
        "deploy",
        "disk-",
        "missing",
        "DISK",
        "HAPROXY",
        "unseen: ",
        "[[haproxy]]",
        "haproxy_seen{",
        "place=\"disk\"",
        ".pem",
        "host certificate",
        "sites directory",
        ">disk<",
        ">HAProxy<",
    ] {
        assert!(!text.contains(other), "{other}: {text}");
    }
    let report = fleet.publisher.run(&["status", "--format", "json"]).json();
    assert_eq!(report["haproxy"], serde_json::json!([]));
    assert_eq!((&report["sites_dir"], &report["fleet"]["sequence"]), (&Value::Null, &Value::from(1)));
    let site = &report["sites"][0];
    assert_eq!((&site["disk_state"], &site["fleet_state"]), (&Value::Null, &Value::from("current")));
    assert_eq!((&site["file"], &site["fleet"]["sha256"]), (&Value::Null, &site["certbot"]["sha256"]));

    // A renewal and a deletion that nothing followed.
    let old = report["sites"][0]["certbot"]["serial"].as_str().unwrap().to_owned();
    fleet.renew("a.example");
    fleet.delete("b.example");
    let report = fleet.publisher.run(&["status", "--format", "json"]).json();
    let kinds: Vec<&Value> = [0, 1].map(|at| &report["sites"][at]["problems"][0]).into();
    assert_eq!(kinds, ["not-published"; 2], "{report}");
    let text = said_briefly(&fleet, 1);
    assert!(text.contains(&format!("not-published: serial {}", &old[..12])), "{text}");
    assert!(text.contains("the lineage is gone, and it is still published"), "{text}");
    assert_eq!(text.matches(&command).count(), 2, "{text}");
    fleet.publisher.run(&["assemble"]).exits(0);
    let text = said_briefly(&fleet, 0);
    assert!(text.contains("everything published, 2 lineages changed"), "{text}");

    // What is refused stays as it was published.
    fleet.renew("a.example");
    fleet.tree.overwrite("a.example", Kind::Privkey, Key::fresh(KeyKind::P256).pem());
    fleet.publisher.run(&["fleet", "publish"]).exits(1);
    let text = said_briefly(&fleet, 1);
    assert!(text.contains("key-mismatch: ") && text.contains("some lineages not published"), "{text}");
    fleet.renew("a.example");

    // The last run failed.
    let (store, aside) = (fleet.folder(), fleet.place.path().join("aside"));
    fs::rename(&store, &aside).unwrap();
    fleet.publisher.run(&["assemble"]).exits(3);
    let text = said_briefly(&fleet, 1);
    assert!(text.contains("run-failed: the last run failed ") && text.contains("not-published"), "{text}");
    assert!(!text.contains("assemble"), "{text}");
    fs::rename(&aside, &store).unwrap();
    fleet.publish();
    said_briefly(&fleet, 0);

    // What is published is in use elsewhere: its end is as bad as that of what is deployed.
    fleet.tree.issue("late.example", KeyKind::P256, &["late.example"], Validity::left(0.05));
    fleet.publish();
    let text = said_briefly(&fleet, 2);
    assert!(text.contains("CRIT late.example") && text.contains("expires-soon: "), "{text}");
    fleet.delete("late.example");
    fleet.publish();

    // What this host has of the fleet can't be used.
    let pages = fleet.publisher.beside("cache/page");
    fs::rename(&pages, &aside).unwrap();
    fs::create_dir(&pages).unwrap();
    let text = said_briefly(&fleet, 3);
    assert!(
        text.contains("what is published can't be seen") && text.contains("fleet publish mends"),
        "{text}"
    );
    fleet.publish();
    said_briefly(&fleet, 0);

    // certbot's tree is gone.
    fs::rename(fleet.tree.live(), aside.with_extension("live")).unwrap();
    let text = said_briefly(&fleet, 1);
    assert!(
        text.split_whitespace().collect::<Vec<_>>().join(" ").contains("what was published from it stays"),
        "{text}"
    );
    assert!(!fleet.publisher.sites().exists());
}

#[test]
fn what_a_publisher_has_of_haproxy_is_looked_after_once_it_is_named() {
    let mut fleet = Fleet::new(1);
    fleet.issue("a.example");
    fleet.publish();
    // One that comes with its package and loads nothing of ours changes nothing: what is advised on such a host can be
    // pasted, and it is as well as before.
    let sites = fleet.publisher.sites();
    let other = "frontend f\n    bind 127.0.0.1:1\n";
    let host = Host { configuration: Some(other), ..Host::default() };
    let said = host.run(&fleet.publisher, &["status", "--setup"]).exits(1).stdout;
    assert!(said.contains(" init --hook\n"), "{said}");
    let said = host.run(&fleet.publisher, &["init", "--hook"]).exits(0).stdout;
    assert!(said.contains("left to do only if the HAProxy of this host is to serve"), "{said}");
    assert!(!sites.exists() && !fleet.publisher.beside("host.pem").exists(), "{said}");
    host.run(&fleet.publisher, &["status", "--setup"]).exits(0);
    host.run(&fleet.publisher, &["assemble"]).exits(0);
    // A HAProxy loads the sites directory, and no run fills it.
    let text = format!("frontend f\n    bind 127.0.0.1:1 ssl crt {}\n", sites.display());
    let host = Host { configuration: Some(&text), units: &["haproxy-certs-publish.service"] };
    let text = host.run(&fleet.publisher, &["status"]).stdout;
    assert!(text.contains("settings-broken: HAProxy loads ") && text.contains("haproxy-certs"), "{text}");
    assert!(text.contains(" init\n"), "{text}");
    // What that makes is run by what runs on every host.
    let said = host.run(&fleet.publisher, &["init", "--dry-run"]).exits(0).stdout;
    assert!(said.contains("(the sites directory)") && said.contains("-q assemble\n"), "{said}");
    assert!(!said.contains("haproxy-certs-publish.timer") && !said.contains("only if the HAProxy"), "{said}");
    // Where it can't be seen what is in the sites directory it isn't taken for empty.
    symlink(&sites, &sites).unwrap();
    let found = findings(&fleet.publisher, "fleet");
    assert!(found[0].1.contains("the publisher of the fleet"), "{found:?}");
    fs::remove_file(&sites).unwrap();
    // As soon as it counts as one that has a HAProxy, it is judged by that.
    fs::create_dir_all(sites.join(".haproxy-certs")).unwrap();
    let text = fleet.publisher.run(&["status"]).exits(2).stdout;
    assert!(text.contains("disk-missing") && text.contains("DISK"), "{text}");
}

#[test]
fn a_run_of_a_publisher_without_a_haproxy_promises_no_file() {
    let mut fleet = Fleet::new(1);
    fleet.issue("a.example");
    let dry = fleet.publisher.run(&["assemble", "--dry-run"]).exits(0);
    assert_eq!(
        dry.stdout,
        "note       this host only publishes; haproxy-certs status says what isn't published yet\n"
    );
    // One object, also where something failed.
    let report = fleet.publisher.assemble(&[]).exits(0).json();
    assert_eq!((&report["error"], &report["sites"]), (&Value::Null, &serde_json::json!([])));
    fs::remove_dir_all(fleet.folder()).unwrap();
    let report = fleet.publisher.assemble(&[]).exits(3).json();
    assert!(report["error"]["message"].as_str().unwrap().contains("the fleet's store"), "{report}");
}

#[test]
fn a_node_gets_keys_and_a_service_and_no_certbot() {
    let mut fleet = Fleet::new(1);
    fleet.issue("a.example");
    fleet.publish();
    fleet.tell_nodes("");
    let node = &fleet.nodes[0].cmd;
    let (identity, aside) = (node.beside("identity"), node.beside("aside"));
    fs::rename(&identity, &aside).unwrap();
    let said = node.run(&["init", "--hook", "--dry-run"]).exits(0).stdout;
    for other in ["hook", "certbot", "issue the first"] {
        assert!(!said.contains(other), "{other}: {said}");
    }
    assert!(said.contains("the sites directory") && said.contains("the host certificate"), "{said}");
    let command = format!("-> haproxy-certs --config {} fleet join", node.config().display());
    assert!(said.contains(&command), "{said}");
    // Something follows: the service where it is installed.
    assert!(said.contains("from cron") && said.contains("-q fleet follow --once\n"), "{said}");
    let host = Host { units: &["haproxy-certs-follow.service"], ..Host::default() };
    let said = host.run(node, &["init", "--dry-run"]).exits(0).stdout;
    assert!(said.contains("-> systemctl enable --now haproxy-certs-follow.service"), "{said}");
    assert!(!said.contains("from cron"), "{said}");
    let before = findings(node, "fleet");
    assert!(before[0].0 == "warning" && before[0].1.contains("has no keys yet"), "{before:?}");
    fs::rename(&aside, &identity).unwrap();
    let said = node.run(&["init", "--dry-run"]).exits(0).stdout;
    assert!(!said.contains("fleet join"), "{said}");
    let after = findings(node, "fleet");
    assert!(after[0].0 == "ok" && after[0].1.contains("this host is a node of the fleet edge"), "{after:?}");
    assert!(after[1].1.contains("haproxy-certs-follow.service"), "{after:?}");
    for name in ["hook", "timer", "renewal"] {
        assert_eq!(findings(node, name), [], "{name}");
    }
}

/// The units of a host whose places aren't the default ones are told of them, and the cache is made, where they can't.
#[test]
fn the_followers_units_are_told_of_other_places() {
    let mut fleet = Fleet::new(1);
    fleet.issue("a.example");
    fleet.publish();
    fleet.tell_nodes("");
    let host_file = format!("host_file = {}", toml(&fleet.nodes[0].cmd.beside("host.pem")));
    let Node { cmd, .. } = fleet.nodes.remove(0);
    let node = &cmd.option(&host_file);
    let units = tempfile::tempdir().unwrap();
    let names = ["haproxy-certs-follow.service", "haproxy-certs-follow-once.service"];
    for name in names {
        let packaged = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging");
        fs::copy(Path::new(packaged).join(name), units.path().join(name)).unwrap();
    }
    let init = || {
        let script = "mount --bind \"$1\" /etc/systemd/system && shift && exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", script, "sh"]).arg(units.path()).arg(Cmd::program());
        command.arg("--config").arg(node.config()).arg("init");
        node.prepare(&mut command);
        let output = finish(&mut command, LIMIT);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let said = init();
    assert!(said.contains("(the fleet's cache)"), "{said}");
    assert!(node.beside("cache").is_dir());
    for name in names {
        assert!(said.contains(&format!("(tells {name} of these directories)")), "{said}");
        let text = fs::read_to_string(units.path().join(format!("{name}.d/paths.conf"))).unwrap();
        let has = |line: String| assert!(text.lines().any(|it| it == line), "{line}: {text}");
        let sites = node.sites();
        has(format!("ReadWritePaths={}", sites.parent().unwrap().display()));
        has(format!("ReadWritePaths=-{}", node.beside("cache").display()));
        has(format!("ReadWritePaths=-{}", fleet.folder().display()));
        has(format!("ConditionPathExists={}", node.beside("identity").display()));
        has("PrivateTmp=no".to_owned());
        // systemd understands each line.
        let mut verify = Command::new("systemd-analyze");
        verify.args(["verify", "--man=no"]).arg(units.path().join(name));
        let verified = String::from_utf8(finish(&mut verify, LIMIT).stderr).unwrap();
        assert!(!verified.contains("paths.conf"), "{verified}");
    }
    let again = init();
    assert!(!again.contains("made "), "{again}");
}

#[test]
fn what_a_host_is_in_a_fleet_has_to_be_said() {
    let mut fleet = Fleet::new(0);
    fleet.tell_publisher();
    let said = fleet.publisher.run(&["init", "--dry-run"]).exits(0).stdout;
    assert!(said.contains("say what this host is in the fleet edge"), "{said}");
    let found = findings(&fleet.publisher, "fleet");
    assert!(found.len() == 1 && found[0].0 == "warning", "{found:?}");
}
