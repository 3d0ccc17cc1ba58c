//! How long it takes to wake a receiver that sleeps: a message 200 µs after the one before, from just before it is sent to when its receiver runs. All of them pay the kernel for the same;
//! the bare futex pays for nothing else.

use anyhow::Result;

use crate::endpoint::{Form, Work};
use crate::record::Results;
use crate::registry::Transports;
use crate::run::Run;
use crate::session::{Options, Session, latency_values};
use crate::table::{Column, Table, column};
use crate::transport::Wait;
use crate::transports::{FUTEX, SHMBUS_FENCE, SHMBUS_RUNG};

/// Long enough for a receiver to have gone to sleep.
const PAUSE_NS: u64 = 200_000;
/// The figure's.
const ROUNDS: usize = 15;

pub(crate) const COLUMNS: [Column; 7] = [
    column("p50 µs", "p50_ns", 1e3, 2),
    column("p90", "p90_ns", 1e3, 2),
    column("p99", "p99_ns", 1e3, 2),
    column("p99.9", "p999_ns", 1e3, 1),
    column("max", "max_ns", 1e3, 0),
    column("missed", "missed", 1.0, 0),
    column("× futex", "per_futex", 1.0, 3),
];

pub(crate) fn measure(transports: Transports, options: &Options) -> Result<Results> {
    let options = options.with_rounds(ROUNDS);
    let mut session = Session::new("wake", transports, &options)?;
    let work = Work::Spaced { pause_ns: PAUSE_NS, messages: options.effort().scale(1_000) };
    let (wait, form, payload) = (Wait::Block, Form::Plain, 48);
    let mut plans = Vec::new();
    for transport in session.transports() {
        if transport.name() == "shmbus lossy" {
            continue; // it sleeps and is woken as the reliable one
        }
        let run = Run { transport, payload, receivers: 1, wait, work, form, whole: true };
        session.plan("", run, &mut plans);
    }
    session.rounds(&plans, |_, outcome| latency_values(outcome))?;
    let mut results = session.finish();
    results.relate("p50_ns", "per_futex", |_, base| base.transport == FUTEX);
    results.relate("p50_ns", "per_rung", |_, base| base.transport == SHMBUS_RUNG);
    Ok(results)
}

pub(crate) fn table(results: &Results) -> Table {
    Table::of(results, &COLUMNS)
}

/// Median over the rounds of (a sleeper of shmbus woken / one of a bare futex); of the way of waking that is right where somebody sleeps for
/// each message.
pub(crate) fn figure(results: &Results) -> Option<f64> {
    results.median(|case| case.transport == SHMBUS_FENCE, "per_futex")
}

/// The worst of four medians over the rounds: a subscriber of shmbus that sleeps on an eventfd / who sleeps for a pipe, a unix socket of either kind, an eventfd.
pub(crate) fn descriptors_figure(results: &Results) -> Option<f64> {
    let others = ["pipe", "unix stream", "unix seqpacket", "eventfd"];
    let ratios = others.map(|name| results.median(|case| case.transport == name, "per_rung"));
    let ratios = ratios.into_iter().map(|ratio| ratio.map(f64::recip));
    ratios.collect::<Option<Vec<_>>>()?.into_iter().reduce(f64::max)
}
