//! The feed is killed with SIGKILL while it publishes; another takes over. How long did the subscribers wait, and is
//! what they got whole?
//!
//! Each feed begins every quote in its place in the topic *before* its time has come and finishes it after, so a kill
//! finds a quote half written. The subscribers are never restarted: what they check goes across all feeds.

use super::child::{ChildId, Children, Line};
use super::fanout::{Audience, PATIENCE, total};
use super::feed::FeedTask;
use super::ledger::{Counts, Receipt, Switch};
use super::receiver::ReceiverReport;
use super::screen::Screen;
use super::topic::DemoTopic;
use super::transport::{Flow, Role, Transport};
use anyhow::{Context, Result};
use serde::Serialize;
use shmbus_sys::clock::monotonic_ns;
use std::time::{Duration, Instant};

/// One kill. All times from the moment before the signal was sent.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Kill {
    /// The killed process had ended and its parent knew.
    pub(super) gone_ns: u64,
    /// The new process ran and was the topic's publisher.
    pub(super) took_over_ns: u64,
    /// The first subscriber had checked the first quote of the new feed.
    pub(super) first_quote_ns: u64,
    /// For each subscriber: from the last quote of the old feed to the first of the new.
    pub(super) gaps_ns: Vec<u64>,
    /// Quotes that were due between the last of the old feed and the first of the new: nobody was there to publish them.
    pub(super) never_published: u64,
}

/// All kills, and what the subscribers counted over all feeds.
pub(super) struct Recovery {
    pub(super) kills: Vec<Kill>,
    /// Quotes that all feeds together committed, as the topic counts them.
    pub(super) published: u64,
    pub(super) receivers: Vec<(Role, ReceiverReport)>,
}

impl Recovery {
    pub(super) fn counts(&self) -> Counts {
        total(&self.receivers)
    }

    /// Whether the reliable subscribers got everything that was committed, and nobody anything wrong.
    pub(super) fn is_sound(&self) -> bool {
        let complete = self.receivers.iter().all(|(role, report)| {
            *role != Role::Reliable || report.counts.received == self.published
        });
        complete && self.counts().faults() == 0
    }
}

/// How long a feed publishes before it is killed, and the last one until it closes.
const FEED_LIFE: Duration = Duration::from_millis(300);
/// Each life is longer than the one before by this, so that no two kills come at the same place.
const LONGER_BY: Duration = Duration::from_micros(17_077);

/// Kills `kills` feeds of `topic`, one after the other.
pub(super) fn run(
    mut children: Children,
    topic: &DemoTopic<'_>,
    subscribers: u32,
    flow: Flow,
    kills: u32,
    screen: &mut Screen,
) -> Result<Recovery> {
    screen.begin("kills");
    let mut scene = Scene {
        audience: Audience::assemble(
            &mut children,
            Transport::Shmbus,
            Some(topic.place()),
            subscribers,
            flow,
        )?,
        topic,
        flow,
        switches: vec![None; subscribers as usize],
        reports: (0..subscribers).map(|_| None).collect(),
        connected_ns: None,
    };
    let mut done = Vec::new();
    let mut feed = scene.start_feed(&mut children, 0, false)?;
    scene.hear_until(&mut children, |scene| scene.all_hear(0))?;
    for kill in 0..kills {
        scene.hear_for(&mut children, FEED_LIFE + LONGER_BY * kill)?;
        screen.progress(u64::from(kill), u64::from(kills), "kills");
        let incarnation = kill + 1;
        let killed_ns = monotonic_ns();
        children.kill(feed)?;
        let gone_ns = monotonic_ns();
        feed = scene.start_feed(&mut children, incarnation, incarnation == kills)?;
        scene.hear_until(&mut children, |scene| scene.all_hear(incarnation))?;
        done.push(scene.kill_report(killed_ns, gone_ns)?);
    }
    scene.hear_until(&mut children, |scene| scene.reports.iter().all(Option::is_some))?;
    // All but the closing message.
    let published = topic.published().saturating_sub(1);
    children.wait()?;
    screen.clear();
    let roles = scene.audience.receivers.iter().map(|(role, _)| *role);
    let receivers = roles.zip(scene.reports.into_iter().flatten()).collect();
    Ok(Recovery { kills: done, published, receivers })
}

