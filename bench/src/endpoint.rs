//! One process of a run: a sender, a receiver, or either end of a round trip.
//!
//! It is told its task as JSON in its arguments, goes through the four steps of [`Transport`], and at each says so on standard output and waits for a line on
//! standard input. At the end it says what it has found out. It dies with its parent.

use std::io::{self, BufRead, Write};
use std::sync::atomic::{Ordering, fence};

use anyhow::{Context, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use rustix::thread::set_current_timer_slack;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use shmbus_sys::clock::{monotonic_ns, sleep_until_ns};

use crate::latency::{Latency, Schedule};
use crate::message::{END, Ledger, Shape, Taken, write, write_bytes, write_ends};
use crate::placement::{median, pin};
use crate::registry::Transports;
use crate::transport::{Channel, Receiver, Sender, Transport, next};

/// What is sent, and when.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Work {
    /// One message there and back, `trips` times without a clock and then `trips` times with one reading each.
    RoundTrip { trips: u64 },
    /// As many as go through in this time.
    Stream { for_ns: u64 },
    /// One at each of these times, whatever happened to those before it.
    Paced { interval_ns: u64, messages: u64 },
    /// One after each pause, however late the one before was, so that the receiver has done with that. Latency counts from just before it is sent.
    Spaced { pause_ns: u64, messages: u64 },
    /// The same, but latency counts from when the message was written where it is read: by the sender, or, but for its ends, by somebody else, as a device does
    /// that writes to memory by itself.
    HandOver { pause_ns: u64, messages: u64, by_device: bool },
}

/// How a message comes into the transport and out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Form {
    /// Sent from where it was put together; read where the transport shows it.
    Plain,
    /// The same, but the receiver copies it into memory of its own before it reads it.
    Copied,
    /// Put together where the receiver reads it.
    InPlace,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Role {
    Source,
    Sink(usize),
    /// Sends first.
    Ping,
    /// Sends back.
    Echo,
}

impl Role {
    /// Whether it begins by sending.
    pub(crate) fn leads(self) -> bool {
        matches!(self, Role::Source | Role::Ping)
    }
}

/// What an endpoint is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Task {
    pub(crate) parent: u32,
    pub(crate) transport: String,
    pub(crate) role: Role,
    pub(crate) channel: Channel,
    /// The other direction of a round trip.
    pub(crate) back: Option<Channel>,
    pub(crate) work: Work,
    pub(crate) form: Form,
    /// Receivers read every byte, not only the first and last words.
    pub(crate) whole: bool,
    pub(crate) core: Option<usize>,
}

/// Where an endpoint has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Step {
    Listening,
    Connected,
    Accepted,
}

/// What an endpoint says to its parent.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Line {
    Reached(Step),
    Done(Box<Report>),
    Failed(String),
}

/// What an endpoint has found out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Messages sent, or received.
    pub(crate) messages: u64,
    pub(crate) missed: u64,
    /// From the first message to the last.
    pub(crate) span_ns: u64,
    /// Of this process, from the word to begin on.
    pub(crate) cpu_ns: u64,
    /// Of a round trip, without a clock: the median of the means of short stretches.
    pub(crate) mean_ns: f64,
    pub(crate) latency: Latency,
    /// Messages a second of a receiver, while nobody interrupted it or its sender: [`steady`].
    pub(crate) steady_per_s: f64,
}

/// The steps of an endpoint, as its parent sees them.
pub(crate) struct Steps(());

impl Steps {
    /// Says that a step is done, and waits for the word to go on.
    pub(crate) fn reach(&mut self, step: Step) -> Result<()> {
        say(&Line::Reached(step))?;
        let mut line = String::new();
        ensure!(io::stdin().lock().read_line(&mut line)? > 0, "the parent is gone");
        Ok(())
    }

    /// Whether the parent has heard from all receivers, waiting for it for 2 ms at most.
    fn is_over(&mut self) -> Result<bool> {
        let stdin = io::stdin();
        let wait = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };
        Ok(poll(&mut [PollFd::new(&stdin, PollFlags::IN)], Some(&wait))? > 0)
    }
}

