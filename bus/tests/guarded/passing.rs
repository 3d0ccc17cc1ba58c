//! What passes: a signal, a moment without descriptors.
#![allow(unsafe_code)] // a handler, and signals to one thread

use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use shmbus::{Broker, GuardedTopic, OpenError, Topic};
use shmbus_sys::unix;

use crate::support::Player;
use crate::{NAME, everything, options};

#[test]
fn a_broker_that_has_no_descriptor_for_who_waits_does_not_spin_and_lets_them_in_later() {
    let directory = tempfile::tempdir().unwrap();
    Player::new("starves", &directory.path().join("broker")).done();
}

/// In a process of its own, which is without descriptors for a while.
pub(crate) fn starves(socket: &std::path::Path) {
    let topics = vec![GuardedTopic::create::<u64>(NAME, &options()).unwrap()];
    let mut broker = Broker::new(Broker::listen(socket).unwrap(), topics, everything()).unwrap();
    let _waits = unix::connect(socket, Duration::from_secs(5)).unwrap();
    let limit = getrlimit(Resource::Nofile);
    let free = std::fs::File::open("/dev/null").unwrap().as_raw_fd() as u64;
    setrlimit(Resource::Nofile, Rlimit { current: Some(free), ..limit }).unwrap();
    let begun = Instant::now();
    let mut turns = 0;
    while begun.elapsed() < Duration::from_millis(400) {
        broker.turn(Duration::from_millis(20)).unwrap();
        turns += 1;
    }
    assert!(turns <= 100, "{turns} turns in 0.4 s");
    setrlimit(Resource::Nofile, limit).unwrap();
    let ends = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ends.load(Ordering::Relaxed) {
                broker.turn(Duration::from_millis(20)).unwrap();
            }
        });
        let connected = Topic::<u64>::connect(socket, NAME);
        ends.store(true, Ordering::Relaxed);
        connected.unwrap();
    });
}

extern "C" fn nothing(_: libc::c_int) {}

#[test]
fn a_signal_is_not_taken_for_the_end_of_the_time_that_a_broker_has() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("broker");
    let listener = unix::listen(&socket, 0o600, 4).unwrap();
    let handler: extern "C" fn(libc::c_int) = nothing;
    // SAFETY: all zero is an action without flags.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as libc::sighandler_t;
    // SAFETY: a valid action of a handler that does nothing.
    unsafe { libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()) };
    // SAFETY: it takes nothing.
    let asks = unsafe { libc::pthread_self() };
    let error = std::thread::scope(|scope| {
        // It takes its time, and says nothing in the end.
        scope.spawn(|| {
            let begun = Instant::now();
            let mut client = None;
            while begun.elapsed() < Duration::from_millis(200) || client.is_none() {
                client = client.or_else(|| unix::accept(listener.as_fd()).unwrap());
                // SAFETY: the thread waits below for this one to end.
                unsafe { libc::pthread_kill(asks, libc::SIGUSR1) };
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        Topic::<u64>::connect(&socket, NAME).err().unwrap()
    });
    let OpenError::Broker { source, .. } = error else { panic!("{error}") };
    assert_eq!(source.kind(), std::io::ErrorKind::ConnectionReset);
}
