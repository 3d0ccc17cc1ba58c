//! How long a message that is written in place takes from when it is written to when it is read: a loan's commit and a receive, whatever the length.
//!
//! Written means that its bytes are in the cache, not in the processor's store buffer: the sender fences before it reads the clock.

use anyhow::Result;

use crate::endpoint::{Form, Work};
use crate::record::{Case, Results};
use crate::registry::Transports;
use crate::run::Run;
use crate::session::{Options, Session, latency_values};
use crate::table::{Column, Table, column};
use crate::transport::Wait;
use crate::transports::{BARE, SHMBUS_NAME};

const SMALL: usize = 64;
const ONE: usize = 1 << 20;
const LARGE: usize = 16 << 20;
const PAYLOADS: [usize; 3] = [SMALL, ONE, LARGE];

pub(crate) const COLUMNS: [Column; 7] = [
    column("p50 ns", "p50_ns", 1.0, 0),
    column("p90", "p90_ns", 1.0, 0),
    column("p99", "p99_ns", 1.0, 0),
    column("max", "max_ns", 1.0, 0),
    column("× probe", "per_probe", 1.0, 2),
    column("× 64 B", "per_small", 1.0, 3),
    column("× bare ring", "per_bare", 1.0, 3),
];

pub(crate) fn measure(transports: Transports, options: &Options) -> Result<Results> {
    let mut session = Session::new("handover", transports, options)?;
    let mut plans = Vec::new();
    for payload in PAYLOADS {
        for transport in session.transports() {
            if transport.name() != SHMBUS_NAME && transport.name().starts_with(SHMBUS_NAME) {
                continue; // the same loan and commit
            }
            // Writing 16 MiB takes some milliseconds besides.
            let messages = options.effort().scale(if payload == LARGE { 60 } else { 400 }).max(20);
            let work = Work::HandOver { pause_ns: 500_000, messages };
            let (wait, form) = (Wait::Spin, Form::InPlace);
            let run = Run { transport, payload, receivers: 1, wait, work, form, whole: false };
            session.plan("", run, &mut plans);
        }
    }
    session.rounds(&plans, |_, outcome| latency_values(outcome))?;
    let mut results = session.finish();
    results.relate("p50_ns", "per_small", |case, base| {
        base.payload == SMALL && base.transport == case.transport
    });
    results.relate("p50_ns", "per_bare", |case, base| {
        base.payload == case.payload && base.transport == BARE
    });
    Ok(results)
}

pub(crate) fn table(results: &Results) -> Table {
    Table::of(results, &COLUMNS)
}

/// The worse of two medians over the rounds: 1 MiB handed over / 64 B; and 16 MiB / by the bare ring, which is a store and a load: whoever has just written that
/// much finds nothing else in its caches, so that the machine, too, takes longer.
pub(crate) fn figure(results: &Results) -> Option<f64> {
    let median = |payload, ratio| {
        let of = |case: &Case| case.transport == SHMBUS_NAME && case.payload == payload;
        results.median(of, ratio)
    };
    Some(median(ONE, "per_small")?.max(median(LARGE, "per_bare")?))
}
