//! What the integration tests stand on: real `HAProxy`s, trees as certbot makes them, a real certbot with its own CA,
//! and the program itself. A crate of its own, which is compiled once for all of them.
//!
//! Everything lives in temporary directories and on loopback ports of its own, and ends with the value that started
//! it, also when a test panics. Nothing here assumes a duration: [`wait_until`] waits for conditions.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_errors_doc,
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    clippy::new_without_default,
    clippy::return_self_not_must_use,
    clippy::case_sensitive_file_extension_comparisons,
    clippy::format_collect,
    clippy::similar_names,
    reason = "test code may fail loudly"
)]

pub mod acme;
pub mod built;
pub mod cmd;
pub mod etcd;
pub mod fakes;
pub mod fleet;
pub mod haproxy;
pub mod live;
pub mod memory;
pub mod middleman;
pub mod name_server;
pub mod network;
pub mod page;
pub mod pki;
pub mod ports;
pub mod process;
pub mod promtool;
pub mod scene;
pub mod strace;
pub mod summary;
pub mod tls;
pub mod tree;

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

pub use acme::{Certbot, Pebble, newest_certbot, unpacked};
pub use cmd::{Cmd, Run};
pub use etcd::{Etcd, EtcdSetup, etcds, newest_etcd};
pub use haproxy::{Haproxy, Reload, Version, system_haproxy, version, versions};
pub use name_server::NameServer;
pub use pki::{Authority, Key, KeyKind, Leaf, Validity};
pub use ports::Port;
pub use tls::{ServedCertificate, s_client, served, try_served};
pub use tree::{Kind, Tree};

/// How long a condition may take that normally holds in well under a second: the machine may be busy.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Waits until a file that was just written is older than whatever is started from now on: procfs tells when that was by
/// hundredths of a second.
#[track_caller]
pub fn wait_until_it_is_older(file: impl AsRef<Path>) {
    let written = std::fs::metadata(file).unwrap().modified().unwrap();
    let is_past = || written.elapsed().is_ok_and(|ago| ago > Duration::from_millis(30));
    wait_until(LIMIT, "a later hundredth of a second", is_past);
}

/// Waits until `condition` holds; panics with `what` when it doesn't within `limit`.
#[track_caller]
pub fn wait_until(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < limit, "waited {limit:?} in vain: {what}");
        sleep(Duration::from_millis(10));
    }
}
