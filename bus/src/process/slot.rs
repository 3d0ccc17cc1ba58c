//! A child's place in a supervisor: its plan, its process, and how far a stop has come.

use shmbus_sys::clock;

use super::child::{End, Process};
use super::plan::{self, Plan, Revised};
use super::spec::ChildSpec;
use super::status::{ChildStatus, Phase};

/// How long a group that has got SIGKILL is waited for. What is left then may not be signalled, or the kernel does not let it end.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

pub(super) struct Slot {
    pub(super) plan: Plan<ChildSpec>,
    /// Where the phase of the plan is running or stopping.
    pub(super) process: Option<Process>,
    step: Step,
    /// The next step of a stop.
    step_ns: Option<u64>,
    /// How often it was started, or could not be.
    pub(super) starts: u64,
    /// Runs in a row that were too short.
    pub(super) short_runs: u32,
    /// Attempts in a row to start it for which something was missing.
    pub(super) postponed: u32,
    pub(super) last_end: Option<End>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Asked,
    Terminated,
    Killed,
    /// Nothing more is done.
    GivenUp,
}

impl Revised for ChildSpec {
    fn revision(&self) -> &str {
        &self.revision
    }
}

impl Slot {
    /// One that is to be started now.
    pub(super) fn new(spec: ChildSpec) -> Slot {
        Slot {
            plan: Plan::new(spec),
            process: None,
            step: Step::Asked,
            step_ns: None,
            starts: 0,
            short_runs: 0,
            postponed: 0,
            last_end: None,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.plan.spec().name
    }

    pub(super) fn is_running(&self) -> bool {
        self.plan.phase() == plan::Phase::Running
    }

    pub(super) fn is_stopping(&self) -> bool {
        matches!(self.plan.phase(), plan::Phase::Stopping { .. })
    }

    pub(super) fn is_removed(&self) -> bool {
        self.plan.phase() == plan::Phase::Removed
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.plan.phase(), plan::Phase::Ended | plan::Phase::Removed)
    }

    /// When it is to be looked at again, if nothing happens before.
    pub(super) fn due_ns(&self) -> Option<u64> {
        match self.plan.phase() {
            plan::Phase::Waiting { until_ns } => Some(until_ns),
            plan::Phase::Stopping { .. } => {
                let look_ns = self.process.as_ref().and_then(Process::look_ns);
                self.step_ns.into_iter().chain(look_ns).min()
            }
            _ => None,
        }
    }

    /// Does what a step of the plan says.
    pub(super) fn obey(&mut self, step: plan::Step) {
        let (plan::Step::Stop, Some(process)) = (step, &mut self.process) else { return };
        process.ask();
        self.step = Step::Asked;
        self.step_ns = Some(after(self.plan.spec().stop.ask));
        self.escalate(clock::monotonic_ns());
    }

    /// Its process has ended by itself: what it has started is stopped, without a request, which is made to the process alone.
    pub(super) fn stop_the_rest(&mut self) {
        self.step = Step::Asked;
        self.step_ns = Some(0);
        self.escalate(clock::monotonic_ns());
    }

    /// The next step of a stop, if its time has come; with steps of no time, several.
    pub(super) fn escalate(&mut self, now_ns: u64) {
        while self.is_stopping()
            && let Some(process) = &mut self.process
            && let Some(step_ns) = self.step_ns
            && step_ns <= now_ns.max(clock::monotonic_ns())
        {
            let terminate = self.plan.spec().stop.terminate;
            match self.step {
                Step::Asked if !terminate.is_zero() => {
                    process.terminate();
                    (self.step, self.step_ns) = (Step::Terminated, Some(after(terminate)));
                }
                Step::Asked | Step::Terminated => return self.kill(),
                Step::Killed | Step::GivenUp => {
                    (self.step, self.step_ns) = (Step::GivenUp, None);
                    process.look_now();
                }
            }
        }
    }

    /// SIGKILL for one that is being stopped, and for its group: nothing comes after that but their end.
    pub(super) fn kill(&mut self) {
        if self.is_stopping()
            && let Some(process) = &mut self.process
        {
            process.kill();
            (self.step, self.step_ns) = (Step::Killed, Some(after(PATIENCE)));
        }
    }

    /// Nobody of its group is waited for any longer.
    pub(super) fn has_given_up(&self) -> bool {
        self.step == Step::GivenUp
    }

    pub(super) fn status(&self) -> ChildStatus {
        let process = self.process.as_ref();
        ChildStatus {
            name: self.name().to_owned(),
            phase: match self.plan.phase() {
                plan::Phase::Waiting { .. } => Phase::Waiting,
                plan::Phase::Running => Phase::Running,
                plan::Phase::Stopping { .. } => Phase::Stopping,
                plan::Phase::Ended | plan::Phase::Removed => Phase::Ended,
            },
            pid: process.map(Process::pid),
            restarts: self.starts.saturating_sub(1),
            started_ns: process.map(|process| process.started_realtime_ns),
            last_end: self.last_end,
        }
    }
}

/// A time from now.
pub(super) fn after(time: std::time::Duration) -> u64 {
    let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    clock::monotonic_ns().saturating_add(ns)
}
