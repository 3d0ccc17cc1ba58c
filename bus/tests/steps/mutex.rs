//! Who locks and unlocks a mutex, among others who hold it, wait for it, or died with it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use shmbus::Directory;
use shmbus::sync::{LockError, MutexGuard, RobustMutex, SyncOptions, WaitError};

use crate::Plan;
use crate::drive::{End, Fate, Scene, at_each_instruction};
use crate::processes::{Part, Process, Role, Stage};
use crate::tracee::trace_me;
use crate::victim::between_marks;

pub(crate) const ROLES: &[Part] = &[
    ("lock_mutex", lock),
    ("unlock", unlock),
    ("lock_and_unlock", lock_and_unlock),
    ("open_mutex", open_mutex),
    ("close_mutex", close_mutex),
    ("dying_owner", dying_owner),
];

const NAME: &str = "steps/mutex";
const MEMBERS: u32 = 4;
/// Not reached: a wait of this length is a failure.
const HANG: Duration = Duration::from_secs(20);
/// A word of the board: that an owner has the lock, and waits to be killed.
const OWNED: usize = 30;

/// Two numbers that are equal but where an owner died.
type Pair = RobustMutex<[u64; 2]>;
type Guard<'a> = MutexGuard<'a, [u64; 2]>;

fn open(directory: &Directory) -> Pair {
    Pair::open_in(directory, NAME).unwrap()
}

/// Locks, and makes equal what the dead have left. `None`: a living one has it for so long.
fn enter(mutex: &Pair, patience: Duration) -> Option<(Guard<'_>, bool)> {
    match mutex.lock_timeout(patience) {
        Ok(guard) => {
            assert_eq!(guard[0], guard[1], "torn, and nobody was told");
            Some((guard, false))
        }
        Err(LockError::OwnerDied(mut guard)) => {
            guard[1] = guard[0];
            guard.mark_consistent();
            Some((guard, true))
        }
        Err(LockError::Failed(WaitError::TimedOut)) => None,
        Err(error) => panic!("{error}"),
    }
}

fn change(mut guard: Guard<'_>) {
    guard[0] += 1;
    guard[1] += 1;
}

fn lock(role: &Role) {
    trace_me();
    let mutex = open(&role.directory);
    let (guard, _) = between_marks(|| enter(&mutex, HANG)).expect("nobody keeps it");
    change(guard);
}

fn unlock(role: &Role) {
    trace_me();
    let mutex = open(&role.directory);
    let (guard, _) = enter(&mutex, HANG).expect("nobody keeps it");
    between_marks(|| change(guard));
}

fn lock_and_unlock(role: &Role) {
    trace_me();
    let mutex = open(&role.directory);
    between_marks(|| change(enter(&mutex, HANG).expect("nobody keeps it").0));
}

fn open_mutex(role: &Role) {
    trace_me();
    let mutex = between_marks(|| open(&role.directory));
    change(enter(&mutex, HANG).expect("nobody keeps it").0);
}

fn close_mutex(role: &Role) {
    trace_me();
    let mutex = open(&role.directory);
    change(enter(&mutex, HANG).expect("nobody keeps it").0);
    between_marks(|| drop(mutex));
}

