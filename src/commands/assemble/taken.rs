//! Files that are about to be replaced although no HAProxy is known to have them: where one has, the file comes back if what
//! replaces it is refused.

use std::time::{Duration, Instant};

use crate::certified_key::{Leaf, read_leaf};
use crate::config::{Method, Settings};
use crate::haproxy::cli::worker::{Worker, can_be_shown, may_die_of_names};
use crate::haproxy::methods::runtime::shown::is_of;
use crate::haproxy::target::Target;
use crate::sites::stage::{Overtaken, Staged};

/// It is no more than a help: so long at the most.
const PATIENCE: Duration = Duration::from_secs(3);

/// Asks the HAProxys for each of these files.
pub(crate) fn note_taken(settings: &Settings, staged: &mut Staged<'_>) {
    let deadline = Instant::now() + PATIENCE;
    let has_it = |overtaken: &Overtaken, leaf: &Leaf| {
        let is_small = is_small(overtaken);
        let told = settings.haproxys.iter().filter(|haproxy| haproxy.method != Method::None);
        told.flat_map(|haproxy| Worker::ways(haproxy).into_iter().map(move |worker| (haproxy, worker))).any(
            |(haproxy, worker)| {
                let is_safe =
                    is_small || worker.answering(deadline).is_ok_and(|it| !may_die_of_names(it.version));
                let store = is_safe.then(|| worker.store(&overtaken.target.spelled(haproxy), deadline));
                let store = store.and_then(|found| found.ok().flatten());
                store.is_some_and(|store| is_of(&store, &leaf.sha1, &leaf.serial))
            },
        )
    };
    let taken: Vec<Target> = staged
        .overtaken()
        .filter(|overtaken| {
            let leaf = read_leaf(&overtaken.pem).ok().filter(can_be_shown);
            leaf.is_some_and(|leaf| has_it(overtaken, &leaf))
        })
        .map(|overtaken| overtaken.target)
        .collect();
    for target in &taken {
        staged.note_taken(target);
    }
}

/// Whether whatever a HAProxy can have of it is small enough to be asked for.
fn is_small(overtaken: &Overtaken) -> bool {
    let was = overtaken.was.as_ref().map(|pem| read_leaf(pem));
    overtaken.is_alone && was.is_none_or(|was| was.is_ok_and(|leaf| can_be_shown(&leaf)))
}
