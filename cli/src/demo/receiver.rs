//! The process that subscribes: takes each message, checks it, notes when it came.

use super::child::{Line, cpu_time_ns, say};
use super::latency::Latency;
use super::ledger::{Counts, Ledger, Seen};
use super::quote::Quote;
use super::schedule::SlowWork;
use super::transport::{Flow, Role, Source, SourceSpec};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use shmbus_sys::clock::monotonic_ns;

/// What a receiver is to do.
#[derive(Serialize, Deserialize)]
pub(super) struct ReceiverTask {
    pub(super) flow: Flow,
    pub(super) source: SourceSpec,
    pub(super) role: Role,
    /// Whether to say from time to time how many messages came.
    pub(super) says_progress: bool,
}

/// What a receiver saw.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ReceiverReport {
    pub(super) counts: Counts,
    /// From the moment that a quote was due to the moment that this process had it and had checked it.
    pub(super) latency: Latency,
    /// When the first quote that it received was due.
    pub(super) first_due_ns: u64,
    /// When the last quote came.
    pub(super) last_ns: u64,
    pub(super) cpu_ns: u64,
}

const PROGRESS_EVERY_NS: u64 = 200_000_000;

impl ReceiverTask {
    pub(super) fn run(&self) -> Result<ReceiverReport> {
        let (mut source, address) = Source::open(&self.source, self.role, &self.flow)?;
        say(&Line::Listening(address))?;
        source.accept()?;

        let mut ledger = Ledger::default();
        let mut latency = Latency::new()?;
        let mut slow_work = (self.role == Role::Slow)
            .then(|| SlowWork::half_of(self.flow.rate, self.flow.length_ns));
        let mut first_due_ns = None;
        let mut last_ns = 0;
        let mut progress_ns = monotonic_ns() + PROGRESS_EVERY_NS;

        while let Some((quote, seen, now_ns)) = source.next(|message, mark| {
            let quote = Quote::read(message);
            let now_ns = monotonic_ns();
            (quote, ledger.enter(quote.as_ref(), mark, now_ns), now_ns)
        })? {
            match seen {
                Seen::Closing => break,
                Seen::Fault => continue,
                Seen::FirstOf(switch) => say(&Line::Switched(switch))?,
                Seen::Quote => {}
            }
            let Some(quote) = quote else { continue };
            latency.record(quote.due_ns, now_ns);
            let _ = first_due_ns.get_or_insert(quote.due_ns);
            last_ns = now_ns;
            if self.says_progress && now_ns >= progress_ns {
                say(&Line::Progress { received: ledger.counts.received })?;
                progress_ns = now_ns + PROGRESS_EVERY_NS;
            }
            if let Some(work) = &mut slow_work {
                work.on(quote.sequence, quote.due_ns, now_ns);
            }
        }
        Ok(ReceiverReport {
            counts: ledger.counts,
            latency,
            first_due_ns: first_due_ns.unwrap_or(0),
            last_ns,
            cpu_ns: cpu_time_ns(),
        })
    }
}
