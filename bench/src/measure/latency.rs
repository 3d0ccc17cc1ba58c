//! Latency of 48 bytes from one process to another: there and back as fast as it goes, and one way at a fixed rate.

use anyhow::Result;

use crate::endpoint::{Form, Work};
use crate::record::Results;
use crate::registry::{Registered, Transports};
use crate::run::Run;
use crate::session::{Options, Session, latency_values};
use crate::table::{Column, Table, column};
use crate::transport::Wait;
use crate::transports::SHMBUS_FENCE;

/// 20,000 messages a second: far from what any of them can do, so that queues are empty.
const INTERVAL_NS: u64 = 50_000;
pub(crate) const PAYLOAD: usize = 48;
pub(crate) const ROUND_TRIP: &str = "round trip";
pub(crate) const ONE_WAY: &str = "one way, 20,000/s";

pub(crate) const COLUMNS: [Column; 8] = [
    column("p50 µs", "p50_ns", 1e3, 2),
    column("p90", "p90_ns", 1e3, 2),
    column("p99", "p99_ns", 1e3, 2),
    column("p99.9", "p999_ns", 1e3, 1),
    column("max", "max_ns", 1e3, 0),
    column("without clock", "mean_ns", 1e3, 3),
    column("× probe", "per_probe", 1.0, 2),
    column("CPU s/million", "cpu_s_per_million", 1.0, 2),
];

pub(crate) fn measure(transports: Transports, options: &Options) -> Result<Results> {
    let mut session = Session::new("latency", transports, options)?;
    let effort = options.effort();
    let mut plans = Vec::new();
    for wait in [Wait::Spin, Wait::Block] {
        let trips = effort.scale(if wait == Wait::Spin { 40_000 } else { 4_000 });
        let round_trip = Work::RoundTrip { trips };
        let one_way = Work::Paced { interval_ns: INTERVAL_NS, messages: effort.scale(4_000) };
        for transport in session.transports() {
            if !takes_part(transport, wait) {
                continue;
            }
            for (variant, work) in [(ROUND_TRIP, round_trip), (ONE_WAY, one_way)] {
                let form = Form::Plain;
                let payload = PAYLOAD;
                let run = Run { transport, payload, receivers: 1, wait, work, form, whole: true };
                session.plan(variant, run, &mut plans);
            }
        }
    }
    session.rounds(&plans, |_, outcome| latency_values(outcome))?;
    Ok(session.finish())
}

/// A fence in each publish is for those who sleep; a subscriber that may miss something is no faster where nothing is missed.
fn takes_part(transport: &dyn Registered, wait: Wait) -> bool {
    match transport.name() {
        SHMBUS_FENCE => wait == Wait::Block,
        name => name != "shmbus lossy",
    }
}

pub(crate) fn table(results: &Results) -> Table {
    Table::of(results, &COLUMNS)
}
