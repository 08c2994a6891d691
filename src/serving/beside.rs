//! The files that HAProxy loads with a certificate: beside `X` those are `X.key`, `X.ocsp` and so on.

/// What is loaded with a certificate beside its key. A bad one is an error when HAProxy starts, and a commit in memory
/// drops it.
pub(crate) const EXTRAS: [&str; 3] = ["sctl", "ocsp", "issuer"];

/// All of them. HAProxy never takes a file with such an ending for a certificate (`.key` since 2.2, the others since 1.8).
pub(crate) const SIBLINGS: [&str; 4] = {
    let [sctl, ocsp, issuer] = EXTRAS;
    ["key", ocsp, issuer, sctl]
};
