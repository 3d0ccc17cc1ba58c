//! A histogram of times: three significant digits from a nanosecond to a minute, and as pairs in JSON.

use anyhow::Result;
use hdrhistogram::Histogram;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// Longer times are counted as this.
const LONGEST_NS: u64 = 60_000_000_000;

/// A distribution of times.
#[derive(Clone, Debug)]
pub struct Latency(Histogram<u64>);

impl Latency {
    /// An empty one.
    ///
    /// # Errors
    /// None in practice: the bounds are constant.
    pub fn new() -> Result<Latency> {
        Ok(Latency(Histogram::new_with_bounds(1, LONGEST_NS, 3)?))
    }

    /// Enters the time from when a message was due to when it was there. Counting from the schedule, and not from when the
    /// sender came to send it, is what keeps a sender that was held up from hiding it.
    #[inline]
    pub fn record(&mut self, due_ns: u64, now_ns: u64) {
        self.0.saturating_record(now_ns.saturating_sub(due_ns).max(1));
    }

    /// Adds another one.
    pub fn add(&mut self, other: &Latency) {
        for (value_ns, count) in other.pairs() {
            self.0.saturating_record_n(value_ns, count);
        }
    }

    /// The time that a share of the messages needed at most, in nanoseconds; 0 where there are none.
    pub fn quantile_ns(&self, share: f64) -> u64 {
        if self.0.is_empty() { 0 } else { self.0.value_at_quantile(share) }
    }

    /// The longest.
    pub fn max_ns(&self) -> u64 {
        if self.0.is_empty() { 0 } else { self.0.max() }
    }

    /// How many were entered.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    fn pairs(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value()))
    }
}

impl Serialize for Latency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.pairs())
    }
}

impl<'de> Deserialize<'de> for Latency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Latency, D::Error> {
        let pairs = Vec::<(u64, u64)>::deserialize(deserializer)?;
        let mut latency = Latency::new().map_err(D::Error::custom)?;
        for (value_ns, count) in pairs {
            latency.0.saturating_record_n(value_ns, count);
        }
        Ok(latency)
    }
}

/// The times at which messages are due: fixed before the first is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    pub(crate) start_ns: u64,
    pub(crate) interval_ns: u64,
}

impl Schedule {
    /// When message `n` is due, CLOCK_MONOTONIC.
    #[inline]
    pub(crate) fn due_ns(&self, n: u64) -> u64 {
        self.start_ns.saturating_add(n.saturating_mul(self.interval_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_that_was_held_up_shows_in_every_message_that_was_late() {
        let schedule = Schedule { start_ns: 1_000, interval_ns: 100 };
        let mut latency = Latency::new().unwrap();
        // Held up until 2,000 when messages 0 to 9 were long due; all are sent then, and arrive at once.
        for n in 0..10 {
            latency.record(schedule.due_ns(n), 2_000);
        }
        assert_eq!((latency.count(), latency.max_ns()), (10, 1_000));
        assert_eq!(latency.quantile_ns(0.5), 500);
        assert_eq!(schedule.due_ns(u64::MAX), u64::MAX);
    }

    #[test]
    fn a_histogram_survives_json_and_adds_up() {
        let mut latency = Latency::new().unwrap();
        [5, 700, 700, 31_337].into_iter().for_each(|ns| latency.record(0, ns));
        let json = serde_json::to_string(&latency).unwrap();
        let mut again: Latency = serde_json::from_str(&json).unwrap();
        again.add(&latency);
        assert_eq!((again.count(), again.quantile_ns(0.5)), (8, 700));
        assert_eq!(Latency::new().unwrap().quantile_ns(0.5), 0);
    }
}
