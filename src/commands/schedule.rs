//! When `assemble --interval` runs: how long it waits, and when a run proves everything.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::str::FromStr;
use std::time::Duration;

/// Shorter than this is no interval.
const SHORTEST: Duration = Duration::from_secs(1);

/// Longer than this, certificates of a few days would expire meanwhile.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// A wait is longer than the interval by a random time: at most by this part of it ...
const PART: u32 = 10;

/// ... and at most by as much as that of `haproxy-certs.timer`.
const MOST: Duration = Duration::from_secs(30 * 60);

/// Everything is proved so often, as by `haproxy-certs.timer`, whatever the index says.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long `assemble --interval` waits between two runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval(Duration);

/// What isn't an interval.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NoInterval {
    /// No duration.
    #[error("{0}; write 30s, 5m or \"1h 30m\"")]
    Unreadable(#[from] humantime::DurationError),
    /// None that makes sense.
    #[error("between 1s and 24h, please")]
    OutOfRange,
}

impl FromStr for Interval {
    type Err = NoInterval;

    fn from_str(text: &str) -> Result<Self, NoInterval> {
        let time = humantime::parse_duration(text)?;
        if (SHORTEST..=LONGEST).contains(&time) { Ok(Self(time)) } else { Err(NoInterval::OutOfRange) }
    }
}

impl Interval {
    /// How long to wait for the next run: so that many hosts which were started together don't go on together, a bit
    /// longer than the interval. `random`: any number.
    #[must_use]
    pub fn wait(self, random: u64) -> Duration {
        let most = (self.0 / PART).min(MOST).as_nanos();
        // A random number below 2^64 as a share of 2^64; at most half an hour times 2^64 fits.
        let more = (most * u128::from(random)) >> 64;
        self.0 + Duration::from_nanos(u64::try_from(more).unwrap_or_default())
    }
}

/// Whether the next run proves everything. `proved`: how long ago one did so last.
#[must_use]
pub fn is_proof_due(proved: Option<Duration>) -> bool {
    proved.is_none_or(|ago| ago >= DAY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn interval(text: &str) -> Interval {
        text.parse().unwrap()
    }

    #[test]
    fn an_interval_is_written_as_a_duration() {
        assert_eq!(interval("90s"), interval("1m 30s"));
        for text in ["", "5", "often", "-5m"] {
            assert!(matches!(text.parse::<Interval>(), Err(NoInterval::Unreadable(_))), "{text}");
        }
        for text in ["0s", "999ms", "24h 1s", "1year", "10000years"] {
            assert!(matches!(text.parse::<Interval>(), Err(NoInterval::OutOfRange)), "{text}");
        }
    }

    #[test]
    fn a_wait_is_the_interval_and_a_bit() {
        let seconds = |text: &str, random| interval(text).wait(random).as_secs_f64();
        assert_eq!(interval("1m").wait(0), Duration::from_secs(60));
        assert!((seconds("1m", u64::MAX) - 66.0).abs() < 1e-3);
        assert!((seconds("1m", u64::MAX / 2) - 63.0).abs() < 1e-3);
        assert!((seconds("24h", u64::MAX) - 88_200.0).abs() < 1e-3, "as the timer's");
    }

    proptest! {
        #[test]
        fn never_shorter_and_never_much_longer(seconds in 1_u64..=86_400, random: u64) {
            let time = Duration::from_secs(seconds);
            let wait = Interval(time).wait(random);
            prop_assert!(time <= wait && wait <= time + time / 10 && wait <= time + MOST);
        }
    }

    #[test]
    fn everything_is_proved_at_first_and_daily() {
        assert!(is_proof_due(None));
        assert!(!is_proof_due(Some(Duration::ZERO)));
        assert!(!is_proof_due(Some(DAY.saturating_sub(Duration::from_secs(1)))));
        assert!(is_proof_due(Some(DAY)));
    }
}
