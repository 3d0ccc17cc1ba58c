//! One transport, measured: subscribers first, then the feed, then what they all have to say.

use super::bus::TopicPlace;
use super::child::{ChildId, Children, Line, Task};
use super::feed::{FeedReport, FeedTask};
use super::latency::Summary;
use super::ledger::Counts;
use super::receiver::{ReceiverReport, ReceiverTask};
use super::screen::Screen;
use super::transport::{Address, Flow, Role, SourceSpec, Transport};
use anyhow::{Context, Result, bail};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::pipe::{PipeFlags, pipe_with};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

/// What one transport did.
pub(super) struct FanOut {
    pub(super) transport: Transport,
    /// Quotes in the schedule.
    pub(super) due: u64,
    pub(super) feed: FeedReport,
    pub(super) receivers: Vec<(Role, ReceiverReport)>,
}

impl FanOut {
    /// Together what all receivers counted.
    pub(super) fn counts(&self) -> Counts {
        total(&self.receivers)
    }

    /// What all receivers of `role` missed.
    pub(super) fn missed_by(&self, role: Role) -> u64 {
        let of_role = self.receivers.iter().filter(|(other, _)| *other == role);
        of_role.map(|(_, report)| report.counts.missed).sum()
    }

    /// What the reliable receiver counted.
    pub(super) fn reliable(&self) -> Option<&ReceiverReport> {
        self.receivers.iter().find(|(role, _)| *role == Role::Reliable).map(|(_, report)| report)
    }

    /// Quotes that the reliable receiver got.
    pub(super) fn received(&self) -> u64 {
        self.reliable().map_or(0, |report| report.counts.received)
    }

    /// Quotes per second that the reliable receiver got, from the first due time to the last receipt.
    pub(super) fn rate_per_s(&self) -> f64 {
        let Some(report) = self.reliable() else { return 0.0 };
        let span_ns = report.last_ns.saturating_sub(report.first_due_ns).max(1);
        report.counts.received.saturating_sub(1) as f64 * 1e9 / span_ns as f64
    }

    /// Of all receivers but the slow one.
    pub(super) fn latency(&self) -> Option<Summary> {
        self.merged(|role| role != Role::Slow)
    }

    /// Of the slow receiver.
    pub(super) fn age_of_slow(&self) -> Option<Summary> {
        self.merged(|role| role == Role::Slow)
    }

    fn merged(&self, wanted: impl Fn(Role) -> bool) -> Option<Summary> {
        let mut reports = self.receivers.iter().filter(|(role, _)| wanted(*role));
        let mut merged = reports.next()?.1.latency.clone();
        reports.for_each(|(_, report)| merged.add(&report.latency));
        merged.summary()
    }

    /// User and system time of all receivers.
    pub(super) fn cpu_ns_subscribers(&self) -> u64 {
        self.receivers.iter().map(|(_, report)| report.cpu_ns).sum()
    }

    /// Whether the reliable receiver got everything that was sent.
    pub(super) fn is_complete(&self) -> bool {
        self.reliable().is_some_and(|reliable| {
            reliable.counts.received == self.feed.sent && reliable.counts.missed == 0
        })
    }

    /// Whether it is complete, and nobody got anything wrong.
    pub(super) fn is_sound(&self) -> bool {
        self.is_complete() && self.counts().faults() == 0
    }
}

/// Together what `receivers` counted.
pub(super) fn total(receivers: &[(Role, ReceiverReport)]) -> Counts {
    let mut counts = Counts::default();
    receivers.iter().for_each(|(_, report)| counts.add(&report.counts));
    counts
}

/// From the feed's being connected to its first quote: everybody has gone to sleep by then.
const LEAD_NS: u64 = 50_000_000;

/// How long a child may be silent. They say something every 200 ms; this is for machines that stand still.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Receivers of one run, started and waiting for their feed.
pub(super) struct Audience {
    ids: Vec<ChildId>,
    pub(super) receivers: Vec<(Role, Address)>,
    /// For pipes: the ends that the feed writes to.
    pipes: Vec<OwnedFd>,
}

