//! What is to be supervised, and how.

use std::io;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use crate::participant::Attachment;
use crate::payload::Payload;
use crate::topic::Topic;

/// A child: how it is started, what it is given, and what happens when it ends.
pub struct ChildSpec {
    /// Its name, which no other child of the supervisor has.
    pub name: String,
    /// Whether it is started again when it ends.
    pub restart: Restart,
    /// How it is stopped.
    pub stop: Stop,
    /// On a reload, a child of the same name and the same revision goes on as it is; of another one, it is stopped and the new one started.
    pub revision: String,
    pub(super) command: Box<MakeCommand>,
    pub(super) topics: Vec<Arc<Attachment>>,
}

type MakeCommand = dyn FnMut() -> io::Result<Command> + Send;

impl ChildSpec {
    /// A child that `command` makes, each time that it is started, on the supervisor's thread. It is restarted always, and stopped as [`Stop::default`] says.
    ///
    /// The supervisor adds to the command: a process group of its own, no blocked and no ignored signals, death with the supervisor, the topics, and what
    /// [`StopRequest`](super::StopRequest) reads.
    pub fn new(
        name: impl Into<String>,
        command: impl FnMut() -> io::Result<Command> + Send + 'static,
    ) -> ChildSpec {
        ChildSpec {
            name: name.into(),
            restart: Restart::default(),
            stop: Stop::default(),
            revision: String::new(),
            command: Box::new(command),
            topics: Vec::new(),
        }
    }

    /// Gives the child a topic, as [`CommandExt::topic`](super::CommandExt::topic) does; what it holds in there when it dies is given back before it is started
    /// again.
    pub fn topic<T: Payload + ?Sized>(&mut self, topic: &Topic<T>) -> &mut ChildSpec {
        self.topics.push(Arc::clone(&topic.attachment));
        self
    }
}

/// Whether a child that has ended is started again. One that was stopped by its supervisor is not its own end, and does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Restart {
    /// However it ended.
    #[default]
    Always,
    /// If it ended by a signal, or with another status than 0, or could not be started.
    OnFailure,
    /// Not at all.
    Never,
}

/// How a child is stopped: [`StopRequest`](super::StopRequest) says so at once; after `ask` comes SIGTERM, to its process group; after `terminate` more comes SIGKILL, to its
/// process group. Whoever of it ends earlier is waited for no longer. What a child has started and leaves behind when it ends by itself is stopped in the same way, without a request. Zero leaves a step out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    /// For children that look at [`StopRequest`](super::StopRequest): how long they have before SIGTERM. Zero unless set, because others do not notice and every
    /// stop would last that long.
    pub ask: Duration,
    /// How long it has after SIGTERM. 5 s unless set. A child that is stopped (SIGSTOP) takes all of it.
    pub terminate: Duration,
}

impl Default for Stop {
    fn default() -> Stop {
        Stop { ask: Duration::ZERO, terminate: Duration::from_secs(5) }
    }
}

/// What happens to the others when a child ends and is to be started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Strategy {
    /// Nothing.
    #[default]
    OneForOne,
    /// They are stopped; when all have ended, all are started again, in their order. Those that had ended for good before stay so.
    OneForAll,
}

/// How long a child stays down before it is started again: `min`, and twice as long each time that it runs for less than `healthy`, up to `max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackOff {
    /// The first time, and after a run of `healthy` or longer. 100 ms unless set.
    pub min: Duration,
    /// The longest. 10 s unless set.
    pub max: Duration,
    /// A run that is long enough to begin again with `min`. 10 s unless set.
    pub healthy: Duration,
}

impl Default for BackOff {
    fn default() -> BackOff {
        BackOff {
            min: Duration::from_millis(100),
            max: Duration::from_secs(10),
            healthy: Duration::from_secs(10),
        }
    }
}

impl BackOff {
    /// After as many runs in a row that were too short, less the first.
    pub(super) fn delay(&self, short_runs: u32) -> Duration {
        let factor = 1_u32.checked_shl(short_runs).unwrap_or(u32::MAX);
        self.min.saturating_mul(factor).min(self.max).max(self.min.min(self.max))
    }
}

/// How many restarts, of all children together, are too many: then the supervisor stops everything and says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intensity {
    /// As many are allowed... 10 unless set.
    pub restarts: u32,
    /// ...in any period of this length. 60 s unless set.
    pub within: Duration,
}

impl Default for Intensity {
    fn default() -> Intensity {
        Intensity { restarts: 10, within: Duration::from_secs(60) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_between_restarts_doubles_up_to_its_limit_and_never_overflows() {
        let back_off = BackOff {
            min: Duration::from_millis(100),
            max: Duration::from_secs(1),
            ..BackOff::default()
        };
        let delays = [0, 1, 2, 3, 4, 31, 32, u32::MAX].map(|runs| back_off.delay(runs).as_millis());
        assert_eq!(delays, [100, 200, 400, 800, 1000, 1000, 1000, 1000]);
        let none = BackOff { min: Duration::ZERO, ..back_off };
        assert_eq!(none.delay(40), Duration::ZERO);
        let wrong = BackOff { min: Duration::from_secs(5), ..back_off };
        assert_eq!(wrong.delay(0), Duration::from_secs(1));
    }
}
