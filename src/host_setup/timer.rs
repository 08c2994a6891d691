//! The timers: a hook alone misses deletions, repairs and, with some versions, first certificates.

use crate::host_setup::finding::Finding;
use crate::plan::client::Client;
use crate::status::unit::{self, Unit};
use crate::sys::escape::escaped;
use crate::sys::system::System;

/// What the timer starts.
const SERVICE: &str = "haproxy-certs.service";

/// What that of a publisher without a HAProxy starts.
const PUBLISHES: &str = "haproxy-certs-publish.service";

/// `client` renews the certificates: only certbot's timers are known.
pub(crate) fn findings(system: &System, client: Client) -> Vec<Finding> {
    if !system.has_systemd() || system.program("systemctl").is_none() {
        return vec![Finding::unknown(
            "timer",
            "systemd is not PID 1 here: whether something runs haproxy-certs assemble regularly can't be seen",
        )];
    }
    let mend = "systemctl enable --now haproxy-certs.timer";
    let ours = match timer(&unit::show(system, "haproxy-certs.timer").unwrap_or_default()) {
        Timer::On => Finding::fine("timer", "haproxy-certs.timer is active"),
        Timer::UntilBoot => {
            Finding::wrong("timer", "haproxy-certs.timer is active, and not after the next boot", &[mend])
        }
        Timer::Off => Finding::wrong(
            "timer",
            "haproxy-certs.timer is not active: what no hook reports is never made good",
            &[mend],
        ),
    };
    let mut findings = vec![ours, renewal(system, client)];
    findings.extend(ended(system, SERVICE));
    findings
}

/// Whether certbot renews, and how publishing ended, where something else than our timer runs us.
pub(crate) fn of_publisher(system: &System, client: Client) -> Vec<Finding> {
    if !system.has_systemd() || system.program("systemctl").is_none() {
        return Vec::new();
    }
    [Some(renewal(system, client)), ended(system, PUBLISHES)].into_iter().flatten().collect()
}

fn ended(system: &System, name: &str) -> Option<Finding> {
    service(name, &unit::show(system, name)?, || unit::missing_directory(system, name))
}

/// Whether a timer of certbot's renews.
fn renewal(system: &System, client: Client) -> Finding {
    if client != Client::Certbot {
        return Finding::unknown("renewal", "it isn't certbot that renews: what does can't be seen");
    }
    let timer = |unit: &str| timer(&unit::show(system, unit).unwrap_or_default());
    let certbots = ["certbot.timer", "snap.certbot.renew.timer", "certbot-renew.timer"];
    let failed = |unit: &str| {
        let service = unit.replace(".timer", ".service");
        let state = unit::show(system, &service).filter(Unit::has_failed)?;
        Some(Finding::wrong(
            "renewal",
            format!("{service} failed when it ran last: {}, exit status {}", state.result, state.exit),
            &[&format!("journalctl -u {service} -n 20"), &format!("systemctl start {service}")],
        ))
    };
    let seen = certbots.map(|unit| (unit, timer(unit)));
    let with = |state: Timer| seen.iter().find(|(_, seen)| *seen == state).map(|(unit, _)| *unit);
    match (with(Timer::On), with(Timer::UntilBoot)) {
        (Some(unit), _) => {
            failed(unit).unwrap_or_else(|| Finding::fine("renewal", format!("{unit} is active")))
        }
        (None, Some(unit)) => Finding::wrong(
            "renewal",
            format!("{unit} is active, and not after the next boot"),
            &[&format!("systemctl enable --now {unit}")],
        ),
        (None, None) => Finding::wrong(
            "renewal",
            "no timer of certbot is active: nothing renews, unless cron does",
            &["systemctl enable --now certbot.timer"],
        ),
    }
}

/// How a service that a timer starts ended; `None`: it has never run, or runs now. `missing`: the directory that it is skipped
/// without, where that isn't there.
fn service(name: &str, unit: &Unit, missing: impl Fn() -> Option<String>) -> Option<Finding> {
    match unit.load.as_str() {
        "loaded" if unit.has_failed() => Some(Finding::wrong(
            "service",
            format!("{name} failed when it ran last: {}, exit status {}", unit.result, unit.exit),
            &[&format!("journalctl -u {name} -n 20"), &format!("systemctl start {name}")],
        )),
        "loaded" if unit.active == "inactive" => Some(match missing() {
            Some(directory) => Finding::wrong(
                "service",
                format!("systemd skips {name}, since there is no directory {}", escaped(&directory)),
                &["haproxy-certs init"],
            ),
            None => Finding::fine("service", format!("{name} did not fail when it ran last")),
        }),
        _ => None,
    }
}

/// Whether a timer runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Timer {
    On,
    UntilBoot,
    Off,
}

fn timer(unit: &Unit) -> Timer {
    match (unit.active.as_str(), unit.file.as_str()) {
        ("active", "disabled") => Timer::UntilBoot,
        ("active", _) => Timer::On,
        _ => Timer::Off,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::severity::Severity;

    #[test]
    fn the_last_result_of_the_service_counts() {
        let unit = |active: &str, result: &str, exit| Unit {
            load: "loaded".into(),
            active: active.into(),
            result: result.into(),
            exit,
            ..Unit::default()
        };
        let failed = service(SERVICE, &unit("failed", "exit-code", 3), || None).unwrap();
        assert_eq!(failed.severity, Severity::Warning);
        assert!(failed.fact.ends_with("ran last: exit-code, exit status 3"), "{failed:?}");
        // 1 is a success of the unit: some lineages were refused, and status says which.
        assert_eq!(
            service(SERVICE, &unit("inactive", "success", 1), || None).unwrap().severity,
            Severity::Ok
        );
        let skipped =
            service(SERVICE, &unit("inactive", "success", 0), || Some("/s/.haproxy-certs".into())).unwrap();
        assert!(
            skipped.severity == Severity::Warning && skipped.fact.contains("/s/.haproxy-certs"),
            "{skipped:?}"
        );
        assert_eq!(service(SERVICE, &unit("activating", "success", 0), || None), None);
        assert_eq!(service(SERVICE, &Unit::default(), || None), None);
    }
}
