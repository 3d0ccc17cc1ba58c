//! What the processes do that come to the points.
#![allow(unsafe_code)] // changes the user of a process

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use rustix::process::Signal;
use shmbus::{Delivery, ReceiveError, Topic};

use crate::message::{END, Message};
use crate::processes::{Part, Role};
use crate::survivors::{Account, skipped_before};

pub(crate) const TOPIC: &str = "crash/quotes";

/// The feed of loans that are dropped.
pub(crate) const DROPPED: u64 = END - 1;
/// How many messages of each feed were confirmed.
pub(crate) const CONFIRMED: usize = 1 << 10;
/// The sequence behind the last one that survivors published.
pub(crate) const PUBLISHED: usize = 8;
/// Says that a victim is so far; of a mover, its sequence + 1.
pub(crate) const READY: usize = 9;
/// Lets it go on.
pub(crate) const GO: usize = 10;

pub(crate) const ROLES: &[Part] = &[
    ("publisher", publisher),
    ("mover", mover),
    ("subscriber", subscriber),
    ("holder", holder),
    ("late_holder", late_holder),
    ("reader", reader),
];

fn open(role: &Role) -> Topic<Message> {
    Topic::open_in(&role.directory, TOPIC).unwrap()
}

fn wait_for(what: impl Fn() -> bool) {
    let parent = rustix::process::getppid();
    while !what() {
        assert_eq!(rustix::process::getppid(), parent, "the test is gone");
        std::thread::yield_now();
    }
}

/// Publishes in every way, confirms each message, and leaves.
fn publisher(role: &Role) {
    let [feed, messages, drops] = role.numbers();
    let confirmed = role.board.word(CONFIRMED + feed as usize);
    let mut publisher = open(role).publisher().unwrap();
    let mut last = None;
    for counter in 0..messages {
        if drops != 0 && counter % 5 == 2 {
            publisher.loan().unwrap().fill(DROPPED, counter);
        }
        let sequence = if counter % 2 == 0 {
            publisher.publish(&Message::new(feed, counter)).unwrap()
        } else {
            let mut loan = publisher.loan().unwrap();
            loan.fill(feed, counter);
            loan.commit().unwrap()
        };
        assert!(last < Some(sequence), "{sequence} after {last:?}");
        last = Some(sequence);
        confirmed.store(counter + 1, SeqCst);
    }
}

/// Stands still with a loan until its sequence was revoked, then commits.
fn mover(role: &Role) {
    let [feed] = role.numbers();
    let confirmed = role.board.word(CONFIRMED + feed as usize);
    let mut publisher = open(role).publisher().unwrap();
    let mut loan = publisher.loan().unwrap();
    loan.fill(feed, 0);
    let taken = loan.sequence();
    role.board.word(READY).store(taken + 1, SeqCst);
    wait_for(|| role.board.word(GO).load(SeqCst) == 1);
    assert!(loan.commit().unwrap() > taken, "committed where it had been revoked");
    confirmed.store(1, SeqCst);
    for counter in 1..20 {
        publisher.publish(&Message::new(feed, counter)).unwrap();
        confirmed.store(counter + 1, SeqCst);
    }
}

/// Receives, holds, sleeps, and leaves. A lossy one waits in the middle until it has been lapped.
fn subscriber(role: &Role) {
    let [reliable, messages] = role.numbers();
    let topic = open(role);
    let depth = topic.info().depth;
    let reliable = reliable != 0;
    let delivery = if reliable { Delivery::Reliable } else { Delivery::Lossy };
    let mut subscriber = topic.subscriber(delivery).unwrap();
    let mut account = Account::new(reliable, subscriber.position());
    let published = || role.board.word(PUBLISHED).load(SeqCst);
    role.board.word(READY).store(1, SeqCst);
    let mut held = Vec::new();
    while account.received() < messages {
        if !reliable && account.received() == messages / 2 {
            wait_for(|| published() > account.next + 3 * depth);
        }
        let sample = subscriber.receive().unwrap();
        account.accept(sample.sequence(), skipped_before(&sample), &sample);
        let copy = *sample;
        if account.next.is_multiple_of(5) {
            held.extend(sample.hold().ok().map(|held| (held, copy)));
        }
        if held.len() > 1 {
            check(&held.remove(0));
        }
    }
    held.iter().for_each(check);
    assert_eq!(account.missed, subscriber.missed());
    assert_eq!(account.abandoned, subscriber.abandoned());
}

fn check((held, copy): &(shmbus::Held<Message>, Message)) {
    assert!(**held == *copy && held.is_whole(), "changed while it was held: {}", held.sequence());
}

/// A subscriber that holds all it can, and then does nothing more.
fn holder(role: &Role) {
    let [reliable] = role.numbers();
    let delivery = if reliable != 0 { Delivery::Reliable } else { Delivery::Lossy };
    let mut subscriber = open(role).subscriber(delivery).unwrap();
    let mut held = Vec::new();
    role.board.word(READY).store(1, SeqCst);
    loop {
        let sample = subscriber.receive().unwrap();
        match sample.hold() {
            Ok(sample) => held.push(sample),
            Err(_) => break,
        }
    }
    role.board.word(READY).store(2, SeqCst);
    loop {
        std::thread::park();
    }
}

/// Holds where the dead hold all that can be held.
fn late_holder(role: &Role) {
    let mut subscriber = open(role).subscriber(Delivery::Lossy).unwrap();
    role.board.word(READY).store(1, SeqCst);
    wait_for(|| role.board.word(GO).load(SeqCst) == 1);
    let sample = subscriber.receive().unwrap();
    let copy = *sample;
    check(&(sample.hold().expect("room for a hold"), copy));
}

/// Receives as another user, who may not write `data`, to the end.
fn reader(role: &Role) {
    const NOBODY: u32 = 65534;
    // SAFETY: a system call that takes numbers.
    let changed = unsafe { libc::setresuid(NOBODY, NOBODY, NOBODY) };
    assert_eq!(changed, 0, "setresuid: {}", std::io::Error::last_os_error());
    // The kernel forgets it with the user.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
    let mut subscriber = open(role).subscriber(Delivery::Reliable).unwrap();
    let mut account = Account::new(true, subscriber.position());
    role.board.word(READY).store(1, SeqCst);
    loop {
        match subscriber.receive_timeout(Duration::from_millis(10)) {
            Ok(Some(sample)) => {
                account.accept(sample.sequence(), skipped_before(&sample), &sample);
                if sample.feed == END {
                    return;
                }
            }
            Ok(None) => {}
            Err(ReceiveError::Stalled { sequence }) => assert_eq!(sequence, account.next),
            Err(error) => panic!("{error}"),
        }
    }
}
