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
/// All bytes of the message, so that 16 MiB push everything else out of its caches.
const SENDER: &str = "written by the sender";
/// But for the first words and the last, as if a device had written it, a camera or a network card.
const DEVICE: &str = "written by a device";
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
    for (payload, by_device) in PAYLOADS.into_iter().flat_map(|len| [(len, false), (len, true)]) {
        for transport in session.transports() {
            if transport.name() != SHMBUS_NAME && transport.name().starts_with(SHMBUS_NAME) {
                continue; // the same loan and commit
            }
            // Writing 16 MiB takes some milliseconds besides.
            let is_slow = payload == LARGE && !by_device;
            let messages = options.effort().scale(if is_slow { 60 } else { 400 }).max(20);
            let work = Work::HandOver { pause_ns: 500_000, messages, by_device };
            let (wait, form) = (Wait::Spin, Form::InPlace);
            let run = Run { transport, payload, receivers: 1, wait, work, form, whole: false };
            session.plan(if by_device { DEVICE } else { SENDER }, run, &mut plans);
        }
    }
    session.rounds(&plans, |_, outcome| latency_values(outcome))?;
    let mut results = session.finish();
    results.relate("p50_ns", "per_small", |case, base| {
        let is_alike = base.variant == case.variant && base.transport == case.transport;
        is_alike && base.payload == SMALL
    });
    results.relate("p50_ns", "per_bare", |case, base| {
        let is_alike = base.variant == case.variant && base.payload == case.payload;
        is_alike && base.transport == BARE
    });
    Ok(results)
}

pub(crate) fn table(results: &Results) -> Table {
    Table::of(results, &COLUMNS)
}

/// The worst of four medians over the rounds: 1 MiB and 16 MiB written by a device, and 1 MiB written by the sender, / 64 B; and 16 MiB written by the sender / by
/// the bare ring, which is a store and a load: whoever has just written that much finds nothing else in its caches, so that the machine, too, takes longer.
pub(crate) fn figure(results: &Results) -> Option<f64> {
    let median = |variant: &str, payload, ratio| {
        let of = |case: &Case| {
            case.transport == SHMBUS_NAME && case.payload == payload && case.variant == variant
        };
        results.median(of, ratio)
    };
    let by_device = median(DEVICE, ONE, "per_small")?.max(median(DEVICE, LARGE, "per_small")?);
    let by_sender = median(SENDER, ONE, "per_small")?.max(median(SENDER, LARGE, "per_bare")?);
    Some(by_device.max(by_sender))
}
