//! Loopback ports that no other test has, in this process or another.

use std::collections::hash_map::RandomState;
use std::fs::{self, File};
use std::hash::BuildHasher as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};

use rustix::fs::{FlockOperation, flock};

/// A TCP and UDP port of 127.0.0.1, reserved until it is dropped.
///
/// HAProxy shares a port with another HAProxy silently (`SO_REUSEPORT`), so "bind to 0 and close again" isn't enough:
/// a lock file holds the reservation, and the ports are below those that the kernel gives to outgoing connections.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lock: File,
}

const FIRST: u16 = 20_000;
const COUNT: u16 = 10_000;
static NEXT: AtomicU16 = AtomicU16::new(0);
/// Processes start at different places, so that they seldom meet. Their ids may be the same, in namespaces.
static START: LazyLock<u32> =
    LazyLock::new(|| u32::try_from(RandomState::new().hash_one(0_u8) % u64::from(COUNT)).unwrap());

impl Port {
    /// Reserves a port.
    pub fn free() -> Self {
        // Not of TMPDIR: all tests of a machine have one.
        let folder = Path::new("/tmp/haproxy-certs-test-ports");
        fs::create_dir_all(folder).unwrap();
        // Best effort: somebody else may have made it, for everybody.
        let _ = fs::set_permissions(folder, fs::Permissions::from_mode(0o1777));
        for _ in 0..COUNT {
            let step = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
            let number = FIRST + u16::try_from((*START + step) % u32::from(COUNT)).unwrap();
            let path = folder.join(number.to_string());
            let Ok(lock) = File::options().create(true).write(true).truncate(false).open(path) else {
                continue;
            };
            if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
                continue;
            }
            let address = (Ipv4Addr::LOCALHOST, number);
            let any = (Ipv4Addr::UNSPECIFIED, number);
            if TcpListener::bind(any).is_ok() && UdpSocket::bind(address).is_ok() {
                return Self { number, _lock: lock };
            }
        }
        panic!("no free port from {FIRST} on");
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// 127.0.0.1 with this port.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.number).into()
    }
}
