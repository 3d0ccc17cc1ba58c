//! Whether each transport does what it says: everything arrives, in order, byte for byte, or is counted as missed.

use anyhow::{Context, Result};

use crate::endpoint::{Form, Work};
use crate::registry::Transports;
use crate::run::Run;
use crate::session::{Options, Session};
use crate::table::bytes;
use crate::transport::Wait;

const PAYLOADS: [usize; 4] = [8, 48, 4096, 1 << 20];

/// Runs each transport with every length and way of waiting that it has, for a moment, and says what it did.
pub(crate) fn measure(transports: Transports, options: &Options) -> Result<()> {
    let session = Session::new("check", transports, options)?;
    let stream = Work::Stream { for_ns: 2_000_000 };
    let paced = Work::Paced { interval_ns: 200_000, messages: 20 };
    let hand_over = Work::HandOver { pause_ns: 200_000, messages: 20, by_device: false };
    let spaced = Work::Spaced { pause_ns: 200_000, messages: 20 };
    let round_trip = Work::RoundTrip { trips: 100 };
    for transport in session.transports() {
        let (mut runs, mut messages, mut missed) = (0, 0, 0);
        for wait in [Wait::Spin, Wait::Block] {
            for payload in PAYLOADS {
                let plain = Run {
                    transport,
                    payload,
                    receivers: 1,
                    wait,
                    work: stream,
                    form: Form::Plain,
                    whole: true,
                };
                let all = [
                    plain,
                    Run { receivers: 3, ..plain },
                    Run { form: Form::Copied, ..plain },
                    Run { form: Form::InPlace, ..plain },
                    Run { work: paced, ..plain },
                    Run { work: spaced, ..plain },
                    Run { work: hand_over, form: Form::InPlace, ..plain },
                    Run { work: round_trip, ..plain },
                ];
                // A time has no room in 8 bytes.
                let is_timed =
                    |run: &Run| matches!(run.work, Work::Paced { .. } | Work::Spaced { .. });
                let all = all.iter().filter(|run| payload >= 16 || !is_timed(run));
                // One of a long one: they take time.
                let all = all.take(if payload > 1 << 16 { 1 } else { 8 });
                for run in all.filter(|run| run.lack().is_none()) {
                    let outcome = run.go_on(&session.placement, true).with_context(|| {
                        let name = transport.name();
                        format!("{name}, {wait:?}, {}, {:?}", bytes(payload), run.work)
                    })?;
                    runs += 1;
                    messages += outcome.sent;
                    missed += outcome.missed;
                }
            }
        }
        println!("{:<14}  {runs} runs, {messages} messages, {missed} missed", transport.name());
    }
    for left_out in session.finish().left_out {
        println!("left out: {left_out}");
    }
    Ok(())
}
