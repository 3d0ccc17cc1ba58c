//! The limit of the machine: one cache line back and forth between two processes, and nothing else.
#![allow(unsafe_code)] // two words in a mapping of our own

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::*};
use std::time::Instant;

use anyhow::Result;
use shmbus_sys::map::Mapping;
use shmbus_sys::shm::{self, Access};

use crate::placement::Partner;

const FILE: &str = "ping-pong";
const WARM_UP: u64 = 2_000;

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

/// Nanoseconds of a round trip of one word, to a process on `core`.
pub(crate) fn round_trip_ns(directory: &Path, count: u64, core: usize) -> Result<f64> {
    let lines = Lines::open(directory, true)?;
    let partner = Partner::start("ping-pong", directory, count, core);
    shm::unlink_at(shm::open_directory(directory)?.as_fd(), FILE)?;
    let partner = partner?;
    let (ping, pong) = (lines.word(0), lines.word(1024));
    let mut begin = Instant::now();
    for i in 1..=count {
        if i == WARM_UP {
            begin = Instant::now();
        }
        ping.store(i, Release);
        while pong.load(Acquire) != i {}
    }
    let elapsed = begin.elapsed();
    partner.finish()?;
    Ok(elapsed.as_nanos() as f64 / (count - WARM_UP) as f64)
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
