//! Processes on topics: children that are given topics, and a supervisor that starts, watches, stops and restarts them.
//!
//! ```no_run
//! use shmbus::process::{ChildSpec, Supervisor};
//! use shmbus::{Topic, TopicOptions};
//! use std::process::Command;
//!
//! let quotes = Topic::<u64>::create("md/quotes", &TopicOptions::default())?;
//! let mut supervisor = Supervisor::new()?;
//! for name in ["feed", "strategy"] {
//!     let mut child = ChildSpec::new(name, move || Ok(Command::new(format!("./{name}"))));
//!     child.topic(&quotes); // there: Topic::<u64>::inherited("md/quotes")
//!     supervisor.add(child)?;
//! }
//! supervisor.take_signals()?; // SIGTERM and SIGINT stop all of them
//! let report = supervisor.run()?; // afterwards: no process, no zombie, no place held in a topic
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What it promises
//! - A child has the standard streams, the topics that it was given, and a descriptor that says when it is to stop: every other descriptor of shmbus is
//!   close-on-exec. No signal is blocked or ignored in it.
//! - A process is watched by descriptor (pidfd) and never by its number alone; none but the supervisor's own children are waited for, unless it
//!   [reaps orphans](Supervisor::reap_orphans). If something else in the program waits for a child, its end is [`End::Unknown`], and no more is lost.
//! - What a dead child held in its topics is given back before it is started again.
//! - A child has ended when its whole process group has: SIGTERM, and SIGKILL after the time that it has, go to the group.
//! - A stopped tree leaves nothing: no process of it, no zombie, no place in a topic.
//! - The children die with the supervisor, however it dies, unless they have changed their user or group.
//! - What is wanted last counts: a reload, a restart or a stop may come at any moment of another one.
//! - Nothing looks at intervals: an idle supervisor sleeps.
//!
//! # What it does not
//! - Processes that a child starts are stopped with it if they stay in its process group. One that leaves it (`setsid`) goes on; and when the
//!   supervisor itself is killed, only its children die, not theirs.
//! - A child that changes its user or group, or runs a set-user-id program, loses the order to die with its supervisor. `shmbus run` has a guard process for those;
//!   here the next supervisor has to know of them. Where a child may not be signalled either, a stop waits until it ends.
//! - Others of a group who do not end within 5 s of SIGKILL, or may not be signalled, are left.

mod child;
mod event;
mod inherit;
mod plan;
mod slot;
mod spec;
mod status;
mod stop;
mod supervisor;

pub use child::{Core, End};
pub use event::{Cause, Event, Report, SupervisorError};
pub use inherit::{CommandExt, InheritError, inherited_topics};
pub use spec::{BackOff, ChildSpec, Intensity, Restart, Stop, Strategy};
pub use status::{ChildStatus, Handle, Phase};
pub use stop::{StopError, StopRequest};
pub use supervisor::Supervisor;

use shmbus_sys::spawn::FileId;

/// An inherited descriptor as it stands in the environment: `7.26.1234`, its number, and device and inode of what it is.
fn described(number: i32, id: FileId) -> String {
    format!("{number}.{}.{}", id.device, id.inode)
}

/// The opposite.
fn read_description(text: &str) -> Option<(i32, FileId)> {
    let mut parts = text.split('.');
    let number = parts.next()?.parse().ok()?;
    let device = parts.next()?.parse().ok()?;
    let inode = parts.next()?.parse().ok()?;
    parts.next().is_none().then_some((number, FileId { device, inode }))
}

/// Whether there is nothing under the number of a descriptor.
fn is_not_open(error: &std::io::Error) -> bool {
    const EBADF: i32 = 9; // on every architecture of Linux
    error.raw_os_error() == Some(EBADF)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_is_read_as_it_was_written_and_anything_else_is_none() {
        let id = FileId { device: 26, inode: u64::MAX };
        assert_eq!(read_description(&described(7, id)), Some((7, id)));
        for wrong in ["", "7", "7.26", "7.26.1.2", "x.26.1", "7.26.", "7.-1.1", "99999999999.1.1"] {
            assert_eq!(read_description(wrong), None, "{wrong}");
        }
    }
}
