//! What is in `packaging/` for monitoring, judged by the programs that read it: the alerts by `promtool test rules`, the
//! dashboard's queries by a Prometheus. All metrics are those that the program prints for real trees and `HAProxy`s.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "test code may fail loudly"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use serde_json::Value;
use support::fleet::Fleet;
use support::process::Running;
use support::promtool::{judge, series, taken};
use support::{Cmd, Haproxy, Key, KeyKind, Kind, LIMIT, Port, Tree, Validity, system_haproxy, wait_until};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

fn packaging(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging").join(path)
}

fn metrics(cmd: &Cmd) -> String {
    cmd.run(&["status", "--format", "prometheus"]).stdout
}

/// A tree with two lineages, a HAProxy that has them, and a run.
fn healthy() -> (Tree, Cmd, Haproxy) {
    let mut tree = Tree::new();
    for name in ["a.example", "b.example"] {
        tree.issue(name, KeyKind::P256, &[name], Validity::days(90));
    }
    let cmd = Cmd::new(tree.live());
    cmd.run(&["assemble", "--reload", "none"]).exits(0);
    let haproxy = Haproxy::of(&system_haproxy()).crt(cmd.sites()).start();
    let cmd = cmd.haproxy(&haproxy, "");
    cmd.run(&["assemble"]).exits(0);
    (tree, cmd, haproxy)
}

#[test]
fn promtool_takes_the_alerts() {
    let judged =
        Command::new("promtool").args(["check", "rules"]).arg(packaging("prometheus/alerts.yml")).output();
    let judged = judged.expect("promtool is one of the packages that tests/install installs");
    assert!(judged.status.success(), "{judged:?}");
    let text = fs::read_to_string(packaging("prometheus/alerts.yml")).unwrap();
    let alerts = text.matches("- alert: ").count();
    for each in ["summary: ", "description: ", "runbook: ", "labels: {severity: "] {
        assert_eq!(text.matches(each).count(), alerts, "{each}");
    }
    // Every metric is one that there is.
    let source = concat!(
        include_str!("../src/output/status/prometheus.rs"),
        include_str!("../src/output/fleet/prometheus.rs")
    );
    for word in text.split(|letter: char| !letter.is_alphanumeric() && letter != '_') {
        if let Some(name) = word.strip_prefix("haproxy_certs_") {
            assert!(source.contains(&format!("\"{name}\"")), "{word}");
        }
    }
}

#[test]
fn where_all_is_well_nothing_fires_until_renewals_stop() {
    let (_tree, cmd, _haproxy) = healthy();
    let metrics = metrics(&cmd);
    // Runs and statuses go on; certbot doesn't renew.
    let goes_on = ["status_timestamp", "last_run_timestamp", "last_success_timestamp"];
    let soon: Vec<_> = ["a.example.pem", "b.example.pem"]
        .into_iter()
        .flat_map(|file| [("ExpiresSoon", file.to_owned()), ("ExpiresSoon", format!("{file}haproxy"))])
        .collect();
    let soon: Vec<(&str, &str)> = soon.iter().map(|(alert, about)| (*alert, about.as_str())).collect();
    let end: Vec<(&str, &str)> =
        soon.iter().flat_map(|&(soon, about)| [(soon, about), ("Expires", about)]).collect();
    let hours = |days: i64| days * DAY / HOUR;
    judge(
        60,
        &series(&metrics, 60, hours(100), &goes_on),
        &[
            (1, &[]),
            (hours(60), &[]),
            (hours(67), &[]),
            (hours(70), &soon),
            (hours(85), &end),
            (hours(95), &end),
        ],
    );
    // Nothing goes on.
    judge(
        15,
        &series(&metrics, 15, 48, &[]),
        &[(1, &[]), (2, &[("MetricsOld", "")]), (40, &[("MetricsOld", ""), ("NoRun", "")])],
    );
}

