//! Brokers of guarded topics at their points: who asks them is told, and the next broker of the same descriptors lets everybody in.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::{Duration, Instant};

use shmbus::{AttachError, Broker, Delivery, GuardedTopic, Policy, Rule, Topic, TopicOptions};
use shmbus_sys::unix;

use crate::cases::{How, Point, each, name};
use crate::message::Message;
use crate::processes::{Part, Process, Role, Stage};
use crate::runner::Plan;
use crate::victims::TOPIC;

pub(crate) const ROLES: &[Part] = &[("broker", broker), ("member", member)];

/// Word of the board: that brokers are to end.
const END: usize = 30;
/// Word of the board: that a member has joined.
const JOINED: usize = 31;
const SUBSCRIBERS: u32 = 4;

/// Behind the joining of a publisher and of a subscriber, which ask three times.
const BROKER: &[Point] =
    &["broker.leased:2", "broker.cleared:2", "broker.granted:2", "broker.answered:4"];
/// Behind these and a member that is killed, whose page is the next one's.
const BEHIND_THE_DEAD: &[Point] =
    &["broker.leased:3", "broker.cleared:3", "broker.granted:3", "broker.answered:6"];

fn beside(stage: &Path, file: &str) -> PathBuf {
    stage.parent().expect("topics are in a directory of the stage").join(file)
}

/// Answers with what it is passed until it is told to end.
fn broker(role: &Role) {
    let rule = Rule {
        uids: vec![rustix::process::geteuid().as_raw()],
        topics: vec![TOPIC.to_owned()],
        publish: true,
        subscribe: true,
        reliable: true,
        patience: Duration::from_secs(60),
        subscribers: SUBSCRIBERS,
        ..Rule::default()
    };
    let socket = beside(role.directory.path(), "keeper");
    let keeper = unix::connect(&socket, Duration::from_secs(60)).unwrap();
    let mut broker = Broker::inherit(keeper.as_fd(), Policy { rules: vec![rule] }).unwrap();
    let parent = rustix::process::getppid();
    while role.board.word(END).load(SeqCst) == 0 {
        assert_eq!(rustix::process::getppid(), parent, "the test is gone");
        broker.turn(Duration::from_millis(10)).unwrap();
    }
}

pub(crate) fn a_broker_is_killed_or_stopped_and_the_next_one_lets_everybody_in(plan: &Plan) {
    for how in [How::Killed, How::Stopped] {
        each(plan, "broker", how, BROKER, |point, _| one(point, how, false));
        each(plan, "broker", how, BEHIND_THE_DEAD, |point, _| one(point, how, true));
    }
}

/// A reliable subscriber that receives nothing, until it is killed.
fn member(role: &Role) {
    let socket = beside(role.directory.path(), "socket");
    let _subscriber =
        Topic::<Message>::connect(&socket, TOPIC).unwrap().subscriber(Delivery::Reliable).unwrap();
    role.board.word(JOINED).store(1, SeqCst);
    loop {
        thread::park();
    }
}

fn one(point: Point, how: How, behind_the_dead: bool) -> Duration {
    let stage = Stage::new();
    let options = TopicOptions { depth: 64, subscribers_max: SUBSCRIBERS, ..Default::default() };
    let topics = [GuardedTopic::create::<Message>(TOPIC, &options).unwrap()];
    let socket = beside(stage.directory.path(), "socket");
    let listener = Broker::listen(&socket).unwrap();
    let keeper = Broker::listen(&beside(stage.directory.path(), "keeper")).unwrap();
    let lend = |process: Process| {
        let mut lent = None;
        stage.until("a broker asks for its topics", || {
            lent = unix::accept(keeper.as_fd()).unwrap();
            lent.is_some()
        });
        Broker::lend(lent.unwrap().as_fd(), listener.as_fd(), &topics).unwrap();
        process
    };
    let victim = lend(stage.victim("broker", &[], point, how));
    let topic = Topic::<Message>::connect(&socket, TOPIC).unwrap();
    let mut publisher = topic.publisher().unwrap();
    let mut subscriber = topic.subscriber(Delivery::Reliable).unwrap();
    if behind_the_dead {
        let member = stage.spawn("member", &[]);
        stage.until("a member joins", || stage.board.word(JOINED).load(SeqCst) == 1);
        member.kill();
    }
    let asks = {
        let topic = topic.clone();
        thread::spawn(move || topic.subscriber(Delivery::Lossy))
    };
    how.met(&stage, &victim, || {});
    let begin = Instant::now();
    let mut stopped = Some(victim);
    if how == How::Killed
        && let Some(victim) = stopped.take()
    {
        victim.killed();
    }
    if let Some(victim) = &stopped {
        // Others are let in beside the one that stands still, on other pages.
        let next = lend(stage.spawn("broker", &[]));
        topic.subscriber(Delivery::Lossy).unwrap();
        drop(next);
        victim.go_on();
    }
    let outcome = asks.join().unwrap();
    let is_told = how == How::Killed && name(point) != "broker.answered";
    assert_eq!(outcome.is_err(), is_told, "{:?}", outcome.err());
    for counter in 0..3 * options.depth {
        publisher.publish(&Message::new(0, counter)).unwrap();
        let sample = subscriber.receive().unwrap();
        assert_eq!(sample.missed_before(), 0);
        assert!(*sample == Message::new(0, counter));
    }
    let next = lend(stage.spawn("broker", &[]));
    let mut late: Vec<_> = outcome.into_iter().collect();
    while late.len() + 1 < SUBSCRIBERS as usize {
        late.push(topic.subscriber(Delivery::Lossy).expect("no place was lost"));
    }
    let took = begin.elapsed();
    let full = topic.subscriber(Delivery::Lossy).err();
    assert!(matches!(full, Some(AttachError::SubscribersFull { .. })), "{full:?}");
    publisher.publish(&Message::new(0, 1_000)).unwrap();
    for subscriber in &mut late {
        assert!(subscriber.receive().is_ok());
    }
    stage.board.word(END).store(1, SeqCst);
    next.done();
    if let Some(victim) = stopped {
        victim.done();
    }
    took
}