fn say(line: &Line) -> Result<()> {
    let mut text = serde_json::to_string(line)?;
    text.push('\n');
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}

/// User and system time of this process so far: what getrusage(2) adds up, in nanoseconds.
fn cpu_time_ns() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

/// Does what a parent asked for. What goes wrong is said to the parent.
pub(crate) fn run(transports: Transports, task: &str) -> Result<()> {
    let task: Task = serde_json::from_str(task).context("a task")?;
    set_parent_process_death_signal(Some(Signal::KILL))?;
    ensure!(getppid() == Pid::from_raw(task.parent.cast_signed()), "started by its parent only");
    if let Some(core) = task.core {
        pin(core)?;
    }
    // Without this the kernel adds up to 50 us to each sleep of a sender that waits for the next message's time.
    let _ = set_current_timer_slack(std::num::NonZeroU64::new(1));
    let done = transports.get(&task.transport).and_then(|one| one.play(&task, &mut Steps(())));
    say(&match done {
        Ok(report) => Line::Done(Box::new(report)),
        Err(error) => Line::Failed(format!("{error:#}")),
    })
}

/// Plays a role over a transport.
pub(crate) fn play<T: Transport>(
    transport: &T,
    task: &Task,
    steps: &mut Steps,
    shape: impl Shape,
) -> Result<Report> {
    let lossless = transport.abilities().lossless;
    match task.role {
        Role::Sink(index) => {
            let receiver = transport.listen(&task.channel, index)?;
            steps.reach(Step::Listening)?;
            steps.reach(Step::Connected)?;
            sink(task, receiver, steps, shape, lossless)
        }
        Role::Source => {
            steps.reach(Step::Listening)?;
            let sender = transport.connect(&task.channel)?;
            steps.reach(Step::Connected)?;
            steps.reach(Step::Accepted)?;
            source(task, sender, steps, shape, lossless)
        }
        Role::Ping | Role::Echo => {
            let Some(back) = &task.back else { bail!("a round trip without a way back") };
            let (outward, inward) = match task.role {
                Role::Ping => (&task.channel, back),
                _ => (back, &task.channel),
            };
            let mut receiver = transport.listen(inward, 0)?;
            steps.reach(Step::Listening)?;
            let sender = transport.connect(outward)?;
            steps.reach(Step::Connected)?;
            receiver.accept()?;
            steps.reach(Step::Accepted)?;
            match task.role {
                Role::Ping => ping(task, sender, receiver, shape),
                _ => echo(task, sender, receiver),
            }
        }
    }
}

impl Report {
    fn new(messages: u64, span_ns: u64, cpu_before_ns: u64) -> Result<Report> {
        let cpu_ns = cpu_time_ns().saturating_sub(cpu_before_ns);
        Ok(Report {
            messages,
            missed: 0,
            span_ns,
            cpu_ns,
            mean_ns: 0.0,
            latency: Latency::new()?,
            steady_per_s: 0.0,
        })
    }
}

