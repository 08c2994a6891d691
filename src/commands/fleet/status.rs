//! `fleet status`: reads the head and every node's report, on the publisher also certbot's tree, and judges them.

use crate::commands::fleet::publish;
use crate::commands::fleet::values::reports;
use crate::config::Settings;
use crate::config::fleet::Fleet;
use crate::fleet::accept::{Accepted, KnownHeads, RefusedHead, accept};
use crate::fleet::cache::{
    FleetMemory, HostPart, Opened, fleet_name, identity, is_sha256_of, kept_head, look_at_head,
    look_at_memory, own_name, publishers,
};
use crate::fleet::former::FormerKeys;
use crate::fleet::head::SignedHead;
use crate::fleet::name::{FleetName, NodeName};
use crate::fleet::node_list::NodeList;
use crate::fleet::overview::{
    FleetOverview, FleetProblem, HeadLineage, HeadLineages, LineageProblem, node_row, problem, staleness,
    together, unreadable_row,
};
use crate::fleet::page::PageEntry;
use crate::fleet::reach::{Patience, reach};
use crate::fleet::sshsig::VerifyingKey;
use crate::fleet::store::{FleetStore, StoreKey, get_one};
use crate::fleet::trouble::FleetTrouble;
use crate::plan::client::Client;
use crate::plan::warning::Warning;
use crate::status::advice::{PUBLISH, span};
use crate::status::judge::{Site, other_than_published};
use crate::status::observation::Sight;
use crate::status::problem::Problem;
use crate::status::publisher::{look_around, without_haproxy};
use crate::status::severity::{PlaceState, ProblemKind, Severity};
use crate::status::status_of_published;
use crate::status::troubles::{cannot_publish, failed_publish};
use crate::sys::clock::now;
use crate::sys::escape::escaped;
use crate::sys::failure::{Failure, FailureKind};
use crate::sys::parallel::Progress;

/// Looks at the fleet.
///
/// # Errors
/// The settings know of no fleet, or can't be used.
pub fn status(settings: &Settings, progress: Progress<'_>) -> Result<FleetOverview, Failure> {
    let mut overview = look(settings)?;
    if settings.published().is_some() {
        let own = unpublished(settings, overview.at, progress);
        overview.problems.extend(own);
    }
    if !overview.problems.iter().any(|it| it.trouble == FleetTrouble::Expired) {
        let published = overview.lineages.as_ref().and_then(|lineages| expired(lineages, overview.at));
        overview.problems.extend(published);
    }
    Ok(overview)
}

/// What the store has.
fn look(settings: &Settings) -> Result<FleetOverview, Failure> {
    let fleet = settings.fleet.as_ref().ok_or_else(|| Failure::config("the settings have no [fleet]"))?;
    let name = fleet_name(fleet)?;
    let keys = keys(fleet)?;
    let at = now();
    let opened = look_at_head(fleet, part(fleet)).ok().flatten();
    let mut overview = FleetOverview {
        at,
        fleet: fleet.name.clone(),
        store: fleet.store.to_string(),
        head: None,
        lineages: opened.as_ref().map(lineages),
        nodes: Vec::new(),
        problems: Vec::new(),
    };
    let memory = match look_at_memory(fleet) {
        Ok(memory) => memory.unwrap_or_default(),
        // Others may look at the store alone.
        Err(failure) if failure.kind == FailureKind::Permission => FleetMemory::default(),
        Err(failure) => return Err(failure),
    };
    // Before the store is asked: a head that is published meanwhile is no roll-back.
    let kept = kept_head(fleet).ok().flatten().filter(|signed| signed.head.fleet == name);
    let mut seen = known(fleet, kept.as_ref(), memory.heads.clone());
    seen.trust_only(&keys);
    // Where the store shows no head that counts, the age of the last one is judged.
    let stale = kept.as_ref().and_then(|signed| staleness(signed, at));
    let former = if fleet.is_publisher() { memory.former.clone() } else { FormerKeys::default() };
    let store = match reach(fleet, Patience::Short) {
        Ok(store) => store,
        Err(failure) => {
            overview.problems.push(problem(FleetTrouble::FleetUnreachable, failure.message));
            overview.problems.extend(stale);
            return Ok(overview);
        }
    };
    let value = match get_one(store.as_ref(), StoreKey::Head) {
        Ok(found) => found.map(|stored| stored.bytes),
        Err(e) => {
            overview.problems.push(problem(FleetTrouble::of_store(&e), e.to_string()));
            overview.problems.extend(stale);
            return Ok(overview);
        }
    };
    let Some(value) = value else {
        let fact = format!("the store has no head of the fleet {name}");
        overview.problems.push(problem(FleetTrouble::FleetEmpty, fact));
        overview.problems.extend(stale);
        if let Some(opened) = &opened {
            look_at_nodes(&mut overview, store.as_ref(), (&name, &opened.nodes), (&opened.signed, &former));
        }
        return Ok(overview);
    };
    overview.head = match accept(&value, &seen, &name, &keys, at) {
        Ok(Accepted::New(signed) | Accepted::Unchanged(signed)) => Some(signed),
        Err(RefusedHead::Expired { head, .. }) => {
            overview.problems.extend(staleness(&head, at));
            Some(*head)
        }
        Err(refused) => {
            overview.problems.push(problem(FleetTrouble::of(&refused), refused.to_string()));
            overview.problems.extend(stale);
            // Its nodes are shown all the same, where it is signed by whom it should be.
            SignedHead::read(&value)
                .ok()
                .filter(|signed| keys.contains(&signed.publisher) && signed.head.fleet == name)
        }
    };
    let Some(signed) = &overview.head.clone() else { return Ok(overview) };
    let members = match members(store.as_ref(), signed) {
        Ok(members) => members,
        Err(problem) => {
            overview.problems.push(problem);
            return Ok(overview);
        }
    };
    look_at_nodes(&mut overview, store.as_ref(), (&name, &members), (signed, &former));
    overview.problems.extend(not_a_node(fleet, signed, &members));
    if fleet.is_publisher() {
        // As the settings say now, whether or not that is published.
        let listed = publish::members(fleet)?;
        let mut memory = memory;
        memory.former.note(members.iter(), signed.head.epoch, &listed);
        let readers = memory.readers(signed.head.epoch, |name| listed.get(name).is_some());
        let problems = readers.into_iter().map(|fact| problem(FleetTrouble::FleetNotRotated, fact));
        overview.problems.extend(problems);
    }
    Ok(overview)
}

