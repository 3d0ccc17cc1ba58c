//! A subscriber that may read the messages and not write them, behind a dead publisher.
//!
//! Permissions mean nothing to root, so the subscriber becomes another user. Where the test may not do that, it does nothing and says so.
#![allow(unsafe_code)] // changes the user of a process

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use rustix::process::Signal;
use shmbus::{
    AttachError, Delivery, OpenError, PublishError, Publishers, ReceiveError, Topic, TopicOptions,
};

use crate::claims::publish;
use crate::feeds::{Account, TOPIC, create, open, skipped_before};
use crate::message::{END, Message};
use crate::processes::{Part, Role, Stage};
use crate::random::Random;
use crate::{Plan, kills};

pub(crate) const ROLES: &[Part] = &[("reader", reader)];

const NOBODY: u32 = 65534;
/// What the reader says: its next sequence + 1, and the sequence at which it has stalled + 1.
const NEXT: usize = 48;
const STALLED: usize = 49;

/// Another user, who may not write `data`.
fn reader(role: &Role) {
    let [reliable] = role.numbers();
    // SAFETY: a system call that takes numbers.
    let changed = unsafe { libc::setresuid(NOBODY, NOBODY, NOBODY) };
    assert_eq!(changed, 0, "setresuid: {}", std::io::Error::last_os_error());
    // The kernel forgets it with the user.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
    let topic = open(role);
    match topic.publisher() {
        Err(AttachError::Open(OpenError::Permission { .. })) => {}
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it may write"),
    }
    let delivery = if reliable != 0 { Delivery::Reliable } else { Delivery::Lossy };
    let mut subscriber = topic.subscriber(delivery).unwrap();
    let mut account = Account::new(reliable != 0, subscriber.position());
    role.board.word(NEXT).store(account.next + 1, SeqCst);
    loop {
        match subscriber.receive_timeout(Duration::from_millis(10)) {
            Ok(Some(sample)) => {
                let message = *sample;
                account.accept(&role.board, sample.sequence(), skipped_before(&sample), &message);
                role.board.word(NEXT).store(account.next + 1, SeqCst);
                if message.feed == END {
                    break;
                }
            }
            Ok(None) => {}
            Err(ReceiveError::Stalled { sequence }) => {
                assert!(sequence >= account.next); // those between are abandoned
                role.board.word(STALLED).store(sequence + 1, SeqCst);
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(account.missed, subscriber.missed());
    assert_eq!(account.abandoned, subscriber.abandoned());
}

/// A topic of which everybody may write `ctl`, and only its owner `data`. `None` where this process cannot try it.
fn topic_to_be_read(stage: &Stage, depth: u64, claim_timeout: Duration) -> Option<Topic<Message>> {
    topic_of(stage, depth, claim_timeout, 3)
}

fn topic_of(
    stage: &Stage,
    depth: u64,
    claim_timeout: Duration,
    publishers: u32,
) -> Option<Topic<Message>> {
    if !rustix::process::geteuid().is_root() {
        println!("  skipped: only root can become another user");
        return None;
    }
    let options = TopicOptions {
        depth,
        subscribers_max: 2,
        publishers: Publishers::Shared(publishers),
        claim_timeout,
        mode: 0o666,
        ..Default::default()
    };
    let topic = create(stage, &options);
    let topics = stage.directory.path();
    let files = topics.join(TOPIC).join(".topic");
    let mut paths = vec![topics.parent().unwrap().to_owned(), topics.to_owned()];
    paths.extend([topics.join("crowd"), topics.join(TOPIC), files.clone()]);
    for path in paths {
        set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }
    set_permissions(files.join("ctl"), Permissions::from_mode(0o666)).unwrap();
    set_permissions(files.join("data"), Permissions::from_mode(0o644)).unwrap();
    Some(topic)
}

fn next(stage: &Stage) -> Option<u64> {
    stage.board.word(NEXT).load(SeqCst).checked_sub(1)
}

pub(crate) fn a_subscriber_that_may_not_write_is_helped_by_a_living_publisher_and_told_where_there_is_none(
    plan: &Plan,
) {
    let mut random = Random::new(plan.seed);
    for (reliable, claim_timeout) in [(true, Duration::ZERO), (false, Duration::from_millis(20))] {
        let stage = Stage::new();
        let Some(topic) = topic_to_be_read(&stage, 4096, claim_timeout) else { return };
        let reader = stage.spawn("reader", &[reliable.into()]);
        let next = || next(&stage);
        stage.until("the reader attaches", || next().is_some());
        let (mut counter, mut feed) = (0, 1);
        let stalled = || stage.board.word(STALLED).load(SeqCst);
        let mut told = 0;
        for round in 0..kills(plan, 20) {
            let mut publisher = topic.publisher().unwrap();
            publish(&mut publisher, 0, &mut counter, random.below(0..10));
            stage.board.word(STALLED).store(0, SeqCst);
            let (lender, sequence) = stage.lender(0, feed);
            feed += 1;
            let behind = publish(&mut publisher, 0, &mut counter, 3);
            stage.until("the reader comes to it", || next() == Some(sequence));
            // Dead, or alive and in its hands for longer than the topic allows.
            let mut alive = Some(lender);
            if claim_timeout.is_zero() || random.one_in(2) {
                alive.take().unwrap().kill();
            }
            if round % 2 == 0 {
                // The last publisher leaves: nobody can help, if it has not done so already, where it took long over the three.
                drop(publisher);
                let is_helped = || next().unwrap() > sequence;
                // Twice: the first time it may be about to say what it was told before.
                for _ in 0..2 {
                    stage.board.word(STALLED).store(0, SeqCst);
                    stage.until("the reader is told", || stalled() == sequence + 1 || is_helped());
                }
                if is_helped() {
                    stage.until("it goes on", || next().unwrap() == behind + 1);
                } else {
                    assert_eq!(next(), Some(sequence));
                    told += 1;
                }
                publisher = topic.publisher().unwrap();
            }
            // Any publisher that does anything. A lossy one is not lapped here: the ring holds what is published in eight seconds.
            let mut last = behind;
            stage.until("the reader is helped", || {
                if next().unwrap() <= sequence {
                    std::thread::sleep(Duration::from_millis(2));
                    let message = Message::new(0, counter);
                    let deadline = Duration::ZERO;
                    match publisher.publish_timeout(&message, deadline) {
                        Ok(sequence) => (last, counter) = (sequence, counter + 1),
                        Err(error) => assert_eq!(error, PublishError::TimedOut),
                    }
                }
                next().unwrap() > sequence
            });
            stage.until("the reader goes on", || next().unwrap() == last + 1);
            if let Some(lender) = alive {
                stage.commit(0);
                lender.done();
                let committed = stage.committed(0);
                assert!(committed > last, "committed where it had been revoked");
                stage.until("the message comes all the same", || next() == Some(committed + 1));
            }
        }
        assert!(told > 0, "there was always help");
        stage.publish_end(&topic);
        reader.done();
        drop(topic);
        stage.end(TOPIC);
    }
}

/// It is stuck in a block that the topic has given up: nobody can help it there, and nobody needs to.
pub(crate) fn a_lossy_subscriber_that_may_not_write_is_lapped_where_a_publisher_died_and_goes_on(
    _plan: &Plan,
) {
    let stage = Stage::new();
    let Some(topic) = topic_to_be_read(&stage, 16, Duration::ZERO) else { return };
    let reader = stage.spawn("reader", &[0]);
    stage.until("the reader attaches", || next(&stage).is_some());
    let (lender, sequence) = stage.lender(0, 1);
    let mut publisher = topic.publisher().unwrap();
    let mut counter = 0;
    let behind = publish(&mut publisher, 0, &mut counter, 1);
    assert_eq!((next(&stage), behind), (Some(sequence), sequence + 1));
    lender.kill();
    let last = publish(&mut publisher, 0, &mut counter, 100);
    stage.until("the reader goes on", || {
        publish(&mut publisher, 0, &mut counter, 1);
        next(&stage).unwrap() > last
    });
    drop(publisher);
    stage.publish_end(&topic);
    reader.done();
    drop(topic);
    stage.end(TOPIC);
}

/// Several are killed with a sequence each, and a living one stands still for longer than it may: the publisher that lends a hand does so once per block, and
/// not once per sequence.
pub(crate) fn a_publisher_helps_with_all_that_is_taken_in_a_block_at_once(_plan: &Plan) {
    const COUNT: u64 = 16;
    for (killed, claim_timeout) in [(true, Duration::ZERO), (false, Duration::from_millis(200))] {
        let stage = Stage::new();
        let Some(topic) = topic_of(&stage, 4096, claim_timeout, COUNT as u32 + 1) else { return };
        let reader = stage.spawn("reader", &[1]);
        stage.until("the reader attaches", || next(&stage).is_some());
        let mut publisher = topic.publisher().unwrap();
        let count = if killed { 0 } else { COUNT };
        let mut others: Vec<_> = (0..count).map(|_| topic.publisher().unwrap()).collect();
        let loans: Vec<_> = others.iter_mut().map(|other| other.loan().unwrap()).collect();
        for number in 0..COUNT - count {
            stage.lender(0, number + 1).0.kill();
        }
        // It asks, and nobody is there to help.
        let mut counter = 0;
        let first = publish(&mut publisher, 0, &mut counter, 1);
        stage.board.word(STALLED).store(0, SeqCst);
        // Unless it had asked before that publish, which has helped it past all of them then.
        let is_past = || next(&stage) > Some(first);
        stage.until("it has asked", || stage.board.word(STALLED).load(SeqCst) != 0 || is_past());
        std::thread::sleep(2 * claim_timeout);
        let blocks = COUNT / topic.info().block_len + 2;
        let mut helped = 0;
        while next(&stage) <= Some(first) {
            helped += 1;
            publish(&mut publisher, 0, &mut counter, 1);
            let asked = next(&stage);
            let patience = std::time::Instant::now();
            while next(&stage) == asked && patience.elapsed() < Duration::from_millis(200) {
                std::thread::yield_now();
            }
        }
        println!("  {COUNT} sequences in {blocks} blocks or less: {helped} publishes");
        assert!(helped < COUNT, "one publish for each: {helped}");
        drop(loans);
        drop((others, publisher));
        stage.publish_end(&topic);
        reader.done();
        drop(topic);
        stage.end(TOPIC);
    }
}
