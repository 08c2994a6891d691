//! `challenge_servers`: what a `server` line of HAProxy takes, each host once, and no way back into HAProxy itself.

use std::net::{IpAddr, Ipv6Addr};

use crate::sys::escape::escaped;

/// Where HAProxy itself takes challenges in, and where it may redirect them to.
const HAPROXYS_PORTS: [u16; 2] = [80, 443];

/// Why these can't be the hosts that challenges are passed to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadServers {
    /// It isn't a host and a port.
    #[error("must be like \"192.0.2.7:54321\", not \"{}\"", escaped(.0))]
    Form(String),
    /// HAProxy takes it for the address that a client asked for, or for nothing.
    #[error("must name a host, and {} is every address of one", escaped(.0))]
    Any(String),
    /// The challenge would come back to HAProxy for ever.
    #[error("must not lead back to HAProxy, as {} does; certbot listens on a port of its own", escaped(.0))]
    Loop(String),
    /// It is there twice.
    #[error("has {} twice", escaped(.0))]
    Twice(String),
}

/// A host: its address, or its name in small letters.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    Address(IpAddr),
    Name(String),
}

/// Checks all of them.
///
/// # Errors
/// The first that can't be used, and why.
pub fn check(servers: &[String]) -> Result<(), BadServers> {
    let mut seen: Vec<(Host, u16)> = Vec::with_capacity(servers.len());
    for server in servers {
        let (host, port) = parsed(server).ok_or_else(|| BadServers::Form(server.clone()))?;
        let is_here = match &host {
            Host::Address(address) if address.is_unspecified() => {
                return Err(BadServers::Any(server.clone()));
            }
            Host::Address(address) => address.to_canonical().is_loopback(),
            Host::Name(name) => name == "localhost",
        };
        if is_here && HAPROXYS_PORTS.contains(&port) {
            return Err(BadServers::Loop(server.clone()));
        }
        if seen.contains(&(host.clone(), port)) {
            return Err(BadServers::Twice(server.clone()));
        }
        seen.push((host, port));
    }
    Ok(())
}

/// Whether HAProxy has to look the host up: it doesn't start where it can't, unless its line says otherwise.
#[must_use]
pub fn is_looked_up(server: &str) -> bool {
    matches!(parsed(server), Some((Host::Name(_), _)))
}

/// `HOST:PORT`, an IPv6 address in brackets.
fn parsed(server: &str) -> Option<(Host, u16)> {
    let (host, port) = server.rsplit_once(':')?;
    // `parse` takes a sign, HAProxy takes that for an offset to the client's port.
    let port = Some(port).filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()))?;
    let port = port.parse().ok().filter(|&port| port != 0)?;
    if let Some(inside) = host.strip_prefix('[') {
        let address: Ipv6Addr = inside.strip_suffix(']')?.parse().ok()?;
        return Some((Host::Address(address.into()), port));
    }
    if let Ok(address) = host.parse::<IpAddr>() {
        return Some((Host::Address(address), port))
            .filter(|(host, _)| matches!(host, Host::Address(IpAddr::V4(_))));
    }
    let is_label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        (1..=63).contains(&label.len())
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // What ends in a number is meant for an address.
    let last = host.rsplit('.').next().unwrap_or_default();
    let is_name =
        host.len() <= 253 && host.split('.').all(is_label) && !last.bytes().all(|byte| byte.is_ascii_digit());
    is_name.then(|| (Host::Name(host.to_ascii_lowercase()), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(servers: &[&str]) -> Result<(), BadServers> {
        check(&servers.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn hosts_with_a_port_are_taken_each_once() {
        for good in [
            &["192.0.2.7:54321", "192.0.2.8:54321"][..],
            &["lb1:8888", "lb1:8889", "LB-2.example.org:1", "[2001:db8::1]:65535"],
            // This host's own certbot is one of them, as a rule.
            &["127.0.0.1:54321", "[::1]:54321", "localhost:54321"],
            // A host of its own for certbot, without a HAProxy.
            &["acme.example.org:80"],
            &[],
        ] {
            assert_eq!(checked(good), Ok(()), "{good:?}");
        }
        for bad in [
            "lb1",
            "lb1:",
            ":54321",
            "lb1:0",
            "lb1:65536",
            "lb1:+80",
            "lb1:http",
            "2001:db8::1:54321",
            "[x]:1",
            "[::1:1",
            "[192.0.2.7]:1",
            "192.0.2:1",
            "192.0.2.300:1",
            "*:54321",
            "a b:1",
            "lb1:1 check",
            "-lb:1",
            "lb1..x:1",
            "unix@/run/x:1",
            "/run/x:1",
            "ipv4@192.0.2.7:1",
            "l\u{e4}b:1",
            "lb1:1\n",
            "http://lb1:80",
        ] {
            assert_eq!(checked(&[bad]), Err(BadServers::Form(bad.to_owned())), "{bad}");
        }
        assert_eq!(checked(&["0.0.0.0:1"]), Err(BadServers::Any("0.0.0.0:1".into())));
        assert_eq!(checked(&["[::]:1"]), Err(BadServers::Any("[::]:1".into())));
        for own in ["127.0.0.1:80", "127.0.0.2:443", "[::1]:80", "[::ffff:127.0.0.1]:80", "LocalHost:80"] {
            assert_eq!(checked(&["lb1:1", own]), Err(BadServers::Loop(own.to_owned())), "{own}");
        }
        for [one, two] in
            [["lb1:1", "LB1:1"], ["[2001:db8::1]:1", "[2001:DB8:0::1]:1"], ["192.0.2.7:1", "192.0.2.7:1"]]
        {
            assert_eq!(checked(&[one, "lb9:1", two]), Err(BadServers::Twice(two.to_owned())));
        }
    }
}
