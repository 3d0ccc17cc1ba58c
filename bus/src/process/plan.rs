//! What a child is to be and what it is: each wish and each thing that happens is one step from one state to the next. No process is touched here.
//!
//! Two halves that do not mix: what is *wanted* (up or not, and in which revision), which only wishes change; and the *phase*, which is what the process does. The
//! last wish counts, whatever the phase was when it came.

/// Something that has a revision.
pub(super) trait Revised {
    fn revision(&self) -> &str;
}

pub(super) struct Plan<S> {
    /// What runs, or what is to be started next.
    spec: S,
    /// What is to run instead, once nothing does.
    next: Option<S>,
    goal: Goal,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    /// It is to run, as far as its restart policy says.
    Up,
    /// It is not to run: the whole tree is stopped.
    Down,
    /// It is to be taken out of the list.
    Gone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Waiting {
        until_ns: u64,
    },
    Running,
    /// Its process, or others of its group, are still there.
    Stopping {
        /// It has ended by itself, and nobody has asked for anything since: its restart policy decides.
        by_itself: bool,
    },
    Ended,
    /// To be taken out of the list.
    Removed,
}

/// What whoever has the process does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Step {
    Nothing,
    /// Begins to stop the process.
    Stop,
}

impl<S: Revised> Plan<S> {
    pub(super) fn new(spec: S) -> Plan<S> {
        Plan { spec, next: None, goal: Goal::Up, phase: Phase::Waiting { until_ns: 0 } }
    }

    pub(super) fn spec(&self) -> &S {
        &self.spec
    }

