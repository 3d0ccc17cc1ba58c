//! Looking at synchronisation objects, giving back what the dead had, and removing them, as one who need not be a member.

use std::fs;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use shmbus::Directory;
use shmbus::sync::{
    Barrier, Condition, Condvar, LockError, RobustMutex, RwLock, Semaphore, SyncInfo, SyncKind,
    SyncOpenError, SyncOptions, SyncRemoveError, SyncState,
};

type Mutex = RobustMutex<[u64; 2]>;

fn scratch() -> (tempfile::TempDir, Directory) {
    let root = tempfile::tempdir_in("/dev/shm").unwrap();
    let directory = Directory::at(root.path()).unwrap();
    (root, directory)
}

fn options(members_max: u32) -> SyncOptions {
    SyncOptions { members_max, ..Default::default() }
}

fn condition(info: &SyncInfo) -> Condition {
    match info.state {
        SyncState::Mutex { condition } | SyncState::RwLock { condition, .. } => condition,
        other => panic!("{other:?}"),
    }
}

#[test]
fn who_looks_sees_the_owner_and_changes_not_a_byte() {
    let (root, directory) = scratch();
    let mutex = Mutex::create_in(&directory, "m", &options(4), [1, 2]).unwrap();
    let other = Mutex::open_in(&directory, "m").unwrap();
    let guard = other.lock().unwrap();
    let ctl = root.path().join("m/.sync/ctl");
    let before = fs::read(&ctl).unwrap();
    let info = directory.inspect_sync("m").unwrap();
    assert!(fs::read(&ctl).unwrap() == before, "it was changed");
    assert_eq!((info.kind, info.holder, info.waiting), (SyncKind::Mutex, Some(1), false));
    assert_eq!((info.members_max, info.data_size, info.memory), (4, 16, before.len() as u64));
    let pids: Vec<_> =
        info.members.iter().map(|one| (one.pid, one.liveness.is_alive(), one.held)).collect();
    assert_eq!(pids, [(std::process::id(), true, 0), (std::process::id(), true, 1)]);
    drop(guard);
    drop(mutex);
    let info = directory.inspect_sync("m").unwrap();
    assert_eq!((info.holder, info.members.len()), (None, 1));
}

#[test]
fn a_lock_that_was_left_behind_has_died_until_it_is_mended() {
    let (_root, directory) = scratch();
    let mutex = Mutex::create_in(&directory, "m", &options(4), [0; 2]).unwrap();
    let leaver = Mutex::open_in(&directory, "m").unwrap();
    std::mem::forget(leaver.lock().unwrap());
    assert_eq!(condition(&directory.inspect_sync("m").unwrap()), Condition::Consistent);
    drop(leaver); // its guard is forgotten: the lock is nobody's
    let info = directory.inspect_sync("m").unwrap();
    assert_eq!((condition(&info), info.holder), (Condition::OwnerDied, None));
    let Err(LockError::OwnerDied(mut guard)) = mutex.lock() else { panic!("told") };
    let info = directory.inspect_sync("m").unwrap();
    assert_eq!((condition(&info), info.holder), (Condition::OwnerDied, Some(0)));
    guard.mark_consistent();
    drop(guard);
    assert_eq!(condition(&directory.inspect_sync("m").unwrap()), Condition::Consistent);
}

#[test]
fn who_waits_is_seen_to_wait() {
    let (_root, directory) = scratch();
    let limits = RwLock::create_in(&directory, "r", &options(4), [0u64; 2]).unwrap();
    let writer = limits.write().unwrap();
    let barrier = Barrier::create_in(&directory, "b", &options(4), 2).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let limits = RwLock::<[u64; 2]>::open_in(&directory, "r").unwrap();
            drop(limits.read().unwrap());
            Barrier::open_in(&directory, "b").unwrap().wait().unwrap();
        });
        while !directory.inspect_sync("r").unwrap().waiting {
            std::thread::yield_now();
        }
        assert_eq!(directory.inspect_sync("r").unwrap().holder, Some(0));
        drop(writer);
        let arrived = |count| {
            let state = directory.inspect_sync("b").unwrap().state;
            state == SyncState::Barrier { parties: 2, arrived: count, broken: false }
        };
        while !arrived(1) {
            std::thread::yield_now();
        }
        barrier.wait().unwrap();
        assert!(arrived(0));
    });
}

