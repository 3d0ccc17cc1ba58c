//! Total rate of several processes that publish to one topic as fast as they can, beside one exclusive publisher and beside a ring behind a
//! process-shared mutex.
#![allow(unsafe_code)] // the mutex-guarded ring: a pthread mutex and slots in a mapping of our own

use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Instant;

use anyhow::{Result, ensure};
use shmbus::{Directory, Publishers, Topic, TopicOptions};
use shmbus_sys::map::Mapping;
use shmbus_sys::shm::{self, Access};

use crate::placement::{Partner, Scratch, median};
use crate::publish_cost::Message;

const DEPTH: u64 = 65_536;
const MESSAGES: u64 = 2_000_000;
const EXCLUSIVE: &str = "bench/exclusive";
const SHARED: &str = "bench/shared";
const MUTEX: &str = "mutex";

pub(crate) fn run(rounds: usize) -> Result<()> {
    let cores = shmbus_sys::process::cores();
    let counts: Vec<usize> =
        [1, 2, 4, 8].into_iter().filter(|count| *count <= cores.max(4)).collect();
    println!(
        "publish of 48 bytes by several processes on {cores} cores, million messages a second in all, {rounds} rounds:"
    );
    let mut exclusive = Vec::new();
    let mut shared = vec![Vec::new(); counts.len()];
    let mut mutex = vec![Vec::new(); counts.len()];
    for _ in 0..rounds {
        exclusive.push(rate("publish-exclusive", 1)?);
        for (at, count) in counts.iter().enumerate() {
            shared[at].push(rate("publish-shared", *count)?);
            mutex[at].push(rate("publish-mutex", *count)?);
        }
    }
    println!("  1 exclusive publisher   {:.1}", median(&mut exclusive));
    for (at, count) in counts.iter().enumerate() {
        let (shared, mutex) = (median(&mut shared[at]), median(&mut mutex[at]));
        println!("  {count} publishers   shared {shared:.1}   ring behind a mutex {mutex:.1}");
    }
    let mut ratios: Vec<f64> = shared[1].iter().zip(&mutex[1]).map(|(a, b)| a / b).collect();
    println!(
        "2 shared publishers / 2 behind a mutex, median of the rounds: {:.2}",
        median(&mut ratios)
    );
    Ok(())
}

/// Million messages a second of `count` processes that play `role`.
fn rate(role: &str, count: usize) -> Result<f64> {
    let scratch = Scratch::new()?;
    let directory = Directory::at(scratch.path())?;
    let options = TopicOptions { depth: DEPTH, prefault: true, ..Default::default() };
    let _exclusive = Topic::<Message>::create_in(&directory, EXCLUSIVE, &options)?;
    let options = TopicOptions { publishers: Publishers::Shared(8), ..options };
    let _shared = Topic::<Message>::create_in(&directory, SHARED, &options)?;
    let _mutex = MutexRing::open(scratch.path(), true)?;
    let each = MESSAGES / count as u64;
    let partners: Result<Vec<Partner>> =
        (0..count).map(|_| Partner::start_anywhere(role, scratch.path(), each)).collect();
    let mut partners = partners?;
    let begin = Instant::now();
    partners.iter_mut().for_each(Partner::go);
    partners.into_iter().try_for_each(Partner::finish)?;
    Ok((each * count as u64) as f64 / begin.elapsed().as_secs_f64() / 1e6)
}

pub(crate) fn partner(role: &str, directory: &Path, count: u64) -> Result<()> {
    if role == "publish-mutex" {
        let ring = MutexRing::open(directory, false)?;
        ready()?;
        (0..count).for_each(|i| ring.publish(&[i; 6]));
        return Ok(());
    }
    let name = if role == "publish-shared" { SHARED } else { EXCLUSIVE };
    let topic = Topic::<Message>::open_in(&Directory::at(directory)?, name)?;
    let mut publisher = topic.publisher()?;
    ready()?;
    for i in 0..count {
        publisher.publish(&[i; 6])?;
    }
    Ok(())
}

/// Says so, and waits for the word.
fn ready() -> Result<()> {
    println!("ready");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// What one would write without a bus: a process-shared mutex, a head, and slots.
struct MutexRing(Mapping);

const SLOTS_OFFSET: usize = 128;

impl MutexRing {
    fn open(directory: &Path, create: bool) -> Result<MutexRing> {
        let len = SLOTS_OFFSET + DEPTH as usize * size_of::<Message>();
        let directory = shm::open_directory(directory)?;
        let fd = if create {
            let fd = shm::create_at(directory.as_fd(), MUTEX, 0o600)?;
            shm::allocate(fd.as_fd(), len as u64)?;
            fd
        } else {
            shm::open_at(directory.as_fd(), MUTEX, Access::ReadWrite)?
        };
        let ring = MutexRing(Mapping::read_write(fd.as_fd(), len)?);
        ring.0.prefault()?;
        if create {
            let mut attributes = std::mem::MaybeUninit::uninit();
            // SAFETY: initialises the attributes.
            ensure!(unsafe { libc::pthread_mutexattr_init(attributes.as_mut_ptr()) } == 0, "mutex");
            let process_shared = libc::PTHREAD_PROCESS_SHARED;
            // SAFETY: they are initialised.
            let set = unsafe {
                libc::pthread_mutexattr_setpshared(attributes.as_mut_ptr(), process_shared)
            };
            ensure!(set == 0, "mutex");
            // SAFETY: room for a mutex at the start of the mapping, aligned, and nobody uses it yet.
            let made = unsafe { libc::pthread_mutex_init(ring.mutex(), attributes.as_ptr()) };
            ensure!(made == 0, "mutex");
        }
        Ok(ring)
    }

    fn mutex(&self) -> *mut libc::pthread_mutex_t {
        self.0.base().as_ptr().cast()
    }

    fn publish(&self, message: &Message) {
        let base = self.0.base().as_ptr();
        // SAFETY: the mutex was initialised by the creator.
        unsafe { libc::pthread_mutex_lock(self.mutex()) };
        // SAFETY: inside the mapping, behind the mutex.
        let head = unsafe { base.add(64) }.cast::<u64>();
        // SAFETY: aligned, and guarded by the mutex.
        let sequence = unsafe { head.read() };
        let slot = (sequence % DEPTH) as usize * size_of::<Message>();
        // SAFETY: one of `DEPTH` slots behind the first 128 bytes.
        let to = unsafe { base.add(SLOTS_OFFSET + slot) }.cast::<Message>();
        // SAFETY: in bounds, aligned, and guarded by the mutex.
        unsafe { to.write(*message) };
        // SAFETY: as when it was read.
        unsafe { head.write(sequence + 1) };
        // SAFETY: locked above by this thread.
        unsafe { libc::pthread_mutex_unlock(self.mutex()) };
    }
}
