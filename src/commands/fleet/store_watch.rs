//! Waiting for what happens in a store while a node has nothing to do.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::thread::{sleep, spawn};
use std::time::Duration;

use crate::fleet::store::{FleetStore, Revision, Woken};

/// The longest that a wait of the store's takes before it is begun again.
const AT_MOST: Duration = Duration::from_secs(5 * 60);

/// A store that is away for no longer than this is not worth a look.
const BRIEFLY: Duration = Duration::from_secs(3);

/// What was told isn't told again before this time is over, unless another head was seen meanwhile.
const AGAIN: Duration = Duration::from_secs(15);

/// What there is to tell of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreNews {
    /// There is another head, or may be.
    Head,
    /// It can't be waited for: only a look says how it is.
    Deaf,
}

/// A store that is waited for by a thread of its own, until this value is dropped.
pub struct StoreWatch {
    store: Arc<dyn FleetStore>,
    seen: Option<Revision>,
    heads: Sender<Option<Revision>>,
}

impl StoreWatch {
    /// Waits for another head than this one in the store that the looks use: while nothing happens there is one connection.
    pub fn start(
        store: Arc<dyn FleetStore>,
        seen: Option<Revision>,
        tell: impl Fn(StoreNews) -> bool + Send + 'static,
    ) -> Self {
        let (heads, told) = channel();
        let waits_for = Arc::clone(&store);
        spawn(move || wait(&*waits_for, seen, &told, &tell));
        Self { store, seen, heads }
    }

    /// Whether it is this store that is waited for.
    #[must_use]
    pub fn is_of(&self, store: &Arc<dyn FleetStore>) -> bool {
        Arc::ptr_eq(&self.store, store)
    }

    /// Another head is waited for than this one.
    pub fn saw(&mut self, head: Option<Revision>) {
        if self.seen != head {
            self.seen = head;
            // Nobody waits any more: then the time-out does.
            let _ = self.heads.send(head);
        }
    }
}

fn wait(
    store: &dyn FleetStore,
    mut seen: Option<Revision>,
    heads: &Receiver<Option<Revision>>,
    tell: &impl Fn(StoreNews) -> bool,
) {
    loop {
        let news = match store.wait(seen, AT_MOST) {
            Ok(Woken::Changed) => Some(StoreNews::Head),
            Ok(Woken::TimedOut) => None,
            Err(_) => {
                sleep(BRIEFLY);
                Some(StoreNews::Deaf)
            }
        };
        if newest(heads, &mut seen).is_err() {
            return;
        }
        let Some(news) = news else { continue };
        if !tell(news) {
            return;
        }
        // What was seen is told when the look is done; where it is the same again, it isn't.
        match heads.recv_timeout(AGAIN) {
            Ok(newer) => seen = newer,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Nobody wants to know any more.
struct Dropped;

fn newest(heads: &Receiver<Option<Revision>>, seen: &mut Option<Revision>) -> Result<(), Dropped> {
    loop {
        match heads.try_recv() {
            Ok(newer) => *seen = newer,
            Err(TryRecvError::Empty) => return Ok(()),
            Err(TryRecvError::Disconnected) => return Err(Dropped),
        }
    }
}