impl Audience {
    /// Starts `subscribers` receivers. `topic`: where they subscribe, if the transport is the bus.
    pub(super) fn assemble(
        children: &mut Children,
        transport: Transport,
        topic: Option<&TopicPlace>,
        subscribers: u32,
        flow: Flow,
    ) -> Result<Audience> {
        let mut audience = Audience { ids: Vec::new(), receivers: Vec::new(), pipes: Vec::new() };
        for index in 0..subscribers {
            let role = Role::of(index, subscribers);
            let mut stdin = None;
            let source = match transport {
                Transport::Shmbus => {
                    SourceSpec::Topic(topic.context("the bus needs a topic")?.clone())
                }
                Transport::Unix => {
                    SourceSpec::Unix(format!("shmbus-demo-{}-{index}", std::process::id()))
                }
                Transport::Tcp => SourceSpec::Tcp,
                Transport::Pipe => {
                    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
                    stdin = Some(read);
                    audience.pipes.push(write);
                    SourceSpec::Pipe
                }
            };
            let says_progress = role == Role::Reliable;
            let task = Task::Receiver(ReceiverTask { flow, source, role, says_progress });
            let label = format!("{role} subscriber {} of {transport}", index + 1);
            audience.ids.push(children.start(label, &task, stdin)?);
            audience.receivers.push((role, Address::Topic));
        }
        audience.listen(children)
    }

    /// Waits until each receiver has said where it listens.
    fn listen(mut self, children: &mut Children) -> Result<Audience> {
        for _ in 0..self.ids.len() {
            let (id, line) = children.expect(PATIENCE)?;
            let (Some(index), Line::Listening(address)) = (self.index_of(id), line) else {
                bail!("a subscriber spoke before it listened");
            };
            self.receivers[index].1 = match self.pipes.get(index) {
                Some(pipe) => Address::Pipe(pipe.as_raw_fd()),
                None => address,
            };
        }
        Ok(self)
    }

    /// Which receiver this is, if it is one.
    pub(super) fn index_of(&self, id: ChildId) -> Option<usize> {
        self.ids.iter().position(|&candidate| candidate == id)
    }

    /// Starts the feed, which inherits the pipes; here they are closed.
    pub(super) fn start_feed(
        &mut self,
        children: &mut Children,
        feed: FeedTask,
    ) -> Result<ChildId> {
        let pipes = std::mem::take(&mut self.pipes);
        for pipe in &pipes {
            fcntl_setfd(pipe, FdFlags::empty())?;
        }
        children.start(format!("feed {}", feed.incarnation), &Task::Feed(feed), None)
    }
}

/// Runs one transport.
pub(super) fn run(
    mut children: Children,
    transport: Transport,
    topic: Option<&TopicPlace>,
    subscribers: u32,
    (flow, due): (Flow, u64),
    screen: &mut Screen,
) -> Result<FanOut> {
    screen.begin(transport);
    let mut audience = Audience::assemble(&mut children, transport, topic, subscribers, flow)?;
    let feed = FeedTask {
        flow,
        topic: topic.cloned(),
        receivers: audience.receivers.clone(),
        incarnation: 0,
        count: due,
        lead_ns: LEAD_NS,
        begin_early: false,
    };
    audience.start_feed(&mut children, feed)?;

    let mut feed = None;
    let mut reports: Vec<Option<ReceiverReport>> =
        audience.receivers.iter().map(|_| None).collect();
    while feed.is_none() || reports.iter().any(Option::is_none) {
        let (id, line) = children.expect(PATIENCE)?;
        match (line, audience.index_of(id)) {
            (Line::Progress { received }, _) => screen.progress(received, due, "quotes"),
            (Line::FeedDone(report), None) => feed = Some(report),
            (Line::ReceiverDone(report), Some(index)) => reports[index] = Some(*report),
            _ => {}
        }
    }
    children.wait()?;
    screen.clear();
    let roles = audience.receivers.iter().map(|(role, _)| *role);
    let receivers = roles.zip(reports.into_iter().flatten()).collect();
    Ok(FanOut { transport, due, feed: feed.context("the feed left no report")?, receivers })
}
