//! How many messages of 48 bytes a second go from one process to another: over the whole run, and steadily, which is the median over windows of a millisecond and more. Ratios are of the
//! steady rates, which a process that had to give its core away for a while does not change.

use anyhow::Result;

use crate::endpoint::{Form, Work};
use crate::record::{Case, Results};
use crate::registry::Transports;
use crate::run::Run;
use crate::session::{Options, Session, rate_values};
use crate::table::{Column, Table, column};
use crate::transport::Wait;
use crate::transports::{BARE, SHMBUS_NAME};

pub(crate) const PAYLOAD: usize = 48;

pub(crate) const COLUMNS: [Column; 6] = [
    column("million/s", "rate_per_s", 1e6, 3),
    column("steady", "steady_per_s", 1e6, 3),
    column("× bare ring", "per_bare", 1.0, 3),
    column("× shmbus", "per_shmbus", 1.0, 4),
    column("missed", "missed", 1.0, 0),
    column("CPU s/million", "cpu_s_per_million", 1.0, 3),
];

pub(crate) fn measure(transports: Transports, options: &Options) -> Result<Results> {
    let mut session = Session::new("throughput", transports, options)?;
    let work = Work::Stream { for_ns: options.effort().scale(300_000_000) };
    let mut plans = Vec::new();
    for wait in [Wait::Spin, Wait::Block] {
        for transport in session.transports() {
            let (payload, form) = (PAYLOAD, Form::Plain);
            let run = Run { transport, payload, receivers: 1, wait, work, form, whole: true };
            session.plan("", run, &mut plans);
        }
    }
    session.rounds(&plans, rate_values)?;
    let mut results = session.finish();
    results.relate("steady_per_s", "per_bare", |case, base| {
        base.transport == BARE && case.wait == base.wait
    });
    results.relate("steady_per_s", "per_shmbus", |case, base| {
        base.transport == SHMBUS_NAME && case.wait == base.wait
    });
    Ok(results)
}

pub(crate) fn table(results: &Results) -> Table {
    Table::of(results, &COLUMNS)
}

/// Median over the rounds of (one reliable subscriber of shmbus / the bare ring), both polling.
pub(crate) fn figure(results: &Results) -> Option<f64> {
    let is_shmbus = |case: &Case| case.transport == SHMBUS_NAME && case.wait == Wait::Spin;
    results.median(is_shmbus, "per_bare")
}

/// How many times as many messages go through shmbus as through the best of what copies by way of the kernel, both polling: the least of the medians over
/// the rounds.
pub(crate) fn sockets_figure(results: &Results) -> Option<f64> {
    let by_kernel = ["pipe", "unix stream", "unix seqpacket", "tcp", "udp", "posix mq"];
    let factor = |name: &str| {
        let is_it = |case: &Case| case.transport == name && case.wait == Wait::Spin;
        results.median(is_it, "per_shmbus").map(f64::recip)
    };
    by_kernel.into_iter().filter_map(factor).reduce(f64::min)
}