/// What is known of a run at a moment.
struct Scene<'a> {
    audience: Audience,
    topic: &'a DemoTopic<'a>,
    flow: Flow,
    switches: Vec<Option<Switch>>,
    reports: Vec<Option<ReceiverReport>>,
    connected_ns: Option<u64>,
}

impl Scene<'_> {
    fn start_feed(
        &mut self,
        children: &mut Children,
        incarnation: u32,
        is_last: bool,
    ) -> Result<ChildId> {
        self.connected_ns = None;
        let life = u128::from(self.flow.rate) * FEED_LIFE.as_millis() / 1000;
        let count = if is_last { u64::try_from(life)?.max(1) } else { u64::MAX };
        let feed = FeedTask {
            flow: self.flow,
            topic: Some(self.topic.place().clone()),
            receivers: Vec::new(),
            incarnation,
            count,
            lead_ns: 0,
            begin_early: true,
        };
        self.audience.start_feed(children, feed)
    }

    fn hear_until(
        &mut self,
        children: &mut Children,
        enough: impl Fn(&Self) -> bool,
    ) -> Result<()> {
        while !enough(self) {
            let (id, line) = children.expect(PATIENCE)?;
            self.enter(id, line);
        }
        Ok(())
    }

    fn hear_for(&mut self, children: &mut Children, time: Duration) -> Result<()> {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match children.hear(left)? {
                Some((id, line)) => self.enter(id, line),
                None => return Ok(()),
            }
        }
    }

    fn enter(&mut self, id: ChildId, line: Line) {
        match (line, self.audience.index_of(id)) {
            (Line::Connected { at_ns }, None) => self.connected_ns = Some(at_ns),
            (Line::Switched(switch), Some(index)) => self.switches[index] = Some(switch),
            (Line::ReceiverDone(report), Some(index)) => self.reports[index] = Some(*report),
            _ => {}
        }
    }

    /// Whether every subscriber has a quote of this feed.
    fn all_hear(&self, incarnation: u32) -> bool {
        let hears = |switch: &Option<Switch>| switch.is_some_and(|s| s.incarnation == incarnation);
        self.connected_ns.is_some() && self.switches.iter().all(hears)
    }

    fn kill_report(&self, killed_ns: u64, gone_ns: u64) -> Result<Kill> {
        let switches: Vec<&Switch> = self.switches.iter().flatten().collect();
        let since_kill = |ns: u64| ns.saturating_sub(killed_ns);
        let first_ns = switches.iter().map(|switch| switch.first.at_ns).min();
        Ok(Kill {
            gone_ns: since_kill(gone_ns),
            took_over_ns: since_kill(self.connected_ns.context("no feed")?),
            first_quote_ns: since_kill(first_ns.context("no subscribers")?),
            gaps_ns: switches.iter().map(|switch| gap_ns(switch, |quote| quote.at_ns)).collect(),
            never_published: never_published(
                switches.first().context("no subscribers")?,
                self.flow.rate,
            ),
        })
    }
}

/// From the last quote of the old feed to the first of the new, on one of their two clocks.
fn gap_ns(switch: &Switch, clock: impl Fn(&Receipt) -> u64) -> u64 {
    let last_ns = switch.last.as_ref().map(&clock);
    clock(&switch.first).saturating_sub(last_ns.unwrap_or(clock(&switch.first)))
}

/// How many quotes were due between the last of the old feed and the first of the new.
fn never_published(switch: &Switch, rate: u64) -> u64 {
    let due_ns = u128::from(gap_ns(switch, |quote| quote.due_ns));
    let intervals = (due_ns * u128::from(rate) + 500_000_000) / 1_000_000_000;
    u64::try_from(intervals).unwrap_or(u64::MAX).saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_due_between_two_feeds_was_never_published() {
        let receipt = |due_ns| Receipt { due_ns, at_ns: 0 };
        let switch = |last, first| Switch { incarnation: 1, last, first: receipt(first) };
        let between = |last, first| never_published(&switch(Some(receipt(last)), first), 1_000);
        assert_eq!(between(5_000_000, 6_000_000), 0, "one interval later: nothing is missing");
        assert_eq!(between(5_000_000, 9_400_000), 3);
        assert_eq!(between(5_000_000, 5_100_000), 0);
        assert_eq!(never_published(&switch(None, 7), 1_000), 0);
    }
}
