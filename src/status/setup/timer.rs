//! The timers: a hook alone misses deletions, repairs and, with some versions, first certificates.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::escape::escaped;
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
    let is_active = |unit: &str| state(&systemctl, unit).is_some_and(|state| state == "active");
    let ours = if is_active("haproxy-certs.timer") {
        Finding::fine("timer", "haproxy-certs.timer is active")
    } else {
        Finding::wrong(
            "timer",
            "haproxy-certs.timer is not active: what no hook reports is never made good",
            &["systemctl enable --now haproxy-certs.timer"],
        )
    };
    let certbots = ["certbot.timer", "snap.certbot.renew.timer", "certbot-renew.timer"];
    let renewal = match certbots.into_iter().find(|unit| is_active(unit)) {
        Some(unit) => Finding::fine("renewal", format!("{} is active", escaped(unit))),
        None => Finding::wrong(
            "renewal",
            "no timer of certbot is active: nothing renews, unless cron does",
            &["systemctl enable --now certbot.timer"],
        ),
    };
    vec![ours, renewal]
}

fn state(systemctl: &Path, unit: &str) -> Option<String> {
    let done = Program::new(systemctl).args(["is-active", unit]).run(Instant::now() + LIMIT).ok()?;
    Some(done.output.trim().to_owned())
}
