//! Owners of a mutex, and those who bury them, at their points.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::{Duration, Instant};

use shmbus::sync::{
    Condvar, LockError, MutexGuard, RobustMutex, SyncCreateError, SyncOptions, WaitError,
};

use crate::cases::{How, Point, each, name};
use crate::processes::{Part, Role, Stage};
use crate::runner::Plan;

pub(crate) const ROLES: &[Part] = &[
    ("locker", locker),
    ("sync_creator", creator),
    ("sync_remover", remover),
    ("giver", giver),
    ("waiter", waiter),
    ("notifier", notifier),
];

const NAME: &str = "crash/lock";
/// A condition variable: waiting while there is nothing to be taken.
const MORE: &str = "crash/more";
const MEMBERS: u32 = 6;
/// Words of the board: that a locker is to end, and how often somebody was told of a death.
const END: usize = 30;
const TOLD: usize = 31;

type Mutex = RobustMutex<[u64; 2]>;

fn options() -> SyncOptions {
    SyncOptions { members_max: MEMBERS, ..Default::default() }
}

fn create(stage: &Stage) -> Mutex {
    Mutex::create_in(&stage.directory, NAME, &options(), [0, 0]).unwrap()
}

fn open(stage: &Stage) -> Mutex {
    Mutex::open_in(&stage.directory, NAME).unwrap()
}

/// One section: the pair is equal but where an owner died. `None` where somebody has the lock for so long.
fn section(mutex: &Mutex, told: &AtomicU64, timeout: Duration) -> Option<()> {
    let mut guard = match mutex.lock_timeout(timeout) {
        Ok(guard) => {
            assert_eq!(guard[0], guard[1], "torn, and nobody was told");
            guard
        }
        Err(LockError::OwnerDied(mut guard)) => {
            told.fetch_add(1, SeqCst);
            guard[1] = guard[0];
            guard.mark_consistent();
            guard
        }
        Err(LockError::Failed(WaitError::TimedOut)) => return None,
        Err(error) => panic!("{error}"),
    };
    guard[0] += 1;
    thread::yield_now();
    guard[1] += 1;
    Some(())
}

const LONG: Duration = Duration::from_secs(60);

/// Locks and unlocks, with a new handle now and then, until it is told to end.
fn locker(role: &Role) {
    while role.board.word(END).load(SeqCst) == 0 {
        let mutex = Mutex::open_in(&role.directory, NAME).unwrap();
        for _ in 0..20 {
            section(&mutex, role.board.word(TOLD), LONG).expect("a long time");
        }
    }
}

/// Takes the lock of the dead, and gives it up.
fn giver(role: &Role) {
    let mutex = Mutex::open_in(&role.directory, NAME).unwrap();
    assert!(matches!(mutex.lock(), Err(LockError::OwnerDied(_))));
}

fn creator(role: &Role) {
    match Mutex::create_in(&role.directory, NAME, &options(), [0, 0]) {
        Ok(_) | Err(SyncCreateError::Exists { .. }) => {}
        Err(error) => panic!("{error}"),
    }
}

fn remover(role: &Role) {
    role.directory.remove_sync(NAME, true).unwrap();
}

/// Every place is to be had, the lock is too, and nothing is left.
fn end(stage: Stage) {
    let mutexes: Vec<Mutex> = (0..MEMBERS).map(|_| open(&stage)).collect();
    for mutex in &mutexes {
        section(mutex, stage.board.word(TOLD), LONG).expect("nobody has the lock");
    }
    drop(mutexes);
    stage.directory.remove_sync(NAME, false).expect("nobody who lives has it open");
    assert!(stage.files().is_empty(), "files were left behind");
}

/// Where a locker comes to among others.
const LOCKER: &[Point] = &[
    "sync.join.leased",
    "sync.join.joining",
    "sync.join.life",
    "sync.join.raised",
    "sync.join.member",
    "sync.lock.word:7",
    "sync.lock.waits:3",
    "sync.wait.woken:3",
    "sync.unlock.free:3",
    "sync.leave.given_back",
    "sync.leave.free",
    "sync.leave.dead",
];