/// What these nodes say of themselves, compared with this head.
fn look_at_nodes(
    overview: &mut FleetOverview,
    store: &dyn FleetStore,
    (name, members): (&FleetName, &NodeList),
    (signed, former): (&SignedHead, &FormerKeys),
) {
    let nodes: Vec<&NodeName> = members.iter().map(|(node, _)| node).collect();
    match reports(store, &nodes) {
        Ok(values) => {
            let rows = members.iter().zip(values).map(|((node, key), value)| match value {
                Ok(value) => {
                    node_row((node, key), value.as_deref(), name, (Some(signed), former), overview.at)
                }
                Err(e) => unreadable_row(node, e.to_string()),
            });
            overview.nodes = rows.collect();
        }
        Err(e) => overview.problems.push(problem(FleetTrouble::FleetUnreachable, e.to_string())),
    }
}

/// What this host, which is the publisher, should have published, and hasn't.
fn unpublished(settings: &Settings, at: i64, progress: Progress<'_>) -> Vec<FleetProblem> {
    let settings = without_haproxy(settings);
    let ground = look_around(&settings, progress);
    let of_status = |found: Problem| FleetProblem {
        trouble: FleetTrouble::RunFailed,
        severity: found.severity,
        fact: found.fact,
        advice: None,
    };
    let failed =
        failed_publish(ground.last_run.here(), at).or(ground.unwritable_cache.as_deref().map(cannot_publish));
    let mut problems: Vec<FleetProblem> = failed.map(of_status).into_iter().collect();
    let judged = status_of_published(&settings, ground, at);
    let (mut gone, mut refused, mut unpublished) = (Vec::new(), Vec::new(), Vec::new());
    for site in &judged.sites {
        let Some(found) = behind(site, judged.client) else { continue };
        match () {
            () if site.views.certbot == Sight::Absent => gone.push(found),
            () if refusal(site).is_some() => refused.push(found),
            () => unpublished.push(found),
        }
    }
    let all = [unpublished, refused, gone].map(|found| together(FleetTrouble::NotPublished, found));
    problems.extend(all.into_iter().flatten());
    for (warning, trouble) in
        [(Warning::Expired, FleetTrouble::Expired), (Warning::ExpiresSoon, FleetTrouble::ExpiresSoon)]
    {
        let found = judged.sites.iter().filter_map(|site| ending(site, warning));
        problems.extend(together(trouble, found.collect()));
    }
    if let Some(why) = judged.error.map(|failure| failure.message).or(judged.unseen.into_iter().next()) {
        let fact = format!("whether everything is published can't be seen: {why}");
        problems.push(FleetProblem {
            trouble: FleetTrouble::NotPublished,
            severity: Severity::Unknown,
            fact,
            advice: None,
        });
    }
    problems
}