    pub(super) fn spec_mut(&mut self) -> &mut S {
        &mut self.spec
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    /// A reload has it, as `spec`. Whether that is another revision than before is the second.
    pub(super) fn want(&mut self, spec: S) -> (Step, bool) {
        let latest = self.next.as_ref().unwrap_or(&self.spec);
        let is_new = spec.revision() != latest.revision();
        if self.goal == Goal::Down {
            return (Step::Nothing, false);
        }
        self.goal = Goal::Up;
        if !is_new {
            return (Step::Nothing, false);
        }
        let step = match self.phase {
            Phase::Running | Phase::Stopping { .. } => {
                // Back to what was there before another one was wanted: that is stopped already, and comes again.
                self.next = (spec.revision() != self.spec.revision()).then_some(spec);
                self.stop()
            }
            Phase::Waiting { .. } | Phase::Ended | Phase::Removed => {
                self.spec = spec;
                self.phase = Phase::Waiting { until_ns: 0 };
                Step::Nothing
            }
        };
        (step, true)
    }

    /// A reload does not have it any more.
    pub(super) fn unwanted(&mut self) -> Step {
        if self.goal != Goal::Down {
            self.goal = Goal::Gone;
        }
        self.halt(Phase::Removed)
    }

    /// The tree is stopped. Nothing is wanted after that.
    pub(super) fn shut(&mut self) -> Step {
        self.goal = Goal::Down;
        self.halt(Phase::Ended)
    }

    /// It is to be stopped and started again, in the revision that is wanted; if it does not run, to be started.
    pub(super) fn restart(&mut self) -> Step {
        if self.goal != Goal::Up {
            return Step::Nothing;
        }
        match self.phase {
            Phase::Running | Phase::Stopping { .. } => self.stop(),
            Phase::Waiting { .. } | Phase::Ended => {
                self.phase = Phase::Waiting { until_ns: 0 };
                Step::Nothing
            }
            Phase::Removed => Step::Nothing,
        }
    }

    fn stop(&mut self) -> Step {
        let was_running = self.phase == Phase::Running;
        self.phase = Phase::Stopping { by_itself: false };
        if was_running { Step::Stop } else { Step::Nothing }
    }

    /// Not up any more: at once, if there is no process.
    fn halt(&mut self, without: Phase) -> Step {
        match self.phase {
            Phase::Running => self.stop(),
            Phase::Stopping { .. } | Phase::Removed => Step::Nothing,
            Phase::Waiting { .. } | Phase::Ended => {
                self.phase = without;
                Step::Nothing
            }
        }
    }

    /// Its process was started.
    pub(super) fn started(&mut self) {
        debug_assert!(matches!(self.phase, Phase::Waiting { .. }));
        self.phase = Phase::Running;
    }

    /// Its process has ended. Others of the group may be there still. Whether that was by itself.
    pub(super) fn process_ended(&mut self) -> bool {
        let by_itself = self.phase == Phase::Running;
        if by_itself {
            self.phase = Phase::Stopping { by_itself };
        }
        by_itself
    }

    /// Nothing of it is there any more, or nothing could be started. `again`: when its restart policy starts it again. `stopped_until`: when it may be started again after
    /// a stop. Whether the restart policy decided.
    pub(super) fn over(&mut self, again: impl FnOnce() -> Option<u64>, stopped_until: u64) -> bool {
        let by_itself =
            matches!(self.phase, Phase::Stopping { by_itself: true } | Phase::Waiting { .. });
        let is_replaced = self.next.take().map(|next| self.spec = next).is_some();
        let decided = self.goal == Goal::Up && by_itself && !is_replaced;
        let waiting = |until_ns| Phase::Waiting { until_ns };
        self.phase = match self.goal {
            Goal::Gone => Phase::Removed,
            Goal::Down => Phase::Ended,
            Goal::Up if decided => again().map_or(Phase::Ended, waiting),
            Goal::Up => waiting(stopped_until),
        };
        decided
    }

    /// It could not be started for want of something that may be there later.
    pub(super) fn postpone(&mut self, until_ns: u64) {
        self.phase = Phase::Waiting { until_ns };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Revised for &'static str {
        fn revision(&self) -> &str {
            self
        }
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Event {
        Reload(Option<&'static str>),
        Restart,
        Shut,
        /// The process ends, if there is one.
        Ends,
        /// The rest of its group is gone.
        Over,
        /// It is due to be started.
        Due,
    }

    const EVENTS: [Event; 8] = [
        Event::Reload(Some("a")),
        Event::Reload(Some("b")),
        Event::Reload(None),
        Event::Restart,
        Event::Shut,
        Event::Ends,
        Event::Over,
        Event::Due,
    ];

    /// A plan with a process, and what the wishes until now add up to.
    struct Model {
        plan: Plan<&'static str>,
        restarts: bool,
        /// Revision of the process that is there, and whether it has ended and only its group is left.
        process: Option<(&'static str, bool)>,
        told_to_stop: bool,
        wanted: Option<&'static str>,
        /// The last that was wanted.
        last: &'static str,
        shut: bool,
        /// Nothing was wished for since it ended by itself.
        may_rest: bool,
    }

    impl Model {
        fn new(restarts: bool) -> Model {
            let plan = Plan::new("a");
            let (process, told_to_stop, wanted, last) = (None, false, Some("a"), "a");
            let (shut, may_rest) = (false, false);
            Model { plan, restarts, process, told_to_stop, wanted, last, shut, may_rest }
        }

        fn obey(&mut self, step: Step) {
            if step == Step::Stop {
                let (_, has_ended) = self.process.expect("a stop is of a process");
                assert!(!has_ended && !self.told_to_stop, "stopped once");
                self.told_to_stop = true;
            }
        }

        fn apply(&mut self, event: Event) {
            let is_listed = self.plan.phase() != Phase::Removed;
            match event {
                Event::Reload(Some(revision)) if self.shut => {
                    assert_eq!(self.plan.want(revision), (Step::Nothing, false));
                }
                Event::Reload(Some(revision)) if is_listed => {
                    self.may_rest &= self.last == revision;
                    (self.wanted, self.last) = (Some(revision), revision);
                    let (step, _) = self.plan.want(revision);
                    self.obey(step);
                }
                // It was taken out of the list: a reload adds a new one.
                Event::Reload(Some(revision)) => {
                    let restarts = self.restarts;
                    *self = Model::new(restarts);
                    (self.plan, self.wanted, self.last) =
                        (Plan::new(revision), Some(revision), revision);
                }
                Event::Reload(None) => {
                    self.wanted = if self.shut { self.wanted } else { None };
                    let step = self.plan.unwanted();
                    self.obey(step);
                }
                Event::Restart => {
                    self.may_rest &= self.wanted.is_none() || self.shut;
                    let step = self.plan.restart();
                    self.obey(step);
                }
                Event::Shut => {
                    self.shut |= is_listed;
                    let step = self.plan.shut();
                    self.obey(step);
                }
                Event::Ends => {
                    if let Some((revision, false)) = self.process {
                        self.process = Some((revision, true));
                        self.may_rest = self.plan.process_ended();
                    }
                }
                Event::Over => {
                    if let Some((_, true)) = self.process {
                        (self.process, self.told_to_stop) = (None, false);
                        let restarts = self.restarts;
                        let _ = self.plan.over(|| restarts.then_some(1), 2);
                    }
                }
                Event::Due => {
                    if let Phase::Waiting { .. } = self.plan.phase() {
                        assert!(self.process.is_none(), "one at a time");
                        self.plan.started();
                        self.process = Some((self.plan.spec(), false));
                        self.may_rest = false;
                    }
                }
            }
            self.check();
        }

        fn check(&self) {
            match self.plan.phase() {
                Phase::Running => {
                    assert!(matches!(self.process, Some((_, false))) && !self.told_to_stop);
                    assert_eq!(self.process.map(|(revision, _)| revision), self.wanted);
                }
                Phase::Stopping { .. } => assert!(self.process.is_some()),
                _ => assert!(self.process.is_none()),
            }
        }

        /// What is being stopped ends, and what is due is started.
        fn settle(&mut self) {
            for _ in 0..4 {
                if let Phase::Stopping { .. } = self.plan.phase() {
                    self.apply(Event::Ends);
                    self.apply(Event::Over);
                }
                self.apply(Event::Due);
            }
            let phase = self.plan.phase();
            match self.wanted {
                _ if self.shut => assert!(matches!(phase, Phase::Ended | Phase::Removed)),
                None => assert_eq!(phase, Phase::Removed),
                Some(_) if !self.restarts && self.may_rest => assert_eq!(phase, Phase::Ended),
                Some(wanted) => {
                    assert_eq!(phase, Phase::Running);
                    assert_eq!(self.process, Some((wanted, false)));
                }
            }
        }
    }

    /// Every order of up to six events, from the beginning: when all is quiet, what runs is what the last wish wanted.
    #[test]
    fn whatever_crosses_whatever_the_last_wish_counts() {
        const DEPTH: u32 = 6;
        for restarts in [true, false] {
            for number in 0..EVENTS.len().pow(DEPTH) {
                let events: Vec<Event> = (0..DEPTH)
                    .map(|at| EVENTS[number / EVENTS.len().pow(at) % EVENTS.len()])
                    .collect();
                let done = std::panic::catch_unwind(|| {
                    let mut model = Model::new(restarts);
                    events.iter().for_each(|event| model.apply(*event));
                    model.settle();
                });
                assert!(done.is_ok(), "restarts: {restarts}, {events:?}");
            }
        }
    }
}
