//! What a host's own status says of its fleet: what the last looks at the store left, and how old the head is.

use crate::config::Settings;
use crate::fleet::cache::{can_follow, kept_head, look_at_memory};
use crate::fleet::overview::{FleetProblem, SILENCE, problem as of_fleet, staleness};
use crate::fleet::trouble::FleetTrouble;
use crate::status::advice::span;
use crate::status::problem::{Problem, problem};
use crate::status::severity::ProblemKind;
use crate::sys::failure::Failure;

/// The problems of the fleet that this host belongs to.
///
/// # Errors
/// What it has of the fleet can't be read.
pub fn problems(settings: &Settings, now: i64) -> Result<Vec<Problem>, Failure> {
    let (followed, published) = (settings.followed(), settings.published());
    let Some(fleet) = followed.or(published) else { return Ok(Vec::new()) };
    let memory = look_at_memory(fleet)?.unwrap_or_default();
    let is_listed = |name: &str| fleet.nodes.iter().any(|node| node.name == name);
    let mut found: Vec<FleetProblem> = Vec::new();
    let signed = kept_head(fleet)?;
    let of_publisher = signed.as_ref().filter(|_| published.is_some());
    let readers = of_publisher.map(|it| memory.readers(it.head.epoch, is_listed)).unwrap_or_default();
    let stale = signed.and_then(|signed| staleness(&signed, now));
    if followed.is_some() {
        let held = memory.held.filter(|(trouble, _)| *trouble != FleetTrouble::FleetStale || stale.is_none());
        found.extend(held.map(|(trouble, fact)| of_fleet(trouble, fact)));
        let age = now - memory.tried;
        found.extend(memory.unreported.map(|fact| of_fleet(FleetTrouble::FleetUnreported, fact)));
        if let Err(failure) = can_follow(fleet) {
            found.push(of_fleet(FleetTrouble::FleetNotFollowed, failure.message));
        } else if memory.tried == 0 {
            let fact = "nothing has looked for the fleet's head yet".to_owned();
            found.push(of_fleet(FleetTrouble::FleetNotFollowed, fact));
        } else if age >= SILENCE {
            let fact = format!("nothing has looked for the fleet's head for {}", span(age));
            found.push(of_fleet(FleetTrouble::FleetNotFollowed, fact));
        }
    }
    found.extend(stale);
    found.extend(readers.into_iter().map(|fact| of_fleet(FleetTrouble::FleetNotRotated, fact)));
    let as_problem = |it: FleetProblem| {
        let advice = it.advice().to_owned();
        problem(ProblemKind::Fleet(it.trouble), it.severity, it.fact, Some(advice))
    };
    Ok(found.into_iter().map(as_problem).collect())
}
