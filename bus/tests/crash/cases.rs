//! One case: a point, who comes there, and how it ends.

use std::time::Duration;

use crate::processes::{Process, Stage};
use crate::runner::Plan;

/// What happens to a process at its point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    Killed,
    Stopped,
}

/// `name` or `name:n`, the n-th passing of the point.
pub(crate) type Point = &'static str;

/// The point's own name.
pub(crate) fn name(point: Point) -> &'static str {
    point.split(':').next().unwrap_or(point)
}

impl Stage {
    /// A process in a role that dies, or is stopped, at `point`.
    pub(crate) fn victim(
        &self,
        role: &'static str,
        numbers: &[u64],
        point: Point,
        how: How,
    ) -> Process {
        let by = if how == How::Stopped { "stop" } else { "kill" };
        self.spawn_with(role, numbers, &[("SHMBUS_CRASH_AT", point), ("SHMBUS_CRASH_BY", by)])
    }
}

impl How {
    /// Waits until `victim` has come to its point; fails where it never comes there.
    pub(crate) fn met(self, stage: &Stage, victim: &Process, mut drive: impl FnMut()) {
        stage.until("the victim comes to its point", || {
            drive();
            !victim.is_running()
        });
        if self == How::Stopped {
            victim.wait_until_stopped();
        }
    }
}

/// Names the case where a test fails in it.
struct Named<'a>(&'a str, Point, How);

impl Drop for Named<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed: {}, {:?} at {}", self.0, self.2, self.1);
        }
    }
}

/// Runs each point a few times, and prints for how long the others stood still, as `run` says. `run` is told the number of the round.
pub(crate) fn each(
    plan: &Plan,
    who: &str,
    how: How,
    points: &[Point],
    mut run: impl FnMut(Point, u64) -> Duration,
) {
    let rounds = (plan.kills / 400).max(2);
    for point in points {
        let _named = Named(who, point, how);
        let mut stood: Vec<Duration> = (0..rounds).map(|round| run(point, round)).collect();
        stood.sort_unstable();
        let at = |percent: usize| stood[((stood.len() - 1) * percent).div_ceil(100)];
        let how = if how == How::Killed { "killed" } else { "stopped" };
        println!(
            "  {point:22} {who}, {how} {rounds} times; the others stood still: p50 {:.1?} p99 {:.1?} max {:.1?}",
            at(50),
            at(99),
            at(100)
        );
    }
}
