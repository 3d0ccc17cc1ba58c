//! The transports that a program measures, by name.

use anyhow::{Context, Result};

use crate::endpoint::{Report, Steps, Task, play};
use crate::message::{Any, Fixed48};
use crate::transport::{Abilities, Channel, Transport};

/// A [`Transport`] without its types: what is asked of it once for each run. Implemented for every transport, and not by hand.
pub trait Registered: private::Sealed + Send + Sync {
    #[doc(hidden)]
    fn name(&self) -> &'static str;
    #[doc(hidden)]
    fn abilities(&self) -> Abilities;
    #[doc(hidden)]
    fn create(&self, channel: &Channel) -> Result<()>;
    #[doc(hidden)]
    fn remove(&self, channel: &Channel);
    #[doc(hidden)]
    #[allow(private_interfaces)]
    fn play(&self, task: &Task, steps: &mut Steps) -> Result<Report>;
}

mod private {
    pub trait Sealed {}
    impl<T: crate::transport::Transport> Sealed for T {}
    impl<A: crate::transport::Transport, B: crate::transport::Transport> Sealed
        for super::ByLength<A, B>
    {
    }
}

/// Two transports of one name: for messages of 48 bytes, whose type a program knows when it is compiled, and for all others. Which of them it is, is asked before a
/// run and not for each message.
pub struct ByLength<A, B> {
    /// That for messages of 48 bytes.
    pub of_48: A,
    /// The other one.
    pub of_any: B,
}

impl<A: Transport, B: Transport> Registered for ByLength<A, B> {
    fn name(&self) -> &'static str {
        Transport::name(&self.of_48)
    }

    fn abilities(&self) -> Abilities {
        Transport::abilities(&self.of_any)
    }

    fn create(&self, channel: &Channel) -> Result<()> {
        match channel.payload {
            48 => Transport::create(&self.of_48, channel),
            _ => Transport::create(&self.of_any, channel),
        }
    }

    fn remove(&self, channel: &Channel) {
        match channel.payload {
            48 => Transport::remove(&self.of_48, channel),
            _ => Transport::remove(&self.of_any, channel),
        }
    }

    #[allow(private_interfaces)]
    fn play(&self, task: &Task, steps: &mut Steps) -> Result<Report> {
        match task.channel.payload {
            48 => play(&self.of_48, task, steps, Fixed48),
            len => play(&self.of_any, task, steps, Any(len)),
        }
    }
}

impl<T: Transport> Registered for T {
    fn name(&self) -> &'static str {
        Transport::name(self)
    }

    fn abilities(&self) -> Abilities {
        Transport::abilities(self)
    }

    fn create(&self, channel: &Channel) -> Result<()> {
        Transport::create(self, channel)
    }

    fn remove(&self, channel: &Channel) {
        Transport::remove(self, channel);
    }

    #[allow(private_interfaces)]
    fn play(&self, task: &Task, steps: &mut Steps) -> Result<Report> {
        match task.channel.payload {
            48 => play(self, task, steps, Fixed48),
            len => play(self, task, steps, Any(len)),
        }
    }
}

/// All transports of a program, in the order in which tables show them.
#[derive(Clone, Copy)]
pub struct Transports(&'static [&'static dyn Registered]);

impl Transports {
    /// These. The names are unique.
    pub const fn new(transports: &'static [&'static dyn Registered]) -> Transports {
        Transports(transports)
    }

    /// One after the other.
    pub(crate) fn all(self) -> impl Iterator<Item = &'static dyn Registered> {
        self.0.iter().copied()
    }

    pub(crate) fn get(self, name: &str) -> Result<&'static dyn Registered> {
        self.all().find(|one| one.name() == name).with_context(|| {
            let names: Vec<_> = self.all().map(Registered::name).collect();
            format!("there is no transport {name}; there are {}", names.join(", "))
        })
    }
}
