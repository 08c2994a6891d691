//! Where HAProxy listens and where it sends the ACME challenge, from its configuration. Pure.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::serving::configuration::{Configuration, Door};
use crate::sys::escape::escaped;

/// The lines of a configuration that matter for the challenge.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Directives {
    /// The addresses that listen without TLS.
    pub plain: Vec<Plain>,
    /// The addresses that listen with TLS.
    pub tls: Vec<Plain>,
    /// The sections with a line that names the path of the ACME challenge.
    pub acme_sections: BTreeSet<String>,
    /// The hosts and ports of the `server` lines.
    pub servers: Vec<(String, u16)>,
}

/// An address that listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plain {
    /// The section: `frontend http`.
    pub section: String,
    /// The file and line.
    pub at: String,
    /// Where it is reached from this host.
    pub address: SocketAddr,
}

impl Directives {
    /// Those of this configuration.
    #[must_use]
    pub fn of(configuration: &Configuration) -> Self {
        let with_port = |server: &String| {
            let (host, port) = server.rsplit_once(':')?;
            Some((host.to_owned(), port.parse().ok()?))
        };
        let doors = |ssl| configuration.doors.iter().filter(move |door| door.is_open && door.ssl == ssl);
        Self {
            plain: doors(false).flat_map(reached_through).collect(),
            tls: doors(true).flat_map(reached_through).collect(),
            acme_sections: configuration.acme_sections.clone(),
            servers: configuration.servers.iter().filter_map(with_port).collect(),
        }
    }

    /// Where the CA's challenge comes in: port 80; where another host or a firewall stands before this one, the section that
    /// names its path.
    #[must_use]
    pub fn challenged(&self) -> Option<&Plain> {
        let is_other_port = |plain: &Plain| plain.address.port() != 80;
        let is_other_section = |plain: &Plain| !self.acme_sections.contains(&plain.section);
        let rank = |plain: &&Plain| (is_other_port(plain), is_other_section(plain));
        self.plain.iter().min_by_key(rank).filter(|plain| rank(plain) != (true, true))
    }

    /// Where a redirection leads that the CA follows: port 443 with TLS, port 80 without
    /// (<https://letsencrypt.org/docs/challenge-types/#http-01-challenge>).
    #[must_use]
    pub fn redirected(&self, with_tls: bool) -> Option<&Plain> {
        let (all, port) = if with_tls { (&self.tls, 443) } else { (&self.plain, 80) };
        all.iter().find(|there| there.address.port() == port)
    }
}

fn reached_through(door: &Door) -> impl Iterator<Item = Plain> {
    let all = door.addresses.split(',').filter_map(|address| reached(address, door.v6only));
    all.map(|address| Plain {
        section: door.section.clone(),
        at: escaped(&door.at.to_string()).to_string(),
        address,
    })
}

/// Where a bind line's address is reached from this host; `None` for sockets, ranges and variables.
fn reached(address: &str, v6only: bool) -> Option<SocketAddr> {
    let address = address.strip_prefix("ipv4@").or_else(|| address.strip_prefix("ipv6@")).unwrap_or(address);
    let (host, port) = address.rsplit_once(':')?;
    let host = match host.trim_start_matches('[').trim_end_matches(']') {
        "::" if v6only => IpAddr::V6(Ipv6Addr::LOCALHOST),
        "" | "*" | "0.0.0.0" | "::" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        other => other.parse().ok()?,
    };
    Some(SocketAddr::new(host, port.parse().ok().filter(|&port| port != 0)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serving::configuration::Environment;

    #[test]
    fn an_address_is_reached_where_it_listens() {
        for (address, v6only, reached_at) in [
            (":80", false, Some("127.0.0.1:80")),
            ("*:80", false, Some("127.0.0.1:80")),
            (":::80", false, Some("127.0.0.1:80")),
            ("[::]:80", true, Some("[::1]:80")),
            ("ipv4@192.0.2.7:80", false, Some("192.0.2.7:80")),
            ("[2001:db8::1]:80", false, Some("[2001:db8::1]:80")),
            ("unix@/run/x.sock", false, None),
            ("/run/x:y.sock", false, None),
            (":${PORT}", false, None),
            (":80-89", false, None),
            (":0", false, None),
        ] {
            let expected: Option<SocketAddr> = reached_at.map(|text| text.parse().unwrap());
            assert_eq!(reached(address, v6only), expected, "{address}");
        }
    }

    #[test]
    fn the_challenge_comes_in_at_port_80_or_where_its_path_is_named() {
        let challenged = |text: &str| {
            let mut configuration = Configuration::new(Environment::default());
            configuration.read("c", text.as_bytes());
            Directives::of(&configuration).challenged().map(|plain| plain.address.port())
        };
        let path = "acl a path_beg /.well-known/acme-challenge/";
        assert_eq!(challenged("frontend a\nbind :81\nfrontend b\nbind :80,:82"), Some(80));
        assert_eq!(challenged(&format!("frontend a\nbind :81\nfrontend b\nbind :82\n{path}")), Some(82));
        assert_eq!(challenged(&format!("frontend a\nbind :80\nfrontend b\nbind :82\n{path}")), Some(80));
        assert_eq!(challenged("frontend a\nbind :81\nbind :443 ssl crt x"), None);
        assert_eq!(challenged("frontend a\nbind :80 accept-proxy"), None);
    }
}
