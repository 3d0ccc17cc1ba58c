//! Those whose time is over just when they were chosen: another one goes on in their place.

use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use shmbus::sync::{Condvar, LockError, RobustMutex, WaitError};

use crate::{LONG, Place, place, thread_id, until_asleep};

/// Two wait for a token, the first one with a deadline. One token is put there, and the mutex is locked until the first one, which was woken for it, has gone. A second one that
/// nobody wakes looks by itself a second after it came.
fn latency() -> Duration {
    let place = place();
    let mutex =
        || RobustMutex::open_or_create_in(&place.directory, "m", &place.options, 0u64).unwrap();
    let tokens = mutex();
    let condvar = Condvar::create_in(&place.directory, "c", &place.options).unwrap();
    thread::scope(|scope| {
        let (tell, told) = channel();
        // Who joins has others look around: both have joined before the first one sleeps.
        let (begin, wait_to_begin) = channel();
        let (go, wait_to_go) = channel();
        let (in_time, condvar, mutex) = (tell.clone(), &condvar, &mutex);
        let first = scope.spawn(move || {
            let mutex = mutex();
            in_time.send(thread_id()).unwrap();
            wait_to_begin.recv().unwrap();
            let guard = mutex.lock().unwrap();
            let patience = Duration::from_millis(300);
            let waited = condvar.wait_while_timeout(guard, |tokens| *tokens == 0, patience);
            assert!(matches!(waited, Err(LockError::Failed(WaitError::TimedOut))));
        });
        let first_id = told.recv().unwrap();
        let second = scope.spawn(move || {
            let mutex = mutex();
            tell.send(thread_id()).unwrap();
            wait_to_go.recv().unwrap();
            let guard = mutex.lock().unwrap();
            let patience = LONG;
            *condvar.wait_while_timeout(guard, |tokens| *tokens == 0, patience).unwrap() -= 1;
            Instant::now()
        });
        let second_id = told.recv().unwrap();
        for (thread, go) in [(first_id, begin), (second_id, go)] {
            go.send(()).unwrap();
            until_asleep(thread, || is_awaited(&place));
        }
        let mut guard = tokens.lock().unwrap();
        *guard += 1;
        condvar.notify_one();
        first.join().unwrap();
        let unlocked = Instant::now();
        drop(guard);
        second.join().unwrap().saturating_duration_since(unlocked)
    })
}

/// Somebody waits for the condition, and nobody has the mutex: who sleeps does so for the condition.
fn is_awaited(place: &Place) -> bool {
    let [mutex, condvar] = ["m", "c"].map(|name| place.directory.inspect_sync(name).unwrap());
    mutex.holder.is_none() && condvar.waiting
}

#[test]
fn a_notice_that_comes_to_one_whose_time_is_over_goes_to_another() {
    let mut latencies: Vec<Duration> = (0..5).map(|_| latency()).collect();
    latencies.sort();
    println!("{latencies:?}");
    assert!(latencies[2] < Duration::from_millis(300), "nobody was woken: {latencies:?}");
}
