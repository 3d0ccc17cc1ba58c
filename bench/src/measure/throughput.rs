//! How many messages of 48 bytes a second go from one process to another.

use anyhow::Result;

use crate::endpoint::{Form, Work};
use crate::record::Results;
use crate::registry::Transports;
use crate::run::Run;
use crate::session::{Options, Session, rate_values};
use crate::table::{Column, Table, column};
use crate::transport::Wait;

pub(crate) const PAYLOAD: usize = 48;

pub(crate) const COLUMNS: [Column; 3] = [
    column("million/s", "rate_per_s", 1e6, 3),
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
    session.finish()
}

pub(crate) fn table(results: &Results) -> Table {
    Table::of(results, &COLUMNS)
}
