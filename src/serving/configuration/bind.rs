//! The bind lines of haproxy.cfg: where they listen, and what they load.

use crate::serving::loads::At;

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
pub(super) const WITHOUT_ARGUMENT: [&str; 31] = [
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
pub(super) const WITH_ARGUMENT: [&str; 55] = [
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
