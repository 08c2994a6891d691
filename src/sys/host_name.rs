//! What this host is called.

/// The first part of the host's name, as far as it can be part of a node's name; `node` where there is none.
#[must_use]
pub fn host_name() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let first = text.trim().split('.').next().unwrap_or_default();
    let plain: String =
        first.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-' || *c == '_').collect();
    match plain.trim_start_matches(['-', '_']) {
        "" => "node".to_owned(),
        name => name.to_owned(),
    }
}