/// What is published of a lineage otherwise than certbot has it, as bad as this host's own status says.
fn behind(site: &Site, client: Client) -> Option<LineageProblem> {
    let lineage = escaped(site.views.lineage.as_ref()?.as_encoded_bytes()).to_string();
    let refused = refusal(site);
    let own = site.problems.iter().find(|it| it.kind == ProblemKind::NotPublished);
    let nothing = || refused.filter(|_| site.published == Some(PlaceState::Missing));
    let what = other_than_published(&site.views, client)
        .or_else(|| nothing().map(|_| "nothing of it is published".to_owned()))?;
    let fact = match refused {
        Some(why) => format!("{lineage}: {what}: {}: {}", why.kind.name(), why.fact),
        None => format!("{lineage}: {what}"),
    };
    let severity = own.into_iter().chain(refused).map(|it| it.severity).max()?;
    let advice = refused.or(own).and_then(|it| it.advice.clone());
    // A run that publishes mends what nothing is wrong with.
    let advice = advice.filter(|advice| advice != PUBLISH);
    Some(LineageProblem { severity, fact, advice })
}

/// Why a lineage is refused, by this host's own status.
fn refusal(site: &Site) -> Option<&Problem> {
    site.problems.iter().find(|it| matches!(it.kind, ProblemKind::Refused(_)))
}

/// That what is published of a lineage has expired, or will in a moment.
fn ending(site: &Site, warning: Warning) -> Option<LineageProblem> {
    let is_it = |it: &&Problem| it.kind == ProblemKind::Warned(warning) && it.severity == Severity::Critical;
    let found = site.problems.iter().find(is_it).filter(|_| site.views.in_edition().is_some())?;
    let lineage = escaped(site.views.lineage.as_ref()?.as_encoded_bytes());
    let fact = format!("{lineage}: {}", found.fact);
    Some(LineageProblem { severity: found.severity, fact, advice: found.advice.clone() })
}

/// That lineages of the head have expired, as far as that alone tells.
fn expired(lineages: &HeadLineages, at: i64) -> Option<FleetProblem> {
    let past = lineages.all.iter().filter(|(_, lineage)| lineage.not_after < at);
    let judged = |(name, lineage): (&String, &HeadLineage)| LineageProblem {
        severity: Severity::Critical,
        fact: format!(
            "{}: the certificate that is published expired {} ago",
            escaped(name),
            span(at - lineage.not_after)
        ),
        advice: None,
    };
    together(FleetTrouble::Expired, past.map(judged).collect())
}

/// The heads that counted here: on the publisher it is the one that it published last.
fn known(fleet: &Fleet, kept: Option<&SignedHead>, heads: KnownHeads) -> KnownHeads {
    let mut known = if fleet.is_node() { heads } else { KnownHeads::default() };
    if let Some(signed) = kept {
        known.remember(signed);
    }
    known
}

/// The nodes that the head names.
fn members(store: &dyn FleetStore, signed: &SignedHead) -> Result<NodeList, FleetProblem> {
    let key = StoreKey::Page(signed.head.nodes);
    let shown = key.to_string();
    let unusable = |trouble, why: &str| {
        problem(trouble, format!("number {}: {shown}, the list of its nodes, {why}", signed.head.sequence))
    };
    let found = get_one(store, key).map_err(|e| problem(FleetTrouble::of_store(&e), e.to_string()))?;
    let Some(stored) = found else {
        return Err(unusable(FleetTrouble::FleetIncomplete, "isn't there"));
    };
    let list = NodeList::read(&stored.bytes).ok().filter(|_| is_sha256_of(&signed.head.nodes, &stored.bytes));
    let trouble = if stored.settled { FleetTrouble::FleetDamaged } else { FleetTrouble::FleetIncomplete };
    list.ok_or_else(|| unusable(trouble, "isn't what the head names"))
}

/// That the head doesn't name this host, which is a node.
fn not_a_node(fleet: &Fleet, signed: &SignedHead, members: &NodeList) -> Option<FleetProblem> {
    // Who only watches the fleet has no keys.
    let identity = identity(fleet).ok().filter(|_| fleet.is_node())?;
    if own_name(members, &identity).is_some() {
        return None;
    }
    let head = &signed.head;
    let fact = format!("number {} of the fleet {} doesn't name this host", head.sequence, head.fleet);
    Some(problem(FleetTrouble::FleetNotANode, fact))
}

/// Whose heads count here.
fn keys(fleet: &Fleet) -> Result<Vec<VerifyingKey>, Failure> {
    if fleet.is_node() { publishers(fleet) } else { Ok(vec![identity(fleet)?.public().signing]) }
}

/// As which host this one reads.
fn part(fleet: &Fleet) -> HostPart {
    if fleet.is_node() { HostPart::Node } else { HostPart::Publisher }
}

/// What the head that counts here names.
fn lineages(opened: &Opened) -> HeadLineages {
    let lineage =
        |entry: &PageEntry| HeadLineage { serial: entry.serial.clone(), not_after: entry.not_after };
    HeadLineages {
        sequence: opened.signed.head.sequence,
        hash: opened.signed.hash,
        all: opened.entries.iter().map(|(name, entry)| (name.clone(), lineage(entry))).collect(),
    }
}
