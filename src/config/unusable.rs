//! Why settings can't be used: each in one line that says what, and what to write.

use std::path::PathBuf;

use super::challenge::BadServers;
use super::fleet::BadFleet;
use super::method::Method;
use crate::sys::escape::{escaped, escaped_path};

/// Why settings can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the sentences say what the fields are")]
pub enum Unusable {
    /// It isn't the expected TOML.
    #[error("line {line}: {}", escaped(.message))]
    Line { line: usize, message: String },
    /// It isn't the expected TOML, and the parser doesn't say where.
    #[error("{}", escaped(.0))]
    Text(String),
    /// A path that must be there.
    #[error("{0} must not be empty")]
    Empty(&'static str),
    /// A pattern.
    #[error("{key}: \"{}\" is not a shell glob: {why}", escaped(.glob))]
    NotAGlob { key: &'static str, glob: String, why: String },
    /// The mode is no number.
    #[error("mode \"{}\" is not an octal number like \"0400\"", escaped(.0))]
    NotAMode(String),
    /// Nobody could read the files.
    #[error("mode \"{}\" doesn't let the owner read the file", escaped(.0))]
    UnreadableMode(String),
    /// Too many could read them.
    #[error("mode \"{}\" is too wide for private keys: use 0400, 0440, 0600 or 0640", escaped(.0))]
    WideMode(String),
    /// The owner's user.
    #[error("owner: there is no user \"{}\" here", escaped(.0))]
    NoUser(String),
    /// The owner's group.
    #[error("owner: there is no group \"{}\" here", escaped(.0))]
    NoGroup(String),
    /// A number that is no user's here.
    #[error("owner: user {0} has no group here; write \"{0}:GROUP\"")]
    NoGroupOf(u32),
    /// HAProxy would load it twice.
    #[error("host_file {} lies in sites_dir, where it would be taken for a site; put it beside the directory", escaped_path(.0))]
    HostFileIsSite(PathBuf),
    /// It would be in our own way.
    #[error("host_file {} is sites_dir or a place of our own in it; put it beside the directory", escaped_path(.0))]
    HostFileIsOurs(PathBuf),
    /// A name that could lead elsewhere.
    #[error("host_lineage \"{}\" is not a lineage's name", escaped(.0))]
    NotALineage(String),
    /// A name that could lead elsewhere.
    #[error("{key} \"{}\" is not the name of a file in a lineage's directory", escaped(.name))]
    NotAFileName { key: &'static str, name: String },
    /// It would be written into certbot's tree, or over everything.
    #[error(
        "sites_dir {} must be a directory of its own, outside live_dir {}",
        escaped_path(.sites_dir), escaped_path(.live_dir)
    )]
    SitesDir { sites_dir: PathBuf, live_dir: PathBuf },
    /// A node of a fleet with lineages of its own.
    #[error("{0} and [fleet] publishers are two sources of certificates; this host can have one")]
    TwoSources(&'static str),
    /// The fleet's table.
    #[error(transparent)]
    Fleet(#[from] BadFleet),
    /// certbot's port.
    #[error("http_01_port must not be 0")]
    NoPort,
    /// certbot's program.
    #[error("[certbot] binary must not be empty")]
    NoCertbot,
    /// Who answers challenges.
    #[error("[certbot] challenge_servers {0}")]
    ChallengeServers(#[from] BadServers),
    /// certbot's authenticator.
    #[error("[certbot] authenticator must be a name such as \"dns-rfc2136\", not \"{}\"", escaped(.0))]
    Authenticator(String),
    /// A HAProxy without a name.
    #[error("name of a [[haproxy]] table must not be empty")]
    Nameless,
    /// Two HAProxys that couldn't be told apart in the state file.
    #[error("two [[haproxy]] tables have the name \"{}\"", escaped(.0))]
    SameName(String),
    /// Two HAProxys that couldn't be told apart on the host.
    #[error(
        "[[haproxy]] \"{}\" and \"{}\" have the same {key} {value}; give each its own, or {key} = \"\" where it has none",
        escaped(.one), escaped(.other)
    )]
    Shared { one: String, other: String, key: &'static str, value: String },
    /// One HAProxy's table.
    #[error("[[haproxy]] \"{}\": {why}", escaped(.name))]
    Table { name: String, why: BadTable },
}

/// Why one `[[haproxy]]` table can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the sentences say what the fields are")]
pub enum BadTable {
    /// The way of notifying it has nothing to execute.
    #[error("reload = \"command\" needs the command, as a list of words")]
    NoCommand,
    /// The way of notifying it lacks something.
    #[error("reload = \"{}\" needs {what}", .method.name())]
    Needs { method: Method, what: &'static str },
    /// No program.
    #[error("the first word of command is empty")]
    EmptyCommand,
    /// systemctl would take it for an option.
    #[error("unit must be the name of a systemd unit")]
    Unit,
    /// A socket.
    #[error("{key} must be an absolute path or host:port, not \"{}\"", escaped(.text))]
    Address { key: &'static str, text: String },
    /// No duration.
    #[error("timeout must be like \"5m\" or \"30s\", not \"{}\"", escaped(.0))]
    Timeout(String),
    /// A slip.
    #[error("timeout must be a day at most, not \"{}\"", escaped(.0))]
    LongTimeout(String),
    /// Nothing to shake hands with.
    #[error("probe must be like \"127.0.0.1:443\", not \"{}\"", escaped(.0))]
    Probe(String),
    /// It would depend on the directory that the program is called in.
    #[error("binary must be a program's name, an absolute path or empty")]
    Binary,
}
