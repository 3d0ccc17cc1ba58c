//! A child's place in a supervisor: what it does, and each way from one phase to the next.
//!
//! Waiting -> Running -> (its own end) -> Waiting or Ended; Running -> Stopping -> what was to come then.

use shmbus_sys::clock;

use super::child::{End, Process};
use super::spec::ChildSpec;
use super::status::{ChildStatus, Phase};

pub(super) struct Slot {
    pub(super) spec: ChildSpec,
    pub(super) state: State,
    /// How often it was started, or could not be.
    pub(super) starts: u64,
    /// Runs in a row that were too short.
    pub(super) short_runs: u32,
    pub(super) last_end: Option<End>,
}

pub(super) enum State {
    Waiting {
        until_ns: u64,
    },
    Running(Process),
    Stopping {
        process: Process,
        step: Step,
        until_ns: Option<u64>,
        then: Then,
    },
    Ended,
    /// To be taken out of the list.
    Removed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Asked,
    Terminated,
    Killed,
}

/// What comes when a child that is being stopped has ended.
pub(super) enum Then {
    Stay,
    Start,
    Remove,
    Replace(Box<ChildSpec>),
}

impl Slot {
    /// One that is to be started now.
    pub(super) fn new(spec: ChildSpec) -> Slot {
        let state = State::Waiting { until_ns: 0 };
        Slot { spec, state, starts: 0, short_runs: 0, last_end: None }
    }

    pub(super) fn process(&self) -> Option<&Process> {
        match &self.state {
            State::Running(process) | State::Stopping { process, .. } => Some(process),
            _ => None,
        }
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(self.state, State::Running(_))
    }

    pub(super) fn is_stopping(&self) -> bool {
        matches!(self.state, State::Stopping { .. })
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, State::Ended | State::Removed)
    }

    /// When it is to be looked at again, if nothing happens before.
    pub(super) fn due_ns(&self) -> Option<u64> {
        match self.state {
            State::Waiting { until_ns } => Some(until_ns),
            State::Stopping { until_ns, .. } => until_ns,
            _ => None,
        }
    }

    /// Has it end, and `then` follow: at once where it does not run. What was to follow before is forgotten.
    pub(super) fn stop(&mut self, then: Then) {
        match std::mem::replace(&mut self.state, State::Removed) {
            State::Running(mut process) => {
                process.ask();
                let until_ns = Some(after(self.spec.stop.ask));
                self.state = State::Stopping { process, step: Step::Asked, until_ns, then };
                self.escalate(clock::monotonic_ns());
            }
            State::Stopping { process, step, until_ns, .. } => {
                self.state = State::Stopping { process, step, until_ns, then };
            }
            State::Waiting { .. } | State::Ended | State::Removed => self.follow(then, 0),
        }
    }

    /// The next step of a stop, if its time has come; with steps of no time, several.
    pub(super) fn escalate(&mut self, now_ns: u64) {
        while let State::Stopping { process, step, until_ns: Some(until_ns), .. } = &mut self.state
            && *until_ns <= now_ns.max(clock::monotonic_ns())
        {
            *step = match step {
                Step::Asked if !self.spec.stop.terminate.is_zero() => {
                    process.terminate();
                    *until_ns = after(self.spec.stop.terminate);
                    Step::Terminated
                }
                _ => return self.kill(),
            };
        }
    }

    /// SIGKILL for one that is being stopped: nothing comes after that but its end.
    pub(super) fn kill(&mut self) {
        if let State::Stopping { process, step, until_ns, .. } = &mut self.state {
            process.kill();
            *step = Step::Killed;
            *until_ns = None;
        }
    }

    /// What comes after a stop. `until_ns`: no start before.
    pub(super) fn follow(&mut self, then: Then, until_ns: u64) {
        self.state = match then {
            Then::Stay => State::Ended,
            Then::Remove => State::Removed,
            Then::Start => State::Waiting { until_ns },
            Then::Replace(spec) => {
                self.spec = *spec;
                self.short_runs = 0;
                State::Waiting { until_ns }
            }
        };
    }

    pub(super) fn status(&self) -> ChildStatus {
        let process = self.process();
        ChildStatus {
            name: self.spec.name.clone(),
            phase: match self.state {
                State::Waiting { .. } => Phase::Waiting,
                State::Running(_) => Phase::Running,
                State::Stopping { .. } => Phase::Stopping,
                State::Ended | State::Removed => Phase::Ended,
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
