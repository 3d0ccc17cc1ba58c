//! One sender, 1 to 64 receivers: the rate of the slowest.

use anyhow::Result;

use crate::endpoint::{Form, Work};
use crate::record::Results;
use crate::registry::Transports;
use crate::run::Run;
use crate::session::{Effort, Options, Session, rate_values};
use crate::table::{Column, Table, column};
use crate::transport::Wait;

pub(crate) const PAYLOAD: usize = 48;

pub(crate) const COLUMNS: [Column; 4] = [
    column("million/s, slowest", "rate_per_s", 1e6, 3),
    column("received, least", "received_share", 1.0, 3),
    column("missed", "missed", 1.0, 0),
    column("CPU s/million", "cpu_s_per_million", 1.0, 2),
];

/// How many receivers.
pub(crate) fn counts(effort: Effort) -> &'static [usize] {
    match effort {
        Effort::Full => &[1, 2, 4, 8, 16, 32, 64],
        _ => &[1, 4, 16, 64],
    }
}

pub(crate) fn measure(transports: Transports, options: &Options) -> Result<Results> {
    let mut session = Session::new("fanout", transports, options)?;
    let effort = options.effort();
    let work = Work::Stream { for_ns: effort.scale(150_000_000) };
    let mut plans = Vec::new();
    for &receivers in counts(effort) {
        // Beyond the cores, spinning is a contest in giving cores away.
        let short = session.placement.is_short_of(1 + receivers);
        let waits: &[Wait] = if short { &[Wait::Block] } else { &[Wait::Spin, Wait::Block] };
        for &wait in waits {
            for transport in session.transports() {
                let (payload, form) = (PAYLOAD, Form::Plain);
                let run = Run { transport, payload, receivers, wait, work, form, whole: true };
                session.plan("", run, &mut plans);
            }
        }
    }
    session.rounds(&plans, rate_values)?;
    Ok(session.finish())
}

pub(crate) fn table(results: &Results) -> Table {
    Table::of(results, &COLUMNS)
}
