//! What mends a refusal, a conflict or a warning.

use crate::certified_key::Flaw;
use crate::plan::client::Client;
use crate::plan::hold::Hold;
use crate::plan::obstacle::{Drawback, Obstacle};
use crate::plan::reason::Reason;
use crate::plan::row::Row;
use crate::plan::warning::Warning;
use crate::serving::loads::move_out;
use crate::status::advice;
use crate::status::circumstances::{Circumstances, ForeignFile};
use crate::status::observation::SiteViews;
use crate::sys::escape::shell_word;

/// The next step for a refused lineage.
#[must_use]
pub fn refused(reason: Reason, row: &Row, views: &SiteViews, client: Client) -> Option<String> {
    let of_links = matches!(
        reason,
        Reason::LineageTorn
            | Reason::NotARegularFile
            | Reason::TooLarge
            | Reason::Unproved(Flaw::CertificateMissing | Flaw::KeyMissing)
    );
    let links = views.links.as_ref().filter(|_| of_links).zip(row.lineage.as_ref());
    let deployed = views.disk.here().map(AsRef::as_ref);
    if let Some(advice) = links.and_then(|(links, name)| links.mend(name, deployed)) {
        return Some(advice);
    }
    let again = |verb: &str| format!("{verb}{}", client.by("renew --force-renewal --cert-name NAME"));
    let whose = client.whose();
    let advice = match reason {
        Reason::Unproved(Flaw::KeyMissing) => again("issue it again"),
        Reason::Unproved(Flaw::CertificateMissing) if client == Client::Publisher => {
            "set host_lineage to a lineage that the fleet has; or issue this one on the host that publishes it".to_owned()
        }
        Reason::Unproved(Flaw::CertificateMissing) if client == Client::Another => {
            format!(
                "put {whose} own files back; or, if it isn't wanted any more, remove its directory from live_dir"
            )
        }
        Reason::Unproved(Flaw::CertificateMissing) => {
            format!("put {whose} own files back from a backup; or issue it again, and then delete this one")
        }
        Reason::Io => "mend its permissions or the disk; then run: haproxy-certs assemble".to_owned(),
        Reason::OlderThanDeployed => format!(
            "{}; or, if the older one is meant: haproxy-certs assemble --force NAME",
            again("renew it")
        ),
        Reason::WouldReplaceGood => "if it is meant: haproxy-certs assemble --force NAME".to_owned(),
        Reason::LineageTorn => {
            format!("bring both files of one renewal; or {}", again("issue it again"))
        }
        Reason::NotARegularFile | Reason::TooLarge => {
            format!("put {whose} own file or link back; then run: haproxy-certs assemble")
        }
        Reason::HaproxyRejects => {
            "mend what it names; then run: haproxy-certs assemble --force NAME".to_owned()
        }
        Reason::NameUnsafe => return renamed(row, views, client),
        Reason::Unproved(_) => reason.advice(client)?,
    };
    Some(row.with_name(&advice))
}

/// The same certificate as a lineage whose name can be a file's.
fn renamed(row: &Row, views: &SiteViews, client: Client) -> Option<String> {
    if client != Client::Certbot {
        return Some(format!("issue it by another name{}", client.by("")));
    }
    let names: Vec<&str> = views.certbot.here()?.dns_names().collect();
    let name = shell_word(names.first()?.trim_start_matches("*.").as_ref());
    let issue =
        format!("haproxy-certs issue -d {} -- --cert-name {name}", shell_word(names.join(",").as_ref()));
    Some(row.with_name(&format!(
        "issue it by another name: {issue}; then delete this one: certbot delete --cert-name NAME"
    )))
}

/// The next step where something that isn't ours stands in a lineage's place.
#[must_use]
pub fn conflict(obstacle: Obstacle, row: &Row, views: &SiteViews, client: Client) -> String {
    let again = |verb: &str| format!("{verb}{}", client.by("renew --force-renewal --cert-name NAME"));
    let first = match obstacle {
        Obstacle::Directory => {
            return format!("move it away: {} && haproxy-certs assemble", move_out(&views.place.path));
        }
        Obstacle::Irregular | Obstacle::Anothers => {
            return "take it over, a copy is kept: haproxy-certs assemble --adopt".to_owned();
        }
        Obstacle::Better(Drawback::Staging) => format!("issue it from the real CA{}", from_real_ca(client)),
        Obstacle::Better(Drawback::NotYetValid) => {
            "set the clock right, or wait until its life begins".to_owned()
        }
        Obstacle::Better(Drawback::Expired | Drawback::Older) => again("renew it"),
    };
    row.with_name(&format!(
        "to keep that file, leave the lineage out by exclude; to let the lineage's take its place, {first}; then: \
         haproxy-certs assemble --adopt"
    ))
}

/// Issues a certificate again that came from a staging CA.
fn from_real_ca(client: Client) -> String {
    let server = "--server https://acme-v02.api.letsencrypt.org/directory";
    client.by(&format!("renew --force-renewal --cert-name NAME {server}"))
}

