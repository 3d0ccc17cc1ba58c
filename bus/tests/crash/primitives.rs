//! Semaphore, rwlock, event, barrier and once, at their points.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::{Duration, Instant};

use shmbus::Directory;
use shmbus::sync::{
    Barrier, Event, LockError, OnceCell, Reset, RwLock, Semaphore, SyncOptions, WaitError,
};

use crate::cases::{How, Point, each};
use crate::processes::{Part, Role, Stage};
use crate::runner::Plan;

pub(crate) const ROLES: &[Part] = &[
    ("permit_taker", permit_taker),
    ("reader_and_writer", reader_and_writer),
    ("setter", setter),
    ("party", party),
    ("maker", maker),
];

const NAME: &str = "crash/primitive";
/// Word of the board: that a victim is to end.
const END: usize = 30;
const PERMITS: u32 = 2;
const SHORT: Duration = Duration::from_millis(20);

fn options() -> SyncOptions {
    SyncOptions { members_max: 6, ..Default::default() }
}

fn semaphore(directory: &Directory) -> Semaphore {
    Semaphore::open_or_create_in(directory, NAME, &options(), PERMITS).unwrap()
}

fn lock(directory: &Directory) -> RwLock<[u64; 2]> {
    RwLock::open_or_create_in(directory, NAME, &options(), [0, 0]).unwrap()
}

fn event(directory: &Directory) -> Event {
    Event::open_or_create_in(directory, NAME, &options(), Reset::Auto).unwrap()
}

fn barrier(directory: &Directory) -> Barrier {
    Barrier::open_or_create_in(directory, NAME, &options(), 2).unwrap()
}

fn cell(directory: &Directory) -> OnceCell<u64> {
    OnceCell::open_or_create_in(directory, NAME, &options()).unwrap()
}

/// Whether it did what it came for: `false` where the time was over, or the dead are to be seen to first.
type Done = bool;

fn take_permit(semaphore: &Semaphore) -> Done {
    match semaphore.acquire_timeout(SHORT) {
        Ok(permit) => {
            thread::yield_now();
            drop(permit);
            true
        }
        Err(WaitError::TimedOut) => false,
        Err(error) => panic!("{error}"),
    }
}

fn read_and_write(lock: &RwLock<[u64; 2]>) -> Done {
    match lock.read_timeout(SHORT) {
        Ok(pair) => assert_eq!(pair[0], pair[1], "torn, and nobody was told"),
        Err(WaitError::TimedOut) => return false,
        Err(WaitError::WriterDied) => {}
        Err(error) => panic!("{error}"),
    }
    let mut pair = match lock.write_timeout(SHORT) {
        Ok(pair) => pair,
        Err(LockError::OwnerDied(mut pair)) => {
            pair[1] = pair[0];
            pair.mark_consistent();
            pair
        }
        Err(LockError::Failed(WaitError::TimedOut)) => return false,
        Err(error) => panic!("{error}"),
    };
    pair[0] += 1;
    thread::yield_now();
    pair[1] += 1;
    true
}

fn set_and_wait(event: &Event) -> Done {
    event.set().unwrap();
    event.wait_timeout(SHORT).is_ok()
}

fn gather(barrier: &Barrier) -> Done {
    match barrier.wait_timeout(SHORT) {
        Ok(_) => true,
        Err(WaitError::Broken) => {
            barrier.reset().unwrap();
            false
        }
        Err(WaitError::TimedOut) => false,
        Err(error) => panic!("{error}"),
    }
}

fn make(cell: &OnceCell<u64>) -> Done {
    match cell.get_or_init_timeout(|| 7, SHORT) {
        Ok(value) => *value == 7,
        Err(WaitError::TimedOut) => false,
        Err(error) => panic!("{error}"),
    }
}

/// Opens a handle again and again, and does something with it some times, until it is told to end.
fn again<H>(role: &Role, open: fn(&Directory) -> H, work: impl Fn(&H)) {
    while role.board.word(END).load(SeqCst) == 0 {
        let handle = open(&role.directory);
        for _ in 0..10 {
            work(&handle);
        }
    }
}

fn permit_taker(role: &Role) {
    again(role, semaphore, |semaphore| {
        take_permit(semaphore);
        semaphore.post(1).unwrap();
        if let Ok(permit) = semaphore.acquire_timeout(SHORT) {
            permit.consume();
        }
    });
}

fn reader_and_writer(role: &Role) {
    again(role, lock, |lock| {
        read_and_write(lock);
    });
}

fn setter(role: &Role) {
    again(role, event, |event| {
        set_and_wait(event);
    });
}

fn party(role: &Role) {
    again(role, barrier, |barrier| {
        gather(barrier);
        barrier.reset().unwrap();
    });
}

fn maker(role: &Role) {
    make(&cell(&role.directory));
}

