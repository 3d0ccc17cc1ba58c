//! Ends of processes that are no deaths, and some that are.
#![allow(unsafe_code)] // _exit, fork

use std::path::Path;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use shmbus::{Delivery, Directory, Publisher, Publishers, Start, Subscriber, Topic, TopicOptions};

use super::{directory, role, small};

/// What nobody drops.
struct Handles {
    _subscriber: Subscriber<u64>,
    _publisher: Publisher<u64>,
}

static HANDLES: OnceLock<Mutex<Handles>> = OnceLock::new();

fn join(topic: &Topic<u64>) {
    let mut subscriber = topic.subscriber(Delivery::Reliable).unwrap();
    let mut publisher = topic.publisher().unwrap();
    publisher.publish(&1).unwrap();
    assert_eq!(*subscriber.receive().unwrap(), 1);
    let handles = Handles { _subscriber: subscriber, _publisher: publisher };
    assert!(HANDLES.set(Mutex::new(handles)).is_ok());
}

fn open(path: &Path) -> Topic<u64> {
    Topic::open_in(&Directory::at(path).unwrap(), "t").unwrap()
}

/// Beside a thread that receives until the end.
pub(super) fn play_exit(path: &Path) {
    let topic = open(path);
    join(&topic);
    let mut publisher = topic.publisher().unwrap();
    let mut subscriber = topic.subscriber_from(Delivery::Lossy, Start::Newest).unwrap();
    std::thread::spawn(move || {
        loop {
            publisher.publish(&2).unwrap();
            subscriber.receive_timeout(Duration::from_millis(1)).unwrap();
        }
    });
    std::process::exit(0);
}

pub(super) fn play_exit_at_once(path: &Path) {
    join(&open(path));
    // SAFETY: it ends the process.
    unsafe { libc::_exit(0) };
}

/// A forked child ends in order: its parent does not.
pub(super) fn play_exit_of_a_fork(path: &Path) {
    let topic = open(path);
    join(&topic);
    let before: Vec<_> = topic.info().participants.iter().map(|other| other.pid).collect();
    // SAFETY: the child ends the process, and does nothing else.
    match unsafe { libc::fork() } {
        0 => std::process::exit(7),
        child => {
            let mut status = 0;
            // SAFETY: `status` is valid for writes.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 7, "{status:#x}");
        }
    }
    let info = topic.info();
    let after: Vec<_> = info.participants.iter().map(|other| other.pid).collect();
    assert_eq!(
        (before, info.participants.iter().all(|other| other.liveness.is_alive())),
        (after, true)
    );
    std::process::exit(0);
}

#[test]
fn an_exit_with_handles_that_nobody_drops_is_no_death_and_one_without_order_is() {
    let (path, directory) = directory();
    let options = TopicOptions { publishers: Publishers::Shared(3), ..small() };
    let topic = Topic::<u64>::create_in(&directory, "t", &options).unwrap();
    let mut deaths = 0;
    for (name, dead) in [("exit", 0), ("exit of a fork", 0), ("exit at once", 2), ("exit", 0)] {
        let status = role(name, path.path()).status().unwrap();
        assert!(status.success(), "{name}: {status}");
        deaths += dead;
        // Who joins sweeps and counts, subscribers and publishers.
        drop((topic.subscriber(Delivery::Lossy).unwrap(), topic.publisher().unwrap()));
        drop((topic.subscriber(Delivery::Lossy).unwrap(), topic.publisher().unwrap()));
        let info = topic.info();
        assert_eq!((info.deaths, info.participants.len()), (deaths, 0), "{name}");
    }
}