/// A warning's fact, and the next step.
#[must_use]
pub fn warned(warning: Warning, row: &Row, around: &Circumstances<'_>) -> (String, Option<String>) {
    let renew = advice::renew(around.client);
    let forced = "renew --force-renewal --cert-name NAME";
    let again = match around.client {
        Client::Certbot => format!("run: certbot {forced}"),
        client => format!("issue it again{}", client.by(forced)),
    };
    let whole = match around.client {
        Client::Certbot => format!("deploy certbot's own fullchain.pem; or: certbot {forced}"),
        client => format!("let the whole chain be in its file; or issue it again{}", client.by(forced)),
    };
    let real = format!("issue it from the real CA{}", from_real_ca(around.client));
    let keys = keys(row, around);
    let siblings = siblings(row, around);
    let held = held(row, around);
    let shadowing = shadowing(row, around);
    let (fact, advice) = match warning {
        Warning::Expired => ("it has expired", renew.as_str()),
        Warning::ExpiresSoon => ("it expires soon", renew.as_str()),
        Warning::NotYetValid => {
            ("its life has not begun: visitors get an error", "set the clock right, or wait until it begins")
        }
        Warning::ChainIncomplete => ("no intermediate certificate comes with the leaf", whole.as_str()),
        Warning::ChainOrder => {
            ("a certificate of the chain was not issued by the one after it", again.as_str())
        }
        Warning::StagingIssuer => ("it comes from a staging CA, which no visitor trusts", real.as_str()),
        Warning::Shadowed if row.outranked => (
            "a file that is loaded before the sites directory serves one of its names",
            "name the sites directory before that file on the bind line, or let HAProxy load that file no more",
        ),
        Warning::Shadowed => {
            ("another file that sorts before it serves one of its names", shadowing.as_str())
        }
        Warning::DefaultCertificateChanged => ("the next run makes it HAProxy's default certificate", ""),
        Warning::LoosePermissions => ("others than the owner may read its private key", keys.as_str()),
        Warning::SiblingFiles => {
            ("HAProxy loads .key, .ocsp, .issuer or .sctl files beside it", siblings.as_str())
        }
        Warning::NotChecked => ("HAProxy could not be asked whether it would load it", ""),
        Warning::PruneHeld if row.held == Some(Hold::TooMany) && around.follows => (
            "it is kept although the fleet has no such lineage any more",
            "if it is really gone, on the publisher, run: haproxy-certs fleet publish --prune-many; or for this node \
             alone: haproxy-certs assemble --prune-many",
        ),
        Warning::PruneHeld => ("it is kept although its lineage is gone", held.as_str()),
    };
    let fact = row.warnings.fact(warning).unwrap_or(fact).to_owned();
    (fact, Some(advice).filter(|advice| !advice.is_empty()).map(|advice| row.with_name(advice)))
}

/// Lets a file go that is kept although its lineage is gone.
fn held(row: &Row, around: &Circumstances<'_>) -> String {
    match row.held {
        Some(Hold::TooMany) => "if it is really gone: haproxy-certs assemble --prune-many".to_owned(),
        Some(Hold::Orphan | Hold::Elsewhere) => orphan(row, around),
        _ => "haproxy-certs(8) says under WHAT IS DONE WITH A FILE what holds it".to_owned(),
    }
}

/// Takes a file away that no run will.
fn orphan(row: &Row, around: &Circumstances<'_>) -> String {
    if around.live_is_missing && around.follows {
        return "bring what the fleet has here: haproxy-certs fleet follow --once".to_owned();
    }
    if around.live_is_missing {
        return format!("bring {} directory back, or set live_dir to where it is", around.client.whose());
    }
    let file = around.sites_dir.join(row.file.as_deref().unwrap_or_default());
    match around.needs.without(&file, None) {
        Ok(command) => format!("if its lineage is really gone: {command}; then {}", around.reload_all()),
        Err(instead) => format!("if its lineage is really gone, {instead}"),
    }
}

/// What gives a lineage its names back. Who deletes it loses those that it still serves.
fn shadowing(row: &Row, around: &Circumstances<'_>) -> String {
    let is_it = |foreign: &&ForeignFile| {
        row.leaf.as_ref().is_some_and(|leaf| {
            foreign.family == leaf.key_type.family()
                && leaf.served_names().any(|name| foreign.names.iter().any(|its| its == name))
        })
    };
    if let Some(foreign) = around.foreign.iter().find(is_it) {
        if let Some(obstacle) = foreign.obstacle {
            let adopt = "take that file over, a copy is kept: haproxy-certs assemble --adopt";
            let advice = if obstacle.is_adoptable() { adopt } else { "see what is said of that file" };
            return advice.to_owned();
        }
        return match around.needs.without(&foreign.path, foreign.named.as_deref()) {
            Ok(command) => format!("move that file away: {command}; then {}", around.reload_all()),
            Err(instead) => format!("{instead}; then {}", around.reload_all()),
        };
    }
    if row.alarming {
        // This is the good one of the two.
        "renew the lineage whose file that is; or delete it, if it isn't wanted any more".to_owned()
    } else if row.file.as_ref().is_some_and(|file| around.superfluous.contains(file)) {
        let delete = match around.client {
            Client::Certbot => ": certbot delete --cert-name NAME".to_owned(),
            client => format!(", remove it{}", client.by("")),
        };
        format!(
            "another lineage has all its names: leave this one out by exclude, if something else than HAProxy needs it; \
             if nothing does{delete}; then: haproxy-certs assemble"
        )
    } else {
        "another lineage has that name, too: issue one of the two without it".to_owned()
    }
}

/// Takes the keys of a lineage from everybody else.
fn keys(row: &Row, around: &Circumstances<'_>) -> String {
    let lineage = row.lineage.as_deref().unwrap_or_default();
    if around.client != Client::Certbot {
        let key = around.live_dir.join(lineage).join(around.key_file);
        return format!("run: chmod 600 {}", shell_word(key.as_os_str()));
    }
    let folder = around.archive.join(lineage);
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