#[test]
fn the_living_are_not_swept() {
    let (_root, directory) = scratch();
    let semaphore = Semaphore::create_in(&directory, "s", &options(4), 3).unwrap();
    let permit = semaphore.acquire().unwrap();
    assert_eq!(directory.sweep_sync("s").unwrap(), 0);
    let state = directory.inspect_sync("s").unwrap().state;
    assert_eq!(state, SyncState::Semaphore { permits: 3, free: 2 });
    drop(permit);
    drop(Condvar::create_in(&directory, "c", &options(4)).unwrap());
    assert_eq!(directory.sweep_sync("c").unwrap(), 0);
}

#[test]
fn what_is_no_object_is_told_as_what_it_is() {
    let (root, directory) = scratch();
    assert!(matches!(directory.inspect_sync("m"), Err(SyncOpenError::NotFound { .. })));
    assert!(matches!(directory.sweep_sync(".m"), Err(SyncOpenError::Name(_))));
    let mutex = Mutex::create_in(&directory, "m", &options(4), [0; 2]).unwrap();
    drop(mutex.lock_timeout(Duration::ZERO).unwrap());
    let removed = directory.remove_sync("m", false);
    assert!(matches!(removed, Err(SyncRemoveError::InUse { members: 1, .. })));
    drop(mutex);
    let ctl = root.path().join("m/.sync/ctl");
    let whole = fs::read(&ctl).unwrap();
    let changed = |at: usize, byte: u8| {
        let mut bytes = whole.clone();
        bytes[at] = byte;
        fs::write(&ctl, bytes).unwrap();
        (directory.inspect_sync("m").unwrap_err(), directory.sweep_sync("m").unwrap_err())
    };
    for (at, byte, error) in [
        (0, 0, "Foreign"),
        (8, 9, "Version"),
        (40, 0, "Header"),
        (40, 200, "Header"),
        (44, 127, "Header"),
        (25, 0, "Header"),
    ] {
        let (looked, swept) = changed(at, byte);
        for found in [looked, swept] {
            assert!(format!("{found:?}").starts_with(error), "{at}: {found:?}, not {error}");
        }
    }
    fs::write(&ctl, &whole[..whole.len() - 1]).unwrap();
    assert!(matches!(directory.inspect_sync("m"), Err(SyncOpenError::Short { .. })));
    fs::write(&ctl, &whole).unwrap();
    directory.inspect_sync("m").unwrap();
}

#[test]
fn a_condvar_in_use_is_not_removed_without_force_and_its_last_handle_lets_it_go() {
    let (root, directory) = scratch();
    let one = Condvar::create_in(&directory, "c", &options(4)).unwrap();
    let other = Condvar::open_in(&directory, "c").unwrap();
    for handle in [one, other] {
        assert_eq!(directory.inspect_sync("c").unwrap().in_use, Some(true));
        let removed = directory.remove_sync("c", false);
        assert!(matches!(removed, Err(SyncRemoveError::InUse { members: 1, .. })), "{removed:?}");
        drop(handle);
    }
    assert_eq!(directory.inspect_sync("c").unwrap().in_use, Some(false));
    directory.remove_sync("c", false).unwrap();
    assert!(!root.path().join("c").exists());
    let held = Condvar::open_or_create_in(&directory, "c", &options(4)).unwrap();
    directory.remove_sync("c", true).unwrap();
    drop(held);
}

#[test]
fn who_has_a_lock_open_is_not_removed_without_force() {
    const ROUNDS: u32 = 200;
    let (_root, directory) = scratch();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Relaxed) {
                match directory.remove_sync("m", false) {
                    Ok(()) | Err(SyncRemoveError::InUse { .. }) => {}
                    Err(SyncRemoveError::Open(
                        SyncOpenError::NotFound { .. } | SyncOpenError::Removed { .. },
                    )) => std::thread::yield_now(),
                    Err(error) => panic!("{error:?}"),
                }
            }
        });
        let _over = Over(&is_over);
        for round in 0..ROUNDS {
            match Mutex::open_or_create_in(&directory, "m", &options(2), [0; 2]) {
                Ok(mutex) => {
                    for _ in 0..4 {
                        std::thread::yield_now();
                    }
                    assert!(mutex.lock().is_ok(), "round {round}: removed in use");
                }
                Err(error) => panic!("{error:?}"),
            }
        }
    });
}

/// Ends the other thread, also if this one panics.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}
