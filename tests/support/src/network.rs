//! Hosts with networks of their own, and the network between them: network namespaces and wires (veth).

use std::fs::File;
use std::net::Ipv4Addr;
use std::process::Command;

use nix::sched::{CloneFlags, setns, unshare};

use super::LIMIT;
use super::process::finish;

/// The first two bytes of all addresses.
const NETWORK: [u8; 2] = [10, 77];

/// What is between the hosts: one router with a wire to each of them.
#[derive(Debug)]
pub struct Network {
    router: File,
    hosts: u8,
}

/// A host. It has a loopback of its own, so that nothing of another host's can be reached on it.
#[derive(Debug)]
pub struct Host {
    own: File,
    number: u8,
}

impl Network {
    /// Without hosts.
    #[track_caller]
    pub fn new() -> Self {
        let router = new_namespace();
        let network = Self { router, hosts: 0 };
        network.routes(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap());
        network
    }

    /// One more host, at the end of a wire.
    #[track_caller]
    pub fn host(&mut self) -> Host {
        self.hosts += 1;
        let host = Host { own: new_namespace(), number: self.hosts };
        let [wire, address, router] = [format!("w{}", self.hosts), host.text(), host.at(1).to_string()];
        host.inside(|| {
            ip(&format!("link add eth0 type veth peer name {wire}"));
            ip(&format!("address add {address}/24 dev eth0"));
            ip("link set eth0 up");
            // The other end is the router's.
            ip(&format!("link set {wire} netns {}", path(&self.router)));
        });
        self.routes(|| {
            ip(&format!("address add {router}/24 dev {wire}"));
            ip(&format!("link set {wire} up"));
        });
        host.inside(|| ip(&format!("route add default via {router}")));
        host
    }

    /// From now on what is sent from and to a host is lost without a word, as by a firewall.
    pub fn cut(&self, host: &Host) {
        self.rules("add", host);
    }

    /// All of it arrives again.
    pub fn mend(&self, host: &Host) {
        self.rules("del", host);
    }

    fn rules(&self, verb: &str, host: &Host) {
        self.routes(|| ["from", "to"].map(|way| ip(&format!("rule {verb} {way} {} blackhole", host.text()))));
    }

    fn routes<R>(&self, deed: impl FnOnce() -> R) -> R {
        within(&self.router, deed)
    }
}

impl Host {
    /// Its address, which all others reach.
    pub fn address(&self) -> Ipv4Addr {
        self.at(2)
    }

    fn text(&self) -> String {
        self.address().to_string()
    }

    fn at(&self, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(NETWORK[0], NETWORK[1], self.number, last)
    }

    /// Does it on this host: whatever is started or connected has this host's network.
    pub fn inside<R>(&self, deed: impl FnOnce() -> R) -> R {
        within(&self.own, deed)
    }
}

/// The network of a thread is its own business: only this one goes there and comes back.
fn within<R>(namespace: &File, deed: impl FnOnce() -> R) -> R {
    let home = current();
    setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
    let done = deed();
    setns(home, CloneFlags::CLONE_NEWNET).unwrap();
    done
}

/// A network with nothing but a loopback.
fn new_namespace() -> File {
    let home = current();
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    let new = current();
    ip("link set lo up");
    setns(home, CloneFlags::CLONE_NEWNET).unwrap();
    new
}

fn current() -> File {
    File::open("/proc/thread-self/ns/net").unwrap()
}

/// A namespace as `ip` takes it.
fn path(namespace: &File) -> String {
    use std::os::fd::AsRawFd as _;
    format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd())
}

fn ip(arguments: &str) {
    let output = finish(Command::new("ip").args(arguments.split(' ')), LIMIT);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {said}");
}