pub(crate) fn a_locker_is_killed_or_stopped_and_the_others_go_on(plan: &Plan) {
    for how in [How::Killed, How::Stopped] {
        each(plan, "locker among others", how, LOCKER, |point, _| {
            let stage = Stage::new();
            // Alone beside the first one, the victim has an entry that nobody had before.
            let is_alone = name(point) == "sync.join.raised";
            let first = Some(create(&stage)).filter(|_| is_alone);
            let sections = [const { AtomicU64::new(0) }; 2];
            let done = AtomicU64::new(0);
            let told = AtomicU64::new(0);
            let others_go_on = |stage: &Stage| {
                let begin = Instant::now();
                let before = sections.each_ref().map(|count| count.load(SeqCst));
                stage.until("the others go on", || {
                    let mut both = sections.iter().zip(before);
                    both.all(|(count, before)| count.load(SeqCst) > before + 20)
                });
                begin.elapsed()
            };
            let took = thread::scope(|scope| {
                for count in &sections {
                    let others = || {
                        while done.load(SeqCst) == 0 {
                            let mutex = open(&stage);
                            for _ in 0..1000 {
                                let entered = section(&mutex, &told, Duration::from_millis(20));
                                count.fetch_add(u64::from(entered.is_some()), SeqCst);
                                if done.load(SeqCst) != 0 {
                                    break;
                                }
                            }
                        }
                    };
                    if !is_alone {
                        scope.spawn(others);
                    }
                }
                let victim = stage.victim("locker", &[], point, how);
                how.met(&stage, &victim, || {});
                let took = match how {
                    How::Killed => {
                        victim.killed();
                        if is_alone { Duration::ZERO } else { others_go_on(&stage) }
                    }
                    How::Stopped => {
                        let has_it = name(point) == "sync.lock.word";
                        let begin = Instant::now();
                        if has_it {
                            let patience = Duration::from_millis(10);
                            let entered = section(&open(&stage), &told, patience);
                            assert_eq!(entered, None, "the stopped one has the lock");
                        } else if !is_alone {
                            others_go_on(&stage);
                        }
                        let took = begin.elapsed();
                        stage.board.word(END).store(1, SeqCst);
                        victim.go_on();
                        victim.done();
                        took
                    }
                };
                done.store(1, SeqCst);
                took
            });
            let told = told.load(SeqCst) + stage.board.word(TOLD).load(SeqCst);
            let has_died_inside = how == How::Killed && name(point) == "sync.lock.word";
            assert_eq!(told, u64::from(has_died_inside), "a death inside is told once");
            drop(first);
            end(stage);
            took
        });
    }
}

/// Where one comes to who opens and locks the mutex of an owner that died in it.
const SUCCESSOR: &[Point] = &[
    "sync.dead.seen",
    "sync.bury.leased",
    "sync.bury.given_back",
    "sync.notice.raised",
    "sync.bury.rung",
    "sync.bury.done",
    "sync.lock.dead",
    "sync.lock.word",
    "sync.lock.inconsistent",
];

pub(crate) fn a_successor_is_killed_or_stopped_and_the_next_one_is_told(plan: &Plan) {
    for how in [How::Killed, How::Stopped] {
        each(plan, "successor", how, SUCCESSOR, |point, _| {
            let stage = Stage::new();
            drop(create(&stage));
            let first = stage.victim("locker", &[], "sync.lock.word:30", How::Killed);
            How::Killed.met(&stage, &first, || {});
            first.killed();
            let victim = stage.victim("locker", &[], point, how);
            how.met(&stage, &victim, || {});
            let has_it = ["sync.lock.word", "sync.lock.inconsistent"].contains(&name(point));
            let begin = Instant::now();
            let told = stage.board.word(TOLD);
            let took = match how {
                How::Killed => {
                    victim.killed();
                    section(&open(&stage), told, LONG).expect("nobody has the lock");
                    begin.elapsed()
                }
                How::Stopped => {
                    let patience = if has_it { Duration::from_millis(10) } else { LONG };
                    let entered = section(&open(&stage), told, patience);
                    assert_eq!(entered.is_none(), has_it);
                    let took = begin.elapsed();
                    stage.board.word(END).store(1, SeqCst);
                    victim.go_on();
                    victim.done();
                    took
                }
            };
            assert_eq!(told.load(SeqCst), 1, "of those who live, one is told");
            end(stage);
            took
        });
    }
}