fn source(
    task: &Task,
    mut sender: impl Sender,
    steps: &mut Steps,
    shape: impl Shape,
    lossless: bool,
) -> Result<Report> {
    let mut buffer = shape.buffer();
    let cpu_ns = cpu_time_ns();
    let begin_ns = monotonic_ns();
    let mut sent = 0;
    match task.work {
        Work::Stream { for_ns } => {
            let between_looks = ((1 << 18) / shape.len()).clamp(1, 256);
            while monotonic_ns() < begin_ns + for_ns {
                for _ in 0..between_looks {
                    send(&mut sender, task.form, shape, &mut buffer, sent, 0)?;
                    sent += 1;
                }
            }
        }
        Work::Paced { interval_ns, messages } => {
            let schedule = Schedule { start_ns: begin_ns + 2_000_000, interval_ns };
            while sent < messages {
                let due_ns = schedule.due_ns(sent);
                wait_until(due_ns, &task.channel);
                send(&mut sender, task.form, shape, &mut buffer, sent, due_ns)?;
                sent += 1;
            }
        }
        Work::Spaced { pause_ns, messages } => {
            while sent < messages {
                wait_until(monotonic_ns() + pause_ns, &task.channel);
                let now_ns = monotonic_ns();
                send(&mut sender, task.form, shape, &mut buffer, sent, now_ns)?;
                sent += 1;
            }
        }
        Work::HandOver { pause_ns, messages, by_device } => {
            let write = if by_device { write_ends } else { write_bytes };
            while sent < messages {
                wait_until(monotonic_ns() + pause_ns, &task.channel);
                sender.send_in_place(shape.len(), |bytes| {
                    write(bytes, sent, 0);
                    fence(Ordering::SeqCst); // written: not on its way from the processor to the cache
                    if let Some(due) = bytes.get_mut(8..16) {
                        due.copy_from_slice(&monotonic_ns().to_ne_bytes());
                    }
                })?;
                sent += 1;
            }
        }
        Work::RoundTrip { .. } => bail!("a round trip has no source"),
    }
    let mut report = Report::new(sent, monotonic_ns() - begin_ns, cpu_ns)?;
    send(&mut sender, Form::Plain, shape, &mut buffer, END | sent, 0)?;
    // Where the last word may be lost, until everybody has heard it.
    while !lossless && !steps.is_over()? {
        send(&mut sender, Form::Plain, shape, &mut buffer, END | sent, 0)?;
    }
    report.messages = sent;
    Ok(report)
}

#[inline(always)]
fn send<S: Shape>(
    sender: &mut impl Sender,
    form: Form,
    shape: S,
    buffer: &mut S::Buffer,
    number: u64,
    due_ns: u64,
) -> Result<()> {
    if form == Form::InPlace {
        return sender.send_in_place(shape.len(), |bytes| write_bytes(bytes, number, due_ns));
    }
    write(buffer.as_mut(), number, due_ns);
    sender.send(bytemuck::cast_slice(buffer.as_ref()))
}

/// Spins, so that the time is met; where cores are short it sleeps.
fn wait_until(due_ns: u64, channel: &Channel) {
    if channel.yields {
        return if monotonic_ns() < due_ns {
            sleep_until_ns(due_ns)
        };
    }
    while monotonic_ns() < due_ns {
        std::hint::spin_loop();
    }
}

fn sink(
    task: &Task,
    mut receiver: impl Receiver,
    steps: &mut Steps,
    shape: impl Shape,
    lossless: bool,
) -> Result<Report> {
    receiver.accept()?;
    steps.reach(Step::Accepted)?;
    let cpu_ns = cpu_time_ns();
    let mut ledger = Ledger::default();
    let mut latency = Latency::new()?;
    let (wait, spin) = (task.channel.wait, task.channel.spin());
    let (len, whole) = (shape.len(), task.whole);
    let mut copy = vec![0u8; if task.form == Form::Copied { len } else { 0 }];
    let is_timed = !matches!(task.work, Work::Stream { .. });
    let mut enter = |bytes: &[u8]| {
        let now_ns = if is_timed { monotonic_ns() } else { 0 };
        let taken = if task.form == Form::Copied && bytes.len() == copy.len() {
            copy.copy_from_slice(bytes);
            ledger.enter(std::hint::black_box(&copy), len, whole)
        } else {
            ledger.enter(bytes, len, whole)
        };
        if is_timed && let Taken::Message { due_ns } = taken {
            latency.record(due_ns, now_ns);
        }
        taken
    };
    let mut taken = next(&mut receiver, wait, spin, &mut enter)?;
    let first_ns = monotonic_ns();
    let mut marks_ns = vec![first_ns];
    let between_marks = ((1 << 18) / len).clamp(1, 4096);
    while taken != Taken::End {
        for _ in 0..between_marks {
            taken = next(&mut receiver, wait, spin, &mut enter)?;
            if taken == Taken::End {
                break;
            }
        }
        marks_ns.push(monotonic_ns());
    }
    marks_ns.pop(); // less than the others
    let steady_per_s = steady(&marks_ns, between_marks as u64);
    let span_ns = monotonic_ns() - first_ns;
    ledger.close(lossless)?;
    let report = Report::new(ledger.received, span_ns, cpu_ns)?;
    Ok(Report { missed: ledger.missed, latency, steady_per_s, ..report })
}

