//! What came of one look, and how it ends.

use crate::fleet::cache::KeptException;
use crate::fleet::trouble::FleetTrouble;
use crate::output::{Exit, Report};

/// What came of one look.
#[derive(Debug, Clone, Default)]
pub struct Followed {
    /// The fleet.
    pub fleet: String,
    /// This node's name, where the head has one.
    pub node: Option<String>,
    /// The number of the head that counts here now; `None`: there is none.
    pub sequence: Option<u64>,
    /// Whether that is another one than before.
    pub is_new: bool,
    /// Why the store's head isn't taken.
    pub trouble: Option<(FleetTrouble, String)>,
    /// What the run from the cache did; `None`: there was nothing to look at again.
    pub run: Option<Report>,
    /// What a look at the HAProxys found otherwise than the head says, and the run doesn't say.
    pub unserved: Vec<KeptException>,
    /// Whether a HAProxy that runs, or should, wasn't seen to have everything, though there is a way to see it.
    pub is_untold: bool,
    /// Whether the store answers again that didn't at the last look.
    pub is_back: bool,
    /// Why the report could not be put.
    pub unreported: Option<String>,
}

impl Followed {
    /// How a single look ends.
    #[must_use]
    pub fn exit(&self) -> Exit {
        let of_run = self.of_run();
        let of_look = if self.is_untold { Exit::Untold } else { Exit::Fine };
        let of_head = self.of_head();
        let of_report = if self.unreported.is_some() { Exit::Partly } else { Exit::Fine };
        [of_run, of_look, of_head, of_report].into_iter().max_by_key(|exit| exit.code()).unwrap_or(Exit::Fine)
    }

    fn of_run(&self) -> Exit {
        self.run.as_ref().map_or(Exit::Fine, |run| run.exit(false))
    }

    fn of_head(&self) -> Exit {
        match &self.trouble {
            None => Exit::Fine,
            Some((
                FleetTrouble::FleetUnreachable | FleetTrouble::FleetEmpty | FleetTrouble::FleetNotFollowed,
                _,
            )) => Exit::Unable,
            Some((trouble, _)) if trouble.is_alarm() => Exit::Untold,
            Some(_) => Exit::Partly,
        }
    }

    /// Whether it should be tried again soon. What a HAProxy serves isn't mended by trying again: that is only looked at.
    #[must_use]
    pub fn is_unfinished(&self) -> bool {
        self.of_run() != Exit::Fine || self.of_head() != Exit::Fine || self.unreported.is_some()
    }
}