pub(crate) fn who_gives_a_mutex_up_is_killed_or_stopped_and_nobody_gets_it(plan: &Plan) {
    for how in [How::Killed, How::Stopped] {
        each(plan, "giver", how, &["sync.unlock.given_up"], |point, _| {
            let stage = Stage::new();
            drop(create(&stage));
            let first = stage.victim("locker", &[], "sync.lock.word", How::Killed);
            How::Killed.met(&stage, &first, || {});
            first.killed();
            let victim = stage.victim("giver", &[], point, how);
            how.met(&stage, &victim, || {});
            let begin = Instant::now();
            let mut victim = Some(victim);
            if how == How::Killed {
                victim.take().unwrap().killed();
            }
            let mutex = open(&stage);
            if let Some(victim) = victim {
                let stands = mutex.lock_timeout(Duration::from_millis(10)).unwrap_err();
                assert!(matches!(stands, LockError::Failed(WaitError::TimedOut)), "{stands}");
                victim.go_on();
                victim.done();
            }
            let given_up = mutex.lock().unwrap_err();
            assert!(matches!(given_up, LockError::Failed(WaitError::NotRecoverable)));
            let took = begin.elapsed();
            drop(given_up);
            drop(mutex);
            stage.directory.remove_sync(NAME, false).unwrap();
            took
        });
    }
}

pub(crate) fn who_makes_or_removes_a_mutex_is_killed_or_stopped_and_the_next_create_clears_up(
    plan: &Plan,
) {
    for how in [How::Killed, How::Stopped] {
        each(plan, "creator", how, &["sync.create.written"], |point, _| {
            let stage = Stage::new();
            let victim = stage.victim("sync_creator", &[], point, how);
            how.met(&stage, &victim, || {});
            let begin = Instant::now();
            let mut victim = Some(victim);
            if how == How::Killed {
                victim.take().unwrap().killed();
            }
            drop(create(&stage));
            let took = begin.elapsed();
            if let Some(victim) = victim {
                victim.go_on();
                victim.done();
            }
            end(stage);
            took
        });
        each(plan, "remover", how, &["sync.remove.retired"], |point, _| {
            let stage = Stage::new();
            let old = create(&stage);
            let victim = stage.victim("sync_remover", &[], point, how);
            how.met(&stage, &victim, || {});
            let begin = Instant::now();
            let told = old.lock().unwrap_err();
            assert!(matches!(told, LockError::Failed(WaitError::Removed)), "{told}");
            let mut victim = Some(victim);
            if how == How::Killed {
                victim.take().unwrap().killed();
            }
            drop(create(&stage));
            let took = begin.elapsed();
            if let Some(victim) = victim {
                victim.go_on();
                victim.done();
            }
            drop(told);
            drop(old);
            end(stage);
            took
        });
    }
}

/// The lock, whether somebody died with it or not.
fn any<'a>(
    locked: Result<MutexGuard<'a, [u64; 2]>, LockError<MutexGuard<'a, [u64; 2]>>>,
    told: &AtomicU64,
) -> MutexGuard<'a, [u64; 2]> {
    match locked {
        Ok(guard) => guard,
        Err(LockError::OwnerDied(mut guard)) => {
            told.fetch_add(1, SeqCst);
            guard.mark_consistent();
            guard
        }
        Err(LockError::Failed(error)) => panic!("{error}"),
    }
}

