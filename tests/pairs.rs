//! A pair of HAProxys with a moving address: whoever gets the challenge passes it to the host with certbot.

#![allow(clippy::unwrap_used, reason = "test code may fail loudly")]

use std::process::Command;
use std::time::Duration;

use support::process::finish;
use support::{Cmd, versions};

/// keepalived itself moves the address; HAProxy runs from the printed configuration; certbot issues wherever the address is.
#[test]
fn a_challenge_reaches_certbot_wherever_the_address_is() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/pair");
    let output = finish(Command::new(script).arg(Cmd::program()), Duration::from_secs(300));
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    for (name, holder) in [("a.test", "lb1"), ("b.test", "lb2")] {
        let issued = format!("{name} was issued and is served while {holder} had the address");
        assert!(said.contains(&issued), "{said}");
        assert!(said.contains(&format!("10 challenges at {holder} arrived at lb2's certbot")), "{said}");
    }
}

/// What is printed for several hosts is taken by every HAProxy, also where nobody knows their names yet; what none would take
/// is an error of the settings.
#[test]
fn every_haproxy_takes_the_printed_challenge_servers() {
    let live = tempfile::tempdir().unwrap();
    let printed = |servers: &str| {
        let cmd = Cmd::new(live.path()).without_haproxy();
        cmd.table(&format!("[certbot]\nchallenge_servers = {servers}")).run(&["haproxy-config"])
    };
    let text =
        printed("[\"192.0.2.7:54321\", \"[2001:db8::1]:54321\", \"lb2.invalid:54321\", \"localhost:54321\"]")
            .exits(0);
    // Without what can't be loaded or bound here: the certificates.
    let lines = text.stdout.lines().filter(|line| !line.trim_start().starts_with("bind :::443"));
    let lines = lines.filter(|line| !line.trim_start().starts_with("bind :443"));
    let file = live.path().join("haproxy.cfg");
    let kept: Vec<&str> = lines
        .filter(|line| !line.trim_start().starts_with("user ") && !line.trim_start().starts_with("chroot "))
        .collect();
    std::fs::write(&file, kept.join("\n") + "\n").unwrap();
    for version in versions() {
        let output = Command::new(&version.program).args(["-c", "-f"]).arg(&file).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !said.contains("[ALERT]"), "{}: {said}", version.full);
    }
    for (servers, why) in [
        ("[\"lb1\"]", "must be like"),
        ("[\"lb1:65536\"]", "must be like"),
        ("[\"unix@/run/x:1\"]", "must be like"),
        ("[\"lb1:1\", \"LB1:1\"]", "has LB1:1 twice"),
        ("[\"127.0.0.1:80\"]", "must not lead back to HAProxy"),
        ("[\"0.0.0.0:54321\"]", "is every address of one"),
    ] {
        let refused = printed(servers).exits(3);
        assert!(
            refused.stderr.contains("[certbot] challenge_servers") && refused.stderr.contains(why),
            "{refused}"
        );
    }
}
