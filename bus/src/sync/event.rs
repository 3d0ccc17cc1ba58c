//! A signal among processes.

use std::fmt;
use std::time::Duration;

use crate::atomics::{Words, now_ns};
use crate::directory::Directory;
use crate::sync::error::{SyncCreateError, SyncOpenError, WaitError};
use crate::sync::member::Member;
use crate::sync::object::{self, Initial, Object, Shape, SyncKind, SyncOptions};
use crate::sync::opening::opening;
use crate::sync::signal::{self, Waited};
use crate::sync::turn;
use crate::sync::wait::{Vigil, WORDS_MAX, is_retired};
use crate::wait::deadline_ns;

/// How an event is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// By [`Event::reset`] only: all who wait go on, and all who come, until then.
    Manual,
    /// By the one who goes on: each [`Event::set`] lets exactly one go, who waits or comes.
    Auto,
}

/// A flag in shared memory that is waited for.
///
/// ```
/// use std::time::Duration;
/// use shmbus::sync::{Event, Reset, SyncOptions, WaitError};
/// # let directory = tempfile::tempdir_in("/dev/shm")?;
/// # let directory = shmbus::Directory::at(directory.path())?;
///
/// let options = SyncOptions::default();
/// let stop = Event::open_or_create_in(&directory, "plant/stop", &options, Reset::Manual)?;
/// assert_eq!(stop.wait_timeout(Duration::from_millis(1)), Err(WaitError::TimedOut));
/// stop.set()?; // in any process
/// stop.wait()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # What it promises
/// - After [`set`](Event::set) whoever waits for a manual event goes on; of an automatic one exactly one does. Setting what is set already changes nothing: signals are not counted (a
///   [`Semaphore`](crate::sync::Semaphore) counts).
/// - Who is killed after it was woken and before it took the signal has not taken it: another one does. Who returns from `wait` has it, and it dies with that one.
/// - Who goes on sees all that was done before the `set`.
///
/// How it is reset is its creator's choice; `open_or_create` of one that is reset in the other way is [`SyncOpenError::Parameter`]. A handle belongs to its thread. To set what nobody waits for: one exchange and a fence.
pub struct Event {
    member: Member,
}

impl Event {
    const SHAPE: Shape = Shape::of::<()>(SyncKind::Event, true);

    opening!("event", (reset: Reset = "which is not set"), Initial {
        value: if reset == Reset::Manual { signal::MANUAL } else { 0 },
        parameter: if reset == Reset::Manual { object::MANUAL } else { object::AUTO },
        ..Initial::default()
    });

    fn join(object: Object) -> Result<Event, SyncOpenError> {
        Ok(Event { member: Member::join(object, signal::give_back)? })
    }

    /// Sets it, and says whether it was not set before. Waits for nobody.
    ///
    /// # Errors
    /// [`WaitError::Forked`].
    pub fn set(&self) -> Result<bool, WaitError> {
        self.is_usable()?;
        Ok(signal::set(&self.member.seat.region))
    }

    /// Resets it, and says whether it was set before. Waits for nobody.
    ///
    /// # Errors
    /// [`WaitError::Forked`].
    pub fn reset(&self) -> Result<bool, WaitError> {
        self.is_usable()?;
        Ok(signal::reset(&self.member.seat.region))
    }

    /// Waits until it is set; of an automatic one, takes the signal.
    ///
    /// # Errors
    /// [`WaitError::Removed`], [`Forked`](WaitError::Forked).
    pub fn wait(&self) -> Result<(), WaitError> {
        self.wait_until(u64::MAX)
    }

    /// The same, without waiting.
    ///
    /// # Errors
    /// [`WaitError::WouldBlock`] where it is not set; [`Forked`](WaitError::Forked).
    pub fn try_wait(&self) -> Result<(), WaitError> {
        self.is_usable()?;
        if signal::take(&self.member.seat.region) { Ok(()) } else { Err(WaitError::WouldBlock) }
    }

    /// The same, waiting for `timeout` at most.
    ///
    /// # Errors
    /// As [`wait`](Event::wait); [`WaitError::TimedOut`].
    pub fn wait_timeout(&self, timeout: Duration) -> Result<(), WaitError> {
        self.wait_until(deadline_ns(timeout))
    }

    /// The same, waiting until `deadline_ns` (nanoseconds of `CLOCK_MONOTONIC`) at most.
    ///
    /// # Errors
    /// As [`wait`](Event::wait); [`WaitError::TimedOut`].
    pub fn wait_until(&self, deadline_ns: u64) -> Result<(), WaitError> {
        self.is_usable()?;
        match signal::wait(&self.member.seat, deadline_ns) {
            Waited::Signalled => Ok(()),
            Waited::TimedOut => Err(WaitError::TimedOut),
            Waited::Removed => Err(WaitError::Removed),
        }
    }

    /// Waits until one of several is set, and says which: the first in their order. Of an automatic one it takes the signal, and of no other. `deadline_ns`
    /// (nanoseconds of `CLOCK_MONOTONIC`) at most; `u64::MAX` has no end.
    ///
    /// # Errors
    /// As [`wait_until`](Event::wait_until): `Removed` where one of them was; [`WaitError::TooMany`] where they have too many members together: the kernel waits for 128 words
    /// at once, which are two for each event and one for each place that a member of it has had. No events at all are [`WaitError::TimedOut`] at once.
    pub fn wait_any(events: &[&Event], deadline_ns: u64) -> Result<usize, WaitError> {
        events.iter().try_for_each(|event| event.is_usable())?;
        let taken = || events.iter().position(|event| signal::take(&event.member.seat.region));
        if let Some(taken) = taken() {
            return Ok(taken);
        }
        let mut vigils: Vec<Vigil<'_>> =
            events.iter().map(|event| Vigil::new(&event.member.seat)).collect();
        let done = loop {
            let expected: Vec<u32> =
                events.iter().map(|event| turn::expect(&event.member.seat.region)).collect();
            if let Some(taken) = taken() {
                break Ok(taken);
            }
            if events.iter().any(|event| is_retired(&event.member.seat.region)) {
                break Err(WaitError::Removed);
            }
            if events.is_empty() || now_ns() >= deadline_ns {
                break Err(WaitError::TimedOut);
            }
            let mut words = Words::none();
            let mut until_ns = Some(deadline_ns);
            for ((event, vigil), expected) in events.iter().zip(&mut vigils).zip(expected) {
                let turn = &event.member.seat.region.control().turn.0;
                until_ns =
                    until_ns.and_then(|until_ns| vigil.watch(&mut words, turn, expected, until_ns));
            }
            if words.count() > WORDS_MAX {
                break Err(WaitError::TooMany { max: WORDS_MAX as u32 });
            }
            if let Some(until_ns) = until_ns {
                words.wait(until_ns);
            }
        };
        // A wake of one of the others may have been for somebody else.
        for (number, event) in events.iter().enumerate() {
            if done != Ok(number) {
                turn::pass_on(&event.member.seat.region);
            }
        }
        done
    }

    fn is_usable(&self) -> Result<(), WaitError> {
        if self.member.is_forked() { Err(WaitError::Forked) } else { Ok(()) }
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event").finish_non_exhaustive()
    }
}
