//! What mends a refusal, a conflict or a warning.

use crate::plan::reason::Reason;
use crate::plan::row::Row;
use crate::plan::warning::Warning;
use crate::status::advice::RENEW;
use crate::status::circumstances::Circumstances;
use crate::sys::escape::shell_word;

/// The next step for a refused lineage.
#[must_use]
pub fn refused(reason: Reason, row: &Row) -> Option<String> {
    let advice = match reason {
        Reason::Io => "mend its permissions or the disk; then run: haproxy-certs assemble",
        Reason::OlderThanDeployed | Reason::WouldReplaceGood => {
            "if it is meant: haproxy-certs assemble --force NAME"
        }
        Reason::LineageTorn => "run: certbot renew; it mends an interrupted renewal",
        _ => reason.advice()?,
    };
    Some(row.with_name(advice))
}

/// The next step for a file that isn't ours.
#[must_use]
pub fn conflict(fact: &str) -> String {
    let advice = if fact.contains("--adopt") {
        "move it away; or take it over, a copy is kept: haproxy-certs assemble --adopt"
    } else {
        "move it away; then run: haproxy-certs assemble"
    };
    advice.to_owned()
}

/// A warning's fact, and the next step.
#[must_use]
pub fn warned(warning: Warning, row: &Row, around: &Circumstances<'_>) -> (String, Option<String>) {
    let keys = keys(row, around);
    let siblings = siblings(row, around);
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
            "issue it from the real CA: certbot renew --force-renewal --cert-name NAME --server \
             https://acme-v02.api.letsencrypt.org/directory",
        ),
        Warning::Shadowed if row.outranked => (
            "a file that is loaded before the sites directory serves one of its names",
            "name the sites directory before that file on the bind line, or remove the file",
        ),
        Warning::Shadowed => (
            "another file that sorts before it serves one of its names",
            "remove that file; or, if this lineage isn't wanted: certbot delete --cert-name NAME; then: haproxy-certs \
             assemble",
        ),
        Warning::DefaultCertificateChanged => ("the next run makes it HAProxy's default certificate", ""),
        Warning::LoosePermissions => ("others than the owner may read certbot's private key", keys.as_str()),
        Warning::SiblingFiles => {
            ("HAProxy loads .key, .ocsp, .issuer or .sctl files beside it", siblings.as_str())
        }
        Warning::NotChecked => ("HAProxy could not be asked whether it would load it", ""),
        Warning::PruneHeld if row.detail.as_ref().is_some_and(|detail| detail.ends_with("--prune-many")) => (
            "it is kept although its lineage is gone",
            "if it is really gone: haproxy-certs assemble --prune-many",
        ),
        Warning::PruneHeld => (
            "it is kept although its lineage is gone",
            "haproxy-certs(8) says under WHAT IS DONE WITH A FILE what holds it",
        ),
    };
    (fact.to_owned(), Some(advice).filter(|advice| !advice.is_empty()).map(|advice| row.with_name(advice)))
}

/// Takes the keys of a lineage from everybody else.
fn keys(row: &Row, around: &Circumstances<'_>) -> String {
    let folder = around.archive.join(row.lineage.as_deref().unwrap_or_default());
    format!("run: chmod 600 {}/privkey*.pem", shell_word(folder.as_os_str()))
}

/// Shows what HAProxy loads beside a file.
fn siblings(row: &Row, around: &Circumstances<'_>) -> String {
    let file = around.sites_dir.join(row.file.as_deref().unwrap_or_default());
    let file = shell_word(file.as_os_str());
    format!(
        "remove them where nothing keeps them up to date: rm -f {file}.key {file}.ocsp {file}.issuer {file}.sctl"
    )
}