#[test]
fn what_is_wrong_fires_and_says_of_what() {
    let (mut tree, cmd, mut haproxy) = healthy();
    for (name, validity) in [("old.example", Validity::expired()), ("soon.example", Validity::left(0.2))] {
        tree.issue(name, KeyKind::P256, &[name], validity);
    }
    cmd.run(&["assemble"]);
    tree.overwrite("b.example", Kind::Privkey, Key::fresh(KeyKind::P256).pem());
    tree.renew("a.example");
    cmd.run(&["assemble", "--defer-reload"]);
    let seen = metrics(&cmd);
    let goes_on = ["status_timestamp", "last_run_timestamp"];
    let known = [
        ("ExpiresSoon", "old.example.pem"),
        ("ExpiresSoon", "soon.example.pem"),
        ("ExpiresSoon", "old.example.pemhaproxy"),
        ("ExpiresSoon", "soon.example.pemhaproxy"),
        ("Expires", "old.example.pem"),
        ("Expires", "old.example.pemhaproxy"),
        ("NotInStep", "a.example.pemhaproxy"),
        ("Refused", "b.example.pem"),
        ("Pending", "haproxy"),
    ];
    assert!(seen.contains("place=\"haproxy\""), "{seen}");
    judge(15, &series(&seen, 15, 8, &goes_on), &[(0, &[]), (3, &known)]);

    // Neither what has expired nor a lineage that is gone takes its metrics away while the file is there.
    tree.delete("old.example");
    let gone = metrics(&cmd);
    let line = "haproxy_certs_certificate_not_after_timestamp_seconds{lineage=\"old.example\",file=\"old.example.pem\",\
                place=\"haproxy\"";
    assert!(seen.contains(line) && gone.contains("file=\"old.example.pem\",place=\"haproxy\""), "{gone}");

    haproxy.kill();
    let down = metrics(&cmd);
    assert!(down.contains("haproxy_certs_haproxy_down{haproxy=\"haproxy\"} 1"), "{down}");
    let kept: String = down.lines().filter(|line| line.contains("haproxy_down{")).collect();
    let kept = format!("{kept}\nhaproxy_certs_status_timestamp_seconds {}", taken(&down));
    judge(15, &series(&kept, 15, 4, &goes_on), &[(0, &[]), (2, &[("HaproxyDown", "haproxy")])]);
    let broken = cmd.option("no_such = 1");
    let file = broken.beside("broken.prom");
    broken.run(&["status", "--textfile", file.to_str().unwrap()]).exits(3);
    let unknown = fs::read_to_string(&file).unwrap();
    judge(15, &series(&unknown, 15, 4, &goes_on), &[(0, &[]), (2, &[("Unknown", "")])]);
}

#[test]
fn what_never_ran_and_what_never_succeeded_fires() {
    let mut tree = Tree::new();
    tree.issue("a.example", KeyKind::P256, &["a.example"], Validity::days(90));
    let cmd = Cmd::new(tree.live());
    cmd.run(&["assemble", "--reload", "none"]).exits(0);
    let record = cmd.sites().join(".haproxy-certs/last-run.json");
    fs::remove_file(&record).unwrap();
    let goes_on = ["status_timestamp"];
    let only_runs = |metrics: &str| {
        let is_kept = |line: &&str| line.contains("_certs_last_") || line.contains("_certs_status_timestamp");
        metrics.split_inclusive('\n').filter(is_kept).collect::<String>()
    };
    let never = only_runs(&metrics(&cmd));
    assert!(never.contains("haproxy_certs_last_run_timestamp_seconds 0\n"), "{never}");
    judge(15, &series(&never, 15, 4, &goes_on), &[(0, &[]), (1, &[("NoRun", "")])]);

    // The first run that is recorded fails.
    let broken = cmd.sites().join("a.example.pem");
    fs::remove_file(&broken).unwrap();
    fs::create_dir(&broken).unwrap();
    assert!(cmd.run(&["assemble", "--reload", "none"]).code >= Some(1));
    let text = fs::read_to_string(&record).unwrap();
    let mut run: Value = serde_json::from_str(&text).unwrap();
    run["exit"] = 2.into();
    fs::write(&record, run.to_string()).unwrap();
    let failed = only_runs(&metrics(&cmd));
    assert!(failed.contains("haproxy_certs_last_success_timestamp_seconds 0\n"), "{failed}");
    judge(15, &series(&failed, 15, 4, &goes_on), &[(0, &[]), (1, &[("RunFails", "")])]);

    // On a host that has nothing to deploy nothing is missed.
    let empty = Cmd::new(Tree::new().live());
    assert!(!metrics(&empty).contains("haproxy_certs_last_run_timestamp_seconds"));
}

