//! `fleet follow`: one way for an event, a time-out and the timer. Read the head, judge it, fetch what is missing, switch
//! the cache over when it is complete, deploy from it, report.

mod followed;
mod looking;
mod noting;
mod reporting;
mod taking;

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

pub use self::followed::Followed;
use crate::commands::assemble::{Options, assemble_from};
use crate::config::Settings;
use crate::config::fleet::Fleet;
use crate::fleet::cache::{
    CacheFolder, FleetCache, FleetMemory, HostPart, fleet_name, identity, own_name, publishers,
};
use crate::fleet::identity::HostIdentity;
use crate::fleet::name::FleetName;
use crate::fleet::overview::expired;
use crate::fleet::sshsig::VerifyingKey;
use crate::fleet::store::{FleetStore, Revision};
use crate::fleet::trouble::FleetTrouble;
use crate::output::Exit;
use crate::source::Source;
use crate::sys::clock::now;
use crate::sys::failure::Failure;
use crate::sys::parallel::Progress;
use crate::sys::system::System;

/// A node gives a sign of life so often, whatever happens.
pub const SIGN_OF_LIFE: i64 = 15 * 60;

/// A node looks at everything so often, whatever the head says, and proves all of it.
const DAY: i64 = 24 * 60 * 60;

/// A node that follows its fleet.
pub struct Follower<'a> {
    settings: &'a Settings,
    fleet: &'a Fleet,
    system: &'a System,
    name: FleetName,
    publishers: Vec<VerifyingKey>,
    identity: HostIdentity,
    /// Opened when it is asked first: where it can't be, the node goes on with what it has.
    store: Option<Arc<dyn FleetStore>>,
    /// The store's head as it was seen last.
    pub revision: Option<Revision>,
}

/// How a look goes about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closely {
    /// Everything is looked at.
    All,
    /// What was fine a moment ago isn't looked at again.
    Changes,
}

impl<'a> Follower<'a> {
    /// By these settings.
    ///
    /// # Errors
    /// This host follows no fleet, or its keys are missing.
    pub fn new(settings: &'a Settings, system: &'a System) -> Result<Self, Failure> {
        let fleet = settings.followed().ok_or_else(|| {
            Failure::config("this host follows no fleet: the settings need [fleet] with publishers")
        })?;
        Ok(Self {
            name: fleet_name(fleet)?,
            publishers: publishers(fleet)?,
            identity: identity(fleet)?,
            store: None,
            revision: None,
            settings,
            fleet,
            system,
        })
    }

