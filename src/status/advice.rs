//! What to do about each problem, in one line. Pure.

use crate::plan::{Reason, Row, Warning};

/// A run does what is missing.
pub const ASSEMBLE: &str = "run: haproxy-certs assemble";

/// HAProxy is to read the disk again.
pub const RELOAD: &str = "run: haproxy-certs assemble; if that changes nothing, reload HAProxy";

/// HAProxy doesn't load the file.
pub const NOT_LOADED: &str =
    "reload HAProxy; if that changes nothing: haproxy-certs status --setup, which says what it loads";

/// Another certificate wins the name.
pub const PRESENTS_ANOTHER: &str =
    "reload HAProxy; if that changes nothing, another `crt` of that bind or another listener has the name";

/// Nothing newer is there.
pub const RENEW: &str = "run: certbot renew; its log says why it has not renewed";

/// Nothing runs after a renewal.
pub const HOOK: &str = "run: haproxy-certs assemble, then: haproxy-certs init --hook; see status --setup";

/// The next step for a refused lineage.
#[must_use]
pub fn refused(reason: Reason, row: &Row) -> Option<String> {
    let advice = match reason {
        Reason::ReadError => "mend its permissions or the disk, and run: haproxy-certs assemble",
        _ => reason.advice()?,
    };
    Some(row.with_name(advice))
}

/// A warning's fact, and the next step.
#[must_use]
pub fn warned(warning: Warning, row: &Row) -> (String, Option<String>) {
    let (fact, advice) = match warning {
        Warning::Expired => ("it has expired", RENEW),
        Warning::ExpiresSoon => ("it expires soon", RENEW),
        Warning::NotYetValid => {
            ("its life has not begun: visitors get an error", "set the clock right, or wait until it begins")
        }
        Warning::ChainIncomplete => (
            "no intermediate certificate comes with the leaf",
            "deploy certbot's own fullchain.pem; or: certbot renew --force-renewal --cert-name NAME",
        ),
        Warning::ChainOrder => (
            "a certificate of the chain was not issued by the one after it",
            "run: certbot renew --force-renewal --cert-name NAME",
        ),
        Warning::StagingIssuer => (
            "it comes from a staging CA, which no visitor trusts",
            "issue it from the real CA: certbot renew --force-renewal --cert-name NAME --server URL",
        ),
        Warning::Shadowed if row.outranked => (
            "a file that is loaded before the sites directory serves one of its names",
            "name the sites directory before that file on the bind line, or remove the file",
        ),
        Warning::Shadowed => (
            "another file that sorts before it serves one of its names",
            "remove that file, or delete the lineage that isn't wanted: certbot delete --cert-name",
        ),
        Warning::DefaultCertificateChanged => ("the next run makes it HAProxy's default certificate", ""),
        Warning::LoosePermissions => (
            "others than the owner may read certbot's private key",
            "run: chmod 600 on archive/NAME/privkey*.pem",
        ),
        Warning::SiblingFiles => (
            "HAProxy loads .key, .ocsp, .issuer or .sctl files beside it",
            "remove them where nothing keeps them up to date",
        ),
        Warning::NotChecked => ("HAProxy could not be asked whether it would load it", ""),
        Warning::PruneHeld => (
            "it is kept although its lineage is gone",
            "haproxy-certs(8) says under WHAT IS DONE WITH A FILE what holds it",
        ),
    };
    (fact.to_owned(), Some(advice).filter(|advice| !advice.is_empty()).map(|advice| row.with_name(advice)))
}

/// A number of seconds for people: `89 days`, `40 hours`, `5 minutes`.
#[must_use]
pub fn span(seconds: i64) -> String {
    let (count, unit) = match seconds {
        172_800.. => (seconds / 86_400, "day"),
        7_200.. => (seconds / 3_600, "hour"),
        120.. => (seconds / 60, "minute"),
        _ => (seconds, "second"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::span;

    #[test]
    fn spans_are_short() {
        for (seconds, text) in [
            (1, "1 second"),
            (119, "119 seconds"),
            (7_199, "119 minutes"),
            (172_799, "47 hours"),
            (7_776_000, "90 days"),
        ] {
            assert_eq!(span(seconds), text);
        }
    }
}
