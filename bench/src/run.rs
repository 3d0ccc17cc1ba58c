//! One run: its processes, from their start to what they found out.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::children::{Children, PATIENCE};
use crate::endpoint::{Form, Report, Role, Step, Task, Work};
use crate::latency::Latency;
use crate::placement::{Placement, Scratch};
use crate::registry::Registered;
use crate::transport::{Channel, Wait};

/// What is to be run.
#[derive(Clone, Copy)]
pub(crate) struct Run {
    pub(crate) transport: &'static dyn Registered,
    pub(crate) payload: usize,
    pub(crate) receivers: usize,
    pub(crate) wait: Wait,
    pub(crate) work: Work,
    pub(crate) form: Form,
    /// Receivers read every byte.
    pub(crate) whole: bool,
}

/// What came of it.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) sent: u64,
    /// Of each receiver.
    pub(crate) received: Vec<u64>,
    /// Messages a second of each receiver.
    pub(crate) rates: Vec<f64>,
    /// The same while nobody interrupts, of the slowest.
    pub(crate) steady_per_s: f64,
    /// By all receivers.
    pub(crate) missed: u64,
    /// Of all receivers, or of round trips.
    pub(crate) latency: Latency,
    /// Of round trips, without a clock.
    pub(crate) mean_ns: f64,
    /// Of all processes, in seconds per million messages sent.
    pub(crate) cpu_s_per_million: f64,
    /// There were fewer cores than processes.
    pub(crate) oversubscribed: bool,
}

impl Outcome {
    /// The rate of the slowest receiver.
    pub(crate) fn slowest(&self) -> f64 {
        self.rates.iter().copied().fold(f64::INFINITY, f64::min)
    }
}

impl Run {
    /// Why this cannot be run, if it cannot.
    pub(crate) fn lack(&self) -> Option<&'static str> {
        let abilities = self.transport.abilities();
        if self.form == Form::InPlace && !abilities.zero_copy {
            return Some("copies");
        }
        if !abilities.queues && matches!(self.work, Work::Stream { .. }) {
            return Some("no queue");
        }
        abilities.lack(self.wait, self.payload, self.receivers)
    }

    /// Runs it, each process on its core.
    ///
    /// # Errors
    /// Where a process fails, ends early or is silent for too long; where a message was lost that may not be, or not as it was sent.
    pub(crate) fn go(&self, placement: &Placement) -> Result<Outcome> {
        self.go_on(placement, placement.is_short_of(1 + self.receivers))
            .with_context(|| format!("{} ({})", self.transport.name(), self.wait.name()))
    }

    /// The same; `yields`: whoever spins gives its core away.
    pub(crate) fn go_on(&self, placement: &Placement, yields: bool) -> Result<Outcome> {
        let scratch = Scratch::new()?;
        let channel = Channel {
            directory: scratch.path().to_owned(),
            name: "there".to_owned(),
            receivers: self.receivers,
            payload: self.payload,
            wait: self.wait,
            yields,
        };
        let back = matches!(self.work, Work::RoundTrip { .. }).then(|| Channel {
            name: "back".to_owned(),
            receivers: 1,
            ..channel.clone()
        });
        let channels = [Some(&channel), back.as_ref()];
        let made = channels.into_iter().flatten().try_for_each(|one| self.transport.create(one));
        let outcome = made.and_then(|()| self.play(placement, &channel, &back));
        channels.into_iter().flatten().for_each(|one| self.transport.remove(one));
        outcome
    }

    fn play(
        &self,
        placement: &Placement,
        channel: &Channel,
        back: &Option<Channel>,
    ) -> Result<Outcome> {
        let task = |role, core| Task {
            parent: std::process::id(),
            transport: self.transport.name().to_owned(),
            role,
            channel: channel.clone(),
            back: back.clone(),
            work: self.work,
            form: self.form,
            whole: self.whole,
            core: Some(core),
        };
        let mut children = Children::new();
        let leader = if back.is_some() { Role::Ping } else { Role::Source };
        children.start(&task(leader, placement.sender()))?;
        for index in 0..self.receivers {
            let role = if back.is_some() { Role::Echo } else { Role::Sink(index) };
            children.start(&task(role, placement.receiver(index)))?;
        }
        let work = match self.work {
            Work::RoundTrip { .. } => Duration::from_secs(30),
            Work::Stream { for_ns } => Duration::from_nanos(for_ns),
            Work::Paced { interval_ns: each_ns, messages }
            | Work::Spaced { pause_ns: each_ns, messages }
            | Work::HandOver { pause_ns: each_ns, messages, .. } => {
                // What is sent takes time as well.
                Duration::from_nanos(each_ns.saturating_mul(messages).saturating_mul(4))
            }
        };
        let deadline = Instant::now() + PATIENCE + work;
        for step in [Step::Listening, Step::Connected, Step::Accepted] {
            children.pass(step, deadline)?;
        }
        let reports = children.reports(deadline)?;
        let Some((first, others)) = reports.split_first() else {
            anyhow::bail!("a run without processes")
        };
        for (index, one) in others.iter().enumerate().filter(|_| back.is_none()) {
            let Report { messages, missed, .. } = one;
            let sent = first.messages;
            ensure!(
                messages + missed == sent,
                "receiver {index} got {messages} and missed {missed} of {sent} messages"
            );
        }
        let mut latency = Latency::new()?;
        reports.iter().for_each(|report| latency.add(&report.latency));
        let cpu_ns: u64 = reports.iter().map(|report| report.cpu_ns).sum();
        Ok(Outcome {
            sent: first.messages,
            received: others.iter().map(|report| report.messages).collect(),
            rates: others
                .iter()
                .map(|report| report.messages as f64 / (report.span_ns.max(1) as f64 / 1e9))
                .collect(),
            steady_per_s: others
                .iter()
                .map(|report| report.steady_per_s)
                .fold(f64::INFINITY, f64::min),
            missed: others.iter().map(|report| report.missed).sum(),
            latency,
            mean_ns: first.mean_ns,
            cpu_s_per_million: cpu_ns as f64 / 1e3 / first.messages.max(1) as f64,
            oversubscribed: channel.yields,
        })
    }
}
