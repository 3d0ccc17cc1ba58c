//! Four processes, each killed at a random instruction and replaced, on one lock.
#![allow(unsafe_code)] // a lock on the board

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::Duration;

use shmbus::Directory;
use shmbus::internals::Lock;
use shmbus_sys::clock::monotonic_ns;
use shmbus_sys::lease::Lease;
use shmbus_sys::shm;

use crate::board::Board;
use crate::processes::{Part, Role, Stage, kill_me_after};
use crate::random::Random;
use crate::{Plan, kills};

pub(crate) const ROLES: &[Part] = &[("locker", locker)];

const PROCESSES: u64 = 4;

/// Words of the board: the lock has a line of its own.
const LOCK: usize = 16;
const GENERATIONS: usize = 32;
/// Who is in, as its own note says.
const INSIDE: usize = 64;
const FIRST: usize = 65;
const SECOND: usize = 66;
const SECTIONS: usize = 67;
const TOLD: usize = 68;
const TOLD_OF_INSIDE: usize = 69;
const VIOLATIONS: usize = 70;

pub(crate) fn lock(board: &Board) -> Lock<'_> {
    let line = NonNull::from(board.word(LOCK)).cast();
    // SAFETY: 128 bytes from the beginning of a page, zeros in the beginning, used as a lock only, mapped as long as the board.
    unsafe { Lock::at(line) }
}

/// A lease for each entry, on a file beside the topics.
pub(crate) fn lease_file(directory: &Directory) -> OwnedFd {
    let path = directory.path().parent().unwrap();
    File::options().create(true).truncate(false).write(true).open(path.join("leases")).unwrap();
    shm::open_directory(path).unwrap()
}

/// An owner of the lock: its entry, its generation, and the lease of the entry.
pub(crate) struct Me {
    pub(crate) entry: u64,
    pub(crate) generation: u64,
    lease: Lease,
}

impl Me {
    /// Takes an entry as a joiner does: first the lease, then the generation.
    pub(crate) fn join(directory: &Directory, board: &Board, entry: u64) -> Me {
        let lease = Lease::open_at(lease_file(directory).as_fd(), "leases").unwrap();
        assert!(lease.take(entry).unwrap(), "the entry of the dead is free");
        let generation = board.word(GENERATIONS + entry as usize).fetch_add(1, SeqCst) + 1;
        Me { entry, generation, lease }
    }

    pub(crate) fn lock_until<R>(
        &self,
        board: &Board,
        deadline_ns: u64,
        section: impl FnOnce(bool) -> R,
    ) -> Result<R, Option<u32>> {
        let is_gone = |(entry, generation)| {
            board.word(GENERATIONS + entry as usize).load(SeqCst) != generation
                || u64::from(entry) != self.entry
                    && !self.lease.is_held_by_another(u64::from(entry)).unwrap()
        };
        lock(board).lock_until((self.entry as u32, self.generation), deadline_ns, is_gone, section)
    }
}

fn locker(role: &Role) {
    let [entry, seed, kill_ns] = role.numbers();
    let board = &role.board;
    let mut random = Random::new(seed);
    let me = Me::join(&role.directory, board, entry);
    let note = (me.generation << 16) | (entry + 1);
    kill_me_after(Duration::from_nanos(kill_ns));
    let word = |word| board.word(word);
    let holds = |holds: bool| {
        if !holds {
            word(VIOLATIONS).fetch_add(1, SeqCst);
        }
    };
    loop {
        let looks = random.below(0..40);
        let entered = me.lock_until(board, monotonic_ns() + 60_000_000_000, |told| {
            let before = word(INSIDE).load(Relaxed);
            holds(before == 0 || told); // somebody is in, or died in, and this one was not told
            if told {
                word(TOLD).fetch_add(1, Relaxed);
                if before != 0 {
                    word(TOLD_OF_INSIDE).fetch_add(1, Relaxed);
                }
                word(SECOND).store(word(FIRST).load(Relaxed), Relaxed);
            }
            word(INSIDE).store(note, Relaxed);
            let value = word(FIRST).load(Relaxed);
            holds(word(SECOND).load(Relaxed) == value);
            word(FIRST).store(value + 1, Relaxed);
            for _ in 0..looks {
                holds(word(INSIDE).load(Relaxed) == note);
            }
            if random.one_in(50) {
                std::thread::yield_now();
            }
            word(SECOND).store(value + 1, Relaxed);
            holds(word(INSIDE).load(Relaxed) == note);
            word(INSIDE).store(0, Relaxed);
            word(SECTIONS).fetch_add(1, Relaxed);
        });
        holds(entered.is_ok());
    }
}

pub(crate) fn the_lock_of_the_killed_goes_to_one_successor_that_is_told(plan: &Plan) {
    let mut random = Random::new(plan.seed);
    let stage = Stage::new();
    drop(lease_file(&stage.directory));
    let mut spawn = |entry| {
        let kill_ns = random.duration(Duration::from_millis(6)).as_nanos() as u64;
        stage.spawn("locker", &[entry, random.next(), kill_ns])
    };
    let mut living: Vec<_> = (0..PROCESSES).map(&mut spawn).collect();
    let count = kills(plan, 1).max(PROCESSES);
    for killed in 0..count {
        // In turn, so that each lives while others come and go.
        living.remove(0).killed();
        living.push(spawn(killed % PROCESSES));
    }
    living.into_iter().for_each(crate::processes::Process::killed);
    let word = |word: usize| stage.board.word(word).load(SeqCst);
    println!(
        "  {} killed in {} sections, {} successors told, {} of them of one inside",
        count + PROCESSES,
        word(SECTIONS),
        word(TOLD),
        word(TOLD_OF_INSIDE)
    );
    assert_eq!(word(VIOLATIONS), 0, "two were in, or a death was not told");
    assert!(word(TOLD_OF_INSIDE) <= word(TOLD) && word(TOLD) <= count + PROCESSES, "told twice");
    assert!(word(SECTIONS) > count, "progress");
    assert!(count < 400 || word(TOLD_OF_INSIDE) > 0, "nobody was killed inside");
    // After them all.
    let last = Me::join(&stage.directory, &stage.board, PROCESSES);
    let entered = last.lock_until(&stage.board, monotonic_ns() + 60_000_000_000, |told| told);
    assert_eq!(entered.map(|told| told || word(INSIDE) == 0), Ok(true));
}