/// A publisher without a HAProxy: its runs publish, and the nodes have what it published.
#[test]
fn a_publisher_is_woken_by_what_it_does_not_publish() {
    let mut fleet = Fleet::new(1);
    fleet.issue("a.example");
    fleet.publish();
    let well = metrics(&fleet.publisher);
    let goes_on = ["status_timestamp", "last_run_timestamp", "last_success_timestamp"];
    let hours = |days: i64| days * DAY / HOUR;
    let (soon, end) = (("ExpiresSoon", "a.example"), ("Expires", "a.example"));
    judge(
        60,
        &series(&well, 60, hours(100), &goes_on),
        &[(1, &[]), (hours(60), &[]), (hours(70), &[soon]), (hours(85), &[end, soon])],
    );
    judge(15, &series(&well, 15, 48, &["status_timestamp"]), &[(35, &[]), (40, &[("NoRun", "")])]);

    let late = ("NotInStep", "a.example");
    fleet.renew("a.example");
    let behind = metrics(&fleet.publisher);
    judge(15, &series(&behind, 15, 4, &goes_on), &[(0, &[]), (2, &[late])]);
    fs::remove_dir_all(fleet.folder()).unwrap();
    fleet.publisher.run(&["fleet", "publish"]).exits(3);
    let failed =
        series(&metrics(&fleet.publisher), 15, hours(4), &["status_timestamp", "last_run_timestamp"]);
    judge(15, &failed, &[(2, &[late]), (hours(3) + 1, &[late, ("RunFails", "")])]);

    // Neither is a HAProxy missed there, nor a file.
    for other in ["place=\"disk\"", "place=\"haproxy\"", "haproxy_down{", "haproxy_seen{", "reload_owed{"] {
        assert!(!behind.contains(other), "{other}: {behind}");
    }
}

// ---- the dashboard ----------------------------------------------------------------------------------------------

/// A Prometheus that scrapes this text every second.
struct Prometheus {
    port: Port,
    _process: Running,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    fn of(metrics: String) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let target = listener.local_addr().unwrap();
        // It ends with the test's process.
        thread::spawn(move || {
            for mut connection in listener.incoming().flatten() {
                let mut asked = BufReader::new(connection.try_clone().unwrap()).lines();
                while asked.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
                let head =
                    "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close\r\n";
                let _ = write!(connection, "{head}Content-Length: {}\r\n\r\n{metrics}", metrics.len());
            }
        });
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("prometheus.yml");
        let text = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs:\n  - job_name: node\n    static_configs:\n      \
             - targets: ['{target}']\n        labels: {{instance: lb1}}\n"
        );
        fs::write(&config, text).unwrap();
        let port = Port::free();
        let process = Running::start("prometheus", |command| {
            let log = fs::File::create(folder.path().join("log")).unwrap();
            command
                .arg(format!("--config.file={}", config.display()))
                .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
                .arg(format!("--web.listen-address={}", port.address()))
                .stdout(Stdio::null())
                .stderr(log)
        });
        let prometheus = Self { port, _process: process, _folder: folder };
        wait_until(LIMIT, "Prometheus has scraped", || !prometheus.ask("haproxy_certs_state").is_empty());
        prometheus
    }

    /// What a query gives now: labels and values.
    fn ask(&self, query: &str) -> Vec<(BTreeMap<String, String>, f64)> {
        let url = format!("http://{}/api/v1/query", self.port.address());
        let output = Command::new("curl")
            .args(["-sSG", &url, "--data-urlencode"])
            .arg(format!("query={query}"))
            .output();
        let Ok(answer) = serde_json::from_slice::<Value>(&output.unwrap().stdout) else { return Vec::new() };
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        let labels = |sample: &Value| serde_json::from_value(sample["metric"].clone()).unwrap();
        let value = |sample: &Value| sample["value"][1].as_str().unwrap().parse().unwrap();
        let samples = answer["data"]["result"].as_array().unwrap();
        samples.iter().map(|sample| (labels(sample), value(sample))).collect()
    }
}

