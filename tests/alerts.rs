//! What is in `packaging/` for monitoring, judged by the programs that read it: the alerts by `promtool test rules`, the
//! dashboard's queries by a Prometheus. All metrics are those that the program prints for real trees and `HAProxy`s.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "test code may fail loudly"
)]

mod support;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::{Cmd, Haproxy, Key, KeyKind, Kind, Tree, Validity, system_haproxy};

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

fn packaging(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging").join(path)
}

fn metrics(cmd: &Cmd) -> String {
    cmd.run(&["status", "--format", "prometheus"]).stdout
}

/// The time of a status.
fn taken(metrics: &str) -> i64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix("haproxy_certs_status_timestamp_seconds "));
    line.unwrap().parse().unwrap()
}

/// What Prometheus makes of it where it looks every `minutes`: promtool's time begins with 0. `moves` are the metrics that
/// go with the time: runs go on, say.
fn series(metrics: &str, minutes: i64, hours: i64, moves: &[&str]) -> String {
    let (at, steps) = (taken(metrics), hours * 60 / minutes);
    let mut text = String::new();
    for line in metrics.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        let value: i64 = value.parse().unwrap();
        let is_time = name.split('{').next().unwrap().ends_with("_timestamp_seconds");
        let value = if is_time { value - at } else { value };
        let step = if moves.iter().any(|it| name.contains(it)) { minutes * 60 } else { 0 };
        let name = name.replace('\'', "''");
        let _ = writeln!(text, "      - series: '{name}'\n        values: '{value}+{step}x{steps}'");
    }
    text
}

/// The tests for promtool: which alerts fire when, each with what it is about.
fn judge(minutes: i64, series: &str, expected: &[(i64, &[(&str, &str)])]) {
    let folder = tempfile::tempdir().unwrap();
    let mut text = format!(
        "rule_files: ['{}']\nevaluation_interval: {minutes}m\ntests:\n  - interval: {minutes}m\n    input_series:\n{series}    \
         promql_expr_test:\n",
        packaging("prometheus/alerts.yml").display()
    );
    for (hour, alerts) in expected {
        let _ = writeln!(
            text,
            "      - eval_time: {hour}h\n        expr: >-\n          count by (alertname, about) (label_join(ALERTS{{alertstate=\"firing\"}}, \
             \"about\", \"\", \"file\", \"haproxy\"))\n        exp_samples:{}",
            if alerts.is_empty() { " []" } else { "" }
        );
        for (alert, about) in *alerts {
            let about = if about.is_empty() { String::new() } else { format!(", about=\"{about}\"") };
            let _ = writeln!(
                text,
                "          - labels: '{{alertname=\"HaproxyCerts{alert}\"{about}}}'\n            value: 1"
            );
        }
    }
    let file = folder.path().join("test.yml");
    fs::write(&file, &text).unwrap();
    let judged = Command::new("promtool").args(["test", "rules"]).arg(&file).output();
    let judged = judged.expect("promtool is one of the packages that tests/install installs");
    let said = [judged.stdout, judged.stderr].concat();
    assert!(judged.status.success(), "{}\n{text}", String::from_utf8_lossy(&said));
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
    let source = include_str!("../src/output/status/prometheus.rs");
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
