//! Bytes a second by length of the message. The sender makes every byte of each message and the receiver reads every byte, over each transport and, as the limit, within one process by `memcpy`.

use std::collections::BTreeMap;
use std::hint::black_box;

use anyhow::Result;
use shmbus_sys::clock::monotonic_ns;

use crate::endpoint::{Form, Work};
use crate::message::{Ledger, write};
use crate::record::{Case, Results};
use crate::registry::Transports;
use crate::run::Run;
use crate::session::{Effort, Options, Session, rate_values};
use crate::table::{Column, Table, column};
use crate::transport::Wait;

pub(crate) const MEMCPY: &str = "memcpy";
pub(crate) const PLAIN: &str = "sent by copy";
pub(crate) const COPIED: &str = "copied in and out";
pub(crate) const IN_PLACE: &str = "in place";

pub(crate) const COLUMNS: [Column; 4] = [
    column("MB/s", "bytes_per_s", 1e6, 0),
    column("messages/s", "rate_per_s", 1.0, 0),
    column("missed", "missed", 1.0, 0),
    column("CPU s/million", "cpu_s_per_million", 1.0, 1),
];

/// The lengths, in bytes.
pub(crate) fn payloads(effort: Effort) -> &'static [usize] {
    match effort {
        Effort::Full => {
            &[8, 48, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 1 << 20, 4 << 20, 16 << 20]
        }
        _ => &[8, 48, 1 << 10, 16 << 10, 64 << 10, 1 << 20, 16 << 20],
    }
}

pub(crate) fn measure(transports: Transports, options: &Options) -> Result<Results> {
    let mut session = Session::new("payload", transports, options)?;
    let effort = options.effort();
    let for_ns = effort.scale(100_000_000);
    let work = Work::Stream { for_ns };
    let mut plans = Vec::new();
    for &payload in payloads(effort) {
        for transport in session.transports() {
            let abilities = transport.abilities();
            // Who may lose messages is fast by losing them, and who waits by a fence is as fast here.
            if !abilities.lossless || transport.name() == crate::transports::SHMBUS_FENCE {
                continue;
            }
            let forms: &[(&str, Form)] = match abilities.zero_copy {
                true => &[(IN_PLACE, Form::InPlace), (COPIED, Form::Copied)],
                false => &[(PLAIN, Form::Plain)],
            };
            for &(variant, form) in forms {
                let wait = Wait::Spin;
                let run = Run { transport, payload, receivers: 1, wait, work, form, whole: true };
                session.plan(variant, run, &mut plans);
            }
        }
    }
    let placement = session.placement.clone();
    let count = plans.len();
    session.interleave(count + payloads(effort).len(), |index| {
        let Some(planned) = plans.get(index) else {
            return Ok(memcpy(payloads(effort)[index - count], for_ns));
        };
        let outcome = planned.run.go(&placement)?;
        Ok((planned.case.clone(), outcome.oversubscribed, rate_values(&planned.run, &outcome)))
    })?;
    Ok(session.finish())
}

/// Makes messages, copies each once, and reads the copies; in one process.
fn memcpy(payload: usize, for_ns: u64) -> (Case, bool, BTreeMap<String, f64>) {
    let mut words = vec![0u64; payload / 8];
    let mut copy = vec![0u8; payload];
    let mut ledger = Ledger::default();
    let between_looks = ((1 << 18) / payload).clamp(1, 256);
    let begin_ns = monotonic_ns();
    let mut count: u64 = 0;
    while monotonic_ns() < begin_ns + for_ns {
        for _ in 0..between_looks {
            write(&mut words, count, 0);
            copy.copy_from_slice(bytemuck::cast_slice(black_box(&words)));
            ledger.enter(black_box(&copy), payload, true);
            count += 1;
        }
    }
    let seconds = (monotonic_ns() - begin_ns) as f64 / 1e9;
    let rate = count as f64 / seconds;
    let values = BTreeMap::from([
        ("rate_per_s".to_owned(), rate),
        ("bytes_per_s".to_owned(), rate * payload as f64),
        ("cpu_s_per_million".to_owned(), seconds / count as f64 * 1e6),
    ]);
    let case = Case {
        variant: "one process".to_owned(),
        payload,
        receivers: 1,
        wait: Wait::Spin,
        transport: MEMCPY.to_owned(),
    };
    (case, false, values)
}

pub(crate) fn table(results: &Results) -> Table {
    Table::of(results, &COLUMNS)
}
