//! What a supervisor tells while it runs, and at its end.

use std::io;
use std::process::Child;
use std::time::Duration;

use super::child::End;
use super::spec::Intensity;
use super::status::ChildStatus;

/// Something that happened, told on the supervisor's thread, which waits for the callback.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A child runs.
    Started {
        /// Its name.
        name: &'a str,
        /// To take its standard streams from, where the command pipes them. Not to be waited for or killed.
        child: &'a mut Child,
    },
    /// A child was not started.
    NotStarted {
        /// Its name.
        name: &'a str,
        /// Why.
        error: &'a io::Error,
        /// Descriptors, processes or memory are short, and it is tried again then. That is no end, and counts as no restart.
        retry_in: Option<Duration>,
    },
    /// A child has ended or was not started.
    Ended {
        /// Its name.
        name: &'a str,
        /// How.
        end: End,
        /// Whether it was told to stop.
        stopped: bool,
        /// How long it ran.
        ran: Duration,
        /// As how many participants it was found dead in its topics.
        swept: u32,
        /// When it is started again, if it is by its own end.
        restart_in: Option<Duration>,
    },
    /// Too many restarts: everything is being stopped.
    GivingUp {
        /// The child that ended last.
        name: &'a str,
    },
    /// The phase or the numbers of some child are other ones.
    Changed(&'a [ChildStatus]),
}

/// Why a supervisor has returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// All children have ended, and none is to be started again.
    AllEnded,
    /// [`Handle::stop`](super::Handle::stop).
    Asked,
    /// SIGTERM or SIGINT; SIGHUP, where the terminal is gone.
    Signal(i32),
}

/// How it went.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// Why it is over.
    pub cause: Cause,
    /// The children, all ended.
    pub children: Vec<ChildStatus>,
}

/// A supervisor that cannot go on. Its children have ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SupervisorError {
    /// Two children have one name.
    #[error("there are two children called {name}")]
    SameName {
        /// The name.
        name: String,
    },
    /// More restarts than [`Intensity`] allows; everything was stopped.
    #[error("more than {} restarts within {:?}; the last to end was {name}, which {end}", intensity.restarts, intensity.within)]
    TooManyRestarts {
        /// What is allowed.
        intensity: Intensity,
        /// The child that ended last.
        name: String,
        /// How.
        end: End,
        /// The children, all ended.
        children: Vec<ChildStatus>,
    },
    /// The kernel refused.
    #[error("cannot {action}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Why not.
        source: io::Error,
    },
}
