//! The process that publishes: one quote after the other, at the times of its schedule.

use super::bus::TopicPlace;
use super::child::{Line, cpu_time_ns, say};
use super::latency::Latency;
use super::quote::Quote;
use super::schedule::{Pace, Schedule};
use super::transport::{Address, Flow, Outlet, Role};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use shmbus_sys::clock::monotonic_ns;

/// What a feed is to do.
#[derive(Serialize, Deserialize)]
pub(super) struct FeedTask {
    pub(super) flow: Flow,
    pub(super) topic: Option<TopicPlace>,
    pub(super) receivers: Vec<(Role, Address)>,
    /// How many feeds were there before.
    pub(super) incarnation: u32,
    /// How many quotes are due; more than can be sent in any time: until it is killed.
    pub(super) count: u64,
    /// From being connected to the first quote.
    pub(super) lead_ns: u64,
    /// Whether each quote is begun, in its place in the topic, before its time has come, and finished after.
    pub(super) begin_early: bool,
}

/// What a feed did.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct FeedReport {
    pub(super) sent: u64,
    /// From the moment that a quote was due to the moment that the feed began to send it.
    pub(super) late: Latency,
    pub(super) cpu_ns: u64,
}

/// A feed that cannot hold its schedule gives up after so many times the time that it had.
const GIVE_UP_AFTER: u64 = 2;

/// From the last quote to the end of the stream.
const LEAD_OUT_NS: u64 = 20_000_000;

impl FeedTask {
    pub(super) fn run(&self) -> Result<FeedReport> {
        let mut outlet = Outlet::open(self.topic.as_ref(), &self.receivers, &self.flow)?;
        let mut pace = Pace::new(self.flow.wait, self.flow.spin());
        let mut late = Latency::new()?;
        say(&Line::Connected { at_ns: monotonic_ns() })?;

        let schedule = Schedule::starting_in(self.lead_ns, self.flow.rate);
        let length_ns = schedule.due_ns(self.count).saturating_sub(schedule.due_ns(0));
        let give_up_ns = schedule.due_ns(0).saturating_add(length_ns.saturating_mul(GIVE_UP_AFTER));
        let mut sent = 0;
        while sent < self.count {
            let due_ns = schedule.due_ns(sent);
            let quote = Quote::new(self.incarnation, sent, due_ns);
            if self.begin_early {
                outlet.send(|message| {
                    quote.begin(message);
                    pace.wait_until(due_ns);
                    late.record(due_ns, monotonic_ns());
                    quote.write(message);
                })?;
            } else {
                pace.wait_until(due_ns);
                let now_ns = monotonic_ns();
                if sent > 0 && now_ns >= give_up_ns {
                    break;
                }
                late.record(due_ns, now_ns);
                outlet.send(|message| quote.write(message))?;
            }
            sent += 1;
        }
        // As after every quote there is a pause after the last: what a feed does to end disturbs nobody's measurement.
        pace.wait_until(monotonic_ns() + LEAD_OUT_NS);
        let closing = Quote::closing(self.incarnation, sent, monotonic_ns());
        outlet.send_last(|message| closing.write(message))?;
        Ok(FeedReport { sent, late, cpu_ns: cpu_time_ns() })
    }
}
