//! A histogram of times: three significant digits from a nanosecond to a minute, and as pairs in JSON.

use anyhow::Result;
use hdrhistogram::Histogram;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// Times of at least a nanosecond; longer ones than this are counted as this.
const LONGEST_NS: u64 = 60_000_000_000;

#[derive(Clone, Debug)]
pub(super) struct Latency(Histogram<u64>);

impl Latency {
    pub(super) fn new() -> Result<Latency> {
        Ok(Latency(Histogram::new_with_bounds(1, LONGEST_NS, 3)?))
    }

    /// Enters the time from `due_ns` to `now_ns`.
    pub(super) fn record(&mut self, due_ns: u64, now_ns: u64) {
        self.0.saturating_record(now_ns.saturating_sub(due_ns).max(1));
    }

    pub(super) fn add(&mut self, other: &Latency) {
        for (value_ns, count) in other.pairs() {
            self.0.saturating_record_n(value_ns, count);
        }
    }

    /// The distribution in five numbers; `None` if nothing was entered.
    pub(super) fn summary(&self) -> Option<Summary> {
        (!self.0.is_empty()).then(|| Summary {
            p50: self.0.value_at_quantile(0.5),
            p99: self.0.value_at_quantile(0.99),
            p999: self.0.value_at_quantile(0.999),
            max: self.0.max(),
            mean: self.0.mean().round() as u64,
        })
    }

    fn pairs(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value()))
    }
}

/// A distribution, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Summary {
    pub(super) p50: u64,
    pub(super) p99: u64,
    pub(super) p999: u64,
    pub(super) max: u64,
    pub(super) mean: u64,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn of(times_ns: impl IntoIterator<Item = u64>) -> Latency {
        let mut latency = Latency::new().expect("constant bounds");
        for time_ns in times_ns {
            latency.record(1_000, 1_000 + time_ns);
        }
        latency
    }

    /// Equal to three significant digits.
    fn close(a: u64, b: u64) -> bool {
        a.abs_diff(b) * 500 <= a.max(b)
    }

    #[test]
    fn quantiles_are_those_of_the_times() {
        let summary = of((1..=1000).map(|n| n * 1_000)).summary().expect("not empty");
        assert!(close(summary.p50, 500_000), "{summary:?}");
        assert!(close(summary.p99, 990_000), "{summary:?}");
        assert!(close(summary.p999, 999_000), "{summary:?}");
        assert!(close(summary.max, 1_000_000), "{summary:?}");
    }

    #[test]
    fn a_histogram_survives_json_and_adds_up() {
        let times = of([5, 700, 700, 31_337, 9_999_999]);
        let json = serde_json::to_string(&times).expect("serialises");
        let mut again: Latency = serde_json::from_str(&json).expect("deserialises");
        assert_eq!(again.summary(), times.summary());
        again.add(&of([59_000_000_000]));
        assert!(close(again.summary().expect("not empty").max, 59_000_000_000));
    }

    #[test]
    fn nothing_entered_is_no_distribution() {
        assert_eq!(of([]).summary(), None);
    }

    #[test]
    fn a_receipt_before_the_due_time_and_one_hours_later_are_clamped() {
        let mut latency = of([u64::MAX - 1_000]);
        latency.record(10, 9);
        let summary = latency.summary().expect("not empty");
        assert!(close(summary.max, LONGEST_NS) && summary.p50 <= 2, "{summary:?}");
    }
}