/// Locks, begins to change what it protects, and waits to be killed.
fn dying_owner(role: &Role) {
    let mutex = open(&role.directory);
    let (mut guard, _) = enter(&mutex, HANG).expect("nobody keeps it");
    guard[0] += 1;
    role.board.word(OWNED).store(1, SeqCst);
    loop {
        std::thread::park();
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Beside {
    Nobody,
    /// One sleeps behind the process under test, which has the lock at its first mark.
    Waiter,
    /// One has the lock until the process under test sleeps.
    Keeper,
    /// One was killed with the lock.
    Dead,
}

/// A mutex, the process under test and one beside it.
struct Door {
    stage: Stage,
    role: &'static str,
    beside: Beside,
    ctl: File,
    go: Arc<AtomicBool>,
    other: Option<JoinHandle<()>>,
    stood: Vec<Duration>,
}

impl Door {
    fn new(role: &'static str, beside: Beside) -> Door {
        let stage = Stage::new();
        let options = SyncOptions { members_max: MEMBERS, ..Default::default() };
        drop(Pair::create_in(&stage.directory, NAME, &options, [0, 0]).unwrap());
        let ctl = File::open(stage.directory.path().join(NAME).join(".sync/ctl")).unwrap();
        let go = Arc::new(AtomicBool::new(false));
        Door { stage, role, beside, ctl, go, other: None, stood: vec![] }
    }

    /// The mutex's word, by docs/layout.md.
    fn word(&self) -> u32 {
        let mut word = [0; 4];
        self.ctl.read_exact_at(&mut word, 4096).unwrap();
        u32::from_le_bytes(word)
    }
}

impl Scene for Door {
    fn spawn(&mut self) -> Process {
        let directory = self.stage.directory.clone();
        match self.beside {
            Beside::Dead => {
                self.stage.board.word(OWNED).store(0, SeqCst);
                let owner = self.stage.spawn("dying_owner", &[]);
                let owned = || self.stage.board.word(OWNED).load(SeqCst) == 1;
                self.stage.until("it has the lock", owned);
                owner.kill();
            }
            Beside::Keeper => {
                self.go.store(false, SeqCst);
                let go = Arc::clone(&self.go);
                self.other = Some(std::thread::spawn(move || {
                    let mutex = open(&directory);
                    let (guard, told) = enter(&mutex, HANG).expect("nobody else has it");
                    assert!(!told);
                    while !go.load(SeqCst) {
                        std::thread::sleep(Duration::from_micros(100));
                    }
                    change(guard);
                }));
                self.stage.until("one has the lock", || self.word() != 0);
            }
            Beside::Nobody | Beside::Waiter => {}
        }
        self.stage.spawn(self.role, &[])
    }

    fn may_sleep(&self) -> bool {
        self.beside == Beside::Keeper
    }

    fn begun(&mut self) {
        if self.beside == Beside::Waiter {
            let directory = self.stage.directory.clone();
            self.other = Some(std::thread::spawn(move || {
                let mutex = open(&directory);
                change(enter(&mutex, HANG).expect("it comes").0);
            }));
            self.stage.until("one waits", || self.word() >> 31 == 1);
        }
    }

    fn wake(&mut self) {
        self.go.store(true, SeqCst);
    }

    fn meanwhile(&mut self) {
        let mutex = open(&self.stage.directory);
        for _ in 0..5 {
            if let Some((guard, _)) = enter(&mutex, Duration::from_millis(1)) {
                change(guard);
            }
        }
    }

    fn check(&mut self, end: End) {
        let begin = Instant::now();
        self.go.store(true, SeqCst);
        if let Some(other) = self.other.take() {
            other.join().expect("the other one gets the lock");
        }
        let mutex = open(&self.stage.directory);
        let (guard, told) = enter(&mutex, HANG).expect("nobody who lives has it");
        assert!(!told || end != End::Done, "nobody died");
        let holds =
            self.role == "lock_mutex" && end == End::KilledBehind && self.beside != Beside::Waiter;
        assert!(told || !holds, "it was killed with the lock, and nobody is told");
        change(guard);
        self.stood.push(begin.elapsed());
        drop(mutex);
        // Every place is to be had, and the lock in each.
        let all: Vec<Pair> = (0..MEMBERS).map(|_| open(&self.stage.directory)).collect();
        for mutex in &all {
            let (guard, told) = enter(mutex, HANG).expect("nobody has it");
            assert!(!told, "told twice");
            change(guard);
        }
    }

    fn stood(&self) -> &[Duration] {
        &self.stood
    }

    fn end(self) {
        // Woken by the kernel, and not by the look that everybody takes once in a second.
        let slow = self.stood.iter().filter(|stood| **stood > Duration::from_millis(800)).count();
        assert!(slow * 4 <= self.stood.len(), "{slow} waited for the next look");
        self.stage.directory.remove_sync(NAME, false).expect("nobody who lives has it open");
        assert!(self.stage.files().is_empty(), "files were left: {:?}", self.stage.files());
    }
}

fn test(plan: &Plan, role: &'static str, beside: Beside) {
    at_each_instruction(plan, |_: Fate| Door::new(role, beside));
}

pub(crate) fn a_mutex_is_locked(plan: &Plan) {
    test(plan, "lock_mutex", Beside::Nobody);
}

pub(crate) fn a_mutex_is_unlocked(plan: &Plan) {
    test(plan, "unlock", Beside::Nobody);
}

pub(crate) fn a_mutex_is_unlocked_with_one_asleep_behind_it(plan: &Plan) {
    test(plan, "unlock", Beside::Waiter);
}

pub(crate) fn a_mutex_is_waited_for_asleep(plan: &Plan) {
    test(plan, "lock_and_unlock", Beside::Keeper);
}

pub(crate) fn a_mutex_of_the_dead_is_locked_and_unlocked(plan: &Plan) {
    test(plan, "lock_and_unlock", Beside::Dead);
}

pub(crate) fn a_mutex_is_opened(plan: &Plan) {
    test(plan, "open_mutex", Beside::Nobody);
}

pub(crate) fn a_mutex_of_the_dead_is_opened(plan: &Plan) {
    test(plan, "open_mutex", Beside::Dead);
}

pub(crate) fn a_mutex_is_closed(plan: &Plan) {
    test(plan, "close_mutex", Beside::Nobody);
}
