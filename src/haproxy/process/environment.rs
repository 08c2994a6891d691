//! The variables of a HAProxy's environment, and whose they are.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// Names OpenSSL's configuration (its `config(5)`), which may name programs to load.
pub const OPENSSL_CONF: &str = "OPENSSL_CONF";

/// The variables among the entries that procfs shows, each with what it holds: what has no name is none.
pub(super) fn variables(entries: &[OsString]) -> Vec<(OsString, OsString)> {
    let variable = |entry: &OsString| {
        let bytes = entry.as_bytes();
        let equals = bytes.iter().position(|&byte| byte == b'=').filter(|&place| place > 0)?;
        let (name, value) = (bytes.get(..equals)?, bytes.get(equals + 1..)?);
        Some((OsStr::from_bytes(name).to_owned(), OsStr::from_bytes(value).to_owned()))
    };
    entries.iter().filter_map(variable).collect()
}

/// What one of these variables holds, where it is UTF-8.
pub(crate) fn value<'a>(variables: &'a [(OsString, OsString)], wanted: &str) -> Option<&'a str> {
    variables.iter().find(|(name, _)| name == wanted)?.1.to_str()
}

/// The variables without what the master, or systemd for it alone, has put there.
///
/// 2.2 cuts its `HAPROXY_PROCESSES` in place, so that its parts look like variables of their own.
pub(super) fn without_masters_own(variables: Vec<(OsString, OsString)>) -> Vec<(OsString, OsString)> {
    const OWN: [&str; 9] = [
        "HAPROXY_CFGFILES",
        "HAPROXY_CLI",
        "HAPROXY_LOAD_SUCCESS",
        "HAPROXY_MASTER_CLI",
        "HAPROXY_PROCESSES",
        "HAPROXY_STARTUPLOGS_FD",
        "HAPROXY_STARTUP_VERSION",
        "NOTIFY_SOCKET",
        "WATCHDOG_PID",
    ];
    const PARTS: [&str; 9] =
        ["fd", "cfd", "pid", "rpid", "reloads", "failedreloads", "timestamp", "id", "version"];
    let mut kept = Vec::new();
    let mut inside = false;
    for (name, value) in variables {
        let is = |known: &&str| name == *known;
        inside = name == "HAPROXY_PROCESSES" || (inside && PARTS.iter().any(is));
        let prefixed = ["HAPROXY_MWORKER", "LISTEN_"]
            .iter()
            .any(|prefix| name.as_bytes().starts_with(prefix.as_bytes()));
        if !inside && !prefixed && !OWN.iter().any(is) {
            kept.push((name, value));
        }
    }
    kept
}

/// Whether the loader or the C library obeys this variable in any program: what glibc itself takes away from a program
/// with more rights than its caller (its `unsecvars.h`).
pub(super) fn is_of_loader(name: &OsStr) -> bool {
    const NAMES: [&str; 11] = [
        "GCONV_PATH",
        "GETCONF_DIR",
        "HOSTALIASES",
        "LOCALDOMAIN",
        "LOCPATH",
        "NIS_PATH",
        "NLSPATH",
        "RESOLV_HOST_CONF",
        "RES_OPTIONS",
        "TMPDIR",
        "TZDIR",
    ];
    let starts = |prefix: &str| name.as_bytes().starts_with(prefix.as_bytes());
    ["LD_", "GLIBC_", "MALLOC_"].into_iter().any(starts) || NAMES.iter().any(|known| name == *known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_masters_own_variables_are_left_out_and_the_operators_stay() {
        let environment = [
            "PATH=/bin",
            "HAPROXY_MWORKER=1",
            "HAPROXY_MWORKER_WAIT_ONLY=1",
            "HAPROXY_PROCESSES=|type=w",
            "fd=4",
            "pid=12",
            "version=2.2.9",
            "pid=mine",
            "HAPROXY_PORT=443",
            "id=mine",
            "NOTIFY_SOCKET=/run/x",
            "LISTEN_FDS=1",
            "EMPTY=",
            "A=b=c",
            "broken",
        ]
        .map(OsString::from);
        let kept: Vec<String> = without_masters_own(variables(&environment))
            .into_iter()
            .map(|(name, value)| format!("{}={}", name.display(), value.display()))
            .collect();
        assert_eq!(kept, ["PATH=/bin", "HAPROXY_PORT=443", "id=mine", "EMPTY=", "A=b=c"]);
    }
}
