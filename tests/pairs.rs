//! A pair of HAProxys with a moving address: whoever gets the challenge passes it to the host with certbot.

#![allow(clippy::unwrap_used, reason = "test code may fail loudly")]

mod support;

use std::process::Command;
use std::time::Duration;

use support::Cmd;
use support::process::finish;

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
