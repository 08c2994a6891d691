//! What time it is, and whether the clock was set.

use std::time::SystemTime;

use rustix::time::{ClockId, clock_gettime};

/// How often the clocks are read again where the process had to wait between two of them.
const TRIES: usize = 8;

/// Two readings further apart than this, in nanoseconds, are made again.
const TOGETHER: i128 = 1_000_000;

/// The time, in seconds since 1970.
#[must_use]
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// A moment, by the clock and by the time since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// By the clock: nanoseconds since 1970.
    pub at: i128,
    /// By the clock as the kernel has it for files, which goes on tick by tick: whatever is changed from now on gets this
    /// time or a later one.
    pub tick: i128,
    /// By how much the clock is ahead of the time since boot, at least and at most.
    ahead: (i128, i128),
}

impl Moment {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        let (at, tick) = (nanoseconds(ClockId::Realtime), nanoseconds(ClockId::RealtimeCoarse));
        let mut ahead = (i128::MIN, i128::MAX);
        for _ in 0..TRIES {
            let before = nanoseconds(ClockId::Realtime);
            let since_boot = nanoseconds(ClockId::Boottime);
            let after = nanoseconds(ClockId::Realtime);
            ahead = (before - since_boot, after - since_boot);
            if (0..TOGETHER).contains(&(after - before)) {
                break;
            }
        }
        Self { at, tick, ahead }
    }

    /// By how much the clock is ahead of the time since boot, in nanoseconds: it changes where the clock is set.
    #[must_use]
    pub fn ahead(&self) -> i128 {
        i128::midpoint(self.ahead.0, self.ahead.1)
    }

    /// Whether the clock was set between these two moments, by more than the reading itself takes.
    #[must_use]
    pub fn was_set_until(&self, later: &Self) -> bool {
        self.ahead.1 < later.ahead.0 || later.ahead.1 < self.ahead.0
    }
}

fn nanoseconds(clock: ClockId) -> i128 {
    let time = clock_gettime(clock);
    i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_is_noticed() {
        let then = Moment { at: 1, tick: 1, ahead: (100, 110) };
        for (ahead, was_set) in
            [((95, 99), true), ((95, 100), false), ((105, 106), false), ((111, 120), true)]
        {
            assert_eq!(then.was_set_until(&Moment { ahead, ..then }), was_set, "{ahead:?}");
        }
        let now = Moment::now();
        assert!(now.tick <= now.at && !now.was_set_until(&Moment::now()));
    }
}
