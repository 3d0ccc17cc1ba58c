//! The limit of the machine: one cache line back and forth between two processes, and nothing else.
#![allow(unsafe_code)] // two words in a mapping of our own

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::*};
use std::time::Instant;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use shmbus_sys::map::Mapping;
use shmbus_sys::shm::{self, Access};

use crate::placement::{Partner, median};

const FILE: &str = "ping-pong";
const WARM_UP: u64 = 2_000;
const STRETCH: u64 = 100;

/// How far apart two cores are, by what the probe says. On a virtual machine that changes within seconds, and with it every figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Class {
    /// Less than 80 ns there and back: they share a cache, or a core.
    Near,
    /// Less than 300 ns.
    Mid,
    /// More: on different chips, or parts of one.
    Far,
    /// It was another class before than after: what was measured between belongs to none.
    Moved,
    /// There is one core only.
    Alone,
}

impl Class {
    pub(crate) fn of_ns(round_trip_ns: f64) -> Class {
        match round_trip_ns {
            ns if ns < 80.0 => Class::Near,
            ns if ns < 300.0 => Class::Mid,
            _ => Class::Far,
        }
    }

    /// Of a measurement between two probes.
    pub(crate) fn between(before_ns: f64, after_ns: f64) -> Class {
        match (Class::of_ns(before_ns), Class::of_ns(after_ns)) {
            (before, after) if before == after => before,
            _ => Class::Moved,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Class::Near => "near",
            Class::Mid => "mid",
            Class::Far => "far",
            Class::Moved => "moved",
            Class::Alone => "one core",
        }
    }
}

/// Two words on lines of their own.
struct Lines(Mapping);

impl Lines {
    fn open(directory: &Path, create: bool) -> Result<Lines> {
        let directory = shm::open_directory(directory)?;
        let fd = if create {
            let fd = shm::create_at(directory.as_fd(), FILE, 0o600)?;
            shm::allocate(fd.as_fd(), 4096)?;
            fd
        } else {
            shm::open_at(directory.as_fd(), FILE, Access::ReadWrite)?
        };
        Ok(Lines(Mapping::read_write(fd.as_fd(), 4096)?))
    }

    fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset < 4096);
        // SAFETY: inside the mapping of 4096 bytes.
        let word = unsafe { self.0.base().add(offset) };
        // SAFETY: aligned, mapped as long as `self`, and accessed as an atomic only.
        unsafe { word.cast().as_ref() }
    }
}

/// Nanoseconds of a round trip of one word, to a process on `core`: the median of the means of short stretches, most of which nobody interrupts.
pub(crate) fn round_trip_ns(directory: &Path, count: u64, core: usize) -> Result<f64> {
    let lines = Lines::open(directory, true)?;
    let partner = Partner::start("ping-pong", directory, count, core);
    shm::unlink_at(shm::open_directory(directory)?.as_fd(), FILE)?;
    let partner = partner?;
    let (ping, pong) = (lines.word(0), lines.word(1024));
    let mut trip = |i| {
        ping.store(i, Release);
        while pong.load(Acquire) != i {}
    };
    (1..=WARM_UP).for_each(&mut trip);
    let mut stretches = Vec::new();
    for i in (WARM_UP..count).step_by(STRETCH as usize) {
        let begin = Instant::now();
        (i + 1..=count.min(i + STRETCH)).for_each(&mut trip);
        stretches.push(begin.elapsed().as_nanos() as f64 / (count.min(i + STRETCH) - i) as f64);
    }
    partner.finish()?;
    Ok(median(&mut stretches))
}

pub(crate) fn partner(directory: &Path, count: u64) -> Result<()> {
    let lines = Lines::open(directory, false)?;
    let (ping, pong) = (lines.word(0), lines.word(1024));
    println!("ready");
    for i in 1..=count {
        while ping.load(Acquire) != i {}
        pong.store(i, Release);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measurement_belongs_to_the_class_of_both_probes_or_to_none() {
        assert_eq!(Class::between(50.0, 79.9), Class::Near);
        assert_eq!(Class::between(80.0, 299.0), Class::Mid);
        assert_eq!(Class::between(530.0, 570.0), Class::Far);
        assert_eq!(Class::between(50.0, 530.0), Class::Moved);
        assert_eq!(Class::between(120.0, 79.0), Class::Moved);
    }
}
