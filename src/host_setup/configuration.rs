//! What HAProxy's configuration says about certificates and the ACME challenge. Pure.
//!
//! Not a whole parser: the lines that matter here, with quotes, backslashes and comments as HAProxy reads them.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The lines of a configuration that matter here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Directives {
    /// The files that were read.
    pub files: Vec<String>,
    /// `crt-base` of the global section: what relative names begin with.
    pub crt_base: Option<String>,
    /// The bind lines with certificates.
    pub binds: Vec<TlsBind>,
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

/// A bind line with certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsBind {
    /// The section: `frontend https`.
    pub section: String,
    /// The file and line: `/etc/haproxy/haproxy.cfg:12`.
    pub at: String,
    /// Its certificates, in the order of the line; relative names begin with `crt-base`.
    pub certificates: Vec<String>,
    /// Whether it is fine without any certificate: `strict-sni`.
    pub strict_sni: bool,
}

impl Directives {
    /// Adds the lines of one file.
    pub fn read(&mut self, file: &str, text: &str) {
        self.files.push(file.to_owned());
        let mut section = String::new();
        for (number, line) in text.lines().enumerate() {
            let words = words(line);
            let mut rest = words.iter().map(String::as_str);
            match rest.next() {
                Some("frontend" | "listen" | "backend" | "defaults" | "global" | "peers" | "program") => {
                    section = words.join(" ");
                }
                Some("crt-base") => self.crt_base = rest.next().map(str::to_owned),
                Some("bind") => self.bind(&section, format!("{file}:{}", number + 1), rest),
                Some("server") => {
                    let server = rest.nth(1).and_then(|address| address.rsplit_once(':'));
                    let with_port = |(host, port): (&str, &str)| Some((host.to_owned(), port.parse().ok()?));
                    self.servers.extend(server.and_then(with_port));
                }
                _ => {}
            }
            if words.iter().any(|word| word.contains("/.well-known/acme-challenge")) {
                self.acme_sections.insert(section.clone());
            }
        }
    }

    fn bind<'a>(&mut self, section: &str, at: String, mut words: impl Iterator<Item = &'a str>) {
        let mut bind =
            TlsBind { section: section.to_owned(), at, certificates: Vec::new(), strict_sni: false };
        let addresses = words.next().unwrap_or_default();
        let (mut is_tls, mut is_reachable, mut v6only) = (false, true, false);
        while let Some(word) = words.next() {
            match word {
                "ssl" => is_tls = true,
                "accept-proxy" | "namespace" => is_reachable = false,
                "v6only" => v6only = true,
                "crt" | "default-crt" => bind.certificates.extend(words.next().map(|name| self.whole(name))),
                "strict-sni" => bind.strict_sni = true,
                _ => {}
            }
        }
        let reached = addresses.split(',').filter_map(|address| reached(address, v6only));
        let (section, at) = (&bind.section, &bind.at);
        let there = reached.map(|address| Plain { section: section.clone(), at: at.clone(), address });
        match (is_reachable, is_tls) {
            (false, _) => {}
            (true, false) => self.plain.extend(there),
            (true, true) => self.tls.extend(there),
        }
        if !bind.certificates.is_empty() {
            self.binds.push(bind);
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

    fn whole(&self, name: &str) -> String {
        match &self.crt_base {
            Some(base) if !name.starts_with('/') => format!("{}/{name}", base.trim_end_matches('/')),
            _ => name.to_owned(),
        }
    }

    /// The bind lines that load this directory.
    pub fn loading<'a>(&'a self, directory: &'a str) -> impl Iterator<Item = &'a TlsBind> {
        self.binds.iter().filter(move |bind| bind.loads(directory))
    }
}

impl TlsBind {
    fn loads(&self, directory: &str) -> bool {
        self.certificates.iter().any(|name| name.trim_end_matches('/') == directory)
    }

    /// Whether it is fine while the directory is empty.
    #[must_use]
    pub fn may_be_empty(&self, directory: &str) -> bool {
        self.strict_sni || self.certificates.iter().any(|name| name.trim_end_matches('/') != directory)
    }
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

/// The words of a line.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (None, '#') => break,
            (None, ' ' | '\t') => words.extend(word.take()),
            (None, '"' | '\'') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (Some(open), _) if open == letter => quote = None,
            (None | Some('"'), '\\') => word.get_or_insert_default().extend(letters.next()),
            _ => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_read_as_haproxy_reads_it() {
        let mut configuration = Directives::default();
        configuration.read(
            "h.cfg",
            "global\n crt-base /etc/ssl # here\nfrontend https\n bind :443 ssl crt host.pem crt '/c/my sites/'\n\
             \tbind :444 ssl crt /c/a\\ b strict-sni\n bind :80\n acl a path_beg /.well-known/acme-challenge/\n\
             backend b\n server certbot 127.0.0.1:54321 # :99\n# bind :445 ssl crt /no\n",
        );
        let [first, second] = configuration.binds.as_slice() else { panic!("{configuration:?}") };
        assert_eq!(first.certificates, ["/etc/ssl/host.pem", "/c/my sites/"]);
        assert_eq!((first.section.as_str(), first.at.as_str()), ("frontend https", "h.cfg:4"));
        assert!(first.may_be_empty("/c/my sites") && !first.strict_sni);
        assert_eq!(
            (second.certificates.as_slice(), second.strict_sni),
            (["/c/a b".to_owned()].as_slice(), true)
        );
        assert_eq!(configuration.loading("/c/my sites").count(), 1);
        assert_eq!(configuration.acme_sections, ["frontend https".to_owned()].into());
        assert_eq!(configuration.servers, [("127.0.0.1".to_owned(), 54321)]);
        assert_eq!(configuration.challenged().unwrap().at, "h.cfg:6");
    }

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
            let mut configuration = Directives::default();
            configuration.read("c", text);
            configuration.challenged().map(|plain| plain.address.port())
        };
        let path = "acl a path_beg /.well-known/acme-challenge/";
        assert_eq!(challenged("frontend a\nbind :81\nfrontend b\nbind :80,:82"), Some(80));
        assert_eq!(challenged(&format!("frontend a\nbind :81\nfrontend b\nbind :82\n{path}")), Some(82));
        assert_eq!(challenged(&format!("frontend a\nbind :80\nfrontend b\nbind :82\n{path}")), Some(80));
        assert_eq!(challenged("frontend a\nbind :81\nbind :443 ssl crt x"), None);
        assert_eq!(challenged("frontend a\nbind :80 accept-proxy"), None);
    }
}
