//! Calls that wait, or take long, in a program with a timer whose handler does not restart them: a profiler's, for example.
#![allow(unsafe_code)] // a handler, and signals to one thread

use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use shmbus_sys::{shm, unix};

/// How long signals come at most, and less than that a call may take that is to end before they do.
const SIGNALS: Duration = Duration::from_secs(15);
const LATE: Duration = Duration::from_secs(10);

extern "C" fn nothing(_: libc::c_int) {}

/// Runs `work` while this thread gets a signal every half millisecond.
fn interrupted<R>(work: impl FnOnce() -> R) -> R {
    let handler: extern "C" fn(libc::c_int) = nothing;
    // SAFETY: all zero is an action without flags: no SA_RESTART.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as libc::sighandler_t;
    // SAFETY: a valid action of a handler that does nothing.
    let set = unsafe { libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()) };
    assert_eq!(set, 0);
    // SAFETY: it takes nothing.
    let thread = unsafe { libc::pthread_self() };
    let ends = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let begun = Instant::now();
            while !ends.load(Ordering::Relaxed) && begun.elapsed() < SIGNALS {
                // SAFETY: the thread waits below for this one to end.
                unsafe { libc::pthread_kill(thread, libc::SIGUSR1) };
                std::thread::sleep(Duration::from_micros(500));
            }
        });
        let result = work();
        ends.store(true, Ordering::Relaxed);
        result
    })
}

#[test]
fn signals_neither_end_a_connect_that_waits_nor_prolong_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = unix::listen(&path, 0o600, 0).unwrap();
    let timeout = Duration::from_millis(300);
    let waits = unix::connect(&path, timeout).unwrap();
    let begun = Instant::now();
    let error = interrupted(|| unix::connect(&path, timeout)).unwrap_err();
    let took = begun.elapsed();
    assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
    assert!(took >= timeout && took < LATE, "{took:?}");
    // And one for which there comes to be room is connected.
    let connected = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(50));
            drop(unix::accept(listener.as_fd()).unwrap().unwrap());
        });
        interrupted(|| unix::connect(&path, Duration::from_secs(30)))
    });
    let connected = connected.unwrap();
    let served = unix::accept(listener.as_fd()).unwrap().unwrap();
    unix::send(connected.as_fd(), b"x", &[]).unwrap();
    assert_eq!(unix::receive(served.as_fd(), &mut [0; 8]).unwrap(), 1);
    drop(waits);
}

#[test]
fn signals_do_not_prolong_sending_and_receiving() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = unix::listen(&path, 0o600, 4).unwrap();
    let timeout = Duration::from_millis(200);
    let socket = unix::connect(&path, timeout).unwrap();
    let _served = unix::accept(listener.as_fd()).unwrap().unwrap();
    let in_time = |what, call: &mut dyn FnMut() -> std::io::Result<()>| {
        let begun = Instant::now();
        let error = interrupted(call).expect_err(what);
        let took = begun.elapsed();
        assert_eq!(error.kind(), ErrorKind::WouldBlock, "{what}: {error}");
        assert!(took >= timeout && took < LATE, "{what}: {took:?}");
    };
    in_time("receive", &mut || unix::receive(socket.as_fd(), &mut [0; 8]).map(drop));
    in_time("descriptors", &mut || {
        unix::receive_descriptors(socket.as_fd(), &mut [0; 8]).map(drop)
    });
    in_time("send", &mut || loop {
        unix::send(socket.as_fd(), &[0; 4096], &[])?;
    });
}

#[test]
fn a_large_file_is_allocated_while_signals_come() {
    let file = shm::memfd("signals").unwrap();
    let len = 64 << 20;
    let begun = Instant::now();
    interrupted(|| shm::allocate(file.as_fd(), len)).unwrap();
    assert!(begun.elapsed() < LATE, "{:?}", begun.elapsed());
    let stat = rustix::fs::fstat(&file).unwrap();
    assert_eq!((stat.st_size as u64, stat.st_blocks as u64 * 512), (len, len));
}
