//! The bind lines of haproxy.cfg: where they listen, and what they load.

use super::{Configuration, STATS};
use crate::serving::loads::At;
use crate::sys::escape::escaped;

/// Where a frontend listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Door {
    /// The line.
    pub at: At,
    /// Its section: `frontend http`.
    pub section: String,
    /// Its addresses.
    pub addresses: String,
    /// Whether it speaks TLS.
    pub ssl: bool,
    /// Whether it is for IPv6 alone.
    pub v6only: bool,
    /// Whether anybody can connect: without the PROXY protocol, in our network namespace.
    pub is_open: bool,
}

/// A bind line.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a word of its own")]
pub struct BindLine {
    /// Where it is.
    pub at: At,
    /// Its section: `frontend https`.
    pub section: String,
    /// Its addresses.
    pub addresses: String,
    /// Whether it has `ssl`.
    pub ssl: bool,
    /// Whether its section is `disabled`, or the defaults are: it doesn't listen, and its certificates are loaded.
    pub is_disabled: bool,
    /// Whether it has `strict-sni`, or all have.
    pub strict_sni: bool,
    /// Whether it has `accept-proxy`.
    pub accepts_proxy: bool,
    /// What it loads, in order, with `crt-base` where that belongs.
    pub loads: Vec<(Keyword, String)>,
}

/// The words of a bind line that load certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keyword {
    /// `crt FILE` or `crt DIRECTORY`.
    Crt,
    /// `default-crt FILE`.
    DefaultCrt,
    /// `crt-list FILE`.
    CrtList,
    /// `ssl-f-use crt FILE` of the frontend.
    Used,
}

/// The words of a bind line without an argument (2.2 to 3.5-dev).
const WITHOUT_ARGUMENT: [&str; 31] = [
    "accept-proxy",
    "allow-0rtt",
    "defer-accept",
    "force-sslv3",
    "force-tlsv10",
    "force-tlsv11",
    "force-tlsv12",
    "force-tlsv13",
    "no-alpn",
    "no-ca-names",
    "no-sslv3",
    "no-strict-sni",
    "no-tls-tickets",
    "no-tlsv10",
    "no-tlsv11",
    "no-tlsv12",
    "no-tlsv13",
    "prefer-client-ciphers",
    "quic-force-retry",
    "ssl",
    "strict-sni",
    "tfo",
    "tls-tickets",
    "transparent",
    "v4v6",
    "v6only",
    // With certificates that HAProxy makes up: they are known, and not followed.
    "generate-certificates",
    "ca-sign-use-chain",
    "check-ssl",
    "no-check-ssl",
    "no-defer-accept",
];

/// The words with one.
const WITH_ARGUMENT: [&str; 55] = [
    "accept-netscaler-cip",
    "alpn",
    "backlog",
    "ca-file",
    "ca-ignore-err",
    "ca-sign-file",
    "ca-sign-pass",
    "ca-verify-file",
    "cc",
    "ciphers",
    "ciphersuites",
    "client-sigalgs",
    "crl-file",
    "crt",
    "crt-ignore-err",
    "crt-list",
    "curves",
    "default-crt",
    "ecdhe",
    "ech",
    "expose-fd",
    "gid",
    "group",
    "guid-prefix",
    "id",
    "idle-ping",
    "interface",
    "ktls",
    "label",
    "level",
    "maxconn",
    "mode",
    "mss",
    "name",
    "namespace",
    "nbconn",
    "nice",
    "npn",
    "process",
    "proto",
    "quic-cc-algo",
    "quic-socket",
    "severity-output",
    "shards",
    "sigalgs",
    "ssl-max-ver",
    "ssl-min-ver",
    "tcp-md5sig",
    "tcp-ss",
    "tcp-ut",
    "thread",
    "tls-ticket-keys",
    "uid",
    "user",
    "verify",
];

impl Configuration {
    /// A bind line, or what another line says as one does.
    pub(super) fn bind(&mut self, section: String, words: &[&str], at: &At) {
        let mut bind = BindLine {
            at: at.clone(),
            section,
            addresses: words.first().copied().unwrap_or_default().to_owned(),
            ssl: false,
            is_disabled: false,
            strict_sni: self.strict_sni,
            accepts_proxy: false,
            loads: Vec::new(),
        };
        let mut unknown = None;
        let (mut is_open, mut v6only) = (bind.section != STATS, false);
        let mut rest = words.get(1..).unwrap_or_default();
        while let Some((&word, behind)) = rest.split_first() {
            let argument = behind.first().copied().unwrap_or_default();
            let keyword = match word {
                "crt" => Some(Keyword::Crt),
                "default-crt" => Some(Keyword::DefaultCrt),
                "crt-list" => Some(Keyword::CrtList),
                _ => None,
            };
            match word {
                "ssl" => bind.ssl = true,
                "strict-sni" => bind.strict_sni = true,
                "no-strict-sni" => bind.strict_sni = false,
                "accept-proxy" => (is_open, bind.accepts_proxy) = (false, true),
                "namespace" => is_open = false,
                "v6only" => v6only = true,
                "generate-certificates" => {
                    unknown.get_or_insert_with(|| "generate-certificates isn't followed".to_owned());
                }
                _ => {}
            }
            if let Some(keyword) = keyword {
                // HAProxy puts crt-base before what a bind line names, but not before a crt-list.
                let path = match keyword {
                    Keyword::Crt | Keyword::DefaultCrt | Keyword::Used => self.with_base(argument),
                    Keyword::CrtList => argument.to_owned(),
                };
                self.names.add(&path, at);
                // The lines of a list have relative names, too.
                self.begin(if keyword == Keyword::CrtList { "" } else { &path }, at);
                bind.loads.push((keyword, path));
            }
            let length = match word {
                _ if WITH_ARGUMENT.contains(&word) => 1,
                _ if WITHOUT_ARGUMENT.contains(&word) => 0,
                _ => {
                    unknown.get_or_insert_with(|| {
                        format!("\"{}\" isn't a known word of a bind line", escaped(word))
                    });
                    0
                }
            };
            rest = behind.get(length..).unwrap_or_default();
        }
        self.doors.push(Door {
            at: at.clone(),
            section: bind.section.clone(),
            addresses: bind.addresses.clone(),
            ssl: bind.ssl,
            v6only,
            is_open,
        });
        if let Some(why) = unknown.filter(|_| !bind.loads.is_empty()) {
            self.note(at, &why);
        }
        self.binds.push(bind);
    }
}
