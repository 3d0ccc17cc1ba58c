//! One sweeps for all: what those see who wait, when the sweeper stands still, and what it costs.

use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::{Duration, Instant};

use shmbus::{
    Delivery, PublishError, Publisher, Publishers, Topic, TopicOptions, TryPublishError, internals,
};

use crate::processes::{Part, Process, Role, Stage, beat};
use crate::{Plan, kills};

pub(crate) const ROLES: &[Part] = &[("stander", stander), ("receiver", receiver)];

const TOPIC: &str = "md/quotes";
const READY: usize = 100;
const STANDS: usize = 101;
const DEPTH: u64 = 16;

fn create(stage: &Stage) -> Topic<u64> {
    let options = TopicOptions {
        depth: DEPTH,
        subscribers_max: 4,
        publishers: Publishers::Shared(6),
        ..Default::default()
    };
    Topic::create_in(&stage.directory, TOPIC, &options).unwrap()
}

/// Takes the recovery lock and keeps it, until it is killed.
fn stander(role: &Role) {
    let topic = Topic::<u64>::open_in(&role.directory, TOPIC).unwrap();
    let publisher = topic.publisher().unwrap();
    let _ = internals::with_lock_of(&publisher, || {
        role.board.word(STANDS).store(1, Release);
        loop {
            std::thread::park();
        }
    });
}

/// Subscribes, and receives nothing until it is killed.
fn receiver(role: &Role) {
    let topic = Topic::<u64>::open_in(&role.directory, TOPIC).unwrap();
    let _subscriber = topic.subscriber(Delivery::Reliable).unwrap();
    role.board.word(READY).store(1, Release);
    loop {
        std::thread::park();
    }
}

fn spawn_receiver(stage: &Stage) -> Process {
    stage.board.word(READY).store(0, Release);
    let receiver = stage.spawn("receiver", &[]);
    stage.until("it subscribes", || stage.board.word(READY).load(Acquire) == 1);
    receiver
}

fn fill(publisher: &mut Publisher<u64>) {
    loop {
        match publisher.try_publish(&0) {
            Ok(_) => {}
            Err(TryPublishError::Full) => return,
            Err(error) => panic!("{error}"),
        }
    }
}

/// How long a publisher waits behind a subscriber that is killed, the median of some.
fn wait_behind_the_killed(stage: &Stage, publisher: &mut Publisher<u64>, rounds: u64) -> Duration {
    let mut waits: Vec<Duration> = (0..rounds)
        .map(|_| {
            let receiver = spawn_receiver(stage);
            fill(publisher);
            receiver.kill();
            let begin = Instant::now();
            publisher.publish(&0).unwrap();
            beat();
            begin.elapsed()
        })
        .collect();
    waits.sort_unstable();
    waits[waits.len() / 2]
}

pub(crate) fn who_waits_for_a_dead_subscriber_goes_on_although_a_sweeper_stands_with_the_lock(
    plan: &Plan,
) {
    let stage = Stage::new();
    let topic = create(&stage);
    let mut publisher = topic.publisher().unwrap();
    let rounds = kills(plan, 30).max(7);
    let free = wait_behind_the_killed(&stage, &mut publisher, rounds);
    let stander = stage.spawn("stander", &[]);
    stage.until("it has the lock", || stage.board.word(STANDS).load(Acquire) == 1);
    stander.stop();
    let before = topic.info().deaths;
    let behind = wait_behind_the_killed(&stage, &mut publisher, rounds);
    println!("  median wait {free:?}, and {behind:?} where a sweeper stands with the lock");
    // 5 ms and 10 ms at most, and twice as much each, for a busy machine.
    assert!(behind < free.max(Duration::from_millis(5)) * 4, "{behind:?}, not {free:?}");
    assert_eq!(topic.info().deaths, before, "who has no lock does not write the record");
    stander.kill();
    // Whoever comes next has it, and counts again.
    let receiver = spawn_receiver(&stage);
    assert!(topic.info().deaths > before, "the last one, whose entry it has");
    receiver.kill();
    publisher.publish(&0).unwrap();
}

pub(crate) fn publishers_that_wait_together_ask_for_leases_as_often_as_one(_: &Plan) {
    const WAITING: u64 = 4;
    const SUBSCRIBERS: u64 = 1;
    let stage = Stage::new();
    let topic = create(&stage);
    let receiver = spawn_receiver(&stage);
    fill(&mut topic.publisher().unwrap());
    let publishers: Vec<_> = (0..WAITING)
        .map(|_| {
            let theirs = Topic::<u64>::open_in(&stage.directory, TOPIC).unwrap();
            theirs.publisher().unwrap()
        })
        .collect();
    let (before, begin) = (internals::asked(), Instant::now());
    let waiting: Vec<_> = publishers
        .into_iter()
        .map(|mut publisher| {
            std::thread::spawn(move || publisher.publish_timeout(&0, Duration::from_millis(500)))
        })
        .collect();
    for waiting in waiting {
        assert_eq!(waiting.join().unwrap(), Err(PublishError::TimedOut));
    }
    let (asked, periods) = (internals::asked() - before, begin.elapsed().as_millis() as u64 / 5);
    println!("  {asked} leases asked for in {periods} times 5 ms, by {WAITING} publishers");
    assert!(asked > periods / 20, "nobody sweeps");
    // One sweep each time, and those of who found the lock taken twice.
    assert!(asked <= (periods + 2) * SUBSCRIBERS * 2, "each sweeps for itself");
    receiver.kill();
}

pub(crate) fn every_subscriber_found_dead_is_counted_once(plan: &Plan) {
    let stage = Stage::new();
    let topic = create(&stage);
    let mut publisher = topic.publisher().unwrap();
    assert_eq!((topic.info().deaths, topic.info().last_death), (0, None));
    for round in 1..=kills(plan, 40) {
        let receiver = spawn_receiver(&stage);
        let pid = receiver.pid().as_raw_nonzero().get() as u32;
        if round % 2 == 0 {
            fill(&mut publisher);
            receiver.kill();
            publisher.publish(&0).unwrap(); // it sweeps
        } else {
            receiver.kill();
            drop(topic.subscriber(Delivery::Lossy).unwrap()); // or who joins
        }
        let info = topic.info();
        assert_eq!(info.deaths, round);
        assert_eq!(info.last_death.map(|dead| dead.pid), Some(pid));
        drop(topic.subscriber(Delivery::Lossy).unwrap());
        assert_eq!(topic.info().deaths, round, "counted once");
    }
    drop(publisher);
    drop(topic);
    stage.end(TOPIC);
}