/// Each panel is asked for the same moment as `status --format json`, and must give what its title says.
#[test]
fn each_query_of_the_dashboard_gives_what_its_panel_says() {
    let (mut tree, cmd, _haproxy) = healthy();
    tree.issue("mail.example", KeyKind::P256, &["mail.example"], Validity::left(0.2));
    cmd.run(&["assemble"]).exits(0);
    tree.overwrite("b.example", Kind::Privkey, Key::fresh(KeyKind::P256).pem());
    tree.renew("a.example");
    cmd.run(&["assemble", "--defer-reload"]).exits(1);
    let report = cmd.run(&["status", "--format", "json"]).json();
    let prometheus = Prometheus::of(metrics(&cmd));

    let board: Value =
        serde_json::from_slice(&fs::read(packaging("grafana/haproxy-certs.json")).unwrap()).unwrap();
    let mut asked = BTreeMap::new();
    for panel in board["panels"].as_array().unwrap() {
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{panel}");
        for target in panel["targets"].as_array().unwrap() {
            let query = target["expr"].as_str().unwrap().replace("$instance", "lb1|");
            assert!(!query.contains('$'), "{query}");
            let given = prometheus.ask(&query);
            assert!(!given.is_empty(), "{query} gives nothing");
            asked.insert(panel["title"].as_str().unwrap().to_owned(), given);
        }
    }
    let mut left = asked.clone();
    let mut given = |title: &str| left.remove(title).unwrap_or_else(|| panic!("no panel {title}"));
    let only = |samples: Vec<(BTreeMap<String, String>, f64)>| {
        assert_eq!(samples.len(), 1, "{samples:?}");
        samples[0].1
    };
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let seconds =
        |text: &Value| OffsetDateTime::parse(text.as_str().unwrap(), &Rfc3339).unwrap().unix_timestamp();
    let sites = report["sites"].as_array().unwrap();
    let ends =
        |site: &Value| seconds(&site["disk"]["not_after"]).min(seconds(&site["haproxy"][0]["not_after"]));
    let near = |a: f64, b: i64| (a - f64::from(i32::try_from(b).unwrap())).abs() < 120.0;
    let number = |value: usize| f64::from(u32::try_from(value).unwrap());

    let is = |a: f64, b: f64| (a - b).abs() < 1e-6;
    assert!(is(only(given("State")), 2.0), "critical: a pending notification");
    let first = sites.iter().map(ends).min().unwrap() - now;
    assert!(near(only(given("First to expire, in")), first), "{asked:?}");
    assert!(is(only(given("HAProxys with a pending notification")), 1.0));
    assert!(only(given("Since the last run")) < 120.0);
    let life = given("Life left");
    assert_eq!(life.len(), sites.len(), "{life:?}");
    for (labels, share) in life {
        let expected = if labels["file"] == "mail.example.pem" { 0.2 } else { 1.0 };
        assert!((share - expected).abs() < 0.01, "{labels:?} {share}");
    }
    let places = given("The three places");
    for (labels, in_step) in &places {
        let site = sites.iter().find(|site| site["file"] == labels["file"].as_str()).unwrap();
        let state = match labels["place"].as_str() {
            "certbot" => &site["certbot_state"],
            "disk" => &site["disk_state"],
            _ => &site["haproxy"][0]["state"],
        };
        assert!(is(*in_step, if state == "current" { 1.0 } else { 0.0 }), "{labels:?} {site}");
    }
    let stale = places.iter().filter(|(_, in_step)| is(*in_step, 0.0)).count();
    assert_eq!((places.len(), stale), (3 * sites.len(), 1), "{places:?}");
    let problems: Vec<String> =
        given("Problems").into_iter().map(|(labels, _)| labels["problem"].clone()).collect();
    for problem in ["haproxy-stale", "key-mismatch", "expires-soon"] {
        assert!(problems.iter().any(|it| it == problem), "{problem} in {problems:?}");
    }
    for (labels, milliseconds) in given("Certificates in use") {
        let site = sites.iter().find(|site| site["file"] == labels["file"].as_str()).unwrap();
        assert!(near(milliseconds / 1000.0, ends(site)), "{labels:?} {milliseconds}");
    }
    assert!(is(only(given("HAProxys that don't run")), 0.0));
    assert!(is(only(given("HAProxys that can be seen")), number(1)));
    assert!(is(only(given("Exit status of the last run")), 1.0));
    assert!(left.is_empty(), "not judged: {left:?}");
}