/// The median of the rates over windows of a millisecond and more; `marks_ns` are the times after each `between` messages. 0 where there is no window.
fn steady(marks_ns: &[u64], between: u64) -> f64 {
    const WINDOW_NS: u64 = 1_000_000;
    let mut rates = Vec::new();
    let (mut begin_ns, mut count) = (marks_ns.first().copied().unwrap_or(0), 0);
    for &mark_ns in marks_ns.iter().skip(1) {
        count += between;
        if mark_ns - begin_ns >= WINDOW_NS {
            rates.push(count as f64 * 1e9 / (mark_ns - begin_ns) as f64);
            (begin_ns, count) = (mark_ns, 0);
        }
    }
    if rates.is_empty() { 0.0 } else { median(&mut rates) }
}

/// Trips of which the mean is taken: few enough that most stretches are not interrupted.
const STRETCH: u64 = 50;

fn ping(
    task: &Task,
    mut sender: impl Sender,
    mut receiver: impl Receiver,
    shape: impl Shape,
) -> Result<Report> {
    let Work::RoundTrip { trips } = task.work else { bail!("ping plays round trips only") };
    let (wait, spin) = (task.channel.wait, task.channel.spin());
    let mut buffer = shape.buffer();
    let mut ledger = Ledger::default();
    let mut number = 0;
    let mut trip = || -> Result<()> {
        write(buffer.as_mut(), number, 0);
        sender.send(bytemuck::cast_slice(buffer.as_ref()))?;
        next(&mut receiver, wait, spin, |bytes| ledger.enter(bytes, shape.len(), true))?;
        number += 1;
        Ok(())
    };
    let cpu_ns = cpu_time_ns();
    for _ in 0..trips / 10 {
        trip()?; // warm-up
    }
    let begin_ns = monotonic_ns();
    let mut stretches = Vec::new();
    for _ in 0..trips / STRETCH {
        let begin_ns = monotonic_ns();
        for _ in 0..STRETCH {
            trip()?;
        }
        stretches.push((monotonic_ns() - begin_ns) as f64 / STRETCH as f64);
    }
    let span_ns = monotonic_ns() - begin_ns;
    let mut latency = Latency::new()?;
    let mut before_ns = monotonic_ns();
    for _ in 0..trips {
        trip()?;
        let now_ns = monotonic_ns();
        latency.record(before_ns, now_ns);
        before_ns = now_ns;
    }
    ensure!(ledger.received == number, "{} of {number} messages came back", ledger.received);
    write(buffer.as_mut(), END | number, 0);
    sender.send(bytemuck::cast_slice(buffer.as_ref()))?;
    ledger.close(true)?;
    let report = Report::new(number, span_ns, cpu_ns)?;
    Ok(Report { mean_ns: median(&mut stretches), latency, ..report })
}

/// Sends back what it receives.
fn echo(task: &Task, mut sender: impl Sender, mut receiver: impl Receiver) -> Result<Report> {
    let (wait, spin) = (task.channel.wait, task.channel.spin());
    let cpu_ns = cpu_time_ns();
    let mut echoed = 0;
    loop {
        let is_end = next(&mut receiver, wait, spin, |bytes| -> Result<bool> {
            let number = bytes.first_chunk().map_or(END, |first| u64::from_ne_bytes(*first));
            if number & END == 0 {
                sender.send(bytes)?;
            }
            Ok(number & END != 0)
        })??;
        if is_end {
            return Report::new(echoed, 0, cpu_ns);
        }
        echoed += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steady_rate_is_that_of_most_windows() {
        // 100 messages every 0.5 ms, but for one pause of a second.
        let mut marks_ns: Vec<u64> = (0..100).map(|n| n * 500_000).collect();
        marks_ns.iter_mut().skip(40).for_each(|mark_ns| *mark_ns += 1_000_000_000);
        assert_eq!(steady(&marks_ns, 100), 200_000.0);
        assert_eq!((steady(&[], 100), steady(&[5], 100), steady(&[5, 6], 100)), (0.0, 0.0, 0.0));
    }
}
