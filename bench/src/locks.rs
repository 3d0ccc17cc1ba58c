//! What locks across processes cost, beside those of the C library and the kernel's, in one run: taken and given back by one process, and by two that want it all the time.
#![allow(unsafe_code)] // the yardsticks: pthread locks and a POSIX semaphore in a mapping of our own

use std::fs::File;
use std::hint::black_box;
use std::io::Read;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use rustix::fs::FlockOperation;
use shmbus::Directory;
use shmbus::sync::{FileLock, FileLockKind, RobustMutex, RwLock, Semaphore, SyncOptions};
use shmbus_sys::map::Mapping;
use shmbus_sys::shm::{self, Access};

use crate::placement::{Partner, Scratch, median, pin, two_cores};

/// In the order of the table. The first two are the figure.
const KINDS: [&str; 10] = [
    "RobustMutex",
    "pthread mutex, robust",
    "pthread mutex",
    "RwLock, read",
    "RwLock, write",
    "pthread rwlock, read",
    "Semaphore",
    "sem_t",
    "FileLock",
    "flock",
];
/// Those that make system calls.
const FILES: usize = 8;

/// Pairs of a round: less than a time slice, so that most rounds are not interrupted.
fn pairs(kind: usize) -> u64 {
    if kind < FILES { 20_000 } else { 500 }
}

/// Pairs of each of two processes that contend.
fn contended_pairs(kind: usize) -> u64 {
    if kind < FILES { 200_000 } else { 20_000 }
}

pub(crate) fn run(rounds: usize) -> Result<()> {
    let scratch = Scratch::new()?;
    Yardsticks::create(scratch.path())?;
    let locks = Locks::open(scratch.path())?;
    let [core, other] = two_cores().unwrap_or([0, 0]);
    pin(core)?;
    let mut alone = [const { Vec::new() }; KINDS.len()];
    let mut ratios = Vec::new();
    for round in 0..rounds {
        for turn in 0..KINDS.len() {
            let kind = (round + turn) % KINDS.len();
            let begin = Instant::now();
            for _ in 0..pairs(kind) {
                locks.pair(black_box(kind))?;
            }
            alone[kind].push(begin.elapsed().as_nanos() as f64 / pairs(kind) as f64);
        }
        ratios.push(alone[0][round] / alone[1][round]);
    }
    let mut contended = [const { Vec::new() }; KINDS.len()];
    for _ in 0..rounds.div_ceil(100) {
        for (kind, costs) in contended.iter_mut().enumerate() {
            costs.push(contend(&scratch, kind, [core, other])?);
        }
    }
    println!("taken and given back, ns, medians of {rounds} rounds:");
    println!("  {:<24}  {:>7}  {:>16}", "", "alone", "two want it all");
    for ((name, alone), contended) in KINDS.iter().zip(&mut alone).zip(&mut contended) {
        println!("  {name:<24}  {:>7.1}  {:>16.1}", median(alone), median(contended));
    }
    println!(
        "RobustMutex / robust pthread mutex, alone, median of the rounds: {:.3}",
        median(&mut ratios)
    );
    Ok(())
}

/// Nanoseconds for a pair where two processes, a core each, lock and unlock as fast as they can: of both together.
fn contend(scratch: &Scratch, kind: usize, cores: [usize; 2]) -> Result<f64> {
    let start = |core| Partner::start("locks", scratch.path(), kind as u64, core);
    let mut partners = [start(cores[0])?, start(cores[1])?];
    let begin = Instant::now();
    partners.iter_mut().for_each(Partner::go);
    for partner in partners {
        partner.finish()?;
    }
    Ok(begin.elapsed().as_nanos() as f64 / (2 * contended_pairs(kind)) as f64)
}

/// One of the two.
pub(crate) fn partner(directory: &Path, kind: u64) -> Result<()> {
    let locks = Locks::open(directory)?;
    let kind = usize::try_from(kind)?;
    println!("ready");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    for _ in 0..contended_pairs(kind) {
        locks.pair(kind)?;
    }
    Ok(())
}

/// One handle of each.
struct Locks {
    mutex: RobustMutex<u64>,
    rwlock: RwLock<u64>,
    semaphore: Semaphore,
    file_lock: std::cell::RefCell<FileLock>,
    file: File,
    yardsticks: Yardsticks,
}

impl Locks {
    fn open(path: &Path) -> Result<Locks> {
        let directory = Directory::at(path)?;
        let options = SyncOptions::default();
        Ok(Locks {
            mutex: RobustMutex::open_or_create_in(&directory, "mutex", &options, 0)?,
            rwlock: RwLock::open_or_create_in(&directory, "rwlock", &options, 0)?,
            semaphore: Semaphore::open_or_create_in(&directory, "semaphore", &options, 1)?,
            file_lock: FileLock::open_or_create(path.join("file-lock"))?.into(),
            file: File::create(path.join("flock"))?,
            yardsticks: Yardsticks::open(path)?,
        })
    }