/// A row of panels none of which hides another.
#[test]
fn the_dashboards_panels_lie_side_by_side() {
    let board: Value =
        serde_json::from_slice(&fs::read(packaging("grafana/haproxy-certs.json")).unwrap()).unwrap();
    let (mut cells, mut ids) = (BTreeSet::new(), BTreeSet::new());
    for panel in board["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_i64().unwrap()), "{panel}");
        let number = |key: &str| panel["gridPos"][key].as_i64().unwrap();
        assert!(number("x") + number("w") <= 24, "{panel}");
        for x in number("x")..number("x") + number("w") {
            for y in number("y")..number("y") + number("h") {
                assert!(cells.insert((x, y)), "{panel}");
            }
        }
    }
}

// ---- plugins ----------------------------------------------------------------------------------------------------

/// What Icinga and Checkmk run, and what they read of it: one line of text, a bar, `label=value[unit];warn;crit;min` each
/// (<https://www.monitoring-plugins.org/doc/guidelines.html>, "Performance data").
#[test]
fn the_plugins_commands_print_what_they_read() {
    let (_tree, cmd, _haproxy) = healthy();
    let mrpe = fs::read_to_string(packaging("checkmk/mrpe.cfg")).unwrap();
    let line = mrpe.lines().find(|line| !line.starts_with('#')).unwrap();
    let mut words = line.split(' ');
    assert!(
        words.next().is_some_and(|name| !name.is_empty()) && words.next() == Some("(interval=900)"),
        "{line}"
    );
    assert_eq!(words.next(), Some("/usr/bin/haproxy-certs"));
    let checkmk: Vec<&str> = words.collect();

    let icinga = fs::read_to_string(packaging("icinga2/haproxy-certs.conf")).unwrap();
    let command = icinga.lines().find_map(|line| line.trim().strip_prefix("command = [ ")).unwrap();
    let quoted: Vec<&str> = command.split('"').skip(1).step_by(2).collect();
    assert_eq!(quoted[..3], ["/usr/bin/sudo", "-n", "/usr/bin/haproxy-certs"]);
    let icinga: Vec<&str> = [&quoted[3..], &["--setup", "--color", "never"]].concat();

    for arguments in [checkmk, icinga] {
        let run = cmd.run(&arguments);
        assert!(run.stderr.is_empty() && matches!(run.code, Some(0..=3)), "{run}");
        let (text, data) = run.stdout.lines().next().unwrap().split_once('|').unwrap();
        let state = text.split(" - ").next().unwrap();
        let states = ["OK", "WARNING", "CRITICAL", "UNKNOWN"];
        assert_eq!(
            states.iter().position(|it| *it == state),
            run.code.map(|code| code.try_into().unwrap()),
            "{run}"
        );
        assert_eq!(run.stdout.matches('|').count(), 1, "{run}");
        for each in data.split(' ') {
            let (label, value) = each.split_once('=').unwrap();
            let number = value.split(';').next().unwrap().trim_end_matches('s');
            assert!(!label.contains('\'') && number.parse::<i64>().is_ok(), "{each}");
        }
    }
}
