//! The timers: a hook alone misses deletions, repairs and, with some versions, first certificates.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::program::Program;
use crate::world::World;

use super::Finding;

const LIMIT: Duration = Duration::from_secs(10);

pub(super) fn findings(world: &World) -> Vec<Finding> {
    let systemctl = Some(()).filter(|()| world.has_systemd()).and_then(|()| world.program("systemctl"));
    let Some(systemctl) = systemctl else {
        return vec![Finding::unknown(
            "timer",
            "systemd is not PID 1 here: whether something runs haproxy-certs assemble regularly can't be seen",
        )];
    };
    let timer = |unit: &str| timer(&systemctl, unit);
    let mend = "systemctl enable --now haproxy-certs.timer";
    let ours = match timer("haproxy-certs.timer") {
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
    let certbots = ["certbot.timer", "snap.certbot.renew.timer", "certbot-renew.timer"];
    let seen = certbots.map(|unit| (unit, timer(unit)));
    let with = |state: Timer| seen.iter().find(|(_, seen)| *seen == state).map(|(unit, _)| *unit);
    let renewal = match (with(Timer::On), with(Timer::UntilBoot)) {
        (Some(unit), _) => Finding::fine("renewal", format!("{unit} is active")),
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
    };
    vec![ours, renewal]
}

/// Whether a timer runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Timer {
    On,
    UntilBoot,
    Off,
}

fn timer(systemctl: &Path, unit: &str) -> Timer {
    let show = ["show", "--property=ActiveState,UnitFileState", unit];
    match Program::new(systemctl).args(show).run(Instant::now() + LIMIT) {
        Ok(done) if !done.output.contains("ActiveState=active") => Timer::Off,
        Ok(done) if done.output.contains("UnitFileState=disabled") => Timer::UntilBoot,
        Ok(_) => Timer::On,
        Err(_) => Timer::Off,
    }
}
