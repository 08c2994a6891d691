//! The alerts of `packaging/prometheus/alerts.yml`, judged by `promtool test rules` on metrics that the program printed.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use super::built::PROJECT;

/// The time of a status, of a host or of a fleet.
pub fn taken(metrics: &str) -> i64 {
    let line = metrics.lines().find(|line| {
        line.starts_with("haproxy_certs_status_timestamp_seconds ")
            || line.starts_with("haproxy_certs_fleet_status_timestamp_seconds{")
    });
    line.unwrap().rsplit_once(' ').unwrap().1.parse().unwrap()
}

/// What Prometheus makes of it where it looks every `minutes`: promtool's time begins with 0. `moves` are the metrics that
/// go with the time: runs go on, say.
pub fn series(metrics: &str, minutes: i64, hours: i64, moves: &[&str]) -> String {
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
#[track_caller]
pub fn judge(minutes: i64, series: &str, expected: &[(i64, &[(&str, &str)])]) {
    let folder = tempfile::tempdir().unwrap();
    let mut text = format!(
        "rule_files: ['{}']\nevaluation_interval: {minutes}m\ntests:\n  - interval: {minutes}m\n    input_series:\n{series}    \
         promql_expr_test:\n",
        Path::new(PROJECT).join("packaging/prometheus/alerts.yml").display()
    );
    for (hour, alerts) in expected {
        let _ = writeln!(
            text,
            "      - eval_time: {hour}h\n        expr: >-\n          count by (alertname, about) (label_join(ALERTS{{alertstate=\"firing\"}}, \
             \"about\", \"\", \"file\", \"haproxy\", \"node\"))\n        exp_samples:{}",
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