    /// One look. `pause`: called with how long to wait before what is new is deployed; whether to go on then.
    ///
    /// # Errors
    /// The cache can't be opened or locked.
    pub fn once(
        &mut self,
        look: Closely,
        progress: Progress<'_>,
        pause: &dyn Fn(Duration) -> bool,
    ) -> Result<Followed, Failure> {
        let folder = CacheFolder::lock(&self.fleet.cache)?;
        let mut memory = folder.memory()?;
        memory.heads.trust_only(&self.publishers);
        let kept = folder.open(self.fleet, &self.identity, HostPart::Node).ok().flatten();
        let before = kept.as_ref().map(|kept| kept.signed.hash);
        if let Some(kept) = &kept {
            memory.heads.remember(&kept.signed);
        }
        memory.tried = now();
        let mut done = Followed { fleet: self.fleet.name.clone(), ..Followed::default() };
        let has_ended = Cell::new(false);
        let pause = |time: Duration| {
            has_ended.set(!pause(time));
            !has_ended.get()
        };
        let opened = match self.take(&folder, &mut memory, kept.as_ref(), look, &pause) {
            Ok(taken) => taken.or(kept),
            Err((trouble, fact)) => {
                done.trouble = Some((trouble, fact));
                kept
            }
        };
        memory.held.clone_from(&done.trouble);
        if has_ended.get() {
            // Nothing more is done by what it began with.
            self.keep(&folder, &mut memory, &mut done);
            return Ok(done);
        }
        let Some(opened) = opened else {
            self.report_memory(look, &mut memory, &mut done);
            self.keep(&folder, &mut memory, &mut done);
            return Ok(done);
        };
        memory.heads.remember(&opened.signed);
        let head = &opened.signed.head;
        done.sequence = Some(head.sequence);
        done.is_new = before != Some(opened.signed.hash);
        let node = own_name(&opened.nodes, &self.identity);
        done.node = node.as_ref().map(ToString::to_string);
        memory.node = node.or(memory.node);
        let at = now();
        if done.trouble.is_none() && head.expires <= at {
            done.trouble = Some((FleetTrouble::FleetStale, expired(&opened.signed)));
            memory.held.clone_from(&done.trouble);
        }
        let is_over = |since, after| is_over(at, since, after);
        let is_due = is_over(memory.looked, DAY) || memory.unfinished;
        let left_out = self.left_out(&opened);
        if done.trouble.is_none() && (look == Closely::All || is_due) {
            folder.tidy(&opened);
        }
        if look == Closely::All || done.is_new || is_due {
            let options = Options { full: is_over(memory.proved, DAY), ..Options::default() };
            let source = FleetCache::of(self.fleet, opened).map(|cache| Source::Fleet(Box::new(cache)));
            let report = assemble_from(source.ok(), self.settings, self.system, &options, progress);
            memory.unfinished = report.exit(false) != Exit::Fine;
            memory.looked = at;
            if options.full && !memory.unfinished {
                memory.proved = at;
            }
            if done.is_new || memory.since == 0 {
                memory.since = now();
            }
            if memory.unfinished {
                let found = self.exceptions(&report, &left_out);
                (memory.exceptions, memory.notes) = (found.exceptions, found.notes);
                memory.is_confirmed = false;
                (done.unserved, done.is_untold) = (found.unsaid, found.is_untold);
            }
            done.run = Some(report);
        }
        let is_silent = is_over(memory.told, SIGN_OF_LIFE);
        let mut is_other = false;
        // What was confirmed once needn't be served now: all of it is looked at, but for what was so a moment ago and what
        // this run itself confirmed.
        let was_fine = !memory.unfinished;
        let are_noted = !left_out.is_empty() || !memory.notes.is_empty();
        let is_known = look == Closely::Changes
            && memory.is_confirmed
            && !is_over(memory.seen, SIGN_OF_LIFE)
            && done.run.as_ref().is_none_or(|run| !are_noted && self.says_it_all(run));
        if was_fine && !is_known {
            let found = self.unserved(done.run.as_ref(), &left_out);
            is_other = found.exceptions != memory.exceptions || found.notes != memory.notes;
            memory.seen = at;
            memory.is_confirmed = found.exceptions.is_empty();
            (memory.exceptions, memory.notes) = (found.exceptions, found.notes);
            (done.unserved, done.is_untold) = (found.unsaid, found.is_untold);
        }
        is_other |= !memory.has_told(done.trouble.as_ref());
        if done.run.is_some() || is_silent || is_other {
            self.report(&mut memory, &mut done);
        }
        self.keep(&folder, &mut memory, &mut done);
        Ok(done)
    }

    /// Remembers. Where that can't be, the fleet is told: this host's own status can't hear of it.
    fn keep(&self, folder: &CacheFolder, memory: &mut FleetMemory, done: &mut Followed) {
        let Err(failure) = folder.remember(memory) else { return };
        let is_worse = done.trouble.as_ref().is_some_and(|(trouble, _)| {
            let is_as_bad =
                matches!(trouble, FleetTrouble::FleetNotFollowed | FleetTrouble::FleetUnreachable);
            is_as_bad || trouble.is_alarm()
        });
        if !is_worse {
            done.trouble = Some((FleetTrouble::FleetNotFollowed, failure.message));
            self.report(memory, done);
        }
    }

    /// Where nothing is here any more: what this node had is told all the same, so that a publisher that lost everything too
    /// hears which number it has to pass.
    fn report_memory(&self, look: Closely, memory: &mut FleetMemory, done: &mut Followed) {
        memory.is_confirmed = false;
        let is_silent = is_over(now(), memory.told, SIGN_OF_LIFE);
        let is_other = !memory.has_told(done.trouble.as_ref());
        if look == Closely::All || is_silent || is_other {
            self.report(memory, done);
        }
    }

    /// Uses a store that is open already, of which this head was seen last.
    pub fn go_on_with(&mut self, store: Arc<dyn FleetStore>, revision: Option<Revision>) {
        self.store = Some(store);
        self.revision = revision;
    }

    /// The store, where it could be opened.
    #[must_use]
    pub fn store(&self) -> Option<Arc<dyn FleetStore>> {
        self.store.clone()
    }
}

/// Whether so much time has passed since then; a time that is still to come counts as long ago.
fn is_over(at: i64, since: i64, after: i64) -> bool {
    at - since >= after || since > at
}
