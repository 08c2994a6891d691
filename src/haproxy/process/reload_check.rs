//! A check of the configuration before a reload, and what one says after a reload that failed.

use std::time::Instant;

use super::config_check::{AGAIN, ConfigCheck, check};
use super::master::Master;
use super::watch::Seen;
use crate::config::Haproxy;
use crate::haproxy::alerts;
use crate::haproxy::attempt::Attempt;
use crate::haproxy::batch::Batch;
use crate::sys::system::System;

/// Checks before a reload: the refusal, or else what there is to say about a check that could not be done.
pub(crate) fn before_reload(
    system: &System,
    haproxy: &Haproxy,
    batch: &Batch<'_>,
    master: &Master,
    deadline: Instant,
) -> Result<Option<String>, Attempt> {
    match check(system, haproxy, master, deadline) {
        ConfigCheck::Valid => Ok(None),
        ConfigCheck::Unchecked(why) => Ok(Some(format!("the configuration was not checked: {why}"))),
        ConfigCheck::Invalid { words, log } => {
            let files = alerts::named_changes(&log, haproxy, batch);
            Err(Attempt::Refused { words, files })
        }
    }
}

/// What came of a reload: a failed one is explained by HAProxy's own words where a check finds them.
pub(crate) fn after_reload(
    system: &System,
    haproxy: &Haproxy,
    batch: &Batch<'_>,
    master: &Master,
    seen: Seen,
    unchecked: Option<String>,
) -> Attempt {
    let told = |seen, facts: [Option<String>; 2]| {
        let facts: Vec<String> = facts.into_iter().flatten().collect();
        Attempt::Told { seen, detail: Some(facts.join("; ")).filter(|detail| !detail.is_empty()) }
    };
    match seen {
        Seen::Serving => told(Some(true), [unchecked, None]),
        Seen::TimedOut => {
            let limit = humantime::format_duration(haproxy.timeout);
            told(
                Some(false),
                [unchecked, Some(format!("no worker with the new files was seen within {limit}"))],
            )
        }
        Seen::CannotSee(why) => told(None, [unchecked, Some(why)]),
        Seen::Failed(why) => {
            before_reload(system, haproxy, batch, master, Instant::now() + AGAIN).err().unwrap_or_else(|| {
                Attempt::Unexplained(
                    [Some(why), unchecked].into_iter().flatten().collect::<Vec<_>>().join("; "),
                )
            })
        }
    }
}