    /// Takes and gives back one of [`KINDS`].
    #[inline]
    fn pair(&self, kind: usize) -> Result<()> {
        match kind {
            0 => *self.mutex.lock().ok().context("the mutex")? += 1,
            1 => self.yardsticks.mutex(ROBUST),
            2 => self.yardsticks.mutex(PLAIN),
            3 => drop(black_box(*self.rwlock.read()?)),
            4 => *self.rwlock.write().ok().context("the rwlock")? += 1,
            5 => self.yardsticks.read(),
            6 => drop(self.semaphore.acquire()?),
            7 => self.yardsticks.semaphore(),
            8 => drop(self.file_lock.borrow_mut().lock(FileLockKind::Exclusive, ..)?),
            _ => {
                rustix::fs::flock(&self.file, FlockOperation::LockExclusive)?;
                rustix::fs::flock(&self.file, FlockOperation::Unlock)?;
            }
        }
        Ok(())
    }
}

/// Process-shared locks of the C library, a pair of cache lines each.
struct Yardsticks(Mapping);

const NAME: &str = "yardsticks";
const PLAIN: usize = 0;
const ROBUST: usize = 128;
const RWLOCK: usize = 256;
const SEMAPHORE: usize = 384;
const LEN: usize = 4096;

impl Yardsticks {
    fn create(path: &Path) -> Result<()> {
        let directory = shm::open_directory(path)?;
        let fd = shm::create_at(directory.as_fd(), NAME, 0o600)?;
        shm::allocate(fd.as_fd(), LEN as u64)?;
        let made = Yardsticks::open(path)?;
        for (at, robustness) in
            [(PLAIN, libc::PTHREAD_MUTEX_STALLED), (ROBUST, libc::PTHREAD_MUTEX_ROBUST)]
        {
            let mut attributes = MaybeUninit::uninit();
            let attributes = attributes.as_mut_ptr();
            // SAFETY: initialises the attributes.
            ensure!(unsafe { libc::pthread_mutexattr_init(attributes) } == 0, "mutex");
            // SAFETY: they are initialised.
            let shared = unsafe {
                libc::pthread_mutexattr_setpshared(attributes, libc::PTHREAD_PROCESS_SHARED)
            };
            ensure!(shared == 0, "mutex");
            // SAFETY: as above.
            let robust = unsafe { libc::pthread_mutexattr_setrobust(attributes, robustness) };
            ensure!(robust == 0, "mutex");
            // SAFETY: room for one in the mapping, aligned, and nobody uses it yet.
            let init = unsafe { libc::pthread_mutex_init(made.at(at), attributes) };
            ensure!(init == 0, "mutex");
        }
        let mut attributes = MaybeUninit::uninit();
        let attributes = attributes.as_mut_ptr();
        // SAFETY: initialises the attributes.
        ensure!(unsafe { libc::pthread_rwlockattr_init(attributes) } == 0, "rwlock");
        // SAFETY: they are initialised.
        let shared = unsafe {
            libc::pthread_rwlockattr_setpshared(attributes, libc::PTHREAD_PROCESS_SHARED)
        };
        ensure!(shared == 0, "rwlock");
        // SAFETY: room for one in the mapping, aligned, and nobody uses it yet.
        let init = unsafe { libc::pthread_rwlock_init(made.at(RWLOCK), attributes) };
        ensure!(init == 0, "rwlock");
        // SAFETY: as above; process-shared, of one permit.
        ensure!(unsafe { libc::sem_init(made.at(SEMAPHORE), 1, 1) } == 0, "semaphore");
        Ok(())
    }

    fn open(path: &Path) -> Result<Yardsticks> {
        let directory = shm::open_directory(path)?;
        let fd = shm::open_at(directory.as_fd(), NAME, Access::ReadWrite)?;
        Ok(Yardsticks(Mapping::read_write(fd.as_fd(), LEN)?))
    }

    fn at<T>(&self, offset: usize) -> *mut T {
        // Inside the mapping: each of the four offsets is.
        self.0.base().as_ptr().wrapping_add(offset).cast()
    }

    fn mutex(&self, which: usize) {
        // SAFETY: initialised by `create`.
        unsafe { libc::pthread_mutex_lock(self.at(which)) };
        // SAFETY: locked above by this thread.
        unsafe { libc::pthread_mutex_unlock(self.at(which)) };
    }

    fn read(&self) {
        // SAFETY: initialised by `create`.
        unsafe { libc::pthread_rwlock_rdlock(self.at(RWLOCK)) };
        // SAFETY: locked above by this thread.
        unsafe { libc::pthread_rwlock_unlock(self.at(RWLOCK)) };
    }

    fn semaphore(&self) {
        // SAFETY: initialised by `create`; a signal, of which this program has none, would end the wait.
        unsafe { libc::sem_wait(self.at(SEMAPHORE)) };
        // SAFETY: as above.
        unsafe { libc::sem_post(self.at(SEMAPHORE)) };
    }
}