/// A victim among two others, at each of `points`: when it is killed they go on, and where it is stopped none waits for longer than it wants to.
fn among_others<H: 'static>(
    plan: &Plan,
    role: &'static str,
    points: &[Point],
    open: fn(&Directory) -> H,
    work: fn(&H) -> Done,
    end: fn(&Stage),
) {
    for how in [How::Killed, How::Stopped] {
        each(plan, role, how, points, |point, _| {
            let stage = Stage::new();
            let keep = open(&stage.directory);
            let [tried, done] =
                [const { AtomicU64::new(0) }; 2].map(|word| [word, AtomicU64::new(0)]);
            let is_over = AtomicU64::new(0);
            let go_on = |counts: &[AtomicU64; 2]| {
                let before = counts.each_ref().map(|count| count.load(SeqCst));
                stage.until("the others go on", || {
                    let mut both = counts.iter().zip(before);
                    both.all(|(count, before)| count.load(SeqCst) > before + 3)
                });
            };
            let took = thread::scope(|scope| {
                for number in 0..2 {
                    let (stage, is_over) = (&stage, &is_over);
                    let (tried, done) = (&tried[number], &done[number]);
                    scope.spawn(move || {
                        let handle = open(&stage.directory);
                        while is_over.load(SeqCst) == 0 {
                            done.fetch_add(u64::from(work(&handle)), SeqCst);
                            tried.fetch_add(1, SeqCst);
                        }
                    });
                }
                let victim = stage.victim(role, &[], point, how);
                how.met(&stage, &victim, || {});
                let begin = Instant::now();
                if how == How::Killed {
                    victim.killed();
                    go_on(&done);
                } else {
                    go_on(&tried);
                    stage.board.word(END).store(1, SeqCst);
                    victim.go_on();
                    victim.done();
                    go_on(&done);
                }
                let took = begin.elapsed();
                is_over.store(1, SeqCst);
                took
            });
            end(&stage);
            // All places are to be had again.
            let all: Vec<H> = (1..6).map(|_| open(&stage.directory)).collect();
            drop((all, keep));
            stage.directory.remove_sync(NAME, false).unwrap();
            took
        });
    }
}

const TAKER: &[Point] = &[
    "sync.permit.seen:5",
    "sync.permit.taken:5",
    "sync.permit.released:5",
    "sync.permit.consumed:3",
    "sync.permit.posted:3",
    "sync.permit.given_back",
    "sync.turn.expected:2",
    "sync.turn.changed:2",
];

pub(crate) fn who_takes_permits_is_killed_or_stopped_and_none_is_lost(plan: &Plan) {
    among_others(plan, "permit_taker", TAKER, semaphore, take_permit, |stage| {
        let semaphore = semaphore(&stage.directory);
        // One more, where it was killed between posting and consuming.
        let all = semaphore.value();
        assert!([PERMITS, PERMITS + 1].map(u64::from).contains(&all), "{all} permits");
        let taken: Vec<_> = (0..all).map(|_| semaphore.try_acquire().unwrap()).collect();
        assert!(semaphore.try_acquire().is_err());
        drop(taken);
    });
}

const READER: &[Point] = &[
    "sync.read.said:3",
    "sync.read.waits",
    "sync.read.left:3",
    "sync.read.given_back",
    "sync.write.word:3",
];

pub(crate) fn who_reads_and_writes_is_killed_or_stopped_and_nobody_reads_halves(plan: &Plan) {
    among_others(plan, "reader_and_writer", READER, lock, read_and_write, |stage| {
        let lock = lock(&stage.directory);
        while !read_and_write(&lock) {}
        assert!(lock.try_read().is_ok());
    });
}

pub(crate) fn who_sets_an_event_is_killed_or_stopped_and_it_is_set(plan: &Plan) {
    among_others(plan, "setter", &["sync.event.set:3"], event, set_and_wait, |_| {});
}

const PARTY: &[Point] =
    &["sync.barrier.said:3", "sync.barrier.arrived:3", "sync.barrier.broken", "sync.barrier.told"];

pub(crate) fn a_party_of_a_barrier_is_killed_or_stopped_and_the_others_gather(plan: &Plan) {
    among_others(plan, "party", PARTY, barrier, gather, |_| {});
    // Who buries a party of a barrier dies too: it is broken all the same.
    for how in [How::Killed, How::Stopped] {
        each(plan, "who buries a party", how, &["sync.barrier.given_back"], |point, _| {
            let stage = Stage::new();
            let keep = barrier(&stage.directory);
            let first = stage.victim("party", &[], "sync.barrier.arrived", How::Killed);
            How::Killed.met(&stage, &first, || {});
            first.killed();
            let victim = stage.victim("party", &[], point, how);
            how.met(&stage, &victim, || {});
            let begin = Instant::now();
            assert_eq!(keep.wait_timeout(SHORT), Err(WaitError::Broken));
            let took = begin.elapsed();
            if how == How::Killed {
                victim.killed();
            } else {
                stage.board.word(END).store(1, SeqCst);
                victim.go_on();
                victim.done();
            }
            keep.reset().unwrap();
            drop(keep);
            stage.directory.remove_sync(NAME, false).unwrap();
            took
        });
    }
}

pub(crate) fn who_makes_a_value_is_killed_or_stopped_and_it_is_made_once(plan: &Plan) {
    for how in [How::Killed, How::Stopped] {
        each(plan, "maker", how, &["sync.once.written"], |point, _| {
            let stage = Stage::new();
            let keep = cell(&stage.directory);
            let victim = stage.victim("maker", &[], point, how);
            how.met(&stage, &victim, || {});
            let begin = Instant::now();
            assert_eq!(keep.get(), None);
            if how == How::Killed {
                victim.killed();
                assert_eq!(keep.get_or_init(|| 8), Ok(&8));
            } else {
                assert_eq!(keep.get_or_init_timeout(|| 8, SHORT), Err(WaitError::TimedOut));
                victim.go_on();
                victim.done();
                assert_eq!(keep.get_or_init(|| 8), Ok(&7));
            }
            let took = begin.elapsed();
            drop(keep);
            stage.directory.remove_sync(NAME, false).unwrap();
            took
        });
    }
}
