//! Total rate of several processes that publish to one topic as fast as they can, and how alike their shares are, beside one exclusive publisher and beside a ring
//! behind a process-shared mutex. They are on no core in particular: the scheduler spreads them.
#![allow(unsafe_code)] // the mutex-guarded ring: a pthread mutex and slots in a mapping of our own

use std::collections::BTreeMap;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use shmbus::{Directory, Publishers, Topic, TopicOptions};
use shmbus_sys::clock::monotonic_ns;
use shmbus_sys::map::Mapping;
use shmbus_sys::shm::{self, Access};

use crate::placement::{Partner, Scratch};
use crate::record::{Case, Results};
use crate::registry::Transports;
use crate::session::{Options, Session};
use crate::table::{Column, Table, column};
use crate::transport::Wait;

type Message = [u64; 6];

const DEPTH: u64 = 65_536;
const EXCLUSIVE: &str = "bench/exclusive";
const SHARED: &str = "bench/shared";
const MUTEX: &str = "mutex";

/// How publishers of one kind are counted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Exclusive,
    Shared,
    Mutex,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Exclusive => "shmbus exclusive",
            Kind::Shared => "shmbus shared",
            Kind::Mutex => "ring behind a mutex",
        }
    }

    fn role(self) -> &'static str {
        match self {
            Kind::Exclusive => "publish-exclusive",
            Kind::Shared => "publish-shared",
            Kind::Mutex => "publish-mutex",
        }
    }
}

pub(crate) const COLUMNS: [Column; 3] = [
    column("million/s, all", "rate_per_s", 1e6, 2),
    column("least share / greatest", "fairness", 1.0, 3),
    column("× 1 of them", "per_one", 1.0, 3),
];

pub(crate) fn measure(transports: Transports, options: &Options) -> Result<Results> {
    let mut session = Session::new("contention", transports, options)?;
    let for_ms = session.options.effort().scale(300);
    let mut plans = vec![(Kind::Exclusive, 1)];
    plans.extend([1, 2, 4, 8].into_iter().flat_map(|n| [(Kind::Shared, n), (Kind::Mutex, n)]));
    let cores = session.placement.clone();
    session.interleave(plans.len(), |index| {
        let (kind, count) = plans[index];
        let case = Case {
            variant: format!("{count} publishers"),
            payload: size_of::<Message>(),
            receivers: 0,
            wait: Wait::Spin,
            transport: kind.name().to_owned(),
        };
        Ok((case, cores.is_short_of(count), rates(kind, count, for_ms)?))
    })?;
    let mut results = session.finish();
    results.relate("rate_per_s", "per_one", |case, base| {
        base.variant == "1 publishers" && base.transport == case.transport
    });
    Ok(results)
}

pub(crate) fn table(results: &Results) -> Table {
    Table::of(results, &COLUMNS)
}

/// Median over the rounds of (8 shared publishers together / one of them alone).
pub(crate) fn figure(results: &Results) -> Option<f64> {
    let is_it =
        |case: &Case| case.transport == Kind::Shared.name() && case.variant == "8 publishers";
    results.median(is_it, "per_one")
}

/// What `count` processes of one kind publish in this time, and how alike their shares are.
fn rates(kind: Kind, count: usize, for_ms: u64) -> Result<BTreeMap<String, f64>> {
    let scratch = Scratch::new()?;
    let directory = Directory::at(scratch.path())?;
    let options = TopicOptions { depth: DEPTH, prefault: true, ..Default::default() };
    let _exclusive = Topic::<Message>::create_in(&directory, EXCLUSIVE, &options)?;
    let options = TopicOptions { publishers: Publishers::Shared(8), ..options };
    let _shared = Topic::<Message>::create_in(&directory, SHARED, &options)?;
    let _mutex = MutexRing::open(scratch.path(), true)?;
    let start = |_| Partner::start_anywhere(kind.role(), scratch.path(), for_ms);
    let mut partners = (0..count).map(start).collect::<Result<Vec<_>>>()?;
    partners.iter_mut().for_each(Partner::go);
    let mut shares = Vec::new();
    for mut partner in partners {
        let published = partner.line()?;
        let published =
            published.parse().with_context(|| format!("a publisher said {published}"))?;
        shares.push(published);
        partner.finish()?;
    }
    let seconds = for_ms as f64 / 1e3;
    let least = shares.iter().copied().fold(f64::INFINITY, f64::min);
    let greatest = shares.iter().copied().fold(1.0, f64::max);
    Ok(BTreeMap::from([
        ("rate_per_s".to_owned(), shares.iter().sum::<f64>() / seconds),
        ("fairness".to_owned(), least / greatest),
    ]))
}

/// Publishes for so long, from the word on, and says how many those were.
pub(crate) fn partner(role: &str, directory: &Path, for_ms: u64) -> Result<()> {
    if role == "publish-mutex" {
        let ring = MutexRing::open(directory, false)?;
        return timed(for_ms, |i| {
            ring.publish(&[i; 6]);
            Ok(())
        });
    }
    let name = if role == "publish-shared" { SHARED } else { EXCLUSIVE };
    let topic = Topic::<Message>::open_in(&Directory::at(directory)?, name)?;
    let mut publisher = topic.publisher()?;
    timed(for_ms, |i| {
        publisher.publish(&[i; 6])?;
        Ok(())
    })
}

fn timed(for_ms: u64, mut publish: impl FnMut(u64) -> Result<()>) -> Result<()> {
    println!("ready");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    let end_ns = monotonic_ns() + for_ms * 1_000_000;
    let mut count = 0;
    while monotonic_ns() < end_ns {
        for _ in 0..256 {
            publish(count)?;
            count += 1;
        }
    }
    println!("{count}");
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