fn take(mutex: &Mutex, more: &Condvar, told: &AtomicU64) {
    let mut guard = any(mutex.lock(), told);
    while guard[0] == 0 {
        guard = any(more.wait_while(guard, |data| data[0] == 0), told);
    }
    *guard = [guard[0] - 1, guard[1] - 1];
}

/// Waits until there is something, and takes it.
fn waiter(role: &Role) {
    let mutex = Mutex::open_in(&role.directory, NAME).unwrap();
    let more = Condvar::open_in(&role.directory, MORE).unwrap();
    take(&mutex, &more, role.board.word(TOLD));
}

fn give(mutex: &Mutex, more: &Condvar, told: &AtomicU64, count: u64) {
    let mut guard = any(mutex.lock(), told);
    *guard = [guard[0] + count, guard[1] + count];
    drop(guard);
    more.notify_all();
}

/// Puts two in, and tells all.
fn notifier(role: &Role) {
    let mutex = Mutex::open_in(&role.directory, NAME).unwrap();
    let more = Condvar::open_in(&role.directory, MORE).unwrap();
    give(&mutex, &more, role.board.word(TOLD), 2);
}

pub(crate) fn who_waits_or_notifies_is_killed_or_stopped_and_the_others_go_on(plan: &Plan) {
    for how in [How::Killed, How::Stopped] {
        each(plan, "waiter", how, &["sync.condvar.waits"], |point, _| {
            let stage = Stage::new();
            let mutex = create(&stage);
            let more = Condvar::create_in(&stage.directory, MORE, &options()).unwrap();
            let victim = stage.victim("waiter", &[], point, how);
            how.met(&stage, &victim, || {});
            let (told, begin) = (AtomicU64::new(0), Instant::now());
            if how == How::Killed {
                victim.killed();
                give(&mutex, &more, &told, 1);
                take(&mutex, &more, &told);
            } else {
                let patience = Duration::from_millis(10);
                assert_eq!(section(&mutex, &told, patience), None, "it has the lock");
                victim.go_on();
                give(&mutex, &more, &told, 1);
                victim.done();
            }
            let took = begin.elapsed();
            assert_eq!(told.load(SeqCst), u64::from(how == How::Killed));
            drop(more);
            drop(mutex);
            stage.directory.remove_sync(MORE, false).unwrap();
            end(stage);
            took
        });
        each(plan, "notifier", how, &["sync.condvar.noticed"], |point, _| {
            let stage = Stage::new();
            drop(create(&stage));
            let more = Condvar::create_in(&stage.directory, MORE, &options()).unwrap();
            let told = AtomicU64::new(0);
            let took = thread::scope(|scope| {
                let waiters = [(); 2].map(|()| {
                    scope.spawn(|| take(&open(&stage), &more, &told));
                    stage.spawn("waiter", &[])
                });
                // One of each is told at the first, the others where it is killed or stands.
                stage.until("they sleep", || waiters.iter().all(|waiter| waiter.is_asleep()));
                let victim = stage.victim("notifier", &[], point, how);
                how.met(&stage, &victim, || {});
                let begin = Instant::now();
                let mut victim = Some(victim);
                if how == How::Killed {
                    victim.take().unwrap().killed();
                }
                let mutex = open(&stage);
                stage.until("two of them take what there is", || any(mutex.lock(), &told)[0] == 0);
                let took = begin.elapsed();
                if let Some(victim) = victim {
                    victim.go_on();
                    victim.done();
                }
                give(&mutex, &more, &told, 2);
                waiters.into_iter().for_each(crate::processes::Process::done);
                took
            });
            assert_eq!(told.load(SeqCst), 0, "nobody died with the lock");
            drop(more);
            stage.directory.remove_sync(MORE, false).unwrap();
            end(stage);
            took
        });
    }
}
