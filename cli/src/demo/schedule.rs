//! When messages are due, and how a process waits.
//!
//! The times at which messages are due are fixed before the first is sent: message `n` is due at `start + n / rate`,
//! whatever happened to those before it. Latency is counted from there, so a feed that was held up (by a full pipe,
//! by the scheduler) shows in the latency of everything that it was late with, instead of sending less and looking well.

use rustix::thread::{sched_yield, set_current_timer_slack};
use serde::{Deserialize, Serialize};
use shmbus_sys::clock::{monotonic_ns, sleep_until_ns};
use std::hint::spin_loop;
use std::num::NonZeroU64;

/// What a process does while there is nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum Wait {
    /// Sleep in the kernel: receive() of the bus, read() of a socket or pipe.
    Block,
    /// Ask again and again: try_receive() of the bus, non-blocking read() of a socket or pipe.
    Spin,
}

/// The times at which the messages of one feed are due.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    start_ns: u64,
    rate: u64,
}

impl Schedule {
    /// `rate` messages per second, the first `lead_ns` from now. A rate of 0 is taken as 1.
    pub(super) fn starting_in(lead_ns: u64, rate: u64) -> Schedule {
        Schedule { start_ns: monotonic_ns() + lead_ns, rate: rate.max(1) }
    }

    /// When message `n` is due, CLOCK_MONOTONIC.
    pub(super) fn due_ns(&self, n: u64) -> u64 {
        let after_ns = u128::from(n) * 1_000_000_000 / u128::from(self.rate);
        self.start_ns.saturating_add(u64::try_from(after_ns).unwrap_or(u64::MAX))
    }
}

/// How a feed waits for the moment at which a message is due.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    wait: Wait,
    spin: Spin,
}

impl Pace {
    pub(super) fn new(wait: Wait, spin: Spin) -> Pace {
        if wait == Wait::Block {
            // Without this the kernel adds up to 50 us to each sleep. Where it may not be changed, latencies grow by it.
            let _ = set_current_timer_slack(NonZeroU64::new(1));
        }
        Pace { wait, spin }
    }

    /// Returns at `due_ns` or later; at once if that is past.
    pub(super) fn wait_until(&mut self, due_ns: u64) {
        match self.wait {
            Wait::Block => {
                if monotonic_ns() < due_ns {
                    sleep_until_ns(due_ns);
                }
            }
            Wait::Spin => {
                while monotonic_ns() < due_ns {
                    self.spin.turn();
                }
            }
        }
    }
}

/// One way of spinning for every process and transport of the demo.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spin {
    yields: bool,
    turns: u32,
}

/// Of a spinning process that shares its core: so many turns, then the core is offered to the others.
const TURNS_PER_YIELD: u32 = 32;

impl Spin {
    /// `yields`: there are more spinning processes than cores.
    pub(super) fn new(yields: bool) -> Spin {
        Spin { yields, turns: 0 }
    }

    pub(super) fn turn(&mut self) {
        self.turns = self.turns.wrapping_add(1);
        if self.yields && self.turns.is_multiple_of(TURNS_PER_YIELD) {
            sched_yield();
        } else {
            spin_loop();
        }
    }
}

/// The work of the slow subscriber: each message keeps it busy for so long that it manages half of the rate.
///
/// It sleeps, as if it waited for a disk, in pieces of a millisecond or more. Some time after the end of the schedule, when the
/// others have their last quotes and it is in nobody's way, it hurries: nobody wants to wait until it has worked off what a
/// large buffer has stored for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct SlowWork {
    per_message_ns: u64,
    busy_until_ns: u64,
    length_ns: u64,
    rate: u64,
    /// When it begins to hurry; unknown before the first message.
    end_ns: u64,
}

const NAP_NS: u64 = 1_000_000;
const HURRY_AFTER_NS: u64 = 50_000_000;

impl SlowWork {
    /// For a schedule of `rate` messages per second that is `length_ns` long.
    pub(super) fn half_of(rate: u64, length_ns: u64) -> SlowWork {
        let rate = rate.max(1);
        let per_message_ns = 2_000_000_000 / rate;
        SlowWork { per_message_ns, busy_until_ns: 0, length_ns, rate, end_ns: u64::MAX }
    }

    /// Works on message `sequence`, which was due at `due_ns`.
    pub(super) fn on(&mut self, sequence: u64, due_ns: u64, now_ns: u64) {
        if self.end_ns == u64::MAX {
            let since_start_ns = u128::from(sequence) * 1_000_000_000 / u128::from(self.rate);
            let start_ns = due_ns.saturating_sub(since_start_ns as u64);
            let length_ns = self.length_ns.saturating_add(HURRY_AFTER_NS);
            self.end_ns = start_ns.saturating_add(length_ns);
        }
        if now_ns >= self.end_ns {
            return;
        }
        self.busy_until_ns = self.busy_until_ns.max(now_ns) + self.per_message_ns;
        if self.busy_until_ns >= now_ns + NAP_NS {
            sleep_until_ns(self.busy_until_ns.min(self.end_ns));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_times_do_not_drift() {
        let schedule = Schedule { start_ns: 5, rate: 3 };
        assert_eq!(schedule.due_ns(0), 5);
        assert_eq!(schedule.due_ns(1), 5 + 333_333_333);
        assert_eq!(schedule.due_ns(3_000_000), 5 + 1_000_000_000_000_000);
    }

    #[test]
    fn a_schedule_without_end_does_not_overflow() {
        assert_eq!(Schedule { start_ns: 5, rate: 1 }.due_ns(u64::MAX), u64::MAX);
    }

    #[test]
    fn a_feed_is_never_early() {
        for wait in [Wait::Block, Wait::Spin] {
            let mut pace = Pace::new(wait, Spin::new(true));
            let due_ns = monotonic_ns() + 300_000;
            pace.wait_until(due_ns);
            assert!(monotonic_ns() >= due_ns);
        }
    }

    #[test]
    fn slow_work_takes_two_intervals_per_message_until_the_schedule_ends() {
        let start_ns = monotonic_ns();
        let mut work = SlowWork::half_of(10_000, 20_000_000);
        for sequence in 0..100 {
            work.on(sequence, start_ns + sequence * 100_000, monotonic_ns());
        }
        let ended_ns = monotonic_ns();
        assert!(
            ended_ns >= start_ns + 18_000_000,
            "100 messages of 200 us each, napping by the ms"
        );
        let busy_until_ns = work.busy_until_ns;
        work.on(100, start_ns + 10_000_000, start_ns + 20_000_000 + HURRY_AFTER_NS);
        assert_eq!(work.busy_until_ns, busy_until_ns, "after the end nothing takes time");
    }
}
